"""Real servers for measurements: one worker each, on a free port, stopped at the end. Linux only: it reads `/proc`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 30.0
SERVERS = ("uvicorn", "granian")


class Server:
    """A running server.

    Attributes:
        url: where it answers, without a slash at the end.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = process

    def worker(self) -> int:
        """The process that serves: the child of a server that has a parent process, else the server itself."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        named = [int(child) for child in children if b"resource_tracker" not in _command(int(child))]
        return named[-1] if named else pid

    def resident(self) -> float:
        """The resident memory of the worker, in MiB."""
        for line in Path(f"/proc/{self.worker()}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("the worker is gone")


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@contextmanager
def serving(server: str, target: str) -> Iterator[Server]:
    """Serve `module:name` with one worker of `uvicorn` or `granian`; wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    options = {
        "uvicorn": ["--log-level", "warning", "--no-access-log"],
        "granian": ["--interface", "asgi", "--log-level", "warning", "--no-access-log"],
    }
    command = [sys.executable, "-m", server, target, "--host", "127.0.0.1", "--port", str(port), *options[server]]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        started = Server(process, port)
        _wait(process, started.url)
        yield started
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {process.args}") from None
            time.sleep(0.05)
