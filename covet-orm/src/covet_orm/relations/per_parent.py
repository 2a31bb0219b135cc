"""The objects that a relation to many leads to, for many parents at once: at most so many for each, if the query says
so.

A query that is sliced gets its limit for each parent by a window: ROW_NUMBER() over the rows of one parent, in the
order of the query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.ambient import home_of
from covet_orm.expressions.base import Add, Expression, Ordering
from covet_orm.expressions.references import F
from covet_orm.fields.numbers import BigIntegerField
from covet_orm.queries.one_database import require_one_database
from covet_orm.queries.plans import Plan, make_plan, refused
from covet_orm.queries.selects import build_select
from covet_orm.relations.keys import has_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from covet_orm.databases import Database
    from covet_orm.fields.base import Field
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.queries.scope import Scope

__all__ = ["PARENT", "children_of"]

PARENT = "_parent_key"
"""The name under which an object that came through a link knows whose it is, until it was given to that one."""
NUMBER = "_row_number"
COUNT = BigIntegerField[int]()


class RowNumber(Expression[int]):
    """Counts the rows that have the same values in some columns, from 1, in an order."""

    __slots__ = ("order", "partition")

    def __init__(self, partition: Sequence[Expression[Any]], order: Sequence[Ordering]) -> None:
        self.partition = tuple(partition)
        self.order = tuple(order)

    def shape(self, key: Add, values: Add) -> None:
        key(("row number", len(self.partition), len(self.order)))
        for part in self.partition:
            part.shape(key, values)
        for one in self.order:
            one.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return sqlalchemy.func.row_number().over(
            partition_by=[part.build(scope) for part in self.partition],
            order_by=[element for one in self.order for element in one.build(scope)],
        )

    def output(self, scope: Scope) -> Field[Any]:
        return COUNT


async def children_of(
    query: QuerySet[Any], columns: Sequence[Expression[Any]], keys: Sequence[Any], database: Database
) -> list[Any]:
    """The objects of a query that belong to some parents.

    Args:
        query: what is asked of the children; its limit is that of each parent.
        columns: the expressions that have the parent's key.
        keys: the keys of the parents.
        database: the one of the query.
    """
    if query._limit is None and not query._offset:
        return await query.filter(has_key(columns, keys))
    inner: Any = query._copy()
    inner._limit, inner._offset, inner._order, inner._prefetch = None, 0, (), ()
    order = query._effective_order() or tuple(Ordering(F(field.name)) for field in query.model._meta.primary_key)
    inner._annotations = {**query._annotations, NUMBER: RowNumber(columns, order)}
    inner = inner.filter(has_key(columns, keys))
    key: list[Any] = ["per parent", query._limit is None, not query._offset]
    values: list[Any] = []
    inner.shape(key.append, values.append)
    if query._limit is not None:
        values.append(query._offset + query._limit)
    if query._offset:
        values.append(query._offset)
    shape = tuple(key)
    plan = database.plans.get(shape)
    if plan is None:
        require_one_database(shape, database)
        plan = database.plans.put(shape, _compile(query, inner, database.kind))
    try:
        parameters = plan.bind(values)
    except ValueError as error:
        raise refused(error, build_select(inner, database.kind)[1].parameters, values) from error
    rows = await database.fetch_rows(plan, parameters)
    assert plan.load is not None
    found: list[Any] = plan.load(rows, home_of(query, database))
    for one in found:
        del one._related[NUMBER]
    if query._prefetch and found:
        from covet_orm.relations.prefetching import prefetch

        await prefetch(found, query._prefetch, database)
    return found


def _compile(query: QuerySet[Any], inner: QuerySet[Any], kind: str) -> Plan:
    statement, scope, load = build_select(inner, kind)
    numbered = statement.subquery("numbered")
    number = numbered.c[NUMBER]
    chosen = sqlalchemy.select(*numbered.c).order_by(number)
    if query._limit is not None:
        chosen = chosen.where(number <= scope.parameter(COUNT))
    if query._offset:
        chosen = chosen.where(number > scope.parameter(COUNT))
    return make_plan(chosen, kind, scope.parameters, load, f"{query.model.__name__}.select per parent")
