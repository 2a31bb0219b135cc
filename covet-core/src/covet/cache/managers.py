"""Caches: values under keys, with what makes computing them rare."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import isawaitable
from secrets import token_bytes
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from covet.cache import entries
from covet.cache.backends import CacheBackend
from covet.cache.bounds import DEFAULT, TTL, Bound, done, require_ttl
from covet.cache.entries import MARK, Entry, fresh_untagged
from covet.cache.flights import Look, Made, Make, apart, once, once_unless_busy
from covet.cache.keys import LEASE, PLAIN_LENGTH, TAG, VALUE, backend_key, prefix_of
from covet.cache.links import Link, Links, logger
from covet.cache.values import decode, encode, read
from covet.context import current_app, running
from covet.events import CacheComputed
from covet.exceptions import ConfigurationError, NoApplicationError
from covet.settings_sections import CacheSettings

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["CacheManager"]

T = TypeVar("T")
# Where a parameter is called `type`.
builtin_type = type


class CacheManager:
    """A cache: values under keys, in a backend.

        cache = CacheManager()                        # [cache.default]
        pages = CacheManager("pages", namespace="v")  # [cache.pages]
        local = CacheManager(backend=MemoryCache())   # a backend of its own; needs no application

    It may be made at module level: the backend is that of the running application, at the moment of use. Values come
    back with the types they had; each reader gets one of its own, so changing it changes nothing that is kept.

    A backend that is down, or takes longer than `timeout_seconds`, makes misses of what was asked and drops what was to
    be kept, is logged, and is an event; with `strict` in the settings it is an error. After several failures it is left
    alone for `cooldown_seconds`.

    Args:
        alias: the table `[cache.ALIAS]`.
        backend: a backend by its name, with its default settings, or itself.
        namespace: keeps the keys of this cache apart from those of others with the same backend.
        version: of what is kept: another one shares no value with this one.
        ttl: seconds, or None for ever; that of the settings by default.
        jitter: the share of its time by which a value may go earlier; that of the settings by default.
        type: what values are decoded into: for Structs, dataclasses and other classes. Without it a value is what it
            was, and must be made of Python's basic types.

    Raises:
        ConfigurationError: the arguments contradict each other.
        ValueError: `ttl` is not above 0, or `jitter` no share below 1.

    Every method raises `NoApplicationError` where it needs an application and none runs, `ConfigurationError` where the
    settings do not name the backend, `CacheKeyError` for a key that is no text, and `CacheUnavailableError` where the
    backend fails and the settings say `strict`. A call that is cancelled has done its work or has not.
    """

    def __init__(
        self,
        alias: str = "default",
        *,
        backend: str | CacheBackend | None = None,
        namespace: str = "",
        version: int | str = 1,
        ttl: TTL = DEFAULT,
        jitter: float | None = None,
        type: Any = None,
    ) -> None:
        if backend is not None and alias != "default":
            raise ConfigurationError(f"a cache has the alias {alias!r} or a backend of its own, {backend!r}: not both")
        if isinstance(backend, builtin_type):
            raise ConfigurationError(f"the backend of a cache is a name or an object, not the class {backend.__name__}")
        if ttl is not DEFAULT:
            require_ttl(ttl)
        if jitter is not None and not 0 <= jitter < 1:
            raise ValueError(f"jitter is a share from 0 to below 1, not {jitter}")
        self.alias = alias
        self.namespace = namespace
        self.version = version
        self.ttl = ttl
        self.jitter = jitter
        self.type = type
        self._backend = backend if isinstance(backend, str) else None
        self._fixed: Bound | None = None
        if backend is not None and not isinstance(backend, str):
            if not isinstance(backend, CacheBackend):
                raise ConfigurationError(f"{backend!r} is no cache backend: see covet.cache.CacheBackend")
            self._fixed = self._bind(Link.alone(backend, CacheSettings()))
        # What was worked out for the application that used this last. Neither is kept alive by it.
        self._app: Callable[[], Any] = _nothing
        self._last: Callable[[], Bound | None] = _nothing

    def __repr__(self) -> str:
        where = self._backend or (self.alias if self._fixed is None else self._fixed.link.name)
        return f"<CacheManager {where} namespace={self.namespace!r} version={self.version!r}>"

    def bound(self) -> Bound:
        """The cache in the application that runs here.

        Raises:
            NoApplicationError: none does, and the cache has no backend of its own.
            ConfigurationError: the settings do not name the backend.
        """
        if self._fixed is not None:
            return self._fixed
        try:
            app = running.get().app
        except LookupError:
            raise NoApplicationError(
                f"the cache {self._backend or self.alias!r} is that of an application, and none is running here: call "
                "this from a handler, a command or a task of one, enter it with `async with app.running():`, or give "
                "the cache a backend of its own: CacheManager(backend=MemoryCache())"
            ) from None
        if app is self._app() and (bound := self._last()) is not None:
            return bound
        links = Links.of(app)
        bound = links.bounds.get(self)
        if bound is None:
            bound = links.bounds[self] = self._bind(links.find(app, self.alias, self._backend))
        self._app, self._last = ref(app), ref(bound)
        return bound

    def _bind(self, link: Link) -> Bound:
        return Bound(link, self.namespace, self.version, self.ttl, self.jitter)

    # Reading

    async def get(self, key: str, default: Any = None, *, type: Any = None) -> Any:
        """The value under a key, or `default`. A None that was kept is a value: tell it from a miss by the default.

        A value that cannot be read, such as one that another release of the program kept, is a miss.

        Args:
            type: what it is decoded into; that of the cache by default.
        """
        bound = self._fixed or self.bound()
        # Written out rather than called: this is what a cache does most.
        if key.__class__ is str and len(key) <= PLAIN_LENGTH and key.isprintable():
            where = bound.plain + key
        else:
            where = backend_key(bound.prefix, VALUE, key)
        peek = bound.peek
        if peek is not None:
            raw = peek(where)
        else:
            raw = await bound.link.call(bound.link.backend.get, where, otherwise=None)
        hit = 0
        if raw is not None:
            try:
                first = raw[0]
                if first == MARK:
                    raw = fresh_untagged(raw) or await bound.fresh_payload(raw)
                if raw is not None:
                    kind = type or self.type
                    default = read(raw) if kind is None and 0x80 <= first != MARK else decode(raw, kind)
                    hit = 1
            except (ValueError, IndexError) as error:
                bound.link.failed("decode", error)
        if bound.hear is not None and bound.hear() is not None:
            bound.told_read(hit, 1 - hit)
        return default

    async def get_many(self, keys: Iterable[str], *, type: Any = None) -> dict[str, Any]:
        """The values that are there, by key, with one question to the backend."""
        bound = self.bound()
        places = {bound.key(key): key for key in keys}
        backend = bound.link.backend
        found: dict[str, bytes] = {}
        if places:
            found = await bound.link.call(backend.get_many, list(places), otherwise=found)
        payloads = await bound.fresh_payloads(found)
        values = {}
        for place, raw in payloads.items():
            try:
                values[places[place]] = decode(raw, type or self.type)
            except ValueError as error:
                bound.link.failed("decode", error)
        bound.told_read(len(values), len(places) - len(values))
        return values

    # Writing

    async def set(
        self, key: str, value: Any, ttl: TTL = DEFAULT, *, tags: Iterable[str] = (), type: Any = None
    ) -> bool:
        """Keep a value, in place of any other.

        Args:
            ttl: seconds, above 0; None for ever, or until there is no room. The jitter makes it less.
            tags: names by which it can be invalidated together with others.
            type: as for `get`; the same there and here.

        Returns:
            Whether the backend took it.

        Raises:
            CacheValueError: the value cannot be encoded; the error names its type and the key.
            ValueError: `ttl` is not above 0.
        """
        if tags:
            return await self.set_many({key: value}, ttl, tags=tags, type=type)
        bound = self._fixed or self.bound()
        return await bound.write({bound.key(key): encode(value, key, type or self.type)}, bound.seconds(ttl))

    async def set_many(
        self, values: Mapping[str, Any], ttl: TTL = DEFAULT, *, tags: Iterable[str] = (), type: Any = None
    ) -> bool:
        """Keep several values, in place of any others; as `set`."""
        bound = self.bound()
        seconds = bound.seconds(ttl)
        raws = {bound.key(key): encode(value, key, type or self.type) for key, value in values.items()}
        if tagged := list(tags):
            versions = await bound.tag_versions(tagged)
            if versions is None:
                return False
            now = time()
            until = math.inf if seconds is None else now + seconds
            raws = {place: entries.pack(Entry(raw, now, until, 0.0, versions)) for place, raw in raws.items()}
        return await bound.write(raws, seconds)

    async def add(self, key: str, value: Any, ttl: TTL = DEFAULT, *, type: Any = None) -> bool:
        """Keep a value unless there is one; whether it was kept. Of many who do so at once, one succeeds.

        Where the backend fails, False.

        Raises:
            CacheValueError, ValueError: as `set`.
        """
        bound = self.bound()
        raw = encode(value, key, type or self.type)
        seconds = bound.exact(ttl)
        return await bound.link.call(bound.link.backend.add, bound.key(key), raw, seconds, otherwise=False)

    async def incr(self, key: str, by: int = 1, ttl: TTL = DEFAULT) -> int:
        """Add to a whole number, which begins at 0, and return it; atomic. `ttl` counts when it begins.

        Raises:
            CacheValueError: the value that is there is no whole number, or would have more than 64 bits.
            CacheUnavailableError: the backend fails: no other number would be harmless. Also where nothing is strict.
        """
        bound = self.bound()
        increment = bound.link.backend.increment
        return await bound.link.call(increment, bound.key(key), by, bound.exact(ttl), otherwise=0, strict=True)

    async def touch(self, key: str, ttl: TTL = DEFAULT) -> bool:
        """Give a value a new time to live, counted from now; whether there is one."""
        bound = self.bound()
        place, seconds, backend = bound.key(key), bound.exact(ttl), bound.link.backend
        while (raw := await bound.link.call(backend.get, place, otherwise=None)) is not None:
            if raw[:1] != bytes([MARK]):
                return await bound.link.call(backend.touch, place, seconds, otherwise=False)
            if await bound.fresh_payload(raw) is None:
                return False
            until = math.inf if seconds is None else time() + seconds
            changed = entries.pack(entries.unpack(raw)._replace(fresh_until=until))
            swap = backend.compare_and_set
            if await bound.link.call(swap, place, raw, changed, seconds, otherwise=True):
                return True
        return False

    async def delete(self, *keys: str) -> int:
        """Remove values; how many there were."""
        bound = self.bound()
        return await bound.link.call(bound.link.backend.delete, [bound.key(key) for key in keys], otherwise=0)

    async def clear(self, *, every_version: bool = False) -> None:
        """Remove every value of this namespace and version, or of all versions of the namespace.

        What is computed meanwhile is kept when it is done; to keep it out, give values a tag and invalidate that.
        """
        bound = self.bound()
        prefix = prefix_of(bound.link.settings.namespace, self.namespace) if every_version else bound.prefix
        await bound.link.call(bound.link.backend.clear, prefix, otherwise=None)

    async def invalidate(self, *tags: str) -> bool:
        """Make misses of all values with one of these tags, at a cost that does not depend on how many they are.

        A value that was begun to be computed before is one of them. Whether the backend took it.
        """
        bound = self.bound()
        versions = {backend_key(bound.prefix, TAG, tag): token_bytes(8) for tag in tags}
        return await bound.link.call(done(bound.link.backend.set_many), versions, None, otherwise=False)

    # Computing

    async def get_or_set(
        self,
        key: str,
        function: Callable[[], Awaitable[T] | T],
        ttl: TTL = DEFAULT,
        *,
        tags: Iterable[str] = (),
        type: Any = None,
        none_ttl: TTL = DEFAULT,
        beta: float = 1.0,
        stale_while_revalidate: float = 0.0,
    ) -> T:
        """The value under a key, computed by `function` when there is none.

        Of those who ask while it is computed, none computes it again: they wait, in this process, and in others where
        the backend is shared. If who computes is cancelled, one of the others takes over with its own function. An
        error of the function reaches all who wait in this process and is not kept. Where the backend is down the value
        is computed, still once for all who ask at the same time.

        Before the end of its time a value is computed anew by one reader, at random, likelier the closer the end is and
        the longer the computation takes (XFetch); the others go on with the one there is. If that fails, it is logged,
        and the reader has the one there is, too.

        Args:
            function: without arguments, asynchronous or plain; a plain one runs on the event loop and must not block.
            ttl, tags, type: as for `set`.
            none_ttl: seconds for which None is kept; `ttl` by default.
            beta: above 1 for computing earlier, 0 for never before the end.
            stale_while_revalidate: seconds after its end for which a value is still given out while it is computed
                anew: by a task of the application, or by the reader itself where none runs. The function must not
                use what belongs to a request then.

        Raises:
            CacheValueError: the value cannot be encoded.
            CacheError: the function asks for this very value.
            Exception: what the function raises.

        Cancellation ends the computation if it is this caller's.
        """
        bound = self.bound()
        place = bound.key(key)
        kind = type or self.type

        async def make() -> Made:
            labels = list(tags)
            versions = await bound.tag_versions(labels) if labels else {}
            began = perf_counter()
            value: Any = function()
            if isawaitable(value):
                value = await value
            took = perf_counter() - began
            bound.link.tell(lambda: CacheComputed(bound.link.name, self.namespace, took))
            payload = encode(value, key, kind)
            if versions is not None:
                own = none_ttl if value is None and none_ttl is not DEFAULT else ttl
                await bound.keep(place, payload, took, versions, own, stale_while_revalidate)
            return Made(payload, value, own=True)

        found = await bound.find(place)
        value: Any = DEFAULT
        if found is not None:
            try:
                value = decode(found.payload, kind)
            except ValueError as error:
                bound.link.failed("decode", error)
        if found is None or value is DEFAULT:
            bound.told_read(0, 1)
            # What cannot be read would be found again.
            look = bound.fresh(place) if found is None else bound.newer(place, found.written)
            made = await once(bound.link, place, backend_key(bound.prefix, LEASE, key), look, make)
            result: T = made.result if made.own else decode(made.raw or b"", kind)
            return result
        now = time()
        bound.told_read(1, 0, stale=now >= found.fresh_until)
        if not found.due(now, beta):
            return value  # type: ignore[no-any-return]
        lease = backend_key(bound.prefix, LEASE, key)
        if now >= found.fresh_until and (app := _running_app()) is not None:
            if place not in bound.link.flights:
                look = bound.newer(place, found.written)
                app.tasks.start_soon(_refresh, app, bound, place, lease, look, make, name=f"refresh {key!r}")
            return value  # type: ignore[no-any-return]
        try:
            renewed = await once_unless_busy(bound.link, place, lease, bound.newer(place, found.written), make)
        except Exception:  # noqa: BLE001 - it is logged, and there is a value
            logger.exception("computing %r anew failed; the value before is used", key)
            return value  # type: ignore[no-any-return]
        return renewed.result if renewed is not None and renewed.own else value  # type: ignore[no-any-return]


async def _refresh(app: Covet, bound: Bound, place: str, lease: str, look: Look, make: Make) -> None:
    # Of the request that met the stale value, nothing stays: it may be over.
    running.set(app)
    apart()
    await once_unless_busy(bound.link, place, lease, look, make)


def _running_app() -> Covet | None:
    """The application that runs here, if it can run tasks."""
    if running.get(None) is None:
        return None
    app = current_app()
    return app if app.tasks.running else None


def _nothing() -> None:
    return None
