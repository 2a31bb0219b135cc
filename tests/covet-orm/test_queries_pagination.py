"""Pages by keyset: each row once, whatever the order, NULL and concurrent writes make of it."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.orm_people import Award, Book, Person, World, people

from covet_orm.exceptions import QueryError
from covet_orm.expressions import Count, F, Q, Rank, Window
from covet_orm.expressions.functions import Length
from covet_orm.queries.pagination import LARGEST, Page

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    """The objects, on each database in turn."""
    async with people(url) as made:
        yield made


async def walk(query: Any, size: int, *, backwards: bool = False) -> list[list[Any]]:
    """All pages of a query."""
    pages: list[list[Any]] = []
    cursor: str | None = None
    if backwards:
        # To the last page, and from there to the first.
        page = await query.paginate(size=size)
        while page.next is not None:
            page = await query.paginate(after=page.next, size=size)
        pages.append(page.items)
        while page.previous is not None:
            page = await query.paginate(before=page.previous, size=size)
            pages.insert(0, page.items)
        return pages
    while True:
        page = await query.paginate(after=cursor, size=size)
        pages.append(page.items)
        if page.next is None:
            return pages
        cursor = page.next


FIELDS = [
    "age",
    "score",
    "balance",
    "joined",
    "born",
    "opens",
    "active",
    "span",
    "team",
    "team__city",
    "boss__age",
    "books_",
]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.lists(
        st.tuples(st.sampled_from(FIELDS), st.booleans(), st.sampled_from([None, "first", "last"])),
        max_size=3,
        unique_by=lambda one: one[0],
    ),
    size=st.integers(1, 6),
    backwards=st.booleans(),
)
async def test_the_pages_are_the_query(
    world: World, order: list[tuple[str, bool, Any]], size: int, backwards: bool
) -> None:
    orderings = [F(name).desc(nulls=nulls) if down else F(name).asc(nulls=nulls) for name, down, nulls in order]
    query = Person.objects.annotate(books_=Count("books")).order_by(*orderings)
    expected = [p.pk for p in await Person.objects.annotate(books_=Count("books")).order_by(*orderings, "pk")]
    pages = await walk(query, size, backwards=backwards)
    assert [p.pk for page in pages for p in page] == expected
    assert all(len(page) == size for page in (pages[1:-1]))
    assert all(0 < len(page) <= size for page in pages)


@pytest.mark.parametrize("mode", ["dicts", "tuples", "flat", "only", "related"])
async def test_pages_of_all_kinds_of_results(world: World, mode: str) -> None:
    query: Any = Person.objects.filter(pk__gt=2).order_by("team__name", "-age")
    expected = await query.order_by("team__name", "-age", "pk").values_list("name", flat=True)
    if mode == "dicts":
        pages = await walk(query.values("name"), 3)
        assert all(list(row) == ["name"] for page in pages for row in page)
        assert [row["name"] for page in pages for row in page] == expected
    elif mode == "tuples":
        pages = await walk(query.values_list("name", "age"), 3)
        assert all(len(row) == 2 for page in pages for row in page)
        assert [row[0] for page in pages for row in page] == expected
    elif mode == "flat":
        pages = await walk(query.values_list("name", flat=True), 3)
        assert [name for page in pages for name in page] == expected
    elif mode == "only":
        pages = await walk(query.only("name"), 3)
        assert [p.name for page in pages for p in page] == expected
        assert not any(name.startswith("_page") for page in pages for p in page for name in p._related)
    else:
        pages = await walk(query.select_related("team").prefetch_related("books"), 3)
        assert [p.name for page in pages for p in page] == expected
        assert all(p.team is None or p.team.pk == p.team_id for page in pages for p in page)


async def test_a_page_knows_its_place(world: World) -> None:
    query = Person.objects.order_by("name")
    first = await query.paginate(size=5, total=True)
    assert isinstance(first, Page)
    assert (first.previous, first.size, first.total) == (None, 5, len(world.people))
    second = await query.paginate(size=5, after=first.next)
    assert second.total is None
    back = await query.paginate(size=5, before=second.previous)
    assert back.items == first.items
    assert back.previous is None
    whole = await query.paginate(size=100)
    assert (len(whole.items), whole.next, whole.previous) == (len(world.people), None, None)
    none = await query.filter(pk=0).paginate()
    assert (none.items, none.next, none.previous) == ([], None, None)
    windowed = Person.objects.annotate(r=Window(Rank(), order_by="name")).filter(r__lte=9).order_by("r")
    assert [p.pk for page in await walk(windowed, 4) for p in page] == [
        p.pk for p in await windowed.order_by("r", "pk")
    ]
    lengths = Person.objects.order_by(Length("name").desc())
    assert [p.pk for page in await walk(lengths, 4) for p in page] == [
        p.pk for p in await Person.objects.order_by(Length("name").desc(), "pk")
    ]


async def test_equal_values_and_extremes(world: World) -> None:
    await Award.objects.all().delete()
    person = world.people[0]
    made = [await Award.objects.create(person=person, points=n) for n in (2**31 - 1, -(2**31), None, None, 0, 0, 0)]
    for query in (
        Award.objects.order_by("points"),
        Award.objects.order_by("-points"),
        Award.objects.order_by("person"),
    ):
        for size in (1, 2, 3):
            assert sorted(a.pk for page in await walk(query, size) for a in page) == sorted(a.pk for a in made)
    await Book.objects.all().delete()
    for price in ("0", "0.01", "99999.99", "-99999.99", "0.01"):
        await Book.objects.create(author=person, title="it's \\ \" % _ é 𝄞", price=Decimal(price))
    titles = Book.objects.order_by("title", "price")
    assert [b.price for page in await walk(titles, 1) for b in page] == sorted(
        map(Decimal, ("0", "0.01", "99999.99", "-99999.99", "0.01"))
    )


async def test_rows_that_stay_are_seen_once_while_others_come_and_go(world: World) -> None:
    """Writers insert and delete around the reader; what was there before and after is on exactly one page."""
    await Award.objects.all().delete()
    author = world.people[0]
    rng = random.Random(7)
    stay = [await Award.objects.create(person=author, points=rng.choice([None, 1, 2, 3])) for _ in range(60)]
    stopped = False

    async def disturb() -> None:
        mine: list[Award] = []
        while not stopped:
            mine.append(await Award.objects.create(person=author, points=rng.choice([None, 0, 1, 2, 3, 4])))
            if len(mine) > 5:
                await mine.pop(0).delete()
            await asyncio.sleep(0)
        for award in mine:
            await award.delete()

    keys = {a.pk for a in stay}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(disturb())
        try:
            for order in (["points"], ["-points"], [F("points").desc(nulls="last")], ["-points", "-pk"]):
                for size in (3, 7):
                    seen = [a.pk for page in await walk(Award.objects.order_by(*order), size) for a in page]
                    assert sorted(pk for pk in seen if pk in keys) == sorted(keys)
        finally:
            stopped = True


HOSTILE = [
    "",
    "x",
    "=",
    "' OR 1=1 --",
    "é",
    "A" * 10_000,
    base64.urlsafe_b64encode(b"").decode(),
    base64.urlsafe_b64encode(b"[1]").decode(),
    base64.urlsafe_b64encode(b"\0" * 100).decode(),
    base64.urlsafe_b64encode(b"123456" + b"[" * 5000).decode(),
]


async def test_cursors_that_are_none(world: World) -> None:
    query = Person.objects.order_by("age", "joined")
    for cursor in HOSTILE:
        for side in ("after", "before"):
            with pytest.raises(QueryError, match="none that this query gave"):
                await query.paginate(**{side: cursor})
    page = await query.paginate(size=2)
    assert page.next is not None
    for other in (
        Person.objects.order_by("-age", "joined"),
        Person.objects.order_by("age"),
        Award.objects.order_by("pk"),
    ):
        with pytest.raises(QueryError, match="none that this query gave"):
            await other.paginate(after=page.next)
    # What is in a cursor is values, whatever somebody writes into it: they are checked by the fields.
    digest = base64.urlsafe_b64decode(page.next + "=" * (-len(page.next) % 4))[:6]
    for values in (
        b'["1; DROP TABLE x",null,1]',
        b"[{},null,1]",
        b'[1,"yesterday",1]',
        b"[1,null]",
        b"{}",
        b"[1e400,null,1]",
    ):
        forged = base64.urlsafe_b64encode(digest + values).rstrip(b"=").decode()
        with pytest.raises(QueryError, match="none that this query gave"):
            await query.paginate(after=forged)
    for wrong in (
        {"size": 0},
        {"size": LARGEST + 1},
        {"size": True},
        {"size": "1"},
        {"after": page.next, "before": page.next},
    ):
        with pytest.raises(QueryError):
            await query.paginate(**wrong)
    for refused in (
        query[:3],
        query.union(query),
        query.values("age").distinct(),
        Person.objects.values("age").annotate(n=Count("*")),
    ):
        with pytest.raises(QueryError):
            await refused.paginate()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cursor=st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
async def test_any_text_is_refused_or_a_cursor(world: World, cursor: str) -> None:
    with pytest.raises(QueryError):
        await Person.objects.order_by("age").paginate(after=cursor)


async def test_an_index_can_serve_a_page(world: World) -> None:
    """The condition begins with a range of the first column."""
    page = await Person.objects.filter(joined__isnull=False).order_by("joined").paginate(size=2)
    moment = (await Person.objects.get(pk=page.items[-1].pk)).joined
    assert moment is not None
    assert (
        await Person.objects.filter(joined__isnull=False)
        .order_by("joined")
        .filter(Q(joined__gt=moment - dt.timedelta(1)))
        .exists()
    )
    assert (
        await Person.objects.order_by("joined").paginate(
            after=(await Person.objects.order_by("joined").paginate(size=1)).next
        )
    ).items
