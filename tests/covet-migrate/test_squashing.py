"""Squashing migrations: the same models, the same rows, no circles; and what a database makes of it that has some."""

from __future__ import annotations

import subprocess

import anyio
import pytest
from tests.formatter import RUFF
from tests.services.databases import ask
from tests.typed_commands import Project

import covet_orm as orm
from covet_migrate import Migration, MigrationError
from covet_migrate import operations as ops
from covet_migrate.exceptions import MigrationNotFound
from covet_migrate.files.graph import Graph
from covet_migrate.files.squashing import Squashed, chosen, squash

Key = tuple[str, str]


def one(app: str, name: str, operations: list[ops.Operation], *needs: Key, **more: object) -> Migration:
    options: dict[str, object] = {"dependencies": list(needs), **more}
    return Migration(operations=operations, app=app, name=name, **options)  # type: ignore[arg-type]


def create(name: str, **fields: orm.Field[object]) -> ops.Operation:
    return ops.CreateModel(name, {"id": orm.BigAutoField(), **fields})


def add(model: str, name: str) -> ops.Operation:
    return ops.AddField(model, name, orm.IntegerField(null=True))


def squashed(graph: Graph, app: str, first: str | None, last: str, *, optimized: bool = True) -> list[Squashed]:
    made, _ = squash(graph, chosen(graph, app, first, last), lambda them: f"{them[0].name}_s", optimized=optimized)
    return made


async def move(models: object, database: object) -> None:
    """What a migration runs."""


LINE = [
    one("blog", "0001", [create("Post")]),
    one("blog", "0002", [add("Post", "a")], ("blog", "0001")),
    one("blog", "0003", [ops.RemoveField("Post", "a"), add("Post", "b")], ("blog", "0002")),
    one("blog", "0004", [add("Post", "c")], ("blog", "0003")),
]


def test_operations_become_one() -> None:
    (made,) = squashed(Graph(LINE), "blog", None, "0004")
    assert [type(operation).__name__ for operation in made.migration.operations] == ["CreateModel"]
    assert made.before == 5
    assert made.migration.replaces == [("blog", f"000{number}") for number in (1, 2, 3, 4)]
    assert made.migration.dependencies == []
    assert made.migration.is_initial
    assert made.migration.atomic
    assert list(Graph([*LINE, made.migration]).migrations) == [("blog", "0001_s")]
    assert Graph([made.migration]).state()["blog.Post"].fields.keys() == {"id", "b", "c"}


def test_from_the_middle() -> None:
    (made,) = squashed(Graph(LINE), "blog", "0002", "0003")
    assert made.migration.replaces == [("blog", "0002"), ("blog", "0003")]
    assert made.migration.dependencies == [("blog", "0001")]
    assert not made.migration.is_initial
    assert list(Graph([*LINE, made.migration]).migrations) == [("blog", "0001"), ("blog", "0002_s"), ("blog", "0004")]


def test_nothing_is_reduced_that_is_not_to_be() -> None:
    (made,) = squashed(Graph(LINE), "blog", None, "0004", optimized=False)
    assert len(made.migration.operations) == 5


def test_code_stays_and_stands_in_the_way_unless_it_is_elidable() -> None:
    for elidable in (False, True):
        moving = ops.RunPython(move, ops.RunPython.noop, elidable=elidable)
        raw = ops.RunSQL("SELECT 1", "", elidable=elidable)
        migrations = [*LINE[:2], one("blog", "0003", [moving, raw], ("blog", "0002")),
                      one("blog", "0004", [add("Post", "c")], ("blog", "0003"))]  # fmt: skip
        (made,) = squashed(Graph(migrations), "blog", None, "0004")
        names = [type(operation).__name__ for operation in made.migration.operations]
        assert names == (["CreateModel"] if elidable else ["CreateModel", "RunPython", "RunSQL", "AddField"])
        assert len(made.elided) == (2 if elidable else 0)
        assert len(made.kept) == (0 if elidable else 2)
        (made,) = squashed(Graph(migrations), "blog", None, "0004", optimized=False)
        assert len(made.migration.operations) == 5


def test_what_changes_the_models_is_not_left_out() -> None:
    raw = ops.RunSQL("ALTER TABLE ...", "", [add("Post", "raw")], elidable=True)
    migrations = [LINE[0], one("blog", "0002", [raw], ("blog", "0001"))]
    (made,) = squashed(Graph(migrations), "blog", None, "0002")
    assert made.kept == [raw]
    assert Graph([made.migration]).state()["blog.Post"].fields.keys() == {"id", "raw"}


def test_what_needs_no_transaction_has_none() -> None:
    moving = ops.RunPython(move, ops.RunPython.noop)
    for kept in (moving, add("Post", "b")):
        migrations = [LINE[0], one("blog", "0002", [kept], ("blog", "0001"), atomic=False)]
        (made,) = squashed(Graph(migrations), "blog", None, "0002")
        assert made.migration.atomic is (kept is not moving), "what became a part of CreateModel needs none"


def test_what_is_done_with_care_for_rows_needs_none_on_a_new_table() -> None:
    careful = ops.Online(ops.Reviewed(add("Post", "a"), "nobody reads it"))
    migrations = [LINE[0], one("blog", "0002", [careful], ("blog", "0001"), atomic=False)]
    (made,) = squashed(Graph(migrations), "blog", None, "0002")
    assert [type(operation).__name__ for operation in made.migration.operations] == ["CreateModel"]
    assert made.migration.atomic
    later = one("blog", "0003", [ops.Online(add("Post", "b"))], ("blog", "0002"), atomic=False)
    (made,) = squashed(Graph([*migrations, later]), "blog", "0002", "0003")
    assert [type(operation).__name__ for operation in made.migration.operations] == ["Online", "Online"]
    assert not made.migration.atomic


def test_other_applications_are_needed_as_before() -> None:
    user = one("users", "0001", [create("User")])
    users = one("users", "0002", [add("User", "a")], ("users", "0001"))
    author = ops.AddField("Post", "author", orm.ForeignKey("users.User", null=True))
    migrations = [
        user, users, LINE[0],
        one("blog", "0002", [author], ("blog", "0001"), ("users", "0001"), run_before=[("shop", "0001")]),
        one("blog", "0003", [add("Post", "b")], ("blog", "0002"), ("users", "0002")),
        one("shop", "0001", [create("Offer", post=orm.ForeignKey("blog.Post"))], ("blog", "0001")),
    ]  # fmt: skip
    (made,) = squashed(Graph(migrations), "blog", None, "0003")
    assert made.migration.dependencies == [("users", "0002")], "0001 comes before that anyway"
    assert made.migration.run_before == [("shop", "0001")]
    order = list(Graph([*migrations, made.migration]).migrations)
    assert order.index(("users", "0002")) < order.index(("blog", "0001_s")) < order.index(("shop", "0001"))


def test_no_circle_is_made_across_applications() -> None:
    """What Django's ticket 23337 is about: blog.0001 ← users.0001 ← blog.0002 cannot become one of blog."""
    migrations = [
        LINE[0],
        one("blog", "0002", [add("Post", "a")], ("blog", "0001")),
        one("users", "0001", [create("User", post=orm.ForeignKey("blog.Post"))], ("blog", "0002")),
        one("blog", "0003", [ops.AddField("Post", "author", orm.ForeignKey("users.User", null=True))],
            ("blog", "0002"), ("users", "0001")),
        one("blog", "0004", [add("Post", "b")], ("blog", "0003")),
    ]  # fmt: skip
    graph = Graph(migrations)
    first, second = squashed(graph, "blog", None, "0004")
    assert first.migration.replaces == [("blog", "0001"), ("blog", "0002")]
    assert second.migration.replaces == [("blog", "0003"), ("blog", "0004")]
    assert second.migration.dependencies == [("blog", "0001_s"), ("users", "0001")]
    both = Graph([*migrations, first.migration, second.migration])
    assert list(both.migrations) == [("blog", "0001_s"), ("users", "0001"), ("blog", "0003_s")]
    assert both.state().models.keys() == graph.state().models.keys()
    # And where the whole is squashed of the other one, too, and on databases that have a part of it.
    for applied in ([("blog", "0001")], [("blog", "0001"), ("blog", "0002")], [("blog", "0001_s")]):
        assert len(Graph([*migrations, first.migration, second.migration], applied)) in (3, 4)


def test_two_applications_are_squashed_one_after_the_other() -> None:
    migrations = [
        one("a", "0001", [create("A")]),
        one("b", "0001", [create("B")]),
        one("a", "0002", [ops.AddField("A", "b", orm.ForeignKey("b.B", null=True))], ("a", "0001"), ("b", "0001")),
        one("b", "0002", [ops.AddField("B", "a", orm.ForeignKey("a.A", null=True))], ("b", "0001"), ("a", "0001")),
    ]
    (first,) = squashed(Graph(migrations), "a", None, "0002")
    graph = Graph([*migrations, first.migration])
    assert squashed(graph, "b", None, "0002") == [], "they would need each other"
    graph.state()


def test_a_squashed_one_is_squashed_again() -> None:
    (first,) = squashed(Graph(LINE), "blog", None, "0002")
    graph = Graph([*LINE, first.migration])
    (second,) = squashed(graph, "blog", None, "0004")
    assert second.migration.replaces[0] == ("blog", "0001_s")  # type: ignore[index]
    second.migration.name = "0001_again"
    everything = [*LINE, first.migration, second.migration]
    assert list(Graph(everything).migrations) == [("blog", "0001_again")]
    assert len(Graph(everything, [("blog", "0001")]).migrations) == 4
    done = Graph(everything, [("blog", f"000{number}") for number in (1, 2, 3, 4)])
    assert ("blog", "0001_again") in done.completed


def test_what_cannot_be_squashed() -> None:
    graph = Graph(LINE)
    with pytest.raises(MigrationNotFound, match="0001 alone"):
        squashed(graph, "blog", None, "0001")
    with pytest.raises(MigrationError, match="0003 does not come before 0002"):
        squashed(graph, "blog", "0003", "0002")
    with pytest.raises(MigrationNotFound, match="0009"):
        squashed(graph, "blog", None, "0009")


POST = "class Post(orm.Model):\n    title = orm.CharField(max_length=100)\n"
FILL = """
WORDS = {"a": 1}


def shout(text):
    return text.upper() + WORD * len(WORDS)


async def fill(models, database):
    for post in await models["blog.Post"].objects.all():
        post.title = shout(post.title)
        await post.save()

"""


def project_with_code(project: Project) -> Project:
    project.models("blog", POST)
    project.told("makemigrations")
    for number, word in ((2, "!"), (3, "?")):
        project.migration(
            "blog", f"000{number}_fill", "operations.RunPython(fill, operations.RunPython.noop)",
            before=f'from string import ascii_letters\n\nWORD = "{word}"\n{FILL}',
            more=f'dependencies=[("blog", "{project.files("blog")[-1]}")]',
        )  # fmt: skip
    return project


def test_functions_come_with_it(project: Project) -> None:
    """The file needs none of those that it replaces, though two of them have different things of the same names."""
    project_with_code(project)
    project.told("squashmigrations blog 0003 --name all")
    text = (project.folder / "blog/migrations/0001_all.py").read_text()
    assert "async def fill(" in text
    assert "async def fill_0003(" in text
    assert 'WORD_0003 = "?"' in text
    assert "ascii_letters" not in text, "what is not needed stays behind"
    assert "WORDS = " in text
    for name in ("0001_initial", "0002_fill", "0003_fill"):
        (project.folder / f"blog/migrations/{name}.py").unlink()
    # Rows that are there when it runs: the table is made by hand.
    first, second = text.partition("operations.RunPython(fill,")[::2]
    insert = 'operations.RunSQL("INSERT INTO blog_post (title) VALUES (\'tea\')", ""),'
    (project.folder / "blog/migrations/0001_all.py").write_text(f"{first}{insert}operations.RunPython(fill,{second}")
    project.told("migrate")
    assert rows(project) == [("TEA!?",)]


def rows(project: Project) -> list[tuple[object, ...]]:
    async def asked() -> list[tuple[object, ...]]:
        return await ask(f"sqlite:///{project.folder}/project.db", "SELECT title FROM blog_post")

    return anyio.run(asked)


def test_the_file_is_as_the_formatter_leaves_it(project: Project) -> None:
    project_with_code(project)
    project.told("squashmigrations blog 0003")
    (path,) = (project.folder / "blog/migrations").glob("*squashed*")
    done = subprocess.run([RUFF, "format", "--line-length", "120", "--check", path], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_database_goes_over_to_it(project: Project) -> None:
    project_with_code(project)
    project.told("migrate")
    assert "4 operations became" not in project.told("squashmigrations blog 0003 --dry-run")
    assert project.files("blog") == ["0001_initial", "0002_fill", "0003_fill"], "a dry run writes nothing"
    printed = project.told("squashmigrations blog 0003 --name all")
    assert "3 operations became 3." in printed
    assert "kept: Run fill" in printed
    assert "covet migrate" in printed
    project.told("migrate")
    assert project.told("migrate --check") == "Nothing to do.\n"
    for name in ("0001_initial", "0002_fill", "0003_fill"):
        (project.folder / f"blog/migrations/{name}.py").unlink()
    project.told("migrate")
    assert "[X] 0001_all" in project.told("showmigrations")
    assert project.told("makemigrations --check") == "No changes.\n"
    project.told("migrations verify")


def test_a_database_with_a_part_of_them_gets_the_rest(project: Project) -> None:
    project_with_code(project)
    project.told("migrate blog 0002")
    project.told("squashmigrations blog 0003 --name all")
    assert "[ ] 0003_fill" in project.told("showmigrations")
    assert "0003_fill" in project.told("migrate")
    project.told("migrate")
    assert "[X] 0001_all" in project.told("showmigrations")


def test_what_other_applications_come_between_is_told(project: Project) -> None:
    project.models("blog", POST)
    project.told("makemigrations")
    project.models("users", 'class User(orm.Model):\n    post = orm.ForeignKey("blog.Post")\n')
    project.told("makemigrations")
    author = f'{POST}    author = orm.ForeignKey("users.User", null=True)\n'
    project.models("blog", author)
    project.told("makemigrations")
    ended = project.run("squashmigrations blog 0002")
    assert (ended.code, project.files("blog")) == (0, ["0001_initial", "0002_post_author"])
    assert "Nothing is squashed" in ended.out
    project.models("blog", f"{author}    pages = orm.IntegerField(null=True)\n")
    project.told("makemigrations")
    ended = project.run("squashmigrations blog 0003 --no-optimize")
    assert "0001_initial (stays), 0002_post_author to 0003_post_pages" in ended.err
    assert "2 operations became 2." in ended.out
    assert "squashed" in project.files("blog")[2]
    project.told("migrate")
    assert "needs blog.0001_initial" in project.told("migrations graph")
    assert project.told("makemigrations --check") == "No changes.\n"
