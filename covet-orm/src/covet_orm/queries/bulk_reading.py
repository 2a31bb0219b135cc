"""`in_bulk`, `dates` and `datetimes`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.expressions.base import Ordering
from covet_orm.expressions.functions.dates import Trunc, TruncDate
from covet_orm.expressions.references import F
from covet_orm.fields.inference import family

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["distinct_times", "in_bulk"]

SIZE = 1000
"""How many keys one statement asks for, where each is a parameter."""


async def in_bulk(query: QuerySet[Any], keys: Iterable[Any] | None, name: str) -> dict[Any, Any]:
    """Objects by their keys. What `QuerySet.in_bulk` does."""
    query._not_sliced("in_bulk")
    if query._chosen is not None:
        raise QueryError("in_bulk() is of a query for objects, not of one for values()")
    options = query.model._meta
    if name != "pk":
        field = options.field(name)
        if not field.unique and not (field.primary_key and not options.has_composite_key):
            raise FieldError(f"in_bulk(field_name={name!r}): {field!r} is not unique, and would have several objects")
        name = field.attribute
    if keys is None:
        return {getattr(one, name): one for one in await query}
    wanted = list(dict.fromkeys(keys))
    found: dict[Any, Any] = {}
    for begin in range(0, len(wanted), SIZE):
        for one in await query.filter(**{f"{name}__in": wanted[begin : begin + SIZE]}):
            found[getattr(one, name)] = one
    return found


def distinct_times(
    query: QuerySet[Any], name: str, part: str, *, descending: bool, of: str, tzinfo: dt.tzinfo | None = None
) -> QuerySet[Any]:
    """The points in time of a field, cut down, each once. What `QuerySet.dates` and `QuerySet.datetimes` do.

    Raises:
        FieldError: the field is of another kind.
    """
    field = query.options.path(name).field
    kind = family(field)
    if kind != of and not (of == "date" and kind == "datetime"):
        raise FieldError(f"{of}s({name!r}): {field!r} is a {kind}, and a {of} is needed")
    expression: Any = Trunc(TruncDate(name) if kind != of else name, part, tzinfo=tzinfo)
    found = query.filter(**{f"{name}__isnull": False}).alias(time_=expression).order_by()
    found = found.values_list("time_", flat=True).distinct()
    return found.order_by(Ordering(F("time_"), descending=descending))
