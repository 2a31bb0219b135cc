"""Locking what a query reads, where a database has such locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from covet_orm.models.instances import Model
    from covet_orm.queries.querysets import QuerySet

__all__ = ["locked"]

M = TypeVar("M", bound="Model")


def locked(query: QuerySet[M]) -> QuerySet[M]:
    """A query that locks the rows it gives until the transaction ends, and sees what was committed until now.

    SQLite has no such locks, and needs none: its transactions that write run one after another.
    """
    if not hasattr(query, "select_for_update"):
        return query
    return query if query.database.kind == "sqlite" else query.select_for_update()
