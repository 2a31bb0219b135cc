"""Which locks the statements of PostgreSQL take (https://www.postgresql.org/docs/current/explicit-locking.html)."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import (
    AddColumn,
    AlterColumn,
    CreateTable,
    DropConstraint,
    DropTable,
    Execute,
    RenameTable,
    TableAction,
)
from covet_migrate.safety.effects import Blocks, Effect, Proven
from covet_migrate.steps import Statement
from covet_orm.schema import defining_dialect

__all__ = ["changes_type_in_place", "is_volatile", "postgresql_effect"]

ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"
SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
BLOCKS = {
    "ACCESS SHARE": Blocks.NOBODY,
    "ROW SHARE": Blocks.NOBODY,
    "ROW EXCLUSIVE": Blocks.NOBODY,
    SHARE_UPDATE_EXCLUSIVE: Blocks.NOBODY,
    "SHARE": Blocks.WRITERS,
    SHARE_ROW_EXCLUSIVE: Blocks.WRITERS,
    "EXCLUSIVE": Blocks.WRITERS,
    ACCESS_EXCLUSIVE: Blocks.EVERYBODY,
}
"""The locks of tables, and whom each keeps waiting."""

VOLATILE = re.compile(
    r"\b(random|gen_random_uuid|uuidv4|uuidv7|uuid_generate_\w+|clock_timestamp|timeofday|nextval|setval|random_normal|"
    r"gen_random_bytes)\s*\(",
    re.IGNORECASE,
)
"""Functions that give something else for every row (`pg_proc.provolatile = 'v'`)."""
STABLE_CALL = re.compile(
    r"\b(now|transaction_timestamp|statement_timestamp|current_setting|timezone|lower|upper|length|abs|round|floor|ceil|"
    r"coalesce|greatest|least|nullif|concat|trim|btrim|ltrim|rtrim|replace|substr|substring|left|right|date_trunc|"
    r"date_part|extract|to_char|to_date|to_timestamp|make_date|make_interval|md5|encode|decode|power|sqrt|mod|sign|"
    r"jsonb_build_object|jsonb_build_array|to_jsonb|array|cast|varchar|char|numeric|decimal|timestamp|interval|in|and|or)"
    r"\s*\(",
    re.IGNORECASE,
)
CALL = re.compile(r"\b[a-z_][\w.]*\s*\(", re.IGNORECASE)
LITERAL = re.compile(r"'(?:[^']|'')*'")


def postgresql_effect(step: Statement, version: tuple[int, ...], proven: Proven) -> Effect:
    """What a statement does.

    Args:
        step: the statement.
        version: of the server.
        proven: what those before it have shown; it is told what this one shows.
    """
    action, sql = step.action, step.sql
    if isinstance(action, Execute) or not isinstance(action, TableAction):
        return Effect(known=False)
    table = action.table.name
    if isinstance(action, CreateTable):
        return _of_new_table(action, sql)
    if isinstance(action, DropTable):
        return _effect(dict.fromkeys((table, *_referred(action.table)), ACCESS_EXCLUSIVE))
    if isinstance(action, RenameTable) and sql.startswith("ALTER TABLE"):
        return _effect({action.before.name: ACCESS_EXCLUSIVE})
    if sql.startswith("UPDATE"):
        return _effect({table: "ROW EXCLUSIVE"}, scans=True, changes_rows=True)
    if sql.startswith("COMMENT ON"):
        return _effect({table: SHARE_UPDATE_EXCLUSIVE})
    if sql.startswith(("CREATE INDEX", "CREATE UNIQUE INDEX")):
        return _effect({table: SHARE_UPDATE_EXCLUSIVE if " INDEX CONCURRENTLY " in sql else "SHARE"}, scans=True)
    if sql.startswith("DROP INDEX"):
        concurrently = sql.startswith("DROP INDEX CONCURRENTLY")
        return _effect({table: SHARE_UPDATE_EXCLUSIVE if concurrently else ACCESS_EXCLUSIVE})
    if sql.startswith(("ALTER INDEX", "SET CONSTRAINTS")):
        return _effect({})
    if sql.startswith("SELECT setval"):
        # The largest number is found by the index of the key.
        return _effect({table: "ACCESS SHARE"})
    if sql.startswith("CREATE SEQUENCE"):
        return _effect({table: "ACCESS SHARE"})
    if sql.startswith("DO "):
        return _effect({})
    return _of_alter(action, _clause(action, sql), proven)


def _effect(locks: dict[str, str], **more: Any) -> Effect:
    blocks = max((BLOCKS[lock] for lock in locks.values()), default=Blocks.NOBODY)
    return Effect(locks=locks, blocks=blocks, **more)


def _clause(action: TableAction, sql: str) -> str:
    """What stands behind `ALTER TABLE` and the name of the table."""
    name = defining_dialect("postgresql").identifier_preparer.format_table(action.table)
    return sql.removeprefix(f"ALTER TABLE {name} ")


def _of_new_table(action: CreateTable, sql: str) -> Effect:
    table = action.table.name
    if sql.lstrip().startswith("CREATE TABLE"):
        return _effect({table: ACCESS_EXCLUSIVE, **dict.fromkeys(_referred(action.table), SHARE_ROW_EXCLUSIVE)})
    if sql.startswith("COMMENT ON"):
        return _effect({table: SHARE_UPDATE_EXCLUSIVE})
    return _effect({table: "SHARE"})


def _of_alter(action: TableAction, clause: str, proven: Proven) -> Effect:
    table = action.table.name
    everybody = {table: ACCESS_EXCLUSIVE}
    if clause.startswith("VALIDATE CONSTRAINT"):
        return _validated(action, clause, proven)
    if clause.startswith("ADD CONSTRAINT"):
        return _constraint_added(action, clause, proven)
    if isinstance(action, AddColumn) and clause.startswith("ADD COLUMN"):
        return _effect(everybody, rewrites=_added_by_rewriting(action, clause))
    if isinstance(action, AlterColumn) and " TYPE " in clause:
        # The foreign keys of the column are dropped before, and added again after, by actions of their own.
        return _effect(everybody, rewrites=not _keeps_rows(action))
    if clause.endswith("SET NOT NULL"):
        name = action.column.name if isinstance(action, AlterColumn | AddColumn) else ""
        return _effect(everybody, scans=(table, name) not in proven.valid)
    if isinstance(action, DropConstraint) and isinstance(action.constraint, sqlalchemy.ForeignKeyConstraint):
        others = dict.fromkeys(_tables_of([action.constraint]), ACCESS_EXCLUSIVE)
        return _effect({**others, **everybody})
    return _effect(everybody)


def _constraint_added(action: TableAction, clause: str, proven: Proven) -> Effect:
    table = action.table.name
    waits = clause.endswith("NOT VALID")
    constraint = getattr(action, "constraint", None)
    if isinstance(constraint, sqlalchemy.ForeignKeyConstraint):
        others = dict.fromkeys(_tables_of([constraint]), SHARE_ROW_EXCLUSIVE)
        return _effect({**others, table: SHARE_ROW_EXCLUSIVE}, scans=not waits)
    found = re.fullmatch(r"ADD CONSTRAINT (\S+) CHECK \((.+) IS NOT NULL\)(?: NOT VALID)?", clause)
    column = getattr(action, "column", None)
    if found is not None and column is not None:
        proven.checks[table, found[1]] = column.name
        if not waits:
            proven.valid.add((table, column.name))
    built = " USING INDEX " not in clause
    return _effect({table: ACCESS_EXCLUSIVE}, scans=not waits and built)


def _validated(action: TableAction, clause: str, proven: Proven) -> Effect:
    table = action.table.name
    constraint = getattr(action, "constraint", None)
    locks = {table: SHARE_UPDATE_EXCLUSIVE}
    if isinstance(constraint, sqlalchemy.ForeignKeyConstraint):
        locks = {**dict.fromkeys(_tables_of([constraint]), "ROW SHARE"), **locks}
    column = proven.checks.get((table, clause.removeprefix("VALIDATE CONSTRAINT ")))
    if column is not None:
        proven.valid.add((table, column))
    return _effect(locks, scans=True)


def _added_by_rewriting(action: AddColumn, clause: str) -> bool:
    column = action.column
    if column.computed is not None:
        return column.computed.persisted is not False
    if column.autoincrement is True or "SERIAL" in clause.upper().split():
        return True
    _, _, default = LITERAL.sub("''", clause).partition(" DEFAULT ")
    return is_volatile(default)


def is_volatile(expression: str) -> bool:
    """Whether an expression of SQL may give something else for every row; so may a function that nobody knows here."""
    text = LITERAL.sub("''", expression)
    return bool(VOLATILE.search(text)) or bool(CALL.search(STABLE_CALL.sub(" ", text)))


def _keeps_rows(action: AlterColumn) -> bool:
    dialect = defining_dialect("postgresql")
    return changes_type_in_place(action.before.type.compile(dialect), action.column.type.compile(dialect))


def changes_type_in_place(before: str, after: str) -> bool:
    """Whether PostgreSQL changes the type of a column without looking at its rows.

    Args:
        before: the type as SQL.
        after: the new one.
    """
    old, old_size = _type(before)
    new, new_size = _type(after)
    if old in ("VARCHAR", "TEXT") and new in ("VARCHAR", "TEXT"):
        return not new_size or (bool(old_size) and new_size[0] >= old_size[0])
    if old != new:
        # The sessions of covet-orm have UTC, in which both are the same.
        times = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITHOUT TIME ZONE"}
        return ({old, new} <= times and not new_size) or (old, new) == ("CIDR", "INET")
    if new in ("NUMERIC", "DECIMAL"):
        return not new_size or (
            len(old_size) == len(new_size) and new_size[0] >= old_size[0] and old_size[1:] == new_size[1:]
        )
    return not new_size or (bool(old_size) and new_size >= old_size and new.startswith(("TIME", "VARBIT", "INTERVAL")))


def _type(text: str) -> tuple[str, list[int]]:
    """A type without its size, and the size."""
    size = re.search(r"\(([\d, ]+)\)", text)
    name = re.sub(r"\s*\([\d, ]+\)", "", text).upper().replace("CHARACTER VARYING", "VARCHAR").strip()
    return name, [int(part) for part in size[1].split(",")] if size else []


def _referred(table: sqlalchemy.Table) -> list[str]:
    return [name for name in _tables_of(table.foreign_key_constraints) if name != table.name]


def _tables_of(keys: Any) -> list[str]:
    return sorted({one.referred_table.name for one in keys})
