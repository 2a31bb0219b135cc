"""The builtin plugin `pubsub`: runs the pub/subs of the settings, and brings the backend `memory`.

`memory` carries messages within one process: with several workers, each has messages of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from covet.backends import Backend
from covet.hooks import hookimpl
from covet.parameters import Depends
from covet.pubsub import PubSub, PubSubRegistry, get_pubsub

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.pubsub import Receiver

__all__ = [
    "MemoryPubSub",
    "covet_dependencies",
    "covet_draining",
    "covet_lifespan",
    "covet_pubsub_backends",
    "covet_setup",
]


class MemoryPubSub:
    """A backend that carries messages within one process. A message costs as much as its topic has subscribers."""

    max_payload: int | None = None

    def __init__(self) -> None:
        self._receiver: Receiver | None = None
        self._topics: set[str] = set()

    @asynccontextmanager
    async def connect(self, receiver: Receiver) -> AsyncIterator[None]:
        """Deliver to `receiver` while the context lasts."""
        self._receiver = receiver
        try:
            yield
        finally:
            self._receiver = None
            self._topics.clear()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Deliver a message. Other tasks have their turn first; cancelled then, nothing was sent."""
        await anyio.lowlevel.checkpoint()
        if self._receiver is not None and topic in self._topics:
            self._receiver.deliver(topic, payload)

    async def listen(self, topic: str) -> None:
        """Deliver the topic's messages."""
        self._topics.add(topic)

    async def unlisten(self, topic: str) -> None:
        """Deliver the topic's messages no more."""
        self._topics.discard(topic)


@hookimpl
def covet_pubsub_backends() -> Mapping[str, Backend]:
    """The backend `memory`."""
    return {"memory": Backend(lambda app, alias, settings: MemoryPubSub())}


@hookimpl
def covet_setup(app: Covet) -> None:
    """Make the pub/subs that the settings name, and the one called `default`."""
    app.state[PubSubRegistry] = PubSubRegistry()
    for alias in dict.fromkeys(["default", *app.settings.backed["pubsub"]]):
        get_pubsub(alias, app)


@hookimpl
def covet_dependencies(app: Covet) -> Mapping[type, Callable[..., Any] | Depends]:
    """A handler that asks for `PubSub` is given the one called `default`."""

    def default() -> PubSub:
        return get_pubsub("default", app)

    return {PubSub: Depends(default, scope="app")}


@hookimpl
@asynccontextmanager
async def covet_lifespan(app: Covet) -> AsyncIterator[None]:
    """Run them while the application runs. A plugin that subscribes in its own lifespan comes after this one."""
    async with AsyncExitStack() as stack:
        for pubsub in app.state[PubSubRegistry].values():
            await stack.enter_async_context(pubsub)
        yield


@hookimpl
def covet_draining(app: Covet) -> None:
    """End the subscriptions, so that the streams that they feed end well."""
    for pubsub in app.state[PubSubRegistry].values():
        pubsub.drain()
