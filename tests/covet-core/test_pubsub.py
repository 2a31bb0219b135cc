"""Pub/sub: what a subscriber is given, what it loses, and that nothing stays behind."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

import covet
from covet import ConfigurationError, Covet, EventSourceResponse, NoApplicationError
from covet.backends import Backend
from covet.builtin.pubsub import MemoryPubSub
from covet.pubsub import (
    Gap,
    Message,
    PayloadTooLarge,
    PubSub,
    PubSubBackend,
    PubSubClosed,
    PubSubError,
    Receiver,
    SlowSubscriber,
    Subscription,
    get_pubsub,
)
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await

pytestmark = pytest.mark.anyio


async def taken(subscription: Subscription[Any]) -> list[Any]:
    """Everything that a subscription has now: payloads, and gaps as they are."""
    found: list[Any] = []
    with anyio.CancelScope() as scope:
        scope.deadline = anyio.current_time() + 0.01
        async for item in subscription:
            found.append(item.payload if isinstance(item, Message) else item)
    return found


def lost(count: int, topic: str | None = "t") -> Gap:
    return Gap(topic, count, "overflow")


# Messages


async def test_publish_and_subscribe() -> None:
    async with PubSub(MemoryPubSub()) as pubsub:
        async with pubsub.subscribe("t") as subscription:
            await pubsub.publish("t", b"1")
            await pubsub.publish("other", b"2")
            await pubsub.publish_json("t", {"a": [1]})
            assert await anext(subscription) == Message("t", b"1")
            message = await anext(subscription)
            assert message.json() == {"a": [1]}
            assert message.json(dict[str, list[int]]) == {"a": [1]}
            assert subscription.topics == ("t",)
        assert pubsub.subscribers("t") == 0


async def test_a_message_costs_its_topics_subscribers_alone() -> None:
    async with PubSub(MemoryPubSub()) as pubsub:
        seen = []

        class Counted(dict[str, Any]):
            def get(self, key: str, default: Any = None) -> Any:
                seen.append(key)
                return super().get(key, default)

            def __iter__(self) -> Any:
                raise AssertionError("all topics are looked at")

        async with pubsub.subscribe("one"), pubsub.subscribe("two"):
            pubsub._channels = Counted(pubsub._channels)
            await pubsub.publish("one", b"")
            assert seen == ["one"]
            pubsub._channels = dict(pubsub._channels.items())


@pytest.mark.parametrize("topic", ["", "\ud800", "x" * 1001, "\u00e9" * 501])
async def test_what_is_no_topic(topic: str) -> None:
    async with PubSub(MemoryPubSub()) as pubsub:
        with pytest.raises(PubSubError, match="a topic "):
            await pubsub.publish(topic, b"")
        with pytest.raises(PubSubError, match="a topic "):
            async with pubsub.subscribe("fine", topic):
                raise AssertionError("unreachable: it is refused")
        assert pubsub.subscribers("fine") == 0
        with pytest.raises(ValueError, match="at least one topic"):
            async with pubsub.subscribe():
                raise AssertionError("unreachable: it is refused")


async def test_a_large_message_is_refused() -> None:
    class Small(MemoryPubSub):
        max_payload: int | None = 10

    async with PubSub(Small(), max_bytes=20) as pubsub:
        await pubsub.publish("t", b"x" * 10)
        with pytest.raises(PayloadTooLarge, match=r"a message to 't' has 11 bytes, and 10 are allowed; publish where"):
            await pubsub.publish("t", b"x" * 11)
    async with PubSub(MemoryPubSub(), max_bytes=20) as pubsub:
        with pytest.raises(PayloadTooLarge, match="21 bytes, and 20 are allowed"):
            await pubsub.publish("t", b"x" * 21)


# Backpressure


async def test_the_oldest_are_dropped_and_told() -> None:
    async with (
        PubSub(MemoryPubSub(), buffer=3) as pubsub,
        pubsub.subscribe("t") as plain,
        pubsub.subscribe("t", gaps=True) as told,
    ):
        for number in range(5):
            await pubsub.publish("t", b"%d" % number)
        assert (len(plain), plain.dropped, len(told), told.dropped) == (3, 2, 3, 2)
        assert await taken(plain) == [b"2", b"3", b"4"]
        assert await taken(told) == [lost(2), b"2", b"3", b"4"]
        await pubsub.publish("t", b"5")
        assert await taken(told) == [b"5"], "a gap is told once"


async def test_the_newest_are_dropped_and_told() -> None:
    async with (
        PubSub(MemoryPubSub(), buffer=2, overflow="drop_newest") as pubsub,
        pubsub.subscribe("t") as plain,
        pubsub.subscribe("t", gaps=True) as told,
    ):
        for number in range(4):
            await pubsub.publish("t", b"%d" % number)
        assert await anext(told) == Message("t", b"0")
        await pubsub.publish("t", b"4")
        assert await taken(told) == [b"1", lost(2), b"4"]
        assert (told.dropped, plain.dropped) == (2, 3)
        for number in range(3):
            await pubsub.publish("t", b"%d" % number)
        assert await taken(told) == [b"0", b"1", lost(1)], "also when nothing comes after it"


async def test_a_slow_subscriber_is_disconnected() -> None:
    async with (
        PubSub(MemoryPubSub(), buffer=2) as pubsub,
        pubsub.subscribe("t", overflow="disconnect") as slow,
        pubsub.subscribe("t") as other,
    ):
        for number in range(4):
            await pubsub.publish("t", b"%d" % number)
        found = []
        with pytest.raises(SlowSubscriber, match="a subscription to 't' was ended: 2 messages waited"):  # noqa: PT012
            async for message in slow:
                found.append(message.payload)
        assert found == [b"0", b"1"]
        with pytest.raises(SlowSubscriber):
            await anext(slow)
        assert await taken(other) == [b"2", b"3"], "the others go on"


async def test_bytes_are_bounded_as_well() -> None:
    async with (
        PubSub(MemoryPubSub(), buffer_bytes=10) as pubsub,
        pubsub.subscribe("t") as subscription,
        pubsub.subscribe("t", buffer=1, buffer_bytes=1) as tiny,
    ):
        await pubsub.publish("t", b"x" * 100)
        assert (len(subscription), len(tiny)) == (1, 1), "an empty buffer takes any message"
        for _ in range(3):
            await pubsub.publish("t", b"x" * 5)
        assert await taken(subscription) == [b"x" * 5] * 2
        assert len(tiny) == 1
        for wrong in ({"buffer": 0}, {"buffer_bytes": 0}):
            with pytest.raises(ValueError, match="at least one message and byte"):
                async with pubsub.subscribe("t", **wrong):
                    raise AssertionError("unreachable: it is refused")


@given(
    st.lists(st.one_of(st.integers(0, 12), st.just("take"), st.just("gap")), max_size=60),
    st.sampled_from(["drop_oldest", "drop_newest"]),
    st.integers(1, 4),
    st.integers(1, 20),
)
async def test_what_is_lost_is_told_to_the_message(
    steps: list[Any], overflow: Any, buffer: int, buffer_bytes: int
) -> None:
    """What arrives and what is told to be lost are together what was published, in order; the buffer keeps its bounds."""  # noqa: E501
    async with (
        PubSub(MemoryPubSub()) as pubsub,
        pubsub.subscribe("t", gaps=True, overflow=overflow, buffer=buffer, buffer_bytes=buffer_bytes) as subscription,
    ):
        number = position = 0

        def account(item: Any) -> None:
            nonlocal position
            if isinstance(item, Gap):
                position += item.lost or 0
            else:
                assert int(item.payload[:4]) == position
                position += 1

        for step in steps:
            if step == "gap":
                pubsub.gap("t")
            elif step != "take":
                await pubsub.publish("t", b"%04d" % number + b"x" * step)
                number += 1
                assert len(subscription) <= buffer
                waiting = [item for item in subscription._items if isinstance(item, Message)]
                assert sum(len(item.payload) for item in waiting) <= buffer_bytes or len(waiting) == 1
                assert len(subscription._items) <= 3 * buffer + 2
            elif subscription._items:
                account(await anext(subscription))
        subscription.end()
        async for item in subscription:
            account(item)
        assert position == number


async def test_a_busy_subscription_lets_others_run() -> None:
    async with PubSub(MemoryPubSub(), buffer=1000) as pubsub, pubsub.subscribe("t") as subscription:
        for _ in range(500):
            await pubsub.publish("t", b"")
        left: list[int] = []

        async def other() -> None:
            left.append(len(subscription))

        async with anyio.create_task_group() as group:
            group.start_soon(other)
            for _ in range(500):
                await anext(subscription)
        assert left
        assert left[0] > 0


# Ends


async def test_one_task_iterates_at_a_time() -> None:
    async with (
        PubSub(MemoryPubSub()) as pubsub,
        pubsub.subscribe("t") as subscription,
        anyio.create_task_group() as group,
    ):
        group.start_soon(taken, subscription)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(PubSubError, match="iterated by another task"):
            await anext(subscription)


async def test_cancelling_a_wait_loses_no_message() -> None:
    async with PubSub(MemoryPubSub()) as pubsub, pubsub.subscribe("t") as subscription:
        got: list[bytes] = []
        for number in range(50):

            async def wait() -> None:
                got.append((await anext(subscription)).payload)

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                await pubsub.publish("t", b"%d" % number)
                group.cancel_scope.cancel()
        got += await taken(subscription)
        assert got == [b"%d" % number for number in range(50)]


async def test_a_subscription_that_is_left_ends_its_iteration() -> None:
    async with PubSub(MemoryPubSub()) as pubsub, anyio.create_task_group() as group:
        ended = anyio.Event()

        async def iterate(subscription: Subscription[Message]) -> None:
            async for _ in subscription:
                raise AssertionError("unreachable: nothing is published")
            ended.set()

        async with pubsub.subscribe("t") as subscription:
            group.start_soon(iterate, subscription)
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            await ended.wait()


class Slow(MemoryPubSub):
    """Waits everywhere; `broken` makes listening fail."""

    def __init__(self) -> None:
        super().__init__()
        self.listening: list[str] = []
        self.broken = False

    async def listen(self, topic: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.listening.append(topic)
        await super().listen(topic)
        await anyio.lowlevel.checkpoint()
        if self.broken:
            raise PubSubError("no connection")

    async def unlisten(self, topic: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.listening = [each for each in self.listening if each != topic]
        await super().unlisten(topic)
        await anyio.lowlevel.checkpoint()


async def test_cancelled_at_any_await_no_subscription_is_left() -> None:
    backend = Slow()
    async with PubSub(backend) as pubsub:

        async def call() -> None:
            async with pubsub.subscribe("a", "b"), pubsub.subscribe("b", "c") as subscription:
                await pubsub.publish("b", b"")
                await anext(subscription)

        async def check() -> None:
            assert backend.listening == []
            assert pubsub._channels == {}

        assert await at_every_await(call, check) > 8


async def test_cancelling_the_first_subscriber_leaves_the_second() -> None:
    backend = Slow()
    async with PubSub(backend) as pubsub:
        got: list[bytes] = []

        async def first(scope: anyio.CancelScope) -> None:
            with scope:
                async with pubsub.subscribe("t"):
                    raise AssertionError("unreachable: it is cancelled before")

        async def second() -> None:
            async with pubsub.subscribe("t") as subscription:
                got.append((await anext(subscription)).payload)

        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()
            group.start_soon(first, scope)
            group.start_soon(second)
            await anyio.lowlevel.checkpoint()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert backend.listening == ["t"]
            await pubsub.publish("t", b"1")
        assert got == [b"1"]
        assert backend.listening == []


async def test_one_subscription_of_the_backend_serves_all() -> None:
    backend = Slow()
    async with PubSub(backend) as pubsub, anyio.create_task_group() as group:
        ready = 0

        async def subscribe() -> None:
            nonlocal ready
            async with pubsub.subscribe("t") as subscription:
                ready += 1
                await anext(subscription)

        for _ in range(10):
            group.start_soon(subscribe)
        await anyio.wait_all_tasks_blocked()
        assert (ready, backend.listening) == (10, ["t"])
        await pubsub.publish("t", b"")


async def test_a_topic_that_cannot_be_listened_to(caplog: pytest.LogCaptureFixture) -> None:
    backend = Slow()
    backend.broken = True
    async with PubSub(backend) as pubsub:
        with pytest.raises(PubSubError, match="no connection"):
            async with pubsub.subscribe("t"):
                raise AssertionError("unreachable: it fails")
        assert (backend.listening, pubsub._channels) == ([], {})
        backend.broken = False
        async with pubsub.subscribe("t") as subscription:
            await pubsub.publish("t", b"1")
            assert (await anext(subscription)).payload == b"1"


async def test_a_backend_that_fails_to_unlisten_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryPubSub):
        async def unlisten(self, topic: str) -> None:
            raise OSError("down")

    async with PubSub(Broken()) as pubsub:
        async with pubsub.subscribe("t"):
            await anyio.lowlevel.checkpoint()
        assert "failed to stop listening to 't'" in caplog.text
        assert pubsub._channels == {}


async def test_it_runs_once_at_a_time_and_again() -> None:
    pubsub = PubSub(MemoryPubSub())
    with pytest.raises(PubSubClosed, match="does not run"):
        await pubsub.publish("t", b"")
    for _ in range(2):
        async with pubsub:
            with pytest.raises(PubSubError, match="runs already"):
                async with pubsub:
                    raise AssertionError("unreachable: it runs already")
            context = pubsub.subscribe("t")
            subscription = await context.__aenter__()
            await pubsub.publish("t", b"last")
        assert [message.payload async for message in subscription] == [b"last"]
        await context.__aexit__(None, None, None)
    with pytest.raises(PubSubClosed, match="does not run"):
        async with pubsub.subscribe("t"):
            raise AssertionError("unreachable: it does not run")


async def test_a_subscription_of_an_earlier_run_does_not_end_one_of_the_next() -> None:
    pubsub = PubSub(MemoryPubSub())
    async with pubsub:
        before = pubsub.subscribe("t")
        await before.__aenter__()
    async with pubsub, pubsub.subscribe("t") as subscription:
        await before.__aexit__(None, None, None)
        await pubsub.publish("t", b"1")
        assert (await anext(subscription)).payload == b"1"


async def test_a_backend_that_cannot_connect() -> None:
    class Down(MemoryPubSub):
        @asynccontextmanager
        async def connect(self, receiver: Receiver) -> AsyncIterator[None]:
            raise PubSubError("down")
            yield

    pubsub = PubSub(Down())
    for _ in range(2):
        with pytest.raises(PubSubError, match="down"):
            async with pubsub:
                raise AssertionError("unreachable: it is down")


# Gaps of the connection


async def test_a_reconnection_is_told_to_those_who_ask() -> None:
    async with (
        PubSub(MemoryPubSub()) as pubsub,
        pubsub.subscribe("t", "u", gaps=True) as told,
        pubsub.subscribe("u", gaps=True) as other,
        pubsub.subscribe("t") as plain,
    ):
        await pubsub.publish("t", b"1")
        pubsub.gap()
        pubsub.gap()
        await pubsub.publish("t", b"2")
        pubsub.gap("u")
        assert await taken(told) == [b"1", Gap(None, None, "reconnected"), b"2", Gap("u", None, "reconnected")]
        assert await taken(other) == [Gap(None, None, "reconnected")], "neighbours are one"
        assert await taken(plain) == [b"1", b"2"]
        assert (told.gaps, other.gaps, plain.gaps) == (3, 3, 2)
        pubsub.gap("nobody")


# In an application


async def test_a_handler_asks_for_it() -> None:
    app = plugin_sandbox("pubsub")

    @app.post("/{topic}")
    async def publish(topic: str, pubsub: PubSub) -> None:
        await pubsub.publish(topic, b"from a handler")

    async with TestClient(app) as client, get_pubsub(app=app).subscribe("t") as subscription:
        await client.post("/t")
        assert (await anext(subscription)).payload == b"from a handler"
        assert get_pubsub() is get_pubsub("default", app)
    with pytest.raises(PubSubClosed):
        await get_pubsub(app=app).publish("t", b"")
    with pytest.raises(NoApplicationError):
        get_pubsub()


async def test_aliases_and_their_settings() -> None:
    class Plugin:
        @covet.hookimpl
        def covet_pubsub_backends(self) -> dict[str, Backend]:
            return {"slow": Backend(lambda app, alias, settings: Slow())}

    settings = {"pubsub": {"jobs": {"backend": "slow", "buffer": 1, "overflow": "disconnect", "max_bytes": 3}}}
    app = plugin_sandbox("pubsub", it=Plugin(), settings=settings)
    async with app.running():
        jobs = get_pubsub("jobs")
        assert isinstance(jobs.backend, Slow)
        assert isinstance(jobs.backend, PubSubBackend)
        assert isinstance(get_pubsub().backend, MemoryPubSub)
        async with jobs.subscribe("t") as subscription:
            for _ in range(2):
                await jobs.publish("t", b"abc")
            await anext(subscription)
            with pytest.raises(SlowSubscriber):
                await anext(subscription)
            with pytest.raises(PayloadTooLarge):
                await jobs.publish("t", b"abcd")
        with pytest.raises(ConfigurationError, match=r"there is no \[pubsub.mail\] in the settings"):
            get_pubsub("mail")


async def test_the_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="no plugin that takes part brings 'memroy'; did you mean 'memory'"):
        plugin_sandbox("pubsub", settings={"pubsub": {"default": {"backend": "memroy"}}}).build()
    with pytest.raises(ConfigurationError, match="did you mean 'buffer'"):
        plugin_sandbox("pubsub", settings={"pubsub": {"default": {"bufer": 1}}}).build()


async def test_streams_end_when_the_application_drains() -> None:
    app = plugin_sandbox("pubsub")
    seen: list[str] = []

    @app.get("/events")
    async def events(pubsub: PubSub) -> EventSourceResponse:
        async def stream() -> AsyncIterator[str]:
            async with pubsub.subscribe("t") as subscription:
                async for message in subscription:
                    yield message.payload.decode()
            seen.append("ended")

        return EventSourceResponse(stream())

    async def until_the_stop(started: anyio.Event) -> None:
        async with get_pubsub().subscribe("t", until="stop") as subscription:
            started.set()
            async for message in subscription:
                seen.append(message.payload.decode())

    async with TestClient(app) as client, anyio.create_task_group() as group:
        started = anyio.Event()
        group.start_soon(until_the_stop, started)
        await started.wait()
        async with client.stream("GET", "/events") as response:
            lines = response.aiter_lines()
            while get_pubsub(app=app).subscribers("t") < 2:  # noqa: ASYNC110
                await anyio.sleep(0.001)
            await get_pubsub(app=app).publish("t", b"one")
            while "one" not in (await anext(lines)):
                await anyio.lowlevel.checkpoint()
            from covet.lifespan import begin_drain

            await begin_drain(app)
            assert [line async for line in lines if "data" in line] == []
        assert seen == ["one", "ended"]
        async with get_pubsub(app=app).subscribe("t") as late:
            assert [message async for message in late] == [], "nobody begins to wait when all is about to end"
        await get_pubsub(app=app).publish("t", b"two")
        await anyio.wait_all_tasks_blocked()
        assert seen == ["one", "ended", "two"]
        group.cancel_scope.cancel()


async def test_a_plugin_may_subscribe_for_as_long_as_it_runs() -> None:
    got: list[bytes] = []

    class Plugin:
        covet_after = ("pubsub",)

        @covet.hookimpl
        @asynccontextmanager
        async def covet_lifespan(self, app: Covet) -> AsyncIterator[None]:
            async def listen() -> None:
                async with get_pubsub(app=app).subscribe("t") as subscription:
                    got.extend([message.payload async for message in subscription])

            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                yield

    app = plugin_sandbox("pubsub", it=Plugin())
    async with app.running():
        while not get_pubsub().subscribers("t"):  # noqa: ASYNC110
            await anyio.sleep(0.001)
        await get_pubsub().publish("t", b"1")
    assert got == [b"1"]


async def test_without_the_plugin(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    app = plugin_sandbox()
    async with app.running():
        with pytest.raises(ConfigurationError, match="no plugin that takes part brings 'memory'"):
            get_pubsub()
