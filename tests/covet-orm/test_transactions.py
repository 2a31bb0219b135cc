"""Transactions: all or nothing, for the task that opened them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest
from tests.services.databases import SERVERS

from covet.testing.conformance.faults import at_every_await
from covet_orm import (
    CharField,
    Database,
    F,
    IntegerField,
    Model,
    OrmError,
    Registry,
    TransactionError,
    UniqueViolation,
)

pytestmark = pytest.mark.anyio
registry = Registry()


class Row(Model):
    name = CharField(max_length=50, unique=True)
    count = IntegerField(default=0)

    class Meta:
        registry = registry


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=3) as database:
        await database.create_all(registry)
        yield database


async def names() -> list[str]:
    return sorted(await Row.objects.all().values_list("name", flat=True))


def at_rest(database: Database) -> bool:
    return all(pool.stats.in_use == 0 for pool in database.pools())


async def test_all_or_nothing(database: Database) -> None:
    async with database.transaction():
        await Row.objects.create(name="a")
        await Row.objects.create(name="b")
    with pytest.raises(RuntimeError):  # noqa: PT012 - the block that fails
        async with database.transaction():
            await Row.objects.create(name="c")
            raise RuntimeError
    assert await names() == ["a", "b"]
    assert at_rest(database)


async def test_an_inner_block_is_rolled_back_alone(database: Database) -> None:
    async with database.transaction():
        await Row.objects.create(name="outer")
        with pytest.raises(UniqueViolation):  # noqa: PT012 - the block that fails
            async with database.transaction():
                await Row.objects.create(name="inner")
                await Row.objects.create(name="outer")
        async with database.transaction():
            await Row.objects.create(name="second")
            with pytest.raises(RuntimeError):  # noqa: PT012 - the block that fails
                async with database.transaction():
                    await Row.objects.create(name="innermost")
                    raise RuntimeError
    assert await names() == ["outer", "second"]


async def test_nobody_sees_it_before_it_commits(database: Database) -> None:
    async def others() -> list[str]:
        return await names()

    async with database.transaction():
        await Row.objects.create(name="a")
        with pytest.raises(TransactionError, match="whose connection carries one statement"):
            await asyncio.create_task(others())
    assert await names() == ["a"]


async def test_a_task_that_outlives_the_block_gets_a_connection_of_its_own(database: Database) -> None:
    ended = anyio.Event()
    found: list[str] = []

    async def later() -> None:
        await ended.wait()
        found.extend(await names())
        async with database.transaction():
            await Row.objects.create(name="late")

    async with database.transaction():
        await Row.objects.create(name="a")
        task = asyncio.create_task(later())
        await asyncio.sleep(0)
    ended.set()
    await task
    assert found == ["a"]
    assert await names() == ["a", "late"]


async def test_siblings_keep_their_rows(database: Database) -> None:
    """Each task with a transaction of its own: those that fail lose their rows, and no others."""

    async def work(number: int) -> None:
        async with database.transaction():
            await Row.objects.create(name=f"n{number}")
            await asyncio.sleep(0)
            if number % 2:
                raise RuntimeError

    await asyncio.gather(*(work(number) for number in range(6)), return_exceptions=True)
    assert await names() == ["n0", "n2", "n4"]
    assert at_rest(database)


async def test_children_of_a_transaction_open_none_inside(database: Database) -> None:
    async def child() -> None:
        async with database.transaction():
            await Row.objects.create(name="child")

    async with database.transaction():
        outcomes = await asyncio.gather(*(child() for _ in range(3)), return_exceptions=True)
        await Row.objects.create(name="parent")
    assert [type(outcome) for outcome in outcomes] == [TransactionError] * 3
    assert await names() == ["parent"]


async def test_a_caught_error_does_not_commit_half(database: Database) -> None:
    """PostgreSQL takes nothing after a failed statement; that the block cannot commit then is said. Others go on."""
    await Row.objects.create(name="there")
    failed = ""
    try:
        async with database.transaction():
            await Row.objects.create(name="new")
            with pytest.raises(UniqueViolation):
                await Row.objects.create(name="there")
    except TransactionError as error:
        failed = str(error)
    assert ("nothing was committed" in failed) == (database.kind == "postgresql")
    assert await names() == (["there"] if failed else ["new", "there"])
    assert at_rest(database)


# SQLite has one writer at a time: there the second block waits for the first before it begins.
@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_a_deadlock_ends_the_block(database: Database) -> None:
    first = await Row.objects.create(name="first")
    second = await Row.objects.create(name="second")
    both = anyio.Event()
    waiting = 0
    after: list[BaseException] = []

    async def cross(one: Row, other: Row) -> None:
        nonlocal waiting
        async with database.transaction():
            await Row.objects.filter(id=one.id).update(count=F("count") + 1)
            waiting += 1
            if waiting == 2:
                both.set()
            await both.wait()
            try:
                await Row.objects.filter(id=other.id).update(count=F("count") + 1)
            except OrmError:
                # Whoever goes on after it must not write outside of the transaction unawares.
                try:
                    await Row.objects.create(name="stray")
                except OrmError as error:
                    after.append(error)
                raise

    outcomes = await asyncio.gather(cross(first, second), cross(second, first), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["DeadlockDetected", "NoneType"]
    assert len(after) == 1
    assert await names() == ["first", "second"]
    assert sorted(await Row.objects.all().values_list("count", flat=True)) == [1, 1]
    assert at_rest(database)


async def test_cancelled_anywhere_it_is_whole_or_not_there(database: Database) -> None:
    number = 0

    async def work() -> None:
        nonlocal number
        number += 1
        async with database.transaction():
            await Row.objects.create(name=f"{number}a")
            async with database.transaction():
                await Row.objects.create(name=f"{number}b")

    async def check() -> None:
        found = await names()
        assert {name[:-1] for name in found if name.endswith("a")} == {
            name[:-1] for name in found if name.endswith("b")
        }
        assert at_rest(database)

    assert await at_every_await(work, check) > 0


async def test_a_reading_transaction_writes_nothing(database: Database) -> None:
    with pytest.raises(OrmError):
        async with database.transaction(read_only=True):
            await Row.objects.create(name="a")
    assert await names() == []
    assert at_rest(database)


async def test_a_block_is_entered_once(database: Database) -> None:
    block = database.transaction()
    async with block:
        pass
    with pytest.raises(TransactionError, match="entered once"):
        async with block:
            pass
    with pytest.raises(TransactionError, match="has ended"):
        await block.ready()
