"""Nothing of a server outlives who started it, and nobody else's is touched."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.services import processes, programs
from tests.services.databases import NAMES, a_server
from tests.services.postgresql import PostgreSQL
from tests.services.processes import Keeper, ServiceError, alive, family, free_port, wait_until

ROOT = Path(__file__).parents[2]
SERVERS = [name for name in NAMES if name != "sqlite"]


EVERYTHING = """
import json, sys, time
from tests.services import pgbouncer
from tests.services.databases import Databases

def main():
    with Databases() as databases:
        a, b, c = databases.postgresql(15), databases.postgresql(18), databases.mariadb()
        with a.replica() as d, c.replica() as e, pgbouncer.run(a) as f:
            for server in (a, b, c):
                server.execute("CREATE TABLE t (a int)", database=server.empty_database("test").rpartition("/")[2])
            servers = (a, b, c, d, e, f)
            print(json.dumps([[str(each.folder), each.keeper.pid, each.port] for each in servers]), flush=True)
            sys.stdin.read()

main()
"""


class Session:
    """Another process with servers of every kind.

    Attributes:
        folders: of its servers.
        pids: of all processes below it.
    """

    def __init__(self, folder: Path) -> None:
        self.temporary = folder
        folder.mkdir()
        folder.chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, "-c", EVERYTHING], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        self.servers: list[tuple[str, int, int]] = json.loads(line)
        self.pids = family(self.process.pid)
        # More than each server and its keeper.
        assert len(self.pids) > 2 * len(self.servers)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def gone(self) -> None:
        self.process.communicate()
        wait_until(lambda: not any(map(alive, self.pids)), "its processes are gone")
        wait_until(lambda: not list(self.temporary.iterdir()), "its folders are gone")


@pytest.fixture
def sessions() -> Iterator[Callable[[], Session]]:
    """Begins a session with each call; all of them end with the test."""
    # The servers' user must be able to enter it, and there must be room for the path of a Unix socket.
    with tempfile.TemporaryDirectory(prefix="covet-test-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)

        def begin() -> Session:
            session = Session(folder / str(len(list(folder.iterdir()))))
            stack.callback(session.end)
            return session

        yield begin


@pytest.mark.parametrize("end", ["leave", "SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_is_left_of_another_process(end: str, sessions: Callable[[], Session]) -> None:
    for command in ("postgres", "mariadbd", "pgbouncer"):
        programs.require(command)
    session = sessions()
    session.wait_ready()
    if end == "leave":
        assert session.process.stdin is not None
        session.process.stdin.close()
        session.process.stdin = None
    else:
        session.process.send_signal(signal.Signals[end])
    session.gone()
    assert session.process.returncode == {"leave": 0, "SIGINT": -2, "SIGTERM": -15, "SIGKILL": -9}[end]


def test_two_processes_at_once_do_not_meet(sessions: Callable[[], Session]) -> None:
    for command in ("postgres", "mariadbd", "pgbouncer"):
        programs.require(command)
    first, second = both = [sessions(), sessions()]
    for session in both:
        session.wait_ready()
    ports = [port for session in both for _, _, port in session.servers]
    assert len(set(ports)) == 12
    first.process.kill()
    first.gone()
    assert all(map(alive, second.pids))
    second.process.kill()
    second.gone()


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_ends_with_its_keeper(name: str) -> None:
    with a_server(name).start() as server:
        pids = family(server.keeper.pid)
        os.kill(server.keeper.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), "all of it is gone")
        with pytest.raises(ServiceError, match="keeper is gone"):
            server.start()
    assert not server.folder.exists()


def test_a_forked_process_ends_nobodys_server() -> None:
    with PostgreSQL(15).start() as server:
        pid = os.fork()
        if not pid:
            server.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert server.execute("SELECT 1")[0][0] == 1


def test_a_keeper_runs_commands(tmp_path: Path) -> None:
    keeper = Keeper("sh", None)
    try:
        keeper.run(["sh", "-c", "echo told"])
        assert keeper.tail() == "told"
        with pytest.raises(ServiceError, match=r"(?s)ended with 3: .*wrong"):
            keeper.run(["sh", "-c", "echo wrong >&2; exit 3"])
        with pytest.raises(ServiceError, match="no-such-program"):
            keeper.start(["/no-such-program"])
        keeper.start(["sh", "-c", "trap '' TERM; echo deaf; while true; do sleep 0.1; done"])
        wait_until(lambda: keeper.tail().endswith("deaf"), "it ignores the signal")
        with pytest.raises(ServiceError, match="it runs already"):
            keeper.start(["true"])
        keeper.signal(signal.SIGTERM)
        with pytest.raises(ServiceError, match="in vain"):
            keeper.wait(0.2)
        keeper.kill()
        assert keeper.poll() == -9
        # What has left the process group and lost its parent is killed as well.
        keeper.run(["sh", "-c", f"setsid sh -c 'echo $$ >{keeper.folder}/pid; exec sleep 1000' & while ! [ -s {keeper.folder}/pid ]; do sleep 0.01; done"])  # fmt: skip  # noqa: E501
        orphan = int((keeper.folder / "pid").read_text())
        assert alive(orphan)
        keeper.kill()
        assert not alive(orphan)
    finally:
        keeper.close()


def test_ports_are_nobody_elses() -> None:
    mine = [free_port() for _ in range(20)]
    script = "from tests.services import processes; processes.PORTS = {ports}\ntry: print(processes.free_port())\nexcept processes.ServiceError: print('none')"  # noqa: E501
    command = [sys.executable, "-c", script.format(ports=mine)]
    try:
        assert len(set(mine)) == 20
        assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "none\n"
    finally:
        for port in mine:
            processes.release_port(port)
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout != "none\n"
