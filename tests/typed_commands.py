"""Typing commands in a project: each in a process of its own, as a shell has them.

A process that has imported what every command needs makes them by `fork`, so that a test that types many commands does
not wait for the imports of each. What belongs to the project is imported anew every time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "Project", "Typist", "typist"]

MOTHER = """
import json, os, sys

import covet.cli, covet.cli.groups, covet.applications, covet_orm, covet_orm.databases, sqlalchemy, click
import covet_migrate.operations, covet_migrate.execution.migrator

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(asked["folder"])
        os.environ.update(asked["environment"])
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.dup2(os.open(asked[name], os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdin = open(0)
        sys.argv = ["covet", *asked["arguments"]]
        # As `python -m` has it: the folder is where modules are.
        sys.path.insert(0, asked["folder"])
        code = 70
        try:
            covet.cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed.

    Attributes:
        code: its exit code.
        out: its standard output.
        err: its standard error, in one line with single blanks: messages are wrapped.
    """

    code: int
    out: str
    err: str


class Typist:
    """Types commands; made by `typist`."""

    def __init__(self, mother: subprocess.Popen[str]) -> None:
        self._mother = mother

    def type(self, folder: Path, arguments: list[str], stdin: str, environment: dict[str, str]) -> Ended:
        """Type one command in a folder."""
        aside = folder.parent / "typed"
        aside.mkdir(exist_ok=True)
        (aside / "stdin").write_text(stdin)
        asked = {
            "folder": str(folder), "arguments": arguments, "environment": environment,
            **{name: str(aside / name) for name in ("stdin", "stdout", "stderr")},
        }  # fmt: skip
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.write(json.dumps(asked) + "\n")
        self._mother.stdin.flush()
        code = int(self._mother.stdout.readline())
        return Ended(code, (aside / "stdout").read_text(), (aside / "stderr").read_text())


@contextmanager
def typist() -> Iterator[Typist]:
    """Somebody who types commands, until the end of the block."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
    mother = subprocess.Popen(
        [sys.executable, "-c", MOTHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"COLUMNS": "200", "NO_COLOR": "1"},
    )
    try:
        yield Typist(mother)
    finally:
        assert mother.stdin is not None
        mother.stdin.close()
        mother.wait(10)
        if mother.stdout is not None:
            mother.stdout.close()


class Project:
    """A project in a folder, whose models a test writes.

    Args:
        folder: where; it is made.
        typist: types the commands.
        url: of the default database.
    """

    def __init__(self, folder: Path, typist: Typist, url: str = "sqlite:///project.db") -> None:
        self.folder = folder
        self._typist = typist
        self.apps: list[str] = []
        folder.mkdir()
        self.write("covet.toml", f'[storage.default]\nurl = "{url}"\n')
        self.write("app.py", "from covet import Covet\n\napp = Covet()\n")

    def write(self, path: str, text: str) -> Path:
        """Write a file."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def models(self, app: str, text: str) -> None:
        """Write the models of an application, which is imported from then on."""
        self.write(f"{app}/__init__.py", "")
        self.write(f"{app}/models.py", f"import covet_orm as orm\n\n\n{text}")
        if app not in self.apps:
            self.apps.append(app)
            imports = "".join(f"import {one}.models\n" for one in self.apps)
            self.write("app.py", f"from covet import Covet\n{imports}\napp = Covet()\n")

    def migration(self, app: str, name: str, operations: str = "", before: str = "", more: str = "") -> Path:
        """Write a migration by hand: the source of its operations, and what stands before it."""
        text = (
            f"import covet_orm as orm\nfrom covet_migrate import Migration, operations\n\n{before}\n"
            f"migration = Migration(operations=[{operations}], {more})\n"
        )
        self.write(f"{app}/migrations/__init__.py", "")
        return self.write(f"{app}/migrations/{name}.py", text)

    def files(self, app: str) -> list[str]:
        """The names of the migrations of an application."""
        return sorted(path.stem for path in (self.folder / app / "migrations").glob("[0-9]*.py"))

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Ended:
        """Type a command, whose end is anything; it shows no traceback."""
        words = arguments[0].split() if len(arguments) == 1 else list(arguments)
        ended = self._typist.type(self.folder, words, stdin, environment)
        assert "Traceback" not in ended.err, ended.err
        return ended

    def told(self, *arguments: str, stdin: str = "") -> str:
        """Type a command that goes well; what it prints."""
        ended = self.run(*arguments, stdin=stdin)
        assert ended.code == 0, ended.err + ended.out
        return ended.out

    def refused(self, *arguments: str, code: int = 1, stdin: str = "") -> str:
        """Type a command that does not go well; its message, in one line."""
        ended = self.run(*arguments, stdin=stdin)
        assert ended.code == code, (ended.code, ended.err + ended.out)
        return " ".join(ended.err.split())
