"""Events: who hears of what, and that nothing is built when nobody listens."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import covet
from covet import Covet, HTTPError, Request
from covet.events import Event, PluginLoaded, RequestDone, listener
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


class Listener:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @covet.hookimpl
    def covet_event(self, event: object) -> None:
        self.events.append(event)

    def done(self) -> list[RequestDone]:
        return [event for event in self.events if isinstance(event, RequestDone)]


def make_app(heard: Listener) -> Covet:
    app = Covet({}, plugins={"listener": heard}, installed_plugins=False)

    @app.get("/items/{id:int}")
    async def show(id: int) -> dict[str, int]:
        return {"id": id}

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPError(409)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    return app


async def test_a_request_that_was_served_is_told_with_the_template_of_its_route() -> None:
    heard = Listener()
    async with TestClient(make_app(heard), raise_errors=False) as client:
        await client.get("/items/5", headers={"x-request-id": "r-5"})
        for path in ("/refused", "/broken", "/missing", "/items/x"):
            await client.get(path)
    first, *others = heard.done()
    assert (first.method, first.route, first.status) == ("GET", "/items/{id:int}", 200)
    assert (first.error, first.request_id) == (None, "r-5")
    assert first.seconds > 0
    assert [(event.route, event.status) for event in others] == [
        ("/refused", 409), ("/broken", 500), ("", 404), ("", 404),
    ]  # fmt: skip


async def test_a_request_that_was_cancelled_is_told_without_a_status() -> None:
    heard = Listener()
    app = make_app(heard)
    waiting = anyio.Event()

    @app.get("/slow")
    async def slow() -> None:
        waiting.set()
        await anyio.sleep_forever()

    scope = {"type": "http", "method": "GET", "path": "/slow", "query_string": b"", "headers": []}

    async def never(message: Any = None) -> Any:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as server:
        server.start_soon(app, scope, never, never)
        await waiting.wait()
        server.cancel_scope.cancel()
    (event,) = heard.done()
    assert event.status is None
    assert event.error in ("Cancelled", "CancelledError")


async def test_the_plugins_that_take_part_are_told_at_the_start() -> None:
    heard = Listener()
    async with make_app(heard).running():
        assert heard.events == [PluginLoaded("listener", "", "", None)]


async def test_a_plugin_s_own_events_reach_the_listeners_and_a_failing_one_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Sold(Event, frozen=True):
        pieces: int

    class Failing:
        @covet.hookimpl
        def covet_event(self, event: object) -> None:
            raise RuntimeError("no disk")

    heard = Listener()
    app = Covet({}, plugins={"a": Failing(), "b": heard}, installed_plugins=False)

    @app.get("/")
    async def sell(request: Request) -> str:
        ambient = listener()
        assert ambient is app
        ambient.emit(Sold(3))
        return "sold"

    async with TestClient(app) as client:
        assert (await client.get("/")).text == "sold"
    assert Sold(3) in heard.events
    assert "plugin 'a' failed to handle the event" in caplog.text


async def test_without_a_listener_there_is_none_to_tell() -> None:
    app = Covet({}, installed_plugins=False)
    assert listener() is None
    async with app.running():
        assert not app.listening
        assert listener() is None
        app.emit(Event())
