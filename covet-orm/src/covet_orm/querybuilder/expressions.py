"""Expressions of a query builder: columns, values, arithmetic, casts and cases.

They are made without knowing the database and compiled for one when the query is built. Where a column is expected,
text names a column; where a value is expected, text is a value; where either could be meant, text is refused.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet.settings_schema import nearest
from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.querybuilder.scopes import Name, Scope
from covet_orm.querybuilder.values import json_text, parameter, typed_parameter

if TYPE_CHECKING:
    from covet_orm.querybuilder.conditions import Conditions

__all__ = [
    "Aliased",
    "Column",
    "Expression",
    "Nulls",
    "Ordering",
    "case",
    "cast",
    "col",
    "excluded",
    "json_value",
    "value",
]

Nulls: TypeAlias = Literal["first", "last"] | None
"""Where NULL is sorted to; None for where the database puts it."""


class Expression(ABC):
    """Something that has a value for each row. Combine it with `+ - * / %`, `concat`; name it with `as_`."""

    __slots__ = ()

    @abstractmethod
    def build(self, scope: Scope) -> ColumnElement[Any]:
        """The expression in SQLAlchemy's terms, for the database of the scope."""

    def output_name(self) -> str | None:
        """The name that its column has in a result, where it is certain."""
        return None

    def as_(self, alias: str) -> Aliased:
        """The expression under a name, for `select` and `returning`."""
        return Aliased(self, alias)

    def asc(self, nulls: Nulls = None) -> Ordering:
        """Smallest first; NULL first or last."""
        return Ordering(self, False, nulls)

    def desc(self, nulls: Nulls = None) -> Ordering:
        """Largest first; NULL first or last."""
        return Ordering(self, True, nulls)

    def concat(self, *others: Any) -> Expression:
        """The texts one after the other; a `str` among them is a value. NULL when one of them is."""
        return Concatenation((self, *(other if is_expression(other) else Value(other) for other in others)))

    def __add__(self, other: Any) -> Expression:
        return Arithmetic(self, "+", other)

    def __radd__(self, other: Any) -> Expression:
        return Arithmetic(other, "+", self)

    def __sub__(self, other: Any) -> Expression:
        return Arithmetic(self, "-", other)

    def __rsub__(self, other: Any) -> Expression:
        return Arithmetic(other, "-", self)

    def __mul__(self, other: Any) -> Expression:
        return Arithmetic(self, "*", other)

    def __rmul__(self, other: Any) -> Expression:
        return Arithmetic(other, "*", self)

    def __truediv__(self, other: Any) -> Expression:
        return Arithmetic(self, "/", other)

    def __rtruediv__(self, other: Any) -> Expression:
        return Arithmetic(other, "/", self)

    def __mod__(self, other: Any) -> Expression:
        return Arithmetic(self, "%", other)

    def __rmod__(self, other: Any) -> Expression:
        return Arithmetic(other, "%", self)


class Aliased(NamedTuple):
    """An expression and the name of its column."""

    expression: Any
    alias: str


class Ordering(NamedTuple):
    """An expression to sort by."""

    expression: Expression
    descending: bool
    nulls: Nulls

    def build(self, scope: Scope) -> list[ColumnElement[Any]]:
        """One expression, or two where the database cannot say where NULL goes."""
        if self.nulls not in (None, "first", "last"):
            raise QueryError(f"nulls={self.nulls!r:.60}: NULL is sorted 'first' or 'last'")
        built = self.expression.build(scope)
        ordered = built.desc() if self.descending else built.asc()
        if self.nulls is None:
            return [ordered]
        if scope.kind in ("mysql", "mariadb"):
            absent = self.expression.build(scope).is_(sqlalchemy.null())
            return [absent.desc() if self.nulls == "first" else absent.asc(), ordered]
        return [ordered.nulls_first() if self.nulls == "first" else ordered.nulls_last()]


class Column(Expression):
    """A column, by its name: `col("users.id")`."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return scope.column(self.path)

    def output_name(self) -> str | None:
        return None if self.path.endswith("*") else self.path.rpartition(".")[2]


class Every(Expression):
    """`*`, or all the columns of a table."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return scope.star(self.path)


class Value(Expression):
    """A value where no column says of which type it is."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return typed_parameter(self.value, scope.kind)


class Untyped(Value):
    """A value whose type follows from what it meets."""

    __slots__ = ()

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return parameter(self.value, scope.kind)


class Json(Expression):
    """A value that is stored as JSON."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return parameter(json_text(self.value), scope.kind)


class Excluded(Expression):
    """In an upsert, the value that the row would have been inserted with."""

    __slots__ = ("column",)

    def __init__(self, column: str) -> None:
        self.column = column

    def build(self, scope: Scope) -> ColumnElement[Any]:
        if not scope.home:
            raise QueryError(f"excluded({self.column!r:.60}) stands outside of the update of an upsert")
        name = scope.alias(self.column, "column")
        if scope.kind in ("mysql", "mariadb"):
            return func.VALUES(Name((name,)))
        return Name(("excluded", name))


class Arithmetic(Expression):
    """Two expressions and an operator."""

    __slots__ = ("left", "operator", "right")

    def __init__(self, left: Any, operator: str, right: Any) -> None:
        self.left = operand(left)
        self.operator = operator
        self.right = operand(right)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return self.left.build(scope).op(self.operator, precedence=PRECEDENCE[self.operator])(self.right.build(scope))


PRECEDENCE = {"+": 7, "-": 7, "*": 8, "/": 8, "%": 8}


class Concatenation(Expression):
    """Texts one after the other."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = [operand(part) for part in parts]

    def build(self, scope: Scope) -> ColumnElement[Any]:
        built = [part.build(scope) for part in self.parts]
        if scope.kind in ("mysql", "mariadb"):
            return func.concat(*built)
        return functools.reduce(lambda left, right: left.op("||", precedence=6)(right), built)


class Cast(Expression):
    """An expression as another type."""

    __slots__ = ("expression", "type_")

    def __init__(self, expression: Expression, type_: str) -> None:
        self.expression = expression
        self.type_ = type_

    def build(self, scope: Scope) -> ColumnElement[Any]:
        known = TYPES.get(self.type_) if isinstance(self.type_, str) else None
        if known is None:
            raise QueryError(f"{self.type_!r:.60} is no type to cast to{nearest(str(self.type_), TYPES)}")
        if scope.kind != "postgresql" and self.type_ in ONLY_POSTGRESQL:
            raise NotSupported(f"{scope.kind} cannot cast to {self.type_!r}; PostgreSQL can")
        if scope.kind == "sqlite" and self.type_ in ("date", "time", "timestamp"):
            raise NotSupported(
                f"SQLite keeps a {self.type_} as text; use fn('{self.type_.replace('timestamp', 'datetime')}', …)"
            )
        return sqlalchemy.cast(self.expression.build(scope), known)


TYPES: dict[str, sqlalchemy.types.TypeEngine[Any]] = {
    "bigint": sqlalchemy.BigInteger(),
    "boolean": sqlalchemy.Boolean(),
    "date": sqlalchemy.Date(),
    "double": sqlalchemy.Double().with_variant(sqlalchemy.REAL(), "sqlite"),
    "integer": sqlalchemy.Integer(),
    "json": sqlalchemy.JSON(),
    "numeric": sqlalchemy.Numeric().with_variant(sqlalchemy.Numeric(38, 10), "mysql", "mariadb"),
    "text": sqlalchemy.Text(),
    "time": sqlalchemy.Time(),
    "timestamp": sqlalchemy.DateTime(),
    "timestamptz": sqlalchemy.DateTime(timezone=True),
    "uuid": sqlalchemy.UUID(),
}
ONLY_POSTGRESQL = {"boolean", "json", "timestamptz", "uuid"}


class Case(Expression):
    """The first result whose condition holds."""

    __slots__ = ("otherwise", "whens")

    def __init__(self, whens: Sequence[tuple[Conditions, Any]], otherwise: Any) -> None:
        self.whens = whens
        self.otherwise = otherwise

    def build(self, scope: Scope) -> ColumnElement[Any]:
        whens = [(condition.build(scope), result(given).build(scope)) for condition, given in self.whens]
        return sqlalchemy.case(*whens, else_=None if self.otherwise is None else result(self.otherwise).build(scope))


def is_expression(given: Any) -> bool:
    """Whether it is an expression, or a query that can be one."""
    return isinstance(given, Expression) or hasattr(given, "as_expression")


def operand(given: Any) -> Expression:
    """An expression, or a value whose type follows from what it meets. Text is refused: it could be either."""
    if isinstance(given, Expression):
        return given
    if hasattr(given, "as_expression"):
        made: Expression = given.as_expression()
        return made
    if isinstance(given, str):
        raise QueryError(
            f"{given!r:.100} could be a column or a value; write col({given!r:.60}) or value({given!r:.60})"
        )
    return Untyped(given)


def untyped(given: Any) -> Expression:
    """An expression, or a value whose type follows from what it meets; text is a value."""
    return operand(given) if is_expression(given) else Untyped(given)


def result(given: Any) -> Expression:
    """An expression, or a value of its own type; text is a value."""
    return operand(given) if is_expression(given) else Value(given)


def named(given: str | Expression) -> Expression:
    """A column by its name, or an expression."""
    if isinstance(given, str):
        if _is_star(given):
            raise QueryError(
                f"{given!r:.60} stands for all columns in select() and returning(), and here one is expected"
            )
        return Column(given)
    if is_expression(given):
        return operand(given)
    raise QueryError(f"{given!r:.100} is no column: give its name, or an expression such as col(…), fn(…), value(…)")


def several(given: str | Expression) -> Expression:
    """All columns, a column by its name, or an expression."""
    return Every(given) if isinstance(given, str) and _is_star(given) else named(given)


def _is_star(given: str) -> bool:
    return given == "*" or given.endswith(".*")


def col(path: str) -> Column:
    """A column, where a value is expected: `where("paid", "<", col("price"))`. Its table and schema may precede it."""
    return Column(path)


def value(given: Any) -> Expression:
    """A value where a column is expected, such as in `select`. On PostgreSQL it has the type of its Python type."""
    return Value(given)


def json_value(given: Any) -> Expression:
    """A value that is stored as JSON: dicts, lists, text, numbers, booleans and None."""
    return Json(given)


def excluded(column: str) -> Expression:
    """In the update of an upsert, the value that the row would have been inserted with."""
    return Excluded(column)


def cast(expression: str | Expression, type_: str) -> Expression:
    """A column or an expression as another type: one of `bigint`, `boolean`, `date`, `double`, `integer`, `json`,
    `numeric`, `text`, `time`, `timestamp`, `timestamptz`, `uuid`, as far as the database has it."""
    return Cast(named(expression), type_)


def case(*whens: tuple[Conditions, Any], else_: Any = None) -> Expression:
    """The result of the first condition that holds, a value or an expression:
    `case((Conditions().where("age", "<", 18), "minor"), else_="adult")`.

    Raises:
        QueryError: there is no condition.
    """
    if not whens:
        raise QueryError("case() needs at least one condition and its result")
    return Case(whens, else_)
