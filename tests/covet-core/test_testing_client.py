"""The test client: what it does as a server would, and how it says what went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route as StarletteRoute

from covet import Covet, CovetError, Depends, HTTPError, Request, Response, StreamingResponse
from covet.testing import TestClient, asgi

pytestmark = pytest.mark.anyio


def make_app(**options: Any) -> Covet:
    return Covet({}, installed_plugins=False, **options)


# The lifespan


async def test_the_lifespan_runs_around_it_or_not() -> None:
    app = make_app()
    log: list[str] = []

    @app.lifespan
    async def lifespan(app: Covet) -> AsyncIterator[None]:
        log.append("started")
        yield
        log.append("stopped")

    @app.get("/")
    async def show() -> str:
        log.append("served")
        return "x"

    async with TestClient(app) as client:
        await client.get("/")
    assert log == ["started", "served", "stopped"]
    log.clear()
    async with TestClient(app, lifespan=False) as client:
        await client.get("/")
    assert log == ["served"]


@pytest.mark.parametrize("phase", ["start", "stop"])
async def test_what_the_lifespan_raises_comes_out_as_it_is(phase: str) -> None:
    app = make_app()
    log: list[str] = []

    @app.lifespan
    async def outer(app: Covet) -> AsyncIterator[None]:
        yield
        log.append("unwound")

    @app.lifespan
    async def lifespan(app: Covet) -> AsyncIterator[None]:
        if phase == "start":
            raise RuntimeError("cannot start")
        yield
        raise RuntimeError("cannot stop")

    async def run() -> None:
        async with TestClient(app):
            log.append("entered")

    with pytest.raises(RuntimeError, match=f"cannot {phase}"):
        await run()
    assert ("unwound" in log, "entered" in log) == (phase == "start", phase == "stop") or log == ["entered", "unwound"]


async def test_other_asgi_applications_are_tested_with_their_lifespan_and_state() -> None:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        yield {"pool": "open"}

    async def show(request: Any) -> JSONResponse:
        return JSONResponse(request.state.pool)

    app = Starlette(routes=[StarletteRoute("/", show)], lifespan=lifespan)
    async with TestClient(app) as client:
        assert (await client.get("/")).json() == "open"
    with pytest.raises(CovetError, match="overrides are for applications of Covet"):
        TestClient(app, overrides={show: show})


# Errors of the application


async def test_errors_that_nobody_handles_are_raised_in_the_test() -> None:
    app = make_app()
    log: list[str] = []

    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("cleaned up")

    @app.get("/")
    async def broken(d: Annotated[None, Depends(dependency, scope="request")]) -> None:
        raise RuntimeError("boom")

    @app.get("/handled")
    async def handled() -> None:
        raise ValueError("handled")

    @app.exception_handler(ValueError)
    async def handle(request: Request, error: ValueError) -> Any:
        return "handled", 400

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPError(418)

    async with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="boom"):
            await client.get("/")
        assert log == ["cleaned up"]
        assert (await client.get("/handled")).status_code == 400
        assert (await client.get("/teapot")).status_code == 418
    async with TestClient(app, raise_errors=False) as client:
        got = await client.get("/")
        assert got.status_code == 500
        assert "boom" not in got.text


async def test_an_error_below_middleware_and_one_in_the_middle_of_a_response() -> None:
    app = make_app()

    @app.middleware()
    async def passing(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("boom")

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("in the middle")

        return StreamingResponse(pieces())

    async with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="boom"):
            await client.get("/broken")
        with pytest.raises(RuntimeError, match="in the middle"):
            await client.get("/half")
    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/broken")).status_code == 500
        with pytest.raises(httpx.RemoteProtocolError, match="broke off its response to GET /half"):
            await client.get("/half")


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "ended without a response to GET /"),
        (["start"], "ended in the middle of its response to GET /"),
        (["body"], r"sent 'http\.response\.body' before http\.response\.start in answer to GET /"),
        (["start", "start"], r"sent 'http\.response\.start' after http\.response\.start"),
        (["start", "body", "body"], r"sent 'http\.response\.body' after its response was complete"),
    ],
)
async def test_an_application_that_breaks_the_protocol_is_told(messages: list[str], told: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in messages:
            await send({"type": f"http.response.{kind}", "status": 200, "headers": [], "body": b"x"})

    async with TestClient(app, lifespan=False) as client:
        with pytest.raises(CovetError, match=told):
            await client.get("/")


# Work after the response


async def test_a_call_returns_when_the_work_after_the_response_is_done() -> None:
    app = make_app()
    log: list[str] = []

    async def work() -> None:
        await anyio.sleep(0.01)
        log.append("done")

    async def fails() -> None:
        raise RuntimeError("work failed")

    @app.get("/")
    async def show(request: Request) -> str:
        request.after(work)
        return "x"

    @app.get("/fails")
    async def failing(request: Request) -> str:
        request.after(fails)
        return "x"

    async with TestClient(app) as client:
        await client.get("/")
        assert log == ["done"]
        with pytest.raises(RuntimeError, match="work failed"):
            await client.get("/fails")
    async with TestClient(app, wait_for_tasks=False, raise_errors=False) as client:
        await client.get("/")
        assert log == ["done"], "not waited for yet"
        await client.get("/fails")
    assert log == ["done", "done"], "but before the application stops"


# Requests


async def test_cookies_come_back_and_bodies_of_every_kind_arrive() -> None:
    app = make_app()

    @app.post("/")
    async def echo(request: Request) -> Response:
        response = Response(await request.body())
        response.set_cookie("seen", "yes")
        return response

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"two ", b"three"):
            await anyio.lowlevel.checkpoint()
            yield piece

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError("the file is gone")

    async with TestClient(app) as client:
        assert (await client.post("/", content=b"x" * 10**6)).content == b"x" * 10**6
        assert client.cookies["seen"] == "yes"
        assert (await client.post("/", content=pieces())).text == "one two three"
        assert b"file content" in (await client.post("/", files={"f": ("a.txt", b"file content")})).content
        with pytest.raises(OSError, match="the file is gone"):
            await client.post("/", content=broken())


async def test_a_request_body_that_nobody_reads_holds_nothing_up() -> None:
    app = make_app()

    @app.post("/")
    async def ignore() -> str:
        return "ignored"

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    async with TestClient(app) as client, aclosing(endless()) as body:
        with anyio.fail_after(10):
            assert (await client.post("/", content=body)).text == "ignored"


# Streaming, and leaving


async def test_pieces_arrive_one_by_one_and_the_application_waits_for_its_reader() -> None:
    app = make_app()
    sent: list[int] = []
    closed = anyio.Event()

    @app.get("/")
    async def show() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                for number in range(10_000):
                    sent.append(number)
                    yield b"%d " % number
            finally:
                closed.set()

        return StreamingResponse(pieces())

    async with TestClient(app) as client:
        async with client.stream("GET", "/") as response:
            body = aiter(response.stream)
            assert [await anext(body) for _ in range(3)] == [b"0 ", b"1 ", b"2 "]
            await anyio.wait_all_tasks_blocked()
            assert len(sent) < 100
            assert not closed.is_set()
        assert closed.is_set(), "leaving the response is a client that leaves, and the application has ended"
        async with client.stream("GET", "/") as response:
            assert len(await response.aread()) == sum(len(b"%d " % number) for number in range(10_000))
        assert response.elapsed.total_seconds() >= 0


async def test_httpx_own_iterators_read_a_response_to_its_end() -> None:
    app = make_app()

    @app.get("/")
    async def show() -> StreamingResponse:
        return StreamingResponse(["one\n", "two\n"])

    async with TestClient(app) as client, client.stream("GET", "/") as response:
        assert [line async for line in response.aiter_lines()] == ["one", "two"]


async def test_a_response_that_is_still_open_when_the_client_is_left_is_a_client_that_leaves() -> None:
    app = make_app()
    closed = anyio.Event()

    @app.get("/")
    async def show() -> StreamingResponse:
        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
            finally:
                closed.set()

        return StreamingResponse(endless())

    async with TestClient(app) as client:
        await client.send(client.build_request("GET", "/"), stream=True)
        assert not closed.is_set()
    assert closed.is_set()


async def test_a_timeout_is_a_client_that_leaves() -> None:
    app = make_app()
    seen: list[str] = []

    @app.get("/")
    async def slow(request: Request) -> str:
        message = await request.receive()
        while message["type"] != "http.disconnect":
            message = await request.receive()
        seen.append(message["type"])
        return "too late"

    async with TestClient(app) as client:
        with pytest.raises(httpx.ReadTimeout, match=r"no answer to GET / in 0\.01 seconds"):
            await client.get("/", timeout=0.01)
        assert seen == ["http.disconnect"]


async def test_cancelling_a_call_cancels_the_handler() -> None:
    app = make_app()
    log: list[str] = []

    @app.get("/")
    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("cancelled")

    async with TestClient(app) as client:
        with anyio.move_on_after(0.01):
            await client.get("/")
    assert log == ["cancelled"]


async def test_an_application_that_does_not_notice_is_cancelled_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "PATIENCE", 0.05)
    log: list[str] = []

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        try:
            await anyio.sleep_forever()
        finally:
            log.append("cancelled")

    async with TestClient(deaf, lifespan=False) as client:
        with pytest.raises(
            CovetError, match=r"the client of GET /stream has left, .* had not noticed after 0\.05 seconds"
        ):
            async with client.stream("GET", "/stream") as response:
                await anext(aiter(response.stream))
    assert log == ["cancelled"]


# Using it wrongly


async def test_a_client_that_is_not_entered_or_already_left_says_so() -> None:
    app = make_app()
    client = TestClient(app)
    with pytest.raises(CovetError, match="GET / has no application to go to: make requests inside of `async with"):
        await client.get("/")
    with pytest.raises(CovetError, match="GET /ws has no application to go to"):
        async with client.websocket("/ws"):
            pass
    await client.aclose()
    async with TestClient(app) as client:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("/")


async def test_an_error_of_the_test_itself_comes_out_as_it_is_and_the_application_stops_well() -> None:
    app = make_app()
    log: list[str] = []

    @app.lifespan
    async def lifespan(app: Covet) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            log.append("failed")
            raise
        log.append("stopped well")

    async def run() -> None:
        async with TestClient(app):
            raise AssertionError("of the test")

    with pytest.raises(AssertionError, match="of the test"):
        await run()
    assert log == ["stopped well"]


async def test_overrides_last_as_long_as_the_client() -> None:
    app = make_app()

    async def who() -> str:
        return "somebody"

    @app.get("/")
    async def show(name: Annotated[str, Depends(who)]) -> str:
        return name

    async with TestClient(app, overrides={who: lambda: "admin"}) as client:
        assert (await client.get("/")).text == "admin"
    async with TestClient(app) as client:
        assert (await client.get("/")).text == "somebody"


async def test_requests_run_at_the_same_time() -> None:
    app = make_app()
    here: list[int] = []
    all_here = anyio.Event()

    @app.get("/{n:int}")
    async def meet(n: int) -> str:
        here.append(n)
        if len(here) == 10:
            all_here.set()
        await all_here.wait()
        return "met"

    async with TestClient(app) as client, anyio.create_task_group() as group:
        with anyio.fail_after(10):
            for n in range(10):
                group.start_soon(client.get, f"/{n}")
            await all_here.wait()
