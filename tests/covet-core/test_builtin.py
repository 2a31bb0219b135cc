"""The builtin plugins together: all are listed, each can be left out, and none costs a request that does not use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.builtin import BUILTIN

from covet import Covet
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

KEY = {"app": {"secret_key": "k" * 32}}


def with_routes(app: Covet) -> Covet:
    @app.get("/")
    async def index() -> str:
        return "hello"

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    return app


def test_there_are_as_many_as_are_told() -> None:
    folder = Path(__file__).parents[2] / "covet-core" / "src" / "covet" / "builtin"
    modules = {path.stem for path in folder.glob("[a-z]*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    assert set(BUILTIN) == modules


@pytest.mark.parametrize("left_out", [None, *BUILTIN])
async def test_each_can_be_left_out_and_the_others_serve(left_out: str | None) -> None:
    rest = [name for name in BUILTIN if name != left_out]
    app = with_routes(plugin_sandbox(*rest, settings=KEY))
    async with TestClient(app) as client:
        assert (await client.get("/")).text == "hello"
        assert (await client.post("/echo", json={"a": 1})).json() == {"a": 1}
        assert (await client.get("/missing")).status_code == 404
    assert {name for name, record in app.plugins.records.items() if record.usable} == set(rest)


def test_none_stands_around_a_request_that_does_not_use_it() -> None:
    app = with_routes(plugin_sandbox(*BUILTIN, settings=KEY))
    app.build()
    assert app.built.pipeline.empty
    assert not app.built.outer
    for method, path in (("GET", "/"), ("POST", "/echo")):
        found = app.built.tables[method].find(path)
        assert found is not None
        assert "guard0" not in found[0].source


def test_the_list_says_what_each_is_for() -> None:
    command = [sys.executable, "-m", "covet", "plugins", "list", "--json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    listed = {row["name"]: row for row in rows if row["state"] == "builtin"}
    assert sorted(listed) == BUILTIN
    assert [name for name, row in listed.items() if not row["provides"]] == []
