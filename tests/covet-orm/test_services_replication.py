"""Replicas, and PgBouncer."""

from __future__ import annotations

import asyncio
import time

import asyncpg  # type: ignore[import-untyped]
import pymysql  # type: ignore[import-untyped]
import pytest
from tests.services import pgbouncer
from tests.services.databases import ask
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

# Replicas


def test_a_replica_lags_catches_up_and_is_promoted(postgresql: PostgreSQL) -> None:
    postgresql.empty_database("test")
    postgresql.execute("CREATE TABLE t (a int)", database="test")
    with postgresql.replica() as replica:
        replica.catch_up()
        count = "SELECT count(*) FROM t"
        assert replica.execute(count, database="test")[0][0] == 0
        replica.pause_replay()
        postgresql.execute("INSERT INTO t VALUES (1)", database="test")
        time.sleep(0.3)
        assert replica.execute(count, database="test")[0][0] == 0
        assert replica.replayed() < postgresql.position()
        replica.resume_replay()
        replica.catch_up()
        assert replica.execute(count, database="test")[0][0] == 1
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            replica.execute("INSERT INTO t VALUES (2)", database="test")
        # It follows its primary through another life of either.
        for each in (postgresql, replica):
            each.kill()
            each.start()
        postgresql.execute("INSERT INTO t VALUES (2)", database="test")
        replica.catch_up()
        assert replica.execute(count, database="test")[0][0] == 2
        replica.promote()
        replica.execute("INSERT INTO t VALUES (3)", database="test")
        assert replica.restart().execute("SELECT pg_is_in_recovery()")[0][0] is False
    assert postgresql.execute(count, database="test")[0][0] == 2


@pytest.mark.anyio
async def test_a_replica_of_mariadb_lags_catches_up_and_is_promoted(mariadb: MariaDB) -> None:
    await ask(mariadb.empty_database("test"), "CREATE TABLE t (a int)")
    with mariadb.replica() as replica:
        url, count = replica.url("test"), "SELECT count(*) FROM t"
        replica.catch_up()
        assert await ask(url, count) == [(0,)]
        replica.pause_replay()
        await ask(mariadb.url("test"), "INSERT INTO t VALUES (1)")
        await asyncio.sleep(0.3)
        assert await ask(url, count) == [(0,)]
        replica.resume_replay()
        replica.catch_up()
        assert await ask(url, count) == [(1,)]
        with pytest.raises(pymysql.err.OperationalError, match="read-only"):
            await ask(url, "INSERT INTO t VALUES (2)")
        for each in (mariadb, replica):
            each.kill()
            each.start()
        await ask(mariadb.url("test"), "INSERT INTO t VALUES (2)")
        replica.catch_up()
        assert await ask(url, count) == [(2,)]
        replica.promote()
        await ask(url, "INSERT INTO t VALUES (3)")
        replica.restart()
        await ask(url, "INSERT INTO t VALUES (4)")
    assert await ask(mariadb.url("test"), count) == [(2,)]


# PgBouncer


@pytest.mark.anyio
async def test_pgbouncer_gives_each_transaction_a_connection(postgresql: PostgreSQL) -> None:
    postgresql.empty_database("test")
    with pgbouncer.run(postgresql, {"default_pool_size": 1}) as bouncer:
        url = bouncer.url("test")
        one, two = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(2)]
        try:
            pids = {await each.fetchval("SELECT pg_backend_pid()") for each in (one, two)}
            assert len(pids) == 1
            await one.execute("SET search_path = elsewhere")
            assert await two.fetchval("SHOW search_path") == "elsewhere"
            # Only a transaction keeps its connection.
            await one.execute("BEGIN")
            waiting = asyncio.create_task(two.fetchval("SELECT 1"))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            await one.execute("COMMIT")
            assert await waiting == 1
        finally:
            for each in (one, two):
                each.terminate()
        pools = [pool for pool in bouncer.show("POOLS") if pool["database"] == "test"]
        assert [pool["pool_mode"] for pool in pools] == ["transaction"]
        with pytest.raises(asyncpg.PostgresError):
            await ask(bouncer.url("test", password="wrong"), "SELECT 1")
        bouncer.kill()
        assert not bouncer.running
        bouncer.start()
        assert await ask(url, "SELECT 1") == [(1,)]
        bouncer.restart()
        assert await ask(url, "SELECT 1") == [(1,)]
        # It holds connections to the database, which is emptied all the same.
        postgresql.empty_database("test")
        postgresql.drop_database("test")
