"""`get_or_create`, `update_or_create`, versions, `refresh_from_db`, `full_clean` and managers of one's own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest

from covet.testing.conformance.faults import at_every_await
from covet_orm.databases import Database
from covet_orm.exceptions import (
    FieldError,
    ModelError,
    QueryError,
    StaleObject,
    UniqueViolation,
    ValidationError,
)
from covet_orm.expressions import F
from covet_orm.expressions.functions import Upper
from covet_orm.fields import BooleanField, CharField, ForeignKey, IntegerField, VersionField
from covet_orm.models import Manager, Model, Registry
from covet_orm.models.managers import default_queryset
from covet_orm.queries.querysets import QuerySet

pytestmark = pytest.mark.anyio

shop = Registry()


class Base(Model):
    class Meta:
        abstract = True
        registry = shop


class Item(Base):
    code = CharField(max_length=20, unique=True)
    name = CharField(max_length=20, unique=True, null=True)
    stock = IntegerField(default=0)


class Price(Base):
    item = ForeignKey(Item, related_name="prices")
    country = CharField(max_length=2)
    amount = IntegerField()

    class Meta:
        unique_together = ("item", "country")


class Document(Base):
    text = CharField(max_length=20)
    version = VersionField()

    def clean(self) -> None:
        if self.text == "empty":
            raise ValueError("write something")


class ArticleQuerySet(QuerySet["Article"]):
    """A queryset with a method of its own."""

    def published(self) -> ArticleQuerySet:
        return self.filter(published=True)


class LiveManager(Manager["Article"]):
    def get_queryset(self) -> QuerySet[Article]:
        return super().get_queryset().filter(gone=False)

    async def titles(self) -> list[str]:
        return await self.order_by("title").values_list("title", flat=True)


class Section(Base):
    name = CharField(max_length=20)


class Article(Base):
    title = CharField(max_length=20)
    section = ForeignKey(Section, null=True, related_name="articles")
    published = BooleanField(default=True)
    gone = BooleanField(default=False)
    objects = ArticleQuerySet.as_manager()  # type: ignore[assignment]
    live = LiveManager()

    class Meta:
        default_manager = "live"


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.create_all(shop)
    try:
        yield database
    finally:
        await database.close()


async def test_get_or_create(db: Database) -> None:
    item, created = await Item.objects.get_or_create({"stock": lambda: 3, "name": "n"}, code="a")
    assert created
    assert (item.stock, item.name) == (3, "n")
    again, created = await Item.objects.get_or_create({"stock": 9}, code="a")
    assert not created
    assert (again.pk, again.stock) == (item.pk, 3)
    price, created = await Price.objects.get_or_create({"amount": 5}, item=item, country="it")
    assert created
    assert price.item is item
    found, created = await Price.objects.get_or_create({"amount": 7}, item__code="a", country__iexact="IT")
    assert (found.pk, created) == (price.pk, False)
    with pytest.raises(FieldError, match="did you mean 'stock'"):
        await Item.objects.get_or_create({"stok": 3}, code="b")
    with pytest.raises(QueryError, match="looks for nothing"):
        await Item.objects.get_or_create({"code": "b"})
    with pytest.raises(ValidationError):
        await Item.objects.get_or_create({"stock": None}, code="b")
    # Another row has the name: it is not what was looked for, and nothing to be got.
    with pytest.raises(UniqueViolation) as refused:
        await Item.objects.get_or_create({"name": "n"}, code="b")
    assert refused.value.fields == ("name",)
    async with db.transaction():
        with pytest.raises(UniqueViolation):
            await Item.objects.get_or_create({"name": "n"}, code="b")
        # The transaction goes on.
        await Item.objects.get_or_create(code="b")
    assert await Item.objects.count() == 2


async def test_update_or_create(db: Database) -> None:
    item, created = await Item.objects.update_or_create({"stock": 1}, code="a")
    assert (item.stock, created) == (1, True)
    item, created = await Item.objects.update_or_create({"stock": lambda: 2}, code="a")
    assert (item.stock, created) == (2, False)
    item, created = await Item.objects.update_or_create({"stock": 3}, {"stock": 7, "name": "n"}, code="b")
    assert (item.stock, item.name, created) == (7, "n", True)
    item, created = await Item.objects.update_or_create({"stock": 3}, {"stock": 7}, code="b")
    assert (item.stock, created) == (3, False)
    assert await Item.objects.order_by("code").values_list("code", "stock") == [("a", 2), ("b", 3)]
    with pytest.raises(UniqueViolation):
        await Item.objects.update_or_create({"name": "n"}, code="a")
    with pytest.raises(UniqueViolation):
        await Item.objects.update_or_create({"name": "n"}, code="c")
    with pytest.raises(Item.MultipleObjectsReturned):
        await Item.objects.update_or_create({"stock": 3}, code__in=["a", "b"])
    async with db.transaction():
        _, created = await Item.objects.update_or_create({"stock": 9}, code="d")
        assert created
        _, created = await Item.objects.update_or_create({"stock": 8}, code="d")
        assert not created
    assert (await Item.objects.get(code="d")).stock == 8


async def test_fifty_who_get_or_create_get_one_row(db: Database) -> None:
    found = await asyncio.gather(*(Item.objects.get_or_create({"stock": n}, code="a") for n in range(50)))
    assert await Item.objects.count() == 1
    assert sum(created for _, created in found) == 1
    assert len({item.pk for item, _ in found}) == 1
    assert len({item.stock for item, _ in found}) == 1


async def test_fifty_who_get_or_create_in_transactions_get_one_row(db: Database) -> None:
    async def one(number: int) -> bool:
        async with db.transaction():
            # A transaction that has read before may see nothing but the past.
            assert await Item.objects.filter(code="none").count() == 0
            _, created = await Item.objects.get_or_create({"stock": number}, code="a")
            return created

    assert sum(await asyncio.gather(*(one(number) for number in range(50)))) == 1
    assert await Item.objects.count() == 1


async def test_fifty_who_update_or_create_make_one_row(db: Database) -> None:
    async def count() -> bool:
        _, created = await Item.objects.update_or_create({"stock": 5}, {"stock": 1}, code="a")
        return created

    found = await asyncio.gather(*(count() for _ in range(50)))
    assert sum(found) == 1
    assert await Item.objects.values_list("stock", flat=True) == [5]


async def test_a_row_is_locked_while_it_is_updated(db: Database) -> None:
    """What was read before is not written back: only what is to change is."""
    await Item.objects.create(code="a", stock=1)

    async def rename(number: int) -> None:
        await Item.objects.update_or_create({"name": f"n{number}"}, code="a")

    async def restock() -> None:
        await Item.objects.update_or_create({"stock": 7}, code="a")

    await asyncio.gather(*(rename(number) for number in range(10)), restock())
    item = await Item.objects.get()
    assert item.stock == 7
    assert item.name is not None


async def test_a_cancelled_update_or_create_is_done_or_not(db: Database) -> None:
    await Item.objects.create(code="a", stock=1)

    async def change() -> None:
        await Item.objects.update_or_create({"stock": 2}, code="a")

    async def check() -> None:
        assert (await Item.objects.get()).stock in (1, 2)
        await Item.objects.update(stock=1)

    assert await at_every_await(change, check) > 0


async def test_the_database_computes_what_is_saved(db: Database) -> None:
    """Two that count at once lose nothing, and both know what came of it."""
    item = await Item.objects.create(code="tea", stock=3)
    other = await Item.objects.get()
    item.stock = F("stock") + 1
    item.code = "coffee"
    assert sorted(item.changed_fields()) == ["code", "stock"]
    await item.save()
    assert (item.stock, item.code, item.changed_fields()) == (4, "coffee", [])
    other.stock = F("stock") * 2
    await other.save(update_fields=["stock"])
    assert other.stock == 8
    document = await Document.objects.create(text="one")
    stale = await Document.objects.get()
    document.text = Upper("text")
    await document.save()
    assert (document.text, document.version) == ("ONE", 2)
    stale.text = Upper("text")
    with pytest.raises(StaleObject):
        await stale.save()
    await item.delete()
    other.stock = F("stock") + 1
    with pytest.raises(Item.DoesNotExist):
        await other.save()


async def test_changes_that_cross_each_other_are_noticed(db: Database) -> None:
    document = await Document.objects.create(text="one")
    assert document.version == 1
    stale = await Document.objects.get()
    document.text = "two"
    await document.save()
    assert document.version == 2
    assert not document.changed_fields()
    await document.save()
    assert document.version == 2
    stale.text = "three"
    with pytest.raises(StaleObject, match="was changed by somebody else since it was read with version 1"):
        await stale.save()
    assert (stale.version, stale.changed_fields()) == (1, ["text"])
    with pytest.raises(StaleObject):
        await stale.save(update_fields=["text"])
    with pytest.raises(StaleObject, match="nothing was deleted"):
        await stale.delete()
    await stale.refresh_from_db()
    stale.text = "three"
    await stale.save()
    assert (await Document.objects.get()).version == 3
    await stale.delete()
    document.text = "x"
    with pytest.raises(Document.DoesNotExist):
        await document.save()


async def test_changes_of_many_rows_count_versions_as_well(db: Database) -> None:
    document = await Document.objects.create(text="one")
    stale = await Document.objects.get()
    assert await Document.objects.update(text="two") == 1
    document.text = "three"
    with pytest.raises(StaleObject):
        await document.save()
    await document.refresh_from_db()
    document.text = "four"
    await Document.objects.bulk_update([document], ["text"])
    assert (document.version, document.changed_fields()) == (3, [])
    assert (await Document.objects.get()).version == 3
    document.text = "five"
    await document.save()
    with pytest.raises(StaleObject):
        await stale.delete()
    with pytest.raises(FieldError, match="by itself"):
        await Document.objects.bulk_update([document], ["version"])


async def test_of_many_who_change_the_same_version_one_does(db: Database) -> None:
    await Document.objects.create(text="start")
    read = [await Document.objects.get() for _ in range(20)]

    async def change(document: Document, number: int) -> bool:
        document.text = str(number)
        try:
            await document.save()
        except StaleObject:
            return False
        return True

    done = await asyncio.gather(*(change(document, number) for number, document in enumerate(read)))
    assert sum(done) == 1
    assert (await Document.objects.get()).text == str(done.index(True))


async def test_refresh_from_db(db: Database) -> None:
    item = await Item.objects.create(code="a", name="n")
    price = await Price.objects.create(item=item, country="it", amount=1)
    await Price.objects.update(amount=2, country="fr")
    price.amount = 9
    await price.refresh_from_db("country")
    assert (price.country, price.amount) == ("fr", 9)
    assert price.changed_fields() == ["amount"]
    assert await price.refresh_from_db() is price
    assert price.amount == 2
    assert not price.changed_fields()
    await Price.objects.all().delete()
    with pytest.raises(Price.DoesNotExist):
        await price.refresh_from_db()


def test_full_clean_tells_all_at_once() -> None:
    with pytest.raises(ValidationError) as wrong:
        Document(text="x" * 21, version="many").full_clean()
    assert set(wrong.value.errors) == {"text", "version"}
    with pytest.raises(ValidationError) as wrong:
        Document(text="empty").full_clean()
    assert wrong.value.errors == {"": ["write something"]}
    document = Document(text="x")
    document.full_clean()
    with pytest.raises(ValidationError):
        Document().full_clean()


def test_a_version_field_is_a_number_for_every_row() -> None:
    with pytest.raises(ModelError, match="neither null nor primary_key"):
        VersionField(primary_key=True)
    with pytest.raises(ModelError, match="two version fields"):

        class Twice(Model):
            first = VersionField()
            second = VersionField()

            class Meta:
                registry = Registry()


async def test_managers_of_ones_own(db: Database) -> None:
    section = await Section.objects.create(name="news")
    await Article.objects.create(title="b", section=section)
    await Article.live.create(title="a", section=section)
    await Article.objects.create(title="draft", published=False, section=section)
    await Article.objects.create(title="gone", gone=True, section=section)
    assert isinstance(Article.objects, ArticleQuerySet)
    assert await Article.objects.count() == 4
    assert await Article.objects.published().order_by("title").filter(gone=False).published().count() == 2
    assert await Article.live.titles() == ["a", "b", "draft"]
    assert await Article.live.filter(published=True).count() == 2
    # Relations to many see what the default manager sees.
    assert await section.articles.count() == 3
    assert Article.live is Article.live
    assert repr(Article.live) == "<LiveManager of Article>"
    gone = await Article.objects.get(gone=True)
    await gone.refresh_from_db()
    gone.title = "still gone"
    await gone.save()
    with pytest.raises(AttributeError):
        gone.live


async def test_querysets_with_methods_of_their_own_stay_so_across_relations(db: Database) -> None:
    class Registered(Model):
        class Meta:
            abstract = True
            registry = Registry()

    class Shelf(Registered):
        name = CharField(max_length=10)

    class BookQuerySet(QuerySet["Book"]):
        def old(self) -> BookQuerySet:
            return self.filter(year__lt=1900)

    class Book(Registered):
        year = IntegerField()
        shelf = ForeignKey(Shelf, related_name="books")
        objects = BookQuerySet.as_manager()  # type: ignore[assignment]

    await db.create_all(Shelf._meta.registry)
    shelf = await Shelf.objects.create(name="x")
    for year in (1800, 1900):
        await Book.objects.create(year=year, shelf=shelf)
    assert await shelf.books.all().old().count() == 1
    await shelf.fetch("books")
    loaded = shelf.books.all()
    assert len(await loaded) == await loaded.count() == 2
    assert await loaded.old().count() == 1
    assert isinstance(loaded, BookQuerySet)


def test_a_default_manager_that_is_not_there_is_told_of() -> None:
    class Shelf(Model):
        class Meta:
            registry = Registry()
            default_manager = "live"

    with pytest.raises(ModelError, match="default_manager is 'live'"):
        default_queryset(Shelf)


def test_managers_have_every_method_of_querysets() -> None:
    public = {name for name in dir(QuerySet) if not name.startswith("_")}
    own = {"as_manager", "model", "options", "prepared", "shape"}
    assert public - own <= set(dir(Manager)), sorted(public - own - set(dir(Manager)))
    for name in sorted(public - own):
        there, here = getattr(QuerySet, name), getattr(Manager, name)
        if not inspect.isfunction(there):
            continue
        assert here.__doc__, name
        wanted, given = inspect.signature(there), inspect.signature(here)
        assert list(given.parameters.values()) == list(wanted.parameters.values()), name
        assert str(given.return_annotation) == str(wanted.return_annotation).replace("Self", "QuerySet[M]"), name
