"""What can be wrong with a database, as its server tells."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from covet_orm.drivers.options import ServerOptions, SQLiteOptions
from covet_orm.models.registry import registry
from covet_orm.routers import lives_in
from covet_orm.schema import table_names
from covet_orm.urls import MEMORY

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["Finding", "examine"]

CLOCK = 5.0
"""Seconds that two clocks may differ."""
OLDEST = {"postgresql": (13,), "mariadb": (10, 5), "mysql": (8, 0, 19), "sqlite": (3, 35)}
"""The oldest versions that have what the ORM needs: `RETURNING`, and row aliases on MySQL."""


class Finding(NamedTuple):
    """Something that is wrong, or could be better."""

    severity: Literal["error", "warning", "advice"]
    message: str


POSTGRESQL: Mapping[str, tuple[str, Finding]] = {
    "fsync": ("on", Finding("error", "fsync is off: a crash of the machine may destroy the database")),
    "full_page_writes": (
        "on",
        Finding("error", "full_page_writes is off: a crash of the machine may leave half-written pages"),
    ),
    "synchronous_commit": (
        "on",
        Finding("warning", "synchronous_commit is off: what was committed last is lost in a crash"),
    ),
    "autovacuum": ("on", Finding("warning", "autovacuum is off: tables grow, and transaction ids run out")),
    "zero_damaged_pages": ("off", Finding("error", "zero_damaged_pages is on: damaged rows vanish without an error")),
    "server_encoding": (
        "UTF8",
        Finding("error", "the database's encoding is not UTF8: it cannot hold every character"),
    ),
    "data_checksums": ("on", Finding("advice", "data_checksums is off: damage on the disk is not noticed")),
}
"""By setting: the value that is right, and what another one means."""
ALSO_RIGHT = {"synchronous_commit": ("local", "remote_write", "remote_apply")}
MYSQL: Mapping[str, tuple[str, Finding]] = {
    "innodb_flush_log_at_trx_commit": (
        "1",
        Finding("warning", "innodb_flush_log_at_trx_commit is not 1: what was committed last is lost in a crash"),
    ),
    "innodb_doublewrite": (
        "ON",
        Finding("error", "innodb_doublewrite is off: a crash of the machine may leave half-written pages"),
    ),
    "character_set_database": (
        "utf8mb4",
        Finding("error", "the database's character set is not utf8mb4: it cannot hold every character"),
    ),
    "local_infile": ("OFF", Finding("advice", "local_infile is on, which a client that is tricked may be harmed by")),
}
ALSO_RIGHT_MYSQL = {"innodb_doublewrite": ("1", "DETECT_AND_RECOVER")}


async def examine(database: Database) -> tuple[dict[str, Any], list[Finding]]:
    """Version, role and clock of an open database, and what is wrong with it.

    Raises:
        DatabaseError: the server refuses to tell.
    """
    told = await {"postgresql": _postgresql, "sqlite": _sqlite}.get(database.kind, _mysql)(database)
    facts, version, found = told
    oldest = OLDEST[database.kind]
    if version < oldest:
        wanted = ".".join(map(str, oldest))
        found.insert(0, Finding("error", f"version {facts['version']} is too old: at least {wanted} is needed"))
    if facts["clock"] is not None and abs(facts["clock"]) > CLOCK:
        found.append(
            Finding(
                "warning", f"the server's clock differs by {facts['clock']:+.1f} seconds; let both follow a time server"
            )
        )
    if facts["role"] == "replica":
        found.append(
            Finding("error", "the server is a replica, or only reads: nothing can be written; name the primary")
        )
    found += [finding async for finding in _tables(database)]
    found += _settings(database)
    return facts, found


async def _postgresql(database: Database) -> tuple[dict[str, Any], tuple[int, ...], list[Finding]]:
    names = [*POSTGRESQL, "server_version", "max_connections"]
    asked = await database.query("SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1)", (names,))
    values = {str(name): str(value) for name, value in asked.rows}
    found = _wrong(values, POSTGRESQL, ALSO_RIGHT)
    (row,) = (
        await database.query(
            "SELECT pg_is_in_recovery(), extract(epoch FROM clock_timestamp())::float8, "
            "(SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)"
        )
    ).rows
    in_recovery, clock, superuser = row
    version = values["server_version"].partition(" ")[0]
    facts = {
        "version": version,
        "role": "replica" if in_recovery else "primary",
        "clock": round(float(clock) - time.time(), 3),
    }
    if superuser:
        found.append(
            Finding("warning", "the user is a superuser, whom no permission stops; give the application its own")
        )
    found += _connections(database, int(values["max_connections"]))
    return facts, _version(version), found


async def _mysql(database: Database) -> tuple[dict[str, Any], tuple[int, ...], list[Finding]]:
    asked = await database.query(
        "SHOW VARIABLES WHERE variable_name IN ('innodb_flush_log_at_trx_commit', 'innodb_doublewrite', "
        "'character_set_database', 'local_infile', 'read_only', 'version', 'max_connections', 'log_bin', 'sync_binlog')"
    )
    values = {str(name): str(value) for name, value in asked.rows}
    found = _wrong(values, MYSQL, ALSO_RIGHT_MYSQL)
    if values.get("log_bin") == "ON" and values.get("sync_binlog") != "1":
        found.append(Finding("warning", "sync_binlog is not 1: in a crash, replicas may miss what was committed last"))
    clock = await database.fetch_value("SELECT unix_timestamp(now(6))")
    version = values["version"].partition("-")[0]
    facts = {
        "version": version,
        "role": "replica" if values.get("read_only", "OFF") in ("ON", "1") else "primary",
        "clock": round(float(clock) - time.time(), 3),
    }
    engines = await database.query(
        "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = database() "
        "AND table_type = 'BASE TABLE' AND engine <> 'InnoDB'"
    )
    for table, engine in engines.rows:
        found.append(Finding("error", f"the table {table} has the engine {engine}, which knows no transactions"))
    found += _connections(database, int(values["max_connections"]))
    return facts, _version(version), found


async def _sqlite(database: Database) -> tuple[dict[str, Any], tuple[int, ...], list[Finding]]:
    version = str(await database.fetch_value("SELECT sqlite_version()"))
    found: list[Finding] = []
    options = database._driver.options  # type: ignore[attr-defined]
    assert isinstance(options, SQLiteOptions)
    if options.synchronous == "off":
        found.append(Finding("error", "synchronous is off: a crash of the machine may destroy the database"))
    if not options.foreign_keys:
        found.append(Finding("warning", "foreign_keys is off: rows may refer to others that are not there"))
    memory = database._target.database == MEMORY
    if memory:
        found.append(Finding("warning", "the database is in memory: what is in it ends with the process"))
    else:
        mode = str(await database.fetch_value("SELECT journal_mode FROM pragma_journal_mode"))
        if mode in ("off", "memory"):
            found.append(
                Finding("error", f"journal_mode is {mode}: a crash in the middle of a write destroys the database")
            )
        elif mode != "wal":
            found.append(Finding("advice", f"journal_mode is {mode}: with `wal`, readers need not wait for a writer"))
    facts = {"version": version, "role": "in memory" if memory else "file", "clock": 0.0}
    return facts, _version(version), found


async def _tables(database: Database) -> AsyncIterator[Finding]:
    """The tables of models and of stores that are not there."""
    there = await table_names(database)
    wanted = [
        (model._meta.db_table, f"the model {model.__qualname__}")
        for model in registry
        if model._meta.managed and not model._meta.proxy and lives_in(model, database)
    ]
    wanted += [(name, store.what) for name, store in database.store_tables.items()]
    for table, what in wanted:
        if table not in there:
            yield Finding("error", f"the table {table} of {what} is not there; `covet db create` creates it")


def _settings(database: Database) -> list[Finding]:
    """What the application's own settings make dangerous."""
    found: list[Finding] = []
    options = database._driver.options  # type: ignore[attr-defined]
    if not isinstance(options, ServerOptions):
        return found
    if not options.statement_timeout:
        found.append(
            Finding(
                "advice", "statement_timeout is not set: one slow statement holds a connection for as long as it likes"
            )
        )
    outside = [
        host
        for host in database._target.hosts
        if not host.is_socket and host.name not in ("localhost", "::1") and not host.name.startswith("127.")
    ]
    if outside and options.tls in ("disable", "prefer"):
        found.append(
            Finding("warning", f"tls is {options.tls!r}, and {outside[0]} is another machine: set it to 'verify-full'")
        )
    return found


def _connections(database: Database, most: int) -> list[Finding]:
    size = database._pool_settings.max_size
    if size >= most:
        return [Finding("error", f"the pool may have {size} connections, and the server takes {most} of all clients")]
    if size * 4 > most:
        return [
            Finding(
                "advice",
                f"the pool of each process may have {size} of the {most} connections that the server takes in all",
            )
        ]
    return []


def _wrong(
    values: Mapping[str, str], right: Mapping[str, tuple[str, Finding]], also: Mapping[str, tuple[str, ...]]
) -> list[Finding]:
    return [
        finding
        for name, (value, finding) in right.items()
        if values.get(name, value).upper() not in (value.upper(), *(one.upper() for one in also.get(name, ())))
    ]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
