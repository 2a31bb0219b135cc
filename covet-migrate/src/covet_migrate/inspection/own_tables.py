"""The tables of Covet itself, which no model has and no migration makes."""

from __future__ import annotations

from covet_orm import Database
from covet_orm.schema import OWN_TABLES as TABLES_OF_ORM

__all__ = ["OWN_TABLES", "own_tables"]

OWN_TABLES = frozenset(("covet_migrations", "covet_migrations_journal")) | TABLES_OF_ORM
"""Those of migrations, and those of covet-orm under their usual names."""


def own_tables(database: Database) -> frozenset[str]:
    """Those that may be in a database, under the names that its application gave them.

    Args:
        database: the database.
    """
    return OWN_TABLES | {store.table.name for store in database.store_tables.values()}
