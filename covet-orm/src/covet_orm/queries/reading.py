"""The methods of querysets that read in more ways than one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast

from covet_orm.exceptions import QueryError

if TYPE_CHECKING:
    from sqlalchemy import Select

    from covet_orm.expressions.base import Expression, Ordering
    from covet_orm.expressions.conditions import Condition
    from covet_orm.models.instances import Model
    from covet_orm.models.options import Options
    from covet_orm.queries.ctes import CTE
    from covet_orm.queries.pagination import Page
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.queries.raw import RawQuery

__all__ = ["Reading"]

M = TypeVar("M", bound="Model")


class Reading(Generic[M]):
    """What `QuerySet` derives from."""

    __slots__ = ()

    if TYPE_CHECKING:
        model: type[M]

    async def aggregate(self, /, *aggregates: Expression[Any], **named: Expression[Any]) -> dict[str, Any]:
        """Aggregates of all rows: `await Book.objects.aggregate(Avg("price"), most=Max("price"))`.

        Args:
            aggregates: aggregates of a field, named after it: `price__avg`.
            named: aggregates, or expressions of some, by name.

        Returns:
            the values by name.

        Raises:
            QueryError: an expression holds no aggregate, or has no name.
        """
        from covet_orm.queries.aggregation import aggregate

        return await aggregate(self._query, aggregates, named)

    def alias(self, /, **expressions: Expression[Any]) -> Self:
        """With values that are computed for conditions and orders, and not given back.

        Raises:
            FieldError: a name is taken by a field, or an expression names what is not there.
        """
        from covet_orm.queries.annotating import annotate

        return cast("Self", annotate(self._query, expressions, hidden=True))

    def none(self) -> Self:
        """No results; a query of them sends nothing."""
        from covet_orm.queries.clauses import NONE

        made: Any = self._query._copy()
        made._clauses = (made._clauses or NONE).but(empty=True)
        return cast("Self", made)

    def union(self, *others: QuerySet[Any], all: bool = False) -> Self:
        """What any of several queries gives, no result twice unless `all`.

        The result can be ordered, by what it gives, and sliced; it cannot be filtered.

        Raises:
            QueryError: they give different columns.
        """
        from covet_orm.queries.combinators import combine

        return cast("Self", combine(self._query, "union all" if all else "union", others))

    def intersection(self, *others: QuerySet[Any]) -> Self:
        """What all of several queries give. As of `union`."""
        from covet_orm.queries.combinators import combine

        return cast("Self", combine(self._query, "intersection", others))

    def difference(self, *others: QuerySet[Any]) -> Self:
        """What this query gives and none of the others. As of `union`."""
        from covet_orm.queries.combinators import combine

        return cast("Self", combine(self._query, "difference", others))

    def join(self, table: CTE, *conditions: Condition, outer: bool = False) -> Self:
        """With a common table expression beside each row: `join(cte, F("id") == cte.c.id)`.

        A row to which several of its rows belong is there several times.

        Args:
            table: the common table expression.
            conditions: which of its rows belong to which.
            outer: whether rows to which none belongs stay.

        Raises:
            QueryError: there is no condition, or it is joined already.
        """
        from covet_orm.queries.ctes import join

        return cast("Self", join(self._query, table, conditions, outer=outer))

    def select_for_update(
        self, *, nowait: bool = False, skip_locked: bool = False, of: Sequence[str] = (), no_key: bool = False
    ) -> Self:
        """Lock the rows until the transaction ends (PostgreSQL, MySQL, MariaDB).

        Args:
            nowait: raise LockTimeout at once where somebody else holds a row.
            skip_locked: leave such rows out.
            of: the rows of which tables: `self`, and paths of select_related; of all tables by default (PostgreSQL,
                MySQL).
            no_key: let others refer to the rows by foreign keys meanwhile (PostgreSQL).

        Raises:
            QueryError: nowait and skip_locked exclude each other.
            TransactionError: when it is awaited: outside of a transaction.
            NotSupported: when it is awaited: the database has no such lock.
        """
        if nowait and skip_locked:
            raise QueryError("select_for_update(nowait=True, skip_locked=True): they exclude each other")
        made: Any = self._query._copy()
        made._lock = (nowait, skip_locked, (of,) if isinstance(of, str) else tuple(of), no_key)
        return cast("Self", made)

    async def explain(self, *, analyze: bool = False, format: Literal["text", "json"] = "text", **options: Any) -> str:
        """How the database runs the query.

        Args:
            analyze: run it, and tell what it took (PostgreSQL, MySQL, MariaDB).
            format: `text`, or `json` where the database has it.
            options: further options of PostgreSQL's EXPLAIN: `buffers=True`.

        Raises:
            NotSupported: the database has no such option.
        """
        from covet_orm.queries.explaining import explain

        return await explain(self._query, analyze=analyze, form=format, options=options)

    def raw(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> RawQuery[M]:
        """Objects of SQL that you write yourself.

        Args:
            sql: a SELECT that gives the columns of the key, and of those fields that are to be loaded. What is no
                column of the model becomes an annotation.
            parameters: a list for the placeholders of the driver (`$1`, `%s`, `?`), or a mapping for `:name`, on every
                database.
        """
        from covet_orm.queries.raw import RawQuery

        return RawQuery(self._query, sql, parameters)

    async def in_bulk(self, keys: Iterable[Any] | None = None, *, field_name: str = "pk") -> dict[Any, M]:
        """Objects by their keys; those that are not there are left out.

        Args:
            keys: the keys; all there are without.
            field_name: another unique field, whose values are the keys.

        Raises:
            FieldError: the field is not unique.
        """
        from covet_orm.queries.bulk_reading import in_bulk

        return await in_bulk(self._query, keys, field_name)

    async def earliest(self, *names: str) -> M:
        """The first object in the order of some fields.

        Raises:
            DoesNotExist: there is none.
            QueryError: no field was named.
        """
        return await self._one_end(names, reverse=False)

    async def latest(self, *names: str) -> M:
        """The last object in the order of some fields.

        Raises:
            DoesNotExist: there is none.
            QueryError: no field was named.
        """
        return await self._one_end(names, reverse=True)

    async def contains(self, instance: Model) -> bool:
        """Whether an object is among the results.

        Raises:
            QueryError: the query gives no objects, or the object was not saved.
        """
        query = self._query
        if query._chosen is not None:
            raise QueryError("contains() is of a query for objects, not of one for values()")
        if type(instance)._meta.concrete is not query.model._meta.concrete:
            return False
        if instance.pk is None:
            raise QueryError(f"{instance!r} was not saved yet, so that no query can give it")
        if query._limit is None and not query._offset and query._is_plain_select():
            return await query.filter(pk=instance.pk).exists()
        return any(one.pk == instance.pk for one in await query)

    def dates(
        self, field: str, kind: Literal["year", "month", "week", "day"], *, descending: bool = False
    ) -> QuerySet[Any]:
        """The days on which something of a DateField is, cut down to the beginning of the year, month or week.

        Args:
            field: the name of the field.
            kind: to what they are cut down.
            descending: whether the last one comes first.
        """
        from covet_orm.queries.bulk_reading import distinct_times

        return distinct_times(self._query, field, kind, descending=descending, of="date")

    def datetimes(
        self,
        field: str,
        kind: Literal["year", "month", "week", "day", "hour", "minute", "second"],
        *,
        descending: bool = False,
        tzinfo: Any = None,
    ) -> QuerySet[Any]:
        """The points in time at which something of a DateTimeField is, cut down.

        Args:
            field: the name of the field.
            kind: to what they are cut down.
            descending: whether the last one comes first.
            tzinfo: the time zone whose days, months, ... they are; UTC without.
        """
        from covet_orm.queries.bulk_reading import distinct_times

        return distinct_times(self._query, field, kind, descending=descending, of="datetime", tzinfo=tzinfo)

    async def paginate(
        self, *, after: str | None = None, before: str | None = None, size: int = 100, total: bool = False
    ) -> Page[M]:
        """One page of the results, found by the values of its neighbour's last row instead of by counting.

        The query's order is made unique by the key. Rows that come and go between two pages move no other one: each row
        that is there all the time is on one page.

        Args:
            after: the cursor `next` of the page before; the first page without.
            before: the cursor `previous` of the page behind.
            size: how many results, from 1 to 10,000.
            total: whether to count all results as well.

        Raises:
            QueryError: a cursor is none of this query's, or the query cannot be paged.
        """
        from covet_orm.queries.pagination import paginate

        return await paginate(self._query, after=after, before=before, size=size, total=total)

    def to_sqlalchemy(self) -> Select[Any]:
        """The query as a SELECT of SQLAlchemy Core, for the database that it asks, with its values as parameters.

        Raises:
            QueryError: a value is none that its field takes.
        """
        from covet_orm.queries.export import to_sqlalchemy

        return to_sqlalchemy(self._query)

    @property
    def options(self) -> Options:
        """The options of the model, with the relations that this query adds."""
        clauses = self._query._clauses
        return self.model._meta if clauses is None or clauses.options is None else clauses.options

    @property
    def _query(self) -> QuerySet[M]:
        return cast("QuerySet[M]", self)

    def _is_plain_select(self) -> bool:
        """Whether it is one SELECT of the rows of tables, without groups."""
        clauses = self._query._clauses
        return clauses is None or (clauses.group is None and clauses.combined is None)

    def _not_sliced(self, what: str) -> None:
        query = self._query
        if query._limit is not None or query._offset:
            raise QueryError(f"{what}() after a slice would change what the slice is of; slice last, or use a subquery")

    def _not_combined(self, what: str) -> None:
        clauses = self._query._clauses
        if clauses is not None and clauses.combined is not None:
            raise QueryError(
                f"{what}() of a set operation: do it to the queries that it is made of; the result can be ordered and "
                "sliced"
            )

    async def _one_end(self, names: tuple[str | Expression[Any] | Ordering, ...], *, reverse: bool) -> M:
        query: Any = self._query
        if not names:
            raise QueryError("earliest() and latest() need the names of the fields that tell what is earlier")
        query = query.order_by(*names)
        found = await (query.reverse() if reverse else query).first()
        if found is None:
            raise self.model.DoesNotExist(
                f"there is no {self.model.__name__} of which one would be the first or the last"
            )
        return cast("M", found)
