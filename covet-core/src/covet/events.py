"""What happens, for whoever implements the hook `covet_event`: observability listens, it does not wrap calls.

An event is built only when somebody listens:

    if app.listening:
        app.emit(RequestDone(...))

Code that may run with or without an application asks for the ambient one:

    if (app := listener()) is not None:
        app.emit(CircuitChanged(...))

Events hold plain values, nothing that keeps a request alive. Times are in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from covet.context import running

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.requests import Request
    from covet.responses import Response

__all__ = [
    "CacheComputed",
    "CacheFailed",
    "CacheRead",
    "CacheWritten",
    "CircuitChanged",
    "CircuitState",
    "Event",
    "PluginLoaded",
    "RequestDone",
    "RetryScheduled",
    "listener",
]

CircuitState = Literal["closed", "open", "half-open"]


def listener() -> Covet | None:
    """The ambient application, if there is one and anybody listens to its events."""
    holder = running.get(None)
    if holder is None:
        return None
    app: Covet = holder.app
    return app if app.listening else None


class Event(Struct, frozen=True, gc=False):
    """The base of every event. A plugin's own events derive from it, and hold plain values only."""


class RequestDone(Event, frozen=True, gc=False):
    """A request was served, or ended without a response.

    Attributes:
        method: its method.
        route: the template of its route, such as `/users/{id}`; empty where no route answers.
        status: of the response; None when it ended before there was one.
        seconds: from its start until the response was sent.
        error: the class name of what ended it early, or None.
        request_id: its id.
    """

    method: str
    route: str
    status: int | None
    seconds: float
    error: str | None
    request_id: str

    @classmethod
    def of(
        cls, request: Request, response: Response | None, seconds: float, error: BaseException | None
    ) -> RequestDone:
        """The event of a request."""
        return cls(
            request.method,
            request.route.path if request.route is not None else "",
            response.status if response is not None else None,
            seconds,
            type(error).__name__ if error is not None else None,
            request.id,
        )


class CircuitChanged(Event, frozen=True, gc=False):
    """A circuit breaker went from one state to another.

    Attributes:
        name: the breaker's.
        before, after: the states.
        calls, failures: how many the breaker had counted in its window.
    """

    name: str
    before: CircuitState
    after: CircuitState
    calls: int
    failures: int


class RetryScheduled(Event, frozen=True, gc=False):
    """An attempt failed, and another one will be made.

    Attributes:
        name: what is attempted.
        attempt: how many attempts have failed, from 1.
        delay: seconds until the next.
        error: the class name of the error.
    """

    name: str
    attempt: int
    delay: float
    error: str


class PluginLoaded(Event, frozen=True, gc=False):
    """A plugin takes part in the application.

    Attributes:
        name, version, distribution: the plugin's; the last two are empty for an object given in code.
        seconds: how long importing it took; None when it was not imported.
    """

    name: str
    version: str
    distribution: str
    seconds: float | None


class CacheRead(Event, frozen=True, gc=False):
    """Values were asked of a cache.

    Attributes:
        cache: its alias in the settings, or the name of its backend.
        namespace: the cache's namespace.
        hits, misses: how many were there, and how many not.
        stale: whether what was given out was past its time.
    """

    cache: str
    namespace: str
    hits: int
    misses: int
    stale: bool


class CacheWritten(Event, frozen=True, gc=False):
    """Values were kept in a cache.

    Attributes:
        cache, namespace: as in `CacheRead`.
        entries: how many.
        size: the bytes of all of them.
    """

    cache: str
    namespace: str
    entries: int
    size: int


class CacheComputed(Event, frozen=True, gc=False):
    """A value was computed, since the cache did not have it or it was near its end.

    Attributes:
        cache, namespace: as in `CacheRead`.
        seconds: how long it took.
    """

    cache: str
    namespace: str
    seconds: float


class CacheFailed(Event, frozen=True, gc=False):
    """A cache could not do what it was asked: its backend is down, or what is kept there cannot be read.

    Attributes:
        cache: as in `CacheRead`.
        operation: what was asked.
        error: the class name of the error; `CircuitOpen` where the backend was left alone.
    """

    cache: str
    operation: str
    error: str
