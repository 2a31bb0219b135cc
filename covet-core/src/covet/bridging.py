"""Running an ASGI application below a middleware of Covet's own kind.

`call_next` gives a response, an ASGI application sends one. So the application runs in a task of its own, in a task
group that spans the whole request, and what it sends becomes a streaming response. Context variables that it sets
are seen by the middleware above; when the middleware drops the response, the application sees a disconnected client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from covet.concurrency import task_group
from covet.exceptions import CovetError
from covet.responses import Response
from covet.streaming import StreamingResponse

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["Bridge", "bridged", "mounted", "terminal"]

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
Call = Callable[["Request"], Awaitable[Response]]

_KEY = "covet.bridge"
_INNER = "covet.inner"


class Bridge:
    """The ASGI applications running below middleware in one request."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._bodies: list[MemoryObjectReceiveStream[bytes]] = []

    @classmethod
    @asynccontextmanager
    async def over(cls, request: Request) -> AsyncIterator[Bridge]:
        """A bridge that spans what is done with a request; applications whose response was dropped are told so."""
        async with task_group() as group:
            bridge = request.scope[_KEY] = cls(group)
            try:
                yield bridge
            finally:
                for body in bridge._bodies:
                    body.close()

    async def call(self, app: ASGIApp, scope: Any, receive: Any) -> Response:
        """Run `app` until it starts a response, and return that; the rest comes as the response is sent.

        Raises:
            Exception: what the application raised before it started a response.
            CovetError: it ended without one.
        """
        sender, body = anyio.create_memory_object_stream[bytes](0)
        self._bodies.append(body)
        began = anyio.Event()
        start: dict[str, Any] = {}
        failures: list[Exception] = []
        context: list[Context] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                context.append(copy_context())
                began.set()
            elif message["type"] == "http.response.body" and message.get("body"):
                try:
                    await sender.send(bytes(message["body"]))
                except anyio.BrokenResourceError:
                    raise OSError("the response was dropped by a middleware") from None

        async def run() -> None:
            try:
                await app(scope, receive, send)
            except Exception as error:
                failures.append(error)
            finally:
                if not began.is_set():
                    context.append(copy_context())
                began.set()
                sender.close()

        self._group.start_soon(run)
        await began.wait()
        _adopt(context[0])
        if not start:
            raise failures[0] if failures else CovetError("the ASGI application ended without a response")

        async def rest() -> AsyncIterator[bytes]:
            async with body:
                async for chunk in body:
                    yield chunk
            if failures:
                raise failures[0]

        response = StreamingResponse(rest(), start["status"])
        response.headers.raw[:] = [(bytes(name).lower(), bytes(value)) for name, value in start.get("headers", ())]
        return response


def bridged(app: ASGIApp, inner: Call) -> Call:
    """An ASGI middleware as a call: `app` was made around `terminal`, which goes on with `inner`."""

    async def call(request: Request) -> Response:
        bridge: Bridge = request.scope[_KEY]
        return await bridge.call(app, {**request.scope, _INNER: (request, inner)}, request.receive)

    return call


def mounted(app: ASGIApp, child_scope: Callable[[Any], Any]) -> Call:
    """A mounted ASGI application as a call; `child_scope` makes its scope of the request's."""

    async def call(request: Request) -> Response:
        bridge: Bridge = request.scope[_KEY]
        return await bridge.call(app, child_scope(request.scope), request.receive)

    return call


async def terminal(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application inside an ASGI middleware: goes on with the request that `bridged` noted."""
    request, inner = scope[_INNER]
    request.scope, request.receive = scope, receive
    response = await inner(request)
    await response(scope, receive, send)


def _adopt(context: Context) -> None:
    """Set the context variables that another task has set since it was started from this one."""
    for variable, value in context.items():
        if variable.get(None) is not value:
            variable.set(value)
