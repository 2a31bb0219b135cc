"""Conditions: what `filter` and `exclude` take.

`Q(age__gt=3)` names fields by keywords, `User.age > 3` by expressions; both combine with `&`, `|`, `^` and `~`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, Expression

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from covet_orm.fields.base import Field
    from covet_orm.models.relations import Relation
    from covet_orm.queries.lookups import Lookup
    from covet_orm.queries.names import Names
    from covet_orm.queries.scope import Scope

__all__ = [
    "Combined",
    "Comparison",
    "Condition",
    "Q",
    "across_many",
    "negated",
    "parts_of",
    "replaced_in",
]


class Condition(Expression[bool]):
    """Something that is true or false of a row (or neither, where SQL has NULL)."""

    __slots__ = ()

    def __and__(self, other: Condition) -> Condition:
        return Combined("and", (self, _condition(other)))

    def __or__(self, other: Condition) -> Condition:
        return Combined("or", (self, _condition(other)))

    def __xor__(self, other: Condition) -> Condition:
        return Combined("xor", (self, _condition(other)))

    def __invert__(self) -> Condition:
        return Combined("not", (self,))

    def resolved(self, names: Names) -> Condition:
        """The condition with its names looked up: what is compiled. Raises FieldError for a name that is not there."""
        found = super().resolved(names)
        assert isinstance(found, Condition)
        return found

    def output(self, scope: Scope) -> Field[Any]:
        from covet_orm.fields.numbers import BooleanField

        return BooleanField(null=True)


class Comparison(Condition):
    """An expression, a lookup and a value: `User.age > 3`."""

    __slots__ = ("left", "operator", "value")

    def __init__(self, left: Expression[Any], lookup: Lookup, value: Any) -> None:
        self.left = left
        self.operator = lookup
        self.value = value

    def parts(self) -> Iterable[Expression[Any]]:
        return (self.left, *parts_of(self.value))

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        return Comparison(parts[0], self.operator, replaced_in(self.value, parts[1:]))

    def resolved(self, names: Names) -> Condition:
        if type(self.left) is _column_reference() and self.operator.is_plain and not parts_of(self.value):
            return self
        from covet_orm.queries.lookup_names import refined

        left = self.left.resolved(names)
        field = names.field(left)
        lookup = self.operator if field is None else refined(self.operator, field)
        value = lookup.prepared(self.value, field)
        value = replaced_in(value, [part.resolved(names) for part in parts_of(value)])
        return across_many(Comparison(left, lookup, value), names)

    def shape(self, key: Add, values: Add) -> None:
        self.left.shape(key, values)
        self.operator.shape(self.value, key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        left = self.left.build(scope)
        return self.operator.build(scope, left, self.left.output(scope), self.value)

    def __repr__(self) -> str:
        return f"({self.left!r} {self.operator.name} {self.value!r})"


class Combined(Condition):
    """Conditions that are combined: by `and`, `or`, `xor`, or one that is negated by `not`.

    A negated condition holds for every row that the condition does not hold for, whether it is false there or NULL:
    what
    `exclude` leaves is what `filter` does not give.
    """

    __slots__ = ("conditions", "connector")

    def __init__(self, connector: str, conditions: Sequence[Condition]) -> None:
        self.connector = connector
        self.conditions = tuple(conditions)

    def parts(self) -> Iterable[Expression[Any]]:
        return self.conditions

    def shape(self, key: Add, values: Add) -> None:
        key((self.connector, len(self.conditions)))
        for condition in self.conditions:
            condition.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        built = [condition.build(scope) for condition in self.conditions]
        if self.connector == "and":
            return sqlalchemy.and_(sqlalchemy.true(), *built)
        if self.connector == "or":
            return sqlalchemy.or_(sqlalchemy.false(), *built)
        if self.connector == "xor":
            odd = sum(sqlalchemy.case((one, 1), else_=0) for one in built) % 2
            return sqlalchemy.cast(odd, sqlalchemy.Integer) == sqlalchemy.literal_column("1")
        return negated(built[0])

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        return Combined(self.connector, [_condition(part) for part in parts])

    def resolved(self, names: Names) -> Condition:
        return Combined(self.connector, [condition.resolved(names) for condition in self.conditions])

    def __repr__(self) -> str:
        if self.connector == "not":
            return f"~{self.conditions[0]!r}"
        return "(" + f" {self.connector} ".join(map(repr, self.conditions)) + ")"


class Q(Condition):
    """Lookups by keyword that can be combined: `Q(name="Ada") | Q(age__gt=30)`.

    Args:
        conditions: further conditions that must hold as well.
        lookups: `field=value`, `field__lookup=value`, `relation__field__lookup=value`.
    """

    __slots__ = ("conditions", "lookups")

    def __init__(self, *conditions: Condition, **lookups: Any) -> None:
        self.conditions = tuple(_condition(condition) for condition in conditions)
        self.lookups = lookups

    def resolved(self, names: Names) -> Condition:
        found = [
            *(condition.resolved(names) for condition in self.conditions),
            *names.comparisons(self.lookups),
        ]
        return found[0] if len(found) == 1 else Combined("and", found)

    def shape(self, key: Add, values: Add) -> None:
        raise QueryError(f"{self!r} is not resolved yet; it can be used in a query only")

    def parts(self) -> Iterable[Expression[Any]]:
        yield from self.conditions
        for value in self.lookups.values():
            if isinstance(value, Expression):
                yield value

    def __repr__(self) -> str:
        told = [*map(repr, self.conditions), *(f"{name}={value!r}" for name, value in self.lookups.items())]
        return f"Q({', '.join(told)})"


def across_many(condition: Condition, names: Names) -> Condition:
    """A condition that names what relations to many lead to: that there are such objects for which it holds."""
    from covet_orm.queries.comparisons import RelatedCondition

    for relations in _many_in(condition.parts(), names):
        condition = RelatedCondition(relations, (condition,))
    return condition


def _many_in(parts: Iterable[Expression[Any]], names: Names) -> list[tuple[Relation, ...]]:
    from covet_orm.expressions.references import F

    found: list[tuple[Relation, ...]] = []
    for part in parts:
        if isinstance(part, F):
            relations = names.many(part.name)
            if relations and relations not in found:
                found.append(relations)
        elif not part.aggregates and not isinstance(part, Condition):
            found += [relations for relations in _many_in(part.parts(), names) if relations not in found]
    return found


def parts_of(value: Any) -> tuple[Expression[Any], ...]:
    """The expressions that the value of a lookup is, or has in it."""
    if isinstance(value, Expression):
        return (value,)
    if isinstance(value, (list, tuple)):
        return tuple(part for part in value if isinstance(part, Expression))
    return ()


def replaced_in(value: Any, parts: Sequence[Expression[Any]]) -> Any:
    """The value of a lookup with other expressions in it, in the order of `parts_of`."""
    if not parts:
        return value
    if isinstance(value, Expression):
        return parts[0]
    left = iter(parts)
    return [next(left) if isinstance(part, Expression) else part for part in value]


@cache
def _column_reference() -> type[Any]:
    from covet_orm.expressions.references import ColumnReference

    return ColumnReference


def negated(condition: ColumnElement[Any]) -> ColumnElement[Any]:
    """True wherever a condition is false or NULL."""
    return sqlalchemy.not_(sqlalchemy.func.coalesce(condition, sqlalchemy.false()))


def _condition(value: Any) -> Condition:
    if isinstance(value, Condition):
        return value
    raise QueryError(
        f"{value!r} is no condition; one is made by Q(field=value), by `Model.field > value`, or by Exists()"
    )
