"""What no well-behaved client sends, through a whole application: each ends in the documented status, as a problem
document, and the application serves on.

The requests are ASGI scopes, since a client library would refuse to send most of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache, partial
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import UUID

import anyio
import msgspec
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from covet import (
    Body,
    Cookie,
    Covet,
    Form,
    Header,
    Query,
    Request,
    UploadFile,
)

pytestmark = pytest.mark.anyio

Headers = Sequence[tuple[bytes, bytes]]
HOST = (b"host", b"localhost")
JSON = (b"content-type", b"application/json")
URLENCODED = (b"content-type", b"application/x-www-form-urlencoded")
MULTIPART = (b"content-type", b"multipart/form-data; boundary=b")


class Answer(NamedTuple):
    """What an application sent."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def chunk(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def ask(
    app: Covet,
    path: str = "/",
    method: str = "GET",
    *,
    query: bytes = b"",
    headers: Headers = (HOST,),
    body: bytes | Sequence[dict[str, Any]] | Callable[[], Awaitable[Any]] = b"",
    **scope: Any,
) -> Answer:
    """Serve one request; the response must be complete."""
    sent: list[Any] = []
    left = [chunk(body)] if isinstance(body, bytes) else [] if callable(body) else list(body)

    async def receive() -> Any:
        if callable(body):
            return await body()
        if not left:
            await anyio.sleep_forever()
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    full = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "query_string": query, "headers": list(headers), "root_path": "", "client": None, **scope,
    }  # fmt: skip
    await app(full, receive, send)
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert [message.get("more_body", False) for message in rest] == [True] * (len(rest) - 1) + [False]
    return Answer(start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in rest))


def ask_now(*args: Any, **kwargs: Any) -> Answer:
    """`ask` from a function that is not asynchronous, as those that hypothesis drives are."""
    return anyio.run(partial(ask, *args, **kwargs))


def check_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers[b"content-type"] == b"application/problem+json"
    assert int(answer.headers[b"content-length"]) == len(answer.body)
    assert answer.json["status"] == status
    assert answer.json["title"]
    assert "Traceback" not in answer.body.decode()


@asynccontextmanager
async def serving(caplog: pytest.LogCaptureFixture, **settings: Any) -> AsyncIterator[Covet]:
    """An application; afterwards it serves a good request, and nothing was worth more than a debug line."""
    app = make_app(**settings) if settings else usual_app()
    with caplog.at_level(logging.DEBUG):
        async with app.running():
            yield app
            good = await ask(app, "/json", "POST", headers=[HOST, JSON], body=b'{"still": "here"}')
            assert (good.status, good.json) == (200, {"still": "here"})
    told = [r for r in caplog.records if r.name.startswith("covet") and r.levelno > logging.DEBUG]
    assert told == []


async def check_refused(caplog: pytest.LogCaptureFixture, status: int, /, *args: Any, **kwargs: Any) -> Answer:
    async with serving(caplog) as app:
        answer = await ask(app, *args, **kwargs)
        check_problem(answer, status)
    return answer


class Order(msgspec.Struct):
    item: str
    count: int = 1
    price: float = 0.0
    numbers: list[int] = []


class Model(pydantic.BaseModel):
    item: str
    count: int = 1
    numbers: list[int] = []


@dataclass
class Ranges:
    low: float = 0.0
    high: Decimal = Decimal(0)
    many: list[float] | None = None


class Renamed(msgspec.Struct, rename="camel"):
    top_price: float = 0.0


async def in_query(
    request: Request,
    n: int = 0,
    x: float = 0.0,
    d: Decimal = Decimal(0),
    xs: list[float] = [],  # noqa: B006
    ds: set[Decimal] = set(),  # noqa: B006
    either: int | float = 0,
    day: date | None = None,
    flag: bool = False,
) -> Any:
    return [n, x, d, xs, sorted(ds), either, day, flag]


def make_app(**settings: Any) -> Covet:
    app = Covet(settings, installed_plugins=False)

    @app.get("/")
    async def root() -> str:
        return "ok"

    @app.post("/json")
    async def any_json(body: dict[str, Any]) -> Any:
        return body

    @app.post("/list")
    async def any_list(body: list[Any]) -> Any:
        return body

    @app.post("/order")
    async def order(body: Order) -> Any:
        return body

    @app.post("/model")
    async def model(body: Model) -> Any:
        return body.model_dump()

    @app.post("/request-json")
    async def request_json(request: Request) -> Any:
        return await request.json()

    @app.post("/bytes")
    async def raw(body: Annotated[bytes, Body()] = b"") -> Any:
        return {"size": len(body)}

    @app.post("/stream")
    async def stream(request: Request) -> Any:
        return {"size": sum([len(part) async for part in request.stream()])}

    app.get("/query")(in_query)

    @app.get("/ranges")
    async def ranges(found: Annotated[Ranges, Query()]) -> Any:
        return [found.low, found.high, found.many]

    @app.get("/renamed")
    async def renamed(found: Annotated[Renamed, Query()]) -> Any:
        return found

    @app.get("/int/{n:int}")
    async def path_int(n: int) -> Any:
        return {"n": n}

    @app.get("/number/{n}")
    async def path_number(n: int) -> Any:
        return {"n": n}

    @app.get("/float/{x:float}")
    async def path_float(x: float) -> Any:
        return {"x": x}

    @app.get("/text/{name}")
    async def path_text(name: str) -> Any:
        return {"name": name}

    @app.get("/files/{path:path}")
    async def path_path(path: str) -> Any:
        return {"path": path}

    @app.get("/mixed/{name}.{day:date}.{id:uuid}")
    async def path_mixed(name: str, day: date, id: UUID) -> Any:
        return [name, day, id]

    @app.get("/slug/{s:slug}")
    async def path_slug(s: str) -> Any:
        return {"s": s}

    @app.get("/slashed/{name}/")
    async def slashed(name: str) -> Any:
        return name

    @app.get("/header")
    async def header(x_token: Annotated[str, Header()] = "none") -> Any:
        return {"token": x_token}

    @app.get("/names")
    async def names(request: Request) -> Any:
        return sorted({*request.headers, *(name for name, _ in request.headers.multi_items())})

    @app.get("/numbers")
    async def header_numbers(x_n: Annotated[int, Header()] = 0, c: Annotated[int, Cookie()] = 0) -> Any:
        return [x_n, c]

    @app.get("/cookie")
    async def cookie(c: Annotated[str, Cookie()] = "none") -> Any:
        return {"c": c}

    @app.get("/host")
    async def host(request: Request) -> Any:
        return {"url": str(request.url), "host": request.host}

    @app.post("/form")
    async def form(request: Request) -> Any:
        found = await request.form()
        return [[name, value if isinstance(value, str) else value.filename] for name, value in found.multi_items()]

    @app.post("/login")
    async def login(user: Annotated[str, Form()], age: Annotated[int, Form()] = 0) -> Any:
        return user + str(age)

    @app.post("/upload")
    async def upload(file: UploadFile) -> Any:
        return [file.filename, file.content_type, file.size]

    return app


@cache
def usual_app() -> Covet:
    """The application with its default settings, built once; it runs once per test."""
    return make_app()


# JSON

MALFORMED = {
    "empty": b"",
    "blank": b" \r\n",
    "cut short": b'{"item": "x"',
    "cut within a string": b'{"item": "x',
    "two values": b"{} {}",
    "a trailing comma": b'{"item": 1,}',
    "single quotes": b"{'item': 1}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"item": "x"}'.encode("utf-16"),
    "NaN": b'{"item": NaN}',
    "Infinity": b'{"item": Infinity}',
    "-Infinity": b'{"item": -Infinity}',
    "a sign": b'{"count": +5}',
    "a leading zero": b'{"count": 05}',
    "hexadecimal": b'{"count": 0x5}',
    "NUL": b"\0",
    "NUL in a string": b'{"item": "\0"}',
    "NUL after": b"{}\0",
    "invalid UTF-8 in a string": b'{"item": "\xff"}',
    "invalid UTF-8 in a name": b'{"\xff": 1}',
    "an encoded surrogate": b'{"item": "\xed\xa0\x80"}',
    "an overlong NUL": b'{"item": "\xc0\x80"}',
    "a lone high surrogate": b'{"item": "\\ud800"}',
    "a lone high surrogate within": b'{"item": "a\\ud800bcdefgh"}',
    "a lone low surrogate": b'{"item": "\\udc00"}',
    "swapped surrogates": b'{"item": "\\udc00\\ud800"}',
    "an unknown escape": b'{"item": "\\x41"}',
    "arrays nested 100,000 deep": b"[" * 100_000,
    "closed arrays nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "objects nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested deep in a member": b'{"item": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested deep in an unknown member": b'{"item": "x", "y": ' + b'[{"a":' * 50_000 + b"1" + b"}]" * 50_000 + b"}",
}


@pytest.mark.parametrize("path", ["/json", "/list", "/order", "/model", "/request-json"])
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_json_is_a_400(caplog: pytest.LogCaptureFixture, path: str, body: bytes) -> None:
    async with serving(caplog) as app:
        for parts in (body, [chunk(body[:1], more=True), chunk(body[1:])]):
            check_problem(await ask(app, path, "POST", headers=[HOST, JSON], body=parts), 400)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 5000, "-1" + "0" * 5000])
@pytest.mark.parametrize("path", ["/json", "/order"])
async def test_numbers_beyond_any_type_are_a_422(caplog: pytest.LogCaptureFixture, path: str, number: str) -> None:
    for name in ("count", "price", "unknown"):
        body = f'{{"item": "x", "{name}": {number}}}'.encode()
        async with serving(caplog) as app:
            answer = await ask(app, path, "POST", headers=[HOST, JSON], body=body)
            if path == "/order" and name == "unknown":
                assert answer.status in (200, 422), "what is not asked for need not be looked at"
            else:
                check_problem(answer, 422)


async def test_integers_beyond_64_bits_come_through_or_are_a_422(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        for number in (2**63, 2**64, 10**30, -(10**30), 10**4000):
            answer = await ask(
                app, "/order", "POST", headers=[HOST, JSON], body=f'{{"item":"x","count":{number}}}'.encode()
            )
            if answer.status == 200:
                assert answer.json["count"] == number
            else:
                check_problem(answer, 422)


@pytest.mark.parametrize(
    "body", [b"1", b'"x"', b"null", b"[]", b"{}", b'{"item": null}', b'{"item": {}}', b'{"item": 1}']
)
@pytest.mark.parametrize("path", ["/order", "/model"])
async def test_json_of_the_wrong_type_is_a_422(caplog: pytest.LogCaptureFixture, path: str, body: bytes) -> None:
    answer = await check_refused(caplog, 422, path, "POST", headers=[HOST, JSON], body=body)
    assert all(fault["in"] == "body" and fault["detail"] for fault in answer.json["errors"])


@pytest.mark.parametrize("path", ["/order", "/model"])
async def test_the_answer_to_many_faults_is_bounded(caplog: pytest.LogCaptureFixture, path: str) -> None:
    body = b'{"item": "x", "numbers": [' + b",".join([b'"x"'] * 50_000) + b"]}"
    answer = await check_refused(caplog, 422, path, "POST", headers=[HOST, JSON], body=body)
    assert len(answer.json["errors"]) == 100


TYPES: list[list[bytes]] = [
    [],
    [b""],
    [b"text/plain"],
    [b"application/x-www-form-urlencoded"],
    [b"multipart/form-data; boundary=b"],
    [b"application/json, text/plain"],
    [b"text/plain;application/json"],
    [b"application/jsonp"],
    [b"application/\0json"],
    [b"\xff"],
    [b"application/json", b"text/plain"],
    [b"text/plain", b"application/json"],
    [b"application/json", b"application/json"],
]


@pytest.mark.parametrize("path", ["/json", "/order", "/model", "/request-json"])
@pytest.mark.parametrize("types", TYPES, ids=repr)
async def test_json_that_is_sent_as_anything_else_is_a_415(
    caplog: pytest.LogCaptureFixture, path: str, types: list[bytes]
) -> None:
    headers = [HOST, *[(b"content-type", value) for value in types]]
    await check_refused(caplog, 415, path, "POST", headers=headers, body=b'{"item": "x"}')


# Numbers as text

ODD_INTEGERS = ["+5", " 5", "5 ", "1_0", "0x10", "--1", "1e400", "\u0663", "\uff15", "²", "9" * 5000, "1" * 4301, ""]
ODD_NUMBERS = ["nan", "NaN", "inf", "-inf", "Infinity", "1e400", "9" * 400, "1_0", "\u0663.\u0665", "0x1p3", " 1", ""]


def encoded(text: str) -> bytes:
    if text.isalnum() and text.isascii():
        return text.encode()
    return "".join(f"%{byte:02X}" for byte in text.encode()).encode()


@pytest.mark.parametrize("text", ODD_INTEGERS, ids=ascii)
async def test_what_is_no_integer_is_a_422_in_the_query_and_no_match_in_the_path(
    caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async with serving(caplog) as app:
        answer = await ask(app, "/query", query=b"n=" + encoded(text))
        check_problem(answer, 422)
        assert [fault["pointer"] for fault in answer.json["errors"]] == ["/n"]
        assert len(answer.body) < 1000
        check_problem(await ask(app, f"/int/{text}"), 404)
        check_problem(await ask(app, f"/number/{text}"), 422 if text else 404)
        body = b"user=x&age=" + encoded(text)
        check_problem(await ask(app, "/login", "POST", headers=[HOST, URLENCODED], body=body), 422)
        if text.strip() == text and text.isascii():
            header, cookie = (b"x-n", text.encode()), (b"cookie", b"c=" + text.encode())
            check_problem(await ask(app, "/numbers", headers=[HOST, header]), 422)
            check_problem(await ask(app, "/numbers", headers=[HOST, cookie]), 422)


async def test_an_integer_beyond_the_digits_that_python_converts_is_no_match(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        assert (await ask(app, "/int/" + "1" * 4000)).status == 200
        check_problem(await ask(app, "/int/" + "1" * 4301), 404)
        check_problem(await ask(app, "/int/" + "1" * 8000), 404)


@pytest.mark.parametrize("text", ODD_NUMBERS, ids=ascii)
async def test_what_is_no_finite_number_is_a_422(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with serving(caplog) as app:
        for path, name, pointer in (
            ("/query", b"x", "/x"),
            ("/query", b"d", "/d"),
            ("/query", b"either", "/either"),
            ("/query", b"xs=1&xs", "/xs"),
            ("/query", b"ds=1&ds", "/ds"),
            ("/ranges", b"low", "/low"),
            ("/ranges", b"high", "/high"),
            ("/ranges", b"many=1&many", "/many"),
            ("/renamed", b"topPrice", "/topPrice"),
        ):
            if name in (b"d", b"ds=1&ds", b"high") and text in ("1e400", "9" * 400):
                continue  # a Decimal has no bounds
            if name == b"either" and text == "9" * 400:
                continue  # it is an integer
            answer = await ask(app, path, query=name + b"=" + encoded(text))
            if path == "/query" and name == b"ds=1&ds" and text in ("1_0", "\u0663.\u0665", " 1"):
                assert answer.status in (200, 422), "a set has lost what was written"
                continue
            check_problem(answer, 422)
            assert answer.json["errors"][0]["pointer"].startswith(pointer)
        check_problem(await ask(app, f"/float/{text}"), 404)


async def test_good_numbers_come_through(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        query = b"n=-9223372036854775809&x=-1.5e3&d=1.50&xs=1&xs=2.5&ds=2&ds=1&either=1.5&flag=1&day=2026-02-28"
        answer = await ask(app, "/query", query=query)
        assert answer.json == [-9223372036854775809, -1500.0, "1.50", [1.0, 2.5], ["1", "2"], 1.5, "2026-02-28", True]
        assert (await ask(app, "/ranges", query=b"low=1&high=1e5&many=1")).json == [1.0, "1E+5", [1.0]]
        assert (await ask(app, "/ranges")).json == [0.0, "0", None]
        assert (await ask(app, "/renamed", query=b"topPrice=2")).json == {"topPrice": 2.0}
        assert (await ask(app, "/float/12.5")).json == {"x": 12.5}


# NUL bytes, invalid UTF-8 and lone surrogates, everywhere

LONE = "\udcff"

BYTES_IN_PLACES: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "NUL in a path parameter": (404, "/text/a\0b", "GET", {}),
    "NUL in the rest of a path": (404, "/files/a/\0", "GET", {}),
    "NUL in a path between converters": (404, f"/mixed/a\0.2026-01-01.{UUID(int=0)}", "GET", {}),
    "NUL in a path that nothing answers": (404, "/nothing/\0", "GET", {}),
    "what stands for invalid UTF-8 in a path parameter": (404, "/text/a\ufffd", "GET", {}),
    "what stands for invalid UTF-8 in the rest of a path": (404, "/files/a/\ufffd", "GET", {}),
    "a lone surrogate in a path parameter": (404, f"/text/{LONE}", "GET", {}),
    "a lone surrogate in the rest of a path": (404, f"/files/{LONE}", "GET", {}),
    "a lone surrogate in a path that nothing answers": (404, f"/nothing/{LONE}", "GET", {}),
    "a lone surrogate in a path with another slash": (404, f"/slashed/{LONE}", "GET", {}),
    "a lone surrogate in a path of another method": (404, f"/text/{LONE}", "POST", {}),
    "NUL in the query": (400, "/query", "GET", {"query": b"n=1&a=%00"}),
    "a raw NUL in the query": (400, "/query", "GET", {"query": b"n=1&a=\0"}),
    "NUL in a name of the query": (400, "/query", "GET", {"query": b"a%00=1"}),
    "invalid UTF-8 in the query": (400, "/query", "GET", {"query": b"a=%FF"}),
    "raw invalid UTF-8 in the query": (400, "/query", "GET", {"query": b"a=\xff"}),
    "an encoded surrogate in the query": (400, "/query", "GET", {"query": b"a=%ED%A0%80"}),
    "an overlong NUL in the query": (400, "/query", "GET", {"query": b"a=%C0%80"}),
    "NUL in a header": (400, "/header", "GET", {"headers": [HOST, (b"x-token", b"a\0b")]}),
    "NUL in the name of a header": (400, "/header", "GET", {"headers": [HOST, (b"x-\0", b"a")]}),
    "a line break in a header": (400, "/header", "GET", {"headers": [HOST, (b"x-token", b"a\r\nx: 1")]}),
    "a bare line feed in a header": (400, "/header", "GET", {"headers": [HOST, (b"x-token", b"a\nx: 1")]}),
    "NUL in a cookie": (400, "/cookie", "GET", {"headers": [HOST, (b"cookie", b"c=\0")]}),
    "NUL in a form's value": (400, "/form", "POST", {"headers": [HOST, URLENCODED], "body": b"a=%00"}),
    "NUL in a form's name": (400, "/form", "POST", {"headers": [HOST, URLENCODED], "body": b"\0=1"}),
    "invalid UTF-8 in a form's value": (400, "/form", "POST", {"headers": [HOST, URLENCODED], "body": b"a=%FF"}),
    "invalid UTF-8 in a form's name": (400, "/form", "POST", {"headers": [HOST, URLENCODED], "body": b"\xff=1"}),
    "a surrogate in a form": (400, "/form", "POST", {"headers": [HOST, URLENCODED], "body": b"a=%ED%B3%BF"}),
}


def part(disposition: bytes, content: bytes = b"x", *headers: bytes) -> bytes:
    lines = [b"--b", b"Content-Disposition: " + disposition, *headers, b"", content, b"--b--", b""]
    return b"\r\n".join(lines)


for _where, _part in {
    "a multipart value": (b'form-data; name="a"', b"\0"),
    "a multipart name": (b'form-data; name="a\0"', b"x"),
    "a filename": (b'form-data; name="a"; filename="a\0.txt"', b"x"),
}.items():
    for _what, _byte in {"NUL": b"\0", "invalid UTF-8": b"\xff", "a surrogate": b"\xed\xa0\x80"}.items():
        _body = part(*(piece.replace(b"\0", _byte) for piece in _part))
        BYTES_IN_PLACES[f"{_what} in {_where}"] = (400, "/form", "POST", {"headers": [HOST, MULTIPART], "body": _body})


@pytest.mark.parametrize("case", BYTES_IN_PLACES.values(), ids=BYTES_IN_PLACES)
async def test_bytes_that_are_no_text_are_refused(
    caplog: pytest.LogCaptureFixture, case: tuple[int, str, str, dict[str, Any]]
) -> None:
    status, path, method, request = case
    await check_refused(caplog, status, path, method, **request)


async def test_headers_that_are_no_ascii_are_latin_1(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        assert (await ask(app, "/header", headers=[HOST, (b"x-token", b"\xff")])).json == {"token": "ÿ"}
        assert (await ask(app, "/cookie", headers=[HOST, (b"cookie", b"c=\xc3\xa9")])).json == {"c": "Ã©"}


async def test_an_escaped_nul_in_json_is_text_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        answer = await ask(app, "/json", "POST", headers=[HOST, JSON], body=b'{"a": "\\u0000", "b": "\\ud83d\\ude00"}')
        assert answer.json == {"a": "\0", "b": "😀"}


# Headers


async def test_a_repeated_authorization_is_no_single_one() -> None:
    app = Covet(installed_plugins=False)

    @app.get("/")
    async def show(request: Request, authorization: Annotated[str, Header()]) -> Any:
        return [authorization, request.headers.getlist("authorization")]

    async with app.running():
        headers = [HOST, (b"authorization", b"Basic YQ=="), (b"authorization", b"Bearer b")]
        assert (await ask(app, headers=headers)).json == ["Basic YQ==, Bearer b", ["Basic YQ==", "Bearer b"]]


async def test_headers_with_an_underscore_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        for name in (b"x_token", b"X_Token", b"x-token_"):
            assert (await ask(app, "/header", headers=[HOST, (name, b"evil")])).json == {"token": "none"}
            assert (await ask(app, "/names", headers=[HOST, (name, b"evil")])).json == ["host"]
        both = [HOST, (b"x_token", b"evil"), (b"x-token", b"good"), (b"x_token", b"evil")]
        assert (await ask(app, "/header", headers=both)).json == {"token": "good"}
        check_problem(
            await ask(app, "/json", "POST", headers=[HOST, (b"content_type", b"application/json")], body=b"{}"), 415
        )
        check_problem(await ask(app, "/host", headers=[(b"ho_st", b"a")]), 400)


@pytest.mark.parametrize("path", ["/header", "/", "/nothing", "/text/x"])
async def test_too_many_headers_are_a_431_everywhere(caplog: pytest.LogCaptureFixture, path: str) -> None:
    await check_refused(caplog, 431, path, headers=[HOST, *[(b"a", b"")] * 100])


@pytest.mark.parametrize(
    ("path", "method"), [("/header", "GET"), ("/cookie", "GET"), ("/nothing", "GET"), ("/", "POST"), ("/login", "POST")]
)
@pytest.mark.parametrize("header", [(b"x-a", b"x" * 40_000), (b"x-a", b"\0")], ids=["large", "NUL"])
async def test_headers_that_are_refused_stay_so_when_an_error_page_looks_at_them(
    caplog: pytest.LogCaptureFixture, path: str, method: str, header: tuple[bytes, bytes]
) -> None:
    async with serving(caplog) as app:
        answer = await ask(app, path, method, headers=[HOST, header])
        assert 400 <= answer.status < 500
        check_problem(answer, answer.status)


async def test_cookies_are_bounded_by_the_size_of_the_headers(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        most = b"; ".join(b"c%d=v" % n for n in range(3000))
        assert (await ask(app, "/cookie", headers=[HOST, (b"cookie", most)])).status == 200
        check_problem(await ask(app, "/cookie", headers=[HOST, (b"cookie", b"a=" + b"x" * 40_000)]), 431)
        check_problem(await ask(app, "/cookie", headers=[HOST, *[(b"cookie", b"a=" + b"x" * 1000)] * 40]), 431)
        odd = (b"cookie", b"=; ;;c; =x; c=1; c=2; \x85c=3; __Host-c")
        assert (await ask(app, "/cookie", headers=[HOST, odd])).json == {"c": "1"}


HOSTS: list[list[bytes]] = [
    [],
    [b""],
    [b" "],
    [b"a", b"a"],
    [b"a", b"b"],
    [b"a,b"],
    [b"a b"],
    [b"a/b"],
    [b"a\\b"],
    [b"a?b"],
    [b"a#b"],
    [b"u@a"],
    [b"a:b"],
    [b"a:80:80"],
    [b"a:99999"],
    [b"a:-1"],
    [b"a:+80"],
    [b"a:\xb2"],
    [b".a"],
    [b"a..b"],
    [b"%61"],
    [b"a%00"],
    [b"[::1"],
    [b"::1"],
    [b"[::1]x"],
    [b"[v1.a]"],
    [b"[::1%25eth0]"],
    [b"\xc3\xa9.example"],
    [b"http://a"],
    [b"a" * 300],
    [b"a\0"],
    [b"a\r\nx: y"],
]


@pytest.mark.parametrize("lines", HOSTS, ids=repr)
async def test_a_host_that_is_none_is_a_400(caplog: pytest.LogCaptureFixture, lines: list[bytes]) -> None:
    await check_refused(caplog, 400, "/host", headers=[(b"host", line) for line in lines])


# Targets

TARGETS = [
    "//evil.example",
    "//evil.example/",
    "///evil.example/..",
    "/\\evil.example",
    "/@evil.example",
    "@evil.example",
    ":80@evil.example/",
    "http://evil.example/",
    "https://evil.example/text/x",
    "javascript:alert(1)",
    "*",
    "/../",
    "/..",
    "/../../etc/passwd",
    "/.//",
    "/text/../x",
    "/text/a/b",
    "/text/",
    "/%2e%2e/",
    "/text%2Fx",
    "/\r\nlocation: x/",
    "/" * 5000,
    "/a" * 4000,
]


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: ascii(path[:30]))
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "BREW"])
async def test_targets_that_lead_elsewhere_lead_nowhere(
    caplog: pytest.LogCaptureFixture, path: str, method: str
) -> None:
    answer = await check_refused(caplog, 404, path, method)
    assert b"location" not in answer.headers


async def test_a_path_that_is_too_long_is_a_414(caplog: pytest.LogCaptureFixture) -> None:
    for path in (
        "/" + "a" * 9000,
        "/text/" + "a" * 9000,
        "/files/" + "/a" * 9000,
        "/int/" + "1" * 9000,
        "/" * 1_000_000,
    ):
        await check_refused(caplog, 414, path)
    await check_refused(caplog, 414, "/query", query=b"a" * 9000)
    await check_refused(caplog, 400, "/query", query=b"&".join([b"a"] * 1001))


async def test_percent_signs_that_encode_nothing_stand_for_themselves(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        body = b"100%=%&%4=%zz&a=%u0041&%25=%2541"
        answer = await ask(app, "/form", "POST", headers=[HOST, URLENCODED], body=body)
        assert answer.json == [["100%", "%"], ["%4", "%zz"], ["a", "%u0041"], ["%", "%41"]]


# Bodies


@pytest.mark.parametrize("path", ["/bytes", "/json", "/stream", "/form"])
@pytest.mark.parametrize("length", [b"-5", b"+5", b"", b" 5", b"5,5", b"0x5", b"\xb2", b"1_0", b"9" * 30, b"NaN"])
async def test_a_content_length_that_is_no_number_is_a_400(
    caplog: pytest.LogCaptureFixture, path: str, length: bytes
) -> None:
    headers = [HOST, (b"content-length", length), URLENCODED if path == "/form" else JSON]
    await check_refused(caplog, 400, path, "POST", headers=headers, body=[chunk(b'{"a"', more=True), chunk(b":1}")])
    async with serving(caplog) as app:
        # What is there as a whole has been framed by the server, and is taken or refused as a whole.
        answer = await ask(app, path, "POST", headers=headers, body=b'{"a":1}')
        assert answer.status in (200, 400)


async def test_two_content_lengths_are_a_400(caplog: pytest.LogCaptureFixture) -> None:
    headers = [HOST, (b"content-length", b"4"), (b"content-length", b"5")]
    await check_refused(caplog, 400, "/bytes", "POST", headers=headers, body=[chunk(b"ab", more=True), chunk(b"cd")])


@pytest.mark.parametrize("announced", [[], [b"0"], [b"1"], [b"1000"]])
@pytest.mark.parametrize("path", ["/bytes", "/stream", "/json", "/form"])
async def test_bytes_are_counted_whatever_was_announced(
    caplog: pytest.LogCaptureFixture, announced: list[bytes], path: str
) -> None:
    kind = URLENCODED if path == "/form" else JSON
    headers = [HOST, kind, *[(b"content-length", value) for value in announced]]
    async with serving(caplog, limits={"max_body": 100}) as app:
        good = b'{"a":"' + b"x" * 80 + b'"}'
        answer = await ask(app, path, "POST", headers=headers, body=[chunk(good[:9], more=True), chunk(good[9:])])
        if announced == [b"1000"]:
            check_problem(answer, 413)
        else:
            assert answer.status == 200
        for sent in ([chunk(b"x" * 101)], [chunk(b"x" * 60, more=True), chunk(b"x" * 60, more=True)]):
            check_problem(await ask(app, path, "POST", headers=headers, body=sent), 413)


@pytest.mark.parametrize("path", ["/bytes", "/stream", "/json", "/order", "/model", "/form", "/login", "/upload"])
@pytest.mark.parametrize("drip", [False, True])
async def test_a_slow_body_is_a_408(caplog: pytest.LogCaptureFixture, path: str, drip: bool) -> None:
    kinds = {"/form": URLENCODED, "/login": URLENCODED, "/upload": MULTIPART}

    pieces = iter(part(b'form-data; name="file"; filename="x"')[:-10])

    async def receive() -> Any:
        await (anyio.sleep(0.002) if drip else anyio.sleep_forever())
        return chunk(bytes([next(pieces, 120)]), more=True)

    async with serving(caplog, limits={"body_timeout": 0.03}) as app:
        check_problem(await ask(app, path, "POST", headers=[HOST, kinds.get(path, JSON)], body=receive), 408)


async def test_a_million_fields_are_a_400(caplog: pytest.LogCaptureFixture) -> None:
    for body in (b"&".join([b"a=1"] * 1_000_000), b"&" * 1_000_000, b"a=1&" * 1001):
        await check_refused(caplog, 400, "/form", "POST", headers=[HOST, URLENCODED], body=body)
    await check_refused(caplog, 413, "/form", "POST", headers=[HOST, URLENCODED], body=b"a=" + b"x" * (2**20 + 1))


@pytest.mark.parametrize(
    "headers",
    [
        [HOST],
        [HOST, JSON],
        [HOST, (b"content-type", b"multipart/mixed; boundary=b")],
        [HOST, (b"content-type", b"text/plain")],
        [HOST, URLENCODED, MULTIPART],
        [HOST, (b"content_type", b"application/x-www-form-urlencoded")],
    ],
)
async def test_a_form_that_is_sent_as_anything_else_is_a_415(
    caplog: pytest.LogCaptureFixture, headers: Headers
) -> None:
    await check_refused(caplog, 415, "/login", "POST", headers=headers, body=b"user=x")


async def test_a_file_where_text_is_expected_and_text_where_a_file_is(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(caplog) as app:
        body = part(b'form-data; name="user"; filename="x.txt"')
        answer = await ask(app, "/login", "POST", headers=[HOST, MULTIPART], body=body)
        check_problem(answer, 422)
        assert answer.json["errors"] == [{"in": "form", "pointer": "/user", "detail": "is text, not a file"}]
        answer = await ask(app, "/upload", "POST", headers=[HOST, MULTIPART], body=part(b'form-data; name="file"'))
        check_problem(answer, 422)
        assert answer.json["errors"] == [{"in": "form", "pointer": "/file", "detail": "is a file, not text"}]


# Whatever comes


@pytest.fixture(scope="module")
def built() -> Covet:
    """An application for tests that hypothesis runs many times, without its lifespan."""
    app = make_app()
    app.build()
    return app


path_texts = st.text(st.characters() | st.sampled_from("/.%@:\\?#\0"), max_size=40)
some_bytes = st.binary(max_size=60)


@given(
    st.sampled_from(["", "/text", "/files", "/int", "/float", "/mixed", "/slug", "/slashed", "/", "//"]),
    path_texts,
    st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "get", ""]),
)
@example("/slashed", "/\\evil.example", "GET")
@example("", "//evil.example", "GET")
@example("/slashed", "//evil.example", "GET")
def test_any_path_is_answered_and_leads_nowhere_else(built: Covet, prefix: str, rest: str, method: str) -> None:
    answer = ask_now(built, prefix + rest, method)
    assert answer.status in (200, 204, 308, 404, 405, 415, 400, 422), answer.body
    target = answer.headers.get(b"location")
    if target is not None:
        assert target.startswith(b"/")
        assert not target.startswith((b"//", b"/\\"))
        assert target.isascii()
        assert urlsplit(target.decode()).netloc == ""


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-token", b"x_token", b"cookie", b"host", b"accept", b"content-type"]) | some_bytes,
            some_bytes,
        ),
        max_size=8,
    ),
    st.sampled_from(["/header", "/cookie", "/host", "/numbers", "/nothing", "/login"]),
    st.sampled_from(["GET", "POST"]),
)
def test_any_headers_are_read_or_refused(built: Covet, headers: Headers, path: str, method: str) -> None:
    answer = ask_now(built, path, method, headers=headers)
    assert answer.status in (200, 400, 404, 405, 415, 422), answer.body


query_names = st.sampled_from([b"n", b"x", b"d", b"xs", b"ds", b"either", b"day", b"flag"])
value_texts = (
    st.binary(max_size=12) | st.text(max_size=12).map(encoded) | st.from_regex(rb"[-+0-9.eE_:TZ]{1,12}", fullmatch=True)
)


@given(st.lists(st.tuples(query_names, value_texts), max_size=4))
def test_any_query_is_read_or_refused(built: Covet, fields: list[tuple[bytes, bytes]]) -> None:
    answer = ask_now(built, "/query", query=b"&".join(name + b"=" + value for name, value in fields))
    assert answer.status in (200, 400, 422), answer.body
    if answer.status == 200:
        # `json` takes NaN; msgspec would have sent null instead.
        assert b"null" not in b",".join(answer.body[1:-1].split(b",")[:3])


@given(some_bytes | st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["item", "count", "price", "x"]), x, max_size=3)).map(lambda value: json.dumps(value).encode()), st.sampled_from(["/json", "/list", "/order", "/model", "/request-json"]))  # fmt: skip  # noqa: E501
def test_any_json_is_read_or_refused(built: Covet, body: bytes, path: str) -> None:
    answer = ask_now(built, path, "POST", headers=[HOST, JSON], body=body)
    assert answer.status in (200, 204, 400, 422), answer.body


segments = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0\ufffd"), min_size=1, max_size=20)


@given(st.data())
def test_what_url_for_writes_is_routed_back_to_the_same_values(built: Covet, data: st.DataObject) -> None:
    cases: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "path_int": (st.fixed_dictionaries({"n": st.integers(0, 10**40)}), lambda v: v),
        "path_number": (st.fixed_dictionaries({"n": st.integers()}), lambda v: v),
        "path_float": (st.fixed_dictionaries({"x": st.floats(0, 1e15).map(lambda x: round(x, 3))}), lambda v: v),
        "path_text": (st.fixed_dictionaries({"name": segments}), lambda v: v),
        "path_slug": (st.fixed_dictionaries({"s": st.from_regex(r"[a-zA-Z0-9_-]+", fullmatch=True)}), lambda v: v),
        "path_path": (
            st.fixed_dictionaries({"path": st.lists(segments, min_size=1, max_size=4).map("/".join)}),
            lambda v: v,
        ),
        "path_mixed": (
            st.fixed_dictionaries({"name": segments, "day": st.dates(), "id": st.uuids()}),
            lambda v: [v["name"], v["day"].isoformat(), str(v["id"])],
        ),
    }  # fmt: skip
    name = data.draw(st.sampled_from(sorted(cases)))
    values, shown = cases[name]
    given_values = data.draw(values)
    url = built.url_for(name, **{k: str(v) if name == "path_number" else v for k, v in given_values.items()})
    assert url.isascii()
    # A server decodes the path once.
    answer = ask_now(built, unquote(url))
    assert (answer.status, answer.json) == (200, shown(given_values))
