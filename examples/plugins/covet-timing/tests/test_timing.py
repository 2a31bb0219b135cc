"""The plugin in an application that has no other, whatever is installed."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import anyio
import msgspec
import pytest
from click.testing import CliRunner
from covet import Covet, HTTPError, PluginError
from covet.testing import TestClient, plugin_sandbox

from covet_timing import Histogram, Timings, plugin
from covet_timing.commands import timing


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def make_app(**settings: Any) -> Covet:
    app = plugin_sandbox(timing=plugin, settings={"plugins": {"timing": settings}})

    @app.get("/pages/{name}")
    async def page(name: str) -> str:
        if name == "missing":
            raise HTTPError(404)
        if name == "broken":
            raise HTTPError(503)
        return name

    return app


# Histograms


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_is_at_most_nine_percent_too_high(fraction: float) -> None:
    durations = sorted(random.Random(7).lognormvariate(-5, 2) for _ in range(5000))
    histogram = Histogram()
    for duration in durations:
        histogram.observe(duration)
    exact = durations[max(0, -(-int(fraction * 5000) // 1) - 1)]
    assert exact <= histogram.quantile(fraction) * (1 + 1e-9)
    assert histogram.quantile(fraction) <= max(exact, 1e-5) * 1.0906


def test_extremes_stay_in_bounds() -> None:
    histogram = Histogram()
    assert (histogram.quantile(0.5), histogram.mean) == (0.0, 0.0)
    for duration in (0.0, 1e-9, 1e6):
        histogram.observe(duration)
    assert histogram.quantile(1.0) == 1e6
    assert histogram.quantile(0.1) <= 1e-5
    with pytest.raises(ValueError, match="from 0 to 1"):
        histogram.quantile(2)


# The plugin


@pytest.mark.anyio
async def test_requests_are_counted_by_route() -> None:
    async with TestClient(make_app()) as client:
        for name in ("a", "b", "missing", "broken"):
            await client.get(f"/pages/{name}")
        report = (await client.get("/timing")).json()
    (pages,) = [times for times in report["routes"] if times["route"] == "/pages/{name}"]
    assert (pages["method"], pages["count"], pages["errors"]) == ("GET", 4, 1)
    assert 0 < pages["p50_ms"] <= pages["p99_ms"] <= pages["max_ms"]


@pytest.mark.anyio
async def test_what_no_route_answers_is_counted_together() -> None:
    async with TestClient(make_app()) as client:
        for index in range(5):
            await client.request(f"BREW{index}", f"/nowhere/{index}")
        report = (await client.get("/timing")).json()
    assert [(times["route"], times["count"]) for times in report["routes"]] == [("(no route)", 5)]


@pytest.mark.anyio
async def test_responses_say_how_long_they_took() -> None:
    async with TestClient(make_app()) as client:
        assert (await client.get("/pages/a")).headers["server-timing"].startswith("app;dur=")
        assert "server-timing" in (await client.get("/pages/missing")).headers
    async with TestClient(make_app(header=False)) as client:
        assert "server-timing" not in (await client.get("/pages/a")).headers


@pytest.mark.anyio
async def test_handlers_ask_for_the_histograms_by_type() -> None:
    app = make_app()

    @app.get("/count")
    async def count(timings: Timings) -> int:
        return timings.of("GET", "/pages/{name}").count

    async with TestClient(app) as client:
        await client.get("/pages/a")
        assert (await client.get("/count")).json() == 1


@pytest.mark.anyio
async def test_slow_requests_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(slow=0.02)

    @app.get("/slow")
    async def slow() -> None:
        await anyio.sleep(0.03)

    with caplog.at_level(logging.WARNING, "covet_timing"):
        async with TestClient(app) as client:
            await client.get("/slow")
    assert [record.getMessage()[:15] for record in caplog.records] == ["slow: GET /slow"]


@pytest.mark.anyio
async def test_the_path_is_a_setting() -> None:
    async with TestClient(make_app(path="/internal/times")) as client:
        assert (await client.get("/internal/times")).status_code == 200
        assert (await client.get("/timing")).status_code == 404
    async with TestClient(make_app(path="")) as client:
        assert (await client.get("/timing")).status_code == 404


@pytest.mark.parametrize("settings", [{"path": "timing"}, {"slow": -1.0}, {"slw": 1}, {"header": "perhaps"}])
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(PluginError, match=f"timing.*{name}"):
        make_app(**settings).build()


def test_two_applications_share_nothing() -> None:
    first, second = make_app(), make_app()
    first.build()
    second.build()
    assert first.state[Timings] is not second.state[Timings]


def test_nothing_is_wrong_with_the_hooks() -> None:
    app = make_app()
    app.build()
    assert app.plugins.check() == []


# The command


@pytest.fixture
def serve() -> Iterator[Callable[[int, bytes], str]]:
    """Serve one answer to every request; gives the address."""
    servers = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/timing" else 404)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def report_of(*requests: tuple[str, float]) -> bytes:
    timings = Timings()
    for route, seconds in requests:
        timings.observe(("GET", route), seconds, 200)
    return msgspec.json.encode(timings.report())


def test_the_command_shows_a_table(serve: Callable[[int, bytes], str]) -> None:
    address = serve(200, report_of(("/often", 0.001), ("/often", 0.001), ("/slow", 0.5)))
    result = CliRunner().invoke(timing, [address])
    lines = result.output.splitlines()
    assert lines[0].split("  ")[0] == "method"
    assert [line.split()[1] for line in lines[1:]] == ["/often", "/slow"]
    result = CliRunner().invoke(timing, [address, "--sort", "p99"])
    assert [line.split()[1] for line in result.output.splitlines()[1:]] == ["/slow", "/often"]


def test_the_command_prints_json(serve: Callable[[int, bytes], str]) -> None:
    result = CliRunner().invoke(timing, [serve(200, report_of(("/x", 0.25))), "--json"])
    (times,) = json.loads(result.output)["routes"]
    assert (times["route"], times["count"], times["max_ms"]) == ("/x", 1, 250.0)


def test_the_command_says_what_is_wrong(serve: Callable[[int, bytes], str]) -> None:
    for url, code, told in [
        (serve(404, b""), 1, "answers 404"),
        (serve(200, b"[1]"), 1, "something else"),
        ("http://127.0.0.1:1", 1, "does not answer"),
        ("localhost", 2, "no address"),
    ]:
        result = CliRunner().invoke(timing, [url])
        assert (result.exit_code, told in result.output) == (code, True), result.output


def test_the_command_before_any_request(serve: Callable[[int, bytes], str]) -> None:
    assert "No requests yet" in CliRunner().invoke(timing, [serve(200, report_of())]).output
