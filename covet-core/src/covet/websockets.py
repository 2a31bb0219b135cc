"""WebSocket connections (RFC 6455, over ASGI), as a handler sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from covet.connections import Connection
from covet.exceptions import CovetError, HTTPError, ValidationError, WebSocketDisconnected

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.connections import Message, Receive, Scope
    from covet.responses import HeaderSource
    from covet.routing import WebSocketRoute

__all__ = ["WebSocket"]

T = TypeVar("T")
Send = Callable[["Message"], Awaitable[None]]

# RFC 6455 section 7.4.1, and the registry of IANA that it founded.
NORMAL, UNSUPPORTED_DATA, INVALID_DATA, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1000, 1003, 1007, 1008, 1009, 1011
NO_STATUS, BROKEN = 1005, 1006

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

    One task may receive while others send.

    Attributes:
        receive, send: the ASGI callables; what goes through them directly is not checked here.
        phase: `connecting`, `open` or `closed`.
        subprotocol: the one that was accepted, or None.
    """

    __slots__ = ("_goodbye", "phase", "send", "subprotocol")

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

    def __repr__(self) -> str:
        return f"<WebSocket {self.path} {self.phase}>"

    # The handshake

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the peer offers, in its order of preference."""
        return list(self.scope.get("subprotocols") or ())

    async def accept(self, subprotocol: str | None = None, headers: HeaderSource | None = None) -> None:
        """Accept the connection.

        Args:
            subprotocol: one of `subprotocols`.
            headers: further headers of the handshake's response, such as `set-cookie`.

        Raises:
            CovetError: it was accepted or closed before, or the peer does not offer that subprotocol.
            ValueError: a header's name or value is invalid.
            WebSocketDisconnected: the peer has left.
        """
        self._require("connecting", "accept")
        raw: list[tuple[bytes, bytes]] = []
        if headers:
            from covet.responses import ResponseHeaders

            raw = ResponseHeaders(headers).raw
            if any(name == b"sec-websocket-protocol" for name, _ in raw):
                raise ValueError("the subprotocol is an argument of accept(), not a header")
        if subprotocol is not None and (subprotocol not in self.subprotocols or not _TOKEN.issuperset(subprotocol)):
            raise CovetError(f"the peer does not offer the subprotocol {subprotocol!r}; it offers {self.subprotocols}")
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            raise self._left(message)
        self.phase, self.subprotocol = "open", subprotocol
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": raw})

    async def refuse(self, error: HTTPError) -> None:
        """Answer the handshake with an error: with its status and a page or problem document where the server supports
        the ASGI extension `websocket.http.response`, with 403 where not.

        After `accept` it closes the connection with the code that fits: 1007 for what does not validate, 1009 for what
        is too large, 1003 for the wrong kind, 1011 for errors of the server, and 1008 for all others. A connection that
        is closed stays as it is. Raising the error in a handler does the same.
        """
        if self.phase == "connecting" and "websocket.http.response" in (self.scope.get("extensions") or {}):
            from covet.problems import render_error

            self.phase = "closed"
            # An error page is made for a request; it looks at nothing that a handshake lacks.
            response = render_error(self, error, self.app.debug)  # type: ignore[arg-type]

            async def send(message: Message) -> None:
                await self.send({**message, "type": f"websocket.{message['type']}"})

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

    # Receiving

    async def receive_message(self) -> str | bytes:
        """The next message: text or bytes.

        Raises:
            WebSocketDisconnected: the peer has closed the connection, or it broke.
            HTTPError: 413: the message is larger than `[limits] max_body` bytes, or than the route's own limit.
            CovetError: the connection was not accepted, or this side has closed it.
        """
        if self._goodbye is not None:
            raise WebSocketDisconnected(*self._goodbye)
        self._require("open", "receive from")
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            raise self._left(message)
        content: str | bytes | None = message.get("text")
        if content is None:
            content = bytes(message.get("bytes") or b"")
            size = len(content)
        else:
            size = len(content) if content.isascii() else len(content.encode())
        limit = self.limits.max_body
        if size > limit:
            raise HTTPError(413, f"a message of {size} bytes is too large; {limit} are accepted here")
        return content

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
        import msgspec

        from covet.decoding import decode_json

        content = await self.receive_message()
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        return decode_json(data, msgspec.json.Decoder(type).decode, type)

    async def iter_text(self) -> AsyncIterator[str]:
        """The text messages, until the peer leaves or this side closes. Raises as `receive_text` otherwise."""
        async for message in self._messages(self.receive_text):
            yield message

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """The binary messages, until the peer leaves or this side closes. Raises as `receive_bytes` otherwise."""
        async for message in self._messages(self.receive_bytes):
            yield message

    async def iter_json(self, type: Any = Any) -> AsyncIterator[Any]:
        """The messages decoded from JSON to `type`, until the peer leaves or this side closes.

        Raises as `receive_json` otherwise, which also ends the iteration.
        """

        async def receive() -> Any:
            return await self.receive_json(type)

        async for message in self._messages(receive):
            yield message

    async def _messages(self, receive: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
        while self.phase != "closed":
            try:
                message = await receive()
            except WebSocketDisconnected:
                return
            yield message

    # Sending

    async def send_text(self, text: str) -> None:
        """Send a text message.

        Raises:
            WebSocketDisconnected: the peer has left.
            CovetError: the connection was not accepted, or this side has closed it.
        """
        await self._deliver({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message.

        Raises:
            WebSocketDisconnected: the peer has left.
            CovetError: the connection was not accepted, or this side has closed it.
        """
        await self._deliver({"type": "websocket.send", "bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON, in a text message; what handlers may return as JSON can be sent.

        Raises:
            TypeError: the value cannot be encoded.
            WebSocketDisconnected: the peer has left.
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
        if self._goodbye is not None:
            raise WebSocketDisconnected(*self._goodbye)
        self._require("open", "send to")
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

    def _require(self, phase: str, what: str) -> None:
        if self.phase != phase:
            hints = {"connecting": "; call accept() first", "open": "; it was accepted before"}
            raise CovetError(f"cannot {what} the WebSocket {self.path}: it is {self.phase}{hints.get(self.phase, '')}")


def _told(error: HTTPError) -> str:
    if isinstance(error, ValidationError) and error.faults:
        fault = error.faults[0]
        return f"{fault.pointer or 'message'}: {fault.detail}"
    return error.detail or error.title


def _shortened(reason: str) -> str:
    """As much of a text as a close frame holds."""
    return reason.encode()[:MAX_REASON].decode(errors="ignore")
