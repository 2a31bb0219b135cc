"""Lookups of hstore (PostgreSQL): `labels__colour="red"`, `labels__contains={"a": "b"}`, `labels__has_key="a"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.expressions.base import Add
from covet_orm.fields.arrays import ArrayField
from covet_orm.fields.inference import TEXT
from covet_orm.fields.text import TextField, check_text
from covet_orm.queries.lookups import Lookup, Transform

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["LOOKUPS", "TRANSFORMS", "text_at"]

OPTIONAL_TEXT: Field[Any] = TextField[str | None](null=True)
TEXTS: Field[Any] = ArrayField(OPTIONAL_TEXT)


class HStoreLookup(Lookup):
    """An operator between two values of hstore."""

    def __init__(self, name: str, operator: str) -> None:
        super().__init__(name, lambda left, right: left.op(operator, is_comparison=True)(right))

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        require_hstore(scope)
        return super().build(scope, left, field, value)


class HasKey(Lookup):
    """Whether there is a key, whatever stands under it."""

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        require_hstore(scope)
        return left.op("?", is_comparison=True)(self.right(scope, TEXT, value))


class HasKeys(Lookup):
    """Whether there are keys: all of some, or any.

    Args:
        name: what keywords call it.
        operator: PostgreSQL's.
    """

    is_plain = False

    def __init__(self, name: str, operator: str) -> None:
        super().__init__(name)
        self.operator = operator

    def prepared(self, value: Any, field: Field[Any] | None) -> Any:
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise QueryError(f"{self.name}={value!r}: a list of keys is needed")
        return list(value)

    def shape(self, value: Any, key: Add, values: Add) -> None:
        key(self.name)
        values(value)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        require_hstore(scope)
        return left.op(self.operator, is_comparison=True)(scope.parameter(TEXT, array=True))


def require_hstore(scope: Scope) -> None:
    """Raise NotSupported where there is no hstore."""
    if scope.kind != "postgresql":
        raise NotSupported(
            f"{scope.kind} has no hstore; PostgreSQL has, and a JSONField keeps texts by key on every database"
        )


def text_at(name: str) -> Transform:
    """The transform that gives the text under a key; NULL where there is none."""
    try:
        check_text(name)
    except ValueError as error:
        raise QueryError(f"{name!r} is no key of hstore: {error}") from None

    def build(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
        require_hstore(scope)
        # Bound tighter than comparisons, as they are otherwise, for PostgreSQL gives them no precedence of their own.
        found: ColumnElement[Any] = column.op("->", precedence=15, return_type=sqlalchemy.Text())(
            sqlalchemy.literal(name, sqlalchemy.Text())
        )
        return found

    return Transform(name, build, lambda field: OPTIONAL_TEXT)


def _all_of(name: str, function: str) -> Transform:
    def build(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
        require_hstore(scope)
        found: ColumnElement[Any] = getattr(func, function)(column, type_=TEXTS.column_type())
        return found

    return Transform(name, build, lambda field: TEXTS)


LOOKUPS: dict[str, Lookup] = {
    lookup.name: lookup
    for lookup in (
        HStoreLookup("contains", "@>"),
        HStoreLookup("contained_by", "<@"),
        HasKey("has_key"),
        HasKeys("has_keys", "?&"),
        HasKeys("has_any_keys", "?|"),
    )
}
"""The lookups of hstore, by name."""

TRANSFORMS: dict[str, Transform] = {
    transform.name: transform for transform in (_all_of("keys", "akeys"), _all_of("values", "avals"))
}
"""The transforms of hstore, by name; every other name is a key."""
