"""Files as responses: ranges, conditions, names, what is not there, and that every descriptor is closed."""

# ruff: noqa: ASYNC110, ASYNC230, ASYNC240 - the files are small, and what is waited for happens in threads

from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from email.message import Message as EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import anyio.lowlevel
import httpx
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from covet import ASGIMiddleware, Covet, FileResponse, HTTPError, Request, Response, hookimpl
from covet.files import CHUNK, content_disposition, parse_range
from covet.testing import TestClient

pytestmark = pytest.mark.anyio

# Long enough ago that nothing about it can change within the same second.
OLD = 1_700_000_000
OLD_DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
CONTENT = bytes(range(10))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file of ten bytes; none of its descriptors may be left open."""
    file = tmp_path / "ten.bin"
    file.write_bytes(CONTENT)
    os.utime(file, (OLD, OLD))
    yield file
    assert descriptors(file) == 0


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A file of several chunks; none of its descriptors may be left open."""
    file = tmp_path / "large.bin"
    file.write_bytes(large_content())
    yield file
    assert descriptors(file) == 0


def large_content() -> bytes:
    return b"".join(b"%07d\n" % number for number in range(3 * CHUNK // 8)) + b"end"


def descriptors(path: Path) -> int:
    """How many of this process's descriptors are open on a file."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        found += target.removesuffix(" (deleted)") == str(path)
    return found


class Wire:
    """A server with one client, whose request asks for `/`.

    Args:
        app: the application.
        method, headers: the request's.
        pathsend: whether the server offers to send files itself.
        leave_at: the client leaves when this many messages have been sent.
        tells: whether `send` raises when the client has left.
    """

    def __init__(
        self,
        app: Any,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        *,
        pathsend: bool = False,
        leave_at: int | None = None,
        tells: bool = True,
    ) -> None:
        self.app = app
        self.scope = {
            "type": "http", "method": method, "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
            "scheme": "http", "http_version": "1.1", "client": None, "server": None,
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "extensions": {"http.response.pathsend": {}} if pathsend else {},
        }  # fmt: skip
        self.leave_at, self.tells = leave_at, tells
        self.sent: list[dict[str, Any]] = []
        self.left = anyio.Event()
        self.asked = False

    async def receive(self) -> dict[str, Any]:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.left.is_set():
            if self.tells:
                raise OSError("the client has left")
            return
        self.sent.append(message)
        await self.after(len(self.sent))
        if len(self.sent) == self.leave_at or self.complete:
            self.left.set()

    async def after(self, count: int) -> None:
        """Called when `count` messages have been sent."""

    async def run(self) -> Wire:
        with anyio.fail_after(20):
            await self.app(self.scope, self.receive, self.send)
        return self

    @property
    def complete(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        raw = self.sent[0]["headers"]
        assert len({name for name, _ in raw}) == len(raw), "no header stands twice"
        return {name.decode(): value.decode("latin-1") for name, value in raw}

    @property
    def content(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


async def ask(path: Path | str, method: str = "GET", asked: Mapping[str, str] | None = None, **options: Any) -> Wire:
    """What a handler that returns the file answers to a request with the headers `asked`."""
    return await Wire(serving(path, **options), method, asked).run()


def serving(path: Path | str, **options: Any) -> Covet:
    app = Covet({}, installed_plugins=False)

    @app.route("/", ["GET", "POST"])
    async def show() -> Response:
        return FileResponse(path, **options)

    return app


def with_middleware(app: Covet) -> Covet:
    """The application with a middleware of Covet's own kind outside of everything."""

    @app.middleware("edge")
    async def passing(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    return app


# Whole files


async def test_a_file_comes_with_what_is_known_of_it(path: Path) -> None:
    wire = await ask(path)
    assert (wire.status, wire.content) == (200, CONTENT)
    etag = wire.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{24}"', etag)
    assert wire.headers == {
        "content-type": "application/octet-stream",
        "content-length": "10",
        "accept-ranges": "bytes",
        "last-modified": OLD_DATE,
        "etag": etag,
    }


async def test_head_gets_the_same_headers_and_no_body(path: Path, large: Path) -> None:
    for file in (path, large):
        got, head = await ask(file), await ask(file, "HEAD")
        assert (head.status, head.content, len(head.sent)) == (200, b"", 2)
        assert head.headers == got.headers
        assert head.headers["content-length"] == str(file.stat().st_size)
        ranged = await ask(file, "HEAD", {"range": "bytes=0-1"})
        assert (ranged.status, ranged.headers) == (200, head.headers), "ranges are for GET only"


async def test_a_large_file_comes_in_chunks(large: Path) -> None:
    wire = await ask(large)
    assert wire.content == large_content()
    assert [len(message["body"]) for message in wire.sent[1:]] == [CHUNK, CHUNK, CHUNK, 3, 0]
    assert wire.headers["content-length"] == str(len(large_content()))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
async def test_sizes_around_a_chunk(tmp_path: Path, size: int) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * size)
    wire = await ask(file)
    assert (wire.content, wire.headers["content-length"], wire.complete) == (b"x" * size, str(size), True)
    assert descriptors(file) == 0


async def test_a_path_may_be_text_and_a_response_be_returned_again(path: Path) -> None:
    response = FileResponse(str(path), headers={"x-a": "b"})
    app = Covet({}, installed_plugins=False)

    @app.get("/")
    async def show() -> Response:
        return response

    first = await Wire(app).run()
    assert (await Wire(app, headers={"if-none-match": first.headers["etag"]}).run()).status == 304
    assert (await Wire(app, headers={"range": "bytes=1-2"}).run()).status == 206
    again = await Wire(app).run()
    assert (again.status, again.headers, again.content) == (200, first.headers, CONTENT)
    assert again.headers["x-a"] == "b"
    assert repr(response) == f"<FileResponse {str(path)!r}>"


async def test_another_status_sends_the_whole_file_whatever_is_asked(path: Path) -> None:
    asked = {
        "range": "bytes=0-1",
        "if-none-match": "*",
        "if-match": '"other"',
        "if-unmodified-since": formatdate(0, usegmt=True),
    }
    wire = await ask(path, "GET", asked, status=404)
    assert (wire.status, wire.content) == (404, CONTENT)
    assert "accept-ranges" not in wire.headers
    assert "etag" not in wire.headers


async def test_what_another_method_answers_is_not_conditional(path: Path) -> None:
    """The file is not what a POST is about, and its work is done when there is a response."""
    etag = (await ask(path)).headers["etag"]
    wire = await ask(path, "POST", {"if-none-match": etag, "range": "bytes=0-1", "if-match": '"other"'})
    assert (wire.status, wire.content) == (200, CONTENT)
    assert "accept-ranges" not in wire.headers


async def test_an_entity_tag_tells_versions_apart(path: Path) -> None:
    first = (await ask(path)).headers["etag"]
    assert (await ask(path)).headers["etag"] == first
    os.utime(path, ns=(0, OLD * 10**9 + 1))
    second = (await ask(path)).headers["etag"]
    path.write_bytes(CONTENT + b"x")
    os.utime(path, ns=(0, OLD * 10**9 + 1))
    third = (await ask(path)).headers["etag"]
    replacement = path.with_name("new")
    replacement.write_bytes(CONTENT + b"x")
    os.utime(replacement, ns=(0, OLD * 10**9 + 1))
    replacement.replace(path)
    fourth = (await ask(path)).headers["etag"]
    assert len({first, second, third, fourth}) == 4
    assert str(path.stat().st_ino) not in fourth


async def test_a_file_is_never_modified_in_the_future_nor_before_1970(path: Path) -> None:
    os.utime(path, (time.time() + 10**6,) * 2)
    before = formatdate(int(time.time()) - 60, usegmt=True)
    wire = await ask(path, "GET", {"if-modified-since": before})
    assert wire.status == 200
    assert "1 2023" not in wire.headers["last-modified"]
    os.utime(path, (-(10**9),) * 2)
    assert (await ask(path)).headers["last-modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"


async def test_own_validators_go_before_those_of_the_file(path: Path) -> None:
    own = {"ETag": '"v7"', "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}
    for asked, status in (
        ({"if-none-match": 'W/"v7"'}, 304),
        ({"if-none-match": '"v8"'}, 200),
        ({"if-modified-since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 304),
        ({"if-match": '"v8"'}, 412),
    ):
        assert (await ask(path, "GET", asked, headers=own)).status == status


# Content types and names


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.HTML", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.png", "image/png"),
        ("a.tar.gz", "application/gzip"),
        ("a.txt.gz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.tar.bz2", "application/x-bzip2"),
        ("a.tar.xz", "application/x-xz"),
        ("a.unheard-of", "application/octet-stream"),
        ("none", "application/octet-stream"),
        (".txt", "application/octet-stream"),
        ("data:text/html,x.png", "image/png"),
        ("http://x/y.png?z=.html", "text/html; charset=utf-8"),
        ("", "application/octet-stream"),
    ],
)
def test_the_type_is_guessed_from_the_name(name: str, content_type: str) -> None:
    assert FileResponse("/x/" + name).headers["content-type"] == content_type
    assert FileResponse("/stored/4711", filename=name or "x").headers["content-type"] == content_type


def test_scripts_are_text() -> None:
    assert FileResponse("a.js").headers["content-type"].endswith("javascript; charset=utf-8")


def test_a_type_of_ones_own() -> None:
    assert FileResponse("a.txt", content_type="x/y").headers["content-type"] == "x/y"
    assert FileResponse("a.txt", headers={"content-type": "x/z"}).headers["content-type"] == "x/z"


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, None),
        ({"filename": "a.txt"}, 'attachment; filename="a.txt"'),
        ({"filename": "a.txt", "disposition": "inline"}, 'inline; filename="a.txt"'),
        ({"disposition": "inline"}, "inline"),
        ({"disposition": "attachment"}, "attachment"),
        ({"filename": "a b;c=d'.txt"}, 'attachment; filename="a b;c=d\'.txt"'),
        ({"filename": "naïve.txt"}, "attachment; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        ({"filename": 'a"b\\c.txt'}, "attachment; filename=\"a_b_c.txt\"; filename*=UTF-8''a%22b_c.txt"),
        ({"filename": "100%.txt"}, "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
        ({"filename": "../../etc/passwd"}, 'attachment; filename=".._.._etc_passwd"'),
        ({"filename": "a\r\nset-cookie: x=1\0"}, 'attachment; filename="a__set-cookie: x=1_"'),
        ({"filename": "\ud800.txt"}, "attachment; filename=\"_.txt\"; filename*=UTF-8''%3F.txt"),
        ({"filename": "x", "headers": {"Content-Disposition": "own"}}, "own"),
    ],
)
def test_the_name_under_which_a_browser_stores_a_file(options: dict[str, Any], value: str | None) -> None:
    assert FileResponse("f", **options).headers.get("content-disposition") == value


def test_a_disposition_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="'attachment' or 'inline'"):
        FileResponse("f", disposition="form-data")  # type: ignore[arg-type]


@given(st.text(max_size=30))
@example("a\r\nb")
@example("'\"%\\/*\x7f\x85é")
def test_any_name_is_one_header_that_the_standard_library_reads(name: str) -> None:
    value = content_disposition(name)
    assert value.isascii()
    assert value.isprintable()
    message = EmailMessage()
    message["content-disposition"] = value
    assert message.get_content_disposition() == "attachment"
    assume(not any("\ud800" <= c <= "\udfff" for c in name))
    if "filename*" in value:
        read = unquote(value.partition("filename*=UTF-8''")[2])
    else:
        read = re.fullmatch('attachment; filename="(.*)"', value)[1]  # type: ignore[index]
    assert read == re.sub("[\\x00-\\x1f\\x7f-\\x9f/\\\\]", "_", name)


# Ranges


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=0-9", (0, 9)),
        ("bytes=2-5", (2, 5)),
        ("bytes=5-", (5, 9)),
        ("bytes=0-", (0, 9)),
        ("bytes=9-", (9, 9)),
        ("bytes=-1", (9, 9)),
        ("bytes=-10", (0, 9)),
        ("bytes=-99999999999999999999", (0, 9)),
        ("bytes=8-99999999999999999999", (8, 9)),
        ("BYTES=2-3", (2, 3)),
        ("bytes=0002-003", (2, 3)),
    ],
)
async def test_a_range_is_sent_with_206(path: Path, value: str, part: tuple[int, int]) -> None:
    first, last = part
    wire = await ask(path, "GET", {"range": value})
    assert (wire.status, wire.content) == (206, CONTENT[first : last + 1])
    assert wire.headers["content-range"] == f"bytes {first}-{last}/10"
    assert wire.headers["content-length"] == str(last - first + 1)
    assert wire.headers["etag"] == (await ask(path)).headers["etag"]


@pytest.mark.parametrize(
    "value",
    [
        "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=1", "bytes=--1", "bytes=1--2", "bytes=+1-2",
        "bytes = 0-1", "bytes= 0-1", "bytes=0 -1", "bytes=0-1;", "bytes=0x0-1", "bytes=1_0-", "bytes=0-1=2",
        "lines=0-1", "lines=0-1,2-3", "=0-1", "0-1", "bytes=²-3", "bytes=" + "0" * 21 + "-1", "bytes=-" + "9" * 5000,
        "bytes=1.0-2", "bytes=0-1 ", "none",
    ],
)  # fmt: skip
async def test_a_malformed_range_is_ignored(path: Path, value: str) -> None:
    wire = await ask(path, "GET", {"range": value})
    assert (wire.status, wire.content) == (200, CONTENT)
    assert "content-range" not in wire.headers


@pytest.mark.parametrize(
    "value",
    [
        "bytes=10-", "bytes=10-20", "bytes=99999999999999999999-", "bytes=-0", "bytes=-00",
        "bytes=0-1,3-4", "bytes=0-0,-1", "bytes=0-1, 0-1", "bytes=0-1,", "bytes=,", "bytes=a,b", "bytes=,0-1",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(1000)), "bytes=" + "0-," * 2000,
    ],
)  # fmt: skip
async def test_what_cannot_be_sent_and_several_ranges_are_416(path: Path, value: str) -> None:
    wire = await ask(path, "GET", {"range": value})
    assert wire.status == 416
    assert wire.headers["content-range"] == "bytes */10"
    assert wire.headers["content-type"] == "application/problem+json"
    assert "etag" not in wire.headers
    assert len(wire.content) < 1000, "several ranges never make a response larger"


async def test_two_range_headers_are_several_ranges(path: Path) -> None:
    wire = Wire(serving(path))
    wire.scope["headers"] = [(b"range", b"bytes=0-1"), (b"range", b"bytes=2-3")]
    assert (await wire.run()).status == 416


async def test_an_empty_file_has_no_ranges(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert (await ask(empty, "GET", {"range": "bytes=0-"})).headers["content-range"] == "bytes */0"
    wire = await ask(empty, "GET", {"range": "bytes=-5"})
    assert (wire.status, wire.content) == (200, b"")


async def test_a_large_part_comes_in_chunks(large: Path) -> None:
    content = large_content()
    for first, last in ((5, len(content) - 2), (CHUNK, 3 * CHUNK), (0, len(content) - 1)):
        wire = await ask(large, "GET", {"range": f"bytes={first}-{last}"})
        assert (wire.status, wire.content) == (206, content[first : last + 1])


async def test_the_parts_of_a_download_make_the_file(large: Path) -> None:
    """A download that is resumed at any place, as curl and browsers do."""
    content = large_content()
    app = serving(large)
    first = await Wire(app, leave_at=3, tells=False).run()
    got = first.content
    assert 0 < len(got) < len(content)
    rest = await Wire(app, "GET", {"range": f"bytes={len(got)}-", "if-range": first.headers["etag"]}).run()
    assert rest.status == 206
    assert got + rest.content == content


@given(st.integers(0, 300), st.integers(0, 320), st.integers(0, 320) | st.none())
def test_the_range_of_two_positions(size: int, first: int, last: int | None) -> None:
    header = f"bytes={first}-{'' if last is None else last}"
    expected = list(range(size))[first : None if last is None else last + 1]
    if last is not None and last < first:
        assert parse_range(header, size) is None
    elif not expected:
        with pytest.raises(HTTPError) as error:
            parse_range(header, size)
        assert (error.value.status, error.value.headers["content-range"]) == (416, f"bytes */{size}")
    else:
        assert list(parse_range(header, size) or ()) == expected


@given(st.integers(0, 300), st.integers(0, 320))
def test_the_range_of_a_suffix(size: int, length: int) -> None:
    header = f"bytes=-{length}"
    if not length:
        with pytest.raises(HTTPError):
            parse_range(header, size)
    elif not size:
        assert parse_range(header, size) is None
    else:
        assert list(parse_range(header, size) or ()) == list(range(size))[-length:]


@given(st.text(max_size=30) | st.from_regex(r"(?i)bytes=[-0-9, a-f]{0,20}", fullmatch=True), st.integers(0, 2**63))
def test_any_range_is_a_part_of_the_file_or_refused(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except HTTPError as error:
        refused = error.status
    else:
        refused = None
    if refused is not None:
        assert refused == 416
        assert header.lower().startswith("bytes=")
    elif part is not None:
        assert 0 <= part.start < part.stop <= size
        assert part.step == 1


# Conditions


async def test_a_version_that_the_client_has_is_not_sent_again(path: Path) -> None:
    etag = (await ask(path)).headers["etag"]
    app = Covet({}, installed_plugins=False)

    @app.get("/")
    async def show() -> Response:
        kept = {"cache-control": "max-age=60", "vary": "cookie", "content-language": "en", "x-a": "b"}
        response = FileResponse(path, headers=kept, filename="f")
        response.set_cookie("c", "d")
        return response

    for method in ("GET", "HEAD"):
        wire = await Wire(app, method, {"if-none-match": etag}).run()
        assert (wire.status, wire.content) == (304, b"")
        assert set(wire.headers) == {"etag", "cache-control", "vary", "x-a", "set-cookie"}
        assert wire.headers["etag"] == etag


@pytest.mark.parametrize(
    ("value", "matches"),
    [
        ("{tag}", True),
        ("W/{tag}", True),
        ('"a", {tag}', True),
        ('"a",{tag},"b"', True),
        (" , {tag} , ", True),
        ('"a,b", W/{tag}', True),
        ("*", True),
        (" * ", True),
        ('"other"', False),
        ('"*"', False),
        ("", False),
        ("junk {tag}", False),
        ('"unclosed, {tag}', False),
        ("{bare}", False),
        ("w/{tag}", False),
        (", ".join(['"x"'] * 63) + ", {tag}", True),
        (", ".join(['"x"'] * 64) + ", {tag}", False),
    ],
)
async def test_if_none_match(path: Path, value: str, matches: bool) -> None:
    tag = (await ask(path)).headers["etag"]
    asked = value.format(tag=tag, bare=tag.strip('"'))
    assert (await ask(path, "GET", {"if-none-match": asked})).status == (304 if matches else 200)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (OLD_DATE, 304),
        ("Wed, 15 Nov 2023 22:13:20 GMT", 304),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 200),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", 304),
        ("Tue Nov 14 22:13:20 2023", 304),
        ("Tue Nov 14 22:13:19 2023", 200),
        ("", 200), ("yesterday", 200), ("0", 200), ("Tue, 99 Nov 2023 22:13:20 GMT", 200),
        ("Tue, 14 Nov 99999 22:13:20 GMT", 200), ("Tue, 14 Nov 2023 22:13:20 +9999999", 200), ("x" * 10_000, 200),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 200),
    ],
)  # fmt: skip
async def test_if_modified_since(path: Path, value: str, status: int) -> None:
    for method in ("GET", "HEAD"):
        assert (await ask(path, method, {"if-modified-since": value})).status == status


@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=70))
def test_no_date_is_beyond_the_parser(text: str) -> None:
    from covet.files import _seconds

    assert isinstance(_seconds(text), float | None)


async def test_a_tag_goes_before_a_date(path: Path) -> None:
    etag = (await ask(path)).headers["etag"]
    assert (await ask(path, "GET", {"if-none-match": '"x"', "if-modified-since": OLD_DATE})).status == 200
    assert (
        await ask(path, "GET", {"if-none-match": etag, "if-modified-since": formatdate(0, usegmt=True)})
    ).status == 304


async def test_the_order_of_conditions(path: Path) -> None:
    etag = (await ask(path)).headers["etag"]
    early = formatdate(0, usegmt=True)
    for asked, status in (
        ({"if-match": '"x"', "if-none-match": etag}, 412),
        ({"if-match": etag, "if-none-match": etag}, 304),
        ({"if-match": etag, "if-unmodified-since": early}, 200),
        ({"if-unmodified-since": early, "if-none-match": etag}, 412),
        ({"if-none-match": etag, "range": "bytes=0-1"}, 304),
        ({"if-modified-since": OLD_DATE, "range": "bytes=50-"}, 304),
        ({"if-match": '"x"', "range": "bytes=50-"}, 412),
        ({"if-match": etag, "range": "bytes=0-1"}, 206),
    ):
        assert (await ask(path, "GET", asked)).status == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("{tag}", 200), ("*", 200), ('"a", {tag}', 200), ("W/{tag}", 412), ('"other"', 412), ("", 412), ("junk", 412),
        (", ".join(['"x"'] * 64) + ", {tag}", 412),
    ],
)  # fmt: skip
async def test_if_match_is_strong(path: Path, value: str, status: int) -> None:
    tag = (await ask(path)).headers["etag"]
    for method in ("GET", "HEAD"):
        wire = await ask(path, method, {"if-match": value.format(tag=tag)})
        assert wire.status == status
        assert method == "HEAD" or status == 200 or b"another version" in wire.content


@pytest.mark.parametrize(
    ("value", "status"), [(OLD_DATE, 200), ("Tue, 14 Nov 2023 22:13:19 GMT", 412), ("no date", 200), ("", 200)]
)
async def test_if_unmodified_since(path: Path, value: str, status: int) -> None:
    assert (await ask(path, "GET", {"if-unmodified-since": value})).status == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("{tag}", 206), ("W/{tag}", 200), ('"other"', 200), ("*", 200), ("{tag}, {tag}", 200), ("", 200),
        (OLD_DATE, 206), ("Tue, 14 Nov 2023 22:13:19 GMT", 200), ("Tue, 14 Nov 2023 22:13:21 GMT", 200), ("junk", 200),
    ],
)  # fmt: skip
async def test_a_range_of_one_version_only(path: Path, value: str, status: int) -> None:
    tag = (await ask(path)).headers["etag"]
    wire = await ask(path, "GET", {"range": "bytes=1-2", "if-range": value.format(tag=tag)})
    assert wire.status == status
    assert wire.content == (CONTENT[1:3] if status == 206 else CONTENT)


async def test_a_range_of_another_version_is_not_refused_even_where_there_is_none(path: Path) -> None:
    wire = await ask(path, "GET", {"range": "bytes=50-60", "if-range": '"old"'})
    assert (wire.status, wire.content) == (200, CONTENT)


async def test_weak_validators_never_match_for_parts(path: Path) -> None:
    weak = {"etag": 'W/"v1"'}
    for asked in ('W/"v1"', '"v1"'):
        assert (await ask(path, "GET", {"range": "bytes=0-1", "if-range": asked}, headers=weak)).status == 200
        assert (await ask(path, "GET", {"if-match": asked}, headers=weak)).status == 412
        assert (await ask(path, "GET", {"if-none-match": asked}, headers=weak)).status == 304
    now = int(time.time()) + 30
    os.utime(path, (now, now))
    date = formatdate(now, usegmt=True)
    # A date within this second says nothing: the file may change in it again.
    assert (
        await ask(path, "GET", {"range": "bytes=0-1", "if-range": date}, headers={"last-modified": date})
    ).status == 200


async def test_a_range_alone_needs_no_condition_and_a_condition_alone_means_nothing(path: Path) -> None:
    assert (await ask(path, "GET", {"if-range": '"other"'})).status == 200


# What is not there


def missing(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    return {
        "absent": str(tmp_path / "absent"),
        "below nothing": str(tmp_path / "absent" / "deeper"),
        "below a file": str(tmp_path / "file" / "deeper"),
        "directory": str(tmp_path / "directory"),
        "pipe": str(tmp_path / "pipe"),
        "device": "/dev/zero",
        "loop": str(tmp_path / "loop"),
        "dangling": str(tmp_path / "dangling"),
        "NUL": str(tmp_path / "file") + "\0.txt",
        "too long": str(tmp_path / ("x" * 5000)),
        "surrogate": "/\ud800",
        "empty": "",
    }


@pytest.mark.parametrize(
    "kind",
    [
        "absent", "below a file", "below nothing", "dangling", "device", "directory", "empty", "loop", "NUL", "pipe",
        "surrogate", "too long",
    ],
)  # fmt: skip
async def test_what_is_no_file_is_a_404_before_anything_is_sent(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "covet.files")
    path = missing(tmp_path)[kind]
    before = len(os.listdir("/proc/self/fd"))
    for method in ("GET", "HEAD"):
        wire = await ask(path, method)
        assert wire.status == 404
        assert str(tmp_path) not in wire.content.decode()
        assert wire.headers["content-type"] == "application/problem+json"
    assert repr(path) in caplog.text, "the log says which"
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_socket_is_no_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert (await ask(tmp_path / "socket")).status == 404


async def test_a_file_that_cannot_be_opened_is_a_500_that_the_log_explains(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[Exception] = []

    class Watching:
        @hookimpl
        async def covet_request_failed(self, request: Request, error: Exception) -> None:
            failed.append(error)

    app = Covet({}, installed_plugins=False, plugins=[Watching()])

    @app.get("/")
    async def show() -> Response:
        return FileResponse(path)

    # A thread, and whatever else needs a descriptor, is there before there are none left.
    assert (await Wire(app).run()).status == 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        wire = await Wire(app).run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert wire.status == 500
    assert path.name not in wire.content.decode()
    assert "Too many open files" in caplog.text
    assert [type(error) for error in failed] == [OSError]


async def test_errors_in_the_place_of_a_file_go_through_exception_handlers_and_keep_headers(path: Path) -> None:
    done: list[str] = []
    seen: list[int] = []

    class Plugin:
        @hookimpl
        def covet_response_headers(self, app: Covet) -> list[tuple[str, str]]:
            return [("x-constant", "yes")]

        @hookimpl
        async def covet_request_finished(self, request: Request, response: Response, duration: float) -> None:
            seen.append(response.status)

    app = Covet({}, installed_plugins=False, plugins=[Plugin()])

    @app.middleware("transport")
    async def allow(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["access-control-allow-origin"] = "*"
        return response

    @app.exception_handler(404)
    async def not_found(request: Request, error: HTTPError) -> Any:
        return "nothing here", 404

    @app.get("/")
    async def show(request: Request) -> Response:
        request.after(done.append, request.headers.get("range", ""))
        return FileResponse(path, filename="f", headers={"content-language": "en"})

    async with app.running():
        wire = await Wire(app, headers={"range": "bytes=50-"}).run()
        assert (wire.status, wire.headers["access-control-allow-origin"], wire.headers["x-constant"]) == (
            416,
            "*",
            "yes",
        )
        assert not {"content-disposition", "content-language"} & set(wire.headers)
        assert (await Wire(app, headers={"range": "bytes=1-2"}).run()).status == 206
        assert (await Wire(app, headers={"if-none-match": "*"}).run()).headers["access-control-allow-origin"] == "*"
        path.unlink()
        wire = await Wire(app).run()
        assert (wire.status, wire.content) == (404, b"nothing here")
        assert wire.headers["access-control-allow-origin"] == "*"
    assert seen == [416, 206, 304, 404], "hooks hear what was sent"
    assert sorted(done) == ["", "", "bytes=1-2", "bytes=50-"], "the handler had done its work"


# Files that change


async def test_a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was(large: Path) -> None:
    content = large_content()

    class Replacing(Wire):
        async def after(self, count: int) -> None:
            if count == 2:
                other = large.with_name("other")
                other.write_bytes(b"new")
                other.replace(large)

    wire = await Replacing(serving(large)).run()
    assert wire.content == content
    assert wire.headers["content-length"] == str(len(content))


async def test_a_file_that_grows_is_sent_as_long_as_it_was(large: Path) -> None:
    content = large_content()

    class Growing(Wire):
        async def after(self, count: int) -> None:
            with large.open("ab") as file:
                file.write(b"more")

    assert (await Growing(serving(large)).run()).content == content


@pytest.mark.parametrize("length", [0, 100, CHUNK + 5])
async def test_a_file_that_becomes_shorter_breaks_the_response_off(large: Path, length: int) -> None:
    class Truncating(Wire):
        async def after(self, count: int) -> None:
            if count == 2:
                os.truncate(large, length)

    wire = Truncating(serving(large))
    with pytest.raises(Exception, match="became shorter while it was sent"):
        await wire.run()
    assert not wire.complete, "the client must not take it for the whole file"
    assert len(wire.content) < int(wire.headers["content-length"])


# Disconnects and cancellation: the descriptor is closed (by the fixture's word)


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("leave_at", range(1, 7))
async def test_a_client_may_leave_at_every_message(large: Path, leave_at: int, tells: bool) -> None:
    wire = await Wire(serving(large), leave_at=leave_at, tells=tells).run()
    assert len(wire.sent) == min(leave_at, 6)


async def test_nothing_is_read_on_for_a_client_that_has_left(tmp_path: Path) -> None:
    """Most servers take what is sent to nobody, without a word."""
    file = tmp_path / "sparse"
    file.touch()
    os.truncate(file, 400 * CHUNK)

    class Counting(Wire):
        taken = 0

        async def send(self, message: dict[str, Any]) -> None:
            self.taken += 1
            await super().send(message)

    wire = Counting(serving(file), leave_at=2, tells=False)
    await wire.run()
    assert wire.taken < 50
    assert descriptors(file) == 0


async def test_a_client_may_have_left_before(large: Path) -> None:
    for tells in (True, False):
        wire = Wire(serving(large), tells=tells)
        wire.left.set()
        await wire.run()
        assert wire.sent == []


@pytest.mark.parametrize("stall_at", range(1, 6))
async def test_a_request_may_be_cancelled_at_every_message(large: Path, stall_at: int) -> None:
    class Stalling(Wire):
        async def after(self, count: int) -> None:
            if count == stall_at:
                await anyio.sleep_forever()

    wire = Stalling(serving(large))
    async with anyio.create_task_group() as group:
        group.start_soon(wire.run)
        while len(wire.sent) < stall_at:
            await anyio.sleep(0.001)
        assert descriptors(large) == 1
        group.cancel_scope.cancel()
    assert descriptors(large) == 0


async def test_a_request_may_be_cancelled_before_it_begins(large: Path) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Wire(serving(large)).run()
    assert scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("when", ["open", "read"])
async def test_a_thread_that_outlives_its_task_closes_the_file(
    large: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's own cancellation does not wait for threads: a file may be opened when nobody is there any more."""
    import covet.files

    entered, go_on, through = threading.Event(), threading.Event(), threading.Event()
    original: Any = getattr(covet.files._File, when)

    def held(self: Any, *args: Any) -> Any:
        # For reading, the lock is taken as well, as in the middle of it.
        with self._lock if when == "read" else nullcontext():
            entered.set()
            go_on.wait(20)
        try:
            return original(self, *args)
        finally:
            through.set()

    monkeypatch.setattr(covet.files._File, when, held)
    task = asyncio.get_running_loop().create_task(Wire(serving(large)).run())
    while not entered.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    while not through.is_set():
        await asyncio.sleep(0.001)
    while descriptors(large):
        await asyncio.sleep(0.001)


# Middleware, other applications, servers


async def test_below_asgi_middleware_and_through_the_test_client(large: Path) -> None:
    class Passing:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    app = with_middleware(serving(large, pathsend=True))
    app.add_middleware(ASGIMiddleware(Passing, name="passing"))

    @app.get("/missing")
    async def none() -> Response:
        return FileResponse("/nowhere/at/all")

    async with TestClient(app) as client:
        got = await client.get("/")
        assert got.content == large_content()
        assert (await client.get("/", headers={"if-none-match": got.headers["etag"]})).status_code == 304
        assert (await client.get("/", headers={"range": "bytes=-3"})).content == b"end"
        assert (await client.get("/", headers={"range": "bytes=1-2,4-5"})).status_code == 416
        assert (await client.get("/missing")).status_code == 404
    # What the server offers does not reach through a middleware that sees every piece.
    assert (await Wire(app, pathsend=True).run()).content == large_content()


async def test_a_mounted_application_cannot_send_by_path_through_the_bridge(large: Path) -> None:
    """Starlette's FileResponse uses the extension whenever it is offered; the file would be lost."""
    from starlette.responses import FileResponse as StarletteFile

    app = with_middleware(Covet({}, installed_plugins=False))
    app.mount("", StarletteFile(large))

    async with app.running():
        assert (await Wire(app, pathsend=True).run()).content == large_content()


async def test_a_server_that_sends_files_itself_is_given_the_path(large: Path, path: Path) -> None:
    wire = await Wire(serving(large, pathsend=True), pathsend=True).run()
    assert [message["type"] for message in wire.sent] == ["http.response.start", "http.response.pathsend"]
    assert wire.sent[1]["path"] == str(large)
    assert wire.headers["content-length"] == str(len(large_content()))
    part = await Wire(serving(large, pathsend=True), headers={"range": "bytes=1-"}, pathsend=True).run()
    assert part.content == large_content()[1:], "only whole files can be sent like that"
    assert (await Wire(serving(path, pathsend=True), pathsend=True).run()).content == CONTENT, "small ones are there"
    assert (await Wire(serving(large, pathsend=True)).run()).content == large_content()
    assert (await Wire(serving(large), pathsend=True).run()).content == large_content(), "only where it is asked for"
    assert (await Wire(serving(large, pathsend=True), "HEAD", pathsend=True).run()).content == b""


async def test_a_name_that_is_no_text_is_not_given_to_the_server(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.bin"
    with open(name, "wb") as file:
        file.write(large_content())
    wire = await Wire(serving(os.fsdecode(name), pathsend=True), pathsend=True).run()
    assert wire.content == large_content()


async def test_a_relative_path_is_given_to_the_server_in_full(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(large.parent)
    wire = await Wire(serving(large.name, pathsend=True), pathsend=True).run()
    assert wire.sent[1]["path"] == str(large)


SERVED = """
from covet import Covet, FileResponse

app = Covet({}, installed_plugins=False)


@app.get("/{how}")
async def show(how: str):
    return FileResponse(PATH, pathsend=how == "pathsend")
"""


@pytest.mark.parametrize("server", ["granian", "uvicorn"])
async def test_over_a_socket(large: Path, tmp_path: Path, server: str) -> None:
    (tmp_path / "served.py").write_text(SERVED.replace("PATH", repr(str(large))))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    options = ["--interface", "asgi"] if server == "granian" else []
    command = [sys.executable, "-m", server, *options, "--host", "127.0.0.1", "--port", port, "served:app"]
    content = large_content()
    with (tmp_path / "log").open("wb") as log:
        process = await anyio.open_process(command, cwd=tmp_path, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            with anyio.fail_after(60):
                while not await listening(client):
                    assert process.returncode is None, (tmp_path / "log").read_text()
                    await anyio.sleep(0.05)
            for how in ("chunks", "pathsend"):
                got = await client.get(f"/{how}")
                assert got.content == content
                assert got.headers["content-length"] == str(len(content))
                assert (await client.head(f"/{how}")).headers["content-length"] == str(len(content))
                assert (await client.get(f"/{how}", headers={"range": "bytes=-4"})).content == b"\nend"
                none = await client.get(f"/{how}", headers={"if-none-match": got.headers["etag"]})
                assert (none.status_code, none.content) == (304, b"")
                assert (await client.get(f"/{how}", headers={"range": "bytes=0-1,3-4"})).status_code == 416
            large.write_bytes(b"x" * len(content))
            for how in ("chunks", "pathsend"):
                # The client leaves in the middle; the server goes on to serve.
                async with client.stream("GET", f"/{how}") as response:
                    assert response.headers["etag"] != got.headers["etag"]
                assert (await client.get(f"/{how}")).content == b"x" * len(content)
    finally:
        process.terminate()
        await process.wait()


async def listening(client: httpx.AsyncClient) -> bool:
    try:
        await client.get("/", timeout=5)
    except httpx.ConnectError:
        return False
    return True
