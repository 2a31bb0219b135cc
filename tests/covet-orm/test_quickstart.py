"""The example of the documentation, run as a script on every database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples/orm/quickstart.py"


def test_the_quick_start(url: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", SCRIPT, url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "created alice with the key 1",
        "refused: UniqueViolation of username",
        "found ['alice@example.com']",
    ]
    assert "(True,)" in lines[-2]
    assert lines[-1] == "fetched ['alice']"
