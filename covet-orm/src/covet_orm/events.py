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
    "Obtained",
    "PoolExhausted",
    "QueryDone",
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
