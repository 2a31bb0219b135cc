"""Creating and dropping the tables of models, for tests and small programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from covet_orm.deferred import sqlalchemy
from covet_orm.dialects import dialect_of
from covet_orm.drivers.protocol import SessionState
from covet_orm.exceptions import ForeignKeyViolation, LockTimeout, NotSupported
from covet_orm.models.registry import registry as default_registry
from covet_orm.routers import lives_in

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect

    from covet_orm.databases import Database
    from covet_orm.models.instances import Model
    from covet_orm.models.registry import Registry

__all__ = [
    "OWN_TABLES",
    "check_supported",
    "create_all",
    "create_tables",
    "defining_dialect",
    "drop_all",
    "statements",
    "table_names",
]

TABLES = {
    "postgresql": "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = ANY (current_schemas(false))",
    "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()",
    "mariadb": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()",
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
}

OWN_TABLES = frozenset(
    (
        "covet_2pc", "covet_cache", "covet_commits", "covet_heartbeat", "covet_messages", "covet_outbox",
        "covet_outbox_slots", "covet_sessions",
    )
)  # fmt: skip
"""The tables that covet-orm keeps what it knows in, under their usual names; `Database.store_tables` has those of
stores under the names that they were given. No model has them, and no migration makes them."""
LOCK = 0x636F766574
"""The advisory lock of PostgreSQL that those who create tables wait for: "covet" in ASCII."""
PATIENCE = 60
"""Seconds that MySQL and MariaDB let one wait for it."""


async def table_names(database: Database) -> set[str]:
    """The names of the tables that are there."""
    return {row[0] for row in (await database.query(TABLES[database.kind])).rows}


async def create_all(database: Database, registry: Registry | None, *, extensions: Sequence[str] = ()) -> list[str]:
    """Create the tables of the models that live in a database and are not there; their names.

    Several processes may do so at once: one of them creates. PostgreSQL and SQLite create all tables or none; MySQL and
    MariaDB keep those that were created before an error, and the next call creates the others.

    Cancelled, it leaves what a killed process would.

    Args:
        database: where.
        registry: whose models.
        extensions: those of PostgreSQL that are to be there as well; elsewhere nothing.

    Raises:
        ModelError: a model is not declared as one can be.
        ProgrammingError: there is no such extension, or the user may not create it.
        NotSupported: the database cannot have a field, an index or a constraint; nothing was created.
        LockTimeout: somebody else has created tables for a minute (MySQL, MariaDB).
    """
    await database.open()
    models = _models(database, registry)
    tables = _tables(models, registry)
    check_supported(database.kind, models)
    stores = [store.table for store in database.store_tables.values()]
    return await create_tables(database, [*tables, *stores], extensions=extensions)


async def create_tables(
    database: Database, tables: Sequence[sqlalchemy.Table], *, extensions: Sequence[str] = ()
) -> list[str]:
    """Create those tables of some that are not there, as `create_all` does; their names.

    Args:
        database: an open one.
        tables: each after those that it refers to.
        extensions: as of `create_all`.

    Raises:
        LockTimeout, ProgrammingError: as `create_all`.
    """
    async with _alone(database):
        if database.kind == "postgresql":
            quote = dialect_of(database.kind).identifier_preparer.quote_identifier
            for name in extensions:
                await database.script(f"CREATE EXTENSION IF NOT EXISTS {quote(name)}")
        there = await table_names(database)
        missing = [table for table in tables if table.name not in there]
        for statement in statements(database.kind, missing, create=True):
            await database.script(statement)
    return [table.name for table in missing]


async def drop_all(database: Database, registry: Registry | None) -> list[str]:
    """Drop the tables of the models that live in a database and are there; their names.

    Raises:
        ModelError: a model is not declared as one can be.
        ForeignKeyViolation: a table that stays refers to one of them (MySQL, MariaDB, SQLite).
        ProgrammingError: as above (PostgreSQL).
    """
    await database.open()
    tables = _tables(_models(database, registry), registry)
    if database.kind == "sqlite":
        return await _drop_from_sqlite(database, tables)
    async with _alone(database):
        there = await table_names(database)
        leaving = [table for table in tables if table.name in there]
        for statement in statements(database.kind, leaving, create=False):
            await database.script(statement)
    return [table.name for table in leaving]


def statements(kind: str, tables: Sequence[sqlalchemy.Table], *, create: bool) -> list[str]:
    """The DDL of tables, in an order that their foreign keys allow; those of tables that refer to each other are added
    when both are there, where a database can.

    Args:
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        tables: the tables, of one registry.
        create: whether they are created, or dropped.

    Raises:
        NotSupported: the database cannot have an expression of a definition.
        ModelError: a definition names what its model does not have.
    """
    if not tables:
        return []
    elements: list[Any] = []
    dialect = defining_dialect(kind)

    def collect(element: Any, *arguments: Any, **options: Any) -> None:
        elements.append(element)
        if isinstance(element, sqlalchemy.schema.AddConstraint):
            # SQLAlchemy would leave it out from now on where its table alone is created.
            made: Any = element.element
            made._create_rule = None

    if not create and not dialect.supports_alter:
        # There is no order for tables that refer to each other, and none is needed.
        return [str(sqlalchemy.schema.DropTable(table).compile(dialect=dialect)).strip() for table in reversed(tables)]
    connection: Any = sqlalchemy.engine.mock.MockConnection(dialect, collect)
    metadata = tables[0].metadata
    act = metadata.create_all if create else metadata.drop_all
    act(connection, tables=list(tables), checkfirst=False)
    found: list[str] = []
    for are_indexes, group in groupby(elements, lambda one: isinstance(one, sqlalchemy.schema.CreateIndex)):
        # The indexes of a table are a set, whose order is another one in each process.
        made = list(group)
        if are_indexes:
            made.sort(key=lambda one: str(one.element.name))
        for one in made:
            creates = isinstance(one, sqlalchemy.schema.CreateTable)
            again = _unique_again(one.element) if kind == "postgresql" and creates else []
            for constraint in again:
                constraint._create_rule = _apart
            found.append(str(one.compile(dialect=dialect)).strip())
            for constraint in again:
                added = sqlalchemy.schema.AddConstraint(constraint)
                found.append(str(added.compile(dialect=dialect)).strip())
                constraint._create_rule = None
    return found


def _unique_again(table: sqlalchemy.Table) -> list[Any]:
    """The constraints of a table that say of columns once more that they are unique. Of two that `CREATE TABLE` has,
    PostgreSQL makes one alone (`transformIndexConstraints`); so they are added."""
    keys: list[Any] = [
        table.primary_key,
        *(one for one in table.constraints if isinstance(one, sqlalchemy.UniqueConstraint)),
    ]
    seen: set[tuple[Any, ...]] = set()
    found = []
    for one in sorted(keys, key=lambda one: (one is not table.primary_key, str(one.name))):
        distinct = not one.dialect_options["postgresql"].get("nulls_not_distinct")
        told = (*(column.name for column in one.columns), one.deferrable, one.initially, distinct)
        if told in seen:
            found.append(one)
        seen.add(told)
    return found


def _apart(compiler: object) -> bool:
    return False


def check_supported(kind: str, models: Iterable[type[Model]]) -> None:
    """Return when a database can have all that models declare.

    Raises:
        NotSupported: it cannot; the message has all of it, and the ways around.
    """
    found: list[str] = []
    for model in models:
        options = model._meta
        for field in options.fields:
            reason = field.unsupported(kind) if field.model is model else ""
            if reason:
                found.append(f"{model.__qualname__}.{field.name}: {reason}")
        for one in (*options.indexes, *options.constraints) if not options.proxy else ():
            reason = one.unsupported(kind)
            if reason:
                found.append(f"{model.__qualname__}.Meta, {one!r}: {reason}")
    if found:
        raise NotSupported("; ".join(found))


async def _drop_from_sqlite(database: Database, tables: Sequence[sqlalchemy.Table]) -> list[str]:
    """SQLite deletes the rows of a table that is dropped, and fails where it refers to one that was dropped before;
    tables that refer to each other it can drop only while it does not look at foreign keys, which nothing inside of a
    transaction can change."""
    async with database.connection() as connection:
        outside = connection.state is SessionState.IDLE
        if outside:
            await connection.script("PRAGMA foreign_keys = OFF")
        try:
            if outside:
                await connection.script("BEGIN IMMEDIATE")
            there = {row[0] for row in await connection.fetch(TABLES["sqlite"])}
            leaving = [table for table in tables if table.name in there]
            for statement in statements("sqlite", leaving, create=False):
                await connection.script(statement)
            broken = await connection.fetch("PRAGMA foreign_key_check")
            if broken:
                raise ForeignKeyViolation(
                    f"rows of {broken[0][0]!r} refer to a table that would be dropped", table=broken[0][0]
                )
            if outside:
                await connection.script("COMMIT")
        finally:
            # A connection that was interrupted is broken, and nobody uses it again.
            if outside and connection.state is SessionState.TRANSACTION:
                await connection.script("ROLLBACK")
            if outside and connection.state is SessionState.IDLE:
                await connection.script("PRAGMA foreign_keys = ON")
    return [table.name for table in leaving]


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[None]:
    """A block that one process at a time is in, and that happens all or not at all where DDL can."""
    if database.kind in ("mysql", "mariadb"):
        # The statements within need a connection as well, which a pool of one could not give.
        pool = await database.pool_apart()
        connection = pool.try_acquire() or await pool.acquire()
        try:
            rows = await connection.fetch("SELECT GET_LOCK(CONCAT('covet.', DATABASE()), %s)", (PATIENCE,))
            if not rows[0][0]:
                raise LockTimeout(f"somebody else has been creating tables for {PATIENCE} seconds")
            try:
                yield
            finally:
                # Broken, the connection has lost the lock with its session.
                if connection.state in (SessionState.IDLE, SessionState.TRANSACTION):
                    await connection.fetch("SELECT RELEASE_LOCK(CONCAT('covet.', DATABASE()))")
        finally:
            pool.release(connection)
        return
    async with database.transaction():
        if database.kind == "postgresql":
            await database.query("SELECT pg_advisory_xact_lock($1)", (LOCK,))
        yield


@cache
def defining_dialect(kind: str) -> Dialect:
    """A dialect that leaves a percent sign as it is: DDL has no parameters, and is sent as its text is."""
    dialect = dialect_of(kind)
    if kind in ("mysql", "mariadb"):
        made: Any = type(dialect)
        named: Dialect = made(paramstyle="named")
        named.identifier_preparer.reserved_words = dialect.identifier_preparer.reserved_words
        return named
    return dialect


def _models(database: Database, registry: Registry | None) -> list[type[Model]]:
    """The managed models that live in a database: those that routers would write there, those that name its alias, and
    those that nobody names a database for."""
    chosen = registry if registry is not None else default_registry
    return [model for model in chosen if model._meta.managed and not model._meta.proxy and lives_in(model, database)]


def _tables(models: Sequence[type[Model]], registry: Registry | None) -> list[sqlalchemy.Table]:
    """Their tables, each after those that it refers to."""
    wanted = {model._meta.db_table for model in models}
    chosen = registry if registry is not None else default_registry
    return [table for table in chosen.tables() if table.name in wanted]
