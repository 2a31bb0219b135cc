"""Requests per second over sockets, each framework under the same server, with the load generator `wrk`.

All applications run at once, one worker each, and take turns, so that a shared, noisy machine distorts no ratio. The
load generator shares the machine with the server, so absolute figures say little; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import evidence
from benchmarks.http import DISTRIBUTIONS, PEERS
from benchmarks.servers import SERVERS, Server, serving
from benchmarks.workloads import WORKLOADS, Workload

ABOUT = """
`wrk` with one thread and {connections} connections against one worker of each server; {rounds} interleaved rounds of
{seconds} seconds each. Resident memory is that of the worker process after the load. The applications are those of the
benchmark `http`, each with 300 routes.
"""


def load(server: Server, workload: Workload, seconds: int, connections: int, script: Path) -> float:
    """Requests per second that a server answered.

    Raises:
        RuntimeError: there were errors, or answers other than 2xx and 3xx.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    if workload.body:
        body = workload.body.decode().replace("\\", "\\\\").replace("'", "\\'")
        lines = (
            f"wrk.method = '{workload.method}'",
            f"wrk.body = '{body}'",
            "wrk.headers['content-type'] = 'application/json'",
        )
        script.write_text("\n".join(lines), encoding="utf-8")
        command += ["-s", str(script)]
    done = subprocess.run([*command, server.url + workload.path], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}")
    found = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError(f"{' '.join(command)} printed no rate: {done.stdout}")
    return float(found[1])


def run(server: str, chosen: argparse.Namespace) -> str:
    """The table of one server."""
    with ExitStack() as stack:
        script = Path(stack.enter_context(tempfile.TemporaryDirectory()), "body.lua")
        running = {
            peer: stack.enter_context(serving(server, f"benchmarks.peers_http.{peer}:app")) for peer in chosen.peers
        }
        idle = {peer: started.resident() for peer, started in running.items()}
        rates: dict[str, dict[str, list[float]]] = {}
        for name in chosen.workloads:
            rates[name] = {peer: [] for peer in running}
            for _ in range(chosen.rounds):
                for peer, started in running.items():
                    rate = load(started, WORKLOADS[name], chosen.seconds, chosen.connections, script)
                    rates[name][peer].append(rate)
            medians = "  ".join(f"{peer}={median(got):.0f}" for peer, got in rates[name].items())
            print(f"# {server} {name}: {medians}", flush=True)
        loaded = {peer: started.resident() for peer, started in running.items()}
    titles = [f"{WORKLOADS[name].title}, requests/s" for name in chosen.workloads]
    rows = [
        [
            peer,
            *(f"{median(rates[name][peer]):,.0f}" for name in chosen.workloads),
            f"{idle[peer]:.1f}",
            f"{loaded[peer]:.1f}",
        ]
        for peer in chosen.peers
    ]
    return evidence.table(["application", *titles, "idle, MiB", "after the load, MiB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- sockets", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=["plain", "json", "body"])
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed; `nox -s services` installs it or says how")
    evidence.write(
        "sockets",
        "HTTP over sockets",
        ABOUT.format(connections=chosen.connections, rounds=chosen.rounds, seconds=chosen.seconds),
        [*DISTRIBUTIONS, "uvicorn", "uvloop", "httptools", "granian"],
        {f"Under {server}": run(server, chosen) for server in chosen.servers},
    )


if __name__ == "__main__":
    main()
