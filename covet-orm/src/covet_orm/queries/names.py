"""What the names in an expression stand for, in the query that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import QueryError
from covet_orm.expressions.references import ColumnReference, F

if TYPE_CHECKING:
    from covet_orm.expressions.base import Expression
    from covet_orm.expressions.conditions import Condition
    from covet_orm.fields.base import Field
    from covet_orm.models.options import Options
    from covet_orm.models.relations import Relation
    from covet_orm.queries.scope import Scope

__all__ = ["Names", "annotation_in", "many_relations"]


class Names:
    """The names of a query, while an expression is resolved for it.

    Args:
        options: the model's.
        annotations: what names stand for expressions.
    """

    __slots__ = ("_scope", "annotations", "options")

    def __init__(self, options: Options, annotations: Mapping[str, Expression[Any]]) -> None:
        self.options = options
        self.annotations = annotations
        self._scope: Scope | None = None

    def comparisons(self, lookups: Mapping[str, Any]) -> list[Condition]:
        """The conditions that keywords stand for. Those across one relation to many concern the same object there.

        Raises:
            FieldError: a name or a lookup is not there.
        """
        from covet_orm.queries.comparisons import KeywordComparison, RelatedCondition, find_comparison

        found: list[Condition] = []
        grouped: dict[tuple[Relation, ...], list[Condition]] = {}
        if self.options.has_composite_key:
            from covet_orm.queries.keys import expand_lookups

            found, lookups = expand_lookups(self.options, lookups)
        for keyword, value in lookups.items():
            if self.annotations and annotation_in(self.annotations, keyword) is not None:
                found.append(self.annotated(keyword, value))
                continue
            known = find_comparison(self.options, keyword)
            if value is None and known.absence:
                known, value = find_comparison(self.options, known.absence), True
            condition = KeywordComparison(known, value, self)
            if known.many:
                grouped.setdefault(known.many, []).append(condition)
            else:
                found.append(condition)
        return [*found, *(RelatedCondition(relations, conditions) for relations, conditions in grouped.items())]

    def annotated(self, keyword: str, value: Any) -> Condition:
        """The condition of a keyword that begins with the name of an annotation.

        Raises:
            FieldError: there is no such lookup.
        """
        from covet_orm.expressions.conditions import Comparison
        from covet_orm.queries.lookup_names import find_lookup, split_lookup

        name = annotation_in(self.annotations, keyword)
        assert name is not None
        rest = keyword[len(name) + 2 :]
        field = self.field(F(name))
        if field is None:
            # A name of a query around this one, whose type is not known before that one is.
            if "__" in rest:
                raise QueryError(f"{keyword!r}: the type of {name!r} is not known yet, and so not what it is made of")
            return Comparison(F(name), find_lookup(rest or "exact"), value).resolved(self)
        found = split_lookup(field, rest.split("__") if rest else (), keyword)
        return Comparison(F("__".join([name, *found.names])), found.lookup, value).resolved(self)

    def many(self, name: str) -> tuple[Relation, ...]:
        """The relations of a path up to the first that leads to many; empty where none does."""
        if self.annotations and annotation_in(self.annotations, name) is not None:
            return ()
        return many_relations(self.options.path(name).relations)

    def field(self, expression: Expression[Any]) -> Field[Any] | None:
        """The field of an expression's values; None where it is not known before the expression is compiled."""
        if isinstance(expression, ColumnReference):
            return expression.field
        if self._scope is None:
            from covet_orm.queries.scope import Scope

            # What databases differ in is not the type of a result.
            self._scope = Scope(self.options, "postgresql", annotations=self.annotations)
        try:
            return expression.output(self._scope)
        except QueryError:
            return None


def annotation_in(annotations: Mapping[str, Any], name: str) -> str | None:
    """The annotation that a name begins with; None where it begins with none."""
    if name in annotations:
        return name
    while "__" in name:
        name = name.rpartition("__")[0]
        if name in annotations:
            return name
    return None


def many_relations(relations: tuple[Relation, ...]) -> tuple[Relation, ...]:
    """Relations up to the first that leads to many, inclusive; empty where none does."""
    for position, relation in enumerate(relations, 1):
        if relation.many:
            return relations[:position]
    return ()
