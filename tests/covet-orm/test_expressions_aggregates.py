"""Aggregates, groups and window functions, against Python's own results on every database."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.orm_people import Award, Book, Person, Team, World, people

from covet_orm.exceptions import FieldError, NotSupported, QueryError
from covet_orm.expressions import (
    AnyValue,
    ArrayAgg,
    Avg,
    BoolAnd,
    BoolOr,
    Case,
    Count,
    CumeDist,
    DenseRank,
    F,
    FirstValue,
    GroupRange,
    JSONArrayAgg,
    Lag,
    LastValue,
    Lead,
    Max,
    Min,
    NthValue,
    Ntile,
    OuterRef,
    PercentRank,
    Q,
    Rank,
    RowNumber,
    RowRange,
    StdDev,
    StringAgg,
    Subquery,
    Sum,
    Value,
    ValueRange,
    Variance,
    When,
    Window,
)
from covet_orm.expressions.functions import Coalesce, Length, Lower, Trunc

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    """The objects, on each database in turn."""
    async with people(url) as made:
        yield made


def there(values: Sequence[Any]) -> list[Any]:
    """The values that are not None."""
    return [value for value in values if value is not None]


def of_some(function: Callable[[list[Any]], Any], least: int = 1) -> Callable[[Sequence[Any]], Any]:
    """A function of the values that are not None; None of too few."""
    return lambda values: function(there(values)) if len(there(values)) >= least else None


NUMBERS: dict[str, tuple[Callable[[Any], Any], Callable[[Sequence[Any]], Any]]] = {
    "count": (Count, lambda values: len(there(values))),
    "distinct": (
        lambda of, filter=None: Count(of, distinct=True, filter=filter),
        lambda values: len(set(there(values))),
    ),
    "sum": (Sum, of_some(sum)),
    "once": (lambda of, filter=None: Sum(of, distinct=True, filter=filter), of_some(lambda values: sum(set(values)))),
    "min": (Min, of_some(min)),
    "max": (Max, of_some(max)),
    "avg": (Avg, of_some(lambda values: float(sum(values)) / len(values))),
    "stddev": (StdDev, of_some(lambda values: statistics.pstdev(map(float, values)))),
    "variance": (Variance, of_some(lambda values: statistics.pvariance(list(map(float, values))))),
    "sample": (
        lambda of, filter=None: Variance(of, sample=True, filter=filter),
        of_some(lambda values: statistics.variance(list(map(float, values))), 2),
    ),
}  # fmt: skip


def close(found: Any, expected: Any) -> bool:
    """Whether two numbers are the same, as near as floats are."""
    if found is None or expected is None:
        return found is expected
    return math.isclose(float(found), float(expected), rel_tol=1e-9, abs_tol=1e-6)


FILTERS: list[tuple[Q | None, Callable[[Person], bool]]] = [
    (None, lambda p: True),
    (Q(active=True), lambda p: p.active),
    (Q(age__gt=10), lambda p: p.age is not None and p.age > 10),
    (~Q(age__gt=10), lambda p: p.age is None or p.age <= 10),
    (Q(books__isnull=False), lambda p: True),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(NUMBERS)),
    of=st.sampled_from(["age", "score", "balance", "id"]),
    number=st.integers(0, 3),
    where=st.integers(0, 3),
    key=st.sampled_from([None, "active", "team", "team__city"]),
)
async def test_aggregates_of_rows(world: World, name: str, of: str, number: int, where: int, key: str | None) -> None:
    make, python = NUMBERS[name]
    condition, holds = FILTERS[number]
    restriction, kept = FILTERS[where]
    query = Person.objects.filter(restriction) if restriction is not None else Person.objects.all()
    rows = [person for person in world.people if kept(person)]

    def group_of(person: Person) -> Any:
        if key == "team__city":
            team = world.team_of(person)
            return None if team is None else team.city
        return getattr(person, "team_id" if key == "team" else key or "pk")

    def result(some: Sequence[Person]) -> Any:
        return python([getattr(person, of) for person in some if holds(person)])

    if key is None:
        assert close((await query.aggregate(x=make(of, filter=condition)))["x"], result(rows))
        return
    found = {row[key]: row["x"] for row in await query.values(key).annotate(x=make(of, filter=condition))}
    groups = {value: [person for person in rows if group_of(person) == value] for value in map(group_of, rows)}
    assert found.keys() == groups.keys()
    for value, some in groups.items():
        assert close(found[value], result(some)), (value, found[value], result(some))
    if name in ("count", "sum"):
        kept_groups = {
            row[key] for row in await query.values(key).annotate(x=make(of, filter=condition)).filter(x__gt=1)
        }
        assert kept_groups == {
            value for value, some in groups.items() if (total := result(some)) is not None and total > 1
        }


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.sampled_from(sorted(NUMBERS)),
    second=st.sampled_from(sorted(NUMBERS)),
    of=st.sampled_from(["pages", "price", "chapters__words"]),
    filtered=st.booleans(),
)
async def test_aggregates_of_relations_do_not_multiply(
    world: World, first: str, second: str, of: str, filtered: bool
) -> None:
    """Django's ticket 10060: each aggregate is of its own relation."""
    make, python = NUMBERS[first]
    other, of_awards = NUMBERS[second]
    condition = Q(books__pages__gte=100) if filtered else None
    query = Person.objects.annotate(x=make(f"books__{of}", filter=condition), y=other("awards__points")).order_by("pk")

    def values(person: Person) -> list[Any]:
        books = [b for b in world.books_of(person) if not filtered or (b.pages is not None and b.pages >= 100)]
        if of == "chapters__words":
            # A book without chapters has one row, with NULL.
            return [c.words for b in books for c in world.chapters_of(b)]
        return [getattr(b, of) for b in books]

    expected = [(python(values(p)), of_awards([x.points for x in world.awards_of(p)])) for p in world.people]
    found = await query.values_list("x", "y")
    assert len(found) == len(expected)
    for (x, y), (a, b) in zip(found, expected, strict=True):
        assert close(x, a), (x, a)
        assert close(y, b), (y, b)
    over = sorted(await query.filter(x__gt=100, y__gte=1).values_list("pk", flat=True))
    assert over == [
        p.pk
        for p, (a, b) in zip(world.people, expected, strict=True)
        if a is not None and a > 100 and b is not None and b >= 1
    ]
    totals = await Person.objects.aggregate(
        x=make(f"books__{of}", filter=condition), y=other("awards__points"), n=Count("*")
    )
    assert close(totals["x"], python([value for p in world.people for value in values(p)]))
    assert close(totals["y"], of_awards([x.points for x in world.awards]))
    assert totals["n"] == len(world.people)


async def test_objects_have_their_aggregates(world: World) -> None:
    query = Person.objects.annotate(books_=Count("books"), red=Count("books", filter=Q(books__tags__word="red")))
    for person in await query.filter(books_=2).order_by("-red", "pk"):
        found: Any = person
        books = world.books_of(person)
        assert (found.books_, found.red) == (2, len([b for b in books if "red" in world.words_of(b)]))
        assert len(books) == 2
    assert await query.filter(books_=2).count() == len([p for p in world.people if len(world.books_of(p)) == 2])
    none = await Person.objects.annotate(
        s=Sum("books__pages", default=0), n=Count("books__tags", distinct=True)
    ).order_by("pk")
    for person, found in zip(world.people, none, strict=True):
        assert found.s == sum(b.pages or 0 for b in world.books_of(person))
        assert found.n == len({word for b in world.books_of(person) for word in world.words_of(b)})
    # The members of a team, through it; those of a team that has none; a relation to one on the way.
    assert await Person.objects.order_by("pk").annotate(n=Count("team__members")).values_list("n", flat=True) == [
        len([q for q in world.people if p.team_id is not None and q.team_id == p.team_id]) for p in world.people
    ]
    assert await Team.objects.order_by("pk").annotate(n=Count("members__books")).values_list("n", flat=True) == [
        sum(len(world.books_of(p)) for p in world.people if p.team_id == t.pk) for t in world.teams
    ]
    assert await Book.objects.annotate(n=Count("author__awards")).order_by("pk").values_list("n", flat=True) == [
        len([x for x in world.awards if x.person_id == b.author_id]) for b in world.books
    ]
    # Of the aggregate's own rows, and of the row out there.
    query = Person.objects.annotate(n=Count("books", filter=Q(books__pages__gt=F("age"))))
    assert await query.order_by("pk").values_list("n", flat=True) == [
        len([b for b in world.books_of(p) if b.pages is not None and p.age is not None and b.pages > p.age])
        for p in world.people
    ]
    query = Person.objects.annotate(n=Sum(F("books__price") * F("balance")))
    for found, person in zip(await query.order_by("pk"), world.people, strict=True):
        books = world.books_of(person)
        expected = (
            sum((b.price * person.balance for b in books), Decimal(0)) if books and person.balance is not None else None
        )
        assert found.n == expected


async def test_what_cannot_be_grouped(world: World) -> None:
    with pytest.raises(QueryError, match="does not group"):
        await Person.objects.annotate(n=Count("*"))
    with pytest.raises(QueryError, match="multiply"):
        await Person.objects.values("name").annotate(a=Count("books"), b=Count("awards"))
    with pytest.raises(QueryError, match="multiply"):
        await Person.objects.values("name").annotate(a=Count("books"), b=Sum("age"))
    # What does not change when it is repeated may stand beside.
    await Person.objects.values("active").annotate(a=Count("books"), b=Max("age"), c=Count("team", distinct=True))
    with pytest.raises(QueryError, match="many values in a group"):
        await Person.objects.values("team").annotate(n=Count("*")).order_by("name")
    # One field by another name is the same.
    await Person.objects.values("team", "active").annotate(n=Count("*")).order_by("team_id", Person.active, "-n")
    await Person.objects.values("pk").annotate(n=Count("*")).order_by("id").filter(Q(n=1) | Q(id=1))
    for wrong in (
        Person.objects.values("team").annotate(n=Count("*")).filter(Q(n__gt=1) | Q(age=3)),
        Person.objects.values("team").annotate(n=Count("*")).filter(F("n") > F("age")),
        Person.objects.values("team").annotate(n=Count("*"), low=Lower("name")),
        Person.objects.annotate(x=F("age")).values("team").annotate(n=Count("*")).values("team", "x"),
        Person.objects.values("team").annotate(n=Count("*"), w=Window(Rank(), order_by="age")),
    ):
        with pytest.raises(QueryError, match="many values in a group"):
            await wrong
    with pytest.raises(QueryError, match="aggregate of an aggregate"):
        await Person.objects.values("team").annotate(n=Count(Sum("age")))
    with pytest.raises(QueryError, match="two relations"):
        await Person.objects.annotate(n=Sum(F("books__pages") + F("awards__points")))
    with pytest.raises(QueryError, match="an aggregate is needed"):
        await Person.objects.aggregate(x=F("age"))
    with pytest.raises(QueryError, match="give it a name"):
        await Person.objects.aggregate(Count("*"))
    with pytest.raises(QueryError, match="condition is needed"):
        Count("age", filter=1)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="cannot be added up"):
        await Person.objects.aggregate(x=Sum("name"))
    with pytest.raises(FieldError, match="did you mean 'books'"):
        await Person.objects.annotate(n=Count("boks"))


async def test_groups(world: World) -> None:
    def members(team: Any) -> list[Person]:
        return [p for p in world.people if p.team_id == team]

    found = await Person.objects.values("team").annotate(n=Count("*")).order_by("-n", "team")
    teams = {p.team_id for p in world.people}
    assert {row["team"]: row["n"] for row in found} == {team: len(members(team)) for team in teams}
    assert [row["n"] for row in found] == sorted((len(members(team)) for team in teams), reverse=True)
    assert await Person.objects.values("team").annotate(n=Count("*")).count() == len(teams)
    assert await Person.objects.values("team").annotate(n=Count("*")).filter(n__gt=100).exists() is False
    # The expression in values(), and a second choice after it: the group stays.
    assert sorted(await Person.objects.values_list("active", n=Count("*"))) == sorted(
        (flag, len([p for p in world.people if p.active is flag])) for flag in {p.active for p in world.people}
    )
    count = Person.objects.filter(team=OuterRef("pk")).values("team").annotate(n=Count("*")).values("n")
    assert await Team.objects.order_by("pk").annotate(n=Coalesce(Subquery(count), 0)).values_list("n", flat=True) == [
        len(members(t.pk)) for t in world.teams
    ]
    # By an expression, by an annotation that is itself a subquery, by what a relation to many leads to.
    found = (
        await Person.objects.annotate(length=Length("name")).values("length").annotate(n=Count("*")).order_by("length")
    )
    lengths = {len(p.name) for p in world.people}
    assert found == [{"length": x, "n": len([p for p in world.people if len(p.name) == x])} for x in sorted(lengths)]
    found = await Person.objects.annotate(k=Count("books")).values("k").annotate(n=Count("*")).order_by("k")
    sizes = {len(world.books_of(p)) for p in world.people}
    assert found == [
        {"k": x, "n": len([p for p in world.people if len(world.books_of(p)) == x])} for x in sorted(sizes)
    ]
    found = await Person.objects.filter(books__isnull=False).values("books__pages").annotate(n=Count("*"))
    assert {row["books__pages"]: row["n"] for row in found} == {
        pages: len([b for b in world.books if b.pages == pages]) for pages in {b.pages for b in world.books}
    }
    found = (
        await Person.objects.filter(joined__isnull=False)
        .annotate(y=Trunc("joined", "year"))
        .values("y")
        .annotate(n=Count("*"))
        .order_by("y")
    )
    years = sorted({p.joined.year for p in world.people if p.joined})
    assert [(row["y"].year, row["n"]) for row in found] == [
        (y, len([p for p in world.people if p.joined and p.joined.year == y])) for y in years
    ]
    # What an aggregate is made of, and conditions on several of them.
    query = Person.objects.values("active").annotate(a=Sum("age", default=0), b=Count("*"), c=F("a") / F("b"))
    for row in await query.filter(Q(a__gt=0) | Q(b__gt=0)).filter(c__gte=-1000):
        some = [p for p in world.people if p.active is row["active"]]
        assert close(row["c"], sum(p.age or 0 for p in some) / len(some))
    # WHERE before the groups, HAVING of them, in one call.
    found = await Person.objects.values("team").annotate(n=Count("*")).filter(n__gte=2, age__isnull=False)
    expected = {team: len([p for p in members(team) if p.age is not None]) for team in teams}
    assert {row["team"]: row["n"] for row in found} == {team: n for team, n in expected.items() if n >= 2}
    assert (await Person.objects.values("team").annotate(n=Count("*")).aggregate(most=Max("n"), sum=Sum("n"))) == {
        "most": max(len(members(team)) for team in teams), "sum": len(world.people),
    }  # fmt: skip


async def test_aggregate_of_whole_queries(world: World) -> None:
    ages = there([p.age for p in world.people])
    assert await Person.objects.aggregate(Max("age"), Count("books"), low=Min(Person.age)) == {
        "age__max": max(ages), "books__count": len(world.books), "low": min(ages),
    }  # fmt: skip
    assert await Person.objects.aggregate() == {}
    assert await Person.objects.aggregate(x=Max("age") - Min("age"), y=Coalesce(Sum("books__pages"), 0) + 1) == {
        "x": max(ages) - min(ages), "y": sum(there([b.pages for b in world.books])) + 1,
    }  # fmt: skip
    first = world.people[:3]
    assert await Person.objects.order_by("pk")[:3].aggregate(n=Count("*"), s=Sum("age", default=0)) == {
        "n": 3, "s": sum(there([p.age for p in first])),
    }  # fmt: skip
    assert await Person.objects.values("team").distinct().aggregate(n=Count("*")) == {
        "n": len({p.team_id for p in world.people})
    }
    assert await Person.objects.annotate(k=Count("books")).aggregate(m=Max("k"), s=Sum("k")) == {
        "m": max(len(world.books_of(p)) for p in world.people), "s": len(world.books),
    }  # fmt: skip
    assert await Person.objects.none().aggregate(n=Count("*"), s=Sum("age")) == {"n": 0, "s": None}
    assert await Person.objects.filter(pk=0).aggregate(n=Count("*"), s=Sum("age", default=7), a=Avg("age")) == {
        "n": 0,
        "s": 7,
        "a": None,
    }
    conditional = await Person.objects.aggregate(
        young=Count(Case(When(age__lt=21, then=1))),
        old=Sum(Case(When(age__gte=21, then=F("age")), default=Value(0))),
        both=Count("*", filter=Q(age__lt=21) | Q(age__gte=21)),
    )
    assert conditional == {
        "young": len([x for x in ages if x < 21]), "old": sum(x for x in ages if x >= 21), "both": len(ages),
    }  # fmt: skip
    some = await Person.objects.aggregate(
        every=BoolAnd("active"), some=BoolOr("active"), one=AnyValue("name"), few=AnyValue("age", filter=Q(age=36))
    )
    assert some["every"] is all(p.active for p in world.people)
    assert some["some"] is any(p.active for p in world.people)
    assert some["one"] in {p.name for p in world.people}
    assert some["few"] == 36
    prices = [b.price for b in world.books]
    money = await Book.objects.aggregate(s=Sum("price"), a=Avg("price"), d=Sum("price", distinct=True))
    assert money["s"] == sum(prices)
    assert money["d"] == sum(set(prices))
    assert money["a"] == (sum(prices) / len(prices)).quantize(Decimal("0.000001"))
    spans = there([p.span for p in world.people])
    assert (await Person.objects.aggregate(s=Sum("span")))["s"] == sum(spans[1:], spans[0])


async def test_values_are_collected(world: World) -> None:
    for row in await Person.objects.values("active").annotate(
        up=StringAgg("name", "|", order_by=["name", "pk"]),
        down=StringAgg("name", ", ", order_by=["-name", "pk"], filter=Q(age__gt=0)),
        once=StringAgg("name", "", distinct=True, order_by="name"),
        ages=StringAgg("age", "+", order_by="pk"),
        late=StringAgg("name", order_by=[F("age").desc(nulls="last"), "pk"]),
        json=JSONArrayAgg("age", order_by="pk"),
        whole=JSONArrayAgg("data", order_by="pk", filter=Q(age__gt=0)),
        few=StringAgg("name", filter=Q(age=12345), default=Value("none")),
    ):
        some = [p for p in world.people if p.active is row["active"]]
        binary = world.database.kind != "mariadb"
        names = sorted((p.name for p in some), key=lambda name: name if binary else name.lower())
        assert sorted(row["up"].split("|")) == sorted(names)
        if binary:
            old = sorted([p.name for p in some if p.age is not None and p.age > 0], reverse=True)
            assert row["down"] == (", ".join(old) or None)
            assert row["once"] == "".join(sorted(set(names)))
        assert row["ages"] == ("+".join(str(p.age) for p in some if p.age is not None) or None)
        aged = sorted((p for p in some if p.age is not None), key=lambda p: (-p.age, p.pk))
        assert row["late"] == ",".join(p.name for p in [*aged, *(p for p in some if p.age is None)])
        assert row["json"] == [p.age for p in some]
        assert row["whole"] == ([p.data for p in some if p.age is not None and p.age > 0] or None)
        assert row["few"] == "none"
    titles = Person.objects.order_by("pk").annotate(
        t=StringAgg("books__title", ";", order_by="-books__title"), j=JSONArrayAgg("books__pages", order_by="books__id")
    )
    assert await titles.values_list("t", "j") == [
        (
            ";".join(sorted((b.title for b in world.books_of(p)), reverse=True)) or None,
            [b.pages for b in world.books_of(p)] or None,
        )
        for p in world.people
    ]
    arrays = Person.objects.order_by("pk").annotate(a=ArrayAgg("books__pages", order_by="books__id"))
    if world.database.kind == "postgresql":
        assert await arrays.values_list("a", flat=True) == [
            [b.pages for b in world.books_of(p)] or None for p in world.people
        ]
        found = await Person.objects.aggregate(
            a=ArrayAgg("joined", order_by="pk", filter=Q(joined__isnull=False)), d=ArrayAgg("active", distinct=True)
        )
        assert found["a"] == [p.joined for p in world.people if p.joined]
        assert sorted(found["d"]) == sorted({p.active for p in world.people})
    else:
        with pytest.raises(NotSupported, match="JSONArrayAgg"):
            await arrays


async def test_texts_are_joined_in_any_order_and_each_once(world: World) -> None:
    """On each database, whose own functions for it have other words, and some no order."""
    with_pages = Q(books__pages__isnull=False)
    for order, key in (
        ("books__pages", lambda b: (b.pages, b.pk)),
        ("-books__pages", lambda b: (-b.pages, b.pk)),
        (Length("books__title"), lambda b: (len(b.title), b.pk)),
    ):
        query = Person.objects.order_by("pk").annotate(
            t=StringAgg("books__title", ";", filter=with_pages, order_by=[order, "books__id"])  # type: ignore[list-item]
        )
        assert await query.values_list("t", flat=True) == [
            ";".join(b.title for b in sorted((b for b in world.books_of(p) if b.pages is not None), key=key)) or None  # type: ignore[no-any-return]
            for p in world.people
        ], order
    everything = await Book.objects.aggregate(
        up=StringAgg("title", "|", distinct=True, order_by="title"),
        down=StringAgg("title", "|", distinct=True, order_by="-title"),
        low=StringAgg(Lower("title"), "|", distinct=True, order_by=Lower("title").desc()),
    )
    titles = sorted({b.title for b in world.books})
    assert everything["up"] == "|".join(titles)
    assert everything["down"] == "|".join(reversed(titles))
    assert everything["low"] == "|".join(reversed(titles))
    numbers = Book.objects.aggregate(n=StringAgg("pages", "|", distinct=True, order_by="pages"))
    other = Book.objects.aggregate(n=StringAgg("title", "|", distinct=True, order_by="-pk"))
    if world.database.kind == "postgresql":
        for query in (numbers, other, Book.objects.aggregate(n=ArrayAgg("title", distinct=True, order_by="pk"))):
            with pytest.raises(NotSupported, match="by themselves alone"):
                await query
        ages = await Book.objects.aggregate(n=ArrayAgg("pages", distinct=True, order_by=F("pages").desc(nulls="last")))
        pages = {b.pages for b in world.books}
        assert ages["n"] == [*sorted(pages - {None}, reverse=True), *(pages & {None})]  # type: ignore[type-var]
    else:
        pages_ = sorted({b.pages for b in world.books if b.pages is not None})
        assert (await numbers)["n"] == "|".join(map(str, pages_))
        assert set((await other)["n"].split("|")) == set(titles)


async def test_windows(world: World) -> None:
    rows = await Person.objects.order_by("pk").annotate(
        number=Window(RowNumber(), order_by="-pk"),
        rank=Window(Rank(), order_by=F("age").asc(nulls="first")),
        dense=Window(DenseRank(), partition_by="active", order_by=F("age").asc(nulls="first")),
        part=Window(PercentRank(), order_by=F("age").asc(nulls="first")),
        cume=Window(CumeDist(), order_by=F("age").asc(nulls="first")),
        tile=Window(Ntile(3), order_by="pk"),
        before=Window(Lag("name"), order_by="pk"),
        after=Window(Lead("age", 2), order_by="pk"),
        first=Window(FirstValue("pk"), partition_by=["active"], order_by="pk"),
        last=Window(LastValue("pk"), partition_by="active", order_by="pk", frame=RowRange()),
        third=Window(NthValue("pk", 3), order_by="pk", frame=RowRange()),
        total=Window(Sum("age"), partition_by="team"),
        running=Window(Sum("age", default=None), order_by="pk"),
        around=Window(Avg("pk"), order_by="pk", frame=RowRange(-1, 1)),
        values_=Window(Count("*"), order_by="pk", frame=ValueRange(0, None)),
        old=Window(Count("*", filter=Q(age__gt=10)), partition_by="active"),
    )
    people_ = world.people
    ages = sorted((p.age is not None, p.age or 0) for p in people_)
    for position, (row, p) in enumerate(zip(rows, people_, strict=True)):
        found: Any = row
        mine = (p.age is not None, p.age or 0)
        same = [q for q in people_ if q.active is p.active]
        assert found.number == len(people_) - position
        assert found.rank == ages.index(mine) + 1
        assert found.dense == sorted({(q.age is not None, q.age or 0) for q in same}).index(mine) + 1
        assert close(found.part, ages.index(mine) / (len(ages) - 1))
        assert close(found.cume, len([x for x in ages if x <= mine]) / len(ages))
        sizes = [len(people_) // 3 + (n < len(people_) % 3) for n in range(3)]
        assert found.tile == [n + 1 for n, size in enumerate(sizes) for _ in range(size)][position]
        assert found.before == (people_[position - 1].name if position else None)
        assert found.after == (people_[position + 2].age if position + 2 < len(people_) else None)
        assert (found.first, found.last) == (same[0].pk, same[-1].pk)
        assert found.third == people_[2].pk
        assert found.total == of_some(sum)([q.age for q in people_ if q.team_id == p.team_id])
        assert found.running == of_some(sum)([q.age for q in people_[: position + 1]])
        near = people_[max(position - 1, 0) : position + 2]
        assert close(found.around, sum(q.pk for q in near) / len(near))
        assert found.values_ == len(people_) - position
        assert found.old == len([q for q in same if q.age is not None and q.age > 10])
    groups = Person.objects.annotate(n=Window(Count("*"), order_by="active", frame=GroupRange(0, 0)))
    if world.database.kind == "mariadb":
        with pytest.raises(NotSupported, match="GROUPS"):
            await groups
        with pytest.raises(NotSupported, match="default"):
            await Person.objects.annotate(x=Window(Lag("age", 1, 0), order_by="pk"))
    else:
        assert {p.n == len([q for q in people_ if q.active is p.active]) for p in await groups} == {True}
        lagged = (
            await Person.objects.order_by("pk")
            .annotate(x=Window(Lag("age", 1, -9), order_by="pk"))
            .values_list("x", flat=True)
        )
        assert lagged == [-9, *(p.age for p in people_[:-1])]


async def test_conditions_on_windows(world: World) -> None:
    ranked = Person.objects.annotate(place=Window(RowNumber(), partition_by="active", order_by=["name", "pk"]))
    firsts = [p async for p in ranked.filter(place=1)]
    assert len(firsts) == len({p.active for p in world.people})
    everything = await ranked.values_list("pk", "place")
    places = dict(everything)
    for most in (1, 2, 3):
        expected = sorted(pk for pk, place in places.items() if place <= most)
        query = ranked.filter(place__lte=most)
        assert sorted(await query.values_list("pk", flat=True)) == expected
        assert await query.count() == len(expected)
        assert await query.exists()
        # In an order and a slice of what was not chosen, beside other conditions, which the window does not see.
        ordered = await query.filter(age__isnull=False).order_by("-age", "pk").values_list("pk", flat=True)
        aged = Person.objects.filter(age__isnull=False).annotate(
            place=Window(RowNumber(), partition_by="active", order_by=["name", "pk"])
        )
        place_of = dict(await aged.values_list("pk", "place"))
        wanted = sorted(
            (p for p in world.people if p.age is not None and place_of[p.pk] <= most), key=lambda p: (-p.age, p.pk)
        )
        assert ordered == [p.pk for p in wanted]
        assert await query.filter(age__isnull=False).order_by("-age", "pk")[1:2].values_list("pk", flat=True) == [
            p.pk for p in wanted[1:2]
        ]
    either = ranked.filter(Q(place=1) | Q(team__name="team 1"))
    assert sorted(await either.values_list("pk", flat=True)) == sorted(
        p.pk for p in world.people if places[p.pk] == 1 or ((t := world.team_of(p)) is not None and t.name == "team 1")
    )
    assert sorted(await ranked.exclude(place=1).values_list("pk", flat=True)) == sorted(
        pk for pk, place in places.items() if place != 1
    )
    with_books = ranked.filter(place__lte=2, books__isnull=False)
    assert await with_books.count() >= 0
    related = await ranked.filter(place=1).select_related("team").order_by("team__name", "pk")
    assert [p.team is None or p.team.name for p in related]
    totals = await ranked.filter(place__lte=2).aggregate(n=Count("*"), m=Max("place"))
    assert totals == {"n": len([x for x in places.values() if x <= 2]), "m": 2}
    objects = await Book.objects.filter(author__in=ranked.filter(place=1)).values_list("author", flat=True)
    assert set(objects) <= {p.pk for p in firsts}
    # Windows over groups: the aggregate first, then the window.
    grouped = Person.objects.values("team").annotate(n=Count("*"), place=Window(Rank(), order_by=F("n").desc()))
    sizes = sorted(
        (len([p for p in world.people if p.team_id == t]) for t in {p.team_id for p in world.people}), reverse=True
    )
    assert sorted(row["place"] for row in await grouped) == sorted(sizes.index(row["n"]) + 1 for row in await grouped)
    assert [row["n"] for row in await grouped.filter(place=1)] == [n for n in sizes if n == sizes[0]]


async def test_what_is_no_window() -> None:
    for wrong in (
        lambda: Window(F("age")),
        lambda: Window(Rank(), frame=(1, 2)),  # type: ignore[arg-type]
        lambda: RowRange(2, 1),
        lambda: RowRange("1; DROP", 1),  # type: ignore[arg-type]
        lambda: Ntile(0),
        lambda: Lag("age", -1),
        lambda: NthValue("age", 0),
        lambda: Ntile("1) OVER (); --"),  # type: ignore[arg-type]
    ):
        with pytest.raises(QueryError):
            wrong()


async def test_many_shapes_of_awards(world: World) -> None:
    """Lower-case names in both directions of a relation, in one statement."""
    query = Award.objects.annotate(n=Count("person__books"), low=Lower("person__name")).order_by("pk")
    by_key = {p.pk: p for p in world.people}
    assert await query.values_list("n", "low") == [
        (len(world.books_of(by_key[x.person_id])), by_key[x.person_id].name.lower()) for x in world.awards
    ]
    assert list(itertools.islice(await query, 1))
