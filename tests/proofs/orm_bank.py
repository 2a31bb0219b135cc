"""A bank under faults: money moves between accounts at `serializable`, and none is made, lost, or moved twice.

Twenty accounts, fifty tasks in five processes, and random transfers between two accounts, each in a transaction that
reads both balances, writes both, and notes the transfer by a key of its own. `retry` tries conflicts, deadlocks, locks
and lost connections again. A transfer is acknowledged when its block has ended without an error, or when an uncertain
commit turned out to be one (`confirm=True`, `CommitUncertain.resolve`).

Meanwhile, at random: tasks are cancelled in the middle of a transfer; client processes are killed with SIGKILL, and
others take their places; the server is killed with SIGKILL and started again (not SQLite, which has none). In the end:

- the sum of the balances is what it was, and each balance is what the transfers that are there make of it;
- every transfer that was acknowledged is there, and none is there twice (that is its key);
- what was not acknowledged is there as a whole or not at all, as the first point says.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from benchmarks import evidence

from covet_orm import (
    AutoField,
    CharField,
    CommitUncertain,
    Database,
    DeadlockDetected,
    IntegerField,
    Model,
    OrmError,
    Registry,
    transaction_manager,
)

ACCOUNTS = 20
BALANCE = 1000
PROCESSES = 5
TASKS = 50
NAMES = ("sqlite", "postgresql-15", "postgresql-18", "mariadb")
registry = Registry()


class Account(Model):
    id = AutoField()
    balance = IntegerField()

    class Meta:
        registry = registry
        db_table = "bank_account"


class Transfer(Model):
    key = CharField(max_length=60, primary_key=True)
    source = IntegerField()
    target = IntegerField()
    amount = IntegerField()

    class Meta:
        registry = registry
        db_table = "bank_transfer"


@dataclass
class Outcome:
    """What a run showed."""

    name: str
    wanted: int
    acknowledged: set[str] = field(default_factory=set)
    retries: int = 0
    deadlocks: int = 0
    uncertain: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    clients: int = 0
    servers: int = 0
    there: int = 0
    lost: int = 0
    total: int = 0
    wrong: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether money was made or lost, or a transfer that was acknowledged."""
        return bool(self.lost or self.wrong or self.total != ACCOUNTS * BALANCE)

    def take(self, line: str) -> None:
        """What a client told."""
        what, _, rest = line.partition(" ")
        if what == "ok":
            self.acknowledged.add(rest)
        elif what == "retry":
            self.retries += 1
            self.deadlocks += rest == DeadlockDetected.__name__
        elif what == "cancelled":
            self.cancelled += 1
        elif what == "uncertain":
            self.uncertain[rest] += 1
        else:
            self.errors[rest] += 1

    def row(self) -> list[object]:
        """The outcome as a row of the table."""
        seen = ", ".join(f"{name} {count:,}" for name, count in self.errors.most_common())
        found = ", ".join(f"{name} {count}" for name, count in sorted(self.uncertain.items()))
        return [
            self.name, f"{len(self.acknowledged):,}", f"{self.there:,}", self.lost,
            "exact" if self.total == ACCOUNTS * BALANCE else f"{self.total:,}", self.wrong, f"{self.retries:,}",
            self.deadlocks, found or "none", seen or "none", f"{self.cancelled:,}", self.clients, self.servers,
            f"{self.seconds:.0f}",
        ]  # fmt: skip


def tell(line: str) -> None:
    """Tell the process that started this one; a whole line or nothing."""
    os.write(1, f"{line}\n".encode())


class InsufficientError(Exception):
    """There is less on an account than is to be moved."""


async def move(key: str, source: int, target: int, amount: int) -> None:
    """One transfer, with its attempts."""
    async for attempt in transaction_manager.retry(max_attempts=100):
        if attempt.number > 1:
            tell(f"retry {type(attempt.after).__name__}")
        async with attempt, transaction_manager.atomic(isolation="serializable", confirm=True):
            accounts = {one.id: one for one in await Account.objects.filter(id__in=(source, target))}
            if accounts[source].balance < amount:
                # What is given up must not look like a transfer, should its commit be uncertain.
                raise InsufficientError
            accounts[source].balance -= amount
            accounts[target].balance += amount
            await accounts[source].save()
            await accounts[target].save()
            await Transfer.objects.create(key=key, source=source, target=target, amount=amount)
            # Others have their turn meanwhile, and whoever cancels finds something to cancel.
            await asyncio.sleep(0)
    tell(f"ok {key}")


async def client(url: str, name: str, cancels: float) -> None:
    """Transfers without end, some of them cancelled."""
    async with Database(url, max_size=4, acquire_timeout=60), asyncio.TaskGroup() as group:
        for number in range(TASKS // PROCESSES):
            group.create_task(_teller(f"{name}-{number}", cancels))


async def _teller(name: str, cancels: float) -> None:
    chance = random.Random(name)
    step = 0
    while True:
        step += 1
        source, target = chance.sample(range(1, ACCOUNTS + 1), 2)
        key = f"{name}-{step}"
        task = asyncio.create_task(move(key, source, target, chance.randint(1, 50)))
        if chance.random() < cancels:
            await asyncio.sleep(chance.uniform(0, 0.01))
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            tell(f"cancelled {key}")
        except InsufficientError:
            pass
        except CommitUncertain as error:
            await _settle(key, error)
        except OrmError as error:
            tell(f"error {type(error).__name__}")
            await asyncio.sleep(0.05)


async def _settle(key: str, error: CommitUncertain) -> None:
    """Find out what became of a commit; the server may have to be started first."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OrmError):
            committed = await error.resolve()
            tell("uncertain committed" if committed else "uncertain rolled back")
            if committed:
                tell(f"ok {key}")
            return
        await asyncio.sleep(0.1)
    tell("uncertain to the end")


async def run(name: str, server: Any, url: str, wanted: int, faults: bool) -> Outcome:
    """Clients until there are as many transfers as wanted, and faults meanwhile."""
    outcome = Outcome(name, wanted)
    async with Database(url) as database:
        await database.create_all(registry)
        await Account.objects.bulk_create([Account(balance=BALANCE) for _ in range(ACCOUNTS)])
    began = time.monotonic()
    chance = random.Random(wanted)
    enough = anyio.Event()

    async def watch(number: int) -> None:
        """Keep one client running; it is killed now and then."""
        life = 0
        while not enough.is_set():
            life += 1
            command = [sys.executable, "-m", "tests.proofs.orm_bank", "--client", url, f"{number}-{life}"]
            process = await anyio.open_process([*command, "0.05" if faults else "0"], stderr=None)
            assert process.stdout is not None
            rest = b""
            dies = len(outcome.acknowledged) + chance.randint(wanted // 6, wanted // 2) if faults else wanted * 10
            killed = False
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    outcome.take(line.decode())
                if not killed and (len(outcome.acknowledged) >= dies or enough.is_set()):
                    killed = True
                    outcome.clients += not enough.is_set()
                    process.kill()
                if len(outcome.acknowledged) >= wanted:
                    enough.set()
            await process.wait()
            await process.aclose()

    async def restart() -> None:
        """Kill the server, twice on the way."""
        for share in (3, 2):
            while len(outcome.acknowledged) < wanted // share:
                if enough.is_set():
                    return
                await anyio.sleep(0.05)
            await asyncio.to_thread(server.kill)
            await anyio.sleep(0.5)
            await asyncio.to_thread(server.start)
            outcome.servers += 1

    async with anyio.create_task_group() as group:
        for number in range(PROCESSES):
            group.start_soon(watch, number)
        if faults and server is not None:
            group.start_soon(restart)
    outcome.seconds = time.monotonic() - began
    async with Database(url) as database:
        await _count(database, outcome)
    return outcome


async def _count(database: Database, outcome: Outcome) -> None:
    """Look at what is there."""
    expected = dict.fromkeys(range(1, ACCOUNTS + 1), BALANCE)
    there: set[str] = set()
    async for transfer in Transfer.objects.all().iterator():
        there.add(transfer.key)
        expected[transfer.source] -= transfer.amount
        expected[transfer.target] += transfer.amount
    balances = {account.id: account.balance for account in await Account.objects.all()}
    outcome.there = len(there)
    outcome.lost = len(outcome.acknowledged - there)
    outcome.total = sum(balances.values())
    outcome.wrong = sum(balances[number] != balance for number, balance in expected.items())


async def prove(names: list[str], wanted: int, faults: bool = True) -> list[Outcome]:
    """Every database in turn."""
    from tests.services import mariadb, postgresql

    outcomes = []
    for name in names:
        kind, _, number = name.partition("-")
        async with AsyncExitStack() as stack:
            if kind == "sqlite":
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                outcomes.append(await run(name, None, f"sqlite:///{Path(folder, 'bank.db')}", wanted, faults))
                continue
            server = stack.enter_context(
                postgresql.run(int(number), settings=postgresql.DURABLE)
                if kind == "postgresql"
                else mariadb.run(settings=mariadb.DURABLE)
            )
            outcomes.append(await run(name, server, server.create_database("bank"), wanted, faults))
    return outcomes


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transfers", type=int, default=20_000)
    parser.add_argument("--databases", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--print", action="store_true", help="write no page")
    parser.add_argument("--client", nargs=3, help="the URL, a name, and the share of transfers that are cancelled")
    given = parser.parse_args()
    if given.client:
        url, name, cancels = given.client
        with suppress(BrokenPipeError):
            anyio.run(client, url, name, float(cancels))
        return
    outcomes: list[Outcome] = anyio.run(prove, given.databases, given.transfers)
    head = [
        "database", "acknowledged", "there", "acknowledged and lost", "sum", "wrong balances", "tried again",
        "of these after deadlocks", "uncertain commits", "other errors", "cancelled", "clients killed",
        "server killed", "seconds",
    ]  # fmt: skip
    body = evidence.table(head, [outcome.row() for outcome in outcomes])
    if given.print:
        print(body)
    else:
        evidence.write(
            "orm_bank",
            "A bank under faults",
            __doc__,
            ["covet-orm", "asyncpg", "aiomysql", "aiosqlite", "sqlalchemy"],
            {"Outcome": body},
            session="proof",
        )
    if any(outcome.failed for outcome in outcomes):
        raise SystemExit("money was made or lost, or a transfer that was acknowledged: see the table")


if __name__ == "__main__":
    main()
