"""Awaiting to the end, whoever cancels: for what must not be cut in the middle, such as a COMMIT.

A task of its own would protect it as well (`asyncio.shield`), at several times the cost, and the connection would be
used by another task than the one that holds it. So the awaitable is driven here, by hand: of what it waits for, the
task sees a stand-in, which cancellation may end as often as it likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from anyio import CancelScope

__all__ = ["Outcome", "uninterrupted"]

T = TypeVar("T")


class Outcome(NamedTuple, Generic[T]):
    """How it ended.

    Attributes:
        result: what was awaited gave; None where it failed.
        error: what it raised, if it did.
        cancelled: the cancellation that came meanwhile, which the caller raises when it is done.
    """

    result: T | None
    error: BaseException | None
    cancelled: asyncio.CancelledError | None


class uninterrupted(Generic[T]):  # noqa: N801 - it is awaited, as a function would be
    """Await to the end.

        outcome = await uninterrupted(connection.script("COMMIT"), cut=connection.terminate, patience=5)

    Args:
        awaitable: what is awaited.
        cut: ends it by force.
        patience: seconds from the first cancellation to `cut`.
        hurried: whether the caller was cancelled already, so that the time counts from the beginning.
    """

    __slots__ = ("_awaitable", "_cut", "_hurried", "_patience")

    def __init__(
        self, awaitable: Awaitable[T], *, cut: Callable[[], None], patience: float, hurried: bool = False
    ) -> None:
        self._awaitable = awaitable
        self._cut = cut
        self._patience = patience
        self._hurried = hurried

    def __await__(self) -> Generator[Any, Any, Outcome[T]]:
        steps: Any = self._awaitable.__await__()
        step: Callable[[], Any] = partial(steps.send, None)
        wait = _Wait(self._cut, self._patience)
        if self._hurried:
            wait.hurry()
        try:
            while True:
                try:
                    trap = step()
                except StopIteration as done:
                    return Outcome(done.value, None, wait.cancelled)
                except BaseException as error:  # noqa: BLE001 - the caller raises it when it knows what it means
                    return Outcome(None, error, wait.cancelled)
                yield from wait.until_done(trap)
        finally:
            wait.close()


class _Wait:
    """Waits in place of what is awaited, and notes the cancellation."""

    __slots__ = ("_cut", "_patience", "_scope", "_timer", "cancelled")

    def __init__(self, cut: Callable[[], None], patience: float) -> None:
        self.cancelled: asyncio.CancelledError | None = None
        self._cut = cut
        self._patience = patience
        self._scope: CancelScope | None = None
        self._timer: asyncio.TimerHandle | None = None

    def until_done(self, trap: Any) -> Generator[Any, Any, None]:
        """Yield what the task waits for until `trap` is done: a future, or None for the next turn of the loop."""
        if trap is None:
            try:
                yield None
            except asyncio.CancelledError as error:
                self._note(error)
            return
        # As the task itself does with a future that it was given to wait for.
        trap._asyncio_future_blocking = False
        while not trap.done():
            try:
                yield _StandIn(trap)
            except asyncio.CancelledError as error:
                if not trap.cancelled():
                    self._note(error)
            except BaseException:
                # What `trap` ended with is for the one who awaits it, and there it comes with the next step.
                if not trap.done():
                    raise

    def hurry(self) -> None:
        """Begin to count the time."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._cut)

    def _note(self, error: asyncio.CancelledError) -> None:
        self.cancelled = self.cancelled or error
        self.hurry()
        if self._scope is None:
            # A scope of anyio that is cancelled cancels in every turn of the loop, unless another one shields the task.
            self._scope = CancelScope(shield=True)
            self._scope.__enter__()

    def close(self) -> None:
        """Leave nothing behind."""
        if self._timer is not None:
            self._timer.cancel()
        if self._scope is not None:
            self._scope.__exit__(None, None, None)


class _StandIn:
    """A future in the eyes of a task (`asyncio.isfuture`): done with another one, which it does not cancel."""

    __slots__ = ("_asyncio_future_blocking", "_context", "_trap", "_wake")

    def __init__(self, trap: asyncio.Future[Any]) -> None:
        self._asyncio_future_blocking = True
        self._trap = trap

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the task."""
        return self._trap.get_loop()

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Wake the task when the other one is done."""
        self._wake, self._context = wake, context
        self._trap.add_done_callback(wake, context=context)

    def cancel(self, msg: str | None = None) -> bool:
        """Wake the task at once, with `CancelledError`."""
        if not self._trap.remove_done_callback(self._wake):
            return False
        self.get_loop().call_soon(self._wake, _Cancelled(msg), context=self._context)
        return True


class _Cancelled:
    """What a task is woken with that was cancelled."""

    def __init__(self, message: str | None) -> None:
        self._message = message

    def result(self) -> None:
        """Raise it."""
        raise asyncio.CancelledError(*(() if self._message is None else (self._message,)))
