"""How errors look, and what they never show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import Covet, Fault, HTTPError, Request, Secret, ValidationError
from covet.problems import prefers_html, render_error
from covet.testing import TestClient

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PASSWORD = "hunter" + "2"


def make_app(error: BaseException | None = None, **settings: Any) -> Covet:
    app = Covet(settings, installed_plugins=False)

    @app.get("/")
    async def index() -> None:
        if error is not None:
            raise error

    return app


# Which form


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ([], False),
        (["*/*"], False),
        (["application/json"], False),
        (["text/html"], True),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], True),
        (["application/json, text/html;q=0.9"], False),
        (["application/json;q=0.5", "text/html"], True),
        (["text/html;q=0, */*"], False),
        (["application/problem+json, text/html;q=0.1"], False),
        (["TEXT/HTML"], True),
        (["text/html;q=much"], False),
        (["a/b," * 100 + "text/html"], False),
        (["image/png"], False),
    ],
)
def test_who_gets_a_page(accept: list[str], page: bool) -> None:
    assert prefers_html(accept) is page


@given(st.lists(st.text()))
def test_any_accept_header_is_understood_somehow(accept: list[str]) -> None:
    assert prefers_html(accept) in (True, False)


# Errors that are responses


@pytest.mark.anyio
async def test_what_an_error_says_is_escaped_in_a_page() -> None:
    evil = "<script>alert(1)</script>"
    app = make_app(HTTPError(400, evil, title=evil))
    async with TestClient(app) as client:
        got = await client.get("/", headers=HTML)
        assert evil not in got.text
        assert "&lt;script&gt;" in got.text
        assert got.headers["content-security-policy"].startswith("default-src 'none'")
        assert got.headers["cache-control"] == "no-store"
        assert evil not in (await client.get(f"/{evil}", headers=HTML)).text


@pytest.mark.anyio
async def test_every_fault_stands_in_page_and_document() -> None:
    app = make_app(ValidationError([Fault("query", "/page", "<too> small"), Fault("body", "/a/0", "no number")]))
    async with TestClient(app) as client:
        page = await client.get("/", headers=HTML)
        assert "&lt;too&gt; small" in page.text
        assert "/a/0" in page.text
        document = (await client.get("/")).json()
        assert [fault["pointer"] for fault in document["errors"]] == ["/page", "/a/0"]
    app = make_app(HTTPError(400, "odd", errors=["of a form of its own"]))
    async with TestClient(app) as client:
        assert (await client.get("/", headers=HTML)).status_code == 400


@pytest.mark.anyio
async def test_an_error_s_headers_win_and_the_request_s_id_is_there() -> None:
    app = make_app(HTTPError(503, headers={"retry-after": "5", "cache-control": "max-age=1", "x-request-id": "own"}))
    async with TestClient(app) as client:
        headers = (await client.get("/")).headers
    assert (headers["retry-after"], headers["cache-control"], headers["x-request-id"]) == ("5", "max-age=1", "own")


@pytest.mark.anyio
async def test_headers_that_are_refused_do_not_turn_another_error_into_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever sends a broken header may not fill the log with errors of the server."""
    app = make_app(HTTPError(409, "taken"))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/", "query_string": b"",
        "headers": [(b"x-a", b"a\0b"), (b"accept", b"text/html")],
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent[0]["status"] == 409
    assert caplog.text == ""


@pytest.mark.anyio
async def test_surrogates_in_an_error_s_words_do_no_harm() -> None:
    app = make_app()
    request = Request(
        {"type": "http", "method": "GET", "path": "/\ud800", "query_string": b"", "headers": []},
        None,
        app,  # type: ignore[arg-type]
    )
    for accept in (b"text/html", b"*/*"):
        request.scope["headers"] = [(b"accept", accept)]
        response = render_error(request, HTTPError(404, f"nothing answers {request.path}"), debug=False)
        assert b"nothing answers /?" in response.body


# Errors that nobody handles


class PaymentError(Exception):
    """Raised where a secret stands in a local variable."""


def pay(password: str) -> None:
    key = Secret(password)
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise PaymentError(f"cannot pay with {key}") from error


@pytest.mark.anyio
async def test_the_traceback_shows_in_debug_alone_and_no_local_variable() -> None:
    for debug in (True, False):
        app = Covet({"app": {"debug": debug}}, installed_plugins=False)

        @app.get("/")
        async def index() -> None:
            pay(PASSWORD)

        async with TestClient(app, raise_errors=False) as client:
            for headers in (HTML, {}):
                got = await client.get("/", headers=headers)
                assert got.status_code == 500
                assert ("pay" in got.text) is debug
                assert ("PaymentError" in got.text) is debug
                assert ("KeyError" in got.text) is debug, "the cause too"
                assert ("test_problems.py" in got.text) is debug
                assert PASSWORD not in got.text
                assert got.headers["x-request-id"] in got.text
                assert got.headers["cache-control"] == "no-store"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name",
    ["authorization", "cookie", "proxy-authorization", "x-api-key", "x-csrf-token", "x-auth-user", "x-goog-iap-jwt",
     "x-amz-security-token", "x-hub-signature", "x-session", "client-secret"],
)  # fmt: skip
async def test_headers_that_say_who_somebody_is_are_hidden(name: str) -> None:
    app = make_app(RuntimeError("broken"), app={"debug": True})
    async with TestClient(app, raise_errors=False) as client:
        page = (await client.get("/", headers={**HTML, name: PASSWORD, "x-plain": "shown"})).text
    assert name in page
    assert PASSWORD not in page
    assert "shown" in page


@pytest.mark.anyio
async def test_an_error_that_cannot_be_shown_is_a_500_all_the_same() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    looping = ValueError("loop")
    looping.__cause__ = other = ValueError("other")
    other.__cause__ = looping

    def deep(n: int) -> None:
        deep(n + 1)

    for error in (MuteError(), looping):
        for debug in (True, False):
            app = make_app(error, app={"debug": debug})

            @app.get("/deep")
            def endless() -> None:
                deep(0)

            async with TestClient(app, raise_errors=False) as client:
                for headers in (HTML, {}):
                    assert (await client.get("/", headers=headers)).status_code == 500
                    got = await client.get("/deep", headers=headers)
                    assert got.status_code == 500
                    assert len(got.content) < 200_000
