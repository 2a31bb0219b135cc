"""A short form of the proof in which a migration of thirty steps is killed at random; and that the proof notices what
is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.migrations.killing import OUTCOMES, Walk, at_once
from tests.services.databases import Databases, SQLite, ask

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("name", "way"), [("sqlite", "in parts"), ("postgresql-15", "whole"), ("mariadb", "whole")])
async def test_killed_at_random(databases: Databases, name: str, way: str) -> None:
    server: Any = databases.get(name)
    walk = Walk(server, way, seed=3)
    await walk.prepare()
    assert walk.steps >= 30
    for victim in ("client", "client" if name == "sqlite" else "server", "client"):
        assert await walk.strike(victim) in OUTCOMES
    assert walk.tally.wrong == []
    assert walk.tally.exact >= 1


async def test_the_proof_notices_what_is_wrong(tmp_path: Path) -> None:
    server = SQLite(tmp_path)
    walk = Walk(server, "in parts", seed=2)
    await walk.prepare()
    for statement in (
        "UPDATE shop_account SET balance = balance + 1 WHERE id = 7",
        "CREATE INDEX one_more ON shop_account (code)",
    ):
        await ask(walk.url, statement)
        before = len(walk.tally.wrong)
        await walk.strike("client")
        assert len(walk.tally.wrong) > before, statement
    # An end that is not the end.
    assert any("something else is there" in one or "journal says" in one for one in walk.tally.wrong)


async def test_at_once_notices_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SQLite(tmp_path)
    assert await at_once(server, "whole", 2) == []
    monkeypatch.setattr("tests.migrations.history.ROWS", 7)
    assert any("rows were changed" in one for one in await at_once(server, "whole", 2))
