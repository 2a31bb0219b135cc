"""The phases of an application's life: start, ready, drain, stop.

Everything is entered in one order and left in the reverse, always, even when a later part fails to start:
storage, supervised tasks, plugins' lifespans in plugin order, the application's own, application-scoped dependencies,
mounted applications.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio

from covet.concurrency import in_thread, task_group
from covet.context import running
from covet.dependencies import Exits, ThreadGenerator, enter, leave
from covet.exceptions import ConfigurationError, PluginError
from covet.routing import Mount

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.hooks import Contribution
    from covet.signatures import Plan

__all__ = ["Drain", "begin_drain", "mounted_lifespan", "on_stop_signal", "run_application", "serve_lifespan"]

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

    Each part stops as it would at any shutdown, whatever happens to another: it does not see the error of another part,
    nor that of whoever runs the application.

    Raises:
        ConfigurationError: it cannot be built.
        CovetError: it is running already.
        Exception: what a part of it raised while starting or stopping; the parts that had started are stopped first.
    """
    await in_thread(app.build)
    app.tasks.require_idle()
    timeout = app.settings.server.shutdown_timeout
    token = running.set(app)
    try:
        async with AsyncExitStack() as stack:
            if any(secret.lease is not None for secret in app.settings.secrets()):
                from covet.rotation import rotation

                await stack.enter_async_context(rotation(app))
            await stack.enter_async_context(app.storage)
            await stack.enter_async_context(app.tasks.open(timeout))
            # Before any part starts: what they start may wait for it.
            app.drain = Drain()
            for contribution in app.plugins.call("covet_lifespan", app=app):
                await stack.enter_async_context(_PluginPart(contribution))
            for lifespan in app.lifespans:
                await stack.enter_async_context(_Apart(lifespan(app)))
            await stack.enter_async_context(_app_dependencies(app))
            await _start_mounted(app, stack, timeout)
            _tell_of_plugins(app)
            if app.hooks.ready is not None:
                await app.hooks.ready(app)
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await begin_drain(app)
                    await app.tasks.drain(timeout)
    finally:
        running.reset(token)


class _Apart:
    """A part's context manager that hears nothing of errors that are not its own, so that it just stops.

    Code behind a `yield` without `finally` runs then as well, and no part can swallow the error of another. It does
    hear of cancellation: a cancelled task has to end.
    """

    def __init__(self, part: AbstractAsyncContextManager[Any]) -> None:
        self._part = part

    async def __aenter__(self) -> Any:
        return await self._part.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            await self._part.__aexit__(None, None, None)
        else:
            await self._part.__aexit__(kind, error, traceback)


class _PluginPart(_Apart):
    """The lifespan of a plugin, whose failure to start names the plugin."""

    def __init__(self, contribution: Contribution) -> None:
        if not isinstance(contribution.value, AbstractAsyncContextManager):
            raise PluginError(
                f"plugin {contribution.plugin!r}: covet_lifespan returned {contribution.value!r}, which is no "
                "asynchronous context manager; mark the function with contextlib.asynccontextmanager"
            )
        super().__init__(contribution.value)
        self._plugin = contribution.plugin

    async def __aenter__(self) -> Any:
        try:
            return await super().__aenter__()
        except Exception as error:
            logger.exception("plugin %r failed to start", self._plugin)
            raise PluginError(f"plugin {self._plugin!r} failed to start: {type(error).__name__}: {error}") from error


def _tell_of_plugins(app: Covet) -> None:
    if not app.listening:
        return
    from covet.events import PluginLoaded

    for record in app.plugins.records.values():
        if record.usable:
            app.emit(PluginLoaded(record.name, record.version, record.distribution, record.import_seconds))


async def begin_drain(app: Covet) -> None:
    """Enter the drain phase: open streams are told to end, plugins hear of it. Idempotent."""
    if app.drain.started:
        return
    app.drain.begin()
    if app.hooks.draining is None:
        return
    timeout = app.settings.server.shutdown_timeout
    with anyio.move_on_after(timeout) as scope:
        try:
            await app.hooks.draining(app)
        except Exception:
            logger.exception("the hook covet_draining failed; shutdown goes on")
    if scope.cancelled_caught:
        logger.warning("the hook covet_draining took longer than %.1f seconds; shutdown goes on", timeout)


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


async def _start_mounted(app: Covet, stack: AsyncExitStack, timeout: float) -> None:
    """Start the mounted applications, each once, however often it is mounted."""
    first: dict[int, str] = {}
    for mount in app.routes:
        if not isinstance(mount, Mount):
            continue
        if (path := first.setdefault(id(mount.app), mount.path)) != mount.path:
            app.mount_states[mount.path] = app.mount_states[path]
        else:
            await stack.enter_async_context(_Apart(mounted_lifespan(mount, app.mount_states, timeout)))


@asynccontextmanager
async def mounted_lifespan(
    mount: Mount, states: dict[str, dict[str, Any]], timeout: float = 30.0
) -> AsyncIterator[None]:
    """Run the lifespan of a mounted ASGI application, which no server sees.

    An application that does not support the lifespan protocol is served without, as the ASGI specification asks of
    servers; one that says that its start-up failed stops the start. One that has not stopped `timeout` seconds after it
    was asked to is cancelled.

    Raises:
        ConfigurationError: its start-up failed.
    """
    state = states[mount.path] = {}
    life = _MountedLife(mount, state)
    async with task_group() as group:
        group.start_soon(life.run)
        await life.started.wait()
        if life.failure is not None:
            raise ConfigurationError(f"the application mounted at {life.where} failed to start: {life.failure}")
        try:
            yield
        finally:
            life.stop.set()
            with anyio.move_on_after(timeout, shield=True) as scope:
                await life.ended.wait()
            if scope.cancelled_caught:
                logger.warning("the application mounted at %s did not stop within %.1f seconds", life.where, timeout)
                group.cancel_scope.cancel()


class _MountedLife:
    """The server's side of the lifespan protocol, for one mounted application."""

    def __init__(self, mount: Mount, state: dict[str, Any]) -> None:
        self.mount = mount
        self.state = state
        self.where = repr(mount.path or "/")
        self.started, self.stop, self.ended = anyio.Event(), anyio.Event(), anyio.Event()
        self.failure: str | None = None
        self.asked = False

    async def receive(self) -> dict[str, Any]:
        if not self.asked:
            self.asked = True
            return {"type": "lifespan.startup"}
        await self.stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Any) -> None:
        type_ = message["type"]
        if type_ == "lifespan.startup.failed":
            self.failure = message.get("message", "") or "it gave no reason"
        elif type_ == "lifespan.shutdown.failed":
            logger.error("the application mounted at %s failed to stop: %s", self.where, message.get("message", ""))
        (self.ended if type_.startswith("lifespan.shutdown") else self.started).set()

    async def run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self.mount.app(scope, self.receive, self.send)
        except Exception as error:
            if self.started.is_set():
                logger.exception("the application mounted at %s failed in its lifespan", self.where)
            elif self.asked:
                # It may have tried to start, or have taken this for a request: the specification leaves no difference.
                logger.warning(
                    "the application mounted at %s raised an error when it was to start, and is served all the same",
                    self.where,
                    exc_info=error,
                )
            else:
                logger.debug("the application mounted at %s has no lifespan: %r", self.where, error)
        finally:
            self.started.set()
            self.ended.set()


async def serve_lifespan(app: Covet, receive: Any, send: Any) -> None:
    """Speak the ASGI lifespan protocol for an application.

    Draining begins with the signal that stops the server, not with the message: servers wait for open connections
    before they send it, and streams that end only when draining begins would hold up both.
    """
    await receive()
    phase = "startup"
    try:
        async with run_application(app):
            await send({"type": "lifespan.startup.complete"})
            phase = "shutdown"
            seconds = app.settings.server.drain_seconds
            held: list[Callable[[], object]] = []
            async with task_group() as group:
                with on_stop_signal(held if seconds else None) as signalled:
                    group.start_soon(_drain_early, app, signalled, seconds, held)
                    await receive()
                group.cancel_scope.cancel()
    except Exception as error:
        told = str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, ConfigurationError):
            logger.exception("the application failed in its %s", phase)
        await send({"type": f"lifespan.{phase}.failed", "message": told})
        return
    await send({"type": "lifespan.shutdown.complete"})


async def _drain_early(app: Covet, signalled: anyio.Event, seconds: float, held: list[Callable[[], object]]) -> None:
    await signalled.wait()
    # Who started this process may have waited already.
    if app.drain.started:
        seconds = 0.0
    # The server may ask for the shutdown before the plugins have done with this.
    with anyio.CancelScope(shield=True):
        await begin_drain(app)
    if seconds:
        logger.info("asked to stop: requests are served for %g seconds more", seconds)
        await anyio.sleep(seconds)
    while held:
        held.pop()()


@contextmanager
def on_stop_signal(held: list[Callable[[], object]] | None = None) -> Iterator[anyio.Event]:
    """An event that is set when the process is asked to stop (SIGINT, SIGTERM), in the current event loop.

    The handlers that the server has installed are called as ever. Where signals cannot be heard of, outside of the main
    thread, or where nobody handles them, the event is never set.

    Args:
        held: where there is a list, what tells the server of the first signal of a kind is put into it, to be called
            later. The second one is heard of at once, and empties the list.
    """
    event = anyio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    wake = _waker(event)
    chained: list[tuple[signal.Signals, Any, Any]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        previous = signal.getsignal(number)
        if callable(previous):
            handler = _chained(previous, wake, held)
            signal.signal(number, handler)
            chained.append((number, previous, handler))
    try:
        yield event
    finally:
        for number, previous, handler in chained:
            # A handler that was installed meanwhile stays.
            if signal.getsignal(number) is handler:
                signal.signal(number, previous)


def _chained(
    previous: Callable[[int, Any], Any], wake: Callable[[], None], held: list[Callable[[], object]] | None
) -> Callable[[int, Any], None]:
    first = True

    def handle(number: int, frame: Any) -> None:
        nonlocal first
        wake()
        if held is not None and first:
            held.append(partial(previous, number, None))
        else:
            if held:
                held.clear()
            previous(number, frame)
        first = False

    return handle


def _waker(event: anyio.Event) -> Callable[[], None]:
    """A function that sets an event of this event loop from a signal handler."""
    token = _trio_token()
    if token is not None:
        return lambda: token.run_sync_soon(event.set)
    import asyncio

    loop = asyncio.get_running_loop()

    def wake() -> None:
        loop.call_soon_threadsafe(event.set)

    return wake


def _trio_token() -> Any:
    if "trio" not in sys.modules:
        return None
    from trio.lowlevel import current_trio_token

    try:
        return current_trio_token()
    except RuntimeError:
        # trio is imported, and another event loop runs here.
        return None
