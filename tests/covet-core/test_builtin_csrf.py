"""The builtin plugin csrf: what pages of other sites cannot make a browser do, and what is not in its way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builtin import needs

from covet import (
    Body,
    Covet,
    CovetError,
    Depends,
    Form,
    HTMLResponse,
    Request,
    Response,
    Route,
    UploadFile,
    WebSocket,
    hookimpl,
)
from covet.csrf import CSRFExempt, CSRFProtection, csrf_exempt, csrf_token
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio


def client_of(app: Covet, **options: Any) -> TestClient:
    """A client that says nothing of where its requests come from, unless a test does."""
    return TestClient(app, same_origin=False, **options)


KEY = "0123456789abcdef-first"
OTHER_KEY = "fedcba9876543210-second"
CROSS = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Item(msgspec.Struct):
    """What JSON routes take."""

    name: str


def make_app(key: str = KEY, previous: tuple[str, ...] = (), debug: bool = False, **settings: Any) -> Covet:
    app = plugin_sandbox(
        "csrf",
        settings={
            "app": {"secret_key": key, "previous_secret_keys": list(previous), "debug": debug},
            "plugins": {"csrf": settings},
        },
    )

    @app.get("/form")
    async def form(request: Request) -> HTMLResponse:
        return HTMLResponse(csrf_token(request))

    @app.post("/save")
    async def save() -> str:
        return "saved"

    @app.post("/fields")
    async def fields(name: Annotated[str, Form()]) -> str:
        return name

    @app.post("/upload")
    async def upload(name: Annotated[str, Form()], file: UploadFile) -> str:
        return f"{name} {(await file.read()).decode()}"

    @app.post("/raw")
    async def raw(request: Request) -> str:
        return (await request.body()).decode()

    @app.post("/webhook")
    @csrf_exempt
    async def webhook() -> str:
        return "heard"

    @app.route("/both", methods=["GET", "POST", "DELETE"])
    async def both() -> str:
        return "both"

    return app


# Which routes are guarded at all


def guards_of(app: Covet) -> dict[str, int]:
    return {f"{min(route.methods)} {route.path}": len(route.guards) for route in app.routes if isinstance(route, Route)}


async def audit(request: Request) -> str:
    request.app.state[list].append("audited")
    return "audited"


async def test_what_no_page_can_forge_has_no_guard_and_no_trace_of_one() -> None:
    app = plugin_sandbox("csrf")

    @app.get("/read")
    async def read() -> str:
        return ""

    @app.post("/json")
    async def json(item: Item) -> str:
        return item.name

    @app.post("/optional")
    async def optional(item: Item | None = None) -> str:
        return ""

    @app.post("/bytes")
    async def raw(data: Annotated[bytes, Body()]) -> str:
        return ""

    @app.post("/bodiless")
    async def bodiless() -> str:
        return ""

    @app.post("/depends")
    async def depends(told: Annotated[str, Depends(audit)], item: Item) -> str:
        return told

    @app.delete("/gone")
    async def gone() -> str:
        return ""

    @app.post("/exempt")
    @csrf_exempt
    async def exempt() -> str:
        return ""

    @app.post("/marked", marks=[CSRFExempt()])
    async def marked() -> str:
        return ""

    assert guards_of(app) == {
        "GET /read": 0, "POST /json": 0, "POST /optional": 1, "POST /bytes": 1, "POST /bodiless": 1,
        "POST /depends": 1, "DELETE /gone": 1, "POST /exempt": 0, "POST /marked": 0,
    }  # fmt: skip
    assert app.built.pipeline.empty
    assert app.built.outer == []
    assert "guard" not in app.built.tables["GET"].static["/read"].source
    assert "guard" not in app.built.tables["POST"].static["/json"].source


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
async def test_json_routes_take_nothing_that_goes_without_a_preflight_request(sent: str | None) -> None:
    """CVE-2021-32677 of FastAPI; ASVS 3.5.2."""
    app = plugin_sandbox("csrf")
    app.state[list] = []
    called = []

    @app.post("/json")
    async def json(item: Item) -> str:
        called.append(item)
        return item.name

    @app.post("/depends")
    async def depends(told: Annotated[str, Depends(audit)], item: Item) -> str:
        return told

    async with client_of(app) as client:
        for path in ("/json", "/depends"):
            headers = {**CROSS, "cookie": "session=1", **({"content-type": sent} if sent else {})}
            assert (await client.post(path, content=b'{"name": "x"}', headers=headers)).status_code == 415
        assert (called, app.state[list]) == ([], []), "not even a dependency has been called"
        assert (await client.post("/json", json={"name": "x"})).text == "x"
        assert (await client.post("/depends", json={"name": "x"})).text == "audited"


async def test_a_json_body_that_may_be_missing_protects_nothing() -> None:
    app = plugin_sandbox("csrf")

    @app.post("/optional")
    async def optional(item: Item | None = None) -> str:
        return "done"

    async with client_of(app) as client:
        assert (await client.post("/optional", headers={**CROSS, "cookie": "session=1"})).status_code == 403
        assert (await client.post("/optional", headers={"sec-fetch-site": "same-origin"})).text == "done"


# Where a request comes from


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "same-origin", "cookie": "a=b"}, 200),
        # A subdomain is another origin, whatever SameSite cookies say.
        ({"sec-fetch-site": "same-site", "origin": "https://blog.localhost"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "https://localhost"}, 403),
        ({"sec-fetch-site": "something-new"}, 403),
        ({"sec-fetch-site": ""}, 403),
        ({"sec-fetch-site": "same-origin, cross-site"}, 403),
        ({"sec-fetch-site": "Same-Origin"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "https://app.example"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "https://eu.shop.example"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "https://shop.example"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "null"}, 403),
        # Browsers from before Fetch Metadata, and pages without TLS.
        ({"origin": "https://localhost"}, 200),
        ({"origin": "https://LOCALHOST:443"}, 200),
        ({"origin": "https://localhost:8443"}, 403),
        ({"origin": "http://localhost"}, 403),
        ({"origin": "https://localhost.evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://app.example"}, 200),
        ({"origin": "https://app.example:444"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "https://localhost, https://evil.example"}, 403),
        ({"origin": "https://localhost/"}, 403),
        ({"origin": "https://user@localhost"}, 403),
        # What is no browser.
        ({}, 200),
        ({"authorization": "Basic dTpw"}, 200),
        ({"cookie": "session=1"}, 403),
        ({"cookie": "session=1", "authorization": "Basic dTpw"}, 403),
        ({"cookie": "session=1", "authorization": "Bearer abc"}, 200),
        ({"cookie": "session=1", "authorization": "bearer abc"}, 200),
        ({"cookie": "session=1", "authorization": "Bearer"}, 403),
    ],
)
async def test_who_may_send(headers: dict[str, str], status: int) -> None:
    app = make_app(allowed_origins=["https://app.example", "https://*.shop.example"])
    async with client_of(app) as client:
        for path in ("/save", "/both"):
            got = await client.post(path, headers=headers)
            assert got.status_code == status, got.text
        assert (await client.delete("/both", headers=headers)).status_code == status
        assert (await client.get("/both", headers=headers)).status_code == 200
        assert (await client.head("/both", headers=headers)).status_code == 200
        assert (await client.post("/webhook", headers=headers)).status_code == 200


async def test_headers_that_stand_twice_are_no_proof() -> None:
    async with client_of(make_app(allowed_origins=["https://app.example"])) as client:
        for headers in (
            [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
            [("origin", "https://localhost"), ("origin", "https://evil.example")],
            [("origin", "https://app.example"), ("origin", "https://app.example")],
        ):
            assert (await client.post("/save", headers=headers)).status_code == 403


async def test_with_strict_a_client_that_says_nothing_needs_a_token_without_cookies_as_well() -> None:
    async with client_of(make_app(strict=True)) as client:
        assert (await client.post("/save")).status_code == 403
        assert (await client.post("/save", headers={"authorization": "Basic dTpw"})).status_code == 403
        assert (await client.post("/save", headers={"authorization": "Bearer abc"})).status_code == 200
        assert (await client.post("/save", headers={"sec-fetch-site": "same-origin"})).status_code == 200
        token = (await client.get("/form")).text
        assert (await client.post("/save", headers={"x-csrf-token": token})).status_code == 200


@needs("proxy_headers")
async def test_behind_a_proxy_the_origin_is_the_one_that_it_tells() -> None:
    app = plugin_sandbox("csrf", "proxy_headers", settings={"plugins": {"proxy_headers": {"trusted": ["127.0.0.1"]}}})

    @app.post("/save")
    async def save() -> str:
        return "saved"

    async with client_of(app, base_url="http://shop.example") as client:
        told = {"x-forwarded-proto": "https", "origin": "https://shop.example"}
        assert (await client.post("/save", headers=told)).status_code == 200
        assert (await client.post("/save", headers={**told, "origin": "http://shop.example"})).status_code == 403
        assert (await client.post("/save", headers={"origin": "https://shop.example"})).status_code == 403


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60))
def test_no_origin_but_the_own_and_the_listed_ones_passes(text: str) -> None:
    """Whatever stands in `Origin`, without running an application."""
    import anyio

    app = make_app(allowed_origins=["https://app.example"])
    protection = CSRFProtection(app, ["https://app.example"])

    async def check(site: list[tuple[bytes, bytes]]) -> bool:
        headers = [(b"host", b"localhost"), (b"origin", text.encode("latin-1")), *site]
        scope = {"type": "http", "method": "POST", "path": "/", "scheme": "https", "headers": headers}

        async def receive() -> dict[str, Any]:
            raise AssertionError("nothing is read")

        from covet import HTTPError

        try:
            await protection.check(Request(scope, receive, app))
        except HTTPError as error:
            return error.status != 403
        return True

    own = text.lower() in ("https://localhost", "https://localhost:443", "https://localhost:", "https://localhost.")
    assert anyio.run(check, []) is (own or text == "https://app.example")
    assert anyio.run(check, [(b"sec-fetch-site", b"cross-site")]) is (text == "https://app.example")


async def test_a_refusal_says_what_to_do_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(make_app()) as client:
        with caplog.at_level(logging.WARNING, "covet.security"):
            refused = await client.post("/save", headers=[(b"sec-fetch-site", b"cross-site"), (b"origin", b"a\xe9")])
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["title"] == "Cross-site request refused"
        assert "allowed_origins" in refused.json()["detail"]
        (record,) = caplog.records
        assert vars(record)["security_event"] == "csrf_refused"
        assert vars(record)["client"] == "127.0.0.1"
        assert "POST /save" in record.getMessage()
        detail = (await client.post("/save", headers={"cookie": "session=1"})).json()["detail"]
        assert "csrf_token()" in detail
        assert "Bearer" in detail
        assert "proxy_headers" in (await client.post("/save", headers={"origin": "http://localhost"})).json()["detail"]


async def test_other_plugins_routes_are_protected_and_mounted_applications_protect_themselves() -> None:
    class Other:
        @hookimpl
        def covet_routes(self, app: Covet) -> list[Route]:
            async def theirs() -> str:
                return "theirs"

            return [Route("/theirs", theirs, ["POST"])]

    async def foreign(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await Response("foreign")(scope, receive, send)

    app = plugin_sandbox("csrf", Other())
    app.mount("/foreign", foreign)
    app.mount("/own", make_app())
    async with client_of(app) as client:
        assert (await client.post("/theirs", headers=CROSS)).status_code == 403
        assert (await client.post("/foreign/", headers=CROSS)).text == "foreign"
        assert (await client.post("/own/save", headers=CROSS)).status_code == 403


async def test_websockets_of_other_origins_are_refused_by_accept() -> None:
    from covet.testing import WebSocketDenied

    app = make_app()

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")

    async with client_of(app) as client:
        with pytest.raises(WebSocketDenied):
            async with client.websocket("/socket", headers=CROSS):
                pass
        async with client.websocket("/socket", headers={"origin": "https://localhost"}) as open_socket:
            assert await open_socket.receive_text() == "hello"


# Tokens


async def test_a_token_in_the_header_or_in_a_form_lets_an_old_browser_in() -> None:
    async with client_of(make_app()) as client:
        page = await client.get("/form")
        cookie = page.headers["set-cookie"]
        assert cookie.startswith("__Host-csrf=")
        assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
        assert (page.headers["vary"], page.headers["cache-control"]) == ("Cookie", "private")
        token = page.text
        assert len(token) == 86
        assert (await client.post("/save")).status_code == 403, "it has the cookie, and no token"
        assert (await client.post("/save", headers={"x-csrf-token": token})).text == "saved"
        assert (await client.post("/save", data={"csrf_token": token})).text == "saved"
        assert (await client.post("/fields", data={"csrf_token": token, "name": "ada"})).text == "ada"
        assert (await client.post("/raw", data={"csrf_token": token})).text == f"csrf_token={token}"
        sent = await client.post(
            "/upload", data={"csrf_token": token, "name": "n"}, files={"file": ("a.txt", b"content")}
        )
        assert sent.text == "n content"
        for data in ({}, {"csrf_token": ""}, {"csrf_token": "x"}):
            assert (await client.post("/fields", data={**data, "name": "n"})).status_code == 403
        as_file = await client.post("/upload", data={"name": "n"}, files={"csrf_token": ("t", token.encode())})
        assert as_file.status_code == 403
        json = await client.post("/save", json={"csrf_token": token})
        assert json.status_code == 403, "a token is looked for in forms alone"


async def test_a_token_saves_no_request_that_says_it_comes_from_elsewhere() -> None:
    async with client_of(make_app()) as client:
        token = (await client.get("/form")).text
        assert (await client.post("/save", headers={**CROSS, "x-csrf-token": token})).status_code == 403


async def test_tokens_differ_each_time_and_are_made_once_for_a_request() -> None:
    app = make_app()

    @app.get("/two")
    async def two(request: Request) -> str:
        assert csrf_token(request) == csrf_token(request)
        return csrf_token(request)

    async with client_of(app) as client:
        first = await client.get("/two")
        second = await client.get("/two")
        assert first.headers.get_list("set-cookie") != []
        assert "set-cookie" not in second.headers, "the cookie stays"
        assert second.headers["vary"] == "Cookie"
        assert first.text != second.text
        # BREACH: nothing of what is secret stands twice.
        assert len({first.text[i : i + 6] for i in range(80)} & {second.text[i : i + 6] for i in range(80)}) == 0
        for token in (first.text, second.text):
            assert (await client.post("/save", headers={"x-csrf-token": token})).text == "saved"


@pytest.mark.parametrize(
    "wrong",
    ["", "x", "A" * 86, "A" * 85, "A" * 87, "é" * 86, "../" * 28 + "aa", "a" * 5000, "🙂".encode().decode("latin-1")],
)
async def test_forged_tokens(wrong: str) -> None:
    async with client_of(make_app()) as client:
        await client.get("/form")
        sent = await client.post("/save", headers=[(b"x-csrf-token", wrong.encode("latin-1"))])
        assert sent.status_code == 403
        assert (await client.post("/save", data={"csrf_token": wrong})).status_code == 403


async def test_a_token_is_bound_to_its_cookie_and_key_and_no_character_of_it_may_change() -> None:
    async with client_of(make_app()) as ada, client_of(make_app()) as eve, client_of(make_app(OTHER_KEY)) as other:
        token, of_eve = (await ada.get("/form")).text, (await eve.get("/form")).text
        assert (await ada.post("/save", headers={"x-csrf-token": of_eve})).status_code == 403
        cookie = {"cookie": f"__Host-csrf={ada.cookies['__Host-csrf']}", "x-csrf-token": token}
        assert (await eve.post("/save", headers=cookie)).status_code == 200, "both of them are what is asked for"
        other.cookies.clear()
        assert (await other.post("/save", headers=cookie)).status_code == 403, "signed with another key"
        ada.cookies.clear()
        for secret in ("", "x", "A" * 43, "a" * 5000):
            got = await ada.post("/save", headers={"cookie": f"__Host-csrf={secret}", "x-csrf-token": token})
            assert got.status_code == 403
        for position in range(0, 85, 7):
            changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
            got = await eve.post("/save", headers={**cookie, "x-csrf-token": changed})
            assert got.status_code == 403


async def test_a_foreign_cookie_is_replaced_not_signed() -> None:
    """Whoever could choose its value would know how long it is, at most."""
    async with client_of(make_app()) as client:
        got = await client.get("/form", headers={"cookie": "__Host-csrf=chosen"})
        assert "__Host-csrf=" in got.headers["set-cookie"]
        assert "chosen" not in got.headers["set-cookie"]


async def test_keys_rotate() -> None:
    async with client_of(make_app()) as before:
        token = (await before.get("/form")).text
        headers = {"cookie": f"__Host-csrf={before.cookies['__Host-csrf']}", "x-csrf-token": token}
    async with client_of(make_app(OTHER_KEY, (KEY,))) as after:
        assert (await after.post("/save", headers=headers)).text == "saved"
    async with client_of(make_app(OTHER_KEY)) as later:
        assert (await later.post("/save", headers=headers)).status_code == 403


async def test_in_debug_mode_the_cookie_works_over_http() -> None:
    async with client_of(make_app(debug=True), base_url="http://127.0.0.1:8000") as client:
        page = await client.get("/form")
        assert page.headers["set-cookie"].startswith("csrf=")
        assert "Secure" not in page.headers["set-cookie"]
        assert (await client.post("/save", data={"csrf_token": page.text})).text == "saved"


async def test_a_cookie_of_ones_own() -> None:
    for name, debug in (("__Secure-mine", True), ("mine", False)):
        async with client_of(make_app(debug=debug, cookie=name)) as client:
            page = await client.get("/form")
            assert page.headers["set-cookie"].startswith(f"{name}=")
            assert "; Secure" in page.headers["set-cookie"]
            assert (await client.post("/save", data={"csrf_token": page.text})).text == "saved"


@pytest.mark.parametrize(
    ("caching", "becomes"),
    [
        ("public, max-age=60", "private"),
        ("private, max-age=60", "private, max-age=60"),
        ("no-store", "no-store"),
        ("max-age=60", "private"),
        ("no-cache", "no-cache, private"),
        ("public, private", "private"),
        ('private="x-a"', 'private="x-a", private'),
    ],
)
async def test_a_page_with_a_token_is_in_no_shared_cache(caching: str, becomes: str) -> None:
    app = make_app()

    @app.get("/cached")
    async def cached(request: Request) -> Response:
        return Response(csrf_token(request), headers={"cache-control": caching, "vary": "Accept"})

    async with client_of(app) as client:
        page = await client.get("/cached")
        assert (page.headers["cache-control"], page.headers["vary"]) == (becomes, "Accept, Cookie")


async def test_without_a_key_no_token_is_valid_and_nothing_breaks(caplog: pytest.LogCaptureFixture) -> None:
    app = plugin_sandbox("csrf")

    @app.post("/save")
    async def save() -> str:
        return "saved"

    @app.get("/form")
    async def form(request: Request) -> str:
        return csrf_token(request)

    async with client_of(app, raise_errors=False) as client:
        headers = {"cookie": "__Host-csrf=" + "a" * 43, "x-csrf-token": "a" * 86}
        with caplog.at_level(logging.WARNING, "covet.security"):
            got = await client.post("/save", headers=headers)
        assert got.status_code == 403
        assert "no secret key is set" in caplog.text
        assert (await client.get("/form")).status_code == 500
        assert (await client.post("/save", headers={"sec-fetch-site": "same-origin"})).text == "saved"


async def test_csrf_token_without_the_plugin_says_so() -> None:
    app = plugin_sandbox()

    @app.get("/form")
    async def form(request: Request) -> str:
        return csrf_token(request)

    async with client_of(app) as client:
        with pytest.raises(CovetError, match="takes the plugin 'csrf'"):
            await client.get("/form")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"allowed_origins": ["*"]}, "every site can come from"),
        ({"allowed_origins": ["null"]}, "every site can come from"),
        ({"allowed_origins": ["app.example"]}, "is no origin"),
        ({"allowed_origins": ["https://app.example/"]}, "is no origin"),
        ({"allowed_origins": ["https://*"]}, "is no origin"),
        ({"allowed_origins": ["https://a*.example"]}, "is no origin"),
        ({"cookie": "a b"}, "is no cookie name"),
        ({"stict": True}, "did you mean 'strict'"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(settings: Mapping[str, Any], told: str) -> None:
    with pytest.raises(CovetError, match=told):
        make_app(**settings).build()


def test_every_setting_says_what_it_is() -> None:
    from covet.builtin.csrf import CSRFSettings
    from covet.settings_schema import describe

    assert [field.name for field in describe(CSRFSettings) if not field.description] == []
