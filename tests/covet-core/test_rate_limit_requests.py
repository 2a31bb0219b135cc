"""Limits on requests: refusals, headers, and that a limit which stands somewhere holds there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.sqlite_cache import SQLiteCachePlugin

import covet
from covet import ConfigurationError, Covet, HTTPError, Request, Response, Router
from covet.exceptions import CovetError, RouteError
from covet.ratelimit import (
    Caller,
    Enforced,
    Rate,
    RequestLimited,
    SlidingWindowLimiter,
    TokenBucketLimiter,
    api_key,
    enforce,
    limited,
    unlimited,
    user,
)
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

# Structured fields (RFC 9651) as the draft has them: a list of strings with parameters.
POLICY = re.compile(r'"[!-~]+";q=[0-9]{1,15}(;w=[1-9][0-9]{0,14})?(;covet-burst=[0-9]+)?')
CURRENT = re.compile(r'"[!-~]+";r=[0-9]{1,15}(;t=[0-9]{1,15})?')


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def check(headers: Any) -> None:
    """Both fields stand once and are well-formed, as far as they stand at all."""
    for name, item in (("ratelimit-policy", POLICY), ("ratelimit", CURRENT)):
        lines = headers.get_list(name)
        assert len(lines) <= 1
        assert all(item.fullmatch(part) for line in lines for part in line.split(", "))


def sandbox(*plugins: Any, **settings: Any) -> Covet:
    return plugin_sandbox("rate_limit", *plugins, settings=settings)


async def test_a_route_with_a_limit_says_what_is_left_and_then_refuses() -> None:
    app = sandbox()
    clock = Clock()
    limiter = TokenBucketLimiter(3, 60, name="search", clock=clock)

    @app.get("/")
    @limited(limiter)
    async def index() -> str:
        return "found"

    async with TestClient(app) as client:
        told = []
        for _ in range(3):
            got = await client.get("/")
            assert (got.status_code, got.text) == (200, "found")
            assert got.headers["ratelimit-policy"] == '"search";q=3;w=60'
            told.append(got.headers["ratelimit"])
        assert told == ['"search";r=2;t=40', '"search";r=1;t=20', '"search";r=0;t=20']
        clock.now += 500_000_000
        for _ in range(5):
            refused = await client.get("/")
            check(refused.headers)
            assert refused.status_code == 429
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.headers["retry-after"] == "20"
            assert refused.headers["ratelimit"] == '"search";r=0;t=20'
            assert refused.json() == {
                "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "title": "Quota exceeded",
                "status": 429,
                "detail": "this has been asked for too often; try again in 20 seconds",
                "violated-policies": ["search"],
            }
        clock.now += 19_500_000_000
        assert (await client.get("/")).status_code == 200
        page = await client.get("/", headers={"accept": "text/html"})
        assert (page.status_code, page.headers["content-type"]) == (429, "text/html; charset=utf-8")


async def test_a_limit_of_a_route_holds_without_the_plugin() -> None:
    for app in (plugin_sandbox(), sandbox()):

        @limited("1/hour")
        async def index() -> str:
            return "x"

        app.get("/")(index)
        async with TestClient(app) as client:
            assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]


async def test_what_nobody_limits_pays_nothing() -> None:
    app = sandbox()

    @app.get("/")
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        got = await client.get("/")
        assert "ratelimit" not in got.headers
        assert "ratelimit-policy" not in got.headers
    assert app.built.pipeline.empty
    assert not any(getattr(route, "guards", ()) for route in app.routes)


async def test_handlers_that_are_plain_functions_are_limited_too() -> None:
    app = sandbox()

    @app.get("/")
    @limited("1/minute")
    def index() -> str:
        return "x"

    async with TestClient(app) as client:
        assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]


def test_the_plugin_imports_nothing_until_there_is_a_limit() -> None:
    code = """
import sys
from covet.testing import plugin_sandbox
app = plugin_sandbox("rate_limit")
@app.get("/")
async def index() -> str: ...
app.build()
print("covet.builtin.rate_limit" in sys.modules, "covet.ratelimit" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "True False\n"


async def test_several_limits_are_all_told_and_the_first_that_refuses_ends_it() -> None:
    app = sandbox()
    clock = Clock()
    tight = TokenBucketLimiter(2, 1, name="burst", clock=clock)
    wide = SlidingWindowLimiter(3, 60, name="minute", clock=clock)

    @app.get("/")
    @limited(tight, wide)
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        got = await client.get("/")
        assert got.headers["ratelimit-policy"] == '"burst";q=2;w=1, "minute";q=3;w=60'
        assert got.headers["ratelimit"] == '"burst";r=1;t=1, "minute";r=2;t=40'
        check(got.headers)
        assert (await client.get("/")).status_code == 200
        refused = await client.get("/")
        assert refused.json()["violated-policies"] == ["burst"]
        assert refused.headers["ratelimit-policy"] == '"burst";q=2;w=1'
        clock.now += 1_000_000_000
        assert (await client.get("/")).status_code == 200
        refused = await client.get("/")
        check(refused.headers)
        assert refused.json()["violated-policies"] == ["minute"]
        assert refused.headers["retry-after"] == "65"


async def test_stacked_decorators_and_middleware_add_up_in_one_line() -> None:
    app = sandbox()
    app.add_middleware(TokenBucketLimiter(10, 60, name="all").middleware())

    @app.get("/")
    @limited("5/minute", name="outer")
    @limited("4/minute", name="inner")
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        got = await client.get("/")
        assert [part.partition(";")[0] for part in got.headers["ratelimit"].split(", ")] == [
            '"all"',
            '"outer"',
            '"inner"',
        ]
        check(got.headers)


async def test_a_middleware_limits_everything_also_what_no_route_answers() -> None:
    app = sandbox()
    app.add_middleware(TokenBucketLimiter(2, 60).middleware())

    @app.get("/")
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        codes = [(await client.get(path)).status_code for path in ("/", "/missing", "/missing", "/")]
        assert codes == [200, 404, 429, 429]


async def test_a_response_that_is_used_again_carries_nothing_of_another_request() -> None:
    app = sandbox()
    constant = Response("x", headers={"RateLimit": '"proxied";r=1;t=1'})

    @app.get("/limited")
    @limited("5/minute")
    async def guarded() -> Response:
        return constant

    @app.get("/free")
    async def free() -> Response:
        return constant

    async with TestClient(app) as client:
        for left in (4, 3, 2):
            got = await client.get("/limited")
            assert got.headers.get_list("ratelimit") == [f'"5/minute";r={left};t={left * 12}']
        assert (await client.get("/free")).headers.get_list("ratelimit") == ['"proxied";r=1;t=1']


async def test_errors_of_the_handler_are_told_what_is_left_too() -> None:
    app = sandbox()

    @app.get("/")
    @limited("5/minute")
    async def index() -> None:
        raise HTTPError(409)

    async with TestClient(app) as client:
        got = await client.get("/")
        assert got.status_code == 409
        assert got.headers["ratelimit"] == '"5/minute";r=4;t=48'


async def test_head_counts_like_get_and_methods_of_one_handler_count_together() -> None:
    app = sandbox()

    @app.route("/", methods=["GET", "POST"])
    @limited("3/minute")
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        codes = [(await client.request(method, "/")).status_code for method in ("GET", "HEAD", "POST", "GET")]
        assert codes == [200, 200, 200, 429]


async def test_a_limit_refuses_before_anything_of_the_request_is_read() -> None:
    app = sandbox()

    @app.post("/")
    @limited("1/minute")
    async def index(body: dict[str, int]) -> dict[str, int]:
        return body

    async with TestClient(app) as client:
        assert (await client.post("/", json={"a": 1})).status_code == 200
        assert (await client.post("/", content=b"{", headers={"content-type": "application/json"})).status_code == 429


async def test_clients_are_told_apart_by_address() -> None:
    app = sandbox()

    @app.get("/")
    @limited("1/minute")
    async def index() -> str:
        return "x"

    async with app.running():
        for host in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            async with TestClient(app, lifespan=False, client=(host, 1)) as client:
                assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]
        async with TestClient(app, lifespan=False, client=("2001:db8::2", 1)) as client:
            assert (await client.get("/")).status_code == 429


async def test_keys_and_costs_may_be_functions_plain_or_not() -> None:
    app = sandbox()

    def plain_key(request: Request) -> str | None:
        return request.headers.get("x-who")

    async def waiting_key(request: Request) -> str | None:
        return request.headers.get("x-who")

    def plain_cost(request: Request) -> int:
        return int(request.query.get("n", "1"))

    async def waiting_cost(request: Request) -> int:
        return int(request.query.get("n", "1"))

    for number, (key, cost) in enumerate(
        (key, cost) for key in (plain_key, waiting_key) for cost in (plain_cost, waiting_cost)
    ):

        @limited("10/minute", key=key, cost=cost)
        async def index() -> str:
            return "x"

        app.get(f"/{number}")(index)
    async with TestClient(app, raise_errors=False) as client:
        for number in range(4):

            async def ask(who: str, n: int, number: int = number) -> int:
                got = await client.get(f"/{number}?n={n}", headers={"x-who": who} if who else {})
                check(got.headers)
                return got.status_code

            assert [await ask("a", 6), await ask("a", 6), await ask("a", 4), await ask("a", 0)] == [200, 429, 200, 200]
            assert await ask("b", 6) == 200
            # None is not limited, and is told nothing.
            assert [await ask("", 10) for _ in range(3)] == [200] * 3
            # More than there will ever be: there is no time to try again.
            never = await client.get(f"/{number}?n=11", headers={"x-who": "c"})
            assert (never.status_code, "retry-after" in never.headers) == (429, False)
            assert "at most 10" in never.json()["detail"]
            assert (await client.get(f"/{number}?n=-5", headers={"x-who": "a"})).status_code == 500


async def test_limits_by_user_come_behind_what_knows_the_user() -> None:
    app = sandbox()

    @app.middleware(band="identity")
    async def identify(request: Request, call_next: Any) -> Response:
        if name := request.headers.get("x-user"):
            request.state[Caller] = Caller(name)
        response: Response = await call_next(request)
        return response

    @app.get("/")
    @limited("1/minute", key=user)
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        for headers in ({"x-user": "ann"}, {"x-user": "bob"}, {}):
            assert [(await client.get("/", headers=headers)).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("returned", [7, b"key", ["a"]])
async def test_a_key_that_is_no_text_is_an_error_that_names_the_function(returned: Any) -> None:
    app = sandbox()

    def odd(request: Request) -> Any:
        return returned

    @app.get("/")
    @limited("1/minute", key=odd)
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        with pytest.raises(CovetError, match=r"odd.* returned"):
            await client.get("/")


async def test_the_default_of_the_settings_is_for_routes_that_have_no_limit_of_their_own() -> None:
    app = sandbox(plugins={"rate_limit": {"default": "2/minute"}})

    @app.get("/a")
    async def first() -> str:
        return "x"

    @app.get("/b")
    async def second() -> str:
        return "x"

    @app.get("/own")
    @limited("3/minute")
    async def own() -> str:
        return "x"

    @app.get("/free")
    @unlimited
    async def free() -> str:
        return "x"

    @app.get("/health/live")
    async def live() -> str:
        return "x"

    @app.get("/healthy")
    async def healthy() -> str:
        return "x"

    async with TestClient(app) as client:
        assert [(await client.get(path)).status_code for path in ("/a", "/b", "/a", "/b", "/healthy")] == [
            200, 200, 429, 429, 429,
        ]  # fmt: skip
        assert [(await client.get("/own")).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert [(await client.get(path)).status_code for path in ("/free", "/health/live") * 3] == [200] * 6
        assert (await client.get("/own")).headers["ratelimit-policy"] == '"3/minute";q=3;w=60'


async def test_the_default_may_count_by_key_and_in_a_cache(tmp_path: Path) -> None:
    settings = {"default": "1/minute", "key": "header:x-key", "cache": "limits", "algorithm": "sliding-window"}
    cache = {"limits": {"backend": "sqlite", "path": str(tmp_path / "limits.db")}}
    for expected in ([200, 429, 200], [429, 429, 429]):
        app = sandbox(SQLiteCachePlugin(), plugins={"rate_limit": settings}, cache=cache)

        @app.get("/")
        async def index() -> str:
            return "x"

        async with TestClient(app) as client:
            codes = [(await client.get("/", headers={"x-key": key})).status_code for key in ("a", "a", "b")]
        # The second application finds what the first has counted.
        assert codes == expected


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"default": "often"}, "'often' is no rate"),
        ({"default": "5/second;burst=9", "algorithm": "sliding-window"}, "burst"),
        ({"default": "5/second", "key": "adress"}, "'adress'"),
        ({"key": "adress"}, "'adress'"),
        ({"default": "5/second", "cache": "nowhere"}, "nowhere"),
        ({"timeout": 0}, "timeout"),
        ({"on_failure": "ignore"}, "ignore"),
        ({"exempt": ["health"]}, "begins with a slash"),
        ({"defualt": "5/second"}, "defualt"),
    ],
)
def test_settings_that_make_no_sense_stop_the_build(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(CovetError, match=re.escape(told)):
        sandbox(plugins={"rate_limit": settings}).build()


def test_a_limit_in_a_cache_that_there_is_not_stops_the_build() -> None:
    app = sandbox()

    @app.get("/")
    @limited("1/minute", backend="nowhere")
    async def index() -> str:
        return "x"

    with pytest.raises(ConfigurationError, match="nowhere"):
        app.build()


class Down:
    """A backend that cannot be reached."""

    shared = True

    async def get(self, key: str) -> bytes | None:
        raise ConnectionError("down")


async def test_while_the_backend_is_down_clients_are_told_so() -> None:
    app = sandbox()
    backend: Any = Down()

    @app.get("/refuse")
    @limited("5/minute", backend=backend, on_failure="refuse")
    async def refuse() -> str:
        return "x"

    @app.get("/allow")
    @limited("5/minute", backend=backend, on_failure="allow")
    async def allow() -> str:
        return "x"

    @app.get("/local")
    @limited("1/minute", backend=backend)
    async def local() -> str:
        return "x"

    async with TestClient(app) as client:
        got = await client.get("/refuse")
        assert got.status_code == 503
        assert int(got.headers["retry-after"]) > 0
        assert got.json()["type"].endswith("#temporary-reduced-capacity")
        assert "ratelimit" not in got.headers
        got = await client.get("/allow")
        assert (got.status_code, "ratelimit" in got.headers) == (200, False)
        assert got.headers["ratelimit-policy"] == '"5/minute";q=5;w=60'
        assert [(await client.get("/local")).status_code for _ in range(2)] == [200, 429]


class Listening:
    """Keeps the events of refusals."""

    def __init__(self) -> None:
        self.heard: list[RequestLimited] = []

    @covet.hookimpl
    def covet_event(self, event: object) -> None:
        if isinstance(event, RequestLimited):
            self.heard.append(event)


async def test_a_refusal_is_an_event_without_the_key() -> None:
    listening = Listening()
    app = sandbox(listening)

    @app.get("/users/{name}")
    @limited("1/minute", name="users", key=api_key())
    async def show(name: str) -> str:
        return name

    async with TestClient(app) as client:
        for _ in range(2):
            await client.get("/users/ann", headers={"x-api-key": "secret", "x-request-id": "r1"})
    (event,) = listening.heard
    assert (event.policy, event.route, event.cost, event.request_id) == ("users", "/users/{name}", 1, "r1")
    assert "secret" not in repr(event)


async def test_a_limit_may_have_more_at_once_and_times_that_are_no_seconds() -> None:
    app = sandbox()

    @app.get("/burst")
    @limited("5/second;burst=20")
    async def burst() -> str:
        return "x"

    @app.get("/half")
    @limited(Rate(5, 0.5))
    async def half() -> str:
        return "x"

    async with TestClient(app) as client:
        got = await client.get("/burst")
        assert got.headers["ratelimit-policy"] == '"5/second;burst=20";q=5;w=1;covet-burst=20'
        check(got.headers)
        got = await client.get("/half")
        assert got.headers["ratelimit-policy"] == '"5/0.5s";q=5'
        check(got.headers)


def test_a_decorator_that_would_limit_nothing_is_an_error() -> None:
    app = sandbox()
    with pytest.raises(RouteError, match="below"):

        @limited("1/minute")
        @app.get("/")
        async def above() -> str:
            return "x"

    with pytest.raises(RouteError, match="guards HTTP requests alone"):

        @app.websocket("/socket")
        @limited("1/minute")
        async def socket(websocket: covet.WebSocket) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("often",), {}),
        ((5,), {}),
        (("1/minute",), {"costs": 1}),
        (("1/minute",), {"cost": 2}),
        (("5/minute",), {"cost": -1}),
        (("1/minute", "2/hour"), {"name": "both"}),
        (("1/minute",), {"algorithm": "leaky"}),
        (("1/minute;burst=5",), {"algorithm": "sliding-window"}),
        (("1/minute",), {"on_failure": "shrug"}),
        ((TokenBucketLimiter(1, 60),), {"name": "x"}),
    ],
)
def test_decorators_that_make_no_sense(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):

        @limited(*arguments, **options)
        async def index() -> str:
            return "x"


async def test_routers_and_plugins_keep_the_limits_of_their_routes() -> None:
    router = Router("/api")

    @router.get("/")
    @limited("1/minute")
    async def index() -> str:
        return "x"

    class Plugin:
        @covet.hookimpl
        def covet_routes(self, app: Covet) -> list[Any]:
            return [covet.Route("/plugin", limited("1/minute")(other))]

    async def other() -> str:
        return "x"

    app = sandbox(Plugin())
    app.include(router)
    async with TestClient(app) as client:
        for path in ("/api", "/plugin"):
            assert [(await client.get(path)).status_code for _ in range(2)] == [200, 429]


async def test_a_build_that_failed_and_is_tried_again_limits_once() -> None:
    failing = [True]

    class Failing:
        @covet.hookimpl
        def covet_middleware(self, app: Covet) -> list[Any]:
            if failing:
                raise RuntimeError("not yet")
            return []

    app = plugin_sandbox(Failing())

    @app.get("/")
    @limited("2/minute")
    async def index() -> str:
        return "x"

    with pytest.raises(CovetError):
        app.build()
    failing.clear()
    async with TestClient(app) as client:
        assert (await client.get("/")).headers["ratelimit"] == '"2/minute";r=1;t=30'


async def test_a_guard_of_a_plugin_may_use_a_limit() -> None:
    guard = enforce(TokenBucketLimiter(1, 60))

    class Plugin:
        @covet.hookimpl
        def covet_route_guards(self, app: Covet, route: covet.Route) -> list[Any]:
            return [] if Enforced in route.marks else [guard]

    app = plugin_sandbox(Plugin())

    @app.get("/")
    async def index() -> str:
        return "x"

    async with TestClient(app) as client:
        assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]
