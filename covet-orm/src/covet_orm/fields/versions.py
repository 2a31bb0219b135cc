"""The field by which changes that cross each other are noticed: optimistic locking."""

from __future__ import annotations

from typing import Any, Literal

from covet_orm.exceptions import ModelError
from covet_orm.fields.numbers import IntegerField

__all__ = ["VersionField"]


class VersionField(IntegerField[int]):
    """Counts how often a row was written: `version = VersionField()`.

    `save` and `delete` touch the row only if it still has the version that the object was read with, and raise
    `StaleObject` if it has not; `save` counts on. A new object has version 1.
    """

    counts_versions = True

    def __init__(self, *, null: Literal[False] = False, **options: Any) -> None:
        if null or options.get("primary_key"):
            raise ModelError("a version field has a number for every row, and is no key: neither null nor primary_key")
        options.setdefault("default", 1)
        super().__init__(null=False, **options)
