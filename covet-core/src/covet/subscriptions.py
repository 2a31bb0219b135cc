"""Messages, and the subscriptions that they wait in: the subscriber's side of `covet.pubsub`, which has them too."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, Literal, TypeVar, overload

import anyio
import anyio.lowlevel
import msgspec

from covet.exceptions import CovetError

__all__ = [
    "Gap",
    "Message",
    "Overflow",
    "PayloadTooLarge",
    "PubSubClosed",
    "PubSubError",
    "SlowSubscriber",
    "Subscription",
]

# How many messages a subscription hands out before other tasks have their turn.
TURN = 64

Overflow = Literal["drop_oldest", "drop_newest", "disconnect"]
"""What happens when a subscription's buffer is full: the oldest message in it is lost, or the one that came, or the
subscription ends with `SlowSubscriber`. A publisher is never made to wait: one slow subscriber would hold up all."""

T = TypeVar("T")
Item = TypeVar("Item", covariant=True)


class PubSubError(CovetError):
    """A message cannot be published, or a topic not be subscribed to. Also what backends raise when they are down."""


class PubSubClosed(PubSubError):  # noqa: N818 - it tells of a state
    """The pub/sub does not run: its application has not started yet, or has stopped."""


class PayloadTooLarge(PubSubError):  # noqa: N818 - it tells of a state
    """A payload has more bytes than the settings or the backend allow."""


class SlowSubscriber(PubSubError):  # noqa: N818 - it tells of a state
    """The subscription's buffer was full, and its policy is `disconnect`. What was in the buffer came before this."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message.

    Attributes:
        topic: what it was published to.
        payload: its bytes, at most as many as the settings allow.
    """

    topic: str
    payload: bytes

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, type: type[T]) -> T: ...
    def json(self, type: Any = Any) -> Any:
        """The payload, decoded from JSON and checked against a type.

        Raises:
            msgspec.DecodeError: it is no JSON, or does not fit the type.
        """
        return msgspec.json.decode(self.payload, type=type)


class Gap(msgspec.Struct, frozen=True, gc=False):
    """Stands where messages are missing, for a subscription made with `gaps=True`.

    Attributes:
        topic: whose messages are missing; None for any of the subscription's topics.
        lost: how many; None where nobody knows, since the backend had lost its connection.
        reason: `overflow` of the buffer, or `reconnected`.
    """

    topic: str | None
    lost: int | None
    reason: Literal["overflow", "reconnected"]


class Subscription(Generic[Item]):
    """A subscription while it lasts: an asynchronous iterator over its messages. `PubSub.subscribe` makes it.

    The iteration ends when the application drains (or stops, if so asked), after what was in the buffer. Cancelling it
    loses no message. One task iterates at a time.

    Attributes:
        topics: what it is subscribed to.
        dropped: how many messages its buffer had no room for.
        gaps: how often messages may have been lost on the way here.
    """

    def __init__(
        self, topics: tuple[str, ...], *, buffer: int, buffer_bytes: int, overflow: Overflow, gaps: bool, until: str
    ) -> None:
        self.topics = topics
        self.dropped = 0
        self.gaps = 0
        self.until = until
        self._buffer = buffer
        self._buffer_bytes = buffer_bytes
        self._overflow = overflow
        self._tell = gaps
        self._items: deque[Message | Gap] = deque()
        self._messages = 0
        self._bytes = 0
        self._missing = 0
        self._turn = 0
        self._ended = False
        self._failure: PubSubError | None = None
        self._wakeup: anyio.Event | None = None

    def __len__(self) -> int:
        """How many messages wait in the buffer."""
        return self._messages

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        self._turn += 1
        if self._turn >= TURN:
            self._turn = 0
            await anyio.lowlevel.checkpoint()
        while not self._items:
            if self._missing and self._tell:
                self._note_missing()
                break
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            if self._wakeup is not None:
                raise PubSubError("the subscription is iterated by another task; subscribe once for each")
            self._turn = 0
            self._wakeup = anyio.Event()
            try:
                await self._wakeup.wait()
            finally:
                self._wakeup = None
        item: Any = self._items.popleft()
        if isinstance(item, Message):
            self._messages -= 1
            self._bytes -= len(item.payload)
        return item  # type: ignore[no-any-return]

    # Called by the pub/sub

    def put(self, message: Message) -> None:
        """Take a message into the buffer, or do what the policy says."""
        if self._ended:
            return
        size = len(message.payload)
        while self._messages and (self._messages >= self._buffer or self._bytes + size > self._buffer_bytes):
            self.dropped += 1
            if self._overflow == "drop_oldest":
                self._drop_oldest()
                continue
            if self._overflow == "drop_newest":
                self._missing += 1
            else:
                self._failure = SlowSubscriber(
                    f"a subscription to {_shown(self.topics)} was ended: {self._messages} messages waited in its buffer"
                )
                self.end()
            return
        self._note_missing()
        self._items.append(message)
        self._messages += 1
        self._bytes += size
        self._wake()

    def put_gap(self, topic: str | None) -> None:
        """Note that messages may have been lost on the way here."""
        if self._ended:
            return
        self.gaps += 1
        if self._tell:
            self._note_missing()
            self._append_gap(Gap(topic, None, "reconnected"))
            self._wake()

    def end(self) -> None:
        """End the iteration after what is in the buffer. Idempotent."""
        self._ended = True
        self._wake()

    def _drop_oldest(self) -> None:
        """Drop the first message; a gap in its place says so."""
        gaps: list[Gap] = []
        while isinstance(item := self._items.popleft(), Gap):
            gaps.append(item)
        self._messages -= 1
        self._bytes -= len(item.payload)
        if self._tell:
            gaps.append(Gap(self._whose, 1, "overflow"))
            while self._items and isinstance(following := self._items[0], Gap):
                gaps.append(following)
                self._items.popleft()
            self._items.extendleft(reversed(self._merged(gaps)))

    def _note_missing(self) -> None:
        if self._missing and self._tell:
            self._append_gap(Gap(self._whose, self._missing, "overflow"))
            self._missing = 0

    def _append_gap(self, gap: Gap) -> None:
        gaps = [gap]
        while self._items and isinstance(before := self._items[-1], Gap):
            gaps.insert(0, before)
            self._items.pop()
        self._items.extend(self._merged(gaps))

    def _merged(self, gaps: list[Gap]) -> list[Gap]:
        """Neighbouring gaps as one of each kind, so that a connection that flaps unread does not fill the memory."""
        merged = []
        if lost := sum(gap.lost or 0 for gap in gaps):
            merged.append(Gap(self._whose, lost, "overflow"))
        if topics := {gap.topic for gap in gaps if gap.reason == "reconnected"}:
            merged.append(Gap(topics.pop() if len(topics) == 1 else None, None, "reconnected"))
        return merged

    @property
    def _whose(self) -> str | None:
        return self.topics[0] if len(self.topics) == 1 else None

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()


def _shown(topics: tuple[str, ...]) -> str:
    return ", ".join(repr(topic) for topic in topics)
