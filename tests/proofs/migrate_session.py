"""The session of commands from models to rollback, typed in a project that `covet new` made, on each database.

What each command printed stands below, as it is; times are `_`, the database's URL is its scheme. Each command's exit
code, and the lines that matter, are compared with what they are to be.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import anyio
from benchmarks import evidence
from tests.services import mariadb, postgresql
from tests.services.databases import SQLite, ask

NAMES = ("sqlite", "postgresql-18", "mariadb")
TITLES = {"sqlite": "SQLite", "postgresql-18": "PostgreSQL 18", "mariadb": "MariaDB"}
TIMES = (
    (re.compile(r"\b\d+\.\d\d s\b"), "_ s"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?"), "_"),
    (re.compile(r"\bby \S+@\S+"), "by me@here"),
)

POST = """
class Post(orm.Model):
    title = orm.CharField(max_length=100)
    body = orm.TextField(default="")
"""
HEADLINE = POST.replace("title", "headline")
VIEWS = f"{HEADLINE}    views = orm.IntegerField()\n"
COMMENT = f"""{VIEWS}

class Comment(orm.Model):
    post = orm.ForeignKey(Post)
    text = orm.TextField()
    at = orm.DateTimeField(auto_now_add=True, db_index=True)
"""
GONE = COMMENT.replace("    views = orm.IntegerField()\n", "")

Typing = Callable[[Path, Sequence[str]], tuple[int, str]]
"""Types a command of `manage.py` in a folder; its exit code, and what it printed."""


class WrongSessionError(AssertionError):
    """A command did not do, or say, what it is to."""


class Session:
    """A project, the commands that are typed in it, and what they print.

    Args:
        folder: an empty one.
        url: of an empty database.
        typing: types commands.

    Attributes:
        lines: what stands on the screen.
        typed: how many commands were typed.
    """

    def __init__(self, folder: Path, url: str, typing: Typing) -> None:
        self.folder = folder / "site"
        self.url = url
        self.lines: list[str] = []
        self.typed = 0
        self._typing = typing

    def make(self) -> None:
        """Make the project, and in it an application with its first model."""
        command = [sys.executable, "-m", "covet", "new", "site"]
        made = subprocess.run(
            command, cwd=self.folder.parent, capture_output=True, text=True, check=False, env=environment()
        )
        if made.returncode:
            raise WrongSessionError(made.stderr)
        self.lines += ["$ covet new site", "$ cd site", "$ mkdir blog && touch blog/__init__.py"]
        (self.folder / "blog").mkdir()
        (self.folder / "blog/__init__.py").touch()
        app = self.folder / "app.py"
        app.write_text(f"import blog.models\n{app.read_text()}")
        with (self.folder / "covet.toml").open("a") as settings:
            settings.write(f'\n[storage.default]\nurl = "{self.url}"\n')
        shown = f'[storage.default]\nurl = "{self.url.partition(":")[0]}://..."'
        self.lines += ["$ head -1 app.py", "import blog.models", "$ tail -2 covet.toml", *shown.splitlines()]

    def models(self, text: str) -> None:
        """Write the models."""
        text = f"import covet_orm as orm\n\n{text}"
        (self.folder / "blog/models.py").write_text(text)
        self.lines += ["", "$ cat blog/models.py", *text.strip().splitlines()]

    def type(self, command: str, *says: str, code: int = 0, never: str = "") -> str:
        """Type a command of `manage.py`; what it prints.

        Args:
            command: with its arguments.
            says: what is to stand in what it prints; blanks count as one.
            code: its exit code.
            never: what is not to stand there.

        Raises:
            WrongSessionError: it does not.
        """
        found, printed = self._typing(self.folder, command.split())
        shown = self._shown(printed)
        self.typed += 1
        self.lines += ["", f"$ python manage.py {command}", *shown.splitlines()]
        if found:
            self.lines.append(f"(exit code {found})")
        flat = " ".join(printed.split())
        missing = [one for one in says if " ".join(one.split()) not in flat]
        if found != code or missing or (never and never in flat) or "Traceback" in printed:
            raise WrongSessionError(f"{command}: exit code {found}, not {code}; missing {missing}:\n{printed}")
        return printed

    def sql(self, *statements: str, remark: str) -> list[tuple[object, ...]]:
        """Run statements beside the commands, and say so."""

        async def work() -> list[tuple[object, ...]]:
            return await ask(self.url, *statements)

        self.lines += ["", f"# {remark}"]
        return anyio.run(work)

    def remark(self, text: str) -> None:
        """Say something."""
        self.lines += ["", f"# {text}"]

    def _shown(self, text: str) -> str:
        """What was printed, without what is of this machine and this moment."""
        for path in {str(self.folder), str(self.folder.resolve())}:
            text = text.replace(f"{path}/", "").replace(path, ".")
        for pattern, put in TIMES:
            text = pattern.sub(put, text)
        return text.strip("\n")


def environment() -> dict[str, str]:
    """That of a shell without settings of Covet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
    return {**kept, "COLUMNS": "120", "NO_COLOR": "1"}


def in_a_shell(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Type a command as a shell does."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def play(session: Session) -> None:
    """Type the whole session.

    Raises:
        WrongSessionError: a command did not do, or say, what it is to.
    """
    session.make()
    session.models(POST)
    session.type("makemigrations", "blog: blog/migrations/0001_initial.py", "Create model Post")
    session.type("migrate", "blog.0001_initial applied", never="Lint")
    session.sql("INSERT INTO blog_post (title, body) VALUES ('Tea', ''), ('Milk', '')", remark="Two posts are written.")
    _edit(session)
    _go_back(session)
    _lose(session)
    _look(session)


def _edit(session: Session) -> None:
    session.models(HEADLINE)
    session.remark("Was the title renamed, or is it gone? Nobody is there to be asked, and it is not guessed.")
    session.type("makemigrations", "--rename blog.Post.title:headline", code=1)
    session.type(
        "makemigrations --rename blog.Post.title:headline",
        "0002_",
        "Rename field title of Post to headline",
        never="Loses",
    )
    session.models(VIEWS)
    session.type("makemigrations", "--default blog.Post.views=", code=1)
    session.type("makemigrations --default blog.Post.views=0", "0003_", "Add field views to Post")
    session.type("showmigrations", "[X] 0001_initial", "[ ] 0002_", "[ ] 0003_")
    session.type("sqlmigrate blog 0002", "RENAME COLUMN title TO headline")
    session.type("sqlmigrate blog 0002 --backward --dialect postgresql", "RENAME COLUMN headline TO title")
    session.type("migrate --plan", "blog.0002_", "RENAME COLUMN", "blog.0003_", "views")
    session.type("migrate --check", "2 migrations are not applied", "`covet migrate` applies them", code=1)
    session.type("migrate", "blog.0002_", "blog.0003_", "applied", "Lint", "rename-column", "covet migrations lint")
    session.type("migrate", "Nothing to do.", never="Lint")
    rows = session.sql("SELECT headline, views FROM blog_post ORDER BY id", remark="Both posts are there.")
    if rows != [("Tea", 0), ("Milk", 0)]:
        raise WrongSessionError(f"the rows are {rows}")


def _go_back(session: Session) -> None:
    session.models(COMMENT)
    session.type("makemigrations --name comments", "blog: blog/migrations/0004_comments.py", "Create model Comment")
    session.type("migrate", "blog.0004_comments applied")
    session.remark("Nothing is lost with an empty table.")
    session.type("migrate blog 0003", "blog.0004_comments taken back")
    session.type("showmigrations blog", "[X] 0003_", "[ ] 0004_comments")
    session.type("migrate", "blog.0004_comments applied")
    session.sql(
        "INSERT INTO blog_comment (post_id, text, at) VALUES (1, 'Well said', '2026-01-01 00:00:00')",
        remark="A comment is written.",
    )
    session.type("migrate --rollback", "the table blog_comment (1 row)", "--yes", code=1)
    session.type("migrate --rollback --yes", "blog.0004_comments taken back")
    session.type("migrate", "blog.0004_comments applied")


def _lose(session: Session) -> None:
    session.models(GONE)
    session.type("makemigrations", "0005_", "Remove field views from Post", "Loses data")
    session.type("migrate", "drop-column", "the column blog_post.views (2 rows with a value in it)", "--yes", code=1)
    session.type("migrations lint blog 0005", "drop-column", "Instead:", code=1)
    session.type("migrate --yes", "blog.0005_", "applied")
    session.type("makemigrations --check", "No changes.")


def _look(session: Session) -> None:
    session.type("migrations drift", "as its migrations make it")
    session.sql("ALTER TABLE blog_post ADD COLUMN extra INTEGER", remark="Somebody adds a column by hand.")
    session.type("migrations drift", "extra", code=1)
    session.sql("ALTER TABLE blog_post DROP COLUMN extra", remark="And takes it away again.")
    session.type("migrations verify")
    file = session.folder / "blog/migrations/0004_comments.py"
    text = file.read_text()
    file.write_text(text.replace("TextField()", "TextField(null=True)"))
    session.remark("Somebody edits a migration that was applied.")
    session.type("migrations verify", "0004_comments", code=1)
    session.type("migrate", "0004_comments.py", "Nothing was changed", code=1)
    file.write_text(text)
    session.remark("And puts it back.")
    session.type("migrations verify")
    session.type("migrations graph", "0001_initial", "0005_")
    session.type("showmigrations", "[X] 0005_")


@contextlib.contextmanager
def empty(name: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if name == "sqlite":
        yield SQLite(folder).url("site")
    elif name == "mariadb":
        with mariadb.run() as server:
            yield server.create_database("site")
    else:
        with postgresql.run(int(name.rpartition("-")[2])) as server:
            yield server.create_database("site")


def main() -> None:
    """Type it on each database, and write the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sections: dict[str, str] = {}
    rows = []
    for name in NAMES:
        with tempfile.TemporaryDirectory(prefix="session-") as temporary, empty(name, Path(temporary)) as url:
            session = Session(Path(temporary), url, in_a_shell)
            play(session)
        rows.append([TITLES[name], session.typed, 0])
        sections[TITLES[name]] = "\n".join(["```text", *session.lines, "```"])
        print(f"# {name}: {session.typed} commands", flush=True)
    summary = evidence.table(["database", "commands", "not as they are to be"], rows)
    evidence.write(
        "migrate_session",
        "From models to rollback",
        __doc__ or "",
        ["covet-core", "covet-orm", "covet-migrate"],
        {"Commands": summary, **sections},
        session="proof",
    )


if __name__ == "__main__":
    main()
