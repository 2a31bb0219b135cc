"""Running an ASGI application below a middleware of Covet's own kind.

`call_next` gives a response, an ASGI application sends one. So the application runs in a task of its own, in a task
group that spans the whole request, and what it sends becomes a streaming response. Context variables that it sets
are seen by the middleware above; when the middleware drops the response, the application sees a disconnected client;
cancelling `call_next` cancels it, and waits until it has ended.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from covet.concurrency import task_group
from covet.exceptions import ClientDisconnected, CovetError
from covet.responses import Response
from covet.streaming import StreamingResponse

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["Bridge", "bridged", "chained", "mounted", "terminal"]

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
Call = Callable[["Request"], Awaitable[Response]]

_INNER = "covet.inner"

logger = logging.getLogger("covet.request")


class Bridge:
    """The ASGI applications running below middleware in one request."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._bodies: list[MemoryObjectReceiveStream[bytes]] = []
        # What they raised and nobody has seen yet.
        self._failures: list[Exception] = []

    @classmethod
    @asynccontextmanager
    async def over(cls, request: Request) -> AsyncIterator[Bridge]:
        """A bridge that spans what is done with a request; applications whose response was dropped are told so.

        An application that fails when its response is complete, or dropped, can only be logged.
        """
        failures: list[Exception] = []
        async with task_group() as group:
            bridge = request.state[cls] = cls(group)
            failures = bridge._failures
            try:
                yield bridge
            finally:
                for body in bridge._bodies:
                    body.close()
        for error in failures:
            if isinstance(error, ClientDisconnected):
                logger.debug("%s %s: the client left an ASGI application", request.method, request.path)
                continue
            logger.error(
                "%s %s: an ASGI application failed after its response", request.method, request.path, exc_info=error
            )
            request.scope.get("covet.failures", []).append(error)

    async def call(self, app: ASGIApp, scope: Any, receive: Any) -> Response:
        """Run `app` until it starts a response, and return that; the rest comes as the response is sent.

        Cancellation cancels the application, and waits until it has ended.

        Raises:
            Exception: what the application raised before it started a response.
            CovetError: it ended without one.
        """
        exchange = _Exchange(self, scope["method"])
        self._bodies.append(exchange.body)
        # What a server offers to a response, such as sending a file by its path, would pass by the middleware.
        self._group.start_soon(exchange.run, app, {**scope, "extensions": {}}, receive)
        try:
            await exchange.began.wait()
        except BaseException:
            exchange.task.cancel()
            with anyio.CancelScope(shield=True):
                await exchange.ended.wait()
            raise
        assert exchange.context is not None
        _adopt(exchange.context)
        if exchange.start is None:
            raise exchange.seen() or CovetError("the ASGI application ended without a response")
        start = exchange.start
        # Not watched: the application may still receive the request's body, and hears itself that the client leaves.
        response = StreamingResponse(exchange.rest(), start["status"], watch=False)
        response.headers.raw[:] = [(bytes(name).lower(), bytes(value)) for name, value in start.get("headers", ())]
        return response

    def failed(self, error: Exception) -> None:
        """Note an error, to be logged if nobody asks for it."""
        self._failures.append(error)

    def forget(self, error: Exception) -> None:
        """An error was raised to somebody."""
        self._failures.remove(error)


class _Exchange:
    """One application answering one request."""

    def __init__(self, bridge: Bridge, method: str) -> None:
        self.began, self.ended = anyio.Event(), anyio.Event()
        self.task = anyio.CancelScope()
        self.start: Any = None
        self.context: Context | None = None
        self._sender, self.body = anyio.create_memory_object_stream[bytes](0)
        self._bridge = bridge
        self._without_body = method == "HEAD"
        self._complete = False
        self._dropped = False
        self._failure: Exception | None = None

    async def run(self, app: ASGIApp, scope: Any, receive: Any) -> None:
        """Run the application."""
        try:
            with self.task:
                await app(scope, receive, self.send)
        except Exception as error:  # noqa: BLE001 - raised to who waits for the response, or logged
            # Sending to nobody is an OSError, and no fault of the application.
            if not (self._dropped and isinstance(error, OSError | ClientDisconnected)):
                self._failure = error
                self._bridge.failed(error)
        finally:
            if self.context is None:
                self.context = copy_context()
            self.began.set()
            self._sender.close()
            self.ended.set()

    async def send(self, message: Any) -> None:
        """The ASGI callable that takes the response.

        Raises:
            OSError: a middleware has dropped the response.
            CovetError: the application breaks the rules of the ASGI specification.
        """
        kind = message["type"]
        if kind == "http.response.start" and self.start is None:
            self.start, self.context = message, copy_context()
            self.began.set()
        elif kind == "http.response.body" and self.start is not None and not self._complete:
            content = b"" if self._without_body else bytes(message.get("body") or b"")
            if content:
                try:
                    await self._sender.send(content)
                except anyio.BrokenResourceError:
                    self._dropped = True
                    raise OSError("the response was dropped by a middleware") from None
            if not message.get("more_body", False):
                # Not when the application ends: it may have work to do after its response.
                self._complete = True
                self._sender.close()
        else:
            when = "after the end" if self._complete else "before the start" if self.start is None else "in the middle"
            raise CovetError(f"an ASGI application sent {kind!r} {when} of its response")

    async def rest(self) -> AsyncIterator[bytes]:
        """What comes after the start of the response."""
        async with self.body:
            async for chunk in self.body:
                yield chunk
        if not self._complete:
            raise self.seen() or CovetError("the ASGI application ended in the middle of its response")

    def seen(self) -> Exception | None:
        """What the application raised, if it did; whoever asks raises it."""
        if self._failure is not None:
            self._bridge.forget(self._failure)
        return self._failure


def bridged(app: ASGIApp, inner: Call) -> Call:
    """An ASGI middleware as a call: `app` was made around `terminal`, which goes on with `inner`."""

    async def call(request: Request) -> Response:
        return await request.state[Bridge].call(app, {**request.scope, _INNER: (request, inner)}, request.receive)

    return call


def mounted(app: ASGIApp, child_scope: Callable[[Any], Any]) -> Call:
    """A mounted ASGI application as a call; `child_scope` makes its scope of the request's."""

    async def call(request: Request) -> Response:
        return await request.state[Bridge].call(app, child_scope(request.scope), request.receive)

    return call


def chained(apps: Iterable[ASGIApp], inner: ASGIApp) -> ASGIApp:
    """ASGI middleware, outermost first, each made around `terminal`, around what serves WebSockets."""
    for app in reversed(list(apps)):
        inner = _around(app, inner)
    return inner


def _around(app: ASGIApp, inner: ASGIApp) -> ASGIApp:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, _INNER: inner}, receive, send)

    return serve


async def terminal(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application inside an ASGI middleware: goes on with what `bridged` or `chained` noted.

    Raises:
        CovetError: the middleware made a new scope without what stood in its own.
    """
    if _INNER not in scope:
        raise CovetError(
            "an ASGI middleware passed on a scope that lacks what stood in its own; it has to copy it: `{**scope, ...}`"
        )
    if scope["type"] == "websocket":
        await scope[_INNER](scope, receive, send)
        return
    request, inner = scope[_INNER]
    request.rebind(scope, receive)
    response = await inner(request)
    await response(scope, receive, send)


def _adopt(context: Context) -> None:
    """Set the context variables that another task has set since it was started from this one."""
    for variable, value in context.items():
        if variable.get(None) is not value:
            variable.set(value)
