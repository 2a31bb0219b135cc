"""Rules about what is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import AlterColumn, DropColumn, DropTable
from covet_migrate.safety.findings import Severity
from covet_migrate.safety.rules import Found, Subject, rule
from covet_orm.schema import defining_dialect

__all__ = ["holds_all"]

DIGITS = (5, 10, 19)
"""How many digits the largest whole numbers have, of 16, 32 and 64 bits."""


@rule(
    "drop-table",
    Severity.ERROR,
    title="A table is dropped",
    why="Its rows are gone, and code that runs and still asks for it fails.",
    instead="Deploy code that does not use the model first, keep a backup of the rows, and say so: Reviewed(...).",
)
def drop_table(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(DropTable):
        yield Found(f"the table {action.table.name}", subject.step_of(action))
    yield from subject.written("drop-table")


@rule(
    "drop-column",
    Severity.ERROR,
    title="A column is dropped",
    why="Its values are gone, and code that runs names it in every SELECT and INSERT of the model, which fail.",
    instead="Deploy code that does not have the field first (SeparateDatabaseAndState takes it out of the models "
    "alone, "
    "where the column may be NULL or has a default), then drop the column in a later migration, as Reviewed(...).",
)
def drop_column(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(DropColumn):
        if action.column.computed is None:
            yield Found(f"the column {action.column.name} of {action.table.name}", subject.step_of(action))
    yield from subject.written("drop-column")


@rule(
    "narrow-type",
    Severity.WARNING,
    title="A type becomes one that cannot hold all values",
    why="A row with a value that does not fit makes the migration fail, or loses a part of the value.",
    instead="Look for such rows first (SELECT count(*) ... WHERE length(...) > ...), and change them in a migration "
    "before.",
)
def narrow_type(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(AlterColumn):
        if "type" in action.changes and not holds_all(action.before.type, action.column.type):
            dialect = defining_dialect(subject.kind)
            old, new = (one.type.compile(dialect) for one in (action.before, action.column))
            yield Found(
                f"the column {action.column.name} of {action.table.name}, from {old} to {new}", subject.step_of(action)
            )


def holds_all(before: sqlalchemy.types.TypeEngine[Any], after: sqlalchemy.types.TypeEngine[Any]) -> bool:
    """Whether a type holds every value of another one as it is."""
    if isinstance(before, sqlalchemy.Integer) and isinstance(after, sqlalchemy.Integer):
        return _size(after) >= _size(before)
    if isinstance(after, sqlalchemy.String) and after.length is None:
        return isinstance(before, sqlalchemy.String)
    if isinstance(before, sqlalchemy.String) and isinstance(after, sqlalchemy.String):
        return before.length is not None and (after.length or 0) >= before.length
    if type(before) is sqlalchemy.Numeric and type(after) is sqlalchemy.Numeric:
        if after.precision is None:
            return True
        scale, wider = before.scale or 0, after.scale or 0
        return before.precision is not None and wider >= scale and (after.precision - wider >= before.precision - scale)
    if isinstance(before, sqlalchemy.Integer) and type(after) is sqlalchemy.Numeric:
        return after.precision is None or after.precision - (after.scale or 0) >= DIGITS[_size(before)]
    return type(before) is type(after) and repr(before) == repr(after)


def _size(kind: sqlalchemy.Integer) -> int:
    """Which of the whole numbers a type is: 0, 1 or 2."""
    return 0 if isinstance(kind, sqlalchemy.SmallInteger) else 2 if isinstance(kind, sqlalchemy.BigInteger) else 1
