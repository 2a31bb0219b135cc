"""One interleaving for each anomaly, step by step, as in Kleppmann's Hermitage.

A step that has to wait for a lock waits, and the others go on: when a step is taken, every transaction has done what it
can. Nothing depends on how fast anything is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from tests.isolation.checker import Anomaly, found_in
from tests.isolation.histories import History, Operation, Transaction, append, insert, read, scan
from tests.isolation.items import carry_out, left_by, make_items

from covet_orm import Database, LockTimeout, SerializationFailure, transaction_manager
from covet_orm.transactions.options import IsolationLevel

__all__ = ["SCENARIOS", "Outcome", "Played", "Scenario", "play"]

Outcome = Literal["occurs", "waits", "error", "prevented"]
"""The anomaly happened; or a lock kept it from happening, or an error, or what a statement saw."""
X, Y, SET = 1, 2, 3
COMMIT: Literal["commit"] = "commit"
ROLLBACK: Literal["rollback"] = "rollback"
Step = Operation | Literal["commit", "rollback"]
PATIENCE = 60
"""Seconds after which a scenario has failed: no lock is waited for as long as that."""


class Scenario(NamedTuple):
    """An interleaving that leads to an anomaly where nothing prevents it.

    Attributes:
        name: of the row in the table.
        anomaly: what it leads to.
        steps: by which transaction, in this order.
    """

    name: str
    anomaly: Anomaly
    steps: tuple[tuple[int, Step], ...]


SCENARIOS = (
    Scenario(
        "G0 dirty write", Anomaly.G0,
        ((1, append(X, 11)), (2, append(X, 21)), (2, append(Y, 22)), (1, append(Y, 12)), (1, COMMIT), (2, COMMIT)),
    ),
    Scenario(
        "G1a aborted read", Anomaly.G1A,
        ((1, append(X, 11)), (2, read(X)), (1, ROLLBACK), (2, read(X)), (2, COMMIT)),
    ),
    Scenario(
        "G1b intermediate read", Anomaly.G1B,
        ((1, append(X, 11)), (2, read(X)), (1, append(X, 12)), (1, COMMIT), (2, read(X)), (2, COMMIT)),
    ),
    Scenario(
        "G1c circular information flow", Anomaly.G1C,
        ((1, append(X, 11)), (2, append(Y, 21)), (1, read(Y)), (2, read(X)), (1, COMMIT), (2, COMMIT)),
    ),
    Scenario(
        "P4 lost update", Anomaly.P4,
        ((1, read(X)), (2, read(X)), (1, append(X, 11)), (2, append(X, 21)), (1, COMMIT), (2, COMMIT)),
    ),
    Scenario(
        "G-single fuzzy read", Anomaly.G_SINGLE,
        ((1, read(X)), (2, append(X, 21)), (2, COMMIT), (1, read(X)), (1, COMMIT)),
    ),
    Scenario(
        "G-single read skew", Anomaly.G_SINGLE,
        ((1, read(X)), (2, append(X, 21)), (2, append(Y, 22)), (2, COMMIT), (1, read(Y)), (1, COMMIT)),
    ),
    Scenario(
        "G-single phantom read", Anomaly.G_SINGLE,
        ((1, scan(SET)), (2, insert(SET, 21)), (2, COMMIT), (1, scan(SET)), (1, COMMIT)),
    ),
    Scenario(
        "G-single write after a stale read", Anomaly.G_SINGLE,
        ((1, read(X)), (2, append(X, 21)), (2, append(Y, 22)), (2, COMMIT), (1, append(Y, 11)), (1, COMMIT)),
    ),
    Scenario(
        "G2-item write skew", Anomaly.G2_ITEM,
        (
            (1, read(X)), (1, read(Y)), (2, read(X)), (2, read(Y)),
            (1, append(X, 11)), (2, append(Y, 21)), (1, COMMIT), (2, COMMIT),
        ),
    ),
    Scenario(
        "G2-item seen by a reader alone", Anomaly.G2_ITEM,
        (
            (2, read(X)), (2, read(Y)), (1, read(Y)), (1, append(Y, 11)), (1, COMMIT),
            (3, read(X)), (3, read(Y)), (3, COMMIT), (2, append(X, 21)), (2, COMMIT),
        ),
    ),
    Scenario(
        "G2 write skew over a predicate", Anomaly.G2,
        ((1, scan(SET)), (2, scan(SET)), (1, insert(SET, 11)), (2, insert(SET, 21)), (1, COMMIT), (2, COMMIT)),
    ),
)  # fmt: skip
"""What is tried on each database, at each level."""


@dataclass
class Played:
    """What came of a scenario.

    Attributes:
        outcome: whether the anomaly happened, or what kept it from happening.
        history: what the transactions did.
    """

    outcome: Outcome
    history: History


class _RollbackError(Exception):
    """Leaves a block that is to be rolled back."""


class _Actor:
    """A transaction of a scenario, in a task of its own; it takes its steps one after the other."""

    def __init__(self, number: int, scenario: Scenario, isolation: IsolationLevel | None) -> None:
        steps = [step for actor, step in scenario.steps if actor == number]
        self.transaction = Transaction(f"T{number}")
        self.only_reads = not any(isinstance(step, Operation) and step.writes for step in steps)
        self.isolation: IsolationLevel | None = isolation
        self.given = self.taken = 0
        self._send: MemoryObjectSendStream[Step]
        self._steps: MemoryObjectReceiveStream[Step]
        self._send, self._steps = anyio.create_memory_object_stream[Step](len(steps))

    @property
    def busy(self) -> bool:
        """Whether it has a step to finish."""
        return self.taken < self.given and self.transaction.outcome == "open"

    def give(self, step: Step) -> None:
        """The next step, which it takes when it is done with those before."""
        if self.transaction.outcome == "open":
            self.given += 1
            self._send.send_nowait(step)

    async def run(self) -> None:
        """Take all steps."""
        with self._send, self._steps:
            try:
                async with transaction_manager.atomic(isolation=self.isolation, read_only=self.only_reads):
                    await self._take()
            except _RollbackError:
                self.transaction.outcome = "aborted"
            except (SerializationFailure, LockTimeout) as error:
                self.transaction.outcome, self.transaction.error = "aborted", type(error).__name__
            else:
                self.transaction.outcome = "committed"
            self.taken = self.given

    async def _take(self) -> None:
        async for step in self._steps:
            if step == "commit":
                return
            if step == "rollback":
                raise _RollbackError
            assert isinstance(step, Operation)
            self.transaction.operations.append(await carry_out(step))
            self.taken += 1


WAITING: Mapping[str, str] = {
    "postgresql": (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE NOT granted AND datname = current_database()"
    ),
    # `innodb_trx` is a copy that is as old as the last question.
    "mariadb": (
        "SELECT variable_value FROM information_schema.global_status "
        "WHERE variable_name = 'Innodb_row_lock_current_waits'"
    ),
}
"""How many wait for a lock, as the server tells."""


class _Stage:
    """The actors of a scenario, and who of them waits."""

    def __init__(self, database: Database, actors: Mapping[int, _Actor]) -> None:
        self.database = database
        self.actors = actors
        self.waited = False

    async def settle(self) -> None:
        """Return when every actor has done what it can: each is done, or waits for a lock."""
        waiting = 0
        while True:
            busy = sum(actor.busy for actor in self.actors.values())
            if not busy:
                return
            # Twice, since who has just been given its lock may not have been told.
            waiting = waiting + 1 if await self._waiting() >= busy else 0
            if waiting == 2:
                self.waited = True
                return
            await anyio.sleep(0.005)

    async def _waiting(self) -> int:
        if self.database.kind == "sqlite":
            # Its writers wait for the one connection that writes.
            return sum(pool.stats.waiting for pool in self.database.pools())
        with transaction_manager.independent():
            return int(await self.database.fetch_value(WAITING[self.database.kind]))


async def play(scenario: Scenario, database: Database, isolation: IsolationLevel | None) -> Played:
    """Take the steps of a scenario, in a database that has the tables of `items`.

    Raises:
        TimeoutError: it did not end.
    """
    await make_items((X, Y))
    numbers = sorted({actor for actor, _ in scenario.steps})
    actors = {number: _Actor(number, scenario, isolation) for number in numbers}
    stage = _Stage(database, actors)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            await _act(scenario, stage, group)
    history = await left_by([actor.transaction for actor in actors.values()], (X, Y), (SET,))
    outcome: Outcome = "prevented"
    if scenario.anomaly in found_in(history):
        outcome = "occurs"
    elif any(actor.transaction.error for actor in actors.values()):
        outcome = "error"
    elif stage.waited:
        outcome = "waits"
    return Played(outcome, history)


async def _act(scenario: Scenario, stage: _Stage, group: TaskGroup) -> None:
    for actor in stage.actors.values():
        group.start_soon(actor.run)
    for number, step in scenario.steps:
        stage.actors[number].give(step)
        await stage.settle()
