"""The builtin plugin health: what probes are told in each phase of an application, and what it costs others."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import msgspec
import pytest
from tests.builtin import needs

import covet
from covet import Covet, PluginError, Response
from covet.builtin.health import Health, HealthSettings
from covet.health import HealthCheck
from covet.lifespan import begin_drain
from covet.storage import StorageBackend
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio


class Checks:
    """A plugin with checks."""

    def __init__(self, **checks: Any) -> None:
        self.checks = {name: HealthCheck(check) if callable(check) else check for name, check in checks.items()}

    @covet.hookimpl
    def covet_health_checks(self, app: Covet) -> dict[str, HealthCheck]:
        return self.checks


class Counter:
    """A check that counts its calls and does what it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate: anyio.Event | None = None
        self.error: Exception | None = None
        self.cancelled = 0

    async def __call__(self) -> None:
        self.calls += 1
        try:
            await anyio.lowlevel.checkpoint()
            if self.gate is not None:
                await self.gate.wait()
        except BaseException:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error


async def fine() -> None:
    await anyio.lowlevel.checkpoint()


def app_with(settings: dict[str, Any] | None = None, /, **checks: Any) -> Covet:
    return plugin_sandbox("health", it=Checks(**checks), settings={"plugins": {"health": settings or {}}})


async def asked(client: TestClient) -> tuple[int, dict[str, Any]]:
    response = await client.get("/health/ready")
    assert response.headers["cache-control"] == "no-store"
    document = response.json()
    for check in document.get("checks", {}).values():
        assert isinstance(check.pop("seconds"), float)
    return response.status_code, document


# What probes are told


async def test_an_application_without_checks_is_ready() -> None:
    async with TestClient(app_with()) as client:
        assert await asked(client) == (200, {"status": "ready"})
        live = await client.get("/health/live")
        assert (live.status_code, live.json()) == (200, {"status": "alive"})
        assert live.headers["cache-control"] == "no-store"
        assert live.headers["content-type"] == "application/json"


async def test_a_check_that_fails() -> None:
    async def broken() -> None:
        raise RuntimeError("cannot reach amqp://me:hunter2@queue")

    app = app_with(good=fine, bad=broken, shown=HealthCheck(broken, critical=False))
    async with TestClient(app) as client:
        status, document = await asked(client)
        assert status == 503
        assert document == {
            "status": "not ready",
            "checks": {
                "good": {"status": "ok", "critical": True},
                "bad": {"status": "failed", "critical": True},
                "shown": {"status": "failed", "critical": False},
            },
        }
        assert (await client.get("/health/live")).status_code == 200


async def test_a_check_that_is_not_critical_keeps_nothing_back() -> None:
    async def broken() -> None:
        raise RuntimeError

    async with TestClient(app_with(shown=HealthCheck(broken, critical=False))) as client:
        status, document = await asked(client)
        assert (status, document["status"], document["checks"]["shown"]["status"]) == (200, "ready", "failed")


@pytest.mark.parametrize(("details", "expected"), [
    ("none", None), ("checks", {"status": "failed", "critical": True}),
    ("errors", {"status": "failed", "critical": True, "error": "OSError: no way to amqp://me:********@queue"}),
])  # fmt: skip
async def test_strangers_are_told_no_errors(details: str, expected: Any) -> None:
    async def broken() -> None:
        raise OSError("no way to amqp://me:hunter2@queue")

    async with TestClient(app_with({"details": details}, bad=broken)) as client:
        _, document = await asked(client)
        assert document.get("checks", {}).get("bad") == expected


async def test_head_and_other_methods() -> None:
    async with TestClient(app_with(good=fine)) as client:
        for path in ("/health/live", "/health/ready"):
            head, get = await client.head(path), await client.get(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["cache-control"] == "no-store"
            assert head.headers["content-type"] == get.headers["content-type"]
            assert (await client.post(path)).status_code == 405


@needs("openapi")
async def test_they_are_not_in_the_openapi_document() -> None:
    app = plugin_sandbox("health", "openapi", settings={"app": {"debug": True}})
    async with TestClient(app) as client:
        assert (await client.get("/openapi.json")).json()["paths"] == {}


async def test_paths_are_settings() -> None:
    async with TestClient(app_with({"live": "/livez", "ready": ""})) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 404
        assert (await client.get("/health/live")).status_code == 404
    with pytest.raises(covet.ConfigurationError, match="a path without parameters"):
        app_with({"live": "livez"}).build()


async def test_it_costs_other_requests_nothing() -> None:
    """Decision 2: no middleware, no request hook, no transform, no guard."""
    app = app_with(good=fine)
    app.get("/")(fine)
    app.build()
    hooks = [name for name in dir(app.hooks) if name.startswith(("request", "response"))]
    assert [name for name in hooks if getattr(app.hooks, name) is not None] == []
    assert app.built.outer == []
    assert app.response_headers == ()
    found = [contribution for name in ("covet_middleware", "covet_response_transforms")
             for contribution in app.plugins.call(name, app=app)]  # fmt: skip
    assert found == []


# Storages


class Shelf:
    kind = "shelf"
    url = "shelf:"

    def __init__(self, alias: str, settings: Any) -> None:
        self.alias, self.settings = alias, settings

    async def open(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def close(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def check(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.settings.broken:
            raise OSError("no shelf")


class ShelfSettings(msgspec.Struct, frozen=True):
    url: str
    broken: bool = False


class Shelves:
    @covet.hookimpl
    def covet_storage_backends(self) -> dict[str, StorageBackend]:
        return {"shelf": StorageBackend(Shelf, ShelfSettings)}


async def test_every_storage_is_checked() -> None:
    storage = {"default": {"url": "shelf:a"}, "other": {"url": "shelf:b", "broken": True}}
    app = plugin_sandbox("health", it=Shelves(), settings={"storage": storage})
    async with TestClient(app) as client:
        status, document = await asked(client)
        assert status == 503
        assert {name: check["status"] for name, check in document["checks"].items()} == {
            "storage default": "ok", "storage other": "failed",
        }  # fmt: skip


# Concurrency


async def test_checks_run_at_once() -> None:
    """Each waits for the other."""
    first, second = anyio.Event(), anyio.Event()

    async def one() -> None:
        first.set()
        await second.wait()

    async def two() -> None:
        second.set()
        await first.wait()

    async with TestClient(app_with(one=one, two=two)) as client:
        assert (await asked(client))[0] == 200


async def test_many_probes_share_one_run_and_its_result() -> None:
    counter = Counter()
    counter.gate = anyio.Event()
    async with TestClient(app_with({"cache_seconds": 3600}, it=counter)) as client:
        statuses: list[int] = []

        async def probe() -> None:
            statuses.append((await asked(client))[0])

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(probe)
            await anyio.wait_all_tasks_blocked()
            assert (counter.calls, statuses) == (1, [])
            counter.gate.set()
        await probe()
        assert (counter.calls, statuses) == (1, [200] * 51)


async def test_without_a_cache_each_probe_after_another_runs_them() -> None:
    counter = Counter()
    async with TestClient(app_with({"cache_seconds": 0}, it=counter)) as client:
        for _ in range(3):
            await asked(client)
        assert counter.calls == 3
        counter.error = RuntimeError()
        assert (await asked(client))[0] == 503


async def test_a_prober_that_leaves_cancels_nobodys_checks() -> None:
    counter = Counter()
    counter.gate = anyio.Event()
    app = app_with(it=counter)
    async with app.running(), anyio.create_task_group() as group:
        health = app.state[Health]
        answers: list[Response] = []

        async def probe(scope: anyio.CancelScope) -> None:
            with scope:
                answers.append(await health.ready())

        leaving = anyio.CancelScope()
        group.start_soon(probe, leaving)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(probe, anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        leaving.cancel()
        await anyio.wait_all_tasks_blocked()
        assert (counter.calls, counter.cancelled, answers) == (1, 0, [])
        counter.gate.set()
        with anyio.fail_after(10):
            while not answers:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        assert [answer.status for answer in answers] == [200]
        # Nor do they end when nobody waits any more: the next prober has their result.
        assert (await health.ready()).status == 200
        assert counter.calls == 1


async def test_a_check_that_hangs_is_cancelled_and_named(caplog: pytest.LogCaptureFixture) -> None:
    counter = Counter()
    counter.gate = anyio.Event()
    async with TestClient(app_with(hangs=HealthCheck(counter, timeout=0.02), good=fine)) as client:
        status, document = await asked(client)
        assert (status, document["checks"]["hangs"]["status"], document["checks"]["good"]["status"]) == (
            503, "timeout", "ok",
        )  # fmt: skip
        assert counter.cancelled == 1
        assert "the health check hangs fails: it took longer than 0.02 seconds" in caplog.text


async def test_a_check_that_resists_cancellation_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covet.builtin.health.PATIENCE", 0.02)
    release = anyio.Event()
    calls = 0

    async def stubborn() -> None:
        nonlocal calls
        calls += 1
        with anyio.CancelScope(shield=True):
            await release.wait()

    async with TestClient(app_with({"cache_seconds": 0}, stubborn=HealthCheck(stubborn, timeout=0.01), good=fine)) as c:
        for outcome in ("timeout", "failed", "failed"):
            status, document = await asked(c)
            assert status == 503
            assert document["checks"] == {
                "stubborn": {"status": outcome, "critical": True}, "good": {"status": "ok", "critical": True},
            }  # fmt: skip
        assert calls == 1, "it is not called again before it has ended"
        release.set()
        with anyio.fail_after(10):
            while (await asked(c))[0] != 200:  # noqa: ASYNC110
                await anyio.sleep(0.001)


async def test_a_plain_function_runs_in_a_thread_and_is_never_doubled() -> None:
    release = threading.Event()
    threads: list[int] = []

    def blocks() -> None:
        threads.append(threading.get_ident())
        release.wait(30)

    app = app_with({"cache_seconds": 0}, blocks=HealthCheck(blocks, timeout=0.05))
    async with TestClient(app) as client:
        for outcome in ("timeout", "failed", "failed"):
            status, document = await asked(client)
            assert (status, document["checks"]["blocks"]["status"]) == (503, outcome)
        assert len(threads) == 1
        assert threads[0] != threading.get_ident()
        release.set()
        with anyio.fail_after(10):
            while (await asked(client))[0] != 200:  # noqa: ASYNC110
                await anyio.sleep(0.001)


async def test_a_plain_function_may_give_an_awaitable() -> None:
    seen = []

    async def later() -> None:
        await anyio.lowlevel.checkpoint()
        seen.append("awaited")

    async with TestClient(app_with(it=HealthCheck(lambda: later()))) as client:
        assert (await asked(client))[0] == 200
        assert seen == ["awaited"]


async def test_only_changes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "covet.health")
    counter = Counter()
    async with TestClient(app_with({"cache_seconds": 0}, it=counter)) as client:
        for error in (None, RuntimeError("one"), RuntimeError("two"), None, None, RuntimeError("three")):
            counter.error = error
            await asked(client)
    assert [record.getMessage() for record in caplog.records if record.name == "covet.health"] == [
        "the health check it fails: RuntimeError: one",
        "the health check it succeeds again",
        "the health check it fails: RuntimeError: three",
    ]


# The phases of an application


async def test_it_is_ready_only_between_start_and_drain() -> None:
    seen: list[tuple[str, int]] = []
    app = app_with()

    async def look() -> None:
        seen.append((msgspec.json.decode((answer := await app.state[Health].ready()).body)["status"], answer.status))

    class Watcher:
        covet_after = ("health",)

        @covet.hookimpl
        async def covet_ready(self, app: Covet) -> None:
            await look()

        @covet.hookimpl
        async def covet_draining(self, app: Covet) -> None:
            await look()

    app = plugin_sandbox("health", watcher=Watcher())
    app.build()
    await look()
    for _ in range(2):
        async with app.running():
            await look()
        await look()
    run = [("starting", 503), ("ready", 200), ("draining", 503), ("draining", 503)]
    assert seen == [("starting", 503), *run, *run]


async def test_without_a_lifespan_it_never_gets_ready() -> None:
    async with TestClient(app_with(good=fine), lifespan=False) as client:
        assert await asked(client) == (503, {"status": "starting"})
        assert (await client.get("/health/live")).status_code == 200


async def test_draining_ends_checks_that_hang() -> None:
    counter = Counter()
    counter.gate = anyio.Event()
    app = app_with(hangs=HealthCheck(counter, timeout=600))
    async with TestClient(app) as client, anyio.create_task_group() as group:
        answers: list[tuple[int, Any]] = []

        async def probe() -> None:
            answers.append(await asked(client))

        group.start_soon(probe)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            await begin_drain(app)
            while not answers:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        assert answers == [(503, {"status": "draining"})]
        assert counter.cancelled == 1
        assert len(app.tasks) == 0


# What is wrong


def test_collisions_and_what_is_no_check() -> None:
    app = plugin_sandbox("health", a=Checks(db=fine), b=Checks(db=fine))
    with pytest.raises(PluginError, match="the health check db is claimed by the plugin 'a' and the plugin 'b'"):
        app.build()
    app = plugin_sandbox("health", a=Checks(db=fine), b=Checks(db=fine), settings={"plugins": {"prefer": ["b"]}})
    app.build()
    assert app.state[Health].names == ["db"]

    class Wrong:
        @covet.hookimpl
        def covet_health_checks(self, app: Covet) -> dict[str, Any]:
            return {"db": fine}

    with pytest.raises(PluginError, match=r"plugin 'w': covet_health_checks returned .* for 'db', and a covet.health"):
        plugin_sandbox("health", w=Wrong()).build()
    with pytest.raises(ValueError, match="timeout is seconds above 0"):
        HealthCheck(fine, timeout=0)
    assert "fine" in repr(HealthCheck(fine))


def test_the_settings_are_documented() -> None:
    for field in msgspec.structs.fields(HealthSettings):
        assert field.type.__metadata__[0].description


# Real servers

APP = """
import anyio
from covet import Covet, StreamingResponse

app = Covet(installed_plugins=["health"])

@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts():
        yield b"begin "
        await app.drain.wait()
        with anyio.move_on_after(20):
            while not await anyio.Path("go").exists():
                await anyio.sleep(0.01)
        yield b"end"
    return StreamingResponse(parts())
"""


@contextmanager
def serving(folder: Path, server: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A `covet run` and its URL."""
    (folder / "app.py").write_text(APP)
    command = [sys.executable, "-m", "covet", "run", "--server", server, "--port", "0"]
    environment = {**os.environ, **environ}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            announced = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", announced)
            assert found is not None, announced
            until(lambda: probe(found[0]) == "ready")
            yield process, found[0]
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def probe(url: str) -> str:
    try:
        response = httpx.get(f"{url}/health/ready", trust_env=False, timeout=30)
    except httpx.TransportError:
        return "refused"
    status: str = response.json()["status"]
    assert response.status_code == (200 if status == "ready" else 503)
    return status


@pytest.mark.parametrize("seconds", ["0", "600"])
@pytest.mark.parametrize("server", ["granian", "uvicorn"])
def test_it_is_not_ready_while_a_stream_drains(server: str, seconds: str, tmp_path: Path) -> None:
    """Without `drain_seconds` a server closes its port at once; with it, it serves on and says that it should not."""
    with serving(tmp_path, server, COVET_SERVER__DRAIN_SECONDS=seconds) as (process, url):
        assert probe(url) == "ready"
        with httpx.stream("GET", f"{url}/stream", trust_env=False, timeout=60) as response:
            pieces = response.iter_bytes()
            assert next(pieces) == b"begin "
            process.terminate()
            until(lambda: probe(url) != "ready")
            told = [probe(url) for _ in range(20)]
            assert "ready" not in told
            if seconds != "0":
                assert set(told) == {"draining"}
                process.terminate()
                until(lambda: probe(url) == "refused")
            (tmp_path / "go").touch()
            assert b"".join(pieces) == b"end"
        assert process.wait(60) == 0


@pytest.mark.parametrize("server", ["granian", "uvicorn"])
def test_drain_seconds_end_by_themselves(server: str, tmp_path: Path) -> None:
    with serving(tmp_path, server, COVET_SERVER__DRAIN_SECONDS="0.3") as (process, _):
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "requests are served for 0.3 seconds more" in process.stderr.read()
