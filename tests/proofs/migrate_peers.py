"""What users of other tools for migrations suffered, done with each tool in turn, and with Covet.

Each tool has a project of its own with the same models, written as its documentation writes them, and is worked by its
commands: Tortoise's own migrations and aerich with Tortoise's models, Alembic with its template for asynchronous
drivers, names for constraints and batch mode for SQLite, as its documentation advises. What a line tells is what was
seen: exit codes, what the file of the migration holds, and the rows that another connection finds. The other tools are
installed into an environment of their own.

The proof fails where Covet shows what it is about.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from shutil import which
from typing import Any

from benchmarks import evidence
from tests.migrations.complaints import ALL, CASES, NEXT_DATABASE, Seen
from tests.migrations.peers import PEERS, Peer
from tests.services.databases import Databases

ROOT = Path(__file__).parents[2]
Results = dict[str, dict[tuple[str, str], Seen]]


def prove(
    cases: Sequence[str], tools: Sequence[str], python: Path, folder: Path, peers: dict[str, type[Peer]] = PEERS
) -> Results:
    """Do the cases with the tools; what each did, by its name and the database."""
    results: Results = {}
    numbers = count(1)
    with Databases() as databases:
        for name in cases:
            case = CASES[name]
            results[name] = {}
            for database in case.databases:
                for tool in (one for one in case.tools if one in tools):
                    number = next(numbers)
                    NEXT_DATABASE[:] = [_maker(databases, database, number, folder)]
                    url = NEXT_DATABASE[0]()
                    used = Path(sys.executable) if tool == "covet" else python
                    peer = peers[tool](folder / f"{number:03}_{name}_{tool}", url, used)
                    seen = Seen()
                    asyncio.run(case.run(peer, seen))
                    results[name][(tool, database)] = seen
                    print(f"# {name} {tool} {database}: {'; '.join(seen.facts)}", flush=True)
    return results


def _maker(databases: Databases, database: str, number: int, folder: Path) -> Callable[[], str]:
    numbers = count(1)

    def make() -> str:
        name = f"peers{number:03}x{next(numbers)}"
        if database == "sqlite":
            return f"sqlite:///{folder / name}.db"
        return databases.get(database).empty_database(name)

    return make


@contextmanager
def installed(given: Path | None) -> Iterator[Path]:
    """An interpreter that has the other tools: one that was given, or one of an environment that is gone afterwards."""
    if given is not None:
        yield given
        return
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["migrate-peers"]
    with tempfile.TemporaryDirectory(prefix="covet-peers-") as place:
        python = Path(place, "bin", "python")
        uv = which("uv")
        if uv:
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, place], check=True)
            subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *wanted], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
        yield python


def versions_of(python: Path, tools: Sequence[str]) -> dict[str, str]:
    """The versions of the tools, by their names."""
    found = {}
    for tool in tools:
        used = sys.executable if tool == "covet" else str(python)
        code = f"from importlib.metadata import version; print(version({PEERS[tool].distribution!r}))"
        done = subprocess.run([used, "-c", code], capture_output=True, text=True, check=True)
        found[tool] = done.stdout.strip()
    return found


def sections(results: Results, versions: dict[str, str]) -> dict[str, str]:
    """The results as Markdown, by heading."""
    rows: list[list[Any]] = []
    found: dict[str, str] = {}
    for name, of in results.items():
        case = CASES[name]
        cells = {
            tool: [str(database) for (one, database), seen in of.items() if one == tool and seen.shows] for tool in ALL
        }
        tried = {one for one, _ in of}
        rows.append([case.title, *(("; ".join(cells[one]) or "no") if one in tried else "" for one in ALL)])
        lines = [case.told, ""]
        for (tool, database), seen in of.items():
            shown = "**shows it**" if seen.shows else "does not show it"
            lines.append(
                f"- {PEERS[tool].distribution} {versions[tool]}, {database}: {shown}: {'; '.join(seen.facts)}."
            )
        found[case.title] = "\n".join(lines)
    head = ["shown on", *(f"{PEERS[one].distribution} {versions.get(one, '')}".strip() for one in ALL)]
    return {"Which tool shows what": evidence.table(head, rows), **found}


def wrong(results: Results) -> list[str]:
    """Where Covet shows what a case is about."""
    return [f"{name} on {database}" for name, of in results.items() for (tool, database), seen in of.items()
            if tool == "covet" and seen.shows]  # fmt: skip


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--tools", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--python", type=Path, help="an interpreter that has the other tools")
    parser.add_argument("--print", action="store_true", help="write no page")
    given = parser.parse_args()
    with installed(given.python) as python, tempfile.TemporaryDirectory() as folder:
        results = prove(given.cases, given.tools, python, Path(folder))
        found = sections(results, versions_of(python, given.tools))
    if given.print:
        print("\n\n".join(f"## {heading}\n\n{text}" for heading, text in found.items()))
    else:
        evidence.write("migrate_peers", "Migrations: what others suffered", str(__doc__), [], found, session="proof")
    if wrong(results):
        raise SystemExit(f"covet-migrate shows it: {', '.join(wrong(results))}")


if __name__ == "__main__":
    main()
