"""The builtin plugin compression, request bodies: inflated while received, within limits, and what is wrong refused."""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import Body, Covet, Form, HTTPError, Limits, Request, StreamingResponse, UploadFile
from covet.builtin.compression.codings import decoder, encoder, one_shot
from covet.builtin.compression.requests import OVERHEAD, PIECE, InflatedRequests
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await

pytestmark = pytest.mark.anyio

VALUES = list(range(20_000))
DATA = json.dumps(VALUES).encode()
CODINGS = ("gzip", "zstd")
BOTH = pytest.mark.parametrize("coding", CODINGS)


@dataclass
class Point:
    x: int
    y: int


def make_app(*, requests: bool = True, limits: dict[str, Any] | None = None) -> Covet:
    app = plugin_sandbox(
        "compression", settings={"plugins": {"compression": {"requests": requests}}, "limits": limits or {}}
    )

    @app.post("/json")
    async def take(values: Annotated[list[int], Body()]) -> int:
        return sum(values)

    @app.post("/point")
    async def point(point: Point) -> int:
        return point.x + point.y

    @app.post("/bytes")
    async def take_bytes(request: Request) -> int:
        assert request.content_length is None or "content-encoding" in request.headers or not request.headers
        return len(await request.body())

    @app.post("/stream")
    async def take_stream(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    @app.post("/large", limits=Limits(max_body=2**30))
    async def take_large(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    @app.post("/form")
    async def form(name: Annotated[str, Form()], file: UploadFile) -> list[Any]:
        return [name, len(file.file.read())]

    @app.post("/ignored")
    async def ignored() -> str:
        return "ignored"

    @app.post("/streamed")
    async def streamed() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            for number in range(3):
                await anyio.sleep(0.001)
                yield str(number)

        return StreamingResponse(pieces())

    @app.get("/headers")
    async def headers(request: Request) -> list[str]:
        return sorted(request.headers)

    return app


def compressed(coding: str, data: bytes) -> bytes:
    return one_shot(coding, 3, data)


async def post(path: str, coding: str | None, content: Any, app: Covet | None = None, **headers: str) -> Any:
    async with TestClient(app or make_app(), raise_errors=False) as client:
        sent = {"content-type": "application/json", **headers}
        if coding is not None:
            sent["content-encoding"] = coding
        return await client.post(path, content=content, headers=sent)


@BOTH
async def test_every_kind_of_handler_gets_the_body_inflated(coding: str) -> None:
    app = make_app()
    boundary = "xyz"
    form = (
        (
            f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\nann\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        ).encode()
        + DATA
        + f"\r\n--{boundary}--\r\n".encode()
    )
    async with TestClient(app) as client:
        for path, body, kind, expected in (
            ("/json", DATA, "application/json", sum(VALUES)),
            ("/point", b'{"x": 1, "y": 2}', "application/json", 3),
            ("/bytes", DATA, "application/octet-stream", len(DATA)),
            ("/stream", DATA, "application/octet-stream", len(DATA)),
            ("/form", form, f"multipart/form-data; boundary={boundary}", ["ann", len(DATA)]),
        ):
            headers = {"content-type": kind, "content-encoding": coding}
            got = await client.post(path, content=compressed(coding, body), headers=headers)
            assert (got.status_code, got.json()) == (200, expected), path

            async def chunks(body: bytes = body) -> AsyncIterator[bytes]:
                data = compressed(coding, body)
                for start in range(0, len(data), 7):
                    yield data[start : start + 7]

            got = await client.post(path, content=chunks(), headers=headers)
            assert (got.status_code, got.json()) == (200, expected), path


@BOTH
async def test_several_members_or_frames_are_one_body(coding: str) -> None:
    content = b"".join(compressed(coding, part) for part in (DATA[:10], b"", DATA[10:5000], DATA[5000:]))
    assert (await post("/json", coding, content)).json() == sum(VALUES)


async def test_names_are_read_without_case_and_identity_is_nothing() -> None:
    assert (await post("/json", "GZip", compressed("gzip", DATA))).json() == sum(VALUES)
    assert (await post("/json", "x-gzip", compressed("gzip", DATA))).json() == sum(VALUES)
    assert (await post("/json", "identity", DATA)).json() == sum(VALUES)
    assert (await post("/json", "", DATA)).json() == sum(VALUES)
    assert (await post("/json", None, DATA)).json() == sum(VALUES)


async def test_the_headers_of_what_came_are_gone() -> None:
    async with TestClient(make_app()) as client:
        headers = {"content-encoding": "gzip", "content-length": "0", "x-other": "1"}
        got = (await client.get("/headers", headers=headers)).json()
        assert "x-other" in got
        assert not {"content-encoding", "content-length"} & set(got)


@pytest.mark.parametrize(
    "coding", ["br", "deflate", "x-zstd", "gzip, gzip", "gzip, zstd", "identity, gzip", "a" * 5000]
)
@pytest.mark.parametrize("path", ["/json", "/bytes", "/stream"])
async def test_another_coding_is_refused_and_the_answer_says_what_there_is(coding: str, path: str) -> None:
    got = await post(path, coding, b"x")
    assert got.status_code == 415
    assert got.headers["accept-encoding"] == "zstd, gzip"


async def test_two_lines_of_content_encoding_are_two_codings() -> None:
    async with TestClient(make_app()) as client:
        lines = [("content-encoding", "gzip"), ("content-encoding", "gzip"), ("content-type", "application/json")]
        assert (await client.post("/json", content=gzip.compress(DATA), headers=lines)).status_code == 415


async def test_by_default_nothing_is_inflated_and_nothing_stands_around_a_request() -> None:
    app = make_app(requests=False)
    got = await post("/bytes", "gzip", compressed("gzip", DATA), app)
    assert got.json() == len(compressed("gzip", DATA))
    assert not app.built.outer
    assert make_app().built.pipeline.empty


# What is wrong with a body


def damaged(coding: str) -> list[bytes]:
    whole = compressed(coding, DATA)
    codec = encoder(coding, 3)
    unfinished = codec.compress(DATA) + codec.flush()
    return [
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:3],
        unfinished,
        whole + b"trailing",
        whole + bytes(8),
        whole + whole[:20],
        b"plain text",
        DATA,
        compressed("gzip" if coding == "zstd" else "zstd", DATA),
        zlib.compress(DATA),
    ]


@BOTH
@pytest.mark.parametrize("number", range(11))
@pytest.mark.parametrize("path", ["/json", "/bytes", "/stream"])
async def test_a_damaged_body_is_refused(coding: str, number: int, path: str) -> None:
    got = await post(path, coding, damaged(coding)[number])
    assert got.status_code == 400
    assert f"not valid {coding}" in got.json()["detail"]


async def test_a_wrong_check_is_found() -> None:
    whole = bytearray(compressed("gzip", DATA))
    whole[-6] ^= 1
    assert (await post("/json", "gzip", bytes(whole))).status_code == 400
    from importlib import import_module

    zstd = import_module("covet.builtin.compression.codings")._zstd()
    option = zstd.CompressionParameter
    checked = bytearray(zstd.compress(DATA, options={option.checksum_flag: 1}))
    assert (await post("/json", "zstd", bytes(checked))).json() == sum(VALUES)
    checked[-1] ^= 1
    assert (await post("/json", "zstd", bytes(checked))).status_code == 400


@BOTH
async def test_no_body_at_all_is_no_body(coding: str) -> None:
    assert (await post("/bytes", coding, b"")).json() == 0


# Bombs


def served_by(coding: str, chunks: AsyncIterator[bytes]) -> tuple[Any, Any]:
    """The ASGI scope and receive of a request whose body comes from an iterator."""

    async def receive() -> Any:
        try:
            return {"type": "http.request", "body": await anext(chunks), "more_body": True}
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/bytes", "raw_path": b"/bytes", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-encoding", coding.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    return scope, receive


@BOTH
@pytest.mark.parametrize("path", ["/json", "/bytes", "/stream"])
async def test_a_bomb_is_refused_and_never_inflated(coding: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte in a megabyte, or in 100 kilobytes: no more is inflated than the limit and a piece."""
    from covet.builtin.compression import codings

    codec = encoder(coding, 3)
    zeros = bytes(2**20)
    bomb = b"".join([*(codec.compress(zeros) for _ in range(1024)), codec.finish()])
    assert len(bomb) < 5_000_000
    inflated = 0
    for class_ in (codings._GzipDecoder, codings._ZstdDecoder):
        original: Callable[..., bytes] = class_.inflate

        def counted(self: Any, data: bytes, limit: int, original: Callable[..., bytes] = original) -> bytes:
            nonlocal inflated
            piece = original(self, data, limit)
            inflated += len(piece)
            assert len(piece) <= PIECE
            return piece

        monkeypatch.setattr(class_, "inflate", counted)
    got = await post(path, coding, bomb, make_app(limits={"max_body": 2**20}))
    assert got.status_code == 413
    assert 2**20 < inflated <= 2**20 + PIECE


@BOTH
async def test_a_stream_of_a_bomb_takes_constant_memory(coding: str) -> None:
    """Who allows a gigabyte gets one, a piece at a time."""
    import tracemalloc

    codec = encoder(coding, 3)
    bomb = b"".join([*(codec.compress(bytes(2**20)) for _ in range(256)), codec.finish()])
    app = make_app()
    async with TestClient(app) as client:
        tracemalloc.start()
        try:
            got = await client.post("/large", content=bomb, headers={"content-encoding": coding})
            assert got.json() == 256 * 2**20
            assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
        finally:
            tracemalloc.stop()


async def test_a_window_larger_than_http_allows_is_refused() -> None:
    """A frame of a few bytes may ask for gigabytes of memory (RFC 9659 section 3)."""
    from importlib import import_module

    zstd = import_module("covet.builtin.compression.codings")._zstd()
    option = zstd.CompressionParameter
    for log, status in ((23, 200), (24, 400), (27, 400)):
        codec = zstd.ZstdCompressor(options={option.window_log: log})
        content = codec.compress(b"x" * 100, codec.FLUSH_BLOCK) + codec.flush()
        assert (await post("/bytes", "zstd", content)).status_code == status


async def test_what_holds_next_to_nothing_is_refused() -> None:
    empty = gzip.compress(b"")
    skipped = b"\x50\x2a\x4d\x18" + (10_000_000).to_bytes(4, "little") + bytes(10_000_000)
    for coding, content in (("gzip", empty * 100_000), ("zstd", skipped), ("gzip", gzip.compress(b"x") * 50_000)):
        got = await post("/large", coding, content)
        assert got.status_code == 413
        assert "hardly holds anything" in got.json()["detail"]
    few = empty * 100 + gzip.compress(b"x")
    assert len(few) < OVERHEAD
    assert (await post("/large", "gzip", few)).json() == 1


@BOTH
async def test_what_is_flushed_byte_by_byte_is_no_bomb(coding: str) -> None:
    codec = encoder(coding, 3)
    content = b"".join([*(codec.compress(b"%d" % (n % 10)) + codec.flush() for n in range(60_000)), codec.finish()])
    assert len(content) > OVERHEAD
    assert (await post("/large", coding, content)).json() == 60_000


@BOTH
async def test_a_client_that_sends_too_slowly_is_timed_out(coding: str) -> None:
    app = make_app(limits={"body_timeout": 0.05})
    data = compressed(coding, os.urandom(1000))

    async def slow() -> AsyncIterator[bytes]:
        for byte in data:
            yield bytes([byte])
            await anyio.sleep(0.02)

    with anyio.fail_after(20):
        assert (await post("/bytes", coding, slow(), app)).status_code == 408


# Who does not read


@pytest.mark.parametrize(("coding", "content"), [("br", b"x"), ("gzip", b"no gzip"), ("gzip", gzip.compress(DATA))])
async def test_whoever_does_not_read_the_body_is_not_disturbed(
    coding: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "covet.compression")
    assert (await post("/ignored", coding, content)).text == "ignored"
    # While it is sent, somebody looks out for the client's leaving, and gets what there is of the body.
    assert (await post("/streamed", coding, content)).text == "012"
    assert (await post("/missing", coding, content)).status_code == 404


@BOTH
async def test_a_client_that_leaves_is_heard(coding: str) -> None:
    app = make_app()
    app.build()
    data = compressed(coding, os.urandom(1000))

    async def leaving() -> AsyncIterator[bytes]:
        yield data[:100]

    scope, first = served_by(coding, leaving())
    count = 0
    sent: list[Any] = []

    async def receive() -> Any:
        nonlocal count
        count += 1
        return await first() if count == 1 else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    with anyio.fail_after(20):
        await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert count == 2


@BOTH
async def test_cancellation_at_any_await(coding: str) -> None:
    app = make_app()
    app.build()
    data = compressed(coding, os.urandom(3000))
    sent: list[Any] = []

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 500):
            await anyio.lowlevel.checkpoint()
            yield data[start : start + 500]

    async def send(message: Any) -> None:
        sent.append(message)

    async def call() -> None:
        sent.clear()
        scope, receive = served_by(coding, chunks())
        await app(scope, receive, send)

    async def check() -> None:
        """Nothing is held: a body that is given up is garbage."""

    assert await at_every_await(call, check) > 5
    assert sent[-1]["body"] == b"3000"


async def test_others_run_while_a_large_body_is_inflated() -> None:
    """The server need not wait for anything, and still the event loop is given back."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async def one() -> AsyncIterator[bytes]:
        yield gzip.compress(bytes(100 * PIECE))

    scope, receive = served_by("gzip", one())
    inside: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["more_body"]:
            inside.append(len(message["body"]))

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await InflatedRequests(app, codings=CODINGS)(scope, receive, None)
        group.cancel_scope.cancel()
    assert sum(inside) >= 99 * PIECE
    assert turns >= 10


async def test_other_connections_pass() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    made = InflatedRequests(app, codings=CODINGS)
    for scope in (
        {"type": "websocket", "headers": [(b"content-encoding", b"gzip")]},
        {"type": "lifespan"},
        {"type": "http", "headers": [(b"host", b"x")]},
    ):
        await made(scope, "receive", "send")
        assert seen.pop() == (scope, "receive", "send")
        assert not seen


async def inflate_all(coding: str, messages: list[tuple[bytes, bool]]) -> bytes:
    """What an application inside gets of a body that came in these messages."""
    found: list[bytes] = []

    async def receive() -> Any:
        data, more = messages.pop(0)
        return {"type": "http.request", "body": data, "more_body": more}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            assert len(message["body"]) <= PIECE
            found.append(message["body"])
            more = message["more_body"]

    scope = {"type": "http", "headers": [(b"content-encoding", coding.encode())]}
    await InflatedRequests(app, codings=CODINGS)(scope, receive, None)
    return b"".join(found)


@BOTH
@given(
    parts=st.lists(st.tuples(st.binary(max_size=50), st.integers(1, 4000)), max_size=4),
    size=st.integers(1, 3000),
    early=st.booleans(),
)
def test_any_body_in_any_messages(coding: str, parts: list[tuple[bytes, int]], size: int, early: bool) -> None:
    members = [part * times for part, times in parts]
    content = b"".join(compressed(coding, member) for member in members)
    pieces = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
    messages = [(piece, True) for piece in pieces]
    if early:
        messages[-1] = (messages[-1][0], False)
    else:
        messages.append((b"", False))
    assert anyio.run(inflate_all, coding, messages) == b"".join(members)


@BOTH
@given(part=st.binary(min_size=1, max_size=5), times=st.integers(1, 600), limit=st.integers(1, 300))
def test_a_decoder_that_says_it_needs_more_has_given_all(coding: str, part: bytes, times: int, limit: int) -> None:
    """Of what was flushed too: who streams waits for it."""
    sent, codec = encoder(coding, 3), decoder(coding)
    for data, expected in (
        (sent.compress(part * times) + sent.flush(), part * times),
        (sent.compress(part) + sent.flush(), part),
        (sent.finish(), b""),
    ):
        found = b""
        while data or not (codec.hungry or codec.eof):
            taken, data = (data[:7], data[7:]) if codec.hungry else (b"", data)
            piece = codec.inflate(taken, limit)
            assert len(piece) <= limit
            found += piece
        assert found == expected
    assert (codec.eof, codec.unused) == (True, b"")


@BOTH
@given(content=st.binary(max_size=400), cut=st.integers(0, 400), noise=st.binary(max_size=30))
def test_anything_is_a_body_or_refused(coding: str, content: bytes, cut: int, noise: bytes) -> None:
    whole = compressed(coding, content)
    assert anyio.run(outcome, coding, whole) == content
    for data in (content, whole[:cut] + noise + whole[cut:]):
        found = anyio.run(outcome, coding, data)
        assert found in (400, 413) or isinstance(found, bytes)
    if len(whole) > cut > 0:
        assert anyio.run(outcome, coding, whole[:cut]) == 400


async def outcome(coding: str, data: bytes) -> bytes | int:
    """The body inflated, or the status of the refusal."""
    try:
        return await inflate_all(coding, [(data, False)])
    except HTTPError as error:
        return error.status
