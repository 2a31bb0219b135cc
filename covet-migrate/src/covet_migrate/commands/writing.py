"""Writing migrations where they belong, and telling so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from covet.cli.reporting import Failure

if TYPE_CHECKING:
    from covet_migrate.commands.project import Project
    from covet_migrate.migrations import Migration

__all__ = ["nearby", "write_migrations"]


def write_migrations(project: Project, migrations: Sequence[Migration], *, writes: bool, prints: bool) -> None:
    """Write migrations into their files: all of them, or none.

    Args:
        project: says where they belong.
        migrations: the migrations.
        writes: whether they are written, or only told of.
        prints: whether their text is printed.

    Raises:
        Failure: they are among the installed packages.
        NotSerializable: a value in one of them cannot be written.
        MigrationError: a file is there already, or cannot be written.
    """
    from covet_migrate.exceptions import MigrationError
    from covet_migrate.files.locations import make_package
    from covet_migrate.files.writer import source_of, write_migration

    sources = [source_of(one) for one in migrations]
    for location in [project.locations[app] for app in dict.fromkeys(one.app for one in migrations)]:
        if location.is_installed:
            raise Failure(
                f"the models of {location.app!r} changed, and its migrations are among the installed packages, in "
                f"{location.folder}\n  They are its author's to make; `[plugins.migrate] modules` gives it a package "
                "here."
            )
    written: list[Path] = []
    try:
        for one, source in zip(migrations, sources, strict=True) if writes else ():
            written.append(write_migration(one, make_package(project.locations[one.app]), source))
    except MigrationError:
        for path in written:
            path.unlink()
        raise
    for one, source in zip(migrations, sources, strict=True):
        location = project.locations[one.app]
        click.secho(f"{one.app or '(no application)'}: ", bold=True, nl=False)
        click.echo(nearby(location.folder / f"{one.name}.py"))
        for operation in one.operations:
            click.echo(f"  {operation.describe()}")
        if prints:
            click.echo(f"\n{source}")


def nearby(path: Path) -> str:
    """A path as people would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
