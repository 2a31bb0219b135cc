"""`covet db outbox`."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure, aside, note, print_json, print_table
from covet.cli.targets import load_application
from covet_orm.commands.chosen import alias_argument, app_option, one_database, opened, run

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet_orm.databases import Database

__all__ = ["outbox"]


@command(
    "outbox",
    example="covet db outbox\ncovet db outbox --deliver --handlers app.messages:handlers\ncovet db outbox --requeue",
)
@alias_argument
@app_option
@click.option("--deliver", is_flag=True, help="Run a worker, until it is ended by Ctrl-C or SIGTERM.")
@click.option("--once", is_flag=True, help="Deliver what can be delivered now, and end.")
@click.option("--handlers", default="", metavar="MODULE:NAME", help="Functions by topic; those of the settings else.")
@click.option("--requeue", is_flag=True, help="Let the dead letters wait again.")
@click.option("--id", "numbers", type=int, multiple=True, help="Which ones; all of them by default.")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def outbox(
    alias: str | None,
    target: str | None,
    deliver: bool,
    once: bool,
    handlers: str,
    requeue: bool,
    numbers: tuple[int, ...],
    as_json: bool,
) -> None:
    """Show the messages of the outbox of a database, deliver them, or let dead ones be tried again.

    To deliver, the application is started, without a server.
    """
    if (deliver or once) and requeue:
        raise click.UsageError("--requeue does not deliver: type it first")
    if handlers and not (deliver or once):
        raise click.UsageError("--handlers is for --deliver, or --once")
    if numbers and not requeue:
        raise click.UsageError("--id is for --requeue")
    database = one_database(target, alias)
    if deliver or once:
        with aside():
            app = load_application(target)
        print_delivered(run(lambda: _deliver(app, database, handlers, once=once)), as_json=as_json)
        return
    if requeue:
        found = run(lambda: _requeue(database, numbers))
        print_json({"requeued": found}) if as_json else note(f"{found} dead letters wait again", label="Requeued")
        return
    told = run(lambda: _status(database))
    if as_json:
        print_json(told)
        return
    names = ("topic", "waiting", "held", "delivered", "dead")
    rows = [
        [*(str(one[name]) for name in names), "" if one["oldest"] is None else f"{one['oldest']:.0f} s"]
        for one in told["topics"]
    ]
    print_table([*names, "oldest"], rows)
    if told["dead_letters"]:
        letters = ("id", "topic", "key", "attempts", "error")
        print_table(list(letters), [[str(one[name] or "") for name in letters] for one in told["dead_letters"]])


def print_delivered(count: int, *, as_json: bool) -> None:
    """Tell how many messages were delivered."""
    if as_json:
        print_json({"delivered": count})
        return
    note(f"{count} messages", label="Delivered")


async def _status(database: Database) -> dict[str, Any]:
    from covet_orm.outbox import Outbox

    async with opened(database):
        found = Outbox(database)
        return {
            "topics": [one._asdict() for one in await found.status()],
            "dead_letters": [one._asdict() for one in await found.dead_letters()],
        }


async def _requeue(database: Database, numbers: tuple[int, ...]) -> int:
    from covet_orm.outbox import Outbox

    async with opened(database):
        return await Outbox(database).requeue(*numbers)


async def _deliver(app: Covet, database: Database, handlers: str, *, once: bool) -> int:
    from covet.exceptions import ConfigurationError
    from covet_orm.outbox import Outbox
    from covet_orm.outbox.serving import worker_of
    from covet_orm.outbox_settings import OutboxSettings
    from covet_orm.settings import OrmSettings

    settings = app.settings[OrmSettings].outbox.get(database.alias, OutboxSettings())
    if not handlers and not settings.handlers:
        raise Failure(
            "nobody says who gets the messages\n"
            f"  Give `--handlers module:name`, or add `handlers` to [plugins.orm.outbox.{database.alias}]."
        )
    try:
        worker = worker_of(Outbox(database), settings, handlers)
    except ConfigurationError as error:
        raise Failure(str(error)) from error
    async with app.running():
        if once:
            return await worker.drain()
        loop = asyncio.get_running_loop()
        ends = [signal.SIGINT, signal.SIGTERM] if sys.platform != "win32" else []
        for number in ends:
            loop.add_signal_handler(number, worker.stop)
        try:
            await worker.run()
        finally:
            for number in ends:
                loop.remove_signal_handler(number)
        return worker.delivered
