"""Responses kept in a cache: what `cached` does right below a route's decorator.

The middleware stands in the band `cache`: below what is said to one visitor, such as the session, and behind what
compresses. What it does follows RFC 9111 (HTTP caching) and RFC 9110 sections 8.8.3 and 13 (entity tags, conditions).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from inspect import isawaitable
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import msgspec

from covet.cache import entries
from covet.cache.bounds import TTL, Bound
from covet.cache.entries import Entry
from covet.cache.flights import Made, once, once_unless_busy
from covet.cache.keys import LEASE, RESPONSE, backend_key, canonical
from covet.cache.links import logger
from covet.cache.managers import CacheManager
from covet.events import CacheComputed
from covet.exceptions import HTTPError
from covet.files import any_tag
from covet.responses import Response

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["STATUSES", "ResponseCache"]

STATUSES = frozenset({200, 203, 204, 300, 301, 308})
"""Which responses are kept. Not those of errors: they carry the id of the request they answer."""

# RFC 9111 section 3.1, and what is counted anew.
_NOT_KEPT = frozenset(
    {b"age", b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info",
     b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)  # fmt: skip
_VARIES = 0

CallNext = Callable[["Request"], Awaitable[Response]]


class _Stored(msgspec.Struct, array_like=True, frozen=True):
    """A response, or with status 0 the names of the headers that tell several apart."""

    status: int
    headers: list[tuple[bytes, bytes]] = []
    body: bytes = b""
    names: list[str] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


class ResponseCache:
    """Keeps the responses of a route. The arguments are those of `cached`."""

    def __init__(
        self,
        cache: CacheManager,
        ttl: TTL,
        *,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        beta: float = 1.0,
        stale_while_revalidate: float = 0.0,
        vary: Iterable[str] = (),
        statuses: Iterable[int] = STATUSES,
    ) -> None:
        self.cache = cache
        self.ttl = ttl
        self.tags = tags
        self.beta = beta
        self.stale = stale_while_revalidate
        self.vary = frozenset(name.lower() for name in vary)
        self.statuses = frozenset(statuses)

    async def respond(self, request: Request, call_next: CallNext) -> Response:
        """The middleware: the kept response, or that of the handler."""
        about = _about(request)
        if about is None:
            return await call_next(request)
        bound = self.cache.bound()
        names = self._names(request)
        # Each round knows more headers that the response depends on.
        for _ in range(3):
            work = _Work(self, bound, request, call_next, about, names)
            found = await work.find()
            if found is None:
                bound.told_read(0, 1)
                made = await once(bound.link, work.place, work.lease, work.look, work.make)
                if made.own:
                    return _conditional(request, made.result)
                stored = _decode(made.raw or b"")
            else:
                entry, stored = found
                if stored.status != _VARIES:
                    now = time()
                    bound.told_read(1, 0, stale=now >= entry.fresh_until)
                    if entry.due(now, self.beta) and (response := await work.renew(entry)) is not None:
                        return _conditional(request, response)
                    return await _served(request, stored, now - entry.written)
            if stored.status != _VARIES:
                return await _served(request, stored, 0.0)
            names = names | set(stored.names)
        return await call_next(request)

    def _names(self, request: Request) -> frozenset[str]:
        """The headers that the response is known to depend on: those it was told, and what the handler takes."""
        plan = None if request.route is None else request.route.plan
        if plan is None:
            return self.vary
        names = {parameter.alias.lower() for parameter in plan.parameters if parameter.source == "header"}
        if any(parameter.source == "cookie" for parameter in plan.parameters):
            names.add("cookie")
        return self.vary | names


class _Work:
    """A request that a kept response may answer, or that makes one."""

    def __init__(
        self,
        cache: ResponseCache,
        bound: Bound,
        request: Request,
        call_next: CallNext,
        about: tuple[Any, ...],
        names: frozenset[str],
    ) -> None:
        self.cache = cache
        self.bound = bound
        self.request = request
        self.call_next = call_next
        self.about = about
        self.names = names
        self.place, self.lease = self._places(names)

    def _places(self, names: frozenset[str]) -> tuple[str, str]:
        """The backend's keys of the response and of its lease, where it depends on these headers."""
        headers = self.request.headers
        values = tuple((name, tuple(headers.getlist(name))) for name in sorted(names))
        text = canonical((*self.about, values)).decode("latin-1")
        return backend_key(self.bound.prefix, RESPONSE, text), backend_key(self.bound.prefix, LEASE, "r" + text)

    async def find(self) -> tuple[Entry, _Stored] | None:
        """What is kept under the key, or None."""
        entry = await self.bound.find(self.place)
        if entry is None:
            return None
        try:
            return entry, _decode(entry.payload)
        except ValueError as error:
            self.bound.link.failed("decode", error)
            return None

    async def look(self) -> bytes | None:
        """What is kept under the key and fresh, encoded."""
        found = await self.find()
        return found[0].payload if found is not None and time() < found[0].fresh_until else None

    async def renew(self, entry: Entry) -> Response | None:
        """The response anew, unless somebody else makes it already or making it fails."""
        newer = self.bound.newer(self.place, entry.written)
        try:
            made = await once_unless_busy(self.bound.link, self.place, self.lease, newer, self.make)
        except HTTPError:
            raise
        except Exception:  # noqa: BLE001 - it is logged, and there is a response
            logger.exception("%s %s: making the response anew failed; the one before is sent", *self.about[:2])
            return None
        return None if made is None or not made.own else made.result

    async def make(self) -> Made:
        """The handler's response, kept if it may be."""
        cache, bound, request = self.cache, self.bound, self.request
        tags = list(cache.tags(request) if callable(cache.tags) else cache.tags)
        versions = await bound.tag_versions(tags) if tags else {}
        began = perf_counter()
        response = await self.call_next(request)
        took = perf_counter() - began
        bound.link.tell(lambda: CacheComputed(bound.link.name, bound.namespace, took))
        for name in sorted(self.names):
            response.headers.add_vary(name.title())
        seconds = self._seconds(response)
        if versions is None or seconds == 0:
            return Made(None, response, own=True)
        _complete(response, seconds, cache.stale)
        headers = [pair for pair in response.headers.raw if pair[0] not in _NOT_KEPT]
        raw = _encode(_Stored(response.status, headers, response.body))
        names = self.names | _vary(response)
        place, _ = self._places(names)
        now = time()
        until = math.inf if seconds is None else now + seconds
        ttl = None if seconds is None else seconds + cache.stale
        kept = {place: entries.pack(Entry(raw, now, until, took, versions))}
        if place != self.place:
            raw = _encode(_Stored(_VARIES, names=sorted(names)))
            kept[self.place] = entries.pack(Entry(raw, now, math.inf, 0.0, {}))
        await bound.write(kept, ttl)
        return Made(raw, response, own=True)

    def _seconds(self, response: Response) -> float | None:
        """For how many seconds the response may be given to others: 0 for not at all, None for ever."""
        request, headers = self.request, response.headers
        if (
            response.status not in self.cache.statuses
            or response.__class__.__call__ is not Response.__call__
            or response.deferred
            or response.opaque
            or "set-cookie" in headers
            or "content-range" in headers
            or "*" in _vary(response)
        ):
            return 0
        # Whoever looks at the response later may say something to this visitor alone, and whoever read cookies or the
        # body may have answered them.
        if any(not getattr(finisher, "cacheable", False) for finisher in request.finishers or ()):
            return 0
        if request._body is not None or request._stream is not None:
            return 0
        if request._cookies is not None and "cookie" not in self.names | _vary(response):
            return 0
        seconds = self.bound.seconds(self.cache.ttl)
        allowed = _allowed(headers.getlist("cache-control"), headers.get("expires"))
        return allowed if seconds is None or (allowed is not None and allowed < seconds) else seconds


def _about(request: Request) -> tuple[Any, ...] | None:
    """What a request asks for, apart from its headers; None if no kept response may answer it."""
    if request.method not in ("GET", "HEAD"):
        return None
    headers = request.headers
    if "authorization" in headers or "range" in headers:
        return None
    try:
        host = request.host
    except HTTPError:
        return None
    scope = request.scope
    query: bytes = scope.get("query_string", b"")
    return request.method, request.path, request.scheme, host, scope.get("root_path", ""), query


async def _served(request: Request, stored: _Stored, age: float) -> Response:
    """A kept response, if the route's guards let the request pass. They have seen only the one that made it."""
    route = request.route
    for guard in () if route is None else route.guards:
        refusal: Any = guard(request)
        if isawaitable(refusal):
            refusal = await refusal
        if refusal is not None:
            made: Response = request.app.renderer(refusal)
            return made
    headers = [*stored.headers, (b"age", b"%d" % max(0, age))]
    return _conditional(request, Response.trusted(stored.body, stored.status, *headers))


def _conditional(request: Request, response: Response) -> Response:
    """The response, or 304 where the client has it already (RFC 9110 section 13.1.2)."""
    tag = response.headers.get("etag")
    asked = request.headers.get("if-none-match")
    if response.status != 200 or tag is None or asked is None or not any_tag(asked, tag, weak=True):
        return response
    kept = [
        pair for pair in response.headers.raw if not pair[0].startswith(b"content-") or pair[0] == b"content-location"
    ]
    return Response.trusted(b"", 304, *kept)


def _complete(response: Response, seconds: float | None, stale: float) -> None:
    """Add the headers by which others cache the response, too."""
    headers = response.headers
    if "etag" not in headers and response.status == 200:
        kind = headers.get("content-type", "").encode("latin-1")
        digest = blake2b(b"%d:%b" % (len(kind), kind) + response.body, digest_size=12).hexdigest()
        headers.add("etag", f'"{digest}"')
    if "cache-control" not in headers and "expires" not in headers and seconds is not None:
        more = f", stale-while-revalidate={int(stale)}" if stale >= 1 else ""
        headers.add("cache-control", f"max-age={int(seconds)}{more}")


def _vary(response: Response) -> frozenset[str]:
    """The names in `Vary`, in lower case."""
    lines = response.headers.getlist("vary")
    return frozenset(name for line in lines for part in line.split(",") if (name := part.strip(" \t").lower()))


def _allowed(lines: Sequence[str], expires: str | None) -> float | None:
    """For how many seconds `Cache-Control` and `Expires` allow a shared cache to keep a response; None for any."""
    given: dict[str, str] = {}
    for line in lines:
        for part in line.split(","):
            name, _, value = part.strip(" \t").partition("=")
            given[name.lower()] = value.strip('" \t')
    if given.keys() & {"private", "no-store", "no-cache"}:
        return 0
    for name in ("s-maxage", "max-age"):
        if name in given:
            return float(given[name]) if given[name].isdecimal() else 0
    if expires is None:
        return None
    try:
        return max(0.0, parsedate_to_datetime(expires).timestamp() - time())
    except ValueError:
        return 0  # RFC 9111 section 5.3: an invalid date, "0" above all, is one in the past
