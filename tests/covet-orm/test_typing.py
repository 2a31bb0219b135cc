"""What type checkers make of models: mypy (strict) and pyright, over the files of `typing/`.

Each line there that ends with `# E: why` is one that both refuse, and they refuse no other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(Path(__file__).with_name("typing").glob("*.py"))
SOURCES = [str(ROOT / name / "src") for name in ("covet-core", "covet-orm")]


def expected() -> set[tuple[str, int]]:
    """The lines that are to be refused."""
    return {
        (file.name, number)
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"# E: ", line)
    }


def told(found: dict[tuple[str, int], str]) -> str:
    """What differs, for a message."""
    wanted = expected()
    unexpected = [f"{name}:{line}: {found[name, line]}" for name, line in sorted(found.keys() - wanted)]
    return "\n".join(unexpected + [f"{name}:{line}: not refused" for name, line in sorted(wanted - found.keys())])


@pytest.mark.timeout(600)
def test_mypy(tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}",
            "--python-version=3.11", "--no-error-summary", "--no-pretty", "--follow-imports=silent",
            *map(str, FILES),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=FILES[0].parent,
        env={**os.environ, "MYPYPATH": os.pathsep.join(SOURCES)},
    )  # fmt: skip
    assert ran.returncode in (0, 1), ran.stderr + ran.stdout
    found: dict[tuple[str, int], str] = {}
    for line in ran.stdout.splitlines():
        match = re.match(r"(.+?):(\d+)(?::\d+)?: error: (.*)", line)
        if match:
            found[Path(match[1]).name, int(match[2])] = match[3]
    assert set(found) == expected(), told(found)


@pytest.mark.timeout(600)
def test_pyright(tmp_path: Path) -> None:
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(
        json.dumps(
            {
                "extraPaths": SOURCES,
                "pythonVersion": "3.11",
                "typeCheckingMode": "standard",
                "reportUnusedExpression": "none",
            }
        )
    )
    # Pyright looks at what is within the folder of its settings.
    for file in FILES:
        shutil.copy(file, tmp_path)
    python = sys.executable
    ran = subprocess.run(
        [python, "-m", "pyright", "--outputjson", "--pythonpath", python, "--project", str(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr + ran.stdout
    found = {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in json.loads(ran.stdout)["generalDiagnostics"]
        if one["severity"] == "error"
    }
    assert set(found) == expected(), told(found)
