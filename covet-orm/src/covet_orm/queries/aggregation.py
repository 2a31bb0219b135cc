"""`aggregate`: values of all rows of a query, by one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.expressions.base import Expression
from covet_orm.identifiers import check_identifier
from covet_orm.queries.grouping import is_windowed
from covet_orm.queries.names import Names
from covet_orm.queries.one_database import require_one_database
from covet_orm.queries.plans import Plan, make_plan, refused
from covet_orm.queries.scope import DerivedScope, Parameters, Scope

if TYPE_CHECKING:
    from covet_orm.expressions.aggregates import Aggregate
    from covet_orm.fields.base import Field
    from covet_orm.models.relations import Relation
    from covet_orm.queries.querysets import QuerySet

__all__ = ["aggregate"]


async def aggregate(
    query: QuerySet[Any], aggregates: Sequence[Expression[Any]], named: Mapping[str, Expression[Any]]
) -> dict[str, Any]:
    """The values of aggregates, by name. What `QuerySet.aggregate` does."""
    found: dict[str, Expression[Any]] = {}
    names = Names(query.options, query._annotations)
    for name, expression in [*((_name(one), one) for one in aggregates), *named.items()]:
        if not isinstance(expression, Expression) or not expression.aggregates:
            raise QueryError(
                f"aggregate({name}={expression!r}): an aggregate is needed, such as Count('*') or Sum('price')"
            )
        if not name.isidentifier():
            raise FieldError(f"aggregate(): {name!r:.100} is no name")
        check_identifier(name, "postgresql", "aggregate")
        if name in found:
            raise QueryError(f"aggregate(): {name!r} is there twice; give one of them another name")
        found[name] = expression.resolved(names)
    if not found:
        return {}
    database = query.database
    await database.open()
    compiled = _Compiled(query, found, database.kind)
    key: list[Any] = ["aggregate"]
    values: list[Any] = []
    compiled.shape(key.append, values.append)
    shape = tuple(key)
    plan: Plan | None = database.plans.get(shape)
    if plan is None:
        require_one_database(shape, database)
        plan = database.plans.put(shape, compiled.plan()[0])
    try:
        parameters = plan.bind(values)
    except ValueError as error:
        raise refused(error, compiled.plan()[1], values) from error
    rows = await database.fetch_rows(plan, parameters)
    assert plan.load is not None
    result: dict[str, Any] = plan.load(rows, database)[0]
    return result


class _Compiled:
    """An aggregation while it is compiled.

    Aggregates over different relations are computed each by a SELECT of its own, so that they do not multiply each
    other; these are joined to one row.
    """

    def __init__(self, query: QuerySet[Any], expressions: Mapping[str, Expression[Any]], kind: str) -> None:
        self.kind = kind
        self.expressions = expressions
        self.wraps = (
            not query._is_plain_select()
            or query._limit is not None
            or bool(query._offset)
            or query._distinct is not None
            or any(is_windowed(expression, query._annotations) for expression in query._annotations.values())
        )
        # The order makes no difference, unless it decides about what is cut off.
        keeps_order = query._limit is not None or query._offset or query._distinct
        self.query = query if keeps_order or not query._effective_order() else _unordered(query)
        self.groups: dict[tuple[Relation, ...], list[str]] = {}
        for name, expression in expressions.items():
            self.groups.setdefault(() if self.wraps else self._chain(name, expression), []).append(name)

    def shape(self, key: Any, values: Any) -> None:
        """As of an expression."""
        key((self.wraps, tuple(map(tuple, self.groups.values()))))
        for names in self.groups.values():
            self.query.shape(key, values)
            for name in names:
                self.expressions[name].shape(key, values)

    def plan(self) -> tuple[Plan, Parameters]:
        """The plan, and its parameters."""
        from covet_orm.queries.hydration import dict_loader

        parameters = Parameters()
        statements: list[Any] = []
        order: list[str] = []
        fields: list[Field[Any]] = []
        for names in self.groups.values():
            scope, statement = self._around(parameters) if self.wraps else self._begin(parameters)
            columns = []
            for name in names:
                columns.append(self.expressions[name].build(scope).label(name))
                fields.append(self.expressions[name].output(scope))
                order.append(name)
            statements.append(statement(scope, columns))
        whole = statements[0]
        if len(statements) > 1:
            tables = [statement.subquery() for statement in statements]
            whole = sqlalchemy.select(*(column for table in tables for column in table.c))
            clause = tables[0]
            for table in tables[1:]:
                clause = clause.join(table, sqlalchemy.true())
            whole = whole.select_from(clause)
        load = dict_loader(order, fields, self.kind)
        return make_plan(whole, self.kind, parameters, load, f"{self.query.model.__name__}.aggregate"), parameters

    def _begin(self, parameters: Parameters) -> tuple[Scope, Any]:
        from covet_orm.queries.selects import begin

        query = self.query
        scope = Scope(query.options, self.kind, annotations=query._annotations, parameters=parameters)
        begin(query, scope)
        conditions = [condition.build(scope) for condition in query._where]
        scope.grouped = True
        nothing = [sqlalchemy.false()] if query._clauses is not None and query._clauses.empty else []
        return (
            scope,
            lambda scope, columns: (
                sqlalchemy.select(*columns).select_from(scope.from_clause()).where(*conditions, *nothing)
            ),
        )

    def _around(self, parameters: Parameters) -> tuple[Scope, Any]:
        from covet_orm.queries.selects import build_select, output_field, output_names

        query = self.query
        statement, inner, _ = build_select(query, self.kind, parameters=parameters)
        table = statement.subquery()
        names = output_names(query)
        columns = {name: (label, output_field(query, name, self.kind)) for name, label in names.items()}
        scope = DerivedScope(query.options, inner, table, columns)
        scope.grouped = True
        return scope, lambda scope, columns: sqlalchemy.select(*columns).select_from(table)

    def _chain(self, name: str, expression: Expression[Any]) -> tuple[Relation, ...]:
        scope = Scope(self.query.options, self.kind, annotations=self.query._annotations)
        chains = {one.chain(scope) for one in _aggregates(expression)}
        if len(chains) > 1:
            raise QueryError(
                f"aggregate({name}={expression!r}): its aggregates are of the rows of different relations, which would "
                "multiply each other; aggregate them under names of their own"
            )
        return chains.pop()


def _aggregates(expression: Expression[Any]) -> list[Aggregate[Any]]:
    from covet_orm.expressions.aggregates import Aggregate

    if isinstance(expression, Aggregate):
        return [expression]
    return [found for part in expression.parts() for found in _aggregates(part)]


def _name(expression: Expression[Any]) -> str:
    from covet_orm.expressions.aggregates import Aggregate
    from covet_orm.expressions.references import ColumnReference, F

    if isinstance(expression, Aggregate) and expression.arguments:
        of = expression.arguments[0]
        if isinstance(of, F):
            return f"{of.name}__{type(expression).__name__.lower()}"
        if isinstance(of, ColumnReference):
            return f"{of.field.name}__{type(expression).__name__.lower()}"
    raise QueryError(f"aggregate({expression!r}): give it a name, as in aggregate(total={expression!r})")


def _unordered(query: QuerySet[Any]) -> QuerySet[Any]:
    made = query._copy()
    made._order = ()
    return made
