"""A cache backend over an SQLite file, shared by every process that opens it: for tests across processes.

from tests.sqlite_cache import SQLiteCache, SQLiteCachePlugin

SQLiteCache(path)                                   # a backend by itself
plugin_sandbox(SQLiteCachePlugin(), settings={"cache": {"default": {"backend": "sqlite", "path": str(path)}}})
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Mapping, Sequence

from tests.sqlite_file import SQLiteFile, SQLiteSettings

import covet
from covet.backends import Backend

__all__ = ["SQLiteCache", "SQLiteCachePlugin"]

TABLE = "CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL) WITHOUT ROWID"
INDEX = "CREATE INDEX IF NOT EXISTS cache_expires ON cache (expires)"
ALIVE = "(expires IS NULL OR expires > ?)"
NUMBER = re.compile(rb"-?[0-9]{1,19}")


class SQLiteCache(SQLiteFile):
    """A cache backend in the SQLite file `path`, which is made when it is not there."""

    schema = (TABLE, INDEX)

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        return await self._run(lambda db: _get(db, key))

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values that are there, by key."""

        def work(db: sqlite3.Connection) -> dict[str, bytes]:
            found = {key: _get(db, key) for key in keys}
            return {key: value for key, value in found.items() if value is not None}

        return await self._run(work)

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """Keep a value, in place of any other."""
        await self._run(lambda db: _put(db, key, value, ttl))

    async def set_many(self, values: Mapping[str, bytes], ttl: float | None) -> None:
        """Keep values, in place of any others."""

        def work(db: sqlite3.Connection) -> None:
            for key, value in values.items():
                _put(db, key, value, ttl)

        await self._run(work)

    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Keep a value unless there is one; whether it was kept."""
        return await self.compare_and_set(key, None, value, ttl)

    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        """Keep a value if the present one is `expected`, None being none; whether it was kept."""

        def work(db: sqlite3.Connection) -> bool:
            if _get(db, key) != expected:
                return False
            _put(db, key, value, ttl)
            return True

        return await self._run(work)

    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        """Add to a counter, which begins at 0, and return it."""

        def work(db: sqlite3.Connection) -> int:
            found = _get(db, key)
            if found is not None and not NUMBER.fullmatch(found):
                raise ValueError(f"the value of {key!r} is no number: {found[:40]!r}")
            number = int(found or b"0") + by
            if not -(2**63) <= number < 2**63:
                raise ValueError(f"{key!r} would be {number}, which has more than 64 bits")
            if found is None:
                _put(db, key, b"%d" % number, ttl)
            else:
                db.execute("UPDATE cache SET value = ? WHERE key = ?", (b"%d" % number, key))
            return number

        return await self._run(work)

    async def touch(self, key: str, ttl: float | None) -> bool:
        """Give a value a new time to live; whether there is one."""

        def work(db: sqlite3.Connection) -> bool:
            update = f"UPDATE cache SET expires = ? WHERE key = ? AND {ALIVE}"
            return db.execute(update, (_expires(ttl), key, time.time())).rowcount == 1

        return await self._run(work)

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values; how many there were."""

        def work(db: sqlite3.Connection) -> int:
            remove = f"DELETE FROM cache WHERE key = ? AND {ALIVE}"
            return sum(db.execute(remove, (key, time.time())).rowcount for key in keys)

        return await self._run(work)

    async def clear(self, prefix: str = "") -> None:
        """Remove every value whose key begins with `prefix`."""
        remove = "DELETE FROM cache WHERE substr(key, 1, ?) = ?"
        await self._run(lambda db: db.execute(remove, (len(prefix), prefix)).rowcount)


class SQLiteCachePlugin:
    """Brings the backend under the name `sqlite`."""

    @covet.hookimpl
    def covet_cache_backends(self) -> dict[str, Backend]:
        """The one backend."""
        return {"sqlite": Backend(lambda app, alias, settings: SQLiteCache(settings.path), SQLiteSettings)}


def _expires(ttl: float | None) -> float | None:
    return None if ttl is None else time.time() + ttl


def _get(db: sqlite3.Connection, key: str) -> bytes | None:
    row = db.execute(f"SELECT value FROM cache WHERE key = ? AND {ALIVE}", (key, time.time())).fetchone()
    return None if row is None else row[0]


def _put(db: sqlite3.Connection, key: str, value: bytes, ttl: float | None) -> None:
    db.execute("DELETE FROM cache WHERE expires <= ?", (time.time(),))
    put = "INSERT INTO cache VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
    db.execute(put + "expires = excluded.expires", (key, value, _expires(ttl)))
