"""What keeps the values of a cache: the protocol of its backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["CacheBackend", "LocalCacheBackend"]


@runtime_checkable
class CacheBackend(Protocol):
    """A cache backend: bytes by key, each with a time to live.

    A key is any text of up to 250 characters that UTF-8 can encode, without control characters; two that differ in any
    way are different keys. A time to live is in seconds, above 0, or None for ever; a value may go earlier, when there
    is no room. What is expired is gone for every method. Every method is atomic towards all others, also of other
    processes where the backend is shared between processes. A call that is cancelled has done all of its work or none,
    and breaks nothing.

    What a method raises when the backend cannot be reached is the backend's own affair: the cache above makes of it a
    miss, or an error. A value that it does not keep, because it is too large for example, replaces the one before all
    the same: there is none then.

    Attributes:
        shared: whether other processes see the same values.
    """

    shared: bool

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        ...

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values that are there, by key."""
        ...

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """Keep a value, in place of any other."""

    async def set_many(self, values: Mapping[str, bytes], ttl: float | None) -> None:
        """Keep values, in place of any others. Atomic for each of them, not for all together."""

    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Keep a value unless there is one; whether it was kept."""
        ...

    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        """Keep a value if the present one is `expected`, None being none; whether it was kept."""
        ...

    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        """Add to a counter, which begins at 0, and return it. `ttl` counts when it begins; later it stays.

        The value is the number in decimal digits, so that `get` and `set` see it as such.

        Raises:
            ValueError: the value that is there is no such number, or would leave the range of 64 bits.
        """
        ...

    async def touch(self, key: str, ttl: float | None) -> bool:
        """Give a value a new time to live; whether there is one."""
        ...

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values; how many there were."""
        ...

    async def clear(self, prefix: str = "") -> None:
        """Remove every value whose key begins with `prefix`."""


@runtime_checkable
class LocalCacheBackend(CacheBackend, Protocol):
    """A backend in this process's own memory: none of its methods waits, and none can fail for being out of reach.

    The cache above calls it without time limit and circuit breaker, and reads it without awaiting.
    """

    def peek(self, key: str) -> bytes | None:
        """The value, or None: what `get` gives, at once."""
        ...
