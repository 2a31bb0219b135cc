"""`covet migrations drift`, `verify`, `graph` and `covet inspectdb`, as they are typed."""

from __future__ import annotations

import json

import anyio
from tests.services.databases import Database as Server
from tests.services.databases import ask
from tests.typed_commands import Project

POST = """class Post(orm.Model):
    title = orm.CharField(max_length=100)
    pages = orm.IntegerField(null=True)
"""


def do(url: str, *statements: str) -> None:
    async def asked() -> None:
        await ask(url, *statements)

    anyio.run(asked)


def migrated(project: Project, url: str) -> Project:
    project.write("covet.toml", f'[storage.default]\nurl = "{url}"\n')
    project.models("blog", POST)
    project.told("makemigrations")
    project.told("migrate")
    return project


def test_drift(project: Project, server: Server) -> None:
    url = server.empty_database("drifting")
    migrated(project, url)
    assert project.told("migrations drift") == "The database is as its migrations make it.\n"
    do(url, "ALTER TABLE blog_post ADD COLUMN extra INTEGER", "CREATE INDEX blog_by_hand ON blog_post (title)",
       "CREATE TABLE other (id INTEGER)")  # fmt: skip
    ended = project.run("migrations drift")
    assert ended.code == 1
    assert "column blog_post.extra: in the database, and not in the migrations" in ended.out
    assert "index blog_by_hand of blog_post: in the database, and not in the migrations" in ended.out
    assert "no migration knows the table other" in ended.err
    assert "2 differences" in ended.err
    assert "--migration" in ended.err
    found = json.loads(project.run("migrations drift --json").out)
    assert {one["name"] for one in found["differences"]} == {"extra", "blog_by_hand"}
    assert found["unknown"] == ["table other"]
    ended = project.run("migrations drift --migration")
    assert "--fake" in ended.err
    assert project.files("blog") == ["0001_initial", "0002_drift"]
    project.told("migrate")
    assert "The database is as its migrations make it." in project.told("migrations drift")


def test_what_sql_by_hand_would_lose_is_not_written(project: Project) -> None:
    url = f"sqlite:///{project.folder}/project.db"
    migrated(project, url)
    do(url, "DROP TABLE blog_post", "CREATE TABLE blog_post (id INTEGER PRIMARY KEY, title TEXT, pages INTEGER)")
    ended = project.run("migrations drift --migration")
    assert ended.code == 1
    assert "make a table anew" in ended.err
    assert project.files("blog") == ["0001_initial"]


def test_drift_where_nothing_is_applied(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    project.told("migrate")
    project.told("migrate blog zero")
    assert "no migration is applied" in project.run("migrations drift").err
    project.told("migrate")
    project.models("blog", POST.replace("100", "50"))
    project.told("makemigrations")
    assert "1 are not applied" in project.told("migrations drift") or "not applied" in project.told("migrations drift")


def test_inspectdb(project: Project, server: Server) -> None:
    url = server.empty_database("inspected")
    migrated(project, url)
    printed = project.told("inspectdb --label blog")
    assert "class Post(orm.Model):" in printed
    assert "title = orm.CharField(max_length=100)" in printed
    project.models("blog", printed.partition("import covet_orm as orm\n")[2].lstrip())
    assert project.told("makemigrations --check") == "No changes.\n"
    assert "class BlogPost" in project.told("inspectdb blog_post")
    refused = project.refused("inspectdb blog_pots")
    assert "did you mean 'blog_post'?" in refused


def test_the_graph_has_other_applications(project: Project) -> None:
    project.models("blog", POST)
    project.models("shop", 'class Offer(orm.Model):\n    post = orm.ForeignKey("blog.Post")\n')
    project.told("makemigrations")
    assert project.told("migrations graph").splitlines() == [
        "blog",
        "● 0001_initial",
        "shop",
        "● 0001_initial  needs blog.0001_initial",
    ]
    dot = project.told("migrations graph shop --dot")
    assert '"shop.0001_initial" -> "blog.0001_initial";' in dot
    mermaid = project.told("migrations graph --mermaid").splitlines()
    assert mermaid[0] == "flowchart TD"
    assert "  m0 --> m1" in mermaid


def test_the_graph_without_migrations(project: Project) -> None:
    assert project.told("migrations graph") == "There are no migrations.\n"
