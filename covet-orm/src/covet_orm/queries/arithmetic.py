"""Arithmetic: the same results of the same numbers, dates and spans of time on every database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.fields.inference import decimal_places, family

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["as_double", "calculate", "rounded"]


def as_double(scope: Scope, element: ColumnElement[Any]) -> ColumnElement[Any]:
    """A number as a float of 64 bits."""
    if scope.kind == "postgresql":
        return sqlalchemy.cast(element, sqlalchemy.Double())
    if scope.kind == "sqlite":
        return sqlalchemy.cast(element, sqlalchemy.REAL())
    # A literal with an exponent is a double there, and a CAST to one is not known by older versions.
    return sqlalchemy.type_coerce(element, sqlalchemy.Double()) * sqlalchemy.literal_column("1e0", sqlalchemy.Double())


def rounded(scope: Scope, element: ColumnElement[Any], field: Field[Any], places: int) -> ColumnElement[Any]:
    """A number with so many digits behind the point, a half away from zero; below 0 places, digits before it go."""
    digits: ColumnElement[Any] = sqlalchemy.literal_column(str(places))
    if scope.kind == "postgresql":
        # It rounds floats to the even number, and has no precision for them.
        return func.round(sqlalchemy.cast(element, sqlalchemy.Numeric()), digits)
    if scope.kind == "sqlite":
        if places >= 0:
            return func.round(element, digits)
        # It takes places below 0 for 0.
        step: ColumnElement[Any] = sqlalchemy.literal_column(f"1e{-places}", sqlalchemy.Double())
        whole = func.round(element.op("/", precedence=8)(step)).op("*", precedence=8)(step)
        return sqlalchemy.cast(whole, sqlalchemy.Integer()) if family(field) == "integer" else whole
    if family(field) != "float":
        return func.round(element, digits)
    # They round floats to the even number. Beyond this size a float has no fraction.
    exact = func.round(sqlalchemy.cast(element, sqlalchemy.Numeric(65, 30)), digits)
    small = func.abs(element) < sqlalchemy.literal_column("1e16")
    return sqlalchemy.case((small, as_double(scope, exact)), else_=func.round(element, digits))


def calculate(
    scope: Scope,
    operator: str,
    left: ColumnElement[Any],
    left_field: Field[Any],
    right: ColumnElement[Any],
    right_field: Field[Any],
) -> ColumnElement[Any]:
    """The SQL of two values and an operator."""
    kinds = family(left_field), family(right_field)
    if {"datetime", "date", "duration"} & set(kinds):
        return _with_spans(scope, operator, left, right, kinds)
    if "float" in kinds and kinds != ("float", "float"):
        left, right = as_double(scope, left), as_double(scope, right)
        kinds = "float", "float"
    if operator == "/":
        if kinds == ("integer", "integer"):
            left, right = as_double(scope, left), as_double(scope, right)
        elif "decimal" in kinds and scope.kind in ("mysql", "mariadb"):
            # They give four digits more than the dividend has.
            places = max(decimal_places(left_field), decimal_places(right_field)) + 2
            left = sqlalchemy.cast(left, sqlalchemy.Numeric(38, places))
        return left.op("/", precedence=8)(right)
    if operator == "%":
        return _remainder(scope, left, right, kinds)
    if kinds == ("integer", "integer") and scope.kind == "postgresql" and not _is_big(left) and not _is_big(right):
        # Two numbers of 32 bits would have a result of 32 bits, or none.
        left = sqlalchemy.cast(left, sqlalchemy.BigInteger())
    precedence = 8 if operator == "*" else 7
    return left.op(operator, precedence=precedence)(right)


def _is_big(element: ColumnElement[Any]) -> bool:
    return isinstance(element.type, sqlalchemy.BigInteger)


def _remainder(
    scope: Scope, left: ColumnElement[Any], right: ColumnElement[Any], kinds: tuple[str, str]
) -> ColumnElement[Any]:
    if kinds == ("integer", "integer"):
        return left.op("%", precedence=8)(right)
    if scope.kind == "postgresql" and "float" in kinds:
        left, right = sqlalchemy.cast(left, sqlalchemy.Numeric()), sqlalchemy.cast(right, sqlalchemy.Numeric())
        return sqlalchemy.cast(func.mod(left, right), sqlalchemy.Double())
    return func.mod(left, right, type_=left.type)


def _with_spans(
    scope: Scope, operator: str, left: ColumnElement[Any], right: ColumnElement[Any], kinds: tuple[str, str]
) -> ColumnElement[Any]:
    """Points in time and spans between them."""
    if scope.kind == "postgresql":
        if kinds == ("date", "date"):
            # The difference of two days is a whole number there.
            return (left.op("-")(right)).op("*", precedence=8)(sqlalchemy.literal_column("INTERVAL '1 day'"))
        return left.op(operator, precedence=8 if operator == "*" else 7)(right)
    spans = kinds.count("duration")
    if spans == 2 or operator == "*":
        # Whole microseconds.
        return left.op(operator, precedence=8 if operator == "*" else 7)(right)
    if spans == 0:
        return _difference(scope, left, right)
    moment, span = (right, left) if kinds[0] == "duration" else (left, right)
    span = sqlalchemy.type_coerce(span, sqlalchemy.BigInteger())
    if operator == "-":
        span = -span
    if scope.kind == "sqlite":
        return func.covet_later(moment, span)
    return func.timestampadd(sqlalchemy.literal_column("MICROSECOND"), span, moment, type_=moment.type)


def _difference(scope: Scope, left: ColumnElement[Any], right: ColumnElement[Any]) -> ColumnElement[Any]:
    if scope.kind == "sqlite":
        return func.covet_between(right, left, type_=sqlalchemy.BigInteger())
    return func.timestampdiff(sqlalchemy.literal_column("MICROSECOND"), right, left, type_=sqlalchemy.BigInteger())
