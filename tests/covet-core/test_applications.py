"""The application: what routes answer, what becomes of return values and errors, how it starts and stops."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from covet import (
    ConfigurationError,
    Covet,
    CovetError,
    HTTPError,
    NoApplicationError,
    Request,
    Response,
    RouteError,
    Router,
    current_app,
    current_request,
)
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


def make_app(**settings: Any) -> Covet:
    return Covet(settings, installed_plugins=False)


# Methods and paths


async def test_head_comes_with_get_and_options_with_any() -> None:
    app = make_app()

    @app.get("/x")
    async def show() -> str:
        return "hello"

    @app.post("/x")
    async def change() -> str:
        return "changed"

    async with TestClient(app) as client:
        got = await client.head("/x")
        assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "5")
        got = await client.options("/x")
        assert (got.status_code, got.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
        got = await client.delete("/x")
        assert (got.status_code, got.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
        assert got.headers["content-type"] == "application/problem+json"
        got = await client.request("BREW", "/x")
        assert got.status_code == 405
        assert (await client.get("/y")).status_code == 404
        assert (await client.request("BREW", "/y")).status_code == 404


async def test_an_own_head_route_goes_before_the_automatic_one() -> None:
    app = make_app()

    @app.get("/x")
    async def show() -> str:
        return "hello"

    @app.route("/x", ["HEAD"])
    async def head() -> Response:
        return Response(headers={"x-own": "yes"})

    async with TestClient(app) as client:
        assert (await client.head("/x")).headers["x-own"] == "yes"


async def test_one_rule_for_trailing_slashes() -> None:
    """A path answers as declared; the other form is redirected to it, with method and query, and never elsewhere."""
    app = make_app()

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.post("/slashed/")
    async def slashed() -> str:
        return "slashed"

    @app.get("/{name}/")
    async def named(name: str) -> str:
        return name

    async with TestClient(app) as client:
        got = await client.get("/plain/?a=1&b=%20", follow_redirects=False)
        assert got.status_code in (200, 308)
        got = await client.post("/slashed?a=1", follow_redirects=False)
        assert (got.status_code, got.headers["location"]) == (308, "/slashed/?a=1")
        got = await client.get("/é", follow_redirects=False)
        assert (got.status_code, got.headers["location"]) == (308, "/%C3%A9/")
        for evil in ("//evil.example", "//evil.example/"):
            got = await client.get("http://localhost" + evil, follow_redirects=False)
            assert got.status_code == 404, "a browser would take //host for another server"


async def test_two_routes_for_the_same_paths_are_an_error_that_names_both() -> None:
    app = make_app()

    @app.get("/users/{id:int}")
    async def first(id: int) -> None: ...

    @app.get("/users/{number:int}")
    async def second(number: int) -> None: ...

    with pytest.raises(RouteError, match=r"second.* can never be reached: .*first"):
        app.build()


async def test_custom_converters() -> None:
    from covet import Converter

    app = Covet({}, installed_plugins=False, converters={"hex": Converter("[0-9a-f]+", lambda t: int(t, 16), type=int)})

    @app.get("/c/{value:hex}", name="colour")
    async def colour(value: int) -> Any:
        return value

    async with TestClient(app) as client:
        assert (await client.get("/c/ff")).json() == 255
        assert (await client.get("/c/xyz")).status_code == 404


async def test_url_for_and_its_errors() -> None:
    app = make_app()
    blog = Router("/blog", name="blog")

    @blog.get("/{slug}", name="show")
    async def show(slug: str) -> None: ...

    app.include(blog)
    assert app.url_for("blog.show", slug="a b") == "/blog/a%20b"
    with pytest.raises(RouteError, match=r"did you mean 'blog\.show'"):
        app.url_for("blog.shwo", slug="x")
    with pytest.raises(RouteError, match="missing 'slug'"):
        app.url_for("blog.show")


async def test_nothing_can_be_declared_after_building() -> None:
    app = make_app()
    app.build()
    with pytest.raises(ConfigurationError, match="after the application was built"):
        app.get("/late")(lambda: None)
    with pytest.raises(ConfigurationError, match="after the application was built"):
        app.provide(int, lambda: 1)


async def test_too_many_headers_and_too_long_a_path_are_refused() -> None:
    app = make_app(limits={"max_headers": 20, "max_target_bytes": 100})

    @app.get("/{rest:path}")
    async def show(rest: str) -> str:
        return rest

    async with TestClient(app) as client:
        assert (await client.get("/x")).status_code == 200
        assert (await client.get("/x", headers=[(f"x-{i}", "y") for i in range(30)])).status_code == 431
        assert (await client.get("/" + "x" * 200)).status_code == 414


# Return values


class Item(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("value", "status", "content_type", "body"),
    [
        ("text", 200, "text/plain; charset=utf-8", b"text"),
        (b"bytes", 200, "application/octet-stream", b"bytes"),
        (None, 204, None, b""),
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        ([1, 2], 200, "application/json", b"[1,2]"),
        (Item("x"), 200, "application/json", b'{"name":"x"}'),
        (("made", 201), 201, "text/plain; charset=utf-8", b"made"),
        (({"a": 1}, 202), 202, "application/json", b'{"a":1}'),
        ((None, 205), 205, None, b""),
        (({"a": 1}, 200, {"content-type": "application/ld+json"}), 200, "application/ld+json", b'{"a":1}'),
        (Response(b"own", 203, content_type="x/y"), 203, "x/y", b"own"),
        (7, 200, "application/json", b"7"),
        (True, 200, "application/json", b"true"),
    ],
)
async def test_what_a_handler_returns_becomes_a_response(
    value: Any, status: int, content_type: str | None, body: bytes
) -> None:
    app = make_app()

    @app.get("/")
    async def show() -> Any:
        return value

    async with TestClient(app) as client:
        for _ in range(2):
            got = await client.get("/")
            assert (got.status_code, got.headers.get("content-type"), got.content) == (status, content_type, body)


async def test_the_status_of_a_route_applies_to_plain_values() -> None:
    app = make_app()

    @app.post("/", status=201)
    async def create() -> Any:
        return {"id": 1}

    async with TestClient(app) as client:
        assert (await client.post("/")).status_code == 201


async def test_a_value_that_cannot_be_encoded_is_a_500_that_names_its_type(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    @app.get("/")
    async def show() -> Any:
        return object()

    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/")).status_code == 500
    assert "a builtins.object cannot be encoded as JSON" in caplog.text


async def test_lengths_on_both_sides_of_the_precomputed_ones() -> None:
    app = make_app()

    @app.get("/{n:int}")
    async def show(n: int) -> str:
        return "x" * n

    async with TestClient(app) as client:
        for n in (0, 4095, 4096, 100_000):
            got = await client.get(f"/{n}")
            assert (len(got.content), got.headers["content-length"]) == (n, str(n))


# Errors


async def test_errors_are_problem_documents_or_pages_and_leak_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPError(418, "short and stout", headers={"x-tea": "yes"}, pot="blue")

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the password is hunter2")

    async with TestClient(app, raise_errors=False) as client:
        got = await client.get("/teapot")
        assert (got.status_code, got.headers["x-tea"]) == (418, "yes")
        assert got.json() == {
            "type": "about:blank", "title": "I'm a Teapot", "status": 418, "detail": "short and stout", "pot": "blue",
        }  # fmt: skip
        got = await client.get("/teapot", headers={"accept": "text/html"})
        assert got.headers["content-type"].startswith("text/html")
        assert "short and stout" in got.text
        for accept in ("*/*", "text/html"):
            got = await client.get("/broken", headers={"accept": accept})
            assert got.status_code == 500
            assert "hunter2" not in got.text
    assert "hunter2" in caplog.text, "but the log has it"


async def test_debug_shows_the_traceback() -> None:
    app = make_app(app={"debug": True})

    @app.get("/")
    async def broken() -> None:
        raise RuntimeError("<b>boom</b>")

    async with TestClient(app, raise_errors=False) as client:
        token = "se" + "cret"
        page = await client.get("/", headers={"accept": "text/html", "authorization": token})
        assert "RuntimeError: &lt;b&gt;boom&lt;/b&gt;" in page.text
        assert token not in page.text
        assert "boom" in (await client.get("/")).json()["detail"]


async def test_exception_handlers_by_class_and_by_status() -> None:
    app = make_app()

    @app.exception_handler(LookupError)
    async def lookup(request: Request, error: LookupError) -> Any:
        return {"missing": str(error)}, 404

    @app.exception_handler(404)
    def not_found(request: Request, error: HTTPError) -> Any:
        return f"nothing at {request.path}", 404

    @app.get("/key")
    async def key() -> None:
        raise KeyError("k")

    async with TestClient(app) as client:
        got = await client.get("/key")
        assert (got.status_code, got.json()) == (404, {"missing": "'k'"})
        assert (await client.get("/nowhere")).text == "nothing at /nowhere"


async def test_a_failing_exception_handler_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    @app.exception_handler(KeyError)
    async def worse(request: Request, error: KeyError) -> Any:
        raise ValueError("worse")

    @app.get("/")
    async def show() -> None:
        raise KeyError("first")

    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/")).status_code == 500
    assert "worse" in caplog.text
    assert "first" in caplog.text


# Work after the response, tasks, lifespan


async def test_work_after_the_response_runs_in_order_and_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    log: list[str] = []

    async def slow(text: str) -> None:
        await anyio.sleep(0.02)
        seen = current_request()
        assert seen is not None
        log.append(f"{text} of {seen.path}")

    def blocking() -> None:
        log.append("blocking")

    async def failing() -> None:
        raise RuntimeError("after all")

    @app.get("/")
    async def show(request: Request) -> str:
        request.after(slow, "first")
        request.after(failing)
        request.after(blocking)
        return "sent"

    @app.get("/refused")
    async def refused(request: Request) -> str:
        request.after(log.append, "never")
        raise HTTPError(400)

    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/")).text == "sent"
        await client.get("/refused")
    assert log == ["first of /", "blocking"]
    assert "after all" in caplog.text


async def test_tasks_that_do_not_end_are_cancelled_at_shutdown_and_named(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(server={"shutdown_timeout": 0.05})
    ended: list[str] = []

    async def endless() -> None:
        try:
            await anyio.sleep(60)
        finally:
            ended.append("endless")

    with anyio.fail_after(10):
        async with app.running():
            app.tasks.start_soon(endless)
            await anyio.lowlevel.checkpoint()
    assert ended == ["endless"]
    assert "endless" in caplog.text


async def test_a_failing_task_is_logged_and_takes_nothing_down(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    async def failing() -> None:
        raise RuntimeError("alone")

    async with app.running():
        app.tasks.start_soon(failing)
        await anyio.sleep(0.01)
        app.tasks.start_soon(anyio.sleep, 0)
    assert "alone" in caplog.text
    with pytest.raises(CovetError, match="only while the application runs"):
        app.tasks.start_soon(failing)


async def test_lifespans_are_entered_in_order_and_left_in_reverse_also_when_one_fails() -> None:
    log: list[str] = []

    def part(name: str, *, fails: bool = False) -> Any:
        @asynccontextmanager
        async def lifespan(app: Covet) -> AsyncIterator[None]:
            log.append(f"{name} in")
            if fails:
                raise RuntimeError(f"{name} fails")
            yield
            log.append(f"{name} out")

        return lifespan

    class Watch:
        pass

    app = Covet({}, installed_plugins=False, lifespan=part("first"))
    app.add_lifespan(part("second"))
    async with app.running():
        assert log == ["first in", "second in"]
    assert log == ["first in", "second in", "second out", "first out"]

    log.clear()

    @asynccontextmanager
    async def watched(app: Covet) -> AsyncIterator[None]:
        log.append("in")
        try:
            yield
        finally:
            log.append("out")

    app = Covet({}, installed_plugins=False, lifespan=watched)
    app.add_lifespan(part("broken", fails=True))
    with pytest.raises(RuntimeError, match="broken fails"):
        async with app.running():
            pytest.fail("it must not start")
    assert log == ["in", "broken in", "out"]


async def test_the_lifespan_of_mounted_applications_runs_with_state() -> None:
    """Starlette 649: it never did, silently."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route as StarletteRoute

    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        log.append("in")
        yield {"pool": "shared"}
        log.append("out")

    async def show(request: Any) -> JSONResponse:
        return JSONResponse([request.state.pool, request.scope["root_path"], request.url.path])

    app = make_app()
    app.mount("/sub", Starlette(routes=[StarletteRoute("/x", show)], lifespan=lifespan))
    async with TestClient(app) as client:
        assert log == ["in"]
        assert (await client.get("/sub/x")).json() == ["shared", "/sub", "/sub/x"]
        assert (await client.get("/subway")).status_code == 404
    assert log == ["in", "out"]


async def test_a_mounted_application_that_fails_to_start_stops_the_start() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    app = make_app()
    app.mount("/sub", failing)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - may come in a group
        async with app.running():
            pytest.fail("it must not start")
    assert "no database" in repr(caught.value)


async def test_an_application_of_covet_can_be_mounted_in_another() -> None:
    inner = make_app()

    @inner.get("/who/{n:int}")
    async def who(n: int) -> Any:
        return [current_app() is inner, n]

    outer = make_app()
    outer.mount("/in", inner)

    @outer.get("/who")
    async def outer_who() -> Any:
        return current_app() is outer

    async with TestClient(outer) as client:
        assert (await client.get("/in/who/3")).json() == [True, 3]
        assert (await client.get("/who")).json() is True
        assert (await client.get("/in/nothing")).status_code == 404


async def test_the_ambient_application_is_there_while_running_and_not_outside() -> None:
    app = make_app()
    with pytest.raises(NoApplicationError, match=r"async with app\.running"):
        current_app()
    async with app.running():
        assert current_app() is app
        assert current_request() is None
    with pytest.raises(NoApplicationError):
        current_app()


async def test_the_lifespan_protocol_tells_a_failed_start_by_message() -> None:
    app = make_app(nonsense={"x": 1})
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "nonsense" in sent[0]["message"]


async def test_the_first_request_builds_an_application_that_has_no_lifespan() -> None:
    app = make_app()

    @app.get("/")
    async def show() -> str:
        return "built"

    async with TestClient(app, lifespan=False) as client:
        assert (await client.get("/")).text == "built"


async def test_a_request_leaves_no_garbage_cycle() -> None:
    app = make_app()

    @app.get("/{n:int}")
    async def show(n: int, request: Request) -> Any:
        return request.query.get("q")

    async with TestClient(app) as client:
        await client.get("/1?q=x")
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(thing, Request) for thing in gc.get_objects())
            for _ in range(5):
                await client.get("/1?q=x")
            assert sum(isinstance(thing, Request) for thing in gc.get_objects()) == before
        finally:
            gc.enable()


async def test_a_failure_while_sending_is_no_error_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    @app.get("/")
    async def show() -> str:
        return "x"

    scope = {
        "type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "asgi": {"version": "3.0"},
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise OSError("gone")

    with caplog.at_level(logging.ERROR):
        await app(scope, receive, send)
    assert caplog.text == ""


async def test_a_mounted_application_sees_its_own_part_of_the_path() -> None:
    inner = Covet({}, installed_plugins=False)

    @inner.get("/x")
    async def own() -> str:
        return "own"

    @inner.get("/api/x")
    async def deeper() -> str:
        return "deeper"

    @inner.get("/{name}")
    async def named(name: str) -> str:
        return name

    outer = Covet({}, installed_plugins=False)
    outer.mount("/api", inner)
    async with TestClient(outer) as client:
        got = {path: (await client.get(path)).text for path in ("/api/x", "/api/api/x", "/api/y")}
    assert got == {"/api/x": "own", "/api/api/x": "deeper", "/api/y": "y"}
