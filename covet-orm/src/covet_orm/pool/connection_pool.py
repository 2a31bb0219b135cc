"""The pool itself."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
import weakref
from collections.abc import Callable
from math import inf
from threading import get_ident
from time import monotonic
from types import TracebackType

from covet.events import listener
from covet.resilience import CircuitBreaker
from covet_orm.drivers.protocol import Connection, Driver, SessionState
from covet_orm.events import ConnectionWaited, PoolExhausted, WaitOutcome
from covet_orm.exceptions import OrmError, PoolClosed, PoolTimeout
from covet_orm.pool.records import Holder, PoolStats, Waiter, describe
from covet_orm.pool.settings import PoolSettings
from covet_orm.pool.stock import Stock

__all__ = ["Pool"]

logger = logging.getLogger("covet_orm.pool")

IDLE = SessionState.IDLE
CLOSED = SessionState.CLOSED
# Seconds between two rounds of maintenance, at most.
ROUND = 30.0


_open_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool(Stock):
    """Connections to one database, for the tasks of one event loop.

    What always holds, between any two steps of the event loop:

    - A connection of the pool is idle, held, being made or being checked: exactly one of these.
    - There are at most `max_size` of them in all. One that is being closed in good order counts no more: the server may
      see one more for that moment.
    - While a connection is idle, nobody waits. Whoever waits is served in the order of arrival, whichever connection
      is free first: one that is released, that passed its check, or that was made.
    - Connections are made and checked by tasks of the pool, never by those who want one. Cancelling or timing out
      `acquire` interrupts neither: the connection goes to the next who waits, or becomes idle.
    - A connection that was handed to a task is held by it from that moment, not from when the task wakes up; a task
      that is cancelled in between gives it back.
    - No more attempts to connect are under way than tasks wait, other than to reach `min_size`; after one has failed,
      one at a time, until one succeeds. The error goes to the task that waits longest, if it waited when the attempt
      began, and if no other task holds a connection that may become free: then it waits on. After `failures` of them,
      a circuit breaker makes the pool refuse at once for `retry_after` seconds what it would have to connect for.
    - Only a connection at rest, outside of a transaction, becomes idle. Any other that is released is discarded.
    - An idle connection that has died is not given to anybody: the driver knows that it was closed, or it is checked:
      after `check_after_idle` unused, and whenever another has broken since it was last used.

    The latest used connection is used first, so that those that are not needed stay unused, and end.

    No lock is taken: everything that changes the pool's state does so without awaiting, in the thread of its loop. Use
    from another loop or thread, or by a forked child, raises `OrmError` and changes nothing.

    Args:
        driver: makes the connections; they are hashable by identity.
        settings: sizes and times.
        name: for messages and events.
        breaker: a circuit breaker that pools of the same database in this loop share; by default one of its own.

    Attributes:
        name, settings: as given.
    """

    # Here as well as in the instance, for `__del__` of one that was not made.
    _loop: asyncio.AbstractEventLoop | None = None
    _closing = False

    def __init__(
        self,
        driver: Driver,
        settings: PoolSettings | None = None,
        *,
        name: str = "default",
        breaker: CircuitBreaker | None = None,
    ) -> None:
        settings = settings or PoolSettings()
        if breaker is None:
            breaker = CircuitBreaker(
                f"database {name}",
                failure_count=settings.failures,
                failure_rate=1.0,
                minimum_calls=settings.failures,
                window=30.0,
                cooldown=settings.retry_after,
            )
        super().__init__(driver, settings, name, breaker)
        # The running loop is known by its thread and that it runs: to ask for it asks the system, on Python 3.11.
        self._thread = 0
        self._is_running: Callable[[], bool] = bool
        self._process = 0
        self._opening = False
        self._ended: asyncio.Event | None = None
        self._waits = self._timeouts = 0
        self._waited = 0.0

    def __repr__(self) -> str:
        return (
            f"<Pool {self.name}: {len(self._idle)} idle, {len(self._held)} in use, "
            f"{len(self._making) + len(self._checking)} made or checked, at most {self.settings.max_size}; "
            f"{len(self._waiters)} waiting>"
        )

    async def __aenter__(self) -> Pool:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._loop is not None and not self._closing and self._process == os.getpid():
            warnings.warn(
                f"the pool {self.name!r} was not closed: {self!r}", ResourceWarning, stacklevel=2, source=self
            )

    @property
    def stats(self) -> PoolStats:
        """The pool in numbers."""
        return PoolStats(
            size=self.size,
            idle=len(self._idle),
            in_use=len(self._held),
            making=len(self._making),
            checking=len(self._checking),
            waiting=sum(not future.done() for future in self._waiters),
            made=self._made,
            discarded=self._discarded,
            failures=self._failures,
            waits=self._waits,
            waited=self._waited,
            timeouts=self._timeouts,
        )

    def holders(self) -> list[Holder]:
        """Who holds a connection now, in the order in which they got it."""
        now = monotonic()
        return [slot.holder(now) for slot in self._held.values()]

    async def open(self) -> None:
        """Make `min_size` connections, all at once unless the last attempt has failed.

        From then on the pool belongs to the running event loop.

        Cancelled, it leaves no connection, and may be called again; so it does when it raises.

        Raises:
            DatabaseUnavailable: one of them could not be made.
            PoolClosed: the pool was closed.
            OrmError: it is open already.
        """
        if self._closing:
            raise PoolClosed(f"the pool {self.name!r} was closed; make another one")
        if self._loop is not None or self._opening:
            raise OrmError(f"the pool {self.name!r} is open already; it belongs to the loop that opened it")
        self._opening, failed = True, None
        try:
            async with asyncio.TaskGroup() as group:
                if self.settings.min_size and self._supply.one_by_one:
                    await self._warm_up()
                for _ in range(self.settings.min_size - len(self._idle)):
                    group.create_task(self._warm_up())
            if self._closing:
                failed = self._closed()
        except ExceptionGroup as failures:
            failed = failures.exceptions[0]
        except BaseException:
            self._cut_idle()
            raise
        finally:
            self._opening = False
        if failed is not None:
            self._cut_idle()
            raise failed
        self._loop = asyncio.get_running_loop()
        self._is_running = self._loop.is_running
        self._thread, self._process = get_ident(), os.getpid()
        _open_pools.add(self)
        shortest = min(seconds for seconds in (self.settings.max_idle, self.settings.max_age, ROUND * 4) if seconds)
        self._workers.start(_maintain(weakref.ref(self), shortest / 4), "maintenance")

    def try_acquire(self) -> Connection | None:
        """An idle connection, if there is one that needs no check; None where one has to `acquire`.

        Whoever gets one gives it back with `release` or `discard`.

        Raises:
            OrmError: the pool is not open, or belongs to another event loop or process.
        """
        if get_ident() != self._thread or not self._is_running():
            self._require_own_loop()
        idle = self._idle
        while idle:
            slot = idle[-1]
            connection = slot.connection
            now = monotonic()
            if connection.state is not IDLE or now >= slot.expires:
                idle.pop()
                self._retire(slot, now)
                continue
            if now - slot.idle_since >= self._check_after or slot.idle_since <= self._doubted:
                return None
            idle.pop()
            slot.task = asyncio.current_task(self._loop)
            slot.since = now
            self._held[connection] = slot
            return connection
        return None

    async def acquire(self, timeout: float | None = None) -> Connection:
        """A connection, when it is this task's turn. Whoever gets one gives it back with `release` or `discard`.

        Cancelled, it holds no connection: what is being made or checked for it goes to others. Limit its time by
        `timeout`, not by `asyncio.wait_for`, which on Python 3.11 may drop what it has just got.

        Args:
            timeout: seconds to wait, instead of `acquire_timeout`; 0 for not at all.

        Raises:
            PoolTimeout: no connection became free in time; says who holds them.
            DatabaseUnavailable: none could be made, or the circuit breaker is open; then it says for how long.
            PoolClosed: the pool is closed, or was while this waited.
            OrmError: the pool is not open, or belongs to another event loop or process.
        """
        connection = self.try_acquire()
        if connection is not None:
            return connection
        if self._closing:
            raise self._closed()
        loop, began = asyncio.get_running_loop(), monotonic()
        waiter = Waiter(loop.create_future(), asyncio.current_task(), began)
        self._waiters[waiter.future] = waiter
        outcome: WaitOutcome = "cancelled"
        seconds = self.settings.acquire_timeout if timeout is None else timeout
        timer = loop.call_later(seconds, self._give_up, waiter)
        try:
            self._grow()
            self._note_exhaustion()
            connection = await waiter.future
            outcome = "served"
            return connection
        except BaseException as error:
            self._waiters.pop(waiter.future, None)
            if isinstance(error, PoolTimeout):
                outcome = "timeout"
            elif isinstance(error, PoolClosed):
                outcome = "closed"
            elif isinstance(error, Exception):
                outcome = "unavailable"
            elif waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.release(waiter.future.result())
            raise
        finally:
            timer.cancel()
            waited = monotonic() - began
            self._waits += 1
            self._waited += waited
            if (app := listener()) is not None:
                app.emit(ConnectionWaited(self.name, waited, outcome))

    def release(self, connection: Connection) -> None:
        """Give a connection back: to the task that waits longest, or to rest.

        It does not await, so that no cancellation can keep it from its work. One that is not at rest or inside of a
        transaction, that is too old, or whose pool is closed, is discarded, and its place is free at once. One that was
        discarded already is left alone.

        Raises:
            OrmError: the connection is not held: it was released before, or belongs to another pool; or the pool
                belongs to another event loop or process.
        """
        if get_ident() != self._thread or not self._is_running():
            self._require_own_loop()
        slot = self._held.pop(connection, None)
        if slot is None:
            if connection.state is CLOSED:
                return
            raise OrmError(
                f"connection {connection.number} is not held from the pool {self.name!r}: it was released before, or "
                "belongs to another pool"
            )
        now = monotonic()
        if connection.state is IDLE and now < slot.expires:
            slot.task = None
            connection.statement = ""
            if self._waiters:
                self._place(slot, now)
            else:
                slot.idle_since = now
                self._idle.append(slot)
        else:
            self._retire(slot, now)

    def discard(self, connection: Connection) -> None:
        """Cut a held connection, never to be used again; its place is free at once. Does nothing when it was already.

        Raises:
            OrmError: the pool belongs to another event loop or process.
        """
        self._require_own_loop()
        slot = self._held.pop(connection, None)
        if slot is not None:
            self._drop(slot, "discarded")
            self._grow()

    def expire(self) -> None:
        """Replace every connection that exists now, once it is not in use: its credentials or its server have changed.

        Raises:
            OrmError: the pool is not open, or belongs to another event loop or process.
        """
        self._require_own_loop()
        now = self._expired = monotonic()
        for slot in (*self._held.values(), *self._checking):
            slot.expires = -inf
        idle, self._idle = self._idle, []
        for slot in idle:
            slot.expires = -inf
            self._retire(slot, now)

    async def close(self, timeout: float = 10.0) -> None:
        """Give out no more connections, tell those who wait, and close all: those in use once they are released.

        What is not released in time is cut; a warning says who held it. Cancelled, it cuts all at once. When it was
        called already, it waits for that call to end.

        Args:
            timeout: seconds that the holders have.

        Raises:
            OrmError: the pool belongs to another event loop or process.
        """
        if self._loop is None:
            self._closing = True
            return
        self._require_own_loop()
        if self._ended is not None:
            await self._ended.wait()
            return
        self._closing = True
        self._ended, self._drained = asyncio.Event(), asyncio.Event()
        if self._retry is not None:
            self._retry.cancel()
        self._workers.cancel()
        while self._waiters:
            future, _ = self._waiters.popitem(last=False)
            if not future.done():
                future.set_exception(self._closed())
        try:
            now = monotonic()
            idle, self._idle = self._idle, []
            for slot in idle:
                self._retire(slot, now)
            for slot in self._held.values():
                slot.expires = -inf
            if self._held:
                try:
                    async with asyncio.timeout(timeout):
                        await self._drained.wait()
                except TimeoutError:
                    logger.warning(
                        "the pool %s is closed while connections are in use, and cuts them: %s",
                        self.name, describe(self.holders()),
                    )  # fmt: skip
            self._cut_held()
            await self._workers.join()
            await self._closers.join()
        except BaseException:
            self._cut_held()
            self._closers.cancel()
            raise
        finally:
            self._ended.set()

    async def _warm_up(self) -> None:
        attempt = object()
        self._making.add(attempt)
        self._place(await self._connect(attempt), monotonic())

    def _give_up(self, waiter: Waiter) -> None:
        """The time of a waiter is over."""
        if self._waiters.pop(waiter.future, None) is None or waiter.future.done():
            return
        self._timeouts += 1
        holders = self.holders()
        own = sum(slot.task is waiter.task for slot in self._held.values()) if waiter.task is not None else 0
        told = [
            f"no connection of the pool {self.name!r} became free in {monotonic() - waiter.since:.1f} seconds: "
            f"{len(holders)} of at most {self.settings.max_size} are in use, "
            f"{len(self._making) + len(self._checking)} being made or checked, "
            f"{sum(not future.done() for future in self._waiters)} other tasks wait"
        ]
        if own:
            told.append(f"this task itself holds {own}, and waits for another: release the first one before")
        if self._supply.error is not None:
            told.append(f"the last attempt to connect failed: {self._supply.error}")
        if holders:
            told.append(f"held by {describe(holders)}")
        error = PoolTimeout("; ".join(told))
        error.__cause__ = self._supply.error
        waiter.future.set_exception(error)

    def _note_exhaustion(self) -> None:
        if len(self._waiters) == 1 and len(self._held) >= self.settings.max_size and (app := listener()) is not None:
            app.emit(PoolExhausted(self.name, self.size, len(self._waiters)))

    def _cut_idle(self) -> None:
        idle, self._idle = self._idle, []
        for slot in idle:
            self._drop(slot, "closed")

    def _cut_held(self) -> None:
        held, self._held = self._held, {}
        for slot in held.values():
            self._drop(slot, "closed")

    def _require_own_loop(self) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            raise self._misused() from None
        if running is not self._loop:
            raise self._misused()
        # The loop goes on in another thread.
        self._thread = get_ident()

    def _misused(self) -> OrmError:
        """The error for a call from where the pool does not belong."""
        if self._loop is None:
            return (
                self._closed()
                if self._closing
                else OrmError(f"the pool {self.name!r} is not open: `await pool.open()`")
            )
        if self._process != os.getpid():
            return OrmError(
                f"the pool {self.name!r} was opened before this process was forked: its connections are the parent's; "
                "open a pool in the child"
            )
        return OrmError(
            f"the pool {self.name!r} belongs to another event loop or thread: every loop opens a pool of its own"
        )


async def _maintain(reference: weakref.ref[Pool], seconds: float) -> None:
    """Look after a pool every so many seconds, as long as there is one."""
    while True:
        await asyncio.sleep(seconds)
        if (pool := reference()) is None:
            return
        try:
            pool._look_after()
        except Exception:
            logger.exception("looking after the pool %s failed", pool.name)
        del pool


def _leave_to_parent() -> None:
    """In a forked child: what the parent opened belongs to none of its threads."""
    for pool in _open_pools:
        pool._thread = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
