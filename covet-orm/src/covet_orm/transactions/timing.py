"""A connection that counts the statements of a transaction, and the time between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from covet_orm.drivers.protocol import Connection, Inserted, Row, Rows, SessionState
from covet_orm.exceptions import DeadlockDetected

if TYPE_CHECKING:
    from covet_orm.transactions.telling import Telling

__all__ = ["TimedConnection"]

T = TypeVar("T")

SAVEPOINTS = ("SAVEPOINT covet_", "RELEASE SAVEPOINT covet_", "ROLLBACK TO SAVEPOINT covet_")
"""What begins the statements of savepoints, which are counted for nobody."""


class TimedConnection:
    """A connection whose statements are counted. See `covet_orm.drivers.protocol.Connection`.

    Args:
        connection: the connection itself, which this one is in all other things.
        telling: is told when a statement begins and ends.
    """

    __slots__ = ("_telling", "connection", "number", "server_id", "statement")

    def __init__(self, connection: Connection, telling: Telling) -> None:
        self.connection = connection
        self.number = connection.number
        self.server_id = connection.server_id
        self.statement = ""
        self._telling = telling

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    @property
    def state(self) -> SessionState:
        """What the session is in."""
        return self.connection.state

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """As the connection's."""
        return await self._timed(self.connection.fetch(sql, params), sql)

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """As the connection's."""
        return await self._timed(self.connection.query(sql, params), sql)

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """As the connection's."""
        return await self._timed(self.connection.execute(sql, params), sql)

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """As the connection's."""
        return await self._timed(self.connection.insert(sql, params), sql)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """As the connection's."""
        return await self._timed(self.connection.execute_many(sql, rows), sql)

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], **options: Any) -> int:
        """As the connection's, where it has it (PostgreSQL)."""
        running: Awaitable[int] = self.__getattr__("copy")(table, columns, rows, **options)
        return await self._timed(running, f"COPY {table}")

    async def script(self, sql: str) -> None:
        """As the connection's."""
        await self._timed(self.connection.script(sql), sql, counts=not sql.startswith(SAVEPOINTS))

    async def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 1000) -> AsyncIterator[list[Row]]:
        """As the connection's. While the loop that takes the rows is at work, no statement is under way."""
        stream: Any = self.connection.stream(sql, params, size=size)
        counts = True
        try:
            while (rows := await self._timed(anext(stream, None), sql, counts=counts)) is not None:
                counts = False
                yield rows
        finally:
            await self._timed(stream.aclose(), sql, counts=False)

    async def close(self) -> None:
        """As the connection's."""
        await self.connection.close()

    def terminate(self) -> None:
        """As the connection's."""
        self.connection.terminate()

    async def _timed(self, running: Awaitable[T], sql: str, *, counts: bool = True) -> T:
        self._telling.statement(sql, counts=counts)
        try:
            return await running
        except DeadlockDetected as error:
            self._telling.deadlock(error, sql)
            raise
        finally:
            self._telling.rest()
