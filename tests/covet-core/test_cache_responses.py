"""`cached` on routes: what is kept, for whom, and what never is."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx
import pytest
from tests.sqlite_cache import SQLiteCachePlugin

import covet
from covet import Covet, FileResponse, HTTPError, PlainTextResponse, Request, Response, StreamingResponse
from covet.cache import CacheManager, MemoryCache, cached
from covet.context import running
from covet.middleware import Middleware
from covet.parameters import Cookie, Header
from covet.testing import TestClient, plugin_sandbox
from covet.transforms import ResponseTransform

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> Covet:
    return plugin_sandbox("cache", settings={"cache": {"default": {"jitter": 0.0}}})


def counted(app: Covet, path: str = "/", make: Any = None, **options: Any) -> list[int]:
    """A cached route, and the list of its calls."""
    calls: list[int] = []

    @app.get(path)
    @cached(options.pop("ttl", 60), **options)
    async def handler(request: Request) -> Any:
        calls.append(1)
        return f"call {len(calls)}" if make is None else make(request)

    return calls


async def test_a_response_is_kept_with_what_lets_others_keep_it(app: Covet) -> None:
    calls = counted(app, stale_while_revalidate=30)
    async with TestClient(app) as client:
        first, second = await client.get("/"), await client.get("/")
    assert first.text == second.text == "call 1"
    assert len(calls) == 1
    assert "age" not in first.headers
    assert second.headers["age"] == "0"
    for got in (first, second):
        assert got.headers["cache-control"] == "max-age=60, stale-while-revalidate=30"
        assert got.headers["etag"].startswith('"')
        assert got.headers["content-type"] == "text/plain; charset=utf-8"
        assert got.headers["content-length"] == "6"
    assert first.headers["etag"] == second.headers["etag"]


async def test_the_key_is_method_scheme_host_path_and_query(app: Covet) -> None:
    calls = counted(app, "/{path:path}")
    async with TestClient(app) as client:
        for url in (
            "/a", "/a/", "/A", "/a?b=1", "/a?b=2", "/a?b=1&c=2", "/a?c=2&b=1", "/a%3Fb=1", "http://other.example/a",
            "http://other.example:81/a", "https://other.example/a",
        ):  # fmt: skip
            await client.get(url)
        assert len(calls) == 11
        await client.get("/a?b=2")
        assert len(calls) == 11
        assert (await client.head("/a")).text == ""
        assert (await client.head("/a")).headers["content-length"] == "7"
        assert len(calls) == 12


async def test_conditions(app: Covet) -> None:
    calls = counted(app)
    async with TestClient(app) as client:
        tag = (await client.get("/")).headers["etag"]
        for asked in (tag, f"W/{tag}", f'"other", {tag}', "*", f'W/"x" ,  {tag}'):
            got = await client.get("/", headers={"if-none-match": asked})
            assert (got.status_code, got.content) == (304, b"")
            assert got.headers["etag"] == tag
            assert "cache-control" in got.headers
            assert "content-type" not in got.headers
        for asked in ('"other"', tag.strip('"'), "", "garbage\xff", '"' * 1000):
            got = await client.get("/", headers=[(b"if-none-match", asked.encode("latin-1"))])
            assert got.status_code == 200
        assert len(calls) == 1


async def test_the_first_response_answers_conditions_too(app: Covet) -> None:
    counted(app, make=lambda request: Response("x", headers={"etag": 'W/"mine"'}))
    async with TestClient(app) as client:
        assert (await client.get("/", headers={"if-none-match": '"mine"'})).status_code == 304
        got = await client.get("/")
        assert (got.status_code, got.text, got.headers["etag"]) == (200, "x", 'W/"mine"')


def with_cookie(request: Request) -> Response:
    made = Response("x")
    made.set_cookie("a", "b")
    return made


def finished(request: Request) -> str:
    request.on_response(lambda request, response: None)
    return "x"


def reading_cookies(request: Request) -> str:
    return request.cookies.get("theme", "light")


async def pieces() -> AsyncIterator[str]:
    yield "x"


PAST = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)


@pytest.mark.parametrize(
    "make",
    [
        with_cookie,
        finished,
        reading_cookies,
        lambda request: Response("x", headers={"cache-control": "private"}),
        lambda request: Response("x", headers={"cache-control": "max-age=60, No-Store"}),
        lambda request: Response("x", headers=[("cache-control", "max-age=60"), ("cache-control", "private")]),
        lambda request: Response("x", headers={"cache-control": 'private="x-user, y"'}),
        lambda request: Response("x", headers={"cache-control": "no-cache"}),
        lambda request: Response("x", headers={"cache-control": "max-age=0"}),
        lambda request: Response("x", headers={"cache-control": "s-maxage=0, max-age=60"}),
        lambda request: Response("x", headers={"cache-control": "max-age=many"}),
        lambda request: Response("x", headers={"expires": "0"}),
        lambda request: Response("x", headers={"expires": PAST}),
        lambda request: Response("x", headers={"vary": "*"}),
        lambda request: Response("x", headers={"vary": "accept ,  * "}),
        lambda request: Response("x", status=206, headers={"content-range": "bytes 0-0/2"}),
        lambda request: Response("x", status=201),
        lambda request: Response("x", status=500),
        lambda request: StreamingResponse(pieces()),
        lambda request: FileResponse(Path(__file__)),
    ],
)
async def test_what_is_for_one_visitor_or_no_whole_is_never_kept(app: Covet, make: Any) -> None:
    calls = counted(app, make=make)
    async with TestClient(app) as client:
        for _ in range(2):
            got = await client.get("/")
            assert got.content
            assert "age" not in got.headers
    assert len(calls) == 2


async def test_errors_are_not_kept(app: Covet) -> None:
    def refuse(request: Request) -> str:
        raise HTTPError(404, "not yet")

    calls = counted(app, make=refuse)
    async with TestClient(app) as client:
        ids = {(await client.get("/")).headers["x-request-id"] for _ in range(3)}
    assert len(calls) == len(ids) == 3


async def test_statuses_that_are_asked_for_are_kept(app: Covet) -> None:
    calls = counted(app, make=lambda request: Response("gone", status=410), statuses=[410])
    async with TestClient(app) as client:
        assert [(await client.get("/")).status_code for _ in range(2)] == [410, 410]
    assert len(calls) == 1


@pytest.mark.parametrize("headers", [{"authorization": "Bearer x"}, {"range": "bytes=0-1"}])
async def test_requests_that_pass_by(app: Covet, headers: dict[str, str]) -> None:
    calls = counted(app)
    async with TestClient(app) as client:
        assert (await client.get("/", headers=headers)).text == "call 1"
        assert (await client.get("/")).text == "call 2"
        assert (await client.get("/", headers=headers)).text == "call 3"
        assert (await client.get("/")).text == "call 2"
    assert len(calls) == 3


async def test_other_methods_pass_by(app: Covet) -> None:
    calls = []

    @app.route("/", methods=["GET", "POST"])
    @cached(60)
    async def handler() -> str:
        calls.append(1)
        return "x"

    async with TestClient(app) as client:
        await client.post("/")
        await client.post("/")
    assert len(calls) == 2


@pytest.mark.parametrize("value", ["no-cache", "no-store", "max-age=0"])
async def test_strangers_cannot_have_it_computed_for_each_of_them(app: Covet, value: str) -> None:
    calls = counted(app)
    async with TestClient(app) as client:
        for _ in range(5):
            await client.get("/", headers={"cache-control": value, "pragma": "no-cache"})
    assert len(calls) == 1


async def test_vary_tells_responses_apart(app: Covet) -> None:
    calls = counted(
        app,
        make=lambda request: Response(request.headers.get("accept-language", ""), headers={"vary": "Accept-Language"}),
    )
    async with TestClient(app) as client:
        for _ in range(2):
            for language in ("de", "en", "de, en"):
                assert (await client.get("/", headers={"accept-language": language})).text == language
            assert (await client.get("/")).text == ""
        assert len(calls) == 4
        two = [("accept-language", "de"), ("accept-language", "en")]
        await client.get("/", headers=two)
        assert len(calls) == 5


async def test_vary_that_differs_between_responses(app: Covet) -> None:
    def make(request: Request) -> Response:
        name = "x-b" if request.headers.get("x-a") == "1" else "x-a"
        return Response(f"{request.headers.get('x-a')} {request.headers.get('x-b')}", headers={"vary": name})

    counted(app, make=make)
    async with TestClient(app) as client:
        for _ in range(3):
            for a, b in (("0", "0"), ("1", "0"), ("1", "1"), ("0", "1")):
                got = await client.get("/", headers={"x-a": a, "x-b": b})
                if a == "1":
                    assert got.text == f"1 {b}"
                else:
                    assert got.text.startswith("0 ")


async def test_what_the_handler_s_signature_asks_for_is_part_of_the_key(app: Covet) -> None:
    calls = []

    @app.get("/")
    @cached(60, vary=["X-Other"])
    async def handler(x_tenant: Annotated[str, Header()] = "", theme: Annotated[str, Cookie()] = "light") -> str:
        calls.append(1)
        return f"{x_tenant} {theme}"

    async with TestClient(app) as client:
        for _ in range(2):
            assert (await client.get("/", headers={"x-tenant": "a"})).text == "a light"
            assert (await client.get("/", headers={"x-tenant": "b"})).text == "b light"
            got = await client.get("/", headers={"x-tenant": "a", "cookie": "theme=dark"})
            assert got.text == "a dark"
            await client.get("/", headers={"x-tenant": "a", "x-other": "1"})
        assert len(calls) == 4
        assert {name.strip().lower() for name in got.headers["vary"].split(",")} == {"cookie", "x-other", "x-tenant"}


async def test_the_response_may_shorten_its_time(app: Covet) -> None:
    calls = counted(app, make=lambda request: Response("x", headers={"cache-control": "max-age=1"}))
    async with TestClient(app) as client:
        await client.get("/")
        await client.get("/")
        assert len(calls) == 1
        await anyio.sleep(1.1)
        await client.get("/")
    assert len(calls) == 2


async def test_headers_of_others_are_neither_kept_nor_doubled(app: Covet) -> None:
    async def outside(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.add("x-user", request.headers.get("x-user", ""))
        return response

    app.add_middleware(Middleware(outside, band="session"))
    counted(app)
    async with TestClient(app) as client:
        for user in ("a", "b"):
            got = await client.get("/", headers={"x-user": user})
            assert got.headers.get_list("x-user") == [user]


async def test_it_is_kept_before_it_is_compressed() -> None:
    class Compressing:
        @covet.hookimpl
        def covet_response_transforms(self, app: Covet) -> list[ResponseTransform]:
            async def compress(request: Request, response: Response) -> Response:
                if "gzip" not in request.headers.get("accept-encoding", ""):
                    return response
                response.body = gzip.compress(response.body)
                response.headers["content-encoding"] = "gzip"
                return response

            return [ResponseTransform(compress)]

    app = plugin_sandbox("cache", Compressing())
    calls = counted(app)
    async with TestClient(app) as client:
        for encoding in ("gzip", "identity", "gzip"):
            got = await client.get("/", headers={"accept-encoding": encoding})
            assert got.text == "call 1"
            assert got.headers.get("content-encoding", "identity") == encoding
    assert len(calls) == 1


async def test_guards_are_asked_for_every_request() -> None:
    class Guarding:
        @covet.hookimpl
        def covet_route_guards(self, app: Covet, route: Any) -> list[Any]:
            async def later(request: Request) -> Response | None:
                return PlainTextResponse("teapot", 418) if "x-tea" in request.headers else None

            def at_once(request: Request) -> None:
                if "x-bad" in request.headers:
                    raise HTTPError(403)

            return [later, at_once]

    app = plugin_sandbox("cache", Guarding())
    calls = counted(app)
    async with TestClient(app) as client:
        assert (await client.get("/", headers={"x-bad": "1"})).status_code == 403
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/", headers={"x-bad": "1"})).status_code == 403
        assert (await client.get("/", headers={"x-tea": "1"})).status_code == 418
        assert (await client.get("/")).text == "call 1"
    assert len(calls) == 1


# Many at the same time


async def many(client: httpx.AsyncClient, number: int, path: str = "/", **options: Any) -> list[httpx.Response]:
    found: list[httpx.Response] = []

    async def ask() -> None:
        found.append(await client.get(path, **options))

    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(ask)
    return found


def slow(app: Covet, make: Any = None, ttl: float = 60, **options: Any) -> list[int]:
    calls: list[int] = []

    @app.get("/")
    @cached(ttl, **options)
    async def handler(request: Request) -> Any:
        calls.append(1)
        number = len(calls)
        await anyio.sleep(0.1)
        return f"call {number}" if make is None else make(request, number)

    return calls


async def test_many_at_the_same_time_are_one_computation(app: Covet) -> None:
    calls = slow(app)
    async with TestClient(app) as client:
        found = await many(client, 100)
    assert len(calls) == 1
    assert {got.text for got in found} == {"call 1"}


async def test_a_response_for_one_visitor_is_given_to_none_who_waits(app: Covet) -> None:
    def personal(request: Request, number: int) -> Response:
        response = Response(f"call {number}")
        response.set_cookie("session", str(number))
        return response

    calls = slow(app, make=personal)
    async with TestClient(app) as client:
        found = await many(client, 10)
    assert len(calls) == 10
    assert len({got.text for got in found}) == 10
    assert len({got.headers["set-cookie"] for got in found}) == 10


async def test_who_waits_for_another_variant_has_its_own(app: Covet) -> None:
    calls = slow(
        app,
        make=lambda request, number: Response(request.headers["accept-language"], headers={"vary": "accept-language"}),
    )
    found: dict[str, set[str]] = {}
    async with TestClient(app) as client:

        async def ask(language: str) -> None:
            got = await many(client, 10, headers={"accept-language": language})
            found[language] = {each.text for each in got}

        async with anyio.create_task_group() as group:
            for language in ("de", "en", "fr"):
                group.start_soon(ask, language)
    assert found == {language: {language} for language in ("de", "en", "fr")}
    assert len(calls) <= 4


async def test_errors_of_the_handler_answer_all_who_wait_and_are_not_kept(app: Covet) -> None:
    def fail(request: Request, number: int) -> str:
        if number == 1:
            raise RuntimeError("broken")
        return "mended"

    calls = slow(app, make=fail)
    async with TestClient(app, raise_errors=False) as client:
        assert {got.status_code for got in await many(client, 5)} == {500}
        assert len(calls) == 1
        assert (await client.get("/")).text == "mended"


async def test_a_stale_response_is_sent_while_one_makes_it_anew(app: Covet) -> None:
    calls = slow(app, ttl=0.2, stale_while_revalidate=1000)
    async with TestClient(app) as client:
        await client.get("/")
        await anyio.sleep(0.3)
        texts = [got.text for got in await many(client, 10)]
    assert len(calls) == 2
    assert sorted(texts) == ["call 1"] * 9 + ["call 2"]


async def test_a_stale_response_is_sent_when_making_it_anew_fails(app: Covet, caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: Request, number: int) -> str:
        if number > 1:
            raise RuntimeError("broken")
        return "first"

    slow(app, make=fail, ttl=0.1, stale_while_revalidate=1000)
    async with TestClient(app) as client:
        await client.get("/")
        await anyio.sleep(0.2)
        got = await client.get("/")
    assert (got.status_code, got.text) == (200, "first")
    assert "GET /: making the response anew failed" in caplog.text


async def test_workers_that_share_a_backend_compute_once(tmp_path: Path) -> None:
    settings = {"cache": {"default": {"backend": "sqlite", "path": str(tmp_path / "cache.db")}}}
    apps = [plugin_sandbox(SQLiteCachePlugin(), settings=settings) for _ in range(2)]
    calls = [slow(app) for app in apps]
    async with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
        async with anyio.create_task_group() as group:
            group.start_soon(many, first, 3)
            group.start_soon(many, second, 3)
        assert (await first.get("/")).text == (await second.get("/")).text == "call 1"
    assert sum(map(len, calls)) == 1


async def test_without_its_backend_a_route_answers_all_the_same(app: Covet) -> None:
    class Down(MemoryCache):
        peek = None  # type: ignore[assignment]

        async def get(self, key: str) -> bytes | None:
            raise ConnectionError

        async def set(self, key: str, value: bytes, ttl: float | None) -> None:
            raise ConnectionError

    calls = counted(app, cache=CacheManager(backend=Down()))
    async with TestClient(app) as client:
        assert [(await client.get("/")).status_code for _ in range(10)] == [200] * 10
    assert len(calls) == 10


async def test_what_cannot_be_read_is_made_anew(app: Covet) -> None:
    backend = MemoryCache()
    calls = counted(app, cache=CacheManager(backend=backend))
    async with TestClient(app) as client:
        await client.get("/")
        for raw in (b"", b"\xc1", b"\x90", b"abc"):
            (place,) = backend._table
            await backend.set(place, raw, None)
            assert (await client.get("/")).status_code == 200
    assert len(calls) == 5


async def test_responses_are_invalidated_by_tags_and_with_their_namespace(app: Covet) -> None:
    cache = CacheManager(namespace="pages")
    calls = counted(app, cache=cache, tags=lambda request: ["news", request.path])
    async with TestClient(app) as client:
        await client.get("/")
        running.set(app)
        await cache.invalidate("/")
        await client.get("/")
        await cache.clear()
        await client.get("/")
    assert len(calls) == 3
