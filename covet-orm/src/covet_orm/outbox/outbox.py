"""The outbox of a database: writing messages, looking at them, and what is to be done with dead ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from covet_orm.databases import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import ProgrammingError, TransactionError
from covet_orm.expiry import remove_all
from covet_orm.outbox.messages import Key, OutboxError, checked_key, checked_topic, kept_payload
from covet_orm.outbox.tables import OutboxTable, is_mysql
from covet_orm.outbox.waking import wake_workers
from covet_orm.store_tables import StoreTableMissing
from covet_orm.transactions.context import current_transaction

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from covet_orm.outbox.handlers import Handler
    from covet_orm.outbox.worker import OutboxWorker, WorkerOptions

__all__ = ["DeadLetter", "Outbox", "TopicStatus"]


class TopicStatus(NamedTuple):
    """The messages of a topic.

    Attributes:
        topic: the topic.
        waiting: how many wait: for a worker, for their time, or behind another one of their key.
        held: how many a worker has.
        delivered: how many are delivered and not removed yet.
        dead: how many failed for the last time.
        oldest: seconds since the oldest was enqueued that is not delivered; None without any.
    """

    topic: str
    waiting: int
    held: int
    delivered: int
    dead: int
    oldest: float | None


class DeadLetter(NamedTuple):
    """A message that failed for the last time.

    Attributes:
        id: its number.
        topic: its topic.
        key: its key.
        attempts: how often it was tried.
        created: when it was enqueued, in seconds since the epoch.
        error: what it failed with.
    """

    id: int
    topic: str
    key: str | None
    attempts: int
    created: float
    error: str


class Outbox:
    """The messages that are written in transactions of a database, and delivered after their commit.

        async with transaction_manager.atomic():
            await order.save()
            await transaction_manager.enqueue("orders.created", {"id": order.id}, key=order.id)

    Args:
        database: where.
        create_table: whether its tables are made when they are missing. `Database.create_all` and `covet db create`
            make those of an outbox that there is.

    Raises:
        ConfigurationError: another store has a table of that name.
    """

    def __init__(self, database: Database, *, create_table: bool = False) -> None:
        self.database = database
        self.table = OutboxTable.of(database, create=create_table)

    def __repr__(self) -> str:
        return f"<Outbox of {self.database.alias}>"

    async def create(self) -> None:
        """Make its tables where they are not there. Several processes may do so at once.

        Raises:
            DatabaseError: the database cannot be reached, or does not let its user create tables.
        """
        await self.table.create()
        if self.table.slots is not None:
            await self.table.slots.create()
        await self.table.prepare()

    async def enqueue(
        self, topic: str, payload: Any, *, key: Key | None = None, delay: float | timedelta | None = None
    ) -> int:
        """Write a message in the transaction around this; its number. It is delivered at least once if that commits,
        and never if it does not.

        Messages of one topic and key are delivered in the order in which their transactions commit, each when the one
        before it was. For that, a second transaction that enqueues for the same key waits here until this one has
        ended. Cancelled, the transaction can only be rolled back.

        Args:
            topic: what it is about, of at most 255 bytes.
            payload: what JSON can have, or bytes.
            key: what it is in order with, of at most 500 bytes; None for nothing.
            delay: seconds that it waits at least; those behind it, of its key, wait with it.

        Raises:
            TransactionError: there is no transaction around this, or it is that of another task.
            OutboxError: the topic, the key, the payload or the delay cannot be kept.
            StoreTableMissing: the tables are not there.
            DatabaseError: what the database says; `DeadlockDetected` where transactions enqueue for the same keys in
                different orders.
        """
        table, database = self.table, self.database
        topic, order_key, seconds = checked_topic(topic), checked_key(key), _seconds(delay)
        text, data = kept_payload(payload)
        block = current_transaction(database)
        if block is None:
            raise TransactionError(
                f"there is no transaction in {database.alias!r} around this, and a message is written with what it is "
                "about: `async with transaction_manager.atomic():`"
            )
        await table.prepare()
        values = {
            "new_topic": table.text(topic),
            "new_order_key": table.text(order_key),
            "new_payload": text,
            "new_data": data,
            "delay": seconds,
        }
        async with database.connection(name=f"{table.name}.enqueue") as connection:
            if order_key is not None:
                await table.lock_key(connection, topic, order_key)
            try:
                number = await self._add(connection, values)
            except ProgrammingError as error:
                if database.kind != "sqlite" or "no such table" not in str(error):
                    raise
                if not table.create_missing:
                    raise self._missing() from error
                await table.create()
                number = await self._add(connection, values)
        block.on_commit(lambda: wake_workers(table), robust=True)
        return number

    async def status(self) -> list[TopicStatus]:
        """How many messages there are, by topic. It reads the whole table.

        Raises:
            StoreTableMissing: the table is not there.
            DatabaseError: what the database says.
        """
        rows = await self.table.fetch(("status",), {}, reads=True)
        return [
            TopicStatus(
                topic=_text(topic) or "",
                waiting=int(waiting),
                held=int(held),
                delivered=int(delivered),
                dead=int(dead),
                oldest=None if oldest is None else max(0.0, float(oldest)),
            )
            for topic, waiting, held, delivered, dead, oldest in rows
        ]

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The messages that failed for the last time, the oldest first. They stay until they are requeued.

        Args:
            limit: how many at most.

        Raises:
            StoreTableMissing: the table is not there.
            DatabaseError: what the database says.
        """
        rows = await self.table.fetch(("dead",), {"limit": limit}, reads=True)
        return [DeadLetter(row[0], _text(row[1]) or "", _text(row[2]), row[3], row[4], row[5] or "") for row in rows]

    async def requeue(self, *numbers: int, topic: str | None = None) -> int:
        """Let dead letters be delivered again, with as many attempts as new ones have; how many.

        Those of their keys that came after them may be delivered by now.

        Args:
            numbers: of those; without any, all of them.
            topic: those of a topic instead.

        Raises:
            OutboxError: both were given.
            StoreTableMissing: the table is not there.
            DatabaseError: what the database says.
        """
        if numbers and topic is not None:
            raise OutboxError("requeue() takes numbers or a topic, not both")
        if topic is not None:
            found = await self.table.execute(("requeue", "topic"), {"of": self.table.text(checked_topic(topic))})
        elif numbers:
            found = 0
            for number in numbers:
                found += await self.table.execute(("requeue", "id"), {"at": number})
        else:
            found = await self.table.execute(("requeue", "all"), {})
        wake_workers(self.table)
        return found

    async def purge(self) -> int:
        """Remove the delivered messages whose time to be kept is over, in batches; how many. Workers do so by
        themselves. Cancelled, the batches that are done stay so.

        Raises:
            StoreTableMissing: the table is not there.
            DatabaseError: what the database says.
        """
        return await remove_all(self.table, float((await self.table.fetch(("clock",), {}))[0][0]))

    def worker(self, handlers: Mapping[str, Handler], **options: Unpack[WorkerOptions]) -> OutboxWorker:
        """A worker that delivers the messages of some topics.

        Args:
            handlers: functions by topic, such as `Handlers`.
            options: those of `OutboxWorker`.
        """
        from covet_orm.outbox.worker import OutboxWorker

        return OutboxWorker(self, handlers, **options)

    async def _add(self, connection: Connection, values: Mapping[str, Any]) -> int:
        statement = self.table.compiled(("add",))
        parameters = statement.parameters(values)
        if is_mysql(self.database.kind):
            return (await connection.insert(statement.sql, parameters)).last_id or 0
        number: int = (await connection.fetch(statement.sql, parameters))[0][0]
        return number

    def _missing(self) -> StoreTableMissing:
        return StoreTableMissing(
            f"the database {self.database.alias!r} has no table {self.table.name!r} for the outbox; name it as "
            f"[plugins.orm.outbox.{self.database.alias}] in the settings, and type `covet db create`; or await "
            "`Outbox(database).create()`"
        )


def _seconds(delay: float | timedelta | None) -> float:
    if delay is None:
        return 0.0
    seconds = delay if isinstance(delay, int | float) else delay.total_seconds()
    if not 0 <= seconds < float("inf"):
        raise OutboxError(f"a delay is seconds from 0 on, not {seconds}")
    return float(seconds)


def _text(value: Any) -> str | None:
    return bytes(value).decode() if isinstance(value, bytes | bytearray) else value
