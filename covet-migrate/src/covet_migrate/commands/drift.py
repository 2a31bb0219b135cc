"""`covet migrations drift`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure, note, print_json
from covet_migrate.commands.project import app_option, database_option, failures, load_project, with_database
from covet_migrate.commands.writing import write_migrations

if TYPE_CHECKING:
    from collections.abc import Collection

    from covet_migrate.commands.project import Project
    from covet_migrate.inspection.drift import Drift
    from covet_migrate.migrations import Key
    from covet_orm import Database

__all__ = ["drift"]


@command(
    "drift",
    example="covet migrations drift\ncovet migrations drift blog --json\ncovet migrations drift blog --migration",
    exit_codes="Exits with 1 where something differs, and where something is wrong.",
)
@click.argument("apps", nargs=-1, metavar="[APP]...")
@app_option
@database_option
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
@click.option("--migration", "writes", is_flag=True, help="Write what mends it as a migration, where SQL can do it.")
def drift(apps: tuple[str, ...], target: str | None, alias: str | None, as_json: bool, writes: bool) -> None:
    """Show what is otherwise in a database than the migrations that it has make it.

    The server describes both, so that what it writes in other words is no difference; for that, the tables are made
    beside those that are there, empty, and thrown away. Tables that no migration knows are told, and are no difference.
    """
    project = load_project(target)
    project.check_apps(apps)

    async def work(database: Database) -> tuple[Drift, set[Key], tuple[int, ...], str]:
        from covet_migrate.execution.history import History
        from covet_migrate.execution.migrator import server_version
        from covet_migrate.inspection.drift import find_drift

        applied = {one.key for one in await History(database).read()}
        graph = project.files.graph(applied)
        state = graph.state(graph.applied)
        found = await find_drift(database, state, alias=database.alias, only=apps or None)
        return found, applied, await server_version(database), database.kind

    found, applied, version, kind = with_database(target, alias, work)
    if as_json:
        print_json(
            {
                "differences": [{**asdict(one), "told": str(one)} for one in found.differences],
                "unknown": found.unknown,
                "by_hand": [{"told": str(one), "why": why} for one, why in found.by_hand.items()],
            }
        )
    else:
        _tell(found, project, applied)
    if writes and found:
        with failures():
            _write(found, project, apps, kind, version)
    if found:
        count = len(found.differences)
        raise Failure(
            f"the database is not as the migrations make it: {count} difference{'s' if count > 1 else ''}"
            + ("" if writes else "\n  `--migration` writes what mends it as a migration, where SQL can do that.")
        )


def _tell(found: Drift, project: Project, applied: Collection[Key]) -> None:
    for line in found.told():
        click.echo(line)
    for one in found.unknown:
        note(f"no migration knows the {one}")
    if not applied:
        note("no migration is applied to this database, so there is nothing to compare; `covet migrate` applies them")
    elif not found:
        waiting = len(project.files.graph(applied)) - len(project.files.graph(applied).applied)
        click.echo(f"The database is as its migrations make it{f'; {waiting} are not applied' if waiting else ''}.")


def _write(found: Drift, project: Project, apps: Collection[str], kind: str, version: tuple[int, ...]) -> None:
    """Write the statements that mend a database as a migration of one application."""
    from covet_migrate.ddl import steps_of
    from covet_migrate.files.names import name_of
    from covet_migrate.migrations import Migration
    from covet_migrate.operations import RunSQL
    from covet_migrate.steps import Statement

    if len(apps) != 1 and len(project.locations) != 1:
        raise click.UsageError(
            "--migration needs to know whose migration it is: covet migrations drift APP --migration"
        )
    app = next(iter(apps or project.locations))
    steps = steps_of(found.actions, kind, version)
    if not all(isinstance(step, Statement) for step in steps):
        raise Failure(
            "this cannot be written as a migration: SQLite has to make a table anew for it, and SQL by hand would lose "
            "what refers to its rows\n  Change it back as it was changed, or take the change over into the models."
        )
    statements = [step for step in steps if isinstance(step, Statement)]
    for one, why in found.by_hand.items():
        note(f"{one}: no statement mends that, as {why}", label="By hand")
    if not statements:
        return
    graph = project.files.graph()
    graph.check_conflicts()
    leaves = graph.leaves(app)
    names = [name for owner, name in project.files.files if owner == app]
    together = all(step.transactional for step in statements)
    migration = Migration(
        operations=[
            RunSQL({kind: [step.sql for step in statements]}, {kind: RunSQL.noop}, transactional=together),
        ],
        dependencies=leaves,
        atomic=together,
        app=app,
        name=name_of([], names, given="drift"),
    )
    write_migrations(project, [migration], writes=True, prints=False)
    note(
        "it is for databases that drifted in the same way; `covet migrate "
        f"{app} {migration.name} --fake` takes it for done on those that did not"
    )
