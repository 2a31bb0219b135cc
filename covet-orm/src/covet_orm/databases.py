"""Databases: where models live. A URL, pools of connections, and what can be asked of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from weakref import WeakKeyDictionary

import msgspec

from covet.events import listener
from covet.exceptions import ConfigurationError
from covet_orm.ambient import opened, scoped, stand_ins
from covet_orm.dialects import compile_statement
from covet_orm.drivers.protocol import Connection, Driver, Inserted, Row, Rows
from covet_orm.exceptions import ProgrammingError, QueryError
from covet_orm.observing import ObservingSettings, Watcher, log_slow_queries, observed, observed_connection, watch
from covet_orm.pool import Pool, PoolSettings
from covet_orm.queries.plans import Plan, PlanCache
from covet_orm.replicas.settings import ReplicaSettings
from covet_orm.transactions.blocks import Transaction
from covet_orm.transactions.context import current_transaction
from covet_orm.transactions.options import DEFAULT, BlockOptions, TransactionOptions
from covet_orm.urls import MEMORY, Target, driver_options, parse_url

if TYPE_CHECKING:
    from sqlalchemy.sql import ClauseElement

    from covet_orm.fields.base import Field
    from covet_orm.models.registry import Registry
    from covet_orm.queries.sources import Source
    from covet_orm.replicas.opening import Replicas, ReplicatedServers
    from covet_orm.replicas.routing import PrimaryReads, ReadRouter
    from covet_orm.store_tables import StoreTable

__all__ = ["Database"]

READING = ("select", "values", "explain", "show", "table", "pragma")
LOCKING = re.compile(r"\bfor\s+(?:no\s+key\s+)?(?:update|share|key\s+share)\b|\block\s+in\s+share\b", re.IGNORECASE)
POOL_OPTIONS = PoolSettings.__struct_fields__
OBSERVING_OPTIONS = ObservingSettings.__struct_fields__
S = TypeVar("S", bound=msgspec.Struct)
# Connections of the pool for those who hold one already.
APART = 5


class Lane:
    """The pools of a database in one event loop. SQLite has one connection that writes, and others that read."""

    __slots__ = ("apart", "loop", "readers", "replicated", "routed", "writers")

    def __init__(self, loop: asyncio.AbstractEventLoop, writers: Pool, readers: Pool) -> None:
        self.apart: Pool | None = None
        self.loop = loop
        self.writers = writers
        self.readers = readers
        self.replicated: ReplicatedServers | None = None
        self.routed: Pool | ReadRouter = readers

    def pools(self) -> list[Pool]:
        """Each of them once."""
        pools = [self.writers] if self.writers is self.readers else [self.writers, self.readers]
        if self.replicated is not None:
            pools += self.replicated.pools()
        return pools if self.apart is None else [*pools, self.apart]


class Database:
    """A database, by its URL:

        async with Database("sqlite:///app.db") as db:
            await db.create_all()
            users = await User.objects.all()

    Within the block it serves the models that name no other. Without a block it opens itself at first use, in each
    event loop, and `close` closes it.

    Args:
        url: `postgresql://user:password@host/name`, `mariadb://…`, `mysql://…`, `sqlite:///file.db`, `sqlite://`.
        alias: its name.
        options: the pool's settings (`min_size`, `max_size`, `acquire_timeout`, ...) and the driver's
            (`statement_timeout`, ...), `slow_query` and `show_parameters`, which may stand in the URL as well;
            `read_replicas`, a list of URLs, and the other settings of replicas.

    Attributes:
        alias: its name.
        kind: `postgresql`, `mariadb`, `mysql` or `sqlite`.
        url: the URL, without the password.
        plans: the statements that were compiled.
        observing: what is told of its statements, and `watchers` who is told beside the application.
        store_tables: the tables of session stores and the like that are here, by name; `create_all` makes them, too.

    Raises:
        ConfigurationError: the URL or an option is wrong, or the driver is not installed.
    """

    def __init__(self, url: str, *, alias: str = "default", **options: Any) -> None:
        self.alias = alias
        self._target = parse_url(url, others=(*POOL_OPTIONS, *OBSERVING_OPTIONS))
        self.url = self._target.redacted
        self.kind: str = "mariadb" if self._target.scheme == "mariadb" else self._target.kind
        self._pool_settings = _settings_of(PoolSettings, self._target, options)
        self.observing = _settings_of(ObservingSettings, self._target, options)
        self.watchers: tuple[Watcher, ...] = ()
        self._replicas = self._configured_replicas(options)
        self._driver, self._reading_driver = _drivers(self._target, options)
        self.plans = PlanCache()
        self.sources: dict[tuple[Field[Any], ...], Source] = {}
        self.texts: dict[Any, Any] = {}
        # A lane holds on to its loop, so that weak keys would change nothing but the time of a look-up.
        self._lanes: dict[asyncio.AbstractEventLoop, Lane] = {}
        self._opening: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._tokens: list[Token[Mapping[str, Database]]] = []
        self.store_tables: dict[str, StoreTable] = {}
        if self.observing.slow_query is not None:
            watch(self, log_slow_queries)

    def __repr__(self) -> str:
        return f"<Database {self.alias} {self.url}>"

    async def open(self) -> None:
        """Make the pools of this event loop, with as many connections as they are to begin with.

        Raises:
            DatabaseUnavailable: the server cannot be reached, or refuses.
        """
        if asyncio.get_running_loop() not in self._lanes:
            await self._lane()

    async def close(self) -> None:
        """Close the pools of this event loop: who waits for a connection is told, who holds one has 10 seconds."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if not self._lanes:
            opened.discard(self)
        if lane is not None:
            if lane.replicated is not None:
                await lane.replicated.close()
            for pool in lane.pools():
                await pool.close()

    async def check(self) -> None:
        """Return when the database answers.

        Raises:
            DatabaseError: it does not.
        """
        await self.fetch_value("SELECT 1")

    async def __aenter__(self) -> Self:
        await self.open()
        self._tokens.append(scoped.set({**scoped.get({}), self.alias: self}))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        scoped.reset(self._tokens.pop())
        await self.close()

    def transaction(self, **options: Unpack[BlockOptions]) -> Transaction:
        """A block whose statements happen all or not at all; inside of another one, a savepoint.

        Args:
            options: as those of `transaction_manager.atomic`.

        Raises:
            TransactionError: an option is none that there is, or two contradict each other.
        """
        return Transaction(self, TransactionOptions.of(**options) if options else DEFAULT)

    @asynccontextmanager
    async def connection(self, *, reads: bool = False, name: str = "") -> AsyncIterator[Connection]:
        """A connection for a while: that of the transaction around it, or one of the pool.

        Args:
            reads: whether one that only reads will do.
            name: what events call the statement that it is for.

        Raises:
            PoolTimeout: none became free in time.
        """
        app = listener()
        if app is not None:
            async with observed_connection(self, app, reads=reads, name=name) as watched:
                yield watched
            return
        block = current_transaction(self)
        if block is not None:
            yield block.at_hand() or await block.ready()
            return
        pool = await self.source_for(reads=reads)
        connection = pool.try_acquire() or await pool.acquire()
        try:
            yield connection
        finally:
            pool.release(connection)

    async def fetch_all(self, statement: str | ClauseElement, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run a statement; its rows as dicts.

        Args:
            statement: SQL in the placeholders of the driver (`$1`, `%s`, `?`), or a statement of SQLAlchemy Core.
            parameters: the values of the placeholders.
        """
        rows = await self.query(statement, parameters)
        return [dict(zip(rows.columns, row, strict=True)) for row in rows.rows]

    async def fetch_one(self, statement: str | ClauseElement, parameters: Sequence[Any] = ()) -> dict[str, Any] | None:
        """Run a statement; its first row as a dict, None without any."""
        rows = await self.query(statement, parameters)
        return dict(zip(rows.columns, rows.rows[0], strict=True)) if rows.rows else None

    async def fetch_value(self, statement: str | ClauseElement, parameters: Sequence[Any] = ()) -> Any:
        """Run a statement; the first value of its first row, None without any."""
        rows = await self.query(statement, parameters)
        return rows.rows[0][0] if rows.rows else None

    async def query(self, statement: str | ClauseElement, parameters: Sequence[Any] = ()) -> Rows:
        """Run a statement; its rows as the driver gives them, and the names of their columns."""
        sql, values = self._statement(statement, parameters)
        async with self.connection(reads=reads_only(sql)) as connection:
            return await connection.query(sql, values)

    async def execute(self, statement: str | ClauseElement, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed."""
        sql, values = self._statement(statement, parameters)
        async with self.connection() as connection:
            return await connection.execute(sql, values)

    async def execute_many(self, statement: str | ClauseElement, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each row of parameters; how many rows it changed in all, -1 where that is not
        told."""
        sql, _ = self._statement(statement, ())
        async with self.connection() as connection:
            return await connection.execute_many(sql, rows)

    async def script(self, sql: str) -> None:
        """Run statements without parameters, such as DDL."""
        async with self.connection() as connection:
            await connection.script(_checked(sql))

    async def fetch_rows(self, plan: Plan, parameters: Sequence[Any]) -> list[Row]:
        """Run a plan that reads; its rows."""
        return await self._fetch(plan, parameters, reads=True)

    async def write_rows(self, plan: Plan, parameters: Sequence[Any]) -> list[Row]:
        """Run a plan that writes; the rows that it gives back."""
        return await self._fetch(plan, parameters, reads=False)

    async def write(self, plan: Plan, parameters: Sequence[Any]) -> Inserted:
        """Run a plan that writes and gives back no rows; how many it changed, and the key that was counted."""
        if listener() is not None:
            async with self.connection(name=plan.name) as watched:
                return await watched.insert(plan.sql, parameters)
        block = current_transaction(self)
        if block is not None:
            return await (block.at_hand() or await block.ready()).insert(plan.sql, parameters)
        lane = self._lanes.get(asyncio.get_running_loop()) or await self._lane()
        pool = lane.writers
        connection = pool.try_acquire() or await pool.acquire()
        try:
            return await connection.insert(plan.sql, parameters)
        finally:
            pool.release(connection)

    async def _fetch(self, plan: Plan, parameters: Sequence[Any], *, reads: bool) -> list[Row]:
        app = listener()
        if app is not None:
            return await observed(self, app, plan, parameters, reads=reads)
        block = current_transaction(self)
        if block is not None:
            return await (block.at_hand() or await block.ready()).fetch(plan.sql, parameters)
        # As `source_for`, which would cost a coroutine.
        lane = self._lanes.get(asyncio.get_running_loop()) or await self._lane()
        pool = lane.routed if reads else lane.writers
        connection = pool.try_acquire() or await pool.acquire()
        try:
            return await connection.fetch(plan.sql, parameters)
        finally:
            # What was interrupted is not at rest, and the pool gives it up.
            pool.release(connection)

    async def create_all(self, registry: Registry | None = None, *, extensions: Sequence[str] = ()) -> list[str]:
        """Create the tables of the models that live here and that are not there yet; their names.

        For tests and small programs; a schema that changes wants migrations.

        Args:
            registry: whose models; all that chose no registry of their own by default.
            extensions: what the tables need beside, by name, which is created where it is not there: `hstore`,
                `btree_gist`, `pg_trgm` (PostgreSQL; on others nothing).

        Raises:
            ModelError: a relation names a model that is not there.
            ProgrammingError: the server does not have an extension, or the user may not create it.
        """
        from covet_orm.schema import create_all

        return await create_all(self, registry, extensions=extensions)

    async def drop_all(self, registry: Registry | None = None) -> list[str]:
        """Drop the tables of the models that live here; their names. What is in them is gone."""
        from covet_orm.schema import drop_all

        return await drop_all(self, registry)

    async def pool_for(self, *, reads: bool) -> Pool:
        """The pool of this event loop for statements that only read, or for others. It is none of a replica."""
        lane = self._lanes.get(asyncio.get_running_loop()) or await self._lane()
        return lane.readers if reads else lane.writers

    async def source_for(self, *, reads: bool) -> Pool | ReadRouter | PrimaryReads:
        """Who lends connections in this event loop for single statements: the replicas, where there are any, for those
        that only read."""
        lane = self._lanes.get(asyncio.get_running_loop()) or await self._lane()
        return lane.routed if reads else lane.writers

    def primary(self) -> Database:
        """This database with all reads on the primary; the same as `using("primary")` in a query."""
        return self if self._replicas is None else self._replicas.primary_of(self)

    def write_token(self) -> str:
        """What this request or task wrote, as a text for another one that is to see it: see `read_after`. Empty for
        nothing, and where there are no replicas."""
        lane = self._lanes.get(asyncio.get_running_loop())
        return "" if lane is None or lane.replicated is None else lane.replicated.router.session().token()

    async def read_after(self, token: str) -> None:
        """Let the reads of this request or task see what the one with this token of `write_token` wrote.

        Raises:
            InvalidToken: it is none.
        """
        lane = self._lanes.get(asyncio.get_running_loop()) or await self._lane()
        if lane.replicated is not None:
            lane.replicated.router.session().read_after(token)

    async def pool_apart(self) -> Pool:
        """A small pool for those who hold a connection of the others already, and need a second one.

        They would wait in one queue with others that hold one each, and all of them for each other. What runs here must
        wait for nothing else. Not for SQLite, where one connection writes.
        """
        lane = self._lanes.get(asyncio.get_running_loop()) or await self._lane()
        if lane.apart is None:
            async with self._opening[lane.loop]:
                if lane.apart is None:
                    most = min(self._pool_settings.max_size, APART)
                    settings = msgspec.structs.replace(self._pool_settings, min_size=0, max_size=most)
                    pool = Pool(self._driver, settings, name=f"{self.alias} (apart)")
                    await pool.open()
                    lane.apart = pool
        return lane.apart

    async def connect(self) -> Connection:
        """A connection that belongs to no pool: whoever asks for it closes it.

        Raises:
            DatabaseUnavailable: it cannot be made.
        """
        return await self._driver.connect()

    def pools(self) -> list[Pool]:
        """The pools of every event loop."""
        return [pool for lane in self._lanes.values() for pool in lane.pools()]

    async def _lane(self) -> Lane:
        """The pools of this event loop, made by the first that asks for them."""
        loop = asyncio.get_running_loop()
        lock = self._opening.get(loop)
        if lock is None:
            lock = self._opening[loop] = asyncio.Lock()
        async with lock:
            lane = self._lanes.get(loop)
            if lane is None:
                lane = await self._make_lane(loop)
                self._lanes[loop] = lane
                opened.add(self)
            return lane

    async def _make_lane(self, loop: asyncio.AbstractEventLoop) -> Lane:
        for stand_in in reversed(stand_ins):
            lane = stand_in.lane_for(self)
            if lane is not None:
                return lane
        settings = self._pool_settings
        if self._replicas is not None:
            servers = await self._replicas.open(self.alias, self._driver, settings)
            self.kind = self._driver.kind
            writers = servers.router.primary.pool
            lane = Lane(loop, writers, writers)
            lane.replicated, lane.routed = servers, servers.router
            return lane
        if self._target.kind != "sqlite":
            pool = Pool(self._driver, settings, name=self.alias)
            await pool.open()
            self.kind = self._driver.kind
            return Lane(loop, pool, pool)
        one = msgspec.structs.replace(settings, max_size=1, min_size=1, max_age=None, max_idle=None)
        writers = Pool(self._driver, one, name=self.alias)
        await writers.open()
        if self._target.database == MEMORY:
            return Lane(loop, writers, writers)
        readers = Pool(self._reading_driver, settings, name=f"{self.alias} (readers)")
        try:
            await readers.open()
        except BaseException:
            await writers.close()
            raise
        return Lane(loop, writers, readers)

    def _configured_replicas(self, options: dict[str, Any]) -> Replicas | None:
        settings = ReplicaSettings.of(options, self.url)
        if settings is None:
            return None
        from covet_orm.replicas.opening import Replicas

        return Replicas(self._target, settings, self._pool_settings, options)

    def _statement(self, statement: str | ClauseElement, parameters: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        if isinstance(statement, str):
            return _checked(statement), parameters
        if parameters:
            raise QueryError("a statement of SQLAlchemy Core holds its parameters itself; give none beside it")
        compiled = compile_statement(statement, self.kind)
        return compiled.sql, compiled.parameters()


def reads_only(sql: str) -> bool:
    """Whether a statement begins like one that reads and locks nothing. WITH may begin either kind, and counts as one
    that writes; one that writes after all is refused by a reading connection."""
    return sql.lstrip(" \t\r\n(").partition(" ")[0].lower() in READING and not LOCKING.search(sql)


def _checked(sql: str) -> str:
    """SQL without a NUL character: one of the servers reads no further than that, and another one hangs up."""
    if "\0" in sql:
        raise ProgrammingError("the statement holds a NUL character", statement=sql)
    return sql


def _settings_of(schema: type[S], target: Target, options: dict[str, Any]) -> S:
    """The settings that the URL and the options give to a struct; they are taken out of the options."""
    fields = schema.__struct_fields__
    given = {name: value for name, value in target.query.items() if name in fields}
    given |= {name: options.pop(name) for name in fields if name in options}
    try:
        return msgspec.convert(given, schema, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigurationError(f"{target.redacted}: {error}") from None


def _drivers(target: Target, options: Mapping[str, Any]) -> tuple[Driver, Driver]:
    """The driver, and the one of connections that only read."""
    if target.kind == "postgresql":
        from covet_orm.drivers.postgresql import PostgreSQLDriver

        made: Driver = PostgreSQLDriver(target, driver_options(target, options))  # type: ignore[arg-type]
        return made, made
    if target.kind == "mysql":
        from covet_orm.drivers.mysql import MySQLDriver

        made = MySQLDriver(target, driver_options(target, options))  # type: ignore[arg-type]
        return made, made
    from covet_orm.drivers.sqlite import SQLiteDriver
    from covet_orm.queries.sqlite_functions import FUNCTIONS

    functions = (*FUNCTIONS, *options.get("create_functions", ()))
    writing = driver_options(target, {**options, "create_functions": functions})
    reading = msgspec.structs.replace(writing, read_only=True)
    return SQLiteDriver(target, writing), SQLiteDriver(target, reading)  # type: ignore[arg-type]
