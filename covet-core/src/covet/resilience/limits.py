"""Limits in time and in number: timeouts and bulkheads."""

from __future__ import annotations

from collections import deque
from types import TracebackType

import anyio

from covet.exceptions import CovetError
from covet.resilience.guarding import BulkheadFull, Guard, TimeoutExceeded

__all__ = ["Bulkhead", "bulkhead", "timeout"]


class timeout(Guard):  # noqa: N801 - it is called like a function
    """A limit for the time a block or call may take: `async with timeout(2.0):` or `@timeout(2.0)`.

    Args:
        seconds: above 0.

    Leaving raises `TimeoutExceeded` when the limit has ended the block. A `TimeoutError` of the block itself, and
    cancellation from outside, pass as they are.

    Raises:
        ValueError: `seconds` is not above 0.
    """

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"a timeout is in seconds, above 0, not {seconds}")
        self.seconds = seconds
        self._scope: anyio.CancelScope | None = None

    def for_one_call(self) -> timeout:
        """A timeout of its own for each call: they overlap."""
        return timeout(self.seconds)

    async def __aenter__(self) -> timeout:
        if self._scope is not None:
            raise CovetError("this timeout is running already; make one for each block: `async with timeout(...):`")
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + self.seconds)
        self._scope.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        scope, self._scope = self._scope, None
        assert scope is not None
        caught = scope.__exit__(kind, error, traceback)
        if scope.cancelled_caught:
            raise TimeoutExceeded(self.seconds) from None
        return caught


class Bulkhead(Guard):
    """Lets only so many calls run at a time; the others wait in a queue, first come, first served.

    Args:
        limit: how many run.
        queue: how many may wait.
        wait: seconds that one waits at most; None for as long as it takes.

    Entering raises `BulkheadFull` when the queue is full, or when the wait was too long. Cancelling the wait gives the
    place up.

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(self, limit: int, *, queue: int = 0, wait: float | None = None) -> None:
        if limit < 1 or queue < 0 or (wait is not None and not wait > 0):
            raise ValueError(
                f"limit is at least 1, queue at least 0, wait above 0 seconds; not {limit}, {queue} and {wait}"
            )
        self.limit = limit
        self.queue = queue
        self.wait = wait
        self.running = 0
        self._waiting: deque[anyio.Event] = deque()

    @property
    def waiting(self) -> int:
        """How many wait in the queue."""
        return len(self._waiting)

    async def __aenter__(self) -> Bulkhead:
        if self.running < self.limit:
            self.running += 1
            return self
        if len(self._waiting) >= self.queue:
            raise BulkheadFull(f"{self.limit} calls are running and {self.queue} waiting, and no more may")
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            with anyio.move_on_after(self.wait):
                await turn.wait()
        except BaseException:
            if turn.is_set():
                self._pass_on()
            else:
                self._waiting.remove(turn)
            raise
        if not turn.is_set():
            self._waiting.remove(turn)
            raise BulkheadFull(f"{self.limit} calls are running, and none has ended within {self.wait} seconds")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        """Give a place to who waits longest; `running` stays what it is then."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self.running -= 1


def bulkhead(limit: int, *, queue: int = 0, wait: float | None = None) -> Bulkhead:
    """A `Bulkhead`, as it reads best above a function: `@bulkhead(10, queue=50, wait=1.0)`."""
    return Bulkhead(limit, queue=queue, wait=wait)
