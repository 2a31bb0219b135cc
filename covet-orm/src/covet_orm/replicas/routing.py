"""Which server a read goes to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from covet.events import listener
from covet_orm.drivers.protocol import Connection, Driver
from covet_orm.exceptions import ConnectionLost, DatabaseError, DatabaseUnavailable, SerializationFailure
from covet_orm.replicas.connections import Call, CheckedDriver, PrimaryConnection, ReplicaConnection
from covet_orm.replicas.events import LeaveReason, PrimaryDemoted, ReplicaLeft, ReplicaReturned
from covet_orm.replicas.positions import Position
from covet_orm.replicas.read_sessions import ReadSession, ReadSessions
from covet_orm.replicas.settings import ReplicaSettings

if TYPE_CHECKING:
    from covet_orm.pool import Pool, PoolSettings
    from covet_orm.replicas.servers import Replication

__all__ = ["Primary", "PrimaryReads", "ReadRouter", "Replica"]

logger = logging.getLogger("covet.orm")
# A replica that refuses a write, a lock or a sequence's next value: the primary does it.
READ_ONLY_CODES = ("25006", "1290", "1836")


class Primary:
    """The server that is written to.

    Args:
        alias: of the database.
        driver: makes connections to it.
        replication: what it is asked.

    Attributes:
        pool: its connections.
    """

    def __init__(self, alias: str, driver: Driver, replication: Replication, settings: PoolSettings) -> None:
        from covet_orm.pool import Pool

        self.alias = alias
        self.replication = replication
        checked = CheckedDriver(driver, replication, lambda made: PrimaryConnection(made, self), replica=False)
        self.pool = Pool(checked, settings, name=alias)
        self.router: ReadRouter | None = None

    def session(self) -> ReadSession:
        """The session of whoever runs."""
        assert self.router is not None
        return self.router.session()

    async def note(self, connection: PrimaryConnection) -> None:
        """Keep the position of what was committed. That it happened is no longer in doubt, whatever this meets."""
        session = self.session()
        session.writing()
        try:
            position = await self.replication.written(connection.driven)
        except DatabaseError as error:
            session.lost_track()
            logger.warning("the position of a write is not known, and its session reads from the primary: %s", error)
        except BaseException:
            session.lost_track()
            raise
        else:
            session.wrote(position)

    def failed(self, connection: PrimaryConnection, error: BaseException, *, uncertain: bool) -> None:
        """A statement failed."""
        if uncertain:
            self.session().read_primary()
        if isinstance(error, DatabaseError) and self.replication.demoted(connection, error):
            self.demoted()

    def demoted(self) -> None:
        """It takes no writes any more: no connection is used again."""
        logger.warning("the primary of the database %s takes no writes; its connections are replaced", self.alias)
        if (app := listener()) is not None:
            app.emit(PrimaryDemoted(self.alias))
        self.pool.expire()


class PrimaryReads:
    """Connections of the primary for reading alone, after which no position is noted. Used like a pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def try_acquire(self) -> Connection | None:
        """An idle connection, if there is one that needs no check."""
        return _for_reading(self.pool.try_acquire())

    async def acquire(self, timeout: float | None = None) -> Connection:
        """A connection, when it is this task's turn. See `Pool.acquire`.

        Raises:
            PoolTimeout: none became free in time.
            DatabaseUnavailable: the primary cannot be reached.
        """
        connection = await self.pool.acquire(timeout)
        _for_reading(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Give a connection back.

        Raises:
            OrmError: it is not held.
        """
        if isinstance(connection, PrimaryConnection):
            connection.reading = False
        self.pool.release(connection)


class Replica:
    """A server that follows the primary.

    Attributes:
        name: its host and port.
        driver: makes connections to it.
        pool: its connections.
        weight: how much it takes, relative to the others.
        outstanding: how many reads it has, waiting ones included.
        away: why it is not asked; None when it is.
        lag: seconds that it is behind, as far as is known.
    """

    def __init__(
        self, name: str, driver: Driver, replication: Replication, settings: PoolSettings, alias: str, weight: float
    ) -> None:
        from covet_orm.pool import Pool

        self.name = name
        self.alias = alias
        self.driver = driver
        self.weight = weight
        self.outstanding = 0
        self.away: LeaveReason | None = "unreachable"
        self.lag: float | None = None
        self.router: ReadRouter | None = None
        self._since = monotonic()
        # One that is well from the beginning has not been away.
        self._told = False
        checked = CheckedDriver(driver, replication, lambda made: ReplicaConnection(made, self), replica=True)
        self.pool = Pool(checked, settings, name=f"{alias} (replica {name})")

    def __repr__(self) -> str:
        return f"<Replica {self.name} of {self.alias}: {self.away or 'asked'}, {self.outstanding} reads>"

    def leave(self, reason: LeaveReason) -> None:
        """Ask it no more, until a check finds it well. What it answers meanwhile counts."""
        if self.away == reason and self._told:
            return
        if self.away is None:
            self._since = monotonic()
        self.away, self._told = reason, True
        logger.warning("the replica %s of the database %s is not asked: %s", self.name, self.alias, reason)
        if (app := listener()) is not None:
            app.emit(ReplicaLeft(self.alias, self.name, reason, self.lag))
        if reason != "lag":
            self.pool.expire()
            assert self.router is not None
            self.router.look.set()

    def come_back(self) -> None:
        """Ask it again."""
        if self.away is None:
            return
        self.away = None
        if self._told:
            seconds = monotonic() - self._since
            logger.info("the replica %s of the database %s is asked again", self.name, self.alias)
            if (app := listener()) is not None:
                app.emit(ReplicaReturned(self.alias, self.name, seconds))
        self._told = True

    def failed(self, connection: ReplicaConnection, error: DatabaseError) -> bool:
        """A statement failed; whether another server is asked for it."""
        if isinstance(error, ConnectionLost):
            self.leave("lost")
            return True
        # A conflict with what is applied (`max_standby_streaming_delay`) is the only one that a single read can have.
        return error.code in READ_ONLY_CODES or isinstance(error, SerializationFailure)

    async def again(self, call: Call, error: DatabaseError) -> Any:
        """Ask another server."""
        assert self.router is not None
        return await self.router.again(call, self, primary=not isinstance(error, ConnectionLost))


class ReadRouter:
    """Connections for reading: of the replicas, or of the primary where those will not do. Used like a pool.

    - A session stays with one replica while that is asked. Others go to the one with the fewest reads for its weight.
    - What the session wrote is there: the replica that was chosen is known to have it, or is waited for, `replica_wait`
      seconds at most; then the primary is asked, for this read and until the next check.
    - With no replica left, the primary is asked.

    Args:
        primary: the server that is written to.
        replicas: those that follow it.
        replication: what they are asked.
        settings: when they are asked.

    Attributes:
        primary_reads: connections of the primary for reading.
        look: set when the replicas should be checked at once.
    """

    def __init__(
        self, primary: Primary, replicas: Sequence[Replica], replication: Replication, settings: ReplicaSettings
    ) -> None:
        self.primary = primary
        self.primary_reads = PrimaryReads(primary.pool)
        self.replicas = list(replicas)
        self.replication = replication
        self.settings = settings
        self.look = asyncio.Event()
        self._turn = 0
        primary.router = self
        for replica in replicas:
            replica.router = self

    def session(self) -> ReadSession:
        """The session of whoever runs."""
        return ReadSessions.current().of(self, self.settings.token_lifetime)

    def try_acquire(self) -> Connection | None:
        """An idle connection of the server that is to be asked, if nothing has to be waited for."""
        session = self.session()
        replica = None if session.needs_primary else self.choose(session)
        if replica is None:
            return self.primary_reads.try_acquire()
        connection = replica.pool.try_acquire()
        if connection is None:
            return None
        assert isinstance(connection, ReplicaConnection)
        if not self._knows(connection, session.position):
            replica.pool.release(connection)
            return None
        replica.outstanding += 1
        return connection

    async def acquire(self, timeout: float | None = None) -> Connection:
        """A connection of the server that is to be asked. Whoever gets one gives it back with `release`.

        Cancelled, it holds none.

        Args:
            timeout: seconds to wait, instead of `acquire_timeout`.

        Raises:
            PoolTimeout: none became free in time.
            DatabaseUnavailable: neither a replica nor the primary can be reached.
        """
        return await self._acquire(self.session(), set(), timeout)

    def release(self, connection: Connection) -> None:
        """Give a connection back.

        Raises:
            OrmError: it is not held.
        """
        if isinstance(connection, ReplicaConnection):
            replica = connection.site
            assert isinstance(replica, Replica)
            replica.outstanding -= 1
            if connection.in_recovery is False and replica.away is None:
                replica.leave("promoted")
            replica.pool.release(connection)
            return
        self.primary_reads.release(connection)

    def choose(self, session: ReadSession, without: Collection[Replica] = ()) -> Replica | None:
        """The replica that is to be asked, if there is one."""
        stays = session.replica
        if stays is not None and stays.away is None and stays not in without and monotonic() < session.stays:
            return stays
        asked = [replica for replica in self.replicas if replica.away is None and replica not in without]
        if not asked:
            return None
        # With the same load for all, each in turn.
        self._turn += 1
        start = self._turn % len(asked)
        order = asked[start:] + asked[:start]
        best = min(order, key=lambda replica: (replica.outstanding + 1) / replica.weight)
        session.stay_with(best)
        return best

    async def again(self, call: Call, failed: Replica, *, primary: bool) -> Any:
        """Run a read once more, on another replica or on the primary.

        Raises:
            DatabaseError: that one refuses it as well.
        """
        session, tried = self.session(), {failed}
        while True:
            connection = await (self.primary_reads.acquire() if primary else self._acquire(session, tried, None))
            try:
                if isinstance(connection, PrimaryConnection):
                    return await call(connection)
                assert isinstance(connection, ReplicaConnection)
                replica = connection.site
                assert isinstance(replica, Replica)
                try:
                    return await call(connection.driven)
                except DatabaseError as error:
                    if not replica.failed(connection, error):
                        raise
                    tried.add(replica)
                    primary = not isinstance(error, ConnectionLost)
            finally:
                self.release(connection)

    async def _acquire(self, session: ReadSession, tried: set[Replica], timeout: float | None) -> Connection:
        while not session.needs_primary and (replica := self.choose(session, tried)) is not None:
            tried.add(replica)
            replica.outstanding += 1
            try:
                connection = await replica.pool.acquire(timeout)
            except DatabaseUnavailable:
                replica.outstanding -= 1
                replica.leave("unreachable")
                continue
            except BaseException:
                replica.outstanding -= 1
                raise
            assert isinstance(connection, ReplicaConnection)
            try:
                there = await self._wait(connection, session.position)
            except DatabaseError as error:
                replica.failed(connection, error)
                self.release(connection)
                continue
            except BaseException:
                self.release(connection)
                raise
            if there:
                return connection
            self.release(connection)
            session.spare_replicas(self.settings.replica_check)
        return await self.primary_reads.acquire(timeout)

    async def _wait(self, connection: ReplicaConnection, position: Position | None) -> bool:
        """Whether a replica has applied everything up to a position, now or soon."""
        if self._knows(connection, position):
            return True
        assert position is not None
        reached = await self.replication.reached(connection.driven, position, self.settings.replica_wait)
        if reached is not None and self._is_one_server(connection):
            connection.reached = reached
        return reached is not None

    @staticmethod
    def _knows(connection: ReplicaConnection, position: Position | None) -> bool:
        """Whether nothing has to be asked."""
        return position is None or (connection.reached is not None and connection.reached.covers(position))

    @staticmethod
    def _is_one_server(connection: ReplicaConnection) -> bool:
        """Whether a connection leads to the same server for as long as it lives: not behind a PgBouncer."""
        return not (hasattr(connection.driven, "in_recovery") and connection.in_recovery is None)


def _for_reading(connection: Connection | None) -> Connection | None:
    if isinstance(connection, PrimaryConnection):
        connection.reading = True
    return connection
