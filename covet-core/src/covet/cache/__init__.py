"""Caching: what was computed once is kept for those who ask next.

    from covet.cache import CacheManager, cached

    cache = CacheManager()

    @cached(60)
    async def rates(currency: str) -> dict[str, float]: ...

A `CacheManager` keeps values under keys; `cached` keeps what a function returns, or the responses of a route. Where
they are kept is the backend's affair (`covet.cache.backends`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from covet.cache.backends import CacheBackend, LocalCacheBackend

if TYPE_CHECKING:
    from covet.cache.decorators import cached as cached
    from covet.cache.errors import CacheError as CacheError
    from covet.cache.errors import CacheKeyError as CacheKeyError
    from covet.cache.errors import CacheUnavailableError as CacheUnavailableError
    from covet.cache.errors import CacheValueError as CacheValueError
    from covet.cache.managers import CacheManager as CacheManager
    from covet.cache.memory import MemoryCache as MemoryCache

__all__ = [
    "CacheBackend",
    "CacheError",
    "CacheKeyError",
    "CacheManager",
    "CacheUnavailableError",
    "CacheValueError",
    "LocalCacheBackend",
    "MemoryCache",
    "cached",
]

_HOMES = {
    "CacheError": "errors",
    "CacheKeyError": "errors",
    "CacheManager": "managers",
    "CacheUnavailableError": "errors",
    "CacheValueError": "errors",
    "MemoryCache": "memory",
    "cached": "decorators",
}


def __getattr__(name: str) -> object:
    # Who only implements or names a backend loads nothing else.
    if name not in _HOMES:
        raise AttributeError(f"module 'covet.cache' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"covet.cache.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
