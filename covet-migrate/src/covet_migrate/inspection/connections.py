"""SQLAlchemy's inspection of a schema over a connection of covet-orm.

SQLAlchemy knows how to ask each database for its tables. It is given a connection that covet-orm's driver made, so the
settings of the URL, TLS among them, and the errors are those of covet-orm; the same connection may be in a transaction
already, or be the only one of a database in memory, and is no other afterwards.

SQLAlchemy's own adapters of the drivers would begin transactions of their own on it, change how it decodes JSON, close
it, and leave a cancelled statement behind that covet-orm's connection does not know of. What stands for them here does
one thing: it asks the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only, greenlet_spawn

from covet_orm.drivers.protocol import Connection

__all__ = ["run_inspector"]

T = TypeVar("T")

DRIVERS = {
    "postgresql": "postgresql+asyncpg://",
    "mysql": "mysql+aiomysql://",
    "mariadb": "mariadb+aiomysql://",
    "sqlite": "sqlite+aiosqlite://",
}


async def run_inspector(connection: Connection, kind: str, read: Callable[[sqlalchemy.Inspector], T]) -> T:
    """Call a function with SQLAlchemy's Inspector of what a connection sees, without blocking the event loop.

    Args:
        connection: a connection at rest, in a transaction or not; `Database.connection()` gives one.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        read: what is called, with the Inspector; it must not keep it.

    Returns:
        What the function returns.

    Raises:
        DatabaseError: the database refused something, or the connection was lost.

    Cancelled, the connection is left as a cancelled statement leaves it.
    """

    def work() -> T:
        url = make_url(DRIVERS[kind])
        # Made by hand, without the events of create_engine(), which would set up the connection anew.
        connecting: Any = partial(_Connection, connection)
        engine = Engine(NullPool(connecting, reset_on_return=None), _dialect(kind), url)
        with engine.connect() as connected:
            engine.dialect.initialize(connected)
            return read(sqlalchemy.inspect(connected))

    return await greenlet_spawn(work)


def _dialect(kind: str) -> Dialect:
    """A dialect of its own: what it learns of a server, such as the version and the current schema, is of one
    connection."""
    found, dbapi = _loaded(kind)
    made: Dialect = found(dbapi=dbapi)
    return made


@cache
def _loaded(kind: str) -> tuple[Any, Any]:
    found: Any = make_url(DRIVERS[kind]).get_dialect()
    return found, found.import_dbapi()


class _Connection:
    """What SQLAlchemy takes for a connection of a driver. It has no say about the transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def cursor(self) -> _Cursor:
        return _Cursor(self._connection)

    def commit(self) -> None:
        """Nothing: what is read needs no end."""

    rollback = close = terminate = commit

    def character_set_name(self) -> str:
        """The encoding of MySQL's connections, which covet-orm chooses."""
        return "utf8mb4"


class _Cursor:
    """Asks the connection, and holds the rows."""

    arraysize = 1
    rowcount = -1
    lastrowid = None

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.description: list[tuple[Any, ...]] | None = None
        self._rows: list[tuple[Any, ...]] = []

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        found = await_only(self._connection.query(sql, tuple(parameters)))
        self.description = [(name, *[None] * 6) for name in found.columns] or None
        self._rows = [tuple(row) for row in found.rows]

    def fetchall(self) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows, []
        return rows

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def setinputsizes(self, *sizes: Any) -> None:
        """Nothing: the statement says it."""

    def close(self) -> None:
        self._rows = []
