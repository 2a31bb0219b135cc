"""Ranges: their values, against what PostgreSQL says of the same ones, their fields and their lookups."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.databases import SERVERS, ask
from tests.services.postgresql import PostgreSQL

from covet_orm import (
    ArrayField,
    BigIntegerRangeField,
    CheckConstraint,
    CheckViolation,
    DateRangeField,
    DateTimeRangeField,
    DecimalRangeField,
    F,
    Index,
    IntegerField,
    IntegerRangeField,
    Model,
    NotSupported,
    Q,
    QueryError,
    Range,
    Registry,
    ValidationError,
    Value,
)
from covet_orm.databases import Database
from covet_orm.fields import RangeField
from covet_orm.queries import range_lookups

pytestmark = pytest.mark.anyio
registry = Registry()
POSTGRESQL = [name for name in SERVERS if name.startswith("postgresql")]
EMPTY: Range[Any] = Range(isempty=True)


class Span(Model):
    ages = IntegerRangeField(null=True)
    limit = IntegerField(default=3)
    other = IntegerRangeField(default=Range(2, 4))

    class Meta:
        registry = registry


SPANS: list[Range[int] | None] = [
    None,
    EMPTY,
    Range(1, 5),
    Range(1, 2),
    Range(2, None),
    Range(None, 2),
    Range(),
    Range(5, 9),
    Range(3, 4),
]
Says = Callable[[Range[int]], bool]
CASES: list[tuple[dict[str, Any], Says]] = [
    ({"ages": Range(1, 5)}, lambda r: r == Range(1, 5)),
    ({"ages": Range(0, 4, "(]")}, lambda r: r == Range(1, 5)),
    ({"ages": (1, 5)}, lambda r: r == Range(1, 5)),
    ({"ages__in": [Range(1, 5), EMPTY]}, lambda r: r in (Range(1, 5), EMPTY)),
    ({"ages__contains": 3}, lambda r: 3 in r),
    ({"ages__contains": Range(2, 4)}, lambda r: {2, 3} <= numbers(r)),
    ({"ages__contains": [2, 4]}, lambda r: {2, 3} <= numbers(r)),
    ({"ages__contains": EMPTY}, lambda r: True),
    ({"ages__contains": F("limit")}, lambda r: 3 in r),
    ({"ages__contains": F("limit") + 3}, lambda r: 6 in r),
    ({"ages__contains": F("other")}, lambda r: {2, 3} <= numbers(r)),
    ({"ages__contained_by": Range(0, 6)}, lambda r: numbers(r) <= set(range(6))),
    ({"ages__overlap": Range(4, 6)}, lambda r: bool({4, 5} & numbers(r))),
    ({"ages__overlap": F("other")}, lambda r: bool({2, 3} & numbers(r))),
    ({"ages__fully_lt": Range(5, 6)}, lambda r: bool(numbers(r)) and max(numbers(r)) < 5),
    ({"ages__fully_gt": Range(0, 2)}, lambda r: bool(numbers(r)) and min(numbers(r)) > 1),
    ({"ages__not_lt": Range(2, 3)}, lambda r: bool(numbers(r)) and min(numbers(r)) >= 2),
    ({"ages__not_gt": Range(2, 4)}, lambda r: bool(numbers(r)) and max(numbers(r)) < 4),
    ({"ages__adjacent_to": Range(5, 7)}, lambda r: r.upper == 5 or r.lower == 7),
    ({"ages__startswith": 1}, lambda r: r.lower == 1),
    ({"ages__startswith": None}, lambda r: r.lower is None),
    ({"ages__startswith__gte": 2}, lambda r: r.lower is not None and r.lower >= 2),
    ({"ages__startswith__in": [1, 3]}, lambda r: r.lower in (1, 3)),
    ({"ages__endswith": 5}, lambda r: r.upper == 5),
    ({"ages__endswith": F("limit") + 2}, lambda r: r.upper == 5),
    ({"ages__endswith__isnull": False}, lambda r: r.upper is not None),
    ({"ages__isempty": True}, lambda r: r.isempty),
    ({"ages__isempty": False}, lambda r: not r.isempty),
    ({"ages__lower_inc": True}, lambda r: r.lower_inc),
    ({"ages__upper_inc": True}, lambda r: r.upper_inc),
    ({"ages__lower_inf": True}, lambda r: r.lower_inf),
    ({"ages__upper_inf": True}, lambda r: r.upper_inf),
]


def numbers(found: Range[int]) -> set[int]:
    """Those of a range that are small enough to count."""
    return {number for number in range(-20, 21) if number in found}


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_each_lookup_is_what_python_says(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        made = await Span.objects.bulk_create([Span(ages=ages) for ages in SPANS])
        for lookups, told in CASES:
            (name,) = lookups
            expected = {span.id for span in made if span.ages is not None and told(span.ages)}
            if lookups == {"ages__startswith": None}:
                expected.add(made[0].id)
            assert set(await Span.objects.filter(**lookups).values_list("id", flat=True)) == expected, lookups
            others = set(await Span.objects.exclude(**lookups).values_list("id", flat=True))
            assert others == {span.id for span in made} - expected, lookups
            lookup = name.partition("__")[2] or "exact"
            if lookup in range_lookups.LOOKUPS or lookup == "exact":
                by_expression = Span.objects.filter(Span.ages.lookup(lookup, lookups[name]))
                assert set(await by_expression.values_list("id", flat=True)) == expected, lookups
        assert await Span.objects.values_list("ages", flat=True).order_by("id") == SPANS
        ends = await Span.objects.filter(ages=Range(1, 5)).values_list("ages__startswith", "ages__endswith")
        assert [tuple(row) for row in ends] == [(1, 5)]


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_values_that_are_none(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        for value, told in (("x", "no whole number"), ([1, 2, 3], "no pair"), (Range(1, 2**31), "range")):
            with pytest.raises(QueryError, match=told):
                await Span.objects.filter(ages__contains=value)
        for wrong in ("x", 5, (1, 2, 3), Range("a", "b"), Range(1, 2**31 - 1, "[]"), Range(2**31)):
            with pytest.raises(ValidationError):
                await Span.objects.create(ages=wrong)
        with pytest.raises(ValidationError, match="cannot end at"):
            await Span.objects.create(ages=("10", "9"))
        with pytest.raises(QueryError, match="output_field"):
            await Span.objects.annotate(x=Value(Range(1, 2)))
        valued = Span.objects.annotate(x=Value(Range(1, 2, "[]"), output_field=IntegerRangeField()))
        await Span.objects.create(ages=("9", "10"))
        assert await valued.values_list("ages", "x") == [(Range(9, 10), Range(1, 3))]


@pytest.mark.parametrize("server", ["sqlite", "mariadb"], indirect=True)
async def test_what_has_no_ranges_says_so(url: str) -> None:
    async with Database(url) as database:
        with pytest.raises(NotSupported, match=r"Span\.ages: only PostgreSQL has ranges; two fields"):
            await database.create_all(registry)
        for lookups, _ in CASES:
            with pytest.raises(NotSupported, match="two fields"):
                await Span.objects.filter(**lookups)
        with pytest.raises(NotSupported):
            await Span.objects.create(ages=Range(1, 2))


NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
KINDS: list[tuple[RangeField[Any], list[Range[Any]]]] = [
    (IntegerRangeField(), [Range(-(2**31), 2**31 - 1), Range(1, 4, "[]"), Range(0, 1, "()"), EMPTY, Range()]),
    (BigIntegerRangeField(), [Range(-(2**63), 2**63 - 1), Range(1, 2, "(]")]),
    (
        DecimalRangeField(),
        [
            Range(Decimal("1.50"), Decimal("2.123456789012345678901234567890"), "()"),
            Range(Decimal("-1e20"), None, "()"),
            Range(Decimal(1), Decimal(1), "[]"),
            Range(Decimal(1), Decimal(1), "(]"),
        ],
    ),
    (
        DateRangeField(),
        [
            Range(dt.date(2024, 2, 28), dt.date(2024, 2, 29), "[]"),
            Range(dt.date(2024, 2, 28), None, "()"),
            Range(dt.date(2024, 2, 28), dt.date(2024, 2, 29), "()"),
        ],
    ),
    (
        DateTimeRangeField(),
        [Range(NOON, NOON + dt.timedelta(microseconds=1)), Range(None, NOON, "(]"), Range(NOON, NOON, "[]")],
    ),
    (DateTimeRangeField(timezone=False), [Range(dt.datetime(2024, 5, 1), dt.datetime(2024, 5, 2), "[]")]),
]


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
@pytest.mark.parametrize(("field", "values"), KINDS, ids=[type(field).__name__ for field, _ in KINDS])
async def test_fields_keep_their_values(url: str, field: RangeField[Any], values: list[Range[Any]]) -> None:
    meta = type("Meta", (), {"registry": Registry(), "app_label": ""})
    fields = {"value": field.clone(), "values": ArrayField(field.clone(), default=list)}
    model: Any = type(Model)("Kept", (Model,), {"__module__": __name__, "Meta": meta, **fields})
    async with Database(url) as database:
        await database.create_all(meta.registry)  # type: ignore[attr-defined]
        for value in values:
            exact = model._meta.field("value").to_python(value)
            saved = await model.objects.create(value=value, values=[value, value])
            (loaded,) = await model.objects.filter(id=saved.id)
            assert loaded.value == exact
            assert loaded.values == [exact, exact]
            # What is kept is what is in the range, for the server too.
            assert await model.objects.filter(id=saved.id, value=value).count() == 1
            # The same range in another form is no change.
            loaded.value = value
            assert loaded.changed_fields() == []
            assert "value" not in saved.changed_fields()
            loaded.value = Range() if exact != Range() else EMPTY
            await loaded.save()
            loaded.value = value
            assert loaded.changed_fields() == ["value"]
            await loaded.save()
            assert (await model.objects.get(id=saved.id)).value == exact
        made = await model.objects.bulk_create([model(value=value) for value in values])
        assert {one.id for one in made} <= {one.id for one in await model.objects.filter(value__in=values)}


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_definitions(url: str) -> None:
    class Stay(Model):
        nights = DateRangeField(db_default=Range(dt.date(2024, 1, 1), dt.date(2024, 1, 2), "[]"))
        at = DateTimeRangeField(db_default=Range(NOON, None))

        class Meta:
            registry = Registry()
            app_label = ""
            indexes = (Index("nights", method="gist", name="by_nights"),)
            constraints = (
                CheckConstraint(Q(nights__contained_by=Range(dt.date(2024, 1, 1), dt.date(2025, 1, 1)))),
                CheckConstraint(Q(nights__isempty=False)),
            )

    async with Database(url) as database:
        await database.create_all(Stay._meta.registry)
        made = await Stay.objects.create()
        assert made.nights == Range(dt.date(2024, 1, 1), dt.date(2024, 1, 3))
        assert made.at == Range(NOON)
        for wrong in (Range(dt.date(2024, 12, 31), dt.date(2025, 1, 1), "[]"), EMPTY):
            with pytest.raises(CheckViolation):
                await Stay.objects.create(nights=wrong)
        assert "USING gist" in (await ask(url, "SELECT indexdef FROM pg_indexes WHERE indexname = 'by_nights'"))[0][0]


ENDS = st.none() | st.integers(-3, 3)


@st.composite
def ranges(draw: st.DrawFn) -> Range[int]:
    ends = draw(ENDS), draw(ENDS)
    if ends[0] is not None and ends[1] is not None:
        ends = min(ends[0], ends[1]), max(ends[0], ends[1])
    return Range(*ends, draw(st.sampled_from(["[)", "[]", "(]", "()"])), isempty=draw(st.booleans()))


@given(ranges(), st.integers(-5, 5))
def test_a_range_and_what_a_field_makes_of_it_hold_the_same(one: Range[int], number: int) -> None:
    exact = IntegerRangeField().to_python(one)
    assert (number in exact) is (number in one)
    assert exact.isempty or exact.bounds[1] == ")"
    assert exact.lower is None or exact.lower_inc
    assert IntegerRangeField().to_python(exact) == exact
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(Range(one.lower, one.upper, one.bounds, isempty=one.isempty)) == hash(one)


async def test_a_range_is_what_postgresql_says(databases: Any) -> None:
    server: PostgreSQL = databases.postgresql(15)
    ends = (None, 1, 2, 3)
    found: list[Range[Decimal]] = [
        Range(Decimal(lower) if lower is not None else None, Decimal(upper) if upper is not None else None, bounds)
        for lower in ends
        for upper in ends
        if lower is None or upper is None or lower <= upper
        for bounds in ("[)", "[]", "(]", "()")
    ]
    texts = [str(one) for one in found]
    sql = """
        SELECT range::numrange,
            (SELECT array_agg(range::numrange @> n / 2.0 ORDER BY n) FROM generate_series(0, 8) AS n),
            isempty(range::numrange), lower_inc(range::numrange), upper_inc(range::numrange),
            lower_inf(range::numrange), upper_inf(range::numrange)
        FROM unnest($1::text[]) WITH ORDINALITY AS given (range, number) ORDER BY number
    """
    for one, row in zip(found, server.execute(sql, texts), strict=True):
        assert DecimalRangeField().loader("postgresql")(row[0]) == one  # type: ignore[misc]
        assert row[1] == [Decimal(n) / 2 in one for n in range(9)], one
        assert list(row)[2:] == [one.isempty, one.lower_inc, one.upper_inc, one.lower_inf, one.upper_inf], one


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Range(2, 1), "cannot end"),
        (lambda: Range(1, 2, "[["), "no bounds"),  # type: ignore[arg-type]
        (lambda: Range(1, "x"), "no two ends"),
        (lambda: Range(NOON, dt.datetime(2024, 1, 1)), "no two ends"),
    ],
)
def test_a_wrong_range_is_a_value_error(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        (DecimalRangeField(), Decimal("NaN")),
        (DecimalRangeField(), Decimal("1e1001")),
        (DecimalRangeField(), Decimal("1e-1001")),
        (DecimalRangeField(), "x"),
        (DateTimeRangeField(), dt.datetime(2024, 1, 1)),
        (DateRangeField(), "x"),
        (BigIntegerRangeField(), 2**63),
    ],
)
def test_an_end_that_is_none(field: RangeField[Any], wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"no |more than|range"):
        field.binder("postgresql")(Range(wrong))


def test_days_that_have_no_next() -> None:
    with pytest.raises(ValueError, match="no end that could be written"):
        DateRangeField().to_python(Range(dt.date(2024, 1, 1), dt.date.max, "[]"))
