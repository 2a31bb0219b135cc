"""Every code block of the READMEs and the documentation runs, in order, page by page, in a directory of its own.

What a fence may hold, and what is done with it:

- `python`: executed; the blocks of a page share their names, and `await` may stand at the top level. A `text` block
  behind it is what it prints. With `title="app.py"` it becomes that file instead, for the `console` block that follows.
- `console`: each line behind `$ ` is typed into a shell; the lines below are what it prints, `...` standing for
  anything. `covet run` serves in the background until the page ends or another takes its place. A command fails the
  test unless it exits with 0, or `$ echo $?` stands behind it; so does a `covet run` that is to be refused. A command
  that would install or test this very checkout stands below the comment `<!-- run by: FILE -->`: that file must hold it
  word for word.
- `toml`: parsed; with the sections of a settings file it is checked as one, with a title it is written to that file.
- `json`: parsed.

Anything else is an error, so that nothing is skipped by mistake.
"""

from __future__ import annotations

import ast
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
import pytest

from covet import Covet, Settings
from covet_migrate.safety import rules

ROOT = Path(__file__).parent.parent.parent
# What benchmarks and proofs write is a record, not instructions.
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("covet-*/README.md")),
    *sorted(ROOT.glob("examples/**/README.md")),
    *(page for page in sorted(ROOT.glob("docs/**/*.md")) if page.parent.name != "evidence"),
]
PORT = "8000"
START_TIMEOUT = 30.0
SECTIONS = {"app", "server", "limits", "logging", "plugins", "storage", "sessions", "cache", "pubsub", "objects"}

FENCE = re.compile(r"^(?P<indent> *)```+(?P<info>.*)$")
TITLE = re.compile(r'title="([^"]+)"')
RUN_BY = re.compile(r"<!-- run by: (\S+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    text: str
    line: int
    run_by: str


def parse(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks = []
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    before = ""
    for number, line in lines:
        opening = FENCE.match(line)
        if opening is None:
            before = line.strip() or before
            continue
        body = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            body.append(inner.removeprefix(opening["indent"]))
        else:
            raise AssertionError(f"{page}:{number}: the block is not closed")
        language, _, attributes = opening["info"].strip().partition(" ")
        title, run_by = TITLE.search(attributes), RUN_BY.fullmatch(before)
        text = "\n".join(body) + "\n"
        blocks.append(Block(language, title[1] if title else "", text, number, run_by[1] if run_by else ""))
        before = ""
    return blocks


class Page:
    """What the blocks of one page share: names, files, a shell."""

    def __init__(self, page: Path, directory: Path) -> None:
        self.page = page
        self.directory = directory
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.apps: list[Covet] = []
        self.printed: str | None = None
        self.unused: list[str] = []
        self._shell: Shell | None = None

    def run(self, block: Block) -> None:
        """Run a block."""
        printed, self.printed = self.printed, None
        if block.title:
            path = self.directory / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.run_by:
            check_run_by(block)
        elif block.language == "python" and block.title:
            compile(block.text, block.title, "exec")
            self.unused.append(block.title)
        elif block.language == "python":
            self.python(block)
        elif block.language == "console":
            self.unused.clear()
            if self._shell is None:
                self._shell = Shell(self.directory)
            self._shell.run(block.text)
        elif block.language == "text":
            assert printed is not None, "a text block is what the python block before it prints"
            assert_matches(printed, block.text.splitlines())
        elif block.language == "toml":
            check_toml(block, self.directory)
        elif block.language == "json":
            json.loads(block.text)
        else:
            raise AssertionError(
                f"a block of {block.language or 'no language'} cannot be run; see the top of this test"
            )

    def python(self, block: Block) -> None:
        """Execute Python in the names of the page."""
        code = compile(
            "\n" * block.line + block.text, str(self.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        output = StringIO()
        with redirect_stdout(output):
            result = eval(code, self.names)
            if inspect.iscoroutine(result):
                coroutine = result

                async def main() -> None:
                    await coroutine

                anyio.run(main)
        self.printed = output.getvalue()
        app = self.names.get("app")
        if isinstance(app, Covet) and app not in self.apps:
            self.apps.append(app)

    def run_all(self) -> None:
        """Run every block, then build every application: a handler that could not be called is found then."""
        for block in parse(self.page):
            try:
                self.run(block)
            except Exception as error:
                error.add_note(f"in the block at {self.page.name}:{block.line}")
                raise
        assert not self.unused, f"no command uses {', '.join(self.unused)}"
        for app in self.apps:
            app.build()

    def close(self) -> None:
        """Stop what is still running."""
        if self._shell is not None:
            self._shell.stop()


def check_run_by(block: Block) -> None:
    """Whoever is said to run the commands must hold them."""
    runner = (ROOT / block.run_by).read_text(encoding="utf-8")
    for command, _ in steps(block.text):
        assert command in runner, f"{block.run_by} does not run: {command}"


def check_toml(block: Block, directory: Path) -> None:
    """It is TOML; with the sections of a settings file, it is a right one."""
    table = tomllib.loads(block.text)
    if table.keys() <= SECTIONS:
        path = directory / (block.title or "block.toml")
        path.write_text(block.text, encoding="utf-8")
        Settings.load(path, environ={})


def steps(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0][:-1] + line.strip(), [])
        else:
            assert found, f"a console block begins with a command behind `$ `, not with {line!r}"
            found[-1][1].append(line)
    assert found, "a console block without a command"
    return found


def assert_matches(printed: str, expected: list[str]) -> None:
    """What was printed is what was expected; `...` stands for anything, on a line of its own for any lines or none."""
    patterns = []
    for line in expected:
        escaped = re.escape(line.rstrip()).replace(r"\.\.\.", "(?s:.*)")
        patterns.append(r"(?:.*\n)*" if line.strip() == "..." else escaped + r"\n")
    printed = "".join(line.rstrip() + "\n" for line in printed.strip("\n").splitlines())
    shown = "\n".join(expected)
    assert re.fullmatch("".join(patterns), printed), f"expected:\n{shown}\nprinted:\n{printed}"


class Shell:
    """A shell in an environment of its own, which sees everything this one has installed.

    What a page installs there is gone with it. `curl` is a stand-in: not every machine that can run Python has one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        home = directory / ".environment"
        venv.create(home, symlinks=os.name != "nt", with_pip=False)
        python = home / "bin" / "python"
        site = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
        ours = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        # Each line of a .pth file is code of its own; addsitedir follows the .pth files of editable installations too.
        lines = [f"import site; site.addsitedir({path!r})\n" for path in ours]
        (site / "ours.pth").write_text("".join(lines), encoding="utf-8")
        for name, arguments in {
            "covet": "-m covet",
            "pytest": "-m pytest",
            "pip": "-m pip",
            "curl": shlex.quote(str(Path(__file__).with_name("curl.py"))),
        }.items():
            script = home / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} {arguments} "$@"\n', encoding="utf-8")
            script.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = str(found.getsockname()[1])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVET_", "PYTEST_", "COV_"))}
        self.environment = {
            **kept,
            "PATH": os.pathsep.join([str(home / "bin"), os.defpath]),
            "COVET_SERVER__PORT": self.port,
            "COLUMNS": "120",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.server: subprocess.Popen[str] | None = None
        self.status = 0

    def run(self, text: str) -> None:
        """Type the commands of a console block."""
        todo = steps(text)
        for (command, expected), (following, _) in zip(todo, [*todo[1:], ("", [])], strict=True):
            expected = [line.replace(PORT, self.port) for line in expected]
            if command == "echo $?":
                assert_matches(str(self.status), expected)
            elif command.startswith("cd "):
                self.directory = (self.directory / command[3:]).resolve(strict=True)
            elif command.startswith("covet run") and following != "echo $?":
                self.serve(command, expected)
            else:
                printed = self.type(command.replace(PORT, self.port))
                assert self.status == 0 or following == "echo $?", f"$ {command}\nexit code {self.status}\n{printed}"
                if expected:
                    assert_matches(printed, expected)

    def type(self, command: str) -> str:
        """Run one command to its end; what it prints."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        self.status = done.returncode
        return done.stdout

    def serve(self, command: str, expected: list[str]) -> None:
        """Start a server, and wait until it answers; instead of the one that runs, if any."""
        self.stop()
        log = self.directory / "server.log"
        with log.open("w", encoding="utf-8") as output:
            self.server = subprocess.Popen(
                shlex.split(command),
                executable=shutil.which("covet", path=self.environment["PATH"]),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(self.port)), 1).close()
                break
            except OSError:
                assert self.server.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
                time.sleep(0.05)
        if expected:
            assert_matches(log.read_text(encoding="utf-8"), expected)

    def stop(self) -> None:
        """Stop the server."""
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGTERM)
            self.server.wait(30)
            self.server = None


@pytest.fixture
def runner(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    for name in os.environ:
        if name.startswith("COVET_"):
            monkeypatch.delenv(name)
    # A page may add rules, which other tests are not to find.
    rules.all_rules()
    monkeypatch.setattr(rules, "_rules", dict(rules._rules))
    # It may have the log written somewhere.
    loggers = {name: _how(logger) for name, logger in _loggers()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    page = Page(request.param, tmp_path)
    yield page
    page.close()
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    for name, logger in _loggers():
        logger.level, logger.handlers, logger.filters = loggers.get(name, (logging.NOTSET, [], []))


def _loggers() -> list[tuple[str, logging.Logger]]:
    found = list(logging.getLogger().manager.loggerDict.items())
    return [(name, logger) for name, logger in found if isinstance(logger, logging.Logger)]


def _how(logger: logging.Logger) -> tuple[int, list[logging.Handler], list[Any]]:
    return logger.level, list(logger.handlers), list(logger.filters)


@pytest.mark.parametrize("runner", PAGES, ids=lambda page: str(page.relative_to(ROOT)), indirect=True)
def test_code_blocks(runner: Page) -> None:
    runner.run_all()


# The rules above are themselves code, and a check that cannot fail is none.


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\n1 / 0\n```", "division by zero"),
        ("```python\nprint(1)\n```\n```text\n2\n```", "expected"),
        ("```python\nimport anyio\nawait anyio.sleep(0)\n1 / 0\n```", "division by zero"),
        ("```python\nimport covet\napp = covet.Covet()\n@app.get('/{x}')\ndef f(y: bytes): ...\n```", "'y'"),
        ('```python title="app.py"\nprint(1)\n```', "no command uses app.py"),
        ("```text\nsomething\n```", "python block before"),
        ("```rust\nfn main() {}\n```", "cannot be run"),
        ("```\nwhat is this\n```", "no language"),
        ("```python\n1", "not closed"),
        ("```toml\n[server]\nprot = 1\n```", "port"),
        ("```json\n{\n```", "Expecting"),
        ("```console\n$ covet plugins lits\n```", "exit code 2"),
        ("```console\n$ echo 1\n2\n```", "expected"),
        ("```console\nls\n```", "begins with a command"),
        ("<!-- run by: .ci/run -->\n```console\n$ rm -rf elsewhere\n```", "does not run"),
    ],
)
def test_what_is_wrong_in_a_page_is_found(text: str, complaint: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    page = Page(path, tmp_path)
    try:
        with pytest.raises(Exception, match=f"(?s){complaint}"):
            page.run_all()
    finally:
        page.close()
