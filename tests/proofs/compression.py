"""Compressed responses, from real servers, decoded by programs that share no code with Covet.

Each response is fetched by curl, once with each `Accept-Encoding` alone, when the command line tools `gzip` and `zstd`
decode what came over the wire, and once with `--compressed`, when curl decodes it itself with all that it knows. What
comes out is compared with the response that a client gets that accepts nothing. A range is of the plain content. The
last rows send a compressed body, made by the same tools, to a handler that answers with its hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import evidence
from benchmarks.servers import SERVERS, Server, serving

from covet import Covet, EventSourceResponse, FileResponse, Request, StreamingResponse
from covet.testing import plugin_sandbox

FOLDER = "COVET_PROOF_FOLDER"
ROWS = [{"id": number, "name": f"user {number}", "active": number % 3 == 0} for number in range(4000)]
LINES = "".join(f"{number}: one line of a file that has many like it\n" for number in range(20_000))
DECODERS = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dcq"]}
COMPRESSORS = {"gzip": ["gzip", "-9c"], "zstd": ["zstd", "-19cq"]}
RANGE = "1000-90999"


@dataclass(frozen=True)
class Case:
    """A response: how the table calls it, its path, and the status it has."""

    title: str
    path: str
    status: int = 200
    options: tuple[str, ...] = ()


CASES = (
    Case("buffered: JSON", "/buffered"),
    Case("streamed", "/streamed"),
    Case("file of 1 MB", "/file?name=large.txt"),
    Case("file of 30 kB", "/file?name=small.txt"),
    Case("server-sent events", "/events"),
    Case("range of a file", "/file?name=large.txt", 206, ("-r", RANGE)),
    Case("image", "/file?name=image.png"),
)
PLAIN = {"range of a file", "image"}
"""What is never compressed."""


def make_app() -> Covet:
    """The application that the servers serve."""
    app = plugin_sandbox("compression", settings={"plugins": {"compression": {"requests": True}}})

    @app.get("/")
    async def index() -> str:
        return "ready"

    @app.get("/buffered")
    async def buffered() -> list[dict[str, Any]]:
        return ROWS

    @app.get("/streamed")
    async def streamed() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            for start in range(0, len(LINES), 7000):
                yield LINES[start : start + 7000]

        return StreamingResponse(pieces(), content_type="text/plain; charset=utf-8")

    @app.get("/file")
    async def file(name: str) -> FileResponse:
        return FileResponse(Path(os.environ[FOLDER]) / Path(name).name)

    @app.get("/events")
    async def events() -> EventSourceResponse:
        return EventSourceResponse(row for row in ROWS[:200])

    @app.post("/hash")
    async def digest(request: Request) -> str:
        return hashlib.sha256(await request.body()).hexdigest()

    return app


app = make_app()


@contextmanager
def served(server: str, folder: Path) -> Iterator[Server]:
    """Serve the application, with its files in `folder`."""
    (folder / "large.txt").write_text(LINES, encoding="utf-8")
    (folder / "small.txt").write_text(LINES[:30_000], encoding="utf-8")
    (folder / "image.png").write_bytes(LINES.encode()[:30_000])
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(folder)
    try:
        with serving(server, "tests.proofs.compression:app") as started:
            yield started
    finally:
        if before is None:
            del os.environ[FOLDER]
        else:
            os.environ[FOLDER] = before


@dataclass(frozen=True)
class Answer:
    """What curl got: status, headers by name in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes


def curl(url: str, folder: Path, *options: str) -> Answer:
    """Fetch a URL."""
    headers, body = folder / "headers", folder / "body"
    # An empty body would leave that of the request before.
    body.write_bytes(b"")
    command = ["curl", "-sS", "--noproxy", "*", "-D", str(headers), "-o", str(body), *options, url]
    subprocess.run(command, check=True, timeout=60)
    status, *lines = headers.read_text(encoding="latin-1").replace("\r\n", "\n").strip().split("\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(re.split(r" +", status)[1]), found, body.read_bytes())


def decode(coding: str, data: bytes) -> bytes:
    """What the command line tool makes of it."""
    return subprocess.run(DECODERS[coding], input=data, stdout=subprocess.PIPE, check=True, timeout=60).stdout


def prove(server: str, folder: Path) -> list[list[str]]:
    """The rows of one server; whatever is not as it should be is an AssertionError."""
    rows = []
    with served(server, folder) as started:
        for case in CASES:
            url = started.url + case.path
            plain = curl(url, folder, *case.options)
            assert plain.status == case.status, plain
            assert "content-encoding" not in plain.headers
            for coding in DECODERS:
                got = curl(url, folder, *case.options, "-H", f"Accept-Encoding: {coding}")
                expected = "" if case.title in PLAIN else coding
                assert (got.status, got.headers.get("content-encoding", "")) == (case.status, expected), got
                assert got.headers.get("vary") == (None if case.title == "image" else "Accept-Encoding"), got
                body = decode(coding, got.body) if expected else got.body
                rows.append(row(server, case.title, coding, got, plain, body, DECODERS[coding][0] if expected else "-"))
            # The size is that of the wire, which --compressed hides: curl asks for the same without decoding.
            got = curl(url, folder, *case.options, "--compressed")
            rows.append(row(server, case.title, "curl --compressed", got, plain, got.body, "curl", sent="-"))
        for coding, command in COMPRESSORS.items():
            data = LINES.encode()
            content = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True, timeout=60).stdout
            path = folder / "request"
            path.write_bytes(content)
            answer = curl(
                started.url + "/hash", folder, "--data-binary", f"@{path}", "-H", f"Content-Encoding: {coding}",
                "-H", "Content-Type: application/octet-stream",
            )  # fmt: skip
            assert answer.body.decode() == hashlib.sha256(data).hexdigest(), answer
            rows.append([server, "request body", coding, coding, f"{len(content):,}", f"{len(data):,}", "Covet", "yes"])
    return rows


def row(
    server: str, title: str, accept: str, got: Answer, plain: Answer, body: bytes, by: str, sent: str | None = None
) -> list[str]:
    """A row of the table, once the body is known to be right."""
    assert body == plain.body, f"{server}: {title} with {accept}: {len(body)} bytes instead of {len(plain.body)}"
    coding = got.headers.get("content-encoding", "none")
    size = f"{len(got.body):,}" if sent is None else sent
    return [server, title, accept, coding, size, f"{len(plain.body):,}", by, "yes"]


HEAD = ["server", "response", "accepted", "Content-Encoding", "bytes sent", "bytes plain", "decoded by", "equal"]


def main() -> None:
    rows = []
    for server in SERVERS:
        with tempfile.TemporaryDirectory(prefix="compression-") as temporary:
            rows += prove(server, Path(temporary))
    tools = []
    for command in ("curl", "gzip", "zstd"):
        done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
        tools.append(done.stdout.strip().splitlines()[0].split(" libcurl")[0])
    evidence.write(
        "compression",
        "Compression, decoded by others",
        __doc__ or "",
        ["covet-core", "backports-zstd", *SERVERS],
        {"Every response, every coding": evidence.table(HEAD, rows), "Programs": "\n".join(f"- {t}" for t in tools)},
        session="proof",
    )


if __name__ == "__main__":
    main()
