"""The connections of a pool and those who wait for them: how connections come, change hands, and go."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from functools import partial
from math import inf
from time import monotonic

from covet.events import listener
from covet.resilience import CircuitBreaker
from covet_orm.drivers.protocol import Connection, Driver, SessionState
from covet_orm.events import ConnectionDiscarded, ConnectionFailed, ConnectionMade, DiscardReason
from covet_orm.exceptions import DatabaseUnavailable, PoolClosed
from covet_orm.pool.background import BackgroundTasks
from covet_orm.pool.records import Slot, Waiter
from covet_orm.pool.settings import PoolSettings
from covet_orm.pool.supply import Supply

__all__ = ["Stock"]

logger = logging.getLogger("covet_orm.pool")

IDLE = SessionState.IDLE
CLOSED = SessionState.CLOSED
BUSY = SessionState.BUSY
# The share of `max_age` that chance takes off, so that connections made together do not end together.
SPREAD = 0.2


class Stock:
    """What `Pool` is built on; its docstring says what always holds. Every method that does not await is one step.

    Attributes:
        name, settings: of the pool.
    """

    def __init__(self, driver: Driver, settings: PoolSettings, name: str, breaker: CircuitBreaker) -> None:
        self.name = name
        self.settings = settings
        self._supply = Supply(driver, breaker, name)
        # Those that make, check and maintain are cancelled when the pool is closed; those that close are not.
        self._workers = BackgroundTasks(f"pool {name}")
        self._closers = BackgroundTasks(f"pool {name}")
        self._closing = False
        self._drained: asyncio.Event | None = None
        # In the order in which they became idle, the latest last.
        self._idle: list[Slot] = []
        self._held: dict[Connection, Slot] = {}
        self._making: set[object] = set()
        self._checking: set[Slot] = set()
        # In the order of arrival. One that is cancelled stays until its task runs, and is passed over.
        self._waiters: OrderedDict[asyncio.Future[Connection], Waiter] = OrderedDict()
        self._check_after = inf if settings.check_after_idle is None else settings.check_after_idle
        # When a connection was last found broken: what is idle since before is checked.
        self._doubted = -inf
        # When all connections were last to be replaced.
        self._expired = -inf
        self._retry: asyncio.TimerHandle | None = None
        self._made = self._discarded = self._failures = 0

    @property
    def size(self) -> int:
        """How many connections there are, those being made included."""
        return len(self._idle) + len(self._held) + len(self._making) + len(self._checking)

    def _longest_waiter(self) -> Waiter | None:
        while self._waiters:
            future, waiter = next(iter(self._waiters.items()))
            if not future.done():
                return waiter
            del self._waiters[future]
        return None

    def _place(self, slot: Slot, now: float) -> None:
        """Hand a connection that belongs to nobody to the task that waits longest, or put it to rest."""
        waiter = self._longest_waiter()
        if waiter is None:
            slot.idle_since = now
            self._idle.append(slot)
            return
        del self._waiters[waiter.future]
        slot.task = waiter.task
        slot.since = now
        self._held[slot.connection] = slot
        waiter.future.set_result(slot.connection)

    def _grow(self) -> None:
        """Start as many checks and attempts to connect as are wanted, and allowed."""
        while not self._closing:
            under_way = len(self._making) + len(self._checking)
            waiting = self._longest_waiter() is not None and len(self._waiters) > under_way
            if waiting and self._idle:
                self._check(self._idle.pop())
                continue
            size = self.size
            if size >= self.settings.max_size or not (waiting or size < self.settings.min_size):
                return
            if (wait := self._supply.retry_at - monotonic()) > 0:
                if waiting and self._nothing_to_wait_for():
                    self._refuse_all()
                elif self._retry is None:
                    self._retry = asyncio.get_running_loop().call_later(wait, self._try_again)
                return
            if self._supply.one_by_one and self._making:
                return
            attempt = object()
            self._making.add(attempt)
            task = self._workers.start(self._make(attempt), "connect")
            task.add_done_callback(partial(self._forget_attempt, attempt))

    def _try_again(self) -> None:
        self._retry = None
        self._grow()

    def _nothing_to_wait_for(self) -> bool:
        return not self._checking and all(connection.state is CLOSED for connection in self._held)

    def _refuse_all(self) -> None:
        while (waiter := self._longest_waiter()) is not None:
            del self._waiters[waiter.future]
            waiter.future.set_exception(self._supply.unavailable())

    async def _connect(self, attempt: object) -> Slot:
        """A new connection, no longer counted as being made, and not counted as anything else yet."""
        began = monotonic()
        try:
            connection = await self._supply.connect()
        except Exception as error:
            self._failures += 1
            if (app := listener()) is not None:
                app.emit(ConnectionFailed(self.name, type(error).__name__, monotonic() - began))
            raise
        finally:
            self._making.discard(attempt)
        now = monotonic()
        self._made += 1
        age = self.settings.max_age
        # Not for secrets: it only keeps connections from ending together.
        life = inf if age is None else age * (1 - SPREAD * random.random())
        slot = Slot(connection, now, -inf if began <= self._expired else began + life)
        if (app := listener()) is not None:
            app.emit(ConnectionMade(self.name, connection.number, now - began, self.size + 1))
        return slot

    async def _make(self, attempt: object) -> None:
        began = monotonic()
        try:
            slot = await self._connect(attempt)
        except Exception as error:
            waiter = self._longest_waiter()
            if waiter is not None and waiter.since <= began and self._nothing_to_wait_for():
                del self._waiters[waiter.future]
                waiter.future.set_exception(error)
            elif not isinstance(error, DatabaseUnavailable):
                logger.exception("the pool %s could not connect", self.name)
        else:
            if self._closing:
                self._retire(slot, monotonic())
            else:
                self._place(slot, monotonic())
        self._grow()

    def _forget_attempt(self, attempt: object, task: asyncio.Task[None]) -> None:
        """After an attempt that somebody cancelled, perhaps before it had begun: whoever waits needs another one."""
        if task.cancelled():
            self._making.discard(attempt)
            if self._longest_waiter() is not None:
                self._grow()

    def _check(self, slot: Slot) -> None:
        """Place an idle connection once it is known to work; or another, when it does not."""
        self._checking.add(slot)
        self._workers.start(self._ping(slot), "check").add_done_callback(partial(self._forget_check, slot))

    async def _ping(self, slot: Slot) -> None:
        try:
            async with asyncio.timeout(self.settings.check_timeout):
                await self._supply.check(slot.connection)
            works = slot.connection.state is IDLE
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is of no use
            works = False
            logger.info("connection %d of the pool %s is lost: %s", slot.connection.number, self.name, error)
        self._checking.discard(slot)
        now = monotonic()
        slot.connection.statement = ""
        if works and not self._closing and now < slot.expires:
            self._place(slot, now)
        elif works:
            self._retire(slot, now)
        else:
            self._drop(slot, "lost")
            # What has been unused for as long will not answer either, and nobody shall wait for that again and again.
            unused, self._idle = self._idle, [other for other in self._idle if other.idle_since > slot.idle_since]
            for other in unused[: len(unused) - len(self._idle)]:
                self._drop(other, "lost")
            self._grow()

    def _forget_check(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """After a check that was cancelled: what its connection is in is not known."""
        if slot in self._checking:
            self._checking.discard(slot)
            self._drop(slot, "closed" if self._closing else "interrupted")
            if self._longest_waiter() is not None:
                self._grow()

    def _retire(self, slot: Slot, now: float) -> None:
        """Give up a connection that is not counted any more, as its state allows, and fill its place."""
        connection = slot.connection
        state = connection.state
        if state is CLOSED:
            self._drop(slot, "lost")
        elif state is BUSY:
            # Not cut: the driver may have the server end the statement, which would go on otherwise.
            self._end(slot, "interrupted")
        elif state is IDLE:
            self._end(slot, "closed" if self._closing else "age" if now >= slot.expires else "idle")
        else:
            holder = slot.holder(now)
            logger.warning(
                "connection %d was released to the pool %s %s, by %s, and is closed; the last statement: %s",
                connection.number, self.name, state.value, holder.task, holder.statement or "not recorded",
            )  # fmt: skip
            self._end(slot, "transaction")
        self._grow()

    def _end(self, slot: Slot, reason: DiscardReason) -> None:
        """Close a connection in good order, in the background."""
        self._gone(slot, reason)
        self._closers.start(slot.connection.close(), "close")

    def _drop(self, slot: Slot, reason: DiscardReason) -> None:
        """Cut a connection."""
        self._gone(slot, reason)
        slot.connection.terminate()

    def _gone(self, slot: Slot, reason: DiscardReason) -> None:
        now = monotonic()
        self._discarded += 1
        if reason == "lost":
            self._doubted = now
        if self._drained is not None and not self._held:
            self._drained.set()
        if (app := listener()) is not None:
            app.emit(ConnectionDiscarded(self.name, slot.connection.number, reason, now - slot.made))

    def _look_after(self) -> None:
        """Close what has been idle for too long or is too old, drop what died, and make what is lacking."""
        now = monotonic()
        spare = self.size - self.settings.min_size
        staying, going = [], []
        for slot in self._idle:
            idle = self.settings.max_idle is not None and now - slot.idle_since >= self.settings.max_idle
            if slot.connection.state is not IDLE or now >= slot.expires or (idle and spare > 0):
                going.append(slot)
                spare -= 1
            else:
                staying.append(slot)
        self._idle = staying
        for slot in going:
            self._retire(slot, now)
        self._grow()

    def _closed(self) -> PoolClosed:
        return PoolClosed(f"the pool {self.name!r} is closed")
