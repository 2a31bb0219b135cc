"""Inflating the bodies of requests while they are received.

What is inside, handlers and mounted applications alike, sees a body without coding, and counts it as such: it is given
in pieces of bounded size, so that a limit refuses a bomb before the next piece is inflated. Time limits hold too, for
nothing is received before it is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from covet.builtin.compression.codings import Decoder, decoder
from covet.exceptions import HTTPError

if TYPE_CHECKING:
    from covet.connections import Message, Receive

__all__ = ["PIECE", "InflatedRequests"]

logger = logging.getLogger("covet.compression")

PIECE = 64 * 1024
"""Bytes that are inflated at a time."""

INPUT = 16 * 1024
"""Bytes that a codec is given at a time, for it copies what it leaves."""

IN_A_ROW = 8
"""Pieces after which others run, even if the server never waits: half a megabyte."""

OVERHEAD = 64 * 1024
"""Bytes of a coding that may stand for nothing: headers, flushes, and frames that are skipped."""

OVERHEAD_RATIO = 16
"""Bytes of a coding that may stand for one byte beyond that. The tiniest piece, flushed by itself, takes about 6."""


class InflatedRequests:
    """An ASGI middleware that inflates request bodies.

    A body in another coding, or in several, is refused with 415 when somebody reads it, and the response's
    `Accept-Encoding` names what there is (RFC 9110 section 15.5.16).

    Args:
        app: the application inside.
        codings: what can be inflated.
    """

    def __init__(self, app: Any, *, codings: Sequence[str]) -> None:
        self.app = app
        self.codings = tuple(codings)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request or a WebSocket."""
        if scope["type"] == "http":
            for name, _ in scope["headers"]:
                if name == b"content-encoding":
                    await self._serve(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _serve(self, scope: Any, receive: Receive, send: Any) -> None:
        lines = [value for name, value in scope["headers"] if name == b"content-encoding"]
        coding = b",".join(lines).strip(b" \t").lower().decode("latin-1")
        coding = "gzip" if coding == "x-gzip" else coding
        if coding in ("", "identity"):
            await self.app(scope, receive, send)
            return
        refusal = None
        if coding not in self.codings:
            known = ", ".join(self.codings)
            refusal = HTTPError(
                415,
                f"a request's body may come in one of these codings: {known}; or in none",
                headers={"accept-encoding": known},
            )
        # They describe what comes, and that nobody inside will see.
        dropped = (b"content-encoding", b"content-length")
        headers = [header for header in scope["headers"] if header[0] not in dropped]
        body = _InflatedBody(coding, receive, send, refusal)
        await self.app({**scope, "headers": headers}, body.receive, body.send)


class _InflatedBody:
    """Stands for the server's `receive`: gives the body inflated, a piece at a time.

    It stands for `send` too, for once a response has begun nobody can be told that the body is wrong. Whoever still
    receives then is waiting for the client to leave.

    Cancellation reaches the server's `receive`; nothing that was received is lost by it.
    """

    def __init__(self, coding: str, receive: Receive, send: Any, refusal: HTTPError | None) -> None:
        self._coding = coding
        self._receive = receive
        self._send = send
        self._refusal = refusal
        self._answered = False
        self._codec: Decoder | None = None
        # What was received and not yet given to the codec.
        self._data = memoryview(b"")
        self._more = True
        self._over = False
        self._received = self._given = 0
        self._in_a_row = 0

    async def send(self, message: Message) -> None:
        """Send a message of the response."""
        self._answered = True
        await self._send(message)

    async def receive(self) -> Message:
        """The next message.

        Raises:
            HTTPError: 415: the body is in a coding that is not known here; 400: it is not in the coding that the
                request says, is damaged, or ends early; 413: it consists of next to nothing but overhead.
        """
        if self._over:
            return await self._receive()
        if self._refusal is None:
            try:
                return await self._next()
            except ValueError as error:
                self._refusal = HTTPError(400, f"the request's body is not valid {self._coding}: {error}")
            except HTTPError as error:
                self._refusal = error
        if not self._answered:
            raise self._refusal
        logger.info("a request's body was not read to its end: %s", self._refusal)
        message = await self._receive()
        while message["type"] == "http.request":
            message = await self._receive()
        return message

    async def _next(self) -> Message:
        self._in_a_row += 1
        if self._in_a_row % IN_A_ROW == 0:
            from anyio.lowlevel import checkpoint

            await checkpoint()
        while True:
            piece = self._inflate()
            self._given += len(piece)
            if self._received - len(self._data) > OVERHEAD + OVERHEAD_RATIO * self._given:
                raise HTTPError(413, f"the request's body is {self._coding} that hardly holds anything")
            self._over = self._complete()
            if piece or self._over:
                return {"type": "http.request", "body": piece, "more_body": not self._over}
            if self._data:
                continue
            message = await self._receive()
            self._in_a_row = 0
            if message["type"] != "http.request":
                return message
            self._data = memoryview(message.get("body", b""))
            self._received += len(self._data)
            self._more = message.get("more_body", False)

    def _inflate(self) -> bytes:
        """What can be given now, at most a piece; nothing where more has to be received.

        Raises:
            ValueError: the data is damaged.
        """
        codec = self._codec
        if codec is not None and codec.eof:
            # Members and frames may follow one another (RFC 1952 section 2.2, RFC 8878 section 3.1).
            self._codec = codec = None
        if codec is None:
            if not self._data:
                return b""
            self._codec = codec = decoder(self._coding)
        taken = b""
        if codec.hungry:
            taken, self._data = bytes(self._data[:INPUT]), self._data[INPUT:]
        piece = codec.inflate(taken, PIECE)
        if codec.eof and codec.unused:
            self._data = memoryview(codec.unused + bytes(self._data))
        return piece

    def _complete(self) -> bool:
        """Whether that was all.

        Raises:
            ValueError: there is no more, and what there was is not all.
        """
        codec = self._codec
        if self._more or self._data:
            return False
        if codec is None or codec.eof:
            return True
        if not codec.hungry:
            return False
        raise ValueError("it ends in the middle")
