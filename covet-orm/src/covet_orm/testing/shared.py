"""One connection for a whole test: whatever the test and the application do happens inside of one transaction, which is
rolled back when the test ends.

The code under test notices nothing. It takes connections from a pool, one task at a time and in turn, as from a pool of
one connection; what would begin a transaction sets a savepoint, what would commit it releases that savepoint, and what
would roll it back goes back to it. So transactions, blocks inside of them and errors behave as ever, and all of it is
seen by every task of the test and by nobody else.

What differs, since there is one connection and one transaction that never commits:

- A task that holds a connection or is inside of a transaction keeps all others waiting; waiting for one of these is a
  `PoolTimeout`, which says who holds the connection.
- Isolation levels, `read_only` and deferred constraints have no effect, and a read lock meets nobody.
- What ends a transaction by itself ends the test's: on MySQL and MariaDB, statements that change the schema do. The
  test fails with an error that says so.
- A cancelled statement is waited for: its connection is the only one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from covet_orm.databases import Lane
from covet_orm.drivers.protocol import Connection, Inserted, Row, Rows, SessionState
from covet_orm.exceptions import DatabaseUnavailable, NotSupported, TransactionError
from covet_orm.pool import Pool
from covet_orm.transactions.options import begin_statement

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["SharedConnection", "SharedDriver", "SharedLane", "SharedTransaction"]

T = TypeVar("T")
IDLE, INSIDE, FAILED = SessionState.IDLE, SessionState.TRANSACTION, SessionState.FAILED
GUARD = "covet_test_statement"
"""The savepoint around a statement outside of the transactions of the code under test, on PostgreSQL: there an error
would spoil the test's own transaction."""


class SharedTransaction:
    """The transaction of a test, and the pools whose connections are all this one.

    Args:
        database: the database of the tests.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.kind = database.kind
        self.raw: Connection | None = None
        self.ended_by = ""
        self._lock = asyncio.Lock()
        self._savepoints = 0
        settings = msgspec.structs.replace(
            database._pool_settings, min_size=0, max_size=1, max_age=None, max_idle=None, check_after_idle=None
        )
        self.pool = Pool(SharedDriver(self), settings, name=database.alias)
        # Whoever holds the connection and needs a second one is let through.
        apart = msgspec.structs.replace(settings, max_size=10)
        self.apart = Pool(SharedDriver(self), apart, name=f"{database.alias} (apart)")

    async def begin(self) -> None:
        """Connect and begin.

        Raises:
            DatabaseUnavailable: no connection could be made.
        """
        self.raw = await self.database._driver.connect()
        try:
            self.kind = self.database.kind = self.database._driver.kind
            await self.raw.script(begin_statement(self.kind))
            await self.pool.open()
            await self.apart.open()
        except BaseException:
            self.raw.terminate()
            raise

    async def rollback(self) -> None:
        """Roll back and disconnect. What tasks of the test still hold is cut after two seconds."""
        assert self.raw is not None
        try:
            await self.pool.close(2.0)
            await self.apart.close(2.0)
            if self.raw.state in (INSIDE, FAILED):
                await self.raw.script("ROLLBACK")
        finally:
            await self.raw.close()

    def lane(self) -> Lane:
        """What stands in for the pools of a database in this event loop."""
        lane = SharedLane(asyncio.get_running_loop(), self.pool, self.pool)
        lane.apart = self.apart
        return lane

    def savepoint(self) -> str:
        """The name of another savepoint."""
        self._savepoints += 1
        return f"covet_test_{self._savepoints}"

    async def run(self, sql: str, call: Callable[[Connection], Awaitable[T]], *, guarded: bool) -> T:
        """Run a statement of the code under test.

        Args:
            sql: its text.
            call: runs it.
            guarded: whether an error must not spoil the transaction around it.

        Raises:
            TransactionError: the test's transaction has ended.
            DatabaseError: what the database says.
        """
        async with self._lock:
            running = asyncio.ensure_future(self._run(sql, call, guarded=guarded))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                # Its end is waited for, however often one cancels; its result is nobody's.
                while not running.done():
                    try:
                        await asyncio.wait([running])
                    except asyncio.CancelledError:
                        continue
                if not running.cancelled():
                    running.exception()
                raise

    async def _run(self, sql: str, call: Callable[[Connection], Awaitable[T]], *, guarded: bool) -> T:
        raw = self.raw
        assert raw is not None
        guarded = guarded and self.kind == "postgresql"
        if guarded:
            await raw.script(f"SAVEPOINT {GUARD}")
        try:
            result = await call(raw)
        except Exception:
            if guarded and raw.state in (INSIDE, FAILED):
                await raw.script(f"ROLLBACK TO SAVEPOINT {GUARD}; RELEASE SAVEPOINT {GUARD}")
            self._look(sql)
            raise
        if guarded:
            await raw.script(f"RELEASE SAVEPOINT {GUARD}")
        if self._look(sql):
            raise TransactionError(self.ending())
        return result

    def _look(self, sql: str) -> bool:
        """Note whether the test's transaction has ended."""
        assert self.raw is not None
        if self.raw.state in (INSIDE, FAILED):
            return False
        self.ended_by = self.ended_by or " ".join(sql.split())[:200]
        return True

    def ending(self) -> str:
        """Why there is no transaction any more."""
        return (
            f"the transaction of this test was ended by {self.ended_by!r}: on MySQL and MariaDB a statement that "
            "changes the schema commits, a deadlock rolls back, and a broken connection does on every database; use "
            "the fixture `db_committed` for such a test"
        )


class SharedLane(Lane):
    """Pools that belong to the test: a database that is closed meanwhile leaves them open."""

    __slots__ = ()

    @classmethod
    def of(cls, database: Database) -> SharedLane:
        """The pools that a database has in this event loop."""
        loop = asyncio.get_running_loop()
        own = database._lanes[loop]
        lane = cls(loop, own.writers, own.readers)
        lane.apart = own.apart
        return lane

    def pools(self) -> list[Pool]:
        """None, as none is the database's own."""
        return []


class SharedConnection:
    """The connection of a test, as one task sees it. See `covet_orm.drivers.protocol.Connection`.

    Args:
        shared: the test's transaction.
        number: the connection's.
    """

    prepend = None
    """What begins a transaction is made a savepoint here, and goes to `script`, whatever the connection could do."""

    def __init__(self, shared: SharedTransaction, connection: Connection) -> None:
        self.number = connection.number
        self.server_id = connection.server_id
        self.statement = ""
        self._shared = shared
        self._raw = connection
        self._savepoint: str | None = None
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    @property
    def state(self) -> SessionState:
        """What a session of its own would be in."""
        state = self._raw.state
        if self._ended or state is IDLE:
            return SessionState.CLOSED
        if state in (INSIDE, FAILED) and self._savepoint is None:
            return IDLE
        return state

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """As the connection's."""
        return await self._run(sql, lambda raw: raw.fetch(sql, params))

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """As the connection's."""
        return await self._run(sql, lambda raw: raw.query(sql, params))

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """As the connection's."""
        if await self._control(sql):
            return 0
        return await self._run(sql, lambda raw: raw.execute(sql, params))

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """As the connection's."""
        return await self._run(sql, lambda raw: raw.insert(sql, params))

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """As the connection's."""
        return await self._run(sql, lambda raw: raw.execute_many(sql, rows))

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], **options: Any) -> int:
        """As the connection's, where it has it (PostgreSQL)."""

        async def run(raw: Any) -> int:
            copied: int = await raw.copy(table, columns, rows, **options)
            return copied

        return await self._run(f"COPY {table}", run)

    async def script(self, sql: str) -> None:
        """As the connection's; what begins and ends transactions becomes a savepoint."""
        if not await self._control(sql):
            await self._run(sql, lambda raw: raw.script(sql))

    async def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 1000) -> AsyncIterator[list[Row]]:
        """As the connection's."""
        self.statement = sql
        stream: Any = self._raw.stream(sql, params, size=size)
        try:
            async for rows in stream:
                yield rows
        finally:
            await stream.aclose()

    async def close(self) -> None:
        """End it for this task; a transaction that is open is rolled back."""
        if self._savepoint is not None and self._raw.state in (INSIDE, FAILED):
            await self._back()
        self._ended = True

    def terminate(self) -> None:
        """End it for this task. The next one that is made rolls back what is open."""
        self._ended = True

    async def _run(self, sql: str, call: Callable[[Connection], Awaitable[T]]) -> T:
        self.statement = sql
        return await self._shared.run(sql, call, guarded=self._savepoint is None)

    async def _control(self, sql: str) -> bool:
        """Whether a statement begins or ends a transaction, or says how; then what it stands for was done."""
        words = sql.upper().split()
        verb, then = words[0] if words else "", words[1] if len(words) > 1 else ""
        if verb in ("BEGIN", "START"):
            if self._savepoint is not None:
                raise TransactionError("a transaction has begun already")
            name = self._shared.savepoint()
            await self._script(f"SAVEPOINT {name}")
            self._savepoint = name
            return True
        if verb in ("COMMIT", "END") and then != "PREPARED":
            if self._raw.state is FAILED:
                await self._back()
            elif self._savepoint is not None:
                name, self._savepoint = self._savepoint, None
                await self._script(f"RELEASE SAVEPOINT {name}")
            return True
        if verb == "ROLLBACK" and then in ("", ";", "WORK", "TRANSACTION"):
            if self._savepoint is not None:
                await self._back()
            return True
        if verb == "XA" or "PREPARED" in (then,) or (verb, then) == ("PREPARE", "TRANSACTION"):
            raise NotSupported(
                "a transaction in two phases ends that of the test; use the fixture `db_committed` for such a test"
            )
        return (verb, then) == ("SET", "TRANSACTION")

    async def _back(self) -> None:
        name, self._savepoint = self._savepoint, None
        await self._script(f"ROLLBACK TO SAVEPOINT {name}")
        await self._script(f"RELEASE SAVEPOINT {name}")

    async def _script(self, sql: str) -> None:
        self.statement = sql
        await self._shared.run(sql, lambda raw: raw.script(sql), guarded=False)


class SharedDriver:
    """Gives out the connection of a test. See `covet_orm.drivers.protocol.Driver`.

    Args:
        shared: the test's transaction.
    """

    def __init__(self, shared: SharedTransaction) -> None:
        self.kind = shared.kind
        self._shared = shared
        self._last: SharedConnection | None = None

    async def connect(self) -> SharedConnection:
        """The connection, without what its last holder has left open.

        Raises:
            DatabaseUnavailable: the test's transaction has ended.
        """
        raw = self._shared.raw
        if self._last is not None:
            await self._last.close()
        if raw is None or raw.state not in (INSIDE, FAILED):
            raise DatabaseUnavailable(self._shared.ending())
        self._last = SharedConnection(self._shared, raw)
        return self._last

    async def ping(self, connection: Connection) -> None:
        """Return when the connection works.

        Raises:
            ConnectionLost: it does not.
        """
        await connection.fetch("SELECT 1")
