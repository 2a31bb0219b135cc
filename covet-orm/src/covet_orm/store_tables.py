"""The tables of session stores, caches and messages: made, missed, and reached past the transactions around the caller.

What a store keeps is no part of what its caller is about to commit or roll back, and must not wait for it. So a
statement of a store runs by itself, on a connection of its own: one of the pool, and where the caller is inside of a
transaction, which holds one already, of a second, small pool. SQLite has one connection that writes; there, a statement
of the task whose transaction holds it belongs to that transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import random
from time import perf_counter
from typing import Any, Protocol, TypeVar

import sqlalchemy
from anyio import CancelScope, move_on_after

from covet.events import listener
from covet.exceptions import ConfigurationError
from covet_orm.databases import Database
from covet_orm.dialects import Compiled, compile_statement
from covet_orm.drivers.protocol import Connection, Inserted, Row, SessionState
from covet_orm.events import Obtained
from covet_orm.exceptions import OrmError, ProgrammingError, SerializationFailure
from covet_orm.identifiers import check_identifier
from covet_orm.observing import told_of, unobserved
from covet_orm.pool import Pool
from covet_orm.schema import create_tables
from covet_orm.transactions.blocks import Transaction
from covet_orm.transactions.context import active, around

__all__ = ["Statements", "StoreTable", "StoreTableMissing", "all_or_nothing"]

T = TypeVar("T")
logger = logging.getLogger("covet.orm")

# Bytes of a table's name, so that those of its indexes fit as well.
MAX_NAME = 48
# What the servers call a table that is not there; SQLite has no code for it.
MISSING = ("42P01", "1146")
# Seconds before a statement is tried again that the server chose to end for the sake of another.
PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
# Seconds in which a statement that was cancelled has to end.
SETTLE = 1.0


class StoreTableMissing(OrmError):  # noqa: N818 - it tells of a state
    """The table of a store is not there; the message has the line to type."""


class Statements(Protocol):
    """The statements of a store, each made by a method of its own.

    Attributes:
        kind: of the database: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        table: the table.
    """

    kind: str
    table: sqlalchemy.Table


@asynccontextmanager
async def all_or_nothing(connection: Connection, *begin: str) -> AsyncIterator[None]:
    """A block whose statements on a connection happen all or not at all: a transaction, or in one a savepoint.

    Args:
        connection: at rest.
        begin: the statements that begin a transaction.
    """
    connection = unobserved(connection)
    inside = connection.state is SessionState.TRANSACTION
    for statement in ("SAVEPOINT covet_store",) if inside else begin:
        await connection.script(statement)
    try:
        yield
    except Exception:
        # Where the connection broke, or the server has done so, there is nothing to roll back.
        if connection.state in (SessionState.TRANSACTION, SessionState.FAILED):
            await connection.script("ROLLBACK TO SAVEPOINT covet_store" if inside else "ROLLBACK")
        raise
    await connection.script("RELEASE SAVEPOINT covet_store" if inside else "COMMIT")


class StoreTable:
    """A table that a store keeps rows in.

    Args:
        database: where it is.
        name: its name.
        statements: makes the store's statements, of the table.
        define: makes the table, given its name and the kind of database.
        what: what it is for, in messages.
        create: whether it is made when it is missing.

    Raises:
        ConfigurationError: the name is none, or that of another store's table.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        statements: Callable[[str, sqlalchemy.Table], Statements],
        define: Callable[[str, str], sqlalchemy.Table],
        *,
        what: str,
        create: bool = False,
    ) -> None:
        check_identifier(name, database.kind, "table")
        if len(name.encode()) > MAX_NAME:
            raise ConfigurationError(f"the table of {what} has a name of at most {MAX_NAME} bytes, not {name!r}")
        other = database.store_tables.get(name)
        if other is not None and other.what != what:
            raise ConfigurationError(
                f"the table {name!r} of the database {database.alias!r} is that of {other.what}, and cannot be that of "
                f"{what} as well; give one of them another `table`"
            )
        database.store_tables.setdefault(name, self)
        self.database = database
        self.name = name
        self.what: str = what
        self.create_missing = create
        self.table = define(name, database.kind)
        self._statements = statements
        self._made: Statements | None = None
        self._compiled: dict[tuple[Any, ...], Compiled] = {}

    def __repr__(self) -> str:
        return f"<StoreTable {self.name} of {self.database.alias}>"

    async def create(self) -> bool:
        """Make the table if it is not there; whether it was made. Several processes may do so at once.

        Raises:
            DatabaseError: the database cannot be reached, or does not let its user create tables.
        """
        await self.database.open()
        token = None if self._block() is not None else active.set(None)
        try:
            return bool(await create_tables(self.database, [self.table]))
        finally:
            if token is not None:
                active.reset(token)

    async def require(self) -> None:
        """Return when the table is there; make it where that was asked for.

        Raises:
            StoreTableMissing: it is not.
            DatabaseError: the database cannot be reached.
        """
        probe = compile_statement(sqlalchemy.select(*self.table.primary_key.columns).limit(0), self.database.kind)
        await self.run(lambda connection: connection.fetch(probe.sql, probe.parameters()), name="require")

    # Statements by their names

    async def fetch(self, name: tuple[Any, ...], values: Mapping[str, Any], *, reads: bool = False) -> list[Row]:
        """Run a statement; its rows.

        Args:
            name: of the method that makes it, and its arguments.
            values: of its parameters.
            reads: whether it only reads. It reads from the server that writes, all the same.

        Raises:
            StoreTableMissing: the table is not there.
            DatabaseError: what the database says.
        """

        async def call(connection: Connection) -> list[Row]:
            compiled = self._compiled.get(name) or self.compiled(name)
            return await connection.fetch(compiled.sql, compiled.parameters(values))

        return await self.run(call, reads=reads, name=name[0])

    async def execute(self, name: tuple[Any, ...], values: Mapping[str, Any]) -> int:
        """Run a statement; how many rows it changed, or matched. Raises what `fetch` raises."""

        async def call(connection: Connection) -> int:
            compiled = self._compiled.get(name) or self.compiled(name)
            return await connection.execute(compiled.sql, compiled.parameters(values))

        return await self.run(call, name=name[0])

    async def insert(self, name: tuple[Any, ...], values: Mapping[str, Any]) -> Inserted:
        """Run an INSERT; what it tells. Raises what `fetch` raises."""

        async def call(connection: Connection) -> Inserted:
            compiled = self._compiled.get(name) or self.compiled(name)
            return await connection.insert(compiled.sql, compiled.parameters(values))

        return await self.run(call, name=name[0])

    def compiled(self, name: tuple[Any, ...]) -> Compiled:
        """The text of a statement. Not before the first connection: which server it is, it tells then."""
        found = self._compiled.get(name)
        if found is None:
            if self._made is None:
                self._made = self._statements(self.database.kind, self.table)
            statement = getattr(self._made, name[0])(*name[1:])
            found = self._compiled[name] = compile_statement(statement, self.database.kind)
        return found

    async def run(self, call: Callable[[Connection], Awaitable[T]], *, name: str, reads: bool = False) -> T:
        """Call a function with a connection that is outside of the caller's transaction, as far as that is possible.

        It is called again when the server ended what it did for the sake of another transaction. When the call is
        cancelled, its statement has ended on return, with or without its effect: within a second, or the server has not
        answered.

        Args:
            call: makes one statement, or a transaction.
            name: what events call the statement, behind the name of the table.
            reads: whether it only reads.

        Raises:
            StoreTableMissing: the table is not there.
            DatabaseError: what the database says.
        """
        for pause in PAUSES:
            try:
                return await self._run(call, name, reads)
            except SerializationFailure:
                await asyncio.sleep(pause * (0.5 + random()))
            except ProgrammingError as error:
                if error.code not in MISSING and "no such table" not in str(error):
                    raise
                if not self.create_missing:
                    raise self._missing() from error
                await self.create()
        return await self._run(call, name, reads)

    async def _run(self, call: Callable[[Connection], Awaitable[T]], name: str, reads: bool) -> T:
        app = listener()
        watched = app is not None or bool(self.database.watchers)
        block = None if active.get() is None else self._block()
        if block is not None:
            connection = block.at_hand() or await block.ready()
            if watched:
                connection = told_of(connection, self.database, app, "transaction", 0.0, f"{self.name}.{name}")
            # Interrupted, it would take the transaction along.
            return await self._shielded(call, connection)
        pool = await self._pool(reads)
        began = perf_counter() if watched else 0.0
        idle = pool.try_acquire()
        connection = idle or await pool.acquire()
        try:
            if not watched:
                return await call(connection)
            obtained: Obtained = "idle" if idle is not None else "waited"
            waited = 0.0 if idle is not None else perf_counter() - began
            return await call(told_of(connection, self.database, app, obtained, waited, f"{self.name}.{name}"))
        except asyncio.CancelledError:
            if not reads and connection.state in (SessionState.BUSY, SessionState.CLOSED):
                # Its close makes the server end what it does.
                with move_on_after(SETTLE, shield=True):
                    await connection.close()
            raise
        finally:
            pool.release(connection)

    async def _shielded(self, call: Callable[[Connection], Awaitable[T]], connection: Connection) -> T:
        """Call to the end, whoever cancels."""
        task = asyncio.ensure_future(call(connection))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with CancelScope(shield=True):
                await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.debug("a statement whose caller was cancelled failed: %s", error)
            raise

    async def _pool(self, reads: bool) -> Pool:
        database = self.database
        if database.kind == "sqlite":
            return await database.pool_for(reads=reads)
        if self._inside():
            return await database.pool_apart()
        return await database.pool_for(reads=False)

    def _inside(self) -> bool:
        """Whether a transaction in this database is around the caller, its own or that of the task that started it."""
        return around(self.database) is not None

    def _block(self) -> Transaction | None:
        """The transaction of this task that holds the one connection by which SQLite writes."""
        if active.get() is None or self.database.kind != "sqlite":
            return None
        block = around(self.database)
        if block is None or block.root.options.read_only or block.task is not asyncio.current_task():
            return None
        return block

    def _missing(self) -> StoreTableMissing:
        return StoreTableMissing(
            f"the database {self.database.alias!r} has no table {self.name!r} for {self.what}; type `covet db create`, "
            "or set `create_table = true` in the table of the settings that chooses it"
        )
