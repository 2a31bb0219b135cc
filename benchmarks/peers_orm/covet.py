"""Covet, as a user of it would write this."""

from __future__ import annotations

from typing import Any

from benchmarks.peers_orm import schema
from covet_orm import (
    AutoField,
    BigIntegerField,
    BooleanField,
    CharField,
    Database,
    DateTimeField,
    DecimalField,
    FloatField,
    ForeignKey,
    IntegerField,
    Model,
    Registry,
    TextField,
    transaction_manager,
)

registry = Registry()


class Author(Model):
    id = AutoField()
    name = CharField(max_length=100)

    class Meta:
        db_table = "bench_author"
        registry = registry


class Book(Model):
    id = AutoField()
    title = CharField(max_length=100)
    author = ForeignKey(Author, related_name="books")

    class Meta:
        db_table = "bench_book"
        registry = registry


class Common(Model):
    id = AutoField()
    name = CharField(max_length=100)
    slug = CharField(max_length=100)
    small = IntegerField()
    big = BigIntegerField()
    ratio = FloatField()
    price = DecimalField(max_digits=12, decimal_places=2)
    active = BooleanField()
    created = DateTimeField(timezone=False)
    note = TextField()

    class Meta:
        abstract = True
        registry = registry


class Item(Common):
    class Meta:
        db_table = "bench_item"
        registry = registry


class Scratch(Common):
    class Meta:
        db_table = "bench_scratch"
        registry = registry


class Peer:
    """Covet, outside of an application."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, min_size=2, max_size=schema.POOL_SIZE)

    async def open(self) -> None:
        await self.database.__aenter__()

    async def close(self) -> None:
        await self.database.__aexit__(None, None, None)

    async def clear(self) -> None:
        await Scratch.objects.all().delete()

    async def get(self, number: int) -> Any:
        return await Item.objects.get(id=number + 1)

    async def list100(self, number: int) -> Any:
        return await Item.objects.filter(id__lte=100)

    async def list10k(self, number: int) -> Any:
        return await Item.objects.all()

    async def values10k(self, number: int) -> Any:
        return await Item.objects.values()

    async def insert(self, number: int) -> Any:
        return await Scratch.objects.create(**schema.named(number))

    async def bulk10k(self, number: int) -> Any:
        await Scratch.objects.bulk_create([Scratch(**schema.named(number)) for number in range(schema.ITEMS)])

    async def transaction(self, number: int) -> Any:
        async with transaction_manager.atomic():
            await Scratch.objects.create(**schema.named(number))

    async def nested(self, number: int) -> Any:
        async with transaction_manager.atomic():
            await Scratch.objects.create(**schema.named(number))
            async with transaction_manager.atomic():
                await Scratch.objects.create(**schema.named(number))

    async def nested_by_hand(self, number: int) -> Any:
        """As `nested`, but instead of the inner block its two statements, by the driver."""
        async with transaction_manager.atomic() as block:
            await Scratch.objects.create(**schema.named(number))
            raw: Any = (await block.ready()).raw
            run, encoded = (raw.run, str.encode) if self.database.kind == "mariadb" else (raw.execute, str)
            await run(encoded("SAVEPOINT one"))
            await Scratch.objects.create(**schema.named(number))
            await run(encoded("RELEASE SAVEPOINT one"))

    async def update(self, number: int) -> Any:
        return await Item.objects.filter(id=number + 1).update(small=number % 97)

    async def join1k(self, number: int) -> Any:
        return await Book.objects.select_related("author")

    async def prefetch(self, number: int) -> Any:
        return await Author.objects.prefetch_related("books")

    async def count(self, number: int) -> Any:
        return await Item.objects.filter(small__lt=50).count()

    def books(self, found: Any) -> dict[str, list[str]]:
        return {author.name: [book.title for book in author.books] for author in found}
