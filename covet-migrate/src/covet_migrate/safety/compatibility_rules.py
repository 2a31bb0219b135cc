"""Rules about code that runs while the schema changes: the program of before, and that of after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import (
    AddColumn,
    AddConstraint,
    AddIndex,
    AlterColumn,
    DropConstraint,
    RenameColumn,
    RenameTable,
    TableAction,
)
from covet_migrate.safety.findings import Severity
from covet_migrate.safety.rules import Found, Subject, rule

__all__: list[str] = []


@rule(
    "rename-table",
    Severity.ERROR,
    title="A table is renamed",
    why="Code that runs asks for it by its old name, and fails until it is replaced everywhere.",
    instead="Rename the model alone: Meta.db_table with the name that the table has keeps the table.",
)
def rename_table(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(RenameTable):
        yield Found(f"the table {action.before.name}, which becomes {action.table.name}", subject.step_of(action))
    yield from subject.written("rename-table")


@rule(
    "rename-column",
    Severity.ERROR,
    title="A column is renamed",
    why="Code that runs asks for it by its old name, and fails until it is replaced everywhere.",
    instead="Rename the field alone: db_column with the name that the column has keeps the column. Or rename by expand "
    "and contract, as `makemigrations --safe` writes it: both columns are there, and kept the same, until all code "
    "is new.",
)
def rename_column(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(RenameColumn):
        yield Found(
            f"the column {action.before} of {action.table.name}, which becomes {action.after}", subject.step_of(action)
        )
    yield from subject.written("rename-column")


def _is_required(column: sqlalchemy.Column[object]) -> bool:
    filled = column.server_default is not None or column.computed is not None or column.autoincrement is True
    return not column.nullable and not filled


@rule(
    "required-column",
    Severity.ERROR,
    title="A column is added that every INSERT has to give",
    why="Code that runs does not know it, and its INSERTs fail.",
    instead="Give the field a db_default, or null=True, now; take that away in a later migration, when all code "
    "gives it a "
    "value. `makemigrations --safe` writes it so.",
)
def required_column(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(AddColumn):
        if _is_required(action.column):
            yield Found(f"the column {action.column.name} of {action.table.name}", subject.step_of(action))
    yield from subject.written("required-column")


@rule(
    "required-column-unfilled",
    Severity.ERROR,
    title="A column is added that may not be NULL, and nothing is for the rows that are there",
    why="On a table with rows the statement fails; MySQL and MariaDB put 0 or an empty text there.",
    instead="Say what those rows get: AddField(..., fill=...), or a default of the field.",
)
def required_column_unfilled(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(AddColumn):
        if _is_required(action.column) and action.fill is None:
            yield Found(f"the column {action.column.name} of {action.table.name}", subject.step_of(action))


@rule(
    "not-null",
    Severity.WARNING,
    title="A column may not be NULL any longer",
    why="Code that runs and writes NULL fails, and so does the migration if a row has it.",
    instead="Deploy code that always writes a value first, and say what rows get that have NULL: AlterField(..., "
    "fill=...).",
)
def not_null(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(AlterColumn):
        if "null" in action.changes and not action.column.nullable:
            yield Found(f"the column {action.column.name} of {action.table.name}", subject.step_of(action))
    yield from subject.written("not-null")


@rule(
    "drop-not-null",
    Severity.WARNING,
    title="A column may be NULL",
    why="Code that runs and does not expect it reads None.",
    instead="Deploy code that can read None before any code writes it.",
)
def drop_not_null(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(AlterColumn):
        if "null" in action.changes and action.column.nullable:
            yield Found(f"the column {action.column.name} of {action.table.name}", subject.step_of(action))
    yield from subject.written("drop-not-null")


@rule(
    "drop-default",
    Severity.WARNING,
    title="A default is taken away from a column that may not be NULL",
    why="Code that runs and leaves it to the database fails to INSERT.",
    instead="Deploy code that always gives a value first.",
)
def drop_default(subject: Subject) -> Iterator[Found]:
    for action in subject.actions(AlterColumn):
        if "default" in action.changes and _is_required(action.column):
            yield Found(f"the column {action.column.name} of {action.table.name}", subject.step_of(action))


@rule(
    "unique-added",
    Severity.WARNING,
    title="What is there has to be unique from now on",
    why="Two rows with the same values make the migration fail, and code that runs and writes such fails.",
    instead="Look for such rows first, and change them in a migration before (RunPython, RunSQL).",
)
def unique_added(subject: Subject) -> Iterator[Found]:
    fresh = {(one.table.name, one.column.name) for one in subject.actions(AddColumn)}
    made: list[tuple[TableAction, Any]] = [(one, one.constraint) for one in subject.actions(AddConstraint)]
    made += [(one, one.index) for one in subject.actions(AddIndex)]
    for action, one in made:
        unique = one.unique if isinstance(one, sqlalchemy.Index) else isinstance(one, sqlalchemy.UniqueConstraint)
        columns = [(action.table.name, column.name) for column in getattr(one, "columns", ())]
        if unique and not any(column in fresh for column in columns):
            yield Found(f"{one.name} of {action.table.name}", subject.step_of(action))
    yield from subject.written("unique-added")


@rule(
    "drop-foreign-key",
    Severity.WARNING,
    title="A foreign key is dropped",
    why="Nothing keeps rows from naming others that are gone, and nothing is deleted with what it belongs to.",
    instead="Make sure that the program does both, and say so: Reviewed(...).",
)
def drop_foreign_key(subject: Subject) -> Iterator[Found]:
    again = {str(one.constraint.name) for one in subject.actions(AddConstraint)}
    gone = {name for one in subject.flat if (name := _dropped_column(one)) is not None}
    for action in subject.actions(DropConstraint):
        key = action.constraint
        if not isinstance(key, sqlalchemy.ForeignKeyConstraint) or str(key.name) in again:
            continue
        if not gone.intersection(key.column_keys):
            yield Found(f"{key.name} of {action.table.name}", subject.step_of(action))


def _dropped_column(action: object) -> str | None:
    from covet_migrate.actions.actions import DropColumn

    return action.column.name if isinstance(action, DropColumn) else None
