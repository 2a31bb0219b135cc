"""Finding out what became of a transaction whose COMMIT nobody answered.

A row is written in the transaction itself, to a table that is looked at afterwards. PostgreSQL also tells the outcome
of a transaction by its id (`pg_xact_status`), but that is not enough: a server that crashes gives ids again that it had
given to transactions of which nothing was on disk yet, and then tells what became of the later one.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from covet_orm.exceptions import DatabaseError, TransactionError

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.drivers.protocol import Connection

__all__ = ["Mark", "mark", "prepare"]

TABLE = "covet_commits"
KEPT = 7 * 24 * 3600
"""Seconds after which a row of the table is of no use to anybody."""
CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (id varchar(36) NOT NULL PRIMARY KEY, moment double precision NOT NULL)"
MADE_MEANWHILE = frozenset(("23505", "42P07", "42710"))
"""PostgreSQL where two create a table at once, `IF NOT EXISTS` or not: its row, the table or its type is there."""
CLOCKS = {
    "postgresql": "extract(epoch FROM clock_timestamp())::float8",
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
}


class Mark:
    """By what a transaction is known afterwards.

    Args:
        database: where it is.
        name: the id of its row; None for a transaction that wrote nothing.
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
                return await self._looked_up()
        except TimeoutError as error:
            raise TransactionError(
                f"what became of the transaction could not be found out in {timeout:g} seconds; ask again"
            ) from error
        finally:
            active.reset(token)

    async def _looked_up(self) -> bool:
        # Each of them waits for the other transaction to end, one way or the other.
        kind = self.database.kind
        if kind == "postgresql":
            # Only one who writes the same key waits for a row that is not committed yet.
            async with (
                self.database.transaction(isolation="read committed", read_only=False),
                self.database.connection() as connection,
            ):
                insert = f"INSERT INTO {TABLE} (id, moment) VALUES ($1, 0) ON CONFLICT DO NOTHING"
                absent = await connection.execute(insert, (self.name,))
                if absent:
                    await connection.execute(f"DELETE FROM {TABLE} WHERE id = $1", (self.name,))
            return not absent
        place, lock = ("?", "") if kind == "sqlite" else ("%s", " FOR UPDATE")
        async with self.database.transaction(), self.database.connection() as connection:
            rows = await connection.fetch(f"SELECT id FROM {TABLE} WHERE id = {place}{lock}", (self.name,))
        return bool(rows)


async def prepare(database: Database) -> None:
    """Make what `mark` needs, before a transaction begins."""
    if database.texts.get(TABLE):
        return
    pool = await database.pool_for(reads=False)
    connection = pool.try_acquire() or await pool.acquire()
    try:
        if database.kind != "postgresql":
            await connection.script(CREATE)
        elif not (await connection.fetch(f"SELECT to_regclass('{TABLE}') IS NOT NULL"))[0][0]:
            # Asked first, as who may write need not be allowed to create. Of several at once, one creates it.
            try:
                await connection.script(CREATE)
            except DatabaseError as error:
                if error.code not in MADE_MEANWHILE:
                    raise
        await connection.script(f"DELETE FROM {TABLE} WHERE moment < {_clock(database)} - {KEPT}")
    finally:
        pool.release(connection)
    database.texts[TABLE] = CREATE


async def mark(database: Database, connection: Connection) -> Mark:
    """Note by what a transaction will be known, as its last statement."""
    name = str(uuid.uuid4())
    if database.kind == "postgresql":
        written = await connection.execute(
            f"INSERT INTO {TABLE} (id, moment) SELECT $1, {_clock(database)} "
            "WHERE pg_current_xact_id_if_assigned() IS NOT NULL",
            (name,),
        )
        return Mark(database, name if written else None)
    place = "?" if database.kind == "sqlite" else "%s"
    await connection.execute(f"INSERT INTO {TABLE} (id, moment) VALUES ({place}, {_clock(database)})", (name,))
    return Mark(database, name)


def _clock(database: Database) -> str:
    """The time in seconds, by the clock of the database: those of its clients may differ."""
    return CLOCKS.get(database.kind, "UNIX_TIMESTAMP(NOW(6))")
