"""A session store over an SQLite file, shared by every process that opens it: for tests across processes.

from tests.sqlite_sessions import SQLiteSessions, SQLiteSessionsPlugin

SQLiteSessions(path)                                # a store by itself
plugin_sandbox("sessions", SQLiteSessionsPlugin(), settings={"sessions": {"store": "sqlite", "path": str(path)}})
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from tests.sqlite_file import SQLiteFile, SQLiteSettings

import covet
from covet.backends import Backend
from covet.sessions import StoredSession

__all__ = ["SQLiteSessions", "SQLiteSessionsPlugin"]

# "user" is bytes, so that SQLite has no opinion on which texts are equal.
TABLE = """CREATE TABLE IF NOT EXISTS sessions (key BLOB PRIMARY KEY, "values" BLOB NOT NULL, version INTEGER NOT NULL,
    user BLOB, created REAL NOT NULL, authenticated REAL, seen REAL NOT NULL, expires REAL NOT NULL) WITHOUT ROWID"""
INDEX = "CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user)"
COLUMNS = '"values", version, user, created, authenticated, seen, expires'
PUT = f"INSERT OR REPLACE INTO sessions (key, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class SQLiteSessions(SQLiteFile):
    """A session store in the SQLite file `path`, which is made when it is not there."""

    schema = (TABLE, INDEX)

    async def load(self, key: bytes, now: float) -> StoredSession | None:
        """The session, or None."""
        return await self._run(lambda db: _get(db, key, now))

    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        """Keep a new session unless the key is taken; whether it was kept."""

        def work(db: sqlite3.Connection) -> bool:
            if _get(db, key, now) is not None:
                return False
            _put(db, key, session)
            return True

        return await self._run(work)

    async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
        """Put a session in place of the one with version `expected`; whether that was there."""

        def work(db: sqlite3.Connection) -> bool:
            found = _get(db, key, now)
            if found is None or found.version != expected:
                return False
            _put(db, key, session)
            return True

        return await self._run(work)

    async def rotate(self, old: bytes, new: bytes, session: StoredSession, expected: int, now: float) -> bool:
        """Remove the session `old` of version `expected` and keep `session` as `new`; whether it was there."""

        def work(db: sqlite3.Connection) -> bool:
            found = _get(db, old, now)
            if found is None or found.version != expected:
                return False
            db.execute("DELETE FROM sessions WHERE key = ?", (old,))
            _put(db, new, session)
            return True

        return await self._run(work)

    async def touch(self, key: bytes, seen: float, expires: float, now: float) -> bool:
        """Note that a session was used; whether it is there."""
        update = "UPDATE sessions SET seen = ?, expires = ? WHERE key = ? AND expires > ?"
        return await self._run(lambda db: db.execute(update, (seen, expires, key, now)).rowcount == 1)

    async def delete(self, key: bytes) -> bool:
        """Remove a session; whether it was there, expired or not."""
        return await self._run(lambda db: db.execute("DELETE FROM sessions WHERE key = ?", (key,)).rowcount == 1)

    async def list_user(self, user: str, now: float) -> Sequence[tuple[bytes, StoredSession]]:
        """The sessions of a user with their keys."""
        select = f"SELECT key, {COLUMNS} FROM sessions WHERE user = ? AND expires > ?"

        def work(db: sqlite3.Connection) -> list[tuple[bytes, StoredSession]]:
            return [(key, _session(row)) for key, *row in db.execute(select, (user.encode(), now))]

        return await self._run(work)

    async def end_user(self, user: str, keep: bytes | None) -> int:
        """Remove the sessions of a user, except the one with the key `keep`; how many."""
        remove = "DELETE FROM sessions WHERE user = ? AND key IS NOT ?"
        return await self._run(lambda db: db.execute(remove, (user.encode(), keep)).rowcount)

    async def end_all(self) -> int:
        """Remove every session; how many."""
        return await self._run(lambda db: db.execute("DELETE FROM sessions WHERE 1").rowcount)

    async def purge(self, now: float) -> int:
        """Remove the sessions that have expired; how many."""
        return await self._run(lambda db: db.execute("DELETE FROM sessions WHERE expires <= ?", (now,)).rowcount)


class SQLiteSessionsPlugin:
    """Brings the store under the name `sqlite`."""

    @covet.hookimpl
    def covet_session_stores(self) -> dict[str, Backend]:
        """The one store."""
        return {"sqlite": Backend(lambda app, alias, settings: SQLiteSessions(settings.path), SQLiteSettings)}


def _session(row: Sequence[Any]) -> StoredSession:
    values, version, user, created, authenticated, seen, expires = row
    return StoredSession(
        values=values,
        version=version,
        user=None if user is None else user.decode(),
        created=created,
        authenticated=authenticated,
        seen=seen,
        expires=expires,
    )


def _get(db: sqlite3.Connection, key: bytes, now: float) -> StoredSession | None:
    row = db.execute(f"SELECT {COLUMNS} FROM sessions WHERE key = ? AND expires > ?", (key, now)).fetchone()
    return None if row is None else _session(row)


def _put(db: sqlite3.Connection, key: bytes, one: StoredSession) -> None:
    user = None if one.user is None else one.user.encode()
    db.execute(PUT, (key, one.values, one.version, user, one.created, one.authenticated, one.seen, one.expires))
