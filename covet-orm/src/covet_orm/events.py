"""What happens in covet-orm, for whoever implements the hook `covet_event`. Times are in seconds."""

from __future__ import annotations

from typing import Literal

from covet.events import Event

__all__ = [
    "ConnectionDiscarded",
    "ConnectionFailed",
    "ConnectionMade",
    "ConnectionWaited",
    "DiscardReason",
    "DistributedBegun",
    "DistributedDecided",
    "DistributedEnded",
    "DistributedInDoubt",
    "DistributedOutcome",
    "DistributedPrepared",
    "DistributedRecovered",
    "Obtained",
    "PoolExhausted",
    "QueryDone",
    "SavepointEnded",
    "SavepointSet",
    "TransactionBegun",
    "TransactionDeadlocked",
    "TransactionEnded",
    "TransactionIdle",
    "TransactionOutcome",
    "TransactionRetried",
    "TransactionSlow",
    "WaitOutcome",
]

DiscardReason = Literal["age", "idle", "lost", "transaction", "interrupted", "discarded", "closed"]
"""Why a pool gave a connection up.

`age`: older than `max_age`, or expired. `idle`: unused for `max_idle`. `lost`: it broke, or did not answer a check.
`transaction`: it was released inside of a transaction. `interrupted`: it was released while a statement was under way.
`discarded`: its holder asked for it. `closed`: the pool is closed.
"""

WaitOutcome = Literal["served", "timeout", "unavailable", "cancelled", "closed"]
"""How waiting for a connection ended: with one, by `acquire_timeout`, since none can be made, since the task was
cancelled, since the pool was closed."""

Obtained = Literal["idle", "waited", "held", "transaction"]
"""How a statement got its connection: one was idle, it waited for one, its caller held one already, or it belongs to
the transaction around it."""

TransactionOutcome = Literal["committed", "rolled back", "uncertain"]
"""What became of a transaction. `uncertain`: the connection was lost while it was committed."""


DistributedOutcome = Literal["committed", "rolled back", "uncertain", "mixed"]
"""What became of a distributed transaction. `uncertain`: the log that has the decision cannot be reached, or the one
participant that there was. `mixed`: somebody ended a participant's part by hand, and otherwise."""


class QueryDone(Event, frozen=True, gc=False):
    """A statement has ended: with its result, with an error, or since its task was cancelled.

    What begins and ends transactions and savepoints is none.

    Attributes:
        database: the alias of the database.
        name: what the ORM calls the statement, such as `User.select`; the same for all statements of one shape. Empty
            for SQL that is the caller's own.
        sql: its text, without parameters.
        parameters: they in Python's notation, where `show_parameters` allows it; None otherwise.
        rows: how many it gave, or how many it changed; 0 where that is not told.
        seconds: from sending it until its result was there.
        waited: how long it waited for a connection before.
        obtained: how it got the connection.
        route: the template of the route whose request it belongs to; empty outside of requests.
        error: the class name of what ended it early, or None.
        code: the server's code for that error; empty without one.
        where: `file:line` of the code that asked, where it took at least `slow_query` seconds; empty otherwise.
    """

    database: str
    name: str
    sql: str
    parameters: str | None
    rows: int
    seconds: float
    waited: float
    obtained: Obtained
    route: str
    error: str | None
    code: str
    where: str


class ConnectionMade(Event, frozen=True, gc=False):
    """A pool made a connection.

    Attributes:
        pool: its name.
        number: the connection's.
        seconds: how long it took.
        size: how many connections the pool has now, those being made included.
    """

    pool: str
    number: int
    seconds: float
    size: int


class ConnectionFailed(Event, frozen=True, gc=False):
    """A pool tried to make a connection, and could not.

    Attributes:
        pool: its name.
        error: the class name of the error.
        seconds: how long it took.
    """

    pool: str
    error: str
    seconds: float


class ConnectionDiscarded(Event, frozen=True, gc=False):
    """A pool gave a connection up.

    Attributes:
        pool: its name.
        number: the connection's.
        reason: why.
        age: for how long the connection had existed.
    """

    pool: str
    number: int
    reason: DiscardReason
    age: float


class ConnectionWaited(Event, frozen=True, gc=False):
    """Somebody had to wait for a connection: for another holder, for one to be made, or for one to be checked.

    Attributes:
        pool: its name.
        seconds: how long.
        outcome: how it ended.
    """

    pool: str
    seconds: float
    outcome: WaitOutcome


class PoolExhausted(Event, frozen=True, gc=False):
    """All connections that a pool may have are in use, and somebody begins to wait for one to be released.

    Attributes:
        pool: its name.
        size: how many connections it has.
        waiting: how many wait, this one included.
    """

    pool: str
    size: int
    waiting: int


class TransactionBegun(Event, frozen=True, gc=False):
    """A transaction has begun on the server: that is with its first statement.

    Attributes:
        database: the alias of the database.
        label: what its block was called; empty for nothing.
        isolation: the isolation level that was asked for; empty for what is usual.
        read_only: whether it only reads.
        waited: how long it waited for a connection.
        seconds: how long beginning it took then; nearly nothing on SQLite, which begins it with the first statement.
    """

    database: str
    label: str
    isolation: str
    read_only: bool
    waited: float
    seconds: float


class TransactionEnded(Event, frozen=True, gc=False):
    """A transaction was committed or rolled back, or could not begin. A block without a statement tells nothing.

    Attributes:
        database, label: as in `TransactionBegun`.
        outcome: what became of it.
        seconds: from its beginning until the server had ended it; functions that wait for the commit are not counted.
        waited: how long it waited for a connection before.
        idle: of `seconds`, how long no statement was under way.
        statements: how many there were, without those that begin and end transactions and savepoints.
        attempt: which attempt of `retry()` it belongs to, from 1; 0 where nothing is tried again.
        error: the class name of what it was rolled back for, or None.
        code: the server's code for that error; empty without one.
        route: the template of the route whose request it belongs to; empty outside of requests.
    """

    database: str
    label: str
    outcome: TransactionOutcome
    seconds: float
    waited: float
    idle: float
    statements: int
    attempt: int
    error: str | None
    code: str
    route: str


class SavepointSet(Event, frozen=True, gc=False):
    """An inner block has set its savepoint: that is with its first statement.

    Attributes:
        database: the alias of the database.
        label: what the inner block was called.
        transaction: what the outermost one was called.
        depth: how many blocks there are around it in the same database, from 1.
    """

    database: str
    label: str
    transaction: str
    depth: int


class SavepointEnded(Event, frozen=True, gc=False):
    """An inner block has ended. What it did is kept as long as the transaction around it is.

    Attributes:
        database, label, transaction, depth: as in `SavepointSet`.
        kept: whether its savepoint was released, and not rolled back to.
        seconds: since it was set.
        error: the class name of what it was rolled back for, or None.
    """

    database: str
    label: str
    transaction: str
    depth: int
    kept: bool
    seconds: float
    error: str | None


class TransactionRetried(Event, frozen=True, gc=False):
    """An attempt of `retry()` failed, and another one will be made.

    Attributes:
        label: what the last transaction in it was called.
        attempt: which one failed, from 1.
        delay: seconds until the next.
        error: the class name of the error.
        code: the server's code for it; empty without one.
    """

    label: str
    attempt: int
    delay: float
    error: str
    code: str


class TransactionDeadlocked(Event, frozen=True, gc=False):
    """A transaction was chosen by the server to end a deadlock.

    Attributes:
        database, label: as in `TransactionBegun`.
        sql: the text of the statement that failed, without parameters; `COMMIT` where that did.
        code: the server's code.
        seconds: since the transaction had begun.
    """

    database: str
    label: str
    sql: str
    code: str
    seconds: float


class TransactionSlow(Event, frozen=True, gc=False):
    """A transaction took at least `slow_transaction` seconds. It is told when it has ended, beside `TransactionEnded`.

    Attributes:
        database, label, outcome, seconds, waited, idle, statements, route: as in `TransactionEnded`.
        where: `file:line` where its block was opened.
    """

    database: str
    label: str
    outcome: TransactionOutcome
    seconds: float
    waited: float
    idle: float
    statements: int
    route: str
    where: str


class TransactionIdle(Event, frozen=True, gc=False):
    """A transaction is open, and for `idle_in_transaction_warning` seconds nobody has sent a statement. Once for each.

    Attributes:
        database, label: as in `TransactionBegun`.
        seconds: for how long no statement was under way.
        sql: the text of the last one, without parameters; empty when there was none.
        where: `file:line` where its block was opened.
    """

    database: str
    label: str
    seconds: float
    sql: str
    where: str


class DistributedBegun(Event, frozen=True, gc=False):
    """The block of a transaction in several databases was entered. Each of them tells `TransactionBegun` with its first
    statement.

    Attributes:
        transaction: its 32 hexadecimal digits.
        label: what its block was called; empty for nothing.
        databases: their aliases, with a comma between two.
        log: the alias of the database that holds the decision.
    """

    transaction: str
    label: str
    databases: str
    log: str


class DistributedPrepared(Event, frozen=True, gc=False):
    """A participant has promised to commit.

    Attributes:
        transaction, label: as in `DistributedBegun`.
        database: its alias.
        seconds: how long that took.
    """

    transaction: str
    label: str
    database: str
    seconds: float


class DistributedDecided(Event, frozen=True, gc=False):
    """The decision is written: all that are prepared will commit. One that is rolled back needs no decision.

    Attributes:
        transaction, label: as in `DistributedBegun`.
        log: the alias of the database where it is written.
        seconds: since the block was entered.
    """

    transaction: str
    label: str
    log: str
    seconds: float


class DistributedEnded(Event, frozen=True, gc=False):
    """A transaction in several databases has ended, as far as its own process goes.

    Attributes:
        transaction, label: as in `DistributedBegun`.
        outcome: what became of it.
        pending: the aliases of those that recovery has to tell, with a comma between two; empty for none.
        seconds: since the block was entered.
        error: the class name of what it was rolled back for, or of what its caller is told of its end; None for none.
        code: the server's code for that error; empty without one.
    """

    transaction: str
    label: str
    outcome: DistributedOutcome
    pending: str
    seconds: float
    error: str | None
    code: str


class DistributedRecovered(Event, frozen=True, gc=False):
    """Recovery has ended what was prepared in a database.

    Attributes:
        transaction: its 32 hexadecimal digits.
        application: whose it is.
        database: the alias of the database.
        committed: whether it was committed, and not rolled back.
        age: seconds since it was prepared, or begun, where the server does not tell.
    """

    transaction: str
    application: str
    database: str
    committed: bool
    age: float


class DistributedInDoubt(Event, frozen=True, gc=False):
    """Recovery has found what it cannot end, now or without people. It is told each time that it looks.

    Attributes:
        transaction: its 32 hexadecimal digits; empty where a database is unreachable.
        application: whose it is.
        database: the alias of the database.
        state: `held`, `log unknown`, `mixed` or `unreachable`: see `covet_orm.transactions.distributed.recovery.State`.
        age: as in `DistributedRecovered`.
    """

    transaction: str
    application: str
    database: str
    state: str
    age: float
