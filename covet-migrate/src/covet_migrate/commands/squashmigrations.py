"""`covet squashmigrations`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet.cli.reporting import note
from covet_migrate.commands.project import app_option, failures, load_project
from covet_migrate.commands.writing import write_migrations

if TYPE_CHECKING:
    from covet_migrate.files.squashing import Squashed
    from covet_migrate.migrations import Key, Migration

__all__ = ["squashmigrations"]


@command(
    "squashmigrations",
    example="covet squashmigrations blog 0004\ncovet squashmigrations blog 0002 0004 --name posts --dry-run",
)
@click.argument("app", metavar="APP")
@click.argument("first", metavar="[FROM]", required=False)
@click.argument("last", metavar="TO", required=False)
@app_option
@click.option("--name", metavar="NAME", help="What the file is called behind its number.")
@click.option("--no-optimize", is_flag=True, help="Keep every operation as it is.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print what would be written.")
def squashmigrations(
    app: str,
    first: str | None,
    last: str | None,
    target: str | None,
    name: str | None,
    no_optimize: bool,
    dry_run: bool,
) -> None:
    """Write one migration in the place of several.

    It replaces those up to TO, from FROM or from the first one. A database that has none of them gets it alone; one
    that has some of them gets the rest of them first. Delete their files, and `replaces` in the new one, when every
    database has it.
    """
    from covet_migrate.files.squashing import chosen, squash

    if first is None:
        raise click.UsageError(f"which migrations? `covet squashmigrations {app} TO` squashes all up to that one")
    first, last = (first, last) if last is not None else (None, first)
    project = load_project(target)
    project.check_apps([app])
    with failures():
        graph = project.files.graph()
        keys = chosen(graph, app, first, last)
        made, parts = squash(graph, keys, lambda members: _name(members, name), optimized=not no_optimize)
        if len(parts) > 1:
            _tell_parts(parts)
        if not made:
            click.echo("Nothing is squashed: between any two of them, migrations of other applications come.")
            return
        write_migrations(project, [one.migration for one in made], writes=not dry_run, prints=dry_run)
    for one in made:
        _tell(one)
    if not dry_run:
        click.echo(
            "Run `covet migrate` on every database; then delete the files that are replaced, and take `replaces` out "
            f"of the new {'one' if len(made) == 1 else 'ones'}."
        )


def _name(members: Sequence[Migration], given: str | None) -> str:
    """`0001_squashed_0004_slug`, or the name that was given behind the number of the first one."""
    from covet_migrate.files.names import LONGEST_GIVEN, check_name

    number = members[0].name.partition("_")[0]
    if not number.isdecimal():
        number = "0001"
    if given is not None:
        return f"{number}_{check_name(given)}"
    return f"{number}_squashed_{members[-1].name}"[:LONGEST_GIVEN]


def _tell_parts(parts: Sequence[Sequence[Key]]) -> None:
    told = [f"{part[0][1]} to {part[-1][1]}" if len(part) > 1 else f"{part[0][1]} (stays)" for part in parts]
    note(f"migrations of other applications come in between, so these are squashed apart: {', '.join(told)}")


def _tell(squashed: Squashed) -> None:
    migration = squashed.migration
    left = len(migration.operations)
    click.echo(f"{squashed.before} operations became {left}.")
    for operation in squashed.elided:
        click.echo(f"  left out, as it is elidable: {operation.describe()}")
    if squashed.kept:
        for operation in squashed.kept:
            click.echo(f"  kept: {operation.describe()}")
        click.echo(
            "  What stands before such an operation is not reduced with what stands behind it; `elidable=True` lets it "
            "go."
        )
    if not migration.atomic:
        click.echo("  It has `atomic=False`, as one that it replaces has.")
