"""What is cancelled: transactions of every form, and statements without one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from covet_orm import CharField, CommitUncertain, Database, Model, Registry, SerializationFailure, transaction_manager
from covet_orm.transactions.context import active

__all__ = ["OPERATIONS", "SEEDS", "Call", "Operation", "Row", "Stage", "registry"]

registry = Registry()
SEEDS = 5
"""How many rows there are to be read."""


class Row(Model):
    name = CharField(max_length=80, unique=True)

    class Meta:
        registry = registry
        db_table = "cancelled_row"


class Part(NamedTuple):
    """What is written all or not at all.

    Attributes:
        block: the transaction, which tells what became of it; None for a statement without one.
        names: what is written.
        other: whether it is in the second database.
        within: the block around `block`, of another task.
    """

    block: Any
    names: frozenset[str]
    other: bool = False
    within: Any = None

    def written(self, error: BaseException | None) -> bool | None:
        """Whether it is there, by what was told; None where nobody was told.

        Args:
            error: what the call ended with.
        """
        if self.block is None:
            return None if error else True
        if self.within is not None and self.block.committed is None and self.within.committed:
            # It was cancelled, and its savepoint was released already.
            return None if error else True
        if self.block.committed is None and isinstance(error, CommitUncertain):
            return None
        return bool(self.block.committed)


@dataclass
class Stage:
    """Where operations are carried out.

    Attributes:
        database: the database.
        narrow: the same one, with a pool of a single connection.
        other: a second database, for transactions in both.
    """

    database: Database
    narrow: Database
    other: Database


@dataclass
class Call:
    """One call of an operation, and what it tells.

    Attributes:
        own: a number, which what it writes is called by.
        stage: where.
        parts: what it is to write.
        hooks: the hooks that were called, in order.
        tasks: those that it started and has not waited for.
    """

    own: str
    stage: Stage
    parts: list[Part] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def block(self, names: str, **options: Any) -> Any:
        """A transaction block that is to write rows, each with a letter for its name."""
        block = transaction_manager.atomic(self.stage.database, **options)
        self.parts.append(Part(block, frozenset(names)))
        return block

    def inner(self, **options: Any) -> Any:
        """A block in another one."""
        return transaction_manager.atomic(self.stage.database, **options)

    async def write(self, name: str, database: Database | None = None) -> None:
        """Write a row."""
        await Row.objects.using(database or self.stage.database).create(name=f"{self.own} {name}")


async def one_write(call: Call) -> None:
    async with call.block("a"):
        await call.write("a")


async def savepoint(call: Call) -> None:
    async with call.block("abc"):
        await call.write("a")
        async with call.inner():
            await call.write("b")
        await call.write("c")


async def savepoint_rolled_back(call: Call) -> None:
    async with call.block("ac"):
        await call.write("a")
        try:
            async with call.inner():
                await call.write("b")
                raise LookupError
        except LookupError:
            pass
        await call.write("c")


async def joined(call: Call) -> None:
    async with call.block("abc"):
        await call.write("a")
        async with call.inner(savepoint=False):
            await call.write("b")
        await call.write("c")


async def read_only(call: Call) -> None:
    async with call.block("", read_only=True):
        assert await Row.objects.using(call.stage.database).filter(name__startswith="seed").count() == SEEDS
        await Row.objects.using(call.stage.database).get(name="seed 1")


async def serializable(call: Call) -> None:
    async with call.block("a", isolation="serializable"):
        await Row.objects.using(call.stage.database).get(name="seed 1")
        await call.write("a")


async def limited(call: Call) -> None:
    async with call.block("a", timeout=60, statement_timeout=30, lock_timeout=30):
        await call.write("a")


async def retried(call: Call) -> None:
    async for attempt in transaction_manager.retry(backoff=lambda number: 0.0001):
        name = "ab"[attempt.number - 1]
        async with attempt, call.block(name):
            await call.write(name)
            if attempt.number == 1:
                raise SerializationFailure("as if others had been in the way")


async def hooks(call: Call) -> None:
    async def before() -> None:
        call.hooks.append("pre_commit")
        await call.write("p")

    async def after(name: str) -> None:
        call.hooks.append(name)
        await asyncio.sleep(0)

    async with call.block("ap") as block:
        block.pre_commit(before)
        block.on_commit(lambda: after("on_commit"))
        block.on_rollback(lambda: after("on_rollback"))
        await call.write("a")


async def confirmed(call: Call) -> None:
    async with call.block("a", confirm=True):
        await call.write("a")


async def shared(call: Call) -> None:
    async def others() -> None:
        await call.write("b")
        async with call.inner():
            await call.write("c")

    async with (
        call.block("abcd"),
        transaction_manager.share(call.stage.database),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(others())
        await call.write("a")
        async with call.inner():
            await call.write("d")


async def shared_by_another(call: Call) -> None:
    """What is cancelled is a task that uses a transaction of another one."""
    begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    left = asyncio.Event()

    async def own() -> None:
        async with call.block("a") as block, transaction_manager.share(call.stage.database):
            await call.write("a")
            begun.set_result(block)
            await left.wait()

    call.tasks.append(asyncio.create_task(own()))
    try:
        token = active.set(await begun)
        try:
            async with call.inner() as block:
                call.parts.append(Part(block, frozenset("bc"), within=call.parts[0].block))
                await call.write("b")
                await call.write("c")
        finally:
            active.reset(token)
    finally:
        left.set()


async def independent(call: Call) -> None:
    async with call.block("ac"):
        if call.stage.database.kind != "sqlite":
            # There, the other one would wait for this one to end.
            await call.write("a")
        with transaction_manager.independent():
            async with call.block("b"):
                await call.write("b")
        if call.stage.database.kind == "sqlite":
            await call.write("a")
        await call.write("c")


async def distributed(call: Call) -> None:
    block = transaction_manager.distributed(call.stage.database, call.stage.other)
    call.parts += Part(block, frozenset("a")), Part(block, frozenset("b"), other=True)
    async with block:
        await call.write("a")
        await call.write("b", call.stage.other)


async def outbox(call: Call) -> None:
    async with call.block("am"):
        await call.write("a")
        await transaction_manager.enqueue(f"{call.own} m", {"own": call.own}, key="all", using=call.stage.database)


async def write_alone(call: Call) -> None:
    call.parts.append(Part(None, frozenset("a")))
    await call.write("a")


async def bulk_create(call: Call) -> None:
    """Several statements, in a transaction that nobody asked for by name."""
    call.parts.append(Part(None, frozenset("abcde")))
    rows = [Row(name=f"{call.own} {letter}") for letter in "abcde"]
    await Row.objects.using(call.stage.database).bulk_create(rows, batch_size=2)


async def iterated(call: Call) -> None:
    async with call.block("ab"):
        await call.write("a")
        seeds = Row.objects.using(call.stage.database).filter(name__startswith="seed")
        found = 0
        async for _ in seeds.iterator(chunk_size=2):
            found += 1
            await asyncio.sleep(0)
        assert found == SEEDS
        await call.write("b")


async def iterated_alone(call: Call) -> None:
    seeds = Row.objects.using(call.stage.database).filter(name__startswith="seed")
    async with aclosing(seeds.iterator(chunk_size=2)) as rows:
        async for _ in rows:
            await asyncio.sleep(0)


async def read_alone(call: Call) -> None:
    await Row.objects.using(call.stage.database).get(name="seed 1")


async def waiting(call: Call) -> None:
    """Its pool has no connection left: it has to wait for the only one."""
    database = call.stage.narrow
    pool = await database.pool_for(reads=False)
    held = [pool.try_acquire() or await pool.acquire()]

    def give_back() -> None:
        if held:
            pool.release(held.pop())

    timer = asyncio.get_running_loop().call_later(0.003, give_back)
    try:
        block = transaction_manager.atomic(database)
        call.parts.append(Part(block, frozenset("a")))
        async with block:
            await call.write("a", database)
    finally:
        timer.cancel()
        give_back()


async def connecting(call: Call) -> None:
    """Its pool has no connection: one has to be made."""
    for pool in call.stage.database.pools():
        pool.expire()
    async with call.block("a"):
        await call.write("a")


class Operation(NamedTuple):
    """What is cancelled.

    Attributes:
        name: in words.
        run: does it.
    """

    name: str
    run: Callable[[Call], Awaitable[None]]


OPERATIONS = (
    Operation("outermost block", one_write),
    Operation("savepoint", savepoint),
    Operation("savepoint that is rolled back", savepoint_rolled_back),
    Operation("`savepoint=False`", joined),
    Operation("`read_only=True`", read_only),
    Operation("`isolation=\"serializable\"`", serializable),
    Operation("`timeout`, `statement_timeout`, `lock_timeout`", limited),
    Operation("`retry()`, with a second attempt", retried),
    Operation("asynchronous hooks", hooks),
    Operation("`confirm=True`", confirmed),
    Operation("`share()`, its task", shared),
    Operation("`share()`, another task", shared_by_another),
    Operation("`independent()`", independent),
    Operation("`distributed()`, two databases", distributed),
    Operation("`enqueue()`", outbox),
    Operation("`iterator()` in a block", iterated),
    Operation("block that waits for a connection", waiting),
    Operation("block whose connection has to be made", connecting),
    Operation("`create()` without a block", write_alone),
    Operation("`bulk_create()` in batches, without a block", bulk_create),
    Operation("`get()` without a block", read_alone),
    Operation("`iterator()` without a block", iterated_alone),
)  # fmt: skip
