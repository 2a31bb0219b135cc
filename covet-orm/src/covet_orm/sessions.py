"""The session store `database`: sessions in a table, shared by all processes that use the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, Table, bindparam, case, delete, func, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from covet.sessions import StoredSession
from covet_orm.databases import Database
from covet_orm.drivers.protocol import Row
from covet_orm.exceptions import UniqueViolation
from covet_orm.expiry import EVER, ExpiringStatements, remove_all
from covet_orm.store_tables import StoreTable

__all__ = ["DatabaseSessionStore"]

FIELDS = ("data", "version", "user_id", "created", "authenticated", "seen", "expires")
# Four bytes for each of 255 characters.
USER_BYTES = 1020
# What `create` tells through the server's last_insert_id(), on MySQL and MariaDB.
REPLACED, TAKEN = 1, 2


def define_sessions(name: str, kind: str) -> Table:
    """The table of sessions.

    A user is the bytes of a text, so that no collation has an opinion on which users are the same.
    """
    mysql_kind = kind in ("mysql", "mariadb")
    double: Any = sqlalchemy.Double()
    key: Any = mysql.VARBINARY(32) if mysql_kind else LargeBinary()
    data: Any = mysql.LONGBLOB() if mysql_kind else LargeBinary()
    user: Any = mysql.VARBINARY(USER_BYTES) if mysql_kind else LargeBinary()
    return Table(
        name,
        MetaData(),
        Column("key", key, primary_key=True),
        Column("data", data, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("user_id", user),
        Column("created", double, nullable=False),
        Column("authenticated", double),
        Column("seen", double, nullable=False),
        Column("expires", double, nullable=False),
        Index(f"{name}_user_id", "user_id"),
        Index(f"{name}_expires", "expires"),
        mysql_engine="InnoDB",
        mysql_row_format="DYNAMIC",
        mariadb_engine="InnoDB",
        mariadb_row_format="DYNAMIC",
        sqlite_with_rowid=False,
    )


class SessionStatements(ExpiringStatements):
    """The statements of `DatabaseSessionStore`."""

    def load(self) -> ClauseElement:
        """A session by its key."""
        c = self.table.c
        return select(*(c[name] for name in FIELDS)).where(*self._alive())

    def create(self) -> ClauseElement:
        """Insert a session, or put it in the place of one that has expired."""
        c = self.table.c
        values = {name: bindparam(name, type_=c[name].type, required=True) for name in ("key", *FIELDS)}
        now = bindparam("now", type_=c.expires.type, required=True)
        if self.kind in ("mysql", "mariadb"):
            # The number of rows does not tell one that was inserted from one that stayed.
            maria = mysql.insert(self.table).values(values)
            told = func.last_insert_id(case((c.expires <= now, REPLACED), else_=TAKEN))
            put: list[tuple[str, Any]] = [("data", case((told == REPLACED, maria.inserted.data), else_=c.data))]
            put += [(n, case((c.expires <= now, maria.inserted[n]), else_=c[n])) for n in FIELDS[1:]]
            return maria.on_duplicate_key_update(put)
        insert: Any = (postgresql if self.kind == "postgresql" else sqlite).insert(self.table).values(values)
        return insert.on_conflict_do_update(  # type: ignore[no-any-return]
            index_elements=[c.key], set_={name: insert.excluded[name] for name in FIELDS}, where=c.expires <= now
        )

    def replace(self) -> ClauseElement:
        """Put a session in place of one of a version."""
        return sqlalchemy.update(self.table).values(self._fields()).where(*self._of_version())

    def rotate(self) -> ClauseElement:
        """Put a session with a new key in place of one of a version: one step, which nobody can see half of."""
        c = self.table.c
        new = {"key": bindparam("new", type_=c.key.type, required=True), **self._fields()}
        return sqlalchemy.update(self.table).values(new).where(*self._of_version())

    def touch(self) -> ClauseElement:
        """Change the times of a session."""
        names = ("seen", "expires")
        return sqlalchemy.update(self.table).values(self._fields(names)).where(*self._alive())

    def delete_expired(self) -> ClauseElement:
        """Remove a session by its key, if it has expired."""
        c = self.table.c
        return delete(self.table).where(self._key(), c.expires <= bindparam("now", type_=c.expires.type, required=True))

    def delete_all(self) -> ClauseElement:
        """Remove every session."""
        return delete(self.table)

    def of_user(self) -> ClauseElement:
        """The sessions of a user."""
        c = self.table.c
        alive = c.expires > bindparam("now", type_=c.expires.type, required=True)
        return select(c.key, *(c[name] for name in FIELDS)).where(self._user(), alive)

    def end_user(self) -> ClauseElement:
        """Remove the sessions of a user, but for one key."""
        keep = bindparam("keep", type_=self.table.c.key.type, required=True)
        return delete(self.table).where(self._user(), self.table.c.key != keep)

    def _key(self) -> Any:
        return self.table.c.key == bindparam("at", type_=self.table.c.key.type, required=True)

    def _user(self) -> Any:
        return self.table.c.user_id == bindparam("user", type_=self.table.c.user_id.type, required=True)

    def _alive(self) -> list[Any]:
        c = self.table.c
        return [self._key(), c.expires > bindparam("now", type_=c.expires.type, required=True)]

    def _of_version(self) -> list[Any]:
        expected = bindparam("expected", type_=BigInteger(), required=True)
        return [*self._alive(), self.table.c.version == expected]

    def _fields(self, names: Sequence[str] = FIELDS) -> dict[str, Any]:
        c = self.table.c
        return {name: bindparam(f"new_{name}", type_=c[name].type, required=True) for name in names}


class DatabaseSessionStore:
    """A session store in a table of a database: PostgreSQL, MySQL, MariaDB or SQLite.

    Each method is one statement, outside of the transaction that the caller may be in (see `covet_orm.store_tables`).
    What expired is removed by `purge`, which the kernel calls now and then, in batches.

    Args:
        database: where.
        table: the name of the table.
        create_table: whether it is made when it is missing.

    Raises:
        ConfigurationError: the table's name is none.

    Its methods raise `StoreTableMissing` where the table is not there, and `DatabaseError` where the database fails.
    """

    shared = True

    def __init__(self, database: Database, *, table: str = "covet_sessions", create_table: bool = False) -> None:
        self.table = StoreTable(
            database, table, SessionStatements, define_sessions, what="sessions", create=create_table
        )

    def __repr__(self) -> str:
        return f"<DatabaseSessionStore {self.table.name} of {self.table.database.alias}>"

    async def load(self, key: bytes, now: float) -> StoredSession | None:
        """The session, or None."""
        rows = await self.table.fetch(("load",), {"at": key, "now": now}, reads=True)
        return _session(rows[0]) if rows else None

    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        """Keep a new session unless the key is taken; whether it was kept."""
        told = await self.table.insert(("create",), {"key": key, "now": now, **_values(session)})
        if self.table.database.kind in ("mysql", "mariadb"):
            return told.last_id != TAKEN
        return told.changed == 1

    async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
        """Put a session in place of the one with version `expected`; whether that was there."""
        values = {"at": key, "expected": expected, "now": now, **_values(session, "new_")}
        return await self.table.execute(("replace",), values) == 1

    async def rotate(self, old: bytes, new: bytes, session: StoredSession, expected: int, now: float) -> bool:
        """Remove the session `old` of version `expected` and keep `session` as `new`; whether it was there."""
        values = {"at": old, "expected": expected, "now": now, "new": new, **_values(session, "new_")}
        while True:
            try:
                return await self.table.execute(("rotate",), values) == 1
            except UniqueViolation:
                # The new key is random. What has it is a session that expired and was not removed, or a mistake.
                if await self.table.execute(("delete_expired",), {"at": new, "now": now}) == 0:
                    raise

    async def touch(self, key: bytes, seen: float, expires: float, now: float) -> bool:
        """Note that a session was used; whether it is there."""
        values = {"at": key, "now": now, "new_seen": seen, "new_expires": expires}
        return await self.table.execute(("touch",), values) == 1

    async def delete(self, key: bytes) -> bool:
        """Remove a session; whether it was there, expired or not."""
        return await self.table.execute(("remove_key",), {"at": key}) == 1

    async def list_user(self, user: str, now: float) -> Sequence[tuple[bytes, StoredSession]]:
        """The sessions of a user with their keys."""
        rows = await self.table.fetch(("of_user",), {"user": user.encode(), "now": now}, reads=True)
        return [(bytes(row[0]), _session(row[1:])) for row in rows]

    async def end_user(self, user: str, keep: bytes | None) -> int:
        """Remove the sessions of a user, except the one with the key `keep`; how many."""
        return await self.table.execute(("end_user",), {"user": user.encode(), "keep": keep or b""})

    async def end_all(self) -> int:
        """Remove every session, in batches; how many.

        Cancelled, the batches that are done stay so: who calls again goes on where it ended.
        """
        removed = await remove_all(self.table, EVER)
        # Those that somebody else held meanwhile.
        return removed + await self.table.execute(("delete_all",), {})

    async def purge(self, now: float) -> int:
        """Remove the sessions that have expired, in batches; how many. Cancelled, as `end_all`."""
        return await remove_all(self.table, now)


def _values(session: StoredSession, prefix: str = "") -> Mapping[str, Any]:
    user = None if session.user is None else session.user.encode()
    return {
        f"{prefix}data": session.values,
        f"{prefix}version": session.version,
        f"{prefix}user_id": user,
        f"{prefix}created": session.created,
        f"{prefix}authenticated": session.authenticated,
        f"{prefix}seen": session.seen,
        f"{prefix}expires": session.expires,
    }


def _session(row: Row) -> StoredSession:
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
