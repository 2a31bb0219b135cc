"""The steps of changes that are made while others use the tables: more of them, none of which keeps others waiting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import (
    AddColumn,
    AddConstraint,
    AddIndex,
    AlterColumn,
    CreateTable,
    DropConstraint,
    DropIndex,
    Online,
    TableAction,
    ValidateConstraint,
)
from covet_migrate.actions.columns import alone
from covet_migrate.ddl.base import DDL
from covet_migrate.ddl.filling import fill_in_batches
from covet_migrate.safety.effects import Blocks, effects_of
from covet_migrate.safety.postgresql import is_volatile
from covet_migrate.steps import Call, Statement, Step

__all__ = ["online_steps"]

CAN_WAIT = (sqlalchemy.ForeignKeyConstraint, sqlalchemy.CheckConstraint)


def online_steps(online: Online, dialect: DDL) -> list[Step]:
    """The steps of changes.

    Args:
        online: the changes.
        dialect: makes the statements of one change.
    """
    made = {one.table.name for one in online.actions if isinstance(one, CreateTable)}
    if dialect.kind == "postgresql":
        return list(_PostgreSQL(online, dialect, made).steps())
    if dialect.kind == "sqlite":
        return dialect.steps(online.actions)
    return list(_MySQL(online, dialect, made).steps())


class _Online:
    """What both have in common.

    Args:
        online: the changes.
        dialect: makes the statements of one change.
        made: the tables that are created, which nobody uses yet.
    """

    def __init__(self, online: Online, dialect: DDL, made: set[str]) -> None:
        self.online = online
        self.dialect = dialect
        self.made = made
        dialect.actions = online.actions

    def fill(self, action: AddColumn | AlterColumn, value: str) -> Call:
        """Give rows that have NULL a value, in batches."""
        table, column = action.table.name, action.column.name
        function = partial(fill_in_batches, action.table, action.column.name, value, self.online.batch)
        return Call(function=function, name=f"fill {table}.{column}", transactional=False)

    def value_of(self, action: AddColumn | AlterColumn) -> str | None:
        """What rows get that are there, as SQL."""
        if action.fill is not None:
            return self.dialect.default(alone(action.column, action.fill))
        return self.dialect.default(action.column) if isinstance(action, AddColumn) else None

    def differs(self, action: AddColumn) -> bool:
        """Whether a column is added in which rows that are there get different values."""
        value = self.value_of(action) if action.column.computed is None else None
        return value is not None and action.column.autoincrement is not True and is_volatile(value)

    def bare(self, action: AddColumn) -> Iterator[Step]:
        """Add a column as one that may be NULL, and has no default."""
        column = alone(action.column, None, nullable=True)
        yield from self.dialect.step(replace(action, column=column, fill=None))


class _PostgreSQL(_Online):
    def steps(self) -> Iterator[Step]:
        for action in self.online.actions:
            if isinstance(action, Step):
                yield action
            elif isinstance(action, TableAction) and action.table.name not in self.made:
                yield from self._step(action)
            else:
                yield from self.dialect.step(action)

    def _step(self, action: TableAction) -> Iterator[Step]:
        match action:
            case AddIndex() | DropIndex():
                yield from self.dialect.step(replace(action, concurrently=True))
            case AddConstraint() if isinstance(action.constraint, CAN_WAIT):
                yield from self.dialect.step(replace(action, validate=False))
                yield from self.dialect.step(ValidateConstraint(table=action.table, constraint=action.constraint))
            case AddConstraint() if isinstance(
                action.constraint, sqlalchemy.UniqueConstraint | sqlalchemy.PrimaryKeyConstraint
            ):
                yield from self._unique(action)
            case DropConstraint() if isinstance(action.constraint, sqlalchemy.UniqueConstraint):
                yield from self._no_unique(action)
            case AddColumn() if self.differs(action):
                yield from self._column(action)
            case AlterColumn() if "null" in action.changes:
                yield from self._null(action)
            case _:
                yield from self.dialect.step(action)

    def _unique(self, action: AddConstraint) -> Iterator[Step]:
        """An index that is created concurrently, and a constraint that takes it."""
        constraint: Any = action.constraint
        index = self._index(constraint)
        yield from self.dialect.step(AddIndex(table=index.table, index=index, concurrently=True))
        what = "UNIQUE" if isinstance(constraint, sqlalchemy.UniqueConstraint) else "PRIMARY KEY"
        quoted = self.dialect.quote(str(constraint.name))
        tail = self.dialect.compiler.define_constraint_deferrability(constraint)
        clause = f"ADD CONSTRAINT {quoted} {what} USING INDEX {quoted}{tail}"
        yield Statement(action=action, sql=self.dialect.alter(action, clause))

    def _no_unique(self, action: DropConstraint) -> Iterator[Step]:
        """Drop a constraint, or the index that was created for it before something was interrupted."""
        index = self._index(action.constraint)
        clause = f"DROP CONSTRAINT IF EXISTS {self.dialect.quote(str(action.constraint.name))}"
        yield Statement(action=action, sql=self.dialect.alter(action, clause))
        yield from self.dialect.step(DropIndex(table=index.table, index=index, concurrently=True))

    def _index(self, constraint: Any) -> Any:
        """The index of a unique constraint, of a table of its own."""
        columns = [sqlalchemy.Column(one.name, one.type) for one in constraint.columns]
        table = sqlalchemy.Table(constraint.table.name, sqlalchemy.MetaData(), *columns)
        distinct = None
        if isinstance(constraint, sqlalchemy.UniqueConstraint):
            distinct = constraint.dialect_options["postgresql"].get("nulls_not_distinct")
        options = {} if distinct is None else {"postgresql_nulls_not_distinct": distinct}
        sqlalchemy.Index(str(constraint.name), *columns, unique=True, **options)
        return next(iter(table.indexes))

    def _column(self, action: AddColumn) -> Iterator[Step]:
        yield from self.bare(action)
        column, name = action.column, self.dialect.quote(action.column.name)
        default = self.dialect.default(column)
        if default is not None:
            clause = f"ALTER COLUMN {name} SET DEFAULT {default}"
            yield Statement(action=action, sql=self.dialect.alter(action, clause))
        value = self.value_of(action)
        if value is not None:
            yield self.fill(action, value)
        if not column.nullable:
            yield from self._not_null(action, value)

    def _null(self, action: AlterColumn) -> Iterator[Step]:
        others = action.changes - {"null"}
        if action.column.nullable:
            # What was interrupted on the way there left a check.
            drop = f"DROP CONSTRAINT IF EXISTS {self._check(action)}"
            yield Statement(action=action, sql=self.dialect.alter(action, drop))
            yield from self.dialect.step(action)
            return
        if others:
            yield from self.dialect.step(replace(action, changes=others, fill=None))
        value = self.value_of(action)
        if value is not None:
            yield self.fill(action, value)
        yield from self._not_null(action, value)

    def _not_null(self, action: AddColumn | AlterColumn, value: str | None) -> Iterator[Step]:
        """NOT NULL through a check, which is validated while others write."""
        name, check = self.dialect.quote(action.column.name), self._check(action)

        def alter(clause: str) -> Statement:
            return Statement(action=action, sql=self.dialect.alter(action, clause))

        yield alter(f"ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID")
        if value is not None:
            # Rows that came while the others were filled.
            yield self.fill(action, value)
        yield alter(f"VALIDATE CONSTRAINT {check}")
        yield alter(f"ALTER COLUMN {name} SET NOT NULL")
        yield alter(f"DROP CONSTRAINT {check}")

    def _check(self, action: AddColumn | AlterColumn) -> str:
        """The name of the check, which nothing else has."""
        told = f"{action.table.name}.{action.column.name}".encode()
        return self.dialect.quote(f"covet_not_null_{blake2b(told, digest_size=8).hexdigest()}")


class _MySQL(_Online):
    def steps(self) -> Iterator[Step]:
        version = self.dialect.version
        made = self._in_batches()
        for step, effect in zip(made, effects_of(made, self.dialect.kind, version), strict=True):
            table = isinstance(step.action, TableAction) and step.action.table.name not in self.made
            online = effect.algorithm and effect.blocks is Blocks.NOBODY and table
            if not (isinstance(step, Statement) and online):
                yield step
            elif step.sql.startswith("CREATE "):
                # Of CREATE INDEX these are options, of ALTER TABLE clauses.
                yield replace(step, sql=f"{step.sql} ALGORITHM={effect.algorithm} LOCK=NONE")
            elif effect.algorithm == "INSTANT":
                # What is done in an instant locks nothing, and MySQL takes no LOCK with it.
                yield replace(step, sql=f"{step.sql}, ALGORITHM=INSTANT")
            else:
                yield replace(step, sql=f"{step.sql}, ALGORITHM={effect.algorithm}, LOCK=NONE")

    def _in_batches(self) -> list[Step]:
        """The steps, with rows changed in batches."""
        found: list[Step] = []
        for step in self.dialect.steps(self.online.actions):
            action = step.action
            statement = step.sql if isinstance(step, Statement) else ""
            value = self.value_of(action) if isinstance(action, AlterColumn) else None
            if isinstance(action, AlterColumn) and statement.startswith("UPDATE") and value is not None:
                found += self._filled(action, value)
            elif isinstance(action, AddColumn) and statement.partition(" ADD COLUMN ")[1] and self.differs(action):
                found += self._column(action)
            elif isinstance(action, AddColumn) and action.fill is not None and self.differs(action):
                # The default after the rows were filled is there already.
                continue
            else:
                found.append(step)
        return found

    def _column(self, action: AddColumn) -> Iterator[Step]:
        yield from self.bare(action)
        bare = alone(action.column, None, nullable=True)
        before = bare
        if self.dialect.default(action.column) is not None:
            # Rows that come while the others are filled have it.
            before = alone(action.column, action.column.server_default, nullable=True)
            changes = frozenset(("default",))
            yield from self.dialect.step(AlterColumn(table=action.table, before=bare, column=before, changes=changes))
        value = self.value_of(action)
        if value is not None:
            yield from self._filled(action, value)
        if action.column.nullable:
            return
        clause = f"MODIFY COLUMN {self.dialect.column(action.column)}"
        altered = AlterColumn(
            table=action.table, before=before, column=action.column, changes=frozenset(("null",))
        )  # fmt: skip
        yield Statement(action=altered, sql=self.dialect.alter(action, clause))

    def _filled(self, action: AddColumn | AlterColumn, value: str) -> Iterator[Step]:
        """Rows get their values; and those that came meanwhile, so that few are left that could be in the way."""
        yield self.fill(action, value)
        yield self.fill(action, value)
