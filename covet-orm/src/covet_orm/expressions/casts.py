"""Values of one type as those of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.mysql import DATETIME, TIME

from covet_orm.exceptions import NotSupported
from covet_orm.expressions.base import Add, Expression, field_key, named_expression
from covet_orm.fields.inference import decimal_places, family, plain_field
from covet_orm.queries.arithmetic import as_double, rounded

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["Cast", "ExpressionWrapper", "cast_to"]


class Cast(Expression[Any]):
    """A value as one of another type: `Cast("age", CharField(max_length=3))`.

    What a text is that is no number, each database has its own opinion on: PostgreSQL refuses, the others see a 0.

    Args:
        expression: the value: an expression, or the name of a field.
        output_field: the field whose type it is to have.
    """

    __slots__ = ("expression", "field")

    def __init__(self, expression: Any, output_field: Field[Any]) -> None:
        self.expression = named_expression(expression)
        self.field = output_field

    def parts(self) -> Iterable[Expression[Any]]:
        return (self.expression,)

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        return Cast(parts[0], self.field)

    def shape(self, key: Add, values: Add) -> None:
        key(("cast", field_key(self.field)))
        self.expression.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return cast_to(scope, self.expression.build(scope), self.expression.output(scope), self.field)

    def output(self, scope: Scope) -> Field[Any]:
        return self.field

    def __repr__(self) -> str:
        return f"Cast({self.expression!r}, {self.field!r})"


class ExpressionWrapper(Expression[Any]):
    """An expression whose type is said, and not converted: `ExpressionWrapper(F("a") + F("b"), IntegerField())`.

    Args:
        expression: the expression.
        output_field: the field whose conversions its values have.
    """

    __slots__ = ("expression", "field")

    def __init__(self, expression: Any, output_field: Field[Any]) -> None:
        self.expression = named_expression(expression)
        self.field = output_field

    def parts(self) -> Iterable[Expression[Any]]:
        return (self.expression,)

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        return ExpressionWrapper(parts[0], self.field)

    def shape(self, key: Add, values: Add) -> None:
        key(("wrapped", field_key(self.field)))
        self.expression.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return sqlalchemy.type_coerce(self.expression.build(scope), self.field.column_type())

    def output(self, scope: Scope) -> Field[Any]:
        return self.field

    def __repr__(self) -> str:
        return f"ExpressionWrapper({self.expression!r}, {self.field!r})"


def cast_to(scope: Scope, element: ColumnElement[Any], of: Field[Any], to: Field[Any]) -> ColumnElement[Any]:
    """The SQL of a cast from the type of one field to that of another.

    Raises:
        NotSupported: there is no such cast on this database.
    """
    if scope.kind == "postgresql":
        if family(of) == "float" and family(to) == "integer":
            # It would round to the even number.
            element = sqlalchemy.cast(element, sqlalchemy.Numeric())
        return sqlalchemy.cast(element, to.column_type())
    kind, before = family(to), family(of)
    if kind == "text":
        text = scope.dialect.as_text(element)
        most = getattr(plain_field(to), "max_length", None)
        if most is None:
            return text
        return func.substr(text, sqlalchemy.literal_column("1"), sqlalchemy.literal_column(str(int(most))))
    if kind == "float":
        return as_double(scope, element)
    if kind == "boolean":
        return element != sqlalchemy.literal_column("0")
    if scope.kind == "sqlite":
        return _cast_on_sqlite(element, before, kind, to)
    if kind == "uuid" and before == "text":
        # Sixteen bytes there.
        digits = func.replace(element, *(sqlalchemy.literal_column(text) for text in ("'-'", "''")))
        return func.unhex(digits, type_=to.column_type())
    if kind == "integer" and before == "float":
        element = rounded(scope, element, of, 0)
    types: dict[str, Any] = {
        "date": sqlalchemy.Date(),
        "datetime": DATETIME(fsp=6),
        "decimal": sqlalchemy.Numeric(getattr(plain_field(to), "max_digits", 38), decimal_places(to)),
        "duration": sqlalchemy.Integer(),
        "integer": sqlalchemy.Integer(),
        "time": TIME(fsp=6),
        "binary": sqlalchemy.LargeBinary(),
    }
    if kind not in types:
        if kind == before:
            return element
        raise NotSupported(f"{scope.kind} has no cast from {before} to {kind}; PostgreSQL has casts between most types")
    return sqlalchemy.cast(element, types[kind])


def _cast_on_sqlite(element: ColumnElement[Any], before: str, kind: str, to: Field[Any]) -> ColumnElement[Any]:
    """SQLite keeps dates and times as texts of a form, of which a cast cuts out a part."""
    if kind == "array":
        raise NotSupported("sqlite has no arrays; PostgreSQL has, and a JSONField keeps lists on every database")
    if kind in ("integer", "duration"):
        number = sqlalchemy.cast(element, sqlalchemy.REAL()) if before in ("text", "decimal", "float") else element
        rounded = func.round(number) if before in ("decimal", "float") else number
        return sqlalchemy.cast(rounded, sqlalchemy.Integer())
    if kind == "decimal":
        places: ColumnElement[Any] = sqlalchemy.literal_column(str(decimal_places(to)))
        return func.round(sqlalchemy.cast(element, sqlalchemy.REAL()), places)
    if kind == "date":
        return func.substr(element, sqlalchemy.literal_column("1"), sqlalchemy.literal_column("10"))
    if kind == "time" and before == "datetime":
        return func.substr(element, sqlalchemy.literal_column("12"), sqlalchemy.literal_column("15"))
    if kind == "datetime" and before in ("date", "text"):
        zone = "+00:00" if getattr(plain_field(to), "timezone", True) else ""
        form = sqlalchemy.literal(f"%Y-%m-%d %H:%M:%f000{zone}", sqlalchemy.Text())
        return func.strftime(form, element)
    return sqlalchemy.type_coerce(element, to.column_type())
