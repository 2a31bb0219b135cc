"""`cached`: what a function returns, or the responses of a route, kept in a cache."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast, overload

import msgspec

from covet.annotations import is_coroutine
from covet.cache.bounds import DEFAULT, TTL, require_ttl
from covet.cache.errors import CacheKeyError
from covet.cache.keys import canonical
from covet.cache.managers import CacheManager
from covet.cache.responses import STATUSES, ResponseCache
from covet.concurrency import in_thread
from covet.exceptions import ConfigurationError
from covet.middleware import Middleware
from covet.routing import handler_name, route_options

__all__ = ["CachedFunction", "cached"]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Tags = Iterable[str] | Callable[..., Iterable[str]]


class CachedFunction(typing.Protocol[P, T_co]):
    """What `cached` makes of a function."""

    cache: CacheManager

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """What the function returns, from the cache where it is there."""
        ...

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The cache's key for a call with these arguments."""
        ...

    async def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove what is kept for these arguments; whether there was something."""
        ...


class _Decorator(typing.Protocol):
    @overload
    def __call__(self, function: Callable[P, Awaitable[T]], /) -> CachedFunction[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> CachedFunction[P, T]: ...


def cached(
    ttl: TTL = DEFAULT,
    *,
    cache: CacheManager | str | None = None,
    name: str | None = None,
    key: str | Callable[..., str] | None = None,
    tags: Tags = (),
    type: Any = None,
    none_ttl: TTL = DEFAULT,
    beta: float = 1.0,
    stale_while_revalidate: float = 0.0,
    vary: Iterable[str] = (),
    statuses: Iterable[int] = STATUSES,
) -> _Decorator:
    """Keep what a function returns, by its arguments; or, right below a route's decorator, the route's responses.

        @cached(60)
        async def rates(currency: str) -> dict[str, float]: ...

        @app.get("/news")
        @cached(30, stale_while_revalidate=60)
        async def news() -> list[Article]: ...

    A function is keyed by module, qualified name and arguments, in whichever way these are passed. A plain `def` runs
    in a worker thread, and is awaited, too. The result of `forget(...)` and `key_for(...)`, called like the function,
    is about what is kept for those arguments. A function that remembers variables of the one around it needs a `name`
    or `key`: another with the same name may remember others.

    Of a route, GET and HEAD are kept, by scheme, host, path, query, the headers that the response names in `Vary`, and
    the headers and cookies that the handler's signature asks for. A response is not kept that sets a cookie, whose
    `Cache-Control` says `private`, `no-store` or `no-cache`, that varies on everything or is a stream or a file, whose
    request has `Authorization`, or during which cookies, the session or the request's body were read. `ETag` and
    `Cache-Control` are added where they are missing; `If-None-Match` is answered with 304. What a request says in
    `Cache-Control` is not asked: strangers could make it be computed for each of them (RFC 9111 section 5.2.1 lets a
    cache do so). What guards the route runs for every request.

    Args:
        ttl: seconds for which it is fresh; by default what the settings say.
        cache: where; the cache of `[cache.default]` by default, or of the alias.
        name: the name under which the function's values are kept, in place of its own.
        key: the cache's key, or a function of the same arguments that returns it.
        tags: by which it can be invalidated together with other things; or a function of the same arguments that
            returns them (of the request, where it decorates a route).
        type: what values are decoded into. By default the function's return annotation where that has a class with
            fields or an enumeration in it, else what they were.
        none_ttl: seconds for which None is kept; as long as others by default.
        beta: above 1 for computing anew earlier, 0 for never before the end.
        stale_while_revalidate: seconds after its end for which it is still given out while it is computed anew.
        vary: names of further request headers that the responses depend on.
        statuses: which responses are kept.

    Raises:
        ConfigurationError: the function is a generator, or an option makes no sense.
        CacheKeyError: raised by a call whose arguments make no key; the error names function and argument.
        CacheValueError: raised by a call whose result cannot be kept.
    """
    if callable(ttl):
        raise ConfigurationError("`cached` takes the time to live: write `@cached()` or `@cached(60)`, not `@cached`")
    where = cache if isinstance(cache, CacheManager) else CacheManager(cache or "default")
    for given in (ttl, none_ttl):
        if given is not DEFAULT:
            require_ttl(given)

    def decorate(function: Callable[..., Any]) -> Any:
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigurationError(
                f"{handler_name(function)} is a generator, and what it yields is not kept: return it"
            )
        coroutine = is_coroutine(function)
        keyed = _Keys(function, name, key)
        kinds: list[Any] = [] if type is None else [type]

        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not kinds:
                kinds.append(_type_of(function))

            async def call() -> Any:
                if coroutine:
                    return await function(*args, **kwargs)
                return await in_thread(function, *args, **kwargs)

            return await where.get_or_set(
                keyed(*args, **kwargs),
                call,
                ttl,
                tags=tags(*args, **kwargs) if callable(tags) else tags,
                type=kinds[0],
                none_ttl=none_ttl,
                beta=beta,
                stale_while_revalidate=stale_while_revalidate,
            )

        async def forget(*args: Any, **kwargs: Any) -> bool:
            return await where.delete(keyed(*args, **kwargs)) > 0

        made: Any = wrapper
        made.cache, made.key_for, made.forget = where, keyed, forget
        responses = ResponseCache(
            where,
            ttl,
            tags=tags,
            beta=beta,
            stale_while_revalidate=stale_while_revalidate,
            vary=vary,
            statuses=statuses,
        )
        layer = Middleware(responses.respond, band="cache", name=f"cached {handler_name(function)}")
        return route_options(made, middleware=[layer], call=function)

    return cast("_Decorator", decorate)


class _Keys:
    """The cache's keys for the calls of a function."""

    def __init__(self, function: Callable[..., Any], name: str | None, key: str | Callable[..., str] | None) -> None:
        self.function = function
        self.name = name
        self.key = key
        try:
            self.signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"`cached` cannot tell the arguments of {function!r}: {error}") from error
        kinds = [parameter.kind for parameter in self.signature.parameters.values()]
        # As many arguments by position as these leave nothing to bind.
        self.simple = len(kinds) if all(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds) else -1

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        if self.key is not None:
            return self.key(*args, **kwargs) if callable(self.key) else self.key
        name = self.name or self._own_name()
        if not kwargs and len(args) == self.simple:
            values: Iterable[Any] = args
        else:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = bound.arguments.values()
        try:
            return name + "".join(canonical(value).decode("latin-1") for value in values)
        except CacheKeyError as error:
            raise CacheKeyError(self._told(error, args, kwargs)) from None

    def _own_name(self) -> str:
        name = handler_name(self.function)
        if getattr(self.function, "__closure__", None) or name.endswith("<lambda>"):
            raise CacheKeyError(
                f"{name} remembers variables of the function around it, or has no name: another of that name may "
                "return other values; say `cached(..., name=...)` with a name that tells them apart, or `key=...`"
            )
        return name

    def _told(self, error: CacheKeyError, args: Any, kwargs: Any) -> str:
        bound = self.signature.bind(*args, **kwargs)
        for parameter, value in bound.arguments.items():
            try:
                canonical(value)
            except CacheKeyError:
                what = f"the argument {parameter!r} of {handler_name(self.function)}"
                return f"{what}: {error}; say `cached(..., key=lambda ...: ...)` with what does tell them apart"
        return str(error)


def _type_of(function: Callable[..., Any]) -> Any:
    """The return annotation where values cannot do without it, else None."""
    try:
        hint = typing.get_type_hints(function, include_extras=True).get("return")
    except Exception:  # noqa: BLE001 - what cannot be resolved says nothing, and the value's own type decides
        return None
    return hint if _has_fields(hint) else None


def _has_fields(hint: Any) -> bool:
    if isinstance(hint, type):
        if issubclass(hint, msgspec.Struct | enum.Enum) or dataclasses.is_dataclass(hint):
            return True
        if hasattr(hint, "__attrs_attrs__") or (issubclass(hint, tuple) and hasattr(hint, "_fields")):
            return True
    return any(_has_fields(part) for part in typing.get_args(hint))
