"""What `author.books` and `book.tags` are: the objects on the other side of a relation to many.

They are asked as any manager is. What `prefetch_related` or `fetch` loaded is given without a query by `all()` and by a
plain loop, until it is changed through the manager.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from covet_orm import nplusone
from covet_orm.exceptions import QueryError
from covet_orm.models.changes import note_written
from covet_orm.models.delegation import QueryMethods
from covet_orm.models.managers import base_queryset, default_queryset
from covet_orm.relations.descriptors import not_loaded, related
from covet_orm.relations.keys import batches, has_key, key_getter
from covet_orm.relations.linked import LinkedTo
from covet_orm.relations.loaded import loaded_queryset
from covet_orm.relations.membership import Membership
from covet_orm.relations.prefetching import database_of, within
from covet_orm.signals import m2m_changed

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.fields.related import ForeignKey
    from covet_orm.models.instances import Model
    from covet_orm.models.relations import Relation
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Key", "ManyToManyManager", "RelatedManager", "ReverseManager"]

M = TypeVar("M", bound="Model")

Key = int | str | UUID
"""The primary key of an object, where it stands for the object."""


class RelatedManager(QueryMethods[M]):
    """The objects that belong to one object: `await author.books.filter(year=1843)`.

    Args:
        instance: the object.
        relation: the relation.
    """

    def __init__(self, instance: Any, relation: Relation) -> None:
        self.instance = instance
        self.relation = relation
        self.model: type[M] = relation.target  # type: ignore[assignment]

    @property
    def database(self) -> Database:
        """The database that the objects are read from: the one of this object, unless routers name another one.

        Raises:
            NoDatabase: there is none.
        """
        return database_of(self.instance, self.model)

    @property
    def _writing(self) -> Database:
        """The database that changes go to."""
        return database_of(self.instance, self.model, writes=True)

    @property
    def is_loaded(self) -> bool:
        """Whether the objects are there already, by `prefetch_related` or `fetch`."""
        try:
            return self.relation.name in object.__getattribute__(self.instance, "_related")
        except AttributeError:
            return False

    def get_queryset(self) -> QuerySet[M]:
        """The query of the objects; `all()` of it asks nothing where they are loaded."""
        query = self._narrowed(within(default_queryset(self.model), self.instance))
        if self.is_loaded:
            return loaded_queryset(query, self.instance._related[self.relation.name])
        if nplusone.watching:
            nplusone.asked(type(self.instance), self.relation.name)
        return query

    def __iter__(self) -> Iterator[M]:
        """The objects, where they are loaded.

        Raises:
            RelationNotLoaded: they are not.
        """
        if not self.is_loaded:
            raise not_loaded(self.instance, self.relation.name, "prefetch_related")
        return iter(list(self.instance._related[self.relation.name]))

    async def __aiter__(self) -> AsyncIterator[M]:
        """The objects, asked for where they are not loaded."""
        for one in await self.all():
            yield one

    @abstractmethod
    async def add(self, *objects: M | Key, through_defaults: Mapping[str, Any] | None = None) -> None:
        """Have objects belong to this one; those that do already stay as they are.

        Args:
            objects: the objects, or for a many-to-many relation their keys.
            through_defaults: the other values of new rows of a many-to-many relation's table.

        Raises:
            QueryError, ModelError: what was given is no object that could.
            ForeignKeyViolation: there is no object of such a key.

        Cancelled, all were added or none.
        """

    @abstractmethod
    async def remove(self, *objects: M | Key) -> None:
        """Have objects belong to this one no more. Those of a many-to-many relation need not have belonged to it.

        Raises:
            QueryError: their foreign key may not be NULL.
            DoesNotExist: an object with a foreign key belongs to another one.

        Cancelled, all were removed or none.
        """

    @abstractmethod
    async def set(self, objects: Iterable[M | Key], *, through_defaults: Mapping[str, Any] | None = None) -> None:
        """Have these objects belong to this one, and no others.

        Raises:
            QueryError, ModelError: as `add` and `remove`.

        Cancelled, it is as it was before, or as it was asked for.
        """

    @abstractmethod
    async def clear(self) -> None:
        """Have no object belong to this one.

        Raises:
            QueryError: their foreign key may not be NULL.
        """

    @abstractmethod
    def _narrowed(self, query: QuerySet[M]) -> QuerySet[M]:
        """Those of a query that belong to the object."""

    def _forget(self) -> None:
        """What was loaded is not what is there any more."""
        _forget(self.instance, self.relation.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.relation.name} of {self.instance!r}>"


class ReverseManager(RelatedManager[M]):
    """The objects that refer to one object by a foreign key: `author.books`."""

    def __init__(self, instance: Any, relation: Relation) -> None:
        super().__init__(instance, relation)
        self.field: ForeignKey[Any] = relation.field

    async def create(self, **values: Any) -> M:
        """Make an object that refers to this one, and save it: as `QuerySet.create`."""
        self._forget()
        return await self._all().create(**{**values, self.field.name: self.instance})

    async def get_or_create(self, defaults: Mapping[str, Any] | None = None, **lookups: Any) -> tuple[M, bool]:
        """The one that refers to this object and that lookups hold for, or a new one: as `QuerySet.get_or_create`."""
        self._forget()
        return await self._all().get_or_create(defaults, **{**lookups, self.field.name: self.instance})

    async def update_or_create(
        self,
        defaults: Mapping[str, Any] | None = None,
        create_defaults: Mapping[str, Any] | None = None,
        **lookups: Any,
    ) -> tuple[M, bool]:
        """Change the one that refers to this object and that lookups hold for, or make one: as
        `QuerySet.update_or_create`."""
        self._forget()
        return await self._all().update_or_create(
            defaults, create_defaults, **{**lookups, self.field.name: self.instance}
        )

    async def bulk_create(self, objects: Iterable[M], **options: Any) -> list[M]:
        """Insert many objects that refer to this one: as `QuerySet.bulk_create`."""
        made = list(objects)
        for one in made:
            setattr(one, self.field.name, self.instance)
        self._forget()
        return await self._all().bulk_create(made, **options)

    async def add(self, *objects: M | Key, through_defaults: Mapping[str, Any] | None = None) -> None:
        """Have objects refer to this one: new ones are saved, the others' foreign keys written in one statement."""
        if through_defaults is not None:
            raise QueryError(f"{self!r} has no table between: through_defaults are for many-to-many relations")
        found = self._objects(objects)
        owner = self.field.key_of(self.instance)
        together = [one for one in found if one.saved and type(one)._meta.version_field is None]
        async with self._writing.transaction():
            await self._write(together, owner)
            for one in found:
                if not one.saved or type(one)._meta.version_field is not None:
                    setattr(one, self.field.name, self.instance)
                    await one.save(using=self._writing)
        for one in together:
            setattr(one, self.field.name, self.instance)
            note_written(one, self.field, self.field.binder(self._writing.kind)(owner))
        self._forget()

    async def remove(self, *objects: M | Key) -> None:
        """Write NULL to the foreign keys of objects that refer to this one."""
        self._require_null("remove")
        found = self._objects(objects)
        owner = self.field.key_of(self.instance)
        for one in found:
            if getattr(one, self.field.attribute) != owner:
                raise type(one).DoesNotExist(f"{one!r} does not belong to {self.instance!r}")
        versioned = [one for one in found if type(one)._meta.version_field is not None]
        together = [one for one in found if type(one)._meta.version_field is None]
        async with self._writing.transaction():
            await self._write(together, None)
            for one in versioned:
                setattr(one, self.field.name, None)
                await one.save(using=self._writing)
        for one in together:
            setattr(one, self.field.name, None)
            note_written(one, self.field, None)
        self._forget()

    async def set(self, objects: Iterable[M | Key], *, through_defaults: Mapping[str, Any] | None = None) -> None:
        """Have these objects refer to this one, and no others; where the foreign key may not be NULL, others that do
        are an error."""
        found = self._objects(tuple(objects))
        get = key_getter(self.field.model._meta.primary_key)
        wanted = {get(one) for one in found if one.saved}
        async with self._writing.transaction():
            there = await self._narrowed(base_queryset(self.model).using(self._writing))
            gone = [one for one in there if get(one) not in wanted]
            if gone:
                await self.remove(*gone)
            kept = {get(one) for one in there}
            await self.add(
                *(one for one in found if not one.saved or get(one) not in kept), through_defaults=through_defaults
            )
        self._forget()

    async def clear(self) -> None:
        """Write NULL to the foreign keys that refer to this object."""
        self._require_null("clear")
        await self._narrowed(base_queryset(self.model).using(self._writing).order_by()).update(
            **{self.field.name: None}
        )
        self._forget()

    def _narrowed(self, query: QuerySet[M]) -> QuerySet[M]:
        return query.filter(**{self.field.name: self.field.key_of(self.instance)})

    def _all(self) -> QuerySet[M]:
        return default_queryset(self.model).using(self._writing)

    def _objects(self, objects: Sequence[Any]) -> list[Any]:
        for one in objects:
            if not isinstance(one, self.field.model):
                raise QueryError(f"{self!r} is of {self.field.model.__name__}, and {one!r} is none")
        return list({id(one): one for one in objects}.values())

    def _require_null(self, what: str) -> None:
        if not self.field.null:
            raise QueryError(
                f"{self!r} cannot {what}: {self.field!r} has no null=True, so that what refers to the object cannot "
                "refer to nothing; delete it, or have it refer to another one"
            )

    async def _write(self, objects: Sequence[Any], owner: Any) -> None:
        """Write the foreign key of objects that are saved."""
        keys = self.field.model._meta.primary_key
        get = key_getter(keys)
        columns = [key.reference() for key in keys]
        for batch in batches([get(one) for one in objects], self._writing.kind, len(keys)):
            rows = base_queryset(self.field.model).using(self._writing).order_by().filter(has_key(columns, batch))
            await rows.update(**{self.field.name: owner})


class ManyToManyManager(RelatedManager[M]):
    """The objects on the other side of a many-to-many relation: `book.tags`.

    Args:
        instance: the object.
        relation: the relation, as seen from it.
        near, far: the foreign keys of the table between: to this side, and to the other.
    """

    def __init__(self, instance: Any, relation: Relation, near: ForeignKey[Any], far: ForeignKey[Any]) -> None:
        super().__init__(instance, relation)
        self.near = near
        self.far = far

    @property
    def through(self) -> type[Model]:
        """The model of the table between."""
        return self.near.model

    async def create(self, *, through_defaults: Mapping[str, Any] | None = None, **values: Any) -> M:
        """Make an object, save it and add it: as `QuerySet.create`."""
        async with self._writing.transaction():
            made = await self._all().create(**values)
            await self.add(made, through_defaults=through_defaults)
        return made

    async def get_or_create(
        self,
        defaults: Mapping[str, Any] | None = None,
        *,
        through_defaults: Mapping[str, Any] | None = None,
        **lookups: Any,
    ) -> tuple[M, bool]:
        """The one that lookups hold for, which is added where it does not belong to this object yet, or a new one: as
        `QuerySet.get_or_create`."""
        try:
            return await self._narrowed(self._all()).get(**lookups), False
        except self.model.DoesNotExist:
            async with self._writing.transaction():
                found, created = await self._all().get_or_create(defaults, **lookups)
                await self.add(found, through_defaults=through_defaults)
            return found, created

    async def update_or_create(
        self,
        defaults: Mapping[str, Any] | None = None,
        create_defaults: Mapping[str, Any] | None = None,
        *,
        through_defaults: Mapping[str, Any] | None = None,
        **lookups: Any,
    ) -> tuple[M, bool]:
        """Change the one that lookups hold for, or make one; it belongs to this object afterwards: as
        `QuerySet.update_or_create`."""
        async with self._writing.transaction():
            found, created = await self._all().update_or_create(defaults, create_defaults, **lookups)
            await self.add(found, through_defaults=through_defaults)
        return found, created

    async def bulk_create(self, objects: Iterable[M], **options: Any) -> list[M]:
        """Insert many objects and add them: as `QuerySet.bulk_create`."""
        async with self._writing.transaction():
            made = await self._all().bulk_create(objects, **options)
            await self.add(*made)
        return made

    async def add(self, *objects: M | Key, through_defaults: Mapping[str, Any] | None = None) -> None:
        """Add objects. Whoever adds the same at the same time, each is there once."""
        keys = self._keys(objects)
        if not keys:
            return
        rows, defaults = self._rows(), through_defaults or {}
        if not m2m_changed.listened(self.through):
            await rows.add(keys, defaults)
        else:
            async with self._writing.transaction():
                await rows.lock()
                there = set(await rows.keys(keys))
                new = [key for key in keys if key not in there]
                await self._tell("pre_add", frozenset(new))
                await rows.add(new, defaults)
                await self._tell("post_add", frozenset(new))
        self._forget_on(objects)

    async def remove(self, *objects: M | Key) -> None:
        """Remove objects; those that do not belong to this one are left alone."""
        keys = self._keys(objects)
        if not keys:
            return
        await self._remove(keys, "remove")
        self._forget_on(objects)

    async def set(self, objects: Iterable[M | Key], *, through_defaults: Mapping[str, Any] | None = None) -> None:
        """Have these objects and no others. Of several that set the same relation at the same time, one is the last."""
        given = tuple(objects)
        keys = self._keys(given)
        rows = self._rows()
        async with self._writing.transaction():
            await rows.lock()
            there = await rows.keys()
            kept, wanted = set(there), set(keys)
            gone = [key for key in dict.fromkeys(there) if key not in wanted]
            if gone:
                await self._remove(gone, "remove")
            await self.add(*(key for key in keys if key not in kept), through_defaults=through_defaults)
        self._forget_on(given)

    async def clear(self) -> None:
        """Remove all objects."""
        await self._remove(None, "clear")
        self._forget()

    def _narrowed(self, query: QuerySet[M]) -> QuerySet[M]:
        return query.filter(LinkedTo(self.near, self.far, self.near.key_of(self.instance)))

    def _all(self) -> QuerySet[M]:
        return default_queryset(self.model).using(self._writing)

    @property
    def _mirrored(self) -> bool:
        field = self.relation.field
        mirrored: bool = field.symmetrical and field.model is field.target
        return mirrored

    def _rows(self) -> Membership:
        owner = self.near.key_of(self.instance)
        return Membership(self.near, self.far, owner, self._writing, mirrored=self._mirrored)

    async def _remove(self, keys: Sequence[Any] | None, what: str) -> None:
        rows = self._rows()
        if m2m_changed.listened(self.through):
            async with self._writing.transaction():
                told = None if keys is None else frozenset(keys)
                await self._tell(f"pre_{what}", told)
                await rows.remove(keys)
                await self._tell(f"post_{what}", told)
        elif self._mirrored or (keys is not None and len(keys) > 1):
            async with self._writing.transaction():
                await rows.remove(keys)
        else:
            await rows.remove(keys)

    async def _tell(self, action: str, keys: frozenset[Any] | None) -> None:
        await m2m_changed.send(
            self.through,
            instance=self.instance,
            action=action,
            reverse=self.relation.name != self.relation.field.name,
            model=self.model,
            pk_set=keys,
            using=self._writing,
        )

    def _keys(self, objects: Sequence[Any]) -> list[Any]:
        """The keys of objects, each once, in their order."""
        found: dict[Any, None] = {}
        for one in objects:
            if hasattr(type(one), "_meta"):
                found[self.far.key_of(one)] = None
                continue
            try:
                found[self.far.remote.to_python(one)] = None
            except ValueError as error:
                raise QueryError(
                    f"{self!r}: {one!r} is no {self.model.__name__}, nor the key of one: {error}"
                ) from None
        return list(found)

    def _forget_on(self, objects: Iterable[Any]) -> None:
        """Forget what was loaded, here and on the other side."""
        self._forget()
        field = self.relation.field
        back = field.name
        if not self._mirrored and self.relation.name == field.name:
            back = field.name_from_there(True)
        for one in objects:
            if back is not None and hasattr(type(one), "_meta"):
                _forget(one, back)


def _forget(instance: Any, name: str) -> None:
    related(instance).pop(name, None)
