"""The cache backend `database`, on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from covet.cache import CacheBackend
from covet.testing.conformance.cache import CacheBackendConformance
from covet_orm.cache import DatabaseCache
from covet_orm.databases import Database


class TestKit(CacheBackendConformance):
    """The kit, unchanged."""

    @pytest.fixture
    async def backend(self, url: str) -> AsyncIterator[CacheBackend]:
        async with Database(url) as database:
            cache = DatabaseCache(database)
            await cache.table.create()
            yield cache

    @pytest.fixture
    async def another(self, backend: CacheBackend, url: str) -> AsyncIterator[CacheBackend]:
        async with Database(url, alias="another") as database:
            yield DatabaseCache(database)
