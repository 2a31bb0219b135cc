"""Databases as a whole, on their server: whether one is there, creating it and dropping it.

A database cannot be created through a connection to itself: these connect to the one that every PostgreSQL has, and to
none on MySQL and MariaDB.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from covet_orm.dialects import dialect_of
from covet_orm.exceptions import DatabaseUnavailable, QueryError
from covet_orm.urls import MEMORY

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.drivers.protocol import Connection

__all__ = ["create_database", "database_exists", "drop_database", "named"]

MAINTENANCE = "postgres"
NAME_BYTES = 63
UNKNOWN = ("3D000", "1049")
"""The codes for a database that is not there."""


async def database_exists(database: Database) -> bool:
    """Whether a database is there: on its server, or as a file.

    Raises:
        DatabaseUnavailable: the server cannot be reached, or refuses for another reason.
    """
    target = database._target
    if target.kind == "sqlite":
        return target.database == MEMORY or os.path.exists(target.database)  # noqa: ASYNC240 - a local file
    try:
        connection = await database._driver.connect()
    except DatabaseUnavailable as error:
        if error.code in UNKNOWN:
            return False
        raise
    await connection.close()
    return True


async def create_database(database: Database) -> bool:
    """Create a database where it is not there; whether it was created. Text in it is UTF-8.

    Cancelled, it may have been created.

    Raises:
        DatabaseUnavailable: the server cannot be reached, or the folder of the file is not there.
        DatabaseError: the user may not create databases.
        QueryError: the URL names no database, or its name is longer than PostgreSQL's 63 bytes.
    """
    target = database._target
    if await database_exists(database):
        return False
    if target.kind == "sqlite":
        # The first connection makes the file.
        connection = await database._driver.connect()
        await connection.close()
        return True
    name = _quoted(database)
    if target.kind == "postgresql":
        # `template0` alone may be copied with another encoding than its own.
        statement = f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"
    else:
        statement = f"CREATE DATABASE {name} CHARACTER SET utf8mb4"
    await _run(database, statement)
    return True


async def drop_database(database: Database) -> None:
    """Drop a database, whether it is there or not; connections to it are ended. What is in it is gone.

    Raises:
        DatabaseUnavailable: the server cannot be reached.
        DatabaseError: the user may not drop it.
    """
    target = database._target
    if target.kind == "sqlite":
        if target.database != MEMORY:
            for suffix in ("", "-journal", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{target.database}{suffix}")
        return
    ending = " WITH (FORCE)" if target.kind == "postgresql" else ""
    await _run(database, f"DROP DATABASE IF EXISTS {_quoted(database)}{ending}")


def named(url: str, name: str) -> str:
    """The URL of another database on the same server, or of another file.

    Args:
        url: a URL that `Database` takes.
        name: the other database, percent-encoded where a URL needs it.
    """
    head, mark, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    authority = rest.partition("/")[0]
    return f"{scheme}://{authority}/{name}{mark}{query}"


def _quoted(database: Database) -> str:
    target = database._target
    name = target.database
    if not name:
        raise QueryError(f"{target.redacted} names no database: write its name behind the host and a slash")
    if target.kind == "postgresql" and len(name.encode()) > NAME_BYTES:
        raise QueryError(f"{name!r} has more than {NAME_BYTES} bytes, and PostgreSQL would cut it")
    return str(dialect_of(database.kind).identifier_preparer.quote_identifier(name))


async def _run(database: Database, statement: str) -> None:
    """Run a statement through a connection that is not to the database itself."""
    target = database._target
    driver: Any = database._driver
    elsewhere = msgspec.structs.replace(target, database=MAINTENANCE if target.kind == "postgresql" else "")
    connection: Connection = await type(driver)(elsewhere, driver.options).connect()
    try:
        await connection.script(statement)
    finally:
        await connection.close()
