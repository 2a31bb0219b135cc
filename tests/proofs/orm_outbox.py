"""Messages of an outbox, and workers that are killed.

Four tasks enqueue 10,000 messages over 100 keys, one to three in a transaction, and some more that are rolled back;
four worker processes deliver them. Every so often one of the processes is killed with SIGKILL, wherever it is, and
another one started. A handler appends the message to a file, so that what it did before a kill is known: one `write` of
a line of a file that is open to append is there as a whole. In the end:

- every message that was committed was delivered at least once, and none that was rolled back;
- per key, the first deliveries are in the order of the commits, and no later message came before an earlier one was
  delivered: a message that came again did so before the next one of its key;
- nothing waits, and nothing is a dead letter.

How many came twice depends on how many were at work when their process was killed. The lease is two seconds.
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
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import anyio
from anyio.abc import Process
from benchmarks import evidence

from covet_orm import Database, OrmError, transaction_manager
from covet_orm.outbox import Message, Outbox

KEYS = 100
WRITERS = 4
WORKERS = 4
LEASE = 2.0
NAMES = ("sqlite", "postgresql-15", "mariadb")


@dataclass
class Outcome:
    """What a run showed."""

    name: str
    kills: int = 0
    rolled_back: int = 0
    seconds: float = 0.0
    committed: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    delivered: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    left: int = 0

    @property
    def messages(self) -> int:
        """How many were committed."""
        return sum(map(len, self.committed.values()))

    @property
    def missing(self) -> int:
        """How many of those were never delivered."""
        return sum(len(set(numbers) - set(self.delivered[key])) for key, numbers in self.committed.items())

    @property
    def invented(self) -> int:
        """How many deliveries there were of what was not committed."""
        return sum(len(set(numbers) - set(self.committed[key])) for key, numbers in self.delivered.items())

    @property
    def again(self) -> int:
        """How many deliveries there were beyond the first of each message."""
        return sum(len(numbers) - len(set(numbers)) for numbers in self.delivered.values())

    @property
    def keys_out_of_order(self) -> int:
        """How many keys have a message that came before one that was committed earlier, or again after a later one."""
        return sum(not in_order(self.committed[key], numbers) for key, numbers in self.delivered.items())

    @property
    def failed(self) -> bool:
        """Whether what is promised was not kept."""
        return bool(self.missing or self.invented or self.keys_out_of_order or self.left)

    def row(self) -> list[object]:
        """The outcome as a row of the table."""
        return [
            self.name, f"{self.messages:,}", len(self.committed), f"{self.rolled_back:,}", self.kills,
            self.missing, self.invented, self.again, self.keys_out_of_order, self.left, f"{self.seconds:.0f}",
        ]  # fmt: skip


def in_order(committed: list[int], delivered: list[int]) -> bool:
    """Whether deliveries are in the order of commits, each message as often as it likes before the next one."""
    place = {number: at for at, number in enumerate(committed)}
    places = [place.get(number, -1) for number in delivered]
    return min(places, default=0) >= 0 and all(0 <= after - before <= 1 for before, after in pairwise([-1, *places]))


async def write(database: Database, outcome: Outcome, messages: int) -> None:
    """Enqueue, and note what was committed in the order of the commits: whoever enqueued for a key keeps the others of
    that key away until it has ended."""
    number = 0

    async def one(chance: random.Random) -> None:
        nonlocal number
        while outcome.messages < messages:
            count = chance.randint(1, 3)
            # In one order, so that nobody waits in a circle.
            mine = sorted((f"k{chance.randrange(KEYS)}", number + step + 1) for step in range(count))
            number += count
            gone = chance.random() < 0.1
            async for attempt in transaction_manager.retry(max_attempts=20, on=(OrmError,)):
                async with attempt:
                    noted = 0
                    try:
                        async with database.transaction():
                            for key, one_number in mine:
                                await transaction_manager.enqueue("t", one_number, key=key, using=database)
                            if gone:
                                raise RolledBackError
                            for key, one_number in mine:
                                outcome.committed[key].append(one_number)
                                noted += 1
                    except RolledBackError:
                        outcome.rolled_back += count
                    except BaseException:
                        for key, one_number in mine[:noted]:
                            outcome.committed[key].remove(one_number)
                        raise

    async with anyio.create_task_group() as group:
        for seed in range(WRITERS):
            group.start_soon(one, random.Random(seed))


class RolledBackError(Exception):
    """Rolls a transaction back."""


async def work(url: str, path: str) -> None:
    """The process that is killed."""
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def handle(message: Message) -> None:
        os.write(out, f"{message.key} {message.payload}\n".encode())
        await anyio.sleep(random.random() / 20)

    async with Database(url, max_size=4) as database:
        await Outbox(database).worker({"t": handle}, lease=LEASE, poll=0.1, max_attempts=1000).run()


async def start(url: str, path: Path) -> Process:
    """Start one."""
    command = [sys.executable, "-m", "tests.proofs.orm_outbox", "--work", url, str(path)]
    return await anyio.open_process(command, stdout=None, stderr=None)


async def kill(process: Process) -> None:
    """Kill one."""
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()
    await process.aclose()


async def run(name: str, url: str, messages: int, every: float) -> Outcome:
    """Enqueue, deliver, kill; then look at what was delivered."""
    outcome = Outcome(name)
    began = time.monotonic()
    chance = random.Random(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "delivered")
        async with Database(url, max_size=WRITERS + 2) as database:
            outbox = Outbox(database)
            await outbox.create()
            workers = [await start(url, path) for _ in range(WORKERS)]
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(write, database, outcome, messages)
                    while True:
                        await anyio.sleep(every * (0.5 + chance.random()))
                        left = sum(status.waiting + status.held for status in await outbox.status())
                        if not left and outcome.messages >= messages:
                            break
                        place = chance.randrange(WORKERS)
                        await kill(workers[place])
                        workers[place] = await start(url, path)
                        outcome.kills += 1
            finally:
                with anyio.CancelScope(shield=True):
                    for worker in workers:
                        await kill(worker)
            outcome.left = sum(status.waiting + status.held + status.dead for status in await outbox.status())
        for line in (await asyncio.to_thread(path.read_text)).splitlines():
            key, _, number = line.partition(" ")
            outcome.delivered[key].append(int(number))
    outcome.seconds = time.monotonic() - began
    return outcome


async def prove(messages: int, every: float) -> list[Outcome]:
    """Every database in turn."""
    from tests.services.databases import Databases

    outcomes: list[Outcome] = []
    with Databases() as databases:
        for name in NAMES:
            url = await asyncio.to_thread(lambda name=name: databases.get(name).empty_database("proof"))
            outcomes.append(await run(name, url, messages, every))
    return outcomes


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two kills, about")
    parser.add_argument("--no-page", action="store_true", help="print the table alone")
    parser.add_argument("--work", nargs=2, metavar=("URL", "FILE"), help="be a worker until killed")
    given = parser.parse_args()
    if given.work:
        anyio.run(work, *given.work)
        return
    outcomes: list[Outcome] = anyio.run(prove, given.messages, given.every)
    head = [
        "database", "messages committed", "keys", "rolled back", "workers killed", "never delivered",
        "delivered without commit", "delivered again", "keys out of order", "left", "seconds",
    ]  # fmt: skip
    table = evidence.table(head, [outcome.row() for outcome in outcomes])
    if given.no_page:
        print(table)
    else:
        evidence.write(
            "orm_outbox",
            "An outbox whose workers are killed",
            __doc__,
            ["covet-orm", "asyncpg", "aiomysql", "aiosqlite", "sqlalchemy"],
            {"Outcome": table},
            session="proof",
        )
    if any(outcome.failed for outcome in outcomes):
        raise SystemExit("a message was lost, invented, left behind or out of order: see the table")


if __name__ == "__main__":
    main()
