"""Supervised tasks, and what a request leaves to do after its response."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from covet import Covet, CovetError, Request, StreamingResponse
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


def make_app(**settings: Any) -> Covet:
    return Covet(settings, installed_plugins=False)


def make_scope(path: str = "/") -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [],
        "asgi": {"version": "3.0"},
    }


async def nothing_more() -> Any:
    await anyio.sleep_forever()


async def test_cancelling_late_tasks_does_not_cancel_what_stops_after_them(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def pool(app: Covet) -> AsyncIterator[None]:
        yield
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        log.append("pool closed")

    app = Covet({"server": {"shutdown_timeout": 0.01}}, installed_plugins=False, lifespan=pool)
    with anyio.fail_after(10):
        async with app.running():
            app.tasks.start_soon(anyio.sleep_forever)
            await anyio.lowlevel.checkpoint()
    assert log == ["pool closed"]
    assert len(app.tasks) == 0
    assert "sleep_forever was cancelled at shutdown" in caplog.text


async def test_a_thread_that_does_not_end_holds_up_nothing() -> None:
    app = make_app(server={"shutdown_timeout": 0.01})
    release = threading.Event()
    try:
        with anyio.fail_after(10):
            async with app.running():
                app.tasks.start_soon(release.wait)
                await anyio.lowlevel.checkpoint()
    finally:
        release.set()


async def test_what_a_part_starts_while_it_stops_is_waited_for_too() -> None:
    log: list[str] = []

    async def flush() -> None:
        await anyio.sleep(0.01)
        log.append("flushed")

    @asynccontextmanager
    async def part(app: Covet) -> AsyncIterator[None]:
        yield
        app.tasks.start_soon(flush)

    app = Covet({}, installed_plugins=False, lifespan=part)
    async with app.running():
        pass
    assert log == ["flushed"]


async def test_what_a_part_starts_while_it_stops_has_no_more_time_than_others(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def part(app: Covet) -> AsyncIterator[None]:
        yield
        app.tasks.start_soon(anyio.sleep_forever, name="late")

    app = Covet({"server": {"shutdown_timeout": 0.01}}, installed_plugins=False, lifespan=part)
    with anyio.fail_after(10):
        async with app.running():
            pass
    assert "the task late was cancelled at shutdown" in caplog.text


async def test_a_plain_function_that_returns_an_awaitable_is_not_forgotten() -> None:
    log: list[str] = []

    async def send(text: str) -> None:
        log.append(text)

    app = make_app()

    @app.get("/")
    async def index(request: Request) -> str:
        request.after(lambda: send("mail"))
        return "ok"

    async with TestClient(app) as client:
        await client.get("/")
    assert log == ["mail"]


async def test_an_application_runs_once_at_a_time() -> None:
    app = make_app()
    async with app.running():
        with pytest.raises(CovetError, match="running already"):
            async with app.running():
                pytest.fail("it must not start twice")
        assert app.tasks.running
        app.tasks.start_soon(anyio.sleep, 0)
    async with app.running():
        assert app.tasks.running, "but again after it has stopped"


@pytest.mark.parametrize("layered", [False, True])
async def test_work_after_the_response_runs_though_the_client_has_left(layered: bool) -> None:
    """Starlette 1438: one middleware, and background work was cancelled with the client."""
    app = make_app()
    done = anyio.Event()
    started = anyio.Event()

    async def work() -> None:
        started.set()
        await anyio.sleep(0.01)
        done.set()

    if layered:

        @app.middleware()
        async def layer(request: Request, call_next: Any) -> Any:
            return await call_next(request)

    @app.get("/")
    async def index(request: Request) -> str:
        request.after(work)
        return "x"

    async def gone(message: Any) -> None:
        raise OSError("connection reset")

    with anyio.fail_after(10):
        async with app.running():
            await app(make_scope(), nothing_more, gone)
            await started.wait()
            assert not done.is_set()
        assert done.is_set()


@pytest.mark.parametrize("layered", [False, True])
async def test_work_after_the_response_runs_though_the_server_cancels_the_request(layered: bool) -> None:
    """Some servers cancel a request when its client leaves; the work is the application's then, not the request's."""
    app = make_app()
    log: list[str] = []
    sending = anyio.Event()

    async def work() -> None:
        await anyio.sleep(0.01)
        log.append("worked")

    if layered:

        @app.middleware()
        async def layer(request: Request, call_next: Any) -> Any:
            return await call_next(request)

    async def endless() -> AsyncIterator[str]:
        yield "begin"
        await anyio.sleep_forever()

    @app.get("/")
    async def index(request: Request) -> StreamingResponse:
        request.after(work)
        return StreamingResponse(endless())

    async def send(message: Any) -> None:
        if message.get("body"):
            sending.set()

    with anyio.fail_after(10):
        async with app.running(), anyio.create_task_group() as server:
            server.start_soon(app, make_scope(), nothing_more, send)
            await sending.wait()
            server.cancel_scope.cancel()
    assert log == ["worked"]


async def test_a_failing_task_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    log: list[str] = []

    async def steady() -> None:
        await anyio.sleep(0.02)
        log.append("steady")

    async def fails() -> None:
        raise RuntimeError("unsteady")

    with caplog.at_level(logging.ERROR):
        async with app.running():
            app.tasks.start_soon(steady)
            app.tasks.start_soon(fails, name="nightly")
            await anyio.sleep(0.01)
            assert len(app.tasks) == 1
    assert log == ["steady"]
    assert "the task nightly failed" in caplog.text
    assert "unsteady" in caplog.text


async def test_tasks_can_be_started_from_tasks_and_take_arguments() -> None:
    app = make_app()
    log: list[Any] = []

    async def inner(number: int, *, word: str) -> None:
        log.append((number, word))

    async def outer() -> None:
        app.tasks.start_soon(inner, 1, word="one")

    async with app.running():
        app.tasks.start_soon(outer)
    assert log == [(1, "one")]


async def test_tasks_of_a_start_that_failed_are_cancelled_at_once() -> None:
    ended: list[str] = []

    async def worker() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("worker")

    @asynccontextmanager
    async def starts(app: Covet) -> AsyncIterator[None]:
        app.tasks.start_soon(worker)
        await anyio.sleep(0.01)
        raise RuntimeError("no port")
        yield

    app = Covet({}, installed_plugins=False, lifespan=starts)
    with anyio.fail_after(10), pytest.raises(RuntimeError, match="no port"):
        async with app.running():
            pytest.fail("it must not start")
    assert ended == ["worker"]
