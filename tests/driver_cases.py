"""What tests of covet-orm's drivers share: a driver for a URL, and statements in the words of its database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from covet_orm.drivers.mysql import MySQLConnection, MySQLDriver
from covet_orm.drivers.options import MySQLOptions, PostgreSQLOptions, SQLiteOptions
from covet_orm.drivers.postgresql import PostgreSQLConnection, PostgreSQLDriver
from covet_orm.drivers.sqlite import SQLiteConnection, SQLiteDriver
from covet_orm.urls import driver_options, parse_url

__all__ = ["AnyConnection", "AnyDriver", "connected", "driver_for", "endless", "numbers_to", "placed", "slow"]

AnyDriver = PostgreSQLDriver | MySQLDriver | SQLiteDriver
AnyConnection = PostgreSQLConnection | MySQLConnection | SQLiteConnection


def driver_for(url: str, **options: Any) -> AnyDriver:
    """The driver of a URL's database."""
    target = parse_url(url)
    made = driver_options(target, options)
    if isinstance(made, PostgreSQLOptions):
        return PostgreSQLDriver(target, made)
    if isinstance(made, MySQLOptions):
        return MySQLDriver(target, made)
    assert isinstance(made, SQLiteOptions)
    return SQLiteDriver(target, made)


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[AnyConnection]:
    """A connection, closed at the end."""
    connection = await driver_for(url, **options).connect()
    try:
        yield connection
    finally:
        await connection.close()


def _kind(connection: AnyConnection) -> str:
    if isinstance(connection, PostgreSQLConnection):
        return "postgresql"
    return "mysql" if isinstance(connection, MySQLConnection) else "sqlite"


def placed(connection: AnyConnection, sql: str) -> str:
    """A statement with `?` for its parameters, in the placeholders of the driver."""
    kind = _kind(connection)
    if kind == "sqlite":
        return sql
    parts = sql.split("?")
    if kind == "mysql":
        return "%s".join(part.replace("%", "%%") for part in parts)
    return parts[0] + "".join(f"${number}{part}" for number, part in enumerate(parts[1:], 1))


def numbers_to(connection: AnyConnection, last: int) -> str:
    """A SELECT of the numbers from 1 to `last`."""
    if _kind(connection) == "postgresql":
        return f"SELECT n FROM generate_series(1, {last:d}) AS s(n)"
    if _kind(connection) == "mysql":
        return f"SELECT seq FROM seq_1_to_{last:d}"
    return f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {last:d}) SELECT n FROM s"


def slow(connection: AnyConnection, seconds: float = 30) -> str:
    """A SELECT that takes its time, at least seconds as long as those of this machine."""
    if _kind(connection) == "postgresql":
        return f"SELECT pg_sleep({seconds})"
    if _kind(connection) == "mysql":
        return f"SELECT SLEEP({seconds})"
    return endless(connection)


def endless(connection: AnyConnection) -> str:
    """A SELECT that works until it is ended, and gives no row before."""
    if _kind(connection) == "mysql":
        return "SELECT count(*) FROM seq_1_to_100000000 a JOIN seq_1_to_100000000 b ON a.seq + b.seq > 0"
    if _kind(connection) == "postgresql":
        return "SELECT count(*) FROM generate_series(1, 100000000) a(n), generate_series(1, 100000000) b(n)"
    return "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT count(*) FROM s"
