"""What parts of a schema are, in words."""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from typing import Any

from covet_migrate.inspection.descriptions import (
    Check,
    Enum,
    Exclusion,
    ForeignKey,
    Index,
    IndexPart,
    PrimaryKey,
    Sequence,
    Trigger,
    Unique,
    View,
)

__all__ = ["words"]


@singledispatch
def words(part: Any) -> str:
    """A part of a schema without its name, so that two that are the same have the same words."""
    raise TypeError(f"{part!r} is no part of a schema that has words")


@words.register
def _(part: PrimaryKey) -> str:
    return f"({', '.join(part.columns)})"


@words.register
def _(part: Unique) -> str:
    # Which column is first matters to the index alone, and that is one of the constraint.
    return _and(
        f"({', '.join(part.columns)})",
        part.include and f"including ({', '.join(part.include)})",
        not part.nulls_distinct and "with NULL equal to NULL",
        part.deferrable and f"deferrable, {part.deferrable}",
    )


@words.register
def _(part: IndexPart) -> str:
    text = part.column if part.column is not None else f"({part.expression})"
    return _and(
        f"{text}({part.length})" if part.length else text,
        part.collation and f"COLLATE {part.collation}",
        part.opclass,
        part.descending and "DESC",
        part.nulls and f"NULLS {part.nulls.upper()}",
    )


@words.register
def _(part: Index) -> str:
    return _and(
        part.unique and "unique",
        part.method,
        f"({', '.join(map(words, part.parts))})",
        part.include and f"including ({', '.join(part.include)})",
        part.condition and f"where {part.condition}",
        not part.nulls_distinct and "with NULL equal to NULL",
        not part.valid and "not valid",
    )


@words.register
def _(part: Check) -> str:
    return _and(part.condition, not part.valid and "not valid")


@words.register
def _(part: ForeignKey) -> str:
    return _and(
        f"({', '.join(part.columns)}) to {part.table} ({', '.join(part.referred)})",
        part.on_delete != "NO ACTION" and f"on delete {part.on_delete}",
        part.on_update != "NO ACTION" and f"on update {part.on_update}",
        part.deferrable and f"deferrable, {part.deferrable}",
        not part.valid and "not valid",
    )


@words.register
def _(part: Exclusion) -> str:
    return _and(
        part.method,
        f"({', '.join(f'{words(one)} with {operator}' for one, operator in part.parts)})",
        part.condition and f"where {part.condition}",
        part.deferrable and f"deferrable, {part.deferrable}",
    )


@words.register
def _(part: Trigger) -> str:
    return part.definition


@words.register
def _(part: View) -> str:
    return _and(part.materialized and "materialized", part.definition)


@words.register
def _(part: Sequence) -> str:
    return f"from {part.start} by {part.increment}"


@words.register
def _(part: Enum) -> str:
    return f"({', '.join(part.labels)})"


def _and(*parts: Any) -> str:
    """The parts that say something."""
    told: Iterable[str] = (str(part) for part in parts if part)
    return " ".join(told)
