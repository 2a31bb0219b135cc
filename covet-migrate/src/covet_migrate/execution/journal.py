"""How far a migration came that does not happen as a whole: where DDL commits by itself (MySQL, MariaDB), in migrations
that are `atomic=False`, and where data is moved in batches.

Before a step its hash is written down, with what the schema looks like; after it, that it is done: in the transaction
of the step itself, where it has one. So it is always known which steps are done, but for one that was under way when
its process or its server died, and that one the schema tells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from covet_migrate.execution.history import applied_by, execute, fetch, now, time_type
from covet_migrate.migrations import Key
from covet_orm import Database
from covet_orm.deferred import mysql, sqlalchemy
from covet_orm.drivers.protocol import Connection
from covet_orm.schema import defining_dialect, table_names

__all__ = ["TABLE", "Entry", "Journal"]

TABLE = "covet_migrations_journal"
"""The name of the table."""


@dataclass
class Entry:
    """A migration that is under way.

    Attributes:
        app: the label of its application.
        name: its name.
        backward: whether it is taken back.
        steps: how many steps it has.
        hashes: those of the steps that are done, in order, and of the one that is under way behind them; so is that of
            a function that was called, and does not tell how far it came.
        done: how many are done.
        under_way: whether one more was begun.
        fingerprint: what the schema looked like before that one.
        invalid: the invalid indexes that were there before that one.
        position: how far a step that moves data came, in its own words.
        unwound: where it is being taken back, how many of its operations are still to be.
        started_at: when it was begun, in UTC.
        started_by: by whom.
    """

    app: str
    name: str
    backward: bool
    steps: int
    hashes: list[str] = field(default_factory=list)
    done: int = 0
    under_way: bool = False
    fingerprint: str = ""
    invalid: list[tuple[str, str]] = field(default_factory=list)
    position: Any = None
    unwound: int | None = None
    started_at: datetime | None = None
    started_by: str = ""

    @property
    def key(self) -> Key:
        """The application and the name."""
        return (self.app, self.name)

    def __str__(self) -> str:
        how = ", backward" if self.backward else ""
        more = f"; step {self.done + 1} was under way" if self.under_way else ""
        return f"{self.app}.{self.name}{how}: {self.done} of {self.steps} steps done{more}"


class Journal:
    """The migrations of a database that are under way.

    Args:
        database: which one.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.kind = database.kind

    @cached_property
    def table(self) -> sqlalchemy.Table:
        """The table, as SQLAlchemy has it."""
        return define(self.kind)

    async def read(self) -> list[Entry]:
        """All of them; nothing where the table is not there. Usually there is none."""
        if TABLE not in await table_names(self.database):
            return []
        async with self.database.connection() as connection:
            rows = await fetch(connection, self.kind, sqlalchemy.select(*self.table.c))
        return [_entry(row) for row in rows]

    async def find(self, connection: Connection, key: Key) -> Entry | None:
        """That of a migration, if it is under way. A transaction that is about to end is waited for."""
        wanted = sqlalchemy.select(*self.table.c).where(*self._at(key))
        if self.kind != "sqlite":
            wanted = wanted.with_for_update()
        rows = await fetch(connection, self.kind, wanted)
        return _entry(rows[0]) if rows else None

    async def ensure(self, connection: Connection) -> None:
        """Make the table where it is not there."""
        made = sqlalchemy.schema.CreateTable(self.table, if_not_exists=True)
        await connection.script(str(made.compile(dialect=defining_dialect(self.kind))))

    async def begin(self, connection: Connection, entry: Entry) -> None:
        """Write down that a migration is begun."""
        entry.started_by = applied_by()
        values = {
            "app": entry.app, "name": entry.name, "backward": int(entry.backward), "steps": entry.steps,
            "started_at": now(self.kind), "started_by": entry.started_by, **_values(entry),
        }  # fmt: skip
        await execute(connection, self.kind, sqlalchemy.insert(self.table).values(values))

    async def save(self, connection: Connection, entry: Entry) -> None:
        """Write down how far it came, in the transaction of the connection if there is one."""
        values = {"steps": entry.steps, **_values(entry)}
        await execute(connection, self.kind, sqlalchemy.update(self.table).values(values).where(*self._at(entry.key)))

    async def end(self, connection: Connection, key: Key) -> None:
        """Forget a migration."""
        await execute(connection, self.kind, sqlalchemy.delete(self.table).where(*self._at(key)))

    def _at(self, key: Key) -> tuple[Any, Any]:
        return (self.table.c.app == key[0], self.table.c.name == key[1])


def define(kind: str) -> sqlalchemy.Table:
    """The table of the journal."""
    long = sqlalchemy.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")

    def exact(length: int) -> Any:
        variant = mysql.VARCHAR(charset="utf8mb4", collation="utf8mb4_bin", length=length)
        return sqlalchemy.String(length).with_variant(variant, "mysql", "mariadb")

    return sqlalchemy.Table(
        TABLE,
        sqlalchemy.MetaData(),
        sqlalchemy.Column("app", exact(150), primary_key=True),
        sqlalchemy.Column("name", exact(250), primary_key=True),
        sqlalchemy.Column("backward", sqlalchemy.Integer, nullable=False),
        sqlalchemy.Column("steps", sqlalchemy.Integer, nullable=False),
        sqlalchemy.Column("hashes", long, nullable=False),
        sqlalchemy.Column("done", sqlalchemy.Integer, nullable=False),
        sqlalchemy.Column("under_way", sqlalchemy.Integer, nullable=False),
        sqlalchemy.Column("fingerprint", sqlalchemy.String(64), nullable=False),
        sqlalchemy.Column("invalid", long, nullable=False),
        sqlalchemy.Column("position", long, nullable=False),
        sqlalchemy.Column("unwound", sqlalchemy.Integer, nullable=True),
        sqlalchemy.Column("started_at", time_type(kind), nullable=False),
        sqlalchemy.Column("started_by", sqlalchemy.String(250), nullable=False),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )


def _values(entry: Entry) -> dict[str, Any]:
    return {
        "hashes": json.dumps(entry.hashes), "done": entry.done, "under_way": int(entry.under_way),
        "fingerprint": entry.fingerprint, "invalid": json.dumps(entry.invalid), "position": json.dumps(entry.position),
        "unwound": entry.unwound,
    }  # fmt: skip


def _entry(row: Sequence[Any]) -> Entry:
    app, name, backward, steps, hashes, done, under_way, looked, invalid, position, unwound, at, by = row
    return Entry(
        app=app, name=name, backward=bool(backward), steps=int(steps), hashes=json.loads(hashes), done=int(done),
        under_way=bool(under_way), fingerprint=looked, invalid=[(one, two) for one, two in json.loads(invalid)],
        position=json.loads(position), unwound=unwound,
        started_at=datetime.fromisoformat(at) if isinstance(at, str) else at, started_by=by,
    )  # fmt: skip
