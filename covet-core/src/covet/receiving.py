"""Receiving a request's body: message by message, counted, and within a time.

A timer costs several times what receiving a body does that is there already, as most are. So a receive is stepped by
hand: only when it suspends is it timed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from types import coroutine
from typing import TYPE_CHECKING, Any

from covet.exceptions import ClientDisconnected, CovetError, HTTPError

if TYPE_CHECKING:
    from covet.connections import Message, Receive

__all__ = ["BodyStream", "Suspended", "declared_length"]

# What is left of an awaitable that was started: its iterator or coroutine, and what that asked the event loop for.
Suspended = tuple[Any, Any]


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
        suspended: a receive for the first message that was started and has suspended.
    """

    __slots__ = (
        "_first", "_headers", "_limit", "_more", "_receive", "_receiving", "_seconds", "_suspended", "_waited", "size",
    )  # fmt: skip

    def __init__(
        self,
        receive: Receive,
        limit: int,
        seconds: float,
        headers: Iterable[tuple[bytes, bytes]] = (),
        *,
        first: Message | None = None,
        suspended: Suspended | None = None,
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._headers: Iterable[tuple[bytes, bytes]] | None = headers
        self._first = first
        self._suspended = suspended
        self._waited = 0.0
        self._more = True
        self._receiving = False
        self.size = 0

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        while self._more:
            if self._receiving:
                raise CovetError(
                    "the body cannot be read on: an earlier read of it failed or was cancelled, or is still going on"
                )
            self._receiving = True
            message = await self._message()
            if message["type"] != "http.request":
                raise ClientDisconnected(f"the client left after {self.size} bytes of its request's body")
            chunk: bytes = message.get("body", b"")
            more: bool = message.get("more_body", False)
            self.size += len(chunk)
            if self.size > self._limit or (more and self._announces_too_much()):
                raise HTTPError(413, f"the request's body is larger than the {self._limit} bytes accepted here")
            self._receiving = False
            self._more = more
            if chunk:
                return chunk
            if more:
                await self._breathe()
        raise StopAsyncIteration

    def _announces_too_much(self) -> bool:
        headers, self._headers = self._headers, None
        if headers is None:
            return False
        length = declared_length(headers)
        return length is not None and length > self._limit

    async def _message(self) -> Message:
        """The next message."""
        first, self._first = self._first, None
        if first is not None:
            return first
        if self._suspended is not None:
            (steps, trap), self._suspended = self._suspended, None
        else:
            steps = self._receive().__await__()
            try:
                trap = next(steps)
            except StopIteration as done:
                there: Message = done.value
                return there
        import anyio

        message: Message
        began = anyio.current_time()
        try:
            message = await _timed(steps, trap, began + self._seconds - self._waited)
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._waited += anyio.current_time() - began
        return message

    async def _breathe(self) -> None:
        """Let others run, within the time: a server that gives empty chunks for ever need not ever suspend."""
        import anyio

        began = anyio.current_time()
        await anyio.lowlevel.checkpoint()
        self._waited += anyio.current_time() - began
        if self._waited >= self._seconds:
            self._receiving = True
            raise self._too_slow()

    def _too_slow(self) -> HTTPError:
        return HTTPError(408, f"the request's body did not arrive within {self._seconds:g} seconds")


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The `Content-Length` of a request, in bytes, or None without one.

    Raises:
        HTTPError: 400: it is no number, or stands twice with different values (RFC 9112 section 6.3).
    """
    values = {value for name, value in headers if name == b"content-length"}
    if not values:
        return None
    value = values.pop()
    # int() would take a sign, spaces and underscores besides. 10**20 bytes are more than any server stores.
    if values or not value.isdigit() or len(value) > 20:
        raise HTTPError(400, "the Content-Length of the request is not one decimal number")
    return int(value)


@coroutine
def _timed(steps: Any, trap: Any, deadline: float) -> Generator[Any, Any, Any]:
    """Finish an awaitable that was started and has suspended, before `deadline` (in the event loop's time).

    What is awaited may have entered cancel scopes and task groups of its own by now, for it may be anybody's
    `receive`. Scopes must nest, so ours can only be the innermost: it is entered when the event loop takes over, and
    left before the awaitable goes on. The rest is what `yield from` does (PEP 380).

    Raises:
        TimeoutError: the deadline passed; the awaitable was cancelled and has cleaned up.
    """
    from anyio import CancelScope, get_cancelled_exc_class

    expired = False
    while True:
        sent: Any = None
        thrown: BaseException | None = None
        # Once it was told that it is cancelled, it may wait for as long as its clean-up needs.
        scope = CancelScope(deadline=float("inf") if expired else deadline)
        scope.__enter__()
        try:
            sent = yield trap
        except BaseException as error:  # noqa: BLE001 - handed on to the awaitable below
            thrown = error
        scope.__exit__(None if thrown is None else type(thrown), thrown, None)
        # asyncio throws the cancellation; trio sends an outcome, out of which the awaitable itself raises it.
        if scope.cancelled_caught or (sent is not None and scope.cancel_called):
            expired = True
        elif thrown is not None:
            expired = False  # somebody else's cancellation, which goes before ours
        try:
            trap = _send(steps, sent) if thrown is None else _throw(steps, thrown)
        except StopIteration as done:
            if expired:
                raise TimeoutError from None
            return done.value
        except BaseException as error:
            # A task group in the awaitable takes our cancellation for its own, swallows it and goes on: then any
            # error may follow from that.
            if expired and _only(error, (Exception, get_cancelled_exc_class())):
                raise TimeoutError from error
            raise


def _send(steps: Any, value: Any) -> Any:
    send = getattr(steps, "send", None)
    return next(steps) if send is None else send(value)


def _throw(steps: Any, error: BaseException) -> Any:
    if isinstance(error, GeneratorExit):
        close = getattr(steps, "close", None)
        if close is not None:
            close()
        raise error
    throw = getattr(steps, "throw", None)
    if throw is None:
        raise error
    return throw(error)


def _only(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether `error` is of one of these kinds, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(_only(inner, kinds) for inner in error.exceptions)
    return isinstance(error, kinds)
