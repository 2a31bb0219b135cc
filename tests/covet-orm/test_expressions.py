"""Expressions: arithmetic, functions, conditions and subqueries, against Python's own results on every database."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import AsyncIterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, literal_column
from tests.orm_people import Award, Book, Person, Team, World, people

from covet_orm.exceptions import FieldError, NotSupported, QueryError
from covet_orm.expressions import (
    Case,
    Cast,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    Func,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
)
from covet_orm.expressions.functions import (
    KT,
    MD5,
    SHA1,
    SHA224,
    SHA256,
    SHA384,
    SHA512,
    Abs,
    ACos,
    ASin,
    ATan,
    ATan2,
    Ceil,
    Chr,
    Coalesce,
    Collate,
    Concat,
    Cos,
    Cot,
    Degrees,
    Exp,
    Extract,
    ExtractHour,
    ExtractYear,
    Floor,
    Greatest,
    JSONArray,
    JSONExtract,
    JSONObject,
    Least,
    Left,
    Length,
    Ln,
    Log,
    Lower,
    LPad,
    LTrim,
    Mod,
    Now,
    NullIf,
    Ord,
    Pi,
    Power,
    Radians,
    Random,
    Repeat,
    Replace,
    Reverse,
    Right,
    Round,
    RPad,
    RTrim,
    Sign,
    Sin,
    Sqrt,
    StrIndex,
    Substr,
    Tan,
    Trim,
    Trunc,
    TruncDate,
    TruncMonth,
    TruncTime,
    TruncWeek,
    Upper,
)
from covet_orm.fields import (
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    FloatField,
    IntegerField,
    TextField,
    TimeField,
)
from covet_orm.queries.date_lookups import PARTS, TRUNCATIONS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    """The objects, on each database in turn."""
    async with people(url) as made:
        yield made


async def each(expression: Any, **more: Any) -> list[Any]:
    """An expression of every person, in the order of the keys."""
    return await Person.objects.order_by("pk").annotate(found=expression, **more).values_list("found", flat=True)


async def one(expression: Any) -> Any:
    """An expression without names."""
    return (await each(expression))[0]


def near(found: list[Any], expected: list[Any]) -> bool:
    """Whether lists are the same, floats nearly so."""
    return [type(a) for a in found] == [type(b) for b in expected] and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) if isinstance(a, float) else a == b
        for a, b in zip(found, expected, strict=True)
    )


NEW_YEAR = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def there(values: list[Any]) -> list[Any]:
    """The values that are not None."""
    return [value for value in values if value is not None]


def over(attributes: str, function: Any) -> Any:
    """A function of a person's attributes, None where one is."""
    names = attributes.split()

    def of(person: Any) -> Any:
        values = [getattr(person, name) for name in names]
        return None if any(value is None for value in values) else function(*values)

    return of


def fraction(places: int) -> Any:
    """A decimal of so many places."""
    return lambda value: Decimal(value).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)


async def test_arithmetic(world: World) -> None:
    cases: list[tuple[Any, Any]] = [
        (F("age") + 1, over("age", lambda a: a + 1)),
        (1 + F("age"), over("age", lambda a: 1 + a)),
        (F("age") - F("age"), over("age", lambda a: 0)),
        (100 - F("age"), over("age", lambda a: 100 - a)),
        (F("age") * F("age"), over("age", lambda a: a * a)),
        (-F("age"), over("age", lambda a: -a)),
        (F("age") / 7, over("age", lambda a: a / 7)),
        (7 / (F("age") + 100), over("age", lambda a: 7 / (a + 100))),
        (F("age") % 5, over("age", lambda a: int(math.fmod(a, 5)))),
        (F("age") ** 2, over("age", lambda a: float(a**2))),
        (F("age") + F("score"), over("age score", lambda a, s: a + s)),
        (F("score") * 2, over("score", lambda s: s * 2)),
        (F("score") % 2, over("score", lambda s: math.fmod(s, 2))),
        (F("balance") + 1, over("balance", lambda b: b + 1)),
        (F("balance") * Decimal("1.5"), over("balance", lambda b: fraction(15)(b * Decimal("1.5")))),
        (F("balance") / 3, over("balance", lambda b: fraction(8)(b / 3))),
        (F("balance") * 1.5, over("balance", lambda b: float(b) * 1.5)),
        (F("balance") - F("age"), over("balance age", lambda b, a: b - a)),
        ((F("age") + 1) * (F("age") - 1), over("age", lambda a: (a + 1) * (a - 1))),
        (F("age") + 1 * F("age") - 1, over("age", lambda a: 2 * a - 1)),
        (F("joined") - NEW_YEAR, over("joined", lambda j: j - NEW_YEAR)),
        (F("joined") + F("span"), over("joined span", lambda j, s: j + s)),
        (F("joined") - dt.timedelta(hours=25), over("joined", lambda j: j - dt.timedelta(hours=25))),
        (dt.timedelta(1) + F("joined"), over("joined", lambda j: j + dt.timedelta(1))),
        (F("born") - dt.date(2024, 1, 1), over("born", lambda b: b - dt.date(2024, 1, 1))),
        (F("born") + dt.timedelta(days=1), over("born", lambda b: dt.datetime.combine(b, dt.time()) + dt.timedelta(1))),
        (F("span") + dt.timedelta(1), over("span", lambda s: s + dt.timedelta(1))),
        (F("span") * 3, over("span", lambda s: s * 3)),
        (Person.age + 1, over("age", lambda a: a + 1)),
    ]  # fmt: skip
    for expression, function in cases:
        found = await each(expression)
        assert near(found, [function(person) for person in world.people]), expression


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.recursive(
        st.sampled_from(["age", "id"]) | st.integers(-5, 5),
        lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner),
        max_leaves=6,
    )
)
async def test_whole_numbers_calculate_as_in_python(world: World, tree: Any) -> None:
    def expression(tree: Any) -> Any:
        if isinstance(tree, str):
            return F(tree)
        if isinstance(tree, int):
            return Value(tree)
        left, right = expression(tree[1]), expression(tree[2])
        return {"+": left + right, "-": left - right, "*": left * right}[tree[0]]

    def value(tree: Any, person: Any) -> Any:
        if isinstance(tree, str):
            return getattr(person, tree)
        if isinstance(tree, int):
            return tree
        left, right = value(tree[1], person), value(tree[2], person)
        if left is None or right is None:
            return None
        return {"+": left + right, "-": left - right, "*": left * right}[tree[0]]

    expected = [value(tree, person) for person in world.people]
    assert await each(expression(tree)) == expected
    assert sorted(await Person.objects.annotate(x=expression(tree)).filter(x__gt=3).values_list("pk", flat=True)) == [
        person.pk for person, found in zip(world.people, expected, strict=True) if found is not None and found > 3
    ]


async def test_large_numbers_do_not_overflow_in_between(world: World) -> None:
    person = world.people[0]
    person.age = 2**31 - 1
    await person.save()
    assert (await each(F("age") * F("age")))[0] == (2**31 - 1) ** 2
    assert (await each(F("age") + F("age")))[0] == 2**32 - 2
    assert (await Person.objects.filter(pk=person.pk).aggregate(s=Sum("age")))["s"] == 2**31 - 1


async def test_kinds_that_do_not_go_together(url: str) -> None:
    for expression in (F("name") + 1, F("joined") * 2, F("born") + F("born"), F("active") + 1, F("data") + 1):
        with pytest.raises(QueryError, match="nothing that databases calculate"):
            await Person.objects.using(_closed(url)).annotate(x=expression)
    with pytest.raises(QueryError, match="stand for each other"):
        await Person.objects.using(_closed(url)).annotate(x=Coalesce("name", "age"))


def _closed(url: str) -> Any:
    """A database that nothing is sent to."""
    from covet_orm.databases import Database

    return Database(url)


async def test_functions_of_text(world: World) -> None:
    cases: list[tuple[Any, Any]] = [
        (Lower("name"), lambda p: p.name.lower()),
        (Upper("name"), lambda p: p.name.upper()),
        (Length("name"), lambda p: len(p.name)),
        (Concat("name", Value(" is "), "age", Value("%")), lambda p: f"{p.name} is {'' if p.age is None else p.age}%"),
        (Concat("note", "name"), lambda p: (p.note or "") + p.name),
        (Left("name", 2), lambda p: p.name[:2]),
        (Left("name", 0), lambda p: ""),
        (Right("name", 2), lambda p: p.name[-2:]),
        (Right("name", 0), lambda p: ""),
        (Right("name", 100), lambda p: p.name),
        (Substr("name", 2), lambda p: p.name[1:]),
        (Substr("name", 2, 2), lambda p: p.name[1:3]),
        (Replace("name", Value("d"), Value("DD")), lambda p: p.name.replace("d", "DD")),
        (Replace("name", Value("a")), lambda p: p.name.replace("a", "")),
        (Repeat("name", 3), lambda p: p.name * 3),
        (Repeat("name", 0), lambda p: ""),
        (Reverse("name"), lambda p: p.name[::-1]),
        (StrIndex("name", Value("d")), lambda p: p.name.find("d") + 1),
        (StrIndex("name", Value("D")), lambda p: 0),
        (LPad("name", 6, Value("*+")), lambda p: ("*+*+*+"[: 6 - len(p.name)] if len(p.name) < 6 else "") + p.name[:6]),
        (RPad("name", 6), lambda p: p.name[:6].ljust(6)),
        (LPad("name", 2), lambda p: p.name[:2]),
        (Ord("name"), lambda p: ord(p.name[0])),
        (MD5("name"), lambda p: hashlib.md5(p.name.encode(), usedforsecurity=False).hexdigest()),
        (SHA224("name"), lambda p: hashlib.sha224(p.name.encode()).hexdigest()),
        (SHA256("name"), lambda p: hashlib.sha256(p.name.encode()).hexdigest()),
        (SHA384("name"), lambda p: hashlib.sha384(p.name.encode()).hexdigest()),
        (SHA512("name"), lambda p: hashlib.sha512(p.name.encode()).hexdigest()),
        (Lower(Concat("name", Upper("name"))), lambda p: p.name.lower() * 2),
    ]
    for expression, function in cases:
        assert await each(expression) == [function(person) for person in world.people], expression
    blank = Value("  x y ")
    assert [await one(f(blank)) for f in (Trim, LTrim, RTrim)] == ["x y", "x y ", "  x y"]
    for character in "aä€𝄞":
        assert await one(Chr(Value(ord(character)))) == character
        assert await one(Ord(Value(character))) == ord(character)
    if world.database.kind == "postgresql":
        with pytest.raises(NotSupported, match="pgcrypto"):
            await one(SHA1("name"))
    else:
        assert await one(SHA1(Value("a"))) == hashlib.sha1(b"a", usedforsecurity=False).hexdigest()
    collation = {"postgresql": "C", "sqlite": "NOCASE", "mariadb": "utf8mb4_bin"}[world.database.kind]
    assert len(await Person.objects.order_by(Collate("name", collation))) == len(world.people)
    with pytest.raises(QueryError, match="no name of a collation"):
        Collate("name", 'C"; DROP TABLE')
    for wrong in (
        lambda: Left("name", -1),
        lambda: Substr("name", 0),
        lambda: Substr("name", 1, -1),
        lambda: Lower(),
        lambda: Lower("a", "b"),
    ):
        with pytest.raises(QueryError):
            wrong()


async def test_functions_of_numbers(world: World) -> None:
    cases: list[tuple[Any, Any]] = [
        (Abs("age"), over("age", abs)),
        (Abs("balance"), over("balance", abs)),
        (Ceil("score"), over("score", math.ceil)),
        (Floor("score"), over("score", math.floor)),
        (Floor("balance"), over("balance", math.floor)),
        (Round("score"), over("score", lambda s: float(fraction(0)(Decimal(s))))),
        (Round("balance", 1), over("balance", fraction(1))),
        (Sign("age"), over("age", lambda a: (a > 0) - (a < 0))),
        (Mod("age", 5), over("age", lambda a: int(math.fmod(a, 5)))),
        (Power("age", 3), over("age", lambda a: float(a**3))),
        (Sqrt(Abs("age")), over("age", lambda a: math.sqrt(abs(a)))),
        (Exp(Value(0.5) * F("age")), over("age", lambda a: math.exp(0.5 * a))),
        (Ln(Abs("age") + 1), over("age", lambda a: math.log(abs(a) + 1))),
        (Log(2, Abs("age") + 1), over("age", lambda a: math.log2(abs(a) + 1))),
        (Sin("age"), over("age", math.sin)),
        (Cos("age"), over("age", math.cos)),
        (Tan("age"), over("age", math.tan)),
        (Cot(F("age") + 0.5), over("age", lambda a: 1 / math.tan(a + 0.5))),
        (ASin(Value(0.5)), lambda p: math.asin(0.5)),
        (ACos(Value(0.5)), lambda p: math.acos(0.5)),
        (ATan("score"), over("score", math.atan)),
        (ATan2("age", 2), over("age", lambda a: math.atan2(a, 2))),
        (Degrees("score"), over("score", math.degrees)),
        (Radians("age"), over("age", math.radians)),
        (Pi(), lambda p: math.pi),
        (Coalesce("age", 5), lambda p: 5 if p.age is None else p.age),
        (Coalesce("age", "score", Value(1.0)), lambda p: float(there([p.age, p.score, 1.0])[0])),
        (NullIf("age", 36), lambda p: None if p.age == 36 else p.age),
        (Greatest("age", 20), over("age", lambda a: max(a, 20))),
        (Least("age", 20, "id"), over("age id", lambda a, i: min(a, 20, i))),
        (Greatest("age", Value(None)), lambda p: None),
    ]  # fmt: skip
    for expression, function in cases:
        found = await each(expression)
        assert near(found, [function(person) for person in world.people]), expression
    drawn = await each(Random())
    assert all(0 <= number < 1 for number in drawn)
    assert len(set(drawn)) > len(drawn) // 2
    assert len(await Person.objects.order_by(Random())) == len(world.people)
    with pytest.raises(QueryError):
        Round("score", 0.5)  # type: ignore[arg-type]


PYTHON = {
    "year": lambda v: v.year,
    "iso_year": lambda v: v.isocalendar().year,
    "quarter": lambda v: (v.month + 2) // 3,
    "month": lambda v: v.month,
    "week": lambda v: v.isocalendar().week,
    "day": lambda v: v.day,
    "week_day": lambda v: v.isoweekday() % 7 + 1,
    "iso_week_day": lambda v: v.isoweekday(),
    "hour": lambda v: v.hour,
    "minute": lambda v: v.minute,
    "second": lambda v: v.second,
}


def cut(value: Any, part: str) -> Any:
    """A point in time, cut down."""
    if part == "week":
        value -= dt.timedelta(days=value.weekday())
    if part == "quarter":
        value = value.replace(month=(value.month - 1) // 3 * 3 + 1)
    names = ["year", "month", "day", "hour", "minute", "second", "microsecond"]
    kept = {"quarter": "month", "week": "day"}.get(part, part)
    gone = [name for name in names[names.index(kept) + 1 :] if hasattr(value, name)]
    return value.replace(**{name: 1 if name in ("month", "day") else 0 for name in gone})


async def test_dates_and_times_are_taken_apart_and_cut(world: World) -> None:
    for part in PARTS:
        assert await each(Extract("joined", part)) == [over("joined", PYTHON[part])(p) for p in world.people], part
    for part in TRUNCATIONS:
        assert await each(Trunc("joined", part)) == [
            over("joined", lambda j, x=part: cut(j, x))(p) for p in world.people
        ], part
    for part in TRUNCATIONS[:5]:
        assert await each(Trunc("born", part)) == [
            over("born", lambda b, x=part: cut(b, x))(p) for p in world.people
        ], part
    for part in TRUNCATIONS[5:]:
        assert await each(Trunc("opens", part)) == [
            over("opens", lambda o, x=part: cut(o, x))(p) for p in world.people
        ], part
    assert await each(TruncDate("joined")) == [over("joined", lambda j: j.date())(p) for p in world.people]
    assert await each(TruncTime("joined")) == [over("joined", lambda j: j.time())(p) for p in world.people]
    assert await each(ExtractYear(TruncWeek("joined"))) == [
        over("joined", lambda j: cut(j, "week").year)(p) for p in world.people
    ]
    for wrong in (
        Trunc("born", "hour"),
        Trunc("opens", "day"),
        Trunc("age", "day"),
        Extract("born", "year", tzinfo=dt.UTC),
    ):
        with pytest.raises(QueryError):
            await each(wrong)
    with pytest.raises(QueryError, match="did you mean 'month'"):
        Extract("joined", "mnth")
    with pytest.raises(QueryError, match="did you mean 'minute'"):
        Trunc("joined", "minutes")


async def test_time_zones(world: World) -> None:
    east = dt.timezone(dt.timedelta(hours=5, minutes=30))
    expected = [over("joined", lambda j: j.astimezone(east).hour)(p) for p in world.people]
    assert await each(ExtractHour("joined", tzinfo=east)) == expected
    expected = [
        over("joined", lambda j: cut(j.astimezone(east).replace(tzinfo=None), "month"))(p) for p in world.people
    ]
    assert await each(TruncMonth("joined", tzinfo=east)) == expected
    west = dt.timezone(-dt.timedelta(hours=11))
    assert await each(TruncDate("joined", tzinfo=west)) == [
        over("joined", lambda j: j.astimezone(west).date())(p) for p in world.people
    ]
    oslo = ZoneInfo("Europe/Oslo")
    if world.database.kind == "mariadb":
        with pytest.raises(NotSupported, match="time zones"):
            await each(ExtractHour("joined", tzinfo=oslo))
        return
    assert await each(ExtractHour("joined", tzinfo=oslo)) == [
        over("joined", lambda j: j.astimezone(oslo).hour)(p) for p in world.people
    ]


async def test_now_is_the_clock_of_the_database(world: World) -> None:
    before = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    now = await one(Now())
    assert before < now < before + dt.timedelta(minutes=10)
    assert await Person.objects.filter(joined__gt=Now()).count() == len(
        [p for p in world.people if p.joined and p.joined > now]
    )


async def test_casts(world: World) -> None:
    cases: list[tuple[Any, Any]] = [
        (Cast("age", CharField(max_length=20)), over("age", str)),
        (Cast("age", TextField()), over("age", str)),
        (Cast("name", CharField(max_length=2)), lambda p: p.name[:2]),
        (Cast(Substr("name", Length("name")), IntegerField()), lambda p: int(p.name[-1])),
        (Cast("age", FloatField()), over("age", float)),
        (Cast("score", IntegerField()), over("score", lambda s: int(fraction(0)(Decimal(s))))),
        (Cast("balance", IntegerField()), over("balance", lambda b: int(fraction(0)(b)))),
        (Cast("age", DecimalField(max_digits=9, decimal_places=2)), over("age", Decimal)),
        (Cast("age", BooleanField()), over("age", bool)),
        (Cast("active", IntegerField()), lambda p: int(p.active)),
        (Cast("joined", DateField()), over("joined", lambda j: j.date())),
        (Cast("joined", TimeField()), over("joined", lambda j: j.time())),
        (Cast("born", DateTimeField()), over("born", lambda b: dt.datetime.combine(b, dt.time(), dt.UTC))),
        (Cast(Value("2024-02-29"), DateField()), lambda p: dt.date(2024, 2, 29)),
    ]
    for expression, function in cases:
        assert near(await each(expression), [function(person) for person in world.people]), expression
    wrapped = ExpressionWrapper(F("age") / 1, output_field=FloatField())
    assert near(await each(wrapped), [over("age", float)(person) for person in world.people])


async def test_case(world: World) -> None:
    group = Case(
        When(age__lt=0, then=Value("none")),
        When(Q(age__lt=21) & Q(active=True), then="young"),
        When(F("age") >= 21, then=F("name")),
        When(team__name="team 1", then=Concat("name", Value("!"))),
        default=Value("?"),
    )

    def python(person: Any) -> str:
        age, team = person.age, world.team_of(person)
        if age is not None and age < 0:
            return "none"
        if age is not None and age < 21 and person.active:
            return "young"
        if age is not None and age >= 21:
            return str(person.name)
        return f"{person.name}!" if team is not None and team.name == "team 1" else "?"

    assert await each(group) == [python(person) for person in world.people]
    found = await Person.objects.annotate(g=group).filter(g="young").order_by(group, "pk").values_list("pk", flat=True)
    assert found == [p.pk for p in world.people if python(p) == "young"]
    assert await each(Case(When(books__pages=100, then=1), default=0)) == [
        int(any(b.pages == 100 for b in world.books_of(p))) for p in world.people
    ]
    assert await each(Case(When(age__gt=20, then="age"), output_field=TextField())) == [
        "age" if p.age is not None and p.age > 20 else None for p in world.people
    ]
    assert await each(Case(default=F("age"))) == [p.age for p in world.people]
    assert await each(Q(age__gt=20)) == [None if p.age is None else p.age > 20 for p in world.people]
    for wrong in (lambda: When(then=1), lambda: Case(F("age")), lambda: When(F("age"), then=1)):  # type: ignore[arg-type]
        with pytest.raises(QueryError):
            wrong()


async def test_subqueries(world: World) -> None:
    titles = Book.objects.filter(author=OuterRef("pk")).order_by("-title", "pk").values("title")[:1]
    expected = [max((b.title for b in world.books_of(p)), default=None) for p in world.people]
    assert await each(Subquery(titles)) == expected
    assert await each(titles) == expected
    count = Book.objects.filter(author=OuterRef("pk")).values("author").annotate(n=Count("*")).values("n")
    assert await each(Coalesce(Subquery(count), 0)) == [len(world.books_of(p)) for p in world.people]
    thick = Exists(Book.objects.filter(author=OuterRef("pk"), pages__gt=OuterRef("age")))

    def has_thick(person: Any) -> bool:
        return person.age is not None and any(
            b.pages is not None and b.pages > person.age for b in world.books_of(person)
        )

    assert await each(thick) == [has_thick(p) for p in world.people]
    for query, wanted in (
        (Person.objects.filter(thick), True),
        (Person.objects.filter(~thick), False),
        (Person.objects.exclude(thick), False),
    ):
        assert sorted(await query.values_list("pk", flat=True)) == [
            p.pk for p in world.people if has_thick(p) is wanted
        ]
    assert sorted(await Person.objects.filter(thick | Q(age=None)).values_list("pk", flat=True)) == [
        p.pk for p in world.people if has_thick(p) or p.age is None
    ]
    # Two levels up, and through a condition across a relation.
    nested = Team.objects.filter(
        Exists(Person.objects.filter(team=OuterRef("pk")).filter(
            Exists(Award.objects.filter(person=OuterRef("pk"), points=OuterRef(OuterRef("pk"))))
        ))
    )  # fmt: skip
    assert sorted(await nested.values_list("pk", flat=True)) == [
        t.pk for t in world.teams
        if any(p.team_id == t.pk and any(x.points == t.pk for x in world.awards_of(p)) for p in world.people)
    ]  # fmt: skip
    through = Team.objects.filter(Exists(Person.objects.filter(team=OuterRef("pk"), awards__points=OuterRef("pk"))))
    assert sorted(await through.values_list("pk", flat=True)) == sorted(await nested.values_list("pk", flat=True))
    assert await through.exists()
    same = Person.objects.filter(
        books__pages=Subquery(Book.objects.filter(pages=OuterRef("age") + 64).order_by("pk").values("pages")[:1])
    )
    assert sorted(await same.values_list("pk", flat=True)) == [
        p.pk for p in world.people if p.age == 36 and any(b.pages == 100 for b in world.books_of(p))
    ]
    with pytest.raises(QueryError, match="no outer query"):
        await Person.objects.filter(name=OuterRef("name"))
    with pytest.raises(QueryError, match="no queryset"):
        Exists([1])
    with pytest.raises(QueryError, match="one column"):
        Subquery(Person.objects.values("pk", "name"))


async def test_json_is_made_and_taken_apart(world: World) -> None:
    expected = [
        {"name": p.name, "age": p.age, "active": p.active, "inner": {"data": p.data}, "list": [p.pk, None]}
        for p in world.people
    ]
    made = JSONObject(
        name="name", age="age", active="active", inner=JSONObject(data="data"), list=JSONArray("pk", Value(None))
    )
    assert await each(made) == expected
    assert await each(JSONExtract("data", "s")) == [
        p.data.get("s") if isinstance(p.data, dict) else None for p in world.people
    ]
    assert await each(JSONExtract("data", "s", output_field=TextField())) == [
        p.data.get("s") if isinstance(p.data, dict) else None for p in world.people
    ]
    numbers = [p.data.get("n") if isinstance(p.data, dict) else None for p in world.people]
    assert near(
        await each(JSONExtract("data", "n", output_field=FloatField())),
        [None if n is None else float(n) for n in numbers],
    )
    with pytest.raises(QueryError, match="a path is keys"):
        JSONExtract("data")


async def test_text_inside_of_json(world: World) -> None:
    def text(person: Any) -> Any:
        return person.data.get("s") if isinstance(person.data, dict) else None

    assert await each(KT("data__s")) == [text(p) for p in world.people]
    first = [p.data["l"][0] if isinstance(p.data, dict) and "l" in p.data else None for p in world.people]
    assert await each(KT("data__l__0")) == [None if n is None else str(n) for n in first]
    assert await each(Upper(KT("data__s"))) == [None if (t := text(p)) is None else t.upper() for p in world.people]
    query = Person.objects.annotate(s=KT("data__s"))
    assert sorted(await query.filter(s__startswith="fi").values_list("pk", flat=True)) == [
        p.pk for p in world.people if (text(p) or "").startswith("fi")
    ]
    texts = [t for p in world.people if (t := text(p)) is not None]
    assert await query.filter(s__isnull=False).order_by("s", "pk").values_list("s", flat=True) == sorted(texts)
    counted = await query.values("s").annotate(n=Count("*"))
    assert {row["s"]: row["n"] for row in counted} == {
        t: len([p for p in world.people if text(p) == t]) for t in {text(p) for p in world.people}
    }
    assert await Book.objects.order_by("pk").annotate(s=KT("author__data__s")).values_list("s", flat=True) == [
        text(next(p for p in world.people if p.pk == b.author_id)) for b in world.books
    ]


async def test_a_function_of_ones_own(world: World) -> None:
    class Doubled(Func[int]):
        """Twice a number, or more."""

        arity = (1, 1)
        output_field = IntegerField()

        def __init__(self, expression: Any, times: int = 2) -> None:
            super().__init__(expression)
            self.times = times

        def options(self) -> Any:
            return self.times

        def sql(self, scope: Any, *arguments: Any) -> Any:
            return arguments[0].op("*", precedence=8)(literal_column(str(int(self.times))))

    class Initial(Func[str]):
        """The first letter of a text."""

        function = "substr"
        output_field = TextField()

        def sql(self, scope: Any, *arguments: Any) -> Any:
            return func.substr(arguments[0], literal_column("1"), literal_column("1"))

    assert await each(Doubled("age")) == [over("age", lambda a: 2 * a)(p) for p in world.people]
    # What it depends on besides its arguments makes another statement.
    assert await each(Doubled("age", 3)) == [over("age", lambda a: 3 * a)(p) for p in world.people]
    assert await each(Initial(Case(When(active=True, then="name"), default=F("name")))) == [
        "n" if p.active else p.name[0] for p in world.people
    ]
    assert await Person.objects.filter(Doubled("age") > 50).count() == len(
        [p for p in world.people if p.age is not None and p.age > 25]
    )


async def test_values_are_parameters_of_their_type(world: World) -> None:
    for value in (
        1,
        -1.5,
        "text",
        "it's",
        True,
        None,
        Decimal("1.25"),
        LEAP,
        LEAP.date(),
        LEAP.time(),
        dt.timedelta(1, 2, 3),
        b"\0\xff",
        {"a": [1]},
        [1],
    ):
        found = await one(Value(value))
        assert found == value
        assert type(found) is type(value)
    with pytest.raises(QueryError, match="no field is known"):
        await one(Value(object()))


LEAP = dt.datetime(2024, 2, 29, 12, 30, 15, 5, tzinfo=dt.UTC)


async def test_one_statement_for_all_values(world: World) -> None:
    """A query is compiled once for its shape; values with other types, or other fields, are another shape."""
    plans = world.database.plans

    async def made(query: Any) -> int:
        before = len(plans)
        await query
        return len(plans) - before

    def query(value: Any, places: int = 2) -> Any:
        return Person.objects.annotate(
            x=Coalesce("age", value),
            y=Cast("age", DecimalField(max_digits=9, decimal_places=places)),
            z=Case(When(age__gt=value, then=Value(value)), default=Value(0)),
        )

    assert await made(query(1)) == 1
    assert await made(query(2)) == 0
    assert await made(query(2, places=3)) == 1
    assert await made(query(4, places=3)) == 0
    assert await made(Person.objects.filter(age__in=[1, 2, 3])) == 1
    assert await made(Person.objects.filter(age__in=[4, 5, 6, 7])) == 0
    # Same texts in other places are no same statement.
    assert await made(Person.objects.filter(age=F("id"))) == 1
    assert await made(Person.objects.filter(age=1, id=F("id"))) == 1


async def test_annotations(world: World) -> None:
    person = await Person.objects.annotate(next=F("age") + 1, twice=F("next") * 2).filter(age=36).order_by("pk").first()
    assert person is not None
    assert (person.next, person.twice) == (37, 74)  # type: ignore[attr-defined]
    query = Person.objects.alias(next=F("age") + 1).filter(next=37)
    found = await query.order_by("-next", "pk").first()
    assert found == person
    assert not hasattr(found, "next")
    assert await query.values("next") == [{"next": 37}] * len([p for p in world.people if p.age == 36])
    assert "next" not in (await query.values())[0]
    assert hasattr(await query.annotate(next=F("next")).first(), "next")
    for name in ("name", "team", "save", "pk", "objects", "a b", "1", "", "__x", "x" * 64):
        with pytest.raises((FieldError, QueryError)):
            Person.objects.annotate(**{name: F("age")})
    with pytest.raises(FieldError, match="no field 'agee'"):
        await Person.objects.annotate(x=F("agee"))
    with pytest.raises(QueryError, match="after a slice"):
        Person.objects.all()[:2].annotate(x=F("age"))
