"""The builtin plugin request_id: whose id shows where, and that nothing is paid for what is not asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from covet import Covet, HTTPError, Request, Response, StreamingResponse
from covet.testing import TestClient, plugin_sandbox
from covet.tracing import valid_request_id

pytestmark = pytest.mark.anyio

ON = {"plugins": {"request_id": {"response_header": True}}}


def with_routes(app: Covet) -> Covet:
    @app.get("/")
    async def index(request: Request) -> dict[str, str]:
        return {"id": request.id}

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPError(409)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    @app.get("/own")
    async def own() -> Response:
        return Response("x", headers={"x-request-id": "own"})

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        return StreamingResponse(pieces())

    return app


@pytest.mark.parametrize("path", ["/", "/refused", "/broken", "/stream", "/missing"])
async def test_with_the_header_on_every_response_has_the_id(path: str) -> None:
    app = with_routes(plugin_sandbox("request_id", settings=ON))
    async with TestClient(app, raise_errors=False) as client:
        got = await client.get(path, headers={"x-request-id": "mine-1"})
        assert got.headers.get_list("x-request-id") == ["mine-1"]
        first, second = [(await client.get(path)).headers["x-request-id"] for _ in range(2)]
        assert valid_request_id(first)
        assert first != second
        forged = (await client.get(path, headers={"x-request-id": "a b<script>"})).headers["x-request-id"]
        assert len(forged) == 32


async def test_the_id_in_the_header_is_the_request_s_and_a_response_keeps_its_own() -> None:
    app = with_routes(plugin_sandbox("request_id", settings=ON))
    async with TestClient(app) as client:
        got = await client.get("/")
        assert got.headers["x-request-id"] == got.json()["id"]
        assert (await client.get("/own")).headers["x-request-id"] == "own"


async def test_mounted_applications_have_the_header_too() -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"plain"})

    app = plugin_sandbox("request_id", settings=ON)
    app.mount("/sub", plain)
    async with TestClient(app) as client:
        assert (await client.get("/sub/", headers={"x-request-id": "m"})).headers["x-request-id"] == "m"


async def test_by_default_errors_carry_the_id_and_nothing_stands_around_a_request() -> None:
    app = with_routes(plugin_sandbox("request_id"))
    assert app.built.pipeline.empty
    async with TestClient(app, raise_errors=False) as client:
        assert "x-request-id" not in (await client.get("/")).headers
        for path in ("/refused", "/broken", "/missing"):
            for accept in ("application/json", "text/html"):
                got = await client.get(path, headers={"x-request-id": "mine-2", "accept": accept})
                assert got.headers["x-request-id"] == "mine-2"
        assert (await client.get("/broken", headers={"x-request-id": "mine-3"})).json()["request_id"] == "mine-3"
