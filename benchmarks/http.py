"""The cost of one HTTP request in each framework, without sockets, in interleaved rounds.

Each peer's ASGI application is called with prepared scopes, so that the figure is the framework alone. The peers take
turns in every round, so that a shared, noisy machine distorts no ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Any

from benchmarks import evidence
from benchmarks.workloads import WORKLOADS, Workload

COVET = ["covet", "covet_alone", "covet_20plugins", "covet_5hooks"]
PEERS = ["bare", *COVET, "blacksheep", "falcon", "starlette", "litestar", "fastapi"]
DISTRIBUTIONS = ["covet-core", "blacksheep", "falcon", "starlette", "litestar", "fastapi", "msgspec", "pydantic"]
LIFESPAN_TIMEOUT = 20.0
ABOUT = """
Each ASGI application is called in this process with prepared scopes, without sockets. `bare` is a hand-written ASGI
function without errors, limits or anything else: the floor. `covet` has the builtin plugins of a new application,
`covet_alone` none, `covet_20plugins` twenty more that implement no request hook, `covet_5hooks` five more that
implement `covet_request_started`. {rounds} interleaved rounds of {count} requests.
"""

Rounds = dict[str, list[float]]
"""The CPU microseconds per request of each round, by peer."""


def make_scope(workload: Workload) -> dict[str, Any]:
    """The ASGI scope of a request, as a server passes it."""
    headers = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"bench"), (b"accept", b"*/*")]
    if workload.body:
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(workload.body)).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": workload.method,
        "scheme": "http",
        "path": workload.path,
        "raw_path": workload.path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def request(app: Any, scope: dict[str, Any], body: bytes, sent: list[Any]) -> None:
    """Send one request to an application; what it sends goes to `sent`."""
    received = False

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received:
            await asyncio.sleep(3600)
        received = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(dict(scope), receive, send)


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[None]:
    """Run an application's start-up, and its shutdown at the end."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()

    async def pass_phase(phase: str) -> None:
        await to_app.put({"type": f"lifespan.{phase}"})
        answer = await asyncio.wait_for(from_app.get(), LIFESPAN_TIMEOUT)
        if answer["type"] != f"lifespan.{phase}.complete":
            raise RuntimeError(f"{phase} failed: {answer}")

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, to_app.get, from_app.put))
    await pass_phase("startup")
    yield
    await pass_phase("shutdown")
    await task


async def check(app: Any, workload: Workload) -> None:
    """Raise ValueError unless the application answers a workload rightly."""
    sent: list[Any] = []
    await request(app, make_scope(workload), workload.body, sent)
    workload.check(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))


async def measure(app: Any, workload: Workload, count: int) -> float:
    """CPU microseconds per request, over `count` requests."""
    scope = make_scope(workload)
    sent: list[Any] = []
    began = time.process_time()
    for _ in range(count):
        sent.clear()
        await request(app, scope, workload.body, sent)
    return (time.process_time() - began) / count * 1e6


async def run(peers: list[str], workloads: list[Workload], rounds: int, count: int) -> dict[str, Rounds]:
    """The rounds of every workload, by its name."""
    apps = {peer: importlib.import_module(f"benchmarks.peers_http.{peer}").app for peer in peers}
    results = {}
    async with AsyncExitStack() as stack:
        for app in apps.values():
            await stack.enter_async_context(running(app))
        for workload in workloads:
            for app in apps.values():
                await check(app, workload)
                await measure(app, workload, count // 10)
            times: Rounds = {peer: [] for peer in apps}
            for _ in range(rounds):
                for peer, app in apps.items():
                    gc.collect()
                    times[peer].append(await measure(app, workload, count))
            results[workload.name] = times
            medians = "  ".join(f"{peer}={median(got):.2f}" for peer, got in times.items())
            print(f"# {workload.name}: {medians}", flush=True)
    return results


def ratio(times: Rounds, peer: str) -> float:
    """What a peer costs in multiples of the bare function: the median of the ratios within each round."""
    return median(own / bare for own, bare in zip(times[peer], times["bare"], strict=True))


def _builtin(results: dict[str, Rounds]) -> dict[str, str]:
    """What the builtin plugins add to requests that do not use them, where both were measured."""
    rows = [
        [
            WORKLOADS[name].title,
            f"{median(own - bare for own, bare in zip(t['covet'], t['covet_alone'], strict=True)):+.2f}",
        ]
        for name, t in results.items()
        if {"covet", "covet_alone"} <= t.keys()
    ]
    about = "The median of the differences within each round; the goal is at most 0.3 for plain text.\n\n"
    head = ["workload", "microseconds that the builtin plugins add"]
    return {"Builtin plugins that a request does not use": about + evidence.table(head, rows)} if rows else {}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- http", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=2000, help="requests per round")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    chosen = parser.parse_args()
    peers = ["bare", *(peer for peer in chosen.peers if peer != "bare")]
    workloads = [WORKLOADS[name] for name in chosen.workloads]
    results = asyncio.run(run(peers, workloads, chosen.rounds, chosen.count))
    ratios = [
        [workload.title, *(f"{ratio(results[workload.name], peer):.2f}" for peer in peers), f"≤ {workload.goal}"]
        for workload in workloads
    ]
    micros = [
        [workload.title, *(f"{median(results[workload.name][peer]):.2f}" for peer in peers)] for workload in workloads
    ]
    evidence.write(
        "http",
        "HTTP: the framework's own cost of a request",
        ABOUT.format(rounds=chosen.rounds, count=chosen.count),
        DISTRIBUTIONS,
        {
            **_builtin(results),
            "Ratio to the bare function": "The median of the ratios within each round.\n\n"
            + evidence.table(["workload", *peers, "goal for covet"], ratios),
            "CPU microseconds per request": "The median of the rounds.\n\n"
            + evidence.table(["workload", *peers], micros),
        },
    )


if __name__ == "__main__":
    main()
