"""Limits on requests: refusing them, and telling clients how much they have left.

The header fields are those of draft-ietf-httpapi-ratelimit-headers-11, and so is the type of the problem document.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from covet.annotations import is_coroutine
from covet.exceptions import ConfigurationError, CovetError, HTTPError
from covet.ratelimit.decisions import Decision
from covet.ratelimit.events import RequestLimited
from covet.ratelimit.keys import client_address
from covet.ratelimit.limiters import TIMEOUT, Limiter, OnFailure
from covet.ratelimit.rates import Rate
from covet.ratelimit.sliding_window import SlidingWindowLimiter
from covet.ratelimit.token_bucket import TokenBucketLimiter
from covet.responses import Response
from covet.routing import OPTIONS, RouteOptions, handler_name, route_options

if TYPE_CHECKING:
    from covet.cache import CacheBackend
    from covet.requests import Request

__all__ = ["Algorithm", "Enforced", "as_middleware", "enforce", "limited", "make_limiter", "unlimited"]

F = TypeVar("F", bound=Callable[..., Any])

Algorithm = Literal["token-bucket", "sliding-window"]
Key = Callable[["Request"], "str | Awaitable[str | None] | None"]
Cost = int | Callable[["Request"], "int | Awaitable[int]"]
Guard = Callable[["Request"], "Awaitable[None] | None"]

POLICY = b"ratelimit-policy"
CURRENT = b"ratelimit"
PROBLEMS = "https://iana.org/assignments/http-problem-types#"


class Enforced:
    """Marks a route that has limits of its own, or none: the default of the settings is not for it.

    Attributes:
        limiters: those that `limited` put on it.
    """

    __slots__ = ("limiters",)

    def __init__(self, limiters: Sequence[Limiter[Any]] = ()) -> None:
        self.limiters = tuple(limiters)


class _Told:
    """What the limits of one request said, for the headers of its response."""

    __slots__ = ("current", "policy")

    # It comes behind response caches, and says nothing that one keeps.
    cacheable: ClassVar[bool] = True

    def __init__(self, policy: bytes, current: bytes) -> None:
        self.policy = policy
        self.current = current

    def add(self, policy: bytes, current: bytes) -> None:
        """One more limit."""
        self.policy += b", " + policy
        self.current += (b", " if self.current and current else b"") + current

    def __call__(self, request: Request, response: Response) -> Response:
        headers = [pair for pair in response.headers.raw if pair[0] != CURRENT and pair[0] != POLICY]
        headers.append((POLICY, self.policy))
        if self.current:
            headers.append((CURRENT, self.current))
        if response.__class__ is Response:
            # A handler may return the same response again and again, and others theirs from a cache.
            return Response.trusted(response.body, response.status, *headers)
        response.headers.raw = headers
        return response


def enforce(limiter: Limiter[Any], *, key: Key = client_address, cost: Cost = 1) -> Guard:
    """A guard, as the hook `covet_route_guards` takes it, that applies a limit to the requests it is given.

    It is a plain function where nothing has to be awaited.

    Args:
        limiter: the limit.
        key, cost: as for `limited`.

    Raises:
        ConfigurationError: the cost is more than the limit, so that every request would be refused.

    The guard raises `HTTPError`: 429 when the limit refuses, 503 when it cannot be asked and `on_failure` is `refuse`;
    `CovetError` when `key` or `cost` returned what is none.
    """
    if not callable(cost) and not 0 <= cost <= limiter.limit:
        raise ConfigurationError(
            f"a request that costs {cost} would never be allowed by {limiter!r}, whose limit is {limiter.limit}"
        )
    policy, name = _policy(limiter), b'"%b"' % limiter.name.encode()

    def settle(request: Request, decision: Decision, amount: int) -> None:
        current = _current(name, decision) if decision.counted else b""
        for finisher in request.finishers or ():
            if isinstance(finisher, _Told):
                finisher.add(policy, current)
                break
        else:
            request.on_response(_Told(policy, current))
        if not decision.allowed:
            raise _refusal(request, limiter, decision, amount)

    if limiter.backend is None and not is_coroutine(key) and not (callable(cost) and is_coroutine(cost)):

        def guard(request: Request) -> None:
            who = key(request)
            if who is not None:
                amount = cost(request) if callable(cost) else cost
                settle(request, limiter.take(_text(who, key), _number(amount, cost)), cast("int", amount))

        return guard

    async def waiting_guard(request: Request) -> None:
        who: Any = key(request)
        if isinstance(who, Awaitable):
            who = await who
        if who is not None:
            amount: Any = cost(request) if callable(cost) else cost
            if isinstance(amount, Awaitable):
                amount = await amount
            settle(request, await limiter.acquire(_text(who, key), _number(amount, cost)), amount)

    return waiting_guard


def as_middleware(limiter: Limiter[Any], key: Key, cost: Cost) -> Callable[..., Awaitable[Response]]:
    """The function of `Limiter.middleware`."""
    guard = enforce(limiter, key=key, cost=cost)

    async def rate_limit(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        checked = guard(request)
        if checked is not None:
            await checked
        return await call_next(request)

    return rate_limit


def make_limiter(
    rate: str | Rate,
    *,
    name: str | None = None,
    scope: str | None = None,
    algorithm: Algorithm = "token-bucket",
    backend: CacheBackend | str | None = None,
    on_failure: OnFailure = "local",
    timeout: float = TIMEOUT,
) -> Limiter[Any]:
    """A limiter of a rate that is text, such as `5/second;burst=10`. The other arguments are the limiters' own.

    Raises:
        ConfigurationError: an argument makes no sense.
    """
    if not isinstance(rate, Rate):
        rate = Rate.parse(rate)
    options: dict[str, Any] = {
        "name": name, "scope": scope, "backend": backend, "on_failure": on_failure, "timeout": timeout,
    }  # fmt: skip
    if algorithm == "token-bucket":
        return TokenBucketLimiter(rate.count, rate.per, burst=rate.burst, **options)
    if algorithm != "sliding-window":
        raise ConfigurationError(f"a rate limit's algorithm is 'token-bucket' or 'sliding-window', not {algorithm!r}")
    if rate.burst is not None:
        raise ConfigurationError(
            f"{rate} has a burst, and a sliding window allows its whole rate at once; leave it out"
        )
    return SlidingWindowLimiter(rate.count, rate.per, **options)


def limited(
    *limits: str | Rate | Limiter[Any], key: Key = client_address, cost: Cost = 1, **options: Any
) -> Callable[[F], F]:
    """Limit the requests of a route; stands below the route's decorator.

        @app.post("/login")
        @limited("5/minute", "20/hour")
        async def login(...): ...

    Args:
        limits: each a rate as text or `Rate`, counted for this handler alone, or a limiter, which counts together
            everything that it is given to. They are asked in this order, and the first that refuses ends it; what
            those before it counted stays counted.
        key: whom to count: a function of the request, plain or asynchronous, that gives a text, or None for a request
            that is not limited. It must not block.
        cost: what a request counts for: a number, or such a function that gives one; 0 counts nothing.
        **options: of the limiters made here: `name` (if there is one rate), `algorithm` (`token-bucket` or
            `sliding-window`), `backend`, `on_failure` and `timeout`, as for `TokenBucketLimiter`.

    The routes answer 429 with a problem document when a limit refuses, 503 when its backend cannot be reached and
    `on_failure` is `refuse`. All their responses say in `RateLimit-Policy` and `RateLimit` what is left.

    Raises:
        ConfigurationError: a rate is none, an option is unknown or makes no sense, or the cost is above a limit.
    """
    rates = [limit for limit in limits if not isinstance(limit, Limiter)]
    known = {"name", "scope", "algorithm", "backend", "on_failure", "timeout"}
    if unknown := set(options) - known:
        raise ConfigurationError(
            f"limited: there is no option {sorted(unknown)[0]!r}; there are {', '.join(sorted(known))}"
        )
    if not limits or not all(isinstance(limit, str | Rate | Limiter) for limit in limits):
        raise ConfigurationError(f"limited takes rates such as '100/minute', or limiters, not {limits!r}")
    if options and not rates:
        raise ConfigurationError(
            f"limited: {sorted(options)[0]} is for limits that are made here; give it to the limiter"
        )
    if len(rates) > 1 and "name" in options:
        raise ConfigurationError("limited: one name cannot stand for several rates; use one `limited` for each")

    def decorate(handler: F) -> F:
        made = [
            limit
            if isinstance(limit, Limiter)
            else make_limiter(limit, **{"scope": f"{handler_name(handler)}#{number}", **options})
            for number, limit in enumerate(limits)
        ]
        guards = [enforce(limiter, key=key, cost=cost) for limiter in made]
        before: RouteOptions = getattr(handler, OPTIONS, RouteOptions())
        there = [limiter for mark in before.marks if isinstance(mark, Enforced) for limiter in mark.limiters]
        return route_options(handler, guards=guards, marks=[Enforced([*made, *there])])

    # What is wrong is said where it stands, not when a handler comes.
    for rate in rates:
        make_limiter(rate, **{"scope": "", **options})
    return decorate


def unlimited(handler: F) -> F:
    """Keep the default limit of the settings from a route; stands below the route's decorator."""
    return route_options(handler, marks=[Enforced()])


def _policy(limiter: Limiter[Any]) -> bytes:
    """The item of `RateLimit-Policy` (section 3.1 of the draft). Names need no escaping."""
    rate = limiter.rate
    item = f'"{limiter.name}";q={rate.count}'
    if rate.per == int(rate.per):
        # A window has whole seconds; without one the quota stands alone.
        item += f";w={int(rate.per)}"
    if limiter.limit != rate.count:
        item += f";covet-burst={limiter.limit}"
    return item.encode()


def _current(name: bytes, decision: Decision) -> bytes:
    """The item of `RateLimit` (section 4.1 of the draft), `name` being in quotes.

    A client that spreads `r` over `t` seconds keeps the rate; section 8.5 warns of pairs that invite to more. Where the
    request was refused, `t` is what `Retry-After` says (section 6).
    """
    seconds = decision.window if decision.allowed else decision.retry_after
    if seconds == math.inf:
        return b"%b;r=%d" % (name, decision.remaining)
    return b"%b;r=%d;t=%d" % (name, decision.remaining, math.ceil(seconds) or 1)


def _refusal(request: Request, limiter: Limiter[Any], decision: Decision, cost: int) -> HTTPError:
    if request.app.listening:
        route = "" if request.route is None else request.route.path
        request.app.emit(RequestLimited(limiter.name, route, cost, decision.retry_after, request.id))
    violated: dict[str, Any] = {"violated-policies": [limiter.name]}
    if math.isinf(decision.retry_after):
        detail = f"this request counts for {cost}, and at most {decision.limit} is allowed at once"
        return HTTPError(429, detail, title="Quota exceeded", type=PROBLEMS + "quota-exceeded", **violated)
    wait = max(1, math.ceil(decision.retry_after))
    headers = {"retry-after": str(wait)}
    again = f"try again in {wait} second{'' if wait == 1 else 's'}"
    if not decision.counted:
        detail = f"it cannot be told at present whether this is too much; {again}"
        title, kind = "Temporarily reduced capacity", "temporary-reduced-capacity"
        return HTTPError(503, detail, title=title, type=PROBLEMS + kind, headers=headers, **violated)
    detail = f"this has been asked for too often; {again}"
    return HTTPError(429, detail, title="Quota exceeded", type=PROBLEMS + "quota-exceeded", headers=headers, **violated)


def _text(who: Any, key: Key) -> str:
    if not isinstance(who, str):
        raise CovetError(
            f"the key of a rate limit, {handler_name(key)}, returned {who!r}; it returns a text, or None not to limit"
        )
    return who


def _number(amount: Any, cost: Cost) -> int:
    if not isinstance(amount, int) or amount < 0:
        what = handler_name(cost) if callable(cost) else "cost"
        raise CovetError(
            f"the cost of a rate limit, {what}, returned {amount!r}; it returns a whole number of at least 0"
        )
    return amount
