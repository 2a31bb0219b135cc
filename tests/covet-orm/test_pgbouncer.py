"""Databases and models behind a PgBouncer in transaction mode that has two connections to the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import asyncpg
import pytest
from tests.line_database import until
from tests.proofs.orm_kill import look_at_pools
from tests.proofs.orm_kill import run as run_and_kill
from tests.services import pgbouncer
from tests.services.databases import ask
from tests.services.pgbouncer import PgBouncer
from tests.services.postgresql import PostgreSQL

import covet_orm.plugin
from covet import Request
from covet.cache import CacheBackend, CacheManager
from covet.exceptions import ConfigurationError
from covet.pubsub import PubSub
from covet.sessions import SessionStore
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.cache import CacheBackendConformance
from covet.testing.conformance.faults import at_every_await
from covet.testing.conformance.sessions import SessionStoreConformance
from covet_orm import (
    CharField,
    Database,
    DatabaseUnavailable,
    F,
    ForeignKey,
    IntegerField,
    Model,
    ProgrammingError,
    Registry,
    UniqueViolation,
)
from covet_orm.cache import DatabaseCache
from covet_orm.drivers.postgresql import PostgreSQLDriver
from covet_orm.exceptions import ConnectionLost, OrmError, PoolTimeout, StatementTimeout
from covet_orm.health import check_database
from covet_orm.observing import watch
from covet_orm.pubsub import INLINE, PostgreSQLPubSub
from covet_orm.sessions import DatabaseSessionStore
from covet_orm.urls import parse_url

pytestmark = pytest.mark.anyio

SERVERS = 2
"""Connections of PgBouncer to the server."""
registry = Registry()


class Box(Model):
    label = CharField(max_length=50, unique=True)
    weight = IntegerField(default=0)

    class Meta:
        registry = registry
        db_table = "box"


class Thing(Model):
    box = ForeignKey(Box, related_name="things")
    number = IntegerField()

    class Meta:
        registry = registry
        db_table = "thing"


@pytest.fixture
def bouncer(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    """A PgBouncer before each PostgreSQL, which has an empty database `test`."""
    postgresql.empty_database("test")
    with pgbouncer.run(postgresql, {"default_pool_size": SERVERS, "query_wait_timeout": 20}) as running:
        yield running


@pytest.fixture
def url(bouncer: PgBouncer) -> str:
    """The database by way of PgBouncer, with what covet needs to know."""
    return f"{bouncer.url('test')}?pgbouncer=true"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """That database, with its tables."""
    async with Database(url) as database:
        await database.create_all(registry)
        yield database


@asynccontextmanager
async def taken(bouncer: PgBouncer) -> AsyncIterator[list[Any]]:
    """All connections of PgBouncer to the server, each in a transaction of another client."""
    clients = [await asyncpg.connect(bouncer.url("test"), statement_cache_size=0) for _ in range(SERVERS)]
    try:
        for client in clients:
            await client.execute("BEGIN")
        yield clients
    finally:
        with anyio.CancelScope(shield=True):
            for client in clients:
                await client.close()


async def nothing_is_left(bouncer: PgBouncer, database: Database) -> None:
    """Other clients find every connection to the server as new: no transaction, lock, cursor, statement or setting."""
    await until(lambda: look_at_pools(database.pools())[0] == 0, "nothing is held")
    assert look_at_pools(database.pools())[1] == 0
    async with taken(bouncer) as clients:
        numbers = set()
        for client in clients:
            row = await client.fetchrow(
                "SELECT pg_backend_pid(), pg_current_xact_id_if_assigned(), current_setting('covet.owner', true), "
                "(SELECT count(*) FROM pg_prepared_statements WHERE name <> ''), "
                "(SELECT count(*) FROM pg_cursors WHERE name <> ''), "
                "(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode LIKE '%ExclusiveLock' "
                "AND locktype <> 'virtualxid'), "
                "current_setting('transaction_read_only'), current_setting('statement_timeout')"
            )
            number, *rest = row
            numbers.add(number)
            assert [one or None for one in rest] == [None, None, None, None, None, "off", "0"], row
        assert len(numbers) == SERVERS
        # A session that an interrupted statement goes on in is not among these; it would hold its locks.
        await clients[0].execute("LOCK TABLE box, thing IN ACCESS EXCLUSIVE MODE NOWAIT")


async def until_waiting(bouncer: PgBouncer, count: int) -> None:
    """Return when so many clients wait for one of its connections to the server."""
    pools: list[dict[str, str]] = []
    for _ in range(200):
        pools = await asyncio.to_thread(bouncer.show, "POOLS")
        if sum(int(pool["cl_waiting"]) for pool in pools if pool["database"] == "test") == count:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{count} clients do not wait: {pools}")


# Work


async def test_many_tasks_share_few_connections(bouncer: PgBouncer, url: str) -> None:
    """Each in the transaction of its own, whatever the others do meanwhile."""
    tasks, rounds = 20, 6
    statements: list[str] = []

    async def work(task: int) -> None:
        for step in range(rounds):
            label = f"{task}-{step}"
            async with database.transaction():
                await database.fetch_value("SELECT set_config('covet.owner', $1, true)", (label,))
                box = await Box.objects.create(label=label)
                await Thing.objects.bulk_create([Thing(box=box, number=number) for number in range(60)])
                assert await Box.objects.filter(pk=box.pk).update(weight=F("weight") + task) == 1
                with pytest.raises(UniqueViolation) as violated:
                    await create_in_a_block(label)
                assert violated.value.fields == ("label",)
                assert await database.fetch_value("SELECT current_setting('covet.owner')") == label
                locked = await Box.objects.select_for_update().get(label=label)
                assert locked.weight == task
            found = [thing.number async for thing in box.things.order_by("number").iterator(chunk_size=25)]
            assert found == list(range(60))
            assert await box.things.filter(number__lt=30).delete() == 30
            read = await Box.objects.prefetch_related("things").get(label=label)
            assert len(await read.things.all()) == 30
            if step % 3 == 2:
                with pytest.raises(RuntimeError):
                    await create_in_a_block(f"{label} undone", RuntimeError())

    async def create_in_a_block(label: str, error: Exception | None = None) -> None:
        async with database.transaction():
            await Box.objects.create(label=label)
            if error is not None:
                raise error

    async with Database(url, max_size=tasks) as database:
        watch(database, lambda done: statements.append(done.sql))
        await asyncio.gather(*(database.create_all(registry) for _ in range(4)))
        async with asyncio.TaskGroup() as group:
            for task in range(tasks):
                group.create_task(work(task))
        assert await Box.objects.count() == tasks * rounds
        assert await Thing.objects.count() == tasks * rounds * 30
        assert await Box.objects.filter(label__contains="undone").count() == 0
        assert any(statement.startswith("COPY") for statement in statements)
        clients = [client for client in bouncer.show("CLIENTS") if client["database"] == "test"]
        assert len(clients) > SERVERS
        assert len([server for server in bouncer.show("SERVERS") if server["database"] == "test"]) == SERVERS
        await nothing_is_left(bouncer, database)


async def test_statements_of_ones_own(bouncer: PgBouncer, database: Database) -> None:
    await database.execute_many("INSERT INTO box (label, weight) VALUES ($1, $2)", [(str(n), n) for n in range(50)])
    assert await database.fetch_value("SELECT sum(weight) FROM box") == 1225
    assert await database.execute("UPDATE box SET weight = $1 WHERE weight > $2", (7, 40)) == 9
    assert await database.fetch_one("SELECT label, weight FROM box WHERE weight = $1 LIMIT 1", (3,)) == {
        "label": "3", "weight": 3,
    }  # fmt: skip
    assert (await database.query("SELECT label FROM box WHERE weight < $1", (0,))).columns == ("label",)
    await check_database(database)
    await nothing_is_left(bouncer, database)


async def test_a_copy_that_fails_half_way(bouncer: PgBouncer, database: Database) -> None:
    box = await Box.objects.create(label="one")
    with pytest.raises(UniqueViolation):
        await Box.objects.bulk_create([*(Box(label=str(number)) for number in range(500)), Box(label="one")])
    assert await Box.objects.count() == 1
    await Thing.objects.bulk_create([Thing(box=box, number=number) for number in range(500)])
    assert await Thing.objects.count() == 500
    await nothing_is_left(bouncer, database)


async def test_a_stream_that_is_left_early(bouncer: PgBouncer, database: Database) -> None:
    box = await Box.objects.create(label="one")
    await Thing.objects.bulk_create([Thing(box=box, number=number) for number in range(500)])
    for _ in range(3 * SERVERS):
        async with aclosing(Thing.objects.order_by("number").iterator(chunk_size=10)) as things:
            async for thing in things:
                if thing.number == 15:
                    break
    await nothing_is_left(bouncer, database)


# Time and cancellation


async def _create() -> None:
    await Box.objects.filter(label="made").delete()
    await Box.objects.create(label="made")


async def _bulk_create() -> None:
    await Thing.objects.all().delete()
    box = await Box.objects.get(label="there")
    await Thing.objects.bulk_create([Thing(box=box, number=number) for number in range(100)])


async def _iterator() -> None:
    async with aclosing(Thing.objects.order_by("number").iterator(chunk_size=20)) as things:
        async for _ in things:
            pass


async def _save() -> None:
    box = await Box.objects.get(label="there")
    box.weight += 1
    await box.save()


@pytest.mark.parametrize("work", [_create, _bulk_create, _iterator, _save], ids=lambda work: work.__name__[1:])
async def test_cancelled_at_every_await(
    bouncer: PgBouncer, database: Database, work: Callable[[], Awaitable[None]]
) -> None:
    there = await Box.objects.create(label="there")
    await Thing.objects.bulk_create([Thing(box=there, number=number) for number in range(100)])

    async def check() -> None:
        await nothing_is_left(bouncer, database)
        assert await Thing.objects.count() in (0, 100)

    assert await at_every_await(work, check) >= 2


async def test_a_transaction_that_is_cancelled_at_every_await(bouncer: PgBouncer, database: Database) -> None:
    await Box.objects.create(label="there")

    async def work() -> None:
        async with database.transaction():
            await database.fetch_value("SELECT set_config('covet.owner', 'cancelled', true)")
            await Box.objects.update(weight=F("weight") + 1)
            async with database.transaction():
                await Box.objects.create(label="another")
            await Box.objects.filter(label="another").delete()
            await Box.objects.update(weight=F("weight") - 1)

    async def check() -> None:
        await nothing_is_left(bouncer, database)
        assert await Box.objects.all().values_list("label", "weight") == [("there", 0)]

    assert await at_every_await(work, check) >= 6


async def test_cancelled_while_it_waits_for_a_connection_of_pgbouncer(bouncer: PgBouncer, database: Database) -> None:
    """What waited in PgBouncer is not run later."""
    async with taken(bouncer), anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(lambda n: Box.objects.create(label=f"late {n}"), number)
        await until_waiting(bouncer, 5)
        group.cancel_scope.cancel()
    assert await Box.objects.count() == 0
    await nothing_is_left(bouncer, database)
    await Box.objects.create(label="late 1")


async def test_a_statement_timeout(bouncer: PgBouncer, postgresql: PostgreSQL, url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction():
            await Box.objects.create(label="undone")
            await database.fetch_value("SELECT pg_sleep(60)")

    async with Database(url, statement_timeout=0.5) as database:
        await database.create_all(registry)
        for _ in range(2 * SERVERS):
            with pytest.raises(StatementTimeout, match="statement_timeout"):
                await database.fetch_value("SELECT pg_sleep(60)")
            with pytest.raises(StatementTimeout):
                await work(database)
        assert await Box.objects.count() == 0
        await nothing_is_left(bouncer, database)
    direct = postgresql.url("test")
    slept = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid <> "
    for _ in range(100):
        if (await ask(direct, f"{slept} pg_backend_pid()"))[0][0] == 0:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the server goes on with statements that timed out")


# Faults


@pytest.mark.parametrize("killed", ["pgbouncer", "server"])
async def test_killed_under_load(bouncer: PgBouncer, postgresql: PostgreSQL, url: str, killed: str) -> None:
    """What was acknowledged is there, once, and nothing is left behind."""
    outcome = await run_and_kill("pgbouncer", bouncer if killed == "pgbouncer" else postgresql, url, 1, 0.5)
    assert outcome.errors
    assert outcome.acknowledged
    assert not outcome.failed, outcome


async def test_a_restart_between_two_statements_fails_none(bouncer: PgBouncer, database: Database) -> None:
    await asyncio.gather(*(Box.objects.create(label=str(number)) for number in range(8)))
    await asyncio.to_thread(bouncer.kill)
    with pytest.raises(DatabaseUnavailable):
        await Box.objects.count()
    await asyncio.to_thread(bouncer.start)
    assert await Box.objects.count() == 8
    await asyncio.to_thread(bouncer.kill)
    await asyncio.to_thread(bouncer.start)
    assert await asyncio.gather(*(Box.objects.count() for _ in range(8))) == [8] * 8
    await nothing_is_left(bouncer, database)


async def test_what_pgbouncer_could_not_pass_on_is_told(postgresql: PostgreSQL) -> None:
    postgresql.empty_database("test")
    with pgbouncer.run(postgresql, {"default_pool_size": SERVERS, "query_wait_timeout": 1}) as bouncer:
        async with Database(f"{bouncer.url('test')}?pgbouncer=true") as database:
            async with taken(bouncer):
                with pytest.raises(ConnectionLost, match="query_wait_timeout") as caught:
                    await database.fetch_value("SELECT 1")
                assert not caught.value.sent
            assert await database.fetch_value("SELECT 1") == 1
            await asyncio.to_thread(postgresql.kill)
            told = set()
            for _ in range(10):
                with pytest.raises((ConnectionLost, DatabaseUnavailable)) as failed:
                    await database.fetch_value("SELECT 1")
                told.add(str(failed.value))
            assert any("PgBouncer cannot connect to the server" in words for words in told), told


async def test_more_tasks_than_the_pool_has_connections(bouncer: PgBouncer, url: str) -> None:
    """Who holds connections is told, and that PgBouncer has fewer than the pool is not the pool's affair."""
    async with Database(url, max_size=3, acquire_timeout=0.5) as database:

        async def hold(ready: asyncio.Event, released: asyncio.Event) -> None:
            async with database.transaction():
                await database.fetch_value("SELECT 2")
                ready.set()
                await released.wait()

        released = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(SERVERS):
                ready = asyncio.Event()
                group.create_task(hold(ready, released), name=f"holder {number}")
                await ready.wait()
            waiting = group.create_task(hold(asyncio.Event(), released), name="waits in PgBouncer")
            await until(lambda: database.pools()[0].stats.in_use == 3, "the last connection is held")
            with pytest.raises(PoolTimeout, match=r"holder 0 .*SELECT 2"):
                await database.fetch_value("SELECT 1")
            released.set()
        assert waiting.done()
        assert look_at_pools(database.pools())[:2] == (0, 0)


# Without the option


async def test_without_the_option_the_error_says_what_to_add(bouncer: PgBouncer) -> None:
    async with Database(bouncer.url("test"), max_size=6) as database:
        await database.create_all(registry)
        errors: list[OrmError] = []

        async def work(number: int) -> None:
            try:
                async with database.transaction():
                    await Box.objects.filter(label=str(number)).count()
                    await Box.objects.filter(weight=number).exists()
            except OrmError as error:
                errors.append(error)

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(work(number))
        assert errors
        for error in errors:
            assert isinstance(error, ProgrammingError)
            assert "the option pgbouncer=true is needed" in str(error)


async def test_without_the_option_no_statement_of_another_process_is_run(
    bouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes count their statements alike."""
    driver = PostgreSQLDriver(parse_url(bouncer.url("test")))
    one, other, third = [await driver.connect() for _ in range(3)]
    try:
        monkeypatch.setattr(asyncpg.connection, "_uid", 1_000_000)
        assert (await one.fetch("SELECT $1::int + 1", (1,)))[0][0] == 2
        await one.script("BEGIN")
        # Of the other connection to the server.
        monkeypatch.setattr(asyncpg.connection, "_uid", 1_000_000)
        assert (await other.fetch("SELECT $1::int * 1000", (1,)))[0][0] == 1000
        await other.script("BEGIN")
        await one.script("COMMIT")
        await third.script("BEGIN")
        await other.script("COMMIT")
        with pytest.raises(ProgrammingError, match="pgbouncer=true"):
            await one.fetch("SELECT $1::int + 1", (1,))
    finally:
        for connection in (one, other, third):
            await connection.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"statement_timeout": 1}, "the option pgbouncer=true is needed"),
        ({"lock_timeout": 1}, "the option pgbouncer=true is needed"),
        ({"pgbouncer": True, "server_settings": {"jit": "off"}}, "ALTER ROLE"),
    ],
)
async def test_a_setting_that_pgbouncer_refuses(bouncer: PgBouncer, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        async with Database(bouncer.url("test"), **options) as database:
            await database.check()
    assert words in str(caught.value)
    assert ("pgbouncer=true" in str(caught.value)) is ("pgbouncer" not in options)


@pytest.mark.parametrize("option", ["lock_timeout=1", "idle_in_transaction_timeout=1", "read_only=true"])
def test_a_setting_of_the_session_is_refused_at_once(option: str) -> None:
    with pytest.raises(ConfigurationError, match="ALTER ROLE"):
        Database(f"postgresql://h/d?pgbouncer=true&{option}")


async def test_in_session_mode_only_the_settings_need_it(postgresql: PostgreSQL) -> None:
    postgresql.empty_database("test")
    with pgbouncer.run(postgresql, {"pool_mode": "session"}) as bouncer:
        async with Database(bouncer.url("test")) as database:
            await database.create_all(registry)
            await Box.objects.bulk_create([Box(label=str(number)) for number in range(20)])
            assert await asyncio.gather(*(Box.objects.count() for _ in range(5))) == [20] * 5
            async with PubSub(PostgreSQLPubSub(database)) as pubsub, pubsub.subscribe("topic") as subscription:
                await pubsub.publish("topic", b"heard")
                assert (await anext(subscription)).payload == b"heard"
        async with Database(bouncer.url("test"), statement_timeout=5) as refused:
            with pytest.raises(DatabaseUnavailable, match="pgbouncer=true"):
                await refused.check()
        async with Database(bouncer.url("test"), statement_timeout=5, pgbouncer=True):
            assert await Box.objects.count() == 20


# The kernel's stores


class TestSessions(SessionStoreConformance):
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


class TestCache(CacheBackendConformance):
    """The kit, unchanged."""

    @pytest.fixture
    async def backend(self, url: str) -> AsyncIterator[CacheBackend]:
        async with Database(url) as database:
            cache = DatabaseCache(database)
            await cache.table.create()
            yield cache

    @pytest.fixture
    async def another(self, backend: CacheBackend, url: str) -> AsyncIterator[CacheBackend]:
        async with Database(url, alias="another") as database:
            yield DatabaseCache(database)


async def test_an_application(bouncer: PgBouncer, url: str) -> None:
    app = plugin_sandbox(
        "sessions",
        orm=covet_orm.plugin,
        settings={
            "app": {"secret_key": "k" * 32, "debug": True},
            "storage": {"default": {"url": bouncer.url("test"), "pgbouncer": True, "statement_timeout": 20}},
            "sessions": {"store": "database"},
            "cache": {"default": {"backend": "database"}},
        },
    )

    cache = CacheManager()

    @app.get("/visit")
    async def visit(request: Request) -> dict[str, int]:
        session = await request.session
        session["visits"] = session.get("visits", 0) + 1
        return {"visits": int(session["visits"]), "all": await cache.incr("visits")}

    async with TestClient(app) as client:
        assert [(await client.get("/visit")).json() for _ in range(3)] == [
            {"visits": number, "all": number} for number in (1, 2, 3)
        ]


# Notifications


async def test_a_message_is_published_through_pgbouncer(postgresql: PostgreSQL, database: Database) -> None:
    async with Database(postgresql.url("test"), alias="direct") as direct:
        listening = PostgreSQLPubSub(direct, create_table=True)
        async with PubSub(listening) as pubsub, pubsub.subscribe("topic") as subscription:
            publishing = PostgreSQLPubSub(database, create_table=True)
            for payload in (b"small", bytes(INLINE + 1)):
                await publishing.publish("topic", payload)
                with anyio.fail_after(10):
                    assert (await anext(subscription)).payload == payload


async def test_who_would_listen_through_pgbouncer_is_told(
    bouncer: PgBouncer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match=r"add a \[storage.ALIAS\]"):
        async with PubSub(PostgreSQLPubSub(database)):
            pytest.fail("it cannot listen")
    # Without the option it cannot be known in which mode it is.
    async with Database(bouncer.url("test"), alias="silent") as silent:
        with caplog.at_level(logging.WARNING, "covet.orm"):
            async with PubSub(PostgreSQLPubSub(silent)):
                pass
    assert [record.getMessage() for record in caplog.records if "PgBouncer" in record.getMessage()] == [
        "a pooler such as PgBouncer stands between the pub/sub and the database 'silent'; in transaction mode no "
        "notification comes through it: add a [storage.ALIAS] with the server's own address, and name it as `database` "
        "in [pubsub]"
    ]


async def test_who_listens_to_the_server_itself_is_told_nothing(
    postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database(postgresql.empty_database("test")) as direct, PubSub(PostgreSQLPubSub(direct)):
        pass
    assert caplog.records == []
