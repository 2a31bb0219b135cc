"""`covet shell`: Python inside the running application."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = str(Path(sys.executable).with_name("covet"))

APP = """
import anyio
from covet import Covet, current_app

app = Covet(installed_plugins=False)

@app.get("/items/{id:int}")
async def item(id: int) -> int:
    return id

@app.lifespan
async def around(app):
    print("started")
    yield
    print("stopped")
"""


@pytest.fixture(autouse=True)
def app(directory: Path) -> None:
    (directory / "app.py").write_text(APP)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_code_runs_in_the_running_application(cli: Any, backend: str) -> None:
    code = (
        "import anyio; from covet import current_app\nawait anyio.sleep(0)\n"
        "print(current_app() is app, app.url_for('item', id=3))"
    )
    result = cli("shell", "--backend", backend, "-c", code)
    assert (result.exit_code, result.output) == (0, "started\nTrue /items/3\nstopped\n")


def test_code_that_fails(cli: Any) -> None:
    result = cli("shell", "-c", "def f():\n    1 / 0\nf()")
    assert (result.exit_code, result.stdout) == (1, "started\nstopped\n")
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "shell.py" not in result.stderr, "the lines of Covet's own are left out"
    result = cli("shell", "-c", "def")
    assert (result.exit_code, "SyntaxError" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("code", "status"), [("exit()", 0), ("exit(3)", 3), ("exit('no')", 1), ("raise SystemExit", 0)]
)
def test_code_that_exits(cli: Any, code: str, status: int) -> None:
    result = cli("shell", "-c", code)
    assert (result.exit_code, result.stdout) == (status, "started\nstopped\n")


def test_statements_from_standard_input(cli: Any) -> None:
    result = cli("shell", input="x = 2\nasync def f():\n    return x + 1\n\nawait f()\n")
    assert (result.exit_code, result.stdout) == (0, "started\n3\nstopped\n")
    result = cli("shell", input="1 / 0\nprint('on')\n")
    assert (result.exit_code, "on\n" in result.stdout) == (1, True)


def test_an_application_that_does_not_start(cli: Any, directory: Path) -> None:
    (directory / "app.py").write_text(APP.replace('print("started")', 'raise RuntimeError("no battery")'))
    result = cli("shell", "-c", "1")
    assert (result.exit_code, "RuntimeError: no battery" in result.stderr) == (1, True)
    assert "Traceback" not in result.stderr
    assert 'File "app.py"' in result.stderr


class Terminal:
    """A shell at a terminal."""

    def __init__(self) -> None:
        self.terminal, end = pty.openpty()
        self.process = subprocess.Popen(
            [SCRIPT, "shell"],
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb", "INPUTRC": "/dev/null", "PYTHONSTARTUP": ""},
        )
        os.close(end)
        self.printed = ""

    def wait(self, text: str, count: int = 1) -> None:
        """Read until a text was printed so many times."""
        deadline = time.monotonic() + 30
        while self.printed.count(text) < count:
            ready, _, _ = select.select([self.terminal], [], [], max(deadline - time.monotonic(), 0))
            assert ready, self.printed
            self.printed += os.read(self.terminal, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait()
    os.close(made.terminal)


def test_a_prompt_at_a_terminal(terminal: Terminal) -> None:
    terminal.wait(">>> ")
    assert "`app` is running" in terminal.printed
    terminal.type("import anyio\n")
    terminal.wait(">>> ", 2)
    terminal.type("'sl' + 'ept'\n")
    terminal.wait("'slept'")
    terminal.wait(">>> ", 3)
    # Ctrl-C ends the statement that runs, not the shell.
    terminal.type("print('wait' + 'ing'); await anyio.sleep(50)\n")
    terminal.wait("waiting")
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.wait("KeyboardInterrupt")
    terminal.wait(">>> ", 4)
    terminal.type("1 / 0\n")
    terminal.wait("ZeroDivisionError")
    # A key is read only when the prompt is there.
    terminal.wait(">>> ", 5)
    terminal.type("\x04")
    terminal.wait("stopped")
    assert terminal.process.wait(30) == 0
