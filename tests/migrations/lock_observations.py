"""Looking at a statement while it is held: what it locks, rewrites and reads, and whether others can read and write.

For tests, and for the proof `migrate_locks`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import asyncpg  # type: ignore[import-untyped]
import pymysql
from tests.services.databases import ask

from covet_migrate.execution.stages import described
from covet_migrate.safety.effects import Blocks, Effect
from covet_migrate.safety.postgresql import BLOCKS
from covet_migrate.steps import Statement
from covet_migrate.testing.locks import LOCKS, files_of_tables, locks_held, tables_there
from covet_orm.drivers.protocol import Connection

__all__ = ["Observed", "differences", "how", "observed", "observed_concurrently", "refused", "there", "tried"]

READ = "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables"
PATIENCE = "100ms"
"""How long another session waits for a lock before it is said to be kept waiting."""
REQUESTED = "SELECT relation, mode FROM pg_locks WHERE pid = $1 AND locktype = 'relation'"


@dataclass
class Observed:
    """What a statement did.

    Attributes:
        statement: the statement.
        locks: by table that others know, the strongest lock.
        rewritten: the tables that were written anew.
        read: whether rows were read.
        readers: by table, whether another session could read meanwhile.
        writers: by table, whether another session could write meanwhile.
        held: whether it was looked at in an open transaction; else while it waited for others.
    """

    statement: str
    locks: Mapping[str, str]
    rewritten: frozenset[str] = frozenset()
    read: bool | None = None
    readers: dict[str, bool] = field(default_factory=dict)
    writers: dict[str, bool] = field(default_factory=dict)
    held: bool = True


def differences(seen: Observed, effect: Effect) -> list[str]:
    """What is otherwise than was said of a statement; nothing where all is so."""
    said = {table: lock for table, lock in effect.locks.items() if table in seen.locks or lock != "ACCESS SHARE"}
    told = [] if dict(seen.locks) == said else [f"locks {dict(seen.locks)}, and not {said}"]
    blocks = max((BLOCKS[lock] for lock in seen.locks.values()), default=Blocks.NOBODY)
    if blocks is not effect.blocks:
        told.append(f"blocks {blocks}, and not {effect.blocks}")
    if bool(seen.rewritten) is not effect.rewrites:
        told.append(f"writes {sorted(seen.rewritten)} anew, and not {effect.rewrites}")
    # How the largest number of a small table is found is the planner's choice.
    if seen.read is not None and not effect.rewrites and not seen.statement.startswith("SELECT setval"):
        told += [] if seen.read is effect.scans else [f"reads rows: {seen.read}, and not {effect.scans}"]
    for table, could in seen.readers.items():
        if could is (BLOCKS[seen.locks.get(table, "ACCESS SHARE")] is Blocks.EVERYBODY):
            told.append(f"{'lets others' if could else 'keeps others waiting to'} read {table}")
    for table, could in seen.writers.items():
        waits = BLOCKS[seen.locks.get(table, "ACCESS SHARE")] > Blocks.NOBODY or effect.changes_rows
        if could is waits:
            told.append(f"{'lets others' if could else 'keeps others waiting to'} write {table}")
    return told


async def observed(url: str, connection: Connection, step: Statement, *, try_others: bool = True) -> Observed:
    """Run a statement in a transaction of its own, look at it from within and from another session, and commit it."""
    await connection.script("BEGIN")
    files, before = await files_of_tables(connection), await tables_there(connection)
    read = (await connection.fetch(READ))[0][0]
    await connection.script(step.sql)
    # One that is renamed is known by its old name, and one that is gone as well.
    known = {**(await tables_there(connection)), **before}
    held = await locks_held(connection, known, own=True)
    now = await files_of_tables(connection)
    seen = Observed(
        described(step),
        held[0].locks if held else {},
        frozenset(table for table, file in files.items() if now.get(table, file) != file),
        (await connection.fetch(READ))[0][0] > read,
    )
    if try_others:
        seen.readers, seen.writers = await tried(url, [table for table in seen.locks if table in before.values()])
    await connection.script("COMMIT")
    return seen


async def tried(url: str, tables: list[str]) -> tuple[dict[str, bool], dict[str, bool]]:
    """Whether another session can read and write tables now."""
    other = await asyncpg.connect(url)
    try:
        await other.execute(f"SET lock_timeout = '{PATIENCE}'")
        readers = {table: await _goes_on(other, f'SELECT 1 FROM "{table}" LIMIT 1') for table in tables}
        writers = {
            table: await _goes_on(other, f'UPDATE "{table}" SET id = id')
            for table in tables
            if await _has_id(other, table)
        }
    finally:
        await other.close()
    return readers, writers


async def _has_id(other: Any, table: str) -> bool:
    found = await other.fetch(
        "SELECT 1 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relname = $1 AND attname = 'id'",
        table,
    )
    return bool(found)


async def _goes_on(other: Any, sql: str) -> bool:
    transaction = other.transaction()
    await transaction.start()
    try:
        await other.execute(sql)
    except asyncpg.LockNotAvailableError:
        return False
    finally:
        await transaction.rollback()
    return True


async def observed_concurrently(
    url: str, connection: Connection, sql: str, *, table: str = "shop_book", try_others: bool = True
) -> Observed:
    """Run what cannot be in a transaction while somebody has an old snapshot of a table, and look at it while it waits
    for them; what it waits for counts as what it holds."""
    pid = (await connection.fetch("SELECT pg_backend_pid()"))[0][0]
    async with reading(url, table) as reader, anyio.create_task_group() as group:
        group.start_soon(connection.script, sql)
        tables = {
            row[0]: row[1]
            for row in await reader.fetch("SELECT oid, relname FROM pg_class WHERE relkind IN ('r', 'p')")
        }
        locks: dict[str, str] = {}
        order = list(LOCKS)
        while not locks:
            await anyio.sleep(0.01)
            for relation, mode in await reader.fetch(REQUESTED, pid):
                name = tables.get(relation, "pg_")
                if not name.startswith("pg_"):
                    told = locks.get(name)
                    modes = [mode, *(one for one, lock in LOCKS.items() if lock == told)]
                    locks[name] = LOCKS[max(modes, key=order.index)]
        seen = Observed(" ".join(sql.split()), locks, held=False)
        if try_others:
            seen.readers, seen.writers = await tried(url, list(locks))
        await reader.execute("COMMIT")
    return seen


@asynccontextmanager
async def reading(url: str, table: str) -> AsyncIterator[Any]:
    """A connection in a transaction that has read the table."""
    reader = await asyncpg.connect(url)
    try:
        await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await reader.execute(f'SELECT 1 FROM "{table}"')
        yield reader
    finally:
        await reader.close()


async def there(url: str, step: Statement) -> bool:
    """Whether an index that is to be dropped is there."""
    name = step.sql.rpartition(" ")[2].strip('"')
    return bool(await ask(url, f"SELECT 1 FROM pg_class WHERE relname = '{name}'"))


def how(sql: str, algorithm: str, lock: str | None) -> str:
    """A statement that is refused where it cannot be done so."""
    comma = "," if sql.startswith("ALTER TABLE") else ""
    return f"{sql}{comma} ALGORITHM={algorithm}" + (f"{comma} LOCK={lock}" if lock else "")


async def refused(url: str, sql: str) -> str:
    """Why a statement is refused; empty where it is not, and done then."""
    try:
        await ask(url, sql)
    except pymysql.err.Error as error:
        return str(error)
    return ""
