"""Commands typed in an environment of their own, and what they printed, for pages that show it.

An environment is made in a directory that is also its home; that directory, the checkout and the interpreter have short
names in what is shown, so that a page is the same whichever machine wrote it.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import httpx
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
SHOWN_PORT = "8000"
# How packages are found and fetched is the machine's business.
NETWORK = ("PIP_", "UV_", "SSL_", "REQUESTS_", "http_", "https_", "no_", "all_", "HTTP_", "HTTPS_", "NO_", "ALL_")


class Transcript:
    """An environment, a working directory in it, and what was done there.

    Args:
        directory: made into a home with an environment; nothing else is used of this process's environment.
        linked: distributions that the environment has, with what they require, as this process's has them; then nothing
            is fetched. None for an environment of its own, into which pip installs what is asked for.

    Attributes:
        rows: for each step what was done, what was found and how long it took, in seconds.
    """

    def __init__(self, directory: Path, *, linked: Sequence[str] | None = None) -> None:
        self.home = directory.resolve()
        self.directory = self.home
        self.rows: list[tuple[str, str, float]] = []
        self._lines: list[str] = []
        environment = self.home / "environment"
        self.python = environment / "bin" / "python"
        venv.create(environment, symlinks=True, with_pip=linked is None)
        (self.site,) = (environment / "lib").glob("python*/site-packages")
        if linked is not None:
            self._link(linked)
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = str(found.getsockname()[1])
        kept = {name: value for name, value in os.environ.items() if name.startswith(NETWORK)}
        self.environ = {
            **kept,
            "PATH": os.pathsep.join([str(environment / "bin"), os.defpath]),
            "HOME": str(self.home),
            "COLUMNS": "120",
            "COVET_SERVER__PORT": self.port,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        if linked is not None:
            self.environ["PIP_NO_INDEX"] = "1"

    def _link(self, requirements: Sequence[str]) -> None:
        for found in _closure(requirements):
            for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                target = Path(str(found.locate_file(top)))
                if target.suffix != ".pth" and not (self.site / top).exists():
                    (self.site / top).symlink_to(target)
        # pip of this process's environment, for the other one has none.
        pip = self.python.with_name("pip")
        command = shlex.join([sys.executable, "-m", "pip", "--python", str(self.python)])
        pip.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        pip.chmod(0o755)

    # Doing

    def type(self, command: str, *, status: int = 0, shown: str | None = None, quiet: bool = False) -> str:
        """Type a command; what it prints.

        Args:
            status: the exit code that it is to have.
            shown: what stands in the transcript instead of the command.
            quiet: whether it is left out of the transcript.
        """
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        printed = self.readable(done.stdout).strip("\n")
        before = list(self._lines)
        self._lines += [f"$ {self.readable(shown or command)}", *([printed] if printed else [])]
        if done.returncode:
            self._lines.append(f"(exit code {done.returncode})")
        assert done.returncode == status, f"exit code {done.returncode}, not {status}:\n{self.text()}"
        if quiet:
            self._lines = before
        return done.stdout

    def write(self, name: str, text: str) -> None:
        """Write a file of the working directory."""
        (self.directory / name).write_text(text, encoding="utf-8")
        self._lines += [f"$ cat {name}", text.strip("\n")]

    def remark(self, text: str) -> None:
        """Say something in the transcript."""
        self._lines.append(f"# {text}")

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Let `covet run` serve; it is stopped in the end, and must end well."""
        with (self.home / "server.log").open("w+", encoding="utf-8") as log:
            server = subprocess.Popen(
                [str(self.python.with_name("covet")), "run"],
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                deadline = time.monotonic() + PATIENCE
                while not self._answers():
                    assert server.poll() is None, Path(log.name).read_text(encoding="utf-8")
                    assert time.monotonic() < deadline, "the server does not answer"
                    time.sleep(0.05)
                self._lines.append("$ covet run &")
                self._lines += self.readable(Path(log.name).read_text(encoding="utf-8")).strip("\n").splitlines()
                yield
            finally:
                server.terminate()
                ended = server.wait(PATIENCE)
            assert ended == 0, f"covet run ended with exit code {ended}"

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self.port)), 1).close()
        except OSError:
            return False
        return True

    def get(self, path: str, *, status: int = 200) -> Any:
        """Ask the server; the JSON that it answers."""
        response = httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=PATIENCE)
        self._lines += [f"$ curl http://127.0.0.1:{SHOWN_PORT}{path}", response.text.strip()]
        assert response.status_code == status, f"{response.status_code} of {path}: {response.text}"
        return response.json()

    @contextmanager
    def step(self, what: str, found: str) -> Iterator[None]:
        """What is done in this context is one step; when it ends without an error, that was found."""
        self._lines.append(f"\n# {what}")
        began = time.monotonic()
        yield
        self.rows.append((what, found, time.monotonic() - began))
        print(f"# {what}: {found}", flush=True)

    # Showing

    def readable(self, text: str) -> str:
        """What stands in a page for a text that was printed."""
        shown = {
            str(self.home): "~",
            str(ROOT): "checkout",
            sys.base_prefix: "python",
            str(Path(sys.base_prefix).resolve()): "python",
            sys.prefix: "python",
        }
        for path in sorted(shown, key=len, reverse=True):
            text = text.replace(path, shown[path])
        return text.replace(f":{self.port}", f":{SHOWN_PORT}")

    def text(self) -> str:
        """All that was typed and printed, as a block of a page."""
        return "\n".join(["```text", *"\n".join(self._lines).strip("\n").splitlines(), "```"])


def build_wheels(folders: Sequence[str], directory: Path) -> list[Path]:
    """Build the wheels of distributions of this checkout."""
    for folder in folders:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "build",
                "--wheel",
                "--no-isolation",
                "--outdir",
                str(directory),
                str(ROOT / folder),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return sorted(directory.glob("*.whl"))


def _closure(requirements: Sequence[str]) -> list[Distribution]:
    """The distributions that requirements name, with all that these require, without Covet's own."""
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        here = distribution(requirement.name)
        if not here.name.startswith("covet-"):
            found[here.name] = here
        for text in here.requires or ():
            needed = Requirement(text)
            extras = ["", *requirement.extras]
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return list(found.values())
