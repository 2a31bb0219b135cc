"""People, their teams, books and awards: models for tests of queries, and the same objects in Python to compare
with."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from covet_orm.databases import Database
from covet_orm.fields import (
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    DurationField,
    FloatField,
    ForeignKey,
    IntegerField,
    JSONField,
    ManyToManyField,
    TextField,
    TimeField,
)
from covet_orm.models import Model
from covet_orm.models.registry import Registry

registry = Registry()


class Team(Model):
    name = CharField(max_length=50)
    city = CharField(max_length=50, null=True)

    class Meta:
        registry = registry


class Tag(Model):
    word = CharField(max_length=50, unique=True)

    class Meta:
        registry = registry


class Person(Model):
    name = CharField(max_length=50)
    age = IntegerField(null=True)
    score = FloatField(null=True)
    balance = DecimalField(max_digits=9, decimal_places=2, null=True)
    active = BooleanField(default=True)
    team = ForeignKey(Team, related_name="members", null=True)
    boss: ForeignKey[Any] = ForeignKey("self", related_name="staff", null=True)
    joined = DateTimeField(null=True, db_index=True)
    born = DateField(null=True)
    opens = TimeField(null=True)
    span = DurationField(null=True)
    note = TextField(null=True)
    data = JSONField(null=True)

    class Meta:
        registry = registry


class Book(Model):
    author = ForeignKey(Person, related_name="books")
    title = CharField(max_length=50)
    pages = IntegerField(null=True)
    price = DecimalField(max_digits=7, decimal_places=2)
    tags = ManyToManyField(Tag, related_name="books")

    class Meta:
        registry = registry


class Chapter(Model):
    book = ForeignKey(Book, related_name="chapters")
    words = IntegerField()

    class Meta:
        registry = registry


class Award(Model):
    person = ForeignKey(Person, related_name="awards")
    points = IntegerField(null=True)

    class Meta:
        registry = registry


class World:
    """All objects, in the order of their keys.

    Args:
        seed: what they are made of.
    """

    database: Database

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.teams: list[Team] = []
        self.tags: list[Tag] = []
        self.people: list[Person] = []
        self.books: list[Book] = []
        self.chapters: list[Chapter] = []
        self.awards: list[Award] = []
        self.tagged: dict[int, set[int]] = {}

    async def fill(self, database: Database, people: int = 14) -> None:
        """Make the objects and save them."""
        pick = self.random.choice
        for number in range(4):
            self.teams.append(await Team.objects.create(name=f"team {number}", city=pick([None, "Oslo", "Rome"])))
        for word in ("red", "green", "blue"):
            self.tags.append(await Tag.objects.create(word=word))
        for number in range(people):
            person = Person(
                name=pick(["ada", "bob", "cyd", "d_e", "f%g", "h\\i", "jäy", "o'k"]) + str(number % 3),
                age=pick([None, -3, 0, 7, 20, 21, 36, 36]),
                score=pick([None, -1.5, 0.0, 2.25, 1e6]),
                balance=pick([None, Decimal("-0.50"), Decimal("0.10"), Decimal("12.34")]),
                active=pick([True, False]),
                team=pick([None, *self.teams[:3]]),
                boss=pick([None, *self.people[-3:]]),
                joined=pick([None, self.moment(), self.moment()]),
                born=pick([None, self.moment().date()]),
                opens=pick([None, self.moment().time()]),
                span=pick(
                    [None, dt.timedelta(days=self.random.randint(-3, 3), microseconds=self.random.randint(0, 9))]
                ),
                note=pick([None, "", "some text", "Some OTHER text"]),
                data=pick(
                    [None, {}, {"n": 5}, {"n": 5.5, "s": "five"}, {"l": [1, "a"], "s": "FIVE"}, [1, 2], 7, "text"]
                ),
            )
            await person.save()
            self.people.append(person)
        # Several books of some, none of others; and awards, which must not multiply them.
        for person in self.people:
            for number in range(pick([0, 0, 1, 2, 3])):
                book = await Book.objects.create(
                    author=person,
                    title=f"{pick(['alpha', 'beta', 'gamma'])} {number}",
                    pages=pick([None, 0, 100, 100, 250]),
                    price=Decimal(self.random.randint(0, 500)) / 4,
                )
                self.books.append(book)
                chosen = self.random.sample(self.tags, self.random.randint(0, 3))
                self.tagged[book.id] = {tag.id for tag in chosen}
                if chosen:
                    await book.tags.add(*chosen)
                for _ in range(self.random.randint(0, 2)):
                    self.chapters.append(await Chapter.objects.create(book=book, words=self.random.randint(0, 9)))
            for _ in range(pick([0, 1, 2])):
                self.awards.append(await Award.objects.create(person=person, points=pick([None, 1, 2, 3])))

    def moment(self) -> dt.datetime:
        """A point in time; often at the edge of a year."""
        edges = [
            dt.datetime(2023, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
            dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
            dt.datetime(2024, 2, 29, 12, 30, 15, 5, tzinfo=dt.UTC),
            dt.datetime(2026, 1, 3, 0, 0, 1, tzinfo=dt.UTC),
        ]
        if self.random.random() < 0.5:
            return self.random.choice(edges)
        return edges[1] + dt.timedelta(microseconds=self.random.randint(0, 3 * 365 * 86_400_000_000))

    def books_of(self, person: Person) -> list[Book]:
        """The books of a person."""
        return [book for book in self.books if book.author_id == person.id]  # type: ignore[attr-defined]

    def awards_of(self, person: Person) -> list[Award]:
        """The awards of a person."""
        return [award for award in self.awards if award.person_id == person.id]  # type: ignore[attr-defined]

    def chapters_of(self, book: Book) -> list[Chapter]:
        """The chapters of a book."""
        return [chapter for chapter in self.chapters if chapter.book_id == book.id]  # type: ignore[attr-defined]

    def team_of(self, person: Person) -> Team | None:
        """The team of a person."""
        key = person.team_id  # type: ignore[attr-defined]
        return next((team for team in self.teams if team.id == key), None)  # type: ignore[attr-defined]

    def words_of(self, book: Book) -> set[str]:
        """The tags of a book."""
        return {tag.word for tag in self.tags if tag.id in self.tagged[book.id]}  # type: ignore[attr-defined]


@asynccontextmanager
async def people(url: str, seed: int = 1) -> AsyncIterator[World]:
    """The objects in an empty database, which is open meanwhile."""
    async with Database(url) as database:
        await database.create_all(registry)
        world = World(seed)
        world.database = database
        await world.fill(database)
        yield world
