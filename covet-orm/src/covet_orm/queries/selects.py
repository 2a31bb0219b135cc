"""Compiling querysets to SELECT: reached once for each shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, Select

from covet_orm.exceptions import FieldError, NotSupported, QueryError
from covet_orm.fields.numbers import BigIntegerField
from covet_orm.queries.hydration import RelatedColumns, dict_loader, object_loader, tuple_loader
from covet_orm.queries.plans import Plan, make_plan
from covet_orm.queries.scope import Scope

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.models.options import Options
    from covet_orm.queries.querysets import QuerySet

__all__ = ["build_select", "compile_count", "compile_exists", "compile_select", "selectable_paths"]

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
    scope = Scope(query.model._meta, kind, annotations=query._annotations)
    if query._limit is not None or query._offset or query._distinct is not None:
        inner, scope, _ = build_select(query, kind)
        statement: Select[Any] = sqlalchemy.select(sqlalchemy.func.count()).select_from(inner.subquery())
    else:
        _annotate(query, scope)
        conditions = [condition.build(scope) for condition in query._where]
        # The order adds nothing to a count but its parameters.
        for one in query._effective_order():
            one.build(scope)
        statement = sqlalchemy.select(sqlalchemy.func.count()).select_from(scope.from_clause()).where(*conditions)
    return make_plan(statement, kind, scope.parameters, None, f"{query.model.__name__}.count")


def compile_exists(query: QuerySet[Any], kind: str) -> Plan:
    """The plan of `exists()`."""
    statement, scope, _ = build_select(query, kind)
    one = statement.with_only_columns(sqlalchemy.literal_column("1"), maintain_column_froms=True).order_by(None)
    if query._limit is None:
        one = one.limit(sqlalchemy.literal_column("1"))
    return make_plan(one, kind, scope.parameters, None, f"{query.model.__name__}.exists")


def build_select(query: QuerySet[Any], kind: str, outer: Scope | None = None) -> tuple[Select[Any], Scope, Any]:
    """The SELECT of a queryset, the scope that its parameters are in, and what loads its rows.

    The parts are built in the order in which `QuerySet.shape` visits them.
    """
    options = query.model._meta
    scope = Scope(options, kind, outer=outer, annotations=query._annotations)
    _annotate(query, scope)
    conditions = [condition.build(scope) for condition in query._where]
    order = [element for one in query._effective_order() for element in one.build(scope)]
    columns, load = _columns(query, scope)
    limit = scope.parameter(COUNT) if query._limit is not None else None
    offset = scope.parameter(COUNT) if query._offset else None
    statement = sqlalchemy.select(*columns).select_from(scope.from_clause()).where(*conditions).order_by(*order)
    if query._distinct is not None:
        if query._distinct and kind != "postgresql":
            raise NotSupported(f"{kind} has no DISTINCT ON; PostgreSQL has: group the rows, or use a window function")
        statement = statement.distinct(*(scope.resolve(name)[0] for name in query._distinct))
    if limit is not None:
        statement = statement.limit(limit)
    if offset is not None:
        statement = statement.offset(offset)
    return statement, scope, load


def _annotate(query: QuerySet[Any], scope: Scope) -> None:
    for name, expression in query._annotations.items():
        scope.built[name] = (expression.build(scope), expression.output(scope))


def _columns(query: QuerySet[Any], scope: Scope) -> tuple[list[ColumnElement[Any]], Any]:
    if query._chosen is not None:
        mode, names = query._chosen
        found = [scope.resolve(name) for name in names]
        # Labelled, so that a subquery's columns have the names that were asked for.
        columns = [column.label(name) for name, (column, _) in zip(names, found, strict=True)]
        fields = [field for _, field in found]
        if mode == "dicts":
            return columns, dict_loader(names, fields, scope.kind)
        return columns, tuple_loader(fields, scope.kind, flat=mode == "flat")
    fields = _loaded(query)
    columns = [scope.column((), field) for field in fields]
    related = _select_related(query, scope, columns)
    annotations: list[tuple[str, Field[Any], int]] = []
    for name in query._annotations:
        column, field = scope.built[name]
        annotations.append((name, field, len(columns)))
        columns.append(column.label(name))
    return columns, object_loader(query.model, fields, scope.kind, related, annotations)


def _loaded(query: QuerySet[Any]) -> Sequence[Field[Any]]:
    """The fields that are read: all of them, unless some are deferred. The key is always read."""
    fields = query.model._meta.fields
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
