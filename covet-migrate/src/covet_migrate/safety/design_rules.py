"""Rules about what one would do otherwise from the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import AddColumn, AddIndex, AlterColumn, CreateTable
from covet_migrate.safety.findings import Severity
from covet_migrate.safety.rules import Found, Subject, rule

__all__: list[str] = []

MANY = 3
"""Columns of an index beyond which the further ones rarely narrow anything."""
CORRUPTS = ((14, 0), (14, 4))
"""The versions of PostgreSQL whose concurrent indexes may lack rows (release notes of 14.4)."""


def _columns(subject: Subject) -> Iterator[sqlalchemy.Column[Any]]:
    """The columns that come, or get another type."""
    for action in subject.flat:
        if isinstance(action, CreateTable):
            yield from action.table.columns
        elif isinstance(action, AddColumn) or (isinstance(action, AlterColumn) and "type" in action.changes):
            yield action.column


@rule(
    "small-key",
    Severity.WARNING,
    title="A key of small whole numbers",
    why="It ends at 2,147,483,647 rows, or at 32,767, counting those that were deleted, and a wider type writes the "
    "table "
    "anew.",
    instead="BigAutoField(primary_key=True).",
    kinds=("postgresql", "mysql", "mariadb"),
)
def small_key(subject: Subject) -> Iterator[Found]:
    for column in _columns(subject):
        counts = column.primary_key and column.autoincrement is True
        if (
            counts
            and isinstance(column.type, sqlalchemy.Integer)
            and not isinstance(column.type, sqlalchemy.BigInteger)
        ):
            yield Found(f"the column {column.name} of {column.table.name}")
    yield from subject.written("small-key")


@rule(
    "time-without-zone",
    Severity.NOTE,
    title="A time without a time zone",
    why="What moment it is depends on who reads it.",
    instead="DateTimeField() with its usual timezone=True.",
    kinds=("postgresql",),
)
def time_without_zone(subject: Subject) -> Iterator[Found]:
    for column in _columns(subject):
        if isinstance(column.type, sqlalchemy.DateTime) and not column.type.timezone:
            yield Found(f"the column {column.name} of {column.table.name}")
    yield from subject.written("time-without-zone")


@rule(
    "wide-index",
    Severity.NOTE,
    title=f"An index of more than {MANY} columns",
    why="The first ones narrow the search; each further one makes every write dearer.",
    instead="An index of the columns that narrow most, perhaps with include=[...] for those that are only read.",
)
def wide_index(subject: Subject) -> Iterator[Found]:
    tables = [one.table for one in subject.flat if isinstance(one, CreateTable)]
    created = [index for table in tables for index in sorted(table.indexes, key=lambda one: str(one.name))]
    for index in [*created, *(one.index for one in subject.flat if isinstance(one, AddIndex))]:
        if not index.unique and len(index.expressions) > MANY:
            yield Found(f"the index {index.name} of {index.table.name if index.table is not None else '?'}")


@rule(
    "concurrent-index-corrupts",
    Severity.ERROR,
    title="This version of PostgreSQL may leave rows out of an index that is created concurrently",
    why="PostgreSQL 14.0 to 14.3 lose rows that are changed meanwhile out of the index.",
    instead="Bring the server to 14.4 or later first.",
    kinds=("postgresql",),
)
def concurrent_index_corrupts(subject: Subject) -> Iterator[Found]:
    # A version that does not say its minor number is taken for a mended one.
    if len(subject.version) < 2 or not CORRUPTS[0] <= subject.version[:2] < CORRUPTS[1]:
        return
    for action, step, _ in subject.steps(AddIndex):
        if not step.transactional:
            yield Found(f"the index {action.index.name} of {action.table.name}", step)
