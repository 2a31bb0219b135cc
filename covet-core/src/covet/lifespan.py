"""The phases of an application's life: start, ready, drain, stop.

Everything is entered in one order and left in the reverse, always, even when a later part fails to start:
storage, supervised tasks, plugins' lifespans in plugin order, the application's own, application-scoped dependencies,
mounted applications.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from covet.concurrency import in_thread, task_group
from covet.context import running
from covet.dependencies import Exits, ThreadGenerator, enter, leave
from covet.exceptions import ConfigurationError, PluginError
from covet.routing import Mount

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.signatures import Plan

__all__ = ["Drain", "mounted_lifespan", "run_application", "serve_lifespan"]

logger = logging.getLogger("covet.lifespan")


class Drain:
    """Tells open streams that the application is about to stop, so that they end well.

    Attributes:
        started: whether draining has begun.
    """

    def __init__(self) -> None:
        self.started = False
        self._event: anyio.Event | None = None

    async def wait(self) -> None:
        """Return when draining begins. Cancellation has no side effect."""
        if self._event is None:
            self._event = anyio.Event()
        if not self.started:
            await self._event.wait()

    def begin(self) -> None:
        """Wake whoever waits. Idempotent."""
        self.started = True
        if self._event is not None:
            self._event.set()


@asynccontextmanager
async def run_application(app: Covet) -> AsyncIterator[None]:
    """Start an application, and stop it on leaving.

    Raises:
        ConfigurationError: it cannot be built.
        Exception: what a part of it raised while starting; the parts that had started are stopped first.
    """
    await in_thread(app.build)
    token = running.set(app)
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(app.storage)
            await stack.enter_async_context(app.tasks.open())
            for contribution in app.plugins.call("covet_lifespan", app=app):
                try:
                    await stack.enter_async_context(contribution.value)
                except Exception as error:
                    raise PluginError(
                        f"plugin {contribution.plugin!r} failed to start: {type(error).__name__}: {error}"
                    ) from error
            for lifespan in app.lifespans:
                await stack.enter_async_context(lifespan(app))
            await stack.enter_async_context(_app_dependencies(app))
            for mount in app.routes:
                if isinstance(mount, Mount):
                    await stack.enter_async_context(mounted_lifespan(mount, app.mount_states))
            if app.hooks.ready is not None:
                await app.hooks.ready(app)
            app.drain = Drain()
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await begin_drain(app)
                    await app.tasks.drain(app.settings.server.shutdown_timeout)
    finally:
        running.reset(token)


async def begin_drain(app: Covet) -> None:
    """Enter the drain phase: open streams are told to end, plugins hear of it. Idempotent."""
    if app.drain.started:
        return
    app.drain.begin()
    if app.hooks.draining is not None:
        try:
            await app.hooks.draining(app)
        except Exception:
            logger.exception("the hook covet_draining failed; shutdown goes on")


@asynccontextmanager
async def _app_dependencies(app: Covet) -> AsyncIterator[None]:
    """Make the application-scoped dependencies of all handlers, each once; clean them up in reverse."""
    exits: Exits = []
    error: BaseException | None = None
    try:
        for plan in app.plans:
            await _make_app_values(app, plan, exits)
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        app.app_values.clear()
        with anyio.CancelScope(shield=True):
            try:
                await leave(exits, error)
            except BaseException as raised:
                if raised is not error:
                    raise


async def _make_app_values(app: Covet, plan: Plan, exits: Exits) -> None:
    for step in plan.steps:
        if step.scope != "app" or step.provider in app.app_values:
            continue
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for argument in step.arguments:
            value = app.app_values[plan.steps[argument.index].provider] if argument.kind == "step" else argument.value
            if argument.keyword:
                named[argument.name] = value
            else:
                positional.append(value)
        if step.call == "generator":
            value = await enter(exits, ThreadGenerator(step.provider(*positional, **named)))
        elif step.call == "async generator":
            value = await enter(exits, step.provider(*positional, **named))
        elif step.call == "coroutine":
            value = await step.provider(*positional, **named)
        elif step.call == "function" and step.thread:
            value = await in_thread(step.provider, *positional, **named)
        else:
            value = step.provider(*positional, **named)
        app.app_values[step.provider] = value


@asynccontextmanager
async def mounted_lifespan(mount: Mount, states: dict[str, dict[str, Any]]) -> AsyncIterator[None]:
    """Run the lifespan of a mounted ASGI application, which no server sees.

    An application that does not support the lifespan protocol is served without, as the ASGI specification asks of
    servers; one that says that its start-up failed stops the start.
    """
    state = states[mount.path] = {}
    started, stop, stopped = anyio.Event(), anyio.Event(), anyio.Event()
    failure: list[str] = []

    async def receive() -> dict[str, Any]:
        if not asked:
            asked.append(True)
            return {"type": "lifespan.startup"}
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        if message["type"].endswith(".failed"):
            failure.append(message.get("message", "") or "it gave no reason")
        (stopped if message["type"].startswith("lifespan.shutdown") else started).set()

    async def run() -> None:
        try:
            await mount.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}, receive, send)
        except Exception as error:
            if started.is_set():
                logger.exception("the mounted application %s failed in its lifespan", mount)
            else:
                logger.debug("%s does not support the lifespan protocol: %r", mount, error)
        finally:
            started.set()
            stopped.set()

    asked: list[bool] = []
    async with task_group() as group:
        group.start_soon(run)
        await started.wait()
        if failure:
            raise ConfigurationError(f"the application mounted at {mount.path or '/'!r} failed to start: {failure[0]}")
        try:
            yield
        finally:
            stop.set()
            with anyio.CancelScope(shield=True):
                await stopped.wait()


async def serve_lifespan(app: Covet, receive: Any, send: Any) -> None:
    """Speak the ASGI lifespan protocol for an application."""
    await receive()
    phase = "startup"
    try:
        async with run_application(app):
            await send({"type": "lifespan.startup.complete"})
            await receive()
            phase = "shutdown"
    except Exception as error:
        told = str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, ConfigurationError):
            logger.exception("the application failed in its %s", phase)
        await send({"type": f"lifespan.{phase}.failed", "message": told})
        return
    await send({"type": "lifespan.shutdown.complete"})
