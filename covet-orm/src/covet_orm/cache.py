"""The cache backend `database`: values in a table, shared by all processes that use the database."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy
from anyio.lowlevel import checkpoint

from covet_orm.cache_table import TAKEN, CacheStatements, define_cache
from covet_orm.databases import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.expiry import EVER, Expiry, Start
from covet_orm.store_tables import StoreTable, all_or_nothing
from covet_orm.transactions.options import begin_statement

__all__ = ["DatabaseCache"]

NUMBER = re.compile(rb"-?[0-9]{1,19}")
LEAST, MOST = -(2**63), 2**63 - 1
# Bytes of the longest number.
NUMBER_BYTES = 20
# Bytes that a row takes beside key and value, about, on PostgreSQL, with its share of the indexes.
ROW_BYTES = 100
# How many keys or rows one statement is made for; beside the last one, the next larger is taken.
SIZES = (1, 4, 16, 64, 256, 1024)
# Bytes of values that one statement carries, on MySQL, whose statements have a limit.
MOST_BYTES = 500_000
# How many rows `clear` removes at once: what takes a fraction of a second.
CLEARED = 10_000


class DatabaseCache:
    """A cache backend in a table of a database: PostgreSQL, MySQL, MariaDB or SQLite.

    Each method is one statement, outside of the transaction that the caller may be in (see `covet_orm.store_tables`).
    What expired is removed in batches, with the writes; so is, where the table is beyond `max_bytes`, what would expire
    next.

    Args:
        database: where.
        table: the name of the table.
        create_table: whether it is made when it is missing.
        unlogged: whether it is made as an UNLOGGED table (PostgreSQL): writes cost less, replicas do not have it, and
            after a crash of the server it is empty.
        max_bytes: bytes of keys, values and rows that are kept, about; None for no limit.
        max_value_bytes: bytes of the largest value that is kept.
        clock: gives the time, in seconds since the epoch. Processes that share a table have about the same.
        start: starts work beside the caller's, such as the removal of what expired; without, a caller does it now and
            then.

    Raises:
        ConfigurationError: the table's name is none.
        ValueError: a limit is not above 0.

    Its methods raise `StoreTableMissing` where the table is not there, and `DatabaseError` where the database fails.
    """

    shared = True

    def __init__(
        self,
        database: Database,
        *,
        table: str = "covet_cache",
        create_table: bool = False,
        unlogged: bool = False,
        max_bytes: int | None = 256 * 2**20,
        max_value_bytes: int = 4 * 2**20,
        clock: Callable[[], float] = time.time,
        start: Start | None = None,
    ) -> None:
        if max_value_bytes < 1 or (max_bytes is not None and max_bytes < 1):
            raise ValueError(f"max_bytes and max_value_bytes are above 0, not {max_bytes} and {max_value_bytes}")

        def define(name: str, kind: str) -> sqlalchemy.Table:
            return define_cache(name, kind, unlogged=unlogged)

        self.table = StoreTable(database, table, CacheStatements, define, what="a cache", create=create_table)
        self.max_value_bytes = max_value_bytes
        self._clock = clock
        self._expiry = Expiry(self.table, clock, max_bytes=max_bytes, start=start)

    def __repr__(self) -> str:
        return f"<DatabaseCache {self.table.name} of {self.table.database.alias}>"

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        rows = await self.table.fetch(("get",), {"at": key.encode(), "now": self._clock()}, reads=True)
        return rows[0][0] if rows else None

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values that are there, by key."""
        found: dict[str, bytes] = {}
        now = self._clock()
        for chunk in self._chunks([key.encode() for key in keys]):
            name, values = self._of_keys("get_many", chunk)
            rows = await self.table.fetch(name, {"now": now, **values}, reads=True)
            found.update((bytes(row[0]).decode(), row[1]) for row in rows)
        return found

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """Keep a value, in place of any other."""
        await self.set_many({key: value}, ttl)

    async def set_many(self, values: Mapping[str, bytes], ttl: float | None) -> None:
        """Keep values, in place of any others: all of them or none."""
        # In one order for all, so that two who write the same keys do not wait for each other.
        rows = sorted((key.encode(), value) for key, value in values.items() if self._fits(value))
        chunks = self._row_chunks(rows)
        expires = self._expires(ttl)
        unfit = [key.encode() for key, value in values.items() if not self._fits(value)]
        if len(chunks) + len(unfit) == 1:
            if chunks:
                await self.table.execute(*self._put(chunks[0], expires))
            else:
                await self.table.execute(("remove_key",), {"at": unfit[0]})
        elif values:
            statements = [self._put(chunk, expires) for chunk in chunks]
            await self._together([*statements, *((("remove_key",), {"at": key}) for key in unfit)])
        await self._expiry.written(len(rows), sum(_size(key, value) for key, value in rows))

    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Keep a value unless there is one; whether it was kept."""
        return await self.compare_and_set(key, None, value, ttl)

    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        """Keep a value if the present one is `expected`, None being none; whether it was kept."""
        at, now, expires = key.encode(), self._clock(), self._expires(ttl)
        size = _size(at, value)
        if not self._fits(value):
            # Kept for no time: what was there is gone.
            value, expires, size = b"", now, _size(at, b"")
        if expected is None:
            values = {"key": at, "value": value, "size": size, "expires": expires, "now": now}
            told = await self.table.insert(("add",), values)
            mysql_kind = self.table.database.kind in ("mysql", "mariadb")
            kept = told.last_id != TAKEN if mysql_kind else told.changed == 1
        else:
            values = {"at": at, "expected": expected, "now": now, **_new(value, size), "new_expires": expires}
            kept = await self.table.execute(("swap",), values) == 1
        if kept:
            await self._expiry.written(1, size)
        return kept

    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        """Add to a counter, which begins at 0, and return it. `ttl` counts when it begins; later it stays.

        Raises:
            ValueError: the value that is there is no number, or would leave the range of 64 bits.
        """
        while True:
            number = await self._add(key, by, ttl)
            if number is None:
                number = await self._exchange(key, by, ttl)
            if number is not None:
                return number
            # Somebody else came between.
            await checkpoint()

    async def touch(self, key: str, ttl: float | None) -> bool:
        """Give a value a new time to live; whether there is one."""
        values = {"at": key.encode(), "now": self._clock(), "new_expires": self._expires(ttl)}
        return await self.table.execute(("touch",), values) == 1

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values; how many there were."""
        now = self._clock()
        statements = []
        for chunk in self._chunks(sorted(key.encode() for key in keys)):
            name, values = self._of_keys("delete", chunk)
            statements.append((name, {"now": now, **values}))
        if len(statements) == 1:
            return await self.table.execute(*statements[0])
        return await self._together(statements) if statements else 0

    async def clear(self, prefix: str = "") -> None:
        """Remove every value whose key begins with `prefix`, in batches.

        Cancelled, the batches that are done stay so: who calls again goes on where it ended.
        """
        begin = prefix.encode()
        end = _after(begin)
        values = {"begin": begin, "end": end}
        while await self.table.execute(("clear", end is not None, CLEARED), values) >= CLEARED:
            await checkpoint()
        # A batch is smaller also where somebody else removed some of it meanwhile.
        await self.table.execute(("clear", end is not None, None), values)

    async def _add(self, key: str, by: int, ttl: float | None) -> int | None:
        """The number, by one statement; None where it is left to `_exchange`, and nothing was changed."""
        # Where 0 is added, no row changes, and MySQL does not tell that from a counter that begins.
        if by == 0 or not LEAST <= by <= MOST:
            return None
        at, first = key.encode(), b"%d" % by
        now, size = self._clock(), _size(at, b" " * NUMBER_BYTES)
        values = {
            "key": at,
            "value": first,
            "size": size,
            "expires": self._expires(ttl) if self._fits(first) else now,
            "now": now,
            "by": by,
            "low": LEAST - min(by, 0),
            "high": MOST - max(by, 0),
        }
        if self.table.database.kind in ("mysql", "mariadb"):
            told = await self.table.insert(("increment",), values)
            if told.changed == 2:
                # An id has no sign.
                number = told.last_id or 0
                number -= 2**64 if number > MOST else 0
            elif told.last_id == TAKEN:
                return None
            else:
                number = by
        else:
            rows = await self.table.fetch(("increment",), values)
            if not rows:
                return None
            number = int(rows[0][0])
        if number == by:
            await self._expiry.written(1, size)
        return number

    async def _exchange(self, key: str, by: int, ttl: float | None) -> int | None:
        """The number, read and replaced; None where somebody else came between."""
        found = await self.get(key)
        if found is not None and not NUMBER.fullmatch(found):
            raise ValueError(f"the value of {key!r} is no number: {found[:40]!r}")
        number = int(found or b"0") + by
        if not LEAST <= number <= MOST:
            raise ValueError(f"{key!r} would be {number}, which has more than 64 bits")
        value = b"%d" % number
        if found is None:
            return number if await self.add(key, value, ttl) else None
        at = key.encode()
        values = {"at": at, "expected": found, "now": self._clock(), **_new(value, _size(at, value))}
        return number if await self.table.execute(("count",), values) == 1 else None

    async def _together(self, statements: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> int:
        """Run statements in one transaction; how many rows they changed."""

        async def call(connection: Connection) -> int:
            changed = 0
            async with all_or_nothing(connection, begin_statement(self.table.database.kind)):
                for name, values in statements:
                    compiled = self.table.compiled(name)
                    changed += await connection.execute(compiled.sql, compiled.parameters(values))
            return changed

        return await self.table.run(call, name=statements[0][0][0])

    def _put(self, rows: Sequence[tuple[bytes, bytes]], expires: float) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The statement that keeps some rows."""
        if self.table.database.kind == "postgresql" and len(rows) > 1:
            keys, values = [key for key, _ in rows], [value for _, value in rows]
            sizes = [_size(key, value) for key, value in rows]
            return ("put", 0), {"expires": expires, "keys": keys, "values": values, "sizes": sizes}
        parameters: dict[str, Any] = {"expires": expires}
        for number, (key, value) in enumerate(rows):
            parameters[f"key_{number}"] = key
            parameters[f"value_{number}"] = value
            parameters[f"size_{number}"] = _size(key, value)
        return ("put", len(rows)), parameters

    def _of_keys(self, name: str, keys: Sequence[bytes]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The statement of a name for some keys."""
        if self.table.database.kind == "postgresql" and len(keys) > 1:
            return (name, 0), {"keys": keys}
        size = next((size for size in SIZES if size >= len(keys)), len(keys))
        # The last one again and again.
        return (name, size), {f"key_{number}": keys[min(number, len(keys) - 1)] for number in range(size)}

    def _chunks(self, keys: Sequence[bytes]) -> list[Sequence[bytes]]:
        """Keys, so many at a time as one statement takes."""
        most = max(len(keys), 1) if self.table.database.kind == "postgresql" else SIZES[-1]
        return [keys[begin : begin + most] for begin in range(0, len(keys), most)]

    def _row_chunks(self, rows: Sequence[tuple[bytes, bytes]]) -> list[Sequence[tuple[bytes, bytes]]]:
        """Rows, so many at a time as one statement takes. Each number of them has a text of its own: there are few."""
        if self.table.database.kind == "postgresql":
            return [rows] if rows else []
        chunks: list[Sequence[tuple[bytes, bytes]]] = []
        begin = 0
        while begin < len(rows):
            chunk = rows[begin : begin + 1]
            for size in SIZES[1:-1]:
                more = rows[begin : begin + size]
                if len(more) < size or sum(_size(*row) for row in more) > MOST_BYTES:
                    break
                chunk = more
            chunks.append(chunk)
            begin += len(chunk)
        return chunks

    def _fits(self, value: bytes) -> bool:
        return len(value) <= self.max_value_bytes

    def _expires(self, ttl: float | None) -> float:
        return EVER if ttl is None else self._clock() + ttl


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ROW_BYTES


def _new(value: bytes, size: int) -> dict[str, Any]:
    return {"new_value": value, "new_size": size}


def _after(prefix: bytes) -> bytes | None:
    """The first bytes after all that begin with a prefix; None where there are none."""
    shortened = prefix.rstrip(b"\xff")
    return shortened[:-1] + bytes([shortened[-1] + 1]) if shortened else None
