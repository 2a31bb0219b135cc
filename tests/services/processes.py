"""Servers that end with the process that started them, in folders that go with them, on ports of their own."""

from __future__ import annotations

import abc
import atexit
import contextlib
import json
import os
import pwd
import random
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar, cast

from tests.services.programs import search_path

__all__ = [
    "PATIENCE",
    "Keeper",
    "Server",
    "ServiceError",
    "alive",
    "family",
    "free_port",
    "open_unix_socket",
    "reachable_by",
    "release_port",
    "unprivileged",
    "wait_until",
]

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that anything may take on a slow machine."""

SCRIPT = Path(__file__).with_name("keeper.py")
TAIL = 4000
# Below those that Linux gives to outgoing connections, one of which could else take the port of a stopped server.
PORTS = range(20000, 32000)

_reserved: dict[int, socket.socket] = {}
_open: list[Keeper] = []


class ServiceError(Exception):
    """A server does not start, end, or do what was asked of it; the end of its log is in the message."""


def unprivileged() -> tuple[int, int] | None:
    """User and group id of servers that refuse to run as root; None where this process is not root."""
    if os.geteuid():
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def reachable_by(user: tuple[int, int] | None, path: Path) -> bool:
    """Whether a user who owns nothing on the way may use a file; for None, this process's own."""
    if user is None:
        return os.access(path, os.X_OK)
    return all(each.stat().st_mode & stat.S_IXOTH for each in (path, *path.parents))


def free_port() -> int:
    """A free port of 127.0.0.1, reserved while this process lives, whether somebody listens there or not."""
    for port in random.sample(PORTS, len(PORTS)):
        if port in _reserved:
            continue
        try:
            with contextlib.ExitStack() as stack:
                if sys.platform == "linux":
                    # A name that processes of this machine share, and that its owner's end frees.
                    name = stack.enter_context(socket.socket(socket.AF_UNIX))
                    name.bind(f"\0covet-tests-{port}")
                    _reserved[port] = name
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
                stack.pop_all()
                return port
        except OSError:
            _reserved.pop(port, None)
    raise ServiceError("no port is free")


def release_port(port: int) -> None:
    """Let others have a port again."""
    if (name := _reserved.pop(port, None)) is not None:
        name.close()


def open_unix_socket(path: Path) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """What a condition gives once it is true.

    Raises:
        ServiceError: it is not in `patience` seconds.
    """
    deadline = time.monotonic() + patience
    pause = 0.002
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise ServiceError(f"waited {patience:g} s in vain until {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return found


def alive(pid: int) -> bool:
    """Whether a process is there, and not only what is left of one that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def family(root: int) -> set[int]:
    """A process and all that are below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


class Keeper:
    """Runs the commands of one server, one at a time, and ends with this process, however that ends.

    Args:
        name: of the server.
        user: as `unprivileged` says.
        farewell: the signal that makes the server end at once, when this process is gone or `close` is called.

    Attributes:
        folder: belongs to the server; it is removed at the end. Its path is short enough for Unix sockets.
        log: what the commands printed.
    """

    def __init__(self, name: str, user: tuple[int, int] | None, farewell: signal.Signals = signal.SIGKILL) -> None:
        self.name = name
        self.user = user
        self.folder = Path(tempfile.mkdtemp(prefix=f"covet-{name}-"))
        if user is not None:
            os.chown(self.folder, *user)
        self.log = self.folder / "log"
        self._lock = threading.Lock()
        options = {"folder": str(self.folder), "user": user, "farewell": int(farewell), "parent": os.getpid()}
        # Neither Ctrl-C nor a hang-up is for it: this process hears of them, and has something to say to its servers.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SCRIPT), json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", start_new_session=True,
        )  # fmt: skip
        self._in = cast(IO[bytes], self._process.stdin)
        self._out = cast(IO[bytes], self._process.stdout)
        self._owner = os.getpid()
        _open.append(self)

    @property
    def pid(self) -> int:
        """The process that keeps the server; all of the server's are below it."""
        return self._process.pid

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> int:
        """Start a command; its process id.

        Raises:
            ServiceError: it cannot be, or one runs.
        """
        # MariaDB removes what it takes for its own from the temporary directory when it starts, other servers' as well.
        home = {"HOME": str(self.folder), "TMPDIR": str(self.folder)}
        variables = {"PATH": search_path(), "LC_ALL": "C", **home, **(environment or {})}
        answer = self._ask("start", command=[*map(str, command)], environment=variables, log=str(self.log))
        return int(answer["pid"])

    def run(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Run a command to its end.

        Raises:
            ServiceError: it fails.
        """
        self.start(command, environment)
        if code := self.wait():
            raise ServiceError(f"{command[0]} ended with {code}: {self.tail()}")

    def poll(self) -> int | None:
        """The exit code of the command when it has ended; as that of `subprocess`."""
        code: int | None = self._ask("poll")["code"]
        return code

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit code of the command, once it has ended.

        Raises:
            ServiceError: it does not in time.
        """
        try:
            wait_until(lambda: self.poll() is not None, "it ended", patience)
        except ServiceError as error:
            raise ServiceError(f"{self.name}: {error}: {self.tail()}") from None
        return cast(int, self.poll())

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        self._ask("signal", number=int(number))

    def kill(self) -> None:
        """Kill the command and all that it started with signal 9; return when nothing of it is left."""
        self._ask("kill")

    def tail(self) -> str:
        """The end of the log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "(no log)"
        return text[-TAIL:].strip() or "(it printed nothing)"

    def close(self) -> None:
        """End what runs, and remove the folder. Idempotent; does nothing in a process that was forked."""
        if self not in _open or self._owner != os.getpid():
            return
        _open.remove(self)
        with self._lock:
            with contextlib.suppress(BrokenPipeError):
                self._in.close()
            self._process.wait()
            self._out.close()
        # Where it was killed, that has remained.
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ask(self, what: str, **arguments: object) -> dict[str, Any]:
        with self._lock:
            try:
                self._in.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
                self._in.flush()
                line = self._read()
            except (BrokenPipeError, ValueError):
                raise ServiceError(f"{self.name}: its keeper is gone") from None
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServiceError(f"{self.name}: {answer['error']}: {self.tail()}")
        return answer

    def _read(self) -> bytes:
        if not select.select([self._out], [], [], PATIENCE)[0]:
            raise ServiceError(f"{self.name}: its keeper does not answer")
        line = self._out.readline()
        if not line:
            raise BrokenPipeError
        return line


@atexit.register
def _close_all() -> None:
    for keeper in list(_open):
        keeper.close()
    for port in list(_reserved):
        release_port(port)


class Server(abc.ABC):
    """A server that can be started, stopped and killed, again and again, on one port.

    Also a context manager that closes it. Not started by its constructor.

    Attributes:
        name: what it is, for people and for ids of tests.
        host: where it listens.
        port: where it listens, in all of its lives.
        folder: all of its files; removed by `close`.
    """

    host = "127.0.0.1"
    #: Ends it at once, in good order.
    farewell = signal.SIGTERM
    #: Lets it finish what it does with its clients gone.
    graceful = signal.SIGTERM

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.keeper = Keeper(name, unprivileged(), self.farewell)
        self.folder = self.keeper.folder
        self.pid: int | None = None

    @abc.abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What starts it, in the foreground; called at each start, to write its configuration as well."""

    @abc.abstractmethod
    def ready(self) -> bool:
        """Whether it takes connections."""

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.pid is not None and self.keeper.poll() is None

    def start(self) -> Self:
        """Start it, and wait until it takes connections; itself. Does nothing where it runs.

        Raises:
            ServiceError: it does not start.
        """
        if not self.running:
            self.pid = self.keeper.start(self.command())
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until it takes connections.

        Raises:
            ServiceError: it ends, or does not in time.
        """

        def settled() -> bool:
            if not self.running:
                raise ServiceError(f"{self.name} ended with {self.keeper.poll()}: {self.keeper.tail()}")
            return self.ready()

        try:
            wait_until(settled, "it takes connections")
        except ServiceError as error:
            raise ServiceError(f"{self.name}: {error}: {self.keeper.tail()}") from None

    def stop(self, *, graceful: bool = True) -> None:
        """Stop it, and wait until it is gone; does nothing where it does not run.

        Args:
            graceful: in good order, with its clients told and its data written out; else at once, for it to recover.
        """
        if self.running:
            self.keeper.signal(self.graceful if graceful else self.farewell)
            self.keeper.wait()

    def kill(self) -> None:
        """Kill all of its processes with signal 9, and wait until they are gone."""
        self.keeper.kill()

    def restart(self, *, graceful: bool = True) -> Self:
        """Stop it, and start it again on the same port with the same data; itself."""
        self.stop(graceful=graceful)
        return self.start()

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self.keeper.tail()

    def close(self) -> None:
        """Stop it, and remove its files. Idempotent."""
        self.keeper.close()
        release_port(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
