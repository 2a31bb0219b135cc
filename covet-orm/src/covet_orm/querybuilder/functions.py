"""Functions of the database, aggregates and windows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy
from sqlalchemy import ColumnElement, func
from sqlalchemy.types import NullType

from covet_orm.exceptions import InvalidIdentifier, NotSupported, QueryError
from covet_orm.querybuilder.expressions import Expression, Ordering, named, operand
from covet_orm.querybuilder.scopes import Scope

if TYPE_CHECKING:
    from covet_orm.querybuilder.conditions import Conditions

__all__ = ["Frame", "FunctionCall", "Window", "avg", "count", "fn", "max_", "min_", "sum_"]

Frame: TypeAlias = tuple[int | None, int | None]
"""From where to where a window's frame reaches, from the present row; None has no bound."""


class Star(Expression):
    """What `count("*")` counts."""

    __slots__ = ()

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return sqlalchemy.literal_column("*")


STAR = Star()

FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?", re.ASCII)
# Not calls, or not with arguments of this kind; SQLAlchemy would write something else for them.
NO_FUNCTIONS = {
    "aggregate_strings": "fn('string_agg', …) or fn('group_concat', …)",
    "cast": "cast(expression, type)",
    "extract": "fn('date_part', …) or raw(…)",
    "next_value": "fn('nextval', …)",
}


class FunctionCall(Expression):
    """A call of a function of the database: `fn("lower", col("email"))`."""

    __slots__ = ("arguments", "condition", "distinct", "name")

    def __init__(
        self, name: str, arguments: Sequence[Any], distinct: bool = False, condition: Conditions | None = None
    ) -> None:
        self.name = name
        self.arguments = [operand(argument) for argument in arguments]
        self.distinct = distinct
        self.condition = condition

    def filter(self, condition: Conditions) -> FunctionCall:
        """The aggregate of those rows alone for which a condition holds (`FILTER (WHERE ...)`, on MySQL a CASE)."""
        return FunctionCall(self.name, self.arguments, self.distinct, condition)

    def over(
        self,
        *,
        partition_by: str | Expression | Sequence[str | Expression] = (),
        order_by: str | Expression | Ordering | Sequence[str | Expression | Ordering] = (),
        rows: Frame | None = None,
        range_: Frame | None = None,
        groups: Frame | None = None,
    ) -> Window:
        """The function over a window of rows.

        Args:
            partition_by: columns or expressions whose equal values make a partition.
            order_by: columns, expressions, or `col(…).desc()`.
            rows: from where to where the frame reaches, in rows from the present one: `(None, 0)` is all before and
                this one, `(-3, 3)` three before to three after; None has no bound.
            range_: the same, in values of the one that is sorted by.
            groups: the same, in groups of rows that sort equal (not on MySQL and MariaDB).

        Raises:
            QueryError: more than one kind of frame, or a bound that is no whole number.
        """
        return Window(self, partition_by, order_by, {"rows": rows, "range_": range_, "groups": groups})

    def build(self, scope: Scope) -> ColumnElement[Any]:
        if not isinstance(self.name, str) or not FUNCTION.fullmatch(self.name):
            raise InvalidIdentifier(
                f"{self.name!r:.100} is no name of a function: letters, digits and _, perhaps a schema"
            )
        if self.name.lower() in NO_FUNCTIONS:
            raise QueryError(f"fn({self.name!r}) is not called like a function; use {NO_FUNCTIONS[self.name.lower()]}")
        call: Any = func
        for part in self.name.split("."):
            call = getattr(call, part)
        arguments = [one.build(scope) for one in self.arguments]
        emulated = self.condition is not None and scope.kind in ("mysql", "mariadb")
        if emulated and self.condition is not None:
            counted = sqlalchemy.literal_column("1") if self.arguments and self.arguments[0] is STAR else arguments[0]
            arguments[0] = sqlalchemy.case((self.condition.build(scope), counted))
        if self.distinct:
            arguments = [sqlalchemy.distinct(arguments[0]), *arguments[1:]]
        built: ColumnElement[Any] = call(*arguments, type_=NullType())
        if self.condition is not None and not emulated:
            return sqlalchemy.funcfilter(built, self.condition.build(scope))  # type: ignore[arg-type]
        return built


class Window(Expression):
    """A function over a window of rows; see `FunctionCall.over`."""

    __slots__ = ("frame", "function", "order_by", "partition_by")

    def __init__(
        self,
        function: FunctionCall,
        partition_by: str | Expression | Sequence[str | Expression],
        order_by: str | Expression | Ordering | Sequence[str | Expression | Ordering],
        frames: dict[str, Frame | None],
    ) -> None:
        self.function = function
        self.partition_by = [named(one) for one in _several(partition_by)]
        self.order_by = [
            one if isinstance(one, Ordering) else Ordering(named(one), False, None) for one in _several(order_by)
        ]
        self.frame = {unit: _frame(unit, frame) for unit, frame in frames.items() if frame is not None}
        if len(self.frame) > 1:
            raise QueryError(f"a window has one frame, not {' and '.join(self.frame)}")

    def build(self, scope: Scope) -> ColumnElement[Any]:
        if "groups" in self.frame and scope.kind in ("mysql", "mariadb"):
            raise NotSupported(f"{scope.kind} has no frames of groups; PostgreSQL and SQLite have")
        options: dict[str, Any] = dict(self.frame)
        return sqlalchemy.over(
            self.function.build(scope),  # type: ignore[arg-type]
            partition_by=[one.build(scope) for one in self.partition_by] or None,
            order_by=[part for one in self.order_by for part in one.build(scope)] or None,
            **options,
        )


def _several(given: Any) -> Sequence[Any]:
    # An ordering is a tuple by itself.
    return given if isinstance(given, (list, tuple)) and not isinstance(given, Ordering) else (given,)


def _frame(unit: str, frame: Any) -> Frame:
    bounds = tuple(frame) if isinstance(frame, (tuple, list)) else ()
    if len(bounds) != 2 or not all(bound is None or type(bound) is int for bound in bounds):
        raise QueryError(
            f"{unit}={frame!r:.60}: a frame is two whole numbers, or None where it has no bound: (None, 0)"
        )
    first, last = bounds
    return first, last


def fn(name: str, *arguments: Any, distinct: bool = False) -> FunctionCall:
    """A function of the database.

    Args:
        name: its name, perhaps after a schema and a dot.
        arguments: expressions, or values that are no text; for a text say which it is: `col(…)` or `value(…)`.
        distinct: whether an aggregate takes equal values once.

    Raises:
        QueryError: an argument is plain text.
    """
    return FunctionCall(name, arguments, distinct)


def count(column: str | Expression = "*", *, distinct: bool = False) -> FunctionCall:
    """How many rows there are, or how many of them have a value in a column, or how many different ones."""
    return FunctionCall("count", [STAR if column == "*" else named(column)], distinct)


def sum_(column: str | Expression, *, distinct: bool = False) -> FunctionCall:
    """The sum of a column."""
    return FunctionCall("sum", [named(column)], distinct)


def avg(column: str | Expression, *, distinct: bool = False) -> FunctionCall:
    """The mean of a column."""
    return FunctionCall("avg", [named(column)], distinct)


def min_(column: str | Expression) -> FunctionCall:
    """The smallest value of a column."""
    return FunctionCall("min", [named(column)])


def max_(column: str | Expression) -> FunctionCall:
    """The largest value of a column."""
    return FunctionCall("max", [named(column)])
