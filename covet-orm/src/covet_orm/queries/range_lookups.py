"""Lookups of ranges (PostgreSQL): `during__contains=now`, `during__overlap=Range(a, b)`, `during__endswith__lt=a`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.exceptions import NotSupported
from covet_orm.expressions.base import Add, Expression
from covet_orm.fields.inference import BOOLEAN, family, plain_field
from covet_orm.fields.range_values import Range
from covet_orm.queries.lookups import Exact, Lookup, Transform

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["LOOKUPS", "TRANSFORMS"]


class RangeLookup(Lookup):
    """An operator between two ranges.

    Args:
        name: what keywords call it.
        operator: PostgreSQL's.
        values: whether a value that may lie in the range can stand on the right as well.
    """

    def __init__(self, name: str, operator: str, *, values: bool = False) -> None:
        super().__init__(name)
        self.operator = operator
        self.takes_values = values

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if not isinstance(value, Expression):
            key(self._is_value(value))
        super().shape(value, key, values)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        require_ranges(scope)
        base = _base(field)
        if not isinstance(value, Expression):
            right: ColumnElement[Any] = scope.parameter(base if self._is_value(value) else plain_field(field))
        elif self.takes_values and family(value.output(scope)) != "range":
            # The operator takes a value of exactly the type that the ends have.
            right = sqlalchemy.cast(value.build(scope), base.column_type())
        else:
            right = value.build(scope)
        return left.op(self.operator, is_comparison=True)(right)

    def _is_value(self, value: Any) -> bool:
        return self.takes_values and not isinstance(value, (Range, tuple, list))


class EndLookup(Exact):
    """Where a range begins, or ends; with None, that it has no such end (or is empty, or NULL)."""

    def shape(self, value: Any, key: Add, values: Add) -> None:
        key(self.name)
        super().shape(value, key, values)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        end = TRANSFORMS[self.name]
        return super().build(scope, end.build(scope, left, field), end.output(field), value)


def require_ranges(scope: Scope) -> None:
    """Raise NotSupported where there are no ranges."""
    if scope.kind != "postgresql":
        raise NotSupported(f"{scope.kind} has no ranges; PostgreSQL has, and two fields keep one on every database")


def _base(field: Field[Any]) -> Field[Any]:
    """The field of the ends."""
    found: Field[Any] = plain_field(field).base  # type: ignore[attr-defined]
    return found


def _end(name: str, function: str) -> Transform:
    def build(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
        require_ranges(scope)
        end: ColumnElement[Any] = getattr(func, function)(column, type_=_base(field).column_type())
        return end

    return Transform(name, build, _base)


def _whether(name: str) -> Transform:
    def build(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
        require_ranges(scope)
        found: ColumnElement[Any] = getattr(func, name)(column, type_=sqlalchemy.Boolean())
        return found

    return Transform(name, build, lambda field: BOOLEAN)


LOOKUPS: dict[str, Lookup] = {
    lookup.name: lookup
    for lookup in (
        RangeLookup("contains", "@>", values=True),
        RangeLookup("contained_by", "<@"),
        RangeLookup("overlap", "&&"),
        RangeLookup("fully_lt", "<<"),
        RangeLookup("fully_gt", ">>"),
        RangeLookup("not_lt", "&>"),
        RangeLookup("not_gt", "&<"),
        RangeLookup("adjacent_to", "-|-"),
        EndLookup("startswith"),
        EndLookup("endswith"),
    )
}
"""The lookups of ranges, by name."""

TRANSFORMS: dict[str, Transform] = {
    transform.name: transform
    for transform in (
        _end("startswith", "lower"),
        _end("endswith", "upper"),
        *(_whether(name) for name in ("isempty", "lower_inc", "lower_inf", "upper_inc", "upper_inf")),
    )
}
"""The transforms of ranges, by name."""
