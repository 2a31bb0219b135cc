"""Dependencies: where they come from, how long they live, in which order they are cleaned up."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import anyio
import pytest

from covet import Covet, Depends, HandlerError, HTTPError, Request, StreamingResponse
from covet.dependencies import enter, leave
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


def make_app() -> Covet:
    return Covet({}, installed_plugins=False)


class Log(list[str]):
    """What happened, in order."""


async def test_plain_async_and_class_providers_with_parameters_of_their_own() -> None:
    app = make_app()
    here = threading.get_ident()

    def in_a_thread(n: int) -> bool:
        return n == 3 and threading.get_ident() != here

    async def in_the_loop(q: str = "") -> str:
        return q + "!"

    class Page:
        def __init__(self, n: int, size: int = 10) -> None:
            self.offset = n * size

    @app.get("/")
    async def show(
        a: Annotated[bool, Depends(in_a_thread)],
        b: Annotated[str, Depends(in_the_loop)],
        c: Annotated[Page, Depends(Page)],
    ) -> Any:
        return [a, b, c.offset]

    async with TestClient(app) as client:
        assert (await client.get("/?n=3&q=x&size=2")).json() == [True, "x!", 6]
        got = await client.get("/?n=x&size=y")
        assert [fault["pointer"] for fault in got.json()["errors"]] == ["/n", "/size"]


async def test_a_dependency_by_type() -> None:
    class Database:
        def __init__(self) -> None:
            self.name = "main"

    class Users:
        def __init__(self, db: Database) -> None:
            self.db = db

    app = make_app()
    app.provide(Database, Depends(Database, scope="app"))
    app.provide(Users, Users)
    seen: list[Database] = []

    @app.get("/")
    async def show(users: Users, db: Database) -> Any:
        seen.append(db)
        return users.db is db

    async with TestClient(app) as client:
        assert (await client.get("/")).json() is True
        await client.get("/")
        assert seen[0] is seen[1], "an application-scoped dependency is made once"


async def test_one_request_makes_a_dependency_once_unless_told_otherwise() -> None:
    app = make_app()
    made: list[int] = []

    async def counter() -> int:
        made.append(1)
        return len(made)

    async def doubled(n: Annotated[int, Depends(counter)]) -> int:
        return 2 * n

    @app.get("/")
    async def show(
        n: Annotated[int, Depends(counter)],
        m: Annotated[int, Depends(doubled)],
        fresh: Annotated[int, Depends(counter, cache=False)],
    ) -> Any:
        return [n, m, fresh]

    async with TestClient(app) as client:
        assert (await client.get("/")).json() == [1, 2, 2]


async def test_clean_up_is_last_in_first_out_and_before_the_response_for_function_scope() -> None:
    app = make_app()
    log = Log()

    async def outer() -> AsyncIterator[str]:
        log.append("outer in")
        yield "outer"
        log.append("outer out")

    def inner(above: Annotated[str, Depends(outer)]) -> Iterator[str]:
        log.append(f"inner in, has {above}")
        yield "inner"
        log.append("inner out")

    async def late(request: Request) -> AsyncIterator[str]:
        log.append("late in")
        yield "late"
        log.append("late out")

    @app.get("/")
    async def show(
        a: Annotated[str, Depends(inner)], b: Annotated[str, Depends(late, scope="request")]
    ) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            log.append("sending")
            yield b"x"

        log.append("handler")
        return StreamingResponse(body())

    async with TestClient(app) as client:
        await client.get("/")
    assert log == [
        "outer in", "inner in, has outer", "late in", "handler", "inner out", "outer out", "sending", "late out",
    ]  # fmt: skip


async def test_a_failing_clean_up_of_function_scope_fails_the_request() -> None:
    app = make_app()

    async def transaction() -> AsyncIterator[None]:
        yield
        raise HTTPError(409, "the commit failed")

    @app.post("/")
    async def create(tx: Annotated[None, Depends(transaction)]) -> Any:
        return "created"

    async with TestClient(app) as client:
        got = await client.post("/")
        assert (got.status_code, got.json()["detail"]) == (409, "the commit failed")


async def test_a_failing_clean_up_of_request_scope_is_logged_since_the_response_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()

    async def late() -> AsyncIterator[None]:
        yield
        raise RuntimeError("too late")

    @app.get("/")
    async def show(x: Annotated[None, Depends(late, scope="request")]) -> Any:
        return "sent"

    with caplog.at_level(logging.ERROR):
        async with TestClient(app) as client:
            assert (await client.get("/")).text == "sent"
    assert "too late" in caplog.text


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_an_error_is_thrown_into_every_dependency_and_cannot_be_swallowed(kind: str) -> None:
    app = make_app()
    log = Log()

    async def first() -> AsyncIterator[None]:
        try:
            yield
        except ValueError as error:
            log.append(f"first saw {error}")
            raise

    async def swallows() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            log.append("swallowed")

    def swallows_in_a_thread() -> Iterator[None]:
        try:
            yield
        except ValueError:
            log.append("swallowed")

    @app.get("/")
    async def show(
        a: Annotated[None, Depends(first)],
        b: Annotated[None, Depends(swallows if kind == "async" else swallows_in_a_thread)],
    ) -> Any:
        raise ValueError("boom")

    @app.exception_handler(ValueError)
    async def handled(request: Request, error: ValueError) -> Any:
        return f"handled {error}", 400

    async with TestClient(app) as client:
        got = await client.get("/")
        assert (got.status_code, got.text) == (400, "handled boom")
    assert log == ["swallowed", "first saw boom"]


async def test_a_dependency_may_turn_an_error_into_another() -> None:
    app = make_app()

    async def translate() -> AsyncIterator[None]:
        try:
            yield
        except KeyError as error:
            raise HTTPError(404, f"no {error.args[0]}") from error

    @app.get("/")
    async def show(x: Annotated[None, Depends(translate)]) -> Any:
        raise KeyError("thing")

    async with TestClient(app) as client:
        assert (await client.get("/")).json()["detail"] == "no thing"


async def test_a_dependency_that_fails_cleans_up_those_before_it() -> None:
    app = make_app()
    log = Log()

    async def first() -> AsyncIterator[None]:
        yield
        log.append("never: the request failed")

    async def watched() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("first out")

    async def second(x: Annotated[None, Depends(watched)]) -> None:
        raise HTTPError(403, "no")

    @app.get("/")
    async def show(a: Annotated[None, Depends(first)], b: Annotated[None, Depends(second)]) -> Any: ...

    async with TestClient(app) as client:
        assert (await client.get("/")).status_code == 403
    assert log == ["first out"]


async def test_cancellation_reaches_the_dependencies() -> None:
    app = make_app()
    log = Log()

    async def held() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            log.append(type(error).__name__)
            raise

    @app.get("/")
    async def show(x: Annotated[None, Depends(held)]) -> Any:
        await anyio.sleep(60)

    async with TestClient(app) as client:
        with anyio.move_on_after(0.05):
            await client.get("/")
    assert log in (["CancelledError"], ["Cancelled"])


@pytest.mark.parametrize("scope", ["function", "app"])
async def test_a_generator_that_yields_twice_or_never_is_an_error(scope: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def never() -> AsyncIterator[None]:
        return
        yield

    async def twice() -> AsyncIterator[None]:
        yield
        yield

    for provider, told in ((never, "without yielding"), (twice, "more than once")):
        app = make_app()

        async def show(x: Annotated[None, Depends(provider, scope=scope)]) -> Any:
            return "fine"

        show.__annotations__["x"] = Annotated[None, Depends(provider, scope=scope)]
        app.get("/")(show)
        if scope == "app":
            with pytest.raises(HandlerError, match=told):
                async with app.running():
                    pass
        else:
            async with TestClient(app, raise_errors=False) as client:
                assert (await client.get("/")).status_code == 500
            assert told in caplog.text


def test_a_cycle_is_an_error_that_shows_it() -> None:
    app = make_app()

    def a(x: Any) -> None: ...
    def b(x: Any) -> None: ...

    a.__annotations__ = {"x": Annotated[None, Depends(b)]}
    b.__annotations__ = {"x": Annotated[None, Depends(a)]}

    async def show(x: Any) -> None: ...

    show.__annotations__ = {"x": Annotated[None, Depends(a)]}
    app.get("/")(show)
    with pytest.raises(HandlerError, match=r"cycle: .*\.a -> .*\.b -> .*\.a"):
        app.build()


def test_a_dependency_uses_only_what_lives_as_long_as_itself() -> None:
    app = make_app()

    async def short() -> AsyncIterator[None]:
        yield

    async def long(x: Annotated[None, Depends(short)]) -> None: ...

    @app.get("/")
    async def show(x: Annotated[None, Depends(long, scope="request")]) -> None: ...

    with pytest.raises(HandlerError, match=r"scope 'request' and uses .* of scope 'function'"):
        app.build()

    app = make_app()

    async def from_request(q: str) -> None: ...

    @app.get("/")
    async def other(x: Annotated[None, Depends(from_request, scope="app")]) -> None: ...

    with pytest.raises(HandlerError, match="has scope 'app', so its parameter 'q' cannot come from a request"):
        app.build()


async def test_application_scope_is_made_at_start_up_and_cleaned_up_at_shutdown_in_reverse() -> None:
    app = make_app()
    log = Log()

    async def pool() -> AsyncIterator[str]:
        log.append("pool in")
        yield "pool"
        log.append("pool out")

    def cache(p: Annotated[str, Depends(pool, scope="app")]) -> Iterator[str]:
        log.append("cache in")
        yield p + "+cache"
        log.append("cache out")

    @app.get("/")
    async def show(c: Annotated[str, Depends(cache, scope="app")]) -> str:
        return c

    async with TestClient(app) as client:
        assert log == ["pool in", "cache in"]
        assert (await client.get("/")).text == "pool+cache"
    assert log == ["pool in", "cache in", "cache out", "pool out"]


async def test_overrides_hold_while_the_context_lasts() -> None:
    app = make_app()

    async def who() -> str:
        return "somebody"

    @app.get("/")
    async def show(name: Annotated[str, Depends(who)]) -> str:
        return name

    async def admin() -> str:
        return "admin"

    async with TestClient(app) as client:
        assert (await client.get("/")).text == "somebody"
        with app.override({who: admin}):
            assert (await client.get("/")).text == "admin"
            with app.override({who: lambda: "nested"}):
                assert (await client.get("/")).text == "nested"
            assert (await client.get("/")).text == "admin"
        assert (await client.get("/")).text == "somebody"
    async with TestClient(app, overrides={who: admin}) as client:
        assert (await client.get("/")).text == "admin"


async def test_a_type_is_overridden_whatever_provides_it() -> None:
    class Clock:
        def __init__(self, time: str = "noon") -> None:
            self.time = time

    for provider in (Clock, Depends(Clock), Depends(lambda: Clock("one"), thread=False), lambda: Clock("two")):
        app = make_app()
        app.provide(Clock, provider)

        @app.get("/")
        async def show(clock: Clock) -> str:
            return clock.time

        async with TestClient(app, overrides={Clock: lambda: Clock("midnight")}) as client:
            assert (await client.get("/")).text == "midnight"
        async with TestClient(app) as client:
            assert (await client.get("/")).text != "midnight"


async def test_an_authorizing_dependency_runs_before_the_body_is_read() -> None:
    app = make_app()
    log = Log()

    async def authorize() -> None:
        log.append("authorize")
        raise HTTPError(401, "who are you?")

    @app.post("/")
    async def create(body: dict[str, Any], x: Annotated[None, Depends(authorize)]) -> None: ...

    async with TestClient(app) as client:
        got = await client.post("/", content=b"not json", headers={"content-type": "application/json"})
        assert got.status_code == 401
    assert log == ["authorize"]


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize("layered", [False, True])
async def test_a_failed_request_is_never_committed(scope: Any, layered: bool) -> None:
    """Neither is one whose error somebody makes a response of, whichever scope the transaction has."""
    app = make_app()
    log = Log()

    async def transaction() -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            log.append(f"rolled back: {error}")
            raise
        log.append("committed")

    async def show(outcome: str, x: Any) -> str:
        if outcome == "refused":
            raise HTTPError(409, "no")
        if outcome == "handled":
            raise ValueError("handled")
        if outcome == "broken":
            raise RuntimeError("boom")
        return "well"

    show.__annotations__["x"] = Annotated[None, Depends(transaction, scope=scope)]
    app.get("/{outcome}")(show)

    @app.exception_handler(ValueError)
    async def handle(request: Request, error: ValueError) -> Any:
        return "handled", 400

    if layered:

        @app.middleware()
        async def passing(request: Request, call_next: Any) -> Any:
            return await call_next(request)

    async with TestClient(app, raise_errors=False) as client:
        statuses = [
            (await client.get(f"/{outcome}")).status_code for outcome in ("well", "refused", "handled", "broken")
        ]
    assert statuses == [200, 409, 400, 500]
    assert log == ["committed", "rolled back: 409 Conflict: no", "rolled back: handled", "rolled back: boom"]


async def test_a_dependency_that_goes_on_yielding_keeps_no_other_from_its_clean_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()
    log = Log()

    async def first() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("first out")

    async def goes_on() -> AsyncIterator[None]:
        yield
        try:
            yield
        finally:
            log.append("asked to close")
            raise RuntimeError("cannot close")

    def goes_on_in_a_thread() -> Iterator[None]:
        yield
        try:
            yield
        finally:
            log.append("asked to close")
            raise RuntimeError("cannot close")

    @app.get("/async")
    async def show(a: Annotated[None, Depends(first)], b: Annotated[None, Depends(goes_on)]) -> None: ...

    @app.get("/thread")
    async def show_thread(
        a: Annotated[None, Depends(first)], b: Annotated[None, Depends(goes_on_in_a_thread)]
    ) -> None: ...

    async with TestClient(app, raise_errors=False) as client:
        for path in ("/async", "/thread"):
            log.clear()
            assert (await client.get(path)).status_code == 500
            assert log == ["asked to close", "first out"]
    assert "yielded more than once" in caplog.text


@pytest.mark.parametrize("when", ["before", "within"])
async def test_cancellation_does_not_keep_a_plain_generator_from_its_clean_up(when: str) -> None:
    """A worker thread cannot be started while cancelled, and the clean-up needs one."""
    app = make_app()
    log = Log()
    cancelled: list[anyio.CancelScope] = []

    def held() -> Iterator[None]:
        try:
            yield
        finally:
            log.append("out")

    @app.get("/")
    async def show(x: Annotated[None, Depends(held)]) -> str:
        cancelled[0].cancel()
        if when == "within":
            await anyio.sleep_forever()
        return "never sent"

    async with TestClient(app) as client:
        with anyio.CancelScope() as scope:
            cancelled.append(scope)
            await client.get("/")
    assert log == ["out"]


async def test_leaving_runs_every_clean_up_whatever_the_others_raise() -> None:
    log = Log()

    async def fails(name: str) -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append(name)
            raise RuntimeError(name)

    exits: list[Any] = []
    for name in ("a", "b", "c"):
        await enter(exits, fails(name))
    with pytest.raises(RuntimeError, match="a") as raised:
        await leave(exits)
    assert log == ["c", "b", "a"]
    assert exits == []
    told = raised.value.__context__
    assert isinstance(told, RuntimeError)
    assert str(told) == "b"
