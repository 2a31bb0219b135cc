"""A manager has the methods of querysets: each gives what that of a new queryset gives."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from covet_orm.databases import Database
from covet_orm.fields import CharField, DateTimeField, ForeignKey, IntegerField
from covet_orm.models import Model, Registry

pytestmark = pytest.mark.anyio

registry = Registry()


class Shelf(Model):
    name = CharField(max_length=10)

    class Meta:
        registry = registry
        db_table = "shelf"


class Volume(Model):
    shelf = ForeignKey(Shelf, related_name="volumes")
    number = IntegerField()
    at = DateTimeField()

    class Meta:
        registry = registry
        db_table = "volume"
        ordering = ("number",)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url) as database:
        await database.create_all(registry)
        for name in ("one", "two"):
            shelf = await Shelf.objects.create(name=name)
            await Volume.objects.bulk_create(
                [
                    Volume(shelf=shelf, number=number, at=dt.datetime(2020 + number // 2, 1 + number, 1, tzinfo=dt.UTC))
                    for number in range(4)
                ]
            )
        yield database


async def rows(query: Any) -> Any:
    return await query


async def streamed(query: Any) -> list[Any]:
    return [one async for one in query]


async def page(query: Any) -> Any:
    found = await query.paginate(size=2, total=True)
    return list(found.items), found.total


NUMBERS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "reverse": lambda some: rows(some.reverse()),
    "distinct": lambda some: rows(some.distinct()),
    "limit": lambda some: rows(some.limit(2, 1)),
    "iterator": lambda some: streamed(some.iterator(chunk_size=2)),
    "union": lambda some: rows(some.union(Volume.objects.filter(number=0))),
    "union of all": lambda some: rows(some.union(Volume.objects.filter(number=0), all=True)),
    "intersection": lambda some: rows(some.intersection(Volume.objects.filter(number__in=[0, 1]))),
    "difference": lambda some: rows(some.difference(Volume.objects.filter(number__in=[0, 1]))),
    "earliest": lambda some: some.earliest("at"),
    "latest": lambda some: some.latest("at"),
    "dates": lambda some: rows(some.dates("at", "year", descending=True)),
    "datetimes": lambda some: rows(some.datetimes("at", "month", descending=True)),
    "paginate": page,
    "values": lambda some: rows(some.values("number")),
    "in order": lambda some: rows(some.order_by("-number")),
    "contains": lambda some: contained(some),
    "explain": lambda some: explained(some),
    "aggregate": lambda some: some.count(),
}


async def contained(some: Any) -> list[bool]:
    return [await some.contains(volume) for volume in await Volume.objects.order_by("pk")]


async def explained(some: Any) -> bool:
    return bool(await some.explain())


@pytest.mark.parametrize("name", NUMBERS)
async def test_a_manager_gives_what_its_queryset_gives(database: Database, name: str) -> None:
    """That of a model, and that of the objects that refer to one."""
    call = NUMBERS[name]
    shelf = await Shelf.objects.get(name="two")
    of_model, of_shelf = await call(Volume.objects), await call(shelf.volumes)
    assert of_model == await call(Volume.objects.all())
    assert of_shelf == await call(Volume.objects.filter(shelf=shelf))
    assert of_model != of_shelf or name in (
        "explain", "dates", "datetimes", "earliest", "latest", "values", "intersection",
    )  # fmt: skip


async def test_a_manager_deletes_and_tells_its_database_and_its_statement(database: Database) -> None:
    shelf = await Shelf.objects.get(name="two")
    volumes: Any = shelf.volumes
    assert volumes.database is database
    assert Volume.objects.database is database
    assert "volume" in str(volumes.to_sqlalchemy())
    assert "shelf_id" not in str(Volume.objects.to_sqlalchemy().whereclause)
    await volumes.delete()
    assert await Volume.objects.count() == 4
    assert await volumes.count() == 0
    await Volume.objects.delete()
    assert await Volume.objects.count() == 0
