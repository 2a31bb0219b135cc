"""A service goes on when its primary changes: the new one is found by its role, and the old one gets no more writes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.driver_cases import connected, driver_for
from tests.proofs.orm_failover import run
from tests.services import patroni, pgbouncer
from tests.services.databases import Databases
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL, Replica

from covet_orm.databases import Database
from covet_orm.drivers.postgresql import PostgreSQLConnection
from covet_orm.exceptions import ConnectionLost, DatabaseUnavailable, OrmError, ReadOnlyDatabase
from covet_orm.health import check_database
from covet_orm.pool import Pool
from covet_orm.replicas import read_session

pytestmark = pytest.mark.anyio

PORT = "SELECT current_setting('port')::int"
INSERT = "INSERT INTO t VALUES (1)"
SOON: dict[str, Any] = {"retry_after": 0.05, "connect_timeout": 3, "max_size": 3}


def url_of(*servers: PostgreSQL) -> str:
    """A URL with all of them as hosts."""
    hosts = ",".join(f"{server.host}:{server.port}" for server in servers)
    return servers[0].url("test").replace(f"{servers[0].host}:{servers[0].port}", hosts)


@contextmanager
def pair(primary: PostgreSQL) -> Iterator[Replica]:
    """A replica of a server with a table."""
    primary.empty_database("test")
    primary.execute("CREATE TABLE t (a int)", database="test")
    with primary.replica() as replica:
        replica.catch_up()
        yield replica


async def until_written(database: Database, errors: Counter[type[OrmError]]) -> int:
    """Write until it works; the port of the server that took it."""
    async with asyncio.timeout(30):
        while True:
            try:
                return int(await database.fetch_value("WITH w AS (INSERT INTO t VALUES (1)) " + PORT))
            except OrmError as error:
                errors[type(error)] += 1
                await asyncio.sleep(0.02)


async def insert(database: Database, *, inside: bool) -> None:
    """Insert a row, inside of a transaction or outside."""
    if not inside:
        await database.execute(INSERT)
        return
    async with database.transaction():
        await database.execute(INSERT)


async def fill(database: Database, size: int) -> Pool:
    """So many connections in the pool for writing."""
    pool = await database.pool_for(reads=False)
    held = [await pool.acquire() for _ in range(size)]
    for connection in held:
        pool.release(connection)
    assert pool.stats.idle == size
    return pool


# Where the primary is


@pytest.mark.parametrize("replicas", [False, True], ids=["alone", "replicas"])
async def test_a_replica_that_is_promoted_takes_the_writes(postgresql: PostgreSQL, replicas: bool) -> None:
    with pair(postgresql) as replica:
        options: dict[str, Any] = {"replica_check": 0.05} if replicas else {}
        if replicas:
            options["read_replicas"] = [replica.url("test"), postgresql.url("test")]
        errors: Counter[type[OrmError]] = Counter()
        async with Database(url_of(replica, postgresql), **SOON, **options) as database:
            assert await until_written(database, errors) == postgresql.port
            assert not errors
            pool = await fill(database, 3)
            await asyncio.to_thread(postgresql.kill)
            with pytest.raises((ConnectionLost, DatabaseUnavailable)):
                await database.execute(INSERT)
            await asyncio.to_thread(replica.promote)
            assert await until_written(database, errors) == replica.port
            assert set(errors) <= {DatabaseUnavailable, ConnectionLost}
            with read_session():
                assert await database.fetch_value(PORT) == replica.port
            assert pool.stats.in_use == 0


async def test_the_host_that_takes_writes_is_asked_first_the_next_time(postgresql: PostgreSQL) -> None:
    with pair(postgresql) as replica:
        driver: Any = driver_for(url_of(replica, postgresql))
        await (await driver.connect()).close()
        assert [host.port for host in driver._hosts] == [postgresql.port, replica.port]
        assert [host.port for host in driver.target.hosts] == [replica.port, postgresql.port]


async def test_who_only_reads_takes_the_first_host(postgresql: PostgreSQL) -> None:
    with pair(postgresql) as replica:
        async with connected(f"{url_of(replica, postgresql)}?read_only=true") as connection:
            assert isinstance(connection, PostgreSQLConnection)
            assert connection.in_recovery is True


async def test_several_pgbouncers_have_no_role(databases: Databases) -> None:
    server = databases.postgresql(15)
    server.empty_database("test")
    with pgbouncer.run(server) as bouncer:
        here = f"{bouncer.host}:{bouncer.port}"
        url = bouncer.url("test").replace(here, f"127.0.0.1:1,{here}")
        async with Database(f"{url}?pgbouncer=true") as database:
            assert await database.fetch_value("SELECT 1") == 1


# Servers that refuse to write


@contextmanager
def fenced(server: PostgreSQL) -> Iterator[None]:
    """Sessions take no writes, those that are open as well."""
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        path = Path(server.data, "postgresql.auto.conf")
        path.write_text("")
        server.execute("SELECT pg_reload_conf()")


async def _told_of_it(database: Database) -> None:
    async with asyncio.timeout(20):
        while await database.fetch_value("SHOW default_transaction_read_only") != "on":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("inside", [False, True], ids=["statement", "transaction"])
async def test_a_demoted_primary_is_left_after_one_refusal(postgresql: PostgreSQL, inside: bool) -> None:
    with pair(postgresql) as replica:
        errors: Counter[type[OrmError]] = Counter()
        async with Database(url_of(postgresql, replica), **SOON) as database:
            pool = await fill(database, 3)
            with fenced(postgresql):
                await _told_of_it(database)
                # Three connections that answer SELECT 1, and one refusal.
                with pytest.raises(ReadOnlyDatabase):
                    await insert(database, inside=inside)
                assert pool.stats.discarded == 1
                with pytest.raises(DatabaseUnavailable, match="target_session_attrs"):
                    await insert(database, inside=inside)
                assert pool.stats.discarded == 3
                await asyncio.to_thread(replica.promote)
                assert await until_written(database, errors) == replica.port
                assert set(errors) <= {DatabaseUnavailable}


async def test_a_transaction_that_only_reads_says_nothing_about_its_server(postgresql: PostgreSQL) -> None:
    with pair(postgresql):
        async with Database(postgresql.url("test"), max_size=1) as database:
            for _ in range(2):
                with pytest.raises(ReadOnlyDatabase):
                    async with database.transaction(read_only=True):
                        await database.execute(INSERT)
            assert database.pools()[0].stats.discarded == 0


async def test_who_means_to_read_keeps_the_connection(postgresql: PostgreSQL) -> None:
    with pair(postgresql) as replica:
        for option in ("read_only=true", "target_session_attrs=standby"):
            async with Database(f"{replica.url('test')}?{option}", max_size=1) as database:
                with pytest.raises(ReadOnlyDatabase):
                    await database.execute(INSERT)
                assert database.pools()[0].stats.discarded == 0
                await check_database(database)
        async with Database(replica.url("test"), max_size=1) as database:
            with pytest.raises(ReadOnlyDatabase):
                await check_database(database)


async def test_a_replica_that_is_asked_to_write_keeps_its_connection(postgresql: PostgreSQL) -> None:
    with pair(postgresql) as replica:
        postgresql.execute("CREATE SEQUENCE s", database="test")
        replica.catch_up()
        async with Database(postgresql.url("test"), read_replicas=[replica.url("test")]) as database:
            assert await database.fetch_value("SELECT nextval('s')") == 1
            (pool,) = [pool for pool in database.pools() if "replica" in pool.name]
            assert (pool.stats.made, pool.stats.discarded) == (1, 0)


async def test_a_mariadb_that_was_demoted_gets_a_new_connection(mariadb: MariaDB) -> None:
    mariadb.empty_database("test")
    mariadb.execute("CREATE TABLE t (a int)", database="test")
    async with Database(mariadb.url("test"), max_size=1) as database:
        await database.execute(INSERT)
        mariadb.execute("SET GLOBAL read_only = 1")
        try:
            for discarded, inside in ((1, False), (2, True)):
                with pytest.raises(ReadOnlyDatabase) as caught:
                    await insert(database, inside=inside)
                assert caught.value.code == "1290"
                assert database.pools()[0].stats.discarded == discarded
        finally:
            mariadb.execute("SET GLOBAL read_only = 0")
        await database.execute(INSERT)
        # A transaction that only reads is refused by another number.
        with pytest.raises(ReadOnlyDatabase):
            async with database.transaction(read_only=True):
                await database.execute(INSERT)
        assert database.pools()[0].stats.discarded == 2


# Which replicas are asked afterwards


async def test_a_replica_of_the_history_that_was_left_is_not_asked(postgresql: PostgreSQL) -> None:
    with pair(postgresql) as new, postgresql.replica() as left_behind:
        left_behind.catch_up()
        new.promote()
        new.execute("INSERT INTO t SELECT generate_series(1, 1000)", database="test")
        # It may be as little behind as it likes: what it has may be what the new primary never got.
        options: dict[str, Any] = {"read_replicas": [left_behind.url("test")], "replica_check": 0.05, "max_lag": 600}
        async with Database(new.url("test"), **options) as database:
            (lane,) = database._lanes.values()
            assert lane.replicated is not None
            (replica,) = lane.replicated.router.replicas
            assert replica.away == "foreign"
            with read_session():
                assert await database.fetch_value(PORT) == new.port


async def test_a_replica_is_asked_while_the_new_primary_is_gone(postgresql: PostgreSQL) -> None:
    with pair(postgresql) as new, postgresql.replica() as follower:
        follower.catch_up()
        new.promote()
        # It goes over to the new timeline, and its last restart point stays on the old one.
        follower.settings["primary_conninfo"] = (
            f"host={new.host} port={new.port} user=covet password=secret application_name={follower.port}"
        )
        await asyncio.to_thread(follower.restart)
        follower.primary = new
        new.execute(INSERT, database="test")
        follower.catch_up()
        checked: Any = {"read_replicas": [follower.url("test")], "replica_check": 0.02}
        async with Database(new.url("test"), **SOON, **checked) as database:
            (lane,) = database._lanes.values()
            assert lane.replicated is not None
            (replica,) = lane.replicated.router.replicas
            assert replica.away is None
            await asyncio.to_thread(new.kill)
            for _ in range(20):
                # Some checks pass.
                await asyncio.sleep(0.03)
                assert replica.away is None
                with read_session():
                    assert await database.fetch_value(PORT) == follower.port


# The short form of the proof `orm_failover`


async def test_a_switchover_under_load() -> None:
    with patroni.run(synchronous=True) as cluster:
        outcome = await run("short", cluster, faults=("switchover",), seconds=1.0, replicas=True)
    assert not outcome.failed, outcome
    assert outcome.acknowledged
    assert outcome.phases[-1].errors
