"""Work beside requests: the application's supervised tasks, and what a request leaves to do after its response.

A task that fails is logged with the request it came from; it takes no other down. At shutdown all are waited for, up to
a limit, then cancelled, and those that had to be are named in the log.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from covet.concurrency import task_group
from covet.exceptions import CovetError
from covet.signatures import is_coroutine

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["Tasks"]

logger = logging.getLogger("covet.tasks")


class Tasks:
    """The supervised tasks of an application. Runs while the application does."""

    def __init__(self) -> None:
        self._group: anyio.abc.TaskGroup | None = None
        self._names: dict[int, str] = {}
        self._idle = anyio.Event()
        self._count = 0

    @property
    def running(self) -> bool:
        """Whether tasks can be started."""
        return self._group is not None

    def __len__(self) -> int:
        return len(self._names)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Tasks can be started in this context; leaving it waits for them, so `drain` first."""
        async with task_group() as self._group:
            try:
                yield
            finally:
                self._group = None

    def start_soon(self, function: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> None:
        """Run a function beside everything else; a plain `def` runs in a worker thread.

        Raises:
            CovetError: the application is not running, or is past its shutdown.
        """
        if self._group is None:
            raise CovetError("tasks can be started only while the application runs, between start-up and shutdown")
        self._count += 1
        key = self._count
        label: str = name or getattr(function, "__qualname__", repr(function))
        self._names[key] = label
        self._group.start_soon(self._supervise, key, label, partial(function, *args, **kwargs), name=label)

    async def _supervise(self, key: int, label: str, call: Callable[[], Any]) -> None:
        try:
            await run(call)
        except Exception:
            logger.exception("the task %s failed", label)
        finally:
            del self._names[key]
            if not self._names:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Wait until no task runs, at most `seconds`; then cancel those that still do, and log their names."""
        with anyio.move_on_after(seconds):
            while self._names:
                self._idle = anyio.Event()
                await self._idle.wait()
        if self._names and self._group is not None:
            logger.warning(
                "cancelled at shutdown after %.1f seconds: %s", seconds, ", ".join(sorted(self._names.values()))
            )
            self._group.cancel_scope.cancel()

    def start_after(self, request: Request) -> None:
        """Run what a request left to do, in order, one after the other."""
        self.start_soon(_run_all, request.tasks, name=f"after {request.method} {request.path}")


async def _run_all(calls: tuple[Callable[[], Any], ...]) -> None:
    for call in calls:
        try:
            await run(call)
        except Exception:
            logger.exception("work after the response failed: %s", getattr(call, "func", call))


async def run(call: Callable[[], Any]) -> None:
    """Call a function, in a worker thread unless it is `async def`."""
    if is_coroutine(call):
        result: Awaitable[Any] = call()
        await result
    else:
        await anyio.to_thread.run_sync(call)
