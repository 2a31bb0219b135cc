"""Connections that note what was written, and reads that are asked again elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from covet_orm.drivers.protocol import Connection, Driver, Inserted, Row, Rows, SessionState
from covet_orm.exceptions import ConnectionLost, DatabaseError, DatabaseUnavailable
from covet_orm.replicas.positions import Position

if TYPE_CHECKING:
    from covet_orm.replicas.servers import Replication

__all__ = ["CheckedDriver", "PrimaryConnection", "PrimarySite", "ReplicaConnection", "ReplicaSite", "RoutedConnection"]

T = TypeVar("T")
Call = Callable[[Connection], Awaitable[Any]]
IDLE = SessionState.IDLE
READ_ONLY = ("BEGIN READ ONLY", "START TRANSACTION READ ONLY")


class PrimarySite(Protocol):
    """What a connection to the primary tells."""

    async def note(self, connection: PrimaryConnection) -> None:
        """Something was committed on it."""
        ...

    def failed(self, connection: PrimaryConnection, error: BaseException, *, uncertain: bool) -> None:
        """A statement failed; `uncertain` when it may have been committed all the same."""
        ...


class ReplicaSite(Protocol):
    """What a connection to a replica tells."""

    def failed(self, connection: ReplicaConnection, error: DatabaseError) -> bool:
        """A statement failed; whether another server is asked."""
        ...

    async def again(self, call: Call, error: DatabaseError) -> Any:
        """Ask another server."""
        ...


class RoutedConnection:
    """A connection of a driver. See `covet_orm.drivers.protocol.Connection`.

    Attributes:
        number, server_id: those of the driver's connection.
        statement: the last statement that was sent, for the pool.
        driven: the driver's connection.
    """

    def __init__(self, connection: Connection) -> None:
        self.driven = connection
        self.number = connection.number
        self.server_id = connection.server_id
        self.statement = ""

    @property
    def state(self) -> SessionState:
        """What the session is in."""
        return self.driven.state

    @property
    def in_recovery(self) -> bool | None:
        """Whether the server is a replica, where it tells so unasked."""
        told: bool | None = getattr(self.driven, "in_recovery", None)
        return told

    def __getattr__(self, name: str) -> Any:
        # What only some driver has, such as `raw`.
        if name == "driven":
            raise AttributeError(name)
        return getattr(self.driven, name)

    async def close(self) -> None:
        """End the session in good order."""
        await self.driven.close()

    def terminate(self) -> None:
        """Cut the connection."""
        self.driven.terminate()


class PrimaryConnection(RoutedConnection):
    """A connection to the primary, that notes the position of what was committed on it.

    The position costs a round trip after each statement outside of a transaction, and after each commit of one that may
    write.

    Attributes:
        reading: whether it was lent for reading alone, so that nothing is to be noted.
    """

    def __init__(self, connection: Connection, site: PrimarySite) -> None:
        super().__init__(connection)
        self.reading = False
        self._site = site
        self._in_read_only = False

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a statement; all its rows."""
        return await self._run(sql, lambda: self.driven.fetch(sql, params))

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run a statement; all its rows and the names of their columns."""
        return await self._run(sql, lambda: self.driven.query(sql, params))

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed."""
        return await self._run(sql, lambda: self.driven.execute(sql, params))

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """Run an INSERT without RETURNING."""
        return await self._run(sql, lambda: self.driven.insert(sql, params))

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each row of parameters."""
        return await self._run(sql, lambda: self.driven.execute_many(sql, rows), in_parts=True)

    async def copy(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, schema: str | None = None
    ) -> int:
        """Write rows by COPY (PostgreSQL)."""
        driven: Any = self.driven
        return await self._run(f"COPY {table}", lambda: driven.copy(table, columns, rows, schema=schema))

    async def script(self, sql: str) -> None:
        """Run statements without parameters."""
        if sql in READ_ONLY:
            self._in_read_only = True
            await self._run(sql, lambda: self.driven.script(sql))
        elif sql == "ROLLBACK" or (sql == "COMMIT" and self._in_read_only):
            await self.driven.script(sql)
            self._in_read_only = False
        else:
            await self._run(sql, lambda: self.driven.script(sql), in_parts=True)

    def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 1000) -> AsyncIterator[list[Row]]:
        """Run a SELECT; its rows in chunks."""
        self.statement = sql
        return self.driven.stream(sql, params, size=size)

    async def _run(self, sql: str, call: Callable[[], Awaitable[T]], *, in_parts: bool = False) -> T:
        """Run a statement, and note its position if that was committed.

        Args:
            sql: the statement.
            call: what to run.
            in_parts: whether one that fails may have been committed in part.
        """
        self.statement = sql
        if self.reading:
            return await call()
        try:
            result = await call()
        except BaseException as error:
            # What the server refused did not happen; what broke or was cancelled may have.
            refused = isinstance(error, DatabaseError) and not (isinstance(error, ConnectionLost) and error.sent)
            uncertain = in_parts or not refused
            self._site.failed(self, error, uncertain=uncertain and not self._in_read_only)
            raise
        if self.driven.state is IDLE:
            await self._site.note(self)
        return result


class ReplicaConnection(RoutedConnection):
    """A connection to a replica. A read whose server is gone is asked again elsewhere.

    Attributes:
        reached: how far the replica was when this connection asked last; it never goes back while the session lives.
    """

    def __init__(self, connection: Connection, site: ReplicaSite) -> None:
        super().__init__(connection)
        self.site = site
        self.reached: Position | None = None

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a statement; all its rows."""
        rows: list[Row] = await self._run(sql, lambda connection: connection.fetch(sql, params))
        return rows

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run a statement; all its rows and the names of their columns."""
        rows: Rows = await self._run(sql, lambda connection: connection.query(sql, params))
        return rows

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed."""
        self.statement = sql
        return await self.driven.execute(sql, params)

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """Run an INSERT, which a replica refuses."""
        return await self.driven.insert(sql, params)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each row of parameters."""
        return await self.driven.execute_many(sql, rows)

    async def script(self, sql: str) -> None:
        """Run statements without parameters."""
        await self.driven.script(sql)

    def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 1000) -> AsyncIterator[list[Row]]:
        """Run a SELECT; its rows in chunks. What breaks half-way is not asked again."""
        self.statement = sql
        return self.driven.stream(sql, params, size=size)

    async def _run(self, sql: str, call: Call) -> Any:
        self.statement = sql
        outside = self.driven.state is not SessionState.TRANSACTION
        try:
            return await call(self.driven)
        except DatabaseError as error:
            if not self.site.failed(self, error) or not outside:
                raise
            failure = error
        return await self.site.again(call, failure)


class CheckedDriver:
    """Makes connections to a server that has to have a role, and checks that it still has.

    A server that changed its role answers `SELECT 1` as before.

    Args:
        driver: makes them.
        replication: knows what to ask.
        wrap: what becomes of a connection.
        replica: whether the server is to be a replica, or the primary.
    """

    def __init__(
        self, driver: Driver, replication: Replication, wrap: Callable[[Connection], Connection], *, replica: bool
    ) -> None:
        self.driver = driver
        self.kind = driver.kind
        self.replication = replication
        self.replica = replica
        self._wrap = wrap

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            DatabaseUnavailable: it could not be made, or the server has another role.
        """
        connection = await self.driver.connect()
        self.kind = self.driver.kind
        try:
            await self._check(connection)
        except DatabaseError as error:
            await connection.close()
            raise DatabaseUnavailable(str(error), code=error.code) from error
        except BaseException:
            connection.terminate()
            raise
        return self._wrap(connection)

    async def ping(self, connection: Connection) -> None:
        """Return when the connection works and its server has its role.

        Raises:
            ConnectionLost: it does not, or has not.
        """
        driven = connection.driven if isinstance(connection, RoutedConnection) else connection
        try:
            await self._check(driven)
        except DatabaseError as error:
            if isinstance(error, ConnectionLost):
                raise
            raise ConnectionLost(f"the connection does not answer: {error}", code=error.code) from error

    async def _check(self, connection: Connection) -> None:
        if await self.replication.is_replica(connection) is not self.replica:
            words = "a replica, and is none" if self.replica else "the primary, and is a replica"
            raise ConnectionLost(f"the server is to be {words} now", sent=False)
