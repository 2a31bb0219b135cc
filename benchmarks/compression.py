"""Compression: its throughput beside the codec itself, the first byte of a stream, and what it costs who uses none.

Everything happens in this process, without sockets: the applications of Covet, Starlette (`GZipMiddleware`) and
Litestar (`CompressionConfig`) are called with prepared scopes, in interleaved rounds, at the same level.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import msgspec
from litestar import Litestar, MediaType, get
from litestar.config.compression import CompressionConfig
from litestar.response import Response as LitestarResponse
from litestar.response import Stream
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.responses import Response as StarletteResponse
from starlette.responses import StreamingResponse as StarletteStream
from starlette.routing import Route

from benchmarks import evidence
from benchmarks.http import request, running
from benchmarks.payload import ROWS
from covet import Covet, Response, StreamingResponse
from covet.builtin.compression.codings import decoder, encoder, has_zstd, one_shot
from covet.testing import plugin_sandbox

LEVELS = {"gzip": 4, "zstd": 3}
PAUSE = 0.05
"""Seconds between the first piece of a stream and the second."""

MEGABYTE = msgspec.json.encode(
    [
        {
            "id": number,
            "name": f"user {number}",
            "email": f"user{number}@example.org",
            "score": number * 7919 % 10007 / 7,
            "tags": ["new", "paying"][: number % 3],
            "active": number % 3 == 0,
        }
        for number in range(10_000)
    ]
)[: 2**20]
"""A megabyte that looks like what services send."""

ABOUT = f"""
Each ASGI application is called in this process with prepared scopes, without sockets, in {{rounds}} interleaved rounds.
gzip has level {LEVELS["gzip"]} everywhere, and zstd level {LEVELS["zstd"]}. The codec itself is called with the same
bytes in the same rounds: zlib, and Python's module for zstd or its backport.
"""


# The applications


def covet_app(*plugins: str) -> Covet:
    """Covet with no other plugins than these."""
    app = plugin_sandbox(*plugins)

    @app.get("/")
    async def plain() -> str:
        return "Hello, World!"

    @app.get("/json")
    async def small() -> dict[str, str]:
        return {"message": "Hello, World!"}

    @app.get("/list")
    async def rows() -> list[dict[str, object]]:
        return ROWS

    @app.get("/large")
    async def large() -> Response:
        return Response(MEGABYTE, content_type="application/json")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces(), content_type="text/plain")

    return app


def starlette_app(*, compressed: bool) -> Starlette:
    """Starlette, with its middleware or without."""

    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse("Hello, World!")

    async def small(request: Request) -> JSONResponse:
        return JSONResponse({"message": "Hello, World!"})

    async def rows(request: Request) -> JSONResponse:
        return JSONResponse(ROWS)

    async def large(request: Request) -> StarletteResponse:
        return StarletteResponse(MEGABYTE, media_type="application/json")

    async def stream(request: Request) -> StarletteStream:
        return StarletteStream(pieces(), media_type="text/plain")

    gzip = Middleware(GZipMiddleware, minimum_size=1024, compresslevel=LEVELS["gzip"])
    routes = {"/": plain, "/json": small, "/list": rows, "/large": large, "/stream": stream}
    return Starlette(
        routes=[Route(path, handler) for path, handler in routes.items()], middleware=[gzip] if compressed else []
    )


def litestar_app(*, compressed: bool) -> Litestar:
    """Litestar, with its middleware or without."""

    @get("/", media_type=MediaType.TEXT)
    async def plain() -> str:
        return "Hello, World!"

    @get("/json")
    async def small() -> dict[str, str]:
        return {"message": "Hello, World!"}

    @get("/list")
    async def rows() -> list[dict[str, object]]:
        return ROWS

    @get("/large")
    async def large() -> LitestarResponse[bytes]:
        return LitestarResponse(MEGABYTE, media_type=MediaType.JSON)

    @get("/stream")
    async def stream() -> Stream:
        return Stream(pieces(), media_type="text/plain")

    gzip = CompressionConfig(backend="gzip", minimum_size=1024, gzip_compress_level=LEVELS["gzip"])
    return Litestar(
        [plain, small, rows, large, stream],
        compression_config=gzip if compressed else None,
        openapi_config=None,
    )


async def pieces() -> AsyncIterator[bytes]:
    """A stream whose first piece is there at once, and whose second takes its time."""
    yield b"the first piece\n"
    await asyncio.sleep(PAUSE)
    yield b"the second\n"


def scope(path: str, accept: str | None) -> dict[str, Any]:
    """The scope of a request."""
    headers = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"bench"), (b"accept", b"*/*")]
    if accept is not None:
        headers.append((b"accept-encoding", accept.encode()))
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip


def inflated(coding: str, sent: list[Any]) -> bytes:
    """The body of a response; ValueError unless it is in the coding."""
    found = dict(sent[0]["headers"]).get(b"content-encoding", b"").decode()
    if found != coding:
        raise ValueError(f"Content-Encoding is {found!r}, not {coding!r}")
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return decoder(coding).inflate(body, 2**31 - 1) if coding else body


# A megabyte of JSON


def codecs() -> dict[str, Callable[[], bytes]]:
    """The codecs, called as they are meant to be called for a body that is complete."""

    def gzip() -> bytes:
        return zlib.compress(MEGABYTE, LEVELS["gzip"], 31)

    def zstd() -> bytes:
        codec = encoder("zstd", LEVELS["zstd"], size=len(MEGABYTE))
        return codec.compress(MEGABYTE) + codec.finish()

    return {"gzip": gzip, "zstd": zstd} if has_zstd() else {"gzip": gzip}


def clocks() -> tuple[float, float]:
    """The time, and the time that this process has had a processor, its threads included."""
    return time.perf_counter(), time.process_time()


async def throughput(apps: dict[str, Any], rounds: int) -> str:
    """The table of one megabyte of JSON."""
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for number in range(rounds + 1):
        for coding, codec in codecs().items():
            names = ["the codec", *(name for name in apps if coding != "zstd" or name == "covet")]
            gc.collect()
            # Whoever comes first finds the processor's caches cold, so each comes first in turn.
            first = number % len(names)
            for name in [*names[first:], *names[:first]]:
                sent: list[Any] = []
                made = scope("/large", coding)
                start = clocks()
                if name == "the codec":
                    body = codec()
                else:
                    await request(apps[name], made, b"", sent)
                end = clocks()
                if name != "the codec":
                    body = b"".join(message.get("body", b"") for message in sent[1:])
                    if not number and inflated(coding, sent) != MEGABYTE:
                        raise ValueError(f"{name}: what is decoded is not what was encoded")
                if number:
                    times.setdefault((coding, name), []).append((end[0] - start[0], end[1] - start[1]))
                    sizes[coding, name] = len(body)
    rows = []
    for (coding, name), found in times.items():
        alone = times[coding, "the codec"]
        wall, cpu = (
            median(own[clock] / bare[clock] for own, bare in zip(found, alone, strict=True)) for clock in (0, 1)
        )
        taken_ms = median(took for took, _ in found) * 1e3
        speed = len(MEGABYTE) / taken_ms / 1e3
        rows.append(
            [coding, name, f"{taken_ms:.2f}", f"{speed:.0f}", f"{wall:.3f}", f"{cpu:.3f}", f"{sizes[coding, name]:,}"]
        )
    head = ["coding", "by", "milliseconds", "MB/s", "time (goal for covet ≤ 1.05)", "processor time", "bytes"]
    return "Times in multiples of the codec's, within each round.\n\n" + evidence.table(head, rows)


# The first piece of a stream


async def first_piece(app: Any, coding: str | None) -> tuple[float, float]:
    """Microseconds until the headers of a stream are sent, and until what is sent holds the first piece."""
    found: dict[str, float] = {}
    codec = None if coding is None else decoder(coding)
    received, complete = False, asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal received
        if not received:
            received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        # Servers tell of it as soon as a response is complete.
        await complete.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        now = time.perf_counter()
        if message["type"] == "http.response.start":
            found["headers"] = now
            return
        if (body := message.get("body")) and (body if codec is None else codec.inflate(body, 2**20)):
            found.setdefault("piece", now)
        if not message.get("more_body"):
            complete.set()

    made = scope("/stream", coding)
    began = time.perf_counter()
    await app(made, receive, send)
    return (found["headers"] - began) * 1e6, (found["piece"] - began) * 1e6


async def streams(apps: dict[str, Any], rounds: int) -> str:
    """The table of the first piece."""
    cases = [(name, coding) for name in apps for coding in ("gzip", "zstd", None)]
    cases = [(name, coding) for name, coding in cases if coding != "zstd" or (name == "covet" and has_zstd())]
    found: dict[tuple[str, str | None], list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        for name, coding in cases:
            took = await first_piece(apps[name], coding)
            if number:
                found.setdefault((name, coding), []).append(took)
    rows = [
        [name, coding or "none", *(f"{median(part):.0f}" for part in zip(*took, strict=True))]
        for (name, coding), took in found.items()
    ]
    return evidence.table(["by", "coding", "headers after, µs", "first piece can be decoded after, µs"], rows)


# What it costs who does not use it


async def measure(app: Any, made: dict[str, Any], count: int) -> float:
    """CPU microseconds per request."""
    sent: list[Any] = []
    began = time.process_time()
    for _ in range(count):
        sent.clear()
        await request(app, made, b"", sent)
    return (time.process_time() - began) / count * 1e6


async def unused(pairs: dict[str, tuple[Any, Any]], rounds: int, count: int) -> str:
    """The table of requests that get nothing compressed, with the middleware or plugin and without."""
    cases = [("/", None), ("/", "gzip, zstd"), ("/json", None), ("/json", "gzip, zstd"), ("/list", None)]
    rows = []
    for path, accept in cases:
        made = scope(path, accept)
        times: dict[str, list[tuple[float, float]]] = {}
        for number in range(rounds + 1):
            for name, (without, with_it) in pairs.items():
                gc.collect()
                # Who comes second finds warm caches, so they take turns.
                if number % 2:
                    bare, own = await measure(without, made, count), await measure(with_it, made, count)
                else:
                    own, bare = await measure(with_it, made, count), await measure(without, made, count)
                took = (bare, own)
                if number:
                    times.setdefault(name, []).append(took)
        for name, found in times.items():
            added = median(own - bare for bare, own in found)
            rows.append(
                [
                    f"{path} {'with' if accept else 'without'} Accept-Encoding",
                    name,
                    f"{median(bare for bare, _ in found):.2f}",
                    f"{median(own for _, own in found):.2f}",
                    f"{added:+.2f}",
                ]
            )
    return evidence.table(["request", "by", "off, µs", "on, µs", "difference, µs"], rows)


def pieces_of(size: int) -> str:
    """The table of small pieces: what a flush behind each costs."""
    rows = []
    for piece in (100, 1000, 10_000, 100_000):
        for coding in codecs():
            codec = encoder(coding, LEVELS[coding], small=True)
            began = time.perf_counter()
            sent = 0
            for start in range(0, size, piece):
                sent += len(codec.compress(MEGABYTE[start : start + piece]) + codec.flush())
            sent += len(codec.finish())
            seconds = time.perf_counter() - began
            whole = len(one_shot(coding, LEVELS[coding], MEGABYTE))
            rows.append([f"{piece:,} bytes", coding, f"{seconds * 1e3:.1f}", f"{sent:,}", f"{sent / whole:.2f}"])
    head = ["pieces of", "coding", "milliseconds", "bytes", "in multiples of the whole, compressed at once"]
    return evidence.table(head, rows)


async def run(rounds: int, count: int) -> dict[str, str]:
    """Every table, by its heading."""
    pairs = {
        "covet": (covet_app(), covet_app("compression")),
        "starlette": (starlette_app(compressed=False), starlette_app(compressed=True)),
        "litestar": (litestar_app(compressed=False), litestar_app(compressed=True)),
    }
    apps = {name: with_it for name, (_, with_it) in pairs.items()}
    async with AsyncExitStack() as stack:
        for pair in pairs.values():
            for app in pair:
                await stack.enter_async_context(running(app))
        return {
            "One megabyte of JSON": await throughput(apps, rounds * 2),
            "The first piece of a stream": f"The second piece comes {PAUSE * 1e3:g} ms later.\n\n"
            + await streams(apps, rounds),
            "Requests that get nothing compressed": await unused(pairs, rounds, count),
            "A megabyte in small pieces, each flushed": pieces_of(len(MEGABYTE)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- compression", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=1000, help="requests per round")
    chosen = parser.parse_args()
    sections = asyncio.run(run(chosen.rounds, chosen.count))
    evidence.write(
        "compression_speed",
        "Compression: speed",
        ABOUT.format(rounds=chosen.rounds),
        ["covet-core", "backports-zstd", "starlette", "litestar"],
        sections,
    )


if __name__ == "__main__":
    main()
