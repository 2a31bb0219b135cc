"""A database small enough to steer: a TCP server that answers lines, and a driver for it, for the tests of the pool.

It knows `begin`, `commit`, `ping`, `hang` (no answer ever) and answers anything else by its own text. Each answer tells
what the session is in, as PostgreSQL's ReadyForQuery does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import count
from typing import Any

from covet_orm.drivers.protocol import Inserted, Row, Rows, SessionState
from covet_orm.exceptions import ConnectionLost, DatabaseUnavailable, ProgrammingError


class LineServer:
    """The server, in the event loop of the test.

    Attributes:
        sessions: those it has, each with a way to end it.
        connects: how many attempts to connect it has seen while it could be reached.
        refusal: what it says instead of a greeting, before it hangs up.
        gate: a greeting or refusal waits for it to be set.
        deaf: whether it reads, but answers nothing.
    """

    def __init__(self) -> None:
        self.sessions: dict[int, asyncio.StreamWriter] = {}
        self.connects = 0
        self.refusal = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.deaf = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, always on the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Do not listen any more; sessions go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def kill(self, session: int | None = None) -> None:
        """Cut one session, or all."""
        for number, writer in list(self.sessions.items()):
            if session is None or number == session:
                writer.transport.abort()

    async def stop(self) -> None:
        """Die."""
        self.refuse()
        self.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = next(self._numbers)
        self.connects += 1
        self.sessions[number] = writer
        try:
            await self.gate.wait()
            writer.write(f"{'E' if self.refusal else 'I'} {self.refusal or number}\n".encode())
            state = "I"
            while not self.refusal and (line := await reader.readline()):
                statement = line.decode().strip()
                if statement == "bye":
                    break
                if statement == "hang" or self.deaf:
                    continue
                state = {"begin": "T", "commit": "I"}.get(statement, state)
                writer.write(f"{state} {statement}\n".encode())
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self.sessions.pop(number, None)
            self._tasks.discard(task)
            writer.close()


class LineConnection(asyncio.Protocol):
    """A connection to it."""

    numbers = count(1)

    def __init__(self) -> None:
        self.number = next(self.numbers)
        self.server_id: int | None = None
        self.statement = ""
        self.ended = asyncio.get_running_loop().create_future()
        self._state = SessionState.BUSY
        self._answer: asyncio.Future[str] | None = None
        self._received = b""
        self._transport: asyncio.Transport | None = None

    @property
    def state(self) -> SessionState:
        """What the server told last."""
        return self._state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\n" in self._received:
            line, self._received = self._received.split(b"\n", 1)
            kind, _, text = line.decode().partition(" ")
            # After a cancelled statement, nobody knows any more which answer is whose.
            if self._answer is not None and not self._answer.done():
                self._state = {"I": SessionState.IDLE, "T": SessionState.TRANSACTION}.get(kind, SessionState.FAILED)
                self._answer.set_result(text)
                self._answer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = SessionState.CLOSED
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionLost("the connection broke"))
        if not self.ended.done():
            self.ended.set_result(None)

    async def greeting(self) -> None:
        """Read the first line."""
        text = await self._next()
        if self._state is not SessionState.IDLE:
            raise DatabaseUnavailable(f"the server says: {text}", code="53300")
        self.server_id = int(text)

    async def _next(self) -> str:
        self._answer = asyncio.get_running_loop().create_future()
        return await self._answer

    async def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        if self._state in (SessionState.CLOSED, SessionState.BUSY):
            raise ConnectionLost(f"the connection is {self._state.value}", sent=False)
        assert self._transport is not None
        if "\n" in sql:
            raise ProgrammingError("one line, please")
        self._state = SessionState.BUSY
        self.statement = sql
        self._transport.write(f"{sql}\n".encode())
        return Rows(("answer",), [(await self._next(),)])

    async def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return (await self.query(sql)).rows

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        await self.query(sql)
        return 0

    async def insert(self, sql: str, params: Sequence[Any] = ()) -> Inserted:
        return Inserted(await self.execute(sql), None)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        return sum([await self.execute(sql) for _ in rows])

    async def script(self, sql: str) -> None:
        await self.query(sql)

    async def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 1000) -> AsyncIterator[list[Row]]:
        yield await self.fetch(sql)

    async def close(self) -> None:
        if self._transport is not None and self._state is not SessionState.CLOSED:
            self._transport.write(b"bye\n")
            try:
                async with asyncio.timeout(5):
                    await self.ended
            except TimeoutError:
                pass
            finally:
                self.terminate()

    def terminate(self) -> None:
        self._state = SessionState.CLOSED
        if self._transport is not None:
            self._transport.abort()


class LineDriver:
    """Connects to a `LineServer`. `made` are all connections that it gave out."""

    kind = "line"

    def __init__(self, server: LineServer, connect_timeout: float = 5.0) -> None:
        self.server = server
        self.connect_timeout = connect_timeout
        self.made: list[LineConnection] = []
        self.pings = 0

    async def connect(self) -> LineConnection:
        connection: LineConnection | None = None

        def protocol() -> LineConnection:
            nonlocal connection
            connection = LineConnection()
            return connection

        try:
            async with asyncio.timeout(self.connect_timeout):
                await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", self.server.port)
                assert connection is not None
                await connection.greeting()
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if isinstance(error, OSError | ConnectionLost):
                raise DatabaseUnavailable(f"cannot connect: {error}") from error
            raise
        self.made.append(connection)
        return connection

    async def ping(self, connection: Any) -> None:
        self.pings += 1
        await connection.query("ping")


async def until(condition: Callable[[], object], what: str, pause: float = 0.005) -> None:
    """Wait for what must happen, looking a thousand times."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(pause)
    raise AssertionError(f"this did not happen: {what}")
