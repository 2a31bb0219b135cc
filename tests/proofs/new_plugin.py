"""From nothing to a plugin that answers: `covet plugins new`, its tests, its installation, its route.

In an environment into which the wheel of `covet-core` was installed before. What each command printed stands below;
`~` is the temporary directory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import evidence
from tests.transcript import Transcript, build_wheels

APP = """
from covet import Covet

app = Covet()
"""


def prove(directory: Path, *, linked: Sequence[str] | None = None) -> Transcript:
    """Write a plugin, test it, install it, use it; whatever is not as it should be is an AssertionError."""
    done = Transcript(directory, linked=linked)
    (kernel,) = build_wheels(["covet-core"], done.home / "dist")
    done.type(f"pip install -q '{kernel}[server,testing]'")
    install = "pip install -q ." if linked is None else "pip install -q --no-build-isolation ."
    done.directory = done.home / "work"
    done.directory.mkdir()

    with done.step("covet plugins new acme-hello", "a project with a plugin, a command and tests is written"):
        done.type("covet plugins new acme-hello")
    done.directory = done.home / "work" / "acme-hello"
    with done.step("its tests", "all pass, before anything is installed"):
        assert "4 passed" in done.type("python -m pytest -q -W error")
    with done.step("its installation", "listed as active, nothing is wrong with it"):
        done.type(install)
        rows = {row["name"]: row for row in json.loads(done.type("covet plugins list --json", quiet=True))}
        assert rows["acme_hello"]["state"] == "active", rows
        done.type("covet plugins list")
        done.type("covet plugins check")
    with done.step("its command", "greets"):
        assert done.type("covet acme-hello Ada") == "Hello, Ada!\n"
    done.directory = done.home / "work"
    done.write("app.py", APP)
    with done.step("its route", "answers under `covet run`"), done.serving():
        assert done.get("/acme-hello") == {"message": "Hello, world!"}
        assert done.get("/acme-hello?name=Ada") == {"message": "Hello, Ada!"}
    return done


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="plugin-") as temporary:
        done = prove(Path(temporary))
    rows = [[what, found, f"{took:.1f}"] for what, found, took in done.rows]
    rows.append(["**all of it**", "", f"{sum(took for _, _, took in done.rows):.1f}"])
    evidence.write(
        "new_plugin",
        "A new plugin",
        __doc__ or "",
        ["covet-core", "pytest", "granian"],
        {
            "What was done, and what was found": evidence.table(["what was done", "found", "seconds"], rows),
            "Transcript": done.text(),
        },
        session="proof",
    )


if __name__ == "__main__":
    main()
