"""Who is told of transactions: the listeners of the application, profiles, the log of slow ones, and that of those that
are open while nobody sends a statement.

A block asks once, when it is entered, whether anybody wants to know. Nothing else here is called while nobody does.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from covet.context import current_request
from covet.events import Event, listener
from covet_orm.drivers.protocol import Connection
from covet_orm.events import (
    SavepointEnded,
    SavepointSet,
    TransactionBegun,
    TransactionDeadlocked,
    TransactionEnded,
    TransactionIdle,
    TransactionOutcome,
    TransactionRetried,
    TransactionSlow,
)
from covet_orm.exceptions import DeadlockDetected
from covet_orm.observing import caller
from covet_orm.transactions.timing import TimedConnection

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet_orm.databases import Database
    from covet_orm.pool import Pool
    from covet_orm.transactions.blocks import Transaction
    from covet_orm.transactions.retrying import Attempt

__all__ = ["Profiler", "Telling", "add_profiler", "remove_profiler", "tell_of", "tell_retried"]

logger = logging.getLogger("covet_orm.transactions")

OURS = ("covet_orm.", "asyncio.", "contextlib", "functools")
"""The modules whose frames say nothing about where a block was opened."""
FRAMES = 20
"""How many frames are kept of where a block was opened, the innermost ones."""


class Profiler(Protocol):
    """Is told of transactions. Its methods return at once and raise nothing."""

    def takes(self, database: Database) -> bool:
        """Whether it wants to know of a database's transactions, in this event loop."""
        ...

    def began(self, telling: Telling) -> None:
        """A transaction has begun."""

    def ended(self, telling: Telling, outcome: TransactionOutcome) -> None:
        """A transaction has ended; or could not begin, and then it was not told of before."""

    def deadlocked(self, telling: Telling) -> None:
        """A transaction was chosen to end a deadlock."""

    def savepoint(self, telling: Telling) -> None:
        """An inner block has set its savepoint."""

    def retried(self, label: str) -> None:
        """An attempt failed, whose last transaction had this label, and another one will be made."""


profilers: tuple[Profiler, ...] = ()
"""Those that there are now."""


def add_profiler(profiler: Profiler) -> None:
    """Tell it of the transactions whose blocks are entered from now on."""
    global profilers
    profilers = (*profilers, profiler)


def remove_profiler(profiler: Profiler) -> None:
    """Tell it of no more."""
    global profilers
    profilers = tuple(one for one in profilers if one is not profiler)


def tell_of(block: Transaction) -> Telling | None:
    """What tells of an outermost block, if anybody wants to know."""
    app = listener()
    database = block.database
    settings = database.observing
    if app is None and not profilers and settings.slow_transaction is None and not settings.idle_in_transaction_warning:
        return None
    asked = tuple(one for one in profilers if one.takes(database))
    return Telling(block, app, asked)


def tell_retried(attempt: Attempt, delay: float) -> None:
    """Tell that an attempt failed, and another one will be made.

    Args:
        attempt: the one that failed.
        delay: seconds until the next.
    """
    error = attempt.error
    if (app := listener()) is not None:
        code = str(getattr(error, "code", ""))
        app.emit(TransactionRetried(attempt.label, attempt.number, delay, type(error).__name__, code))
    for profiler in profilers:
        profiler.retried(attempt.label)


class Telling:
    """Tells of one transaction: what happens in it, and what it costs.

    Args:
        block: its outermost block.
        app: the application that listens, if one does.
        profilers: who else wants to know.

    Attributes:
        database: where it is.
        label: what its block is called.
        server_id: the server's name for its connection, as soon as there is one.
        waited: seconds that it waited for a connection.
        locked: seconds that it waited for locks, as far as the driver knows (SQLite).
        seconds: how long it took, when it has ended.
        idle: how long no statement was under way.
        statements: how many there were.
        error: what it was rolled back for, if it was.
        under_way: since when a statement is under way (`time.perf_counter`); None for none.
    """

    def __init__(self, block: Transaction, app: Covet | None, profilers: tuple[Profiler, ...]) -> None:
        from covet_orm.transactions.context import attempts

        self.database = block.database
        self.label = block.options.label
        self.server_id: int | None = None
        self.waited = self.locked = self.seconds = self.idle = 0.0
        self.statements = 0
        self.error: BaseException | None = None
        self.under_way: float | None = None
        self._app = app
        self._profilers = profilers
        self._options = block.options
        self._attempt = attempts.get()
        if self._attempt is not None:
            self._attempt.label = self.label
        self._connection: Connection | None = None
        self._last = ""
        self._asked = self._begun = self._commits = False
        self._began = self._rest = perf_counter()
        self._locked_before = 0.0
        self._savepoints: dict[Transaction, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        settings = self.database.observing
        self._slow = settings.slow_transaction
        self._patience = settings.idle_in_transaction_warning
        self._where = ""
        if self._slow is not None or self._patience:
            frame = caller()
            self._where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "nobody's line"
            self._stack = _stack(frame) if self._patience else None

    async def acquire(self, pool: Pool) -> Connection:
        """A connection of the pool, which is begun to be used. Raises what `Pool.acquire` raises."""
        self._asked = True
        connection = pool.try_acquire()
        if connection is None:
            began = perf_counter()
            try:
                connection = await pool.acquire()
            finally:
                waited = perf_counter() - began
                if self.database.kind == "sqlite" and not self._options.read_only:
                    # Who waits for the one connection that writes, waits for the lock of the database.
                    self.locked += waited
                else:
                    self.waited += waited
        self._began = perf_counter()
        self._locked_before = getattr(connection, "lock_waited", 0.0)
        return connection

    def begun(self, connection: Connection) -> TimedConnection:
        """The transaction has begun on a connection; what its statements go through from now on."""
        self._begun = True
        self._connection = connection
        self.server_id = connection.server_id
        self._rest = perf_counter()
        if self._patience:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._look)
        for profiler in self._profilers:
            profiler.began(self)
        if self._app is not None:
            options = self._options
            self._app.emit(
                TransactionBegun(
                    self.database.alias,
                    self.label,
                    options.isolation or "",
                    options.read_only,
                    self.waited,
                    self._rest - self._began,
                )
            )
        return TimedConnection(connection, self)

    def statement(self, sql: str, *, counts: bool = True) -> None:
        """A statement is sent."""
        now = self.under_way = perf_counter()
        self.idle += now - self._rest
        if counts:
            self.statements += 1
            self._last = sql

    def rest(self) -> None:
        """It has ended."""
        self.under_way = None
        self._rest = perf_counter()

    def deadlock(self, error: DeadlockDetected, sql: str) -> None:
        """A statement of it ended with a deadlock."""
        for profiler in self._profilers:
            profiler.deadlocked(self)
        self._emit(
            TransactionDeadlocked(self.database.alias, self.label, sql, error.code, perf_counter() - self._began)
        )

    def savepoint(self, block: Transaction) -> Telling:
        """An inner block has set its savepoint; what tells of it."""
        self._savepoints[block] = perf_counter()
        for profiler in self._profilers:
            profiler.savepoint(self)
        if self._app is not None:
            self._app.emit(SavepointSet(self.database.alias, block.options.label, self.label, _depth(block)))
        return self

    def ending(self, connection: Connection, error: BaseException | None) -> Connection:
        """The outermost block is about to be committed, or rolled back for an error; the connection itself."""
        if self._timer is not None:
            self._timer.cancel()
        self.statement("", counts=False)
        self._commits = error is None
        return connection.connection if isinstance(connection, TimedConnection) else connection

    def ended(self, block: Transaction, *, committed: bool | None, error: BaseException | None) -> None:
        """A block has ended, the outermost one or one inside of it.

        Args:
            block: which one.
            committed: whether what it did is kept; None where that is not known.
            error: why not.
        """
        if block.parent is not None:
            began = self._savepoints.pop(block, None)
            if began is not None and self._app is not None:
                told = None if committed or error is None else type(error).__name__
                alias, label, depth, now = self.database.alias, block.options.label, _depth(block), perf_counter()
                self._app.emit(SavepointEnded(alias, label, self.label, depth, bool(committed), now - began, told))
            return
        if not self._asked or (committed and not self._begun):
            return
        self.under_way = None
        outcome: TransactionOutcome = "uncertain"
        if committed is not None:
            outcome = "committed" if committed else "rolled back"
        if not committed:
            self.error = error
        if self._begun:
            self.seconds = perf_counter() - self._began
            self.locked += getattr(self._connection, "lock_waited", 0.0) - self._locked_before
            self._connection = None
        if self._commits and isinstance(error, DeadlockDetected):
            self.deadlock(error, "COMMIT")
        for profiler in self._profilers:
            profiler.ended(self, outcome)
        slow = self._slow is not None and self.seconds >= self._slow
        if slow or self._app is not None:
            self._tell_ended(outcome, slow=slow)

    def _tell_ended(self, outcome: TransactionOutcome, *, slow: bool) -> None:
        request = current_request()
        route = request.route.path if request is not None and request.route is not None else ""
        alias, label, error = self.database.alias, self.label, self.error
        told = type(error).__name__ if error is not None else None
        code = str(getattr(error, "code", ""))
        number = self._attempt.number if self._attempt is not None else 0
        seconds, waited, idle, count = self.seconds, self.waited, self.idle, self.statements
        self._emit(
            TransactionEnded(alias, label, outcome, seconds, waited, idle, count, number, told, code, route)
        )  # fmt: skip
        if not slow:
            return
        parts = [
            f"{seconds:.3f} s in the database {alias!r}",
            outcome + (f" for {told} {code}".rstrip() if told else ""),
        ]
        if label:
            parts.insert(0, repr(label))
        parts += [f"{count} statements", f"{idle:.3f} s idle in transaction"]
        if waited:
            parts.append(f"after {waited:.3f} s without a connection")
        if route:
            parts.append(f"for {route}")
        logger.warning("slow transaction: %s, opened at %s", ", ".join(parts), self._where)
        self._emit(TransactionSlow(alias, label, outcome, seconds, waited, idle, count, route, self._where))

    def _look(self) -> None:
        """Warn when nobody has sent a statement for too long; else look again when that could be."""
        patience = self._patience or 0.0
        idle = 0.0 if self.under_way is not None else perf_counter() - self._rest
        if idle < patience:
            self._timer = asyncio.get_running_loop().call_later(patience - idle, self._look)
            return
        last = " ".join(self._last.split()) or "none"
        logger.warning(
            "idle in transaction: %sopen in the database %r, no statement for %.3f s (the last one: %s), opened at\n%s",
            f"{self.label!r} is " if self.label else "",
            self.database.alias,
            idle,
            last,
            "".join(self._stack.format()) if self._stack is not None else self._where,
        )  # fmt: skip
        self._emit(TransactionIdle(self.database.alias, self.label, idle, self._last, self._where))

    def _emit(self, event: Event) -> None:
        if self._app is not None:
            self._app.emit(event)


def _depth(block: Transaction) -> int:
    depth = 0
    while block.parent is not None:
        block, depth = block.parent, depth + 1
    return depth


def _stack(frame: FrameType | None) -> traceback.StackSummary:
    """The frames that led to one, the outermost first; their lines are read when they are shown."""
    return traceback.StackSummary.extract(iter([*_theirs(frame)][:FRAMES][::-1]), lookup_lines=False)


def _theirs(frame: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    for inner, line in traceback.walk_stack(frame):
        if not inner.f_globals.get("__name__", "").startswith(OURS):
            yield inner, line
