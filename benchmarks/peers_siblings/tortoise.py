"""Tortoise ORM, over asyncpg and aiosqlite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tortoise import Tortoise, fields
from tortoise.connection import get_connections
from tortoise.models import Model
from tortoise.transactions import in_transaction

from benchmarks.peers_orm import schema


class Row(Model):
    id = fields.IntField(primary_key=True)
    name = fields.CharField(50, unique=True)

    class Meta:
        table = "siblings"


class Peer:
    """Tortoise: `in_transaction()`, outside and inside; its documentation names no way for tasks to share one."""

    together: Any = None
    inner_together: Any = None

    def __init__(self, url: str, size: int) -> None:
        if schema.kind_of(url) == "sqlite":
            self.url = f"sqlite://{schema.path_of(url)}"
        else:
            self.url = f"{url.replace('postgresql:', 'asyncpg:')}?minsize={size}&maxsize={size}"

    async def open(self) -> None:
        await Tortoise.init(db_url=self.url, modules={"models": [__name__]}, use_tz=False)
        self.connection: Any = get_connections().get("default")

    async def close(self) -> None:
        await Tortoise.close_connections()

    @asynccontextmanager
    async def outer(self) -> AsyncIterator[object]:
        async with in_transaction() as connection:
            yield connection

    @asynccontextmanager
    async def inner(self, around: object) -> AsyncIterator[object]:
        async with in_transaction() as connection:
            yield connection

    async def add(self, within: object, name: str) -> None:
        await Row.create(name=name)

    async def alone(self, name: str) -> None:
        await Row.create(name=name)

    def held(self) -> int:
        pool = getattr(self.connection, "_pool", None)
        # On SQLite there is one connection, which a transaction locks.
        return int(self.connection._lock.locked()) if pool is None else pool.get_size() - pool.get_idle_size()
