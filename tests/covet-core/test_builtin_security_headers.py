"""The builtin plugin security_headers: what is sent, what the settings change and refuse, nonces, and the grade."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.builtin import needs

from covet import (
    Covet,
    CovetError,
    FileResponse,
    HTTPError,
    RedirectResponse,
    Request,
    Response,
    SettingsError,
    StreamingResponse,
)
from covet.builtin.security_headers import PROFILES, SecurityHeadersSettings
from covet.csp import ContentSecurityPolicy, csp_nonce
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
        ({"profile": "paranoid"}, "profile"),
        ({"embedder_policy": "none"}, "embedder_policy"),
        ({"content_security_policy": "default-source 'self'"}, "did you mean 'default-src'"),
        ({"content_security_policy_report_only": "script-src self"}, "the keyword is 'self', in quotes"),
        ({"content_security_policy": "default-src 'self'; report-to csp"}, "which reporting_endpoints does not name"),
        ({"reporting_endpoints": {"Csp": "https://r.example/"}}, "'Csp' is no name"),
        ({"reporting_endpoints": {"csp": "http://r.example/"}}, "an https URL or a path"),
        ({"reporting_endpoints": {"csp": 'https://r.example/"'}}, "an https URL or a path"),
    ],
)
async def test_settings_that_make_no_sense_stop_the_start(settings: dict[str, Any], told: str) -> None:
    with pytest.raises((SettingsError, Exception), match=told):
        make_app(**settings).build()


def test_every_setting_says_what_it_is() -> None:
    assert [field.name for field in describe(SecurityHeadersSettings) if not field.description] == []


# Policies


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("script-src 'self'; script-src 'none'", "script-src stands twice"),
        ("script-source 'self'", "no directive 'script-source'; did you mean 'script-src'"),
        ("script-src self", "the name of a host; the keyword is 'self', in quotes"),
        ("script-src UNSAFE-INLINE", "the keyword is 'UNSAFE-INLINE'"),
        ("script-src 'sefl'", "'sefl', which is no keyword"),
        ("script-src 'none' 'self'", "'none' stands alone"),
        ("script-src 'nonce-abc'", "a nonce that never changes"),
        ("img-src 'nonce'", "img-src has no use for a nonce"),
        ("frame-ancestors none", "in quotes"),
        ("default-src 'self', script-src 'self'", "without a comma"),
        ("default-src 'self'\n", "one line"),
    ],
)
def test_a_policy_that_does_not_mean_what_it_says_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        ContentSecurityPolicy(text)


def test_a_policy_with_and_without_its_nonce() -> None:
    policy = ContentSecurityPolicy(
        " Default-Src 'self';; script-src  'self' 'nonce'; style-src 'nonce' ;upgrade-insecure-requests"
    )
    assert policy.nonced
    assert policy.constant == "default-src 'self'; script-src 'self'; style-src 'none'; upgrade-insecure-requests"
    assert policy.with_nonce("abc") == (
        "default-src 'self'; script-src 'self' 'nonce-abc'; style-src 'nonce-abc'; upgrade-insecure-requests"
    )
    assert ContentSecurityPolicy(policy.constant).constant == policy.constant
    assert not ContentSecurityPolicy(policy.constant).nonced
    for given_ in (
        "script-src 'sha256-abc=' 'strict-dynamic' https: data: *.example.com:443/a",
        "sandbox allow-forms",
        "",
    ):
        assert ContentSecurityPolicy(given_).constant == given_


@given(text=st.text(st.sampled_from(list("abcdefsrc-;' \t\n\r,noe")), max_size=60))
@example(text="script-src 'nonce'; \r\nset-cookie: a=b")
def test_no_text_becomes_more_than_one_header(text: str) -> None:
    try:
        policy = ContentSecurityPolicy(text)
    except ValueError:
        return
    for written in (policy.constant, policy.with_nonce("x")):
        assert written.isprintable()
        assert "," not in written


# Nonces


def with_nonce(**settings: Any) -> Covet:
    app = make_app(**settings)

    @app.get("/page")
    async def page(request: Request, own: str = "") -> Response:
        assert csp_nonce(request) == csp_nonce(request)
        headers = {"content-security-policy": own} if own else {}
        return Response(csp_nonce(request), headers=headers)

    @app.get("/plain")
    async def plain() -> str:
        return "x"

    @app.get("/kept")
    async def kept(request: Request) -> Response:
        return Response(csp_nonce(request), headers={"cache-control": "private"})

    @app.get("/broken")
    async def broken(request: Request) -> Response:
        csp_nonce(request)
        raise RuntimeError

    return app


POLICY = "default-src 'self'; script-src 'self' 'nonce'"


async def test_a_nonce_is_made_for_the_responses_that_ask_for_one() -> None:
    app = with_nonce(content_security_policy=POLICY, content_security_policy_report_only="style-src 'nonce'")
    assert app.built.pipeline.empty, "those that do not ask pay nothing"
    async with TestClient(app, raise_errors=False) as client:
        seen = set()
        for _ in range(50):
            got = await client.get("/page")
            nonce = got.text
            seen.add(nonce)
            assert got.headers.get_list("content-security-policy") == [
                f"default-src 'self'; script-src 'self' 'nonce-{nonce}'"
            ]
            assert got.headers["content-security-policy-report-only"] == f"style-src 'nonce-{nonce}'"
            assert got.headers["cache-control"] == "no-store"
        assert len(seen) == 50
        for nonce in seen:
            assert re.fullmatch(r"[A-Za-z0-9_-]+", nonce)
            assert len(base64.urlsafe_b64decode(nonce)) * 8 >= 128
        plain = await client.get("/plain")
        assert plain.headers["content-security-policy"] == "default-src 'self'; script-src 'self'"
        assert plain.headers["content-security-policy-report-only"] == "style-src 'none'"
        assert "cache-control" not in plain.headers
        assert (await client.get("/kept")).headers["cache-control"] == "private"


async def test_a_policy_of_the_response_stands_before_one_with_a_nonce() -> None:
    app = with_nonce(content_security_policy=POLICY)
    async with TestClient(app, raise_errors=False) as client:
        own = await client.get("/page", params={"own": "default-src 'none'"})
        assert own.headers.get_list("content-security-policy") == ["default-src 'none'"]
        broken = await client.get("/broken", headers={"accept": "text/html"})
        assert broken.status_code == 500
        assert "nonce" not in broken.headers["content-security-policy"], "the page for errors has a policy of its own"


@pytest.mark.parametrize("settings", [{}, {"content_security_policy": "script-src 'self'"}])
async def test_a_nonce_without_a_place_for_it_is_an_error(settings: dict[str, Any]) -> None:
    async with TestClient(with_nonce(**settings)) as client:
        with pytest.raises(CovetError, match="no policy has a place for a nonce"):
            await client.get("/page")


async def test_a_nonce_that_comes_too_late_is_an_error() -> None:
    app = with_nonce(content_security_policy=POLICY)
    told: list[str] = []

    @app.get("/late")
    async def late(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            try:
                csp_nonce(request)
            except CovetError as error:
                told.append(str(error))
            yield "x"

        return StreamingResponse(pieces())

    async with TestClient(app) as client:
        await client.get("/late")
    assert "this response's headers are sent" in told[0]


async def test_reports_go_to_the_endpoints_that_are_named() -> None:
    headers = await sent(
        content_security_policy="default-src 'self'; report-to csp",
        reporting_endpoints={"csp": "https://reports.example/csp", "other": "/reports"},
        embedder_policy="credentialless",
    )
    assert headers["reporting-endpoints"] == 'csp="https://reports.example/csp", other="/reports"'
    assert headers["cross-origin-embedder-policy"] == "credentialless"


async def test_the_strict_profile_and_what_is_set_beside_it() -> None:
    strict = await sent(profile="strict")
    assert strict == {
        **DEFAULT,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "content-security-policy": PROFILES["strict"]["content_security_policy"].replace(" 'nonce'", ""),
        "permissions-policy": PROFILES["strict"]["permissions_policy"],
        "strict-transport-security": f"max-age={YEAR}",
    }
    changed = await sent(
        profile="strict", hsts_seconds=0, content_security_policy="", opener_policy="off", hsts_subdomains=False
    )
    assert not {"strict-transport-security", "content-security-policy", "cross-origin-opener-policy"} & changed.keys()
    assert changed["cross-origin-resource-policy"] == "same-origin"
    everywhere = await sent(profile="strict", hsts_subdomains=True, hsts_preload=True)
    assert everywhere["strict-transport-security"] == f"max-age={YEAR}; includeSubDomains; preload"


def test_the_strict_profile_is_what_asvs_asks_for() -> None:
    """ASVS 5.0: 3.4.1, 3.4.3 to 3.4.6."""
    headers = dict(SecurityHeadersSettings(profile="strict").headers())
    policy = ContentSecurityPolicy(headers["content-security-policy"]).directives
    assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == ("'none'",)
    assert not any(
        "unsafe" in value or value in ("*", "https:", "data:") for values in policy.values() for value in values
    )
    assert int(headers["strict-transport-security"].removeprefix("max-age=")) >= YEAR
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] in ("no-referrer", "same-origin")


@needs("openapi")
@needs("openapi")
async def test_the_documentation_page_works_under_the_strict_profile() -> None:
    app = plugin_sandbox(
        "security_headers", "openapi", settings={"plugins": {"security_headers": {"profile": "strict"}}}
    )
    app.get("/x")(lambda: "x")
    async with TestClient(app, client=("127.0.0.1", 1), base_url="http://localhost") as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        policy = ContentSecurityPolicy(page.headers["content-security-policy"])
        (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert policy.directives["style-src"] == (f"'sha256-{digest}'",)
        assert policy.directives["default-src"] == ("'none'",)
        assert not re.search(r"<script|<link|<img|\sstyle=|\son[a-z]+=|javascript:", page.text), (
            "nothing that it would block"
        )


# The grade

# What Mozilla's HTTP Observatory takes off and adds for what headers say: https://github.com/mdn/mdn-http-observatory,
# src/grader/charts.js and src/analyzer/tests/. Bonuses count from 90 points on. Cookies, redirects, CORS and the
# scripts of a page are not the business of these headers, and neither cost nor give anything here.
GRADES = {
    100: "A+", 90: "A", 85: "A-", 80: "B+", 70: "B", 65: "B-", 60: "C+", 50: "C", 45: "C-", 40: "D+", 30: "D", 25: "D-",
    0: "F",
}  # fmt: skip
BROAD = {"ftp:", "http:", "https:", "*", "http://*", "http://*.*", "https://*", "https://*.*"}
INLINE = {"'unsafe-inline'", "data:"}


def observatory(headers: dict[str, str]) -> tuple[int, str]:
    """The score and the grade of a site served over https with these headers."""
    policy = {
        name: set(values)
        for name, *values in (
            part.split() for part in headers.get("content-security-policy", "").split(";") if part.strip()
        )
    }
    modifiers = [
        policy_modifier(policy),
        hsts_modifier(headers.get("strict-transport-security")),
        {"nosniff": 0}.get(headers.get("x-content-type-options", ""), -5),
        referrer_modifier(headers.get("referrer-policy")),
        5 if "frame-ancestors" in policy else 0 if headers.get("x-frame-options") in ("DENY", "SAMEORIGIN") else -20,
        {None: 0, "cross-origin": 0, "same-site": 10, "same-origin": 10}.get(
            headers.get("cross-origin-resource-policy"), -5
        ),
    ]
    score = 100 + sum(modifier for modifier in modifiers if modifier < 0)
    if score >= 90:
        score += sum(modifier for modifier in modifiers if modifier > 0)
    score = max(score, 0)
    return score, next(grade for least, grade in GRADES.items() if score >= least)


def policy_modifier(policy: dict[str, set[str]]) -> int:
    if not policy:
        return -25
    default = policy.get("default-src", {"*"})
    script, style, objects = (set(policy.get(f"{name}-src", default)) for name in ("script", "style", "object"))
    for sources in (script, style):
        if any(source.startswith(("'nonce-", "'sha256-", "'sha384-", "'sha512-")) for source in sources):
            sources.discard("'unsafe-inline'")
    if script & (BROAD | INLINE) or objects & BROAD:
        return -20
    passive = policy.get("img-src", default) | policy.get("media-src", default)
    active = script.union(
        *(values for name, values in policy.items() if name not in ("img-src", "media-src", "script-src"))
    )
    if any(source.startswith(("http:", "ftp:")) for source in active):
        return -20
    if "'unsafe-eval'" in script | style or any(source.startswith(("http:", "ftp:")) for source in passive):
        return -10
    if style & (BROAD | INLINE):
        return 0
    return 10 if policy.get("default-src") == {"'none'"} else 5


def hsts_modifier(value: str | None) -> int:
    found = re.match(r"max-age=(\d+)", value or "")
    if found is None:
        return -20
    return 0 if int(found[1]) >= 15_768_000 else -10


def referrer_modifier(value: str | None) -> int:
    if value is None:
        return 0
    private = ("no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin")
    return 5 if value in private else -5


@pytest.mark.parametrize(
    ("settings", "score", "grade"),
    [
        ({}, 55, "C"),
        ({"hsts_seconds": YEAR}, 75, "B"),
        ({"hsts_seconds": YEAR, "content_security_policy": "default-src 'self'"}, 110, "A+"),
        ({"hsts_seconds": YEAR, "content_security_policy": "default-src *"}, 80, "B+"),
        ({"profile": "strict"}, 130, "A+"),
        ({"profile": "strict", "hsts_seconds": 60}, 120, "A+"),
        ({"profile": "strict", "hsts_seconds": 0}, 80, "B+"),
    ],
)
async def test_the_grade_at_the_observatory(settings: dict[str, Any], score: int, grade: str) -> None:
    app = with_nonce(**settings)
    async with TestClient(app) as client:
        assert observatory(dict((await client.get("/plain")).headers)) == (score, grade)
        if settings.get("profile"):
            assert observatory(dict((await client.get("/page")).headers)) == (score, grade), "with a nonce, too"
