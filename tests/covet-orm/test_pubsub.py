"""The pub/sub backend `postgresql`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import anyio
import pytest
from tests.services.postgresql import PostgreSQL
from tests.services.proxy import Proxy

from covet.pubsub import PubSubBackend
from covet.testing.conformance.pubsub import PubSubConformance
from covet_orm.databases import Database
from covet_orm.pubsub import PostgreSQLPubSub


class TestKit(PubSubConformance):
    """The kit, unchanged."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def proxy(self, postgresql: PostgreSQL) -> Iterator[Proxy]:
        with Proxy(postgresql.port) as proxy:
            yield proxy

    @pytest.fixture
    async def backend(self, postgresql: PostgreSQL, proxy: Proxy) -> AsyncIterator[PubSubBackend]:
        async with Database(proxy.url(postgresql.empty_database("test"))) as database:
            backend = PostgreSQLPubSub(database)
            await backend.table.create()
            yield backend

    @pytest.fixture
    async def other(self, postgresql: PostgreSQL, backend: PubSubBackend) -> AsyncIterator[PubSubBackend]:
        async with Database(postgresql.url("test"), alias="other") as database:
            yield PostgreSQLPubSub(database)

    @pytest.fixture
    def cut(self, proxy: Proxy) -> Callable[[], Awaitable[object]]:
        async def cut() -> None:
            await anyio.to_thread.run_sync(proxy.cut)

        return cut
