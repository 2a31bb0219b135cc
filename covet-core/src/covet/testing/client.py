"""A client that talks to an application in the same process and event loop, without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from covet.applications import Covet
from covet.exceptions import CovetError, WebSocketDisconnected
from covet.lifespan import mounted_lifespan
from covet.routing import Mount
from covet.testing.asgi import EXCHANGE, FAILURES, ASGIApp, Body, Transport
from covet.testing.websocket import TestWebSocket

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["TestClient"]


class TestClient(httpx.AsyncClient):
    """An asynchronous HTTP client of an ASGI application; everything that `httpx.AsyncClient` can do.

        async with TestClient(app) as client:
            response = await client.get("/users", params={"page": 2})

    The application runs in the test's own event loop, asyncio or trio, each request in a task of its own. A call
    returns when the application has ended with the request, clean-up and what `Request.after` was given included.
    Responses are streamed (`client.stream`); a test that reads one in part iterates over `response.stream`, as trio
    warns of httpx's own iterators when they are left early.

    The application sees a client that has left when a response is closed before its end, and when `timeout=` (seconds)
    passes without an answer; there is no timeout otherwise. Cancelling a call cancels the application's task, as a
    server does at its shutdown.

    Args:
        app: the application: of Covet, or any other that speaks ASGI 3.
        lifespan: whether to start the application on entering, and to stop it on leaving.
        raise_errors: whether an error that nobody handles is raised by the call that caused it. Without, it is the
            response that a client on the network would see: a page with status 500, or a connection that breaks.
        wait_for_tasks: whether a call waits for what `Request.after` was given. Without, that is done at the latest
            when the client is left.
        overrides: what stands in for dependencies: `{provider_or_type: replacement}`, as for `Covet.override`.
        base_url: https, as otherwise cookies would not come back that are sent over secure connections only.
        client: the address and port that the application sees.
        same_origin: whether requests say that they come from a page of the application itself, as browsers do with
            `Sec-Fetch-Site`, so that CSRF protection lets them pass. Without, nothing says where they come from; what
            pages of another site send is tested with `headers={"sec-fetch-site": "cross-site"}`.
        headers, cookies, follow_redirects: as for `httpx.AsyncClient`.

    Entering raises what the application raises when it starts; leaving, what it raises when it stops, and `CovetError`
    if a request is still being served 5 seconds after its client has left.
    """

    __test__ = False  # nothing for pytest to collect

    def __init__(
        self,
        app: ASGIApp,
        *,
        lifespan: bool = True,
        raise_errors: bool = True,
        wait_for_tasks: bool = True,
        overrides: Mapping[Any, Any] | None = None,
        base_url: str = "https://localhost",
        client: tuple[str, int] = ("127.0.0.1", 50000),
        same_origin: bool = True,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        follow_redirects: bool = False,
    ) -> None:
        if overrides and not isinstance(app, Covet):
            raise CovetError(f"overrides are for applications of Covet, and this is {app!r}")
        self.app = app
        self._lifespan = lifespan
        self._overrides = overrides
        self._stack = AsyncExitStack()
        self._asgi = Transport(app, client, raise_errors=raise_errors, wait_for_tasks=wait_for_tasks)
        super().__init__(
            transport=self._asgi,
            base_url=base_url,
            headers={**({"sec-fetch-site": "same-origin"} if same_origin else {}), **(headers or {})},
            cookies=dict(cookies or {}),
            follow_redirects=follow_redirects,
            timeout=None,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        with _single():
            async with AsyncExitStack() as stack:
                await self._start(stack)
                self._stack = stack.pop_all()
        return self

    async def _start(self, stack: AsyncExitStack) -> None:
        app = self.app
        if isinstance(app, Covet):
            if self._overrides:
                stack.enter_context(app.override(self._overrides))
            if self._lifespan:
                await stack.enter_async_context(app.running())
            if self._asgi.raise_errors:
                stack.enter_context(_hear_failures(app))
        elif self._lifespan:
            states: dict[str, dict[str, Any]] = {}
            await stack.enter_async_context(mounted_lifespan(Mount("", app), states))
            self._asgi.state = states[""]
        await super().__aenter__()
        stack.push_async_exit(super().__aexit__)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        # An application never sees what goes wrong in its client. It would also come back in an exception group.
        ours = isinstance(exc_value, Exception)
        with _single():
            await self._stack.__aexit__(*((None, None, None) if ours else (exc_type, exc_value, traceback)))

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send a request; as `httpx.AsyncClient.send`.

        Raises:
            Exception: what the application raised, if errors are to be raised.
        """
        response = await super().send(request, stream=stream, **options)
        exchange = response.extensions.get(EXCHANGE)
        if stream and exchange is not None and isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = Body(exchange, response.stream)
        return response

    @asynccontextmanager
    async def websocket(
        self,
        path: str,
        *,
        subprotocols: Sequence[str] = (),
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[TestWebSocket]:
        """Open a WebSocket; leaving the context closes it with code 1000 and waits until the application has ended.

        Args:
            path: the path, or a whole URL.
            subprotocols: those that the client offers.
            params: the query.
            headers: beside those of the handshake.

        Raises:
            WebSocketDenied: the application refused it.
            Exception: what the application raised, if errors are to be raised.
        """
        handshake = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
                     "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        if subprotocols:
            handshake["sec-websocket-protocol"] = ", ".join(subprotocols)
        request = self.build_request("GET", path, params=params, headers={**handshake, **(headers or {})})
        scope = self._asgi.scope(
            request, type="websocket", subprotocols=list(subprotocols), extensions={"websocket.http.response": {}}
        )
        scope["scheme"] = "wss" if request.url.scheme in ("https", "wss") else "ws"
        group = self._asgi.entered(request)
        socket = TestWebSocket(self.app, request, scope, raise_errors=self._asgi.raise_errors)
        self._asgi.take(socket)
        await socket.connect(group)
        self.cookies.extract_cookies(httpx.Response(101, headers=socket.headers, request=request))
        try:
            yield socket
        except WebSocketDisconnected:
            # What the application raises after it has closed explains more.
            await socket.close()
            raise
        except BaseException:
            socket.leave()
            raise
        await socket.close()


@contextmanager
def _single() -> Iterator[None]:
    """Raise the one error that a group is wrapped around, as a test wants to see it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


@contextmanager
def _hear_failures(app: Covet) -> Iterator[None]:
    """Note the errors that the application answers with a page of its own, each with the request it came from."""
    hooks = app.hooks
    told = hooks.request_failed

    async def hear(request: Request, error: Exception) -> None:
        request.scope.get(FAILURES, []).append(error)
        if told is not None:
            await told(request, error)

    hooks.request_failed = hear
    try:
        yield
    finally:
        hooks.request_failed = told
