"""Caches: values under keys, and what makes computing them rare; also where the backend is down, slow or shared."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from weakref import ref

import anyio
import pytest
from anyio.lowlevel import checkpoint
from msgspec import Struct
from tests.sqlite_cache import SQLiteCache, SQLiteCachePlugin

import covet
from covet import ConfigurationError, Covet, NoApplicationError
from covet.backends import Backend
from covet.cache import (
    CacheBackend,
    CacheError,
    CacheKeyError,
    CacheManager,
    CacheUnavailableError,
    CacheValueError,
    MemoryCache,
    cached,
)
from covet.events import CacheComputed, CacheFailed, CacheRead, CacheWritten, CircuitChanged, Event
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await

pytestmark = pytest.mark.anyio


class User(Struct):
    name: str
    born: date


class Broken(MemoryCache):
    """A backend behind a network, which can be cut or slow."""

    shared = True
    peek = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.hangs = False
        self.calls = 0

    async def reach(self) -> None:
        self.calls += 1
        await checkpoint()
        if self.hangs:
            await anyio.sleep_forever()
        if self.down:
            raise ConnectionError("refused")

    async def get(self, key: str) -> bytes | None:
        await self.reach()
        return MemoryCache.peek(self, key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        await self.reach()
        return {key: value for key in keys if (value := MemoryCache.peek(self, key)) is not None}

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        await self.reach()
        self._put(key, value, ttl)

    async def set_many(self, values: Mapping[str, bytes], ttl: float | None) -> None:
        await self.reach()
        for key, value in values.items():
            self._put(key, value, ttl)

    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        await self.reach()
        if MemoryCache.peek(self, key) != expected:
            return False
        self._put(key, value, ttl)
        return True

    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        await self.reach()
        number = int(MemoryCache.peek(self, key) or b"0") + by
        self._put(key, b"%d" % number, ttl)
        return number

    async def touch(self, key: str, ttl: float | None) -> bool:
        await self.reach()
        found = MemoryCache.peek(self, key)
        if found is not None:
            self._put(key, found, ttl)
        return found is not None

    async def delete(self, keys: Sequence[str]) -> int:
        await self.reach()
        there = [key for key in keys if MemoryCache.peek(self, key) is not None]
        for key in there:
            self._remove(self._table[key])
        return len(there)

    async def clear(self, prefix: str = "") -> None:
        await self.reach()
        await MemoryCache.clear(self, prefix)


class Plugin:
    """Brings a backend, and listens."""

    def __init__(self, backend: CacheBackend) -> None:
        self.backend = backend
        self.events: list[Event] = []

    @covet.hookimpl
    def covet_cache_backends(self) -> dict[str, Backend]:
        return {"broken": Backend(lambda app, alias, settings: self.backend)}

    @covet.hookimpl
    def covet_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def broken_app(**settings: Any) -> tuple[Covet, Broken, Plugin]:
    backend = Broken()
    plugin = Plugin(backend)
    table = {"backend": "broken", "jitter": 0.0, **settings}
    return plugin_sandbox(plugin, settings={"cache": {"default": table}}), backend, plugin


@pytest.fixture(params=["memory", "network", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> CacheBackend:
    """One of each kind: at hand, far away, shared between processes."""
    if request.param == "memory":
        return MemoryCache()
    return Broken() if request.param == "network" else SQLiteCache(tmp_path / "cache.db")


@pytest.fixture
def cache(backend: CacheBackend) -> CacheManager:
    return CacheManager(backend=backend, jitter=0.0)


async def together(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What calls give, or raise, that are made at the same time."""
    found: list[Any] = [None] * len(calls)

    async def run(number: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            found[number] = await call()
        except Exception as error:
            found[number] = error

    async with anyio.create_task_group() as group:
        for number, call in enumerate(calls):
            group.start_soon(run, number, call)
    return found


# Values under keys


async def test_values_under_keys(cache: CacheManager) -> None:
    assert await cache.get("key") is None
    assert await cache.get("key", 7) == 7
    assert await cache.set("key", {"a": (1, {2})}) is True
    assert await cache.get("key") == {"a": (1, {2})}
    assert await cache.set_many({"one": 1, "two": b"2", "none": None})
    assert await cache.get_many(["one", "two", "none", "missing"]) == {"one": 1, "two": b"2", "none": None}
    assert await cache.add("one", 5) is False
    assert await cache.add("three", 3) is True
    assert await cache.delete("one", "two", "missing") == 2
    assert await cache.get("one", "gone") == "gone"
    assert await cache.get_many([]) == {}


async def test_none_is_a_value_and_no_miss(cache: CacheManager) -> None:
    await cache.set("key", None)
    assert await cache.get("key", "missing") is None
    calls = []
    for _ in range(3):
        assert await cache.get_or_set("computed", lambda: calls.append(1)) is None
    assert len(calls) == 1


async def test_none_may_be_kept_for_another_time(cache: CacheManager) -> None:
    calls = []
    for _ in range(2):
        await cache.get_or_set("none", lambda: calls.append(1), 1000, none_ttl=0.05)
        await anyio.sleep(0.1)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "key", ["", " ", "a\0b", "\ud800", "\U0001f600", "x" * 100_000, "a\nb", "é" * 101, "../..", "%s"]
)
async def test_any_text_is_a_key(cache: CacheManager, key: str) -> None:
    await cache.set(key, "value")
    await cache.set(key + "x", "other")
    assert await cache.get(key) == "value"
    assert await cache.get_many([key]) == {key: "value"}
    assert await cache.get_or_set(key, lambda: "computed") == "value"
    assert await cache.delete(key) == 1


async def test_what_is_no_text_is_no_key(cache: CacheManager) -> None:
    for key in (None, 5, b"a"):
        with pytest.raises(CacheKeyError):
            await cache.get(key)  # type: ignore[arg-type]
        with pytest.raises(CacheKeyError):
            await cache.set(key, 1)  # type: ignore[arg-type]


async def test_counters(cache: CacheManager) -> None:
    assert await cache.incr("n") == 1
    assert await cache.incr("n", 9) == 10
    assert await cache.incr("n", -20) == -10
    assert await cache.get("n") == -10
    await cache.set("n", 41)
    assert await cache.incr("n") == 42
    assert sorted(await together(*[lambda: cache.incr("m")] * 20)) == list(range(1, 21))


async def test_what_is_no_number_is_not_counted() -> None:
    cache = CacheManager(backend=MemoryCache())
    await cache.set("text", "a")
    with pytest.raises(CacheValueError, match="is no number"):
        await cache.incr("text")
    await cache.set("n", 2**63 - 1)
    with pytest.raises(CacheValueError, match="64 bits"):
        await cache.incr("n")


async def test_time_to_live(cache: CacheManager) -> None:
    await cache.set("short", 1, 1.0)
    await cache.set("ever", 1, None)
    await cache.set("touched", 1, 1.0)
    await cache.get_or_set("computed", lambda: 1, 1.0, beta=0.0)
    await cache.get_or_set("touched too", lambda: 1, 1.0, beta=0.0)
    assert await cache.touch("touched", 1000)
    assert await cache.touch("touched too", 1000)
    assert not await cache.touch("missing", 1000)
    assert await cache.get("short") == 1
    await anyio.sleep(1.2)
    names = ["short", "ever", "touched", "computed", "touched too"]
    assert set(await cache.get_many(names)) == {"ever", "touched", "touched too"}
    assert await cache.get("short") is None
    assert await cache.get("computed") is None
    assert await cache.get_or_set("touched too", lambda: 2, beta=0.0) == 1


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), -0.5])
async def test_a_time_to_live_is_above_zero(cache: CacheManager, ttl: float) -> None:
    for call in (
        lambda: cache.set("k", 1, ttl),
        lambda: cache.add("k", 1, ttl),
        lambda: cache.incr("k", 1, ttl),
        lambda: cache.touch("k", ttl),
    ):
        with pytest.raises(ValueError, match="above 0"):
            await call()
    with pytest.raises(ValueError, match="above 0"):
        CacheManager(ttl=ttl)
    with pytest.raises(ValueError, match="above 0"):
        cached(ttl)


async def test_the_jitter_makes_times_differ_and_never_longer() -> None:
    clock = 1000.0
    backend = MemoryCache(clock=lambda: clock)
    cache = CacheManager(backend=backend, jitter=0.5)
    keys = [f"key {number}" for number in range(400)]
    for key in keys:
        await cache.set(key, 1, 100)
    await cache.add("lock", 1, 100)
    clock += 49
    assert len(await cache.get_many(keys)) == 400
    clock += 26
    assert 100 < len(await cache.get_many(keys)) < 300
    clock += 24
    assert await cache.get("lock") == 1
    clock += 2
    assert await cache.get_many(keys) == {}
    with pytest.raises(ValueError, match="jitter"):
        CacheManager(jitter=1.0)


async def test_a_value_is_its_readers_own(cache: CacheManager) -> None:
    made = await cache.get_or_set("key", lambda: [1])
    made.append(2)
    (await cache.get("key")).append(3)
    (await cache.get_or_set("key", lambda: [0])).append(4)
    assert await cache.get("key") == [1]


async def test_types(cache: CacheManager) -> None:
    user = User("a", date(2000, 1, 2))
    with pytest.raises(CacheValueError, match=r"User.*'key'.*type=User"):
        await cache.set("key", user)
    await cache.set("key", user, type=User)
    assert await cache.get("key", type=User) == user
    assert await cache.get_many(["key"], type=User) == {"key": user}
    users = CacheManager(backend=cache.bound().link.backend, type=User, namespace="users")
    assert await users.get_or_set("a", lambda: user) == user
    assert await users.get("a") == user
    assert await users.get_or_set("a", lambda: User("b", date.min)) == user


async def test_what_another_release_kept_is_a_miss(cache: CacheManager, caplog: pytest.LogCaptureFixture) -> None:
    await cache.set("key", {"other": 1})
    assert await cache.get("key", "miss", type=User) == "miss"
    assert await cache.get_many(["key"], type=User) == {}
    user = User("a", date.min)
    assert await cache.get_or_set("key", lambda: user, type=User) == user
    assert await cache.get("key", type=User) == user
    assert "failed at decode" in caplog.text


async def test_foreign_bytes_are_a_miss(cache: CacheManager, backend: CacheBackend) -> None:
    place = cache.bound().key("key")
    for raw in (b"", b"\xc1", b"\xc1\xff\xff", b"\x81", b"abc", b"\xd9"):
        await backend.set(place, raw, None)
        assert await cache.get("key", "miss") == "miss"
        assert await cache.get_many(["key"]) == {}
        assert await cache.get_or_set("key", lambda: "new") == "new"


# Apart and together


async def test_namespaces_and_versions_are_apart(backend: CacheBackend) -> None:
    caches = [
        CacheManager(backend=backend, namespace=namespace, version=version)
        for namespace in ("", "a", "a:b", "b" * 100)
        for version in (1, 2, "1:2")
    ]
    for number, cache in enumerate(caches):
        await cache.set("key", number)
    assert [await cache.get("key") for cache in caches] == list(range(12))
    await caches[4].clear()
    assert [await cache.get("key") for cache in caches] == [0, 1, 2, 3, None, *range(5, 12)]
    await caches[3].clear(every_version=True)
    assert [await cache.get("key") for cache in caches] == [0, 1, 2, None, None, None, *range(6, 12)]


async def test_tags(cache: CacheManager) -> None:
    await cache.set("a", 1, tags=["red", "round"])
    await cache.set_many({"b": 2, "c": 3}, tags=["red"])
    assert await cache.get_or_set("d", lambda: 4, tags=["\ud800\0" * 200]) == 4
    await cache.set("e", 5)
    assert await cache.get_many("abcde") == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert await cache.get("a") == 1
    assert await cache.invalidate("round")
    assert await cache.get_many("abcde") == {"b": 2, "c": 3, "d": 4, "e": 5}
    await cache.set("a", 6, tags=["round"])
    await cache.invalidate("red", "\ud800\0" * 200)
    assert await cache.get_many("abcde") == {"a": 6, "e": 5}
    assert await cache.get("b") is None
    assert await cache.get_or_set("b", lambda: 7, tags=["red"]) == 7
    assert await cache.get_or_set("d", lambda: 8) == 8
    assert not await cache.touch("c", 100)


async def test_a_tag_that_the_backend_forgot_makes_misses(cache: CacheManager, backend: CacheBackend) -> None:
    await cache.set("a", 1, tags=["red"])
    await backend.clear(cache.bound().prefix + "t")
    assert await cache.get("a") is None
    await cache.set("b", 1, tags=["red"])
    assert await cache.get_many(["a", "b"]) == {"b": 1}


async def test_what_was_begun_before_an_invalidation_is_invalid(cache: CacheManager) -> None:
    async def compute() -> str:
        await cache.invalidate("red")
        return "old"

    assert await cache.get_or_set("key", compute, tags=["red"]) == "old"
    assert await cache.get("key") is None


# Single flight


async def test_a_thousand_misses_compute_once(cache: CacheManager) -> None:
    calls = []

    async def compute() -> list[int]:
        calls.append(1)
        await anyio.sleep(0.05)
        return [1]

    number = 20 if isinstance(cache.bound().link.backend, SQLiteCache) else 1000
    found = await together(*[lambda: cache.get_or_set("key", compute)] * number)
    assert len(calls) == 1
    assert found == [[1]] * number
    assert len({id(value) for value in found}) == number
    assert cache.bound().link.flights == {}


async def test_different_keys_are_computed_at_the_same_time(cache: CacheManager) -> None:
    arrived = []
    both = anyio.Event()

    async def compute() -> int:
        arrived.append(1)
        if len(arrived) == 2:
            both.set()
        await both.wait()
        return 1

    with anyio.fail_after(10):
        await together(lambda: cache.get_or_set("a", compute), lambda: cache.get_or_set("b", compute))


async def test_an_error_reaches_all_who_wait_and_is_not_kept(cache: CacheManager) -> None:
    calls = []

    async def compute() -> int:
        calls.append(1)
        await anyio.sleep(0.05)
        if len(calls) == 1:
            raise LookupError("no such thing")
        return 5

    found = await together(*[lambda: cache.get_or_set("key", compute)] * 10)
    assert len(calls) == 1
    assert [str(error) for error in found] == ["no such thing"] * 10
    assert len(set(map(id, found))) == 1
    assert found[0].__traceback__ is not None
    assert await cache.get_or_set("key", compute) == 5


async def test_cancelling_one_who_waits_or_who_computes_harms_nobody_else(cache: CacheManager) -> None:
    begun: list[str] = []
    started = anyio.Event()

    def compute(name: str) -> Callable[[], Awaitable[str]]:
        async def call() -> str:
            begun.append(name)
            started.set()
            await anyio.sleep(0.2)
            return name

        return call

    found: dict[str, str] = {}

    async def ask(name: str, *, task_status: Any) -> None:
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            found[name] = await cache.get_or_set("key", compute(name))

    async with anyio.create_task_group() as group:
        scopes = {"first": await group.start(ask, "first")}
        with anyio.fail_after(10):
            await started.wait()
        for name in ("second", "third", "fourth"):
            scopes[name] = await group.start(ask, name)
        assert begun == ["first"]
        scopes["third"].cancel()
        await anyio.sleep(0.02)
        scopes["first"].cancel()
    assert begun == ["first", begun[1]]
    assert found in ({"second": name, "fourth": name} for name in ("second", "fourth"))
    assert cache.bound().link.flights == {}


async def test_a_computation_may_be_cancelled_anywhere(cache: CacheManager) -> None:
    calls = []

    async def compute() -> int:
        calls.append(1)
        await checkpoint()
        return 1

    async def check() -> None:
        # Nothing hangs, neither in this process nor at a lease.
        with anyio.fail_after(5):
            assert await cache.get_or_set("key", compute, tags=["t"]) == 1
        assert cache.bound().link.flights == {}
        await cache.delete("key")

    assert await at_every_await(lambda: cache.get_or_set("key", compute, tags=["t"]), check) > 0


async def test_a_value_that_cannot_be_kept_is_an_error_for_all(cache: CacheManager) -> None:
    async def compute() -> object:
        await checkpoint()
        return object()

    found = await together(*[lambda: cache.get_or_set("key", compute)] * 3)
    assert [type(error) for error in found] == [CacheValueError] * 3


async def test_what_needs_itself_says_so_and_does_not_wait(cache: CacheManager) -> None:
    async def own() -> int:
        return await cache.get_or_set("key", own)

    with anyio.fail_after(10), pytest.raises(CacheError, match="needs that very value"):
        await cache.get_or_set("key", own)

    async def a() -> int:
        await anyio.sleep(0.05)
        return await cache.get_or_set("b", b)

    async def b() -> int:
        await anyio.sleep(0.05)
        return await cache.get_or_set("a", a)

    with anyio.fail_after(10):
        found = await together(lambda: cache.get_or_set("a", a), lambda: cache.get_or_set("b", b))
    assert {type(error) for error in found} == {CacheError}


async def test_computations_may_need_others(cache: CacheManager) -> None:
    async def outer() -> int:
        return 1 + await cache.get_or_set("inner", lambda: 1)

    assert await together(*[lambda: cache.get_or_set("outer", outer)] * 5) == [2] * 5


# Early and late


async def test_a_value_is_computed_anew_before_its_end(cache: CacheManager) -> None:
    calls = []

    async def compute() -> int:
        calls.append(1)
        await anyio.sleep(0.01)
        return len(calls)

    assert await cache.get_or_set("key", compute, 1000) == 1
    assert await cache.get_or_set("key", compute, 1000) == 1
    # So dear that now is close to the end.
    assert await cache.get_or_set("key", compute, 1000, beta=1e9) == 2
    assert await cache.get_or_set("key", compute, 1000) == 2


async def test_while_one_is_early_the_others_have_the_value(cache: CacheManager) -> None:
    began, may_end = anyio.Event(), anyio.Event()

    async def compute() -> str:
        began.set()
        await may_end.wait()
        return "new"

    await cache.get_or_set("key", lambda: "old", 1000)
    # It took no time, so not even a large beta makes it early: give it a cost.
    place, backend = cache.bound().key("key"), cache.bound().link.backend
    entry = await cache.bound().find(place)
    assert entry is not None
    await cache.bound().keep(place, entry.payload, 10.0, {}, 1000, 0.0)
    found: list[str] = []

    async def early() -> None:
        found.append(await cache.get_or_set("key", compute, 1000, beta=1e9))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(early)
            await began.wait()
            for _ in range(3):
                assert await cache.get_or_set("key", compute, 1000, beta=1e9) == "old"
            may_end.set()
    assert found == ["new"]
    assert await cache.get("key") == "new"
    assert backend is not None


async def test_an_early_computation_that_fails_leaves_the_value(
    cache: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> int:
        raise LookupError("down")

    await cache.get_or_set("key", lambda: time.sleep(0.01), 1000)
    assert await cache.get_or_set("key", fail, 1000, beta=1e12) is None
    assert "computing 'key' anew failed" in caplog.text


async def test_a_stale_value_is_given_out_while_a_task_computes_it_anew() -> None:
    app = plugin_sandbox("cache", settings={"cache": {"default": {"jitter": 0.0}}})
    cache = CacheManager()
    calls: list[object] = []
    may_end = anyio.Event()

    async def compute() -> int:
        calls.append(covet.context.current_request())
        if len(calls) > 1:
            await may_end.wait()
        return len(calls)

    async def ask() -> int:
        return await cache.get_or_set("key", compute, 0.1, stale_while_revalidate=1000)

    with anyio.fail_after(10):
        async with app.running():
            assert await ask() == 1
            await anyio.sleep(0.2)
            assert [await ask() for _ in range(5)] == [1] * 5
            assert await cache.get("key") is None
            may_end.set()
            await app.tasks.drain(10)
            assert calls[1:] == [None]
            assert await cache.get_or_set("key", lambda: 9, 0.1, stale_while_revalidate=1000) == 2


async def test_the_task_that_computes_anew_has_no_request() -> None:
    app = plugin_sandbox("cache", settings={"cache": {"default": {"jitter": 0.0}}})
    cache = CacheManager()
    requests: list[object] = []

    async def compute() -> None:
        requests.append(covet.context.current_request())

    @app.get("/")
    async def handler() -> None:
        await cache.get_or_set("key", compute, 0.05, stale_while_revalidate=1000)

    async with TestClient(app) as client:
        await client.get("/")
        await anyio.sleep(0.1)
        await client.get("/")
        await app.tasks.drain(10)
    assert requests[0] is not None
    assert requests[1] is None


async def test_without_an_application_who_meets_a_stale_value_computes(cache: CacheManager) -> None:
    calls = []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    assert await cache.get_or_set("key", compute, 0.1, stale_while_revalidate=1000) == 1
    await anyio.sleep(0.2)
    assert await cache.get_or_set("key", compute, 100, stale_while_revalidate=1000) == 2
    assert await cache.get_or_set("key", compute, 100) == 2


async def test_a_stale_value_outlives_errors(cache: CacheManager) -> None:
    def fail() -> int:
        raise LookupError("down")

    await cache.get_or_set("key", lambda: 1, 0.1, stale_while_revalidate=1000)
    await anyio.sleep(0.2)
    assert await cache.get_or_set("key", fail, 0.1, stale_while_revalidate=1000) == 1


# A backend that is down


async def test_a_backend_that_is_down_makes_misses_and_events(caplog: pytest.LogCaptureFixture) -> None:
    app, backend, plugin = broken_app()
    cache = CacheManager()
    async with app.running():
        await cache.set("key", 1)
        backend.down = True
        assert await cache.get("key", "miss") == "miss"
        assert await cache.get_many(["key"]) == {}
        assert await cache.set("key", 2) is False
        assert await cache.delete("key") == 0
    assert [event.operation for event in plugin.of(CacheFailed)] == ["get", "get_many", "set", "delete"]
    assert {event.error for event in plugin.of(CacheFailed)} == {"ConnectionError"}
    assert "refused" in caplog.text


async def test_a_backend_that_is_down_is_left_alone_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    app, backend, plugin = broken_app(cooldown_seconds=0.2)
    cache = CacheManager()
    calls = []
    async with app.running():
        await cache.set("key", 1)
        backend.down = True
        caplog.clear()
        for _ in range(100):
            await cache.get("key")
        assert backend.calls < 10
        assert [event.after for event in plugin.of(CircuitChanged)] == ["open"]
        assert sum("failed at" in record.message for record in caplog.records) < 10
        found = await together(*[lambda: cache.get_or_set("other", lambda: calls.append(1) or 5, tags=["t"])] * 10)
        assert found == [5] * 10
        assert await cache.touch("key") is False
        assert await cache.add("key", 1) is False
        assert await cache.invalidate("t") is False
        await cache.clear()
        with pytest.raises(CacheUnavailableError):
            await cache.incr("n")
        backend.down = False
        await anyio.sleep(0.3)
        assert await cache.get("key") == 1
        assert await cache.set("key", 2) is True


async def test_with_a_backend_that_is_down_values_are_computed_once_at_a_time() -> None:
    app, backend, _ = broken_app()
    cache = CacheManager()
    calls = []

    async def compute() -> int:
        calls.append(1)
        await anyio.sleep(0.05)
        return 5

    async with app.running():
        backend.down = True
        assert await together(*[lambda: cache.get_or_set("key", compute)] * 50) == [5] * 50
    assert len(calls) == 1


async def test_strict_settings_make_errors() -> None:
    app, backend, plugin = broken_app(strict=True)
    cache = CacheManager()
    async with app.running():
        backend.down = True
        with pytest.raises(CacheUnavailableError, match="'default' failed at get: ConnectionError: refused"):
            await cache.get("key")
        with pytest.raises(CacheUnavailableError):
            await cache.set("key", 1)
        with pytest.raises(CacheUnavailableError):
            await cache.get_or_set("key", lambda: 1)
    assert len(plugin.of(CacheFailed)) == 3


async def test_a_backend_that_hangs_is_a_miss() -> None:
    app, backend, plugin = broken_app(timeout_seconds=0.05)
    cache = CacheManager()
    async with app.running():
        backend.hangs = True
        with anyio.fail_after(10):
            assert await cache.get("key", "miss") == "miss"
            assert await cache.get_or_set("key", lambda: 5) == 5
    assert {event.error for event in plugin.of(CacheFailed)} <= {"TimeoutExceeded", "CircuitOpen"}


# Several processes

WORKER = """
import sys, anyio, os
from covet.cache import CacheManager
from tests.sqlite_cache import SQLiteCache
path, log, mode = sys.argv[1:]
cache = CacheManager(backend=SQLiteCache(path))

async def compute():
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\\n")
    if mode == "die":
        os._exit(3)
    await anyio.sleep(0.5)
    return {"answer": 42}

async def main():
    while not os.path.exists(log + ".go"):
        await anyio.sleep(0.005)
    async with anyio.create_task_group() as group:
        async def ask():
            assert await cache.get_or_set("key", compute, 100, beta=0.0) == {"answer": 42}
        for _ in range(5):
            group.start_soon(ask)

anyio.run(main)
"""


def start(path: Path, log: Path, mode: str) -> subprocess.Popen[str]:
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", WORKER, str(path), str(log), mode]
    return subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)


def end(workers: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    try:
        return [(worker.wait(60), worker.stderr.read() if worker.stderr else "") for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            if worker.stderr is not None:
                worker.stderr.close()


def test_several_processes_compute_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [start(tmp_path / "cache.db", log, "work") for _ in range(4)]
    time.sleep(1.0)
    (tmp_path / "log.go").touch()
    assert end(workers) == [(0, "")] * 4
    assert len(log.read_text().splitlines()) == 1


async def test_the_lease_of_a_process_that_died_runs_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "log.go").touch()
    assert end([start(tmp_path / "cache.db", log, "die")]) == [(3, "")]
    plugin = SQLiteCachePlugin()
    table = {"backend": "sqlite", "path": str(tmp_path / "cache.db"), "lease_seconds": 0.5}
    app = plugin_sandbox(plugin, settings={"cache": {"default": table}})
    backend = SQLiteCache(tmp_path / "cache.db")
    cache = CacheManager()
    async with app.running():
        lease = cache.bound().prefix + "l=key"
        held = await backend.get(lease)
        assert held is not None
        # The dead process took its lease for the default time; for the test it is nearly over.
        await backend.touch(lease, 0.5)
        with anyio.fail_after(30):
            assert await cache.get_or_set("key", lambda: 5) == 5
        assert await backend.get(lease) is None


async def test_a_lease_is_renewed_while_the_computation_lasts(tmp_path: Path) -> None:
    table = {"backend": "sqlite", "path": str(tmp_path / "cache.db"), "lease_seconds": 0.4}
    app = plugin_sandbox(SQLiteCachePlugin(), settings={"cache": {"default": table}})
    other = plugin_sandbox(SQLiteCachePlugin(), settings={"cache": {"default": table}})
    cache = CacheManager()
    calls = []

    async def compute() -> int:
        calls.append(1)
        await anyio.sleep(1.5)
        return len(calls)

    async def ask(app: Covet) -> int:
        async with app.running():
            return await cache.get_or_set("key", compute, 100, beta=0.0)

    assert await together(lambda: ask(app), lambda: ask(other)) == [1, 1]


# The application


async def test_it_is_that_of_the_running_application() -> None:
    cache = CacheManager()
    named = CacheManager(backend="memory")
    first, second = plugin_sandbox("cache"), plugin_sandbox("cache")
    async with first.running():
        await cache.set("key", 1)
        await named.set("key", 3)
        async with second.running():
            assert await cache.get("key") is None
            await cache.set("key", 2)
        assert await cache.get("key") == 1
        assert await named.get("key") == 3
        assert await CacheManager(backend="memory").get("key") == 3
        assert await CacheManager().get("key") == 1
    with pytest.raises(NoApplicationError, match=r"async with app\.running\(\).*CacheManager\(backend=MemoryCache"):
        await cache.get("key")


def test_a_manager_keeps_no_application_alive(anyio_backend: str) -> None:
    cache = CacheManager()

    async def use() -> tuple[Any, Any]:
        app = plugin_sandbox("cache")
        async with app.running():
            await cache.set("key", 1)
            assert await cache.get_or_set("key", lambda: 2) == 1
            return ref(app), ref(cache.bound().link)

    # On a loop of its own, which is gone afterwards with all that it kept.
    app, link = anyio.run(use, backend=anyio_backend)
    deadline = time.monotonic() + 10
    while (app() or link()) and time.monotonic() < deadline:
        # A worker thread of that loop holds on to its last call until it has ended.
        time.sleep(0.01)
        gc.collect()
    assert app() is None
    assert link() is None


async def test_settings() -> None:
    tables = {
        "default": {"namespace": "shop", "ttl_seconds": 5.0, "jitter": 0.0, "max_entries": 3},
        "pages": {"max_bytes": 1000},
    }
    app = plugin_sandbox("cache", settings={"cache": tables})
    async with app.running():
        bound = CacheManager().bound()
        assert bound.prefix.startswith("shop/")
        assert (bound.ttl, bound.jitter) == (5.0, 0.0)
        assert bound.link.backend.max_entries == 3  # type: ignore[attr-defined]
        assert CacheManager("pages").bound().link.backend.max_bytes == 1000  # type: ignore[attr-defined]
        assert CacheManager("pages", ttl=None).bound().ttl is None
        with pytest.raises(ConfigurationError, match=r"no \[cache.page\]"):
            await CacheManager("page").get("key")
        with pytest.raises(ConfigurationError, match="'memry'; did you mean 'memory'"):
            await CacheManager(backend="memry").get("key")


@pytest.mark.parametrize("table", [{"max_bytes": 0}, {"max_entries": 0}, {"max_byte": 5}, {"timeout_seconds": 0}])
async def test_settings_that_do_not_fit(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(table))):
        plugin_sandbox("cache", settings={"cache": {"default": table}}).build()


def test_arguments_that_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        CacheManager("pages", backend="memory")
    with pytest.raises(ConfigurationError, match="no cache backend"):
        CacheManager(backend=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not the class MemoryCache"):
        CacheManager(backend=MemoryCache)  # type: ignore[arg-type]


async def test_events() -> None:
    app, _, plugin = broken_app()
    cache = CacheManager(namespace="n")
    async with app.running():
        await cache.get("key")
        await cache.set("key", "a")
        await cache.get("key")
        await cache.get_many(["key", "other"])
        await cache.get_or_set("key", lambda: 1)
        await cache.get_or_set("new", lambda: 1)
    reads = [(event.cache, event.namespace, event.hits, event.misses) for event in plugin.of(CacheRead)]
    assert reads == [("default", "n", *each) for each in [(0, 1), (1, 0), (1, 1), (1, 0), (0, 1)]]
    assert [(event.entries, event.size) for event in plugin.of(CacheWritten)] == [(1, 2), (1, 27)]
    assert len(plugin.of(CacheComputed)) == 1


def test_the_package_is_light() -> None:
    code = (
        "import sys, covet.cache; print([m for m in sys.modules if m.startswith(('anyio', 'covet.cache.', 'msgspec'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['covet.cache.backends']"
