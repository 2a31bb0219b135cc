"""Each builtin plugin taken away in turn: the others still pass their tests.

For every builtin plugin a copy of the package is made that lacks its module and its entry point, so that nothing can
use it, not even by accident. With that copy in place of the real one, the tests of all other builtin plugins are run,
those that are asynchronous on asyncio alone. Tests that are about two plugins together are left out when one is
missing; pytest counts them as skipped.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import evidence
from tests.builtin import BUILTIN, ROOT, tests_of

import covet

CLOSING = re.compile(r"^=* ?(.*(?:passed|failed|error|no tests ran).*) in [0-9.]+s", re.MULTILINE)


def without(plugin: str, directory: Path) -> Path:
    """A folder that holds `covet` and its metadata without one plugin; to be first on the path."""
    package = Path(covet.__file__).parent
    shutil.copytree(package, directory / "covet", ignore=shutil.ignore_patterns("__pycache__"))
    module = directory / "covet" / "builtin" / plugin
    if module.is_dir():
        shutil.rmtree(module)
    else:
        module.with_suffix(".py").unlink()
    found = importlib.metadata.distribution("covet-core")
    metadata = directory / f"covet_core-{found.version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(found.read_text("METADATA") or "", encoding="utf-8")
    entry_points = (found.read_text("entry_points.txt") or "").splitlines(keepends=True)
    kept = [line for line in entry_points if f"= covet.builtin.{plugin}" not in line]
    assert len(kept) < len(entry_points), plugin
    (metadata / "entry_points.txt").write_text("".join(kept), encoding="utf-8")
    return directory


def others_pass(plugin: str, directory: Path, others: Sequence[str] = BUILTIN) -> str:
    """Run the tests of `others` without `plugin`; pytest's closing line.

    Raises:
        AssertionError: one failed, or none ran.
    """
    path = without(plugin, directory)
    files = sorted({str(file) for other in others if other != plugin for file in tests_of(other)})
    environment = {**os.environ, "PYTHONPATH": str(path)}
    temporary = directory / "pytest"
    options = ["-q", "-p", "no:cacheprovider", "-k", "not trio", f"--basetemp={temporary}"]
    command = [sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    closing = CLOSING.findall(done.stdout)
    assert done.returncode == 0, f"without {plugin}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
    assert closing, done.stdout[-2000:]
    return str(closing[-1])


def listed() -> str:
    """What `covet plugins list` prints."""
    environment = {**os.environ, "COLUMNS": "150"}
    command = [sys.executable, "-m", "covet", "plugins", "list"]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def prove(plugin: str) -> list[str]:
    """The row of one plugin."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="without-") as temporary:
        row = [plugin, others_pass(plugin, Path(temporary)), f"{time.monotonic() - began:.0f}"]
    print("# " + "  ".join(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(prog="proof -- builtin_plugins", description=__doc__)
    parser.add_argument("--plugins", nargs="+", choices=BUILTIN, default=BUILTIN)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    chosen = parser.parse_args()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        rows = list(pool.map(prove, chosen.plugins))
    evidence.write(
        "builtin_plugins",
        "The builtin plugins, one missing",
        __doc__ or "",
        ["covet-core", "pytest"],
        {
            "Without each in turn": evidence.table(["without", "tests of the others", "seconds"], rows),
            "covet plugins list": f"```text\n{listed().rstrip()}\n```",
        },
        session="proof",
    )


if __name__ == "__main__":
    main()
