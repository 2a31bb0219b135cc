"""Where a run is, and what is said when it fails there: what, where, what state the database is in, what to type."""

from __future__ import annotations

from dataclasses import dataclass

from covet_migrate.exceptions import MigrationError, MigrationFailed
from covet_migrate.execution.stages import Stage, described
from covet_migrate.migrations import Migration
from covet_migrate.steps import Step
from covet_orm.exceptions import CommitUncertain, ConnectionLost, DatabaseError, DatabaseUnavailable

__all__ = ["Place", "failed"]

SHOWN = 600
"""How much of a statement is shown, in characters."""


@dataclass
class Place:
    """Where a run is.

    Attributes:
        migration: which one.
        backward: whether it is taken back.
        steps: how many steps it has.
        stage: at which operation; None before the first and behind the last.
        step: at which step.
        number: which step that is, from 0.
        done: how many are done, and kept whatever happens next.
        kept: whether it is one whose steps are kept one by one.
        unwinding: whether what was interrupted is being taken back.
    """

    migration: Migration
    backward: bool
    steps: int = 0
    stage: Stage | None = None
    step: Step | None = None
    number: int = 0
    done: int = 0
    kept: bool = False
    unwinding: bool = False

    def at(self, number: int, stage: Stage | None = None, step: Step | None = None) -> None:
        """Go on to a step."""
        self.number, self.stage, self.step = number, stage, step

    @property
    def statement(self) -> str:
        """What is done there, in a line."""
        return "" if self.step is None else described(self.step)


def failed(place: Place, error: BaseException) -> MigrationError:
    """The error about a run that failed at a place."""
    if isinstance(error, MigrationFailed):
        return error
    again = f"`migrate {place.migration.app}`"
    if place.unwinding:
        again = "`migrate --unwind` again"
    elif place.backward:
        again = "the same again"
    where = f"{place.migration}{' (backward)' if place.backward else ''} failed"
    operation = ""
    if place.stage is not None:
        operation = place.stage.operation.describe()
        count = len(place.migration.operations)
        where += f" at operation {place.stage.number + 1} of {count}, {operation!r}"
        where += f", step {place.number + 1} of {place.steps}"
    lines = [f"{where}:"]
    if place.step is not None:
        lines.append(f"  {place.statement[:SHOWN]}")
    code = f" [{error.code}]" if isinstance(error, DatabaseError) and error.code else ""
    lines.append(f"  {type(error).__name__}: {error}{code}")
    lines.append(_state(place, error))
    lines.append(_next(place, error, again))
    return MigrationFailed(
        "\n".join(lines),
        migration=str(place.migration),
        operation=operation,
        statement=place.statement,
        done=place.done,
    )


def _state(place: Place, error: BaseException) -> str:
    if isinstance(error, CommitUncertain) or (not place.kept and place.step is None and _lost(error)):
        return "Whether it was committed is not known here; the history in the database has it, if it was."
    if not place.kept:
        return "Nothing of it was kept: the database is as it was before this migration."
    if place.done == 0 and not _lost(error):
        return "None of its steps is done: the schema is as it was before this migration."
    done = f"Step 1 of {place.steps} is" if place.done == 1 else f"Steps 1 to {place.done} of {place.steps} are"
    known = f"{done} done, and kept." if place.done else "None of its steps is known to be done."
    if _lost(error):
        known += f" Whether step {place.number + 1} is, the next run finds out."
    return known


def _next(place: Place, error: BaseException, again: str) -> str:
    if _lost(error) or isinstance(error, CommitUncertain):
        return f"When the database is there again, type {again}: it goes on from there."
    if not place.backward and place.migration.is_initial and _is_there(error):
        return (
            "If the tables were made before there were migrations, `migrate --fake-initial` takes the first migration "
            f"of {place.migration.app or 'the application'} for done where they are as it would make them."
        )
    drift = ""
    if _is_missing(error):
        drift = " `migrations drift` says what is otherwise in the database than earlier migrations made it."
    if not place.kept:
        return f"Mend the migration, or what is in its way, and type {again}.{drift}"
    if place.unwinding:
        return f"Mend what is in its way, and type {again} to go on there.{drift}"
    return (
        f"Mend what is in its way, or the migration from step {place.done + 1} on, and type {again} to go on there; "
        f"or `migrate --unwind` to take back what is done.{drift}"
    )


def _is_there(error: BaseException) -> bool:
    """Whether a table could not be created because there is one of that name."""
    return isinstance(error, DatabaseError) and (
        error.code in ("42P07", "1050") or (" already exists" in str(error) and str(error).startswith("table "))
    )


def _is_missing(error: BaseException) -> bool:
    """Whether something could not be changed because nothing of that name is there."""
    return isinstance(error, DatabaseError) and (
        error.code in ("42P01", "42703", "42704", "1054", "1091", "1146") or str(error).startswith("no such ")
    )


def _lost(error: BaseException) -> bool:
    return isinstance(error, (ConnectionLost, DatabaseUnavailable))
