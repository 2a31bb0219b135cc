"""Sessions, as handlers, browsers and caches see them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from covet import Covet, HTTPError, Request, Response, StreamingResponse, WebSocket
from covet.backends import Backend
from covet.builtin.sessions import MemorySessionStore
from covet.exceptions import ConfigurationError
from covet.files import FileResponse
from covet.hooks import hookimpl
from covet.sessions import (
    Ready,
    Session,
    SessionError,
    SessionKeyError,
    SessionNotLoadedError,
    SessionTooLargeError,
    SessionValueError,
    StoredSession,
)
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

COOKIE = "__Host-session"
# With the defaults, a session's use is noted after a tenth of this.
IDLE, LIFETIME = 43_200, 604_800


class Clock:
    def __init__(self, app: Covet) -> None:
        self.now = 1_800_000_000.0
        app.sessions.clock = lambda: self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Cart:
    items: list[int]


def make(**settings: Any) -> Covet:
    return plugin_sandbox("sessions", settings={"sessions": settings} if settings else None)


def with_routes(app: Covet) -> Covet:
    @app.get("/none")
    async def none() -> str:
        return "nothing"

    @app.get("/read")
    async def read(session: Session) -> dict[str, Any]:
        return dict(session.items())

    @app.get("/look")
    async def look(request: Request) -> dict[str, Any]:
        await request.session
        return {}

    @app.get("/set/{key}/{value}")
    async def set_value(request: Request, key: str, value: str) -> dict[str, Any]:
        session = await request.session
        session[key] = value
        return dict(session.items())

    @app.get("/append/{value}")
    async def append(request: Request, value: int) -> list[int]:
        session = await request.session
        if Cart not in session:
            session[Cart] = Cart([])
        session[Cart].items.append(value)
        return session[Cart].items

    @app.get("/login/{user}")
    async def login(session: Session, user: str) -> None:
        await session.bind(user)

    @app.get("/who")
    async def who(session: Session) -> dict[str, Any]:
        return {"user": session.user, "new": session.is_new, "fresh": session.fresh(60), "values": session.keys()}

    @app.get("/rotate")
    async def rotate(session: Session) -> None:
        await session.rotate()

    @app.get("/logout")
    async def logout(session: Session) -> None:
        await session.destroy()

    @app.get("/status/{status}")
    async def status(session: Session, status: int) -> Response:
        session["status"] = status
        return Response(status=status)

    @app.get("/raise/{status}")
    async def refuse(session: Session, status: int) -> None:
        session["status"] = status
        raise HTTPError(status)

    return app


def set_cookies(response: Any) -> list[str]:
    found: list[str] = response.headers.get_list("set-cookie")
    return found


def store_of(app: Covet) -> MemorySessionStore:
    store = app.sessions.store
    assert isinstance(store, MemorySessionStore)
    return store


# Loading


async def test_a_request_that_touches_no_session_pays_nothing() -> None:
    app = with_routes(make())
    assert app.built.pipeline.empty
    assert app.built.outer == []
    async with TestClient(app) as client:
        got = await client.get("/none", headers={"cookie": f"{COOKIE}={'x' * 43}"})
    assert {"set-cookie", "vary", "cache-control"}.isdisjoint(got.headers)


async def test_a_session_is_loaded_by_awaiting_it_or_by_the_signature() -> None:
    app = make()

    @app.get("/await")
    async def awaited(request: Request) -> bool:
        session = await request.session
        return session is await request.session is request.session is await session.load()

    @app.get("/ask")
    async def asked(session: Session, request: Request) -> bool:
        return session is request.session

    async with TestClient(app) as client:
        assert (await client.get("/await")).json() is True
        assert (await client.get("/ask")).json() is True


@pytest.mark.parametrize(
    "look",
    [
        lambda session: session["a"],
        lambda session: session.get("a"),
        lambda session: "a" in session,
        lambda session: list(session),
        lambda session: session.user,
        lambda session: session.handle,
        lambda session: session.fresh(1),
        lambda session: session.is_new,
        lambda session: session.__setitem__("a", 1),
        lambda session: session.clear(),
    ],
)
async def test_a_session_that_is_not_loaded_says_how(look: Any) -> None:
    app = make()
    with pytest.raises(SessionNotLoadedError) as caught:
        look(Request({"headers": []}, None, app).session)  # type: ignore[arg-type]
    assert "session = await request.session" in str(caught.value)
    assert "session: Session" in str(caught.value)


async def test_two_tasks_of_a_request_have_one_session() -> None:
    app = make()

    @app.get("/")
    async def index(request: Request) -> int:
        async def count() -> None:
            session = await request.session
            await anyio.lowlevel.checkpoint()
            session.transform("n", lambda n: n + 1, 0)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(count)
        return int(request.session["n"])

    async with TestClient(app) as client:
        assert (await client.get("/")).json() == 5
        assert len(store_of(app)) == 1


# Values


async def test_it_is_a_mapping() -> None:
    app = make()

    @app.get("/")
    async def index(session: Session) -> None:
        session["a"] = 1
        session.update({"b": 2}, c=3)
        session[Cart] = Cart([1])
        assert (len(session), list(session), session.keys()) == (3, ["a", "b", "c"], ["a", "b", "c"])
        assert (session.values(), session.items()) == ([1, 2, 3], [("a", 1), ("b", 2), ("c", 3)])
        assert session.pop("a") == 1
        assert session.pop("a", None) is None
        assert session.setdefault("b", 9) == 2
        assert session.setdefault("d", 9) == 9
        assert session.get(Cart) == session[Cart] == Cart([1])
        assert Cart in session
        assert session.pop(Cart).items == [1]
        assert session.get(Cart) is None
        del session["b"]
        for missing in (lambda: session["b"], lambda: session[Cart], lambda: session.pop("b")):
            with pytest.raises(SessionKeyError, match="the session has no"):
                missing()
        with pytest.raises(KeyError):
            del session["b"]
        with pytest.raises(SessionValueError, match=r"session\['x'\] cannot hold this value of type object"):
            session["x"] = object()
        with pytest.raises(SessionValueError, match="key"):
            session[5] = 1  # type: ignore[index]
        session.clear()
        assert (len(session), Cart in session) == (0, False)
        assert "secret" not in repr(session)

    async with TestClient(app) as client:
        assert (await client.get("/")).status_code == 204
        # Nothing was left to keep.
        assert len(store_of(app)) == 0


async def test_values_keep_their_types_from_request_to_request() -> None:
    app = with_routes(make())
    async with TestClient(app) as client:
        for number in range(3):
            assert (await client.get(f"/append/{number}")).json() == list(range(number + 1))
        assert (await client.get("/read")).json() == {}


async def test_a_value_of_an_earlier_shape_counts_as_missing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = with_routes(make())

    @app.get("/cart")
    async def cart(session: Session) -> bool:
        return session.get(Cart) is None

    async with TestClient(app) as client:
        await client.get("/append/1")
        store = store_of(app)
        (key,) = store._sessions
        now = app.sessions.clock()
        found = await store.load(key, now)
        assert found is not None
        broken = StoredSession(**{**{n: getattr(found, n) for n in found.__struct_fields__}, "version": 2,
                                  "values": found.values.replace(b"items", b"thing")})  # fmt: skip
        assert await store.replace(key, broken, 1, now)
        assert (await client.get("/cart")).json() is True
        assert "Cart" in caplog.text
        caplog.clear()
        # What is no session at all is none.
        await store.replace(key, StoredSession(values=b"\xc1", version=3, user=None, created=now, authenticated=None,
                                               seen=now, expires=now + 100), 2, now)  # fmt: skip
        assert (await client.get("/who")).json()["new"] is True
        assert "not readable" in caplog.text


async def test_what_is_changed_in_place_to_something_unfit_is_an_error() -> None:
    app = make()

    @app.get("/")
    async def index(session: Session) -> None:
        session["list"] = []
        session["list"].append(object())

    async with TestClient(app, raise_errors=False) as client:
        got = await client.get("/")
        assert (got.status_code, set_cookies(got)) == (500, [])
        assert got.headers["vary"] == "Cookie"
    async with TestClient(app) as client:
        with pytest.raises(SessionValueError, match="'list'"):
            await client.get("/")


async def test_too_many_bytes_are_an_error_that_names_the_largest() -> None:
    app = make(max_bytes=1000)

    @app.get("/{size}")
    async def index(session: Session, size: int) -> None:
        session["small"] = 1
        session["large"] = "x" * size

    async with TestClient(app) as client:
        assert (await client.get("/900")).status_code == 204
        with pytest.raises(SessionTooLargeError, match=r"max_bytes is 1000.*'large' \(1103\)"):
            await client.get("/1100")


# The cookie and the response


async def test_the_cookie_is_set_when_a_session_begins_and_not_again() -> None:
    app = with_routes(make())
    async with TestClient(app) as client:
        got = await client.get("/read")
        assert (set_cookies(got), len(store_of(app))) == ([], 0)
        (cookie,) = set_cookies(await client.get("/set/a/1"))
        value, *attributes = cookie.split("; ")
        assert value.startswith(f"{COOKIE}=")
        assert len(value) == len(COOKIE) + 1 + 43
        assert attributes == ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"]
        for path in ("/read", "/set/a/2", "/set/b/1", "/look", "/who"):
            assert set_cookies(await client.get(path)) == []
        assert (await client.get("/read")).json() == {"a": "2", "b": "1"}


@pytest.mark.parametrize("path", ["/read", "/look", "/set/a/1", "/raise/404", "/raise/500", "/status/304", "/logout"])
async def test_any_touch_makes_the_response_private(path: str) -> None:
    async with TestClient(with_routes(make()), raise_errors=False) as client:
        got = await client.get(path)
        assert got.headers["vary"] == "Cookie"
        assert got.headers["cache-control"] in ("private", "no-store")


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        ("max-age=60", "private"),
        ("public, max-age=60", "private"),
        ("PUBLIC", "private"),
        ("s-maxage=60, max-age=5", "private"),
        ("no-store", "no-store"),
        ("no-store, public", "no-store"),
        ("Private, max-age=60", "Private, max-age=60"),
        ("no-cache", "no-cache, private"),
        ('private="x-a, x-b", public', 'private="x-a, x-b", private'),
        ("must-revalidate, proxy-revalidate", "must-revalidate, private"),
        ("", "private"),
    ],
)
async def test_a_stricter_cache_control_stays_and_a_laxer_one_goes(own: str, sent: str) -> None:
    app = make()

    @app.get("/")
    async def index(session: Session) -> Response:
        return Response(headers={"cache-control": own, "vary": "accept"})

    async with TestClient(app) as client:
        got = await client.get("/")
        assert got.headers["cache-control"] == sent
        assert got.headers["vary"] == "accept, Cookie"


async def test_other_cookies_of_a_response_stay() -> None:
    app = make()

    @app.get("/")
    async def index(session: Session) -> Response:
        session["a"] = 1
        response = Response()
        response.set_cookie("csrf", "1")
        response.set_cookie("theme", "dark")
        return response

    async with TestClient(app) as client:
        names = [cookie.partition("=")[0] for cookie in set_cookies(await client.get("/"))]
    assert sorted(names) == sorted(["csrf", "theme", COOKIE])


async def test_files_and_streams_have_the_cookie_too(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    app = make()

    @app.get("/file")
    async def file(session: Session) -> FileResponse:
        session["a"] = 1
        return FileResponse(tmp_path / "file.txt")

    @app.get("/stream")
    async def stream(session: Session) -> StreamingResponse:
        session["a"] = 1

        async def pieces() -> AsyncIterator[str]:
            yield session["a"] * "x"

        return StreamingResponse(pieces())

    for path in ("/file", "/stream"):
        async with TestClient(app) as client:
            got = await client.get(path)
            assert (len(set_cookies(got)), got.headers["vary"]) == (1, "Cookie")
            assert "private" in got.headers["cache-control"]


async def test_in_debug_mode_the_cookie_works_over_http() -> None:
    app = with_routes(plugin_sandbox("sessions", settings={"app": {"debug": True}}))
    async with TestClient(app, base_url="http://localhost") as client:
        (cookie,) = set_cookies(await client.get("/set/a/1"))
        assert cookie.startswith("session=")
        assert "Secure" not in cookie
        assert (await client.get("/read")).json() == {"a": "1"}
    async with TestClient(app) as client:
        (cookie,) = set_cookies(await client.get("/set/a/1"))
        assert "; Secure" in cookie


async def test_the_settings_say_what_the_cookie_is_like() -> None:
    app = with_routes(make(cookie="__Secure-id", same_site="strict", persistent=True, lifetime_seconds=1000))
    clock = Clock(app)
    async with TestClient(app) as client:
        (cookie,) = set_cookies(await client.get("/set/a/1"))
        assert cookie.partition("=")[0] == "__Secure-id"
        assert cookie.partition("; ")[2] == "Max-Age=1000; Path=/; Secure; HttpOnly; SameSite=Strict"
        clock.advance(400)
        (cookie,) = set_cookies(await client.get("/rotate"))
        assert "Max-Age=600;" in cookie


@pytest.mark.parametrize(
    "wrong",
    [
        {"cookie": "a b"},
        {"cookie": "a=b"},
        {"idle_seconds": 0},
        {"same_site": "maybe"},
        {"max_sessions": 0},
        {"stoer": "memory"},
        {"store": "shelf"},
        {"store": "cookie", "max_sessions": 5},
    ],
)
async def test_wrong_settings_stop_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="sessions"):
        make(**wrong).build()


async def test_without_the_plugin_it_says_what_is_missing() -> None:
    app = plugin_sandbox()
    with pytest.raises(ConfigurationError, match="no plugin that takes part brings 'memory'"):
        _ = app.sessions


# What is no session


@pytest.mark.parametrize(
    "header",
    [
        "{name}=",
        "{name}",
        "{name}={other}",
        "{name}={own}x",
        "{name}={cut}",
        '{name}="{own}"',
        "{name}={own}=",
        "{lower}={own}",
        "{name}={own}; {name}={own}",
        "{name}={own}; {name}={other}",
        "{name}={other}; a=b;{name}={own}",
        "x{name}={own}",
        "a={name}={own}",
        "{name}=" + "x" * 8000,
        "{name}=" + "ü" * 43,
        "{name}=" + "\udcff" * 43,
        ";;;=;{name}",
    ],
)
async def test_whatever_is_no_id_of_ours_is_no_session_and_no_error(header: str) -> None:
    app = with_routes(make())
    async with TestClient(app) as owner:
        (cookie,) = set_cookies(await owner.get("/set/secret/1"))
        own = cookie.partition("; ")[0].partition("=")[2]
        sent = header.format(name=COOKIE, lower=COOKIE.lower(), own=own, other="A" * 43, cut=own[:-1])
        client = TestClient(app, lifespan=False)
        async with client:
            raw = {"cookie": sent.encode("utf-8", "surrogateescape")}
            got = await client.get("/read", headers=raw)
            assert (got.status_code, got.json(), set_cookies(got)) == (200, {}, [])
            # What is written then has an id of its own.
            got = await client.get("/set/a/1", headers=raw)
            (made,) = set_cookies(got)
            assert made.partition("; ")[0] != sent
            assert got.json() == {"a": "1"}
        assert (await owner.get("/read")).json() == {"secret": "1"}


async def test_a_cookie_among_others_and_over_several_lines_is_found() -> None:
    app = with_routes(make())
    async with TestClient(app) as client:
        (cookie,) = set_cookies(await client.get("/set/a/1"))
        pair = cookie.partition("; ")[0]
    async with TestClient(app) as client:
        for headers in (
            [("cookie", f"a=b; {pair}; c=d")],
            [("cookie", f"a=b;\t{pair} ;c")],
            [("cookie", "a=b"), ("cookie", pair), ("cookie", "c=d")],
        ):
            assert (await client.get("/read", headers=headers)).json() == {"a": "1"}
        assert (await client.get("/read", headers=[("cookie", pair), ("cookie", pair)])).json() == {}


async def test_an_unknown_id_is_never_adopted() -> None:
    """Session fixation: an attacker who plants an id learns nothing."""
    app = with_routes(make())
    planted = "A" * 43
    async with TestClient(app) as victim:
        victim.cookies.set(COOKIE, planted)
        got = await victim.get("/login/ann")
        assert planted not in got.headers["set-cookie"]
    async with TestClient(app) as attacker:
        got = await attacker.get("/who", headers={"cookie": f"{COOKIE}={planted}"})
        assert (got.json()["user"], got.json()["new"]) == (None, True)


async def test_the_store_never_sees_an_id() -> None:
    app = with_routes(make())
    async with TestClient(app) as client:
        (cookie,) = set_cookies(await client.get("/login/ann"))
        id = cookie.partition("; ")[0].partition("=")[2]
        (info,) = await app.sessions.list("ann")
        assert bytes.fromhex(info.handle) == hashlib.sha256(id.encode()).digest()
        known = repr(store_of(app)._sessions) + repr(info) + info.handle
        assert not [id[start : start + 8] for start in range(len(id) - 7) if id[start : start + 8] in known]
        # What the store has is not what opens the door.
        for forged in (info.handle, info.handle[:43]):
            got = await client.get("/who", headers={"cookie": f"{COOKIE}={forged}"})
            assert got.json()["user"] is None


# Who it is


async def test_signing_in_changes_the_id_and_keeps_the_values() -> None:
    app = with_routes(make())
    async with TestClient(app) as client:
        (before,) = set_cookies(await client.get("/set/cart/full"))
        (after,) = set_cookies(await client.get("/login/ann"))
        assert before.partition("; ")[0] != after.partition("; ")[0]
        assert (await client.get("/read")).json() == {"cart": "full"}
        assert (await client.get("/who")).json() == {"user": "ann", "new": False, "fresh": True, "values": ["cart"]}
        old = await client.get("/who", headers={"cookie": before.partition("; ")[0]})
        assert old.json()["new"] is True
        assert len(store_of(app)) == 1


async def test_another_user_gets_nothing_of_the_one_before() -> None:
    app = with_routes(make())

    @app.get("/switch/{user}")
    async def switch(session: Session, user: str) -> None:
        session["note"] = "new"
        await session.bind(user)

    async with TestClient(app) as client:
        await client.get("/login/ann")
        await client.get("/set/secret/hers")
        await client.get("/append/1")
        await client.get("/switch/bob")
        assert (await client.get("/read")).json() == {"note": "new"}
        assert (await client.get("/append/2")).json() == [2]
        assert list(await app.sessions.list("ann")) == []
        # The same user again keeps everything.
        await client.get("/switch/bob")
        assert (await client.get("/append/3")).json() == [2, 3]


@pytest.mark.parametrize("user", ["", "x" * 256, "a\0b", "\ud800", 5, None])
async def test_what_is_no_user(user: Any) -> None:
    app = make()

    @app.get("/")
    async def index(session: Session) -> None:
        with pytest.raises(SessionValueError, match="user"):
            await session.bind(user)
        with pytest.raises(SessionValueError, match="user"):
            await app.sessions.end(user)

    async with TestClient(app) as client:
        await client.get("/")


async def test_a_session_is_fresh_for_a_while_after_each_proof() -> None:
    app = with_routes(make())
    clock = Clock(app)
    async with TestClient(app) as client:
        assert (await client.get("/who")).json()["fresh"] is False
        await client.get("/set/a/1")
        assert (await client.get("/who")).json()["fresh"] is False
        await client.get("/login/ann")
        clock.advance(60)
        await client.get("/set/a/2")
        await client.get("/rotate")
        assert (await client.get("/who")).json()["fresh"] is True
        clock.advance(1)
        assert (await client.get("/who")).json()["fresh"] is False
        await client.get("/login/ann")
        assert (await client.get("/who")).json()["fresh"] is True


async def test_rotating_gives_a_new_id_at_once_and_saves() -> None:
    app = make()

    @app.get("/start")
    async def start(session: Session) -> None:
        session["a"] = 1

    @app.get("/rotate")
    async def rotate(session: Session) -> None:
        before = session.handle
        session["b"] = 2
        await session.rotate()
        assert session.handle not in (None, before)
        assert await store_of(app).load(bytes.fromhex(before or ""), app.sessions.clock()) is None
        raise RuntimeError("too late to undo it")

    @app.get("/read")
    async def read(session: Session) -> dict[str, Any]:
        return dict(session.items())

    async with TestClient(app, raise_errors=False) as client:
        await client.get("/start")
        got = await client.get("/rotate")
        # The browser has to hear of it, or its session would be lost.
        assert (got.status_code, len(set_cookies(got))) == (500, 1)
        assert (await client.get("/read")).json() == {"a": 1, "b": 2}


async def test_rotating_what_is_not_stored_does_nothing() -> None:
    app = with_routes(make())
    async with TestClient(app) as client:
        assert set_cookies(await client.get("/rotate")) == []
        assert len(store_of(app)) == 0


async def test_a_destroyed_session_is_gone_from_store_and_browser() -> None:
    app = with_routes(make())
    async with TestClient(app) as client:
        (cookie,) = set_cookies(await client.get("/login/ann"))
        got = await client.get("/logout")
        (deleted,) = set_cookies(got)
        assert deleted == f"{COOKIE}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
        assert len(store_of(app)) == 0
        replayed = await client.get("/who", headers={"cookie": cookie.partition("; ")[0]})
        assert replayed.json()["user"] is None
        # Who has no cookie needs none deleted.
        client.cookies.clear()
        assert set_cookies(await client.get("/logout")) == []


async def test_after_destroying_it_a_new_one_may_begin() -> None:
    app = with_routes(make())

    @app.get("/again")
    async def again(session: Session) -> None:
        await session.destroy()
        assert (session.is_new, session.user, len(session)) == (True, None, 0)
        session["b"] = 2

    async with TestClient(app) as client:
        await client.get("/login/ann")
        await client.get("/set/a/1")
        (cookie,) = set_cookies(await client.get("/again"))
        assert "Max-Age" not in cookie
        assert (await client.get("/who")).json() == {"user": None, "new": False, "fresh": False, "values": ["b"]}


# Listing and ending them


async def test_a_user_lists_and_ends_sessions() -> None:
    app = with_routes(make())

    @app.get("/others")
    async def others(session: Session) -> int:
        assert session.user is not None
        return await app.sessions.end(session.user, except_=session)

    @app.get("/mine")
    async def mine(session: Session) -> list[Any]:
        assert session.user is not None
        return [(info.current, info.get("device"), info.user) for info in await app.sessions.list(
            session.user, current=session)]  # fmt: skip

    clock = Clock(app)
    async with (
        TestClient(app) as phone,
        TestClient(app, lifespan=False) as desk,
        TestClient(app, lifespan=False) as other,
    ):
        for client, user in ((phone, "ann"), (desk, "ann"), (other, "bob")):
            await client.get(f"/login/{user}")
            await client.get(f"/set/device/{'phone' if client is phone else 'desk'}")
            clock.advance(10)
        assert (await phone.get("/mine")).json() == [[False, "desk", "ann"], [True, "phone", "ann"]]
        (first, second) = await app.sessions.list("ann")
        assert (first.seen, second.seen, first.expires) == (second.seen + 10, first.seen - 10, first.seen + IDLE)
        # One that is not ann's is not ended in her name.
        (bobs,) = await app.sessions.list("bob")
        assert await app.sessions.end("ann", only=bobs.handle) == 0
        assert await app.sessions.end("ann", only="nonsense") == 0
        assert await app.sessions.end("ann", only=first.handle) == 1
        assert (await desk.get("/who")).json()["user"] is None
        await desk.get("/login/ann")
        assert (await phone.get("/others")).json() == 1
        assert [(await client.get("/who")).json()["user"] for client in (phone, desk, other)] == ["ann", None, "bob"]
        assert await app.sessions.end("ann") == 1
        assert await app.sessions.end_all() == 1
        assert [(await client.get("/who")).json()["user"] for client in (phone, desk, other)] == [None] * 3


# Time


async def test_a_session_ends_when_it_was_not_used() -> None:
    app = with_routes(make(idle_seconds=100))
    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/set/a/1")
        for _ in range(5):
            clock.advance(99)
            # Reading is use, too.
            assert (await client.get("/read")).json() == {"a": "1"}
        clock.advance(100)
        got = await client.get("/read")
        assert (got.json(), set_cookies(got)) == ({}, [])
        (cookie,) = set_cookies(await client.get("/set/a/2"))
        assert cookie


async def test_a_session_ends_however_much_it_is_used_unless_the_user_signs_in_again() -> None:
    app = with_routes(make(idle_seconds=100, lifetime_seconds=250))
    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/set/a/1")
        for _ in range(2):
            clock.advance(99)
            await client.get("/rotate")
            assert (await client.get("/read")).json() == {"a": "1"}
        clock.advance(51)
        assert await store_of(app).load(next(iter(store_of(app)._sessions)), clock.now) is not None
        clock.advance(1)
        assert (await client.get("/read")).json() == {}
        await client.get("/login/ann")
        clock.advance(99)
        await client.get("/login/ann")
        clock.advance(99)
        await client.get("/read")
        clock.advance(99)
        assert (await client.get("/who")).json()["user"] == "ann"


@pytest.mark.parametrize("stricter", [{"idle_seconds": 400}, {"lifetime_seconds": 900}])
async def test_shorter_times_in_the_settings_count_for_sessions_that_are_there(stricter: dict[str, Any]) -> None:
    app = with_routes(make())
    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/login/ann")
        clock.advance(500)
        await client.get("/set/a/1")
        clock.advance(500)
        other = with_routes(make(**stricter))
        other.sessions._store = store_of(app)
        other.sessions.clock = app.sessions.clock
        async with TestClient(other, cookies=dict(client.cookies)) as elsewhere:
            assert (await elsewhere.get("/who")).json()["user"] is None
            assert list(await other.sessions.list("ann")) == []
        assert (await client.get("/who")).json()["user"] == "ann"


async def test_the_store_knows_when_a_session_ends() -> None:
    """So that a store with a clock of its own, or one that purges, needs no more."""
    app = with_routes(make(idle_seconds=100, lifetime_seconds=150))
    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/login/ann")
        (info,) = await app.sessions.list("ann")
        assert info.expires == clock.now + 100
        for path in ("/set/a/1", "/read", "/rotate"):
            clock.advance(20)
            await client.get(path)
            (info,) = await app.sessions.list("ann")
            assert (info.seen, info.expires) == (clock.now, min(clock.now + 100, info.created + 150))
        assert info.expires == info.created + 150


async def test_use_is_noted_seldom_and_without_a_write() -> None:
    calls: list[str] = []

    class Counting(MemorySessionStore):
        async def touch(self, key: bytes, seen: float, expires: float, now: float) -> bool:
            calls.append("touch")
            return await super().touch(key, seen, expires, now)

        async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
            calls.append("replace")
            return await super().replace(key, session, expected, now)

    app = with_routes(with_store(Counting()))
    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/set/a/1")
        for _ in range(10):
            clock.advance(IDLE / 100)
            await client.get("/read")
        assert calls == ["touch"]
        clock.advance(IDLE / 5)
        await client.get("/set/a/2")
        assert calls == ["touch", "replace"]
        await client.get("/set/a/2")
        assert calls == ["touch", "replace"]


async def test_expired_sessions_are_purged_while_the_application_runs(caplog: pytest.LogCaptureFixture) -> None:
    app = with_routes(make(purge_seconds=0.01))
    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/set/a/1")
        clock.advance(IDLE + 1)
        with anyio.fail_after(30):
            while len(store_of(app)):  # noqa: ASYNC110
                await anyio.sleep(0.01)
    # Leaving has ended the task.


# When it is saved


@pytest.mark.parametrize(("path", "saved"), [
    ("/status/200", True), ("/status/302", True), ("/status/404", True), ("/raise/401", True),
    ("/status/500", False), ("/raise/503", False),
])  # fmt: skip
async def test_changes_are_saved_unless_the_server_failed(path: str, saved: bool) -> None:
    app = with_routes(make())
    async with TestClient(app, raise_errors=False) as client:
        assert bool(set_cookies(await client.get(path))) is saved
        assert ((await client.get("/read")).json() != {}) is saved


async def test_changes_are_saved_before_the_response_is_sent() -> None:
    app = with_routes(make())

    @app.get("/stream")
    async def stream(session: Session) -> StreamingResponse:
        session["a"] = "early"

        async def pieces() -> AsyncIterator[str]:
            assert len(store_of(app)) == 1
            yield "x"
            with pytest.raises(SessionError, match=r"session\.saving"):
                session["a"] = "late"
            async with session.saving():
                session["a"] = "later"
            yield "y"

        return StreamingResponse(pieces())

    async with TestClient(app) as client:
        assert (await client.get("/stream")).text == "xy"
        assert (await client.get("/read")).json() == {"a": "later"}


async def test_a_session_cannot_begin_when_the_response_is_on_its_way() -> None:
    app = make()

    @app.get("/stream")
    async def stream(session: Session) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            for change in (session.bind("ann"), session.rotate()):
                if session.is_new and change.__name__ == "rotate":
                    await change
                else:
                    with pytest.raises(SessionError, match="before its response is sent"):
                        await change
            with pytest.raises(SessionError, match="before its response is sent"):
                async with session.saving():
                    session["a"] = 1
            assert len(session) == 0
            yield "x"

        return StreamingResponse(pieces())

    async with TestClient(app) as client:
        assert (await client.get("/stream")).text == "x"
        assert len(store_of(app)) == 0


async def test_loading_it_when_the_response_is_on_its_way_is_an_error() -> None:
    app = make()

    @app.get("/stream")
    async def stream(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "x"
            await request.session

        return StreamingResponse(pieces())

    async with TestClient(app) as client:
        with pytest.raises(Exception, match="on its way"):
            await client.get("/stream")


async def test_what_finishes_the_response_may_still_change_it() -> None:
    app = with_routes(make())

    @app.get("/late")
    async def late(request: Request, session: Session) -> None:
        def finish(request: Request, response: Response) -> None:
            session["late"] = 1

        request.on_response(finish)

    async with TestClient(app) as client:
        assert len(set_cookies(await client.get("/late"))) == 1
        assert (await client.get("/read")).json() == {"late": 1}


async def test_saving_now_outlasts_the_failure_of_the_request() -> None:
    app = with_routes(make())

    @app.get("/fail")
    async def fail(session: Session) -> None:
        session["a"] = 1
        await session.save()
        session["b"] = 2
        raise RuntimeError

    async with TestClient(app, raise_errors=False) as client:
        assert len(set_cookies(await client.get("/fail"))) == 1
        assert (await client.get("/read")).json() == {"a": 1}


async def test_a_block_of_saving_that_raises_changes_nothing() -> None:
    app = with_routes(make())

    async def change(session: Session) -> None:
        async with session.saving():
            session["list"].append(2)
            session["more"] = 1
            raise ValueError("no")

    @app.get("/fail")
    async def fail(session: Session) -> dict[str, Any]:
        session["list"] = [1]
        await session.save()
        with pytest.raises(ValueError, match="no"):
            await change(session)
        return dict(session.items())

    async with TestClient(app) as client:
        assert (await client.get("/fail")).json() == {"list": [1]}
        assert (await client.get("/read")).json() == {"list": [1]}


# WebSockets


async def test_a_websocket_reads_its_session_and_saves_explicitly() -> None:
    app = with_routes(make())

    @app.websocket("/ws")
    async def ws(socket: WebSocket, session: Session) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            if text == "read":
                await socket.send_json(session["a"])
            elif text == "write":
                with pytest.raises(SessionError, match=r"session\.saving"):
                    session["a"] = "2"
                async with session.saving():
                    session["a"] = "2"
                await socket.send_json("done")
            elif text == "reload":
                await session.reload()
                await socket.send_json([session.user, session.get("a")])
            elif text == "rotate":
                with pytest.raises(SessionError, match="in an HTTP request"):
                    await session.rotate()
                await socket.send_json("refused")
            elif text == "destroy":
                await session.destroy()
                await socket.send_json("destroyed")

    async with TestClient(app) as client:
        await client.get("/login/ann")
        await client.get("/set/a/1")

        async with client.websocket("/ws") as socket:

            async def ask(text: str) -> Any:
                await socket.send_text(text)
                return await socket.receive_json()

            assert await ask("read") == "1"
            assert await ask("write") == "done"
            assert (await client.get("/read")).json() == {"a": "2"}
            await client.get("/set/a/3")
            assert await ask("reload") == ["ann", "3"]
            assert await ask("rotate") == "refused"
            assert await ask("destroy") == "destroyed"
            assert (await client.get("/who")).json()["user"] is None


async def test_a_websocket_learns_that_its_session_was_ended_and_cannot_begin_one() -> None:
    app = with_routes(make())

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        session = await socket.session
        await socket.accept()
        await socket.receive_text()
        await session.reload()
        if session.user is None and not session.is_new:
            raise AssertionError
        async with session.saving():
            session["a"] = 1
        await socket.send_json([session.user, len(store_of(app))])

    async with TestClient(app) as client:
        await client.get("/login/ann")
        async with client.websocket("/ws") as socket:
            await app.sessions.end("ann")
            await socket.send_text("go")
            assert await socket.receive_json() == [None, 0]
        client.cookies.clear()

        async def begin() -> None:
            async with client.websocket("/ws") as socket:
                await socket.send_text("go")
                await socket.receive_json()

        with pytest.raises(SessionError, match="in an HTTP request"):
            await begin()


async def test_connecting_a_websocket_is_use() -> None:
    app = with_routes(make(idle_seconds=100))

    @app.websocket("/ws")
    async def ws(socket: WebSocket, session: Session) -> None:
        await socket.accept()
        await socket.send_json(session.user)

    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/login/ann")
        clock.advance(60)
        async with client.websocket("/ws") as socket:
            assert await socket.receive_json() == "ann"
        clock.advance(60)
        assert (await client.get("/who")).json()["user"] == "ann"


# A store that is down


def with_store(store: object, **settings: Any) -> Covet:
    """An application whose sessions are in a store of the test's own."""

    class Stores:
        @hookimpl
        def covet_session_stores(self) -> dict[str, Backend]:
            return {"own": Backend(lambda app, alias, settings: store)}

    return plugin_sandbox("sessions", Stores(), settings={"sessions": {"store": "own", **settings}})


class Failing(MemorySessionStore):
    """Fails or hangs in the methods that are named in `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.hang = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name in ("broken", "hang", "shared") or name not in self.broken:
            return found

        async def fail(*args: Any) -> Any:
            if self.hang:
                await anyio.sleep_forever()
            raise OSError("no route to host")

        return fail


@pytest.mark.parametrize("hang", [False, True])
@pytest.mark.parametrize(("broken", "path"), [
    ("load", "/who"), ("create", "/set/a/1"), ("replace", "/set/b/1"), ("rotate", "/login/ann"), ("delete", "/logout"),
])  # fmt: skip
async def test_a_store_that_is_down_fails_the_request(
    broken: str, path: str, hang: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = Failing()
    app = with_routes(with_store(store, timeout_seconds=0.05))
    async with TestClient(app) as client:
        if broken != "create":
            await client.get("/set/a/1")
        store.broken, store.hang = {broken}, hang
        got = await client.get(path)
        assert got.status_code == 503
        assert (set_cookies(got), got.headers["retry-after"]) == ([], "5")
        assert got.headers["vary"] == "Cookie"
        assert ("did not answer in time" if hang else "no route to host") in caplog.text
        assert "no route" not in got.text
        store.broken = set()
        # Nothing is lost for it.
        if broken != "create":
            assert (await client.get("/read")).json() == {"a": "1"}


class AtHand(MemorySessionStore):
    """As somebody else's store that has its sessions at hand."""

    error: Exception | None = None

    def load(self, key: bytes, now: float) -> Ready[StoredSession | None]:
        if self.error is not None:
            raise self.error
        return Ready(self._sessions.get(key))


async def test_a_store_that_has_its_sessions_at_hand_need_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    assert await Ready(5) == 5
    store = AtHand()
    app = with_routes(with_store(store))
    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/set/a/1")
        assert (await client.get("/read")).json() == {"a": "1"}
        store.error = OSError("no such shelf")
        got = await client.get("/read")
        assert (got.status_code, "no such shelf" in caplog.text, "shelf" in got.text) == (503, True, False)
        store.error = None
        # Whether it has expired is not left to the store.
        clock.advance(IDLE)
        assert (await client.get("/read")).json() == {}


async def test_what_a_subclass_does_in_place_of_a_stores_quick_answer_counts() -> None:
    class Gone(MemorySessionStore):
        async def load(self, key: bytes, now: float) -> StoredSession | None:
            await anyio.lowlevel.checkpoint()
            assert await super().load(key, now) is not None
            return None

    app = with_routes(with_store(Gone()))
    async with TestClient(app) as client:
        await client.get("/set/a/1")
        assert (await client.get("/read")).json() == {}


async def test_use_that_cannot_be_noted_does_not_fail_the_request(caplog: pytest.LogCaptureFixture) -> None:
    store = Failing()
    app = with_routes(with_store(store))
    clock = Clock(app)
    async with TestClient(app) as client:
        await client.get("/set/a/1")
        clock.advance(IDLE / 2)
        store.broken = {"touch"}
        assert (await client.get("/read")).json() == {"a": "1"}
        assert "may end early" in caplog.text


async def test_a_purge_that_fails_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    store = Failing()
    app = with_routes(with_store(store, purge_seconds=0.005))
    store.broken = {"purge"}
    async with TestClient(app):
        with anyio.fail_after(30):
            while caplog.text.count("is tried again") < 2:  # noqa: ASYNC110
                await anyio.sleep(0.01)


# Several processes


async def test_a_store_of_one_process_warns_where_there_are_several(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"server": {"workers": 3}}
    app = with_routes(plugin_sandbox("sessions", settings=settings))
    async with TestClient(app):
        # A handler asks for a session.
        assert "workers = 3" in caplog.text
    caplog.clear()

    quiet = plugin_sandbox("sessions", settings=settings)

    @quiet.get("/")
    async def index(request: Request) -> None:
        (await request.session)["a"] = 1

    async with TestClient(quiet) as client:
        assert caplog.text == ""
        await client.get("/")
        await client.get("/")
        assert caplog.text.count("workers = 3") == 1


# The plugin


async def test_what_the_plugin_hands_out_can_be_overridden_in_tests() -> None:
    from covet.builtin.sessions import load_session

    app = with_routes(make())

    async def signed_in(request: Request) -> Session:
        session = await request.session
        await session.bind("tester")
        return session

    async with TestClient(app, overrides={load_session: signed_in}) as client:
        assert (await client.get("/who")).json()["user"] == "tester"
