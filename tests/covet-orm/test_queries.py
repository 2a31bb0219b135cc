"""What else is asked of a queryset: orders, set operations, common table expressions, locks, plans, raw SQL, ..."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.orm_people import Book, Person, Tag, Team, World, people

from covet_orm.exceptions import (
    DataError,
    FieldError,
    FieldNotLoaded,
    InvalidIdentifier,
    LockTimeout,
    NotSupported,
    ProgrammingError,
    QueryError,
    TransactionError,
)
from covet_orm.expressions import Case, Count, Exists, F, OuterRef, Q, Rank, Sum, Value, When, Window
from covet_orm.expressions.functions import Concat, Length, Lower
from covet_orm.queries.ctes import CTE
from covet_orm.queries.filtered import FilteredRelation

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    """The objects, on each database in turn."""
    async with people(url) as made:
        yield made


async def pks(query: Any) -> list[int]:
    """The keys of a query's objects, as they come."""
    return [one.pk for one in await query]


ORDERS = ["age", "score", "balance", "joined", "team__name", "team__city", "boss__age"]


def attribute(world: World, person: Any, name: str) -> Any:
    """What a path leads to."""
    first, _, rest = name.partition("__")
    if not rest:
        return getattr(person, first)
    other = (
        world.team_of(person) if first == "team" else next((p for p in world.people if p.pk == person.boss_id), None)
    )
    return None if other is None else getattr(other, rest)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.lists(
        st.tuples(st.sampled_from(ORDERS), st.booleans(), st.sampled_from(["first", "last"])),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one[0],
    ),
    limit=st.integers(0, 20),
    offset=st.integers(0, 5),
)
async def test_orders(world: World, order: list[tuple[str, bool, Any]], limit: int, offset: int) -> None:
    orderings = [F(name).desc(nulls=nulls) if down else F(name).asc(nulls=nulls) for name, down, nulls in order]
    expected: list[Any] = list(world.people)
    for name, down, nulls in reversed(order):
        missing = [p for p in expected if attribute(world, p, name) is None]
        rest = [p for p in expected if attribute(world, p, name) is not None]
        rest.sort(key=lambda p, n=name: attribute(world, p, n), reverse=down)  # type: ignore[misc]
        expected = missing + rest if nulls == "first" else rest + missing
    query = Person.objects.order_by(*orderings, "pk")
    assert await pks(query) == [p.pk for p in expected]
    assert await pks(query[offset : offset + limit]) == [p.pk for p in expected[offset : offset + limit]]
    backwards = await pks(query.reverse())
    assert backwards == [p.pk for p in reversed(expected)]


async def test_orders_of_expressions(world: World) -> None:
    by_length = sorted(world.people, key=lambda p: (-len(p.name), p.pk))
    assert await pks(Person.objects.order_by(Length("name").desc(), "pk")) == [p.pk for p in by_length]
    assert await pks(Person.objects.order_by(-F("age"), "pk").filter(age__isnull=False)) == [
        p.pk for p in sorted((p for p in world.people if p.age is not None), key=lambda p: (-p.age, p.pk))
    ]
    assert await pks(Person.objects.order_by(Person.id.desc())) == [p.pk for p in reversed(world.people)]
    many = Person.objects.annotate(n=Count("books")).order_by("-n", "-pk")
    assert await pks(many) == [p.pk for p in sorted(world.people, key=lambda p: (-len(world.books_of(p)), -p.pk))]
    for wrong in ("nmae", "books__title", "age__nothing", "-"):
        with pytest.raises((FieldError, QueryError)):
            await Person.objects.order_by(wrong)
    with pytest.raises(QueryError, match="names, expressions"):
        Person.objects.order_by(1)  # type: ignore[arg-type]


async def test_a_slice_is_last(world: World) -> None:
    few = Person.objects.order_by("pk")[2:5]
    for change in (
        lambda: few.filter(age=1), lambda: few.exclude(age=1), lambda: few.order_by("age"), lambda: few.reverse(),
        lambda: few.distinct(), lambda: few.annotate(x=F("age")), lambda: few.join(CTE(few), F("id") == 1),
    ):  # fmt: skip
        with pytest.raises(QueryError, match="after a slice"):
            change()
    assert await pks(few[1:2]) == [world.people[3].pk]
    assert await few.count() == 3
    assert await few.exists()
    assert (await few.first()) == world.people[2]


async def test_distinct(world: World) -> None:
    teams = {p.team_id for p in world.people}
    assert set(await Person.objects.values_list("team", flat=True).distinct()) == teams
    assert await Person.objects.values("team").distinct().count() == len(teams)
    query = Person.objects.order_by("team", "-pk").distinct("team")
    if world.database.kind == "postgresql":
        found = {p.team_id: p.pk for p in await query}
        assert found == {t: max(p.pk for p in world.people if p.team_id == t) for t in teams}
    else:
        with pytest.raises(NotSupported, match="window function"):
            await query


async def test_set_operations(world: World) -> None:
    young, active = Person.objects.filter(age__lt=21), Person.objects.filter(active=True)
    a = {p.pk for p in world.people if p.age is not None and p.age < 21}
    b = {p.pk for p in world.people if p.active}
    assert await pks(young.union(active).order_by("pk")) == sorted(a | b)
    assert sorted(await pks(young.union(active, all=True))) == sorted([*a, *b])
    assert await pks(young.intersection(active).order_by("-pk")) == sorted(a & b, reverse=True)
    assert await pks(young.difference(active).order_by("pk")) == sorted(a - b)
    assert await pks(young.union(active).difference(active).order_by("pk")) == sorted((a | b) - b)
    assert await pks(young.union(active).order_by("-pk")[1:3]) == sorted(a | b, reverse=True)[1:3]
    assert await young.union(active).count() == len(a | b)
    assert await young.union(active)[:2].count() == min(2, len(a | b))
    assert await young.intersection(young.exclude(pk__gt=0)).exists() is False
    # Parts with an order and a slice of their own, and with nothing in common but their columns.
    first, last = Person.objects.order_by("pk")[:2], Person.objects.order_by("-pk")[:2]
    assert await pks(first.union(last).order_by("pk")) == [p.pk for p in (*world.people[:2], *world.people[-2:])]
    names = (
        Person.objects.values_list("name", flat=True)
        .union(Team.objects.values_list("name", flat=True))
        .order_by("name")
    )
    assert set(await names) == {one.name for one in (*world.people, *world.teams)}
    labelled = Person.objects.filter(age=36).annotate(what=Value("person")).values("name", "what")
    teams = Team.objects.annotate(what=Value("team")).values("name", "what")
    both = await labelled.union(teams, all=True).order_by("what", "name")
    assert [row["what"] for row in both] == ["person"] * len([p for p in world.people if p.age == 36]) + ["team"] * 4
    assert await labelled.union(teams, all=True).aggregate(n=Count("*")) == {"n": len(both)}
    either = Person.objects.filter(age__lt=21).values("pk").union(Person.objects.filter(active=True).values("pk"))
    assert await Book.objects.filter(author__in=either).count() == len([x for x in world.books if x.author_id in a | b])
    # Related objects come by queries of their own.
    found = await young.union(active).prefetch_related("books").order_by("pk")
    assert [len(await p.books.all()) for p in found] == [len(world.books_of(p)) for p in found]
    combined = young.union(active)
    for wrong in (
        lambda: combined.filter(age=1), lambda: combined.exclude(age=1), lambda: combined.annotate(x=F("age")),
        lambda: combined.distinct(), lambda: combined.values("name"), lambda: young.union(Team.objects.all()),
        lambda: young.union(active.values("name")), lambda: young.union([1]),  # type: ignore[list-item]
    ):  # fmt: skip
        with pytest.raises(QueryError):
            wrong()
    with pytest.raises(FieldError, match="none of what the query gives"):
        await combined.order_by("nmae")


async def test_common_table_expressions(world: World) -> None:
    top = Person.objects.filter(boss=None).annotate(depth=Value(0)).values("id", "depth")
    chart = CTE.recursive(
        top,
        lambda above: (
            Person.objects.join(above, F("boss") == above.c.id).annotate(depth=above.c.depth + 1).values("id", "depth")
        ),
        name="chart",
    )
    query = Person.objects.join(chart, F("id") == chart.c.id).annotate(depth=chart.c.depth)

    def depth(person: Any) -> int:
        boss = next((p for p in world.people if p.pk == person.boss_id), None)
        return 0 if boss is None else depth(boss) + 1

    expected = {p.pk: depth(p) for p in world.people}
    assert {p.pk: p.depth for p in await query} == expected
    assert sorted(await query.filter(depth__gte=1).values_list("pk", flat=True)) == [
        pk for pk, d in expected.items() if d >= 1
    ]
    assert await query.filter(depth=0).count() == len([d for d in expected.values() if d == 0])
    assert (await query.aggregate(deep=Sum("depth")))["deep"] == sum(expected.values())
    # What goes round in circles ends where equal rows count once.
    first, second = world.people[0], world.people[1]
    first.boss, second.boss = second, first
    await first.save()
    await second.save()
    circle = CTE.recursive(
        Person.objects.filter(pk=first.pk).values("id"),
        lambda above: Person.objects.join(above, F("boss") == above.c.id).values("id"),
        all_rows=False,
    )
    assert {first.pk, second.pk} <= set(
        await Person.objects.join(circle, F("id") == circle.c.id).values_list("pk", flat=True)
    )
    # Parameters of all the parts, in a query that has some before and behind.
    for materialized in (None, True, False):
        rich = CTE(
            Person.objects.filter(age__gt=10).values("id", older=F("age") + 5), name="rich", materialized=materialized
        )
        found = await (
            Person.objects.annotate(five=Value(5))
            .join(rich, F("id") == rich.c["id"], Q(active=True))
            .annotate(older=rich.c.older)
            .filter(older__gt=F("five"), pk__lt=1000)
            .order_by("pk")
            .values_list("pk", "older", "five")
        )
        assert found == [(p.pk, p.age + 5, 5) for p in world.people if p.age is not None and p.age > 10 and p.active]
    outer = CTE(Person.objects.filter(age=36), name="old")
    found = (
        await Person.objects.join(outer, F("id") == outer.c.id, outer=True)
        .annotate(old=outer.c.name)
        .order_by("pk")
        .values_list("old", flat=True)
    )
    assert found == [p.name if p.age == 36 else None for p in world.people]
    one, two = CTE(Person.objects.filter(age=36), name="one"), CTE(Team.objects.all(), name="two")
    found = (
        await Person.objects.join(one, F("id") == one.c.id)
        .join(two, F("team") == two.c.id)
        .annotate(t=two.c.name)
        .order_by("pk")
        .values_list("pk", "t")
    )
    assert found == [(p.pk, t.name) for p in world.people if p.age == 36 and (t := world.team_of(p)) is not None]
    assert await Book.objects.filter(author__in=Person.objects.join(one, F("id") == one.c.id)).count() == len(
        [b for b in world.books if any(p.pk == b.author_id and p.age == 36 for p in world.people)]
    )
    with pytest.raises(FieldError, match="did you mean 'older'"):
        rich.c.oldr
    with pytest.raises(QueryError, match="does not join it"):
        await Person.objects.annotate(x=one.c.name)
    with pytest.raises(QueryError, match="needs a condition"):
        Person.objects.join(one)
    with pytest.raises(QueryError, match="joined already"):
        Person.objects.join(one, F("id") == one.c.id).join(one, F("id") == one.c.id)
    same, bad = CTE(Team.objects.all(), name="one"), CTE(Team.objects.all(), name="a.b")
    with pytest.raises(QueryError, match="another name"):
        await Person.objects.join(one, F("id") == one.c.id).join(same, F("team") == same.c.id)
    with pytest.raises(InvalidIdentifier):
        await Person.objects.join(bad, F("team") == bad.c.id)


async def test_two_tables_of_one_shape_are_told_apart(world: World) -> None:
    """A statement is kept by its shape; which table a column is of belongs to it."""

    def query(which: str) -> Any:
        a = CTE(Person.objects.filter(age__gte=0).values("id", "age"), name="a")
        b = CTE(Person.objects.filter(age__gte=30).values("id", "age"), name="b")
        made = Person.objects.join(a, F("id") == a.c.id, outer=True).join(b, F("id") == b.c.id, outer=True)
        return made.annotate(x=(a if which == "a" else b).c.age).order_by("pk").values_list("x", flat=True)

    ages = [p.age for p in world.people]
    assert await query("a") == [x if x is not None and x >= 0 else None for x in ages]
    assert await query("b") == [x if x is not None and x >= 30 else None for x in ages]


async def test_locks(world: World) -> None:
    query = Person.objects.order_by("pk").select_for_update()
    with pytest.raises(TransactionError, match="there is none"):
        await query
    with pytest.raises(QueryError, match="exclude each other"):
        Person.objects.select_for_update(nowait=True, skip_locked=True)
    database = world.database
    if database.kind == "sqlite":
        async with database.transaction():
            with pytest.raises(NotSupported, match="whole file"):
                await query
        return
    first, second = world.people[0].pk, world.people[1].pk
    holding, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with database.transaction():
            assert await pks(Person.objects.filter(pk=first).select_for_update()) == [first]
            holding.set()
            await done.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold())
        await holding.wait()
        async with database.transaction():
            assert await pks(Person.objects.filter(pk__in=[first, second]).select_for_update(skip_locked=True)) == [
                second
            ]
        with pytest.raises(LockTimeout):
            async with database.transaction():
                await Person.objects.filter(pk=first).select_for_update(nowait=True)
        done.set()
    async with database.transaction():
        related = Person.objects.filter(pk=first).select_related("team")
        if database.kind == "postgresql":
            assert await pks(related.select_for_update(of=("self",), no_key=True)) == [first]
            # What an outer join may leave NULL cannot be locked; an inner join leaves nothing NULL.
            book = Book.objects.select_related("author").order_by("pk")
            assert await book.select_for_update(of=("self", "author")).first() == world.books[0]
            assert await book.select_for_update().first() == world.books[0]
            with pytest.raises(FieldError, match="it reads self, team"):
                await related.select_for_update(of=("boss",))
        else:
            assert await pks(related.select_for_update()) == [first]
            with pytest.raises(NotSupported, match="PostgreSQL and MySQL"):
                await related.select_for_update(of=("self",))
            with pytest.raises(NotSupported, match="no such lock"):
                await related.select_for_update(no_key=True)
        with pytest.raises(QueryError, match="rows of tables"):
            await Person.objects.values("team").annotate(n=Count("*")).select_for_update()


async def test_explain(world: World) -> None:
    query = Person.objects.filter(age__gt=3, team__name="team 1").order_by("name")
    told = await query.explain()
    assert "person" in told
    assert await Person.objects.filter(pk=1).explain()
    kind = world.database.kind
    if kind == "sqlite":
        with pytest.raises(NotSupported, match="not what it took"):
            await query.explain(analyze=True)
        with pytest.raises(NotSupported, match="text"):
            await query.explain(format="json")
    else:
        assert json.loads(await query.explain(format="json"))
        assert "actual" in await query.explain(analyze=True) or "r_rows" in await query.explain(analyze=True)
    if kind == "postgresql":
        assert "Buffers" in await query.explain(analyze=True, buffers=True, timing=False)
        with pytest.raises(QueryError, match="did you mean 'verbose'"):
            await query.explain(verbos=True)
        with pytest.raises(QueryError, match="True or False"):
            await query.explain(verbose="ON) SELECT 1; --")
    else:
        with pytest.raises(NotSupported, match="no such options"):
            await query.explain(verbose=True)
    with pytest.raises(NotSupported):
        await query.explain(format="json; DROP TABLE x")  # type: ignore[arg-type]


async def test_raw_sql_gives_objects(world: World) -> None:
    table = Person._meta.db_table
    sql = f"SELECT id, name, age + :more AS older FROM {table} WHERE age > :age ORDER BY id"
    found = await Person.objects.raw(sql, {"age": 10, "more": 1})
    expected = [p for p in world.people if p.age is not None and p.age > 10]
    assert [(p.pk, p.name, p.older) for p in found] == [(p.pk, p.name, p.age + 1) for p in expected]  # type: ignore[attr-defined]
    with pytest.raises(FieldNotLoaded, match="age was not loaded"):
        found[0].age
    found[0].name = "changed"
    await found[0].save()
    assert (await Person.objects.get(pk=found[0].pk)).name == "changed"
    mark = {"postgresql": "$1", "mariadb": "%s", "sqlite": "?"}[world.database.kind]
    listed = [p.pk async for p in Person.objects.raw(f"SELECT * FROM {table} WHERE id = {mark}", [3])]
    assert listed == [3]
    # What types need is done: an aware time, a decimal, JSON.
    whole = await Person.objects.raw(f"SELECT * FROM {table} ORDER BY id")
    assert [(p.joined, p.balance, p.data, p.span) for p in whole[1:]] == [
        (p.joined, p.balance, p.data, p.span) for p in world.people[1:]
    ]
    with pytest.raises(QueryError, match="columns of the key"):
        await Person.objects.raw(f"SELECT name FROM {table}")
    with pytest.raises(QueryError):
        await Person.objects.raw("SELECT :a", {})
    with pytest.raises(QueryError):
        await Person.objects.raw("SELECT 1", {"a": 1})
    with pytest.raises(QueryError, match="a list, or a mapping"):
        Person.objects.raw("SELECT 1", "abc")
    with pytest.raises((ProgrammingError, DataError)):
        await Person.objects.raw("SELEKT 1")


async def test_objects_by_their_keys(world: World) -> None:
    manager: Any = Person.objects
    assert await manager.in_bulk([1, 3, 99999]) == {1: world.people[0], 3: world.people[2]}
    assert await manager.in_bulk([]) == {}
    assert list(await Person.objects.filter(age=36).in_bulk()) == [p.pk for p in world.people if p.age == 36]
    assert set(await Tag.objects.all().in_bulk(["red", "blue", "pink"], field_name="word")) == {"red", "blue"}
    many = await Person.objects.all().in_bulk(range(1, 2500))
    assert len(many) == len(world.people)
    with pytest.raises(FieldError, match="not unique"):
        await manager.in_bulk([1], field_name="age")
    with pytest.raises(QueryError, match="for objects"):
        await Person.objects.values("pk").in_bulk([1])


async def test_first_and_last_in_an_order(world: World) -> None:
    aged = Person.objects.filter(age__isnull=False)
    ordered = sorted((p for p in world.people if p.age is not None), key=lambda p: (p.age, p.pk))
    assert await aged.earliest("age", "pk") == ordered[0]
    assert await aged.latest("age", "pk") == ordered[-1]
    assert (await aged.latest("-age")).age == ordered[0].age
    with pytest.raises(Person.DoesNotExist):
        await Person.objects.filter(pk=0).earliest("pk")
    with pytest.raises(QueryError, match="names of the fields"):
        await aged.latest()


async def test_dates(world: World) -> None:
    born = [p.born for p in world.people if p.born]
    assert await Person.objects.all().dates("born", "year") == sorted({b.replace(month=1, day=1) for b in born})
    assert await Person.objects.all().dates("born", "month", descending=True) == sorted(
        {b.replace(day=1) for b in born}, reverse=True
    )
    joined = [p.joined for p in world.people if p.joined]
    assert await Person.objects.all().dates("joined", "day") == sorted({j.date() for j in joined})
    assert await Person.objects.all().datetimes("joined", "hour") == sorted(
        {j.replace(minute=0, second=0, microsecond=0) for j in joined}
    )
    zone = dt.timezone(dt.timedelta(hours=9))
    assert await Person.objects.filter(active=True).datetimes("joined", "day", tzinfo=zone) == sorted(
        {
            p.joined.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
            for p in world.people
            if p.joined and p.active
        }
    )
    assert await Book.objects.all().dates("author__born", "year") == sorted(
        {p.born.replace(month=1, day=1) for p in world.people if p.born and world.books_of(p)}
    )
    for wrong in (
        lambda: Person.objects.all().dates("name", "year"),
        lambda: Person.objects.all().datetimes("born", "year"),
    ):
        with pytest.raises(FieldError):
            wrong()
    with pytest.raises(QueryError):
        Person.objects.all().dates("born", "yaer")  # type: ignore[arg-type]


async def test_nothing(world: World) -> None:
    statements = len(world.database.plans)
    assert await Person.objects.all().none() == []
    assert await Person.objects.filter(age=1).none().order_by("age")[:5] == []
    assert len(world.database.plans) == statements
    assert await Person.objects.all().none().count() == 0
    assert not await Person.objects.all().none().exists()
    assert await Person.objects.all().none().first() is None
    assert await Book.objects.filter(author__in=Person.objects.all().none()).count() == 0
    assert await Book.objects.exclude(author__in=Person.objects.all().none()).count() == len(world.books)
    assert await Person.objects.filter(~Exists(Book.objects.all().none())).count() == len(world.people)


async def test_membership(world: World) -> None:
    person = world.people[0]
    assert await Person.objects.all().contains(person)
    assert not await Person.objects.exclude(pk=person.pk).contains(person)
    assert await Person.objects.order_by("pk")[:1].contains(person)
    assert not await Person.objects.order_by("pk")[1:].contains(person)
    assert not await Team.objects.all().contains(person)
    assert await Person.objects.filter(pk=1).union(Person.objects.filter(pk=2)).contains(person)
    with pytest.raises(QueryError, match="was not saved"):
        await Person.objects.all().contains(Person(name="new"))
    with pytest.raises(QueryError, match="for objects"):
        await Person.objects.values("pk").contains(person)


async def test_sqlalchemy_takes_the_query(world: World) -> None:
    query = (
        Person.objects.filter(Q(age__in=[7, 36]) | Q(joined__year=2024), ~Q(name__contains="%"))
        .annotate(n=Count("books"), low=Concat(Lower("name"), Value("!")), document=Value({"a": [1]}))
        .order_by("pk")
    )
    expected = await query.values_list("pk", "n", "low")
    statement = query.to_sqlalchemy()
    rows = await world.database.fetch_all(statement)
    assert [(row["id"], row["n"], row["low"]) for row in rows] == expected
    counted = await world.database.fetch_value(
        sqlalchemy.select(sqlalchemy.func.count()).select_from(statement.subquery())
    )
    assert counted == len(expected)
    typed = Person.objects.filter(
        balance__gte=0,
        born__isnull=False,
        joined__gt=dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
        span__lt=dt.timedelta(9),
        opens__gte=dt.time(0),
        data__contains={"n": 5},
    ).to_sqlalchemy()
    await world.database.fetch_all(typed)
    with pytest.raises(QueryError, match=r"Person\.age"):
        Person.objects.filter(age="old").to_sqlalchemy()


async def test_values_of_all_kinds(world: World) -> None:
    query = Person.objects.order_by("pk")
    assert await query.values_list("name", "team__name", "joined__year") == [
        (p.name, t.name if (t := world.team_of(p)) else None, p.joined.year if p.joined else None) for p in world.people
    ]
    assert await query.values("pk", shout=Concat("name", Value("!"))) == [
        {"pk": p.pk, "shout": f"{p.name}!"} for p in world.people
    ]
    # A relation to many gives a row for each of its objects.
    pairs = await query.filter(books__isnull=False).values_list("pk", "books__title")
    assert sorted(pairs) == sorted((p.pk, b.title) for p in world.people for b in world.books_of(p))
    assert len((await query.values_list())[0]) == len(Person._meta.fields)
    with pytest.raises(FieldError):
        query.values("nmae")
    with pytest.raises(QueryError, match="one name"):
        query.values_list("pk", "name", flat=True)
    with pytest.raises(QueryError, match="names are texts"):
        query.values(F("name"))  # type: ignore[arg-type]


async def test_named_tuples(world: World) -> None:
    query = Person.objects.order_by("pk")
    rows = await query.values_list("pk", "name", "team__name", "balance", later=F("age") + 1, named=True)
    assert [(row.pk, row.name, row.team__name, row.balance, row.later) for row in rows] == [
        (p.pk, p.name, t.name if (t := world.team_of(p)) else None, p.balance, None if p.age is None else p.age + 1)
        for p in world.people
    ]
    assert rows == await query.values_list("pk", "name", "team__name", "balance", later=F("age") + 1)
    assert type(rows[0]).__name__ == "Row"
    assert rows[0]._fields == ("pk", "name", "team__name", "balance", "later")
    assert (await query.values_list(named=True).first())._fields == tuple(f.attribute for f in Person._meta.fields)  # type: ignore[union-attr]
    groups = await Person.objects.values_list("active", named=True).annotate(n=Count("*")).order_by("active")
    assert [(row.active, row.n) for row in groups] == sorted(
        (flag, len([p for p in world.people if p.active is flag])) for flag in {p.active for p in world.people}
    )
    young, old = query.filter(age__lt=21), query.filter(age__gte=21)
    both = young.values_list("name", named=True).union(old.values_list("name", named=True))
    assert {row.name for row in await both} == {p.name for p in world.people if p.age is not None}
    page = await query.values_list("name", named=True).paginate(size=3)
    assert [row.name for row in page.items] == [p.name for p in world.people[:3]]
    assert [row.name async for row in query.values_list("name", named=True).iterator(4)] == [
        p.name for p in world.people
    ]
    with pytest.raises(QueryError, match="choose one"):
        query.values_list("name", flat=True, named=True)
    with pytest.raises(QueryError, match="another one"):
        query.values_list("data__in it", named=True)


async def test_fields_that_are_left_out(world: World) -> None:
    p = next(one for one in world.people if one.age is not None and one.team_id is not None)
    only = await Person.objects.only("name").get(pk=p.pk)
    assert (only.pk, only.name) == (p.pk, p.name)
    with pytest.raises(FieldNotLoaded, match="age was not loaded"):
        only.age
    without = await Person.objects.defer("name", "data").defer("age").get(pk=p.pk)
    assert (without.score, without.team_id) == (p.score, p.team_id)
    for name in ("name", "data", "age"):
        with pytest.raises(FieldNotLoaded):
            getattr(without, name)
    # The key is always read; what is written is not lost for being left out, and nothing else is written.
    only.name = "changed"
    await only.save()
    found = await Person.objects.get(pk=p.pk)
    assert (found.name, found.age, found.data) == ("changed", p.age, p.data)
    await without.fetch("age")
    assert without.age == p.age
    assert (await without.refresh_from_db()).name == "changed"
    related = await Person.objects.only("name").select_related("team").get(pk=p.pk)
    assert related.team == world.team_of(p)
    query = Person.objects.order_by("pk").only("name").annotate(n=Count("books"))
    assert [one.n for one in await query] == [len(world.books_of(one)) for one in world.people]  # type: ignore[attr-defined]
    with pytest.raises(FieldError, match="did you mean 'name'"):
        Person.objects.only("nmae")


async def test_everything_at_once(world: World) -> None:
    """Parameters keep their places through joins, subqueries, groups, windows and orders."""
    chart = CTE(Person.objects.filter(age__gte=-100).values("id", plus=F("age") + 1000), name="plus")
    inner = Book.objects.filter(author=OuterRef("pk"), pages__gte=1).values("author").annotate(n=Count("*")).values("n")
    query = (
        Person.objects.join(chart, F("id") == chart.c.id, chart.c.plus > 10)
        .annotate(plus=chart.c.plus, n=inner, m=Count("books", filter=Q(books__pages__gte=1)), two=Value(2))
        .filter(Q(plus__gt=900) & ~Q(name="nobody"), Exists(Book.objects.filter(author=OuterRef("pk"), price__gte=0)))
        .annotate(place=Window(Rank(), order_by=(F("plus") + 3).desc()))
        .filter(place__lte=50, two=2)
        .order_by((F("age") + 1).desc(nulls="last"), "pk")
        .select_related("team")
    )
    expected = sorted(
        (p for p in world.people if p.age is not None and world.books_of(p)), key=lambda p: (-p.age, p.pk)
    )
    for part in (slice(None), slice(1, 3), slice(0, 0)):
        found = await query[part]
        assert [p.pk for p in found] == [p.pk for p in expected[part]]
        for one in found:
            thick = len([b for b in world.books_of(one) if b.pages is not None and b.pages >= 1])
            row: Any = one
            assert (row.plus, row.n or 0, row.m, row.two) == (row.age + 1000, thick, thick, 2)
    assert await query.count() == len(expected)
    assert (await query.aggregate(s=Sum("plus")))["s"] == sum(p.age + 1000 for p in expected)


async def test_relations_with_a_condition(world: World) -> None:
    def thick(person: Any) -> list[Any]:
        return [b for b in world.books_of(person) if b.pages is not None and b.pages >= 100]

    query = Person.objects.annotate(thick=FilteredRelation("books", Q(books__pages__gte=100))).order_by("pk")
    assert await pks(query.filter(thick__isnull=False)) == [p.pk for p in world.people if thick(p)]
    assert await pks(query.filter(thick__title__startswith="a")) == [
        p.pk for p in world.people if any(b.title.startswith("a") for b in thick(p))
    ]
    assert await pks(query.filter(thick__isnull=True, active=True)) == [
        p.pk for p in world.people if not thick(p) and p.active
    ]
    assert await query.annotate(n=Count("thick"), m=Count("books")).values_list("n", "m") == [
        (len(thick(p)), len(world.books_of(p))) for p in world.people
    ]
    pairs = await query.values_list("pk", "thick__title")
    expected = [(p.pk, b.title) for p in world.people for b in thick(p)] + [
        (p.pk, None) for p in world.people if not thick(p)
    ]
    assert sorted(pairs, key=str) == sorted(expected, key=str)
    teams = Person.objects.annotate(oslo=FilteredRelation("team", Q(team__city="Oslo"))).order_by("pk")
    assert await teams.values_list("oslo__name", flat=True) == [
        t.name if (t := world.team_of(p)) is not None and t.city == "Oslo" else None for p in world.people
    ]
    # With another relation, and a column of the row, in the condition; two of them; and a relation of many to many.
    red = Person.objects.annotate(
        red=FilteredRelation("books", Q(books__tags__word="red") & Q(books__pages__gt=F("age")))
    )

    def is_red(person: Any) -> list[Any]:
        return [
            b for b in world.books_of(person)
            if "red" in world.words_of(b) and b.pages is not None and person.age is not None and b.pages > person.age
        ]  # fmt: skip

    assert await pks(red.filter(red__price__gte=0).order_by("pk")) == [p.pk for p in world.people if is_red(p)]
    assert await red.annotate(n=Count("red", filter=Q(red__title__contains="0"))).order_by("pk").values_list(
        "n", flat=True
    ) == [len([b for b in is_red(p) if "0" in b.title]) for p in world.people]
    both = query.annotate(thin=FilteredRelation("books", Q(books__pages__lt=100))).filter(
        thick__isnull=False, thin__isnull=False
    )
    assert await pks(both) == [
        p.pk for p in world.people if thick(p) and any(b.pages is not None and b.pages < 100 for b in world.books_of(p))
    ]
    tagged = Book.objects.annotate(red=FilteredRelation("tags", Q(tags__word="red"))).order_by("pk")
    assert await tagged.annotate(n=Count("red")).values_list("n", flat=True) == [
        int("red" in world.words_of(b)) for b in world.books
    ]
    # One statement, whatever the values of the condition.
    before = len(world.database.plans)
    await (
        Person.objects.annotate(thick=FilteredRelation("books", Q(books__pages__gte=7)))
        .order_by("pk")
        .filter(thick__isnull=False)
    )
    assert len(world.database.plans) == before
    for wrong in ("nothing", "team__members", "name"):
        with pytest.raises(FieldError):
            Person.objects.annotate(x=FilteredRelation(wrong, Q(active=True)))
    with pytest.raises(QueryError, match="a condition is needed"):
        FilteredRelation("books", F("age"))  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="further away"):
        await Person.objects.annotate(x=FilteredRelation("books", Q(team__name="x"))).filter(x__isnull=False)


async def test_nothing_is_written_where_nothing_is_asked_for(world: World) -> None:
    """What only reading knows restricts writing too."""
    assert await Person.objects.none().update(name="x") == 0
    assert await Person.objects.none().delete() == 0
    table = CTE(Person.objects.filter(age=36).values("id"))
    old = [p.pk for p in world.people if p.age == 36]
    assert await Person.objects.join(table, F("id") == table.c.id).update(note="old") == len(old)
    assert sorted(await pks(Person.objects.filter(note="old"))) == old
    marked = Case(
        When(books__isnull=False, then=Value("author")), When(Q(age__gt=20), then=Lower("name")), default=Value("")
    )
    assert await Person.objects.filter(age=36).update(note=marked) == len(old)
    assert await Person.objects.filter(age=36).order_by("pk").values_list("note", flat=True) == [
        "author" if world.books_of(p) else p.name.lower() for p in world.people if p.age == 36
    ]
    with pytest.raises(QueryError):
        await Person.objects.filter(age=1).union(Person.objects.filter(age=2)).delete()
    assert await Person.objects.count() == len(world.people)
