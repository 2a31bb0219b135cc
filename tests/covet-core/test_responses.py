"""Responses: what goes over the wire, what headers and cookies can hold, redirects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import (
    Covet,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Request,
    Response,
)
from covet.responses import ResponseHeaders, make_private
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


async def wire(response: Response, method: str = "GET") -> list[dict[str, Any]]:
    """The messages that a response sends."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError("a response that is complete has nothing to receive")

    await response({"type": "http", "method": method, "headers": []}, receive, send)
    return sent


# The body


async def test_a_response_is_two_messages() -> None:
    response = Response("é", 201, {"X-A": "1"})
    assert await wire(response) == [
        {
            "type": "http.response.start",
            "status": 201,
            "headers": [(b"x-a", b"1"), (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")],
        },
        {"type": "http.response.body", "body": "é".encode()},
    ]
    assert await wire(response) == await wire(response), "sending leaves no trace in it"


async def test_head_gets_the_headers_of_get_without_the_body() -> None:
    response = Response(b"content")
    got, head = await wire(response), await wire(response, "HEAD")
    assert head[0] == got[0]
    assert dict(head[0]["headers"])[b"content-length"] == b"7"
    assert head[1]["body"] == b""


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_status_without_content_has_neither_body_nor_length(status: int, method: str) -> None:
    start, body = await wire(Response(b"must not go out", status), method)
    assert b"content-length" not in dict(start["headers"])
    assert body["body"] == b""


async def test_a_length_of_ones_own_is_kept() -> None:
    start, _ = await wire(Response(headers={"Content-Length": "12"}), "HEAD")
    assert [value for name, value in start["headers"] if name == b"content-length"] == [b"12"]


@pytest.mark.parametrize(
    ("response", "content_type", "body"),
    [
        (Response(b"x"), None, b"x"),
        (Response("x"), "text/plain; charset=utf-8", b"x"),
        (Response("x", content_type="text/csv"), "text/csv", b"x"),
        (Response("x", headers={"content-type": "text/a"}, content_type="text/b"), "text/a", b"x"),
        (PlainTextResponse("ü"), "text/plain; charset=utf-8", "ü".encode()),
        (HTMLResponse("<p>"), "text/html; charset=utf-8", b"<p>"),
        (JSONResponse({"a": [1, None]}), "application/json", b'{"a":[1,null]}'),
        (JSONResponse(None), "application/json", b"null"),
    ],
)
async def test_the_kinds(response: Response, content_type: str | None, body: bytes) -> None:
    start, content = await wire(response)
    found = dict(start["headers"]).get(b"content-type")
    assert (found.decode() if found else None, content["body"]) == (content_type, body)


async def test_a_request_changes_nothing_about_a_response_that_is_complete() -> None:
    response = Response()
    assert response.deferred is False
    assert await response.resolve({"method": "GET"}) is response


def test_a_response_says_what_it_is() -> None:
    assert repr(JSONResponse({}, 418)) == "<JSONResponse 418>"


# Headers


EVIL = ["a\r\nset-cookie: x=1", "a\nb", "a\rb", "a\0b", "a\x0bb", "a\x1fb", "a\x7fb"]


@pytest.mark.parametrize("value", EVIL)
@pytest.mark.parametrize(
    "put",
    [
        lambda value: Response(headers={"x": value}),
        lambda value: Response(headers=[("x", value)]),
        lambda value: Response(content_type=value),
        lambda value: Response().headers.add("x", value),
        lambda value: Response().headers.__setitem__("x", value),
        lambda value: Response().headers.setdefault("x", value),
        lambda value: Response().headers.update({"x": value}),
        lambda value: Response().headers.add_vary(value),
    ],
)
def test_no_header_can_be_put_into_another(put: Callable[[str], Any], value: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        put(value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "é", "Ж", "a\0", "(a)", "a,b"])
def test_a_header_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="no header name"):
        ResponseHeaders([(name, "x")])


def test_a_value_beyond_latin_1_says_to_encode_it() -> None:
    with pytest.raises(ValueError, match="encode it first"):
        ResponseHeaders({"x": "Ж"})
    assert ResponseHeaders({"x": "é\t~"}).raw == [(b"x", b"\xe9\t~")]


@given(st.text(max_size=20), st.text(max_size=40))
def test_what_headers_take_is_one_line(name: str, value: str) -> None:
    try:
        headers = ResponseHeaders([(name, value)])
    except ValueError:
        return
    [(raw_name, raw_value)] = headers.raw
    line = raw_name + b": " + raw_value
    assert len(line.splitlines()) == 1 or b"\x85" in line
    assert not set(b"\r\n\0") & set(line)
    assert headers[name] == value


def test_headers_are_a_mapping_without_case_that_keeps_repetitions() -> None:
    headers = ResponseHeaders([("Set-Cookie", "a=1"), ("X-One", "1"), ("set-cookie", "b=2")])
    assert headers["SET-COOKIE"] == "a=1"
    assert headers.getlist("set-cookie") == ["a=1", "b=2"]
    assert list(headers) == ["set-cookie", "x-one"]
    assert len(headers) == 2
    assert "x-ONE" in headers
    assert "x-two" not in headers
    assert 7 not in headers
    headers["x-one"] = "2"
    headers["set-cookie"] = "c=3"
    assert headers.raw == [(b"x-one", b"2"), (b"set-cookie", b"c=3")]
    del headers["Set-Cookie"]
    for lost in ("set-cookie", "never"):
        with pytest.raises(KeyError, match=lost):
            del headers[lost]
        with pytest.raises(KeyError, match=lost):
            headers[lost]
    assert repr(headers) == "ResponseHeaders([('x-one', '2')])"


def test_vary_names_each_header_once() -> None:
    headers = ResponseHeaders()
    for name in ("Cookie", "accept-encoding", "COOKIE"):
        headers.add_vary(name)
    assert headers["vary"] == "Cookie, accept-encoding"
    headers["vary"] = "*"
    headers.add_vary("Origin")
    assert headers["vary"] == "*"
    headers.raw[:] = [(b"vary", b"A ,, B"), (b"vary", b"C")]
    headers.add_vary("D")
    assert headers.raw == [(b"vary", b"A, B, C, D")]


# Cookies


def cookie(**options: Any) -> str:
    response = Response()
    response.set_cookie(options.pop("name", "a"), options.pop("value", "1"), **options)
    return response.headers["set-cookie"]


def test_a_cookie_is_safe_unless_said_otherwise() -> None:
    assert cookie() == "a=1; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert cookie(secure=False, http_only=False, same_site="strict") == "a=1; Path=/; SameSite=Strict"


def test_every_attribute_of_a_cookie() -> None:
    berlin = datetime.fromisoformat("2030-01-01T01:00:00+01:00")
    assert cookie(max_age=60, expires=berlin, path="/x", domain="example.org", same_site="none", partitioned=True) == (
        "a=1; Max-Age=60; Expires=Tue, 01 Jan 2030 00:00:00 GMT; Domain=example.org; Path=/x; Secure; HttpOnly; "
        "SameSite=None; Partitioned"
    )
    assert "Expires=Thu, 01 Jan 1970 00:00:00 GMT" in cookie(expires=datetime.fromtimestamp(0, UTC))


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""}, {"name": "a b"}, {"name": "a=b"}, {"name": "a;b"}, {"name": "Ж"}, {"name": "a\r\nb"},
        {"value": "a;b"}, {"value": "a b"}, {"value": 'a"b'}, {"value": "a,b"}, {"value": "a\\b"}, {"value": "é"},
        {"value": "a\r\nb"}, {"value": "a\0"},
        {"path": "/; Domain=evil"}, {"domain": "x; HttpOnly"}, {"path": "/\r\nx: y"}, {"domain": "a\nb"},
        {"name": "__Host-a", "secure": False}, {"name": "__Host-a", "domain": "x"}, {"name": "__Host-a", "path": "/x"},
        {"name": "__hoST-a", "path": "/x"}, {"name": "__Secure-a", "secure": False},
        {"name": "__SECURE-a", "secure": False},
        {"same_site": "none", "secure": False}, {"partitioned": True, "secure": False}, {"value": "x" * 4096},
    ],
)  # fmt: skip
def test_what_a_cookie_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cookie|header"):
        cookie(**options)


async def test_cookies_stand_beside_each_other_and_can_be_deleted() -> None:
    app = Covet({}, installed_plugins=False)

    @app.get("/set")
    async def set_both() -> Response:
        response = Response("set")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2", path="/", max_age=100)
        return response

    @app.get("/drop")
    async def drop() -> Response:
        response = Response("dropped")
        response.delete_cookie("a")
        return response

    @app.get("/show")
    async def show(request: Request) -> Any:
        return dict(request.cookies)

    async with TestClient(app) as client:
        got = await client.get("/set")
        assert len(got.headers.get_list("set-cookie")) == 2
        assert (await client.get("/show")).json() == {"a": "1", "b": "2"}
        got = await client.get("/drop")
        assert got.headers["set-cookie"] == "a=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
        assert (await client.get("/show")).json() == {"b": "2"}


def test_deleting_a_partitioned_cookie_says_so() -> None:
    response = Response()
    response.delete_cookie("a", partitioned=True, path="/x")
    assert response.headers["set-cookie"].endswith("Path=/x; Secure; HttpOnly; SameSite=Lax; Partitioned")


# Private responses


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ([], [("cache-control", "private"), ("vary", "Cookie")]),
        ([("etag", '"1"')], [("etag", '"1"'), ("cache-control", "private"), ("vary", "Cookie")]),
        ([("vary", "*")], [("vary", "*"), ("cache-control", "private")]),
        ([("vary", "Accept, cookie")], [("vary", "Accept, cookie"), ("cache-control", "private")]),
        # How long it may be kept was said of a response for everybody.
        ([("expires", "Thu, 26 Nov 2099 08:00:00 GMT")], [("vary", "Cookie"), ("cache-control", "private")]),
        ([("cache-control", "max-age=9"), ("cache-control", "Public , no-transform")],
         [("vary", "Cookie"), ("cache-control", "no-transform, private")]),
        ([("cache-control", "immutable, stale-if-error=9, Stale-While-Revalidate = 9")],
         [("vary", "Cookie"), ("cache-control", "private")]),
        # Its author knew that it is for one visitor.
        ([("cache-control", "private, max-age=9"), ("expires", "0")],
         [("cache-control", "private, max-age=9"), ("expires", "0"), ("vary", "Cookie")]),
        ([("cache-control", "private, public, s-maxage=9, max-age=9")],
         [("vary", "Cookie"), ("cache-control", "private, max-age=9")]),
        # Some caches hear this, and not what Cache-Control says (RFC 9213).
        ([("cdn-cache-control", "max-age=9"), ("surrogate-control", "max-age=9")],
         [("vary", "Cookie"), ("cache-control", "private")]),
        ([("cache-control", "no-store"), ("Example-CDN-Cache-Control", "max-age=9")],
         [("cache-control", "no-store"), ("vary", "Cookie")]),
    ],
)  # fmt: skip
def test_a_private_response_is_in_no_shared_cache(given: list[tuple[str, str]], becomes: list[tuple[str, str]]) -> None:
    response = Response(headers=given)
    make_private(response)
    sent = [(name.decode(), value.decode()) for name, value in response.headers.raw]
    assert sent == becomes
    make_private(response)
    assert [(name.decode(), value.decode()) for name, value in response.headers.raw] == sent


DIRECTIVES = [
    "public", "PRIVATE", "private", 'private="x-a, public"', "no-store", "no-cache", "max-age=9", "s-maxage = 9",
    "must-revalidate", "proxy-revalidate", "immutable", "stale-if-error=9", 'x-own="a, \\"max-age=9"', "",
]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(DIRECTIVES), max_size=5).map(", ".join), max_size=3))
def test_whatever_was_said_before_it_is_private_and_no_less_strict(lines: list[str]) -> None:
    response = Response(headers=[("cache-control", line) for line in lines])
    make_private(response)
    sent = ", ".join(response.headers.getlist("cache-control"))
    words = [word.strip() for word in sent.replace('private="x-a, public"', "").split(",")]
    assert {"private", "no-store"} & {word.lower() for word in words}
    assert not {"public", "s-maxage = 9", "proxy-revalidate"} & set(words)
    said = ", ".join(lines)
    for stricter in ("no-store", "no-cache", "must-revalidate"):
        assert (stricter in words) == (stricter in said)


# Redirects


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/a?b=c&d=%20#e", "/a?b=c&d=%20#e"),
        ("/é ü", "/%C3%A9%20%C3%BC"),
        ("https://example.org:8000/[x]", "https://example.org:8000/[x]"),
        ("/\\evil.example", "/%5Cevil.example"),
        ('/"<script>', "/%22%3Cscript%3E"),
    ],
)
async def test_where_a_redirect_leads(url: str, location: str) -> None:
    start, body = await wire(RedirectResponse(url))
    assert (start["status"], dict(start["headers"])[b"location"].decode(), body["body"]) == (307, location, b"")


@pytest.mark.parametrize("url", ["/a\r\nset-cookie: b=c", "/a\nb", "/\0", "/\x7f", "\t/a"])
def test_a_redirect_holds_no_control_characters(url: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        RedirectResponse(url)


@pytest.mark.parametrize("status", [200, 300, 304, 309, 404])
def test_a_redirect_has_a_status_that_browsers_follow(status: int) -> None:
    with pytest.raises(ValueError, match="no redirect"):
        RedirectResponse("/", status)


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
async def test_following_a_redirect(status: int, method: str) -> None:
    app = Covet({}, installed_plugins=False)

    @app.post("/from")
    async def leave() -> Response:
        return RedirectResponse("/to?x=1", status)

    @app.route("/to", ["GET", "POST"])
    async def arrive(request: Request, x: int) -> str:
        return f"{request.method} {x}"

    async with TestClient(app, follow_redirects=True) as client:
        assert (await client.post("/from")).text == f"{method} 1"
