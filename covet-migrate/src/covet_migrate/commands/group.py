"""`covet migrations`."""

from __future__ import annotations

import click

from covet.cli.groups import Group

__all__ = ["migrations"]


@click.command(
    "migrations",
    cls=Group,
    example="covet migrations lint\ncovet migrations drift\ncovet migrations verify\ncovet migrations graph blog",
    table={
        "drift": ("covet_migrate.commands.drift:drift", "Show what is otherwise in a database than migrations say."),
        "graph": ("covet_migrate.commands.graph:graph", "Draw the migrations, and what depends on what."),
        "lint": ("covet_migrate.commands.lint:lint", "Find what is unsafe on a live database."),
        "verify": ("covet_migrate.commands.verify:verify", "See whether applied files are as they were."),
    },
)
def migrations() -> None:
    """Look into migrations, and into what became of them in a database."""
