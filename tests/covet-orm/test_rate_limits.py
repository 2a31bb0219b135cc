"""Rate limits that several processes count together in a database: exact on every database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from covet.ratelimit import SlidingWindowLimiter, TokenBucketLimiter
from covet.testing.conformance.faults import at_every_await
from covet_orm.cache import DatabaseCache
from covet_orm.databases import Database

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
NOW = 1_790_000_000 * SECOND
KINDS: list[Any] = [TokenBucketLimiter, SlidingWindowLimiter]
LIMIT, PROCESSES, TASKS, TRIES = 40, 3, 4, 15

PROCESS = """
import asyncio, sys
from covet.ratelimit import SlidingWindowLimiter, TokenBucketLimiter
from covet_orm.cache import DatabaseCache
from covet_orm.databases import Database

kind, url, limit, tasks, tries = globals()[sys.argv[1]], sys.argv[2], *map(int, sys.argv[3:])

async def main():
    async with Database(url, busy_timeout=50.0) if url.startswith("sqlite") else Database(url) as database:
        cache = DatabaseCache(database, create_table=True)
        limiter = kind(limit, 3600, name="shared", backend=cache, timeout=60.0, on_failure="refuse",
                       clock=lambda: 1_790_000_000_000_000_000)
        await cache.get("warm")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        allowed = 0

        async def ask():
            nonlocal allowed
            for _ in range(tries):
                decision = await limiter.acquire("key")
                assert decision.counted
                allowed += decision.allowed

        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(ask())
        print(allowed)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_together_allow_exactly_the_limit(kind: type, url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROCESS, kind.__name__, url, str(LIMIT), str(TASKS), str(TRIES)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
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
            process.communicate()
    assert sum(allowed) == LIMIT < PROCESSES * TASKS * TRIES


@pytest.fixture
async def cache(url: str) -> AsyncIterator[DatabaseCache]:
    async with Database(url) as database:
        cache = DatabaseCache(database)
        await cache.table.create()
        yield cache


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_request_counts_once_or_not(kind: Any, cache: DatabaseCache) -> None:
    limiter = kind(10, 3600, name="shared", backend=cache, timeout=60.0, on_failure="refuse", clock=lambda: NOW)

    async def check() -> None:
        left = (await limiter.acquire("key", 0)).remaining
        assert left in (9, 10)
        await limiter.reset("key")

    await at_every_await(lambda: limiter.acquire("key"), check)


async def test_keys_that_look_alike_are_counted_apart(cache: DatabaseCache) -> None:
    limiter = TokenBucketLimiter(1, 3600, name="shared", backend=cache, on_failure="refuse", timeout=60.0)
    for key in ("a", "A", "a ", "\u00e4", "a\u0308", "x" * 500, "x" * 501):
        assert (await limiter.acquire(key)).allowed, key
    assert not (await limiter.acquire("a")).allowed


async def test_while_the_database_is_down_each_process_counts_for_itself(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'missing' / 'cache.db'}", acquire_timeout=0.5)
    limiter = TokenBucketLimiter(2, 3600, name="shared", backend=DatabaseCache(database), timeout=5.0)
    with anyio.fail_after(20):
        assert [(await limiter.acquire("key")).allowed for _ in range(3)] == [True, True, False]
    await database.close()
