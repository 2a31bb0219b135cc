"""Reads on replicas: what was written is read, in thousands of randomized pairs, and a replica that lags is left alone.

Pairs: several tasks, each pair in a session of its own, write a row and read it back by the same database, after a
random time of up to 2 ms, in a transaction or outside of one. One replica is held back now and then, at random, so that
it is behind. The same is done by hand, without tokens: a write to the primary, then a read of a replica. A read is
stale when it does not show what its own session wrote before.

Lag: while somebody writes, the replay of a replica is paused, and goes on a second after it has left. The reads of
other sessions tell how old what they were shown was.

The price: the same writes and reads with replicas and without, one at a time, in sessions that wrote nothing before.
The servers do not wait for their disks here, so that a round trip weighs more than it does elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from benchmarks import evidence
from tests.services import mariadb, postgresql

from covet_orm.databases import Database
from covet_orm.replicas import read_session

TASKS = 8
SERVERS: dict[str, Callable[[], Any]] = {
    "PostgreSQL 15": lambda: postgresql.run(15),
    "PostgreSQL 18": lambda: postgresql.run(18),
    "MariaDB": mariadb.run,
}


class Setting:
    """A primary and two replicas, with a row for each task."""

    def __init__(self, primary: Any, replicas: list[Any]) -> None:
        self.primary = primary
        self.replicas = replicas
        self.url = primary.url("proof")
        self.urls = [replica.url("proof") for replica in replicas]
        postgresql_ = primary.kind == "postgresql"
        one, two = ("$1", "$2") if postgresql_ else ("%s", "%s")
        self.update = f"UPDATE pairs SET value = {one} WHERE id = {two}"
        self.select = f"SELECT value FROM pairs WHERE id = {one}"
        self.port = "current_setting('port')::int" if postgresql_ else "@@port"


@contextmanager
def running(name: str) -> Iterator[Setting]:
    """A primary with two replicas."""
    with ExitStack() as stack:
        primary = stack.enter_context(SERVERS[name]())
        primary.create_database("proof")
        primary.execute("CREATE TABLE pairs (id int PRIMARY KEY, value double precision NOT NULL)", database="proof")
        for number in range(TASKS + 1):
            primary.execute(f"INSERT INTO pairs VALUES ({number}, 0)", database="proof")
        replicas = [stack.enter_context(primary.replica()) for _ in range(2)]
        for replica in replicas:
            replica.catch_up()
        yield Setting(primary, replicas)


async def hold_back(setting: Setting, chance: random.Random) -> None:
    """Let a replica be behind for a while, now and then."""
    while True:
        await asyncio.sleep(chance.uniform(0.2, 0.6))
        replica = chance.choice(setting.replicas)
        await asyncio.to_thread(replica.pause_replay)
        try:
            await asyncio.sleep(chance.uniform(0.02, 0.3))
        finally:
            replica.resume_replay()


async def pairs(setting: Setting, number: int, *, tokens: bool, seed: int) -> list[object]:
    """Write and read `number` times; how often what was written was not read, and where the reads went."""
    stale = 0
    answered: dict[int, int] = {}
    waited: list[float] = []

    async def work(task: int, database: Database, readers: list[Database]) -> None:
        nonlocal stale
        own = random.Random(seed + task)
        for turn in range(1, number // TASKS + 1):
            with read_session():
                if own.random() < 0.3:
                    async with database.transaction():
                        await database.execute(setting.update, [turn, task])
                else:
                    await database.execute(setting.update, [turn, task])
                if own.random() < 0.5:
                    await asyncio.sleep(own.uniform(0, 0.002))
                asked = database if tokens else own.choice(readers)
                began = time.perf_counter()
                port, value = (
                    await asked.query(setting.select.replace("value", f"{setting.port}, value", 1), [task])
                ).rows[0]
                waited.append(time.perf_counter() - began)
                stale += value != turn
                answered[port] = answered.get(port, 0) + 1

    options: dict[str, Any] = {"read_replicas": setting.urls, "replica_check": 0.2} if tokens else {}
    plain = [Database(url, alias=f"replica{number}") for number, url in enumerate(setting.urls)]
    async with Database(setting.url, **options) as database:
        holding = asyncio.create_task(hold_back(setting, random.Random(seed)))
        try:
            async with asyncio.TaskGroup() as group:
                for task in range(TASKS):
                    group.create_task(work(task, database, plain))
        finally:
            holding.cancel()
            await asyncio.wait([holding])
            for each in plain:
                await each.close()
    done = number // TASKS * TASKS
    on_replicas = sum(count for port, count in answered.items() if port != setting.primary.port)
    waited.sort()
    return [
        f"{done:,}", f"{stale:,}", f"{stale / done:.1%}", f"{on_replicas / done:.0%}",
        f"{median(waited) * 1000:.2f}", f"{waited[int(len(waited) * 0.99)] * 1000:.2f}",
    ]  # fmt: skip


async def lag(setting: Setting, max_lag: float) -> list[object]:
    """Pause a replica while somebody writes; when it left and returned, and the oldest that was read meanwhile."""
    (held, *_) = setting.replicas
    options: dict[str, Any] = {"read_replicas": setting.urls[:1], "replica_check": 0.1, "max_lag": max_lag}
    async with Database(setting.url, **options) as database:
        (lane,) = database._lanes.values()
        assert lane.replicated is not None
        (replica,) = lane.replicated.router.replicas
        oldest = 0.0
        going = True

        async def write() -> None:
            while going:
                await database.execute(setting.update, [time.time(), TASKS])
                await asyncio.sleep(0.005)

        async def read() -> None:
            nonlocal oldest
            while going:
                with read_session():
                    value = await database.fetch_value(setting.select, [TASKS])
                if value:
                    oldest = max(oldest, time.time() - value)
                await asyncio.sleep(0.005)

        async def until(away: bool) -> float:
            began = time.monotonic()
            while (replica.away is not None) is not away and time.monotonic() < began + 30:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert (replica.away is not None) is away, replica
            return time.monotonic() - began

        tasks = [asyncio.create_task(write()), asyncio.create_task(read())]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(held.pause_replay)
        left = await until(away=True)
        reason = replica.away
        await asyncio.sleep(1)
        await asyncio.to_thread(held.resume_replay)
        returned = await until(away=False)
        await asyncio.sleep(0.3)
        going = False
        await asyncio.gather(*tasks)
    return [f"{max_lag:g}", str(reason), f"{left:.2f}", f"{returned:.2f}", f"{oldest:.2f}"]


async def price(setting: Setting, number: int) -> list[object]:
    """Milliseconds of a write without replicas and with them, and of a read."""
    columns: list[object] = []
    seconds: dict[str, list[float]] = {}
    async with (
        Database(setting.url, alias="plain") as plain,
        Database(setting.url, alias="replicated", read_replicas=setting.urls) as replicated,
    ):
        for turn in range(number):
            for sign, name, database in ((1, "plain", plain), (-1, "replicated", replicated)):
                with read_session():
                    began = time.perf_counter()
                    await database.execute(setting.update, [sign * turn - 0.5, 0])
                    seconds.setdefault(f"write, {name}", []).append(time.perf_counter() - began)
                with read_session():
                    began = time.perf_counter()
                    await database.query(setting.select, [0])
                    seconds.setdefault(f"read, {name}", []).append(time.perf_counter() - began)
    for what in ("write", "read"):
        without, with_them = (median(seconds[f"{what}, {name}"]) * 1000 for name in ("plain", "replicated"))
        columns += [f"{without:.3f}", f"{with_them:.3f}", f"{with_them / without:.2f}"]
    return columns


def main() -> None:
    parser = argparse.ArgumentParser(prog="proof -- replicas", description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS))
    chosen = parser.parse_args()
    read, lagged, paid = [], [], []
    failed = False
    for name in chosen.servers:
        with running(name) as setting:
            for tokens in (False, True):
                row = asyncio.run(pairs(setting, chosen.pairs, tokens=tokens, seed=chosen.seed))
                read.append([f"{name}, {'with' if tokens else 'without'} tokens", *row])
                # Without tokens some must be stale, or the pairs show nothing.
                failed |= (row[1] != "0") is tokens
                print("#", read[-1], flush=True)
            lagged.append([name, *asyncio.run(lag(setting, 0.5))])
            failed |= lagged[-1][2] != "lag"
            print("#", lagged[-1], flush=True)
            paid.append([name, *asyncio.run(price(setting, min(1000, chosen.pairs)))])
            print("#", paid[-1], flush=True)
    evidence.write(
        "replicas",
        "Reads on replicas",
        (__doc__ or "") + f"\n{TASKS} tasks, seed {chosen.seed}, two replicas, `replica_wait` of 0.1 seconds.\n",
        ["covet-orm", "asyncpg", "aiomysql"],
        {
            "Pairs of a write and a read": evidence.table(
                ["server", "pairs", "stale", "of all", "read on a replica", "read, median ms", "99 % ms"], read
            ),
            "A replica that lags": evidence.table(
                ["server", "max_lag, s", "left for", "after s", "returned after s", "oldest read, s"], lagged
            ),
            "The price": evidence.table(
                ["server", "write, ms", "with replicas", "ratio", "read, ms", "with replicas", "ratio"], paid
            ),
        },
        session="proof",
    )
    sys.exit(failed)


if __name__ == "__main__":
    main()
