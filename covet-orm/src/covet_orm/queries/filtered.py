"""Relations with a condition: `annotate(cheap=FilteredRelation("books", Q(books__price__lt=10)))`, then `cheap__title`.

The name stands for the objects that the relation leads to and that the condition holds for: in conditions, aggregates
and values, wherever the relation itself could stand.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, FromClause
from sqlalchemy.sql import visitors

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.expressions.base import Add
from covet_orm.expressions.conditions import Condition
from covet_orm.queries.clauses import NONE
from covet_orm.queries.names import Names
from covet_orm.queries.scope import Scope

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.models.options import Options
    from covet_orm.models.relations import Relation
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Filtered", "FilteredRelation", "add_filtered"]


class FilteredRelation:
    """A relation with a condition, for `annotate`.

    Args:
        relation: the name of a relation of the model.
        condition: which of its objects: of the relation's own fields (`books__price`) and of those of the model.

    Raises:
        QueryError: the condition is none.
    """

    __slots__ = ("condition", "relation")

    def __init__(self, relation: str, condition: Condition) -> None:
        if not isinstance(condition, Condition):
            raise QueryError(f"FilteredRelation({relation!r}, {condition!r}): a condition is needed, such as Q(...)")
        self.relation = relation
        self.condition = condition

    def __repr__(self) -> str:
        return f"FilteredRelation({self.relation!r}, {self.condition!r})"


class Filtered:
    """A filtered relation of a query.

    Args:
        name: what the query calls it.
        relation: the relation.
        condition: its condition, resolved.
    """

    __slots__ = ("condition", "name", "relation")

    def __init__(self, name: str, relation: Relation, condition: Condition) -> None:
        self.name = name
        self.relation = relation
        self.condition = condition

    def shape(self, key: Add, values: Add) -> None:
        """As of an expression."""
        key(("filtered", self.name, self.relation))
        self.condition.shape(key, values)

    def build(self, scope: Scope) -> None:
        """Build the condition, once: it has its parameters once, however often the relation is joined."""
        inner = _Prototype(self.relation, scope)
        built = self.condition.build(inner)
        prototype = inner.root

        def condition(table: FromClause) -> ColumnElement[bool]:
            def place(element: Any, **options: Any) -> Any:
                return table.c[element.key] if getattr(element, "table", None) is prototype else None

            joined: ColumnElement[bool] = visitors.replacement_traverse(built, {}, place)
            return joined

        scope.filtered[self.name] = condition


class _Prototype(Scope):
    """The scope of a condition: of one object that the relation leads to, beside the row of the query."""

    def __init__(self, relation: Relation, outer: Scope) -> None:
        super().__init__(outer.options, outer.kind, parameters=outer.parameters)
        self.outer = outer
        self.relation = relation
        self.row_chain = (relation,)
        self.root = relation.target.__table__.alias()

    def column(self, relations: Sequence[Relation], field: Field[Any]) -> ColumnElement[Any]:
        assert self.outer is not None
        if not relations:
            return self.outer.column((), field)
        if tuple(relations) != (self.relation,) or field.column not in self.root.c:
            raise QueryError(
                f"the condition of a FilteredRelation is of the fields of {self.relation.name!r} and of the model's "
                "own: "
                f"{field!r} is further away"
            )
        column: ColumnElement[Any] = self.root.c[field.column]
        return column


def add_filtered(query: QuerySet[Any], name: str, given: FilteredRelation) -> QuerySet[Any]:
    """A query that has a filtered relation.

    Raises:
        FieldError: there is no such relation.
    """
    relation = query.options.relations.get(given.relation)
    if relation is None:
        told = query.options.unknown(given.relation) if "__" not in given.relation else "it takes one relation, no path"
        raise FieldError(f"FilteredRelation({given.relation!r}): {told}")
    names = Names(query.options, query._annotations)
    condition = given.condition.resolved(names)
    clauses = query._clauses or NONE
    made = query._copy()
    filtered = (*clauses.filtered, Filtered(name, relation, condition))
    made._clauses = clauses.but(
        filtered=filtered, options=_with(query.model._meta, tuple((one.name, one.relation) for one in filtered))
    )
    return made


known: WeakKeyDictionary[type[Any], dict[Any, Options]] = WeakKeyDictionary()


def _with(options: Options, filtered: tuple[tuple[str, Relation], ...]) -> Options:
    """The options of a model with further relations; the same ones for the same relations, whose lookups are kept."""
    kept = known.setdefault(options.model, {})
    key = (filtered, tuple(options.relations))
    found = kept.get(key)
    if found is None:
        found = kept[key] = copy.copy(options)
        found.relations = {**options.relations, **{name: one._replace(name=name) for name, one in filtered}}
        found.paths, found.lookups = {}, {}
    return found
