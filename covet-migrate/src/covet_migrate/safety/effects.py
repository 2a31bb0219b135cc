"""What a step does to those who use the tables meanwhile: which locks it takes, whether it reads or writes every row.

It is told of the statement that is run, for the server's version, and without asking the server; the tests compare it
with what the servers do (`pg_locks` and the file of the table on PostgreSQL, what ALGORITHM and LOCK are accepted on
MariaDB).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from covet_migrate.actions.custom import CustomAction
from covet_migrate.exceptions import MigrationError
from covet_migrate.steps import Call, Statement, Step

__all__ = ["Blocks", "Effect", "Proven", "effects_of"]


class Blocks(IntEnum):
    """Whom a step keeps waiting for as long as it, and the transaction that it is in, take."""

    NOBODY = 0
    WRITERS = 1
    EVERYBODY = 2

    def __str__(self) -> str:
        return {0: "nobody", 1: "writers", 2: "readers and writers"}[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a step does to those who use its tables.

    Attributes:
        locks: by table, the strongest lock as the server calls it: `ACCESS EXCLUSIVE` and others on PostgreSQL, the
            LOCK of online DDL on MySQL and MariaDB (`NONE`, `SHARED`, `EXCLUSIVE`), `RESERVED` of the whole file on
            SQLite.
        blocks: whom it keeps waiting.
        rewrites: whether every row is written anew, in a new copy of the table.
        scans: whether every row is read, be it to check it or to build an index: what it blocks waits for as long.
        changes_rows: whether rows that are there are changed in place, each locked until the end of the transaction.
        algorithm: on MySQL and MariaDB, how it is done: `INSTANT`, `NOCOPY`, `INPLACE` or `COPY`.
        known: whether all of this is known; False of code, and of SQL that somebody wrote.
    """

    locks: Mapping[str, str] = field(default_factory=dict)
    blocks: Blocks = Blocks.NOBODY
    rewrites: bool = False
    scans: bool = False
    changes_rows: bool = False
    algorithm: str = ""
    known: bool = True

    @property
    def long(self) -> bool:
        """Whether it takes longer the more rows there are."""
        return self.rewrites or self.scans or self.changes_rows

    @property
    def stalls(self) -> bool:
        """Whether others wait for it, and the longer the more rows there are."""
        return self.blocks > Blocks.NOBODY and (self.rewrites or self.scans)

    def describe(self) -> str:
        """What it does, for people: `ACCESS EXCLUSIVE on blog_post, which blocks readers and writers; rewrites it`."""
        if not self.known:
            return "what it locks is not known"
        held = ", ".join(f"{lock} on {table}" for table, lock in self.locks.items())
        told = [f"{held}, which blocks {self.blocks}" if held else "no lock"]
        if self.algorithm:
            told.append(f"ALGORITHM={self.algorithm}")
        told += [
            text
            for text, holds in (
                ("every row is written anew", self.rewrites),
                ("every row is read", self.scans and not self.rewrites),
                ("rows are changed", self.changes_rows),
            )
            if holds
        ]
        return "; ".join(told)


@dataclass(slots=True)
class Proven:
    """What the statements before have shown of the rows, so that a later one need not look.

    Attributes:
        checks: by table and name of a constraint, the column that it says is not NULL.
        valid: of these, those that hold for every row: by table and column.
    """

    checks: dict[tuple[str, str], str] = field(default_factory=dict)
    valid: set[tuple[str, str]] = field(default_factory=set)


def effects_of(steps: Iterable[Step], kind: str, version: tuple[int, ...]) -> list[Effect]:
    """The effects of steps, one for each.

    Args:
        steps: those of one operation, or of several, in the order in which they are run.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        version: of the server.

    Raises:
        MigrationError: there is no such database.
    """
    from covet_migrate.safety.mysql import mysql_effect
    from covet_migrate.safety.postgresql import postgresql_effect
    from covet_migrate.safety.sqlite import sqlite_effect

    proven = Proven()
    found = []
    for step in steps:
        if isinstance(step.action, CustomAction):
            found.append(step.action.effect(step, kind, version))
        elif isinstance(step, Call):
            found.append(Effect(known=False, changes_rows=True))
        elif kind == "sqlite":
            found.append(sqlite_effect(step))
        elif not isinstance(step, Statement):
            raise MigrationError(f"{type(step).__name__} is no step of {kind}")
        elif kind == "postgresql":
            found.append(postgresql_effect(step, version, proven))
        elif kind in ("mysql", "mariadb"):
            found.append(mysql_effect(step, kind, version))
        else:
            raise MigrationError(f"no database is called {kind!r}; there are postgresql, mysql, mariadb and sqlite")
    return found
