"""Relations at run time: `author.books`, `book.tags`, what is loaded and what is not."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from covet.testing.conformance.faults import at_every_await
from covet_orm.constraints import UniqueConstraint
from covet_orm.databases import Database
from covet_orm.exceptions import (
    FieldError,
    FieldNotLoaded,
    ForeignKeyViolation,
    ModelError,
    NotSupported,
    QueryError,
    RelationNotLoaded,
    StaleObject,
)
from covet_orm.fields import (
    DO_NOTHING,
    PROTECT,
    SET_DEFAULT,
    SET_NULL,
    CharField,
    ForeignKey,
    IntegerField,
    ManyToManyField,
    OneToOneField,
    VersionField,
)
from covet_orm.models import Manager, Model, Registry
from covet_orm.queries.querysets import QuerySet
from covet_orm.relations.managers import RelatedManager

pytestmark = pytest.mark.anyio

library = Registry()


class Base(Model):
    class Meta:
        abstract = True
        registry = library


class Author(Base):
    name = CharField(max_length=50)
    friends: ManyToManyField[Author] = ManyToManyField("self", related_name="+")
    follows: ManyToManyField[Author] = ManyToManyField("self", symmetrical=False, related_name="followers")

    if TYPE_CHECKING:
        books: RelatedManager[Book]
        followers: RelatedManager[Author]


class Tag(Base):
    name = CharField(max_length=50, unique=True)

    if TYPE_CHECKING:
        books: RelatedManager[Book]


class Book(Base):
    title = CharField(max_length=50)
    year = IntegerField(default=1900)
    author = ForeignKey(Author, related_name="books", null=True)
    tags = ManyToManyField(Tag, related_name="books")
    readers: ManyToManyField[Reader] = ManyToManyField("Reader", through="Loan", related_name="books")

    if TYPE_CHECKING:
        loans: RelatedManager[Loan]


class Reader(Base):
    name = CharField(max_length=50)

    if TYPE_CHECKING:
        books: RelatedManager[Book]


class Loan(Base):
    """A link with a column of its own, and nothing that keeps a pair from being there twice."""

    book = ForeignKey(Book, related_name="loans")
    reader = ForeignKey(Reader, related_name="loans")
    days = IntegerField(default=14)


class Chapter(Base):
    book = ForeignKey(Book, related_name="chapters")
    number = IntegerField()
    version = VersionField()


class Note(Base):
    """Refers to a book that it can be without, and counts its versions."""

    book = ForeignKey(Book, related_name="notes", null=True)
    version = VersionField()


class Cover(Base):
    book = OneToOneField(Book, related_name="cover")
    colour = CharField(max_length=20)


class Seat(Base):
    """A link that has a unique constraint on the pair, and another one beside it."""

    reader = ForeignKey(Reader, related_name="+")
    tag = ForeignKey(Tag, related_name="+")
    number = IntegerField(null=True, unique=True)

    class Meta:
        constraints = [UniqueConstraint("reader", "tag")]


class Room(Base):
    name = CharField(max_length=20)
    readers = ManyToManyField(Reader, through="Place", through_fields=("room", "reader"), related_name="rooms")


class Place(Base):
    room = ForeignKey(Room, related_name="+")
    reader = ForeignKey(Reader, related_name="+")
    warden = ForeignKey(Reader, related_name="+", null=True)


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.create_all(library)
    try:
        yield database
    finally:
        await database.close()


async def titles(books: QuerySet[Book]) -> list[str]:
    return await books.order_by("title").values_list("title", flat=True)


async def test_the_other_side_of_a_foreign_key_is_asked_as_a_manager_is(db: Database) -> None:
    ada = await Author.objects.create(name="Ada")
    charles = await Author.objects.create(name="Charles")
    notes = await ada.books.create(title="Notes", year=1843)
    await ada.books.create(title="Letters", year=1850)
    await charles.books.create(title="Passages", year=1864)
    assert notes.author_id == ada.id
    assert notes.author is ada
    assert await titles(ada.books.all()) == ["Letters", "Notes"]
    assert [book.title for book in await ada.books.filter(year=1843)] == ["Notes"]
    assert await ada.books.count() == 2
    assert await ada.books.filter(year=1864).exists() is False
    assert {book.title async for book in ada.books} == {"Letters", "Notes"}
    assert repr(ada.books).startswith("<ReverseManager books of <Author")
    found, created = await ada.books.get_or_create({"year": 1843}, title="Notes")
    assert (found.pk, created) == (notes.pk, False)
    found, created = await ada.books.update_or_create({"year": 1}, title="Sketch")
    assert created
    assert found.author_id == ada.id
    assert len(await charles.books.bulk_create([Book(title="a"), Book(title="b")])) == 2
    assert await charles.books.count() == 3


async def test_objects_move_from_one_owner_to_another(db: Database) -> None:
    ada, charles = [await Author.objects.create(name=name) for name in ("Ada", "Charles")]
    first, second = [await ada.books.create(title=title) for title in ("first", "second")]
    new = Book(title="new")
    await charles.books.add(first, new)
    assert first.author is charles
    assert not first.changed_fields()
    assert new.saved
    assert await titles(charles.books.all()) == ["first", "new"]
    with pytest.raises(Book.DoesNotExist, match="does not belong to"):
        await ada.books.remove(first)
    await charles.books.remove(first)
    assert first.author is None
    assert not first.changed_fields()
    assert await titles(Book.objects.filter(author=None)) == ["first"]
    await ada.books.set([first, new])
    assert await titles(ada.books.all()) == ["first", "new"]
    assert await titles(Book.objects.filter(author=None)) == ["second"]
    await ada.books.clear()
    assert await ada.books.count() == 0
    await second.refresh_from_db()
    assert second.author is None


async def test_what_cannot_be_without_an_owner_is_not_taken_from_it(db: Database) -> None:
    book = await Book.objects.create(title="x")
    other = await Book.objects.create(title="y")
    chapter = await Chapter.objects.create(book=book, number=1)
    chapters = book.chapters
    changes: list[Callable[[], Awaitable[None]]] = [
        lambda: chapters.clear(),
        lambda: chapters.remove(chapter),
        lambda: chapters.set([]),
    ]
    for change in changes:
        with pytest.raises(QueryError, match=r"cannot (clear|remove).*null=True"):
            await change()
    await other.chapters.add(chapter)
    assert (await Chapter.objects.get()).book_id == other.pk
    with pytest.raises(QueryError, match="through_defaults are for many-to-many"):
        await chapters.add(chapter, through_defaults={"x": 1})
    with pytest.raises(QueryError, match="is of Chapter"):
        await chapters.add(book)


async def test_a_versioned_object_moves_with_its_version(db: Database) -> None:
    book = await Book.objects.create(title="x")
    note = await Note.objects.create()
    stale = await Note.objects.get()
    await book.notes.add(note)
    assert (await Note.objects.get()).version == note.version == 2
    with pytest.raises(StaleObject):
        await book.notes.add(stale)
    await book.notes.remove(note)
    assert note.version == 3


async def test_many_to_many(db: Database) -> None:
    book = await Book.objects.create(title="x")
    red, blue, green = [await Tag.objects.create(name=name) for name in ("red", "blue", "green")]
    assert await book.tags.all() == []
    await book.tags.add(red, blue.pk, red)
    await book.tags.add(red)
    assert {tag.name for tag in await book.tags.all()} == {"red", "blue"}
    assert [one.pk for one in await red.books.all()] == [book.pk]
    assert await Book.objects.filter(tags__name="red").count() == 1
    await book.tags.remove(red, green)
    assert [tag.name for tag in await book.tags.all()] == ["blue"]
    await green.books.add(book)
    await book.tags.set([red, green.pk])
    assert {tag.name async for tag in book.tags} == {"red", "green"}
    made = await book.tags.create(name="white")
    assert await book.tags.filter(pk=made.pk).exists()
    found, created = await book.tags.get_or_create(name="blue")
    assert (found.pk, created) == (blue.pk, False)
    assert await book.tags.count() == 4
    found, created = await book.tags.update_or_create({"name": "grey"}, name="white")
    assert (found.pk, created) == (made.pk, False)
    await book.tags.bulk_create([Tag(name="a"), Tag(name="b")])
    assert await book.tags.count() == 6
    await book.tags.clear()
    assert await book.tags.count() == 0
    assert await Tag.objects.count() == 6
    await book.tags.add()
    await book.tags.remove()
    assert await book.tags.count() == 0


async def test_what_cannot_be_linked_is_refused(db: Database) -> None:
    book = await Book.objects.create(title="x")
    with pytest.raises(ModelError, match="is none"):
        await book.tags.add(book)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no key yet"):
        await book.tags.add(Tag(name="new"))
    with pytest.raises(QueryError, match="nor the key of one"):
        await book.tags.add("seven")
    with pytest.raises(ForeignKeyViolation):
        await book.tags.add(4711)
    assert await book.tags.count() == 0
    with pytest.raises(ModelError, match="no key yet"):
        await Book(title="new").tags.all()


async def test_a_symmetrical_relation_is_seen_from_both_sides(db: Database) -> None:
    a, b, c = [await Author.objects.create(name=name) for name in "abc"]
    await a.friends.add(b, c, a)
    assert {one.name for one in await a.friends.all()} == {"a", "b", "c"}
    assert [one.name for one in await b.friends.all()] == ["a"]
    await b.friends.remove(a)
    assert {one.name for one in await a.friends.all()} == {"a", "c"}
    await c.friends.set([b])
    assert [one.name for one in await a.friends.all()] == ["a"]
    await b.friends.clear()
    assert await c.friends.count() == 0
    assert [one.name for one in await a.friends.all()] == ["a"]


async def test_a_relation_to_itself_may_have_a_direction(db: Database) -> None:
    a, b = [await Author.objects.create(name=name) for name in "ab"]
    await a.follows.add(b)
    assert [one.name for one in await a.follows.all()] == ["b"]
    assert await b.follows.count() == 0
    assert [one.name for one in await b.followers.all()] == ["a"]
    await b.followers.clear()
    assert await a.follows.count() == 0


async def test_a_link_has_columns_of_its_own(db: Database) -> None:
    book = await Book.objects.create(title="x")
    ann, bob = [await Reader.objects.create(name=name) for name in ("Ann", "Bob")]
    await book.readers.add(ann, through_defaults={"days": lambda: 3})
    await book.readers.add(ann, bob)
    assert await book.loans.order_by("days").values_list("reader__name", "days") == [("Ann", 3), ("Bob", 14)]
    # Another row of the same pair, which nothing forbids: the reader is there once.
    await Loan.objects.create(book=book, reader=ann)
    assert sorted([one.name for one in await book.readers.all()]) == ["Ann", "Bob"]
    await book.readers.remove(ann)
    assert await Loan.objects.count() == 1
    with pytest.raises(FieldError, match="takes no 'weeks'"):
        await book.readers.add(ann, through_defaults={"weeks": 1})


async def test_through_fields_say_which_of_several_foreign_keys_are_meant(db: Database) -> None:
    room = await Room.objects.create(name="north")
    ann, bob = [await Reader.objects.create(name=name) for name in ("Ann", "Bob")]
    await room.readers.add(ann, through_defaults={"warden": bob})
    assert [one.name for one in await room.readers.all()] == ["Ann"]
    assert await bob.rooms.count() == 0
    assert (await Place.objects.get()).warden_id == bob.pk


@pytest.mark.parametrize("name", ["tags", "readers"])
async def test_adding_the_same_at_the_same_time_adds_it_once(db: Database, name: str) -> None:
    """With a unique constraint on the pair and without."""
    book = await Book.objects.create(title="x")
    others = [await (Tag if name == "tags" else Reader).objects.create(name=str(number)) for number in range(3)]
    await asyncio.gather(*(getattr(copy.copy(book), name).add(*others) for _ in range(30)))
    manager = getattr(book, name)
    assert await manager.count() == 3
    assert await manager.through.objects.count() == 3


async def test_setting_at_the_same_time_leaves_what_one_of_them_set(db: Database) -> None:
    book = await Book.objects.create(title="x")
    tags = [await Tag.objects.create(name=str(number)) for number in range(6)]
    wanted = [set(tags[start : start + 3]) for start in range(4)]
    await asyncio.gather(*(book.tags.set(some) for some in wanted * 3))
    assert set(await book.tags.all()) in wanted


async def test_a_cancelled_set_leaves_the_old_or_the_new(db: Database) -> None:
    book = await Book.objects.create(title="x")
    tags = [await Tag.objects.create(name=str(number)) for number in range(6)]
    before, after = set(tags[:3]), set(tags[2:])

    async def change() -> None:
        await book.tags.set(after)

    async def check() -> None:
        assert set(await book.tags.all()) in (before, after)
        await book.tags.set(before)

    await book.tags.set(before)
    assert await at_every_await(change, check) > 0


async def test_what_is_not_loaded_says_what_would_load_it(db: Database) -> None:
    author = await Author.objects.create(name="Ada")
    await author.books.create(title="x")
    book = await Book.objects.get()
    with pytest.raises(RelationNotLoaded, match=r"\.select_related\('author'\).*fetch\('author'\)"):
        book.author
    with pytest.raises(RelationNotLoaded, match=r"\.prefetch_related\('tags'\).*fetch\('tags'\)"):
        list(book.tags)
    with pytest.raises(RelationNotLoaded, match=r"\.select_related\('cover'\)"):
        book.cover
    short = await Book.objects.only("title").get()
    with pytest.raises(FieldNotLoaded, match="year was not loaded"):
        short.year
    book = await Book.objects.select_related("author").get()
    other = await Author.objects.create(name="Charles")
    book.author_id = other.pk  # type: ignore[attr-defined]
    with pytest.raises(RelationNotLoaded):
        book.author


async def test_one_to_one_from_both_sides(db: Database) -> None:
    book = await Book.objects.create(title="x")
    plain = await Book.objects.create(title="y")
    cover = await Cover.objects.create(book=book, colour="red")
    found = {one.title: one for one in await Book.objects.select_related("cover")}
    assert found["x"].cover.pk == cover.pk
    assert found["x"].cover.book is found["x"]
    assert found["y"].cover is None
    found = {one.title: one for one in await Book.objects.prefetch_related("cover")}
    assert found["x"].cover.colour == "red"
    assert found["x"].cover.book is found["x"]
    assert found["y"].cover is None
    await plain.fetch("cover")
    assert plain.cover is None


async def test_the_database_does_what_on_delete_says(url: str) -> None:
    shelf = Registry()

    class Other(Model):
        class Meta:
            registry = shelf

    class Kept(Model):
        protected = ForeignKey(Other, on_delete=PROTECT, null=True, related_name="+")
        untouched = ForeignKey(Other, on_delete=DO_NOTHING, null=True, related_name="+")
        emptied = ForeignKey(Other, on_delete=SET_NULL, null=True, related_name="+")
        unchecked = ForeignKey(Other, db_constraint=False, null=True, related_name="+")

        class Meta:
            registry = shelf

    class Gone(Model):
        other = ForeignKey(Other, related_name="+")

        class Meta:
            registry = shelf

    async with Database(url) as database:
        await database.create_all(shelf)
        other = await Other.objects.create()
        for name in ("protected", "untouched"):
            held = await Kept.objects.create(**{name: other})
            with pytest.raises(ForeignKeyViolation):
                await other.delete()
            await held.delete()
        kept = await Kept.objects.create(emptied=other, unchecked=other)
        await Gone.objects.create(other=other)
        assert await other.delete() == 1
        await kept.refresh_from_db()
        assert (kept.emptied_id, kept.unchecked_id) == (None, other.pk)
        assert await Gone.objects.count() == 0


async def test_the_default_of_a_foreign_key(url: str) -> None:
    shelf = Registry()

    class Other(Model):
        class Meta:
            registry = shelf

    class Child(Model):
        other = ForeignKey(Other, on_delete=SET_DEFAULT, db_default=1)

        class Meta:
            registry = shelf

    async with Database(url) as database:
        await database.open()
        if database.kind == "mariadb":
            # It would take the definition, and do as with RESTRICT.
            with pytest.raises(NotSupported, match=r"Child\.other.*mariadb does not do on_delete=SET_DEFAULT"):
                await database.create_all(shelf)
            return
        await database.create_all(shelf)
        first, second = await Other.objects.create(), await Other.objects.create()
        child = await Child.objects.create(other=second)
        await second.delete()
        await child.refresh_from_db()
        assert child.other_id == first.pk


def test_a_reverse_name_that_is_taken_is_refused() -> None:
    names = Registry()

    class Team(Model):
        members = IntegerField()

        class Meta:
            registry = names

    with pytest.raises(ModelError, match="give it another related_name"):

        class Player(Model):
            team = ForeignKey(Team, related_name="members")

            class Meta:
                registry = names


def test_a_link_that_does_not_lead_to_both_sides_is_refused() -> None:
    names = Registry()

    class Left(Model):
        class Meta:
            registry = names

    class Right(Model):
        lefts = ManyToManyField(Left, through="Between")

        class Meta:
            registry = names

    with pytest.raises(ModelError, match="say which with through_fields"):

        class Between(Model):
            left = ForeignKey(Left, related_name="+")
            other = ForeignKey(Left, related_name="+")
            right = ForeignKey(Right, related_name="+")

            class Meta:
                registry = names


def test_managers_belong_to_models() -> None:
    with pytest.raises(AttributeError):
        Book(title="x").objects.all()
    assert isinstance(Book.objects, Manager)
    assert Book.objects is Book.objects
    other: object = Author.objects
    assert Book.objects is not other
