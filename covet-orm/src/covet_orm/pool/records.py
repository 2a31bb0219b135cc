"""What a pool keeps about its connections and about those who wait, and what it tells of that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from covet_orm.drivers.protocol import Connection

__all__ = ["Holder", "PoolStats", "Slot", "Waiter", "describe"]

SHOWN = 10
STATEMENT = 200


class Holder(Struct, frozen=True):
    """Who holds a connection.

    Attributes:
        task: the name of the task that acquired it.
        seconds: since when.
        statement: the last statement that it ran, without parameters; empty when it ran none.
        number: the connection's.
        server_id: what the server calls the connection, if it does.
        ended: whether the task has ended, and so did not release what it acquired.
    """

    task: str
    seconds: float
    statement: str
    number: int
    server_id: int | None
    ended: bool


class PoolStats(Struct, frozen=True):
    """A pool in numbers. `size` is always the sum of `idle`, `in_use`, `making` and `checking`.

    Attributes:
        size: its connections, those being made included.
        idle: at rest, ready for use.
        in_use: held by tasks.
        making: being made.
        checking: idle until now, and asked whether they still work.
        waiting: how many tasks wait for a connection.
        made, discarded: how many connections so far.
        failures: how many attempts to connect have failed.
        waits, waited: how often somebody had to wait so far, and the seconds in all.
        timeouts: how many gave up waiting.
    """

    size: int
    idle: int
    in_use: int
    making: int
    checking: int
    waiting: int
    made: int
    discarded: int
    failures: int
    waits: int
    waited: float
    timeouts: int


class Slot:
    """A connection with what the pool knows of it. Points in time are those of `time.monotonic()`."""

    __slots__ = ("connection", "expires", "idle_since", "made", "since", "task")

    def __init__(self, connection: Connection, made: float, expires: float) -> None:
        self.connection = connection
        self.made = made
        self.expires = expires
        self.idle_since = made
        self.task: asyncio.Task[Any] | None = None
        self.since = made

    def holder(self, now: float) -> Holder:
        """Who holds it."""
        task, connection = self.task, self.connection
        return Holder(
            task.get_name() if task is not None else "no task",
            now - self.since,
            connection.statement,
            connection.number,
            connection.server_id,
            task is not None and task.done(),
        )


class Waiter:
    """Somebody who waits for a connection, since `since`."""

    __slots__ = ("future", "since", "task")

    def __init__(self, future: asyncio.Future[Connection], task: asyncio.Task[Any] | None, since: float) -> None:
        self.future = future
        self.task = task
        self.since = since


def describe(holders: Sequence[Holder]) -> str:
    """Holders in words, those first who have held for longest."""
    told = []
    for holder in sorted(holders, key=lambda holder: -holder.seconds)[:SHOWN]:
        words = [f"{holder.task} for {holder.seconds:.1f} s"]
        if holder.ended:
            words.append("which has ended without releasing it")
        if holder.statement:
            statement = " ".join(holder.statement.split())
            words.append(f"last: {statement if len(statement) <= STATEMENT else statement[: STATEMENT - 1] + '…'}")
        if holder.server_id is not None:
            words.append(f"server's id {holder.server_id}")
        told.append(", ".join(words))
    more = len(holders) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")
