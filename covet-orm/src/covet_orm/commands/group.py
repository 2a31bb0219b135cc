"""`covet db`."""

from __future__ import annotations

import click

from covet.cli.groups import Group

__all__ = ["db"]


@click.command(
    "db",
    cls=Group,
    example="covet db check\ncovet db create\ncovet db inspect users\ncovet db shell",
    table={
        "check": ("covet_orm.commands.check:check", "Find what is wrong with the databases."),
        "create": ("covet_orm.commands.create:create", "Create the databases and the tables of the models."),
        "inspect": ("covet_orm.commands.inspect:inspect", "Show the tables of a database, or what a table has."),
        "shell": ("covet_orm.commands.shell:shell", "Open a database's own prompt."),
    },
)
def db() -> None:
    """Look after the databases of the application: the tables `[storage.ALIAS]` of the settings."""
