"""Every field on every database: what is saved is what is loaded, and what a filter finds; what cannot be kept is
refused before the server sees it, by the same error everywhere."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covet_orm.databases import Database
from covet_orm.exceptions import DataError, ModelError, NotSupported, QueryError, ValidationError
from covet_orm.expressions import Q
from covet_orm.fields import (
    ArrayField,
    AutoField,
    BigAutoField,
    BigIntegerField,
    BinaryField,
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    DurationField,
    EmailField,
    EnumField,
    Field,
    FileField,
    FloatField,
    IntegerField,
    IPAddressField,
    JSONField,
    PositiveBigIntegerField,
    PositiveIntegerField,
    PositiveSmallIntegerField,
    SlugField,
    SmallAutoField,
    SmallIntegerField,
    StoredFile,
    TextField,
    TimeField,
    URLField,
    UUIDField,
)
from covet_orm.models import Model, Registry


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2**40


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Address(msgspec.Struct):
    street: str
    number: int | None = None


@dataclass(frozen=True)
class Case:
    """A field and what it holds."""

    make: Callable[[], Field[Any]]
    values: st.SearchStrategy[Any]
    boundaries: tuple[Any, ...] = ()
    databases: tuple[str, ...] = ("sqlite", "postgresql", "mariadb")


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
# A float without digits behind the point comes back from PostgreSQL's jsonb as an int, beyond 2**53 as another one.
json_floats = st.floats(-1e15, 1e15, allow_nan=False, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | json_floats | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: value is not None)
zones = st.sampled_from(
    [dt.UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/St_Johns"), dt.timezone(dt.timedelta(hours=14))]
)

CASES: dict[str, Case] = {
    "char": Case(lambda: CharField(max_length=20), text, ("", " ", "a ", "x" * 20, "😀" * 20, "Ünï", "\\", "'", "%")),
    "text": Case(lambda: TextField(), text, ("", "a" * 100_000, "\x7f\u2028😀", "%s", "$1", "?")),
    "email": Case(lambda: EmailField(), st.emails(), ("ada@example.org", "ünï@exämple.org")),
    "url": Case(lambda: URLField(), st.just("https://example.org/a?b=c#d"), ("http://[::1]:8000/",)),
    "slug": Case(lambda: SlugField(), st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True), ("A-b_9",)),
    "small": Case(lambda: SmallIntegerField(), st.integers(-(2**15), 2**15 - 1), (-(2**15), 2**15 - 1)),
    "integer": Case(lambda: IntegerField(), st.integers(-(2**31), 2**31 - 1), (-(2**31), 2**31 - 1, 0)),
    "big": Case(lambda: BigIntegerField(), st.integers(-(2**63), 2**63 - 1), (-(2**63), 2**63 - 1)),
    "positive_small": Case(lambda: PositiveSmallIntegerField(), st.integers(0, 2**15 - 1), (0, 2**15 - 1)),
    "positive": Case(lambda: PositiveIntegerField(), st.integers(0, 2**31 - 1), (0, 2**31 - 1)),
    "positive_big": Case(lambda: PositiveBigIntegerField(), st.integers(0, 2**63 - 1), (0, 2**63 - 1)),
    "float": Case(
        lambda: FloatField(),
        st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
        (0.1, 1e-300, 1.7976931348623157e308, -2.2250738585072014e-308),
    ),
    "decimal": Case(
        lambda: DecimalField(max_digits=10, decimal_places=2),
        st.decimals(Decimal("-99999999.99"), Decimal("99999999.99"), places=2),
        (Decimal("99999999.99"), Decimal("-0.01"), Decimal(0)),
    ),
    "decimal_wide": Case(
        lambda: DecimalField(max_digits=38, decimal_places=10),
        st.decimals(-(10**27), 10**27, places=10, allow_nan=False),
        (Decimal("9" * 28 + "." + "9" * 10), Decimal("0.0000000001")),
        databases=("postgresql", "mariadb"),
    ),
    "boolean": Case(lambda: BooleanField(), st.booleans()),
    "date": Case(lambda: DateField(), st.dates(), (dt.date.min, dt.date.max)),
    "time": Case(lambda: TimeField(), st.times(), (dt.time.min, dt.time.max)),
    "datetime": Case(
        lambda: DateTimeField(),
        # A time that is there twice, or not at all, when a clock is set equals none of another zone (PEP 495).
        st.datetimes(dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29), timezones=zones).filter(
            lambda value: value == value.astimezone(dt.UTC)
        ),
        (dt.datetime(1, 1, 1, 0, 0, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)),
    ),
    "naive": Case(lambda: DateTimeField(timezone=False), st.datetimes(max_value=dt.datetime(9999, 12, 30))),
    "duration": Case(
        lambda: DurationField(),
        st.timedeltas(dt.timedelta(days=-106_000_000), dt.timedelta(days=106_000_000)),
        (dt.timedelta(microseconds=2**63 - 1), dt.timedelta(microseconds=-(2**63) + 1), dt.timedelta(0)),
    ),
    "binary": Case(lambda: BinaryField(), st.binary(max_size=50), (b"", bytes(range(256)), b"\\'%s")),
    "binary_bounded": Case(
        lambda: BinaryField(max_length=10, unique=True), st.binary(max_size=10), (b"a", b"a ", b"A")
    ),
    "json": Case(lambda: JSONField(), json, ({"b": 1, "a": [None, True, {"c": "\\u0000"}]}, [], {}, "", 0, False)),
    "json_typed": Case(
        lambda: JSONField(schema=list[Address]),
        st.lists(st.builds(Address, text, st.none() | st.integers(-9, 9)), max_size=3),
    ),
    "uuid": Case(lambda: UUIDField(), st.uuids(), (uuid.UUID(int=0), uuid.UUID(int=2**128 - 1))),
    "enum": Case(lambda: EnumField(Colour), st.sampled_from(Colour)),
    "enum_int": Case(lambda: EnumField(Size), st.sampled_from(Size)),
    "enum_str": Case(lambda: EnumField(Mood), st.sampled_from(Mood)),
    "ip": Case(
        lambda: IPAddressField(),
        st.ip_addresses(),
        (IPv4Address("0.0.0.0"), IPv6Address("::ffff:1.2.3.4")),
    ),
    "file": Case(lambda: FileField(), text.filter(bool).map(StoredFile), (StoredFile("a/b.png"),)),
    "array": Case(
        lambda: ArrayField(IntegerField()), st.lists(st.integers(-9, 9), max_size=4), databases=("postgresql",)
    ),
    "array_null": Case(
        lambda: ArrayField(TextField(null=True)), st.lists(st.none() | text, max_size=4), databases=("postgresql",)
    ),
    "array_nested": Case(
        lambda: ArrayField(ArrayField(DateTimeField())),
        st.lists(st.lists(st.datetimes(timezones=st.just(dt.UTC)), min_size=2, max_size=2), min_size=1, max_size=3),
        databases=("postgresql",),
    ),
    "array_enum": Case(
        lambda: ArrayField(EnumField(Colour)), st.lists(st.sampled_from(Colour), max_size=4), databases=("postgresql",)
    ),
    "array_json": Case(lambda: ArrayField(JSONField()), st.lists(json, max_size=3), databases=("postgresql",)),
}


def model_of(field: Field[Any], **others: Any) -> Any:
    """A model with a field called `value`, in a registry of its own."""
    meta = type("Meta", (), {"registry": Registry(), "app_label": ""})
    return type(Model)("Holder", (Model,), {"__module__": __name__, "Meta": meta, "value": field, **others})


async def check_kept(model: Any, values: list[Any]) -> None:
    """What is saved is what is loaded, and what filters find."""
    for value in values:
        saved = await model.objects.create(value=value)
        loaded = await model.objects.get(pk=saved.pk)
        assert loaded.value == value
        assert isinstance(loaded.value, type(value)) or isinstance(value, (dt.datetime, float))
        assert loaded.changed_fields() == []
        assert saved.changed_fields() == []
        assert await model.objects.filter(value=value, pk=saved.pk).exists()
        assert await model.objects.filter(value__in=[value], pk=saved.pk).exists()
        assert not await model.objects.exclude(value=value).filter(pk=saved.pk).exists()
        await saved.delete()


@pytest.mark.parametrize("name", CASES)
def test_values_are_kept(url: str, name: str) -> None:
    case = CASES[name]
    model = model_of(case.make())
    with asyncio.Runner() as runner:
        database = Database(url)
        try:
            if url.partition(":")[0] not in case.databases:
                with pytest.raises(NotSupported):
                    runner.run(database.create_all(model._meta.registry))
                return
            runner.run(database.create_all(model._meta.registry))
            runner.run(check_kept(model, list(case.boundaries)))

            @settings(max_examples=12, deadline=None)
            @given(st.lists(case.values, min_size=1, max_size=6))
            def kept(values: list[Any]) -> None:
                runner.run(check_kept(model, values))

            kept()
        finally:
            runner.run(database.close())


MUCH = "x" * 21
UNKNOWN_TIME = dt.datetime(2024, 1, 1)

REFUSED: dict[str, tuple[Callable[[], Field[Any]], list[Any]]] = {
    "char": (lambda: CharField(max_length=20), [MUCH, "a\0", "\ud800", 5, b"x", None, "😀" * 21]),
    "text": (lambda: TextField(), ["\0", "a\udfffb", 5, None]),
    "email": (lambda: EmailField(), ["", "ada", "a@", "@b", "a b@c", "a@b..c", "a@-b", f"{'x' * 65}@b.c", "a@b.c\n"]),
    "url": (
        lambda: URLField(),
        ["", "example.org", "ftp://example.org", "http://", "http://a b", "http://[::1", "http://a:99999", "http://a\n"],
    ),
    "slug": (lambda: SlugField(), ["", "a b", "ä", "a/b", "a\n"]),
    "small": (lambda: SmallIntegerField(), [2**15, -(2**15) - 1]),
    "integer": (
        lambda: IntegerField(),
        [2**31, -(2**31) - 1, True, 1.5, "x", "", float("nan"), float("inf"), Decimal("1e999999"), 10**5000, [1],
         Decimal("sNaN"), "1" * 5000],
    ),
    "big": (lambda: BigIntegerField(), [2**63, -(2**63) - 1, 2.0**63]),
    "positive": (lambda: PositiveIntegerField(), [-1, 2**31]),
    "float": (lambda: FloatField(), [float("nan"), float("inf"), -float("inf"), "x", True, 10**400, "nan", [1.0]]),
    "decimal": (
        lambda: DecimalField(max_digits=5, decimal_places=2),
        [Decimal("1000"), "1.001", Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), "x", True, 1e300, "1e-9999999",
         Decimal("1E+999999"), "999.999"],
    ),
    "decimal_wide": (lambda: DecimalField(max_digits=38, decimal_places=10), [Decimal("1" + "0" * 28)]),
    "boolean": (lambda: BooleanField(), [2, "true", 1.0]),
    "date": (
        lambda: DateField(), ["10000-01-01", "2023-02-29", "0000-01-01", UNKNOWN_TIME, 5, "-0001-01-01"]
    ),
    "time": (lambda: TimeField(), ["25:00", dt.time(1, tzinfo=dt.UTC), 5]),
    "datetime": (
        lambda: DateTimeField(),
        [UNKNOWN_TIME, "2024-01-01", "2024-01-01T25:00Z", "10000-01-01T00:00Z", dt.date(2024, 1, 1), 5,
         dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=1))),
         dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
         dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)],
    ),
    "naive": (lambda: DateTimeField(timezone=False), [UNKNOWN_TIME.replace(tzinfo=dt.UTC)]),
    "duration": (lambda: DurationField(), [dt.timedelta(microseconds=2**63), dt.timedelta.max, dt.timedelta.min, 5]),
    "binary": (lambda: BinaryField(max_length=3), [b"1234", "abc", 5]),
    "json": (
        lambda: JSONField(),
        [float("nan"), {"a": [float("inf")]}, [[-float("inf")], None], "\0", {"\0": 1}, {1: 2}, "\ud800", object(),
         {"a": {"b": "\ud800"}}, 1j],
    ),
    "json_typed": (lambda: JSONField(schema=Address), [{"street": 5}, [], {"number": 1}]),
    "uuid": (lambda: UUIDField(), ["x", 5, b"1", "12345678-1234-1234-1234-12345678901"]),
    "enum": (lambda: EnumField(Colour), ["blue", 5, Mood.GOOD, ""]),
    "ip": (lambda: IPAddressField(), ["1.2.3", "::g", "fe80::1%eth0", 5, True, b"1234"]),
    "ip4": (lambda: IPAddressField(version=4), ["::1"]),
    "file": (lambda: FileField(max_length=5), ["", "123456", "a\0", StoredFile("a", "other")]),
    "choices": (lambda: CharField(max_length=5, choices=["a", ("b", "Bee")]), ["c", "Bee"]),
}  # fmt: skip

UNBOUND = {"decimal_wide": ("sqlite",)}


@pytest.mark.anyio
async def test_the_same_is_refused_everywhere(url: str) -> None:
    """By ValidationError when it is saved, and nothing is sent."""
    kind = url.partition(":")[0]
    async with Database(url) as database:
        for name, (make, wrong) in REFUSED.items():
            if kind in UNBOUND.get(name, ()):
                continue
            model = model_of(make())
            await database.create_all(model._meta.registry)
            for value in wrong:
                with pytest.raises(ValidationError) as caught:
                    await model.objects.create(value=value)
                assert set(caught.value.errors) == {"value"}, (name, value)
                with pytest.raises(ValidationError):
                    model(value=value).full_clean()
            assert await model.objects.count() == 0
            await database.drop_all(model._meta.registry)


@pytest.mark.anyio
async def test_the_same_is_refused_of_many(url: str) -> None:
    """By `bulk_create` and by `update`, which call no method of an object."""
    async with Database(url) as database:
        for name, (make, wrong) in REFUSED.items():
            if database.kind in UNBOUND.get(name, ()):
                continue
            model = model_of(make())
            await database.create_all(model._meta.registry)
            for value in wrong:
                with pytest.raises(ValidationError, match="value"):
                    await model.objects.bulk_create([model(value=value)])
                with pytest.raises(QueryError, match="value"):
                    await model.objects.update(value=value)
            assert await model.objects.count() == 0
            await database.drop_all(model._meta.registry)


@pytest.mark.anyio
async def test_the_same_is_refused_in_a_filter(url: str) -> None:
    """What could be in no row is an error and no empty result: it is a mistake of the program."""
    wrong: dict[str, list[Any]] = {
        "char": ["a\0", "\ud800", 5],
        "integer": [2**31, 1.5, "x"],
        "float": [float("nan")],
        "datetime": [UNKNOWN_TIME],
        "uuid": ["x"],
        "json": [float("nan")],
        "ip": ["1.2.3"],
        "enum": ["blue"],
    }
    async with Database(url) as database:
        for name, values in wrong.items():
            model = model_of(REFUSED[name][0]())
            await database.create_all(model._meta.registry)
            for value in values:
                with pytest.raises(QueryError, match=r"value|JSON"):
                    await model.objects.filter(value=value)
                with pytest.raises(QueryError, match=r"value|JSON"):
                    await model.objects.filter(value__in=[value])
            await database.drop_all(model._meta.registry)


@pytest.mark.anyio
async def test_text_is_compared_exactly(url: str) -> None:
    """Upper and lower case differ, and so do accents, blanks at the end and normal forms: in filters and in keys."""
    model = model_of(CharField(max_length=20, unique=True))
    texts = [*"aAäß iI😀😁\u0131\u0130\u00e9", "a ", "a  ", "", "ss", "e\u0301"]
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        for one in texts:
            await model.objects.create(value=one)
        for one in texts:
            assert [found.value for found in await model.objects.filter(value=one)] == [one]
            assert [found.value for found in await model.objects.filter(value__in=[one])] == [one]
        assert await model.objects.filter(value="x" * 500).count() == 0
        # A filter for a text that begins like one that is there, longer than the column: nothing is cut.
        await model.objects.create(value="y" * 20)
        assert not await model.objects.filter(value="y" * 21).exists()


@pytest.mark.anyio
async def test_what_a_database_cannot_have(url: str) -> None:
    """An error that says so, and the way around, before anything is created."""
    kind = url.partition(":")[0]
    wanted: dict[str, list[tuple[Field[Any], str]]] = {
        "sqlite": [
            (ArrayField(IntegerField()), "JSONField"),
            (DecimalField(max_digits=16, decimal_places=2), "15 digits"),
        ],
        "postgresql": [],
        "mariadb": [
            (ArrayField(IntegerField()), "JSONField"),
            (TextField(unique=True), "CharField"),
            (CharField(max_length=769, db_index=True), "768"),
            (BinaryField(db_index=True), "max_length"),
            (JSONField(unique=True), "GeneratedField"),
        ],
    }
    async with Database(url) as database:
        for field, told in wanted[kind]:
            model = model_of(field)
            with pytest.raises(NotSupported, match=rf"Holder\.value: .*{told}"):
                await database.create_all(model._meta.registry)
            assert "holder" not in await database.create_all(Registry())


@pytest.mark.anyio
async def test_arrays_are_refused_elsewhere_in_a_query_as_well(url: str) -> None:
    model = model_of(ArrayField(IntegerField()))
    if url.startswith("postgresql"):
        return
    async with Database(url):
        with pytest.raises(NotSupported, match="only PostgreSQL has arrays"):
            await model.objects.create(value=[1])
        with pytest.raises(NotSupported, match="only PostgreSQL has arrays"):
            await model.objects.filter(value=[1])


@pytest.mark.anyio
async def test_arrays_are_checked(postgresql: Any) -> None:
    async with Database(postgresql.empty_database("test")) as database:
        nested = model_of(ArrayField(ArrayField(IntegerField())))
        await database.create_all(nested._meta.registry)
        for wrong, told in [
            ([[1], [1, 2]], "rectangles"), ([["x"]], "element 0: element 0"), ([[2**31]], "out of range"),
            ("ab", "no list"), ([[None]], "element 0: element 0 is None"),
        ]:  # fmt: skip
            with pytest.raises(ValidationError, match=told):
                await nested.objects.create(value=wrong)
        await database.drop_all(nested._meta.registry)
        bounded = model_of(ArrayField(CharField(max_length=2), size=2))
        await database.create_all(bounded._meta.registry)
        for other, told in [(["a", "b", "c"], "3 elements"), (["abc"], "element 0: it has 3 characters")]:
            with pytest.raises(ValidationError, match=told):
                await bounded.objects.create(value=other)


@pytest.mark.anyio
async def test_json_of_any_depth_is_kept_or_refused(url: str) -> None:
    deep: Any = 1
    for _ in range(31):
        deep = [deep]
    model = model_of(JSONField())
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        assert (await model.objects.get(pk=(await model.objects.create(value=deep)).pk)).value == deep
        deeper = [{"a": deep}]
        if database.kind == "mariadb":
            with pytest.raises(ValidationError, match="nested deeper than 31"):
                await model.objects.create(value=deeper)
        else:
            await model.objects.create(value=deeper)
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(ValidationError, match="no JSON"):
            await model.objects.create(value=endless)
        # Brackets in a text are no depth.
        await model.objects.create(value="[{" * 50)


@pytest.mark.anyio
async def test_json_that_changes_in_place_is_noticed(url: str) -> None:
    model = model_of(JSONField())
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        made = await model.objects.create(value={"tags": ["a"]})
        made.value["tags"].append("b")
        assert made.changed_fields() == ["value"]
        await made.save()
        found = await model.objects.get()
        assert found.value == {"tags": ["a", "b"]}
        found.value["tags"].clear()
        assert found.changed_fields() == ["value"]
        assert await model.objects.filter(value={"tags": ["a", "b"]}).exists()


@pytest.mark.anyio
async def test_what_others_wrote_is_a_data_error(url: str) -> None:
    """A value that the field does not hold, written past it."""
    enum_model, json_model = model_of(EnumField(Colour)), model_of(JSONField(schema=Address))
    async with Database(url) as database:
        await database.create_all(enum_model._meta.registry)
        await enum_model.objects.create(value=Colour.RED)
        await database.execute("UPDATE holder SET value = 'blue'")
        with pytest.raises(DataError, match=r"Holder\.value: .*'blue' is none of Colour"):
            await enum_model.objects.get()
        await database.drop_all(enum_model._meta.registry)
        await database.create_all(json_model._meta.registry)
        await json_model.objects.create(value=Address("x"))
        await database.execute("UPDATE holder SET value = '{\"street\": 5}'")
        with pytest.raises(DataError, match=r"Holder\.value: .*Expected `str`"):
            await json_model.objects.get()


@pytest.mark.anyio
async def test_the_database_checks_what_is_computed_there(url: str) -> None:
    """A positive field stays so when the database subtracts."""
    from covet_orm.exceptions import CheckViolation

    model = model_of(PositiveIntegerField())
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        await model.objects.create(value=3)
        with pytest.raises(CheckViolation):
            await database.execute("UPDATE holder SET value = value - 5")


@pytest.mark.anyio
async def test_times_of_saving(url: str) -> None:
    model: Any = model_of(
        IntegerField(),
        made=DateTimeField(auto_now_add=True),
        changed=DateTimeField(auto_now=True),
        day=DateField(auto_now=True),
    )
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        before = dt.datetime.now(dt.UTC)
        made = await model.objects.create(value=1)
        assert before <= made.made <= made.changed <= dt.datetime.now(dt.UTC)
        assert made.day in (before.date(), made.made.date())
        first = made.changed
        made.value = 2
        await made.save()
        found = await model.objects.get()
        assert found.changed == made.changed > first
        assert found.made == made.made
        old = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
        assert (await model.objects.create(value=1, made=old)).made == old


@pytest.mark.anyio
async def test_defaults_of_the_database(url: str) -> None:
    """A plain value of every kind as a column's default: texts that want quotes, bytes, JSON, times."""
    awkward = "50% of 'it' \\ \" ` :x $1 ? %s \n 😀"
    given: dict[str, tuple[Field[Any], Any]] = {
        "text": (CharField(max_length=100, db_default=awkward), awkward),
        "number": (IntegerField(db_default=-7), -7),
        "share": (FloatField(db_default=1e-7), 1e-7),
        "price": (DecimalField(max_digits=5, decimal_places=2, db_default=Decimal("-1.50")), Decimal("-1.50")),
        "active": (BooleanField(db_default=False), False),
        "day": (DateField(db_default=dt.date(2024, 2, 29)), dt.date(2024, 2, 29)),
        "hour": (TimeField(db_default=dt.time(1, 2, 3, 4)), dt.time(1, 2, 3, 4)),
        "at": (
            DateTimeField(db_default=dt.datetime(2024, 1, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))),
            dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        ),
        "took": (
            DurationField(db_default=dt.timedelta(days=-1, microseconds=7)),
            dt.timedelta(days=-1, microseconds=7),
        ),
        "raw": (BinaryField(db_default=b"\0'\\\xff"), b"\0'\\\xff"),
        "data": (JSONField(db_default={"a": [awkward, None]}), {"a": [awkward, None]}),
        "colour": (EnumField(Colour, db_default=Colour.GREEN), Colour.GREEN),
        "address": (IPAddressField(db_default="::1"), IPv6Address("::1")),
        "number_of_all": (UUIDField(db_default=uuid.UUID(int=7)), uuid.UUID(int=7)),
        "nothing": (IntegerField(null=True, db_default=None), None),
    }
    model: Any = model_of(IntegerField(), **{name: field for name, (field, _) in given.items()})
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        made = await model.objects.create(value=1)
        for name, (_, expected) in given.items():
            assert getattr(made, name) == expected, name
        found = await model.objects.get()
        assert {name: getattr(found, name) for name in given} == {
            name: expected for name, (_, expected) in given.items()
        }
        # By SQL alone, past the model.
        await database.execute("INSERT INTO holder (value) VALUES (2)")
        other = await model.objects.get(value=2)
        assert {name: getattr(other, name) for name in given} == {name: getattr(found, name) for name in given}


@pytest.mark.anyio
async def test_a_wrong_default_of_the_database_is_a_model_error(url: str) -> None:
    model = model_of(IntegerField(db_default="x"))
    async with Database(url) as database:
        with pytest.raises(ModelError, match="cannot have the default 'x': 'x' is no whole number"):
            await database.create_all(model._meta.registry)


@pytest.mark.anyio
async def test_keys_of_every_kind(url: str) -> None:
    keys: dict[str, tuple[Field[Any], Any]] = {
        "uuid": (UUIDField(primary_key=True, default=uuid.uuid4), None),
        "char": (CharField(max_length=20, primary_key=True), "ä "),
        "date": (DateField(primary_key=True), dt.date(2024, 1, 1)),
        "binary": (BinaryField(max_length=16, primary_key=True), b"\0\xff"),
        "enum": (EnumField(Mood, primary_key=True), Mood.BAD),
        "ip": (IPAddressField(primary_key=True), IPv4Address("127.0.0.1")),
        "datetime": (DateTimeField(primary_key=True), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
    }
    async with Database(url) as database:
        for name, (field, key) in keys.items():
            model = model_of(field, other=IntegerField(default=0))
            await database.create_all(model._meta.registry)
            made = await model.objects.create(**({"value": key} if key is not None else {}))
            assert key is None or made.pk == key, name
            made.other = 1
            await made.save()
            assert (await model.objects.get(pk=made.pk)).other == 1, name
            assert await made.delete() == 1, name
            await database.drop_all(model._meta.registry)


@pytest.mark.anyio
@pytest.mark.parametrize("field", [SmallAutoField, AutoField, BigAutoField])
async def test_the_database_counts_keys_of_every_size(url: str, field: type[AutoField[int]]) -> None:
    model = model_of(field())
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        assert [(await model.objects.create()).pk for _ in range(2)] == [1, 2]


class Money(Field[Any]):
    """A field of a third party: whole cents in the database, an amount with its currency in Python."""

    checks_values = True

    def __init__(self, *, currency: str, **options: Any) -> None:
        self.currency = currency
        super().__init__(**options)

    def column_type(self) -> Any:
        return BigIntegerField[int]().column_type()

    def to_python(self, value: Any) -> Any:
        if isinstance(value, tuple) and len(value) == 2 and value[1] == self.currency:
            return value
        raise ValueError(f"{value!r} is no amount in {self.currency}")

    def binder(self, kind: str) -> Callable[[Any], Any]:
        return lambda value: int(self.to_python(value)[0] * 100)

    def loader(self, kind: str) -> Callable[[Any], Any]:
        return lambda value: (Decimal(value) / 100, self.currency)

    def validate(self, value: Any) -> list[str]:
        return ["it is a debt"] if value is not None and value[0] < 0 else super().validate(value)


@pytest.mark.anyio
async def test_a_field_of_ones_own(url: str) -> None:
    model = model_of(Money(currency="EUR", db_default=(Decimal(1), "EUR")))
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        await model.objects.create(value=(Decimal("2.50"), "EUR"))
        assert (await model.objects.get(value=(Decimal("2.50"), "EUR"))).value == (Decimal("2.50"), "EUR")
        assert await model.objects.filter(Q(value__gt=(Decimal(2), "EUR"))).count() == 1
        assert (await model.objects.create()).value == (Decimal(1), "EUR")
        with pytest.raises(ValidationError, match="no amount in EUR"):
            await model.objects.create(value=(1, "USD"))
        with pytest.raises(ValidationError, match="it is a debt"):
            await model.objects.create(value=(-1, "EUR"))
        with pytest.raises(QueryError, match="no amount in EUR"):
            await model.objects.filter(value=3)


def test_a_writer_checks_what_a_binder_does_not() -> None:
    write = CharField(max_length=2, choices=["ab"], validators=[lambda value: None]).writer("sqlite")
    assert write("ab") == "ab"
    for wrong in ("abc", "a", "\0", 5):
        with pytest.raises(ValueError):  # noqa: PT011 - which of them says what is told elsewhere
            write(wrong)
    assert IntegerField().writer("sqlite")(5) == 5
