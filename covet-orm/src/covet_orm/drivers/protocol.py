"""What a driver gives to the pool and to the data path: connections that all behave alike.

A connection is used by one task at a time; the pool sees to that. Every method raises the errors of
`covet_orm.exceptions` alone, with the driver's own as `__cause__`; a bug in the caller (a wrong number of parameters)
is a `ProgrammingError` or `DataError` as well. SQL and parameters are passed on as they are: the SQL in the
placeholders of the driver (`$1`, `%s`, `?`), the parameters as the driver takes them.

Cancellation: a statement that is cancelled leaves its connection `broken`, unless the driver knows for certain that it
is at rest again. A broken connection is never used again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

__all__ = ["Connection", "Driver", "Inserted", "Row", "Rows", "SessionState"]

Row = Sequence[Any]
"""A row as a driver gives it; it unpacks into its columns, in the order of the statement."""


class SessionState(Enum):
    """What a connection's session is in, as the protocol of its server tells: nobody's bookkeeping."""

    IDLE = "idle"
    """At rest, outside of a transaction."""
    TRANSACTION = "in a transaction"
    """At rest, inside of one."""
    FAILED = "in a failed transaction"
    """Inside of one that can only be rolled back (PostgreSQL)."""
    BUSY = "busy"
    """A statement is under way, or was interrupted."""
    CLOSED = "closed"
    """Closed by either side, or broken."""


class Rows(NamedTuple):
    """Rows with the names of their columns."""

    columns: tuple[str, ...]
    rows: list[Row]


class Inserted(NamedTuple):
    """What an INSERT without RETURNING tells."""

    changed: int
    last_id: int | None
    """The key that the server generated for the (first) row (MySQL) or the last one (SQLite), if it did."""


class Connection(Protocol):
    """A connection to a server, or to a file.

    Attributes:
        number: counts the connections that this process made; for messages.
        server_id: the server's name for it (process id, thread id), for messages and for ending its statements from
            another connection; None where there is none.
        statement: the last statement that was sent, without parameters, which a pool that has no connection left tells
            of. The pool empties it when the connection is released.
    """

    number: int
    server_id: int | None
    statement: str

    @property
    def state(self) -> SessionState:
        """Told by the protocol, at the cost of an attribute or two."""
        ...

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a statement; all its rows."""
        ...

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run a statement; all its rows and the names of their columns."""
        ...

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed (matched, for an UPDATE), 0 where that makes no sense."""
        ...

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """Run an INSERT without RETURNING."""
        ...

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each row of parameters; how many rows it changed in all, -1 where that is not told.
        Not atomic by itself where the caller opened no transaction and the driver has none of its own."""
        ...

    async def script(self, sql: str) -> None:
        """Run statements without parameters, several if the server takes several: BEGIN, SET, DDL."""

    def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 1000) -> AsyncIterator[list[Row]]:
        """Run a SELECT; its rows in chunks of at most `size`, held by the server or the file until they are asked for.

        An iteration that is left early must be closed with `aclose()`; the connection is at rest afterwards. On
        PostgreSQL the caller has opened a transaction.
        """
        ...

    async def close(self) -> None:
        """End the session in good order. Does not raise; cancelled or after 5 seconds, it is cut."""

    def terminate(self) -> None:
        """Cut the connection at once, without a word to the server. Idempotent."""


class Driver(Protocol):
    """Makes connections to one server; knows its settings.

    Attributes:
        kind: `postgresql`, `mariadb`, `mysql` or `sqlite`; of MySQL and MariaDB, which of the two it is is known after
            the first connection.
    """

    kind: str

    async def connect(self) -> Connection:
        """A new connection with the session's settings made (time zone UTC, strict mode, statement timeout, ...).

        Cancelled at any await, it leaves no connection behind.

        Raises:
            DatabaseUnavailable: it could not be made, or not in `connect_timeout` seconds.
        """
        ...

    async def ping(self, connection: Connection) -> None:
        """Return when the connection still works; one round trip. Raises `ConnectionLost` when not."""
