"""Random transactions, many at a time, on few items, so that they are in each other's way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random

import anyio
from tests.isolation.checker import Anomaly, Finding, check
from tests.isolation.histories import History, Kind, Operation, Transaction
from tests.isolation.items import carry_out, left_by, make_items

from covet_orm import Database, LockTimeout, SerializationFailure, transaction_manager
from covet_orm.transactions.options import IsolationLevel

__all__ = ["Tally", "record", "tally"]

KEYS = (1, 2, 3)
SETS = (11, 12)
TASKS = 8
EACH = 6
"""How many transactions each task tries."""
OF_ITEMS: tuple[Kind, ...] = ("read", "read", "append", "append")
OF_SETS: tuple[Kind, ...] = ("scan", "scan", "insert")
PAUSE = 0.002
"""Seconds, at most, between two steps of a transaction."""
LOCK_TIMEOUT = 0.05
"""Seconds, on PostgreSQL, which looks for deadlocks after a second of waiting."""


class _RollbackError(Exception):
    """Leaves a block that is to be rolled back."""


@dataclass
class Tally:
    """Several histories in numbers.

    Attributes:
        rounds: how many histories.
        outcomes: how many transactions ended how; an error by its name.
        anomalies: in how many histories each was found.
        examples: the first finding of each.
    """

    rounds: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[Anomaly] = field(default_factory=Counter)
    examples: dict[Anomaly, Finding] = field(default_factory=dict)

    def add(self, history: History) -> None:
        """Check one more."""
        self.rounds += 1
        self.outcomes.update(one.error or one.outcome for one in history.transactions)
        findings = check(history)
        for finding in findings:
            self.examples.setdefault(finding.anomaly, finding)
        self.anomalies.update({finding.anomaly for finding in findings})

    @property
    def transactions(self) -> int:
        """How many there were."""
        return self.outcomes.total()


async def tally(
    database: Database,
    isolation: IsolationLevel,
    rounds: int,
    *,
    until: frozenset[Anomaly] | None = None,
    seed: int = 0,
) -> Tally:
    """Record histories, and count what is in them.

    Args:
        database: has the tables of `items`.
        isolation: of all transactions.
        rounds: how many histories, at most.
        until: the anomalies after which it stops, when all of them were found.
        seed: of the random choices; how the server interleaves them is its own affair.
    """
    found = Tally()
    for number in range(rounds):
        found.add(await record(database, isolation, f"{seed}/{number}"))
        if until is not None and until <= set(found.anomalies):
            break
    return found


async def record(database: Database, isolation: IsolationLevel, seed: str) -> History:
    """Run transactions side by side; their history."""
    await make_items(KEYS)
    elements = count(1)
    transactions: list[Transaction] = []
    async with anyio.create_task_group() as group:
        for number in range(TASKS):
            group.start_soon(_work, f"{seed}/{number}", database.kind, isolation, elements, transactions)
    return await left_by(transactions, KEYS, SETS)


async def _work(
    seed: str, kind: str, isolation: IsolationLevel, elements: Iterator[int], transactions: list[Transaction]
) -> None:
    chance = Random(seed)
    for _ in range(EACH):
        steps = list(_steps(chance, elements))
        transaction = Transaction(f"T{len(transactions)}")
        transactions.append(transaction)
        try:
            async with transaction_manager.atomic(
                isolation=isolation,
                read_only=not any(step.writes for step in steps),
                lock_timeout=LOCK_TIMEOUT if kind == "postgresql" else None,
            ):
                for step in steps:
                    transaction.operations.append(await carry_out(step))
                    await anyio.sleep(chance.random() * PAUSE)
                if chance.random() < 0.1:
                    raise _RollbackError
        except _RollbackError:
            transaction.outcome = "aborted"
        except (SerializationFailure, LockTimeout) as error:
            transaction.outcome, transaction.error = "aborted", type(error).__name__
        else:
            transaction.outcome = "committed"


def _steps(chance: Random, elements: Iterator[int]) -> Iterator[Operation]:
    only_reads = chance.random() < 0.2
    for _ in range(chance.randint(2, 5)):
        kinds, keys = (OF_ITEMS, KEYS) if chance.random() < 0.7 else (OF_SETS, SETS)
        kind = kinds[0] if only_reads else chance.choice(kinds)
        writes = kind in ("append", "insert")
        yield Operation(kind, chance.choice(keys), next(elements) if writes else 0)
