"""Rows as named tuples: what `values_list(named=True)` gives."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import QueryError
from covet_orm.queries.hydration import tuple_loader

if TYPE_CHECKING:
    from covet_orm.fields.base import Field

__all__ = ["named_loader", "row_class"]

Row: Any = namedtuple


def named_loader(
    names: Sequence[str], fields: Sequence[Field[Any]], kind: str
) -> Callable[[list[Any], Any], list[Any]]:
    """What makes named tuples of rows.

    Args:
        names: what the columns are called.
        fields: of what kind they are.
        kind: the database's.
    """
    load, make = tuple_loader(fields, kind, flat=False), row_class(tuple(names))._make
    if load is None:
        return lambda rows, database: list(map(make, rows))
    return lambda rows, database: list(map(make, load(rows, database)))


@cache
def row_class(names: tuple[str, ...]) -> Any:
    """The class of the rows of some names, the same for the same names.

    Raises:
        QueryError: a name cannot be an attribute.
    """
    try:
        return Row("Row", names)
    except ValueError as error:
        raise QueryError(
            f"values_list(named=True): {error}; values() takes such names, and an expression gets another one"
        ) from None
