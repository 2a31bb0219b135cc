"""Who is told of queries: the listeners of the application, watchers of one database, and the log of slow queries.

Nothing here is imported, built or asked for while nobody listens. A connection that is listened to is wrapped while
somebody holds it; a database that is watched gets methods of its own, in place of those of its class.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from msgspec import Meta, Struct

from covet.context import current_request
from covet.events import listener
from covet_orm.drivers.protocol import Connection, Inserted, Row, Rows, SessionState
from covet_orm.events import Obtained, QueryDone

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet_orm.databases import Database
    from covet_orm.queries.plans import Plan

__all__ = [
    "WATCHED",
    "ObservedConnection",
    "ObservingSettings",
    "Watcher",
    "caller",
    "log_slow_queries",
    "observed",
    "observed_connection",
    "told_of",
    "unobserved",
    "unwatch",
    "watch",
]

logger = logging.getLogger("covet_orm.queries")

T = TypeVar("T")
Watcher = Callable[[QueryDone], None]
"""Is told of every statement of a database, in the task that ran it; it returns at once and raises nothing."""

INNER = ("covet_orm.", "covet.", "asyncio.", "contextlib", "anyio.", "functools")
"""The modules that ask for nothing on their own account."""
WATCHED = ("_fetch", "write", "connection")
"""The methods of a database that `watch` replaces."""
SHOWN = 2000
"""How much of the text of parameters is kept, in characters."""


class ObservingSettings(Struct, frozen=True, kw_only=True):
    """What is told of queries. Times are in seconds."""

    slow_query: (
        Annotated[float, Meta(ge=0, description="Seconds from which a query is logged, with the line that asked.")]
        | None
    ) = None
    show_parameters: Annotated[
        bool, Meta(description="Whether events and the log of slow queries show the values of queries.")
    ] = False
    slow_transaction: (
        Annotated[
            float, Meta(ge=0, description="Seconds from which a transaction is logged, with the line of its block.")
        ]
        | None
    ) = None
    idle_in_transaction_warning: (
        Annotated[
            float,
            Meta(
                ge=0,
                description="Seconds without a statement after which an open transaction is warned of, with the stack "
                "where it was opened; 0 for never. By default 5 in debug mode, and never otherwise.",
            ),
        ]
        | None
    ) = None
    warn_n_plus_one: Annotated[
        bool, Meta(description="Whether a request that queries in a loop is warned of in debug mode.")
    ] = True
    warn_lock_order: Annotated[
        bool, Meta(description="Whether tables that are locked in different orders are warned of in debug mode.")
    ] = True


class ObservedConnection:
    """A connection whose statements are told of. See `covet_orm.drivers.protocol.Connection`.

    Args:
        connection: the connection itself, which this one is in all other things.
        database: where it leads to.
        tell: is called with every event.
        obtained: how it was got, and `waited` how many seconds that took.
        name: what the ORM calls the statement that it is for; empty for SQL of the caller's.
        shows: whether its parameters are told where `show_parameters` allows it.
    """

    __slots__ = (
        "_database",
        "_name",
        "_obtained",
        "_shows",
        "_tell",
        "_waited",
        "connection",
        "number",
        "server_id",
        "statement",
    )

    def __init__(
        self,
        connection: Connection,
        database: Database,
        tell: Callable[[QueryDone], None],
        obtained: Obtained,
        waited: float,
        name: str = "",
        *,
        shows: bool = True,
    ) -> None:
        self.connection = connection
        self.number = connection.number
        self.server_id = connection.server_id
        self.statement = ""
        self._database = database
        self._tell = tell
        self._obtained: Obtained = obtained
        self._waited = waited
        self._name = name
        self._shows = shows

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    @property
    def state(self) -> SessionState:
        """What the session is in."""
        return self.connection.state

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """As the connection's."""
        return await self._observe(self.connection.fetch(sql, params), sql, params, len)

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """As the connection's."""
        return await self._observe(self.connection.query(sql, params), sql, params, _rows)

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """As the connection's."""
        return await self._observe(self.connection.execute(sql, params), sql, params, int)

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        """As the connection's."""
        return await self._observe(self.connection.insert(sql, params), sql, params, _changed)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """As the connection's."""
        return await self._observe(self.connection.execute_many(sql, rows), sql, rows, _counted)

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], **options: Any) -> int:
        """As the connection's, where it has it (PostgreSQL)."""
        running = self.__getattr__("copy")(table, columns, rows, **options)
        return await self._observe(running, f"COPY {table}", rows, int)

    async def script(self, sql: str) -> None:
        """As the connection's."""
        await self._observe(self.connection.script(sql), sql, (), _none)

    async def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 1000) -> AsyncIterator[list[Row]]:
        """As the connection's. The time of the loop that takes the rows is not counted."""
        stream: Any = self.connection.stream(sql, params, size=size)
        spent, count = 0.0, 0
        try:
            while True:
                began = perf_counter()
                try:
                    rows = await anext(stream, None)
                finally:
                    spent += perf_counter() - began
                if rows is None:
                    break
                count += len(rows)
                yield rows
        except GeneratorExit:
            self._done(sql, params, count, spent, None)
            raise
        except BaseException as error:
            self._done(sql, params, count, spent, error)
            raise
        else:
            self._done(sql, params, count, spent, None)
        finally:
            await stream.aclose()

    async def close(self) -> None:
        """As the connection's."""
        await self.connection.close()

    def terminate(self) -> None:
        """As the connection's."""
        self.connection.terminate()

    async def _observe(self, running: Awaitable[T], sql: str, parameters: Any, count: Callable[[T], int]) -> T:
        self.statement = sql
        began = perf_counter()
        try:
            result = await running
        except BaseException as error:
            self._done(sql, parameters, 0, perf_counter() - began, error)
            raise
        self._done(sql, parameters, count(result), perf_counter() - began, None)
        return result

    def _done(self, sql: str, parameters: Any, rows: int, seconds: float, error: BaseException | None) -> None:
        settings = self._database.observing
        where = ""
        if settings.slow_query is not None and seconds >= settings.slow_query:
            frame = caller()
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "nobody's line"
        request = current_request()
        route = request.route if request is not None else None
        event = QueryDone(
            self._database.alias,
            self._name,
            sql,
            _shown(parameters) if settings.show_parameters and self._shows else None,
            rows,
            seconds,
            self._waited,
            self._obtained,
            route.path if route is not None else "",
            type(error).__name__ if error is not None else None,
            str(getattr(error, "code", "")),
            where,
        )
        if self._obtained != "transaction":
            self._obtained, self._waited = "held", 0.0
        self._tell(event)


async def observed(
    database: Database, app: Covet | None, plan: Plan, parameters: Sequence[Any], *, reads: bool
) -> list[Row]:
    """Run a plan and tell of it; its rows. `Database.fetch_rows` and `write_rows` come here when somebody listens."""
    async with observed_connection(database, app, reads=reads, name=plan.name) as connection:
        return await connection.fetch(plan.sql, parameters)


@asynccontextmanager
async def observed_connection(
    database: Database, app: Covet | None, *, reads: bool = False, name: str = ""
) -> AsyncIterator[Connection]:
    """What `Database.connection` gives, with its statements told of.

    Args:
        database: where.
        app: the application that listens, if one does.
        reads: whether a connection that only reads will do.
        name: what the ORM calls the statement that it is for.

    Raises:
        PoolTimeout: none became free in time.
    """
    from covet_orm.transactions.context import current_transaction

    tell = partial(_tell, database, app)
    block = current_transaction(database)
    if block is not None:
        yield ObservedConnection(block.at_hand() or await block.ready(), database, tell, "transaction", 0.0, name)
        return
    pool = await database.source_for(reads=reads)
    obtained: Obtained = "idle"
    waited = 0.0
    connection = pool.try_acquire()
    if connection is None:
        began = perf_counter()
        connection = await pool.acquire()
        obtained, waited = "waited", perf_counter() - began
    try:
        yield ObservedConnection(connection, database, tell, obtained, waited, name)
    finally:
        pool.release(connection)


def told_of(
    connection: Connection, database: Database, app: Covet | None, obtained: Obtained, waited: float, name: str
) -> Connection:
    """A connection whose statements are told of, for the stores: of their values nothing is told, since a session is
    nobody else's affair.

    Args:
        connection: the connection itself.
        database: where it leads to.
        app: the application that listens, if one does.
        obtained: how it was got, and `waited` how many seconds that took.
        name: what the store calls the statement that it is for.
    """
    tell = partial(_tell, database, app)
    return ObservedConnection(connection, database, tell, obtained, waited, name, shows=False)


def unobserved(connection: Connection) -> Connection:
    """The connection itself, for what is no query: what begins and ends transactions."""
    return connection.connection if isinstance(connection, ObservedConnection) else connection


def watch(database: Database, watcher: Watcher) -> None:
    """Tell a function of the statements of a database from now on, whether an application listens or not."""
    database.watchers = (*database.watchers, watcher)
    # In place of the methods, so that a database that nobody watches does not look whether somebody does.
    vars(database).update(
        _fetch=partial(_fetch_watched, database),
        write=partial(_write_watched, database),
        connection=partial(_watched_connection, database),
    )


def unwatch(database: Database, watcher: Watcher) -> None:
    """Tell it no more. Does nothing when it is not told."""
    database.watchers = tuple(one for one in database.watchers if one is not watcher)
    if not database.watchers:
        for name in WATCHED:
            vars(database).pop(name, None)


def log_slow_queries(event: QueryDone) -> None:
    """Log a query that took at least `slow_query` seconds, as a warning of `covet_orm.queries`."""
    if not event.where:
        return
    told = [
        f"{event.seconds:.3f} s in the database {event.database!r}, {event.rows} rows",
        f"asked for at {event.where}",
    ]
    if event.route:
        told.append(f"for {event.route}")
    if event.waited:
        told.append(f"after {event.waited:.3f} s without a connection")
    if event.error:
        told.append(f"ended by {event.error} {event.code}".rstrip())
    sql = " ".join(event.sql.split())
    if event.parameters is not None:
        sql += f" with {event.parameters}"
    logger.warning("slow query: %s: %s", ", ".join(told), f"{event.name}: {sql}" if event.name else sql)


def caller() -> FrameType | None:
    """The innermost frame that is neither ours nor the event loop's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(INNER):
            return frame
        frame = frame.f_back
    return None


def _tell(database: Database, app: Covet | None, event: QueryDone) -> None:
    for watcher in database.watchers:
        watcher(event)
    if app is not None:
        app.emit(event)


async def _fetch_watched(database: Database, plan: Plan, parameters: Sequence[Any], *, reads: bool) -> list[Row]:
    return await observed(database, listener(), plan, parameters, reads=reads)


async def _write_watched(database: Database, plan: Plan, parameters: Sequence[Any]) -> Inserted:
    async with observed_connection(database, listener(), name=plan.name) as connection:
        return await connection.insert(plan.sql, parameters)


def _watched_connection(database: Database, *, reads: bool = False, name: str = "") -> Any:
    return observed_connection(database, listener(), reads=reads, name=name)


def _shown(parameters: Any) -> str:
    if not isinstance(parameters, (tuple, list)):
        return "..."
    text = repr(tuple(parameters))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _rows(result: Rows) -> int:
    return len(result.rows)


def _changed(result: Inserted) -> int:
    return result.changed


def _counted(result: int) -> int:
    """Where it is not told how many rows were changed, -1 came."""
    return max(result, 0)


def _none(result: object) -> int:
    return 0
