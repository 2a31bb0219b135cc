"""A plugin's life: installed, used, disabled, broken, optional.

Wheels of `covet-core` and of the example plugin `covet-timing` are built and installed into an environment that has
nothing else. What each command printed stands below; `~` is the temporary directory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import evidence
from tests.transcript import Transcript, build_wheels

KERNEL, PLUGIN = "covet-core", "examples/plugins/covet-timing"
APP = """
import sys

from covet import Covet

app = Covet()


@app.get("/imported")
async def imported() -> list[str]:
    return sorted(name for name in sys.modules if name.startswith("covet_timing"))
"""
LISTED = """
import sys
from covet.cli import main
try:
    main(["plugins", "list"])
finally:
    print("imported:", sorted(name for name in sys.modules if name.startswith("covet_timing")))
"""


def prove(directory: Path, *, linked: Sequence[str] | None = None) -> Transcript:
    """Go through the life of the plugin; whatever is not as it should be is an AssertionError."""
    done = Transcript(directory, linked=linked)
    wheels = build_wheels([KERNEL, PLUGIN], done.home / "dist")
    kernel, plugin = wheels
    version = plugin.name.split("-")[1]
    done.directory = done.home / "service"
    done.directory.mkdir()

    with done.step("covet-core alone is installed", "the builtin plugins are listed, and no other"):
        done.type(f"pip install -q '{kernel}[server]'")
        rows = json.loads(done.type("covet plugins list --json"))
        assert rows
        assert {(row["distribution"], row["state"]) for row in rows} == {("covet-core", "builtin")}, rows

    with done.step("the wheel of covet-timing is installed", "listed as active, with all that it provides"):
        done.type(f"pip install -q {plugin}")
        row = timing(done, quiet=False)
        assert (row["state"], row["version"], row["distribution"]) == ("active", version, "covet-timing"), row
        assert {"routes", "middleware", "request_finished", "settings", "command timing"} <= set(row["provides"]), row
        assert row["error"] is None
        done.type("covet plugins list")
        done.type("covet plugins check")

    done.write("app.py", APP)
    with done.step("an application is served", "the plugin's route answers"), done.serving():
        assert "covet_timing.plugin" in done.get("/imported")
        assert done.get("/timing")["routes"][0]["route"] == "/imported"

    with done.step("it is disabled in the settings", "listed as disabled; never imported, by neither list nor run"):
        done.write("covet.toml", '[plugins]\ndisable = ["timing"]\n')
        assert timing(done)["state"] == "disabled"
        (done.directory / "listed.py").write_text(LISTED, encoding="utf-8")
        assert "imported: []" in done.type("python listed.py", shown="covet plugins list, and what it imported")
        with done.serving():
            assert done.get("/imported") == []
            done.get("/timing", status=404)

    with done.step("it raises when it is imported", "listed as failed, with the traceback; check and run end with 1"):
        done.write("covet.toml", "[plugins]\n")
        broken = done.site / "covet_timing" / "plugin.py"
        works = broken.read_text(encoding="utf-8")
        broken.write_text("raise RuntimeError('no battery')\n", encoding="utf-8")
        done.remark("covet_timing/plugin.py now holds: raise RuntimeError('no battery')")
        row = timing(done)
        assert (row["state"], row["error"]) == ("failed", "RuntimeError: no battery"), row
        done.type("covet plugins list")
        told = done.type("covet plugins show timing")
        assert "Traceback (most recent call last)" in told
        assert f'{broken}", line 1' in told
        assert "no battery" in done.type("covet plugins check", status=1)
        assert "no battery" in done.type("covet check", status=1)

    with done.step("it is to be served all the same", "refused with one message: plugin, cause, and the line to write"):
        told = done.type("covet run", status=1)
        for part in ("'timing'", f"covet-timing {version}", "RuntimeError: no battery", 'disable = ["timing"]'):
            assert part in told, told
        assert told.count("RuntimeError: no battery") == 1
        assert "Traceback" not in told

    with done.step("it is optional", "the application is served without it"):
        done.write("covet.toml", '[plugins]\noptional = ["timing"]\n')
        with done.serving():
            assert "covet_timing.plugin" not in done.get("/imported")
            done.get("/timing", status=404)

    with done.step("it is mended", "active again, and its route answers"):
        broken.write_text(works, encoding="utf-8")
        assert timing(done)["state"] == "active"
        done.type("covet plugins list")
        with done.serving():
            done.get("/timing")
    return done


def timing(done: Transcript, *, quiet: bool = True) -> dict[str, object]:
    """What `covet plugins list --json` says of the plugin."""
    rows = json.loads(done.type("covet plugins list --json", quiet=quiet))
    row: dict[str, object] = next(row for row in rows if row["name"] == "timing")
    return row


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="lifecycle-") as temporary:
        done = prove(Path(temporary))
    evidence.write(
        "plugin_lifecycle",
        "A plugin's life",
        __doc__ or "",
        ["covet-core", "covet-timing", "pluggy", "granian"],
        {
            "What was done, and what was found": evidence.table(
                ["what was done", "found", "seconds"], [[what, found, f"{took:.1f}"] for what, found, took in done.rows]
            ),
            "Transcript": done.text(),
        },
        session="proof",
    )


if __name__ == "__main__":
    main()
