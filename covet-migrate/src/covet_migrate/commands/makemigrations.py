"""`covet makemigrations`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure, note
from covet_migrate.commands.project import app_option, failures, load_project
from covet_migrate.commands.writing import write_migrations

if TYPE_CHECKING:
    from covet_migrate.changes.questions import Questions
    from covet_migrate.commands.project import Project
    from covet_migrate.migrations import Migration

__all__ = ["makemigrations"]

EXIT_CODES = "Exits with 1 where --check finds that migrations are missing, and where something is wrong."


@command(
    "makemigrations",
    example="covet makemigrations\ncovet makemigrations blog --name post_slug\ncovet makemigrations --check",
    exit_codes=EXIT_CODES,
)
@click.argument("apps", nargs=-1, metavar="[APP]...")
@app_option
@click.option("--name", metavar="NAME", help="What the file is called behind its number.")
@click.option("--empty", is_flag=True, help="Make a migration without operations, to write them by hand.")
@click.option("--merge", is_flag=True, help="Make a migration that depends on all that were made beside each other.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when something is missing.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print what would be written.")
@click.option("--safe", is_flag=True, help="Write what is done while others use the tables, in more migrations.")
@click.option("--no-input", is_flag=True, help="Ask nothing: nothing is renamed, and what needs an answer is an error.")
@click.option("--rename", "renames", multiple=True, metavar="OLD:NEW", help="app.Old:New, or app.Model.old:new.")
@click.option(
    "--default",
    "defaults",
    multiple=True,
    metavar="FIELD=VALUE",
    help="What rows get that are there: app.Model.field=0.",
)
@click.option(
    "--replace", "replaced", multiple=True, metavar="FIELD", help="app.Model.field may be removed and added anew."
)
def makemigrations(
    apps: tuple[str, ...],
    target: str | None,
    name: str | None,
    empty: bool,
    merge: bool,
    check: bool,
    dry_run: bool,
    safe: bool,
    no_input: bool,
    renames: tuple[str, ...],
    defaults: tuple[str, ...],
    replaced: tuple[str, ...],
) -> None:
    """Write what changed in the models into migrations.

    What the models are compared with is what the migrations make, whatever a database happens to hold. A field that is
    gone and one that has come may be one that was renamed: it is asked, and never guessed.
    """
    if empty and merge:
        raise click.UsageError("--empty and --merge are two ways of making a migration: choose one")
    from covet_migrate.changes.questions import Given, Unattended

    values = _values(defaults)
    project = load_project(target)
    project.check_apps(apps)
    if not project.locations:
        note("the application imports no models, so there is nothing to compare: import their modules where it is made")
    chosen = list(apps) or list(project.locations)
    with failures():
        if merge:
            migrations = _merged(project, chosen, name)
        elif empty:
            if not apps:
                raise click.UsageError("--empty needs to know of which applications: covet makemigrations APP --empty")
            migrations = _empty(project, chosen, name)
        else:
            asks = not (no_input or check) and sys.stdin.isatty()
            otherwise = _interactive() if asks else Unattended()
            questions = Given(renames=renames, defaults=values, replace=replaced, otherwise=otherwise)
            migrations = _changes(project, apps, name, questions, _kind(target) if safe else None)
            for option in getattr(otherwise, "denied", ()):
                note(f"nothing is taken for renamed; if it was, say {option}", label="Renamed?")
        if not migrations:
            click.echo("No changes." if not merge else "Nothing to merge.")
            return
        write_migrations(project, migrations, writes=not (check or dry_run), prints=dry_run)
        if not (check or dry_run):
            note("`covet migrate` applies it" if len(migrations) == 1 else "`covet migrate` applies them", label="Next")
    if check:
        raise Failure("the models and the migrations differ\n  `covet makemigrations` writes what is missing.")


def _kind(target: str | None) -> str:
    """The kind of database that safe migrations are for."""
    from covet_orm.commands.chosen import one_database

    return str(one_database(target, None).kind)


def _interactive() -> Questions:
    from covet_migrate.changes.interactive import Interactive

    return Interactive()


def _values(defaults: Sequence[str]) -> dict[str, str]:
    """What `--default` says, by field."""
    values: dict[str, str] = {}
    for one in defaults:
        field, separator, value = one.partition("=")
        if not separator or field.count(".") < 1:
            raise click.UsageError(f"--default {one!r}: it is app.Model.field=value")
        values[field] = value
    return values


def _changes(
    project: Project, apps: Sequence[str], name: str | None, questions: Questions, safe_for: str | None
) -> list[Migration]:
    from covet_migrate.changes.detector import detect
    from covet_migrate.changes.ordering import arrange
    from covet_migrate.files.names import name_of

    graph = project.files.graph()
    graph.check_conflicts()
    before = graph.state()
    changes = detect(before, project.state(), questions, apps or None)
    for lost in changes.losses:
        note(lost, label="Loses data")
    leaves = {key[0]: key for key in graph.leaves()}
    taken = _names(project)

    def named(app: str, operations: Sequence[object]) -> str:
        from typing import Any, cast

        names = taken.setdefault(app, [])
        made = name_of(cast("Sequence[Any]", operations), names, given=name, initial=app not in leaves and not names)
        names.append(made)
        return made

    made = arrange(changes, before, leaves, named)
    if safe_for is None:
        return made
    from covet_migrate.safety.rewriting import safe_migrations

    # They are more, so that they get other numbers.
    taken = _names(project)
    return safe_migrations(made, before, safe_for, named)


def _empty(project: Project, apps: Sequence[str], name: str | None) -> list[Migration]:
    from covet_migrate.files.names import name_of
    from covet_migrate.migrations import Migration

    graph = project.files.graph()
    graph.check_conflicts()
    leaves = {key[0]: key for key in graph.leaves()}
    taken = _names(project)
    return [
        Migration(
            dependencies=[leaves[app]] if app in leaves else [],
            app=app,
            name=name_of([], taken.get(app, []), given=name),
        )
        for app in apps
    ]


def _merged(project: Project, apps: Sequence[str], name: str | None) -> list[Migration]:
    from covet_migrate.files.names import name_of
    from covet_migrate.migrations import Migration

    taken = _names(project)
    return [
        Migration(dependencies=keys, app=app, name=name_of([], taken.get(app, []), given=name or "merge"))
        for app, keys in project.files.graph().conflicts().items()
        if app in apps
    ]


def _names(project: Project) -> dict[str, list[str]]:
    """The names of the files of each application."""
    names: dict[str, list[str]] = {}
    for app, name in project.files.files:
        names.setdefault(app, []).append(name)
    return names
