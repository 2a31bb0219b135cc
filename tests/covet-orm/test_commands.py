"""`covet db`, as it is typed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.services.databases import Database as Server
from tests.services.databases import ask

from covet_orm.commands.shell import client_of
from covet_orm.drivers.options import MySQLOptions, PostgreSQLOptions
from covet_orm.urls import parse_url

COVET = str(Path(sys.executable).with_name("covet"))
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Several = Callable[..., "list[subprocess.CompletedProcess[str]]"]

SEVERAL = """
import json, sys
from click.testing import CliRunner
from covet.cli.groups import make_root

done = []
for arguments in json.loads(sys.argv[1]):
    ended = CliRunner().invoke(make_root(), ["db", *arguments], prog_name="covet")
    done.append([ended.exit_code, ended.stdout, ended.stderr])
print(json.dumps(done))
"""
"""Runs commands one after the other in one process, which need not import everything anew for each."""

APPLICATION = """
from covet import Covet
from covet_orm.fields import CASCADE, CharField, ForeignKey, IntegerField
from covet_orm.models import Model


class Author(Model):
    name = CharField(max_length=50, unique=True)

    class Meta:
        db_table = "author"


class Book(Model):
    title = CharField(max_length=50, db_index=True)
    pages = IntegerField(null=True)
    author = ForeignKey(Author, on_delete=CASCADE, related_name="books")

    class Meta:
        db_table = "book"


app = Covet()
print("noise at import")
"""


@pytest.fixture
def project(tmp_path: Path, server: Server) -> Path:
    """A project whose database is not there yet."""
    server.drop_database("library")
    folder = tmp_path / "project"
    folder.mkdir()
    write(folder, server.url("library"))
    return folder


def write(folder: Path, url: str, more: str = "") -> None:
    """The files of a project."""
    (folder / "app.py").write_text(APPLICATION)
    (folder / "covet.toml").write_text(f'[storage.default]\nurl = "{url}"\n{more}')


@pytest.fixture
def covet(tmp_path: Path) -> Run:
    """Type a command in the folder of the project."""

    def run(*arguments: str, path: str | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
        if path is not None:
            environment["PATH"] = path
        return subprocess.run(
            [COVET, "db", *arguments],
            cwd=tmp_path / "project",
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def several(tmp_path: Path) -> Several:
    """Type commands one after the other in the folder of the project."""

    def run(*commands: str) -> list[subprocess.CompletedProcess[str]]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL, json.dumps([command.split() for command in commands])],
            cwd=tmp_path / "project",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ended = json.loads(done.stdout)
        return [
            subprocess.CompletedProcess(command, code, stdout, stderr)
            for command, (code, stdout, stderr) in zip(commands, ended, strict=True)
        ]

    return run


def told(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """What a command printed, after it ended as it should and without a traceback."""
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def test_a_database_is_created_checked_and_inspected(project: Path, several: Several, server: Server) -> None:
    missing, failed, made, again, checked, json_checked = several(
        "check", "inspect", "create --json", "create", "check", "check --json"
    )
    assert "`covet db create` creates it" in told(missing, 1)
    told(failed, 1)
    assert "`covet db create` creates it" in failed.stderr
    assert json.loads(told(made)) == [{"database": "default", "created": True, "tables": ["author", "book"]}]
    assert re.search(r"default +there already +none", told(again))
    assert checked.returncode == json_checked.returncode
    found = json.loads(told(json_checked, 0 if server.kind == "sqlite" else json_checked.returncode))
    (one,) = found["databases"]
    assert one["reachable"]
    assert one["kind"] == server.kind
    assert one["role"] in ("primary", "file")
    assert abs(one["clock"]) < 5
    assert re.match(r"\d+\.\d+", one["version"])
    assert not [finding for finding in found["findings"] if "table" in finding["message"]]

    asyncio.run(ask(server.url("library"), "INSERT INTO author (name) VALUES ('jane')", "DROP TABLE book"))
    checked, made, json_tables, tables, json_book, book, wrong = several(
        "check", "create", "inspect --json", "inspect", "inspect book --json", "inspect book", "inspect bok"
    )
    assert "the table book of the model Book is not there; `covet db create` creates it" in told(checked, 1)
    assert "book" in told(made)
    listed = [(table["table"], table["model"]) for table in json.loads(told(json_tables))]
    assert listed == [("author", "Author"), ("book", "Book")]
    assert "Author" in told(tables)
    parts = json.loads(told(json_book))
    assert [column["name"] for column in parts["columns"]] == ["id", "title", "pages", "author_id"]
    assert [column["null"] for column in parts["columns"]] == [False, False, True, False]
    assert "50" in parts["columns"][1]["type"]
    definitions = " ".join(key["definition"].replace('"', "") for key in parts["keys"])
    assert "PRIMARY KEY (id)" in definitions
    assert re.search(r"FOREIGN KEY \(author_id\) REFERENCES author", definitions)
    assert len(parts["indexes"]) >= 1
    assert "PRIMARY KEY" in told(book)
    told(wrong, 1)
    assert "there is no table 'bok'; did you mean 'book'?" in wrong.stderr


def test_the_databases_own_prompt(project: Path, covet: Run, server: Server) -> None:
    told(covet("create"))
    asyncio.run(ask(server.url("library"), "INSERT INTO author (name) VALUES ('100% jane')"))
    assert "100% jane" in told(covet("shell", "-c", "SELECT name FROM author"))
    assert "100% jane" in told(covet("shell", stdin="SELECT name FROM author;\n"))


def test_a_plain_prompt(project: Path, covet: Run, server: Server) -> None:
    told(covet("create"))
    typed = (
        "INSERT INTO author (name)\nVALUES ('100% jane');\nSELECT * FRM author;\nSELECT name, NULL AS x FROM author;\n"
    )
    done = covet("shell", stdin=typed, path="/nowhere")
    assert re.search(r"100% jane +NULL", told(done))
    assert "is not installed, so that this is a plain prompt" in done.stderr
    assert re.search("syntax", done.stderr)
    failed = covet("shell", "--plain", "-c", "SELECT * FROM nowhere")
    told(failed, 1)
    assert "nowhere" in failed.stderr


def test_mistakes_are_told(tmp_path: Path, covet: Run) -> None:
    (tmp_path / "project").mkdir()
    write(tmp_path / "project", "postgresql://ada:secret@127.0.0.1:1/library", '[storage.reports]\nurl = "sqlite://"\n')
    done = covet("check")
    text = told(done, 1)
    assert "127.0.0.1:1" in text
    assert re.search("reports.*the database is in memory", text)
    assert "secret" not in text + done.stderr
    done = covet("create")
    told(done, 1)
    assert "Is the server running" in done.stderr
    done = covet("create", "repotrs")
    told(done, 1)
    assert "no database is called 'repotrs'\n  There are: default, reports." in done.stderr
    told(covet("create", "reports"))
    (tmp_path / "project" / "covet.toml").write_text("")
    done = covet("shell")
    told(done, 1)
    assert "the application has no database" in done.stderr
    (tmp_path / "project" / "app.py").write_text("import nothing_of_that_name")
    done = covet("check")
    told(done, 1)
    assert "app cannot be imported" in done.stderr


def test_dangerous_settings_are_found(tmp_path: Path, covet: Run) -> None:
    (tmp_path / "project").mkdir()
    write(tmp_path / "project", f"sqlite:///{tmp_path}/a.db?synchronous=off&foreign_keys=false&journal_mode=off")
    told(covet("create"))
    text = told(covet("check"), 1)
    assert "synchronous is off: a crash" in text
    assert "foreign_keys is off" in text
    write(tmp_path / "project", f"sqlite:///{tmp_path}/b.db")
    told(covet("create"))
    assert "Nothing is wrong." in told(covet("check"))


def test_dangerous_settings_of_a_server_are_found(tmp_path: Path, covet: Run, mariadb: Any) -> None:
    url = mariadb.empty_database("library")
    (tmp_path / "project").mkdir()
    write(tmp_path / "project", f"{url}?max_size=100000")
    told(covet("create"))
    asyncio.run(ask(url, "CREATE TABLE old (a integer) ENGINE = Aria", "ALTER DATABASE library CHARACTER SET latin1"))
    text = told(covet("check"), 1)
    assert "the table old has the engine Aria" in text
    assert "character set is not utf8mb4" in text
    assert "the pool may have 100000 connections" in text


def test_the_password_is_on_no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, options in (
        ("postgresql://ada:s3cret@[::1]:6000/li%20brary", PostgreSQLOptions(tls="verify-full", tls_ca="/ca.pem")),
        ("mariadb://ada:s3cret@db.example/library", MySQLOptions(tls="verify-full", tls_ca="/ca.pem")),
        ("mysql://ada:s3cret@/library?socket=/run/my.sock", MySQLOptions()),
    ):

        class Driver:
            pass

        driver: Any = Driver()
        driver.options = options
        found = client_of(parse_url(url), driver, "SELECT 1")
        assert found is not None
        program, arguments, environment = found
        assert os.path.isabs(program)
        assert "s3cret" not in " ".join(arguments)
        assert "s3cret" in (environment.get("PGPASSWORD"), environment.get("MYSQL_PWD"))
        if url.startswith("postgresql"):
            assert environment["PGHOST"] == "::1"
            assert (environment["PGDATABASE"], environment["PGSSLROOTCERT"]) == ("li brary", "/ca.pem")
        elif "socket" in url:
            assert "--socket=/run/my.sock" in arguments
        else:
            assert {"--host=db.example", "--ssl-ca=/ca.pem", "--ssl-verify-server-cert"} <= set(arguments)
    monkeypatch.setenv("PATH", "/nowhere")
    assert client_of(parse_url("sqlite://"), None) is None
