"""`covet db 2pc`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from covet.cli.groups import Group, command
from covet.cli.reporting import print_json, print_table
from covet_orm.commands.chosen import app_option, databases_of, run

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.transactions.distributed.recovery import InDoubt

__all__ = ["forget_mixed", "list_prepared", "recover_prepared", "two_phase"]

ENDED = ("committed", "rolled back")


@click.command(
    "2pc",
    cls=Group,
    example="covet db 2pc list\ncovet db 2pc recover",
    table={
        "forget": ("covet_orm.commands.two_phase:forget_mixed", "Forget a transaction that people have seen to."),
        "list": ("covet_orm.commands.two_phase:list_prepared", "Show what is prepared, and what was decided."),
        "recover": ("covet_orm.commands.two_phase:recover_prepared", "End what is prepared, as was decided."),
    },
)
def two_phase() -> None:
    """Look after transactions in several databases (`transaction_manager.distributed`)."""


@command("list", example="covet db 2pc list")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def list_prepared(target: str | None, as_json: bool) -> None:
    """Show the transactions of Covet that are prepared in the databases of the application, with their age in seconds
    and what the log says of them.
    """
    from covet_orm.transactions.distributed.recovery import in_doubt

    databases = databases_of(target)
    _show(run(lambda: in_doubt(*databases)), as_json)


@command(
    "recover",
    example="covet db 2pc recover\ncovet db 2pc recover --older-than 0",
    exit_codes="Exit codes: 0 all is ended or too young, 1 something is left that needs a look, 2 wrong usage.",
)
@app_option
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Abort what has no decision when it is older than that.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def recover_prepared(target: str | None, older_than: float, as_json: bool) -> None:
    """Commit what was decided to commit, roll back what was not, and show what is left.

    A transaction without a decision is aborted, and its coordinator, should it still live, can commit it no more.
    """
    databases = databases_of(target)
    found = run(lambda: _recover(databases, older_than))
    _show(found, as_json)
    if any(entry.state not in (*ENDED, "undecided") for entry in found):
        raise click.exceptions.Exit(1)


@command("forget", example="covet db 2pc forget 019ac3f2a1b07f4e5d6c8b9a0e1f2d3c")
@click.argument("transaction")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def forget_mixed(transaction: str, target: str | None, as_json: bool) -> None:
    """Remove a transaction that is listed as `mixed` from the log, and show it. Do so when its databases agree again:
    nothing else tells of it.

    A decision that is not `mixed` is not removed, since recovery may need it.
    """
    databases = databases_of(target)
    _show([run(lambda: _forget(transaction, databases))], as_json)
    if not as_json:
        click.echo("This is forgotten.")


async def _forget(transaction: str, databases: Sequence[Database]) -> InDoubt:
    from covet_orm.transactions.distributed.recovery import forget

    try:
        return await forget(transaction, *databases)
    finally:
        for database in databases:
            await database.close()


async def _recover(databases: Sequence[Database], older_than: float) -> list[InDoubt]:
    from covet_orm.transactions.distributed.recovery import recover

    try:
        return await recover(*databases, older_than=older_than)
    finally:
        for database in databases:
            await database.close()


def _show(found: Sequence[InDoubt], as_json: bool) -> None:
    if as_json:
        print_json([entry._asdict() for entry in found])
    elif found:
        print_table(
            ["database", "transaction", "application", "participant", "log", "age", "state"],
            [[*entry[:5], f"{entry.age:.0f}", entry.state] for entry in found],
        )
    else:
        click.echo("Nothing is prepared.")
