"""Fixtures of the command line's tests: a directory of its own, commands in this process and in one of their own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.synthetic import Site

SCRIPT = str(Path(sys.executable).with_name("covet"))

Command = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory without settings, in an environment without settings; its modules are forgotten."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for name in os.environ:
        if name.startswith("COVET_") or name == "NO_COLOR":
            monkeypatch.delenv(name)
    # A command may set it; this puts it back.
    monkeypatch.setenv("COVET_SETTINGS", "")
    monkeypatch.delenv("COVET_SETTINGS")
    path = list(sys.path)
    yield home
    sys.path[:] = path
    forget(tmp_path)


def forget(directory: Path) -> None:
    """Forget the modules that were imported from a directory."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(directory)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Distributions of the test's own, beside the installed ones, in this process and in those it starts."""
    made = Site(tmp_path / "site")
    with made.importable():
        yield made


@pytest.fixture
def cli(directory: Path) -> Command:
    """Run a command in this process, as the first one that it runs."""

    def run(*arguments: str, **options: Any) -> Result:
        from covet.cli.groups import make_root

        forget(directory.parent)
        return CliRunner().invoke(make_root(), list(arguments), prog_name="covet", **options)

    return run


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of commands in processes of their own."""
    paths = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}


@pytest.fixture
def covet(directory: Path, environment: dict[str, str]) -> Process:
    """Run the console script in a process of its own."""

    def run(*arguments: str, program: list[str] | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*(program or [SCRIPT]), *arguments],
            env={**environment, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
