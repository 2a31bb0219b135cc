"""Set operations: `union`, `intersection`, `difference` of querysets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy
from sqlalchemy import Select

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add
from covet_orm.queries.clauses import Clauses
from covet_orm.queries.one_database import key_of_database
from covet_orm.queries.scope import DerivedScope, Parameters, Scope

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Combination", "build_combination", "combine"]

Operator = Literal["union", "union all", "intersection", "difference"]

MAKE: dict[Operator, Any] = {
    "union": sqlalchemy.union,
    "union all": sqlalchemy.union_all,
    "intersection": sqlalchemy.intersect,
    "difference": sqlalchemy.except_,
}


class Combination:
    """The queries of a set operation.

    Args:
        operator: which.
        queries: of which.
    """

    __slots__ = ("operator", "queries")

    def __init__(self, operator: Operator, queries: tuple[QuerySet[Any], ...]) -> None:
        self.operator: Operator = operator
        self.queries = queries

    def shape(self, key: Add, values: Add) -> None:
        """As of an expression."""
        key((self.operator, len(self.queries)))
        for query in self.queries:
            key_of_database(query, key)
            query.shape(key, values)


def combine(first: QuerySet[Any], operator: Operator, others: tuple[QuerySet[Any], ...]) -> QuerySet[Any]:
    """A query of what a set operation gives.

    Raises:
        QueryError: one of them is no queryset, or they give different numbers of columns.
    """
    from covet_orm.expressions.subqueries import queryset_of

    queries = (first, *(queryset_of(other) for other in others))
    for query in queries[1:]:
        if _width(query) != _width(first) or (query._chosen is None and query.model is not first.model):
            raise QueryError(
                f"{operator} of {_told(first)} and {_told(query)}: they need the same columns; values() and "
                "values_list() choose them"
            )
        if query._related or first._related:
            raise QueryError(f"{operator}: select_related() is for one query; prefetch_related() loads for the result")
    made: QuerySet[Any] = type(first)(first.model)
    made._database = first._database
    made._chosen = first._chosen
    made._deferred = first._deferred
    made._prefetch = first._prefetch
    made._order = ()
    made._clauses = Clauses(combined=Combination(operator, queries))
    return made


def build_combination(
    query: QuerySet[Any], kind: str, outer: Scope | None, parameters: Parameters | None
) -> tuple[Select[Any], Scope, Any]:
    """The SELECT of a set operation, its scope, and what loads its rows."""
    from covet_orm.queries.selects import COUNT, build_select, output_field, output_names

    assert query._clauses is not None
    combined = query._clauses.combined
    assert combined is not None
    if parameters is None:
        parameters = outer.parameters if outer is not None else Parameters()
    first_load: Any = None
    inner: Scope | None = None
    parts: list[Any] = []
    for part in combined.queries:
        of_part, scope, load = build_select(part, kind, outer=outer, parameters=parameters)
        if inner is None:
            inner, first_load = scope, load
        if part._limit is not None or part._offset or part._effective_order() or _is_combined(part):
            # SQLite has neither an order nor a limit in a part, but in a table of its own.
            of_part = sqlalchemy.select(*of_part.subquery().c)
        parts.append(of_part)
    assert inner is not None
    table = MAKE[combined.operator](*parts).subquery()
    first = combined.queries[0]
    names = output_names(first)
    columns = {name: (label, output_field(first, name, kind)) for name, label in names.items()}
    scope = DerivedScope(query.model._meta, inner, table, columns)
    order = [element for one in query._effective_order() for element in one.build(scope)]
    everything: Any = sqlalchemy.select(*table.c)
    statement: Select[Any] = everything.order_by(*order)
    if query._limit is not None:
        statement = statement.limit(scope.parameter(COUNT))
    if query._offset:
        statement = statement.offset(scope.parameter(COUNT))
    return statement, scope, first_load


def _is_combined(query: QuerySet[Any]) -> bool:
    return query._clauses is not None and query._clauses.combined is not None


def _width(query: QuerySet[Any]) -> int:
    from covet_orm.queries.selects import output_names

    return len(dict.fromkeys(output_names(query).values()))


def _told(query: QuerySet[Any]) -> str:
    names = ", ".join(query._chosen[1]) if query._chosen is not None else "objects"
    return f"{query.model.__name__} ({names})"
