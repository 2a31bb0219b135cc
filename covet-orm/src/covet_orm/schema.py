"""Creating and dropping the tables of models, for tests and small programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy.engine.mock import MockConnection

from covet_orm.dialects import dialect_of
from covet_orm.models.registry import registry as default_registry

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.models.registry import Registry

__all__ = ["create_all", "drop_all", "statements", "table_names"]

TABLES = {
    "postgresql": "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = ANY (current_schemas(false))",
    "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()",
    "mariadb": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()",
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
}


async def table_names(database: Database) -> set[str]:
    """The names of the tables that are there."""
    return {row[0] for row in (await database.query(TABLES[database.kind])).rows}


async def create_all(database: Database, registry: Registry | None) -> list[str]:
    """Create the tables of the models that live in a database and are not there; their names."""
    await database.open()
    there = await table_names(database)
    tables = [table for table in _tables(database, registry) if table.name not in there]
    for statement in statements(database.kind, tables, create=True):
        await database.script(statement)
    return [table.name for table in tables]


async def drop_all(database: Database, registry: Registry | None) -> list[str]:
    """Drop the tables of the models that live in a database and are there; their names."""
    await database.open()
    there = await table_names(database)
    tables = [table for table in _tables(database, registry) if table.name in there]
    for statement in statements(database.kind, tables, create=False):
        await database.script(statement)
    return [table.name for table in tables]


def statements(kind: str, tables: Sequence[sqlalchemy.Table], *, create: bool) -> list[str]:
    """The DDL of tables, in an order that their foreign keys allow."""
    if not tables:
        return []
    found: list[str] = []
    dialect = dialect_of(kind)

    def collect(element: Any, *arguments: Any, **options: Any) -> None:
        found.append(str(element.compile(dialect=dialect)))

    connection = MockConnection(dialect, collect)
    metadata = tables[0].metadata
    act = metadata.create_all if create else metadata.drop_all
    act(connection, tables=list(tables), checkfirst=False)  # type: ignore[arg-type]
    return found


def _tables(database: Database, registry: Registry | None) -> list[sqlalchemy.Table]:
    """The tables of the managed models that live there: those that name its alias, or none."""
    chosen = registry if registry is not None else default_registry
    wanted = {
        model._meta.db_table
        for model in chosen
        if model._meta.managed and model._meta.database in (None, database.alias)
    }
    return [table for table in chosen.tables() if table.name in wanted]
