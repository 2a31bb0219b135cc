"""What the backends of `tests.sqlite_cache` and `tests.sqlite_sessions` have in common: an SQLite file.

Each call opens it in a worker thread, so that nothing is kept open and nothing belongs to one thread, event loop or
process; and is a transaction of its own.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from covet.concurrency import in_thread

__all__ = ["SQLiteFile", "SQLiteSettings"]

T = TypeVar("T")


class SQLiteSettings(Struct, frozen=True, kw_only=True):
    """The key of a table whose backend is `sqlite`."""

    path: Annotated[str, Meta(description="The file.")]


class SQLiteFile:
    """A backend in the SQLite file `path`, which is made when it is not there.

    Attributes:
        schema: the statements that make its tables.
    """

    shared = True
    schema: Sequence[str] = ()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # A thread is waited for, so a cancelled call has done all of its work, or has not begun.
        found: T = await in_thread(self._transaction, work)
        return found

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self.path, timeout=60.0, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("BEGIN IMMEDIATE")
            try:
                for statement in self.schema:
                    db.execute(statement)
                result = work(db)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
            return result
