"""A network that breaks, stalls or is slow at each step of a transaction: what the caller is told, what is there
afterwards, and that the pool is at rest."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import anyio
import pytest
from tests.driver_cases import connected, driver_for
from tests.services.databases import NAMES
from tests.services.proxy import Proxy

from covet_orm import (
    CharField,
    CommitUncertain,
    ConnectionLost,
    Database,
    Model,
    Registry,
    TransactionError,
    TransactionTimeout,
    transaction_manager,
)
from covet_orm.drivers import mysql as mysql_driver
from covet_orm.drivers import postgresql as postgresql_driver
from covet_orm.drivers import sockets
from covet_orm.drivers.mysql import MySQLConnection
from covet_orm.drivers.postgresql import PostgreSQLConnection
from covet_orm.transactions import blocks
from covet_orm.urls import parse_url

SERVED = [name for name in NAMES if name != "sqlite"]
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("server", SERVED, indirect=True)]
registry = Registry()
TYPES: dict[str, Any] = {"postgresql": PostgreSQLConnection, "mariadb": MySQLConnection}
WAYS = ("fetch", "query", "execute", "insert", "script")

STEPS = ["BEGIN", "INSERT", "SAVEPOINT", "INSERT", "RELEASE", "SAVEPOINT", "INSERT", "ROLLBACK TO", "INSERT", "COMMIT"]
"""What `work` sends, whichever words a server has for it; some end in a RELEASE of their own."""


class Row(Model):
    name = CharField(max_length=50, unique=True)

    class Meta:
        registry = registry
        db_table = "network_row"


class Network(NamedTuple):
    """A database behind a proxy, and the same one without it."""

    proxy: Proxy
    database: Database
    direct: Database

    async def names(self) -> set[str]:
        """What is there, when the server has noticed that its client is gone."""
        for _ in range(500):
            if await self.direct.fetch_value(OPEN[self.direct.kind]) == 0:
                break
            await asyncio.sleep(0.02)
        return set(await Row.objects.using(self.direct).values_list("name", flat=True))

    @property
    def in_use(self) -> int:
        return sum(pool.stats.in_use for pool in self.database.pools())


OPEN = {
    "postgresql": (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND xact_start IS NOT NULL"
    ),
    "mariadb": "SELECT count(*) FROM information_schema.innodb_trx",
}
"""How many transactions other sessions have open."""


@pytest.fixture
async def network(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    monkeypatch.setattr(blocks, "PATIENCE", 0.2)
    for module in (mysql_driver, postgresql_driver):
        monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    async with Database(url, alias="direct") as direct:
        await direct.create_all(registry)
        with Proxy(parse_url(url).hosts[0].port) as proxy:
            options: Any = {"min_size": 0, "max_size": 2, "acquire_timeout": 10, "connect_timeout": 2}
            async with Database(proxy.url(url), alias="proxied", **options) as database:
                yield Network(proxy, database, direct)
                proxy.heal()
                assert sum(pool.stats.in_use for pool in database.pools()) == 0
    gc.collect()


async def work(database: Database) -> None:
    """A transaction with every step that there is."""
    rows = Row.objects.using(database)
    async with transaction_manager.atomic(database):
        await rows.create(name="a")
        async with transaction_manager.atomic(database):
            await rows.create(name="b")
        with suppress(ZeroDivisionError):
            async with transaction_manager.atomic(database):
                await rows.create(name="c")
                raise ZeroDivisionError
        await rows.create(name="d")


async def rolled_back(database: Database) -> None:
    async with transaction_manager.atomic(database):
        await Row.objects.using(database).create(name="a")
        raise ZeroDivisionError


@contextmanager
def at_step(network: Network, number: int, strike: Callable[[], object], sent: list[str]) -> Iterator[None]:
    """Strike before the statement of this number leaves the pool's connection."""
    kind = TYPES[network.database.kind]
    before = {name: getattr(kind, name) for name in WAYS}
    depth = 0

    def watched(name: str) -> Any:
        async def call(connection: Any, sql: str, *args: Any) -> Any:
            nonlocal depth
            ours = depth == 0 and connection.number in held(network.database)
            if ours:
                if len(sent) == number:
                    strike()
                sent.append(sql)
            depth += ours
            try:
                return await before[name](connection, sql, *args)
            finally:
                depth -= ours

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in WAYS:
            patch.setattr(kind, name, watched(name))
        yield


def held(database: Database) -> set[int]:
    return {connection.number for pool in database.pools() for connection in pool._held}


async def statements(network: Network) -> list[str]:
    """All that a transaction sends when nothing breaks."""
    sent: list[str] = []
    with at_step(network, -1, lambda: None, sent):
        await work(network.database)
    assert await network.names() == {"a", "b", "d"}
    await Row.objects.using(network.direct).delete()
    steps = iter(sent)
    assert all(any(statement.upper().startswith(step.split()[0]) for statement in steps) for step in STEPS[1:]), sent
    return sent


async def outcome(call: Any) -> BaseException | None:
    try:
        with anyio.fail_after(60):
            await call
    except (ConnectionLost, CommitUncertain, TransactionTimeout, TransactionError, ZeroDivisionError) as error:
        return error
    return None


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_cut_at_each_step(network: Network, reset: bool, moment: str) -> None:
    """The statement does not arrive; or it does, and its answer does not."""
    sent = await statements(network)
    proxy = network.proxy

    def strike() -> None:
        if moment == "before":
            proxy.cut(reset=reset)
        else:
            proxy.limit(to_client=1, then="reset" if reset else "close")

    for number, sql in enumerate(sent):
        error = await outcome_at(network, number, strike)
        proxy.heal()
        there = await network.names()
        if sql == "COMMIT":
            assert isinstance(error, CommitUncertain), (sql, error)
            assert there == ({"a", "b", "d"} if moment == "after" else set())
        else:
            assert isinstance(error, ConnectionLost), (sql, error)
            assert not isinstance(error, CommitUncertain)
            assert there == set(), sql
        assert network.in_use == 0, sql
        await Row.objects.using(network.direct).delete()
        # The pool has another connection, which is as good as new.
        await work(network.database)
        assert await network.names() == {"a", "b", "d"}
        await Row.objects.using(network.direct).delete()


async def outcome_at(network: Network, number: int, strike: Callable[[], object]) -> BaseException | None:
    sent: list[str] = []
    with at_step(network, number, strike, sent):
        error = await outcome(work(network.database))
    assert len(sent) > number
    return error


async def test_silent_at_each_step(network: Network) -> None:
    """Nothing passes any more, and nobody says so: the timeout of the block ends it, and what stalls in its COMMIT is
    ended when it is cancelled."""
    sent = await statements(network)

    async def limited() -> None:
        async with transaction_manager.atomic(network.database, timeout=0.3):
            await work(network.database)

    # The first block begins, the inner ones are savepoints.
    for number in range(len(sent) + 1):
        seen: list[str] = []
        with at_step(network, number, network.proxy.stall, seen):
            with anyio.move_on_after(1.0) as scope:
                error = await outcome(limited())
        if len(seen) <= number:
            break
        sql = seen[number]
        assert network.in_use == 0, sql
        network.proxy.heal()
        there = await network.names()
        if scope.cancelled_caught or isinstance(error, CommitUncertain):
            assert sql == "COMMIT"
            assert there in (set(), {"a", "b", "d"})
        else:
            assert isinstance(error, (TransactionTimeout, ConnectionLost)), (sql, error)
            assert there == set(), sql
        await Row.objects.using(network.direct).delete()
        await work(network.database)
        await Row.objects.using(network.direct).delete()


async def test_silent_at_the_rollback(network: Network) -> None:
    sent: list[str] = []
    with at_step(network, -1, lambda: None, sent):
        assert isinstance(await outcome(rolled_back(network.database)), ZeroDivisionError)
    number = sent.index("ROLLBACK")
    for strike in (network.proxy.cut, network.proxy.stall):
        with at_step(network, number, strike, []), anyio.move_on_after(0.5) as scope:
            assert isinstance(await outcome(rolled_back(network.database)), ZeroDivisionError)
        assert network.in_use == 0
        assert scope.cancelled_caught == (strike == network.proxy.stall)
        network.proxy.heal()
        assert await network.names() == set()


async def test_slow_at_each_step(network: Network) -> None:
    """What is late is late, and nothing else."""
    network.proxy.delay(0.02)
    await work(network.database)
    with anyio.move_on_after(0.15):
        await work_named(network.database, "late")
    network.proxy.heal()
    assert network.in_use == 0
    there = await network.names()
    assert there in ({"a", "b", "d"}, {"a", "b", "d", "late"})


async def work_named(database: Database, name: str) -> None:
    async with transaction_manager.atomic(database):
        await Row.objects.using(database).create(name=name)


async def test_who_waits_for_a_silent_machine_is_told_by_the_kernel(server: Any) -> None:
    """Of a machine that is gone no test can be made here; that the kernel was told to ask for it can."""
    url = server.empty_database("test")
    for seconds, idle in ((60.0, 30), (7.0, 4), (0.0, None)):
        async with connected(url, tcp_timeout=seconds) as connection:
            raw: Any = connection.raw
            transport = raw._transport if isinstance(connection, PostgreSQLConnection) else raw._writer.transport
            found = transport.get_extra_info("socket")
            if idle is None:
                assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
                continue
            assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == sockets.PROBES
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == seconds * 1000
    with pytest.raises(Exception, match="tcp_timeout is seconds from 0"):
        driver_for(url, tcp_timeout=-1)


async def test_an_inner_block_that_cannot_be_rolled_back_is_worth_another_attempt(network: Network) -> None:
    """Its error was caught; what comes next in the outer block is told that the connection is lost, and `retry` tries
    all of it again."""
    attempts = 0

    @transaction_manager.retry(max_attempts=2, backoff=lambda _: 0.0)
    async def run() -> None:
        nonlocal attempts
        attempts += 1
        async with transaction_manager.atomic(network.database):
            await Row.objects.using(network.database).create(name="a")
            with suppress(ZeroDivisionError):
                async with transaction_manager.atomic(network.database):
                    await Row.objects.using(network.database).create(name="b")
                    if attempts == 1:
                        network.proxy.cut()
                    raise ZeroDivisionError
            await Row.objects.using(network.database).create(name="c")

    await run()
    assert attempts == 2
    assert await network.names() == {"a", "c"}
