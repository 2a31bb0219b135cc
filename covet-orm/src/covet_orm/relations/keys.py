"""Conditions on many keys at once, in batches that a database takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from covet_orm.expressions.conditions import Combined

if TYPE_CHECKING:
    from covet_orm.expressions.base import Expression
    from covet_orm.expressions.conditions import Condition
    from covet_orm.fields.base import Field

__all__ = ["batches", "has_key", "key_getter"]

BATCH = {"postgresql": 65536, "sqlite": 16384, "mysql": 16384, "mariadb": 16384}
"""How many keys go into one statement. PostgreSQL takes them as one array. SQLite takes 32,766 parameters
(https://sqlite.org/limits.html, section 9), of which a query has some of its own; the others get them within the text,
which `max_allowed_packet` bounds. Powers of two, to which the lookup `in` rounds up."""

COMPOSITE_BATCH = 256
"""How many keys of several columns, whose conditions are written one by one."""


def key_getter(fields: Sequence[Field[Any]]) -> Callable[[Any], Any]:
    """Gives the key of an object: the value of one field, or a tuple of several."""
    return attrgetter(*(field.attribute for field in fields))


def batches(keys: Sequence[Any], kind: str, columns: int = 1) -> Iterator[Sequence[Any]]:
    """Keys in batches that a database takes in one statement.

    Args:
        keys: values, or tuples where a key has several columns.
        kind: the database's.
        columns: how many columns a key has.
    """
    size = BATCH[kind] if columns == 1 else COMPOSITE_BATCH
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def has_key(columns: Sequence[Expression[Any]], keys: Sequence[Any]) -> Condition:
    """Whether columns have one of some keys.

    Args:
        columns: the expressions of the columns.
        keys: values, or tuples where there are several columns.
    """
    if len(columns) == 1:
        return columns[0].in_(keys)
    return Combined(
        "or",
        [Combined("and", [column == part for column, part in zip(columns, key, strict=True)]) for key in keys],
    )
