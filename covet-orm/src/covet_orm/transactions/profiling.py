"""What transactions cost, by label."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence
from contextvars import Context
from math import ceil
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from covet_orm.events import TransactionOutcome
from covet_orm.exceptions import TransactionError
from covet_orm.transactions.lock_sampling import LockSampler
from covet_orm.transactions.telling import Telling, add_profiler, remove_profiler

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["Durations", "LabelProfile", "TransactionProfile"]

logger = logging.getLogger("covet_orm.transactions")

KEPT = 10_000
"""Of how many durations percentiles are computed, at most."""
LABELS = 1000
"""How many labels are told apart; what comes later is `OTHERS`."""
OTHERS = "(others)"


class Durations:
    """Durations in seconds: how many, their total, the longest, and percentiles.

    Percentiles are those of all as long as there are no more than 10,000, and of as many chosen at random otherwise
    (Vitter, "Random sampling with a reservoir", 1985, algorithm R).

    Attributes:
        count: how many.
        total: their sum.
        longest: the longest; 0 without any.
    """

    __slots__ = ("_kept", "count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest = 0.0
        self._kept: list[float] = []

    def __repr__(self) -> str:
        return f"<{self.count} durations: {self.total:.3f} s, p50 {self.p50:.6f} s, p99 {self.p99:.6f} s>"

    @property
    def p50(self) -> float:
        """The median."""
        return self.percentile(50)

    @property
    def p99(self) -> float:
        """What one in a hundred exceeds."""
        return self.percentile(99)

    def percentile(self, percent: float) -> float:
        """The shortest duration that so many percent do not exceed; 0 without any.

        Raises:
            ValueError: it is none of 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percentile({percent!r}): a number from 0 to 100")
        if not self._kept:
            return 0.0
        ordered = sorted(self._kept)
        return ordered[max(0, ceil(percent / 100 * len(ordered)) - 1)]

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.total += seconds
        self.longest = max(self.longest, seconds)
        if len(self._kept) < KEPT:
            self._kept.append(seconds)
        elif (place := random.randrange(self.count)) < KEPT:
            self._kept[place] = seconds


class LabelProfile:
    """The transactions of one label.

    Attributes:
        label: what their blocks are called; empty for those without a label.
        open: how many have begun and not ended.
        outcomes: how many ended, by what became of them.
        errors: how many were rolled back for an error, by its class name.
        statements: how many, without those that begin and end transactions and savepoints.
        savepoints: how many were set.
        retries: how many attempts of `retry()` failed and were followed by another.
        deadlocks: how many were chosen by the server to end a deadlock.
        in_transaction: from the beginning to the end, as the server has it.
        idle: of that, while no statement was under way.
        connection_wait: waiting for a connection before.
        lock_wait: waiting for locks; see `transaction_manager.profile`.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.open = 0
        self.outcomes: Counter[TransactionOutcome] = Counter()
        self.errors: Counter[str] = Counter()
        self.statements = 0
        self.savepoints = 0
        self.retries = 0
        self.deadlocks = 0
        self.in_transaction = Durations()
        self.idle = Durations()
        self.connection_wait = Durations()
        self.lock_wait = Durations()

    def __repr__(self) -> str:
        return f"<LabelProfile {self.label!r}: {self.count} transactions>"

    @property
    def count(self) -> int:
        """How many ended."""
        return self.outcomes.total()

    @property
    def committed(self) -> int:
        """How many were committed."""
        return self.outcomes["committed"]

    @property
    def rolled_back(self) -> int:
        """How many were rolled back, or could not begin."""
        return self.outcomes["rolled back"]

    @property
    def uncertain(self) -> int:
        """Of how many it is not known whether they were committed."""
        return self.outcomes["uncertain"]


class TransactionProfile:
    """Collects what transactions cost, within a block. See `transaction_manager.profile`.

    Args:
        databases: whose; none for all.
        interval: seconds between two questions who waits for locks.

    Attributes:
        labels: what was collected so far, by label; `str()` makes a table of it.
        notes: what the figures do not tell, such as that a server refused to tell of its locks.
    """

    def __init__(self, databases: Sequence[Database], interval: float) -> None:
        if isinstance(interval, bool) or not 0.001 <= interval <= 3600:
            raise TransactionError(f"interval={interval!r}: seconds, at least 0.001")
        self.labels: dict[str, LabelProfile] = {}
        self._databases = databases
        self._interval = interval
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entered = False
        self._open: dict[Telling, LabelProfile] = {}
        self._samplers: dict[int, LockSampler] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def notes(self) -> list[str]:
        """What the figures do not tell."""
        return [
            f"waiting for locks in {sampler.database.alias!r} is not known for a while or at all: {sampler.trouble}"
            for sampler in self._samplers.values()
            if sampler.trouble
        ]

    async def __aenter__(self) -> Self:
        if self._entered:
            raise TransactionError("a profile is collected once; make another one")
        self._entered = True
        self._loop = asyncio.get_running_loop()
        add_profiler(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        remove_profiler(self)
        self._loop = None
        self._open.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # Cancelled here, they end by themselves.
            await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled() and (failure := task.exception()) is not None:
                logger.error("asking for the locks of a database failed", exc_info=failure)

    def __str__(self) -> str:
        return _table([_row(one) for _, one in sorted(self.labels.items())], self.notes)

    def takes(self, database: Database) -> bool:
        """Whether it counts a database's transactions, in this event loop."""
        if self._loop is None or asyncio.get_running_loop() is not self._loop:
            return False
        return not self._databases or any(one._lanes is database._lanes for one in self._databases)

    def began(self, telling: Telling) -> None:
        """A transaction has begun."""
        if self._loop is None:
            return
        found = self._open[telling] = self._of(telling.label)
        found.open += 1
        if telling.database.kind != "sqlite":
            self._sampler(telling.database).add(telling)

    def ended(self, telling: Telling, outcome: TransactionOutcome) -> None:
        """A transaction has ended, or could not begin."""
        found = self._open.pop(telling, None)
        if self._loop is None:
            return
        waited = telling.locked
        if found is None:
            # It could not begin: there are no times but those of waiting.
            found = self._of(telling.label)
        else:
            found.open -= 1
            found.in_transaction.add(telling.seconds)
            found.idle.add(telling.idle)
            if telling.database.kind != "sqlite":
                waited += self._sampler(telling.database).take(telling)
        found.connection_wait.add(telling.waited)
        found.lock_wait.add(waited)
        found.outcomes[outcome] += 1
        found.statements += telling.statements
        if telling.error is not None:
            found.errors[type(telling.error).__name__] += 1

    def deadlocked(self, telling: Telling) -> None:
        """A transaction was chosen to end a deadlock."""
        if self._loop is not None:
            self._of(telling.label).deadlocks += 1

    def savepoint(self, telling: Telling) -> None:
        """An inner block has set its savepoint."""
        if self._loop is not None:
            self._of(telling.label).savepoints += 1

    def retried(self, label: str) -> None:
        """An attempt failed, and another one will be made."""
        if self._loop is not None and asyncio.get_running_loop() is self._loop:
            self._of(label).retries += 1

    def _of(self, label: str) -> LabelProfile:
        found = self.labels.get(label)
        if found is None:
            if len(self.labels) >= LABELS and label != OTHERS:
                return self._of(OTHERS)
            found = self.labels[label] = LabelProfile(label)
        return found

    def _sampler(self, database: Database) -> LockSampler:
        found = self._samplers.get(id(database._lanes))
        if found is None:
            found = self._samplers[id(database._lanes)] = LockSampler(database, self._interval)
            # In a context of its own: the transaction that it is made in is none of its affair.
            running: Any = found.run()
            name = f"who waits for locks in {database.alias}"
            self._tasks.append(asyncio.create_task(running, name=name, context=Context()))
        return found


HEADINGS = (
    "label",
    "count",
    "committed",
    "rolled back",
    "uncertain",
    "retries",
    "deadlocks",
    "statements",
    "total s",
    "p50 ms",
    "p99 ms",
    "idle s",
    "connection s",
    "lock s",
)


def _row(one: LabelProfile) -> tuple[str, ...]:
    counts = (one.count, one.committed, one.rolled_back, one.uncertain, one.retries, one.deadlocks, one.statements)
    spent = one.in_transaction
    return (
        one.label or "(no label)",
        *map(str, counts),
        f"{spent.total:.3f}",
        f"{spent.p50 * 1000:.1f}",
        f"{spent.p99 * 1000:.1f}",
        *(f"{durations.total:.3f}" for durations in (one.idle, one.connection_wait, one.lock_wait)),
    )


def _table(rows: Sequence[tuple[str, ...]], notes: Sequence[str]) -> str:
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    lines = []
    for row in (HEADINGS, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join((row[0].ljust(widths[0]), *cells)))
    return "\n".join((*lines, *notes))
