"""`covet run`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import cast

import click

from covet.cli.groups import command
from covet.cli.reporting import colour
from covet.cli.targets import target_argument

__all__ = ["run"]


@command("run", example="covet run --reload\ncovet run shop.web:app --host 0.0.0.0 --workers 4 --pin")
@target_argument
@click.option("--host", metavar="ADDRESS", help="The address to listen on; by default 127.0.0.1, this machine only.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="The port to listen on; 8000 by default, 0 for any free one."
)
@click.option("--workers", type=click.IntRange(1, 1024), help="How many processes serve; 1 by default.")
@click.option("--server", type=click.Choice(["granian", "uvicorn"]), help="The server; granian by default.")
@click.option("--reload/--no-reload", default=None, help="Start the workers anew when a source file changes.")
@click.option("--debug/--no-debug", default=None, help="Show tracebacks in error pages; never in production.")
@click.option("--access-log/--no-access-log", default=None, help="Log every request.")
@click.option("--pin", is_flag=True, help="Pin each worker to a processor core of its own (Linux).")
def run(
    target: str | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    server: str | None,
    reload: bool | None,
    debug: bool | None,
    access_log: bool | None,
    pin: bool,
) -> None:
    """Serve the application until Ctrl-C.

    What the options leave open is in the settings, under [server]. The application is built before the server starts:
    what is wrong with it, or with a plugin, is told at once. Requests and
    open streams get `[server] shutdown_timeout` seconds to end, tasks get as long after them.
    """
    from covet.cli.cores import can_pin
    from covet.cli.serving import Plan, ServerName, free_port, prepare, require_server, serve
    from covet.logging import configure

    if pin and not can_pin():
        raise click.UsageError(f"--pin works on Linux, not on {sys.platform}")
    if debug is not None:
        # In the environment, where the workers' settings find it.
        os.environ["COVET_APP__DEBUG"] = "true" if debug else "false"
    prepared = prepare(target)
    settings = prepared.server
    reload = settings.reload if reload is None else reload
    workers = (1 if reload else settings.workers) if workers is None else workers
    if reload and workers > 1:
        raise click.UsageError("--reload is for development, with one worker; leave out --workers or --reload")
    host = settings.host if host is None else host
    server_name = cast("ServerName", settings.server if server is None else server)
    require_server(server_name, reload=reload)
    with ExitStack() as stack:
        plan = Plan(
            target=prepared.target,
            server=server_name,
            host=host,
            port=free_port(host, settings.port if port is None else port),
            workers=workers,
            reload=reload,
            access_log=settings.access_log if access_log is None else access_log,
            shutdown_timeout=settings.shutdown_timeout,
            drain_seconds=settings.drain_seconds,
            verbose=prepared.logging.level == "debug",
            pin=pin,
            directory=stack.enter_context(TemporaryDirectory(prefix="covet-run-")),
        )
        # The server's own records go to standard error with the application's.
        configure(prepared.logging, debug=prepared.debug)
        _announce(plan, prepared.debug)
        serve(plan)


def _announce(plan: object, debug: bool) -> None:
    from covet import __version__
    from covet.cli.serving import Plan

    assert isinstance(plan, Plan)
    how = [plan.server, f"{plan.workers} worker{'s' if plan.workers > 1 else ''}"]
    how += [word for word, on in (("pinned", plan.pin), ("reloading", plan.reload), ("debug", debug)) if on]
    click.secho(f"covet {__version__}", bold=True, nl=False, err=True, color=colour())
    click.echo(f" serves {plan.target} on {plan.url} ({', '.join(how)}); Ctrl-C stops it", err=True, color=colour())
