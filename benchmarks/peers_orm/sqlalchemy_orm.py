"""SQLAlchemy's ORM, with its asynchronous sessions."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Numeric, String, Text, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, selectinload

from benchmarks.peers_orm import schema


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "bench_author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    books: Mapped[list[Book]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "bench_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(100))
    author_id: Mapped[int] = mapped_column(ForeignKey("bench_author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


class Common:
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    slug: Mapped[str] = mapped_column(String(100))
    small: Mapped[int]
    big: Mapped[int] = mapped_column(BigInteger)
    ratio: Mapped[float]
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    active: Mapped[bool]
    created: Mapped[datetime.datetime]
    note: Mapped[str] = mapped_column(Text)


class Item(Common, Base):
    __tablename__ = "bench_item"


class Scratch(Common, Base):
    __tablename__ = "bench_scratch"


def engine_for(url: str) -> AsyncEngine:
    """The engine of a URL."""
    url = url.replace("postgresql:", "postgresql+asyncpg:").replace("sqlite:", "sqlite+aiosqlite:")
    return create_async_engine(url.replace("mariadb:", "mariadb+aiomysql:"), pool_size=schema.POOL_SIZE, max_overflow=0)


class Peer:
    """SQLAlchemy's ORM; a session for each operation, as in a request."""

    def __init__(self, url: str) -> None:
        self.engine = engine_for(url)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)

    async def open(self) -> None:
        """The engine connects when it is first used."""

    async def close(self) -> None:
        await self.engine.dispose()

    async def clear(self) -> None:
        async with self.session() as session, session.begin():
            await session.execute(delete(Scratch))

    async def get(self, number: int) -> Any:
        async with self.session() as session:
            return await session.get(Item, number + 1)

    async def list100(self, number: int) -> Any:
        async with self.session() as session:
            return (await session.scalars(select(Item).where(Item.id <= 100))).all()

    async def list10k(self, number: int) -> Any:
        async with self.session() as session:
            return (await session.scalars(select(Item))).all()

    async def values10k(self, number: int) -> Any:
        async with self.session() as session:
            return (await session.execute(select(*Item.__table__.c))).mappings().all()

    async def insert(self, number: int) -> Any:
        async with self.session() as session, session.begin():
            session.add(Scratch(**schema.named(number)))

    async def bulk10k(self, number: int) -> Any:
        async with self.session() as session, session.begin():
            await session.execute(insert(Scratch), [schema.named(number) for number in range(schema.ITEMS)])

    async def transaction(self, number: int) -> Any:
        await self.insert(number)

    async def nested(self, number: int) -> Any:
        async with self.session() as session, session.begin():
            session.add(Scratch(**schema.named(number)))
            async with session.begin_nested():
                session.add(Scratch(**schema.named(number)))

    async def update(self, number: int) -> Any:
        async with self.session() as session, session.begin():
            await session.execute(update(Item).where(Item.id == number + 1).values(small=number % 97))

    async def join1k(self, number: int) -> Any:
        async with self.session() as session:
            return (await session.scalars(select(Book).options(joinedload(Book.author)))).all()

    async def prefetch(self, number: int) -> Any:
        async with self.session() as session:
            return (await session.scalars(select(Author).options(selectinload(Author.books)))).all()

    async def count(self, number: int) -> Any:
        async with self.session() as session:
            return await session.scalar(select(func.count()).select_from(Item).where(Item.small < 50))

    def books(self, found: Any) -> dict[str, list[str]]:
        return {author.name: [book.title for book in author.books] for author in found}
