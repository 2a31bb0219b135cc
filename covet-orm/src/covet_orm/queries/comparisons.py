"""Conditions that `filter(field__lookup=value)` makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.expressions.base import Add, Expression
from covet_orm.expressions.conditions import Combined, Condition
from covet_orm.queries.lookups import Lookup, split_lookup

if TYPE_CHECKING:
    from covet_orm.models.options import Options
    from covet_orm.models.relations import Relation
    from covet_orm.queries.scope import Scope

__all__ = ["FoundLookup", "KeywordComparison", "RelatedCondition", "find_comparison"]


class FoundLookup:
    """What the keyword of a lookup stands for; made once for each keyword and model, and its own key in a shape.

    Attributes:
        name: the path without the lookup.
        lookup: the lookup.
        many: the relations up to the first that leads to many, inclusive; empty where none does.
        inner: the path from there.
    """

    __slots__ = ("inner", "lookup", "many", "name")

    def __init__(self, name: str, lookup: Lookup, many: tuple[Relation, ...], inner: str) -> None:
        self.name = name
        self.lookup = lookup
        self.many = many
        self.inner = inner


def find_comparison(options: Options, keyword: str) -> FoundLookup:
    """What a keyword stands for.

    Raises:
        FieldError: there is no such field, relation, transform or lookup.
    """
    found: FoundLookup | None = options.lookups.get(keyword)
    if found is None:
        path = options.path(keyword)
        transforms, lookup = split_lookup(path.field, path.rest, keyword)
        names = keyword.split("__")
        name = "__".join(names[: len(names) - len(path.rest) + len(transforms)])
        many: tuple[Relation, ...] = ()
        inner = name
        for position, relation in enumerate(path.relations, 1):
            if relation.many:
                many = path.relations[:position]
                inner = "__".join(name.split("__")[position:]) or "pk"
                break
        found = options.lookups[keyword] = FoundLookup(name, lookup, many, inner)
    return found


class KeywordComparison(Condition):
    """A lookup by keyword with its value."""

    __slots__ = ("found", "value")

    def __init__(self, found: FoundLookup, value: Any) -> None:
        self.found = found
        self.value = value

    def parts(self) -> Iterable[Expression[Any]]:
        return (self.value,) if isinstance(self.value, Expression) else ()

    def shape(self, key: Add, values: Add) -> None:
        key(self.found)
        self.found.lookup.shape(self.value, key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        column, field = scope.resolve(self.found.name if not self.found.many else self.found.inner)
        return self.found.lookup.build(scope, column, field, self.value)

    def __repr__(self) -> str:
        return f"{self.found.name}__{self.found.lookup.name}={self.value!r}"


class RelatedCondition(Condition):
    """There is a related object that conditions hold for: EXISTS, so that no row of the query is there twice."""

    __slots__ = ("condition", "relations")

    def __init__(self, relations: tuple[Relation, ...], conditions: Sequence[Condition]) -> None:
        self.relations = relations
        self.condition = conditions[0] if len(conditions) == 1 else Combined("and", conditions)

    def parts(self) -> Iterable[Expression[Any]]:
        return ()

    def shape(self, key: Add, values: Add) -> None:
        key(("exists", self.relations))
        self.condition.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        from covet_orm.queries.scope import Scope

        *before, last = self.relations
        outer = scope.join(before)
        inner = Scope(last.target._meta, scope.kind, outer=scope)
        first = last.hops[0]
        links: list[ColumnElement[Any]] = []
        clause_table = inner.root
        extra: list[Any] = []
        if len(last.hops) == 2:
            through = first.target.__table__.alias()
            second = last.hops[1]
            extra = [through]
            links += [
                through.c[a.column] == clause_table.c[b.column]
                for a, b in zip(second.local, second.remote, strict=True)
            ]
            clause_table = through
        links += [outer.c[a.column] == clause_table.c[b.column] for a, b in zip(first.local, first.remote, strict=True)]
        condition = self.condition.build(inner)
        found = sqlalchemy.select(sqlalchemy.literal_column("1")).select_from(inner.from_clause(), *extra)
        return found.where(*links, condition).correlate_except(*inner.joins.values(), *extra).exists()

    def __repr__(self) -> str:
        return f"{'__'.join(relation.name for relation in self.relations)}: {self.condition!r}"
