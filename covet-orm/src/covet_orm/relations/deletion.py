"""Deleting where signals are wanted: what the database would delete by itself is found first, so that each object's
signals can be sent.

Otherwise the database follows `on_delete` alone, which is one statement instead of several.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy

from covet_orm.models.inheritance import lineage
from covet_orm.models.managers import base_queryset
from covet_orm.relations.keys import batches, has_key
from covet_orm.signals import post_delete, pre_delete

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.fields.related import ForeignKey

__all__ = ["delete_with_signals", "wants_signals"]


def wants_signals(model: type[Any]) -> bool:
    """Whether a deletion of this model's objects concerns somebody who listens: to them, or to what goes with them."""
    if not pre_delete.receivers and not post_delete.receivers:
        return False
    return _concerns_listener(model, set())


async def delete_with_signals(objects: Sequence[Any], database: Database, *, origin: Any) -> int:
    """Delete objects and what goes with them by CASCADE, with the signals of each, in one transaction.

    The rows are locked first, so that nothing can begin to refer to them meanwhile. Those that refer to others are
    deleted before those.

    Args:
        objects: saved objects of one model.
        database: where.
        origin: what was asked to be deleted; receivers are told.

    Returns:
        How many of `objects` were deleted.

    Raises:
        ForeignKeyViolation: something else refers to them, and forbids it; nothing was deleted.
        StaleObject: one has a version field, and was changed since.
        Exception: whatever a receiver raises; nothing was deleted.

    Cancelled, nothing was deleted.
    """
    async with database.transaction():
        found = _Found()
        await found.add(objects, database)
        told = {"origin": origin, "using": database}
        for instance in found.order():
            await pre_delete.send(type(instance), instance=instance, **told)
        count = 0
        asked = {id(instance) for instance in objects}
        for instance in found.order():
            deleted = await _delete(instance, database, apart=id(instance) in found.apart)
            count += deleted if id(instance) in asked else 0
            await post_delete.send(type(instance), instance=instance, **told)
    return count


class _Found:
    """What will be deleted, each object once.

    Attributes:
        levels: what was asked for, what refers to that, and so on.
        apart: the objects that were found by the row of their parent, which is deleted for itself.
    """

    def __init__(self) -> None:
        self.levels: list[list[Any]] = []
        self.apart: set[int] = set()
        self._seen: set[tuple[type[Any], Any]] = set()

    async def add(self, objects: Iterable[Any], database: Database) -> None:
        """Take objects, and what goes with them."""
        level = [one for one in objects if self._is_new(one)]
        while level:
            self.levels.append(level)
            await _lock(level, database)
            following: list[Any] = []
            for model in dict.fromkeys(type(one) for one in level):
                together = [one for one in level if type(one) is model]
                for key in _cascades(model):
                    referring = [one for one in await _referring(key, together, database) if self._is_new(one)]
                    if key is key.model._meta.parent_link:
                        self.apart |= {id(one) for one in referring}
                    following += referring
            level = following

    def order(self) -> list[Any]:
        """What refers to others before those."""
        return [one for level in reversed(self.levels) for one in level]

    def _is_new(self, one: Any) -> bool:
        key = (type(one), one.pk)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


def _cascades(model: type[Any]) -> list[ForeignKey[Any]]:
    """The foreign keys whose rows go with those of a model, and lead to somebody who listens."""
    return [
        key
        for part in lineage(model)
        for key in _foreign_keys(part)
        if key.on_delete == "CASCADE" and _concerns_listener(key.model, set())
    ]


def _foreign_keys(model: type[Any]) -> list[ForeignKey[Any]]:
    """The foreign keys that refer to a model's table, those without a name on its side included."""
    from covet_orm.fields.related import ForeignKey

    return [
        field
        for other in model._meta.registry
        if not other._meta.proxy
        for field in other._meta.fields
        if isinstance(field, ForeignKey) and field.model is other and field.target._meta.concrete is model
    ]


def _concerns_listener(model: type[Any], seen: set[type[Any]]) -> bool:
    if model in seen:
        return False
    seen.add(model)
    if pre_delete.listened(model) or post_delete.listened(model):
        return True
    return any(
        _concerns_listener(key.model, seen)
        for part in lineage(model)
        for key in _foreign_keys(part)
        if key.on_delete == "CASCADE"
    )


async def _referring(key: ForeignKey[Any], objects: Sequence[Any], database: Database) -> list[Any]:
    """The objects that refer to some."""
    found: list[Any] = []
    keys = [getattr(one, key.remote.attribute) for one in objects]
    for batch in batches(keys, database.kind):
        query: Any = base_queryset(key.model).using(database).order_by()
        found += await query.filter(has_key([key.reference()], batch))
    return found


async def _lock(objects: Sequence[Any], database: Database) -> None:
    """Keep others from referring to rows until the transaction ends; SQLite has one writer anyway."""
    if database.kind == "sqlite":
        return
    for model in dict.fromkeys(type(one) for one in objects):
        for part in lineage(model):
            keys = part._meta.primary_key
            table = part.__table__
            rows = [
                tuple(key.binder(database.kind)(getattr(one, key.attribute)) for key in keys)
                for one in objects
                if type(one) is model
            ]
            columns = [table.c[key.column] for key in keys]
            for batch in batches(rows, database.kind, len(keys)):
                chosen = sqlalchemy.or_(
                    *(sqlalchemy.and_(*(a == b for a, b in zip(columns, row, strict=True))) for row in batch)
                )
                if len(keys) == 1:
                    chosen = columns[0].in_([value for (value,) in batch])
                await database.query(sqlalchemy.select(*columns).where(chosen).order_by(*columns).with_for_update())


async def _delete(instance: Any, database: Database, *, apart: bool) -> int:
    from covet_orm.queries.saving import delete_row

    return await delete_row(instance, database, apart=apart)
