"""What a query builder is told about the rows that it is to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from covet_orm.exceptions import QueryError
from covet_orm.querybuilder.conditions import Conditional, Conditions, Node
from covet_orm.querybuilder.expressions import Aliased, Expression, Nulls, Ordering, named, several
from covet_orm.querybuilder.parts import CommonTable, Join, JoinKind, Lock, Parts, SetOperation, Source

if TYPE_CHECKING:
    from covet_orm.querybuilder.builders import QueryBuilder

__all__ = ["Selection", "selected"]

LARGEST = (1 << 63) - 1


class Selection(Conditional):
    """The methods of a query builder that choose rows and columns. Each gives a new builder.

    Attributes:
        parts: what it was told so far.
    """

    __slots__ = ("_dialect", "parts")

    parts: Parts
    _dialect: str | None

    def _but(self, **changes: Any) -> Self:
        return self._made_of(replace(self.parts, **changes))

    def _made_of(self, parts: Parts) -> Self:
        made = type(self).__new__(type(self))
        made._dialect = self._dialect
        made.parts = parts
        return made

    def _with(self, node: Node | Conditions, widening: bool) -> Self:
        if self.parts.operation:
            raise QueryError("where() after a set operation; put it before, or select from the operation as a query")
        return self._but(where=self.parts.where._with(node, widening))

    def select(self, *columns: str | Expression | Aliased, **aliased: str | Expression | QueryBuilder) -> Self:
        """Add columns to the result; without any it has them all.

        Args:
            columns: names of columns, `*`, `table.*`, or expressions.
            aliased: the same by the name that they get: `select(total=count())`. A query of one value is one as well.

        Raises:
            QueryError: an argument is none of these.
        """
        return self._but(columns=(*self.parts.columns, *selected(columns, aliased)))

    def distinct(self) -> Self:
        """Equal rows once."""
        return self._but(distinct=True)

    def distinct_on(self, *columns: str | Expression) -> Self:
        """Of the rows that are equal in these columns the first one (PostgreSQL)."""
        return self._but(distinct_on=(*self.parts.distinct_on, *map(named, columns)))

    def join(
        self,
        table: str | QueryBuilder,
        left: str | Callable[[Conditions], Conditions] | Conditions | None = None,
        operator: str = "=",
        right: str | None = None,
        *,
        alias: str | None = None,
        kind: JoinKind = "inner",
        lateral: bool = False,
    ) -> Self:
        """Join another table.

        Args:
            table: its name, or a query, which needs an alias.
            left: a column, compared to `right`: `join("posts", "posts.user_id", "=", "users.id")`; or a group of
                conditions: `join("posts", lambda on: on.where_column(…).where(…))`. Nothing with `kind="cross"`.
            operator: how the columns are compared.
            right: the other column.
            alias: the name that the table goes by.
            kind: `inner`, `left`, `right`, `full` or `cross`.
            lateral: whether a query sees the tables before it (PostgreSQL, MySQL).

        Raises:
            QueryError: there is no such kind of join or operator, or the condition is lacking.
        """
        if kind not in ("inner", "left", "right", "full", "cross"):
            raise QueryError(f"{kind!r:.60} is no kind of join; there are: inner, left, right, full, cross")
        if lateral and (isinstance(table, str) or kind in ("right", "full")):
            raise QueryError("a query can be lateral, in an inner, left or cross join")
        on: Conditions | None
        if left is None:
            if kind != "cross" and not lateral:
                raise QueryError(f"the join of {table!r:.60} has no condition; if none is meant, say kind='cross'")
            on = None
        elif kind == "cross":
            raise QueryError("a cross join has no condition")
        elif isinstance(left, str):
            if right is None:
                raise QueryError(f"the join of {table!r:.60} compares {left!r:.60} to nothing; name the other column")
            on = Conditions().where_column(left, operator, right)
        else:
            on = Conditions().where(left)
        return self._but(joins=(*self.parts.joins, Join(Source(table, alias), kind, on, lateral)))

    def left_join(
        self,
        table: str | QueryBuilder,
        left: Any,
        operator: str = "=",
        right: str | None = None,
        *,
        alias: str | None = None,
    ) -> Self:
        """Join another table, and keep the rows that have none there; the arguments and errors are those of `join`."""
        return self.join(table, left, operator, right, alias=alias, kind="left")

    def right_join(
        self,
        table: str | QueryBuilder,
        left: Any,
        operator: str = "=",
        right: str | None = None,
        *,
        alias: str | None = None,
    ) -> Self:
        """Join another table, and keep all its rows; the arguments and errors are those of `join`."""
        return self.join(table, left, operator, right, alias=alias, kind="right")

    def full_join(
        self,
        table: str | QueryBuilder,
        left: Any,
        operator: str = "=",
        right: str | None = None,
        *,
        alias: str | None = None,
    ) -> Self:
        """Join another table, and keep the rows of both (not on MySQL and MariaDB); as `join`."""
        return self.join(table, left, operator, right, alias=alias, kind="full")

    def cross_join(self, table: str | QueryBuilder, *, alias: str | None = None) -> Self:
        """Each row with each row of another table."""
        return self.join(table, alias=alias, kind="cross")

    def group_by(self, *columns: str | Expression) -> Self:
        """One row for all that are equal in these columns."""
        return self._but(group_by=(*self.parts.group_by, *map(named, columns)))

    def having(self, column: Any, *comparison: Any) -> Self:
        """Those groups alone for which a condition holds; the arguments and errors are those of `where`."""
        return self._but(having=self.parts.having.where(column, *comparison))

    def or_having(self, column: Any, *comparison: Any) -> Self:
        """Those groups as well for which a condition holds; the arguments and errors are those of `where`."""
        return self._but(having=self.parts.having.or_where(column, *comparison))

    def order_by(self, column: str | Expression | Ordering, direction: str = "asc", *, nulls: Nulls = None) -> Self:
        """Sort by a column, after those that were said before.

        Args:
            column: its name, an expression, or `col(…).desc()`.
            direction: `asc` or `desc`.
            nulls: whether NULL is `first` or `last`; where the database puts it without.

        Raises:
            QueryError: the direction or `nulls` is another.
        """
        asked = direction.lower() if isinstance(direction, str) else direction
        if asked not in ("asc", "desc"):
            raise QueryError(
                f"{direction!r:.60} is no direction: 'asc' or 'desc'; one call of order_by() takes one column"
            )
        if nulls not in (None, "first", "last"):
            raise QueryError(f"nulls={nulls!r:.60}: NULL is sorted 'first' or 'last'")
        made = column if isinstance(column, Ordering) else Ordering(named(column), asked == "desc", nulls)
        return self._but(order_by=(*self.parts.order_by, made))

    def limit(self, rows: int) -> Self:
        """At most so many rows. Raises QueryError for what is no number of rows."""
        return self._but(limit=_rows(rows, "limit"))

    def offset(self, rows: int) -> Self:
        """Without the first so many rows. Raises QueryError for what is no number of rows."""
        return self._but(offset=_rows(rows, "offset"))

    def for_update(self, *, nowait: bool = False, skip_locked: bool = False, of: Sequence[str] = ()) -> Self:
        """Lock the rows for writing until the transaction ends (not on SQLite).

        Args:
            nowait: fail at once when one is locked, rather than wait.
            skip_locked: leave out those that are locked.
            of: the tables whose rows are locked, by the names that they go by; all by default.

        Raises:
            QueryError: `nowait` and `skip_locked`.
        """
        return self._lock(False, nowait, skip_locked, of)

    def for_share(self, *, nowait: bool = False, skip_locked: bool = False, of: Sequence[str] = ()) -> Self:
        """Lock the rows against writing; the arguments and errors are those of `for_update`."""
        return self._lock(True, nowait, skip_locked, of)

    def _lock(self, share: bool, nowait: bool, skip_locked: bool, of: Sequence[str]) -> Self:
        if nowait and skip_locked:
            raise QueryError("nowait fails at a locked row, skip_locked leaves it out; choose one")
        return self._but(lock=Lock(share, nowait, skip_locked, (of,) if isinstance(of, str) else tuple(of)))

    def with_(self, name: str, query: QueryBuilder, *, materialized: bool | None = None) -> Self:
        """Name a query, to select from it by that name: `WITH name AS (query)`.

        Args:
            name: the name; `QueryBuilder(name)`, `join(name, …)` refer to it.
            query: a query; on PostgreSQL also an insert, update or delete that returns something.
            materialized: whether it is computed once by itself; None leaves it to the database (PostgreSQL, SQLite).
        """
        return self._but(tables=(*self.parts.tables, CommonTable(name, query, materialized=materialized)))

    def with_recursive(self, name: str, first: QueryBuilder, step: QueryBuilder, *, distinct: bool = False) -> Self:
        """Name a query that refers to itself: `WITH RECURSIVE name AS (first UNION ALL step)`.

        Args:
            name: the name; `step` selects from it the rows that were found last.
            first: gives the first rows, and names each column.
            step: gives the next ones, until there are none.
            distinct: whether equal rows are taken once, which ends cycles.
        """
        return self._but(tables=(*self.parts.tables, CommonTable(name, first, step, distinct)))

    def union(self, other: QueryBuilder, *, all: bool = False) -> Self:
        """The rows of both; equal ones once unless `all`. What follows (`order_by`, `limit`) is for the whole."""
        return self._combine("union all" if all else "union", other)

    def intersect(self, other: QueryBuilder, *, all: bool = False) -> Self:
        """The rows that are in both; as `union`."""
        return self._combine("intersect all" if all else "intersect", other)

    def except_(self, other: QueryBuilder, *, all: bool = False) -> Self:
        """The rows that are not in the other; as `union`."""
        return self._combine("except all" if all else "except", other)

    def _combine(self, operation: SetOperation, other: QueryBuilder) -> Self:
        if not isinstance(other, Selection):
            raise QueryError(f"{other!r:.60} is no query to combine with")
        for one in (self, other):
            if one.parts.verb or one.parts.lock:
                raise QueryError(f"what changes or locks rows is no side of {operation.upper()}")
        parts = self.parts
        same = parts.operation == operation and not parts.order_by and parts.limit is None and parts.offset is None
        arms: tuple[Any, ...] = (*parts.arms, other) if same else (self._but(tables=()), other)
        return self._made_of(Parts(None, operation=operation, arms=arms, tables=parts.tables))


def selected(columns: Sequence[Any], aliased: Mapping[str, Any]) -> list[Expression | Aliased]:
    """Columns by name, expressions, and those that get a name. Raises QueryError."""
    made: list[Expression | Aliased] = []
    for one in columns:
        made.append(one if isinstance(one, Aliased) else several(one))
    return [*made, *(Aliased(named(one), alias) for alias, one in aliased.items())]


def _rows(given: Any, what: str) -> int:
    if type(given) is not int or not 0 <= given <= LARGEST:
        raise QueryError(f"{what}={given!r:.60}: a number of rows is a whole number from 0 to {LARGEST:,}")
    return given
