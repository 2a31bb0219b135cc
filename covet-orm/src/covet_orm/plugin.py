"""The plugin: what covet-orm adds to an application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from covet import hookimpl
from covet.storage import StorageBackend
from covet_orm.settings import MySQLSettings, PostgreSQLSettings, SQLiteSettings, options_of

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["covet_storage_backends"]


@hookimpl
def covet_storage_backends() -> Mapping[str, StorageBackend]:
    """The databases, by the schemes of their URLs."""
    mysql = StorageBackend(_database, MySQLSettings)
    postgresql = StorageBackend(_database, PostgreSQLSettings)
    return {
        "postgresql": postgresql,
        "postgres": postgresql,
        "mysql": mysql,
        "mariadb": mysql,
        "sqlite": StorageBackend(_database, SQLiteSettings),
    }


def _database(alias: str, settings: Any) -> Database:
    # SQLAlchemy takes half a second to import, which `covet plugins list` need not wait for.
    from covet_orm.databases import Database

    return Database(settings.url, alias=alias, **options_of(settings))
