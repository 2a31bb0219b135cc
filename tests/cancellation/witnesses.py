"""What a database holds, as a session of its own sees it, over the raw driver: rows, and transactions left open."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiomysql  # type: ignore[import-untyped]
import anyio
import asyncpg  # type: ignore[import-untyped]

__all__ = ["Witness", "all_ended", "witness"]

STALE = 0.13
"""Seconds for which InnoDB gives the same answer about transactions again."""
PATIENCE = 5.0
"""Seconds within which a server notices that a client has gone."""


class Witness(Protocol):
    """Looks at a database from the outside."""

    async def names(self, own: str) -> set[str]:
        """What the rows of a call are called, without its number; messages of the outbox included."""
        ...

    async def open(self) -> list[str]:
        """The transactions of others that are open, in words."""
        ...


class _PostgreSQL:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def names(self, own: str) -> set[str]:
        found = await self._connection.fetch(
            "SELECT name FROM cancelled_row WHERE name LIKE $1 "
            "UNION ALL SELECT topic FROM covet_outbox WHERE topic LIKE $1",
            f"{own} %",
        )
        return {name.removeprefix(f"{own} ") for (name,) in found}

    async def open(self) -> list[str]:
        found = await self._connection.fetch(
            "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
        )
        prepared = await self._connection.fetch("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        return [f"{pid}, {state}: {query}" for pid, state, query in found] + [f"prepared: {gid}" for (gid,) in prepared]


class _MariaDB:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._asked = 0.0

    async def names(self, own: str) -> set[str]:
        found = await self._fetch(
            "SELECT name FROM cancelled_row WHERE name LIKE %s "
            "UNION ALL SELECT topic FROM covet_outbox WHERE topic LIKE %s",
            f"{own} %", f"{own} %",
        )  # fmt: skip
        # A topic is kept as bytes.
        texts = [name.decode() if isinstance(name, bytes) else name for (name,) in found]
        return {text.removeprefix(f"{own} ") for text in texts}

    async def open(self) -> list[str]:
        await anyio.sleep(max(0.0, self._asked + STALE - time.monotonic()))
        found = await self._fetch(
            "SELECT trx_mysql_thread_id, trx_state, trx_query FROM information_schema.innodb_trx "
            "WHERE trx_mysql_thread_id <> connection_id()"
        )
        self._asked = time.monotonic()
        return [f"{thread}, {state}: {query}" for thread, state, query in found]

    async def _fetch(self, sql: str, *values: Any) -> Any:
        async with self._connection.cursor() as cursor:
            await cursor.execute(sql, values)
            return await cursor.fetchall()


class _SQLite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def names(self, own: str) -> set[str]:
        found = self._connection.execute(
            "SELECT name FROM cancelled_row WHERE name LIKE ?1 "
            "UNION ALL SELECT topic FROM covet_outbox WHERE topic LIKE ?1",
            (f"{own} %",),
        ).fetchall()
        return {name.removeprefix(f"{own} ") for (name,) in found}

    async def open(self) -> list[str]:
        """Nobody writes who keeps others from it, and nobody reads who keeps the log from being emptied
        (https://www.sqlite.org/pragma.html#pragma_wal_checkpoint)."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            return [f"one that writes: {error}"]
        self._connection.execute("ROLLBACK")
        try:
            ((busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as error:
            return [f"one that reads: {error}"]
        return ["one that reads"] if busy else []


@asynccontextmanager
async def witness(url: str) -> AsyncIterator[Witness]:
    """A witness of a database, whose tables are there."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        with closing(sqlite3.connect(unquote(parts.path[1:]), timeout=0, isolation_level=None)) as file:
            yield _SQLite(file)
    elif parts.scheme == "postgresql":
        connection = await asyncpg.connect(url, timeout=30)
        try:
            yield _PostgreSQL(connection)
        finally:
            await connection.close()
    else:
        connection = await aiomysql.connect(
            host=parts.hostname or "", port=parts.port or 0, user=unquote(parts.username or ""),
            password=unquote(parts.password or ""), db=unquote(parts.path[1:]), autocommit=True,
        )  # fmt: skip
        try:
            yield _MariaDB(connection)
        finally:
            await connection.ensure_closed()


async def all_ended(seen: Witness) -> list[str]:
    """The transactions that are still open when the server has had its time to notice who has gone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        left = await seen.open()
        if not left or time.monotonic() >= deadline:
            return left
        await anyio.sleep(0.01)
