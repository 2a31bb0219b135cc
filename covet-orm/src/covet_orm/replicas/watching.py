"""Checks of replicas: every so often, each is asked for its role and how far it is."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import monotonic

import anyio

from covet_orm.drivers.protocol import Connection, Driver
from covet_orm.exceptions import ConnectionLost, DatabaseError
from covet_orm.pool.background import BackgroundTasks
from covet_orm.replicas.events import LeaveReason
from covet_orm.replicas.positions import LogPosition, Position
from covet_orm.replicas.routing import ReadRouter, Replica
from covet_orm.replicas.servers import Replication, Status

__all__ = ["LagHistory", "Watch"]

logger = logging.getLogger("covet.orm")
# Seconds that a server has for a check.
PATIENCE = 2.0
# Seconds between two checks that a failure asked for.
AT_ONCE = 0.05
SAMPLES = 1000


class LagHistory:
    """How far a primary was, and when: what tells how many seconds a replica is behind.

    The replicas' own clocks say nothing about it: `pg_last_xact_replay_timestamp()` grows old while the primary is
    idle, and `replay_lag` stays as it was while nothing is applied. Here a replica is as many seconds behind as have
    passed since the primary was first seen at a position that the replica has not reached; so the measure is as coarse
    as the samples are apart.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Position]] = deque(maxlen=SAMPLES)

    @property
    def latest(self) -> Position | None:
        """Where the primary was seen last."""
        return self._samples[-1][1] if self._samples else None

    def note(self, position: Position, now: float) -> None:
        """The primary is there now."""
        if self._samples and self._samples[-1][1].covers(position):
            if position.covers(self._samples[-1][1]):
                return
            # It went back, as a primary that was restored does, or one on an older timeline.
            self._samples.clear()
        self._samples.append((now, position))

    def lag(self, position: Position, now: float) -> float:
        """Seconds that a replica at this position is behind."""
        for when, seen in self._samples:
            if not position.covers(seen):
                return now - when
        return 0.0


class Link:
    """A connection of the watch's own to one server, so that a busy pool does not look like a server that is gone."""

    def __init__(self, driver: Driver, replication: Replication) -> None:
        self.driver = driver
        self.replication = replication
        self.connection: Connection | None = None
        self._timeline = 0
        self._refused = False

    async def status(self, *, beat: bool = False) -> Status:
        """What the server tells of itself.

        Args:
            beat: whether the heartbeat row is written before.

        Raises:
            DatabaseError: it cannot be asked.
            TimeoutError: it does not answer in time.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                if self.connection is None:
                    self.connection = await self.driver.connect()
                if beat and not await self.replication.is_replica(self.connection):
                    await self._beat(self.connection)
                return self._with_timeline(await self.replication.status(self.connection))
        except BaseException:
            self.cut()
            raise

    def _with_timeline(self, status: Status) -> Status:
        """With the latest timeline that the server told of: it tells of that which it receives only while it does, and
        so not while its primary is gone; and it does not go back while this session lives."""
        position = status.position
        if not isinstance(position, LogPosition):
            return status
        self._timeline = max(self._timeline, position.timeline)
        return Status(status.replica, LogPosition(position.system, self._timeline, position.lsn))

    async def _beat(self, connection: Connection) -> None:
        try:
            await self.replication.beat(connection)
        except ConnectionLost:
            raise
        except DatabaseError as error:
            # The lag is measured all the same, by what others write.
            level = logging.DEBUG if self._refused else logging.WARNING
            logger.log(level, "the heartbeat of the replicas cannot be written: %s", error)
            self._refused = True
        else:
            self._refused = False

    def cut(self) -> None:
        """Give the connection up."""
        connection, self.connection = self.connection, None
        self._timeline = 0
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """End the connection in good order."""
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()


class Watch:
    """Checks the replicas of a router, from `start` to `close`.

    Args:
        router: whose replicas leave and return.
        primary: the driver of the primary.
    """

    def __init__(self, router: ReadRouter, primary: Driver) -> None:
        self.router = router
        self.history = LagHistory()
        self._primary = Link(primary, router.replication)
        self._links = [(replica, Link(replica.driver, router.replication)) for replica in router.replicas]
        self._tasks = BackgroundTasks("replicas")
        self._beats = router.settings.heartbeat
        self._first = True

    async def start(self) -> None:
        """Check once, so that it is known which replicas can be asked, and from then on in the background."""
        try:
            await self.check()
        except BaseException:
            await self.close()
            raise
        self._tasks.start(self._run(), "checks")

    async def close(self) -> None:
        """Check no more."""
        self._tasks.cancel()
        await self._tasks.join()
        for link in (self._primary, *(link for _, link in self._links)):
            await link.close()

    async def check(self) -> None:
        """Check every server once."""
        self.router.look.clear()
        await self._look_at_primary()
        async with asyncio.TaskGroup() as group:
            for replica, link in self._links:
                group.create_task(self._look_at(replica, link))
        self._first = False

    async def _run(self) -> None:
        while True:
            # When it is time, or as soon as somebody asks for it.
            with anyio.move_on_after(self.router.settings.replica_check) as until:
                await self.router.look.wait()
            if not until.cancelled_caught:
                await anyio.sleep(AT_ONCE)
            try:
                await self.check()
            except Exception:
                logger.exception("checking the replicas of the database %s failed", self.router.primary.alias)

    async def _look_at_primary(self) -> None:
        try:
            status = await self._primary.status(beat=self._beats)
        except (DatabaseError, TimeoutError) as error:
            logger.debug("the primary of the database %s is not seen: %s", self.router.primary.alias, error)
            return
        if status.replica:
            if not self._first and self.router.primary.pool.stats.size:
                self.router.primary.demoted()
        elif status.position is not None:
            self.history.note(status.position, monotonic())

    async def _look_at(self, replica: Replica, link: Link) -> None:
        try:
            status = await link.status()
        except (DatabaseError, TimeoutError) as error:
            logger.debug("the replica %s does not answer: %s", replica.name, error)
            replica.lag = None
            replica.leave("unreachable")
            return
        reason = self._reason(replica, status)
        if reason is None:
            replica.come_back()
        else:
            replica.leave(reason)

    def _reason(self, replica: Replica, status: Status) -> LeaveReason | None:
        """Why a replica cannot be asked, if so."""
        replica.lag = None
        if not status.replica:
            return "promoted"
        latest, position = self.history.latest, status.position
        if latest is None:
            # The primary was never seen: there is nothing that the replica could be behind of.
            return None
        if position is None:
            return "foreign"
        if isinstance(latest, LogPosition) and isinstance(position, LogPosition):
            # One that is on an older timeline may have what the primary has not, such as commits that nobody was told
            # of: it is that of a primary that was killed, until it follows the new one.
            foreign = latest.system != position.system or latest.timeline > position.timeline
            if foreign:
                return "foreign"
        replica.lag = self.history.lag(position, monotonic())
        limit = self.router.settings.max_lag
        return "lag" if limit is not None and replica.lag > limit else None
