"""What is lost by migrations, or by taking them back: tables and columns that go, and how many rows have something in
them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import (
    AddColumn,
    CreateTable,
    DropColumn,
    DropTable,
    Online,
    RenameColumn,
    RenameTable,
)
from covet_migrate.execution.stages import Stage
from covet_migrate.operations.base import Operation
from covet_migrate.operations.wrapping import Reviewed, Wrapping
from covet_orm import Database
from covet_orm.schema import table_names

__all__ = ["Loss", "losses"]

COUNTED = 1_000_000
"""Rows that are counted; beyond that it is told that there are more."""


@dataclass(frozen=True)
class Loss:
    """Something that goes, and the rows that have something there.

    Attributes:
        table: the table, by the name that it has now.
        column: the column, by the name that it has now; None for the whole table.
        rows: how many rows; `COUNTED` + 1 for more.
    """

    table: str
    column: str | None
    rows: int

    def __str__(self) -> str:
        what = f"the table {self.table}" if self.column is None else f"the column {self.table}.{self.column}"
        count = f"more than {COUNTED:,}" if self.rows > COUNTED else f"{self.rows:,}"
        words = "row" if self.rows == 1 else "rows"
        return f"{what} ({count} {words}{'' if self.column is None else ' with a value in it'})"


async def losses(database: Database, stages: Iterable[Stage]) -> list[Loss]:
    """What goes with the actions of some operations that is not empty, and of which nobody has said that it may go
    (`operations.Reviewed`).

    Args:
        database: where.
        stages: what is to be run, in order.
    """
    there = await table_names(database)
    tables: dict[str, str | None] = {}
    columns: dict[tuple[str, str], str | None] = {}
    gone: list[tuple[str, str | None]] = []
    for stage in stages:
        reviewed = _is_reviewed(stage)
        for action in _flat(stage.actions):
            if isinstance(action, RenameTable):
                tables[action.table.name] = tables.pop(action.before.name, action.before.name)
                for (table, column), now in list(columns.items()):
                    if table == action.before.name:
                        columns[action.table.name, column] = now
            elif isinstance(action, CreateTable):
                # It is not there yet, so that nothing is in it.
                tables[action.table.name] = None
            elif isinstance(action, RenameColumn):
                table = action.table.name
                columns[table, action.after] = columns.pop((table, action.before), action.before)
            elif isinstance(action, AddColumn):
                columns[action.table.name, action.column.name] = None
            elif isinstance(action, (DropTable, DropColumn)) and not reviewed:
                name = tables.get(action.table.name, action.table.name)
                if name is None or name not in there:
                    continue
                if isinstance(action, DropTable):
                    gone.append((name, None))
                elif action.column.computed is None:
                    column = action.column.name
                    now = columns.get((action.table.name, column), column)
                    # One that comes on the way has nothing in it.
                    gone += [] if now is None else [(name, now)]
    dropped = {table for table, column in gone if column is None}
    counted = [
        Loss(table, column, await _count(database, table, column))
        for table, column in dict.fromkeys(gone)
        if column is None or table not in dropped
    ]
    return [loss for loss in counted if loss.rows]


def _is_reviewed(stage: Stage) -> bool:
    """Whether somebody has looked at what an operation does: forward, that is."""
    operation: Operation = stage.operation
    while isinstance(operation, Wrapping):
        if isinstance(operation, Reviewed):
            return not stage.change.backward
        operation = operation.operation
    return False


def _flat(actions: Iterable[Any]) -> Iterator[Any]:
    """Actions, those that are done online as well."""
    for action in actions:
        if isinstance(action, Online):
            yield from _flat(action.actions)
        else:
            yield action


async def _count(database: Database, table: str, column: str | None) -> int:
    one: Any = sqlalchemy.table(table)
    wanted: Any = sqlalchemy.select(sqlalchemy.literal_column("1").label("one")).select_from(one)
    if column is not None:
        wanted = wanted.where(sqlalchemy.column(column).is_not(None))
    few = wanted.limit(COUNTED + 1).subquery()
    return int(await database.fetch_value(sqlalchemy.select(sqlalchemy.func.count()).select_from(few)))
