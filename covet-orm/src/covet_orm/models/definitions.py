"""Expressions in the definition of a table: of a check, an index, a generated column, a column's default.

A table is made once and created on several databases. What it says of an expression is compiled when its definition is,
for the database that it is created on, with the values as literals: a definition has no parameters.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement
from sqlalchemy.dialects.postgresql import HSTORE, array
from sqlalchemy.dialects.postgresql.ranges import AbstractRange
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler

from covet_orm.dialects import KINDS
from covet_orm.exceptions import ModelError, NotSupported
from covet_orm.expressions.base import Expression
from covet_orm.fields.hstores import hstore_text
from covet_orm.fields.ranges import range_text
from covet_orm.queries.differences import DEFINITIONS, Differences
from covet_orm.queries.names import Names
from covet_orm.queries.scope import Scope

if TYPE_CHECKING:
    from covet_orm.fields.base import Field

__all__ = ["DefinedExpression", "DefinedValue", "columns_of"]


class DefinedExpression(ColumnElement[Any]):
    """An expression of a model in the definition of its table.

    Args:
        expression: the expression.
        model: the model.
        columns: the columns that are in it, where somebody asks for them.
    """

    inherit_cache = False

    def __init__(self, expression: Expression[Any], model: Any, columns: Sequence[sqlalchemy.Column[Any]] = ()) -> None:
        self.type = sqlalchemy.types.NULLTYPE
        self.defined = expression
        self.model = model
        self.referred = tuple(columns)

    def get_children(self, **options: Any) -> Iterator[Any]:
        """The columns in it: by them an index finds its table, and the error of a constraint its fields."""
        return iter(self.referred)

    def built(self, kind: str) -> ColumnElement[Any]:
        """The expression for a database.

        Raises:
            ModelError: it names what the model does not have, reaches beyond the row, or compares a field with a value
                that it cannot have.
            NotSupported: the database has no such thing.
        """
        scope = _RowScope(self.model._meta, kind)
        expression = self.defined.resolved(Names(self.model._meta, {}))
        expression.shape(lambda part: None, scope.values.append)
        try:
            built: ColumnElement[Any] = expression.build(scope)
        except ValueError as error:
            raise ModelError(f"{self.model.__qualname__}.Meta, {self.defined!r}: {error}") from None
        return built


class DefinedValue(ColumnElement[Any]):
    """A value of a field in the definition of a table: a literal, as the field stores it."""

    inherit_cache = False

    def __init__(self, field: Field[Any], value: Any) -> None:
        self.type = sqlalchemy.types.NULLTYPE
        self.field = field
        self.value = value


def columns_of(expression: Expression[Any], model: Any) -> list[sqlalchemy.Column[Any]]:
    """The columns of a model's table that an expression names.

    Raises:
        NotSupported: there is no database that has such an expression.
    """
    refused: NotSupported | None = None
    for kind in KINDS:
        try:
            built = DefinedExpression(expression, model).built(kind)
        except NotSupported as error:
            refused = error
            continue
        found = [part for part in visitors.iterate(built) if isinstance(part, sqlalchemy.Column)]
        return list(dict.fromkeys(found))
    raise refused or NotSupported(f"no database has {expression!r}")


class _RowScope(Scope):
    """The scope of an expression that sees one row, whose values are literals."""

    def __init__(self, options: Any, kind: str) -> None:
        super().__init__(options, kind)
        self.values: list[Any] = []
        self._given = 0

    @property
    def dialect(self) -> Differences:
        return DEFINITIONS[self.kind]

    def parameter(self, field: Field[Any], *, array: bool = False) -> Any:
        value = self._next()
        bind = field.binder(self.kind)
        if array:
            return _literal([None if one is None else bind(one) for one in value], field, self.kind, array_of=True)
        return _literal(None if value is None else bind(value), field, self.kind)

    def spread(self, field: Field[Any], size: int) -> list[Any]:
        bind = field.binder(self.kind)
        return [_literal(bind(one), field, self.kind) for one in self._next()]

    def join(self, relations: Sequence[Any]) -> Any:
        if relations:
            raise ModelError(
                f"{self.options.model.__name__}: a definition sees the columns of one row, and {relations[0].name!r} "
                "leads to another table"
            )
        return super().join(relations)

    def _add(self, *arguments: Any, **options: Any) -> None:
        raise ModelError(f"{self.options.model.__name__}: a definition sees its own table, and not that of a parent")

    def _next(self) -> Any:
        value = self.values[self._given]
        self._given += 1
        return value


def _literal(value: Any, field: Field[Any], kind: str, *, array_of: bool = False) -> Any:
    """A literal of what a driver would take. It is rendered by SQLAlchemy, which knows how each database quotes."""
    if value is None:
        return sqlalchemy.null()
    if isinstance(value, bool):
        return sqlalchemy.literal(value, sqlalchemy.Boolean())
    if isinstance(value, int):
        return sqlalchemy.literal(value, sqlalchemy.BigInteger())
    if isinstance(value, float):
        return sqlalchemy.literal(value, sqlalchemy.Double())
    if isinstance(value, Decimal):
        return sqlalchemy.literal(value, sqlalchemy.Numeric())
    if isinstance(value, (bytes, bytearray, memoryview)):
        # Digits and letters alone, whatever the bytes are.
        digits = bytes(value).hex()
        if kind in ("mysql", "mariadb"):
            # They keep the default of a column as text, and bytes that are none would be lost; an expression stays.
            return sqlalchemy.literal_column(f"(unhex('{digits}'))")
        return sqlalchemy.literal_column(f"'\\x{digits}'::bytea" if kind == "postgresql" else f"X'{digits}'")
    column_type: Any = field.column_type()
    if isinstance(value, list):
        wanted = sqlalchemy.ARRAY(column_type) if array_of else column_type
        return sqlalchemy.cast(array([_literal(one, field, kind) for one in value]), wanted)
    if isinstance(value, dt.timedelta) and kind == "postgresql":
        value = f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    elif isinstance(column_type, AbstractRange):
        value = range_text(value)
    elif isinstance(column_type, HSTORE):
        value = hstore_text(value)
    elif isinstance(value, str) and isinstance(column_type, sqlalchemy.String):
        return sqlalchemy.literal(value, sqlalchemy.String())
    literal = sqlalchemy.literal(str(value), sqlalchemy.String())
    return sqlalchemy.cast(literal, column_type) if kind == "postgresql" else literal


@compiles(DefinedExpression)
def _compile_expression(element: DefinedExpression, compiler: SQLCompiler, **options: Any) -> str:
    kind = compiler.dialect.name
    built = element.built(kind)
    return compiler.process(built, **(options | {"literal_binds": True, "include_table": False}))


@compiles(DefinedValue)
def _compile_value(element: DefinedValue, compiler: SQLCompiler, **options: Any) -> str:
    kind = compiler.dialect.name
    field = element.field
    try:
        value = None if element.value is None else field.writer(kind)(element.value)
    except ValueError as error:
        raise ModelError(f"{field!r} cannot have the default {element.value!r}: {error}") from None
    return compiler.process(_literal(value, field, kind), **(options | {"literal_binds": True, "include_table": False}))
