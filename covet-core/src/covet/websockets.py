"""WebSocket connections (RFC 6455, over ASGI), as a handler sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import anyio

from covet.connections import Connection
from covet.exceptions import CovetError, HTTPError, ValidationError, WebSocketDisconnected

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from covet.applications import Covet
    from covet.connections import Message, Receive, Scope
    from covet.responses import HeaderSource
    from covet.routing import WebSocketRoute

__all__ = ["WebSocket", "stopping"]

T = TypeVar("T")
Send = Callable[["Message"], Awaitable[None]]

# RFC 6455 section 7.4.1, and the registry of IANA that it founded.
NORMAL, UNSUPPORTED_DATA, INVALID_DATA, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1000, 1003, 1007, 1008, 1009, 1011
GOING_AWAY, NO_STATUS, BROKEN = 1001, 1005, 1006

# What the status of an HTTPError is to a connection that is open already.
_CODES = {400: INVALID_DATA, 422: INVALID_DATA, 413: TOO_BIG, 415: UNSUPPORTED_DATA}

# A control frame holds 125 bytes (section 5.5), and two of them are the code.
MAX_REASON = 123

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class WebSocket(Connection):
    """A WebSocket connection.

    A handler accepts it, receives and sends, and closes it:

        @app.websocket("/echo")
        async def echo(socket: WebSocket) -> None:
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_text(text)

    What it leaves open when it returns is closed with code 1000. An `HTTPError` that it raises answers the handshake
    with that status; after `accept` it closes the connection with the code that says the same. So does what the peer
    does wrong: a message of the wrong kind, too large, or not of the type that was asked for raises an `HTTPError`, and
    a handler that would rather go on catches it.

    When the application is about to stop, the connection is closed with code 1001, and the handler learns of it as of a
    peer that has left. One that does not end by itself is cancelled after `[server] shutdown_timeout` seconds.

    One task may receive while others send. Cancelling a call that receives loses no message, unless one was just being
    handed over.

    Attributes:
        receive, send: the ASGI callables; what goes through them directly is not checked here.
        phase: `connecting`, `open` or `closed`.
        subprotocol: the one that was accepted, or None.
    """

    __slots__ = (
        "_ahead", "_early", "_gone", "_goodbye", "_group", "_looking", "_sent", "_waiting", "phase", "send",
        "subprotocol",
    )  # fmt: skip

    route: WebSocketRoute | None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        app: Covet,
        route: WebSocketRoute | None = None,
        values: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(scope, receive, app, route, values)
        self.send = send
        self.phase: Literal["connecting", "open", "closed"] = "connecting"
        self.subprotocol: str | None = None
        self._goodbye: tuple[int, str] | None = None
        # Around who receives.
        self._waiting: anyio.CancelScope | None = None
        # Set when the close that the application's stopping asks for was sent.
        self._gone: anyio.Event | None = None
        self._looking: anyio.CancelScope | None = None
        # How many messages were sent in a row; whether one is being received ahead meanwhile; and that one.
        self._sent = 0
        self._ahead: anyio.Event | None = None
        self._early: Message | Exception | None = None
        self._group: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<WebSocket {self.path} {self.phase}>"

    # The handshake

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the peer offers, in its order of preference.

        What is no token (RFC 6455 section 4.1) is left out: some servers die of answering with it.
        """
        return [name for name in self.scope.get("subprotocols") or () if name and _TOKEN.issuperset(name)]

    @property
    def origin(self) -> str | None:
        """The origin of the page whose script connects, in lower case; None where the peer is no browser.

        Raises:
            HTTPError: 400: the handshake has several `Origin` headers; and as `headers`.
        """
        lines = self.headers.getlist("origin")
        if len(lines) > 1:
            raise HTTPError(400, "a handshake has at most one Origin header")
        return lines[0].lower() if lines else None

    async def accept(
        self,
        subprotocol: str | None = None,
        headers: HeaderSource | None = None,
        *,
        origins: Collection[str] = (),
    ) -> None:
        """Accept the connection.

        A browser lets the scripts of every page connect to every server, and sends the cookies along. So a handshake
        from a page of another host is refused (RFC 6455 section 10.2, ASVS 4.4.2), unless `origins` names it. One
        without an origin comes from no browser, and passes.

        Args:
            subprotocol: one of `subprotocols`.
            headers: further headers of the handshake's response, such as `set-cookie`.
            origins: whose pages may connect beside the host's own, such as `https://app.example.com`; `"*"` is anybody.

        Raises:
            HTTPError: 403: the handshake comes from a page of another origin; and as `origin` and `host`.
            CovetError: it was accepted or closed before, or the peer does not offer that subprotocol.
            ValueError: a header's name or value is invalid, or what `origins` holds is no origin.
            WebSocketDisconnected: the peer has left, or the application is about to stop.
        """
        self._require_peer()
        self._require("connecting", "accept")
        self._check_origin([origins] if isinstance(origins, str) else list(origins))
        raw: list[tuple[bytes, bytes]] = []
        if headers:
            from covet.responses import ResponseHeaders

            raw = ResponseHeaders(headers).raw
            if any(name == b"sec-websocket-protocol" for name, _ in raw):
                raise ValueError("the subprotocol is an argument of accept(), not a header")
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise CovetError(f"the peer does not offer the subprotocol {subprotocol!r}; it offers {self.subprotocols}")
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            raise self._left(message)
        self._require_peer()
        self.phase, self.subprotocol = "open", subprotocol
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": raw})

    def _check_origin(self, allowed: Collection[str]) -> None:
        for known in allowed:
            if known != "*" and (known.count("/") != 2 or "://" not in known):
                raise ValueError(f"{known!r} is no origin: write scheme://host or scheme://host:port, without a path")
        origin = self.origin
        if origin is None or "*" in allowed or origin in [known.lower() for known in allowed]:
            return
        # Where TLS ends at a proxy the scheme here is another than the page's, so the hosts are compared.
        if origin.partition("://")[2] != self.host:
            raise HTTPError(403, f"pages of {origin} may not connect here")

    async def refuse(self, error: HTTPError) -> None:
        """Answer the handshake with an error: with its status and a page or problem document where the server supports
        the ASGI extension `websocket.http.response`, with 403 where not.

        After `accept` it closes the connection with the code that fits: 1007 for what does not validate, 1009 for what
        is too large, 1003 for the wrong kind, 1011 for errors of the server, and 1008 for all others. A connection that
        is closed stays as it is. Raising the error in a handler does the same.

        Raises:
            WebSocketDisconnected: the peer has left.
        """
        if self.phase == "connecting" and "websocket.http.response" in (self.scope.get("extensions") or {}):
            from covet.problems import render_error

            self.phase = "closed"
            # An error page is made for a request; it looks at nothing that a handshake lacks.
            response = render_error(self, error, self.app.debug)  # type: ignore[arg-type]

            async def send(message: Message) -> None:
                await self._send({**message, "type": f"websocket.{message['type']}"})

            await response({**self.scope, "method": "GET"}, self.receive, send)
        else:
            code = INTERNAL_ERROR if error.status >= 500 else _CODES.get(error.status, POLICY_VIOLATION)
            await self.close(code, _shortened(_told(error)))

    async def fail(self, error: Exception) -> None:
        """End the connection after an error of the handler: the handshake with 500, an open connection with 1011.

        The error itself is not told; whoever calls this logs it.
        """
        failures: list[Exception] | None = self.scope.get("covet.failures")
        if failures is not None:
            failures.append(error)
        await self.refuse(HTTPError(500, "the server failed to answer; it has been logged", request_id=self.id))

    async def go_away(self) -> None:
        """End the connection because the application is about to stop: the handshake with 503, an open connection with
        1001. Whoever receives, sends or accepts hears that the peer has left.

        Raises:
            WebSocketDisconnected: the peer was faster.
        """
        if self.phase == "closed":
            return
        self._goodbye = (GOING_AWAY, "the server is stopping")
        self._gone = anyio.Event()
        # Before the close, for granian sends none while somebody receives.
        for scope in (self._waiting, self._looking):
            if scope is not None:
                scope.cancel()
        try:
            if self.phase == "open":
                await self.close(*self._goodbye)
            else:
                await self.refuse(stopping())
        finally:
            self._gone.set()

    async def gone(self) -> None:
        """Wait for a close that `go_away` has begun. A handler that ends sooner, because it heard that it is to end,
        would have the server close the connection without a code."""
        if self._gone is not None:
            await self._gone.wait()

    # Receiving

    async def receive_message(self) -> str | bytes:
        """The next message: text or bytes.

        Raises:
            WebSocketDisconnected: the peer has closed the connection, it broke, or the application is about to stop.
            HTTPError: 413: the message is larger than `[limits] max_body` bytes, or than the route's own limit.
            CovetError: the connection was not accepted, or this side has closed it.
        """
        self._require_peer()
        self._require("open", "receive from")
        self._sent = 0
        message: Message | None = None
        # Not every server wakes who receives when the application itself closes the connection.
        with anyio.CancelScope() as self._waiting:
            try:
                message = await self._next()
            finally:
                self._waiting = None
        if message is None:
            raise WebSocketDisconnected(*(self._goodbye or (BROKEN, "")))
        if message["type"] == "websocket.disconnect":
            raise self._left(message)
        content: str | bytes
        text: str | None = message.get("text")
        if text is None:
            content = bytes(message.get("bytes") or b"")
            size = len(content)
        else:
            content = text
            size = len(text) if text.isascii() else len(text.encode())
        limit = self.limits.max_body
        if size > limit:
            raise HTTPError(413, f"a message of {size} bytes is too large; {limit} are accepted here")
        return content

    async def _next(self) -> Message:
        if self._ahead is not None:
            await self._ahead.wait()
        early, self._early = self._early, None
        if isinstance(early, Exception):
            raise early
        return await self.receive() if early is None else early

    async def _receive_ahead(self) -> None:
        """Receive one message, so that a handler that only sends learns that the peer has left.

        Not every server tells when a message is sent to nobody.
        """
        assert self._ahead is not None
        try:
            with anyio.CancelScope() as self._looking:
                self._early = message = await self.receive()
                if message["type"] == "websocket.disconnect":
                    self._left(message)
        except Exception as error:  # noqa: BLE001 - raised to who receives next
            self._early = error
        finally:
            self._ahead.set()
            self._ahead = self._looking = None

    async def receive_text(self) -> str:
        """The next message, which must be text.

        Raises:
            HTTPError: 415: it is binary.
            Exception: as `receive_message`.
        """
        message = await self.receive_message()
        if isinstance(message, str):
            return message
        raise HTTPError(415, "a text message is expected, and this one is binary")

    async def receive_bytes(self) -> bytes:
        """The next message, which must be binary.

        Raises:
            HTTPError: 415: it is text.
            Exception: as `receive_message`.
        """
        message = await self.receive_message()
        if isinstance(message, bytes):
            return message
        raise HTTPError(415, "a binary message is expected, and this one is text")

    @overload
    async def receive_json(self) -> Any: ...
    @overload
    async def receive_json(self, type: type[T]) -> T: ...
    async def receive_json(self, type: Any = Any) -> Any:
        """The next message, text or binary, decoded from JSON to `type`.

        Raises:
            HTTPError: 400: it is not JSON.
            ValidationError: it is JSON that does not fit `type`; with every fault.
            Exception: as `receive_message`.
        """
        return _decoder(type)(await self.receive_message())

    def iter_text(self) -> AsyncIterator[str]:
        """The text messages, until the peer leaves or this side closes. Raises as `receive_text` otherwise."""
        return _Messages(self, self.receive_text)

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """The binary messages, until the peer leaves or this side closes. Raises as `receive_bytes` otherwise."""
        return _Messages(self, self.receive_bytes)

    @overload
    def iter_json(self) -> AsyncIterator[Any]: ...
    @overload
    def iter_json(self, type: type[T]) -> AsyncIterator[T]: ...
    def iter_json(self, type: Any = Any) -> AsyncIterator[Any]:
        """The messages decoded from JSON to `type`, until the peer leaves or this side closes.

        Raises as `receive_json` otherwise. The next message can be asked for all the same: an iterator that has raised
        is not at its end.
        """
        decode = _decoder(type)

        async def receive() -> Any:
            return decode(await self.receive_message())

        return _Messages(self, receive)

    # Sending

    async def send_text(self, text: str) -> None:
        """Send a text message.

        Raises:
            TypeError: it is no `str`.
            WebSocketDisconnected: the peer has left, or the application is about to stop.
            CovetError: the connection was not accepted, or this side has closed it.
        """
        if not isinstance(text, str):
            raise TypeError(f"send_text sends str, not {type(text).__name__}; there is send_bytes, and send_json")
        await self._deliver({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message.

        Raises:
            TypeError: it is not bytes.
            WebSocketDisconnected: the peer has left, or the application is about to stop.
            CovetError: the connection was not accepted, or this side has closed it.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"send_bytes sends bytes, not {type(data).__name__}; there is send_text, and send_json")
        await self._deliver({"type": "websocket.send", "bytes": bytes(data)})

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON, in a text message; what handlers may return as JSON can be sent.

        Raises:
            TypeError: the value cannot be encoded.
            WebSocketDisconnected: the peer has left, or the application is about to stop.
            CovetError: the connection was not accepted, or this side has closed it.
        """
        await self.send_text(self.app.renderer.encode(value).decode())

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the connection; one that is closed stays as it is. Before `accept`, it refuses the handshake with 403.

        Args:
            code: 1000 to 1014 as far as RFC 6455 lets an endpoint send them, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8, for the peer's log.

        Raises:
            ValueError: code or reason cannot be sent.
        """
        if code in (1004, NO_STATUS, BROKEN) or not (1000 <= code <= 1014 or 3000 <= code <= 4999):
            raise ValueError(f"a WebSocket cannot be closed with code {code}; take 1000, or 3000 to 4999 for your own")
        if len(reason.encode()) > MAX_REASON:
            raise ValueError(f"the reason for closing has more than {MAX_REASON} bytes: {reason!r}")
        if self.phase == "closed":
            return
        self.phase = "closed"
        try:
            await self.send({"type": "websocket.close", "code": code, "reason": reason})
        except OSError:
            # The peer was faster: it is closed.
            self._goodbye = (BROKEN, "")

    async def _deliver(self, message: Message) -> None:
        self._require_peer()
        self._require("open", "send to")
        self._sent += 1
        # A handler that answers each message needs none ahead, and is spared the task.
        if self._sent > 1 and self._waiting is None and self._early is None and self._ahead is None and self._group:
            self._ahead = anyio.Event()
            self._group.start_soon(self._receive_ahead)
        await self._send(message)

    async def _send(self, message: Message) -> None:
        try:
            await self.send(message)
        except OSError as error:
            raise self._left({"code": BROKEN}) from error

    def _left(self, message: Message) -> WebSocketDisconnected:
        """Note that the peer has left, with the code and reason that a server's message tells."""
        code = message.get("code")
        self._goodbye = (NO_STATUS if code is None else code, message.get("reason") or "")
        self.phase = "closed"
        return WebSocketDisconnected(*self._goodbye)

    def _require_peer(self) -> None:
        if self._goodbye is not None:
            raise WebSocketDisconnected(*self._goodbye)

    def _require(self, phase: str, what: str) -> None:
        if self.phase != phase:
            hints = {"connecting": "; call accept() first", "open": "; it was accepted before"}
            raise CovetError(f"cannot {what} the WebSocket {self.path}: it is {self.phase}{hints.get(self.phase, '')}")


class _Messages(Generic[T]):
    """Messages one by one. No generator: one that is left early has to be closed, and that is easily forgotten."""

    def __init__(self, socket: WebSocket, receive: Callable[[], Awaitable[T]]) -> None:
        self._socket = socket
        self._receive = receive

    def __aiter__(self) -> _Messages[T]:
        return self

    async def __anext__(self) -> T:
        if self._socket.phase == "closed":
            raise StopAsyncIteration
        try:
            return await self._receive()
        except WebSocketDisconnected:
            raise StopAsyncIteration from None


def _decoder(type: Any) -> Callable[[str | bytes], Any]:
    """A function that decodes a message from JSON to `type`. Raises as `receive_json`."""
    from covet.decoding import decode_json, json_decoder

    decode = json_decoder(type)

    def decoded(content: str | bytes) -> Any:
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        return decode_json(data, decode, type)

    return decoded


def stopping() -> HTTPError:
    """What a handshake is refused with while the application stops."""
    return HTTPError(503, "the server is stopping; connect again", headers={"retry-after": "1"})


def _told(error: HTTPError) -> str:
    if isinstance(error, ValidationError) and error.faults:
        fault = error.faults[0]
        return f"{fault.pointer or 'message'}: {fault.detail}"
    return error.detail or error.title


def _shortened(reason: str) -> str:
    """As much of a text as a close frame holds."""
    return reason.encode()[:MAX_REASON].decode(errors="ignore")
