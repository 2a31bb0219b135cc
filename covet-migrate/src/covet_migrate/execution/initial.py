"""Whether the tables of the first migration of an application are there already."""

from __future__ import annotations

import sqlalchemy

from covet_migrate.exceptions import HistoryError
from covet_migrate.migrations import Migration
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer
from covet_orm import Database
from covet_orm.dialects import dialect_of
from covet_orm.schema import table_names

__all__ = ["is_there"]


async def is_there(database: Database, migration: Migration, before: State, renderer: Renderer) -> bool:
    """Whether all tables that a migration creates are there, with the columns that it gives them.

    Args:
        database: where.
        migration: the first of its application.
        before: the state before it.
        renderer: makes tables of models.

    Raises:
        HistoryError: some are there and others not, or with other columns.
    """
    after = migration.apply(before)
    wanted: list[sqlalchemy.Table] = []
    for label, model in after.models.items():
        here = model.managed and model.options.get("database") in (None, database.alias)
        if model.app == migration.app and label not in before and here:
            rendered = renderer.render(after, label)
            wanted += [rendered.table, *rendered.links.values()]
    there = await table_names(database)
    found = [table for table in wanted if table.name in there]
    if not found:
        return False
    differences = [f"the table {table.name} is missing" for table in wanted if table.name not in there]
    for table in found:
        columns = await _columns(database, table.name)
        given = {column.name for column in table.columns}
        differences += [f"{table.name} has no column {name}" for name in sorted(given - columns)]
        differences += [f"{table.name} has a column {name} more" for name in sorted(columns - given)]
    if differences:
        raise HistoryError(
            f"{migration} cannot be taken for done, as only a part of what it makes is there: "
            f"{'; '.join(differences)}. Make the tables what it says, or let `migrate {migration.app} {migration.name} "
            "--fake` take it for done as it is. Nothing was changed"
        )
    return True


async def _columns(database: Database, table: str) -> set[str]:
    quoted = dialect_of(database.kind).identifier_preparer.quote_identifier(table)
    async with database.connection() as connection:
        return set((await connection.query(f"SELECT * FROM {quoted} LIMIT 0")).columns)
