"""`covet showmigrations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from covet.cli.groups import command
from covet.cli.reporting import print_json
from covet_migrate.commands.project import app_option, database_option, load_project, with_database

if TYPE_CHECKING:
    from covet_migrate.execution.migrator import Status
    from covet_orm import Database

__all__ = ["showmigrations"]


@command("showmigrations", example="covet showmigrations\ncovet showmigrations blog --json")
@click.argument("apps", nargs=-1, metavar="[APP]...")
@app_option
@database_option
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def showmigrations(apps: tuple[str, ...], target: str | None, alias: str | None, as_json: bool) -> None:
    """List the migrations of each application, and which of them a database has."""
    project = load_project(target)
    project.check_apps(apps)

    async def work(database: Database) -> list[Status]:
        from covet_migrate.execution.migrator import Migrator

        return await Migrator(database, project.files).status()

    found = [one for one in with_database(target, alias, work) if not apps or one.migration.app in apps]
    if as_json:
        print_json([_as_json(one) for one in found])
        return
    by_app: dict[str, list[Status]] = {app: [] for app in apps or project.locations}
    for one in found:
        by_app.setdefault(one.migration.app, []).append(one)
    for app, statuses in by_app.items():
        click.secho(app or "(no application)", bold=True)
        if not statuses:
            click.echo("  (no migrations)")
        for one in statuses:
            click.echo(f"  {_line(one)}")


def _line(status: Status) -> str:
    mark = "[!]" if status.under_way is not None else "[X]" if status.applied is not None else "[ ]"
    line = f"{mark} {status.migration.name}"
    if status.under_way is not None:
        return f"{line}  {status.under_way}"
    if status.applied is not None:
        faked = ", written down only" if status.applied.fake else ""
        return f"{line}  {status.applied.applied_at:%Y-%m-%d %H:%M} UTC, run {status.applied.batch}{faked}"
    return line


def _as_json(status: Status) -> dict[str, Any]:
    applied = status.applied
    return {
        "app": status.migration.app,
        "name": status.migration.name,
        "applied": applied is not None,
        "applied_at": None if applied is None else applied.applied_at.isoformat(),
        "applied_by": None if applied is None else applied.applied_by,
        "run": None if applied is None else applied.batch,
        "interrupted": None if status.under_way is None else str(status.under_way),
    }
