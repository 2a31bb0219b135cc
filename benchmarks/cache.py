"""The cache beside its peers: a hit, a miss, a write, a computation; single flight; memory; what stays when it is full.

The peers take turns in every round, so that a shared, noisy machine distorts no ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from benchmarks import evidence
from covet.cache import CacheManager, MemoryCache
from covet.testing import plugin_sandbox

ABOUT = """
`covet` is `CacheManager` with the backend `memory`, in a running application without listeners; `cachetools` is a
`TTLCache` behind an asynchronous function, as one has to write it; `aiocache` is `SimpleMemoryCache`, `cashews` its
cache with `mem://`. `dict` is one look-up in a dict, with nothing around it. Each runs in this process. Of {rounds}
interleaved rounds of {count:,} calls the median is shown.
"""
DISTRIBUTIONS = ["covet-core", "cachetools", "aiocache", "cashews", "msgspec"]
VALUE = {"id": 42, "name": "Ada Lovelace", "tags": ["a", "b"], "active": True}
TTL = 300.0

Call = Callable[[str], Awaitable[Any]]


class Dict:
    """The floor: a look-up, and an assignment."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def run(self, what: str, keys: list[str]) -> None:
        kept = self.kept
        if what == "set":
            for key in keys:
                kept[key] = VALUE
        else:
            for key in keys:
                kept.get(key)


def covet_calls() -> dict[str, Call]:
    """The calls of Covet."""
    cache = CacheManager(jitter=0.0)
    return {
        "hit": cache.get,
        "hit, text": cache.get,
        "miss": cache.get,
        "set": lambda key: cache.set(key, VALUE, TTL),
        "get_or_set, hit": lambda key: cache.get_or_set(key, compute, TTL),
    }


async def compute() -> Any:
    """A computation that is never needed: it is there already."""
    raise AssertionError("unreachable: the value is there")


def cachetools_calls() -> dict[str, Call]:
    """The calls of cachetools, made asynchronous."""
    from cachetools import TTLCache

    kept: TTLCache[str, Any] = TTLCache(maxsize=1_000_000, ttl=TTL)

    async def get(key: str) -> Any:
        return kept.get(key)

    async def put(key: str) -> None:
        kept[key] = VALUE

    async def put_text(key: str, value: str) -> None:
        kept[key] = value

    return {"hit": get, "hit, text": get, "miss": get, "set": put, "get_or_set, hit": get, "put": put_text}  # type: ignore[dict-item]


def aiocache_calls() -> dict[str, Call]:
    """The calls of aiocache."""
    from aiocache import SimpleMemoryCache

    cache = SimpleMemoryCache()
    return {
        "hit": cache.get,
        "hit, text": cache.get,
        "miss": cache.get,
        "set": lambda key: cache.set(key, VALUE, ttl=TTL),
        "get_or_set, hit": cache.get,
        "put": lambda key, value: cache.set(key, value, ttl=TTL),  # type: ignore[misc, dict-item]
    }


def cashews_calls() -> dict[str, Call]:
    """The calls of cashews."""
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=1_000_000)
    return {
        "hit": cache.get,
        "hit, text": cache.get,
        "miss": cache.get,
        "set": lambda key: cache.set(key, VALUE, expire=TTL),
        "get_or_set, hit": lambda key: cache.get_or_set(key, compute, expire=TTL),
        "put": lambda key, value: cache.set(key, value, expire=TTL),  # type: ignore[misc, dict-item]
    }


PEERS = {
    "covet": covet_calls,
    "cachetools": cachetools_calls,
    "aiocache": aiocache_calls,
    "cashews": cashews_calls,
}
WORK = ["hit", "hit, text", "miss", "set", "get_or_set, hit"]


async def measure(call: Call, keys: list[str]) -> float:
    """CPU nanoseconds per call."""
    began = time.process_time()
    for key in keys:
        await call(key)
    return (time.process_time() - began) / len(keys) * 1e9


async def calls(peers: list[str], rounds: int, count: int) -> str:
    """The table of single calls."""
    chance = random.Random(1)
    names = [f"user:{number}" for number in range(1000)]
    made = {peer: PEERS[peer]() for peer in peers}
    floor = Dict()
    floor.run("set", names)
    rows = []
    app = plugin_sandbox("cache")
    async with app.running():
        for what in WORK:
            prefix = {"miss": "missing ", "hit, text": "text "}.get(what, "")
            keys = [prefix + chance.choice(names) for _ in range(count)]
            for peer, known in made.items():
                for name in names:
                    if what == "hit, text":
                        put: Any = known.get("put") or CacheManager(jitter=0.0).set
                        await put("text " + name, "Ada Lovelace")
                    else:
                        await known["set"](name)
                await measure(known[what], keys[: count // 10])
                assert peer
            times: dict[str, list[float]] = {peer: [] for peer in ("dict", *made)}
            plain = [key.removeprefix(prefix) for key in keys]
            for _ in range(rounds):
                began = time.process_time()
                floor.run(what, plain)
                times["dict"].append((time.process_time() - began) / count * 1e9)
                for peer, known in made.items():
                    gc.collect()
                    times[peer].append(await measure(known[what], keys))
            shown = [f"{median(times[peer]):.0f}" for peer in times]
            ratio = median(own / base for own, base in zip(times["covet"], times["dict"], strict=True))
            rows.append([what, *shown, f"{ratio:.0f}"])
            print(f"# {what}: {dict(zip(times, shown, strict=True))}", flush=True)
    return evidence.table(["nanoseconds per call", "dict", *peers, "covet / dict"], rows)


async def flights(number: int) -> str:
    """The table of many concurrent misses."""
    rows = []
    app = plugin_sandbox("cache")
    async with app.running():
        cache = CacheManager()
        computed = 0

        async def slow() -> dict[str, Any]:
            nonlocal computed
            computed += 1
            await asyncio.sleep(0.05)
            return VALUE

        began = time.process_time()
        await asyncio.gather(*(cache.get_or_set("flight", slow, TTL) for _ in range(number)))
        took = (time.process_time() - began) / number * 1e6
        rows.append(["covet", f"{number:,}", computed, f"{took:.1f}"])
    return evidence.table(["", "concurrent misses", "computations", "CPU microseconds per caller"], rows)


ENTRIES = """
import asyncio, gc, sys

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024

count = {count}
async def covet():
    from covet.cache import MemoryCache
    cache = MemoryCache(max_bytes=2**40)
    gc.collect()
    before = resident()
    for number in range(count):
        await cache.set(f"user:{{number}}", b"%020d" % number, 300.0)
    return before, cache

async def cachetools():
    from cachetools import TTLCache
    cache = TTLCache(maxsize=2 * count, ttl=300.0)
    gc.collect()
    before = resident()
    for number in range(count):
        cache[f"user:{{number}}"] = b"%020d" % number
    return before, cache

async def plain():
    cache = {{}}
    gc.collect()
    before = resident()
    for number in range(count):
        cache[f"user:{{number}}"] = b"%020d" % number
    return before, cache

before, cache = asyncio.run({what}())
gc.collect()
print((resident() - before) / count)
"""


def entries(count: int) -> str:
    """The table of memory."""
    found = {}
    for what in ("plain", "covet", "cachetools"):
        code = ENTRIES.format(count=count, what=what)
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        found[what] = float(done.stdout)
        print(f"# {what}: {found[what]:.0f} bytes", flush=True)
    label = {"plain": "a dict", "covet": "`MemoryCache`", "cachetools": "`cachetools.TTLCache`"}
    rows = [[label[what], f"{size:.0f}", f"{size / found['cachetools']:.2f}"] for what, size in found.items()]
    return evidence.table(["key and value of some 60 bytes each, as objects", "bytes per entry", "/ cachetools"], rows)


def trace(length: int, keys: int, exponent: float, *, scans: bool) -> list[str]:
    """Requests for keys, the n-th of which is asked for in proportion to n ** -exponent; perhaps with scans between."""
    chance = random.Random(2023)
    weights = [(number + 1) ** -exponent for number in range(keys)]
    names = [f"key {number}" for number in range(keys)]
    asked = chance.choices(names, weights, k=length)
    if not scans:
        return asked
    found: list[str] = []
    step = length // 6
    for part in range(0, length, step):
        found += asked[part : part + step]
        found += [f"scan {part} {number}" for number in range(keys // 4)]
    return found


async def share(requests: list[str], room: int) -> tuple[float, float]:
    """The share of hits of the memory backend, and of least recently used."""
    cache, lru = MemoryCache(max_entries=room, max_bytes=2**40), OrderedDict[str, None]()
    hits = lru_hits = 0
    for key in requests:
        if await cache.get(key) is None:
            await cache.set(key, b"", None)
        else:
            hits += 1
        if key in lru:
            lru_hits += 1
            lru.move_to_end(key)
        else:
            lru[key] = None
            if len(lru) > room:
                lru.popitem(last=False)
    return hits / len(requests), lru_hits / len(requests)


async def ratios(length: int, keys: int) -> str:
    """The table of what stays when a cache is full."""
    rows = []
    for exponent in (0.7, 1.0):
        for scans in (False, True):
            requests = trace(length, keys, exponent, scans=scans)
            for part in (0.005, 0.05, 0.2):
                own, lru = await share(requests, int(keys * part))
                name = f"Zipf {exponent}{', with scans' if scans else ''}"
                rows.append([name, f"{part:.1%}", f"{own:.1%}", f"{lru:.1%}"])
    return evidence.table(["requests", "room, of the keys", "S3-FIFO", "LRU"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- cache", description=__doc__)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=300_000)
    chosen = parser.parse_args()
    if "covet" not in chosen.peers:
        parser.error("the peers are compared with covet: name it, too")
    evidence.write(
        "cache",
        "Cache",
        ABOUT.format(rounds=chosen.rounds, count=chosen.count),
        DISTRIBUTIONS,
        {
            "Calls": asyncio.run(calls(chosen.peers, chosen.rounds, chosen.count)),
            "Single flight": asyncio.run(flights(1000)),
            f"Memory of {chosen.entries:,} entries": entries(chosen.entries),
            "What stays when it is full": asyncio.run(ratios(chosen.length, 20_000)),
        },
    )


if __name__ == "__main__":
    main()
