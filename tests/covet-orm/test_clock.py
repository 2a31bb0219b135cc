"""The clock of the day is set, by an hour, forward or back: what must not depend on it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.services.databases import Databases

from covet_orm import (
    CharField,
    CommitIncomplete,
    Database,
    LockTimeout,
    Model,
    PoolTimeout,
    Registry,
    TransactionError,
    TransactionTimeout,
    transaction_manager,
)
from covet_orm.outbox import Outbox
from covet_orm.outbox import tables as outbox_tables
from covet_orm.testing import faultpoints
from covet_orm.transactions.confirming import TABLE
from covet_orm.transactions.distributed.blocks import KEPT
from covet_orm.transactions.distributed.elapsed import Elapsed
from covet_orm.transactions.distributed.recovery import in_doubt, recover

pytestmark = pytest.mark.anyio
registry = Registry()
HOUR = 3600.0


class Row(Model):
    name = CharField(max_length=50, unique=True)

    class Meta:
        registry = registry
        db_table = "clocked_row"


class Clock:
    """The clock of the day, which can be set; the monotonic one goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, real_ns = time.time, time.time_ns
        self.offset = 0.0
        self.asked = 0

        def now() -> float:
            self.asked += 1
            return real() + self.offset

        monkeypatch.setattr(time, "time", now)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(self.offset * 1e9))

    def set(self, seconds: float) -> None:
        self.offset += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(params=[HOUR, -HOUR], ids=["forward", "back"])
def jump(request: pytest.FixtureRequest) -> float:
    seconds: float = request.param
    return seconds


async def test_the_clock_is_the_one_that_is_asked(clock: Clock) -> None:
    before = time.time()
    clock.set(HOUR)
    assert time.time() - before >= HOUR
    assert clock.asked == 2


async def test_transactions_pools_and_retries_do_not_notice(url: str, clock: Clock, jump: float) -> None:
    """Timeouts end neither early nor never, connections stay, and another attempt is made."""
    attempts: list[int] = []

    @transaction_manager.retry(max_attempts=2, timeout=60, backoff=lambda _: 0.0)
    @transaction_manager.atomic(timeout=60, confirm=True)
    async def write() -> None:
        attempts.append(len(attempts))
        await Row.objects.create(name="a")
        clock.set(jump)
        if len(attempts) == 1:
            raise LockTimeout("as if")

    options: Any = {"max_size": 1, "acquire_timeout": 0.05, "max_idle": 60, "max_age": 600, "check_after_idle": 30}
    async with Database(url, **options) as database:
        await database.create_all(registry)
        assert await Row.objects.count() == 0
        made = [pool.stats.made for pool in database.pools()]
        await write()
        assert len(attempts) == 2
        async with transaction_manager.atomic():
            await Row.objects.create(name="b")
            clock.set(jump)
            with transaction_manager.independent(), pytest.raises(PoolTimeout):
                async with transaction_manager.atomic():
                    await Row.objects.create(name="c")
        with pytest.raises(TransactionTimeout):  # noqa: PT012 - the block
            async with transaction_manager.atomic(timeout=0.05):
                await Row.objects.count()
                clock.set(jump)
                await asyncio.sleep(30)
        assert await Row.objects.count() == 2
        assert [pool.stats.made for pool in database.pools()] == made, "no connection was taken for old"
        assert all(pool.stats.in_use == 0 for pool in database.pools())


async def test_commits_are_remembered_by_the_clock_of_the_database(url: str, clock: Clock) -> None:
    """A client whose clock is wrong by years neither forgets the commits of others, nor has its own forgotten."""
    for years in (10, -10, 0):
        clock.offset = years * 365 * 86400.0
        async with Database(url, alias=f"client{years}") as database:
            await database.create_all(registry)
            async with transaction_manager.atomic(database, confirm=True):
                await Row.objects.using(database).create(name=str(years))
            assert await database.fetch_value(f"SELECT count(*) FROM {TABLE}") == {10: 1, -10: 2, 0: 3}[years]


async def test_what_waits_for_no_time_does_not_wait_for_a_clock_that_was_set_back(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the database was an hour ahead when the messages were written."""
    got: list[Any] = []

    async def write(*payloads: int, **options: Any) -> None:
        async with transaction_manager.atomic():
            for payload in payloads:
                await transaction_manager.enqueue("t", payload, key="a", **options)

    def fail(message: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as ahead:
        for kind, sql in outbox_tables.NOW.items():
            ahead.setitem(outbox_tables.NOW, kind, f"({sql} + {HOUR})")
        async with Database(url) as database:
            outbox = Outbox(database)
            await outbox.create()
            await write(1, 2)
            await outbox.worker({"t": fail}, max_attempts=1).drain()
            await outbox.requeue()
            await write(3)
            await write(4, delay=1)
    async with Database(url) as database:
        outbox = Outbox(database)
        await outbox.worker({"t": lambda message: got.append(message.payload)}).drain()
        assert got == [1, 2, 3]


async def test_the_clock_of_a_worker_matters_to_nobody(url: str, clock: Clock, jump: float) -> None:
    got: list[Any] = []

    def handle(message: Any) -> None:
        got.append(message.payload)
        clock.set(jump)

    async with Database(url) as database:
        outbox = Outbox(database)
        await outbox.create()
        async with transaction_manager.atomic():
            for payload in range(5):
                await transaction_manager.enqueue("t", payload, key="a")
        worker = outbox.worker({"t": handle}, keep=1800)
        await worker.drain()
        assert (got, worker.lost) == ([0, 1, 2, 3, 4], 0)
        assert await outbox.purge() == 0, "what was delivered is kept for as long as was asked for"


@pytest.fixture(params=["mariadb", "postgresql-15"])
async def pair(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[tuple[Database, Database]]:
    """One that has the log, and one that is prepared."""
    url = databases.get("postgresql-18").empty_database("clock_orders")
    orders = Database(url, alias="orders")
    billing = Database(databases.get(request.param).empty_database("clock_billing"), alias="billing")
    async with orders, billing:
        await orders.create_all(registry)
        await billing.create_all(registry)
        yield orders, billing
        await recover(orders, billing, older_than=0)
        assert await in_doubt(orders, billing) == []


async def both(name: str) -> Any:
    async with transaction_manager.distributed("orders", "billing", wait=0.0) as tx:
        for alias in ("orders", "billing"):
            await Row.objects.using(alias).create(name=name)
    return tx


async def counts() -> tuple[int, int]:
    return await Row.objects.using("orders").count(), await Row.objects.using("billing").count()


async def test_a_distributed_transaction_does_not_notice(
    pair: tuple[Database, Database], clock: Clock, jump: float
) -> None:
    for step in ("2pc.begin", "2pc.prepared.billing", "2pc.deciding", "2pc.decided"):
        with faultpoints.at(step, lambda: clock.set(jump)):
            assert (await both(step)).committed
    assert await counts() == (4, 4)


async def test_recovery_does_as_was_decided(pair: tuple[Database, Database], clock: Clock, jump: float) -> None:
    """Whether its clock is behind or ahead; the decision is there as long as it is needed."""

    def lose() -> None:
        for pool in pair[1].pools():
            for connection in pool._held:
                connection.terminate()
        clock.set(jump)

    with faultpoints.at("2pc.decided", lose), pytest.raises(CommitIncomplete):
        await both("a")
    for _ in range(100):
        if [entry.state for entry in await recover(*pair, older_than=0)] in (["committed"], []):
            break
        await asyncio.sleep(0.05)  # MariaDB has yet to see that the session is gone
    assert await counts() == (1, 1)


async def test_recovery_that_is_early_and_a_coordinator_that_lives(
    pair: tuple[Database, Database], clock: Clock, jump: float
) -> None:
    """An hour too early or too late, recovery and the coordinator agree."""
    failed: list[TransactionError] = []

    async def look() -> None:
        clock.set(jump)
        await recover(*pair)
        clock.set(-jump)

    try:
        with faultpoints.at("2pc.deciding", look):
            await both("a")
    except TransactionError as error:
        failed.append(error)
    for _ in range(100):
        if not await recover(*pair, older_than=0):
            break
        await asyncio.sleep(0.05)
    first, second = await counts()
    assert first == second == (0 if failed else 1)


@pytest.mark.parametrize("pair", ["postgresql-15"], indirect=True)
async def test_one_that_slept_for_long_decides_nothing(
    pair: tuple[Database, Database], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock that has gone further, be it that of the day or the other."""
    with faultpoints.at("2pc.deciding", lambda: clock.set(KEPT)), pytest.raises(TransactionError, match="so old"):
        await both("a")
    clock.offset = 0.0
    began = Elapsed()
    clock.set(-KEPT)
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + KEPT)
    assert began.seconds >= KEPT
    assert await counts() == (0, 0)
