"""Templates: escaping, what is at hand in them, errors with their line, streams that break off, and plugins'."""

# ruff: noqa: ASYNC240 - the files are small

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builtin import needs

from covet import ConfigurationError, Covet, CovetError, Response, hookimpl
from covet.builtin.templates import TemplatesSettings
from covet.settings_schema import describe
from covet.static import StaticFiles
from covet.templating import CHUNK, TemplateError, Templates, add_templates
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await

pytestmark = pytest.mark.anyio

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write templates: name to text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "templates").mkdir()

    def write(files: dict[str, str], directory: str = "templates") -> None:
        for name, text in files.items():
            path = tmp_path / directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def make_app(*plugins: object, debug: bool = False, **settings: Any) -> Covet:
    app = plugin_sandbox("templates", *plugins, settings={"app": {"debug": debug}, "plugins": {"templates": settings}})

    @app.get("/show/{name:path}")
    async def show(templates: Templates, name: str, x: str = "") -> Response:
        return await templates.render(name, {"x": x, "numbers": range(3)})

    @app.get("/stream/{name:path}")
    async def stream(templates: Templates, name: str, x: str = "") -> Response:
        return await templates.stream(name, {"x": x, "numbers": range(2000)})

    return app


# Rendering


async def test_a_page_and_what_it_is_given(write: Write) -> None:
    write({"base.html": "<title>{% block title %}{% endblock %}</title>{% include 'part.html' %}"})
    write(
        {
            "part.html": "<p>{{ request.path }}",
            "page.html": "{% extends 'base.html' %}{% block title %}{{ x }}{% endblock %}",
        }
    )
    async with TestClient(make_app()) as client:
        got = await client.get("/show/page.html", params={"x": "<ü>"})
        assert got.text == "<title>&lt;ü&gt;</title><p>/show/page.html"
        assert got.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("name", ["page.html", "page.txt", "page.xml", "page", "page.html.j2", "mail.md", "script.js"])
async def test_everything_is_escaped_whatever_a_template_is_called(write: Write, name: str) -> None:
    write({name: "{{ x }}|{{ x|safe }}|{% autoescape false %}{{ x }}{% endautoescape %}"})
    async with TestClient(make_app()) as client:
        got = await client.get(f"/show/{name}", params={"x": "<b>\"'&"})
        assert got.text == "&lt;b&gt;&#34;&#39;&amp;|<b>\"'&|<b>\"'&"


@given(text=st.text())
def test_no_text_leaves_an_attribute_or_an_element(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    directory = tmp_path_factory.getbasetemp() / "escaping"
    directory.mkdir(exist_ok=True)
    (directory / "a.html").write_text("[{{ x }}]")
    rendered = anyio.run(Templates([directory]).render_text, "a.html", {"x": text})
    assert not set("<>\"'") & set(rendered)


async def test_status_headers_and_type(write: Write) -> None:
    write({"feed.xml": "<feed/>"})
    app = make_app()

    @app.get("/feed")
    async def feed(templates: Templates) -> Response:
        return await templates.render("feed.xml", status=203, headers={"x-a": "b"}, content_type="application/atom+xml")

    async with TestClient(app) as client:
        got = await client.get("/feed")
        assert (got.status_code, got.headers["x-a"], got.headers["content-type"]) == (203, "b", "application/atom+xml")


async def test_a_template_awaits(write: Write) -> None:
    write({"page.html": "{{ load() }} {% for x in items() %}{{ x }}{% endfor %}"})

    async def load() -> str:
        await anyio.lowlevel.checkpoint()
        return "<loaded>"

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            await anyio.lowlevel.checkpoint()
            yield number

    text = await Templates(["templates"]).render_text("page.html", {"load": load, "items": items})
    assert text == "&lt;loaded&gt; 012"


async def test_cancellation_reaches_what_a_template_awaits(write: Write) -> None:
    write({"page.html": "{{ load() }}"})
    ended = []

    async def load() -> str:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)
        return ""

    with anyio.move_on_after(0.05) as scope:
        await Templates(["templates"]).render_text("page.html", {"load": load})
    assert (scope.cancelled_caught, ended) == (True, [True])


async def test_templates_are_reloaded_in_debug_mode_alone(write: Write) -> None:
    for debug, expected in ((True, "two"), (False, "one")):
        write({"page.html": "{% include 'part.html' %}", "part.html": "one"})
        async with TestClient(make_app(debug=debug)) as client:
            assert (await client.get("/show/page.html")).text == "one"
            path = Path("templates", "part.html")
            path.write_text("two")
            os.utime(path, (1, 1))
            assert (await client.get("/show/page.html")).text == expected


async def test_what_a_template_refers_to_is_loaded_with_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a worker thread: later, the event loop would wait for the file system."""
    write({"page.html": "{% extends 'base.html' %}", "base.html": "{% import 'macros.html' as m %}{{ m.a() }}"})
    write({"macros.html": "{% macro a() %}{% include ['none.html', 'part.html'] %}{% endmacro %}", "part.html": "x"})
    templates = Templates(["templates"])
    await templates._load("page.html")
    for path in Path("templates").iterdir():
        path.unlink()
    assert await templates.render_text("page.html") == "x"


# What is at hand


async def test_urls(write: Write, tmp_path: Path) -> None:
    write({"page.html": "{% from 'm.html' import link %}{{ link() }} {{ static_url('a b.css') }}"})
    write({"m.html": "{% macro link() %}{{ url_for('show', name='<x>') }}{% endmacro %}"})
    write({"a b.css": "x"}, "static")
    inner = make_app()
    inner.add(StaticFiles("static"), "/static")
    outer = Covet(installed_plugins=False)
    outer.mount("/shop", inner)
    async with TestClient(inner) as client:
        assert (await client.get("/show/page.html")).text == "/show/%3Cx%3E /static/a%20b.css"
    async with TestClient(outer) as client:
        assert (await client.get("/shop/show/page.html")).text == "/shop/show/%3Cx%3E /shop/static/a%20b.css"


async def test_outside_of_a_request(write: Write) -> None:
    write({"mail.txt": "{{ request }} {{ url_for('show', name='a') }}", "page.html": "{{ csp_nonce() }}"})
    write({"token.html": "{{ csrf_token() }}"})
    app = make_app()
    async with app.running():
        templates = app.state[Templates]
        assert await templates.render_text("mail.txt") == "None /show/a"
        for name, what in (("page.html", "csp_nonce"), ("token.html", "csrf_token")):
            with pytest.raises(CovetError, match=rf"{what}\(\) belongs to a response"):
                await templates.render_text(name)


async def test_filters_and_globals_of_the_application(write: Write) -> None:
    write({"page.html": "{{ 3|double }} {{ site }}"})
    app = make_app()

    @app.lifespan
    async def extend(app: Covet) -> AsyncIterator[None]:
        environment = app.state[Templates].environment
        environment.filters["double"] = lambda number: number * 2
        environment.globals["site"] = "Covet"
        yield

    async with TestClient(app) as client:
        assert (await client.get("/show/page.html")).text == "6 Covet"


# Errors


async def test_a_name_that_is_not_there_is_an_error_unless_asked_otherwise(write: Write) -> None:
    write({"page.html": "[{{ nothing }}]", "asked.html": "[{{ nothing|default('') }}{{ nothing is defined }}]"})
    async with TestClient(make_app()) as client:
        with pytest.raises(Exception, match="'nothing' is undefined"):
            await client.get("/show/page.html")
        assert (await client.get("/show/asked.html")).text == "[False]"
    async with TestClient(make_app(strict=False)) as client:
        assert (await client.get("/show/page.html")).text == "[]"


BROKEN = {
    "page.html": "{% extends 'base.html' %}\n\n{% block body %}\n{{ 1 // (x|length) }}\n{% endblock %}",
    "base.html": "<html>\n{% block body %}{% endblock %}",
    "syntax.html": "<p>\n{% if %}\n",
    "include.html": "one\n{% include 'syntax.html' %}",
}


@pytest.mark.parametrize(
    ("name", "where", "told"),
    [
        ("page.html", 'page.html", line 4', "ZeroDivisionError"),
        ("syntax.html", 'syntax.html", line 2', "TemplateSyntaxError"),
        ("include.html", 'syntax.html", line 2', "TemplateSyntaxError"),
    ],
)
async def test_an_error_is_a_500_and_the_log_has_the_template_and_its_line(
    write: Write, caplog: pytest.LogCaptureFixture, name: str, where: str, told: str
) -> None:
    write(BROKEN)
    async with TestClient(make_app(), raise_errors=False) as client:
        got = await client.get(f"/show/{name}", headers={"accept": "text/html"})
        assert got.status_code == 500
        assert name not in got.text
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    text = logging.Formatter().format(record)
    assert where in text
    assert told in text


async def test_the_debug_page_shows_the_lines_of_the_template(write: Write) -> None:
    write(BROKEN)
    async with TestClient(make_app(debug=True), raise_errors=False) as client:
        page = (await client.get("/show/page.html", headers={"accept": "text/html"})).text
        assert "templates/page.html:4</small>" in page
        assert "<mark>    4 {{ 1 // (x|length) }}</mark>" in page
        assert "templates/base.html:2</small>" in page
        syntax = (await client.get("/show/syntax.html", headers={"accept": "text/html"})).text
        assert "<mark>    2 {% if %}</mark>" in syntax


async def test_a_missing_template_is_named_with_where_it_was_looked_for(write: Write, tmp_path: Path) -> None:
    write({"page.html": "{% include 'none.html' %}"})
    templates = Templates(["templates", "elsewhere"])
    with pytest.raises(TemplateError) as caught:
        await templates.render("pag.html")
    text = str(caught.value)
    assert "no template 'pag.html'" in text
    assert f"{tmp_path}/templates, {tmp_path}/elsewhere (which is no directory)" in text
    assert "did you mean 'page.html'?" in text
    for render in (templates.render, templates.stream):
        with pytest.raises(TemplateError, match=r"no template 'none\.html', which 'page\.html' asks for"):
            await render("page.html")


@pytest.mark.parametrize(
    "name", ["../secret.txt", "/etc/passwd", "..\\secret.txt", "a/../../secret.txt", "", "\0", "a\0b"]
)
async def test_no_name_leads_out_of_the_directory(write: Write, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises((TemplateError, ValueError, OSError)):
        await Templates(["templates"]).render(name)


async def test_without_jinja_the_line_to_type(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r'pip install "covet-core\[templates\]"'):
        async with TestClient(make_app()):
            pass
    plain = plugin_sandbox("templates")
    plain.get("/")(lambda: "served")
    async with TestClient(plain) as client:
        assert (await client.get("/")).text == "served", "an application without templates needs no Jinja"


def test_an_application_without_templates_imports_no_jinja() -> None:
    script = (
        "import sys; from covet.testing import plugin_sandbox\n"
        "app = plugin_sandbox('templates'); app.get('/')(lambda: 'x'); app.build()\n"
        "assert app.built.pipeline.empty; assert 'jinja2' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# Streams


ROWS = "<table>\n{% for n in numbers %}<tr><td>{{ n }}</td></tr>\n{% endfor %}</table>"


async def test_a_stream_is_the_same_page_in_pieces(write: Write) -> None:
    write({"rows.html": ROWS})
    async with TestClient(make_app()) as client:
        sizes = []
        text = ""
        async with client.stream("GET", "/stream/rows.html") as response:
            assert response.headers["content-type"] == "text/html; charset=utf-8"
            assert "content-length" not in response.headers
            async for piece in response.aiter_text():
                sizes.append(len(piece))
                text += piece
        assert text == "<table>\n" + "".join(f"<tr><td>{n}</td></tr>\n" for n in range(2000)) + "</table>"
        assert len(sizes) > 2
        assert max(sizes) < CHUNK + 100
        head = await client.head("/stream/rows.html")
        assert (head.status_code, head.content) == (200, b"")


async def test_flush_sends_what_is_there(write: Write) -> None:
    write({"page.html": "{{ flush() }}head{{ flush() }}{{ wait() }}{{ flush() }}{{ flush() }}tail"})
    go = anyio.Event()
    app = make_app()

    async def wait() -> str:
        await go.wait()
        return "body"

    @app.get("/slow")
    async def slow(templates: Templates) -> Response:
        return await templates.stream("page.html", {"wait": wait})

    async with TestClient(app) as client, client.stream("GET", "/slow") as response:
        pieces = response.aiter_text()
        with anyio.fail_after(20):
            assert await anext(pieces) == "head"
            go.set()
            assert [piece async for piece in pieces] == ["body", "tail"]
    text = await Templates(["templates"]).render_text("page.html", {"wait": lambda: "body"})
    assert text == "headbodytail"


async def test_flushing_in_a_macro_leaves_nothing_behind(write: Write) -> None:
    write({"page.html": "{% macro m(flush) %}a{{ flush() }}b{% endmacro %}{{ m(flush) }}"})
    async with TestClient(make_app()) as client:
        assert (await client.get("/stream/page.html")).text == "ab"


FAILING = "{% for n in numbers %}row {{ n }} {{ 1 // (1500 - n) }}\n{% endfor %}"


async def test_a_template_that_fails_in_the_middle_of_a_stream_breaks_it_off(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write({"rows.html": "\n" + FAILING})
    pieces: list[str] = []

    async def read(response: httpx.Response) -> None:
        async for piece in response.aiter_text():
            pieces.append(piece)

    async with (
        TestClient(make_app(), raise_errors=False) as client,
        client.stream("GET", "/stream/rows.html") as response,
    ):
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            await read(response)
    got = "".join(pieces)
    assert got.startswith("\nrow 0 ")
    assert "row 1500" not in got
    (record,) = [record for record in caplog.records if record.name == "covet.templating"]
    text = logging.Formatter().format(record)
    assert "the template 'rows.html' failed at" in text
    assert "templates/rows.html:2 in the middle of a stream, which breaks off: ZeroDivisionError" in text


async def test_a_template_that_fails_at_the_beginning_of_a_stream_is_a_500(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write({"page.html": "a\n{{ 1 // 0 }}", "long.html": "{{ 'x' * 9000 }}{{ 1 // 0 }}"})
    async with TestClient(make_app(), raise_errors=False) as client:
        assert (await client.get("/stream/page.html")).status_code == 500
        assert not [record for record in caplog.records if record.name == "covet.templating"], "it is logged once"
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/stream/long.html")


@pytest.mark.parametrize("server", ["granian", "uvicorn"])
async def test_a_stream_that_fails_never_looks_complete_to_a_client(write: Write, tmp_path: Path, server: str) -> None:
    write({"rows.html": FAILING, "whole.html": "{% for n in numbers %}{{ n }}\n{% endfor %}"})
    (tmp_path / "served.py").write_text(
        "from covet import Covet\nfrom covet.templating import Templates\n"
        "app = Covet({'plugins': {'enable': ['templates']}})\n"
        "@app.get('/{name}')\nasync def page(name: str, templates: Templates):\n"
        "    return await templates.stream(name, {'numbers': range(2000)})\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--interface", "asgi"] if server == "granian" else []
    command = [sys.executable, "-m", server, *options, "--host", "127.0.0.1", "--port", str(port), "served:app"]
    with (tmp_path / "log").open("wb") as log:
        process = await anyio.open_process(command, cwd=tmp_path, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            with anyio.fail_after(60):
                while True:
                    try:
                        whole = await client.get("/whole.html")
                        break
                    except httpx.ConnectError:
                        assert process.returncode is None, (tmp_path / "log").read_text()
                        await anyio.sleep(0.05)
            assert whole.text == "".join(f"{n}\n" for n in range(2000))
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/rows.html")
            assert (await client.get("/whole.html")).text == whole.text, "the server goes on to serve"
    finally:
        process.terminate()
        await process.wait()
    assert "rows.html" in (tmp_path / "log").read_text()


async def test_a_client_that_leaves_ends_the_template(write: Write) -> None:
    write({"page.html": "{% for x in items %}{{ x }}{{ flush() }}{% endfor %}"})
    ended = anyio.Event()
    app = make_app()

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(0.001)
        finally:
            ended.set()

    @app.get("/endless")
    async def endless(templates: Templates) -> Response:
        return await templates.stream("page.html", {"items": items()})

    async with TestClient(app) as client:
        async with (
            client.stream("GET", "/endless") as response,
            contextlib.aclosing(cast(Any, response.aiter_raw())) as pieces,
        ):
            assert await anext(pieces) == b"1"
        with anyio.fail_after(20):
            await ended.wait()


async def test_a_stream_that_is_cancelled_at_any_await_ends_its_template(write: Write) -> None:
    write({"page.html": "{% for x in items %}{{ x }}{{ flush() }}{% endfor %}"})
    templates = Templates(["templates"])
    await templates.render_text("page.html", {"items": []})
    open_now: list[int] = []

    async def items() -> AsyncIterator[int]:
        open_now.append(1)
        try:
            for number in range(3):
                await anyio.lowlevel.checkpoint()
                yield number
        finally:
            open_now.pop()

    async def send(message: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    async def serve() -> None:
        async with contextlib.aclosing(cast(Any, items())) as given:
            response = await templates.stream("page.html", {"items": given})
            await response({"type": "http", "method": "GET"}, receive, send)

    async def check() -> None:
        assert open_now == []

    assert await at_every_await(serve, check) > 5


# Nonces


def with_policy() -> Covet:
    app = plugin_sandbox(
        "templates",
        "security_headers",
        settings={"plugins": {"security_headers": {"content_security_policy": "script-src 'nonce'"}}},
    )

    @app.get("/show/{name}")
    async def show(templates: Templates, name: str) -> Response:
        return await templates.render(name)

    @app.get("/stream/{name}")
    async def stream(templates: Templates, name: str) -> Response:
        return await templates.stream(name)

    return app


@needs("security_headers")
async def test_the_nonce_of_a_page_is_that_of_its_header(write: Write) -> None:
    write({"page.html": "{{ csp_nonce() }} {{ csp_nonce() }}", "plain.html": "x"})
    async with TestClient(with_policy()) as client:
        for how in ("show", "stream"):
            got = await client.get(f"/{how}/page.html")
            first, second = got.text.split()
            assert first == second
            assert got.headers["content-security-policy"] == f"script-src 'nonce-{first}'"
            plain = await client.get(f"/{how}/plain.html")
            assert plain.headers["content-security-policy"] == "script-src 'none'"


@needs("security_headers")
async def test_a_nonce_that_comes_too_late_for_the_header_is_an_error(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write({"late.html": "{{ 'x' * 9000 }}{{ flush() }}{{ csp_nonce() }}"})
    write({"early.html": "{% set nonce = csp_nonce() %}{{ 'x' * 9000 }}{{ flush() }}{{ csp_nonce() }}"})
    async with TestClient(with_policy(), raise_errors=False) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/stream/late.html")
        assert "{% set nonce = csp_nonce() %} at its top" in caplog.text
        got = await client.get("/stream/early.html")
        assert got.headers["content-security-policy"] == f"script-src 'nonce-{got.text[9000:]}'"


@needs("csrf")
@needs("csrf")
async def test_the_token_of_a_form(write: Write) -> None:
    write({"form.html": '<input name="csrf_token" value="{{ csrf_token() }}">'})
    app = plugin_sandbox("templates", "csrf", settings={"app": {"debug": True, "secret_key": "k" * 32}})

    @app.get("/form")
    async def form(templates: Templates) -> Response:
        return await templates.render("form.html")

    @app.post("/form")
    async def sent() -> str:
        return "sent"

    async with TestClient(app, same_origin=False) as client:
        page = await client.get("/form")
        token = page.text.split('"')[3]
        assert len(token) > 40
        assert page.headers["set-cookie"]
        assert (await client.post("/form", headers={"cookie": "a=b", "x-csrf-token": "wrong"})).status_code == 403
        cookie = page.headers["set-cookie"].partition(";")[0]
        done = await client.post("/form", headers={"cookie": cookie, "x-csrf-token": token})
        assert (done.status_code, done.text) == (200, "sent")


# Plugins


async def test_a_plugin_brings_templates_that_the_application_may_replace(write: Write, tmp_path: Path) -> None:
    write({"cart.html": "cart of the plugin", "bill.html": "{% extends 'shop/cart.html' %}"}, "plugin")

    class Shop:
        @hookimpl(tryfirst=True)
        def covet_setup(self, app: Covet) -> None:
            add_templates(app, tmp_path / "plugin", prefix="shop")

    async with TestClient(make_app(Shop())) as client:
        assert (await client.get("/show/shop/cart.html")).text == "cart of the plugin"
        assert (await client.get("/show/shop/bill.html")).text == "cart of the plugin"
        with pytest.raises(TemplateError, match=r"plugin for shop/; did you mean 'shop/cart.html'"):
            await client.get("/show/shop/car.html")
    write({"shop/cart.html": "cart of the application"})
    async with TestClient(make_app(Shop())) as client:
        assert (await client.get("/show/shop/bill.html")).text == "cart of the application"


def test_two_plugins_cannot_take_one_prefix() -> None:
    app = Covet(installed_plugins=False)
    add_templates(app, "a", prefix="shop")
    with pytest.raises(ConfigurationError, match=r"'shop' are in .*/a already"):
        add_templates(app, "b", prefix="shop")
    for prefix in ("", "a/b", "..", ".a"):
        with pytest.raises(ConfigurationError, match="plain word"):
            add_templates(app, "c", prefix=prefix)


async def test_the_templates_of_an_application_are_in_its_state(write: Write) -> None:
    write({"page.html": "{{ a.b }}"}, "pages")
    app = make_app(directory="pages")
    app.build()
    assert await app.state[Templates].render_text("page.html", {"a": SimpleNamespace(b=1)}) == "1"


def test_every_setting_says_what_it_is() -> None:
    assert [field.name for field in describe(TemplatesSettings) if not field.description] == []
