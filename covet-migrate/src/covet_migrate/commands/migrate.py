"""`covet migrate`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure, note
from covet_migrate.commands.project import app_option, database_option, failures, load_project, with_database

if TYPE_CHECKING:
    from covet_migrate.commands.progress import Shown
    from covet_migrate.commands.project import Project
    from covet_migrate.execution.migrator import Migrator
    from covet_migrate.execution.plan import Planned
    from covet_migrate.safety.findings import Finding
    from covet_orm import Database

__all__ = ["migrate"]

SHOWN = 10
"""How many findings are told of what is about to be done."""


@command(
    "migrate",
    example="covet migrate\ncovet migrate blog 0003\ncovet migrate --plan\ncovet migrate --rollback",
)
@click.argument("app", required=False, metavar="[APP]")
@click.argument("name", required=False, metavar="[NAME]")
@app_option
@database_option
@click.option("--plan", "only_plan", is_flag=True, help="Print what would be done, with its SQL, and do nothing.")
@click.option("--check", is_flag=True, help="Do nothing; exit with 1 when there is something to do.")
@click.option(
    "--rollback",
    is_flag=False,
    flag_value=1,
    type=click.IntRange(1),
    metavar="[N]",
    help="Undo the last N runs; 1, if not said.",
)
@click.option("--unwind", is_flag=True, help="Take back what is done of a migration that was interrupted.")
@click.option("--fake", is_flag=True, help="Write down that it is applied, and change nothing else.")
@click.option("--fake-initial", is_flag=True, help="As --fake for first migrations whose tables are there already.")
@click.option("--prune", is_flag=True, help="Forget applied migrations whose files are gone for good.")
@click.option(
    "--lock-timeout",
    type=float,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a statement waits for a lock.",
)
@click.option(
    "--wait",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for somebody else who migrates.",
)
@click.option("--yes", is_flag=True, help="Rows may be lost: ask nothing.")
def migrate(
    app: str | None,
    name: str | None,
    target: str | None,
    alias: str | None,
    only_plan: bool,
    check: bool,
    rollback: int | None,
    unwind: bool,
    fake: bool,
    fake_initial: bool,
    prune: bool,
    lock_timeout: float,
    wait: float,
    yes: bool,
) -> None:
    """Apply migrations to a database: all of them, those of an application, or up to one of them.

    A migration that was applied already, and those behind it, are taken back: `covet migrate blog 0003` goes to the
    third, from wherever the database is; `covet migrate blog zero` takes all of them back. Several processes may do
    this at once: one of them does it. Where rows would be lost, it is asked, or refused without --yes.
    """
    ways = [flag for flag, given in (("--rollback", rollback), ("--unwind", unwind), ("--prune", prune)) if given]
    if len(ways) > 1 or (ways and (app or fake_initial or only_plan or check)):
        raise click.UsageError(f"{ways[0]} is a thing by itself: leave out {(ways[1:] or ['the rest'])[0]}")
    project = load_project(target)
    if app is not None:
        project.check_apps([app])
    if not project.files.files:
        note("there are no migrations; `covet makemigrations` writes them")
    if not ways and name is None:
        with failures():
            project.files.graph().check_conflicts()

    async def work(database: Database) -> None:
        from covet_migrate.commands.progress import Shown
        from covet_migrate.execution.migrator import Migrator
        from covet_migrate.execution.settings import Settings

        settings = Settings(lock_timeout=lock_timeout, wait=wait)
        shown = Shown()
        migrator = Migrator(database, project.files, settings=settings, tell=shown)
        if not (ways or fake or check):
            # Before anything is done.
            planned = await migrator.plan(app, name)
            if planned:
                _print_findings(await migrator.findings(planned))
        with shown:
            if only_plan or check:
                await _plan(migrator, project, app, name, prints=only_plan, check=check)
            elif rollback:
                back = partial(migrator.rollback, rollback, fake=fake)
                _nothing(await _asked(back, shown, yes=yes), "Nothing to take back.")
            elif unwind:
                _nothing(await migrator.unwind(), "No migration was interrupted.")
            elif prune:
                gone = await migrator.prune()
                for key in gone:
                    click.echo(f"{key[0]}.{key[1]}  forgotten")
                _nothing(gone, "Every applied migration has its file.")
            else:
                forth = partial(migrator.migrate, app, name, fake=fake, fake_initial=fake_initial)
                done = await _asked(forth, shown, yes=yes)
                _nothing(done, "Nothing to do.")
                if fake_initial and done:
                    await _tell_others(database)

    with_database(target, alias, work, makes_file=not (only_plan or check))


async def _asked(work: Callable[..., Awaitable[list[Planned]]], shown: Shown, *, yes: bool) -> list[Planned]:
    """Do something; where rows would be lost, after somebody at a terminal has said yes to it.

    Raises:
        DataLoss: nobody has.
    """
    from covet_migrate.exceptions import DataLoss

    try:
        return await work(yes=yes)
    except DataLoss as error:
        with shown.aside():
            if not sys.stdin.isatty() or not click.confirm(f"{error}\nGo on, and let it go?", err=True):
                raise
        return await work(yes=True)


def _print_findings(found: Sequence[Finding]) -> None:
    """Print in short what is not safe in what is about to be done."""
    told = [one for one in found if str(one.severity) != "note"]
    # Several statements of one migration may be said the same of.
    lines = list(dict.fromkeys(f"{one.severity} {one.rule}: {one.what} ({one.where.migration})" for one in told))
    for line in lines[:SHOWN]:
        note(line, label="Lint")
    if told:
        more = f"and {len(lines) - SHOWN} more; " if len(lines) > SHOWN else ""
        app, _, name = told[0].where.migration.partition(".")
        only = f" {app} {name}" if len({one.where.migration for one in told}) == 1 else ""
        note(f"{more}`covet migrations lint{only}` says why, and what to do instead", label="Lint")


def _nothing(done: list[Any], text: str) -> None:
    if not done:
        click.echo(text)


async def _tell_others(database: Database) -> None:
    """Tell which other tools migrated a database before."""
    from covet_migrate.inspection.others import recorded_by_others
    from covet_orm.exceptions import DatabaseError

    try:
        recorded = await recorded_by_others(database)
    except DatabaseError:
        # A table of that name is another one: there is nothing to tell, and what was asked for is done.
        recorded = []
    for last in {one.tool: one for one in recorded}.values():
        note(f"another tool migrated this database before; what it recorded last is {last}")
    note("`covet migrations drift` says what is otherwise in the tables than the migrations make it")


async def _plan(
    migrator: Migrator, project: Project, app: str | None, name: str | None, *, prints: bool, check: bool
) -> None:
    """Print what would be done."""
    from covet_migrate.commands.sql import print_steps
    from covet_migrate.execution.migrator import server_version

    planned: list[Planned] = await migrator.plan(app, name)
    if not planned:
        click.echo("Nothing to do.")
        return
    version = await server_version(migrator.database)
    for one in planned:
        click.secho(str(one), bold=True)
        if prints:
            print_steps(project, one.migration, migrator.database, version, backward=one.backward)
    if check:
        raise Failure(f"{len(planned)} migrations are not applied\n  `covet migrate` applies them.")
