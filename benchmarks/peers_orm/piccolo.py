"""Piccolo, over asyncpg and aiosqlite. With SQLite it opens the file anew for every query."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from piccolo.columns import (
    BigInt,
    Boolean,
    DoublePrecision,
    ForeignKey,
    Integer,
    Numeric,
    Serial,
    Text,
    Timestamp,
    Varchar,
)
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

from benchmarks.peers_orm import schema

CONVERTERS = schema.Converters()
with CONVERTERS:
    from piccolo.engine.sqlite import SQLiteEngine


class Author(Table, tablename="bench_author"):
    id = Serial(primary_key=True)
    name = Varchar(100)


class Book(Table, tablename="bench_book"):
    id = Serial(primary_key=True)
    title = Varchar(100)
    author = ForeignKey(Author, db_column_name="author_id")


class Item(Table, tablename="bench_item"):
    id = Serial(primary_key=True)
    name = Varchar(100)
    slug = Varchar(100)
    small = Integer()
    big = BigInt()
    ratio = DoublePrecision()
    price = Numeric((12, 2))
    active = Boolean()
    created = Timestamp()
    note = Text()


class Scratch(Table, tablename="bench_scratch"):
    id = Serial(primary_key=True)
    name = Varchar(100)
    slug = Varchar(100)
    small = Integer()
    big = BigInt()
    ratio = DoublePrecision()
    price = Numeric((12, 2))
    active = Boolean()
    created = Timestamp()
    note = Text()


class Peer:
    """Piccolo."""

    engine: Any
    converters = CONVERTERS

    def __init__(self, url: str) -> None:
        self.pooled = schema.kind_of(url) == "postgresql"
        self.engine = PostgresEngine(schema.parts_of(url)) if self.pooled else SQLiteEngine(schema.path_of(url))
        for table in (Author, Book, Item, Scratch):
            table._meta._db = self.engine

    async def open(self) -> None:
        if self.pooled:
            await self.engine.start_connection_pool(min_size=2, max_size=schema.POOL_SIZE)

    async def close(self) -> None:
        if self.pooled:
            await self.engine.close_connection_pool()

    async def clear(self) -> None:
        await Scratch.delete(force=True)

    async def get(self, number: int) -> Any:
        return await Item.objects().get(Item.id == number + 1)

    async def list100(self, number: int) -> Any:
        return await Item.objects().where(Item.id <= 100)

    async def list10k(self, number: int) -> Any:
        return await Item.objects()

    async def values10k(self, number: int) -> Any:
        return await Item.select()

    async def insert(self, number: int) -> Any:
        return await Scratch.objects().create(**schema.named(number))

    async def bulk10k(self, number: int) -> Any:
        # A statement holds no more than 32,767 parameters; its documentation has the rows cut into pieces.
        async with self.engine.transaction():
            for start in range(0, schema.ITEMS, 1000):
                await Scratch.insert(*[Scratch(**schema.named(start + number)) for number in range(1000)])

    async def update(self, number: int) -> Any:
        return await Item.update({Item.small: number % 97}).where(Item.id == number + 1)

    async def join1k(self, number: int) -> Any:
        return await Book.objects(Book.author)

    async def prefetch(self, number: int) -> Any:
        # It has nothing for the many of one: two queries, and the books sorted to their authors by hand.
        authors = await Author.objects()
        found = defaultdict(list)
        for book in await Book.objects().where(Book.author.is_in([author.id for author in authors])):
            found[book.author].append(book)
        return [(author, found[author.id]) for author in authors]

    async def count(self, number: int) -> Any:
        return await Item.count().where(Item.small < 50)

    def books(self, found: Any) -> dict[str, list[str]]:
        return {author.name: [book.title for book in books] for author, books in found}
