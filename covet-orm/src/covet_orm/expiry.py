"""Removing rows whose time is over: a few at a time, with the writes that make room necessary.

A row that has expired is not seen any more, so that nobody waits for its removal. Every so many writes, a batch goes:
more rows than were written, so that the table does not grow by what has expired, and few enough that no lock is held
for long. What another process holds at that moment is skipped (PostgreSQL, MariaDB).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy
from sqlalchemy import Integer, bindparam, delete, select
from sqlalchemy.sql import ClauseElement

from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import DatabaseError, OrmError
from covet_orm.store_tables import StoreTable, all_or_nothing

__all__ = ["BATCH", "EVER", "ExpiringStatements", "Expiry", "Start", "remove_all", "remove_first"]

logger = logging.getLogger("covet.orm")

BATCH = 200
"""How many rows are removed by one statement."""
EVERY = 100
"""After how many rows written a batch of expired ones is removed, if it is not said otherwise."""
MEASURES = 64
"""How often the size of a table is measured while as much is written as it may hold."""
EVER = float(2**60)
"""When a row expires that does not: in seconds since the epoch, and after everything else."""
FULL_SHARE = 0.9
"""The share of its limit that a table has when rows were removed because it was beyond."""

Start = Callable[[Callable[[], Awaitable[object]]], bool]
"""Starts work beside that of the caller; whether it could."""


class ExpiringStatements:
    """The statements by which rows leave: those whose `expires` comes first go first.

    Args:
        kind: of the database.
        table: with the columns `key` and `expires`.
        size: the column that is given back of the rows that went.
    """

    def __init__(self, kind: str, table: sqlalchemy.Table) -> None:
        self.kind = kind
        self.table = table
        self.size = table.c.get("size", table.c.key)

    def remove_first(self) -> ClauseElement:
        """Remove at most `limit` rows whose time is over at `until`, in one statement."""
        c = self.table.c
        first = select(c.key).where(c.expires <= bindparam("until")).order_by(c.expires)
        first = first.limit(bindparam("limit", type_=Integer))
        if self.kind == "sqlite":
            return delete(self.table).where(c.key.in_(first)).returning(self.size)
        # Not inlined, since it locks: it is run once.
        chosen = first.with_for_update(skip_locked=True).cte("chosen")
        return delete(self.table).where(c.key == chosen.c.key).returning(self.size)

    def lock_first(self) -> ClauseElement:
        """Lock such rows; their keys and sizes."""
        c = self.table.c
        found = select(c.key, self.size).where(c.expires <= bindparam("until")).order_by(c.expires)
        return found.limit(bindparam("limit", type_=Integer)).with_for_update(skip_locked=True)

    def remove_key(self) -> ClauseElement:
        """Remove a row by its key."""
        key = self.table.c.key
        return delete(self.table).where(key == bindparam("at", type_=key.type, required=True))


async def remove_first(table: StoreTable, until: float, limit: int = BATCH) -> list[Any]:
    """Remove rows whose time is over at `until`, those first that ended first; the sizes of those that went.

    Args:
        table: of a store whose statements are `ExpiringStatements`.
        until: seconds since the epoch.
        limit: how many rows at most.

    Raises:
        DatabaseError: what the database says.
    """
    values = {"until": until, "limit": limit}
    if table.database.kind not in ("mysql", "mariadb"):
        return [row[0] for row in await table.fetch(("remove_first",), values)]

    async def call(connection: Connection) -> list[Any]:
        # A statement that deletes by a range would lock the gaps of its index, into which others insert.
        begin = ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION")
        async with all_or_nothing(connection, *begin):
            lock = table.compiled(("lock_first",))
            rows = await connection.fetch(lock.sql, lock.parameters(values))
            if rows:
                # One by one: for many keys of a small table, the server would read all rows, and wait for locked ones.
                remove = table.compiled(("remove_key",))
                await connection.execute_many(remove.sql, [remove.parameters({"at": row[0]}) for row in rows])
        return [row[1] for row in rows]

    return await table.run(call, name="remove_first")


async def remove_all(table: StoreTable, until: float) -> int:
    """Remove all rows whose time is over at `until`, batch by batch; how many. Raises what `remove_first` raises.

    Cancelled, the batches that are done stay so.
    """
    removed = 0
    while gone := await remove_first(table, until):
        removed += len(gone)
        if len(gone) < BATCH:
            break
    return removed


class Expiry:
    """Keeps a table of limited size free of what has expired.

    Args:
        table: the table; with a column `size`, where there is a limit.
        clock: gives the time, in seconds since the epoch.
        every: after how many rows written a batch of expired ones is removed; fewer than a batch has.
        max_bytes: the sum of `size` beyond which rows leave, those first whose time ends first; None for no limit.
        start: starts work beside the caller's; without, the caller waits for it.
    """

    def __init__(
        self,
        table: StoreTable,
        clock: Callable[[], float],
        *,
        every: int = EVERY,
        max_bytes: int | None = None,
        start: Start | None = None,
    ) -> None:
        self.table = table
        self.every = every
        self.max_bytes = max_bytes
        self._clock = clock
        self._start = start
        self._rows = 0
        # So that the size is measured early in the life of a process.
        self._bytes = 0 if max_bytes is None else max_bytes // MEASURES
        self._busy = False

    async def written(self, rows: int, size: int) -> None:
        """Note that rows were written, and do what is due. What fails is logged: the rows are written."""
        self._rows += rows
        self._bytes += size
        if self._rows < self.every or self._busy:
            return
        self._busy = True
        if self._start is None or not self._start(self._work):
            await self._work()

    async def _work(self) -> None:
        try:
            rows, self._rows = self._rows, 0
            for _ in range(rows // self.every):
                if len(await remove_first(self.table, self._clock())) < BATCH:
                    break
            if self.max_bytes is not None and self._bytes * MEASURES >= self.max_bytes:
                self._bytes = 0
                await self.limit()
        except (DatabaseError, OrmError) as error:
            logger.warning(
                "what has expired was not removed from the table %s: %s: %s",
                self.table.name,
                type(error).__name__,
                error,
            )
        finally:
            self._busy = False

    async def limit(self) -> int:
        """Remove rows while the table is beyond its limit, batch by batch; how many.

        Raises:
            DatabaseError: what the database says.
        """
        if self.max_bytes is None:
            return 0
        rows = await self.table.fetch(("measure",), {}, reads=True)
        size = int(rows[0][0] or 0)
        removed = 0
        if size <= self.max_bytes:
            return 0
        while size > self.max_bytes * FULL_SHARE:
            gone = await remove_first(self.table, EVER)
            if not gone:
                break
            size -= sum(gone)
            removed += len(gone)
        logger.info("%d rows left the table %s, which was beyond %d bytes", removed, self.table.name, self.max_bytes)
        return removed
