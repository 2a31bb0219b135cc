"""The table of the cache backend `database`, and its statements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    case,
    cast,
    delete,
    func,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from covet_orm.expiry import ExpiringStatements

__all__ = ["COLUMNS", "TAKEN", "CacheStatements", "define_cache"]

# Four bytes for each of 250 characters.
KEY_BYTES = 1000
REPLACED = 1
TAKEN = 2
"""What `add` and `increment` tell through the server's last_insert_id() of a value that stays (MySQL, MariaDB)."""
COLUMNS = ("value", "size", "expires")
"""The columns beside the key."""
# Numbers that a server adds to without a look whether they fit into 64 bits.
PLAIN_NUMBER = "^(0|-?[1-9][0-9]{0,17})"


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

    def increment(self) -> ClauseElement:
        """Begin a counter, or add to the one that is there; what it is then. One that is no plain number, or would be
        beyond `low` and `high`, stays, and nothing is told."""
        c = self.table.c
        by, low, high = (self._parameter(name, c.size) for name in ("by", "low", "high"))
        over = c.expires <= self._parameter("now", c.expires)
        values = {name: self._parameter(name, c[name]) for name in ("key", *COLUMNS)}
        if self.kind in ("mysql", "mariadb"):
            begun = mysql.insert(self.table).values(values)
            number: ColumnElement[Any] = cast(c.value, BigInteger)
            stays = case((func.last_insert_id(TAKEN) == TAKEN, c.value))
            value = case(
                (over, _told(by)),
                (c.value.op("NOT REGEXP", is_comparison=True)(PLAIN_NUMBER + r"\z"), stays),
                (number.between(low, high), _told(number + by)),
                else_=stays,
            )
            kept = [(name, case((over, begun.inserted[name]), else_=c[name])) for name in COLUMNS[1:]]
            return begun.on_duplicate_key_update([("value", value), *kept])
        if self.kind == "postgresql":
            text: ColumnElement[Any] = func.encode(c.value, "escape")
            number = cast(text, BigInteger)
            # In an AND, the server chooses what it asks first.
            plain = text.op("~", is_comparison=True)(PLAIN_NUMBER + r"\Z")
            fits: ColumnElement[bool] = case((plain, number.between(low, high)), else_=False)
            added: ColumnElement[Any] = func.convert_to(cast(number + by, Text), "UTF8")
            insert: Any = postgresql.insert(self.table).values(values)
        else:
            number = cast(cast(c.value, Text), BigInteger)
            fits = (cast(cast(number, Text), LargeBinary) == c.value) & number.between(low, high)
            added = cast(cast(number + by, Text), LargeBinary)
            insert = sqlite.insert(self.table).values(values)
        new = {name: case((over, insert.excluded[name]), else_=c[name]) for name in COLUMNS[1:]}
        new["value"] = case((over, insert.excluded.value), else_=added)
        counted = insert.on_conflict_do_update(index_elements=[c.key], set_=new, where=over | fits)
        return counted.returning(c.value)  # type: ignore[no-any-return]

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

    def clear(self, bounded: bool, limit: int | None) -> ClauseElement:
        """Remove values whose keys are in a range, which may have no end; all of them, or so many."""
        c = self.table.c
        within = [c.key >= self._parameter("begin", c.key)]
        if bounded:
            within.append(c.key < self._parameter("end", c.key))
        if limit is None:
            return delete(self.table).where(*within)
        if self.kind in ("mysql", "mariadb"):
            return delete(self.table).where(*within).with_dialect_options(mysql_limit=limit, mariadb_limit=limit)
        return delete(self.table).where(c.key.in_(select(c.key).where(*within).limit(limit)))

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


def _told(number: ColumnElement[Any]) -> ColumnElement[Any]:
    """A number as the value of a counter, of which the server's last_insert_id() tells (MySQL, MariaDB)."""
    return cast(cast(func.last_insert_id(number), BigInteger), mysql.CHAR())
