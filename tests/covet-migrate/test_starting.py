"""What commands that find nothing to do do not wait for, and what they leave behind."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from covet_migrate.collection import set_apart, without_collection

MODELS = """import covet_orm as orm


class Team(orm.Model):
    name = orm.CharField(max_length=100)


class Person(orm.Model):
    name = orm.CharField(max_length=100)
    team = orm.ForeignKey(Team)

    class Meta:
        indexes = [orm.Index("name", "team", name="person_idx")]
"""
APP = "import blog.models\nfrom covet import Covet\n\napp = Covet()\n"
RUN = """
import sys
from covet.cli import main
try:
    main({arguments!r})
finally:
    print([name for name in ("sqlalchemy", "rich", "sqlglot") if name in sys.modules])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "blog").mkdir()
    (tmp_path / "blog" / "__init__.py").touch()
    (tmp_path / "blog" / "models.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    (tmp_path / "covet.toml").write_text('[storage.default]\nurl = "sqlite:///db.sqlite3"\n', encoding="utf-8")
    return tmp_path


def run(project: Path, *arguments: str) -> list[str]:
    code = RUN.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_commands_that_find_nothing_to_do_do_not_import_sqlalchemy(project: Path) -> None:
    assert run(project, "makemigrations")[-1] == "[]"
    assert run(project, "makemigrations") == ["No changes.", "[]"]
    assert run(project, "migrate")[-1] == "['sqlalchemy']"
    assert run(project, "migrate") == ["Nothing to do.", "[]"]


def test_garbage_is_collected_again_after_the_block() -> None:
    seen: list[bool] = []

    def fail() -> None:
        with without_collection():
            seen.append(gc.isenabled())
            raise ValueError("within")

    with pytest.raises(ValueError, match="within"):
        fail()
    assert (seen, gc.isenabled()) == ([False], True)
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_set_apart_is_so_as_long_as_the_command_runs() -> None:
    within: list[int] = []

    @click.command()
    def command() -> None:
        set_apart()
        within.append(gc.get_freeze_count())

    before = gc.get_freeze_count()
    assert CliRunner().invoke(command).exit_code == 0
    assert within[0] > before
    assert gc.get_freeze_count() == 0
    set_apart()
    assert gc.get_freeze_count() == 0
