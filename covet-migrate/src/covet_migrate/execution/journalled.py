"""Runs a migration step by step, with a journal of what is done.

A step has a transaction of its own together with its line in the journal, wherever it can; what cannot (DDL on MySQL
and MariaDB, CREATE INDEX CONCURRENTLY) is written down before, with what the schema looks like, and after.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic

import anyio

from covet_migrate.exceptions import HistoryError
from covet_migrate.execution.executor import TRANSACTIONAL, Executor, Run, point, send
from covet_migrate.execution.failures import Place
from covet_migrate.execution.fingerprints import fingerprint, invalid_indexes
from covet_migrate.execution.journal import Entry
from covet_migrate.execution.lock import fence
from covet_migrate.execution.stages import Stage, hash_of, tables_of
from covet_migrate.steps import Call, Step
from covet_orm.dialects import dialect_of
from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.exceptions import ConnectionLost, DatabaseError
from covet_orm.schema import table_names

__all__ = ["Worker", "run_by_steps", "working"]


async def run_by_steps(executor: Executor, run: Run, place: Place, began: float) -> bool:
    """Run a migration step by step, or go on with it; False where another process has done it.

    Raises:
        HistoryError: what is done of it is not what its file says now.
        MigrationLocked: a lock was not to be had.
        DatabaseError: a step failed; the journal has those before it.
    """
    async with working(executor) as connection:
        worker = Worker(executor, connection, place)
        entry = await worker.entry_of(run)
        if entry is None:
            return False
        executor.started(run, entry.done)
        await worker.go_on(run, entry)
        place.at(len(run.steps))
        await worker.finish(run, monotonic() - began)
        await point("recorded", run, len(run.steps))
    return True


@asynccontextmanager
async def working(executor: Executor) -> AsyncIterator[Connection | None]:
    """The connection that runs what cannot be in a transaction; no statement of an interrupted run is under way. None
    for SQLite, whose one connection is that of the transactions as well, and is used between them."""
    database = executor.database
    if database.kind == "sqlite":
        yield None
        return
    connection = await database.connect()
    try:
        seconds = max(1, round(executor.settings.lock_timeout))
        if database.kind == "postgresql":
            # What cannot be in a transaction keeps nobody waiting while it waits; and nobody ends a session at rest.
            await connection.script(
                "SET lock_timeout = 0; SET statement_timeout = 0; "
                "SELECT set_config('idle_session_timeout', '0', false) "
                "WHERE current_setting('idle_session_timeout', true) IS NOT NULL"
            )
        else:
            await connection.script(
                f"SET SESSION lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}, "
                "wait_timeout = 31536000"
            )
        # Behind a PgBouncer a lock of a session would stay with the server's connection.
        if not getattr(connection, "pooled", False):
            await fence(connection, database.kind, timeout=executor.settings.wait, session=True)
        yield connection
    finally:
        with anyio.CancelScope(shield=True):
            await connection.close()


class Worker:
    """Runs steps, and keeps the journal.

    Args:
        executor: whose run it is.
        connection: what cannot be in a transaction is run over; that of the pool where it is None.
        place: where it is.
    """

    def __init__(self, executor: Executor, connection: Connection | None, place: Place) -> None:
        self.executor = executor
        self.database = executor.database
        self.kind = executor.database.kind
        self.history = executor.history
        self.journal = executor.journal
        self.place = place
        self._connection = connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """The connection, at rest."""
        if self._connection is not None:
            yield self._connection
            return
        async with self.database.connection() as connection:
            yield connection

    async def entry_of(self, run: Run) -> Entry | None:
        """The line of a migration in the journal, a new one where it has none; None where there is nothing to do."""
        there = await table_names(self.database)
        async with self.connection() as connection:
            if self.journal.table.name not in there:
                await self.journal.ensure(connection)
            entry = await self.journal.find(connection, run.migration.key)
            if entry is None:
                if await self.history.find(connection, run.migration.key) is not run.planned.backward:
                    return None
                app, name = run.migration.key
                entry = Entry(app, name, run.planned.backward, len(run.steps))
                await self.journal.begin(connection, entry)
        self.place.done = entry.done
        if entry.backward is not run.planned.backward or entry.unwound is not None:
            raise HistoryError(
                f"{entry}, and it is being taken back: type `migrate --unwind` to bring that to an end first"
            )
        self.check(run, entry)
        return entry

    def check(self, run: Run, entry: Entry) -> None:
        """See whether what is done is what the file says.

        Raises:
            HistoryError: it is not.
        """
        hashes = [hash_of(step) for _, step in run.steps]
        for number in range(entry.done):
            if number >= len(hashes) or hashes[number] != entry.hashes[number]:
                raise HistoryError(
                    f"{entry.app}.{entry.name} was interrupted after {entry.done} of its {entry.steps} steps, and its "
                    f"file was changed since: step {number + 1} is another one now. Bring the file back as it was up "
                    "to there (steps behind those that are done may change), and type the same again. The database was "
                    "not touched"
                )

    async def go_on(self, run: Run, entry: Entry) -> None:
        """Run the steps that are not done."""
        steps = run.steps
        entry.steps = len(steps)
        if entry.under_way:
            await self.settle(run, entry)
        while entry.done < len(steps):
            number = entry.done
            stage, step = steps[number]
            self.executor.step_begins(run, number, stage, step, self.place)
            await self.executor.lock.check()
            await point("before", run, number)
            await self._do(run, entry, stage, step)
            self.place.done = entry.done
            for ended in range(number, entry.done):
                self.executor.step_ended(run, ended, self.place)
                await point("done", run, ended)

    async def _do(self, run: Run, entry: Entry, stage: Stage, step: Step) -> None:
        if isinstance(step, Call) and not (step.transactional and run.migration.atomic):
            await self._call_in_batches(run, entry, stage, step)
        elif step.transactional and (self.kind in TRANSACTIONAL or isinstance(step, Call)):
            together = self._together(run, entry.done)
            steps = [one for _, one in together]
            await self.executor.patiently(self.place, lambda: self._in_a_transaction(run, entry, together), steps)
        else:
            await self.executor.patiently(self.place, lambda: self._by_itself(run, entry, step))

    def _together(self, run: Run, number: int) -> list[tuple[Stage, Step]]:
        """The steps that are done in one transaction with one: on SQLite the others of its operation, of which nobody
        could tell afterwards how much a rebuilt table has. Elsewhere it alone, so that its locks are short."""
        first, *others = run.steps[number:]
        found = [first]
        for stage, step in others if self.kind == "sqlite" else ():
            if stage is not first[0] or not step.transactional or isinstance(step, Call):
                break
            found.append((stage, step))
        return found

    async def _in_a_transaction(self, run: Run, entry: Entry, steps: list[tuple[Stage, Step]]) -> None:
        """Steps together with their line in the journal."""
        after = entry
        for _, step in steps:
            after = _done(after, step)
        async with self.executor.transaction(run, [step for _, step in steps]) as connection:
            for number, (stage, step) in enumerate(steps, start=entry.done):
                if number > entry.done:
                    self.executor.step_begins(run, number, stage, step, self.place)
                    await point("before", run, number)
                await self.executor.do(connection, run, stage, step)
                await point("after", run, number)
            await self.journal.save(connection, after)
        _become(entry, after)

    async def _call_in_batches(self, run: Run, entry: Entry, stage: Stage, step: Call) -> None:
        """A step that moves data in transactions of its own, each with how far it came. What tells that of nothing may
        have done anything as soon as it was called, which is written down before."""
        if step.transactional:
            entry.hashes = [*entry.hashes[: entry.done], hash_of(step)]
            async with self.connection() as connection:
                await self.journal.save(connection, entry)

        async def save(position: object) -> None:
            entry.position = position
            async with self.database.connection() as connection:
                await self.journal.save(connection, entry)

        async def attempt() -> None:
            work = self.executor.data_step(run, stage, step, inside=False, position=entry.position, save=save)
            try:
                await work.call(step.function)
            finally:
                # What a batch wrote that was rolled back is not known.
                entry.position = work.position

        await self.executor.patiently(self.place, attempt)
        await point("after", run, entry.done)
        after = _done(entry, step)
        async with self.connection() as connection:
            await self.journal.save(connection, after)
        _become(entry, after)

    async def _by_itself(self, run: Run, entry: Entry, step: Step) -> None:
        """A step that may commit by itself: what the schema looks like before it is written down."""
        async with self.connection() as connection:
            await self._write_down(connection, entry, step)
            await point("begun", run, entry.done)
            try:
                inside = await self._send(connection, step)
            except DatabaseError as error:
                if not isinstance(error, ConnectionLost):
                    await self._clear(connection, entry, error)
                raise
            await point("after", run, entry.done)
            after = _done(entry, step)
            await self.journal.save(connection, after)
            if inside:
                await connection.script("COMMIT")
            _become(entry, after)

    async def _write_down(self, connection: Connection, entry: Entry, step: Step) -> None:
        entry.under_way = True
        entry.fingerprint = await fingerprint(connection, self.kind, tables_of(step.action))
        entry.invalid = await invalid_indexes(connection) if self.kind == "postgresql" else []
        entry.hashes = [*entry.hashes[: entry.done], hash_of(step)]
        await self.journal.save(connection, entry)

    async def _send(self, connection: Connection, step: Step) -> bool:
        """Run a statement; whether it is in a transaction that is still open, as one is that only changes rows."""
        if self.kind in TRANSACTIONAL:
            await send(connection, step)
            return False
        await connection.script("START TRANSACTION")
        await send(connection, step)
        return connection.state is SessionState.TRANSACTION

    async def send(self, connection: Connection, step: Step) -> None:
        """Run a statement that may be run again, without the journal."""
        if await self._send(connection, step):
            await connection.script("COMMIT")

    async def _clear(self, connection: Connection, entry: Entry, error: DatabaseError) -> None:
        """A statement failed, so that it did not happen: forget that it was under way, and what it left behind."""
        try:
            if connection.state in (SessionState.TRANSACTION, SessionState.FAILED):
                await connection.script("ROLLBACK")
            if self.kind == "postgresql":
                await self._drop_invalid(connection, entry)
            entry.under_way, entry.hashes = False, entry.hashes[: entry.done]
            await self.journal.save(connection, entry)
        except DatabaseError as second:
            # The next run finds out.
            error.add_note(f"and the journal could not be told: {second}")

    async def settle(self, run: Run, entry: Entry) -> None:
        """Find out whether the step happened that was under way when its process or its server died.

        Raises:
            HistoryError: it did, and the file says another one now.
        """
        step = run.steps[entry.done][1] if entry.done < len(run.steps) else None
        self.place.at(entry.done, None, step)
        same = step is not None and hash_of(step) == entry.hashes[entry.done]
        tables = tables_of(step.action) if step is not None else None
        if not same:
            raise HistoryError(
                f"{entry}, and the file was changed there since, so that it cannot be found out whether it happened: "
                "bring the file back as it was, and type the same again. The database was not touched"
            )
        async with self.connection() as connection:
            if self.kind == "postgresql":
                await self._drop_invalid(connection, entry)
            if await fingerprint(connection, self.kind, tables) == entry.fingerprint:
                entry.under_way, entry.hashes = False, entry.hashes[: entry.done]
            else:
                assert step is not None
                _become(entry, _done(entry, step))
            await self.journal.save(connection, entry)
        self.place.done = entry.done

    async def _drop_invalid(self, connection: Connection, entry: Entry) -> None:
        """Drop the indexes that an interrupted CREATE INDEX CONCURRENTLY left: none reads them, and each write pays."""
        known = set(entry.invalid)
        quote = dialect_of(self.kind).identifier_preparer.quote_identifier
        for schema, name in await invalid_indexes(connection):
            if (schema, name) not in known:
                await connection.script(f"DROP INDEX CONCURRENTLY IF EXISTS {quote(schema)}.{quote(name)}")

    async def finish(self, run: Run, seconds: float) -> None:
        """Write a migration into the history, or take it out, and out of the journal."""

        async def attempt() -> None:
            async with self.executor.transaction(run, []) as connection:
                await self.executor.note(connection, run, seconds)
                await self.journal.end(connection, run.migration.key)
                await point("noted", run, len(run.steps))

        await self.executor.patiently(self.place, attempt)


def _done(entry: Entry, step: Step) -> Entry:
    """The line of the journal when a step is done."""
    hashes = [*entry.hashes[: entry.done], hash_of(step)]
    return replace(
        entry, done=entry.done + 1, under_way=False, hashes=hashes, position=None, fingerprint="", invalid=[]
    )


def _become(entry: Entry, other: Entry) -> None:
    entry.__dict__.update(other.__dict__)
