"""MySQL and MariaDB through aiomysql.

Placeholders are `%s`, and `%%` is a percent sign, with parameters or without; `script` takes its text as it is. What
goes in and comes out: int, float, str, bytes, `Decimal`, `date`, naive `datetime` (UTC, as the session's time zone),
`timedelta` (of TIME); json is text. An UPDATE counts the rows that it matched. A statement is one statement: several,
and LOAD DATA LOCAL, are switched off in the protocol.

A cancelled statement leaves the connection closed, as its answer would be taken for that of the next one. `close` then
tells the server to end the session, which otherwise goes on with the statement; `terminate` does not.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

from anyio import fail_after, move_on_after

from covet.exceptions import ConfigurationError
from covet_orm.drivers.errors import interrupted, not_in_use_twice
from covet_orm.drivers.options import MySQLOptions
from covet_orm.drivers.protocol import Connection, Inserted, Row, Rows, SessionState
from covet_orm.drivers.tls import tls_context
from covet_orm.exceptions import ConnectionLost, DatabaseError, ProgrammingError, ReadOnlyDatabase
from covet_orm.urls import Target

try:
    import aiomysql  # type: ignore[import-untyped] # noqa: F401 - what is missing is told here
except ImportError as error:
    raise ConfigurationError(
        "a MySQL or MariaDB database needs aiomysql; type: pip install 'covet-orm[mysql]'"
    ) from error

from covet_orm.drivers.errors_mysql import translate, translate_connect
from covet_orm.drivers.literals import batches, statement_with
from covet_orm.drivers.mysql_session import Session

__all__ = ["MySQLConnection", "MySQLDriver"]

logger = logging.getLogger("covet.orm")
NO_SUCH_THREAD = 1094
SERVER_READ_ONLY = ("1290", "1836")
CLOSE_SECONDS = 5.0
DRAIN_SECONDS = 0.2
numbers = itertools.count(1)

REST, BUSY, BROKEN = range(3)


class MySQLConnection:
    """A connection of `MySQLDriver`. See `covet_orm.drivers.protocol.Connection`.

    Attributes:
        number: counts the connections of this process.
        server_id: the id of its thread in the server.
        statement: the last statement.
        raw: the connection of aiomysql.
    """

    __slots__ = ("_driver", "_phase", "number", "raw", "server_id", "statement")

    def __init__(self, raw: Session, driver: MySQLDriver) -> None:
        self.raw = raw
        self.number = next(numbers)
        self.server_id: int | None = raw.thread_id()
        self.statement = ""
        self._driver = driver
        self._phase = REST

    @property
    def state(self) -> SessionState:
        """What the session is in."""
        if self.raw.is_gone:
            return SessionState.CLOSED
        if self._phase != REST:
            return SessionState.BUSY
        return SessionState.TRANSACTION if self.raw.get_transaction_status() else SessionState.IDLE

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a statement; all its rows, as tuples."""
        result = await self._run(sql, params)
        return list(result.rows or ())

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run a statement; all its rows and the names of their columns."""
        result = await self._run(sql, params)
        return Rows(tuple(column[0] for column in result.description or ()), list(result.rows or ()))

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed, or matched."""
        return _inserted(await self._run(sql, params)).changed

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """Run an INSERT; with the key that was generated for its first row, if one was."""
        return _inserted(await self._run(sql, params))

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement for each row of parameters; an INSERT of one row takes as many at a time as `max_packet` lets
        it. Where the caller opened no transaction, what was done before a wrong row stays done."""
        changed = 0
        size = self._driver.options.max_packet
        for statement in batches(sql, rows, backslash_escapes=self.raw.backslash_escapes, size=size):
            changed += _inserted(await self._send(sql, statement, quotable=False)).changed
        return changed

    async def script(self, sql: str) -> None:
        """Run one statement without parameters, its text as it is."""
        await self._send(sql, sql.encode("utf-8", "backslashreplace"), quotable=True)

    async def stream(
        self, sql: str, params: Sequence[Any] = (), *, size: int = 1000
    ) -> AsyncGenerator[list[Row], None]:
        """Run a SELECT; its rows in chunks, as the server sends them. No other statement can run meanwhile.

        Left early, the server is asked to send no more, from a second connection; what is on its way is read.
        """
        statement = statement_with(sql, params, backslash_escapes=self.raw.backslash_escapes)
        if self._phase != REST:
            raise self._refused(sql)
        self._phase = BUSY
        self.statement = sql
        try:
            result = await self.raw.open(statement)
        except BaseException as error:
            raise await self._failure(error, sql) from error
        try:
            while result.unbuffered_active:
                try:
                    rows: list[Row] = await self.raw.read_rows(result, size)
                except BaseException as error:
                    raise await self._failure(error, sql) from error
                if rows:
                    yield rows
        finally:
            if self._phase == BUSY:
                await self._finish(result, sql)

    async def close(self) -> None:
        """End the session; when a statement was interrupted, by telling the server to."""
        try:
            with fail_after(CLOSE_SECONDS):
                if self._phase != REST and self.server_id is not None:
                    self.raw.cut()
                    await self._driver.kill(self.server_id)
                else:
                    await self.raw.leave()
        except asyncio.CancelledError:
            self.terminate()
            raise
        except Exception as error:  # noqa: BLE001 - the connection is cut, whatever it was
            logger.debug("connection %d did not close in good order and was cut: %s", self.number, type(error).__name__)
            self.terminate()

    def terminate(self) -> None:
        """Cut the connection; the server goes on with what is under way."""
        self._phase = BROKEN
        self.raw.cut()

    async def _run(self, sql: str, params: Sequence[Any]) -> Any:
        statement = statement_with(sql, params, backslash_escapes=self.raw.backslash_escapes)
        return await self._send(sql, statement, quotable=not params)

    async def _send(self, sql: str, statement: bytes, *, quotable: bool) -> Any:
        if self._phase != REST:
            raise self._refused(sql)
        self._phase = BUSY
        self.statement = sql
        try:
            result = await self.raw.run(statement)
        except BaseException as error:
            raise await self._failure(error, sql, quotable=quotable) from error
        self._phase = REST
        return result

    def _refused(self, sql: str) -> DatabaseError:
        """The error about a connection that is not at rest; nothing is sent."""
        return interrupted(sql) if self._phase == BROKEN else ProgrammingError(not_in_use_twice(), statement=sql)

    async def _failure(self, error: BaseException, sql: str, *, quotable: bool = False) -> Exception:
        """Note what a failed statement left; what its error is here. What is none of a database is raised as it is."""
        translated = translate(error, sql, quotable=quotable) if isinstance(error, Exception) else None
        demoted = isinstance(translated, ReadOnlyDatabase) and translated.code in SERVER_READ_ONLY
        if translated is None or isinstance(translated, ConnectionLost) or (demoted and self._driver.writes):
            self._phase = BROKEN
            self.raw.cut()
            if translated is None:
                raise error
            return translated
        if self.raw.get_transaction_status():
            # An error does not tell whether the server rolled the transaction back, as for a deadlock; an answer does.
            try:
                await self.raw.ping(reconnect=False)
            except BaseException as second:
                self._phase = BROKEN
                self.raw.cut()
                if not isinstance(second, Exception):
                    raise
        self._phase = REST
        return translated

    async def _finish(self, result: Any, sql: str) -> None:
        """Bring a stream that was left early to its end: by reading it; if that takes long, the server ends it."""
        reading = asyncio.ensure_future(self.raw.drain(result))
        try:
            with move_on_after(CLOSE_SECONDS, shield=True):
                await asyncio.wait([reading], timeout=DRAIN_SECONDS)
                if not reading.done() and self.server_id is not None:
                    await self._driver.kill(self.server_id, statement_only=True)
                await reading
                self._phase = REST
        except Exception as error:  # noqa: BLE001 - the connection is cut, whatever it was
            logger.debug("connection %d is not used again: %s", self.number, type(error).__name__)
        finally:
            if self._phase != REST:
                reading.cancel()
                self.terminate()


class MySQLDriver:
    """Makes connections to MySQL or MariaDB.

    Args:
        target: where the database is.
        options: the settings of the session.
        writes: whether a server that refuses to write is to be left, unless the options are for reading: a connection
            that learns of it is cut. Not so for a replica.

    Raises:
        ConfigurationError: the files for TLS cannot be used.

    Attributes:
        writes: whether that is so.
        kind: `mysql` or `mariadb`; by the URL's scheme before the first connection, by the server's version after it.
        server_version: the server's own words; empty before the first connection.
    """

    def __init__(self, target: Target, options: MySQLOptions | None = None, *, writes: bool = True) -> None:
        self.kind = target.scheme
        self.target = target
        self.options = options or MySQLOptions()
        self.writes = writes and not self.options.only_reads
        self.server_version = ""
        self._tls = tls_context(self.options)

    async def connect(self) -> MySQLConnection:
        """A new connection.

        Raises:
            DatabaseUnavailable: it could not be made.
        """
        raw = await self._session()
        try:
            return MySQLConnection(raw, self)
        except BaseException:
            raw.cut()
            raise

    async def ping(self, connection: Connection) -> None:
        """Return when the connection still works.

        Raises:
            ConnectionLost: it does not.
        """
        try:
            await connection.script("DO 0")
        except DatabaseError as error:
            if isinstance(error, ConnectionLost):
                raise
            raise ConnectionLost(f"the connection does not answer: {error}", code=error.code) from error

    async def kill(self, server_id: int, *, statement_only: bool = False) -> None:
        """End another session, or what it does, through a connection of its own.

        Raises:
            DatabaseError: no connection for it could be made, or the server refused.
        """
        raw = await self._session()
        try:
            await raw.run(b"KILL %s%d" % (b"QUERY " if statement_only else b"", server_id))
        except Exception as error:
            if getattr(error, "args", (0,))[0] != NO_SUCH_THREAD:
                translated = translate(error, "KILL")
                if translated is None:
                    raise
                raise translated from error
        finally:
            raw.cut()

    async def _session(self) -> Session:
        """Log in and make the session's settings."""
        host = self.target.hosts[0]
        place = {"unix_socket": host.name} if host.is_socket else {"host": host.name, "port": host.port}
        raw = Session(
            require_tls=self.options.tls not in ("disable", "prefer") and not host.is_socket,
            user=self.target.user or None,
            # aiomysql encodes it as Latin-1; the server compares bytes, which are UTF-8 wherever else one logs in.
            password=(self.target.password or "").encode().decode("latin-1"),
            db=self.target.database or None,
            charset=self.options.charset,
            autocommit=None,
            local_infile=False,
            ssl=None if host.is_socket else self._tls,
            program_name=self.options.application_name,
            **place,
        )
        try:
            with fail_after(self.options.connect_timeout):
                await raw.enter()
                raw.give_up_after(self.options.tcp_timeout)
                self.server_version = raw.get_server_info()
                self.kind = "mariadb" if "mariadb" in self.server_version.lower() else "mysql"
                for statement in self._settings():
                    await raw.run(statement)
        except BaseException as error:
            raw.cut()
            translated = translate_connect(error, self.target, self.options.connect_timeout)
            if translated is None:
                raise
            raise translated from error
        return raw

    def _settings(self) -> list[bytes]:
        """The statements that make the session's settings."""
        options = self.options
        settings = [f"sql_mode = '{options.sql_mode}'", "time_zone = '+00:00'", "autocommit = 1"]
        if options.lock_timeout:
            settings.append(f"innodb_lock_wait_timeout = {max(1, round(options.lock_timeout))}")
        if options.statement_timeout and self.kind == "mariadb":
            settings.append(f"max_statement_time = {options.statement_timeout:.6f}")
        elif options.statement_timeout:
            settings.append(f"max_execution_time = {max(1, round(options.statement_timeout * 1000))}")
        statements = [f"SET NAMES {options.charset}, {', '.join(settings)}"]
        if options.read_only:
            statements.append("SET SESSION TRANSACTION READ ONLY")
        return [statement.encode() for statement in statements]


def _inserted(result: Any) -> Inserted:
    """What a result tells about rows; a result with rows changed none."""
    if result.description is not None:
        return Inserted(0, None)
    return Inserted(result.affected_rows, result.insert_id or None)
