"""Conditions: what `filter` and `exclude` take.

`Q(age__gt=3)` names fields by keywords, `User.age > 3` by expressions; both combine with `&`, `|`, `^` and `~`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, Expression

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.lookups import Lookup
    from covet_orm.queries.scope import Scope

__all__ = ["Combined", "Comparison", "Condition", "Q"]


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

    def resolved(self, scope: Scope) -> Condition:
        """The condition with its names looked up: what is compiled. Raises FieldError for a name that is not there."""
        return self

    def output(self, scope: Scope) -> Field[Any]:
        from covet_orm.fields.numbers import BooleanField

        return BooleanField(null=True)


class Comparison(Condition):
    """An expression, a lookup and a value: `User.age > 3`."""

    __slots__ = ("left", "lookup", "value")

    def __init__(self, left: Expression[Any], lookup: Lookup, value: Any) -> None:
        self.left = left
        self.lookup = lookup
        self.value = value

    def parts(self) -> Iterable[Expression[Any]]:
        return (self.left, self.value) if isinstance(self.value, Expression) else (self.left,)

    def shape(self, key: Add, values: Add) -> None:
        self.left.shape(key, values)
        self.lookup.shape(self.value, key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        left = self.left.build(scope)
        return self.lookup.build(scope, left, self.left.output(scope), self.value)

    def __repr__(self) -> str:
        return f"({self.left!r} {self.lookup.name} {self.value!r})"


class Combined(Condition):
    """Conditions that are combined: by `and`, `or`, `xor`, or one that is negated by `not`.

    A negated condition holds for every row that the condition does not hold for, whether it is false there or NULL: what
    `exclude` leaves is what `filter` does not give.
    """

    __slots__ = ("connector", "conditions")

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

    def resolved(self, scope: Scope) -> Condition:
        return Combined(self.connector, [condition.resolved(scope) for condition in self.conditions])

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

    def resolved(self, scope: Scope) -> Condition:
        found = [
            *(condition.resolved(scope) for condition in self.conditions),
            *scope.comparisons(self.lookups),
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


def negated(condition: ColumnElement[Any]) -> ColumnElement[Any]:
    """True wherever a condition is false or NULL."""
    return sqlalchemy.not_(sqlalchemy.func.coalesce(condition, sqlalchemy.false()))


def _condition(value: Any) -> Condition:
    if isinstance(value, Condition):
        return value
    raise QueryError(
        f"{value!r} is no condition; one is made by Q(field=value), by `Model.field > value`, or by Exists()"
    )
