"""Ranges of primary keys: how rows are taken in batches without an OFFSET that grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from covet_orm.deferred import sqlalchemy
from covet_orm.dialects import Compiled, compile_statement

__all__ = ["KeyRanges", "held"]

Key = list[Any]
"""The values of a key, as JSON holds them."""


class KeyRanges:
    """The rows of a table in the order of its primary key.

    Statements are compiled once, not for every range.

    Args:
        table: the table.
        columns: names of others of its columns that statements are about.
        step: a `DataStep`; statements are run in the transaction around, if there is one.

    Attributes:
        target: the table with its key and these columns.
        keys: the columns of the key, of the table as it is given.
    """

    def __init__(self, table: sqlalchemy.Table, columns: Sequence[str], step: Any) -> None:
        self.keys = list(table.primary_key.columns)
        chosen = {one.name: one for one in (*self.keys, *(table.c[name] for name in columns))}
        self.target = sqlalchemy.table(
            table.name, *(sqlalchemy.column(name, one.type) for name, one in chosen.items()), schema=table.schema
        )
        self._database = step.database
        self._kind = step.database.kind
        self._order = [self.target.c[one.name] for one in self.keys]
        self._compiled: dict[tuple[str, bool, bool], Compiled] = {}

    async def end(self, after: Key | None, size: int, upto: Key | None = None) -> tuple[Sequence[Any] | None, bool]:
        """The key of the row that is so many behind a key, of the last one where there are fewer, None where there is
        none; and whether it is the last one. As the driver gives it; `held` makes a position of it.

        Args:
            after: the key; None for before the first.
            size: how many.
            upto: no row behind this one.
        """
        found = sqlalchemy.select(*self._order).order_by(*self._order)
        found = found.offset(sqlalchemy.bindparam("skipped", type_=sqlalchemy.Integer())).limit(1)
        rows = await self.query("end", found, after=after, upto=upto, skipped=size - 1)
        if rows:
            return rows[0], False
        found = sqlalchemy.select(*self._order).order_by(*(one.desc() for one in self._order)).limit(1)
        rows = await self.query("last", found, after=after, upto=upto)
        return rows[0] if rows else None, True

    async def first(self, after: Key | None) -> Sequence[Any]:
        """The key of the first row behind a key, where there is one; as the driver gives it."""
        found = sqlalchemy.select(*self._order).order_by(*self._order).limit(1)
        return (await self.query("first", found, after=after))[0]

    async def query(
        self, name: str, statement: Any, *, after: Key | None = None, upto: Key | None = None, **values: Any
    ) -> Sequence[Sequence[Any]]:
        """The rows of a select, of those of a range.

        Args:
            name: by which the statement is known.
            statement: the select.
            after: the rows behind this key.
            upto: the rows up to this key.
            values: of the parameters of the statement.
        """
        compiled, given = self._of_range(name, statement, after, upto)
        rows: Sequence[Sequence[Any]] = (
            await self._database.query(compiled.sql, compiled.parameters({**given, **values}))
        ).rows
        return rows

    async def execute(self, name: str, statement: Any, *, after: Key | None = None, upto: Key | None = None) -> int:
        """How many rows of a range a statement changed; arguments as of `query`."""
        compiled, given = self._of_range(name, statement, after, upto)
        changed: int = await self._database.execute(compiled.sql, compiled.parameters(given))
        return changed

    def _of_range(
        self, name: str, statement: Any, after: Key | None, upto: Key | None
    ) -> tuple[Compiled, Mapping[str, Any]]:
        known = (name, after is not None, upto is not None)
        if known not in self._compiled:
            where = [
                self._beyond(side, key, beyond)
                for side, key, beyond in (("after", after, True), ("upto", upto, False))
                if key is not None
            ]
            self._compiled[known] = compile_statement(statement.where(*where), self._kind)
        given = {
            f"{side}{number}": _value_of(value)
            for side, key in (("after", after), ("upto", upto))
            for number, value in enumerate(key or ())
        }
        return self._compiled[known], given

    def _beyond(self, side: str, key: Key, beyond: bool) -> Any:
        """Whether the key of a row is beyond one, or is not."""
        parts = [
            _parameter(f"{side}{number}", value, one, self._kind)
            for number, (value, one) in enumerate(zip(key, self.keys, strict=True))
        ]
        if len(parts) == 1:
            return self._order[0] > parts[0] if beyond else self._order[0] <= parts[0]
        if self._kind in ("postgresql", "sqlite"):
            mine, other = sqlalchemy.tuple_(*self._order), sqlalchemy.tuple_(*parts)
            return mine > other if beyond else mine <= other
        # MySQL and MariaDB find no range of an index by a comparison of rows.
        found: Any = None
        for column, part in reversed(list(zip(self._order, parts, strict=True))):
            past = column > part if beyond else column < part
            if found is None:
                found = past if beyond else column <= part
            else:
                found = sqlalchemy.or_(past, sqlalchemy.and_(column == part, found))
        return found


def held(key: Sequence[Any]) -> Key:
    """A key as JSON holds it."""
    return [_holdable(one) for one in key]


def _holdable(value: Any) -> Any:
    if isinstance(value, (int, str)):
        return value
    return {"hex": bytes(value).hex()} if isinstance(value, (bytes, bytearray, memoryview)) else {"text": str(value)}


def _value_of(held: Any) -> Any:
    """What a driver takes for a part of a key that JSON held."""
    if not isinstance(held, dict):
        return held
    return bytes.fromhex(held["hex"]) if "hex" in held else held["text"]


def _parameter(name: str, value: Any, key: sqlalchemy.Column[Any], kind: str) -> Any:
    """The parameter for a part of a key."""
    if isinstance(value, dict) and "hex" in value:
        return sqlalchemy.bindparam(name, type_=sqlalchemy.LargeBinary())
    if isinstance(value, dict):
        text = sqlalchemy.bindparam(name, type_=sqlalchemy.Text())
        return sqlalchemy.cast(sqlalchemy.cast(text, sqlalchemy.Text()), key.type) if kind == "postgresql" else text
    return sqlalchemy.bindparam(name, type_=sqlalchemy.BigInteger() if isinstance(value, int) else sqlalchemy.Text())
