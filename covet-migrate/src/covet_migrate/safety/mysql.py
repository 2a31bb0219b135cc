"""How MySQL and MariaDB do what is asked of them: ALGORITHM and LOCK of online DDL with InnoDB.

(https://mariadb.com/kb/en/innodb-online-ddl-overview/, https://dev.mysql.com/doc/refman/8.4/en/innodb-online-ddl-operations.html)
"""

from __future__ import annotations

import re

import sqlalchemy

from covet_migrate.actions.actions import (
    AddColumn,
    AddConstraint,
    AddIndex,
    AlterColumn,
    CreateTable,
    DropColumn,
    DropConstraint,
    DropIndex,
    DropTable,
    Execute,
    RenameColumn,
    RenameConstraint,
    RenameIndex,
    RenameTable,
    SetTableComment,
    TableAction,
)
from covet_migrate.safety.effects import Blocks, Effect
from covet_migrate.steps import Statement
from covet_orm.schema import defining_dialect

__all__ = ["mysql_effect"]

LOCKS = {"NONE": Blocks.NOBODY, "SHARED": Blocks.WRITERS, "EXCLUSIVE": Blocks.EVERYBODY}
HOW_IT_IS_DONE = re.compile(r"(, ALGORITHM=\w+)?(, LOCK=\w+)?$")
BYTES = 4
"""Of a character in utf8mb4."""
LENGTH_BYTES = 256
"""From so many bytes on, the length of a value takes two bytes in each row."""


def mysql_effect(step: Statement, kind: str, version: tuple[int, ...]) -> Effect:
    """What a statement does.

    Args:
        step: the statement.
        kind: `mysql` or `mariadb`.
        version: of the server.
    """
    action, sql = step.action, step.sql
    if isinstance(action, Execute) or not isinstance(action, TableAction):
        return Effect(known=False)
    table = action.table.name
    if isinstance(action, (CreateTable, DropTable, RenameTable)):
        name = action.before.name if isinstance(action, RenameTable) else table
        return Effect(locks={name: "EXCLUSIVE"}, blocks=Blocks.EVERYBODY)
    if sql.startswith("UPDATE"):
        return Effect(locks={table: "NONE"}, scans=True, changes_rows=True)
    algorithm, lock, scans = _how(action, _clause(action, sql), kind, version)
    # What needs no look at the rows holds the table for the moment in which its definition changes.
    return Effect(
        locks={table: lock},
        blocks=LOCKS[lock],
        rewrites=algorithm == "COPY" or (algorithm == "INPLACE" and scans == "rewrites"),
        scans=bool(scans),
        algorithm=algorithm,
    )


def _clause(action: TableAction, sql: str) -> str:
    name = defining_dialect("mariadb").identifier_preparer.format_table(action.table)
    # How it is to be done may stand behind what is done.
    return HOW_IT_IS_DONE.sub("", sql.removeprefix(f"ALTER TABLE {name} "))


How = tuple[str, str, str]
"""The algorithm, the lock, and whether rows are read (`reads`) or written anew (`rewrites`)."""
COPY: How = ("COPY", "SHARED", "rewrites")


def _how(action: TableAction, clause: str, kind: str, version: tuple[int, ...]) -> How:
    maria = kind == "mariadb"
    instant: How = ("INSTANT", "NONE", "")
    metadata: How = instant if maria else ("INPLACE", "NONE", "")
    built: How = ("NOCOPY" if maria else "INPLACE", "NONE", "reads")
    if _parts(clause) > 1:
        # Several changes in one statement are those of a primary key, or of a check constraint.
        return ("INPLACE", "NONE", "rewrites") if "PRIMARY KEY" in clause and not _counts(action) else COPY
    if clause.startswith("MODIFY COLUMN") and isinstance(action, AlterColumn):
        return _modified(action, kind, version)
    if clause.startswith("ALTER COLUMN"):
        return instant
    match action:
        case AddColumn():
            return _column_added(action, clause, instant)
        case DropColumn():
            return _column_dropped(action, kind)
        case AddIndex():
            return built
        case DropIndex():
            return _dropped(maria)
        case RenameIndex():
            return metadata
        case SetTableComment():
            return metadata
        case RenameColumn():
            return instant
        case AddConstraint() | DropConstraint() | RenameConstraint():
            return _constraint(action, clause, metadata, built, _dropped(maria))
    return COPY


def _dropped(maria: bool) -> How:
    """How an index is dropped."""
    return ("NOCOPY" if maria else "INPLACE", "NONE", "")


def _column_added(action: AddColumn, clause: str, instant: How) -> How:
    column = action.column
    if column.computed is not None:
        return COPY if column.computed.persisted is not False else instant
    if _counts(action):
        return COPY
    _, _, default = clause.partition(" DEFAULT ")
    return COPY if "(" in re.sub(r"'(?:[^']|'')*'", "", default) else instant


def _column_dropped(action: DropColumn, kind: str) -> How:
    column = action.column
    if column.computed is not None and column.computed.persisted is False:
        return ("INSTANT", "NONE", "")
    return ("INSTANT", "NONE", "")


def _constraint(
    action: AddConstraint | DropConstraint | RenameConstraint, clause: str, metadata: How, built: How, dropped: How
) -> How:
    constraint = action.constraint
    added = clause.startswith("ADD ")
    if isinstance(constraint, sqlalchemy.PrimaryKeyConstraint):
        return ("INPLACE", "NONE", "rewrites") if added else COPY
    if isinstance(constraint, sqlalchemy.UniqueConstraint):
        return built if added else dropped if clause.startswith("DROP ") else metadata
    # The rows are checked by copying them.
    return COPY if added else metadata


def _modified(action: AlterColumn, kind: str, version: tuple[int, ...]) -> How:
    maria, changes = kind == "mariadb", action.changes
    instant: How = ("INSTANT", "NONE", "")
    starts = "counting" in changes and action.column.autoincrement is True
    if "computed" in changes or starts or ("counting" in changes and not maria):
        return COPY
    if "type" in changes and not _grows(action, maria=maria):
        return COPY
    if "null" in changes:
        return ("INPLACE", "NONE", "rewrites")
    return instant if maria or "type" not in changes else ("INPLACE", "NONE", "")


def _grows(action: AlterColumn, *, maria: bool) -> bool:
    """Whether a text may be longer, and its length is written the same."""
    old, new = action.before.type, action.column.type
    if type(old) is not type(new) or not isinstance(new, sqlalchemy.String) or isinstance(new, sqlalchemy.Text):
        return False
    before, after = (old.length or 0) * BYTES, (new.length or 0) * BYTES  # type: ignore[attr-defined]
    # MariaDB writes the length of what is short the same, whatever else may come.
    short = maria and before < LENGTH_BYTES // 2
    return after >= before and (short or before >= LENGTH_BYTES or after < LENGTH_BYTES)


def _counts(action: TableAction) -> bool:
    column = getattr(action, "column", None)
    return column is not None and column.autoincrement is True


def _parts(clause: str) -> int:
    """How many clauses an ALTER TABLE has."""
    depth, parts, quote = 0, 1, ""
    for letter in clause:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"`":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "," and depth == 0:
            parts += 1
    return parts
