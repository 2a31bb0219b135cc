"""The builtin plugin trusted_hosts: which hosts are answered for, however they are written."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builtin import needs

from covet import Covet, CovetError, Request, WebSocket
from covet.builtin.trusted_hosts import TrustedHostsSettings
from covet.origins import HostPattern, split_host
from covet.settings_schema import describe
from covet.testing import TestClient, WebSocketDenied, plugin_sandbox

pytestmark = pytest.mark.anyio

LISTED = ["example.com", "*.Example.net", "ports.example:8443", "tls.example:443", "192.0.2.1", "[2001:db8::1]"]


def make_app(*others: object, allow: list[str] | None = None, **settings: Any) -> Covet:
    plugins = {"trusted_hosts": {"allow": LISTED if allow is None else allow}, **settings}
    app = plugin_sandbox("trusted_hosts", *others, settings={"plugins": plugins})

    @app.get("/")
    async def index(request: Request) -> str:
        return str(request.url)

    @app.get("/unconcerned")
    async def unconcerned() -> str:
        return "it looks at no host"

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")

    return app


async def test_without_a_list_nothing_is_added() -> None:
    app = make_app(allow=[])
    assert app.built.pipeline.empty
    assert app.built.outer == []
    async with TestClient(app) as client:
        assert (await client.get("/", headers={"host": "whatever.example"})).status_code == 200


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("example.com", True),
        ("EXAMPLE.com", True),
        ("example.com.", True),
        ("example.com:8000", True),
        ("example.com:", True),
        ("a.example.com", False),
        ("examplexcom", False),
        ("example.com.evil.example", False),
        ("evil.example/example.com", False),
        ("example.com@evil.example", False),
        ("evil.example#example.com", False),
        ("example.com, evil.example", False),
        ("example.com evil.example", False),
        ("example.com..", False),
        ("example.com:port", False),
        ("example.com:99999", False),
        ("example.com:80:80", False),
        ("", False),
        (".", False),
        ("*.example.net", False),
        ("a.example.net", True),
        ("a.b.EXAMPLE.net:1", True),
        ("example.net", False),
        (".example.net", False),
        ("evilexample.net", False),
        ("a.example.net.evil.example", False),
        ("ports.example:8443", True),
        ("ports.example", False),
        ("ports.example:8444", False),
        ("tls.example", True),
        ("tls.example:443", True),
        ("tls.example:80", False),
        ("192.0.2.1", True),
        ("192.0.2.1:80", True),
        ("192.0.2.10", False),
        ("[2001:db8::1]", True),
        ("[2001:DB8:0:0::1]:8000", True),
        ("[2001:db8::2]", False),
        ("2001:db8::1", False),
        ("[::ffff:192.0.2.1]", False),
        ("localhost", False),
    ],
)
async def test_hosts_are_compared_by_their_grammar(host: str, trusted: bool) -> None:
    async with TestClient(make_app()) as client:
        got = await client.get("/", headers={"host": host})
        assert got.status_code == (200 if trusted else 400), got.text
        if not trusted:
            assert got.headers["content-type"] == "application/problem+json"
            assert got.json()["title"] == "Bad Request"


async def test_a_host_that_stands_twice_or_not_at_all_is_refused() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    app = make_app()
    for headers in ([], [(b"host", b"example.com")] * 2, [(b"host", b"example.com"), (b"host", b"evil.example")]):
        sent.clear()
        await app({"type": "http", "method": "GET", "path": "/unconcerned", "headers": headers}, receive, send)
        assert sent[0]["status"] == 400


@needs("security_headers")
async def test_missing_paths_and_mounted_applications_are_behind_it_and_the_refusal_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan", "nothing else comes so far"

    app = make_app("security_headers")
    app.mount("/mounted", plain)
    async with TestClient(app, lifespan=False) as client:
        with caplog.at_level(logging.WARNING, "covet.security"):
            for path in ("/missing", "/mounted/x"):
                got = await client.get(path, headers={"host": "evil.example"})
                assert got.status_code == 400
                assert "evil" not in got.text
                assert got.headers["x-content-type-options"] == "nosniff"
                assert got.headers["x-request-id"]
        assert {vars(record)["security_event"] for record in caplog.records} == {"host_refused"}
        assert "evil.example" in caplog.text


async def test_websockets_are_refused_as_well() -> None:
    async with TestClient(make_app()) as client:
        async with client.websocket("/socket", headers={"host": "example.com"}) as socket:
            assert await socket.receive_text() == "hello"
        with pytest.raises(WebSocketDenied) as denied:
            async with client.websocket("/socket", headers={"host": "evil.example"}):
                pass
        assert denied.value.response.status_code in (400, 403)


@needs("proxy_headers")
async def test_forwarded_hosts_count_only_as_proxy_headers_says() -> None:
    """CVE-2026-48061 of Litestar: the list of hosts could be passed by a header that anybody can send."""
    told = {"x-forwarded-host": "example.com", "host": "internal"}
    async with TestClient(make_app()) as client:
        assert (await client.get("/", headers=told)).status_code == 400
        assert (await client.get("/", headers={**told, "host": "example.com"})).status_code == 200
    trusted = {"trusted": ["127.0.0.1"], "use": ["for", "proto", "host"]}
    async with TestClient(make_app("proxy_headers", proxy_headers=trusted)) as client:
        assert (await client.get("/", headers=told)).text == "https://example.com/"
        assert (await client.get("/", headers={**told, "x-forwarded-host": "evil.example"})).status_code == 400
    for other in ({"trusted": ["192.0.2.0/24"], "use": ["host"]}, {"trusted": ["127.0.0.1"]}):
        async with TestClient(make_app("proxy_headers", proxy_headers=other)) as client:
            assert (await client.get("/", headers=told)).status_code == 400


@given(st.text(max_size=40), st.integers(0, 65535))
def test_what_fits_a_pattern_is_what_was_meant(text: str, port: int) -> None:
    below, exact = HostPattern.parse("*.example.net"), HostPattern.parse("example.com")
    found = split_host(f"{text}.example.net:{port}")
    if found is not None:
        assert below.fits(*found)
        assert found[1] == port
    found = split_host(text)
    assert found is None or not below.fits(*found) or text.lower().split(":")[0].rstrip(".").endswith(".example.net")
    assert found is None or not exact.fits(*found) or text.lower().split(":")[0].rstrip(".") == "example.com"


@pytest.mark.parametrize(
    "wrong",
    ["*", "", "https://example.com", "example.com/", "*example.com", "a.*.com", "*.[::1]", "*.192.0.2.1", "münchen.de",
     "example.com:port", "exam ple.com", ".example.com", "*."],
)  # fmt: skip
def test_settings_that_make_no_sense_stop_the_start(wrong: str) -> None:
    with pytest.raises(CovetError, match=r"is no host|which is every host"):
        make_app(allow=["example.com", wrong]).build()


def test_every_setting_says_what_it_is() -> None:
    assert [field.name for field in describe(TrustedHostsSettings) if not field.description] == []
