"""Objects that were saved in a block get their state back when it is rolled back: what a rollback undoes in the
database, their attributes and what they know of their rows must not claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ReferenceType, ref

from covet_orm.models.changes import values_of

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["SavedObjects", "as_read", "remember", "remember_many"]

MISSING: Any = object()
STATE = ("_row", "_source")


class State(NamedTuple):
    """What an object was like.

    Attributes:
        values: its attributes; those that it had none for are missing.
        row: its row and where that came from; `MISSING` for an object that was not saved yet.
    """

    values: dict[str, Any]
    row: tuple[Any, Any]


class Many(NamedTuple):
    """What many objects were like whose attributes were left alone, but for some.

    Attributes:
        objects: the objects.
        attributes: the attributes that were written to, with their values in each object.
        rows: the row and where it came from, of each.
    """

    objects: list[ReferenceType[Any]]
    attributes: dict[str, list[Any]]
    rows: list[tuple[Any, Any]]


class SavedObjects:
    """The objects that were saved in a block, as they were before; those that nobody has any longer are left out."""

    __slots__ = ("many", "single")

    def __init__(self) -> None:
        self.single: dict[int, tuple[ReferenceType[Any], State]] = {}
        self.many: list[Many] = []

    def add(self, instance: Any) -> None:
        """Note what an object is like before it is saved, unless it was noted already."""
        if id(instance) not in self.single:
            self._keep(instance, State(values_of(instance), _row_of(instance)))

    def add_many(self, objects: Sequence[Any], attributes: Sequence[str]) -> None:
        """Note what many objects are like before they are saved, of which some attributes will be written to."""
        values = {name: [_value(one, name) for one in objects] for name in attributes}
        self.many.append(Many([ref(one) for one in objects], values, [_row_of(one) for one in objects]))

    def join(self, inner: SavedObjects) -> None:
        """Take over those of an inner block, which may yet be rolled back with this one."""
        self.many += inner.many
        for known, state in list(inner.single.values()):
            instance = known()
            if instance is not None and id(instance) not in self.single:
                self._keep(instance, state)

    def restore(self) -> list[Any]:
        """Give them their state back; the objects."""
        found: list[Any] = []
        for many in reversed(self.many):
            for number, known in enumerate(many.objects):
                instance = known()
                if instance is not None:
                    _set_row(instance, many.rows[number])
                    for name, values in many.attributes.items():
                        _set(instance, name, values[number])
                    found.append(instance)
        for known, state in list(self.single.values()):
            instance = known()
            if instance is not None:
                _set_row(instance, state.row)
                for field in instance._meta.fields:
                    _set(instance, field.attribute, state.values.get(field.attribute, MISSING))
                found.append(instance)
        return found

    def _keep(self, instance: Any, state: State) -> None:
        """Keep what an object was like, as long as there is that object."""
        key, single = id(instance), self.single

        def forget(_: object) -> None:
            single.pop(key, None)

        single[key] = (ref(instance, forget), state)


def remember(database: Database, instance: Any) -> None:
    """Note what an object is like before it is saved, if that is in a transaction."""
    from covet_orm.transactions.context import active, current_transaction

    if active.get() is not None:
        block = current_transaction(database)
        if block is not None:
            block.saved_objects().add(instance)


def remember_many(database: Database, objects: Sequence[Any], attributes: Sequence[str]) -> None:
    """Note what many objects are like before they are saved at once, in a transaction."""
    from covet_orm.transactions.context import current_transaction

    block = current_transaction(database)
    if block is not None:
        block.saved_objects().add_many(objects, attributes)


def as_read(instance: Any) -> None:
    """Give an object the values of its row: what was changed of it is forgotten. One without a row stays as it is."""
    row, source = _row_of(instance)
    if row is MISSING:
        return
    for field, load, raw in zip(source.fields, source.loaders, row, strict=False):
        _set(instance, field.attribute, raw if raw is None or load is None else load(raw))


def _row_of(instance: Any) -> tuple[Any, Any]:
    try:
        return object.__getattribute__(instance, "_row"), object.__getattribute__(instance, "_source")
    except AttributeError:
        return MISSING, MISSING


def _set_row(instance: Any, row: tuple[Any, Any]) -> None:
    for name, value in zip(STATE, row, strict=True):
        _set(instance, name, value)


def _value(instance: Any, name: str) -> Any:
    try:
        return object.__getattribute__(instance, name)
    except AttributeError:
        return MISSING


def _set(instance: Any, name: str, value: Any) -> None:
    if value is not MISSING:
        setattr(instance, name, value)
    elif _value(instance, name) is not MISSING:
        delattr(instance, name)
