"""What Covet calls. Each function implements the hook of its name; `covet plugins hooks` documents them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import perf_counter

import msgspec
from covet import Covet, Middleware, Request, Response, Route, hookimpl

from covet_timing.histograms import NO_ROUTE, Report, Timings

logger = logging.getLogger("covet_timing")


class TimingSettings(msgspec.Struct, frozen=True):
    """`[plugins.timing]` in the settings.

    Attributes:
        path: where the report is; empty for nowhere.
        slow: seconds from which a request is logged as slow; 0 for never.
        header: whether responses carry a `Server-Timing` header.
    """

    path: str = "/timing"
    slow: float = 0.5
    header: bool = True

    def __post_init__(self) -> None:
        if self.path and not self.path.startswith("/"):
            raise ValueError(f"path begins with a slash or is empty; did you mean {'/' + self.path!r}?")
        if self.slow < 0:
            raise ValueError("slow is a number of seconds, 0 or more")


@hookimpl
def covet_settings() -> type:
    """Declare the settings: Covet checks `[plugins.timing]` against the type."""
    return TimingSettings


@hookimpl
def covet_setup(app: Covet) -> None:
    """Give the application its histograms: each application its own, nothing is global."""
    app.state[Timings] = Timings()


@hookimpl
def covet_dependencies(app: Covet) -> Mapping[type, Callable[[], Timings]]:
    """Let handlers ask for the histograms by annotation."""
    return {Timings: lambda: app.state[Timings]}


async def show(timings: Timings) -> Report:
    """How long requests took, by route, in the worker process that answers."""
    return timings.report()


@hookimpl
def covet_routes(app: Covet) -> Iterable[Route]:
    """Add the report."""
    path = app.settings[TimingSettings].path
    return [Route(path, show, name="timing", tags=["timing"])] if path else []


async def stamp(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Say in a header how long the response took to make (https://www.w3.org/TR/server-timing/)."""
    began = perf_counter()
    response = await call_next(request)
    response.headers["server-timing"] = f"app;dur={(perf_counter() - began) * 1000:.3f}"
    return response


@hookimpl
def covet_middleware(app: Covet) -> Iterable[Middleware]:
    """Put the header's middleware outermost, so that it sees the time of all others."""
    return [Middleware(stamp, band="edge", name="timing")] if app.settings[TimingSettings].header else []


@hookimpl
def covet_request_finished(request: Request, response: Response, duration: float) -> None:
    """Count a request once its response was sent."""
    key = (request.method, request.route.path) if request.route is not None else NO_ROUTE
    request.app.state[Timings].observe(key, duration, response.status)
    slow = request.app.settings[TimingSettings].slow
    if slow and duration >= slow:
        logger.warning("slow: %s %s took %.0f ms", *key, duration * 1000)
