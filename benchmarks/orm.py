"""Covet's ORM beside the raw drivers and its peers: operations, building a query, the distribution of latency.

The peers take turns in every round, so that a shared, noisy machine distorts no ratio. A peer that answers wrongly
stops the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import evidence
from benchmarks.peers_orm import schema
from benchmarks.peers_orm.answers import WORKLOADS, check

PEERS = ["raw", "covet", "sqlalchemy_core", "sqlalchemy_orm", "tortoise", "piccolo", "django"]
DATABASES = {"postgresql": "PostgreSQL 15", "sqlite": "SQLite", "mariadb": "MariaDB"}
# MariaDB has no goals of its own, and is measured beside its driver alone.
PEERS_OF = {"postgresql": PEERS, "sqlite": PEERS, "mariadb": ["raw", "covet"]}
DISTRIBUTIONS = [
    "covet-orm", "asyncpg", "aiosqlite", "aiomysql", "sqlalchemy", "greenlet", "tortoise-orm", "piccolo", "django",
    "psycopg",
]  # fmt: skip
WRITING = ("insert", "bulk10k")
TASKS = 50
TOGETHER = {"get": "get", "list100": "filter", "join1k": "join", "insert": "write"}
BUILD_GOAL = 15.0
ABOUT = """
`raw` is the driver and its pool: asyncpg, aiosqlite, aiomysql; rows as they come, no objects. `covet` is used as the
quick start shows, outside of an application; `sqlalchemy_core` gives rows, `sqlalchemy_orm` objects of a session for
each operation; `tortoise` and `piccolo` use asyncpg and aiosqlite, `django` psycopg 3 with its pool. Each is written as
its documentation advises, with at most {pool} connections where it has a pool; each answer is checked first. Many rows
are inserted by COPY with `raw` on PostgreSQL, else by `executemany`. The servers run on the same machine, and what was
committed survives the end of it (`fsync`); SQLite's file is in memory, where there is `/dev/shm`, so that a peer that
waits for a disk after each write has no handicap. Piccolo opens SQLite's file anew for every query.
The modules of all the peers are kept from the garbage collector (`gc.freeze`), which no application has at once.

Of {rounds} interleaved rounds of wall time; a ratio is the median of the ratios within each round.
"""

Rounds = dict[str, list[float]]
"""The microseconds per operation of each round, by peer."""


class Chosen(NamedTuple):
    """What is measured, of one database."""

    peers: list[str]
    workloads: list[str]
    rounds: int
    quick: bool


def count_of(workload: str, quick: bool) -> int:
    """How many operations a round has."""
    return max(WORKLOADS[workload].count // 20, 1) if quick else WORKLOADS[workload].count


async def timed(peer: schema.Peer, workload: str, count: int) -> float:
    """Microseconds per operation."""
    operation = getattr(peer, workload)
    began = time.perf_counter()
    for number in range(count):
        await operation(number)
    return (time.perf_counter() - began) / count * 1e6


async def operations(peers: dict[str, schema.Peer], chosen: Chosen) -> dict[str, Rounds]:
    """The rounds of every workload, by its name."""
    results = {}
    for workload in chosen.workloads:
        count = count_of(workload, chosen.quick)
        times: Rounds = {name: [] for name in peers}
        for number in range(chosen.rounds + 1):
            for name, peer in peers.items():
                schema.begin_turn(peer)
                if workload in WRITING:
                    await peer.clear()
                gc.collect()
                took = await timed(peer, workload, count)
                # The first is to warm up: connections are made, statements prepared.
                if number:
                    times[name].append(took)
        results[workload] = times
        medians = "  ".join(f"{name}={median(got):.0f}" for name, got in times.items())
        print(f"# {workload}: {medians}", flush=True)
    return results


def ratio(times: Rounds, peer: str) -> float:
    """What a peer costs in multiples of the driver: the median of the ratios within each round."""
    return median(own / raw for own, raw in zip(times[peer], times["raw"], strict=True))


def operations_table(results: dict[str, Rounds], kind: str, peers: list[str]) -> str:
    """The table of ratios, with the goals."""
    rows = []
    for name, times in results.items():
        workload = WORKLOADS[name]
        goal = workload.goals.get(kind)
        cells = [f"{median(times['raw']):,.0f}"] + [f"{ratio(times, peer):.2f}" for peer in peers if peer != "raw"]
        if kind != "mariadb" and "covet" in times:
            met = goal is None or ratio(times, "covet") <= goal + 0.005
            cells += [f"≤ {goal}", "yes" if met else "no"]
        rows.append([workload.title, *cells])
    head = ["", "raw, µs", *(peer for peer in peers if peer != "raw")]
    if kind != "mariadb" and "covet" in peers:
        head += ["goal for covet", "met"]
    return evidence.table(head, rows)


async def building(rounds: int, count: int) -> str:
    """The table of building a query, without sending it."""
    from benchmarks.peers_orm import covet

    database = covet.Database("sqlite://")

    def build() -> None:
        covet.Item.objects.filter(small__lt=50, active=True).prepared(database)

    first, again = [], []
    for _ in range(rounds):
        database.plans.clear()
        began = time.perf_counter()
        build()
        first.append(time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(count):
            build()
        again.append((time.perf_counter() - began) / count)
    own = median(again) * 1e6
    rows = [
        ["from the cache", f"{own:.1f}", f"≤ {BUILD_GOAL:.0f}", "yes" if own <= BUILD_GOAL else "no"],
        ["the first of its shape, compiled", f"{median(first) * 1e6:,.0f}", "", ""],
    ]
    return evidence.table(["`Item.objects.filter(small__lt=50, active=True)`", "µs", "goal", "met"], rows)


async def together(peers: dict[str, schema.Peer], quick: bool) -> str:
    """The table of latencies where many tasks ask at once."""
    rows = []
    for workload, title in TOGETHER.items():
        times = 4 if quick or workload == "join1k" else 100
        for name, peer in peers.items():
            schema.begin_turn(peer)
            await peer.clear()
            operation = getattr(peer, workload)
            latencies: list[float] = []

            async def run(operation: Any = operation, latencies: list[float] = latencies, times: int = times) -> None:
                for number in range(times):
                    began = time.perf_counter()
                    await operation(number)
                    latencies.append(time.perf_counter() - began)

            gc.collect()
            began = time.perf_counter()
            await asyncio.gather(*(run() for _ in range(TASKS)))
            seconds = time.perf_counter() - began
            latencies.sort()
            marks = [latencies[min(int(len(latencies) * share), len(latencies) - 1)] for share in (0.5, 0.99, 0.999)]
            rows.append(
                [f"{title}, {name}", *(f"{mark * 1e3:.2f}" for mark in marks), f"{len(latencies) / seconds:,.0f}"]
            )
    return evidence.table(["", "p50, ms", "p99, ms", "p999, ms", "operations per second"], rows)


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of an empty database, as long as the context lasts."""
    from tests.services import mariadb, postgresql

    if kind == "sqlite":
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            yield f"sqlite:///{folder}/bench.db"
    elif kind == "mariadb":
        with mariadb.run(mariadb.DURABLE) as server:
            yield server.create_database("bench")
    else:
        settings = {**postgresql.DURABLE, "shared_buffers": "128MB", "full_page_writes": "on"}
        with postgresql.run(15, settings) as other:
            yield other.create_database("bench")


async def measure(kind: str, url: str, chosen: Chosen) -> dict[str, str]:
    """The sections of one database."""
    await schema.build(url)
    peers: dict[str, schema.Peer] = {}
    for name in chosen.peers:
        peers[name] = importlib.import_module(f"benchmarks.peers_orm.{name}").Peer(url)
    opened = []
    try:
        for name, peer in peers.items():
            await peer.open()
            opened.append(peer)
            print(f"# {kind}: {name} is checked", flush=True)
            await check(name, peer, peers["raw"], chosen.workloads)
        # The modules of all the others are in nobody's way in an application: the collector does not look at them.
        gc.collect()
        gc.freeze()
        results = await operations(peers, chosen)
        title = DATABASES[kind]
        return {
            f"{title}: ratio to the driver": operations_table(results, kind, chosen.peers),
            f"{title}: latency of {TASKS} concurrent tasks": await together(peers, chosen.quick),
        }
    finally:
        for peer in reversed(opened):
            await peer.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- orm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the operations; the figures mean little")
    parser.add_argument("--databases", nargs="+", choices=list(DATABASES), default=list(DATABASES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--print", action="store_true", help="write no page")
    chosen = parser.parse_args()
    wanted = ["raw", *(peer for peer in chosen.peers if peer != "raw")]
    sections = {"Building a query": asyncio.run(building(chosen.rounds, 200 if chosen.quick else 5000))}
    for kind in chosen.databases:
        peers = [peer for peer in wanted if peer in PEERS_OF[kind]]
        with database(kind) as url:
            one = Chosen(peers, chosen.workloads, chosen.rounds, chosen.quick)
            sections |= asyncio.run(measure(kind, url, one))
    if chosen.print:
        for heading, body in sections.items():
            print(f"\n## {heading}\n\n{body}")
        return
    evidence.write(
        "orm",
        "ORM: operations beside the driver",
        ABOUT.format(rounds=chosen.rounds, pool=schema.POOL_SIZE),
        DISTRIBUTIONS,
        sections,
    )


if __name__ == "__main__":
    main()
