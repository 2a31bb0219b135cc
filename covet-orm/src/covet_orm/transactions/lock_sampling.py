"""How long transactions wait for locks: the server is asked now and then who waits.

PostgreSQL tells it in `pg_stat_activity` (https://www.postgresql.org/docs/current/monitoring-stats.html), MariaDB and
MySQL in `information_schema.INNODB_TRX` (https://mariadb.com/kb/en/information-schema-innodb_trx-table/). SQLite has no
server: there the driver knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import ConnectionLost, DatabaseUnavailable, OrmError

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.transactions.telling import Telling

__all__ = ["LockSampler"]

POSTGRESQL = """
    SELECT pid FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = ANY($1::integer[])
"""
INNODB = "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'"
LEAST: Mapping[str, float] = {"mysql": 0.12, "mariadb": 0.12}
"""Seconds: InnoDB shows what is there when nobody has looked for a tenth of a second, and until then what it showed."""
AGAIN = 1.0
"""Seconds from a lost connection to another one."""


class LockSampler:
    """Asks the server of a database which transactions wait for a lock, over a connection of its own.

    A wait counts from the sample before the one that sees it, or from the beginning of its statement, whichever is
    later: long ones are off by less than an interval, and of the short ones some are not seen.

    Args:
        database: which one.
        interval: seconds between two questions.

    Attributes:
        trouble: why it could not ask, if that happened.
    """

    def __init__(self, database: Database, interval: float) -> None:
        self.database = database
        self.interval = max(interval, LEAST.get(database.kind, 0.0))
        self.trouble = ""
        self._waits: dict[Telling, float] = {}
        self._wanted = asyncio.Event()

    def add(self, telling: Telling) -> None:
        """Watch a transaction."""
        self._waits[telling] = 0.0
        self._wanted.set()

    def take(self, telling: Telling) -> float:
        """Watch it no more; how many seconds it waited for locks."""
        return self._waits.pop(telling, 0.0)

    async def run(self) -> None:
        """Ask, until it is cancelled; or until the server refuses to tell."""
        while True:
            await self._wanted.wait()
            try:
                connection = await self._connected()
                try:
                    await self._ask(connection)
                finally:
                    await connection.close()
            except OrmError as error:
                self.trouble = f"{type(error).__name__}: {error}"
                if not isinstance(error, (ConnectionLost, DatabaseUnavailable)):
                    return
            await asyncio.sleep(AGAIN)

    async def _connected(self) -> Connection:
        """A connection. Cancelled, it is made all the same and closed: asyncpg leaves an error that nobody reads where
        it is cut while it asks for TLS."""
        connecting = asyncio.ensure_future(self.database.connect())
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            await asyncio.wait([connecting])
            if connecting.exception() is None:
                await connecting.result().close()
            raise

    async def _ask(self, connection: Connection) -> None:
        before = perf_counter()
        while True:
            await asyncio.sleep(self.interval)
            asked = {
                telling: telling.under_way
                for telling in self._waits
                if telling.server_id is not None and telling.under_way is not None
            }
            if asked:
                waiting = await self._waiting(connection, [telling.server_id or 0 for telling in asked])
                now = perf_counter()
                for telling, since in asked.items():
                    # The same statement is under way still.
                    if telling.server_id in waiting and telling.under_way == since and telling in self._waits:
                        self._waits[telling] += now - max(before, since)
            before = perf_counter()

    async def _waiting(self, connection: Connection, numbers: list[int]) -> set[int]:
        if self.database.kind == "postgresql":
            rows = await connection.fetch(POSTGRESQL, (numbers,))
        else:
            rows = await connection.fetch(INNODB)
        return {row[0] for row in rows}
