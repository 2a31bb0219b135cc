"""Servers that die and connections that break in the middle of anything: what the caller is told, and what is left."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest
from tests.driver_cases import AnyConnection, connected, driver_for, endless, numbers_to, placed
from tests.services.databases import NAMES
from tests.services.proxy import Proxy

from covet_orm.drivers import mysql as mysql_driver
from covet_orm.drivers import postgresql as postgresql_driver
from covet_orm.drivers.protocol import SessionState
from covet_orm.exceptions import ConnectionLost, DatabaseUnavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("server", [name for name in NAMES if name != "sqlite"], indirect=True),
]


async def is_gone(connection: AnyConnection) -> None:
    """The connection knows that it is of no use any longer, and sends nothing."""
    assert connection.state in (SessionState.CLOSED, SessionState.BUSY)
    with pytest.raises(ConnectionLost) as caught:
        await connection.fetch("SELECT 1")
    assert not caught.value.sent
    await connection.close()
    assert connection.state is SessionState.CLOSED
    gc.collect()


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_server_that_ends_in_the_middle_of_a_statement(server: Any, how: str) -> None:
    driver = driver_for(server.empty_database("test"))
    connection = await driver.connect()
    idle = await driver.connect()
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await connection.fetch(endless(connection))
            assert caught.value.sent
            assert caught.value.__cause__ is not None

        tasks.start_soon(run)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(getattr(server, how))
    await is_gone(connection)
    await asyncio.sleep(0.1)
    assert idle.state is SessionState.CLOSED, "one that idled has heard of it as well"
    await is_gone(idle)
    with pytest.raises(DatabaseUnavailable):
        await driver.connect()
    await asyncio.to_thread(server.start)
    again = await driver.connect()
    assert [row[0] for row in await again.fetch("SELECT 1")] == [1]
    await again.close()


async def test_a_server_that_ends_in_the_middle_of_a_stream(server: Any) -> None:
    connection = await driver_for(server.empty_database("test")).connect()
    await connection.script("BEGIN")
    stream = connection.stream(numbers_to(connection, 5_000_000), size=1000)
    await anext(stream)
    await asyncio.to_thread(server.kill)
    with pytest.raises(ConnectionLost):
        async for _ in stream:
            pass
    await stream.aclose()
    await is_gone(connection)


async def test_a_stream_is_left_after_its_server_has_ended(server: Any) -> None:
    connection = await driver_for(server.empty_database("test")).connect()
    await connection.script("BEGIN")
    stream = connection.stream(numbers_to(connection, 5_000_000), size=10)
    await anext(stream)
    await asyncio.to_thread(server.kill)
    await stream.aclose()
    await asyncio.sleep(0.1)
    await is_gone(connection)


async def test_a_session_that_an_administrator_ends(server: Any) -> None:
    url = server.empty_database("test")
    ending = "SELECT pg_terminate_backend(%d)" if server.kind == "postgresql" else "KILL %d"
    for busy in (True, False):
        connection = await driver_for(url).connect()
        if busy:
            async with anyio.create_task_group() as tasks:

                async def run(connection: AnyConnection = connection) -> None:
                    with pytest.raises(ConnectionLost):
                        await connection.fetch(endless(connection))

                tasks.start_soon(run)
                await asyncio.sleep(0.1)
                await asyncio.to_thread(server.execute, ending % (connection.server_id or 0))
        else:
            await asyncio.to_thread(server.execute, ending % (connection.server_id or 0))
            for _ in range(100):
                if connection.state is SessionState.CLOSED:
                    break
                await asyncio.sleep(0.01)
        await is_gone(connection)


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_connection_that_breaks_after_any_byte(server: Any, direction: str, then: str) -> None:
    url = server.empty_database("test")
    async with connected(url) as direct:
        await direct.script("CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(20))")
        with Proxy(server.port) as proxy:
            driver = driver_for(proxy.url(url), connect_timeout=5)
            broke = 0
            for limit in (*range(0, 60, 3), *range(60, 3000, 61)):
                proxy.limit(**{direction: limit}, then=then)  # type: ignore[arg-type]
                if not await _work(driver, direct):
                    break
                broke += 1
                await direct.execute("DELETE FROM items")
            else:
                raise AssertionError("it never came through")
            assert broke > 20


async def _work(driver: Any, direct: AnyConnection) -> bool:
    """Connect, insert, read. Whether the connection broke meanwhile."""
    try:
        connection = await driver.connect()
    except DatabaseUnavailable:
        return True
    insert = placed(connection, "INSERT INTO items VALUES (?, ?)")
    sent, done = True, False
    try:
        await connection.execute(insert, [1, "a"])
        done = True
        await connection.execute_many(insert, [(2, "b"), (3, "c")])
        await connection.script("BEGIN")
        async for _ in connection.stream(numbers_to(connection, 20), size=7):
            pass
        await connection.query("SELECT id, name FROM items")
        await connection.script("COMMIT")
    except ConnectionLost as error:
        sent = error.sent
        await is_gone(connection)
        there = await direct.fetch("SELECT id FROM items WHERE id = 1")
        assert there or not done, "it was said to be there"
        assert sent or done or not there, "it was said that nothing had been sent"
        return True
    await connection.close()
    return False


async def test_a_server_that_falls_silent_does_not_hold_up_the_end(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (mysql_driver, postgresql_driver):
        monkeypatch.setattr(module, "CLOSE_SECONDS", 0.2)
    url = server.empty_database("test")
    with Proxy(server.port) as proxy:
        driver = driver_for(proxy.url(url), connect_timeout=1)
        interrupted, streaming, idle = [await driver.connect() for _ in range(3)]
        await streaming.script("BEGIN")
        stream = streaming.stream(numbers_to(streaming, 1_000_000), size=5)
        await anext(stream)
        proxy.stall()
        with anyio.move_on_after(0.1) as scope:
            await interrupted.fetch("SELECT 1")
        assert scope.cancelled_caught
        await stream.aclose()
        assert streaming.state in (SessionState.BUSY, SessionState.CLOSED)
        for connection in (interrupted, streaming, idle):
            await connection.close()
            assert connection.state is SessionState.CLOSED
        with pytest.raises(DatabaseUnavailable):
            await driver.connect()
    gc.collect()


async def test_a_connection_that_cannot_be_set_up_is_closed(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made at the server ends, whatever comes after that."""
    url = server.empty_database("test")
    module: Any = postgresql_driver if server.kind == "postgresql" else mysql_driver
    name = "PostgreSQLConnection" if server.kind == "postgresql" else "MySQLConnection"
    with Proxy(server.port) as proxy:

        def broken(*args: Any, **options: Any) -> None:
            assert proxy.connections == 1
            raise MemoryError

        monkeypatch.setattr(module, name, broken)
        with pytest.raises(MemoryError):
            await driver_for(proxy.url(url)).connect()
        for _ in range(1000):
            if not proxy.connections:
                break
            await asyncio.sleep(0.01)
        assert proxy.connections == 0
    gc.collect()
