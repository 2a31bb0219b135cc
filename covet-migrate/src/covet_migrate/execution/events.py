"""What is told while migrations run, so that somebody can show it: a bar, a log, nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from covet_migrate.migrations import Migration

__all__ = [
    "BatchDone",
    "Event",
    "Listener",
    "MigrationFinished",
    "MigrationStarted",
    "Retrying",
    "StepFinished",
    "StepStarted",
    "StoodBack",
    "WaitingForLock",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForLock(Event):
    """Somebody else migrates this database, and one waits for the end of it; told once per holder.

    Attributes:
        holder: who, in the words of the server; empty where it does not tell.
        waited: seconds so far.
    """

    holder: str
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStarted(Event):
    """A migration begins, or goes on where it was interrupted.

    Attributes:
        migration: which one.
        backward: whether it is taken back.
        number: which of those of the plan, from 1.
        total: how many the plan has.
        steps: how many steps it has.
        done: how many of them were done before it was interrupted.
    """

    migration: Migration
    backward: bool
    number: int
    total: int
    steps: int
    done: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """A step begins.

    Attributes:
        migration: of which migration.
        number: which of its steps, from 1.
        steps: how many it has.
        description: what is done, for people.
    """

    migration: Migration
    number: int
    steps: int
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """A step is done.

    Attributes:
        migration: of which migration.
        number: which of its steps, from 1.
        steps: how many it has.
    """

    migration: Migration
    number: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDone(Event):
    """A part of a step that moves data is done, and kept.

    Attributes:
        name: of the step.
        done: rows that are done, in all.
        total: how many there are to do; None where nobody counted them.
    """

    name: str
    done: int
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying(Event):
    """A lock was not to be had, everything since the last commit was rolled back, and it is tried again.

    Attributes:
        migration: which one.
        attempt: how often it was tried, from 1.
        pause: seconds until the next attempt.
        reason: what the server says.
    """

    migration: Migration
    attempt: int
    pause: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoodBack(Event):
    """Somebody has a table in a transaction that lasts, and a statement is not run before that ends, so that nobody
    has to wait behind it (PostgreSQL).

    Attributes:
        migration: which one.
        tables: the tables that it needs.
    """

    migration: Migration
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFinished(Event):
    """A migration is done, and in the history.

    Attributes:
        migration: which one.
        backward: whether it was taken back.
        seconds: how long it took.
        outcome: `done`, `faked`, or `elsewhere` where another process had done it meanwhile.
    """

    migration: Migration
    backward: bool
    seconds: float
    outcome: str = "done"


Listener = Callable[[Event], object]
"""Is called with each event. What it raises stops the run, as any other error does."""
