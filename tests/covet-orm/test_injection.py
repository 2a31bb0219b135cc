"""Nothing that a caller gives becomes text of SQL: values are parameters, names are known ones or refused.

The statement of a hostile value is the statement of a harmless one, letter for letter; what it finds is what Python
finds; and every table is there afterwards.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.orm_people import Book, Person, Tag, Team, World, people

from covet_orm.exceptions import FieldError, InvalidIdentifier, NotSupported, OrmError, QueryError
from covet_orm.expressions import Case, Count, Exists, F, JSONArrayAgg, OuterRef, Q, StringAgg, Subquery, Value, When
from covet_orm.expressions.functions import (
    Coalesce,
    Collate,
    Concat,
    Extract,
    JSONExtract,
    JSONObject,
    Replace,
    StrIndex,
    Trunc,
)
from covet_orm.queries.ctes import CTE
from covet_orm.schema import table_names

pytestmark = pytest.mark.anyio

PAYLOADS: dict[str, list[str]] = {
    "tautologies": ["' OR '1'='1", "' OR 1=1 --", '" OR ""="', "') OR ('a'='a", "1 OR 1=1", "' OR TRUE #", "admin'--"],
    "unions": [
        "' UNION SELECT NULL, version() --",
        "1 UNION ALL SELECT 1,2,3",
        "') UNION SELECT name FROM sqlite_master --",
    ],
    "stacked statements": [
        "'; DROP TABLE tests_person; --",
        '"; DELETE FROM tests_person; --',
        "1; UPDATE tests_person SET name='x'",
        "$$; DROP TABLE tests_person; $$",
        "`; DROP TABLE tests_person; `",
    ],
    "comments": ["--", "#", "/* */", "/*! DROP TABLE tests_person */", "-- -", ";--\n", "*/ OR 1=1 /*"],
    "quotes": [
        "'",
        "''",
        '"',
        '""',
        "`",
        "``",
        "'\"`",
        "\\'",
        '\\"',
        "\\\\'",
        "'''",
        "q'[x]'",
        "E'\\''",
        "$tag$'$tag$",
    ],
    "quotes in other letters": [
        "ʼ OR 1=1",  # noqa: RUF001 - mistaken for others, as is the point
        "＇ OR 1=1",  # noqa: RUF001 - mistaken for others, as is the point
        "‘ OR ’1",  # noqa: RUF001 - mistaken for others, as is the point
        "\u02b9",
        "%27",
        "&#39;",
        "\xbf\x27 OR 1=1",
    ],
    "escapes": ["\\", "\\\\", "\\n", "\\0", "\\x27", "\\u0027", "\n", "\r\n", "\t", "\x1a", "\b", "\x7f"],
    "marks of parameters": [
        "%s",
        "%%",
        "%(name)s",
        "%d",
        "$1",
        "$2::int",
        "?",
        "?1",
        ":name",
        ":p0",
        "@x",
        "{}",
        "{0}",
        "__[POSTCOMPILE_p0]",
        "p0",
    ],
    "wildcards": ["%", "_", "\\%", "%_%", "[a-z]", "*", "?"],
    "time": ["' AND SLEEP(0) --", "'||pg_sleep(0)||'", "1 AND (SELECT 1 FROM (SELECT SLEEP(0)) x)"],
    "errors": ["' AND extractvalue(1,concat(0x7e,version())) --", "CAST((SELECT version()) AS int)", "1/0"],
    "paths of JSON": [
        "$",
        "$.a",
        "$[0]",
        "$**",
        '"."',
        "a.b",
        "a[0]",
        "{a,b}",
        '\\"',
        "',(SELECT 1),'",
        "#>>",
        "->>'a'",
    ],
    "letters": ["é", "ß", "İ", "ﬀ", "𝄞", "\u202e", "\u200b", "\ufeff", "a\u0301"],
    "lengths": ["'" * 500, "x" * 5000, "(" * 200],
}
ALL = [payload for payloads in PAYLOADS.values() for payload in payloads]


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    """The objects, on each database in turn; afterwards, everything is still there."""
    async with people(url) as made:
        before = await table_names(made.database)
        count = await Person.objects.count()
        yield made
        assert await table_names(made.database) == before
        assert await Person.objects.count() == count


def sql_of(world: World, query: Any) -> str:
    """The text of a query, compiled anew: a statement that was kept would be the same whatever the values are."""
    world.database.plans.clear()
    return str(query.prepared(world.database)[0].sql)


VALUES: list[Callable[[str], Any]] = [
    lambda text: Person.objects.filter(name=text),
    lambda text: Person.objects.exclude(name=text),
    lambda text: Person.objects.filter(name__in=[text, "b"]),
    lambda text: Person.objects.filter(name__range=(text, "b")),
    lambda text: Person.objects.filter(name__gt=text),
    lambda text: Person.objects.filter(name__iexact=text),
    lambda text: Person.objects.filter(name__contains=text),
    lambda text: Person.objects.filter(name__icontains=text),
    lambda text: Person.objects.filter(name__startswith=text),
    lambda text: Person.objects.filter(name__iendswith=text),
    lambda text: Person.objects.filter(team__name=text),
    lambda text: Person.objects.filter(books__title=text),
    lambda text: Person.objects.filter(Q(name=text) | ~Q(note=text)),
    lambda text: Person.objects.filter(Person.name == text),
    lambda text: Person.objects.filter(F("name") != text),
    lambda text: Person.objects.filter(data=text),
    lambda text: Person.objects.filter(data={"a": text}),
    lambda text: Person.objects.filter(data__s=text),
    lambda text: Person.objects.filter(data__s__gt=text),
    lambda text: Person.objects.filter(data__s__icontains=text),
    lambda text: Person.objects.filter(data__contains={"s": text}),
    lambda text: Person.objects.filter(data__has_key=text),
    lambda text: Person.objects.filter(data__has_any_keys=[text, "n"]),
    lambda text: Person.objects.filter(data__in=[text, 1]),
    lambda text: Person.objects.annotate(x=Value(text)).filter(x=text).order_by("x"),
    lambda text: Person.objects.annotate(x=Concat("name", Value(text))).values("x"),
    lambda text: Person.objects.annotate(x=Replace("name", Value(text), Value(text))),
    lambda text: Person.objects.annotate(x=StrIndex("name", Value(text))),
    lambda text: Person.objects.annotate(x=Coalesce("note", Value(text))).order_by("x"),
    lambda text: Person.objects.annotate(x=Case(When(name=text, then=Value(text)), default=Value(text))),
    lambda text: Person.objects.annotate(x=JSONObject(key=Value(text))),
    lambda text: Person.objects.values("active").annotate(x=StringAgg("name", text)),
    lambda text: Person.objects.values("active").annotate(
        x=StringAgg("name", filter=Q(note=text), default=Value(text))
    ),
    lambda text: Person.objects.annotate(
        x=Subquery(Book.objects.filter(title=text, author=OuterRef("pk")).values("title")[:1])
    ),
    lambda text: Person.objects.filter(Exists(Book.objects.filter(title=text))),
    lambda text: Person.objects.filter(name__in=Team.objects.filter(name=text).values("name")),
    lambda text: Person.objects.filter(name=text).union(Person.objects.filter(note=text)),
    lambda text: Person.objects.join(cte := CTE(Person.objects.filter(name=text)), F("id") == cte.c.id),
]  # fmt: skip


async def test_values_never_become_text(world: World) -> None:
    for make in VALUES:
        harmless = sql_of(world, make("harmless"))
        await make("harmless")
        for category, payloads in PAYLOADS.items():
            for payload in payloads:
                assert sql_of(world, make(payload)) == harmless, category
        for payload in ALL[:: len(ALL) // 25]:
            await make(payload)


async def test_hostile_values_are_found_as_they_are(world: World) -> None:
    hostile = [payload for payload in ALL if len(payload) <= 50]
    tags = {
        payload: await Tag.objects.create(word=payload)
        for payload in dict.fromkeys(hostile)
        if world.database.kind != "mariadb"
    }
    for payload, tag in tags.items():
        assert await Tag.objects.get(word=payload) == tag
        assert await Tag.objects.filter(word__in=[payload]).count() == 1
        assert tag in await Tag.objects.filter(word__contains=payload)
        assert tag in await Tag.objects.filter(word__startswith=payload, word__endswith=payload)
        expected = sorted(other for other in tags if payload in other)
        assert sorted(t.word for t in await Tag.objects.filter(word__contains=payload)) == expected, payload
    person = world.people[0]
    for payload in hostile:
        person.note = payload
        person.data = {"s": payload, payload: [payload]}
        await person.save(update_fields=["note", "data"])
        mine = Person.objects.filter(pk=person.pk)
        assert await mine.filter(note=payload).exists(), payload
        assert await mine.filter(data__s=payload).exists(), payload
        assert await mine.filter(data__has_key=payload).exists(), payload
        assert await mine.filter(data={"s": payload, payload: [payload]}).exists(), payload
        assert await mine.annotate(x=Value(payload)).values_list("x", "note", "data__s") == [
            (payload, payload, payload)
        ]
        if world.database.kind == "mariadb" and payload.startswith("-"):
            with pytest.raises(NotSupported, match="begins with a minus"):
                await mine.annotate(x=JSONExtract("data", payload, 0))
            continue
        assert await mine.annotate(x=JSONExtract("data", payload, 0)).values_list("x", flat=True) == (
            [payload] if not (payload.isascii() and payload.isdecimal()) else [None]
        ), payload
        assert await mine.annotate(x=JSONObject(**{payload: Value(payload)})).values_list("x", flat=True) == [
            {payload: payload}
        ], payload
        assert (await mine.aggregate(x=StringAgg(Concat("note", Value("")), payload)))["x"] == payload


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT, number=st.integers(0, len(VALUES) - 1))
async def test_any_text_is_a_value(world: World, text: str, number: int) -> None:
    make = VALUES[number]
    assert sql_of(world, make(text)) == sql_of(world, make("harmless"))
    await make(text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT.filter(lambda text: text != "s"))
async def test_any_text_comes_back_as_it_went(world: World, text: str) -> None:
    person = world.people[0]
    person.note, person.data = text, {"s": text, text: {text: text}}
    await person.save()
    mine = Person.objects.filter(pk=person.pk, note=text, data__s=text)
    assert await mine.values_list("note", "data") == [(text, {"s": text, text: {text: text}})]
    if not text.isdecimal() and not (text.startswith("-") and world.database.kind == "mariadb"):
        assert await mine.annotate(x=JSONExtract("data", text, text)).values_list("x", flat=True) == [text]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=20))
async def test_what_is_no_text_for_a_database_is_refused_before_it(world: World, text: str) -> None:
    """NUL and lone surrogates too: an error of ours, the same on every database, or an answer."""
    held = "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
    for make in VALUES[:8]:
        if held:
            await make(text)
        else:
            with pytest.raises(QueryError):
                await make(text)


NAMES: list[Callable[[str], Any]] = [
    lambda name: Person.objects.filter(**{name: 1}),
    lambda name: Person.objects.filter(**{f"name__{name}": "x"}),
    lambda name: Person.objects.filter(**{f"team__{name}": 1}),
    lambda name: Person.objects.filter(**{f"books__{name}": 1}),
    lambda name: Person.objects.filter(**{f"joined__{name}": 1}),
    lambda name: Person.objects.filter(Q(**{name: 1})),
    lambda name: Person.objects.exclude(**{name: 1}),
    lambda name: Person.objects.filter(F(name) == 1),
    lambda name: Person.objects.filter(age=F(name)),
    lambda name: Person.objects.filter(Person.name.lookup(name, "x")),
    lambda name: Person.objects.order_by(name),
    lambda name: Person.objects.order_by("-" + name),
    lambda name: Person.objects.order_by(F(name).desc()),
    lambda name: Person.objects.order_by(f"team__{name}"),
    lambda name: Person.objects.values(name),
    lambda name: Person.objects.values_list(name, flat=True),
    lambda name: Person.objects.only(name),
    lambda name: Person.objects.defer(name),
    lambda name: Person.objects.select_related(name),
    lambda name: Person.objects.annotate(**{name: F("age")}),
    lambda name: Person.objects.alias(**{name: F("age")}),
    lambda name: Person.objects.annotate(x=F(name)),
    lambda name: Person.objects.annotate(x=Count(name)) if name != "*" else Person.objects.order_by("*"),
    lambda name: Person.objects.values("active").annotate(x=StringAgg("name", order_by=name)),
    lambda name: Person.objects.annotate(x=Subquery(Book.objects.filter(author=OuterRef(name)).values("pk")[:1])),
    lambda name: Person.objects.annotate(x=Extract("joined", name)),
    lambda name: Person.objects.annotate(x=Trunc("joined", name)),
    lambda name: Person.objects.all().datetimes("joined", name),  # type: ignore[arg-type]
    lambda name: Person.objects.all().dates(name, "year"),
    lambda name: Person.objects.join(cte := CTE(Team.objects.all()), F("team") == cte.c[name]),
]  # fmt: skip


async def test_names_are_known_ones_or_refused(world: World) -> None:
    known = {"name", "age"}
    for make in NAMES:
        for payload in ALL:
            if payload in known or payload.isidentifier():
                continue
            with pytest.raises((QueryError, NotSupported)):
                await make(payload)
        with pytest.raises((QueryError, NotSupported)):
            await make("no_such_thing" if make is not NAMES[19] and make is not NAMES[20] else "team")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=80), number=st.integers(0, len(NAMES) - 1))
async def test_any_text_as_a_name(world: World, name: str, number: int) -> None:
    """It is refused, or it was a name; never an error of another kind, and never a part of the text as it stands."""
    # An error of another kind is none of ours, and fails the test.
    with suppress(OrmError):
        await NAMES[number](name)


async def test_names_that_are_words_of_sql_are_quoted(world: World) -> None:
    words = ["select", "order", "group", "table", "user", "from_", "limit", "primary", "über", "Ωmega", "UPPER", "x1"]
    query = Person.objects.order_by("pk").annotate(**{word: F("age") for word in words})
    found = await query.filter(**{f"{word}__isnull": True for word in words}).values(*words)
    assert found == [dict.fromkeys(words)] * len([p for p in world.people if p.age is None])
    grouped = (
        await Person.objects.values("active")
        .annotate(**{word: Count("*") for word in words})
        .filter(select__gt=0)
        .order_by("group")
    )
    assert all(row["limit"] == row["user"] for row in grouped)
    assert set(await Person.objects.aggregate(**{word: Count("*") for word in words})) == set(words)
    union = Person.objects.values("pk", select=F("age")).union(Person.objects.values("pk", select=F("id")))
    assert await union.order_by("select", "pk")
    table = CTE(Person.objects.values("id", select=F("age")), name="select")
    assert await Person.objects.join(table, F("id") == table.c.id).annotate(order=table.c.select).order_by("order")
    quoted = CTE(Person.objects.values("id"), name="a\"b`c'd; DROP TABLE x --")
    assert await Person.objects.join(quoted, F("id") == quoted.c.id).count() == len(world.people)


async def test_other_places_of_words(world: World) -> None:
    """What is neither a value nor a name: numbers, collations, options, aliases of aggregates, SQL by hand."""
    for payload in ALL:
        if not payload.isidentifier():
            with pytest.raises((FieldError, InvalidIdentifier, QueryError)):
                await Person.objects.aggregate(**{payload: Count("*")})
        if not payload.replace("_", "").replace("-", "").replace(".", "").isalnum():
            with pytest.raises(QueryError):
                Collate("name", payload)
        with pytest.raises((QueryError, NotSupported)):
            await Person.objects.all().explain(format=payload)  # type: ignore[arg-type]
        with pytest.raises((QueryError, NotSupported)):
            await Person.objects.all().explain(**{"x" + payload: True})
        with pytest.raises(QueryError):
            await Person.objects.order_by("pk").paginate(after=payload)
        with pytest.raises(QueryError):
            await Person.objects.filter(age__gt=payload)
        found = await Person.objects.raw(
            f"SELECT id, :text AS told FROM {Person._meta.db_table} WHERE id = 1",
            {"text": payload},
        )
        assert [p.told for p in found] == [payload]  # type: ignore[attr-defined]
    for wrong in ("1", 1.5, True, "1; DROP"):
        with pytest.raises(QueryError, match="whole numbers"):
            Person.objects.all()[0:wrong]  # type: ignore[misc]
        with pytest.raises(QueryError, match="whole numbers"):
            Person.objects.all().limit(5, wrong)  # type: ignore[arg-type]
    rows = await Person.objects.aggregate(
        x=JSONArrayAgg(JSONObject(**{payload: Value(payload) for payload in ALL[:40]}))
    )
    assert json.dumps(rows["x"][0], sort_keys=True) == json.dumps(
        {payload: payload for payload in ALL[:40]}, sort_keys=True
    )
