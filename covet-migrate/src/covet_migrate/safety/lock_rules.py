"""Rules about whom a statement keeps waiting, and for how long."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy

from covet_migrate.actions.actions import (
    AddColumn,
    AddConstraint,
    AddIndex,
    AlterColumn,
    DropIndex,
    TableAction,
    ValidateConstraint,
)
from covet_migrate.actions.custom import CustomAction
from covet_migrate.safety.effects import Blocks
from covet_migrate.safety.findings import Severity
from covet_migrate.safety.rules import Found, Subject, rule
from covet_migrate.steps import Call, RebuildTable, Statement, Step

__all__: list[str] = []

POSTGRESQL = ("postgresql",)
ONLINE_DDL = ("mysql", "mariadb")
ONLINE = "operations.Online(...) in a migration with atomic=False does it so; `makemigrations --safe` writes that."


@rule(
    "index-not-concurrent",
    Severity.ERROR,
    title="An index is created while nobody may write",
    why="SHARE keeps all writers waiting for as long as it is built.",
    instead="AddIndex(..., concurrently=True) in a migration with atomic=False; for the index of a field or a unique "
    f"one: {ONLINE}",
    kinds=POSTGRESQL,
)
def index_not_concurrent(subject: Subject) -> Iterator[Found]:
    for action, step, effect in subject.steps(AddIndex):
        if effect.stalls:
            yield Found(f"the index {action.index.name} of {action.table.name}", step)
    yield from subject.written("index-not-concurrent")


@rule(
    "drop-index-not-concurrent",
    Severity.WARNING,
    title="An index is dropped under a lock against everybody",
    why="ACCESS EXCLUSIVE waits for every query that is under way, and everybody else waits behind it.",
    instead="RemoveIndex(..., concurrently=True) in a migration with atomic=False.",
    kinds=POSTGRESQL,
)
def drop_index_not_concurrent(subject: Subject) -> Iterator[Found]:
    for action, step, effect in subject.steps(DropIndex):
        if effect.blocks:
            yield Found(f"the index {action.index.name} of {action.table.name}", step)
    yield from subject.written("drop-index-not-concurrent")


@rule(
    "concurrent-in-transaction",
    Severity.ERROR,
    title="Something that cannot be in a transaction is in an atomic migration",
    why="PostgreSQL refuses it, and nothing of the migration happens.",
    instead="Give the migration atomic=False, and operations that need no such thing a migration of their own; SQL "
    "needs "
    "RunSQL(..., transactional=False) beside.",
    kinds=POSTGRESQL,
)
def concurrent_in_transaction(subject: Subject) -> Iterator[Found]:
    written = {id(step) for step, raw in subject.raw if raw.concurrent}
    for step in subject.stage.steps:
        outside = not step.transactional or id(step) in written
        if outside and (subject.migration.atomic or step.transactional):
            yield Found("a statement outside of transactions", step)


@rule(
    "constraint-checked-at-once",
    Severity.ERROR,
    title="A check constraint is added and checked in one statement",
    why="ACCESS EXCLUSIVE keeps everybody waiting for as long as all rows are read.",
    instead="AddConstraint(..., validate=False), and ValidateConstraint in the next migration; for the check of a "
    "field: " + ONLINE,
    kinds=POSTGRESQL,
)
def constraint_checked_at_once(subject: Subject) -> Iterator[Found]:
    yield from _constraints(subject, sqlalchemy.CheckConstraint)
    yield from subject.written("constraint-checked-at-once")


@rule(
    "foreign-key-checked-at-once",
    Severity.ERROR,
    title="A foreign key is added and checked in one statement",
    why="SHARE ROW EXCLUSIVE keeps the writers of both tables waiting for as long as all rows are looked up.",
    instead=f"NOT VALID, and VALIDATE in another transaction: {ONLINE}",
    kinds=POSTGRESQL,
)
def foreign_key_checked_at_once(subject: Subject) -> Iterator[Found]:
    yield from _constraints(subject, sqlalchemy.ForeignKeyConstraint)
    yield from subject.written("foreign-key-checked-at-once")


@rule(
    "unique-built-at-once",
    Severity.ERROR,
    title="The index of a unique constraint is built while nobody may use the table",
    why="ACCESS EXCLUSIVE keeps everybody waiting for as long as the index is built.",
    instead=f"A unique index, created concurrently, then ADD CONSTRAINT ... USING INDEX: {ONLINE}",
    kinds=POSTGRESQL,
)
def unique_built_at_once(subject: Subject) -> Iterator[Found]:
    yield from _constraints(subject, sqlalchemy.UniqueConstraint)
    yield from subject.written("unique-built-at-once")


@rule(
    "primary-key-built-at-once",
    Severity.ERROR,
    title="The index of a primary key is built while nobody may use the table",
    why="ACCESS EXCLUSIVE keeps everybody waiting for as long as the index is built.",
    instead=f"A unique index, created concurrently, then ADD CONSTRAINT ... PRIMARY KEY USING INDEX: {ONLINE}",
    kinds=POSTGRESQL,
)
def primary_key_built_at_once(subject: Subject) -> Iterator[Found]:
    yield from _constraints(subject, sqlalchemy.PrimaryKeyConstraint)
    yield from subject.written("primary-key-built-at-once")


@rule(
    "exclusion-built-at-once",
    Severity.ERROR,
    title="An exclusion constraint is added",
    why="ACCESS EXCLUSIVE keeps everybody waiting for as long as its index is built, and PostgreSQL has no other way.",
    instead="Add it while the table is small, or to a new table into which the rows are moved in batches; or at an "
    "hour "
    "at which the table may be locked, as Reviewed(...).",
    kinds=POSTGRESQL,
)
def exclusion_built_at_once(subject: Subject) -> Iterator[Found]:
    from sqlalchemy.dialects.postgresql import ExcludeConstraint

    yield from _constraints(subject, ExcludeConstraint)
    yield from subject.written("exclusion-built-at-once")


def _constraints(subject: Subject, kind: type[sqlalchemy.Constraint]) -> Iterator[Found]:
    for action, step, effect in subject.steps(AddConstraint):
        if type(action.constraint) is kind and effect.stalls:
            yield Found(f"the constraint {action.constraint.name} of {action.table.name}", step)


@rule(
    "set-not-null-reads",
    Severity.ERROR,
    title="SET NOT NULL reads all rows while nobody may use the table",
    why="ACCESS EXCLUSIVE keeps everybody waiting for as long as all rows are read.",
    instead=f"A CHECK that is NOT VALID, VALIDATE, SET NOT NULL, which believes the check, and drop that: {ONLINE}",
    kinds=POSTGRESQL,
)
def set_not_null_reads(subject: Subject) -> Iterator[Found]:
    for action, step, effect in subject.steps(AlterColumn):
        if isinstance(step, Statement) and step.sql.endswith("SET NOT NULL") and effect.stalls:
            yield Found(f"the column {action.column.name} of {action.table.name}", step)
    yield from subject.written("set-not-null-reads")


@rule(
    "volatile-default",
    Severity.ERROR,
    title="A column is added whose default differs from row to row",
    why="The table is written anew while nobody may use it.",
    instead="Add it without, set the default, fill the rows that are there in batches, then NOT NULL through a check: "
    + ONLINE,
    kinds=POSTGRESQL,
)
def volatile_default(subject: Subject) -> Iterator[Found]:
    for action, step, effect in subject.steps(AddColumn):
        counts = action.column.autoincrement is True
        if effect.rewrites and action.column.computed is None and not counts:
            yield Found(f"the column {action.column.name} of {action.table.name}", step)
    yield from subject.written("volatile-default")


@rule(
    "stored-column",
    Severity.ERROR,
    title="A column is added that is computed and stored",
    why="The table is written anew while nobody may write, on PostgreSQL not even read.",
    instead="GeneratedField(..., stored=False), which is computed when it is read (PostgreSQL from 18 on); or a "
    "plain "
    "column that the program fills, with a backfill in batches.",
    kinds=(*POSTGRESQL, *ONLINE_DDL),
)
def stored_column(subject: Subject) -> Iterator[Found]:
    for action, step, effect in subject.steps(AddColumn):
        if action.column.computed is not None and effect.rewrites:
            yield Found(f"the column {action.column.name} of {action.table.name}", step)
    yield from subject.written("stored-column")


@rule(
    "counting-column",
    Severity.ERROR,
    title="A column is added that the database counts",
    why="The table is written anew while nobody may write, on PostgreSQL not even read.",
    instead="A new table with such a key, into which the rows are moved in batches; or a column of UUIDs.",
    kinds=(*POSTGRESQL, *ONLINE_DDL),
)
def counting_column(subject: Subject) -> Iterator[Found]:
    for action, step, _ in subject.steps(AddColumn):
        if action.column.autoincrement is True:
            yield Found(f"the column {action.column.name} of {action.table.name}", step)
    yield from subject.written("counting-column")


@rule(
    "type-rewrites",
    Severity.ERROR,
    title="Another type for which the table is written anew",
    why="ACCESS EXCLUSIVE keeps everybody waiting for as long as all rows and indexes are written.",
    instead="A field of the new type beside the old one, written by the program together with it, filled in "
    "batches; then "
    "read it, and drop the old one. A longer text, more digits of a number and text without a limit need none of that.",
    kinds=POSTGRESQL,
)
def type_rewrites(subject: Subject) -> Iterator[Found]:
    for action, step, effect in subject.steps(AlterColumn):
        if effect.rewrites:
            yield Found(f"the column {action.column.name} of {action.table.name}", step)
    yield from subject.written("type-rewrites")


@rule(
    "copies-table",
    Severity.ERROR,
    title="The table is copied while nobody may write",
    why="ALGORITHM=COPY, with LOCK=SHARED, keeps writers waiting for as long as all rows are copied.",
    instead="A new column or table, filled in batches, or a tool that copies behind the scenes (gh-ost, "
    "pt-online-schema-change); foreign keys and checks have no other way: add them while the table is small. What "
    "can be "
    "done with LOCK=NONE is held to that by operations.Online(...).",
    kinds=ONLINE_DDL,
)
def copies_table(subject: Subject) -> Iterator[Found]:
    for action, step, effect in subject.steps(TableAction):
        if effect.algorithm and effect.blocks:
            yield Found(f"the table {action.table.name}", step)
    yield from subject.written("copies-table")


@rule(
    "rebuilds-table",
    Severity.NOTE,
    title="The table is made anew",
    why="SQLite cannot alter it; nobody else writes into the file until all rows are copied.",
    instead="With few rows there is nothing to do. Several changes of one table in one migration copy it once each: "
    "nullable columns and constant defaults need no copy.",
    kinds=("sqlite",),
)
def rebuilds_table(subject: Subject) -> Iterator[Found]:
    for step in subject.stage.steps:
        if isinstance(step, RebuildTable) and step.after.name not in subject.new_tables:
            yield Found(f"the table {step.after.name}", step)


@rule(
    "validated-under-lock",
    Severity.ERROR,
    title="A constraint is validated in the transaction that added it",
    why="The lock of ADD ... NOT VALID is kept to the end of the transaction, and with it everybody waits while all "
    "rows "
    "are read.",
    instead="ValidateConstraint in a migration of its own.",
    kinds=POSTGRESQL,
)
def validated_under_lock(subject: Subject) -> Iterator[Found]:
    if not subject.together:
        return
    added = {
        (step.action.table.name, str(step.action.constraint.name))
        for step, _ in subject.earlier
        if isinstance(step.action, AddConstraint)
    }
    for action, step, _ in subject.steps(ValidateConstraint):
        if (action.table.name, str(action.constraint.name)) in added:
            yield Found(f"the constraint {action.constraint.name} of {action.table.name}", step)


@rule(
    "rows-under-lock",
    Severity.WARNING,
    title="Rows are changed in a transaction that locks a table",
    why="A lock of the transaction is kept until all rows are changed, and those rows until its end.",
    instead="A migration of its own for the rows, with atomic=False and RunPython(..., batched=...), or "
    "operations.Online(...), which changes them in batches.",
    kinds=(*POSTGRESQL, "sqlite"),
)
def rows_under_lock(subject: Subject) -> Iterator[Found]:
    if not subject.together:
        return
    blocked = any(_locks(subject, step) and effect.blocks for step, effect in subject.earlier)
    for step, effect in zip(subject.stage.steps, subject.effects, strict=True):
        changes = effect.changes_rows or any(one is step and raw.changes_rows for one, raw in subject.raw)
        if blocked and changes and not subject.is_new(step.action):
            yield Found("rows that are there", step)
        blocked = blocked or (_locks(subject, step) and effect.blocks > Blocks.NOBODY)


@rule(
    "all-rows-at-once",
    Severity.WARNING,
    title="All rows are changed by one statement",
    why="Each row is locked from when it is changed to the end, and the table grows by as many dead rows.",
    instead="In batches: RunPython(..., batched=...) in a migration with atomic=False, or operations.Online(...).",
)
def all_rows_at_once(subject: Subject) -> Iterator[Found]:
    for step, effect in zip(subject.stage.steps, subject.effects, strict=True):
        if effect.changes_rows and not isinstance(step, Call) and not subject.is_new(step.action):
            yield Found("rows that are there", step)
    yield from subject.written("all-rows-at-once")


def _locks(subject: Subject, step: Step) -> bool:
    """Whether a step locks a table that is in use."""
    return isinstance(step.action, (TableAction, CustomAction)) and not subject.is_new(step.action)
