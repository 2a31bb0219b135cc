"""The options that every field takes, as types: what `**options` of a field's constructor may hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict

from covet_orm.fields.base import Validator

__all__ = ["Deferrable", "FieldOptions"]

Deferrable = Literal["deferred", "immediate"]
"""When a constraint that can be deferred is checked, unless a transaction says otherwise: at its end, or at once."""


class FieldOptions(TypedDict, total=False):
    """The keyword arguments of `Field`, without `null`, which decides about the type of the values."""

    default: Any
    db_default: Any
    unique: bool
    db_index: bool
    choices: Iterable[Any] | None
    validators: Sequence[Validator]
    db_column: str | None
    primary_key: bool
    comment: str | None
