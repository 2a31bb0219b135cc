"""Middleware: bands, order, both kinds, and what Starlette's BaseHTTPMiddleware got wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.responses import StreamingResponse as StarletteStreaming
from starlette.routing import Route as StarletteRoute

from covet import ASGIMiddleware, ConfigurationError, Covet, HTTPError, Middleware, Request, Response, StreamingResponse
from covet.middleware import BANDS, in_order
from covet.testing import TestClient

pytestmark = pytest.mark.anyio

variable: ContextVar[str] = ContextVar("variable", default="unset")


def make_app() -> Covet:
    return Covet({}, installed_plugins=False)


def tracer(name: str, log: list[str], **options: Any) -> Middleware:
    async def trace(request: Request, call_next: Any) -> Response:
        log.append(f"> {name}")
        response: Response = await call_next(request)
        log.append(f"< {name}")
        return response

    return Middleware(trace, name=name, **options)


class Trace:
    """A pure ASGI middleware."""

    def __init__(self, app: Any, *, label: str, log: list[str]) -> None:
        self.app, self.name, self.log = app, label, log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.log.append(f"> {self.name}")
        await self.app(scope, receive, send)
        self.log.append(f"< {self.name}")


async def test_bands_decide_the_order_and_names_within_a_band() -> None:
    app = make_app()
    log: list[str] = []
    for band in reversed(BANDS):
        app.add_middleware(tracer(band, log, band=band))
    app.add_middleware(tracer("aaa", log))
    app.add_middleware(tracer("zzz", log, before="aaa"))

    @app.get("/")
    async def show() -> str:
        log.append("handler")
        return "x"

    async with TestClient(app) as client:
        await client.get("/")
    going_in = [entry[2:] for entry in log[: log.index("handler")]]
    assert going_in == [*BANDS[:-1], "application", "zzz", "aaa"]
    assert [entry[2:] for entry in log[log.index("handler") + 1 :]] == going_in[::-1]


def test_contradictions_unknown_bands_and_equal_names_are_errors() -> None:
    log: list[str] = []
    with pytest.raises(ConfigurationError, match="contradict"):
        in_order([tracer("a", log, before="b"), tracer("b", log, before="a")])
    with pytest.raises(ConfigurationError, match="no band is called 'outer'; the bands are edge"):
        tracer("a", log, band="outer")
    with pytest.raises(ConfigurationError, match="two middleware of band 'application' are called 'a'"):
        in_order([tracer("a", log), tracer("a", log)])

    def not_async(request: Request, call_next: Any) -> Any: ...

    with pytest.raises(ConfigurationError, match="must be `async def"):
        Middleware(not_async)


async def test_a_middleware_may_answer_itself_or_change_the_response() -> None:
    app = make_app()

    @app.middleware()
    async def gate(request: Request, call_next: Any) -> Response:
        if "stop" in request.query:
            return Response("stopped", 403)
        response: Response = await call_next(request)
        response.headers["x-seen"] = "yes"
        return response

    @app.get("/")
    async def show() -> str:
        return "shown"

    async with TestClient(app) as client:
        assert (await client.get("/?stop=1")).text == "stopped"
        got = await client.get("/")
        assert (got.text, got.headers["x-seen"]) == ("shown", "yes")
        assert (await client.get("/nowhere")).headers["x-seen"] == "yes", "it sees what no route answers"


async def test_http_errors_are_responses_inside_and_other_errors_are_exceptions() -> None:
    app = make_app()
    seen: list[Any] = []

    @app.middleware()
    async def watch(request: Request, call_next: Any) -> Response:
        try:
            response: Response = await call_next(request)
        except ValueError as error:
            seen.append(error.args[0])
            raise
        seen.append(response.status)
        return response

    @app.middleware(band="edge", name="outer")
    async def outer(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        seen.append(f"edge {response.status}")
        return response

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPError(418)

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("broken")

    async with TestClient(app, raise_errors=False) as client:
        await client.get("/teapot")
        await client.get("/broken")
    assert seen == [418, "edge 418", "broken", "edge 500"]


async def test_a_middleware_that_returns_nothing_is_named(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    @app.middleware()
    async def forgetful(request: Request, call_next: Any) -> Any:
        await call_next(request)

    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/")).status_code == 500
    assert "forgetful" in caplog.text
    assert "a middleware returns a Response" in caplog.text


@pytest.mark.parametrize("inner", ["route", "asgi", "mount"])
async def test_context_variables_set_below_are_seen_above(inner: str) -> None:
    """Starlette 1525: they are invisible there."""
    app = make_app()
    seen: list[str] = []

    @app.middleware(band="edge")
    async def watch(request: Request, call_next: Any) -> Response:
        variable.set("above")
        response: Response = await call_next(request)
        seen.append(variable.get())
        return response

    class Sets:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(variable.get())
            variable.set("below")
            await self.app(scope, receive, send)

    async def endpoint(request: Any) -> PlainTextResponse:
        seen.append(variable.get())
        variable.set("below")
        return PlainTextResponse("x")

    if inner == "asgi":
        app.add_middleware(ASGIMiddleware(Sets))
    if inner == "mount":
        app.mount("/m", Starlette(routes=[StarletteRoute("/", endpoint)]))

    @app.get("/")
    async def show() -> str:
        if inner == "route":
            seen.append(variable.get())
            variable.set("below")
        return "x"

    async with TestClient(app) as client:
        assert (await client.get("/m/" if inner == "mount" else "/")).status_code == 200
    assert seen == ["above", "below"]


async def test_asgi_middleware_stands_anywhere_among_the_others() -> None:
    app = make_app()
    log: list[str] = []
    app.add_middleware(ASGIMiddleware(Trace, band="edge", name="a", label="a", log=log))
    app.add_middleware(tracer("b", log, band="session"))
    app.add_middleware(ASGIMiddleware(Trace, band="policy", name="c", label="c", log=log))
    app.add_middleware(tracer("d", log, band="cache"))

    @app.get("/")
    async def show() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            for piece in (b"one ", b"two ", b"three"):
                yield piece

        return StreamingResponse(body())

    async with TestClient(app) as client:
        assert (await client.get("/")).text == "one two three"
    assert log[:4] == ["> a", "> b", "> c", "> d"]
    assert log[-1] == "< a"


async def test_a_timeout_around_call_next_works_above_a_streaming_asgi_application() -> None:
    """The application's own task group and the middleware's cancel scope must not cross."""
    app = make_app()

    @app.middleware()
    async def hurry(request: Request, call_next: Any) -> Response:
        with anyio.fail_after(5):
            response: Response = await call_next(request)
        return response

    async def stream(request: Any) -> StarletteStreaming:
        async def body() -> AsyncIterator[bytes]:
            for i in range(3):
                await anyio.lowlevel.checkpoint()
                yield f"{i} ".encode()

        return StarletteStreaming(body())

    app.mount("/m", Starlette(routes=[StarletteRoute("/stream", stream)]))
    async with TestClient(app) as client:
        assert (await client.get("/m/stream")).text == "0 1 2 "


async def test_background_tasks_of_a_mounted_application_run_to_their_end() -> None:
    """Starlette 1438, FastAPI 5606: one added middleware cancels them when the client leaves."""
    app = make_app()
    done: list[str] = []

    @app.middleware()
    async def passing(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    async def later() -> None:
        await anyio.sleep(0.02)
        done.append("mounted")

    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x", background=BackgroundTask(later))

    app.mount("/m", Starlette(routes=[StarletteRoute("/", endpoint)]))

    async def own() -> None:
        await anyio.sleep(0.02)
        done.append("own")

    @app.get("/own")
    async def show(request: Request) -> str:
        request.after(own)
        return "x"

    async with TestClient(app) as client:
        await client.get("/m/")
        await client.get("/own")
    assert done == ["mounted", "own"]


async def test_a_dropped_response_of_a_mounted_application_ends_that_application() -> None:
    app = make_app()
    ended: list[str] = []

    @app.middleware()
    async def replace(request: Request, call_next: Any) -> Response:
        await call_next(request)
        return Response("replaced")

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except OSError:
            ended.append("told")

    app.mount("/m", endless)
    async with TestClient(app) as client:
        with anyio.fail_after(5):
            assert (await client.get("/m/")).text == "replaced"
    assert ended == ["told"]


async def test_an_error_of_a_mounted_application_reaches_the_middleware_and_becomes_a_500() -> None:
    app = make_app()
    seen: list[str] = []

    @app.middleware()
    async def watch(request: Request, call_next: Any) -> Response:
        try:
            response: Response = await call_next(request)
        except RuntimeError as error:
            seen.append(str(error))
            raise
        return response

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken below")

    app.mount("/m", broken)
    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/m/")).status_code == 500
    assert seen == ["broken below"]


async def test_cancellation_goes_through_and_leaves_nothing_behind() -> None:
    app = make_app()
    log: list[str] = []

    @app.middleware()
    async def watch(request: Request, call_next: Any) -> Response:
        try:
            response: Response = await call_next(request)
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        return response

    async def sleeping(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            await anyio.sleep(60)
        finally:
            log.append("ended")

    app.mount("/m", sleeping)
    async with TestClient(app) as client:
        with anyio.move_on_after(0.05):
            await client.get("/m/")
    assert sorted(log) in (["CancelledError", "ended"], ["Cancelled", "ended"])


async def test_middleware_of_a_route_and_a_router_stands_inside_the_applications() -> None:
    from covet import Router

    app = make_app()
    log: list[str] = []
    router = Router("/r", middleware=[tracer("router", log)])

    @router.get("/", middleware=[tracer("route", log)])
    async def show() -> str:
        return "x"

    app.include(router)
    app.add_middleware(tracer("app", log))

    @app.get("/other")
    async def other() -> str:
        return "x"

    async with TestClient(app) as client:
        await client.get("/r")
        assert log == ["> app", "> router", "> route", "< route", "< router", "< app"]
        log.clear()
        await client.get("/other")
        assert log == ["> app", "< app"]
