"""`covet db locks`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet.cli.reporting import note, print_json
from covet_orm.commands.chosen import alias_argument, app_option, one_database, opened, run

if TYPE_CHECKING:
    from covet_orm.commands.waits import Session
    from covet_orm.databases import Database

__all__ = ["locks"]

SHOWN = 100
"""How much of a statement is shown, in characters."""
SQLITE = (
    "SQLite has no server to ask: of all connections, of all processes, one writes at a time, and the others wait for "
    "up to their busy_timeout\n  Which processes have the file open, `fuser -v FILE` shows, or `lsof FILE`."
)


@command("locks", example="covet db locks\ncovet db locks reports --watch\ncovet db locks --json")
@alias_argument
@app_option
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    metavar="SECONDS",
    help="How often, with --watch; 2 seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, a line each time.")
def locks(alias: str | None, target: str | None, watch: bool, every: float, as_json: bool) -> None:
    """Show who waits for whom in a database: each connection that waits for a lock, below those that hold it.

    On MySQL and MariaDB the user needs the privilege PROCESS; on PostgreSQL the statements of other users are shown to
    superusers and members of pg_read_all_stats only.
    """
    database = one_database(target, alias)
    if database.kind == "sqlite":
        if as_json:
            print_json([])
        note(SQLITE)
        return
    try:
        run(lambda: _show(database, every if watch else None, as_json))
    except KeyboardInterrupt:
        # That is how watching ends.
        if not watch:
            raise


async def _show(database: Database, every: float | None, as_json: bool) -> None:
    from covet_orm.commands.waits import waits_of

    async with opened(database):
        while True:
            sessions = await waits_of(database)
            if as_json:
                told = [one._asdict() for one in sessions]
                if every is None:
                    print_json(told)
                else:
                    click.echo(json.dumps(told, ensure_ascii=False))
            else:
                if every is not None and sys.stdout.isatty():
                    click.clear()
                _print(sessions)
            if every is None:
                return
            sys.stdout.flush()
            await asyncio.sleep(every)


def _print(sessions: Sequence[Session]) -> None:
    from covet_orm.commands.waits import tree

    if not sessions:
        click.echo("Nobody waits for a lock.")
    for depth, session in tree(sessions):
        mark = f"{'   ' * (depth - 1)}└─ " if depth else ""
        click.echo(f"{mark}{_described(session)}")


def _described(session: Session) -> str:
    if not session.server_id:
        name = f": {session.statement}" if session.statement else ""
        return f"a prepared transaction (two-phase commit), which nobody has ended yet{name}"
    who = f"{session.server_id} {session.user}" + (f" ({session.application})" if session.application else "")
    if session.age is not None:
        who += f", {session.age:.1f} s"
    does = session.state
    if session.lock:
        of = f" of {session.table}" if session.table else ""
        waited = f" {session.waited:.1f} s" if session.waited is not None else ""
        does = f"waits{waited} for {session.lock}{of}, held by {', '.join(map(str, session.blocked_by))}"
    text = " ".join(session.statement.split())
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return ": ".join(part for part in (who, does, shown) if part)
