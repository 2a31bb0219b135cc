"""Operations that are cancelled wherever they wait, and what each has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import anyio
from tests.cancellation.operations import SEEDS, Call, Operation, Row, Stage, registry
from tests.cancellation.witnesses import Witness, all_ended, witness

from covet.testing.conformance.faults import Way, at_every_await
from covet_orm import Database, transaction_manager
from covet_orm.drivers.protocol import SessionState
from covet_orm.outbox import Outbox
from covet_orm.transactions.distributed.recovery import in_doubt

__all__ = ["Cell", "cancel", "prepared", "rehearse"]

numbers = count(1)

STUCK = 120.0
"""Seconds after which an operation, at all of its places, is taken to wait for what never happens."""


@dataclass
class Cell:
    """What came of one operation, cancelled in one way on one database.

    Attributes:
        database: its name.
        operation: its name.
        way: how it was cancelled.
        places: how many places there were.
        passed: at how many of them all was right.
        leaked: how many connections were not given back.
        left: how many transactions were left open.
        failure: what was wrong first, after which no other place was looked at.
    """

    database: str
    operation: str
    way: Way
    places: int = 0
    passed: int = 0
    leaked: int = 0
    left: int = 0
    failure: str = ""


@asynccontextmanager
async def prepared(url: str, other: str) -> AsyncIterator[tuple[Witness, Witness]]:
    """Make the tables in two databases, with rows to be read; witnesses of both."""
    async with Database(url, alias="preparing") as one, Database(other, alias="preparing_other") as two:
        for database in (one, two):
            await database.create_all(registry)
            await Outbox(database).create()
        await Row.objects.using(one).bulk_create([Row(name=f"seed {number}") for number in range(SEEDS)])
    async with witness(url) as seen, witness(other) as seen_other:
        yield seen, seen_other


@asynccontextmanager
async def _stage(url: str, other: str) -> AsyncIterator[Stage]:
    # Cut off while it asks for TLS, asyncpg leaves a future that nobody looks at.
    url, other = [f"{one}?tls=disable" if one.startswith("postgresql") else one for one in (url, other)]
    # Those that leaked a connection wait for it no longer than that.
    async with (
        Database(url, alias="one", max_size=3, acquire_timeout=5) as database,
        Database(url, alias="narrow", max_size=1, acquire_timeout=5) as narrow,
        Database(other, alias="other", max_size=3, acquire_timeout=5) as second,
    ):
        yield Stage(database, narrow, second)


async def cancel(
    name: str, url: str, other: str, seen: tuple[Witness, Witness], operation: Operation, way: Way, *, ask: bool = True
) -> Cell:
    """Cancel an operation at every place, and look at what it has left.

    Args:
        name: of the database.
        url: its URL.
        other: that of the second database.
        seen: the witnesses of both.
        operation: what is cancelled.
        way: how.
        ask: whether the server is asked after each place, or else once in the end.
    """
    cell = Cell(name, operation.name, way)
    async with _stage(url, other) as stage:
        calls: list[Call] = []
        errors: list[BaseException | None] = []

        async def call() -> None:
            calls.append(Call(f"{next(numbers)}", stage))
            errors.append(None)
            try:
                await operation.run(calls[-1])
            except BaseException as error:
                errors[-1] = error
                raise

        async def check() -> None:
            cell.places = len(calls)
            await _check(calls[-1], errors[-1], seen, cell, ask=ask)
            cell.passed += 1

        try:
            with anyio.fail_after(STUCK):
                cell.places = await at_every_await(call, check, way=way)
            # The last call is not cancelled.
            cell.passed -= 1
            cell.left += len(left := [line for one in seen for line in await all_ended(one)])
            assert not left, f"left open in the end: {left}"
        except Exception as error:
            cell.places = len(calls)
            cell.failure = f"place {len(calls) - 1}: {type(error).__name__}: {error}"
    return cell


async def rehearse(url: str, other: str, operations: Iterable[Operation]) -> None:
    """Carry out operations undisturbed, so that what is made once is made."""
    async with _stage(url, other) as stage:
        for operation in operations:
            call = Call(f"{next(numbers)}", stage)
            await operation.run(call)
            await asyncio.gather(*call.tasks)


async def _check(
    call: Call, error: BaseException | None, seen: tuple[Witness, Witness], cell: Cell, *, ask: bool
) -> None:
    stage = call.stage
    await asyncio.gather(*call.tasks, return_exceptions=True)
    databases = (stage.database, stage.narrow, stage.other)
    pools = [pool for database in databases for pool in database.pools()]
    cell.leaked = sum(pool.stats.in_use for pool in pools)
    assert not cell.leaked, f"{cell.leaked} connections were not given back"
    if error is None and call.parts:
        # Another attempt may have been rolled back before.
        assert call.parts[-1].written(None), "it ended without an error, and is not committed"
    for other, look in enumerate(seen):
        found = await look.names(call.own)
        for part in call.parts:
            if part.other != bool(other):
                continue
            there = found & part.names
            written = part.written(error)
            allowed = [part.names] if written else [frozenset()]
            if written is None:
                allowed = [part.names, frozenset()]
            assert there in allowed, f"there are {sorted(there)} of {sorted(part.names)}, and told was {written}"
        everything = {name for part in call.parts if part.other == bool(other) for name in part.names}
        assert found <= everything, f"{sorted(found - everything)} were rolled back, and are there"
    _check_hooks(call)
    await _next_works(stage, call.own, cell)
    if ask:
        left = [line for one in seen for line in await all_ended(one)]
        cell.left += len(left)
        assert not left, f"left open: {left}"
    if "distributed" in cell.operation:
        doubts = await in_doubt(stage.database, stage.other)
        assert not doubts, f"in doubt: {doubts}"


def _check_hooks(call: Call) -> None:
    """Whoever registered one is told how it ended, if there was something to tell, and once."""
    told = [name for name in call.hooks if name != "pre_commit"]
    if call.hooks:
        committed = call.parts[0].block.committed
        assert told == ["on_commit" if committed else "on_rollback"], f"{call.hooks}, and committed is {committed}"


async def _next_works(stage: Stage, own: str, cell: Cell) -> None:
    """Every connection that is given out is at rest, and the next transaction is a transaction."""
    assert transaction_manager.current(stage.database) is None, "the block is around the caller yet"
    for database in (stage.database, stage.narrow, stage.other):
        for pool in database.pools():
            idle = []
            while (connection := pool.try_acquire()) is not None:
                idle.append(connection)
            try:
                for connection in idle:
                    assert connection.state is SessionState.IDLE
                    if database.kind == "mariadb":
                        ((inside,),) = await connection.fetch("SELECT @@in_transaction")
                        cell.left += inside
                        assert not inside, "a connection of the pool is in a transaction"
            finally:
                for connection in idle:
                    pool.release(connection)
    with anyio.fail_after(10):
        async with transaction_manager.atomic(stage.database):
            await Row.objects.using(stage.database).create(name=f"next {own}")
            async with transaction_manager.atomic(stage.database):
                await Row.objects.using(stage.database).filter(name=f"next {own}").update(name=f"after {own}")
        assert await Row.objects.using(stage.database).filter(name=f"after {own}").count() == 1
