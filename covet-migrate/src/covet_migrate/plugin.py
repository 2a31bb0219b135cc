"""The plugin: what covet-migrate adds to an application. Its commands are entry points of their own."""

from __future__ import annotations

from covet import hookimpl
from covet_migrate.settings import MigrateSettings

__all__ = ["covet_settings"]


@hookimpl
def covet_settings() -> type:
    """The settings: where migrations are."""
    return MigrateSettings
