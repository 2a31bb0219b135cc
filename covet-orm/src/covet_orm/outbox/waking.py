"""Waking the workers when there is something to deliver: those of this process at once, others by PostgreSQL's NOTIFY.

Both only save time. What nobody was woken for is found at the next look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import random
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from anyio import Event, fail_after, move_on_after, sleep

from covet_orm.exceptions import OrmError
from covet_orm.outbox.tables import CHANNEL, OutboxTable

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.drivers.protocol import Connection

__all__ = ["listen", "wake_workers", "workers"]

logger = logging.getLogger("covet.orm")

# Seconds.
HEARTBEAT = 15.0
ANSWER = 10.0
FIRST_PAUSE, MAX_PAUSE = 0.1, 5.0

workers: WeakKeyDictionary[OutboxTable, dict[Callable[[], None], asyncio.AbstractEventLoop]] = WeakKeyDictionary()
"""What wakes the workers of this process, and the event loops that they run in."""


def wake_workers(table: OutboxTable) -> None:
    """Wake the workers of this process that deliver from a table."""
    for wake, loop in list(workers.get(table, {}).items()):
        # The worker takes its entry away before its loop ends.
        loop.call_soon_threadsafe(wake)


async def listen(database: Database, wake: Callable[[], None]) -> None:
    """Wake somebody whenever a transaction that enqueued has committed (PostgreSQL), until cancelled.

    A connection beside the pool listens; when it is lost it is made again. Through a PgBouncer in transaction mode
    nothing would come: there it returns.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            with fail_after(ANSWER):
                connection = await database.connect()
            if getattr(connection, "pooled", False):
                await connection.close()
                return
        except (OrmError, TimeoutError) as error:
            logger.debug("no connection that listens to the outbox of %r yet: %s", database.alias, error)
            await sleep(pause * (0.5 + random() / 2))
            pause = min(MAX_PAUSE, pause * 2)
            continue
        try:
            await _listen(connection, wake)
            pause = FIRST_PAUSE
        except Exception as error:  # noqa: BLE001 - whatever it was, the connection is made anew
            logger.debug("the connection that listens to the outbox of %r was lost: %s", database.alias, error)
            await sleep(pause * (0.5 + random() / 2))
        finally:
            connection.terminate()


async def _listen(connection: Connection, wake: Callable[[], None]) -> None:
    """Return when the connection is lost."""
    raw: Any = connection.raw  # type: ignore[attr-defined]
    lost = Event()
    raw.add_termination_listener(lambda _: lost.set())
    with fail_after(ANSWER):
        await raw.add_listener(CHANNEL, lambda *_: wake())
    # What was enqueued before.
    wake()
    while not lost.is_set():
        with move_on_after(HEARTBEAT):
            await lost.wait()
        if not lost.is_set():
            with fail_after(ANSWER):
                await raw.execute("SELECT 1")
