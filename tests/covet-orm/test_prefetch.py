"""`prefetch_related`, `Prefetch`, `fetch` and the warning about N+1 queries."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from covet_orm.databases import Database
from covet_orm.exceptions import FieldError, FieldNotLoaded, QueryError, RelationNotLoaded
from covet_orm.fields import CharField, ForeignKey, IntegerField, ManyToManyField, OneToOneField
from covet_orm.models import Manager, Model, Registry
from covet_orm.nplusone import NPlusOneWarning, watch
from covet_orm.queries.querysets import QuerySet
from covet_orm.relations import keys
from covet_orm.relations.prefetching import Prefetch, prefetch_related_objects

pytestmark = pytest.mark.anyio

library = Registry()


class Base(Model):
    class Meta:
        abstract = True
        registry = library


class Team(Base):
    name = CharField(max_length=20)


class Author(Base):
    name = CharField(max_length=20)
    bio = CharField(max_length=50, default="")
    team = ForeignKey(Team, related_name="authors", null=True)


class PublishedManager(Manager["Book"]):
    def get_queryset(self) -> QuerySet[Book]:
        return super().get_queryset().exclude(title="secret")


class Tag(Base):
    name = CharField(max_length=20)


class Book(Base):
    title = CharField(max_length=20)
    year = IntegerField(default=0)
    author = ForeignKey(Author, related_name="books", null=True)
    editor = ForeignKey(Author, related_name="edited", null=True)
    tags = ManyToManyField(Tag, related_name="books")
    objects = PublishedManager()


class Line(Base):
    """Has a key of two columns."""

    book = ForeignKey(Book, primary_key=True, related_name="lines")
    number = IntegerField(primary_key=True)
    text = CharField(max_length=20, default="")
    signer = ForeignKey(Author, null=True, related_name="signed")


class Cover(Base):
    book = OneToOneField(Book, related_name="cover")
    colour = CharField(max_length=20)


class Asked:
    """The statements that a database was sent within a block."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def __len__(self) -> int:
        return len(self.statements)


@contextmanager
def asked(database: Database) -> Iterator[Asked]:
    """Count the statements that read."""
    found = Asked()
    fetch_rows = database.fetch_rows

    async def noted(plan: Any, parameters: Any) -> Any:
        found.statements.append(plan.sql)
        return await fetch_rows(plan, parameters)

    database.fetch_rows = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del database.__dict__["fetch_rows"]


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    """Three authors: of four books, of one, of none; the first two in a team."""
    database = Database(url)
    await database.create_all(library)
    try:
        team = await Team.objects.create(name="red")
        tags = [await Tag.objects.create(name=name) for name in ("new", "old", "odd")]
        ada = await Author.objects.create(name="Ada", team=team, bio="of Ada")
        bob = await Author.objects.create(name="Bob", team=team, bio="of Bob")
        await Author.objects.create(name="Cleo", bio="of Cleo")
        for number in range(4):
            book = await Book.objects.create(title=f"a{number}", year=number, author=ada, editor=bob)
            await book.tags.add(*tags[: number % 3])
        book = await Book.objects.create(title="b0", year=9, author=bob)
        await book.tags.add(*tags)
        await Book.objects.create(title="secret", author=ada)
        await Cover.objects.create(book=book, colour="red")
        yield database
    finally:
        await database.close()


def by_name(objects: list[Any]) -> dict[str, Any]:
    return {one.name: one for one in objects}


async def test_what_one_child_gets_is_not_its_siblings(db: Database) -> None:
    ada = await Author.objects.prefetch_related("books").get(name="Ada")
    first, *others = ada.books
    await prefetch_related_objects([first], "editor")
    assert first.author is ada
    assert first.editor.name == "Bob"
    for other in others:
        assert other.author is ada
        with pytest.raises(RelationNotLoaded):
            _ = other.editor


async def test_one_query_for_each_relation(db: Database) -> None:
    with asked(db) as queries:
        authors = by_name(await Author.objects.prefetch_related("books", "books__tags", "team"))
    assert len(queries) == 4
    with asked(db) as queries:
        assert sorted(book.title for book in authors["Ada"].books) == ["a0", "a1", "a2", "a3"]
        assert [book.title for book in await authors["Bob"].books.all()] == ["b0"]
        assert await authors["Cleo"].books.all() == []
        assert await authors["Ada"].books.count() == 4
        assert await authors["Cleo"].books.all().exists() is False
        assert {book.title async for book in authors["Bob"].books} == {"b0"}
        book = next(book for book in authors["Ada"].books if book.title == "a2")
        assert {tag.name for tag in book.tags} == {"new", "old"}
        assert book.author is authors["Ada"]
        assert authors["Ada"].team is authors["Bob"].team
        assert authors["Cleo"].team is None
        assert len(queries) == 0
        assert await authors["Ada"].books.filter(year=2).count() == 1
        assert await authors["Ada"].books.filter(year__lt=3).order_by("-year").first() == book
        assert len(queries) == 2
    (await authors["Ada"].books.all()).clear()
    assert len(list(authors["Ada"].books)) == 4


async def test_what_is_changed_through_the_manager_is_asked_again(db: Database) -> None:
    ada = await Author.objects.prefetch_related("books__tags").get(name="Ada")
    book = next(iter(ada.books))
    await ada.books.create(title="new")
    with pytest.raises(RelationNotLoaded):
        list(ada.books)
    assert await ada.books.count() == 5
    tag = await Tag.objects.prefetch_related("books").get(name="odd")
    await book.tags.add(tag)
    with pytest.raises(RelationNotLoaded):
        list(book.tags)
    with pytest.raises(RelationNotLoaded):
        list(tag.books)


async def test_a_queryset_says_which_objects(db: Database) -> None:
    chosen = Book.objects.filter(year__gte=2).order_by("-year").only("title").select_related("editor")
    authors = by_name(await Author.objects.prefetch_related(Prefetch("books", chosen)))
    assert [book.title for book in authors["Ada"].books] == ["a3", "a2"]
    assert next(iter(authors["Ada"].books)).editor.name == "Bob"
    assert next(iter(authors["Ada"].books)).author is authors["Ada"]
    with pytest.raises(FieldNotLoaded):
        next(iter(authors["Ada"].books)).year


async def test_another_attribute_gets_the_list(db: Database) -> None:
    authors = by_name(
        await Author.objects.prefetch_related(
            "books",
            Prefetch("books", Book.objects.filter(year__lt=2), to_attr="early"),
            "early__tags",
            Prefetch("team", to_attr="squad"),
        )
    )
    ada = authors["Ada"]
    assert sorted(book.title for book in ada.early) == ["a0", "a1"]
    assert len(list(ada.books)) == 4
    assert [tag.name for book in ada.early for tag in book.tags] == ["new"]
    assert ada.squad.name == "red"
    assert authors["Cleo"].squad is None
    assert authors["Cleo"].early == []
    with pytest.raises(RelationNotLoaded):
        ada.team


@pytest.mark.parametrize("part", [slice(0, 2), slice(1, 3), slice(1, None), slice(0, 0)])
async def test_a_slice_is_that_of_each_parent(db: Database, part: slice) -> None:
    first = [f"a{number}" for number in (3, 2, 1, 0)]
    with asked(db) as queries:
        authors = by_name(
            await Author.objects.prefetch_related(
                Prefetch("books", Book.objects.order_by("-year").select_related("editor")[part])
            )
        )
    assert len(queries) == 2
    assert [book.title for book in authors["Ada"].books] == first[part]
    assert [book.title for book in authors["Bob"].books] == ["b0"][part]
    assert all(book.author is authors["Ada"] and book.editor.name == "Bob" for book in authors["Ada"].books)
    tags = await Tag.objects.order_by("id").prefetch_related(Prefetch("books", Book.objects.order_by("year")[part]))
    of_each = [["a1", "a2", "b0"], ["a2", "b0"], ["b0"]]
    assert [[book.title for book in tag.books] for tag in tags] == [books[part] for books in of_each]


async def test_a_slice_without_an_order_goes_by_key(db: Database) -> None:
    ada = await Author.objects.prefetch_related(Prefetch("books", Book.objects.all()[:2])).get(name="Ada")
    assert [book.title for book in ada.books] == ["a0", "a1"]
    query = Book.objects.prefetch_related("tags")[2:3]
    ada = await Author.objects.prefetch_related(Prefetch("books", query)).get(name="Ada")
    assert [[tag.name for tag in book.tags] for book in ada.books] == [["new", "old"]]


async def test_keys_go_in_batches(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(keys.BATCH, db.kind, 2)
    with asked(db) as queries:
        authors = by_name(await Author.objects.prefetch_related("books__tags", "team"))
    # Three authors in two batches, five books in three, one team.
    assert len(queries) == 1 + 2 + 3 + 1
    assert sorted(book.title for book in authors["Ada"].books) == ["a0", "a1", "a2", "a3"]
    assert {tag.name for book in authors["Bob"].books for tag in book.tags} == {"new", "old", "odd"}


async def test_more_keys_than_a_statement_takes(db: Database) -> None:
    await Author.objects.bulk_create([Author(name=str(number)) for number in range(40_000)])
    authors = await Author.objects.prefetch_related("books").order_by("id")
    assert len(authors) == 40_003
    assert len(list(authors[0].books)) == 4
    assert list(authors[-1].books) == []


async def test_what_is_loaded_already_is_not_asked_for(db: Database) -> None:
    with asked(db) as queries:
        books = await Book.objects.select_related("author").prefetch_related("author__books", "author__team")
        assert len(queries) == 3
        await prefetch_related_objects(books, "author__books", "author__team")
        assert len(queries) == 3
    assert {len(list(book.author.books)) for book in books if book.author is not None} == {4, 1}
    await prefetch_related_objects([])
    with pytest.raises(QueryError, match="is not saved"):
        await prefetch_related_objects([Book(title="x")], "tags")
    with pytest.raises(QueryError, match="is no Book"):
        await prefetch_related_objects([books[0], Tag(name="x")], "tags")


async def test_what_cannot_be_prefetched_is_refused(db: Database) -> None:
    with pytest.raises(FieldError, match=r"no field 'boks'.*did you mean 'books'"):
        Author.objects.prefetch_related("boks")
    with pytest.raises(FieldError, match=r"Book\.title is no relation"):
        Author.objects.prefetch_related("books__title")
    with pytest.raises(FieldError, match="has something called 'name'"):
        Author.objects.prefetch_related(Prefetch("books", to_attr="name"))
    with pytest.raises(QueryError, match="is no name"):
        Prefetch("books", to_attr="no name")
    with pytest.raises(QueryError, match="give no objects"):
        Prefetch("books", Book.objects.values("title"))
    with pytest.raises(QueryError, match="by another query"):
        Author.objects.prefetch_related("books", Prefetch("books", Book.objects.filter(year=1)))
    with pytest.raises(QueryError, match="give none"):
        await Author.objects.prefetch_related("books").values("name")
    with asked(db) as queries:
        await Author.objects.prefetch_related("books").prefetch_related(None)
        await Author.objects.filter(name="nobody").prefetch_related("books")
    assert len(queries) == 2


async def test_the_default_manager_chooses_for_relations_to_many(db: Database) -> None:
    """And not for what a foreign key refers to, which is there whatever managers see."""
    ada = await Author.objects.prefetch_related("books").get(name="Ada")
    assert "secret" not in {book.title for book in ada.books}
    secret = await QuerySet(Book).get(title="secret")
    cover = await Cover.objects.create(book=secret, colour="black")
    cover = await Cover.objects.get(pk=cover.pk)
    await cover.fetch("book")
    assert cover.book.title == "secret"
    await secret.refresh_from_db()
    assert secret.year == 0


async def test_fetch_loads_for_all_of_a_result(db: Database) -> None:
    with asked(db) as queries:
        for book in await Book.objects.order_by("id"):
            await book.fetch("author", "tags")
            assert book.author is not None
            assert book.author.name in ("Ada", "Bob")
            assert len(list(book.tags)) <= 3
    assert len(queries) == 3
    with asked(db) as queries:
        async for author in Author.objects.all():
            await author.fetch("books__tags")
            for book in author.books:
                await book.fetch("cover")
    # The books of all authors came together, and so do their covers.
    assert len(queries) == 4


async def test_fetch_loads_for_one_where_the_result_is_gone(db: Database) -> None:
    first, second = (await Book.objects.order_by("id"))[:2]
    await first.fetch("author")
    with pytest.raises(RelationNotLoaded):
        second.author
    books = await Book.objects.order_by("id")
    await books[0].fetch("author", alone=True)
    assert getattr(books[0].author, "name", None) == "Ada"
    with pytest.raises(RelationNotLoaded):
        books[1].author


async def test_fetch_finds_peers_beside_a_result(db: Database) -> None:
    with asked(db) as queries:
        for book in await Book.objects.select_related("author"):
            assert book.author is not None
            assert getattr((await book.author.fetch("team")).team, "name", None) == "red"
    assert len(queries) == 2
    with asked(db) as queries:
        for cover in await Cover.objects.select_related("book__author"):
            assert cover.book.author is not None
            await cover.book.author.fetch("books")
    assert len(queries) == 2


async def test_fetch_loads_deferred_fields(db: Database) -> None:
    authors = await Author.objects.only("name").order_by("id")
    with asked(db) as queries:
        for author in authors:
            await author.fetch("bio")
            assert author.bio == f"of {author.name}"
            assert not author.changed_fields()
        for author in authors:
            await author.fetch("team_id", "books")
    assert len(queries) == 3
    authors[0].bio = "other"
    assert authors[0].changed_fields() == ["bio"]
    await authors[0].save()
    assert (await Author.objects.get(pk=authors[0].pk)).bio == "other"


async def test_keys_of_several_columns(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "COMPOSITE_BATCH", 2)
    books = await Book.objects.order_by("id")[:2]
    ada, bob = await Author.objects.order_by("id")[:2]
    lines = [Line(book=book, number=number, text=f"{number}") for book in books for number in range(3)]
    await Line.objects.bulk_create(lines)
    await ada.signed.add(*lines)
    await bob.signed.set(lines[2:4])
    assert await Line.objects.filter(signer=ada).count() == 4
    with asked(db) as queries:
        found = await Line.objects.only("signer").prefetch_related("signer", "book__lines").order_by("book", "number")
        for line in found:
            await line.fetch("text")
    # The lines, their authors, their books, the lines of these; and six texts in three batches.
    assert len(queries) == 4 + 3
    assert [(line.text, line.signer.name) for line in found] == [  # type: ignore[union-attr]
        ("0", "Ada"), ("1", "Ada"), ("2", "Bob"), ("0", "Bob"), ("1", "Ada"), ("2", "Ada"),
    ]  # fmt: skip
    assert [len(list(line.book.lines)) for line in found] == [3] * 6


async def test_fetch_says_what_is_wrong(db: Database) -> None:
    book = await Book.objects.order_by("id").first()
    assert book is not None
    with pytest.raises(FieldError, match="did you mean 'author'"):
        await book.fetch("autor")
    with pytest.raises(QueryError, match="is not saved"):
        await Book(title="x").fetch("author")
    book.author_id = 4711  # type: ignore[attr-defined]
    with pytest.raises(Author.DoesNotExist, match="4711, which is not there"):
        await book.fetch("author", alone=True)
    short = await Author.objects.only("name").get(name="Cleo")
    await Author.objects.filter(name="Cleo").delete()
    with pytest.raises(Author.DoesNotExist, match="not there any more"):
        await short.fetch("bio")


async def test_a_loop_that_asks_for_each_object_is_told_of(db: Database) -> None:
    books = await Book.objects.all()
    with watch(db, threshold=3), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for book in books:
            await book.tags.count()
        for book in books:
            await book.fetch("author", alone=True)
        for book in books:
            await Author.objects.filter(pk=book.author_id).exists()
        for book in books[:3]:
            await Author.objects.get(pk=book.author_id)
        await asyncio.gather(*(one_by_one(book) for book in books))
    found = [str(one.message) for one in told]
    assert len(found) == 3, found
    assert all(one.category is NPlusOneWarning and one.filename == __file__ for one in told)
    assert "Book.tags was asked for 4 times" in found[0]
    assert ".prefetch_related('tags')" in found[0]
    assert "Book.author was asked for" in found[1]
    assert ".select_related('author')" in found[1]
    assert "Author.exists was asked for 4 times" in found[2]
    assert "fetch_rows" not in db.__dict__


async def one_by_one(book: Any) -> None:
    """A task of its own, as a request has: one query is no loop."""
    await Author.objects.get(pk=book.author_id)


async def test_nothing_is_told_of_outside_of_the_block(db: Database) -> None:
    with watch(db, threshold=1), watch(db, threshold=1):
        pass
    for book in await Book.objects.all():
        await book.tags.count()
