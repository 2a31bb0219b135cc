"""`annotate` and `values`: what a query gives besides the fields, or instead of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.expressions.base import Expression, as_expression
from covet_orm.expressions.references import F
from covet_orm.identifiers import check_identifier
from covet_orm.queries.clauses import NONE
from covet_orm.queries.filtered import FilteredRelation, add_filtered
from covet_orm.queries.grouping import is_aggregate
from covet_orm.queries.keys import key_names
from covet_orm.queries.named_rows import row_class
from covet_orm.queries.names import Names, annotation_in, many_relations

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["annotate", "choose"]

Q = TypeVar("Q", bound="QuerySet[Any]")


def annotate(query: Q, expressions: Mapping[str, Any], *, hidden: bool = False) -> Q:
    """A query with values that are computed.

    Args:
        query: the query.
        expressions: what is computed, by name.
        hidden: whether they are used, and not given back.

    Raises:
        FieldError: a name is taken, or is none.
        QueryError: the query is a set operation, or was sliced.
    """
    query._not_combined("annotate")
    if not expressions:
        return query._copy()
    query._not_sliced("annotate")
    for name, given in expressions.items():
        _check_name(query, name)
        if isinstance(given, FilteredRelation):
            query = cast("Q", add_filtered(query, name, given))
    expressions = {name: given for name, given in expressions.items() if not isinstance(given, FilteredRelation)}
    made: Q = query._copy()
    known: dict[str, Expression[Any]] = dict(query._annotations)
    for name, given in expressions.items():
        if isinstance(given, F) and given.name == name and name in known:
            # What was an alias is given back from now on.
            continue
        known[name] = as_expression(given).resolved(Names(made.options, dict(known)))
    made._annotations = known
    groups = made._clauses is None or made._clauses.group is None
    if query._chosen is not None:
        mode, names = query._chosen
        if groups and any(is_aggregate(known[name], known) for name in expressions):
            made._clauses = (made._clauses or NONE).but(group=names, of_rows=frozenset(query._annotations))
        if not hidden and mode != "flat":
            made._chosen = (mode, (*names, *(name for name in expressions if name not in names)))
    if hidden:
        clauses = made._clauses or NONE
        made._clauses = clauses.but(hidden=clauses.hidden | set(expressions))
    elif made._clauses is not None and made._clauses.hidden:
        made._clauses = made._clauses.but(hidden=made._clauses.hidden - set(expressions))
    return made


def choose(query: QuerySet[Any], mode: str, names: Sequence[str], expressions: Mapping[str, Any]) -> QuerySet[Any]:
    """A query of dicts, tuples or values instead of objects.

    Raises:
        FieldError: a name is not there.
    """
    if query._clauses is not None and query._clauses.combined is not None:
        return _choose_of_combined(query, mode, names, expressions)
    for name in names:
        if not isinstance(name, str):
            raise QueryError(f"values({name!r}): names are texts; an expression gets a name: values(total={name!r})")
    resolved = {name: as_expression(given) for name, given in expressions.items()}
    of_groups = {name for name, expression in resolved.items() if _is_of_own_rows(query, expression)}
    before = {name: expression for name, expression in resolved.items() if name not in of_groups}
    made: QuerySet[Any] = annotate(query, before) if before else query._copy()
    chosen = (*names, *before)
    if not names and not expressions:
        from covet_orm.queries.selects import shown

        chosen = (*(field.attribute for field in query.model._meta.fields), *shown(query))
        if made._clauses is not None and made._clauses.group is not None:
            chosen = (*made._clauses.group, *shown(query))
    if "pk" in chosen and made.options.has_composite_key and "pk" not in made._annotations:
        mode, chosen = _composite_key(made, mode, chosen)
    for name in chosen:
        if annotation_in(made._annotations, name) is None:
            made.options.path(name)
    made._chosen = (mode, tuple(dict.fromkeys(chosen)))
    if of_groups:
        made = annotate(made, {name: resolved[name] for name in of_groups})
        # In the order in which they were named.
        made._chosen = (mode, (*names, *expressions))
    if mode == "named":
        assert made._chosen is not None
        row_class(made._chosen[1])
    return made


def _composite_key(query: QuerySet[Any], mode: str, chosen: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The columns of a key of several, which are a tuple where nothing else is asked for."""
    if mode != "flat":
        raise QueryError(
            f"the key of {query.model.__name__} has several columns, which are named one by one: "
            f"({key_names(query.options)}); values_list('pk', flat=True) gives it as a tuple"
        )
    return "tuples", tuple(field.attribute for field in query.options.primary_key)


def _choose_of_combined(
    query: QuerySet[Any], mode: str, names: Sequence[str], expressions: Mapping[str, Any]
) -> QuerySet[Any]:
    raise QueryError(
        "values() of a set operation: choose the columns of the queries that it is made of, as in "
        "`a.values('name').union(b.values('name'))`"
    )


def _is_of_own_rows(query: QuerySet[Any], expression: Expression[Any]) -> bool:
    """Whether an aggregate is of the rows of the query's own table, and not of a relation's."""
    from covet_orm.expressions.aggregates import names_in

    if not expression.aggregates:
        return False
    annotations = query._annotations
    return not any(
        annotation_in(annotations, name) is None and many_relations(query.options.path(name).relations)
        for name in names_in([expression])
    )


def _check_name(query: QuerySet[Any], name: str) -> None:
    known = query.options
    if name in known.by_name or name in known.relations or name == "pk" or hasattr(query.model, name):
        raise FieldError(f"{known.model.__name__} has something called {name!r}; give the annotation another name")
    if not name.isidentifier() or name.startswith("__"):
        raise FieldError(f"{name!r:.100} is no name of an annotation: it becomes an attribute, and is to be one")
    check_identifier(name, "postgresql", "annotation")
