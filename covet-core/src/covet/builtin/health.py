"""The builtin plugin `health`: `/health/live` and `/health/ready`, for whoever starts, stops and routes to processes.

Live is a process that answers; nothing else is asked, since restarting it mends no database. Ready is one that has
started, does not drain, and whose critical checks succeed: those of the hook `covet_health_checks` and every storage's.

The checks run all at once, and at most once within `cache_seconds` however many probes there are. They run in a task of
their own, so that a prober that leaves takes them from nobody. What changes is logged, not each probe.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
from msgspec import Meta, Struct

from covet.annotations import is_coroutine
from covet.collisions import settle
from covet.health import HealthCheck
from covet.hooks import hookimpl
from covet.responses import JSONResponse, Response
from covet.routing import Route
from covet.settings_schema import without_password

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["Health", "HealthSettings", "covet_ready", "covet_routes", "covet_settings"]

logger = logging.getLogger("covet.health")

# Seconds beyond a check's own time limit after which its result is not waited for, should it resist cancellation.
PATIENCE = 0.5
NO_STORE = {"cache-control": "no-store"}

Outcome = Literal["ok", "failed", "timeout"]


class HealthSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.health]`: what probes are told."""

    live: Annotated[str, Meta(description="Where it is told that the process answers; empty for nowhere.")] = (
        "/health/live"
    )
    ready: Annotated[str, Meta(description="Where it is told that requests are welcome; empty for nowhere.")] = (
        "/health/ready"
    )
    details: Annotated[
        Literal["none", "checks", "errors"],
        Meta(
            description="What everybody who asks is told: the status alone; that of each check, too; or also the "
            "errors, which may hold what strangers should not read."
        ),
    ] = "checks"
    cache_seconds: Annotated[float, Meta(ge=0, description="Seconds for which the results of the checks are kept.")] = (
        1.0
    )
    storage_timeout: Annotated[
        float, Meta(gt=0, description="Seconds after which the check of a storage counts as failed.")
    ] = 5.0

    def __post_init__(self) -> None:
        for name, value in (("live", self.live), ("ready", self.ready)):
            if value and (not value.startswith("/") or "{" in value):
                raise ValueError(
                    f"{name} is empty, or a path without parameters such as '/health/{name}', not {value!r}"
                )


class Result:
    """How a check ended."""

    __slots__ = ("error", "outcome", "seconds")

    def __init__(self, outcome: Outcome, seconds: float, error: str = "") -> None:
        self.outcome = outcome
        self.seconds = seconds
        self.error = error


class Flight:
    """One run of all checks, which any number of probes wait for."""

    def __init__(self, names: Iterable[str]) -> None:
        self.results: dict[str, Result | None] = dict.fromkeys(names)
        self.done = anyio.Event()


class Health:
    """The checks of an application, and what probes are told. In `app.state`.

    Args:
        app: the application; its plugins are loaded.
        settings: what probes are told.

    Raises:
        PluginError: two plugins claim a check's name, or one is no `HealthCheck`.
    """

    def __init__(self, app: Covet, settings: HealthSettings) -> None:
        self._app = app
        self._settings = settings
        self._checks = _collect(app, settings)
        self._failing: dict[str, bool] = {}
        self._flight: Flight | None = None
        self._kept: dict[str, Result] = {}
        self._kept_until = 0.0
        self._drain: object = None
        # Checks that run, perhaps longer than they may: they are not called again before they have ended.
        self._busy: set[str] = set()

    @property
    def names(self) -> list[str]:
        """The names of the checks."""
        return list(self._checks)

    def started(self) -> None:
        """Note that everything has started."""
        # A run of the application has a drain of its own, so that this ends with the run.
        self._drain = self._app.drain
        self._flight, self._kept, self._kept_until = None, {}, 0.0

    async def live(self) -> Response:
        """The answer that the process lives."""
        return JSONResponse({"status": "alive"}, headers=NO_STORE)

    async def ready(self) -> Response:
        """The answer whether the application wants requests: 200 or 503."""
        if self._app.drain.started:
            return self._answer("draining", {})
        if self._drain is not self._app.drain or not self._app.tasks.running:
            return self._answer("starting", {})
        results = await self._results()
        if self._app.drain.started:
            return self._answer("draining", {})
        good = all(each.outcome == "ok" for name, each in results.items() if self._checks[name].critical)
        return self._answer("ready" if good else "not ready", results)

    def _answer(self, status: str, results: dict[str, Result]) -> Response:
        document: dict[str, Any] = {"status": status}
        if self._settings.details != "none" and results:
            document["checks"] = {name: self._entry(name, result) for name, result in results.items()}
        return JSONResponse(document, 200 if status == "ready" else 503, headers=NO_STORE)

    def _entry(self, name: str, result: Result) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "status": result.outcome,
            "seconds": round(result.seconds, 4),
            "critical": self._checks[name].critical,
        }
        if self._settings.details == "errors" and result.error:
            entry["error"] = result.error
        return entry

    async def _results(self) -> dict[str, Result]:
        """The results of a run that has just ended, or of the one that is under way."""
        if not self._checks or anyio.current_time() < self._kept_until:
            return self._kept
        flight = self._flight
        if flight is None:
            flight = self._flight = Flight(self._checks)
            self._app.tasks.start_soon(self._fly, flight, name="health checks")
        await flight.done.wait()
        return {name: result for name, result in flight.results.items() if result is not None}

    async def _fly(self, flight: Flight) -> None:
        """Run all checks at once; draining ends it."""
        try:
            async with anyio.create_task_group() as group:
                async with anyio.create_task_group() as checks:
                    group.start_soon(self._until_drained, checks.cancel_scope)
                    for name in flight.results:
                        checks.start_soon(self._run, flight, name)
                group.cancel_scope.cancel()
        finally:
            self._land(flight)

    async def _until_drained(self, scope: anyio.CancelScope) -> None:
        await self._app.drain.wait()
        scope.cancel()

    def _land(self, flight: Flight) -> None:
        """Let the probes have the results. A check that resists cancellation is not waited for any longer."""
        if self._flight is flight:
            self._flight = None
        flight.done.set()

    async def _run(self, flight: Flight, name: str) -> None:
        if name in self._busy:
            self._note(flight, name, Result("failed", 0.0, "the call before this one has not ended yet"))
            return
        check = self._checks[name]
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, flight, name, check.timeout)
            outcome: Outcome = "ok"
            error = ""
            try:
                with anyio.move_on_after(check.timeout) as scope:
                    await self._call(name, check)
                if scope.cancelled_caught:
                    outcome, error = "timeout", f"it took longer than {check.timeout:g} seconds"
            except Exception as raised:  # noqa: BLE001 - it is told when it is news
                outcome, error = "failed", without_password(f"{type(raised).__name__}: {raised}")
            self._note(flight, name, Result(outcome, anyio.current_time() - began, error))
            group.cancel_scope.cancel()

    async def _watch(self, flight: Flight, name: str, timeout: float) -> None:
        await anyio.sleep(timeout + PATIENCE)
        told = f"it took longer than {timeout:g} seconds, and resists cancellation"
        self._note(flight, name, Result("timeout", timeout + PATIENCE, told))

    def _note(self, flight: Flight, name: str, result: Result) -> None:
        """Take in a result; the first one counts, and the last one of all checks ends the flight."""
        if flight.results[name] is not None:
            return
        flight.results[name] = result
        self._tell(name, result)
        found = {each: known for each, known in flight.results.items() if known is not None}
        if len(found) == len(flight.results):
            self._kept, self._kept_until = found, anyio.current_time() + self._settings.cache_seconds
            self._land(flight)

    async def _call(self, name: str, check: HealthCheck) -> None:
        self._busy.add(name)
        if is_coroutine(check.function):
            try:
                answer: Any = check.function()
                await answer
            finally:
                self._busy.discard(name)
            return
        # In a tuple, as trio lets no thread return a coroutine. A limiter of its own, so that handlers that fill the
        # common one do not make checks late.
        (answer,) = await anyio.to_thread.run_sync(
            partial(self._in_thread, name, check.function), abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )
        if isawaitable(answer):
            await answer

    def _in_thread(self, name: str, function: Callable[[], Awaitable[object] | object]) -> tuple[object]:
        try:
            return (function(),)
        finally:
            self._busy.discard(name)

    def _tell(self, name: str, result: Result) -> None:
        """Log what has changed."""
        failing = result.outcome != "ok"
        if self._failing.get(name, False) != failing:
            self._failing[name] = failing
            if failing:
                logger.warning("the health check %s fails: %s", name, result.error)
            else:
                logger.info("the health check %s succeeds again", name)


def _collect(app: Covet, settings: HealthSettings) -> dict[str, HealthCheck]:
    """The checks of all plugins and storages, collisions settled."""
    claims: list[tuple[str, str, HealthCheck]] = [
        (f"storage {alias}", "covet", HealthCheck(storage.check, timeout=settings.storage_timeout))
        for alias, storage in app.storage.items()
    ]
    for contribution in app.plugins.call("covet_health_checks", app=app):
        for name, check in contribution.value.items():
            if not isinstance(check, HealthCheck):
                from covet.exceptions import PluginError

                raise PluginError(
                    f"plugin {contribution.plugin!r}: covet_health_checks returned {check!r} for {name!r}, and a "
                    "covet.health.HealthCheck was expected"
                )
            claims.append((name, contribution.plugin, check))
    settled = settle("the health check", claims, app.settings.plugins.prefer)
    return {name: check for name, (_, check) in settled.items()}


@hookimpl
def covet_settings() -> type:
    """The settings: paths, and what is told."""
    return HealthSettings


@hookimpl
def covet_routes(app: Covet) -> Iterable[Route]:
    """The two routes, where the settings say so."""
    settings = app.settings[HealthSettings]
    health = app.state[Health] = Health(app, settings)
    routes = []
    if settings.live:
        routes.append(Route(settings.live, health.live, name="health.live", in_schema=False))
    if settings.ready:
        routes.append(Route(settings.ready, health.ready, name="health.ready", in_schema=False))
    return routes


@hookimpl(trylast=True)
async def covet_ready(app: Covet) -> None:
    """From now on the application may be ready."""
    app.state[Health].started()
