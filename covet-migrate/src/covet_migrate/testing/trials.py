"""An operation on a database: prepared, run, interrupted, taken back, and looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy

from covet_migrate.ddl import LATEST, steps_of
from covet_migrate.exceptions import MigrationError
from covet_migrate.execution.migrator import Migrator, server_version
from covet_migrate.execution.stages import Stage, Target, hash_of, stages_of
from covet_migrate.inspection.drift import find_drift
from covet_migrate.inspection.own_tables import OWN_TABLES
from covet_migrate.inspection.schema import read_schema
from covet_migrate.migrations import Migration
from covet_migrate.operations.base import Operation
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Step
from covet_migrate.testing.files import BEFORE, TRIED, MigrationsInMemory
from covet_orm import Database
from covet_orm.testing import faultpoints

__all__ = ["Interrupted", "Trial", "offline_stage", "states_around", "steps_told", "trial"]

MANY = ("indexes", "uniques", "checks", "foreign_keys", "exclusions", "triggers")


class Interrupted(Exception):  # noqa: N818 - it is no error, but what a test does
    """What ends a migration where a test says."""


def states_around(before: Sequence[Operation], operation: Operation, app: str) -> tuple[State, State]:
    """The states before and after an operation.

    Args:
        before: the operations that come first, on nothing.
        operation: the operation.
        app: the label of the application.

    Raises:
        MigrationError: an operation does not fit its state.
    """
    state = Migration(before, app=app).apply(State())
    return state, operation.apply(state, app)


def offline_stage(
    before: Sequence[Operation], operation: Operation, app: str, kind: str, *, backward: bool = False
) -> Stage:
    """What an operation does in a kind of database, without one.

    Args:
        before: the operations that come first.
        operation: the operation.
        app: the label of the application.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        backward: whether it is taken back.

    Raises:
        MigrationError: it does not fit the state, or the database cannot do it.
    """
    state, _ = states_around(before, operation, app)
    target = Target(kind, LATEST[kind], "default", steps_of, Renderer())
    migration = Migration([operation], app=app, name=TRIED, atomic=False)
    (stage,) = stages_of(migration, state, target, backward=backward)
    return stage


def steps_told(steps: Sequence[Step]) -> list[tuple[str, bool]]:
    """Steps by what they are known by in the journal, and whether each may be in a transaction."""
    return [(hash_of(step), step.transactional) for step in steps]


@dataclass
class Trial:
    """An operation, after those that it needs, as migrations of a database of its own.

    Attributes:
        database: the database, empty at first.
        app: the label of the application.
        before: the operations that come first.
        operations: what is tried.
        rows: statements that put rows there before it is.
        atomic: whether the migration that is tried is atomic.
    """

    database: Database
    app: str
    before: Sequence[Operation]
    operations: Sequence[Operation]
    rows: Sequence[str] = ()
    atomic: bool = True

    def migrator(self) -> Migrator:
        """A migrator, as a new process has it."""
        first = Migration(self.before, app=self.app, name=BEFORE, atomic=False)
        tried = Migration(self.operations, [first.key], app=self.app, name=TRIED, atomic=self.atomic)
        return Migrator(self.database, MigrationsInMemory(first, tried))

    @property
    def states(self) -> tuple[State, State]:
        """The states before and after what is tried."""
        before = Migration(self.before, app=self.app).apply(State())
        return before, Migration(self.operations, app=self.app).apply(before)

    async def prepare(self) -> None:
        """Run what comes first, and put the rows there."""
        await self.migrator().migrate(self.app, BEFORE)
        async with self.database.connection() as connection:
            for sql in self.rows:
                await connection.script(sql)

    async def forward(self) -> None:
        """Apply it, or go on."""
        await self.migrator().migrate(yes=True)

    async def backward(self) -> None:
        """Take it back."""
        await self.migrator().migrate(self.app, BEFORE, yes=True)

    async def unwind(self) -> None:
        """Take back what was interrupted."""
        await self.migrator().unwind()

    async def applied(self) -> bool:
        """Whether the history has it."""
        return any(one.name == TRIED for one in await self.migrator().history.read())

    async def stage(self) -> list[Stage]:
        """What is tried, with its steps for this server."""
        version = await server_version(self.database)
        target = Target(self.database.kind, version, "default", steps_of, Renderer())
        migration = Migration(self.operations, app=self.app, name=TRIED, atomic=self.atomic)
        return stages_of(migration, self.states[0], target, backward=False)

    async def interrupted(self, moment: str, number: int) -> bool:
        """Run it until a moment of a step, where it ends as if its process had; False where there is no such moment.

        Args:
            moment: `begun`, `after`, `done`, or `batch` of a step that moves rows in batches.
            number: of the step, from 0.
        """
        point = "migrate.batch" if moment == "batch" else f"migrate.{moment}.{self.app}.{TRIED}.{number}"
        struck = []

        def strike() -> None:
            struck.append(point)
            raise Interrupted(point)

        with faultpoints.at(point, strike):
            try:
                await self.forward()
            except (Interrupted, MigrationError):
                if not struck:
                    raise
        return bool(struck)

    async def differences(self, state: State) -> list[str]:
        """What is otherwise in the database than a state says, in words."""
        return (await find_drift(self.database, state)).told()

    async def schema(self) -> Mapping[str, Any]:
        """What is there, told so that two can be compared: the order of columns and of what has a name does not count,
        nor whether rows of before were checked by a constraint that counts for all others."""
        there = await read_schema(self.database)
        tables: dict[str, Any] = {}
        for name, table in there.tables.items():
            if name not in OWN_TABLES:
                parts: dict[str, Any] = {part: frozenset(map(_comparable, getattr(table, part))) for part in MANY}
                tables[name] = replace(table, columns=tuple(sorted(table.columns, key=lambda one: one.name)), **parts)
        others = {part: frozenset(getattr(there, part)) for part in ("views", "sequences", "enums", "extensions")}
        return {"tables": tables, **others}

    async def row_counts(self, state: State) -> dict[str, int]:
        """How many rows the tables of a state have, by the label of the model."""
        renderer = Renderer()
        found = {}
        for model in state:
            if model.managed and model.options.get("database") in (None, "default"):
                table = sqlalchemy.table(renderer.render(state, model.label).table.name)
                count = sqlalchemy.select(sqlalchemy.func.count()).select_from(table)
                found[model.label] = int(await self.database.fetch_value(count))
        return found


def _comparable(one: Any) -> Any:
    return replace(one, valid=True) if hasattr(one, "valid") and not hasattr(one, "parts") else one


@asynccontextmanager
async def trial(
    url: str,
    app: str,
    before: Sequence[Operation],
    operations: Sequence[Operation],
    *,
    rows: Sequence[str] = (),
    atomic: bool = True,
) -> AsyncIterator[Trial]:
    """A trial in an empty database, prepared.

    Args:
        url: of the database.
        app: the label of the application.
        before: the operations that come first.
        operations: what is tried.
        rows: statements that put rows there before.
        atomic: whether the migration is atomic.
    """
    async with Database(url) as database:
        made = Trial(database, app, before, operations, rows, atomic)
        await made.prepare()
        yield made
