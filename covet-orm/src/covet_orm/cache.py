"""The cache backend `database`: values in a table, shared by all processes that use the database."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy
from anyio.lowlevel import checkpoint
from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, Table, bindparam, case, delete, func, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from covet_orm.databases import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.expiry import EVER, ExpiringStatements, Expiry, Start
from covet_orm.store_tables import StoreTable, all_or_nothing

__all__ = ["DatabaseCache"]

NUMBER = re.compile(rb"-?[0-9]{1,19}")
# Four bytes for each of 250 characters.
KEY_BYTES = 1000
# Bytes that a row takes beside key and value, about, on PostgreSQL, with its share of the indexes.
ROW_BYTES = 100
# How many keys or rows one statement is made for; beside the last one, the next larger is taken.
SIZES = (1, 4, 16, 64, 256, 1024)
# Bytes of values that one statement carries, on MySQL, whose statements have a limit.
MOST_BYTES = 500_000
# How many rows `clear` removes at once: what takes a fraction of a second.
CLEARED = 10_000
# What `add` tells through the server's last_insert_id(), on MySQL and MariaDB.
REPLACED, TAKEN = 1, 2
COLUMNS = ("value", "size", "expires")


class CacheStatements(ExpiringStatements):
    """The statements of `DatabaseCache`."""

    def get(self) -> ClauseElement:
        """A value by its key."""
        return select(self.table.c.value).where(*self._alive())

    def get_many(self, size: int) -> ClauseElement:
        """Keys and values."""
        c = self.table.c
        return select(c.key, c.value).where(self._keys(size), c.expires > self._parameter("now", c.expires))

    def put(self, size: int) -> ClauseElement:
        """Insert values, or put them in the place of others; for a size of 0, those of arrays (PostgreSQL)."""
        c = self.table.c
        mysql_kind = self.kind in ("mysql", "mariadb")
        if size == 0:
            arrays = [
                func.unnest(bindparam(f"{name}s", type_=postgresql.ARRAY(c[name].type), required=True))
                for name in ("key", "value", "size")
            ]
            rows = select(*arrays, self._parameter("expires", c.expires))
            insert: Any = postgresql.insert(self.table).from_select(["key", *COLUMNS], rows)
        else:
            dialect: Any = mysql if mysql_kind else postgresql if self.kind == "postgresql" else sqlite
            made = dialect.insert(self.table)
            insert = made.values(
                [
                    {
                        "expires": self._parameter("expires", c.expires),
                        **{n: self._parameter(f"{n}_{row}", c[n]) for n in ("key", "value", "size")},
                    }
                    for row in range(size)
                ]
            )
        if mysql_kind:
            return insert.on_duplicate_key_update({n: insert.inserted[n] for n in COLUMNS})  # type: ignore[no-any-return]
        new = {name: insert.excluded[name] for name in COLUMNS}
        return insert.on_conflict_do_update(index_elements=[c.key], set_=new)  # type: ignore[no-any-return]

    def add(self) -> ClauseElement:
        """Insert a value, or put it in the place of one that has expired."""
        c = self.table.c
        values = {name: self._parameter(name, c[name]) for name in ("key", *COLUMNS)}
        over = c.expires <= self._parameter("now", c.expires)
        if self.kind in ("mysql", "mariadb"):
            # The number of rows does not tell one that was inserted from one that stayed.
            maria = mysql.insert(self.table).values(values)
            told = func.last_insert_id(case((over, REPLACED), else_=TAKEN))
            put: list[tuple[str, Any]] = [("value", case((told == REPLACED, maria.inserted.value), else_=c.value))]
            put += [(n, case((over, maria.inserted[n]), else_=c[n])) for n in COLUMNS[1:]]
            return maria.on_duplicate_key_update(put)
        insert: Any = (postgresql if self.kind == "postgresql" else sqlite).insert(self.table).values(values)
        new = {name: insert.excluded[name] for name in COLUMNS}
        return insert.on_conflict_do_update(index_elements=[c.key], set_=new, where=over)  # type: ignore[no-any-return]

    def swap(self) -> ClauseElement:
        """Put a value in the place of one that is as expected."""
        return self._swap(COLUMNS)

    def count(self) -> ClauseElement:
        """The same, and the time stays."""
        return self._swap(COLUMNS[:2])

    def touch(self) -> ClauseElement:
        """Give a value a new time."""
        return sqlalchemy.update(self.table).values(self._new(["expires"])).where(*self._alive())

    def delete(self, size: int) -> ClauseElement:
        """Remove values by their keys."""
        c = self.table.c
        return delete(self.table).where(self._keys(size), c.expires > self._parameter("now", c.expires))

    def clear(self, bounded: bool, limited: bool) -> ClauseElement:
        """Remove values whose keys are in a range, which may have no end; all of them, or so many."""
        c = self.table.c
        within = [c.key >= self._parameter("begin", c.key)]
        if bounded:
            within.append(c.key < self._parameter("end", c.key))
        if not limited:
            return delete(self.table).where(*within)
        if self.kind in ("mysql", "mariadb"):
            return delete(self.table).where(*within).with_dialect_options(mysql_limit=CLEARED, mariadb_limit=CLEARED)
        return delete(self.table).where(c.key.in_(select(c.key).where(*within).limit(CLEARED)))

    def measure(self) -> ClauseElement:
        """The bytes of all values, keys and rows."""
        c = self.table.c
        return select(func.coalesce(func.sum(c.size), 0))

    def _alive(self) -> list[Any]:
        c = self.table.c
        return [c.key == self._parameter("at", c.key), c.expires > self._parameter("now", c.expires)]

    def _keys(self, size: int) -> Any:
        c = self.table.c
        if size == 1:
            return c.key == self._parameter("key_0", c.key)
        if size == 0:
            return c.key == sqlalchemy.any_(bindparam("keys", type_=postgresql.ARRAY(c.key.type), required=True))
        return c.key.in_([self._parameter(f"key_{number}", c.key) for number in range(size)])

    def _swap(self, columns: Iterable[str]) -> ClauseElement:
        expected = self.table.c.value == self._parameter("expected", self.table.c.value)
        return sqlalchemy.update(self.table).values(self._new(columns)).where(*self._alive(), expected)

    def _new(self, columns: Iterable[str]) -> dict[str, Any]:
        return {name: self._parameter(f"new_{name}", self.table.c[name]) for name in columns}

    def _parameter(self, name: str, column: Any) -> Any:
        return bindparam(name, type_=column.type, required=True)


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

        def define(name: str, kind: str) -> Table:
            return define_cache(name, kind, unlogged=unlogged)

        self.table = StoreTable(database, table, CacheStatements, define, what="a cache", create=create_table)
        self.max_value_bytes = max_value_bytes
        self._clock = clock
        self._expiry = Expiry(self.table, clock, max_bytes=max_bytes, start=start)
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

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
        number = await self._increment(key, by, ttl)
        if number is not None:
            return number
        # Somebody else counts at the same time. Those of this process do it one after the other from here.
        lock, users = self._turns.get(key) or (asyncio.Lock(), 0)
        self._turns[key] = (lock, users + 1)
        try:
            async with lock:
                while (number := await self._increment(key, by, ttl)) is None:
                    await checkpoint()
                return number
        finally:
            lock, users = self._turns.pop(key)
            if users > 1:
                self._turns[key] = (lock, users - 1)

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
        while await self.table.execute(("clear", end is not None, True), values) >= CLEARED:
            await checkpoint()
        # A batch is smaller also where somebody else removed some of it meanwhile.
        await self.table.execute(("clear", end is not None, False), values)

    async def _increment(self, key: str, by: int, ttl: float | None) -> int | None:
        """The number, or None where somebody else came between reading and replacing it."""
        found = await self.get(key)
        if found is not None and not NUMBER.fullmatch(found):
            raise ValueError(f"the value of {key!r} is no number: {found[:40]!r}")
        number = int(found or b"0") + by
        if not -(2**63) <= number < 2**63:
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
            async with all_or_nothing(connection, self.table.database.begin_statement(read_only=False)):
                for name, values in statements:
                    compiled = self.table.compiled(name)
                    changed += await connection.execute(compiled.sql, compiled.parameters(values))
            return changed

        return await self.table.run(call)

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


def define_cache(name: str, kind: str, *, unlogged: bool = False) -> Table:
    """The table of a cache. A key is the bytes of a text, so that no collation has an opinion on which are the same."""
    mysql_kind = kind in ("mysql", "mariadb")
    key: Any = mysql.VARBINARY(KEY_BYTES) if mysql_kind else LargeBinary()
    value: Any = mysql.LONGBLOB() if mysql_kind else LargeBinary()
    return Table(
        name,
        MetaData(),
        Column("key", key, primary_key=True),
        Column("value", value, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("expires", sqlalchemy.Double(), nullable=False),
        # With the size, so that the table itself need not be read to measure it.
        Index(f"{name}_expires", "expires", "size"),
        prefixes=["UNLOGGED"] if unlogged and kind == "postgresql" else [],
        mysql_engine="InnoDB",
        mysql_row_format="DYNAMIC",
        mariadb_engine="InnoDB",
        mariadb_row_format="DYNAMIC",
        sqlite_with_rowid=False,
    )


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ROW_BYTES


def _new(value: bytes, size: int) -> dict[str, Any]:
    return {"new_value": value, "new_size": size}


def _after(prefix: bytes) -> bytes | None:
    """The first bytes after all that begin with a prefix; None where there are none."""
    shortened = prefix.rstrip(b"\xff")
    return shortened[:-1] + bytes([shortened[-1] + 1]) if shortened else None
