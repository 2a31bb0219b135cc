"""Statements of PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import (
    Action,
    AddConstraint,
    AddIndex,
    AlterColumn,
    DropIndex,
    RenameColumn,
    RenameTable,
    ValidateConstraint,
)
from covet_migrate.ddl.base import DDL, Part
from covet_migrate.exceptions import MigrationError
from covet_migrate.steps import Step

__all__ = ["PostgreSQL"]

TEXTS = frozenset(("VARCHAR", "TEXT", "CHAR"))
WHOLE = frozenset(("SMALLINT", "INTEGER", "BIGINT"))
NUMBERS = WHOLE | {"NUMERIC", "REAL", "DOUBLE PRECISION", "FLOAT"}
TIMES = frozenset(("DATE", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITHOUT TIME ZONE"))
LENGTH = re.compile(r"\([^)]*\)")
CAN_WAIT = (sqlalchemy.ForeignKeyConstraint, sqlalchemy.CheckConstraint)


class PostgreSQL(DDL):
    """Statements of PostgreSQL."""

    def step(self, action: Action) -> Iterator[Step]:
        concurrently = isinstance(action, (AddIndex, DropIndex)) and action.concurrently
        for step in super().step(action):
            yield replace(step, transactional=False) if concurrently else step

    def rename_table(self, action: RenameTable) -> Iterable[str]:
        yield from super().rename_table(action)
        for column in action.before.columns:
            if column.autoincrement is True:
                yield self._rename_sequence(action.table, column.name)

    def rename_column(self, action: RenameColumn) -> Iterable[Part]:
        yield from super().rename_column(action)
        column = action.table.c.get(action.after)
        if column is not None and column.autoincrement is True:
            yield self._rename_sequence(action.table, action.after)

    def alter_column(self, action: AlterColumn) -> Iterable[str]:
        old, new, changes = action.before, action.column, action.changes
        name = self.quote(new.name)

        def alter(what: str) -> str:
            return self.alter(action, f"ALTER COLUMN {name} {what}")

        if "computed" in changes and new.computed is None:
            yield alter("DROP EXPRESSION")
        stops = "counting" in changes and old.autoincrement is True
        if stops:
            # What counts as identity, as other tools make it, has no default to be dropped while it does.
            yield alter("DROP IDENTITY IF EXISTS")
            yield alter("DROP DEFAULT")
            yield self._of_sequence(new, "EXECUTE 'DROP SEQUENCE ' || name")
        had = self.default(old) if old.autoincrement is not True else None
        # A default is of the old type, and may have no cast to the new one.
        put_aside = "type" in changes and had is not None
        if put_aside or ("default" in changes and had is not None and self.default(new) is None):
            yield alter("DROP DEFAULT")
        if "type" in changes:
            yield alter(f"TYPE {self.type(new)}{self._using(old, new)}")
            if new.autoincrement is True and not stops and "counting" not in changes:
                yield self._of_sequence(new, f"EXECUTE 'ALTER SEQUENCE ' || name || ' AS {self._counted(new)}'")
        wanted = self.default(new) if new.autoincrement is not True else None
        if wanted is not None and (put_aside or "default" in changes):
            yield alter(f"SET DEFAULT {wanted}")
        if "counting" in changes and new.autoincrement is True:
            yield from self._count(action, alter)
        if "null" in changes:
            fill = self.filling(action)
            if fill:
                yield from fill
                if any(getattr(one, "deferrable", None) for one in action.table.constraints):
                    # ALTER TABLE refuses while checks of the rows wait for the end of the transaction.
                    yield "SET CONSTRAINTS ALL IMMEDIATE"
            yield alter("DROP NOT NULL" if new.nullable else "SET NOT NULL")
        if "comment" in changes:
            text = "NULL" if new.comment is None else self.literal(new.comment)
            yield f"COMMENT ON COLUMN {self.table(action.table)}.{name} IS {text}"

    def add_column(self, action: Any) -> Iterable[str]:
        yield from super().add_column(action)
        if action.column.comment is not None:
            name = self.quote(action.column.name)
            text = self.literal(action.column.comment)
            yield f"COMMENT ON COLUMN {self.table(action.table)}.{name} IS {text}"

    def add_index(self, action: AddIndex) -> Iterable[str]:
        (sql,) = super().add_index(action)
        if not action.concurrently:
            return [sql]
        # What was interrupted left an index that nobody may use.
        drop = f"DROP INDEX CONCURRENTLY IF EXISTS {self.quote(str(action.index.name))}"
        head, _, rest = sql.partition(" INDEX ")
        return [drop, f"{head} INDEX CONCURRENTLY {rest}"]

    def drop_index(self, action: DropIndex) -> Iterable[str]:
        # Outside of a transaction it may have been done before something else failed.
        how = "CONCURRENTLY IF EXISTS " if action.concurrently else ""
        return [f"DROP INDEX {how}{self.quote(str(action.index.name))}"]

    def add_constraint(self, action: AddConstraint) -> Iterable[str]:
        (sql,) = super().add_constraint(action)
        if action.validate:
            return [sql]
        if not isinstance(action.constraint, CAN_WAIT):
            raise MigrationError(
                f"the constraint {action.constraint.name} has to be checked when it is added: validate=False is for "
                "foreign keys and check constraints"
            )
        return [f"{sql} NOT VALID"]

    def validate_constraint(self, action: ValidateConstraint) -> Iterable[str]:
        return [self.alter(action, f"VALIDATE CONSTRAINT {self.quote(str(action.constraint.name))}")]

    def _using(self, old: sqlalchemy.Column[Any], new: sqlalchemy.Column[Any]) -> str:
        """How values become such of another type, where an assignment does not make them so.

        An assignment refuses what does not fit; the cast of a text cuts it.
        """
        becomes = self.type(new)
        before, after = _bare(self.type(old)), _bare(becomes)
        if before == after or after in TEXTS or any({before, after} <= group for group in (NUMBERS, TIMES)):
            return ""
        name = self.quote(new.name)
        if before == "BOOLEAN" and after in NUMBERS:
            return f" USING {name}::integer::{becomes}"
        if before in NUMBERS and after == "BOOLEAN":
            return f" USING {name} <> 0"
        return f" USING {name}::{becomes}"

    def _counted(self, column: sqlalchemy.Column[Any]) -> str:
        kind = self.type(column).lower()
        return kind if kind in ("smallint", "integer") else "bigint"

    def _count(self, action: AlterColumn, alter: Any) -> Iterator[str]:
        """Have a sequence count in a column, as `SERIAL` does."""
        table, name = self.table(action.table), self.quote(action.column.name)
        sequence = self.quote(sequence_name(action.table.name, action.column.name))
        yield f"CREATE SEQUENCE {sequence} AS {self._counted(action.column)} OWNED BY {table}.{name}"
        literal = self.literal(sequence)
        yield f"SELECT setval({literal}, (SELECT COALESCE(MAX({name}), 0) + 1 FROM {table}), false)"
        yield alter(f"SET DEFAULT nextval({literal})")

    def _rename_sequence(self, table: sqlalchemy.Table, column: str) -> str:
        name = sequence_name(table.name, column)
        rename = f"EXECUTE format('ALTER SEQUENCE %s RENAME TO %I', name, {self.literal(name)})"
        free = f"to_regclass({self.literal(self.quote(name))}) IS NULL"
        return self._of_sequence(table, f"IF {free} THEN {rename}; END IF", column)

    def _of_sequence(self, of: Any, what: str, column: str | None = None) -> str:
        """Do something with the sequence that counts in a column, if there is one; its name is `name`."""
        table = of if column is not None else of.table
        names = f"{self.literal(self.table(table))}, {self.literal(column or of.name)}"
        return (
            f"DO $covet$ DECLARE name text := pg_get_serial_sequence({names}); "
            f"BEGIN IF name IS NOT NULL THEN {what}; END IF; END $covet$"
        )


def _bare(type_: str) -> str:
    """A type without its length, as SQLAlchemy writes it; a server calls it otherwise."""
    return LENGTH.sub("", type_).upper().replace("CHARACTER VARYING", "VARCHAR")


def sequence_name(table: str, column: str) -> str:
    """The name that PostgreSQL gives to the sequence of a `SERIAL` column: the longer part is cut where it is too long
    (`makeObjectName`)."""
    parts = [table.encode(), column.encode()]
    while sum(map(len, parts)) > 63 - len("__seq"):
        longer = 0 if len(parts[0]) > len(parts[1]) else 1
        parts[longer] = parts[longer][:-1]
    return "_".join((*(part.decode(errors="ignore") for part in parts), "seq"))
