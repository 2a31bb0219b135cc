"""Querysets as statements of SQLAlchemy Core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import BindParameter, Select
from sqlalchemy.sql import visitors

from covet_orm.dialects import dialect_of
from covet_orm.queries.one_database import require_one_database
from covet_orm.queries.plans import refused

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["to_sqlalchemy"]


def to_sqlalchemy(query: QuerySet[Any]) -> Select[Any]:
    """A queryset as a SELECT whose parameters have values. What `QuerySet.to_sqlalchemy` does."""
    from covet_orm.queries.selects import build_select

    database = query.database
    kind = database.kind
    statement, scope, _ = build_select(query, kind)
    key: list[Any] = []
    given: list[Any] = []
    query.shape(key.append, given.append)
    require_one_database(key, database)
    parameters = scope.parameters
    bound: list[Any] = []
    try:
        for bind, value in zip(parameters.binders, given, strict=False):
            bound.append(None if value is None else bind(value))
    except ValueError as error:
        raise refused(error, parameters, given) from error
    dialect = dialect_of(kind)

    def place(element: Any, **options: Any) -> Any:
        if not isinstance(element, BindParameter):
            return None
        number, _, index = element.key[1:].partition("_")
        if not (element.key.startswith("p") and number.isdigit() and int(number) < len(bound)):
            return None
        value = bound[int(number)][int(index)] if index else bound[int(number)]
        # What the field made of it is what the driver takes: SQLAlchemy is not to convert it once more.
        if element.type.dialect_impl(dialect).bind_processor(dialect) is None:
            return sqlalchemy.bindparam(None, value, type_=element.type)
        return sqlalchemy.bindparam(None, value, type_=_Driver(element.type))

    made: Any = visitors.replacement_traverse(statement, {}, place)
    exported: Select[Any] = made
    return exported


class _Driver(sqlalchemy.types.TypeDecorator[Any]):
    """A type whose values are the driver's already."""

    impl = sqlalchemy.types.NullType
    cache_ok = False

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of = of

    def load_dialect_impl(self, dialect: Any) -> Any:
        """The type itself, for casts."""
        return self.of.dialect_impl(dialect)

    def bind_processor(self, dialect: Any) -> None:
        """No conversion."""
        return
