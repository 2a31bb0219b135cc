"""The table of what was applied: one row per migration, written in the transaction of the migration itself."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from covet_migrate.exceptions import HistoryError
from covet_migrate.migrations import Key
from covet_orm.deferred import mysql, sqlalchemy
from covet_orm.dialects import compile_statement
from covet_orm.drivers.protocol import Connection, Row
from covet_orm.exceptions import DatabaseError
from covet_orm.schema import defining_dialect, table_names

if TYPE_CHECKING:
    from sqlalchemy.sql import ClauseElement

    from covet_orm import Database

__all__ = ["TABLE", "Applied", "History", "applied_by", "execute", "fetch", "now", "time_type"]

TABLE = "covet_migrations"
"""The name of the table."""
COLUMNS = "app, name, checksum, applied_at, applied_by, version, seconds, batch, fake"
# As it is sent, so that those who find nothing to do do not wait for SQLAlchemy.
READ = f"SELECT {COLUMNS} FROM {TABLE} ORDER BY batch, applied_at, app, name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A migration that was applied.

    Attributes:
        app: the label of its application.
        name: its name.
        checksum: of its file, and of those before it, when it was applied.
        applied_at: when it was done, in UTC.
        applied_by: the user and the host that did it.
        version: that of covet-migrate which did it.
        seconds: how long it took.
        batch: counts the runs that applied something; those of one run have one number.
        fake: whether it was only written down.
    """

    app: str
    name: str
    checksum: str
    applied_at: datetime
    applied_by: str
    version: str
    seconds: float
    batch: int
    fake: bool = False

    @property
    def key(self) -> Key:
        """The application and the name."""
        return (self.app, self.name)


class History:
    """What was applied to a database.

    The table may grow: a column that a later version adds is added to a table that is there, and must be one that may
    be NULL; a version that does not know it leaves it alone.

    Args:
        database: which one.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    async def read(self) -> list[Applied]:
        """All that was applied, in the order in which it was; nothing where the table is not there.

        Raises:
            HistoryError: a table of this name is there, and is another one.
            DatabaseError: the server cannot be asked.
        """
        await self.database.open()
        if TABLE not in await table_names(self.database):
            return []
        async with self.database.connection() as connection:
            return await self.read_by(connection)

    async def read_by(self, connection: Connection) -> list[Applied]:
        """As `read`, over a connection, of a table that is there."""
        try:
            rows = await connection.fetch(READ)
        except DatabaseError as error:
            if type(error).__name__ != "ProgrammingError" and error.code not in ("42703", "1054"):
                raise
            raise HistoryError(
                f"the table {TABLE!r} is not the history of covet-migrate: {error}; rename it, or drop it"
            ) from error
        return [_applied(row) for row in rows]

    async def ensure(self, connection: Connection) -> None:
        """Make the table, and the columns that an older version did not know, where they are missing."""
        kind = self.database.kind
        table = define(kind)
        await connection.script(
            str(sqlalchemy.schema.CreateTable(table, if_not_exists=True).compile(dialect=defining_dialect(kind)))
        )
        everything = sqlalchemy.select(sqlalchemy.text("*")).select_from(table).limit(0)
        there = await connection.query(_text(kind, everything))
        quote = defining_dialect(kind).identifier_preparer
        for column in table.columns:
            if column.nullable and column.name not in there.columns:
                told = column.type.compile(defining_dialect(kind))
                await connection.script(
                    f"ALTER TABLE {quote.format_table(table)} ADD COLUMN {quote.format_column(column)} {told}"
                )

    async def find(self, connection: Connection, key: Key) -> bool:
        """Whether a migration is in the table."""
        table = define(self.database.kind)
        wanted = sqlalchemy.select(table.c.name).where(*_at(table, key))
        return bool(await fetch(connection, self.database.kind, wanted))

    async def record(
        self, connection: Connection, key: Key, *, checksum: str, seconds: float, batch: int, fake: bool = False
    ) -> None:
        """Write down that a migration was applied.

        Args:
            connection: the one whose transaction it belongs to.
            key: which migration.
            checksum: of its file.
            seconds: how long it took.
            batch: the number of the run.
            fake: whether it is only written down.

        Raises:
            UniqueViolation: it is in the table already.
        """
        kind = self.database.kind
        values = {
            "app": key[0], "name": key[1], "checksum": checksum, "applied_at": now(kind), "applied_by": applied_by(),
            "version": _version(), "seconds": seconds, "batch": batch, "fake": int(fake),
        }  # fmt: skip
        await execute(connection, kind, sqlalchemy.insert(define(kind)).values(values))

    async def erase(self, connection: Connection, keys: Sequence[Key]) -> None:
        """Take migrations out of the table, in the transaction of a connection."""
        table = define(self.database.kind)
        for key in keys:
            await execute(connection, self.database.kind, sqlalchemy.delete(table).where(*_at(table, key)))

    async def accept(self, connection: Connection, key: Key, checksum: str) -> None:
        """Write down another checksum of a migration that was applied."""
        table = define(self.database.kind)
        statement = sqlalchemy.update(table).values(checksum=checksum).where(*_at(table, key))
        await execute(connection, self.database.kind, statement)


def define(kind: str) -> sqlalchemy.Table:
    """The table of the history."""
    # Compared by their bytes everywhere, as files are.
    exact = mysql.VARCHAR(charset="utf8mb4", collation="utf8mb4_bin", length=150)
    exact_name = mysql.VARCHAR(charset="utf8mb4", collation="utf8mb4_bin", length=250)
    app = sqlalchemy.String(150).with_variant(exact, "mysql", "mariadb")
    name = sqlalchemy.String(250).with_variant(exact_name, "mysql", "mariadb")
    return sqlalchemy.Table(
        TABLE,
        sqlalchemy.MetaData(),
        sqlalchemy.Column("app", app, primary_key=True),
        sqlalchemy.Column("name", name, primary_key=True),
        sqlalchemy.Column("checksum", sqlalchemy.String(128), nullable=False),
        sqlalchemy.Column("applied_at", time_type(kind), nullable=False),
        sqlalchemy.Column("applied_by", sqlalchemy.String(250), nullable=False),
        sqlalchemy.Column("version", sqlalchemy.String(50), nullable=False),
        sqlalchemy.Column("seconds", sqlalchemy.Double(), nullable=False),
        sqlalchemy.Column("batch", sqlalchemy.Integer, nullable=False),
        sqlalchemy.Column("fake", sqlalchemy.Integer, nullable=False),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )


def time_type(kind: str) -> Any:
    """The type of a point in time."""
    if kind in ("mysql", "mariadb"):
        return mysql.DATETIME(fsp=6)
    return sqlalchemy.DateTime(timezone=kind == "postgresql")


def now(kind: str) -> datetime:
    """The time as a driver takes it: in UTC, and where the type has no time zone without one."""
    time = datetime.now(UTC)
    return time if kind == "postgresql" else time.replace(tzinfo=None)


def applied_by() -> str:
    """Who does it: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container's user may have a number and no name.
        user = str(os.getuid()) if hasattr(os, "getuid") else "?"
    return f"{user}@{socket.gethostname()}"[:250]


async def fetch(connection: Connection, kind: str, statement: ClauseElement) -> list[Row]:
    """Run a statement of SQLAlchemy Core over a connection; its rows."""
    compiled = compile_statement(statement, kind)
    return await connection.fetch(compiled.sql, compiled.parameters())


async def execute(connection: Connection, kind: str, statement: ClauseElement) -> int:
    """Run a statement of SQLAlchemy Core over a connection; how many rows it changed."""
    compiled = compile_statement(statement, kind)
    return await connection.execute(compiled.sql, compiled.parameters())


def _text(kind: str, statement: ClauseElement) -> str:
    return str(statement.compile(dialect=defining_dialect(kind), compile_kwargs={"literal_binds": True}))


def _version() -> str:
    try:
        return importlib.metadata.version("covet-migrate")
    except importlib.metadata.PackageNotFoundError:
        # Imported from a folder that nobody installed.
        return "unknown"


def _at(table: sqlalchemy.Table, key: Key) -> tuple[Any, Any]:
    return (table.c.app == key[0], table.c.name == key[1])


def _applied(row: Row) -> Applied:
    app, name, checksum, at, by, version, seconds, batch, fake = row
    time = datetime.fromisoformat(at) if isinstance(at, str) else at
    return Applied(
        app=app, name=name, checksum=checksum, applied_at=time.replace(tzinfo=UTC), applied_by=by, version=version,
        seconds=float(seconds), batch=int(batch), fake=bool(fake),
    )  # fmt: skip
