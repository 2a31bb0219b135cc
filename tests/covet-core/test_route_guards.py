"""Guards and marks: what plugins decide for each route when an application is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

import covet
from covet import Covet, HTTPError, PluginError, Request, Response, Route, Router
from covet.routing import route_options
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio


class Internal:
    """Marks routes that want a header."""

    def __init__(self, word: str = "please") -> None:
        self.word = word


def internal(handler: Any) -> Any:
    return route_options(handler, marks=[Internal()])


class Guards:
    """A plugin with a guard on marked routes; plain or asynchronous."""

    def __init__(self, guard: Callable[..., Any]) -> None:
        self.guard = guard

    @covet.hookimpl
    def covet_route_guards(self, app: Covet, route: Route) -> list[Any]:
        return [self.guard] if Internal in route.marks else []


def plain(request: Request) -> Response | None:
    assert request.route is not None
    word = request.route.marks[Internal].word
    sent = request.headers.get("x-word")
    if sent is None:
        raise HTTPError(401)
    return None if sent == word else Response(b"wrong word", 403)


async def asynchronous(request: Request) -> Response | None:
    await anyio.lowlevel.checkpoint()
    return plain(request)


class Asking:
    async def __call__(self, request: Request) -> Response | None:
        return plain(request)


@pytest.mark.parametrize("around", [False, True], ids=["direct", "pipeline"])
@pytest.mark.parametrize("guard", [plain, asynchronous, Asking()], ids=["plain", "async", "object"])
async def test_a_guard_lets_pass_answers_or_refuses_before_anything_is_read(guard: Any, around: bool) -> None:
    app = plugin_sandbox(Guards(guard))
    called: list[str] = []

    async def dependency() -> str:
        called.append("dependency")
        return "made"

    if around:

        @app.middleware()
        async def layer(request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

    @app.post("/items/{id:int}")
    @internal
    async def create(
        id: int, number: int, body: dict[str, int], made: str = covet.Depends(dependency)
    ) -> dict[str, Any]:
        called.append("handler")
        return {"id": id, "number": number, "body": body}

    @app.get("/open")
    async def open_to_all() -> str:
        return "open"

    async with TestClient(app) as client:
        # A bad query and a bad body: the guard speaks first.
        assert (await client.post("/items/1?number=x", content=b"{")).status_code == 401
        refused = await client.post("/items/1", headers={"x-word": "now"})
        assert (refused.status_code, refused.content) == (403, b"wrong word")
        assert called == []
        passed = await client.post("/items/1?number=2", json={"a": 3}, headers={"x-word": "please"})
        assert passed.json() == {"id": 1, "number": 2, "body": {"a": 3}}
        assert called == ["dependency", "handler"]
        assert (await client.get("/open")).text == "open"


async def test_guards_are_asked_in_plugin_order_until_one_answers() -> None:
    asked: list[str] = []

    def make(name: str, answer: Response | None) -> Callable[[Request], Response | None]:
        def guard(request: Request) -> Response | None:
            asked.append(name)
            return answer

        return guard

    app = plugin_sandbox(
        a=Guards(make("a", None)), b=Guards(make("b", Response(b"b answers"))), c=Guards(make("c", None))
    )

    @app.get("/")
    @internal
    async def index() -> str:
        return "handler"

    async with TestClient(app) as client:
        assert (await client.get("/")).text == "b answers"
        assert (await client.head("/")).status_code == 200
    assert asked == ["a", "b", "a", "b"]


def test_a_route_without_guards_has_no_trace_of_them() -> None:
    app = plugin_sandbox(Guards(plain))

    @app.get("/guarded")
    @internal
    async def guarded() -> str:
        return ""

    @app.get("/free")
    async def free() -> str:
        return ""

    app.build()
    sources = {path: app.built.tables["GET"].find(path)[0].source for path in ("/guarded", "/free")}  # type: ignore[index]
    assert "guard0(request)" in sources["/guarded"]
    assert "guard" not in sources["/free"]
    assert app.built.pipeline.empty


def test_what_is_no_guard_stops_the_start() -> None:
    class Wrong:
        @covet.hookimpl
        def covet_route_guards(self, app: Covet, route: Route) -> list[Any]:
            return ["no"]

    app = plugin_sandbox(wrong=Wrong())

    @app.get("/")
    async def index() -> str:
        return ""

    with pytest.raises(PluginError, match="plugin 'wrong': covet_route_guards returned 'no'"):
        app.build()


def test_marks_of_decorators_and_of_the_route() -> None:
    class Other:
        pass

    other = Other()

    @internal
    async def handler() -> str:
        return ""

    route = Route("/", handler, marks=[other, Internal("route")])
    assert route.marks[Other] is other
    assert route.marks[Internal].word == "route"
    assert Route("/x", handler).marks[Internal].word == "please"
    assert Other not in Route("/x", handler).marks
    # Below a prefix, too.
    router = Router("/below")
    router.add(route)
    (moved,) = router.resolve()
    assert isinstance(moved, Route)
    assert moved.marks[Internal].word == "route"


async def test_options_of_a_handler_add_up_and_may_name_another_function() -> None:
    async def inner(name: str) -> str:
        return f"inner {name}"

    async def wrapper(*args: Any) -> str:
        raise AssertionError("the route calls the other")

    async def layer(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-layer"] = "1"
        return response

    decorated = route_options(wrapper, middleware=[covet.Middleware(layer)], marks=[Internal("first")], call=inner)
    decorated = route_options(decorated, marks=[Internal("second")])
    route = Route("/{name}", decorated)
    assert route.handler is inner
    assert route.marks[Internal].word == "second"
    app = plugin_sandbox()
    app.add(route)
    async with TestClient(app) as client:
        got = await client.get("/ann")
        assert (got.text, got.headers["x-layer"]) == ("inner ann", "1")
