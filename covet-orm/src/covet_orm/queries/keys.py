"""Primary keys of several columns: `get(pk=(1, 2))`, `filter(pk__in=[(1, 2), (1, 3)])`, `order_by("pk")`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.expressions.base import Add, Expression
from covet_orm.expressions.conditions import Condition

if TYPE_CHECKING:
    from covet_orm.expressions.base import Ordering
    from covet_orm.models.options import Options
    from covet_orm.queries.scope import Scope

__all__ = ["KeyIsOneOf", "expand_lookups", "expand_order"]


class KeyIsOneOf(Condition):
    """The key of several columns is one of some keys.

    Args:
        options: the model's.
        keys: the keys, each with a value for each column.
    """

    __slots__ = ("keys", "options", "size")

    def __init__(self, options: Options, keys: Sequence[tuple[Any, ...]]) -> None:
        self.options = options
        self.keys = keys
        # As of the lookup `in`: few statements for lists of every length.
        self.size = 1 << (len(keys) - 1).bit_length() if keys else 0

    def shape(self, key: Add, values: Add) -> None:
        key(("key is one of", self.options.primary_key, self.size))
        if self.keys:
            for column in zip(*self.keys, strict=True):
                values(list(column))

    def build(self, scope: Scope) -> ColumnElement[Any]:
        if not self.keys:
            return sqlalchemy.false()
        fields = self.options.primary_key
        # One list of parameters for each column, in the order of `shape`; SQLite has no tuples of values in a list.
        columns = [(scope.resolve(field.attribute)[0], scope.spread(field, self.size)) for field in fields]
        return sqlalchemy.or_(
            *(sqlalchemy.and_(*(column == values[number] for column, values in columns)) for number in range(self.size))
        )

    def __repr__(self) -> str:
        return f"(pk in {self.keys!r})"


def expand_lookups(options: Options, lookups: Mapping[str, Any]) -> tuple[list[Condition], dict[str, Any]]:
    """The conditions of the lookups that concern a key of several columns, and the other lookups.

    Raises:
        QueryError: a value is no tuple of as many values as the key has columns.
        FieldError: a lookup that such a key does not have.
    """
    conditions: list[Condition] = []
    others: dict[str, Any] = {}
    for name, value in lookups.items():
        bare, _, lookup = name.partition("__")
        if bare != "pk":
            others[name] = value
        elif lookup in ("", "exact"):
            conditions.append(KeyIsOneOf(options, [_key(options, value)]))
        elif lookup == "in":
            if isinstance(value, (str, bytes, Expression)) or not hasattr(value, "__iter__"):
                raise QueryError(f"{name}={value!r}: a list of tuples is needed")
            conditions.append(KeyIsOneOf(options, [_key(options, one) for one in value]))
        else:
            raise FieldError(
                f"{name!r}: the key of {options.model.__name__} has several columns, and the lookups exact and in; its "
                f"columns have the others: {_names(options)}"
            )
    return conditions, others


def expand_order(options: Options, names: Sequence[str | Expression[Any] | Ordering]) -> list[Any]:
    """What to order by, with the columns of the key in place of `pk`."""
    found: list[Any] = []
    for name in names:
        if name in ("pk", "-pk") and isinstance(name, str):
            found += [f"{name.removesuffix('pk')}{field.name}" for field in options.primary_key]
        else:
            found.append(name)
    return found


def _key(options: Options, value: Any) -> tuple[Any, ...]:
    count = len(options.primary_key)
    if not isinstance(value, (tuple, list)) or len(value) != count or any(part is None for part in value):
        raise QueryError(
            f"pk={value!r}: the key of {options.model.__name__} is a tuple of {count} values: ({_names(options)})"
        )
    return tuple(value)


def _names(options: Options) -> str:
    return ", ".join(field.name for field in options.primary_key)
