"""The parts of a change of a schema. They hold tables, columns, indexes and constraints as SQLAlchemy has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from covet_orm.deferred import sqlalchemy

__all__ = [
    "Action",
    "AddColumn",
    "AddConstraint",
    "AddIndex",
    "AlterColumn",
    "CreateTable",
    "DropColumn",
    "DropConstraint",
    "DropIndex",
    "DropTable",
    "Execute",
    "Online",
    "RenameColumn",
    "RenameConstraint",
    "RenameIndex",
    "RenameTable",
    "SetTableComment",
    "TableAction",
    "ValidateConstraint",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execute(Action):
    """Run SQL that somebody wrote.

    Attributes:
        sql: one statement, its text as it is.
        params: values of its placeholders.
        tables: those of which it is known that it keeps writers away from them, or everybody where it drops something.
    """

    sql: str
    params: tuple[Any, ...] = ()
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Online(Action):
    """Changes that are made while others use the tables, in steps of which none keeps them waiting for long.

    Attributes:
        actions: the changes; what is a step already stays as it is.
        batch: how many rows get their values at a time, at the most.
    """

    actions: tuple[Any, ...]
    batch: int = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class TableAction(Action):
    """A change of one table.

    Attributes:
        table: the table as it is after the operation; before it, where it is dropped.
    """

    table: sqlalchemy.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTable(TableAction):
    """Create a table, with its columns, constraints, indexes and comments.

    Attributes:
        later: the names of foreign keys that are added afterwards.
    """

    later: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DropTable(TableAction):
    """Drop a table, and the rows in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameTable(TableAction):
    """Rename a table.

    Attributes:
        before: the table as it is before.
    """

    before: sqlalchemy.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTableComment(TableAction):
    """Set the comment of a table to `table.comment`, or take it away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddColumn(TableAction):
    """Add a column.

    Attributes:
        column: the column, of `table`.
        fill: an SQL expression for the rows that are there, where the column may not be NULL and has no default of its
            own; it is no default of the column afterwards.
    """

    column: sqlalchemy.Column[Any]
    fill: sqlalchemy.ColumnElement[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropColumn(TableAction):
    """Drop a column, and the values in it.

    Attributes:
        column: the column, of the table before.
    """

    column: sqlalchemy.Column[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameColumn(TableAction):
    """Rename a column.

    Attributes:
        before: its name before.
        after: its name after.
    """

    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterColumn(TableAction):
    """Change a column: its type, whether it may be NULL, its default, what computes it, its comment, whether it counts.

    Attributes:
        before: the column of the table before, under its name of now.
        column: the column of `table`.
        changes: what differs: `type`, `null`, `default`, `computed`, `comment`, `counting`.
        fill: an SQL expression for the rows that are NULL, where the column may not be NULL any longer.
    """

    before: sqlalchemy.Column[Any]
    column: sqlalchemy.Column[Any]
    changes: frozenset[str]
    fill: sqlalchemy.ColumnElement[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddIndex(TableAction):
    """Create an index.

    Attributes:
        index: the index, of `table`.
        concurrently: without keeping writers away, outside of a transaction (PostgreSQL).
    """

    index: sqlalchemy.Index
    concurrently: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DropIndex(TableAction):
    """Drop an index.

    Attributes:
        index: the index, of the table before.
        concurrently: as of `AddIndex`.
    """

    index: sqlalchemy.Index
    concurrently: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameIndex(TableAction):
    """Rename an index.

    Attributes:
        index: the index under its new name.
        before: its name before.
    """

    index: sqlalchemy.Index
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddConstraint(TableAction):
    """Add a constraint.

    Attributes:
        constraint: the constraint, of `table`.
        validate: whether the rows that are there are checked as well; otherwise that is left to `ValidateConstraint`
            (PostgreSQL).
    """

    constraint: sqlalchemy.Constraint
    validate: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateConstraint(TableAction):
    """Check the rows that were there before a constraint was (PostgreSQL)."""

    constraint: sqlalchemy.Constraint


@dataclass(frozen=True, slots=True, kw_only=True)
class DropConstraint(TableAction):
    """Drop a constraint.

    Attributes:
        constraint: the constraint, of the table before, under the names that its columns have now.
    """

    constraint: sqlalchemy.Constraint


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameConstraint(TableAction):
    """Rename a constraint.

    Attributes:
        constraint: the constraint under its new name, of `table`.
        before: the constraint under the old one.
    """

    constraint: sqlalchemy.Constraint
    before: sqlalchemy.Constraint
