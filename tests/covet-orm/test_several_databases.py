"""Several databases at once: which of them a model is read from and written to."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.services.databases import Database as Server

from covet_orm.ambient import NoDatabase
from covet_orm.databases import Database
from covet_orm.fields import CharField, ForeignKey
from covet_orm.models import Model, Registry

pytestmark = pytest.mark.anyio

registry = Registry()


class Author(Model):
    name = CharField(max_length=20, unique=True)

    class Meta:
        registry = registry


class Book(Model):
    title = CharField(max_length=20)
    author = ForeignKey(Author, related_name="books", null=True)

    class Meta:
        registry = registry


class Report(Model):
    """Lives elsewhere."""

    title = CharField(max_length=20)

    class Meta:
        registry = registry
        database = "reports"


async def fail_after_writing(database: Database) -> None:
    async with database.transaction():
        await Author.objects.create(name="gone")
        await Author.objects.using("second").create(name="stays")
        raise RuntimeError


async def test_models_live_where_they_say_and_are_asked_where_one_says(server: Server, tmp_path: Path) -> None:
    first = Database(server.empty_database("first"))
    second = Database(server.empty_database("second"), alias="second")
    reports = Database(f"sqlite:///{tmp_path / 'reports.db'}", alias="reports")
    async with first, second, reports:
        for database in (first, second, reports):
            await database.create_all(registry)
        # What nothing else is said of goes to the default one; a model to its own.
        ada = await Author.objects.create(name="ada")
        await Report.objects.create(title="sales")
        assert await Author.objects.using("second").count() == 0
        assert await Report.objects.using(reports).count() == 1
        assert Author.objects.all().database is first
        assert Report.objects.all().database is reports
        # By alias, or by the database itself; what a query gives goes back to where it came from.
        eve = await Author.objects.using(second).create(name="eve")
        found = await Author.objects.using("second").get()
        assert found.name == eve.name
        found.name = "zoe"
        await found.save()
        assert await Author.objects.using("second").values_list("name", flat=True) == ["zoe"]
        assert await Author.objects.values_list("name", flat=True) == ["ada"]
        # So do the objects of its relations, and what is written through them.
        await found.books.create(title="two")
        await ada.books.create(title="one")
        assert [book.title for book in await found.books.all()] == ["two"]
        assert await Book.objects.using("second").values_list("title", flat=True) == ["two"]
        (book,) = await Book.objects.using("second").select_related("author")
        assert book.author is not None
        assert book.author.name == "zoe"
        (book,) = await Book.objects.using("second").prefetch_related("author")
        assert book.author is not None
        assert book.author.name == "zoe"
        (book,) = await Book.objects.using("second")
        await book.fetch("author")
        assert book.author.name == "zoe"  # type: ignore[union-attr]
        # Saved elsewhere it is a row there as well.
        copy = Author(name="ada")
        await copy.save(using="second")
        assert await Author.objects.using("second").count() == 2
        # A transaction is of one database; what is written to another one meanwhile stays.
        with pytest.raises(RuntimeError):
            await fail_after_writing(first)
        assert await Author.objects.filter(name="gone").count() == 0
        assert await Author.objects.using("second").filter(name="stays").count() == 1
        made = await Author.objects.using("second").bulk_create([Author(name="bob"), Author(name="cyd")])
        assert await Author.objects.using("second").filter(pk__in=[one.pk for one in made]).delete() == 2
        with pytest.raises(NoDatabase, match="open are: default, reports, second"):
            await Author.objects.using("thrid")
