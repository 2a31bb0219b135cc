"""Middleware: what wraps every request, in named bands so that order never depends on luck.

Covet's own kind is a function, `async def mw(request, call_next) -> Response`. It runs in the request's own task:
context variables, cancel scopes and cancellation behave as in any nested call. Any pure ASGI middleware works as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from covet.exceptions import ConfigurationError

if TYPE_CHECKING:
    from covet.requests import Request
    from covet.responses import Response

__all__ = ["BANDS", "ASGIMiddleware", "Band", "Middleware", "in_order"]

Band = Literal["edge", "errors", "transport", "limits", "session", "identity", "policy", "cache", "application"]

BANDS: tuple[Band, ...] = (
    "edge",
    "errors",
    "transport",
    "limits",
    "session",
    "identity",
    "policy",
    "cache",
    "application",
)
"""The bands, outermost first: request id and proxy headers; errors become responses; security headers, compression,
static files; limits by address; the session; who is calling; CSRF, limits by user, permissions; the cache; the rest."""

CallNext = Callable[["Request"], Awaitable["Response"]]
MiddlewareFunction = Callable[["Request", CallNext], Awaitable["Response"]]


class _Layer:
    """What both kinds have: a band, a name, and neighbours."""

    __slots__ = ("after", "band", "before", "name", "owner")

    def __init__(
        self, what: Any, band: Band, name: str | None, before: str | Iterable[str], after: str | Iterable[str]
    ) -> None:
        if band not in BANDS:
            known = ", ".join(BANDS)
            raise ConfigurationError(f"middleware {what!r}: no band is called {band!r}; the bands are {known}")
        self.band: Band = band
        self.name: str = name or str(getattr(what, "__name__", type(what).__name__))
        self.before = (before,) if isinstance(before, str) else tuple(before)
        self.after = (after,) if isinstance(after, str) else tuple(after)
        self.owner = "application"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} in {self.band}, of {self.owner}>"


class Middleware(_Layer):
    """A middleware of Covet's own kind.

    Args:
        function: `async def mw(request, call_next) -> Response`. It may answer itself, change the request's state,
            or change the response. `call_next(request)` gives the response of everything inside; errors with a
            handler and every `HTTPError` have become responses there.
        band: see `BANDS`.
        name: for `before` and `after`; the function's name by default.
        before, after: names of middleware in the same band that this one is outside of, or inside of.
    """

    __slots__ = ("function",)

    def __init__(
        self,
        function: MiddlewareFunction,
        *,
        band: Band = "application",
        name: str | None = None,
        before: str | Iterable[str] = (),
        after: str | Iterable[str] = (),
    ) -> None:
        from covet.annotations import is_coroutine

        if not is_coroutine(function):
            raise ConfigurationError(
                f"middleware {function!r}: it must be `async def mw(request, call_next)`; "
                "for a pure ASGI middleware use ASGIMiddleware"
            )
        super().__init__(function, band, name, before, after)
        self.function = function


class ASGIMiddleware(_Layer):
    """A pure ASGI middleware, such as those made for Starlette.

    Args:
        factory: called as `factory(app, **options)` once, when the application is built; gives an ASGI application.
        band, name, before, after: as for `Middleware`.
        **options: passed to `factory`.
    """

    __slots__ = ("factory", "options")

    def __init__(
        self,
        factory: Callable[..., Any],
        *,
        band: Band = "application",
        name: str | None = None,
        before: str | Iterable[str] = (),
        after: str | Iterable[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(factory, band, name, before, after)
        self.factory = factory
        self.options = options


def in_order(layers: Sequence[Middleware | ASGIMiddleware]) -> list[Middleware | ASGIMiddleware]:
    """The layers outermost first: by band, within a band as `before` and `after` say, then by name.

    Raises:
        ConfigurationError: two have one name, or their `before` and `after` contradict each other.
    """
    ordered: list[Middleware | ASGIMiddleware] = []
    for band in BANDS:
        members = sorted((layer for layer in layers if layer.band == band), key=lambda layer: layer.name)
        names = [layer.name for layer in members]
        for name in names:
            if names.count(name) > 1:
                owners = " and ".join(repr(layer) for layer in members if layer.name == name)
                raise ConfigurationError(f"two middleware of band {band!r} are called {name!r}: {owners}; name one")
        outside = {layer.name: {other for other in layer.after if other in names} for layer in members}
        for layer in members:
            for other in layer.before:
                if other in outside:
                    outside[other].add(layer.name)
        while members:
            free = next((layer for layer in members if not outside[layer.name]), None)
            if free is None:
                circle = ", ".join(f"{layer.name} inside {sorted(outside[layer.name])}" for layer in members)
                raise ConfigurationError(f"the middleware of band {band!r} contradict each other: {circle}")
            ordered.append(free)
            members.remove(free)
            for names_outside in outside.values():
                names_outside.discard(free.name)
    return ordered
