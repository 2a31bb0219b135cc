"""Runs one migration of a plan: as a whole where it can be a transaction, else step by step."""

from __future__ import annotations

from time import monotonic

from covet.exceptions import CovetError
from covet_migrate.exceptions import MigrationError
from covet_migrate.execution.events import MigrationFinished
from covet_migrate.execution.executor import TRANSACTIONAL, Executor, Run
from covet_migrate.execution.failures import Place, failed
from covet_migrate.execution.journalled import run_by_steps
from covet_migrate.execution.plan import Planned
from covet_migrate.execution.stages import described, stages_of
from covet_migrate.state.models import State

__all__ = ["run_migration"]


async def run_migration(
    executor: Executor, planned: Planned, before: State, *, number: int, total: int, batch: int
) -> None:
    """Run a migration, or go on with it where it was interrupted.

    Cancelled, it is rolled back, or what is done of it is in the journal.

    Args:
        executor: runs its steps.
        planned: which one, and in which direction.
        before: the state before it, also where it is taken back.
        number: which of those of the plan, from 1.
        total: how many the plan has.
        batch: the number of the run in the history.

    Raises:
        MigrationFailed: a step of it failed.
        MigrationLocked: a lock was not to be had.
        Irreversible: it cannot be taken back.
        HistoryError: it was interrupted, and what is done of it is not what its file says now.
    """
    migration, backward = planned.migration, planned.backward
    stages = stages_of(migration, before, executor.target, backward=backward)
    run = Run(planned, stages, number, total, batch)
    as_a_whole = planned.under_way is None and migration.atomic and executor.database.kind in TRANSACTIONAL
    place = Place(migration, backward, steps=len(run.steps), kept=not as_a_whole)
    if as_a_whole:
        _require_transactional(run)
    await executor.lock.check()
    began = monotonic()
    try:
        if as_a_whole:
            executor.started(run, 0)
            steps = [step for _, step in run.steps]
            done = await executor.patiently(place, lambda: executor.as_a_whole(run, place, began), steps)
        else:
            done = await run_by_steps(executor, run, place, began)
    except CovetError as error:
        if isinstance(error, MigrationError):
            raise
        raise failed(place, error) from error
    except Exception as error:
        # What code of the migration raised.
        raise failed(place, error) from error
    outcome = "done" if done else "elsewhere"
    seconds = monotonic() - began
    executor.tell(MigrationFinished(migration=migration, backward=backward, seconds=seconds, outcome=outcome))


def _require_transactional(run: Run) -> None:
    for stage, step in run.steps:
        if not step.transactional:
            raise MigrationError(
                f"{run.migration}: {stage.operation.describe()} cannot be done inside of a transaction "
                f"({described(step)}); write Migration(..., atomic=False), with nothing else in it that should happen "
                "together with it. Nothing of it was done"
            )
