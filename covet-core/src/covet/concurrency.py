"""Two small things that anyio leaves to its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

__all__ = ["in_thread", "task_group"]


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function that may block in a worker thread, with the caller's context variables.

    Cancellation waits until the function has returned: a thread cannot be stopped.
    """
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A task group whose body's own error is raised as it is, after the tasks were cancelled, not in a group.

    Raises:
        ExceptionGroup: of what the tasks raised.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        try:
            yield group
        except Exception as error:  # noqa: BLE001 - it is raised below
            failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
