"""Limits that several processes count together: exact, cancelled at every await, and while the backend is down."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st
from tests.builtin import needs
from tests.proofs.rate_limit import Outcome
from tests.sqlite_cache import SQLiteCache, SQLiteCachePlugin

import covet
from covet import ConfigurationError, Covet
from covet.cache import CacheBackend, MemoryCache
from covet.exceptions import NoApplicationError
from covet.ratelimit import Limiter, RateLimitBackendChanged, SlidingWindowLimiter, TokenBucketLimiter
from covet.testing import plugin_sandbox
from covet.testing.conformance.faults import at_every_await

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
SECOND = 1_000_000_000
NOW = 1_790_000_000 * SECOND
KINDS: list[Any] = [TokenBucketLimiter, SlidingWindowLimiter]

PROCESS = """
import sys
import anyio
from covet.ratelimit import SlidingWindowLimiter, TokenBucketLimiter
from tests.sqlite_cache import SQLiteCache

kind, path, tries = globals()[sys.argv[1]], sys.argv[2], int(sys.argv[3])
limiter = kind(40, 3600, name="shared", backend=SQLiteCache(path), timeout=60.0, on_failure="refuse",
               clock=lambda: 1_790_000_000_000_000_000)
allowed = 0

async def ask():
    global allowed
    for _ in range(tries):
        decision = await limiter.acquire("key")
        assert decision.counted
        allowed += decision.allowed

async def main():
    sys.stdin.readline()
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(ask)

print("ready", flush=True)
anyio.run(main)
print(allowed)
"""


class Shelf:
    """A backend whose every call gives way to others, and that can be told to fail."""

    shared = True

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lifetimes: dict[str, float | None] = {}
        self.failure: str | None = None
        self.calls = 0

    async def _work(self) -> None:
        self.calls += 1
        await checkpoint()
        if self.failure == "hang":
            await anyio.sleep_forever()
        if self.failure is not None:
            raise ConnectionError(self.failure)

    async def get(self, key: str) -> bytes | None:
        await self._work()
        return self.values.get(key)

    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        await self._work()
        if self.failure is None and self.values.get(key) == expected:
            self.values[key] = value
            self.lifetimes[key] = ttl
            return True
        return False

    async def delete(self, keys: list[str]) -> int:
        await self._work()
        return sum(self.values.pop(key, None) is not None for key in keys)


def shared(kind: Any, backend: Any, *, rate: int = 5, per: float = 60, **options: Any) -> Limiter[Any]:
    made: Limiter[Any] = kind(rate, per, **{"name": "shared", "backend": backend, "clock": lambda: NOW, **options})
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_together_allow_exactly_the_limit(kind: type, tmp_path: Path) -> None:
    path = str(tmp_path / "cache.db")
    command = [sys.executable, "-c", PROCESS, kind.__name__, path, "15"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        allowed = [int(process.communicate(timeout=120)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    # 180 were asked for.
    assert sum(allowed) == 40


@pytest.mark.parametrize("kind", KINDS)
async def test_limiters_of_one_scope_and_rate_count_together_and_others_do_not(kind: type) -> None:
    shelf = Shelf()
    first, second = shared(kind, shelf), shared(kind, shelf)
    other, slower = shared(kind, shelf, name="other"), shared(kind, shelf, per=61)
    assert [(await limiter.acquire("key", 3)).allowed for limiter in (first, second)] == [True, False]
    assert [(await limiter.acquire("key", 3)).allowed for limiter in (other, slower)] == [True, True]
    assert (await first.acquire("another key", 5)).allowed
    await second.reset("key")
    assert (await first.acquire("key", 5)).allowed


@pytest.mark.parametrize("kind", KINDS)
async def test_many_tasks_at_once_are_allowed_exactly_the_limit(kind: type) -> None:
    shelf = Shelf()
    # However slow the machine is: a backend that does not answer in time is another test.
    limiters = [shared(kind, shelf, rate=50, timeout=60.0) for _ in range(2)]
    allowed: list[bool] = []

    async def ask(limiter: Limiter[Any]) -> None:
        allowed.append((await limiter.acquire("key")).allowed)

    async with anyio.create_task_group() as group:
        for number in range(300):
            group.start_soon(ask, limiters[number % 2])
    assert sum(allowed) == 50
    # They queue in their process, so that hardly any is in vain; all at once it would be more than 5,000.
    assert shelf.calls < 1500
    # Nothing is left of the waiting.
    assert not limiters[0]._shared._turns


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_at_every_await_it_counts_once_or_not_at_all(kind: type) -> None:
    shelf = Shelf()
    limiter = shared(kind, shelf, rate=1000)
    before = 1000

    async def check() -> None:
        nonlocal before
        remaining = (await limiter.acquire("key", 0)).remaining
        assert before - remaining in (0, 1)
        before = remaining
        assert not limiter._shared._turns

    places = await at_every_await(lambda: limiter.acquire("key"), check)
    assert places >= 2
    assert limiter._shared._reachable


async def test_cancelled_while_it_waits_for_its_turn_it_leaves_nothing_behind() -> None:
    shelf = Shelf()
    limiter = shared(TokenBucketLimiter, shelf, rate=1000)

    async def crowd() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(limiter.acquire, "key")

    async def check() -> None:
        assert not limiter._shared._turns
        assert (await limiter.acquire("key", 0)).counted

    for steps in range(12):
        async with anyio.create_task_group() as group:
            group.start_soon(crowd)
            for _ in range(steps):
                await checkpoint()
            group.cancel_scope.cancel()
        await check()


async def test_a_state_lives_as_long_as_it_counts() -> None:
    shelf = Shelf()
    await shared(TokenBucketLimiter, shelf).acquire("key", 5)
    (lifetime,) = shelf.lifetimes.values()
    assert lifetime is not None
    # A minute until it is full, and what clocks may differ by.
    assert 60 <= lifetime <= 70


@given(st.lists(st.text(max_size=300), min_size=1, max_size=30, unique=True))
def test_any_text_is_a_key_of_its_own_that_every_backend_takes(keys: list[str]) -> None:
    limiter = shared(TokenBucketLimiter, Shelf())
    stored = [limiter._shared.stored(key) for key in keys]
    assert len(set(stored)) == len(keys)
    assert all(len(key) <= 250 and key.isprintable() and key.isascii() for key in stored)
    # What a key that cannot be kept as it is becomes is no key that anybody could send.
    prefix = limiter._shared.prefix
    for key, kept in zip(keys, stored, strict=True):
        rest = kept.removeprefix(prefix)[1:]
        assert rest == key or limiter._shared.stored(rest) != kept


@pytest.mark.parametrize("value", [b"nonsense", b"", b"\xff\x00", b"9" * 5000])
async def test_a_state_that_is_none_is_begun_anew_and_logged(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf()
    limiter = shared(TokenBucketLimiter, shelf)
    shelf.values[limiter._shared.stored("key")] = value
    assert (await limiter.acquire("key", 5)).allowed
    assert not (await limiter.acquire("key")).allowed
    assert "a state that is none" in caplog.text


class Listening:
    """Keeps the events of backends."""

    def __init__(self) -> None:
        self.heard: list[RateLimitBackendChanged] = []

    @covet.hookimpl
    def covet_event(self, event: object) -> None:
        if isinstance(event, RateLimitBackendChanged):
            self.heard.append(event)


@pytest.mark.parametrize(
    ("on_failure", "allowed"), [("local", [True, True, False]), ("allow", [True] * 3), ("refuse", [False] * 3)]
)
@pytest.mark.parametrize("failure", ["down", "hang"])
async def test_while_the_backend_is_down(
    on_failure: str, allowed: list[bool], failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="covet.ratelimit")
    shelf = Shelf()
    limiter = shared(TokenBucketLimiter, shelf, rate=2, on_failure=on_failure, timeout=0.05)
    listening = Listening()
    app = plugin_sandbox(listening)
    async with app.running():
        shelf.failure = failure
        decisions = [await limiter.acquire("key") for _ in range(3)]
        assert [decision.allowed for decision in decisions] == allowed
        assert all(decision.counted is (on_failure == "local") for decision in decisions)
        assert all(decision.remaining >= 0 for decision in decisions)
        if on_failure == "refuse":
            assert decisions[0].retry_after > 0
        shelf.failure = None
        assert (await limiter.acquire("key")).counted
    assert [event.reachable for event in listening.heard] == [False, True]
    assert listening.heard[0].error == ("ConnectionError" if failure == "down" else "TimeoutExceeded")
    told = [record.getMessage() for record in caplog.records if record.name == "covet.ratelimit"]
    assert len(told) == 2
    assert "cannot be reached, and until it can" in told[0]


async def test_a_backend_that_stays_down_is_left_alone() -> None:
    shelf = Shelf()
    limiter = shared(TokenBucketLimiter, shelf)
    shelf.failure = "down"
    for number in range(100):
        await limiter.acquire(f"key {number}")
    assert shelf.calls < 20


async def test_a_failure_while_the_state_is_replaced_is_one_of_the_backend() -> None:
    class Dying(Shelf):
        async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
            raise OSError("disk full")

    limiter = shared(TokenBucketLimiter, Dying(), rate=1, on_failure="local")
    assert [(await limiter.acquire("key")).allowed for _ in range(2)] == [True, False]


async def test_a_key_that_changes_all_the_time_is_refused_and_not_let_through(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Busy(Shelf):
        async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
            await self._work()
            return False

    shelf = Busy()
    limiter = shared(TokenBucketLimiter, shelf, rate=1000, per=1, on_failure="allow", timeout=60.0)
    decision = await limiter.acquire("key")
    assert (decision.allowed, decision.counted) == (False, True)
    assert decision.retry_after > 0
    assert shelf.calls < 200
    assert "its key changed" in caplog.text


@needs("cache")
async def test_a_backend_by_name_is_that_of_the_application_that_runs(tmp_path: Path) -> None:
    limiter = shared(TokenBucketLimiter, "default", rate=1)
    aliased = shared(TokenBucketLimiter, "limits", rate=1)

    def application(name: str) -> Covet:
        tables = {
            alias: {"backend": "sqlite", "path": str(tmp_path / f"{name} {alias}")} for alias in ("default", "limits")
        }
        return plugin_sandbox(SQLiteCachePlugin(), "cache", settings={"cache": tables})

    for name in ("first", "second"):
        async with application(name).running():
            for each in (limiter, aliased):
                assert isinstance(each.resolve(), SQLiteCache)
                assert [(await each.acquire("key")).allowed for _ in range(2)] == [True, False]
    # The name of a backend that no table has.
    async with application("first").running():
        by_name = shared(TokenBucketLimiter, "memory", rate=1)
        assert isinstance(by_name.resolve(), MemoryCache)
        assert (await by_name.acquire("key")).counted
    with pytest.raises(NoApplicationError):
        await limiter.acquire("key")
    async with application("third").running():
        with pytest.raises(ConfigurationError, match="nowhere"):
            await shared(TokenBucketLimiter, "nowhere").acquire("key")


async def test_a_limiter_without_a_backend_has_none_to_resolve() -> None:
    with pytest.raises(ConfigurationError, match="has no backend"):
        TokenBucketLimiter(5).resolve()


@needs("cache")
@pytest.mark.parametrize("kind", KINDS)
async def test_the_cache_in_memory_is_a_backend_like_any_other(kind: Any) -> None:
    limiter = shared(kind, "default", rate=3)
    async with plugin_sandbox("cache").running():
        assert isinstance(limiter.resolve(), CacheBackend)
        assert [(await limiter.acquire("key")).allowed for _ in range(4)] == [True, True, True, False]
        assert (await limiter.acquire("other")).counted


@pytest.mark.parametrize(("kind", "more"), [("token bucket", 100), ("sliding window", 50)])
def test_the_proof_finds_what_is_one_too_much(kind: str, more: int) -> None:
    """`tests/proofs/rate_limit.py` serves and loads; what it makes of the times is checked here."""
    burst = [(1, 7 * SECOND)] * more
    # A bucket gets 25 a second; a window begins anew after two.
    later = [(2, 11 * SECOND)] * (100 if kind == "token bucket" else 50)
    for where, notes in (("SQLite", burst + later), ("memory", burst + [(2, when) for _, when in burst])):
        outcome = Outcome(kind, where, 500, 100, "", notes)
        assert outcome.above() == 0
        assert not outcome.failed
        for extra in (burst[-1], notes[-1]):
            assert Outcome(kind, where, 500, 100, "", [*notes, extra]).failed
    assert Outcome(kind, "memory", 500, 100, "", burst).failed
    assert Outcome(kind, "SQLite", 500, 0, "", burst).failed
