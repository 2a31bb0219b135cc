"""SQLAlchemy's ORM, with its asynchronous sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from sqlalchemy import String, event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.peers_orm import schema


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "siblings"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)


class Peer:
    """SQLAlchemy: `begin()` and `begin_nested()` of a session; the way out is a session for each task."""

    def __init__(self, url: str, size: int) -> None:
        self.size = size
        driver = url.replace("postgresql:", "postgresql+asyncpg:").replace("sqlite:", "sqlite+aiosqlite:")
        self.engine = create_async_engine(driver, pool_size=size, max_overflow=0)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)
        if schema.kind_of(url) == "sqlite":
            begin_at_once(self.engine.sync_engine)

    async def open(self) -> None:
        # The engine connects when it is used; others have their connections when they are open.
        async with AsyncExitStack() as stack:
            for _ in range(self.size):
                await stack.enter_async_context(self.engine.connect())

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def outer(self) -> AsyncIterator[object]:
        async with self.session() as session, session.begin():
            yield session

    @asynccontextmanager
    async def inner(self, around: object) -> AsyncIterator[object]:
        session = cast("AsyncSession", around)
        async with session.begin_nested():
            yield session

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def inner_together(self, around: object) -> AsyncIterator[object]:
        async with self.outer() as session:
            yield session

    async def add(self, within: object, name: str) -> None:
        session = cast("AsyncSession", within)
        session.add(Row(name=name))
        await session.flush()

    async def alone(self, name: str) -> None:
        async with self.outer() as session:
            await self.add(session, name)

    def held(self) -> int:
        pool: Any = self.engine.pool
        return int(pool.checkedout())


def begin_at_once(engine: Any) -> None:
    """Have BEGIN sent when a transaction begins, as the documentation of the dialect advises where there are
    savepoints."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")
