"""The session store `cookie`: sessions that the browser has, sealed."""

from __future__ import annotations

import base64
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import Covet, Request
from covet.builtin.sessions.sealed import CookieSessions
from covet.exceptions import ConfigurationError
from covet.sessions import SealedSessions, Session, SessionError, SessionTooLargeError, StoredSession
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

COOKIE = "__Host-session"
SECRET, OTHER = "a secret of the application", "another secret of another"


def make(*, secret: str = SECRET, previous: list[str] | None = None, name: str = "shop", **settings: Any) -> Covet:
    app = plugin_sandbox(
        "sessions",
        settings={
            "app": {"secret_key": secret, "previous_secret_keys": previous or [], "name": name},
            "sessions": {"store": "cookie", **settings},
        },
    )

    @app.get("/set/{key}/{value}")
    async def set_value(session: Session, key: str, value: str) -> None:
        session[key] = value

    @app.get("/read")
    async def read(session: Session) -> dict[str, Any]:
        return {"user": session.user, **dict(session.items())}

    @app.get("/login/{user}")
    async def login(session: Session, user: str) -> None:
        await session.bind(user)

    @app.get("/logout")
    async def logout(session: Session) -> None:
        await session.destroy()

    @app.get("/rotate")
    async def rotate(session: Session) -> str | None:
        await session.rotate()
        return session.handle

    return app


def cookie_of(response: Any) -> str:
    (cookie,) = response.headers.get_list("set-cookie")
    pair: str = cookie.partition("; ")[0]
    return pair


async def read(app: Covet, cookie: str) -> Any:
    async with TestClient(app) as client:
        return (await client.get("/read", headers={"cookie": cookie})).json()


async def test_values_are_in_the_cookie_and_nobody_can_read_them() -> None:
    app = make()
    assert isinstance(app.sessions.store, SealedSessions)
    async with TestClient(app) as client:
        cookie = cookie_of(await client.get("/set/secret/cucumber"))
        raw = base64.urlsafe_b64decode(cookie.partition("=1.")[2] + "==")
        assert b"cucumber" not in raw
        got = await client.get("/read")
        assert got.json() == {"user": None, "secret": "cucumber"}
        assert "set-cookie" not in got.headers
        assert got.headers["vary"] == "Cookie"
        assert (await client.get("/login/ann")).status_code == 204
        assert (await client.get("/read")).json() == {"user": "ann", "secret": "cucumber"}
        # Two sealings of the same are not the same.
        handles = {(await client.get("/rotate")).text for _ in range(3)}
        assert len(handles) == 3
        assert (await client.get("/logout")).headers["set-cookie"].startswith(f"{COOKIE}=; Max-Age=0")
        assert (await client.get("/read")).json() == {"user": None}


async def test_a_cookie_that_was_sealed_for_something_else_is_no_session() -> None:
    async with TestClient(make()) as client:
        cookie = cookie_of(await client.get("/set/a/1"))
    assert await read(make(), cookie) == {"user": None, "a": "1"}
    for other in (make(secret=OTHER), make(name="blog")):
        assert await read(other, cookie) == {"user": None}
    renamed = make(cookie="id")
    assert await read(renamed, "id=" + cookie.partition("=")[2]) == {"user": None}


async def test_former_keys_open_and_the_new_one_seals() -> None:
    async with TestClient(make(secret=OTHER)) as client:
        old = cookie_of(await client.get("/set/a/1"))
    app = make(previous=[OTHER])
    assert await read(app, old) == {"user": None, "a": "1"}
    async with TestClient(app) as client:
        new = cookie_of(await client.get("/set/b/2", headers={"cookie": old}))
    assert await read(make(), new) == {"user": None, "a": "1", "b": "2"}


async def test_a_cookie_that_was_tampered_with_is_no_session() -> None:
    async with TestClient(make()) as client:
        cookie = cookie_of(await client.get("/set/a/1"))
    name, _, text = cookie.partition("=")
    raw = bytearray(base64.urlsafe_b64decode(text[2:] + "=="))
    async with TestClient(make()) as client:
        for position in range(len(raw)):
            changed = bytearray(raw)
            changed[position] ^= 1
            forged = "1." + base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
            got = await client.get("/read", headers={"cookie": f"{name}={forged}"})
            assert (got.status_code, got.json()) == (200, {"user": None})
        for length in range(0, len(text), 7):
            got = await client.get("/read", headers={"cookie": f"{name}={text[:length]}"})
            assert (got.status_code, got.json()) == (200, {"user": None})


SEALS = CookieSessions([b"k" * 32])


def stored(values: bytes = b"\x80") -> StoredSession:
    return StoredSession(values=values, version=1, user=None, created=1, authenticated=None, seen=1, expires=2)


@given(st.text(max_size=100), st.text(max_size=5000))
def test_no_text_opens(cookie: str, text: str) -> None:
    assert SEALS.open("name", text) is None
    assert SEALS.open("name", "1." + text) is None


@given(st.binary(max_size=100))
def test_what_was_sealed_is_no_session_unless_it_was_one(data: bytes) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed = AESGCM(b"k" * 32).encrypt(b"n" * 12, data, b"covet session\0name")
    assert SEALS.open("name", "1." + base64.urlsafe_b64encode(b"n" * 12 + sealed).decode()) is None


@given(st.binary(max_size=1000), st.binary(min_size=32, max_size=32))
def test_what_is_sealed_opens(values: bytes, key: bytes) -> None:
    text = SEALS.seal("name", key, stored(values))
    assert SEALS.open("name", text) == (key, stored(values))
    assert SEALS.open("names", text) is None
    assert text != SEALS.seal("name", key, stored(values))


async def test_an_expired_cookie_is_no_session_however_good_its_seal() -> None:
    app = make(idle_seconds=100, lifetime_seconds=250)
    now = [1_800_000_000.0]
    app.sessions.clock = lambda: now[0]
    async with TestClient(app) as client:
        await client.get("/set/a/1")
        got = None
        for _ in range(2):
            now[0] += 99
            got = await client.get("/read")
            assert got.json() == {"user": None, "a": "1"}
            # Its use is noted where it is kept: in the cookie.
            assert len(got.headers.get_list("set-cookie")) == 1
        now[0] += 51
        assert (await client.get("/read")).json() == {"user": None, "a": "1"}
        now[0] += 1
        assert (await client.get("/read")).json() == {"user": None}


async def test_a_cookie_that_is_too_large_is_an_error_that_names_its_size() -> None:
    app = make()

    @app.get("/fill/{size}")
    async def fill(session: Session, size: int) -> None:
        session["data"] = "x" * size

    async with TestClient(app) as client:
        assert (await client.get("/fill/2900")).status_code == 204
        with pytest.raises(SessionTooLargeError, match=r"the session's cookie would have 4\d+ bytes.*keep 4096"):
            await client.get("/fill/3000")
        assert len((await client.get("/read")).json()["data"]) == 2900


async def test_nobody_knows_all_sessions() -> None:
    app = make()
    async with TestClient(app):
        for call in (app.sessions.list("ann"), app.sessions.end("ann"), app.sessions.end_all(), app.sessions.purge()):
            with pytest.raises(SessionError, match="the session store 'cookie' leaves the sessions to the browsers"):
                await call


async def test_two_requests_at_once_the_last_response_counts() -> None:
    """The documented limit of this store."""
    async with TestClient(make()) as client:
        first = cookie_of(await client.get("/set/a/1"))
        one = cookie_of(await client.get("/set/b/1", headers={"cookie": first}))
        other = cookie_of(await client.get("/set/c/1", headers={"cookie": first}))
    assert await read(make(), one) == {"user": None, "a": "1", "b": "1"}
    assert await read(make(), other) == {"user": None, "a": "1", "c": "1"}


async def test_it_takes_a_secret_key() -> None:
    app = plugin_sandbox("sessions", settings={"sessions": {"store": "cookie"}})
    with pytest.raises(ConfigurationError, match="no secret key is set"):
        app.build()


def test_without_the_library_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None; sys.modules['cryptography.exceptions'] = None\n"
        "from covet.testing import plugin_sandbox\n"
        "settings = {'app': {'secret_key': 'x' * 32}, 'sessions': {'store': 'cookie'}}\n"
        "try: plugin_sandbox('sessions', settings=settings).build()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigurationError")
    assert 'pip install "covet-core[cookies]"' in done.stdout


def test_who_seals_nothing_never_imports_it() -> None:
    program = (
        "import sys\n"
        "from covet.testing import plugin_sandbox\n"
        "app = plugin_sandbox('sessions'); app.build(); app.sessions\n"
        "print([name for name in sys.modules if name.startswith('cryptography')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_a_stranger_may_seal_in_another_way() -> None:
    from covet.backends import Backend
    from covet.hooks import hookimpl

    class Plain:
        """Seals nothing; for this test alone."""

        def __init__(self) -> None:
            self.sealed: dict[str, tuple[bytes, StoredSession]] = {}

        def seal(self, cookie: str, key: bytes, session: StoredSession) -> str:
            self.sealed[str(len(self.sealed))] = (key, session)
            return str(len(self.sealed) - 1)

        def open(self, cookie: str, text: str) -> tuple[bytes, StoredSession] | None:
            return self.sealed.get(text)

    class Stores:
        @hookimpl
        def covet_session_stores(self) -> dict[str, Backend]:
            return {"plain": Backend(lambda app, alias, settings: Plain())}

    app = plugin_sandbox("sessions", Stores(), settings={"sessions": {"store": "plain"}})

    @app.get("/")
    async def index(request: Request) -> int:
        session = await request.session
        return int(session.transform("visits", lambda visits: visits + 1, 0))

    async with TestClient(app) as client:
        assert [(await client.get("/")).json() for _ in range(3)] == [1, 2, 3]
