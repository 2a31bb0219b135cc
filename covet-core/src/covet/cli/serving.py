"""What `covet run` runs: the check before, and the servers. What each worker does is in `covet.cli.worker`.

The application is first built in a process of its own, so that whatever is wrong with it is told once and the server
never starts; and so that the process that starts the workers has none of it imported. Workers are forked on Linux: they
would inherit modules as they were when the server started, which reloading is to replace, and threads and connections
that the application's modules made, which do not survive a fork.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from covet.cli.reporting import Failure

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from covet.settings_sections import LoggingSettings, ServerSettings

__all__ = ["DRAINING", "FAILED", "UVICORN_PLAN", "Plan", "Prepared", "free_port", "prepare", "require_server", "serve"]

logger = logging.getLogger("covet.cli")

# How uvicorn's workers learn what they are to load.
UVICORN_PLAN = "COVET_RUN_PLAN"

# The file by which a worker tells that it could not start.
FAILED = "failed"

# The file by which the workers are told that they are about to stop.
DRAINING = "draining"

# Seconds that the process which checked the application gets to end.
CHILD_ENDS_IN = 2.0

ServerName = Literal["granian", "uvicorn"]


class Prepared(NamedTuple):
    """What the check before serving found the application to be."""

    target: str
    server: ServerSettings
    logging: LoggingSettings
    debug: bool


class Plan(NamedTuple):
    """How to serve: the settings with the command's options put over them.

    `directory` is one that the workers share, for what they have to tell each other and the process that started them.
    """

    target: str
    server: ServerName
    host: str
    port: int
    workers: int
    reload: bool
    access_log: bool
    shutdown_timeout: float
    drain_seconds: float
    verbose: bool
    pin: bool
    directory: str

    @property
    def ends_in(self) -> float:
        """Seconds after which a worker that was told to end is killed.

        Requests and streams have the time to end, tasks have it after them, and the rest of the application has some.
        """
        return 2 * self.shutdown_timeout + 5

    @property
    def url(self) -> str:
        """Where the application answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


# Before serving


def prepare(target: str | None) -> Prepared:
    """Build the application in a process of its own.

    Returns:
        Its settings.

    Raises:
        Failure: it cannot be built. The message is the child's, with the original traceback as its cause.
    """
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_prepare_here, args=(target, sender))
    child.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None
    except BaseException:
        child.kill()
        raise
    # What the application's modules have started, a thread for example, may not let the child end.
    child.join(CHILD_ENDS_IN)
    if child.is_alive():
        child.kill()
        child.join()
    if isinstance(answer, Prepared):
        return answer
    if answer is None:
        raise Failure(f"the application ended the process that checked it, with exit code {child.exitcode}")
    message, traceback, usage = answer
    if usage:
        import click

        raise click.UsageError(message)
    raise Failure(message) from _ChildError(f"\n{traceback}")


class _ChildError(Exception):
    """The traceback of an error in the process that checked the application, as text."""


def _prepare_here(target: str | None, sender: Connection) -> None:
    import signal

    import click

    from covet.cli.targets import load_application, settings_target

    # Ctrl-C reaches this process, too; the other one says what there is to say.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What is logged while the application is built, the workers log again.
    logging.disable(logging.CRITICAL)
    try:
        target = target if target is not None else settings_target()
        app = load_application(target)
        settings = app.settings
        sender.send(Prepared(target, settings.server, settings.logging, settings.app.debug))
    except click.ClickException as error:
        import traceback

        lines = "".join(traceback.format_exception(error.__cause__ or error))
        sender.send((error.message, lines, isinstance(error, click.UsageError)))
    finally:
        sender.close()


def require_server(server: ServerName, *, reload: bool) -> None:
    """Refuse to go on without what serves.

    Raises:
        Failure: the server is not installed, or what it reloads with is not.
    """
    extra = {"granian": "server", "uvicorn": "uvicorn"}[server]
    install = f"`pip install 'covet-core[{extra}]'`"
    if find_spec(server) is None:
        other = {"granian": "uvicorn", "uvicorn": "granian"}[server]
        instead = f", or use the other: `--server {other}`" if find_spec(other) is not None else ""
        raise Failure(f"{server} is not installed; install it with {install}{instead}")
    if reload and server == "granian" and find_spec("watchfiles") is None:
        raise Failure(f"--reload needs watchfiles, which is not installed; install it with {install}")


def free_port(host: str, port: int) -> int:
    """The port to listen on, which is free now; any free one for 0.

    granian shares ports, so that a second server on the same one would silently take half of the first's requests.

    Raises:
        Failure: another program listens there, or the address is not of this machine.
    """
    import socket

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        import errno

        if error.errno == errno.EADDRINUSE:
            told = (
                f"port {port} of {host} is in use; stop what listens there, or take another: "
                "`covet run --port 0` picks a free one"
            )
        elif error.errno == errno.EACCES:
            told = f"this user may not listen on port {port}; take one above 1023: `covet run --port 8000`"
        else:
            told = f"cannot listen on {host}, port {port}: {error.strerror or error}"
        raise Failure(told) from error


# The servers


def serve(plan: Plan) -> None:
    """Serve until told to stop.

    Raises:
        SystemExit: with 1, a worker could not start.
    """
    {"granian": _serve_with_granian, "uvicorn": _serve_with_uvicorn}[plan.server](plan)


def _serve_with_granian(plan: Plan) -> None:
    from math import ceil
    from time import monotonic

    from granian import Granian
    from granian.constants import Interfaces
    from granian.log import LogLevels

    from covet.cli.worker import Loader

    server = Granian(
        plan.target,
        address=plan.host,
        port=plan.port,
        interface=Interfaces.ASGI,
        workers=plan.workers,
        reload=plan.reload,
        reload_filter=_source_filter() if plan.reload else None,
        reload_ignore_worker_failure=True,
        respawn_failed_workers=True,
        workers_kill_timeout=ceil(plan.ends_in),
        log_access=plan.access_log,
        log_level=LogLevels.info if plan.verbose else LogLevels.warning,
        log_dictconfig={
            "handlers": {},
            "formatters": {},
            "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": True, "level": "INFO"}},
        },
    )

    @server.on_startup
    def count_the_start() -> None:
        # granian replaces a worker that dies, but not one that dies again within seconds. A worker that cannot even
        # start would be tried twice, and everything be told twice.
        server.respawned_wrks.update(dict.fromkeys(range(plan.workers), monotonic()))

    @server.on_reload
    def tell() -> None:
        logger.info("a source file has changed; the workers start anew")

    if plan.drain_seconds:
        _serve_on_after_signal(server, plan)
    server.serve(target_loader=Loader(plan), wrap_loader=False)


def _serve_on_after_signal(server: Any, plan: Plan) -> None:
    """Have granian hear of the first signal to stop when the workers have drained: it closes the port at once."""
    import threading

    stop = server.signal_handler_interrupt

    def stop_later(*args: Any) -> None:
        told = Path(plan.directory, DRAINING)
        if told.exists():
            stop(*args)
            return
        # Not with a signal, which nothing could hold back from a worker of granian's.
        told.touch()
        timer = threading.Timer(plan.drain_seconds, stop)
        timer.daemon = True
        timer.start()

    server.signal_handler_interrupt = stop_later


def _source_filter() -> Any:
    """What reloading watches: source and settings; not the logs and databases that lie beside them."""
    from watchfiles import PythonFilter

    class SourceFilter(PythonFilter):
        def __init__(self) -> None:
            super().__init__(extra_extensions=(".toml",))

    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    return SourceFilter


def _serve_with_uvicorn(plan: Plan) -> None:
    import signal
    from math import ceil

    import uvicorn

    def end(number: int, frame: object) -> None:
        sys.exit(0)

    # uvicorn sends itself the signal again that it has ended for.
    signal.signal(signal.SIGTERM, end)
    os.environ[UVICORN_PLAN] = json.dumps(plan._asdict())
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    try:
        uvicorn.run(
            "covet.cli.worker:uvicorn_application",
            factory=True,
            host=plan.host,
            port=plan.port,
            workers=plan.workers,
            reload=plan.reload,
            reload_includes=["*.toml"] if plan.reload and find_spec("watchfiles") else None,
            interface="asgi3",
            access_log=plan.access_log,
            log_config=None,
            log_level="info" if plan.verbose else "warning",
            lifespan="on",
            proxy_headers=False,
            timeout_graceful_shutdown=ceil(plan.shutdown_timeout),
        )
    except SystemExit as ended:
        # uvicorn has its own exit code for a failed start.
        sys.exit(1 if ended.code else 0)
    if plan.workers > 1 and os.path.exists(os.path.join(plan.directory, FAILED)):
        # For a failed start of several workers it has none.
        sys.exit(1)
