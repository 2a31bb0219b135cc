"""Making a table of SQLite anew, with its rows, and all that belongs to it.

The way is that of SQLite's documentation (https://sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema
Changes"): a new table, the rows copied, the old one dropped, the new one renamed. Done while SQLite looks at foreign
keys, it would delete the rows of other tables that refer to the old one; so it refuses to be.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy
from sqlalchemy.schema import CreateIndex
from sqlalchemy.schema import CreateTable as CreateTableElement

from covet_migrate.exceptions import MigrationError, MigrationFailed
from covet_migrate.steps import RebuildTable
from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.exceptions import DatabaseError
from covet_orm.schema import defining_dialect

__all__ = ["broken_foreign_keys", "rebuild", "rebuild_statements"]

ROW_IDS = ("rowid", "_rowid_", "oid")
QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/""", re.DOTALL)
Broken = tuple[Any, ...]


def rebuild_statements(step: RebuildTable, *, table: str = "") -> list[str]:
    """What is done, without what only the database knows: triggers, and indexes that nobody declared.

    Args:
        step: the table.
        table: the SQL that the table was made by, where it is known: what that says of row ids and counting is kept.
    """
    dialect = defining_dialect("sqlite")
    quote = dialect.identifier_preparer.quote
    name, after = step.after.name, step.after
    made = quote(f"covet_new_{name}")
    words = set(QUOTED.sub("", table).upper().replace(")", " ").replace(",", " ").split())
    options = after.dialect_options["sqlite"]
    given = {"autoincrement": "AUTOINCREMENT" in words, "with_rowid": "WITHOUT" not in words}
    kept = {option: options[option] for option in given}
    try:
        for option, value in given.items():
            options[option] = value
        create = str(CreateTableElement(after).compile(dialect=dialect)).strip()
    finally:
        for option, value in kept.items():
            options[option] = value
    columns = dict(step.columns)
    taken = {column.name.lower() for column in (*step.before.columns, *after.columns)}
    row_id = next((one for one in ROW_IDS if one not in taken), None)
    into = [quote(column) for column in columns]
    if given["with_rowid"] and row_id is not None and not _copies_row_id(after, columns):
        into.insert(0, row_id)
        columns = {row_id: row_id, **columns}
    found = [f"CREATE TABLE {made}{create.removeprefix(f'CREATE TABLE {quote(name)}')}"]
    if columns:
        found.append(f"INSERT INTO {made} ({', '.join(into)}) SELECT {', '.join(columns.values())} FROM {quote(name)}")
    found += [f"DROP TABLE {quote(name)}", f"ALTER TABLE {made} RENAME TO {quote(name)}"]
    indexes = sorted(after.indexes, key=lambda one: str(one.name))
    found += [str(CreateIndex(one).compile(dialect=dialect)) for one in indexes if _is_there(one)]
    return found


async def rebuild(connection: Connection, step: RebuildTable) -> None:
    """Make a table anew, and copy its rows.

    Row ids, what `AUTOINCREMENT` counted, triggers, indexes that nobody declared, views, and the foreign keys of other
    tables stay. Inside of a transaction it is a part of that, and the caller looks at `broken_foreign_keys` before the
    commit; outside of one it opens its own, and does so itself.

    Cancelled, or after an error, a transaction of its own is rolled back; that of the caller is to be.

    Raises:
        MigrationError: inside of a transaction in which SQLite looks at foreign keys; the table is not there, or has
            columns that the migrations know nothing of and that would be lost.
        MigrationFailed: a view or a trigger that worked would work no more; a row refers to one that is not there.
        DatabaseError: a statement failed: a row does not satisfy a constraint, the disk is full.
    """
    if connection.state is not SessionState.IDLE:
        if (await connection.fetch("PRAGMA foreign_keys"))[0][0]:
            raise MigrationError(
                f"the table {step.after.name} has to be made anew, and inside of a transaction that began with "
                "PRAGMA foreign_keys = ON this would delete the rows that refer to it; set it OFF before the "
                "transaction begins"
            )
        await _rebuild(connection, step)
        return
    async with _own_transaction(connection):
        before = await broken_foreign_keys(connection)
        await _rebuild(connection, step)
        broken = await broken_foreign_keys(connection) - before
        if broken:
            table, row, parent, _ = min(broken, key=repr)
            raise MigrationFailed(
                f"making the table {step.after.name} anew: row {row} of {table} refers to a row of {parent} that is "
                f"not there ({len(broken)} such in all); nothing was changed"
            )


async def broken_foreign_keys(connection: Connection) -> set[Broken]:
    """The rows that refer to one that is not there: table, row id, the table referred to, and the number of the key."""
    return {tuple(row) for row in await connection.fetch("PRAGMA foreign_key_check")}


@asynccontextmanager
async def _own_transaction(connection: Connection) -> AsyncIterator[None]:
    looked = (await connection.fetch("PRAGMA foreign_keys"))[0][0]
    await connection.script("PRAGMA foreign_keys = OFF")
    try:
        await connection.script("BEGIN IMMEDIATE")
        yield
        await connection.script("COMMIT")
    finally:
        # A connection that was interrupted is broken, and nobody uses it again.
        if connection.state is SessionState.TRANSACTION:
            await connection.script("ROLLBACK")
        if looked and connection.state is SessionState.IDLE:
            await connection.script("PRAGMA foreign_keys = ON")


async def _rebuild(connection: Connection, step: RebuildTable) -> None:
    name = step.after.name
    there = await connection.fetch("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    tables = {row[1].lower(): row[3] for row in there if row[0] == "table"}
    if name.lower() not in tables:
        raise MigrationError(f"the table {name} is not there")
    await _check_columns(connection, step)
    belongs = [row for row in there if row[2].lower() == name.lower()]
    declared = {str(one.name).lower() for one in step.after.indexes}
    again = [row[3] for row in belongs if row[0] == "index" and row[1].lower() not in declared]
    again += [row[3] for row in belongs if row[0] == "trigger"]
    working = [what for what, error in (await _errors(connection)).items() if error is None]
    counted: Sequence[Any] = ()
    if "sqlite_sequence" in tables:
        counted = await connection.fetch("SELECT seq FROM sqlite_sequence WHERE name = ?", (name,))
    legacy = (await connection.fetch("PRAGMA legacy_alter_table"))[0][0]
    # Otherwise SQLite would look for the table in views, where it is not there for a moment, and refuse.
    await connection.script("PRAGMA legacy_alter_table = ON")
    try:
        for sql in (*rebuild_statements(step, table=tables[name.lower()]), *again):
            await connection.script(sql)
    finally:
        if not legacy and connection.state is not SessionState.CLOSED:
            await connection.script("PRAGMA legacy_alter_table = OFF")
    if counted:
        changed = await connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (counted[0][0], name))
        if not changed:
            await connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, counted[0][0]))
    errors = await _errors(connection)
    for what in working:
        error = errors.get(what)
        if error is not None:
            raise MigrationFailed(
                f"making the table {name} anew: {what} would work no more: {error}; drop it in a migration before "
                "(RunSQL), and create it again after"
            ) from error


async def _errors(connection: Connection) -> dict[str, DatabaseError | None]:
    """By each view, and by what sets off triggers, the error that SQLite has when it is only to understand it."""
    quote = defining_dialect("sqlite").identifier_preparer.quote
    rows = await connection.fetch("SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('view', 'trigger')")
    probes = {f"the view {row[1]}": f"SELECT * FROM {quote(row[1])}" for row in rows if row[0] == "view"}
    for table in dict.fromkeys(row[2] for row in rows if row[0] == "trigger"):
        columns = await connection.fetch(f"PRAGMA table_info({quote(table)})")
        changes = ", ".join(f"{quote(row[1])} = {quote(row[1])}" for row in columns)
        where = f"a trigger of {table}"
        probes[f"{where} (INSERT)"] = f"INSERT INTO {quote(table)} DEFAULT VALUES"
        probes[f"{where} (UPDATE)"] = f"UPDATE {quote(table)} SET {changes}"
        probes[f"{where} (DELETE)"] = f"DELETE FROM {quote(table)}"
    return {what: await _error_of(connection, f"EXPLAIN {sql}") for what, sql in probes.items()}


async def _check_columns(connection: Connection, step: RebuildTable) -> None:
    """Refuse to lose what nobody declared."""
    quote = defining_dialect("sqlite").identifier_preparer.quote
    rows = await connection.fetch(f"PRAGMA table_xinfo({quote(step.before.name)})")
    live = {row[1].lower(): row[1] for row in rows}
    known = {column.name.lower() for column in step.before.columns}
    unknown = [live[column] for column in live if column not in known]
    if unknown:
        raise MigrationError(
            f"the table {step.before.name} has columns that the migrations know nothing of, and making it anew would "
            f"lose them: {', '.join(unknown)}; add them to the model and its migrations, or drop them "
            "(`covet migrations drift` shows what differs)"
        )


async def _error_of(connection: Connection, sql: str) -> DatabaseError | None:
    """The error of a statement that SQLite only has to understand."""
    try:
        await connection.fetch(sql)
    except DatabaseError as error:
        return error
    return None


def _copies_row_id(table: sqlalchemy.Table, columns: dict[str, str]) -> bool:
    """Whether the key of a table is its row id (https://sqlite.org/lang_createtable.html#rowid), and is copied."""
    keys = list(table.primary_key.columns)
    if len(keys) != 1 or keys[0].type.compile(defining_dialect("sqlite")) != "INTEGER":
        return False
    return keys[0].name in columns


def _is_there(index: sqlalchemy.Index) -> bool:
    databases = index.info.get("databases")
    return databases is None or "sqlite" in databases
