"""A database server is killed under load: what callers saw, how long until it served again, what was left behind.

Fifty tasks read, insert, update and transfer as fast as they can, each in a loop, and note what the database
acknowledged. The server is killed with SIGKILL, all of its processes at once, and started again on its data a second
later; several times. In the end:

- every insert that was acknowledged is there, once;
- every transfer between two rows happened as a whole or not at all: their sum is what it was;
- no connection is held any more, none of those that are left is dirty (inside of a transaction, or in the middle of a
  statement, by what the protocol says), and the server has no more sessions than the pool knows of.

SQLite has no server: there the process that writes is killed, and another one opens the file.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from benchmarks import evidence

from covet_orm import BigAutoField, CharField, Database, F, IntegerField, Model, OrmError, Registry
from covet_orm.drivers.protocol import SessionState
from covet_orm.pool import Pool

TASKS = 50
POOL = 10
NAMES = ("postgresql-15", "postgresql-18", "mariadb")
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'covet' AND datname = current_database()"
registry = Registry()


class Account(Model):
    id = BigAutoField()
    balance = IntegerField(default=100)

    class Meta:
        registry = registry
        db_table = "account"


class Entry(Model):
    code = CharField(max_length=40, unique=True)

    class Meta:
        registry = registry
        db_table = "entry"


@dataclass
class Outcome:
    """What a run showed."""

    name: str
    kills: int
    acknowledged: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    done: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    until_service: list[float] = field(default_factory=list)
    lost: int = 0
    twice: int = 0
    sum_is_right: bool = False
    held: int = 0
    dirty: int = 0
    sessions: int = 0
    known: int = 0

    @property
    def failed(self) -> bool:
        """Whether anything was lost, half done, or left behind."""
        return bool(
            self.lost or self.twice or not self.sum_is_right or self.held or self.dirty or self.sessions > self.known
        )

    def row(self) -> list[object]:
        """The outcome as a row of the table."""
        seen = ", ".join(f"{name} {count:,}" for name, count in self.errors.most_common())
        waited = ", ".join(f"{seconds:.1f}" for seconds in self.until_service)
        return [
            self.name, self.kills, f"{self.done:,}", seen or "nothing", waited, f"{len(self.acknowledged):,}",
            self.lost, self.twice, "kept" if self.sum_is_right else "broken", self.held, self.dirty,
            f"{self.sessions} of {self.known}",
        ]  # fmt: skip


async def work(number: int, outcome: Outcome, ended: anyio.Event, accounts: list[int]) -> None:
    """One task: random statements until the end; an error is noted, and the next statement tried."""
    chance = random.Random(number)
    step = 0
    while not ended.is_set():
        step += 1
        code = f"{number}-{step}"
        what = chance.choice(("get", "insert", "update", "transfer"))
        try:
            if what == "get":
                await Account.objects.get(id=chance.choice(accounts))
            elif what == "insert":
                outcome.unknown.add(code)
                await Entry.objects.create(code=code)
                outcome.unknown.discard(code)
                outcome.acknowledged.add(code)
            elif what == "update":
                await Account.objects.filter(id=chance.choice(accounts)).update(balance=F("balance") + 0)
            else:
                await transfer(*sorted(chance.sample(accounts, 2)))
        except OrmError as error:
            outcome.errors[type(error).__name__] += 1
            await anyio.sleep(0.01)
        else:
            outcome.done += 1


async def transfer(first: int, second: int) -> None:
    """Move one from an account to another, in one transaction; in the order of the keys, so that none wait in a
    circle."""
    from covet_orm.ambient import find_database

    async with find_database().transaction():
        await Account.objects.filter(id=first).update(balance=F("balance") - 1)
        await Account.objects.filter(id=second).update(balance=F("balance") + 1)


async def run(name: str, server: Any, url: str, kills: int, seconds: float) -> Outcome:
    """Load, kill, start again; then look at what is left."""
    outcome = Outcome(name, kills)
    async with Database(url, max_size=POOL, acquire_timeout=60) as database:
        await database.create_all(registry)
        accounts = [account.id for account in await Account.objects.bulk_create([Account() for _ in range(20)])]
        ended = anyio.Event()
        async with anyio.create_task_group() as group:
            for number in range(TASKS):
                group.start_soon(work, number, outcome, ended, accounts)
            await anyio.sleep(seconds)
            for _ in range(kills):
                await asyncio.to_thread(server.kill)
                await anyio.sleep(1)
                before = outcome.done
                await asyncio.to_thread(server.start)
                began = time.monotonic()
                while outcome.done == before:  # noqa: ASYNC110 - no event on the path that is measured
                    await anyio.sleep(0.005)
                outcome.until_service.append(time.monotonic() - began)
                await anyio.sleep(seconds)
            ended.set()
        await _look(database, outcome)
    return outcome


async def _look(database: Database, outcome: Outcome) -> None:
    codes = Counter(await Entry.objects.all().values_list("code", flat=True))
    outcome.lost = len(outcome.acknowledged - set(codes))
    outcome.twice = sum(1 for count in codes.values() if count > 1)
    outcome.sum_is_right = sum(await Account.objects.all().values_list("balance", flat=True)) == 20 * 100
    outcome.held, outcome.dirty, outcome.known = look_at_pools(database.pools())
    if database.kind == "postgresql":
        outcome.sessions = await database.fetch_value(SESSIONS)
    elif database.kind == "mariadb":
        outcome.sessions = await database.fetch_value(
            "SELECT count(*) FROM information_schema.processlist WHERE db = database()"
        )


def look_at_pools(pools: Sequence[Pool]) -> tuple[int, int, int]:
    """How many connections are held, how many of the others are not at rest, and how many there are in all."""
    stats = [pool.stats for pool in pools]
    dirty = 0
    for pool in pools:
        taken = []
        while (connection := pool.try_acquire()) is not None:
            taken.append(connection)
        dirty += sum(connection.state is not SessionState.IDLE for connection in taken)
        for connection in taken:
            pool.release(connection)
    return sum(one.in_use for one in stats), dirty, sum(one.size for one in stats)


async def _write_until_killed(path: str) -> None:
    """The process that is killed: it tells each insert that was acknowledged."""
    outcome = Outcome("sqlite", 0)
    async with Database(f"sqlite:///{path}") as database:
        await database.create_all(registry)
        accounts = list(await Account.objects.all().values_list("id", flat=True))
        if not accounts:
            accounts = [account.id for account in await Account.objects.bulk_create([Account() for _ in range(20)])]
        ended = anyio.Event()

        async def tell() -> None:
            told: set[str] = set()
            while True:
                new = outcome.acknowledged - told
                if new:
                    os.write(1, "".join(f"{code}\n" for code in new).encode())
                    told |= new
                await anyio.sleep(0.001)

        first = time.time_ns()
        async with anyio.create_task_group() as group:
            group.start_soon(tell)
            for number in range(TASKS):
                group.start_soon(work, first + number, outcome, ended, accounts)


async def run_sqlite(kills: int, seconds: float) -> Outcome:
    """Kill the process that writes, and open the file in another one."""
    outcome = Outcome("sqlite", kills)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "app.db"))
        for _ in range(kills):
            began = time.monotonic()
            writer = await anyio.open_process(
                [sys.executable, "-m", "tests.proofs.orm_kill", "--write", path], stderr=None
            )
            assert writer.stdout is not None
            told = b""
            with anyio.move_on_after(seconds + 20):
                async for chunk in writer.stdout:
                    if not told:
                        outcome.until_service.append(time.monotonic() - began)
                    told += chunk
                    if time.monotonic() - began > seconds + outcome.until_service[-1]:
                        break
            writer.send_signal(signal.SIGKILL)
            async for chunk in writer.stdout:
                told += chunk
            await writer.wait()
            await writer.aclose()
            outcome.acknowledged |= {code for code in told.decode().split("\n")[:-1] if code}
        outcome.done = len(outcome.acknowledged)
        async with Database(f"sqlite:///{path}") as database:
            if await database.fetch_value("PRAGMA integrity_check") != "ok":
                outcome.dirty += 1
            await _look(database, outcome)
    return outcome


async def prove(kills: int, seconds: float) -> list[Outcome]:
    """Every database in turn."""
    from tests.services import mariadb, postgresql

    outcomes = [await run_sqlite(kills, seconds)]
    for name in NAMES:
        kind, _, number = name.partition("-")
        made = (
            postgresql.run(int(number), settings=postgresql.DURABLE)
            if kind == "postgresql"
            else mariadb.run(settings=mariadb.DURABLE)
        )
        with made as server:
            outcomes.append(await run(name, server, server.create_database("proof"), kills, seconds))
    return outcomes


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--write", help="for SQLite: write to this file until killed")
    given = parser.parse_args()
    if given.write:
        anyio.run(_write_until_killed, given.write)
        return
    outcomes: list[Outcome] = anyio.run(prove, given.kills, given.seconds)
    head = [
        "database", "kills", "statements done", "what callers saw", "seconds until service", "inserts acknowledged",
        "of these lost", "there twice", "sum of transfers", "connections held", "dirty", "sessions at the server",
    ]  # fmt: skip
    evidence.write(
        "orm_kill",
        "A server is killed under load",
        __doc__,
        ["covet-orm", "asyncpg", "aiomysql", "aiosqlite", "sqlalchemy"],
        {"Outcome": evidence.table(head, [outcome.row() for outcome in outcomes])},
        session="proof",
    )
    if any(outcome.failed for outcome in outcomes):
        raise SystemExit("something was lost, half done, or left behind: see the table")


if __name__ == "__main__":
    main()
