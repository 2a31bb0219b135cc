"""Running migrations: what is to be done, who may do it, and what is known of how far it came."""

from covet_migrate.execution.events import Event
from covet_migrate.execution.history import Applied, History
from covet_migrate.execution.migrator import Migrator
from covet_migrate.execution.plan import MigrationFiles, Planned
from covet_migrate.execution.settings import Settings

__all__ = ["Applied", "Event", "History", "MigrationFiles", "Migrator", "Planned", "Settings"]
