"""The test client's WebSocket: the client's end, and how it says what went wrong."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from covet import Covet, CovetError, HTTPError, WebSocket, WebSocketDisconnected
from covet.testing import TestClient, WebSocketDenied, asgi

pytestmark = pytest.mark.anyio


def make_app() -> Covet:
    return Covet({}, installed_plugins=False)


async def test_what_it_receives_has_to_be_of_the_kind_that_is_asked_for() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_bytes(b"bytes")
        await socket.send_text("text")
        await socket.send_text("not json")
        await socket.send_bytes(b"[1]")
        await socket.send_text("last")

    async with TestClient(app) as client, client.websocket("/") as socket:
        with pytest.raises(CovetError, match=r"WEBSOCKET / sent a binary message where text was expected: b'bytes'"):
            await socket.receive_text()
        with pytest.raises(CovetError, match=r"WEBSOCKET / sent text where a binary message was expected: 'text'"):
            await socket.receive_bytes()
        with pytest.raises(msgspec.DecodeError):
            await socket.receive_json()
        assert await socket.receive_json(list[int]) == [1]
        assert [message async for message in socket] == ["last"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_errors_of_the_handler_are_raised_in_the_test_or_seen_as_over_a_network(when: str) -> None:
    """Litestar 4610: its WebSocket client swallowed them."""
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        if when == "after":
            await socket.accept()
        raise RuntimeError("boom")

    async def use(client: TestClient) -> None:
        async with client.websocket("/") as socket:
            await socket.receive_text()

    async with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="boom"):
            await use(client)
    async with TestClient(app, raise_errors=False) as client:
        with pytest.raises(WebSocketDenied if when == "before" else WebSocketDisconnected):
            await use(client)


async def test_an_error_after_the_client_has_left_is_raised_when_it_closes() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            pass
        raise RuntimeError("in its clean-up")

    async def use(client: TestClient) -> None:
        async with client.websocket("/"):
            pass

    async with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="in its clean-up"):
            await use(client)


async def test_leaving_waits_for_the_handler_and_tells_its_code() -> None:
    app = make_app()
    codes: list[Any] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive_text()
        except WebSocketDisconnected as left:
            await anyio.sleep(0.01)
            codes.append((left.code, left.reason))

    async with TestClient(app) as client:
        async with client.websocket("/"):
            pass
        async with client.websocket("/") as socket:
            await socket.close(4000, "bye")
            await socket.close()
            with pytest.raises(CovetError, match="this client has closed it itself"):
                await socket.send_text("x")
            with pytest.raises(CovetError, match="this client has closed it itself"):
                await socket.receive_text()
        async with client.websocket("/") as socket:
            socket.leave()
    assert codes == [(1000, ""), (4000, "bye"), (1006, "")]


async def test_sending_to_a_closed_connection_says_how_it_was_closed() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(4001, "enough")

    async with TestClient(app) as client, client.websocket("/") as socket:
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(WebSocketDisconnected, match="code 4001: enough"):
                await socket.send_text("x")


async def test_an_error_of_the_test_breaks_the_connection_and_comes_out_as_it_is() -> None:
    app = make_app()
    codes: list[int] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive_text()
        except WebSocketDisconnected as left:
            codes.append(left.code)

    async def run() -> None:
        async with TestClient(app) as client, client.websocket("/"):
            raise AssertionError("of the test")

    with pytest.raises(AssertionError, match="of the test"):
        await run()
    assert codes == [1006]


async def test_a_refusal_is_the_response_that_a_client_would_see() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        raise HTTPError(429, "slowly", headers={"retry-after": "3"})

    async with TestClient(app) as client:
        with pytest.raises(WebSocketDenied, match="refused the WebSocket with status 429") as refused:
            async with client.websocket("/"):
                pass
    assert refused.value.response.headers["retry-after"] == "3"
    assert refused.value.response.json()["detail"] == "slowly"


async def test_a_handler_that_does_not_notice_is_cancelled_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "PATIENCE", 0.05)
    app = make_app()
    log: list[str] = []

    @app.websocket("/deaf")
    async def deaf(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await anyio.sleep_forever()
        finally:
            log.append("cancelled")

    async def use(client: TestClient) -> None:
        async with client.websocket("/deaf"):
            pass

    async with TestClient(app) as client:
        with pytest.raises(CovetError, match="the client of WEBSOCKET /deaf has left"):
            await use(client)
    assert log == ["cancelled"]


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "ended without an answer to WEBSOCKET /"),
        (["accept"], "ended without closing the connection to WEBSOCKET /"),
        (["send"], r"sent 'websocket\.send' to WEBSOCKET /, which is connecting"),
        (["accept", "accept"], r"sent 'websocket\.accept' to WEBSOCKET /, which is open"),
        (["accept", "close", "send"], r"sent 'websocket\.send' to WEBSOCKET /, which is closed"),
        (["accept", "nothing"], "a message is either text or bytes"),
    ],
)
async def test_an_application_that_breaks_the_protocol_is_told(messages: list[str], told: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for kind in messages:
            if kind == "nothing":
                await send({"type": "websocket.send", "text": None, "bytes": None})
            else:
                await send({"type": f"websocket.{kind}", **({"text": "x"} if kind == "send" else {})})

    async def use(client: TestClient) -> None:
        async with client.websocket("/") as socket:
            await socket.receive_text()

    async with TestClient(app, lifespan=False) as client:
        with pytest.raises(CovetError, match=told):
            await use(client)
