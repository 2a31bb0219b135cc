"""Lookups of arrays (PostgreSQL): `tags__contains=["a"]`, `tags__len__gt=2`, `scores__0=5`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.fields.inference import INTEGER
from covet_orm.queries.lookups import Lookup, Transform

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["LOOKUPS", "TRANSFORMS", "element"]


class ArrayLookup(Lookup):
    """An operator between two arrays."""

    def __init__(self, name: str, operator: str) -> None:
        super().__init__(name, lambda left, right: left.op(operator, is_comparison=True)(right))

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        require_arrays(scope)
        return super().build(scope, left, field, value)


def require_arrays(scope: Scope) -> None:
    """Raise NotSupported where there are no arrays."""
    if scope.kind != "postgresql":
        raise NotSupported(f"{scope.kind} has no arrays; PostgreSQL has, and a JSONField keeps lists on every database")


def _length(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
    require_arrays(scope)
    # The length of an empty array is NULL there.
    length = func.coalesce(func.array_length(column, sqlalchemy.literal_column("1")), sqlalchemy.literal_column("0"))
    return sqlalchemy.case((column.is_not(None), length))


def element(name: str) -> Transform | None:
    """The transform that gives an element by its position, from 0; None where a name is no number."""
    if not name.isdecimal() or not name.isascii():
        return None
    position = int(name)
    if position >= 2**31 - 1:
        raise QueryError(f"{name} is no position that an array may have")

    def build(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
        require_arrays(scope)
        return column[sqlalchemy.literal_column(str(position + 1))]

    return Transform(name, build, lambda field: field.base)  # type: ignore[attr-defined]


LOOKUPS: dict[str, Lookup] = {
    "contains": ArrayLookup("contains", "@>"),
    "contained_by": ArrayLookup("contained_by", "<@"),
    "overlap": ArrayLookup("overlap", "&&"),
}
"""The lookups of arrays, by name."""

TRANSFORMS: dict[str, Transform] = {"len": Transform("len", _length, lambda field: INTEGER)}
"""The transforms of arrays, by name; positions are others."""
