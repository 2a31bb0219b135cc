"""Named points at which tests let something happen: an error, a wait, the death of the process.

    with faultpoints.at("2pc.decided", faultpoints.kill):
        async with transaction_manager.distributed("orders", "billing"): ...

Code that has such a point says `if faultpoints.actions: await faultpoints.reached("2pc.decided")`: as long as no test
asks for one, that is a look at an empty dict. The points are the documented steps of what has them, so that a test says
where it strikes and does not count statements.

Those of every transaction, each also with the label of its block behind it (`transaction.committing.transfer`):

- `transaction.begin`: before the server is told of it. It has not begun.
- `transaction.committing`: before `COMMIT` is sent.
- `transaction.committed`: after the server has said that it is committed, and before anybody knows.

At the last two, a `ConnectionLost` is a `CommitUncertain` for the block, and any other error one of the commit.
Distributed transactions have the points of `covet_orm.transactions.distributed.blocks`.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covet_orm.drivers.protocol import Connection

__all__ = ["Action", "actions", "at", "commit", "kill", "reached", "reached_in"]

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


async def reached_in(step: str, label: str) -> None:
    """Do what is to happen at a step of a transaction, in all of them or in those of its label. Raises what `reached`
    raises."""
    await reached(f"transaction.{step}")
    if label:
        await reached(f"transaction.{step}.{label}")


async def commit(connection: Connection, label: str) -> None:
    """Commit the transaction of a connection, with the points before and after it. Raises what `reached` raises, and
    the connection."""
    await reached_in("committing", label)
    await connection.script("COMMIT")
    await reached_in("committed", label)


def kill() -> None:
    """End this process at once, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
