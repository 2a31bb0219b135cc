"""Cancelled at every place where it waits, an operation leaves nothing behind: the short form of the proof
`orm_cancellation`, and what it found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.cancellation.operations import OPERATIONS, Operation, Row, registry
from tests.cancellation.witnesses import all_ended, witness
from tests.driver_cases import connected, numbers_to
from tests.proofs.orm_cancellation import failures, prove, rows
from tests.services.databases import NAMES, Databases

from covet.testing.conformance.faults import Way
from covet_orm import Database, transaction_manager
from covet_orm.drivers.protocol import SessionState
from covet_orm.outbox import Outbox

pytestmark = pytest.mark.anyio

SHORT: tuple[tuple[Way, tuple[str, ...]], ...] = (
    ("scope", ("outermost block", "`iterator()` in a block")),
    ("task", ("`share()`, another task", "`enqueue()`", "`timeout`, `statement_timeout`, `lock_timeout`")),
    ("twice", ("savepoint that is rolled back", "`iterator()` without a block")),
    ("late", ("block that waits for a connection", "`distributed()`, two databases")),
    ("timeout", ("`confirm=True`", "`independent()`")),
)
"""Operations of every kind, each in one way; the proof has all of them in each."""


def named(names: tuple[str, ...]) -> list[Operation]:
    found = [operation for operation in OPERATIONS if operation.name in names]
    assert len(found) == len(names)
    return found


@pytest.mark.parametrize("name", NAMES)
async def test_wherever_it_is_cancelled(databases: Databases, name: str) -> None:
    cells = [
        cell
        for way, names in SHORT
        for cell in await prove(databases, [name], named(names), [way], ask=name != "mariadb")
    ]
    assert failures(cells) == []
    assert all(cell.places > 0 for cell in cells)
    *_, total = rows(cells)
    assert total[3:] == [f"{sum(cell.places for cell in cells):,}"] * 2 + ["0", "0"]


async def abandoned(database: Database) -> list[AsyncGenerator[Row, None]]:
    """A loop in a transaction that ends in the middle of it; the generator is still there."""
    loops: list[AsyncGenerator[Row, None]] = []
    with suppress(LookupError):
        async with transaction_manager.atomic(database):
            await Row.objects.using(database).bulk_create([Row(name=f"{number}") for number in range(5)])
            loops.append(Row.objects.using(database).iterator(chunk_size=2))
            async for _ in loops[0]:
                raise LookupError
    return loops


@pytest.fixture(params=["", "pgbouncer"])
async def database(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Database]:
    """With a single connection, which the next one gets. As behind a PgBouncer, cursors have names that SQL knows."""
    options: dict[str, Any] = {"pgbouncer": True} if request.param and url.startswith("postgresql") else {}
    async with Database(url, max_size=1, acquire_timeout=5, **options) as database:
        await database.create_all(registry)
        yield database
        assert all(pool.stats.in_use == 0 for pool in database.pools())


async def test_a_loop_that_is_left_reads_no_longer_than_its_transaction(database: Database, url: str) -> None:
    loops = await abandoned(database)
    await Outbox(database).create()
    async with witness(url) as seen:
        assert await all_ended(seen) == []
    await loops[0].aclose()


async def test_a_loop_that_is_left_has_no_part_in_the_next_transaction(database: Database) -> None:
    """Its generator is closed when it is found to be garbage, whoever has the connection by then."""
    loops = await abandoned(database)
    async with transaction_manager.atomic(database):
        await Row.objects.using(database).create(name="a")
        writing = asyncio.ensure_future(loops[0].aclose())
        await asyncio.sleep(0)
        await Row.objects.using(database).create(name="b")
        await writing
        await Row.objects.using(database).create(name="c")
    assert set(await Row.objects.using(database).values_list("name", flat=True)) == {"a", "b", "c"}


async def test_a_closed_sqlite_database_holds_nothing(tmp_path: Path) -> None:
    """Not even when somebody still has the cursor, by the traceback of an error."""
    url = f"sqlite:///{tmp_path}/test.db"
    for end in ("close", "terminate"):
        async with connected(url) as connection, connected(url, busy_timeout=5) as other:
            await connection.script("CREATE TABLE IF NOT EXISTS t (n integer); BEGIN IMMEDIATE")
            rows = connection.stream(numbers_to(connection, 10), size=2)
            await anext(rows)
            if end == "close":
                await connection.close()
            else:
                connection.terminate()
            await other.script("BEGIN IMMEDIATE; COMMIT")
            await rows.aclose()


async def test_sqlite_goes_on_with_a_loop_that_others_are_beside(tmp_path: Path) -> None:
    """What ends no transaction ends no loop."""
    async with connected(f"sqlite:///{tmp_path}/test.db") as connection:
        rows = connection.stream(numbers_to(connection, 5), size=2)
        async with aclosing(rows):
            found = await anext(rows)
            await connection.script("PRAGMA user_version = 1")
            await connection.script("BEGIN; SAVEPOINT s; ROLLBACK TO s")
            found += [row async for chunk in rows for row in chunk]
        assert found == [(number,) for number in range(1, 6)]
        assert connection.state is SessionState.TRANSACTION
        await connection.script("COMMIT")
