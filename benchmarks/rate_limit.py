"""Rate limits: the cost of a check beside those of `limits`, what a limit adds to a request, and memory per key."""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from litestar import Litestar
from litestar import get as litestar_get
from litestar.middleware.rate_limit import RateLimitConfig
from slowapi import Limiter as SlowapiLimiter
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route as StarletteRoute

from benchmarks import evidence
from benchmarks.http import make_scope, measure, request, running
from benchmarks.workloads import WORKLOADS
from covet import Covet
from covet.ratelimit import SlidingWindowLimiter, TokenBucketLimiter, limited

KEYS = [f"address:192.0.2.{number}" for number in range(1000)]
PATH = WORKLOADS["plain"].path
PLENTY = 1_000_000_000
ABOUT = """
A check is `await limiter.acquire(key)`, and `await limiter.hit(item, key)` of `limits`, which slowapi is built on; the
keys of 1,000 clients take turns. Refused means that all of them have used up their limit. A dict lookup is
`counts[key]`; the same in a coroutine that is awaited is what no asynchronous limiter can be below. {rounds}
interleaved rounds of {count} checks, and of {requests} requests of the workload `plain` of the benchmark `http`.
"""

Check = Callable[[str], Awaitable[Any]]


def covet_check(limiter: Any) -> Check:
    """The check of one of Covet's limiters."""
    return limiter.acquire  # type: ignore[no-any-return]


def limits_check(strategy: Any, amount: int) -> Check:
    """The check of a strategy of `limits`."""
    limiter, item = strategy(MemoryStorage()), RateLimitItemPerMinute(amount)

    def check(key: str) -> Awaitable[Any]:
        return limiter.hit(item, key)  # type: ignore[no-any-return]

    return check


def checks(amount: int) -> dict[str, Check]:
    """What is compared, each fresh."""
    return {
        "covet, token bucket": covet_check(TokenBucketLimiter(amount, 60)),
        "covet, sliding window": covet_check(SlidingWindowLimiter(amount, 60)),
        "limits, fixed window": limits_check(FixedWindowRateLimiter, amount),
        "limits, sliding window counter": limits_check(SlidingWindowCounterRateLimiter, amount),
        "limits, moving window": limits_check(MovingWindowRateLimiter, amount),
    }


async def timed(check: Check, count: int) -> float:
    """CPU microseconds per check."""
    gc.collect()
    began = time.process_time()
    for number in range(count):
        await check(KEYS[number % 1000])
    return (time.process_time() - began) / count * 1e6


def lookup(count: int) -> float:
    """CPU microseconds per lookup in a dict, the loop included as it is for the checks."""
    counts = dict.fromkeys(KEYS, 1)
    gc.collect()
    began = time.process_time()
    for number in range(count):
        counts[KEYS[number % 1000]]
    return (time.process_time() - began) / count * 1e6


async def awaited_lookup(count: int) -> float:
    """As `lookup`, in a coroutine."""
    counts = dict.fromkeys(KEYS, 1)

    async def check(key: str) -> int:
        return counts[key]

    return await timed(check, count)


async def compare_checks(rounds: int, count: int) -> str:
    """The table of checks."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        found.setdefault("a dict lookup", []).append(lookup(count))
        found.setdefault("a dict lookup, awaited", []).append(await awaited_lookup(count))
        for case, amount in (("allowed", PLENTY), ("refused", 1)):
            for name, check in checks(amount).items():
                if case == "refused":
                    for key in KEYS:
                        await check(key)
                found.setdefault(f"{name}: {case}", []).append(await timed(check, count))
    base, rows = found["a dict lookup"], []
    for name, times in found.items():
        ratio = median(own / floor for own, floor in zip(times, base, strict=True))
        rows.append([name, f"{median(times):.3f}", f"{ratio:.1f}"])
        print(f"# {rows[-1]}", flush=True)
    return evidence.table(["what", "CPU microseconds", "in dict lookups"], rows)


def applications() -> dict[str, tuple[Any, Any]]:
    """Each framework's application without a limit and with one, whose every response tells what is left."""
    made: dict[str, tuple[Any, Any]] = {}

    async def covet_plain() -> str:
        return "Hello, World!"

    covet_apps = (Covet(), Covet())
    covet_apps[0].get(PATH)(covet_plain)

    @covet_apps[1].get(PATH)
    @limited(f"{PLENTY}/minute")
    async def covet_limited() -> str:
        return "Hello, World!"

    made["covet"] = covet_apps

    async def starlette_plain(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("Hello, World!")

    limiter = SlowapiLimiter(key_func=get_remote_address, headers_enabled=True)
    slow = Starlette(routes=[StarletteRoute(PATH, limiter.limit(f"{PLENTY}/minute")(starlette_plain))])
    slow.state.limiter = limiter
    made["starlette and slowapi"] = (Starlette(routes=[StarletteRoute(PATH, starlette_plain)]), slow)

    @litestar_get(PATH, media_type="text/plain")
    async def litestar_plain() -> str:
        return "Hello, World!"

    made["litestar"] = (
        Litestar([litestar_plain]),
        Litestar([litestar_plain], middleware=[RateLimitConfig(rate_limit=("minute", PLENTY)).middleware]),
    )
    return made


async def compare_requests(rounds: int, count: int) -> str:
    """The table of what a limit adds to a request."""
    workload = WORKLOADS["plain"]
    apps = applications()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in apps}
    async with AsyncExitStack() as stack:
        for name, pair in apps.items():
            for number, app in enumerate(pair):
                await stack.enter_async_context(running(app))
                sent: list[Any] = []
                await request(app, make_scope(workload), b"", sent)
                told = any(b"ratelimit" in header for header, _ in sent[0]["headers"])
                if sent[0]["status"] != 200 or told is not bool(number):
                    raise RuntimeError(f"{name} answers {sent}")
        for _ in range(rounds):
            for name, (free, guarded) in apps.items():
                gc.collect()
                found[name].append((await measure(free, workload, count), await measure(guarded, workload, count)))
    rows = []
    for name, times in found.items():
        without, guarded = (median(pair[number] for pair in times) for number in (0, 1))
        rows.append([name, f"{without:.2f}", f"{guarded:.2f}", f"{median(b - a for a, b in times):.2f}"])
        print(f"# {rows[-1]}", flush=True)
    return evidence.table(["", "without, microseconds", "with a limit", "the limit"], rows)


async def memory(keys: int) -> str:
    """The table of memory per key."""
    rows = []
    made = checks(5)
    made["covet, token bucket"] = covet_check(TokenBucketLimiter(5, 60, max_keys=keys))
    made["covet, sliding window"] = covet_check(SlidingWindowLimiter(5, 60, max_keys=keys))
    for name, check in made.items():
        gc.collect()
        tracemalloc.start()
        for number in range(keys):
            await check(f"address:client {number}")
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        rows.append([name, f"{size / keys:.0f}"])
        print(f"# {rows[-1]}", flush=True)
    return evidence.table(["", "bytes per key, the key included"], rows)


async def run(chosen: argparse.Namespace) -> dict[str, str]:
    """All tables."""
    return {
        "A check": await compare_checks(chosen.rounds, chosen.count),
        "A request": await compare_requests(chosen.rounds, chosen.requests),
        f"Memory of {chosen.keys:,} keys": await memory(chosen.keys),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- rate_limit", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--keys", type=int, default=50_000)
    chosen = parser.parse_args()
    evidence.write(
        "rate_limit",
        "Rate limits beside others'",
        ABOUT.format(rounds=chosen.rounds, count=f"{chosen.count:,}", requests=f"{chosen.requests:,}"),
        ["covet-core", "limits", "slowapi", "starlette", "litestar"],
        asyncio.run(run(chosen)),
        page="rate_limit_speed",
    )


if __name__ == "__main__":
    main()
