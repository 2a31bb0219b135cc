"""Wrong values and names: the same typed error on every database, and where it can be known, nothing is sent."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import covet_orm.plugin
from covet.testing import plugin_sandbox
from covet_orm.ambient import NoDatabase
from covet_orm.databases import Database
from covet_orm.exceptions import (
    DatabaseError,
    FieldError,
    InvalidIdentifier,
    ModelError,
    OrmError,
    ProgrammingError,
    QueryError,
    UniqueViolation,
    ValidationError,
)
from covet_orm.expressions import Count, F, Max, Value
from covet_orm.expressions.functions import Concat
from covet_orm.fields import (
    ArrayField,
    BigIntegerField,
    BinaryField,
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
    PositiveIntegerField,
    SlugField,
    SmallIntegerField,
    TextField,
    TimeField,
    UUIDField,
)
from covet_orm.indexes import Index
from covet_orm.models import Model, Registry
from covet_orm.testing import assert_num_queries, captured_queries

pytestmark = pytest.mark.anyio

registry = Registry()
UTC = dt.UTC
NAN, INF = float("nan"), float("inf")


class Thing(Model):
    char = CharField(max_length=20, default="x")
    text = TextField(default="x")
    slug = SlugField(default="x")
    small = SmallIntegerField(default=0)
    number = IntegerField(default=0)
    big = BigIntegerField(default=0)
    positive = PositiveIntegerField(default=0)
    real = FloatField(default=0.0)
    amount = DecimalField(max_digits=8, decimal_places=2, default=Decimal(0))
    data: JSONField[Any] = JSONField(default=dict)
    at = DateTimeField(default=dt.datetime(2020, 1, 1, tzinfo=UTC))
    day = DateField(default=dt.date(2020, 1, 1))
    time = TimeField(default=dt.time(1))
    span = DurationField(default=dt.timedelta(0))
    raw = BinaryField(default=b"")
    key = UUIDField(default=uuid.UUID(int=0))
    ok = BooleanField(default=True)

    class Meta:
        registry = registry
        db_table = "thing"


class Part(Model):
    of = ForeignKey(Thing, related_name="parts")
    name = CharField(max_length=63, unique=True)

    class Meta:
        registry = registry
        db_table = "part"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url) as database:
        await database.create_all(registry)
        yield database


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def zone(hours: int) -> dt.timezone:
    return dt.timezone(dt.timedelta(hours=hours))


WRONG: dict[str, list[Any]] = {
    "char": ["a\0b", "\0", "\ud800", "a\udfff", "\U0001f600" * 21, b"bytes"],
    "text": ["a\0b", "\ud800", "\udfff\ud800"],
    "slug": ["a b", "a\0", "\ud800"],
    "small": [2**15, -(2**15) - 1, 10**30],
    "number": [2**31, -(2**31) - 1, 1.5, NAN, INF, True, "12x", "", "1e3", "1\0", "9" * 5000],
    "big": [2**63, -(2**63) - 1, 10**400],
    "positive": [-1, 2**31],
    "real": [NAN, INF, -INF, 10**400, "x", "1\0", "nan"],
    "amount": [
        Decimal("1e6"), Decimal("0.001"), Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), NAN, "1e999999999",
        "1\0", "x", True,
    ],
    "data": [
        NAN, INF, {"a": [-INF]}, "a\0b", {"a\0": 1}, ["\ud800"], {"\ud800": 1}, {1: 2}, {None: 1},
        {"a": len}, [object()], nested(5000), {("a",): 1},
    ],
    "at": [
        dt.datetime(2020, 1, 1), dt.datetime.max.replace(tzinfo=UTC), dt.datetime.min.replace(tzinfo=UTC),
        dt.datetime(9999, 12, 31, 23, tzinfo=zone(-5)), dt.datetime(1, 1, 1, tzinfo=zone(5)), "10000-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "2020-02-30T00:00:00Z", "2020-01-01T00:00:00",
        "2020-01-01T25:00:00Z", dt.date(2020, 1, 1), 5, "now",
    ],
    "day": ["10000-01-01", "0000-00-00", "2020-02-30", dt.datetime(2020, 1, 1, tzinfo=UTC), 5, "today"],
    "time": [dt.time(1, tzinfo=UTC), "25:00", "24:00:00", "1:60", 5],
    "span": [dt.timedelta.max, dt.timedelta.min, "x"],
    "raw": ["text", 5],
    "key": ["zz", "0" * 31, 5.5],
    "ok": ["maybe", 2, -1, NAN],
}  # fmt: skip

# What a lookup looks for may be longer, or of more places, than what the column holds: nothing equals it.
FOUND_BY_NOTHING = {("char", "\U0001f600" * 21), ("slug", "a b")}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_value_is_refused_before_it_is_sent(database: Database, name: str) -> None:
    """Whichever way it comes: by one object, by many, by an update, by a condition."""
    there = await Thing.objects.create()
    for value in WRONG[name]:
        shown = ascii(value)[:60] if value is not WRONG["data"][-2] else "nested"
        with assert_num_queries(0, database):
            for wrong in (
                await error_of(ValidationError, Thing.objects.create(**{name: value}), shown),
                await error_of(ValidationError, Thing(**{name: value}).save(), shown),
            ):
                assert list(wrong.errors) == [name], shown
            objects = [Thing(), Thing(**{name: value})]
            wrong = await error_of(ValidationError, Thing.objects.bulk_create(objects), shown)
            assert list(wrong.errors) == [name]
            assert "object 1" in str(wrong)
            told = await error_of(QueryError, Thing.objects.update(**{name: value}), shown)
            assert f"Thing.{name}" in str(told)
            setattr(there, name, value)
            wrong = await error_of(ValidationError, there.save(), shown)
            assert list(wrong.errors) == [name]
            wrong = await error_of(ValidationError, Thing.objects.bulk_update([there], [name]), shown)
            assert list(wrong.errors) == [name]
            for lookups in ({name: value}, {f"{name}__in": [value]}):
                if (name, value if isinstance(value, str) else None) not in FOUND_BY_NOTHING:
                    told = await error_of(QueryError, Thing.objects.filter(**lookups).count(), shown)
                    assert name in str(told) or name == "data"
    assert await Thing.objects.count() == 1


async def error_of(kind: type[Any], running: Awaitable[Any], shown: str) -> Any:
    """The error that something raises; it is of exactly this class."""
    __tracebackhide__ = True
    try:
        await running
    except kind as error:
        found = error
    else:
        pytest.fail(f"{shown} was taken")
    assert type(found) is kind, shown
    return found


@pytest.mark.parametrize("name", WRONG)
def test_full_clean_refuses_the_same(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(ValidationError) as caught:
            Thing(**{name: value}).full_clean()
        assert list(caught.value.errors) == [name]


RIGHT: dict[str, list[Any]] = {
    "char": ["\U0001f600" * 20, "", " ", "a\u0301\u00e4", "\x01\x7f\x80", "\uffff\U0010ffff", "'\"\\%_`;--"],
    "text": ["\U0001f600" * 1000, "\r\n\t", "\u202e\u200b\ufeff", "\x1a"],
    "small": [2**15 - 1, -(2**15)],
    "number": [2**31 - 1, -(2**31)],
    "big": [2**63 - 1, -(2**63)],
    "positive": [0, 2**31 - 1],
    "real": [1.7976931348623157e308, 5e-324, -0.0, 0.1 + 0.2],
    "amount": [Decimal("999999.99"), Decimal("-999999.99"), Decimal("0.01")],
    "data": [
        {"\U0001f600": ["\uffff", None, True, 1.5, 2**53]}, "", [], nested(20), {"": {"": ""}}, {"a.b[0]": "$"},
        {"__class__": 1}, "\x01",
    ],
    "at": [
        dt.datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC), dt.datetime(1, 1, 2, tzinfo=UTC),
        dt.datetime(2020, 1, 1, tzinfo=zone(14)), dt.datetime(2020, 1, 1, 0, 0, 0, 1, tzinfo=zone(-12)),
        dt.datetime(2024, 2, 29, tzinfo=UTC), dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    "day": [dt.date.max, dt.date.min, dt.date(2024, 2, 29)],
    "time": [dt.time.max, dt.time.min],
    "span": [dt.timedelta(days=-1, microseconds=1), dt.timedelta(days=100_000, seconds=1)],
    "raw": [bytes(range(256)), b"", b"\0"],
    "key": [uuid.UUID(int=2**128 - 1)],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
async def test_the_last_right_value_comes_back_and_is_found(database: Database, name: str) -> None:
    for value in RIGHT[name]:
        made = await Thing.objects.create(**{name: value})
        many = Thing(**{name: value})
        await Thing.objects.bulk_create([many])
        for one in (made, many):
            again = await Thing.objects.get(pk=one.pk)
            assert getattr(again, name) == value
            assert isinstance(getattr(again, name), type(value))
        keys = await Thing.objects.filter(**{name: value}).values_list("pk", flat=True)
        assert {made.pk, many.pk} <= set(keys), value


QUERIES: dict[str, Callable[[], Any]] = {
    "contains": lambda: Thing.objects.filter(text__contains="a\0"),
    "istartswith": lambda: Thing.objects.filter(text__istartswith="\ud800"),
    "iexact": lambda: Thing.objects.filter(text__iexact="\0"),
    "regex": lambda: Thing.objects.filter(text__regex="a\0"),
    "iregex": lambda: Thing.objects.filter(text__iregex="\ud800"),
    "exclude": lambda: Thing.objects.exclude(text="\ud800"),
    "has_key": lambda: Thing.objects.filter(data__has_key="a\0"),
    "has_keys": lambda: Thing.objects.filter(data__has_keys=["a", "\ud800"]),
    "contains of JSON": lambda: Thing.objects.filter(data__contains={"a": NAN}),
    "path": lambda: Thing.objects.filter(**{"data__a\0": 1}),
    "surrogate in a path": lambda: Thing.objects.filter(**{"data__\ud800": 1}),
    "NaN at a path": lambda: Thing.objects.filter(data__a=NAN),
    "text at a path": lambda: Thing.objects.filter(data__a__icontains="a\0"),
    "key": lambda: Thing.objects.filter(pk=2**70),
    "keys": lambda: Thing.objects.filter(pk__in=[1, 2**70]),
    "range": lambda: Thing.objects.filter(number__range=(0, 2**31)),
    "related key": lambda: Part.objects.filter(of=2**70),
    "related text": lambda: Part.objects.filter(of="x"),
    "field of a related object": lambda: Part.objects.filter(of__number=2**40),
    "one to many": lambda: Thing.objects.filter(parts__name="\0"),
    "offset": lambda: Thing.objects.all()[2**70 :],
    "limit": lambda: Thing.objects.all()[: 2**70],
    "value": lambda: Thing.objects.annotate(x=Value("a\0")),
    "surrogate as a value": lambda: Thing.objects.annotate(x=Value("\ud800")),
    "NaN as a value": lambda: Thing.objects.annotate(x=Value(NAN)),
    "large value": lambda: Thing.objects.annotate(x=Value(2**70)),
    "arithmetic": lambda: Thing.objects.filter(number__gt=F("number") + 2**70),
    "argument of a function": lambda: Thing.objects.filter(text=Concat(F("text"), Value("\0"))),
    "year 10000": lambda: Thing.objects.filter(at__year=10_000),
    "year 0": lambda: Thing.objects.filter(day__year=0),
    "year before 0": lambda: Thing.objects.filter(at__year__gt=-5),
    "year of text": lambda: Thing.objects.filter(at__year="x"),
    "large year": lambda: Thing.objects.filter(at__year=2**70),
    "naive": lambda: Thing.objects.filter(at__gt=dt.datetime(2020, 1, 1)),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_a_query_with_a_wrong_value_is_not_sent(database: Database, name: str) -> None:
    with assert_num_queries(0, database), pytest.raises(QueryError) as caught:
        await QUERIES[name]()
    assert not isinstance(caught.value, FieldError)


CALLS: dict[str, Callable[[], Awaitable[Any]]] = {
    "get": lambda: Thing.objects.get(number=2**31),
    "in_bulk": lambda: Thing.objects.in_bulk([2**70]),
    "in_bulk of text": lambda: Thing.objects.in_bulk(["x"]),
    "get_or_create": lambda: Thing.objects.get_or_create(text="a\0"),
    "update_or_create": lambda: Thing.objects.update_or_create(text="\ud800", defaults={"number": 1}),
    "exists": lambda: Thing.objects.filter(text="\0").exists(),
    "delete": lambda: Thing.objects.filter(text="\0").delete(),
    "aggregate": lambda: Thing.objects.filter(text="\0").aggregate(x=Max("number")),
    "an expression in update": lambda: Thing.objects.update(text=Concat(F("text"), Value("\0"))),
    "explain": lambda: Thing.objects.filter(text="\0").explain(),
    "chunk of nothing": lambda: drained(Thing.objects.all().iterator(chunk_size=0)),
    "chunk of less": lambda: drained(Thing.objects.all().iterator(chunk_size=-1)),
    "chunk of too much": lambda: drained(Thing.objects.all().iterator(chunk_size=2**31)),
    "chunk of far too much": lambda: drained(Thing.objects.all().iterator(chunk_size=10**30)),
    "iterator": lambda: drained(Thing.objects.filter(text="\0").iterator()),
    "batch of nothing": lambda: Thing.objects.bulk_create([Thing()], batch_size=0),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_with_a_wrong_value_sends_nothing(database: Database, name: str) -> None:
    with assert_num_queries(0, database), pytest.raises(QueryError):
        await CALLS[name]()


async def drained(rows: AsyncIterator[Any]) -> list[Any]:
    return [row async for row in rows]


async def test_the_largest_chunk_is_one(database: Database) -> None:
    await Thing.objects.create()
    assert len(await drained(Thing.objects.all().iterator(chunk_size=2**31 - 1))) == 1


UNKNOWN: dict[str, tuple[Callable[[], Awaitable[Any]], str]] = {
    "filter": (lambda: Thing.objects.filter(txet="x").count(), "'text'"),
    "exclude": (lambda: Thing.objects.exclude(txet="x").count(), "'text'"),
    "lookup": (lambda: Thing.objects.filter(text__contians="x").count(), "'contains'"),
    "related": (lambda: Part.objects.filter(of__txet="x").count(), "'text'"),
    "reverse": (lambda: Thing.objects.filter(part__name="x").count(), "'parts'"),
    "order_by": (lambda: Thing.objects.order_by("-txet").first(), "'text'"),
    "values": (lambda: rows_of(Thing.objects.values("txet")), "'text'"),
    "values_list": (lambda: rows_of(Thing.objects.values_list("txet")), "'text'"),
    "only": (lambda: rows_of(Thing.objects.only("txet")), "'text'"),
    "defer": (lambda: rows_of(Thing.objects.defer("txet")), "'text'"),
    "select_related": (lambda: rows_of(Part.objects.select_related("off")), "'of'"),
    "prefetch_related": (lambda: rows_of(Thing.objects.prefetch_related("part")), "'parts'"),
    "annotate": (lambda: rows_of(Thing.objects.annotate(x=F("txet"))), "'text'"),
    "aggregate": (lambda: Thing.objects.aggregate(x=Count("part")), "'parts'"),
    "update": (lambda: Thing.objects.update(txet="x"), "'text'"),
    "update to": (lambda: Thing.objects.update(text=F("txet")), "'text'"),
    "create": (lambda: Thing.objects.create(txet="x"), "'text'"),
    "get_or_create": (lambda: Thing.objects.get_or_create(txet="x"), "'text'"),
    "defaults": (lambda: Thing.objects.update_or_create(text="x", defaults={"nmuber": 1}), "'number'"),
    "bulk_update": (lambda: Thing.objects.bulk_update([], ["txet"]), "'text'"),
    "in_bulk": (lambda: Thing.objects.in_bulk([1], field_name="txet"), "'text'"),
    "latest": (lambda: Thing.objects.latest("txet"), "'text'"),
}


async def rows_of(query: Any) -> Any:
    return await query


@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unknown_name_is_told_with_the_nearest(database: Database, name: str) -> None:
    call, nearest = UNKNOWN[name]
    with assert_num_queries(0, database), pytest.raises(FieldError, match=f"did you mean {nearest}"):
        await call()


async def test_an_unknown_name_in_update_fields_is_told_with_the_nearest(database: Database) -> None:
    thing = await Thing.objects.create()
    with assert_num_queries(0, database), pytest.raises(FieldError, match="did you mean 'text'"):
        await thing.save(update_fields=["txet"])


LONG = "a" * 63


async def test_names_as_long_as_every_server_takes_them(url: str) -> None:
    """63 bytes: what PostgreSQL would cut silently is refused, and what fits is whole in errors and results."""
    own = Registry()
    meta = type("Meta", (), {"registry": own, "db_table": "t" * 63, "indexes": [Index("number", "text")]})
    fields = {
        "text": CharField(max_length=20, unique=True, db_column="c" * 63),
        "number": IntegerField(default=0, db_column="\u00e4" * 31 + "n"),
    }
    model: Any = type(Model)("Long", (Model,), {"__module__": __name__, "Meta": meta, **fields})
    async with Database(url) as database:
        assert await database.create_all(own) == ["t" * 63]
        await model.objects.create(text="x")
        with pytest.raises(UniqueViolation) as caught:
            await model.objects.create(text="x")
        assert list(caught.value.fields) == ["text"]
        found = await model.objects.annotate(**{LONG: F("number") + 1}).order_by(LONG).values(LONG, "text")
        assert found == [{LONG: 1, "text": "x"}]
        assert await model.objects.aggregate(**{LONG: Count("pk")}) == {LONG: 1}
        # Of two that begin alike, a server that cuts would make one.
        for names in ([LONG + "b", LONG + "c"], ["\u00e4" * 32], ["\U0001f600" * 16]):
            with captured_queries(database) as queries:
                with pytest.raises((InvalidIdentifier, FieldError)):
                    await model.objects.annotate(**dict.fromkeys(names, F("number"))).values(*names)
                with pytest.raises((InvalidIdentifier, FieldError)):
                    await model.objects.aggregate(**dict.fromkeys(names, Max("number")))
            assert queries == []
        assert await database.drop_all(own) == ["t" * 63]


@pytest.mark.parametrize("name", ["a\0", "\ud800", 'a"b`c', "a b", "", "1a", "a;--", "a\n", "a.b", "a%s", "*"])
async def test_a_name_of_an_annotation_is_a_name(database: Database, name: str) -> None:
    with assert_num_queries(0, database):
        with pytest.raises(QueryError):
            await Thing.objects.annotate(**{name: F("number")})
        with pytest.raises(QueryError):
            await Thing.objects.values(**{name: F("number")})
        with pytest.raises(QueryError):
            await Thing.objects.aggregate(**{name: Max("number")})


async def test_sql_of_ones_own_with_a_nul_is_refused_and_the_connection_stays(database: Database) -> None:
    """One server would read no further than that, another one would hang up."""
    for call in (
        lambda: database.fetch_all("SELECT 1\0"),
        lambda: database.query("SELECT '\0'"),
        lambda: database.execute("DELETE FROM thing\0 WHERE 1 = 0"),
        lambda: database.execute_many("DELETE FROM thing\0 WHERE 1 = 0", [()]),
        lambda: database.script("SELECT 1;\0 DROP TABLE thing"),
        lambda: rows_of(Thing.objects.raw("SELECT * FROM thing\0 WHERE 1 = 0")),
    ):
        with assert_num_queries(0, database), pytest.raises(ProgrammingError, match="NUL"):
            await call()
    async with database.transaction():
        await Thing.objects.create()
        with pytest.raises(ProgrammingError, match="NUL"):
            await database.fetch_all("SELECT 1\0")
        assert await Thing.objects.count() == 1
    assert await Thing.objects.count() == 1


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=10)
    | st.text(st.characters(categories=["Cs", "Cc"]), max_size=3)
    | st.binary(max_size=5)
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
    | st.timedeltas()
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(WRONG)), value=ANYTHING)
async def test_any_value_is_kept_or_refused(database: Database, name: str, value: Any) -> None:
    """No value of any type is an error of another kind, or one of the server."""
    refused: list[OrmError] = []
    try:
        made = await Thing.objects.create(**{name: value})
        again = await Thing.objects.get(pk=made.pk)
    except ValidationError as error:
        refused.append(error)
    else:
        assert (getattr(again, name) is None) == (value is None)
    for lookup in (name, f"{name}__in", f"{name}__gt", f"{name}__contains", f"{name}__isnull", f"{name}__range"):
        try:
            await Thing.objects.filter(**{lookup: value}).count()
        except OrmError as error:
            refused.append(error)
    assert not any(isinstance(error, DatabaseError) for error in refused)


# Calls and declarations that cannot be


async def test_an_update_that_cannot_be_sends_nothing(database: Database) -> None:
    things, parts = Thing.objects.all(), Part.objects.all()
    with assert_num_queries(0, database):
        with pytest.raises(QueryError, match="nothing to write"):
            await things.update()
        with pytest.raises(FieldError, match="twice"):
            await things.update(pk=1, id=2)
        with pytest.raises(QueryError, match=r"Thing\.number: .*None"):
            await things.update(number=None)
        with pytest.raises(QueryError, match=r"Thing\.char: .*20"):
            await things.update(char="x" * 21)
        with pytest.raises(QueryError, match="for objects"):
            await things.values("text").update(number=1)
        with pytest.raises(QueryError, match="for objects"):
            await things.values_list("text").delete()
        with pytest.raises(QueryError, match="columns of its own row"):
            await parts.update(name=F("of__text"))
        with pytest.raises(ModelError, match="may not be None"):
            Part(of=None)  # type: ignore[arg-type]


def element(*arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: ArrayField(*arguments, **options)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (element("x"), "its elements are those of a field"),
        (element(ForeignKey(Thing)), "its elements are those of a field"),
        (element(IntegerField(unique=True)), "neither keys nor unique"),
        (element(IntegerField(db_index=True)), "neither keys nor unique"),
        (element(IntegerField(primary_key=True)), "neither keys nor unique"),
    ],
)
def test_an_array_of_what_is_no_element_is_refused(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        make()


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        (Annotated[int, IntegerField(), IntegerField()], "annotated with 2 fields"),
        (Annotated[int, IntegerField(null=True)], r"annotate it as int \| None"),
        (Annotated[int | None, IntegerField(primary_key=True)], r"leave `\| None` out"),
    ],
)
def test_an_annotation_that_contradicts_its_field_is_refused(annotation: Any, told: str) -> None:
    meta = type("Meta", (), {"registry": Registry()})
    with pytest.raises(ModelError, match=rf"Odd\.value .*{told}"):
        type(Model)("Odd", (Model,), {"__module__": __name__, "Meta": meta, "__annotations__": {"value": annotation}})


def test_a_model_that_is_not_there_or_there_twice_is_told() -> None:
    own = Registry()

    def declare(name: str, label: str, **fields: Any) -> Any:
        meta = type("Meta", (), {"registry": own, "app_label": label, "db_table": f"{label}_{name}".lower()})
        return type(Model)(name, (Model,), {"__module__": f"{__name__}.{label}", "Meta": meta, **fields})

    declare("Author", "books")
    declare("Review", "press", author=ForeignKey("Auhtor", related_name="reviews"))
    assert own.missing() == {"Auhtor": ["press.Review"]}
    with pytest.raises(ModelError, match="did you mean 'Author'"):
        own.get("Auhtor")
    with pytest.raises(ModelError, match="Auhtor"):
        own.tables()
    declare("Author", "films")
    with pytest.raises(ModelError, match=r"several models are called 'Author': books\.Author, films\.Author"):
        own.get("Author")
    # Beside another one, that of its own application is meant.
    assert own.get("Author", declare("Film", "films")).__module__.endswith("films")


async def test_which_database_is_meant_is_told_where_it_is_not_clear(tmp_path: Path) -> None:
    with pytest.raises(NoDatabase, match=r"no database to ask \(open are: none\)"):
        await Thing.objects.count()
    async with Database("sqlite://", alias="first") as first, Database("sqlite://", alias="second") as second:
        await first.create_all(registry)
        await second.create_all(registry)
        with pytest.raises(NoDatabase, match=r"open are: first, second"):
            await Thing.objects.count()
        with pytest.raises(NoDatabase, match=r"no database 'thrid' is open \(open are: first, second\)"):
            await Thing.objects.using("thrid").count()
        await Thing.objects.using("second").create()
        assert await Thing.objects.using(first).count() == 0
        assert await Thing.objects.using(second).count() == 1
    app = plugin_sandbox(
        orm=covet_orm.plugin,
        settings={"app": {"secret_key": "k" * 32}, "storage": {"only": {"url": f"sqlite:///{tmp_path}/only.db"}}},
    )
    async with app.running():
        only = app.storage["only"]
        assert isinstance(only, Database)
        await only.create_all(registry)
        assert await Thing.objects.count() == 0
