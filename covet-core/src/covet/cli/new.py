"""`covet new`."""

from __future__ import annotations

from pathlib import Path

import click

from covet.cli.groups import command
from covet.cli.scaffolding import Names, last_part, write_scaffold

__all__ = ["new"]


@command("new", example="covet new shop\ncd shop && covet run --reload")
@click.argument("path", metavar="NAME")
def new(path: str) -> None:
    """Write a new project: an application, its settings and its tests.

    NAME is the project's name, or a path whose last part is. The directory must not exist yet, or be empty.
    """
    target = Path(path)
    names = Names.of_project(last_part(path))
    written = write_scaffold("project", target, names)
    click.echo(f"Wrote {names.distribution}:")
    for file in written:
        click.echo(f"  {target / file}")
    click.echo(
        f"\nNext:\n  cd {target}\n  covet run --reload      # then open http://127.0.0.1:8000\n  python -m pytest"
    )
