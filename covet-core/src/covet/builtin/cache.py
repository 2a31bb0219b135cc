"""The builtin plugin `cache`: the cache backend `memory`, in the worker's own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from covet.backends import Backend
from covet.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from covet.applications import Covet
    from covet.cache import MemoryCache

__all__ = ["MemoryCacheSettings", "covet_cache_backends"]


class MemoryCacheSettings(Struct, frozen=True, kw_only=True):
    """`[cache.ALIAS]` with `backend = "memory"`: each worker has one of its own."""

    max_bytes: Annotated[int, Meta(ge=1, description="Bytes of all entries, keys and tables included.")] = 64 * 2**20
    max_entries: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="How many entries; without it, as many as there is room for."),
    ] = None


def make(app: Covet, alias: str, settings: MemoryCacheSettings) -> MemoryCache:
    """The backend of one table."""
    from covet.cache import MemoryCache

    return MemoryCache(max_bytes=settings.max_bytes, max_entries=settings.max_entries)


@hookimpl
def covet_cache_backends() -> Mapping[str, Backend]:
    """The backend `memory`."""
    return {"memory": Backend(make, MemoryCacheSettings)}
