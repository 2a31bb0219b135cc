"""Work beside requests: the application's supervised tasks, and what a request leaves to do after its response.

A task that fails is logged with the request it came from; it takes no other down. At shutdown all are waited for, up to
a limit, then cancelled, and those that had to be are named in the log.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import anyio

from covet.annotations import is_coroutine
from covet.concurrency import task_group
from covet.exceptions import CovetError

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["Tasks"]

logger = logging.getLogger("covet.tasks")


class Tasks:
    """The supervised tasks of an application. Runs while the application does."""

    def __init__(self) -> None:
        self._group: anyio.abc.TaskGroup | None = None
        # A task's scope is its own: cancelling those that are late must not cancel what stops after them.
        self._scopes: dict[anyio.CancelScope, str] = {}
        self._idle = anyio.Event()
        self._allowed = 0.0

    @property
    def running(self) -> bool:
        """Whether tasks can be started."""
        return self._group is not None

    def require_idle(self) -> None:
        """Make sure that the application may start.

        Raises:
            CovetError: it runs already.
        """
        if self.running:
            raise CovetError(
                "the application is running already; share it, or give further test clients `lifespan=False`"
            )

    def __len__(self) -> int:
        return len(self._scopes)

    @asynccontextmanager
    async def open(self, seconds: float) -> AsyncIterator[None]:
        """Tasks can be started in this context. Leaving it waits for them as `drain` does; an error cancels them.

        Raises:
            CovetError: they run already: an application runs once at a time.
        """
        self.require_idle()
        async with task_group() as self._group:
            try:
                yield
                await self.drain(seconds)
            finally:
                self._group = None

    def start_soon(self, function: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> None:
        """Run a function beside everything else; a plain `def` runs in a worker thread.

        It is not cancelled before shutdown, and then only when the time to finish is over. A thread cannot be
        cancelled: it is waited for no longer.

        Raises:
            CovetError: the application is not running, or is past its shutdown.
        """
        if self._group is None:
            raise CovetError("tasks can be started only while the application runs, between start-up and shutdown")
        label = name if name is not None else str(getattr(function, "__qualname__", function))
        scope = anyio.CancelScope()
        self._scopes[scope] = label
        self._group.start_soon(self._supervise, scope, label, partial(function, *args, **kwargs), name=label)

    async def _supervise(self, scope: anyio.CancelScope, label: str, call: Callable[[], Any]) -> None:
        try:
            with scope:
                await run(call)
            if scope.cancelled_caught:
                logger.warning("the task %s was cancelled at shutdown, after %.1f seconds", label, self._allowed)
        except Exception:
            logger.exception("the task %s failed", label)
        finally:
            del self._scopes[scope]
            if not self._scopes:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Wait until no task runs, at most `seconds`; then cancel those that still do. Each says so in the log."""
        with anyio.move_on_after(seconds):
            while self._scopes:
                self._idle = anyio.Event()
                await self._idle.wait()
        self._allowed = seconds
        for scope in list(self._scopes):
            scope.cancel()

    def start_after(self, request: Request) -> None:
        """Run what a request left to do, in order, one after the other."""
        done = anyio.Event()
        scope = request.scope
        # The test client puts lists here: to wait for the work, and to raise its errors in the test.
        failures: list[Exception] = scope.get("covet.failures", [])
        self.start_soon(_run_all, request.tasks, failures, done, name=f"after {request.method} {request.path}")
        scope.get("covet.after", []).append(done)


async def _run_all(calls: tuple[Callable[[], Any], ...], failures: list[Exception], done: anyio.Event) -> None:
    try:
        for call in calls:
            try:
                await run(call)
            except Exception as error:
                logger.exception("work after the response failed: %s", getattr(call, "func", call))
                failures.append(error)
    finally:
        done.set()


async def run(call: Callable[[], Any]) -> None:
    """Call a function, in a worker thread unless it is `async def`; what it returns is awaited if it can be.

    When it is cancelled, a thread is left to itself.
    """
    if is_coroutine(call):
        result = call()
    else:
        # In a tuple, as trio lets no thread return a coroutine.
        (result,) = await anyio.to_thread.run_sync(lambda: (call(),), abandon_on_cancel=True)
    if isawaitable(result):
        await result
