"""What a session costs: reading one beside a dictionary lookup, and whole requests beside the peers.

Reading a session is loading it from the store `memory` and getting one value; the lookup is made in the same round.
Whole requests go to each framework's ASGI application in this process, without sockets, in interleaved rounds, so that
a shared, noisy machine distorts no ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from benchmarks import evidence
from benchmarks.http import request, running

SECRET = "a secret of at least thirty-two bytes"
LOOKUPS = 1000
GOAL_MICROSECONDS = 3.0
DISTRIBUTIONS = ["covet-core", "starlette", "itsdangerous", "starsessions", "litestar", "cryptography"]
ABOUT = """
`session read`: a session is loaded from the store `memory` and one of its values is read, of a request with four
headers, in multiples of a dictionary lookup `values[key]` of the same round. Whole requests: `none` touches no session,
`read` reads a value of one, `write` changes one; each application is called in this process with prepared scopes,
without sockets. `starlette` is its SessionMiddleware, which signs cookies and encrypts nothing; `starsessions` and
`litestar` have their stores in memory. `covet` has the builtin plugins of a new application, `covet_cookie` its
sessions in sealed cookies. {rounds} interleaved rounds of {count} requests, CPU time.
"""

Headers = list[tuple[bytes, bytes]]


def covet_app(**sessions: Any) -> Any:
    """Covet, as a new application has it."""
    from covet import Covet, Request

    app = Covet({"app": {"secret_key": SECRET}, **({"sessions": sessions} if sessions else {})})

    @app.get("/none")
    async def none() -> dict[str, int]:
        return {"number": 1}

    @app.get("/read")
    async def read(request: Request) -> dict[str, int]:
        session = await request.session
        return {"number": session.get("number", 0)}

    @app.get("/write")
    async def write(request: Request) -> dict[str, int]:
        session = await request.session
        session["number"] = number = session.get("number", 0) + 1
        return {"number": number}

    return app


def starlette_routes() -> list[Any]:
    """The three routes, for whatever puts `request.session` there."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def none(request: Request) -> JSONResponse:
        return JSONResponse({"number": 1})

    async def read(request: Request) -> JSONResponse:
        return JSONResponse({"number": request.session.get("number", 0)})

    async def write(request: Request) -> JSONResponse:
        request.session["number"] = number = request.session.get("number", 0) + 1
        return JSONResponse({"number": number})

    return [Route("/none", none), Route("/read", read), Route("/write", write)]


def starlette_app() -> Any:
    """Starlette's own SessionMiddleware."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware

    return Starlette(routes=starlette_routes(), middleware=[Middleware(SessionMiddleware, secret_key=SECRET)])


def starsessions_app() -> Any:
    """starsessions with its store in memory, each session loaded for every request, as its documentation has it."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware

    return Starlette(
        routes=starlette_routes(),
        middleware=[
            Middleware(SessionMiddleware, store=InMemoryStore(), cookie_https_only=False),
            Middleware(SessionAutoloadMiddleware),
        ],
    )


def litestar_app() -> Any:
    """Litestar's server-side sessions."""
    from litestar import Litestar, Request, get
    from litestar.middleware.session.server_side import ServerSideSessionConfig
    from litestar.stores.memory import MemoryStore

    @get("/none")
    async def none() -> dict[str, int]:
        return {"number": 1}

    @get("/read")
    async def read(request: Request[Any, Any, Any]) -> dict[str, int]:
        return {"number": request.session.get("number", 0)}

    @get("/write")
    async def write(request: Request[Any, Any, Any]) -> dict[str, int]:
        number = request.session.get("number", 0) + 1
        request.set_session({**request.session, "number": number})
        return {"number": number}

    return Litestar(
        [none, read, write],
        middleware=[ServerSideSessionConfig().middleware],
        stores={"sessions": MemoryStore()},
        openapi_config=None,
    )


APPS: dict[str, Callable[[], Any]] = {
    "covet": covet_app,
    "covet_cookie": lambda: covet_app(store="cookie"),
    "starlette": starlette_app,
    "starsessions": starsessions_app,
    "litestar": litestar_app,
}


def scope_of(path: str, cookie: bytes | None) -> dict[str, Any]:
    """The ASGI scope of a request, as a server passes it."""
    headers: Headers = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"bench"), (b"accept", b"*/*")]
    if cookie is not None:
        headers.append((b"cookie", cookie))
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET",
        "scheme": "https", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip


def cookie_in(sent: list[Any]) -> bytes | None:
    """The cookie that a response sets, as a browser sends it back."""
    found = [value for name, value in sent[0]["headers"] if name.lower() == b"set-cookie"]
    return found[-1].partition(b";")[0] if found else None


async def begin(app: Any) -> bytes:
    """Begin a session, and see that it counts."""
    sent: list[Any] = []
    await request(app, scope_of("/write", None), b"", sent)
    cookie = cookie_in(sent)
    if cookie is None:
        raise ValueError(f"{app!r} sets no cookie: {sent}")
    for path, number in (("/write", 2), ("/read", 2)):
        sent.clear()
        await request(app, scope_of(path, cookie), b"", sent)
        cookie = cookie_in(sent) or cookie
        body = b"".join(message.get("body", b"") for message in sent[1:])
        if body.replace(b" ", b"") != b'{"number":%d}' % number:
            raise ValueError(f"{app!r} answers {path} with {body!r}")
    return cookie


async def whole(app: Any, path: str, cookie: bytes, count: int) -> float:
    """CPU microseconds per request."""
    scope = scope_of(path, cookie)
    sent: list[Any] = []
    began = time.process_time()
    for _ in range(count):
        sent.clear()
        await request(app, scope, b"", sent)
    return (time.process_time() - began) / count * 1e6


async def reading(app: Any, cookie: bytes, count: int) -> tuple[float, float]:
    """CPU microseconds of reading a session, and of a dictionary lookup."""
    from covet import Request

    scope = scope_of("/read", cookie)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def read(made: Request) -> Any:
        session = await made.session
        return session.get("number")

    async def nothing(made: Request) -> Any:
        return made

    async def timed(call: Callable[[Request], Awaitable[Any]]) -> float:
        made = [Request(scope, receive, app) for _ in range(count)]
        began = time.process_time()
        for each in made:
            await call(each)
        return time.process_time() - began

    microseconds = (await timed(read) - await timed(nothing)) / count * 1e6
    values = {f"key {number}": number for number in range(LOOKUPS)}
    keys = list(values)
    began = time.process_time()
    for _ in range(count // 10):
        for key in keys:
            values[key]
    lookup = (time.process_time() - began) / (count // 10 * LOOKUPS) * 1e6
    return microseconds, lookup


async def run(chosen: argparse.Namespace) -> dict[str, str]:
    """The sections of the report."""
    apps = {name: APPS[name]() for name in chosen.peers}
    paths = ["/none", "/read", "/write"]
    times: dict[str, dict[str, list[float]]] = {path: {name: [] for name in apps} for path in paths}
    reads: list[tuple[float, float]] = []
    async with AsyncExitStack() as stack:
        for app in apps.values():
            await stack.enter_async_context(running(app))
        cookies = {name: await begin(app) for name, app in apps.items()}
        for _ in range(chosen.rounds):
            for path in paths:
                for name, app in apps.items():
                    gc.collect()
                    times[path][name].append(await whole(app, path, cookies[name], chosen.count))
            if "covet" in apps:
                gc.collect()
                reads.append(await reading(apps["covet"], cookies["covet"], chosen.count))
    sections = {}
    if reads:
        microseconds, lookup = (median(each) for each in zip(*reads, strict=True))
        multiple = median(read / one for read, one in reads)
        sections["Reading a session"] = evidence.table(
            ["", "µs", "in dictionary lookups", "goal, µs"],
            [
                ["session read", f"{microseconds:.2f}", f"{multiple:.0f}", f"≤ {GOAL_MICROSECONDS:.0f}"],
                ["dictionary lookup", f"{lookup:.4f}", "1", ""],
            ],
        )

    def added(path: str, name: str) -> float:
        return median(own - none for own, none in zip(times[path][name], times["/none"][name], strict=True))

    sections["Whole requests, CPU microseconds"] = "The median of the rounds.\n\n" + evidence.table(
        ["application", *(path.strip("/") for path in paths), "read - none", "write - none"],
        [
            [
                name,
                *(f"{median(times[path][name]):.2f}" for path in paths),
                *(f"{added(path, name):.2f}" for path in paths[1:]),
            ]
            for name in apps
        ],
    )
    return sections


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- sessions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=2000, help="requests per round")
    parser.add_argument("--peers", nargs="+", choices=list(APPS), default=list(APPS))
    chosen = parser.parse_args()
    evidence.write(
        "sessions",
        "Sessions: what one costs",
        ABOUT.format(rounds=chosen.rounds, count=chosen.count),
        DISTRIBUTIONS,
        asyncio.run(run(chosen)),
    )


if __name__ == "__main__":
    main()
