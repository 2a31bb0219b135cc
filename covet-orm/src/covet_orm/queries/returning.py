"""`update_returning` and `delete_returning`: rows are written, and read by the same statement where the database can.

MySQL and MariaDB give no rows of an UPDATE, and MySQL none of a DELETE (https://mariadb.com/kb/en/delete/, RETURNING).
There, and for models whose fields stand in several tables, the rows are locked first, within one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import FieldError, IntegrityError, QueryError
from covet_orm.queries.hydration import object_loader
from covet_orm.queries.locks import fetch_locked
from covet_orm.queries.one_database import require_one_database
from covet_orm.queries.plans import make_plan, refused
from covet_orm.queries.saving import named
from covet_orm.queries.selects import loaded_fields
from covet_orm.queries.writing import Change, counted, delete, deletion, update, updating
from covet_orm.relations.deletion import delete_with_signals, wants_signals
from covet_orm.relations.keys import batches

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["delete_returning", "update_returning"]


async def update_returning(query: QuerySet[Any], values: Mapping[str, Any]) -> list[Any]:
    """Write values to every row of a query; the objects as they are then. What `QuerySet.update_returning` does."""
    _require_objects(query, "update_returning")
    options = query.model._meta
    for name in values:
        if options.field(name).primary_key:
            raise FieldError(f"update_returning({name}=...): it is of the key, by which the rows are found again")
    database = query.database
    if options.parent_link is None and database.kind in ("postgresql", "sqlite"):
        return await _returned(query, updating(_with_lock(query), counted(query, values)))
    found: list[Any] = []
    async with database.transaction():
        for rows in _by_keys(query, await _locked_keys(query)):
            await update(rows, values)
            found += await fetch_locked(_without_values(rows))
        await _prefetch(query, found)
    return found


async def delete_returning(query: QuerySet[Any]) -> list[Any]:
    """Delete every row of a query; the objects as they were. What `QuerySet.delete_returning` does."""
    _require_objects(query, "delete_returning")
    database = query.database
    signals = wants_signals(query.model)
    if not signals and not query._prefetch and query.model._meta.parent_link is None and database.kind != "mysql":
        found = await _returned(query, deletion(query))
    else:
        async with database.transaction():
            parts = list(_by_keys(query, await _locked_keys(query)))
            found = [one for rows in parts for one in await fetch_locked(_without_values(rows))]
            await _prefetch(query, found)
            if signals:
                await delete_with_signals(found, database, origin=query)
            else:
                for rows in parts:
                    await delete(rows)
    for one in found:
        # They have no row any more, as after `delete()` of one.
        if one.saved:
            del one._row
    return found


async def _returned(query: QuerySet[Any], change: Change) -> list[Any]:
    """Run a statement that writes and gives the rows back."""
    database = query.database
    await database.open()
    fields = loaded_fields(query)
    shape = (*change.shape, "returning", tuple(fields))
    plan = database.plans.get(shape)
    if plan is None:
        require_one_database(shape, database)
        statement, scope = change.compile(database)
        columns = [scope.root.c[field.column] for field in fields]
        load = object_loader(query.model, fields, database.kind)
        name = f"{query.model.__name__}.{change.purpose} returning"
        plan = make_plan(statement.returning(*columns), database.kind, scope.parameters, load, name)
        database.plans.put(shape, plan)
    try:
        parameters = plan.bind(change.values)
    except ValueError as error:
        raise refused(error, change.compile(database)[1].parameters, change.values) from error
    try:
        rows = await database.write_rows(plan, parameters)
    except IntegrityError as error:
        raise named(error, query.model._meta) from error.__cause__
    assert plan.load is not None
    found = plan.load(rows, database)
    await _prefetch(query, found)
    return found


def _with_lock(query: QuerySet[Any]) -> QuerySet[Any]:
    """The query with its rows locked while they are chosen. Otherwise two who take the first ten at the same time, each
    by a subquery, take the same ten: PostgreSQL looks at the condition of a row that it waited for again, and not at
    that of the subquery."""
    sliced = query._limit is not None or bool(query._offset)
    if not sliced or query._lock is not None or query.database.kind == "sqlite":
        return query
    if query._distinct is not None or query._annotations or query._clauses is not None:
        return query
    return query.select_for_update(of=("self",))


async def _locked_keys(query: QuerySet[Any]) -> list[Any]:
    keys = query.values_list("pk", flat=True)
    keys._prefetch = ()
    # A lock that was asked for says what becomes of rows that somebody else has.
    return await keys if query._lock is not None else await fetch_locked(keys)


async def _prefetch(query: QuerySet[Any], found: list[Any]) -> None:
    if query._prefetch and found:
        from covet_orm.relations.prefetching import prefetch

        await prefetch(found, query._prefetch, query.database)


def _by_keys(query: QuerySet[Any], keys: Sequence[Any]) -> Iterator[QuerySet[Any]]:
    """The rows of a query that have some keys, whatever it asks besides."""
    for batch in batches(keys, query.database.kind, len(query.model._meta.primary_key)):
        rows = query._copy()
        rows._where, rows._order, rows._limit, rows._offset, rows._distinct, rows._prefetch = (), (), None, 0, None, ()
        yield rows.filter(pk__in=list(batch))


def _without_values(rows: QuerySet[Any]) -> QuerySet[Any]:
    made = rows._copy()
    made._annotations = {}
    return made


def _require_objects(query: QuerySet[Any], what: str) -> None:
    if query._chosen is not None:
        raise QueryError(f"{what}() is of a query for objects, not of one for values()")
    if query._related:
        raise QueryError(
            f"{what}() gives the rows that it wrote, and not what is joined to them: prefetch_related() loads related "
            "objects"
        )
    query._not_combined(what)
