"""Conditions that `filter(field__lookup=value)` makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, Expression
from covet_orm.expressions.conditions import Combined, Condition, parts_of, replaced_in
from covet_orm.fields.related import ForeignKey
from covet_orm.queries.lookup_names import split_lookup
from covet_orm.queries.lookups import IsNull
from covet_orm.queries.names import many_relations

if TYPE_CHECKING:
    from covet_orm.models.options import Options
    from covet_orm.models.relations import Relation
    from covet_orm.queries.names import Names
    from covet_orm.queries.scope import Scope

__all__ = ["FoundLookup", "KeywordComparison", "RelatedCondition", "find_comparison", "merged"]


class FoundLookup:
    """What the keyword of a lookup stands for; made once for each keyword and model, and its own key in a shape.

    Attributes:
        name: the path without the lookup.
        lookup: the lookup.
        relations: the relations of the path.
        many: those up to the first that leads to many, inclusive; empty where none does.
        objects: the model whose objects stand for their keys as values; None where the path ends with a field.
        presence: whether it asks if a relation to many leads to anything at all.
        absence: the keyword that asks this, of one that compares the objects of a relation to many with a value, where
            None is the value: none of them is NULL, and what is meant is that there is none. Else empty.
    """

    __slots__ = ("absence", "field", "lookup", "many", "name", "objects", "presence", "relations")

    def __init__(self, options: Options, keyword: str) -> None:
        path = options.path(keyword)
        more: list[str] = []
        if path.rest and isinstance(path.field, ForeignKey):
            more = _names(path.field.target)
        elif path.rest and path.relations:
            more = _names(path.relations[-1].target)
        found = split_lookup(path.field, path.rest, keyword, more)
        before = keyword.split("__")
        self.name = "__".join([*before[: len(before) - len(path.rest)], *found.names])
        self.lookup = found.lookup
        self.relations = path.relations
        self.field = found.field
        ends = not found.names and bool(path.relations) and _ends_with_relation(before, path)
        self.objects: type[Any] | None = path.relations[-1].target if ends else None
        if self.objects is not None and self.objects._meta.has_composite_key and found.lookup.name in ("exact", "in"):
            from covet_orm.queries.keys import ObjectsOfSeveralColumns

            self.lookup = ObjectsOfSeveralColumns(found.lookup.name, self.objects._meta)
        self.presence = ends and path.relations[-1].many and isinstance(found.lookup, IsNull)
        self.many = many_relations(path.relations[:-1] if self.presence else path.relations)
        compares = ends and path.relations[-1].many and found.lookup.name == "exact"
        self.absence = f"{keyword.removesuffix('__exact')}__isnull" if compares else ""


def find_comparison(options: Options, keyword: str) -> FoundLookup:
    """What a keyword stands for.

    Raises:
        FieldError: there is no such field, relation, transform or lookup.
    """
    found: FoundLookup | None = options.lookups.get(keyword)
    if found is None:
        found = options.lookups[keyword] = FoundLookup(options, keyword)
    return found


class KeywordComparison(Condition):
    """A lookup by keyword with its value.

    Args:
        found: what the keyword stands for.
        value: the value.
        names: what names in a value that is an expression stand for.
    """

    __slots__ = ("found", "value")

    def __init__(self, found: FoundLookup, value: Any, names: Names | None = None) -> None:
        self.found = found
        if found.objects is not None:
            value = _keys(value, found.objects)
        lookup = found.lookup
        if not lookup.is_plain:
            value = lookup.prepared(value, found.field)
        if names is not None and isinstance(value, (Expression, list, tuple)):
            parts = parts_of(value)
            if parts:
                value = replaced_in(value, [part.resolved(names) for part in parts])
        self.value = value

    def parts(self) -> Iterable[Expression[Any]]:
        return parts_of(self.value)

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        return KeywordComparison(self.found, replaced_in(self.value, parts))

    def shape(self, key: Add, values: Add) -> None:
        key(self.found)
        self.found.lookup.shape(self.value, key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        found = self.found
        if found.presence:
            there = RelatedCondition(found.relations, ()).build(scope)
            return sqlalchemy.not_(there) if self.value else there
        further = _not_covered(scope, found.relations)
        if further:
            return RelatedCondition(further, (self,)).build(scope)
        column, field = scope.resolve(found.name)
        return found.lookup.build(scope, column, field, self.value)

    def __repr__(self) -> str:
        return f"{self.found.name}__{self.found.lookup.name}={self.value!r}"


class RelatedCondition(Condition):
    """There is a related object that conditions hold for: EXISTS, so that no row of the query is there twice.

    Args:
        relations: what leads there, the last of them to many.
        conditions: the conditions, of names of the query's own model; without any, that there is an object.
    """

    __slots__ = ("condition", "relations")

    def __init__(self, relations: tuple[Relation, ...], conditions: Sequence[Condition]) -> None:
        self.relations = relations
        self.condition: Condition | None = None
        if conditions:
            self.condition = conditions[0] if len(conditions) == 1 else Combined("and", conditions)

    def parts(self) -> Iterable[Expression[Any]]:
        return (self.condition,) if self.condition is not None else ()

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        return RelatedCondition(self.relations, [part for part in parts if isinstance(part, Condition)])

    def resolved(self, names: Names) -> Condition:
        return self

    def shape(self, key: Add, values: Add) -> None:
        key(("exists", self.relations, self.condition is None))
        if self.condition is not None:
            self.condition.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        from covet_orm.queries.scope import RelatedScope

        if self.condition is not None and scope.covers(self.relations):
            return self.condition.build(scope)
        inner = RelatedScope(self.relations, scope)
        return inner.exists(None if self.condition is None else self.condition.build(inner))

    def __repr__(self) -> str:
        return f"{'__'.join(relation.name for relation in self.relations)}: {self.condition!r}"


def merged(conditions: Iterable[Condition]) -> list[Condition]:
    """Conditions that all must hold, in which those across one relation to many concern the same object there."""
    found: list[Condition] = []
    grouped: dict[tuple[Relation, ...], list[Condition]] = {}
    waiting = list(conditions)
    while waiting:
        condition = waiting.pop(0)
        if isinstance(condition, Combined) and condition.connector == "and":
            waiting[:0] = condition.conditions
        elif isinstance(condition, RelatedCondition) and condition.condition is not None:
            grouped.setdefault(condition.relations, []).append(condition.condition)
        else:
            found.append(condition)
    return [*found, *(RelatedCondition(relations, together) for relations, together in grouped.items())]


def _not_covered(scope: Scope, relations: tuple[Relation, ...]) -> tuple[Relation, ...]:
    """The relations up to the first that leads to many and that the rows of a scope do not come from."""
    if not scope.row_chain:
        return ()
    for position, relation in enumerate(relations, 1):
        if relation.many and not scope.covers(relations[:position]):
            return relations[:position]
    return ()


def _ends_with_relation(names: Sequence[str], path: Any) -> bool:
    last = names[len(names) - len(path.rest) - 1]
    return bool(last == path.relations[-1].name) and not isinstance(path.field, ForeignKey)


def _names(model: type[Any]) -> list[str]:
    return [*model._meta.by_name, *model._meta.relations]


def _keys(value: Any, model: type[Any]) -> Any:
    """Objects as their keys."""
    from covet_orm.models.instances import Model

    if isinstance(value, Model):
        if not isinstance(value, model):
            raise QueryError(f"{value!r} is no {model.__name__}, which the relation leads to")
        if value.pk is None:
            raise QueryError(f"{value!r} has no key yet: save it before a query names it")
        return value.pk
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_keys(one, model) for one in value]
    return value
