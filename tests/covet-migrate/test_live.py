"""Migrations of a table that is used: the short form of the proof, which looks at no times, and what holds locks."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from tests.migrations.live_load import before, fill, wrong
from tests.migrations.migrating import APP
from tests.migrations.runs import migration, migrator
from tests.proofs.migrate_live import Outcome, expected_schema, held, run, schema
from tests.services.databases import Database, ask

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationLocked
from covet_migrate.execution import Settings
from covet_migrate.execution.events import Event, Retrying, StoodBack
from covet_migrate.migrations import Migration
from covet_orm import Database as Connected

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

ROWS = 10_000
TASKS = 5
on_postgresql = pytest.mark.parametrize("server", ["postgresql-15"], indirect=True)


@pytest.mark.parametrize(
    ("scenario", "server"),
    [
        *((name, "postgresql-15") for name in ("column", "volatile", "unique", "foreign_key", "rename", "not_null")),
        *((name, "mariadb") for name in ("column", "rename", "not_null")),
    ],
    indirect=["server"],
)
async def test_no_request_fails_and_every_row_is_kept(scenario: str, server: Database) -> None:
    expected = await expected_schema(server.empty_database("expected"), scenario)
    url = server.empty_database("test")
    await fill(url, ROWS)
    outcome = await run(url, scenario, "--safe", ROWS, TASKS, idle=0.1)
    assert outcome.requests
    assert not outcome.errors
    assert outcome.wrong == []
    assert await schema(url) == expected


@on_postgresql
async def test_the_proof_notices_requests_that_fail_and_rows_that_are_lost(server: Database) -> None:
    url = server.empty_database("test")
    await fill(url, ROWS)
    outcome = await run(url, "rename", "naive", ROWS, TASKS, idle=0.1)
    assert outcome.errors
    answers: list[dict[str, Any]] = [{"written": {}, "inserted": 0, "errors": {}}]
    assert "are not as they were" in " ".join(await wrong(url, "rename", ROWS, answers))
    await ask(url, "DELETE FROM shop_item WHERE id = 1")
    assert "of the rows that were there" in " ".join(await wrong(url, "rename", ROWS, answers))
    written = [{"written": {"2": "another"}, "inserted": 0, "errors": {}}]
    assert "not as they were written last" in " ".join(await wrong(url, "rename", ROWS, written))


@on_postgresql
async def test_nobody_waits_for_a_migration_that_waits_for_a_transaction(server: Database) -> None:
    url = server.empty_database("test")
    await fill(url, 100)
    outcome: Outcome = await held(url, "migrate", 100, TASKS, seconds=0.8, idle=0.1)
    assert not outcome.errors
    assert outcome.attempts == 0
    assert await ask(url, "SELECT count(*) FROM shop_item WHERE extra IS NOT NULL") == [(0,)]


def first() -> Migration:
    return migration(APP, "0001_first", *(ops.CreateModel(one.name, dict(one.fields)) for one in before()))


CHANGES: dict[str, Any] = {
    "as a whole": (True, ops.AddField("Item", "extra", orm.IntegerField(null=True))),
    "step by step": (False, ops.AddField("Item", "extra", orm.IntegerField(null=True))),
    "a trigger": (False, ops.SyncFields("Item", "name", "note")),
}


@on_postgresql
@pytest.mark.parametrize("name", CHANGES)
async def test_no_lock_is_asked_for_while_a_transaction_holds_the_table(name: str, server: Database) -> None:
    atomic, operation = CHANGES[name]
    url = server.empty_database("test")
    events: list[Event] = []
    stood_back = anyio.Event()

    def tell(event: Event) -> None:
        events.append(event)
        if isinstance(event, StoodBack):
            stood_back.set()

    async with Connected(url) as database, Connected(url) as other:
        then = migration(APP, "0002_then", operation, after=[first().key], atomic=atomic)
        running = migrator(database, first(), then, tell=tell, steps_of=steps_of)
        await running.migrate(APP, "0001_first")
        async with anyio.create_task_group() as group, other.transaction():
            await other.execute("UPDATE shop_item SET amount = 1")
            group.start_soon(running.migrate)
            await stood_back.wait()
            assert await ask(url, "SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]
            await ask(url, "SET lock_timeout = '1s'", "SELECT count(*) FROM shop_item")
        assert next(one for one in events if isinstance(one, StoodBack)).tables == ("shop_item",)
        assert not [one for one in events if isinstance(one, Retrying)]


@on_postgresql
async def test_readers_keep_nobody_from_what_only_writers_wait_for(server: Database) -> None:
    url = server.empty_database("test")
    events: list[Event] = []
    async with Connected(url) as database, Connected(url) as other:
        key = ops.AlterField("Item", "owner", orm.ForeignKey(f"{APP}.Owner", related_name="+"))
        then = migration(APP, "0002_then", ops.Online(key), after=[first().key], atomic=False)
        running = migrator(database, first(), then, tell=events.append, steps_of=steps_of)
        await running.migrate(APP, "0001_first")
        async with other.transaction():
            await other.fetch_value("SELECT count(*) FROM shop_item")
            await running.migrate()
    assert not [one for one in events if isinstance(one, StoodBack | Retrying)]


@on_postgresql
async def test_it_waits_for_a_vacuum_and_others_do_not_wait_for_it(server: Database) -> None:
    """What a VACUUM holds is held here by a transaction."""
    url = server.empty_database("test")
    async with Connected(url) as database, Connected(url) as other:
        added = ops.AddField("Item", "extra", orm.IntegerField(null=True))
        then = migration(APP, "0002_then", added, after=[first().key])
        settings = Settings(lock_timeout=30, retry=30)
        running = migrator(database, first(), then, settings=settings, steps_of=steps_of)
        await running.migrate(APP, "0001_first")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'shop_item'::regclass"
        async with anyio.create_task_group() as group, other.transaction():
            await other.script("LOCK TABLE shop_item IN SHARE UPDATE EXCLUSIVE MODE")
            group.start_soon(running.migrate)
            while await ask(url, waiting) == [(0,)]:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            await ask(url, "SET lock_timeout = '1s'", "UPDATE shop_item SET amount = 2")
        assert await ask(url, "SELECT count(extra) FROM shop_item") == [(0,)]


@on_postgresql
async def test_it_says_who_holds_the_table_in_the_end(server: Database) -> None:
    url = server.empty_database("test")
    async with Connected(url) as database, Connected(url) as other:
        added = ops.AddField("Item", "extra", orm.IntegerField(null=True))
        then = migration(APP, "0002_then", added, after=[first().key])
        settings = Settings(lock_timeout=0.1, retry=0.3)
        running = migrator(database, first(), then, settings=settings, steps_of=steps_of)
        await running.migrate(APP, "0001_first")
        async with other.transaction():
            await other.fetch_value("SELECT count(*) FROM shop_item")
            with pytest.raises(MigrationLocked, match=r"ADD COLUMN extra[\s\S]*held by process"):
                await running.migrate()
        await running.migrate()
