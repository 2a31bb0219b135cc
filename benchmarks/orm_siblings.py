"""Transactions of Covet's ORM, Tortoise and SQLAlchemy when tasks run beside each other in one, outlive it, or are
cancelled: whether what was reported is what is there afterwards, and whether connections come back.

Nothing is measured but what happened, and no cell is written by hand: each tells what the run saw.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing import get_context
from typing import Any, Protocol

from benchmarks import evidence
from benchmarks.orm import DATABASES, database

PEERS = {"covet": "covet", "tortoise": "tortoise", "sqlalchemy": "sqlalchemy_orm"}
KINDS = ("sqlite", "postgresql")
DISTRIBUTIONS = ["covet-orm", "tortoise-orm", "sqlalchemy", "asyncpg", "aiosqlite"]
SIZE = 50
"""Connections that each may have: more than there are tasks, so that what is leaked keeps nobody waiting."""
CANCELLED = 45
MOST = 40
"""Places at most at which one transaction is cancelled: fewer than there are connections."""
PATIENCE = 10.0
"""Seconds until a case counts as one that hangs."""
MAKE = (
    "drop table if exists siblings",
    "create table siblings (id {serial} primary key, name varchar(50) not null unique)",
)
ABOUT = """
What each row names is done with each library as its documentation shows transactions: `atomic()` of Covet within
`atomic()`, `in_transaction()` of Tortoise within `in_transaction()`, `begin_nested()` of a SQLAlchemy session within
its `begin()` (with `BEGIN` sent as its documentation of SQLite advises for savepoints). *The way out* is what the
library names for tasks that run beside each other: `transaction_manager.share()`, and a session for each task, which
SQLAlchemy's documentation asks for; Tortoise names none. Each case begins with an empty table and new connections.

Every task notes whether its block ended without an error. In the end the rows are read by another connection:

- **as reported**: there are the rows of those that were told that they are done, if the transaction around them was
  committed, and no others;
- **lost**: rows whose task, and the transaction around it, were told that they are done, and which are not there;
- **stray**: rows that are there, and whose task was told that it failed, or whose transaction was;
- *held* are connections that were not given back when all was over and the garbage was collected, by the count of the
  library's own pool. Tortoise has one connection on SQLite, which a transaction locks.

Behind an error is how often it was raised; those that a case raises by itself are not counted. A task that is
cancelled may have been cancelled after its commit: its row counts neither as lost nor as stray. A case that takes more
than {patience:.0f} seconds *hangs*, and is ended. The number of rows of those that are cancelled after so many turns of
the event loop is a matter of the machine's speed.
"""


class Peer(Protocol):
    """What is compared. What a block gives is handed to what happens in it, where the library wants that."""

    together: Callable[[], AbstractAsyncContextManager[None]] | None
    inner_together: Callable[[object], AbstractAsyncContextManager[object]] | None

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def outer(self) -> AbstractAsyncContextManager[object]:
        """A transaction."""
        ...

    def inner(self, around: object, /) -> AbstractAsyncContextManager[object]:
        """A block within it."""
        ...

    async def add(self, within: object, name: str, /) -> None:
        """Write a row in a block."""

    async def alone(self, name: str, /) -> None:
        """Write a row without a block."""

    def held(self) -> int:
        """The connections that are not at rest."""
        ...


class OnPurposeError(Exception):
    """What a task raises in order to fail."""


@dataclass
class Seen:
    """What a case saw.

    Attributes:
        done: the rows whose task was told that it is done.
        failed: those whose task was told otherwise.
        cancelled: those whose task was cancelled.
        errors: what was raised, by type, but for `OnPurposeError`.
        rows: those that are there.
        held: connections that were not given back.
    """

    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    rows: set[str] = field(default_factory=set)
    held: int = 0

    async def of(self, name: str, work: Awaitable[object]) -> None:
        """Note how the work on a row ended; what it raised ends here."""
        try:
            await work
        except OnPurposeError:
            self.failed.add(name)
        except asyncio.CancelledError:
            self.cancelled.add(name)
        except Exception as error:
            self.failed.add(name)
            self.errors[type(error).__name__] += 1
        else:
            self.done.add(name)

    def rolled_back(self) -> None:
        """The transaction around all of them was told that it failed."""
        self.failed |= self.done
        self.done = set()

    @property
    def lost(self) -> list[str]:
        """Rows that were reported, and are not there."""
        return sorted(self.done - self.rows)

    @property
    def stray(self) -> list[str]:
        """Rows that are there, and were reported as not."""
        return sorted(self.rows - self.done - self.cancelled)

    def __str__(self) -> str:
        parts = [f"**lost: {', '.join(self.lost)}**"] if self.lost else []
        parts += [f"**stray: {', '.join(self.stray)}**"] if self.stray else []
        parts = parts or ["as reported"]
        there = sorted(self.rows)
        parts.append(f"rows: {', '.join(there) or 'none'}" if len(there) <= 8 else f"{len(there)} rows")
        parts += [f"{name} ({times})" for name, times in sorted(self.errors.items())]
        parts += [f"{len(self.cancelled)} cancelled"] if self.cancelled else []
        parts += [f"**{self.held} held**"] if self.held else []
        return "; ".join(parts)


Case = Callable[[Peer, Seen], Coroutine[Any, Any, None]]


async def within_one(
    peer: Peer, seen: Seen, works: dict[str, Callable[[object], Awaitable[object]]], together: bool = False
) -> None:
    """Run tasks beside each other in one transaction, which writes a row of its own when they are done."""
    try:
        async with peer.outer() as around:
            tasks = [seen.of(name, work(around)) for name, work in works.items()]
            if together:
                assert peer.together is not None
                async with peer.together():
                    await asyncio.gather(*tasks)
            else:
                await asyncio.gather(*tasks)
            await seen.of("outer", peer.add(around, "outer"))
    except Exception as error:
        seen.errors[type(error).__name__] += 1
        seen.rolled_back()


def six(fails: Callable[[int], bool], *, together: bool) -> Case:
    """Six tasks, each with a block of its own in one transaction."""

    async def case(peer: Peer, seen: Seen) -> None:
        inner = peer.inner_together if together else peer.inner
        assert inner is not None

        async def child(around: object, number: int) -> None:
            async with inner(around) as block:
                await peer.add(block, f"c{number}")
                await asyncio.sleep(0.01)
                if fails(number):
                    raise OnPurposeError

        works = {f"c{number}": lambda around, n=number: child(around, n) for number in range(6)}
        await within_one(peer, seen, works, together)

    return case


def three(*, together: bool) -> Case:
    """Three tasks with a block each, and one without: one fails when two others are done."""

    async def case(peer: Peer, seen: Seen) -> None:
        inner = peer.inner_together if together else peer.inner
        assert inner is not None

        async def child(around: object, name: str, before: float, after: float) -> None:
            await asyncio.sleep(before)
            async with inner(around) as block:
                await peer.add(block, name)
                await asyncio.sleep(after)
                if name == "bad":
                    raise OnPurposeError

        async def plain(around: object) -> None:
            await asyncio.sleep(0.1)
            if together:
                async with inner(around) as block:
                    await peer.add(block, "plain")
            else:
                await peer.add(around, "plain")

        works: dict[str, Callable[[object], Awaitable[object]]] = {
            "bad": lambda around: child(around, "bad", 0.0, 0.2),
            "ok": lambda around: child(around, "ok", 0.05, 0.0),
            "plain": plain,
            "ok2": lambda around: child(around, "ok2", 0.3, 0.0),
        }
        await within_one(peer, seen, works, together)

    return case


def outlives(*, block: bool) -> Case:
    """A task that was started in a transaction, and writes when that has ended."""

    async def case(peer: Peer, seen: Seen) -> None:
        ended = asyncio.Event()

        async def later() -> None:
            await ended.wait()
            if block:
                async with peer.outer() as own:
                    await peer.add(own, "later")
            else:
                await peer.alone("later")

        async with peer.outer() as around:
            await seen.of("outer", peer.add(around, "outer"))
            task = asyncio.create_task(seen.of("later", later()))
            await asyncio.sleep(0)
        ended.set()
        await task

    return case


def cancelled(turns: int) -> Case:
    """Transactions that are cancelled, each after one more turn of the event loop."""

    async def case(peer: Peer, seen: Seen) -> None:
        async def write(name: str) -> None:
            async with peer.outer() as around:
                await peer.add(around, name)

        # A connection is there already, so that it is transactions that are cancelled, and not the making of one.
        await seen.of("before", write("before"))
        for ticks in range(turns):
            task = asyncio.create_task(seen.of(f"t{ticks}", write(f"t{ticks}")))
            for _ in range(ticks + 1):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return case


class Cancelling:
    """Awaits some work, and has its task cancelled when it waits for the `number`-th time.

    Attributes:
        cancelled: whether it did so often.
    """

    def __init__(self, work: Coroutine[Any, Any, object], number: int) -> None:
        self.work = work
        self.number = number
        self.cancelled = False

    def __await__(self) -> Generator[Any, Any, object]:
        step: Callable[[], Any] = partial(self.work.send, None)
        for number in count():
            try:
                waits_for = step()
            except StopIteration as done:
                return done.value
            if number == self.number:
                self.cancelled = True
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                sent = yield waits_for
            except BaseException as error:
                step = partial(self.work.throw, error)
            else:
                step = partial(self.work.send, sent)
        raise AssertionError("unreachable")


async def cancelled_everywhere(peer: Peer, seen: Seen) -> None:
    """A transaction that is cancelled at each place where it waits, until one gets through."""

    async def write(name: str) -> None:
        async with peer.outer() as around:
            await peer.add(around, name)

    async def wait(cancelling: Cancelling) -> None:
        await cancelling

    await seen.of("before", write("before"))
    for number in range(MOST):
        cancelling = Cancelling(write(f"w{number}"), number)
        await asyncio.create_task(seen.of(f"w{number}", wait(cancelling)))
        if not cancelling.cancelled:
            break


def cases(turns: int) -> dict[str, tuple[Case, bool]]:
    """By what is done: the case, and whether it is one of the way out."""
    odd = lambda number: number % 2 == 1  # noqa: E731 - a predicate
    never = lambda number: False  # noqa: E731 - a predicate
    return {
        "six tasks, a block each; three fail": (six(odd, together=False), False),
        "the same, the way out": (six(odd, together=True), True),
        "six tasks, a block each; none fails": (six(never, together=False), False),
        "none fails, the way out": (six(never, together=True), True),
        "one task fails while others are done": (three(together=False), False),
        "one fails, the way out": (three(together=True), True),
        "a task outlives the transaction, and writes a row": (outlives(block=False), False),
        "it begins a transaction of its own": (outlives(block=True), False),
        f"{turns} transactions, cancelled after 1 to {turns} turns": (cancelled(turns), False),
        "a transaction, cancelled at each place where it waits": (cancelled_everywhere, False),
    }


async def run(url: str, peer: Peer, case: Case) -> Seen:
    """Run a case with new connections and an empty table."""
    from tests.services.databases import ask

    serial = "integer" if url.startswith("sqlite") else "serial"
    await ask(url, *(statement.format(serial=serial) for statement in MAKE))
    seen = Seen()
    await peer.open()
    try:
        try:
            async with asyncio.timeout(PATIENCE):
                await case(peer, seen)
        except Exception as error:
            seen.errors["hangs" if isinstance(error, TimeoutError) else type(error).__name__] += 1
        # What is closed by a task of its own, and what the collector finds, comes back by then.
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0.1)
        seen.held = peer.held()
    finally:
        await peer.close()
    seen.rows = {str(name) for (name,) in await ask(url, "select name from siblings")}
    return seen


async def all_of(url: str, name: str, turns: int) -> list[str]:
    """The cells of one peer, in the order of the cases."""
    module = importlib.import_module(f"benchmarks.peers_siblings.{PEERS[name]}")
    cells = []
    for title, (case, way_out) in cases(turns).items():
        peer: Peer = module.Peer(url, SIZE)
        cells.append("names none" if way_out and peer.together is None else str(await run(url, peer, case)))
        print(f"# {title}: {name}: {cells[-1]}", flush=True)
    return cells


def in_a_process(url: str, name: str, turns: int) -> list[str]:
    """The cells of one peer, from a process of its own: what one keeps, such as statements of another database, is in
    nobody's way."""
    # Pools tell of what they lose when it is collected: here that is counted.
    logging.disable(logging.CRITICAL)
    return asyncio.run(all_of(url, name, turns))


def compare(url: str, peers: list[str], turns: int) -> list[list[str]]:
    """The rows of the table of one database."""
    columns = []
    for name in peers:
        with ProcessPoolExecutor(1, get_context("spawn")) as processes:
            columns.append(processes.submit(in_a_process, url, name, turns).result())
    return [list(row) for row in zip(cases(turns), *columns, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- orm_siblings", description=__doc__)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--cancelled", type=int, default=CANCELLED, help="how many transactions are cancelled")
    parser.add_argument("--print", action="store_true", help="write no page")
    chosen = parser.parse_args()
    sections: dict[str, str] = {}
    for kind in chosen.databases:
        with database(kind) as url:
            rows = compare(url, chosen.peers, chosen.cancelled)
            sections[DATABASES[kind]] = evidence.table(["what is done", *chosen.peers], rows)
    if chosen.print:
        for heading, body in sections.items():
            print(f"\n## {heading}\n\n{body}")
        return
    evidence.write(
        "orm_siblings", "ORM: tasks in transactions", ABOUT.format(patience=PATIENCE), DISTRIBUTIONS, sections
    )


if __name__ == "__main__":
    main()
