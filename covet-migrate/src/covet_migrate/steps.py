"""What is done in a database, one after the other: what the actions of a migration become for one database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from covet_migrate.actions.actions import Action
from covet_orm.deferred import sqlalchemy

__all__ = ["Call", "RebuildTable", "Statement", "Step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is done.

    Attributes:
        action: what it is done for, or a part of.
        transactional: whether it may be done inside of a transaction.
    """

    action: Action | None = None
    transactional: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement(Step):
    """A statement.

    Attributes:
        sql: its text, in the placeholders of the driver.
        params: the values of the placeholders. Without any, the text is sent as it is.
    """

    sql: str
    params: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildTable(Step):
    """Make a table anew and copy its rows (SQLite), with what belongs to it: row ids, indexes, triggers, and the views
    and foreign keys that name it.

    Attributes:
        before: the table as it is: its columns.
        after: the table as it is to be.
        columns: the columns of the new table that get something, each with the SQL expression, of columns of the old
            one, that it gets.
        actions: all that it is done for.
    """

    before: sqlalchemy.Table
    after: sqlalchemy.Table
    columns: Mapping[str, str] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Step):
    """Call a function of the author's, which moves data.

    Attributes:
        function: the function.
        name: what it is called, for people and for the journal.
    """

    function: Callable[..., Awaitable[object]]
    name: str
