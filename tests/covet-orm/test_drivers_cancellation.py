"""Cancelled at every await of every method: what the connection says of itself afterwards is true."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from tests.driver_cases import AnyConnection, AnyDriver, connected, driver_for, endless, numbers_to, placed, slow
from tests.services.databases import NAMES

from covet.testing.conformance.faults import at_every_await
from covet_orm.drivers.postgresql import PostgreSQLConnection
from covet_orm.drivers.protocol import SessionState
from covet_orm.drivers.sqlite import SQLiteConnection
from covet_orm.exceptions import ConnectionLost, DatabaseError, UniqueViolation

pytestmark = pytest.mark.anyio
on_servers = pytest.mark.parametrize("server", [name for name in NAMES if name != "sqlite"], indirect=True)

Method = Callable[[AnyConnection], Awaitable[object]]


async def streamed(connection: AnyConnection) -> None:
    await connection.script("BEGIN")
    async for _ in connection.stream(numbers_to(connection, 25), size=10):
        pass


async def left_early(connection: AnyConnection) -> None:
    await connection.script("BEGIN")
    stream = connection.stream(numbers_to(connection, 2000), size=10)
    try:
        await anext(stream)
    finally:
        await stream.aclose()


async def refused(connection: AnyConnection) -> None:
    with contextlib.suppress(DatabaseError):
        await connection.fetch(placed(connection, "SELECT name FROM items WHERE id = ?"), [object()])


async def refused_in_a_transaction(connection: AnyConnection) -> None:
    await connection.script("BEGIN")
    with contextlib.suppress(UniqueViolation):
        await connection.execute(placed(connection, "INSERT INTO items VALUES (?, 'a')"), [1])


METHODS: dict[str, Method] = {
    "fetch": lambda it: it.fetch(placed(it, "SELECT name FROM items WHERE id = ?"), [1]),
    "fetch of many": lambda it: it.fetch(numbers_to(it, 3000)),
    "query": lambda it: it.query("SELECT name FROM items WHERE id = 7"),
    "execute": lambda it: it.execute(placed(it, "INSERT INTO items VALUES (?, 'b')"), [2]),
    "insert": lambda it: it.insert(placed(it, "INSERT INTO items VALUES (?, 'b')"), [2]),
    "execute_many": lambda it: it.execute_many(placed(it, "INSERT INTO items VALUES (?, 'b')"), [(2,), (3,)]),
    "script": lambda it: it.script("UPDATE items SET name = 'c'"),
    "begin": lambda it: it.script("BEGIN"),
    "stream": streamed,
    "stream left early": left_early,
    "refused": refused,
    "refused in a transaction": refused_in_a_transaction,
}


async def test_the_state_after_it_is_true(url: str) -> None:
    driver = driver_for(url)
    async with connected(url) as connection:
        await connection.script("CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(10))")
        await connection.script("INSERT INTO items VALUES (1, 'a')")
    for name, method in METHODS.items():
        await _at_every_await(driver, name, method)
    gc.collect()


async def _at_every_await(driver: AnyDriver, name: str, method: Method) -> None:
    connection = await driver.connect()
    states = set()

    async def call() -> None:
        await method(connection)

    async def check() -> None:
        nonlocal connection
        state = connection.state
        states.add(state)
        if state in (SessionState.BUSY, SessionState.CLOSED):
            with pytest.raises(ConnectionLost) as caught:
                await connection.fetch("SELECT 1")
            assert not caught.value.sent
        else:
            await _agrees(connection, state, name)
        await connection.close()
        assert connection.state is SessionState.CLOSED
        connection = await driver.connect()
        await connection.script("DELETE FROM items WHERE id > 1")

    try:
        assert await at_every_await(call, check) > 0 or name == "refused"
    finally:
        await connection.close()
    if isinstance(connection, SQLiteConnection):
        assert SessionState.BUSY not in states, "an interrupted statement of SQLite leaves the connection at rest"


async def _agrees(connection: AnyConnection, state: SessionState, name: str) -> None:
    """What a connection at rest says of its session is what the session says."""
    if state is SessionState.FAILED:
        await connection.script("ROLLBACK")
    elif state is SessionState.TRANSACTION:
        await connection.execute("UPDATE items SET name = 'dirty' WHERE id = 1")
        await connection.script("ROLLBACK")
        assert connection.state is SessionState.IDLE, name
    assert [row[0] for row in await connection.fetch("SELECT 1")] == [1], name
    rows = await connection.fetch("SELECT name FROM items WHERE id = 1")
    assert rows[0][0] != "dirty", "there was no transaction"
    assert [row[0] for row in await connection.fetch(numbers_to(connection, 3))] == [1, 2, 3], name


def sessions(server: Any) -> list[int]:
    """The sessions of a server, the one that asks left out."""
    if server.kind == "postgresql":
        sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    else:
        sql = "SELECT id FROM information_schema.processlist WHERE user = 'covet' AND id <> CONNECTION_ID()"
    rows = [tuple(row.values()) if isinstance(row, dict) else row for row in server.execute(sql)]
    return [row[0] for row in rows]


async def no_session(server: Any) -> None:
    """Wait until a server has none left."""
    for _ in range(100):
        there = await asyncio.to_thread(sessions, server)
        if not there:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"there are sessions left: {there}")


@on_servers
async def test_connecting_leaves_no_connection_behind(server: Any) -> None:
    driver = driver_for(server.empty_database("test"))
    await no_session(server)
    made: list[AnyConnection] = []

    async def connect() -> None:
        made.append(await driver.connect())

    async def check() -> None:
        while made:
            await made.pop().close()
        gc.collect()
        await no_session(server)

    assert await at_every_await(connect, check) > 3


async def test_opening_a_file_leaves_nothing_behind(tmp_path: Any) -> None:
    driver = driver_for(f"sqlite:///{tmp_path}/test.db")
    made: list[AnyConnection] = []

    async def connect() -> None:
        made.append(await driver.connect())

    async def check() -> None:
        while made:
            await made.pop().close()
        await no_threads()
        # Nobody has the file open: it can be locked for oneself.
        alone = sqlite3.connect(tmp_path / "test.db", timeout=0)
        alone.execute("PRAGMA locking_mode = exclusive")
        alone.execute("BEGIN EXCLUSIVE")
        alone.close()

    assert await at_every_await(connect, check) > 0


async def no_threads() -> None:
    """Wait until no thread of a connection is left."""
    for _ in range(100):
        left = [thread for thread in threading.enumerate() if "_connection_worker_thread" in thread.name]
        if not left:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"there are threads left: {left}")


async def test_closing_closes(url: str) -> None:
    driver = driver_for(url)
    connection = await driver.connect()

    async def call() -> None:
        await connection.close()

    async def check() -> None:
        nonlocal connection
        assert connection.state is SessionState.CLOSED or isinstance(connection, SQLiteConnection)
        await connection.close()
        connection = await driver.connect()

    assert await at_every_await(call, check) > 0
    await connection.close()
    assert connection.state is SessionState.CLOSED
    await no_threads()


@on_servers
async def test_closing_ends_what_the_server_still_does(server: Any) -> None:
    url = server.empty_database("test")
    connection = await driver_for(url).connect()
    with anyio.move_on_after(0.2):
        await connection.fetch(endless(connection))
    assert connection.state in (SessionState.BUSY, SessionState.CLOSED)
    await connection.close()
    await no_session(server)


async def test_terminating_in_the_middle_of_a_statement(url: str) -> None:
    connection = await driver_for(url).connect()
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with pytest.raises(ConnectionLost):
                await connection.fetch(slow(connection, 2))

        tasks.start_soon(run)
        await asyncio.sleep(0.1)
        connection.terminate()
        connection.terminate()
    for _ in range(100):
        if connection.state is SessionState.CLOSED:
            break
        await asyncio.sleep(0.02)
    assert connection.state is SessionState.CLOSED
    await connection.close()
    await no_threads()


async def test_a_statement_of_sqlite_that_waits_for_a_lock_can_be_cancelled(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    async with connected(url) as one, connected(url, busy_timeout=60) as other:
        await one.script("CREATE TABLE items (id INTEGER)")
        await one.script("BEGIN IMMEDIATE")
        with anyio.move_on_after(0.1) as scope:
            await other.script("BEGIN IMMEDIATE")
        assert scope.cancelled_caught
        assert other.state is SessionState.IDLE
        await one.script("COMMIT")
        await other.script("BEGIN IMMEDIATE")
        assert other.state is SessionState.TRANSACTION


async def test_a_write_of_sqlite_that_was_interrupted_takes_its_transaction_with_it(tmp_path: Any) -> None:
    async with connected(f"sqlite:///{tmp_path}/test.db") as connection:
        await connection.script("CREATE TABLE items (id INTEGER)")
        await connection.script("BEGIN")
        await connection.execute("INSERT INTO items VALUES (1)")
        with anyio.move_on_after(0.2):
            numbers = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT n FROM s"
            await connection.execute(f"INSERT INTO items {numbers}")
        assert connection.state is SessionState.IDLE
        assert await connection.fetch("SELECT count(*) FROM items") == [(0,)]


async def test_a_function_in_python_that_does_not_end_leaves_the_connection_busy(tmp_path: Any) -> None:
    from covet_orm.drivers.options import SQLFunction

    gate = threading.Event()
    function = SQLFunction("wait_for_gate", 0, lambda: gate.wait(30))
    async with connected(f"sqlite:///{tmp_path}/test.db", create_functions=(function,)) as connection:
        with anyio.move_on_after(0.1):
            await connection.fetch("SELECT wait_for_gate()")
        assert connection.state is SessionState.BUSY
        with pytest.raises(ConnectionLost):
            await connection.fetch("SELECT 1")
        gate.set()
    await no_threads()


async def test_postgresql_is_told_what_is_not_wanted_any_longer(postgresql: Any) -> None:
    """asyncpg leaves a statement half-prepared when it refuses a parameter; the server would keep its locks."""
    url = postgresql.empty_database("test")
    async with connected(url) as connection, connected(url) as other:
        assert isinstance(connection, PostgreSQLConnection)
        await connection.script("CREATE TABLE items (id INTEGER)")
        for params in (["text"], [], [1, 2]):
            with pytest.raises(Exception, match="parameter"):
                await connection.fetch("SELECT id FROM items WHERE id = $1", params)
            assert connection.state is SessionState.IDLE
            assert await connection.query(f"SELECT id, {len(params)} FROM items") == (("id", "?column?"), [])
            held = await other.fetch("SELECT mode FROM pg_locks WHERE pid = $1", [connection.server_id])
            assert held == []
