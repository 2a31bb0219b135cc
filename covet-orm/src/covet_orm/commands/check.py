"""`covet db check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from covet.cli.check import Found
from covet.cli.groups import command
from covet.cli.reporting import print_json, print_table
from covet_orm.commands.chosen import alias_argument, app_option, databases_and_routers, opened, run

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["check"]


@command(
    "check",
    example="covet db check\ncovet db check reports --json",
    exit_codes="Exit codes: 0 nothing is wrong (advice does not count), 1 a finding, 2 wrong usage.",
)
@alias_argument
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print an object: databases and findings.")
def check(alias: str | None, target: str | None, as_json: bool) -> None:
    """Find what is wrong with the databases: whether each can be reached, its version and role, its clock, the pool's
    settings, tables that are missing, settings that may lose data.
    """
    chosen, routers = databases_and_routers(target, alias)
    told, found = run(lambda: _everything(chosen), routers)
    if as_json:
        print_json({"databases": told, "findings": [one._asdict() for one in found]})
    else:
        print_table(
            ["database", "version", "role", "clock", "pool", "url"],
            [
                [one["alias"], one["version"] or "?", one["role"] or "?", _clock(one["clock"]), one["pool"], one["url"]]
                for one in told
            ],
        )
        click.echo()
        if found:
            print_table(["severity", "subject", "message"], found)
        else:
            click.echo("Nothing is wrong.")
    if any(one.severity != "advice" for one in found):
        raise click.exceptions.Exit(1)


async def _everything(chosen: list[Database]) -> tuple[list[dict[str, Any]], list[Found]]:
    told: list[dict[str, Any]] = []
    found: list[Found] = []
    for database in chosen:
        told.append(await _one(database, found))
    return told, found


async def _one(database: Database, found: list[Found]) -> dict[str, Any]:
    """What there is to tell of a database; what is wrong with it is added to the findings."""
    from covet_orm.commands.findings import examine
    from covet_orm.exceptions import OrmError
    from covet_orm.provisioning import UNKNOWN

    settings = database._pool_settings
    told: dict[str, Any] = {
        "alias": database.alias,
        "kind": database.kind,
        "url": database.url,
        "reachable": False,
        "version": "",
        "role": "",
        "clock": None,
        "pool": f"{settings.min_size} to {settings.max_size}",
    }
    subject = f"database {database.alias}"
    try:
        async with opened(database):
            told |= {"reachable": True, "kind": database.kind}
            facts, findings = await examine(database)
            told |= facts
            found += [Found(severity, subject, message) for severity, message in findings]
    except OrmError as error:
        hint = "; `covet db create` creates it" if getattr(error, "code", "") in UNKNOWN else ""
        found.append(Found("error", subject, f"{error}{hint}"))
    return told


def _clock(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds:+.1f} s"
