"""What a worker does in the table: it takes messages, keeps them, and says what became of them.

Nothing is held open between: a message that is taken is put off by its lease, in a transaction of its own.
"""

from __future__ import annotations

import os
import socket
from secrets import token_hex
from typing import Any

import msgspec

from covet_orm.drivers.protocol import Connection, Row
from covet_orm.outbox.messages import Message
from covet_orm.outbox.tables import OutboxTable, is_mysql
from covet_orm.store_tables import all_or_nothing

__all__ = ["Claims"]

# Characters of an error that are kept.
MAX_ERROR = 2000


class Claims:
    """The messages that a worker takes.

    Args:
        table: from where.
        topics: those that it takes.
        lease: seconds that they are kept from others.

    Attributes:
        name: of the worker, which no other one has: host, process and a random part.
    """

    def __init__(self, table: OutboxTable, topics: tuple[str, ...], lease: float) -> None:
        self.table = table
        self.lease = lease
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{token_hex(8)}"
        self._topics = tuple(table.text(topic) for topic in topics)

    async def take(self, limit: int) -> list[Message]:
        """Take messages, of each key the first one that is not delivered.

        Args:
            limit: how many at most.

        Raises:
            StoreTableMissing: the table is not there.
            DatabaseError: what the database says; as all methods here.
        """
        values = {"limit": limit, "lease": self.lease, "new_worker": self.name}
        if not is_mysql(self.table.database.kind):
            rows = await self.table.fetch(("claim", self._topics), values)
            # RETURNING has no order.
            return [_message(row, int(row[5])) for row in sorted(rows, key=lambda row: int(row[0]))]

        async def call(connection: Connection) -> list[Row]:
            # Which messages are the first of their keys has to be seen at one moment. A SELECT that locks sees each
            # row as it is by then, and rows that were committed meanwhile: perhaps the second message of a key, and
            # not the first. So it is seen first, and then locked what is still to be had: whoever is the first of a
            # key stays it. At READ COMMITTED no gaps are locked, into which others insert.
            begin = ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION")
            async with all_or_nothing(connection, *begin):
                due = self.table.compiled(("due", self._topics))
                found = await connection.fetch(due.sql, due.parameters(values))
                if not found:
                    return []
                lock = self.table.compiled(("lock", len(found)))
                numbers = {f"at{place}": row[0] for place, row in enumerate(found)}
                locked = await connection.fetch(lock.sql, lock.parameters(numbers))
                if locked:
                    taking = self.table.compiled(("take",))
                    each = [taking.parameters({**values, "at": row[0]}) for row in locked]
                    await connection.execute_many(taking.sql, each)
            return locked

        rows = await self.table.run(call, name="claim")
        return [_message(row, int(row[5]) + 1) for row in sorted(rows, key=lambda row: int(row[0]))]

    async def renew(self, number: int) -> bool:
        """Begin the lease of a message anew; whether it was not lost."""
        return await self._change("renew", number, {"lease": self.lease})

    async def delivered(self, number: int, keep: float) -> bool:
        """Note that a message is delivered, and is kept for so many seconds; whether it was not lost."""
        return await self._change("delivered", number, {"keep": keep})

    async def failed(self, number: int, error: str, pause: float) -> bool:
        """Note that a message failed, and is tried again after so many seconds; whether it was not lost."""
        return await self._change("failed", number, {"new_error": _kept(error), "pause": pause})

    async def died(self, number: int, error: str) -> bool:
        """Note that a message failed for the last time; whether it was not lost."""
        return await self._change("died", number, {"new_error": _kept(error)})

    async def give_back(self) -> int:
        """Give back all that this worker has, as if it had not been taken; how many."""
        return await self.table.execute(("give_back",), {"by": self.name})

    async def _change(self, name: str, number: int, values: dict[str, Any]) -> bool:
        return await self.table.execute((name,), {"at": number, "by": self.name, **values}) == 1


def _message(row: Row, attempt: int) -> Message:
    number, topic, key, payload, data, _, created = row
    return Message(
        id=number,
        topic=bytes(topic).decode() if isinstance(topic, bytes | bytearray) else topic,
        key=bytes(key).decode() if isinstance(key, bytes | bytearray) else key,
        payload=bytes(data) if payload is None else msgspec.json.decode(payload),
        attempt=attempt,
        created=created,
    )


def _kept(error: str) -> str:
    """As much of an error as is kept; what no text of a database takes is replaced."""
    return error[:MAX_ERROR].replace("\0", "\\0").encode(errors="replace").decode()
