"""Finding out what became of a transaction whose COMMIT nobody answered.

PostgreSQL remembers the outcome of recent transactions by their id (`pg_xact_status`,
https://www.postgresql.org/docs/current/functions-info.html). On the others, a row is written in the transaction itself,
to a table that is looked at afterwards.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from covet_orm.exceptions import TransactionError

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.drivers.protocol import Connection

__all__ = ["Mark", "mark", "prepare"]

TABLE = "covet_commits"
KEPT = 7 * 24 * 3600
"""Seconds after which a row of the table is of no use to anybody."""
CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (id varchar(36) NOT NULL PRIMARY KEY, moment double precision NOT NULL)"
POLL = 0.05


class Mark:
    """By what a transaction is known afterwards.

    Args:
        database: where it is.
        name: its id on PostgreSQL, that of its row elsewhere; None for a transaction that wrote nothing.
    """

    def __init__(self, database: Database, name: str | None) -> None:
        self.database = database
        self.name = name

    async def resolve(self, timeout: float) -> bool:
        """Whether it was committed. See `CommitUncertain.resolve`."""
        if self.name is None:
            return True
        from covet_orm.transactions.context import active

        # In a transaction that is around the caller, an older state of things may be seen.
        token = active.set(None)
        try:
            async with asyncio.timeout(timeout):
                if self.database.kind == "postgresql":
                    return await self._asked()
                return await self._looked_up()
        except TimeoutError as error:
            raise TransactionError(
                f"what became of the transaction could not be found out in {timeout:g} seconds; ask again"
            ) from error
        finally:
            active.reset(token)

    async def _asked(self) -> bool:
        while True:
            status = await self.database.fetch_value("SELECT pg_xact_status($1::text::xid8)", (self.name,))
            if status == "committed":
                return True
            if status == "aborted":
                return False
            if status is None:
                raise TransactionError(f"the server does not remember the transaction {self.name} any more")
            # The server has not noticed yet that its client is gone.
            await asyncio.sleep(POLL)

    async def _looked_up(self) -> bool:
        place = "?" if self.database.kind == "sqlite" else "%s"
        lock = "" if self.database.kind == "sqlite" else " FOR UPDATE"
        # The lock is had when the other transaction has ended, one way or the other.
        async with self.database.transaction(), self.database.connection() as connection:
            rows = await connection.fetch(f"SELECT id FROM {TABLE} WHERE id = {place}{lock}", (self.name,))
        return bool(rows)


async def prepare(database: Database) -> None:
    """Make what `mark` needs, before a transaction begins."""
    if database.kind == "postgresql" or database.texts.get(TABLE):
        return
    pool = await database.pool_for(reads=False)
    connection = pool.try_acquire() or await pool.acquire()
    try:
        await connection.script(CREATE)
        await connection.script(f"DELETE FROM {TABLE} WHERE moment < {_clock(database)} - {KEPT}")
    finally:
        pool.release(connection)
    database.texts[TABLE] = CREATE


async def mark(database: Database, connection: Connection) -> Mark:
    """Note by what a transaction will be known, as its last statement."""
    if database.kind == "postgresql":
        rows = await connection.fetch("SELECT pg_current_xact_id_if_assigned()::text")
        return Mark(database, rows[0][0])
    name = str(uuid.uuid4())
    place = "?" if database.kind == "sqlite" else "%s"
    await connection.execute(f"INSERT INTO {TABLE} (id, moment) VALUES ({place}, {_clock(database)})", (name,))
    return Mark(database, name)


def _clock(database: Database) -> str:
    """The time in seconds, by the clock of the database: those of its clients may differ."""
    return "(julianday('now') - 2440587.5) * 86400.0" if database.kind == "sqlite" else "UNIX_TIMESTAMP(NOW(6))"
