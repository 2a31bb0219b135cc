"""Keeps one server for the process that started this one, and lets nothing of it outlive that process.

A script of its own, spoken to by `tests.services.processes`: a line of JSON on standard input is a command, a line on
standard output its answer. When standard input ends, because it was closed or because whoever held it was killed, the
server is ended, everything that it started as well, and its folder is removed. When this process itself is killed, the
kernel kills the server.

That works fully on Linux, which gives orphans to this process (prctl(2), PR_SET_CHILD_SUBREAPER); elsewhere only the
server's own process group is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"
# Seconds: for the server to end when it is told to; for what was killed to be gone; between looks at the parent.
FAREWELL = 5.0
GONE = 30.0
LOOK = 1.0


def prctl(option: int, value: int) -> None:
    """prctl(2)."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


class Keeper:
    """Runs one command at a time.

    Args:
        folder: removed at the end.
        user: user and group id of what it runs; None for its own.
        farewell: the signal that ends a server at once, in good order.
    """

    def __init__(self, folder: str, user: tuple[int, int] | None, farewell: int) -> None:
        self.folder = folder
        self.user = user
        self.farewell = farewell
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], environment: dict[str, str], log: str) -> dict[str, Any]:
        """Start a command; what it prints is added to a file."""
        self._reap()
        if self._runs():
            return {"error": "it runs already"}
        uid, gid = self.user or (None, None)
        try:
            with open(log, "ab") as output:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder, env=environment,
                    start_new_session=True, user=uid, group=gid, extra_groups=None if uid is None else [],
                    # After the change of the user, which would make the kernel forget it; there are no threads here.
                    preexec_fn=_die_with_parent if LINUX else None,
                )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            return {"error": f"{command[0]}: {error}"}
        return {"pid": self.process.pid}

    def poll(self) -> dict[str, Any]:
        """The exit code of the command, once it has ended."""
        self._reap()
        return {"code": None if self.process is None else self.process.returncode}

    def signal(self, number: int) -> dict[str, Any]:
        """Send the command a signal."""
        self._reap()
        if self.process is not None and self._runs():
            os.kill(self.process.pid, number)
        return {}

    def kill(self) -> dict[str, Any]:
        """Kill the command, and all that it started, with signal 9; return when nothing is left."""
        if self.process is not None and self._runs():
            # It first, so that it replaces none of the others.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            if not LINUX:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + GONE
        while (left := list(_descendants(os.getpid()))) or self._runs():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            if time.monotonic() > deadline:
                return {"error": f"{left} do not die"}
            time.sleep(0.002)
        return {}

    def end(self) -> None:
        """End the command and all that it started; remove the folder."""
        self.signal(self.farewell)
        deadline = time.monotonic() + FAREWELL
        while self._runs() and time.monotonic() < deadline:
            time.sleep(0.005)
            self._reap()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _runs(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def _reap(self) -> None:
        # Orphans of the server are children of this process as well.
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.process is not None and pid == self.process.pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)


def _die_with_parent() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _descendants(root: int) -> Iterator[int]:
    if not LINUX:
        return
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name of the program is in parentheses, and may contain some.
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    for pid in parents:
        above = pid
        while above in parents and above != root:
            above = parents[above]
        if above == root and pid != root:
            yield pid


def main(arguments: list[str]) -> None:
    """Obey until standard input ends, the parent is gone, or this process is told to end."""
    options = json.loads(arguments[0])
    parent: int = options["parent"]
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    user = options["user"]
    keeper = Keeper(options["folder"], None if user is None else (user[0], user[1]), options["farewell"])
    pending = b""
    try:
        # A process that was forked from the parent may hold the pipe open when the parent is gone.
        while os.getppid() == parent:
            ready, _, _ = select.select([0, woken], [], [], LOOK)
            if woken in ready:
                return
            if 0 not in ready:
                # What starts and ends servers by itself, as Patroni does, waits until nothing of them is left.
                keeper.poll()
                continue
            received = os.read(0, 1 << 16)
            if not received:
                return
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                command = json.loads(line)
                answer = getattr(keeper, command.pop("do"))(**command)
                os.write(1, json.dumps(answer).encode() + b"\n")
    except BrokenPipeError:
        return
    finally:
        keeper.end()


if __name__ == "__main__":
    main(sys.argv[1:])
