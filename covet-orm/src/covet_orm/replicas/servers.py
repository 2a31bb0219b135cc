"""What servers are asked about replication: their role, their position, and to wait for one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from time import monotonic

from msgspec import Struct

from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import DatabaseError, ReadOnlyDatabase
from covet_orm.replicas.positions import GtidPosition, LogPosition, Position

__all__ = ["MariaDBReplication", "PostgreSQLReplication", "Replication", "Status"]

# Seconds between two looks at how far a replica is: at first, and at most.
FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.01


class Status(Struct, frozen=True):
    """A server, as it tells itself.

    Attributes:
        replica: whether it follows another.
        position: how far it is: of a primary, how far its log is written; of a replica, how far it has applied it. None
            where it cannot tell.
    """

    replica: bool
    position: Position | None


class Replication(ABC):
    """The questions, in the words of one kind of server."""

    @abstractmethod
    async def status(self, connection: Connection) -> Status:
        """The role and the position of a server. One or two round trips.

        Raises:
            DatabaseError: it does not answer.
        """

    @abstractmethod
    async def written(self, connection: Connection) -> Position | None:
        """A position that covers what was last committed on this connection to a primary; None when it cannot be told.
        One round trip.

        Raises:
            DatabaseError: it does not answer.
        """

    @abstractmethod
    async def reached(self, connection: Connection, position: Position, seconds: float) -> Position | None:
        """Wait until a replica has applied everything up to a position.

        Returns:
            How far it is; None when it is not there in that many seconds, or is no replica.

        Raises:
            DatabaseError: it does not answer.
        """

    @abstractmethod
    async def beat(self, connection: Connection) -> None:
        """Write the heartbeat row, and make its table where it is not there.

        Raises:
            DatabaseError: it was refused.
        """

    @abstractmethod
    def demoted(self, connection: Connection, error: DatabaseError) -> bool:
        """Whether an error of a write says that the server, and not only the transaction, takes no writes."""

    async def is_replica(self, connection: Connection) -> bool:
        """Whether a server follows another.

        Raises:
            DatabaseError: it does not answer.
        """
        return (await self.status(connection)).replica


class PostgreSQLReplication(Replication):
    """PostgreSQL 14 or later.

    The position of a primary is that up to which its log is flushed: a commit that was answered is before it. Only
    where `synchronous_commit` is off it is the insert position, which may lie behind a page's header that no replica
    reaches before the next write. (Server documentation, sections 9.28.3 and 9.28.4, and `pg_stat_wal_receiver` in
    28.2.)
    """

    # The name of a segment of the log begins with the timeline.
    WRITTEN = (
        "SELECT CASE WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()"
        " ELSE pg_current_wal_flush_lsn() END, left(pg_walfile_name(pg_current_wal_flush_lsn()), 8),"
        " (SELECT system_identifier FROM pg_control_system())"
    )
    # The control file has the timeline of the last restart point; a receiver that streams is never behind it.
    APPLIED = (
        "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), (SELECT system_identifier FROM pg_control_system()),"
        " greatest((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT received_tli FROM pg_stat_wal_receiver))"
    )
    LSN = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()"
    TABLE = "CREATE TABLE IF NOT EXISTS covet_heartbeat (id smallint PRIMARY KEY, beat timestamptz NOT NULL)"
    BEAT = (
        "INSERT INTO covet_heartbeat (id, beat) VALUES (1, clock_timestamp())"
        " ON CONFLICT (id) DO UPDATE SET beat = excluded.beat"
    )
    UNDEFINED_TABLE = "42P01"

    async def status(self, connection: Connection) -> Status:
        """See `Replication.status`."""
        if not await self.is_replica(connection):
            return Status(False, await self.written(connection))
        return Status(True, await self._applied(connection))

    async def is_replica(self, connection: Connection) -> bool:
        """See `Replication.is_replica`."""
        return bool((await connection.fetch("SELECT pg_is_in_recovery()"))[0][0])

    async def written(self, connection: Connection) -> Position | None:
        """See `Replication.written`."""
        lsn, timeline, system = (await connection.fetch(self.WRITTEN))[0]
        return LogPosition(system, int(timeline, 16), lsn)

    async def reached(self, connection: Connection, position: Position, seconds: float) -> Position | None:
        """See `Replication.reached`."""
        if not isinstance(position, LogPosition):
            return None
        deadline = monotonic() + seconds
        pause = FIRST_PAUSE
        applied = await self._applied(connection)
        while applied is not None and not applied.covers(position):
            # No waiting helps where the history is another one.
            left = deadline - monotonic()
            if left <= 0 or applied.system != position.system:
                return None
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE)
            if applied.timeline < position.timeline:
                applied = await self._applied(connection)
            else:
                replica, lsn = (await connection.fetch(self.LSN))[0]
                applied = LogPosition(applied.system, applied.timeline, lsn) if replica and lsn is not None else None
        return applied

    async def beat(self, connection: Connection) -> None:
        """See `Replication.beat`."""
        try:
            await connection.execute(self.BEAT)
        except DatabaseError as error:
            if error.code != self.UNDEFINED_TABLE:
                raise
            await connection.script(self.TABLE)
            await connection.execute(self.BEAT)

    def demoted(self, connection: Connection, error: DatabaseError) -> bool:
        """See `Replication.demoted`."""
        # The same error ends a write in a transaction that only reads, on a server that is none the worse for it.
        return isinstance(error, ReadOnlyDatabase) and getattr(connection, "in_recovery", None) is not False

    async def _applied(self, connection: Connection) -> LogPosition | None:
        """How far a replica is; None when it is none, or has applied nothing."""
        replica, lsn, system, timeline = (await connection.fetch(self.APPLIED))[0]
        return LogPosition(system, timeline, lsn) if replica and lsn is not None else None


class MariaDBReplication(Replication):
    """MariaDB with GTIDs, its replicas with `read_only`.

    (MariaDB documentation: Global Transaction ID; MASTER_GTID_WAIT.)
    """

    STATUS = "SELECT @@global.read_only, @@global.gtid_slave_pos, @@global.gtid_binlog_pos"
    TABLE = (
        "CREATE TABLE IF NOT EXISTS covet_heartbeat (id smallint PRIMARY KEY, beat timestamp(6) NOT NULL) ENGINE=InnoDB"
    )
    BEAT = (
        "INSERT INTO covet_heartbeat (id, beat) VALUES (1, current_timestamp(6))"
        " ON DUPLICATE KEY UPDATE beat = current_timestamp(6)"
    )
    NO_SUCH_TABLE = "1146"
    SERVER_READ_ONLY = ("1290", "1836")

    async def status(self, connection: Connection) -> Status:
        """See `Replication.status`."""
        read_only, applied, written = (await connection.fetch(self.STATUS))[0]
        replica = str(read_only).upper() not in ("0", "OFF")
        text = applied if replica else written
        return Status(replica, GtidPosition.parse(text) if text else None)

    async def written(self, connection: Connection) -> Position | None:
        """See `Replication.written`. None when the session wrote nothing to the binary log, or the server has none."""
        (last,) = (await connection.fetch("SELECT @@last_gtid"))[0]
        return GtidPosition.parse(last) if last else None

    async def reached(self, connection: Connection, position: Position, seconds: float) -> Position | None:
        """See `Replication.reached`."""
        if not isinstance(position, GtidPosition):
            return None
        ((outcome,),) = await connection.fetch("SELECT MASTER_GTID_WAIT(%s, %s)", (position.gtids, seconds))
        return position if outcome == 0 else None

    async def beat(self, connection: Connection) -> None:
        """See `Replication.beat`."""
        try:
            await connection.execute(self.BEAT)
        except DatabaseError as error:
            if error.code != self.NO_SUCH_TABLE:
                raise
            await connection.script(self.TABLE)
            await connection.execute(self.BEAT)

    def demoted(self, connection: Connection, error: DatabaseError) -> bool:
        """See `Replication.demoted`."""
        return isinstance(error, ReadOnlyDatabase) and error.code in self.SERVER_READ_ONLY
