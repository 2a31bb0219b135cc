"""`covet migrations lint` and `covet makemigrations --safe`, as they are typed."""

from __future__ import annotations

import json

from tests.services.databases import Databases
from tests.typed_commands import Project

from covet_migrate.safety.places import operation_lines

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
    place = "blog/migrations/0002_post_slug.py:9"
    assert ended.out.startswith(
        f"blog.0002_post_slug\n  1. Add field slug to Post ({place})\n     error required-column: "
    )
    assert "index-not-concurrent: the index blog_post_slug_idx of blog_post" in ended.out
    assert "Lock: SHARE on blog_post, which blocks writers; every row is read" in ended.out
    assert "Lock: ACCESS EXCLUSIVE on blog_post, which blocks readers and writers" in ended.out
    assert ended.out.splitlines()[-1] == "2 errors."
    operation = (project.folder / "blog/migrations/0002_post_slug.py").read_text(encoding="utf-8").splitlines()[8]
    assert operation.strip().startswith('operations.AddField("Post", "slug"')


def test_what_is_waived_as_it_says_is_found_no_longer(project: Project) -> None:
    project.models("blog", SLUG)
    project.told("makemigrations")
    project.models("blog", POST)
    project.told("makemigrations")
    lint = ["migrations", "lint", "--dialect", "postgresql"]
    out = " ".join(project.run(*lint).out.split())
    rules = 'rules=["drop-column", "drop-index-not-concurrent"])'
    waive = f'operations.Reviewed(RemoveField(...), "why it may be done", {rules}'
    assert f"Waive: {waive}" in out
    path = project.folder / "blog/migrations/0002_remove_post_slug.py"
    text = path.read_text(encoding="utf-8")
    operation = 'operations.RemoveField("Post", "slug")'
    reviewed = waive.removeprefix("operations.Reviewed(RemoveField(...)")
    path.write_text(text.replace(operation, f"operations.Reviewed({operation}{reviewed}"), encoding="utf-8")
    assert project.told(" ".join(lint)) == "Nothing found.\n"
    # A waiver of what is not found is told, and one that does not cover everything says what to add.
    unused = path.read_text(encoding="utf-8").replace('"drop-index-not-concurrent"', '"truncate"')
    path.write_text(unused, encoding="utf-8")
    out = project.run(*lint).out
    assert "warning unused-review: truncate finds nothing in the operation" in out
    assert 'Waive: add "drop-index-not-concurrent" to the rules of its Reviewed(...)' in out


def test_lint_annotates_pull_requests(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    path = project.folder / "blog/migrations/0002_sql.py"
    path.write_text(
        "from covet_migrate import Migration, operations\n\nmigration = Migration(\n"
        '    dependencies=[("blog", "0001_initial")],\n    operations=[\n'
        '        operations.RunSQL("SELECT 1"),\n'
        "        operations.RunSQL(\"UPDATE blog_post SET title = '50%'\"),\n    ],\n)\n",
        encoding="utf-8",
    )
    ended = project.run(*["migrations", "lint", "--format", "github", "--strict", "--dialect", "postgresql"])
    (line,) = ended.out.splitlines()
    assert line.startswith(
        "::warning file=blog/migrations/0002_sql.py,line=7,title=all-rows-at-once%3A SQL that somebody wrote::"
        "UPDATE blog_post SET title = '50%25'%0AROW EXCLUSIVE on blog_post, which blocks nobody%0A"
    )
    assert "%0AInstead: " in line
    assert '%0AWaive: operations.Reviewed(RunSQL(...), "why it may be done", rules=["all-rows-at-once"])' in line
    assert ended.code == 1


def test_lint_as_json_and_strict(project: Project) -> None:
    project.models("blog", SLUG)
    project.told("makemigrations")
    project.models("blog", SLUG.replace("db_index", "unique"))
    project.told("makemigrations")
    ended = project.run(*["migrations", "lint", "--json", "--dialect", "sqlite"])
    found = json.loads(ended.out)
    assert {one["rule"] for one in found} == {"unique-added", "rebuilds-table"}
    assert found[0]["migration"].startswith("blog.0002")
    assert found[0]["file"] == f"blog/migrations/{found[0]['migration'].removeprefix('blog.')}.py"
    assert (found[0]["line"], found[0]["operation"]) == (9, 1)
    assert "Reviewed(AlterField(...)" in found[0]["waive"]
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


def test_where_operations_stand_is_read_from_the_file() -> None:
    text = "x = 1\nmigration = Migration(\n  operations=[\n    A(\n      1),\n    B(),\n  ],\n)\n"
    assert operation_lines(text.encode()) == [4, 6]
    assert operation_lines(b"migration: Migration = Migration([A(),\nB()])") == [1, 2]
    for unknown in (
        b"migration = Migration(operations=made())",
        b"migration = made",
        b"migration = M([*a, B()])",
        b"(",
    ):
        assert operation_lines(unknown) == []
