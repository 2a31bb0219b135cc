"""Changes of which fields a primary key has."""

from __future__ import annotations

from typing import Any

from covet_migrate.changes.columns import column_of
from covet_migrate.exceptions import MigrationError
from covet_migrate.state.models import ModelState, State
from covet_orm import (
    AutoField,
    BigAutoField,
    BigIntegerField,
    Field,
    IntegerField,
    SmallAutoField,
    SmallIntegerField,
)
from covet_orm.fields.base import UNSET
from covet_orm.fields.related import RelatedField

__all__ = ["check_key", "counts", "gains_first", "key_of", "replaces_key", "uncounted"]


def key_of(model: ModelState) -> list[str]:
    """The fields of the key of a model; none where it has the usual `id`, which nobody declares."""
    return [name for name, one in model.fields.items() if one.primary_key]


def replaces_key(before: ModelState, after: ModelState) -> bool:
    """Whether another field takes the place of the key, and both are of one column."""
    old, new = key_of(before), key_of(after)
    return len(old) == len(new) == 1 and old != new


def check_key(before: ModelState, after: ModelState, state: State, then: State) -> None:
    """Return when nothing that stays refers to a key that another field takes the place of.

    Raises:
        MigrationError: something does: what is in its column are values of the old key.
    """
    if not replaces_key(before, after) or not after.managed:
        return
    for model in state:
        other = then.models.get(model.label)
        for name, field in model.fields.items() if other is not None else ():
            to = model.label if getattr(field, "to", None) == "self" else getattr(field, "to", None)
            if to == before.label and isinstance(other.fields.get(name), RelatedField):  # type: ignore[union-attr]
                old, new = key_of(before)[0], key_of(after)[0]
                raise MigrationError(
                    f"{new} is to be the primary key of {after.label} in place of {old}, and {model.label}.{name} "
                    f"refers to it: there are values of {old} in its rows, which are none of {new}. Keep {old} as the "
                    f"key, and give {new} unique=True; or give {model.label} a field of another name that refers to "
                    f"{after.label} when it has its new key, in three migrations: {name} becomes a plain field; the "
                    "key changes, and the new field is added; its values are filled in (RunPython)"
                )


def gains_first(before: ModelState, after: ModelState) -> bool:
    """Whether fields become part of the primary key before others no longer are.

    Of several columns none goes before all are there that tell rows apart. A key of one column that the database counts
    goes first; without any, the model has the key `id`, as usual, unless a field has that name.
    """
    old, new = key_of(before), key_of(after)
    if max(len(old), len(new)) > 1 and not (len(old) == 1 and counts(before.fields[old[0]])):
        return True
    return any(
        "id" in (name, column_of(name, one))
        for model in (before, after)
        for name, one in model.fields.items()
        if name in after.fields
    )


def counts(field: Field[Any]) -> bool:
    """Whether the database counts a key."""
    return field.primary_key and field.filled_by_database and field.db_default is UNSET and not hasattr(field, "to")


def uncounted(field: Field[Any]) -> Field[Any]:
    """A key that the database counts, as one that it does not: so it can be one of several for a moment."""
    args, options = field.declared
    kinds: tuple[tuple[type[Any], type[Any]], ...] = (
        (BigAutoField, BigIntegerField),
        (SmallAutoField, SmallIntegerField),
        (AutoField, IntegerField),
    )
    plain = next(one for counting, one in kinds if isinstance(field, counting))
    made: Field[Any] = plain(*args, **{**options, "primary_key": True})
    return made
