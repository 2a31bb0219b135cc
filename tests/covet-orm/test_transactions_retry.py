"""`transaction_manager.retry`, and the state that objects get back when their transaction is rolled back."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.services.databases import SERVERS

from covet_orm import (
    AutoField,
    CharField,
    CommitUncertain,
    Database,
    DeadlockDetected,
    F,
    IntegerField,
    LockTimeout,
    Model,
    Registry,
    SerializationFailure,
    TransactionError,
    UniqueViolation,
    VersionField,
    exponential,
    transaction_manager,
)
from covet_orm.drivers.protocol import SessionState

pytestmark = pytest.mark.anyio
registry = Registry()


class Account(Model):
    id = AutoField()
    name = CharField(max_length=50, unique=True)
    balance = IntegerField(default=0)

    class Meta:
        registry = registry


class Document(Model):
    text = CharField(max_length=50)
    version = VersionField()

    class Meta:
        registry = registry


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=4, acquire_timeout=10) as database:
        await database.create_all(registry)
        yield database
        assert all(pool.stats.in_use == 0 for pool in database.pools())


def at_once(attempt: int, /) -> float:
    return 0.0


async def test_a_function_is_called_again(database: Database) -> None:
    calls: list[int] = []

    @transaction_manager.retry(max_attempts=4, backoff=at_once)
    @transaction_manager.atomic
    async def work(name: str) -> str:
        calls.append(len(calls) + 1)
        await Account.objects.create(name=f"{name} {len(calls)}")
        if len(calls) < 3:
            raise SerializationFailure("somebody was faster")
        return name

    assert await work("ada") == "ada"
    assert calls == [1, 2, 3]
    assert await Account.objects.values_list("name", flat=True) == ["ada 3"]


async def test_attempts_as_a_loop(database: Database) -> None:
    numbers: list[tuple[int, bool]] = []
    async for attempt in transaction_manager.retry(backoff=at_once):
        async with attempt, transaction_manager.atomic():
            numbers.append((attempt.number, attempt.last))
            await Account.objects.create(name=f"{attempt.number}")
            if attempt.number < 2:
                raise LockTimeout("held")
    assert numbers == [(1, False), (2, False)]
    assert await Account.objects.values_list("name", flat=True) == ["2"]


async def test_the_last_attempt_raises_what_it_failed_with(database: Database) -> None:
    calls = 0

    @transaction_manager.retry(max_attempts=2, backoff=at_once)
    async def work() -> None:
        nonlocal calls
        calls += 1
        raise DeadlockDetected(f"of attempt {calls}")

    with pytest.raises(DeadlockDetected, match="of attempt 2") as caught:
        await work()
    assert any("attempt 2 of 2" in note for note in caught.value.__notes__)


async def test_other_errors_are_not_tried_again(database: Database) -> None:
    calls = 0

    @transaction_manager.retry(backoff=at_once)
    @transaction_manager.atomic
    async def work() -> None:
        nonlocal calls
        calls += 1
        await Account.objects.create(name="a")
        await Account.objects.create(name="a")

    with pytest.raises(UniqueViolation):
        await work()
    assert calls == 1

    @transaction_manager.retry(on=(UniqueViolation,), backoff=at_once)
    async def chosen() -> None:
        await work()

    with pytest.raises(UniqueViolation):
        await chosen()
    assert calls == 4


@pytest.mark.parametrize("idempotent", [False, True])
async def test_what_may_have_been_committed_is_tried_again_only_if_that_does_no_harm(
    database: Database, idempotent: bool
) -> None:
    calls = 0

    @transaction_manager.retry(backoff=at_once, idempotent=idempotent)
    async def uncertain() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise CommitUncertain("gone")
        return calls

    if idempotent:
        assert await uncertain() == 2
    else:
        with pytest.raises(CommitUncertain) as caught:
            await uncertain()
        assert "it may have been committed" in caught.value.__notes__[0]

    calls = 0

    @transaction_manager.retry(backoff=at_once, idempotent=idempotent)
    async def two() -> int:
        nonlocal calls
        calls += 1
        async with transaction_manager.atomic():
            await Account.objects.create(name=f"first {calls}")
        async with transaction_manager.atomic():
            if calls == 1:
                raise SerializationFailure("second")
        return calls

    if idempotent:
        assert await two() == 2
    else:
        with pytest.raises(SerializationFailure) as failure:
            await two()
        assert "was committed in the attempt before" in failure.value.__notes__[0]


async def test_inside_of_a_transaction_there_is_nothing_to_try_again(database: Database) -> None:
    @transaction_manager.retry()
    async def work() -> None:
        return

    async with transaction_manager.atomic():
        with pytest.raises(TransactionError, match=r"retry\(\) is inside of a transaction"):
            await work()
    await work()


async def test_attempts_end_with_their_time(database: Database) -> None:
    calls = 0

    @transaction_manager.retry(max_attempts=50, backoff=lambda attempt: 1000.0, timeout=0.5)
    async def work() -> None:
        nonlocal calls
        calls += 1
        raise SerializationFailure("again")

    with pytest.raises(SerializationFailure) as caught:
        await work()
    assert calls == 1
    assert any("retry(timeout=...)" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_attempts": 0}, "at least 1"), ({"max_attempts": True}, "at least 1"), ({"backoff": 3}, "a function")],
)
async def test_arguments_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TransactionError, match=message):
        transaction_manager.retry(**options)


async def test_only_functions_that_wait() -> None:
    with pytest.raises(TransactionError, match="no `async def`"):
        transaction_manager.retry()(lambda: None)  # type: ignore[arg-type, return-value]


async def test_the_time_grows() -> None:
    assert [exponential(number) for number in (2, 3, 4)] == [0.02, 0.04, 0.08]
    assert exponential(10**6) == 2.0


async def test_cancelled_it_ends(database: Database) -> None:
    calls = 0

    @transaction_manager.retry(max_attempts=100, backoff=lambda attempt: 100.0)
    async def work() -> None:
        nonlocal calls
        calls += 1
        raise SerializationFailure("again")

    task = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == 1


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_a_real_deadlock_of_two_tasks(database: Database) -> None:
    await Account.objects.bulk_create([Account(name="a", balance=100), Account(name="b", balance=100)])
    both = asyncio.Barrier(2)
    attempts: list[str] = []

    @transaction_manager.retry(max_attempts=3, backoff=exponential)
    @transaction_manager.atomic
    async def transfer(source: str, target: str) -> None:
        attempts.append(source)
        await Account.objects.filter(name=source).update(balance=F("balance") - 10)
        if attempts.count(source) == 1:
            await both.wait()
        await Account.objects.filter(name=target).update(balance=F("balance") + 10)

    await asyncio.gather(transfer("a", "b"), transfer("b", "a"))
    assert sorted(await Account.objects.values_list("balance", flat=True)) == [100, 100]
    assert len(attempts) > 2


async def test_objects_get_their_state_back(database: Database) -> None:
    kept = await Account.objects.create(name="kept", balance=1)
    gone = await Account.objects.create(name="gone")
    fresh = Account(name="fresh")
    document = await Document.objects.create(text="one")
    with pytest.raises(RuntimeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            kept.balance = 2
            await kept.save()
            async with transaction_manager.atomic():
                kept.balance = 3
                await kept.save()
            await fresh.save()
            await gone.delete()
            document.text = "two"
            await document.save()
            assert document.version == 2
            assert fresh.pk is not None
            raise RuntimeError
    assert (kept.balance, kept.changed_fields()) == (2, ["balance"])
    assert (fresh.saved, fresh.pk) == (False, None)
    assert gone.saved
    assert (document.text, document.version, document.changed_fields()) == ("two", 1, ["text"])
    for one in (kept, fresh, document):
        await one.save()
    await gone.delete()
    assert sorted(await Account.objects.values_list("name", "balance")) == [("fresh", 0), ("kept", 2)]
    assert (await Document.objects.get()).version == 2


async def test_an_inner_block_gives_its_own_back_alone(database: Database) -> None:
    account = await Account.objects.create(name="a", balance=1)
    async with transaction_manager.atomic():
        account.balance = 2
        await account.save()
        with pytest.raises(RuntimeError):  # noqa: PT012 - the block
            async with transaction_manager.atomic():
                account.balance = 3
                await account.save()
                raise RuntimeError
        assert account.changed_fields() == ["balance"]
    assert (await Account.objects.get()).balance == 2
    await account.save()
    assert (await Account.objects.get()).balance == 3


async def test_many_get_their_state_back(database: Database) -> None:
    fresh = [Account(name=f"{number}") for number in range(5)]
    with pytest.raises(RuntimeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            await Account.objects.bulk_create(fresh)
            assert all(one.saved and one.pk for one in fresh)
            raise RuntimeError
    assert not any(one.saved or one.pk for one in fresh)
    await Account.objects.bulk_create(fresh)
    with pytest.raises(RuntimeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            for one in fresh:
                one.balance = 7
            await Account.objects.bulk_update(fresh, ["balance"])
            assert fresh[0].changed_fields() == []
            raise RuntimeError
    assert all(one.changed_fields() == ["balance"] for one in fresh)
    taken = [Account(name="x"), Account(name="0")]
    with pytest.raises(UniqueViolation):
        await Account.objects.bulk_create(taken)
    assert not any(one.saved or one.pk for one in taken)


async def test_the_next_attempt_begins_with_what_the_first_began_with(database: Database) -> None:
    account = await Account.objects.create(name="a", balance=100)
    number = 0

    @transaction_manager.retry(backoff=at_once)
    @transaction_manager.atomic
    async def pay() -> None:
        nonlocal number
        number += 1
        account.balance -= 10
        await account.save()
        if number < 3:
            raise SerializationFailure("again")

    await pay()
    assert (account.balance, (await Account.objects.get()).balance) == (90, 90)


async def test_a_long_transaction_holds_no_objects(database: Database) -> None:
    async with transaction_manager.atomic():
        account = Account(name="a")
        await account.save()
        await Account.objects.bulk_create([many := Account(name="b")])
        known = [weakref.ref(account), weakref.ref(many)]
        del account, many
        gc.collect()
        assert [one() for one in known] == [None, None]


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_a_connection_that_was_lost_after_the_last_statement_is_tried_again(url: str, database: Database) -> None:
    """No statement failed, so that nothing but the end of the block tells it."""
    attempts = 0
    async for attempt in transaction_manager.retry(max_attempts=2, backoff=at_once):
        async with attempt, transaction_manager.atomic() as block:
            attempts += 1
            await Account.objects.create(name=f"attempt {attempts}")
            if attempts == 1:
                connection = await block.ready()
                kill = "SELECT pg_terminate_backend(%d)" if database.kind == "postgresql" else "KILL %d"
                async with Database(url) as another:
                    await another.script(kill % (connection.server_id or 0))
                async with asyncio.timeout(10):
                    while connection.state is not SessionState.CLOSED:  # noqa: ASYNC110 - the driver tells nobody
                        await asyncio.sleep(0.01)
    assert await Account.objects.values_list("name", flat=True) == ["attempt 2"]


async def test_what_a_failed_attempt_held_is_free_when_the_next_one_begins() -> None:
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    @transaction_manager.retry(max_attempts=3, backoff=at_once)
    async def work() -> None:
        mine = Held()
        assert [one() for one in held] == [None] * len(held)
        held.append(weakref.ref(mine))
        if len(held) < 3:
            raise SerializationFailure("somebody was faster")

    gc.disable()
    try:
        await work()
    finally:
        gc.enable()
    assert len(held) == 3
