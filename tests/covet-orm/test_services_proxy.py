"""The proxy that spoils the network."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pymysql  # type: ignore[import-untyped]
import pytest
from tests.services import processes
from tests.services.databases import Database, SQLite, ask
from tests.services.processes import Server, free_port, wait_until
from tests.services.proxy import Proxy


class Echo:
    """Sends back what it receives; knows what it received, and how each connection ended."""

    def __init__(self) -> None:
        self.received = b""
        self.ends: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=[connection], daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            try:
                while data := connection.recv(1 << 16):
                    self.received += data
                    connection.sendall(data)
                self.ends.append("FIN")
            except OSError as error:
                self.ends.append("RST" if isinstance(error, ConnectionResetError) else repr(error))

    def close(self) -> None:
        # Closing alone would not wake the thread that accepts.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(30)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as connection:
        yield connection


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or what came before the end, whatever end."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while len(data) < size and (more := connection.recv(size - len(data))):
            data += more
    return data


def silent(connection: socket.socket) -> bool:
    connection.settimeout(0.3)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(30)
    return False


def test_the_proxy_passes_everything_on(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    sent = os.urandom(3_000_000)
    writer = threading.Thread(target=client.sendall, args=[sent])
    writer.start()
    assert receive(client, len(sent)) == sent
    writer.join()
    assert proxy.passed == (len(sent), len(sent))
    assert (proxy.connections, proxy.accepted) == (1, 1)
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    wait_until(lambda: echo.ends == ["FIN"], "the end passed")
    wait_until(lambda: proxy.connections == 0, "the proxy forgot it")


@pytest.mark.parametrize("reset", [False, True])
def test_the_proxy_cuts_connections(proxy: Proxy, client: socket.socket, echo: Echo, reset: bool) -> None:
    client.sendall(b"before")
    assert receive(client, 6) == b"before"
    proxy.cut(reset=reset)
    if reset:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    else:
        assert client.recv(1) == b""
    wait_until(lambda: echo.ends == ["RST" if reset else "FIN"], "the server saw it")
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as another:
        another.sendall(b"again")
        assert receive(another, 5) == b"again"


def test_the_end_of_a_client_in_disorder_passes(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    client.sendall(b"x")
    assert receive(client, 1) == b"x"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_until(lambda: echo.ends == ["RST"], "the server saw it")


def test_the_proxy_stalls_and_heals(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    client.sendall(b"a")
    assert receive(client, 1) == b"a"
    proxy.stall()
    client.sendall(b"b")
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as another:
        another.sendall(b"c")
        another.shutdown(socket.SHUT_WR)
        assert silent(client)
        assert silent(another)
        assert (echo.received, echo.ends) == (b"a", [])
        proxy.heal()
        assert receive(client, 1) == b"b"
        assert receive(another, 2) == b"c"


def test_the_proxy_cuts_what_it_stalled(proxy: Proxy, client: socket.socket) -> None:
    proxy.stall()
    client.sendall(b"x")
    proxy.cut(reset=True)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("then", ["close", "reset", "stall"])
@pytest.mark.parametrize("way", ["to_server", "to_client"])
@pytest.mark.parametrize("size", [0, 1, 5, 9])
@pytest.mark.parametrize("new", [False, True])
def test_the_proxy_lets_so_many_bytes_pass(
    proxy: Proxy, client: socket.socket, echo: Echo, way: str, then: Any, size: int, new: bool
) -> None:
    client.sendall(b"before")
    assert receive(client, 6) == b"before"
    proxy.limit(**{way: size}, then=then)
    sent = b"123456789abcdef"
    with socket.socket() if new else client as connection:
        connection.settimeout(30)
        # Where nothing may pass, the connection has ended already.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            if new:
                connection.connect(("127.0.0.1", proxy.port))
            connection.sendall(sent)
        if then == "stall":
            back = receive(connection, size) if way == "to_client" else b""
            assert back == sent[:size] or way == "to_server"
            assert silent(connection)
            if way == "to_server":
                wait_until(lambda: echo.received == b"before" + sent[:size], "just that much passed")
            proxy.heal()
            assert back + receive(connection, len(sent) - len(back)) == sent
            return
        received = receive(connection, len(sent))
        assert sent[:size].startswith(received)
        if way == "to_client":
            assert received == sent[:size]
            return
    wait_until(lambda: echo.received == b"before" + sent[:size], "just that much passed")


def test_the_proxy_delays(proxy: Proxy, client: socket.socket) -> None:
    proxy.delay(0.4)
    client.sendall(b"x")
    assert silent(client)
    assert receive(client, 1) == b"x"
    proxy.heal()


def test_the_proxy_refuses(proxy: Proxy, client: socket.socket) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 30)
    client.sendall(b"x")
    assert receive(client, 1) == b"x"
    proxy.heal()
    socket.create_connection(("127.0.0.1", proxy.port), 30).close()


def test_a_server_that_is_gone_is_seen_through_the_proxy() -> None:
    port = free_port()
    with (
        Proxy(port) as proxy,
        # The reset may come before the connection is made, as far as the client is concerned.
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", proxy.port), 30) as client,
    ):
        client.recv(1)
    processes.release_port(port)
    proxy.close()


@pytest.mark.anyio
async def test_databases_are_spoken_to_through_the_proxy(url: str, server: Database) -> None:
    if isinstance(server, SQLite):
        return
    assert isinstance(server, Server)
    # From within an event loop as well.
    with Proxy(server.port) as proxy:
        assert await ask(proxy.url(url), "SELECT 1") == [(1,)]
        assert proxy.passed[1] > 0
        proxy.limit(to_client=10, then="reset")
        with pytest.raises((OSError, asyncpg.PostgresError, pymysql.err.MySQLError)):
            await ask(proxy.url(url), "SELECT 1")
