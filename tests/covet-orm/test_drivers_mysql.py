"""What only MySQL and MariaDB have: their handshake, TLS, one statement at a time."""

from __future__ import annotations

import asyncio
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from pymysql.err import OperationalError
from tests.driver_cases import connected, driver_for
from tests.services.https import Certificate
from tests.services.mariadb import MariaDB

from covet_orm.drivers.errors_mysql import translate
from covet_orm.drivers.mysql import MySQLConnection, MySQLDriver
from covet_orm.drivers.protocol import SessionState
from covet_orm.exceptions import (
    CheckViolation,
    ConnectionLost,
    DatabaseError,
    DatabaseUnavailable,
    DeadlockDetected,
    ForeignKeyViolation,
    IntegrityError,
    LockTimeout,
    NotNullViolation,
    ProgrammingError,
    ReadOnlyDatabase,
    StatementTimeout,
    UniqueViolation,
)

pytestmark = pytest.mark.anyio

PASSWORD = "s3cret-passw0rd"


async def test_the_session_s_settings(mariadb: MariaDB) -> None:
    url = mariadb.empty_database("test")
    async with connected(url, lock_timeout=3, statement_timeout=1.5, application_name="shop") as connection:
        variables = (
            "@@time_zone, @@autocommit, @@innodb_lock_wait_timeout, @@max_statement_time, @@character_set_client"
        )
        assert await connection.fetch(f"SELECT {variables}") == [("+00:00", 1, 3, 1.5, "utf8mb4")]
        ((modes,),) = await connection.fetch("SELECT @@sql_mode")
        assert {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "NO_ZERO_DATE"} <= set(modes.split(","))
        assert await connection.fetch("SELECT @@collation_connection = @@collation_database") in ([(1,)], [(0,)])


async def test_which_of_the_two_it_is_is_known_after_the_first_connection(mariadb: MariaDB) -> None:
    driver = driver_for(mariadb.empty_database("test").replace("mariadb://", "mysql://"))
    assert isinstance(driver, MySQLDriver)
    assert (driver.kind, driver.server_version) == ("mysql", "")
    connection = await driver.connect()
    assert driver.kind == "mariadb"
    assert "MariaDB" in driver.server_version
    await connection.close()


async def test_a_file_of_the_client_is_not_given(mariadb: MariaDB, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("secret\n")
    mariadb.execute("SET GLOBAL local_infile = 1")
    async with connected(mariadb.empty_database("test")) as connection:
        await connection.script("CREATE TABLE stolen (line TEXT)")
        with pytest.raises(ProgrammingError):
            await connection.script(f"LOAD DATA LOCAL INFILE '{tmp_path}/secrets' INTO TABLE stolen")
        assert await connection.fetch("SELECT line FROM stolen") == []


async def test_a_procedure_with_several_results_leaves_the_connection_at_rest(mariadb: MariaDB) -> None:
    async with connected(mariadb.empty_database("test")) as connection:
        await connection.script("CREATE PROCEDURE two() BEGIN SELECT 1; SELECT 2 UNION SELECT 3; END")
        assert await connection.fetch("CALL two()") == [(1,)]
        assert await connection.fetch("SELECT 4") == [(4,)]
        await connection.script("CREATE PROCEDURE wrong() BEGIN SELECT 1; SELECT * FROM nowhere; END")
        with pytest.raises(ProgrammingError, match="nowhere"):
            await connection.fetch("CALL wrong()")
        assert await connection.fetch("SELECT 4") == [(4,)]
        assert connection.state is SessionState.IDLE
        assert [chunk async for chunk in connection.stream("SELECT 5")] == [[(5,)]]


async def test_an_error_that_keeps_the_transaction_and_one_that_does_not(mariadb: MariaDB) -> None:
    url = mariadb.empty_database("test")
    async with connected(url, lock_timeout=1) as one, connected(url, lock_timeout=1) as other:
        await one.script("CREATE TABLE items (id INTEGER PRIMARY KEY) ENGINE=InnoDB")
        await one.execute("INSERT INTO items VALUES (1)")
        for connection in (one, other):
            await connection.script("BEGIN")
        await one.execute("UPDATE items SET id = 2")
        with pytest.raises(LockTimeout):
            await other.execute("UPDATE items SET id = 3")
        assert other.state is SessionState.TRANSACTION, "only the statement was rolled back"
        await other.script("CREATE TABLE others (id INTEGER)")
        assert other.state is SessionState.IDLE, "DDL commits"
        await one.script("ROLLBACK")


async def test_a_unix_socket(mariadb: MariaDB) -> None:
    mariadb.empty_database("test")
    async with connected(f"mariadb://root@/test?socket={mariadb.socket}") as connection:
        assert await connection.fetch("SELECT current_user()") == [("root@localhost",)]


async def test_a_stream_without_an_end_that_is_left_is_ended_by_the_server(mariadb: MariaDB) -> None:
    async with connected(mariadb.empty_database("test")) as connection:
        await connection.script("BEGIN")
        select = "SELECT seq, REPEAT('x', 200) FROM seq_1_to_1000000000"
        stream = connection.stream(select, size=10)
        assert len(await anext(stream)) == 10
        await stream.aclose()
        assert connection.state is SessionState.TRANSACTION
        assert await connection.fetch("SELECT 1") == [(1,)]
        for length in (0, 250, 60_000, 10_000_000):
            stream = connection.stream("SELECT REPEAT('\\xfe', %s) FROM seq_1_to_5", [length], size=1)
            await anext(stream)
            await stream.aclose()
            assert connection.state is SessionState.TRANSACTION


# TLS


@pytest.fixture
def secured() -> Iterator[tuple[MariaDB, str]]:
    """A server that offers TLS, and the file with its certificate."""
    # The server is another user, who comes to no file in pytest's folders.
    with tempfile.TemporaryDirectory() as folder, MariaDB() as server:
        Path(folder).chmod(0o755)
        certificate = Certificate.make(Path(folder))
        certificate.key.chmod(0o644)
        server.settings.update({"ssl-cert": str(certificate.chain), "ssl-key": str(certificate.key)})
        server.start()
        yield server, str(certificate.chain)


async def test_tls(secured: tuple[MariaDB, str]) -> None:
    server, certificate = secured
    url = server.empty_database("test")
    for mode, encrypted in (("disable", False), ("prefer", True), ("require", True)):
        async with connected(url, tls=mode) as connection:
            ((_, cipher),) = await connection.fetch("SHOW STATUS LIKE 'Ssl_cipher'")
            assert bool(cipher) is encrypted
    with pytest.raises(DatabaseUnavailable, match="TLS failed"):
        await driver_for(url, tls="verify-ca").connect()
    async with connected(url, tls="verify-ca", tls_ca=certificate) as connection:
        assert len(await connection.fetch("SELECT 1")) == 1
    with pytest.raises(DatabaseUnavailable, match="TLS failed"):
        await driver_for(url, tls="verify-full", tls_ca=certificate).connect()
    named = url.replace("127.0.0.1", "localhost")
    async with connected(named, tls="verify-full", tls_ca=certificate) as connection:
        assert len(await connection.fetch("SELECT 1")) == 1


async def test_a_password_that_is_not_latin(mariadb: MariaDB) -> None:
    url = mariadb.empty_database("test")
    mariadb.execute("CREATE OR REPLACE USER ann@'127.0.0.1' IDENTIFIED BY 'pässwörd誠'")
    mariadb.execute("GRANT ALL ON test.* TO ann@'127.0.0.1'")
    async with connected(url.replace("covet:secret@", f"ann:{quote('pässwörd誠')}@")) as connection:
        assert await connection.fetch("SELECT current_user()") == [("ann@127.0.0.1",)]
    mariadb.execute("DROP USER ann@'127.0.0.1'")


class Impostor:
    """Somebody between: greets as a server without TLS, and asks for the password in clear text.

    Attributes:
        heard: what it was told.
    """

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # PROTOCOL_41, PLUGIN_AUTH, SECURE_CONNECTION; not SSL
        flags = 0x0200 | 0x8000 | (0x0008_0000)
        greeting = b"\x0a10.11-MariaDB\0" + struct.pack("<I", 7) + b"saltsalt\0" + struct.pack("<H", flags & 0xFFFF)
        greeting += b"\x2d" + struct.pack("<HH", 2, flags >> 16) + b"\x15" + bytes(10) + b"saltsaltsalt\0"
        greeting += b"mysql_native_password\0"
        writer.write(struct.pack("<I", len(greeting))[:3] + b"\0" + greeting)
        self.heard += await reader.read(4096)
        switch = b"\xfemysql_clear_password\0"
        writer.write(struct.pack("<I", len(switch))[:3] + b"\2" + switch)
        try:
            self.heard += await asyncio.wait_for(reader.read(4096), 1)
        finally:
            writer.close()


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-full"])
async def test_nobody_between_gets_the_password(mode: str) -> None:
    impostor = Impostor()
    server = await asyncio.start_server(impostor.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        expected = "clear text" if mode == "prefer" else "offers no TLS"
        with pytest.raises(DatabaseUnavailable, match=expected):
            await driver_for(f"mariadb://ann:{PASSWORD}@127.0.0.1:{port}/d", tls=mode).connect()
        await asyncio.sleep(0.05)
    assert PASSWORD.encode() not in impostor.heard
    if mode != "prefer":
        assert impostor.heard == b"", "not even a hash of it"


async def test_what_a_server_may_not_say(mariadb: MariaDB) -> None:
    """Bytes that are no answer break the connection and nothing else."""
    connection = await driver_for(mariadb.empty_database("test")).connect()
    assert isinstance(connection, MySQLConnection)
    connection.raw._reader.feed_data(b"\x01\x00\x00\x09\x00")
    with pytest.raises(ConnectionLost):
        await connection.fetch("SELECT 1")
    assert connection.state is SessionState.CLOSED
    await connection.close()


@pytest.mark.parametrize(
    ("number", "words", "kind", "table", "constraint", "columns"),
    [
        (1062, "Duplicate entry 'a' for key 'items.name_once'", UniqueViolation, "items", "name_once", ()),
        (1062, "Duplicate entry 'x' for key 'y' for key 'name_once'", UniqueViolation, "", "name_once", ()),
        (1586, "Duplicate entry 'a' for key 'PRIMARY'", UniqueViolation, "", "PRIMARY", ()),
        (3819, "Check constraint 'price_above_zero' is violated.", CheckViolation, "", "price_above_zero", ()),
        (4025, "CONSTRAINT `items.n` failed for `d`.`items`", CheckViolation, "items", "items.n", ("n",)),
        (1048, "Column 'name' cannot be null", NotNullViolation, "", "", ("name",)),
        (
            1452,
            "Cannot add or update a child row: a foreign key constraint fails (`d`.`it``ems`, CONSTRAINT `c` "
            "FOREIGN KEY (`a`, `b`) REFERENCES `owners` (`x`, `y`))",
            ForeignKeyViolation,
            "it`ems",
            "c",
            ("a", "b"),
        ),
        (1213, "Deadlock found", DeadlockDetected, "", "", ()),
        (3572, "Statement aborted because lock(s) could not be acquired immediately", LockTimeout, "", "", ()),
        (3024, "Query execution was interrupted", StatementTimeout, "", "", ()),
        (1290, "The MySQL server is running with the --read-only option", ReadOnlyDatabase, "", "", ()),
        (4031, "The client was disconnected by the server because of inactivity.", ConnectionLost, "", "", ()),
    ],
)
def test_what_the_servers_say(
    number: int, words: str, kind: type[DatabaseError], table: str, constraint: str, columns: tuple[str, ...]
) -> None:
    """The words of MySQL and of MariaDB, which differ."""
    error = translate(OperationalError(number, words), "a statement")
    assert type(error) is kind
    assert error.code == str(number)
    if isinstance(error, IntegrityError):
        assert (error.table, error.constraint, error.columns) == (table, constraint, columns)
        assert error.details == words
