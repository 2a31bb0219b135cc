"""Transactions whose task is cancelled, by asyncio or by anyio, at every place where it waits; and what ends them by
force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from tests.services.databases import NAMES
from tests.services.proxy import Proxy

from covet.testing.conformance.faults import WAYS, Way, at_every_await
from covet_orm import (
    CharField,
    CommitUncertain,
    ConnectionLost,
    Database,
    Model,
    Registry,
    TransactionError,
    transaction_manager,
)
from covet_orm.drivers.mysql import MySQLConnection
from covet_orm.drivers.postgresql import PostgreSQLConnection
from covet_orm.transactions import blocks
from covet_orm.transactions.confirming import mark
from covet_orm.transactions.uninterrupted import uninterrupted

pytestmark = pytest.mark.anyio
registry = Registry()
TABLE_OF_ROWS = "cancelled_row"


class Row(Model):
    name = CharField(max_length=50, unique=True)

    class Meta:
        registry = registry
        db_table = TABLE_OF_ROWS


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=3, acquire_timeout=5) as database:
        await database.create_all(registry)
        yield database
        assert at_rest(database)


async def names() -> set[str]:
    return set(await Row.objects.values_list("name", flat=True))


def at_rest(database: Database) -> bool:
    return all(pool.stats.in_use == 0 for pool in database.pools())


@pytest.mark.parametrize("way", WAYS)
async def test_whole_or_not_there_and_known(database: Database, way: Way) -> None:
    number = 0
    told: dict[int, str] = {}

    async def work() -> None:
        nonlocal number
        number += 1
        own = number
        async with transaction_manager.atomic() as block:
            block.on_commit(lambda: told.update({own: "committed"}))
            block.on_rollback(lambda: told.update({own: "rolled back"}))
            await Row.objects.create(name=f"{own} a")
            async with transaction_manager.atomic():
                await Row.objects.create(name=f"{own} b")
            try:
                async with transaction_manager.atomic():
                    await Row.objects.create(name=f"{own} c")
                    raise RuntimeError
            except RuntimeError:
                pass
            await Row.objects.create(name=f"{own} d")

    async def check() -> None:
        assert at_rest(database)
        found = await names()
        expected = {f"{own} {letter}" for own, what in told.items() if what == "committed" for letter in "abd"}
        assert found == expected
        assert number in told or not any(name.startswith(f"{number} ") for name in found)

    assert await at_every_await(work, check, way=way) >= 5
    assert "committed" in told.values()
    assert "rolled back" in told.values()


@pytest.mark.parametrize("way", WAYS)
async def test_a_hook_after_the_commit_has_its_time(database: Database, way: Way) -> None:
    """It is called whenever there was a commit, and cancelled itself only where it is what waits."""
    begun: list[str] = []
    number = 0

    async def work() -> None:
        nonlocal number
        number += 1
        name = str(number)

        async def hook() -> None:
            begun.append(name)
            await asyncio.sleep(0)

        async with transaction_manager.atomic() as block:
            block.on_commit(hook)
            await Row.objects.create(name=name)

    async def check() -> None:
        assert await names() == set(begun)

    assert await at_every_await(work, check, way=way) >= 3


async def test_what_must_not_be_cut_goes_on() -> None:
    """Cancelled again and again, it goes on; the cancellation is told when it is at its end."""
    steps: list[int] = []

    async def work() -> str:
        for number in range(3):
            await asyncio.sleep(0.01)
            steps.append(number)
        return "done"

    async def run() -> Any:
        return await uninterrupted(work(), cut=lambda: steps.append(-1), patience=30)

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.001)
    outcome = await task
    assert (outcome.result, outcome.error, steps) == ("done", None, [0, 1, 2])
    assert isinstance(outcome.cancelled, asyncio.CancelledError)


async def test_what_must_not_be_cut_fails_by_itself() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("of its own")

    outcome = await uninterrupted(work(), cut=lambda: None, patience=30)
    assert str(outcome.error) == "of its own"
    assert outcome.cancelled is None


async def test_patience_ends() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await future

    outcome: Any = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        outcome = await uninterrupted(
            work(), cut=lambda: future.set_exception(ConnectionLost("cut")), patience=0.05, hurried=False
        )
    assert isinstance(outcome.error, ConnectionLost)
    assert isinstance(outcome.cancelled, asyncio.CancelledError)
    assert scope.cancel_called


TYPES: dict[str, Any] = {"postgresql": PostgreSQLConnection, "mariadb": MySQLConnection}
SERVED = [name for name in NAMES if name != "sqlite"]


@pytest.fixture
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, Database]]:
    """A database behind a proxy, which can drop what passes."""
    from covet_orm.urls import parse_url

    async with Database(url, alias="direct") as direct:
        await direct.create_all(registry)
        with Proxy(parse_url(url).hosts[0].port) as proxy:
            async with Database(proxy.url(url), alias="proxied", min_size=0, max_size=2, acquire_timeout=5) as database:
                yield proxy, database
                assert at_rest(database)


@pytest.mark.parametrize("server", SERVED, indirect=True)
async def test_a_connection_lost_at_the_commit_is_said_to_be_uncertain(proxied: tuple[Proxy, Database]) -> None:
    proxy, database = proxied
    with pytest.raises(CommitUncertain, match="whether it was is not known") as caught:  # noqa: PT012
        async with transaction_manager.atomic(database) as block:
            await Row.objects.using(database).create(name="a")
            block.pre_commit(proxy.cut)
    assert isinstance(caught.value.__cause__, ConnectionLost)
    assert block.committed is None
    proxy.heal()


@pytest.mark.parametrize("server", SERVED, indirect=True)
@pytest.mark.parametrize("arrives", [True, False], ids=["committed", "not committed"])
async def test_what_became_of_an_uncertain_commit(
    url: str, proxied: tuple[Proxy, Database], monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    """The connection breaks before the COMMIT is there, or after it and before its answer."""
    _, database = proxied
    script = TYPES[database.kind].script

    async def break_off(connection: Any, sql: str) -> None:
        if sql != "COMMIT":
            await script(connection, sql)
            return
        if arrives:
            await script(connection, sql)
        connection.terminate()
        raise ConnectionLost("the network is gone")

    monkeypatch.setattr(TYPES[database.kind], "script", break_off)
    with pytest.raises(CommitUncertain) as caught:
        async with transaction_manager.atomic(database, confirm=True):
            await Row.objects.using(database).create(name="a")
    monkeypatch.undo()
    assert await caught.value.resolve() is arrives
    assert await Row.objects.using(database).count() == int(arrives)


@pytest.mark.parametrize("server", ["postgresql-15", "postgresql-18"], indirect=True)
async def test_a_transaction_that_a_crash_took_is_not_taken_for_a_later_one(
    server: Any, url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash, PostgreSQL gives the ids again of transactions of which nothing had come to the disk."""
    async with transaction_manager.atomic(database, confirm=True):
        await Row.objects.create(name="before")
    script = PostgreSQLConnection.script

    async def crash(connection: Any, sql: str) -> None:
        if sql != "COMMIT":
            await script(connection, sql)
            return
        server.kill()
        raise ConnectionLost("the server crashed")

    monkeypatch.setattr(PostgreSQLConnection, "script", crash)
    with pytest.raises(CommitUncertain) as caught:
        async with transaction_manager.atomic(database, confirm=True):
            await Row.objects.create(name="taken")
    monkeypatch.undo()
    await asyncio.to_thread(server.start)
    async with Database(url) as again:
        for number in range(3):
            await Row.objects.using(again).create(name=f"later {number}")
    for _ in range(2):
        assert not await caught.value.resolve(), "asking twice gives the same answer"
    assert await names() == {"before", "later 0", "later 1", "later 2"}


async def test_several_processes_use_it_for_the_first_time_at_once(url: str, server: Any) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
    # A file has one writer at a time, which the others wait for.
    clients = [Database(url, alias=f"client{number}", max_size=1) for number in range(8)]

    async def write(client: Database) -> None:
        async with client, transaction_manager.atomic(client, confirm=True):
            await Row.objects.using(client).create(name=client.alias)

    await asyncio.gather(*map(write, clients))
    async with Database(url) as database:
        assert await Row.objects.using(database).count() == 8


@pytest.mark.parametrize("server", SERVED, indirect=True)
async def test_what_is_not_ended_yet_is_waited_for(database: Database) -> None:
    """The server has not noticed that its client is gone: its transaction may be committed still."""
    found: list[Any] = []

    async def finish(connection: Any) -> None:
        await asyncio.sleep(0.3)
        found.append("ended")
        await connection.script("COMMIT")

    async with transaction_manager.atomic(database, confirm=True):
        await Row.objects.create(name="first")
    connection = await database.connect()
    await connection.script("BEGIN")
    await connection.script(f"INSERT INTO {TABLE_OF_ROWS} (name) VALUES ('a')")
    known = await mark(database, connection)
    ending = asyncio.create_task(finish(connection))
    assert await known.resolve(10)
    assert found == ["ended"]
    await ending
    await connection.close()


@pytest.mark.parametrize("server", SERVED, indirect=True)
async def test_what_was_not_asked_to_be_confirmed_cannot_be(proxied: tuple[Proxy, Database]) -> None:
    proxy, database = proxied
    with pytest.raises(CommitUncertain) as caught:  # noqa: PT012 - the block
        async with transaction_manager.atomic(database) as block:
            await Row.objects.using(database).create(name="a")
            block.pre_commit(proxy.cut)
    with pytest.raises(TransactionError, match="confirm=True"):
        await caught.value.resolve()
    proxy.heal()


async def test_what_is_confirmed_is_committed(database: Database) -> None:
    for number in range(3):
        async with transaction_manager.atomic(confirm=True):
            await Row.objects.create(name=str(number))
    async with transaction_manager.atomic(confirm=True):
        assert await Row.objects.count() == 3


@pytest.mark.parametrize("server", SERVED, indirect=True)
async def test_a_connection_lost_before_the_commit_is_none(proxied: tuple[Proxy, Database]) -> None:
    proxy, database = proxied
    with pytest.raises(ConnectionLost):  # noqa: PT012
        async with transaction_manager.atomic(database) as block:
            await Row.objects.using(database).create(name="a")
            proxy.cut()
            await Row.objects.using(database).create(name="b")
    assert block.committed is False
    proxy.heal()
    assert await Row.objects.using(database).count() == 0


@pytest.mark.parametrize("server", SERVED, indirect=True)
async def test_a_commit_that_nobody_answers(proxied: tuple[Proxy, Database], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever cancels waits for the answer no longer than that."""
    proxy, database = proxied
    monkeypatch.setattr(blocks, "PATIENCE", 0.2)
    with anyio.fail_after(30), anyio.CancelScope() as scope, pytest.raises(CommitUncertain):  # noqa: PT012
        async with transaction_manager.atomic(database) as block:
            await Row.objects.using(database).create(name="a")

            def stall() -> None:
                proxy.stall()
                asyncio.get_running_loop().call_later(0.1, scope.cancel)

            block.pre_commit(stall)
    assert at_rest(database)
    proxy.heal()


@pytest.mark.parametrize("server", SERVED, indirect=True)
async def test_a_rollback_that_nobody_answers(proxied: tuple[Proxy, Database], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, database = proxied
    monkeypatch.setattr(blocks, "PATIENCE", 0.2)
    with anyio.fail_after(30), anyio.move_on_after(0.2):
        async with transaction_manager.atomic(database):
            await Row.objects.using(database).create(name="a")
            proxy.stall()
            await asyncio.sleep(30)
    assert at_rest(database)
    proxy.heal()
    assert await Row.objects.using(database).count() == 0


@pytest.mark.parametrize("name", NAMES)
async def test_of_many_who_confirm_for_the_first_time_none_fails(name: str, databases: Any) -> None:
    """PostgreSQL may refuse to create a table that another one creates at that moment, in one of two ways."""
    for _ in range(3):
        url = databases.get(name).empty_database("confirming")

        async def confirmed(url: str = url) -> None:
            async with Database(url) as database, transaction_manager.atomic(database, confirm=True):
                await database.query("SELECT 1")

        await asyncio.gather(*(confirmed() for _ in range(12)))
