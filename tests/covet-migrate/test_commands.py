"""The commands of covet-migrate, as they are typed: from models to rollback, and what each option does."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from tests.services.databases import Database as Server
from tests.services.databases import Databases, ask
from tests.typed_commands import Ended, Project

from covet_orm import Database

POST = "class Post(orm.Model):\n    title = orm.CharField(max_length=100)\n"
SLUG = f'{POST}    slug = orm.SlugField(default="none")\n'
BODY = f'{SLUG}    body = orm.TextField(default="")\n'
COMMENT = f"{BODY}\n\nclass Comment(orm.Model):\n    post = orm.ForeignKey(Post)\n"


def ask_sync(url: str, *statements: str) -> list[tuple[object, ...]]:
    async def asked() -> list[tuple[object, ...]]:
        return await ask(url, *statements)

    return anyio.run(asked)


def lines(text: str) -> list[str]:
    """Lines without times."""
    return [
        re.sub(r"\d+\.\d\d s$", "_ s", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "_", line)) for line in text.splitlines()
    ]


def on(project: Project, url: str) -> Project:
    project.write("covet.toml", f'[storage.default]\nurl = "{url}"\n')
    return project


def test_the_session(project: Project, server: Server) -> None:
    """From models to rollback, as the documentation shows it, on each database."""
    url = server.empty_database("blog")
    on(project, url)
    project.models("blog", POST)
    assert project.told("makemigrations").splitlines() == [
        "blog: blog/migrations/0001_initial.py",
        "  Create model Post",
    ]
    assert lines(project.told("migrate")) == ["blog.0001_initial  applied  _ s"]
    ask_sync(url, "INSERT INTO blog_post (title) VALUES ('Tea')")
    project.models("blog", SLUG)
    project.told("makemigrations")
    project.models("blog", COMMENT)
    assert project.told("makemigrations", "blog", "--name", "comments").splitlines()[0] == (
        "blog: blog/migrations/0003_comments.py"
    )
    assert project.told("makemigrations") == "No changes.\n"
    assert lines(project.told("migrate")) == [
        "blog.0002_post_slug  applied  _ s",
        "blog.0003_comments  applied  _ s",
    ]
    assert project.told("migrate") == "Nothing to do.\n"
    assert ask_sync(url, "SELECT title, slug FROM blog_post") == [("Tea", "none")]
    assert lines(project.told("showmigrations")) == [
        "blog",
        "  [X] 0001_initial  _ UTC, run 1",
        "  [X] 0002_post_slug  _ UTC, run 2",
        "  [X] 0003_comments  _ UTC, run 2",
    ]
    ask_sync(url, "INSERT INTO blog_comment (post_id) VALUES (1)")
    refused = project.refused("migrate blog 0002")
    assert "the table blog_comment (1 row)" in refused
    assert "--yes" in refused
    assert lines(project.told("migrate blog 0002 --yes")) == ["blog.0003_comments  taken back  _ s"]
    assert lines(project.told("migrate")) == ["blog.0003_comments  applied  _ s"]
    assert lines(project.told("migrate --rollback --yes")) == ["blog.0003_comments  taken back  _ s"]
    assert lines(project.told("migrate --rollback 1 --yes")) == ["blog.0002_post_slug  taken back  _ s"]
    assert ask_sync(url, "SELECT title FROM blog_post") == [("Tea",)]
    assert lines(project.told("migrate blog zero --yes")) == ["blog.0001_initial  taken back  _ s"]
    assert project.told("migrate --rollback") == "Nothing to take back.\n"
    assert lines(project.told("showmigrations")) == [
        "blog",
        "  [ ] 0001_initial",
        "  [ ] 0002_post_slug",
        "  [ ] 0003_comments",
    ]
    assert project.told("migrations drift").strip() == ""


def three(project: Project) -> Project:
    """A project with three migrations of `blog`, none of them applied."""
    for text in (POST, SLUG, BODY):
        project.models("blog", text)
        project.told("makemigrations")
    return project


def test_plan_and_check(project: Project) -> None:
    three(project)
    project.told("migrate blog 0001")
    plan = project.told("migrate --plan")
    assert "blog.0002_post_slug" in plan
    assert "blog.0003_post_body" in plan
    assert "ALTER TABLE" in plan or "CREATE TABLE" in plan
    assert "blog.0001_initial (backward)" in project.told("migrate blog zero --plan")
    refused = project.refused("migrate --check")
    assert "2 migrations are not applied" in refused
    assert "covet migrate" in refused
    assert "[ ] 0002" in project.told("showmigrations"), "neither does anything"
    project.told("migrate")
    assert project.told("migrate --check") == "Nothing to do.\n"
    assert project.told("migrate --plan") == "Nothing to do.\n"


def test_fake_and_fake_initial(project: Project) -> None:
    three(project)
    url = f"sqlite:///{project.folder}/project.db"
    ask_sync(url, "CREATE TABLE blog_post (id INTEGER PRIMARY KEY, title VARCHAR(100) NOT NULL)")
    refused = project.refused("migrate")
    assert "already exists" in refused
    assert "--fake-initial" in refused
    assert lines(project.told("migrate --fake-initial")) == [
        "blog.0001_initial  written down  _ s",
        "blog.0002_post_slug  applied  _ s",
        "blog.0003_post_body  applied  _ s",
    ]
    assert "0001_initial  _ UTC, run 1, written down only" in "\n".join(lines(project.told("showmigrations blog")))
    assert lines(project.told("migrate blog 0002 --fake")) == ["blog.0003_post_body  written down  _ s"]
    assert "[ ] 0003" in project.told("showmigrations")
    assert lines(project.told("migrate --fake")) == ["blog.0003_post_body  written down  _ s"]


def test_prune_forgets_what_has_no_file(project: Project) -> None:
    three(project)
    project.told("migrate")
    (project.folder / "blog/migrations/0003_post_body.py").unlink()
    refused = project.refused("migrate")
    assert "blog.0003_post_body" in refused
    assert "--prune" in refused
    assert project.told("migrate --prune") == "blog.0003_post_body  forgotten\n"
    assert project.told("migrate --prune") == "Every applied migration has its file.\n"
    assert project.told("migrate --unwind") == "No migration was interrupted.\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("migrate --rollback --unwind", "--rollback"),
        ("migrate blog --prune", "--prune"),
        ("makemigrations --empty --merge", "choose one"),
        ("makemigrations --empty", "APP --empty"),
        ("makemigrations --default blog.Post.slug", "app.Model.field=value"),
        ("squashmigrations blog", "covet squashmigrations blog TO"),
        ("migrate --rollback 0", "0"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(project: Project, arguments: str, words: str) -> None:
    project.models("blog", POST)
    assert words in project.refused(arguments, code=2)


def test_dry_run_check_and_empty(project: Project) -> None:
    project.models("blog", POST)
    printed = project.told("makemigrations --dry-run")
    assert "operations.CreateModel(" in printed
    assert project.files("blog") == []
    refused = project.refused("makemigrations --check")
    assert "covet makemigrations" in refused
    assert project.files("blog") == []
    project.told("makemigrations")
    assert project.told("makemigrations --check") == "No changes.\n"
    project.told("makemigrations blog --empty --name data")
    assert project.files("blog") == ["0001_initial", "0002_data"]
    assert '("blog", "0001_initial")' in (project.folder / "blog/migrations/0002_data.py").read_text()
    assert lines(project.told("migrate"))[-1] == "blog.0002_data  applied  _ s"


def test_what_was_renamed_is_said_or_asked_and_never_guessed(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    project.models("blog", POST.replace("title", "headline"))
    refused = project.run("makemigrations --no-input")
    assert refused.code == 1
    assert "--rename blog.Post.title:headline" in refused.err
    project.models("blog", POST.replace("title", "headline").replace("100", "100, default='none'"))
    ended = project.run("makemigrations --dry-run")
    assert "Renamed?: nothing is taken for renamed; if it was, say --rename blog.Post.title:headline" in ended.err
    assert "Loses data" in ended.err
    project.models("blog", POST.replace("title", "headline"))
    assert "Rename field title" in project.told("makemigrations --rename blog.Post.title:headline")
    project.models("blog", POST.replace("title", "headline").replace("Post", "Article"))
    assert "Rename model Post to Article" in project.told("makemigrations --rename blog.Post:Article")
    assert project.told("makemigrations --check") == "No changes.\n"
    assert "blog.Post" in project.refused("makemigrations --rename blog.Post:Nothing")


def test_a_value_for_rows_that_are_there(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    project.told("migrate")
    url = f"sqlite:///{project.folder}/project.db"
    ask_sync(url, "INSERT INTO blog_post (title) VALUES ('Tea')")
    project.models("blog", f"{POST}    pages = orm.IntegerField()\n")
    refused = project.refused("makemigrations")
    assert "--default blog.Post.pages=" in refused
    project.told("makemigrations --default blog.Post.pages=7")
    project.told("migrate")
    assert ask_sync(url, "SELECT pages FROM blog_post") == [(7,)]


def test_merging(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    for name in ("a", "b"):
        project.migration(
            "blog", f"0002_{name}", f'operations.AddField("Post", "{name}", orm.IntegerField(null=True))',
            more='dependencies=[("blog", "0001_initial")]',
        )  # fmt: skip
    for arguments in ("migrate", "makemigrations"):
        refused = project.refused(arguments)
        assert "0002_a and 0002_b" in refused
        assert "covet makemigrations --merge blog" in refused
    project.told("makemigrations --merge")
    assert project.files("blog")[-1] == "0003_merge"
    assert project.told("makemigrations --merge") == "Nothing to merge.\n"
    assert project.told("migrations graph").splitlines() == [
        "blog",
        "● 0001_initial",
        "├─╮",
        "● │ 0002_a",
        "│ ● 0002_b",
        "├─╯",
        "● 0003_merge",
    ]
    project.told("migrate")


def test_questions_are_asked_at_a_terminal(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    project.models("blog", POST.replace("title", "headline"))
    printed, code = at_terminal(project, ["makemigrations"], b"y\n")
    assert code == 0, printed
    assert "Was the field title of blog.Post renamed to headline?" in printed
    assert "Rename field title" in printed
    project.models("blog", POST.replace("title", "headline") + "    pages = orm.IntegerField()\n")
    printed, code = at_terminal(project, ["makemigrations"], b"many\n12\n")
    assert code == 0, printed
    assert "'many'" in printed, "what is no value is asked again"
    assert "fill=12" in (project.folder / "blog/migrations" / f"{project.files('blog')[-1]}.py").read_text()


def test_what_is_not_safe_is_told_and_loss_is_asked_about(project: Project) -> None:
    project.models("blog", SLUG)
    project.told("makemigrations")
    assert project.run("migrate").err == "", "nothing is there that could be lost"
    url = f"sqlite:///{project.folder}/project.db"
    ask_sync(url, "INSERT INTO blog_post (title, slug) VALUES ('Tea', 'tea')")
    project.models("blog", POST)
    project.told("makemigrations")
    refused = project.refused("migrate")
    assert "Lint: error drop-column: the column slug of blog_post (blog.0002_remove_post_slug)" in refused
    assert "`covet migrations lint blog 0002_remove_post_slug` says why" in refused
    assert "deletes the column blog_post.slug (1 row with a value in it)" in refused
    printed, code = at_terminal(project, ["migrate"], b"n\n")
    assert code == 1
    assert "Go on, and let it go? [y/N]" in printed
    assert "Traceback" not in printed
    assert "[ ] 0002" in project.told("showmigrations")
    printed, code = at_terminal(project, ["migrate"], b"y\n")
    assert code == 0, printed
    assert "[X] 0002" in project.told("showmigrations")


def test_a_terminal_sees_what_is_done(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    counting = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000000) SELECT count(*) FROM n"
    )
    sql = f'operations.RunSQL("/* [/b] [red] */ {counting}", "")'
    project.migration("blog", "0002_sql", sql, more='dependencies=[("blog", "0001_initial")]')
    printed, code = at_terminal(project, ["migrate"], b"")
    assert code == 0, printed
    assert "Traceback" not in printed
    assert "[/b] [red]" in printed
    assert "0/1" in printed
    assert "blog.0002_sql" in printed
    assert "applied" in printed


def test_a_terminal_counts_the_rows(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    slowly = (
        "import anyio\n\n\nasync def slowly(models, posts):\n    await anyio.sleep(0.3)\n\n\n"
        "async def fill(models, database):\n"
        '    for number in range(6):\n        await models["blog.Post"].objects.create(title=str(number))\n'
    )
    batches = 'operations.RunPython(slowly, batched="Post", size=4)'
    project.migration(
        "blog", "0002_fill", "operations.RunPython(fill)", slowly, 'dependencies=[("blog", "0001_initial")]'
    )
    project.migration("blog", "0003_slow", batches, slowly, 'dependencies=[("blog", "0002_fill")], atomic=False')
    printed, code = at_terminal(project, ["migrate"], b"")
    assert code == 0, printed
    assert "slowly  4 of 6 rows" in printed


def test_those_who_keep_it_waiting_are_told(project: Project, postgresql: Server) -> None:
    """A transaction that has read the table; the migration does not stand in anybody's way meanwhile."""
    url = postgresql.empty_database("blog")
    on(project, url)
    project.models("blog", POST)
    project.told("makemigrations")
    project.told("migrate")
    project.models("blog", SLUG)
    project.told("makemigrations")

    async def held() -> tuple[Ended, list[tuple[object, ...]]]:
        async with Database(url) as database, anyio.create_task_group() as group:
            told: list[Ended] = []

            async def migrated() -> None:
                told.append(await anyio.to_thread.run_sync(project.run, "migrate"))

            async with database.transaction():
                await database.query("SELECT 1 FROM blog_post")
                group.start_soon(migrated)
                told_so_far = anyio.Path(project.folder.parent / "typed/stderr")
                with anyio.fail_after(60):
                    while "Waiting" not in await told_so_far.read_text():  # noqa: ASYNC110 - another process writes it
                        await anyio.sleep(0.05)
                rows = await ask(url, "SELECT count(*) FROM blog_post")
        return told[0], rows

    ended, rows = anyio.run(held)
    assert rows == [(0,)]
    assert ended.code == 0, ended.err
    assert "Waiting: blog.0002_post_slug: a transaction that lasts uses blog_post" in ended.err


def at_terminal(project: Project, arguments: list[str], typed: bytes) -> tuple[str, int]:
    """Type a command at a terminal; what stands there then."""
    main, other = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("covet")), *arguments],
        cwd=project.folder, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    os.write(main, typed)
    printed = b""
    while True:
        try:
            more = os.read(main, 65536)
        except OSError:
            # Linux says so where nobody has the other end any longer.
            break
        if not more:
            break
        printed += more
    os.close(main)
    return printed.decode(), process.wait(60)


def test_sql_of_each_dialect_forward_and_backward_without_a_database(project: Project) -> None:
    three(project)
    on(project, "postgresql://nobody@127.0.0.1:1/nothing")
    for dialect in ("postgresql", "mysql", "mariadb", "sqlite"):
        forward = project.told(f"sqlmigrate blog 0001 --dialect {dialect}")
        assert forward.startswith("-- Create model Post\nCREATE TABLE "), forward
        assert forward.rstrip().endswith(";")
        assert "DROP TABLE" in project.told(f"sqlmigrate blog 0001 --backward --dialect {dialect}")
        assert "slug" in project.told(f"sqlmigrate blog 0002 --dialect {dialect}")
        assert "slug" in project.told(f"sqlmigrate blog 0002 --backward --dialect {dialect}")
    assert "BIGSERIAL" in project.told("sqlmigrate blog 0001"), "that of the settings"
    assert "15.4" in project.refused("sqlmigrate blog 0001 --server-version new")
    assert project.told("sqlmigrate blog 0001 --server-version 15.4").startswith("--")
    assert "0003_post_body" in project.refused("sqlmigrate blog 0007")


def test_showmigrations_as_json(project: Project) -> None:
    three(project)
    import json

    project.told("migrate blog 0001")
    found = json.loads(project.told("showmigrations --json"))
    assert [(one["app"], one["name"], one["applied"], one["run"]) for one in found] == [
        ("blog", "0001_initial", True, 1),
        ("blog", "0002_post_slug", False, None),
        ("blog", "0003_post_body", False, None),
    ]


def test_manage_py(project: Project) -> None:
    """A project as `covet new` makes it: its `manage.py` has all commands, from wherever it is called."""
    project.told("new", "shop")
    folder = project.folder / "shop"
    (folder / "blog").mkdir()
    (folder / "blog/__init__.py").touch()
    (folder / "blog/models.py").write_text(f"import covet_orm as orm\n\n\n{POST}")
    app = folder / "app.py"
    app.write_text(
        app.read_text().replace("from covet import Covet\n", "import blog.models\nfrom covet import Covet\n")
    )
    with (folder / "covet.toml").open("a") as settings:
        settings.write('\n[storage.default]\nurl = "sqlite:///shop.db"\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
    for arguments, printed, beside in (
        (["makemigrations"], "0001_initial", "Next: `covet migrate` applies it\n"),
        (["migrate"], "applied", ""),
        (["migrate"], "Nothing", ""),
    ):
        done = subprocess.run(
            [sys.executable, str(folder / "manage.py"), *arguments],
            cwd=project.folder, capture_output=True, text=True, timeout=60, check=False, env=environment,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, beside)
        assert printed in done.stdout
    assert (folder / "blog/migrations/0001_initial.py").exists()
    assert (folder / "shop.db").exists()


def test_each_database_has_its_own(project: Project) -> None:
    """A model that names a database has its table there alone; each database has a history of its own."""
    project.write(
        "covet.toml",
        '[storage.default]\nurl = "sqlite:///project.db"\n\n[storage.reports]\nurl = "sqlite:///reports.db"\n',
    )
    project.models("blog", f'{POST}\n\nclass Report(orm.Model):\n    class Meta:\n        database = "reports"\n')
    project.told("makemigrations")
    tables = {}
    for alias, file in (("default", "project.db"), ("reports", "reports.db")):
        project.told(f"migrate --database {alias}")
        found = ask_sync(f"sqlite:///{project.folder}/{file}", "SELECT name FROM sqlite_master WHERE type = 'table'")
        tables[alias] = {str(name) for (name,) in found if str(name).startswith("blog")}
        assert "[X] 0001_initial" in project.told(f"showmigrations --database {alias}")
        assert "as its migrations make it" in project.told(f"migrations drift --database {alias}")
    assert tables["default"] == {"blog_post"}
    assert "blog_report" in tables["reports"]


def test_what_was_interrupted_is_taken_up_or_unwound(project: Project, databases: Databases) -> None:
    """On MariaDB, which commits each statement of DDL by itself."""
    server = databases.mariadb()
    url = server.empty_database("interrupted")
    on(project, url)
    project.models("blog", POST)
    project.told("makemigrations")
    project.told("migrate")
    adding = 'operations.AddField("Post", "pages", orm.IntegerField(null=True))'
    project.migration(
        "blog", "0002_more", f'{adding}, operations.RunSQL("INSERT INTO late VALUES (1)", "")',
        more='dependencies=[("blog", "0001_initial")]',
    )  # fmt: skip
    refused = project.refused("migrate")
    assert "migrate --unwind" in refused
    assert "[!] 0002_more" in project.told("showmigrations")
    assert "migrate --unwind" in project.refused("migrate --rollback")
    ask_sync(url, "CREATE TABLE late (id INTEGER)")
    assert lines(project.told("migrate")) == ["blog.0002_more  applied  _ s"]
    project.told("migrate blog 0001")
    ask_sync(url, "DROP TABLE late")
    project.refused("migrate")
    project.told("migrate --unwind")
    assert "[ ] 0002_more" in project.told("showmigrations")
    assert "pages" not in {str(row[0]) for row in ask_sync(url, "SHOW COLUMNS FROM blog_post")}
