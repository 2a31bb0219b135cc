"""covet-migrate: schema migrations for covet-orm, safe on live tables.

Every public name of everyday use is here. Each is imported when it is first used: a command that needs none of them
does not wait for SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covet_migrate import operations
    from covet_migrate.exceptions import MigrationError
    from covet_migrate.execution.migrator import Migrator
    from covet_migrate.files.loader import load_files
    from covet_migrate.files.locations import locations_of
    from covet_migrate.migrations import Migration

__version__ = "0.1.0"
__all__ = ["Migration", "MigrationError", "Migrator", "load_files", "locations_of", "operations"]

_HOMES = {
    "Migration": "covet_migrate.migrations",
    "MigrationError": "covet_migrate.exceptions",
    "Migrator": "covet_migrate.execution.migrator",
    "load_files": "covet_migrate.files.loader",
    "locations_of": "covet_migrate.files.locations",
}


def __getattr__(name: str) -> object:
    if name == "operations":
        return import_module("covet_migrate.operations")
    if name not in _HOMES:
        raise AttributeError(f"module 'covet_migrate' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
