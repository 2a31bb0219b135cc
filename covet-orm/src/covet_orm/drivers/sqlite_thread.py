"""The thread of an SQLite connection: aiosqlite's, which is asked for one thing at a time.

In public, aiosqlite goes to the thread once for each call of a cursor, and tells the event loop about the end of each,
which fails when the loop is closed by then. `covet-orm[sqlite]` names the versions that this class was written for.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import aiosqlite

__all__ = ["SQLiteThread"]

T = TypeVar("T")


class SQLiteThread(aiosqlite.Connection):
    """A connection of aiosqlite.

    Args:
        opening: opens the database; called in the thread.

    Attributes:
        cursors: those whose statements may not be at their end. As long as somebody refers to one, if only by the
            traceback of an error, SQLite keeps a closed database open, with its transaction and its locks.
    """

    def __init__(self, opening: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(opening, iter_chunk_size=1000)
        self.opening = opening
        self.cursors: set[sqlite3.Cursor] = set()

    async def enter(self) -> sqlite3.Connection:
        """Start the thread and open the database. Cancelled or failed, the thread ends; an open database stays open."""
        self._thread.start()
        try:
            db = await self._ask(self.opening)
        except BaseException:
            self.stop()
            raise
        self._connection = db
        return db

    def visit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Have a function called in the thread, after those asked for before; its result.

        Raises:
            ProgrammingError: of sqlite3; the connection is closed.
        """
        if self._connection is None or not self._running:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        return self._ask(function, *args)

    async def leave(self) -> None:
        """Close the database and end the thread. Cancelled, both still happen."""
        try:
            if self._connection is not None and self._running:
                await self._ask(self._close_all, self._connection)
        finally:
            self.stop()

    def stop(self) -> None:
        """Close the database and end the thread, after what was asked for before. Returns at once."""
        self._tx.put_nowait((None, self.end_cursors))
        # In a thread without an event loop, aiosqlite makes no future that the worker would have to reach.
        stopper = threading.Thread(target=super().stop, name="covet-sqlite-stop")
        stopper.start()
        stopper.join()

    def end_cursors(self) -> None:
        """In the thread: end the statements that are under way."""
        while self.cursors:
            self.cursors.pop().close()

    def _close_all(self, db: sqlite3.Connection) -> None:
        self.end_cursors()
        db.close()

    def _ask(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._tx.put_nowait((None, partial(_serve, loop, answer, function, args)))
        return answer


def _serve(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], function: Callable[..., T], args: tuple[Any, ...]
) -> None:
    """In the thread: call a function and pass on what became of it."""
    try:
        tell: Callable[..., None] = answer.set_result
        told: Any = function(*args)
    except BaseException as error:  # noqa: BLE001 - it goes to whoever waits
        tell, told = answer.set_exception, error
    try:
        loop.call_soon_threadsafe(_tell, answer, tell, told)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _tell(answer: asyncio.Future[Any], tell: Callable[..., None], told: Any) -> None:
    """In the loop: pass it on, unless nobody waits any longer."""
    if not answer.done():
        tell(told)
