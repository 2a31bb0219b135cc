"""The pool: who gets a connection when, and what becomes of it, with a small database on a real socket."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.line_database import LineConnection, LineDriver, LineServer, until

from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.exceptions import (
    ConnectionLost,
    DatabaseUnavailable,
    OrmError,
    PoolClosed,
    PoolTimeout,
)
from covet_orm.pool import Pool, PoolSettings

pytestmark = pytest.mark.anyio


class Running:
    """A server, the driver for it, and an open pool."""

    def __init__(self, server: LineServer, driver: LineDriver, pool: Pool) -> None:
        self.server = server
        self.driver = driver
        self.pool = pool

    def session_of(self, connection: Connection) -> int:
        assert connection.server_id is not None
        return connection.server_id

    async def cut(self, connection: Connection) -> None:
        """The server ends a session, and the client's side hears of it."""
        assert isinstance(connection, LineConnection)
        self.server.kill(connection.server_id)
        await asyncio.wait_for(connection.ended, 5)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Running]:
    """All three; at the end the pool is closed, and the server has no session left."""
    server = LineServer()
    await server.start()
    driver = LineDriver(server)
    pool = Pool(driver, PoolSettings(**{"check_after_idle": None, **settings}))
    await pool.open()
    try:
        yield Running(server, driver, pool)
    finally:
        server.gate.set()
        await pool.close(timeout=0.1)
        try:
            await until(lambda: not server.sessions, "the server has no session left")
        finally:
            await server.stop()


async def turn(times: int = 3) -> None:
    """Let every task that can go on go on."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_a_connection_is_made_used_and_used_again() -> None:
    async with running() as run:
        assert run.pool.try_acquire() is None
        first = await run.pool.acquire()
        assert await first.fetch("hello") == [("hello",)]
        run.pool.release(first)
        assert run.pool.try_acquire() is first
        run.pool.release(first)
        assert await run.pool.acquire() is first
        run.pool.release(first)
        stats = run.pool.stats
        assert (stats.size, stats.idle, stats.in_use, stats.made, stats.waiting) == (1, 1, 0, 1, 0)


async def test_the_latest_used_is_used_first() -> None:
    async with running() as run:
        first, second = await run.pool.acquire(), await run.pool.acquire()
        run.pool.release(second)
        run.pool.release(first)
        assert run.pool.try_acquire() is first
        assert run.pool.try_acquire() is second
        run.pool.release(first)
        run.pool.release(second)


async def test_opening_makes_the_least_number_and_closing_ends_all() -> None:
    async with running(min_size=4) as run:
        assert run.pool.stats.idle == 4
        assert len(run.server.sessions) == 4


async def test_opening_fails_with_the_error_of_the_driver_and_leaves_nothing() -> None:
    server = LineServer()
    await server.start()
    server.refusal = "too many"
    pool = Pool(LineDriver(server), PoolSettings(min_size=3))
    with pytest.raises(DatabaseUnavailable, match="too many"):
        await pool.open()
    assert pool.size == 0
    with pytest.raises(OrmError, match="not open"):
        pool.try_acquire()
    await until(lambda: not server.sessions, "the sessions end")
    server.refusal = ""
    # The circuit breaker has opened meanwhile; whoever starts a service tries again a little later.
    await asyncio.sleep(pool.settings.retry_after)
    await pool.open()
    assert pool.stats.idle == 3
    await pool.close()
    await server.stop()


async def test_opening_that_is_cancelled_leaves_nothing() -> None:
    server = LineServer()
    await server.start()
    server.gate.clear()
    pool = Pool(LineDriver(server), PoolSettings(min_size=2))
    task = asyncio.create_task(pool.open())
    await until(lambda: server.connects == 2, "both are under way")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.gate.set()
    await until(lambda: not server.sessions, "the sessions end")
    assert pool.size == 0
    await pool.close()
    await server.stop()


async def test_never_more_than_the_most_and_served_in_the_order_of_arrival() -> None:
    served: list[int] = []

    async def use(number: int) -> None:
        connection = await run.pool.acquire()
        served.append(number)
        assert run.pool.size <= 3
        await connection.fetch(f"{number}")
        run.pool.release(connection)

    async with running(max_size=3) as run:
        await asyncio.gather(*(asyncio.create_task(use(number)) for number in range(60)))
        assert served == list(range(60))
        assert run.server.connects == 3
        assert run.pool.stats.waits == 60


async def test_who_releases_and_asks_again_waits_behind_the_others() -> None:
    async with running(max_size=1) as run:
        connection = await run.pool.acquire()
        other = asyncio.create_task(run.pool.acquire())
        await turn()
        run.pool.release(connection)
        assert run.pool.try_acquire() is None
        again = asyncio.create_task(run.pool.acquire())
        assert await other is connection
        await turn()
        assert not again.done()
        run.pool.release(connection)
        assert await again is connection
        run.pool.release(connection)


async def test_a_timeout_names_the_holders() -> None:
    async with running(max_size=2) as run:
        first = await asyncio.create_task(run.pool.acquire(), name="the importer")
        second = await run.pool.acquire()
        await second.fetch("SELECT name   FROM   customer WHERE id = $1")
        task = asyncio.current_task()
        assert task is not None
        task.set_name("the report")
        with pytest.raises(PoolTimeout) as caught:
            await run.pool.acquire(timeout=0.01)
        told = str(caught.value)
        assert "2 of at most 2 are in use" in told
        assert "the importer for 0." in told
        assert "which has ended without releasing it" in told
        assert "the report for 0." in told
        assert "last: SELECT name FROM customer WHERE id = $1" in told
        assert f"server's id {second.server_id}" in told
        assert "this task itself holds 1" in told
        assert isinstance(caught.value, TimeoutError)
        assert run.pool.stats.timeouts == 1
        assert [holder.task for holder in run.pool.holders()] == ["the importer", "the report"]
        run.pool.release(first)
        run.pool.release(second)
        assert run.pool.holders() == []


async def test_a_timeout_leaves_the_connection_that_is_being_made_to_the_next() -> None:
    async with running() as run:
        run.server.gate.clear()
        with pytest.raises(PoolTimeout, match="1 being made"):
            await run.pool.acquire(timeout=0.01)
        assert run.pool.stats.making == 1
        run.server.gate.set()
        connection = await run.pool.acquire()
        assert run.server.connects == 1
        run.pool.release(connection)


async def test_one_that_is_cancelled_leaves_the_connection_that_is_being_made_to_the_next() -> None:
    async with running(max_size=1) as run:
        run.server.gate.clear()
        tasks = [asyncio.create_task(run.pool.acquire()) for _ in range(2)]
        await until(lambda: run.server.connects == 1, "one is under way")
        tasks[0].cancel()
        await turn()
        run.server.gate.set()
        connection = await tasks[1]
        run.pool.release(connection)
        assert run.server.connects == 1
        assert tasks[0].cancelled()


async def test_one_that_is_cancelled_alone_leaves_an_idle_connection() -> None:
    async with running() as run:
        run.server.gate.clear()
        task = asyncio.create_task(run.pool.acquire())
        await until(lambda: run.server.connects == 1, "one is under way")
        task.cancel()
        await turn()
        run.server.gate.set()
        await until(lambda: run.pool.stats.idle == 1, "it is made")


async def test_cancelled_between_being_served_and_waking_up_gives_it_back() -> None:
    async with running(max_size=1) as run:
        connection = await run.pool.acquire()
        first, second = (asyncio.create_task(run.pool.acquire()) for _ in range(2))
        await turn()
        run.pool.release(connection)
        # Handed over already, and held, though the task has not run.
        assert run.pool.stats.in_use == 1
        first.cancel()
        assert await second is connection
        assert first.cancelled()
        run.pool.release(connection)
        assert run.pool.stats.idle == 1


async def test_a_cancellation_is_never_lost() -> None:
    async with running(max_size=1) as run:
        connection = await run.pool.acquire()
        for before in (True, False):
            task = asyncio.create_task(run.pool.acquire())
            await turn()
            if before:
                task.cancel()
                run.pool.release(connection)
            else:
                run.pool.release(connection)
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            taken = run.pool.try_acquire()
            assert taken is connection
        run.pool.release(connection)


async def test_a_timeout_in_the_same_step_as_a_release_loses_nothing() -> None:
    async with running(max_size=1) as run:
        connection = await run.pool.acquire()
        task = asyncio.create_task(run.pool.acquire(timeout=0.0))
        await turn(1)
        run.pool.release(connection)
        await asyncio.wait([task])
        if task.exception() is None:
            run.pool.release(task.result())
        assert run.pool.stats.idle == 1


@pytest.mark.parametrize("statement", ["begin", "hang", "bye"])
async def test_what_is_not_at_rest_is_never_given_out_again(statement: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(max_size=1) as run:
        connection = await run.pool.acquire()
        try:
            await asyncio.wait_for(connection.fetch(statement), 0.02)
        except (TimeoutError, ConnectionLost):
            assert connection.state in (SessionState.BUSY, SessionState.CLOSED)
        run.pool.release(connection)
        assert run.pool.stats.idle == 0
        other = await run.pool.acquire()
        assert other is not connection
        assert other.state is SessionState.IDLE
        run.pool.release(other)
        await until(lambda: len(run.server.sessions) == 1, "the first one's session ends")
        assert ("in a transaction" in caplog.text) == (statement == "begin")


async def test_the_place_of_a_discarded_one_goes_to_who_waits() -> None:
    async with running(max_size=1) as run:
        for give_up in (run.pool.discard, run.pool.release):
            connection = await run.pool.acquire()
            await connection.fetch("begin")
            task = asyncio.create_task(run.pool.acquire())
            await turn()
            give_up(connection)
            assert run.pool.size == 1
            other = await task
            assert other is not connection
            run.pool.release(other)
        assert run.pool.stats.discarded == 2


async def test_discarding_is_idempotent_and_releasing_twice_an_error() -> None:
    async with running() as run:
        connection = await run.pool.acquire()
        run.pool.discard(connection)
        run.pool.discard(connection)
        run.pool.release(connection)
        assert run.pool.size == 0
        connection = await run.pool.acquire()
        run.pool.release(connection)
        with pytest.raises(OrmError, match="released before"):
            run.pool.release(connection)
        assert run.pool.stats.idle == 1


async def test_idle_connections_that_were_closed_are_replaced_without_an_error() -> None:
    async with running(min_size=3) as run:
        run.server.kill()
        await until(lambda: all(made.ended.done() for made in run.driver.made), "the client hears of it")
        connection = await run.pool.acquire()
        assert await connection.fetch("hello") == [("hello",)]
        run.pool.release(connection)
        assert run.driver.pings == 0
        assert run.pool.stats.discarded == 3
        await until(lambda: run.pool.stats.idle == 3, "the others are replaced, too")


async def test_a_silent_idle_connection_is_checked_and_replaced() -> None:
    async with running(check_after_idle=0.0, check_timeout=0.05) as run:
        connections = [await run.pool.acquire() for _ in range(3)]
        for connection in connections:
            run.pool.release(connection)
        checked = await run.pool.acquire()
        assert run.driver.pings == 1
        assert checked is connections[-1]
        run.pool.release(checked)
        run.server.deaf = True
        task = asyncio.create_task(run.pool.acquire())
        # The newest of them is asked. None of the others is, once it has not answered.
        connection = await task
        assert connection not in connections
        assert run.driver.pings == 2
        assert run.pool.stats.discarded == 3
        run.server.deaf = False
        run.pool.release(connection)


async def test_one_that_breaks_puts_the_others_in_doubt() -> None:
    async with running() as run:
        first, second = await run.pool.acquire(), await run.pool.acquire()
        run.pool.release(second)
        await run.cut(first)
        run.pool.release(first)
        assert run.pool.try_acquire() is None
        assert await run.pool.acquire() is second
        assert run.driver.pings == 1
        run.pool.release(second)
        assert run.pool.try_acquire() is second
        run.pool.release(second)


async def test_a_check_outlives_who_wanted_it() -> None:
    async with running(check_after_idle=0.0) as run:
        connection = await run.pool.acquire()
        run.pool.release(connection)
        task = asyncio.create_task(run.pool.acquire())
        await turn(2)
        assert run.pool.stats.checking == 1
        task.cancel()
        await until(lambda: run.pool.stats.idle == 1, "the check ends")
        assert task.cancelled()
        assert connection.state is SessionState.IDLE


async def test_too_old_connections_are_replaced() -> None:
    async with running(max_age=0.02, max_size=1) as run:
        connection = await run.pool.acquire()
        await asyncio.sleep(0.03)
        task = asyncio.create_task(run.pool.acquire())
        await turn()
        run.pool.release(connection)
        assert await task is not connection
        run.pool.discard(task.result())


async def test_connections_made_together_do_not_end_together() -> None:
    async with running(min_size=10, max_age=1000.0) as run:
        expires = sorted(slot.expires - slot.made for slot in run.pool._idle)
        assert expires[-1] <= 1000.0
        assert expires[0] >= 800.0
        assert len(set(expires)) == 10


async def test_expiring_replaces_all_that_exist() -> None:
    async with running() as run:
        held, idle = await run.pool.acquire(), await run.pool.acquire()
        run.pool.release(idle)
        run.server.gate.clear()
        waiting = [asyncio.create_task(run.pool.acquire()) for _ in range(2)]
        await until(lambda: run.server.connects == 3, "another one is under way")
        run.pool.expire()
        run.server.gate.set()
        for task in waiting:
            run.pool.release(await task)
        run.pool.release(held)
        # What was begun before served who waited for it, and nobody else.
        latest = await run.pool.acquire()
        assert latest not in (held, idle)
        assert latest not in run.driver.made[:3]
        run.pool.release(latest)
        await until(lambda: len(run.server.sessions) == run.pool.stats.idle, "their sessions end")


async def test_maintenance_closes_what_nobody_uses_and_keeps_the_least_number() -> None:
    async with running(min_size=1, max_idle=0.05) as run:
        connections = [await run.pool.acquire() for _ in range(4)]
        for connection in connections:
            run.pool.release(connection)
        await until(lambda: run.pool.size == 1, "three of them are closed")
        await until(lambda: len(run.server.sessions) == 1, "their sessions end")
        last = await run.pool.acquire()
        assert last is connections[-1]
        run.pool.discard(last)
        await until(lambda: run.pool.stats.idle == 1, "another one is made")


async def test_a_pool_that_is_forgotten_is_warned_of_and_its_maintenance_ends() -> None:
    server = LineServer()
    await server.start()
    driver = LineDriver(server)
    pool = Pool(driver, PoolSettings(min_size=1, max_idle=0.04))
    await pool.open()
    before = {task for task in asyncio.all_tasks() if "maintenance" in task.get_name()}
    assert len(before) == 1
    kept = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="was not closed"):
        kept.clear()
    gc.collect()
    await asyncio.wait(before, timeout=5)
    assert all(task.done() for task in before)
    driver.made[0].terminate()
    await server.stop()


class TestServerDown:
    """No connection can be made."""

    async def test_the_error_goes_to_one_and_the_next_tries_again(self) -> None:
        async with running(failures=100) as run:
            run.server.refusal = "starting up"
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable, match="starting up") as caught:
                    await run.pool.acquire()
                assert caught.value.code == "53300"
            run.server.refusal = ""
            run.pool.release(await run.pool.acquire())
            assert run.pool.stats.failures == 3

    async def test_attempts_are_made_one_by_one_after_the_first_failure(self) -> None:
        async with running(max_size=20, failures=1000) as run:
            run.server.refusal = "starting up"
            with pytest.raises(DatabaseUnavailable):
                await run.pool.acquire()
            run.server.gate.clear()
            tasks = [asyncio.create_task(run.pool.acquire()) for _ in range(20)]
            await until(lambda: run.server.connects == 2, "one is under way")
            await asyncio.sleep(0.02)
            assert run.server.connects == 2
            assert run.pool.stats.making == 1
            run.server.refusal = ""
            run.server.gate.set()
            for connection in await asyncio.gather(*tasks):
                run.pool.release(connection)
            assert run.pool.size == 20

    async def test_each_waiting_task_gets_an_error_once(self) -> None:
        async with running(max_size=5, failures=1000) as run:
            run.server.refusal = "starting up"
            tasks = [asyncio.create_task(run.pool.acquire()) for _ in range(20)]
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, DatabaseUnavailable) for error in errors)
            assert len({id(error) for error in errors}) == 20
            assert run.server.connects == 20

    async def test_an_error_is_not_for_who_came_after_the_attempt_began(self) -> None:
        async with running(max_size=1, failures=1000) as run:
            run.server.refusal = "starting up"
            run.server.gate.clear()
            first = asyncio.create_task(run.pool.acquire())
            await until(lambda: run.server.connects == 1, "one is under way")
            first.cancel()
            await turn()
            later = asyncio.create_task(run.pool.acquire())
            await turn()
            run.server.gate.set()
            await until(lambda: run.server.connects == 2, "another attempt is made for it")
            run.server.refusal = ""
            with pytest.raises(DatabaseUnavailable):
                await later

    async def test_the_circuit_breaker_refuses_at_once_and_says_until_when(self) -> None:
        async with running(failures=3, retry_after=0.3) as run:
            run.server.refuse()
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable, match="cannot connect"):
                    await run.pool.acquire()
            failures = run.pool.stats.failures
            for _ in range(100):
                with pytest.raises(DatabaseUnavailable, match=r"tries again in 0\.\d seconds; the last time: cannot"):
                    await run.pool.acquire()
            assert run.pool.stats.failures == failures
            await run.server.start()
            await asyncio.sleep(0.35)
            run.pool.release(await run.pool.acquire())

    async def test_the_circuit_breaker_refuses_those_who_wait_when_it_opens(self) -> None:
        async with running(max_size=1, failures=3, retry_after=60.0) as run:
            run.server.refuse()
            tasks = [asyncio.create_task(run.pool.acquire()) for _ in range(50)]
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, DatabaseUnavailable) for error in errors)
            assert run.pool.stats.failures == 3
            assert sum("tries again in" in str(error) for error in errors) == 47

    async def test_who_may_get_a_connection_from_another_holder_waits_for_that(self) -> None:
        async with running(max_size=10, failures=2, retry_after=0.05) as run:
            connection = await run.pool.acquire()
            run.server.refusal = "too many"
            tasks = [asyncio.create_task(run.pool.acquire()) for _ in range(3)]
            await until(lambda: run.pool.stats.failures >= 4, "more is tried, after the circuit breaker has opened")
            for task in tasks:
                assert not task.done()
                run.pool.release(connection)
                assert await task is connection
            with pytest.raises(PoolTimeout, match="the last attempt to connect failed: the server says: too many"):
                await run.pool.acquire(timeout=0.01)
            waiting = asyncio.create_task(run.pool.acquire())
            await run.cut(connection)
            run.pool.release(connection)
            with pytest.raises(DatabaseUnavailable):
                await waiting

    async def test_the_pool_recovers_by_itself(self) -> None:
        async with running(min_size=3, failures=2, retry_after=0.05, max_idle=0.2) as run:
            run.server.refuse()
            run.server.kill()
            await until(lambda: run.pool.stats.failures >= 3, "it keeps trying")
            assert run.pool.size <= 1
            await run.server.start()
            await until(lambda: run.pool.stats.idle == 3, "all are back")


class TestClosing:
    """`close`, and what comes after."""

    async def test_it_waits_for_holders_and_tells_those_who_wait(self) -> None:
        async with running(max_size=1) as run:
            connection = await run.pool.acquire()
            waiting = asyncio.create_task(run.pool.acquire())
            await turn()
            closing = asyncio.create_task(run.pool.close(timeout=5))
            with pytest.raises(PoolClosed):
                await waiting
            again = asyncio.create_task(run.pool.close())
            await turn()
            assert not closing.done()
            assert await connection.fetch("still here") == [("still here",)]
            assert run.pool.try_acquire() is None
            with pytest.raises(PoolClosed):
                await run.pool.acquire()
            run.pool.release(connection)
            await closing
            await again
            assert run.pool.size == 0
            assert connection.state is SessionState.CLOSED

    async def test_holders_that_take_too_long_are_cut_and_named(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running() as run:
            connection = await asyncio.create_task(run.pool.acquire(), name="the slow one")
            await run.pool.close(timeout=0.01)
            assert "the slow one" in caplog.text
            assert connection.state is SessionState.CLOSED
            assert run.pool.size == 0
            run.pool.release(connection)
            run.pool.discard(connection)

    async def test_what_is_being_made_is_given_up(self) -> None:
        async with running() as run:
            run.server.gate.clear()
            waiting = asyncio.create_task(run.pool.acquire())
            await until(lambda: run.server.connects == 1, "one is under way")
            await run.pool.close()
            with pytest.raises(PoolClosed):
                await waiting
            assert run.pool.size == 0

    async def test_a_check_is_given_up(self) -> None:
        async with running(check_after_idle=0.0) as run:
            run.pool.release(await run.pool.acquire())
            run.server.deaf = True
            waiting = asyncio.create_task(run.pool.acquire())
            await turn(2)
            assert run.pool.stats.checking == 1
            await run.pool.close()
            with pytest.raises(PoolClosed):
                await waiting
            assert run.pool.size == 0

    async def test_cancelled_it_cuts_all(self) -> None:
        async with running() as run:
            connection = await run.pool.acquire()
            task = asyncio.create_task(run.pool.close())
            await turn()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert connection.state is SessionState.CLOSED
            assert run.pool.size == 0
            run.pool.release(connection)

    async def test_connections_end_in_good_order_where_they_can(self) -> None:
        async with running(min_size=2) as run:
            connections = run.driver.made
            await run.pool.close()
            assert all(connection.ended.done() for connection in connections)

    async def test_a_closed_pool_is_not_opened_again(self) -> None:
        pool = Pool(LineDriver(LineServer()))
        await pool.close()
        with pytest.raises(PoolClosed):
            await pool.open()
        with pytest.raises(PoolClosed):
            await pool.acquire()

    async def test_it_is_opened_once(self) -> None:
        async with running() as run:
            with pytest.raises(OrmError, match="open already"):
                await run.pool.open()


class TestElsewhere:
    """Use from where a pool does not belong."""

    @pytest.fixture
    async def wrong(self) -> AsyncIterator[tuple[Running, Connection, list[Callable[[], Any]]]]:
        async with running() as run:
            connection = await run.pool.acquire()
            idle = await run.pool.acquire()
            run.pool.release(idle)
            calls: list[Callable[[], Any]] = [
                run.pool.try_acquire,
                lambda: run.pool.release(connection),
                lambda: run.pool.discard(connection),
                run.pool.expire,
            ]
            yield run, connection, calls
            assert run.pool.stats.in_use == 1
            assert run.pool.stats.idle == 1
            run.pool.release(connection)

    async def test_another_loop(self, wrong: tuple[Running, Connection, list[Callable[[], Any]]]) -> None:
        run, _, calls = wrong
        told: list[str] = []

        async def elsewhere() -> None:
            awaited: list[Callable[[], Awaitable[Any]]] = [run.pool.acquire, run.pool.close]
            for call in calls:
                with pytest.raises(OrmError) as caught:
                    call()
                told.append(str(caught.value))
            for make in awaited:
                with pytest.raises(OrmError) as caught:
                    await make()
                told.append(str(caught.value))

        thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert len(told) == 6
        assert all("another event loop" in text for text in told)

    async def test_no_loop(self, wrong: tuple[Running, Connection, list[Callable[[], Any]]]) -> None:
        _, _, calls = wrong

        def elsewhere() -> None:
            for call in calls:
                with pytest.raises(OrmError, match="another event loop or thread"):
                    call()

        await asyncio.to_thread(elsewhere)

    async def test_a_forked_child(self, wrong: tuple[Running, Connection, list[Callable[[], Any]]]) -> None:
        _, _, calls = wrong
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            # Nothing of the test's own ends may run here.
            try:
                told = []
                for call in calls:
                    try:
                        call()
                    except OrmError as error:
                        told.append(str(error))
                os.write(writing, "\n".join(told).encode())
            finally:
                os._exit(0)
        os.close(writing)
        await asyncio.to_thread(os.waitpid, child, 0)
        with os.fdopen(reading) as answer:
            told = answer.read().splitlines()
        assert len(told) == 4
        assert all("before this process was forked" in line for line in told)


async def test_a_failing_close_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with running(max_age=0.001) as run:
        connection = await run.pool.acquire()
        assert isinstance(connection, LineConnection)
        close = connection.close

        async def fail() -> None:
            await close()
            raise RuntimeError("a bug in the driver")

        connection.close = fail  # type: ignore[method-assign]
        await asyncio.sleep(0.01)
        run.pool.release(connection)
        await until(lambda: "a bug in the driver" in caplog.text, "it is logged")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_size": 0},
        {"min_size": 3, "max_size": 2},
        {"min_size": -1},
        {"acquire_timeout": 0},
        {"max_age": -1.0},
        {"max_idle": float("nan")},
        {"check_after_idle": -1.0},
        {"failures": 0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(wrong)):
        PoolSettings(**wrong)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("check", [None, 0.0])
async def test_the_tasks_of_the_pool_cancelled_by_somebody_else(check: float | None, turns: int) -> None:
    """Such as by whoever cancels all tasks: before they have run at all, or while they wait."""
    async with running(check_after_idle=check, max_size=3) as run:
        if check is not None:
            run.pool.release(await run.pool.acquire())
        run.server.gate.clear()
        for _ in range(2):
            tasks = [asyncio.create_task(run.pool.acquire()) for _ in range(3)]
            await turn(turns)
            own = [task for task in asyncio.all_tasks() if task.get_name().startswith("pool default: c")]
            assert own
            for task in own:
                task.cancel()
            await turn()
            run.server.gate.set()
            for connection in await asyncio.wait_for(asyncio.gather(*tasks), 5):
                run.pool.discard(connection)
        assert run.pool.size == 0


async def test_a_connection_that_is_made_in_spite_of_the_pools_end_is_closed() -> None:
    class Stubborn(LineDriver):
        """Finishes what it has begun."""

        async def connect(self) -> LineConnection:
            task = asyncio.create_task(super().connect())
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                return await task

    server = LineServer()
    await server.start()
    driver = Stubborn(server)
    pool = Pool(driver)
    await pool.open()
    server.gate.clear()
    waiting = asyncio.create_task(pool.acquire())
    await until(lambda: server.connects == 1, "one is under way")
    closing = asyncio.create_task(pool.close())
    await turn()
    server.gate.set()
    await closing
    with pytest.raises(PoolClosed):
        await waiting
    assert pool.size == 0
    assert [made.state for made in driver.made] == [SessionState.CLOSED]
    await server.stop()


def test_a_loop_that_goes_on_in_another_thread_takes_its_pool_along() -> None:
    loop = asyncio.new_event_loop()
    server = LineServer()
    failures: list[BaseException] = []

    async def begin() -> Pool:
        await server.start()
        pool = Pool(LineDriver(server))
        await pool.open()
        return pool

    async def go_on(pool: Pool) -> None:
        connection = await pool.acquire()
        assert await connection.fetch("hello") == [("hello",)]
        pool.release(connection)

    async def end(pool: Pool) -> None:
        await pool.close()
        await server.stop()

    def elsewhere() -> None:
        try:
            loop.run_until_complete(go_on(pool))
        except BaseException as error:
            failures.append(error)

    pool = loop.run_until_complete(begin())
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    loop.run_until_complete(go_on(pool))
    loop.run_until_complete(end(pool))
    loop.close()
    assert failures == []
