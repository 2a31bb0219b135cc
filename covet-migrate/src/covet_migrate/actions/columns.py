"""Columns like others."""

from __future__ import annotations

from typing import Any

import sqlalchemy

__all__ = ["alone"]


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
