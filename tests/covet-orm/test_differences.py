"""What databases do differently: refused before anything is sent, or as the page `orm/differences.md` says it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from covet_orm import (
    ArrayField,
    CharField,
    Database,
    DataError,
    DecimalField,
    FloatField,
    ForeignKey,
    ForeignKeyViolation,
    GeneratedField,
    IntegerField,
    IPAddressField,
    JSONField,
    Model,
    NotSupported,
    QueryError,
    Registry,
    TextField,
    UUIDField,
)
from covet_orm.cache import DatabaseCache
from covet_orm.exceptions import DatabaseError, ProgrammingError
from covet_orm.expressions import Cast, Count, F, JSONArrayAgg, StringAgg, Value
from covet_orm.expressions.functions import Concat, JSONArray, Repeat, Round, Upper

pytestmark = pytest.mark.anyio

registry = Registry()
KEY = UUID("12345678-1234-5678-1234-56781234abcd")


class Team(Model):
    name = CharField(max_length=10, unique=True)

    class Meta:
        registry = registry


class Thing(Model):
    name = CharField(max_length=5, unique=True)
    number = IntegerField(default=0)
    score = FloatField(default=0.0)
    price = DecimalField(max_digits=8, decimal_places=2, default=Decimal(0))
    key = UUIDField(null=True)
    address = IPAddressField(null=True)
    data = JSONField(null=True)
    team = ForeignKey(Team, null=True, related_name="things")

    class Meta:
        registry = registry


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Three things, on each database in turn."""
    async with Database(url) as opened:
        await opened.create_all(registry)
        await Thing.objects.bulk_create([Thing(name=name, number=n) for n, name in enumerate("abc", 1)])
        yield opened


async def first(**expressions: Any) -> Any:
    """What an expression is for the first of them."""
    (row,) = await Thing.objects.filter(name="a").values_list(**expressions)
    return row if len(row) > 1 else row[0]


# Refused before anything is sent


async def test_json_is_not_looked_for_among_that_of_a_query(database: Database) -> None:
    query = Thing.objects.filter(data__in=Thing.objects.values("data"))
    await Thing.objects.filter(name="a").update(data={"a": 1})
    if database.kind == "postgresql":
        assert await query.values_list("name", flat=True) == ["a"]
        return
    with pytest.raises(QueryError, match="a list of values; PostgreSQL alone"):
        await query


async def test_casts_that_there_are_none(database: Database) -> None:
    array, document = Cast(Value("{1,2}"), ArrayField(IntegerField())), Cast(Value("[1]"), JSONField())
    if database.kind == "postgresql":
        assert await first(x=array) == [1, 2]
    else:
        with pytest.raises(NotSupported, match="array"):
            await first(x=array)
    if database.kind == "mariadb":
        with pytest.raises(NotSupported, match="from text to json"):
            await first(x=document)
    else:
        assert await first(x=document) == [1]


async def test_what_else_is_asked_while_rows_of_a_transaction_are_read(database: Database) -> None:
    team = await Team.objects.create(name="red")
    await Thing.objects.update(team=team)
    rows = Team.objects.prefetch_related("things")
    assert [len(await one.things.all()) async for one in rows.iterator()] == [3]
    async with database.transaction():
        if database.kind == "mariadb":
            with pytest.raises(NotSupported, match=r"prefetch_related\(\) inside of a transaction"):
                [one async for one in rows.iterator()]
            async with aclosing(Thing.objects.all().iterator(chunk_size=1)) as things:
                assert await anext(things)
                with pytest.raises(ProgrammingError, match="another statement is under way"):
                    await Thing.objects.count()
        else:
            assert [len(await one.things.all()) async for one in rows.iterator()] == [3]
            assert [await Thing.objects.count() async for _ in Thing.objects.all().iterator(chunk_size=1)] == [3] * 3
        assert await Thing.objects.count() == 3


async def test_which_key_tells_that_a_row_is_there(database: Database) -> None:
    rows = [Thing(name="a", number=9)]
    if database.kind == "mariadb":
        await Thing.objects.bulk_create(rows, update_conflicts=True, update_fields=["number"])
        assert await first(x=F("number")) == 9
        return
    with pytest.raises(QueryError, match=f"needs unique_fields on {database.kind}"):
        await Thing.objects.bulk_create(rows, update_conflicts=True, update_fields=["number"])


async def test_a_generated_column_that_is_not_stored(url: str) -> None:
    own = Registry()
    meta = type("Meta", (), {"registry": own})
    computed = GeneratedField(F("a") * 2, IntegerField(), stored=False)
    model: Any = type("Doubled", (Model,), {"__module__": __name__, "a": IntegerField(), "b": computed, "Meta": meta})
    async with Database(url) as database:
        if database.kind == "postgresql":
            version = int(await database.fetch_value("SHOW server_version_num"))
            if version < 180000:
                with pytest.raises(DatabaseError):
                    await database.create_all(own)
                assert await database.fetch_value("SELECT to_regclass('doubled')") is None
                return
        await database.create_all(own)
        made = await model.objects.create(a=2)
        assert (await model.objects.get(pk=made.pk)).b == 4


async def test_replicas_are_those_of_mariadb_where_a_url_says_mysql() -> None:
    database = Database("mysql://user:word@127.0.0.1:1/app", read_replicas=["mysql://user:word@127.0.0.1:2/app"])
    with pytest.raises(NotSupported, match="begins with mariadb://"):
        await database.open()


# The same everywhere, by what databases differ in


async def test_a_half_is_rounded_away_from_zero(database: Database) -> None:
    assert await first(a=Round(Value(2.5)), b=Round(Value(-2.5)), c=Round(Value(2.345), 2), d=Round(Value(1e17))) == (
        3.0, -3.0, 2.35, 1e17,
    )  # fmt: skip
    assert await first(a=Round(Value(15), -1), b=Round(Value(-15), -1), c=Round(Value(1234.5), -1)) == (20, -20, 1230.0)
    assert await first(a=Round(Value(Decimal("1250")), -2), b=Round(Value(Decimal("0.125")), 2)) == (
        Decimal(1300), Decimal("0.13"),
    )  # fmt: skip
    assert await first(a=Cast(Value(2.5), IntegerField()), b=Cast(Value(-2.5), IntegerField())) == (3, -3)
    await Thing.objects.filter(name="a").update(score=2.5, price=Decimal("4.50"))
    for value, expected in ((F("score"), 3), (F("price"), 5), (F("score") / 2, 1), (Value(7) / 2, 4)):
        await Thing.objects.filter(name="a").update(number=value)
        found = await first(x=F("number"))
        assert (found, type(found)) == (expected, int)


async def test_a_uuid_is_a_text_where_one_is_wanted(database: Database) -> None:
    await Thing.objects.filter(name="a").update(key=KEY)
    assert await Thing.objects.filter(key__startswith="12345678-1234").count() == 1
    assert await Thing.objects.filter(key__endswith="ABCD").count() == 0
    found = await first(
        text=Cast("key", TextField()), key_=Cast(Value(str(KEY)), UUIDField()), all_=Concat("key", Value("!")),
        listed=JSONArray("key"), same=Cast("key", UUIDField()),
    )  # fmt: skip
    assert found == (str(KEY), KEY, f"{KEY}!", [str(KEY)], KEY)
    assert await Thing.objects.annotate(made=Cast(Value(str(KEY)), UUIDField())).filter(key=F("made")).count() == 1
    one = Thing.objects.filter(name="a")
    assert await one.aggregate(a=JSONArrayAgg("key"), b=StringAgg("key")) == {"a": [str(KEY)], "b": str(KEY)}


async def test_a_loop_over_rows_asks_and_writes(database: Database) -> None:
    async for thing in Thing.objects.order_by("id").iterator(chunk_size=1):
        await Thing.objects.filter(pk=thing.pk).update(number=F("number") + 10)
    assert await Thing.objects.order_by("id").values_list("number", flat=True) == [11, 12, 13]
    # One that is left early, and not closed, has no part in what comes behind.
    loop = Thing.objects.order_by("id").iterator(chunk_size=1)
    thing = await anext(loop)
    await Thing.objects.filter(pk=thing.pk).update(number=0)
    async with database.transaction():
        await Thing.objects.filter(pk=thing.pk).update(number=F("number") + 5)
    assert await first(x=F("number")) == 5
    await loop.aclose()
    with pytest.raises(ZeroDivisionError):
        await fail(Thing.objects.all().iterator(chunk_size=1))
    assert await Thing.objects.create(name="new")
    assert await Thing.objects.count() == 4


async def fail(loop: Any) -> None:
    """Go on with an error after the first row."""
    async for _ in loop:
        raise ZeroDivisionError


async def test_nothing_among_many_is_that_there_is_none(database: Database) -> None:
    red, _ = await Team.objects.create(name="red"), await Team.objects.create(name="blue")
    await Thing.objects.filter(name="a").update(team=red)
    for query, expected in (
        (Team.objects.filter(things=None), ["blue"]),
        (Team.objects.filter(things__exact=None), ["blue"]),
        (Team.objects.filter(things__isnull=True), ["blue"]),
        (Team.objects.exclude(things=None), ["red"]),
        (Team.objects.filter(things__data=None), ["red"]),
        (Team.objects.filter(things__data__isnull=True), ["red"]),
        (Team.objects.filter(things=await Thing.objects.get(name="a")), ["red"]),
    ):
        assert await query.values_list("name", flat=True) == expected


# Different, and said to be


async def test_a_division_by_zero(database: Database) -> None:
    if database.kind == "postgresql":
        with pytest.raises(DataError, match="division by zero"):
            await first(x=F("number") / 0)
    else:
        assert await first(x=F("number") / 0, y=F("number") % 0) == (None, None)
    if database.kind == "sqlite":
        # It becomes NULL, which the column does not take.
        with pytest.raises(DatabaseError):
            await Thing.objects.update(number=F("number") / 0)
    else:
        with pytest.raises(DataError, match="division by zero"):
            await Thing.objects.update(number=F("number") / 0)


async def test_what_is_computed_and_fits_no_column(database: Database) -> None:
    for change in ({"number": F("number") * 2**40}, {"name": Repeat("name", 9)}):
        if database.kind == "sqlite":
            assert await Thing.objects.filter(name="a").update(**change) == 1
        else:
            with pytest.raises(DataError):
                await Thing.objects.filter(name="a").update(**change)
    (found,) = await Thing.objects.filter(name__startswith="a").values_list("number", "name")
    assert found == ((2**40, "a" * 9) if database.kind == "sqlite" else (1, "a"))


async def test_decimals_that_are_computed(database: Database) -> None:
    await Thing.objects.filter(name="a").update(price=Decimal("1.10"))
    assert await first(x=F("price") * 3) == Decimal("3.30")
    equal = Thing.objects.annotate(x=F("price") * 3).filter(x=Decimal("3.30"))
    assert await equal.count() == (0 if database.kind == "sqlite" else 1)
    assert await Thing.objects.annotate(x=Round(F("price") * 3, 2)).filter(x=Decimal("3.30")).count() == 1


async def test_a_text_that_is_no_number(database: Database) -> None:
    number = Cast(Value("12 apples"), IntegerField())
    if database.kind == "postgresql":
        with pytest.raises(DataError):
            await first(x=number)
    else:
        assert await first(x=number) == 12


async def test_the_order_of_addresses_and_of_nothing(database: Database) -> None:
    for name, address in (("a", "10.0.0.10"), ("b", "9.0.0.1")):
        await Thing.objects.filter(name=name).update(address=address)
    ordered = await Thing.objects.order_by("address").values_list("name", flat=True)
    assert ordered == (["b", "a", "c"] if database.kind == "postgresql" else ["c", "a", "b"])
    assert await Thing.objects.order_by(F("address").asc(nulls="last"), "name").values_list("name", flat=True) == (
        ["b", "a", "c"] if database.kind == "postgresql" else ["a", "b", "c"]
    )


async def test_numbers_that_are_keys_of_json(database: Database) -> None:
    await Thing.objects.filter(name="a").update(data={"1": 5})
    await Thing.objects.filter(name="b").update(data=[0, 5])
    found = await Thing.objects.filter(data__1=5).order_by("name").values_list("name", flat=True)
    assert found == (["a", "b"] if database.kind == "postgresql" else ["b"])
    last = Thing.objects.filter(**{"data__-1": 5}).values_list("name", flat=True)
    if database.kind == "mariadb":
        with pytest.raises(NotSupported, match="begins with a minus"):
            await last
    else:
        assert await last == (["b"] if database.kind == "postgresql" else [])
    # Decimals of PostgreSQL have no exponent.
    await Thing.objects.filter(name="c").update(data=1e23)
    (number,) = await Thing.objects.filter(name="c").values_list("data", flat=True)
    assert number == 1e23 or number == 10**23
    assert isinstance(number, int) == (database.kind == "postgresql")


async def test_letters_of_which_one_becomes_two(database: Database) -> None:
    assert await first(x=Upper(Value("aß"))) == ("ASS" if database.kind == "sqlite" else "Aß")


async def test_what_a_reader_sees_of_what_others_commit(database: Database) -> None:
    reading, written = asyncio.Event(), asyncio.Event()

    async def read() -> tuple[int, int]:
        async with database.transaction(read_only=True):
            before = await Thing.objects.count()
            reading.set()
            await written.wait()
            return before, await Thing.objects.count()

    async def write() -> None:
        await reading.wait()
        await Thing.objects.create(name="new")
        written.set()

    seen, _ = await asyncio.gather(read(), write())
    assert seen == (3, 4 if database.kind == "postgresql" else 3)


async def test_rows_that_refer_to_nothing_among_those_that_may_be_left_out(database: Database) -> None:
    rows = [Thing(name="a"), Thing(name="new", team_id=99)]
    if database.kind == "mariadb":
        await Thing.objects.bulk_create(rows, ignore_conflicts=True)
    else:
        with pytest.raises(ForeignKeyViolation):
            await Thing.objects.bulk_create(rows, ignore_conflicts=True)
    assert await Thing.objects.aggregate(n=Count("*")) == {"n": 3}


async def test_which_foreign_key_it_was(database: Database) -> None:
    with pytest.raises(ForeignKeyViolation) as caught:
        await Thing.objects.create(name="new", team_id=99)
    assert caught.value.fields == (() if database.kind == "sqlite" else ("team",))


async def test_a_cache_that_is_not_logged_is_one_like_others_elsewhere(database: Database) -> None:
    cache = DatabaseCache(database, unlogged=True)
    await cache.table.create()
    await cache.set("a", b"1", None)
    assert await cache.get("a") == b"1"
