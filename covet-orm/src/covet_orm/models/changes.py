"""What changed of an object since its row was read or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covet_orm.expressions.base import Expression
from covet_orm.queries.sources import Source

if TYPE_CHECKING:
    from covet_orm.fields.base import Field

__all__ = ["add_read", "changed", "note_written", "rewritten_row", "values_of"]


def changed(instance: Any) -> list[Field[Any]]:
    """The fields whose values are not those of the row. Every field that has a value, for a new object.

    The row is kept as the driver gave it, so that a value that was changed in place, such as a list in a JSON field,
    is noticed as well.
    """
    if not instance.saved:
        return [field for field in instance._meta.fields if field.attribute in values_of(instance)]
    source, row = instance._source, instance._row
    found: list[Field[Any]] = []
    for field, load, raw in zip(source.fields, source.loaders, row, strict=False):
        try:
            value = getattr(instance, field.attribute)
        except AttributeError:
            continue
        if value is raw:
            continue
        before = raw if raw is None or load is None else load(raw)
        # What an expression gives, nobody knows here.
        if isinstance(value, Expression) or field.differs(before, value):
            found.append(field)
    read = {id(field) for field in source.fields}
    # A deferred field that was given a value since.
    values = values_of(instance)
    found += [field for field in instance._meta.fields if id(field) not in read and field.attribute in values]
    return found


def note_written(instance: Any, field: Field[Any], raw: Any) -> None:
    """A field of an object was written otherwise than by `save`.

    Args:
        instance: an object that was read or saved.
        field: the field.
        raw: the value that the row has now, as the driver gives it.
    """
    source = instance._source
    if field in source.fields:
        place = list(source.fields).index(field)
        instance._row = (*instance._row[:place], raw, *instance._row[place + 1 :])


def rewritten_row(instance: Any, kind: str, written: Mapping[Field[Any], Any]) -> dict[Field[Any], Any]:
    """The row of an object, by field, after some of its fields were written.

    What the database computes of other columns is not known any more then: it is taken off the object, which says so
    when it is read.

    Args:
        instance: an object that was read or saved, perhaps in a database of another kind.
        kind: that of the database where it was written.
        written: the values that were, as parameters.
    """
    source = instance._source
    row = dict(zip(source.fields, instance._row, strict=True))
    for field in [field for field in row if field.generated]:
        del row[field]
        delattr(instance, field.attribute)
    if source.kind != kind:
        loaders = dict(zip(source.fields, source.loaders, strict=True))
        for field, raw in row.items():
            load = loaders[field]
            value = raw if raw is None or load is None else load(raw)
            row[field] = value if value is None else field.binder(kind)(value)
    return {**row, **written}


def add_read(
    instance: Any, fresh: Any, fields: Sequence[Field[Any]], sources: dict[tuple[Source, ...], Source]
) -> None:
    """Give an object fields of its row that were read later.

    Args:
        instance: the object.
        fresh: the same row, read with these fields.
        fields: the fields.
        sources: those of the objects before, so that they stay peers.
    """
    before, after = instance._source, fresh._source
    rows = dict(zip(after.fields, zip(fresh._row, after.loaders, strict=False), strict=False))
    for field in fields:
        setattr(instance, field.attribute, getattr(fresh, field.attribute))
    new = [field for field in fields if field not in before.fields]
    instance._row = (*instance._row, *(rows[field][0] for field in new))
    source = sources.get((before, after))
    if source is None or source.fields != [*before.fields, *new]:
        loaders = [*before.loaders, *(rows[field][1] for field in new)]
        source = sources[before, after] = Source([*before.fields, *new], loaders, before.database, before.peers)
    instance._source = source


def values_of(instance: Any) -> dict[str, Any]:
    """The values that an object has, by attribute; without those of fields that were deferred, or given none."""
    found: dict[str, Any] = {}
    for field in instance._meta.fields:
        try:
            found[field.attribute] = object.__getattribute__(instance, field.attribute)
        except AttributeError:
            continue
    return found
