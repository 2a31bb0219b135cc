"""Streams and server-sent events: pieces, disconnects, cancellation, shutdown, and what is closed when."""

# ruff: noqa: ASYNC110, ASYNC240 - what is waited for happens in threads and other processes

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import (
    Covet,
    CovetError,
    EventSourceResponse,
    Header,
    Request,
    Response,
    ServerSentEvent,
    StreamingResponse,
)
from covet.lifespan import begin_drain
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


def make_app(**settings: Any) -> Covet:
    return Covet(settings, installed_plugins=False)


class Wire:
    """A server with one client.

    Args:
        app: the application.
        method, body: the request's; the body comes in these messages.
        leave_at: the client leaves when this many messages have been sent to it.
        tells: whether `send` raises when the client has left, as ASGI 2.4 says; many servers only tell in `receive`.
        stall_at: `send` does not return any more from this message on: the client does not read.
    """

    def __init__(
        self,
        app: Any,
        *,
        method: str = "GET",
        body: Sequence[bytes] = (b"",),
        leave_at: int | None = None,
        tells: bool = True,
        stall_at: int | None = None,
    ) -> None:
        self.app = app
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "headers": [(b"host", b"localhost")],
            "client": None, "server": None, "extensions": {},
        }  # fmt: skip
        self.pieces = list(body)
        self.leave_at, self.tells, self.stall_at = leave_at, tells, stall_at
        self.sent: list[dict[str, Any]] = []
        self.left = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.pieces and not self.left.is_set():
            await anyio.lowlevel.checkpoint()
            return {"type": "http.request", "body": self.pieces.pop(0), "more_body": bool(self.pieces)}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.left.is_set():
            if self.tells:
                raise OSError("the client has left")
            return
        self.sent.append(message)
        if len(self.sent) == self.stall_at:
            await anyio.sleep_forever()
        if len(self.sent) == self.leave_at or (message["type"].endswith("body") and not message.get("more_body")):
            self.left.set()

    async def run(self) -> Wire:
        with anyio.fail_after(20):
            await self.app(self.scope, self.receive, self.send)
        return self

    @property
    def content(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)


class Log(list[str]):
    """What a stream did."""

    async def numbers(self, count: int = 3, *, wait_after: int | None = None) -> AsyncIterator[str]:
        """Count, with an await between the pieces; wait for ever after one of them."""
        self.append("begun")
        try:
            for number in range(count):
                await anyio.lowlevel.checkpoint()
                yield f"{number} "
                if number == wait_after:
                    await anyio.sleep_forever()
            self.append("finished")
        finally:
            self.append("closed")


def streaming(make: Callable[[], Any]) -> Covet:
    """An application that answers with what `make` gives."""
    app = make_app()

    @app.route("/", ["GET", "POST"])
    async def show() -> Response:
        response: Response = make()
        return response

    return app


# Pieces


async def test_pieces_are_sent_as_they_come() -> None:
    log = Log()
    wire = await Wire(streaming(lambda: StreamingResponse(log.numbers(), 201, {"x-a": "b"}, "text/plain"))).run()
    assert [message.get("body") for message in wire.sent] == [None, b"0 ", b"1 ", b"2 ", b""]
    assert [message.get("more_body", False) for message in wire.sent] == [False, True, True, True, False]
    assert wire.sent[0]["status"] == 201
    assert dict(wire.sent[0]["headers"]) == {b"x-a": b"b", b"content-type": b"text/plain"}
    assert log == ["begun", "finished", "closed"]


async def test_every_kind_of_piece_and_none_that_is_empty() -> None:
    async def pieces() -> AsyncIterator[Any]:
        for piece in (b"a", "é", b"", "", bytearray(b"b"), memoryview(b"c")):
            yield piece

    wire = await Wire(streaming(lambda: StreamingResponse(pieces()))).run()
    assert [message["body"] for message in wire.sent[1:]] == [b"a", "é".encode(), b"b", b"c", b""]
    assert all(type(message["body"]) is bytes for message in wire.sent[1:])


@pytest.mark.parametrize("piece", [5, None, ["a"]])
async def test_a_piece_of_another_kind_breaks_the_response_off(piece: Any) -> None:
    app = streaming(lambda: StreamingResponse(iter([b"a", piece])))
    wire = Wire(app)
    with pytest.raises(TypeError, match="bytes or text, not of"):
        await wire.run()
    assert not wire.complete
    assert wire.content == b"a"


@pytest.mark.parametrize("stream", ["text", b"bytes", bytearray(b"x")])
def test_one_string_is_no_stream(stream: Any) -> None:
    with pytest.raises(TypeError, match="take a Response"):
        StreamingResponse(stream)


def test_a_function_is_no_stream_until_it_is_called() -> None:
    for make in (StreamingResponse, EventSourceResponse):
        with pytest.raises(TypeError, match="when it is called"):
            make(Log().numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 304)])
@pytest.mark.parametrize("kind", [StreamingResponse, EventSourceResponse])
async def test_where_there_is_no_content_the_stream_is_closed_unread(kind: Any, method: str, status: int) -> None:
    class Events(Log):
        def __aiter__(self) -> AsyncIterator[str]:
            return self.numbers()

        async def aclose(self) -> None:
            self.append("closed")

    events = Events()
    wire = await Wire(streaming(lambda: kind(events, status)), method=method).run()
    assert [message["type"] for message in wire.sent] == ["http.response.start", "http.response.body"]
    assert (wire.sent[0]["status"], wire.content) == (status, b"")
    assert events == ["closed"]


async def test_a_stream_that_fails_is_closed_and_breaks_off() -> None:
    log: list[str] = []

    async def failing() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            raise RuntimeError("in the middle")
        finally:
            log.append("closed")

    wire = Wire(streaming(lambda: StreamingResponse(failing())))
    with pytest.raises(RuntimeError, match="in the middle"):
        await wire.run()
    assert (wire.content, wire.complete, log) == (b"a", False, ["closed"])


async def test_an_oserror_of_the_stream_is_not_taken_for_a_client_that_left() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"a"
        raise FileNotFoundError("the stream's own")

    plain = streaming(lambda: StreamingResponse(failing()))
    wrapped = streaming(lambda: StreamingResponse(failing()))

    @wrapped.middleware()
    async def passing(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    for app in (plain, wrapped):
        with pytest.raises(CovetError, match="failed while it was sent: FileNotFoundError: the stream's own"):
            await Wire(app).run()


# Plain iterables


async def test_a_plain_iterable_is_advanced_and_closed_in_threads() -> None:
    threads: set[int] = set()
    log: list[str] = []

    def pieces() -> Iterator[bytes]:
        try:
            for piece in (b"a", b"b"):
                threads.add(threading.get_ident())
                time.sleep(0.001)
                yield piece
        finally:
            threads.add(threading.get_ident())
            log.append("closed")

    wire = await Wire(streaming(lambda: StreamingResponse(pieces()))).run()
    assert wire.content == b"ab"
    assert threading.get_ident() not in threads
    assert log == ["closed"]


async def test_a_plain_generator_is_closed_when_the_client_leaves() -> None:
    log: list[str] = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            log.append("closed")

    for tells in (True, False):
        await Wire(streaming(lambda: StreamingResponse(endless())), leave_at=3, tells=tells).run()
    assert log == ["closed", "closed"]


async def test_a_file_is_a_stream_and_is_closed(tmp_path: Any) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n")
    for method, content in (("GET", b"one\ntwo\n"), ("HEAD", b"")):
        file = path.open("rb")
        wire = await Wire(streaming(lambda file=file: StreamingResponse(file)), method=method).run()
        assert (wire.content, file.closed) == (content, True)


async def test_a_plain_list_has_nothing_to_close() -> None:
    assert (await Wire(streaming(lambda: StreamingResponse(["a", b"b"]))).run()).content == b"ab"


async def test_a_generator_whose_stopiteration_comes_out_of_a_thread() -> None:
    assert (await Wire(streaming(lambda: StreamingResponse(iter(())))).run()).content == b""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_from_outside_waits_for_the_thread_to_close() -> None:
    """asyncio's own cancellation does not wait for threads: the generator still runs when it is to be closed."""
    entered, go_on = threading.Event(), threading.Event()
    log: list[str] = []

    def slow() -> Iterator[bytes]:
        try:
            entered.set()
            go_on.wait(20)
            yield b"x"
        finally:
            log.append("closed")

    task = asyncio.get_running_loop().create_task(Wire(streaming(lambda: StreamingResponse(slow()))).run())
    while not entered.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.01)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["closed"]


# Disconnects


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("leave_at", range(6))
@pytest.mark.parametrize("kind", [StreamingResponse, EventSourceResponse])
async def test_a_client_may_leave_at_every_message(kind: Any, leave_at: int, tells: bool) -> None:
    log = Log()
    wire = Wire(streaming(lambda: kind(log.numbers(100, wait_after=10))), leave_at=leave_at or None, tells=tells)
    if not leave_at:
        wire.left.set()
    await wire.run()
    assert not wire.complete
    assert len(wire.sent) == leave_at
    assert "finished" not in log
    # Before the first message, nothing was begun, and there is nothing to close.
    assert log in ([], ["begun", "closed"])
    if leave_at > 1:
        assert log == ["begun", "closed"]


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("wait_after", range(3))
@pytest.mark.parametrize("kind", [StreamingResponse, EventSourceResponse])
async def test_a_stream_that_waits_is_cancelled_when_the_client_leaves(kind: Any, wait_after: int, tells: bool) -> None:
    log = Log()
    await Wire(streaming(lambda: kind(log.numbers(wait_after=wait_after))), leave_at=wait_after + 2, tells=tells).run()
    assert log == ["begun", "closed"]


async def test_a_client_that_leaves_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    done: list[str] = []
    app = make_app()

    @app.get("/")
    async def show(request: Request) -> Response:
        request.after(done.append, "after")
        return StreamingResponse(Log().numbers(wait_after=0))

    async with app.running():
        await Wire(app, leave_at=2, tells=False).run()
    assert done == ["after"], "what was to be done after the response is done"
    assert caplog.records == []


@pytest.mark.parametrize("kind", [StreamingResponse, EventSourceResponse])
async def test_the_client_of_the_testing_package_leaves(kind: Any) -> None:
    log = Log()
    async with TestClient(streaming(lambda: kind(log.numbers(wait_after=1)))) as client:
        async with client.stream("GET", "/") as response:
            assert response.status_code == 200
            while not log:
                await anyio.lowlevel.checkpoint()
        assert log == ["begun", "closed"]


@pytest.mark.parametrize("kind", [StreamingResponse, EventSourceResponse])
@pytest.mark.parametrize("stall_at", [1, 2, 4])
async def test_a_request_may_be_cancelled_at_every_message(kind: Any, stall_at: int) -> None:
    """Also where the client does not read."""
    log = Log()
    wire = Wire(streaming(lambda: kind(log.numbers())), stall_at=stall_at)
    async with anyio.create_task_group() as group:
        group.start_soon(wire.run)
        while len(wire.sent) < stall_at:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert log[-1:] == ([] if stall_at == 1 else ["closed"])


async def test_cleaning_up_may_wait_in_a_shield() -> None:
    log: list[str] = []

    async def careful() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
                log.append("cleaned up")

    await Wire(streaming(lambda: StreamingResponse(careful())), leave_at=2).run()
    assert log == ["cleaned up"]


async def test_a_stream_may_have_a_task_group_of_its_own() -> None:
    """Scopes nest: they are left in the task and the order in which they were entered."""

    async def grouped() -> AsyncIterator[bytes]:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            yield b"a"
            yield b"b"
            group.cancel_scope.cancel()

    for kind in (StreamingResponse, EventSourceResponse):
        assert (await Wire(streaming(lambda kind=kind: kind(grouped()))).run()).complete
        try:
            await Wire(streaming(lambda kind=kind: kind(grouped())), leave_at=2).run()
        except BaseExceptionGroup as group:
            # A generator closed between its pieces sees GeneratorExit inside of its own group: its own affair.
            assert group.subgroup(RuntimeError) is None  # noqa: PT017


async def test_context_variables_of_the_request_are_seen_by_the_stream() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="nothing")
    app = make_app()

    @app.middleware()
    async def set_it(request: Request, call_next: Any) -> Response:
        seen.set("the middleware's")
        response: Response = await call_next(request)
        return response

    @app.get("/")
    async def show() -> Response:
        async def stream() -> AsyncIterator[str]:
            yield seen.get()

        return StreamingResponse(stream())

    assert (await Wire(app).run()).content == b"the middleware's"


# The request's body, while the response goes out


@pytest.mark.parametrize("kind", [StreamingResponse, EventSourceResponse])
async def test_a_stream_may_read_the_request_meanwhile(kind: Any) -> None:
    """Looking out for a disconnect must not take the body away from its reader."""
    pieces = [b"a", b"b", b"", b"c"]
    app = make_app()

    @app.post("/")
    async def echo(request: Request) -> Response:
        async def read() -> AsyncIterator[str]:
            await anyio.sleep(0.005)
            async for piece in request.stream():
                yield piece.decode()
                await anyio.sleep(0.001)

        return kind(read())

    content = (await Wire(app, method="POST", body=pieces).run()).content
    assert content in (b"abc", b"data: a\n\ndata: b\n\ndata: c\n\n")


async def test_a_body_that_nobody_reads_is_not_collected() -> None:
    wire = Wire(streaming(lambda: StreamingResponse(Log().numbers(30))), method="POST", body=[b"x"] * 1000)
    assert (await wire.run()).complete
    assert len(wire.pieces) == 999, "one message is kept, the others stay where they are"


async def test_a_stream_that_was_begun_before_may_be_read_on() -> None:
    app = make_app()

    @app.post("/")
    async def echo(request: Request) -> Response:
        stream = request.stream()
        first = await anext(stream)

        async def rest() -> AsyncIterator[bytes]:
            yield first
            async for piece in stream:
                await anyio.sleep(0.002)
                yield piece

        return StreamingResponse(rest())

    assert (await Wire(app, method="POST", body=[b"a", b"b", b"c"]).run()).content == b"abc"
    await Wire(app, method="POST", body=[b"a", b"b", b"c"], leave_at=2).run()


async def test_a_body_that_was_read_is_no_hindrance() -> None:
    log = Log()
    app = make_app()

    @app.post("/")
    async def show(request: Request) -> Response:
        assert await request.body() == b"ab"
        return StreamingResponse(log.numbers(wait_after=0))

    await Wire(app, method="POST", body=[b"a", b"b"], leave_at=2, tells=False).run()
    assert log == ["begun", "closed"]


async def test_a_stream_may_wait_for_the_disconnect_itself() -> None:
    log: list[str] = []
    app = make_app()

    @app.post("/")
    async def show(request: Request) -> Response:
        async def stream() -> AsyncIterator[bytes]:
            yield b"a"
            try:
                await request.disconnected()
                log.append("told")
            finally:
                log.append("closed")

        return StreamingResponse(stream())

    await Wire(app, method="POST", body=[b"a", b"b"], leave_at=2, tells=False).run()
    assert log[-1] == "closed"
    log.clear()
    # It goes on to the end of the body and is answered there.
    wire = Wire(app, method="POST", body=[b"a", b"b"])
    async with anyio.create_task_group() as group:
        group.start_soon(wire.run)
        await anyio.wait_all_tasks_blocked()
        assert wire.pieces == []
        wire.left.set()
    assert log[-1] == "closed"


async def test_who_asks_after_the_client_has_left_is_told_at_once() -> None:
    log: list[str] = []
    app = make_app()

    @app.get("/")
    async def show(request: Request) -> Response:
        async def stream() -> AsyncIterator[bytes]:
            try:
                yield b"a"
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await request.disconnected()
                log.append("told")

        request.after(request.disconnected)
        return StreamingResponse(stream())

    async with app.running():
        await Wire(app, leave_at=2, tells=False).run()
    assert log == ["told"]


async def test_what_is_received_after_the_response_comes_from_the_server() -> None:
    app = make_app()
    log: list[str] = []

    async def read(request: Request) -> None:
        log.append((await request.body()).decode())

    @app.post("/")
    async def show(request: Request) -> Response:
        request.after(read, request)
        return StreamingResponse(["sent"])

    async with app.running():
        wire = Wire(app, method="POST", body=[b"late ", b"body"])
        # Nothing of the request has come when the response is complete.
        late = wire.receive
        complete = anyio.Event()

        async def receive() -> dict[str, Any]:
            await complete.wait()
            wire.left = anyio.Event()
            return await late()

        wire.receive = receive  # type: ignore[method-assign]
        await wire.run()
        complete.set()
    assert log == ["late body"]


# Server-sent events


def parse(data: bytes) -> list[dict[str, Any]]:
    """Read an event stream as section 9.2.6 of the HTML standard says, with a `retry` or `comment` as an entry too."""
    text = data.decode()
    lines: list[str] = []
    line = ""
    index = 0
    while index < len(text):
        if text[index] in "\r\n":
            index += text[index : index + 2] == "\r\n"
            lines.append(line)
            line = ""
        else:
            line += text[index]
        index += 1
    found: list[dict[str, Any]] = []
    buffer, kind, last = "", "", ""
    for line in lines:
        if not line:
            if buffer:
                found.append({"data": buffer[:-1], "event": kind or "message", "id": last})
            buffer, kind = "", ""
            continue
        field, colon, value = line.partition(":")
        if colon and not field:
            found.append({"comment": value.removeprefix(" ")})
            continue
        value = value.removeprefix(" ")
        if field == "data":
            buffer += value + "\n"
        elif field == "event":
            kind = value
        elif field == "id" and "\0" not in value:
            last = value
        elif field == "retry" and value.isascii() and value.isdigit():
            found.append({"retry": int(value)})
    return found


async def sse(*events: Any, **options: Any) -> list[dict[str, Any]]:
    async def source() -> AsyncIterator[Any]:
        for event in events:
            yield event

    return parse((await Wire(streaming(lambda: EventSourceResponse(source(), **options))).run()).content)


@pytest.mark.parametrize(
    ("event", "encoded"),
    [
        (ServerSentEvent("a"), b"data: a\n\n"),
        (ServerSentEvent(""), b"data: \n\n"),
        (ServerSentEvent("a\nb\r\nc\rd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (ServerSentEvent("a\x0bb\x85c\u2028d"), "data: a\x0bb\x85c\u2028d\n\n".encode()),
        (ServerSentEvent("\0"), b"data: \0\n\n"),
        (ServerSentEvent({"a": ["b\n"]}), b'data: {"a":["b\\n"]}\n\n'),
        (ServerSentEvent(0), b"data: 0\n\n"),
        (ServerSentEvent("x", event="e", id="7", retry=5), b"event: e\nid: 7\nretry: 5\ndata: x\n\n"),
        (ServerSentEvent(event="ping"), b"event: ping\ndata:\n\n"),
        (ServerSentEvent(id=""), b"id: \n\n"),
        (ServerSentEvent(comment="a\nevent: b\r\rc"), b": a\n: event: b\n: \n: c\n\n"),
        (ServerSentEvent(retry=0), b"retry: 0\n\n"),
    ],
)
def test_an_event_on_the_wire(event: ServerSentEvent, encoded: bytes) -> None:
    assert event.encode() == encoded


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\r\nb", "a\0b", "\n"])
@pytest.mark.parametrize("field", ["event", "id"])
def test_no_field_can_be_put_into_another(field: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"an event's {field} cannot hold a line break or NUL"):
        ServerSentEvent("x", **{field: text})  # type: ignore[arg-type]


def test_the_time_to_reconnect_is_a_number() -> None:
    with pytest.raises(ValueError, match="not negative"):
        ServerSentEvent(retry=-1)
    for retry in (1.5, True, "5"):
        with pytest.raises(TypeError, match="whole number of milliseconds"):
            ServerSentEvent(retry=retry)  # type: ignore[arg-type]


TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n:\0 \u2028"), max_size=12)
FIELD = TEXT.map(lambda text: text.translate({10: None, 13: None, 0: None}))


@given(
    st.lists(
        st.tuples(
            TEXT | st.none(), FIELD | st.none(), FIELD | st.none(), st.integers(0, 10**6) | st.none(), TEXT | st.none()
        )
    )
)
def test_a_client_reads_what_was_sent(events: list[tuple[Any, ...]]) -> None:
    encoded = b""
    expected: list[dict[str, Any]] = []
    last = ""
    for data, kind, id, retry, comment in events:
        encoded += ServerSentEvent(data, event=kind, id=id, retry=retry, comment=comment).encode()
        lines = [None if text is None else text.replace("\r\n", "\n").replace("\r", "\n") for text in (data, comment)]
        if lines[1] is not None:
            expected += [{"comment": line} for line in lines[1].split("\n")]
        last = last if id is None else id
        if retry is not None:
            expected.append({"retry": retry})
        if lines[0] is not None or kind is not None:
            expected.append({"data": lines[0] or "", "event": kind or "message", "id": last})
    assert parse(encoded) == expected


async def test_what_an_iterator_of_events_may_give() -> None:
    events = await sse("text", {"a": 1}, ServerSentEvent([1], event="list", id="5"), 7, retry=3000)
    assert events == [
        {"retry": 3000},
        {"data": "text", "event": "message", "id": ""},
        {"data": '{"a":1}', "event": "message", "id": ""},
        {"data": "[1]", "event": "list", "id": "5"},
        {"data": "7", "event": "message", "id": "5"},
    ]


async def test_the_headers_of_an_event_stream() -> None:
    wire = await Wire(streaming(lambda: EventSourceResponse(iter("a")))).run()
    assert dict(wire.sent[0]["headers"]) == {
        b"content-type": b"text/event-stream",
        b"cache-control": b"no-store",
        b"x-accel-buffering": b"no",
    }
    own = {"cache-control": "no-cache"}
    wire = await Wire(streaming(lambda: EventSourceResponse(iter("a"), headers=own))).run()
    assert dict(wire.sent[0]["headers"])[b"cache-control"] == b"no-cache"


async def test_a_plain_iterator_of_events_runs_in_threads() -> None:
    threads: list[int] = []

    def events() -> Iterator[Any]:
        threads.append(threading.get_ident())
        yield ServerSentEvent("a", id="1")
        yield "b"

    wire = await Wire(streaming(lambda: EventSourceResponse(events()))).run()
    assert [event["data"] for event in parse(wire.content)] == ["a", "b"]
    assert threads
    assert threading.get_ident() not in threads


async def test_silence_is_filled_with_comments_and_loses_no_event() -> None:
    async def slow() -> AsyncIterator[str]:
        for number in range(4):
            await anyio.sleep(0.02)
            yield str(number)

    wire = await Wire(streaming(lambda: EventSourceResponse(slow(), heartbeat=0.003))).run()
    found = parse(wire.content)
    assert [event["data"] for event in found if "data" in event] == ["0", "1", "2", "3"]
    assert {"comment": ""} in found
    assert b"".join(sorted(message["body"] for message in wire.sent[1:])).count(b":\n\n") == found.count(
        {"comment": ""}
    )


async def test_without_heartbeat_there_are_no_comments() -> None:
    async def slow() -> AsyncIterator[str]:
        await anyio.sleep(0.01)
        yield "a"

    wire = await Wire(streaming(lambda: EventSourceResponse(slow(), heartbeat=None))).run()
    assert wire.content == b"data: a\n\n"


async def test_an_iterator_of_events_that_fails_breaks_the_stream_off() -> None:
    log: list[str] = []

    async def failing() -> AsyncIterator[str]:
        try:
            yield "a"
            raise RuntimeError("no more events")
        finally:
            log.append("closed")

    wire = Wire(streaming(lambda: EventSourceResponse(failing())))
    with pytest.raises(RuntimeError, match="no more events"):
        await wire.run()
    assert (wire.content, wire.complete, log) == (b"data: a\n\n", False, ["closed"])


async def test_an_event_that_cannot_be_encoded_breaks_the_stream_off() -> None:
    wire = Wire(streaming(lambda: EventSourceResponse(iter(["a", object()]))))
    with pytest.raises(TypeError):
        await wire.run()
    assert not wire.complete


async def test_a_client_that_reconnects_says_where_it_was() -> None:
    app = make_app()

    @app.get("/")
    async def show(last_event_id: Annotated[int, Header()] = 0) -> EventSourceResponse:
        async def events() -> AsyncIterator[ServerSentEvent]:
            for number in range(last_event_id + 1, last_event_id + 3):
                yield ServerSentEvent(number, id=str(number))

        return EventSourceResponse(events(), retry=10)

    async with TestClient(app) as client:
        first = parse((await client.get("/")).content)
        assert [event["id"] for event in first[1:]] == ["1", "2"]
        again = parse((await client.get("/", headers={"last-event-id": first[-1]["id"]})).content)
        assert [json.loads(event["data"]) for event in again[1:]] == [3, 4]


# Shutdown (uvicorn 1140, sse-starlette 73, 74, 124: open event streams held it up)


async def test_event_streams_end_when_the_application_drains() -> None:
    log = Log()
    app = streaming(lambda: EventSourceResponse(log.numbers(wait_after=0)))
    async with app.running():
        wire = Wire(app)
        async with anyio.create_task_group() as group:
            group.start_soon(wire.run)
            while len(wire.sent) < 2:
                await anyio.lowlevel.checkpoint()
            await begin_drain(app)
        assert wire.complete, "the response ends well, and the browser connects to another worker"
        assert log == ["begun", "closed"]
        late = await Wire(streaming(lambda: EventSourceResponse(iter("a")))).run()
        assert late.complete


async def test_an_event_stream_that_begins_while_draining_ends_at_once() -> None:
    log = Log()
    app = streaming(lambda: EventSourceResponse(log.numbers(wait_after=0)))
    async with app.running():
        await begin_drain(app)
        assert (await Wire(app).run()).complete


async def test_a_stream_may_choose_to_outlast_the_drain() -> None:
    app = make_app()

    @app.get("/")
    async def show() -> Response:
        async def events() -> AsyncIterator[str]:
            yield "first"
            await app.drain.wait()
            yield "last words"

        return EventSourceResponse(events(), close_on_drain=False)

    async with app.running():
        wire = Wire(app)
        async with anyio.create_task_group() as group:
            group.start_soon(wire.run)
            await anyio.wait_all_tasks_blocked()
            await begin_drain(app)
    assert [event["data"] for event in parse(wire.content)] == ["first", "last words"]


async def test_a_client_that_does_not_read_does_not_hold_up_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covet.streaming.CLOSING_TIME", 0.01)
    log = Log()
    app = streaming(lambda: EventSourceResponse(log.numbers(100)))
    async with app.running():
        wire = Wire(app, stall_at=3)

        async def send(message: dict[str, Any]) -> None:
            if len(wire.sent) >= 3:
                await anyio.sleep_forever()
            await Wire.send(wire, message)

        async with anyio.create_task_group() as group:

            async def run() -> None:
                with anyio.fail_after(20):
                    await app(wire.scope, wire.receive, send)

            group.start_soon(run)
            while len(wire.sent) < 3:
                await anyio.lowlevel.checkpoint()
            await begin_drain(app)
    assert log == ["begun", "closed"]


SERVED = """
from pathlib import Path

import anyio

from covet import Covet, EventSourceResponse, StreamingResponse

app = Covet({}, installed_plugins=False)


@app.get("/{kind}")
async def show(kind: str):
    async def stream():
        try:
            yield "first"
            await anyio.sleep_forever()
        finally:
            Path(kind).touch()

    return {"events": EventSourceResponse, "plain": StreamingResponse}.get(kind, str)(stream())
"""


@pytest.mark.parametrize("server", ["granian", "uvicorn"])
async def test_disconnects_and_shutdown_over_a_socket(tmp_path: Path, server: str) -> None:
    """Neither server tells in `send` that the client has left, and both wait for open streams when they stop."""
    (tmp_path / "served.py").write_text(SERVED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    options = ["--interface", "asgi"] if server == "granian" else []
    command = [sys.executable, "-m", server, *options, "--host", "127.0.0.1", "--port", port, "served:app"]
    with (tmp_path / "log").open("wb") as log:
        process = await anyio.open_process(command, cwd=tmp_path, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            with anyio.fail_after(60):
                while not await listening(client):
                    assert process.returncode is None, (tmp_path / "log").read_text()
                    await anyio.sleep(0.05)
            with anyio.fail_after(30):
                for kind in ("plain", "events"):
                    async with client.stream("GET", f"/{kind}") as response:
                        assert response.status_code == 200
                    await exists(tmp_path / kind)
                    (tmp_path / kind).unlink()
                async with client.stream("GET", "/events") as response:
                    process.terminate()
                    assert (await response.aread()).startswith(b"data: first\n\n")
                await exists(tmp_path / "events")
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def listening(client: httpx.AsyncClient) -> bool:
    try:
        await client.get("/else/where", timeout=5)
    except httpx.ConnectError:
        return False
    return True


async def exists(path: Path) -> None:
    while not path.exists():
        await anyio.sleep(0.01)
