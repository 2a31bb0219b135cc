"""Rate limits under load: how much two workers let through, against the exact bound.

`covet run` serves with two workers, `wrk` asks as fast as it can, and the handler notes each request that was let
through: the process, and the time by which the limiter decided. From these times alone it is told how much was let
through in any time of any length, and how much may have been.

- Counted in the memory of each process, a limit holds for each process: the service lets through as much as there are
  workers, as documented.
- Counted in a cache backend that the workers share, here an SQLite file, it holds for all of them together.

A token bucket may let through `burst + rate * t / per` in any t seconds. The column "bound" says what that is from the
first request that was let through to the last; "most above it" looks at every pair of them, and may not be above 0. A
sliding window may let through `rate` in any `per` seconds; there the column "most above it" is for those.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from benchmarks import evidence

ROOT = Path(__file__).parent.parent.parent
RATE, PER, BURST = 50, 2, 100
WORKERS = 2
START_TIMEOUT = 60.0
SECOND = 1_000_000_000
NOTE = struct.Struct("<qq")

KINDS = {
    "token bucket": f"TokenBucketLimiter({RATE}, {PER}, burst={BURST}, **options)",
    "sliding window": f"SlidingWindowLimiter({RATE}, {PER}, **options)",
}
# The clock is the limiter's own but for noting what it said last in this request.
APPLICATION = """
import os
import struct
import time
from contextvars import ContextVar
from pathlib import Path

from covet import Covet
from covet.ratelimit import SlidingWindowLimiter, TokenBucketLimiter, limited
from tests.sqlite_cache import SQLiteCache

said = ContextVar("said")
here = Path(__file__).parent
notes = os.open(here / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def clock():
    now = {clock}()
    said.set(now)
    return now


options = dict(name="proof", backend={backend}, on_failure="refuse", timeout=60.0, clock=clock)
app = Covet()


@app.get("/")
@limited({limiter})
async def index() -> str:
    os.write(notes, struct.pack("<qq", os.getpid(), said.get()))
    return "let through"


@app.get("/ready")
async def ready() -> str:
    return "ready"
"""


@dataclass
class Outcome:
    """What one run let through."""

    kind: str
    where: str
    asked: int
    refused: int
    errors: str
    notes: list[tuple[int, int]]

    def groups(self) -> list[list[int]]:
        """The times at which requests were let through, of those that were counted together."""
        if self.where != "memory":
            return [sorted(when for _, when in self.notes)]
        return [
            sorted(when for who, when in self.notes if who == pid) for pid in sorted({who for who, _ in self.notes})
        ]

    def bound(self) -> int:
        """How much may have been let through from the first of each group to the last."""
        if self.kind == "token bucket":
            return sum(int(BURST + Fraction((times[-1] - times[0]) * RATE, PER * SECOND)) for times in self.groups())
        return sum(((times[-1] - times[0]) // (PER * SECOND) + 1) * RATE for times in self.groups())

    def above(self) -> Fraction:
        """The most that was let through above the bound, over every time that begins and ends with a request."""
        return max(self._above(times) for times in self.groups())

    def _above(self, times: list[int]) -> Fraction:
        if self.kind == "sliding window":
            most = begin = 0
            for end, when in enumerate(times):
                while when - times[begin] >= PER * SECOND:
                    begin += 1
                most = max(most, end - begin + 1)
            return Fraction(most - RATE)
        # Of the requests from i to j there are j - i + 1; what is above the bound is a difference of two such values.
        values = [number - Fraction(when * RATE, PER * SECOND) for number, when in enumerate(times)]
        most_above, least = Fraction(-BURST), values[0]
        for value in values:
            least = min(least, value)
            most_above = max(most_above, value - least + 1 - BURST)
        return most_above

    @property
    def failed(self) -> bool:
        """Whether more was let through than may be, or the run shows nothing."""
        expected = WORKERS if self.where == "memory" else 1
        return self.above() > 0 or len(self.groups()) != expected or not self.refused or bool(self.errors)

    def row(self) -> list[object]:
        """The outcome as a row of the table."""
        processes = [sum(1 for who, _ in self.notes if who == pid) for pid in sorted({who for who, _ in self.notes})]
        return [
            f"{self.kind}, {self.where}", f"{self.asked:,}", f"{self.refused:,}", " + ".join(map(str, processes)),
            len(self.notes), self.bound(), f"{float(self.above()):.6f}",
        ]  # fmt: skip


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of the application in `folder` while the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "covet", "run", "application:app", "--port", str(port), "--workers", str(WORKERS)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(server, url, folder / "log")
            yield url
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT
    while True:
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=10).close()
        except (urllib.error.URLError, ConnectionError):
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server does not answer: {log.read_text()}") from None
            time.sleep(0.2)
        else:
            # The other worker may be a little later.
            time.sleep(2)
            return


def run(kind: str, where: str, seconds: int, connections: int) -> Outcome:
    """Serve, ask, and read the notes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shared = where != "memory"
        (folder / "application.py").write_text(
            APPLICATION.format(
                clock="time.time_ns" if shared else "time.monotonic_ns",
                backend='SQLiteCache(here / "limits.db")' if shared else None,
                limiter=KINDS[kind],
            )
        )
        with served(folder) as url:
            command = ["wrk", "-t", "2", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "30s", url]
            told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 120).stdout
        asked = re.search(r"(\d+) requests in", told)
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
        errors = re.search(r"Socket errors: .*", told)
        assert asked is not None, told
        notes = [(pid, when) for pid, when in NOTE.iter_unpack((folder / "notes").read_bytes())]
        return Outcome(
            kind, where, int(asked[1]), int(refused[1]) if refused else 0, errors[0] if errors else "", notes
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="proof -- rate_limit", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--connections", type=int, default=32)
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed; `nox -s services` installs it or says how")
    outcomes = []
    for kind in KINDS:
        for where in ("memory", "SQLite"):
            outcomes.append(run(kind, where, chosen.seconds, chosen.connections))
            print("#", outcomes[-1].row(), outcomes[-1].errors, flush=True)
    head = [
        "limit, counted in",
        "requests",
        "refused",
        "let through by each worker",
        "in all",
        "bound",
        "most above it",
    ]
    evidence.write(
        "rate_limit",
        "Rate limits over two workers",
        (__doc__ or "") + f"\n{RATE} in {PER} seconds, a burst of {BURST}; {chosen.seconds} seconds of "
        f"`wrk` with {chosen.connections} connections each.\n",
        ["covet-core", "granian"],
        {"What was let through": evidence.table(head, [outcome.row() for outcome in outcomes])},
        session="proof",
    )
    sys.exit(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    main()
