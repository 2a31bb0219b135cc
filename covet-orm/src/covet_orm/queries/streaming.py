"""`iterator`: rows one chunk at a time, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import QueryError
from covet_orm.transactions import current_transaction

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["iterate"]


async def iterate(query: QuerySet[Any], chunk_size: int) -> AsyncIterator[Any]:
    """The results of a query, of which `chunk_size` are held in memory at a time.

    The server, or the file, holds the others; on PostgreSQL within a transaction that only reads, unless there is one
    already. A loop that is left early must close the iterator, as `async with aclosing(...)` does; an exception and
    cancellation do so by themselves when the generator is closed.
    """
    if chunk_size < 1:
        raise QueryError(f"iterator(chunk_size={chunk_size}): at least 1")
    database = query.database
    await database.open()
    plan, parameters = query.prepared(database)
    prefetch = query._prefetch
    if database.kind == "postgresql" and current_transaction(database) is None:
        async with database.transaction(read_only=True), database.connection(name=plan.name) as connection:
            async for one in _chunks(connection, plan, parameters, chunk_size, database, prefetch):
                yield one
        return
    async with database.connection(reads=True, name=plan.name) as connection:
        async for one in _chunks(connection, plan, parameters, chunk_size, database, prefetch):
            yield one


async def _chunks(
    connection: Any, plan: Any, parameters: Any, size: int, database: Any, prefetch: Any
) -> AsyncIterator[Any]:
    async with aclosing(connection.stream(plan.sql, parameters, size=size)) as stream:
        async for rows in stream:
            found = rows if plan.load is None else plan.load(rows, database)
            if prefetch and found:
                from covet_orm.relations.prefetching import prefetch as load

                await load(found, prefetch, database)
            for one in found:
                yield one
