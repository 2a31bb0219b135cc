"""Migrations that stand in no files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

from covet_migrate.migrations import Key, Migration

__all__ = ["BEFORE", "TRIED", "MigrationsInMemory"]

BEFORE = "0001_before"
"""The name of the migration that comes before what is tried."""
TRIED = "0002_tried"
"""The name of the migration that is tried."""


class MigrationsInMemory:
    """Migrations for a `Migrator`, as the loader would find them in files:

        first = Migration([...], app="blog", name="0001_initial")
        await Migrator(database, MigrationsInMemory(first)).migrate()

    Args:
        migrations: in order, with `app` and `name`; none of them is squashed.
    """

    def __init__(self, *migrations: Migration) -> None:
        self.migrations = migrations

    def order(self, applied: Collection[Key], /) -> Sequence[Migration]:
        """The migrations, as they were given."""
        return self.migrations

    def parents(self, key: Key, /) -> Iterable[Key]:
        """The migrations that one says it depends on."""
        return next((one.dependencies for one in self.migrations if one.key == key), ())

    def checksum(self, key: Key, /) -> str:
        """A checksum of the name."""
        return blake2b(".".join(key).encode(), digest_size=16).hexdigest()

    def file(self, key: Key, /) -> str:
        """The application and the name."""
        return ".".join(key)
