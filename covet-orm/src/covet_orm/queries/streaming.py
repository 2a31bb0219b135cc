"""`iterator`: rows one chunk at a time, however many there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from covet_orm.ambient import home_of
from covet_orm.drivers.protocol import SessionState
from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.observing import ObservedConnection
from covet_orm.transactions.context import current_transaction

if TYPE_CHECKING:
    from covet_orm.drivers.protocol import Connection
    from covet_orm.queries.querysets import QuerySet

__all__ = ["iterate"]

MOST_ROWS = 2**31 - 1
"""How many rows a server takes for a number of rows."""


async def iterate(query: QuerySet[Any], chunk_size: int) -> AsyncGenerator[Any, None]:
    """The results of a query, of which `chunk_size` are held in memory at a time.

    The server, or the file, holds the others; on PostgreSQL within a transaction that only reads, unless there is one
    already. That transaction is the cursor's alone: what the loop asks and writes meanwhile is no part of it. A loop
    that is left early must close the iterator, as `async with aclosing(...)` does; an exception and cancellation do so
    by themselves when the generator is closed.

    Raises:
        QueryError: the chunk is of less than one row, or of more than 2,147,483,647.
        NotSupported: inside of a transaction of MySQL or MariaDB, with `prefetch_related`: nothing else can be asked
            there before the last row.
    """
    if not 1 <= chunk_size <= MOST_ROWS:
        raise QueryError(f"iterator(chunk_size={chunk_size}): at least 1 and at most {MOST_ROWS}")
    database = query.database
    await database.open()
    plan, parameters = query.prepared(database)
    home = home_of(query, database)
    prefetch = query._prefetch
    inside = current_transaction(database) is not None
    if prefetch and inside and database.kind in ("mysql", "mariadb"):
        raise NotSupported(
            f"iterator() with prefetch_related() inside of a transaction: {database.kind} takes no other statement on "
            "a connection before the last row is read; iterate outside of the transaction"
        )
    async with AsyncExitStack() as stack:
        if database.kind == "postgresql" and not inside:
            connection = await stack.enter_async_context(database.connection(name=plan.name))
            await stack.enter_async_context(_reading(connection))
        else:
            connection = await stack.enter_async_context(database.connection(reads=True, name=plan.name))
        chunks: Any = connection.stream(plan.sql, parameters, size=chunk_size)
        # Left early, it must be at its end before the connection is given back.
        async for rows in await stack.enter_async_context(aclosing(chunks)):
            found = rows if plan.load is None else plan.load(rows, home)
            if prefetch and found:
                from covet_orm.relations.prefetching import prefetch as load

                await load(found, prefetch, database)
            for one in found:
                yield one


@asynccontextmanager
async def _reading(connection: Connection) -> AsyncIterator[None]:
    """A transaction for a cursor, which is not the one that the statements of the caller are in: a generator leaves its
    context to the loop that runs it, and may be closed in another one."""
    session = connection.connection if isinstance(connection, ObservedConnection) else connection
    await session.script("BEGIN READ ONLY")
    try:
        yield
    finally:
        # What was interrupted is given up by the pool.
        if session.state in (SessionState.TRANSACTION, SessionState.FAILED):
            with anyio.CancelScope(shield=True):
                await session.script("ROLLBACK")
