"""The session store `database`, on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from covet.sessions import SessionStore
from covet.testing.conformance.sessions import SessionStoreConformance
from covet_orm.databases import Database
from covet_orm.sessions import DatabaseSessionStore


class TestKit(SessionStoreConformance):
    """The kit, unchanged."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[SessionStore]:
        async with Database(url) as database:
            store = DatabaseSessionStore(database)
            await store.table.create()
            yield store
