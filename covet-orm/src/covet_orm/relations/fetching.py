"""`await obj.fetch("author")`: loading what a query left out, for all objects of the same result at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from covet_orm import nplusone
from covet_orm.exceptions import QueryError
from covet_orm.models.changes import add_read
from covet_orm.models.managers import base_queryset
from covet_orm.relations.keys import batches, has_key, key_getter
from covet_orm.relations.prefetching import database_of, prefetch

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.fields.base import Field

__all__ = ["fetch", "peers"]


async def fetch(instance: Any, names: Sequence[str], *, alone: bool) -> None:
    """Load relations and deferred fields of an object, and of its peers.

    Args:
        instance: the object.
        names: relations, paths of them, and fields.
        alone: whether its peers are left as they are.

    Raises:
        FieldError: there is no such field or relation.
        QueryError: the object is not saved.
        DoesNotExist: its row, or the one that its foreign key refers to, is not there.
    """
    if not instance.saved:
        raise QueryError(f"{instance!r} is not saved: nothing of it can be loaded")
    options = instance._meta
    relations = [name for name in names if name.partition("__")[0] in options.relations]
    fields = [options.field(name) for name in names if name not in relations]
    result = None if alone or instance._source.peers is None else instance._source.peers()
    together = peers(instance, result)
    if nplusone.watching and len(together) == 1 and relations:
        nplusone.asked(type(instance), relations[0].partition("__")[0])
    database = database_of(instance)
    if fields:
        await _fetch_fields(together, fields, instance, database)
    if relations:
        await prefetch(together, relations, database, keeper=result)
        for name in relations:
            _require(instance, name.partition("__")[0])


def peers(instance: Any, result: Sequence[Any] | None) -> list[Any]:
    """The objects that came with an object in one result, itself included; itself alone without the result."""
    if result is None:
        return [instance]
    source = instance._source
    found = {id(one): one for one in result if _source(one) is source}
    if not found:
        # It came beside the objects of the result, by select_related.
        found = {id(one): one for one in _beside(result) if _source(one) is source}
    found[id(instance)] = instance
    return list(found.values())


def _beside(objects: Sequence[Any]) -> Iterator[Any]:
    """The single objects that were read with some, and with those."""
    waiting, seen = list(objects), set(map(id, objects))
    while waiting:
        for other in _related(waiting.pop()).values():
            if hasattr(type(other), "_meta") and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
                yield other


def _source(instance: Any) -> Any:
    try:
        return object.__getattribute__(instance, "_source")
    except AttributeError:
        return None


def _related(instance: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = object.__getattribute__(instance, "_related")
    except AttributeError:
        return {}
    return found


def _require(instance: Any, name: str) -> None:
    """A foreign key that refers to something must have found it."""
    relation = instance._meta.relations[name]
    field = relation.field
    if relation.many or relation.hops[0].local[0] is not field or name in _related(instance):
        return
    key = getattr(instance, field.attribute)
    if key is not None:
        raise relation.target.DoesNotExist(
            f"{instance!r}.{name} refers to {relation.target.__name__} {key!r}, which is not there"
        )


async def _fetch_fields(
    together: Sequence[Any], fields: Sequence[Field[Any]], instance: Any, database: Database
) -> None:
    missing = [one for one in together if any(_is_missing(one, field) for field in fields)]
    if not missing:
        return
    keys = type(instance)._meta.primary_key
    get = key_getter(keys)
    by_key: dict[Any, list[Any]] = {}
    for one in missing:
        by_key.setdefault(get(one), []).append(one)
    found: set[Any] = set()
    sources: dict[Any, Any] = {}
    query: Any = base_queryset(type(instance)).using(database).order_by().only(*(field.name for field in fields))
    columns = [key.reference() for key in keys]
    for batch in batches(list(by_key), database.kind, len(keys)):
        for fresh in await query.filter(has_key(columns, batch)):
            found.add(get(fresh))
            for one in by_key[get(fresh)]:
                add_read(one, fresh, [field for field in fields if _is_missing(one, field)], sources)
    if instance in missing and get(instance) not in found:
        raise type(instance).DoesNotExist(f"{instance!r} is not there any more")


def _is_missing(instance: Any, field: Field[Any]) -> bool:
    try:
        object.__getattribute__(instance, field.attribute)
    except AttributeError:
        return True
    return False
