"""Expressions as source of Python: as people write them."""

from __future__ import annotations

import datetime as dt
import inspect
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from covet_migrate.exceptions import NotSerializable
from covet_migrate.files.layout import Bracket, Chain, Prefixed, Source, Suffixed, Text
from covet_migrate.files.literals import text_literal
from covet_migrate.state.expressions import unbound
from covet_orm import F, Ordering, Q, Value
from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Arithmetic
from covet_orm.expressions.conditions import Combined, Comparison

if TYPE_CHECKING:
    from covet_migrate.files.values import Values

__all__ = ["expression_source"]

CONNECTORS = {"and": "&", "or": "|", "xor": "^"}
OPERATORS = {"exact": "==", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
# What an operator or a function makes a Value of by itself, and what a person leaves to it.
BY_ITSELF = (int, float, Decimal, dt.date, dt.datetime, dt.time, dt.timedelta)


def expression_source(values: Values, value: Any, where: str) -> Source:
    """The source of an expression.

    Args:
        values: writes what is in it.
        value: the expression, or an ordering.
        where: what it is for, in a message.

    Raises:
        NotSerializable: it cannot be written, such as a subquery.
    """
    try:
        return _source(values, unbound(value), where)
    except QueryError as error:
        raise NotSerializable(f"{where}: {value!r} cannot be written into a migration: {error}") from error


def _source(values: Values, value: Any, where: str) -> Source:
    if isinstance(value, Ordering):
        options = {} if value.nulls is None else {"nulls": Text(text_literal(value.nulls))}
        direction = "desc" if value.descending else "asc"
        return Suffixed(
            values.source(value.expression, where), Bracket(f".{direction}(", values.keywords(options), ")")
        )
    if isinstance(value, Combined):
        return _combined(values, value, where)
    if isinstance(value, Comparison):
        return _comparison(values, value, where)
    if isinstance(value, Arithmetic):
        parts = _from_left(value, value.operator)
        first, *others = parts
        return Chain([values.source(first, where), *(_right(values, part, where) for part in others)], value.operator)
    return _call(values, value, where)


def _combined(values: Values, value: Combined, where: str) -> Source:
    if value.connector == "not":
        return Prefixed("~", values.source(value.conditions[0], where))
    if len(value.conditions) != 2:
        return values.call(Combined, *value.declared, where)
    parts = _from_left(value, value.connector)
    return Chain([values.source(part, where) for part in parts], CONNECTORS[value.connector])


def _from_left(value: Any, operator: str) -> list[Any]:
    """The operands of an operator that stand beside each other without parentheses: `(a + b) + c`."""
    if isinstance(value, Arithmetic) and value.operator == operator:
        return [*_from_left(value.left, operator), value.right]
    if isinstance(value, Combined) and value.connector == operator and len(value.conditions) == 2:
        return [*_from_left(value.conditions[0], operator), value.conditions[1]]
    return [value]


def _comparison(values: Values, value: Comparison, where: str) -> Source:
    left = values.source(value.left, where)
    operator = OPERATORS.get(value.operator.name)
    if operator is not None and value.value is not None and not isinstance(value.value, bool):
        return Chain([left, values.source(value.value, where)], operator)
    items = [("", Text(text_literal(value.operator.name))), ("", values.source(value.value, where))]
    return Suffixed(left, Bracket(".lookup(", items, ")"))


def _right(values: Values, value: Any, where: str) -> Source:
    return values.source(_plain(value, str), where)


def _plain(value: Any, *more: type[Any]) -> Any:
    """What stands for a Value where one is made of what is none."""
    if isinstance(value, Value) and value.field is None and type(value.value) in (*BY_ITSELF, *more):
        return value.value
    return value


def _call(values: Values, value: Any, where: str) -> Source:
    # Few models have any, and all functions come with them.
    from covet_orm import Case, Func, When

    kind: Any = type(value)
    args, options = value.declared
    if isinstance(value, Func) and kind.__init__ is Func.__init__:
        # Texts are names of fields there.
        args = tuple(one.name if isinstance(one, F) else _plain(one) for one in args)
    elif kind.__module__.startswith("covet_orm."):
        names = list(inspect.signature(kind.__init__).parameters)[1:]
        args = tuple(
            one.name if isinstance(one, F) and name == "expression" else one
            for one, name in zip(args, [*names, *[""] * len(args)], strict=False)
        )
        if isinstance(value, (Case, When)):
            options = {name: _plain(one, str, bool) for name, one in options.items()}
    if isinstance(value, Q) and not all(isinstance(name, str) for name in options):
        raise NotSerializable(f"{where}: {value!r} names what is no text")
    return values.call(kind, args, options, where)
