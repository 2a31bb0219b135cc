"""Responses that are made while they are sent: streams, and server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from covet.context import running
from covet.exceptions import ClientDisconnected
from covet.responses import NO_CONTENT, HeaderSource, Response

if TYPE_CHECKING:
    from anyio import CancelScope

    from covet.connections import Message, Receive
    from covet.lifespan import Drain
    from covet.requests import Request

__all__ = ["EventSourceResponse", "ServerSentEvent", "StreamingResponse", "close", "while_connected"]

T = TypeVar("T")

PIECES_IN_A_ROW = 16
"""How many pieces a stream sends before others run, even if neither it nor the server ever waits."""

CLOSING_TIME = 2.0
"""Seconds that the end of an event stream may take at shutdown, for a client that does not read."""


class StreamingResponse(Response):
    """A response whose body comes in pieces.

    Args:
        stream: an iterable of bytes or text. A plain one is advanced in worker threads, so it may block.
        status, headers: as for `Response`.
        content_type: `application/octet-stream` by default.
        watch: whether to look out for the client's leaving. Without it, that is noticed when the next piece is sent,
            by servers that tell.

    Raises:
        TypeError: `stream` is no iterable, or is one string.

    A middleware may replace `stream`, which is asynchronous here whatever was given. It is closed when the response
    ends, also when the client leaves, which cancels it where it waits, or when the request is cancelled. It may read
    the request's body meanwhile.
    """

    __slots__ = ("stream", "watch")

    def __init__(
        self,
        stream: AsyncIterable[bytes | str] | Iterable[bytes | str],
        status: int = 200,
        headers: HeaderSource | None = None,
        content_type: str | None = "application/octet-stream",
        *,
        watch: bool = True,
    ) -> None:
        super().__init__(b"", status, headers, content_type)
        self.stream: AsyncIterable[bytes | str] = _asynchronous(stream)
        self.watch = watch

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the response piece by piece, each as soon as it is there.

        Raises:
            ClientDisconnected: the client has left; the stream has been closed then.
            OSError: the same, where `send` tells (ASGI 2.4).
            TypeError: a piece is neither bytes nor text.
        """
        from anyio.lowlevel import checkpoint

        begun = False
        sent = 0

        async def send_pieces() -> None:
            nonlocal begun
            begun = True
            await for_each(self.stream, send_piece)

        async def send_piece(data: bytes) -> None:
            nonlocal sent
            await send({"type": "http.response.body", "body": data, "more_body": True})
            sent += 1
            if sent % PIECES_IN_A_ROW == 0:
                await checkpoint()

        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers.raw})
            if scope["method"] != "HEAD" and self.status not in NO_CONTENT:
                await (while_connected(receive, send_pieces) if self.watch else send_pieces())
            await send({"type": "http.response.body", "body": b""})
        finally:
            if not begun:
                await close(self.stream)


def as_bytes(piece: Any) -> bytes:
    """A piece of a stream as ASGI takes it; text as UTF-8.

    Raises:
        TypeError: it is neither bytes nor text.
    """
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece)
    raise TypeError(f"a stream consists of bytes or text, not of {type(piece).__qualname__}: {piece!r}")


async def for_each(stream: AsyncIterable[Any], use: Callable[[bytes], Awaitable[None]]) -> None:
    """Call `use` for every piece that is not empty, and close the stream in the end, even when cancelled."""
    from anyio import CancelScope

    # Entered before the stream begins: it may have scopes of its own, open between its pieces, and scopes must nest.
    with CancelScope() as scope:
        try:
            async for piece in stream:
                if data := as_bytes(piece):
                    await use(data)
        finally:
            scope.shield = True
            aclose = getattr(stream, "aclose", None)
            if aclose is not None:
                await aclose()


async def close(stream: Any) -> None:
    """Close an asynchronous iterator that was not begun, even when the request is cancelled."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        from anyio import CancelScope

        with CancelScope(shield=True):
            await aclose()


async def while_connected(receive: Receive, send_all: Callable[[], Awaitable[None]]) -> None:
    """Call `send_all`, and cancel it when the client leaves. Many servers do not tell that to who sends.

    What comes of the request's body meanwhile is kept for whoever reads it. A body that is being read already is left
    to its reader, who is told as well.

    Raises:
        ClientDisconnected: the client has left.
        Exception: what `send_all` raised.
    """
    from covet.concurrency import task_group

    watch = _Watch(receive)
    request = running.get(None)
    if getattr(request, "receive", None) is receive:
        if _is_reading(request):
            await send_all()
            return
        request.receive = watch.receive
    try:
        async with task_group() as group:
            group.start_soon(watch.run, group.cancel_scope)
            await send_all()
            watch.over = True
            group.cancel_scope.cancel()
    finally:
        watch.over = True
        watch.wake()
    if watch.cancelled:
        raise ClientDisconnected("the client left before its response was complete")


def _is_reading(request: Request) -> bool:
    """Whether somebody has read a part of the body, and may read on."""
    stream = request._stream
    return request._body is None and stream is not None and stream._more


class _Watch:
    """Receives while a response is sent, and keeps what is not `http.disconnect`: one message of a body at a time.

    Attributes:
        left: whether the client has left.
        cancelled: whether that was noticed before the response was over, and cancelled it.
        over: whether it is over.
    """

    def __init__(self, receive: Receive) -> None:
        from anyio import Event

        self.left = self.cancelled = self.over = False
        self._receive = receive
        self._kept: list[Message] = []
        self._event = Event
        self._changed = Event()

    def wake(self) -> None:
        """Let whoever waits look again."""
        changed, self._changed = self._changed, self._event()
        changed.set()

    async def run(self, scope: CancelScope) -> None:
        """Receive until the client leaves; then cancel `scope`."""
        while not self.left:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left = True
                if not self.over:
                    self.cancelled = True
                    scope.cancel()
            else:
                self._kept.append(message)
            self.wake()
            while self._kept and message.get("more_body"):
                await self._changed.wait()

    async def receive(self) -> Message:
        """Stands for the server's callable: gives what was kept, then what comes."""
        while not self._kept:
            if self.left:
                return {"type": "http.disconnect"}
            if self.over:
                return await self._receive()
            await self._changed.wait()
        message = self._kept.pop(0)
        self.wake()
        return message


def _asynchronous(iterable: AsyncIterable[T] | Iterable[T]) -> AsyncIterable[T]:
    if isinstance(iterable, AsyncIterable):
        return iterable
    if isinstance(iterable, str | bytes | bytearray | memoryview):
        raise TypeError(f"a stream consists of pieces; for one {type(iterable).__name__} take a Response")
    if not isinstance(iterable, Iterable):
        raise TypeError(
            f"a {type(iterable).__qualname__} cannot be streamed: pass an iterator, such as what a generator function "
            "returns when it is called"
        )
    return _InThreads(iterable)


class _InThreads(Generic[T]):
    """An iterable, advanced and closed in worker threads."""

    def __init__(self, iterable: Iterable[T]) -> None:
        self._iterator = iter(iterable)
        # A cancelled task may be gone while its thread still advances.
        self._lock = Lock()
        self._end = object()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        from anyio.to_thread import run_sync

        piece = await run_sync(self._advance)
        if piece is self._end:
            raise StopAsyncIteration
        found: T = piece
        return found

    async def aclose(self) -> None:
        """Close the iterator, if it can be."""
        if getattr(self._iterator, "close", None) is not None:
            from anyio.to_thread import run_sync

            await run_sync(self._close)

    def _advance(self) -> Any:
        with self._lock:
            return next(self._iterator, self._end)

    def _close(self) -> None:
        with self._lock:
            self._iterator.close()  # type: ignore[attr-defined]


class ServerSentEvent:
    """An event of an event stream (WHATWG HTML, section 9.2).

    Args:
        data: text, or anything msgspec encodes, which goes as JSON. An event of a type has empty data without it:
            browsers drop an event that has none at all.
        event: the event's type; `message` without one.
        id: what a browser sends as the header `Last-Event-ID` when it reconnects; empty to make it forget the last.
        retry: milliseconds until it does.
        comment: a line that browsers ignore.

    Raises:
        ValueError: `event` or `id` holds a line break or NUL, or `retry` is negative.
        TypeError: `retry` is no int.
    """

    __slots__ = ("comment", "data", "event", "id", "retry")

    def __init__(
        self,
        data: Any = None,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        for what, text in (("event", event), ("id", id)):
            if text is not None and any(c in text for c in "\r\n\0"):
                raise ValueError(f"an event's {what} cannot hold a line break or NUL: {text!r}")
        if retry is not None:
            if type(retry) is not int:
                raise TypeError(f"retry is a whole number of milliseconds, not {retry!r}")
            if retry < 0:
                raise ValueError(f"retry is in milliseconds and not negative, not {retry}")
        self.data, self.event, self.id, self.retry, self.comment = data, event, id, retry, comment

    def encode(self) -> bytes:
        """The event as it goes over the wire."""
        lines = []
        if self.comment is not None:
            lines += [f": {line}" for line in _lines(self.comment)]
        if self.event is not None:
            lines.append(f"event: {self.event}")
        if self.id is not None:
            lines.append(f"id: {self.id}")
        if self.retry is not None:
            lines.append(f"retry: {self.retry}")
        if self.data is not None:
            text = self.data
            if not isinstance(text, str):
                import msgspec

                text = msgspec.json.encode(text).decode()
            lines += [f"data: {line}" for line in _lines(text)]
        elif self.event is not None:
            lines.append("data:")
        return ("\n".join(lines) + "\n\n").encode()


def _lines(text: str) -> list[str]:
    # The grammar ends a line with CR, LF or both; str.splitlines knows many more.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


class EventSourceResponse(StreamingResponse):
    """A stream of server-sent events.

    Args:
        events: an iterable of `ServerSentEvent`, text or anything that goes as JSON; a plain one is advanced in worker
            threads.
        heartbeat: seconds without an event after which a comment is sent, so that proxies keep the connection and a
            client that is gone is noticed; None for never.
        retry: milliseconds until a browser reconnects, told at the start.
        close_on_drain: whether the stream ends when the application begins to shut down, so that it does not hold up
            the shutdown; browsers reconnect, to another worker.

    A browser that reconnects sends the `id` of the last event it got as the header `Last-Event-ID`.

    The iterator runs in a task of its own. It is cancelled where it waits, and closed, when the client leaves, at
    shutdown, and when the request is cancelled.
    """

    __slots__ = ("close_on_drain", "heartbeat")

    def __init__(
        self,
        events: AsyncIterable[Any] | Iterable[Any],
        status: int = 200,
        headers: HeaderSource | None = None,
        *,
        heartbeat: float | None = 15.0,
        retry: int | None = None,
        close_on_drain: bool = True,
    ) -> None:
        super().__init__(_Encoded(_asynchronous(events), retry), status, headers, "text/event-stream")
        self.heartbeat = heartbeat
        self.close_on_drain = close_on_drain
        self.headers.setdefault("cache-control", "no-store")
        self.headers.setdefault("x-accel-buffering", "no")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events until there are no more, the client leaves, or the application shuts down.

        Raises:
            ClientDisconnected, OSError: as `StreamingResponse`.
            Exception: what the iterator raised.
        """
        if scope["method"] == "HEAD" or self.status in NO_CONTENT:
            await super().__call__(scope, receive, send)
            return
        from anyio import move_on_after

        begun = drained = False

        async def send_events() -> None:
            nonlocal begun, drained
            begun = True
            drained = await self._until_drain(send)

        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers.raw})
            await (while_connected(receive, send_events) if self.watch else send_events())
            # A client that does not read would hold up the shutdown here.
            with move_on_after(CLOSING_TIME if drained else None):
                await send({"type": "http.response.body", "body": b""})
        finally:
            if not begun:
                await close(self.stream)

    async def _until_drain(self, send: Any) -> bool:
        """Send the events; return whether the application's shutdown ended them."""
        from covet.concurrency import task_group

        drained = False

        async def wait(drain: Drain) -> None:
            nonlocal drained
            await drain.wait()
            drained = True
            group.cancel_scope.cancel()

        holder = running.get(None)
        async with task_group() as group:
            if self.close_on_drain and holder is not None:
                group.start_soon(wait, holder.app.drain)
            await self._send_events(send)
            group.cancel_scope.cancel()
        return drained

    async def _send_events(self, send: Any) -> None:
        import anyio

        from covet.concurrency import task_group

        sender, receiver = anyio.create_memory_object_stream[bytes](0)
        failures: list[Exception] = []

        async def produce() -> None:
            async with sender:
                try:
                    await for_each(self.stream, sender.send)
                except Exception as error:  # noqa: BLE001 - it is raised below, not in a group
                    failures.append(error)

        async with receiver, task_group() as group:
            group.start_soon(produce)
            while True:
                data = b":\n\n"
                with anyio.move_on_after(self.heartbeat):
                    try:
                        data = await receiver.receive()
                    except anyio.EndOfStream:
                        break
                await send({"type": "http.response.body", "body": data, "more_body": True})
        if failures:
            raise failures[0]


class _Encoded:
    """Events as they go over the wire."""

    def __init__(self, events: AsyncIterable[Any], retry: int | None) -> None:
        self._events = events
        self._iterator: AsyncIterator[Any] | None = None
        self._first = None if retry is None else ServerSentEvent(retry=retry)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first.encode()
        if self._iterator is None:
            self._iterator = aiter(self._events)
        event = await anext(self._iterator)
        return (event if isinstance(event, ServerSentEvent) else ServerSentEvent(event)).encode()

    async def aclose(self) -> None:
        """Close the iterator of events."""
        for iterator in (self._iterator, self._events if self._iterator is not self._events else None):
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()
