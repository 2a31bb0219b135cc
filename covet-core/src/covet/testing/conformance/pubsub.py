"""The conformance kit of pub/sub backends.

class TestRedis(PubSubConformance):
    @pytest.fixture
    def backend(self, redis_url):
        return RedisPubSub(redis_url)

    @pytest.fixture
    def other(self, redis_url):
        return RedisPubSub(redis_url)

    @pytest.fixture
    def cut(self, proxy):
        return proxy.cut
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.pubsub import Gap, PayloadTooLarge, PubSub, PubSubBackend, PubSubError, Subscription
from covet.testing.conformance.faults import at_every_await
from covet.testing.conformance.kits import EXAMPLES, ConformanceKit, first_difference

__all__ = ["PubSubConformance"]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
# Topics that a careless mapping to channel names takes for one another, or for a pattern.
ALIKE = [
    "a", "A", " a", "a ", "a\n", "a\0", "a*", "a?", "[a]", "a.b", "a:b", "a/b", "a%", "%61", 'a"', "a'", "a;--", "a\\",
    "\u00e9", "e\u0301", "\u0130", "i\u0307", "\U0001f600", "a" * 63, "a" * 64, "a" * 999, "a" * 998 + "b",
]  # fmt: skip


class PubSubConformance(ConformanceKit):
    """The promises of a pub/sub backend. A subclass overrides the fixture `backend`, and `other` and `cut` if it can.

    Attributes:
        patience: seconds until a message that has not arrived is taken for lost.
        quiet: seconds for what should not arrive to arrive all the same.
    """

    patience = 10.0
    quiet = 0.02

    @pytest.fixture
    def backend(self) -> PubSubBackend:
        """A backend that is not connected. Override it."""
        raise pytest.UsageError("override the fixture `backend` to give the backend that is tested")

    @pytest.fixture
    def other(self) -> PubSubBackend | None:
        """A second backend on the same carrier, as another process has it; None where there are no others."""
        return None

    @pytest.fixture
    def cut(self) -> Callable[[], Awaitable[object]] | None:
        """Cuts the backend's connection, which may be made again at once; None where there is none to lose."""
        return None

    # Messages

    async def test_a_message_arrives(self, backend: PubSubBackend) -> None:
        """Promise: a message arrives as it was sent, whatever its bytes."""
        payloads = [b"", b"\0", bytes(range(256)), b"\r\n", b"'", "\u00e9".encode(), b"x" * 5000]
        limit = backend.max_payload
        payloads = [payload for payload in payloads if limit is None or len(payload) <= limit]
        async with PubSub(backend) as pubsub, pubsub.subscribe("topic") as subscription:
            for payload in payloads:
                await pubsub.publish("topic", payload)
            for payload in payloads:
                message = await self.next(subscription)
                assert message.payload == payload
                assert message.topic == "topic"

    @EXAMPLES
    @given(topic=texts, payload=st.binary(max_size=200))
    async def test_any_topic_and_payload(self, backend: PubSubBackend, topic: str, payload: bytes) -> None:
        """Promise: a topic is any text."""
        async with PubSub(backend) as pubsub, pubsub.subscribe(topic) as subscription:
            await pubsub.publish(topic, payload)
            message = await self.next(subscription)
            assert (message.topic, message.payload) == (topic, payload)

    async def test_topics_are_told_apart(self, backend: PubSubBackend) -> None:
        """Promise: a topic is compared as a whole, exactly; it is no pattern."""
        async with PubSub(backend) as pubsub, pubsub.subscribe(*ALIKE) as subscription:
            for topic in ALIKE:
                await pubsub.publish(topic, topic.encode())
            found = [await self.next(subscription) for _ in ALIKE]
            await self.nothing(subscription)
        assert sorted(message.topic for message in found) == sorted(ALIKE)
        assert all(message.topic.encode() == message.payload for message in found)

    async def test_what_is_published_after_subscribing_arrives(self, backend: PubSubBackend) -> None:
        """Promise: when `listen` has returned, nothing that is published is missed."""
        async with PubSub(backend) as pubsub:
            for number in range(20):
                async with pubsub.subscribe(f"early {number}") as subscription:
                    await pubsub.publish(f"early {number}", b"first")
                    assert (await self.next(subscription)).payload == b"first"

    async def test_nothing_is_kept_for_later(self, backend: PubSubBackend) -> None:
        """Promise: who subscribes sees nothing from before."""
        async with PubSub(backend) as pubsub:
            await pubsub.publish("kept", b"to nobody")
            async with pubsub.subscribe("kept") as subscription:
                await pubsub.publish("kept", b"to somebody")
                assert (await self.next(subscription)).payload == b"to somebody"

    async def test_the_order_of_a_publisher(self, backend: PubSubBackend) -> None:
        """Promise: what one task publishes to a topic arrives in that order, once; whatever others publish."""
        count, received = 60, dict[str, list[int]]()

        async def publish(pubsub: PubSub, name: str) -> None:
            for number in range(count):
                await pubsub.publish("ordered", f"{name} {number}".encode())

        async with (
            PubSub(backend) as pubsub,
            pubsub.subscribe("ordered", buffer=1000) as subscription,
            anyio.create_task_group() as group,
        ):
            for name in "abc":
                group.start_soon(publish, pubsub, name)
            for _ in range(3 * count):
                name, number = (await self.next(subscription)).payload.decode().split()
                received.setdefault(name, []).append(int(number))
            await self.nothing(subscription)
        assert received == {name: list(range(count)) for name in "abc"}

    async def test_every_subscription_gets_every_message_once(self, backend: PubSubBackend) -> None:
        """Promise: a message goes to all subscriptions, to each once."""
        async with (
            PubSub(backend) as pubsub,
            pubsub.subscribe("all") as first,
            pubsub.subscribe("all", "more") as second,
        ):
            for number in range(10):
                await pubsub.publish("all", b"%d" % number)
            for subscription in (first, second):
                found = [(await self.next(subscription)).payload for _ in range(10)]
                assert found == [b"%d" % number for number in range(10)]
                await self.nothing(subscription)

    async def test_a_subscriber_may_publish(self, backend: PubSubBackend) -> None:
        """Promise: a message can be answered from where it is received."""
        async with (
            PubSub(backend) as pubsub,
            pubsub.subscribe("question") as questions,
            pubsub.subscribe("answer") as answers,
        ):
            with anyio.fail_after(self.patience):
                await pubsub.publish("question", b"?")
                message = await self.next(questions)
                await pubsub.publish("answer", message.payload + b"!")
            assert (await self.next(answers)).payload == b"?!"

    async def test_the_largest_message(self, backend: PubSubBackend) -> None:
        """Promise: a payload of `max_payload` bytes arrives; a larger one is refused with `PayloadTooLarge`."""
        most = backend.max_payload if backend.max_payload is not None else 300_000
        async with PubSub(backend, max_bytes=2**40) as pubsub, pubsub.subscribe("large") as subscription:
            await pubsub.publish("large", b"\xff" * most)
            received = (await self.next(subscription)).payload
            assert not (difference := first_difference(received, b"\xff" * most)), difference
            if backend.max_payload is not None:
                with pytest.raises(PayloadTooLarge):
                    await pubsub.publish("large", b"x" * (most + 1))

    # Listening

    async def test_nothing_arrives_after_unlisten(self, backend: PubSubBackend) -> None:
        """Promise: a topic that was given up is delivered no more, and can be listened to again."""
        async with _Recording(backend) as recording:
            await backend.listen("given up")
            await backend.listen("end")
            await backend.publish("given up", b"1")
            await recording.wait_for("given up", self.patience)
            await backend.unlisten("given up")
            await backend.publish("given up", b"2")
            await backend.publish("end", b"")
            await recording.wait_for("end", self.patience)
            await anyio.sleep(self.quiet)
            assert recording.of("given up") == [b"1"]
            await backend.listen("given up")
            await backend.publish("given up", b"3")
            await recording.wait_for("given up", self.patience, 2)
            assert recording.of("given up") == [b"1", b"3"]

    async def test_unlisten_may_come_twice_or_early(self, backend: PubSubBackend) -> None:
        """Promise: giving up a topic that is not listened to does nothing."""
        async with _Recording(backend) as recording:
            await backend.unlisten("never")
            await backend.listen("once")
            await backend.unlisten("once")
            await backend.unlisten("once")
            await backend.listen("end")
            await backend.publish("end", b"")
            await recording.wait_for("end", self.patience)

    async def test_many_topics_at_once(self, backend: PubSubBackend) -> None:
        """Promise: a process may listen to many topics, begun and given up at the same time."""
        count = 200
        async with PubSub(backend) as pubsub:

            async def exchange(number: int) -> None:
                async with pubsub.subscribe(f"many {number}") as subscription:
                    await pubsub.publish(f"many {number}", b"%d" % number)
                    assert (await self.next(subscription)).payload == b"%d" % number

            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(exchange, number)
            assert not [number for number in range(count) if pubsub.subscribers(f"many {number}")]

    async def test_it_can_be_connected_again(self, backend: PubSubBackend) -> None:
        """Promise: nothing is delivered outside of `connect`, nor is a topic still listened to in the next one."""
        async with _Recording(backend) as before:
            await backend.listen("again")
            await backend.publish("again", b"1")
            await before.wait_for("again", self.patience)
        async with _Recording(backend) as after:
            await backend.listen("end")
            await backend.publish("again", b"2")
            await backend.publish("end", b"")
            await after.wait_for("end", self.patience)
            await anyio.sleep(self.quiet)
        assert before.of("again") == [b"1"]
        assert after.of("again") == []

    # Cancellation

    async def test_cancelled_while_it_begins_to_listen(self, backend: PubSubBackend) -> None:
        """Promise: `listen`, cancelled at any await, leaves nothing behind that `unlisten` does not end."""
        async with PubSub(backend) as pubsub:

            async def subscribe() -> None:
                async with pubsub.subscribe("cancelled"):
                    await anyio.lowlevel.checkpoint()

            async def check() -> None:
                assert pubsub.subscribers("cancelled") == 0
                async with pubsub.subscribe("cancelled") as subscription:
                    await pubsub.publish("cancelled", b"works")
                    assert (await self.next(subscription)).payload == b"works"
                    await self.nothing(subscription)

            await at_every_await(subscribe, check)

    async def test_cancelled_while_it_publishes(self, backend: PubSubBackend) -> None:
        """Promise: `publish`, cancelled at any await, has sent the message whole and once, or not at all."""
        payload = b"cancelled" * 50
        async with PubSub(backend) as pubsub, pubsub.subscribe("sent") as subscription:

            async def check() -> None:
                await pubsub.publish("sent", b"end")
                before = []
                while (message := await self.next(subscription)).payload != b"end":
                    before.append(message.payload)
                assert before in ([], [payload])

            await at_every_await(lambda: pubsub.publish("sent", payload), check)

    # A model

    @EXAMPLES
    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(["subscribe", "leave", "publish"]), st.integers(0, 2), st.integers(0, 3)),
            max_size=25,
        )
    )
    async def test_it_behaves_like_the_model(self, backend: PubSubBackend, steps: list[tuple[str, int, int]]) -> None:
        """Promise: each subscription gets exactly what was published to its topic while it lasted, in order."""
        open_: dict[int, tuple[Any, Subscription[Any], int, list[bytes]]] = {}
        async with PubSub(backend) as pubsub:
            for number, (what, topic, slot) in enumerate(steps):
                if what == "publish":
                    await pubsub.publish(f"model {topic}", b"%d" % number)
                    for _, _, mine, expected in open_.values():
                        if mine == topic:
                            expected.append(b"%d" % number)
                elif what == "subscribe" and slot not in open_:
                    # What is on its way now may reach who comes now, too.
                    for _, subscription, _, expected in open_.values():
                        await self.fill(subscription, len(expected))
                    context = pubsub.subscribe(f"model {topic}")
                    open_[slot] = context, await context.__aenter__(), topic, []
                elif what == "leave" and slot in open_:
                    context, subscription, _, expected = open_.pop(slot)
                    assert [(await self.next(subscription)).payload for _ in expected] == expected
                    await context.__aexit__(None, None, None)
            for context, subscription, _, expected in open_.values():
                assert [(await self.next(subscription)).payload for _ in expected] == expected
                await anyio.lowlevel.checkpoint()
                assert len(subscription) == 0
                await context.__aexit__(None, None, None)

    async def fill(self, subscription: Subscription[Any], count: int) -> None:
        """Wait until so many messages are in a subscription's buffer."""
        with anyio.move_on_after(self.patience):
            while len(subscription) < count:  # noqa: ASYNC110 - the arrival has no event
                await anyio.sleep(0.0005)
        assert len(subscription) == count

    # Other processes, and connections that are lost

    async def test_messages_between_processes(self, backend: PubSubBackend, other: PubSubBackend | None) -> None:
        """Promise: a message reaches the subscriptions of all processes, the publisher's own among them."""
        if other is None:
            pytest.skip("the backend carries messages within one process")
        async with (
            PubSub(backend) as here,
            PubSub(other) as there,
            here.subscribe("shared") as mine,
            there.subscribe("shared") as theirs,
        ):
            for number in range(20):
                await (here if number % 2 else there).publish("shared", b"%d" % number)
            for subscription in (mine, theirs):
                found = [int((await self.next(subscription)).payload) for _ in range(20)]
                assert [number for number in found if number % 2] == list(range(1, 20, 2))
                assert [number for number in found if not number % 2] == list(range(0, 20, 2))
                await self.nothing(subscription)

    async def test_a_lost_connection_is_told(
        self, backend: PubSubBackend, cut: Callable[[], Awaitable[object]] | None
    ) -> None:
        """Promise: when the connection was lost, it is made again, subscriptions go on, and each is told of a gap."""
        if cut is None:
            pytest.skip("the backend has no connection to lose")
        async with PubSub(backend) as pubsub, pubsub.subscribe("cut", gaps=True) as subscription:
            await pubsub.publish("cut", b"before")
            assert (await self.next(subscription)).payload == b"before"
            await cut()
            gap = await self.next(subscription)
            assert isinstance(gap, Gap), f"a {type(gap).__name__} came, and a Gap was expected before anything else"
            assert (gap.reason, gap.lost) == ("reconnected", None)
            with anyio.fail_after(self.patience):
                while True:
                    try:
                        await pubsub.publish("cut", b"after")
                        break
                    except PubSubError:
                        await anyio.sleep(0.01)
            assert (await self.next(subscription)).payload == b"after"
            assert subscription.gaps >= 1

    # What the tests above wait with

    async def next(self, subscription: Subscription[Any]) -> Any:
        """The next message of a subscription, which has to come in time."""
        try:
            with anyio.fail_after(self.patience):
                return await anext(subscription)
        except TimeoutError:
            raise AssertionError(f"no message came within {self.patience} seconds") from None

    async def nothing(self, subscription: Subscription[Any]) -> None:
        """Make sure that no message comes."""
        with anyio.move_on_after(self.quiet):
            message = await anext(subscription)
            raise AssertionError(f"a message came that should not: {message}")


class _Recording:
    """A backend's receiver, without a `PubSub`."""

    def __init__(self, backend: PubSubBackend) -> None:
        self._connection = backend.connect(self)
        self._arrived: list[tuple[str, bytes]] = []

    async def __aenter__(self) -> _Recording:
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._connection.__aexit__(*error)

    def deliver(self, topic: str, payload: bytes) -> None:
        self._arrived.append((topic, payload))

    def gap(self, topic: str | None = None) -> None:
        raise AssertionError(f"a gap on {topic!r}, and the connection was not lost")

    def of(self, topic: str) -> list[bytes]:
        return [payload for name, payload in self._arrived if name == topic]

    async def wait_for(self, topic: str, seconds: float, count: int = 1) -> None:
        with anyio.move_on_after(seconds):
            while len(self.of(topic)) < count:  # noqa: ASYNC110 - the arrival has no event
                await anyio.sleep(0.001)
        assert len(self.of(topic)) >= count, f"{count} messages on {topic!r} were to arrive within {seconds} seconds"
