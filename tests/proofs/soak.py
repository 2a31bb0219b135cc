"""Ten minutes of load with every builtin plugin at work, on two workers: no error, and no growth of memory.

`wrk` asks, in turn, for pages that use sessions, caches, rate limits, templates, static files, compression, CORS, CSP
with a nonce, health checks and forms that CSRF protection looks at. The memory of each worker is read every ten
seconds. Growth is what a worker has in the last quarter of the time beyond what it had in the second quarter, medians
of both.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import evidence

TARGET = "tests.soak.application:app"
PATIENCE = 60.0
GROWTH = 1.0
"""MiB by which a worker may grow: what an allocator's pages come and go by."""

SCRIPT = """
local paths = { %s }
local turn = 0
request = function()
  turn = turn + 1
  local path = paths[turn %% #paths + 1]
  local headers = {
    ["Accept-Encoding"] = "gzip, zstd", ["Cookie"] = cookie, ["Origin"] = "https://app.example",
    ["X-Forwarded-For"] = "203.0.113." .. (turn %% 250 + 1), ["X-Forwarded-Proto"] = "https", ["Host"] = "app.example",
  }
  if path == "/form" then
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    headers["Sec-Fetch-Site"] = "same-origin"
    return wrk.format("POST", path, headers, "name=ann&amount=5")
  end
  return wrk.format("GET", path, headers)
end
"""
PATHS = (
    "/", "/json", "/session", "/visit", "/cached", "/computed", "/limited", "/page", "/static/app.css", "/large",
    "/form", "/published", "/object", "/health/ready",
)  # fmt: skip


@contextmanager
def serving(server: str, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`covet run` with two workers; gives the process and the URL."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "covet", "run", TARGET, "--port", str(port), "--workers", "2", "--server", server]
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(url + "/health/live", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((directory / "server.log").read_text(encoding="utf-8")) from None
                time.sleep(0.1)
        yield process, url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def workers(pid: int) -> list[int]:
    """The processes below a server's that have no children of their own and are no helpers of the interpreter."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"resource_tracker" not in command:
            found += workers(int(child)) or [int(child)]
    return found


def resident(pid: int) -> float:
    """The resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} is gone")


def cookie(url: str) -> str:
    """The cookie of a session."""
    request = urllib.request.Request(url + "/visit", headers={"Host": "app.example", "X-Forwarded-Proto": "https"})
    with urllib.request.urlopen(request, timeout=10) as response:
        sent: str = response.headers["set-cookie"]
    return sent.partition(";")[0]


def soak(server: str, seconds: int, every: float) -> tuple[list[str], dict[str, list[float]]]:
    """Load a server; what `wrk` printed, and the memory of each worker over time.

    Raises:
        AssertionError: there was an error, a response other than 2xx or 3xx, or a worker died.
    """
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary, serving(server, Path(temporary)) as (process, url):
        script = Path(temporary, "soak.lua")
        head = f'local cookie = "{cookie(url)}"\n'
        script.write_text(head + SCRIPT % ", ".join(f'"{path}"' for path in PATHS), encoding="utf-8")
        before = workers(process.pid)
        memory: dict[str, list[float]] = {f"worker {number + 1}": [] for number in range(len(before))}
        command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            while load.poll() is None:
                for name, pid in zip(memory, before, strict=True):
                    memory[name].append(resident(pid))
                time.sleep(every)
            printed = load.stdout.read() if load.stdout is not None else ""
        assert workers(process.pid) == before, "a worker was replaced"
        log = Path(temporary, "server.log").read_text(encoding="utf-8")
    assert "Non-2xx" not in printed, printed + log[-5000:]
    assert "Socket errors" not in printed, printed + log[-5000:]
    assert "Traceback" not in log, log[-5000:]
    return printed.splitlines(), memory


def growth(samples: list[float]) -> float:
    """MiB by which the last quarter lies above the second."""
    quarter = max(1, len(samples) // 4)
    return median(samples[-quarter:]) - median(samples[quarter : 2 * quarter] or samples[:quarter])


def main() -> None:
    parser = argparse.ArgumentParser(prog="proof -- soak", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--every", type=float, default=10.0)
    parser.add_argument("--servers", nargs="+", choices=["granian", "uvicorn"], default=["granian"])
    chosen = parser.parse_args()
    rows, sections = [], {}
    for server in chosen.servers:
        printed, memory = soak(server, chosen.seconds, chosen.every)
        found = re.search(r"(\d+) requests in", "\n".join(printed))
        assert found is not None, printed
        for name, samples in memory.items():
            grown = growth(samples)
            assert grown <= GROWTH, f"{server}, {name}: {grown:.1f} MiB more: {samples}"
            rows.append(
                [server, name, f"{samples[0]:.1f}", f"{max(samples):.1f}", f"{samples[-1]:.1f}", f"{grown:+.2f}",
                 f"{int(found[1]):,}", "0"]
            )  # fmt: skip
        sections[f"What wrk printed ({server})"] = "```text\n" + "\n".join(printed) + "\n```"
    head = [
        "server",
        "process",
        "first, MiB",
        "most, MiB",
        "last, MiB",
        "growth, MiB",
        "requests, both workers",
        "errors",
    ]
    evidence.write(
        "soak",
        "Ten minutes with everything switched on",
        __doc__ or "",
        ["covet-core", "granian", "uvicorn", "jinja2", "cryptography", "backports-zstd"],
        {"Memory": evidence.table(head, rows), **sections},
        session="proof",
    )


if __name__ == "__main__":
    main()
