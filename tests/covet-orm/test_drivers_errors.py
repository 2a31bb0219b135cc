"""Every error that the drivers translate, provoked on each database that has it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from tests.driver_cases import AnyConnection, connected, driver_for, endless, placed, slow
from tests.services.databases import NAMES
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

from covet.exceptions import CovetError
from covet_orm.drivers.protocol import SessionState
from covet_orm.exceptions import (
    CheckViolation,
    DatabaseError,
    DatabaseUnavailable,
    DataError,
    DeadlockDetected,
    ExclusionViolation,
    ForeignKeyViolation,
    IntegrityError,
    LockTimeout,
    NotNullViolation,
    ProgrammingError,
    SerializationFailure,
    StatementTimeout,
    UniqueViolation,
)

pytestmark = pytest.mark.anyio

SECRET = "s3cret-v4lue"
on_servers = pytest.mark.parametrize("server", [name for name in NAMES if name != "sqlite"], indirect=True)


@pytest.fixture
async def connection(url: str) -> AsyncIterator[AnyConnection]:
    async with connected(url, lock_timeout=1) if not url.startswith("sqlite") else connected(url) as made:
        yield made
        assert made.state is SessionState.IDLE, "an error outside of a transaction leaves the connection at rest"


async def refused(connection: AnyConnection, expected: type[DatabaseError], sql: str, *params: Any) -> Any:
    """The error, of exactly this class, with all that it must have, and no value of a row in its message."""
    placed_sql = placed(connection, sql)
    with pytest.raises(DatabaseError) as caught:
        await connection.execute(placed_sql, params)
    error = caught.value
    assert type(error) is expected
    assert isinstance(error, CovetError)
    assert error.__cause__ is not None
    assert error.statement == placed_sql
    assert SECRET not in str(error)
    return error


async def make_tables(connection: AnyConnection) -> None:
    engine = {"PostgreSQLConnection": "", "SQLiteConnection": ""}.get(type(connection).__name__, " ENGINE=InnoDB")
    for statement in (
        "CREATE TABLE owners (id INTEGER PRIMARY KEY)",
        "CREATE TABLE items (id INTEGER NOT NULL, part INTEGER NOT NULL, name VARCHAR(50) NOT NULL, price INTEGER, "
        "owner INTEGER, CONSTRAINT items_pk PRIMARY KEY (id, part), CONSTRAINT name_once UNIQUE (name), "
        "CONSTRAINT price_above_zero CHECK (price > 0), "
        "CONSTRAINT owner_is_there FOREIGN KEY (owner) REFERENCES owners (id))",
    ):
        await connection.script(statement + engine)


async def test_a_unique_constraint(connection: AnyConnection) -> None:
    await make_tables(connection)
    await connection.execute(placed(connection, "INSERT INTO items VALUES (1, 1, ?, 1, NULL)"), [SECRET])
    error = await refused(connection, UniqueViolation, "INSERT INTO items VALUES (2, 1, ?, 1, NULL)", SECRET)
    sqlite, mysql = type(connection).__name__ == "SQLiteConnection", type(connection).__name__ == "MySQLConnection"
    assert error.constraint == ("" if sqlite else "name_once")
    assert error.columns == (() if mysql else ("name",))
    assert error.table in (("items", "") if mysql else ("items",))
    error = await refused(connection, UniqueViolation, "INSERT INTO items VALUES (1, 1, 'other', 1, NULL)")
    assert error.columns == (() if mysql else ("id", "part"))
    assert error.constraint == ("" if sqlite else "PRIMARY" if mysql else "items_pk")


async def test_a_foreign_key_from_both_sides(connection: AnyConnection) -> None:
    await make_tables(connection)
    await connection.execute("INSERT INTO owners VALUES (1)")
    await connection.execute("INSERT INTO items VALUES (1, 1, 'a', 1, 1)")
    error = await refused(connection, ForeignKeyViolation, "INSERT INTO items VALUES (2, 1, 'b', 1, ?)", 7)
    if type(connection).__name__ != "SQLiteConnection":
        assert (error.table, error.constraint, error.columns) == ("items", "owner_is_there", ("owner",))
    error = await refused(connection, ForeignKeyViolation, "DELETE FROM owners")
    if type(connection).__name__ != "SQLiteConnection":
        assert error.constraint == "owner_is_there"


async def test_a_column_that_must_have_a_value(connection: AnyConnection) -> None:
    await make_tables(connection)
    error = await refused(connection, NotNullViolation, "INSERT INTO items VALUES (1, 1, ?, 1, NULL)", None)
    assert error.columns == ("name",)
    assert error.constraint == ""
    if type(connection).__name__ != "MySQLConnection":
        assert error.table == "items"
    error = await refused(connection, NotNullViolation, "INSERT INTO items (id, part) VALUES (1, 1)")
    assert error.columns == ("name",)


async def test_a_check_constraint(connection: AnyConnection) -> None:
    await make_tables(connection)
    error = await refused(connection, CheckViolation, "INSERT INTO items VALUES (1, 1, 'a', ?, NULL)", -1)
    assert error.constraint == "price_above_zero"
    if type(connection).__name__ != "SQLiteConnection":
        assert error.table == "items"


async def test_names_that_need_quoting_come_back_as_they_are(connection: AnyConnection) -> None:
    quote = "`" if type(connection).__name__ == "MySQLConnection" else '"'
    table, column, other = (f"{quote}{name}{quote}" for name in ("the items", 'a, "b" (c)'.replace('"', ""), "d=e"))
    await connection.script(
        f"CREATE TABLE {table} ({column} INTEGER NOT NULL, {other} INTEGER, UNIQUE ({column}, {other}))"
    )
    await connection.execute(f"INSERT INTO {table} VALUES (1, 2)")
    error = await refused(connection, UniqueViolation, f"INSERT INTO {table} VALUES (1, 2)")
    if type(connection).__name__ == "PostgreSQLConnection":
        assert error.columns == ("a, b (c)", "d=e")
        assert error.table == "the items"
    error = await refused(connection, NotNullViolation, f"INSERT INTO {table} VALUES (NULL, 2)")
    assert error.columns == ("a, b (c)",)


async def test_a_statement_that_is_wrong(connection: AnyConnection) -> None:
    await make_tables(connection)
    for sql in (
        "SELEC 1",
        "SELECT nothing FROM items",
        "SELECT * FROM nowhere",
        "INSERT INTO items (nothing) VALUES (1)",
        "SELECT no_such_function(1)",
        "CREATE TABLE owners (id INTEGER)",
        "",
    ):
        if sql or type(connection).__name__ == "MySQLConnection":
            await refused(connection, ProgrammingError, sql)
    error = await refused(connection, ProgrammingError, "SELECT nothing FROM items")
    assert "nothing" in str(error)
    error = await refused(connection, ProgrammingError, "SELECT * FROM nowhere WHERE 'a' = ?", SECRET)
    assert "nowhere" in str(error)
    await refused(connection, ProgrammingError, "SELECT ? FROM FROM items", SECRET)


async def test_a_wrong_number_of_parameters(connection: AnyConnection) -> None:
    await make_tables(connection)
    for params in ([], [1], [1, 2, 3]):
        with pytest.raises(ProgrammingError, match=r"parameters|Incorrect|not all|refused|binding"):
            await connection.fetch(placed(connection, "SELECT id FROM items WHERE id = ? AND part = ?"), params)
        assert connection.state is SessionState.IDLE
    with pytest.raises(DatabaseError):
        await connection.fetch("SELECT 1", [1])


async def test_several_statements_are_not_one(connection: AnyConnection) -> None:
    await make_tables(connection)
    with pytest.raises(ProgrammingError):
        await connection.fetch("SELECT 1; DELETE FROM items")
    with pytest.raises(ProgrammingError):
        await connection.execute(placed(connection, "SELECT ?; DELETE FROM items"), [1])


async def test_a_value_that_does_not_fit(connection: AnyConnection) -> None:
    await connection.script("CREATE TABLE small (n SMALLINT, t VARCHAR(5), d DATE)")
    await refused(connection, DataError, "INSERT INTO small (n) VALUES (?)", 2**70)
    await refused(connection, DataError, "INSERT INTO small (t) VALUES (?)", f"{SECRET}\ud800")
    await refused(connection, DataError, "INSERT INTO small (t) VALUES (?)", object())
    if type(connection).__name__ == "SQLiteConnection":
        return  # its columns take any value
    await refused(connection, DataError, "INSERT INTO small (n) VALUES (?)", 2**15)
    await refused(connection, DataError, "INSERT INTO small (n) VALUES (?)", SECRET)
    await refused(connection, DataError, "INSERT INTO small (t) VALUES (?)", SECRET)
    await refused(connection, DataError, "INSERT INTO small (d) VALUES (?)", SECRET)
    await refused(connection, DataError, "INSERT INTO small (n) VALUES (1/0)")


async def test_a_statement_timeout(url: str) -> None:
    async with connected(url, statement_timeout=0.2) as connection:
        error = await refused(connection, StatementTimeout, endless(connection))
        assert isinstance(error, TimeoutError)
        assert "statement_timeout" in str(error)
        assert connection.state is SessionState.IDLE
        assert len(await connection.fetch("SELECT 1")) == 1


async def test_a_lock_that_is_not_to_be_had(url: str) -> None:
    options: dict[str, Any] = {"busy_timeout": 0.2} if url.startswith("sqlite") else {"lock_timeout": 1}
    async with connected(url, **options) as one, connected(url, **options) as other:
        await make_tables(one)
        await one.execute("INSERT INTO owners VALUES (1)")
        await one.script("BEGIN")
        await one.execute("UPDATE owners SET id = 2")
        error = await refused(other, LockTimeout, "UPDATE owners SET id = 3")
        assert isinstance(error, TimeoutError)
        assert other.state is SessionState.IDLE
        await one.script("ROLLBACK")
        assert await other.execute("UPDATE owners SET id = 3") == 1


@on_servers
async def test_a_deadlock_and_what_it_leaves(server: Any) -> None:
    url = server.empty_database("test")
    async with connected(url) as one, connected(url) as other:
        await make_tables(one)
        await one.execute("INSERT INTO owners VALUES (1)")
        await one.execute("INSERT INTO owners VALUES (2)")
        for connection, row in ((one, 1), (other, 2)):
            await connection.script("BEGIN")
            await connection.execute(placed(connection, "UPDATE owners SET id = id WHERE id = ?"), [row])
        errors: list[tuple[AnyConnection, Exception]] = []

        async def update(connection: AnyConnection, row: int) -> None:
            try:
                await connection.execute(placed(connection, "UPDATE owners SET id = id WHERE id = ?"), [row])
            except DatabaseError as error:
                errors.append((connection, error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(update, one, 2)
            tasks.start_soon(update, other, 1)
        ((loser, error),) = errors
        assert type(error) is DeadlockDetected
        # MariaDB has rolled the transaction back; PostgreSQL waits for the ROLLBACK.
        assert loser.state is (SessionState.IDLE if server.kind == "mariadb" else SessionState.FAILED)
        for connection in (one, other):
            await connection.script("ROLLBACK")
            assert connection.state is SessionState.IDLE


async def test_a_serialization_failure(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    async with connected(url) as one, connected(url) as other:
        await make_tables(one)
        await one.execute("INSERT INTO owners VALUES (1)")
        for connection in (one, other):
            await connection.script("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await connection.fetch("SELECT id FROM owners")
        await one.execute("UPDATE owners SET id = 2")
        await one.script("COMMIT")
        await refused(other, SerializationFailure, "UPDATE owners SET id = 3")
        await other.script("ROLLBACK")


async def test_a_serialization_failure_of_sqlite(databases: Any, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    async with connected(url) as one, connected(url) as other:
        await one.script("CREATE TABLE owners (id INTEGER PRIMARY KEY)")
        await other.script("BEGIN")
        await other.fetch("SELECT id FROM owners")
        await one.execute("INSERT INTO owners VALUES (1)")
        error = await refused(other, SerializationFailure, "INSERT INTO owners VALUES (2)")
        assert error.code == "SQLITE_BUSY_SNAPSHOT"
        await other.script("ROLLBACK")


@on_servers
async def test_a_lock_with_nowait(server: Any) -> None:
    url = server.empty_database("test")
    async with connected(url) as one, connected(url) as other:
        await make_tables(one)
        await one.execute("INSERT INTO owners VALUES (1)")
        await one.script("BEGIN")
        await one.fetch("SELECT id FROM owners FOR UPDATE")
        await refused(other, LockTimeout, "SELECT id FROM owners FOR UPDATE NOWAIT")
        await one.script("ROLLBACK")


async def test_an_exclusion_constraint(postgresql: PostgreSQL) -> None:
    async with connected(postgresql.empty_database("test")) as connection:
        await connection.script(
            "CREATE TABLE booked (d int4range, CONSTRAINT no_overlap EXCLUDE USING gist (d WITH &&))"
        )
        await connection.execute("INSERT INTO booked VALUES ('[1,5)')")
        error = await refused(connection, ExclusionViolation, "INSERT INTO booked VALUES ('[2,3)')")
        assert (error.table, error.constraint, error.columns) == ("booked", "no_overlap", ("d",))


async def test_a_deferred_constraint_fails_the_commit(postgresql: PostgreSQL) -> None:
    async with connected(postgresql.empty_database("test")) as connection:
        await connection.script(
            "CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES a DEFERRABLE INITIALLY DEFERRED)"
        )
        await connection.script("BEGIN")
        await connection.execute("INSERT INTO a VALUES (1, 2)")
        with pytest.raises(ForeignKeyViolation):
            await connection.script("COMMIT")
        assert connection.state is SessionState.IDLE


async def test_the_words_of_a_trigger(server: Any) -> None:
    bodies = {
        "sqlite": ["CREATE TRIGGER never BEFORE INSERT ON owners BEGIN SELECT RAISE(ABORT, 'not today'); END;"],
        "postgresql": [
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not today''; END'",
            "CREATE TRIGGER never BEFORE INSERT ON owners FOR EACH ROW EXECUTE FUNCTION never()",
        ],
        "mariadb": [
            "CREATE TRIGGER never BEFORE INSERT ON owners FOR EACH ROW "
            "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not today'"
        ],
    }
    async with connected(server.empty_database("test")) as connection:
        await make_tables(connection)
        for statement in bodies[server.kind]:
            await connection.script(statement)
        expected = IntegrityError if server.kind == "sqlite" else DatabaseError
        error = await refused(connection, expected, "INSERT INTO owners VALUES (1)")
        assert "not today" in str(error)


async def test_what_a_message_of_mariadb_may_cite(mariadb: MariaDB) -> None:
    """Its statement holds the values; its words are given on where there are none, or where they name objects."""
    async with connected(mariadb.empty_database("test")) as connection:
        await make_tables(connection)
        for sql in (
            "SELECT CAST(? AS DATE) + INTERVAL 1 DAY FROM owners WHERE id = ? BROKEN",
            "SELECT ST_GeomFromText(?), ? FROM dual",
            "SELECT JSON_VALUE('{', ?), EXTRACTVALUE(?, '/a')",
            "INSERT INTO items (id, part, name) VALUES (?, 1, ?)",
            "UPDATE owners SET id = ? WHERE id = CAST(? AS SIGNED)",
        ):
            told = ""
            try:
                await connection.execute(placed(connection, sql), [SECRET, SECRET])
            except DatabaseError as error:
                told = str(error)
            assert SECRET not in told, sql


@pytest.mark.parametrize("what", ["password", "user", "database", "refused", "host"])
async def test_a_connection_that_cannot_be_made(server: Any, what: str, tmp_path: Any) -> None:
    if server.kind == "sqlite":
        wrong = {
            "password": f"sqlite:///{tmp_path}",  # a directory
            "user": f"sqlite:///{tmp_path}/nowhere/a.db",
            "database": f"sqlite:///{tmp_path}/text.db",
            "refused": f"sqlite:///{tmp_path}/text.db",
            "host": f"sqlite:///{tmp_path}/text.db",
        }[what]
        (tmp_path / "text.db").write_text("no database at all " * 1000)
        with pytest.raises(DatabaseUnavailable, match=str(tmp_path)):
            await driver_for(wrong).connect()
        return
    url = server.url("test")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    scheme, _ = url.split("://")
    wrong = {
        "password": url.replace(":secret@", ":wr0ng-secret@"),
        "user": url.replace("covet:", "nobody:"),
        "database": f"{url[: url.rindex('/')]}/nowhere",
        "refused": f"{scheme}://covet:secret@127.0.0.1:{closed}/test",
        "host": f"{scheme}://covet:secret@nowhere.invalid/test",
    }[what]
    with pytest.raises(DatabaseUnavailable) as caught:
        await driver_for(wrong).connect()
    error = caught.value
    assert "secret" not in str(error)
    assert ("nowhere.invalid" if what == "host" else "127.0.0.1") in str(error)
    assert error.__cause__ is not None
    hint = {
        "password": "password",
        "user": "nobody",
        "database": "no such database",
        "refused": "Connect",
        "host": "not",
    }
    assert hint[what] in str(error)


@on_servers
async def test_a_server_that_does_not_answer(server: Any) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        scheme = "postgresql" if server.kind == "postgresql" else "mariadb"
        with pytest.raises(DatabaseUnavailable, match="connect_timeout"):
            await driver_for(f"{scheme}://a:secret@127.0.0.1:{deaf.getsockname()[1]}/b", connect_timeout=0.1).connect()


@on_servers
async def test_a_statement_ended_by_somebody(server: Any) -> None:
    async with connected(server.empty_database("test")) as connection:
        ending = ("SELECT pg_cancel_backend(%d)" if server.kind == "postgresql" else "KILL QUERY %d") % (
            connection.server_id or 0
        )

        async def end() -> None:
            await anyio.sleep(0.1)
            await anyio.to_thread.run_sync(server.execute, ending)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            await refused(connection, StatementTimeout, endless(connection))
        assert connection.state is SessionState.IDLE
        assert slow(connection)
