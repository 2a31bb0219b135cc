"""Routers: which database a model is read from and written to, and subqueries that name another one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.services.databases import Database as Server
from tests.services.postgresql import PostgreSQL

import covet_orm.plugin
from covet import Covet
from covet.exceptions import ConfigurationError
from covet.testing import TestClient, plugin_sandbox
from covet_orm import ambient
from covet_orm.ambient import NoDatabase
from covet_orm.commands.group import db as db_command
from covet_orm.databases import Database
from covet_orm.exceptions import QueryError, TransactionError
from covet_orm.expressions import Count, Exists, F, OuterRef, Subquery
from covet_orm.fields import CharField, ForeignKey, IntegerField, ManyToManyField
from covet_orm.models import Model, Registry
from covet_orm.queries.ctes import CTE
from covet_orm.relations.managers import RelatedManager
from covet_orm.relations.prefetching import Prefetch, prefetch_related_objects
from covet_orm.routers import Router, routing
from covet_orm.testing import Factory

pytestmark = pytest.mark.anyio

registry = Registry()
elsewhere = Registry()

KEY = {"secret_key": "k" * 32}
TABLES = ["shop_author", "shop_book", "shop_book_tags", "shop_tag"]


class Author(Model):
    name = CharField(max_length=20, unique=True)
    visits = IntegerField(default=0)

    class Meta:
        app_label = "shop"
        registry = registry

    if TYPE_CHECKING:
        books: RelatedManager[Book]


class Tag(Model):
    name = CharField(max_length=20)

    class Meta:
        app_label = "shop"
        registry = registry


class Book(Model):
    title = CharField(max_length=20)
    author = ForeignKey(Author, related_name="books", null=True)
    tags = ManyToManyField(Tag, related_name="books")

    class Meta:
        app_label = "shop"
        registry = registry


class Visit(Model):
    """Of a model in another database than its page's author: no foreign key could lead there."""

    page = CharField(max_length=20)

    class Meta:
        app_label = "shop"
        registry = elsewhere


class AuthorFactory(Factory[Author]):
    name = "made"


class Told:
    """A router that says what it is told to, and remembers what it was asked."""

    def __init__(self, reads: str | None = None, writes: str | None = None, *, of: tuple[type[Any], ...] = ()) -> None:
        self.reads = reads
        self.writes = writes
        self.of = of
        self.asked: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        return "<Told>"

    def _mine(self, model: type[Any]) -> bool:
        return not self.of or model in self.of

    def database_for_read(self, model: type[Any]) -> str | None:
        self.asked.append(("read", model.__name__))
        return self.reads if self._mine(model) else None

    def database_for_write(self, model: type[Any]) -> str | None:
        self.asked.append(("write", model.__name__))
        return self.writes if self._mine(model) else None


class Split(Told):
    """Reads from one database, and writes to another."""

    def __init__(self) -> None:
        super().__init__("copy", "default")


region: ContextVar[str] = ContextVar("region", default="default")


class ByRegion:
    """Each region has a database of its own."""

    def database_for_read(self, model: type[Any]) -> str | None:
        return region.get()

    def database_for_write(self, model: type[Any]) -> str | None:
        return region.get()


@pytest.fixture(autouse=True)
def unrouted() -> Iterator[None]:
    """Nobody has had routers in this process, as far as the next test can see."""
    yield
    ambient.routed = False


@pytest.fixture
async def pair(server: Server) -> AsyncIterator[tuple[Database, Database]]:
    """The default database and one called `copy`, which is no copy of it, so that one sees where rows come from."""
    async with Database(server.empty_database("first")) as first:
        await first.create_all(registry)
        async with Database(server.empty_database("second"), alias="copy") as second:
            await second.create_all(registry)
            yield first, second


Pair = tuple[Database, Database]


async def names(database: Database) -> list[str]:
    """The authors in a database, whatever routers say."""
    return await Author.objects.using(database).order_by("name").values_list("name", flat=True)


# Reading and writing


async def test_reads_go_where_the_router_says_and_writes_too(pair: Pair) -> None:
    first, second = pair
    with routing(Split()):
        # Every way of writing.
        one = await Author.objects.create(name="a")
        await Author(name="b").save()
        await Author.objects.bulk_create([Author(name="c"), Author(name="d")])
        await AuthorFactory.create()
        found, created = await Author.objects.get_or_create(name="a")
        assert (found.pk, created) == (one.pk, False)
        changed, created = await Author.objects.update_or_create({"visits": 1}, name="b")
        assert (changed.visits, created) == (1, False)
        assert await names(second) == []
        assert await names(first) == ["a", "b", "c", "d", "made"]
        assert await Author.objects.filter(name="c").update(visits=5) == 1
        assert await Author.objects.filter(name="d").delete() == 1
        assert [a.name for a in await Author.objects.filter(name="c").update_returning(name="e")] == ["e"]
        assert [a.name for a in await Author.objects.filter(name="made").delete_returning()] == ["made"]
        one.visits = 7
        assert await Author.objects.bulk_update([one], ["visits"]) == 1
        assert await names(first) == ["a", "b", "e"]
        # Every way of reading.
        assert await Author.objects.all() == []
        assert await Author.objects.count() == 0
        assert not await Author.objects.exists()
        assert await Author.objects.aggregate(n=Count("*")) == {"n": 0}
        assert [a async for a in Author.objects.iterator()] == []
        assert await Author.objects.in_bulk() == {}
        assert (await Author.objects.paginate(total=True)).total == 0
        assert await Author.objects.raw("SELECT * FROM shop_author") == []
        assert Author.objects.all().database is second
        # What is named goes first.
        assert await Author.objects.using("default").count() == 3
        await Author(name="z").save(using="copy")
        await Author.objects.using("copy").create(name="y")
        assert await Author.objects.using("copy").filter(name="y").update(visits=3) == 1
        assert await names(second) == ["y", "z"]
    assert Author.objects.all().database is first


async def test_the_first_opinion_decides_and_the_model_comes_behind_it(tmp_path: Path) -> None:
    class Report(Model):
        title = CharField(max_length=20)

        class Meta:
            registry = Registry()
            database = "c"

    a, b, c = (Database(f"sqlite:///{tmp_path / name}.db", alias=name) for name in "abc")
    async with a, b, c:
        silent, says_a, says_b = Told(), Told("a", "a"), Told("b", "b", of=(Author,))
        with routing(silent, says_b, says_a):
            assert Author.objects.all().database is b
            assert Report.objects.all().database is a
            # Blocks within go before those around.
            with routing(Told("c", None)):
                assert Author.objects.all().database is c
                assert Author.objects.all()._writing.database is b
            assert Author.objects.all().database is b
        with routing(silent):
            assert Report.objects.all().database is c
        assert ("read", "Author") in silent.asked
        assert says_a.asked
        # One of the databases that was named is the other's business, and asks nobody.
        asked = len(silent.asked)
        with routing(silent):
            assert Author.objects.using("a").database is a
        assert len(silent.asked) == asked


async def test_tasks_have_the_routers_of_those_who_began_them(pair: Pair) -> None:
    first, second = pair

    async def ask() -> Database:
        await asyncio.sleep(0)
        return Author.objects.all().database

    with routing(Split()):
        inside = asyncio.create_task(ask())
    outside = asyncio.create_task(ask())
    assert await inside is second
    assert await outside is first


async def test_an_answer_may_change_from_query_to_query(pair: Pair) -> None:
    first, second = pair
    with routing(ByRegion()):
        mine = Author.objects.order_by("name")
        await Author.objects.create(name="a")
        token = region.set("copy")
        await Author.objects.create(name="b")
        assert [a.name for a in await mine] == ["b"]
        region.reset(token)
        assert [a.name for a in await mine] == ["a"]
    assert (await names(first), await names(second)) == (["a"], ["b"])


# Transactions


async def test_in_a_transaction_reads_see_what_it_wrote(pair: Pair) -> None:
    first, second = pair
    with routing(Split()):
        async with first.transaction():
            made = await Author.objects.create(name="a")
            await made.books.create(title="t")
            assert await Author.objects.count() == 1
            assert [b.title for b in await made.books.all()] == ["t"]
            (found,) = await Author.objects.prefetch_related("books")
            assert [b.title for b in found.books] == ["t"]
            assert (await Author.objects.get()).pk == made.pk
            async with first.transaction():
                assert await Author.objects.exists()
            # One of another database has nothing to do with it.
            async with second.transaction():
                assert await Author.objects.exists()
            assert await Author.objects.using("copy").count() == 0
        assert await Author.objects.count() == 0
        async with second.transaction():
            # Nothing here is written there.
            assert await Author.objects.count() == 0
            await Author.objects.create(name="b")
        assert await names(first) == ["a", "b"]
        async with first.transaction(read_only=True):
            assert await Author.objects.count() == 2


async def test_a_task_of_ones_own_inside_of_a_transaction_is_told_so(pair: Pair) -> None:
    first, _ = pair
    with routing(Split()):
        async with first.transaction():
            with pytest.raises(TransactionError, match="was started inside of a transaction"):
                await asyncio.create_task(_count())
        assert await asyncio.create_task(_count()) == 0


async def _count() -> int:
    return await Author.objects.count()


@pytest.mark.parametrize("server", ["postgresql-15", "mariadb"], indirect=True)
async def test_locks_are_of_the_database_that_is_written(pair: Pair) -> None:
    first, second = pair
    with routing(Split()):
        await Author.objects.create(name="a")
        async with first.transaction():
            assert (await Author.objects.select_for_update().get()).name == "a"
        async with second.transaction():
            with pytest.raises(TransactionError, match="select_for_update"):
                await Author.objects.select_for_update().get()
        found = await Author.objects.using("default").get()
        async with first.transaction():
            assert await found.books.select_for_update() == []


# Objects


async def test_an_object_is_saved_where_its_model_was_written_when_it_was_read(pair: Pair) -> None:
    first, second = pair
    for database in pair:
        await Author.objects.using(database).create(name="a")
    with routing(Split()):
        found = await Author.objects.get(name="a")
        found.visits = 1
        await found.save()
        assert (await Author.objects.using("default").get()).visits == 1
        assert (await Author.objects.using("copy").get()).visits == 0
        # It is read again from where it would be read.
        assert (await found.refresh_from_db()).visits == 0
        found.visits = 2
        await found.save()
        await found.refresh_from_db("name")
        await found.refresh_from_db(using="default")
        assert found.visits == 2
        (streamed,) = [a async for a in Author.objects.iterator()]
        (raw,) = await Author.objects.raw("SELECT * FROM shop_author")
        (partly,) = await Author.objects.only("name")
        assert partly._source.database is first
        await partly.fetch("visits")
        assert partly.visits == 0
        for number, one in enumerate((streamed, raw, partly), 10):
            one.visits = number
            await one.save()
            assert (await Author.objects.using("default").get()).visits == number
        assert (await Author.objects.using("copy").get()).visits == 0
        # The one that was named stays its own, whatever the routers say.
        named = await Author.objects.using("copy").get()
        named.visits = 5
        await named.save()
        assert (await Author.objects.using("copy").get()).visits == 5
        await named.refresh_from_db()
        assert named.visits == 5
        await named.delete()
        await found.delete()
        assert (await names(first), await names(second)) == ([], [])


async def test_an_object_stays_where_it_belongs_when_routers_say_otherwise_later(pair: Pair) -> None:
    """Two rows of two databases have the same key, and one must not be written in place of the other."""
    assert len({database.alias for database in pair}) == 2
    with routing(ByRegion()):
        here = await Author.objects.create(name="here")
        await here.books.create(title="of here")
        token = region.set("copy")
        there = await Author.objects.create(name="there")
        await there.books.create(title="of there")
        assert here.pk == there.pk
        found = await Author.objects.get()
        region.reset(token)
        found.visits = 3
        await found.save()
        assert (await Author.objects.using("copy").get()).visits == 3
        assert (await Author.objects.using("default").get()).visits == 0
        # Nor do its books come from elsewhere.
        assert [b.title for b in await found.books.all()] == ["of there"]
        await found.fetch("books")
        assert [b.title for b in found.books] == ["of there"]
        await found.books.create(title="another")
        assert await found.books.filter(title="another").update(title="changed") == 1
        (book,) = await found.books.filter(title="changed")
        book.title = "again"
        await book.save()
        assert await Book.objects.using("copy").order_by("pk").values_list("title", flat=True) == ["of there", "again"]
        assert await Book.objects.using("default").values_list("title", flat=True) == ["of here"]
        # Of an object that `using` named, neither.
        named = await Author.objects.using("copy").prefetch_related("books").get()
        assert [b.title for b in named.books] == ["of there", "again"]
        (with_author,) = await Book.objects.using("copy").filter(title="again")
        await with_author.fetch("author")
        assert with_author.author is not None
        assert with_author.author.name == "there"


async def test_relations_are_read_and_written_as_the_router_says(pair: Pair) -> None:
    _, second = pair
    with routing(Split()):
        author = await Author.objects.create(name="a")
        book = await author.books.create(title="t")
        tag = await book.tags.create(name="x")
        other = await Tag.objects.create(name="y")
        await book.tags.add(other)
        await book.tags.remove(tag)
        await book.tags.set([tag, other])
        found, created = await book.tags.get_or_create(name="x")
        assert (found.pk, created) == (tag.pk, False)
        assert await Tag.objects.using("default").filter(books=book).count() == 2
        assert await Tag.objects.using("copy").count() == 0
        # The other database has not heard of any of it.
        assert author.books.database is second
        assert await author.books.all() == []
        assert await author.books.count() == 0
        assert await book.tags.all() == []
        assert await book.tags.filter(name="y").update(name="z") == 1
        assert await author.books.filter(title="t").update(title="u") == 1
        assert await author.books.filter(title="none").delete() == 0
        await book.tags.clear()
        assert await Tag.objects.using("default").filter(books=book).count() == 0
        await author.books.add(Book(title="v"))
        await author.books.set([])
        assert await Book.objects.using("default").filter(author=author).count() == 0
        await author.books.bulk_create([Book(title="w")])
        await author.books.update_or_create({"title": "ww"}, title="w")
        assert await Book.objects.using("default").filter(author=author).values_list("title", flat=True) == ["ww"]
    assert await Book.objects.using(second).count() == 0


async def test_what_is_prefetched_comes_from_where_it_is_read(pair: Pair) -> None:
    for database in pair:
        author = await Author.objects.using(database).create(name=f"in {database.alias}")
        book = await author.books.create(title=f"of {database.alias}")
        await book.tags.create(name=f"on {database.alias}")
    with routing(Split()):
        (found,) = await Author.objects.prefetch_related("books__tags")
        (book,) = found.books
        assert (found.name, book.title, [t.name for t in book.tags]) == ("in copy", "of copy", ["on copy"])
        (limited,) = await Author.objects.prefetch_related(Prefetch("books", Book.objects.order_by("title")[:1]))
        (book,) = limited.books
        assert book.title == "of copy"
        # It belongs where it would be written.
        book.title = "saved"
        await book.save()
        assert await Book.objects.using("default").values_list("title", flat=True) == ["saved"]
        (later,) = await Author.objects.all()
        await later.fetch("books")
        await prefetch_related_objects(list(later.books), "tags")
        assert [t.name for t in next(iter(later.books)).tags] == ["on copy"]
        (book,) = await Book.objects.select_related("author")
        assert book.author is not None
        book.author.visits = 9
        await book.author.save()
        assert (await Author.objects.using("default").get()).visits == 9


async def test_a_queryset_of_a_prefetch_may_name_a_database(pair: Pair) -> None:
    for database in pair:
        author = await Author.objects.using(database).create(name=f"in {database.alias}")
        book = await author.books.create(title=f"of {database.alias}")
        await book.tags.create(name=f"on {database.alias}")
    for books in (Book.objects.using("copy"), Book.objects.using("copy").order_by("title")[:1]):
        (found,) = await Author.objects.prefetch_related(Prefetch("books", books), "books__tags")
        (book,) = found.books
        assert (found.name, book.title, [t.name for t in book.tags]) == ("in default", "of copy", ["on copy"])


# Two kinds at once


async def test_models_in_databases_of_two_kinds(databases: Any, tmp_path: Path) -> None:
    server: PostgreSQL = databases.postgresql(15)
    people = Told("people", "people", of=(Author, Book, Tag))
    async with (
        Database(f"sqlite:///{tmp_path / 'visits.db'}") as visits,
        Database(server.empty_database("people"), alias="people") as postgresql,
    ):
        with routing(people):
            # The table of a many-to-many relation stands beside those of its models.
            assert sorted(await postgresql.create_all(registry)) == TABLES
            assert await postgresql.create_all(elsewhere) == ["shop_visit"]
            assert await visits.create_all(registry) == []
            assert await visits.create_all(elsewhere) == ["shop_visit"]
            author = await Author.objects.create(name="a")
            await Visit.objects.create(page="/")
            book = await author.books.create(title="t")
            await book.tags.create(name="x")
            assert book.tags.through.objects.all().database is postgresql  # type: ignore[attr-defined]
            (found,) = await Author.objects.prefetch_related("books__tags")
            assert [[t.name for t in b.tags] for b in found.books] == [["x"]]
            async with visits.transaction():
                # It is a transaction of another database.
                assert await Author.objects.count() == 1
                await Visit.objects.create(page="/more")
            assert await Visit.objects.count() == 2
            assert await Visit.objects.using("people").count() == 0
            assert await postgresql.drop_all(registry) != []


async def test_objects_are_not_read_where_they_could_not_be_saved(databases: Any, tmp_path: Path) -> None:
    server: PostgreSQL = databases.postgresql(15)
    async with (
        Database(server.empty_database("first")) as first,
        Database(f"sqlite:///{tmp_path / 'copy.db'}", alias="copy") as copy,
    ):
        for database in (first, copy):
            await database.create_all(registry)
        await Author.objects.using(copy).create(name="a")
        with routing(Split()):
            with pytest.raises(QueryError, match=r"Author is read from .*copy.* and written to .*of another kind"):
                await Author.objects.get()
            assert await Author.objects.values_list("name", flat=True) == ["a"]
            assert await Author.objects.count() == 1
            assert (await Author.objects.using("copy").get()).name == "a"


# What is wrong


async def test_a_router_that_says_something_else_is_named(pair: Pair) -> None:
    with (
        routing(Told("nowhere", "nowhere")),
        pytest.raises(NoDatabase, match=r"<Told> gave 'nowhere' as database_for_read of Author: no database 'nowhere'"),
    ):
        await Author.objects.count()
    wrong: Any = Told()
    wrong.reads = 5
    with routing(wrong), pytest.raises(QueryError, match=r"<Told>.database_for_read\(Author\) gave 5; an alias or"):
        await Author.objects.count()


async def test_who_only_reads_needs_no_database_that_is_written(server: Server) -> None:
    async with Database(server.empty_database("first"), alias="copy") as copy:
        await copy.create_all(registry)
        await Author.objects.using(copy).create(name="a")
        with routing(Told("copy", "away")):
            found = await Author.objects.get()
            assert await found.books.all() == []
            with pytest.raises(NoDatabase, match="'away'"):
                await Author.objects.create(name="b")


def test_what_is_no_router_is_refused() -> None:
    class Half:
        def database_for_read(self, model: type[Any]) -> str | None:
            return None

    class Awaited(Half):
        async def database_for_write(self, model: type[Any]) -> str | None:
            return None

    given: list[tuple[Any, str]] = [
        (Half(), r"it has no method database_for_write\(model\)"),
        (Awaited(), "database_for_write is `async def`"),
        (ByRegion, r"it is a class; make an object of it: ByRegion\(\)"),
    ]
    for router, message in given:
        with pytest.raises(ConfigurationError, match=message), routing(router):
            pass
    kept: Router = ByRegion()
    with routing(kept):
        pass


# Where no router is


async def test_nothing_is_asked_where_nobody_has_had_routers(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ambient.routed

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a query looked for routers")

    monkeypatch.setattr("covet_orm.routers._opinion", refuse)
    author = await Author.objects.create(name="a")
    await author.books.create(title="t")
    assert await Author.objects.filter(name="a").update(visits=1) == 1
    (found,) = await Author.objects.prefetch_related("books")
    await found.save(update_fields=["visits"])
    await found.refresh_from_db()


# In an application


@pytest.fixture
def routing_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module `shop_routing` with routers."""
    module = ModuleType("shop_routing")
    vars(module).update(Split=Split, silent=Told(), Half=object, broken=1 / 3)
    monkeypatch.setitem(sys.modules, "shop_routing", module)
    return module


def application(server: Server, *routers: str) -> Covet:
    return plugin_sandbox(
        orm=covet_orm.plugin,
        settings={
            "app": {**KEY},
            "storage": {
                "default": {"url": server.empty_database("first")},
                "copy": {"url": server.empty_database("second")},
            },
            "plugins": {"orm": {"routers": list(routers)}},
        },
    )


def databases_of(app: Covet) -> list[Database]:
    found = [app.storage["default"], app.storage["copy"]]
    return [database for database in found if isinstance(database, Database)]


async def test_the_settings_name_routers(server: Server, routing_module: ModuleType) -> None:
    app = application(server, "shop_routing:silent", "shop_routing:Split")

    @app.get("/authors")
    async def authors() -> list[str]:
        await Author.objects.create(name="written")
        return await Author.objects.values_list("name", flat=True)

    @app.get("/tables")
    async def tables() -> list[list[str]]:
        return [sorted(map(str, await database.create_all(registry))) for database in databases_of(app)]

    async with TestClient(app) as client:
        first, second = databases_of(app)
        made = (await client.get("/tables")).json()
        assert made == [TABLES, []]
        # A block goes before the application.
        with routing(Told(None, "copy")):
            assert sorted(await second.create_all(registry)) == TABLES
        await Author.objects.using(second).create(name="read")
        assert (await client.get("/authors")).json() == ["read"]
        assert await names(first) == ["written"]
    assert routing_module.silent.asked


async def test_another_application_of_the_process_has_none_of_them(server: Server, routing_module: ModuleType) -> None:
    routed = application(server, "shop_routing:Split")
    plain = application(server)
    async with routed.running():
        assert Author.objects.all().database is routed.storage["copy"]
    async with plain.running():
        assert ambient.routed
        assert Author.objects.all().database is plain.storage["default"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shop_routing", "not of the form `module:name`"),
        ("shop_routing:", "not of the form"),
        ("no_such_module:Router", "cannot be imported or made: ModuleNotFoundError: No module named 'no_such_module'"),
        ("shop_routing:Missing", "cannot be imported or made: AttributeError"),
        ("shop_routing:Half", r"is no router: it has no method database_for_read\(model\)"),
        ("shop_routing:broken", "is no router"),
    ],
)
def test_a_setting_that_names_no_router_stops_the_start(
    name: str, message: str, tmp_path: Path, routing_module: ModuleType
) -> None:
    app = plugin_sandbox(orm=covet_orm.plugin, settings={"app": {**KEY}, "plugins": {"orm": {"routers": [name]}}})
    with pytest.raises(ConfigurationError, match=message) as raised:
        app.build()
    assert name in str(raised.value)
    assert not ambient.routed


def test_the_command_creates_tables_where_routers_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, routing_module: ModuleType
) -> None:
    module = ModuleType("shop_app")
    module.app = plugin_sandbox(  # type: ignore[attr-defined]
        orm=covet_orm.plugin,
        settings={
            "app": {**KEY},
            "storage": {
                "default": {"url": f"sqlite:///{tmp_path / 'default.db'}"},
                "copy": {"url": f"sqlite:///{tmp_path / 'copy.db'}"},
            },
            "plugins": {"orm": {"routers": ["shop_routing:Split"]}},
        },
    )
    monkeypatch.setitem(sys.modules, "shop_app", module)
    monkeypatch.setattr("covet_orm.schema.default_registry", registry)
    monkeypatch.setattr("covet_orm.commands.findings.registry", registry)
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(db_command, ["create", "--app", "shop_app:app"])
    assert told.exit_code == 0, told.output
    assert [line.split()[-1] for line in told.stdout.splitlines() if line.startswith("copy")] == ["none"]
    told = CliRunner().invoke(db_command, ["check", "--app", "shop_app:app"])
    assert "is not there" not in told.output


# Subqueries that name another database


async def test_a_subquery_of_another_database_is_refused(pair: Pair) -> None:
    first, second = pair
    author = await Author.objects.using(second).create(name="there")
    await Author.objects.create(name="here")
    other = Book.objects.using("copy")
    mine = Book.objects.using("default")
    told = r"a query of Book from <Database copy .*> is part of one from <Database default .*>.*fetch the keys first"
    queries: list[Any] = [
        lambda books: Author.objects.filter(books__in=books),
        lambda books: Author.objects.exclude(books__in=books),
        lambda books: Author.objects.filter(Exists(books.filter(author=OuterRef("pk")))),
        lambda books: Author.objects.annotate(title=Subquery(books.filter(author=OuterRef("pk")).values("title")[:1])),
        lambda books: Author.objects.filter(pk__in=books.values("author")),
        lambda books: Author.objects.filter(pk__in=Book.objects.filter(pk__in=books).values("author")),
        lambda books: Book.objects.values("title").union(books.values("title")),
        lambda books: Author.objects.join(table := CTE(books), F("id") == table.c.author_id),
    ]
    for build in queries:
        for _ in range(2):
            # Nothing that was refused is there as a plan the next time.
            with pytest.raises(QueryError, match=told):
                await build(other)
        assert await build(mine) is not None
        assert await build(Book.objects.all()) is not None
        with pytest.raises(QueryError, match=told):
            await build(other)
        with pytest.raises(QueryError, match=r"from <Database default .*> is part of one from <Database copy"):
            await build(mine).using("copy")
        with pytest.raises(QueryError, match=told):
            await build(other).using(first)
        assert await build(other).using(second) is not None
    inside = Author.objects.filter(books__in=other)
    with pytest.raises(QueryError, match=told):
        await inside.count()
    with pytest.raises(QueryError, match=told):
        await inside.update(visits=1)
    with pytest.raises(QueryError, match=told):
        await Author.objects.update(visits=Subquery(other.values("pk")[:1]))
    with pytest.raises(QueryError, match=told):
        await inside.delete()
    with pytest.raises(QueryError, match=told):
        await inside.update_returning(visits=1)
    with pytest.raises(QueryError, match=told):
        await inside.aggregate(n=Count("*"))
    with pytest.raises(QueryError, match=told):
        inside.to_sqlalchemy()
    with pytest.raises(QueryError, match=told):
        [one async for one in inside.iterator()]
    with pytest.raises(QueryError, match=told):
        await Author.objects.prefetch_related(Prefetch("books", Book.objects.filter(pk__in=other)[:1]))
    with pytest.raises(NoDatabase, match="'copi'"):
        await Author.objects.filter(books__in=Book.objects.using("copi"))
    # What belongs to an object is where the object is.
    await author.books.create(title="t")
    with pytest.raises(QueryError, match=told):
        await Author.objects.filter(books__in=author.books.all())
    assert await Author.objects.using("copy").filter(books__in=author.books.all()) == [author]


async def test_a_subquery_without_a_database_goes_with_the_query_around_it(pair: Pair) -> None:
    _, second = pair
    author = await Author.objects.using(second).create(name="there")
    await author.books.create(title="t")
    with routing(Told("default", "default", of=(Book,))):
        assert await Author.objects.using("copy").filter(books__in=Book.objects.all()) == [author]
        assert await Author.objects.using("copy").filter(books__in=author.books.all()) == [author]
        with pytest.raises(QueryError, match="is part of one from"):
            await Author.objects.filter(books__in=author.books.all())
