"""Functions that choose between values: the first that is there, the largest, the smallest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.expressions.base import Value
from covet_orm.expressions.functions.base import Func

if TYPE_CHECKING:
    from covet_orm.queries.scope import Scope

__all__ = ["Coalesce", "Greatest", "Least", "NullIf"]

T = TypeVar("T")


class Coalesce(Func[T]):
    """The first of its arguments that is not NULL; NULL when all are."""

    function = "coalesce"
    arity = (2, None)


class NullIf(Func[T]):
    """NULL when both arguments are equal, else the first."""

    function = "nullif"
    arity = (2, 2)


class Greatest(Func[T]):
    """The largest of its arguments; NULL when one is NULL, on every database."""

    arity = (2, None)

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return self._chosen(scope, "greatest", "max", arguments)

    def _chosen(
        self, scope: Scope, name: str, sqlite: str, arguments: tuple[ColumnElement[Any], ...]
    ) -> ColumnElement[Any]:
        found: ColumnElement[Any] = getattr(func, sqlite if scope.kind == "sqlite" else name)(*arguments)
        if scope.kind != "postgresql":
            return found
        # PostgreSQL leaves NULL out of account.
        there = [
            built.is_not(None)
            for argument, built in zip(self.arguments, arguments, strict=True)
            if not (isinstance(argument, Value) and argument.value is not None)
        ]
        return sqlalchemy.case((sqlalchemy.and_(*there), found)) if there else found


class Least(Greatest[T]):
    """The smallest of its arguments; NULL when one is NULL, on every database."""

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return self._chosen(scope, "least", "min", arguments)
