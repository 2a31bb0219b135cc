"""`Request.on_response`: work on the response that only those requests pay for which ask for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import covet
from covet import Covet, CovetError, FileResponse, HTTPError, Middleware, Request, Response, StreamingResponse
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio


def marked(request: Request, response: Response) -> None:
    response.headers.add("x-mark", request.path)


async def marked_later(request: Request, response: Response) -> None:
    await anyio.lowlevel.checkpoint()
    response.headers.add("x-mark", "later")


async def replaced(request: Request, response: Response) -> Response:
    return Response(b"replaced", 202, {"x-before": str(response.status)})


@pytest.fixture(params=["direct", "pipeline"])
def app(request: pytest.FixtureRequest) -> Covet:
    """An application whose requests are served by generated endpoints alone, or through a middleware."""
    app = plugin_sandbox()
    if request.param == "pipeline":

        @app.middleware()
        async def around(request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers["x-marks-seen-around"] = str(len(response.headers.getlist("x-mark")))
            return response

    return app


@pytest.mark.parametrize("path", ["/text", "/json", "/nothing", "/response", "/stream", "/file"])
async def test_it_sees_every_kind_of_response(app: Covet, path: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("a file")

    @app.get("/text")
    async def text(request: Request) -> str:
        request.on_response(marked)
        return "text"

    @app.get("/json")
    async def json(request: Request) -> list[int]:
        request.on_response(marked)
        return [1, 2]

    @app.get("/nothing")
    async def nothing(request: Request) -> None:
        request.on_response(marked)

    @app.get("/response")
    async def response(request: Request) -> Response:
        request.on_response(marked)
        return Response(b"own", headers={"x-own": "1"})

    @app.get("/stream")
    async def stream(request: Request) -> StreamingResponse:
        request.on_response(marked)

        async def pieces() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        return StreamingResponse(pieces())

    @app.get("/file")
    async def file(request: Request) -> FileResponse:
        request.on_response(marked)
        return FileResponse(tmp_path / "file.txt")

    bodies = {"/text": b"text", "/json": b"[1,2]", "/nothing": b"", "/response": b"own", "/stream": b"ab"}
    async with TestClient(app) as client:
        got = await client.get(path)
        assert got.content == bodies.get(path, b"a file")
        assert got.headers.get_list("x-mark") == [path]
        assert got.headers.get("x-marks-seen-around", "0") == "0"
        head = await client.head(path)
        assert (head.content, head.headers.get_list("x-mark")) == (b"", [path])


async def test_one_after_the_other_also_those_that_are_added_meanwhile(app: Covet) -> None:
    def adds_another(request: Request, response: Response) -> None:
        request.on_response(marked_later)
        response.headers.add("x-mark", "first")

    @app.get("/")
    async def index(request: Request) -> str:
        request.on_response(adds_another)
        request.on_response(marked)
        return "x"

    async with TestClient(app) as client:
        assert (await client.get("/")).headers.get_list("x-mark") == ["first", "/", "later"]


async def test_it_may_give_another_response(app: Covet) -> None:
    @app.get("/")
    async def index(request: Request) -> str:
        request.on_response(replaced)
        request.on_response(marked)
        return "x"

    async with TestClient(app) as client:
        got = await client.get("/")
        assert (got.status_code, got.content, got.headers["x-before"], got.headers["x-mark"]) == (
            202,
            b"replaced",
            "200",
            "/",
        )


async def test_it_sees_the_responses_to_errors(app: Covet) -> None:
    @app.get("/refused")
    async def refused(request: Request) -> None:
        request.on_response(marked)
        raise HTTPError(409)

    @app.get("/broken")
    async def broken(request: Request) -> None:
        request.on_response(marked)
        raise RuntimeError("broken")

    async with TestClient(app, raise_errors=False) as client:
        for path, status in (("/refused", 409), ("/broken", 500)):
            got = await client.get(path)
            assert (got.status_code, got.headers["x-mark"]) == (status, path)


async def test_its_own_error_is_answered_and_does_not_keep_the_others_from_being_called(app: Covet) -> None:
    def fails(request: Request, response: Response) -> None:
        raise HTTPError(503, "no store")

    @app.get("/")
    async def index(request: Request) -> str:
        request.on_response(fails)
        request.on_response(marked)
        return "x"

    async with TestClient(app) as client:
        got = await client.get("/")
        assert (got.status_code, got.headers["x-mark"]) == (503, "/")


async def test_too_late_is_an_error(app: Covet) -> None:
    told: list[str] = []

    def ask(request: Request) -> None:
        try:
            request.on_response(marked)
        except CovetError as error:
            told.append(str(error))

    @app.get("/after")
    async def after(request: Request) -> str:
        request.after(ask, request)
        return "x"

    @app.get("/stream")
    async def stream(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            ask(request)
            yield "a"

        return StreamingResponse(pieces())

    async with TestClient(app) as client:
        assert "x-mark" not in (await client.get("/after")).headers
        assert "x-mark" not in (await client.get("/stream")).headers
    assert len(told) == 2
    assert "on its way" in told[0]


async def test_it_is_called_behind_all_middleware_and_the_hook() -> None:
    class Ready:
        @covet.hookimpl
        def covet_response_ready(self, request: Request, response: Response) -> None:
            response.headers.add("x-mark", "hook")

    async def stamp(request: Request, call_next: Any) -> Response:
        request.on_response(marked)
        response: Response = await call_next(request)
        response.headers.add("x-mark", "middleware")
        return response

    app = plugin_sandbox(Ready())
    app.add_middleware(Middleware(stamp, band="edge"))

    @app.get("/")
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        for path in ("/", "/missing"):
            assert (await client.get(path)).headers.get_list("x-mark") == ["middleware", "hook", path]
