"""The schema that a state would make, as the server itself describes it.

Servers write defaults, checks, conditions and types in their own words. So the tables of the state are created beside
what is there, described, and thrown away: on PostgreSQL in a schema of a transaction that is rolled back, on MySQL and
MariaDB in a database of their own, on SQLite in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from secrets import token_hex

import sqlalchemy
from anyio import CancelScope

from covet_migrate.exceptions import MigrationError
from covet_migrate.inspection.descriptions import Schema
from covet_migrate.inspection.schema import describe
from covet_migrate.state.models import State
from covet_migrate.state.rendering import historical_models
from covet_orm import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import DatabaseError
from covet_orm.schema import defining_dialect, statements

__all__ = ["shadow_of_state", "shadow_of_tables", "tables_of"]

PREFIX = "covet_shadow_"
DENIED = frozenset(("42501", "1044", "1045", "1142", "1227"))
"""The codes by which servers say that the user may not: PostgreSQL's insufficient_privilege, and MySQL's."""


async def shadow_of_state(database: Database, state: State, *, alias: str = "default") -> Schema:
    """The schema that a database has when it has all of a state, and nothing else.

    Args:
        database: the database whose server describes it; its tables are not touched.
        state: the state.
        alias: of the database; models that name another one are left out.

    Raises:
        MigrationError: the user may not create a schema, or a database; the message says what to grant.
        DatabaseError: the server refuses a table.
        ModelError: a model of the state is not one that can be.

    Cancelled, it leaves nothing behind; killed, on MySQL and MariaDB a database that the next call drops.
    """
    tables, described = tables_of(state, alias)
    schema = await shadow_of_tables(database, tables)
    return replace(schema, tables={name: one for name, one in schema.tables.items() if name in described})


def tables_of(state: State, alias: str = "default") -> tuple[list[sqlalchemy.Table], set[str]]:
    """The tables that a state needs in a database, those of models that are not managed included, in an order in which
    they can be created; and the names of those that migrations keep there.

    Args:
        state: the state.
        alias: of the database.
    """
    registry = historical_models(state)
    elsewhere: set[str] = set()
    kept: set[str] = set()
    for model in registry:
        options = model._meta
        if options.database not in (None, alias):
            elsewhere.add(options.db_table)
        elif options.managed and (options.link_of is None or options.link_of._meta.managed):
            kept.add(options.db_table)
    return [table for table in registry.tables() if table.name not in elsewhere], kept


async def shadow_of_tables(database: Database, tables: Sequence[sqlalchemy.Table]) -> Schema:
    """The schema that some tables make, as `shadow_of_state` does.

    Args:
        database: as there.
        tables: the tables, of one registry, with all that they refer to.
    """
    await database.open()
    kind = database.kind
    ddl = statements(kind, tables, create=True)
    if kind == "sqlite":
        async with Database("sqlite://") as memory, memory.connection() as connection:
            return await _described(connection, kind, ddl)
    if kind == "postgresql":
        return await _in_a_schema(database, ddl)
    return await _in_a_database(database, ddl)


async def _described(connection: Connection, kind: str, ddl: Iterable[str], schema: str | None = None) -> Schema:
    for statement in ddl:
        await connection.script(statement)
    return await describe(connection, kind, schema=schema)


async def _in_a_schema(database: Database, ddl: Iterable[str]) -> Schema:
    """PostgreSQL: everything in one transaction, which nobody sees and which ends with its connection."""
    name = f"{PREFIX}{token_hex(8)}"
    connection = await database.connect()
    try:
        await connection.script("BEGIN")
        path = (await connection.fetch("SELECT pg_catalog.current_setting('search_path')"))[0][0]
        try:
            await connection.script(f"CREATE SCHEMA {name}")
        except DatabaseError as error:
            raise _denied(error, "GRANT CREATE ON DATABASE the_database TO the_user") from error
        # Extensions, with their types and operators, are where they were.
        await connection.fetch("SELECT pg_catalog.set_config('search_path', $1, true)", (f"{name}, {path}",))
        found = await _described(connection, "postgresql", ddl, name)
        await connection.script("ROLLBACK")
        return found
    finally:
        with CancelScope(shield=True):
            await connection.close()


async def _in_a_database(database: Database, ddl: Iterable[str]) -> Schema:
    """MySQL and MariaDB: a database whose name is locked as long as its maker lives."""
    name = f"{PREFIX}{token_hex(8)}"
    quoted = defining_dialect(database.kind).identifier_preparer.quote_identifier
    connection = await database.connect()
    # Cancelled while it was created, it may be there.
    created = True
    try:
        await _drop_abandoned(connection, quoted)
        await connection.fetch("SELECT GET_LOCK(%s, 0)", (name,))
        try:
            await connection.script(f"CREATE DATABASE {quoted(name)}")
        except DatabaseError as error:
            created = False
            raise _denied(error, f"GRANT ALL ON `{PREFIX.replace('_', chr(92) + '_')}%`.* TO the_user") from error
        await connection.script(f"USE {quoted(name)}")
        return await _described(connection, database.kind, ddl)
    finally:
        with CancelScope(shield=True):
            if created:
                await _drop(database, connection, f"DROP DATABASE IF EXISTS {quoted(name)}")
            else:
                await connection.close()


async def _drop(database: Database, connection: Connection, statement: str) -> None:
    """Drop the database, by another connection where that one was interrupted."""
    try:
        await connection.script(statement)
    except DatabaseError:
        again = await database.connect()
        try:
            await again.script(statement)
        finally:
            await again.close()
    finally:
        await connection.close()


async def _drop_abandoned(connection: Connection, quoted: Callable[[str], str]) -> None:
    """Drop what those left that were killed: databases that nobody holds the lock of any longer."""
    asked = await connection.fetch(
        "SELECT schema_name FROM information_schema.schemata "
        "WHERE left(schema_name, %s) = %s AND is_free_lock(schema_name)",
        (len(PREFIX), PREFIX),
    )
    for (name,) in asked:
        await connection.script(f"DROP DATABASE IF EXISTS {quoted(name)}")


def _denied(error: DatabaseError, grant: str) -> Exception:
    """The error for a user who may not create a schema or a database; every other one as it is."""
    if error.code not in DENIED:
        return error
    return MigrationError(
        "to compare a schema with that of the migrations, tables are created beside it and dropped again, and the user "
        f"may not do that ({error}); an administrator may type: {grant}"
    )
