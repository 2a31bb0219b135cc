"""What tests of others do with commits: they capture the functions that wait for one, and let it go wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from covet_orm import (
    CharField,
    CommitHookFailed,
    CommitUncertain,
    ConnectionLost,
    Database,
    DeadlockDetected,
    Model,
    Registry,
    transaction_manager,
)
from covet_orm.testing import TestingDatabase, capture_on_commit, faultpoints

pytestmark = pytest.mark.anyio
registry = Registry()


class Order(Model):
    number = CharField(max_length=20, unique=True)

    class Meta:
        registry = registry
        db_table = "captured_order"


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    """As the fixture of this name: one transaction for the test, that is rolled back."""
    testing = TestingDatabase(url, registry=registry)
    testing.create()
    async with testing.rolled_back() as database:
        yield database


class Calls:
    """Functions to be registered, which note that they were called."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, name: str, *, fails: bool = False) -> Any:
        def call() -> None:
            self.made.append(name)
            if fails:
                raise ValueError(name)

        return call

    def awaited(self, name: str) -> Any:
        async def call() -> None:
            await asyncio.sleep(0)
            self.made.append(name)

        return call


@pytest.fixture
def calls() -> Calls:
    return Calls()


async def place(number: str, *hooks: Any, fails: bool = False) -> None:
    """The code under test."""
    async with transaction_manager.atomic():
        await Order.objects.create(number=number)
        for hook in hooks:
            transaction_manager.on_commit(hook)
        if fails:
            raise ZeroDivisionError


def functions(hooks: list[Any]) -> list[Any]:
    return [hook.function for hook in hooks]


async def test_without_a_capture_they_are_called_as_ever(db: Database, calls: Calls) -> None:
    await place("1", calls("a"), calls.awaited("b"))
    assert calls.made == ["a", "b"]
    with pytest.raises(ZeroDivisionError):
        await place("2", calls("c"), fails=True)
    assert calls.made == ["a", "b"]


async def test_they_are_kept_and_listed_in_their_order(db: Database, calls: Calls) -> None:
    first, second, third = calls("a"), calls.awaited("b"), calls("c")
    async with capture_on_commit() as hooks:
        await place("1", first, second)
        assert hooks == []
        await asyncio.create_task(place("2", third))
        with pytest.raises(ZeroDivisionError):
            await place("3", calls("never"), fails=True)
        assert await Order.objects.count() == 2
    assert functions(hooks) == [first, second, third]
    assert calls.made == []
    await place("4", calls("d"))
    assert calls.made == ["d"], "the capture has ended"


async def test_of_inner_blocks_those_that_are_kept(db: Database, calls: Calls) -> None:
    kept, last = calls("kept"), calls("last")
    async with capture_on_commit() as hooks, transaction_manager.atomic():
        with pytest.raises(ZeroDivisionError):
            await place("1", calls("gone"), fails=True)
        await place("2", kept)
        transaction_manager.on_commit(last)
    assert functions(hooks) == [kept, last]


async def test_a_block_of_the_test_around_it_counts_as_committed(db: Database, calls: Calls) -> None:
    before, first, second, after = calls("before"), calls("a"), calls("b"), calls("after")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            transaction_manager.on_commit(before)
            async with transaction_manager.atomic():
                async with capture_on_commit(execute=True) as hooks:
                    await place("1", first)
                    transaction_manager.on_commit(second)
                assert functions(hooks) == [first, second]
                assert calls.made == ["a", "b"]
                transaction_manager.on_commit(after)
            raise ZeroDivisionError
    assert calls.made == ["a", "b"]
    async with transaction_manager.atomic():
        transaction_manager.on_commit(before)
        async with capture_on_commit() as hooks:
            transaction_manager.on_commit(first)
    assert calls.made == ["a", "b", "before"], "those that were captured are called by nobody else"
    assert functions(hooks) == [first]


async def test_executed_as_a_commit_would(db: Database, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with capture_on_commit(execute=True) as found:
            hooks.append(found)
            async with transaction_manager.atomic() as block:
                block.on_commit(calls.awaited("a"))
                block.on_commit(calls("b", fails=True), robust=True)
                block.on_commit(calls("c", fails=True))
                block.on_commit(calls("d"))
            assert calls.made == []

    hooks: list[Any] = []
    with caplog.at_level(logging.ERROR, "covet_orm.transactions"), pytest.raises(CommitHookFailed) as caught:
        await run()
    assert calls.made == ["a", "b", "c", "d"]
    assert [str(error) for error in caught.value.errors] == ["c"]
    assert "a hook of a transaction failed" in caplog.text
    assert [hook.robust for hook in hooks[0]] == [False, True, False, False]
    await place("1", calls("e"))
    assert calls.made[-1] == "e"


async def test_what_a_hook_registers_is_executed_as_well(db: Database, calls: Calls) -> None:
    async def hook() -> None:
        calls.made.append("hook")
        await place("2", calls("inner"))
        calls.made.append("after it")

    async with capture_on_commit(execute=True) as hooks:
        await place("1", hook, calls("next"))
    assert calls.made == ["hook", "inner", "after it", "next"]
    assert len(hooks) == 3

    def without() -> None:
        transaction_manager.on_commit(calls("at last"))

    async with transaction_manager.atomic(), capture_on_commit(execute=True) as hooks:
        transaction_manager.on_commit(without)
        transaction_manager.on_commit(calls("second"))
    assert calls.made[4:] == ["second", "at last"]
    assert len(hooks) == 3


async def test_nothing_is_executed_after_an_error(db: Database, calls: Calls) -> None:
    async def run() -> None:
        async with capture_on_commit(execute=True) as found:
            captured.append(found)
            await place("1", calls("a"))
            raise ZeroDivisionError

    captured: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        await run()
    assert calls.made == []
    assert len(captured[0]) == 1
    await place("2", calls("b"))
    assert calls.made == ["b"]


async def test_of_two_captures_and_of_other_databases(db: Database, calls: Calls) -> None:
    first, second = calls("a"), calls("b")
    async with capture_on_commit() as outer:
        async with capture_on_commit(db) as inner:
            await place("1", first)
        await place("2", second)
    assert (functions(outer), functions(inner)) == ([second], [first])
    async with capture_on_commit("elsewhere") as hooks:
        await place("3", first)
    assert hooks == []
    assert calls.made == ["a"]


async def test_with_transactions_that_are_committed(url: str, calls: Calls) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        async with capture_on_commit() as hooks:
            await place("1", calls("a"))
        assert len(hooks) == 1
        await place("2", calls("b"))
    assert calls.made == ["b"]


async def test_points_of_transactions(url: str) -> None:
    """Nobody has begun, nothing is committed, and it is and nobody knows."""
    reached: list[str] = []

    def lose() -> None:
        raise ConnectionLost("the network is gone")

    async def labelled(number: str) -> None:
        async with transaction_manager.atomic(label="labelled"):
            await Order.objects.create(number=number)

    async with Database(url) as database:
        await database.create_all(registry)
        with faultpoints.at("transaction.begin", lose), pytest.raises(ConnectionLost):
            await place("1")
        with faultpoints.at("transaction.committing", lose), pytest.raises(CommitUncertain):
            await place("2")
        with faultpoints.at("transaction.committed", lose), pytest.raises(CommitUncertain):
            await place("3")
        assert await Order.objects.values_list("number", flat=True) == ["3"]
        with faultpoints.at("transaction.committing.labelled", lambda: reached.append("labelled")):
            await place("4")
            assert reached == []
            await labelled("5")
        assert reached == ["labelled"]
        assert all(pool.stats.in_use == 0 for pool in database.pools())


async def test_a_deadlock_that_comes_when_it_should(url: str) -> None:
    attempts = 0

    def once() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise DeadlockDetected("as if")

    @transaction_manager.retry(backoff=lambda number: 0.0)
    @transaction_manager.atomic(label="transfer")
    async def transfer() -> None:
        await Order.objects.create(number="1")

    async with Database(url) as database:
        await database.create_all(registry)
        with faultpoints.at("transaction.committing.transfer", once):
            await transfer()
        assert attempts == 2
        assert await Order.objects.count() == 1


async def test_actions_are_awaited_and_given_back(url: str) -> None:
    told: list[str] = []

    async def wait() -> None:
        await asyncio.sleep(0)
        told.append("inner")

    with faultpoints.at("here", lambda: told.append("outer")):
        with faultpoints.at("here", wait):
            await faultpoints.reached("here")
        await faultpoints.reached("here")
        await faultpoints.reached("elsewhere")
    assert told == ["inner", "outer"]
    assert faultpoints.actions == {}
