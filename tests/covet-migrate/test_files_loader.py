"""Finding, loading and writing the files of migrations."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import marshal
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.migrations.model_states import states

import covet_orm as orm
from covet.secrets import Secret
from covet.settings_schema import build
from covet_migrate import Migration, operations
from covet_migrate.exceptions import MigrationError, NotSerializable
from covet_migrate.execution import Migrator
from covet_migrate.files.loader import Files, load_file, load_files
from covet_migrate.files.locations import Location, locations_of, make_package
from covet_migrate.files.writer import source_of, write_migration
from covet_migrate.settings import MigrateSettings
from covet_migrate.state import State
from covet_migrate.state.declarations import same
from covet_orm import Database
from covet_orm.expressions import functions

FIRST = """
from covet_migrate import Migration, operations
import covet_orm as orm

migration = Migration(operations=[operations.CreateModel("Post", {"id": orm.BigAutoField(primary_key=True)})])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose packages can be imported, until the test is over."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is None or str(file).startswith(str(tmp_path)):
            del sys.modules[name]


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def models_in(project: Path, module: str, *, label: str | None = None, name: str = "Post") -> Any:
    """A module with a model, imported; the model."""
    parts = module.split(".")
    for end in range(1, len(parts)):
        put(project.joinpath(*parts[:end], "__init__.py"), "")
    meta = f"        app_label = {label!r}\n" if label is not None else ""
    put(
        project.joinpath(*parts[:-1], f"{parts[-1]}.py"),
        f"import covet_orm as orm\n\n\nclass {name}(orm.Model):\n    class Meta:\n"
        f"        registry = orm.Registry()\n{meta}",
    )
    importlib.invalidate_caches()
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("module", "app", "package", "folder"),
    [
        ("blog.models", "blog", "blog.migrations", "blog/migrations"),
        ("blog.models.posts", "blog", "blog.migrations", "blog/migrations"),
        ("shop.blog.models", "blog", "shop.blog.migrations", "shop/blog/migrations"),
        ("blog.tables", "blog", "blog.migrations", "blog/migrations"),
        ("flat", "", "migrations", "migrations"),
        ("models", "", "migrations", "migrations"),
    ],
)
def test_migrations_are_beside_the_module_with_the_models(
    project: Path, module: str, app: str, package: str, folder: str
) -> None:
    model = models_in(project, module)
    found = locations_of([model])
    assert found == {app: Location(app, package, project / folder)}
    assert model._meta.app_label == app
    assert not found[app].is_installed
    # Made when missing, and left as it is when there.
    assert make_package(found[app]) == project / folder
    put(project / folder / "__init__.py", "kept = 1")
    make_package(found[app])
    assert (project / folder / "__init__.py").read_text() == "kept = 1"
    assert importlib.import_module(package).kept == 1


def test_a_label_that_the_model_chooses(project: Path) -> None:
    model = models_in(project, "weblog.models", label="blog")
    assert locations_of([model]) == {"blog": Location("blog", "weblog.migrations", project / "weblog/migrations")}


def test_one_label_in_several_packages(project: Path) -> None:
    models = [
        models_in(project, "blog.models", name="Post"),
        models_in(project, "other.models", label="blog", name="Tag"),
    ]
    assert locations_of(models)["blog"].package == "blog.migrations"
    models = [models_in(project, "one.models", label="news"), models_in(project, "two.models", label="news")]
    with pytest.raises(MigrationError, match=re.escape('[plugins.migrate.modules]: news = "one.migrations"')):
        locations_of(models)
    # The one that has migrations already.
    (project / "two" / "migrations").mkdir()
    assert locations_of(models)["news"].package == "two.migrations"


def test_the_settings_say_where_the_migrations_are(project: Path) -> None:
    model = models_in(project, "blog.models")
    put(project / "database" / "__init__.py", "")
    settings, faults = build(MigrateSettings, {"modules": {"blog": "database.blog"}}, "plugins.migrate", Secret)
    assert settings is not None, faults
    assert locations_of([model], settings.modules) == {
        "blog": Location("blog", "database.blog", project / "database" / "blog")
    }
    # An application that has no models any more.
    assert locations_of([], {"old": "database.old"})["old"].folder == project / "database" / "old"
    with pytest.raises(MigrationError, match="'databse' cannot be imported"):
        locations_of([], {"old": "databse.old"})
    with pytest.raises(MigrationError, match="the path of a package is needed"):
        locations_of([], {"old": "database/old"})
    with pytest.raises(MigrationError, match=re.escape("'blog.models' is a module and no package")):
        locations_of([], {"old": "blog.models.old"})


def test_files_are_loaded_with_and_without_a_package(project: Path) -> None:
    folder = project / "blog" / "migrations"
    put(folder / "0001_initial.py", FIRST)
    put(
        folder / "0002_more.py",
        "from covet_migrate import Migration\nfrom ._shared import NAME\n\n"
        'migration = Migration(dependencies=[("blog", "0001_initial")])\n',
    )
    put(folder / "_shared.py", "NAME = 1\n")
    put(folder / "notes.txt", "no migration")
    # No `__init__.py` anywhere: a folder is enough.
    found = load_files({"blog": Location("blog", "blog.migrations", folder)})
    assert [one.name for one in found.order(())] == ["0001_initial", "0002_more"]
    assert found.file(("blog", "0002_more")) == str(folder / "0002_more.py")
    assert list(found.parents(("blog", "0002_more"))) == [("blog", "0001_initial")]
    assert found.graph().state()["blog.Post"].name == "Post"
    # What is not there yet has no migrations.
    assert load_files({"new": Location("new", "new.migrations", project / "new" / "migrations")}).files == {}


def test_a_file_is_loaded_as_it_is_now(project: Path) -> None:
    path = put(project / "0001_initial.py", FIRST)
    assert load_file(path, "blog").migration.operations[0].describe() == "Create model Post"
    # Of the same length, in the same second: what is compiled of it is not kept.
    put(path, FIRST.replace("Post", "Node"))
    loaded = load_file(path, "blog")
    assert loaded.migration.operations[0].describe() == "Create model Node"
    assert loaded.content == path.read_bytes()


def test_what_was_compiled_is_kept_and_known_by_its_source(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = put(project / "0001_initial.py", FIRST)
    kept = Path(importlib.util.cache_from_source(str(path)))
    load_file(path, "blog")
    assert kept.is_file()
    compiled = kept.read_bytes()
    # It is taken: other code under the same source is what runs.
    other = compile(FIRST.replace("Post", "Kept"), str(path), "exec")
    kept.write_bytes(compiled[:16] + marshal.dumps(other))
    assert load_file(path, "blog").migration.operations[0].describe() == "Create model Kept"
    # Not when the source is another one, was moved, or what was kept is cut off.
    put(path, FIRST.replace("Post", "Node"))
    assert load_file(path, "blog").migration.operations[0].describe() == "Create model Node"
    kept.write_bytes(kept.read_bytes()[:40])
    assert load_file(path, "blog").migration.operations[0].describe() == "Create model Node"
    broken = put(project / "before" / "0001_broken.py", "1 / 0\n")
    for folder in ("before", "after"):
        with pytest.raises(MigrationError, match=rf"{folder}/0001_broken\.py, line 1: ZeroDivisionError"):
            load_file(broken, "blog")
        if folder == "before":
            shutil.move(broken.parent, project / "after")
            broken = project / "after" / "0001_broken.py"
    # Python's own import takes it as well.
    other = compile(FIRST.replace("Post", "Kept"), str(path), "exec")
    kept.write_bytes(kept.read_bytes()[:16] + marshal.dumps(other))
    assert importlib.import_module("0001_initial").migration.operations[0].describe() == "Create model Kept"


def test_where_nothing_can_be_kept_all_is_done_as_well(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = put(project / "0001_initial.py", FIRST)
    put(project / "__pycache__", "a file where the folder would be")
    assert load_file(path, "blog").migration.name == "0001_initial"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("migration = (", "0001_x.py, line 1: '(' was never closed"),
        (
            "import covet_orm\n\nimport nothing_of_that_name\n",
            "0001_x.py, line 3: ModuleNotFoundError: No module named",
        ),
        ("def f():\n    return 1 / 0\n\n\nf()\n", "0001_x.py, line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
        ("a = 1\n", "it does not say `migration = Migration(...)`"),
        ("migration = 3\n", "`migration` is 3, and no Migration(...)"),
        ("class Migration:\n    operations = []\n", "as Django's do"),
        ("revision = '1'\n\n\ndef upgrade(): ...\n", "a revision of Alembic"),
        ("from . import _shared\nmigration = 1\n", "line 1: "),
        ("a = '\x00'\n", "0001_x.py"),
        ("a = b'\\xff'.decode()\n", "line 1: UnicodeDecodeError"),
        (
            "from covet_migrate import Migration\nmigration = Migration(dependencies=['blog'])\n",
            "0001_x.py, line 2: MigrationError: dependencies",
        ),
        (
            "from covet_migrate import operations\n\noperations.CreateModel('A', {}, {'indexs': []})\n",
            "0001_x.py, line 3: MigrationError: CreateModel('A') has no option 'indexs'",
        ),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_with_its_line(project: Path, text: str, told: str) -> None:
    path = put(project / "blog" / "migrations" / "0001_x.py", text)
    with pytest.raises(MigrationError) as caught:
        load_file(path, "blog", "blog.migrations")
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_names_that_no_migration_has(project: Path) -> None:
    folder = project / "migrations"
    for name, better in (
        ("0001-first.py", "0001_first.py"),
        ("0001 first.py", "0001_first.py"),
        ("0001_größe.py", "0001_gr_e.py"),
    ):
        path = put(folder / name, FIRST)
        with pytest.raises(MigrationError, match=re.escape(f"rename the file to {better}")) as caught:
            load_files({"blog": Location("blog", "migrations", folder)})
        assert str(path) in str(caught.value)
        path.unlink()


def test_a_migration_of_another_file_is_none_of_this_one(project: Path) -> None:
    put(project / "blog" / "__init__.py", "")
    put(project / "blog" / "migrations" / "a_first.py", FIRST)
    put(project / "blog" / "migrations" / "b_second.py", "from .a_first import migration\n")
    importlib.invalidate_caches()
    with pytest.raises(MigrationError, match=r"b_second\.py: its migration is that of blog\.a_first"):
        load_files({"blog": Location("blog", "blog.migrations", project / "blog" / "migrations")})


# Checksums.


def chain(project: Path) -> Files:
    return load_files({"blog": Location("blog", "blog.migrations", project / "blog" / "migrations")})


def file_after(*before: str, comment: str = "") -> str:
    dependencies = [("blog", name) for name in before]
    return f"from covet_migrate import Migration\n{comment}\nmigration = Migration(dependencies={dependencies!r})\n"


def test_checksums_see_edits_insertions_and_another_order(project: Path) -> None:
    folder = project / "blog" / "migrations"
    put(folder / "0001_a.py", file_after())
    put(folder / "0002_b.py", file_after("0001_a"))
    put(folder / "0003_c.py", file_after("0002_b"))

    def checksums() -> dict[str, str]:
        files = chain(project)
        return {one.name: files.checksum(one.key) for one in files.order(())}

    before = checksums()
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in before.values())
    assert checksums() == before
    # Line endings are version control's.
    (folder / "0002_b.py").write_bytes((folder / "0002_b.py").read_bytes().replace(b"\n", b"\r\n"))
    assert checksums() == before
    # An edit changes what comes after it as well.
    put(folder / "0002_b.py", file_after("0001_a", comment="# edited"))
    after = checksums()
    assert after["0001_a"] == before["0001_a"]
    assert after["0002_b"] != before["0002_b"]
    assert after["0003_c"] != before["0003_c"]
    put(folder / "0002_b.py", file_after("0001_a"))
    # One that is put before others.
    put(
        folder / "0002_a.py",
        "from covet_migrate import Migration\n"
        'migration = Migration(dependencies=[("blog", "0001_a")], run_before=[("blog", "0002_b")])\n',
    )
    after = checksums()
    assert after["0001_a"] == before["0001_a"]
    assert after["0002_b"] != before["0002_b"]
    # A branch beside it does not change it.
    put(folder / "0002_a.py", file_after("0001_a"))
    assert {name: one for name, one in checksums().items() if name != "0002_a"} == before
    # The name counts.
    (folder / "0002_a.py").unlink()
    (folder / "0003_c.py").rename(folder / "0003_d.py")
    assert checksums()["0003_d"] != before["0003_c"]


def test_a_squashed_migration_takes_the_place_of_its_parts_in_a_database(project: Path) -> None:
    folder = project / "blog" / "migrations"
    model = 'operations.CreateModel("Post", {"id": orm.BigAutoField(primary_key=True)})'
    field = 'operations.AddField("Post", "title", orm.TextField(default=""))'

    def text(made: str, before: str = "", *, replaces: str = "") -> str:
        return (
            "import covet_orm as orm\nfrom covet_migrate import Migration, operations\n\n"
            f"migration = Migration([{made}], dependencies=[{before}], replaces=[{replaces}])\n"
        )

    first, second, third, fourth = (f'("blog", "{name}")' for name in ("0001_a", "0002_b", "0003_c", "0001_squashed"))
    put(folder / "0001_a.py", text(model))
    put(folder / "0002_b.py", text(field, first))
    put(folder / "0003_c.py", text(field.replace("title", "body"), second))
    again = f"{fourth}, {third}"
    put(folder / "0004_d.py", text(field.replace("title", "more"), third))

    async def run() -> None:
        async with Database("sqlite:///:memory:") as database:

            async def migrate() -> tuple[list[str], list[str]]:
                migrator = Migrator(database, chain(project))
                done = await migrator.migrate()
                return [one.migration.name for one in done], [one.name for one in await migrator.history.read()]

            every = ["0001_a", "0002_b", "0003_c"]
            (folder / "0004_d.py").rename(folder / "_later")
            assert await migrate() == (every, every)
            # A squashed one, and one that replaces it, which comes here before the database has the first.
            put(folder / "0001_squashed.py", text(f"{model}, {field}", replaces=f"{first}, {second}"))
            body = field.replace("title", "body")
            put(folder / "0001_squashed_again.py", text(f"{model}, {field}, {body}", replaces=again))
            assert await Migrator(database, chain(project)).plan() == []
            (folder / "_later").rename(folder / "0004_d.py")
            assert await migrate() == (["0004_d"], ["0001_squashed_again", "0004_d"])
            # The files of its parts may go.
            for name in (*every, "0001_squashed"):
                (folder / f"{name}.py").unlink()
            assert await migrate() == ([], ["0001_squashed_again", "0004_d"])
            await Migrator(database, chain(project)).verify()

    asyncio.run(run())


# Writing.


def loaded(migration: Migration, folder: Path) -> Migration:
    path = write_migration(migration, folder)
    found = load_file(path, migration.app).migration
    assert source_of(found) == path.read_text(encoding="utf-8")
    return found


def test_a_written_file_is_loaded_again(tmp_path: Path) -> None:
    migration = Migration(
        dependencies=[("auth", "0001_initial")],
        run_before=[("shop", "0002_more")],
        replaces=[("blog", "0001_a"), ("blog", "0001_b")],
        initial=True,
        atomic=False,
        operations=[
            operations.CreateModel(
                "Post",
                {
                    "id": orm.BigAutoField(primary_key=True),
                    "title": orm.CharField(max_length=200, default="", comment='what it\'s "called"\nin two lines'),
                    "author": orm.ForeignKey("auth.User", null=True, related_name="posts", on_delete=orm.SET_NULL),
                    "tags": orm.ManyToManyField("blog.Tag"),
                    "lower": orm.GeneratedField(functions.Lower("title"), orm.CharField(max_length=200)),
                },
                {
                    "constraints": [orm.CheckConstraint(orm.Q(title__gt="") | orm.Q(author=None), name="named")],
                    "indexes": [orm.Index("-title", functions.Lower("title").desc(nulls="last"), include=["author"])],
                    "unique_together": (("title", "author"),),
                },
            ),
            operations.AddField("Post", "price", orm.DecimalField(max_digits=9, decimal_places=2), fill=0),
            operations.RenameField("Post", "price", "cost"),
            operations.RenameModel("Post", "Article"),
            operations.AlterModelTable("Article", None),
            operations.AlterUniqueTogether("Article", [("title", "author")]),
            operations.RunSQL({"postgresql": ["SELECT 1", ("SELECT :a", {"a": 1})]}, operations.RunSQL.noop),
            operations.RunPython(operations.RunPython.noop, operations.RunPython.noop, batched="Post", size=10),
            operations.SeparateDatabaseAndState(
                [operations.RunSQL("DROP TABLE x")], [operations.DeleteModel("Article")]
            ),
        ],
        app="blog",
        name="0002_squashed",
    )
    found = loaded(migration, tmp_path)
    for name in ("dependencies", "run_before", "replaces", "initial", "atomic", "key"):
        assert getattr(found, name) == getattr(migration, name)
    assert len(found.operations) == len(migration.operations)
    for one, other in zip(found.operations, migration.operations, strict=True):
        assert type(one) is type(other)
        assert one.describe() == other.describe()
        assert source_of(Migration([one])) == source_of(Migration([other]))
    with pytest.raises(MigrationError, match="is there already; give the migration another name with --name"):
        write_migration(migration, tmp_path)


def test_what_a_file_looks_like() -> None:
    migration = Migration(
        [
            operations.AddField("User", "email", orm.EmailField(max_length=200, unique=True, default="")),
            operations.RemoveField("User", "name"),
        ],
        dependencies=[("users", "0002_more")],
        app="users",
        name="0003_user_email",
    )
    assert source_of(migration) == (
        '''"""Add field email to User; remove field name from User."""

import covet_orm as orm
from covet_migrate import Migration, operations

migration = Migration(
    dependencies=[("users", "0002_more")],
    operations=[
        operations.AddField("User", "email", orm.EmailField(default="", max_length=200, unique=True)),
        operations.RemoveField("User", "name"),
    ],
)
'''
    )
    assert source_of(Migration(app="users", name="0004_empty", dependencies=[("users", "0003_user_email")])) == (
        '''"""Nothing yet."""

from covet_migrate import Migration

migration = Migration(
    dependencies=[("users", "0003_user_email")],
    operations=[],
)
'''
    )


def test_many_operations_are_told_in_a_list() -> None:
    names = [f"field_number_{number}" for number in range(9)]
    text = source_of(Migration([operations.RemoveField("Post", name) for name in names], app="blog"))
    assert text.startswith('"""9 operations on blog.\n\n- Remove field field_number_0 from Post\n')


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    field = orm.IntegerField(default=lambda: 1)
    migration = Migration([operations.AddField("Post", "score", field)], app="blog", name="0002_score")
    with pytest.raises(NotSerializable, match=re.escape("AddField('Post', 'score'), argument 3, default: the lambda")):
        write_migration(migration, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MigrationError, match="cannot be written: No such file or directory"):
        write_migration(Migration(name="0001_a"), tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_models_are_the_same_after_writing_and_loading(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    state: State = data.draw(states(kind))
    made = [operations.CreateModel(one.name, one.fields, one.options) for one in state]
    found = loaded(Migration(made, app="app", name="0001_initial"), tmp_path_factory.mktemp("written"))
    again = found.apply(State())
    assert list(again.models) == list(state.models)
    for label, model in state.models.items():
        assert same(dict(again[label].fields), dict(model.fields))
        assert list(again[label].fields) == list(model.fields)
        assert same(dict(again[label].options), dict(model.options))
