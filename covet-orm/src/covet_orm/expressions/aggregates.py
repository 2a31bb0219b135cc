"""Aggregates: values of many rows.

What an aggregate stands for depends on where it stands. In a query that groups (`values("team").annotate(...)`) and in
`aggregate()` it is of the rows of a group. In `annotate(n=Count("books"))` it is of what a relation leads to from each
object, and becomes a subquery of its own: two of them, over different relations, do not multiply each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import sqlalchemy
from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import Grouping

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, Expression, Ordering, as_expression
from covet_orm.expressions.conditions import Condition
from covet_orm.expressions.functions.base import Func
from covet_orm.expressions.references import F
from covet_orm.fields.inference import (
    BOOLEAN,
    DURATION,
    FLOAT,
    INTEGER,
    ComputedDecimal,
    ComputedInteger,
    decimal_places,
    family,
)
from covet_orm.queries.arithmetic import as_double

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.models.relations import Relation
    from covet_orm.queries.names import Names
    from covet_orm.queries.scope import Scope

__all__ = [
    "Aggregate",
    "AnyValue",
    "Avg",
    "BoolAnd",
    "BoolOr",
    "Count",
    "Max",
    "Min",
    "StdDev",
    "Sum",
    "Variance",
    "names_in",
]

T = TypeVar("T")

COUNT = ComputedInteger()


class Star(Expression[Any]):
    """What `Count("*")` counts: rows."""

    __slots__ = ()

    def shape(self, key: Add, values: Add) -> None:
        key("*")

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return sqlalchemy.literal_column("*")

    def output(self, scope: Scope) -> Field[Any]:
        return COUNT

    def __repr__(self) -> str:
        return "'*'"


class Aggregate(Func[T]):
    """A value of many rows. One of your own derives from it as from `Func`.

    Args:
        expression: what it is of: an expression, or the name of a field or a relation.
        distinct: whether equal values count once.
        filter: which rows it is of.
        default: the value of no rows, which otherwise is NULL.
        output_field: the field of the result.

    Attributes:
        repeats: whether it is the same however often a row comes in.
        takes_distinct: whether `distinct` makes a difference.
    """

    __slots__ = ("default", "distinct", "filter")

    arity = (1, 1)
    repeats: ClassVar[bool] = False
    takes_distinct: ClassVar[bool] = False

    def __init__(
        self,
        expression: Any,
        *,
        distinct: bool = False,
        filter: Condition | None = None,
        default: Any = None,
        output_field: Field[Any] | None = None,
    ) -> None:
        super().__init__(expression, output_field=output_field)
        if distinct and not self.takes_distinct and not self.repeats:
            raise QueryError(f"{type(self).__name__} has no distinct")
        if filter is not None and not isinstance(filter, Condition):
            raise QueryError(f"{type(self).__name__}(filter={filter!r}): a condition is needed, such as Q(field=value)")
        self.distinct = distinct and self.takes_distinct
        self.filter = filter
        self.default: Expression[Any] | None = None if default is None else as_expression(default)

    @property
    def aggregates(self) -> bool:
        return True

    def options(self) -> Hashable:
        return self.distinct, self.filter is not None, self.default is not None

    def order(self) -> Sequence[Ordering]:
        """The order in which it takes the rows."""
        return ()

    def parts(self) -> Iterable[Expression[Any]]:
        return (
            *self.arguments,
            *(one.expression for one in self.order()),
            *([self.filter] if self.filter is not None else []),
            *([self.default] if self.default is not None else []),
        )

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        made = self.copied()
        left = list(parts)
        made.arguments = tuple(left.pop(0) for _ in self.arguments)
        made.reorder([left.pop(0) for _ in self.order()])
        if self.filter is not None:
            condition = left.pop(0)
            assert isinstance(condition, Condition)
            made.filter = condition
        if self.default is not None:
            made.default = left.pop(0)
        return made

    def reorder(self, expressions: Sequence[Expression[Any]]) -> None:
        """Order by other expressions, in the same directions."""

    def resolved(self, names: Names) -> Expression[Any]:
        found = super().resolved(names)
        if any(argument.aggregates for argument in self.arguments):
            raise QueryError(f"{self!r}: an aggregate of an aggregate is of the rows of another query; use a subquery")
        return found

    def shape(self, key: Add, values: Add) -> None:
        super().shape(key, values)
        for one in self.order():
            one.shape(key, values)
        if self.filter is not None:
            self.filter.shape(key, values)
        if self.default is not None:
            self.default.shape(key, values)

    def chain(self, scope: Scope) -> tuple[Relation, ...]:
        """The relations, up to the last that leads to many, whose rows it is of.

        Raises:
            QueryError: there are two ways.
        """
        longest: tuple[Relation, ...] = ()
        for name in names_in(self.arguments):
            found = _chain_of(scope, name)
            if found[: len(longest)] == longest:
                longest = found
            elif longest[: len(found)] != found:
                raise QueryError(f"{self!r} is of the rows of two relations; one aggregate is of those of one")
        return longest

    def build(self, scope: Scope) -> ColumnElement[Any]:
        chain = self.chain(scope)
        if scope.grouped:
            before = scope.row_chain
            scope.row_chain = chain
            try:
                return self._with_default(scope, self.of_rows(scope))
            finally:
                scope.row_chain = before
        from covet_orm.queries.names import many_relations
        from covet_orm.queries.scope import RelatedScope

        relations = many_relations(chain)
        if not relations:
            raise QueryError(
                f"{self!r} is of the model's own rows, and the query does not group them: values(...) before "
                "annotate() "
                "groups, aggregate() gives the value of all rows, Window() gives it beside each row"
            )
        inner = RelatedScope(relations, scope)
        inner.row_chain = chain
        inner.grouped = True
        return self._with_default(scope, inner.scalar(self.of_rows(inner)))

    def of_rows(self, scope: Scope) -> ColumnElement[Any]:
        """The aggregate of the rows of a scope, without the default."""
        return self.result(scope, self.bare(scope))

    def bare(self, scope: Scope) -> ColumnElement[Any]:
        """The call of the function, with its filter, of the rows of a scope."""
        arguments = [argument.build(scope) for argument in self.arguments]
        arguments[0] = self.value(scope, arguments[0])
        order = [self.ordering(scope, one) for one in self.order()]
        condition = None if self.filter is None else self.filter.build(scope)
        if condition is not None and scope.kind in ("mysql", "mariadb"):
            first = arguments[0]
            counted = sqlalchemy.literal_column("1") if isinstance(self.arguments[0], Star) else first
            arguments[0] = sqlalchemy.case((condition, counted))
            condition = None
        element: Any = self.of_arguments(scope, arguments, order)
        made: ColumnElement[Any] = element if condition is None else sqlalchemy.funcfilter(element, condition)
        return made

    def value(self, scope: Scope, built: ColumnElement[Any]) -> ColumnElement[Any]:
        """What the function takes of each row."""
        return built

    def ordering(self, scope: Scope, one: Ordering) -> Any:
        """One part of the order, as SQL."""
        return one.build(scope)

    def of_arguments(self, scope: Scope, arguments: list[ColumnElement[Any]], order: list[Any]) -> Any:
        """The call of the function."""
        first = sqlalchemy.distinct(arguments[0]) if self.distinct else arguments[0]
        return self.sql(scope, first, *arguments[1:])

    def result(self, scope: Scope, element: Any) -> ColumnElement[Any]:
        """What is made of the value of the function."""
        return sqlalchemy.type_coerce(element, self.output(scope).column_type())

    def _with_default(self, scope: Scope, element: ColumnElement[Any]) -> ColumnElement[Any]:
        if self.default is None:
            return element
        column_type = self.output(scope).column_type()
        return sqlalchemy.type_coerce(func.coalesce(element, self.default.build(scope)), column_type)


class Count(Aggregate[int]):
    """How many values there are that are not NULL; `Count("*")` how many rows.

    Args:
        expression: what is counted: an expression, the name of a field or of a relation, `*`.
        distinct: whether equal values count once.
        filter: which rows.
    """

    function = "count"
    output_field = COUNT
    takes_distinct = True

    def __init__(self, expression: Any = "*", *, distinct: bool = False, filter: Condition | None = None) -> None:
        rows = isinstance(expression, str) and expression == "*"
        super().__init__(Star() if rows else expression, distinct=distinct, filter=filter)


class Sum(Aggregate[T]):
    """The sum; NULL of no rows, unless there is a default."""

    function = "sum"
    takes_distinct = True

    def output(self, scope: Scope) -> Field[Any]:
        if self.field is not None:
            return self.field
        of = self.arguments[0].output(scope)
        kind = family(of)
        if kind == "integer":
            return INTEGER
        if kind == "decimal":
            return ComputedDecimal(decimal_places(of))
        if kind == "duration":
            return DURATION
        if kind == "float":
            return FLOAT
        raise QueryError(f"{self!r}: a {kind} cannot be added up")


class Avg(Aggregate[T]):
    """The mean: a decimal with four more digits behind the point of decimals, else a float."""

    function = "avg"
    takes_distinct = True

    def value(self, scope: Scope, built: ColumnElement[Any]) -> ColumnElement[Any]:
        # The mean of whole numbers has four digits behind the point there.
        return _as_floats(scope, built, self.arguments[0].output(scope), "integer")

    def result(self, scope: Scope, element: Any) -> ColumnElement[Any]:
        output = self.output(scope)
        if scope.kind == "postgresql" and family(output) == "float":
            return sqlalchemy.cast(element, sqlalchemy.Double())
        if scope.kind != "postgresql" and family(output) == "duration":
            return sqlalchemy.cast(func.round(element), sqlalchemy.Integer())
        return sqlalchemy.type_coerce(element, output.column_type())

    def output(self, scope: Scope) -> Field[Any]:
        if self.field is not None:
            return self.field
        of = self.arguments[0].output(scope)
        kind = family(of)
        if kind == "decimal":
            return ComputedDecimal(min(decimal_places(of) + 4, 15))
        if kind in ("integer", "float"):
            return FLOAT
        if kind == "duration":
            return DURATION
        raise QueryError(f"{self!r}: a {kind} has no mean")


class Min(Aggregate[T]):
    """The smallest value."""

    function = "min"
    repeats = True


class Max(Aggregate[T]):
    """The largest value."""

    function = "max"
    repeats = True


class Variance(Aggregate[float]):
    """The variance.

    Args:
        expression: the numbers.
        sample: whether they are a sample of a population, instead of all of it.
        filter: which rows.
        default: the value of too few rows.
    """

    __slots__ = ("sample",)

    output_field = FLOAT
    names: ClassVar[tuple[str, str]] = ("var_pop", "var_samp")
    of_sqlite: ClassVar[str] = "covet_variance"

    def __init__(
        self,
        expression: Any,
        *,
        sample: bool = False,
        filter: Condition | None = None,
        default: Any = None,
    ) -> None:
        super().__init__(expression, filter=filter, default=default)
        self.sample = sample

    def options(self) -> Hashable:
        return self.sample, super().options()

    def value(self, scope: Scope, built: ColumnElement[Any]) -> ColumnElement[Any]:
        return _as_floats(scope, built, self.arguments[0].output(scope), "integer", "decimal")

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "sqlite":
            name = f"{self.of_sqlite}_of_sample" if self.sample else self.of_sqlite
        else:
            name = self.names[self.sample]
        called: ColumnElement[Any] = getattr(func, name)(*arguments)
        return called

    def result(self, scope: Scope, element: Any) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            return sqlalchemy.cast(element, sqlalchemy.Double())
        return sqlalchemy.type_coerce(element, sqlalchemy.Double())


class StdDev(Variance):
    """The standard deviation.

    Args:
        expression: the numbers.
        sample: whether they are a sample of a population, instead of all of it.
        filter: which rows.
        default: the value of too few rows.
    """

    __slots__ = ()

    names = ("stddev_pop", "stddev_samp")
    of_sqlite = "covet_stddev"


class BoolAnd(Aggregate[bool]):
    """Whether all are true."""

    output_field = BOOLEAN
    repeats = True
    names: ClassVar[tuple[str, str]] = ("bool_and", "min")

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        called: ColumnElement[Any] = getattr(func, self.names[scope.kind != "postgresql"])(*arguments)
        return called


class BoolOr(BoolAnd):
    """Whether any is true."""

    names = ("bool_or", "max")


class AnyValue(Aggregate[T]):
    """One of the values; which one, nobody knows."""

    repeats = True

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            # `any_value` is not there before version 16.
            return func.array_agg(arguments[0], type_=ARRAY(arguments[0].type))
        return func.any_value(*arguments) if scope.kind == "mysql" else func.min(*arguments)

    def result(self, scope: Scope, element: Any) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            values = Grouping(sqlalchemy.type_coerce(element, ARRAY(self.output(scope).column_type())))
            element = values[sqlalchemy.literal_column("1")]
        return super().result(scope, element)


def _as_floats(scope: Scope, built: ColumnElement[Any], field: Field[Any], *kinds: str) -> ColumnElement[Any]:
    """Numbers as floats, where MySQL would calculate with few digits."""
    return as_double(scope, built) if scope.kind in ("mysql", "mariadb") and family(field) in kinds else built


def names_in(expressions: Iterable[Expression[Any]]) -> Iterable[str]:
    """The names in expressions that are of the query's own rows."""
    for expression in expressions:
        if isinstance(expression, F):
            yield expression.name
        yield from names_in(expression.parts())


def _chain_of(scope: Scope, name: str) -> tuple[Relation, ...]:
    from covet_orm.queries.names import annotation_in

    if annotation_in(scope.annotations, name) is not None or hasattr(scope, "columns"):
        return ()
    relations = scope.options.path(name).relations
    last = max((position for position, relation in enumerate(relations, 1) if relation.many), default=0)
    return relations[:last]
