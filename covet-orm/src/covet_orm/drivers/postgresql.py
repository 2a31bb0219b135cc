"""PostgreSQL through asyncpg.

Placeholders are `$1`, `$2`, ... What asyncpg takes and gives: int, float, bool, str, bytes, `Decimal` (numeric),
`UUID`, `date`, `time`, `datetime` (aware, in UTC, for timestamptz; naive for timestamp), `timedelta` (interval),
`ipaddress` objects (inet, cidr), lists (arrays), `asyncpg.Range`, dicts of texts (hstore); json and jsonb are text both
ways, for whoever encodes it. Every session has the time zone UTC.

A cancelled statement leaves its connection busy for good: the server is asked to cancel it, and whether that request
arrives before or after its end cannot be known. `close` waits for the answer and then ends the session, so that the
server does not go on with it; `terminate` does not.

Behind a PgBouncer in transaction mode, whose versions before 1.21 know no prepared statements, `pgbouncer=true` is
needed: statements have no name and stay in no cache, what a statement takes is asked for anew each time and within the
same exchange (the server connection is kept for it, as nothing in it says that it ended), streams are SQL cursors,
and of the session's settings only those are made that PgBouncer keeps for each client: application_name and TimeZone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from secrets import token_hex
from typing import Any

from anyio import move_on_after
from msgspec import structs

from covet.exceptions import ConfigurationError
from covet_orm.drivers.errors import interrupted, not_in_use_twice
from covet_orm.drivers.options import PostgreSQLOptions
from covet_orm.drivers.protocol import Connection, Inserted, Row, Rows, SessionState
from covet_orm.drivers.sockets import give_up_after
from covet_orm.drivers.tls import tls_context
from covet_orm.exceptions import (
    ConnectionLost,
    DatabaseError,
    DatabaseUnavailable,
    ProgrammingError,
    ReadOnlyDatabase,
)
from covet_orm.urls import Host, Target

try:
    import asyncpg
except ImportError as error:
    raise ConfigurationError(
        "a PostgreSQL database needs the driver asyncpg; type: pip install 'covet-orm[postgresql]'"
    ) from error

from covet_orm.drivers.errors_postgresql import translate, translate_connect

__all__ = ["PostgreSQLConnection", "PostgreSQLDriver"]

logger = logging.getLogger("covet.orm")
CLOSE_SECONDS = 5.0
PING = "SELECT 1"
ROLE = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
numbers = itertools.count(1)
cursors = itertools.count(1)

REST, FAILED, BUSY, BROKEN = range(4)
"""What the last statement left. asyncpg tells whether the session is in a transaction, and not whether that has failed;
it has when the server refused a statement inside of it, until one succeeds, which can only be a rollback."""


class Session(asyncpg.Connection):
    """asyncpg's connection, whose prepared statements and portals have names that no other has.

    asyncpg counts them from 1 in each process. Behind a PgBouncer in transaction mode without the option `pgbouncer`,
    the statement of that name may be another process's, and the server would run it in place of one's own, without an
    error. A name that the server does not know, it refuses.
    """

    __slots__ = ("_token",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._token = token_hex(4)

    def _get_unique_id(self, prefix: str) -> str:
        inherited: Any = super()
        return f"{inherited._get_unique_id(prefix)}{self._token}"

    async def _introspect_types(self, typeoids: Any, timeout: Any) -> Any:
        """What asyncpg asks the server of types that it has not met yet. It knows hstore, and has to be told which type
        that is: one of an extension has another number in each database."""
        inherited: Any = super()
        found = await inherited._introspect_types(typeoids, timeout)
        for told in found[0]:
            if told["name"] == "hstore" and told["kind"] == b"b":
                itself: Any = self
                settings = itself._protocol.get_settings()
                settings.set_builtin_type_codec(
                    told["oid"], "hstore", told["ns"], "scalar", "pg_contrib.hstore", "binary"
                )
        return found


class PostgreSQLConnection:
    """A connection of `PostgreSQLDriver`. See `covet_orm.drivers.protocol.Connection`.

    Attributes:
        number: counts the connections of this process.
        server_id: the process id of its backend; behind PgBouncer, a number that PgBouncer made up.
        statement: the last statement.
        raw: the connection of asyncpg, for what only PostgreSQL has: COPY, LISTEN.
    """

    __slots__ = ("_cursors", "_fetch", "_pgbouncer", "_phase", "_writes", "number", "raw", "server_id", "statement")

    def __init__(self, raw: Any, *, pgbouncer: bool = False, writes: bool = False) -> None:
        self.raw = raw
        self.number = next(numbers)
        self.server_id: int | None = raw.get_server_pid()
        self.statement = ""
        self._fetch = raw.fetch
        self._phase = REST
        self._pgbouncer = pgbouncer
        self._writes = writes
        # Those that are open, as far as the transaction has not ended that they are in.
        self._cursors: set[str] = set()

    @property
    def state(self) -> SessionState:
        """What the session is in."""
        if self.raw.is_closed():
            return SessionState.CLOSED
        if self._phase >= BUSY:
            return SessionState.BUSY
        if not self.raw.is_in_transaction():
            return SessionState.IDLE
        return SessionState.FAILED if self._phase == FAILED else SessionState.TRANSACTION

    @property
    def pooled(self) -> bool:
        """Whether a PgBouncer in transaction mode stands between, so that the session is not one's own."""
        return self._pgbouncer

    @property
    def in_recovery(self) -> bool | None:
        """Whether the server is a replica now, as it told last, unasked; None behind PgBouncer."""
        if self._pgbouncer:
            return None
        told: str | None = getattr(self.raw.get_settings(), "in_hot_standby", None)
        return None if told is None else told == "on"

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a statement; all its rows, as `asyncpg.Record`."""
        phase = self._phase
        if phase >= BUSY:
            raise self._refused(sql)
        self._phase = BUSY
        self.statement = sql
        try:
            rows: list[Row] = await self._fetch(sql, *params)
        except BaseException as error:
            raise await self._failure(phase, error, sql, params) from error
        self._phase = REST
        return rows

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run a statement; all its rows and the names of their columns."""
        phase = self._begin(sql)
        try:
            rows: list[Any]
            if self._pgbouncer:
                statement = await self.raw.prepare(sql, name="")
                rows = await statement.fetch(*params)
            else:
                rows = await self._fetch(sql, *params)
                statement = None if rows else await self._prepared(sql)
            columns = rows[0].keys() if statement is None else (told.name for told in statement.get_attributes())
        except BaseException as error:
            raise await self._failure(phase, error, sql, params) from error
        self._phase = REST
        return Rows(tuple(columns), rows)

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed, by its command tag."""
        phase = self._begin(sql)
        try:
            tag: str = await self.raw.execute(sql, *params)
        except BaseException as error:
            raise await self._failure(phase, error, sql, params) from error
        self._phase = REST
        command, _, count = tag.rpartition(" ")
        return int(count) if command and count.isdigit() and not command.startswith(("SELECT", "FETCH", "MOVE")) else 0

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """Run an INSERT; PostgreSQL tells keys through RETURNING alone."""
        return Inserted(await self.execute(sql, params), None)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement for each row of parameters: all of them or none. -1, as the counts are not told."""
        phase = self._begin(sql)
        try:
            await self.raw.executemany(sql, rows)
        except BaseException as error:
            raise await self._failure(phase, error, sql) from error
        self._phase = REST
        return -1

    async def copy(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, schema: str | None = None
    ) -> int:
        """Write rows by COPY, the fastest way there is: all of them or none; how many those were.

        Args:
            table: the name of the table, which the driver quotes.
            columns: the names of the columns.
            rows: a value for each column.
            schema: the table's schema; the first of the search path that has the table by default.
        """
        told = f"COPY {table}"
        phase = self._begin(told)
        try:
            tag: str = await self.raw.copy_records_to_table(table, columns=columns, records=rows, schema_name=schema)
        except BaseException as error:
            raise await self._failure(phase, error, told) from error
        self._phase = REST
        return int(tag.rpartition(" ")[2])

    async def script(self, sql: str) -> None:
        """Run statements without parameters; several of them are one transaction where none is open."""
        phase = self._begin(sql)
        try:
            await self.raw.execute(sql)
        except BaseException as error:
            raise await self._failure(phase, error, sql) from error
        self._phase = REST
        if self._cursors and not self.raw.is_in_transaction():
            self._cursors.clear()

    async def stream(
        self, sql: str, params: Sequence[Any] = (), *, size: int = 1000
    ) -> AsyncGenerator[list[Row], None]:
        """Run a SELECT; its rows in chunks, by a cursor of the server, in the transaction that the caller opened.

        Other statements may run on the connection between two chunks.
        """
        name = f"covet_{next(cursors)}"
        cursor: Any = None
        phase = self._begin(sql)
        try:
            if self._pgbouncer:
                await self.raw.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {sql}", *params)
            else:
                cursor = await self.raw.cursor(sql, *params)
        except BaseException as error:
            raise await self._failure(phase, error, sql, params) from error
        self._phase = REST
        self._cursors.add(name)
        try:
            while True:
                phase = self._begin(sql)
                try:
                    rows: list[Row]
                    if cursor is None:
                        rows = await self._fetch(f"FETCH FORWARD {size:d} FROM {name}")
                    else:
                        rows = await cursor.fetch(size)
                except BaseException as error:
                    raise await self._failure(phase, error, sql, params) from error
                self._phase = REST
                if rows:
                    yield rows
                if len(rows) < size:
                    break
        finally:
            await self._close_cursor(cursor, name)

    async def close(self) -> None:
        """End the session, after asking the server to cancel what is still under way."""
        try:
            await self.raw.close(timeout=CLOSE_SECONDS)
        except asyncio.CancelledError:
            self.terminate()
            raise
        except Exception as error:  # noqa: BLE001 - the connection is cut, whatever it was
            logger.debug("connection %d did not close in good order and was cut: %s", self.number, type(error).__name__)
            self.terminate()

    def terminate(self) -> None:
        """Cut the connection; the server goes on with what is under way."""
        self.raw.terminate()

    def _begin(self, sql: str) -> int:
        """Mark the connection as busy; what it was in."""
        phase = self._phase
        if phase >= BUSY:
            raise self._refused(sql)
        self._phase = BUSY
        self.statement = sql
        return phase

    def _refused(self, sql: str) -> DatabaseError:
        """The error about a connection that is not at rest; nothing is sent."""
        return interrupted(sql) if self._phase == BROKEN else ProgrammingError(not_in_use_twice(), statement=sql)

    async def _failure(self, phase: int, error: BaseException, sql: str, params: Sequence[Any] = ()) -> Exception:
        """Note what a failed statement left; what its error is here. What is none of a database is raised as it is."""
        if not isinstance(error, Exception):
            self._phase = BROKEN
            raise error
        if isinstance(error, asyncpg.PostgresError) and error.severity is not None:
            self._phase = FAILED if not self.raw.is_closed() and self.raw.is_in_transaction() else REST
        elif isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, AttributeError)):
            self._phase = phase
            await self._settle()
        else:
            # asyncpg has cancelled the statement (TimeoutError), or lost track of the protocol.
            self._phase = BROKEN
        translated = translate(error, sql, params)
        if translated is None:
            raise error
        if isinstance(translated, ReadOnlyDatabase) and self._is_demoted():
            # It answers whatever it is asked, and would be used again and again.
            self.terminate()
        return translated

    def _is_demoted(self) -> bool:
        """Whether a write was refused for what the server is, and not because its transaction only reads."""
        if not self._writes:
            return False
        told = self.raw.get_settings()
        if "on" in (getattr(told, "in_hot_standby", ""), getattr(told, "default_transaction_read_only", "")):
            return True
        return not self.raw.is_in_transaction()

    async def _prepared(self, sql: str) -> Any:
        """A prepared statement, with its exchange ended: see `_settle`."""
        statement = await self.raw.prepare(sql)
        if not self.raw.is_in_transaction():
            await self.raw.execute(PING)
        return statement

    async def _settle(self) -> None:
        """Make the server end what the driver itself refused to go on with.

        asyncpg asks the server what a new statement takes without ending that exchange. When the parameters do not fit,
        the server still waits for them, inside of a transaction of its own that holds locks on the statement's tables.
        """
        if self.state is SessionState.IDLE:
            self._phase = BROKEN
            try:
                await self.raw.execute(PING)
            except Exception as error:  # noqa: BLE001 - the connection stays broken, whatever it was
                logger.debug("connection %d is not used again: %s", self.number, type(error).__name__)
            else:
                self._phase = REST

    async def _close_cursor(self, cursor: Any, name: str) -> None:
        """Close a cursor, so that the server holds neither its rows nor its snapshot any longer."""
        # A generator may be closed when the next one has the connection.
        if name not in self._cursors or self.state is not SessionState.TRANSACTION:
            return
        self._cursors.discard(name)
        with move_on_after(CLOSE_SECONDS, shield=True):
            sql = f"CLOSE {name}"
            phase = self._begin(sql)
            try:
                if cursor is None:
                    await self.raw.execute(sql)
                else:
                    # A portal of the protocol has a name that no SQL knows, and asyncpg closes none in public.
                    await cursor._close_portal(CLOSE_SECONDS)
            except BaseException as error:  # noqa: BLE001 - `_failure` raises what is not the server's
                failure = await self._failure(phase, error, sql)
                logger.debug("connection %d: its cursor was not closed: %s", self.number, failure)
            else:
                self._phase = REST


class PostgreSQLDriver:
    """Makes connections to PostgreSQL.

    Args:
        target: where the database is. Several hosts are tried in their order, each for `connect_timeout`; where the one
            that takes writes is looked for, first the one that did last.
        options: the settings of the session.
        writes: whether a server that refuses to write is to be left, unless the options are for reading: a connection
            that learns of it is cut. Not so for a replica.

    Raises:
        ConfigurationError: the files for TLS cannot be used.

    Attributes:
        kind: `postgresql`.
    """

    def __init__(self, target: Target, options: PostgreSQLOptions | None = None, *, writes: bool = True) -> None:
        self.kind = "postgresql"
        self.target = target
        self.options = options = options or PostgreSQLOptions()
        self._arguments = _arguments(target, options)
        self._writes = writes and not options.only_reads
        chosen = len(target.hosts) > 1 and self._writes and not options.pgbouncer
        self._wanted = options.target_session_attrs or ("read-write" if chosen else "any")
        self._hosts = list(target.hosts)

    async def connect(self) -> PostgreSQLConnection:
        """A new connection to the first host that has one.

        Raises:
            DatabaseUnavailable: no host gave one, or none is what `target_session_attrs` asks for.
        """
        wanted = self._wanted
        refusals: list[tuple[Host, Exception]] = []
        for attribute in ("standby", "any") if wanted == "prefer-standby" else (wanted,):
            for host in tuple(self._hosts):
                try:
                    arguments = {**self._arguments, "target_session_attrs": attribute}
                    raw = await asyncpg.connect(host=host.name, port=host.port, **arguments)
                except Exception as error:  # noqa: BLE001 - raised when the last host has refused
                    refusals.append((host, error))
                else:
                    if wanted in ("primary", "read-write") and host != self._hosts[0]:
                        self._hosts.remove(host)
                        self._hosts.insert(0, host)
                    try:
                        give_up_after(raw._transport, self.options.tcp_timeout)
                        return PostgreSQLConnection(raw, pgbouncer=self.options.pgbouncer, writes=self._writes)
                    except BaseException:
                        raw.terminate()
                        raise
        raise self._unavailable(refusals)

    async def ping(self, connection: Connection) -> None:
        """Return when the connection still works, and its server is what `target_session_attrs` asks for.

        Raises:
            ConnectionLost: it does not, or is not.
        """
        wanted = self._wanted
        try:
            if wanted in ("any", "prefer-standby"):
                await connection.script(PING)
                return
            replica, read_only = (await connection.fetch(ROLE))[0]
        except DatabaseError as error:
            if isinstance(error, ConnectionLost):
                raise
            raise ConnectionLost(f"the connection does not answer: {error}", code=error.code) from error
        if {"primary": replica, "standby": not replica, "read-write": read_only, "read-only": not read_only}[wanted]:
            raise ConnectionLost(f"the server is not {wanted} any more (target_session_attrs)", sent=False)

    def _unavailable(self, refusals: list[tuple[Host, Exception]]) -> Exception:
        """One error for what the hosts said; the first of them is its cause."""
        seconds = self.options.connect_timeout
        errors: list[DatabaseUnavailable] = []
        for host, error in refusals:
            target = structs.replace(self.target, hosts=(host,))
            translated = translate_connect(error, target, seconds, pgbouncer=self.options.pgbouncer)
            if translated is None:
                return error
            translated.__cause__ = error
            errors.append(translated)
        if len(errors) == 1:
            return errors[0]
        told = "; ".join(dict.fromkeys(map(str, errors)))
        together = DatabaseUnavailable(told, code=errors[0].code)
        together.__cause__ = errors[0]
        return together


def _arguments(target: Target, options: PostgreSQLOptions) -> dict[str, Any]:
    """What asyncpg is asked for, besides the host."""
    settings = {"application_name": options.application_name, "timezone": "UTC"}
    for name, seconds in (
        ("statement_timeout", 0.0 if options.pgbouncer else options.statement_timeout),
        ("lock_timeout", options.lock_timeout),
        ("idle_in_transaction_session_timeout", options.idle_in_transaction_timeout),
    ):
        if seconds:
            settings[name] = str(max(1, round(seconds * 1000)))
    if options.read_only:
        settings["default_transaction_read_only"] = "on"
    settings.update(options.server_settings)
    # asyncpg looks for certificates of its own in the home directory; a context is taken as it is.
    tls: Any = options.tls if options.tls in ("disable", "prefer") else tls_context(options)
    return {
        "connection_class": Session,
        "user": target.user or None,
        "password": target.password,
        "database": target.database or None,
        "timeout": options.connect_timeout,
        "ssl": tls,
        "server_settings": settings,
        "statement_cache_size": 0 if options.pgbouncer else options.statement_cache_size,
        "max_cached_statement_lifetime": 0,
        "command_timeout": (options.statement_timeout or None) if options.pgbouncer else None,
    }
