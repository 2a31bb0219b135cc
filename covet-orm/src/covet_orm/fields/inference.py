"""The field of a plain value: what a parameter is that stands beside nothing that says it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from covet_orm.exceptions import QueryError
from covet_orm.fields.base import Field
from covet_orm.fields.dates import DateTimeField
from covet_orm.fields.numbers import BigIntegerField, BooleanField, DecimalField, FloatField
from covet_orm.fields.text import TextField

__all__ = ["field_of"]

KNOWN: dict[type, Field[Any]] = {
    bool: BooleanField[bool](),
    int: BigIntegerField[int](),
    float: FloatField[float](),
    str: TextField[str](),
    Decimal: DecimalField[Decimal](max_digits=38, decimal_places=18),
    dt.datetime: DateTimeField[dt.datetime](),
    type(None): TextField[str | None](null=True),
}


def field_of(value: object) -> Field[Any]:
    """The field whose values are of a value's type.

    Raises:
        QueryError: nothing is known of that type.
    """
    for kind in type(value).__mro__:
        if kind in KNOWN:
            return KNOWN[kind]
    raise QueryError(
        f"{value!r} is a {type(value).__name__}, of which no field is known: use Value(..., output_field=...)"
    )
