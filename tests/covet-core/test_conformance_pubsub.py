"""The conformance kit of pub/sub: the builtin backend and a networked one keep every promise; wrong ones are caught."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from tests.kits import run_kit

from covet.builtin.pubsub import MemoryPubSub
from covet.pubsub import PubSubError, Receiver
from covet.testing.conformance.pubsub import PubSubConformance


class TestMemory(PubSubConformance):
    @pytest.fixture
    def backend(self) -> MemoryPubSub:
        return MemoryPubSub()


# A backend with a network between: what PostgreSQL and Redis are like


def frame(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


async def read_frame(stream: anyio.abc.ByteReceiveStream, buffer: bytearray, count: int) -> list[bytes]:
    parts = []
    for _ in range(count):
        size = struct.unpack(">I", await read(stream, buffer, 4))[0]
        parts.append(await read(stream, buffer, size))
    return parts


async def read(stream: anyio.abc.ByteReceiveStream, buffer: bytearray, size: int) -> bytes:
    while len(buffer) < size:
        buffer += await stream.receive()
    found = bytes(buffer[:size])
    del buffer[:size]
    return found


class Broker:
    """A message broker on a TCP port."""

    def __init__(self) -> None:
        self.port = 0
        self.clients: dict[anyio.abc.SocketStream, set[bytes]] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Broker]:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
            group.start_soon(listener.serve, self.client)
            yield self
            group.cancel_scope.cancel()

    async def client(self, stream: anyio.abc.SocketStream) -> None:
        buffer = bytearray()
        topics = self.clients[stream] = set()
        try:
            async with stream:
                while True:
                    what, topic, payload = await read_frame(stream, buffer, 3)
                    if what == b"publish":
                        for other, wanted in list(self.clients.items()):
                            if topic in wanted:
                                await other.send(frame(b"message", topic, payload))
                    else:
                        (topics.add if what == b"listen" else topics.discard)(topic)
                        await stream.send(frame(b"done", topic, b""))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            del self.clients[stream]

    async def cut(self) -> None:
        for stream in list(self.clients):
            await anyio.aclose_forcefully(stream)


class BrokerPubSub:
    """A backend that speaks to a `Broker`: one connection, on which answers come in order."""

    max_payload: int | None = 100_000

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.topics: set[str] = set()

    @asynccontextmanager
    async def connect(self, receiver: Receiver) -> AsyncIterator[None]:
        self.receiver = receiver
        self.topics = set()
        self.lock = anyio.Lock()
        self.asked: list[anyio.Event] = []
        await self.dial()
        async with anyio.create_task_group() as group:
            group.start_soon(self.run)
            try:
                yield
            finally:
                group.cancel_scope.cancel()
                await anyio.aclose_forcefully(self.stream)

    async def dial(self) -> None:
        self.stream = await anyio.connect_tcp("127.0.0.1", self.broker.port)
        self.buffer = bytearray()

    async def run(self) -> None:
        while True:
            try:
                while True:
                    what, topic, payload = await read_frame(self.stream, self.buffer, 3)
                    if what == b"message":
                        self.arrived(topic.decode(), payload)
                    else:
                        self.asked.pop(0).set()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self.reconnect()

    def arrived(self, topic: str, payload: bytes) -> None:
        if topic in self.topics:
            self.receiver.deliver(topic, payload)

    async def reconnect(self) -> None:
        await anyio.aclose_forcefully(self.stream)
        for event in self.asked:
            event.set()
        self.asked = []
        await self.dial()
        for topic in self.topics:
            self.asked.append(anyio.Event())
            await self.stream.send(frame(b"listen", topic.encode(), b""))
        self.receiver.gap()

    async def publish(self, topic: str, payload: bytes) -> None:
        await self.send(frame(b"publish", topic.encode(), payload))

    async def send(self, data: bytes, answered: anyio.Event | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        # Half a frame would be the end of the connection, and an answer that nobody waits for the end of its order.
        with anyio.CancelScope(shield=True):
            try:
                async with self.lock:
                    if answered is not None:
                        self.asked.append(answered)
                    await self.stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise PubSubError("the broker cannot be reached") from error

    async def ask(self, what: bytes, topic: str) -> None:
        event = anyio.Event()
        await self.send(frame(what, topic.encode(), b""), event)
        await event.wait()

    async def listen(self, topic: str) -> None:
        self.topics.add(topic)
        await self.ask(b"listen", topic)

    async def unlisten(self, topic: str) -> None:
        if topic in self.topics:
            self.topics.discard(topic)
            await self.ask(b"unlisten", topic)


class BrokerKit(PubSubConformance):
    patience = 1.0
    backend_class: type[BrokerPubSub] = BrokerPubSub

    @pytest.fixture
    async def broker(self) -> AsyncIterator[Broker]:
        async with Broker().serving() as broker:
            yield broker

    @pytest.fixture
    def backend(self, broker: Broker) -> BrokerPubSub:
        return self.backend_class(broker)

    @pytest.fixture
    def other(self, broker: Broker) -> BrokerPubSub:
        return self.backend_class(broker)

    @pytest.fixture
    def cut(self, broker: Broker) -> Callable[[], Awaitable[object]]:
        return broker.cut


class TestBroker(BrokerKit):
    patience = 10.0


# Wrong ones, one for each promise


class Strips(MemoryPubSub):
    async def publish(self, topic: str, payload: bytes) -> None:
        await super().publish(topic, payload.strip())


class Text(MemoryPubSub):
    async def publish(self, topic: str, payload: bytes) -> None:
        await super().publish(topic, payload.decode("utf-8", "replace").encode())


class IgnoresCase(MemoryPubSub):
    async def publish(self, topic: str, payload: bytes) -> None:
        for known in [name for name in self._topics if name.casefold() == topic.casefold()]:
            await super().publish(known, payload)


class ShortNames(MemoryPubSub):
    """As PostgreSQL shortens identifiers."""

    async def publish(self, topic: str, payload: bytes) -> None:
        for known in [name for name in self._topics if name.encode()[:63] == topic.encode()[:63]]:
            await super().publish(known, payload)


class Patterns(MemoryPubSub):
    async def publish(self, topic: str, payload: bytes) -> None:
        from fnmatch import fnmatchcase

        for known in [name for name in self._topics if fnmatchcase(topic, name)]:
            await super().publish(known, payload)


class NotYet(MemoryPubSub):
    """`listen` returns before anything is listened to."""

    async def listen(self, topic: str) -> None:
        self.later = topic

    async def publish(self, topic: str, payload: bytes) -> None:
        await super().publish(topic, payload)
        await super().listen(self.later)


class Keeps(MemoryPubSub):
    """Delivers the last message to whoever comes."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, bytes] = {}
        self.fresh: set[str] = set()

    async def publish(self, topic: str, payload: bytes) -> None:
        if topic in self.fresh and topic in self.last and self._receiver is not None:
            self._receiver.deliver(topic, self.last[topic])
        self.fresh.discard(topic)
        self.last[topic] = payload
        await super().publish(topic, payload)

    async def listen(self, topic: str) -> None:
        self.fresh.add(topic)
        await super().listen(topic)


class Shuffles(MemoryPubSub):
    """Delivers every message behind the one after it."""

    held: tuple[str, bytes] | None = None

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.held is None and topic == "ordered":
            self.held = (topic, payload)
            return
        await super().publish(topic, payload)
        if self.held is not None:
            held, self.held = self.held, None
            await super().publish(*held)


class Twice(MemoryPubSub):
    async def publish(self, topic: str, payload: bytes) -> None:
        await super().publish(topic, payload)
        await super().publish(topic, payload)


class Truncates(MemoryPubSub):
    max_payload = 8000

    async def publish(self, topic: str, payload: bytes) -> None:
        await super().publish(topic, payload[:7999])


class NeverGivesUp(MemoryPubSub):
    async def unlisten(self, topic: str) -> None:
        await anyio.lowlevel.checkpoint()


class Strict(MemoryPubSub):
    async def unlisten(self, topic: str) -> None:
        self._topics.remove(topic)


class Few(MemoryPubSub):
    async def listen(self, topic: str) -> None:
        if len(self._topics) >= 100:
            raise PubSubError("too many topics")
        await super().listen(topic)
        await anyio.lowlevel.checkpoint()


class OnlyOnce(MemoryPubSub):
    @asynccontextmanager
    async def connect(self, receiver: Receiver) -> AsyncIterator[None]:
        self._receiver = receiver
        yield


class Deadlocks(MemoryPubSub):
    """A lock that is not given back when its holder is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = False

    async def listen(self, topic: str) -> None:
        if self.busy:
            raise PubSubError("busy")
        self.busy = True
        await anyio.lowlevel.checkpoint()
        await super().listen(topic)
        self.busy = False


class InPieces(MemoryPubSub):
    async def publish(self, topic: str, payload: bytes) -> None:
        if topic == "sent" and payload != b"end":
            await super().publish(topic, payload[:9])
            await anyio.lowlevel.checkpoint()
            payload = payload[9:]
        await super().publish(topic, payload)


class CancelledTwice(MemoryPubSub):
    async def publish(self, topic: str, payload: bytes) -> None:
        try:
            await super().publish(topic, payload)
            await anyio.lowlevel.checkpoint()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await super().publish(topic, payload)
                await super().publish(topic, payload)
            raise


class Hangs(MemoryPubSub):
    async def publish(self, topic: str, payload: bytes) -> None:
        if topic == "answer":
            await anyio.sleep(5)
        await super().publish(topic, payload)


class DropsOwn(BrokerPubSub):
    """Gets the messages of others alone."""

    async def publish(self, topic: str, payload: bytes) -> None:
        mine, self.topics = self.topics, set()
        await super().publish(topic, payload)
        await anyio.sleep(0.05)
        self.topics = mine


class TellsNoGap(BrokerPubSub):
    async def reconnect(self) -> None:
        receiver, self.receiver = self.receiver, _Deaf(self.receiver)
        await super().reconnect()
        self.receiver = receiver


class _Deaf:
    def __init__(self, receiver: Receiver) -> None:
        self.deliver = receiver.deliver

    def gap(self, topic: str | None = None) -> None:
        return None


class Forgets(BrokerPubSub):
    """Does not listen again when it has connected again."""

    async def reconnect(self) -> None:
        kept, self.topics = self.topics, set()
        await super().reconnect()
        self.topics = kept


WRONG: list[tuple[type[Any], str]] = [
    (Strips, "test_a_message_arrives"),
    (Text, "test_a_message_arrives"),
    (Strips, "test_any_topic_and_payload"),
    (IgnoresCase, "test_topics_are_told_apart"),
    (ShortNames, "test_topics_are_told_apart"),
    (Patterns, "test_topics_are_told_apart"),
    (NotYet, "test_what_is_published_after_subscribing_arrives"),
    (Keeps, "test_nothing_is_kept_for_later"),
    (Shuffles, "test_the_order_of_a_publisher"),
    (Twice, "test_every_subscription_gets_every_message_once"),
    (Hangs, "test_a_subscriber_may_publish"),
    (Truncates, "test_the_largest_message"),
    (NeverGivesUp, "test_nothing_arrives_after_unlisten"),
    (Strict, "test_unlisten_may_come_twice_or_early"),
    (Few, "test_many_topics_at_once"),
    (OnlyOnce, "test_it_can_be_connected_again"),
    (Deadlocks, "test_cancelled_while_it_begins_to_listen"),
    (InPieces, "test_cancelled_while_it_publishes"),
    (CancelledTwice, "test_cancelled_while_it_publishes"),
    (Twice, "test_it_behaves_like_the_model"),
    (DropsOwn, "test_messages_between_processes"),
    (TellsNoGap, "test_a_lost_connection_is_told"),
    (Forgets, "test_a_lost_connection_is_told"),
]


def kit_of(wrong: type[Any]) -> type[PubSubConformance]:
    if issubclass(wrong, BrokerPubSub):
        return type("Kit", (BrokerKit,), {"backend_class": wrong, "patience": 0.3})

    class Kit(PubSubConformance):
        patience = 0.2

        @pytest.fixture
        def backend(self) -> Any:
            return wrong()

    return Kit


@pytest.mark.parametrize(("wrong", "test"), WRONG, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_backend_is_caught(wrong: type[Any], test: str) -> None:
    outcome = run_kit(kit_of(wrong), only=test)
    assert set(outcome.failed) == {test}, (outcome.passed, outcome.failed)


def test_every_promise_has_a_backend_that_breaks_it() -> None:
    promises = {name for name in vars(PubSubConformance) if name.startswith("test_")}
    assert {test for _, test in WRONG} == promises


def test_what_cannot_be_tested_is_said() -> None:
    outcome = run_kit(kit_of(MemoryPubSub))
    assert outcome.failed == {}
    assert outcome.skipped == {"test_messages_between_processes", "test_a_lost_connection_is_told"}
    with pytest.raises(AssertionError, match="override the fixture `backend`"):
        raise AssertionError(run_kit(PubSubConformance, only="test_a_message_arrives").failed["test_a_message_arrives"])
