"""What goes into a database comes out of it, for every value that the driver takes."""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import AsyncIterator
from decimal import Decimal
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.driver_cases import AnyConnection, connected, placed
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

from covet_orm.drivers.literals import statement_with
from covet_orm.drivers.protocol import SessionState
from covet_orm.exceptions import DataError, ProgrammingError

pytestmark = pytest.mark.anyio

real_servers = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ATTACKS = [
    "' OR '1'='1",
    "\\' OR 1=1 -- ",
    "\\\\' OR 1=1 -- ",
    "\\",
    "\\\\",
    "'",
    "''",
    '"',
    "`",
    "\x00",
    "\x00'; DROP TABLE t -- ",
    "\x1a",
    "\r\n'",
    "%s",
    "%",
    "%%",
    "%(a)s",
    "$1",
    "?",
    ":name",
    "/* */ */",
    "-- ",
    "#",
    ";",
    "\u00bf'",
    "\u00bf\\'",
    "\u02bc",
    "\uff07 OR 1=1",
    "\u00bf\u005c\u0027",
    "誠'",
    "表\\'",
    "😀'",
    "\U0010ffff\\",
    "\ufeff'",
    "\u2028'",
    "' UNION SELECT password FROM users -- ",
    "'; SELECT SLEEP(5) -- ",
]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(ATTACKS)


@pytest.fixture
async def connection(url: str) -> AsyncIterator[AnyConnection]:
    async with connected(url) as made:
        columns = {
            "PostgreSQLConnection": "t TEXT, i BIGINT, f DOUBLE PRECISION, b BYTEA",
            "MySQLConnection": "t LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, i BIGINT, f DOUBLE, b LONGBLOB",
            "SQLiteConnection": "t TEXT, i INTEGER, f REAL, b BLOB",
        }[type(made).__name__]
        await made.script(f"CREATE TABLE kept ({columns})")
        yield made
        assert made.state is SessionState.IDLE


async def kept(connection: AnyConnection, column: str, value: Any) -> Any:
    """A value after it was stored."""
    await connection.execute("DELETE FROM kept")
    assert await connection.execute(placed(connection, f"INSERT INTO kept ({column}) VALUES (?)"), [value]) == 1
    (row,) = await connection.fetch(f"SELECT {column} FROM kept")
    return row[0]


@pytest.fixture
def maria_url(mariadb: MariaDB) -> str:
    """An empty database of MariaDB."""
    return mariadb.empty_database("test")


@real_servers
@given(value=text)
async def test_text(connection: AnyConnection, value: str) -> None:
    if "\0" in value and type(connection).__name__ == "PostgreSQLConnection":
        with pytest.raises(DataError):
            await kept(connection, "t", value)
        return
    assert await kept(connection, "t", value) == value
    found = await connection.fetch(placed(connection, "SELECT count(*) FROM kept WHERE t = ?"), [value])
    assert found[0][0] == 1


@pytest.mark.parametrize("value", ATTACKS)
async def test_an_attack_is_a_text(connection: AnyConnection, value: str) -> None:
    if "\0" in value and type(connection).__name__ == "PostgreSQLConnection":
        return
    await connection.execute("INSERT INTO kept (t) VALUES ('other')")
    columns = placed(connection, "INSERT INTO kept (t, i) VALUES (?, ?)")
    await connection.execute_many(columns, [(value, 1), (value, 2)])
    rows = await connection.fetch(placed(connection, "SELECT t FROM kept WHERE t = ?"), [value])
    assert [row[0] for row in rows] == [value, value]


@real_servers
@given(value=st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3), around=st.text(max_size=5))
async def test_a_surrogate_is_refused(connection: AnyConnection, value: str, around: str) -> None:
    with pytest.raises(DataError):
        await kept(connection, "t", around.replace("\0", "") + value)


@real_servers
@given(value=st.integers(-(2**63), 2**63 - 1))
async def test_integers(connection: AnyConnection, value: int) -> None:
    assert await kept(connection, "i", value) == value


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64, 10**30, -(10**400)])
async def test_integers_beyond_64_bits_are_refused(connection: AnyConnection, value: int) -> None:
    with pytest.raises(DataError):
        await kept(connection, "i", value)


@real_servers
@given(value=st.floats(allow_nan=False, allow_infinity=False))
async def test_floats(connection: AnyConnection, value: float) -> None:
    found = await kept(connection, "f", value)
    assert struct.pack("d", found or 0.0) == struct.pack("d", value or 0.0)


async def test_floats_that_are_no_numbers(connection: AnyConnection) -> None:
    kind = type(connection).__name__
    if kind == "PostgreSQLConnection":
        assert math.isnan(await kept(connection, "f", math.nan))
    else:
        with pytest.raises(DataError):
            await kept(connection, "f", math.nan)
        with pytest.raises(DataError):
            await connection.execute_many(placed(connection, "INSERT INTO kept (f) VALUES (?)"), [(1.0,), (math.nan,)])
    if kind == "MySQLConnection":
        with pytest.raises(DataError):
            await kept(connection, "f", math.inf)
    else:
        assert await kept(connection, "f", math.inf) == math.inf


@real_servers
@given(value=st.binary(max_size=64))
async def test_bytes(connection: AnyConnection, value: bytes) -> None:
    assert await kept(connection, "b", value) == value


async def test_large_values(connection: AnyConnection) -> None:
    for size in (2**16 - 1, 2**24 - 10, 2**24 + 10):
        if type(connection).__name__ == "MySQLConnection" and size > 2**23:
            size //= 4  # bytes go there in hexadecimal, and max_allowed_packet is 16 MiB
        value = bytes(range(256)) * (size // 256)
        assert await kept(connection, "b", value) == value
    for long in ("é" * 500_000, "\\" * 500_000, "'" * 500_000):
        assert await kept(connection, "t", long) == long


async def test_nothing_and_booleans(connection: AnyConnection) -> None:
    for column in "tifb":
        assert await kept(connection, column, None) is None
    if type(connection).__name__ != "PostgreSQLConnection":
        assert await kept(connection, "i", True) == 1


async def test_a_row_of_each_in_a_stream(connection: AnyConnection) -> None:
    row = ("a'\\", -1, 1.5, b"\x00\xff")
    insert = placed(connection, "INSERT INTO kept (t, i, f, b) VALUES (?, ?, ?, ?)")
    assert await connection.execute_many(insert, [row] * 30) in (30, -1)
    await connection.script("BEGIN")
    async for chunk in connection.stream("SELECT t, i, f, b FROM kept", size=7):
        assert all(tuple(found) == row for found in chunk)
    await connection.script("COMMIT")


async def test_the_types_of_postgresql(postgresql: PostgreSQL) -> None:
    utc = datetime.UTC
    async with connected(postgresql.empty_database("test")) as connection:
        for kind, value in (
            ("numeric", Decimal("12345678901234567890.000000001")),
            ("numeric", Decimal("NaN")),
            ("boolean", True),
            ("uuid", UUID("12345678-1234-5678-1234-567812345678")),
            ("date", datetime.date(1, 1, 1)),
            ("date", datetime.date(9999, 12, 31)),
            ("time", datetime.time(23, 59, 59, 999999)),
            ("timestamp", datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)),
            ("timestamptz", datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=utc)),
            ("interval", datetime.timedelta(days=-3, seconds=7, microseconds=5)),
            ("inet", ip_address("2001:db8::1")),
            ("cidr", ip_network("10.0.0.0/8")),
            ("json", '{"a": [1, "\\u00e9"]}'),
            ("jsonb", '{"a": 1}'),
            ("integer[]", [1, None, 3]),
            ("text[]", [["a", "b"], ["c", "d"]]),
            ("int4range", asyncpg.Range(1, 5)),
        ):
            ((found,),) = await connection.fetch(f"SELECT $1::{kind}", [value])
            assert type(found) in type(value).__mro__ or isinstance(found, type(value))
            assert str(found) == str(value) if "NaN" in str(value) else found == value
        aware = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        ((found,),) = await connection.fetch("SELECT $1::timestamptz", [aware])
        assert found == aware
        assert found.utcoffset() == datetime.timedelta(0)
        assert (await connection.fetch("SHOW timezone"))[0][0] == "UTC"


async def test_the_types_of_mariadb(mariadb: MariaDB) -> None:
    utc = datetime.UTC
    async with connected(mariadb.empty_database("test")) as connection:
        for kind, value in (
            ("DECIMAL(40, 10)", Decimal("123456789012345678901234567890.0000000001")),
            ("DECIMAL(40, 10)", Decimal("1E+5")),
            ("DATE", datetime.date(1000, 1, 1)),
            ("DATE", datetime.date(9999, 12, 31)),
            ("DATETIME(6)", datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)),
            ("DATETIME(6)", datetime.datetime(2024, 2, 29, 12, 30)),
            ("TIMESTAMP(6) NULL", datetime.datetime(2024, 2, 29, 12, 30)),
            ("TIME(6)", datetime.timedelta(hours=-100, microseconds=5)),
            ("JSON", '{"a": "\\u00e9\\\\"}'),
            ("BINARY(16)", UUID("12345678-1234-5678-1234-567812345678").bytes),
        ):
            await connection.script(f"CREATE OR REPLACE TABLE kept_as (v {kind})")
            await connection.execute("INSERT INTO kept_as VALUES (%s)", [value])
            ((found,),) = await connection.fetch("SELECT v FROM kept_as")
            assert (type(found), found) == (type(value), value)
        aware = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        await connection.script("CREATE OR REPLACE TABLE kept_as (v DATETIME(6))")
        await connection.execute("INSERT INTO kept_as VALUES (%s)", [aware])
        assert await connection.fetch("SELECT v FROM kept_as") == [(aware.astimezone(utc).replace(tzinfo=None),)]
        for value in (
            Decimal("NaN"),
            Decimal("Infinity"),
            datetime.time(1, tzinfo=utc),
            UUID(int=1),
            [1],
            {"a": 1},
            {1},
        ):
            with pytest.raises(DataError):
                await connection.fetch("SELECT %s", [value])


@real_servers
@given(value=text)
async def test_a_session_without_backslash_escapes(maria_url: str, value: str) -> None:
    async with connected(maria_url, sql_mode="NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES") as connection:
        assert await connection.fetch("SELECT %s, '\\'", [value]) == [(value, "\\")]
        # Whoever changes it in the middle of a session is noticed as well.
        await connection.script("SET SESSION sql_mode = 'STRICT_ALL_TABLES'")
        assert await connection.fetch("SELECT %s", [value]) == [(value,)]


@given(value=text, backslash_escapes=st.booleans())
def test_a_literal_ends_where_it_should_in_every_sql_mode(value: str, backslash_escapes: bool) -> None:
    statement = statement_with("SELECT %s", [value], backslash_escapes=backslash_escapes).decode()
    literal = statement.removeprefix("SELECT ")
    if literal.startswith("_utf8mb4 X'"):
        assert bytes.fromhex(literal[len("_utf8mb4 X'") : -1]).decode() == value
        return
    for mode in (True, False):
        assert _end_of_literal(literal, backslash_escapes=mode) == len(literal)


def _end_of_literal(literal: str, *, backslash_escapes: bool) -> int:
    """Where the text that begins with a quote ends, by the rules of the MySQL Reference Manual, String Literals."""
    assert literal[0] == "'"
    at = 1
    while at < len(literal):
        if (literal[at] == "\\" and backslash_escapes) or literal[at : at + 2] == "''":
            at += 2
        elif literal[at] == "'":
            return at + 1
        else:
            at += 1
    raise AssertionError("the literal has no end")


@pytest.mark.parametrize(
    ("sql", "params"),
    [("%s", []), ("%s", [1, 2]), ("%d", ["a"]), ("%", []), ("%(a)s", [1]), ("%s %", [1]), ("%q", [1])],
)
def test_places_and_parameters_that_do_not_match(sql: str, params: list[Any]) -> None:
    with pytest.raises(ProgrammingError):
        statement_with(sql, params)


async def test_inserts_of_mariadb_go_in_batches(mariadb: MariaDB) -> None:
    async with connected(mariadb.empty_database("test"), max_packet=1024) as connection:
        await connection.script("CREATE TABLE kept (i INTEGER PRIMARY KEY, t VARCHAR(100))")

        async def statements() -> int:
            ((_, count),) = await connection.fetch("SHOW SESSION STATUS LIKE 'Com_insert'")
            return int(count)

        rows = [(number, "it's " * 10) for number in range(100)]
        before = await statements()
        assert await connection.execute_many("INSERT INTO kept VALUES (%s, %s)", rows) == 100
        assert 4 <= await statements() - before <= 10
        assert await connection.fetch("SELECT count(*), max(t) FROM kept") == [(100, "it's " * 10)]
        again = "INSERT INTO kept (i, t) VALUES ( %s , %s ) ON DUPLICATE KEY UPDATE t = concat(VALUES(t), '%%')"
        await connection.execute_many(again, rows)
        assert await connection.fetch("SELECT count(*) FROM kept WHERE t LIKE '%%\\%%'") == [(100,)]
        # Not an INSERT of places alone: one after the other.
        before = await statements()
        assert await connection.execute_many("INSERT INTO kept VALUES (%s + 100, 'a%%')", [(1,), (2,)]) == 2
        assert await statements() - before == 2
        assert (
            await connection.execute_many("UPDATE kept SET t = %s WHERE i = %s", [("a", 1), ("b", 2), ("c", -1)]) == 2
        )
        assert await connection.fetch("SELECT t FROM kept WHERE i IN (1, 2)") == [("a",), ("b",)]
