"""SQLite through aiosqlite: a thread for each connection, one visit to it for each statement.

Placeholders are `?`. SQLite takes and gives int (64 bits), float, str, bytes and None, and nothing else; NaN, which it
would turn into NULL, is refused. Transactions are the caller's: nothing is begun by itself.

A cancelled statement is interrupted; the call ends when it has, and the connection is at rest. Where that takes longer
than a second, such as in a function written in Python, the connection is busy for good. An interrupted write takes its
transaction with it, as the state then tells (https://sqlite.org/c3ref/interrupt.html).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from anyio import CancelScope, fail_after, move_on_after

from covet.exceptions import ConfigurationError
from covet_orm.drivers.errors import interrupted, not_in_use_twice, unavailable
from covet_orm.drivers.errors_sqlite import NotANumberError, StatementEndedError, translate
from covet_orm.drivers.options import SQLiteOptions
from covet_orm.drivers.protocol import Connection, Inserted, Row, Rows, SessionState
from covet_orm.exceptions import ConnectionLost, DatabaseError, ProgrammingError, StatementTimeout
from covet_orm.urls import MEMORY, Target

try:
    from covet_orm.drivers.sqlite_thread import SQLiteThread
except ImportError as error:
    raise ConfigurationError("an SQLite database needs aiosqlite; type: pip install 'covet-orm[sqlite]'") from error

__all__ = ["SQLiteConnection", "SQLiteDriver"]

T = TypeVar("T")
logger = logging.getLogger("covet.orm")
CLOSE_SECONDS = 5.0
INTERRUPT_SECONDS = 1.0
INTERRUPT_AGAIN_SECONDS = 0.02
CACHED_STATEMENTS = 500
BUSY_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.05)
numbers = itertools.count(1)

REST, BUSY, BROKEN = range(3)


class SQLiteConnection:
    """A connection of `SQLiteDriver`. See `covet_orm.drivers.protocol.Connection`.

    Attributes:
        number: counts the connections of this process.
        server_id: None.
        statement: the last statement.
        raw: the connection of aiosqlite.
        lock_waited: how many seconds it has waited for locks of other connections, in all.
    """

    __slots__ = (
        "_before",
        "_busy_timeout",
        "_db",
        "_expired",
        "_options",
        "_phase",
        "_stop",
        "_timeout",
        "lock_waited",
        "number",
        "raw",
        "server_id",
        "statement",
    )

    def __init__(self, raw: SQLiteThread, db: sqlite3.Connection, options: SQLiteOptions) -> None:
        self.raw = raw
        self.number = next(numbers)
        self.server_id: int | None = None
        self.statement = ""
        self._db = db
        self._phase = REST
        self._stop = threading.Event()
        self._options = options
        self._before = ""
        self._timeout = options.statement_timeout
        self._busy_timeout = options.busy_timeout
        self._expired = False
        self.lock_waited = 0.0

    @property
    def state(self) -> SessionState:
        """What the session is in."""
        try:
            inside = self._db.in_transaction
        except sqlite3.ProgrammingError:
            return SessionState.CLOSED
        if self._phase != REST:
            return SessionState.BUSY
        return SessionState.TRANSACTION if inside or self._before else SessionState.IDLE

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a statement; all its rows, as tuples."""
        return await self._run(sql, self._fetch, sql, params)

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run a statement; all its rows and the names of their columns."""
        return await self._run(sql, self._query, sql, params)

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed."""
        return (await self._run(sql, self._execute, sql, params)).changed

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """Run an INSERT; with the row id of the last row, if it inserted one."""
        return await self._run(sql, self._execute, sql, params)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement for each row of parameters; where no transaction is open, in one of its own."""
        return await self._run(sql, self._execute_many, sql, rows)

    async def script(self, sql: str) -> None:
        """Run statements without parameters, one after the other; those before a wrong one stay done."""
        await self._run(sql, self._script, sql)

    async def stream(
        self, sql: str, params: Sequence[Any] = (), *, size: int = 1000
    ) -> AsyncGenerator[list[Row], None]:
        """Run a SELECT; its rows in chunks. Other statements may run on the connection between two chunks."""
        opened: list[sqlite3.Cursor] = []
        try:
            await self._run(sql, self._open, opened, sql, params)
            while True:
                rows: list[Row] = await self._run(sql, opened[0].fetchmany, size)
                if rows:
                    yield rows
                if len(rows) < size:
                    break
        finally:
            # Cancelled, it may have been opened all the same; and the end of its transaction ends it.
            if opened and opened[0] in self.raw.cursors and self.state in (SessionState.IDLE, SessionState.TRANSACTION):
                with CancelScope(shield=True):
                    await self._run(sql, self._shut, opened[0])

    async def close(self) -> None:
        """Close the file, after interrupting what is still under way; the thread ends."""
        if self._phase != REST:
            self._cut_short()
        try:
            with fail_after(CLOSE_SECONDS):
                await self.raw.leave()
        except asyncio.CancelledError:
            self.terminate()
            raise
        except Exception as error:  # noqa: BLE001 - the connection is cut, whatever it was
            logger.debug("connection %d did not close in good order and was cut: %s", self.number, type(error).__name__)
            self.terminate()

    def terminate(self) -> None:
        """Close the file as soon as what is under way was interrupted; the thread ends by itself."""
        self._cut_short()
        self.raw.stop()

    def _cut_short(self) -> None:
        """End what is under way; nothing is begun any longer."""
        self._phase = BROKEN
        self._stop.set()
        with suppress(sqlite3.ProgrammingError):  # it is closed
            self._db.interrupt()

    async def _run(self, sql: str, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the connection's thread."""
        if self._phase != REST:
            raise interrupted(sql) if self._phase == BROKEN else ProgrammingError(not_in_use_twice(), statement=sql)
        self._phase = BUSY
        self.statement = sql
        if self._before:
            function, args = self._after, (self._before, function, *args)
            self._before = ""
        timer = None
        if self._timeout:
            timer = asyncio.get_running_loop().call_later(self._timeout, self._expire)
        try:
            result = await self.raw.visit(function, *args)
        except BaseException as error:
            raise await self._failure(error, sql) from error
        finally:
            if timer is not None:
                timer.cancel()
        if self._phase == BUSY:
            self._phase = REST
        return result

    def prepend(self, sql: str) -> None:
        """Begin a transaction or a savepoint together with the next statement, in the same visit to the thread: each
        one costs as much as a small query."""
        self._before = f"{self._before}; {sql}" if self._before else sql

    def limit(self, statement_timeout: float | None, lock_timeout: float | None) -> None:
        """Have statements end sooner or later than the options say.

        Args:
            statement_timeout: seconds that a statement may take; None for what the options say.
            lock_timeout: seconds to wait for the lock of another connection; None for what the options say.
        """
        self._timeout = self._options.statement_timeout if statement_timeout is None else statement_timeout
        self._busy_timeout = self._options.busy_timeout if lock_timeout is None else lock_timeout

    def _expire(self) -> None:
        self._expired = True
        self._stop.set()
        self._db.interrupt()

    async def _failure(self, error: BaseException, sql: str) -> Exception:
        """Note what a failed statement left; what its error is here. What is none of a database is raised as it is."""
        if not isinstance(error, Exception):
            await self._interrupt()
            raise error
        if self._phase == BROKEN:
            return ConnectionLost("the connection was closed while the statement ran", statement=sql)
        self._phase = REST
        translated = translate(error, sql)
        if self._expired:
            self._expired = False
            self._stop.clear()
            if isinstance(translated, StatementTimeout):
                translated = StatementTimeout(
                    f"the statement took longer than statement_timeout ({self._timeout:g} seconds) and was interrupted",
                    code=translated.code,
                    statement=sql,
                )
        if translated is None:
            raise error
        return translated

    async def _interrupt(self) -> None:
        """Interrupt the statement under way and wait for its end; it may have ended, or not yet begun."""
        self._phase = BROKEN
        self._stop.set()
        with move_on_after(INTERRUPT_SECONDS, shield=True), _interrupting(self._db):
            await self.raw.visit(bool)  # the thread comes to it after the statement
            self._phase = REST
            self._stop.clear()

    def _step(self, sql: str, params: Sequence[Any] = ()) -> sqlite3.Cursor:
        """In the thread: begin a statement, and wait for the lock that it needs.

        SQLite could wait by itself, but then neither a cancelled statement nor one out of time could be ended.
        """
        for value in params:
            if value != value:
                raise NotANumberError
        deadline = 0.0
        for delay in itertools.chain(BUSY_DELAYS, itertools.repeat(BUSY_DELAYS[-1])):
            if self._stop.is_set():
                raise StatementEndedError
            try:
                return self._db.execute(sql, params)
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                deadline = deadline or now + self._busy_timeout
                if not _is_busy(error) or now >= deadline:
                    raise
            self._stop.wait(min(delay, deadline - now))
            self.lock_waited += time.monotonic() - now
        raise AssertionError("unreachable: the delays have no end")

    def _open(self, opened: list[sqlite3.Cursor], sql: str, params: Sequence[Any]) -> None:
        opened.append(self._step(sql, params))
        self.raw.cursors.update(opened)

    def _shut(self, cursor: sqlite3.Cursor) -> None:
        self.raw.cursors.discard(cursor)
        cursor.close()

    def _after(self, sql: str, function: Callable[..., T], *args: Any) -> T:
        self._script(sql)
        return function(*args)

    def _fetch(self, sql: str, params: Sequence[Any]) -> list[Row]:
        return self._step(sql, params).fetchall()

    def _query(self, sql: str, params: Sequence[Any]) -> Rows:
        cursor = self._step(sql, params)
        columns = tuple(column[0] for column in cursor.description or ())
        return Rows(columns, cursor.fetchall())

    def _execute(self, sql: str, params: Sequence[Any]) -> Inserted:
        cursor = self._step(sql, params)
        if cursor.description is not None:
            cursor.fetchall()
        changed = cursor.rowcount
        return Inserted(changed, cursor.lastrowid) if changed > 0 else Inserted(0, None)

    def _execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        own = not self._db.in_transaction
        if own:
            self._step("BEGIN IMMEDIATE")
        try:
            changed = self._db.executemany(sql, map(_holdable, rows)).rowcount
            if own:
                self._step("COMMIT")
        except BaseException:
            if own and self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return max(changed, 0)

    def _script(self, sql: str) -> None:
        inside = self._db.in_transaction
        for statement in _statements(sql):
            self._step(statement).close()
        if self.raw.cursors and inside and not self._db.in_transaction:
            # A statement that is left in the middle would go on to read, for whoever has the connection next.
            self.raw.end_cursors()


class SQLiteDriver:
    """Opens an SQLite database.

    A database in memory lives and dies with its connection, so that a pool of one connection is what it needs.

    Args:
        target: where the database is.
        options: the settings of the connections.

    Attributes:
        kind: `sqlite`.
    """

    def __init__(self, target: Target, options: SQLiteOptions | None = None) -> None:
        self.kind = "sqlite"
        self.target = target
        self.options = options or SQLiteOptions()

    async def connect(self) -> SQLiteConnection:
        """A new connection; the file is made when it is not there.

        Raises:
            DatabaseUnavailable: it cannot be opened, or is no database.
        """
        opening = _Opening(self.target.database, self.options)
        raw = SQLiteThread(opening)
        try:
            with fail_after(self.options.connect_timeout):
                db = await raw.enter()
        except BaseException as error:
            opening.abandon()
            if isinstance(error, TimeoutError):
                seconds = self.options.connect_timeout
                raise unavailable(self.target, f"not opened in {seconds:g} seconds (connect_timeout)") from error
            translated = translate(error, "")
            if translated is None:
                raise
            raise unavailable(self.target, str(translated), code=translated.code) from error
        try:
            return SQLiteConnection(raw, db, self.options)
        except BaseException:
            raw.stop()
            raise

    async def ping(self, connection: Connection) -> None:
        """Return when the connection still works.

        Raises:
            ConnectionLost: it does not.
        """
        try:
            await connection.fetch("SELECT 1")
        except DatabaseError as error:
            if isinstance(error, ConnectionLost):
                raise
            raise ConnectionLost(f"the connection does not work: {error}", code=error.code) from error


class _Opening:
    """Opens a database in the connection's thread, and closes it when nobody waits for it any longer."""

    def __init__(self, database: str, options: SQLiteOptions) -> None:
        self.database = database
        self.options = options
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._abandoned = False

    def __call__(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.database,
            timeout=self.options.busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
        )
        try:
            _configure(db, self.options, memory=self.database == MEMORY)
        except BaseException:
            db.close()
            raise
        with self._lock:
            if self._abandoned:
                db.close()
            else:
                self._db = db
        return db

    def abandon(self) -> None:
        """Close the database, now or when it is opened."""
        with self._lock:
            self._abandoned = True
            if self._db is not None:
                self._db.close()


def _configure(db: sqlite3.Connection, options: SQLiteOptions, *, memory: bool) -> None:
    """Make the session's settings (https://sqlite.org/pragma.html)."""
    for function in options.create_functions:
        if function.aggregate:
            made: Any = function.function
            db.create_aggregate(function.name, function.arguments, made)
            continue
        db.create_function(function.name, function.arguments, function.function, deterministic=function.deterministic)
    for name, value in (
        ("foreign_keys", int(options.foreign_keys)),
        ("synchronous", options.synchronous),
        ("cache_size", -options.cache_size),
        # As LIKE is on PostgreSQL, and so that an index can serve one that begins with letters.
        ("case_sensitive_like", 1),
    ):
        db.execute(f"PRAGMA {name} = {value}")
    if not memory and not options.read_only:
        _set_journal_mode(db, options)
    db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    if options.read_only:
        db.execute("PRAGMA query_only = 1")
    db.execute("PRAGMA busy_timeout = 0").close()  # from here on, `SQLiteConnection` waits


def _set_journal_mode(db: sqlite3.Connection, options: SQLiteOptions) -> None:
    """Set the journal mode, which is the file's own, unless it is that already: changing it needs the file for itself,
    and where another connection changes it as well SQLite does not wait."""
    deadline = time.monotonic() + options.busy_timeout
    while True:
        try:
            (mode,) = db.execute("PRAGMA journal_mode").fetchone()
            if mode != options.journal_mode:
                db.execute(f"PRAGMA journal_mode = {options.journal_mode}").fetchall()
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _statements(sql: str) -> Iterator[str]:
    """The statements of a script; `sqlite3.complete_statement` knows where a `;` ends none, in texts and triggers."""
    begin = 0
    end = sql.find(";")
    while end != -1:
        if sqlite3.complete_statement(sql[begin : end + 1]):
            yield sql[begin : end + 1]
            begin = end + 1
        end = sql.find(";", end + 1)
    if sql[begin:].strip():
        yield sql[begin:]


def _holdable(row: Sequence[Any]) -> Sequence[Any]:
    """A row without NaN."""
    for value in row:
        if value != value:
            raise NotANumberError
    return row


def _is_busy(error: sqlite3.Error) -> bool:
    """Whether the same statement can succeed later: a lock is in its way, not what its transaction has read before."""
    code = error.sqlite_errorcode
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT


@contextmanager
def _interrupting(db: sqlite3.Connection) -> Iterator[None]:
    """Interrupt what runs, again and again: it may be about to begin, which an interruption does not reach."""
    loop = asyncio.get_running_loop()
    timers: list[asyncio.Handle] = []

    def interrupt() -> None:
        db.interrupt()
        timers[:] = [loop.call_later(INTERRUPT_AGAIN_SECONDS, interrupt)]

    interrupt()
    try:
        yield
    finally:
        timers[0].cancel()
