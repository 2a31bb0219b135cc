"""Giving rows a value in batches, each a short transaction."""

from __future__ import annotations

from typing import Any

import sqlalchemy

from covet_migrate.exceptions import MigrationError

__all__ = ["fill_in_batches"]


async def fill_in_batches(table: sqlalchemy.Table, column: str, value: str, size: int, step: Any) -> None:
    """Give the rows of a table that have NULL in a column a value, in the order of their keys.

    Cancelled, the batches before stay, and the next run goes on behind them.

    Args:
        table: the table.
        column: the name of the column.
        value: an expression of SQL.
        size: how many rows at a time are looked at.
        step: a `DataStep`.

    Raises:
        MigrationError: the table has no primary key.
    """
    keys = list(table.primary_key.columns)
    if not keys:
        raise MigrationError(f"{table.name} has no primary key, by which its rows could be taken in batches")
    target = sqlalchemy.table(table.name, *(sqlalchemy.column(one.name, one.type) for one in (*keys, table.c[column])))
    key: Any = sqlalchemy.tuple_(*(target.c[one.name] for one in keys)) if len(keys) > 1 else target.c[keys[0].name]
    order = [target.c[one.name] for one in keys]
    kind = step.database.kind
    ended = False
    step.total = step.done + (await step.database.query(_counting(target, column))).rows[0][0]
    while not ended:
        async with step.batch() as batch:
            behind = [] if batch.position is None else [key > _bound(batch.position, keys, kind)]
            last = sqlalchemy.select(*order).where(*behind).order_by(*order).offset(size - 1).limit(1)
            rows = (await step.database.query(last)).rows
            ended = not rows
            within = behind
            position = batch.position
            if rows:
                position = [_held(one) for one in rows[0]]
                within = [*behind, key <= _bound(position, keys, kind)]
            change = (
                sqlalchemy.update(target)
                .where(*within, target.c[column].is_(None))
                .values({column: sqlalchemy.literal_column(value)})
            )
            batch.rows = await step.database.execute(change)
            batch.position = position


def _counting(target: sqlalchemy.TableClause, column: str) -> Any:
    return sqlalchemy.select(sqlalchemy.func.count()).select_from(target).where(target.c[column].is_(None))


def _held(value: Any) -> Any:
    """A part of a key as JSON holds it."""
    if isinstance(value, (int, str)):
        return value
    return {"hex": bytes(value).hex()} if isinstance(value, (bytes, bytearray, memoryview)) else {"text": str(value)}


def _bound(position: list[Any], keys: list[sqlalchemy.Column[Any]], kind: str) -> Any:
    """A key as a part of a statement."""
    parts = [_part(value, key, kind) for value, key in zip(position, keys, strict=True)]
    return sqlalchemy.tuple_(*parts) if len(parts) > 1 else parts[0]


def _part(value: Any, key: sqlalchemy.Column[Any], kind: str) -> Any:
    if isinstance(value, dict) and "hex" in value:
        return sqlalchemy.bindparam(None, bytes.fromhex(value["hex"]), type_=sqlalchemy.LargeBinary())
    if isinstance(value, dict):
        text = sqlalchemy.bindparam(None, value["text"], type_=sqlalchemy.Text())
        return sqlalchemy.cast(sqlalchemy.cast(text, sqlalchemy.Text()), key.type) if kind == "postgresql" else text
    whole = isinstance(value, int)
    return sqlalchemy.bindparam(None, value, type_=sqlalchemy.BigInteger() if whole else sqlalchemy.Text())
