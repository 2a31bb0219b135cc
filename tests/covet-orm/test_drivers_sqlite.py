"""What only SQLite has: files, pragmas, functions in Python, threads."""

from __future__ import annotations

import asyncio
import gc
import re
import sqlite3
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.driver_cases import connected, driver_for, endless, numbers_to

from covet_orm.drivers import sqlite
from covet_orm.drivers.options import SQLFunction
from covet_orm.drivers.protocol import SessionState
from covet_orm.drivers.sqlite import SQLiteConnection, SQLiteDriver
from covet_orm.exceptions import DataError, LockTimeout, ProgrammingError, ReadOnlyDatabase
from covet_orm.urls import parse_url

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that is not there yet."""
    return f"sqlite:///{tmp_path}/test.db"


async def pragma(connection: object, name: str) -> object:
    ((value,),) = await connection.fetch(f"PRAGMA {name}")  # type: ignore[attr-defined]
    return value


async def test_the_session_s_settings(url: str) -> None:
    async with connected(url) as connection:
        assert await pragma(connection, "journal_mode") == "wal"
        assert await pragma(connection, "foreign_keys") == 1
        assert await pragma(connection, "synchronous") == 1
        assert await pragma(connection, "cache_size") == -2000
        assert await pragma(connection, "query_only") == 0
    async with connected(url, foreign_keys=False, synchronous="full", journal_mode="delete") as connection:
        assert await pragma(connection, "journal_mode") == "delete"
        assert await pragma(connection, "foreign_keys") == 0
        assert await pragma(connection, "synchronous") == 2
    async with connected(url, read_only=True) as connection:
        assert await pragma(connection, "journal_mode") == "delete", "whoever only reads changes nothing"
        assert await pragma(connection, "query_only") == 1


async def test_a_file_that_may_not_be_written(url: str, tmp_path: Path) -> None:
    async with connected(url, journal_mode="delete") as connection:
        await connection.script("CREATE TABLE items (id INTEGER)")
    file = f"sqlite:///{tmp_path}/test.db"
    async with connected(file, read_only=True) as connection:
        with pytest.raises(ReadOnlyDatabase):
            await connection.execute("INSERT INTO items VALUES (1)")


async def test_a_database_in_memory_is_its_connection_s(tmp_path: Path) -> None:
    async with connected("sqlite://") as one, connected("sqlite://") as other:
        await one.script("CREATE TABLE items (id INTEGER)")
        assert await pragma(one, "journal_mode") == "memory"
        with pytest.raises(ProgrammingError):
            await other.fetch("SELECT id FROM items")
        with anyio.move_on_after(0.1):
            await one.fetch(endless(one))
        assert one.state is SessionState.IDLE
        assert await one.fetch("SELECT id FROM items") == [], "a cancelled statement does not cost the database"


async def test_functions_in_python(url: str) -> None:
    def regexp(pattern: str, text: str | None) -> bool | None:
        return None if text is None else re.search(pattern, text) is not None

    def broken() -> None:
        raise LookupError("s3cret")

    functions = (SQLFunction("regexp", 2, regexp), SQLFunction("broken", 0, broken, deterministic=False))
    async with connected(url, create_functions=functions) as connection:
        assert await connection.fetch("SELECT 'abc' REGEXP ?, NULL REGEXP 'a'", ["^a.c$"]) == [(1, None)]
        await connection.script("CREATE TABLE items (t TEXT); CREATE INDEX found ON items (regexp('a', t))")
        with pytest.raises(ProgrammingError) as caught:
            await connection.fetch("SELECT broken()")
        assert "s3cret" not in str(caught.value)


async def test_a_script_of_several_statements(url: str) -> None:
    script = """
        -- a comment; with a semicolon
        CREATE TABLE items (id INTEGER PRIMARY KEY, t TEXT DEFAULT 'a;b');
        CREATE TRIGGER twice AFTER INSERT ON items WHEN new.t <> 'copy' BEGIN
            INSERT INTO items (t) VALUES ('copy');
            SELECT 1;
        END;
        /* and ; another */ INSERT INTO items (t) VALUES ('it''s; "quoted"'); ;
        INSERT INTO items (id) VALUES (9)
    """
    async with connected(url) as connection:
        await connection.script(script)
        rows = await connection.fetch("SELECT id, t FROM items ORDER BY id")
        assert rows == [(1, 'it\'s; "quoted"'), (2, "copy"), (9, "a;b"), (10, "copy")]
        await connection.script("BEGIN; DELETE FROM items; ROLLBACK")
        assert len(await connection.fetch("SELECT id FROM items")) == 4
        await connection.script("BEGIN")
        await connection.script("DELETE FROM items; DELETE FROM items")
        assert connection.state is SessionState.TRANSACTION, "a script commits nothing by itself"
        await connection.script("ROLLBACK")
        assert len(await connection.fetch("SELECT id FROM items")) == 4
        await connection.script("  ")
        await connection.script("-- nothing")


async def test_many_open_a_new_file_at_once(url: str) -> None:
    """Each wants to be the one that sets the journal mode."""
    drivers = [driver_for(url) for _ in range(10)]
    made = await asyncio.gather(*(driver.connect() for driver in drivers))
    for connection in made:
        assert await pragma(connection, "journal_mode") == "wal"
        await connection.close()


async def test_one_waits_for_the_other_and_not_for_longer_than_it_should(url: str) -> None:
    async with connected(url) as one, connected(url) as other, connected(url, busy_timeout=0) as hurried:
        await one.script("CREATE TABLE items (id INTEGER)")
        await one.script("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.execute, "INSERT INTO items VALUES (1)")
            await asyncio.sleep(0.1)
            assert other.state is SessionState.BUSY
            with pytest.raises(LockTimeout, match="busy_timeout"):
                await hurried.execute("INSERT INTO items VALUES (2)")
            assert await hurried.fetch("SELECT id FROM items") == [], "readers wait for nobody"
            await one.script("COMMIT")
        assert await one.fetch("SELECT id FROM items") == [(1,)]


async def test_a_statement_that_waits_for_a_lock_can_run_out_of_time(url: str) -> None:
    from covet_orm.exceptions import StatementTimeout

    async with connected(url) as one, connected(url, statement_timeout=0.2, busy_timeout=30) as other:
        await one.script("BEGIN IMMEDIATE")
        with pytest.raises(StatementTimeout, match="statement_timeout"):
            await other.script("BEGIN IMMEDIATE")
        assert other.state is SessionState.IDLE
        await one.script("ROLLBACK")
        await other.script("BEGIN IMMEDIATE")
        await other.script("ROLLBACK")


async def test_statements_run_between_the_chunks_of_a_stream(url: str) -> None:
    async with connected(url) as connection:
        await connection.script("CREATE TABLE items (id INTEGER)")
        async for chunk in connection.stream(numbers_to(connection, 30), size=10):
            await connection.execute_many("INSERT INTO items VALUES (?)", chunk)
        assert await connection.fetch("SELECT count(*) FROM items") == [(30,)]


async def test_a_text_that_is_no_text(url: str) -> None:
    from covet_orm.exceptions import DatabaseError

    async with connected(url) as connection:
        with pytest.raises(DatabaseError):
            await connection.fetch("SELECT CAST(x'ff' AS TEXT)")
        assert connection.state is SessionState.IDLE


async def test_a_connection_that_cannot_be_set_up_is_closed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened is closed, whatever comes after that, and its thread ends."""

    class Broken(SQLiteConnection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            raise MemoryError

    before = set(threading.enumerate())
    monkeypatch.setattr(sqlite, "SQLiteConnection", Broken)
    with pytest.raises(MemoryError):
        await driver_for(url, journal_mode="delete").connect()
    monkeypatch.undo()
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
    async with connected(url, journal_mode="delete", busy_timeout=0) as alone:
        await alone.script("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; COMMIT")


def test_a_loop_that_ends_before_the_thread_does(url: str) -> None:
    """Nobody is there any longer to be told of the end of a statement; the thread ends in peace, the file is closed."""
    gate = threading.Event()

    async def leave() -> None:
        function = SQLFunction("wait_for_gate", 0, lambda: gate.wait(30))
        connection = await driver_for(url, create_functions=(function,)).connect()
        with anyio.move_on_after(0.05):
            await connection.fetch("SELECT wait_for_gate()")
        connection.terminate()

    asyncio.run(leave())
    gate.set()
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(10)
            assert not thread.is_alive()
    gc.collect()
    path = parse_url(url).database
    alone = sqlite3.connect(path, timeout=0)
    alone.execute("PRAGMA locking_mode = exclusive")
    alone.execute("BEGIN EXCLUSIVE")
    alone.close()


async def test_a_missing_driver_is_told_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    from covet.exceptions import ConfigurationError

    for module, driver, extra in (
        ("asyncpg", "postgresql", "postgresql"),
        ("aiomysql", "mysql", "mysql"),
        ("aiosqlite", "sqlite", "sqlite"),
    ):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            for name in [name for name in sys.modules if name.startswith("covet_orm.drivers.")]:
                without.delitem(sys.modules, name)
            with pytest.raises(ConfigurationError, match=rf"pip install 'covet-orm\[{extra}\]'"):
                importlib.import_module(f"covet_orm.drivers.{driver}")


def test_the_options_have_defaults(url: str) -> None:
    assert SQLiteDriver(parse_url(url)).options.busy_timeout == 5.0


async def test_a_refused_parameter_is_not_taken_for_the_error_before(url: str) -> None:
    async with connected(url) as connection:
        for value in (2**70, "\ud800", object()):
            with pytest.raises(ProgrammingError, match="syntax"):
                await connection.fetch("SELEC 1")
            with pytest.raises(DataError):
                await connection.fetch("SELECT ?", [value])
