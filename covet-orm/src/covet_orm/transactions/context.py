"""Which transaction is around the code that asks: that of its task."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING

from covet_orm.exceptions import TransactionError

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.transactions.blocks import Transaction
    from covet_orm.transactions.retrying import Attempt

__all__ = ["active", "around", "attempts", "current_transaction"]

active: ContextVar[Transaction | None] = ContextVar("covet_orm.transaction", default=None)
"""The innermost transaction block of this context, which may have ended."""

attempts: ContextVar[Attempt | None] = ContextVar("covet_orm.attempt", default=None)
"""The attempt around this code: see `transaction_manager.retry`."""


def around(database: Database) -> Transaction | None:
    """The innermost open transaction in a database around this code, whoever it belongs to."""
    block = active.get()
    # Of a database and the same one without its replicas, the pools are the same.
    while block is not None and (block.ended or block.database._lanes is not database._lanes):
        block = block.outer
    return block


def current_transaction(database: Database) -> Transaction | None:
    """The open transaction of this task in a database, if there is one.

    Raises:
        TransactionError: the transaction around this code belongs to another task, which does not share it.
    """
    block = active.get()
    if block is None:
        return None
    block = around(database)
    if block is not None and block.task is not asyncio.current_task() and block.sharing is None:
        raise TransactionError(
            f"this task was started inside of a transaction of {block.task_name}, whose connection carries one "
            "statement at a time. Await it in the task that opened the transaction; or let it share that one, with "
            "`async with transaction_manager.share():` around what starts it; or give it one of its own, with `with "
            "transaction_manager.independent():` within it"
        )
    return block
