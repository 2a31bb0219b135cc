"""What is checked before anything is written: each field, what a model's `clean` says, and calls for many objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from covet_orm.databases import Database
from covet_orm.exceptions import (
    FieldError,
    FieldNotLoaded,
    ModelError,
    NotNullViolation,
    QueryError,
    StaleObject,
    UniqueViolation,
    ValidationError,
)
from covet_orm.expressions import F, Value
from covet_orm.fields import DB_DEFAULT, CharField, GeneratedField, IntegerField, VersionField
from covet_orm.models import Model, Registry
from covet_orm.testing import assert_num_queries

pytestmark = pytest.mark.anyio

registry = Registry()


class CalledError(Exception):
    """A validator was called with what is no value of its field."""


def not_seven(value: Any) -> None:
    if not isinstance(value, int):
        raise CalledError
    if value == 7:
        raise ValueError("it is seven")


def not_odd(value: Any) -> None:
    if value % 2:
        raise ValueError("it is odd")


class Item(Model):
    name = CharField(max_length=10, unique=True)
    number = IntegerField(default=0, validators=[not_seven, not_odd])
    rank = IntegerField(db_default=4)
    twice: GeneratedField[int] = GeneratedField(F("number") + F("number"), IntegerField())

    class Meta:
        registry = registry
        db_table = "item"

    def clean(self) -> None:
        if self.name == "wrong":
            raise ValidationError({"name": ["it is called wrong"], "number": ["it is of a wrong one"]})
        if self.name == "bad":
            raise ValueError("it is bad")


class Counted(Model):
    name = CharField(max_length=10)
    version = VersionField()

    class Meta:
        registry = registry
        db_table = "counted"


class Base(Model):
    name = CharField(max_length=10, unique=True)

    class Meta:
        registry = registry
        db_table = "base"


class Child(Base):
    more = IntegerField(default=0)

    class Meta:
        registry = registry
        db_table = "child"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url) as database:
        await database.create_all(registry)
        yield database


# One object


async def test_everything_that_is_wrong_is_told_at_once(database: Database) -> None:
    """By each validator of each field, and what has no value."""
    with pytest.raises(ValidationError) as caught:
        await Item.objects.create(number=7)
    assert caught.value.errors == {
        "name": ["it has no value, and the field has no default"],
        "number": ["it is seven", "it is odd"],
    }
    with pytest.raises(ValidationError) as caught:
        await Item.objects.create(name=None, number=None)
    assert caught.value.errors == {"name": ["it may not be None"], "number": ["it may not be None"]}


async def test_a_validator_is_called_with_values_of_its_field(database: Database) -> None:
    """What is none of them, the field has refused before; what is given as text was made one."""
    for wrong in ("seven", object(), 2**31):
        with pytest.raises(ValidationError) as caught:
            await Item.objects.create(name="a", number=wrong)
        assert list(caught.value.errors) == ["number"]
        assert len(caught.value.errors["number"]) == 1
    item = Item(name="a", number="8")
    item.full_clean()
    assert item.number == 8


def test_full_clean_leaves_out_what_it_is_told_to() -> None:
    item = Item(number=7)
    with pytest.raises(ValidationError) as caught:
        item.full_clean()
    assert set(caught.value.errors) == {"name", "number"}
    item.name = "x"
    with pytest.raises(ValidationError) as caught:
        item.full_clean()
    assert caught.value.errors == {"number": ["it is seven", "it is odd"]}
    item.full_clean(exclude=["number"])
    item.number = "x"  # type: ignore[assignment]
    item.full_clean(exclude=["number"])
    assert item.number == "x"  # type: ignore[comparison-overlap]


def test_full_clean_tells_what_a_text_is_not() -> None:
    with pytest.raises(ValidationError) as caught:
        Item(name="x", number="many").full_clean()
    assert caught.value.errors == {"number": ["'many' is no whole number"]}


def test_full_clean_leaves_alone_what_the_database_fills_in() -> None:
    """Its keys, its defaults, what it generates, and what an expression will give."""
    Item(name="x").full_clean()
    Item(name="x", rank=DB_DEFAULT).full_clean()
    Item(id=None, name="x", number=F("rank") + 1).full_clean()


def test_what_clean_says_comes_beside_what_fields_say() -> None:
    with pytest.raises(ValidationError) as caught:
        Item(name="wrong", number=3).full_clean()
    assert caught.value.errors == {"name": ["it is called wrong"], "number": ["it is odd", "it is of a wrong one"]}
    with pytest.raises(ValidationError) as caught:
        Item(name="bad", number=3).full_clean()
    assert caught.value.errors == {"number": ["it is odd"], "": ["it is bad"]}


async def test_clean_may_not_look_at_what_was_not_loaded(database: Database) -> None:
    """Unless that was told already: of a new object, its missing value is."""
    await Item.objects.create(name="a")
    with pytest.raises(FieldNotLoaded):
        (await Item.objects.defer("name").get()).full_clean(exclude=["name"])
    with pytest.raises(ValidationError) as caught:
        Item().full_clean()
    assert list(caught.value.errors) == ["name"]


async def test_defaults_of_the_database_and_expressions_are_no_values_yet(database: Database) -> None:
    item = await Item.objects.create(name="a", rank=DB_DEFAULT)
    assert (await Item.objects.get(pk=item.pk)).rank == 4
    item.number = F("rank") * 2
    await item.save()
    assert (await Item.objects.get(pk=item.pk)).number == 8


async def test_none_in_the_place_of_a_default_of_the_database_is_refused_by_it(database: Database) -> None:
    for call in (
        lambda: Item.objects.create(name="a", rank=None),
        lambda: Item.objects.bulk_create([Item(name="a", rank=None)]),
    ):
        with pytest.raises(NotNullViolation) as caught:
            await call()
        assert list(caught.value.fields) == ["rank"]


# Many objects


async def test_many_are_checked_before_any_is_sent(database: Database) -> None:
    good = [Item(name=f"n{number}") for number in range(5)]
    with pytest.raises(ValidationError, match="object 3") as caught:
        await Item.objects.bulk_create([*good[:3], Item(name="x" * 11, number=7)])
    assert list(caught.value.errors) == ["name", "number"]
    with pytest.raises(ValidationError, match="object 1") as caught:
        await Item.objects.bulk_create([good[0], Item()])
    assert list(caught.value.errors) == ["name"]
    with pytest.raises(ValidationError, match="object 1") as caught:
        await Item.objects.bulk_create([good[0], Item(name=None)])
    assert caught.value.errors == {"name": ["it may not be None"]}
    with pytest.raises(QueryError, match=r"object 2, .* has an expression"):
        await Item.objects.bulk_create([*good[:2], Item(name="x", number=Value(1))])
    with pytest.raises(ValidationError):
        await Item.objects.bulk_create([*good, Item(name="y", number=1)], batch_size=2)
    assert await Item.objects.count() == 0
    assert await Item.objects.bulk_create(good, batch_size=2) == good
    assert await Item.objects.count() == 5


async def test_a_row_that_is_there_leaves_none_of_many(database: Database) -> None:
    await Item.objects.create(name="b")
    with pytest.raises(UniqueViolation) as caught:
        await Item.objects.bulk_create([Item(name="a"), Item(name="b")], batch_size=1)
    assert list(caught.value.fields) == ["name"]
    assert await Item.objects.count() == 1


async def test_calls_for_many_that_cannot_be(database: Database) -> None:
    item = await Item.objects.create(name="a")
    counted = await Counted.objects.create(name="a")
    new = Item(name="b")
    with assert_num_queries(0, database):
        with pytest.raises(QueryError, match="batch_size=0"):
            await Item.objects.bulk_create([new], batch_size=0)
        with pytest.raises(QueryError, match="exclude each other"):
            await Item.objects.bulk_create([new], ignore_conflicts=True, update_conflicts=True, update_fields=["rank"])
        with pytest.raises(ModelError, match="bulk_create of Item was given"):
            await Item.objects.bulk_create([new, counted])  # type: ignore[list-item]
        with pytest.raises(ModelError, match="bulk_create of Base was given"):
            await Base.objects.bulk_create([Child(name="x")])
        with pytest.raises(QueryError, match="pass over conflicts"):
            await Child.objects.bulk_create([Child(name="x")], ignore_conflicts=True)
        with pytest.raises(QueryError, match="needs update_fields"):
            await Item.objects.bulk_create([new], update_conflicts=True, unique_fields=["name"])
        with pytest.raises(FieldError, match="did you mean 'rank'"):
            await Item.objects.bulk_create([new], update_conflicts=True, update_fields=["rnak"], unique_fields=["name"])
        if database.kind != "mariadb":
            with pytest.raises(QueryError, match="needs unique_fields"):
                await Item.objects.bulk_create([new], update_conflicts=True, update_fields=["rank"])
        assert await Item.objects.bulk_create([]) == []
        assert await Item.objects.bulk_update([], ["rank"]) == 0
        with pytest.raises(QueryError, match="names of the fields"):
            await Item.objects.bulk_update([item], [])
        with pytest.raises(FieldError, match="by which it finds the rows"):
            await Item.objects.bulk_update([item], ["id"])
        with pytest.raises(FieldError, match="counts"):
            await Counted.objects.bulk_update([counted], ["version"])
        with pytest.raises(QueryError, match="not saved yet"):
            await Item.objects.bulk_update([item, new], ["rank"])
        item.number = 7
        with pytest.raises(ValidationError, match="object 0") as caught:
            await Item.objects.bulk_update([item], ["number"])
        assert caught.value.errors == {"number": ["it is seven", "it is odd"]}


async def test_no_objects_need_no_connection(url: str) -> None:
    async with Database(url, max_size=1, acquire_timeout=0.05) as database:
        pool = await database.pool_for(reads=False)
        held = await pool.acquire()
        try:
            assert await Item.objects.bulk_create([]) == []
            assert await Item.objects.bulk_update([], ["rank"]) == 0
        finally:
            pool.release(held)


async def test_many_that_count_their_versions(database: Database) -> None:
    """Somebody who has an older one hears of it."""
    made = [await Counted.objects.create(name="a"), await Counted.objects.create(name="b")]
    older = await Counted.objects.get(pk=made[0].pk)
    for one in made:
        one.name += "!"
    assert await Counted.objects.bulk_update(made, ["name"]) == 2
    assert {one.version for one in made} == {older.version + 1}
    made[0].name = "c"
    await made[0].save()
    older.name = "d"
    with pytest.raises(StaleObject):
        await older.save()


async def test_rows_of_several_tables_are_made_one_by_one(database: Database) -> None:
    """All or none of them."""
    with pytest.raises(UniqueViolation):
        await Child.objects.bulk_create([Child(name="a", more=1), Child(name="a", more=2)])
    assert await Base.objects.count() == 0
    await Child.objects.bulk_create([Child(name="a", more=1), Child(name="b", more=2)])
    found = await Child.objects.order_by("name").values_list("name", "more")
    assert [tuple(row) for row in found] == [("a", 1), ("b", 2)]


async def test_which_row_is_updated_in_place_of_an_insert(database: Database) -> None:
    await Item.objects.create(name="a", rank=1)
    await Item.objects.bulk_create(
        [Item(name="a", rank=9, number=2), Item(name="b", rank=8)],
        update_conflicts=True,
        update_fields=["rank"],
        unique_fields=["name"],
    )
    rows = await Item.objects.order_by("name").values_list("name", "rank", "number")
    assert [tuple(row) for row in rows] == [("a", 9, 0), ("b", 8, 0)]
    await Item.objects.bulk_create([Item(name="a", rank=7), Item(name="c")], ignore_conflicts=True)
    rows = await Item.objects.order_by("name").values_list("name", "rank")
    assert [tuple(row) for row in rows] == [("a", 9), ("b", 8), ("c", 4)]
