"""Migrations of Covet beside Django's: the commands on a project of many models, and a long history.

Both projects are generated from the same description: applications of ten models, each model with a character, an
e-mail, an integer, a date and a text column, an index, and foreign keys to the model before and to one of another
application. Each figure is the time of a whole process, imports included, and the most memory that it held; of the
commands that can be repeated the median, in interleaved rounds. The databases are SQLite files, without other load.

The history is one application whose migrations each add a field to, or remove one from, one of ten models: applying all
of them to an empty file, in one process, by `Migrator`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import evidence

PER_APP = 10
GOALS = {"first makemigrations": 0.3, "makemigrations, no change": 0.2, "first migrate": 0.02, "migrate, nothing": 0.2}
"""The most that Covet may take, in relation to Django."""
DISTRIBUTIONS = ("covet-migrate", "covet-orm", "sqlalchemy", "aiosqlite", "django")


class Cost(NamedTuple):
    """What a process took: seconds, and megabytes at most."""

    seconds: float
    megabytes: float


def cost_of(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """Run a command to its end; what it took.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            out.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {out.read().decode()[-2000:]}")
    return Cost(seconds, usage.ru_maxrss / 1024)


def apps_of(models: int) -> int:
    """How many applications there are."""
    return max(models // PER_APP, 1)


def write_django(folder: Path, models: int) -> None:
    """A Django project."""
    names = [f"app{number:03}" for number in range(apps_of(models))]
    (folder / "project.py").write_text(
        "SECRET_KEY = 'x'\nUSE_TZ = True\nDEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'\n"
        f"INSTALLED_APPS = {names!r}\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'db.sqlite3'}}\n",
        encoding="utf-8",
    )
    for position, name in enumerate(names):
        lines = ["from django.db import models", ""]
        for number in range(PER_APP):
            lines += [
                "",
                f"class Model{number}(models.Model):",
                "    name = models.CharField(max_length=100)",
                "    email = models.EmailField()",
                "    number = models.IntegerField()",
                "    day = models.DateField()",
                "    text = models.TextField()",
                *_references(position, number, names, "models.ForeignKey({}, models.CASCADE, related_name='+'{})"),
                "",
                "    class Meta:",
                f"        indexes = [models.Index(fields=['number', 'day'], name='{name}_{number}_idx')]",
                "",
            ]
        _write_app(folder / name, lines)


def write_covet(folder: Path, models: int) -> None:
    """A Covet project."""
    names = [f"app{number:03}" for number in range(apps_of(models))]
    (folder / "covet.toml").write_text('[storage.default]\nurl = "sqlite:///db.sqlite3"\n', encoding="utf-8")
    imports = "\n".join(f"import {name}.models" for name in names)
    (folder / "app.py").write_text(f"{imports}\nfrom covet import Covet\n\napp = Covet()\n", encoding="utf-8")
    for position, name in enumerate(names):
        lines = ["import covet_orm as orm", ""]
        for number in range(PER_APP):
            lines += [
                "",
                f"class Model{number}(orm.Model):",
                "    name = orm.CharField(max_length=100)",
                "    email = orm.EmailField()",
                "    number = orm.IntegerField()",
                "    day = orm.DateField()",
                "    text = orm.TextField()",
                *_references(position, number, names, "orm.ForeignKey({}, related_name='+'{})"),
                "",
                "    class Meta:",
                f"        indexes = [orm.Index('number', 'day', name='{name}_{number}_idx')]",
                "",
            ]
        _write_app(folder / name, lines)


def _references(position: int, number: int, names: Sequence[str], form: str) -> list[str]:
    """Foreign keys to the model before, and to one of the application before."""
    found = []
    if number:
        found.append(f"    before = {form.format(repr(f'{names[position]}.Model{number - 1}'), '')}")
    if position:
        found.append(f"    other = {form.format(repr(f'{names[position - 1]}.Model{number}'), '')}")
    return found


def _write_app(folder: Path, lines: Sequence[str]) -> None:
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "models.py").write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands(models: int, rounds: int) -> str:
    """The table of the commands."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": "."}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    programs = {
        "covet": [str(scripts / "covet")],
        "django": [sys.executable, "-m", "django"],
    }
    costs: dict[str, dict[str, list[Cost]]] = {what: {name: [] for name in programs} for what in GOALS}
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place, name) for name in programs}
        for name, write in (("covet", write_covet), ("django", write_django)):
            folders[name].mkdir()
            write(folders[name], models)

        def run(what: str, name: str, *arguments: str) -> None:
            cost = cost_of([*programs[name], *arguments], folders[name], environment)
            costs[what][name].append(cost)
            print(f"# {what}: {name} {cost.seconds:.2f} s, {cost.megabytes:.0f} MB", flush=True)

        apps = [f"app{number:03}" for number in range(apps_of(models))]
        for number in range(rounds):
            for name in programs:
                if number:
                    for app in apps:
                        shutil.rmtree(folders[name] / app / "migrations")
                # Django makes migrations of applications that have such a package, or are named.
                run("first makemigrations", name, "makemigrations", *apps)
        for _ in range(rounds):
            for name in programs:
                run("makemigrations, no change", name, "makemigrations")
        for name in programs:
            run("first migrate", name, "migrate")
        for _ in range(rounds):
            for name in programs:
                run("migrate, nothing", name, "migrate")
    rows = []
    for what, goal in GOALS.items():
        own, other = (median(cost.seconds for cost in costs[what][name]) for name in ("covet", "django"))
        memory = [f"{max(cost.megabytes for cost in costs[what][name]):.0f}" for name in ("covet", "django")]
        ratio = own / other
        rows.append(
            [what, f"{own:.2f}", f"{other:.2f}", f"{ratio:.3f}", f"≤ {goal}", "yes" if ratio <= goal else "no", *memory]
        )
    return evidence.table(["", "covet, s", "django, s", "ratio", "goal", "met", "covet, MB", "django, MB"], rows)


async def history(counts: Sequence[int]) -> str:
    """The table of a long history."""
    from covet_migrate import Migration, Migrator, operations
    from covet_migrate.files.loader import File, Files
    from covet_orm import BigAutoField, Database, IntegerField

    rows = []
    for count in counts:
        made = [
            Migration(
                operations=[
                    operations.CreateModel(f"Model{number}", fields={"id": BigAutoField()}) for number in range(10)
                ],
                app="app",
                name="0001_initial",
            )
        ]
        for number in range(1, count):
            turn, place = divmod(number - 1, 10)
            model, name = f"Model{place}", f"field{turn // 2}"
            adds = turn % 2 == 0
            field = IntegerField(null=True)
            one = operations.AddField(model, name, field) if adds else operations.RemoveField(model, name)
            made.append(
                Migration(operations=[one], dependencies=[made[-1].key], app="app", name=f"{number + 1:04}_step")
            )
        files = Files({one.key: File(one, Path(f"{one.name}.py"), one.name.encode()) for one in made}, {})
        with tempfile.TemporaryDirectory() as folder:
            async with Database(f"sqlite:///{folder}/db.sqlite3") as database:
                began = time.perf_counter()
                await Migrator(database, files).migrate()
                applied = time.perf_counter() - began
                began = time.perf_counter()
                assert not await Migrator(database, files).migrate()
                nothing = time.perf_counter() - began
        print(f"# {count} migrations: {applied:.2f} s, then {nothing:.3f} s", flush=True)
        rows.append(
            [
                f"{count:,}",
                f"{applied:.2f}",
                f"{applied / count * 1e3:.2f}",
                f"{nothing:.3f}",
                f"{nothing / count * 1e6:.0f}",
            ]
        )
    return evidence.table(
        ["migrations", "applying all, s", "ms each", "nothing to do, s", "µs for each that is there"], rows
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="bench -- migrate", description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="of the commands that can be repeated")
    parser.add_argument("--history", type=int, nargs="*", default=[500, 1000, 2000])
    parser.add_argument("--print", action="store_true", help="write no page")
    chosen = parser.parse_args()
    sections = {
        f"{chosen.models:,} models in {apps_of(chosen.models)} applications": commands(chosen.models, chosen.rounds)
    }
    if chosen.history:
        sections["A long history"] = asyncio.run(history(chosen.history))
    if chosen.print:
        for heading, body in sections.items():
            print(f"\n## {heading}\n\n{body}")
        return
    evidence.write("migrate", "Migrations", __doc__ or "", DISTRIBUTIONS, sections)


if __name__ == "__main__":
    main()
