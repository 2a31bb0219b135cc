"""A transaction as a block: a connection that a task keeps until its block ends.

A transaction belongs to the task that opened it. A statement of another task in it is an error that says what to do: a
connection carries one statement at a time, savepoints are a stack and tasks are not. A task that outlives the block
finds the transaction ended, and gets a connection of its own.

Nothing is sent before the first statement: a block that asks for nothing costs nothing.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from anyio import CancelScope, current_time, move_on_after

from covet_orm.deadlocks import explain
from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.exceptions import (
    CommitUncertain,
    ConnectionLost,
    DeadlockDetected,
    TransactionError,
    TransactionTimeout,
)
from covet_orm.testing import faultpoints
from covet_orm.transactions.abandoned import leave_scope, left_out_of_order, open_inside
from covet_orm.transactions.confirming import Mark, mark, prepare
from covet_orm.transactions.context import active, attempts, current_transaction
from covet_orm.transactions.hooks import Hook, Hooks, Moment, call_committed, call_hook, call_rolled_back
from covet_orm.transactions.objects import SavedObjects
from covet_orm.transactions.options import DEFAULT, Opening, TransactionOptions, check_inner, opening
from covet_orm.transactions.telling import Telling, tell_of
from covet_orm.transactions.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.pool import Pool
    from covet_orm.transactions.sharing import Sharing

__all__ = ["Transaction"]

P = ParamSpec("P")
T = TypeVar("T")

IDLE, OPEN, FAILED = SessionState.IDLE, SessionState.TRANSACTION, SessionState.FAILED
PATIENCE = 5.0
"""Seconds that a COMMIT or a ROLLBACK may take after its task was cancelled; then the connection is cut."""


class Transaction:
    """A transaction, or a savepoint inside of one, as a block:

        async with transaction_manager.atomic():
            await order.save()
            async with transaction_manager.atomic():  # a savepoint
                await mail.save()

    It commits when the block ends, and rolls back when an exception leaves it, cancellation included. A COMMIT or a
    ROLLBACK is awaited to its end, whoever cancels: what is not known cannot be undone. A connection whose BEGIN was
    interrupted is given up. As a decorator, it makes a block of each call of an `async def`.

    Args:
        using: the database, or its alias; None for the one that serves models which name none.
        options: what is asked for.

    Attributes:
        options: what is asked for.
        outer: the block around this one, in any database.
        parent: the block around this one in the same database.
        task: the task that it belongs to.
        ended: whether it was left, or never entered.
        committed: whether it was committed; None as long as that is not decided, or not known.
        sharing: how other tasks may use it, where they may.
    """

    __slots__ = (
        "__weakref__", "_connection", "_database", "_doom", "_entered", "_hooks", "_name", "_objects", "_opening",
        "_pool", "_savepoints", "_scope", "_telling", "_turn", "_using", "committed", "ended", "options",
        "outer", "parent", "sharing", "task",
    )  # fmt: skip

    def __init__(self, using: str | Database | None = None, options: TransactionOptions = DEFAULT) -> None:
        self._using = using
        self.options = options
        self.outer: Transaction | None = None
        self.parent: Transaction | None = None
        self.ended = True
        self.committed: bool | None = None
        self.task: asyncio.Task[Any] | None = None
        self.sharing: Sharing | None = None
        self._database: Database | None = None
        self._connection: Connection | None = None
        self._pool: Pool | None = None
        self._hooks: Hooks | None = None
        self._scope: CancelScope | None = None
        self._doom: BaseException | None = None
        self._name = ""
        self._savepoints = 0
        self._turn: Sharing | None = None
        self._objects: SavedObjects | None = None
        self._opening: Opening | None = None
        self._telling: Telling | None = None
        self._entered = False

    def __repr__(self) -> str:
        label = f" {self.options.label!r}" if self.options.label else ""
        return f"<Transaction{label} of {self._database or self._using or 'the default database'}>"

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Make a block of each call.

        Raises:
            TransactionError: it is no `async def`.
        """
        if not inspect.iscoroutinefunction(function):
            raise TransactionError(
                f"{getattr(function, '__qualname__', function)!r} is no `async def`, and atomic() makes a block of "
                "each call of one"
            )

        @functools.wraps(function)
        async def within(*args: P.args, **kwargs: P.kwargs) -> T:
            async with Transaction(self._using, self.options):
                return await function(*args, **kwargs)

        return within

    @property
    def database(self) -> Database:
        """Where it is.

        Raises:
            NoDatabase: there is none, or several and nothing that says which.
        """
        database = self._database
        if database is None:
            from covet_orm.ambient import find_database

            using = self._using
            database = self._database = find_database(using) if using is None or isinstance(using, str) else using
        return database

    @property
    def task_name(self) -> str:
        """The name of the task that it belongs to."""
        return "no task" if self.task is None else self.task.get_name()

    @property
    def root(self) -> Transaction:
        """The outermost block in the same database."""
        block = self
        while block.parent is not None:
            block = block.parent
        return block

    @property
    def begun(self) -> bool:
        """Whether the server was told of it: that is with its first statement."""
        return self._connection is not None

    async def __aenter__(self) -> Self:
        if self._entered:
            raise TransactionError("a transaction block is entered once; make another one")
        database = self.database
        parent = current_transaction(database)
        if parent is None:
            # What the database does not offer is told before anything is done.
            opening(database.kind, self.options)
            self._telling = tell_of(self)
        else:
            check_inner(database.kind, self.options, parent.root.options)
            if parent._doom is not None:
                raise parent._doomed()
        self._entered = True
        self.parent = parent
        self.outer = active.get()
        self.task = asyncio.current_task()
        if self.options.timeout is not None:
            self._scope = CancelScope(deadline=current_time() + self.options.timeout)
            self._scope.__enter__()
        active.set(self)
        self.ended = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        given = error
        if active.get() is not self or kind is GeneratorExit or (self.parent is not None and self.parent.ended):
            error = left_out_of_order(self, error)
        if error is None:
            error = await self._agree()
        if self._scope is not None and leave_scope(self, error):
            error = TransactionTimeout(
                f"{self!r} took longer than its timeout of {self.options.timeout:g} seconds, and was rolled back"
            )
        self._leave_context()
        try:
            await (self._end(error) if self.parent is None else self._end_inner(error))
        finally:
            if self._turn is not None:
                self._turn.leave()
        if error is not None and error is not given:
            raise error

    def at_hand(self) -> Connection | None:
        """The connection, when a statement can be sent at once: see `ready`."""
        connection = self._connection
        if connection is None or self._doom is not None or self.sharing is not None or connection.state is IDLE:
            return None
        return connection

    async def ready(self) -> Connection:
        """The connection, with the transaction begun on it; where tasks share it, each statement waits for its turn.

        Raises:
            TransactionError: the block has ended; or nothing can be done in it any more but to leave it.
        """
        if self.ended:
            raise TransactionError("the transaction has ended, or was not begun")
        if self._doom is not None:
            raise self._doomed()
        if self.sharing is not None:
            return await self.sharing.connection()
        return await self._begun()

    def add_hook(self, moment: Moment, hook: Hook) -> None:
        """Register a hook of this block. See `on_commit`, `on_rollback` and `pre_commit` of the transaction manager.

        Raises:
            TransactionError: the block has ended.
        """
        if self.ended:
            raise TransactionError("the transaction has ended, or was not begun: there is nothing to wait for")
        if self._hooks is None:
            self._hooks = Hooks()
        self._hooks.add(moment, hook, self.database)

    def on_commit(self, function: Callable[[], object], *, robust: bool = False) -> None:
        """Call a function after the commit of the outermost block, unless this one is rolled back."""
        self.add_hook("on_commit", Hook(function, robust))

    def on_rollback(self, function: Callable[[], object], *, robust: bool = False) -> None:
        """Call a function when this block is rolled back, by itself or with one around it."""
        self.add_hook("on_rollback", Hook(function, robust))

    def pre_commit(self, function: Callable[[], object]) -> None:
        """Call a function before the commit of the outermost block; when it raises, all is rolled back."""
        self.add_hook("pre_commit", Hook(function))

    async def export_snapshot(self) -> str:
        """A name for what this transaction sees, for `atomic(snapshot=...)` in others, which then see the same: for
        reading in parallel what belongs together (PostgreSQL).

        It is good until this block ends. Needs isolation `repeatable read` or `serializable`, or else the next
        statement sees something else already.

        Raises:
            TransactionError: the database has no such thing, or the block's isolation is a weaker one.
        """
        if self.database.kind != "postgresql":
            raise TransactionError(f"export_snapshot() is nothing that {self.database.kind} offers; PostgreSQL does")
        if self.root.options.isolation not in ("repeatable read", "serializable"):
            raise TransactionError("export_snapshot() needs isolation='repeatable read', or 'serializable'")
        rows = await (await self.ready()).fetch("SELECT pg_export_snapshot()")
        return str(rows[0][0])

    def saved_objects(self) -> SavedObjects:
        """The objects that were saved in this block, which get their state back when it is rolled back."""
        if self._objects is None:
            self._objects = SavedObjects()
        return self._objects

    async def _begun(self) -> Connection:
        """The connection, after BEGIN or SAVEPOINT."""
        connection = self._connection
        if connection is None:
            connection = await (self._begin() if self.parent is None else self._set_savepoint(self.parent))
        elif connection.state is IDLE:
            # MySQL rolls all of it back at a deadlock; what came next would be a transaction of its own, each
            # statement.
            raise TransactionError(
                "the server ended this transaction by itself, as after a deadlock, or a statement that commits (DDL on "
                "MySQL); leave the block, and begin again"
            )
        return connection

    async def _begin(self) -> Connection:
        database, options = self.database, self.options
        pool = await database.pool_for(reads=options.read_only)
        one = options.read_only and database.kind == "sqlite" and pool is await database.pool_for(reads=False)
        used = opening(database.kind, options, one_connection=one)
        if options.confirm:
            await prepare(database)
        telling = self._telling
        connection = (pool.try_acquire() or await pool.acquire()) if telling is None else await telling.acquire(pool)
        try:
            if faultpoints.actions:
                await faultpoints.reached_in("begin", options.label)
            if used.limits:
                cast("Any", connection).limit(options.statement_timeout, options.lock_timeout)
            for statement in used.begin:
                await _begin_by(connection, statement)
        except BaseException:
            # What it was told in part may hold for the next transaction.
            pool.discard(connection)
            raise
        self._pool, self._connection, self._opening = pool, connection, used
        if telling is not None:
            self._connection = connection = telling.begun(connection)
        return connection

    async def _set_savepoint(self, parent: Transaction) -> Connection:
        if parent.sharing is not None:
            await parent.sharing.take(self)
            self._turn = parent.sharing
        connection = await parent._begun()
        if self.options.savepoint:
            root = self.root
            root._savepoints += 1
            self._name = f"covet_{root._savepoints}"
            await _begin_by(connection, f"SAVEPOINT {self._name}")
            if root._telling is not None:
                self._telling = root._telling.savepoint(self)
        self._connection = connection
        return connection

    async def _agree(self) -> BaseException | None:
        """What keeps a block from its commit that no exception left: a veto, or what happened inside of it."""
        if self._doom is not None:
            return self._doomed()
        connection = self._connection
        if connection is not None and connection.state is FAILED:
            return TransactionError(
                "a statement failed inside of the transaction and its error was caught there, so that the server "
                "takes nothing more but a rollback: nothing was committed; catch errors around an inner block"
            )
        if connection is not None and connection.state is SessionState.CLOSED:
            # Known before a statement failed: worth another attempt, as one that fails for it is.
            return ConnectionLost(
                "the connection was lost inside of the transaction: nothing was committed", sent=False
            )
        if connection is not None and connection.state is not OPEN:
            return TransactionError(
                "the connection was interrupted, or the server ended the transaction by itself, and the error was "
                "caught inside of the block: nothing was committed"
            )
        if self.parent is not None or self._hooks is None or not self._hooks.pre_commit:
            return None
        try:
            # A hook may register another one.
            for hook in self._hooks.pre_commit:
                await call_hook(hook)
        except BaseException as veto:  # noqa: BLE001 - raised after the rollback
            return veto
        # What a hook did inside may have failed, and been caught there.
        self._hooks.pre_commit.clear()
        return await self._agree()

    def _leave_context(self) -> None:
        # Not by a token, which is good in one context: a generator may be closed in another one.
        if active.get() is self or next(open_inside(self), None) is not None:
            active.set(self.outer)
        self.ended = True

    async def _end(self, error: BaseException | None) -> None:
        """End the outermost block: COMMIT, or ROLLBACK where there is an error."""
        connection, pool = self._connection, self._pool
        if connection is None or pool is None:
            await self._told(committed=error is None, error=error)
            return
        self._connection = None
        if self._telling is not None:
            connection = self._telling.ending(connection, error)
        if error is not None:
            cancelled = await self._roll_back(connection, error)
            if isinstance(error, DeadlockDetected):
                cancelled = await explain(connection, self.database.kind, error) or cancelled
            cancelled = await self._give_back(connection, pool) or cancelled
            await self._told(committed=False, error=error)
            if cancelled is not None:
                raise cancelled
            return
        known: Mark | None = None
        if self.options.confirm:
            try:
                known = await mark(self.database, connection)
            except BaseException as failed:
                await self._roll_back(connection, failed)
                await self._give_back(connection, pool)
                await self._told(committed=False, error=failed)
                raise
        work = (
            faultpoints.commit(connection, self.options.label) if faultpoints.actions else connection.script("COMMIT")
        )
        outcome = await uninterrupted(work, cut=connection.terminate, patience=PATIENCE)
        failure = outcome.error
        if failure is None and connection.state is not IDLE:
            failure = TransactionError("the server did not end the transaction at COMMIT")
        cancelled = await self._give_back(connection, pool) or outcome.cancelled
        if isinstance(failure, ConnectionLost) and failure.sent:
            if self._telling is not None:
                self._telling.ended(self, committed=None, error=failure)
            raise CommitUncertain(
                f"the connection was lost while {self!r} was committed: whether it was is not known", known
            ) from failure
        await self._told(committed=failure is None, error=failure or cancelled)
        if failure is not None:
            raise failure
        if cancelled is not None:
            raise cancelled

    async def _roll_back(self, connection: Connection, error: BaseException) -> asyncio.CancelledError | None:
        """Roll back to the beginning of the block, as far as there is something and somebody to tell; the cancellation
        that came meanwhile."""
        # MariaDB, which rolls back by itself at a deadlock, keeps READ ONLY and the isolation level for the next
        # transaction of the session then, until it is told ROLLBACK.
        kept = connection.state is IDLE and self.parent is None and self.database.kind in ("mariadb", "mysql")
        if connection.state not in (OPEN, FAILED) and not kept:
            return None
        outcome = await uninterrupted(
            self._to_savepoint(connection) if self._name else connection.script("ROLLBACK"),
            cut=connection.terminate,
            patience=PATIENCE,
            hurried=isinstance(error, asyncio.CancelledError),
        )
        if outcome.error is not None:
            # The server rolls back what its client left; that the connection broke is told beside.
            error.add_note(f"the rollback failed as well, and the connection was given up: {outcome.error}")
            connection.terminate()
        return outcome.cancelled

    async def _give_back(self, connection: Connection, pool: Pool) -> asyncio.CancelledError | None:
        """Give the session its own settings back, and the connection to the pool; the cancellation that came
        meanwhile."""
        cancelled = None
        used = cast("Opening", self._opening)
        if used.limits:
            cast("Any", connection).limit(None, None)
        for statement in used.restore:
            if connection.state is IDLE:
                outcome = await uninterrupted(connection.script(statement), cut=connection.terminate, patience=PATIENCE)
                cancelled = cancelled or outcome.cancelled
                if outcome.error is not None:
                    connection.terminate()
        pool.release(connection)
        return cancelled

    async def _end_inner(self, error: BaseException | None) -> None:
        """End a block within another one: RELEASE its savepoint, or ROLLBACK to it."""
        parent, connection, self._connection = cast("Transaction", self.parent), self._connection, None
        if error is not None and self.options.savepoint:
            cancelled = None if connection is None else await self._roll_back(connection, error)
            if connection is not None and connection.state is SessionState.CLOSED:
                parent._doom = parent._doom or ConnectionLost(f"rolled back for {type(error).__name__}: {error}")
            await self._told(committed=False, error=error)
            if cancelled is not None:
                raise cancelled
            return
        parent._take_over(self)
        if error is not None:
            parent._doom = parent._doom or error
        elif connection is not None and self._name:
            outcome = await uninterrupted(
                connection.script(f"RELEASE SAVEPOINT {self._name}"), cut=connection.terminate, patience=PATIENCE
            )
            if self._telling is not None:
                self._telling.ended(self, committed=outcome.error is None, error=outcome.error)
            if outcome.error is not None:
                parent._doom = parent._doom or outcome.error
                raise outcome.error
            if outcome.cancelled is not None:
                raise outcome.cancelled

    async def _to_savepoint(self, connection: Connection) -> None:
        if self.database.kind in ("mysql", "mariadb"):
            await connection.script(f"ROLLBACK TO SAVEPOINT {self._name}")
            await connection.script(f"RELEASE SAVEPOINT {self._name}")
        else:
            await connection.script(f"ROLLBACK TO SAVEPOINT {self._name}; RELEASE SAVEPOINT {self._name}")

    def _take_over(self, inner: Transaction) -> None:
        """What an inner block leaves to the one around it."""
        if inner._hooks is not None:
            if self._hooks is None:
                self._hooks = Hooks()
            self._hooks.join(inner._hooks)
        if inner._objects is not None:
            self.saved_objects().join(inner._objects)

    async def _told(self, *, committed: bool, error: BaseException | None) -> None:
        """Note how it ended, and call the hooks for that; `error` is what the caller raises afterwards."""
        self.committed = committed
        if self._telling is not None:
            self._telling.ended(self, committed=committed, error=error)
        objects, self._objects = self._objects, None
        if committed or objects is not None:
            attempt = attempts.get()
            changed = objects.restore() if objects is not None and not committed else ()
            if attempt is not None:
                attempt.note(committed=committed, changed=changed)
        hooks = self._hooks
        if hooks is None:
            return
        calls = call_committed(hooks.on_commit) if committed else call_rolled_back(hooks.on_rollback)
        if not isinstance(error, asyncio.CancelledError):
            await calls
            return
        with move_on_after(PATIENCE, shield=True):
            await calls

    def _doomed(self) -> TransactionError | ConnectionLost:
        if isinstance(self._doom, ConnectionLost):
            # All of the transaction is worth another attempt, as it is where the connection was lost in this block.
            lost = ConnectionLost(f"the connection was lost in an inner block, and all was rolled back: {self._doom}")
            lost.__cause__ = self._doom
            return lost
        error = TransactionError(
            "an inner block failed that has no savepoint (savepoint=False), or whose savepoint is lost: all of the "
            f"transaction is rolled back. What failed: {type(self._doom).__name__}: {self._doom}"
        )
        error.__cause__ = self._doom
        return error


async def _begin_by(connection: Connection, sql: str) -> None:
    """Run what begins a transaction or a savepoint; where the driver can, together with the first statement in it."""
    prepend: Callable[[str], None] | None = getattr(connection, "prepend", None)
    if prepend is None:
        await connection.script(sql)
    else:
        prepend(sql)
