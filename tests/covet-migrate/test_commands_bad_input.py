"""What people get wrong with migrations: a message that says what, where, and what to do; never a traceback.

`Project.run` sees to it that there is no traceback.
"""

from __future__ import annotations

import pytest
from tests.services.databases import SERVERS
from tests.services.databases import Database as Server
from tests.typed_commands import Project

POST = "class Post(orm.Model):\n    title = orm.CharField(max_length=100)\n"
FIRST = 'dependencies=[("blog", "0001_initial")]'


def blog(project: Project) -> Project:
    project.models("blog", POST)
    project.told("makemigrations")
    return project


def test_no_models_are_imported(project: Project) -> None:
    ended = project.run("makemigrations")
    assert (ended.code, ended.out) == (0, "No changes.\n")
    assert "imports no models" in ended.err
    assert "covet makemigrations" in project.run("migrate").err
    refused = project.refused("makemigrations blog")
    assert "imports no models" in refused
    assert "no application is called 'blog'" in project.refused("showmigrations blog")


def test_an_application_that_is_not_there(project: Project) -> None:
    blog(project)
    for arguments in ("makemigrations bolg", "migrate bolg", "showmigrations bolg", "sqlmigrate bolg 1",
                      "squashmigrations bolg 1", "migrations graph bolg", "migrations verify bolg"):  # fmt: skip
        assert "did you mean 'blog'?" in project.refused(arguments), arguments


def test_a_migration_that_is_not_there(project: Project) -> None:
    blog(project)
    assert "0001_initial" in project.refused("migrate blog 0002")
    assert "0001_initial" in project.refused("sqlmigrate blog 0002")
    assert "0001_initial" in project.refused("squashmigrations blog 0002")


def test_a_file_that_does_not_load(project: Project) -> None:
    blog(project)
    path = project.migration("blog", "0002_broken", before="import not_there", more=FIRST)
    for arguments in ("makemigrations", "migrate", "showmigrations", "migrations graph", "migrations verify"):
        refused = project.refused(arguments)
        assert str(path) in refused
        assert "line 4" in refused
        assert "not_there" in refused
    path.write_text("migration = Migration(\n")
    assert "0002_broken.py, line 1" in project.refused("migrate")
    path.write_text("nothing = 1\n")
    assert "migration = Migration(...)" in project.refused("migrate")


def test_two_of_one_number(project: Project) -> None:
    blog(project)
    for name in ("0002_one", "0002_two"):
        field = f'operations.AddField("Post", "{name[5:]}", orm.IntegerField(null=True))'
        project.migration("blog", name, field, more=FIRST)
    refused = project.refused("migrate")
    assert "0002_one and 0002_two" in refused
    assert "covet makemigrations --merge blog" in refused


def test_a_missing_dependency(project: Project) -> None:
    blog(project)
    path = project.migration("blog", "0002_more", more='dependencies=[("blog", "0001_initail")]')
    refused = project.refused("migrate")
    assert f"{path}: blog.0002_more depends on blog.0001_initail, which is not there" in refused
    assert "did you mean '0001_initial'?" in refused


def test_a_circle(project: Project) -> None:
    blog(project)
    project.told("migrate")
    project.migration("blog", "0002_one", more='dependencies=[("blog", "0003_two")]')
    project.migration("blog", "0003_two", more='dependencies=[("blog", "0002_one")]')
    for arguments in ("migrate", "makemigrations", "migrations graph", "showmigrations"):
        assert "in a circle: blog.0002_one → blog.0003_two → blog.0002_one" in project.refused(arguments)


def test_an_applied_file_that_was_edited(project: Project) -> None:
    blog(project)
    project.told("migrate")
    path = project.folder / "blog/migrations/0001_initial.py"
    path.write_text(path.read_text() + "\n# A remark.\n")
    for arguments in ("migrate", "migrations verify"):
        refused = project.refused(arguments)
        assert str(path) in refused
        assert "migrations verify blog --accept" in refused
    assert project.told("migrations verify blog --accept") == "blog.0001_initial  taken as it is now\n"
    assert project.told("migrations verify --accept") == "Every applied migration is as it was.\n"
    assert project.told("migrations verify") == "1 applied migration is as it was.\n"
    assert project.told("migrate") == "Nothing to do.\n"


def test_an_operation_that_does_not_fit(project: Project) -> None:
    blog(project)
    project.migration("blog", "0002_more", 'operations.RemoveField("Post", "titel")', more=FIRST)
    refused = project.refused("makemigrations")
    assert "0002_more.py" in refused
    assert "did you mean 'title'?" in refused


def test_a_default_that_cannot_be_written(project: Project) -> None:
    """All files are written, or none is."""
    project.models("accounts", POST)
    project.models("blog", f'{POST}    word = orm.CharField(max_length=9, default=lambda: "x")\n')
    refused = project.refused("makemigrations")
    assert "fields['word'], default: the lambda" in refused
    assert f"{project.folder}/blog/models.py:6" in refused
    assert "write it as a function" in refused
    project.models("blog", f"class Secret:\n    pass\n\n\n{POST}    word = orm.JSONField(default=Secret())\n")
    refused = project.refused("makemigrations")
    assert "of the type blog.models.Secret cannot be written into a migration" in refused
    assert project.files("accounts") == project.files("blog") == []


def test_a_file_that_cannot_be_written(project: Project) -> None:
    """The files that were written before it are taken away."""
    project.models("accounts", POST)
    project.models("blog", POST)
    place = project.write("blog/migrations", "a file")
    assert "the package of the migrations of 'blog' cannot be made: File exists" in project.refused("makemigrations")
    assert project.files("accounts") == []
    place.unlink()
    project.told("makemigrations")
    assert project.files("accounts") == project.files("blog") == ["0001_initial"]


def test_a_database_that_cannot_be_reached(project: Project) -> None:
    blog(project)
    project.write("covet.toml", '[storage.default]\nurl = "postgresql://nobody@127.0.0.1:1/nothing"\n')
    for arguments in ("migrate", "showmigrations", "migrations drift", "migrations verify", "inspectdb"):
        refused = project.refused(arguments)
        assert "127.0.0.1" in refused
        assert "covet db check" in refused
    assert "no database is called 'other'" in project.refused("migrate --database other")
    assert project.told("makemigrations") == "No changes.\n", "no database is asked"


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_a_database_that_is_not_there(project: Project, server: Server) -> None:
    server.drop_database("not_there")
    blog(project)
    project.write("covet.toml", f'[storage.default]\nurl = "{server.url("not_there")}"\n')
    for arguments in ("migrate", "showmigrations"):
        assert "covet db create --no-tables" in project.refused(arguments)
    project.told("db create --no-tables")
    project.told("migrate")


def test_a_file_of_sqlite_that_is_not_there(project: Project) -> None:
    blog(project)
    refused = project.refused("showmigrations")
    assert "is not there" in refused
    assert "covet migrate" in refused
    assert not (project.folder / "project.db").exists(), "to look is not to make"
    project.told("migrate")
    assert "[X] 0001_initial" in project.told("showmigrations")


def test_what_has_no_way_back(project: Project) -> None:
    blog(project)
    project.migration("blog", "0002_sql", 'operations.RunSQL("DELETE FROM blog_post")', more=FIRST)
    project.told("migrate")
    refused = project.refused("migrate blog 0001")
    assert "blog.0002_sql cannot be taken back" in refused
    assert "reverse_sql" in refused
    assert "has no way back" in project.refused("sqlmigrate blog 0002 --backward")


def test_a_statement_that_fails(project: Project) -> None:
    blog(project)
    project.migration("blog", "0002_sql", 'operations.RunSQL("DELETE FROM blog_past")', more=FIRST)
    refused = project.refused("migrate")
    assert "blog.0002_sql failed at operation 1 of 1" in refused
    assert "DELETE FROM blog_past" in refused
    assert "Nothing of it was kept" in refused
    assert "[ ] 0002_sql" in project.told("showmigrations")
