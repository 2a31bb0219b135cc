"""Tables that are there as SQLAlchemy has them, for the actions that change them."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import literal_column
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.types import UserDefinedType

from covet_migrate.inspection.descriptions import Column, IndexPart, Table

__all__ = ["LiveType", "live_table"]


class LiveType(UserDefinedType[Any]):
    """A type in the words of the database.

    Args:
        text: the type.
    """

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **options: Any) -> str:
        """The type, as it stands in a definition."""
        return self.text


def live_table(described: Table) -> sqlalchemy.Table:
    """A table that is there.

    Its foreign keys name the tables that they refer to, which are not there; that is enough to drop them.

    Args:
        described: the table.
    """
    table = sqlalchemy.Table(
        described.name,
        sqlalchemy.MetaData(),
        *map(_column, described.columns),
        comment=described.comment,
    )
    key = described.primary_key
    if key is not None:
        table.append_constraint(sqlalchemy.PrimaryKeyConstraint(*(table.c[one] for one in key.columns), name=key.name))
    for unique in described.uniques:
        table.append_constraint(
            sqlalchemy.UniqueConstraint(*(table.c[one] for one in unique.columns), name=unique.name)
        )
    for check in described.checks:
        table.append_constraint(sqlalchemy.CheckConstraint(literal_column(check.condition), name=check.name))
    for foreign in described.foreign_keys:
        table.append_constraint(
            sqlalchemy.ForeignKeyConstraint(
                list(foreign.columns), [f"{foreign.table}.{one}" for one in foreign.referred], name=foreign.name
            )
        )
    for exclusion in described.exclusions:
        parts: list[tuple[Any, str]] = [(_element(table, part), operator) for part, operator in exclusion.parts]
        table.append_constraint(ExcludeConstraint(*parts, name=exclusion.name, using=exclusion.method))
    for index in described.indexes:
        made = sqlalchemy.Index(index.name, *(_element(table, part) for part in index.parts), unique=index.unique)
        if made.table is None:
            table.append_constraint(made)
    return table


def _column(column: Column) -> sqlalchemy.Column[Any]:
    computed = []
    if column.generated is not None:
        computed.append(sqlalchemy.Computed(literal_column(column.generated), persisted=column.stored))
    return sqlalchemy.Column(
        column.name,
        LiveType(column.type),
        *computed,
        nullable=column.null,
        server_default=None if column.default is None else literal_column(column.default),
        comment=column.comment,
        autoincrement=column.counting is not None,
    )


def _element(table: sqlalchemy.Table, part: IndexPart) -> Any:
    element: Any = table.c[part.column] if part.column is not None else literal_column(str(part.expression))
    return element.desc() if part.descending else element
