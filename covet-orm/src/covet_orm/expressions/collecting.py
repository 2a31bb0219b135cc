"""Aggregates that collect values: as a text, as a list, as JSON; in an order."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy
from sqlalchemy import ColumnElement, Text, func, literal_column
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from covet_orm.exceptions import NotSupported
from covet_orm.expressions.aggregates import Aggregate
from covet_orm.expressions.base import Expression, Ordering, as_expression, named_expression
from covet_orm.expressions.references import F
from covet_orm.fields.arrays import ArrayField
from covet_orm.fields.inference import JSON, TEXT, family, plain_field
from covet_orm.queries.json_lookups import as_json

if TYPE_CHECKING:
    from covet_orm.expressions.conditions import Condition
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["ArrayAgg", "JSONArrayAgg", "StringAgg", "ordering"]

T = TypeVar("T")


class GroupConcat(FunctionElement[str]):
    """`GROUP_CONCAT` of MySQL and MariaDB: a value, a separator, and what to order by."""

    inherit_cache = False
    type = Text()

    def __init__(self, value: Any, separator: Any, *order: Any, distinct: bool = False) -> None:
        self.once = distinct
        super().__init__(value, separator, *order)


@compiles(GroupConcat)
def _compile_group_concat(element: GroupConcat, compiler: SQLCompiler, **options: Any) -> str:
    value, separator, *order = (compiler.process(clause, **options) for clause in element.clauses)
    distinct = "DISTINCT " if element.once else ""
    ordered = f" ORDER BY {', '.join(order)}" if order else ""
    return f"GROUP_CONCAT({distinct}{value}{ordered} SEPARATOR {separator})"


class Ordered(Aggregate[T]):
    """The base of aggregates that take the rows in an order.

    Args:
        expression: what it is of.
        order_by: names, with a minus before those that descend, or expressions; one, or several.
        distinct: whether equal values come in once.
        filter: which rows.
        default: the value of no rows.
    """

    __slots__ = ("order_by",)

    takes_distinct = True

    def __init__(
        self,
        expression: Any,
        *,
        order_by: Any = (),
        distinct: bool = False,
        filter: Condition | None = None,
        default: Any = None,
        output_field: Field[Any] | None = None,
    ) -> None:
        super().__init__(expression, distinct=distinct, filter=filter, default=default, output_field=output_field)
        wanted = order_by if isinstance(order_by, (list, tuple)) else (order_by,)
        self.order_by: tuple[Ordering, ...] = tuple(ordering(one) for one in wanted)

    def order(self) -> Sequence[Ordering]:
        return self.order_by

    def reorder(self, expressions: Sequence[Expression[Any]]) -> None:
        self.order_by = tuple(
            Ordering(expression, descending=one.descending, nulls=one.nulls)
            for one, expression in zip(self.order_by, expressions, strict=True)
        )

    def options(self) -> Hashable:
        return len(self.order_by), super().options()

    def ordering(self, scope: Scope, one: Ordering) -> Any:
        if scope.kind == "sqlite":
            # Its aggregates have no ORDER BY before version 3.44: the function that collects the values sorts them.
            first = one.nulls == "first" if one.nulls is not None else not one.descending
            letter = "a" if first else "b"
            return letter.upper() if one.descending else letter, one.expression.build(scope)
        return one.build(scope)

    def require_own_order(self, *, as_it_is: bool = True) -> None:
        """Check what PostgreSQL wants of values that are each taken once: to be ordered by themselves alone.

        Args:
            as_it_is: whether the values are collected as they are, and not made text.

        Raises:
            NotSupported: they are ordered by something else.
        """
        if not self.distinct or not self.order_by:
            return
        own = shape_of(self.arguments[0])
        if not as_it_is or any(shape_of(one.expression) != own for one in self.order_by):
            raise NotSupported(
                f"{self!r}: PostgreSQL orders values that are taken once by themselves alone, as the text or the array "
                "holds them; take them all, or collect what a query with distinct() gives"
            )

    def collected(self, name: str, value: Any, separator: Any, order: list[Any]) -> ColumnElement[Any]:
        """The call of the function that collects values on SQLite."""
        letters = sqlalchemy.literal("".join(letter for letter, _ in order), Text())
        distinct: ColumnElement[Any] = literal_column("1" if self.distinct else "0")
        called: ColumnElement[Any] = getattr(func, name)(
            value, separator, distinct, letters, *(one for _, one in order)
        )
        return called


class StringAgg(Ordered[str]):
    """Texts with another text between.

    MySQL and MariaDB cut the result at `group_concat_max_len` bytes, a setting of the server.

    Args:
        expression: the texts; values of other types are made text.
        delimiter: what stands between: a text, or an expression.
        order_by, distinct, filter, default: as of `ArrayAgg`.
    """

    __slots__ = ("delimiter",)

    output_field = TEXT

    def __init__(
        self,
        expression: Any,
        delimiter: Any = ",",
        *,
        order_by: Any = (),
        distinct: bool = False,
        filter: Condition | None = None,
        default: Any = None,
    ) -> None:
        super().__init__(expression, order_by=order_by, distinct=distinct, filter=filter, default=default)
        self.arguments = (*self.arguments, as_expression(delimiter))

    def value(self, scope: Scope, built: ColumnElement[Any]) -> ColumnElement[Any]:
        return built if family(self.arguments[0].output(scope)) == "text" else scope.dialect.as_text(built)

    def of_arguments(self, scope: Scope, arguments: list[ColumnElement[Any]], order: list[Any]) -> Any:
        text, delimiter = arguments
        if scope.kind == "sqlite":
            return self.collected("covet_string_agg", text, delimiter, order)
        if scope.kind == "postgresql":
            self.require_own_order(as_it_is=family(self.arguments[0].output(scope)) == "text")
            return in_order(func.string_agg(sqlalchemy.distinct(text) if self.distinct else text, delimiter), order)
        return GroupConcat(text, delimiter, *flat(order), distinct=self.distinct)


class ArrayAgg(Ordered[Any]):
    """The values as a list (PostgreSQL).

    Raises:
        NotSupported: when it is compiled for another database; JSONArrayAgg is everywhere.
    """

    function = "array_agg"

    def of_arguments(self, scope: Scope, arguments: list[ColumnElement[Any]], order: list[Any]) -> Any:
        if scope.kind != "postgresql":
            raise NotSupported(f"{scope.kind} has no arrays; PostgreSQL has, and JSONArrayAgg makes lists everywhere")
        self.require_own_order()
        return in_order(super().of_arguments(scope, arguments, order), order)

    def output(self, scope: Scope) -> Field[Any]:
        if self.field is not None:
            return self.field
        base = plain_field(self.arguments[0].output(scope)).clone()
        base.primary_key = base.unique = base.db_index = False
        base.null = True
        return ArrayField(base, null=True)


class JSONArrayAgg(Ordered[Any]):
    """The values as a list, which the database makes as JSON: what JSON has not, comes as text."""

    output_field = JSON
    takes_distinct = False

    def value(self, scope: Scope, built: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            return built
        return func.coalesce(as_json(scope, built, self.arguments[0].output(scope)), literal_column("'null'", Text()))

    def of_arguments(self, scope: Scope, arguments: list[ColumnElement[Any]], order: list[Any]) -> Any:
        value = arguments[0]
        if scope.kind == "postgresql":
            return in_order(func.jsonb_agg(value, type_=JSONB()), order)
        if scope.kind == "sqlite":
            return self.collected("covet_json_agg", value, literal_column("''"), order)
        # Rows that a filter leaves out are NULL, which GROUP_CONCAT leaves out.
        joined = GroupConcat(value, literal_column("','", Text()), *flat(order))
        return func.concat(literal_column("'['"), joined, literal_column("']'"))


def ordering(one: Any) -> Ordering:
    """A part of an order: a name, with a minus before one that descends, or an expression."""
    if isinstance(one, Ordering):
        return one
    if isinstance(one, str):
        return Ordering(F(one.removeprefix("-")), descending=one.startswith("-"))
    return Ordering(named_expression(one))


def shape_of(expression: Expression[Any]) -> tuple[list[Any], list[Any]]:
    """What tells whether two expressions are the same, values included."""
    key: list[Any] = []
    values: list[Any] = []
    expression.shape(key.append, values.append)
    return key, values


def in_order(function: Any, order: list[Any]) -> Any:
    """A function of PostgreSQL with its ORDER BY."""
    return function.aggregate_order_by(*flat(order)) if order else function


def flat(order: Iterable[Iterable[Any]]) -> list[Any]:
    """The elements of an order, one after the other."""
    return [element for one in order for element in one]
