"""Single flight: what many ask for at the same time is computed once.

In a process, the first who misses a value computes it, in its own task, and the others wait. If that one is cancelled
its computation ends with it, and one of those who wait begins anew with its own: a computation may use what belongs to
its caller, such as a database session, so nobody's goes on without the caller. An error reaches all who wait and is not
kept.

Where a backend is shared between processes, the one who computes holds a lease there, which it renews. The others look
again and again for the value. The lease of a process that died runs out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from secrets import token_bytes
from types import TracebackType
from typing import Any, NamedTuple

import anyio

from covet.cache.errors import CacheError
from covet.cache.links import Link
from covet.concurrency import task_group
from covet.exceptions import ClientDisconnected

__all__ = ["Flight", "Look", "Made", "Make", "apart", "once", "once_unless_busy"]

FIRST_LOOK, LAST_LOOK = 0.01, 0.2
"""Seconds between two looks for what another process computes: at first, and at most."""


class Made(NamedTuple):
    """What came of a computation.

    Attributes:
        raw: what others may have of it, encoded; None if it is for its caller alone.
        result: what it gave its caller; None where another process made it.
        own: whether the caller computed it.
    """

    raw: bytes | None
    result: Any = None
    own: bool = False


Look = Callable[[], Awaitable[bytes | None]]
"""Looks for a value in the backend."""

Make = Callable[[], Awaitable[Made]]
"""Computes a value and keeps it."""


class Flight:
    """A computation that is under way, for those who wait for it."""

    __slots__ = ("done", "error", "made", "traceback", "waits")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.made: Made | None = None
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None
        # The flights that this one waits for.
        self.waits: list[Flight] = []


# The flights that this context computes, outermost first.
_leading: ContextVar[tuple[Flight, ...]] = ContextVar("covet.cache.leading", default=())


def apart() -> None:
    """Say that this task computes for nobody who started it: it may wait for what they compute."""
    _leading.set(())


async def once(link: Link, key: str, lease: str, look: Look, make: Make) -> Made:
    """The value of a computation that runs once, however many ask.

    Args:
        link: where the value is kept.
        key: the backend's key of the value.
        lease: the backend's key of its lease.
        look: looks for the value in the backend.
        make: computes it and keeps it.

    Raises:
        CacheError: the computation waits for itself.
        Exception: what the computation raised, the caller's own or that which it waited for.

    A caller that is cancelled takes nothing from the others.
    """
    while (flight := link.flights.get(key)) is not None:
        await _wait(flight, key)
        if flight.error is not None:
            # As it was raised: each of the many who raise it would add to its traceback.
            raise flight.error.with_traceback(flight.traceback)
        if flight.made is not None:
            return Made(flight.made.raw) if flight.made.raw is not None else await make()
        # Who computed it was cancelled, or gave up: the first to be here does it.
    made = await _lead(link, key, lease, look, make, patient=True)
    assert made is not None
    return made


async def once_unless_busy(link: Link, key: str, lease: str, look: Look, make: Make) -> Made | None:
    """As `once`, but None at once when somebody else is computing the value already.

    `look` looks for a value that is newer than the one the caller has.
    """
    if key in link.flights:
        return None
    return await _lead(link, key, lease, look, make, patient=False)


async def _wait(flight: Flight, key: str) -> None:
    leading = _leading.get()
    if leading and _reaches(flight, leading):
        raise CacheError(
            f"computing the cache's value under {key!r} needs that very value; it would wait for itself for ever"
        )
    for mine in leading:
        mine.waits.append(flight)
    try:
        await flight.done.wait()
    finally:
        for mine in leading:
            mine.waits.remove(flight)


def _reaches(flight: Flight, targets: tuple[Flight, ...]) -> bool:
    """Whether a flight is, or waits for, one of others."""
    seen, left = set[int](), [flight]
    while left:
        each = left.pop()
        if each in targets:
            return True
        if id(each) not in seen:
            seen.add(id(each))
            left += each.waits
    return False


async def _lead(link: Link, key: str, lease: str, look: Look, make: Make, *, patient: bool) -> Made | None:
    flight = link.flights[key] = Flight()
    token = _leading.set((*_leading.get(), flight))
    try:
        if link.backend.shared:
            flight.made = await _with_lease(link, lease, look, make, patient=patient)
        else:
            # A backend that takes time to answer may have got the value since it was missed.
            found = None if link.peek is not None else await look()
            flight.made = await make() if found is None else Made(found)
        return flight.made
    except ClientDisconnected:
        raise  # this caller's own affair: its client has left, those of the others have not
    except Exception as error:
        flight.error, flight.traceback = error, error.__traceback__
        raise
    finally:
        _leading.reset(token)
        del link.flights[key]
        flight.done.set()


async def _with_lease(link: Link, lease: str, look: Look, make: Make, *, patient: bool) -> Made | None:
    token = token_bytes(16)
    seconds = link.settings.lease_seconds
    delay = FIRST_LOOK
    while True:
        # A backend that is down keeps no lease, and must not keep anybody waiting.
        if await link.call(link.backend.add, lease, token, seconds, otherwise=True):
            async with _renewing(link, lease, token, seconds):
                # It may have come between the miss and the lease.
                found = await look()
                return await make() if found is None else Made(found)
        if not patient:
            return None
        await anyio.sleep(delay)
        delay = min(delay * 1.5, LAST_LOOK)
        if (found := await look()) is not None:
            return Made(found)


@asynccontextmanager
async def _renewing(link: Link, lease: str, token: bytes, seconds: float) -> AsyncIterator[None]:
    """Renew a lease until the block ends, then give it back."""
    swap = link.backend.compare_and_set

    async def renew() -> None:
        while True:
            await anyio.sleep(seconds / 3)
            if not await link.call(swap, lease, token, token, seconds, otherwise=True):
                return  # somebody else has it: this process slept through its time

    try:
        async with task_group() as group:
            group.start_soon(renew)
            yield
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            # Only one's own lease is removed: it may have run out and be another's.
            if await link.call(swap, lease, token, b"", seconds, otherwise=False):
                await link.call(link.backend.delete, [lease], otherwise=0)
