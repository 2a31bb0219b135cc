"""A WebSocket to an application, without a network."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import msgspec

from covet.exceptions import CovetError, WebSocketDisconnected
from covet.testing.asgi import ASGIApp, Served

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from covet.connections import Message, Scope

__all__ = ["TestWebSocket", "WebSocketDenied"]

MAY_SEND = {
    "connecting": {"websocket.accept", "websocket.close", "websocket.http.response.start"},
    "denying": {"websocket.http.response.body"},
    "open": {"websocket.send", "websocket.close"},
    "closed": set[str](),
}


class WebSocketDenied(CovetError):  # noqa: N818 - as the other errors that say what happened
    """The application refused the handshake.

    Attributes:
        response: its answer. A server answers 403 for an application that just closes.
    """

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"the application refused the WebSocket with status {response.status_code}")
        self.response = response


class TestWebSocket(Served):
    """The client's end of a WebSocket. `TestClient.websocket` makes it.

    Attributes:
        subprotocol: the one that the application chose, or None.
        headers: those with which it accepted.
    """

    __test__ = False  # nothing for pytest to collect

    def __init__(self, app: ASGIApp, request: httpx.Request, scope: Scope, *, raise_errors: bool) -> None:
        super().__init__(app, request, scope, raise_errors=raise_errors)
        self.subprotocol: str | None = None
        self.headers = httpx.Headers()
        self._state = "connecting"
        self._closed: WebSocketDisconnected | None = None
        self._goodbye: Message | None = None
        self._denial: list[Message] = []
        self._to_app, self._from_client = anyio.create_memory_object_stream[Any](math.inf)
        self._to_client, self._from_app = anyio.create_memory_object_stream[Any](math.inf)

    def __str__(self) -> str:
        return f"WEBSOCKET {self.request.url.path}"

    # The client's side

    async def connect(self, group: TaskGroup) -> None:
        """Make the handshake.

        Cancellation: the application sees a client that has left.

        Raises:
            WebSocketDenied: the application refused it.
            Exception: what the application raised, if errors are to be raised.
        """
        group.start_soon(self.run)
        self._to_app.send_nowait({"type": "websocket.connect"})
        try:
            async for message in self._from_app:
                if message["type"] == "websocket.accept":
                    self.subprotocol = message.get("subprotocol")
                    self.headers = httpx.Headers(list(message.get("headers", ())))
                    return
            await self.ended.wait()
            self.raise_failure()
            raise WebSocketDenied(self._answer())
        except BaseException:
            self.leave()
            raise

    async def send_text(self, text: str) -> None:
        """Send a text message.

        Raises:
            WebSocketDisconnected: the application has closed the WebSocket.
        """
        await self._send({"type": "websocket.receive", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message.

        Raises:
            WebSocketDisconnected: the application has closed the WebSocket.
        """
        await self._send({"type": "websocket.receive", "bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON, in a text message.

        Raises:
            WebSocketDisconnected: the application has closed the WebSocket.
        """
        await self.send_text(msgspec.json.encode(value).decode())

    async def receive_text(self) -> str:
        """The next message, which must be text.

        Raises:
            WebSocketDisconnected: the application has closed the WebSocket.
            CovetError: the message is binary.
            Exception: what the application raised, if errors are to be raised.
        """
        message = await self._receive()
        if message.get("text") is None:
            raise CovetError(f"{self} sent a binary message where text was expected: {message['bytes']!r}")
        text: str = message["text"]
        return text

    async def receive_bytes(self) -> bytes:
        """The next message, which must be binary.

        Raises:
            WebSocketDisconnected: the application has closed the WebSocket.
            CovetError: the message is text.
            Exception: what the application raised, if errors are to be raised.
        """
        message = await self._receive()
        if message.get("bytes") is None:
            raise CovetError(f"{self} sent text where a binary message was expected: {message['text']!r}")
        return bytes(message["bytes"])

    async def receive_json(self, type: Any = Any) -> Any:
        """The next message, text or binary, decoded from JSON to `type`.

        Raises:
            WebSocketDisconnected: the application has closed the WebSocket.
            msgspec.DecodeError: it is not JSON, or not of that type.
            Exception: what the application raised, if errors are to be raised.
        """
        message = await self._receive()
        data = message["text"] if message.get("text") is not None else message["bytes"]
        return msgspec.json.decode(data, type=type)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """The messages, until the application closes the WebSocket."""
        while True:
            try:
                message = await self._receive()
            except WebSocketDisconnected:
                return
            yield message["text"] if message.get("text") is not None else message["bytes"]

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket, and wait until the application has ended. Idempotent.

        Raises:
            Exception: what the application raised, if errors are to be raised.
            CovetError: it went on for 5 seconds, and was cancelled.
        """
        if self._state == "closed":
            # It was faster; what it does wrong from then on is still its own fault, not a client's that has left.
            await self.end()
        self._leave(code, reason)
        await self.end()
        self.raise_failure()

    def leave(self) -> None:
        """Break the connection: the application receives close code 1006."""
        self._leave(1006, "")

    def _leave(self, code: int, reason: str) -> None:
        if self.left:
            return
        self.left = True
        if not self.ended.is_set():
            self._to_app.send_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._to_app.close()
        self._from_app.close()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed
        if self.left:
            raise CovetError(f"{self} is closed: this client has closed it itself")

    async def _send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self._check_open()
        if self._state != "open":
            raise self._close_seen()
        self._to_app.send_nowait(message)

    async def _receive(self) -> Message:
        self._check_open()
        try:
            message: Message = await self._from_app.receive()
        except anyio.EndOfStream:
            message = {"type": "websocket.close", "code": 1006}
        if message["type"] == "websocket.send":
            return message
        self.raise_failure()
        raise self._close_seen(message)

    def _close_seen(self, message: Message | None = None) -> WebSocketDisconnected:
        message = message or self._goodbye or {"code": 1006}
        self._closed = WebSocketDisconnected(message.get("code", 1000), message.get("reason") or "")
        return self._closed

    def _answer(self) -> httpx.Response:
        """The response that a server makes of a refusal."""
        if not self._denial:
            return httpx.Response(403 if self._goodbye else 500, request=self.request)
        start, *rest = self._denial
        body = b"".join(bytes(message.get("body", b"")) for message in rest)
        return httpx.Response(start["status"], headers=start.get("headers"), content=body, request=self.request)

    # The application's side

    async def receive(self) -> Message:
        """What the client sends, then `websocket.disconnect`."""
        try:
            message: Message = await self._from_client.receive()
        except anyio.EndOfStream:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        return message

    async def send(self, message: Message) -> None:
        """Take what the application sends.

        Raises:
            OSError: the client has left.
            CovetError: the application breaks the rules of the ASGI specification.
        """
        await anyio.lowlevel.checkpoint()
        if self.left:
            raise OSError(f"the client of {self} has left")
        kind = message["type"]
        if kind not in MAY_SEND[self._state]:
            raise CovetError(f"the application sent {kind!r} to {self}, which is {self._state}")
        if kind.startswith("websocket.http.response."):
            self._state = "denying"
            self._denial.append(message)
            if kind.endswith("start") or message.get("more_body", False):
                return
        if kind == "websocket.send":
            if (message.get("text") is None) == (message.get("bytes") is None):
                raise CovetError(f"the application sent {message!r} to {self}: a message is either text or bytes")
        elif kind == "websocket.accept":
            self._state = "open"
        else:
            self._state = "closed"
            self._goodbye = message
            self._to_app.send_nowait(
                {"type": "websocket.disconnect", "code": message.get("code", 1000), "reason": message.get("reason", "")}
            )
        self._to_client.send_nowait(message)

    def complaint(self) -> str | None:
        """An application has to answer the handshake, and to close what it has accepted."""
        return {"connecting": "without an answer", "open": "without closing the connection"}.get(self._state)

    def finish(self) -> None:
        """Let a client that waits for a message go on."""
        self._from_client.close()
        self._to_client.close()
