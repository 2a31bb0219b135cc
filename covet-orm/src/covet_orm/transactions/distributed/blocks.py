"""The block around several databases, and the protocol that ends it.

The steps, with the points at which a test may strike (`covet_orm.testing.faultpoints`):

1. Participants that were not touched are left out; those that only read, as far as that is known, are committed.
   One that is left commits as usual. `2pc.begin`
2. Each but the one whose database holds the log is prepared. `2pc.prepared.ALIAS`
3. The decision: a row of the log, in the transaction of the participant that is there, or one of its own.
   `2pc.deciding`, `2pc.decision written` (inside of that participant's transaction), `2pc.decided`
4. The prepared ones are told. `2pc.told.ALIAS`

A failure before the third step rolls all of them back. From then on it is committed; who could not be told is told by
recovery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio import CancelScope, current_time, fail_after, move_on_after, sleep

from covet_orm.databases import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import (
    CommitIncomplete,
    CommitUncertain,
    ConnectionLost,
    HeuristicOutcome,
    OrmError,
    TransactionError,
    TransactionTimeout,
    UniqueViolation,
)
from covet_orm.testing import faultpoints
from covet_orm.transactions.blocks import PATIENCE
from covet_orm.transactions.context import current_transaction
from covet_orm.transactions.distributed.branches import Branch, end_prepared, fate, list_prepared
from covet_orm.transactions.distributed.decisions import TABLE, DecisionLog
from covet_orm.transactions.distributed.elapsed import Elapsed
from covet_orm.transactions.distributed.identifiers import GlobalId, check_name, new_transaction
from covet_orm.transactions.distributed.participants import Participants
from covet_orm.transactions.distributed.telling import DistributedTelling
from covet_orm.transactions.options import TransactionOptions, opening

__all__ = ["KEPT", "DistributedTransaction"]

T = TypeVar("T", bound=BaseException)
logger = logging.getLogger("covet_orm.transactions")

KEPT = 86400.0
"""Seconds for which a decision is kept at least that its coordinator has not seen through. It decides nothing, and asks
for nothing, that is older than half of it."""
PAUSE = 0.1
"""Seconds between two attempts to reach a participant, or the log."""


class DistributedTransaction:
    """A transaction in several databases: see `transaction_manager.distributed`.

    Args:
        participants: the databases, and where the decision is written.
        options: what each of them is asked for.
        timeout: seconds for the block.
        wait: seconds to reach those who lost their connection at the end.

    Attributes:
        transaction: 32 hexadecimal digits, which the names of its prepared parts and its row in the log have.
        committed: whether it was committed; None as long as that is not decided, or not known.
    """

    def __init__(
        self, participants: Participants, options: TransactionOptions, *, timeout: float | None, wait: float
    ) -> None:
        self._participants = participants
        self._options = options
        self._timeout = timeout
        self._wait = wait
        self._scope: CancelScope | None = None
        self._branches: list[Branch] = []
        self._log: DecisionLog | None = None
        self._telling: DistributedTelling | None = None
        self._began = Elapsed()
        self._application = ""
        self.transaction = new_transaction()
        self.committed: bool | None = None

    def __repr__(self) -> str:
        return f"<DistributedTransaction {self.transaction}>"

    def branch(self, database: str | Database) -> Branch:
        """The part of one database, as a block: for its hooks.

        Raises:
            TransactionError: it takes no part, or the block was not entered.
        """
        for branch in self._branches:
            if database in (branch.database, branch.database.alias):
                return branch
        raise TransactionError(f"{database!r} takes no part in {self!r}")

    async def __aenter__(self) -> Self:
        if self._branches:
            raise TransactionError("a transaction block is entered once; make another one")
        chosen = self._participants.chosen()
        for database in chosen.databases:
            check_name(database.alias, "the alias")
            await database.open()
            opening(database.kind, self._options)
            if current_transaction(database) is not None:
                raise TransactionError(
                    f"there is a transaction in {database.alias!r} around this: distributed() is an outermost block in "
                    "each of its databases"
                )
        self._application = chosen.application
        self._log = DecisionLog.of(chosen.log)
        identity = await self._log.identity()
        self._began = Elapsed()
        branches = [
            Branch(database, self._options, GlobalId(chosen.application, self.transaction, identity, database.alias))
            for database in chosen.databases
        ]
        if self._timeout is not None:
            self._scope = CancelScope(deadline=current_time() + self._timeout)
            self._scope.__enter__()
        for branch in branches:
            # It sends nothing, and nothing was open: it does not fail.
            await branch.__aenter__()
        self._branches = branches
        self._telling = DistributedTelling(self.transaction, self._options.label, chosen.log.alias)
        self._telling.begun(database.alias for database in chosen.databases)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        given = error
        if error is None:
            error = await self._agree()
        if self._scope is not None:
            if self._scope.__exit__(type(error) if error is not None else None, error, None):
                error = TransactionTimeout(
                    f"{self!r} took longer than its timeout of {self._timeout:g} seconds, and was rolled back"
                )
            self._scope = None
        for branch in reversed(self._branches):
            branch.ending(error)
        cancelled: asyncio.CancelledError | None
        if error is not None:
            self.committed = False
            _, cancelled = await self._to_the_end(
                self._undo(self._branches), hurried=isinstance(error, asyncio.CancelledError)
            )
            await self._tell(committed=False, error=error)
            if cancelled is not None and not isinstance(error, asyncio.CancelledError):
                raise cancelled
            if error is not given:
                raise error
            return
        failure, cancelled = await self._to_the_end(self._commit(), hurried=False)
        await self._tell(committed=self.committed, error=failure or cancelled)
        if failure is not None:
            raise failure
        if cancelled is not None:
            raise cancelled

    async def _agree(self) -> BaseException | None:
        """What keeps one of them from its commit. A hook of one may have spoilt another: each is asked twice."""
        for branch in (*self._branches, *self._branches):
            error = await branch._agree()
            if error is not None:
                return error
        return None

    async def _to_the_end(
        self, work: Coroutine[Any, Any, BaseException | None], *, hurried: bool
    ) -> tuple[BaseException | None, asyncio.CancelledError | None]:
        """Do something to its end, whoever cancels; what it gave, and the cancellation that came meanwhile.

        It opens connections, with times of their own, so that it needs a task of its own.
        """
        task = asyncio.ensure_future(work)
        cancelled: asyncio.CancelledError | None = None
        loop = asyncio.get_running_loop()
        timer = loop.call_later(PATIENCE, self._cut) if hurried else None
        shield = CancelScope(shield=True)
        try:
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError as error:
                    if cancelled is None:
                        cancelled = error
                        # A scope of anyio cancels in every turn of the loop, unless another one shields the task.
                        shield.__enter__()
                    if timer is None:
                        timer = loop.call_later(PATIENCE, self._cut)
        finally:
            if timer is not None:
                timer.cancel()
            if cancelled is not None:
                shield.__exit__(None, None, None)
        return task.result(), cancelled

    def _cut(self) -> None:
        for branch in self._branches:
            if branch._connection is not None:
                branch._connection.terminate()

    # The protocol

    async def _commit(self) -> BaseException | None:
        """Commit; the error that the caller gets, if any. `committed` says how it came out."""
        branches = [branch for branch in self._branches if branch.begun]
        try:
            return await self._protocol(branches)
        finally:
            for branch in branches:
                await branch.leave()

    async def _protocol(self, branches: Sequence[Branch]) -> BaseException | None:
        log = self._log
        assert log is not None
        try:
            writers = await self._writers(branches)
            last = next((branch for branch in writers if branch.database._lanes is log.database._lanes), None)
            others = [branch for branch in writers if branch is not last]
            if len(writers) > 1:
                await self._prepare(others)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            self.committed = False
            return await self._undo(branches) or error
        if len(writers) < 2:
            return await self._commit_one(writers)
        failure = await self._decide(log, last, others)
        if self.committed is False:
            return await self._undo(branches) or failure
        return await self._announce(others) if self.committed else failure

    async def _writers(self, branches: Sequence[Branch]) -> list[Branch]:
        """Those that have something to commit; the others are done with, and their locks are free."""
        if len(branches) < 2:
            return list(branches)
        writers: list[Branch] = []
        for branch in branches:
            if await branch.wrote():
                writers.append(branch)
            else:
                await branch.commit_alone()
        return writers

    async def _commit_one(self, writers: Sequence[Branch]) -> BaseException | None:
        """A commit as any other: there is nobody to agree with."""
        for branch in writers:
            try:
                await branch.commit_alone()
            except ConnectionLost as error:
                if error.sent:
                    alias = branch.database.alias
                    return _caused(
                        CommitUncertain(
                            f"the connection was lost while {self!r} was committed, in {alias!r} alone: whether it was "
                            "is not known"
                        ),
                        error,
                    )
                self.committed = False
                return error
            except Exception as error:  # noqa: BLE001 - the caller gets it
                await branch.take_back()
                self.committed = False
                return error
        self.committed = True
        return None

    async def _prepare(self, branches: Sequence[Branch]) -> None:
        if faultpoints.actions:
            await faultpoints.reached("2pc.begin")
        for branch in branches:
            began = perf_counter()
            await branch.prepare()
            if self._telling is not None:
                self._telling.prepared(branch.database.alias, perf_counter() - began)
            if faultpoints.actions:
                await faultpoints.reached(f"2pc.prepared.{branch.database.alias}")
        if faultpoints.actions:
            await faultpoints.reached("2pc.deciding")

    async def _decide(self, log: DecisionLog, last: Branch | None, others: Sequence[Branch]) -> BaseException | None:
        """Write the decision, and commit it; `committed` says how it came out."""
        told = {branch.database.alias: branch.number for branch in others}
        try:
            if self._began.seconds > KEPT / 2:
                raise TransactionError(
                    f"{self!r} is so old that what became of it may be forgotten: all is rolled back"
                )
            if last is None:
                await log.decide(self.transaction, "commit", self._application, told)
            else:
                await log.write(last.held, self.transaction, "commit", self._application, told)
                if faultpoints.actions:
                    await faultpoints.reached("2pc.decision written")
                await last.commit_alone()
        except ConnectionLost as error:
            if last is not None:
                # SQLite has no other that writes.
                await last.leave()
            return await self._find_out(log, error)
        except UniqueViolation as error:
            self.committed = False
            if error.table not in ("", TABLE):
                return error
            return _caused(
                TransactionError(f"{self!r} took so long that recovery took it for dead: all is rolled back"), error
            )
        except Exception as error:  # noqa: BLE001 - the caller gets it
            self.committed = False
            return error
        self.committed = True
        return None

    async def _find_out(self, log: DecisionLog, error: ConnectionLost) -> BaseException | None:
        """What was decided, when the connection was lost that was to decide it: the log tells, or it is aborted now."""
        with move_on_after(self._wait):
            while self._began.seconds < KEPT / 2:
                try:
                    decision = await log.settle(self.transaction, self._application)
                except OrmError as refused:
                    logger.debug("the log in %r does not tell yet: %s", log.database.alias, refused)
                    await sleep(PAUSE)
                    continue
                self.committed = decision.verdict != "abort"
                return None if self.committed else error
        return _caused(
            CommitUncertain(
                f"the connection to the log in {log.database.alias!r} was lost while {self!r} was decided, and the log "
                f"could not be read in {self._wait:g} seconds: recovery will, and do the same in all databases"
            ),
            error,
        )

    async def _announce(self, branches: Sequence[Branch]) -> BaseException | None:
        """Tell the prepared ones that they commit."""
        if self._telling is not None:
            self._telling.decided()
        if faultpoints.actions:
            await faultpoints.reached("2pc.decided")
        until = current_time() + self._wait
        pending: list[str] = []
        rolled_back: list[str] = []
        for branch in branches:
            alias = branch.database.alias
            try:
                if await self._end(branch, until, commit=True) == "aborted":
                    rolled_back.append(alias)
            except (OrmError, TimeoutError) as error:
                logger.warning("%s is still to be told that %r commits: %s", alias, self, error)
                pending.append(alias)
            if faultpoints.actions:
                await faultpoints.reached(f"2pc.told.{alias}")
        if rolled_back:
            return HeuristicOutcome(
                f"{self!r} was committed, but somebody had rolled back what was prepared in {', '.join(rolled_back)}: "
                "the databases do not agree, and people must see to it",
                rolled_back,
            )
        if pending:
            return CommitIncomplete(
                f"decided: commit; {len(pending)} of the participants of {self!r} are still to be told: "
                f"{', '.join(pending)}. Recovery tells them, and until then their rows stay locked. It must not be "
                "tried again",
                pending,
            )
        assert self._log is not None
        self._log.finished.add(self.transaction)
        return None

    async def _undo(self, branches: Sequence[Branch]) -> HeuristicOutcome | None:
        """Roll all of them back. Who cannot be reached now finds no decision later, which means the same."""
        until = current_time() + self._wait
        committed: list[str] = []
        for branch in branches:
            if branch.begun and not branch.prepared:
                await branch.take_back()
                await branch.leave()
        for branch in branches:
            if not branch.prepared:
                continue
            try:
                if await self._end(branch, until, commit=False) == "committed":
                    committed.append(branch.database.alias)
            except (OrmError, TimeoutError) as error:
                logger.warning("%s is still to be told that %r is rolled back: %s", branch.database.alias, self, error)
            await branch.leave()
        if not committed:
            return None
        return HeuristicOutcome(
            f"{self!r} was rolled back, but somebody had committed what was prepared in {', '.join(committed)}: the "
            "databases do not agree, and people must see to it",
            committed,
        )

    async def _end(self, branch: Branch, until: float, *, commit: bool) -> str:
        """End a prepared branch, over its connection or another one.

        Returns:
            `done`; or what became of it when it was not there any more: `committed`, `aborted`, empty for unknown.

        Raises:
            TimeoutError: it could not be told in time.
        """
        kind, identifier = branch.database.kind, branch.identifier
        try:
            return await _ended(branch.held, kind, identifier, branch.number, commit=commit)
        except OrmError as error:
            logger.debug("%s is told again over another connection: %s", branch.database.alias, error)
            # Nobody else can tell an XA transaction as long as its session is there.
            branch.held.terminate()
        with fail_after(max(0.0, until - current_time())):
            while True:
                try:
                    connection = await branch.database.connect()
                    try:
                        return await _ended(connection, kind, identifier, branch.number, commit=commit)
                    finally:
                        await connection.close()
                except OrmError as error:
                    logger.debug("%s does not take it yet: %s", branch.database.alias, error)
                await sleep(PAUSE)

    async def _tell(self, *, committed: bool | None, error: BaseException | None) -> None:
        """Tell whoever listens how it ended, and call the hooks of every branch, unless that is not known.

        Raises:
            CommitHookFailed: it was committed, and functions that `on_commit` named failed.
        """
        if self._telling is not None:
            self._telling.ended(committed=committed, error=error)
        failed: Exception | None = None
        for branch in self._branches:
            if committed is None:
                branch.uncertain(error)
                continue
            try:
                await branch._told(committed=committed, error=error)
            except Exception as raised:  # noqa: BLE001 - raised when the others have had their turn
                failed = failed or raised
        if failed is not None and error is None:
            raise failed


async def _ended(connection: Connection, kind: str, identifier: GlobalId, number: str, *, commit: bool) -> str:
    ended = await end_prepared(connection, kind, identifier, commit=commit)
    if ended == "done":
        return ended
    if kind == "postgresql":
        return await fate(connection, number)
    if identifier in [one for one, _ in await list_prepared(connection, kind)]:
        raise TransactionError("the session that prepared it is not gone yet")
    return ""


def _caused(error: T, cause: BaseException) -> T:
    error.__cause__ = cause
    return error
