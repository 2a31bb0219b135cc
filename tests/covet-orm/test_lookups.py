"""Lookups: every one of them against Python's own evaluation, on every database; `exclude` is the complement of
`filter`, whatever is NULL."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func
from tests.orm_people import Award, Book, Person, Tag, Team, World, people

from covet_orm.exceptions import DataError, FieldError, NotSupported, ProgrammingError, QueryError
from covet_orm.expressions import F, Q, Value
from covet_orm.expressions.conditions import Condition
from covet_orm.fields import CharField, IntegerField
from covet_orm.fields.inference import INTEGER
from covet_orm.queries.lookup_names import register_lookup, register_transform
from covet_orm.queries.lookups import Lookup, Transform

pytestmark = pytest.mark.anyio

Predicate = Callable[[World, Any], bool]


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    """The objects, on each database in turn."""
    async with people(url) as made:
        yield made


async def ids(query: Any) -> list[int]:
    """The keys of a query's objects, in order."""
    return sorted(await query.values_list("pk", flat=True))


def keys(objects: Iterable[Any]) -> list[int]:
    """The keys of objects, in order."""
    return sorted(one.pk for one in objects)


def a(name: str, test: Callable[[Any], Any]) -> Predicate:
    """A test of an attribute, which nothing passes that is None."""
    return lambda world, one: getattr(one, name) is not None and bool(test(getattr(one, name)))


NEW_YEAR = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
LEAP = dt.datetime(2024, 2, 29, 12, 30, 15, 5, tzinfo=dt.UTC)

PLAIN: list[tuple[dict[str, Any], Predicate]] = [
    ({"age": 36}, a("age", lambda v: v == 36)),
    ({"age": None}, lambda w, p: p.age is None),
    ({"age__exact": 0}, a("age", lambda v: v == 0)),
    ({"age__gt": 7}, a("age", lambda v: v > 7)),
    ({"age__gte": 7}, a("age", lambda v: v >= 7)),
    ({"age__lt": 7}, a("age", lambda v: v < 7)),
    ({"age__lte": 7}, a("age", lambda v: v <= 7)),
    ({"age__in": [7, 36, None, 1000]}, a("age", lambda v: v in (7, 36))),
    ({"age__in": []}, lambda w, p: False),
    ({"age__in": {7, 36, 37}}, a("age", lambda v: v in (7, 36))),
    ({"age__in": [F("age"), 7]}, a("age", lambda v: True)),
    ({"age__range": (0, 21)}, a("age", lambda v: 0 <= v <= 21)),
    ({"age__range": (F("age") + 0, Value(21))}, a("age", lambda v: v <= 21)),
    ({"age__isnull": True}, lambda w, p: p.age is None),
    ({"age__isnull": False}, lambda w, p: p.age is not None),
    ({"age__contains": "6"}, a("age", lambda v: "6" in str(v))),
    ({"score__gt": 0}, a("score", lambda v: v > 0)),
    ({"balance": Decimal("0.1")}, a("balance", lambda v: v == Decimal("0.10"))),
    ({"balance__lt": Decimal(1)}, a("balance", lambda v: v < 1)),
    ({"active": True}, lambda w, p: p.active),
    ({"active__in": [False]}, lambda w, p: not p.active),
    ({"name__contains": "d"}, a("name", lambda v: "d" in v)),
    ({"name__contains": "_"}, a("name", lambda v: "_" in v)),
    ({"name__contains": "%"}, a("name", lambda v: "%" in v)),
    ({"name__contains": "\\"}, a("name", lambda v: "\\" in v)),
    ({"name__contains": "'"}, a("name", lambda v: "'" in v)),
    ({"name__contains": "D"}, a("name", lambda v: "D" in v)),
    ({"name__icontains": "D"}, a("name", lambda v: "d" in v.lower())),
    ({"name__icontains": "JÄ"}, a("name", lambda v: "jä" in v.lower())),
    ({"name__startswith": "d_"}, a("name", lambda v: v.startswith("d_"))),
    ({"name__istartswith": "A"}, a("name", lambda v: v.lower().startswith("a"))),
    ({"name__endswith": "1"}, a("name", lambda v: v.endswith("1"))),
    ({"name__iendswith": "A1"}, a("name", lambda v: v.lower().endswith("a1"))),
    ({"name__iexact": "ADA0"}, a("name", lambda v: v.lower() == "ada0")),
    ({"name__regex": r"^[a-c].*[01]$"}, a("name", lambda v: re.search(r"^[a-c].*[01]$", v))),
    ({"name__regex": r"^ADA"}, a("name", lambda v: re.search(r"^ADA", v))),
    ({"name__iregex": r"^ADA"}, a("name", lambda v: re.search(r"^ADA", v, re.IGNORECASE))),
    ({"age__regex": "^3"}, a("age", lambda v: str(v).startswith("3"))),
    ({"name__contains": F("name")}, lambda w, p: True),
    ({"note": ""}, a("note", lambda v: v == "")),
    ({"joined": LEAP}, a("joined", lambda v: v == LEAP)),
    ({"joined__gte": NEW_YEAR}, a("joined", lambda v: v >= NEW_YEAR)),
    ({"joined__year": 2024}, a("joined", lambda v: v.year == 2024)),
    ({"joined__year__exact": 2023}, a("joined", lambda v: v.year == 2023)),
    ({"joined__year__gt": 2024}, a("joined", lambda v: v.year > 2024)),
    ({"joined__year__gte": 2024}, a("joined", lambda v: v.year >= 2024)),
    ({"joined__year__lt": 2024}, a("joined", lambda v: v.year < 2024)),
    ({"joined__year__lte": 2024}, a("joined", lambda v: v.year <= 2024)),
    ({"joined__year__in": [2023, 2026]}, a("joined", lambda v: v.year in (2023, 2026))),
    ({"joined__year__range": (2024, 2025)}, a("joined", lambda v: 2024 <= v.year <= 2025)),
    ({"joined__year": F("born__year")}, lambda w, p: bool(p.joined and p.born and p.joined.year == p.born.year)),
    ({"joined__iso_year": 2026}, a("joined", lambda v: v.isocalendar().year == 2026)),
    ({"joined__quarter": 1}, a("joined", lambda v: (v.month + 2) // 3 == 1)),
    ({"joined__month__gt": 6}, a("joined", lambda v: v.month > 6)),
    ({"joined__week": 1}, a("joined", lambda v: v.isocalendar().week == 1)),
    ({"joined__day": 29}, a("joined", lambda v: v.day == 29)),
    ({"joined__week_day__lte": 3}, a("joined", lambda v: v.isoweekday() % 7 + 1 <= 3)),
    ({"joined__iso_week_day": 1}, a("joined", lambda v: v.isoweekday() == 1)),
    ({"joined__hour": 12}, a("joined", lambda v: v.hour == 12)),
    ({"joined__minute__in": [59, 30]}, a("joined", lambda v: v.minute in (59, 30))),
    ({"joined__second": 59}, a("joined", lambda v: v.second == 59)),
    ({"joined__date": LEAP.date()}, a("joined", lambda v: v.date() == LEAP.date())),
    ({"joined__date__gt": LEAP.date()}, a("joined", lambda v: v.date() > LEAP.date())),
    ({"joined__date__year": 2024}, a("joined", lambda v: v.year == 2024)),
    ({"joined__time": LEAP.time()}, a("joined", lambda v: v.time() == LEAP.time())),
    ({"joined__time__hour__lt": 12}, a("joined", lambda v: v.hour < 12)),
    ({"born__year": 2024}, a("born", lambda v: v.year == 2024)),
    ({"born__year__gt": 2023}, a("born", lambda v: v.year > 2023)),
    ({"born__week_day": 1}, a("born", lambda v: v.isoweekday() == 7)),
    ({"born__week": 1}, a("born", lambda v: v.isocalendar().week == 1)),
    ({"opens__hour__gte": 12}, a("opens", lambda v: v.hour >= 12)),
    ({"opens__second": 15}, a("opens", lambda v: v.second == 15)),
    ({"span__lt": dt.timedelta(0)}, a("span", lambda v: v < dt.timedelta(0))),
]

ACROSS: list[tuple[dict[str, Any], Predicate]] = [
    ({"team__isnull": True}, lambda w, p: p.team_id is None),
    ({"team__name": "team 1"}, lambda w, p: (t := w.team_of(p)) is not None and t.name == "team 1"),
    ({"team__name__in": ["team 0", "team 2"]}, lambda w, p: (t := w.team_of(p)) is not None and t.name != "team 1"),
    ({"team__city__isnull": True}, lambda w, p: (t := w.team_of(p)) is None or t.city is None),
    ({"team__city__icontains": "OSL"}, lambda w, p: (t := w.team_of(p)) is not None and t.city == "Oslo"),
    ({"books__isnull": True}, lambda w, p: not w.books_of(p)),
    ({"books__isnull": False}, lambda w, p: bool(w.books_of(p))),
    ({"books__pages": 100}, lambda w, p: any(b.pages == 100 for b in w.books_of(p))),
    ({"books__pages": None}, lambda w, p: any(b.pages is None for b in w.books_of(p))),
    ({"books__pages__isnull": True}, lambda w, p: any(b.pages is None for b in w.books_of(p))),
    (
        {"books__pages": 100, "books__title__startswith": "a"},
        lambda w, p: any(b.pages == 100 and b.title.startswith("a") for b in w.books_of(p)),
    ),
    (
        {"books__price__gt": F("balance")},
        lambda w, p: any(b.price > p.balance for b in w.books_of(p) if p.balance is not None),
    ),
    ({"books__pages": F("books__pages")}, lambda w, p: any(b.pages is not None for b in w.books_of(p))),
    ({"books__chapters__words__gt": 5}, lambda w, p: any(c.words > 5 for b in w.books_of(p) for c in w.chapters_of(b))),
    ({"books__chapters__isnull": True}, lambda w, p: any(not w.chapters_of(b) for b in w.books_of(p))),
    ({"books__tags__word": "red"}, lambda w, p: any("red" in w.words_of(b) for b in w.books_of(p))),
    ({"books__tags__isnull": True}, lambda w, p: any(not w.words_of(b) for b in w.books_of(p))),
    (
        {"awards__points__in": [2, 3], "age__isnull": False},
        lambda w, p: p.age is not None and any(x.points in (2, 3) for x in w.awards_of(p)),
    ),
    ({"staff__active": True}, lambda w, p: any(q.active for q in w.people if q.boss_id == p.pk)),
    ({"boss__books__pages": 100}, lambda w, p: any(b.pages == 100 and b.author_id == p.boss_id for b in w.books)),
    (
        {"team__members__age": 36},
        lambda w, p: p.team_id is not None and any(q.age == 36 and q.team_id == p.team_id for q in w.people),
    ),
]  # fmt: skip


async def test_each_lookup_is_what_python_says(world: World) -> None:
    for lookups, predicate in [*PLAIN, *ACROSS]:
        expected = keys(person for person in world.people if predicate(world, person))
        assert await ids(Person.objects.filter(**lookups)) == expected, lookups
        left = keys(person for person in world.people if not predicate(world, person))
        assert await ids(Person.objects.exclude(**lookups)) == left, lookups
        assert await Person.objects.filter(**lookups).count() == len(expected), lookups


async def test_a_generator_of_values_is_read_once(world: World) -> None:
    query = Person.objects.filter(age__in=(age for age in (7, 36)))
    assert await ids(query) == await ids(query) == keys(p for p in world.people if p.age in (7, 36))


async def test_the_data_tell_lookups_apart(world: World) -> None:
    """A lookup that everything, or nothing, passes proves little."""
    telling = [
        p for _, p in [*PLAIN, *ACROSS] if 0 < sum(bool(p(world, one)) for one in world.people) < len(world.people)
    ]
    assert len(telling) > 0.75 * len([*PLAIN, *ACROSS])


Tree = tuple[Any, ...]


def conditions() -> st.SearchStrategy[Tree]:
    """Conditions, and what they are combined by."""
    atoms = st.sampled_from(range(len(PLAIN) + len(ACROSS))).map(lambda number: ("atom", number))
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(st.just("not"), inner),
            st.tuples(st.sampled_from(["and", "or", "xor"]), inner, inner),
        ),
        max_leaves=5,
    )


def condition_of(tree: Tree) -> Condition:
    """A tree as a condition."""
    if tree[0] == "atom":
        lookups = [*PLAIN, *ACROSS][tree[1]][0]
        return Q(**lookups)
    if tree[0] == "not":
        return ~condition_of(tree[1])
    left, right = condition_of(tree[1]), condition_of(tree[2])
    return {"and": left & right, "or": left | right, "xor": left ^ right}[tree[0]]


def holds(tree: Tree, world: World, person: Person) -> bool:
    """Whether a tree holds for a person."""
    if tree[0] == "atom":
        return bool([*PLAIN, *ACROSS][tree[1]][1](world, person))
    if tree[0] == "not":
        return not holds(tree[1], world, person)
    left, right = holds(tree[1], world, person), holds(tree[2], world, person)
    return {"and": left and right, "or": left or right, "xor": left != right}[tree[0]]


def same_object(tree: Tree) -> bool:
    """Whether two conditions across one relation are combined by `and`, and so concern one object."""

    def relations(tree: Tree) -> set[str]:
        if tree[0] == "atom":
            lookups = [*PLAIN, *ACROSS][tree[1]][0]
            return {
                name.partition("__")[0]
                for name in lookups
                if not name.startswith(("age", "team__na", "team__c", "team__i"))
            }
        if tree[0] == "and":
            return relations(tree[1]) | relations(tree[2])
        return set()

    if tree[0] == "atom":
        return False
    if tree[0] == "and" and relations(tree[1]) & relations(tree[2]) & {"books", "awards", "staff", "team", "boss"}:
        return True
    return any(same_object(part) for part in tree[1:])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=conditions())
async def test_conditions_combine_as_in_python(world: World, tree: Tree) -> None:
    if same_object(tree):
        return
    condition = condition_of(tree)
    expected = [person for person in world.people if holds(tree, world, person)]
    assert await ids(Person.objects.filter(condition)) == keys(expected)
    assert await ids(Person.objects.exclude(condition)) == keys(p for p in world.people if p not in expected)
    assert await Person.objects.filter(condition).exists() == bool(expected)


async def test_conditions_of_one_call_concern_one_object(world: World) -> None:
    told_apart = 0
    for pages, letter in itertools.product((0, 100, 250), "abg"):

        def both(person: Person, pages: int = pages, letter: str = letter) -> bool:
            return any(b.pages == pages and b.title.startswith(letter) for b in world.books_of(person))

        expected = keys(person for person in world.people if both(person))
        first, second = Q(books__pages=pages), Q(books__title__startswith=letter)
        assert await ids(Person.objects.filter(first, second)) == expected
        assert await ids(Person.objects.filter(first & second)) == expected
        assert await ids(Person.objects.filter(first, books__title__startswith=letter)) == expected
        assert await ids(Person.objects.exclude(first, second)) == keys(p for p in world.people if not both(p))
        # Two calls are about two books, or one.
        apart = keys(
            p for p in world.people
            if any(b.pages == pages for b in world.books_of(p))
            and any(b.title.startswith(letter) for b in world.books_of(p))
        )  # fmt: skip
        assert await ids(Person.objects.filter(first).filter(second)) == apart
        told_apart += apart != expected
    assert told_apart


async def test_expressions_across_relations_are_of_one_object_too(world: World) -> None:
    found = await ids(Person.objects.filter(F("books__pages") > F("age")))
    assert found == keys(
        p for p in world.people
        if p.age is not None and any(b.pages is not None and b.pages > p.age for b in world.books_of(p))
    )  # fmt: skip
    found = await ids(Person.objects.filter(F("books__pages") > F("awards__points")))
    assert found == keys(
        p for p in world.people
        if any(
            b.pages is not None and x.points is not None and b.pages > x.points
            for b, x in itertools.product(world.books_of(p), world.awards_of(p))
        )
    )  # fmt: skip


async def test_objects_stand_for_their_keys(world: World) -> None:
    team, other = world.teams[0], world.teams[1]
    members = [p for p in world.people if p.team_id == team.id]
    assert await ids(Person.objects.filter(team=team)) == keys(members)
    assert await ids(Person.objects.filter(team=team.id)) == keys(members)
    assert await ids(Person.objects.filter(Person.team == team)) == keys(members)
    assert await ids(Person.objects.filter(team__in=[team, other])) == keys(
        p for p in world.people if p.team_id in (team.id, other.id)
    )
    assert await ids(Person.objects.filter(team__pk=team.id)) == keys(members)
    book = world.books[0]
    assert await ids(Person.objects.filter(books=book)) == [book.author_id]
    assert await ids(Person.objects.filter(books__in=[book, world.books[-1]])) == sorted(
        {book.author_id, world.books[-1].author_id}
    )
    red = world.tags[0]
    assert await ids(Book.objects.filter(tags=red)) == keys(b for b in world.books if "red" in world.words_of(b))
    assert await ids(Tag.objects.filter(books__author=world.people[0])) == keys(
        t for t in world.tags if any(t.id in world.tagged[b.id] for b in world.books_of(world.people[0]))
    )
    assert await ids(Person.objects.filter(pk__in=[1, 2])) == [1, 2]
    with pytest.raises(QueryError, match="is no Book"):
        Person.objects.filter(books=team)
    with pytest.raises(QueryError, match="no key yet"):
        Person.objects.filter(books=Book(title="new"))


async def test_querysets_are_what_in_takes(world: World) -> None:
    old = Person.objects.filter(age__gt=20)
    expected = keys(
        b for b in world.books if any(p.pk == b.author_id and p.age is not None and p.age > 20 for p in world.people)
    )
    assert await ids(Book.objects.filter(author__in=old)) == expected
    assert await ids(Book.objects.filter(author__in=old.order_by("name").values("pk"))) == expected
    assert await ids(Book.objects.filter(Book.author.in_(old))) == expected
    assert await ids(Book.objects.exclude(author__in=old)) == keys(b for b in world.books if b.pk not in expected)
    # A column with NULL in it excludes nothing by itself.
    ages = Person.objects.values("age")
    assert await ids(Person.objects.exclude(age__in=ages)) == keys(p for p in world.people if p.age is None)
    # A slice is of as many, where MySQL has no LIMIT behind IN.
    first = await Person.objects.order_by("pk")[:3]
    assert await ids(Book.objects.filter(author__in=Person.objects.order_by("pk")[:3])) == keys(
        b for b in world.books if b.author_id in {p.pk for p in first}
    )
    manager: Any = Person.objects
    assert await Book.objects.filter(author__in=manager).count() == len(world.books)
    with pytest.raises(QueryError, match="one column"):
        Book.objects.filter(author__in=Person.objects.values("pk", "name"))


async def test_the_parts_of_a_year_are_a_range_of_the_column(world: World) -> None:
    """So that an index serves: nothing is computed of the column."""
    query = Person.objects.filter(joined__year=2024)
    plan, _ = query.prepared(world.database)
    where = plan.sql.partition("WHERE")[2].lower()
    assert "extract" not in where
    assert "strftime" not in where
    with pytest.raises(QueryError, match="no year"):
        await Person.objects.filter(joined__year=10000)
    assert await Person.objects.filter(joined__year=9999).count() == 0
    assert await Person.objects.filter(joined__year=1).count() == 0


async def test_unknown_names_are_told_the_nearest(url: str) -> None:
    for lookups, expected in [
        ({"nmae": 1}, "did you mean 'name'"),
        ({"name__contians": 1}, "did you mean 'contains'"),
        ({"joined__yaer": 1}, "did you mean 'year'"),
        ({"team__nmae": 1}, "did you mean 'name'"),
        ({"books__tags__wrod": 1}, "did you mean 'word'"),
        ({"age__year": 1}, "there is no lookup 'year'"),
        ({"joined__year__month": 1}, "there is no lookup 'month'"),
    ]:  # fmt: skip
        with pytest.raises(FieldError, match=re.escape(expected)):
            Person.objects.filter(**lookups)
    with pytest.raises(FieldError, match="did you mean 'contains'"):
        Person.name.lookup("contians", "a")
    with pytest.raises(FieldError, match="nmae"):
        await Person.objects.filter(F("nmae") == 1)


async def test_values_that_a_lookup_does_not_take(world: World) -> None:
    for lookups in (
        {"age__gt": None},
        {"age__isnull": 1},
        {"age__in": 5},
        {"age__in": "12"},
        {"age__range": (1,)},
        {"name__contains": b"a"},
    ):
        with pytest.raises(QueryError):
            await Person.objects.filter(**lookups)
    with pytest.raises(QueryError, match=r"Person\.age"):
        await Person.objects.filter(age="many")
    with pytest.raises((QueryError, DataError, ProgrammingError)):
        await Person.objects.filter(name__regex="(")


JSON_LOOKUPS: list[tuple[dict[str, Any], Callable[[Any], bool]]] = [
    ({"data": {"n": 5}}, lambda v: v == {"n": 5}),
    ({"data": {"s": "five", "n": 5.5}}, lambda v: v == {"s": "five", "n": 5.5}),
    ({"data": [1, 2]}, lambda v: v == [1, 2]),
    ({"data": 7}, lambda v: v == 7),
    ({"data": None}, lambda v: v is None),
    ({"data__in": [7, {"n": 5}, "text"]}, lambda v: v in (7, {"n": 5}, "text")),
    ({"data__n": 5}, lambda v: isinstance(v, dict) and v.get("n") == 5),
    ({"data__n": 5.0}, lambda v: isinstance(v, dict) and v.get("n") == 5),
    ({"data__n": "5"}, lambda v: False),
    ({"data__n__gt": 5}, lambda v: isinstance(v, dict) and v.get("n", 0) > 5),
    ({"data__n__lte": 5}, lambda v: isinstance(v, dict) and v.get("n", 9) <= 5),
    ({"data__n__range": (5, 5.4)}, lambda v: isinstance(v, dict) and 5 <= v.get("n", 0) <= 5.4),
    ({"data__n__in": [5, "x"]}, lambda v: isinstance(v, dict) and v.get("n") == 5),
    ({"data__n": F("score")}, lambda v: False),
    ({"data__s": "five"}, lambda v: isinstance(v, dict) and v.get("s") == "five"),
    ({"data__s": Value("five")}, lambda v: isinstance(v, dict) and v.get("s") == "five"),
    ({"data__s__gt": "a"}, lambda v: isinstance(v, dict) and v.get("s", "") > "a"),
    ({"data__s__gt": 1}, lambda v: False),
    ({"data__s__iexact": "five"}, lambda v: isinstance(v, dict) and v.get("s", "").lower() == "five"),
    ({"data__s__icontains": "IV"}, lambda v: isinstance(v, dict) and "iv" in v.get("s", "").lower()),
    ({"data__s__startswith": "fi"}, lambda v: isinstance(v, dict) and v.get("s", "").startswith("fi")),
    ({"data__s__endswith": "VE"}, lambda v: isinstance(v, dict) and v.get("s", "").endswith("VE")),
    ({"data__s__regex": "^F.VE$"}, lambda v: isinstance(v, dict) and bool(re.search("^F.VE$", v.get("s", "")))),
    ({"data__l__0": 1}, lambda v: isinstance(v, dict) and v.get("l", [0])[0] == 1),
    ({"data__l__1": "a"}, lambda v: isinstance(v, dict) and v.get("l", [0, 0])[1] == "a"),
    ({"data__1": 2}, lambda v: isinstance(v, list) and v[1] == 2),
    ({"data__0__isnull": False}, lambda v: isinstance(v, list)),
    ({"data__l": [1, "a"]}, lambda v: isinstance(v, dict) and v.get("l") == [1, "a"]),
    ({"data__n__isnull": True}, lambda v: not isinstance(v, dict) or "n" not in v),
    ({"data__n__isnull": False}, lambda v: isinstance(v, dict) and "n" in v),
    ({"data__has_key": "s"}, lambda v: isinstance(v, dict) and "s" in v),
    ({"data__has_keys": ["s", "n"]}, lambda v: isinstance(v, dict) and {"s", "n"} <= v.keys()),
    ({"data__has_keys": []}, lambda v: isinstance(v, dict)),
    ({"data__has_any_keys": ["l", "n"]}, lambda v: isinstance(v, dict) and bool({"l", "n"} & v.keys())),
    ({"data__has_any_keys": []}, lambda v: False),
    ({"data__contains": {"n": 5}}, lambda v: isinstance(v, dict) and v.get("n") == 5),
    ({"data__contains": {}}, lambda v: isinstance(v, dict)),
    ({"data__contains": [2]}, lambda v: isinstance(v, list)),
    ({"data__l__contains": "a"}, lambda v: isinstance(v, dict) and "a" in v.get("l", ())),
    ({"data__contained_by": {"n": 5, "x": 1}}, lambda v: v in ({}, {"n": 5})),
]


async def test_json_is_looked_into(world: World) -> None:
    for lookups, predicate in JSON_LOOKUPS:
        expected = keys(person for person in world.people if predicate(person.data))
        assert await ids(Person.objects.filter(**lookups)) == expected, lookups
        assert await ids(Person.objects.exclude(**lookups)) == keys(
            person for person in world.people if not predicate(person.data)
        ), lookups
    person = world.people[0]
    person.data = {'a"b\\c': {"d.e": [{"$": None}]}, "": 1, "x y": True, "ключ": "значение"}
    await person.save()
    for name, value in [
        ('data__a"b\\c__d.e__0', {"$": None}),
        ('data__a"b\\c__d.e__0__$', None),
        ("data__x y", True),
        ("data__ключ", "значение"),
        ("data__has_key", 'a"b\\c'),
        ("data__has_key", "ключ"),
        ("data__has_any_keys", ["nothing", ""]),
    ]:
        assert await ids(Person.objects.filter(**{name: value})) == [person.pk], name
    found = await Person.objects.filter(pk=person.pk).values_list('data__a"b\\c__d.e', "data__x y", "data__none")
    assert found == [([{"$": None}], True, None)]
    with pytest.raises(QueryError, match="keys of JSON are texts"):
        Person.objects.filter(data__has_key=1)
    with pytest.raises(QueryError, match="number or a text"):
        Person.objects.filter(data__n__gt=[1])
    with pytest.raises(QueryError, match="no number of JSON"):
        await Person.objects.filter(data__n=float("nan"))


LETTERS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-1000, 1000) | LETTERS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LETTERS, inner, max_size=3),
        max_leaves=6,
    )
)
async def test_what_is_written_as_json_is_found_by_its_parts(world: World, value: Any) -> None:
    person = world.people[0]
    if value is None:
        return
    person.data = {"root": value}
    await person.save(update_fields=["data"])
    mine = Person.objects.filter(pk=person.pk)
    assert await mine.filter(data__root=value).exists()
    assert await mine.filter(data={"root": value}).exists()
    assert await mine.filter(data__contains={"root": value}).exists()
    assert not await mine.filter(data__root=[value]).exists()
    assert await mine.values_list("data__root", flat=True) == [value]
    if isinstance(value, dict):
        for key, part in value.items():
            assert await mine.filter(data__root__has_key=key).exists(), key
            if "__" not in key and key and not key.isdecimal() and key not in ("in", "gt", "lt"):
                assert await mine.filter(**{f"data__root__{key}": part}).exists(), key


async def test_lookups_of_ones_own(world: World) -> None:
    class NotEqual(Lookup):
        """Neither equal nor NULL."""

    class Soft(CharField[str]):
        """A field of its own."""

    register_lookup(NotEqual("differs", lambda left, right: left != right), IntegerField)
    register_transform(
        Transform("magnitude", lambda scope, column, field: func.abs(column), lambda field: INTEGER), IntegerField
    )
    assert await ids(Person.objects.filter(age__differs=36)) == keys(p for p in world.people if p.age not in (None, 36))
    assert await ids(Person.objects.filter(age__magnitude=3)) == keys(p for p in world.people if p.age == -3)
    assert await ids(Person.objects.filter(age__magnitude__lt=8)) == keys(
        p for p in world.people if p.age is not None and abs(p.age) < 8
    )
    assert await Person.objects.filter(age=-3).values_list("age__magnitude", flat=True) == [3] * len(
        [p for p in world.people if p.age == -3]
    )
    with pytest.raises(FieldError, match="differs"):
        Person.objects.filter(name__differs="a")
    register_lookup(NotEqual("unlike", lambda left, right: left != right))
    assert await ids(Person.objects.filter(name__unlike="ada0")) == keys(p for p in world.people if p.name != "ada0")


async def test_full_text(world: World) -> None:
    person = world.people[0]
    person.note = "The quick brown fox jumps over the lazy dogs"
    await person.save()
    if world.database.kind == "sqlite":
        with pytest.raises(NotSupported, match="FTS5"):
            await Person.objects.filter(note__search="fox")
        return
    if world.database.kind == "mariadb":
        await world.database.script("CREATE FULLTEXT INDEX note_words ON " + Person._meta.db_table + " (note)")
    assert await ids(Person.objects.filter(note__search="quick fox")) == [person.pk]
    assert await ids(Person.objects.filter(note__search="elephant")) == []
    # What is typed into a search box is never an error.
    for typed in ("'", '"', "fox & | ! ( ", "+-@~<>()*", ":*", "%"):
        await Person.objects.filter(note__search=typed)


async def test_trigrams_and_accents(world: World) -> None:
    if world.database.kind != "postgresql":
        with pytest.raises(NotSupported, match="pg_trgm"):
            await Person.objects.filter(name__trigram_similar="ada")
        with pytest.raises(NotSupported, match="unaccent"):
            await Person.objects.filter(name__unaccent="jay0")
        return
    there = {row[0] for row in (await world.database.query("SELECT name FROM pg_available_extensions")).rows}
    if "pg_trgm" in there:
        await world.database.script("CREATE EXTENSION pg_trgm")
        person = world.people[0]
        person.name = "alexander"
        await person.save()
        assert await ids(Person.objects.filter(name__trigram_similar="alexandre")) == [person.pk]
    if "unaccent" in there:
        await world.database.script("CREATE EXTENSION unaccent")
        assert await ids(Person.objects.filter(name__unaccent__startswith="jay")) == keys(
            p for p in world.people if p.name.startswith("jäy")
        )


async def test_names_with_transforms_stand_everywhere(world: World) -> None:
    found = (
        await Person.objects.filter(joined__isnull=False)
        .order_by("joined__year", "pk")
        .values_list("pk", "joined__year")
    )
    expected = sorted(((p.joined.year, p.pk) for p in world.people if p.joined), key=lambda pair: pair)
    assert found == [(pk, year) for year, pk in expected]
    found = await Person.objects.annotate(last=F("joined")).filter(last__year=2024).values_list("pk", flat=True)
    assert sorted(found) == keys(p for p in world.people if p.joined and p.joined.year == 2024)
    assert await ids(Award.objects.filter(person__joined__year=2024)) == keys(
        x for x in world.awards if any(p.pk == x.person_id and p.joined and p.joined.year == 2024 for p in world.people)
    )
    assert await ids(Team.objects.filter(members__joined__date__month=2)) == keys(
        t for t in world.teams if any(p.team_id == t.pk and p.joined and p.joined.month == 2 for p in world.people)
    )
