"""Clients that leave, connections that break and tasks that are cancelled: at every await of a request, one by one.

A request is served again and again; each time something ends it one await later, until it ends by itself. Whatever
that was, and wherever: every dependency is cleaned up once, nothing is left running or open, the context is as before,
and a client that merely left is nobody's error.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import pytest

from covet import (
    Body,
    Covet,
    CovetError,
    Depends,
    EventSourceResponse,
    Form,
    Middleware,
    Request,
    Response,
    StreamingResponse,
    UploadFile,
)
from covet.context import running

pytestmark = pytest.mark.anyio

marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker", default="outside")


@dataclass
class Seen:
    """What happened in an application."""

    entered: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    files: list[Any] = field(default_factory=list)
    after: int = 0

    def enter(self, name: str) -> None:
        self.entered[name] = self.entered.get(name, 0) + 1

    def leave(self, name: str) -> None:
        self.left[name] = self.left.get(name, 0) + 1


def make_app(seen: Seen, *, middleware: bool = False) -> Covet:
    app = Covet({"limits": {"spool_bytes": 8}}, installed_plugins=False)

    def dependency(name: str, scope: Any, *, thread: bool = False) -> Any:
        async def asynchronous() -> AsyncIterator[str]:
            await anyio.lowlevel.checkpoint()
            seen.enter(name)
            try:
                yield name
            finally:
                seen.leave(name)
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()

        def plain() -> Iterator[str]:
            seen.enter(name)
            try:
                yield name
            finally:
                seen.leave(name)

        return Depends(plain if thread else asynchronous, scope=scope)

    function = dependency("function", "function")
    request_scope = dependency("request", "request")
    in_thread = dependency("function in a thread", "function", thread=True)
    request_in_thread = dependency("request in a thread", "request", thread=True)

    @app.get("/plain")
    async def plain() -> str:
        marker.set("inside")
        await anyio.lowlevel.checkpoint()
        return "x" * 10

    @app.post("/body")
    async def body(body: Annotated[bytes, Body()], d: Annotated[str, function]) -> Any:
        await anyio.lowlevel.checkpoint()
        return {"size": len(body)}

    @app.post("/json")
    async def json(body: dict[str, Any], d: Annotated[str, function], r: Annotated[str, request_scope]) -> Any:
        return body

    @app.post("/upload")
    async def upload(
        file: UploadFile, name: Annotated[str, Form()], d: Annotated[str, function], r: Annotated[str, request_scope]
    ) -> Any:
        seen.files.append(file.file)
        await file.read()
        return name

    @app.post("/received")
    async def received(request: Request, d: Annotated[str, function]) -> Any:
        return {"size": sum([len(part) async for part in request.stream()])}

    @app.get("/threads")
    async def threads(d: Annotated[str, in_thread], r: Annotated[str, request_in_thread]) -> Any:
        return d + r

    @app.get("/sync")
    def sync(d: Annotated[str, in_thread], e: Annotated[str, function]) -> Any:
        return d + e

    async def pieces(name: str) -> AsyncIterator[str]:
        seen.enter(name)
        try:
            for n in range(4):
                await anyio.lowlevel.checkpoint()
                yield f"piece {n}"
        finally:
            seen.leave(name)

    @app.get("/stream")
    async def stream(r: Annotated[str, request_scope], d: Annotated[str, function]) -> Response:
        return StreamingResponse(pieces("stream"))

    @app.get("/plain-stream")
    async def plain_stream() -> Response:
        def parts() -> Iterator[bytes]:
            seen.enter("plain stream")
            try:
                yield b"a"
                yield b"b"
            finally:
                seen.leave("plain stream")

        return StreamingResponse(parts())

    @app.get("/events")
    async def events(r: Annotated[str, request_scope]) -> Response:
        return EventSourceResponse(pieces("events"), heartbeat=None)

    @app.post("/after")
    async def after(request: Request, body: Annotated[bytes, Body()], r: Annotated[str, request_scope]) -> str:
        async def later() -> None:
            seen.after += 1

        request.after(later)
        return "done"

    if middleware:

        async def around(request: Request, call_next: Any) -> Response:
            seen.enter("middleware")
            token = marker.set("in middleware")
            try:
                await anyio.lowlevel.checkpoint()
                response: Response = await call_next(request)
                await anyio.lowlevel.checkpoint()
                return response
            finally:
                marker.reset(token)
                seen.leave("middleware")

        app.add_middleware(Middleware(around))
    return app


BOUNDARY = b"multipart/form-data; boundary=b"
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nada\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"y" * 40 + b"\r\n--b--\r\n"
)
REQUESTS: dict[str, tuple[str, bytes, bytes]] = {
    "/plain": ("GET", b"", b""),
    "/body": ("POST", b"x" * 60, b"text/plain"),
    "/json": ("POST", b'{"a": [1, 2, 3], "b": null}', b"application/json"),
    "/upload": ("POST", FORM, BOUNDARY),
    "/received": ("POST", b"x" * 60, b"text/plain"),
    "/threads": ("GET", b"", b""),
    "/sync": ("GET", b"", b""),
    "/stream": ("GET", b"", b""),
    "/plain-stream": ("GET", b"", b""),
    "/events": ("GET", b"", b""),
    "/after": ("POST", b"x" * 30, b"text/plain"),
    "/nothing": ("GET", b"", b""),
}


class Connection:
    """A connection on which something happens at the n-th receive or send."""

    def __init__(self, body: bytes, at: int, end: Callable[[Connection, str], Any]) -> None:
        self.left = [body[start : start + 25] for start in range(0, len(body), 25)] or [b""]
        self.at = at
        self.end = end
        self.awaits = 0
        self.ended = False
        self.gone = anyio.Event()
        self.sent: list[Any] = []

    def complete(self) -> bool:
        return bool(self.sent) and self.sent[-1]["type"] == "http.response.body" and not self.sent[-1].get("more_body")

    async def step(self, where: str) -> None:
        number = self.awaits
        self.awaits += 1
        if number == self.at:
            self.ended = True
            await self.end(self, where)

    async def receive(self) -> Any:
        await anyio.lowlevel.checkpoint()
        await self.step("receive")
        if self.left and not self.gone.is_set():
            piece = self.left.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.left)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        await self.step("send")
        if self.gone.is_set() and not self.complete():
            raise OSError("the client has left")
        self.sent.append(message)
        if self.complete():
            self.gone.set()


async def leaves(connection: Connection, where: str) -> None:
    """The client leaves: what is received is `http.disconnect`, what is sent fails."""
    connection.gone.set()


class Silent(Connection):
    """A server that swallows what is sent to a client that has left, as uvicorn does."""

    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        await self.step("send")
        self.sent.append(message)
        if self.complete():
            self.gone.set()


def scope_of(path: str, method: str, body: bytes, content_type: bytes) -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"content-length", b"%d" % len(body))]
    if content_type:
        headers.append((b"content-type", content_type))
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "query_string": b"", "headers": headers, "root_path": "", "client": None,
    }  # fmt: skip


async def serve(app: Covet, path: str, connection: Connection) -> None:
    """Serve one request in a task of its own, and see that the context is as before."""
    method, body, content_type = REQUESTS[path]
    before = running.get(None), marker.get()
    try:
        await app(scope_of(path, method, body, content_type), connection.receive, connection.send)
    finally:
        assert running.get(None) is before[0], "the request is still the current one"
        if path != "/plain":
            assert marker.get() == before[1]
        marker.set("outside")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What Covet has logged above debug.

    A record holds the error that it tells of, that its frames, and these the files that should be closed by now; and
    pytest holds every record. So they are made without.
    """
    texts: list[str] = []
    original = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = original(*args, **kwargs)
        record.msg, record.args = logging.Formatter().format(record), ()
        record.exc_info = None
        if record.name.startswith("covet") and record.levelno > logging.DEBUG:
            texts.append(record.msg)
        return record

    logging.setLogRecordFactory(make)
    with caplog.at_level(logging.DEBUG):
        yield texts
    logging.setLogRecordFactory(original)


async def check(seen: Seen, told: list[str]) -> None:
    assert seen.entered == seen.left, "each dependency that was made is cleaned up once"
    assert all(count <= 1 for count in seen.entered.values())
    assert told == []
    # A thread that was writing closes its file when it has written.
    with anyio.fail_after(10):
        while not all(file.closed for file in seen.files):
            gc.collect()
            await anyio.sleep(0.005)


async def every_await(
    path: str,
    middleware: bool,
    told: list[str],
    once: Callable[[Covet, int], Any],
) -> int:
    """Call `once` with 0, 1, 2, … until it says that the request ended by itself; gives how often that was."""
    seen = Seen()
    app = make_app(seen, middleware=middleware)
    async with app.running():
        for at in range(200):
            ended = await once(app, at)
            while len(app.tasks):
                await anyio.lowlevel.checkpoint()
            await check(seen, told)
            if not ended:
                gc.collect()
                return at
            seen.__init__()  # type: ignore[misc]
    raise AssertionError("unreachable: no request has that many awaits")


paths = pytest.mark.parametrize("path", REQUESTS)
middleware = pytest.mark.parametrize("middleware", [False, True], ids=["direct", "middleware"])


@paths
@middleware
@pytest.mark.parametrize("kind", [Connection, Silent])
async def test_a_client_that_leaves_at_any_await(
    path: str, middleware: bool, kind: type[Connection], told: list[str]
) -> None:
    async def once(app: Covet, at: int) -> bool:
        connection = kind(REQUESTS[path][1], at, leaves)
        with anyio.fail_after(5):
            await serve(app, path, connection)
        return connection.ended

    assert await every_await(path, middleware, told, once) >= 2


@paths
@middleware
async def test_sending_that_fails_at_any_await(path: str, middleware: bool, told: list[str]) -> None:
    async def breaks_if_sending(connection: Connection, where: str) -> None:
        connection.gone.set()
        if where == "send":
            raise OSError("the connection broke")

    async def once(app: Covet, at: int) -> bool:
        connection = Connection(REQUESTS[path][1], at, breaks_if_sending)
        with anyio.fail_after(5):
            await serve(app, path, connection)
        return connection.ended

    await every_await(path, middleware, told, once)


@paths
@middleware
async def test_receiving_that_fails_at_any_await_is_an_error_like_any_other(
    path: str, middleware: bool, told: list[str]
) -> None:
    """ASGI knows no error of receive, so one is answered or raised, but nothing is left behind."""

    async def breaks_if_receiving(connection: Connection, where: str) -> None:
        if where == "receive":
            raise ConnectionResetError("the connection broke")

    async def once(app: Covet, at: int) -> bool:
        connection = Connection(REQUESTS[path][1], at, breaks_if_receiving)
        with anyio.fail_after(5):
            try:
                await serve(app, path, connection)
            except* ConnectionResetError:
                pass
        told.clear()
        return connection.ended

    await every_await(path, middleware, told, once)


@paths
@middleware
async def test_cancellation_at_any_await_of_the_connection(path: str, middleware: bool, told: list[str]) -> None:
    async def once(app: Covet, at: int) -> bool:
        async with anyio.create_task_group() as tasks:

            async def cancel(connection: Connection, where: str) -> None:
                tasks.cancel_scope.cancel()
                await anyio.Event().wait()

            connection = Connection(REQUESTS[path][1], at, cancel)
            tasks.start_soon(serve, app, path, connection)
        assert tasks.cancel_scope.cancel_called is connection.ended
        assert not connection.complete() or not connection.ended
        return connection.ended

    await every_await(path, middleware, told, once)


@paths
@middleware
async def test_cancellation_at_any_step_of_the_event_loop(path: str, middleware: bool, told: list[str]) -> None:
    """Also where the application itself awaits something: a lock, a thread, a clean-up."""

    async def once(app: Covet, at: int) -> bool:
        async with anyio.create_task_group() as tasks:
            connection = Connection(REQUESTS[path][1], -1, leaves)
            done = False

            async def run() -> None:
                nonlocal done
                await serve(app, path, connection)
                done = True

            tasks.start_soon(run)
            # How many steps a thread takes depends on the machine; with the last one the request ends by itself.
            for _ in range(at) if at < 100 else count():
                await anyio.lowlevel.checkpoint()
                if done:
                    break
            ended = not done
            tasks.cancel_scope.cancel()
        return ended

    await every_await(path, middleware, told, once)


@paths
@middleware
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation_at_any_await_of_the_connection(path: str, middleware: bool, told: list[str]) -> None:
    """What uvicorn does at the end of its grace period: `Task.cancel`, which no scope knows of."""

    async def once(app: Covet, at: int) -> bool:
        async def cancel(connection: Connection, where: str) -> None:
            task.cancel()
            await asyncio.Event().wait()

        connection = Connection(REQUESTS[path][1], at, cancel)
        task = asyncio.ensure_future(serve(app, path, connection))
        done, _ = await asyncio.wait([task], timeout=5)
        assert done
        assert task.cancelled() is connection.ended
        return connection.ended

    await every_await(path, middleware, told, once)


@middleware
@pytest.mark.parametrize("kind", [Connection, Silent])
async def test_work_after_the_response_runs_when_the_client_leaves_while_it_is_sent(
    middleware: bool, kind: type[Connection], told: list[str]
) -> None:
    seen = Seen()
    app = make_app(seen, middleware=middleware)
    ran = []
    async with app.running():
        for at in range(20):
            connection = kind(REQUESTS["/after"][1], at, leaves)
            await serve(app, "/after", connection)
            while len(app.tasks):
                await anyio.lowlevel.checkpoint()
            ran.append(seen.after)
            seen.__init__()  # type: ignore[misc]
            if not connection.ended:
                break
    assert set(ran) <= {0, 1}
    assert ran == sorted(ran), "from the moment on in which there is a response"
    assert ran[-1] == 1
    assert ran[0] == 0


async def test_nothing_is_sent_after_the_client_has_left_an_event_stream_and_the_stream_ends() -> None:
    """An idle stream notices the disconnect, though it has nothing to send."""
    closed = anyio.Event()

    async def idle() -> AsyncIterator[str]:
        try:
            yield "first"
            await anyio.sleep_forever()
        finally:
            closed.set()

    app = Covet(installed_plugins=False)

    @app.get("/plain")
    async def events() -> Response:
        return EventSourceResponse(idle(), heartbeat=None)

    async with app.running(), anyio.create_task_group() as tasks:
        connection = Connection(b"", -1, leaves)
        tasks.start_soon(serve, app, "/plain", connection)
        with anyio.fail_after(5):
            while len(connection.sent) < 2:
                await anyio.lowlevel.checkpoint()
            connection.gone.set()
            await closed.wait()


async def test_a_request_that_is_over_is_not_kept_by_the_timer_for_bodies(told: list[str]) -> None:
    """A timer holds the context in which it was made, and that the request; it may ring half a minute later."""
    seen = Seen()
    app = make_app(seen)
    async with app.running():
        await serve(app, "/upload", Connection(REQUESTS["/upload"][1], -1, leaves))
        await check(seen, told)
        assert len(seen.files) == 1


async def test_a_stream_that_never_waits_notices_that_the_client_has_left() -> None:
    """uvicorn swallows what is sent to a client that has left, without waiting: then nothing in the loop ever does.

    A generator without end would stop the whole server.
    """
    pieces = 0
    gone = anyio.Event()

    async def source() -> AsyncIterator[bytes]:
        nonlocal pieces
        for _ in range(100_000):
            pieces += 1
            yield b"x"

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if pieces == 10:
            gone.set()

    app = Covet(installed_plugins=False)

    @app.get("/plain")
    async def stream() -> Response:
        return StreamingResponse(source())

    async with app.running():
        await app(scope_of("/plain", "GET", b"", b""), receive, send)
    assert 10 <= pieces < 100_000


@middleware
async def test_an_oserror_of_the_applications_own_is_no_client_that_left(middleware: bool, told: list[str]) -> None:
    """A disk that fails while a response is streamed is logged or raised, as any other error there."""
    seen = Seen()
    app = make_app(seen, middleware=middleware)

    async def source() -> AsyncIterator[bytes]:
        yield b"x"
        raise PermissionError("the disk said no")

    @app.get("/broken")
    async def broken() -> Response:
        return StreamingResponse(source())

    connection = Connection(b"", -1, leaves)
    async with app.running():
        try:
            await app(scope_of("/broken", "GET", b"", b""), connection.receive, connection.send)
        except (PermissionError, CovetError) as error:
            told.append(str(error))
    assert not connection.complete(), "a broken response must not look like a whole one"
    assert "the disk said no" in "".join(told)
