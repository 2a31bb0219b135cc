"""Writing a measurement to `docs/evidence/`: the command, the machine, the versions, the tables."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

EVIDENCE = Path(__file__).parent.parent / "docs" / "evidence"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---", *["--:"] * (len(head) - 1)]) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def versions(distributions: Iterable[str]) -> str:
    """The versions of the distributions that are installed, as one line."""
    found = []
    for name in distributions:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)


def machine() -> str:
    """Processor, cores, system and interpreter."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{model}, {cores} cores, {platform.system()}, {python}"


def write(
    name: str,
    title: str,
    about: str,
    distributions: Sequence[str],
    sections: Mapping[str, str],
    *,
    session: str = "bench",
    page: str = "",
) -> Path:
    """Write `docs/evidence/NAME.md` and print it.

    Args:
        name: of the benchmark or proof, as it is given to `nox -s bench -- NAME`.
        about: what was measured, and how, in Markdown.
        distributions: those whose versions matter.
        sections: Markdown by heading.
        session: the nox session that runs it.
        page: the name of the page, where a proof and a benchmark have one name.
    """
    arguments = "".join(f" {argument}" for argument in sys.argv[1:])
    text = "\n".join(
        [
            f"# {title}",
            "",
            about.strip(),
            "",
            f"- command: `nox -s {session} -- {name}{arguments}`",
            f"- machine: {machine()}",
            *([f"- versions: {versions(distributions)}"] if distributions else []),
            f"- date: {datetime.now(UTC):%Y-%m-%d}",
            "",
            *(f"## {heading}\n\n{body.strip()}\n" for heading, body in sections.items()),
        ]
    )
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    path = EVIDENCE / f"{page or name}.md"
    path.write_text(text, encoding="utf-8")
    print(text)
    return path
