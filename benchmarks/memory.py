"""Memory: an idle worker beside Starlette's under the same server, and growth over 200,000 requests."""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks import evidence
from benchmarks.http import make_scope, request, running
from benchmarks.servers import SERVERS, serving
from benchmarks.workloads import LAST, WORKLOADS, Workload

APPS = ("covet", "starlette")
MISSED = [
    Workload("missing", "no route", "GET", "/missing", b"", None),
    Workload("refused", "method not allowed", "DELETE", "/json", b"", None),
    Workload("invalid", "a body that does not validate", "POST", "/body", b'{"id": "seven"}', None),
    Workload("malformed", "a body that is no JSON", "POST", "/body", b"{", None),
    Workload("convert", "a parameter that does not convert", "GET", LAST.replace("42", "x"), b"", None),
]
ABOUT = """
The idle worker serves one route that answers with text, has answered one request, and is left alone; median of {starts}
starts, interleaved. Growth is that of this process while an application with 300 routes answers {count:,} requests in
turn: the five workloads of the benchmark `http`, and five requests that are refused.
"""


def idle(starts: int) -> str:
    """The table of idle workers."""
    rows = []
    for server in SERVERS:
        found: dict[str, list[float]] = {app: [] for app in APPS}
        for _ in range(starts):
            for app in APPS:
                with serving(server, f"benchmarks.peers_idle.{app}:app") as started:
                    found[app].append(started.resident())
        covet, starlette = (median(found[app]) for app in APPS)
        rows.append([server, f"{covet:.1f}", f"{starlette:.1f}", f"{covet / starlette:.2f}"])
        print(f"# {server}: covet={covet:.1f} starlette={starlette:.1f}", flush=True)
    return evidence.table(["server", "covet, MiB", "starlette, MiB", "ratio (goal ≤ 1)"], rows)


STEPS = {
    "msgspec, which Covet decodes and encodes with": "import msgspec",
    "anyio with its asyncio backend, which Starlette loads when it first needs a thread or a task group": (
        "import anyio.to_thread, anyio._backends._asyncio"
    ),
    "pluggy": "import pluggy",
    "the application: Covet's modules, its three builtin plugins, one route": (
        "from benchmarks.peers_idle.covet import app; app.build()"
    ),
}
COMPOSITION = """
import uvicorn.main, uvicorn.lifespan.on, uvicorn.loops.auto
import uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))

before = resident()
for step in {steps!r}:
    exec(step)
    print(resident() - before)
    before = resident()
"""


def composition(starts: int) -> str:
    """The table of what an idle worker's memory is made of, beyond what the server has loaded."""
    found: list[list[int]] = []
    for _ in range(starts):
        code = COMPOSITION.format(steps=list(STEPS.values()))
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        found.append([int(line) for line in done.stdout.split()])
    rows = [[step, f"{median(got) / 1024:.1f}"] for step, got in zip(STEPS, zip(*found, strict=True), strict=True)]
    return evidence.table(["loaded, in this order, into a process that has uvicorn", "MiB"], rows)


def resident() -> int:
    """The resident memory of this process, in KiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("the system does not tell the memory of a process")


async def growth(count: int, parts: int) -> str:
    """The table of growth: memory and live objects at every part of `count` requests."""
    from benchmarks.peers_http.covet import app

    workloads = [*WORKLOADS.values(), *MISSED]
    scopes = [(make_scope(workload), workload.body) for workload in workloads]
    rows = []
    async with running(app):
        for part in range(parts + 1):
            gc.collect()
            # A tuple of text is nothing that the collector tracks, so that the rows do not count themselves.
            rows.append((f"{count * part // parts:,}", f"{resident():,}", f"{len(gc.get_objects()):,}"))
            print(f"# {rows[-1]}", flush=True)
            if part == parts:
                break
            for _ in range(count // parts // len(scopes)):
                for scope, body in scopes:
                    await request(app, scope, body, [])
    return evidence.table(["requests", "resident, KiB", "objects that the collector tracks"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- memory", description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--count", type=int, default=200_000)
    chosen = parser.parse_args()
    evidence.write(
        "memory",
        "Memory",
        ABOUT.format(starts=chosen.starts, count=chosen.count),
        ["covet-core", "starlette", "uvicorn", "granian"],
        {
            "An idle worker": idle(chosen.starts),
            "What it is made of": composition(chosen.starts),
            f"Growth over {chosen.count:,} requests": asyncio.run(growth(chosen.count, 10)),
        },
    )


if __name__ == "__main__":
    main()
