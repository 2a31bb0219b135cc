"""WebSocket connections, as a handler sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Literal

from covet.connections import Connection
from covet.exceptions import CovetError, HTTPError, WebSocketDisconnected

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.connections import Receive, Scope
    from covet.routing import WebSocketRoute

__all__ = ["WebSocket"]

# RFC 6455 section 7.4.1
NORMAL, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1000, 1008, 1009, 1011


class WebSocket(Connection):
    """A WebSocket connection (RFC 6455 over ASGI).

    A handler accepts it, receives and sends, and closes it; what it leaves open is closed when it returns. Every
    method that receives raises `WebSocketDisconnected` when the peer has closed.

    Attributes:
        send: the ASGI callable that takes the next message.
        connected: whether it is `connecting`, `open` or `closed`.
        subprotocol: the one that was accepted.
    """

    __slots__ = ("connected", "send", "subprotocol")

    route: WebSocketRoute | None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Any,
        app: Covet,
        route: WebSocketRoute | None = None,
        values: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(scope, receive, app, route, values)
        self.send = send
        self.connected: Literal["connecting", "open", "closed"] = "connecting"
        self.subprotocol: str | None = None

    def __repr__(self) -> str:
        return f"<WebSocket {self.path} {self.connected}>"

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the peer offers, in its order of preference."""
        return list(self.scope.get("subprotocols") or ())

    async def accept(self, subprotocol: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Accept the connection.

        Raises:
            CovetError: it has been accepted or closed already, or the peer did not offer that subprotocol.
            WebSocketDisconnected: the peer left during the handshake.
        """
        self._require("connecting", "accept")
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise CovetError(f"the peer did not offer the subprotocol {subprotocol!r}; it offers {self.subprotocols}")
        message = await self.receive()
        if message["type"] != "websocket.connect":
            self.connected = "closed"
            raise WebSocketDisconnected(message.get("code", 1006))
        from covet.responses import ResponseHeaders

        await self.send(
            {"type": "websocket.accept", "subprotocol": subprotocol, "headers": ResponseHeaders(headers).raw}
        )
        self.connected, self.subprotocol = "open", subprotocol

    async def receive_message(self) -> str | bytes:
        """The next message, text or bytes.

        Raises:
            CovetError: the connection is not open.
            WebSocketDisconnected: the peer has closed it.
        """
        self._require("open", "receive from")
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            self.connected = "closed"
            raise WebSocketDisconnected(message.get("code") or 1005, message.get("reason") or "")
        text: str | None = message.get("text")
        data: str | bytes = text if text is not None else message.get("bytes") or b""
        if len(data) > self.limits.max_body:
            await self.close(TOO_BIG, "message too big")
            raise WebSocketDisconnected(TOO_BIG, "message too big")
        return data

    async def receive_text(self) -> str:
        """The next message, which must be text; another closes the connection with 1003.

        Raises:
            WebSocketDisconnected: the peer has closed, or sent bytes.
        """
        message = await self.receive_message()
        if isinstance(message, str):
            return message
        await self.close(1003, "text expected")
        raise WebSocketDisconnected(1003, "the peer sent bytes where text was expected")

    async def receive_bytes(self) -> bytes:
        """The next message as bytes; text is encoded as UTF-8."""
        message = await self.receive_message()
        return message.encode() if isinstance(message, str) else message

    async def receive_json(self, type: Any = Any) -> Any:
        """The next message as JSON, decoded to `type`; what is not closes the connection with 1007.

        Raises:
            WebSocketDisconnected: the peer has closed, or sent something else.
        """
        import msgspec

        message = await self.receive_message()
        try:
            return msgspec.json.decode(message, type=type)
        except (msgspec.DecodeError, RecursionError) as error:
            await self.close(1007, "invalid JSON")
            raise WebSocketDisconnected(1007, f"the peer sent no valid JSON: {error}") from None

    async def iter_text(self) -> AsyncIterator[str]:
        """The text messages until the peer closes."""
        try:
            while True:
                yield await self.receive_text()
        except WebSocketDisconnected:
            return

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """The messages as bytes until the peer closes."""
        try:
            while True:
                yield await self.receive_bytes()
        except WebSocketDisconnected:
            return

    async def iter_json(self, type: Any = Any) -> AsyncIterator[Any]:
        """The messages as JSON until the peer closes."""
        try:
            while True:
                yield await self.receive_json(type)
        except WebSocketDisconnected:
            return

    async def send_text(self, text: str) -> None:
        """Send text.

        Raises:
            CovetError: the connection is not open.
        """
        self._require("open", "send to")
        await self.send({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        self._require("open", "send to")
        await self.send({"type": "websocket.send", "bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON, in a text message; the application's encoders apply."""
        await self.send_text(self.app.renderer.encode(value).decode())

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the connection; one that is closed stays so. Before `accept` it refuses the handshake with 403."""
        if self.connected == "closed":
            return
        self.connected = "closed"
        await self.send({"type": "websocket.close", "code": code, "reason": reason})

    async def refuse(self, error: HTTPError) -> None:
        """Answer the handshake with an error, where the server can (`websocket.http.response`); else close.

        After `accept` it closes the connection with 1008.
        """
        if self.connected == "connecting" and "websocket.http.response" in (self.scope.get("extensions") or {}):
            import msgspec

            self.connected = "closed"
            body = msgspec.json.encode(error.problem())
            headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
            await self.send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
            await self.send({"type": "websocket.http.response.body", "body": body})
        else:
            await self.close(POLICY_VIOLATION, error.detail[:100] or error.title)

    def _require(self, state: str, what: str) -> None:
        if self.connected != state:
            hint = "; call `accept()` first" if self.connected == "connecting" else ""
            raise CovetError(f"cannot {what} a WebSocket that is {self.connected}{hint}")
