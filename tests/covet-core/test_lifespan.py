"""How an application starts and stops: order, failures, draining, mounted applications, signals."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import httpx
import pytest

import covet
from covet import Covet, Depends, EventSourceResponse, PluginError, WebSocket, current_app
from covet.exceptions import ConfigurationError
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


class Part:
    """A plugin that notes what happens to it, and fails where it is told to. It has no `finally` on purpose."""

    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        self.name, self.log, self.fails = name, log, fails

    def note(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        if self.fails == what:
            raise RuntimeError(f"{self.name} fails: {what}")

    @covet.hookimpl
    @asynccontextmanager
    async def covet_lifespan(self, app: Covet) -> AsyncIterator[None]:
        await anyio.lowlevel.checkpoint()
        self.note("in")
        yield
        await anyio.lowlevel.checkpoint()
        self.note("out")

    @covet.hookimpl
    async def covet_ready(self, app: Covet) -> None:
        self.note("ready")

    @covet.hookimpl
    def covet_draining(self, app: Covet) -> None:
        self.note("draining")


def make_app(log: list[str], fails: str = "", at: str = "b", **settings: Any) -> Covet:
    plugins = {name: Part(name, log, fails if name == at else "") for name in "abc"}

    @asynccontextmanager
    async def own(app: Covet) -> AsyncIterator[None]:
        log.append("own in")
        yield
        log.append("own out")

    return Covet(settings, plugins=plugins, installed_plugins=False, lifespan=own)


START = ["a in", "b in", "c in", "own in"]
READY = ["a ready", "b ready", "c ready"]
DRAIN = ["a draining", "b draining", "c draining"]
STOP = ["own out", "c out", "b out", "a out"]


# Plugins


async def test_parts_start_in_order_drain_and_stop_in_reverse() -> None:
    log: list[str] = []
    app = make_app(log)
    async with app.running():
        assert log == [*START, *READY]
        log.append("runs")
    assert log == [*START, *READY, "runs", *DRAIN, *STOP]


async def test_a_plugin_that_fails_to_start_stops_those_before_it(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    with pytest.raises(PluginError, match="plugin 'b' failed to start: RuntimeError: b fails: in"):
        async with make_app(log, "in").running():
            pytest.fail("it must not start")
    assert log == ["a in", "b in", "a out"], "also without `finally`, and nothing drains that was never ready"
    assert "Traceback" in caplog.text


async def test_a_plugin_that_fails_to_stop_keeps_none_from_stopping() -> None:
    log: list[str] = []
    with pytest.raises(RuntimeError, match="b fails: out"):
        async with make_app(log, "out").running():
            pass
    assert log == [*START, *READY, *DRAIN, *STOP]


async def test_no_part_sees_or_swallows_the_error_of_another() -> None:
    seen: list[BaseException] = []

    class Swallows:
        @covet.hookimpl
        @asynccontextmanager
        async def covet_lifespan(self, app: Covet) -> AsyncIterator[None]:
            try:
                yield
            except Exception as error:
                seen.append(error)

    log: list[str] = []
    app = Covet({}, plugins={"a": Swallows(), "b": Part("b", log, "in")}, installed_plugins=False)
    with pytest.raises(PluginError, match="b fails"):
        async with app.running():
            pytest.fail("it must not start")
    app = Covet({}, plugins={"a": Swallows()}, installed_plugins=False)
    with pytest.raises(ZeroDivisionError):
        async with app.running():
            raise ZeroDivisionError
    assert seen == []


async def test_a_plugin_that_is_not_ready_stops_the_start() -> None:
    log: list[str] = []
    with pytest.raises(Exception, match="b fails: ready"):
        async with make_app(log, "ready").running():
            pytest.fail("it must not start")
    assert log == [*START, "a ready", "b ready", *STOP]


async def test_a_plugin_that_fails_to_drain_is_logged_and_shutdown_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    async with make_app(log, "draining").running():
        pass
    assert log[-4:] == STOP
    assert "b fails: draining" in caplog.text


async def test_a_plugin_that_drains_for_too_long_is_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    class Slow:
        @covet.hookimpl
        async def covet_draining(self, app: Covet) -> None:
            await anyio.sleep_forever()

    app = Covet({"server": {"shutdown_timeout": 0.01}}, plugins={"slow": Slow()}, installed_plugins=False)
    with anyio.fail_after(10):
        async with app.running():
            pass
    assert "covet_draining took longer" in caplog.text


async def test_a_lifespan_that_is_none_is_an_error_that_says_what_to_do() -> None:
    class Wrong:
        @covet.hookimpl
        def covet_lifespan(self, app: Covet) -> Any:
            return 5

    app = Covet({}, plugins={"wrong": Wrong()}, installed_plugins=False)
    with pytest.raises(PluginError, match=r"plugin 'wrong': covet_lifespan returned 5.*asynccontextmanager"):
        async with app.running():
            pytest.fail("it must not start")


async def test_cancelling_a_running_application_stops_its_parts() -> None:
    ended: list[str] = []

    @asynccontextmanager
    async def part(app: Covet) -> AsyncIterator[None]:
        try:
            yield
        finally:
            ended.append("part")

    app = Covet({}, installed_plugins=False, lifespan=part)
    with anyio.CancelScope() as scope:
        async with app.running():
            scope.cancel()
            await anyio.sleep_forever()
    assert ended == ["part"]


async def test_dependencies_of_the_application_are_made_once_and_cleaned_up_before_lifespans_end() -> None:
    log: list[str] = []

    async def connect() -> AsyncIterator[str]:
        log.append("connect")
        yield "connection"
        log.append("disconnect")

    app = make_app(log)

    @app.get("/")
    async def index(connection: Annotated[str, Depends(connect, scope="app")]) -> str:
        return connection

    async with TestClient(app) as client:
        assert (await client.get("/")).text == (await client.get("/")).text == "connection"
    assert log.count("connect") == 1
    assert log.index("own in") < log.index("connect") < log.index("a ready")
    assert log.index("c draining") < log.index("disconnect") < log.index("own out")


# Draining


async def test_what_waits_for_the_drain_from_the_very_start_hears_of_it() -> None:
    log: list[str] = []

    async def worker(app: Covet) -> None:
        await app.drain.wait()
        log.append("finished well")

    @asynccontextmanager
    async def starts(app: Covet) -> AsyncIterator[None]:
        app.tasks.start_soon(worker, app)
        await anyio.sleep(0.01)
        yield

    app = Covet({}, installed_plugins=False, lifespan=starts)
    for _ in range(2):
        with anyio.fail_after(10):
            async with app.running():
                assert not app.drain.started
    assert log == ["finished well"] * 2


async def test_an_event_stream_ends_when_draining_begins() -> None:
    """sse-starlette 73, 74, 124: streams that never end held up the shutdown."""
    app = Covet({}, installed_plugins=False)
    cleaned: list[str] = []

    async def ticks() -> AsyncIterator[str]:
        try:
            yield "tick"
            await anyio.sleep_forever()
        finally:
            cleaned.append("ticks")

    @app.get("/events")
    async def events() -> EventSourceResponse:
        return EventSourceResponse(ticks())

    sent: list[Any] = []
    ticked = anyio.Event()

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            ticked.set()

    async def receive() -> Any:
        await anyio.sleep_forever()

    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": []}
    with anyio.fail_after(10):
        async with anyio.create_task_group() as server, app.running():
            server.start_soon(app, scope, receive, send)
            await ticked.wait()
    assert sent[-1] == {"type": "http.response.body", "body": b""}, "a proper end, not a broken connection"
    assert cleaned == ["ticks"]


# The lifespan protocol and signals


class Server:
    """The server's side of the lifespan protocol."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.started, self.stop = anyio.Event(), anyio.Event()
        self.asked = False

    async def receive(self) -> Any:
        if not self.asked:
            self.asked = True
            return {"type": "lifespan.startup"}
        await self.stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Any) -> None:
        self.sent.append(message["type"])
        self.started.set()


LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}


async def test_an_error_while_it_serves_is_told_as_a_failed_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    """A second `startup` message would break the protocol."""
    app = make_app([])

    @asynccontextmanager
    async def with_worker(app: Covet) -> AsyncIterator[None]:
        async def worker() -> None:
            raise RuntimeError("the worker died")

        async with anyio.create_task_group() as group:
            group.start_soon(worker)
            yield

    app.add_lifespan(with_worker)
    server = Server()
    with anyio.fail_after(10):
        await app(LIFESPAN, server.receive, server.send)
    assert server.sent in (["lifespan.startup.complete", "lifespan.shutdown.failed"], ["lifespan.startup.failed"])
    assert "the worker died" in caplog.text


async def test_a_part_that_fails_to_stop_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    server = Server()
    server.stop.set()
    await make_app(log, "out")(LIFESPAN, server.receive, server.send)
    assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    assert "the application failed in its shutdown" in caplog.text
    assert log[-1] == "a out"


@contextmanager
def handled_by_a_server(number: signal.Signals) -> Iterator[list[int]]:
    """A signal with a handler, as servers install one."""
    got: list[int] = []
    before = signal.signal(number, lambda number, frame: got.append(number))
    handler = signal.getsignal(number)
    try:
        yield got
        assert signal.getsignal(number) is handler, "the server has its own handler back"
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_draining_begins_with_the_signal_and_the_server_hears_of_it_too(number: signal.Signals) -> None:
    """uvicorn 1140: the server waits for its connections before it says a word to the application."""
    log: list[str] = []
    app = make_app(log)
    server = Server()
    with anyio.fail_after(10), handled_by_a_server(number) as got:
        async with anyio.create_task_group() as group:
            group.start_soon(app, LIFESPAN, server.receive, server.send)
            await server.started.wait()
            # The handlers are installed behind the message.
            await anyio.sleep(0.01)
            os.kill(os.getpid(), number)
            await app.drain.wait()
            server.stop.set()
        assert got == [number]
    assert log == [*START, *READY, *DRAIN, *STOP], "once, not again at the shutdown itself"
    assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_plugins_may_finish_draining_though_the_server_asks_for_the_shutdown() -> None:
    log: list[str] = []

    class Slow:
        @covet.hookimpl
        async def covet_draining(self, app: Covet) -> None:
            log.append("begins")
            await anyio.sleep(0.05)
            log.append("ends")

    app = Covet({}, plugins={"slow": Slow()}, installed_plugins=False)
    server = Server()
    with anyio.fail_after(10), handled_by_a_server(signal.SIGTERM):
        async with anyio.create_task_group() as group:
            group.start_soon(app, LIFESPAN, server.receive, server.send)
            await server.started.wait()
            await anyio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            await app.drain.wait()
            await anyio.sleep(0.01)
            server.stop.set()
    assert log == ["begins", "ends"]


# Mounted applications


def asgi_app(log: list[str], *, fails: str = "", hangs: bool = False) -> Any:
    """A mounted application that speaks the lifespan protocol."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": repr(scope["state"]).encode()})
            return
        await receive()
        if fails == "raise":
            raise RuntimeError("no database")
        if fails == "startup":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        scope["state"]["pool"] = 1
        log.append("in")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        log.append("out")
        if hangs:
            await anyio.sleep_forever()
        await send({"type": f"lifespan.shutdown.{fails or 'complete'}", "message": "the disk is full"})

    return app


async def test_an_application_that_is_mounted_twice_starts_once() -> None:
    log: list[str] = []
    inner = asgi_app(log)
    app = Covet({}, installed_plugins=False)
    app.mount("/one", inner)
    app.mount("/two", inner)
    async with TestClient(app) as client:
        assert (await client.get("/one/")).text == (await client.get("/two/")).text == "{'pool': 1}"
    assert log == ["in", "out"]


async def test_a_mounted_application_that_fails_stops_those_that_had_started() -> None:
    log: list[str] = []
    app = make_app(log)
    app.mount("/good", asgi_app(log))
    app.mount("/poor", asgi_app(log, fails="startup"))
    with pytest.raises(ConfigurationError, match="mounted at '/poor' failed to start: no database"):
        async with app.running():
            pytest.fail("it must not start")
    assert log == [*START, "in", "out", *STOP]


async def test_a_mounted_application_that_raises_at_start_is_not_passed_over_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Covet({}, installed_plugins=False)
    app.mount("/sub", asgi_app([], fails="raise"))
    async with app.running():
        pass
    assert "mounted at '/sub' raised an error when it was to start" in caplog.text
    assert "no database" in caplog.text


async def test_a_mounted_application_without_lifespan_is_served(caplog: pytest.LogCaptureFixture) -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"plain"})

    app = Covet({}, installed_plugins=False)
    app.mount("/sub", plain)
    with caplog.at_level(logging.INFO):
        async with TestClient(app) as client:
            assert (await client.get("/sub/")).text == "plain"
    assert "/sub" not in [record.getMessage() for record in caplog.records if record.name == "covet.lifespan"]


async def test_a_mounted_application_that_does_not_stop_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    app = make_app(log, server={"shutdown_timeout": 0.01})
    app.mount("/sub", asgi_app(log, hangs=True))
    with anyio.fail_after(10):
        async with app.running():
            pass
    assert log[-5:] == ["out", *STOP]
    assert "did not stop within" in caplog.text


async def test_a_mounted_application_that_fails_to_stop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = Covet({}, installed_plugins=False)
    app.mount("/sub", asgi_app([], fails="failed"))
    async with app.running():
        pass
    assert "mounted at '/sub' failed to stop: the disk is full" in caplog.text


async def test_mounted_applications_of_covet_have_phases_of_their_own() -> None:
    log: list[str] = []
    inner = make_app(log)

    @inner.websocket("/who")
    async def who(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(str(current_app() is inner))

    outer = Covet({}, installed_plugins=False)
    outer.mount("/in", inner)
    async with TestClient(outer) as client:
        assert log == [*START, *READY]
        async with client.websocket("/in/who") as socket:
            assert await socket.receive_text() == "True"
    assert log == [*START, *READY, *DRAIN, *STOP]


# Real servers


STREAM = """
import anyio
from covet import Covet, EventSourceResponse

app = Covet()

@app.get("/events")
async def events() -> EventSourceResponse:
    async def ticks():
        while True:
            yield "tick"
            await anyio.sleep(0.05)
    return EventSourceResponse(ticks())
"""


@pytest.mark.parametrize("server", ["granian", "uvicorn"])
def test_a_server_with_an_open_event_stream_stops_when_it_is_told(server: str, tmp_path: Path) -> None:
    """It would wait for the stream as long as the settings allow, and the stream for the shutdown."""
    (tmp_path / "app.py").write_text(STREAM)
    environment = {**os.environ, "COVET_SERVER__SHUTDOWN_TIMEOUT": "600", "COVET_PLUGINS": "security_headers"}
    command = [sys.executable, "-m", "covet", "run", "--server", server, "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            announced = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", announced)
            assert found is not None, announced
            with stream(f"{found[0]}/events") as lines:
                assert next(lines) == "data: tick"
                process.terminate()
                assert list(lines)[-1] == "", "the stream has a proper end"
            assert process.wait(60) == 0
        finally:
            process.kill()


@contextmanager
def stream(url: str) -> Iterator[Iterator[str]]:
    """The lines of a response, as soon as there is a server that gives one."""
    for _ in range(200):
        try:
            with httpx.stream("GET", url, timeout=60, trust_env=False) as response:
                yield response.iter_lines()
                return
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError(f"nothing answers {url}")
