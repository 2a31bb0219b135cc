"""Migrations made in memory, of plain SQL, for tests of how they are run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from covet_migrate.actions.actions import Execute
from covet_migrate.execution import Migrator, Settings
from covet_migrate.migrations import Key, Migration
from covet_migrate.operations.base import Change, Operation
from covet_migrate.state.models import State
from covet_migrate.steps import Call, Statement, Step
from covet_orm import Database

__all__ = ["SQL", "Code", "InMemory", "applied", "migration", "migrator", "slow", "steps_of", "three"]


class SQL(Operation):
    """Run statements.

    Args:
        forward: the statements.
        backward: those that take them back; none makes it one that cannot be.
        transactional: whether they may be in a transaction.
    """

    def __init__(
        self,
        forward: str | Sequence[str],
        backward: str | Sequence[str] | None = None,
        *,
        transactional: bool = True,
        on: Collection[str] | None = None,
    ) -> None:
        self.forward = [forward] if isinstance(forward, str) else list(forward)
        self.back = [backward] if isinstance(backward, str) else list(backward or [])
        self.reversible = backward is not None  # type: ignore[misc]
        self.transactional = transactional
        self.on = on

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return f"SQL {self.forward[0][:40]}"

    def actions(self, change: Change) -> Sequence[Any]:
        if self.on is not None and change.kind not in self.on:
            return []
        statements = self.back if change.backward else self.forward
        return [Statement(sql=sql, action=Execute(sql=sql), transactional=self.transactional) for sql in statements]


class Code(Operation):
    """Call a function.

    Args:
        function: takes a `DataStep`.
        inside: whether it is called in the migration's transaction.
    """

    def __init__(self, function: Callable[..., Awaitable[object]], *, inside: bool = True) -> None:
        self.function = function
        self.inside = inside

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return f"Call {self.function.__name__}"

    def actions(self, change: Change) -> Sequence[Any]:
        return [Call(function=self.function, name=self.function.__name__, transactional=self.inside)]


def steps_of(actions: Iterable[Any], kind: str, version: Any) -> list[Step]:
    """Those that are steps already."""
    return list(actions)


def migration(app: str, name: str, *operations: Operation, after: Sequence[Key] = (), **options: Any) -> Migration:
    """A migration as the loader gives it."""
    return Migration(operations=operations, dependencies=after, app=app, name=name, **options)


class InMemory:
    """Migrations, as files would be.

    Args:
        migrations: in order.
        texts: what the checksum of one is made of; its name by default.
    """

    def __init__(self, *migrations: Migration, texts: Mapping[Key, str] | None = None) -> None:
        self.migrations = migrations
        self.texts = dict(texts or {})

    def order(self, applied: Collection[Key], /) -> Sequence[Migration]:
        """As given; of a squashed one and those that it replaces, what `MigrationFiles` says."""
        hidden: set[Key] = set()
        for one in self.migrations:
            there = [key for key in one.replaces if key in applied]
            if one.replaces:
                partly = one.key not in applied and there and len(there) < len(list(one.replaces))
                hidden |= {one.key} if partly else set(one.replaces)
        return [one for one in self.migrations if one.key not in hidden]

    def parents(self, key: Key, /) -> Iterable[Key]:
        """Those that it says."""
        return next(one for one in self.migrations if one.key == key).dependencies

    def checksum(self, key: Key, /) -> str:
        """Of its text."""
        return blake2b(self.texts.get(key, str(key)).encode(), digest_size=16).hexdigest()

    def file(self, key: Key, /) -> str:
        """A name."""
        return f"{key[0]}/migrations/{key[1]}.py"


def migrator(database: Database, *migrations: Migration, **options: Any) -> Migrator:
    """A migrator of some migrations."""
    files = options.pop("files", None) or InMemory(*migrations)
    options.setdefault("settings", Settings(lock_timeout=1, retry=20, wait=60))
    options.setdefault("steps_of", steps_of)
    return Migrator(database, files, **options)


async def applied(database: Database) -> list[str]:
    """What the history has: `app.name`."""
    return [f"{one.app}.{one.name}" for one in await Migrator(database, InMemory()).history.read()]


def three(kind: str) -> list[Migration]:
    """Three migrations of several steps, of DDL and of rows."""
    counter = {
        "postgresql": "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "sqlite": "id integer PRIMARY KEY AUTOINCREMENT",
    }.get(kind, "id int AUTO_INCREMENT PRIMARY KEY")
    options = "" if kind in ("postgresql", "sqlite") else " ENGINE=InnoDB"
    of = " ON bought" if options else ""
    first = migration(
        "shop",
        "0001_first",
        SQL(f"CREATE TABLE item (id int PRIMARY KEY, name varchar(50) NOT NULL){options}", "DROP TABLE item"),
        SQL("INSERT INTO item (id, name) VALUES (1, 'one'), (2, 'two')", "DELETE FROM item"),
        SQL("CREATE INDEX item_name ON item (name)", []),
        SQL(f"CREATE TABLE bought ({counter}, item int NOT NULL){options}", "DROP TABLE bought"),
    )
    second = migration(
        "shop",
        "0002_second",
        SQL("ALTER TABLE item ADD COLUMN price int", "ALTER TABLE item DROP COLUMN price"),
        SQL("UPDATE item SET price = coalesce(price, 0) + 10 * id", []),
        # Done twice, it would be seen.
        SQL("INSERT INTO bought (item) SELECT id FROM item", "DELETE FROM bought"),
        SQL("ALTER TABLE bought ADD COLUMN note varchar(20)", "ALTER TABLE bought DROP COLUMN note"),
        after=[first.key],
    )
    third = migration(
        "shop",
        "0003_third",
        SQL("CREATE INDEX bought_item ON bought (item)", f"DROP INDEX bought_item{of}"),
        SQL("UPDATE item SET price = price + 1", "UPDATE item SET price = price - 1"),
        after=[second.key],
    )
    return [first, second, third]


def slow(kind: str) -> list[Migration]:
    """One whose third statement goes on in the server for a while when its process is gone (MariaDB)."""
    return [
        migration(
            "shop",
            "0001_slow",
            SQL("CREATE TABLE one (id int)", "DROP TABLE one"),
            SQL("INSERT INTO one SELECT seq FROM seq_1_to_600000", []),
            SQL("ALTER TABLE one ADD COLUMN name varchar(50), ALGORITHM=COPY", []),
            SQL("INSERT INTO one (id) VALUES (0)", []),
        )
    ]
