"""What a worker of `covet run` does: it loads the application, is pinned, ends well, and outlives nobody."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covet.cli.reporting import Failure
from covet.cli.serving import DRAINING, FAILED, UVICORN_PLAN, Plan

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["Loader", "uvicorn_application"]

logger = logging.getLogger("covet.cli")

UVICORN_STARTUP_FAILURE = 3


class Loader:
    """Gives a worker of granian its application. It can be pickled, for workers that are not forked."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self) -> Any:
        """Load the application."""
        # A forked worker has its parent's handlers until the server sets its own, which is after this. They would
        # swallow the signal to stop, and the parent would wait for a worker that never heard of it.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return load(self.plan)


def uvicorn_application() -> Any:
    """Give a worker of uvicorn its application; uvicorn starts workers by the name of this function."""
    # uvicorn has one level for all that it logs, and that is for the rest.
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    plan = Plan(**json.loads(os.environ[UVICORN_PLAN]))
    try:
        app = load(plan)
    except SystemExit:
        _tell_of_failure(plan)
        # Any other exit code would have uvicorn start the worker again, and again.
        sys.exit(UVICORN_STARTUP_FAILURE)
    if plan.workers == 1:
        return app

    def application(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "lifespan":
            return app(scope, receive, send)

        async def notice(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                _tell_of_failure(plan)
            await send(message)

        return app(scope, receive, notice)

    return application


def _tell_of_failure(plan: Plan) -> None:
    Path(plan.directory, FAILED).touch()


def load(plan: Plan) -> Any:
    """Pin the worker, import and build the application, configure logging.

    Raises:
        SystemExit: with 1, the application cannot be loaded; one message was printed.
    """
    from covet.cli.targets import load_application
    from covet.logging import configure

    core = None
    if plan.pin:
        from covet.cli.cores import pin_worker

        core = pin_worker(plan.directory, plan.workers)
    try:
        app = load_application(plan.target)
    except Failure as failure:
        failure.show()
        sys.exit(1)
    configure(app.settings.logging, debug=app.settings.app.debug)
    if core is not None:
        logger.info("worker %d runs on core %d", os.getpid(), core)
    if plan.server == "granian":
        app._lifespans.insert(0, end_requests(plan.drain_seconds + plan.shutdown_timeout))
        if plan.drain_seconds:
            app._lifespans.insert(0, drain_when_told(Path(plan.directory, DRAINING), plan.drain_seconds))
    watch_parent(plan.ends_in)
    return app


def end_requests(seconds: float) -> Callable[[Covet], AbstractAsyncContextManager[None]]:
    """A lifespan that lets no request keep a worker of granian from ending.

    granian waits for requests however long they take, and the application would be killed with them, its own parts not
    stopped. uvicorn cancels them itself.

    Args:
        seconds: what requests get to end once the application drains.
    """

    @asynccontextmanager
    async def around(app: Covet) -> AsyncIterator[None]:
        import anyio

        async def end() -> None:
            await app.drain.wait()
            await anyio.sleep(seconds)
            cancel_requests()

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            yield
            group.cancel_scope.cancel()

    return around


def drain_when_told(file: Path, seconds: float) -> Callable[[Covet], AbstractAsyncContextManager[None]]:
    """A lifespan that lets the application drain as soon as the process that started this worker says so.

    Args:
        file: by which it says so.
        seconds: until it tells the server, for the log.
    """

    @asynccontextmanager
    async def around(app: Covet) -> AsyncIterator[None]:
        import anyio

        from covet.lifespan import begin_drain

        async def drain() -> None:
            while not await anyio.Path(file).exists():  # noqa: ASYNC110 - another process makes it
                await anyio.sleep(0.1)
            logger.info("asked to stop: requests are served for %g seconds more", seconds)
            await begin_drain(app)

        async with anyio.create_task_group() as group:
            group.start_soon(drain)
            yield
            group.cancel_scope.cancel()

    return around


def cancel_requests() -> None:
    """Cancel the requests and WebSockets that granian's worker still serves."""
    import asyncio

    serving = [task for task in asyncio.all_tasks() if _is_of_granian(task.get_coro())]
    for task in serving:
        task.cancel()
    if serving:
        logger.warning("cancelled at shutdown: %d request%s", len(serving), "s" if len(serving) > 1 else "")


def _is_of_granian(coroutine: Any) -> bool:
    """Whether a task's coroutine is the one that granian serves a request in."""
    code = getattr(coroutine, "cr_code", None)
    return code is not None and code.co_name == "future_watcher"


def watch_parent(seconds: float) -> None:
    """Stop this worker when the process that started it is gone, however it went.

    Args:
        seconds: what the worker gets to end.
    """
    import multiprocessing
    import threading
    import time

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        # Forked workers hold each other's ends of the pipes that tell of the parent's death: so ask, too.
        while parent.is_alive() and os.getppid() == parent.pid:
            parent.join(1.0)
        logger.error("the process that started worker %d is gone; the worker stops", os.getpid())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, name="covet-parent", daemon=True).start()
