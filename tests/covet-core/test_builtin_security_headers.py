"""The builtin plugin security_headers: what is sent, what the settings change, and what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from covet import Covet, FileResponse, HTTPError, RedirectResponse, Response, SettingsError, StreamingResponse
from covet.builtin.security_headers import SecurityHeadersSettings
from covet.settings_schema import describe
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

DEFAULT = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin-allow-popups",
}
YEAR = 31_536_000


def make_app(**settings: Any) -> Covet:
    return plugin_sandbox("security_headers", settings={"plugins": {"security_headers": settings}})


async def sent(**settings: Any) -> dict[str, str]:
    app = make_app(**settings)

    @app.get("/")
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        headers = dict((await client.get("/")).headers)
    return {name: value for name, value in headers.items() if name not in ("content-type", "content-length")}


async def test_the_default_headers_and_no_word_on_caching() -> None:
    """fabro 550: security headers with `Pragma: no-cache` ended the caching of assets."""
    assert await sent() == DEFAULT


async def test_they_turn_nothing_of_the_fast_path_off() -> None:
    assert make_app().built.pipeline.empty


async def test_every_kind_of_response_has_them(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("body {}")
    app = make_app()

    @app.get("/text")
    async def text() -> str:
        return "x"

    @app.get("/json")
    async def json() -> list[int]:
        return [1]

    @app.get("/none")
    async def none() -> None:
        return None

    @app.get("/redirect")
    async def redirect() -> RedirectResponse:
        return RedirectResponse("/text")

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(tmp_path / "a.css", headers={"cache-control": "public, max-age=31536000, immutable"})

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "x"

        return StreamingResponse(pieces())

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPError(403)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"SAMEORIGIN")]})
        await send({"type": "http.response.body", "body": b"plain"})

    app.mount("/mounted", plain)
    paths = ["text", "json", "none", "redirect", "file", "stream", "refused", "broken", "missing"]
    async with TestClient(app, raise_errors=False) as client:
        for path in paths:
            for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
                headers = (await client.request(method, f"/{path}")).headers
                assert DEFAULT.items() <= dict(headers).items(), (method, path)
        cached = (await client.get("/file")).headers
        assert cached["cache-control"] == "public, max-age=31536000, immutable"
        assert "pragma" not in cached
        not_modified = await client.get("/file", headers={"if-none-match": cached["etag"]})
        assert not_modified.status_code == 304
        mounted = (await client.get("/mounted/")).headers
        assert dict(mounted) == {**DEFAULT, "x-frame-options": "SAMEORIGIN"}, "a mounted application's own header wins"


async def test_a_header_of_the_response_wins() -> None:
    app = make_app(content_security_policy="default-src 'self'")

    @app.get("/")
    async def index() -> Response:
        return Response("x", headers={"X-Frame-Options": "SAMEORIGIN", "content-security-policy": "default-src 'none'"})

    async with TestClient(app) as client:
        headers = (await client.get("/")).headers
        assert headers.get_list("x-frame-options") == ["SAMEORIGIN"]
        assert headers.get_list("content-security-policy") == ["default-src 'none'"]
        assert headers["referrer-policy"] == "same-origin"


async def test_each_header_can_be_changed_or_left_out() -> None:
    assert await sent(
        content_type_options="off", frame_options="off", referrer_policy="off", opener_policy="off"
    ) == {}  # fmt: skip
    assert await sent(
        frame_options="SAMEORIGIN", referrer_policy="no-referrer", opener_policy="same-origin",
        resource_policy="same-site", content_security_policy="frame-ancestors 'none'", permissions_policy="camera=()",
    ) == {
        "x-content-type-options": "nosniff", "x-frame-options": "SAMEORIGIN", "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-site",
        "content-security-policy": "frame-ancestors 'none'", "permissions-policy": "camera=()",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"hsts_seconds": 300}, "max-age=300"),
        ({"hsts_seconds": 300, "hsts_subdomains": True}, "max-age=300; includeSubDomains"),
        (
            {"hsts_seconds": YEAR, "hsts_subdomains": True, "hsts_preload": True},
            f"max-age={YEAR}; includeSubDomains; preload",
        ),
    ],
)
async def test_hsts_is_sent_only_when_it_is_configured(settings: dict[str, Any], value: str) -> None:
    assert (await sent(**settings))["strict-transport-security"] == value


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"frame_options": "ALLOW"}, "frame_options"),
        ({"referrer_policy": ""}, "referrer_policy"),
        ({"hsts_seconds": -1}, "hsts_seconds"),
        ({"hsts_subdomains": True}, "hsts_subdomains says nothing without hsts_seconds"),
        ({"hsts_seconds": 60, "hsts_subdomains": True, "hsts_preload": True}, "at least 31536000"),
        ({"hsts_seconds": YEAR, "hsts_preload": True}, "hsts_preload takes hsts_subdomains"),
        ({"content_security_policy": "default-src 'self'\r\nset-cookie: a=b"}, "printable ASCII on one line"),
        ({"permissions_policy": "kamera=(é)"}, "printable ASCII on one line"),
        ({"frame_option": "DENY"}, "did you mean 'frame_options'"),
    ],
)
async def test_settings_that_make_no_sense_stop_the_start(settings: dict[str, Any], told: str) -> None:
    with pytest.raises((SettingsError, Exception), match=told):
        make_app(**settings).build()


def test_every_setting_says_what_it_is() -> None:
    assert [field.name for field in describe(SecurityHeadersSettings) if not field.description] == []
