"""Blocks that are left out of order: by another task than their own, or while a block inside of them is open.

Both come from async generators that yield inside of a block. Whoever iterates over one is in its block meanwhile, since
a generator has no context of its own. Where it is not closed, the event loop closes it when it is collected, in another
task, whatever goes on by then: `ROLLBACK TO SAVEPOINT` would take back what was written since. So it is not sent, and
the block around does not commit.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING

from covet_orm.exceptions import TransactionError
from covet_orm.transactions.context import active

if TYPE_CHECKING:
    from collections.abc import Iterator

    from covet_orm.transactions.blocks import Transaction

__all__ = ["leave_scope", "left_out_of_order", "open_inside"]

logger = logging.getLogger("covet_orm.transactions")

ADVICE = "close async generators that yield inside of a block, with `contextlib.aclosing()`"


def left_out_of_order(block: Transaction, error: BaseException | None) -> BaseException | None:
    """What a block ends with, of which it is not sure that it is left in order: `error` where it is.

    Args:
        block: the block.
        error: what leaves it, if anything does.
    """
    begun = False
    for inner in open_inside(block):
        begun = begun or inner.begun
        inner._connection = None
        inner._doom = inner._doom or TransactionError("the block around it was left before it")
    if error is None and begun:
        error = TransactionError(f"a block inside of this one is still open, so that nothing was committed: {ADVICE}")
    parent = block.parent
    if parent is not None and parent.ended:
        # The connection may be that of another transaction by now.
        block._connection = None
        return error or TransactionError("the block around this one was left before it, and this one with it")
    if isinstance(error, GeneratorExit) and block.begun and block.task is not asyncio.current_task():
        if parent is not None:
            block._connection = None
            parent._doom = parent._doom or TransactionError(f"a block was left by nobody, and collected: {ADVICE}")
        logger.error(
            "%r was left by nobody, and collected: it is rolled back, with all that %s did in it since; %s",
            block, block.task_name, ADVICE,
        )  # fmt: skip
    return error


def open_inside(block: Transaction) -> Iterator[Transaction]:
    """The blocks inside of one, in its database, that are open in this context."""
    inner = active.get()
    while inner is not None and inner is not block:
        around = inner.parent
        while around is not None and around is not block:
            around = around.parent
        if around is block and not inner.ended:
            yield inner
        inner = inner.outer


def leave_scope(block: Transaction, error: BaseException | None) -> bool:
    """Leave the scope of a block's timeout; whether the time was over.

    A scope is left in the task that entered it. Where that is another one, its time is ended, lest it cancel that task.
    """
    scope, block._scope = block._scope, None
    if scope is None:
        return False
    if block.task is asyncio.current_task():
        return bool(scope.__exit__(type(error) if error is not None else None, error, None))
    scope.deadline = inf
    return False
