"""Columns whose names other fields are to have: each name is free before another column gets it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from covet_migrate.changes.detected import Detected, targets
from covet_migrate.operations.fields import AlterField
from covet_migrate.state.models import ModelState
from covet_orm import Field
from covet_orm.fields.related import ForeignKey

__all__ = ["called", "column_of", "handed_on"]

LONGEST = 63


def column_of(name: str, field: Field[Any]) -> str | None:
    """The name of the column of a field; None where it has none."""
    if not field.column_is_there:
        return None
    return field.db_column or (f"{name}_id" if isinstance(field, ForeignKey) else name)


def called(field: Field[Any], column: str | None) -> Field[Any]:
    """A field whose column has another name; None for that which the field's name gives."""
    args, options = field.declared
    options = {name: value for name, value in options.items() if name != "db_column"}
    if column is not None:
        options["db_column"] = column
    kind: Any = type(field)
    made: Field[Any] = kind(*args, **options)
    return made


def handed_on(
    before: ModelState, after: ModelState, altered: Collection[str], gone: Collection[str]
) -> list[tuple[str, Detected, Field[Any]]]:
    """The operations that free the names of columns which other fields are to have: the name of
    each field, the operation, and the field that it makes.

    Columns that exchange their names take another one in between.

    Args:
        before: the model as it is.
        after: the model as it is to be.
        altered: the fields that stay, and change.
        gone: the fields that are removed; those of the key not before others are added.
    """
    leaving = [name for name in gone if before.fields[name].primary_key]
    holders = {
        column.lower(): name
        for name in (*altered, *leaving)
        if (column := column_of(name, before.fields[name])) is not None
    }
    wanted = {
        name: column
        for name, field in after.fields.items()
        if (name not in before.fields or name in altered or name in gone) and (column := column_of(name, field))
    }
    waiting: dict[str, str | None] = {}
    for name, column in wanted.items():
        holder = holders.get(column.lower())
        if holder is not None and holder != name:
            waiting[holder] = wanted[holder] if holder in altered else None
    taken = {column.lower() for name, one in before.fields.items() if (column := column_of(name, one)) is not None}
    current = dict(before.fields)
    found: list[tuple[str, Detected, Field[Any]]] = []
    while waiting:
        ready = [name for name, to in waiting.items() if to is None or to.lower() not in taken]
        name = (ready or list(waiting))[0]
        to = waiting[name]
        if ready and to is not None:
            # It has its name then.
            column = after.fields[name].db_column
            del waiting[name]
        else:
            to = column = f"covet_{column_of(name, before.fields[name])}"[:LONGEST]
            if name not in altered:
                del waiting[name]
        taken.discard(str(column_of(name, current[name])).lower())
        taken.add(to.lower())
        current[name] = called(current[name], column)
        found.append((name, _altering(before, name, before.fields[name], current[name]), current[name]))
    return found


def _altering(model: ModelState, name: str, old: Field[Any], new: Field[Any]) -> Detected:
    needs = frozenset(targets(model, (old,)))
    operation = AlterField(model.name, name, new)
    return Detected(model.app, operation, model.label, changes=old.primary_key, needs=needs)
