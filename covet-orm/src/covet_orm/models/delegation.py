"""The methods of querysets that managers have: each is that of a new queryset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from covet_orm.databases import Database
    from covet_orm.expressions.base import Expression, Ordering
    from covet_orm.expressions.conditions import Condition
    from covet_orm.models.instances import Model
    from covet_orm.queries.plans import Plan
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.relations.prefetching import Prefetch

__all__ = ["QueryMethods"]

M = TypeVar("M", bound="Model")


class QueryMethods(ABC, Generic[M]):
    """What `User.objects` and `author.books` have in common: a queryset to begin with, and its methods."""

    @abstractmethod
    def get_queryset(self) -> QuerySet[M]:
        """What every query begins with."""

    def filter(self, *conditions: Condition, **lookups: Any) -> QuerySet[M]:
        """As `QuerySet.filter`: the objects that all conditions hold for."""
        return self.get_queryset().filter(*conditions, **lookups)

    def exclude(self, *conditions: Condition, **lookups: Any) -> QuerySet[M]:
        """As `QuerySet.exclude`: the objects that the conditions."""
        return self.get_queryset().exclude(*conditions, **lookups)

    def all(self) -> QuerySet[M]:
        """As `QuerySet.all`: the same query."""
        return self.get_queryset().all()

    def order_by(self, *names: str | Expression[Any] | Ordering) -> QuerySet[M]:
        """As `QuerySet.order_by`: in that order."""
        return self.get_queryset().order_by(*names)

    def reverse(self) -> QuerySet[M]:
        """As `QuerySet.reverse`: in the opposite order."""
        return self.get_queryset().reverse()

    def distinct(self, *names: str) -> QuerySet[M]:
        """As `QuerySet.distinct`: no result twice."""
        return self.get_queryset().distinct(*names)

    def limit(self, count: int | None, offset: int = 0) -> QuerySet[M]:
        """As `QuerySet.limit`: at most `count` results."""
        return self.get_queryset().limit(count, offset)

    def annotate(self, **expressions: Expression[Any]) -> QuerySet[M]:
        """As `QuerySet.annotate`: with values that are computed."""
        return self.get_queryset().annotate(**expressions)

    def values(self, *names: str, **expressions: Expression[Any]) -> QuerySet[Any]:
        """As `QuerySet.values`: dicts instead of objects."""
        return self.get_queryset().values(*names, **expressions)

    def values_list(self, *names: str, flat: bool = False, **expressions: Expression[Any]) -> QuerySet[Any]:
        """As `QuerySet.values_list`: tuples instead of objects."""
        return self.get_queryset().values_list(*names, flat=flat, **expressions)

    def only(self, *names: str) -> QuerySet[M]:
        """As `QuerySet.only`: objects with these fields and the key alone."""
        return self.get_queryset().only(*names)

    def defer(self, *names: str) -> QuerySet[M]:
        """As `QuerySet.defer`: objects without these fields."""
        return self.get_queryset().defer(*names)

    def select_related(self, *paths: str) -> QuerySet[M]:
        """As `QuerySet.select_related`: with the objects that these relations to one lead to."""
        return self.get_queryset().select_related(*paths)

    def prefetch_related(self, *lookups: str | Prefetch | None) -> QuerySet[M]:
        """As `QuerySet.prefetch_related`: with the objects that relations lead to."""
        return self.get_queryset().prefetch_related(*lookups)

    async def update(self, **values: Any) -> int:
        """As `QuerySet.update`: write values to every row."""
        return await self.get_queryset().update(**values)

    async def delete(self) -> int:
        """As `QuerySet.delete`: delete every row."""
        return await self.get_queryset().delete()

    async def bulk_create(
        self,
        objects: Iterable[M],
        *,
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Sequence[str] = (),
        unique_fields: Sequence[str] = (),
    ) -> list[M]:
        """As `QuerySet.bulk_create`: insert many objects."""
        return await self.get_queryset().bulk_create(
            objects,
            batch_size=batch_size,
            ignore_conflicts=ignore_conflicts,
            update_conflicts=update_conflicts,
            update_fields=update_fields,
            unique_fields=unique_fields,
        )

    async def bulk_update(self, objects: Iterable[M], fields: Sequence[str], *, batch_size: int | None = None) -> int:
        """As `QuerySet.bulk_update`: write some fields of many objects."""
        return await self.get_queryset().bulk_update(objects, fields, batch_size=batch_size)

    def iterator(self, chunk_size: int = 2000) -> AsyncIterator[M]:
        """As `QuerySet.iterator`: the results one by one."""
        return self.get_queryset().iterator(chunk_size)

    def using(self, database: str | Database | None) -> QuerySet[M]:
        """As `QuerySet.using`: in that database."""
        return self.get_queryset().using(database)

    async def get(self, *conditions: Condition, **lookups: Any) -> M:
        """As `QuerySet.get`: the one object that conditions hold for."""
        return await self.get_queryset().get(*conditions, **lookups)

    async def create(self, **values: Any) -> M:
        """As `QuerySet.create`: make an object and save it."""
        return await self.get_queryset().create(**values)

    async def get_or_create(self, defaults: Mapping[str, Any] | None = None, **lookups: Any) -> tuple[M, bool]:
        """As `QuerySet.get_or_create`: the object that lookups hold for."""
        return await self.get_queryset().get_or_create(defaults, **lookups)

    async def update_or_create(
        self,
        defaults: Mapping[str, Any] | None = None,
        create_defaults: Mapping[str, Any] | None = None,
        **lookups: Any,
    ) -> tuple[M, bool]:
        """As `QuerySet.update_or_create`: change the object that lookups hold for."""
        return await self.get_queryset().update_or_create(defaults, create_defaults, **lookups)

    async def first(self) -> M | None:
        """As `QuerySet.first`: the first result."""
        return await self.get_queryset().first()

    async def last(self) -> M | None:
        """As `QuerySet.last`: the last result."""
        return await self.get_queryset().last()

    async def count(self) -> int:
        """As `QuerySet.count`: how many results there are."""
        return await self.get_queryset().count()

    async def exists(self) -> bool:
        """As `QuerySet.exists`: whether there is any result."""
        return await self.get_queryset().exists()

    @property
    def database(self) -> Database:
        """The database that it asks."""
        return self.get_queryset().database

    def prepared(self, database: Database) -> tuple[Plan, Sequence[Any]]:
        """As `QuerySet.prepared`: what is sent when it is awaited."""
        return self.get_queryset().prepared(database)
