"""What an expression could be made with once more: by that it is written down, in migrations for instance.

Expressions do not keep the arguments that they were made with, as a query makes many of them. What they hold says the
same: an argument is the attribute of its name, or one of `arguments` of a function, in their order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Expression, Ordering, Value, field_key
from covet_orm.expressions.conditions import Comparison, Q
from covet_orm.expressions.references import ColumnReference, F
from covet_orm.fields.base import Declared, Field
from covet_orm.fields.inference import field_of

__all__ = ["declared_by", "unbound"]

Parameter = inspect.Parameter
MISSING = object()
# What is called otherwise where it is kept.
KEPT_AS = {"output_field": "field", "lookup": "operator"}
PLAIN = (str, int, bool, float, bytes, type(None))


def declared_by(expression: Expression[Any]) -> Declared:
    """The arguments that make an expression which is the same.

    Raises:
        QueryError: they cannot be told; the class has to say them by a property `declared`.
    """
    kind: Any = type(expression)
    waiting = list(getattr(expression, "arguments", ()))
    args: list[Any] = []
    options: dict[str, Any] = {}
    for parameter in _parameters(kind):
        name = parameter.name
        value = _kept(expression, name)
        if parameter.kind is Parameter.VAR_POSITIONAL:
            args += waiting if value is MISSING else value
            waiting = waiting if value is not MISSING and name != "arguments" else []
            continue
        if parameter.kind is Parameter.VAR_KEYWORD:
            options |= {} if value is MISSING else value
            continue
        if value is MISSING and waiting:
            value = waiting.pop(0)
        if value is MISSING:
            if parameter.default is Parameter.empty:
                raise QueryError(f"{expression!r} does not say what its {name!r} is: give {kind.__name__} `declared`")
            continue
        if parameter.default is Parameter.empty and parameter.kind is not Parameter.KEYWORD_ONLY:
            args.append(value)
        elif not _is_default(value, parameter.default):
            options[name] = value
    if waiting:
        raise QueryError(f"{expression!r} does not say what it was made with: give {kind.__name__} `declared`")
    return Declared(tuple(args), options)


def unbound_field(value: Any) -> Any:
    """A field that belongs to no model, of one that does; anything else as it is."""
    if not isinstance(value, Field):
        return value
    args, options = value.declared
    return type(value)(*map(unbound, args), **{name: unbound(one) for name, one in options.items()})


def unbound(value: Any, other: Callable[[Any], Any] = unbound_field) -> Any:
    """An expression without models, in the one form that is written down: `Q(age__gt=3)` of `User.age > 3`.

    A field of a class becomes its name, and a member of an enumeration its value: tomorrow there may be another class,
    and other members.

    Args:
        value: an expression, an ordering, or what has them in it: lists, tuples, sets and dictionaries.
        other: what becomes of everything else.

    Raises:
        QueryError: an expression cannot be written down, such as a subquery.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Expression):
        return _unbound_expression(value, other)
    if isinstance(value, Ordering):
        return Ordering(_unbound_expression(value.expression, other), descending=value.descending, nulls=value.nulls)
    if isinstance(value, Enum) and isinstance(value.value, (str, int)):
        # The value of a member of a StrEnum is a plain text, and that of an IntEnum a plain number.
        return value.value
    kind: Any = type(value)
    if isinstance(value, (list, tuple, set, frozenset)) and kind in (list, tuple, set, frozenset):
        return kind(unbound(one, other) for one in value)
    if isinstance(value, dict) and kind is dict:
        return {key: unbound(one, other) for key, one in value.items()}
    return other(value)


def _unbound_expression(value: Expression[Any], other: Callable[[Any], Any]) -> Any:
    if isinstance(value, F):
        return value
    if isinstance(value, ColumnReference):
        return F(value.field.name)
    if isinstance(value, Comparison):
        left, compared = _unbound_expression(value.left, other), unbound(value.value, other)
        if isinstance(left, F):
            name = value.operator.name
            return Q(**{left.name if name == "exact" else f"{left.name}__{name}": compared})
        return Comparison(left, value.operator, compared)
    if isinstance(value, Value):
        field = None if value.field is None or _is_inferred(value.field, value.value) else value.field
        return Value(unbound(value.value, other), unbound(field, other))
    args, options = value.declared
    options = {name: unbound(one, other) for name, one in options.items()}
    if isinstance(value, Q):
        options = {name.removesuffix("__exact"): one for name, one in options.items()}
    return type(value)(*(unbound(one, other) for one in args), **options)


def _is_inferred(field: Field[Any], value: Any) -> bool:
    """Whether a field is that which a value has by itself: a decimal is given it when its SQL is made."""
    try:
        return bool(field_key(field) == field_key(field_of(value)))
    except QueryError:
        return False


@cache
def _parameters(kind: Any) -> tuple[inspect.Parameter, ...]:
    return tuple(inspect.signature(kind.__init__).parameters.values())[1:]


@cache
def _slots(kind: Any) -> frozenset[str]:
    """The names that instances have a place for; what a class has under a name is no argument."""
    return frozenset(slot for one in kind.__mro__ for slot in getattr(one, "__slots__", ()))


def _kept(expression: Any, name: str) -> Any:
    name = KEPT_AS.get(name, name)
    if name not in _slots(expression.__class__) and name not in getattr(expression, "__dict__", ()):
        return MISSING
    return getattr(expression, name, MISSING)


def _is_default(value: Any, default: Any) -> bool:
    if default is None and isinstance(value, Value):
        # The default of a Case, for instance.
        return value.value is None and value.field is None
    if isinstance(default, (bool, int, str)):
        return type(value) is type(default) and bool(value == default)
    return value is default
