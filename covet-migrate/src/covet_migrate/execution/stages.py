"""A migration as it is run on one database: its operations, in the direction of the plan, each with its steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import Action, TableAction
from covet_migrate.actions.custom import CustomAction
from covet_migrate.ddl.rebuilding import rebuild_statements
from covet_migrate.exceptions import Irreversible
from covet_migrate.migrations import Migration
from covet_migrate.operations.base import Change, Operation
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Call, RebuildTable, Statement, Step

__all__ = ["Stage", "StepsOf", "Target", "described", "hash_of", "stages_of", "tables_of"]

StepsOf = Callable[[Sequence[Any], str, Any], list[Step]]
"""Makes steps of the actions of an operation, for a kind of database and the version of its server."""


@dataclass(frozen=True)
class Target:
    """What migrations are run on.

    Attributes:
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        version: of the server, in numbers.
        alias: of the database.
        steps_of: makes steps of actions.
        renderer: makes tables of models.
    """

    kind: str
    version: tuple[int, ...]
    alias: str
    steps_of: StepsOf
    renderer: Renderer


@dataclass(frozen=True)
class Stage:
    """An operation and its steps.

    Attributes:
        number: which operation of the migration, from 0, in the order of the file.
        operation: the operation.
        change: its states, in the direction in which it is run.
        actions: what it does.
        steps: how.
    """

    number: int
    operation: Operation
    change: Change
    actions: Sequence[Any]
    steps: list[Step]


def stages_of(
    migration: Migration, before: State, target: Target, *, backward: bool, only: Collection[int] | None = None
) -> list[Stage]:
    """The operations of a migration with their steps, in the order in which they are run.

    Args:
        migration: which one.
        before: the state before the migration, also where it is taken back.
        target: what it is run on.
        backward: whether it is taken back.
        only: which operations, by their numbers from 0; all of them by default.

    Raises:
        Irreversible: it has an operation that cannot be taken back.
        MigrationError: an operation does not fit the state.
    """
    states = [before]
    for operation in migration.operations:
        states.append(operation.apply(states[-1], migration.app))
    numbered = [(number, one) for number, one in enumerate(migration.operations) if only is None or number in only]
    if backward:
        stuck = next((one for _, one in numbered if not one.reversible), None)
        if stuck is not None:
            raise Irreversible(
                f"{migration} cannot be taken back: {stuck.describe()} has no way back. Nothing was changed; give it "
                "one (`reverse_sql`, a second function), or write a migration that does the opposite"
            )
        numbered.reverse()
    stages = []
    for number, operation in numbered:
        old, new = states[number], states[number + 1]
        change = Change(
            app=migration.app,
            before=new if backward else old,
            after=old if backward else new,
            kind=target.kind,
            renderer=target.renderer,
            backward=backward,
            alias=target.alias,
        )
        actions = list(operation.actions(change))
        steps = list(target.steps_of(actions, target.kind, target.version))
        stages.append(Stage(number, operation, change, actions, steps))
    return stages


def hash_of(step: Step) -> str:
    """What a step is known by in the journal, and after an edit of its file."""
    if getattr(step.action, "fill", None) is not None:
        # What rows get may come from a function that gives something else each time: uuid4, the time.
        action: Any = step.action
        text = f"{type(action).__name__} {action.table.name} {action.column.name}"
    elif isinstance(step, Statement):
        text = f"{step.sql}\0{step.params!r}"
    elif isinstance(step, RebuildTable):
        text = "\0".join(rebuild_statements(step))
    else:
        text = described(step)
    return blake2b(f"{type(step).__name__}\0{text}".encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def tables_of(action: Action | None) -> set[str] | None:
    """The tables that an action is about; None where it does not say."""
    if isinstance(action, CustomAction):
        return set(action.tables()) or None
    if not isinstance(action, TableAction):
        return None
    before = getattr(action, "before", None)
    return {action.table.name, *([before.name] if isinstance(before, sqlalchemy.Table) else [])}


def described(step: Step) -> str:
    """A step in a line, for people."""
    if isinstance(step, Statement):
        return " ".join(step.sql.split())
    if isinstance(step, RebuildTable):
        return f"rebuild the table {step.after.name}"
    if isinstance(step, Call):
        return f"call {step.name}"
    return type(step).__name__
