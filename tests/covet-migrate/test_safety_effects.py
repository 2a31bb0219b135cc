"""What a statement is said to lock, to rewrite and to read is what the server does."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
from tests.migrations.lock_observations import differences, how, observed, observed_concurrently, refused, there
from tests.migrations.migrating import APP, create, migrate, states_of
from tests.migrations.schema_changes import CHANGES, ROWS, SchemaChange, shop
from tests.services.databases import ask
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

from covet_migrate.ddl import steps_of
from covet_migrate.operations import Change, Online
from covet_migrate.safety.effects import Blocks, Effect, effects_of
from covet_migrate.state import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Call, Statement, Step
from covet_orm import Database
from covet_orm.drivers.protocol import Connection

pytestmark = pytest.mark.anyio


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
            await as_said(url, connection, step, effect)


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
            elif isinstance(step, Statement):
                await as_said(url, connection, step, effect)


async def fill(connection: Connection, name: str) -> None:
    value = "note = 'x'" if name.startswith("not_null") else "key = gen_random_uuid()"
    await connection.script(f"UPDATE shop_book SET {value}")


async def as_said(url: str, connection: Connection, step: Statement, effect: Effect) -> None:
    """Whom it keeps waiting is tried in the proof, for as long as that takes."""
    if step.transactional:
        seen = await observed(url, connection, step, try_others=False)
    elif "IF EXISTS" in step.sql and "CREATE" not in step.sql and not await there(url, step):
        # There is nothing that it would wait for.
        await connection.script(step.sql)
        return
    else:
        seen = await observed_concurrently(url, connection, step.sql, try_others=False)
        effect = replace(effect, rewrites=False)
    assert differences(seen, effect) == [], seen


async def test_what_is_said_wrong_is_noticed(postgresql: PostgreSQL) -> None:
    """Of a statement under SHARE, which reads the table: each part of it told otherwise."""
    change = CHANGES["add_index"]()
    url = postgresql.empty_database("test")
    before, after = await prepared(url, "postgresql", change)
    (step,) = steps_between(before, after, change, "postgresql", (postgresql.version,))
    (effect,) = effects_of([step], "postgresql", (postgresql.version,))
    assert isinstance(step, Statement)
    async with Database(url) as database, database.connection() as connection:
        seen = await observed(url, connection, step)
    assert differences(seen, effect) == []
    assert (seen.readers, seen.writers) == ({"shop_book": True}, {"shop_book": False})
    wrong = {
        "locks": replace(effect, locks={"shop_book": "SHARE ROW EXCLUSIVE"}),
        "blocks": replace(effect, blocks=Blocks.EVERYBODY),
        "writes": replace(effect, rewrites=True),
        "reads rows": replace(effect, scans=False),
    }
    for what, said in wrong.items():
        assert [text.startswith(what) for text in differences(seen, said)] == [True], what
    for others in (replace(seen, readers={"shop_book": False}), replace(seen, writers={"shop_book": True})):
        assert len(differences(others, effect)) == 1


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
            assert await refused(url, how(step.sql, ALGORITHMS[cheaper], None)), f"{step.sql} is cheaper"
        if lock != "NONE":
            weaker = ONLINE[ONLINE.index(lock) - 1]
            assert await refused(url, how(step.sql, effect.algorithm, weaker)), f"{step.sql} locks less"
        error = await refused(url, how(step.sql, effect.algorithm, lock))
        assert not error, f"{step.sql} {effect}: {error}"
