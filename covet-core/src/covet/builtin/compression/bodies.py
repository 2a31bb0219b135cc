"""Compressing the bodies of responses.

A response is compressed when its type is worth it, it is large enough, nothing about it forbids that, and the client
accepts a coding. One that would be compressed for another client says `Vary: Accept-Encoding`, compressed or not; its
`ETag` is weak where it is compressed (RFC 9110 section 8.8.1: the bytes are others, the meaning is the same).

A body that is complete in memory is compressed before it is sent, and has its length; where that would not make it
smaller, it goes as it is. Whatever is sent piece by piece is compressed piece by piece: headers go out at once, and
each piece with a flush, so that a client sees of a stream what it would see without compression, when it would see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covet.builtin.compression.codings import Encoder, encoder, one_shot
from covet.builtin.compression.types import TypeSet
from covet.negotiation import accepted_coding
from covet.responses import Response
from covet.streaming import StreamingResponse

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["SLICE", "Compression", "EncodedResponse", "in_place"]

SLICE = 2 * 1024 * 1024
"""Bytes that a thread compresses at a time, about 10 ms: a cancelled request waits no longer for it."""

RawHeaders = Sequence[tuple[bytes, bytes]]

# RFC 9110 section 15: these have no content, or (304) it is the client's.
_WITHOUT_CONTENT = frozenset({204, 205, *range(100, 200)})

# What says something about the very bytes: whoever went to the trouble wants it to arrive, and to hold (RFC 9530).
_FORBIDDING = frozenset({
    b"content-encoding", b"content-digest", b"repr-digest", b"digest", b"content-md5",
})  # fmt: skip

_TOTAL = re.compile(rb"bytes [0-9-]+/([0-9]{1,20})")


class Compression:
    """The transform of one application.

    Args:
        codings: what there is, the favourite first.
        min_bytes: what is smaller is not compressed.
        types: patterns of the media types that are.
        levels: by coding.
    """

    def __init__(
        self, codings: Sequence[str], *, min_bytes: int, types: Iterable[str], levels: Mapping[str, int]
    ) -> None:
        self.codings = tuple(codings)
        self.min_bytes = min_bytes
        self.types = TypeSet(types)
        self.levels = dict(levels)
        self.in_place = {coding: in_place(coding, self.levels[coding]) for coding in codings}

    async def transform(self, request: Request, response: Response) -> Response:
        """The response as this client gets it: compressed, or as it is.

        Cancellation ends it at once; a thread may compress on for some milliseconds.
        """
        raw = response.headers.raw
        if response.status == 304:
            _vary(response)
            _name_what_the_client_has(request, response)
            return response
        complete = response.__class__.__call__ is Response.__call__
        if complete and not response.body and not (request.method == "HEAD" and "content-length" in response.headers):
            return response
        size = len(response.body) or None
        if response.opaque or not self.may_compress(response.status, raw, size):
            return response
        _vary(response)
        if response.status == 206 or (coding := self._accepted(request)) is None:
            return response
        if not complete or size is None:
            return EncodedResponse(self, response, coding)
        body = await self._compressed(response.body, coding)
        if len(body) >= size:
            return response
        return Response.trusted(body, response.status, *encoded_headers(raw, coding, len(body)))

    def may_compress(self, status: int, raw: RawHeaders, size: int | None) -> bool:
        """Whether a response would be compressed for a client that accepts it.

        Args:
            status: its status.
            raw: its headers.
            size: the bytes of its body; None when the headers know it, or nobody does.
        """
        if status in _WITHOUT_CONTENT:
            return False
        content_type = None
        for name, value in raw:
            if name == b"content-type":
                content_type = value
            elif name == b"content-length":
                size = int(value) if size is None and status != 206 and value.isdigit() else size
            elif name == b"content-range":
                total = _TOTAL.fullmatch(value)
                if status != 206 or total is None:
                    return False
                size = int(total[1])
            elif name == b"cache-control":
                if b"no-transform" in value.lower():
                    return False
            elif name in _FORBIDDING:
                return False
        return content_type is not None and content_type in self.types and (size is None or size >= self.min_bytes)

    def encoder(self, coding: str, *, size: int | None = None, small: bool = False) -> Encoder:
        """A codec for one body."""
        return encoder(coding, self.levels[coding], size=size, small=small)

    def _accepted(self, request: Request) -> str | None:
        return accepted_coding(_field(request, b"accept-encoding"), self.codings)

    async def _compressed(self, body: bytes, coding: str) -> bytes:
        if len(body) <= self.in_place[coding]:
            return one_shot(coding, self.levels[coding], body)
        from anyio.to_thread import run_sync

        codec = self.encoder(coding, size=len(body))
        pieces = [await run_sync(_compress, codec, piece, ending) for piece, ending in _slices(body, "finish")]
        return b"".join(pieces)


class EncodedResponse(Response):
    """A response that is sent by another one's `__call__`, and compressed on the way.

    Args:
        compression: decides, and gives the codec.
        inner: the other one.
        coding: which coding.
    """

    __slots__ = ("coding", "compression", "inner")

    def __init__(self, compression: Compression, inner: Response, coding: str) -> None:
        super().__init__(b"", inner.status)
        self.headers.raw[:] = encoded_headers(inner.headers.raw, coding)
        self.compression = compression
        self.inner = inner
        self.coding = coding

    def __repr__(self) -> str:
        return f"<EncodedResponse {self.coding} of {self.inner!r}>"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it. Raises what the other one raises; cancellation ends it wherever it waits."""
        await self.inner(scope, receive, _EncodingSend(self, send, head=scope["method"] == "HEAD"))


class _EncodingSend:
    """Stands for the server's `send`: compresses the body that comes by.

    The answer to a HEAD request has the headers of one to a GET, but for the length: that would be known only once
    the body is compressed (RFC 9110 section 9.3.2).
    """

    __slots__ = ("_codec", "_encoding", "_head", "_response", "_send")

    def __init__(self, response: EncodedResponse, send: Any, *, head: bool) -> None:
        self._response = response
        self._send = send
        self._head = head
        self._encoding = False
        self._codec: Encoder | None = None

    async def __call__(self, message: Any) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            message = self._begun(message)
        if kind != "http.response.body" or not self._encoding:
            await self._send(message)
            return
        if self._codec is None:
            # Not before the headers are gone: allocating its tables takes longer than sending them.
            response = self._response
            small = isinstance(response.inner, StreamingResponse)
            self._codec = response.compression.encoder(response.coding, small=small)
        data: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        ending = "flush" if more else "finish"
        if len(data) <= self._response.compression.in_place[self._response.coding]:
            if data or not more:
                await self._send({**message, "body": _compress(self._codec, data, ending)})
            return
        from anyio.to_thread import run_sync

        for piece, end in _slices(data, ending):
            body = await run_sync(_compress, self._codec, piece, end)
            if body:
                await self._send({**message, "body": body, "more_body": more or end != "finish"})

    def _begun(self, message: Any) -> Any:
        """The start of the response, with the headers of what is compressed, if it still is to be."""
        response, inner = self._response, self._response.inner
        headers = response.headers.raw
        if message["headers"] is not inner.headers.raw or message["status"] != inner.status:
            # It sends other headers than it shows.
            raw = [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
            status = message["status"]
            if status in (206, 304) or not response.compression.may_compress(status, raw, None):
                return message
            headers = encoded_headers(raw, response.coding)
        self._encoding = not self._head
        return {**message, "headers": headers}


def in_place(coding: str, level: int) -> int:
    """Bytes up to which the event loop compresses itself: about a millisecond. More goes to a thread.

    The way to a thread and back takes a tenth of that, and more where all cores are busy.
    """
    if coding == "gzip":
        return 128 * 1024 if level <= 4 else 32 * 1024
    return 1024 * 1024 if level <= 3 else 128 * 1024 if level <= 9 else 16 * 1024


def _compress(codec: Encoder, data: bytes, ending: str) -> bytes:
    """What a codec gives for a piece; `ending` says what then: `flush`, `finish`, or nothing."""
    compressed = codec.compress(data) if data else b""
    if ending == "flush":
        return compressed + codec.flush()
    return compressed + codec.finish() if ending == "finish" else compressed


def _slices(data: bytes, ending: str) -> Iterable[tuple[bytes, str]]:
    """Data in pieces that a thread compresses at a time; `ending` holds for the last."""
    if len(data) <= SLICE:
        return [(data, ending)]
    starts = range(0, len(data), SLICE)
    return ((data[start : start + SLICE], ending if start == starts[-1] else "") for start in starts)


def _field(request: Request, name: bytes) -> str:
    # Not `request.headers`, which may refuse the request, and that has been answered by now.
    return b",".join(value for field, value in request.scope["headers"] if field == name).decode("latin-1")


def encoded_headers(raw: RawHeaders, coding: str, size: int | None = None) -> list[tuple[bytes, bytes]]:
    """The headers of a response whose body is compressed to `size` bytes, if that is known."""
    headers = []
    for name, value in raw:
        # A part of what is compressed on the way cannot be asked for: ranges are of the plain content.
        if name in (b"content-length", b"accept-ranges"):
            continue
        headers.append((name, _weak(value) if name == b"etag" else value))
    headers.append((b"content-encoding", coding.encode("ascii")))
    if all(name != b"vary" for name, _ in raw):
        headers.append((b"vary", b"Accept-Encoding"))
    if size is not None:
        headers.append((b"content-length", b"%d" % size))
    return headers


def _weak(tag: bytes) -> bytes:
    return tag if tag.startswith(b"W/") else b"W/" + tag


def _vary(response: Response) -> None:
    raw = response.headers.raw
    for name, value in raw:
        if name == b"vary":
            if value != b"Accept-Encoding":
                response.headers.add_vary("Accept-Encoding")
            return
    raw.append((b"vary", b"Accept-Encoding"))


def _name_what_the_client_has(request: Request, response: Response) -> None:
    """Give a 304 the weak tag by which the client asked: that of what it got compressed.

    By a strong one that it never got, its cache would not know which of its responses is still good (RFC 9111 section
    4.3.4).
    """
    tag = response.headers.get("etag")
    if tag is not None and not tag.startswith("W/"):
        asked = _field(request, b"if-none-match")
        if f"W/{tag}" in asked and tag not in asked.replace(f"W/{tag}", ""):
            response.headers["etag"] = f"W/{tag}"
