"""Writing objects that several tables hold: those of the models that their own derives from, and its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import ModelError
from covet_orm.models.inheritance import lineage
from covet_orm.models.managers import base_queryset
from covet_orm.models.validation import checked
from covet_orm.queries.locks import fetch_locked
from covet_orm.relations.keys import batches

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.fields.base import Field
    from covet_orm.queries.querysets import QuerySet

__all__ = ["delete_parts", "insert_parts", "update_parts"]

Written = tuple[list["Field[Any]"], list[Any]]
UpdateRows = Callable[["QuerySet[Any]", Mapping[str, Any]], Awaitable[int]]
DeleteRows = Callable[["QuerySet[Any]"], Awaitable[int]]
InsertInto = Callable[[Any, Any, Sequence["Field[Any]"], "Database"], Awaitable[Written]]


async def insert_parts(instance: Any, database: Database, insert_into: InsertInto) -> Written:
    """Insert the rows of an object, that of the parent first, in one transaction.

    An object that was given its parent (`Employee(person_ptr=person, salary=3)`) is put beside the parent's row, which
    stays as it is.

    Args:
        instance: the object.
        database: where.
        insert_into: inserts the row of one table, and gives the fields and their values there.

    Returns:
        The fields of the object, in the order of its options, and their values as the driver has them.

    Raises:
        ValidationError: a value is wrong, in any of the tables; nothing was sent.
        ModelError: the parent that was given is not saved.
    """
    options = instance._meta
    parts = [(part, [field for field in options.fields if field.model is part]) for part in lineage(type(instance))]
    given = _given_parent(instance)
    values: dict[Any, Any] = {}
    if given is not None:
        for _, own in parts[:-1]:
            _take_over(instance, given, own)
            values |= zip(*checked(instance, own, database.kind), strict=True)
        parts = parts[-1:]
    for _, own in parts:
        checked(instance, own, database.kind)
    key = options.primary_key[0].attribute
    before = getattr(instance, key, None)
    try:
        async with database.transaction():
            for part, own in parts:
                values |= zip(*await insert_into(instance, part, own, database), strict=True)
    except BaseException:
        # The parent's row is not there after all, nor is its key anybody's.
        setattr(instance, key, before)
        raise
    fields = [field for field in options.fields if field in values]
    return fields, [values[field] for field in fields]


async def update_parts(query: QuerySet[Any], values: Mapping[str, Any], update_rows: UpdateRows) -> int:
    """Write values to every row of a query, each to the table that has its column, in one transaction.

    Args:
        query: the query.
        values: by field.
        update_rows: writes to one of the tables.

    Raises:
        FieldError: an expression names a column of another one of the tables than the one it is written to.
    """
    options = query.model._meta
    async with query.database.transaction():
        keys = await _keys(query)
        for part in lineage(query.model):
            own = {name: value for name, value in values.items() if options.field(name).model is part}
            if own:
                for rows in _rows(part, keys, query.database):
                    await update_rows(rows, own)
    return len(keys)


async def delete_parts(query: QuerySet[Any], delete_rows: DeleteRows) -> int:
    """Delete every row of a query from all of the tables, in one transaction.

    Args:
        query: the query.
        delete_rows: deletes from one of the tables.
    """
    async with query.database.transaction():
        keys = await _keys(query)
        for part in reversed(lineage(query.model)):
            for rows in _rows(part, keys, query.database):
                await delete_rows(rows)
    return len(keys)


async def _keys(query: QuerySet[Any]) -> list[Any]:
    """The keys of a query's rows, which are locked."""
    return await fetch_locked(query.values_list("pk", flat=True))


def _rows(part: type[Any], keys: Sequence[Any], database: Database) -> Iterator[QuerySet[Any]]:
    """The rows of one table that have some keys."""
    key = part._meta.primary_key[0]
    for batch in batches(keys, database.kind):
        yield base_queryset(part).using(database).order_by().filter(**{f"{key.attribute}__in": batch})


def _given_parent(instance: Any) -> Any:
    """The parent that the object was given, if it was."""
    link = instance._meta.parent_link
    try:
        given = object.__getattribute__(instance, "_related").get(link.name)
    except AttributeError:
        return None
    if given is not None and not given.saved:
        raise ModelError(f"{given!r} is not saved yet: save it before {type(instance).__name__} is put beside it")
    return given


def _take_over(instance: Any, parent: Any, fields: Sequence[Field[Any]]) -> None:
    """Have the parent's values."""
    for field in fields:
        setattr(instance, field.attribute, getattr(parent, field.attribute))
