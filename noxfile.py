"""Every command a developer types: `nox -l` lists them, `nox -s tests` runs one.

Each session makes its own environment, with uv where there is one and with virtualenv and pip where there is none. What
it installs stands in the dependency groups of `pyproject.toml`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "imports", "tests", "docs"]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
KERNEL = "covet-core"
PLUGINS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.glob("examples/plugins/*/pyproject.toml"))
DISTRIBUTIONS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.glob("covet-*/pyproject.toml")) + PLUGINS
EXTRAS = {KERNEL: "[server,uvicorn,testing,cookies,templates,zstd]", "covet-orm": "[postgresql,mysql,sqlite]"}
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
BENCHMARKS = (
    "http", "sockets", "startup", "memory", "cache", "compression", "rate_limit", "sessions",
    "orm", "orm_pool", "orm_cache", "orm_memory", "orm_transactions", "orm_siblings", "migrate", "backfill",
)  # fmt: skip


def install(session: nox.Session, *groups: str, examples: bool = True) -> None:
    """Install every distribution from its folder, with its extras and dependency groups; `examples` count as well."""
    wanted = [folder for folder in DISTRIBUTIONS if examples or folder not in PLUGINS]
    folders = [option for folder in wanted for option in ("-e", f"./{folder}{EXTRAS.get(folder, '')}")]
    session.install(*folders, *nox.project.dependency_groups(PROJECT, *groups))


def only(session: nox.Session, *groups: str) -> None:
    """Install dependency groups alone."""
    session.install(*nox.project.dependency_groups(PROJECT, *groups))


def sources() -> list[str]:
    """The source folder of every distribution."""
    return [f"{folder}/src" for folder in DISTRIBUTIONS]


@nox.session
def demo(session: nox.Session) -> None:
    """Serve the example application, send it requests, and show what it answers."""
    install(session, "demo")
    # After Ctrl-C the server ends by itself, once it has answered what it was asked.
    session.run("python", "examples/packages/demo.py", *session.posargs, interrupt_timeout=20.0, terminate_timeout=20.0)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, one process for each core: `nox -s tests`; some of them: `nox -s tests -- -k routing`."""
    install(session, "tests")
    session.run("python", "tests/services/programs.py", "--go-on")
    # Each process starts databases of its own; a file stays together, since its tests share them.
    session.run("pytest", *(session.posargs or ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format: `nox -s lint -- --fix` mends what it can."""
    only(session, "lint")
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of every distribution with mypy (strict) and pyright."""
    install(session, "types")
    session.run("mypy", "--strict", *sources())
    session.run("pyright", "--pythonpath", shutil.which("python", path=session.bin) or sys.executable, *sources())


@nox.session
def imports(session: nox.Session) -> None:
    """Check who imports whom."""
    install(session, "imports")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into `site/`: `nox -s docs -- serve` shows it while you write."""
    # ruff formats the signatures; the theme's notice about another tool is no warning of ours.
    install(session, "docs", "lint")
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every distribution into `dist/`; install and import each wheel in an environment of its own."""
    session.install("build", "hatchling>=1.27")
    shutil.rmtree("dist", ignore_errors=True)
    for folder in DISTRIBUTIONS:
        # The wheel is made from the source archive, so that one which lacks a file is found out.
        session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", folder, silent=True)
    for wheel in sorted(Path("dist").glob("*.whl")):
        _try_wheel(session, wheel)


def _try_wheel(session: nox.Session, wheel: Path) -> None:
    """Install a wheel with what it declares, import its packages, and list the plugins."""
    home = Path(session.create_tmp(), wheel.name.partition("-")[0])
    session.run("python", "-m", "venv", "--clear", str(home), external=True)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    python = str(scripts / "python")
    session.run(python, "-m", "pip", "install", "-q", "--find-links", "dist", str(wheel), external=True)
    distribution = wheel.name.partition("-")[0].replace("_", "-")
    session.run(python, "-c", IMPORT_ALL, distribution, external=True)
    command = [str(scripts / "covet"), "plugins", "list", "--json"]
    listed = session.run(*command, external=True, silent=True, stderr=None)
    _check_listed(session, distribution, str(listed))


IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, sys
tops = {path.parts[0] for path in importlib.metadata.files(sys.argv[1]) if path.name == "__init__.py"}
for top in sorted(tops):
    package = importlib.import_module(top)
    lacking = {}
    found = ["", *(module.name for module in pkgutil.walk_packages(package.__path__, top + ".", lacking.setdefault))]
    for name in found[1:]:
        if name.endswith("__main__"):
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            # An extra brings what it needs; a module of its own would be missing from the wheel.
            cause = error if isinstance(error, ModuleNotFoundError) else error.__cause__
            if not isinstance(cause, ModuleNotFoundError) or (cause.name or "").partition(".")[0] == top:
                raise
            lacking[name] = cause.name
    print(f"imported {top}: {len(found) - len(lacking)} modules; {len(lacking)} need an extra:", lacking)
"""


def _check_listed(session: nox.Session, distribution: str, listed: str) -> None:
    """The plugins that are listed are those of the distribution and of what it needs, and all of them work."""
    rows = json.loads(listed)
    folder = next(folder for folder in DISTRIBUTIONS if Path(folder).name == distribution)
    needs = nox.project.load_toml(f"{folder}/pyproject.toml")["project"]["dependencies"]
    there = {KERNEL, distribution, *(need.partition(">")[0] for need in needs)}
    for row in rows:
        expected = "builtin" if row["distribution"] == KERNEL else "active"
        if row["state"] != expected or row["distribution"] not in there:
            session.error(f"{distribution}: unexpected plugin {row}")
    if distribution not in {row["distribution"] for row in rows}:
        session.error(f"{distribution}: its wheel brings no plugin; listed are {rows}")
    session.log(f"{distribution}: {', '.join(row['name'] + ' ' + row['state'] for row in rows)}")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, and write `docs/evidence/NAME.md`: `nox -s bench -- http`, or another of BENCHMARKS."""
    name, arguments = _named(session, BENCHMARKS)
    install(session, "bench", examples=False)
    # Without bytecode, start-up and memory would be those of the compiler.
    session.run("python", "-m", "compileall", "-q", "covet-core/src", silent=True, env=COMPILED)
    session.run("python", "-m", f"benchmarks.{name}", *arguments, env=COMPILED)


@nox.session
def proof(session: nox.Session) -> None:
    """Run a long proof, and write `docs/evidence/NAME.md`: `nox -s proof -- NAME`."""
    proofs = sorted(path.stem for path in Path("tests/proofs").glob("[a-z]*.py"))
    name, arguments = _named(session, proofs)
    install(session, "tests")
    session.run("python", "-m", f"tests.proofs.{name}", *arguments)


def _named(session: nox.Session, names: list[str] | tuple[str, ...]) -> tuple[str, list[str]]:
    """The name that was given, and the arguments behind it."""
    if not session.posargs or session.posargs[0] not in names:
        session.error(f"say which one: nox -s {session.name} -- NAME, one of {', '.join(names)}")
    return session.posargs[0], session.posargs[1:]


@nox.session(venv_backend="none")
def services(session: nox.Session) -> None:
    """Install the programs that no wheel brings, where that is allowed; else say how: `nox -s services -- --check`."""
    session.run(sys.executable, "tests/services/programs.py", *session.posargs)
