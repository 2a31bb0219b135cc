"""Runs a migration: as one transaction where the database can, else step by step with a journal."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import anyio

from covet_migrate.actions.actions import DropTable, Execute
from covet_migrate.actions.custom import CustomAction
from covet_migrate.exceptions import MigrationError, MigrationLocked
from covet_migrate.execution.data import DataStep
from covet_migrate.execution.events import (
    Listener,
    MigrationStarted,
    Retrying,
    StepFinished,
    StepStarted,
    StoodBack,
)
from covet_migrate.execution.failures import Place
from covet_migrate.execution.history import History
from covet_migrate.execution.journal import Journal
from covet_migrate.execution.lock import MigrationLock, fence
from covet_migrate.execution.plan import Planned
from covet_migrate.execution.settings import Settings
from covet_migrate.execution.stages import Stage, Target, described
from covet_migrate.execution.standing_back import keep_others_off, stand_back, tables_blocked
from covet_migrate.migrations import Migration
from covet_migrate.state.rendering import historical_models
from covet_migrate.steps import Call, RebuildTable, Statement, Step
from covet_orm import Database, transaction_manager
from covet_orm.drivers.protocol import Connection, Row, SessionState
from covet_orm.exceptions import (
    DatabaseError,
    ForeignKeyViolation,
    LockTimeout,
    SerializationFailure,
)
from covet_orm.testing import faultpoints

__all__ = ["Executor", "Run", "Settings", "send"]

T = TypeVar("T")

TRANSACTIONAL = ("postgresql", "sqlite")
"""Where DDL is part of a transaction."""
FIRST_PAUSE = 0.25
"""Seconds before the second attempt; each further pause is twice the one before, up to `MAX_PAUSE`, times a random
number from 0.5 to 1, so that two that were in each other's way do not meet again."""
MAX_PAUSE = 10.0


@dataclass(frozen=True)
class Run:
    """One migration of a plan, as it is run.

    Attributes:
        planned: which migration, and in which direction.
        stages: its operations, with their steps.
        number: which of those of the plan, from 1.
        total: how many the plan has.
        batch: the number of the run in the history.
    """

    planned: Planned
    stages: list[Stage]
    number: int
    total: int
    batch: int

    @property
    def migration(self) -> Migration:
        """The migration."""
        return self.planned.migration

    @property
    def steps(self) -> list[tuple[Stage, Step]]:
        """All steps, each with its operation."""
        return [(stage, step) for stage in self.stages for step in stage.steps]


class Executor:
    """Runs migrations on a database, one at a time.

    Args:
        database: where.
        target: what that is.
        lock: the lock of those who migrate it, held.
        settings: how patient it is.
        tell: is told what happens.
    """

    def __init__(
        self,
        database: Database,
        target: Target,
        lock: MigrationLock,
        settings: Settings,
        tell: Listener | None = None,
    ) -> None:
        self.database = database
        self.target = target
        self.lock = lock
        self.settings = settings
        self.history = History(database)
        self.journal = Journal(database)
        self._tell = tell

    def tell(self, event: Any) -> None:
        """Tell whoever wants to know."""
        if self._tell is not None:
            self._tell(event)

    def started(self, run: Run, done: int) -> None:
        """Tell that a migration begins, or goes on."""
        started = MigrationStarted(
            migration=run.migration, backward=run.planned.backward, number=run.number, total=run.total,
            steps=len(run.steps), done=done,
        )  # fmt: skip
        self.tell(started)

    async def patiently(self, place: Place, attempt: Callable[[], Awaitable[T]], steps: Sequence[Step] = ()) -> T:
        """Do what rolls back when a lock is not to be had, again and again.

        Args:
            place: where it is.
            attempt: does it.
            steps: what is done in the transaction, by which it is known whom it would keep waiting.

        Raises:
            MigrationLocked: there was none for as long as `Settings.retry` says.
        """
        began, number = monotonic(), 0
        tables = tables_blocked(steps, self.target.kind, self.target.version)

        def told() -> None:
            self.tell(StoodBack(migration=place.migration, tables=tuple(tables)))

        while True:
            number += 1
            if tables:
                await stand_back(self.database, tables, until=began + self.settings.retry, tell=told)
            try:
                return await attempt()
            except (LockTimeout, SerializationFailure) as error:
                waited = monotonic() - began
                if waited >= self.settings.retry:
                    raise await self._locked(place, error, number, waited) from error
                pause = min(MAX_PAUSE, FIRST_PAUSE * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
                pause = min(pause, max(self.settings.retry - waited, 0.01))
                self.tell(Retrying(migration=place.migration, attempt=number, pause=pause, reason=str(error)))
            await anyio.sleep(pause)

    async def _locked(self, place: Place, error: DatabaseError, attempts: int, waited: float) -> MigrationLocked:
        from covet_migrate.execution.holders import holders_of

        names = await holders_of(self.database, place.step)
        by = f" It is held by {'; '.join(names)}." if names else ""
        kept = f"Steps 1 to {place.done} of {place.steps} are done" if place.done else "Nothing of it was kept"
        return MigrationLocked(
            f"{place.migration}: a lock was not to be had in {attempts} attempts of {self.settings.lock_timeout:g} "
            f"seconds each, over {waited:.0f} seconds:\n  {place.statement}\n  {error}{by}\n{kept}. Wait for a quieter "
            "moment, or end what holds it, and type the same again; --lock-timeout changes how long it waits"
        )

    def step_begins(self, run: Run, number: int, stage: Stage, step: Step, place: Place) -> None:
        """Note and tell that a step begins."""
        place.at(number, stage, step)
        if self._tell is not None:
            told = f"{stage.operation.describe()}: {described(step)}"
            self.tell(StepStarted(migration=run.migration, number=number + 1, steps=place.steps, description=told))

    def step_ended(self, run: Run, number: int, place: Place) -> None:
        """Tell that a step is done."""
        self.tell(StepFinished(migration=run.migration, number=number + 1, steps=place.steps))

    async def as_a_whole(self, run: Run, place: Place, began: float) -> bool:
        """Run a migration as a transaction, with its row in the history; False where another process has done it."""
        place.at(0)
        async with self.transaction(run, [step for _, step in run.steps]) as connection:
            await fence(connection, self.database.kind, timeout=self.settings.wait, session=False)
            if await self.history.find(connection, run.migration.key) is not run.planned.backward:
                return False
            for number, (stage, step) in enumerate(run.steps):
                self.step_begins(run, number, stage, step, place)
                await point("before", run, number)
                await self.do(connection, run, stage, step)
                await point("after", run, number)
                self.step_ended(run, number, place)
            place.at(len(run.steps))
            await self.note(connection, run, monotonic() - began)
            await point("noted", run, len(run.steps))
        return True

    @asynccontextmanager
    async def transaction(self, run: Run, steps: list[Step]) -> AsyncIterator[Connection]:
        """A transaction for steps, in which the database waits for locks no longer than the settings say."""
        settings = self.settings
        kind = self.database.kind
        # DDL waits for another lock than rows do on MySQL, where steps of DDL have a connection of their own.
        timeout = settings.statement_timeout if kind in TRANSACTIONAL else None
        block = transaction_manager.atomic(
            self.database,
            durable=True,
            label="migration",
            lock_timeout=settings.lock_timeout,
            statement_timeout=timeout,
        )
        async with block:
            connection = await block.ready()
            if kind == "sqlite" and any(map(_drops_tables, steps)):
                async with _foreign_keys_at_the_end(connection):
                    yield connection
            else:
                yield connection

    async def do(self, connection: Connection, run: Run, stage: Stage, step: Step) -> None:
        """Do a step in the transaction of a connection."""
        if isinstance(step, Call):
            await self.data_step(run, stage, step, inside=True).call(step.function)
        elif isinstance(step, RebuildTable):
            from covet_migrate.ddl.sqlite import rebuild

            await rebuild(connection, step)
        else:
            if self.database.kind == "postgresql":
                await keep_others_off(connection, step, self.target.version)
            await send(connection, step)

    def data_step(self, run: Run, stage: Stage, step: Call, *, inside: bool, **more: Any) -> DataStep:
        """What the function of a step gets. Its models are those before the operation, in the order of the file."""
        change = stage.change
        state = change.after if change.backward else change.before
        return DataStep(
            self.database, historical_models(state), step.name, backward=change.backward, inside=inside,
            tell=self._tell, **more,
        )  # fmt: skip

    async def note(self, connection: Connection, run: Run, seconds: float) -> None:
        """Write a migration into the history, or take it out, in the transaction of a connection."""
        migration, planned = run.migration, run.planned
        if planned.backward:
            await self.history.erase(connection, [migration.key, *migration.replaces])
            return
        # Those that it stands for go: it is there in their place.
        await self.history.erase(connection, list(migration.replaces))
        await self.history.record(
            connection, migration.key, checksum=planned.checksum, seconds=seconds, batch=run.batch
        )


async def send(connection: Connection, step: Step) -> None:
    """Send a statement over a connection.

    Raises:
        MigrationError: it is no statement.
        DatabaseError: the server refuses.
    """
    if not isinstance(step, Statement):
        raise MigrationError(f"{described(step)} is no statement, and this database has no other way to do it")
    if step.params:
        await connection.execute(step.sql, step.params)
    else:
        await connection.script(step.sql)


async def point(moment: str, run: Run, number: int) -> None:
    """A point at which a test may let something happen: `migrate.before`, or of a step `migrate.before.blog.0002.3`."""
    if faultpoints.actions:
        await faultpoints.reached(f"migrate.{moment}")
        await faultpoints.reached(f"migrate.{moment}.{run.migration.key[0]}.{run.migration.key[1]}.{number}")


def _drops_tables(step: Step) -> bool:
    """Whether a step may drop a table, or make it anew: SQLite deletes its rows then, with those that refer to them."""
    # What somebody wrote may drop one as well.
    written = isinstance(step, Statement) and (step.action is None or isinstance(step.action, (Execute, CustomAction)))
    return written or isinstance(step, RebuildTable) or isinstance(step.action, DropTable)


@asynccontextmanager
async def _foreign_keys_at_the_end(connection: Connection) -> AsyncIterator[None]:
    """A transaction of SQLite that looks at foreign keys when it ends, and not with each statement.

    Whether it does can be changed outside of transactions alone; so the one around the caller, in which nothing has
    happened yet, is ended and begun again. The connection is the caller's all the time.
    """
    if not (await connection.fetch("PRAGMA foreign_keys"))[0][0]:
        yield
        return
    before = await _violations(connection)
    try:
        await connection.script("COMMIT")
        await connection.script("PRAGMA foreign_keys = OFF")
        await connection.script("BEGIN IMMEDIATE")
        yield
        broken = await _violations(connection)
        new = sorted(broken - before, key=str)
        if new:
            table, row, parent = new[0]
            raise ForeignKeyViolation(
                f"{len(new)} rows refer to one that would not be there after it; the first is row {row} of {table}, "
                f"which refers to {parent}",
                table=str(table),
            )
        with anyio.CancelScope(shield=True):
            await connection.script("COMMIT")
            await connection.script("PRAGMA foreign_keys = ON")
            # The one around the caller ends with nothing in it.
            await connection.script("BEGIN")
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await _look_again(connection, error)
        raise


async def _look_again(connection: Connection, error: BaseException) -> None:
    """Roll back what is open, and let a connection look at foreign keys again; one that cannot is not used again."""
    try:
        if connection.state is SessionState.TRANSACTION:
            await connection.script("ROLLBACK")
        await connection.script("PRAGMA foreign_keys = ON")
    except DatabaseError as second:
        error.add_note(f"the rollback failed as well, and the connection was given up: {second}")
        connection.terminate()


async def _violations(connection: Connection) -> set[tuple[Any, ...]]:
    """The rows whose foreign keys lead nowhere, with the tables that they refer to."""
    rows: list[Row] = await connection.fetch("PRAGMA foreign_key_check")
    return {(row[0], row[1], row[2]) for row in rows}
