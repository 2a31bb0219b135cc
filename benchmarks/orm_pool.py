"""The connection pool beside its peers, with a real PostgreSQL: taking and giving back, and who waits how long.

The peers take turns in every round, so that a shared, noisy machine distorts no ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import mean, median
from typing import Any

import asyncpg
from tests.services import postgresql

from benchmarks import evidence
from covet_orm.drivers.postgresql import PostgreSQLDriver
from covet_orm.pool import Pool, PoolSettings
from covet_orm.urls import parse_url

ABOUT = """
`covet` is `covet_orm.pool.Pool` over its driver for asyncpg; `asyncpg` is the driver's own pool, as it is and without
the statement by which it resets a connection on release; `sqlalchemy` is the pool of an asynchronous engine over
asyncpg, entered by `engine.connect()`, which is what its users call. The server is PostgreSQL 15 on the same machine.

Covet does not reset a connection on release: one that is not at rest, or inside of a transaction, is not used again, by
what the protocol tells.
"""
DISTRIBUTIONS = ["covet-orm", "asyncpg", "sqlalchemy", "greenlet"]

Use = Callable[[Callable[[Any], Awaitable[object]] | None], Awaitable[None]]


async def no_reset(connection: Any) -> None:
    """Nothing, instead of asyncpg's statement."""


@asynccontextmanager
async def covet(url: str, size: int) -> AsyncIterator[Use]:
    """Covet's pool, as the data path uses it."""
    async with Pool(PostgreSQLDriver(parse_url(url)), PoolSettings(min_size=size, max_size=size)) as pool:

        async def use(work: Callable[[Any], Awaitable[object]] | None) -> None:
            connection = pool.try_acquire() or await pool.acquire()
            try:
                if work is not None:
                    await work(connection)
            finally:
                pool.release(connection)

        yield use


@asynccontextmanager
async def covet_acquire(url: str, size: int) -> AsyncIterator[Use]:
    """Covet's pool, without the synchronous call first."""
    async with Pool(PostgreSQLDriver(parse_url(url)), PoolSettings(min_size=size, max_size=size)) as pool:

        async def use(work: Callable[[Any], Awaitable[object]] | None) -> None:
            connection = await pool.acquire()
            try:
                if work is not None:
                    await work(connection)
            finally:
                pool.release(connection)

        yield use


@asynccontextmanager
async def asyncpg_pool(url: str, size: int, **options: Any) -> AsyncIterator[Use]:
    """The pool of asyncpg."""
    async with asyncpg.create_pool(url, min_size=size, max_size=size, **options) as pool:

        async def use(work: Callable[[Any], Awaitable[object]] | None) -> None:
            async with pool.acquire() as connection:
                if work is not None:
                    await work(connection)

        yield use


@asynccontextmanager
async def sqlalchemy_pool(url: str, size: int) -> AsyncIterator[Use]:
    """The pool of SQLAlchemy."""
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=size, max_overflow=0, pool_timeout=600
    )

    async def use(work: Callable[[Any], Awaitable[object]] | None) -> None:
        async with engine.connect() as connection:
            if work is not None:
                raw = await connection.get_raw_connection()
                await work(raw.driver_connection)

    try:
        yield use
    finally:
        await engine.dispose()


PEERS: dict[str, Callable[[str, int], Any]] = {
    "covet": covet,
    "covet, `acquire` alone": covet_acquire,
    "asyncpg": asyncpg_pool,
    "asyncpg, no reset": lambda url, size: asyncpg_pool(url, size, reset=no_reset),
    "sqlalchemy": sqlalchemy_pool,
}
WAITING = ("covet", "asyncpg", "sqlalchemy")


async def alone(url: str, rounds: int, count: int) -> str:
    """The table of one task that takes a connection and gives it back."""
    taken: dict[str, list[float]] = {name: [] for name in PEERS}
    async with AsyncExitStack() as stack:
        uses = {name: await stack.enter_async_context(peer(url, 2)) for name, peer in PEERS.items()}
        for _ in range(rounds):
            for name, use in uses.items():
                number = count if name.startswith("covet") else max(count // 20, 1)
                gc.collect()
                began = time.perf_counter()
                for _ in range(number):
                    await use(None)
                taken[name].append((time.perf_counter() - began) / number * 1e6)
    own = median(taken["covet"])
    rows = [[name, f"{median(times):.2f}", f"{median(times) / own:.1f}"] for name, times in taken.items()]
    return evidence.table(["acquire and release, nobody waits", "microseconds", "/ covet"], rows)


async def together(url: str, tasks: int, size: int, times: int) -> str:
    """The table of many tasks on few connections."""
    rows = []
    for name in WAITING:
        async with PEERS[name](url, size) as use:
            waits: list[float] = []
            ended = [0] * tasks
            fewest: int | None = None

            async def run(number: int) -> None:
                nonlocal fewest
                for _ in range(times):
                    asked = time.perf_counter()

                    async def work(connection: Any) -> None:
                        waits.append(time.perf_counter() - asked)  # noqa: B023
                        await connection.fetch("SELECT 1")

                    await use(work)
                    ended[number] += 1  # noqa: B023
                    if fewest is None and len(waits) >= tasks * times // 2:  # noqa: B023
                        fewest = min(ended)  # noqa: B023

            gc.collect()
            began = time.perf_counter()
            await asyncio.gather(*(run(number) for number in range(tasks)))
            seconds = time.perf_counter() - began
        waits.sort()
        rows.append(
            [
                name,
                f"{len(waits) / seconds:,.0f}",
                f"{mean(waits) * 1e3:.1f}",
                f"{waits[len(waits) * 99 // 100] * 1e3:.1f}",
                f"{waits[-1] * 1e3:.1f}",
                f"{waits[-1] / mean(waits):.2f}",
                f"{fewest} of {times}",
            ]
        )
    head = [
        "",
        "statements per second",
        "mean wait, ms",
        "99 %, ms",
        "longest, ms",
        "longest / mean",
        "least done at half-time",
    ]
    return evidence.table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- orm_pool", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--size", type=int, default=5)
    parser.add_argument("--times", type=int, default=20)
    chosen = parser.parse_args()
    with postgresql.run(15) as server:
        url = server.create_database("bench")
        evidence.write(
            "orm_pool",
            "Connection pool",
            ABOUT,
            DISTRIBUTIONS,
            {
                "Nobody waits": asyncio.run(alone(url, chosen.rounds, chosen.count)),
                f"{chosen.tasks:,} tasks, {chosen.size} connections, {chosen.times} statements each": asyncio.run(
                    together(url, chosen.tasks, chosen.size, chosen.times)
                ),
            },
        )


if __name__ == "__main__":
    main()
