"""The errors of caching."""

from __future__ import annotations

from covet.exceptions import CovetError

__all__ = ["CacheError", "CacheKeyError", "CacheUnavailableError", "CacheValueError"]


class CacheError(CovetError):
    """A cache cannot do what it was asked to do."""


class CacheKeyError(CacheError):
    """Something makes no key: it is no text, or an argument that nothing can be told apart by."""


class CacheValueError(CacheError):
    """A value cannot be encoded, or is not the number that was expected."""


class CacheUnavailableError(CacheError):
    """The backend failed or took too long, and the cache is strict or has no harmless answer."""
