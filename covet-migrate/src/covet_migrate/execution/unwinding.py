"""Taking back what is done of a migration that was interrupted.

First the operation of which only a part was done, by what of it is there; then the others before it, as a run of its
own with the journal: interrupted as well, the next one goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from covet_migrate.actions.actions import AlterColumn, DropConstraint, Online, SetTableComment
from covet_migrate.exceptions import HistoryError, MigrationError
from covet_migrate.execution.effects import in_effect
from covet_migrate.execution.executor import Executor, Run, point
from covet_migrate.execution.failures import Place, failed
from covet_migrate.execution.journal import Entry
from covet_migrate.execution.journalled import Worker, working
from covet_migrate.execution.plan import Planned
from covet_migrate.execution.stages import Stage, stages_of
from covet_migrate.state.models import State
from covet_orm.exceptions import OrmError

__all__ = ["unwind"]

IN_PART = "in part"
"""What stands in the journal as long as an operation is to be taken back of which only a part was done."""
REPEATABLE = (AlterColumn, SetTableComment)
"""What may be done twice."""


async def unwind(executor: Executor, planned: Planned, before: State) -> None:
    """Take back what is done of a migration that is in the journal; of one that was being taken back, bring it back.

    Args:
        executor: runs the steps.
        planned: the migration, with its line in the journal, in the direction in which it was run.
        before: the state before the migration.

    Raises:
        MigrationFailed: a step failed.
        Irreversible: an operation of which something was done cannot be taken back.
        HistoryError: what was done of an operation cannot be told, or the file was changed.
    """
    backward = planned.backward
    place = Place(planned.migration, not backward, kept=True)
    forth = stages_of(planned.migration, before, executor.target, backward=backward)
    try:
        async with working(executor) as connection:
            worker = Worker(executor, connection, place)
            async with worker.connection() as one:
                entry = await worker.journal.find(one, planned.migration.key)
            if entry is None:
                return
            if entry.unwound is None:
                await _begin(worker, Run(planned, forth, 1, 1, 0), entry)
            whole = forth[: entry.unwound]
            partly = forth[entry.unwound or 0] if entry.position == IN_PART else None
            numbers = {stage.number for stage in (*whole, *([partly] if partly else []))}
            back = stages_of(planned.migration, before, executor.target, backward=not backward, only=numbers)
            if partly is not None:
                await _take_back_a_part(worker, entry, next(one for one in back if one.number == partly.number))
            flipped = replace(planned, backward=not backward)
            rest = [stage for stage in back if partly is None or stage.number != partly.number]
            run = Run(flipped, rest, 1, 1, 0)
            place.steps, place.done = len(run.steps), entry.done
            worker.check(run, entry)
            executor.started(run, entry.done)
            await worker.go_on(run, entry)
            async with worker.connection() as one:
                await worker.journal.end(one, entry.key)
    except OrmError as error:
        raise failed(place, error) from error
    except MigrationError:
        raise
    except Exception as error:
        raise failed(place, error) from error


async def _begin(worker: Worker, run: Run, entry: Entry) -> None:
    """Find out what is done, and write down that it is being taken back."""
    worker.check(run, entry)
    if entry.under_way:
        await worker.settle(run, entry)
    left = entry.done
    whole = 0
    for stage in run.stages:
        if left < len(stage.steps):
            break
        left -= len(stage.steps)
        whole += 1
    entry.unwound, entry.position = whole, IN_PART if left else None
    entry.done, entry.hashes, entry.under_way = 0, [], False
    async with worker.connection() as connection:
        await worker.journal.save(connection, entry)
    await point("unwinding", run, whole)


async def _take_back_a_part(worker: Worker, entry: Entry, stage: Stage) -> None:
    """Take back an operation of which only a part was done: what of it is not there need not be."""
    executor = worker.executor
    for action, how in _all_of(stage.actions):
        async with worker.connection() as connection:
            done = await in_effect(connection, worker.kind, action)
        if done is None and not isinstance(action, REPEATABLE):
            raise HistoryError(
                f"{entry.app}.{entry.name}: of {stage.operation.describe()!r} a part was done, and how much of it "
                "cannot be seen in the schema. Type `migrate` to bring it to an end; or put it right by hand, and let "
                f"`migrate {entry.app} {entry.name} --fake` take it for done. Nothing was changed now"
            )
        # Of what was to be a constraint an index may be there alone.
        if done and (how is action or not isinstance(action, DropConstraint)):
            continue
        for step in executor.target.steps_of([how], worker.kind, executor.target.version):
            async with worker.connection() as connection:
                await worker.send(connection, step)
    entry.position = None
    async with worker.connection() as connection:
        await worker.journal.save(connection, entry)


def _all_of(actions: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Actions, those that are done online as well; each with what steps are made of."""
    for action in actions:
        if isinstance(action, Online):
            yield from ((one, replace(action, actions=(one,))) for one in action.actions)
        else:
            yield action, action
