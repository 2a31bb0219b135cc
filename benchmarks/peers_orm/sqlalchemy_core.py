"""SQLAlchemy Core: rows, no objects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, insert, select, update

from benchmarks.peers_orm import schema, sqlalchemy_orm

Author, Book, Item, Scratch = (
    model.__table__
    for model in (sqlalchemy_orm.Author, sqlalchemy_orm.Book, sqlalchemy_orm.Item, sqlalchemy_orm.Scratch)
)


class Peer:
    """SQLAlchemy Core."""

    def __init__(self, url: str) -> None:
        self.engine = sqlalchemy_orm.engine_for(url)

    async def open(self) -> None:
        """The engine connects when it is first used."""

    async def close(self) -> None:
        await self.engine.dispose()

    async def query(self, statement: Any) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(statement)).all()

    async def write(self, statement: Any, *rows: Any) -> Any:
        async with self.engine.begin() as connection:
            return await connection.execute(statement, *rows)

    async def clear(self) -> None:
        await self.write(delete(Scratch))

    async def get(self, number: int) -> Any:
        return (await self.query(select(Item).where(Item.c.id == number + 1)))[0]

    async def list100(self, number: int) -> Any:
        return await self.query(select(Item).where(Item.c.id <= 100))

    async def list10k(self, number: int) -> Any:
        return await self.query(select(Item))

    async def values10k(self, number: int) -> Any:
        return [dict(row._mapping) for row in await self.query(select(Item))]

    async def insert(self, number: int) -> Any:
        return (await self.write(insert(Scratch).values(**schema.named(number)))).inserted_primary_key

    async def bulk10k(self, number: int) -> Any:
        await self.write(insert(Scratch), [schema.named(number) for number in range(schema.ITEMS)])

    async def update(self, number: int) -> Any:
        await self.write(update(Item).where(Item.c.id == number + 1).values(small=number % 97))

    async def join1k(self, number: int) -> Any:
        return await self.query(select(Book, Author).join(Author))

    async def prefetch(self, number: int) -> Any:
        return await self.query(select(Author)), await self.query(select(Book))

    async def count(self, number: int) -> Any:
        return (await self.query(select(func.count()).select_from(Item).where(Item.c.small < 50)))[0][0]

    def books(self, found: Any) -> dict[str, list[str]]:
        authors, books = found
        return {author.name: [book.title for book in books if book.author_id == author.id] for author in authors}
