"""A clean clone, an empty home, nothing but Python on the PATH: the commands of README and quickstart do the set-up.

The clone is made of the last commit. With uv on the PATH of whoever runs this, its short forms are run as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import evidence

ROOT = Path(__file__).parent.parent.parent
# As README and docs/quickstart.md have them; tests/docs checks that they are the same.
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
"""
ACTIVATED = "python3 -m venv {home} && . {home}/bin/activate && {command} && covet plugins list"
TIMEOUT = 3600.0
SHOWN_LINES = 40
# How packages are found and fetched is the machine's business; everything else of the environment is left out.
NETWORK = ("PIP_", "UV_", "SSL_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class Trial:
    """A command in a clone and a home of its own."""

    def __init__(self, command: str, shown: str) -> None:
        self.command = command
        self.shown = shown
        self.seconds = 0.0
        self.status = -1
        self.output = ""

    def run(self, path: str) -> None:
        """Clone, and run the command there."""
        with tempfile.TemporaryDirectory(prefix="fresh-") as temporary:
            clone, home = Path(temporary, "clone"), Path(temporary, "home")
            home.mkdir()
            subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(clone)], check=True)
            kept = {name: value for name, value in os.environ.items() if name.startswith(NETWORK)}
            began = time.monotonic()
            done = subprocess.run(
                ["bash", "-c", self.command.format(home=home / "environment")],
                cwd=clone,
                env={**kept, "PATH": path, "HOME": str(home)},
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
        """The last lines of what it printed."""
        lines = self.output.strip().splitlines()[-SHOWN_LINES:]
        return "\n".join(["```text", *lines, "```"])


def trials() -> list[Trial]:
    """What to try."""
    plain = [Trial(command, command) for command in COMMANDS.strip().splitlines()]
    if shutil.which("uvx"):
        plain += [Trial(command, command) for command in UV_COMMANDS.strip().splitlines()]
    installs = INSTALLATIONS.strip().splitlines()
    return plain + [Trial(ACTIVATED.replace("{command}", command), command) for command in installs]


def main() -> None:
    folders = [str(Path(found).parent) for found in map(shutil.which, ("python3", "uvx")) if found]
    path = os.pathsep.join(dict.fromkeys([*folders, *os.defpath.split(os.pathsep)]))
    tried = trials()
    for trial in tried:
        trial.run(path)
    rows = [[f"`{trial.shown}`", trial.status, f"{trial.seconds:.0f}"] for trial in tried]
    evidence.write(
        "fresh_clone",
        "From a clean clone",
        __doc__ or "",
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
