"""Transactions: a connection that a task keeps until its block ends.

A transaction belongs to the task that opened it. A statement of another task in it is an error that says what to do: a
connection carries one statement at a time, savepoints are a stack and tasks are not. A task that outlives the block
finds the transaction ended, and gets a connection of its own.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio

from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.exceptions import TransactionError

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.pool import Pool

__all__ = ["Transaction", "current_transaction"]

IDLE = SessionState.IDLE

active: ContextVar[Transaction | None] = ContextVar("covet_orm.transaction", default=None)
"""The innermost transaction block of this context, which may have ended."""


def current_transaction(database: Database) -> Transaction | None:
    """The open transaction of this task in a database, if there is one.

    Raises:
        TransactionError: the transaction around this code belongs to another task.
    """
    block = active.get()
    # Of a database and the same one without its replicas, the pools are the same.
    while block is not None and (block.database._lanes is not database._lanes or block.ended):
        block = block.outer
    if block is not None and block.task is not asyncio.current_task():
        raise TransactionError(
            f"this task was started inside of a transaction of {block.task_name}, whose connection carries one "
            "statement "
            "at a time: await it in the task that opened the transaction, or open a transaction of its own outside"
        )
    return block


class Transaction:
    """A transaction, or a savepoint inside of one, as a block:

        async with database.transaction():
            await order.save()
            async with database.transaction():  # a savepoint
                await mail.save()

    It commits when the block ends, and rolls back when an exception leaves it, cancellation included. Entering and
    leaving cannot be cut in the middle: a connection whose BEGIN, COMMIT or ROLLBACK was interrupted is given up.

    Args:
        database: where.
        read_only: whether it only reads; SQLite takes one of the connections for readers then.
    """

    def __init__(self, database: Database, *, read_only: bool = False) -> None:
        self.database = database
        self.read_only = read_only
        self.outer: Transaction | None = None
        self.parent: Transaction | None = None
        self.ended = True
        self.task: asyncio.Task[Any] | None = None
        self.task_name = ""
        self.savepoints = 0
        self._connection: Connection | None = None
        self._pool: Pool | None = None
        self._name = ""
        self._token: Token[Transaction | None] | None = None

    @property
    def connection(self) -> Connection:
        """The connection that carries it.

        Raises:
            TransactionError: the block was not entered, or has ended.
        """
        connection = self._connection
        if connection is None:
            raise TransactionError("the transaction has ended, or was not begun")
        if connection.state is IDLE:
            # MySQL rolls all of it back at a deadlock; what came next would be a transaction of its own, each
            # statement.
            raise TransactionError(
                "the server ended this transaction by itself, as after a deadlock, or a statement that commits (DDL on "
                "MySQL); leave the block, and begin again"
            )
        return connection

    async def __aenter__(self) -> Self:
        if self._token is not None:
            raise TransactionError("a transaction block is entered once; make another one")
        self.parent = current_transaction(self.database)
        self.outer = active.get()
        self.task = asyncio.current_task()
        self.task_name = self.task.get_name() if self.task is not None else "no task"
        if self.parent is None:
            await self._begin()
        else:
            await self._savepoint(self.parent)
        self.ended = False
        self._token = active.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        if active.get() is self:
            active.reset(self._token)
        self.ended = True
        connection, self._connection = self._connection, None
        assert connection is not None
        # Whoever cancels waits for the server's answer: what is not known cannot be undone.
        with anyio.CancelScope(shield=True):
            if self.parent is not None:
                await self._end_savepoint(connection, failed=error is not None)
            else:
                await self._end(connection, failed=error is not None)

    async def _begin(self) -> None:
        pool = await self.database.pool_for(reads=self.read_only)
        connection = pool.try_acquire() or await pool.acquire()
        try:
            await connection.script(self.database.begin_statement(read_only=self.read_only))
        except BaseException:
            pool.release(connection)
            raise
        self._pool, self._connection = pool, connection

    async def _savepoint(self, parent: Transaction) -> None:
        root = parent
        while root.parent is not None:
            root = root.parent
        root.savepoints += 1
        self._name = f"covet_{root.savepoints}"
        await parent.connection.script(f"SAVEPOINT {self._name}")
        self._connection = parent.connection

    async def _end(self, connection: Connection, *, failed: bool) -> None:
        assert self._pool is not None
        try:
            if connection.state is SessionState.FAILED and not failed:
                await connection.script("ROLLBACK")
                raise TransactionError(
                    "a statement failed inside of the transaction and its error was caught there, so that the server "
                    "takes nothing more but a rollback: nothing was committed; catch errors around an inner block"
                )
            if connection.state in (SessionState.TRANSACTION, SessionState.FAILED):
                await connection.script("ROLLBACK" if failed else "COMMIT")
            elif not failed:
                raise TransactionError("the connection was lost, or the transaction ended by a statement of its own")
        finally:
            self._pool.release(connection)

    async def _end_savepoint(self, connection: Connection, *, failed: bool) -> None:
        if connection.state not in (SessionState.TRANSACTION, SessionState.FAILED):
            if failed:
                return
            raise TransactionError("the connection was lost inside of the transaction: nothing was committed")
        if failed or connection.state is SessionState.FAILED:
            await connection.script(f"ROLLBACK TO SAVEPOINT {self._name}")
        await connection.script(f"RELEASE SAVEPOINT {self._name}")
