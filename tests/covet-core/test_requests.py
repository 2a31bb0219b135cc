"""The request: its head, read within limits, and its body, received within a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.datastructures import Headers
from covet.exceptions import ClientDisconnected, CovetError, HTTPError, ValidationError
from covet.requests import Request, read_body, require_json
from covet.settings import Limits

pytestmark = pytest.mark.anyio

Receive = Callable[[], Awaitable[dict[str, Any]]]
DISCONNECT = {"type": "http.disconnect"}


def chunk(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def messages(*sent: dict[str, Any]) -> Receive:
    """A receive that has the messages ready; after the last it waits for ever, as a server does."""
    left = list(sent)

    async def receive() -> dict[str, Any]:
        if not left:
            await anyio.sleep_forever()
        return left.pop(0)

    return receive


def slowly(*sent: dict[str, Any]) -> Receive:
    """The same, but every message has to be waited for."""
    receive = messages(*sent)

    async def receive_slowly() -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.001)
        return await receive()

    return receive_slowly


class Hanging:
    """A receive that gives messages, then waits for ever; it knows whether it was left running."""

    def __init__(self, *sent: dict[str, Any]) -> None:
        self.left = list(sent)
        self.running = 0
        self.cancelled = 0

    async def __call__(self) -> dict[str, Any]:
        self.running += 1
        try:
            if self.left:
                return self.left.pop(0)
            await anyio.sleep_forever()
            raise AssertionError("unreachable")
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def make_request(
    receive: Receive | None = None,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    limits: Limits | None = None,
    route: Any = None,
    values: tuple[Any, ...] = (),
    **scope: Any,
) -> Request:
    settings = SimpleNamespace(limits=limits or Limits())
    full = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"testserver")] if headers is None else headers,
        "client": ("192.0.2.1", 4711),
        **scope,
    }
    return Request(full, receive or messages(chunk()), SimpleNamespace(settings=settings), route, values)  # type: ignore[arg-type]


def refused(call: Callable[[], object]) -> HTTPError:
    with pytest.raises(HTTPError) as caught:
        call()
    return caught.value


# The head


def test_the_plain_attributes() -> None:
    route = SimpleNamespace(limits=None, param_names=("id", "slug"))
    request = make_request(route=route, values=(7, "x"), method="PUT", path="/a b", scheme="https")
    assert request.method == "PUT"
    assert request.path == "/a b"
    assert request.scheme == "https"
    assert request.path_params == {"id": 7, "slug": "x"}
    assert request.client == ("192.0.2.1", 4711)
    assert repr(request) == "<Request PUT /a b>"
    assert make_request().path_params == {}
    assert make_request(client=None).client is None
    assert make_request(client=["192.0.2.1", 1]).client == ("192.0.2.1", 1)


def test_what_is_parsed_is_parsed_once() -> None:
    request = make_request(headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")], query_string=b"q=1")
    assert request.headers is request.headers
    assert request.query is request.query
    assert request.cookies is request.cookies
    assert request.state is request.state
    assert request.cleanups is request.cleanups == []
    assert request.cookies == {"a": "1", "b": "2"}
    assert request.query["q"] == "1"


def test_a_rebound_request_reads_the_new_scope() -> None:
    request = make_request(headers=[(b"cookie", b"a=1")], query_string=b"q=1")
    before = (request.headers, request.query, request.cookies, request.state, request.id)
    receive = messages()
    request.rebind({**request.scope, "headers": [(b"cookie", b"a=2")], "query_string": b"q=2"}, receive)
    assert (request.cookies, request.query["q"], request.receive) == ({"a": "2"}, "2", receive)
    assert before[0] is not request.headers
    assert before[3:] == (request.state, request.id)


def test_the_limits_of_the_route_go_before_those_of_the_application() -> None:
    own = Limits(max_body=1)
    assert make_request(route=SimpleNamespace(limits=own)).limits is own
    general = Limits(max_body=2)
    assert make_request(limits=general).limits is general
    assert make_request(limits=general, route=SimpleNamespace(limits=None)).limits is general


def test_too_many_headers_are_a_431() -> None:
    request = make_request(headers=[(b"a", b"")] * 101)
    error = refused(lambda: request.headers)
    assert (error.status, error.detail) == (431, "the request has 101 headers; 100 are accepted here")
    assert len(make_request(headers=[(b"a", b"")] * 100).headers.getlist("a")) == 100


def test_too_large_headers_are_a_431() -> None:
    assert make_request(headers=[(b"a", b"x" * 9)], limits=Limits(max_header_bytes=10)).headers
    request = make_request(headers=[(b"a", b"x" * 10)], limits=Limits(max_header_bytes=10))
    assert refused(lambda: request.headers).status == 431
    assert refused(lambda: make_request(headers=[(b"a", b"x" * 40_000)]).cookies).status == 431


def test_an_error_page_can_be_made_when_the_headers_are_refused() -> None:
    request = make_request(headers=[(b"x-request-id", b"abc"), *[(b"a", b"")] * 101])
    assert refused(lambda: request.headers).status == 431
    assert len(request.headers) == 0
    assert request.id == "abc"


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\n", b"a\0b"])
def test_a_header_with_a_line_break_or_nul_is_a_400(value: bytes) -> None:
    assert refused(lambda: make_request(headers=[(b"a", value)]).headers).status == 400


def test_a_long_target_is_a_414() -> None:
    limits = Limits(max_target_bytes=10)
    assert make_request(path="/abc", query_string=b"q=1234", limits=limits).query["q"] == "1234"
    for scope in ({"path": "/abcd"}, {"path": "/a", "raw_path": b"/%41%41"}):
        request = make_request(query_string=b"q=1234", limits=limits, **scope)
        assert refused(lambda request=request: request.query).status == 414  # type: ignore[misc]


def test_the_query_is_bounded_by_its_limit() -> None:
    request = make_request(query_string=b"a&b&c", limits=Limits(max_query_fields=2))
    assert refused(lambda: request.query).status == 400


def test_the_host_is_validated() -> None:
    assert make_request(headers=[(b"host", b"Example.com:8000")]).host == "example.com:8000"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"")],
        [(b"host", b"a.example"), (b"host", b"b.example")],
        [(b"host", b"a.example"), (b"host", b"a.example")],
        [(b"host", b"a.example/login")],
        [(b"host", b"a.example?")],
        [(b"host", b"user@a.example")],
        [(b"host", b"a.example, b.example")],
    ],
)
def test_a_host_that_is_missing_doubled_or_none_is_a_400(headers: list[tuple[bytes, bytes]]) -> None:
    # "BadHost" (CVE-2026-48710 of Starlette) let such a host change what the path seemed to be.
    request = make_request(headers=headers, path="/admin")
    for read in (lambda: request.host, lambda: request.url, lambda: request.base_url):
        error = refused(read)
        assert error.status == 400
        assert "exactly one Host header" in error.detail
    assert request.path == "/admin"


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/", "http://testserver/"),
        ("/a b/é", "http://testserver/a%20b/%C3%A9"),
        ("//evil.example", "http://testserver//evil.example"),
        ("@evil.example", "http://testserver/@evil.example"),
        (":80@evil.example", "http://testserver/:80@evil.example"),
        ("http://evil.example/", "http://testserver/http://evil.example/"),
        ("*", "http://testserver/*"),
        ("", "http://testserver/"),
        ("/a?b#c%2F", "http://testserver/a%3Fb%23c%252F"),
        ("/a\r\n\\b", "http://testserver/a%0D%0A%5Cb"),
        ("/\udcff", "http://testserver/%ED%B3%BF"),
    ],
)
def test_a_path_stays_a_path_in_the_url(path: str, url: str) -> None:
    assert str(make_request(path=path).url) == url


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        (b"", ""),
        (b"a=1&b=%C3%A9", "?a=1&b=%C3%A9"),
        (b"a b#\r\n\xff", "?a%20b%23%0D%0A%FF"),
        (b"100%&%4", "?100%25&%254"),
    ],
)
def test_the_query_in_the_url(query: bytes, sent: str) -> None:
    assert str(make_request(query_string=query).url) == f"http://testserver/{sent}"


def test_the_base_url_is_where_the_application_is_mounted() -> None:
    assert str(make_request(path="/api/x").base_url) == "http://testserver/"
    assert str(make_request(path="/api/x", root_path="/api").base_url) == "http://testserver/api"
    assert str(make_request().base_url.replace(path="/login")) == "http://testserver/login"


@pytest.mark.parametrize("sent", ["abc", "A-Z.0_9", "x" * 128])
def test_a_harmless_request_id_is_taken_over(sent: str) -> None:
    request = make_request(headers=[(b"x-request-id", sent.encode())])
    assert request.id == sent


@pytest.mark.parametrize("sent", [[], [b""], [b"a b"], [b"x" * 129], [b"a\r\nb"], [b"\xff"], [b"a", b"b"]])
def test_any_other_request_id_is_replaced(sent: list[bytes]) -> None:
    request = make_request(headers=[(b"x-request-id", value) for value in sent])
    assert len(request.id) == 32
    assert request.id == request.id
    assert request.id != make_request().id


def test_the_trace_context_comes_from_the_caller_or_is_new() -> None:
    parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    request = make_request(headers=[(b"traceparent", parent)])
    assert request.trace.parent_id == "00f067aa0ba902b7"
    assert request.trace is request.trace
    assert make_request(headers=[(b"traceparent", parent)] * 2).trace.parent_id is None
    assert make_request().trace.parent_id is None


def test_work_after_the_response_is_noted_in_order() -> None:
    request = make_request()
    done: list[object] = []
    request.after(done.append, 1)
    request.after(done.extend, iterable) if (iterable := [2, 3]) else None
    assert done == []
    for task in request.tasks:
        task()
    assert done == [1, 2, 3]


anything = st.binary(max_size=300)
text = st.text(max_size=100)


@given(st.lists(st.tuples(anything | st.sampled_from([b"host", b"cookie", b"traceparent"]), anything)), anything, text)
def test_any_head_is_read_or_refused(headers: list[tuple[bytes, bytes]], query: bytes, path: str) -> None:
    request = make_request(headers=headers, query_string=query, path=path)
    assert request.id
    assert request.trace.trace_id
    for read in ("headers", "query", "cookies", "host", "url", "base_url", "content_length"):
        try:
            getattr(request, read)
        except HTTPError as error:
            assert error.status in (400, 414, 431)  # noqa: PT017 - or nothing is refused


@given(text, anything)
def test_a_url_never_leaves_the_host(path: str, query: bytes) -> None:
    from urllib.parse import urlsplit

    parts = urlsplit(str(make_request(path=path, query_string=query).url))
    assert (parts.scheme, parts.netloc, parts.fragment) == ("http", "testserver", "")


# The body


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_body_that_is_there_is_read_without_suspending_or_a_timer(monkeypatch: Any) -> None:
    timers: list[Any] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_at", lambda *args, **kwargs: timers.append(args))
    with pytest.raises(StopIteration) as done:
        read_body(make_request(messages(chunk(b"all")))).send(None)
    assert done.value.value == b"all"
    assert not timers


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_however_many_wait_there_is_one_timer(monkeypatch: Any) -> None:
    loop = asyncio.get_running_loop()
    set_timers: list[float] = []
    call_at = loop.call_at

    def noted(when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        set_timers.append(when)
        return call_at(when, *args, **kwargs)

    async def too_slow(seconds: float) -> None:
        with pytest.raises(HTTPError, match="did not arrive"):
            await make_request(Hanging(), limits=Limits(body_timeout=seconds)).body()

    monkeypatch.setattr(loop, "call_at", noted)
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(too_slow, 0.02 + number / 10000)
    # One for the first of them, and one for those whose time was not up when it rang.
    assert len([when for when in set_timers if when < math.inf]) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_shorter_time_is_not_kept_waiting_by_a_longer_one() -> None:
    patient = Hanging()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make_request(patient, limits=Limits(body_timeout=60)).body)
        await anyio.lowlevel.checkpoint()
        with anyio.fail_after(5), pytest.raises(HTTPError):
            await make_request(Hanging(), limits=Limits(body_timeout=0.01)).body()
        assert patient.running == 1
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_receive_that_outlives_its_cancellation_gives_its_message() -> None:
    async def stubborn() -> dict[str, Any]:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            return chunk(b"still there")
        raise AssertionError("unreachable")

    assert await make_request(stubborn, limits=Limits(body_timeout=0.01)).body() == b"still there"
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


@pytest.mark.parametrize("receiving", [messages, slowly])
@pytest.mark.parametrize("bodies", [[b""], [b"a"], [b"a", b"b", b"c"], [b"", b"a", b"", b""]])
async def test_a_body_is_the_sum_of_its_chunks(receiving: Callable[..., Receive], bodies: list[bytes]) -> None:
    sent = [chunk(body, more=index < len(bodies) - 1) for index, body in enumerate(bodies)]
    request = make_request(receiving(*sent))
    assert await request.body() == b"".join(bodies)
    assert await request.body() == b"".join(bodies)


async def test_the_keys_of_a_message_are_optional() -> None:
    assert await make_request(messages({"type": "http.request"})).body() == b""
    assert await make_request(slowly({"type": "http.request"})).body() == b""


@pytest.mark.parametrize("receiving", [messages, slowly])
async def test_received_bytes_are_counted(receiving: Callable[..., Receive]) -> None:
    limits = Limits(max_body=4)
    assert await make_request(receiving(chunk(b"abcd")), limits=limits).body() == b"abcd"
    assert await make_request(receiving(chunk(b"ab", more=True), chunk(b"cd")), limits=limits).body() == b"abcd"
    for sent in ([chunk(b"abcde")], [chunk(b"abc", more=True), chunk(b"de")]):
        # An understated Content-Length changes nothing (CVE-2026-33034 of Django).
        request = make_request(receiving(*sent), limits=limits, headers=[(b"content-length", b"1")])
        with pytest.raises(HTTPError, match="larger than the 4 bytes") as error:
            await request.body()
        assert error.value.status == 413
        with pytest.raises(CovetError, match="cut short"):
            await request.body()


async def test_a_body_without_end_is_a_413() -> None:
    async def receive() -> dict[str, Any]:
        return chunk(b"x" * 65536, more=True)

    with pytest.raises(HTTPError) as error:
        await make_request(receive).body()
    assert error.value.status == 413


async def test_empty_chunks_without_end_are_a_408() -> None:
    async def receive() -> dict[str, Any]:
        return chunk(more=True)

    request = make_request(receive, limits=Limits(body_timeout=0.02))
    others = 0
    async with anyio.create_task_group() as tasks:

        async def other() -> None:
            nonlocal others
            while True:
                others += 1
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(other)
        with pytest.raises(HTTPError, match=r"within 0\.02 seconds") as error:
            await request.body()
        tasks.cancel_scope.cancel()
    assert error.value.status == 408
    assert others > 1
    with pytest.raises(CovetError):
        await request.body()


async def test_a_trickling_body_is_a_408() -> None:
    async def receive() -> dict[str, Any]:
        await anyio.sleep(0.005)
        return chunk(b"x", more=True)

    with pytest.raises(HTTPError) as error:
        await make_request(receive, limits=Limits(body_timeout=0.03)).body()
    assert error.value.status == 408


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_body_that_stops_coming_is_a_408_and_its_receive_is_cancelled(before: int) -> None:
    receive = Hanging(*[chunk(b"x", more=True)] * before)
    request = make_request(receive, limits=Limits(body_timeout=0.01))
    with pytest.raises(HTTPError, match="did not arrive") as error:
        await request.body()
    assert error.value.status == 408
    assert error.value.__cause__ is None
    assert (receive.running, receive.cancelled) == (0, 1)


@pytest.mark.parametrize("receiving", [messages, slowly])
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_client_that_leaves_at_any_receive(receiving: Callable[..., Receive], before: int) -> None:
    request = make_request(receiving(*[chunk(b"abc", more=True)] * before, DISCONNECT))
    with pytest.raises(ClientDisconnected, match=f"after {before * 3} bytes"):
        await request.body()
    with pytest.raises(CovetError, match="cut short"):
        await request.body()


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_cancelled_read_leaves_nothing_running_and_gives_no_part_for_the_whole(before: int) -> None:
    receive = Hanging(*[chunk(b"x", more=True)] * before)
    request = make_request(receive)
    with anyio.move_on_after(0.01) as scope:
        await request.body()
    assert scope.cancelled_caught
    assert (receive.running, receive.cancelled) == (0, 1)
    receive.left.append(chunk(b"rest"))
    with pytest.raises(CovetError, match="cut short"):
        await request.body()


async def test_a_read_in_a_cancelled_scope() -> None:
    receive = Hanging()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await make_request(receive).body()
    assert (receive.running, receive.cancelled) == (0, 1)


async def test_the_callers_own_timeout_stays_its_own() -> None:
    receive = Hanging()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.01):
            await make_request(receive, limits=Limits(body_timeout=5)).body()
    assert receive.running == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_goes_through() -> None:
    receive = Hanging(chunk(b"x", more=True))
    task = asyncio.ensure_future(make_request(receive).body())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert receive.running == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_timed_out_can_go_on_and_be_cancelled() -> None:
    async def serve() -> int:
        with pytest.raises(HTTPError):
            await make_request(Hanging(), limits=Limits(body_timeout=0.01)).body()
        await asyncio.sleep(0)
        current = asyncio.current_task()
        assert current is not None
        return current.cancelling()

    assert await asyncio.ensure_future(serve()) == 0


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("suspends", [False, True])
async def test_an_error_of_receive_comes_through(before: int, suspends: bool) -> None:
    left = [chunk(b"x", more=True)] * before

    async def receive() -> dict[str, Any]:
        if suspends:
            await anyio.sleep(0.001)
        if left:
            return left.pop()
        raise OSError("the connection broke")

    with pytest.raises(OSError, match="broke"):
        await make_request(receive).body()


def scoped(receive: Receive) -> Receive:
    """What a middleware may do around receive: a time limit of its own."""

    async def receive_in_time() -> dict[str, Any]:
        with anyio.fail_after(5):
            return await receive()

    return receive_in_time


def grouped(receive: Receive) -> Receive:
    """The same with a task group, as Starlette's BaseHTTPMiddleware has one in its receive."""

    async def receive_in_group() -> dict[str, Any]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            message = await receive()
            tasks.cancel_scope.cancel()
        return message

    return receive_in_group


def shielded(receive: Receive) -> Receive:
    """The same with a clean-up that takes its time."""

    async def receive_and_clean_up() -> dict[str, Any]:
        try:
            return await receive()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.002)

    return receive_and_clean_up


@pytest.mark.parametrize("wrap", [scoped, grouped, shielded])
@pytest.mark.parametrize("inside", [messages, slowly])
async def test_a_receive_with_scopes_of_its_own(
    wrap: Callable[[Receive], Receive], inside: Callable[..., Receive]
) -> None:
    receive = wrap(inside(chunk(b"a", more=True), chunk(b"b", more=True), chunk(b"c")))
    with anyio.fail_after(5) as scope:
        assert await make_request(receive).body() == b"abc"
        await anyio.lowlevel.checkpoint()
    assert not scope.cancel_called


@pytest.mark.parametrize("wrap", [scoped, grouped, shielded])
@pytest.mark.parametrize("before", [0, 1])
async def test_a_receive_with_scopes_of_its_own_times_out(wrap: Callable[[Receive], Receive], before: int) -> None:
    inner = Hanging(*[chunk(b"x", more=True)] * before)
    with anyio.fail_after(5):
        with pytest.raises(HTTPError) as error:
            await make_request(wrap(inner), limits=Limits(body_timeout=0.02)).body()
        assert error.value.status == 408
        await anyio.sleep(0.001)
    assert inner.running == 0


@pytest.mark.parametrize("wrap", [scoped, grouped, shielded])
async def test_a_receive_with_scopes_of_its_own_is_cancelled(wrap: Callable[[Receive], Receive]) -> None:
    inner = Hanging()
    with anyio.move_on_after(0.01) as scope:
        await make_request(wrap(inner)).body()
    assert scope.cancelled_caught
    assert inner.running == 0


async def test_a_receive_that_retries_inside_is_left_alone() -> None:
    tries = 0

    async def receive() -> dict[str, Any]:
        nonlocal tries
        while True:
            with anyio.move_on_after(0.005):
                tries += 1
                if tries == 3:
                    return chunk(b"at last")
                await anyio.sleep_forever()

    assert await make_request(receive).body() == b"at last"


async def test_both_the_callers_and_the_bodys_time_pass_at_once() -> None:
    receive = Hanging()
    error: HTTPError | None = None
    with anyio.move_on_after(0.01) as scope:
        try:
            await make_request(receive, limits=Limits(body_timeout=0.01)).body()
        except HTTPError as refusal:
            error = refusal
    # Either may win; nothing is lost, and nothing is left running or cancelled.
    assert scope.cancelled_caught or (error is not None and error.status == 408)
    assert receive.running == 0
    await anyio.sleep(0.001)


class Steps:
    """An awaitable of the barest kind, as servers written in other languages have: neither send nor throw."""

    def __init__(self, future: asyncio.Future[dict[str, Any]]) -> None:
        self.inner = future.__await__()

    def __await__(self) -> Iterator[Any]:
        return self

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.inner)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("delay", [0, 0.005, math.inf])
async def test_an_awaitable_that_is_no_coroutine(delay: float) -> None:
    def receive() -> Any:
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if not delay:
            future.set_result(chunk(b"a"))
        elif delay < math.inf:
            asyncio.get_running_loop().call_later(delay, future.set_result, chunk(b"a"))
        return Steps(future)

    request = make_request(receive, limits=Limits(body_timeout=0.05))
    if delay < math.inf:
        assert await request.body() == b"a"
    else:
        with pytest.raises(HTTPError) as error:
            await request.body()
        assert error.value.status == 408


# Content-Length


async def test_a_body_announced_too_large_is_not_waited_for() -> None:
    receive = Hanging(chunk(b"x", more=True))
    with pytest.raises(HTTPError) as error:
        await make_request(receive, headers=[(b"content-length", b"99999999999")]).body()
    assert error.value.status == 413
    assert receive.cancelled == 0


BAD_LENGTHS = [b"-5", b"+5", b"", b"5 ", b"0x5", b"1_0", b"5,5", b"\xb2", b"9" * 21, b"NaN"]


@pytest.mark.parametrize("length", BAD_LENGTHS)
async def test_a_content_length_that_is_no_number_is_a_400(length: bytes) -> None:
    request = make_request(messages(chunk(b"x", more=True), chunk()), headers=[(b"content-length", length)])
    with pytest.raises(HTTPError, match="Content-Length") as error:
        await request.body()
    assert error.value.status == 400
    assert refused(lambda: request.content_length).status == 400


def test_the_content_length() -> None:
    assert make_request().content_length is None
    assert make_request(headers=[(b"content-length", b"007")]).content_length == 7
    assert make_request(headers=[(b"content-length", b"7")] * 2).content_length == 7
    twice = make_request(headers=[(b"content-length", b"7"), (b"content-length", b"8")])
    assert refused(lambda: twice.content_length).status == 400


# Streams


@pytest.mark.parametrize("receiving", [messages, slowly])
async def test_a_stream_gives_the_chunks_as_they_come(receiving: Callable[..., Receive]) -> None:
    request = make_request(receiving(chunk(b"a", more=True), chunk(more=True), chunk(b"b", more=True), chunk()))
    stream = request.stream()
    assert [part async for part in stream] == [b"a", b"b"]
    assert stream.size == 2
    assert [part async for part in stream] == []


async def test_a_stream_can_have_a_limit_of_its_own() -> None:
    limits = Limits(max_body=1)
    sent = chunk(b"ab", more=True), chunk(b"c")
    assert [part async for part in make_request(messages(*sent), limits=limits).stream(3)] == [b"ab", b"c"]
    with pytest.raises(HTTPError) as error:
        [part async for part in make_request(messages(*sent), limits=limits).stream(2)]
    assert error.value.status == 413


async def test_a_body_is_streamed_once() -> None:
    request = make_request()
    request.stream()
    with pytest.raises(CovetError, match="already read"):
        request.stream()
    with pytest.raises(CovetError, match="already read"):
        await request.body()


async def test_a_body_that_was_kept_can_be_streamed() -> None:
    request = make_request(messages(chunk(b"a", more=True), chunk(b"b")))
    await request.body()
    assert [part async for part in request.stream()] == [b"ab"]
    assert [part async for part in request.stream()] == [b"ab"]


async def test_what_the_reader_of_a_stream_does_between_chunks_takes_no_time() -> None:
    request = make_request(slowly(chunk(b"a", more=True), chunk(b"b")), limits=Limits(body_timeout=0.03))
    parts = []
    async for part in request.stream():
        parts.append(part)
        await anyio.sleep(0.04)
    assert parts == [b"a", b"b"]


async def test_two_tasks_cannot_read_one_body_together() -> None:
    inner = slowly(chunk(b"a", more=True), chunk(b"b"))
    receiving = anyio.Event()

    async def receive() -> dict[str, Any]:
        receiving.set()
        return await inner()

    request = make_request(receive)
    bodies: list[bytes] = []

    async def read() -> None:
        bodies.append(await request.body())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await receiving.wait()
        with pytest.raises(CovetError, match="already read"):
            await request.body()
    assert bodies == [b"ab"]


# Disconnecting


async def test_disconnected_returns_when_the_client_has_gone_and_keeps_the_body() -> None:
    request = make_request(slowly(chunk(b"a", more=True), chunk(b"b"), chunk(), DISCONNECT))
    await request.disconnected()
    assert await request.body() == b"ab"


async def test_disconnected_returns_when_the_client_leaves_within_the_body() -> None:
    await make_request(messages(chunk(b"a", more=True), DISCONNECT)).disconnected()


async def test_disconnected_may_be_cancelled() -> None:
    receive = Hanging(chunk(b"a"))
    request = make_request(receive)
    with anyio.move_on_after(0.01):
        await request.disconnected()
    assert receive.running == 0
    assert await request.body() == b"a"


# JSON


class Point(msgspec.Struct):
    x: int
    y: int


def json_request(body: bytes, *content_types: bytes) -> Request:
    return make_request(messages(chunk(body)), headers=[(b"content-type", value) for value in content_types])


@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"application/json; charset=utf-8", b"APPLICATION/JSON", b"application/problem+json ; a=b"],
)
async def test_json_is_decoded(content_type: bytes) -> None:
    assert await json_request(b'{"x": 1, "y": 2}', content_type).json() == {"x": 1, "y": 2}
    assert await json_request(b'{"x": 1, "y": 2}', content_type).json(Point) == Point(1, 2)


@pytest.mark.parametrize(
    "content_types",
    [
        (),
        (b"",),
        (b"text/plain",),
        (b"application/x-www-form-urlencoded",),
        (b"multipart/form-data",),
        (b"text/x+json",),
        (b"application/jsonp",),
        (b"text/plain; application/json",),
        (b"application/json, text/plain",),
        (b"application/json", b"text/plain"),
        (b"application/json", b"application/json"),
    ],
)
async def test_json_that_is_sent_as_something_else_is_a_415(content_types: tuple[bytes, ...]) -> None:
    # A page of another site may send text/plain without a preflight (CVE-2021-32677 of FastAPI).
    request = json_request(b"{}", *content_types)
    with pytest.raises(HTTPError) as error:
        await request.json()
    assert error.value.status == 415
    assert refused(lambda: require_json(request)).status == 415


async def test_json_that_does_not_fit_has_its_faults() -> None:
    with pytest.raises(ValidationError) as error:
        await json_request(b'{"x": "1"}', b"application/json").json(Point)
    assert {fault.pointer for fault in error.value.faults} == {"/x", "/y"}
    with pytest.raises(HTTPError) as malformed:
        await json_request(b"{", b"application/json").json()
    assert malformed.value.status == 400


def test_a_new_request_has_read_nothing() -> None:
    """Creating a request looks at nothing: it must not fail, whatever the scope holds."""
    request = Request({}, messages(), SimpleNamespace(), None, ())  # type: ignore[arg-type]
    assert request.tasks == ()
    assert request.route is None
    assert isinstance(make_request().headers, Headers)
