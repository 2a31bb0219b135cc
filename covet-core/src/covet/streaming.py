"""Responses that are made while they are sent: streams, and server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from covet.context import running
from covet.responses import HeaderSource, Response

if TYPE_CHECKING:
    from covet.lifespan import Drain

__all__ = ["EventSourceResponse", "ServerSentEvent", "StreamingResponse"]


class StreamingResponse(Response):
    """A response whose body comes in pieces.

    Args:
        stream: an iterable of bytes or text. A plain one is advanced in worker threads, so it may block.
        status, headers: as for `Response`.
        content_type: `application/octet-stream` by default.

    A middleware may replace `stream`, which is asynchronous here whatever was given. It is closed when the response
    ends, also when the client leaves or the request is cancelled.
    """

    __slots__ = ("stream",)

    def __init__(
        self,
        stream: AsyncIterable[bytes | str] | Iterable[bytes | str],
        status: int = 200,
        headers: HeaderSource | None = None,
        content_type: str | None = "application/octet-stream",
    ) -> None:
        super().__init__(b"", status, headers, content_type)
        self.stream: AsyncIterable[bytes | str] = stream if isinstance(stream, AsyncIterable) else _in_threads(stream)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the response piece by piece, each as soon as it is there.

        Raises:
            OSError: the client has left, where the server tells; the stream has been closed then.
        """
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers.raw})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            async for piece in self.stream:
                data = piece.encode() if isinstance(piece, str) else piece
                if data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await close(self.stream)


async def close(stream: Any) -> None:
    """Close an asynchronous generator, even when the request is cancelled."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        from anyio import CancelScope

        with CancelScope(shield=True):
            await aclose()


async def _in_threads(iterable: Iterable[bytes | str]) -> AsyncIterator[bytes | str]:
    from anyio.to_thread import run_sync

    iterator = iter(iterable)
    end = object()

    def advance() -> Any:
        return next(iterator, end)

    try:
        while (piece := await run_sync(advance)) is not end:
            yield piece
    finally:
        closing = getattr(iterator, "close", None)
        if closing is not None:
            await run_sync(closing)


class ServerSentEvent:
    """An event of an event stream (WHATWG HTML, section 9.2).

    Args:
        data: text, or anything msgspec encodes, which goes as JSON.
        event: the event's type; `message` without one.
        id: what a browser sends as `Last-Event-ID` when it reconnects.
        retry: milliseconds until it does.
        comment: a line that browsers ignore.

    Raises:
        ValueError: `event` or `id` holds a line break, or `id` a NUL.
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
        if retry is not None and retry < 0:
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
        return ("\n".join(lines) + "\n\n").encode()


def _lines(text: str) -> list[str]:
    # The grammar ends a line with CR, LF or both; str.splitlines knows many more.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


class EventSourceResponse(StreamingResponse):
    """A stream of server-sent events.

    Args:
        events: an asynchronous iterable of `ServerSentEvent`, text or anything that goes as JSON.
        heartbeat: seconds without an event after which a comment is sent, so that proxies keep the connection and a
            client that is gone is noticed; None for never.
        retry: milliseconds until a browser reconnects, told at the start.
        close_on_drain: whether the stream ends when the application begins to shut down, so that it does not hold up
            the shutdown; browsers reconnect, to another worker.

    The iterator is closed when the client leaves, at shutdown, and when the request is cancelled.
    """

    __slots__ = ("close_on_drain", "heartbeat")

    def __init__(
        self,
        events: AsyncIterable[Any],
        status: int = 200,
        headers: HeaderSource | None = None,
        *,
        heartbeat: float | None = 15.0,
        retry: int | None = None,
        close_on_drain: bool = True,
    ) -> None:
        super().__init__(_encoded(events, retry), status, headers, "text/event-stream")
        self.heartbeat = heartbeat
        self.close_on_drain = close_on_drain
        self.headers.setdefault("cache-control", "no-store")
        self.headers.setdefault("x-accel-buffering", "no")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events until there are no more, the client leaves, or the application shuts down."""
        import anyio

        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        failure: Exception | None = None
        async with anyio.create_task_group() as group:

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    continue
                group.cancel_scope.cancel()

            async def until_drain(drain: Drain) -> None:
                await drain.wait()
                group.cancel_scope.cancel()

            group.start_soon(until_gone)
            holder = running.get(None)
            if self.close_on_drain and holder is not None:
                group.start_soon(until_drain, holder.app.drain)
            try:
                await self._send_events(send)
            except Exception as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        # Reached by a shutdown or a finished stream; a client that has left does not mind.
        await send({"type": "http.response.body", "body": b""})

    async def _send_events(self, send: Any) -> None:
        import anyio

        sender, receiver = anyio.create_memory_object_stream[bytes](0)

        async def produce() -> None:
            async with sender:
                try:
                    async for piece in self.stream:
                        await sender.send(piece if isinstance(piece, bytes) else piece.encode())
                except Exception as error:
                    failures.append(error)
                finally:
                    await close(self.stream)

        failures: list[Exception] = []
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers.raw})
        async with receiver, anyio.create_task_group() as group:
            group.start_soon(produce)
            while True:
                data = b": \n\n"
                with anyio.move_on_after(self.heartbeat):
                    try:
                        data = await receiver.receive()
                    except anyio.EndOfStream:
                        break
                await send({"type": "http.response.body", "body": data, "more_body": True})
        if failures:
            raise failures[0]


async def _encoded(events: AsyncIterable[Any], retry: int | None) -> AsyncIterator[bytes]:
    try:
        if retry is not None:
            yield ServerSentEvent(retry=retry).encode()
        async for event in events:
            yield (event if isinstance(event, ServerSentEvent) else ServerSentEvent(event)).encode()
    finally:
        await close(events)
