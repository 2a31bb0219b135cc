"""Whoever listens hears of transactions in several databases: how they end, and what recovery does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple, TypeVar

import pytest
from tests.services.databases import Databases, ask

import covet
from covet import Covet
from covet_orm import (
    CharField,
    CommitIncomplete,
    CommitUncertain,
    ConnectionLost,
    Database,
    HeuristicOutcome,
    Model,
    Registry,
    UniqueViolation,
    transaction_manager,
)
from covet_orm.events import (
    DistributedBegun,
    DistributedDecided,
    DistributedEnded,
    DistributedInDoubt,
    DistributedPrepared,
    DistributedRecovered,
    QueryDone,
    SavepointSet,
    TransactionBegun,
    TransactionEnded,
)
from covet_orm.testing import faultpoints
from covet_orm.transactions.distributed.decisions import DecisionLog
from covet_orm.transactions.distributed.recovery import forget, recover

pytestmark = pytest.mark.anyio
registry = Registry()
E = TypeVar("E")


class Entry(Model):
    code = CharField(max_length=40, unique=True)

    class Meta:
        registry = registry
        db_table = "told_entry"


class Heard(NamedTuple):
    """Two databases, and what was told of them."""

    orders: Database
    billing: Database
    events: list[Any]

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def write(self, code: str, **options: Any) -> Any:
        async with transaction_manager.distributed("orders", "billing", label="both", **options) as tx:
            await self.both(code)
        return tx

    async def both(self, code: str) -> None:
        await Entry.objects.using("orders").create(code=code)
        await Entry.objects.using("billing").create(code=code)


@pytest.fixture
async def heard(databases: Databases) -> AsyncIterator[Heard]:
    events: list[Any] = []

    class Listener:
        @covet.hookimpl
        def covet_event(self, event: object) -> None:
            events.append(event)

    app = Covet({}, plugins={"listener": Listener()}, installed_plugins=False)
    orders = Database(databases.get("mariadb").empty_database("orders"), alias="orders", max_size=2)
    billing = Database(databases.get("postgresql-15").empty_database("billing"), alias="billing", max_size=2)
    async with app.running(), orders, billing:
        DecisionLog.of(orders, create_table=True).declare()
        await orders.create_all(registry)
        await billing.create_all(registry)
        await recover(orders, billing, older_than=0)
        events.clear()
        yield Heard(orders, billing, events)
        for database in (orders, billing):
            assert all(pool.stats.in_use == 0 for pool in database.pools())


def cut(database: Database) -> None:
    for pool in database.pools():
        for connection in pool._held:
            connection.terminate()


async def test_the_steps_are_told(heard: Heard) -> None:
    async with transaction_manager.profile() as profile:
        tx = await heard.write("a")
    told = [event for event in heard.events if type(event).__name__.startswith("Distributed")]
    assert [type(event) for event in told] == [
        DistributedBegun, DistributedPrepared, DistributedDecided, DistributedEnded,
    ]  # fmt: skip
    begun, prepared, decided, ended = told
    assert {event.transaction for event in told} == {tx.transaction}
    assert {event.label for event in told} == {"both"}
    assert (begun.databases, begun.log) == ("orders,billing", "orders")
    assert (prepared.database, decided.log) == ("billing", "orders")
    assert 0 < prepared.seconds < decided.seconds < ended.seconds
    assert (ended.outcome, ended.pending, ended.error, ended.code) == ("committed", "", None, "")
    # Its parts are transactions as others are.
    assert [(event.database, event.label) for event in heard.of(TransactionBegun)] == [
        ("orders", "both"), ("billing", "both"),
    ]  # fmt: skip
    assert [(event.database, event.outcome, event.statements) for event in heard.of(TransactionEnded)] == [
        ("orders", "committed", 1), ("billing", "committed", 1),
    ]  # fmt: skip
    assert (profile.labels["both"].count, profile.labels["both"].committed) == (2, 2)


async def test_savepoints_and_streams_inside(heard: Heard) -> None:
    async with transaction_manager.distributed("orders", "billing", label="both"):
        for alias in ("orders", "billing"):
            async with transaction_manager.atomic(alias, label="inner"):
                await Entry.objects.using(alias).create(code="a")
            assert [one.code async for one in Entry.objects.using(alias).iterator()] == ["a"]
    assert [(event.database, event.label, event.transaction) for event in heard.of(SavepointSet)] == [
        ("orders", "inner", "both"), ("billing", "inner", "both"),
    ]  # fmt: skip
    assert [event.statements for event in heard.of(TransactionEnded)] == [2, 2]


async def test_a_rollback_is_told_with_its_error(heard: Heard) -> None:
    with pytest.raises(UniqueViolation):  # noqa: PT012 - the block
        async with transaction_manager.distributed("orders", "billing"):
            await heard.both("a")
            await heard.both("a")
    (ended,) = heard.of(DistributedEnded)
    assert (ended.outcome, ended.error, ended.code) == ("rolled back", "UniqueViolation", "1062")
    assert [event.outcome for event in heard.of(TransactionEnded)] == ["rolled back", "rolled back"]
    assert not heard.of(DistributedDecided)


async def test_a_block_without_statements_begins_and_ends(heard: Heard) -> None:
    async with transaction_manager.distributed("orders", "billing"):
        pass
    told = [type(event) for event in heard.events if not isinstance(event, QueryDone)]
    assert told == [DistributedBegun, DistributedEnded]


async def test_what_recovery_does_is_told(heard: Heard) -> None:
    def lose() -> None:
        cut(heard.billing)

    with faultpoints.at("2pc.decided", lose), pytest.raises(CommitIncomplete):
        await heard.write("a", wait=0.0)
    (ended,) = heard.of(DistributedEnded)
    assert (ended.outcome, ended.pending, ended.error) == ("committed", "billing", "CommitIncomplete")
    assert [event.outcome for event in heard.of(TransactionEnded)] == ["committed", "committed"]
    heard.events.clear()
    await recover(heard.orders, heard.billing)
    (recovered,) = heard.of(DistributedRecovered)
    assert (recovered.transaction, recovered.database, recovered.committed) == (ended.transaction, "billing", True)
    assert recovered.age >= 0
    assert not heard.of(DistributedInDoubt)


async def test_a_decision_that_is_not_known_is_told(heard: Heard) -> None:
    def lose() -> None:
        raise ConnectionLost("the network is gone")

    with faultpoints.at("2pc.decision written", lose), pytest.raises(CommitUncertain):
        await heard.write("a", wait=0.0)
    (ended,) = heard.of(DistributedEnded)
    assert (ended.outcome, ended.error) == ("uncertain", "CommitUncertain")
    assert [event.outcome for event in heard.of(TransactionEnded)] == ["uncertain", "uncertain"]
    heard.events.clear()
    await recover(heard.orders, heard.billing, older_than=0)
    assert [event.committed for event in heard.of(DistributedRecovered)] == [False]


async def test_what_needs_people_is_told_each_time(heard: Heard, databases: Databases) -> None:
    async def by_hand() -> None:
        url = databases.get("postgresql-15").url("billing")
        for (gid,) in await ask(url, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            await ask(url, f"ROLLBACK PREPARED '{gid}'")

    with faultpoints.at("2pc.decided", by_hand), pytest.raises(HeuristicOutcome):
        await heard.write("a")
    (ended,) = heard.of(DistributedEnded)
    assert (ended.outcome, ended.error) == ("mixed", "HeuristicOutcome")
    for _ in range(2):
        await recover(heard.orders, heard.billing)
    found = heard.of(DistributedInDoubt)
    assert [(event.transaction, event.database, event.state) for event in found] == [
        (ended.transaction, "orders", "mixed")
    ] * 2
    await forget(ended.transaction, heard.orders, heard.billing)
    heard.events.clear()
    await recover(heard.orders, heard.billing)
    assert heard.events == []
    assert DecisionLog.of(heard.orders).finished == set()
