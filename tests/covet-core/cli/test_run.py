"""`covet run`, with the real servers: it serves, it ends well, and says at once what is wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.synthetic import Site

SCRIPT = str(Path(sys.executable).with_name("covet"))
PATIENCE = 30.0

APP = """
import os
import anyio
from covet import Covet, StreamingResponse

app = Covet(installed_plugins=False)

@app.get("/")
async def index() -> dict[str, object]:
    return {"pid": os.getpid(), "debug": app.debug, "cores": sorted(os.sched_getaffinity(0))}

@app.get("/slow")
async def slow() -> str:
    print("slow", flush=True)
    await anyio.sleep(1)
    return "done"

@app.get("/forever")
async def forever() -> str:
    print("forever", flush=True)
    await anyio.sleep(600)
    return "done"

@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts():
        yield b"begin "
        await app.drain.wait()
        yield b"end"
    return StreamingResponse(parts())

@app.lifespan
async def around(app):
    print("started", flush=True)
    yield
    print("stopped", flush=True)
"""

both = pytest.mark.parametrize("server", ["granian", "uvicorn"])


class Server:
    """A `covet run` in a process group of its own."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [SCRIPT, "run", "--port", "0", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        found = self.wait_for(lambda: re.search(r" on (http://\S+) ", self.printed))
        self.url = found[1]
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE)
        self.wait_for(self.answers)

    @property
    def printed(self) -> str:
        return self._log.read_text()

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.02)
        return found

    def answers(self, text: str = "") -> bool:
        """Whether it answers, with that text in it."""
        try:
            answer = self.get("/")
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and text in answer.text

    def get(self, path: str) -> httpx.Response:
        """Ask on a connection of its own, which any worker may accept."""
        return self.client.get(path, headers={"connection": "close"})

    def group(self) -> list[int]:
        """The processes that are left of it."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return []
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, _, rest = stat.read_text().partition(" ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            # proc(5): the state, the parent and the process group follow the command in parentheses.
            state, _, group = rest.rpartition(") ")[2].split()[:3]
            if int(group) == self.process.pid and state != "Z":
                found.append(int(name))
        return found

    def leaves_nothing(self) -> bool:
        """Whether all its processes end, now that the first one has; they need a moment for it."""
        deadline = time.monotonic() + PATIENCE
        while self.group():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def stop(self) -> None:
        """Kill what is left."""
        self.client.close()
        for process in self.group():
            os.kill(process, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def serve(directory: Path, environment: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Start servers; none outlives the test."""
    (directory / "app.py").write_text(APP)
    started: list[Server] = []

    def start(*arguments: str, **environ: str) -> Server:
        server = Server(arguments, {**environment, **environ}, directory / "log")
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def ask() -> Iterator[Callable[[str], Callable[[], str]]]:
    """Send a request in a process of its own; gives what waits for the answer."""
    code = "import sys, httpx\nprint(httpx.get(sys.argv[1], trust_env=False, timeout=60).text)"
    asking: list[subprocess.Popen[str]] = []

    def start(url: str) -> Callable[[], str]:
        command = [sys.executable, "-c", code, url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        asking.append(process)
        return lambda: process.communicate(timeout=PATIENCE)[0].strip()

    yield start
    for process in asking:
        process.kill()
        process.communicate()


# Serving and ending


@both
def test_it_serves_and_ends_well(serve: Callable[..., Server], ask: Any, server: str) -> None:
    """Two workers; at SIGTERM a request that is under way is answered, every worker stops, nothing is left."""
    running = serve("--server", server, "--workers", "2")
    assert f"serves app:app on {running.url} ({server}, 2 workers); Ctrl-C stops it\n" in running.printed
    running.wait_for(lambda: running.printed.count("started") == 2)
    running.wait_for(lambda: running.get("/").json()["pid"] != running.get("/").json()["pid"])
    answer = ask(f"{running.url}/slow")
    running.wait_for(lambda: "slow" in running.printed)
    running.process.terminate()
    assert answer() == "done"
    assert running.process.wait(PATIENCE) == 0
    assert running.printed.count("stopped") == 2
    assert running.leaves_nothing()
    assert "Traceback" not in running.printed


@both
def test_ctrl_c_lets_streams_end(serve: Callable[..., Server], server: str) -> None:
    running = serve("--server", server)
    with running.client.stream("GET", "/stream") as response:
        parts = response.iter_raw()
        assert next(parts) == b"begin "
        os.killpg(running.process.pid, signal.SIGINT)
        assert b"".join(parts) == b"end"
    assert running.process.wait(PATIENCE) == 0
    assert "stopped" in running.printed
    assert "Traceback" not in running.printed


@both
def test_a_request_without_end_is_cancelled_in_time(serve: Callable[..., Server], ask: Any, server: str) -> None:
    running = serve("--server", server, COVET_SERVER__SHUTDOWN_TIMEOUT="0.5")
    answer = ask(f"{running.url}/forever")
    running.wait_for(lambda: "forever" in running.printed)
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0
    assert "stopped" in running.printed, "the application's own parts are stopped, whatever a request does"
    assert answer() != "done"


@both
def test_workers_end_when_their_parent_was_killed(serve: Callable[..., Server], server: str) -> None:
    running = serve("--server", server, "--workers", "2")
    running.wait_for(lambda: running.printed.count("started") == 2)
    running.process.kill()
    running.process.wait()
    assert running.leaves_nothing()
    assert running.printed.count("stopped") == 2


@both
def test_reload(serve: Callable[..., Server], directory: Path, server: str) -> None:
    """A change of a source file is served; an error in one is told, and mended by the next change."""
    running = serve("--server", server, "--reload")
    # uvicorn begins to watch a quarter of a second after it has started the worker.
    time.sleep(1)
    for source, expected in [
        (APP.replace('"pid"', '"second"'), "second"),
        ("raise RuntimeError('no battery')", None),
        (APP.replace('"pid"', '"third"'), "third"),
    ]:
        (directory / "app.py").write_text(source)
        if expected is None:
            running.wait_for(lambda: "app cannot be imported: RuntimeError: no battery" in running.printed)
        else:
            running.wait_for(lambda expected=expected: running.answers(expected))
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.process.wait(PATIENCE) == 0
    assert running.leaves_nothing()


# Options and settings


def test_pinned_workers_have_cores_of_their_own(serve: Callable[..., Server]) -> None:
    cores = sorted(os.sched_getaffinity(0))
    running = serve("--workers", "2", "--pin")
    assert "2 workers, pinned" in running.printed
    found: dict[int, list[int]] = {}

    def both_found() -> bool:
        answer = running.get("/").json()
        found[answer["pid"]] = answer["cores"]
        return len(found) == 2

    running.wait_for(both_found)
    assert sorted(core for (core,) in found.values()) == (cores[:2] if len(cores) > 1 else cores * 2)


def test_a_core_is_free_again_when_its_worker_has_ended(directory: Path) -> None:
    """More workers than places are left to the scheduler; the place of one that was killed goes to the next."""
    code = "import sys; from covet.cli.cores import pin_worker; print(pin_worker('.', 1), flush=True); sys.stdin.read()"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def core(worker: subprocess.Popen[str]) -> str:
        assert worker.stdout is not None
        return worker.stdout.readline().strip()

    first = str(min(os.sched_getaffinity(0)))
    with start() as one:
        assert core(one) == first
        with start() as two:
            assert core(two) == "None"
            one.kill()
            one.wait()
            with start() as three:
                assert core(three) == first


def test_options_and_settings(serve: Callable[..., Server], directory: Path) -> None:
    (directory / "covet.toml").write_text(
        '[server]\nserver = "uvicorn"\naccess_log = true\n[app]\ntarget = "app:app"\n[logging]\nformat = "human"\n'
    )
    running = serve("--debug")
    assert "(uvicorn, 1 worker, debug)" in running.printed
    assert running.get("/").json()["debug"] is True
    running.wait_for(lambda: re.search(r"GET / .*200", running.printed))
    running = serve("--server", "granian", "--no-access-log", "--no-debug")
    assert running.get("/").json()["debug"] is False
    assert "GET /" not in running.printed


def test_ipv6(serve: Callable[..., Server], refused: Callable[..., str]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        # A machine without IPv6 says so.
        assert "cannot listen on ::1" in refused("--host", "::1")
        return
    assert serve("--host", "::1").url.startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--reload", "--workers", "2"), "--reload is for development"),
        (("--port", "70000"), "70000"),
        (("--server", "gunicorn"), "'granian', 'uvicorn'"),
        (("--workers", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage(cli: Any, directory: Path, arguments: tuple[str, ...], told: str) -> None:
    (directory / "app.py").write_text(APP)
    result = cli("run", *arguments)
    assert (result.exit_code, told in result.stderr) == (2, True), result.stderr


# What is told before anything is served


@pytest.fixture
def refused(covet: Any, directory: Path) -> Callable[..., str]:
    """Run a server that cannot start; what it says, which is one message."""

    def run(*arguments: str, app: str = APP, program: list[str] | None = None, **environ: str) -> str:
        (directory / "app.py").write_text(app)
        done = covet("run", "--port", "0", *arguments, program=program, **environ)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert " serves " not in done.stderr
        assert done.stderr.count("Error: ") - done.stderr.count("RuntimeError: ") == 1
        return str(done.stderr)

    return run


def test_a_port_that_is_in_use(refused: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refused("--port", str(port))
    assert f"port {port} of 127.0.0.1 is in use" in told
    assert "--port 0" in told


def test_an_address_that_is_not_of_this_machine(refused: Callable[..., str]) -> None:
    assert "cannot listen on 192.0.2.1, port 8123" in refused("--host", "192.0.2.1", "--port", "8123")


@both
def test_a_server_that_is_not_installed(refused: Callable[..., str], server: str) -> None:
    code = f"import sys; sys.modules[{server!r}] = None; from covet.cli import main; main()"
    told = refused("--server", server, program=[sys.executable, "-c", code])
    extra, other = ("server", "uvicorn") if server == "granian" else ("uvicorn", "granian")
    assert f"pip install 'covet-core[{extra}]'" in told
    assert f"--server {other}" in told


def test_reloading_needs_what_watches(refused: Callable[..., str]) -> None:
    code = "import sys; sys.modules['watchfiles'] = None; from covet.cli import main; main()"
    assert "--reload needs watchfiles" in refused("--reload", program=[sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("app", "told"),
    [
        ("raise RuntimeError('no battery')", "app cannot be imported: RuntimeError: no battery"),
        ("import os; os._exit(7)", "ended the process that checked it, with exit code 7"),
        (APP + "\n@app.get('/')\nasync def again() -> str: return ''", "can never be reached"),
    ],
)
def test_an_application_that_cannot_be_built(refused: Callable[..., str], app: str, told: str) -> None:
    assert told in refused(app=app)


@both
def test_an_application_that_does_not_start(covet: Any, directory: Path, server: str) -> None:
    (directory / "app.py").write_text(APP.replace('print("started", flush=True)', 'raise ValueError("no battery")'))
    for workers in ("1", "2"):
        done = covet("run", "--port", "0", "--server", server, "--workers", workers)
        assert done.returncode == 1
        assert "ValueError: no battery" in done.stderr


@both
def test_an_application_that_fails_in_the_workers_alone(covet: Any, directory: Path, server: str) -> None:
    """It was checked and found good; then a worker cannot import it. That is told, and not tried for ever."""
    (directory / "app.py").write_text(
        "import pathlib\nif pathlib.Path('here').exists(): raise RuntimeError('no battery')\n"
        "pathlib.Path('here').touch()\n" + APP
    )
    for workers in ("1", "2"):
        (directory / "here").unlink(missing_ok=True)
        done = covet("run", "--port", "0", "--server", server, "--workers", workers)
        assert done.returncode == 1
        assert 0 < done.stderr.count("app cannot be imported: RuntimeError: no battery") <= int(workers)
        assert "Traceback" not in done.stderr


def test_a_thread_that_does_not_end_does_not_stop_the_check(serve: Callable[..., Server], directory: Path) -> None:
    app = APP + "\nimport threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
    (directory / "app.py").write_text(app)
    assert serve().answers()


def test_a_plugin_that_failed(refused: Callable[..., str], serve: Callable[..., Server], site: Site) -> None:
    """One message that names plugin, distribution, version, cause and what to write; an optional one stops nothing."""
    site.add(
        "acme-hello",
        version="1.2",
        plugins={"hello": "acme_hello"},
        modules={"acme_hello": "raise RuntimeError('no battery')"},
    )
    app = APP.replace("installed_plugins=False", "")
    told = refused(app=app)
    assert "'hello' (of acme-hello 1.2)" in told
    assert "RuntimeError: no battery" in told
    assert 'disable = ["hello"]' in told
    assert 'optional = ["hello"]' in told
    assert serve(COVET_PLUGINS__OPTIONAL="hello").answers()
    site.write_module("acme_hello", "import pathlib; pathlib.Path('imported').touch()")
    assert serve(COVET_PLUGINS__DISABLE="hello").answers()
    assert not Path("imported").exists()
