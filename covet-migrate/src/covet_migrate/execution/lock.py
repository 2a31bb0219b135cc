"""One who migrates a database at a time, so that ten workers that start together run each migration once.

- PostgreSQL: an advisory lock that belongs to a transaction of a connection of its own, which is at rest all the time.
  A lock of a session would stay with a connection of PgBouncer in transaction mode when its client goes; a transaction
  has its connection for itself. One that only holds a lock has no snapshot, so that neither VACUUM nor
  CREATE INDEX CONCURRENTLY waits for it. Those who wait ask again and again: one that waits *in* the server has a
  snapshot, for which CREATE INDEX CONCURRENTLY of the holder would wait, and neither would end.
- MySQL and MariaDB: GET_LOCK on a connection of its own. It is of one server: in a Galera cluster or a group
  replication, all who migrate must be sent to the same one.
- SQLite: a lock of the system (flock) on a file beside the database, which ends with its process, however that ends.

None of them is left behind by a process that dies.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import anyio

from covet_migrate.exceptions import MigrationLocked
from covet_migrate.execution.events import Listener, WaitingForLock
from covet_migrate.execution.history import applied_by
from covet_orm import Database
from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.exceptions import DatabaseError

__all__ = ["MigrationLock", "fence", "hold"]

MIGRATES = 0x636F7665746D6967
"""The advisory lock of PostgreSQL of those who migrate: "covetmig" in ASCII."""
WORKS = MIGRATES + 1
"""That of the session which runs the statements of a migration."""
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between two attempts."""
REST = "SELECT 1"
"""What closes the portal of the statement before (PostgreSQL): until then that keeps its snapshot, for which
CREATE INDEX CONCURRENTLY waits."""
FOREVER = 31_536_000
"""Seconds that a session of MySQL may be at rest: a year, the most that it takes."""

HOLDER = """
SELECT a.usename || '@' || coalesce(a.client_addr::text, 'local') || ', process ' || a.pid
    || coalesce(', ' || nullif(a.application_name, ''), '') || ', since '
    || to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.objsubid = 1
"""

_in_memory: WeakKeyDictionary[Database, asyncio.Lock] = WeakKeyDictionary()


class MigrationLock:
    """The lock while it is held.

    Args:
        check: raises when it is lost.
    """

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check

    async def check(self) -> None:
        """Return when it is still held.

        Raises:
            MigrationLocked: the connection that held it was lost, and somebody else may have it.
        """
        await self._check()


@asynccontextmanager
async def hold(database: Database, *, timeout: float, tell: Listener | None = None) -> AsyncIterator[MigrationLock]:
    """A block that one process at a time is in, of all that migrate a database.

    Cancelled while it waits, it leaves nothing behind.

    Args:
        database: which one, opened.
        timeout: seconds to wait for somebody else; 0 for not at all.
        tell: is told who holds it.

    Raises:
        MigrationLocked: somebody else has it all the time.
        DatabaseError: the server cannot be reached.
    """
    if database.kind == "sqlite":
        holding = _in_a_file(database, timeout, tell)
    elif database.kind == "postgresql":
        holding = _in_a_transaction(database, timeout, tell)
    else:
        holding = _by_name(database, timeout, tell)
    async with holding as lock:
        yield lock


async def fence(connection: Connection, kind: str, *, timeout: float, session: bool) -> None:
    """Let a connection that is about to run statements of a migration wait until no other one does.

    The process that held the lock may have died, and the server still be at its last statement.

    Args:
        connection: that runs the statements.
        kind: of the database.
        timeout: seconds to wait.
        session: whether it is for the session, to its end; otherwise for the transaction (PostgreSQL).

    Raises:
        MigrationLocked: that statement does not end.
    """
    if kind == "sqlite":
        # Its connections end with their process.
        return
    if kind == "postgresql":
        function = "pg_try_advisory_lock" if session else "pg_try_advisory_xact_lock"

        async def attempt() -> bool:
            return bool((await connection.fetch(f"SELECT {function}($1)", (WORKS,)))[0][0])

        async def holder() -> str:
            return await _postgresql_holder(connection, WORKS)
    else:
        name = _name(await connection.fetch("SELECT DATABASE()"), b"works")

        async def attempt() -> bool:
            return bool((await connection.fetch("SELECT GET_LOCK(%s, 0)", (name,)))[0][0])

        async def holder() -> str:
            return await _mysql_holder(connection, name)

    await _until(attempt, holder, timeout, None, what="a statement of a migration that was interrupted still runs")


@asynccontextmanager
async def _in_a_transaction(database: Database, timeout: float, tell: Listener | None) -> AsyncIterator[MigrationLock]:
    connection = await database.connect()
    try:

        async def attempt() -> bool:
            # One message, so that no time passes between the parts; and nobody ends a session that is at rest.
            await connection.script(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 0; "
                "SET LOCAL statement_timeout = 0; SELECT set_config('transaction_timeout', '0', true) "
                "WHERE current_setting('transaction_timeout', true) IS NOT NULL"
            )
            if (await connection.fetch("SELECT pg_try_advisory_xact_lock($1)", (MIGRATES,)))[0][0]:
                await connection.script(REST)
                return True
            await connection.script("ROLLBACK")
            return False

        async def holder() -> str:
            return await _postgresql_holder(connection, MIGRATES)

        async def check() -> None:
            await _still(connection, None)

        await _until(attempt, holder, timeout, tell, what="somebody else migrates this database")
        yield MigrationLock(check)
    finally:
        await _close(connection)


@asynccontextmanager
async def _by_name(database: Database, timeout: float, tell: Listener | None) -> AsyncIterator[MigrationLock]:
    connection = await database.connect()
    try:
        await connection.script(f"SET SESSION wait_timeout = {FOREVER}")
        name = _name(await connection.fetch("SELECT DATABASE()"), b"migrates")

        async def attempt() -> bool:
            return bool((await connection.fetch("SELECT GET_LOCK(%s, 0)", (name,)))[0][0])

        async def holder() -> str:
            return await _mysql_holder(connection, name)

        async def check() -> None:
            await _still(connection, name)

        await _until(attempt, holder, timeout, tell, what="somebody else migrates this database")
        yield MigrationLock(check)
    finally:
        await _close(connection)


@asynccontextmanager
async def _in_a_file(database: Database, timeout: float, tell: Listener | None) -> AsyncIterator[MigrationLock]:
    async with database.connection() as connection:
        rows = await connection.fetch("PRAGMA database_list")
    file = next((str(row[2]) for row in rows if row[1] == "main"), "")
    if not file:
        # Of a database in memory nobody knows but those who have the object.
        inside = _in_memory.setdefault(database, asyncio.Lock())

        async def free() -> bool:
            if inside.locked():
                return False
            await inside.acquire()
            return True

        async def somebody() -> str:
            return "another task of this process"

        await _until(free, somebody, timeout, tell, what="somebody else migrates this database")
        try:
            yield MigrationLock(_nothing)
        finally:
            inside.release()
        return
    path = Path(f"{file}-migrating")
    held: list[int] = []

    async def attempt() -> bool:
        descriptor = _locked(path)
        if descriptor is None:
            return False
        held.append(descriptor)
        return True

    async def holder() -> str:
        return _content(path)

    await _until(attempt, holder, timeout, tell, what="somebody else migrates this database")
    try:
        os.ftruncate(held[0], 0)
        os.pwrite(held[0], f"{applied_by()}, process {os.getpid()}\n".encode(), 0)
        yield MigrationLock(_nothing)
    finally:
        _remove(held[0], path)


def _locked(path: Path) -> int | None:
    """The file, locked; None where somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        if _lock(descriptor) and _is_at(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _content(path: Path) -> str:
    with suppress(OSError):  # it ends, and its file is gone
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _remove(descriptor: int, path: Path) -> None:
    """Let go of the file. Whoever has opened it meanwhile finds out that it is not the one of that name any longer."""
    if os.name != "nt":
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _lock(descriptor: int) -> bool:
    if os.name == "nt":
        import msvcrt

        module: Any = msvcrt
        try:
            module.locking(descriptor, module.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


async def _until(
    attempt: Callable[[], Awaitable[bool]],
    holder: Callable[[], Awaitable[str]],
    timeout: float,
    tell: Listener | None,
    *,
    what: str,
) -> None:
    """Try until it succeeds.

    Raises:
        MigrationLocked: it does not in time.
    """
    began = monotonic()
    told: str | None = None
    number = 0
    while not await attempt():
        who = await holder()
        waited = monotonic() - began
        if tell is not None and who != told:
            tell(WaitingForLock(holder=who, waited=waited))
            told = who
        if waited >= timeout:
            by = f" ({who})" if who else ""
            raise MigrationLocked(
                f"{what}{by}, for longer than the {timeout:g} seconds that one was to wait; wait for the end of it, or "
                "end it, and type the same again. Nothing was changed."
            )
        pause = PAUSES[min(number, len(PAUSES) - 1)] * random.uniform(0.5, 1.0)
        await anyio.sleep(min(pause, max(timeout - waited, 0.001)))
        number += 1


async def _nothing() -> None:
    """A lock of the system is held as long as its file is open."""


async def _still(connection: Connection, name: str | None) -> None:
    try:
        if name is None:
            await connection.script(REST)
            held = connection.state is SessionState.TRANSACTION
        else:
            held = bool((await connection.fetch("SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", (name,)))[0][0])
    except DatabaseError as error:
        raise MigrationLocked(
            f"the connection that kept others from migrating was lost ({error}); type the same again"
        ) from error
    if not held:
        raise MigrationLocked("the lock that kept others from migrating was lost; type the same again")


async def _close(connection: Connection) -> None:
    """End the session, and the lock with it, whoever cancels."""
    with anyio.CancelScope(shield=True):
        await connection.close()


async def _postgresql_holder(connection: Connection, number: int) -> str:
    rows = await connection.fetch(HOLDER, (number >> 32, number & 0xFFFFFFFF))
    return str(rows[0][0]) if rows and rows[0][0] is not None else ""


async def _mysql_holder(connection: Connection, name: str) -> str:
    rows = await connection.fetch(
        "SELECT p.user, p.host, p.id FROM information_schema.processlist p WHERE p.id = IS_USED_LOCK(%s)", (name,)
    )
    return f"{rows[0][0]}@{rows[0][1]}, connection {rows[0][2]}" if rows else ""


def _name(rows: Any, what: bytes) -> str:
    """The name of a lock, of at most 64 characters, for a database: names of locks are of the whole server."""
    return f"covet.{what.decode()}.{blake2b(str(rows[0][0]).encode(), digest_size=16).hexdigest()}"
