"""Tortoise ORM, over asyncpg and aiosqlite."""

from __future__ import annotations

from typing import Any

from tortoise import Tortoise, fields
from tortoise.models import Model
from tortoise.transactions import in_transaction

from benchmarks.peers_orm import schema


class Author(Model):
    id = fields.IntField(primary_key=True)
    name = fields.CharField(100)

    class Meta:
        table = "bench_author"


class Book(Model):
    id = fields.IntField(primary_key=True)
    title = fields.CharField(100)
    author: Any = fields.ForeignKeyField("models.Author", related_name="books")

    class Meta:
        table = "bench_book"


class Common(Model):
    id = fields.IntField(primary_key=True)
    name = fields.CharField(100)
    slug = fields.CharField(100)
    small = fields.IntField()
    big = fields.BigIntField()
    ratio = fields.FloatField()
    price = fields.DecimalField(12, 2)
    active = fields.BooleanField()
    created = fields.DatetimeField()
    note = fields.TextField()

    class Meta:
        abstract = True


class Item(Common):
    class Meta:
        table = "bench_item"


class Scratch(Common):
    class Meta:
        table = "bench_scratch"


class Peer:
    """Tortoise."""

    def __init__(self, url: str) -> None:
        if schema.kind_of(url) == "sqlite":
            self.url = f"sqlite://{schema.path_of(url)}?synchronous=normal"
        else:
            self.url = f"{url.replace('postgresql:', 'asyncpg:')}?minsize=2&maxsize={schema.POOL_SIZE}"

    async def open(self) -> None:
        await Tortoise.init(db_url=self.url, modules={"models": [__name__]}, use_tz=False)

    async def close(self) -> None:
        await Tortoise.close_connections()

    async def clear(self) -> None:
        await Scratch.all().delete()

    async def get(self, number: int) -> Any:
        return await Item.get(id=number + 1)

    async def list100(self, number: int) -> Any:
        return await Item.filter(id__lte=100)

    async def list10k(self, number: int) -> Any:
        return await Item.all()

    async def values10k(self, number: int) -> Any:
        return await Item.all().values()

    async def insert(self, number: int) -> Any:
        return await Scratch.create(**schema.named(number))

    async def bulk10k(self, number: int) -> Any:
        await Scratch.bulk_create([Scratch(**schema.named(number)) for number in range(schema.ITEMS)])

    async def transaction(self, number: int) -> Any:
        async with in_transaction():
            await Scratch.create(**schema.named(number))

    async def nested(self, number: int) -> Any:
        async with in_transaction():
            await Scratch.create(**schema.named(number))
            async with in_transaction():
                await Scratch.create(**schema.named(number))

    async def update(self, number: int) -> Any:
        return await Item.filter(id=number + 1).update(small=number % 97)

    async def join1k(self, number: int) -> Any:
        return await Book.all().select_related("author")

    async def prefetch(self, number: int) -> Any:
        return await Author.all().prefetch_related("books")

    async def count(self, number: int) -> Any:
        return await Item.filter(small__lt=50).count()

    def books(self, found: Any) -> dict[str, list[str]]:
        return {author.name: [book.title for book in author.books] for author in found}
