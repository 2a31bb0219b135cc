"""Whether what an action does is there already, for operations of which only a part was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import (
    Action,
    AddColumn,
    AddConstraint,
    AddIndex,
    CreateTable,
    DropColumn,
    DropConstraint,
    DropIndex,
    DropTable,
    RenameColumn,
    RenameConstraint,
    RenameIndex,
    RenameTable,
)
from covet_migrate.actions.custom import CustomAction
from covet_migrate.execution.history import fetch
from covet_orm.drivers.protocol import Connection

__all__ = ["in_effect"]


async def in_effect(connection: Connection, kind: str, action: Action | Any) -> bool | None:
    """Whether an action was done: by what is there. None where that does not tell.

    Args:
        connection: at rest, or in a transaction.
        kind: of the database.
        action: the action.
    """
    there = _Schema(connection, kind)
    match action:
        case CreateTable():
            return await there.has_table(action.table.name)
        case DropTable():
            return not await there.has_table(action.table.name)
        case RenameTable():
            return await there.has_table(action.table.name) and not await there.has_table(action.before.name)
        case AddColumn():
            return action.column.name in await there.columns(action.table.name)
        case DropColumn():
            return action.column.name not in await there.columns(action.table.name)
        case RenameColumn():
            return action.after in await there.columns(action.table.name)
        case AddIndex() | RenameIndex():
            return str(action.index.name) in await there.indexes(action.table.name)
        case DropIndex():
            return str(action.index.name) not in await there.indexes(action.table.name)
        case AddConstraint() | RenameConstraint():
            return await there.has_constraint(action.table.name, action.constraint)
        case DropConstraint():
            return not await there.has_constraint(action.table.name, action.constraint)
        case CustomAction():
            return await action.in_effect(connection, kind)
    return None


class _Schema:
    """What is there now."""

    def __init__(self, connection: Connection, kind: str) -> None:
        self._connection = connection
        self._kind = kind

    async def has_table(self, table: str) -> bool:
        """Whether there is a table of that name."""
        if self._kind == "sqlite":
            found = sqlalchemy.table("sqlite_master", _column("name"), _column("type"))
            return bool(await self._names(found, found.c.name == table, found.c.type == "table"))
        return bool(await self._listed("tables", "table_name", table))

    async def columns(self, table: str) -> set[str]:
        """The names of the columns of a table."""
        if self._kind == "sqlite":
            return await self._pragma("table_xinfo", table)
        return await self._listed("columns", "column_name", table)

    async def indexes(self, table: str) -> set[str]:
        """The names of the indexes of a table."""
        if self._kind == "sqlite":
            return await self._pragma("index_list", table)
        if self._kind == "postgresql":
            found = sqlalchemy.table("pg_indexes", _column("indexname"), _column("tablename"), _column("schemaname"))
            return await self._names(
                found, found.c.tablename == table, found.c.schemaname == self._here(), name="indexname"
            )
        return await self._listed("statistics", "index_name", table)

    async def has_constraint(self, table: str, constraint: sqlalchemy.Constraint) -> bool:
        """Whether a table has a constraint, or the index that it is."""
        found = await self._constraints(table)
        if self._kind in ("mysql", "mariadb") and not isinstance(constraint, sqlalchemy.ForeignKeyConstraint):
            # The index of a foreign key may be called as the key, and stay without it.
            found |= await self.indexes(table)
        return str(constraint.name) in found

    async def _constraints(self, table: str) -> set[str]:
        if self._kind == "sqlite":
            # They stand in the text of the table alone, which is made anew as a whole.
            return set()
        if self._kind == "postgresql":
            kept = sqlalchemy.table("pg_constraint", _column("conname"), _column("conrelid"))
            relations = sqlalchemy.table("pg_class", _column("oid"), _column("relname"))
            wanted = sqlalchemy.select(kept.c.conname).where(
                kept.c.conrelid == relations.c.oid, relations.c.relname == table
            )
            return {str(row[0]) for row in await fetch(self._connection, self._kind, wanted)}
        return await self._listed("table_constraints", "constraint_name", table)

    async def _listed(self, view: str, name: str, table: str) -> set[str]:
        found = sqlalchemy.table(
            view, *map(_column, dict.fromkeys((name, "table_name", "table_schema"))), schema="information_schema"
        )
        return await self._names(found, found.c.table_name == table, found.c.table_schema == self._here(), name=name)

    async def _names(self, found: Any, *conditions: Any, name: str = "name") -> set[str]:
        wanted = sqlalchemy.select(found.c[name]).where(*conditions)
        return {str(row[0]) for row in await fetch(self._connection, self._kind, wanted)}

    async def _pragma(self, name: str, table: str) -> set[str]:
        function: Any = getattr(sqlalchemy.func, f"pragma_{name}")(table)
        found = function.table_valued(_column("name"))
        return {str(row[0]) for row in await fetch(self._connection, self._kind, sqlalchemy.select(found.c.name))}

    def _here(self) -> Any:
        return sqlalchemy.func.current_schema() if self._kind == "postgresql" else sqlalchemy.func.database()


def _column(name: str) -> Any:
    return sqlalchemy.column(name, sqlalchemy.String())
