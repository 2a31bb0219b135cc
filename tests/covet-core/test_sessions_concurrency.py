"""Several requests of one session at once: in one process, in two, and cancelled in the middle."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.sqlite_sessions import SQLiteSessions, SQLiteSessionsPlugin

from covet import Covet, Request
from covet.backends import Backend
from covet.builtin.sessions import MemorySessionStore
from covet.hooks import hookimpl
from covet.sessions import Session, SessionStore, StoredSession
from covet.sessions.encoding import decode, decode_all
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await

pytestmark = pytest.mark.anyio

COOKIE = "__Host-session"
ROOT = Path(__file__).parent.parent.parent


class Waiting(MemorySessionStore):
    """As a store over a network: others run while it is asked."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("load", "create", "replace", "rotate", "touch", "delete", "end_user"):
            return found

        async def wait(*args: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            answer = await found(*args)
            await anyio.lowlevel.checkpoint()
            return answer

        return wait


@pytest.fixture(params=["memory", "waiting", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SessionStore:
    kinds: dict[str, Callable[[], SessionStore]] = {
        "memory": MemorySessionStore, "waiting": Waiting, "sqlite": lambda: SQLiteSessions(tmp_path / "sessions.db"),
    }  # fmt: skip
    return kinds[request.param]()


def make(store: SessionStore) -> Covet:
    class Stores:
        @hookimpl
        def covet_session_stores(self) -> dict[str, Backend]:
            return {"own": Backend(lambda app, alias, settings: store)}

    return plugin_sandbox("sessions", Stores(), settings={"sessions": {"store": "own"}})


class Gate:
    """Lets requests read their session, and write only when all of them have read it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.opened = anyio.Event()

    async def wait(self) -> None:
        self.number -= 1
        if self.number <= 0:
            self.opened.set()
        await self.opened.wait()


async def together(*calls: Callable[[], Any]) -> list[Any]:
    found: list[Any] = [None] * len(calls)

    async def run(number: int, call: Callable[[], Any]) -> None:
        found[number] = await call()

    async with anyio.create_task_group() as group:
        for number, call in enumerate(calls):
            group.start_soon(run, number, call)
    return found


async def test_requests_at_once_lose_none_of_each_others_keys(store: SessionStore) -> None:
    app = make(store)
    gates = [Gate(10)]

    @app.get("/start")
    async def start(session: Session) -> None:
        session["start"] = True

    @app.get("/set/{key}")
    async def set_value(session: Session, key: str) -> None:
        assert session["start"] is True
        await gates[0].wait()
        session[key] = key

    @app.get("/read")
    async def read(session: Session) -> dict[str, Any]:
        return dict(session.items())

    async with TestClient(app) as client:
        await client.get("/start")
        await together(*[lambda n=n: client.get(f"/set/key{n}") for n in range(10)])
        assert (await client.get("/read")).json() == {"start": True, **{f"key{n}": f"key{n}" for n in range(10)}}


async def test_what_is_transformed_at_once_loses_nothing(store: SessionStore) -> None:
    app = make(store)
    gates = [Gate(12)]

    @app.get("/start")
    async def start(session: Session) -> None:
        session["count"] = 0

    @app.get("/count")
    async def count(session: Session) -> None:
        await gates[0].wait()
        session.transform("count", lambda number: number + 1)
        session.transform("items", lambda items: [*items, 1], [])

    @app.get("/read")
    async def read(session: Session) -> list[int]:
        return [session["count"], len(session["items"])]

    async with TestClient(app) as client:
        await client.get("/start")
        await together(*[lambda: client.get("/count") for _ in range(12)])
        assert (await client.get("/read")).json() == [12, 12]


async def test_of_two_who_assign_a_key_the_last_one_wins(store: SessionStore) -> None:
    app = make(store)
    second_read, first_done = anyio.Event(), anyio.Event()

    @app.get("/start")
    async def start(session: Session) -> None:
        session["a"] = "start"

    @app.get("/first")
    async def first(session: Session) -> None:
        session["a"] = "first"
        del session["a"]
        session["b"] = "first"

    @app.get("/second")
    async def second(session: Session) -> None:
        assert session["a"] == "start"
        second_read.set()
        await first_done.wait()
        session["b"] = "second"

    @app.get("/read")
    async def read(session: Session) -> dict[str, Any]:
        return dict(session.items())

    async with TestClient(app) as client:
        await client.get("/start")

        async def go_first() -> None:
            await second_read.wait()
            await client.get("/first")
            first_done.set()

        await together(lambda: client.get("/second"), go_first)
        assert (await client.get("/read")).json() == {"b": "second"}


@pytest.mark.parametrize("how", ["destroy", "rotate", "bind", "end", "end_all"])
async def test_a_slow_request_brings_nothing_back(
    store: SessionStore, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that was ended or rotated meanwhile is not resurrected, and its cookie not overwritten."""
    app = make(store)
    read, gone = anyio.Event(), anyio.Event()

    @app.get("/login")
    async def login(session: Session) -> None:
        session["a"] = 1
        await session.bind("ann")

    @app.get("/slow")
    async def slow(session: Session) -> None:
        read.set()
        await gone.wait()
        session["late"] = 1

    @app.get("/change")
    async def change(session: Session) -> None:
        if how == "destroy":
            await session.destroy()
        elif how == "rotate":
            await session.rotate()
        elif how == "bind":
            await session.bind("bob")
        elif how == "end":
            await app.sessions.end("ann")
        else:
            await app.sessions.end_all()

    @app.get("/read")
    async def show(session: Session) -> dict[str, Any]:
        return {"user": session.user, **dict(session.items())}

    async with TestClient(app) as client:
        await client.get("/login")
        old = dict(client.cookies)

        async def meanwhile() -> None:
            await read.wait()
            await client.get("/change")
            gone.set()

        with caplog.at_level(logging.DEBUG, "covet.sessions"):
            slow_response, _ = await together(lambda: client.get("/slow"), meanwhile)
        assert "set-cookie" not in slow_response.headers
        assert "dropped" in caplog.text
        expected = {"rotate": {"user": "ann", "a": 1}, "bind": {"user": "bob"}}.get(how, {"user": None})
        assert (await client.get("/read")).json() == expected
        replayed = await client.get("/read", headers={"cookie": f"{COOKIE}={old[COOKIE]}"})
        assert replayed.json() == {"user": None}


async def test_signing_in_where_the_session_ended_meanwhile_begins_a_new_one(store: SessionStore) -> None:
    app = make(store)
    gates = [Gate(2)]

    @app.get("/start")
    async def start(session: Session) -> None:
        session["old"] = 1

    @app.get("/login/{tab}")
    async def login(session: Session, tab: str) -> str | None:
        await gates[0].wait()
        session[tab] = 1
        await session.bind("ann")
        return session.handle

    @app.get("/read")
    async def show(session: Session) -> dict[str, Any]:
        return {"user": session.user, **dict(session.items())}

    async with TestClient(app) as client:
        await client.get("/start")
        both = await together(lambda: client.get("/login/one"), lambda: client.get("/login/two"))
        cookies = [response.headers["set-cookie"].partition("; ")[0] for response in both]
        found = [(await client.get("/read", headers={"cookie": cookie})).json() for cookie in cookies]
        # One rotated the session, the other found it gone: it has what was assigned there, and nothing of the old.
        assert sorted(found, key=len) == [
            {"user": "ann", **({"two": 1} if "old" in found[0] else {"one": 1})},
            {"user": "ann", "old": 1, **({"one": 1} if "old" in found[0] else {"two": 1})},
        ]
        assert len(await app.sessions.list("ann")) == 2


async def test_a_request_that_is_cancelled_while_it_saves_leaves_all_or_nothing(store: SessionStore) -> None:
    app = make(store)
    handle: list[str] = []

    @app.get("/start")
    async def start(session: Session) -> None:
        session.update({"a": 0, "b": 0})
        await session.save()
        assert session.handle is not None
        handle.append(session.handle)

    @app.get("/count")
    async def count(session: Session) -> None:
        session.transform("a", lambda number: number + 1)
        session.transform("b", lambda number: number + 1)

    async with TestClient(app) as client:
        await client.get("/start")
        key = bytes.fromhex(handle[0])
        cookie = f"{COOKIE}={client.cookies[COOKIE]}".encode()

        async def call() -> None:
            async def receive() -> Any:
                return {"type": "http.request", "body": b""}

            async def send(message: Any) -> None:
                await anyio.lowlevel.checkpoint()

            scope = {
                "type": "http", "method": "GET", "path": "/count", "query_string": b"", "scheme": "https",
                "headers": [(b"host", b"localhost"), (b"cookie", cookie)],
            }  # fmt: skip
            await app(scope, receive, send)

        async def check() -> None:
            found = await store.load(key, app.sessions.clock())
            assert found is not None
            values = {name: decode(name, data) for name, data in decode_all(found.values).items()}
            assert values["a"] == values["b"]

        assert await at_every_await(call, check) >= 1


# Two processes

WRITER = """
import json, sys
import anyio
from covet import Request
from covet.sessions import Session
from covet.testing import TestClient, plugin_sandbox
from tests.sqlite_sessions import SQLiteSessionsPlugin

path, cookie, name = sys.argv[1:]
app = plugin_sandbox("sessions", SQLiteSessionsPlugin(), settings={"sessions": {"store": "sqlite", "path": path}})

@app.get("/count/{number}")
async def count(session: Session, number: int) -> None:
    session.transform("count", lambda value: value + 1)
    session[f"{name} {number}"] = number

async def main():
    async with TestClient(app, cookies={"__Host-session": cookie}) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(40):
            assert (await client.get(f"/count/{number}")).status_code == 204

anyio.run(main)
"""


def started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "sessions.db")
    app = plugin_sandbox("sessions", SQLiteSessionsPlugin(), settings={"sessions": {"store": "sqlite", "path": path}})

    @app.get("/start")
    async def start(session: Session) -> None:
        session["count"] = 0

    @app.get("/read")
    async def read(request: Request) -> dict[str, Any]:
        return dict((await request.session).items())

    async with TestClient(app) as client:
        await client.get("/start")
        arguments = [sys.executable, "-c", WRITER, path, client.cookies[COOKIE]]
        writers = [started([*arguments, name]) for name in ("one", "two")]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        for writer in writers:
            with writer:
                assert writer.wait(100) == 0
        values = json.loads((await client.get("/read")).text)
        assert values.pop("count") == 80
        assert values == {f"{name} {number}": number for name in ("one", "two") for number in range(40)}


async def test_a_store_that_never_lets_it_through_is_given_up() -> None:
    class Busy(MemorySessionStore):
        async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
            return False

    app = make(Busy())

    @app.get("/{value}")
    async def set_value(session: Session, value: str) -> None:
        session["a"] = value

    async with TestClient(app, raise_errors=False) as client:
        await client.get("/1")
        assert (await client.get("/2")).status_code == 500
