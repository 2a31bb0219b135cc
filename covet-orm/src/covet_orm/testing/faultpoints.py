"""Named points at which tests let something happen: an error, a wait, the death of the process.

    with faultpoints.at("2pc.decided", faultpoints.kill):
        async with transaction_manager.distributed("orders", "billing"): ...

Code that has such a point says `if faultpoints.actions: await faultpoints.reached("2pc.decided")`: as long as no test
asks for one, that is a look at an empty dict. The points are the documented steps of what has them, so that a test says
where it strikes and does not count statements.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

__all__ = ["Action", "actions", "at", "kill", "reached"]

Action = Callable[[], object | Awaitable[object]]
"""What happens at a point: a function of nothing, whose result is awaited if it can be."""

actions: dict[str, Action] = {}
"""What happens where, by the name of the point."""


@contextmanager
def at(point: str, action: Action) -> Iterator[None]:
    """Let something happen whenever a point is reached, in this process, within the block.

    Args:
        point: its name.
        action: what happens; what it raises is raised there.
    """
    before = actions.get(point)
    actions[point] = action
    try:
        yield
    finally:
        del actions[point]
        if before is not None:
            actions[point] = before


async def reached(point: str) -> None:
    """Do what is to happen at a point.

    Raises:
        Exception: what the action raises.
    """
    action = actions.get(point)
    if action is None:
        return
    found = action()
    if inspect.isawaitable(found):
        await found


def kill() -> None:
    """End this process at once, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
