"""The session store `database`, on every database."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from sqlalchemy import select
from tests.services.databases import SERVERS, ask
from tests.services.databases import Database as Server

import covet_orm.plugin
from covet import Covet, Request
from covet.exceptions import ConfigurationError
from covet.sessions import SessionStore, StoredSession
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.sessions import SessionStoreConformance
from covet_orm.cache import DatabaseCache
from covet_orm.databases import Database
from covet_orm.exceptions import DatabaseError, UniqueViolation
from covet_orm.expiry import BATCH
from covet_orm.sessions import DatabaseSessionStore
from covet_orm.store_tables import StoreTableMissing

pytestmark = pytest.mark.anyio

NOW = 1_790_000_000.0


class TestKit(SessionStoreConformance):
    """The kit, unchanged."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[SessionStore]:
        async with Database(url) as database:
            store = DatabaseSessionStore(database)
            await store.table.create()
            yield store


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url) as database:
        yield database


@pytest.fixture
async def store(database: Database) -> DatabaseSessionStore:
    store = DatabaseSessionStore(database)
    await store.table.create()
    return store


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def session(**fields: Any) -> StoredSession:
    made: dict[str, Any] = {
        "values": b"\x80", "version": 1, "user": None, "created": NOW, "authenticated": None, "seen": NOW,
        "expires": NOW + 1000,
    }  # fmt: skip
    return StoredSession(**(made | fields))


async def count(database: Database) -> int:
    return int(await database.fetch_value("SELECT count(*) FROM covet_sessions"))


# Removal


async def test_more_expired_sessions_than_one_batch_has_are_removed(
    database: Database, store: DatabaseSessionStore
) -> None:
    many = BATCH * 2 + 17
    for number in range(many + 3):
        await store.create(key(number), session(expires=NOW + (10 if number < many else 1000)), NOW)
    assert await store.purge(NOW + 10) == many
    assert await count(database) == 3


async def test_every_session_is_ended_however_many(database: Database, store: DatabaseSessionStore) -> None:
    for number in range(BATCH + 5):
        await store.create(key(number), session(), NOW)
    assert await store.end_all() == BATCH + 5
    assert await count(database) == 0


# SQLite locks no rows: one connection writes at a time.
@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_purging_waits_for_nobody(database: Database, store: DatabaseSessionStore) -> None:
    """What another process holds is left for the next time."""
    for number in range(5):
        await store.create(key(number), session(expires=NOW + 10), NOW)
    table = store.table.table
    async with database.transaction():
        await database.query(select(table.c.key).where(table.c.key == key(2)).with_for_update())
        with anyio.fail_after(20):
            assert await store.purge(NOW + 10) == 4
    assert await store.purge(NOW + 10) == 1


# SQLite locks no rows: one connection writes at a time.
@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_ending_all_waits_for_those_that_are_held(database: Database, store: DatabaseSessionStore) -> None:
    """A session that somebody is just changing ends as well."""
    for number in range(5):
        await store.create(key(number), session(), NOW)
    async with anyio.create_task_group() as group, database.transaction():
        await database.execute("UPDATE covet_sessions SET version = version + 1")
        group.start_soon(store.end_all)
        await anyio.sleep(0.1)
        # Now it goes on.
    assert await count(database) == 0


async def test_a_key_is_free_from_the_second_that_its_session_expires(store: DatabaseSessionStore) -> None:
    await store.create(key(1), session(expires=NOW + 10), NOW)
    assert await store.create(key(1), session(values=b"2"), NOW + 9.999) is False
    assert await store.create(key(1), session(values=b"2"), NOW + 10) is True
    assert await store.load(key(1), NOW + 10) == session(values=b"2")
    await store.create(key(2), session(expires=NOW + 10), NOW)
    assert await store.rotate(key(1), key(2), session(version=2), 1, NOW + 10)
    assert await store.load(key(2), NOW + 10) == session(version=2)


async def test_the_new_key_of_a_rotation_is_never_that_of_another_session(store: DatabaseSessionStore) -> None:
    for number in (1, 2):
        await store.create(key(number), session(values=b"%d" % number), NOW)
    with pytest.raises(UniqueViolation):
        await store.rotate(key(1), key(2), session(version=2), 1, NOW)
    for number in (1, 2):
        assert await store.load(key(number), NOW) == session(values=b"%d" % number)


# Transactions


async def test_a_session_is_no_part_of_its_callers_transaction(database: Database, store: DatabaseSessionStore) -> None:
    """What is rolled back leaves it there. SQLite has one connection that writes, and there it goes along."""
    with suppress(ZeroDivisionError):
        async with database.transaction():
            assert await store.create(key(1), session(), NOW)
            assert await store.load(key(1), NOW) == session()
            raise ZeroDivisionError
    found = await store.load(key(1), NOW)
    assert found == (None if database.kind == "sqlite" else session())


async def test_tasks_that_all_hold_a_connection_do_not_wait_for_each_other(url: str) -> None:
    """Each is inside of a transaction, together they have all connections, and each asks for a session."""
    async with Database(url, max_size=3, acquire_timeout=20) as database:
        store = DatabaseSessionStore(database)
        await store.table.create()
        many = 1 if database.kind == "sqlite" else 3
        inside = [anyio.Event() for _ in range(many)]

        async def work(number: int) -> None:
            async with database.transaction():
                inside[number].set()
                for each in inside:
                    await each.wait()
                assert await store.create(key(number), session(), NOW)
                assert await store.load(key(number), NOW) is not None

        with anyio.fail_after(15):
            async with anyio.create_task_group() as group:
                for number in range(many):
                    group.start_soon(work, number)


async def test_a_cancelled_call_takes_no_transaction_along(database: Database, store: DatabaseSessionStore) -> None:
    await database.script("CREATE TABLE other (number integer)")
    async with database.transaction():
        await database.execute("INSERT INTO other VALUES (1)")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.create(key(1), session(), NOW)
        assert scope.cancelled_caught
        assert await store.create(key(2), session(), NOW)
    assert await store.load(key(2), NOW) == session()
    assert await database.fetch_value("SELECT number FROM other") == 1


# The table


async def test_a_missing_table_says_the_line_to_type(database: Database) -> None:
    store = DatabaseSessionStore(database)
    with pytest.raises(StoreTableMissing, match="covet db create"):
        await store.load(key(1), NOW)
    with pytest.raises(StoreTableMissing, match="'covet_sessions' for sessions"):
        await store.create(key(1), session(), NOW)
    assert await database.create_all() == ["covet_sessions"]
    assert await store.create(key(1), session(), NOW)
    assert await database.create_all() == []
    assert await store.table.create() is False


async def test_a_missing_table_is_made_where_that_was_asked_for(database: Database) -> None:
    store = DatabaseSessionStore(database, table="visitors", create_table=True)
    assert await store.load(key(1), NOW) is None
    assert await store.create(key(1), session(), NOW)
    assert await database.fetch_value("SELECT count(*) FROM visitors") == 1


async def test_two_processes_make_the_table_at_once(url: str) -> None:
    async with Database(url) as one, Database(url, alias="other") as other, anyio.create_task_group() as group:
        for database in (one, other) * 3:
            store = DatabaseSessionStore(database, create_table=True)
            group.start_soon(store.load, key(1), NOW)


async def test_the_table_has_indexes_by_user_and_time(
    server: Server, url: str, database: Database, store: DatabaseSessionStore
) -> None:
    asked = {
        "postgresql": "SELECT indexname FROM pg_indexes WHERE tablename = 'covet_sessions'",
        "mariadb": "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_name = 'covet_sessions'",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
    }
    names = {row[0] for row in await ask(url, asked[server.kind])}
    assert names >= {"covet_sessions_user_id", "covet_sessions_expires"}


def test_two_kinds_of_stores_have_no_table_in_common() -> None:
    database = Database("sqlite://")
    DatabaseSessionStore(database, table="kept")
    DatabaseSessionStore(database, table="kept")
    with pytest.raises(ConfigurationError, match="that of sessions, and cannot be that of a cache"):
        DatabaseCache(database, table="kept")


@pytest.mark.parametrize("name", ["", "a.b", "t" * 49, "a\n"])
def test_a_table_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(covet_orm.exceptions.OrmError if len(name) < 40 else ConfigurationError):
        DatabaseSessionStore(Database("postgresql://host/name"), table=name)


# Faults


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_sessions_are_there_after_the_server_was_killed(server: Any, url: str) -> None:
    async with Database(url, retry_after=0.05) as database:
        store = DatabaseSessionStore(database)
        await store.table.create()
        assert await store.create(key(1), session(), NOW)
        await anyio.to_thread.run_sync(server.kill)
        with pytest.raises(DatabaseError):
            await store.load(key(1), NOW)
        await anyio.to_thread.run_sync(server.start)
        with anyio.fail_after(30):
            while True:
                try:
                    assert await store.load(key(1), NOW) == session()
                    break
                except DatabaseError:
                    await anyio.sleep(0.05)
        assert await store.replace(key(1), session(version=2), 1, NOW)


# An application


async def test_an_application_keeps_its_sessions_there(url: str) -> None:
    def made() -> Covet:
        app = plugin_sandbox(
            "sessions",
            orm=covet_orm.plugin,
            settings={
                "app": {"secret_key": "k" * 32, "debug": True},
                "storage": {"default": {"url": url}},
                "sessions": {"store": "database"},
            },
        )

        @app.get("/visit")
        async def visit(request: Request) -> int:
            session = await request.session
            session["visits"] = session.get("visits", 0) + 1
            return int(session["visits"])

        @app.get("/login")
        async def login(request: Request) -> None:
            await (await request.session).bind("user")

        return app

    app = made()
    async with TestClient(app) as client:
        assert [(await client.get("/visit")).json() for _ in range(3)] == [1, 2, 3]
        await client.get("/login")
        assert len(await app.sessions.list("user")) == 1
        cookies = dict(client.cookies)
    # The next process knows the visitor.
    again = made()
    async with TestClient(again) as client:
        client.cookies.update(cookies)
        assert (await client.get("/visit")).json() == 4
        assert await again.sessions.end("user") == 1
        assert (await client.get("/visit")).json() == 1
    assert time.time() > NOW
