"""The builtin plugin compression: what is compressed and what is not, what the headers say then, streams and files."""

from __future__ import annotations

import gc
import gzip
import io
import logging
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import (
    Covet,
    EventSourceResponse,
    FileResponse,
    HTMLResponse,
    HTTPError,
    Request,
    Response,
    ServerSentEvent,
    StreamingResponse,
)
from covet.builtin.compression import Uncompressed, bodies, codings, uncompressed
from covet.builtin.compression.codings import decoder, encoder, one_shot
from covet.builtin.compression.types import COMPRESSIBLE, TypeSet
from covet.endpoints import response_source
from covet.routing import Route
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await

pytestmark = pytest.mark.anyio

TEXT = "".join(f"line {number} of many that are much alike\n" for number in range(200))
DATA = TEXT.encode()
BOTH = pytest.mark.parametrize("coding", ["gzip", "zstd"])


def make_app(**settings: Any) -> Covet:
    return plugin_sandbox("compression", settings={"plugins": {"compression": settings}})


def decoded(coding: str | None, data: bytes) -> bytes:
    """What a client makes of a body. For the eyes of others, see the tests with servers."""
    if coding is None:
        return data
    if coding == "gzip":
        return gzip.decompress(data)
    found = b""
    while data:
        codec = decoder(coding)
        found += codec.inflate(data, 2**31 - 1)
        assert codec.eof
        data = codec.unused
    return found


class Got:
    """A response as it came over the wire."""

    def __init__(self, status: int, headers: Any, chunks: list[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.chunks = chunks
        self.raw = b"".join(chunks)

    @property
    def coding(self) -> str | None:
        coding: str | None = self.headers.get("content-encoding")
        return coding

    @property
    def body(self) -> bytes:
        return decoded(self.coding, self.raw)


async def get(
    client: TestClient, path: str, accept: str | None, method: str = "GET", headers: dict[str, str] | None = None
) -> Got:
    client.headers.pop("accept-encoding", None)
    sent = dict(headers or {})
    if accept is not None:
        sent["accept-encoding"] = accept
    async with client.stream(method, path, headers=sent) as response:
        chunks = [chunk async for chunk in response.aiter_raw()]
    return Got(response.status_code, response.headers, chunks)


async def answer(response: Callable[[], Response], accept: str | None, **options: Any) -> Got:
    """What an application with this one response sends."""
    app = make_app(**options.pop("settings", {}))

    @app.get("/")
    async def index() -> Response:
        return response()

    async with TestClient(app, raise_errors=False) as client:
        return await get(client, "/", accept, **options)


# Whole bodies


@BOTH
async def test_text_json_and_pages_are_compressed(coding: str) -> None:
    app = make_app()

    @app.get("/text")
    async def text() -> str:
        return TEXT

    @app.get("/json")
    async def json() -> list[int]:
        return list(range(1000))

    @app.get("/page")
    async def page() -> HTMLResponse:
        return HTMLResponse(TEXT)

    @app.get("/error")
    async def error() -> None:
        raise HTTPError(409, TEXT)

    async with TestClient(app) as client:
        for path in ("/text", "/json", "/page", "/error"):
            plain, got = await get(client, path, None), await get(client, path, coding)
            assert (got.coding, got.headers["vary"]) == (coding, "Accept-Encoding")
            assert int(got.headers["content-length"]) == len(got.raw) < len(plain.raw)
            assert plain.coding is None
            assert plain.headers["vary"] == "Accept-Encoding"
            if path != "/error":
                assert got.body == plain.raw
            assert got.headers["content-type"] == plain.headers["content-type"]


async def test_the_favourite_is_taken_unless_the_client_has_another() -> None:
    for accept, coding in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("br", None),
        ("identity;q=0", None),
        ("gzip;q=0", None),
    ]:
        got = await answer(lambda: Response(TEXT), accept)
        assert (got.coding, got.body, got.headers["vary"]) == (coding, DATA, "Accept-Encoding")
    got = await answer(lambda: Response(TEXT), "gzip, zstd", settings={"codings": ["gzip", "zstd"]})
    assert got.coding == "gzip"
    got = await answer(lambda: Response(TEXT), "gzip, zstd", settings={"codings": ["gzip"]})
    assert got.coding == "gzip"
    got = await answer(lambda: Response(TEXT), "gzip, zstd", settings={"codings": []})
    assert (got.coding, "vary" in got.headers) == (None, False)


async def test_several_lines_of_the_header_are_one() -> None:
    app = make_app()

    @app.get("/")
    async def index() -> str:
        return TEXT

    async with TestClient(app) as client:
        client.headers.pop("accept-encoding")
        lines = [("accept-encoding", "br"), ("accept-encoding", "gzip")]
        async with client.stream("GET", "/", headers=lines) as response:
            assert response.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Response(TEXT[:1023]),
        lambda: Response(DATA, content_type="image/png"),
        lambda: Response(DATA, content_type="video/mp4"),
        lambda: Response(DATA, content_type="application/zip"),
        lambda: Response(DATA, content_type="font/woff2"),
        lambda: Response(DATA, content_type="application/octet-stream"),
        lambda: Response(DATA),
        lambda: Response(TEXT, headers={"content-encoding": "br"}),
        lambda: Response(TEXT, headers={"cache-control": "public, No-Transform"}),
        lambda: Response(TEXT, headers=[("cache-control", "no-transform"), ("cache-control", "public")]),
        lambda: Response(TEXT, headers={"content-digest": "sha-256=:x:"}),
        lambda: Response(TEXT, headers={"repr-digest": "sha-256=:x:"}),
        lambda: Response(TEXT, headers={"digest": "sha-256=x"}),
        lambda: Response(TEXT, headers={"content-md5": "x"}),
        lambda: Response(TEXT, 416, headers={"content-range": "bytes */7"}),
        lambda: Response(TEXT, 200, headers={"content-range": "bytes 0-6/7"}),
        lambda: Response(status=204),
        lambda: Response("", headers={"content-type": "text/plain"}),
        lambda: StreamingResponse([DATA], content_type="image/png"),
        lambda: StreamingResponse([DATA]),
        lambda: StreamingResponse([b"x" * 100], headers={"content-length": "100"}, content_type="text/plain"),
    ],
)
async def test_what_is_never_compressed_is_sent_as_it_is(make: Callable[[], Response]) -> None:
    plain, got = await answer(make, None), await answer(make, "gzip, zstd")
    assert got.raw == plain.raw
    assert dict(got.headers) == dict(plain.headers)
    assert "vary" not in got.headers


async def test_a_body_that_does_not_become_smaller_is_sent_as_it_is() -> None:
    noise = os.urandom(4000)
    got = await answer(lambda: Response(noise, content_type="text/plain"), "gzip")
    assert (got.coding, got.raw, got.headers["vary"]) == (None, noise, "Accept-Encoding")
    assert got.headers["content-length"] == "4000"


async def test_the_settings_say_what_is_small_and_what_types_there_are() -> None:
    settings = {"min_bytes": 10, "types": ["image/*", "*+zip"]}
    assert (await answer(lambda: Response(b"x" * 40, content_type="image/png"), "gzip", settings=settings)).coding
    assert (await answer(lambda: Response(b"x" * 40, content_type="a/epub+zip"), "gzip", settings=settings)).coding
    assert not (await answer(lambda: Response(b"x" * 9, content_type="image/png"), "gzip", settings=settings)).coding
    assert not (await answer(lambda: Response(TEXT), "gzip", settings=settings)).coding
    got = await answer(lambda: Response(b"", content_type="text/plain"), "gzip", settings={"min_bytes": 0})
    assert (got.coding, got.raw) == (None, b"")


@pytest.mark.parametrize(
    "settings",
    [
        {"types": ["text"]},
        {"types": ["Text/html"]},
        {"types": ["*/*"]},
        {"codings": ["gzip", "gzip"]},
        {"codings": ["br"]},
        {"gzip_level": 10},
        {"zstd_level": 20},
        {"min_bytes": -1},
    ],
)
async def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    from covet import CovetError

    with pytest.raises(CovetError, match="compression"):
        make_app(**settings).build()


def test_the_types() -> None:
    types = TypeSet(COMPRESSIBLE)
    for worth in (
        b"text/html; charset=utf-8", b"TEXT/CSS", b"application/json", b"application/problem+json", b"image/svg+xml",
        b"application/wasm", b"font/ttf", b" text/event-stream ;x",
    ):  # fmt: skip
        assert worth in types
    for not_worth in (b"image/png", b"font/woff2", b"application/gzip", b"", b"+json", b"text", b"application/jsonx"):
        assert not_worth not in types


@given(st.binary(max_size=60))
def test_any_content_type_is_looked_up(value: bytes) -> None:
    assert (value in TypeSet(COMPRESSIBLE)) in (True, False)


async def test_the_etag_is_weak_where_the_body_is_compressed() -> None:
    for tag, weak in (('"a"', 'W/"a"'), ('W/"a"', 'W/"a"')):
        got = await answer(lambda tag=tag: Response(TEXT, headers={"etag": tag}), "gzip")  # type: ignore[misc]
        assert got.headers["etag"] == weak
        got = await answer(lambda tag=tag: Response(TEXT, headers={"etag": tag}), None)  # type: ignore[misc]
        assert got.headers["etag"] == tag


@pytest.mark.parametrize(
    ("vary", "then"),
    [
        ("Cookie", "Cookie, Accept-Encoding"),
        ("accept-encoding", "accept-encoding"),
        ("Cookie, Accept-Encoding", "Cookie, Accept-Encoding"),
        ("*", "*"),
    ],
)
async def test_vary_is_added_to_what_there_is(vary: str, then: str) -> None:
    for accept in (None, "gzip", "br"):
        got = await answer(lambda: HTMLResponse(TEXT, headers={"vary": vary}), accept)
        assert got.headers.get_list("vary") == [then]


async def test_a_response_object_that_is_returned_again_is_compressed_once() -> None:
    kept = HTMLResponse(TEXT)
    app = make_app()

    @app.get("/")
    async def index() -> Response:
        return kept

    async with TestClient(app) as client:
        for accept in ("gzip", "zstd", None, "gzip"):
            got = await get(client, "/", accept)
            assert (got.coding, got.body) == (accept, DATA)
            assert got.headers.get_list("vary") == ["Accept-Encoding"]


@BOTH
async def test_head_has_the_headers_of_get(coding: str, tmp_path: Path) -> None:
    app = make_app()
    (tmp_path / "small.txt").write_bytes(DATA)
    (tmp_path / "large.txt").write_bytes(DATA * 100)

    @app.get("/text")
    async def text() -> str:
        return TEXT

    @app.get("/file")
    async def file(name: str) -> FileResponse:
        return FileResponse(tmp_path / name)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse([DATA], content_type="text/plain")

    async with TestClient(app) as client:
        for path in ("/text", "/file?name=small.txt", "/file?name=large.txt", "/stream"):
            full, head = await get(client, path, coding), await get(client, path, coding, "HEAD")
            assert head.raw == b""
            expected = dict(full.headers)
            if path != "/text":
                # Known only once the body is compressed.
                expected.pop("content-length", None)
            assert dict(head.headers) == expected
            assert head.coding == coding


@BOTH
async def test_nothing_of_a_body_is_sent_to_head(coding: str) -> None:
    app = make_app()

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse([DATA], content_type="text/plain")

    app.build()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope_of(coding) | {"method": "HEAD"}, anyio.sleep_forever, send)
    assert dict(sent[0]["headers"])[b"content-encoding"] == coding.encode()
    assert b"".join(message["body"] for message in sent[1:]) == b""


async def test_head_that_says_nothing_of_a_body_is_left_alone() -> None:
    app = make_app()

    @app.route("/", ["HEAD"])
    async def index() -> Response:
        return Response(headers={"content-type": "text/plain"})

    async with TestClient(app) as client:
        got = await get(client, "/", "gzip", "HEAD")
        assert (got.coding, got.headers["content-length"]) == (None, "0")


# Routes that are not compressed


async def test_a_marked_route_is_never_compressed_and_pays_nothing() -> None:
    app = make_app()

    @app.get("/secret")
    @uncompressed
    async def secret() -> HTMLResponse:
        return HTMLResponse(TEXT)

    async def quiet() -> str:
        return TEXT

    app.add(Route("/marked", quiet, marks=[Uncompressed()]))

    @app.get("/other")
    async def other() -> str:
        return TEXT

    async with TestClient(app) as client:
        for path in ("/secret", "/marked"):
            got = await get(client, path, "gzip, zstd")
            assert (got.coding, got.raw, "vary" in got.headers) == (None, DATA, False)
        assert (await get(client, "/other", "gzip")).coding == "gzip"
    routes = app.built.tables["GET"].static
    assert "transformed0" not in response_source(routes["/marked"])
    assert "transformed0" in response_source(routes["/other"])


async def test_an_unused_plugin_puts_nothing_around_a_request() -> None:
    app = make_app()
    assert app.built.pipeline.empty
    assert not app.built.outer


# Streams


class Gate:
    """A stream that goes on when it is told to."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.open = anyio.Event()
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            for piece in self.pieces:
                await self.open.wait()
                self.open = anyio.Event()
                yield piece
        finally:
            self.closed = True


def inflating(coding: str) -> Callable[[bytes], bytes]:
    codec = decoder(coding)
    return lambda data: codec.inflate(data, 2**31 - 1)


@BOTH
@pytest.mark.parametrize("events", [False, True])
async def test_headers_come_at_once_and_each_piece_when_it_is_made(coding: str, events: bool) -> None:
    gate = Gate("first", "second", "third")
    app = make_app()

    @app.get("/")
    async def stream() -> StreamingResponse:
        if events:
            return EventSourceResponse(gate, heartbeat=None)
        return StreamingResponse(gate, content_type="text/plain")

    async with (
        TestClient(app) as client,
        client.stream("GET", "/", headers={"accept-encoding": coding}) as response,
    ):
        # The headers are here, and no piece was made.
        assert response.headers["content-encoding"] == coding
        assert "content-length" not in response.headers
        assert response.headers["vary"] == "Accept-Encoding"
        chunks = response.aiter_raw()
        inflate = inflating(coding)
        for piece in ("first", "second", "third"):
            gate.open.set()
            text = inflate(await anext(chunks)).decode()
            assert text == (f"data: {piece}\n\n" if events else piece)
        assert [inflate(chunk) async for chunk in chunks] == [b""]
    assert gate.closed


@BOTH
async def test_a_heartbeat_is_flushed_too(coding: str) -> None:
    gate = Gate("never")
    app = make_app()

    @app.get("/")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(gate, heartbeat=0.001)

    async with (
        TestClient(app) as client,
        client.stream("GET", "/", headers={"accept-encoding": coding}) as response,
    ):
        inflate = inflating(coding)
        async with aclosing(response.aiter_raw()) as chunks:  # type: ignore[type-var]
            assert [inflate(await anext(chunks)) for _ in range(3)] == [b":\n\n"] * 3


@BOTH
@given(pieces=st.lists(st.binary(max_size=300), max_size=8), repeat=st.integers(1, 400))
def test_any_body_in_any_pieces_is_decoded_to_what_it_was(coding: str, pieces: list[bytes], repeat: int) -> None:
    pieces = [piece * repeat for piece in pieces]
    whole = b"".join(pieces)
    assert decoded(coding, one_shot(coding, 3, whole)) == whole
    for small in (False, True):
        codec = encoder(coding, 3, small=small)
        inflate = inflating(coding)
        for piece in pieces:
            assert inflate(codec.compress(piece) + codec.flush()) == piece
        assert inflate(codec.finish()) == b""
    codec = encoder(coding, 3, size=len(whole))
    assert decoded(coding, b"".join([*map(codec.compress, pieces), codec.finish()])) == whole


@BOTH
@pytest.mark.parametrize("size", [0, 1, 1024, 128 * 1024 + 1, 5_000_000])
async def test_streams_and_bodies_of_every_size(coding: str, size: int) -> None:
    """Small ones on the event loop, larger ones in a thread, the largest in slices."""
    data = (DATA * (size // len(DATA) + 1))[:size]
    for make in (
        lambda: Response(data, content_type="text/plain"),
        lambda: StreamingResponse([data], content_type="text/plain"),
        lambda: StreamingResponse([data[:7], b"", data[7:]], content_type="text/plain"),
    ):
        got = await answer(make, coding)
        assert got.body == data
        assert got.coding == (None if size < 1024 and "content-length" in got.headers else coding)


async def test_an_empty_stream_is_a_valid_body() -> None:
    for coding in ("gzip", "zstd"):
        got = await answer(lambda: StreamingResponse([], content_type="text/plain"), coding)
        assert (got.coding, got.body) == (coding, b"")


async def test_a_stream_loses_its_length() -> None:
    headers = {"content-length": str(len(DATA))}
    got = await answer(lambda: StreamingResponse([DATA], headers=headers, content_type="text/plain"), "gzip")
    assert ("content-length" in got.headers, got.body) == (False, DATA)


async def test_a_response_that_sends_other_headers_than_it_shows() -> None:
    class Own(Response):
        __slots__ = ("sent", "sent_status")

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": self.sent_status, "headers": self.sent})
            await send({"type": "http.response.body", "body": DATA})

    def own(status: int, *sent: tuple[bytes, bytes]) -> Own:
        response = Own(b"", content_type="text/plain")
        response.sent, response.sent_status = list(sent), status
        return response

    kind = (b"Content-Type", b"text/plain")
    got = await answer(lambda: own(200, kind, (b"ETag", b'"x"'), (b"content-length", b"%d" % len(DATA))), "gzip")
    assert (got.coding, got.body, got.headers["etag"]) == ("gzip", DATA, 'W/"x"')
    for status, *sent in (
        (200, kind, (b"content-encoding", b"br")),
        (206, kind, (b"content-range", b"bytes 0-9/9000")),
        (200, (b"content-type", b"image/png")),
    ):
        got = await answer(lambda status=status, sent=sent: own(status, *sent), "gzip")  # type: ignore[misc]
        assert got.coding in (None, "br")
        assert got.raw == DATA


async def test_what_a_mounted_application_compressed_stays_as_it_is() -> None:
    inner = make_app()

    @inner.get("/")
    async def text() -> str:
        return TEXT

    app = make_app()
    app.mount("/sub", inner)

    @app.middleware()
    async def around(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    async with TestClient(app) as client:
        got = await get(client, "/sub/", "gzip")
        assert (got.coding, got.body) == ("gzip", DATA)


async def test_middleware_sees_the_plain_body() -> None:
    app = make_app()
    seen = []

    @app.middleware(band="edge")
    async def look(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        seen.append((response.body, "content-encoding" in response.headers))
        return response

    @app.get("/")
    async def index(request: Request) -> str:
        request.on_response(lambda request, response: seen.append((response.body, False)))
        return TEXT

    async with TestClient(app) as client:
        assert (await get(client, "/", "gzip")).body == DATA
    assert seen == [(DATA, False)] * 2


# Files


@pytest.fixture(params=["small", "large"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that is sent whole, and one that is sent in pieces."""
    path = tmp_path / "file.txt"
    path.write_bytes(DATA if request.param == "small" else DATA * 100)
    return path


def serving(path: Path, **options: Any) -> Covet:
    app = make_app()

    @app.get("/")
    async def index() -> FileResponse:
        return FileResponse(path, **options)

    return app


@BOTH
async def test_files_are_compressed_and_conditions_hold_by_the_weak_tag(file: Path, coding: str) -> None:
    async with TestClient(serving(file)) as client:
        plain, got = await get(client, "/", None), await get(client, "/", coding)
        assert got.coding == coding
        assert got.body == plain.raw
        assert got.headers["etag"] == "W/" + plain.headers["etag"]
        assert plain.headers["accept-ranges"] == "bytes"
        assert "accept-ranges" not in got.headers
        assert plain.headers["vary"] == got.headers["vary"] == "Accept-Encoding"
        # Each client is told the tag that it has.
        for tag in (got.headers["etag"], plain.headers["etag"]):
            for accept in (coding, None):
                unchanged = await get(client, "/", accept, headers={"if-none-match": tag})
                assert (unchanged.status, unchanged.raw) == (304, b"")
                assert unchanged.headers["etag"] == tag
                assert unchanged.headers["vary"] == "Accept-Encoding"
                assert "content-encoding" not in unchanged.headers
        both = await get(
            client, "/", coding, headers={"if-none-match": f"{got.headers['etag']}, {plain.headers['etag']}"}
        )
        assert both.headers["etag"] == plain.headers["etag"]
        changed = await get(client, "/", coding, headers={"if-none-match": 'W/"other"'})
        assert (changed.status, changed.coding) == (200, coding)


@BOTH
async def test_a_range_is_of_the_plain_content(file: Path, coding: str) -> None:
    async with TestClient(serving(file)) as client:
        plain = await get(client, "/", None)
        part = await get(client, "/", coding, headers={"range": "bytes=100-4099"})
        assert (part.status, part.coding, part.raw) == (206, None, plain.raw[100:4100])
        assert part.headers["etag"] == plain.headers["etag"]
        # As 200 would say it (RFC 9110 section 15.3.7), also for a part that is small.
        tiny = await get(client, "/", coding, headers={"range": "bytes=1-2"})
        assert part.headers["vary"] == tiny.headers["vary"] == "Accept-Encoding"
        # A weak tag names no bytes: the whole is sent, compressed.
        weak = await get(client, "/", coding, headers={"range": "bytes=1-2", "if-range": f"W/{plain.headers['etag']}"})
        assert (weak.status, weak.coding, weak.body) == (200, coding, plain.raw)
        beyond = await get(client, "/", coding, headers={"range": "bytes=99999999-"})
        assert (beyond.status, beyond.coding) == (416, None)


async def test_a_part_of_what_is_small_or_no_text_says_nothing(tmp_path: Path) -> None:
    for name, content in (("small.txt", b"x" * 500), ("picture.png", DATA)):
        (tmp_path / name).write_bytes(content)
        async with TestClient(serving(tmp_path / name)) as client:
            got = await get(client, "/", "gzip", headers={"range": "bytes=1-2"})
            assert (got.status, "vary" in got.headers) == (206, False)


async def test_a_file_that_the_server_sends_itself_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(DATA * 100)
    app = serving(path, pathsend=True)
    app.build()
    sent: list[Any] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = scope_of("gzip") | {"extensions": {"http.response.pathsend": {}}}
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.pathsend"]
    assert b"content-encoding" not in dict(sent[0]["headers"])


# What goes wrong


def scope_of(accept: str) -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"accept-encoding", accept.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip


def open_files(path: Path) -> int:
    gc.collect()
    descriptors = Path("/proc/self/fd")
    return sum(1 for fd in descriptors.iterdir() if fd.is_symlink() and fd.readlink() == path)


@BOTH
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it counts the open files in /proc")
async def test_cancellation_at_any_await_leaves_no_file_open(coding: str, tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(DATA * 100)
    app = serving(path)
    app.build()
    sent: list[Any] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        sent.append(message)

    async def call() -> None:
        sent.clear()
        await app(scope_of(coding), receive, send)

    async def check() -> None:
        # A thread that was left to itself closes the file when it has read.
        with anyio.fail_after(20):
            while open_files(path):  # noqa: ASYNC110 - the system tells nobody
                await anyio.sleep(0.001)

    assert await at_every_await(call, check) > 5
    assert decoded(coding, b"".join(message.get("body", b"") for message in sent)) == path.read_bytes()


@BOTH
async def test_a_client_that_leaves_ends_the_stream(coding: str, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate("first", "second")
    app = make_app()

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(gate, content_type="text/plain")

    app.build()
    left = anyio.Event()

    async def receive() -> Any:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            left.set()

    gate.open.set()
    with anyio.fail_after(20):
        await app(scope_of(coding), receive, send)
    assert gate.closed
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@BOTH
@pytest.mark.parametrize("size", [2000, 3_000_000])
async def test_a_connection_that_breaks_is_nobody_s_error(
    coding: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    closed = []

    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * size
        finally:
            closed.append(True)

    app = make_app()

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces(), content_type="text/plain")

    app.build()
    count = 0

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError("gone")

    with anyio.fail_after(20):
        await app(scope_of(coding), receive, send)
    assert closed
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@BOTH
async def test_a_stream_that_fails_is_not_passed_off_as_complete(coding: str) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "first"
        raise RuntimeError("broken")

    app = make_app()

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces(), content_type="text/plain")

    app.build()
    sent: list[Any] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(RuntimeError, match="broken"):
        await app(scope_of(coding), receive, send)
    codec = decoder(coding)
    assert codec.inflate(b"".join(message.get("body", b"") for message in sent), 100) == b"first"
    assert not codec.eof
    assert sent[-1]["more_body"]


@BOTH
async def test_a_large_body_does_not_hold_up_the_event_loop(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is large is given to a thread, in slices: the loop compresses nothing of it itself."""
    import threading

    loop = threading.get_ident()
    done: list[tuple[int, bool]] = []
    compress = bodies._compress

    def watched(codec: Any, data: bytes, ending: str) -> bytes:
        done.append((len(data), threading.get_ident() == loop))
        return compress(codec, data, ending)

    monkeypatch.setattr(bodies, "_compress", watched)
    data = DATA * 700
    assert len(data) > 2 * bodies.SLICE
    most = bodies.in_place(coding, {"gzip": 4, "zstd": 3}[coding])
    assert most <= 2**20
    for make in (
        lambda: Response(data, content_type="text/plain"),
        lambda: StreamingResponse([data], content_type="text/plain"),
    ):
        done.clear()
        assert (await answer(make, coding)).body == data
        assert all(size <= most for size, on_loop in done if on_loop)
        assert max(size for size, _ in done) == bodies.SLICE


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_long_stream_takes_constant_memory(coding: str) -> None:
    import tracemalloc

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(2000):
            yield b"%d" % number * 2000

    app = make_app()

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces(), content_type="text/plain")

    app.build()
    size = 0

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        nonlocal size
        size += len(message.get("body", b""))
        if size and not tracemalloc.is_tracing():
            tracemalloc.start()

    try:
        await app(scope_of(coding), receive, send)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# Without zstd


async def test_without_zstd_there_is_gzip_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(import_module("covet.builtin.compression"), "has_zstd", lambda: False)
    caplog.set_level(logging.INFO, "covet.compression")
    got = await answer(lambda: Response(TEXT), "zstd, gzip")
    assert (got.coding, got.body) == ("gzip", DATA)
    messages = [record.getMessage() for record in caplog.records if record.name == "covet.compression"]
    assert len(messages) == 1
    assert "covet-core[zstd]" in messages[0]


def test_zstd_is_not_imported_before_it_is_used() -> None:
    import subprocess
    import sys

    code = (
        "import sys, covet; from covet.testing import plugin_sandbox; plugin_sandbox('compression').build(); "
        "print([name for name in sys.modules if 'zstd' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gzip_has_neither_name_nor_time() -> None:
    """The same body gives the same bytes, and says nothing of the machine (RFC 1952 section 2.3)."""
    compressed = one_shot("gzip", 4, DATA)
    assert compressed[3] == 0
    assert compressed[4:8] == bytes(4)
    assert gzip.GzipFile(fileobj=io.BytesIO(compressed)).read() == DATA
    assert zlib.decompress(compressed, 31) == DATA


def test_windows_are_no_larger_than_browsers_take() -> None:
    """RFC 9659 section 3: 8 MB."""
    for level in (-7, 3, 19):
        codec = encoder("zstd", level)
        data = codec.compress(os.urandom(2**20)) + codec.flush()
        limited = codings.decoder("zstd")
        assert len(limited.inflate(data, 2**21)) == 2**20


async def test_a_server_sent_event_may_hold_anything() -> None:
    events = [ServerSentEvent({"a": 1}, event="x"), "plain", "ü" * 5000]
    got = await answer(lambda: EventSourceResponse(events, heartbeat=None), "zstd")
    plain = await answer(lambda: EventSourceResponse(events, heartbeat=None), None)
    assert (got.coding, plain.coding) == ("zstd", None)
    assert got.body == plain.raw
