"""The short form of the proof `orm_kill`."""

from __future__ import annotations

import pytest
from tests.proofs.orm_kill import run, run_sqlite
from tests.services.databases import Database

pytestmark = pytest.mark.anyio


async def test_a_server_that_is_killed_under_load(server: Database, url: str) -> None:
    if server.kind == "sqlite":
        outcome = await run_sqlite(kills=1, seconds=0.5)
        assert outcome.acknowledged
    else:
        outcome = await run(server.name, server, url, kills=1, seconds=0.5)
        assert outcome.errors
    assert not outcome.failed, outcome
