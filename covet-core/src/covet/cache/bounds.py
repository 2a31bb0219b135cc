"""A cache in one application: where its keys begin there, and how it reads and writes what is kept."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from random import random
from secrets import token_bytes
from time import time
from typing import Any, Final

from covet.cache import entries
from covet.cache.entries import MARK, Entry
from covet.cache.keys import PLAIN_LENGTH, TAG, VALUE, backend_key, prefix_of
from covet.cache.links import Link
from covet.events import CacheRead, CacheWritten

__all__ = ["DEFAULT", "TTL", "Bound", "Default", "done", "require_ttl"]


class Default(Enum):
    """Tells an argument that was not given from None."""

    DEFAULT = 0


DEFAULT: Final = Default.DEFAULT
"""The time to live that the settings say."""

TTL = float | Default | None
"""A time to live: seconds, None for ever, or what the settings say."""


class Bound:
    """A cache in one application.

    Args:
        link: its backend.
        namespace, version, ttl, jitter: the cache's own.
    """

    __slots__ = ("__weakref__", "hear", "jitter", "link", "namespace", "peek", "plain", "prefix", "ttl")

    def __init__(self, link: Link, namespace: str, version: int | str, ttl: TTL, jitter: float | None) -> None:
        settings = link.settings
        self.link = link
        self.peek = link.peek
        self.hear = link.hear
        self.namespace = namespace
        self.prefix = prefix_of(settings.namespace, namespace, version)
        self.plain = backend_key(self.prefix, VALUE, "")
        self.ttl = settings.ttl_seconds if isinstance(ttl, Default) else ttl
        self.jitter = settings.jitter if jitter is None else jitter

    def key(self, key: str) -> str:
        """The backend's key."""
        if key.__class__ is str and len(key) <= PLAIN_LENGTH and key.isprintable():
            return self.plain + key
        return backend_key(self.prefix, VALUE, key)

    def exact(self, ttl: TTL) -> float | None:
        """A time to live in seconds, without jitter.

        Raises:
            ValueError: it is not above 0.
        """
        if isinstance(ttl, Default):
            return self.ttl
        require_ttl(ttl)
        return ttl

    def seconds(self, ttl: TTL) -> float | None:
        """A time to live in seconds, less what the jitter takes."""
        exact = self.exact(ttl)
        return exact if exact is None or not self.jitter else exact * (1 - self.jitter * random())

    def told_read(self, hits: int, misses: int, *, stale: bool = False) -> None:
        """Tell the listeners of what was read."""
        if self.link.hear is not None:
            self.link.tell(lambda: CacheRead(self.link.name, self.namespace, hits, misses, stale))

    async def write(self, raws: Mapping[str, bytes], seconds: float | None) -> bool:
        """Keep what is encoded; whether the backend took it."""
        backend = self.link.backend
        if len(raws) == 1:
            ((place, raw),) = raws.items()
            if self.peek is not None and self.hear is None:
                await backend.set(place, raw, seconds)
                return True
            kept = await self.link.call(done(backend.set), place, raw, seconds, otherwise=False)
        else:
            kept = await self.link.call(done(backend.set_many), raws, seconds, otherwise=False)
        if kept and self.link.hear is not None:
            self.link.tell(
                lambda: CacheWritten(self.link.name, self.namespace, len(raws), sum(map(len, raws.values())))
            )
        return kept

    async def keep(
        self, place: str, payload: bytes, took: float, versions: Mapping[str, bytes], ttl: TTL, stale: float
    ) -> bool:
        """Keep what was computed, fresh for its time, and for `stale` seconds beyond."""
        seconds = self.seconds(ttl)
        now = time()
        until = math.inf if seconds is None else now + seconds
        raw = entries.pack(Entry(payload, now, until, took, versions))
        return await self.write({place: raw}, None if seconds is None else seconds + stale)

    async def find(self, place: str) -> Entry | None:
        """What is kept, fresh or stale, or None."""
        if self.peek is not None:
            raw = self.peek(place)
        else:
            raw = await self.link.call(self.link.backend.get, place, otherwise=None)
        if not raw:
            return None
        if raw[0] != MARK:
            return Entry(raw, 0.0, math.inf, 0.0, {})
        try:
            entry = entries.unpack(raw)
        except ValueError as error:
            self.link.failed("decode", error)
            return None
        return entry if not entry.tags or await self._valid([entry.tags]) == [True] else None

    def fresh(self, place: str) -> Callable[[], Awaitable[bytes | None]]:
        """What looks for a value that is fresh."""

        async def look() -> bytes | None:
            entry = await self.find(place)
            return entry.payload if entry is not None and time() < entry.fresh_until else None

        return look

    def newer(self, place: str, written: float) -> Callable[[], Awaitable[bytes | None]]:
        """What looks for a value that was written later."""

        async def look() -> bytes | None:
            entry = await self.find(place)
            return entry.payload if entry is not None and entry.written > written else None

        return look

    async def fresh_payload(self, raw: bytes) -> bytes | None:
        """The value in a kept entry if it is fresh and its tags are as they were."""
        entry = entries.unpack(raw)
        if time() >= entry.fresh_until or (entry.tags and await self._valid([entry.tags]) != [True]):
            return None
        return entry.payload

    async def fresh_payloads(self, found: Mapping[str, bytes]) -> dict[str, bytes]:
        """The values in kept entries that are fresh and whose tags are as they were."""
        payloads: dict[str, bytes] = {}
        tagged: dict[str, Entry] = {}
        now = time()
        for place, raw in found.items():
            if raw[:1] != bytes([MARK]):
                payloads[place] = raw
                continue
            try:
                entry = entries.unpack(raw)
            except ValueError as error:
                self.link.failed("decode", error)
                continue
            if now < entry.fresh_until:
                payloads[place] = entry.payload
                if entry.tags:
                    tagged[place] = entry
        for place, valid in zip(tagged, await self._valid([e.tags for e in tagged.values()]), strict=True):
            if not valid:
                del payloads[place]
        return payloads

    async def _valid(self, kept: Sequence[Mapping[str, bytes]]) -> list[bool]:
        """Whether tags have the versions they had, for each of several entries."""
        names = {self.prefix + name for tags in kept for name in tags}
        if not names:
            return [True] * len(kept)
        nothing: dict[str, bytes] = {}
        now = await self.link.call(self.link.backend.get_many, list(names), otherwise=nothing)
        return [all(now.get(self.prefix + name) == version for name, version in tags.items()) for tags in kept]

    async def tag_versions(self, tags: Sequence[str]) -> dict[str, bytes] | None:
        """The versions of tags, by the rest of their keys; None where the backend fails.

        A tag without one gets one that no tag has had, so that what was kept before stays invalid.
        """
        backend = self.link.backend
        places = [backend_key(self.prefix, TAG, tag) for tag in tags]
        found = await self.link.call(backend.get_many, places, otherwise=None)
        while found is not None and (missing := [place for place in places if place not in found]):
            for place in missing:
                await self.link.call(backend.add, place, token_bytes(8), None, otherwise=False)
            again = await self.link.call(backend.get_many, missing, otherwise=None)
            found = {**found, **again} if again else None
        return None if found is None else {place.removeprefix(self.prefix): version for place, version in found.items()}


def done(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[bool]]:
    """A method of a backend that gives True when it has done its work."""

    async def call(*args: Any) -> bool:
        await function(*args)
        return True

    call.__name__ = function.__name__
    return call


def require_ttl(ttl: TTL) -> None:
    """Check a time to live.

    Raises:
        ValueError: it is neither None nor seconds above 0.
    """
    if ttl is not None and (isinstance(ttl, Default) or not 0 < ttl < math.inf):
        raise ValueError(f"a time to live is in seconds, above 0, or None for ever; not {ttl!r}")
