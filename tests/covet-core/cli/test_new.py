"""`covet new` and `covet plugins new`: what they write works as it is, and nothing of anybody's is overwritten."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from covet.cli.scaffolding import Names


def run(*command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_new_project_works_as_it_is(cli: Any, directory: Path) -> None:
    result = cli("new", "my-shop")
    assert result.exit_code == 0
    project = directory / "my-shop"
    written = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert written == {
        ".gitignore", "README.md", "app.py", "covet.toml", "manage.py", "pyproject.toml", "tests/test_app.py"
    }  # fmt: skip
    assert all(f"  my-shop/{path}\n" in result.output for path in written)
    assert not any("$" in (project / path).read_text() for path in written - {"README.md"})
    assert tomllib.loads((project / "pyproject.toml").read_text())["project"]["name"] == "my-shop"

    done = run("-m", "pytest", "-q", "-W", "error", cwd=project)
    assert (done.returncode, " passed" in done.stdout) == (0, True), done.stdout
    done = run("-m", "covet", "check", "--strict", cwd=project)
    assert done.returncode == 0, done.stdout


def test_manage_py_is_covet(cli: Any, directory: Path) -> None:
    assert cli("new", "shop").exit_code == 0
    project = directory / "shop"
    # From another directory, too.
    manage = run("shop/manage.py", "routes", "--json", cwd=directory)
    script = run("-m", "covet", "routes", "--json", cwd=project)
    assert (manage.returncode, manage.stdout) == (0, script.stdout)
    assert "/hello/{name}" in manage.stdout
    assert run("shop/manage.py", "rotues", cwd=directory).returncode == 2
    done = run("-S", "-I", "shop/manage.py", "routes", cwd=directory)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "covet is not installed in" in done.stderr


@pytest.mark.parametrize(
    ("command", "name", "plugin"),
    [
        (("new",), "shop", ""),
        (("plugins", "new"), "acme-hello", "acme_hello"),
        (("plugins", "new"), "covet-2fa", "covet_2fa"),
    ],
)
def test_what_is_written_is_clean(cli: Any, directory: Path, command: tuple[str, ...], name: str, plugin: str) -> None:
    assert cli(*command, name).exit_code == 0
    for path in (directory / name).rglob("*.py"):
        source = path.read_text()
        compile(source, str(path), "exec")
        assert source.endswith("\n") or not source
        assert max(map(len, source.splitlines()), default=0) <= 120
    if plugin:
        groups = tomllib.loads((directory / name / "pyproject.toml").read_text())["project"]["entry-points"]
        assert list(groups["covet.plugins"]) == [plugin]


@pytest.mark.parametrize("name", ["acme-hello", "covet-class", "Acme.Hello_2"])
def test_a_new_plugin_works_as_it_is(cli: Any, directory: Path, name: str) -> None:
    result = cli("plugins", "new", name)
    assert result.exit_code == 0
    done = run("-m", "pytest", "-q", "-W", "error", cwd=directory / name)
    assert (done.returncode, "4 passed" in done.stdout) == (0, True), done.stdout


def test_a_plugin_is_called_by_the_short_name() -> None:
    names = Names.of_plugin("covet-rate-meter")
    assert (names.distribution, names.package, names.plugin) == ("covet-rate-meter", "covet_rate_meter", "rate_meter")
    assert Names.of_plugin("covet-run").plugin == "covet_run"
    assert Names.of_plugin("covet-settings").plugin == "covet_settings"
    assert Names.of_plugin("covet-openapi").plugin == "covet_openapi"
    assert Names.of_plugin("covet-2fa").plugin == "covet_2fa"


@pytest.mark.parametrize("name", ["", "-x", "1x", "a b", "x-", "ü", "a$b", "x" + "\n", "$HOME"])
@pytest.mark.parametrize("command", [("new",), ("plugins", "new")])
def test_a_name_that_no_project_can_have(cli: Any, directory: Path, command: tuple[str, ...], name: str) -> None:
    result = cli(*command, "--", name)
    assert (result.exit_code, "cannot be a project's name" in result.stderr) == (2, True)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("class", "no name for a module of Python"),
        ("json", "Python has a module 'json' of its own"),
        ("click", "there is a module 'click' already"),
        ("covet", "there is a module 'covet' already"),
        ("run", "Covet has a command `run` of its own"),
        ("settings", "the settings use that name"),
        ("enable", "the settings use that name"),
        ("openapi", "covet-core, which is installed, brings a plugin of that name"),
    ],
)
def test_a_name_that_no_plugin_can_have(cli: Any, directory: Path, name: str, told: str) -> None:
    result = cli("plugins", "new", name)
    assert (result.exit_code, told in result.stderr) == (2, True), result.stderr
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("command", [("new",), ("plugins", "new")])
def test_nothing_is_overwritten(cli: Any, directory: Path, command: tuple[str, ...]) -> None:
    (directory / "acme-shop").mkdir()
    (directory / "acme-shop" / "app.py").write_text("mine")
    (directory / "acme-file").write_text("mine")
    for name in ("acme-shop", "acme-file", "./acme-shop/"):
        result = cli(*command, name)
        assert (result.exit_code, "exists already" in result.stderr) == (1, True)
    assert [path.name for path in (directory / "acme-shop").iterdir()] == ["app.py"]
    assert (directory / "acme-shop" / "app.py").read_text() == "mine"


def test_an_empty_directory_will_do(cli: Any, directory: Path) -> None:
    (directory / "acme-shop").mkdir()
    os.chdir(directory / "acme-shop")
    assert cli("new", ".").exit_code == 0
    assert 'name = "acme-shop"' in Path("covet.toml").read_text()
    assert cli("new", "../deep/down/shop").exit_code == 0
    assert (directory / "deep/down/shop/app.py").exists()


def test_a_directory_that_cannot_be_written(cli: Any, directory: Path) -> None:
    (directory / "file").write_text("")
    result = cli("new", "file/shop")
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    assert "file/shop" in result.stderr


def test_the_files_are_the_users(cli: Any, directory: Path) -> None:
    assert cli("new", "shop").exit_code == 0
    assert (directory / "shop" / "app.py").stat().st_mode & stat.S_IWUSR
