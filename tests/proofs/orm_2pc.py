"""A process is killed in the middle of two-phase commits between two databases; again and again.

A process with eight tasks writes one row into each of two databases, in one distributed transaction each, as fast as it
can, and tells what was acknowledged. It is killed with SIGKILL: at a random moment, or at a random step of the
protocol. Recovery runs, until nothing is prepared any more. Then:

- both databases have the same rows: no transaction is there by half;
- what was acknowledged is there;
- nothing stays prepared, on either server.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from benchmarks import evidence

from covet_orm import CharField, Database, Model, OrmError, Registry, transaction_manager
from covet_orm.testing import faultpoints
from covet_orm.transactions.distributed.recovery import InDoubt, in_doubt, recover

TASKS = 8
SECONDS = 1.5
STEPS = (
    "2pc.begin",
    "2pc.prepared.orders",
    "2pc.prepared.billing",
    "2pc.deciding",
    "2pc.decision written",
    "2pc.decided",
    "2pc.told.orders",
    "2pc.told.billing",
)
"""The points of the protocol; which are passed depends on the pair and on its log."""
registry = Registry()


class Entry(Model):
    code = CharField(max_length=40, unique=True)

    class Meta:
        registry = registry
        db_table = "entry"


async def work(urls: list[str], log: str | None, point: str, after: int, tasks: int) -> None:
    """The process that is killed: it tells each transaction that was acknowledged."""
    orders, billing = (
        Database(url, alias=alias, max_size=tasks + 2) for url, alias in zip(urls, ("orders", "billing"), strict=True)
    )
    passed = 0
    began = time.time_ns()

    def strike() -> None:
        nonlocal passed
        passed += 1
        if passed > after:
            faultpoints.kill()

    async def write(number: int) -> None:
        for step in range(10**9):
            code = f"{began}-{number}-{step}"
            try:
                async with transaction_manager.distributed("orders", "billing", log=log):
                    await Entry.objects.using("orders").create(code=code)
                    await Entry.objects.using("billing").create(code=code)
            except OrmError as error:
                print(f"error {type(error).__name__}", flush=True)
            else:
                print(f"done {code}", flush=True)

    async with orders, billing:
        with faultpoints.at(point, strike):
            async with anyio.create_task_group() as group:
                for number in range(tasks):
                    group.start_soon(write, number)


def run_until_killed(
    urls: list[str], *, log: str | None = None, point: str = "", after: int = 0, tasks: int = 1, seconds: float = 60
) -> list[str]:
    """Run the process until it is dead, by its own hand or after some seconds; what it told.

    Args:
        urls: of the two databases.
        log: the alias of the one with the log.
        point: where it kills itself.
        after: how often it passes there before.
        tasks: how many write at once.
        seconds: from the first transaction that is acknowledged until it is killed.
    """
    arguments = ["--point", point, "--after", str(after), "--tasks", str(tasks), *(["--log", log] if log else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.proofs.orm_2pc", "--urls", *urls, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        until = time.monotonic() + seconds + 30
        for line in process.stdout:
            if not lines:
                until = time.monotonic() + seconds
            if line.endswith("\n"):
                lines.append(line[:-1])
            if time.monotonic() > until:
                process.kill()
        process.wait()
    return lines


async def recover_all(*databases: Database) -> list[InDoubt]:
    """Recover until nothing is prepared; what was done. A server takes a moment to see that a session is gone."""
    done: list[InDoubt] = []
    with anyio.fail_after(60):
        while True:
            done += [
                one for one in await recover(*databases, older_than=0) if one.state in ("committed", "rolled back")
            ]
            if not await in_doubt(*databases):
                return done
            await anyio.sleep(0.05)


@dataclass
class Outcome:
    """What a pair showed."""

    name: str
    kills: int = 0
    acknowledged: set[str] = field(default_factory=set)
    rows: int = 0
    recovered: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    halves: int = 0
    lost: int = 0
    prepared: int = 0

    @property
    def failed(self) -> bool:
        """Whether the databases disagree, lost something, or kept something prepared."""
        return bool(self.halves or self.lost or self.prepared)

    def row(self) -> list[object]:
        """The outcome as a row of the table."""
        return [
            self.name, self.kills, f"{len(self.acknowledged):,}", f"{self.rows:,}", self.recovered["committed"],
            self.recovered["rolled back"], self.halves, self.lost, self.prepared,
        ]  # fmt: skip


async def run(name: str, urls: list[str], kills: int, chance: random.Random, log: str | None = None) -> Outcome:
    """Kill, recover and compare, again and again."""
    outcome = Outcome(name)
    orders, billing = Database(urls[0], alias="orders"), Database(urls[1], alias="billing")
    async with orders, billing:
        await orders.create_all(registry)
        await billing.create_all(registry)
        for _ in range(kills):
            at_a_step = chance.random() < 0.5
            lines = await asyncio.to_thread(
                run_until_killed,
                urls,
                log=log,
                point=chance.choice(STEPS) if at_a_step else "",
                after=chance.randrange(100),
                tasks=TASKS,
                seconds=chance.uniform(0, SECONDS),
            )
            outcome.kills += 1
            for line in lines:
                what, _, rest = line.partition(" ")
                if what == "done":
                    outcome.acknowledged.add(rest)
                else:
                    outcome.errors[rest] += 1
            outcome.recovered.update(one.state for one in await recover_all(orders, billing))
            first, second = [
                set(await Entry.objects.using(one).values_list("code", flat=True)) for one in ("orders", "billing")
            ]
            outcome.halves = len(first ^ second)
            outcome.lost = len(outcome.acknowledged - first)
            outcome.prepared = len(await in_doubt(orders, billing))
            outcome.rows = len(first)
            if outcome.failed:
                break
    return outcome


async def prove(kills: int, seed: int) -> list[Outcome]:
    """Every pair in turn."""
    from tests.services import mariadb, postgresql

    chance = random.Random(seed)
    outcomes: list[Outcome] = []
    settings: dict[str, Any] = {**postgresql.DURABLE, "max_prepared_transactions": 64}
    with postgresql.run(15, settings=settings) as one, mariadb.run(settings=mariadb.DURABLE) as other:
        pairs = (
            ("PostgreSQL (with the log) and MariaDB", [one, other], None),
            ("PostgreSQL and MariaDB (with the log)", [one, other], "billing"),
            ("PostgreSQL (with the log) and PostgreSQL", [one, one], None),
        )
        for number, (name, servers, log) in enumerate(pairs):
            # The pair that the project promises most about has all of the kills, the others a part.
            urls = [server.create_database(f"p{number}_{part}") for part, server in enumerate(servers)]
            outcomes.append(await run(name, urls, kills if number == 0 else max(1, kills // 4), chance, log))
    return outcomes


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--urls", nargs=2, help="write to these databases until killed")
    parser.add_argument("--log")
    parser.add_argument("--point", default="")
    parser.add_argument("--after", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=1)
    given = parser.parse_args()
    if given.urls:
        anyio.run(work, given.urls, given.log, given.point, given.after, given.tasks)
        return
    outcomes: list[Outcome] = anyio.run(prove, given.kills, given.seed)
    head = [
        "databases", "kills", "acknowledged", "transactions in the end", "committed by recovery",
        "rolled back by recovery", "there by half", "acknowledged and lost", "still prepared",
    ]  # fmt: skip
    evidence.write(
        "orm_2pc",
        "Two-phase commit, and a process that is killed",
        __doc__,
        ["covet-orm", "asyncpg", "aiomysql", "sqlalchemy"],
        {"Outcome": evidence.table(head, [outcome.row() for outcome in outcomes])},
        session="proof",
    )
    if any(outcome.failed for outcome in outcomes):
        raise SystemExit("the databases disagree, or something was lost or left behind: see the table")


if __name__ == "__main__":
    main()
