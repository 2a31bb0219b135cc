"""The pub/sub backend `postgresql`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from tests.services.postgresql import PostgreSQL
from tests.services.proxy import Proxy

import covet_orm.plugin
from covet.exceptions import ConfigurationError
from covet.pubsub import Gap, Message, PubSub, PubSubBackend, PubSubError, get_pubsub
from covet.testing import plugin_sandbox
from covet.testing.conformance.pubsub import PubSubConformance
from covet_orm.databases import Database
from covet_orm.pubsub import EVERY, INLINE, PostgreSQLPubSub, channel_of

pytestmark = pytest.mark.anyio


class TestKit(PubSubConformance):
    """The kit, unchanged."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def proxy(self, postgresql: PostgreSQL) -> Iterator[Proxy]:
        with Proxy(postgresql.port) as proxy:
            yield proxy

    @pytest.fixture
    async def backend(self, postgresql: PostgreSQL, proxy: Proxy) -> AsyncIterator[PubSubBackend]:
        async with Database(proxy.url(postgresql.empty_database("test"))) as database:
            backend = PostgreSQLPubSub(database)
            await backend.table.create()
            yield backend

    @pytest.fixture
    async def other(self, postgresql: PostgreSQL, backend: PubSubBackend) -> AsyncIterator[PubSubBackend]:
        async with Database(postgresql.url("test"), alias="other") as database:
            yield PostgreSQLPubSub(database)

    @pytest.fixture
    def cut(self, proxy: Proxy) -> Callable[[], Awaitable[object]]:
        async def cut() -> None:
            await anyio.to_thread.run_sync(proxy.cut)

        return cut


@pytest.fixture
async def database(postgresql: PostgreSQL) -> AsyncIterator[Database]:
    async with Database(postgresql.empty_database("test"), retry_after=0.05) as database:
        yield database


@pytest.fixture
async def backend(database: Database) -> PostgreSQLPubSub:
    backend = PostgreSQLPubSub(database, create_table=True)
    await backend.table.create()
    return backend


async def arrived(subscription: Any, count: int) -> list[Any]:
    found = []
    with anyio.fail_after(30):
        for _ in range(count):
            found.append(await anext(subscription))
    return found


async def until_sent(pubsub: PubSub, topic: str, payload: bytes) -> None:
    with anyio.fail_after(30):
        while True:
            try:
                await pubsub.publish(topic, payload)
            except PubSubError:
                await anyio.sleep(0.05)
            else:
                return


# Messages


async def test_no_message_is_lost_while_connected(postgresql: PostgreSQL, backend: PostgreSQLPubSub) -> None:
    """Of several publishers in another process's place, small messages among large ones, each in its order."""
    publishers, count = 5, 120
    async with Database(postgresql.url("test"), alias="other") as other:
        elsewhere = PostgreSQLPubSub(other)
        async with (
            PubSub(backend) as pubsub,
            PubSub(elsewhere) as publishing,
            pubsub.subscribe("busy", gaps=True, buffer=publishers * count) as subscription,
        ):

            async def publish(publisher: int) -> None:
                for number in range(count):
                    size = INLINE + 1 if number % 7 == 3 else number
                    await publishing.publish("busy", b"%d %d " % (publisher, number) + bytes(size))

            async with anyio.create_task_group() as group:
                for publisher in range(publishers):
                    group.start_soon(publish, publisher)
            found: dict[int, list[int]] = {publisher: [] for publisher in range(publishers)}
            for message in await arrived(subscription, publishers * count):
                assert isinstance(message, Message)
                sender, which = message.payload.split()[:2]
                found[int(sender)].append(int(which))
    assert found == {publisher: list(range(count)) for publisher in range(publishers)}


@pytest.mark.parametrize("size", [INLINE - 1, INLINE, INLINE + 1, 1_000_000])
async def test_a_message_of_any_size_arrives(backend: PostgreSQLPubSub, size: int) -> None:
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    async with PubSub(backend) as pubsub, pubsub.subscribe("size") as subscription:
        await pubsub.publish("size", payload)
        (message,) = await arrived(subscription, 1)
    assert message.payload == payload
    rows = await backend.database.fetch_value("SELECT count(*) FROM covet_messages")
    assert rows == (1 if size > INLINE else 0)


async def test_old_large_messages_are_removed(database: Database, backend: PostgreSQLPubSub) -> None:
    async with PubSub(backend) as pubsub:
        for _ in range(EVERY - 1):
            await pubsub.publish("size", bytes(INLINE + 1))
        await database.execute("UPDATE covet_messages SET expires = 1")
        await pubsub.publish("size", bytes(INLINE + 1))
        assert await database.fetch_value("SELECT count(*) FROM covet_messages") == 1


async def test_a_large_message_that_is_gone_is_a_gap(
    database: Database, backend: PostgreSQLPubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its subscriber was too late, and is told; what comes after it arrives."""
    fetch = backend.table.fetch

    async def late(name: Any, values: Any, *, reads: bool = False) -> Any:
        if name == ("message",):
            await database.execute("DELETE FROM covet_messages")
        return await fetch(name, values, reads=reads)

    monkeypatch.setattr(backend.table, "fetch", late)
    async with PubSub(backend) as pubsub, pubsub.subscribe("size", gaps=True) as subscription:
        await pubsub.publish("size", bytes(INLINE + 1))
        await pubsub.publish("size", b"small")
        gap, message = await arrived(subscription, 2)
    assert isinstance(gap, Gap)
    assert message.payload == b"small"


async def test_a_topic_that_was_given_up_gets_no_large_message_any_more(
    backend: PostgreSQLPubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that was being fetched."""
    fetch, fetching, go_on, found = backend.table.fetch, anyio.Event(), anyio.Event(), list[str]()

    async def slow(name: Any, values: Any, *, reads: bool = False) -> Any:
        rows = await fetch(name, values, reads=reads)
        if name == ("message",):
            fetching.set()
            await go_on.wait()
        return rows

    class Receiving:
        def deliver(self, topic: str, payload: bytes) -> None:
            found.append(topic)

        def gap(self, topic: str | None = None) -> None:
            found.append("gap")

    monkeypatch.setattr(backend.table, "fetch", slow)
    with anyio.fail_after(20):
        async with backend.connect(Receiving()):
            for topic in ("given up", "kept"):
                await backend.listen(topic)
            await backend.publish("given up", bytes(INLINE + 1))
            await fetching.wait()
            await backend.unlisten("given up")
            go_on.set()
            await backend.publish("kept", b"")
            while not found:  # noqa: ASYNC110 - the arrival has no event
                await anyio.sleep(0.01)
    assert found == ["kept"]


async def test_a_message_is_sent_whatever_becomes_of_the_transaction_around(
    database: Database, backend: PostgreSQLPubSub
) -> None:
    async with PubSub(backend) as pubsub, pubsub.subscribe("inside") as subscription:
        with suppress(ZeroDivisionError):
            async with database.transaction():
                await pubsub.publish("inside", b"1")
                await pubsub.publish("inside", bytes(INLINE + 1))
                raise ZeroDivisionError
        assert [len(each.payload) for each in await arrived(subscription, 2)] == [1, INLINE + 1]


@pytest.mark.parametrize("text", ["", "b***", "tx", "t", "x1", "\u00e9"])
async def test_a_notification_of_somebody_else_is_no_message(
    database: Database, backend: PostgreSQLPubSub, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async with PubSub(backend) as pubsub, pubsub.subscribe("mine") as subscription:
        await database.query("SELECT pg_notify($1, $2)", (channel_of("mine"), text))
        await pubsub.publish("mine", b"1")
        (message,) = await arrived(subscription, 1)
    assert message.payload == b"1"
    assert "that is no message" in caplog.text


# Faults


async def test_a_server_that_was_killed_is_listened_to_again(
    postgresql: PostgreSQL, backend: PostgreSQLPubSub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "covet.orm")
    async with (
        PubSub(backend) as pubsub,
        pubsub.subscribe("one", gaps=True) as one,
        pubsub.subscribe("two", gaps=True) as two,
    ):
        await pubsub.publish("one", b"before")
        assert (await arrived(one, 1))[0].payload == b"before"
        for _ in range(2):
            await anyio.to_thread.run_sync(postgresql.kill)
            with anyio.fail_after(20):
                while backend.connected:  # noqa: ASYNC110 - the loss has no event
                    await anyio.sleep(0.01)
            with pytest.raises(PubSubError):
                await pubsub.publish("one", b"lost")
            with pytest.raises(PubSubError):
                async with pubsub.subscribe("three"):
                    pytest.fail("it cannot be listened to")
            await anyio.to_thread.run_sync(postgresql.start)
            for subscription, topic in ((one, "one"), (two, "two")):
                assert (await arrived(subscription, 1))[0] == Gap(None, None, "reconnected")
                await until_sent(pubsub, topic, topic.encode())
                assert (await arrived(subscription, 1))[0].payload == topic.encode()
        async with pubsub.subscribe("three") as three:
            await pubsub.publish("three", bytes(INLINE + 1))
            assert len((await arrived(three, 1))[0].payload) == INLINE + 1
    assert "was lost" in caplog.text
    assert "is listened to again" in caplog.text


async def test_a_connection_that_falls_silent_is_noticed(postgresql: PostgreSQL) -> None:
    """Nobody says that it is lost: the answer to a question does not come."""
    with Proxy(postgresql.port) as proxy:
        async with Database(proxy.url(postgresql.empty_database("test")), retry_after=0.05) as database:
            backend = PostgreSQLPubSub(database, heartbeat=0.1)
            async with PubSub(backend) as pubsub, pubsub.subscribe("quiet", gaps=True) as subscription:
                await anyio.to_thread.run_sync(proxy.stall)
                with anyio.fail_after(30):
                    while backend.connected:  # noqa: ASYNC110 - the loss has no event
                        await anyio.sleep(0.05)
                await anyio.to_thread.run_sync(proxy.cut)
                await anyio.to_thread.run_sync(proxy.heal)
                assert isinstance((await arrived(subscription, 1))[0], Gap)
                await until_sent(pubsub, "quiet", b"1")
                assert (await arrived(subscription, 1))[0].payload == b"1"


async def test_a_session_that_was_ended_by_an_administrator_is_made_again(
    database: Database, backend: PostgreSQLPubSub
) -> None:
    async with PubSub(backend) as pubsub, pubsub.subscribe("topic", gaps=True) as subscription:
        for number in range(3):
            await database.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' "
                "AND pid <> pg_backend_pid()"
            )
            assert isinstance((await arrived(subscription, 1))[0], Gap)
            await until_sent(pubsub, "topic", b"%d" % number)
            assert (await arrived(subscription, 1))[0].payload == b"%d" % number


async def test_nothing_is_left_on_the_server(database: Database, backend: PostgreSQLPubSub) -> None:
    async with PubSub(backend) as pubsub, pubsub.subscribe("topic"):
        pass
    with anyio.fail_after(20):
        listening = "query ILIKE '%LISTEN%' AND pid <> pg_backend_pid()"
        left = f"SELECT count(*) FROM pg_stat_activity WHERE {listening}"
        while await database.fetch_value(left):  # noqa: ASYNC110 - the server tells when it is asked
            await anyio.sleep(0.02)


# What is refused


def test_it_is_for_postgresql() -> None:
    with pytest.raises(ConfigurationError, match="needs a database of PostgreSQL, and 'default' is one of sqlite"):
        PostgreSQLPubSub(Database("sqlite://"))
    with pytest.raises(ValueError, match="heartbeat"):
        PostgreSQLPubSub(Database("postgresql://host/name"), heartbeat=0)


async def test_behind_pgbouncer_it_says_what_to_do(postgresql: PostgreSQL) -> None:
    """Through which notifications would silently get lost."""
    async with Database(postgresql.empty_database("test") + "?pgbouncer=true") as database:
        with pytest.raises(ConfigurationError, match=r"add a \[storage.ALIAS\]"):
            async with PubSub(PostgreSQLPubSub(database)):
                pytest.fail("it cannot listen")


async def test_a_missing_table_says_the_line_to_type(database: Database) -> None:
    async with PubSub(PostgreSQLPubSub(database)) as pubsub:
        await pubsub.publish("small", b"needs none")
        with pytest.raises(PubSubError, match="covet db create"):
            await pubsub.publish("large", bytes(INLINE + 1))


async def test_a_server_that_is_not_there_is_told_at_the_start(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    await anyio.to_thread.run_sync(postgresql.stop)
    database = Database(url)
    with pytest.raises(PubSubError, match="cannot listen"):
        async with PubSub(PostgreSQLPubSub(database)):
            pytest.fail("it cannot listen")


# An application


async def test_an_application_has_it(postgresql: PostgreSQL) -> None:
    app = plugin_sandbox(
        "pubsub",
        orm=covet_orm.plugin,
        settings={
            "app": {"secret_key": "k" * 32, "debug": True},
            "storage": {"default": {"url": postgresql.empty_database("test")}},
            "pubsub": {"default": {"backend": "postgresql"}},
        },
    )
    async with app.running():
        pubsub = get_pubsub()
        async with pubsub.subscribe("topic") as subscription:
            await pubsub.publish_json("topic", {"id": 7})
            await pubsub.publish("topic", bytes(INLINE + 1))
            small, large = await arrived(subscription, 2)
    assert small.json() == {"id": 7}
    assert len(large.payload) == INLINE + 1
