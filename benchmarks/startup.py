"""Start-up: imports and `covet plugins list` beside peers, and how discovery grows with what is installed.

Every figure is the processor time of a fresh process, user and system, in interleaved rounds, so that a shared, noisy
machine distorts no ratio. Plugins are installed for real as far as Python can tell: each is a module with a
`.dist-info` folder on the path.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks import evidence

PLUGIN_COUNTS = (0, 100, 200)
IMPORTS = {
    "python alone": "pass",
    "from covet import Covet": "from covet import Covet",
    "starlette.applications": "import starlette.applications",
    "litestar": "import litestar",
    "fastapi": "import fastapi",
}
DISCOVER = """
import time, gc
from covet.plugins import PluginManager
from covet.settings_sections import PluginsSettings
import importlib.metadata
gc.collect()
began = time.perf_counter()
PluginManager(PluginsSettings()).discover()
print((time.perf_counter() - began) * 1000)
"""
SCRIPTS = Path(sys.executable).parent


def install(folder: Path, count: int) -> None:
    """Put `count` distributions into a folder, each with one plugin that has one hook and a table of settings."""
    for number in range(count):
        name = f"synthetic{number:03}"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: A plugin.\nRequires-Dist: covet-core>=0.1\n",
            encoding="utf-8",
        )
        (info / "entry_points.txt").write_text(f"[covet.plugins]\n{name} = {name}\n", encoding="utf-8")
        (info / "RECORD").touch()
        (folder / f"{name}.py").write_text(
            "import covet\n\n\n@covet.hookimpl\ndef covet_setup(app):\n    pass\n", encoding="utf-8"
        )


def cpu_time(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """The processor time of a process, in milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000


def interleaved(commands: Mapping[str, tuple[Sequence[str], Mapping[str, str]]], rounds: int) -> dict[str, float]:
    """The median processor time of each command, in milliseconds; one warming round before."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, (command, environment) in commands.items():
            took = cpu_time(command, environment)
            if number:
                times[name].append(took)
    found = {name: median(got) for name, got in times.items()}
    print("# " + "  ".join(f"{name}={took:.1f}ms" for name, took in found.items()), flush=True)
    return found


def imports(environment: Mapping[str, str], rounds: int) -> str:
    """The table of imports."""
    found = interleaved({name: ([sys.executable, "-c", code], environment) for name, code in IMPORTS.items()}, rounds)
    bare = found.pop("python alone")
    reference = found["starlette.applications"] - bare
    rows = [[name, f"{took - bare:.1f}", f"{(took - bare) / reference:.2f}"] for name, took in found.items()]
    return f"Above an interpreter that imports nothing ({bare:.1f} ms).\n\n" + evidence.table(
        ["import", "ms", "ratio to starlette (goal for covet ≤ 0.5)"], rows
    )


def listing(environments: Mapping[int, Mapping[str, str]], rounds: int) -> str:
    """The table of `plugins list`."""
    covet = [str(SCRIPTS / "covet"), "plugins", "list"]
    commands: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {
        f"covet plugins list, {count} more plugins": (covet, environment) for count, environment in environments.items()
    }
    commands["datasette plugins"] = ([str(SCRIPTS / "datasette"), "plugins"], environments[0])
    found = interleaved(commands, rounds)
    reference = found[f"covet plugins list, {PLUGIN_COUNTS[0]} more plugins"]
    rows = [[name, f"{took:.0f}", f"{took / reference:.2f}"] for name, took in found.items()]
    return evidence.table(["command", "ms", "ratio to covet with none more (goal with 100: ≤ 1.5)"], rows)


def discovery(environments: Mapping[int, Mapping[str, str]], rounds: int) -> str:
    """The table of discovery alone, within a running process, by the clock."""
    rows = []
    for count, environment in environments.items():
        command = [sys.executable, "-c", DISCOVER]
        times = [
            float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
            for _ in range(rounds)
        ]
        counted = subprocess.run(
            [sys.executable, "-c", "import importlib.metadata as m; print(len(list(m.distributions())))"],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        rows.append([counted.stdout.strip(), count, f"{median(times):.1f}", f"{min(times):.1f}"])
        print(f"# discovery {rows[-1]}", flush=True)
    head = [
        "distributions installed",
        "of them synthetic plugins",
        "median ms (goal at 200 distributions: ≤ 10)",
        "best ms",
    ]
    return evidence.table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        environments: dict[int, Mapping[str, str]] = {}
        for count in PLUGIN_COUNTS:
            folder = Path(temporary, str(count))
            install(folder, count)
            environments[count] = {**os.environ, "PYTHONPATH": str(folder)}
        os.chdir(temporary)
        sections = {
            "Imports": imports(environments[0], chosen.rounds),
            "`plugins list`": listing(environments, chosen.rounds),
            "Discovery": discovery(environments, chosen.rounds),
        }
    evidence.write(
        "startup",
        "Start-up",
        (__doc__ or "").partition("\n\n")[2] + f"\n{chosen.rounds} rounds.",
        ["covet-core", "starlette", "litestar", "fastapi", "datasette"],
        sections,
    )


if __name__ == "__main__":
    main()
