"""The builtin plugin cors: which pages may read what, errors included, and that no origin is let in by its spelling."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builtin import needs

from covet import Covet, CovetError, HTTPError, Response, Route, StreamingResponse, WebSocket
from covet.builtin.cors import TOKEN, CORSSettings
from covet.origins import Origins, parse_origin, split_host
from covet.settings_schema import describe
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

APP = "https://app.example"
EVIL = "https://evil.example"
ALLOW = "access-control-allow-origin"


def make_app(*others: object, extra: dict[str, Any] | None = None, **settings: Any) -> Covet:
    app = plugin_sandbox("cors", *others, settings={"plugins": {"cors": settings, **(extra or {})}})

    @app.get("/text")
    async def text() -> str:
        return "text"

    @app.put("/text")
    async def put() -> str:
        return "put"

    @app.post("/items/{number:int}")
    async def item(number: int) -> dict[str, int]:
        return {"number": number}

    @app.get("/varies")
    async def varies() -> Response:
        return Response("v", headers=[("vary", "Accept"), ("Vary", "Cookie")])

    @app.get("/star")
    async def star() -> Response:
        return Response("v", headers={"vary": "*"})

    @app.get("/own")
    async def own() -> Response:
        return Response("own", headers={"Access-Control-Allow-Origin": "https://partner.example"})

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        return StreamingResponse(pieces())

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPError(403)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await Response("plain")(scope, receive, send)

    app.mount("/mounted", plain)
    return app


def client_of(app: Covet) -> TestClient:
    return TestClient(app, raise_errors=False)


def preflight(method: str, *headers: str, origin: str = APP) -> dict[str, str]:
    asked = {"origin": origin, "access-control-request-method": method}
    return {**asked, "access-control-request-headers": ",".join(headers)} if headers else asked


# Nothing configured


async def test_without_origins_nothing_is_added() -> None:
    app = make_app()
    assert app.built.pipeline.empty
    assert app.built.outer == []
    async with client_of(app) as client:
        for headers in (
            (await client.get("/text", headers={"origin": EVIL})).headers,
            (await client.options("/text", headers=preflight("PUT"))).headers,
        ):
            assert not [name for name in headers if name.startswith("access-control") or name == "vary"]


# Everybody


async def test_everybody_is_a_constant_header_without_vary() -> None:
    app = make_app(allow_origins=["*"], expose_headers=["X-Total"])
    assert app.built.pipeline.empty
    async with client_of(app) as client:
        for path in ("/text", "/stream", "/refused", "/broken", "/missing", "/mounted/"):
            for headers in ({}, {"origin": EVIL}, {"origin": "null"}):
                got = await client.get(path, headers=headers)
                assert got.headers[ALLOW] == "*"
                assert got.headers["access-control-expose-headers"] == "X-Total"
                assert "vary" not in got.headers
                assert "access-control-allow-credentials" not in got.headers
        got = await client.options("/text", headers=preflight("PUT", "content-type", origin=EVIL))
        assert got.status_code == 204
        assert got.headers[ALLOW] == "*"
        assert got.headers["access-control-allow-methods"] == "GET, HEAD, PUT"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"allow_origins": ["*"], "allow_credentials": True}, "every page on the web act as the user"),
        ({"allow_origins": ["*", APP]}, "keep one or the other"),
        ({"allow_origins": ["app.example"]}, "is no origin"),
        ({"allow_origins": [APP + "/"]}, "is no origin"),
        ({"allow_origins": [APP + "/path"]}, "is no origin"),
        ({"allow_origins": ["https://*"]}, "is no origin"),
        ({"allow_origins": ["https://*.*.example"]}, "is no origin"),
        ({"allow_origins": ["https://app*.example"]}, "is no origin"),
        ({"allow_origins": [".*"]}, "is no origin"),
        ({"allow_origins": ["https://münchen.example"]}, "is no origin"),
        ({"allow_methods": ["GET, POST"]}, "is no name"),
        ({"allow_methods": ["TRACE"]}, "no browser sends"),
        ({"allow_headers": ["x-a\r\nset-cookie: b"]}, "is no name"),
        ({"expose_headers": ["é"]}, "is no name"),
        ({"max_age": -1}, "max_age"),
        ({"allow_origin": [APP]}, "did you mean 'allow_origins'"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(CovetError, match=told):
        make_app(**settings).build()


# A list


async def test_a_listed_origin_reads_everything_errors_included_and_no_other_does() -> None:
    app = make_app(allow_origins=[APP], allow_credentials=True, expose_headers=["x-a", "x-b"])
    async with client_of(app) as client:
        for path, status in {
            "/text": 200, "/stream": 200, "/refused": 403, "/broken": 500, "/missing": 404, "/mounted/": 200,
        }.items():  # fmt: skip
            got = await client.get(path, headers={"origin": APP})
            assert got.status_code == status
            assert got.headers.get_list(ALLOW) == [APP]
            assert got.headers["access-control-allow-credentials"] == "true"
            assert got.headers["access-control-expose-headers"] == "x-a, x-b"
            assert got.headers["vary"] == "Origin"
            for headers in ({"origin": EVIL}, {"origin": "null"}, {}):
                got = await client.get(path, headers=headers)
                assert got.status_code == status
                assert not [name for name in got.headers if name.startswith("access-control")]
                assert got.headers["vary"] == "Origin", "a cache must not give the one answer to the other"


async def test_vary_is_added_to_and_a_response_keeps_its_own_permission() -> None:
    async with client_of(make_app(allow_origins=[APP])) as client:
        assert (await client.get("/varies")).headers.get_list("vary") == ["Accept, Cookie, Origin"]
        assert (await client.get("/star")).headers.get_list("vary") == ["*"]
        own = await client.get("/own", headers={"origin": APP})
        assert own.headers.get_list(ALLOW) == ["https://partner.example"]
        assert own.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (APP, True),
        ("https://app.example:443", False),
        ("HTTPS://APP.EXAMPLE", False),
        ("http://app.example", False),
        ("https://app.example:8443", False),
        ("https://app.example.evil.example", False),
        ("https://evil.example/https://app.example", False),
        ("https://app.example@evil.example", False),
        ("https://appxexample", False),
        ("https://app.example ", False),
        ("https://app.example, https://app.example", False),
        ("https://app.example.", False),
        ("null", False),
        ("*", False),
        ("", False),
        ("https://eu.shop.example", True),
        ("https://a.b.shop.example", True),
        ("https://shop.example", False),
        ("https://evilshop.example", False),
        ("https://.shop.example", False),
        ("https://evil.example#.shop.example", False),
        ("https://evil.example%00.shop.example", False),
        ("https://evil.example\\.shop.example", False),
        ("http://eu.shop.example", False),
        ("https://eu.shop.example:444", False),
        ("https://EU.shop.example", False),
        ("https://eu.shop.example:443", False),
        ("https://eu.shop.example.", False),
        ("HTTPS://eu.shop.example", False),
        ("https://eu.port.example:8443", True),
        ("https://eu.port.example", False),
        ("capacitor://localhost", True),
    ],
)
async def test_origins_are_compared_piece_by_piece(origin: str, allowed: bool) -> None:
    """CVE-2026-25479 of Litestar: a list built into a regular expression, unescaped."""
    listed = [APP, "https://*.shop.example", "https://*.port.example:8443", "capacitor://localhost"]
    async with client_of(make_app(allow_origins=listed, allow_credentials=True)) as client:
        got = await client.get("/text", headers={"origin": origin})
        assert (ALLOW in got.headers) is allowed
        if allowed:
            assert got.headers[ALLOW] == origin
        got = await client.options("/text", headers=preflight("PUT", origin=origin))
        # httpx strips a value's white space, as every server does.
        assert (ALLOW in got.headers) is allowed


async def test_null_only_if_it_is_listed_and_two_origins_are_none() -> None:
    async with client_of(make_app(allow_origins=["null"])) as client:
        assert (await client.get("/text", headers={"origin": "null"})).headers[ALLOW] == "null"
    async with client_of(make_app(allow_origins=[APP])) as client:
        got = await client.get("/text", headers=[("origin", APP), ("origin", APP)])
        assert ALLOW not in got.headers


@given(st.one_of(st.text(max_size=80), st.from_regex(r"https?://[a-z.:*@/\\-]{0,30}app\.example[a-z.:@/]{0,9}")))
def test_whatever_origin_is_let_in_is_one_of_the_list(text: str) -> None:
    origins = Origins([APP, "https://*.app.example"])
    if text in origins:
        scheme, _, host = text.partition("://")
        assert scheme == "https"
        assert host == "app.example" or host.endswith(".app.example")
        assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    parsed = parse_origin(text)
    if parsed is not None:
        assert parse_origin(parsed) == parsed
    host_of = split_host(text)
    if host_of is not None:
        name, port = host_of
        assert split_host(name if port is None else f"{name}:{port}") == host_of


# Preflight requests


async def test_a_preflight_request_is_answered_with_what_the_path_really_answers() -> None:
    app = make_app(allow_origins=[APP], allow_credentials=True, max_age=7200)
    async with client_of(app) as client:
        got = await client.options("/text", headers=preflight("PUT", "content-type"))
        assert (got.status_code, got.content) == (204, b"")
        assert dict(got.headers) == {
            ALLOW: APP,
            "access-control-allow-credentials": "true",
            "access-control-allow-methods": "GET, HEAD, PUT",
            "access-control-allow-headers": "authorization, content-type",
            "access-control-max-age": "7200",
            "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        }
        got = await client.options("/items/5", headers=preflight("POST"))
        assert got.headers["access-control-allow-methods"] == "POST"
        for missing in ("/items/x", "/nothing"):
            got = await client.options(missing, headers=preflight("POST"))
            assert got.status_code == 404, "which fails in the browser"
        assert (
            "POST"
            in (await client.options("/mounted/x", headers=preflight("POST"))).headers["access-control-allow-methods"]
        )


async def test_methods_are_those_of_both_lists() -> None:
    async with client_of(make_app(allow_origins=[APP], allow_methods=["get", "POST", "DELETE"])) as client:
        got = await client.options("/text", headers=preflight("PUT"))
        assert got.headers["access-control-allow-methods"] == "GET"
        assert (await client.put("/text", headers={"origin": APP})).text == "put", "a server obeys nobody's preflight"


async def test_of_all_headers_those_that_are_asked_for_are_named() -> None:
    async with client_of(make_app(allow_origins=[APP], allow_headers=["*"])) as client:
        got = await client.options("/text", headers=preflight("PUT", "x-a", " X-B", "", "x;y", "x y"))
        assert got.headers["access-control-allow-headers"] == "x-a, x-b"
        many = await client.options("/text", headers=preflight("PUT", *(f"x-{n}" for n in range(1000))))
        assert many.headers["access-control-allow-headers"].count(",") == 63


SHARED = make_app(allow_origins=[APP], allow_headers=["*"])


@given(st.binary(max_size=60))
def test_whatever_headers_are_asked_for_the_answer_is_a_list_of_names(data: bytes) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"a"), (b"origin", APP.encode()), (b"access-control-request-method", b"PUT")]
    scope = {
        "type": "http", "method": "OPTIONS", "path": "/text", "query_string": b"",
        "headers": [*headers, (b"access-control-request-headers", data)],
    }  # fmt: skip
    anyio.run(SHARED, scope, receive, send)
    allowed = dict(sent[0]["headers"])[b"access-control-allow-headers"].decode("ascii")
    assert all(TOKEN.fullmatch(name) for name in allowed.split(", ") if name)


async def test_a_preflight_request_of_another_origin_is_refused_and_told_why() -> None:
    async with client_of(make_app(allow_origins=[APP])) as client:
        got = await client.options("/text", headers=preflight("PUT", origin=EVIL))
        assert got.status_code == 403
        assert "allow_origins" in got.json()["detail"]
        assert not [name for name in got.headers if name.startswith("access-control")]
        assert got.headers["vary"].startswith("Origin")


@needs("csrf", "security_headers")
async def test_it_is_answered_before_guards_and_with_constant_headers() -> None:
    app = make_app("csrf", "security_headers", allow_origins=[APP])
    async with client_of(app) as client:
        got = await client.options("/items/5", headers={**preflight("POST"), "sec-fetch-site": "cross-site"})
        assert got.status_code == 204
        assert got.headers["x-content-type-options"] == "nosniff"
        refused = await client.post("/items/5", headers={"origin": APP, "sec-fetch-site": "cross-site"})
        assert refused.status_code == 403
        assert refused.headers[ALLOW] == APP, "the page may read why"


async def test_other_options_requests_are_the_applications() -> None:
    async with client_of(make_app(allow_origins=[APP])) as client:
        got = await client.options("/text", headers={"origin": APP})
        assert (got.status_code, got.headers["allow"]) == (204, "GET, HEAD, OPTIONS, PUT")
        assert got.headers[ALLOW] == APP
        assert (await client.options("/text", headers={"access-control-request-method": "PUT"})).headers["allow"]


async def test_of_a_mounted_application_paths_are_seen_as_it_sees_them() -> None:
    outer = plugin_sandbox()
    outer.mount("/api", make_app(allow_origins=[APP]))
    async with client_of(outer) as client:
        got = await client.options("/api/text", headers=preflight("PUT"))
        assert got.headers["access-control-allow-methods"] == "GET, HEAD, PUT"


async def test_websockets_are_not_concerned() -> None:
    app = make_app(allow_origins=[EVIL])
    async with client_of(app) as client:
        from covet.testing import WebSocketDenied

        with pytest.raises(WebSocketDenied):
            async with client.websocket("/socket", headers={"origin": EVIL}):
                pass


@needs("proxy_headers", "request_id", "trusted_hosts")
async def test_it_stands_inside_of_proxy_headers_and_trusted_hosts_and_outside_of_request_id() -> None:
    app = make_app(
        "request_id", "proxy_headers", "trusted_hosts",
        extra={
            "request_id": {"response_header": True},
            "proxy_headers": {"trusted": ["127.0.0.1"]},
            "trusted_hosts": {"allow": ["localhost"]},
        },
        allow_origins=[APP],
    )  # fmt: skip
    assert [layer.name for layer in app.built.outer] == ["proxy_headers", "trusted_hosts", "cors"]
    assert [layer.name for layer in app.built.pipeline.layers] == ["request_id"]


async def test_every_route_of_options_is_still_reached() -> None:
    async def mine() -> str:
        return "mine"

    app = make_app(allow_origins=[APP])
    app.add(Route("/mine", mine, ["OPTIONS", "GET"]))
    async with client_of(app) as client:
        assert (await client.options("/mine", headers={"origin": APP})).text == "mine"
        assert (await client.options("/mine", headers=preflight("GET"))).status_code == 204


def test_every_setting_says_what_it_is() -> None:
    assert [field.name for field in describe(CORSSettings) if not field.description] == []
