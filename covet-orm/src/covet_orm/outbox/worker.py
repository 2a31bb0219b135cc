"""A worker: takes messages from an outbox, calls their handlers, and notes what became of them.

A message whose handler is at work belongs to the worker as long as its lease is renewed. When that cannot be, since the
database is not to be reached or the process was suspended, the handler is cancelled when the lease ends: from then on
another worker may have the message. A worker that dies leaves its messages to others after the lease.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import random
from typing import TYPE_CHECKING, Any, TypedDict

from anyio import CancelScope, Event, current_time, move_on_after, sleep
from anyio.abc import TaskGroup

from covet.concurrency import task_group
from covet_orm.exceptions import OrmError, TransactionError
from covet_orm.outbox.claiming import Claims
from covet_orm.outbox.messages import Message, OutboxError, checked_topic
from covet_orm.outbox.waking import listen, workers
from covet_orm.transactions.context import around

if TYPE_CHECKING:
    from covet_orm.outbox.handlers import Handler
    from covet_orm.outbox.outbox import Outbox
    from covet_orm.transactions.retrying import Backoff

__all__ = ["OutboxWorker", "WorkerOptions", "backing_off"]

logger = logging.getLogger("covet.orm")

# Seconds.
FIRST_BACKOFF, MAX_BACKOFF = 1.0, 600.0
FIRST_PAUSE, MAX_PAUSE = 0.1, 5.0
CLEANING = 60.0
SETTLE = 2.0
# How often a lease is renewed while it lasts.
RENEWALS = 3


def backing_off(attempt: int, /) -> float:
    """The most seconds before an attempt: 1 before the second, twice as long before each one after it, 600 at most."""
    return min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt - 2, 60))


class WorkerOptions(TypedDict, total=False):
    """What `Outbox.worker` takes beside the handlers; see `OutboxWorker`."""

    concurrency: int
    lease: float
    max_attempts: int
    backoff: Backoff
    keep: float
    poll: float


class OutboxWorker:
    """Delivers messages of an outbox until it is cancelled, or stopped:

        worker = Outbox(database).worker(handlers)
        await worker.run()

    Several may run, in one process or in many; each message is with one of them at a time. Of a key, one message is
    delivered after the other; the messages of different keys, and those without, are delivered at the same time. A
    message that fails is tried again after a pause, and holds up its own key alone; after `max_attempts` it is a dead
    letter, and its key goes on.

    Args:
        outbox: from where.
        handlers: functions by topic; messages of other topics stay for other workers.
        concurrency: how many messages at a time.
        lease: seconds after which others may have the messages of a worker that died. A handler may take longer.
        max_attempts: how often a message is tried. Attempts count in which its worker died.
        backoff: gives the most seconds to wait before an attempt, by its number, from 2 on; the wait is a random part
            of it, from the half on.
        keep: seconds that a message is kept after its delivery.
        poll: seconds between two looks, where nothing wakes the worker before.

    Attributes:
        delivered, failed, lost: how many messages it delivered; how many attempts failed; how many messages it had when
            their lease ended.

    Raises:
        OutboxError: there is no handler, a topic is none, or a number is too small.
    """

    def __init__(
        self,
        outbox: Outbox,
        handlers: Mapping[str, Handler],
        *,
        concurrency: int = 10,
        lease: float = 30.0,
        max_attempts: int = 10,
        backoff: Backoff = backing_off,
        keep: float = 86_400.0,
        poll: float = 1.0,
    ) -> None:
        for name, value in (("concurrency", concurrency), ("max_attempts", max_attempts)):
            if value < 1:
                raise OutboxError(f"{name} is a number from 1 on, not {value}")
        for name, seconds in (("lease", lease), ("poll", poll)):
            if not seconds > 0:
                raise OutboxError(f"{name} is seconds above 0, not {seconds}")
        if not keep >= 0:
            raise OutboxError(f"keep is seconds from 0 on, not {keep}")
        if not handlers:
            raise OutboxError("there is no handler: a worker without one would deliver nothing")
        self.outbox = outbox
        self.handlers = {checked_topic(topic): handler for topic, handler in handlers.items()}
        self.concurrency = concurrency
        self.max_attempts = max_attempts
        self.delivered = self.failed = self.lost = 0
        self._backoff = backoff
        self._keep = keep
        self._poll = poll
        self._claims = Claims(outbox.table, tuple(sorted(self.handlers)), lease)
        self._scopes: dict[int, CancelScope] = {}
        # Messages whose handlers are done, and of which the database is being told.
        self._telling: set[int] = set()
        self._wakeup = Event()
        self._stopping = False
        self._running = False

    def __repr__(self) -> str:
        return f"<OutboxWorker {self._claims.name} of {self.outbox.database.alias}>"

    async def run(self) -> None:
        """Deliver until `stop` is called. While the database cannot be reached it tries again.

        Cancelled, it cancels its handlers and gives their messages back.

        Raises:
            TransactionError: it runs already, or there is a transaction around it.
        """
        await self._run(once=False)

    async def drain(self) -> int:
        """Deliver what can be delivered now, and return when there is nothing more; how many were. What failed and is
        to be tried later is not waited for. Cancelled, as `run`.

        Raises:
            TransactionError: as `run`.
            StoreTableMissing: the table is not there.
            DatabaseError: what the database says.
        """
        before = self.delivered
        await self._run(once=True)
        return self.delivered - before

    def stop(self) -> None:
        """Let `run` return when the messages that it has are delivered, or have failed."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Let it look for messages now."""
        self._wakeup.set()

    async def _run(self, *, once: bool) -> None:
        database, table = self.outbox.database, self.outbox.table
        if self._running:
            raise TransactionError("the worker runs already; make another one")
        if around(database) is not None:
            raise TransactionError(
                "a worker runs outside of transactions: a message that it delivers is not part of one"
            )
        self._running, self._stopping = True, False
        wakes = workers.setdefault(table, {})
        wake: Callable[[], None] = self.wake
        wakes[wake] = asyncio.get_running_loop()
        try:
            await database.open()
            async with task_group() as group:
                group.start_soon(self._renew)
                if not once:
                    group.start_soon(self._clean)
                    if database.kind == "postgresql":
                        group.start_soon(listen, database, self.wake)
                await self._deliver(group, once=once)
                group.cancel_scope.cancel()
        finally:
            del wakes[wake]
            await self._give_back()
            self._running = False

    async def _deliver(self, group: TaskGroup, *, once: bool) -> None:
        """Take messages, as many as there is room for, and hand them out; return when there is no more to do."""
        pause = FIRST_PAUSE
        while True:
            # What happens from here on wakes it again.
            self._wakeup = Event()
            room = 0 if self._stopping else self.concurrency - len(self._scopes)
            idle = not self._scopes
            taken: list[Message] = []
            # The lease begins later, when the server takes the statement; never before.
            began = current_time()
            if room:
                try:
                    taken = await self._claims.take(room)
                    pause = FIRST_PAUSE
                except OrmError as error:
                    if once:
                        raise
                    logger.warning("the outbox of %r cannot be read: %s", self.outbox.database.alias, error)
                    await sleep(pause * (0.5 + random() / 2))
                    pause = min(MAX_PAUSE, pause * 2)
                    continue
            for message in taken:
                self._scopes[message.id] = CancelScope(deadline=began + self._claims.lease)
                group.start_soon(self._attempt, message)
            if not self._scopes and (self._stopping or (once and idle)):
                return
            if once and not self._scopes:
                # The last one ended while it looked, and another one of its key may stand behind it.
                continue
            if room and len(taken) == room:
                continue
            with move_on_after(self._poll * (0.75 + random() / 2)):
                await self._wakeup.wait()

    async def _attempt(self, message: Message) -> None:
        """Call the handler of a message, and note what became of it, as long as its lease lasts."""
        scope = self._scopes[message.id]
        told = False
        try:
            with scope:
                failure = await self._handle(message)
                self._telling.add(message.id)
                told = await self._tell(message, failure)
            if not told:
                self.lost += 1
                logger.warning(
                    "the lease of message %d to %r ended while it was delivered; another worker may have it",
                    message.id,
                    message.topic,
                )
        finally:
            self._telling.discard(message.id)
            del self._scopes[message.id]
            self.wake()

    async def _handle(self, message: Message) -> str | None:
        """Call the handler; what it failed with, None where it did not."""
        if message.attempt > self.max_attempts:
            return "its worker died, or lost it, in the last attempt"
        try:
            found: Any = self.handlers[message.topic](message)
            if inspect.isawaitable(found):
                await found
        except Exception as error:
            logger.warning(
                "message %d to %r failed in attempt %d", message.id, message.topic, message.attempt, exc_info=True
            )
            return f"{type(error).__name__}: {error}"
        return None

    async def _tell(self, message: Message, failure: str | None) -> bool:
        """Note what became of a message; whether it was this worker's still."""
        claims = self._claims
        if failure is None:
            mine = await _until_told(lambda: claims.delivered(message.id, self._keep))
            self.delivered += mine
            return mine
        self.failed += 1
        if message.attempt >= self.max_attempts:
            logger.error(
                "message %d to %r is a dead letter after %d attempts: %s",
                message.id,
                message.topic,
                self.max_attempts,
                failure,
            )
            return await _until_told(lambda: claims.died(message.id, failure))
        pause = self._backoff(message.attempt + 1) * (0.5 + random() / 2)
        return await _until_told(lambda: claims.failed(message.id, failure, pause))

    async def _renew(self) -> None:
        """Renew the leases of the messages whose handlers are at work."""
        while True:
            await sleep(self._claims.lease / RENEWALS)
            for number, scope in list(self._scopes.items()):
                if number in self._telling:
                    continue
                began = current_time()
                try:
                    mine = await self._claims.renew(number)
                except OrmError as error:
                    logger.warning("the lease of message %d could not be renewed: %s", number, error)
                    continue
                if mine:
                    scope.deadline = max(scope.deadline, began + self._claims.lease)
                elif number not in self._telling and self._scopes.get(number) is scope:
                    # Another worker has it.
                    scope.cancel()

    async def _clean(self) -> None:
        """Remove what was delivered long ago, now and then."""
        while True:
            await sleep(CLEANING * (0.5 + random()))
            try:
                await self.outbox.purge()
            except OrmError as error:
                logger.warning("delivered messages of %r were not removed: %s", self.outbox.database.alias, error)

    async def _give_back(self) -> None:
        """Give back what it has, which is nothing unless it was cancelled."""
        with move_on_after(SETTLE, shield=True):
            try:
                await self._claims.give_back()
            except OrmError as error:
                logger.warning("the messages of %r stay with it until their lease ends: %s", self, error)


async def _until_told(tell: Callable[[], Awaitable[bool]]) -> bool:
    """Tell the database, again and again where it cannot be reached: the lease of the message cuts it short."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await tell()
        except OrmError as error:
            logger.warning("what became of a message could not be told: %s", error)
        await sleep(pause * (0.5 + random() / 2))
        pause = min(MAX_PAUSE, pause * 2)
