"""Changing rows in batches, each a short transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from covet_migrate.exceptions import MigrationError
from covet_migrate.execution.data import Pace
from covet_migrate.execution.key_ranges import KeyRanges, held
from covet_orm.deferred import sqlalchemy
from covet_orm.dialects import compile_statement
from covet_orm.exceptions import QueryError

__all__ = ["fill_in_batches", "run_in_batches"]

FIRST = 500
"""Rows of the first batch, of which nobody knows how long it takes."""


async def fill_in_batches(table: sqlalchemy.Table, column: str, value: str, size: int, step: Any) -> None:
    """Give the rows of a table that have NULL in a column a value, in the order of their keys.

    A batch is a range of keys, found by the index of the key, and one UPDATE of it; it has as many rows as can be done
    in a moment. Cancelled, the batches before stay, and the next run goes on behind them.

    Args:
        table: the table.
        column: the name of the column.
        value: an expression of SQL.
        size: how many rows at a time are looked at, at the most.
        step: a `DataStep`.

    Raises:
        MigrationError: the table has no primary key.
    """
    if not table.primary_key.columns:
        raise MigrationError(f"{table.name} has no primary key, by which its rows could be taken in batches")
    ranges = KeyRanges(table, [column], step)
    empty = ranges.target.c[column].is_(None)
    change = sqlalchemy.update(ranges.target).where(empty).values({column: sqlalchemy.literal_column(value)})
    counting = sqlalchemy.select(sqlalchemy.func.count()).select_from(ranges.target).where(empty)
    left = (await ranges.query("left", counting, after=step.position))[0][0]
    step.total = step.done + left
    if not left:
        # Read without a lock; so it is most often when those are looked for that came while the others were filled.
        return
    pace = Pace(size, FIRST)
    ended = False
    while not ended:
        async with step.batch() as batch:
            upto, ended = await ranges.end(batch.position, pace.size)
            if upto is not None:
                position = held(upto)
                batch.rows = await ranges.execute("fill", change, after=batch.position, upto=position)
                batch.position = position
        pace.took(step.worked)


async def run_in_batches(label: str, sql: str, values: Mapping[str, Any], size: int, step: Any) -> None:
    """Run a statement for all rows of a model, a range of keys at a time.

    Cancelled, the batches before stay, and the next run goes on behind them.

    Args:
        label: the model.
        sql: the statement, with the parameters `:first` and `:last`: the keys of the range, both of them in it.
        values: its other parameters.
        size: how many rows a range has, at the most.
        step: a `DataStep`.

    Raises:
        MigrationError: the key has several columns, or the parameters are not those of the statement.
    """
    table = step.models[label].__table__
    ranges = KeyRanges(table, [], step)
    if len(ranges.keys) != 1:
        raise MigrationError(
            f"RunSQL(batched={label!r}): its key has {len(ranges.keys)} columns, and :first and :last are one; write "
            "RunPython(..., batched=...) for it"
        )
    compiled = compile_statement(sqlalchemy.text(sql), step.database.kind)
    counting = sqlalchemy.select(sqlalchemy.func.count()).select_from(ranges.target)
    step.total = step.done + (await ranges.query("left", counting, after=step.position, upto=step.until))[0][0]
    pace = Pace(size, FIRST)
    ended = False
    while not ended:
        async with step.batch() as batch:
            last, ended = await ranges.end(batch.position, pace.size, step.until)
            if last is not None:
                first = await ranges.first(batch.position)
                try:
                    parameters = compiled.parameters({**values, "first": first[0], "last": last[0]})
                except QueryError as error:
                    raise MigrationError(f"RunSQL: the parameters are not those of {sql:.200}: {error}") from error
                await step.database.execute(compiled.sql, parameters)
                batch.position = held(last)
                batch.rows = max(step.total - step.done, 0) if ended else pace.size
        pace.took(step.worked)
