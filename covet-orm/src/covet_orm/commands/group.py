"""`covet db`."""

from __future__ import annotations

import click

from covet.cli.groups import Group

__all__ = ["db"]


@click.command(
    "db",
    cls=Group,
    example="covet db check\ncovet db create\ncovet db inspect users\ncovet db locks --watch\ncovet db shell",
    table={
        "2pc": ("covet_orm.commands.two_phase:two_phase", "Look after transactions in several databases."),
        "check": ("covet_orm.commands.check:check", "Find what is wrong with the databases."),
        "create": ("covet_orm.commands.create:create", "Create the databases and the tables of the models."),
        "inspect": ("covet_orm.commands.inspect:inspect", "Show the tables of a database, or what a table has."),
        "locks": ("covet_orm.commands.locks:locks", "Show who waits for whose locks."),
        "outbox": ("covet_orm.commands.outbox:outbox", "Show and deliver the messages of the outbox."),
        "shell": ("covet_orm.commands.shell:shell", "Open a database's own prompt."),
    },
)
def db() -> None:
    """Look after the databases of the application: the tables `[storage.ALIAS]` of the settings."""
