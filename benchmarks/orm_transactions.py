"""Transactions of Covet's ORM beside the drivers' own and those of its peers: one insert in a block, a block inside of
another one, a block that does nothing, and a counter that many tasks want.

The peers take turns in every round, so that a shared, noisy machine distorts no ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import time
from statistics import median
from typing import Any

from benchmarks import evidence
from benchmarks.orm import DATABASES, DISTRIBUTIONS, Rounds, database, ratio
from benchmarks.peers_orm import schema

PEERS = ["raw", "covet", "sqlalchemy_orm", "tortoise", "django"]
PEERS_OF = {"postgresql": PEERS, "sqlite": PEERS, "mariadb": ["raw", "covet", "sqlalchemy_orm"]}
COUNT = 200
GOAL = 1.05
NESTED = 10.0
"""Microseconds that an inner block may take beyond its two statements."""
TASKS = 50
CONTENDED = 0.9
ABOUT = """
`raw` is the driver: BEGIN, one INSERT, COMMIT, by `connection.transaction()` of asyncpg from its pool, by hand with
aiosqlite and aiomysql. `covet` is `async with transaction_manager.atomic(): await Model.objects.create(...)`; others
are what their documentation shows, Django by `sync_to_async`, since its transactions know no async. What was committed
survives the end of the server (`fsync`); SQLite's file is in memory, where there is `/dev/shm`.

Of {rounds} interleaved rounds of {count} operations; a ratio is the median of the ratios within each round. The inner
block holds an insert as well, by the driver between `SAVEPOINT` and `RELEASE`. What the block itself takes is the
difference between two programs that are the same, but for an inner `atomic()` in one, and `SAVEPOINT` and `RELEASE` by
the bare driver in the other.

The counter: {tasks} tasks add to one row, read first, at `repeatable read` on PostgreSQL, where whoever is late gets a
conflict and tries again, with the same waits: by `retry`; by a loop written by hand around the same statements of the
ORM; and by a loop around the driver, which makes no objects and checks nothing.
"""


async def timed(peer: Any, name: str, count: int) -> float:
    """Microseconds per operation."""
    operation = getattr(peer, name)
    began = time.perf_counter()
    for number in range(count):
        await operation(number)
    return (time.perf_counter() - began) / count * 1e6


async def rounds_of(peers: dict[str, Any], name: str, rounds: int, count: int) -> Rounds:
    """The microseconds per operation of each round, by peer; the first round warms up."""
    times: Rounds = {peer: [] for peer in peers}
    for number in range(rounds + 1):
        for key, peer in peers.items():
            schema.begin_turn(peer)
            await peer.clear()
            gc.collect()
            took = await timed(peer, name, count)
            if number:
                times[key].append(took)
    print(f"# {name}: " + "  ".join(f"{key}={median(got):.0f}" for key, got in times.items()), flush=True)
    return times


async def beyond_statements(peer: Any, rounds: int, count: int) -> float:
    """Microseconds that an inner block takes beyond its two statements."""
    beyond = []
    for _ in range(rounds):
        await peer.clear()
        gc.collect()
        by_hand = await timed(peer, "nested_by_hand", count)
        await peer.clear()
        gc.collect()
        beyond.append(await timed(peer, "nested", count) - by_hand)
    return median(beyond[1:])


async def nothing(count: int) -> float:
    """Microseconds of a block in which nothing is asked."""
    from covet_orm import transaction_manager

    best = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(count):
            async with transaction_manager.atomic():
                pass
        best.append((time.perf_counter() - began) / count * 1e6)
    return median(best)


async def measure(kind: str, url: str, names: list[str], rounds: int, count: int) -> dict[str, str]:
    """The sections of one database."""
    await schema.build(url)
    peers = {name: importlib.import_module(f"benchmarks.peers_orm.{name}").Peer(url) for name in names}
    try:
        for peer in peers.values():
            await peer.open()
        single = await rounds_of(peers, "transaction", rounds, count)
        nested = await rounds_of(peers, "nested", rounds, count)
        beyond = await beyond_statements(peers["covet"], rounds * 3, count)
        empty = await nothing(count)
    finally:
        for peer in reversed(list(peers.values())):
            await peer.close()
    rows = []
    for title, times, goal in (("BEGIN, INSERT, COMMIT", single, GOAL), ("with an inner block", nested, None)):
        own = ratio(times, "covet")
        cells = [f"{median(times['raw']):,.0f}", *(f"{ratio(times, name):.2f}" for name in names if name != "raw")]
        met = "" if goal is None else "yes" if own <= goal + 0.005 else "no"
        rows.append([title, *cells, "" if goal is None else f"≤ {goal}", met])
    head = ["", "raw, µs", *(name for name in names if name != "raw"), "goal for covet", "met"]
    small = [
        [
            "an inner block beyond its two statements",
            f"{beyond:+.0f}",
            f"≤ {NESTED:.0f}",
            "yes" if beyond <= NESTED else "no",
        ],
        ["a block in which nothing is asked", f"{empty:.1f}", "", ""],
    ]
    return {
        f"{DATABASES[kind]}: ratio to the driver": evidence.table(head, rows),
        f"{DATABASES[kind]}: in detail": evidence.table(["", "µs", "goal", "met"], small),
    }


async def contended(url: str, rounds: int, each: int) -> str:
    """The table of a counter that many tasks want."""
    import random

    import asyncpg

    from benchmarks.peers_orm.covet import Author
    from covet_orm import Database, F, SerializationFailure, exponential, transaction_manager

    await schema.build(url)
    pool = await asyncpg.create_pool(url, min_size=10, max_size=10)
    attempts = {"retry of covet": 0, "loop around covet": 0, "loop around the driver": 0}

    async def by_driver() -> None:
        async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            await connection.fetch("select name from bench_author where id = $1", 1)
            await connection.execute("update bench_author set name = name where id = $1", 1)

    @transaction_manager.atomic(isolation="repeatable read")
    async def by_covet() -> None:
        await Author.objects.filter(id=1).values_list("name", flat=True)
        await Author.objects.filter(id=1).update(name=F("name"))

    @transaction_manager.retry(max_attempts=1000, backoff=exponential)
    async def by_retry() -> None:
        attempts["retry of covet"] += 1
        await by_covet()

    def by_hand(name: str, work: Any, conflict: type[Exception]) -> Any:
        async def loop() -> None:
            for attempt in range(1, 1001):
                attempts[name] += 1
                try:
                    await work()
                    return
                except conflict:
                    await asyncio.sleep(random.uniform(0, min(2.0, 0.02 * 2.0 ** (attempt - 1))))

        return loop

    async def rate(work: Any) -> float:
        async def run() -> None:
            for _ in range(each):
                await work()

        began = time.perf_counter()
        await asyncio.gather(*(run() for _ in range(TASKS)))
        return TASKS * each / (time.perf_counter() - began)

    rates: Rounds = {name: [] for name in attempts}
    works = {
        "retry of covet": by_retry,
        "loop around covet": by_hand("loop around covet", by_covet, SerializationFailure),
        "loop around the driver": by_hand("loop around the driver", by_driver, asyncpg.SerializationError),
    }
    async with Database(url, min_size=10, max_size=10):
        for number in range(rounds + 1):
            # Each is first as often as the others: what one leaves behind, the next has to wait for.
            order = list(works)[number % len(works) :] + list(works)[: number % len(works)]
            for name in order:
                got = await rate(works[name])
                if number:
                    rates[name].append(got)
    await pool.close()
    done = TASKS * each * (rounds + 1)
    rows = []
    for name, got in rates.items():
        own = median(covet / other for covet, other in zip(rates["retry of covet"], got, strict=True))
        compared = [f"{own:.2f} (≥ {CONTENDED})", "yes" if own >= CONTENDED else "no"]
        if name == "retry of covet":
            compared = ["", ""]
        rows.append([name, f"{median(got):,.0f}", f"{attempts[name] / done:.2f}", *compared])
    return evidence.table(["", "transactions per second", "attempts for each", "retry in relation to it", "met"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- orm_transactions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the operations; the figures mean little")
    parser.add_argument("--databases", nargs="+", choices=list(DATABASES), default=list(DATABASES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--print", action="store_true", help="write no page")
    chosen = parser.parse_args()
    wanted = list(dict.fromkeys(["raw", "covet", *chosen.peers]))
    count = max(COUNT // 20, 1) if chosen.quick else COUNT
    sections: dict[str, str] = {}
    for kind in chosen.databases:
        with database(kind) as url:
            names = [name for name in wanted if name in PEERS_OF[kind]]
            sections |= asyncio.run(measure(kind, url, names, chosen.rounds, count))
            if kind == "postgresql":
                rounds = 1 if chosen.quick else chosen.rounds
                sections["A counter that many want"] = asyncio.run(contended(url, rounds, 1 if chosen.quick else 10))
    if chosen.print:
        for heading, body in sections.items():
            print(f"\n## {heading}\n\n{body}")
        return
    about = ABOUT.format(rounds=chosen.rounds, count=count, tasks=TASKS)
    evidence.write("orm_transactions", "ORM: transactions", about, DISTRIBUTIONS, sections)


if __name__ == "__main__":
    main()
