"""Running operations of migrations in a database, without files and history: for tests of what they do to a schema."""

from __future__ import annotations

from collections.abc import Sequence

from covet_migrate.ddl import Version, steps_of
from covet_migrate.ddl.sqlite import broken_foreign_keys, rebuild
from covet_migrate.operations import Change, Operation
from covet_migrate.state import ModelState, State
from covet_migrate.state.rendering import Renderer, historical_models
from covet_migrate.steps import RebuildTable, Statement, Step
from covet_orm import Database, Field
from covet_orm.drivers.protocol import Connection
from covet_orm.schema import create_tables

__all__ = ["APP", "create", "migrate", "model", "run_steps", "state_after", "states_of", "steps_between"]

APP = "shop"
VERSIONS: dict[str, Version] = {"postgresql": (15,), "mariadb": (10, 11), "mysql": (8, 4), "sqlite": (3, 40)}


def model(name: str, fields: dict[str, Field[object]], **options: object) -> ModelState:
    """A model of `APP`."""
    return ModelState(APP, name, fields).with_options(**options)


def states_of(state: State, operations: Sequence[Operation]) -> list[State]:
    """The state before each operation, and that after the last one."""
    states = [state]
    for operation in operations:
        states.append(operation.apply(states[-1], APP))
    return states


def state_after(state: State, operations: Sequence[Operation]) -> State:
    """The state after operations."""
    return states_of(state, operations)[-1]


def steps_between(
    before: State,
    after: State,
    operation: Operation,
    kind: str,
    *,
    backward: bool = False,
    renderer: Renderer | None = None,
) -> list[Step]:
    """What an operation does in a database; backward with the states the other way round."""
    change = Change(APP, before, after, kind, renderer or Renderer(), backward=backward)
    return steps_of(operation.actions(change), kind, VERSIONS[kind])


async def create(url: str, state: State) -> None:
    """Create the tables of a state, in an empty database."""
    async with Database(url) as database:
        await create_tables(database, historical_models(state).tables())


async def migrate(
    url: str, kind: str, state: State, operations: Sequence[Operation], *, backward: bool = False
) -> None:
    """Run operations one after the other, each in a transaction where the database has such for DDL."""
    states = states_of(state, operations)
    renderer = Renderer()
    async with Database(url) as database, database.connection() as connection:
        done = list(zip(operations, states[:-1], states[1:], strict=True))
        for operation, before, after in reversed(done) if backward else done:
            old, new = (after, before) if backward else (before, after)
            steps = steps_between(old, new, operation, kind, backward=backward, renderer=renderer)
            await run_steps(connection, kind, steps)


async def run_steps(connection: Connection, kind: str, steps: Sequence[Step]) -> None:
    """Run steps, in a transaction where the database has such for DDL."""
    together = kind in ("postgresql", "sqlite") and all(step.transactional for step in steps)
    if kind == "sqlite":
        await connection.script("PRAGMA foreign_keys = OFF")
    if together:
        await connection.script("BEGIN")
    for step in steps:
        if isinstance(step, RebuildTable):
            await rebuild(connection, step)
        elif isinstance(step, Statement):
            try:
                if step.params:
                    await connection.execute(step.sql, step.params)
                else:
                    await connection.script(step.sql)
            except Exception as error:
                error.add_note(step.sql)
                raise
    if kind == "sqlite":
        assert not await broken_foreign_keys(connection)
    if together:
        await connection.script("COMMIT")
    if kind == "sqlite":
        await connection.script("PRAGMA foreign_keys = ON")
