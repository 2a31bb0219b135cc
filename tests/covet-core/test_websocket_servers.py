"""WebSockets through the real servers, over sockets: uvicorn (with websockets) and granian."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

# Only so that a test that hangs fails; nothing here is expected to take long.
PATIENCE = 60.0

APPLICATION = """
from typing import Annotated

import anyio
from covet import Covet, Depends, HTTPError, Limits, WebSocket
from covet.lifespan import begin_drain

app = Covet({"server": {"shutdown_timeout": 2.0}}, installed_plugins=False)
open_now = []


async def counted():
    open_now.append(1)
    try:
        yield
    finally:
        open_now.pop()


@app.get("/open")
async def count() -> int:
    return len(open_now)


@app.post("/drain")
async def drain() -> None:
    await begin_drain(app)


@app.websocket("/echo", limits=Limits(max_body=100_000))
async def echo(socket: WebSocket, c: Annotated[None, Depends(counted, scope="request")]) -> None:
    await socket.accept(next(iter(socket.subprotocols), None), headers={"x-answer": "yes"})
    while True:
        message = await socket.receive_message()
        if isinstance(message, str):
            await socket.send_text(message)
        else:
            await socket.send_bytes(message)


@app.websocket("/push")
async def push(socket: WebSocket, c: Annotated[None, Depends(counted)]) -> None:
    await socket.accept()
    while True:
        await socket.send_json({"tick": True})
        await anyio.sleep(0.01)


@app.websocket("/deaf")
async def deaf(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("ready")
    await anyio.sleep_forever()


@app.websocket("/refuse")
async def refuse(socket: WebSocket) -> None:
    raise HTTPError(401, "who are you?", headers={"www-authenticate": "Bearer"})


@app.websocket("/fail")
async def fail(socket: WebSocket) -> None:
    await socket.accept()
    raise RuntimeError("boom")


@app.websocket("/bye")
async def bye(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close(4001, "bye")
"""

COMMANDS = {
    "uvicorn": ["uvicorn", "app:app", "--host", "127.0.0.1", "--log-level", "warning", "--port"],
    "granian": ["granian", "app:app", "--host", "127.0.0.1", "--interface", "asgi", "--port"],
}


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def connect(self, path: str, **options: Any) -> contextlib.AbstractContextManager[ClientConnection]:
        return connect(f"ws://127.0.0.1:{self.port}{path}", open_timeout=PATIENCE, proxy=None, **options)

    def get(self, path: str) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE, trust_env=False).json()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def start(name: str, directory: Path) -> Server:
    directory.joinpath("app.py").write_text(APPLICATION, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    log = directory / "server.log"
    output: IO[bytes]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[name], str(port)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(name, process, port, log)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            server.get("/open")
        except httpx.TransportError:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        else:
            return server


@pytest.fixture(scope="module", params=list(COMMANDS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start(request.param, tmp_path_factory.mktemp(request.param))
    try:
        yield running
    finally:
        running.stop()


def until_closed(connection: ClientConnection) -> tuple[int | None, str]:
    """The code and reason with which the server closes."""
    with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012 - whatever comes before
        while True:
            connection.recv(timeout=PATIENCE)
    received = closed.value.rcvd
    return (received.code, received.reason) if received is not None else (None, "")


def test_messages_subprotocols_and_headers(server: Server) -> None:
    with server.connect("/echo", subprotocols=["v1", "v2"]) as connection:
        assert connection.subprotocol == "v1"
        assert connection.response is not None
        # granian 2.8 sends no headers of the application with an accepted handshake.
        assert connection.response.headers.get("x-answer") == ("yes" if server.name == "uvicorn" else None)
        for message in ("h\xe9\U0001f600", b"\0\xff", "", b"", "x" * 100_000):
            connection.send(message)
            assert connection.recv(timeout=PATIENCE) == message


@pytest.mark.parametrize("path", ["/refuse", "/nowhere"])
def test_a_refused_handshake_has_its_status_and_problem(server: Server, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        server.connect(path).__enter__()
    response = refused.value.response
    assert response.status_code == (401 if path == "/refuse" else 404)
    assert response.headers["content-type"] == "application/problem+json"
    if path == "/refuse":
        assert response.headers["www-authenticate"] == "Bearer"
        assert b"who are you?" in (response.body or b"")


def test_pages_of_other_origins_are_refused(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        server.connect("/echo", origin="https://evil.example").__enter__()
    assert refused.value.response.status_code == 403
    with server.connect("/echo", origin=f"http://127.0.0.1:{server.port}") as connection:
        connection.send("x")
        assert connection.recv(timeout=PATIENCE) == "x"


def test_closing_codes_arrive(server: Server) -> None:
    with server.connect("/bye") as connection:
        assert until_closed(connection) == (4001, "bye")
    with server.connect("/fail") as connection:
        assert until_closed(connection)[0] == 1011
    with server.connect("/echo") as connection:
        connection.send("x" * 100_001)
        assert until_closed(connection)[0] == 1009
    assert "RuntimeError: boom" in server.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("offer", [b"\xff\xfe", b"caf\xc3\xa9, v1", b"a b", b",,"])
def test_subprotocols_that_are_none_kill_no_worker(server: Server, offer: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw:
        raw.sendall(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: "
            + offer
            + b"\r\n\r\n"
        )
        status = raw.recv(12)
    assert status in (b"HTTP/1.1 101", b"HTTP/1.1 400")
    with server.connect("/echo") as connection:
        connection.send("alive")
        assert connection.recv(timeout=PATIENCE) == "alive"


@pytest.mark.parametrize("path", ["/echo", "/push"])
@pytest.mark.parametrize("how", ["closed", "broken"])
def test_the_handler_ends_when_the_peer_leaves(server: Server, path: str, how: str) -> None:
    with server.connect(path) as connection:
        if path == "/echo":
            connection.send("x")
        connection.recv(timeout=PATIENCE)
        assert server.get("/open") == 1
        if how == "broken":
            connection.socket.shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + PATIENCE
    while server.get("/open"):
        assert time.monotonic() < deadline, "the dependencies of the handler are never cleaned up"
        time.sleep(0.02)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_draining_closes_every_connection_with_1001(name: str, tmp_path: Path) -> None:
    """Without a signal, which the server hears as well: some close, or drop, connections themselves then."""
    server = start(name, tmp_path)
    with contextlib.ExitStack() as stack:
        connections = {path: stack.enter_context(server.connect(path)) for path in ("/echo", "/push", "/deaf")}
        connections["/echo"].send("x")
        for connection in connections.values():
            connection.recv(timeout=PATIENCE)
        url = f"http://127.0.0.1:{server.port}/drain"
        assert httpx.post(url, timeout=PATIENCE, trust_env=False).status_code == 204
        closed = {path: until_closed(connection)[0] for path, connection in connections.items()}
        assert closed == dict.fromkeys(connections, 1001)
        with pytest.raises(InvalidStatus) as refused, server.connect("/echo"):
            raise AssertionError("unreachable")
        assert refused.value.response.status_code == 503
    server.stop()
    log = server.log.read_text(encoding="utf-8")
    assert "cancelled at shutdown: the handler of the WebSocket /deaf" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("name", list(COMMANDS))
def test_open_connections_do_not_block_the_shutdown(name: str, tmp_path: Path) -> None:
    server = start(name, tmp_path)
    with contextlib.ExitStack() as stack:
        connections = {path: stack.enter_context(server.connect(path)) for path in ("/echo", "/push", "/deaf")}
        connections["/echo"].send("x")
        for connection in connections.values():
            connection.recv(timeout=PATIENCE)
        server.process.send_signal(signal.SIGTERM)
        closed = {path: until_closed(connection)[0] for path, connection in connections.items()}
        server.process.wait(PATIENCE)
    # 1012, "service restart", is what a server says that closes them itself. granian hears of the signal when the
    # application does, and at times drops connections at once; what it is told is what the test before shows.
    if name == "uvicorn":
        assert set(closed.values()) <= {1001, 1012}, closed
    log = server.log.read_text(encoding="utf-8")
    assert "cancelled at shutdown: the handler of the WebSocket /deaf" in log
    assert "Traceback" not in log
