"""The builtin plugin `rate_limit`: a limit for every route that has none of its own.

Without settings it does nothing. Limits of a route, `covet.ratelimit.limited`, work without it.
"""

from __future__ import annotations

from sys import modules
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from covet.exceptions import ConfigurationError
from covet.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from covet.applications import Covet
    from covet.ratelimit import Limiter
    from covet.requests import Request
    from covet.routing import Route

__all__ = ["RateLimitSettings", "covet_openapi", "covet_route_guards", "covet_settings", "covet_setup"]


REFUSAL = {
    "description": "There were too many requests.",
    "headers": {
        "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}},
        "RateLimit": {"description": "What is left of each limit.", "schema": {"type": "string"}},
        "RateLimit-Policy": {"description": "The limits.", "schema": {"type": "string"}},
    },
    "content": {
        "application/problem+json": {"schema": {"type": "object"}},
        "text/html": {"schema": {"type": "string"}},
    },
}


class RateLimitSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.rate_limit]`: the limit of routes that have none of their own."""

    default: Annotated[
        str,
        Meta(
            description="The rate, such as `100/minute` or `5/second;burst=10`; a client's requests to all routes that "
            "have no limit of their own count together. Empty: none."
        ),
    ] = ""
    key: Annotated[
        str,
        Meta(
            description="Whom to count: `address`, `user`, `session`, or `header:NAME` for the API key in a header. "
            "Where there is no user, session or key, it is the address."
        ),
    ] = "address"
    algorithm: Annotated[Literal["token-bucket", "sliding-window"], Meta(description="How to count.")] = "token-bucket"
    cache: Annotated[
        str,
        Meta(
            description="Where to count: the alias of a cache that all processes share. Empty: each process for "
            "itself, which allows as many times the rate as there are processes."
        ),
    ] = ""
    on_failure: Annotated[
        Literal["local", "allow", "refuse"],
        Meta(description="While that cache cannot be reached: count in each process, allow or refuse everything."),
    ] = "local"
    timeout: Annotated[float, Meta(gt=0, description="Seconds that the cache has for an answer.")] = 1.0
    exempt: Annotated[tuple[str, ...], Meta(description="Paths that are not limited, with everything below them.")] = (
        "/health",
    )

    def __post_init__(self) -> None:
        if self.default or self.key != "address":
            self._check()
        for path in self.exempt:
            if not path.startswith("/"):
                raise ValueError(f"exempt: a path begins with a slash, and {path!r} does not")

    def _check(self) -> None:
        from covet.ratelimit import named_key

        try:
            self.limiter()
            named_key(self.key)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None

    def limiter(self) -> Limiter[Any] | None:
        """The limiter, or None when there is no rate."""
        if not self.default:
            return None
        from covet.ratelimit import make_limiter

        return make_limiter(
            self.default,
            scope="[plugins.rate_limit] default",
            algorithm=self.algorithm,
            backend=self.cache or None,
            on_failure=self.on_failure,
            timeout=self.timeout,
        )


class _Default:
    """The guard of an application's default limit."""

    def __init__(self, guard: Callable[[Request], Any]) -> None:
        self.guard = guard


@hookimpl
def covet_settings() -> type:
    """The settings: a rate and how to count it."""
    return RateLimitSettings


@hookimpl
def covet_setup(app: Covet) -> None:
    """Make the default limit, if there is one."""
    settings = app.settings[RateLimitSettings]
    limiter = settings.limiter()
    if limiter is not None:
        from covet.ratelimit import enforce, named_key

        if limiter.backend is not None:
            limiter.resolve(app)
        app.state[_Default] = _Default(enforce(limiter, key=named_key(settings.key)))


@hookimpl
def covet_route_guards(app: Covet, route: Route) -> Iterable[Callable[[Request], Any]]:
    """The default limit, for routes that have none; the caches of those that have one are looked up, so that a wrong
    name is an error now."""
    if "covet.ratelimit" not in modules:
        # Neither the settings nor any route have needed it, so that it need not be imported for this either.
        return ()
    from covet.ratelimit import Enforced

    own = route.marks.get(Enforced)
    if own is not None:
        for limiter in own.limiters:
            if limiter.backend is not None:
                limiter.resolve(app)
        return ()
    default = app.state.get(_Default)
    if default is None or any(_below(route.path, path) for path in app.settings[RateLimitSettings].exempt):
        return ()
    return (default.guard,)


@hookimpl
def covet_openapi(app: Covet, document: dict[str, Any]) -> None:
    """Say which operations may answer 429."""
    if "covet.ratelimit" not in modules:
        return
    from covet.ratelimit import Enforced
    from covet.routing import Route

    default = app.state.get(_Default)
    for route in app.routes:
        if not isinstance(route, Route):
            continue
        own = route.marks.get(Enforced)
        if not (own.limiters if own is not None else default is not None and default.guard in route.guards):
            continue
        item = document.get("paths", {}).get(route.template.display, {})
        for method in route.methods:
            if method.lower() in item:
                item[method.lower()].setdefault("responses", {}).setdefault("429", REFUSAL)


def _below(path: str, exempt: str) -> bool:
    return path == exempt or path.startswith(exempt.rstrip("/") + "/")
