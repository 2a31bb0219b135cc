"""Window functions: a value beside each row, of the rows around it.

Employee.objects.annotate(rank=Window(Rank(), partition_by="department", order_by="-salary")).filter(rank__lte=3)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.expressions.aggregates import Aggregate
from covet_orm.expressions.base import Add, Expression, Ordering, as_expression, field_key, named_expression
from covet_orm.expressions.collecting import ordering
from covet_orm.expressions.functions.base import Func
from covet_orm.fields.inference import FLOAT, INTEGER

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = [
    "CumeDist",
    "DenseRank",
    "FirstValue",
    "GroupRange",
    "Lag",
    "LastValue",
    "Lead",
    "NthValue",
    "Ntile",
    "PercentRank",
    "Rank",
    "RowNumber",
    "RowRange",
    "ValueRange",
    "Window",
]

T = TypeVar("T")


class WindowFunc(Func[T]):
    """The base of functions that stand in a Window alone."""

    __slots__ = ()

    def build(self, scope: Scope) -> ColumnElement[Any]:
        raise QueryError(f"{self!r} stands in a Window alone: Window({self!r}, order_by=...)")


class RowNumber(WindowFunc[int]):
    """Counts the rows, from 1."""

    function = "row_number"
    arity = (0, 0)
    output_field = INTEGER


class Rank(WindowFunc[int]):
    """The place of a row, from 1; rows that are equal share one, and the next ones lack it."""

    function = "rank"
    arity = (0, 0)
    output_field = INTEGER


class DenseRank(WindowFunc[int]):
    """The place of a row, from 1; rows that are equal share one, and no place is left out."""

    function = "dense_rank"
    arity = (0, 0)
    output_field = INTEGER


class PercentRank(WindowFunc[float]):
    """The place of a row, from 0 to 1."""

    function = "percent_rank"
    arity = (0, 0)
    output_field = FLOAT


class CumeDist(WindowFunc[float]):
    """Which part of the rows come no later than this one, up to 1."""

    function = "cume_dist"
    arity = (0, 0)
    output_field = FLOAT


class Ntile(WindowFunc[int]):
    """The number of the bucket of a row, from 1, of buckets of nearly equal size.

    Args:
        buckets: how many.

    Raises:
        QueryError: less than one.
    """

    __slots__ = ("buckets",)

    output_field = INTEGER

    def __init__(self, buckets: int) -> None:
        if isinstance(buckets, bool) or not isinstance(buckets, int) or not 1 <= buckets < 2**31:
            raise QueryError(f"Ntile({buckets!r}): a whole number from 1 is needed")
        super().__init__()
        self.buckets = buckets

    def options(self) -> Hashable:
        return self.buckets

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.ntile(sqlalchemy.literal_column(str(self.buckets)))


class Lag(WindowFunc[T]):
    """The value of a row before this one.

    Args:
        expression: the value.
        offset: how many rows before.
        default: the value where there is no such row; NULL by default.

    Raises:
        QueryError: the offset is below 0.
    """

    __slots__ = ("offset",)

    function = "lag"
    arity = (1, 2)

    def __init__(self, expression: Any, offset: int = 1, default: Any = None) -> None:
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < 2**31:
            raise QueryError(f"{type(self).__name__}(..., {offset!r}): a whole number from 0 is needed")
        super().__init__(expression, *(() if default is None else (as_expression(default),)))
        self.offset = offset

    def options(self) -> Hashable:
        return self.offset

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        number: ColumnElement[Any] = sqlalchemy.literal_column(str(self.offset))
        if scope.kind == "mariadb" and len(arguments) > 1:
            raise NotSupported(f"mariadb has no default in {type(self).__name__}(); use Coalesce() around the Window")
        if scope.kind == "postgresql" and len(arguments) > 1:
            # Both must be of one type there.
            return super().sql(scope, arguments[0], number, sqlalchemy.cast(arguments[1], arguments[0].type))
        return super().sql(scope, *arguments[:1], number, *arguments[1:])


class Lead(Lag[T]):
    """The value of a row behind this one.

    Args:
        expression: the value.
        offset: how many rows behind.
        default: the value where there is no such row; NULL by default.

    Raises:
        QueryError: the offset is below 0.
    """

    function = "lead"


class FirstValue(WindowFunc[T]):
    """The value of the first row of the frame."""

    function = "first_value"
    arity = (1, 1)


class LastValue(WindowFunc[T]):
    """The value of the last row of the frame, which ends with this row unless a frame is given."""

    function = "last_value"
    arity = (1, 1)


class NthValue(WindowFunc[T]):
    """The value of the n-th row of the frame, from 1; NULL where it has fewer.

    Args:
        expression: the value.
        nth: which row.

    Raises:
        QueryError: it is below 1.
    """

    __slots__ = ("nth",)

    function = "nth_value"
    arity = (1, 1)

    def __init__(self, expression: Any, nth: int) -> None:
        if isinstance(nth, bool) or not isinstance(nth, int) or not 1 <= nth < 2**31:
            raise QueryError(f"NthValue(..., {nth!r}): a whole number from 1 is needed")
        super().__init__(expression)
        self.nth = nth

    def options(self) -> Hashable:
        return self.nth

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return super().sql(scope, *arguments, sqlalchemy.literal_column(str(self.nth)))


class RowRange:
    """A frame of rows: from so many before this one to so many behind it.

    Args:
        start: where it begins: below 0 so many rows before, 0 this row, above 0 behind; None for the first of all.
        end: where it ends, in the same way; None for the last of all.

    Raises:
        QueryError: a bound is no whole number, or the end is before the start.
    """

    kind = "rows"

    def __init__(self, start: int | None = None, end: int | None = None) -> None:
        for bound in (start, end):
            if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or abs(bound) >= 2**31):
                raise QueryError(f"{type(self).__name__}({start!r}, {end!r}): a bound is a whole number, or None")
        if start is not None and end is not None and end < start:
            raise QueryError(f"{type(self).__name__}({start}, {end}): it ends before it begins")
        self.start = start
        self.end = end

    def key(self) -> Hashable:
        """What it is, in a shape."""
        return self.kind, self.start, self.end


class ValueRange(RowRange):
    """A frame of values: from so much less than this row's to so much more, in what the window is ordered by.

    Args:
        start: where it begins: below 0 so much less, 0 this row and those equal to it; None for the first of all.
        end: where it ends; None for the last of all.
    """

    kind = "range_"


class GroupRange(RowRange):
    """A frame of groups of rows that are equal in what the window is ordered by (PostgreSQL and SQLite).

    Args:
        start: where it begins: below 0 so many groups before, 0 this one; None for the first of all.
        end: where it ends; None for the last of all.
    """

    kind = "groups"


class Window(Expression[T]):
    """A function of the rows around each row.

    Args:
        expression: a function such as `Rank()`, or an aggregate such as `Sum("price")`.
        partition_by: the rows are those with the same values of this: a name, an expression, or several.
        order_by: in which order: names, with a minus before those that descend, or expressions.
        frame: which rows around this one; with an order those up to this one and its equals, without one all, by
            default.
        output_field: the field of the result.

    Raises:
        QueryError: the expression is neither.
    """

    __slots__ = ("field", "frame", "function", "order_by", "partition_by")

    def __init__(
        self,
        expression: Any,
        *,
        partition_by: Any = (),
        order_by: Any = (),
        frame: RowRange | None = None,
        output_field: Field[Any] | None = None,
    ) -> None:
        if not isinstance(expression, (WindowFunc, Aggregate)):
            raise QueryError(f"Window({expression!r}): an aggregate, or a function such as Rank() is needed")
        if frame is not None and not isinstance(frame, RowRange):
            raise QueryError(f"Window(frame={frame!r}): a RowRange, a ValueRange or a GroupRange is needed")
        self.function: Func[Any] = expression
        parts = partition_by if isinstance(partition_by, (list, tuple)) else (partition_by,)
        self.partition_by: tuple[Expression[Any], ...] = tuple(named_expression(part) for part in parts)
        order = order_by if isinstance(order_by, (list, tuple)) else (order_by,)
        self.order_by: tuple[Ordering, ...] = tuple(ordering(one) for one in order)
        self.frame = frame
        self.field = output_field

    @property
    def aggregates(self) -> bool:
        # An aggregate inside of the function's arguments is of the rows of a group, which the window then sees.
        return any(
            part.aggregates
            for part in (*self.function.parts(), *self.partition_by, *(one.expression for one in self.order_by))
        )

    @property
    def windows(self) -> bool:
        return True

    def parts(self) -> Iterable[Expression[Any]]:
        return (*self.function.parts(), *self.partition_by, *(one.expression for one in self.order_by))

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        left = list(parts)
        inner = [left.pop(0) for _ in self.function.parts()]
        function: Any = self.function.replaced(inner)
        made: Window[T] = Window(function, frame=self.frame, output_field=self.field)
        made.partition_by = tuple(left.pop(0) for _ in self.partition_by)
        made.order_by = tuple(
            Ordering(left.pop(0), descending=one.descending, nulls=one.nulls) for one in self.order_by
        )
        return made

    def shape(self, key: Add, values: Add) -> None:
        key(
            (
                "window",
                len(self.partition_by),
                len(self.order_by),
                None if self.frame is None else self.frame.key(),
                None if self.field is None else field_key(self.field),
            )
        )
        self.function.shape(key, values)
        for part in self.partition_by:
            part.shape(key, values)
        for one in self.order_by:
            one.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        function = self.function
        if isinstance(function, Aggregate):
            if function.default is not None:
                raise QueryError(f"{self!r}: the default of an aggregate goes around its window, as Coalesce()")
            over: Any = function.bare(scope)
        else:
            over = function.sql(scope, *(part.build(scope) for part in function.arguments))
        frames: dict[str, Any] = {}
        if self.frame is not None:
            if self.frame.kind == "groups" and scope.kind in ("mysql", "mariadb"):
                raise NotSupported(f"{scope.kind} has no frames of GROUPS; PostgreSQL and SQLite have")
            frames[self.frame.kind] = (self.frame.start, self.frame.end)
        window = over.over(
            partition_by=[part.build(scope) for part in self.partition_by] or None,
            order_by=[element for one in self.order_by for element in one.build(scope)] or None,
            **frames,
        )
        if isinstance(function, Aggregate):
            return function.result(scope, window)
        return sqlalchemy.type_coerce(window, self.output(scope).column_type())

    def output(self, scope: Scope) -> Field[Any]:
        return self.field or self.function.output(scope)

    def __repr__(self) -> str:
        return f"Window({self.function!r})"
