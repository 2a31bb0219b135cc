"""What a statement is said to lock, to rewrite and to read is what the server does."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg  # type: ignore[import-untyped]
import pymysql
import pytest
from tests.migrating import APP, create, migrate, states_of
from tests.schema_changes import CHANGES, ROWS, SchemaChange, shop
from tests.services.databases import ask
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

from covet_migrate.ddl import steps_of
from covet_migrate.operations import Change, Online
from covet_migrate.safety.effects import Blocks, Effect, effects_of
from covet_migrate.safety.postgresql import BLOCKS
from covet_migrate.state import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Call, Statement, Step
from covet_orm import Database
from covet_orm.drivers.protocol import Connection

pytestmark = pytest.mark.anyio

NAMES = {
    "AccessShareLock": "ACCESS SHARE",
    "RowShareLock": "ROW SHARE",
    "RowExclusiveLock": "ROW EXCLUSIVE",
    "ShareUpdateExclusiveLock": "SHARE UPDATE EXCLUSIVE",
    "ShareLock": "SHARE",
    "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE",
    "ExclusiveLock": "EXCLUSIVE",
    "AccessExclusiveLock": "ACCESS EXCLUSIVE",
}
"""The locks as `pg_locks` calls them, from the weakest on."""
LOCKS = "SELECT relation, mode FROM pg_locks WHERE pid = {pid} AND granted AND locktype = 'relation'"
TABLES = "SELECT oid, relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'shop%'"
READ = "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables WHERE relname LIKE 'shop%'"


def steps_between(before: State, after: State, change: SchemaChange, kind: str, version: tuple[int, ...]) -> list[Step]:
    made = Change(APP, before, after, kind, Renderer())
    return steps_of(change.operation.actions(made), kind, version)


async def prepared(url: str, kind: str, change: SchemaChange) -> tuple[State, State]:
    """The states before and after a change, with a database in the first one that has rows."""
    first = shop()
    await create(url, first)
    await ask(url, *ROWS)
    await migrate(url, kind, first, change.before)
    before = states_of(first, change.before)[-1]
    return before, change.operation.apply(before, APP)


@pytest.mark.parametrize("name", [name for name, made in CHANGES.items() if "postgresql" in made().kinds])
async def test_postgresql_locks_rewrites_and_reads_what_is_said(name: str, postgresql: PostgreSQL) -> None:
    change = CHANGES[name]()
    url = postgresql.empty_database("test")
    before, after = await prepared(url, "postgresql", change)
    version = (postgresql.version,)
    steps = steps_between(before, after, change, "postgresql", version)
    assert steps
    async with Database(url) as database, database.connection() as connection:
        for step, effect in zip(steps, effects_of(steps, "postgresql", version), strict=True):
            assert isinstance(step, Statement)
            if step.transactional:
                await as_said(connection, step, effect)
            else:
                await as_said_concurrently(url, connection, step, effect)


@pytest.mark.parametrize(
    "name",
    ["not_null", "not_null_filled", "unique", "add_foreign_key", "add_volatile", "add_checked", "add_unique", "null"],
)
async def test_so_do_the_steps_of_what_is_done_online(name: str, postgresql: PostgreSQL) -> None:
    change = CHANGES[name]()
    url = postgresql.empty_database("test")
    before, after = await prepared(url, "postgresql", change)
    version = (postgresql.version,)
    online = SchemaChange(Online(change.operation))
    steps = steps_between(before, after, online, "postgresql", version)
    async with Database(url) as database, database.connection() as connection:
        for step, effect in zip(steps, effects_of(steps, "postgresql", version), strict=True):
            if isinstance(step, Call):
                # What is left to fill in batches.
                await fill(connection, name)
            elif isinstance(step, Statement) and step.transactional:
                await as_said(connection, step, effect)
            elif isinstance(step, Statement):
                await as_said_concurrently(url, connection, step, effect)


async def fill(connection: Connection, name: str) -> None:
    value = "note = 'x'" if name.startswith("not_null") else "key = gen_random_uuid()"
    await connection.script(f"UPDATE shop_book SET {value}")


async def as_said(connection: Connection, step: Statement, effect: Effect) -> None:
    await connection.script("BEGIN")
    files = await files_of(connection)
    tables = [tuple(row) for row in await connection.fetch(TABLES)]
    read = (await connection.fetch(READ))[0][0]
    await connection.script(step.sql)
    # One that is renamed is known by its old name, and one that is gone as well.
    known = dict([*(tuple(row) for row in await connection.fetch(TABLES)), *tables])
    held = strongest(await connection.fetch(LOCKS.format(pid="pg_backend_pid()")), known)
    assert held == {table: lock for table, lock in effect.locks.items() if table in held or lock != "ACCESS SHARE"}, (
        step.sql
    )
    assert effect.blocks == max((BLOCKS[lock] for lock in held.values()), default=Blocks.NOBODY)
    now = await files_of(connection)
    rewritten = {table for table, file in files.items() if now.get(table, file) != file}
    assert bool(rewritten) is effect.rewrites, step.sql
    read = (await connection.fetch(READ))[0][0] - read
    # How the largest number of a small table is found is the planner's choice.
    if not effect.rewrites and not step.sql.startswith("SELECT setval"):
        assert (read > 0) is effect.scans, f"{step.sql} read {read} rows"
    await connection.script("COMMIT")


async def files_of(connection: Connection) -> dict[str, int]:
    rows = await connection.fetch(
        "SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'shop%'"
    )
    return {str(row[0]): int(row[1]) for row in rows}


def strongest(rows: Sequence[Any], tables: Mapping[int, str]) -> dict[str, str]:
    order = list(NAMES)
    found: dict[str, str] = {}
    for relation, mode in rows:
        table = tables.get(relation)
        if table is None:
            continue
        if table not in found or order.index(mode) > order.index(found[table]):
            found[table] = mode
    return {table: NAMES[mode] for table, mode in found.items()}


async def as_said_concurrently(url: str, connection: Connection, step: Statement, effect: Effect) -> None:
    """While somebody reads, what is done concurrently waits for them, and holds what it holds."""
    if "IF EXISTS" in step.sql and "CREATE" not in step.sql and not await there(url, step):
        await connection.script(step.sql)
        return
    pid = (await connection.fetch("SELECT pg_backend_pid()"))[0][0]
    async with reading(url) as reader, anyio.create_task_group() as group:
        group.start_soon(connection.script, step.sql)
        tables = {row[0]: row[1] for row in await reader.fetch(TABLES)}
        while not (held := strongest(await reader.fetch(LOCKS.format(pid=pid)), tables)):  # noqa: ASYNC110
            await anyio.sleep(0.01)
        assert held == dict(effect.locks), step.sql
        assert effect.blocks is Blocks.NOBODY
        await reader.execute("COMMIT")
    assert not effect.rewrites


async def there(url: str, step: Statement) -> bool:
    """Whether an index that is to be dropped is there."""
    name = step.sql.rpartition(" ")[2].strip('"')
    return bool(await ask(url, f"SELECT 1 FROM pg_class WHERE relname = '{name}'"))


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Any]:
    """A connection in a transaction that has read the table."""
    reader = await asyncpg.connect(url)
    try:
        await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT 1 FROM shop_book")
        yield reader
    finally:
        await reader.close()


ALGORITHMS = ("INSTANT", "NOCOPY", "INPLACE", "COPY")
"""From the cheapest on; each stands for all before it as well."""
ONLINE = ("NONE", "SHARED", "EXCLUSIVE")


@pytest.mark.parametrize("name", [name for name, made in CHANGES.items() if "mariadb" in made().kinds])
async def test_mariadb_accepts_the_algorithm_and_lock_that_are_said_and_no_cheaper_ones(
    name: str, mariadb: MariaDB
) -> None:
    change = CHANGES[name]()
    url = mariadb.empty_database("test")
    before, after = await prepared(url, "mariadb", change)
    version = (10, 11)
    steps = steps_between(before, after, change, "mariadb", version)
    for step, effect in zip(steps, effects_of(steps, "mariadb", version), strict=True):
        assert isinstance(step, Statement)
        if not effect.algorithm:
            assert not step.sql.startswith("ALTER TABLE")
            with warnings.catch_warnings():
                # The name of a primary key is nothing to MariaDB.
                warnings.simplefilter("ignore")
                await ask(url, step.sql)
            continue
        (lock,) = effect.locks.values()
        cheaper = ALGORITHMS.index(effect.algorithm) - 1
        if cheaper >= 0:
            assert await refused(url, online(step.sql, ALGORITHMS[cheaper], None)), f"{step.sql} is cheaper"
        if lock != "NONE":
            weaker = ONLINE[ONLINE.index(lock) - 1]
            assert await refused(url, online(step.sql, effect.algorithm, weaker)), f"{step.sql} locks less"
        error = await refused(url, online(step.sql, effect.algorithm, lock))
        assert not error, f"{step.sql} {effect}: {error}"


def online(sql: str, algorithm: str, lock: str | None) -> str:
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
