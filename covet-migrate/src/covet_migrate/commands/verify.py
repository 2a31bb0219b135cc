"""`covet migrations verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet_migrate.commands.project import app_option, database_option, load_project, with_database

if TYPE_CHECKING:
    from covet_migrate.migrations import Key
    from covet_orm import Database

__all__ = ["verify"]


@command(
    "verify",
    example="covet migrations verify\ncovet migrations verify blog --accept",
    exit_codes="Exits with 1 where an applied file was changed, or is gone, and where something is wrong.",
)
@click.argument("app", required=False, metavar="[APP]")
@app_option
@database_option
@click.option("--accept", is_flag=True, help="Take the files as they are now for those that were applied.")
def verify(app: str | None, target: str | None, alias: str | None, accept: bool) -> None:
    """See whether the migrations that a database has are those of the files: by their checksums.

    A checksum is of a file and of those before it, so that a file that was put in between is seen as well. `--accept`
    is for changes that change nothing, such as a comment; of one application, where APP is given.
    """
    project = load_project(target)
    if app is not None:
        project.check_apps([app])

    async def work(database: Database) -> list[Key] | int:
        from covet_migrate.execution.migrator import Migrator

        migrator = Migrator(database, project.files)
        if accept:
            return await migrator.accept(app)
        await migrator.verify()
        return sum(one.applied is not None for one in await migrator.status())

    found = with_database(target, alias, work)
    if isinstance(found, int):
        click.echo(f"{found} applied {'migration is as it was' if found == 1 else 'migrations are as they were'}.")
        return
    for key in found:
        click.echo(f"{'.'.join(filter(None, key))}  taken as it is now")
    if not found:
        click.echo("Every applied migration is as it was.")
