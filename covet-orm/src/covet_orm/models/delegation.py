"""The methods of querysets that managers have: each is that of a new queryset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from sqlalchemy import Select

    from covet_orm.databases import Database
    from covet_orm.expressions.base import Expression, Ordering
    from covet_orm.expressions.conditions import Condition
    from covet_orm.models.instances import Model
    from covet_orm.queries.ctes import CTE
    from covet_orm.queries.filtered import FilteredRelation
    from covet_orm.queries.pagination import Page
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.queries.raw import RawQuery
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
        """As `QuerySet.exclude`: the objects that the conditions do not hold for."""
        return self.get_queryset().exclude(*conditions, **lookups)

    def all(self) -> QuerySet[M]:
        """As `QuerySet.all`: every object."""
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
        """As `QuerySet.limit`: at most `count` results, from the one at `offset` on."""
        return self.get_queryset().limit(count, offset)

    def annotate(self, /, **expressions: Expression[Any] | QuerySet[Any] | FilteredRelation) -> QuerySet[M]:
        """As `QuerySet.annotate`: with values that are computed."""
        return self.get_queryset().annotate(**expressions)

    def values(self, *names: str, **expressions: Expression[Any]) -> QuerySet[Any]:
        """As `QuerySet.values`: dicts instead of objects."""
        return self.get_queryset().values(*names, **expressions)

    def values_list(
        self, *names: str, flat: bool = False, named: bool = False, **expressions: Expression[Any]
    ) -> QuerySet[Any]:
        """As `QuerySet.values_list`: tuples instead of objects, or the values of one name, or named tuples."""
        return self.get_queryset().values_list(*names, flat=flat, named=named, **expressions)

    def only(self, *names: str) -> QuerySet[M]:
        """As `QuerySet.only`: objects with these fields and the key alone."""
        return self.get_queryset().only(*names)

    def defer(self, *names: str) -> QuerySet[M]:
        """As `QuerySet.defer`: objects without these fields."""
        return self.get_queryset().defer(*names)

    def select_related(self, *paths: str) -> QuerySet[M]:
        """As `QuerySet.select_related`: with the objects that relations to one lead to, in the same query."""
        return self.get_queryset().select_related(*paths)

    def select_subclasses(self, *models: type[Model]) -> QuerySet[M]:
        """As `QuerySet.select_subclasses`: each object as one of the model that it is of."""
        return self.get_queryset().select_subclasses(*models)

    def prefetch_related(self, *lookups: str | Prefetch | None) -> QuerySet[M]:
        """As `QuerySet.prefetch_related`: with the objects that relations lead to, by one further query for each."""
        return self.get_queryset().prefetch_related(*lookups)

    async def update(self, **values: Any) -> int:
        """As `QuerySet.update`: write values to every row, in one statement."""
        return await self.get_queryset().update(**values)

    async def update_returning(self, **values: Any) -> list[M]:
        """As `QuerySet.update_returning`: write values to every row, and read what the rows are then."""
        return await self.get_queryset().update_returning(**values)

    async def delete(self) -> int:
        """As `QuerySet.delete`: delete every row, in one statement."""
        return await self.get_queryset().delete()

    async def delete_returning(self) -> list[M]:
        """As `QuerySet.delete_returning`: delete every row, and read what the rows were."""
        return await self.get_queryset().delete_returning()

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
        """As `QuerySet.bulk_create`: insert many objects, all of them or none."""
        return await self.get_queryset().bulk_create(
            objects,
            batch_size=batch_size,
            ignore_conflicts=ignore_conflicts,
            update_conflicts=update_conflicts,
            update_fields=update_fields,
            unique_fields=unique_fields,
        )

    async def bulk_update(self, objects: Iterable[M], fields: Sequence[str], *, batch_size: int | None = None) -> int:
        """As `QuerySet.bulk_update`: write some fields of many objects, of all or of none."""
        return await self.get_queryset().bulk_update(objects, fields, batch_size=batch_size)

    def iterator(self, chunk_size: int = 2000) -> AsyncGenerator[M, None]:
        """As `QuerySet.iterator`: the results one by one, by a cursor of the server."""
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
        """As `QuerySet.get_or_create`: the object that lookups hold for, or a new one; and whether it is new."""
        return await self.get_queryset().get_or_create(defaults, **lookups)

    async def update_or_create(
        self,
        defaults: Mapping[str, Any] | None = None,
        create_defaults: Mapping[str, Any] | None = None,
        **lookups: Any,
    ) -> tuple[M, bool]:
        """As `QuerySet.update_or_create`: change the object that lookups hold for, or make one."""
        return await self.get_queryset().update_or_create(defaults, create_defaults, **lookups)

    async def first(self) -> M | None:
        """As `QuerySet.first`: the first result, by the key where no order is given."""
        return await self.get_queryset().first()

    async def last(self) -> M | None:
        """As `QuerySet.last`: the last result, by the key where no order is given."""
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

    async def aggregate(self, /, *aggregates: Expression[Any], **named: Expression[Any]) -> dict[str, Any]:
        """As `QuerySet.aggregate`: aggregates of all rows."""
        return await self.get_queryset().aggregate(*aggregates, **named)

    def alias(self, /, **expressions: Expression[Any]) -> QuerySet[M]:
        """As `QuerySet.alias`: with values that are computed and not given."""
        return self.get_queryset().alias(**expressions)

    def none(self) -> QuerySet[M]:
        """As `QuerySet.none`: no results."""
        return self.get_queryset().none()

    def union(self, *others: QuerySet[Any], all: bool = False) -> QuerySet[M]:
        """As `QuerySet.union`: what any of several queries gives."""
        return self.get_queryset().union(*others, all=all)

    def intersection(self, *others: QuerySet[Any]) -> QuerySet[M]:
        """As `QuerySet.intersection`: what all of several queries give."""
        return self.get_queryset().intersection(*others)

    def difference(self, *others: QuerySet[Any]) -> QuerySet[M]:
        """As `QuerySet.difference`: what the first query gives and none of the others."""
        return self.get_queryset().difference(*others)

    def join(self, table: CTE, *conditions: Condition, outer: bool = False) -> QuerySet[M]:
        """As `QuerySet.join`: with a common table expression beside each row."""
        return self.get_queryset().join(table, *conditions, outer=outer)

    def select_for_update(
        self, *, nowait: bool = False, skip_locked: bool = False, of: Sequence[str] = (), no_key: bool = False
    ) -> QuerySet[M]:
        """As `QuerySet.select_for_update`: lock the rows until the transaction ends."""
        return self.get_queryset().select_for_update(nowait=nowait, skip_locked=skip_locked, of=of, no_key=no_key)

    async def explain(self, *, analyze: bool = False, format: Literal["text", "json"] = "text", **options: Any) -> str:
        """As `QuerySet.explain`: how the database runs the query."""
        return await self.get_queryset().explain(analyze=analyze, format=format, **options)

    def raw(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> RawQuery[M]:
        """As `QuerySet.raw`: objects of SQL that you write yourself."""
        return self.get_queryset().raw(sql, parameters)

    async def in_bulk(self, keys: Iterable[Any] | None = None, *, field_name: str = "pk") -> dict[Any, M]:
        """As `QuerySet.in_bulk`: objects by their keys."""
        return await self.get_queryset().in_bulk(keys, field_name=field_name)

    async def earliest(self, *names: str) -> M:
        """As `QuerySet.earliest`: the first object in the order of some fields."""
        return await self.get_queryset().earliest(*names)

    async def latest(self, *names: str) -> M:
        """As `QuerySet.latest`: the last object in the order of some fields."""
        return await self.get_queryset().latest(*names)

    async def contains(self, instance: Model) -> bool:
        """As `QuerySet.contains`: whether an object is among the results."""
        return await self.get_queryset().contains(instance)

    def dates(
        self, field: str, kind: Literal["year", "month", "week", "day"], *, descending: bool = False
    ) -> QuerySet[Any]:
        """As `QuerySet.dates`: the days on which something of a DateField is."""
        return self.get_queryset().dates(field, kind, descending=descending)

    def datetimes(
        self,
        field: str,
        kind: Literal["year", "month", "week", "day", "hour", "minute", "second"],
        *,
        descending: bool = False,
        tzinfo: Any = None,
    ) -> QuerySet[Any]:
        """As `QuerySet.datetimes`: the points in time at which something of a DateTimeField is."""
        return self.get_queryset().datetimes(field, kind, descending=descending, tzinfo=tzinfo)

    async def paginate(
        self, *, after: str | None = None, before: str | None = None, size: int = 100, total: bool = False
    ) -> Page[M]:
        """As `QuerySet.paginate`: one page of the results, found by the values of its neighbour's last row."""
        return await self.get_queryset().paginate(after=after, before=before, size=size, total=total)

    def to_sqlalchemy(self) -> Select[Any]:
        """As `QuerySet.to_sqlalchemy`: the query as a SELECT of SQLAlchemy Core."""
        return self.get_queryset().to_sqlalchemy()
