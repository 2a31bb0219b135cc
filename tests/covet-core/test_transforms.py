"""Transforms of response bodies: who sees what, and what the others pay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import covet
from covet import Covet, FileResponse, HTTPError, PluginError, Request, Response, StreamingResponse
from covet.routing import Route
from covet.testing import TestClient, plugin_sandbox
from covet.transforms import ResponseTransform

pytestmark = pytest.mark.anyio

LARGE = {"x-shout": "yes"}


class Shouting:
    """A plugin that puts texts of 100 bytes and more into capitals, for those who want it."""

    def __init__(self, *transforms: Any) -> None:
        self.seen: list[str] = []
        self.transforms = transforms or (ResponseTransform(self.shout, min_bytes=100, request_header="X-Shout"),)

    async def shout(self, request: Request, response: Response) -> Response:
        self.seen.append(request.path)
        response.headers.add_vary("x-shout")
        if "x-shout" in request.headers and type(response) is Response:
            response.body = bytes(response.body).upper()
        return response

    @covet.hookimpl
    def covet_response_transforms(self, app: Covet) -> Any:
        return self.transforms


def with_routes(app: Covet, tmp_path: Path) -> Covet:
    (tmp_path / "small.txt").write_text("s" * 50)

    @app.get("/text/{size:int}")
    async def text(size: int) -> str:
        return "x" * size

    @app.get("/json/{size:int}")
    async def json(size: int) -> list[int]:
        return [1] * size

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "a"

        return StreamingResponse(pieces())

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(tmp_path / "small.txt")

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPError(409, "r" * 200)

    return app


@pytest.mark.parametrize("around", [False, True], ids=["direct", "pipeline"])
async def test_large_responses_and_those_of_unknown_size_are_seen(around: bool, tmp_path: Path) -> None:
    plugin = Shouting()
    app = with_routes(plugin_sandbox(plugin), tmp_path)
    if around:

        @app.middleware()
        async def layer(request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

    async with TestClient(app) as client:
        for path, body in (("/text/100", b"X" * 100), ("/json/100", b"[" + b",".join([b"1"] * 100) + b"]")):
            got = await client.get(path, headers=LARGE)
            assert got.content == body
            assert got.headers.get_list("vary") == ["x-shout"]
            head = await client.head(path, headers=LARGE)
            assert (head.content, head.headers["content-length"]) == (b"", str(len(body)))
        assert (await client.get("/refused", headers=LARGE)).text.count("R") >= 200
        await client.get("/stream", headers=LARGE)
        assert plugin.seen == ["/text/100", "/text/100", "/json/100", "/json/100", "/refused", "/stream"]
        plugin.seen.clear()
        for path in ("/text/99", "/json/2", "/file", "/missing"):
            await client.get(path, headers={**LARGE, "accept": "application/json"})
        assert [path for path in plugin.seen if path != "/missing"] == []


async def test_whoever_did_not_ask_gets_the_body_as_it_is_and_is_told_that_it_could_differ(tmp_path: Path) -> None:
    plugin = Shouting()
    async with TestClient(with_routes(plugin_sandbox(plugin), tmp_path)) as client:
        got = await client.get("/text/600")
        assert (got.content, got.headers.get_list("vary")) == (b"x" * 600, ["X-Shout"])
        assert got.headers["content-length"] == "600"
        assert "vary" not in (await client.get("/text/99")).headers
    assert plugin.seen == []


async def test_one_that_depends_on_nothing_sees_every_large_response(tmp_path: Path) -> None:
    async def reverse(request: Request, response: Response) -> Response:
        return Response(bytes(response.body)[::-1] + b"!", response.status)

    app = with_routes(plugin_sandbox(Shouting(ResponseTransform(reverse, min_bytes=3))), tmp_path)
    async with TestClient(app) as client:
        assert (await client.get("/text/3")).content == b"xxx!"
        assert (await client.get("/text/2")).content == b"xx"


async def test_several_are_applied_in_turn(tmp_path: Path) -> None:
    def adding(mark: bytes) -> ResponseTransform:
        async def add(request: Request, response: Response) -> Response:
            return Response(bytes(response.body) + mark, response.status)

        return ResponseTransform(add)

    app = with_routes(plugin_sandbox(a=Shouting(adding(b"a")), b=Shouting(adding(b"b"))), tmp_path)
    async with TestClient(app) as client:
        assert (await client.get("/text/1")).content == b"xab"


@pytest.mark.parametrize("around", [False, True], ids=["direct", "pipeline"])
async def test_which_routes_it_is_for_is_asked_once_when_the_application_is_built(around: bool, tmp_path: Path) -> None:
    asked: list[str] = []

    def chosen(route: Route) -> bool:
        asked.append(route.path)
        return route.path in ("/json/{size:int}", "/refused")

    async def mark(request: Request, response: Response) -> Response:
        response.headers["x-seen"] = "yes"
        return response

    transform = ResponseTransform(mark, request_header="X-Shout", routes=chosen)
    app = with_routes(plugin_sandbox(Shouting(transform)), tmp_path)
    if around:

        @app.middleware()
        async def layer(request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

    async with TestClient(app) as client:
        built = sorted(asked)
        assert built == sorted({route.path for route in app.routes})
        paths = ("/text/900", "/json/900", "/stream", "/file", "/refused", "/missing")
        seen = {path: "x-seen" in (await client.get(path, headers=LARGE)).headers for path in paths}
        # Nobody said what it is for where there is no route.
        assert [path for path, marked in seen.items() if marked] == ["/json/900", "/refused", "/missing"]
        assert "x-seen" in (await client.head("/json/900", headers=LARGE)).headers
        assert "x-seen" not in (await client.head("/text/900", headers=LARGE)).headers
        assert "vary" not in (await client.get("/text/900")).headers, "it depends on nothing"
        assert sorted(asked) == built


async def test_one_that_fails_makes_the_request_a_500(tmp_path: Path) -> None:
    async def fail(request: Request, response: Response) -> Response:
        raise RuntimeError("no codec")

    app = with_routes(plugin_sandbox(Shouting(ResponseTransform(fail, min_bytes=100))), tmp_path)
    async with TestClient(app, raise_errors=False) as client:
        got = await client.get("/text/100", headers={"accept": "application/json"})
        assert (got.status_code, got.json()["status"]) == (500, 500)


async def test_a_file_that_the_server_sends_itself_says_that_nobody_can_look_at_it(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1_000_000))
    scope = {"method": "GET", "headers": [], "extensions": {"http.response.pathsend": {}}}
    assert (await FileResponse(tmp_path / "large", pathsend=True).resolve(scope)).opaque
    unresolved = FileResponse(tmp_path / "large")
    resolved = await unresolved.resolve(scope)
    assert not resolved.opaque
    resolved.file.close()  # type: ignore[attr-defined]


def test_what_is_no_transform_stops_the_start() -> None:
    with pytest.raises(
        PluginError, match=r"plugin 'wrong': covet_response_transforms returned 5, which is no transform"
    ):
        plugin_sandbox(wrong=Shouting(5)).build()
    with pytest.raises(ValueError, match="min_bytes is at least 0"):
        ResponseTransform(Shouting().shout, min_bytes=-1)
