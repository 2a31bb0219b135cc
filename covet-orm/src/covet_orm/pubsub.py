"""The pub/sub backend `postgresql`: messages by LISTEN and NOTIFY (https://www.postgresql.org/docs/current/sql-notify.html).

Each topic has a channel of its own, so that the server sends a process only what it listens to. A channel's name has at
most 63 bytes: it is the hash of the topic. A payload of NOTIFY is text of fewer than 8000 bytes: small messages are in
it, in base64; larger ones are in a table for two minutes, from where each process that listens fetches them.

One connection listens, outside of the pool, in a task of its own: whoever asks for a topic and is cancelled interrupts
nothing. When it is lost it is made again, with pauses that grow to five seconds; then the subscriptions are told that
messages may be missing. The server sends notifications in the order in which their transactions commit, so that those
of one task arrive in its order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy
from anyio import CancelScope, Event, fail_after, move_on_after, sleep
from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    func,
    insert,
    select,
)
from sqlalchemy.sql import ClauseElement

from covet.concurrency import task_group
from covet.exceptions import ConfigurationError
from covet.pubsub import PubSubError
from covet_orm.databases import Database
from covet_orm.exceptions import DatabaseError, OrmError
from covet_orm.expiry import ExpiringStatements, Expiry, Start
from covet_orm.store_tables import StoreTable

if TYPE_CHECKING:
    from covet.pubsub import Receiver
    from covet_orm.drivers.protocol import Connection

__all__ = ["PostgreSQLPubSub"]

logger = logging.getLogger("covet.orm")

# Bytes of a payload that fit into a notification: 4 characters for 3 bytes, and one that says what it is.
INLINE = 5_990
DIRECT, KEPT = "b", "t"
# Seconds that a message stays in the table.
KEEP = 120.0
# After how many messages in the table old ones are removed from it.
EVERY = 20
# Seconds.
FIRST_PAUSE, MAX_PAUSE = 0.05, 5.0
ANSWER = 10.0
OWN_NUMBER = "SELECT pg_backend_pid()"
# How many messages wait here, behind one that is fetched from the table, before more of them are given up.
MOST_WAITING = 10_000


class MessageStatements(ExpiringStatements):
    """The statements about messages that are too large for a notification."""

    def send(self) -> ClauseElement:
        """Keep a message, and tell its number to those that listen."""
        c = self.table.c
        values = {name: bindparam(name, type_=c[name].type, required=True) for name in ("payload", "expires")}
        kept = insert(self.table).values(values).returning(c.key).cte("kept")
        channel = bindparam("channel", type_=sqlalchemy.Text(), required=True)
        return select(func.pg_notify(channel, KEPT + sqlalchemy.cast(kept.c.key, sqlalchemy.Text)))

    def message(self) -> ClauseElement:
        """A message by its number."""
        return select(self.table.c.payload).where(
            self.table.c.key == bindparam("at", type_=BigInteger(), required=True)
        )


def define_messages(name: str, kind: str) -> Table:
    """The table of messages. UNLOGGED: what a crash of the server leaves, nobody waits for."""
    return Table(
        name,
        MetaData(),
        Column("key", BigInteger, Identity(), primary_key=True),
        Column("payload", LargeBinary, nullable=False),
        Column("expires", sqlalchemy.Double(), nullable=False),
        Index(f"{name}_expires", "expires"),
        prefixes=["UNLOGGED"],
    )


class PostgreSQLPubSub:
    """A pub/sub backend over LISTEN and NOTIFY of a PostgreSQL database.

    Args:
        database: where; the connection that listens must reach the server itself, not a PgBouncer in transaction mode.
        table: the name of the table for messages of more than 5990 bytes.
        create_table: whether it is made when it is missing.
        heartbeat: seconds between two questions whether the connection that listens is alive.
        start: starts work beside the caller's, such as the removal of old messages; without, a publisher does it now
            and then.

    Raises:
        ConfigurationError: the database is none of PostgreSQL, or the table's name is none.
        ValueError: `heartbeat` is not above 0.
    """

    max_payload: int | None = None

    def __init__(
        self,
        database: Database,
        *,
        table: str = "covet_messages",
        create_table: bool = False,
        heartbeat: float = 15.0,
        start: Start | None = None,
    ) -> None:
        if database.kind != "postgresql":
            raise ConfigurationError(
                f"the pub/sub backend 'postgresql' needs a database of PostgreSQL, and {database.alias!r} is one of "
                f"{database.kind}"
            )
        if not heartbeat > 0:
            raise ValueError(f"heartbeat is seconds above 0, not {heartbeat}")
        self.database = database
        self.heartbeat = heartbeat
        self.table = StoreTable(
            database, table, MessageStatements, define_messages, what="large messages", create=create_table
        )
        self._expiry = Expiry(self.table, time.time, every=EVERY, start=start)
        self._line: _Line | None = None

    def __repr__(self) -> str:
        return f"<PostgreSQLPubSub of {self.database.alias}>"

    @property
    def connected(self) -> bool:
        """Whether it listens at this moment."""
        return self._line is not None and self._line.connection is not None

    @asynccontextmanager
    async def connect(self, receiver: Receiver) -> AsyncIterator[None]:
        """Be connected while the context lasts, and put what arrives into `receiver`.

        Raises:
            PubSubError: the server cannot be reached, or the context is open already.
        """
        if self._line is not None:
            raise PubSubError("the backend is connected already")
        line = self._line = _Line(self, receiver)
        try:
            await line.open()
            async with task_group() as group:
                group.start_soon(line.keep)
                group.start_soon(line.fetch)
                try:
                    yield
                finally:
                    group.cancel_scope.cancel()
        except DatabaseError as error:
            raise PubSubError(f"the pub/sub cannot listen: {error}") from error
        finally:
            self._line = None
            await line.close()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send a message. Cancelled, it was sent whole or not at all.

        Raises:
            PubSubError: it could not be sent.
        """
        channel = channel_of(topic)
        try:
            if len(payload) <= INLINE:
                text = DIRECT + b64encode(payload).decode("ascii")
                notification = (channel, text)
                await self.table.run(
                    lambda connection: connection.fetch("SELECT pg_notify($1, $2)", notification), name="notify"
                )
            else:
                values = {"payload": payload, "expires": time.time() + KEEP, "channel": channel}
                await self.table.fetch(("send",), values)
        except OrmError as error:
            raise PubSubError(f"a message to {topic!r} could not be sent: {error}") from error
        if len(payload) > INLINE:
            await self._expiry.written(1, len(payload))

    async def listen(self, topic: str) -> None:
        """Deliver the topic's messages from now on.

        Raises:
            PubSubError: the connection is lost.
        """
        if self._line is None:
            raise PubSubError("the backend is not connected")
        await self._line.listen(topic)

    async def unlisten(self, topic: str) -> None:
        """Deliver the topic's messages no more."""
        if self._line is not None:
            await self._line.unlisten(topic)


def channel_of(topic: str) -> str:
    """The name of a topic's channel: 128 bits of its hash, which two topics do not have in common."""
    return f"covet_{blake2b(topic.encode(), digest_size=16).hexdigest()}"


class _Wish(NamedTuple):
    """That a channel be listened to, or no more."""

    channel: str
    listen: bool
    done: asyncio.Future[None]


class _Line:
    """The connection that listens, and what has arrived by it."""

    def __init__(self, backend: PostgreSQLPubSub, receiver: Receiver) -> None:
        self.backend = backend
        self.connection: Connection | None = None
        self._receiver = receiver
        self._topics: dict[str, str] = {}
        self._wishes: deque[_Wish] = deque()
        self._wakeup = Event()
        # In their order: topics with payloads, or with the numbers of messages to fetch.
        self._arrived: deque[tuple[str, bytes | int]] = deque()
        self._arrival = Event()
        self._lost = False
        self._open = True
        self._pooler_told = False

    async def open(self) -> None:
        """Connect, and listen to all channels again."""
        connection = await self.backend.database.connect()
        raw: Any = connection.raw  # type: ignore[attr-defined]
        try:
            if getattr(connection, "pooled", False):
                raise ConfigurationError(
                    f"the database {self.backend.database.alias!r} is behind a PgBouncer in transaction mode, through "
                    "which no notification comes; add a [storage.ALIAS] with the server's own address, and name it as "
                    "`database` in [pubsub]"
                )
            await self._look_for_poolers(connection)
            self._lost = False
            raw.add_termination_listener(self._end)
            for channel in list(self._topics):
                await raw.add_listener(channel, self._notified)
        except BaseException:
            connection.terminate()
            raise
        self.connection = connection

    async def _look_for_poolers(self, connection: Connection) -> None:
        """Tell once of a pooler between: it gives the session a number of its own. In transaction mode it takes LISTEN,
        and the notifications go to whoever has the server's connection when they come."""
        if self._pooler_told or (await connection.fetch(OWN_NUMBER))[0][0] == connection.server_id:
            return
        self._pooler_told = True
        logger.warning(
            "a pooler such as PgBouncer stands between the pub/sub and the database %r; in transaction mode no "
            "notification comes through it: add a [storage.ALIAS] with the server's own address, and name it as "
            "`database` in [pubsub]",
            self.backend.database.alias,
        )

    async def keep(self) -> None:
        """Do what is wished for, and connect again whenever the connection was lost."""
        while True:
            await self._serve()
            self._give_up_wishes()
            await self._reconnect()

    async def fetch(self) -> None:
        """Deliver what arrived behind a message that is in the table."""
        while True:
            await self._arrival.wait()
            self._arrival = Event()
            while self._arrived and self.connection is not None:
                topic, payload = self._arrived[0]
                if isinstance(payload, int):
                    await self._fetch(topic, payload)
                else:
                    self._deliver(topic, payload)
                self._arrived.popleft()

    async def close(self) -> None:
        """Cut or end the connection. Nothing is delivered any more."""
        self._open = False
        self._topics.clear()
        self._give_up_wishes()
        connection, self.connection = self.connection, None
        if connection is not None:
            with CancelScope(shield=True):
                await connection.close()

    async def listen(self, topic: str) -> None:
        """Return when the server knows that the topic is listened to."""
        channel = channel_of(topic)
        self._topics[channel] = topic
        await self._wish(channel, listen=True)

    async def unlisten(self, topic: str) -> None:
        """Return when the server knows that it is no more, where it can be told."""
        channel = channel_of(topic)
        if self._topics.pop(channel, None) is not None and self.connection is not None:
            try:
                await self._wish(channel, listen=False)
            except PubSubError:
                logger.debug("the connection that listens was lost, and with it the channel %s", channel)

    async def _wish(self, channel: str, *, listen: bool) -> None:
        if self.connection is None or not self._open:
            raise PubSubError("the connection to the server is lost; it is made again")
        wish = _Wish(channel, listen, asyncio.get_running_loop().create_future())
        self._wishes.append(wish)
        self._wakeup.set()
        await wish.done

    async def _serve(self) -> None:
        """Do what is wished for until the connection is lost."""
        connection: Any = self.connection
        raw = connection.raw
        while not self._lost:
            with move_on_after(self.backend.heartbeat):
                await self._wakeup.wait()
            self._wakeup = Event()
            try:
                with fail_after(ANSWER):
                    if not self._wishes and not self._lost:
                        await raw.execute("SELECT 1")
                    while self._wishes:
                        wish = self._wishes[0]
                        change = raw.add_listener if wish.listen else raw.remove_listener
                        await change(wish.channel, self._notified)
                        self._wishes.popleft()
                        if not wish.done.done():
                            wish.done.set_result(None)
            except Exception as error:  # noqa: BLE001 - whatever it was, the connection is made anew
                logger.debug("the connection that listens failed: %s: %s", type(error).__name__, error)
                break
        self.connection = None
        connection.terminate()
        logger.warning("the connection that listens to the database %r was lost", self.backend.database.alias)

    async def _reconnect(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                with fail_after(ANSWER):
                    await self.open()
            except Exception as error:  # noqa: BLE001 - it is tried again, whatever it was
                logger.debug("no connection that listens yet: %s: %s", type(error).__name__, error)
                await sleep(pause * (0.5 + random() / 2))
                pause = min(MAX_PAUSE, pause * 2)
            else:
                break
        logger.warning("the database %r is listened to again", self.backend.database.alias)
        # What has arrived since stands behind the gap.
        self._receiver.gap()
        self._arrival.set()

    def _give_up_wishes(self) -> None:
        while self._wishes:
            wish = self._wishes.popleft()
            if not wish.done.done():
                wish.done.set_exception(PubSubError("the connection to the server was lost; it is made again"))

    def _end(self, raw: Any) -> None:
        """The connection has ended, whoever ended it."""
        if self.connection is None or raw is self.connection.raw:  # type: ignore[attr-defined]
            self._lost = True
            self._wakeup.set()

    def _notified(self, raw: Any, process: int, channel: str, text: str) -> None:
        """A notification has come."""
        topic = self._topics.get(channel)
        if topic is None:
            return
        try:
            payload = _payload(text)
        except ValueError:
            logger.warning("the server's process %d sent a notification to %r that is no message", process, topic)
            return
        if isinstance(payload, bytes) and not self._arrived and self.connection is not None:
            self._receiver.deliver(topic, payload)
        elif len(self._arrived) < MOST_WAITING:
            self._arrived.append((topic, payload))
            self._arrival.set()
        else:
            self._receiver.gap(topic)

    def _deliver(self, topic: str, payload: bytes) -> None:
        if channel_of(topic) in self._topics:
            self._receiver.deliver(topic, payload)

    async def _fetch(self, topic: str, number: int) -> None:
        """Deliver a message that is in the table; a gap where it is not there any more."""
        rows: list[Any] = []
        try:
            with move_on_after(ANSWER):
                rows = await self.backend.table.fetch(("message",), {"at": number}, reads=True)
        except OrmError as error:
            logger.warning("a large message to %r could not be fetched: %s", topic, error)
        if rows:
            self._deliver(topic, rows[0][0])
        elif self._open and channel_of(topic) in self._topics:
            self._receiver.gap(topic)


def _payload(text: str) -> bytes | int:
    """What a notification carries: a message, or the number of one.

    Raises:
        ValueError: neither.
    """
    if text.startswith(KEPT):
        return int(text[1:])
    if text.startswith(DIRECT):
        return b64decode(text[1:], validate=True)
    raise ValueError("a notification begins with what it is")
