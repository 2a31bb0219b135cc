"""Expressions as a state holds them: without models, and in one form of those that say the same.

`User.age > 3` names a field of a class that will be another one tomorrow; a state has `Q(age__gt=3)` of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from covet_orm import Expression, Field, Ordering
from covet_orm.expressions import declaring
from covet_orm.expressions.conditions import Comparison
from covet_orm.indexes import Definition

__all__ = ["content", "unbound"]


def unbound(value: Any) -> Any:
    """A value of a declaration without models: expressions, fields, indexes and constraints, and what has them in it.

    Raises:
        QueryError: an expression has no place in a declaration, such as a subquery.
    """
    return declaring.unbound(value, _declared)


def content(value: Expression[Any] | Ordering) -> tuple[Any, ...]:
    """What an expression says, in parts that can be compared; expressions have no `==` of their own, as it makes a
    condition."""
    found: tuple[Any, ...] = _content(unbound(value))
    return found


def _declared(value: Any) -> Any:
    if isinstance(value, Field):
        from covet_migrate.state.declarations import migrated_field

        return migrated_field(value)
    if isinstance(value, Definition):
        args, options = value.declared
        return type(value)(*map(unbound, args), **{name: unbound(one) for name, one in options.items()})
    return value


def _content(value: Any) -> Any:
    if isinstance(value, Ordering):
        return (Ordering, _content(value.expression), value.descending, value.nulls)
    if isinstance(value, Comparison):
        return (Comparison, _content(value.left), value.operator.name, _content(value.value))
    if isinstance(value, Expression):
        args, options = value.declared
        return (type(value), _content(args), _content(options))
    if isinstance(value, (list, tuple)):
        return type(value)(map(_content, value)) if type(value) in (list, tuple) else value
    if isinstance(value, Mapping):
        return {name: _content(one) for name, one in value.items()}
    return value
