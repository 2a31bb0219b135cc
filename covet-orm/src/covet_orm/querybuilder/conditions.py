"""Conditions of a query builder: what `where`, `having`, `on`, `case` and `filter` take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import sqlalchemy
from sqlalchemy import ColumnElement

from covet.settings_schema import nearest
from covet_orm.exceptions import QueryError
from covet_orm.querybuilder.expressions import Expression, is_expression, named, operand, untyped
from covet_orm.querybuilder.fragments import Raw
from covet_orm.querybuilder.scopes import Scope
from covet_orm.querybuilder.values import adapted, parameter

if TYPE_CHECKING:
    from covet_orm.querybuilder.builders import QueryBuilder

__all__ = ["OPERATORS", "Conditional", "Conditions"]

Condition: TypeAlias = "Callable[[Conditions], Conditions] | Conditions | Raw"
"""A group of conditions: made by a callable from an empty one, made before, or a fragment of SQL."""

SQL: TypeAlias = ColumnElement[Any]

NOTHING: Any = object()


def _pattern(before: str, after: str) -> Callable[[Scope, SQL, Any], SQL]:
    def build(scope: Scope, left: SQL, right: Any) -> SQL:
        if not isinstance(right, str):
            raise QueryError(f"{right!r:.60} is no text to look for; compare with 'like' and an expression")
        text = right.replace("!", "!!").replace("%", "!%").replace("_", "!_")
        return left.like(parameter(f"{before}{text}{after}", scope.kind), escape="!")

    return build


_COMPARISONS: dict[str, Callable[[SQL, SQL], SQL]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<>": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "like": lambda left, right: left.like(right),
    "not like": lambda left, right: left.not_like(right),
    "ilike": lambda left, right: left.ilike(right),
    "not ilike": lambda left, right: left.not_ilike(right),
    "is distinct from": lambda left, right: left.is_distinct_from(right),
    "is not distinct from": lambda left, right: left.is_not_distinct_from(right),
    "regexp": lambda left, right: left.regexp_match(right),
    "not regexp": lambda left, right: sqlalchemy.not_(left.regexp_match(right)),
}
_PATTERNS = {"contains": _pattern("%", "%"), "startswith": _pattern("", "%"), "endswith": _pattern("%", "")}
_CONSTANTS = {None: sqlalchemy.null, True: sqlalchemy.true, False: sqlalchemy.false}

OPERATORS = (*_COMPARISONS, *_PATTERNS, "in", "not in", "between", "not between", "is", "is not")
"""The operators that a condition may have; upper case and lower case are the same."""


class Node(ABC):
    """A part of a condition."""

    __slots__ = ()

    @abstractmethod
    def build(self, scope: Scope) -> SQL:
        """The condition in SQLAlchemy's terms."""


class Comparison(Node):
    """An expression, an operator, and a value or an expression."""

    __slots__ = ("left", "operator", "right")

    def __init__(self, left: str | Expression, operator: Any, right: Any) -> None:
        self.left = named(left)
        self.operator = _operator(operator)
        self.right = right
        if right is None and self.operator not in ("=", "!=", "<>", "is", "is not"):
            raise QueryError(f"nothing is {self.operator} NULL; ask where_null() or where_not_null()")

    def build(self, scope: Scope) -> SQL:
        left, right = self.left.build(scope), self.right
        if self.operator in _PATTERNS:
            return _PATTERNS[self.operator](scope, left, right)
        if self.operator in ("is", "is not"):
            if not (right is None or isinstance(right, bool)):
                raise QueryError(f"{right!r:.60}: {self.operator!r} takes None, True or False")
            constant = _CONSTANTS[right]()
            return left.is_(constant) if self.operator == "is" else left.is_not(constant)
        if right is None:
            return left.is_(sqlalchemy.null()) if self.operator == "=" else left.is_not(sqlalchemy.null())
        return _COMPARISONS[self.operator](left, untyped(right).build(scope))


class Membership(Node):
    """Whether a value is among others, or in the result of a query."""

    __slots__ = ("left", "negated", "values")

    def __init__(self, left: str | Expression, values: Any, negated: bool) -> None:
        self.left = named(left)
        self.negated = negated
        if is_expression(values):
            self.values: Any = operand(values)
            return
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise QueryError(f"{values!r:.60} is no list of values, and no query")
        self.values = list(values)
        if None in self.values:
            raise QueryError("a list with None in it: nothing is equal to NULL; leave it out and add or_where_null()")

    def build(self, scope: Scope) -> SQL:
        left = self.left.build(scope)
        if isinstance(self.values, Expression):
            built: Any = self.values.build(scope)
            return left.not_in(built) if self.negated else left.in_(built)
        if not self.values:
            return sqlalchemy.true() if self.negated else sqlalchemy.false()
        if scope.kind == "postgresql":
            # One parameter for all of them: the text, and with it the prepared statement, is the same for any number.
            array = parameter([adapted(one, scope.kind) for one in self.values], scope.kind)
            return left != sqlalchemy.all_(array) if self.negated else left == sqlalchemy.any_(array)
        each = [parameter(one, scope.kind) for one in self.values]
        return left.not_in(each) if self.negated else left.in_(each)


class Between(Node):
    """Whether a value is between two others, or one of them."""

    __slots__ = ("high", "left", "low", "negated")

    def __init__(self, left: str | Expression, bounds: Any, negated: bool) -> None:
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2 or any(bound is None for bound in bounds):
            raise QueryError(f"{bounds!r:.60}: 'between' takes two values, none of them None")
        self.left = named(left)
        self.low, self.high = map(untyped, bounds)
        self.negated = negated

    def build(self, scope: Scope) -> SQL:
        within = self.left.build(scope).between(self.low.build(scope), self.high.build(scope))
        return sqlalchemy.not_(within) if self.negated else within


class Exists(Node):
    """Whether a query has a row."""

    __slots__ = ("negated", "query")

    def __init__(self, query: QueryBuilder, negated: bool) -> None:
        self.query = query
        self.negated = negated

    def build(self, scope: Scope) -> SQL:
        found: SQL = self.query.statement(scope).exists()
        return sqlalchemy.not_(found) if self.negated else found


class Fragment(Node):
    """SQL by the program's author."""

    __slots__ = ("sql",)

    def __init__(self, sql: Expression) -> None:
        self.sql = sql

    def build(self, scope: Scope) -> SQL:
        return self.sql.build(scope)


class Not(Node):
    """The opposite of a group."""

    __slots__ = ("group",)

    def __init__(self, group: Conditions) -> None:
        self.group = group

    def build(self, scope: Scope) -> SQL:
        return sqlalchemy.not_(self.group.build(scope).self_group())


class Conditional(ABC):
    """What takes conditions: a query builder for its WHERE, and a group of conditions.

    Each method gives a new object. A `where` narrows everything that was said before it, an `or_where` widens it:
    `where(a).or_where(b).where(c)` is `(a OR b) AND c`. So a condition that is added at last holds for every row.
    """

    __slots__ = ()

    @abstractmethod
    def _with(self, node: Node | Conditions, widening: bool) -> Self:
        """The same with one more condition."""

    def where(self, column: str | Expression | Condition, operator: Any = NOTHING, value: Any = NOTHING) -> Self:
        """Those rows alone for which a condition holds.

        Args:
            column: the name of a column, or an expression; with nothing else a group: `where(lambda group:
                group.where(…).or_where(…))`, `Conditions()`, or `raw(…)`.
            operator: one of `OPERATORS`.
            value: a value, an expression or a query. None stands for NULL: `=` asks whether the column is, `!=`
                whether it is not.

        Raises:
            QueryError: there is no such operator, or the value does not go with it.
        """
        return self._with(_node(column, operator, value), False)

    def or_where(self, column: str | Expression | Condition, operator: Any = NOTHING, value: Any = NOTHING) -> Self:
        """Those rows as well for which a condition holds; the arguments and errors are those of `where`."""
        return self._with(_node(column, operator, value), True)

    def where_not(self, group: Condition) -> Self:
        """Those rows alone for which a group does not hold."""
        return self._with(Not(_group(group)), False)

    def or_where_not(self, group: Condition) -> Self:
        """Those rows as well for which a group does not hold."""
        return self._with(Not(_group(group)), True)

    def where_column(self, left: str | Expression, operator: str, right: str | Expression) -> Self:
        """Compare two columns: `where_column("posts.user_id", "=", "users.id")`. Raises QueryError."""
        return self._with(Comparison(left, operator, named(right)), False)

    def or_where_column(self, left: str | Expression, operator: str, right: str | Expression) -> Self:
        """Or compare two columns. Raises QueryError."""
        return self._with(Comparison(left, operator, named(right)), True)

    def where_in(self, column: str | Expression, values: Iterable[Any] | QueryBuilder) -> Self:
        """Among values, or in the result of a query of one column. Among none is never.

        Raises:
            QueryError: it is no list, or None is in it.
        """
        return self._with(Membership(column, values, False), False)

    def or_where_in(self, column: str | Expression, values: Iterable[Any] | QueryBuilder) -> Self:
        """Or among values. Raises QueryError as `where_in` does."""
        return self._with(Membership(column, values, False), True)

    def where_not_in(self, column: str | Expression, values: Iterable[Any] | QueryBuilder) -> Self:
        """Not among values. Raises QueryError as `where_in` does."""
        return self._with(Membership(column, values, True), False)

    def or_where_not_in(self, column: str | Expression, values: Iterable[Any] | QueryBuilder) -> Self:
        """Or not among values. Raises QueryError as `where_in` does."""
        return self._with(Membership(column, values, True), True)

    def where_null(self, column: str | Expression) -> Self:
        """NULL."""
        return self._with(Comparison(column, "is", None), False)

    def or_where_null(self, column: str | Expression) -> Self:
        """Or NULL."""
        return self._with(Comparison(column, "is", None), True)

    def where_not_null(self, column: str | Expression) -> Self:
        """Not NULL."""
        return self._with(Comparison(column, "is not", None), False)

    def or_where_not_null(self, column: str | Expression) -> Self:
        """Or not NULL."""
        return self._with(Comparison(column, "is not", None), True)

    def where_between(self, column: str | Expression, low: Any, high: Any) -> Self:
        """From one value to another, both included. Raises QueryError when one is None."""
        return self._with(Between(column, (low, high), False), False)

    def or_where_between(self, column: str | Expression, low: Any, high: Any) -> Self:
        """Or from one value to another. Raises QueryError when one is None."""
        return self._with(Between(column, (low, high), False), True)

    def where_not_between(self, column: str | Expression, low: Any, high: Any) -> Self:
        """Less than one value or more than another. Raises QueryError when one is None."""
        return self._with(Between(column, (low, high), True), False)

    def or_where_not_between(self, column: str | Expression, low: Any, high: Any) -> Self:
        """Or less than one value or more than another. Raises QueryError when one is None."""
        return self._with(Between(column, (low, high), True), True)

    def where_exists(self, query: QueryBuilder) -> Self:
        """Where a query has a row; it may name the tables of this one."""
        return self._with(Exists(query, False), False)

    def or_where_exists(self, query: QueryBuilder) -> Self:
        """Or where a query has a row."""
        return self._with(Exists(query, False), True)

    def where_not_exists(self, query: QueryBuilder) -> Self:
        """Where a query has no row."""
        return self._with(Exists(query, True), False)

    def or_where_not_exists(self, query: QueryBuilder) -> Self:
        """Or where a query has no row."""
        return self._with(Exists(query, True), True)


class Conditions(Conditional):
    """A group of conditions: `Conditions().where("age", ">", 18).or_where("admin", "=", True)`. Immutable."""

    __slots__ = ("_nodes",)

    def __init__(self) -> None:
        self._nodes: tuple[tuple[Node | Conditions, bool], ...] = ()

    def _with(self, node: Node | Conditions, widening: bool) -> Self:
        made = type(self)()
        made._nodes = (*self._nodes, (node, widening))
        return made

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def build(self, scope: Scope) -> SQL:
        """The condition in SQLAlchemy's terms, for the database of the scope. Raises QueryError for an empty one."""
        if not self._nodes:
            raise QueryError("a group of conditions is empty; it would hold for every row")
        # Of conditions that are joined the same way one list is made: a tree of a thousand would be too deep.
        built = self._nodes[0][0].build(scope)
        position = 1
        while position < len(self._nodes):
            widening = self._nodes[position][1]
            run = [built]
            while position < len(self._nodes) and self._nodes[position][1] is widening:
                run.append(self._nodes[position][0].build(scope))
                position += 1
            built = sqlalchemy.or_(*run) if widening else sqlalchemy.and_(*run)
        return built


def _node(column: Any, operator: Any, value: Any) -> Node | Conditions:
    if operator is NOTHING:
        if isinstance(column, (str, Expression)) and not isinstance(column, Raw):
            raise QueryError(f"where({column!r:.60}) has neither operator nor value: where({column!r:.60}, '=', …)")
        return Fragment(column) if isinstance(column, Raw) else _group(column)
    if value is NOTHING:
        raise QueryError(
            f"where({column!r:.60}, {operator!r:.60}) has no value; an equal one is where(column, '=', value)"
        )
    asked = _operator(operator)
    if asked in ("in", "not in"):
        return Membership(column, value, asked == "not in")
    if asked in ("between", "not between"):
        return Between(column, value, asked == "not between")
    return Comparison(column, asked, value)


def _group(given: Any) -> Conditions:
    made = given(Conditions()) if callable(given) else given
    if isinstance(made, Raw):
        made = Conditions()._with(Fragment(made), False)
    if not isinstance(made, Conditions):
        raise QueryError(f"{made!r:.60} is no group of conditions; a callable gives what it was given, with conditions")
    if not made:
        raise QueryError("a group of conditions is empty; it would hold for every row")
    return made


def _operator(given: Any) -> str:
    asked = " ".join(given.lower().split()) if isinstance(given, str) else given
    if not isinstance(asked, str) or asked not in OPERATORS:
        near = nearest(asked, OPERATORS) if isinstance(asked, str) else ""
        there = ", ".join(OPERATORS)
        raise QueryError(f"{given!r:.60} is no operator{near if 'mean' in near else ''}; there are: {there}")
    return asked
