"""A TCP proxy before a server, through which a test spoils the network between the two.

    with Proxy(server.port) as proxy:
        url = proxy.url(server.url("shop"))
        proxy.cut(reset=True)

It runs on a thread of its own, so that its methods may be called from within an event loop as well; each has taken
effect when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, TypeVar
from urllib.parse import urlsplit

from tests.services.processes import PATIENCE, free_port, release_port

__all__ = ["Proxy"]

T = TypeVar("T")

PORTION = 1 << 16


@dataclass
class _Direction:
    """One of the two ways of a connection.

    Attributes:
        left: how many bytes may still pass; None for any number.
    """

    left: int | None = None
    passed: int = 0


@dataclass(eq=False)
class _Link:
    """A connection: both of its ends, and both of its ways."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    to_server: _Direction = field(default_factory=_Direction)
    to_client: _Direction = field(default_factory=_Direction)
    stalled: bool = False

    def cut(self, reset: bool) -> None:
        for end in (self.client, self.server):
            if end is None:
                continue
            if reset:
                _reset(end)
            else:
                end.close()


class Proxy:
    """Passes on what clients send to a port of 127.0.0.1, and what it answers.

    Args:
        target: the port of the server.
        host: where the server is.

    Attributes:
        port: where clients connect, on 127.0.0.1.
    """

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self.target = target
        self.host = host
        self.port = free_port()
        self._links: set[_Link] = set()
        self._accepted = 0
        self._passed = [0, 0]
        self._delay = 0.0
        self._limits: tuple[int | None, int | None] = (None, None)
        self._then: Literal["close", "reset", "stall"] = "close"
        self._stalled = False
        self._loop = asyncio.new_event_loop()
        # What waits while nothing may pass is woken by it.
        self._changed = asyncio.Event()
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {self.port}", daemon=True)

    # What a test does

    def url(self, url: str) -> str:
        """The URL of a server's database, by way of this proxy."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.port}").geturl()

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._do(lambda: len(self._links))

    @property
    def accepted(self) -> int:
        """How many there have been."""
        return self._do(lambda: self._accepted)

    @property
    def passed(self) -> tuple[int, int]:
        """How many bytes have passed to the server, and to the clients."""
        return self._do(lambda: (self._passed[0], self._passed[1]))

    def cut(self, *, reset: bool = False) -> None:
        """Cut all connections, on both sides; new ones are taken.

        Args:
            reset: with RST, as when the other machine has restarted; else with FIN, as when its process has ended.
        """

        def cut() -> None:
            for link in list(self._links):
                link.cut(reset)
            self._wake()

        self._do(cut)

    def stall(self) -> None:
        """Let nothing pass from now on, not even the end of a connection.

        New connections are taken, and nothing passes on them. What is sent meanwhile passes after `heal`.
        """
        self._do(lambda: setattr(self, "_stalled", True))

    def delay(self, seconds: float) -> None:
        """Hold each portion up that passes from now on, in both directions."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def limit(
        self,
        *,
        to_server: int | None = None,
        to_client: int | None = None,
        then: Literal["close", "reset", "stall"] = "close",
    ) -> None:
        """Let just so many more bytes pass on each connection, of those that are open and of new ones.

        Args:
            to_server: bytes that may pass to the server; None for any number.
            to_client: bytes that may pass to the client; None for any number.
            then: what becomes of the connection behind the last of them: as by `cut`, with FIN or RST, or `stall`.
        """

        def limit() -> None:
            self._limits, self._then = (to_server, to_client), then
            for link in list(self._links):
                link.to_server.left, link.to_client.left = self._limits
                if 0 in self._limits:
                    self._exhausted(link)

        self._do(limit)

    def refuse(self) -> None:
        """Refuse new connections."""
        self._run(self._refuse)

    def heal(self) -> None:
        """Undo all of `stall`, `delay`, `limit` and `refuse`."""

        async def heal() -> None:
            self._stalled, self._delay, self._limits = False, 0.0, (None, None)
            for link in self._links:
                link.stalled = False
                link.to_server.left = link.to_client.left = None
            self._wake()
            await self._listen()

        self._run(heal)

    # How it does it

    def start(self) -> Self:
        """Take connections; itself."""
        self._thread.start()
        self._run(self._listen)
        return self

    def close(self) -> None:
        """Cut all connections, and take no more. Idempotent."""
        if self._loop.is_closed():
            return

        async def close() -> None:
            await self._refuse()
            # A task that is cancelled before it has begun would not close its connection.
            await asyncio.sleep(0)
            for link in self._links:
                link.cut(reset=True)
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        if self._thread.is_alive():
            self._run(close)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
        self._loop.close()
        release_port(self.port)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, change: Callable[[], T]) -> T:
        async def changed() -> T:
            return change()

        return self._run(changed)

    def _run(self, work: Callable[[], Coroutine[None, None, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(PATIENCE)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _listen(self) -> None:
        if self._listener is None:
            # Not asyncio's server, which loses connections that are under way when it is closed.
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            # What had not been accepted yet has been connected, for its client.
            self._accept(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            self._accepted += 1
            task = self._loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        link = _Link(writer)
        link.to_server.left, link.to_client.left = self._limits
        self._links.add(link)
        try:
            from_server, link.server = await asyncio.open_connection(self.host, self.target)
            if 0 in self._limits:
                self._exhausted(link)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass(link, link.to_server, reader, link.server, 0))
                ways.create_task(self._pass(link, link.to_client, from_server, link.client, 1))
        except* OSError:
            # One side has ended in disorder; the other one is to see it.
            link.cut(reset=True)
        finally:
            self._links.discard(link)
            ends = [end for end in (link.client, link.server) if end is not None]
            for end in ends:
                end.close()
            for end in ends:
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pass(
        self, link: _Link, way: _Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, index: int
    ) -> None:
        while True:
            await self._open(link)
            data = await reader.read(PORTION)
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._open(link)
            if not data:
                break
            portion = data if way.left is None else data[: way.left]
            if portion:
                writer.write(portion)
                await writer.drain()
                way.passed += len(portion)
                self._passed[index] += len(portion)
            if way.left is not None:
                way.left -= len(portion)
                if way.left == 0:
                    self._exhausted(link)
                    if not link.stalled:
                        return
                    await self._open(link)
                    # Healed: what was held back passes.
                    writer.write(data[len(portion) :])
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()

    def _exhausted(self, link: _Link) -> None:
        if self._then == "stall":
            link.stalled = True
        else:
            link.cut(reset=self._then == "reset")

    async def _open(self, link: _Link) -> None:
        """Wait while nothing may pass."""
        while (self._stalled or link.stalled) and not link.client.is_closing():
            await self._changed.wait()


def _reset(end: asyncio.StreamWriter) -> None:
    """End a connection with RST: closed with nothing to linger for (socket(7), SO_LINGER)."""
    found = end.get_extra_info("socket")
    if found is not None and not end.transport.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()
