"""Reading the schema of a database."""

from __future__ import annotations

from covet_migrate.inspection.descriptions import Schema
from covet_migrate.inspection.mysql_catalog import read_mysql
from covet_migrate.inspection.postgresql_catalog import read_postgresql
from covet_migrate.inspection.sqlite_catalog import read_sqlite
from covet_orm import Database
from covet_orm.drivers.protocol import Connection

__all__ = ["describe", "read_schema"]


async def read_schema(database: Database) -> Schema:
    """What is there in a database, as the transaction around the caller sees it, if there is one.

    On PostgreSQL that is the schema in which a table would be created: the first of the search path that is there.

    Args:
        database: the database; it is opened where it is not open yet.

    Raises:
        DatabaseError: the database cannot be asked.

    Cancelled, nothing is left behind.
    """
    await database.open()
    async with database.connection() as connection:
        return await describe(connection, database.kind)


async def describe(connection: Connection, kind: str, *, schema: str | None = None) -> Schema:
    """What a connection sees.

    Args:
        connection: a connection at rest.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        schema: the name of the schema, on PostgreSQL; the one in which a table would be created by default.

    Raises:
        DatabaseError: the database cannot be asked.
    """
    if kind == "postgresql":
        return await read_postgresql(connection, schema)
    if kind == "sqlite":
        return await read_sqlite(connection)
    return await read_mysql(connection, kind)
