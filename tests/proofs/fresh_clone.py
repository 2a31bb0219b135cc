"""A clean clone, an empty home, nothing but Python on the PATH: the commands of the pages do the set-up.

Each command gets a clone of the last commit, a home directory and an environment of its own: PATH, HOME, and how this
machine reaches a package index, nothing else. Python is the interpreter alone, without what is installed beside it. The
short forms get uv as well.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import evidence

ROOT = Path(__file__).parent.parent.parent
# As the pages have them; tests/docs checks that they are the same.
COMMANDS = """
python3 -m venv .venv && .venv/bin/pip install -q nox && .venv/bin/nox -s demo
python3 -m venv .venv && .venv/bin/pip install -q nox && .venv/bin/nox -s tests
"""
UV_COMMANDS = """
uvx nox -s demo
uvx nox -s tests
"""
# In an environment that is active, as the pages say.
INSTALLATIONS = """
pip install "./covet-core[server]"
pip install "./covet-core[server,testing]"
pip install "./covet-core[server]" ./examples/plugins/covet-timing
pip install "./covet-core[server]" ./examples/plugins/covet-timing jinja2
"""
ACTIVATED = "python3 -m venv {home} && . {home}/bin/activate && {command} && covet plugins list"
TIMEOUT = 3600.0
SHOWN_LINES = 40
# How packages are found and fetched is the machine's business; everything else of the environment is left out.
NETWORK = ("PIP_", "UV_", "SSL_", "REQUESTS_", "http_", "https_", "no_", "all_", "HTTP_", "HTTPS_", "NO_", "ALL_")
# Lines in which pip says where it looks for a package.
SOURCE = re.compile(r"^Looking in |^ *(Processing|Downloading|Using cached) (/|https?://)|file://")
USER_CONFIGURATION = (".config/pip/pip.conf", ".pip/pip.conf", "Library/Application Support/pip/pip.conf")
# These would do part of the set-up that the commands are to do.
ABSENT = ("uv", "uvx", "nox", "covet", "pytest", "granian")


class Trial:
    """A command in a clone and a home of its own."""

    def __init__(self, command: str, shown: str, *, uv: bool = False) -> None:
        self.command = command
        self.shown = shown
        self.uv = uv
        self.seconds = 0.0
        self.status = -1
        self.output = ""

    def run(self) -> None:
        """Clone, and run the command there."""
        with tempfile.TemporaryDirectory(prefix="fresh-") as temporary:
            clone, home, programs = Path(temporary, "clone"), Path(temporary, "home"), Path(temporary, "bin")
            home.mkdir()
            programs.mkdir()
            write_program(programs / "python3", base_interpreter())
            if self.uv:
                write_program(programs / "uvx", install_uv(Path(temporary, "uv")))
            path = os.pathsep.join([str(programs), *os.defpath.split(os.pathsep)])
            check_absent(path, {"uvx"} if self.uv else set())
            subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(clone)], check=True)
            began = time.monotonic()
            done = subprocess.run(
                ["bash", "-c", self.command.format(home=home / "environment")],
                cwd=clone,
                env={**package_index(), "PATH": path, "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT,
            )
            self.seconds = time.monotonic() - began
            self.status = done.returncode
            self.output = done.stdout.replace(temporary, "...")
        print(f"# exit code {self.status} after {self.seconds:.0f} s: {self.shown}", flush=True)

    def report(self) -> str:
        """The last lines of what it printed; where this machine gets its packages is nobody's business."""
        lines = [line for line in self.output.strip().splitlines() if not SOURCE.search(line)]
        return "\n".join(["```text", *lines[-SHOWN_LINES:], "```"])


def base_interpreter() -> str:
    """The interpreter behind the environment that this runs in."""
    return str(getattr(sys, "_base_executable", sys.executable))


def write_program(path: Path, program: str) -> None:
    """Write a program that runs another, so that nothing beside that one is on the PATH."""
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(program)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)


def install_uv(folder: Path) -> str:
    """Install uv in an environment of its own; the path of its `uvx`."""
    subprocess.run([base_interpreter(), "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "-q", "uv"], check=True)
    return str(folder / "bin" / "uvx")


def check_absent(path: str, allowed: set[str]) -> None:
    """Nothing that the commands are to install may be there already."""
    for program in set(ABSENT) - allowed:
        found = shutil.which(program, path=path)
        if found is not None:
            sys.exit(f"{found} would be used, and this is to show that the commands do without; uninstall it")


def package_index() -> dict[str, str]:
    """How this machine reaches a package index: from its environment, and from the user's configuration of pip."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(NETWORK)}
    for file in USER_CONFIGURATION:
        if Path.home().joinpath(file).is_file():
            kept.setdefault("PIP_CONFIG_FILE", str(Path.home() / file))
    return kept


def trials() -> list[Trial]:
    """What to try."""
    plain = [Trial(command, command) for command in COMMANDS.strip().splitlines()]
    plain += [Trial(command, command, uv=True) for command in UV_COMMANDS.strip().splitlines()]
    installs = INSTALLATIONS.strip().splitlines()
    return plain + [Trial(ACTIVATED.replace("{command}", command), command) for command in installs]


def git(*arguments: str) -> str:
    """What git says of this checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    if git("status", "--porcelain"):
        print("# what is not committed is not in the clones", flush=True)
    tried = trials()
    for trial in tried:
        trial.run()
    rows = [[f"`{trial.shown}`", trial.status, f"{trial.seconds:.0f}"] for trial in tried]
    evidence.write(
        "fresh_clone",
        "From a clean clone",
        f"{(__doc__ or '').strip()}\n\nThe commit is `{git('rev-parse', '--short', 'HEAD')}`.",
        [],
        {
            "Exit codes and times": evidence.table(["command", "exit code", "seconds"], rows),
            **{f"`{trial.shown}`": trial.report() for trial in tried},
        },
        session="proof",
    )
    sys.exit(any(trial.status for trial in tried))


if __name__ == "__main__":
    main()
