"""Static files: what is served, what never is, what `covet static build` makes, and that both fit together."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import posixpath
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st
from tests.builtin import needs

from covet import Covet, CovetError, FileResponse, HTTPError, Request, RouteError, SettingsError
from covet.builtin.static_files import StaticFilesSettings
from covet.builtin.static_files.command import static
from covet.exceptions import PluginError
from covet.settings_schema import describe
from covet.static import StaticFiles, static_url
from covet.static.building import build, compressors, source_files
from covet.static.manifest import MANIFEST, Manifest, StaticFilesError
from covet.static.paths import locate, open_beneath, split_path
from covet.static.references import rewrite_references
from covet.static.serving import IMMUTABLE
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await

pytestmark = pytest.mark.anyio

CSS = "a { color: red }\n" * 200
SECRET = "nobody may read this"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory `static` beside a secret, with links, dotfiles and a neighbour whose name begins the same."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "static"
    (made / "css").mkdir(parents=True)
    (made / "docs").mkdir()
    (made / ".git").mkdir()
    (made / ".well-known").mkdir()
    (made / "css" / "app.css").write_text(CSS)
    (made / "logo.svg").write_text("<svg/>")
    (made / "docs" / "index.html").write_text("<p>docs")
    (made / "naïve ü.txt").write_text("text")
    (made / ".env").write_text(SECRET)
    (made / ".git" / "config").write_text(SECRET)
    (made / ".well-known" / "security.txt").write_text("Contact: us")
    (made / "docs" / ".hidden").write_text(SECRET)
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "static-private").mkdir()
    (tmp_path / "static-private" / "secret.txt").write_text(SECRET)
    (made / "inside.svg").symlink_to("logo.svg")
    (made / "outside.txt").symlink_to(tmp_path / "secret.txt")
    (made / "neighbour").symlink_to(tmp_path / "static-private")
    (made / "plain.txt").symlink_to(".env")
    (made / "loop").symlink_to("loop")
    return made


def app_with(files: StaticFiles | None = None, *, prefix: str = "/static", **settings: Any) -> Covet:
    app = Covet({"app": settings}, installed_plugins=False)
    if files is not None:
        app.add(files, prefix)
    return app


async def ask(app: Any, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """What a server hands on for a path that it has decoded, once."""
    sent: list[dict[str, Any]] = []

    received: list[dict[str, Any]] = [{"type": "http.request", "body": b""}]

    async def receive() -> dict[str, Any]:
        if not received:
            await anyio.sleep_forever()
        return received.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "raw_path": b"", "query_string": b"", "root_path": "",
        "scheme": "http", "http_version": "1.1", "client": None, "server": None, "extensions": {},
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    await app(scope, receive, send)
    got = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return sent[0]["status"], got, b"".join(message.get("body", b"") for message in sent[1:])


# What is served


async def test_a_file_with_conditions_and_ranges(directory: Path) -> None:
    async with TestClient(app_with(StaticFiles("static"))) as client:
        got = await client.get("/static/css/app.css")
        assert (got.status_code, got.text) == (200, CSS)
        assert got.headers["content-type"] == "text/css; charset=utf-8"
        assert got.headers["cache-control"] == "no-cache"
        assert "vary" not in got.headers
        tag = got.headers["etag"]
        kept = await client.get("/static/css/app.css", headers={"if-none-match": tag})
        assert (kept.status_code, kept.content, kept.headers["cache-control"]) == (304, b"", "no-cache")
        part = await client.get("/static/css/app.css", headers={"range": "bytes=0-3"})
        assert (part.status_code, part.text) == (206, CSS[:4])
        assert (await client.get("/static/css/app.css", headers={"if-match": '"other"'})).status_code == 412
        head = await client.head("/static/css/app.css")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(CSS)))
        assert (await client.get("/static/" + quote("naïve ü.txt"))).text == "text"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_only_get_and_head_are_answered(directory: Path, method: str) -> None:
    async with TestClient(app_with(StaticFiles("static"))) as client:
        refused = await client.request(method, "/static/logo.svg")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_what_changes_is_served_as_it_is(directory: Path) -> None:
    async with TestClient(app_with(StaticFiles("static"))) as client:
        before = await client.get("/static/logo.svg")
        (directory / "new.svg").write_text("<svg>2</svg>")
        os.replace(directory / "new.svg", directory / "logo.svg")
        after = await client.get("/static/logo.svg", headers={"if-none-match": before.headers["etag"]})
        assert (after.status_code, after.text) == (200, "<svg>2</svg>")
        (directory / "logo.svg").unlink()
        assert (await client.get("/static/logo.svg")).status_code == 404


async def test_directories_are_not_listed_and_have_an_index_when_asked(directory: Path) -> None:
    async with TestClient(app_with(StaticFiles("static"))) as client:
        for path in ("/static/", "/static/docs", "/static/docs/", "/static/css", "/static/logo.svg/"):
            assert (await client.get(path)).status_code == 404, path
    async with TestClient(app_with(StaticFiles("static", index=True))) as client:
        page = await client.get("/static/docs/")
        assert (page.text, page.headers["content-type"]) == ("<p>docs", "text/html; charset=utf-8")
        for path in ("/static/", "/static/css", "/static/css/", "/static/docs/index.html/", "/static//docs/"):
            assert (await client.get(path, follow_redirects=False)).status_code == 404, path
        moved = await client.get("/static/docs?a=%0d%0aset-cookie:b", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (308, "./docs/?a=%0d%0aset-cookie:b")
        assert (await client.get("/static/docs", follow_redirects=True)).text == "<p>docs"


async def test_a_redirect_to_a_directory_stays_on_this_server(directory: Path) -> None:
    for name in ("evil.example:80", "javascript:alert(1)"):
        (directory / name).mkdir()
        (directory / name / "index.html").write_text("x")
        status, headers, _ = await ask(app_with(StaticFiles("static", index=True), prefix=""), f"/{name}")
        assert (status, headers["location"]) == (308, f"./{quote(name, safe='')}/")
    for path in ("//evil.example/docs", "//docs", "/./docs", "/\\evil.example"):
        status, headers, _ = await ask(app_with(StaticFiles("static", index=True), prefix=""), path)
        assert (status, "location" in headers) == (404, False), path


async def test_static_at_the_root_beside_routes(directory: Path) -> None:
    """litestar 1201: files at "/" hid every route."""
    app = app_with(StaticFiles("static", index=True), prefix="")
    (directory / "index.html").write_text("the file")
    (directory / "me").write_text("the file")

    @app.get("/me")
    async def me() -> str:
        return "the route"

    @app.get("/users/{id:int}")
    async def user(id: int) -> int:
        return id

    @app.post("/logo.svg")
    async def post() -> str:
        return "posted"

    async with TestClient(app) as client:
        assert (await client.get("/")).text == "the file"
        assert (await client.get("/me")).text == "the route"
        assert (await client.get("/users/7")).json() == 7
        assert (await client.get("/users/x")).status_code == 404
        assert (await client.get("/logo.svg")).text == "<svg/>"
        assert (await client.post("/logo.svg")).text == "posted"

    app = app_with(StaticFiles("static", index=True), prefix="")
    app.get("/")(me)
    async with TestClient(app) as client:
        assert (await client.get("/")).text == "the route"


async def test_a_mounted_application_serves_and_names_its_files(directory: Path) -> None:
    inner = app_with(StaticFiles("static", index=True))

    @inner.get("/url")
    async def url() -> str:
        return static_url("logo.svg")

    outer = app_with()
    outer.mount("/shop", inner)
    async with TestClient(outer) as client:
        assert (await client.get("/shop/url")).text == "/shop/static/logo.svg"
        assert (await client.get("/shop/static/logo.svg")).text == "<svg/>"
        assert (await client.get("/shop/static/docs", follow_redirects=True)).text == "<p>docs"


# What is never served


HOSTILE = [
    "../secret.txt", "..", ".", "./logo.svg", "css/../logo.svg", "css/../../secret.txt", "..\\secret.txt",
    "css\\app.css", "css/..\\..\\secret.txt", "%2e%2e/secret.txt", "%252e%252e/secret.txt", "..%2fsecret.txt",
    "..%5csecret.txt", "%c0%ae%c0%ae/secret.txt", "\ufffd\ufffd/secret.txt", "\udcc0\udcae/secret.txt",
    "\uff0e\uff0e/secret.txt", "\u2024\u2024/secret.txt", "....//secret.txt", "..;/secret.txt", "/etc/passwd",
    "//etc/passwd", "///etc/passwd", "C:/Windows/win.ini", "C:\\Windows\\win.ini", "\\\\host\\share\\file",
    "file:///etc/passwd", "logo.svg\0", "\0", "logo.svg\0.txt", "../static/logo.svg", "../static-private/secret.txt",
    "logo.svg/", "logo.svg/.", "logo.svg/..", "logo.svg/../logo.svg", "css//app.css", "", "~/.bashrc", "~root",
    ".env", ".git/config", ".git", "docs/.hidden", "outside.txt", "neighbour/secret.txt", "plain.txt", "loop",
    ".well-known/security.txt", "x" * 300, "a/" * 500, "logo.svg\n", "\r\nlogo.svg", "logo.svg ", "$HOME", "*",
    "nul", "con", "aux.txt", "css::$DATA", "logo.svg::$DATA",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
@pytest.mark.parametrize("prefix", ["/static", ""])
async def test_no_path_leads_out(directory: Path, path: str, prefix: str) -> None:
    """Starlette's CVE-2023-29159, and issues 3287 (absolute paths), 3139 (NUL) and 2851."""
    app = app_with(StaticFiles("static"), prefix=prefix)
    assert (await ask(app, f"{prefix}/logo.svg"))[0] == 200
    status, _, body = await ask(app, f"{prefix}/{path}")
    assert status == 404
    assert SECRET not in body.decode()
    assert str(directory) not in body.decode(), "what the server's disk looks like is nobody's business"


@pytest.fixture(scope="module")
def tree() -> Iterator[tuple[str, Covet]]:
    """A directory with links of every kind, beside a secret."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "static")
        (root / "a" / "b").mkdir(parents=True)
        (root / "a" / "b" / "c.txt").write_text("c")
        (root / "a" / "d.txt").write_text("d")
        (root / "up").symlink_to("..")
        (root / "a" / "root").symlink_to("/")
        (root / "a" / "in").symlink_to("b")
        (root / ".a").write_text(SECRET)
        Path(name, "a").write_text(SECRET)
        Path(name, "static.txt").write_text(SECRET)
        yield str(root), app_with(StaticFiles(root, index=True), prefix="")


PIECES = st.sampled_from(
    ["a", "b", "in", "c.txt", "d.txt", "up", "root", "..", ".", "", ".a", "etc", "passwd", "static", "static.txt",
     "%2e%2e", "%2f", "\\", "..\\", "\0", "~", "C:", "\u2025", "\uff0f", "index.html"]
)  # fmt: skip


@given(path=st.lists(PIECES, max_size=8).map("/".join) | st.text(max_size=40))
@example(path="up/a")
@example(path="a/root/etc/passwd")
@example(path="a/in/c.txt")
def test_whatever_is_asked_for_what_is_served_lies_inside(tree: tuple[str, Covet], path: str) -> None:
    root, app = tree
    status, _, body = anyio.run(ask, app, "/" + path)
    assert status in (200, 308, 404)
    assert SECRET not in body.decode("utf-8", "replace")
    if status == 200:
        names = split_path(path)
        assert names is not None
        real = os.path.realpath(posixpath.join(root, *names))
        assert PurePath(real).is_relative_to(root)
        assert Path(real).read_bytes() == body


@given(path=st.text(max_size=30), windows=st.booleans())
@example(path="c:", windows=True)
@example(path="file.", windows=True)
@example(path="a:b", windows=False)
def test_the_names_of_a_path_are_names(path: str, windows: bool) -> None:
    names = split_path(path, windows=windows)
    if names is not None:
        assert "/".join(names) == path
        assert not {"", ".", ".."} & set(names)
        assert not any(c in path for c in "\\\0\r\n")
        assert not any(name.startswith(".") for name in names)
        if windows:
            assert ":" not in path
            assert not any(name.endswith((".", " ")) for name in names)


def test_dotfiles_never_open_the_way_up() -> None:
    assert split_path(".well-known/a", [".well-known"]) == (".well-known", "a")
    assert split_path("../a", ["..", "."]) is None
    assert split_path("./a", ["..", "."]) is None


async def test_dotfiles_are_served_where_the_settings_name_them(directory: Path) -> None:
    async with TestClient(app_with(StaticFiles("static", dotfiles=[".well-known"]))) as client:
        assert (await client.get("/static/.well-known/security.txt")).text == "Contact: us"
        for path in (".env", ".git/config", "plain.txt", "docs/.hidden"):
            assert (await client.get(f"/static/{path}")).status_code == 404, path


def test_a_neighbour_whose_name_begins_the_same_is_outside(directory: Path) -> None:
    assert locate(str(directory), ("neighbour", "secret.txt")) is None
    assert locate(str(directory), ("inside.svg",)) == ("logo.svg",)
    assert locate(str(directory), ()) == ()


@pytest.mark.parametrize("at", ["file", "directory"])
async def test_a_link_that_appears_after_the_check_is_not_followed(directory: Path, tmp_path: Path, at: str) -> None:
    """Between the check and the opening, somebody who may write there puts a link in place."""
    found = locate(str(directory), ("css", "app.css"))
    assert found == ("css", "app.css")
    if at == "file":
        (directory / "css" / "app.css").unlink()
        (directory / "css" / "app.css").symlink_to(tmp_path / "secret.txt")
    else:
        shutil.rmtree(directory / "css")
        (tmp_path / "static-private" / "app.css").write_text(SECRET)
        (directory / "css").symlink_to(tmp_path / "static-private")
    assert (directory / "css" / "app.css").read_text() == SECRET
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        open_beneath(str(directory), found, os.O_RDONLY)

    def opener(path: str, flags: int) -> int:
        assert found is not None
        return open_beneath(str(directory), found, flags)

    app = app_with()
    app.get("/")(lambda: FileResponse(directory / "css" / "app.css", opener=opener))
    async with TestClient(app) as client:
        assert (await client.get("/")).status_code == 404


async def test_what_is_no_regular_file_is_not_served(directory: Path) -> None:
    os.mkfifo(directory / "pipe")
    (directory / "null").symlink_to("/dev/null")
    async with TestClient(app_with(StaticFiles("static"))) as client:
        for name in ("pipe", "null"):
            assert (await client.get(f"/static/{name}")).status_code == 404


SERVED = """
from covet import Covet
from covet.static import StaticFiles
app = Covet(installed_plugins=False)
app.add(StaticFiles("static", index=True), "/static")
"""
RAW = [
    b"/static/../secret.txt", b"/static/%2e%2e/secret.txt", b"/static/%2e%2e%2fsecret.txt", b"/static/..%5csecret.txt",
    b"/static/%252e%252e/secret.txt", b"/static/%c0%ae%c0%ae/secret.txt", b"/static/%00", b"/static/logo.svg%00",
    b"/static/..;/secret.txt", b"/static//etc/passwd", b"/static/%2fetc%2fpasswd", b"/static/%ff/x",
    b"/static/outside.txt", b"/static/.env", b"/static/%2eenv", b"/static/docs/%2e%2e/%2eenv",
    b"/static/%u002e%u002e/secret.txt", b"/static/.%2e/secret.txt", b"/static/%EF%BC%8E%EF%BC%8E/secret.txt",
]  # fmt: skip


@pytest.mark.parametrize("server", ["granian", "uvicorn"])
async def test_no_path_leads_out_over_a_socket(directory: Path, tmp_path: Path, server: str) -> None:
    (tmp_path / "served.py").write_text(SERVED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--interface", "asgi"] if server == "granian" else []
    command = [sys.executable, "-m", server, *options, "--host", "127.0.0.1", "--port", str(port), "served:app"]

    def fetch(target: bytes) -> tuple[int, bytes]:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b""
            while more := connection.recv(65536):
                data += more
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    with (tmp_path / "log").open("wb") as log:
        process = await anyio.open_process(command, cwd=tmp_path, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        with anyio.fail_after(60):
            while True:
                try:
                    status, body = fetch(b"/static/logo.svg")
                    break
                except ConnectionRefusedError:
                    assert process.returncode is None, (tmp_path / "log").read_text()
                    await anyio.sleep(0.05)
        assert (status, body) == (200, b"<svg/>")
        assert fetch(b"/static/docs/")[1] == b"<p>docs"
        for target in RAW:
            status, body = fetch(target)
            assert 300 <= status < 500, target
            assert SECRET.encode() not in body, target
    finally:
        process.terminate()
        await process.wait()


async def test_a_request_that_is_cancelled_at_any_await_leaves_nothing_open(directory: Path) -> None:
    app = app_with(StaticFiles("static"))
    large = directory / "large.bin"
    large.write_bytes(b"x" * 600_000)
    app.build()

    def opened() -> list[str]:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return [os.readlink(link) for link in links if os.path.lexists(link) and str(directory) in os.readlink(link)]

    async def call() -> None:
        status, _, body = await ask(app, "/static/large.bin")
        assert (status, len(body)) == (200, 600_000)

    async def check() -> None:
        # A thread whose task is gone closes what it has opened.
        with anyio.fail_after(20):
            while opened():  # noqa: ASYNC110 - threads know no event
                await anyio.sleep(0.001)

    assert await at_every_await(call, check) > 3


# Compressed beside


def compress(path: Path, suffix: str = ".gz", *, data: bytes | None = None, older: bool = False) -> None:
    sibling = path.with_name(path.name + suffix)
    sibling.write_bytes(gzip.compress(path.read_bytes()) if data is None else data)
    modified = path.stat().st_mtime_ns - (10**9 if older else 0)
    os.utime(sibling, ns=(modified, modified))


async def test_a_compressed_file_beside_is_sent_to_those_who_take_it(directory: Path) -> None:
    path = directory / "css" / "app.css"
    compress(path)
    async with TestClient(app_with(StaticFiles("static"))) as client:
        plain = await client.get("/static/css/app.css", headers={"accept-encoding": "identity"})
        packed = await client.get("/static/css/app.css", headers={"accept-encoding": "gzip;q=0.5, zstd"})
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert plain.text == packed.text == CSS
        assert int(packed.headers["content-length"]) < len(CSS)
        assert packed.headers["content-type"] == "text/css; charset=utf-8"
        assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
        assert plain.headers["etag"] != packed.headers["etag"], "two representations have two tags"
        asked = {"accept-encoding": "gzip", "if-none-match": packed.headers["etag"]}
        kept = await client.get("/static/css/app.css", headers=asked)
        assert (kept.status_code, kept.headers["vary"]) == (304, "Accept-Encoding")
        refused = await client.get("/static/css/app.css", headers={"accept-encoding": "gzip;q=0"})
        assert "content-encoding" not in refused.headers
        itself = await client.get("/static/css/app.css.gz", headers={"accept-encoding": "gzip"})
        assert (itself.headers["content-type"], "content-encoding" in itself.headers) == ("application/gzip", False)
        part = await client.get("/static/css/app.css", headers={"accept-encoding": "gzip", "range": "bytes=0-1"})
        assert (part.status_code, part.headers["content-range"].partition("/")[0]) == (206, "bytes 0-1")
    async with TestClient(app_with(StaticFiles("static", precompressed=False))) as client:
        whole = await client.get("/static/css/app.css", headers={"accept-encoding": "gzip"})
        assert not {"vary", "content-encoding"} & whole.headers.keys()


async def test_what_lies_beside_is_not_sent_when_it_is_older_or_a_link(directory: Path, tmp_path: Path) -> None:
    compress(directory / "css" / "app.css", data=gzip.compress(b"stale"), older=True)
    (directory / "logo.svg.gz").symlink_to(tmp_path / "secret.txt")
    (directory / "docs" / "index.html.gz").mkdir()
    async with TestClient(app_with(StaticFiles("static", index=True))) as client:
        for path, text in (("css/app.css", CSS), ("logo.svg", "<svg/>"), ("docs/", "<p>docs")):
            got = await client.get(f"/static/{path}", headers={"accept-encoding": "gzip"})
            assert (got.text, "content-encoding" in got.headers) == (text, False)


async def test_the_smallest_coding_goes_first(directory: Path) -> None:
    for suffix in (".gz", ".zst", ".br"):
        compress(directory / "logo.svg", suffix, data=suffix.encode())
    app = app_with(StaticFiles("static"))
    for accepted, coding in (
        ("gzip, deflate, br, zstd", "br"), ("gzip, zstd", "zstd"), ("zstd;q=0.5, gzip", "gzip"), ("deflate", None),
        ("*", "br"), ("br;q=0, *", "zstd"), ("identity, gzip;q=0.5", None), ("", None),
    ):  # fmt: skip
        _, headers, body = await ask(app, "/static/logo.svg", accept_encoding=accepted)
        assert headers.get("content-encoding") == coding, accepted
        assert body == {"br": b".br", "zstd": b".zst", "gzip": b".gz", None: b"<svg/>"}[coding]


@given(accepted=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60))
@example(accepted="gzip")
def test_any_accept_encoding_gets_the_file(accepted: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name, "a.txt").write_text("text")
        compress(Path(name, "a.txt"))
        app = app_with(StaticFiles(name))
        status, headers, body = anyio.run(lambda: ask(app, "/static/a.txt", accept_encoding=accepted))
        assert (status, headers["vary"]) == (200, "Accept-Encoding")
        assert (gzip.decompress(body) if "content-encoding" in headers else body) == b"text"


# Caching


async def test_only_names_with_a_hash_are_kept_without_asking(directory: Path) -> None:
    """Starlette 3248, litestar 3129: no word on caching at all."""
    (directory / "assets").mkdir()
    (directory / "assets" / "index-4f2a.js").write_text("1")
    (directory / "fake.0123456789abcdef.css").write_text("the name alone promises nothing")
    files = StaticFiles("static", immutable=["assets/*"], cache_control="public, max-age=60")
    async with TestClient(app_with(files)) as client:
        for path, expected in (
            ("assets/index-4f2a.js", IMMUTABLE),
            ("logo.svg", "public, max-age=60"),
            ("fake.0123456789abcdef.css", "public, max-age=60"),
        ):
            assert (await client.get(f"/static/{path}")).headers["cache-control"] == expected
        assert (await client.get("/static/assets/none.js")).headers["cache-control"] == "no-store"
    async with TestClient(app_with(StaticFiles("static", cache_control=""))) as client:
        assert "cache-control" not in (await client.get("/static/logo.svg")).headers


# Building


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def built(directory: Path, **options: Any) -> tuple[StaticFiles, dict[str, str]]:
    files = StaticFiles(directory, build=directory.parent / "build", **options)
    build(files)
    return files, Manifest.load(directory.parent / "build").files


def test_a_build_names_every_served_file_by_its_contents(directory: Path, tmp_path: Path) -> None:
    files, names = built(directory)
    assert sorted(names) == ["css/app.css", "docs/index.html", "inside.svg", "logo.svg", "naïve ü.txt"]
    for name, hashed in names.items():
        data = (tmp_path / "build" / hashed).read_bytes()
        assert data == (directory / name).read_bytes()
        stem, _, suffix = name.rpartition(".")
        assert hashed == f"{stem}.{hashlib.sha256(data).hexdigest()[:16]}.{suffix}"
    files.check()
    assert not [path for path in (tmp_path / "build").rglob("*") if path.name.startswith(".")], "nothing temporary left"


def test_a_build_is_idempotent_and_deterministic(directory: Path, tmp_path: Path) -> None:
    files, _ = built(directory)
    first = snapshot(tmp_path / "build")
    again = build(files)
    assert (again.written, again.removed, again.current) == ([], [], True)
    assert snapshot(tmp_path / "build") == first, "nothing was written again"
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (1, 1))
    build(StaticFiles(directory, build=tmp_path / "other"))
    assert {name: data for name, (data, _) in snapshot(tmp_path / "other").items()} == {
        name: data for name, (data, _) in first.items()
    }


def test_a_compressed_file_is_made_where_it_is_smaller_and_decoders_agree(directory: Path, tmp_path: Path) -> None:
    (directory / "noise.bin").write_bytes(os.urandom(5000))
    (directory / "photo.jpg").write_bytes(b"0" * 5000)
    _, names = built(directory)
    manifest = Manifest.load(tmp_path / "build")
    app = names["css/app.css"]
    assert manifest.stored[app].encodings.keys() == compressors().keys() == {"gzip", "zstd"}
    for tool, suffix in (("gzip", ".gz"), ("zstd", ".zst")):
        done = subprocess.run([tool, "-dc", tmp_path / "build" / (app + suffix)], capture_output=True, check=True)
        assert done.stdout == CSS.encode()
    assert (tmp_path / "build" / (app + ".gz")).read_bytes()[4:8] == bytes(4), "no time, which would differ each time"
    for name in ("noise.bin", "photo.jpg", "logo.svg"):
        assert manifest.stored[names[name]].encodings == {}
        assert not list((tmp_path / "build").glob(f"{Path(names[name]).name}.*"))


def test_the_build_replaces_what_changed_and_keeps_the_old_until_it_is_pruned(directory: Path, tmp_path: Path) -> None:
    files, before = built(directory)
    (directory / "css" / "app.css").write_text(CSS + "b { color: blue }")
    second = build(files)
    after = Manifest.load(tmp_path / "build")
    assert after.files["css/app.css"] != before["css/app.css"]
    assert sorted(second.written) == sorted(after.files["css/app.css"] + suffix for suffix in ("", ".gz", ".zst"))
    assert before["css/app.css"] in after.stored, "pages of an earlier release still ask for it"
    assert (tmp_path / "build" / before["css/app.css"]).exists()
    pruned = build(files, prune=True)
    assert sorted(pruned.removed) == sorted(before["css/app.css"] + suffix for suffix in ("", ".gz", ".zst"))
    assert not (tmp_path / "build" / before["css/app.css"]).exists()
    assert before["css/app.css"] not in Manifest.load(tmp_path / "build").stored


def test_pruning_removes_nothing_outside_whatever_the_manifest_says(directory: Path, tmp_path: Path) -> None:
    files, _ = built(directory)
    path = tmp_path / "build" / MANIFEST
    document = json.loads(path.read_text())
    entry = next(iter(document["stored"].values()))
    for name in ("../secret.txt", str(tmp_path / "secret.txt"), MANIFEST):
        document["stored"][name] = {**entry, "encodings": {}}
    path.write_text(json.dumps(document))
    assert build(files, prune=True).removed == []
    assert (tmp_path / "secret.txt").read_text() == SECRET


def test_style_sheets_refer_to_the_new_names(directory: Path, tmp_path: Path) -> None:
    (directory / "css" / "base.css").write_text("/* url(../logo.svg) */ b { background: url('../logo.svg#x') }")
    (directory / "css" / "main.css").write_text(
        '@import "base.css"; @import url(base.css);\n'
        "a { background: url( ../logo.svg ), url(data:x), url(//h/x), url(/a), url(no.svg), url(../../secret.txt) }\n"
        'a::after { content: "url(../logo.svg)" }'
    )
    _, names = built(directory)
    logo, base = names["logo.svg"], Path(names["css/base.css"]).name
    assert (tmp_path / "build" / names["css/base.css"]).read_text() == (
        f"/* url(../logo.svg) */ b {{ background: url('../{logo}#x') }}"
    )
    assert (tmp_path / "build" / names["css/main.css"]).read_text() == (
        f'@import "{base}"; @import url({base});\n'
        f"a {{ background: url( ../{logo} ), url(data:x), url(//h/x), url(/a), url(no.svg), url(../../secret.txt) }}\n"
        'a::after { content: "url(../logo.svg)" }'
    )
    (directory / "logo.svg").write_text("<svg>other</svg>")
    _, changed = built(directory)
    assert changed["css/main.css"] != names["css/main.css"], "what it refers to is a part of its contents"


def test_style_sheets_that_import_one_another_are_built(directory: Path, tmp_path: Path) -> None:
    (directory / "one.css").write_text('@import "two.css";')
    (directory / "two.css").write_text('@import "one.css";')
    (directory / "self.css").write_text('@import "self.css";')
    (directory / "latin.css").write_bytes("@import 'one.css'; /* ü */".encode("latin-1"))
    _, names = built(directory)
    assert (tmp_path / "build" / names["one.css"]).read_text() == f'@import "{names["two.css"]}";'
    assert (tmp_path / "build" / names["two.css"]).read_text() == '@import "one.css";'
    assert (tmp_path / "build" / names["self.css"]).read_text() == '@import "self.css";'
    assert "one.css" in (tmp_path / "build" / names["latin.css"]).read_bytes().decode("latin-1")


@given(css=st.text(st.sampled_from(list("url()@import\"'\\/* \n;{}#?.:abc%é")), max_size=60))
def test_a_style_sheet_without_references_to_known_files_is_not_touched(css: str) -> None:
    assert rewrite_references(css, "css/a.css", lambda name: None) == css


TOKENS = st.sampled_from(["url(", ")", '"', "'", "b.png", " ", "/*", "*/", "@import ", "\\", "\n"])


@given(css=st.lists(TOKENS, max_size=20).map("".join))
def test_only_whole_references_are_renamed(css: str) -> None:
    renamed = rewrite_references(css, "a.css", lambda name: "new.png" if name == "b.png" else None)
    assert renamed.replace("new.png", "b.png") == css


def test_a_build_writes_into_no_source(directory: Path, tmp_path: Path) -> None:
    for target in (directory, directory / "build", tmp_path, tmp_path / "static" / ".." / "static" / "x"):
        with pytest.raises(StaticFilesError, match="contain one another"):
            StaticFiles(directory, build=target)
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(StaticFilesError, match="contain one another"):
        StaticFiles(directory, build=tmp_path / "link" / "build")
    with pytest.raises(StaticFilesError, match="nothing says where"):
        build(StaticFiles(directory))


def test_a_file_that_changes_while_it_is_built_fails_the_build(directory: Path, tmp_path: Path) -> None:
    def change(name: str, done: int, total: int) -> None:
        # The style sheet that refers to it has its hash by now.
        if name == "logo.svg":
            (directory / "logo.svg").write_text("<svg>changed</svg>")

    (directory / "css" / "app.css").write_text("a { background: url(../logo.svg) }")
    files = StaticFiles(directory, build=tmp_path / "build")
    with pytest.raises(StaticFilesError, match=r"logo\.svg changed while it was built"):
        build(files, progress=change)
    assert not (tmp_path / "build" / MANIFEST).exists(), "who serves meanwhile sees nothing of it"


def test_large_files_are_copied_and_not_compressed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covet.static.building.MAX_IN_MEMORY", 1000)
    (directory / "large.txt").write_text("large" * 1000)
    files, names = built(directory)
    stored = files.manifest.stored[names["large.txt"]]
    assert (stored.size, stored.encodings) == (5000, {})
    files.check()


def test_a_build_that_is_killed_leaves_the_manifest_whole(directory: Path, tmp_path: Path) -> None:
    files, before = built(directory)
    (directory / "logo.svg").write_text("<svg>other</svg>")
    script = (
        "import os, sys; from covet.static import building; from covet.static.serving import StaticFiles\n"
        "def progress(name, done, total):\n"
        "    if name == 'naïve ü.txt': os._exit(9)\n"
        f"building.build(StaticFiles({str(directory)!r}, build={str(tmp_path / 'build')!r}), progress=progress)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert Manifest.load(tmp_path / "build").files == before
    StaticFiles(directory, build=tmp_path / "build").check()
    build(files)
    assert Manifest.load(tmp_path / "build").files != before


async def test_what_was_built_is_served_for_a_year(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    files, names = built(directory)
    app = app_with(files)

    @app.get("/url")
    async def url(name: str) -> str:
        return static_url(name)

    async with TestClient(app) as client:
        path = (await client.get("/url?name=css/app.css")).text
        assert path == "/static/" + names["css/app.css"]
        for coding in ("gzip", "zstd", "identity"):
            got = await client.get(path, headers={"accept-encoding": coding})
            assert got.headers["cache-control"] == IMMUTABLE
            assert got.headers["vary"] == "Accept-Encoding"
            assert got.headers["content-type"] == "text/css; charset=utf-8"
            assert got.headers.get("content-encoding", "identity") == coding
            digest = hashlib.sha256(CSS.encode()).hexdigest()[:32]
            assert got.headers["etag"] == (f'"{digest}"' if coding == "identity" else f'"{digest}-{coding}"')
            kept = await client.get(path, headers={"accept-encoding": coding, "if-none-match": got.headers["etag"]})
            assert kept.status_code == 304
            if coding == "gzip":
                assert got.text == CSS
        plain = await client.get("/static/css/app.css", headers={"accept-encoding": "gzip"})
        assert (plain.headers["cache-control"], plain.text) == ("no-cache", CSS)
        assert (await client.get("/url?name=na%C3%AFve%20%C3%BC.txt")).text == "/static/" + quote(names["naïve ü.txt"])
        for path in (MANIFEST, "css/app.0123456789abcdef.css", names["css/app.css"] + ".gz"):
            assert (await client.get(f"/static/{path}")).status_code == 404, "the build has no other files"
        with caplog.at_level(logging.WARNING, "covet.static"):
            for _ in range(2):
                assert (await client.get("/url?name=none.css")).text == "/static/none.css"
        assert caplog.text.count("there is no static file 'none.css'") == 1


async def test_a_manifest_that_was_tampered_with_serves_nothing_outside(directory: Path, tmp_path: Path) -> None:
    built(directory)
    path = tmp_path / "build" / MANIFEST
    document = json.loads(path.read_text())
    entry = next(iter(document["stored"].values()))
    (tmp_path / "build" / "link.txt").symlink_to(tmp_path / "secret.txt")
    document["stored"] |= {"../secret.txt": entry, "link.txt": entry, "/etc/passwd": entry}
    path.write_text(json.dumps(document))
    app = app_with(StaticFiles(directory, build=tmp_path / "build"))
    for name in ("../secret.txt", "link.txt", "/etc/passwd"):
        status, _, body = await ask(app, f"/static/{name}")
        assert (status, SECRET in body.decode()) == (404, False)


async def test_in_debug_mode_urls_are_plain_and_a_missing_file_is_an_error(directory: Path) -> None:
    files, _ = built(directory)
    app = app_with(files, debug=True)
    app.build()
    assert static_url("css/app.css", app=app) == "/static/css/app.css"
    with pytest.raises(CovetError, match=r"no static file 'css/ap\.css'; searched: .*static"):
        static_url("css/ap.css", app=app)
    assert static_url("css/app.css", app=built_app(directory)) != "/static/css/app.css"


def built_app(directory: Path) -> Covet:
    app = app_with(built(directory)[0])
    app.build()
    return app


async def test_urls_of_several_directories(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "admin.css").write_text("x")
    (tmp_path / "admin" / "logo.svg").write_text("x")
    app = app_with(StaticFiles("static"))
    app.add(StaticFiles("admin", name="admin"), "/admin/static")
    app.build()
    assert static_url("admin.css", app=app) == "/admin/static/admin.css"
    assert static_url("logo.svg", app=app) == "/static/logo.svg"
    assert app.url_for("admin", path="logo.svg") == "/admin/static/logo.svg"
    for name in ("../secret.txt", ".env", "outside.txt"):
        assert static_url(name, app=app).startswith("/static/"), "no word on what exists elsewhere"
    with pytest.raises(CovetError, match="serves no directory"):
        static_url("logo.svg", app=app_with())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no manifest"),
        ('{"version": 2}', "has version 2"),
        ('{"files": [1]}', "is no manifest"),
        ('{"stored": {"a": {"source": "a", "size": -1, "sha256": ""}}}', "is no manifest"),
        ("[" * 100_000, "is no manifest"),
    ],
    ids=["cut", "version", "type", "value", "deep"],
)
async def test_a_manifest_that_is_broken_stops_the_start_and_the_next_build_repairs_it(
    directory: Path, tmp_path: Path, text: str, told: str
) -> None:
    built(directory)
    (tmp_path / "build" / MANIFEST).write_text(text)
    settings = {"directories": {"/static": {"directory": "static", "build": "build"}}}
    with pytest.raises(StaticFilesError, match=told):
        async with TestClient(plugin_sandbox("static_files", settings={"plugins": {"static_files": settings}})):
            pass
    done = build(StaticFiles(directory, build="build"))
    assert not done.current
    StaticFiles(directory, build="build").check()


@pytest.mark.parametrize("fault", ["gone", "short", "compressed"])
async def test_a_build_that_was_deployed_in_part_stops_the_start(directory: Path, tmp_path: Path, fault: str) -> None:
    _, names = built(directory)
    path = tmp_path / "build" / (names["css/app.css"] + (".gz" if fault == "compressed" else ""))
    if fault == "short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    app = plugin_sandbox("static_files")
    app.add(StaticFiles(directory, build="build"), "/static")
    with pytest.raises(StaticFilesError, match="covet static build"):
        async with TestClient(app):
            pass


# Settings and the command


def make_app(**settings: Any) -> Covet:
    return plugin_sandbox("static_files", settings={"plugins": {"static_files": settings}})


async def test_the_settings_serve_directories(directory: Path) -> None:
    app = make_app(directories={"/static": "static", "/": {"directory": "static", "index": True, "cache_control": ""}})
    assert app.built.pipeline.empty
    async with TestClient(app) as client:
        assert (await client.get("/static/logo.svg")).headers["cache-control"] == "no-cache"
        assert (await client.get("/docs/")).text == "<p>docs"
        assert app.url_for("static_files.static", path="a b.css") == "/static/a%20b.css"


def test_without_directories_the_plugin_adds_nothing() -> None:
    app = make_app()
    assert (app.routes, app.built.pipeline.empty) == ((), True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"directories": {"static": "static"}}, "not 'static'"),
        ({"directories": {"/static/": "static"}}, "not '/static/'"),
        ({"directories": {"/{x}": "static"}}, "not '/{x}'"),
        ({"directories": {"/static": {"directory": "static", "indx": True}}}, "did you mean 'index'"),
        ({"directories": {"/static": {"index": True}}}, "directory"),
        ({"directories": {"/static": "none"}}, "no directory of static files at .*none"),
        ({"directories": {"/static": "static"}, "build": "static/build"}, "contain one another"),
        ({"directory": "static"}, "did you mean 'directories'"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(directory: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((SettingsError, StaticFilesError, PluginError), match=told):
        make_app(**settings).build()


def test_every_setting_says_what_it_is() -> None:
    from covet.builtin.static_files import StaticDirectory

    for schema in (StaticFilesSettings, StaticDirectory):
        assert [field.name for field in describe(schema) if not field.description] == []


def test_two_directories_at_one_path_are_an_error(directory: Path) -> None:
    app = app_with(StaticFiles("static"))
    app.add(StaticFiles("static"), "/static")
    with pytest.raises(RouteError, match="can never be reached"):
        app.build()


APP = """
from covet import Covet
app = Covet({"plugins": {"enable": ["static_files"], "static_files": {"directories": {"/static": "static"}}}})
"""


@pytest.fixture
def run(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """`covet static ...` in a directory with an application."""
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))

    def invoke(*arguments: str) -> Result:
        sys.modules.pop("app", None)
        return CliRunner().invoke(static, list(arguments), prog_name="covet static")

    yield invoke
    sys.modules.pop("app", None)


def test_the_command_builds_what_the_application_serves(run: Callable[..., Result], tmp_path: Path) -> None:
    unbuilt = run("build", "--check")
    assert (unbuilt.exit_code, "run `covet static build`" in unbuilt.output) == (1, True)
    assert not (tmp_path / "build").exists(), "--check writes nothing"
    first = run("build")
    assert first.exit_code == 0, first.output
    assert (tmp_path / "build" / "static" / "static" / MANIFEST).exists()
    assert run("build", "--check").exit_code == 0
    (tmp_path / "static" / "logo.svg").write_text("<svg>other</svg>")
    assert run("build", "--check").exit_code == 1
    (row,) = json.loads(run("build", "--prune", "--json").output)
    assert (row["path"], row["files"], len(row["written"]), len(row["removed"])) == ("/static/", 5, 2, 2)
    (tmp_path / "static" / "logo.svg").unlink()
    (tmp_path / "static" / "inside.svg").unlink()
    assert run("build", "--check").exit_code == 1, "a file that is gone changes the manifest"


def test_the_command_without_static_files(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from covet import Covet\napp = Covet(installed_plugins=False)")
    done = run("build")
    assert (done.exit_code, "no static files to build" in done.output) == (0, True)


def test_two_directories_in_one_build_are_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from covet import Covet\nfrom covet.static import StaticFiles\napp = Covet(installed_plugins=False)\n"
        "app.add(StaticFiles('static', build='build'), '/static')\n"
        "app.add(StaticFiles('static-private', build='build'), '/other')\n"
    )
    done = run("build")
    assert (done.exit_code, "built into one directory" in done.output) == (1, True)


def test_a_build_whose_place_is_taken_says_so(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "build").write_text("a file")
    done = run("build")
    assert (done.exit_code, "cannot be built" in done.output, "Traceback" in done.output) == (1, True, False)


def test_what_is_compressed_beside_a_source_is_not_built(directory: Path) -> None:
    compress(directory / "logo.svg")
    (directory / "archive.gz").write_bytes(b"x")
    names = list(source_files(StaticFiles(directory)))
    assert "logo.svg.gz" not in names
    assert "archive.gz" in names


async def test_a_guard_of_the_application_stands_before_the_files(directory: Path) -> None:
    """Files are routes: what guards routes guards them."""

    async def closed(request: Request, call_next: Any) -> Any:
        raise HTTPError(403)

    from covet import Middleware

    app = app_with(StaticFiles("static", middleware=[Middleware(closed)]))
    async with TestClient(app) as client:
        assert (await client.get("/static/logo.svg")).status_code == 403


@needs("compression")
@needs("compression")
async def test_what_is_compressed_beside_is_not_compressed_again(directory: Path) -> None:
    compress(directory / "css" / "app.css")
    (directory / "css" / "other.css").write_text(CSS)
    app = plugin_sandbox("compression")
    app.add(StaticFiles("static"), "/static")
    async with TestClient(app) as client:
        for name in ("app", "other"):
            got = await client.get(f"/static/css/{name}.css", headers={"accept-encoding": "gzip"})
            assert got.headers.get_list("content-encoding") == ["gzip"]
            assert got.headers["vary"] == "Accept-Encoding"
            assert got.text == CSS
            tag = {"accept-encoding": "gzip", "if-none-match": got.headers["etag"]}
            assert (await client.get(f"/static/css/{name}.css", headers=tag)).status_code == 304
