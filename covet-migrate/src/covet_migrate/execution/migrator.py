"""`Migrator`: all that can be done with the migrations of a database, as functions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from covet_migrate.exceptions import DataLoss, HistoryError, MigrationError, MigrationFailed, MigrationLocked
from covet_migrate.execution.events import Listener, MigrationFinished
from covet_migrate.execution.history import Applied, History
from covet_migrate.execution.journal import Entry, Journal
from covet_migrate.execution.lock import hold
from covet_migrate.execution.plan import (
    MigrationFiles,
    Planned,
    backward,
    check_history,
    completed,
    descendants,
    make_plan,
    states_before,
)
from covet_migrate.execution.settings import Settings
from covet_migrate.migrations import Key, Migration
from covet_migrate.state.models import State
from covet_orm import Database, transaction_manager
from covet_orm.exceptions import CommitUncertain, ConnectionLost, LockTimeout

if TYPE_CHECKING:
    from covet_migrate.execution.executor import Executor
    from covet_migrate.execution.stages import StepsOf, Target
    from covet_migrate.safety.findings import Finding

__all__ = ["Migrator", "Status", "server_version"]


@dataclass(frozen=True)
class Status:
    """A migration, and what is known of it.

    Attributes:
        migration: which one.
        applied: its row in the history; None where it was not applied.
        under_way: its line in the journal, where it was interrupted.
    """

    migration: Migration
    applied: Applied | None
    under_way: Entry | None


class Migrator:
    """The migrations of a database.

        async with Database(url) as database:
            await Migrator(database, files).migrate()

    Cancelled, what it does is rolled back, or known to the journal, so that the next run goes on there.

    Args:
        database: which one.
        files: the migrations.
        settings: how patient it is.
        tell: is called with what happens, for a bar or a log.
        unknown: whether the database may know migrations that the files do not: older code beside newer.
        steps_of: makes steps of actions; that of `covet_migrate.ddl` by default.
    """

    def __init__(
        self,
        database: Database,
        files: MigrationFiles,
        *,
        settings: Settings | None = None,
        tell: Listener | None = None,
        unknown: bool = False,
        steps_of: StepsOf | None = None,
    ) -> None:
        self.database = database
        self.files = files
        self.settings = settings or Settings()
        self.history = History(database)
        self.journal = Journal(database)
        self._tell = tell
        self._unknown = unknown
        self._steps_of = steps_of
        self._target: Target | None = None

    async def plan(self, app: str | None = None, name: str | None = None) -> list[Planned]:
        """What `migrate` would do, in order; what was interrupted comes first.

        Args:
            app: an application; all of them by default.
            name: of one of its migrations, or the beginning of it; `zero` for none of them, the last by default.

        Raises:
            MigrationNotFound: there is no such application or migration.
            HistoryError: what was applied is not what the files say.
            ConflictingMigrations: the migrations contradict each other.
            DatabaseError: the database cannot be asked.
        """
        order, history = await self._read()
        applied = {one.key for one in history}
        applied |= {*completed(order, applied)}
        interrupted = await self._interrupted(order)
        for one in interrupted:
            (applied.discard if one.backward else applied.add)(one.migration.key)
        return [*interrupted, *make_plan(self.files, order, applied, app, name)]

    async def status(self) -> list[Status]:
        """All migrations, in order, with what is known of each.

        Raises:
            ConflictingMigrations: the migrations contradict each other.
            DatabaseError: the database cannot be asked.
        """
        history = await self.history.read()
        applied = {one.key: one for one in history}
        entries = {entry.key: entry for entry in await self.journal.read()}
        return [Status(one, applied.get(one.key), entries.get(one.key)) for one in self.files.order(frozenset(applied))]

    async def verify(self) -> None:
        """Return when what was applied is what the files say.

        Raises:
            HistoryError: it is not; the message names the file.
        """
        await self._read()

    async def migrate(
        self,
        app: str | None = None,
        name: str | None = None,
        *,
        yes: bool = False,
        fake: bool = False,
        fake_initial: bool = False,
    ) -> list[Planned]:
        """Bring the database to a migration: forward, or backward where it was applied; what was done.

        Several processes may do so at once: one of them does it, and the others find it done.

        Args:
            app: an application; all of them by default.
            name: of one of its migrations, or the beginning of it; `zero` for none of them, the last by default.
            yes: whether rows may be lost.
            fake: whether it is only written down.
            fake_initial: whether the first migration of an application is only written down where its tables are there,
                as it makes them; what differs is in the error.

        Raises:
            MigrationFailed: a migration failed; the message says what the database is like, and what to type.
            MigrationLocked: somebody else migrates, or keeps a table locked, for longer than one was to wait.
            DataLoss: rows would be lost, and nobody said yes.
            HistoryError: what was applied is not what the files say.
            MigrationNotFound: there is no such application or migration.
            Irreversible: a migration cannot be taken back.
            ConflictingMigrations: the migrations contradict each other.
            DatabaseError: the database cannot be asked.
        """
        with _between_migrations():
            if not (fake or await self.plan(app, name) or await self._completed()):
                # Those who start when all is done wait for nobody.
                return []
        async with self._alone() as executor:
            done: list[Planned] = []
            batch: int | None = None
            if not fake:
                for planned in await self._interrupted((await self._read())[0]):
                    batch = await self._run(executor, [planned], batch)
                    done.append(planned)
            order, history = await self._read()
            plan = make_plan(self.files, order, {one.key for one in history}, app, name)
            if fake:
                await self._fake(plan, batch)
            else:
                await self._check_loss(executor, plan, yes=yes)
                await self._run(executor, plan, batch, fake_initial=fake_initial)
            return [*done, *plan]

    async def rollback(self, batches: int = 1, *, yes: bool = False, fake: bool = False) -> list[Planned]:
        """Take back what the last runs of `migrate` applied, and what depends on it; what was done.

        Args:
            batches: how many runs, from 1.
            yes: whether rows may be lost.
            fake: whether it is only written down.

        Raises:
            MigrationError: the number is none.
            MigrationFailed, MigrationLocked, DataLoss, HistoryError, Irreversible, DatabaseError: as of `migrate`.
        """
        if batches < 1:
            raise MigrationError(f"how many runs are taken back is a number from 1, not {batches}")
        async with self._alone() as executor:
            interrupted = await self._interrupted((await self._read())[0])
            if interrupted:
                raise HistoryError(
                    f"{interrupted[0].under_way}: bring that to an end first, by `migrate`, or take it back by "
                    "`migrate --unwind`. Nothing was changed"
                )
            order, history = await self._read()
            numbers = sorted({one.batch for one in history})[-batches:]
            leaving = {one.key for one in history if one.batch in numbers}
            plan = backward(self.files, order, {one.key for one in history}, leaving)
            if fake:
                await self._fake(plan, None)
            else:
                await self._check_loss(executor, plan, yes=yes)
                await self._run(executor, plan, None)
            return plan

    async def unwind(self) -> list[Key]:
        """Take back what is done of migrations that were interrupted, as if they had not been begun; which ones.

        Raises:
            MigrationFailed, MigrationLocked, Irreversible, DatabaseError: as of `migrate`.
            HistoryError: the file was changed since, or what is done of an operation cannot be told.
        """
        from covet_migrate.execution.unwinding import unwind

        async with self._alone() as executor:
            order, history = await self._read()
            applied = {one.key for one in history}
            taken_back = []
            for planned in await self._interrupted(order):
                before = next(states_before(order, applied, [planned]))
                await unwind(executor, planned, before)
                taken_back.append(planned.migration.key)
            return taken_back

    async def accept(self, app: str | None = None) -> list[Key]:
        """Take files as they are now for those that were applied; those whose checksum was another one.

        Args:
            app: the application; all of them by default.
        """
        async with self._alone():
            history = await self.history.read()
            known = {one.key for one in self.files.order(frozenset(one.key for one in history))}
            changed = [
                one.key
                for one in history
                if one.key in known and app in (None, one.app) and one.checksum != self.files.checksum(one.key)
            ]
            async with transaction_manager.atomic(self.database, durable=True) as block:
                for key in changed:
                    await self.history.accept(await block.ready(), key, self.files.checksum(key))
            return changed

    async def prune(self) -> list[Key]:
        """Forget what was applied by migrations whose files are gone, without touching what they did; which ones."""
        async with self._alone():
            history = await self.history.read()
            order = self.files.order(frozenset(one.key for one in history))
            known = {one.key for one in order} | {key for one in order for key in one.replaces}
            gone = [one.key for one in history if one.key not in known]
            async with transaction_manager.atomic(self.database, durable=True) as block:
                await self.history.erase(await block.ready(), gone)
            return gone

    async def _read(self) -> tuple[Sequence[Migration], list[Applied]]:
        history = await self.history.read()
        order = self.files.order(frozenset(one.key for one in history))
        check_history(self.files, order, history, unknown=self._unknown)
        return order, history

    async def _interrupted(self, order: Sequence[Migration]) -> list[Planned]:
        """The migrations that are in the journal."""
        entries = {entry.key: entry for entry in await self.journal.read()}
        found = [
            Planned(one, entries[one.key].backward, self.files.checksum(one.key), entries.pop(one.key))
            for one in order
            if one.key in entries
        ]
        for entry in entries.values():
            raise HistoryError(
                f"{entry}, as {entry.started_by} began it, and its file is not here: bring it back. Nothing was changed"
            )
        return found

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Executor]:
        """A block that nobody else who migrates this database is in, with the tables of the history there."""
        database = self.database
        if transaction_manager.current(database) is not None:
            raise MigrationError(
                "migrations have transactions of their own, and there is one around this: call it outside of it"
            )
        with _between_migrations():
            await database.open()
            async with hold(database, timeout=self.settings.wait, tell=self._tell) as lock:
                try:
                    async with database.connection() as connection:
                        await self.history.ensure(connection)
                    await self._write_down_completed()
                except LockTimeout as error:
                    raise MigrationLocked(
                        f"the history of migrations cannot be written: {error}. Nothing was changed; wait for the end "
                        "of what writes, and type the same again"
                    ) from error
                # Those who find nothing to do need neither it nor SQLAlchemy.
                from covet_migrate.execution.executor import Executor

                yield Executor(database, await self._known_target(), lock, self.settings, self._tell)

    async def _completed(self) -> list[Key]:
        """The squashed migrations that are to take the place of what they replace."""
        applied = {one.key for one in await self.history.read()}
        return completed(self.files.order(frozenset(applied)), applied)

    async def _write_down_completed(self) -> None:
        """Let squashed migrations take the place of what they replace, where all of that was applied."""
        history = await self.history.read()
        applied = {one.key: one for one in history}
        order = self.files.order(frozenset(applied))
        stand = completed(order, applied)
        if not stand:
            return
        check_history(self.files, order, history, unknown=self._unknown)
        moved = [key for key in descendants(self.files, order, stand) if key in applied]
        async with transaction_manager.atomic(self.database, durable=True) as block:
            connection = await block.ready()
            for one in order:
                if one.key in stand:
                    last = max((applied[key] for key in one.replaces), key=lambda row: row.batch)
                    await self.history.erase(connection, list(one.replaces))
                    await self.history.record(
                        connection, one.key, checksum=self.files.checksum(one.key), seconds=0.0, batch=last.batch,
                        fake=True,
                    )  # fmt: skip
            for key in moved:
                await self.history.accept(connection, key, self.files.checksum(key))

    async def _known_target(self) -> Target:
        if self._target is None:
            from covet_migrate.ddl import steps_of as usual
            from covet_migrate.execution.stages import Target
            from covet_migrate.state.rendering import Renderer

            steps_of: StepsOf = self._steps_of or usual
            kind, version = self.database.kind, await server_version(self.database)
            self._target = Target(kind, version, self.database.alias, steps_of, Renderer())
        return self._target

    async def _run(
        self, executor: Executor, plan: Sequence[Planned], batch: int | None, *, fake_initial: bool = False
    ) -> int | None:
        """Run a plan; the number of the run."""
        if not plan:
            return batch
        from covet_migrate.execution.running import run_migration

        history = await self.history.read()
        applied = {one.key for one in history}
        order = self.files.order(frozenset(applied))
        if batch is None:
            batch = max((one.batch for one in history), default=0) + 1
        apps = {one.app for one in history}
        states = states_before(order, applied, plan)
        there: Any = None
        for number, (planned, before) in enumerate(zip(plan, states, strict=True), start=1):
            first = fake_initial and planned.migration.is_initial and planned.migration.app not in apps
            if first and not planned.backward and planned.under_way is None:
                # Few ask for it, and it takes a while to import.
                from covet_migrate.execution.initial import is_there
                from covet_migrate.inspection.schema import read_schema

                there = there or await read_schema(self.database)
                if await is_there(self.database, planned.migration, before, there):
                    await self._fake([planned], batch)
                    continue
            there = None
            await run_migration(executor, planned, before, number=number, total=len(plan), batch=batch)
        return batch

    async def _fake(self, plan: Sequence[Planned], batch: int | None) -> None:
        """Write down that migrations were applied, or taken back, with those of them that were interrupted."""
        if not plan:
            return
        if batch is None:
            batch = max((one.batch for one in await self.history.read()), default=0) + 1
        entries = {entry.key for entry in await self.journal.read()}
        began = monotonic()
        async with transaction_manager.atomic(self.database, durable=True) as block:
            connection = await block.ready()
            for planned in plan:
                migration = planned.migration
                if planned.backward:
                    await self.history.erase(connection, [migration.key, *migration.replaces])
                else:
                    await self.history.erase(connection, list(migration.replaces))
                    await self.history.record(
                        connection, migration.key, checksum=planned.checksum, seconds=0.0, batch=batch, fake=True
                    )
                if migration.key in entries:
                    await self.journal.end(connection, migration.key)
        if self._tell is not None:
            for planned in plan:
                self._tell(
                    MigrationFinished(
                        migration=planned.migration, backward=planned.backward, seconds=monotonic() - began,
                        outcome="faked",
                    )
                )  # fmt: skip

    async def _check_loss(self, executor: Executor, plan: Sequence[Planned], *, yes: bool) -> None:
        """See whether a plan deletes what somebody may want, and whether what is taken back has a way back."""
        backward = any(one.backward for one in plan)
        if yes and not backward:
            return
        from covet_migrate.execution.stages import stages_of
        from covet_migrate.execution.stakes import losses

        stages = [
            stage
            for planned, before in await self._on_tables_that_are_there(plan)
            for stage in stages_of(planned.migration, before, executor.target, backward=planned.backward)
        ]
        lost = [] if yes else await losses(self.database, stages)
        if lost:
            more = "" if backward else ', and in the migration operations.Reviewed(operation, "why") does, for good'
            raise DataLoss(
                f"{'taking back' if backward else 'applying'} {', '.join(str(one.migration) for one in plan)} deletes "
                f"{'; '.join(map(str, lost))}. Nothing was changed; `--yes` says that this may go{more}"
            )

    async def findings(self, plan: Sequence[Planned]) -> list[Finding]:
        """What the rules of `migrations lint` find in what a plan does to tables that are there.

        Args:
            plan: of `plan`. Where something was interrupted, there are no findings.

        Raises:
            MigrationError: an operation does not fit its state.
            DatabaseError: the database cannot be asked.
        """
        if not plan or any(one.backward or one.under_way is not None for one in plan):
            return []
        from covet_migrate.safety.linting import findings_of

        target = await self._known_target()
        pairs = await self._on_tables_that_are_there(plan)
        return [one for planned, before in pairs for one in findings_of(planned.migration, before, target)]

    async def _on_tables_that_are_there(self, plan: Sequence[Planned]) -> list[tuple[Planned, State]]:
        """The migrations of a plan that may do something to rows that are there, with the states before them: not those
        of an application of which nothing is applied."""
        history = await self.history.read()
        applied = {one.key for one in history}
        apps = {one.app for one in history}
        order = self.files.order(frozenset(applied))
        pairs = zip(plan, states_before(order, applied, plan), strict=True)
        return [(one, before) for one, before in pairs if one.backward or one.migration.app in apps]


@contextmanager
def _between_migrations() -> Iterator[None]:
    """Tell what to do when the connection is lost, and no step of a migration is to blame.

    Raises:
        MigrationFailed: it was.
    """
    try:
        yield
    except (ConnectionLost, CommitUncertain) as error:
        raise MigrationFailed(
            f"the connection to the database was lost while its history of migrations was looked at: {error}. What is "
            "done is written there, and no migration was under way. When the database is there again, type the same "
            "again: it goes on from there"
        ) from error


async def server_version(database: Database) -> tuple[int, ...]:
    """The version of a server, in numbers: `(15, 4)`.

    Raises:
        DatabaseError: it cannot be asked.
    """
    asked = {"postgresql": "SHOW server_version", "sqlite": "SELECT sqlite_version()"}
    told = str(await database.fetch_value(asked.get(database.kind, "SELECT VERSION()")))
    found = re.search(r"\d+(?:\.\d+)*", told.removeprefix("5.5.5-"))
    return tuple(int(part) for part in found.group().split(".")) if found else ()
