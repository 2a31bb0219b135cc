"""Limits beside sessions and response caches."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.builtin import needs

from covet import Covet, Request
from covet.cache import cached
from covet.ratelimit import SlidingWindowLimiter, limited, session, unlimited
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio


@needs("sessions")
async def test_limits_by_session_and_by_address_where_there_is_none() -> None:
    app = plugin_sandbox("rate_limit", "sessions")

    @app.post("/begin")
    async def begin(request: Request) -> str:
        (await request.session)["begun"] = True
        return "begun"

    @app.get("/")
    @limited("1/minute", key=session)
    async def index() -> str:
        return "x"

    async with app.running():
        for _ in range(2):
            async with TestClient(app, lifespan=False) as client:
                await client.post("/begin")
                assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]
        async with TestClient(app, lifespan=False) as client:
            assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]
        async with TestClient(app, lifespan=False) as client:
            assert (await client.get("/")).status_code == 429


def with_cached_route(limit: Any) -> tuple[Covet, list[str]]:
    app = plugin_sandbox("rate_limit", "cache")
    made: list[str] = []

    @app.get("/")
    @limited(limit)
    @cached(60)
    async def index(request: Request) -> dict[str, int]:
        made.append("once")
        await anyio.sleep(0.01)
        return {"made": len(made)}

    return app, made


@needs("cache")
async def test_what_a_cache_keeps_carries_nothing_of_whom_it_was_made_for() -> None:
    app, made = with_cached_route("3/minute")
    async with TestClient(app) as client:
        for left in (2, 1, 0):
            got = await client.get("/")
            assert got.json() == {"made": 1}
            assert got.headers.get_list("ratelimit") == [f'"3/minute";r={left};t={max(1, left) * 20}']
            assert got.headers.get_list("ratelimit-policy") == ['"3/minute";q=3;w=60']
        refused = await client.get("/")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
    async with app.running(), TestClient(app, lifespan=False, client=("192.0.2.9", 1)) as client:
        assert (await client.get("/")).headers.get_list("ratelimit") == ['"3/minute";r=2;t=40']
    assert made == ["once"]


@needs("cache")
async def test_nobody_is_refused_because_somebody_else_was() -> None:
    app, made = with_cached_route(SlidingWindowLimiter(1, 3600))
    codes: dict[str, int] = {}

    async def ask(host: str) -> None:
        async with TestClient(app, lifespan=False, client=(host, 1)) as client:
            codes[host] = (await client.get("/?fresh")).status_code

    async with app.running():
        async with TestClient(app, lifespan=False, client=("192.0.2.1", 1)) as client:
            assert (await client.get("/")).status_code == 200
        async with anyio.create_task_group() as group:
            for host in ("192.0.2.1", "192.0.2.2"):
                group.start_soon(ask, host)
    assert codes == {"192.0.2.1": 429, "192.0.2.2": 200}
    assert len(made) == 2


@needs("openapi")
@pytest.mark.parametrize("default", ["", "5/minute"])
async def test_the_openapi_document_says_which_operations_may_refuse(default: str) -> None:
    from covet.builtin.openapi import openapi_document

    app = plugin_sandbox("rate_limit", "openapi", settings={"plugins": {"rate_limit": {"default": default}}})

    @app.get("/own/{number:int}")
    @limited("1/minute")
    async def own(number: int) -> str:
        return "x"

    @app.post("/other")
    async def other() -> str:
        return "x"

    @app.get("/free")
    @unlimited
    async def free() -> str:
        return "x"

    async with app.running():
        document = openapi_document(app)
    OpenAPIV31SpecValidator(document).validate()
    found = {
        path: "429" in operation["responses"] for path, item in document["paths"].items() for operation in item.values()
    }
    assert found == {"/own/{number}": True, "/other": bool(default), "/free": False}
