"""Compiling querysets to SELECT: reached once for each shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, Select
from sqlalchemy.dialects.postgresql import distinct_on

from covet_orm.exceptions import FieldError, NotSupported, QueryError
from covet_orm.fields.numbers import BigIntegerField
from covet_orm.queries.grouping import around, check_groups, grouping, is_aggregate, is_windowed, of_groups
from covet_orm.queries.hydration import RelatedColumns, dict_loader, object_loader, tuple_loader
from covet_orm.queries.named_rows import named_loader
from covet_orm.queries.plans import Plan, make_plan
from covet_orm.queries.scope import Parameters, Scope

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.models.options import Options
    from covet_orm.queries.querysets import QuerySet

__all__ = [
    "COUNT",
    "begin",
    "build_select",
    "compile_count",
    "compile_exists",
    "compile_select",
    "loaded_fields",
    "output_field",
    "output_names",
    "selectable_paths",
    "shown",
]

COUNT = BigIntegerField[int]()


def selectable_paths(options: Options, paths: Iterable[str]) -> list[str]:
    """The paths of `select_related`, each with those that lead to it.

    Raises:
        FieldError: there is no such relation, or it leads to many.
    """
    found: list[str] = []
    for path in paths:
        current = options
        steps: list[str] = []
        for name in path.split("__"):
            relation = current.relations.get(name)
            if relation is None:
                raise FieldError(f"select_related({path!r}): {current.unknown(name)}")
            if relation.many:
                raise FieldError(
                    f"select_related({path!r}): {name!r} leads to many; prefetch_related({path!r}) loads them"
                )
            steps.append(name)
            found.append("__".join(steps))
            current = relation.target._meta
    return found


def compile_select(query: QuerySet[Any], kind: str) -> Plan:
    """The plan of a queryset that is awaited."""
    statement, scope, load = build_select(query, kind)
    return make_plan(statement, kind, scope.parameters, load, f"{query.model.__name__}.select")


def compile_count(query: QuerySet[Any], kind: str) -> Plan:
    """The plan of `count()`."""
    if query._is_plain_select() and query._limit is None and not query._offset and query._distinct is None:
        scope = Scope(query.options, kind, annotations=query._annotations)
        begin(query, scope)
        conditions = [condition.build(scope) for condition in query._where]
        # The order adds nothing to a count but its parameters.
        for one in query._effective_order():
            one.build(scope)
        if not any(is_windowed(condition, query._annotations) for condition in query._where):
            if query._clauses is not None and query._clauses.empty:
                conditions.append(sqlalchemy.false())
            statement = sqlalchemy.select(sqlalchemy.func.count()).select_from(scope.from_clause()).where(*conditions)
            return make_plan(statement, kind, scope.parameters, None, f"{query.model.__name__}.count")
    inner, scope, _ = build_select(query, kind)
    statement = sqlalchemy.select(sqlalchemy.func.count()).select_from(inner.subquery())
    return make_plan(statement, kind, scope.parameters, None, f"{query.model.__name__}.count")


def compile_exists(query: QuerySet[Any], kind: str) -> Plan:
    """The plan of `exists()`."""
    statement, scope, _ = build_select(query, kind)
    one: Select[Any]
    if query._is_plain_select():
        one = statement.with_only_columns(sqlalchemy.literal_column("1"), maintain_column_froms=True).order_by(None)
    else:
        one = sqlalchemy.select(sqlalchemy.literal_column("1")).select_from(statement.subquery())
    if query._limit is None or not query._is_plain_select():
        one = one.limit(sqlalchemy.literal_column("1"))
    return make_plan(one, kind, scope.parameters, None, f"{query.model.__name__}.exists")


def build_select(
    query: QuerySet[Any], kind: str, outer: Scope | None = None, parameters: Parameters | None = None
) -> tuple[Select[Any], Scope, Any]:
    """The SELECT of a queryset, the scope that its parameters are in, and what loads its rows.

    The parts are built in the order in which `QuerySet.shape` visits them.

    Args:
        query: the queryset.
        kind: the database's.
        outer: the scope around it, where it is a subquery.
        parameters: those of the statement that it is a part of.

    Raises:
        FieldError: a name is not there.
        NotSupported: the database has no such thing.
        QueryError: the parts do not go together.
    """
    clauses = query._clauses
    if clauses is not None and clauses.combined is not None:
        from covet_orm.queries.combinators import build_combination

        return build_combination(query, kind, outer, parameters)
    scope = Scope(query.options, kind, outer=outer, annotations=query._annotations, parameters=parameters)
    group = None if clauses is None else clauses.group
    scope.grouped = group is not None
    begin(query, scope)
    where: list[ColumnElement[Any]] = []
    having: list[ColumnElement[Any]] = []
    windowed: list[ColumnElement[Any]] = []
    for condition in query._where:
        built = condition.build(scope)
        if query._annotations and is_windowed(condition, query._annotations):
            windowed.append(built)
        elif group is not None and is_aggregate(condition, of_groups(query)):
            having.append(built)
        else:
            where.append(built)
    order = [element for one in query._effective_order() for element in one.build(scope)]
    columns, load = _columns(query, scope)
    limit = scope.parameter(COUNT) if query._limit is not None else None
    offset = scope.parameter(COUNT) if query._offset else None
    distinct = _distinct(query, scope)
    statement = sqlalchemy.select(*columns).where(*where)
    if group is not None:
        check_groups(query, scope)
        statement = statement.group_by(*grouping(query, scope)).having(*having)
    statement = statement.select_from(scope.from_clause())
    if outer is not None:
        # All tables that are none of this query's are those of queries around it, however far out.
        statement = statement.correlate_except(*scope.joins.values())
    if clauses is not None and clauses.empty:
        statement = statement.where(sqlalchemy.false())
    if windowed:
        statement, order, distinct = around(statement, windowed, order, distinct)
    if distinct is not None:
        statement = statement.ext(distinct_on(*distinct)) if distinct else statement.distinct()
    statement = statement.order_by(*order)
    if limit is not None:
        statement = statement.limit(limit)
    if offset is not None:
        statement = statement.offset(offset)
    if query._lock is not None:
        from covet_orm.queries.locking import locked

        statement = locked(statement, query, scope)
    return statement, scope, load


def begin(query: QuerySet[Any], scope: Scope) -> None:
    """Build what stands before everything else: joined tables, and annotations."""
    if query._clauses is not None:
        for joined in query._clauses.joined:
            joined.build(scope)
        for filtered in query._clauses.filtered:
            filtered.build(scope)
    grouped, of_rows = scope.grouped, query._clauses.of_rows if query._clauses is not None else ()
    for name, expression in query._annotations.items():
        scope.grouped = grouped and name not in of_rows
        scope.built[name] = (expression.build(scope), expression.output(scope))
    scope.grouped = grouped


def output_names(query: QuerySet[Any]) -> dict[str, str]:
    """The names of what a query gives, and what the columns of its statement are called."""
    if query._clauses is not None and query._clauses.combined is not None:
        return output_names(query._clauses.combined.queries[0])
    if query._chosen is not None:
        return {name: name for name in query._chosen[1]}
    found: dict[str, str] = {}
    for field in loaded_fields(query):
        found[field.name] = found[field.attribute] = field.column
    return found | {name: name for name in shown(query)}


def output_field(query: QuerySet[Any], name: str, kind: str) -> Field[Any]:
    """The field of one thing that a query gives."""
    if query._clauses is not None and query._clauses.combined is not None:
        return output_field(query._clauses.combined.queries[0], name, kind)
    return Scope(query.options, kind, annotations=query._annotations).field(name)


def shown(query: QuerySet[Any]) -> list[str]:
    """The annotations that a query gives back."""
    if query._clauses is None:
        return list(query._annotations)
    return [name for name in query._annotations if name not in query._clauses.hidden]


def _distinct(query: QuerySet[Any], scope: Scope) -> list[ColumnElement[Any]] | None:
    if query._distinct is None:
        return None
    if query._distinct and scope.kind != "postgresql":
        raise NotSupported(f"{scope.kind} has no DISTINCT ON; PostgreSQL has: group the rows, or use a window function")
    return [scope.resolve(name)[0] for name in query._distinct]


def _columns(query: QuerySet[Any], scope: Scope) -> tuple[list[ColumnElement[Any]], Any]:
    if query._chosen is not None:
        mode, names = query._chosen
        found = [scope.resolve(name) for name in names]
        # Labelled, so that a subquery's columns have the names that were asked for.
        chosen: list[ColumnElement[Any]] = [column.label(name) for name, (column, _) in zip(names, found, strict=True)]
        of_chosen = [field for _, field in found]
        if mode == "dicts":
            return chosen, dict_loader(names, of_chosen, scope.kind)
        if mode == "named":
            return chosen, named_loader(names, of_chosen, scope.kind)
        return chosen, tuple_loader(of_chosen, scope.kind, flat=mode == "flat")
    fields = loaded_fields(query)
    columns = [scope.column((), field) for field in fields]
    related = _select_related(query, scope, columns)
    annotations: list[tuple[str, Field[Any], int]] = []
    for name in shown(query):
        column, field = scope.built[name]
        annotations.append((name, field, len(columns)))
        columns.append(column.label(name))
    load = object_loader(query.model, fields, scope.kind, related, annotations)
    if query._clauses is not None and query._clauses.subclasses:
        from covet_orm.queries.subclasses import most_derived

        load = most_derived(load, query._clauses.subclasses)
    return columns, load


def loaded_fields(query: QuerySet[Any]) -> Sequence[Field[Any]]:
    """The fields that are read: all of them, unless some are deferred. The key is always read."""
    fields: Sequence[Field[Any]] = query.model._meta.fields
    if query._deferred is None:
        return fields
    chosen, names = query._deferred
    return [field for field in fields if field.primary_key or (field.name in names) == chosen]


def _select_related(query: QuerySet[Any], scope: Scope, columns: list[ColumnElement[Any]]) -> list[RelatedColumns]:
    numbers = {"": 0}
    found: list[RelatedColumns] = []
    for path in query._related:
        before, _, name = path.rpartition("__")
        options = query.model._meta
        relations = []
        for step in path.split("__"):
            relation = options.relations[step]
            relations.append(relation)
            options = relation.target._meta
        fields = options.fields
        start = len(columns)
        columns += [scope.column(relations, field) for field in fields]
        if not options.primary_key:
            raise QueryError(
                f"{options.model.__name__} has no primary key, by which select_related could tell its objects"
            )
        key = start + options.primary_key[0].position
        last = relations[-1]
        back = last.field.name if last.field.model is last.target and not last.many else None
        numbers[path] = len(found) + 1
        found.append(RelatedColumns(numbers[before], name, options.model, fields, start, key, back))
    return found
