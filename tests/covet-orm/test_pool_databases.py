"""The pool with the real drivers: nothing dirty comes back, whatever is cancelled or killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.line_database import until
from tests.services.databases import Database
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

from covet.testing.conformance.faults import at_every_await
from covet_orm.drivers.mysql import MySQLDriver
from covet_orm.drivers.options import MySQLOptions, PostgreSQLOptions, SQLiteOptions
from covet_orm.drivers.postgresql import PostgreSQLDriver
from covet_orm.drivers.protocol import Connection, Driver, SessionState
from covet_orm.drivers.sqlite import SQLiteDriver
from covet_orm.exceptions import ConnectionLost, DatabaseError, DatabaseUnavailable
from covet_orm.pool import Pool, PoolSettings
from covet_orm.urls import driver_options, parse_url

pytestmark = pytest.mark.anyio

SLOW = {
    "postgresql": "SELECT pg_sleep(10)",
    "mariadb": "SELECT SLEEP(10)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000000) SELECT count(*) FROM n",
}


def driver_of(url: str) -> Driver:
    """The driver for a URL."""
    target = parse_url(url)
    options = driver_options(target)
    if isinstance(options, SQLiteOptions):
        return SQLiteDriver(target, options)
    if isinstance(options, PostgreSQLOptions):
        return PostgreSQLDriver(target, options)
    assert isinstance(options, MySQLOptions)
    return MySQLDriver(target, options)


@asynccontextmanager
async def pool_of(url: str, **settings: float | None) -> AsyncIterator[Pool]:
    """An open pool."""
    async with Pool(driver_of(url), PoolSettings(**settings)) as pool:  # type: ignore[arg-type]
        yield pool


async def at_rest(pool: Pool) -> None:
    """Nothing is held, and what is idle is clean and works."""
    await until(lambda: not pool.stats.making and not pool.stats.checking, "nothing is under way")
    assert pool.stats.in_use == 0
    assert pool.stats.waiting == 0
    idle = pool.stats.idle
    taken: list[Connection] = []
    for _ in range(idle):
        connection = pool.try_acquire()
        assert connection is not None
        assert connection.state is SessionState.IDLE
        taken.append(connection)
    for connection in taken:
        assert [tuple(row) for row in await connection.fetch("SELECT 1")] == [(1,)]
        pool.release(connection)


async def test_connections_are_used_again(url: str) -> None:
    async with pool_of(url, max_size=2) as pool:

        async def use(number: int) -> int:
            connection = await pool.acquire()
            try:
                return int((await connection.fetch(f"SELECT {number:d}"))[0][0])
            finally:
                pool.release(connection)

        assert await asyncio.gather(*(use(number) for number in range(50))) == list(range(50))
        assert pool.stats.made <= 2
        await at_rest(pool)


async def test_cancelled_at_every_await(url: str) -> None:
    async with pool_of(url, max_size=1) as pool:

        async def use() -> None:
            connection = await pool.acquire(5)
            try:
                await connection.script("BEGIN")
                await connection.fetch("SELECT 1")
                await connection.script("COMMIT")
            finally:
                pool.release(connection)

        async def check() -> None:
            # Of one place none may be lost, or this would wait for ever.
            connection = await pool.acquire(5)
            assert connection.state is SessionState.IDLE
            pool.release(connection)
            await at_rest(pool)

        assert await at_every_await(use, check) >= 3


async def test_a_transaction_that_was_left_open_is_ended(url: str) -> None:
    async with pool_of(url, max_size=1) as pool:
        connection = await pool.acquire()
        await connection.script("CREATE TABLE kept (id INTEGER)")
        await connection.script("BEGIN")
        await connection.execute("INSERT INTO kept VALUES (1)")
        pool.release(connection)
        connection = await pool.acquire()
        assert connection.state is SessionState.IDLE
        count = None
        # The other session may be on its way out still, and holds the table until then.
        for _ in range(100):
            try:
                count = (await connection.fetch("SELECT count(*) FROM kept"))[0][0]
            except DatabaseError:
                await asyncio.sleep(0.05)
            else:
                break
        assert count == 0
        pool.release(connection)
        await at_rest(pool)


async def test_a_cancelled_statement_is_not_met_by_the_next(server: Database, url: str) -> None:
    async with pool_of(url, max_size=1) as pool:
        for _ in range(3):
            connection = await pool.acquire()
            task = asyncio.create_task(connection.fetch(SLOW[server.kind]))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            pool.release(connection)
            other = await pool.acquire()
            assert [tuple(row) for row in await other.fetch("SELECT 7")] == [(7,)]
            pool.release(other)
        await at_rest(pool)


async def test_many_tasks_cancelled_at_any_time(url: str) -> None:
    async with pool_of(url, max_size=3) as pool:

        async def use() -> None:
            connection = await pool.acquire()
            try:
                await connection.fetch("SELECT 1")
                await connection.script("BEGIN")
                await connection.fetch("SELECT 1")
                await connection.script("COMMIT")
            finally:
                pool.release(connection)

        tasks = [asyncio.create_task(use()) for _ in range(120)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0)
            if number % 3:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        assert sum(result is None for result in results) >= 40
        await at_rest(pool)


async def test_a_server_killed_under_load_and_started_again(server: Database, url: str) -> None:
    if not isinstance(server, PostgreSQL | MariaDB):
        return
    async with pool_of(url, max_size=10, retry_after=0.05) as pool:
        done, lost, stop = 0, 0, False

        async def use() -> None:
            nonlocal done, lost
            while not stop:
                try:
                    connection = await pool.acquire()
                except DatabaseUnavailable:
                    lost += 1
                    await asyncio.sleep(0.02)
                    continue
                assert connection.state in (SessionState.IDLE, SessionState.CLOSED)
                try:
                    await connection.script("BEGIN")
                    assert [tuple(row) for row in await connection.fetch("SELECT 1")] == [(1,)]
                    await connection.script("COMMIT")
                    done += 1
                except (ConnectionLost, DatabaseUnavailable):
                    lost += 1
                finally:
                    pool.release(connection)

        async def progress(count: int) -> None:
            goal = done + count
            await until(lambda: done >= goal, "statements are run", 0.03)

        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(use())
            await progress(100)
            await asyncio.to_thread(server.kill)
            before = lost
            await until(lambda: lost >= before + 20, "requests fail")
            await asyncio.to_thread(server.start)
            await progress(100)
            stop = True
        assert pool.size <= 10
        await at_rest(pool)


async def test_a_restart_while_idle_fails_no_request(server: Database, url: str) -> None:
    if not isinstance(server, PostgreSQL | MariaDB):
        return
    async with pool_of(url, min_size=5, max_idle=None) as pool:
        await asyncio.to_thread(server.restart)
        for _ in range(10):
            connection = await pool.acquire()
            assert [tuple(row) for row in await connection.fetch("SELECT 1")] == [(1,)]
            pool.release(connection)
        await at_rest(pool)
