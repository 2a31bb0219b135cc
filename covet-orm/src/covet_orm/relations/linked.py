"""The table between the models of a many-to-many relation, within a query of the far side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.expressions.base import Add, Expression
from covet_orm.expressions.conditions import Condition

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.fields.related import ForeignKey
    from covet_orm.queries.scope import Scope

__all__ = ["LinkColumn", "LinkedTo"]


class LinkColumn(Expression[Any]):
    """The column that refers to the near side; the table is joined.

    Args:
        near, far: the foreign keys of the link.
    """

    __slots__ = ("far", "near")

    def __init__(self, near: ForeignKey[Any], far: ForeignKey[Any]) -> None:
        self.near = near
        self.far = far

    def shape(self, key: Add, values: Add) -> None:
        key(("link", self.near, self.far))

    def build(self, scope: Scope) -> ColumnElement[Any]:
        table = scope.join_link(self.near, self.far)
        return table.c[self.near.column]

    def output(self, scope: Scope) -> Field[Any]:
        return self.near

    def __repr__(self) -> str:
        return f"{self.near!r} of the link"


class LinkedTo(Condition):
    """The objects that the links of one object lead to; each once, however many links do.

    Args:
        near, far: the foreign keys of the link.
        owner: the key of the object.
    """

    __slots__ = ("far", "near", "owner")

    def __init__(self, near: ForeignKey[Any], far: ForeignKey[Any], owner: Any) -> None:
        self.near = near
        self.far = far
        self.owner = owner

    def shape(self, key: Add, values: Add) -> None:
        key(("linked", self.near, self.far))
        values(self.owner)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        # Not EXISTS: SQLite would go through the whole table of the far side.
        link = self.near.model.__table__.alias()
        keys = sqlalchemy.select(link.c[self.far.column]).where(link.c[self.near.column] == scope.parameter(self.near))
        return scope.column((), self.far.remote).in_(keys)

    def __repr__(self) -> str:
        return f"linked to {self.owner!r} by {self.near!r}"
