"""`covet migrations lint` and `covet makemigrations --safe`, as they are typed."""

from __future__ import annotations

import json

from tests.services.databases import Databases
from tests.typed_commands import Project

POST = "class Post(orm.Model):\n    title = orm.CharField(max_length=100)\n"
SLUG = f'{POST}    slug = orm.SlugField(default="none", db_index=True)\n'


def test_lint_groups_what_it_finds_and_fails(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    assert project.told("migrations lint") == "Nothing found.\n"
    project.models("blog", SLUG)
    project.told("makemigrations")
    ended = project.run(*["migrations", "lint", "blog", "0002", "--dialect", "postgresql", "--server-version", "15"])
    assert ended.code == 1
    assert ended.out.startswith("blog.0002_post_slug\n  1. Add field slug to Post\n     error required-column: ")
    assert "index-not-concurrent: the index blog_post_slug_idx of blog_post" in ended.out
    assert "SHARE on blog_post, which blocks writers; every row is read" in ended.out
    assert ended.out.splitlines()[-1] == "2 errors."


def test_lint_as_json_and_strict(project: Project) -> None:
    project.models("blog", SLUG)
    project.told("makemigrations")
    project.models("blog", SLUG.replace("db_index", "unique"))
    project.told("makemigrations")
    ended = project.run(*["migrations", "lint", "--json", "--dialect", "sqlite"])
    found = json.loads(ended.out)
    assert {one["rule"] for one in found} == {"unique-added", "rebuilds-table"}
    assert found[0]["migration"] == "blog.0002_alter_post_slug" or found[0]["migration"].startswith("blog.0002")
    assert ended.code == 0
    assert project.run(*["migrations", "lint", "--strict", "--dialect", "sqlite"]).code == 1


def test_lint_prints_its_rules(project: Project) -> None:
    told = project.told("migrations lint --rules")
    assert "error drop-column: A column is dropped" in told


def test_lint_refuses_what_is_no_version(project: Project) -> None:
    project.models("blog", POST)
    assert "numbers with dots" in project.refused("migrations lint --dialect postgresql --server-version now")


def test_safe_migrations_are_written_run_and_found_safe(project: Project, databases: Databases) -> None:
    url = databases.postgresql(15).empty_database("blog")
    project.write("covet.toml", f'[storage.default]\nurl = "{url}"\n')
    project.models("blog", POST)
    project.told("makemigrations")
    project.told("migrate")
    project.models("blog", SLUG)
    told = project.told("makemigrations --safe --name slug")
    assert told.splitlines() == [
        "blog: blog/migrations/0002_slug.py",
        "  Add field slug to Post",
        "blog: blog/migrations/0003_slug.py",
        "  Alter field slug of Post",
    ]
    text = (project.folder / "blog/migrations/0002_slug.py").read_text(encoding="utf-8")
    assert "atomic=False" in text
    assert "operations.Online(" in text
    assert project.told("makemigrations") == "No changes.\n"
    assert "CREATE INDEX CONCURRENTLY" in project.told("sqlmigrate blog 0002")
    assert "error" not in project.run(*["migrations", "lint", "blog", "0002"]).out
    project.told("migrate")
    assert project.told("migrations drift") is not None
