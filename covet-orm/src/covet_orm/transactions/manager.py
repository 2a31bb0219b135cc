"""`transaction_manager`: all that is to be said about transactions, by one name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from covet_orm.exceptions import TransactionError
from covet_orm.transactions.blocks import Transaction
from covet_orm.transactions.context import active, current_transaction
from covet_orm.transactions.hooks import Hook, Moment
from covet_orm.transactions.options import DEFAULT, IsolationLevel, TransactionOptions
from covet_orm.transactions.retrying import RETRIED, Backoff, Retry, exponential
from covet_orm.transactions.sharing import Sharing

if TYPE_CHECKING:
    from datetime import timedelta

    from covet_orm.databases import Database
    from covet_orm.outbox.messages import Key
    from covet_orm.transactions.distributed.blocks import DistributedTransaction
    from covet_orm.transactions.profiling import TransactionProfile

__all__ = ["TransactionManager", "transaction_manager"]

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class TransactionManager:
    """Begins transactions, and knows those around the code that asks. There is one: `transaction_manager`."""

    @overload
    def atomic(self, using: F) -> F: ...
    @overload
    def atomic(
        self,
        using: str | Database | None = None,
        *,
        savepoint: bool = True,
        isolation: IsolationLevel | None = None,
        read_only: bool = False,
        deferrable: bool = False,
        timeout: float | None = None,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
        durable: bool = False,
        label: str = "",
        snapshot: str | None = None,
        confirm: bool = False,
    ) -> Transaction: ...
    def atomic(self, using: Any = None, **options: Any) -> Any:
        """A block whose statements happen all or not at all; inside of another one, a savepoint.

            async with transaction_manager.atomic():
                await order.save()

            @transaction_manager.atomic(isolation="serializable")
            async def transfer(): ...

        Nothing is sent before the first statement.

        Args:
            using: the database, or its alias; the one that serves models which name none by default.
            savepoint: whether an inner block can be rolled back by itself; when it cannot, its failure is that of all.
            isolation: `read uncommitted`, `read committed`, `repeatable read` or `serializable`; what the database
                has configured by default.
            read_only: whether the database refuses to write.
            deferrable: wait for a moment when nothing can conflict (PostgreSQL; serializable and read-only).
            timeout: seconds for the whole block.
            statement_timeout: seconds for each statement; of MySQL, each SELECT.
            lock_timeout: seconds for each wait for a lock; whole ones on MySQL and MariaDB.
            durable: whether it must be an outermost block, so that its end is a commit.
            label: what profiles and messages call it.
            snapshot: what `export_snapshot` gave in another transaction, whose view this one is to have (PostgreSQL).
            confirm: whether `CommitUncertain.resolve` can tell what became of it, at the cost of a round trip.

        Raises:
            TransactionError: an option is none that there is, or two contradict each other; on entering: the database
                does not offer it, the block around this one does not have it, or this task was started inside of a
                transaction of another one.
            TransactionTimeout: on leaving: it took longer than `timeout`.
            CommitUncertain: on leaving: the connection was lost while it was committed.
            CommitHookFailed: on leaving: it was committed, and a function that `on_commit` named failed.
        """
        if callable(using):
            function: Any = using
            return Transaction()(function)
        return Transaction(using, TransactionOptions.of(**options) if options else DEFAULT)

    def current(self, using: str | Database | None = None) -> Transaction | None:
        """The innermost open block of this task in a database, if there is one.

        Raises:
            TransactionError: the transaction around this code belongs to another task, which does not share it.
        """
        return current_transaction(_database(using))

    @asynccontextmanager
    async def share(self, using: str | Database | None = None) -> AsyncIterator[Transaction]:
        """Let the tasks that are started within this block use the transaction around it, one at a time.

            async with transaction_manager.atomic(), transaction_manager.share():
                async with asyncio.TaskGroup() as group: ...

        Each statement waits for its turn, and an inner block has it until it ends: savepoints are a stack. The block
        ends when whoever has the turn is done.

        Raises:
            TransactionError: there is no transaction of this task, or it is shared already.
        """
        block = self._require(using)
        if block.task is not asyncio.current_task():
            raise TransactionError("a transaction is shared by the task that opened it")
        if block.sharing is not None:
            raise TransactionError("the transaction is shared already")
        sharing = block.sharing = Sharing(block)
        failed: BaseException | None = None
        try:
            yield block
        except BaseException as error:
            failed = error
            raise
        finally:
            try:
                await sharing.close(failed)
            finally:
                block.sharing = None

    @contextmanager
    def independent(self) -> Iterator[None]:
        """Within this block, code sees no transaction around it; what it opens is its own, on another connection.

        It does not see what the other one has written, and waits for its locks: one that waits for the other to end,
        while that waits for it, ends by a timeout.
        """
        token = active.set(None)
        try:
            yield
        finally:
            active.reset(token)

    def on_commit(
        self, function: Callable[[], object], *, using: str | Database | None = None, robust: bool = False
    ) -> None:
        """Call a function after the transaction is committed, and its connection is free: never if it is rolled back,
        or the inner block that this is called in.

        All of them are called, in this order, whatever one raises. Outside of a transaction the function is called by
        nobody: that is an error, since there is nothing to wait for.

        Args:
            function: takes nothing; what it returns is awaited if it can be.
            using: the database, or its alias.
            robust: whether its failure is logged, rather than raised as `CommitHookFailed`.

        Raises:
            TransactionError: there is no transaction.
        """
        self._hook("on_commit", using, Hook(function, robust))

    def on_rollback(self, function: Callable[[], object], *, using: str | Database | None = None) -> None:
        """Call a function after the block that this is called in was rolled back, by itself or with one around it.

        What it raises is logged: what led to the rollback goes on.

        Raises:
            TransactionError: there is no transaction.
        """
        self._hook("on_rollback", using, Hook(function))

    def pre_commit(self, function: Callable[[], object], *, using: str | Database | None = None) -> None:
        """Call a function before the transaction is committed, inside of it. What it raises rolls everything back.

        Raises:
            TransactionError: there is no transaction.
        """
        self._hook("pre_commit", using, Hook(function))

    async def enqueue(
        self,
        topic: str,
        payload: Any,
        *,
        key: Key | None = None,
        delay: float | timedelta | None = None,
        using: str | Database | None = None,
    ) -> int:
        """Write a message in the transaction around this; its number. It is delivered at least once after the commit,
        in order per topic and key: see `covet_orm.outbox.Outbox.enqueue`, whose arguments and errors are these.

        Args:
            using: the database, or its alias.
        """
        from covet_orm.outbox.outbox import Outbox

        return await Outbox(_database(using)).enqueue(topic, payload, key=key, delay=delay)

    def retry(
        self,
        *,
        max_attempts: int = 3,
        backoff: Backoff = exponential,
        on: tuple[type[Exception], ...] = RETRIED,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Retry:
        """Try again what failed since others were in the way: a conflict, a deadlock, a lock or a lost connection.

            @transaction_manager.retry(max_attempts=5)
            @transaction_manager.atomic(isolation="serializable")
            async def transfer(): ...

            async for attempt in transaction_manager.retry():
                async with attempt, transaction_manager.atomic():
                    ...

        Not tried again is what was committed, or may have been, unless it is `idempotent`.

        Args:
            max_attempts: how often at most, the first one included.
            backoff: gives the most seconds to wait before an attempt, by its number, from 2 on; the wait is a random
                part of it ("full jitter").
            on: the errors that are worth another attempt.
            timeout: seconds within which an attempt may begin.
            idempotent: whether it may happen twice.

        Raises:
            TransactionError: an argument makes no sense; when it is run: there is a transaction around it, which is
                the one to be tried again.
        """
        return Retry(max_attempts, backoff, on, timeout, idempotent)

    def profile(self, *using: str | Database, interval: float = 0.1) -> TransactionProfile:
        """Collect what transactions cost, by label, within a block; of all tasks of this event loop.

            async with transaction_manager.profile() as profile:
                await work()
            print(profile)
            print(profile.labels["transfer"].in_transaction.p99)

        Counted are transactions that begin and end within the block, and have a statement.

        How long they wait for locks is sampled: the server is asked every `interval` seconds, over a connection that
        is none of the pool's, while a statement is under way. Waits shorter than that are seen now and then. On SQLite
        nobody is asked: the wait for the connection that writes and for the lock of the file are measured.

        Args:
            using: databases, or their aliases; none for all.
            interval: seconds between two questions; at least 0.12 on MySQL and MariaDB, which know nothing newer.

        Raises:
            NoDatabase: there is none with such an alias.
            TransactionError: the interval makes no sense; when it is entered: it was before.
        """
        from covet_orm.transactions.profiling import TransactionProfile

        return TransactionProfile([_database(one) for one in using], interval)

    def distributed(
        self,
        *using: str | Database,
        log: str | Database | None = None,
        application: str = "",
        isolation: IsolationLevel | None = None,
        timeout: float | None = None,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
        label: str = "",
        wait: float = 5.0,
    ) -> DistributedTransaction:
        """A block in several databases, which commits in all of them or in none, by two-phase commit.

            async with transaction_manager.distributed("orders", "billing"):
                await order.save()
                await invoice.save()

        An inner `atomic("orders")` is a savepoint. A database that is not touched takes no part; where one is left, it
        commits as usual. `enqueue`, the outbox, does without any of this, and suits most of what this is wished for.

        Args:
            using: the databases, or their aliases. One of them at most is SQLite.
            log: the database whose table `covet_2pc` holds the decision; by default the SQLite among them, or else
                that of the settings (`[plugins.orm] distributed_log`), or else the first.
            application: whose transactions they are, in the names that the servers list; as in the settings by default.
            isolation: as of `atomic`, in each of them.
            timeout: seconds for the whole block, without its commit.
            statement_timeout: as of `atomic`.
            lock_timeout: as of `atomic`.
            label: what profiles and messages call it.
            wait: seconds to reach again those whose connection is lost while it ends.

        Raises:
            TransactionError: an option makes no sense; on entering: there is a transaction around it in one of them.
            NotSupported: on entering: two are SQLite; on leaving: a server does not prepare transactions.
            StoreTableMissing: on entering: the table of the log is not there.
            TransactionTimeout: on leaving: it took longer than `timeout`.
            CommitIncomplete: on leaving: it is committed, and recovery has to tell some of them.
            CommitUncertain: on leaving: whether it is committed is written in the log, which cannot be reached.
            HeuristicOutcome: on leaving: somebody ended what was prepared by hand, and otherwise.
            CommitHookFailed: on leaving: it was committed, and a function that `on_commit` named failed.

        Cancelled while it ends, it ends all the same, and the cancellation is raised when that is done.
        """
        from covet_orm.transactions.distributed.blocks import DistributedTransaction
        from covet_orm.transactions.distributed.participants import Participants

        options = TransactionOptions.of(
            isolation=isolation, statement_timeout=statement_timeout, lock_timeout=lock_timeout, label=label
        )
        TransactionOptions.of(timeout=timeout)
        return DistributedTransaction(Participants(using, log, application), options, timeout=timeout, wait=wait)

    def _hook(self, moment: Moment, using: str | Database | None, hook: Hook) -> None:
        self._require(using).add_hook(moment, hook)

    def _require(self, using: str | Database | None) -> Transaction:
        database = _database(using)
        block = current_transaction(database)
        if block is None:
            raise TransactionError(
                f"there is no transaction in {database.alias!r} around this: `async with transaction_manager.atomic():`"
            )
        return block


def _database(using: str | Database | None) -> Database:
    return Transaction(using).database


transaction_manager = TransactionManager()
"""The one that there is."""
