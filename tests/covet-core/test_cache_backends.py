"""The cache backends pass the conformance kit; what is the memory backend's own: its bounds, eviction, and time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.cache import share
from tests.sqlite_cache import SQLiteCache

from covet.cache import CacheBackend, LocalCacheBackend, MemoryCache
from covet.cache.memory import ENTRY_BYTES
from covet.testing.conformance.cache import CacheBackendConformance

pytestmark = pytest.mark.anyio


class TestMemoryCache(CacheBackendConformance):
    @pytest.fixture
    async def backend(self) -> CacheBackend:
        return MemoryCache()


class TestSQLiteCache(CacheBackendConformance):
    short = 0.5

    @pytest.fixture
    async def backend(self, tmp_path: Path) -> CacheBackend:
        return SQLiteCache(tmp_path / "cache.db")

    @pytest.fixture
    async def another(self, backend: CacheBackend) -> CacheBackend:
        assert isinstance(backend, SQLiteCache)
        return SQLiteCache(backend.path)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_it_is_local() -> None:
    assert isinstance(MemoryCache(), LocalCacheBackend)
    assert not isinstance(SQLiteCache(":memory:"), LocalCacheBackend)


async def test_neither_bound_is_ever_passed() -> None:
    chance = random.Random(1)
    cache = MemoryCache(max_bytes=20_000, max_entries=40)
    for _ in range(20_000):
        key = f"key {chance.randrange(200)}"
        match chance.randrange(6):
            case 0 | 1 | 2:
                await cache.set(key, bytes(chance.randrange(2000)), chance.choice([None, 0.001, 100.0]))
            case 3:
                await cache.get(key)
            case 4:
                await cache.delete([key])
            case _:
                await cache.touch(key, 50.0)
        assert cache.size <= 20_000
        assert len(cache) <= 40
    for key in [f"key {number}" for number in range(200)]:
        await cache.delete([key])
    assert (len(cache), cache.size) == (0, 0)


async def test_what_is_too_large_is_not_kept_and_neither_is_what_was_there() -> None:
    cache = MemoryCache(max_bytes=1000)
    await cache.set("key", b"old", None)
    await cache.set("key", bytes(1000), None)
    assert await cache.get("key") is None
    assert cache.size == 0
    await cache.set("key", bytes(1000 - ENTRY_BYTES - 3), None)
    assert await cache.get("key") is not None


async def test_keys_are_counted_against_the_bytes() -> None:
    cache = MemoryCache(max_bytes=10 * (ENTRY_BYTES + 200))
    for number in range(100):
        await cache.set(f"{number:0200}", b"", None)
    assert len(cache) == 10


async def test_a_scan_does_not_drive_out_what_is_read_again_and_again() -> None:
    cache = MemoryCache(max_entries=100)
    hot = [f"hot {number}" for number in range(50)]
    for _ in range(4):
        for key in hot:
            if await cache.get(key) is None:
                await cache.set(key, b"1", None)
    for number in range(10_000):
        await cache.set(f"once {number}", b"1", None)
        if number % 100 == 0:
            for key in hot:
                await cache.get(key)
    assert len(await cache.get_many(hot)) == 50


@pytest.mark.parametrize("room", [100, 1000])
async def test_more_hits_than_with_least_recently_used(room: int) -> None:
    chance = random.Random(7)
    keys = [f"key {number}" for number in range(20_000)]
    weights = [1 / (number + 1) for number in range(20_000)]
    trace = chance.choices(keys, weights, k=60_000)
    hits, lru_hits = await share(trace, room)
    assert hits > lru_hits * 1.05


async def test_expired_entries_give_their_memory_back_without_being_asked_for() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    for number in range(1000):
        await cache.set(f"key {number}", b"1", 10.0)
    clock.now += 100
    for _ in range(40):
        await cache.set("other", b"1", None)
    assert len(cache) == 1


async def test_one_write_sweeps_a_few_alone() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    for number in range(1000):
        await cache.set(f"key {number}", b"1", 10.0)
    clock.now += 100
    await cache.set("other", b"1", None)
    assert 900 < len(cache) < 1000


async def test_what_was_given_more_time_is_not_swept_away() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    await cache.set("touched", b"1", 10.0)
    await cache.set("ever", b"1", 10.0)
    await cache.set("gone", b"1", 10.0)
    await cache.touch("touched", 50.0)
    await cache.touch("ever", None)
    clock.now += 20
    await cache.set("other", b"1", None)
    assert len(cache) == 3
    clock.now += 40
    for _ in range(3):
        await cache.set("other", b"1", None)
    assert len(cache) == 2
    assert await cache.get("ever") == b"1"


async def test_what_comes_and_goes_leaves_nothing_behind() -> None:
    cache = MemoryCache()
    for _ in range(10_000):
        await cache.set("key", b"1", 1000.0)
        await cache.delete(["key"])
    left = [*cache._small, *cache._main, *(entry for bucket in cache._buckets.values() for entry in bucket)]
    assert len(left) < 3000


async def test_clearing_a_part_keeps_the_books_right() -> None:
    cache = MemoryCache(max_entries=50)
    for number in range(50):
        await cache.set(f"{'ab'[number % 2]}{number}", b"12", 100.0)
    await cache.clear("a")
    assert len(cache) == 25
    await cache.clear("b")
    assert (len(cache), cache.size, cache._small_bytes, cache._small_count) == (0, 0, 0, 0)


@pytest.mark.parametrize(("max_bytes", "max_entries"), [(0, None), (-1, None), (100, 0), (100, -1)])
def test_bounds_are_above_zero(max_bytes: int, max_entries: int | None) -> None:
    with pytest.raises(ValueError, match="above 0"):
        MemoryCache(max_bytes=max_bytes, max_entries=max_entries)
