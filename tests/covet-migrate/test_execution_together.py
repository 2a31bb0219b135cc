"""Several who migrate at once, locks that somebody else has, networks that break, disks that are full."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.migrations.processes import MigratingProcess
from tests.migrations.runs import SQL, applied, migration, migrator, slow, three
from tests.services.databases import SERVERS, Databases, ask
from tests.services.databases import Database as Server
from tests.services.pgbouncer import PgBouncer
from tests.services.proxy import Proxy

from covet_migrate.exceptions import MigrationFailed, MigrationLocked
from covet_migrate.execution import Event, Settings
from covet_migrate.execution.events import Retrying, WaitingForLock
from covet_migrate.execution.lock import hold
from covet_orm import Database
from covet_orm.testing import faultpoints

pytestmark = pytest.mark.anyio


async def test_ten_processes_apply_once(server: Server, url: str) -> None:
    processes = [MigratingProcess(url, three) for _ in range(10)]
    ended = [process.wait() for process in processes]
    assert [one.code for one in ended] == [0] * 10, ended
    assert sorted(name for one in ended for name in one.done) == [
        "shop.0001_first",
        "shop.0002_second",
        "shop.0003_third",
    ]
    assert sorted(await ask(url, "SELECT id, price FROM item")) == [(1, 11), (2, 21)]
    assert sorted(await ask(url, "SELECT item FROM bought")) == [(1,), (2,)]


async def test_two_tasks_apply_once(url: str) -> None:
    async with Database(url) as one, Database(url) as other:
        found = await asyncio.gather(*(migrator(each, *three(each.kind)).migrate() for each in (one, other)))
        assert sorted(map(len, found)) in ([0, 3], [3, 3])
        assert len(await applied(one)) == 3
        assert await one.fetch_value("SELECT count(*) FROM bought") == 2


async def test_who_waits_is_told_for_whom_and_gives_up(url: str) -> None:
    events: list[Event] = []
    async with Database(url) as one, Database(url) as other:
        async with hold(one, timeout=0):
            run = migrator(
                other, *three(other.kind), tell=events.append, settings=Settings(wait=0.3, lock_timeout=1, retry=1)
            )
            with pytest.raises(MigrationLocked, match="somebody else migrates this database") as caught:
                await run.migrate()
            waiting = [event for event in events if isinstance(event, WaitingForLock)]
            assert waiting
            assert waiting[0].holder
            assert waiting[0].holder in str(caught.value)
        assert len(await run.migrate()) == 3
        # It leaves nothing behind.
        if one.kind == "sqlite":
            file = (await one.fetch_all("PRAGMA database_list"))[0]["file"]
            assert not os.path.exists(f"{file}-migrating")  # noqa: ASYNC240 - a look at one name


async def test_a_database_in_memory_has_a_lock_as_well() -> None:
    async with Database("sqlite://") as database:
        await asyncio.gather(*(migrator(database, *three("sqlite")).migrate() for _ in range(3)))
        assert await database.fetch_value("SELECT count(*) FROM bought") == 2
        async with hold(database, timeout=0):
            with pytest.raises(MigrationLocked, match="another task of this process"):
                async with hold(database, timeout=0):
                    pass


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_the_lock_that_is_lost_is_noticed(server: Server, url: str) -> None:
    async def cut() -> None:
        async with Database(url) as other:
            if server.kind == "mariadb":
                rows = await other.fetch_all(
                    "SELECT id FROM information_schema.processlist WHERE db = 'test' AND id <> connection_id() "
                    "ORDER BY id DESC"
                )
                # Those that hold a lock are at rest.
                for row in rows:
                    held = await other.fetch_value(
                        "SELECT COUNT(*) FROM information_schema.processlist WHERE id = %s AND command = 'Sleep'",
                        (row["id"],),
                    )
                    if held:
                        await other.script(f"KILL CONNECTION {row['id']}")
            else:
                await other.query(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
                    "AND objid = (x'746D6967')::int"
                )

    async with Database(url) as database:
        with (
            faultpoints.at("migrate.done.shop.0001_first.1", cut),
            faultpoints.at("migrate.noted.shop.0001_first.4", cut if server.kind == "postgresql" else (lambda: None)),
            pytest.raises((MigrationLocked, MigrationFailed), match="lost"),
        ):
            await migrator(database, *three(database.kind)).migrate()
    async with Database(url) as database:
        await migrator(database, *three(database.kind)).migrate()
        assert await database.fetch_value("SELECT count(*) FROM bought") == 2


async def test_a_table_that_somebody_else_has_locked(server: Server, url: str) -> None:
    first, second, third = three(server.kind)
    events: list[Event] = []
    holding = asyncio.Event()
    release = asyncio.Event()

    async def other() -> None:
        async with Database(url) as database, database.transaction():
            await database.execute("UPDATE item SET name = 'held' WHERE id = 1")
            holding.set()
            await release.wait()

    async with Database(url) as database:
        await migrator(database, first).migrate()
        task = asyncio.create_task(other())
        await holding.wait()
        patient = Settings(lock_timeout=1, retry=2)
        with pytest.raises(MigrationLocked) as caught:
            await migrator(database, first, second, settings=patient, tell=events.append).migrate()
        text = str(caught.value)
        assert "a lock was not to be had" in text
        if server.kind != "sqlite":
            assert "shop.0002_second" in text
            assert "ALTER TABLE item ADD COLUMN price" in text
        retries = [event for event in events if isinstance(event, Retrying)]
        assert retries
        assert await applied(database) == ["shop.0001_first"]
        # It is tried again, until the other one is done.
        again = asyncio.create_task(
            migrator(
                database, first, second, third, settings=Settings(lock_timeout=1, retry=30),
                tell=lambda event: release.set() if isinstance(event, Retrying) else None,
            ).migrate()
        )  # fmt: skip
        await again
        await task
        assert len(await applied(database)) == 3


async def test_the_connection_is_lost_in_the_middle(databases: Databases) -> None:
    for name in ("postgresql-15", "mariadb"):
        server: Any = databases.get(name)
        url = server.empty_database("test")
        with Proxy(server.port) as proxy:
            for number in (1, 3):
                async with Database(proxy.url(url)) as database:
                    with (
                        faultpoints.at(f"migrate.before.shop.0001_first.{number}", lambda: proxy.cut(reset=True)),
                        pytest.raises((MigrationFailed, MigrationLocked), match="type"),
                    ):
                        await migrator(database, *three(server.kind)).migrate()
            async with Database(proxy.url(url)) as database:
                await migrator(database, *three(server.kind)).migrate()
        assert sorted(await ask(url, "SELECT id, price FROM item")) == [(1, 11), (2, 21)]
        assert sorted(await ask(url, "SELECT item FROM bought")) == [(1,), (2,)]


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/full.db"
    first = three("sqlite")[0]
    fill = migration(
        "shop",
        "0002_fill",
        SQL("ALTER TABLE item ADD COLUMN text text", []),
        SQL("UPDATE item SET text = hex(randomblob(500000))", []),
        after=[first.key],
    )
    async with Database(url) as database:
        await migrator(database, first).migrate()
        pages = await database.fetch_value("PRAGMA page_count")
        async with database.connection() as connection:
            await connection.script(f"PRAGMA max_page_count = {pages + 20}")
        with pytest.raises(MigrationFailed, match="full") as caught:
            await migrator(database, first, fill).migrate()
        assert "Nothing of it was kept" in str(caught.value)
        assert (await database.query("SELECT * FROM item")).columns == ("id", "name")
        assert await applied(database) == ["shop.0001_first"]
        async with database.connection() as connection:
            await connection.script(f"PRAGMA max_page_count = {pages + 20000}")
        await migrator(database, first, fill).migrate()
        assert await database.fetch_value("SELECT length(text) FROM item WHERE id = 1") == 1000000


async def test_waiting_for_the_lock_holds_up_no_concurrent_index(postgresql: Any) -> None:
    """One that waited inside of the server would have a snapshot, for which the index would wait, and it for that."""
    url = postgresql.empty_database("test")
    index = SQL("CREATE INDEX CONCURRENTLY one_id ON one (id)", "DROP INDEX one_id", transactional=False)
    both = [
        migration("shop", "0001", SQL("CREATE TABLE one (id int)", "DROP TABLE one")),
        migration("shop", "0002", index, after=[("shop", "0001")], atomic=False),
    ]
    async with Database(url) as one, Database(url) as other:
        with faultpoints.at("migrate.begun.shop.0002.0", lambda: asyncio.sleep(0.3)):
            await asyncio.gather(migrator(one, *both).migrate(), migrator(other, *both).migrate())
        assert await one.fetch_value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
        assert await applied(one) == ["shop.0001", "shop.0002"]


async def test_a_statement_that_goes_on_when_its_process_is_gone(databases: Databases) -> None:
    """The next process waits for its end, and does not do it once more."""
    server = databases.mariadb()
    url = server.empty_database("test")
    process = MigratingProcess(url, slow)
    under_way = "SELECT id FROM information_schema.processlist WHERE info LIKE 'ALTER TABLE one%%'"
    async with Database(url) as database:
        while not await database.fetch_all(under_way):
            assert not process.hears(0.02), process.ended
        process.kill()
        process.wait()
        assert await database.fetch_all(under_way)
        done = await migrator(database, *slow("mariadb")).migrate()
        assert [str(one) for one in done] == ["shop.0001_slow"]
        assert done[0].under_way is not None
        assert await database.fetch_value("SELECT count(*) FROM one WHERE id = 0") == 1


async def test_behind_a_pgbouncer_in_transaction_mode(databases: Databases) -> None:
    server = databases.postgresql(15)
    url = server.empty_database("test")
    with PgBouncer(server) as pooler:
        pooled = f"{pooler.start().url('test')}?pgbouncer=true"
        async with Database(pooled) as one, Database(pooled) as other:
            await asyncio.gather(*(migrator(each, *three("postgresql")).migrate() for each in (one, other)))
            # Nothing is left with a connection of the server.
            assert await ask(url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
    assert sorted(await ask(url, "SELECT item FROM bought")) == [(1,), (2,)]
