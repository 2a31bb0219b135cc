"""Groups, and conditions on what is computed after WHERE: HAVING, and a query around one with window functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, Select
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, Over

from covet_orm.exceptions import QueryError
from covet_orm.expressions.references import ColumnReference, F
from covet_orm.queries.names import annotation_in

if TYPE_CHECKING:
    from covet_orm.expressions.aggregates import Aggregate
    from covet_orm.expressions.base import Expression
    from covet_orm.models.relations import Relation
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.queries.scope import Scope

__all__ = ["around", "check_groups", "grouping", "is_aggregate", "is_windowed", "of_groups"]

Annotations = Mapping[str, "Expression[Any]"]


def is_aggregate(expression: Expression[Any], annotations: Annotations) -> bool:
    """Whether an aggregate is in an expression, or in an annotation that it names."""
    return expression.aggregates or any(
        is_aggregate(annotations[name], annotations) for name in _annotations_in(expression, annotations)
    )


def is_windowed(expression: Expression[Any], annotations: Annotations) -> bool:
    """Whether a window function is in an expression, or in an annotation that it names."""
    return expression.windows or any(
        is_windowed(annotations[name], annotations) for name in _annotations_in(expression, annotations)
    )


def _annotations_in(expression: Expression[Any], annotations: Annotations) -> Iterable[str]:
    if isinstance(expression, F):
        name = annotation_in(annotations, expression.name)
        if name is not None:
            yield name
    for part in expression.parts():
        yield from _annotations_in(part, annotations)


def of_groups(query: QuerySet[Any]) -> Annotations:
    """The annotations of a query that are of its groups, and not of its rows."""
    of_rows = query._clauses.of_rows if query._clauses is not None else frozenset()
    return {name: expression for name, expression in query._annotations.items() if name not in of_rows}


def grouping(query: QuerySet[Any], scope: Scope) -> list[Any]:
    """What stands behind GROUP BY. MySQL and MariaDB know what they compute by its name alone, and not by its text."""
    assert query._clauses is not None
    assert query._clauses.group is not None
    by_name: set[str] = set()
    if scope.kind in ("mysql", "mariadb") and query._chosen is not None:
        by_name = {name for name in query._chosen[1] if annotation_in(query._annotations, name) is not None}
    return [name if name in by_name else scope.resolve(name)[0] for name in query._clauses.group]


def check_groups(query: QuerySet[Any], scope: Scope) -> None:
    """Find what a grouped query cannot give.

    Raises:
        QueryError: a name is neither what it groups by nor an aggregate; or two aggregates are of the rows of different
            relations, which would multiply each other.
    """
    assert query._clauses is not None
    group = set(query._clauses.group or ())
    here = of_groups(query)
    asked = [F(name) for name in (query._chosen[1] if query._chosen is not None else ())]
    order = [one.expression for one in query._effective_order()]
    having = [condition for condition in query._where if is_aggregate(condition, here)]
    # A field has several names: `team` and `team_id`, `pk` and `id`.
    paths = {query.options.path(name) for name in group if annotation_in(query._annotations, name) is None}
    for expression in (*asked, *here.values(), *order, *having):
        for name in _names_of_rows(expression):
            if name in group or annotation_in(here, name) is not None:
                continue
            if annotation_in(query._annotations, name) is not None or query.options.path(name) not in paths:
                raise QueryError(
                    f"the query groups by {', '.join(sorted(group)) or 'nothing'}, and {name!r} has many values in a "
                    "group: name it in values(), or take an aggregate of it"
                )
    _check_chains(query, scope, group)


def _names_of_rows(expression: Expression[Any]) -> Iterable[str]:
    """The names in an expression that are of a row, and not of the rows that an aggregate is of."""
    from covet_orm.expressions.aggregates import Aggregate
    from covet_orm.queries.comparisons import KeywordComparison

    if isinstance(expression, Aggregate):
        return
    if isinstance(expression, F):
        yield expression.name
    elif isinstance(expression, ColumnReference):
        yield expression.field.attribute
    elif isinstance(expression, KeywordComparison):
        yield expression.found.name
    for part in expression.parts():
        yield from _names_of_rows(part)


def _check_chains(query: QuerySet[Any], scope: Scope, group: set[str]) -> None:
    by_keys: set[tuple[Relation, ...]] = set()
    for name in group:
        if annotation_in(query._annotations, name) is None:
            by_keys.add(tuple(scope.options.path(name).relations))
    beyond: dict[tuple[Relation, ...], Aggregate[Any]] = {}
    plain: list[Aggregate[Any]] = []
    for aggregate in _aggregates_in(of_groups(query).values()):
        chain = aggregate.chain(scope)
        if chain and not any(keys[: len(chain)] == chain for keys in by_keys):
            beyond.setdefault(chain, aggregate)
        else:
            plain.append(aggregate)
    multiplied = [aggregate for aggregate in plain if not (aggregate.repeats or aggregate.distinct)]
    wrong = list(beyond.values())[:2] if len(beyond) > 1 else [*beyond.values(), *multiplied[:1]]
    if len(wrong) > 1:
        raise QueryError(
            f"{wrong[0]!r} and {wrong[1]!r} are of the rows of different relations, and in one group they would "
            "multiply "
            "each other: annotate() without values() before it gives each its own subquery, and so does Subquery()"
        )


def _aggregates_in(expressions: Iterable[Expression[Any]]) -> Iterable[Aggregate[Any]]:
    from covet_orm.expressions.aggregates import Aggregate

    for expression in expressions:
        if isinstance(expression, Aggregate):
            yield expression
        else:
            yield from _aggregates_in(expression.parts())


def around(
    statement: Select[Any],
    conditions: Sequence[ColumnElement[Any]],
    order: Sequence[ColumnElement[Any]],
    distinct: Sequence[ColumnElement[Any]] | None,
) -> tuple[Select[Any], list[ColumnElement[Any]], list[ColumnElement[Any]] | None]:
    """A query around one with window functions, whose conditions are on what these gave.

    Args:
        statement: that one.
        conditions: the conditions; what of them is not there yet becomes a column of the inner query.
        order: what the outer query is to be ordered by.
        distinct: what its rows are to differ by.

    Returns:
        The outer query, its order and its distinct columns.
    """
    wanted = list(statement.selected_columns)
    places: dict[Any, int] = {}
    inner: list[ColumnElement[Any]] = [
        column.label(f"column_{number}") if not isinstance(column, sqlalchemy.Label) else column
        for number, column in enumerate(wanted)
    ]

    def place(element: Any, **options: Any) -> Any:
        # What belongs to the inner query: its tables' columns, and window functions as a whole.
        if not isinstance(element, (sqlalchemy.Column, Over)) and not _of_table(element):
            return None
        if id(element) not in places:
            places[id(element)] = len(inner)
            inner.append(element.label(f"needed_{len(inner)}"))
            kept.append(element)
        return _Placeholder(places[id(element)], element.type)

    kept: list[Any] = []

    def replaced(element: ColumnElement[Any]) -> Any:
        return visitors.replacement_traverse(element, {}, place)

    new_conditions = [replaced(condition) for condition in conditions]
    new_order = [replaced(element) for element in order]
    new_distinct = None if distinct is None else [replaced(element) for element in distinct]
    table = statement.with_only_columns(*inner, maintain_column_froms=True).subquery()
    columns = list(table.c)

    def settled(part: Any, **options: Any) -> Any:
        return columns[part.place] if isinstance(part, _Placeholder) else None

    def settle(element: Any) -> Any:
        replace: Any = settled
        found: ColumnElement[Any] = element
        return visitors.replacement_traverse(found, {}, replace)

    everything: Any = sqlalchemy.select(*columns[: len(wanted)])
    outer: Select[Any] = everything.where(*map(settle, new_conditions))
    return (
        outer,
        [settle(one) for one in new_order],
        None if new_distinct is None else [settle(one) for one in new_distinct],
    )


class _Placeholder(ColumnElement[Any]):
    """A column of the inner query, whose place is known before the query is."""

    __visit_name__ = "placeholder"
    inherit_cache = False

    def __init__(self, place: int, column_type: Any) -> None:
        self.place = place
        self.type = column_type


def _of_table(element: Any) -> bool:
    return isinstance(element, ColumnClause) and getattr(element, "table", None) is not None
