"""Who gets messages: functions by topic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar

from covet.pubsub import PubSub, get_pubsub
from covet_orm.outbox.messages import Message, OutboxError, checked_topic, kept_payload

__all__ = ["Handler", "Handlers", "publish_to"]

Handler = Callable[[Message], Awaitable[object]]
"""Gets a message; when it returns, the message is delivered, and when it raises, it is tried again."""

F = TypeVar("F", bound=Handler)


class Handlers(Mapping[str, Handler]):
    """Functions by topic, registered by a decorator:

        handlers = Handlers()

        @handlers.on("orders.created")
        async def send_mail(message: Message) -> None: ...

    A worker takes any mapping of that kind.
    """

    def __init__(self) -> None:
        self._found: dict[str, Handler] = {}

    def on(self, *topics: str) -> Callable[[F], F]:
        """Register the function for topics.

        Raises:
            OutboxError: one of them has a function already, or is none.
        """

        def register(function: F) -> F:
            for topic in topics:
                if checked_topic(topic) in self._found:
                    raise OutboxError(f"the topic {topic!r} has a handler already: {self._found[topic]!r}")
                self._found[topic] = function
            return function

        return register

    def __getitem__(self, topic: str) -> Handler:
        return self._found[topic]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def publish_to(pubsub: PubSub | str = "default", *, topic: str | None = None) -> Handler:
    """A handler that passes messages on to the kernel's pub/sub: their payload as JSON, or the bytes as they are.

    From there a message goes at most once to whoever is subscribed at that moment.

    Args:
        pubsub: to which; or its alias in the application that is running.
        topic: to which topic; that of the message by default.
    """

    async def forward(message: Message) -> None:
        to = get_pubsub(pubsub) if isinstance(pubsub, str) else pubsub
        text, data = kept_payload(message.payload)
        await to.publish(topic or message.topic, text.encode() if text is not None else data or b"")

    return forward
