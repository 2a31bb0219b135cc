"""A transaction that several tasks use, one at a time: each statement, or each inner block as a whole, waits for its
turn, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from covet_orm.drivers.protocol import Connection, Inserted, Row, Rows, SessionState
from covet_orm.exceptions import TransactionError

if TYPE_CHECKING:
    from covet_orm.transactions.blocks import Transaction

__all__ = ["Sharing"]


class Sharing:
    """The turns of the tasks that use one transaction.

    Args:
        block: the transaction.
    """

    def __init__(self, block: Transaction) -> None:
        self.block = block
        self.turn = asyncio.Lock()
        self._inner: Transaction | None = None

    async def connection(self) -> Connection:
        """The connection, each of whose statements waits for its turn."""
        async with self.turn:
            return SharedConnection(await self.block._begun(), self)

    async def take(self, inner: Transaction) -> None:
        """Wait for the turn of an inner block, which has it until it ends."""
        await self.turn.acquire()
        self._inner = inner

    def leave(self) -> None:
        """The inner block has ended."""
        self._inner = None
        self.turn.release()

    async def close(self, error: BaseException | None) -> None:
        """Wait for whoever has the turn. Where the owner fails, an inner block of another task is cut short instead."""
        if error is None or self._inner is None:
            async with self.turn:
                return
        self._inner.ended = True
        if self.block._doom is None:
            self.block._doom = error


class SharedConnection:
    """A connection whose statements wait for their turn. See `covet_orm.drivers.protocol.Connection`."""

    __slots__ = ("_sharing", "connection", "number", "server_id", "statement")

    def __init__(self, connection: Connection, sharing: Sharing) -> None:
        self.connection = connection
        self.number = connection.number
        self.server_id = connection.server_id
        self.statement = ""
        self._sharing = sharing

    @property
    def state(self) -> SessionState:
        """What the session is in."""
        return self.connection.state

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """As the connection's."""
        async with self._mine():
            return await self.connection.fetch(sql, params)

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """As the connection's."""
        async with self._mine():
            return await self.connection.query(sql, params)

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """As the connection's."""
        async with self._mine():
            return await self.connection.execute(sql, params)

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """As the connection's."""
        async with self._mine():
            return await self.connection.insert(sql, params)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """As the connection's."""
        async with self._mine():
            return await self.connection.execute_many(sql, rows)

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], **options: Any) -> int:
        """As the connection's, where it has it (PostgreSQL)."""
        raw: Any = self.connection
        async with self._mine():
            count: int = await raw.copy(table, columns, rows, **options)
            return count

    async def script(self, sql: str) -> None:
        """As the connection's."""
        async with self._mine():
            await self.connection.script(sql)

    async def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 1000) -> AsyncIterator[list[Row]]:
        """As the connection's; it keeps the turn until its end."""
        stream: Any = self.connection.stream(sql, params, size=size)
        async with self._mine(), aclosing(stream):
            async for rows in stream:
                yield rows

    async def close(self) -> None:
        """As the connection's."""
        await self.connection.close()

    def terminate(self) -> None:
        """As the connection's."""
        self.connection.terminate()

    def _mine(self) -> asyncio.Lock:
        if self._sharing.block.ended or self._sharing.block.sharing is not self._sharing:
            raise TransactionError("the transaction is shared no longer: its task has left `share()`")
        return self._sharing.turn
