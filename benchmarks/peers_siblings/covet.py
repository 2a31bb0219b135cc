"""Covet's ORM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from covet_orm import CharField, Database, Model, Registry, transaction_manager

registry = Registry()


class Row(Model):
    name = CharField(max_length=50, unique=True)

    class Meta:
        registry = registry
        db_table = "siblings"


class Peer:
    """Covet's ORM: the way out is `share()`."""

    def __init__(self, url: str, size: int) -> None:
        self.database = Database(url, min_size=size, max_size=size)

    async def open(self) -> None:
        await self.database.open()

    async def close(self) -> None:
        await self.database.close()

    @asynccontextmanager
    async def outer(self) -> AsyncIterator[object]:
        async with transaction_manager.atomic() as block:
            yield block

    @asynccontextmanager
    async def inner(self, around: object) -> AsyncIterator[object]:
        async with transaction_manager.atomic() as block:
            yield block

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        async with transaction_manager.share():
            yield

    @asynccontextmanager
    async def inner_together(self, around: object) -> AsyncIterator[object]:
        async with self.inner(around) as block:
            yield block

    async def add(self, within: object, name: str) -> None:
        await Row.objects.create(name=name)

    async def alone(self, name: str) -> None:
        await Row.objects.create(name=name)

    def held(self) -> int:
        return sum(pool.stats.in_use for pool in self.database.pools())
