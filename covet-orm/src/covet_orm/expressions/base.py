"""Expressions: what stands in a query where SQL has an expression.

An expression knows two things about itself. Its *shape* is what its SQL depends on, without the values; two expressions
of one shape have the same SQL, which is compiled once. Its values become parameters. `shape` and `build` visit the
parts of an expression in the same order, so that the n-th value that `shape` gives belongs to the n-th parameter that
`build` asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import QueryError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from covet_orm.expressions.conditions import Condition
    from covet_orm.fields.base import Declared, Field
    from covet_orm.queries.names import Names
    from covet_orm.queries.scope import Scope

__all__ = [
    "Add",
    "Arithmetic",
    "Expression",
    "Ordering",
    "Value",
    "as_expression",
    "field_key",
    "is_null",
    "named_expression",
]

T = TypeVar("T")

Add = Callable[[Any], None]
"""Appends to the shape, or to the values."""


class Expression(Generic[T]):
    """The base of all expressions; `T` is the type of its values in Python.

    One that holds an aggregate makes the query group, one that holds a window function is computed after the rows are
    chosen.
    """

    __slots__ = ()

    def shape(self, key: Add, values: Add) -> None:
        """Give what the SQL depends on to `key`, hashable, and the parameters to `values`."""
        raise QueryError(f"{type(self).__name__} has no shape: override shape()")

    def build(self, scope: Scope) -> ColumnElement[Any]:
        """The SQL, as SQLAlchemy has it. Parameters come from `scope.parameter`, names from `scope.resolve`."""
        raise QueryError(f"{type(self).__name__} has no SQL: override build()")

    def output(self, scope: Scope) -> Field[Any]:
        """The field whose type and conversions the result has."""
        raise QueryError(f"{type(self).__name__} does not know its type: give it output_field=...")

    def parts(self) -> Iterable[Expression[Any]]:
        """The expressions in it."""
        return ()

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        """The same with other expressions in it, in the order of `parts`."""
        raise QueryError(f"{type(self).__name__} has parts and does not say how to replace them: override replaced()")

    def resolved(self, names: Names) -> Expression[Any]:
        """The expression as a query takes it, with the lookups of its conditions looked up.

        Raises:
            FieldError: a name is not there.
        """
        parts = tuple(self.parts())
        if not parts:
            return self
        found = [part.resolved(names) for part in parts]
        if all(one is other for one, other in zip(parts, found, strict=True)):
            return self
        return self.replaced(found)

    @property
    def declared(self) -> Declared:
        """The arguments that make the same once more: by that it is written down, in migrations for instance.

        Raises:
            QueryError: they cannot be told, as of a subquery.
        """
        from covet_orm.expressions.declaring import declared_by

        return declared_by(self)

    @property
    def aggregates(self) -> bool:
        """Whether an aggregate function is in it."""
        return any(part.aggregates for part in self.parts())

    @property
    def windows(self) -> bool:
        """Whether a window function is in it."""
        return any(part.windows for part in self.parts())

    def __add__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("+", self, other)

    def __radd__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("+", other, self)

    def __sub__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("-", self, other)

    def __rsub__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("-", other, self)

    def __mul__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("*", self, other)

    def __rmul__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("*", other, self)

    def __truediv__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("/", self, other)

    def __rtruediv__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("/", other, self)

    def __mod__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("%", self, other)

    def __rmod__(self, other: Any) -> Arithmetic[T]:
        return Arithmetic("%", other, self)

    def __neg__(self) -> Arithmetic[T]:
        return Arithmetic("*", -1, self)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("exact", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return ~self._compare("exact", other)

    def __lt__(self, other: T | Expression[Any]) -> Condition:
        return self._compare("lt", other)

    def __le__(self, other: T | Expression[Any]) -> Condition:
        return self._compare("lte", other)

    def __gt__(self, other: T | Expression[Any]) -> Condition:
        return self._compare("gt", other)

    def __ge__(self, other: T | Expression[Any]) -> Condition:
        return self._compare("gte", other)

    __hash__ = object.__hash__

    def in_(self, values: Any) -> Condition:
        """Whether it is one of values, or of what a queryset gives."""
        return self._compare("in", values)

    def is_null(self, null: bool = True) -> Condition:
        """Whether it is NULL."""
        return self._compare("isnull", null)

    def lookup(self, name: str, value: Any) -> Condition:
        """The condition that a lookup of that name makes: `User.name.lookup("icontains", "ad")`.

        Raises:
            FieldError: there is no such lookup.
        """
        return self._compare(name, value)

    def asc(self, *, nulls: Literal["first", "last"] | None = None) -> Ordering:
        """Order by it, the smallest first. Where NULL stands differs between databases, unless `nulls` says it."""
        return Ordering(self, descending=False, nulls=nulls)

    def desc(self, *, nulls: Literal["first", "last"] | None = None) -> Ordering:
        """Order by it, the largest first. Where NULL stands differs between databases, unless `nulls` says it."""
        return Ordering(self, descending=True, nulls=nulls)

    def _compare(self, lookup: str, value: Any) -> Condition:
        from covet_orm.expressions.conditions import Comparison
        from covet_orm.queries.lookup_names import find_lookup

        return Comparison(self, find_lookup(lookup), value)

    def __pow__(self, other: Any) -> Expression[Any]:
        from covet_orm.expressions.functions.mathematics import Power

        return Power(self, other)

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self!r} is an expression, neither true nor false; combine conditions with & | ~ instead of and, or, not"
        )


class Ordering:
    """An expression with a direction.

    Attributes:
        expression: what to order by.
        descending: whether the largest comes first.
        nulls: where NULL stands: `first`, `last`, or None for the database's own habit.
    """

    __slots__ = ("descending", "expression", "nulls")

    def __init__(
        self, expression: Expression[Any], *, descending: bool = False, nulls: Literal["first", "last"] | None = None
    ) -> None:
        self.expression = expression
        self.descending = descending
        self.nulls: Literal["first", "last"] | None = nulls

    def resolved(self, names: Names) -> Ordering:
        """As of an expression."""
        expression = self.expression.resolved(names)
        if expression is self.expression:
            return self
        return Ordering(expression, descending=self.descending, nulls=self.nulls)

    def reversed(self) -> Ordering:
        """The other way round, NULL included."""
        nulls: Literal["first", "last"] | None = None
        if self.nulls is not None:
            nulls = "last" if self.nulls == "first" else "first"
        return Ordering(self.expression, descending=not self.descending, nulls=nulls)

    def shape(self, key: Add, values: Add) -> None:
        """As of an expression."""
        key(("order", self.descending, self.nulls))
        self.expression.shape(key, values)

    def build(self, scope: Scope) -> list[ColumnElement[Any]]:
        """What stands behind ORDER BY: one element, or two where the database has no NULLS FIRST."""
        element = self.expression.build(scope)
        ordered = element.desc() if self.descending else element.asc()
        if self.nulls is None:
            return [ordered]
        if scope.kind in ("mysql", "mariadb"):
            is_null = element.is_(None)
            return [is_null.desc() if self.nulls == "first" else is_null.asc(), ordered]
        return [ordered.nulls_first() if self.nulls == "first" else ordered.nulls_last()]


class Value(Expression[T]):
    """A value as an expression: a parameter, never text in the SQL. None is NULL.

    Args:
        value: the value.
        output_field: the field of its type; known by itself for the common types.

    Raises:
        QueryError: when it is compiled: no field is known of its type, and none was given.
    """

    __slots__ = ("field", "value")

    def __init__(self, value: T, output_field: Field[Any] | None = None) -> None:
        self.value = value
        self.field = output_field

    def shape(self, key: Add, values: Add) -> None:
        if self.value is None:
            key(("null", None if self.field is None else field_key(self.field)))
            return
        if type(self.value) is Decimal and self.field is None:
            # How many digits a decimal has is a part of its type.
            self.field = self._known()
        key(("value", type(self.value) if self.field is None else field_key(self.field)))
        values(self.value)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        if self.value is None:
            return sqlalchemy.null()
        field = self.output(scope)
        return scope.dialect.typed(scope.parameter(field), field)

    def output(self, scope: Scope) -> Field[Any]:
        return self.field if self.field is not None else self._known()

    def _known(self) -> Field[Any]:
        from covet_orm.fields.inference import field_of

        return field_of(self.value)

    def __repr__(self) -> str:
        return f"Value({self.value!r})"


class Arithmetic(Expression[T]):
    """Two expressions and an operator.

    Whole numbers divide as in Python: the result has its fraction, on every database. The remainder `%` has the sign of
    the dividend, as SQL has it. Dates and times take and give spans of time: `F("end") - F("begin")`.
    """

    __slots__ = ("left", "operator", "right")

    def __init__(self, operator: str, left: Any, right: Any) -> None:
        self.operator = operator
        self.left = as_expression(left)
        self.right = as_expression(right)

    def parts(self) -> Iterable[Expression[Any]]:
        return (self.left, self.right)

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        return Arithmetic(self.operator, parts[0], parts[1])

    def shape(self, key: Add, values: Add) -> None:
        key(self.operator)
        self.left.shape(key, values)
        self.right.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        from covet_orm.queries.arithmetic import calculate

        left, right = self.left.build(scope), self.right.build(scope)
        return calculate(scope, self.operator, left, self.left.output(scope), right, self.right.output(scope))

    def output(self, scope: Scope) -> Field[Any]:
        from covet_orm.fields.inference import arithmetic_field

        return arithmetic_field(self.operator, self.left.output(scope), self.right.output(scope))

    def __repr__(self) -> str:
        return f"({self.left!r} {self.operator} {self.right!r})"


def as_expression(value: Any) -> Expression[Any]:
    """A value as an expression: itself when it is one, a subquery of a queryset, else a parameter."""
    if isinstance(value, Expression):
        return value
    if hasattr(value, "get_queryset") or hasattr(value, "prepared"):
        from covet_orm.expressions.subqueries import Subquery

        return Subquery(value)
    return Value(value)


def named_expression(value: Any) -> Expression[Any]:
    """As `as_expression`, where text is the name of a field: what the arguments of functions are."""
    if isinstance(value, str):
        from covet_orm.expressions.references import F

        return F(value)
    return as_expression(value)


def is_null(value: Expression[Any]) -> bool:
    """Whether an expression is NULL, whose type is that of whatever it stands for."""
    return isinstance(value, Value) and value.value is None and value.field is None


def field_key(field: Field[Any]) -> Any:
    """What stands for a field in a shape: itself when it belongs to a model, else how it is declared."""
    if hasattr(field, "model"):
        return field
    # What begins with an underscore was made of the rest.
    return (type(field), *((name, _hashable(value)) for name, value in vars(field).items() if name[0] != "_"))


def _hashable(value: Any) -> Any:
    if hasattr(value, "column_type"):
        return field_key(value)
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value
