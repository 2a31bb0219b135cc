"""Reads on replicas of real servers: which server is asked, and that what was written is seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

import pytest
from tests.services.databases import Databases
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

import covet
import covet_orm.plugin
from covet import Covet
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await
from covet_orm import fields
from covet_orm.cache import DatabaseCache
from covet_orm.databases import Database
from covet_orm.events import QueryDone
from covet_orm.exceptions import DatabaseUnavailable, ReadOnlyDatabase
from covet_orm.models import Model, Registry
from covet_orm.observing import unwatch, watch
from covet_orm.replicas import PrimaryDemoted, ReplicaLeft, ReplicaReturned, read_session
from covet_orm.replicas.routing import ReadRouter

pytestmark = pytest.mark.anyio

E = TypeVar("E")
OFTEN: dict[str, Any] = {"replica_check": 0.05, "max_lag": 0.3}
registry = Registry()


class Note(Model):
    text = fields.TextField()

    class Meta:
        db_table = "replica_notes"
        registry = registry


class Servers:
    """A primary and one replica, and how one asks them."""

    def __init__(self, primary: Any, replica: Any) -> None:
        self.primary = primary
        self.replica = replica
        self.postgresql = isinstance(primary, PostgreSQL)
        # A server tells its port; so it is known who answered.
        self.port = "SELECT current_setting('port')::int" if self.postgresql else "SELECT @@port"
        self.url = primary.url("test")
        self.values = "($1, $2)" if self.postgresql else "(%s, %s)"

    @asynccontextmanager
    async def database(self, *replicas: str, **options: Any) -> AsyncIterator[Database]:
        """The database with its replica, and with others."""
        options = {**OFTEN, **options}
        async with Database(self.url, read_replicas=[self.replica.url("test"), *replicas], **options) as database:
            yield database

    async def answers(self, database: Database) -> str:
        """Who answers a read."""
        port = await database.fetch_value(self.port)
        return {self.primary.port: "primary", self.replica.port: "replica"}.get(port, str(port))


@pytest.fixture(scope="module", params=["postgresql-15", "postgresql-18", "mariadb"])
def running(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Servers]:
    name: str = request.param
    primary = databases.get(name)
    assert isinstance(primary, (PostgreSQL, MariaDB))
    primary.empty_database("test")
    with primary.replica() as replica:
        yield Servers(primary, replica)


@pytest.fixture
def servers(running: Servers) -> Servers:
    """Both running, the replica in step, and an empty table `t`."""
    for server in (running.primary, running.replica):
        if not server.running:
            server.start()
    running.replica.resume_replay()
    running.primary.execute("DROP TABLE IF EXISTS t, replica_notes, covet_heartbeat", database="test")
    running.primary.execute("CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL)", database="test")
    running.replica.catch_up()
    return running


def router_of(database: Database) -> ReadRouter:
    (lane,) = database._lanes.values()
    assert lane.replicated is not None
    return lane.replicated.router


async def until(true: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Wait until something is so; a time is only where a test ends that would never."""
    async with asyncio.timeout(20):
        while True:
            found = true()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(what)


class Listener:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @covet.hookimpl
    def covet_event(self, event: object) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


# Where statements go


async def test_reads_go_to_the_replica_and_all_else_to_the_primary(servers: Servers) -> None:
    async with servers.database() as database:
        assert await servers.answers(database) == "replica"
        async with database.connection(reads=True) as connection:
            assert (await connection.fetch(servers.port))[0][0] == servers.replica.port
        async with database.connection() as connection:
            assert (await connection.fetch(servers.port))[0][0] == servers.primary.port
        async with database.transaction():
            assert await servers.answers(database) == "primary"
        async with database.transaction(read_only=True):
            assert await servers.answers(database) == "primary"
        assert await database.fetch_value(f"{servers.port} FOR UPDATE".replace("FOR", "FROM t FOR")) is None
        assert await servers.answers(database.primary()) == "primary"
        assert database.primary() is database.primary()
        assert await servers.answers(database) == "replica"


async def test_what_is_asked_of_the_primary_of_a_watched_database_is_told_and_asked_there(servers: Servers) -> None:
    """A database that is watched has other methods, which ask replicas."""
    async with servers.database(slow_query=3600) as database:
        heard: list[QueryDone] = []
        tell = heard.append
        watch(database, tell)
        await database.create_all(registry)
        note = await Note.objects.create(text="first")
        servers.replica.catch_up()
        servers.replica.pause_replay()
        assert await servers.answers(database) == "replica"
        assert await servers.answers(database.primary()) == "primary"
        assert await Note.objects.using("primary").filter(pk=note.pk).update(text="second") == 1
        with read_session():
            heard.clear()
            assert (await Note.objects.get(pk=note.pk)).text == "first"
            assert (await Note.objects.using("primary").get(pk=note.pk)).text == "second"
            assert await Note.objects.using("primary").filter(pk=note.pk).update(text="third") == 1
            assert len(heard) == 3
        unwatch(database, tell)
        await Note.objects.using("primary").count()
        assert len(heard) == 3


async def test_a_store_of_the_primary_does_not_wait_for_the_transaction_around_it(servers: Servers) -> None:
    """It knows that the caller holds a connection already."""
    servers.primary.execute("DROP TABLE IF EXISTS covet_cache", database="test")
    async with servers.database(max_size=1, acquire_timeout=2) as database:
        cache = DatabaseCache(database.primary(), create_table=True)
        await cache.set("key", b"before", None)
        async with database.transaction():
            await cache.set("key", b"value", None)
        assert await cache.get("key") == b"value"
    servers.primary.execute("DROP TABLE covet_cache", database="test")


async def test_models_are_read_from_the_replica_unless_the_primary_is_asked_for(servers: Servers) -> None:
    async with servers.database() as database:
        await database.create_all(registry)
        note = await Note.objects.create(text="first")
        assert [found.text for found in await Note.objects.all()] == ["first"]
        servers.replica.catch_up()
        servers.replica.pause_replay()
        note.text = "second"
        await note.save()
        with read_session():
            # Who wrote nothing sees what the replica has.
            assert (await Note.objects.get(pk=note.pk)).text == "first"
            assert (await Note.objects.using("primary").get(pk=note.pk)).text == "second"
            async with database.transaction():
                again = await Note.objects.using("primary").select_for_update().get(pk=note.pk)
                again.text = "third"
                await again.save()
                assert (await Note.objects.get(pk=note.pk)).text == "third"
        # The one who wrote sees it, and the replica is not it.
        assert (await Note.objects.get(pk=note.pk)).text == "third"
        async for found in Note.objects.using("primary").iterator():
            assert found.text == "third"


async def test_without_replicas_nothing_is_routed_noted_or_wrapped(servers: Servers) -> None:
    async with Database(servers.url) as database:
        (lane,) = (await database._lane(),)
        assert lane.routed is lane.readers is lane.writers
        assert lane.replicated is None
        assert database.primary() is database
        assert database.write_token() == ""
        await database.read_after("1f:primary")
        async with database.connection() as connection:
            assert type(connection).__module__.startswith("covet_orm.drivers")
        assert await servers.answers(database) == "primary"


# What was written is read


async def test_what_was_written_is_read_whoever_is_asked(servers: Servers) -> None:
    async with servers.database() as database:
        asked = []
        for number in range(200):
            await database.execute(f"INSERT INTO t VALUES {servers.values}", [number, number])
            assert await database.fetch_value("SELECT max(a) FROM t") == number
            asked.append(await servers.answers(database))
        # Most of the time the replica is waited for.
        assert asked.count("replica") > 100
        async with database.transaction():
            await database.execute("UPDATE t SET b = -1")
        assert await database.fetch_value("SELECT count(*) FROM t WHERE b = -1") == 200


async def test_a_replica_without_what_was_written_is_not_asked_for_it(servers: Servers) -> None:
    async with servers.database(max_lag=None) as database:
        await database.execute(f"INSERT INTO t VALUES {servers.values}", [1, 1])
        assert await database.fetch_value("SELECT count(*) FROM t") == 1
        assert await servers.answers(database) == "replica"
        servers.replica.pause_replay()
        await database.execute(f"INSERT INTO t VALUES {servers.values}", [2, 2])
        assert await database.fetch_value("SELECT count(*) FROM t") == 2
        token = database.write_token()
        with read_session():
            assert await database.fetch_value("SELECT count(*) FROM t") == 1
            await database.read_after(token)
            assert await database.fetch_value("SELECT count(*) FROM t") == 2
            assert await servers.answers(database) == "primary"
        servers.replica.resume_replay()
        # The token is kept; the replica is asked as soon as it has what the token tells of.
        await until(lambda: _is(servers, database, "replica"), "the replica is asked again")
        assert await database.fetch_value("SELECT count(*) FROM t") == 2
        assert database.write_token().partition(":")[2] == token.partition(":")[2]


async def _is(servers: Servers, database: Database, who: str) -> bool:
    return await servers.answers(database) == who


async def test_a_task_sees_what_those_that_it_started_wrote(servers: Servers) -> None:
    async with servers.database(max_lag=None) as database:
        servers.replica.pause_replay()

        async def write(number: int) -> None:
            await database.execute(f"INSERT INTO t VALUES {servers.values}", [number, number])

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(write(number))
        assert await database.fetch_value("SELECT count(*) FROM t") == 5


async def test_a_write_that_was_cut_off_is_looked_for_on_the_primary(servers: Servers) -> None:
    async with servers.database(max_lag=None) as database:
        router = router_of(database)

        async def write() -> None:
            with read_session():
                session = router.session()
                number = next(numbers)
                try:
                    await database.execute(f"INSERT INTO t VALUES {servers.values}", [number, 0])
                finally:
                    written.append((number, session.needs_primary, session.position is not None))

        async def check() -> None:
            for number, primary, position in written[-1:]:
                there = servers.primary.execute(f"SELECT a FROM t WHERE a = {number}", database="test")
                assert primary or position or not there
                uncertain.append(primary and bool(there))
            for pool in database.pools():
                assert pool.stats.in_use == 0
            assert all(replica.outstanding == 0 for replica in router.replicas)

        written: list[tuple[int, bool, bool]] = []
        uncertain: list[bool] = []
        numbers = count()
        assert await at_every_await(write, check) > 2
        assert any(uncertain)


async def test_reading_can_be_cancelled_anywhere(servers: Servers) -> None:
    async with servers.database() as database:
        router = router_of(database)

        async def work() -> None:
            with read_session():
                async with database.connection(reads=True) as connection:
                    asked.append((await connection.fetch(servers.port))[0][0])
                number = next(numbers)
                await database.execute(f"INSERT INTO t VALUES {servers.values}", [number, 0])
                assert await database.fetch_value(f"SELECT b FROM t WHERE a = {number}") == 0

        async def check() -> None:
            for pool in database.pools():
                assert pool.stats.in_use == 0
            assert all(replica.outstanding == 0 for replica in router.replicas)

        asked: list[int] = []
        numbers = count()
        assert await at_every_await(work, check) > 3
        assert set(asked) == {servers.replica.port}


async def test_a_request_reads_what_it_wrote_and_no_other_waits_for_it(servers: Servers) -> None:
    listener = Listener()
    storage = {"url": servers.url, "read_replicas": [servers.replica.url("test")], "replica_check": 0.05}
    app = plugin_sandbox(orm=covet_orm.plugin, listener=listener, settings={"storage": {"default": storage}})

    def database() -> Database:
        found = covet.current_app().storage["default"]
        assert isinstance(found, Database)
        return found

    @app.post("/write/{number:int}")
    async def write(number: int) -> dict[str, Any]:
        db = database()
        await asyncio.gather(db.execute(f"INSERT INTO t VALUES {servers.values}", [number, number]))
        return {"count": await db.fetch_value("SELECT count(*) FROM t"), "token": db.write_token()}

    @app.get("/read")
    async def read(after: str = "") -> dict[str, Any]:
        db = database()
        await db.read_after(after)
        return {"count": await db.fetch_value("SELECT count(*) FROM t"), "who": await servers.answers(db)}

    async with TestClient(app) as client:
        servers.replica.pause_replay()
        answer = (await client.post("/write/1")).json()
        assert answer["count"] == 1
        assert (await client.get("/read")).json() == {"count": 0, "who": "replica"}
        after = (await client.get("/read", params={"after": answer["token"]})).json()
        assert after == {"count": 1, "who": "primary"}
        servers.replica.resume_replay()


# Replicas that fail


async def test_a_replica_that_lags_leaves_and_returns(servers: Servers) -> None:
    listener = Listener()
    app = Covet({}, plugins={"listener": listener}, installed_plugins=False)
    async with app.running(), servers.database() as database:
        (replica,) = router_of(database).replicas
        # Idle, nobody is late.
        await asyncio.sleep(0.5)
        assert replica.away is None
        assert replica.lag == 0.0
        servers.replica.pause_replay()
        servers.primary.execute("INSERT INTO t VALUES (1, 1)", database="test")
        await until(lambda: replica.away == "lag", "the replica leaves")
        assert await servers.answers(database) == "primary"
        servers.replica.resume_replay()
        await until(lambda: replica.away is None, "the replica returns")
        assert await servers.answers(database) == "replica"
    assert [(event.replica, event.reason) for event in listener.of(ReplicaLeft)] == [(replica.name, "lag")]
    (left,), (returned,) = listener.of(ReplicaLeft), listener.of(ReplicaReturned)
    assert left.lag is not None
    assert left.lag > 0.3
    assert returned.seconds > 0
    assert returned.replica == replica.name


async def test_a_heartbeat_finds_out_a_replica_that_gets_nothing_while_nobody_writes(servers: Servers) -> None:
    async with servers.database(heartbeat=True) as database:
        (replica,) = router_of(database).replicas
        assert await database.primary().fetch_value("SELECT count(*) FROM covet_heartbeat") == 1
        servers.replica.pause_replay()
        await until(lambda: replica.away == "lag", "the replica leaves")
        servers.replica.resume_replay()
        await until(lambda: replica.away is None, "the replica returns")


async def test_reads_go_on_while_the_replica_is_killed_and_it_returns(servers: Servers) -> None:
    async with servers.database() as database:
        await database.execute(f"INSERT INTO t VALUES {servers.values}", [1, 1])
        done = 0
        going = True

        async def read() -> None:
            nonlocal done
            while going:
                assert await database.fetch_value("SELECT count(*) FROM t") == 1
                done += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(read())
            await asyncio.sleep(0.2)
            servers.replica.kill()
            (replica,) = router_of(database).replicas
            await until(lambda: replica.away is not None, "the replica leaves")
            before = done
            await until(lambda: done > before + 50, "the primary is asked")
            servers.replica.start()
            await until(lambda: replica.away is None, "the replica returns")
            going = False
        assert await servers.answers(database) == "replica"


async def test_a_read_whose_session_was_ended_is_asked_again(servers: Servers) -> None:
    async with servers.database() as database:
        sleep = (
            "SELECT 7 FROM (SELECT pg_sleep(1)) AS s" if servers.postgresql else "SELECT 7 FROM (SELECT sleep(1)) AS s"
        )
        await servers.answers(database)
        (replica,) = router_of(database).replicas
        (connection,) = [slot.connection for slot in replica.pool._idle]
        reading = asyncio.create_task(database.fetch_value(sleep))
        await until(lambda: replica.outstanding == 1, "the replica is asked")
        await asyncio.sleep(0.1)
        ended = connection.server_id
        servers.replica.execute(f"SELECT pg_terminate_backend({ended})" if servers.postgresql else f"KILL {ended}")
        assert await reading == 7
        await until(lambda: replica.away is None, "the replica returns")
        assert await servers.answers(database) == "replica"


async def test_without_a_replica_at_the_beginning_reads_go_to_the_primary(servers: Servers) -> None:
    servers.replica.stop()
    async with servers.database() as database:
        assert await servers.answers(database) == "primary"
        servers.replica.start()
        await until(lambda: _is(servers, database, "replica"), "the replica is asked")


async def test_reads_go_on_while_the_primary_is_gone(servers: Servers) -> None:
    async with servers.database() as database:
        await database.execute(f"INSERT INTO t VALUES {servers.values}", [1, 1])
        servers.replica.catch_up()
        assert await servers.answers(database) == "replica"
        servers.primary.kill()
        assert await database.fetch_value("SELECT count(*) FROM t") == 1
        assert await servers.answers(database) == "replica"
        with pytest.raises(DatabaseUnavailable):
            await database.execute(f"INSERT INTO t VALUES {servers.values}", [2, 2])
        # It was not sent, so that the replica is right.
        assert await database.fetch_value("SELECT count(*) FROM t") == 1
        servers.primary.start()


async def test_what_is_no_replica_is_never_asked(servers: Servers) -> None:
    async with Database(servers.url, read_replicas=[servers.url], **OFTEN) as database:
        (replica,) = router_of(database).replicas
        assert replica.away == "promoted"
        await servers.answers(database)
        assert replica.pool.stats.made == 0


async def test_a_replica_that_is_promoted_is_not_asked_any_more(servers: Servers) -> None:
    with servers.primary.replica() as other:
        other.catch_up()
        async with Database(servers.url, read_replicas=[other.url("test")], replica_check=600.0) as database:
            assert await database.fetch_value(servers.port) == other.port
            other.promote()
            router = router_of(database)
            if servers.postgresql:
                # The server tells of it by itself, with its next answer.
                await database.fetch_value(servers.port)
                await until(lambda: router.replicas[0].away == "promoted", "it left")
            else:
                router.look.set()
                await until(lambda: router.replicas[0].away == "promoted", "it left")
            assert await servers.answers(database) == "primary"


async def test_a_demoted_primary_gets_new_connections_and_no_more_of_the_old(servers: Servers) -> None:
    if servers.postgresql:
        async with servers.database() as database:
            # A transaction that only reads refuses as well, and says nothing about the server.
            before = router_of(database).primary.pool.stats.made
            with pytest.raises(ReadOnlyDatabase):
                async with database.transaction(read_only=True):
                    await database.execute("UPDATE t SET b = 1")
            await database.execute("UPDATE t SET b = 1")
            assert router_of(database).primary.pool.stats.made == max(before, 1)
        return
    listener = Listener()
    app = Covet({}, plugins={"listener": listener}, installed_plugins=False)
    async with app.running(), servers.database(replica_check=600.0) as database:
        await database.execute("UPDATE t SET b = 1")
        servers.primary.execute("SET GLOBAL read_only = 1")
        try:
            with pytest.raises(ReadOnlyDatabase):
                await database.execute("UPDATE t SET b = 1")
            # A new connection is refused for what the server is, before anything is sent to it.
            with pytest.raises(DatabaseUnavailable, match="is a replica now"):
                await database.execute("UPDATE t SET b = 1")
        finally:
            servers.primary.execute("SET GLOBAL read_only = 0")
        await until(lambda: _writes(database), "the primary is written to")
    assert listener.of(PrimaryDemoted) == [PrimaryDemoted("default")]


async def _writes(database: Database) -> bool:
    try:
        await database.execute("UPDATE t SET b = 1")
    except DatabaseUnavailable:
        return False
    return True


# Several replicas


async def test_a_session_stays_with_one_replica_and_sessions_are_shared_out(servers: Servers) -> None:
    with servers.primary.replica() as other:
        other.catch_up()
        async with servers.database(other.url("test")) as database:
            seen = []
            for _ in range(6):
                with read_session():
                    asked = {await database.fetch_value(servers.port) for _ in range(5)}
                    assert len(asked) == 1
                    seen += asked
            assert sorted(seen) == sorted([servers.replica.port, other.port] * 3)
            # One that is gone is replaced by the other, and the primary is not needed.
            with read_session():
                assert await database.fetch_value(servers.port) in seen
                other.kill()
                servers.primary.execute("INSERT INTO t VALUES (9, 9)", database="test")
                servers.replica.catch_up()
                assert [await database.fetch_value(servers.port) for _ in range(5)] == [servers.replica.port] * 5


async def test_a_token_is_checked_on_the_replica_that_is_asked_and_not_on_another(servers: Servers) -> None:
    with servers.primary.replica() as other:
        other.catch_up()
        async with servers.database(other.url("test"), max_lag=None) as database:
            other.pause_replay()
            await database.execute(f"INSERT INTO t VALUES {servers.values}", [1, 1])
            servers.replica.catch_up()
            token = database.write_token()
            for _ in range(10):
                with read_session():
                    await database.read_after(token)
                    assert await database.fetch_value("SELECT count(*) FROM t") == 1
            other.resume_replay()


async def test_a_weight_is_how_much_a_replica_takes(servers: Servers) -> None:
    with servers.primary.replica() as other:
        other.catch_up()
        async with servers.database(other.url("test"), replica_weights=[1, 3], max_size=40) as database:
            sleep = "SELECT pg_sleep(0.3)" if servers.postgresql else "SELECT sleep(0.3)"

            async def read() -> None:
                with read_session():
                    await database.fetch_value(sleep)

            async with asyncio.TaskGroup() as group:
                for _ in range(16):
                    group.create_task(read())
                await asyncio.sleep(0.1)
                assert [replica.outstanding for replica in router_of(database).replicas] == [4, 12]


# What only PostgreSQL has


async def test_a_role_without_privileges_is_enough(databases: Databases) -> None:
    primary = databases.postgresql(15)
    primary.empty_database("test")
    primary.execute("DROP ROLE IF EXISTS plain")
    primary.execute("CREATE ROLE plain LOGIN PASSWORD 'secret'")
    primary.execute("CREATE TABLE t (a int); GRANT ALL ON t TO plain", database="test")
    with primary.replica() as replica:
        replica.catch_up()
        urls = [server.url("test", user="plain") for server in (primary, replica)]
        async with Database(urls[0], read_replicas=[urls[1]], **OFTEN) as database:
            await database.execute("INSERT INTO t VALUES (1)")
            assert await database.fetch_value("SELECT count(*) FROM t") == 1
            assert await database.fetch_value("SELECT pg_is_in_recovery()")
    primary.execute("DROP OWNED BY plain", database="test")
    primary.execute("DROP ROLE plain")


async def test_a_heartbeat_that_is_refused_leaves_the_lag_measured(databases: Databases) -> None:
    primary = databases.postgresql(15)
    primary.empty_database("test")
    primary.execute("DROP ROLE IF EXISTS plain")
    primary.execute("CREATE ROLE plain LOGIN PASSWORD 'secret'")
    primary.execute("CREATE TABLE t (a int); REVOKE CREATE ON SCHEMA public FROM PUBLIC", database="test")
    with primary.replica() as replica:
        replica.catch_up()
        urls = [server.url("test", user="plain") for server in (primary, replica)]
        async with Database(urls[0], read_replicas=[urls[1]], heartbeat=True, **OFTEN) as database:
            (watched,) = router_of(database).replicas
            assert watched.lag == 0.0
            replica.pause_replay()
            primary.execute("INSERT INTO t VALUES (1)", database="test")
            await until(lambda: watched.away == "lag", "the replica leaves")
            assert primary.execute("SELECT to_regclass('covet_heartbeat') AS there", database="test")[0][0] is None
    primary.execute("DROP ROLE plain")


async def test_what_a_replica_cannot_do_is_done_by_the_primary(databases: Databases) -> None:
    primary = databases.postgresql(15)
    primary.empty_database("test")
    primary.execute("CREATE SEQUENCE s", database="test")
    with primary.replica() as replica:
        replica.catch_up()
        async with Database(primary.url("test"), read_replicas=[replica.url("test")], **OFTEN) as database:
            assert await database.fetch_value("SELECT nextval('s')") == 1
            assert [each.away for each in router_of(database).replicas] == [None]


async def test_a_commit_that_is_not_flushed_has_a_position_all_the_same(databases: Databases) -> None:
    primary = databases.postgresql(15)
    primary.empty_database("test")
    primary.execute("CREATE TABLE t (a int)", database="test")
    with primary.replica() as replica:
        replica.catch_up()
        options: dict[str, Any] = {**OFTEN, "server_settings": {"synchronous_commit": "off"}}
        async with Database(primary.url("test"), read_replicas=[replica.url("test")], **options) as database:
            for number in range(50):
                await database.execute("INSERT INTO t VALUES ($1)", [number])
                assert await database.fetch_value("SELECT count(*) FROM t") == number + 1


async def test_after_a_failover_only_those_that_follow_the_new_primary_are_asked(databases: Databases) -> None:
    old = databases.postgresql(15)
    old.empty_database("test")
    old.execute("CREATE TABLE t (a int)", database="test")
    with old.replica() as new, old.replica() as left_behind:
        for each in (new, left_behind):
            each.catch_up()
        new.promote()
        with new.replica() as follower:
            follower.catch_up()
            # The old primary lives on and writes, and one replica still follows it: further in the log, and all wrong.
            while old.position() < new.position() + 1_000_000:
                old.execute("INSERT INTO t VALUES (1)", database="test")
                old.execute("SELECT pg_switch_wal()")
            left_behind.catch_up()
            replicas = [left_behind.url("test"), follower.url("test")]
            async with Database(new.url("test"), read_replicas=replicas, replica_check=0.05) as database:
                await database.execute("INSERT INTO t VALUES (1)")
                assert [each.away for each in router_of(database).replicas] == ["foreign", None]
                assert ":2:" in database.write_token()
                assert await database.fetch_value("SELECT count(*) FROM t") == 1
                assert await database.fetch_value("SELECT current_setting('port')::int") == follower.port
                token = database.write_token()
        # Even where nobody knows the new primary, its token is not taken for one of the old history.
        async with Database(old.url("test"), read_replicas=[left_behind.url("test")]) as database:
            with read_session():
                assert await database.fetch_value("SELECT current_setting('port')::int") == left_behind.port
                await database.read_after(token)
                assert await database.fetch_value("SELECT current_setting('port')::int") == old.port
