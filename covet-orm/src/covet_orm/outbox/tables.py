"""The tables of the outbox, and its statements.

A message is waiting, delivered or dead. A worker that takes one puts off the moment from which it is `available` by the
lease, and leaves its name: when it dies, the message is there for others as soon as the lease is over. All times are by
the clock of the database, so that those of the workers may differ. What waits for no time is available from the
beginning of time on: it does not wait for a clock that is set back.

Within a key, numbers grow in the order of commits: whoever enqueues holds a lock of the key until its transaction ends,
and gets its number afterwards. PostgreSQL has advisory locks for that, SQLite one transaction that writes; MySQL and
MariaDB lock one of the rows of a table that is there for nothing else, by the hash of the key. Their own locks by name
(GET_LOCK) belong to sessions, and end before or after the transaction, but not with it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import sqlalchemy
from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, Table, bindparam, case, func, select
from sqlalchemy.dialects import mysql
from sqlalchemy.sql import ClauseElement

from covet_orm.databases import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.expiry import ExpiringStatements
from covet_orm.outbox.messages import KEY_BYTES, TOPIC_BYTES
from covet_orm.store_tables import StoreTable

__all__ = ["CHANNEL", "DEAD", "DELIVERED", "OUTBOX", "WAITING", "OutboxTable", "is_mysql", "lock_number"]

OUTBOX = "covet_outbox"
"""The name of the table."""
CHANNEL = OUTBOX
"""The channel of notifications (PostgreSQL)."""
SLOTS = 1024
"""Rows to lock for keys (MySQL, MariaDB): two keys of one row wait for each other, which is harmless."""
WAITING, DELIVERED, DEAD = 0, 1, 2
"""The states of a message."""

NOW = {
    "postgresql": "CAST(EXTRACT(EPOCH FROM statement_timestamp()) AS double precision)",
    "mysql": "UNIX_TIMESTAMP(NOW(6))",
    "mariadb": "UNIX_TIMESTAMP(NOW(6))",
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
}
MESSAGE = ("key", "topic", "order_key", "payload", "data", "attempts", "created")
DOUBLE: Any = sqlalchemy.Double()
AT_ONCE: Any = sqlalchemy.literal_column("0.0", DOUBLE)
"""When a message is available that waits for nothing."""


def is_mysql(kind: str) -> bool:
    """Whether it is MySQL or MariaDB."""
    return kind in ("mysql", "mariadb")


def define_outbox(name: str, kind: str) -> Table:
    """The table of messages. Topics and keys are compared by their bytes, without a collation's opinion."""
    of_mysql = is_mysql(kind)
    text: Any = mysql.LONGTEXT(charset="utf8mb4") if of_mysql else sqlalchemy.Text()
    data: Any = mysql.LONGBLOB() if of_mysql else sqlalchemy.LargeBinary()
    topic: Any = mysql.VARBINARY(TOPIC_BYTES) if of_mysql else sqlalchemy.Text()
    key: Any = mysql.VARBINARY(KEY_BYTES) if of_mysql else sqlalchemy.Text()
    number: Any = BigInteger().with_variant(Integer(), "sqlite")
    return Table(
        name,
        MetaData(),
        # `covet_orm.expiry` knows what identifies a row as `key`; that of messages has another name here.
        Column("id", number, key="key", primary_key=True, autoincrement=True),
        Column("topic", topic, nullable=False),
        Column("key", key, key="order_key"),
        Column("payload", text),
        Column("data", data),
        Column("state", SmallInteger, nullable=False),
        Column("available", DOUBLE, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("worker", sqlalchemy.String(100)),
        Column("created", DOUBLE, nullable=False),
        Column("expires", DOUBLE),
        Column("error", text),
        Index(f"{name}_state", "state", "key"),
        Index(f"{name}_order", "topic", "order_key", "state", "key"),
        Index(f"{name}_expires", "expires"),
        mysql_engine="InnoDB",
        mysql_row_format="DYNAMIC",
        mariadb_engine="InnoDB",
        mariadb_row_format="DYNAMIC",
        sqlite_autoincrement=True,
    )


def define_slots(name: str, kind: str) -> Table:
    """The table of rows to lock."""
    return Table(
        name,
        MetaData(),
        Column("slot", Integer, primary_key=True, autoincrement=False),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )


def lock_number(topic: str, key: str, bits: int) -> int:
    """What is locked for a key: a signed number of so many bits."""
    name = f"{OUTBOX}\0{topic}\0{key}".encode()
    return int.from_bytes(blake2b(name, digest_size=bits // 8).digest(), signed=True)


class OutboxStatements(ExpiringStatements):
    """The statements about messages."""

    def __init__(self, kind: str, table: Table) -> None:
        super().__init__(kind, table)
        self.now: Any = sqlalchemy.literal_column(NOW[kind], DOUBLE)

    def add(self) -> ClauseElement:
        """Write a message; its number, but for MySQL and MariaDB. PostgreSQL tells those that listen at the commit."""
        c = self.table.c
        given = ("topic", "order_key", "payload", "data")
        values: dict[Any, Any] = {
            c[name]: bindparam(f"new_{name}", type_=c[name].type, required=True) for name in given
        }
        delay = bindparam("delay", type_=DOUBLE, required=True)
        available = case((delay > 0.0, self.now + delay), else_=AT_ONCE)
        values |= {c.state: WAITING, c.attempts: 0, c.created: self.now, c.available: available}
        added = sqlalchemy.insert(self.table).values(values)
        if self.kind == "sqlite":
            return added.returning(c.key)
        if self.kind != "postgresql":
            return added
        kept = added.returning(c.key).cte("kept")
        return select(kept.c.key, func.pg_notify(CHANNEL, ""))

    def clock(self) -> ClauseElement:
        """The time, by the clock of the database."""
        return select(self.now)

    def claim(self, topics: tuple[Any, ...]) -> ClauseElement:
        """Take messages, and give them (PostgreSQL, SQLite)."""
        c = self.table.c
        values = {
            c.available: self.now + bindparam("lease", type_=DOUBLE, required=True),
            c.worker: bindparam("new_worker", type_=c.worker.type, required=True),
            c.attempts: c.attempts + 1,
        }
        wanted = [c[name] for name in MESSAGE]
        update: Any = sqlalchemy.update(self.table).values(values)
        if self.kind == "sqlite":
            return update.where(c.key.in_(self._due(topics)[1])).returning(*wanted)  # type: ignore[no-any-return]
        one, due = self._due(topics)
        chosen = due.with_for_update(skip_locked=True, of=one).cte("chosen")
        return update.where(c.key == chosen.c.key).returning(*wanted)  # type: ignore[no-any-return]

    def due(self, topics: tuple[Any, ...]) -> ClauseElement:
        """The numbers of messages that can be taken, unlocked."""
        found: ClauseElement = self._due(topics)[1]
        return found

    def lock(self, count: int) -> ClauseElement:
        """Lock those of so many messages that can still be taken, and that nobody else is taking; give them."""
        c = self.table.c
        keys = [bindparam(f"at{number}", type_=BigInteger(), required=True) for number in range(count)]
        found = select(*(c[name] for name in MESSAGE)).where(
            c.key.in_(keys), c.state == WAITING, c.available <= self.now
        )
        return found.with_for_update(skip_locked=True)

    def take(self) -> ClauseElement:
        """Take one that is locked."""
        c = self.table.c
        values = {
            c.available: self.now + bindparam("lease", type_=DOUBLE, required=True),
            c.worker: bindparam("new_worker", type_=c.worker.type, required=True),
            c.attempts: c.attempts + 1,
        }
        return sqlalchemy.update(self.table).values(values).where(self._at())

    def renew(self) -> ClauseElement:
        """Put off the end of the lease."""
        c = self.table.c
        later = self.now + bindparam("lease", type_=DOUBLE, required=True)
        return sqlalchemy.update(self.table).values({c.available: later}).where(*self._mine())

    def delivered(self) -> ClauseElement:
        """Note that a message is delivered."""
        c = self.table.c
        expires = self.now + bindparam("keep", type_=DOUBLE, required=True)
        values: dict[Any, Any] = {c.state: DELIVERED, c.expires: expires, c.worker: None, c.error: None}
        return sqlalchemy.update(self.table).values(values).where(*self._mine())

    def failed(self) -> ClauseElement:
        """Note that it failed, and try again later."""
        c = self.table.c
        later = self.now + bindparam("pause", type_=DOUBLE, required=True)
        values: dict[Any, Any] = {c.available: later, c.worker: None, c.error: self._error()}
        return sqlalchemy.update(self.table).values(values).where(*self._mine())

    def died(self) -> ClauseElement:
        """Note that it failed for the last time."""
        c = self.table.c
        values: dict[Any, Any] = {c.state: DEAD, c.worker: None, c.error: self._error()}
        return sqlalchemy.update(self.table).values(values).where(*self._mine())

    def give_back(self) -> ClauseElement:
        """Give back all that a worker has, as if it had not taken it."""
        c = self.table.c
        values: dict[Any, Any] = {c.available: AT_ONCE, c.worker: None, c.attempts: c.attempts - 1}
        return sqlalchemy.update(self.table).values(values).where(c.state == WAITING, self._worker())

    def requeue(self, by: str) -> ClauseElement:
        """Let dead letters wait again: one by its number, those of a topic, or all."""
        c = self.table.c
        values: dict[Any, Any] = {c.state: WAITING, c.attempts: 0, c.available: AT_ONCE}
        which = {"id": [self._at()], "topic": [c.topic == bindparam("of", type_=c.topic.type, required=True)]}
        return sqlalchemy.update(self.table).values(values).where(c.state == DEAD, *which.get(by, []))

    def status(self) -> ClauseElement:
        """By topic: how many wait, are with a worker, delivered, dead, and the age of the oldest that is waiting."""
        c = self.table.c

        def count(condition: Any) -> Any:
            return func.sum(case((condition, 1), else_=0))

        open_, held = c.state == WAITING, (c.state == WAITING) & c.worker.is_not(None) & (c.available > self.now)
        oldest = self.now - func.min(case((open_, c.created), else_=None))
        return (
            select(
                c.topic, count(open_) - count(held), count(held), count(c.state == DELIVERED), count(c.state == DEAD),
                oldest,
            ).group_by(c.topic).order_by(c.topic)
        )  # fmt: skip

    def dead(self) -> ClauseElement:
        """Dead letters, the oldest first."""
        c = self.table.c
        found = select(c.key, c.topic, c.order_key, c.attempts, c.created, c.error).where(c.state == DEAD)
        return found.order_by(c.key).limit(bindparam("limit", type_=Integer))

    def _due(self, topics: tuple[Any, ...]) -> tuple[Any, Any]:
        """What can be taken: of each key the first one that is not delivered, when its time has come."""
        one, earlier = self.table.alias("one"), self.table.alias("earlier")
        before = sqlalchemy.exists().where(
            earlier.c.state == WAITING,
            earlier.c.topic == one.c.topic,
            earlier.c.order_key == one.c.order_key,
            earlier.c.key < one.c.key,
        )
        found = select(one.c.key).where(
            one.c.state == WAITING, one.c.available <= self.now, one.c.topic.in_(topics), ~before
        )
        return one, found.order_by(one.c.key).limit(bindparam("limit", type_=Integer))

    def _at(self) -> Any:
        return self.table.c.key == bindparam("at", type_=BigInteger(), required=True)

    def _worker(self) -> Any:
        return self.table.c.worker == bindparam("by", type_=self.table.c.worker.type, required=True)

    def _mine(self) -> list[Any]:
        """A message that this worker has, and that nobody else has taken since."""
        return [self._at(), self._worker(), self.table.c.state == WAITING]

    def _error(self) -> Any:
        return bindparam("new_error", type_=self.table.c.error.type, required=True)


class SlotStatements:
    """The statements about rows to lock (MySQL, MariaDB)."""

    def __init__(self, kind: str, table: Table) -> None:
        self.kind = kind
        self.table = table

    def count(self) -> ClauseElement:
        """How many there are."""
        return select(func.count()).select_from(self.table)

    def fill(self) -> ClauseElement:
        """Make those that are not there."""
        rows = [{"slot": number} for number in range(SLOTS)]
        return sqlalchemy.insert(self.table).prefix_with("IGNORE").values(rows)

    def lock(self) -> ClauseElement:
        """Lock one until the transaction ends."""
        slot = self.table.c.slot
        return select(slot).where(slot == bindparam("at", type_=Integer, required=True)).with_for_update()


class OutboxTable(StoreTable):
    """The table of messages of a database, with the one of rows to lock where that is needed.

    Args:
        database: where.
        create: whether they are made when they are missing.
    """

    def __init__(self, database: Database, *, create: bool = False) -> None:
        super().__init__(database, OUTBOX, OutboxStatements, define_outbox, what="the outbox", create=create)
        self.slots: StoreTable | None = None
        if is_mysql(database.kind):
            self.slots = StoreTable(
                database, f"{OUTBOX}_slots", SlotStatements, define_slots, what="locks of the outbox", create=create
            )
        self._ready = False

    @classmethod
    def of(cls, database: Database, *, create: bool = False) -> OutboxTable:
        """The one of a database."""
        found = database.store_tables.get(OUTBOX)
        if not isinstance(found, cls):
            return cls(database, create=create)
        if create:
            found.create_missing = True
            if found.slots is not None:
                found.slots.create_missing = True
        return found

    async def prepare(self) -> None:
        """Return when the tables are there, and what is to be locked; outside of the caller's transaction, which an
        error would spoil.

        Raises:
            StoreTableMissing: they are not.
            DatabaseError: the database cannot be reached.
        """
        if self._ready or self.database.kind == "sqlite":
            return
        await self.require()
        if self.slots is not None:
            await self.slots.require()
            if (await self.slots.fetch(("count",), {}))[0][0] < SLOTS:
                await self.slots.execute(("fill",), {})
        self._ready = True

    async def lock_key(self, connection: Connection, topic: str, key: str) -> None:
        """Wait until no other transaction that is under way has enqueued for a key, and let others wait for this
        one."""
        if self.database.kind == "postgresql":
            await connection.fetch("SELECT pg_advisory_xact_lock($1)", (lock_number(topic, key, 64),))
        elif self.slots is not None:
            statement = self.slots.compiled(("lock",))
            slot = lock_number(topic, key, 64) % SLOTS
            await connection.fetch(statement.sql, statement.parameters({"at": slot}))

    def text(self, value: str | None) -> Any:
        """A topic or a key as the database takes it."""
        return value if value is None or not is_mysql(self.database.kind) else value.encode()
