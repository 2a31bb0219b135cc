"""Taking back what is done of a migration that was interrupted.

First the operation of which only a part was done, by what of it is there; then the others before it, as a run of its
own with the journal: interrupted as well, the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
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
from covet_migrate.steps import Call
from covet_orm.exceptions import OrmError

__all__ = ["unwind"]

IN_PART = "in part"
"""Stands in the journal, in the place of a position, as long as an operation is to be taken back of which only a part
was done: up to which key a step that moves data in batches came (`until`), and up to which that is taken back
(`position`); and whether one that moves data was done (`called`)."""
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
    place = Place(planned.migration, not backward, kept=True, unwinding=True)
    forth = stages_of(planned.migration, before, executor.target, backward=backward)
    try:
        async with working(executor) as connection:
            worker = Worker(executor, connection, place)
            async with worker.connection() as one:
                entry = await worker.journal.find(one, planned.migration.key)
            if entry is None:
                return
            flipped = replace(planned, backward=not backward)

            def back(numbers: Collection[int]) -> Run:
                stages = stages_of(planned.migration, before, executor.target, backward=not backward, only=numbers)
                return Run(flipped, stages, 1, 1, 0)

            if entry.unwound is None:
                await _begin(worker, Run(planned, forth, 1, 1, 0), entry, back)
            whole = entry.unwound or 0
            if _is_in_part(entry):
                await _take_back_a_part(worker, back([forth[whole].number]), entry)
            run = back([stage.number for stage in forth[:whole]])
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


async def _begin(worker: Worker, run: Run, entry: Entry, back: Callable[[Collection[int]], Run]) -> None:
    """Find out what is done, and write down that it is being taken back, where it can be."""
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
    # A batch that is done is a part as well; and what a function did that was called is not known.
    following = run.steps[entry.done][1] if entry.done < len(run.steps) else None
    called_now = isinstance(following, Call) and following.transactional and len(entry.hashes) > entry.done
    in_part = bool(left) or entry.position is not None or called_now
    entry.unwound = whole
    called = any(isinstance(step, Call) for step in run.stages[whole].steps[:left]) if in_part else False
    told = {IN_PART: True, "until": entry.position, "position": None, "called": called}
    entry.position = told if in_part else None
    entry.done, entry.hashes, entry.under_way = 0, [], False
    if in_part:
        await _check_part(worker, back([run.stages[whole].number]).stages[0], entry)
    # What cannot be taken back is told before anything of it is.
    back([stage.number for stage in run.stages[:whole]])
    async with worker.connection() as connection:
        await worker.journal.save(connection, entry)
    await point("unwinding", run, whole)


def _is_in_part(entry: Entry) -> bool:
    return isinstance(entry.position, dict) and IN_PART in entry.position


async def _check_part(worker: Worker, stage: Stage, entry: Entry) -> None:
    """Return when an operation of which only a part was done can be taken back.

    Raises:
        HistoryError: it cannot be seen how much of it is there.
    """
    for action, _ in _all_of(stage.actions):
        if _is_in_batches(action, entry) or isinstance(action, REPEATABLE):
            continue
        async with worker.connection() as connection:
            if await in_effect(connection, worker.kind, action) is None:
                raise HistoryError(
                    f"{entry.app}.{entry.name}: of {stage.operation.describe()!r} a part was done, and how much of it "
                    "cannot be seen in the schema. Type `migrate` to bring it to an end; or put it right by hand, and "
                    f"let `migrate {entry.app} {entry.name} --fake` take it for done. Nothing was changed now"
                )


def _is_in_batches(action: object, entry: Entry) -> bool:
    """Whether an action moves data in batches, so that it is known how far it came."""
    return isinstance(action, Call) and not (action.transactional or entry.position["called"])


async def _take_back_a_part(worker: Worker, run: Run, entry: Entry) -> None:
    """Take back an operation of which only a part was done: what of it is not there need not be."""
    executor = worker.executor
    (stage,) = run.stages
    for action, how in _all_of(stage.actions):
        if _is_in_batches(action, entry):
            await _take_back_batches(worker, run, entry, stage, action)
            continue
        async with worker.connection() as connection:
            done = await in_effect(connection, worker.kind, action)
        # Of what was to be a constraint an index may be there alone.
        if done and (how is action or not isinstance(action, DropConstraint)):
            continue
        for step in executor.target.steps_of([how], worker.kind, executor.target.version):
            async with worker.connection() as connection:
                # A part that is an action by itself, as a foreign key that is dropped meanwhile, may be done already.
                if step.action is action or not await in_effect(connection, worker.kind, step.action):
                    await worker.send(connection, step)
    entry.position = None
    async with worker.connection() as connection:
        await worker.journal.save(connection, entry)


async def _take_back_batches(worker: Worker, run: Run, entry: Entry, stage: Stage, step: Call) -> None:
    """Take back what a step did that moves data in batches, as far as it came."""
    if entry.position["until"] is None:
        # It was not begun.
        return

    async def save(position: object) -> None:
        entry.position = {**entry.position, "position": position}
        async with worker.database.connection() as connection:
            await worker.journal.save(connection, entry)

    async def attempt() -> None:
        told = entry.position
        work = worker.executor.data_step(
            run, stage, step, inside=False, position=told["position"], until=told["until"], save=save
        )
        try:
            await work.call(step.function)
        finally:
            # What a batch wrote that was rolled back is not known.
            entry.position = {**told, "position": work.position}

    await worker.executor.patiently(worker.place, attempt)


def _all_of(actions: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Actions, those that are done online as well; each with what steps are made of."""
    for action in actions:
        if isinstance(action, Online):
            yield from ((one, replace(action, actions=(one,))) for one in action.actions)
        else:
            yield action, action
