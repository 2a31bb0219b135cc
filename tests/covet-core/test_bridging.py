"""ASGI applications and middleware below middleware of Covet's own kind: as if nothing stood between."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import FileResponse as StarletteFile
from starlette.responses import PlainTextResponse
from starlette.routing import Route as StarletteRoute

from covet import (
    ASGIMiddleware,
    Covet,
    CovetError,
    HTTPError,
    Middleware,
    Request,
    Response,
    RouteError,
    Router,
    ServerSentEvent,
    StreamingResponse,
    WebSocket,
)
from covet.streaming import EventSourceResponse
from covet.testing import TestClient, WebSocketDenied

pytestmark = pytest.mark.anyio

variable: ContextVar[str] = ContextVar("variable", default="unset")


async def passing(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


@pytest.fixture(params=["outermost", "below another"])
def app(request: pytest.FixtureRequest) -> Covet:
    """Outermost, an ASGI middleware wraps the application itself; below another middleware it needs the bridge."""
    made = Covet({}, installed_plugins=False)
    if request.param == "below another":
        made.add_middleware(Middleware(passing, band="edge"))
    return made


def one_request() -> Any:
    """A receive callable: a request without a body, of a client that stays."""
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(messages, None) or await anyio.sleep_forever()

    return receive


def bridged_app(*layers: Any) -> Covet:
    made = Covet({}, installed_plugins=False)
    made.add_middleware(Middleware(passing, band="edge"))
    for number, layer in enumerate(layers):
        made.add_middleware(ASGIMiddleware(layer, name=f"layer{number}"))
    return made


# Middleware that people use


async def test_starlettes_gzip(app: Covet) -> None:
    app.add_middleware(ASGIMiddleware(GZipMiddleware, band="transport", minimum_size=100))

    @app.get("/large")
    async def large() -> str:
        return "x" * 10_000

    @app.get("/small")
    async def small() -> str:
        return "x"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b"one ", b"two ", b"three"):
                yield piece

        return StreamingResponse(pieces(), content_type="text/plain")

    @app.get("/missing")
    async def missing() -> None:
        raise HTTPError(404, "x" * 1000)

    async with TestClient(app, headers={"accept-encoding": "gzip"}) as client:
        got = await client.get("/large")
        assert (got.headers["content-encoding"], got.text) == ("gzip", "x" * 10_000)
        assert int(got.headers["content-length"]) < 200
        assert "accept-encoding" in got.headers["vary"].lower()
        assert "content-encoding" not in (await client.get("/small")).headers
        got = await client.get("/stream")
        assert (got.headers["content-encoding"], got.text) == ("gzip", "one two three")
        got = await client.get("/missing")
        assert (got.status_code, got.json()["detail"]) == (404, "x" * 1000)
        head = await client.head("/large")
        assert (head.status_code, head.content) == (200, b"")


async def test_events_come_through_gzip_one_by_one() -> None:
    """Starlette 2753 and 3230: they were held back until 32 KiB had come together."""
    app = bridged_app(GZipMiddleware)
    go_on = anyio.Event()

    @app.get("/")
    async def events() -> EventSourceResponse:
        async def made() -> AsyncIterator[ServerSentEvent]:
            yield ServerSentEvent("first")
            await go_on.wait()
            yield ServerSentEvent("second")

        return EventSourceResponse(made())

    async with TestClient(app) as client:
        got = b""
        with anyio.fail_after(10):
            async with client.stream("GET", "/") as response:
                async for piece in response.stream:
                    got += piece
                    if b"first" in got:
                        go_on.set()
                    if b"second" in got:
                        break


async def test_starlettes_cors_answers_preflight_itself(app: Covet) -> None:
    app.add_middleware(
        ASGIMiddleware(
            CORSMiddleware, band="edge", name="cors", allow_origins=["https://a.example"], allow_methods=["PUT"]
        )
    )
    called: list[str] = []

    @app.put("/")
    async def put() -> str:
        called.append("put")
        return "done"

    async with TestClient(app, headers={"origin": "https://a.example"}) as client:
        got = await client.options("/", headers={"access-control-request-method": "PUT"})
        assert (got.status_code, called) == (200, [])
        assert got.headers["access-control-allow-origin"] == "https://a.example"
        got = await client.put("/")
        assert (got.text, got.headers["access-control-allow-origin"]) == ("done", "https://a.example")
        got = await client.options(
            "/", headers={"access-control-request-method": "PUT", "origin": "https://evil.example"}
        )
        assert got.status_code == 400


async def test_starlettes_sessions(app: Covet) -> None:
    app.add_middleware(ASGIMiddleware(SessionMiddleware, band="session", secret_key="secret", https_only=True))

    @app.post("/")
    async def count(request: Request) -> int:
        session = request.scope["session"]
        session["count"] = session.get("count", 0) + 1
        found: int = session["count"]
        return found

    async with TestClient(app) as client:
        assert [(await client.post("/")).json() for _ in range(3)] == [1, 2, 3]


async def test_starlettes_base_middleware_of_which_the_tasks_are_many(app: Covet) -> None:
    class Stamp(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["x-stamp"] = "paid"
            return response

    app.add_middleware(ASGIMiddleware(Stamp))

    @app.post("/")
    async def echo(request: Request) -> bytes:
        return await request.body()

    async with TestClient(app) as client:
        got = await client.post("/", content=b"x" * 100_000)
        assert (got.content, got.headers["x-stamp"]) == (b"x" * 100_000, "paid")


# What a middleware may do


async def test_receive_send_and_scope_may_be_replaced() -> None:
    class Replaces:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def louder() -> Any:
                message = await receive()
                return {**message, "body": message.get("body", b"").upper()}

            async def send_on(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message = {**message, "status": 201, "headers": [*message["headers"], (b"X-Added", b"yes")]}
                elif message.get("body"):
                    message = {**message, "body": message["body"] + b"!"}
                await send(message)

            # Read before the middleware, they were kept; the handler is to see those that the middleware made.
            replaced = {**scope, "headers": [(b"x-new", b"new")], "query_string": b"q=new"}
            await self.app(replaced, louder, send_on)

    app = bridged_app(Replaces)
    seen: list[Any] = []

    @app.middleware(band="edge", name="reads")
    async def reads(request: Request, call_next: Any) -> Response:
        seen.append((request.headers.get("x-new"), request.query.get("q"), request.cookies))
        response: Response = await call_next(request)
        seen.append(response.status)
        return response

    @app.post("/")
    async def handler(request: Request) -> str:
        seen.append((request.headers.get("x-new"), request.query.get("q"), request.cookies))
        return (await request.body()).decode()

    async with TestClient(app, cookies={"a": "b"}) as client:
        got = await client.post("/?q=old", content=b"body")
    assert (got.status_code, got.text, got.headers["x-added"]) == (201, "BODY!", "yes")
    assert seen == [(None, "old", {"a": "b"}), ("new", "new", {}), 201]


async def test_a_scope_made_anew_is_an_error_that_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    def forgets(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            await app({key: scope[key] for key in ("type", "method", "path", "headers")}, receive, send)

        return middleware

    app = bridged_app(forgets)

    @app.get("/")
    async def handler() -> str:
        return "x"

    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/")).status_code == 500
    assert "it has to copy it: `{**scope, ...}`" in caplog.text


async def test_a_middleware_may_spawn_tasks_that_call_send_and_set_variables() -> None:
    def spawns(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            async def child() -> None:
                variable.set("set in a child task")
                await app(scope, receive, send)

            async with anyio.create_task_group() as group:
                group.start_soon(child)

        return middleware

    app = bridged_app(spawns, spawns)
    seen: list[str] = []

    @app.middleware(band="edge", name="watch")
    async def watch(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        seen.append(variable.get())
        return response

    @app.get("/")
    async def handler() -> str:
        seen.append(variable.get())
        variable.set("set in the handler")
        return "x"

    async with TestClient(app) as client:
        assert (await client.get("/")).text == "x"
    assert seen == ["set in a child task", "set in the handler"]


async def test_a_middleware_may_call_next_again_after_a_failure() -> None:
    app = Covet({}, installed_plugins=False)
    tries: list[int] = []

    @app.middleware()
    async def again(request: Request, call_next: Any) -> Response:
        try:
            response: Response = await call_next(request)
        except ConnectionError:
            response = await call_next(request)
        return response

    async def flaky(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("down")
        await PlainTextResponse("up")(scope, receive, send)

    app.mount("/m", flaky)
    async with TestClient(app) as client:
        assert (await client.get("/m/")).text == "up"


# Streaming


async def test_pieces_arrive_as_they_are_sent_and_the_sender_waits_for_its_reader() -> None:
    app = Covet({}, installed_plugins=False)
    app.add_middleware(Middleware(passing))
    sent: list[int] = []

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(1000):
            await send({"type": "http.response.body", "body": b"%d " % number, "more_body": True})
            sent.append(number)
        await send({"type": "http.response.body", "body": b""})

    app.mount("/m", counting)
    async with TestClient(app) as client, client.stream("GET", "/m/") as response:
        pieces = aiter(response.stream)
        assert await anext(pieces) == b"0 "
        await anyio.wait_all_tasks_blocked()
        assert len(sent) < 100, "what nobody reads yet is not produced without bound"


async def test_the_response_is_complete_before_the_application_has_ended() -> None:
    """What Starlette does in the background, the client must not wait for."""
    app = Covet({}, installed_plugins=False)
    app.add_middleware(Middleware(passing))
    go_on = anyio.Event()
    log: list[str] = []

    async def later() -> None:
        await go_on.wait()
        log.append("background work done")

    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x", background=BackgroundTask(later))

    app.mount("/m", Starlette(routes=[StarletteRoute("/", endpoint)]))
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            log.append("response complete")
            go_on.set()

    scope = {"type": "http", "method": "GET", "path": "/m/", "query_string": b"", "headers": []}
    with anyio.fail_after(10):
        await app(scope, one_request(), send)
    assert log == ["response complete", "background work done"]


async def test_a_failure_after_the_response_is_logged_and_raised_in_the_test(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette 2812: errors of background tasks were swallowed, or replaced the response."""
    app = Covet({}, installed_plugins=False)
    app.add_middleware(Middleware(passing))

    async def later() -> None:
        raise RuntimeError("background work failed")

    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("sent", background=BackgroundTask(later))

    app.mount("/m", Starlette(routes=[StarletteRoute("/", endpoint)]))
    async with TestClient(app, raise_errors=False) as client:
        got = await client.get("/m/")
        assert (got.status_code, got.text) == (200, "sent")
    assert caplog.text.count("RuntimeError: background work failed") == 1
    assert "GET /m/: an ASGI application failed after its response" in caplog.text
    async with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="background work failed"):
            await client.get("/m/")


async def test_a_failure_behind_a_dropped_response_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = Covet({}, installed_plugins=False)

    @app.middleware()
    async def replace(request: Request, call_next: Any) -> Response:
        await call_next(request)
        return Response("replaced")

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError("too late")

    app.mount("/m", broken)
    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/m/")).text == "replaced"
    assert "RuntimeError: too late" in caplog.text


@pytest.mark.parametrize("how", ["raises", "ends"])
async def test_a_response_that_breaks_off_is_not_passed_off_as_complete(how: str) -> None:
    app = Covet({}, installed_plugins=False)
    app.add_middleware(Middleware(passing))

    async def breaks_off(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if how == "raises":
            raise RuntimeError("in the middle")

    app.mount("/m", breaks_off)
    async with TestClient(app) as client:
        with pytest.raises((RuntimeError, CovetError), match="in the middle"):
            await client.get("/m/")


async def test_head_has_no_body_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = Covet({}, installed_plugins=False)
    app.add_middleware(Middleware(passing))

    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x" * 100)

    app.mount("/m", Starlette(routes=[StarletteRoute("/", endpoint)]))
    async with TestClient(app) as client:
        got = await client.head("/m/")
        assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "100")
    assert caplog.text == ""


async def test_extensions_of_the_server_that_would_pass_by_the_middleware_are_not_offered(tmp_path: Any) -> None:
    """Starlette sends a file by its path where it may, and the response would come out empty."""
    app = Covet({}, installed_plugins=False)
    app.add_middleware(Middleware(passing))
    file = tmp_path / "file.txt"
    file.write_text("content", encoding="utf-8")

    async def endpoint(request: Any) -> StarletteFile:
        return StarletteFile(file)

    app.mount("/m", Starlette(routes=[StarletteRoute("/", endpoint)]))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/m/", "query_string": b"", "headers": []}
    await app({**scope, "extensions": {"http.response.pathsend": {}}}, one_request(), send)
    assert b"".join(message.get("body", b"") for message in sent[1:]) == b"content"


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([("body", b"early")], "'http.response.body' before the start of its response"),
        ([("start", None), ("start", None)], "'http.response.start' in the middle of its response"),
        ([("start", None), ("body", b""), ("body", b"late")], "'http.response.body' after the end of its response"),
        ([("start", None), ("trailers", None)], "'http.response.trailers' in the middle of its response"),
        ([], "ended without a response"),
    ],
)
async def test_an_application_that_breaks_the_rules_is_told(
    messages: list[tuple[str, bytes | None]], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Covet({}, installed_plugins=False)
    app.add_middleware(Middleware(passing))

    async def wrong(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        for kind, body in messages:
            message: dict[str, Any] = {"type": f"http.response.{kind}", "status": 200, "headers": []}
            await send(message if body is None else {**message, "body": body})

    app.mount("/m", wrong)
    async with TestClient(app) as client:
        with anyio.fail_after(10):
            with pytest.raises(CovetError, match=told):
                await client.get("/m/")


# Cancellation


@pytest.mark.parametrize("kind", ["middleware", "mount"])
async def test_a_timeout_around_call_next_ends_what_is_below_before_it_goes_on(kind: str) -> None:
    app = Covet({}, installed_plugins=False)
    log: list[str] = []

    @app.middleware(band="edge")
    async def hurry(request: Request, call_next: Any) -> Response:
        with anyio.move_on_after(0.01):
            response: Response = await call_next(request)
            return response
        log.append("timed out")
        return Response("too slow", 504)

    async def sleep(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            log.append("cleaned up")

    if kind == "mount":
        app.mount("/", sleep)
    else:
        app.add_middleware(ASGIMiddleware(lambda app: sleep, name="sleep"))

        @app.get("/")
        async def handler() -> str:
            return "never"

    async with TestClient(app) as client:
        with anyio.fail_after(10):
            got = await client.get("/")
    assert (got.status_code, got.text) == (504, "too slow")
    assert log == ["cleaned up", "timed out"]


async def test_cancelling_the_request_at_any_await_leaves_nothing_running() -> None:
    app = bridged_app(GZipMiddleware, SessionlessPass, SessionlessPass)
    running: list[str] = []

    @app.get("/")
    async def handler() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            running.append("stream")
            try:
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
                    yield b"x" * 1000
            finally:
                running.remove("stream")

        running.append("handler")
        try:
            await anyio.lowlevel.checkpoint()
        finally:
            running.remove("handler")
        return StreamingResponse(pieces())

    async def serve(steps: int) -> bool:
        complete = False

        async def send(message: Any) -> None:
            nonlocal complete
            await anyio.lowlevel.checkpoint()
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        async def countdown() -> None:
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

        headers = [(b"accept-encoding", b"gzip")]
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
        async with anyio.create_task_group() as group:
            group.start_soon(countdown)
            await app(scope, one_request(), send)
            group.cancel_scope.cancel()
        return complete

    app.build()
    steps = 0
    with anyio.fail_after(60):
        while not await serve(steps):
            assert running == []
            steps += 1
    assert running == []
    assert steps > 5


class SessionlessPass:
    """A pure ASGI middleware that does nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


async def test_a_client_that_leaves_is_noticed_below(caplog: pytest.LogCaptureFixture) -> None:
    app = bridged_app(SessionlessPass)
    log: list[str] = []

    @app.get("/")
    async def handler() -> StreamingResponse:
        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    await anyio.lowlevel.checkpoint()
                    yield b"x"
            finally:
                log.append("closed")

        return StreamingResponse(endless())

    with caplog.at_level(logging.WARNING):
        async with TestClient(app) as client:
            with anyio.fail_after(10):
                async with client.stream("GET", "/") as response:
                    await anext(aiter(response.stream))
    assert log == ["closed"]
    assert caplog.text == ""


# WebSockets


class Guarding:
    """An ASGI middleware that lets nobody in without a ticket, and tells the inside which layers were passed."""

    def __init__(self, app: Any, name: str = "guard") -> None:
        self.app = app
        self.name = name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "websocket" and b"ticket" not in headers:
            await receive()
            await send({"type": "websocket.close", "code": 4403})
            return
        await self.app({**scope, "passed": [*scope.get("passed", ()), self.name]}, receive, send)


async def test_asgi_middleware_guards_websockets_too(app: Covet) -> None:
    app.add_middleware(ASGIMiddleware(Guarding, band="identity", name="outer guard"))
    app.add_middleware(ASGIMiddleware(Guarding, band="policy", name="inner guard"))

    @app.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json(socket.scope["passed"])

    async with TestClient(app) as client:
        async with client.websocket("/talk", headers={"ticket": "1"}) as socket:
            assert await socket.receive_json() == ["guard", "guard"]
        for path in ("/talk", "/unknown"):
            with pytest.raises(WebSocketDenied):
                async with client.websocket(path):
                    raise AssertionError("unreachable")


def test_the_middleware_of_a_router_is_not_taken_for_a_guard_of_websockets() -> None:
    for declare in (
        lambda router: router.websocket("/talk")(nothing),
        lambda router: router.mount("/static", nothing),
    ):
        router = Router("/private", middleware=[Middleware(passing)])
        declare(router)
        with pytest.raises(RouteError, match="would not guard it"):
            Covet({}, installed_plugins=False).include(router)


async def nothing(socket: WebSocket) -> None:
    raise AssertionError("unreachable")
