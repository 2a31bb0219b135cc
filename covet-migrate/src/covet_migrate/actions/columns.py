"""Columns like others, and what columns hold."""

from __future__ import annotations

from typing import Any

from covet_orm.deferred import sqlalchemy

__all__ = ["alone", "form_of_time"]


def alone(column: sqlalchemy.Column[Any], default: Any, *, nullable: bool | None = None) -> sqlalchemy.Column[Any]:
    """A column that is declared as another one, with another default, and perhaps NULL."""
    made: sqlalchemy.Column[Any] = sqlalchemy.Column(
        column.name,
        column.type,
        nullable=bool(column.nullable) if nullable is None else nullable,
        comment=column.comment,
        server_default=default,
        autoincrement=False,
    )
    sqlalchemy.Table(column.table.name, sqlalchemy.MetaData(), made)
    return made


def form_of_time(column: sqlalchemy.Column[Any]) -> str | None:
    """What a column of days and times holds: `day`, `time`, which has no zone, or `instant`; None for every other.

    For SQLite all of them are text.
    """
    kind = column.type
    if isinstance(kind, sqlalchemy.DateTime):
        return "instant" if kind.timezone else "time"
    return "day" if isinstance(kind, sqlalchemy.Date) else None
