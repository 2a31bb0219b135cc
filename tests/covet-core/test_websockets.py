"""WebSockets: the handshake, messages, closing, and what happens when either side goes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import (
    ConfigurationError,
    Cookie,
    Covet,
    CovetError,
    Depends,
    Header,
    HTTPError,
    Limits,
    Router,
    WebSocket,
    WebSocketDisconnected,
    current_app,
)
from covet.context import current_request
from covet.testing import TestClient, TestWebSocket, WebSocketDenied
from covet.websocket_serving import OpenSockets

pytestmark = pytest.mark.anyio


def make_app(**settings: Any) -> Covet:
    return Covet(settings, installed_plugins=False)


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


@dataclass
class Point:
    x: int
    y: int


# The handshake


async def test_parameters_come_by_signature() -> None:
    app = make_app()
    router = Router("/rooms")

    def page(number: int = 1) -> int:
        return number * 10

    @router.websocket("/{room}/{day:int}")
    async def join(
        room: str,
        day: int,
        socket: WebSocket,
        start: Annotated[int, Depends(page)],
        q: str = "none",
        user_agent: Annotated[str, Header()] = "",
        session: Annotated[str, Cookie()] = "",
    ) -> None:
        await socket.accept()
        assert current_app() is app
        assert current_request() is socket
        await socket.send_json([room, day, start, q, user_agent, session, socket.path_params])

    app.include(router)
    async with (
        TestClient(app, cookies={"session": "abc"}, headers={"user-agent": "test"}) as client,
        client.websocket("/rooms/blue/7", params={"q": "x", "number": 3}) as socket,
    ):
        expected = ["blue", 7, 30, "x", "test", "abc", {"room": "blue", "day": 7}]
        assert await socket.receive_json() == expected


async def test_what_the_handshake_lacks_refuses_it_with_every_fault() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket, n: int, token: Annotated[str, Header()]) -> None:
        raise AssertionError("never called")

    async with TestClient(app) as client:
        with pytest.raises(WebSocketDenied, match="with status 422") as refused:
            async with client.websocket("/?n=many"):
                pass
    assert {fault["in"] for fault in refused.value.response.json()["errors"]} == {"query", "header"}


def test_a_handshake_has_no_body() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket, point: Point) -> None: ...

    with pytest.raises(ConfigurationError, match=r"handler.*point"):
        app.build()


async def test_subprotocols_and_headers_of_the_answer() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        chosen = next((name for name in ("v2", "v1") if name in socket.subprotocols), None)
        await socket.accept(chosen, headers={"set-cookie": "seen=yes; Path=/"})
        assert socket.subprotocol == chosen

    async with TestClient(app) as client:
        async with client.websocket("/", subprotocols=["v1", "v2"]) as socket:
            assert socket.subprotocol == "v2"
        assert client.cookies["seen"] == "yes"
        async with client.websocket("/") as socket:
            assert socket.subprotocol is None


async def test_a_subprotocol_that_is_no_token_is_never_answered_with() -> None:
    """A worker of granian once died of it."""
    app = make_app()
    offered: list[list[str]] = []

    @app.websocket("/")
    async def handler(socket: WebSocket, choose: str = "") -> None:
        offered.append(socket.subprotocols)
        await socket.accept(choose or next(iter(socket.subprotocols), None))

    junk = ["caf\xe9", "", "a b", "a\r\nx: y", "\0", "\udcff", "good"]
    async with TestClient(app, raise_errors=False) as client:
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": junk}
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        assert offered == [["good"]]
        assert sent[0]["subprotocol"] == "good"
        for choice in ("caf\xe9", "other"):
            with pytest.raises(WebSocketDenied, match="status 500"):
                async with client.websocket("/", params={"choose": choice}, subprotocols=["v1"]):
                    pass


async def test_headers_of_the_answer_are_checked() -> None:
    app = make_app()
    told: list[str] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        for headers in ({"x": "a\r\nb"}, {"bad name": "x"}, {"Sec-WebSocket-Protocol": "v1"}):
            with pytest.raises(ValueError, match=r".") as refused:
                await socket.accept(headers=headers)
            told.append(str(refused.value))
        await socket.accept()

    async with TestClient(app) as client, client.websocket("/"):
        pass
    assert told[2] == "the subprotocol is an argument of accept(), not a header"


@pytest.mark.parametrize("offered", [True, False])
async def test_a_handshake_is_refused_with_a_status_where_the_server_can(offered: bool) -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        raise HTTPError(401, "who are you?", headers={"www-authenticate": "Bearer"})

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    if offered:
        scope["extensions"] = {"websocket.http.response": {}}
    await app(scope, receive, send)
    if offered:
        assert [message["type"] for message in sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert sent[0]["status"] == 401
        assert (b"www-authenticate", b"Bearer") in sent[0]["headers"]
        assert msgspec.json.decode(sent[1]["body"])["detail"] == "who are you?"
    else:
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": "who are you?"}]


async def test_a_browser_is_refused_with_a_page() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        raise HTTPError(403, "<b>no</b>")

    async with TestClient(app) as client:
        with pytest.raises(WebSocketDenied) as refused:
            async with client.websocket("/", headers={"accept": "text/html"}):
                pass
    assert "&lt;b&gt;no" in refused.value.response.text


async def test_no_route_is_a_404_and_closing_before_accepting_a_403() -> None:
    app = make_app()

    @app.websocket("/shy")
    async def shy(socket: WebSocket) -> None:
        await socket.close()

    async with TestClient(app) as client:
        for path, status in (("/nowhere", 404), ("/shy", 403), ("/" + "x" * 9000, 414)):
            with pytest.raises(WebSocketDenied) as refused:
                async with client.websocket(path):
                    pass
            assert refused.value.response.status_code == status


async def test_headers_beyond_the_limits_are_refused_before_the_handler() -> None:
    app = make_app(limits={"max_headers": 12, "max_header_bytes": 1000})

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        raise AssertionError("never called")

    async with TestClient(app) as client:
        for headers in ({f"x-{n}": "x" for n in range(12)}, {"x-long": "x" * 1000}):
            with pytest.raises(WebSocketDenied) as refused:
                async with client.websocket("/", headers=headers):
                    pass
            assert refused.value.response.status_code == 431


@pytest.mark.parametrize(
    ("origin", "allowed", "passes"),
    [
        (None, (), True),
        ("https://localhost", (), True),
        ("HTTPS://LocalHost", (), True),
        ("http://localhost", (), True),
        ("https://localhost:8443", (), False),
        ("https://evil.example", (), False),
        ("https://localhost.evil.example", (), False),
        ("https://evil.example/localhost", (), False),
        ("null", (), False),
        ("", (), False),
        ("https://app.example", ("https://app.example",), True),
        ("https://app.example", "https://app.example", True),
        ("https://app.example", ("https://App.example",), True),
        ("http://app.example", ("https://app.example",), False),
        ("https://sub.app.example", ("https://app.example",), False),
        ("https://localhost", ("https://app.example",), True),
        ("https://evil.example", ("*",), True),
        ("null", ("*",), True),
    ],
)
async def test_pages_of_other_origins_may_not_connect(origin: str | None, allowed: Any, passes: bool) -> None:
    """RFC 6455 section 10.2, ASVS 4.4.2: cookies come along whichever page a script is of."""
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept(origins=allowed)

    async with TestClient(app) as client:
        headers = {} if origin is None else {"origin": origin}
        if passes:
            async with client.websocket("/", headers=headers):
                pass
        else:
            with pytest.raises(WebSocketDenied) as refused:
                async with client.websocket("/", headers=headers):
                    pass
            assert refused.value.response.status_code == 403


async def test_several_origins_and_what_is_no_origin_are_refused() -> None:
    app = make_app()
    told: list[str] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        for origin in ("https://a.example/", "a.example", "https://a.example/path"):
            with pytest.raises(ValueError, match="is no origin") as refused:
                await socket.accept(origins=[origin])
            told.append(str(refused.value))
        socket.scope["headers"] += [(b"origin", b"https://localhost"), (b"origin", b"https://evil.example")]
        socket.rebind(socket.scope, socket.receive)
        await socket.accept()

    async with TestClient(app) as client:
        with pytest.raises(WebSocketDenied) as denied:
            async with client.websocket("/"):
                pass
    assert denied.value.response.status_code == 400
    assert told[0] == "'https://a.example/' is no origin: write scheme://host or scheme://host:port, without a path"


async def test_calls_in_the_wrong_order_say_so() -> None:
    app = make_app()
    told: list[str] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        async def wrong(call: Any, *arguments: Any) -> None:
            with pytest.raises(CovetError) as refused:
                await call(*arguments)
            told.append(str(refused.value))

        await wrong(socket.receive_message)
        await wrong(socket.send_text, "x")
        assert repr(socket) == "<WebSocket / connecting>"
        await socket.accept()
        await wrong(socket.accept)
        await socket.close()
        await wrong(socket.send_text, "x")
        await wrong(socket.receive_message)
        await socket.close()
        assert [text async for text in socket.iter_text()] == []

    async with TestClient(app) as client, client.websocket("/") as socket:
        assert [message async for message in socket] == []
    assert told == [
        "cannot receive from the WebSocket /: it is connecting; call accept() first",
        "cannot send to the WebSocket /: it is connecting; call accept() first",
        "cannot accept the WebSocket /: it is open; it was accepted before",
        "cannot send to the WebSocket /: it is closed",
        "cannot receive from the WebSocket /: it is closed",
    ]


# Messages


async def test_text_bytes_and_json_go_both_ways() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text() + "!")
        await socket.send_bytes(await socket.receive_bytes() + b"!")
        await socket.send_bytes(memoryview(b"view"))
        point = await socket.receive_json(Point)
        assert isinstance(point, Point)
        await socket.send_json(Point(point.y, point.x))
        assert await socket.receive_json() == {"any": [1, None]}
        assert await socket.receive_json(list[int]) == [1, 2]

    async with TestClient(app) as client, client.websocket("/") as socket:
        await socket.send_text("h\xe9\U0001f600\0")
        assert await socket.receive_text() == "h\xe9\U0001f600\0!"
        await socket.send_bytes(b"\0\xff")
        assert await socket.receive_bytes() == b"\0\xff!"
        assert await socket.receive_bytes() == b"view"
        await socket.send_json({"x": 1, "y": 2})
        assert await socket.receive_json(Point) == Point(2, 1)
        await socket.send_json({"any": [1, None]})
        await socket.send_bytes(b"[1, 2]")


async def test_only_text_is_text_and_only_bytes_are_bytes() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        with pytest.raises(TypeError, match="send_text sends str, not bytes"):
            await socket.send_text(b"x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="send_bytes sends bytes, not str"):
            await socket.send_bytes("x")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await socket.send_json(object())

    async with TestClient(app) as client, client.websocket("/"):
        pass


@pytest.mark.parametrize(
    ("receive", "message", "code", "reason"),
    [
        ("receive_text", b"x", 1003, "a text message is expected, and this one is binary"),
        ("receive_bytes", "x", 1003, "a binary message is expected, and this one is text"),
        ("receive_point", "{", 1007, None),
        ("receive_point", b"\xff", 1007, None),
        ("receive_point", '{"x": 1}', 1007, None),
        ("receive_point", "[" * 100_000, 1007, None),
        ("receive_text", "x" * 1001, 1009, "a message of 1001 bytes is too large; 1000 are accepted here"),
        ("receive_text", "\xe9" * 501, 1009, "a message of 1002 bytes is too large; 1000 are accepted here"),
        ("receive_bytes", b"x" * 1001, 1009, "a message of 1001 bytes is too large; 1000 are accepted here"),
    ],
)
async def test_what_the_peer_does_wrong_closes_with_the_code_that_says_so(
    receive: str, message: str | bytes, code: int, reason: str | None
) -> None:
    app = make_app()

    @app.websocket("/", limits=Limits(max_body=1000 if reason else 10**6))
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        if receive == "receive_point":
            await socket.receive_json(Point)
        else:
            await getattr(socket, receive)()

    async with TestClient(app) as client, client.websocket("/") as socket:
        await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))
        with pytest.raises(WebSocketDisconnected) as closed:
            await socket.receive_text()
    assert closed.value.code == code
    assert closed.value.reason == reason if reason else closed.value.reason
    assert len(closed.value.reason.encode()) <= 123


async def test_a_handler_may_go_on_after_a_wrong_message() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        points = socket.iter_json(Point)
        while True:
            try:
                point = await anext(points)
            except HTTPError as error:
                await socket.send_json(error.problem()["status"])
            except StopAsyncIteration:
                break
            else:
                await socket.send_json(point.x)

    async with TestClient(app) as client, client.websocket("/") as socket:
        for sent in ('{"x": 1, "y": 2}', "not json", '{"x": 1}', '{"x": 3, "y": 4}'):
            await socket.send_text(sent)
        assert [await socket.receive_json() for _ in range(4)] == [1, 400, 422, 3]


async def test_iteration_may_be_left_early_and_taken_up_again() -> None:
    """A generator would have to be closed; trio warns of one that is not."""
    app = make_app()
    got: list[Any] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            got.append(text)
            break
        async for data in socket.iter_bytes():
            got.append(data)
            break
        async for value in socket.iter_json(list[int]):
            got.append(value)

    async with TestClient(app) as client, client.websocket("/") as socket:
        await socket.send_text("one")
        await socket.send_bytes(b"two")
        await socket.send_json([3])
        await socket.send_json([4])
    assert got == ["one", b"two", [3], [4]]


@given(reason=st.text(max_size=200), status=st.integers(400, 599))
def test_every_reason_fits_into_a_close_frame(reason: str, status: int) -> None:
    from covet.websockets import _shortened

    short = _shortened(reason.encode("utf-8", "replace").decode())
    assert len(short.encode()) <= 123
    assert reason.encode("utf-8", "replace").decode().startswith(short)


# Closing


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1012, 1014, 3000, 4999])
async def test_the_application_closes_with_code_and_reason(code: int) -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(code, "bye")

    async with TestClient(app) as client, client.websocket("/") as socket:
        with pytest.raises(WebSocketDisconnected) as closed:
            await socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (code, "bye")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
async def test_codes_that_nobody_may_send_are_refused(code: int) -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        with pytest.raises(ValueError, match=f"cannot be closed with code {code}"):
            await socket.close(code)
        with pytest.raises(ValueError, match="more than 123 bytes"):
            await socket.close(1000, "\xe9" * 62)
        assert socket.phase == "open"

    async with TestClient(app) as client, client.websocket("/"):
        pass


async def test_what_a_handler_leaves_open_is_closed_with_1000() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()

    async with TestClient(app) as client, client.websocket("/") as socket:
        with pytest.raises(WebSocketDisconnected) as closed:
            await socket.receive_text()
    assert closed.value.code == 1000


@pytest.mark.parametrize(
    ("status", "code"), [(400, 1007), (422, 1007), (413, 1009), (415, 1003), (403, 1008), (429, 1008), (503, 1011)]
)
async def test_an_http_error_after_accepting_closes_with_the_code_that_fits(status: int, code: int) -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        raise HTTPError(status, "because")

    async with TestClient(app) as client, client.websocket("/") as socket:
        with pytest.raises(WebSocketDisconnected) as closed:
            await socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (code, "because")


@pytest.mark.parametrize("accepted", [True, False])
async def test_an_error_of_the_handler_is_logged_and_told_as_1011_or_500(
    accepted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        if accepted:
            await socket.accept()
        raise RuntimeError("the password is hunter2")

    async with TestClient(app, raise_errors=False) as client:
        if accepted:
            async with client.websocket("/") as socket:
                with pytest.raises(WebSocketDisconnected) as closed:
                    await socket.receive_text()
            assert closed.value.code == 1011
            assert "hunter2" not in closed.value.reason
        else:
            with pytest.raises(WebSocketDenied) as refused:
                async with client.websocket("/"):
                    pass
            assert refused.value.response.status_code == 500
            assert "hunter2" not in refused.value.response.text
    assert "hunter2" in caplog.text
    assert "the WebSocket handler of / failed" in caplog.text


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([WebSocketDisconnected(1001)], None),
        ([HTTPError(403, "no")], 1008),
        ([WebSocketDisconnected(1001), HTTPError(403, "no")], 1008),
        ([ExceptionGroup("inner", [HTTPError(403, "no")])], 1008),
        ([HTTPError(403, "no"), ValueError("boom")], 1011),
    ],
)
async def test_a_group_of_a_handlers_own_tasks_says_what_is_in_it(
    errors: list[Exception], code: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """`async with create_task_group()` is how a handler sends while it receives; what leaves it is a group."""
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        if code is None:
            async with anyio.create_task_group() as group:
                group.start_soon(socket.receive_text)
                await anyio.sleep(60)
        raise ExceptionGroup("of tasks", errors)

    async with TestClient(app, raise_errors=False) as client, client.websocket("/") as socket:
        if code is None:
            await socket.close(1001)
        else:
            with pytest.raises(WebSocketDisconnected) as closed:
                await socket.receive_text()
            assert closed.value.code == code
    assert ("failed" in caplog.text) is (code == 1011)


# The peer leaves


@pytest.mark.parametrize("where", ["accept", "receive", "send", "iterate", "close", "refuse"])
@pytest.mark.parametrize("how", ["closed", "broken"])
async def test_the_peer_may_leave_at_every_await(where: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    log: list[Any] = []
    gone = False

    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("cleaned up")

    @app.websocket("/")
    async def handler(socket: WebSocket, d: Annotated[None, Depends(dependency, scope="request")]) -> None:
        nonlocal gone
        try:
            if where == "accept":
                gone = True
            await socket.accept()
            gone = True
            if where == "receive":
                await socket.receive_text()
            elif where == "send":
                await socket.send_text("x")
            elif where == "iterate":
                log.extend([text async for text in socket.iter_text()])
            elif where == "close":
                await socket.close()
            else:
                raise HTTPError(403, "no")
        except WebSocketDisconnected as left:
            log.append(left.code)
            with pytest.raises(WebSocketDisconnected):
                await socket.send_text("x")
            with pytest.raises(WebSocketDisconnected):
                await socket.receive_text()
            raise

    async def receive() -> Any:
        if not gone or (where != "accept" and socket_phase() == "connecting"):
            return {"type": "websocket.connect"}
        return {"type": "websocket.disconnect", **({"code": 4000, "reason": "bye"} if how == "closed" else {})}

    sent: list[Any] = []

    def socket_phase() -> str:
        return "open" if sent else "connecting"

    async def send(message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        if gone and message["type"] != "websocket.accept":
            raise OSError("gone")
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    code = {"send": [1006], "iterate": [], "close": [], "refuse": []}.get(where, [4000 if how == "closed" else 1005])
    assert log == [*code, "cleaned up"]
    assert "Traceback" not in caplog.text
    assert len(OpenSockets.of(app)) == 0


async def test_cancellation_at_every_await_cleans_up_and_passes_on() -> None:
    """The connection is cancelled at its first await, its second, and so on, until it gets through."""
    app = make_app()
    log: list[str] = []

    async def transaction() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            log.append("rolled back" if not isinstance(error, Exception) else "other")
            raise
        else:
            log.append("committed")

    def in_thread() -> Iterator[None]:
        try:
            yield
        finally:
            log.append("thread out")

    @app.websocket("/")
    async def handler(
        socket: WebSocket,
        a: Annotated[None, Depends(transaction, scope="request")],
        b: Annotated[None, Depends(in_thread)],
    ) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())

    async def serve(stop: int) -> bool:
        """Serve one connection, cancelled at its await number `stop`; whether there was such a one."""
        awaits = 0

        async def step() -> None:
            nonlocal awaits
            if awaits == stop:
                cancelled.cancel()
            awaits += 1
            await anyio.lowlevel.checkpoint()

        messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "x"}])

        async def receive() -> Any:
            await step()
            return next(messages)

        async def send(message: Any) -> None:
            await step()

        with anyio.CancelScope() as cancelled:
            await app({"type": "websocket", "path": "/", "headers": [], "query_string": b""}, receive, send)
        assert len(OpenSockets.of(app)) == 0
        return awaits > stop

    stop = 0
    while await serve(stop):
        assert sorted(log) == ["rolled back", "thread out"], f"cancelled at await {stop}"
        log.clear()
        stop += 1
    assert stop == 5
    assert sorted(log) == ["committed", "thread out"]


async def test_dependencies_hear_of_errors_and_are_cleaned_up_in_reverse() -> None:
    app = make_app()
    log: list[str] = []

    def dependency(name: str) -> Any:
        async def made() -> AsyncIterator[str]:
            try:
                yield name
                log.append(f"{name} out")
            except Exception as error:
                log.append(f"{name} {error}")
                raise

        return made

    first, second = dependency("first"), dependency("second")

    @app.websocket("/{outcome}")
    async def handler(
        outcome: str,
        socket: WebSocket,
        a: Annotated[str, Depends(first, scope="request")],
        b: Annotated[str, Depends(second)],
    ) -> None:
        await socket.accept()
        if outcome != "well":
            raise HTTPError(403, outcome) if outcome == "refused" else RuntimeError(outcome)

    async with TestClient(app, raise_errors=False) as client:
        for outcome in ("well", "refused", "broken"):
            async with client.websocket(f"/{outcome}"):
                pass
    assert log == [
        "second out", "first out",
        "second 403 Forbidden: refused", "first 403 Forbidden: refused",
        "second broken", "first broken",
    ]  # fmt: skip


async def test_a_clean_up_that_fails_after_the_connection_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    async def late() -> AsyncIterator[None]:
        yield
        raise RuntimeError("too late")

    @app.websocket("/")
    async def handler(socket: WebSocket, d: Annotated[None, Depends(late, scope="request")]) -> None:
        await socket.accept()

    async with TestClient(app) as client, client.websocket("/"):
        pass
    assert "too late" in caplog.text


# The application stops


@pytest.mark.parametrize("waits", ["receive", "iterate", "send"])
async def test_draining_closes_open_connections_with_1001(waits: str) -> None:
    app = make_app()
    log: list[Any] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("ready")
        try:
            if waits == "receive":
                await socket.receive_text()
            elif waits == "iterate":
                log.extend([text async for text in socket.iter_text()])
            else:
                while True:
                    await socket.send_text("tick")
                    await anyio.sleep(0.01)
        except WebSocketDisconnected as left:
            log.append(left.code)
        await socket.close()
        log.append("ended well")

    async with TestClient(app) as client, client.websocket("/") as socket:
        assert await socket.receive_text() == "ready"
        await anyio.wait_all_tasks_blocked()
        app.drain.begin()
        with pytest.raises(WebSocketDisconnected) as closed:  # noqa: PT012 - whatever comes before
            while True:
                await socket.receive_text()
        assert (closed.value.code, closed.value.reason) == (1001, "the server is stopping")
        await socket.close()
    assert log == ([] if waits == "iterate" else [1001]) + ["ended well"]


async def test_draining_wakes_who_receives_even_when_the_server_does_not() -> None:
    app = make_app()
    codes: list[int] = []
    sent: list[Any] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive_text()
        except WebSocketDisconnected as left:
            codes.append(left.code)

    connect = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        return next(connect, None) or await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.running(), anyio.create_task_group() as group:
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
        group.start_soon(app, scope, receive, send)
        await anyio.wait_all_tasks_blocked()
        app.drain.begin()
    assert codes == [1001]
    assert sent[-1] == {"type": "websocket.close", "code": 1001, "reason": "the server is stopping"}


async def test_draining_refuses_handshakes_that_are_under_way_and_new_ones() -> None:
    app = make_app()
    asked = anyio.Event()
    go_on = anyio.Event()
    log: list[int] = []

    @app.websocket("/slow")
    async def slow(socket: WebSocket) -> None:
        asked.set()
        await go_on.wait()
        try:
            await socket.accept()
        except WebSocketDisconnected as left:
            log.append(left.code)

    app.websocket("/new")(echo)

    async with TestClient(app) as client, anyio.create_task_group() as group:

        async def connect() -> None:
            with pytest.raises(WebSocketDenied) as refused:
                async with client.websocket("/slow"):
                    pass
            log.append(refused.value.response.status_code)

        group.start_soon(connect)
        await asked.wait()
        app.drain.begin()
        with pytest.raises(WebSocketDenied) as refused:
            async with client.websocket("/new"):
                pass
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"] == "1"
        go_on.set()
    assert log == [1001, 503]


async def test_a_handler_that_does_not_end_is_cancelled_and_named(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(server={"shutdown_timeout": 0.05})
    log: list[str] = []

    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("cleaned up")

    @app.websocket("/deaf")
    async def deaf(socket: WebSocket, d: Annotated[None, Depends(dependency)]) -> None:
        await socket.accept()
        await anyio.sleep_forever()

    async with TestClient(app) as client, client.websocket("/deaf") as socket:
        app.drain.begin()
        with pytest.raises(WebSocketDisconnected):
            await socket.receive_text()
        await socket.ended.wait()
    assert log == ["cleaned up"]
    assert "cancelled at shutdown: the handler of the WebSocket /deaf" in caplog.text


async def test_stopping_waits_for_connections_and_then_forgets_them(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    log: list[str] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            pass
        await anyio.sleep(0.02)
        log.append("handler ended")

    async def serve_until_stopped(connections: int) -> None:
        started = anyio.Event()

        async def serve() -> None:
            async with TestClient(app, lifespan=False) as client, client.websocket("/") as socket:
                started.set()
                with pytest.raises(WebSocketDisconnected) as closed:
                    await socket.receive_text()
                assert closed.value.code == 1001

        async with anyio.create_task_group() as group:
            async with app.running():
                group.start_soon(serve)
                await started.wait()
            log.append("application ended")

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            await serve_until_stopped(1)
    assert log == ["handler ended", "application ended"] * 2
    assert caplog.text == ""


async def test_many_connections_at_once() -> None:
    app = make_app()
    app.websocket("/")(echo)

    async with TestClient(app) as client, anyio.create_task_group() as group:

        async def talk(number: int) -> None:
            async with client.websocket("/") as socket:
                for word in range(5):
                    await socket.send_text(f"{number} {word}")
                    assert await socket.receive_text() == f"{number} {word}"

        for number in range(50):
            group.start_soon(talk, number)
    assert len(OpenSockets.of(app)) == 0


async def test_one_task_receives_while_another_sends() -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        async with anyio.create_task_group() as group:

            async def tick() -> None:
                while True:
                    await socket.send_text("tick")
                    await anyio.sleep(0.005)

            group.start_soon(tick)
            async for text in socket.iter_text():
                await socket.send_text(text)
            group.cancel_scope.cancel()

    async def until(socket: TestWebSocket, wanted: str) -> None:
        while await socket.receive_text() != wanted:
            pass

    async with TestClient(app) as client, client.websocket("/") as socket:
        await until(socket, "tick")
        await socket.send_text("me")
        await until(socket, "me")
        await until(socket, "tick")


async def test_a_handler_that_only_sends_learns_that_the_peer_has_left() -> None:
    """Some servers, granian 2.8 among them, take messages to nobody without a word."""
    app = make_app()
    log: list[Any] = []

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text("tick")
                await anyio.lowlevel.checkpoint()
        except WebSocketDisconnected as left:
            log.append(left.code)

    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}])

    async def receive() -> Any:
        await anyio.lowlevel.checkpoint()
        return next(messages)

    async def send(message: Any) -> None:
        await anyio.lowlevel.checkpoint()

    with anyio.fail_after(5):
        await app({"type": "websocket", "path": "/", "headers": [], "query_string": b""}, receive, send)
    assert log == [1001]


async def test_what_is_received_ahead_is_neither_lost_nor_out_of_order() -> None:
    app = make_app()
    got: list[str] = []
    go_on = anyio.Event()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        for _ in range(3):
            await socket.send_text("x")
        await go_on.wait()
        for _ in range(2):
            await socket.send_text("x")
        with anyio.move_on_after(0.01):
            got.append(await socket.receive_text())
        got.append(await socket.receive_text())
        for _ in range(2):
            await socket.send_text("x")
        await anyio.wait_all_tasks_blocked()
        # Cancelled while the message is on its way: it is still there for the next.
        with anyio.move_on_after(0):
            got.append(await socket.receive_text())
        await socket.send_text("now")
        got.extend([text async for text in socket.iter_text()])

    async with TestClient(app) as client, client.websocket("/") as socket:
        for text in ("1", "2"):
            await socket.send_text(text)
        go_on.set()
        while await socket.receive_text() != "now":
            pass
        await socket.send_text("3")
        await socket.send_text("4")
    assert got == ["1", "2", "3", "4"]


async def test_an_error_of_the_server_while_receiving_ahead_comes_out_where_it_is_received(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("x")
        await socket.send_text("x")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="the server is broken"):
            await socket.receive_text()

    connect = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        for message in connect:
            return message
        raise RuntimeError("the server is broken")

    async def send(message: Any) -> None:
        await anyio.lowlevel.checkpoint()

    await app({"type": "websocket", "path": "/", "headers": [], "query_string": b""}, receive, send)
    assert "Traceback" not in caplog.text
