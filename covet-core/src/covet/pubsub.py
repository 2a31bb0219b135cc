"""Pub/sub: messages from whoever publishes to whoever has subscribed, in this process or between several.

    async with pubsub.subscribe("orders") as subscription:
        async for message in subscription:
            ...

    await pubsub.publish("orders", b"created")

What is promised, whatever the backend:

- At most once. A message is delivered to those that have subscribed when it is published, or to nobody; it is not kept.
- A subscription sees what is published after `subscribe` was entered, its own process's messages included; what is on
  its way at that moment may reach it or not.
- The messages that one task publishes to one topic arrive in that order.
- A publisher never waits for a subscriber. Each subscription has a bounded buffer; what happens when it is full is the
  subscriber's choice, and it is told what it has lost.
- A topic is a text, compared as a whole; there are no patterns.

Every subscription of a process to a topic shares one of the backend, so a backend has only to carry messages.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload, runtime_checkable

import anyio
import msgspec

from covet.subscriptions import (
    Gap,
    Message,
    Overflow,
    PayloadTooLarge,
    PubSubClosed,
    PubSubError,
    SlowSubscriber,
    Subscription,
)

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = [
    "Gap",
    "Message",
    "Overflow",
    "PayloadTooLarge",
    "PubSub",
    "PubSubBackend",
    "PubSubClosed",
    "PubSubError",
    "PubSubRegistry",
    "Receiver",
    "SlowSubscriber",
    "Subscription",
    "get_pubsub",
]

logger = logging.getLogger("covet.pubsub")

MAX_TOPIC = 1000
# Seconds that a backend gets to end a subscription whose subscriber was cancelled.
UNLISTEN_TIMEOUT = 5.0

Item = TypeVar("Item", covariant=True)


class Receiver(Protocol):
    """Where a backend puts what arrives. Its methods do not wait, and are called in the event loop."""

    def deliver(self, topic: str, payload: bytes) -> None:
        """A message has arrived on a topic that is listened to. One that nobody listens to any more is dropped."""

    def gap(self, topic: str | None = None) -> None:
        """Messages may have been lost: on a topic, or on all. Called before what arrives after the loss."""


@runtime_checkable
class PubSubBackend(Protocol):
    """What carries messages. The kernel gives every topic to it once, whatever number of subscriptions there is.

    Attributes:
        max_payload: bytes of the largest payload that it can carry; None without a limit of its own.
    """

    max_payload: int | None

    def connect(self, receiver: Receiver) -> AbstractAsyncContextManager[object]:
        """Be connected for as long as the context lasts, and put what arrives into `receiver`.

        The other methods are called only within. Nothing is delivered any more when it has been left; it may be entered
        again then. A task group may be open across it.

        A backend that loses its connection connects again by itself, listens to what it listened to before, and then
        calls `receiver.gap()`. It may raise `PubSubError` from `publish` and `listen` meanwhile.
        """
        ...

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send a message to all processes that listen to the topic, this one included.

        Cancelled, it was sent whole or not at all.

        Raises:
            PubSubError: it could not be sent.
        """

    async def listen(self, topic: str) -> None:
        """Deliver the topic's messages from now on: all that are published after this has returned.

        Not called again for the same topic without `unlisten` between. When it raises or is cancelled, `unlisten`
        follows.

        Raises:
            PubSubError: the topic cannot be listened to.
        """

    async def unlisten(self, topic: str) -> None:
        """Deliver the topic's messages no more. Does nothing for a topic that is not listened to."""


class _Channel:
    """A topic that somebody here has subscribed to."""

    __slots__ = ("listening", "lock", "subscriptions", "users")

    def __init__(self) -> None:
        self.lock = anyio.Lock(fast_acquire=True)
        self.listening = False
        self.users = 0
        # In the order in which they came.
        self.subscriptions: dict[Subscription[Any], None] = {}


class PubSub:
    """Publishes and subscribes through a backend. It runs as an asynchronous context manager.

    In an application it runs while that does, and a handler asks for it by annotation. Not to be used from other
    threads than the event loop's: there, `anyio.from_thread.run(pubsub.publish, ...)`.

    Args:
        backend: what carries the messages.
        buffer: how many messages wait for a subscriber, unless it says otherwise.
        buffer_bytes: how many bytes of them. One message is taken into an empty buffer, whatever its size.
        overflow: what happens when a buffer is full, unless the subscriber says otherwise.
        max_bytes: bytes of the largest payload.
    """

    def __init__(
        self,
        backend: PubSubBackend,
        *,
        buffer: int = 256,
        buffer_bytes: int = 8 * 2**20,
        overflow: Overflow = "drop_oldest",
        max_bytes: int = 2**20,
    ) -> None:
        self.backend = backend
        self.max_bytes = max_bytes if backend.max_payload is None else min(max_bytes, backend.max_payload)
        self._defaults = buffer, buffer_bytes, overflow
        self._channels: dict[str, _Channel] = {}
        self._open = False
        self._draining = False
        self._connection: AbstractAsyncContextManager[object] | None = None

    async def __aenter__(self) -> PubSub:
        if self._connection is not None:
            raise PubSubError("the pub/sub runs already; each backend is connected once at a time")
        self._connection = self.backend.connect(self)
        try:
            await self._connection.__aenter__()
        except BaseException:
            self._connection = None
            raise
        self._open, self._draining = True, False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            for subscription in channel.subscriptions:
                subscription.end()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.__aexit__(kind, error, traceback)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send a message to those that have subscribed to a topic. It does not wait for any of them.

        Cancelled, it was sent whole or not at all.

        Raises:
            PayloadTooLarge: the payload has more bytes than allowed.
            PubSubClosed: the pub/sub does not run.
            PubSubError: the topic is no topic, or the backend could not send the message.
        """
        self._check(topic)
        if len(payload) > self.max_bytes:
            raise PayloadTooLarge(
                f"a message to {topic!r} has {len(payload)} bytes, and {self.max_bytes} are allowed; publish where the "
                "data is, not the data"
            )
        await self.backend.publish(topic, bytes(payload))

    async def publish_json(self, topic: str, value: object) -> None:
        """Send a value as JSON; `Message.json` reads it.

        Raises:
            TypeError: the value cannot be encoded.
            PubSubError: as `publish`.
        """
        await self.publish(topic, msgspec.json.encode(value))

    @overload
    def subscribe(
        self, *topics: str, gaps: Literal[False] = False, buffer: int | None = None, buffer_bytes: int | None = None,
        overflow: Overflow | None = None, until: Literal["drain", "stop"] = "drain",
    ) -> _Subscribing[Message]: ...  # fmt: skip
    @overload
    def subscribe(
        self, *topics: str, gaps: Literal[True], buffer: int | None = None, buffer_bytes: int | None = None,
        overflow: Overflow | None = None, until: Literal["drain", "stop"] = "drain",
    ) -> _Subscribing[Message | Gap]: ...  # fmt: skip
    @asynccontextmanager
    async def subscribe(
        self,
        *topics: str,
        gaps: bool = False,
        buffer: int | None = None,
        buffer_bytes: int | None = None,
        overflow: Overflow | None = None,
        until: Literal["drain", "stop"] = "drain",
    ) -> AsyncIterator[Subscription[Any]]:
        """Subscribe to topics for as long as the context lasts. Cancellation leaves no subscription behind.

        Args:
            topics: one or more.
            gaps: whether a `Gap` is given where messages are missing; without, they are only counted.
            buffer: how many messages may wait.
            buffer_bytes: how many bytes of them.
            overflow: what happens when the buffer is full.
            until: whether the iteration ends when the application begins to drain, or when it stops.

        Raises:
            PubSubClosed: the pub/sub does not run.
            PubSubError: a topic is no topic, or the backend cannot listen to it.
            ValueError: `buffer` or `buffer_bytes` is not above 0, or there is no topic.
        """
        if not topics:
            raise ValueError("a subscription has at least one topic")
        for topic in topics:
            self._check(topic)
        default_buffer, default_bytes, default_overflow = self._defaults
        buffer = default_buffer if buffer is None else buffer
        buffer_bytes = default_bytes if buffer_bytes is None else buffer_bytes
        if buffer < 1 or buffer_bytes < 1:
            raise ValueError(f"a buffer holds at least one message and byte, not {buffer} and {buffer_bytes}")
        wanted = tuple(dict.fromkeys(topics))
        subscription: Subscription[Any] = Subscription(
            wanted,
            buffer=buffer,
            buffer_bytes=buffer_bytes,
            overflow=overflow or default_overflow,
            gaps=gaps,
            until=until,
        )
        joined: list[tuple[str, _Channel]] = []
        try:
            for topic in wanted:
                channel = self._channels.setdefault(topic, _Channel())
                channel.users += 1
                joined.append((topic, channel))
                await self._listen(topic, channel)
                channel.subscriptions[subscription] = None
            if self._draining and until == "drain":
                subscription.end()
            yield subscription
        finally:
            subscription.end()
            for topic, channel in reversed(joined):
                channel.subscriptions.pop(subscription, None)
                await self._leave(topic, channel)

    def drain(self) -> None:
        """End the iterations that last until the application drains."""
        self._draining = True
        for channel in self._channels.values():
            for subscription in channel.subscriptions:
                if subscription.until == "drain":
                    subscription.end()

    def subscribers(self, topic: str) -> int:
        """How many subscriptions there are to a topic in this process."""
        channel = self._channels.get(topic)
        return 0 if channel is None else len(channel.subscriptions)

    # Called by the backend

    def deliver(self, topic: str, payload: bytes) -> None:
        """Put a message that has arrived into the buffers of the topic's subscriptions."""
        channel = self._channels.get(topic)
        if channel is not None:
            message = Message(topic, payload)
            for subscription in channel.subscriptions:
                subscription.put(message)

    def gap(self, topic: str | None = None) -> None:
        """Tell the subscriptions of a topic, or all, that messages may have been lost."""
        found = self._channels.values() if topic is None else filter(None, [self._channels.get(topic)])
        for subscription in dict.fromkeys(each for channel in found for each in channel.subscriptions):
            subscription.put_gap(topic)

    async def _listen(self, topic: str, channel: _Channel) -> None:
        async with channel.lock:
            if not channel.listening:
                await self.backend.listen(topic)
                channel.listening = True
        if not self._open:
            raise PubSubClosed("the pub/sub has stopped")

    async def _leave(self, topic: str, channel: _Channel) -> None:
        """Give a topic up; the last one ends the backend's own subscription, also where it may only have begun."""
        channel.users -= 1
        if channel.users:
            return
        with anyio.move_on_after(UNLISTEN_TIMEOUT, shield=True) as scope:
            async with channel.lock:
                if channel.users:
                    return
                channel.listening = False
                # A pub/sub that has stopped meanwhile has other channels, if any.
                if self._channels.get(topic) is channel:
                    try:
                        await self.backend.unlisten(topic)
                    except Exception:
                        logger.exception("the pub/sub backend failed to stop listening to %r", topic)
        if scope.cancelled_caught:
            logger.warning("the pub/sub backend did not stop listening to %r in time", topic)
        if not channel.users and self._channels.get(topic) is channel:
            del self._channels[topic]

    def _check(self, topic: str) -> None:
        if not self._open:
            raise PubSubClosed(
                "the pub/sub does not run: use it while the application does, and see that the plugin that starts it "
                "is enabled (`covet plugins list`)"
            )
        try:
            size = len(topic.encode())
        except UnicodeEncodeError:
            raise PubSubError(f"a topic is text that can be sent as UTF-8, not {topic!r}") from None
        if not 0 < size <= MAX_TOPIC:
            raise PubSubError(f"a topic has 1 to {MAX_TOPIC} bytes as UTF-8, not {size}")


class _Subscribing(Protocol[Item]):
    """What `subscribe` gives: entered, it is the subscription."""

    async def __aenter__(self) -> Subscription[Item]: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None: ...


class PubSubRegistry(dict[str, PubSub]):
    """The pub/subs of an application by alias, kept in `app.state`."""


def get_pubsub(alias: str = "default", app: Covet | None = None) -> PubSub:
    """The pub/sub of `[pubsub.ALIAS]`.

    Args:
        alias: its name in the settings.
        app: the application; the one that is running here by default.

    Raises:
        ConfigurationError: there is no such table, or nobody brings its backend.
        NoApplicationError: no application is running here, and none was given.
    """
    from covet.context import current_app

    app = current_app() if app is None else app
    registry = app.state.get(PubSubRegistry)
    if registry is None:
        registry = app.state[PubSubRegistry] = PubSubRegistry()
    if alias not in registry:
        made = app.backends.configured("pubsub", alias)
        settings = made.settings
        registry[alias] = PubSub(
            made.backend,
            buffer=settings.buffer,
            buffer_bytes=settings.buffer_bytes,
            overflow=settings.overflow,
            max_bytes=settings.max_bytes,
        )
    return registry[alias]
