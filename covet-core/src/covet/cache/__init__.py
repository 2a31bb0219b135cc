"""Caching."""

from covet.cache.backends import CacheBackend

__all__ = ["CacheBackend"]
