"""Receiving a request's body: message by message, counted, and within a time.

Most bodies are there when the handler asks for them, and a timer of its own costs several times what receiving such a
body does. So a receive is first taken as far as it goes without waiting, and only one that waits is timed: by a single
timer for all of an event loop.
"""

from __future__ import annotations

from asyncio import CancelledError, _get_running_loop, current_task
from collections.abc import Awaitable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from math import inf
from threading import local
from time import monotonic
from types import coroutine
from typing import TYPE_CHECKING, Any

from covet.exceptions import ClientDisconnected, CovetError, HTTPError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

    from covet.connections import Message, Receive

__all__ = ["BodyStream", "declared_length", "resumed"]


class BodyStream:
    """The body of one request, as an asynchronous iterator over its chunks as they arrive. No chunk is empty.

    Iterating raises:

    - `HTTPError` 413: more than `limit` bytes have come, whatever `Content-Length` says;
    - `HTTPError` 408: waiting for messages has taken `seconds` in all; time that the caller spends between them does
      not count;
    - `ClientDisconnected`: the client left before the body was complete;
    - `CovetError`: an earlier receive failed or was cancelled, or another task is receiving: what would come now is
      not the whole.

    Cancellation reaches the server's `receive`; nothing is left running.

    Args:
        receive: the ASGI callable.
        limit: how many bytes are accepted.
        seconds: how long to wait in all.
        headers: the request's, as ASGI has them: a body that announces more than `limit` bytes is not waited for.
        first: the first message, if it was received already.
        started: a receive for the first message that has begun to wait.
    """

    __slots__ = (
        "_first", "_headers", "_limit", "_more", "_receive", "_receiving", "_seconds", "_started", "_waited", "size",
    )  # fmt: skip

    def __init__(
        self,
        receive: Receive,
        limit: int,
        seconds: float,
        headers: Iterable[tuple[bytes, bytes]] = (),
        *,
        first: Message | None = None,
        started: Awaitable[Message] | None = None,
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._headers: Iterable[tuple[bytes, bytes]] | None = headers
        self._first = first
        self._started = started
        self._waited = 0.0
        self._more = True
        self._receiving = False
        self.size = 0

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        while self._more:
            message = self._begin()
            if message is None:
                with self._time_limit():
                    message = await self._receipt()
            if chunk := self._take(message):
                return chunk
            if self._more:
                await self._breathe()
        raise StopAsyncIteration

    async def read(self) -> bytes:
        """All chunks that are left, as one. Raises what iterating raises."""
        # The loop of `__anext__` once more: a server that is asked again and again whether the body has come passes
        # through every coroutine between.
        body = b""
        chunks = []
        while self._more:
            message = self._begin()
            if message is None:
                with self._time_limit():
                    message = await self._receipt()
            body = self._take(message)
            chunks.append(body)
            if self._more and not body:
                await self._breathe()
        return body if len(chunks) == 1 else b"".join(chunks)

    def _begin(self) -> Message | None:
        """The first message, if it is there, when nothing speaks against receiving."""
        if self._receiving:
            raise CovetError(
                "the body cannot be read on: an earlier read of it failed or was cancelled, or is still going on"
            )
        self._receiving = True
        first, self._first = self._first, None
        # Before it is waited for: a client that asks whether to go on (RFC 9110 section 10.1.1) is told at once.
        if first is None and self._announces_too_much():
            raise self._too_large()
        return first

    def _receipt(self) -> Awaitable[Message]:
        started, self._started = self._started, None
        return started or self._receive()

    def _take(self, message: Message) -> bytes:
        """A message's part of the body, which may be empty."""
        if message["type"] != "http.request":
            raise ClientDisconnected(f"the client left after {self.size} bytes of its request's body")
        chunk: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        self.size += len(chunk)
        if self.size > self._limit or (more and self._announces_too_much()):
            raise self._too_large()
        self._receiving = False
        self._more = more
        return chunk

    def _announces_too_much(self) -> bool:
        headers, self._headers = self._headers, None
        if headers is None:
            return False
        length = declared_length(headers)
        return length is not None and length > self._limit

    def _time_limit(self) -> AbstractContextManager[object]:
        """Waiting within this takes no longer than there is time left; it raises the `HTTPError` that says so."""
        clock = _running.clock
        # Asking which loop runs here costs a system call. If the last one of this thread still runs, it is that.
        if clock is None or not clock.loop.is_running():
            loop = _get_running_loop()
            if loop is None:
                return self._on_trio()
            clock = _running.clock = _Clock(loop)
        return _Wait(self, clock)

    @contextmanager
    def _on_trio(self) -> Iterator[None]:
        import anyio

        began = monotonic()
        try:
            with anyio.fail_after(self._seconds - self._waited):
                yield
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._waited += monotonic() - began

    async def _breathe(self) -> None:
        """Let others run, within the time: a server that gives empty chunks for ever need not ever suspend."""
        import anyio

        began = monotonic()
        await anyio.lowlevel.checkpoint()
        self._waited += monotonic() - began
        if self._waited >= self._seconds:
            self._receiving = True
            raise self._too_slow()

    def _too_large(self) -> HTTPError:
        return HTTPError(413, f"the request's body is larger than the {self._limit} bytes accepted here")

    def _too_slow(self) -> HTTPError:
        return HTTPError(408, f"the request's body did not arrive within {self._seconds:g} seconds")


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The `Content-Length` of a request, in bytes, or None without one.

    Raises:
        HTTPError: 400: it is no number, or stands twice with different values (RFC 9112 section 6.3).
    """
    found: bytes | None = None
    for name, value in headers:
        if name == b"content-length":
            if found is not None and value != found:
                raise _no_length()
            found = value
    if found is None:
        return None
    # int() would take a sign, spaces and underscores besides. 10**20 bytes are more than any server stores.
    if not found.isdigit() or len(found) > 20:
        raise _no_length()
    return int(found)


def _no_length() -> HTTPError:
    return HTTPError(400, "the Content-Length of the request is not one decimal number")


@coroutine
def resumed(steps: Any, trap: Any) -> Generator[Any, Any, Any]:
    """Go on with an awaitable that was stepped by hand until it asked asyncio's event loop for `trap`."""
    while True:
        try:
            yield trap
        except BaseException as error:
            # What a server written in another language gives may have no `throw`.
            if not hasattr(steps, "throw"):
                raise
            try:
                trap = steps.throw(error)
            except StopIteration as done:
                return done.value
        else:
            return (yield from steps)


# The timer's context: that of whoever sets it would keep his request alive until it rings.
NOTHING = Context()


class _Clock:
    """Cancels those of an event loop's tasks that wait for too long. However many wait, there is one timer."""

    # Seconds between two rings: thousands of slow clients shall not make it ring for each of them.
    REST = 0.1

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.waits: set[_Wait] = set()
        # When it rings next; never, while nobody waits.
        self.rings = inf
        self.timer: TimerHandle | None = None

    def set(self, when: float) -> None:
        """Ring at `when`."""
        if self.timer is not None:
            self.timer.cancel()
        self.rings = when
        self.timer = self.loop.call_at(when, self.ring, context=NOTHING)

    def ring(self) -> None:
        """Cancel whose time is up, and ring again for the next."""
        self.timer, self.rings = None, inf
        now = self.loop.time()
        following = inf
        for wait in self.waits:
            if wait.deadline > now + 0.001:
                following = min(following, wait.deadline)
            elif not wait.expired:
                wait.expired = True
                wait.task.cancel()
        if following < inf:
            self.set(max(following, now + self.REST))


class _Wait:
    """One wait of one task, as a context. It is cancelled, and that told from others, as `asyncio.timeout` does it."""

    __slots__ = ("began", "cancelled_before", "clock", "deadline", "expired", "stream", "task")

    def __init__(self, stream: BodyStream, clock: _Clock) -> None:
        task = current_task(clock.loop)
        assert task is not None
        self.stream = stream
        self.clock = clock
        self.task = task
        self.cancelled_before = task.cancelling()
        self.began = clock.loop.time()
        self.deadline = self.began + stream._seconds - stream._waited
        self.expired = False

    def __enter__(self) -> None:
        self.clock.waits.add(self)
        if self.clock.rings > self.deadline:
            self.clock.set(self.deadline)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self.clock.waits.discard(self)
        self.stream._waited += self.clock.loop.time() - self.began
        if self.expired and self.task.uncancel() <= self.cancelled_before and isinstance(error, CancelledError):
            raise self.stream._too_slow() from None


class _Running(local):
    """The clock of the event loop that runs in this thread."""

    clock: _Clock | None = None


_running = _Running()
