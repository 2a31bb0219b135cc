"""What users of other tools for migrations suffered, from the models to the rows, on each database.

`docs/complaints.md` lists these, with those that other tests show.
"""

from __future__ import annotations

import enum
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.migrations.migrating import VERSIONS, run_steps
from tests.migrations.model_classes import declare
from tests.migrations.peers import Covet, Ended
from tests.migrations.runs import InMemory, applied
from tests.proofs import migrate_peers
from tests.services.databases import Database as Server
from tests.services.databases import ask
from tests.services.postgresql import PostgreSQL
from tests.typed_commands import Project

import covet_orm as orm
from covet import Covet as Application
from covet.testing import TestClient
from covet_migrate import Migration, Migrator
from covet_migrate.changes import Given, detect
from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationFailed, QuestionUnanswered
from covet_migrate.inspection.drift import find_drift
from covet_migrate.state import State
from covet_migrate.state.from_models import state_of
from covet_orm import Database, IntegrityError, Registry
from covet_orm.expressions.functions import Now

pytestmark = pytest.mark.anyio

Models = Mapping[str, Mapping[str, Any]]


class History:
    """Models that change, and the migrations that are made of each change.

    Attributes:
        state: after the last of them.
        migrations: all of them.
    """

    def __init__(self) -> None:
        self.state = State()
        self.migrations: list[Migration] = []

    def become(
        self,
        models: Models,
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        renames: Iterable[str] = (),
        defaults: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Make a migration of what is changed, after which nothing is; what it does, in words."""
        registry = Registry()
        for name, body in models.items():
            declare(registry, "shop", name, dict(body), **(options or {}).get(name, {}))
        wanted = state_of(registry)
        changes = detect(self.state, wanted, Given(renames=renames, defaults=defaults))
        self.state = changes.apply(self.state)
        assert detect(self.state, wanted, Given()).detected == []
        before = self.migrations[-1:]
        self.migrations.append(
            Migration(
                operations=[one.operation for one in changes.detected],
                dependencies=[one.key for one in before], app="shop", name=f"{len(self.migrations) + 1:04}_it",
            )
        )  # fmt: skip
        return [one.operation.describe() for one in changes.detected]

    async def migrate(self, url: str) -> None:
        """Apply those that are not applied; afterwards the database is as they make it."""
        async with Database(url) as database:
            await Migrator(database, InMemory(*self.migrations)).migrate()
            assert (await find_drift(database, self.state)).told() == []


async def did(url: str, *statements: str) -> None:
    """Run statements as the ORM does, which has SQLite look at foreign keys."""
    async with Database(url) as database:
        for statement in statements:
            await database.execute(statement)


@pytest.mark.parametrize(
    ("old", "new"),
    [(orm.AutoField, orm.BigAutoField), (lambda: orm.IntegerField(primary_key=True), orm.BigAutoField)],
    ids=["larger", "counting"],
)
async def test_a_key_of_another_type_keeps_its_rows_and_counts_on(url: str, old: Any, new: Any) -> None:
    """Tortoise removes the column and adds it anew; Alembic (1224) does not see that a key counts from now on."""
    history = History()
    history.become({"Author": {"id": old()}, "Book": {"author": orm.ForeignKey("Author"), "id": orm.AutoField()}})
    await history.migrate(url)
    # As programs do it: no counter knows of the row with the number 7.
    await ask(url, "INSERT INTO shop_author (id) VALUES (7)", "INSERT INTO shop_book (id, author_id) VALUES (1, 7)")
    if old is orm.AutoField and url.startswith("postgresql"):
        await ask(url, "SELECT setval(pg_get_serial_sequence('shop_author', 'id'), 7)")
    told = history.become(
        {"Author": {"id": new(), "name": orm.CharField(max_length=9, default="")},
         "Book": {"author": orm.ForeignKey("Author"), "id": orm.AutoField()}}
    )  # fmt: skip
    assert told == ["Add field name to Author", "Alter field id of Author"]
    await history.migrate(url)
    await ask(url, "INSERT INTO shop_author (name) VALUES ('new')")
    assert await ask(url, "SELECT id, name FROM shop_author ORDER BY id") == [(7, ""), (8, "new")]
    assert await ask(url, "SELECT author_id FROM shop_book") == [(7,)]


async def test_a_counter_that_stayed_behind_its_key_is_told_and_mended(postgresql: PostgreSQL) -> None:
    """Alembic and aerich make a key larger, and its sequence ends where the key ended before."""
    url = postgresql.empty_database("test")
    history = History()
    history.become({"Author": {"id": orm.BigAutoField(), "name": orm.CharField(max_length=9)}})
    await history.migrate(url)
    await ask(
        url, "DROP TABLE shop_author", "CREATE TABLE shop_author (id serial PRIMARY KEY, name varchar(9) NOT NULL)",
        "ALTER TABLE shop_author ALTER COLUMN id TYPE bigint", "INSERT INTO shop_author (name) VALUES ('a')",
    )  # fmt: skip
    async with Database(url) as database:
        drift = await find_drift(database, history.state)
        told = "column shop_author.id: counting serial of integer in the database, serial in the migrations"
        assert drift.told() == [told]
        async with database.connection() as connection:
            await run_steps(connection, "postgresql", steps_of(drift.actions, "postgresql", VERSIONS["postgresql"]))
        assert not await find_drift(database, history.state)
    counter = "SELECT setval(pg_get_serial_sequence('shop_author', 'id'), 2147483647)"
    await ask(url, counter, "INSERT INTO shop_author (name) VALUES ('b')")
    assert await ask(url, "SELECT id FROM shop_author ORDER BY id") == [(1,), (2147483648,)]


async def test_another_on_delete_is_what_the_database_does(url: str) -> None:
    """aerich (298): "No changes detected"."""
    history = History()
    history.become({"Author": {}, "Book": {"author": orm.ForeignKey("Author", null=True)}})
    await history.migrate(url)
    author = "INSERT INTO shop_author (id) VALUES (1)"
    await did(url, author, "INSERT INTO shop_book (id, author_id) VALUES (1, 1)", "DELETE FROM shop_author")
    assert await ask(url, "SELECT id FROM shop_book") == []
    told = history.become(
        {"Author": {}, "Book": {"author": orm.ForeignKey("Author", null=True, on_delete=orm.SET_NULL)}}
    )
    assert told == ["Alter field author of Book"]
    await history.migrate(url)
    await did(url, author, "INSERT INTO shop_book (id, author_id) VALUES (1, 1)", "DELETE FROM shop_author")
    assert await ask(url, "SELECT id, author_id FROM shop_book") == [(1, None)]


async def test_a_field_with_an_index_becomes_unique(url: str) -> None:
    """aerich (404) makes no migration."""
    history = History()
    history.become({"Book": {"code": orm.CharField(max_length=9, db_index=True)}})
    await history.migrate(url)
    assert history.become({"Book": {"code": orm.CharField(max_length=9, db_index=True, unique=True)}})
    await history.migrate(url)
    with pytest.raises(IntegrityError):
        await did(url, *["INSERT INTO shop_book (code) VALUES ('a')"] * 2)


async def test_a_column_that_may_not_be_null_is_added_to_rows(url: str) -> None:
    """Tortoise asks nothing, and what it makes of it fails where there are rows."""
    history = History()
    history.become({"Book": {}})
    await history.migrate(url)
    await ask(url, "INSERT INTO shop_book (id) VALUES (1)")
    with pytest.raises(QuestionUnanswered, match="may not be NULL"):
        history.become({"Book": {"age": orm.IntegerField()}})
    history.become({"Book": {"age": orm.IntegerField()}}, defaults={"shop.Book.age": "7"})
    await history.migrate(url)
    assert await ask(url, "SELECT age FROM shop_book") == [(7,)]


async def test_what_was_renamed_keeps_its_values(url: str) -> None:
    """Alembic (Flask-Migrate 563) drops the column and adds another; Django (37006) a key that is changed as well."""
    history = History()
    history.become({"Book": {"code": orm.IntegerField(primary_key=True), "fax": orm.CharField(max_length=9)}})
    await history.migrate(url)
    await ask(url, "INSERT INTO shop_book (code, fax) VALUES (3, '12')")
    history.become(
        {"Work": {"number": orm.BigIntegerField(primary_key=True), "phone": orm.CharField(max_length=20)}},
        renames=["shop.Book:Work", "shop.Work.code:number", "shop.Work.fax:phone"],
    )
    await history.migrate(url)
    assert await ask(url, "SELECT number, phone FROM shop_work") == [(3, "12")]


async def test_a_new_database_gets_tables_in_the_order_that_they_need(url: str) -> None:
    """aerich (501, 520): an empty database beside migrations that are there; foreign keys before what they refer to."""
    history = History()
    history.become(
        {
            "Book": {"author": orm.ForeignKey("Author"), "tags": orm.ManyToManyField("Tag", related_name="+")},
            "Author": {"best": orm.ForeignKey("Book", null=True, related_name="+"), "city": orm.ForeignKey("City")},
            "Tag": {},
            "City": {},
        }
    )
    history.become({"Tag": {"above": orm.ForeignKey("self", null=True)}, "City": {}})
    await history.migrate(url)
    async with Database(url) as database:
        assert await applied(database) == ["shop.0001_it", "shop.0002_it"]


class Size(enum.Enum):
    SMALL = "small"


class MoreSizes(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class LongSizes(enum.Enum):
    SMALL = "small"
    LARGE = "larger than anything that was there before"


async def test_one_more_member_of_an_enumeration_needs_no_migration(url: str) -> None:
    """Alembic (278, 1745) does not see it, or (alembic-postgresql-enum 133) writes every row anew for it."""
    history = History()
    history.become({"Shirt": {"size": orm.EnumField(Size)}})
    await history.migrate(url)
    assert history.become({"Shirt": {"size": orm.EnumField(MoreSizes)}}) == []
    await did(url, "INSERT INTO shop_shirt (size) VALUES ('large')")


async def test_a_longer_member_of_an_enumeration_writes_no_row_anew(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    history = History()
    history.become({"Shirt": {"size": orm.EnumField(Size)}})
    await history.migrate(url)
    file = await ask(url, "SELECT pg_relation_filenode('shop_shirt')")
    assert history.become({"Shirt": {"size": orm.EnumField(LongSizes)}}) == ["Alter field size of Shirt"]
    await history.migrate(url)
    await did(url, f"INSERT INTO shop_shirt (size) VALUES ('{LongSizes.LARGE.value}')")
    assert await ask(url, "SELECT pg_relation_filenode('shop_shirt')") == file


async def test_what_a_server_writes_in_other_words_is_no_difference(url: str) -> None:
    """Alembic (1145, 1152, 1177, 1454) finds other defaults than there are; (817) and keys in upper case."""
    history = History()
    fields: dict[str, Any] = {
        "ID": orm.BigAutoField(primary_key=True),
        "no": orm.BooleanField(db_default=False),
        "yes": orm.BooleanField(db_default=True),
        "zero": orm.IntegerField(db_default=0),
        "less": orm.IntegerField(db_default=-1),
        "none": orm.CharField(max_length=9, db_default=""),
        "quoted": orm.CharField(max_length=20, db_default="it's 100 %\\"),
        "exact": orm.DecimalField(max_digits=8, decimal_places=2, db_default=1),
        "float": orm.FloatField(db_default=0.5),
        "now": orm.DateTimeField(db_default=Now()),
        "Mixed": orm.CharField(max_length=9, null=True, db_index=True, db_column="MixedCase"),
    }
    history.become({"Thing": fields}, options={"Thing": {"indexes": [orm.Index("-zero", "Mixed")]}})
    await history.migrate(url)
    await did(url, "INSERT INTO shop_thing (zero) VALUES (5)")
    async with Database(url) as database:
        row = (await database.query("SELECT no, yes, less, none, quoted FROM shop_thing")).rows[0]
    assert tuple(row) == (False, True, -1, "", "it's 100 %\\")


async def test_a_check_and_a_unique_constraint_stay_on_sqlite(tmp_path: Any) -> None:
    """Alembic (884, 896): what makes the table anew loses them, or cannot."""
    url = f"sqlite:///{tmp_path}/shop.db"
    history = History()
    constraints = [
        orm.CheckConstraint(orm.Q(pages__gt=0), name="some_pages"), orm.UniqueConstraint("title", "pages", name="once")
    ]  # fmt: skip
    for length in (10, 20):
        history.become(
            {"Book": {"title": orm.CharField(max_length=length), "pages": orm.IntegerField()}},
            options={"Book": {"constraints": constraints}},
        )
        await history.migrate(url)
        await did(url, f"INSERT INTO shop_book (title, pages) VALUES ('a', {length})")
    for wrong in ("('b', 0)", "('a', 10)", "('a', 20)"):
        with pytest.raises(IntegrityError):
            await did(url, f"INSERT INTO shop_book (title, pages) VALUES {wrong}")


@pytest.mark.parametrize("server", ["postgresql-15", "mariadb"], indirect=True)
def test_names_that_another_tool_gave_are_told_and_mended(project: Project, server: Server) -> None:
    """aerich (195): an index has another name in the database than in its migrations, and they fail."""
    url = server.empty_database("test")
    project.write("covet.toml", f'[storage.default]\nurl = "{url}"\n')
    # Under names as Django makes them.
    postgresql = server.kind == "postgresql"
    counting = "GENERATED BY DEFAULT AS IDENTITY" if postgresql else "AUTO_INCREMENT"
    kind, zone, end = ("timestamptz", "+00:00", "") if postgresql else ("datetime", "", " COLLATE utf8mb4_nopad_bin")
    tables = [
        f"CREATE TABLE shop_author (id bigint {counting} PRIMARY KEY, name varchar(9) NOT NULL){end}",
        f"CREATE TABLE shop_book (id bigint {counting} PRIMARY KEY, code varchar(9) NOT NULL, "
        "author_id bigint NOT NULL, "
        "CONSTRAINT shop_book_code_5f UNIQUE (code), "
        "CONSTRAINT shop_book_author_id_4e FOREIGN KEY (author_id) REFERENCES shop_author (id) "
        f"ON DELETE CASCADE){end}",
        "CREATE INDEX shop_author_name_3d ON shop_author (name)",
        "CREATE INDEX shop_book_author_id_7a ON shop_book (author_id)",
        f"CREATE TABLE django_migrations (id integer PRIMARY KEY, app varchar(9), name varchar(99), applied {kind})",
        f"INSERT INTO django_migrations VALUES (1, 'shop', '0001_initial', '2024-05-01 10:00:00{zone}')",
        "INSERT INTO shop_author (name) VALUES ('a')",
        "INSERT INTO shop_book (code, author_id) VALUES ('b', 1)",
    ]
    anyio.run(ask, url, *tables)
    author = "class Author(orm.Model):\n    name = orm.CharField(max_length=9, db_index=True)\n\n\n"
    models = f"{author}class Book(orm.Model):\n    code = orm.CharField(max_length=9, unique=True)\n"
    project.models("shop", f"{models}    author = orm.ForeignKey(Author)\n")
    project.told("makemigrations")
    ended = project.run("migrate --fake-initial")
    assert (ended.code, "0001_initial  written down" in ended.out) == (0, True), ended
    assert "what it recorded last is shop.0001_initial (by django, 2024-05-01 10:00)" in ended.err
    # What has another name cannot be removed by its own; the message says how to find out.
    altered = 'operations.AlterField("Book", "code", orm.CharField(max_length=9))'
    project.migration("shop", "0002_x", altered, more='dependencies=[("shop", "0001_initial")]')
    assert "`migrations drift` says" in project.refused("migrate")
    if server.kind == "mariadb":
        project.told("migrate --unwind")
    (project.folder / "shop/migrations/0002_x.py").unlink()
    assert project.run("migrations drift --migration").code == 1
    project.told("migrate")
    assert "as its migrations make it" in project.told("migrations drift")
    # It was for the databases that came from there; others never had it.
    (project.folder / "shop/migrations/0002_drift.py").unlink()
    project.told("migrate --prune")
    project.models(
        "shop", f"{models.replace(', unique=True', '')}    author = orm.ForeignKey(Author, on_delete=orm.PROTECT)\n"
    )
    project.told("makemigrations")
    project.told("migrate")
    assert "as its migrations make it" in project.told("migrations drift")
    assert anyio.run(ask, url, "SELECT code, author_id FROM shop_book") == [("b", 1)]


def test_a_field_of_the_project_is_imported(project: Project) -> None:
    """Alembic (1405, 1647) writes the name of a type and no import of it."""
    project.write(
        "money.py",
        "import covet_orm as orm\n\n\nclass MoneyField(orm.DecimalField):\n"
        "    def __init__(self, *, max_digits=12, decimal_places=2, **options):\n"
        "        super().__init__(max_digits=max_digits, decimal_places=decimal_places, **options)\n",
    )
    project.models("shop", "from money import MoneyField\n\n\nclass Book(orm.Model):\n    price = MoneyField()\n")
    project.told("makemigrations")
    text = (project.folder / "shop/migrations/0001_initial.py").read_text()
    assert "money.MoneyField()" in text or "= MoneyField()" in text
    assert "money" in text.partition("migration = ")[0]
    project.told("migrate")
    assert project.told("makemigrations --check") == "No changes.\n"


async def test_it_runs_when_the_application_starts_in_the_loop_that_runs(url: str) -> None:
    """Alembic (1353, 1606): `asyncio.run() cannot be called from a running event loop`."""
    history = History()
    history.become({"Book": {}})

    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[None]:
        await history.migrate(url)
        yield

    app = Application(lifespan=lifespan)

    @app.get("/books")
    async def books() -> int:
        return len(await ask(url, "SELECT * FROM shop_book"))

    async with TestClient(app) as client:
        assert (await client.get("/books")).json() == 0


async def test_threads_with_loops_of_their_own_apply_once(url: str) -> None:
    """Alembic's commands are not for several threads (hindsight 521)."""
    history = History()
    history.become({"Book": {}})
    history.become({"Book": {"title": orm.CharField(max_length=9, default="")}})
    did_it: list[str] = []
    failed: list[BaseException] = []

    async def work() -> None:
        async with Database(url) as database:
            for one in await Migrator(database, InMemory(*history.migrations)).migrate():
                did_it.append(str(one))

    def run() -> None:
        try:
            anyio.run(work)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    assert failed == []
    assert sorted(did_it) == ["shop.0001_it", "shop.0002_it"]


async def test_what_failed_half_way_is_typed_again(url: str) -> None:
    """Alembic (732), mlflow (23721), metabase (8360), n8n (9965): "already exists", as MySQL keeps what was done."""
    history = History()
    history.become({"Book": {"code": orm.CharField(max_length=9)}})
    await history.migrate(url)
    await did(url, *["INSERT INTO shop_book (code) VALUES ('a')"] * 2)
    told = history.become(
        {"Book": {"code": orm.CharField(max_length=9, unique=True), "note": orm.TextField(null=True)}, "Tag": {}}
    )
    assert told == ["Create model Tag", "Add field note to Book", "Alter field code of Book"]
    with pytest.raises(MigrationFailed, match="0002_it"):
        await history.migrate(url)
    await did(url, "UPDATE shop_book SET code = 'b' WHERE id = 2")
    await history.migrate(url)
    async with Database(url) as database:
        assert await applied(database) == ["shop.0001_it", "shop.0002_it"]


class Losing(Covet):
    """A tool that makes nothing of models, and loses the children of a parent that is changed."""

    def make(self, *, enter: bool = False, more: Sequence[str] = ()) -> Ended:
        self.put(f"shop/migrations/{len(self.migrations()) + 1:04}_it.py", "")
        return Ended(0, "")

    def apply(self, *, dies: bool = False) -> Ended:
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///"))
        if len(self.migrations()) == 1:
            connection.execute("CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT)")
            connection.execute("CREATE TABLE book (id INTEGER PRIMARY KEY, author_id INTEGER)")
        else:
            connection.execute("DELETE FROM book")
        connection.commit()
        connection.close()
        return Ended(0, "")


def test_the_comparison_with_other_tools_is_right_about_covet_and_notices_what_is_wrong(tmp_path: Path) -> None:
    """The long form is a proof, with the other tools."""
    results = migrate_peers.prove(["widen"], ["covet"], Path(sys.executable), tmp_path)
    assert migrate_peers.wrong(results) == []
    assert results["widen"]["covet", "sqlite"].facts[-1] == "2 of 2 children are there"
    (tmp_path / "wrong").mkdir()
    results = migrate_peers.prove(["widen"], ["covet"], Path(sys.executable), tmp_path / "wrong", {"covet": Losing})
    assert migrate_peers.wrong(results) == ["widen on sqlite"]
    assert "**shows it**" in migrate_peers.sections(results, {"covet": "1"})[migrate_peers.CASES["widen"].title]
