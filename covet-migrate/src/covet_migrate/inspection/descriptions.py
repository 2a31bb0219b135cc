"""A schema as plain values: what is there in a database, in the words of that database.

Texts of SQL are as the database gives them, which writes the same thing in the same way; of SQLite, which keeps what
somebody wrote, they are brought into one form. What is a list in the database is a tuple here, in an order that says
nothing but where it does: columns of a key, parts of an index, labels of an enum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Check",
    "Column",
    "Enum",
    "Exclusion",
    "ForeignKey",
    "Index",
    "IndexPart",
    "PrimaryKey",
    "Schema",
    "Sequence",
    "Table",
    "Trigger",
    "Unique",
    "View",
]

Deferred = Literal["deferred", "immediate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        name: its name.
        type: its type, such as `character varying(50)`.
        null: whether it may be NULL.
        default: the SQL expression of its default; None without one, and for one that counts.
        generated: the SQL expression that it is computed by; None for every other.
        stored: whether a generated column is kept in the row.
        counting: how the database counts in it: `serial`, `serial of integer` where the sequence ends before the column
            does, `always` and `by default` (PostgreSQL), `auto_increment` (MySQL, MariaDB), `rowid` and `autoincrement`
            (SQLite); None where it does not.
        collation: its collation, where that is not the usual one of the table or the database.
        comment: its comment.
    """

    name: str
    type: str
    null: bool = True
    default: str | None = None
    generated: str | None = None
    stored: bool = False
    counting: str | None = None
    collation: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryKey:
    """The primary key: its columns in their order. SQLite and MariaDB may have no name for it."""

    name: str | None
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """A unique constraint.

    Attributes:
        name: its name; None for one of SQLite that nobody named.
        columns: its columns.
        nulls_distinct: whether NULL differs from NULL.
        deferrable: as of `covet_orm.UniqueConstraint`.
        include: further columns in its index.
    """

    name: str | None
    columns: tuple[str, ...]
    nulls_distinct: bool = True
    deferrable: Deferred | None = None
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPart:
    """What an index is of: a column, or an expression.

    Attributes:
        column: the column; None for an expression.
        expression: the expression in SQL; None for a column.
        descending: whether it descends.
        nulls: where NULL stands, if that is not the usual place: `first`, `last`.
        opclass: the operator class, if it is not the usual one.
        collation: the collation, if it is not the column's.
        length: how many characters of the column, if not all of them.
    """

    column: str | None = None
    expression: str | None = None
    descending: bool = False
    nulls: Literal["first", "last"] | None = None
    opclass: str | None = None
    collation: str | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index that is none of a constraint.

    Attributes:
        name: its name.
        parts: what it is of.
        unique: whether no two rows are equal in it.
        condition: the SQL condition of the rows in it; None for all rows.
        include: further columns in it.
        method: its method, if that is not the usual one: `gin`, `hash`, `fulltext`.
        nulls_distinct: whether NULL differs from NULL in a unique one.
        valid: whether it is used; False after a concurrent creation that failed (PostgreSQL).
    """

    name: str
    parts: tuple[IndexPart, ...]
    unique: bool = False
    condition: str | None = None
    include: tuple[str, ...] = ()
    method: str | None = None
    nulls_distinct: bool = True
    valid: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns, those that are not part of an expression."""
        return tuple(part.column for part in self.parts if part.column is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check constraint. `valid` is False where rows that were there before it were not checked (PostgreSQL)."""

    name: str | None
    condition: str
    valid: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A foreign key.

    Attributes:
        name: its name; None for one of SQLite that nobody named.
        columns: its columns.
        table: the table that it refers to.
        referred: the columns there.
        on_delete: what becomes of the row: `CASCADE`, `SET NULL`, `SET DEFAULT`, `RESTRICT`, `NO ACTION`.
        on_update: the same, when the key of the other row changes.
        deferrable: when it is checked, where a transaction may say so.
        valid: as of `Check`.
    """

    name: str | None
    columns: tuple[str, ...]
    table: str
    referred: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    deferrable: Deferred | None = None
    valid: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """An exclusion constraint (PostgreSQL).

    Attributes:
        name: its name.
        parts: columns and expressions, each with its operator.
        method: the method of its index.
        condition: among which rows; None for all.
        deferrable: as of `Unique`.
    """

    name: str
    parts: tuple[tuple[IndexPart, str], ...]
    method: str
    condition: str | None = None
    deferrable: Deferred | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A trigger that somebody made, and what it is in SQL."""

    name: str
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        name: its name.
        columns: its columns in their order.
        primary_key: its key; None without one.
        uniques: its unique constraints, by name.
        indexes: its other indexes, by name.
        checks: its check constraints, by name.
        foreign_keys: its foreign keys, by name.
        exclusions: its exclusion constraints, by name.
        triggers: its triggers, by name.
        comment: its comment.
        collation: the usual collation of its text (MySQL, MariaDB).
    """

    name: str
    columns: tuple[Column, ...]
    primary_key: PrimaryKey | None = None
    uniques: tuple[Unique, ...] = ()
    indexes: tuple[Index, ...] = ()
    checks: tuple[Check, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    comment: str | None = None
    collation: str | None = None

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            KeyError: there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view, the query that it is, and whether it keeps its rows (PostgreSQL)."""

    name: str
    definition: str
    materialized: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A sequence that belongs to no column (PostgreSQL, MariaDB)."""

    name: str
    start: int = 1
    increment: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Enum:
    """An enum type and its labels, in their order (PostgreSQL)."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What is there in one database, or in one schema of it.

    Attributes:
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        tables: the tables by name.
        views: the views, by name.
        sequences: the sequences, by name.
        enums: the enum types, by name.
        extensions: the names of the extensions that were created.
    """

    kind: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    views: tuple[View, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    enums: tuple[Enum, ...] = ()
    extensions: tuple[str, ...] = ()
