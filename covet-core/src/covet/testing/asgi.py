"""Serving requests of an ASGI application without a network, as a server would: streaming, with disconnects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

import anyio
import httpx
from anyio.abc import TaskGroup

from covet.connections import Message, Scope
from covet.exceptions import CovetError
from covet.streaming import close

__all__ = ["AFTER", "EXCHANGE", "FAILURES", "ASGIApp", "Body", "Exchange", "Served", "Transport"]

T = TypeVar("T")

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

FAILURES = "covet.failures"
"""The scope's key of a list that takes the errors which an application answers with a 500 page of its own."""

EXCHANGE = "covet.exchange"
"""The key in a response's extensions under which its `Exchange` stands."""

AFTER = "covet.after"
"""The scope's key of a list that takes an event for each work after a response, set when that is done."""

PATIENCE = 5.0
"""Seconds that an application gets to notice that its client has left."""

# How many messages an application may be ahead of its client: it stands for the buffers of a socket.
BUFFERED = 16


class Served(ABC):
    """A connection that an application serves in a task of its own.

    Args:
        app: the application.
        request: the request, or the WebSocket's handshake.
        scope: the ASGI scope.
        raise_errors: whether errors of the application are raised to the client, or seen as over a network.
    """

    def __init__(self, app: ASGIApp, request: httpx.Request, scope: Scope, *, raise_errors: bool) -> None:
        self.request = request
        self.left = False
        self.ended = anyio.Event()
        self._app = app
        self._scope = scope
        self._raise_errors = raise_errors
        self._failures: list[Exception] = scope.setdefault(FAILURES, [])
        self._task = anyio.CancelScope()

    def __str__(self) -> str:
        return f"{self.request.method} {self.request.url.path}"

    @abstractmethod
    async def receive(self) -> Message:
        """The ASGI callable that gives the application the next message."""

    @abstractmethod
    async def send(self, message: Message) -> None:
        """The ASGI callable that takes a message of the application."""

    def leave(self) -> None:
        """Let the application see that the client has left. Idempotent."""
        self.left = True

    def finish(self) -> None:
        """Called when the application has ended, however it did."""
        return

    def complaint(self) -> str | None:
        """What is wrong when the application ends now."""
        return None

    async def run(self) -> None:
        """Run the application; what it raises is kept for the client."""
        try:
            with self._task:
                await self._app(self._scope, self.receive, self.send)
                complaint = None if self.left else self.complaint()
                if complaint is not None:
                    raise CovetError(f"the application ended {complaint} to {self}")
        except Exception as error:  # noqa: BLE001 - it is raised to the client
            # Sending to a client that has left is an OSError, and no fault of the application.
            if not (self.left and isinstance(error, OSError)) and not any(error is other for other in self._failures):
                self._failures.append(error)
        finally:
            self.finish()
            self.ended.set()

    async def end(self) -> None:
        """Wait until the application has ended, at most 5 seconds.

        Raises:
            CovetError: it had not noticed that the client has left, and was cancelled.
        """
        with anyio.move_on_after(PATIENCE):
            await self.ended.wait()
        if not self.ended.is_set():
            self._task.cancel()
            raise CovetError(
                f"the client of {self} has left, the application had not noticed after {PATIENCE:g} seconds, and was "
                "cancelled; what waits for something else has to watch for the client's leaving too"
            )

    def raise_failure(self) -> None:
        """Raise what the application raised, once, if errors are to be raised."""
        if self._raise_errors and self._failures:
            failure = self._failures[0]
            self._failures.clear()
            raise failure


class Exchange(Served, httpx.AsyncByteStream):
    """An HTTP request being served; to httpx it is the body of the response."""

    def __init__(self, app: ASGIApp, request: httpx.Request, scope: Scope, *, raise_errors: bool) -> None:
        super().__init__(app, request, scope, raise_errors=raise_errors)
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._started = anyio.Event()
        self._complete = False
        # Set when there is nothing to receive any more but `http.disconnect`.
        self._over = anyio.Event()
        self._chunks, self._body = anyio.create_memory_object_stream[bytes](BUFFERED)
        self._pieces, self._upload = anyio.create_memory_object_stream[bytes](0)
        self._upload_error: Exception | None = None
        self._uploaded = False
        self._timeout: float | None = request.extensions.get("timeout", {}).get("read")

    # The client's side

    async def start(self, group: TaskGroup) -> None:
        """Begin to serve; return when the application has started its response.

        Cancellation cancels the application, as a server does at its shutdown.

        Raises:
            httpx.ReadTimeout: the request's timeout has passed; the application has seen that the client left.
            Exception: what the application raised, if errors are to be raised, or what the request's body raised.
        """
        if not isinstance(self.request.stream, httpx.ByteStream):
            group.start_soon(self._feed)
        group.start_soon(self.run)
        try:
            await self._in_time(self._started.wait())
            if self._upload_error is not None:
                raise self._upload_error
            if self._raise_errors and self._failures:
                # Let the application finish its error page, so that all its clean-up has happened.
                async for _ in self._body:
                    continue
                await self.ended.wait()
                self.raise_failure()
        except Exception:
            await self.aclose()
            raise
        except BaseException:
            self.leave()
            self._task.cancel()
            raise

    async def _in_time(self, waiting: Awaitable[T]) -> T:
        """Wait as long as httpx's read timeout allows."""
        try:
            with anyio.fail_after(self._timeout):
                return await waiting
        except TimeoutError:
            raise httpx.ReadTimeout(f"no answer to {self} in {self._timeout} seconds", request=self.request) from None

    def __aiter__(self) -> AsyncIterator[bytes]:
        # No generator: trio warns of one that a test does not read to its end.
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the response's body.

        Raises:
            Exception: what the application raised, if errors are to be raised.
            httpx.ReadTimeout: the request's timeout has passed.
            httpx.RemoteProtocolError: the application ended in the middle of its response.
        """
        with suppress(anyio.EndOfStream):
            return await self._in_time(self._body.receive())
        if self._complete:
            # Over a network nobody knows when a handler ends; a test wants its clean-up to have happened.
            await self.ended.wait()
            for done in self._scope.get(AFTER, ()):
                await done.wait()
        self.raise_failure()
        if not self._complete:
            raise httpx.RemoteProtocolError(f"the application broke off its response to {self}", request=self.request)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave, and wait until the application has ended.

        Raises:
            Exception: what the application raised meanwhile, if errors are to be raised.
            CovetError: it went on for 5 seconds, and was cancelled.
        """
        self.leave()
        await self.end()
        self.raise_failure()

    def leave(self) -> None:
        """Let the application receive `http.disconnect`; what it sends raises OSError."""
        self.left = True
        self._over.set()
        self._pieces.close()
        self._body.close()

    async def _feed(self) -> None:
        """Pass on a body that comes in pieces as the application takes it."""
        stream = self.request.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        async with anyio.create_task_group() as group:

            async def until_over() -> None:
                await self._over.wait()
                group.cancel_scope.cancel()

            group.start_soon(until_over)
            pieces = aiter(stream)
            try:
                async for piece in pieces:
                    await self._pieces.send(piece)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                # The application has ended without reading all of it.
                self._over.set()
            except Exception as error:  # noqa: BLE001 - it is raised to the client
                self._upload_error = error
                self._over.set()
            finally:
                await close(pieces)
            group.cancel_scope.cancel()
        self._pieces.close()

    # The application's side

    async def receive(self) -> Message:
        """The body, then `http.disconnect` when the response is complete or the client has left."""
        # No cancel scope here: an application may step this by hand, and enter scopes of its own in between.
        if not self._uploaded and not self._over.is_set():
            stream = self.request.stream
            if isinstance(stream, httpx.ByteStream):
                self._uploaded = True
                return {"type": "http.request", "body": b"".join(stream), "more_body": False}
            try:
                return {"type": "http.request", "body": await self._upload.receive(), "more_body": True}
            except anyio.EndOfStream:
                self._uploaded = True
            if not self._over.is_set():
                return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take the response.

        Raises:
            OSError: the client has left.
            CovetError: the application breaks the rules of the ASGI specification.
        """
        if self.left:
            raise OSError(f"the client of {self} has left")
        kind = message["type"]
        if kind == "http.response.start" and not self.status:
            self.status = message["status"]
            self.headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            self._started.set()
        elif kind == "http.response.body" and self.status and not self._complete:
            chunk = bytes(message.get("body", b""))
            if chunk and self.request.method != "HEAD":
                try:
                    await self._chunks.send(chunk)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    raise OSError(f"the client of {self} has left") from None
            if not message.get("more_body", False):
                self._complete = True
                self._over.set()
                self._chunks.close()
        else:
            when = "after its response was complete" if self._complete else "after" if self.status else "before"
            raise CovetError(f"the application sent {kind!r} {when} http.response.start in answer to {self}")

    def complaint(self) -> str | None:
        """An application has to complete its response."""
        if self._complete:
            return None
        return "in the middle of its response" if self.status else "without a response"

    def finish(self) -> None:
        """Let a client that waits for the response go on."""
        if not self.status:
            # What servers answer for an application that raises.
            self.status, self.headers, self._complete = 500, [(b"content-length", b"0")], True
        self._over.set()
        self._chunks.close()
        self._upload.close()
        if isinstance(self.request.stream, httpx.ByteStream):
            self._pieces.close()
        self._started.set()


class Body(httpx.AsyncByteStream):
    """The body of a response that is read as it comes.

    httpx puts a generator of its own around it, of which trio warns when it is not read to its end.
    """

    def __init__(self, exchange: Exchange, bound: httpx.AsyncByteStream) -> None:
        self._exchange = exchange
        self._bound = bound

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._exchange)

    async def aclose(self) -> None:
        """Close it. Raises as `Exchange.aclose`."""
        await self._bound.aclose()


class Transport(httpx.AsyncBaseTransport):
    """Hands requests to an application, each in a task of its own. Enter it before the first.

    Attributes:
        app: the application.
        raise_errors: whether its errors are raised to the client.
        wait_for_tasks: whether a response is complete only when the work after it is done.
        state: what its lifespan has put into the scope's `state`.
    """

    def __init__(self, app: ASGIApp, client: tuple[str, int], *, raise_errors: bool, wait_for_tasks: bool) -> None:
        self.state: dict[str, Any] = {}
        self.app = app
        self.raise_errors = raise_errors
        self.wait_for_tasks = wait_for_tasks
        self._client = client
        self._group: TaskGroup | None = None
        self._open: set[Served] = set()

    async def __aenter__(self) -> Transport:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        group, self._group = self._group, None
        assert group is not None
        late: list[CovetError] = []
        try:
            for served in tuple(self._open):
                served.leave()
            for served in tuple(self._open):
                try:
                    await served.end()
                except CovetError as error:
                    late.append(error)
        finally:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)
        if late:
            raise late[0]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Serve a request; returns when the application has started its response."""
        group = self.entered(request)
        scope = self.scope(request, type="http", method=request.method, extensions={})
        if self.wait_for_tasks:
            scope[AFTER] = []
        exchange = Exchange(self.app, request, scope, raise_errors=self.raise_errors)
        self.take(exchange)
        await exchange.start(group)
        return httpx.Response(
            exchange.status, headers=exchange.headers, stream=exchange, extensions={EXCHANGE: exchange}, request=request
        )

    def entered(self, request: httpx.Request) -> TaskGroup:
        """The task group to serve a connection in.

        Raises:
            CovetError: the client is not entered, or is closed.
        """
        if self._group is None:
            raise CovetError(
                f"{request.method} {request.url.path} has no application to go to: make requests inside of "
                "`async with TestClient(app) as client:`"
            )
        return self._group

    def take(self, served: Served) -> None:
        """Note a connection. Those that are still open at the end are told that the client left."""
        self._open = {other for other in self._open if not other.ended.is_set()}
        self._open.add(served)

    def scope(self, request: httpx.Request, **parts: Any) -> dict[str, Any]:
        """The ASGI scope of a connection."""
        url = request.url
        return {
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": self._client,
            "server": (url.host, url.port or (443 if url.scheme in ("https", "wss") else 80)),
            "state": self.state.copy(),
            **parts,
        }
