"""Indexes and constraints: what they are in each database, what they refuse, and where a database has none."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.services.databases import ask

from covet_orm.constraints import CheckConstraint, ExclusionConstraint, UniqueConstraint
from covet_orm.databases import Database
from covet_orm.dialects import dialect_of
from covet_orm.exceptions import CheckViolation, ExclusionViolation, ModelError, NotSupported, UniqueViolation
from covet_orm.expressions import F, Q
from covet_orm.fields import (
    CharField,
    DateTimeField,
    DecimalField,
    ForeignKey,
    IntegerField,
    IPAddressField,
    JSONField,
    TextField,
)
from covet_orm.indexes import Index
from covet_orm.models import Model, Registry
from covet_orm.models.definitions import DefinedExpression

pytestmark = pytest.mark.anyio


def declare(*, indexes: Any = (), constraints: Any = (), name: str = "Thing", **fields: Any) -> Any:
    """A model with these indexes, constraints and fields."""
    meta = type("Meta", (), {"registry": Registry(), "app_label": "", "indexes": indexes, "constraints": constraints})
    return type(Model)(name, (Model,), {"__module__": __name__, "Meta": meta, **fields})


def of_numbers(**options: Any) -> Any:
    return declare(
        a=IntegerField(null=True),
        b=IntegerField(default=0),
        text=CharField(max_length=50, default=""),
        **options,
    )


Texts = declare(name="Texts", text=CharField(max_length=50))


async def created(database: Database, model: Any) -> None:
    await database.create_all(model._meta.registry)


async def index_names(url: str) -> set[str]:
    """The names of the indexes of the table `thing`."""
    statement = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'thing'",
        "postgresql": "SELECT indexname FROM pg_indexes WHERE tablename = 'thing'",
        "mariadb": "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_name = 'thing'",
    }[url.partition(":")[0]]
    return {row[0] for row in await ask(url, statement)}


async def definition(url: str, index: str) -> str:
    """The definition of an index (PostgreSQL)."""
    found: str = (await ask(url, f"SELECT indexdef FROM pg_indexes WHERE indexname = '{index}'"))[0][0]
    return found


async def test_indexes(url: str) -> None:
    model = declare(
        a=IntegerField(db_index=True),
        b=IntegerField(),
        indexes=[Index("a", "-b"), Index(F("b").desc(), name="by_b", databases=["postgresql", "sqlite"])],
    )
    async with Database(url) as database:
        await created(database, model)
        names = await index_names(url)
        assert {"thing_a_idx", "thing_a_b_idx"} <= names
        assert ("by_b" in names) == (database.kind != "mariadb")
        if database.kind == "postgresql":
            assert "(a, b DESC)" in await definition(url, "thing_a_b_idx")


async def test_unique(url: str) -> None:
    model = of_numbers(constraints=[UniqueConstraint("a", "b")])
    async with Database(url) as database:
        await created(database, model)
        await model.objects.create(a=1, b=1)
        await model.objects.create(a=1, b=2)
        await model.objects.create(a=None)
        await model.objects.create(a=None)
        with pytest.raises(UniqueViolation) as caught:
            await model.objects.create(a=1, b=2)
        assert set(caught.value.fields) == {"a", "b"}
        assert await model.objects.count() == 4


async def test_unique_among_some(url: str) -> None:
    model = of_numbers(constraints=[UniqueConstraint("a", condition=Q(text="50%") | Q(b__in=[7, 8]))])
    async with Database(url) as database:
        if database.kind == "mariadb":
            with pytest.raises(NotSupported, match=r"Thing\.Meta, .*partial indexes; PostgreSQL and SQLite have"):
                await created(database, model)
            return
        await created(database, model)
        for values in ({}, {}, {"text": "50%"}, {"text": "50 off"}):
            await model.objects.create(a=1, **values)
        for wrong in ({"text": "50%"}, {"b": 7, "text": "x"}):
            with pytest.raises(UniqueViolation) as caught:
                await model.objects.create(a=1, **wrong)
            assert "a" in caught.value.fields or database.kind == "sqlite"


AWKWARD = "a%_\\[*?]'b"


@pytest.mark.parametrize("server", ["sqlite", "postgresql-15", "postgresql-18"], indirect=True)
@pytest.mark.parametrize(
    ("lookup", "within", "beyond"),
    [
        ("startswith", f"{AWKWARD}!", ["axy\\[*?]'b", AWKWARD.upper(), f"!{AWKWARD}"]),
        ("istartswith", f"{AWKWARD.upper()}!", ["axy\\[*?]'b", f"!{AWKWARD}"]),
        ("contains", f"<{AWKWARD}>", [f"<{AWKWARD.upper()}>", "<a%_\\[xy]'b>"]),
        ("icontains", f"<{AWKWARD.upper()}>", ["<a%_\\[xy]'b>"]),
        ("endswith", f"!{AWKWARD}", [f"!{AWKWARD.upper()}", f"{AWKWARD}!"]),
        ("iendswith", f"!{AWKWARD.upper()}", [f"{AWKWARD}!"]),
        ("iexact", AWKWARD.upper(), [f"{AWKWARD}!"]),
    ],
)
async def test_an_index_of_the_rows_whose_text_is_like_another(
    url: str, lookup: str, within: str, beyond: list[str]
) -> None:
    """LIKE depends on a setting in SQLite, which lets no index have it: there, GLOB says the same."""
    model = of_numbers(indexes=[Index("a", condition=Q(**{f"text__{lookup}": AWKWARD}), unique=True)])
    async with Database(url) as database:
        await created(database, model)
        for text in [within, *beyond, *beyond]:
            await model.objects.create(a=1, text=text)
        with pytest.raises(UniqueViolation):
            await model.objects.create(a=1, text=within)
        assert await model.objects.filter(**{f"text__{lookup}": AWKWARD}).count() == 1


@pytest.mark.parametrize("lookup", ["startswith", "contains", "endswith"])
async def test_a_check_of_what_another_field_is_like(url: str, lookup: str) -> None:
    """Nothing in the other field is a pattern."""
    model = declare(
        text=CharField(max_length=50),
        part=CharField(max_length=50),
        constraints=[CheckConstraint(Q(**{f"text__{lookup}": F("part")}))],
    )
    async with Database(url) as database:
        await created(database, model)
        for part in ("a%b", "a_b", "a\\b", "a[b", "a*b", "a?b", "ab]", ""):
            await model.objects.create(text=part, part=part)
        for part in ("a%c", "a_c", "a*c", "a?c", "a[b]c", "ABC", "%", "*"):
            with pytest.raises(CheckViolation):
                await model.objects.create(text="abc", part=part)


MEANS: dict[str, Callable[[str, str], bool]] = {
    "startswith": str.startswith,
    "endswith": str.endswith,
    "contains": lambda text, part: part in text,
    "iexact": lambda text, part: text.lower() == part.lower(),
    "icontains": lambda text, part: part.lower() in text.lower(),
}
PIECES = st.text(st.sampled_from("aA%_\\[]*?^-!'\n\u00e4\U0001f600"), max_size=6)


@pytest.mark.parametrize("lookup", MEANS)
@settings(deadline=None, max_examples=150)
@given(text=PIECES, part=PIECES)
def test_the_definitions_of_sqlite_say_what_lookups_say(lookup: str, text: str, part: str) -> None:
    """Whatever looks like a pattern."""
    made = DefinedExpression(Q(**{f"text__{lookup}": part}), Texts)
    sql = str(made.compile(dialect=dialect_of("sqlite")))
    with closing(sqlite3.connect(":memory:")) as plain:
        plain.create_function("covet_lower", 1, str.lower)
        (found,) = plain.execute(f"SELECT {sql} FROM (SELECT ? AS text)", (text,)).fetchone()
    assert bool(found) is MEANS[lookup](text, part)


async def test_unique_expressions(url: str) -> None:
    model = of_numbers(constraints=[UniqueConstraint(F("a") + F("b"), name="sum_of_%(class)s")])
    async with Database(url) as database:
        if database.kind == "mariadb":
            with pytest.raises(NotSupported, match="GeneratedField"):
                await created(database, model)
            return
        await created(database, model)
        await model.objects.create(a=1, b=2)
        with pytest.raises(UniqueViolation):
            await model.objects.create(a=2, b=1)
        assert "sum_of_thing" in await index_names(url)


async def test_checks(url: str) -> None:
    awkward = 'it\'s 100% \\ "ok" :x ? $1 %s'
    model = of_numbers(
        constraints=[
            CheckConstraint(Q(a__lt=F("b")) | Q(text=awkward), name="a_before_b"),
            CheckConstraint(~Q(a=5)),
            CheckConstraint(Q(a__range=(-10, 10)) & Q(text__in=["", awkward])),
        ]
    )
    async with Database(url) as database:
        await created(database, model)
        await model.objects.create(a=1, b=2)
        await model.objects.create(a=3, b=2, text=awkward)
        # NULL is neither, and a check lets it pass.
        await model.objects.create(a=None)
        with pytest.raises(CheckViolation) as caught:
            await model.objects.create(a=3, b=2)
        assert set(caught.value.fields) >= {"a", "b"}
        assert caught.value.constraint == "a_before_b"
        for wrong in ({"a": 5, "b": 6}, {"a": 11, "b": 12}, {"a": 1, "b": 2, "text": "other"}):
            with pytest.raises(CheckViolation):
                await model.objects.create(**wrong)


async def test_checks_of_every_kind_of_value(url: str) -> None:
    model = declare(
        at=DateTimeField(),
        price=DecimalField(max_digits=6, decimal_places=2),
        ip=IPAddressField(),
        constraints=[
            CheckConstraint(Q(at__gte=dt.datetime(2024, 1, 1, tzinfo=dt.UTC))),
            CheckConstraint(Q(price__lte="99.50")),
            CheckConstraint(~Q(ip="127.0.0.1")),
        ],
    )
    right = {"at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "price": "99.50", "ip": "::1"}
    async with Database(url) as database:
        await created(database, model)
        await model.objects.create(**right)
        for name, wrong in (
            ("at", dt.datetime(2023, 12, 31, 23, 59, 59, 999999, dt.UTC)), ("price", "99.51"), ("ip", "127.0.0.1"),
        ):  # fmt: skip
            with pytest.raises(CheckViolation) as caught:
                await model.objects.create(**(right | {name: wrong}))
            assert caught.value.fields == (name,)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: {"constraints": [UniqueConstraint("a", deferrable="deferred")]}, "deferrable; PostgreSQL has"),
        (
            lambda: {"constraints": [UniqueConstraint("a", nulls_distinct=False)]},
            "nulls_distinct=False",
        ),
        (
            lambda: {"constraints": [ExclusionConstraint([("a", "=")], method="hash")]},
            "exclusion constraints",
        ),
        (lambda: {"indexes": [Index("a", include=["b"])]}, "include; PostgreSQL has"),
        (lambda: {"indexes": [Index("a", method="brin")]}, "method; PostgreSQL has"),
        (lambda: {"indexes": [Index("text", opclasses="text_pattern_ops")]}, "opclasses; PostgreSQL has"),
    ],
)
async def test_what_postgresql_alone_has(url: str, make: Any, told: str) -> None:
    given = make()
    model = of_numbers(**given)
    async with Database(url) as database:
        if database.kind == "postgresql":
            await created(database, model)
            return
        with pytest.raises(NotSupported, match=rf"Thing\.Meta, .*{database.kind} has no .*{told}"):
            await created(database, model)
        assert await ask(url, "SELECT 1") == [(1,)]
        # Left out where it cannot be.
        for one in (*given.get("indexes", ()), *given.get("constraints", ())):
            one.databases = frozenset(["postgresql"])
        other = of_numbers(**given)
        await created(database, other)
        await other.objects.create(a=1)
        await other.objects.create(a=1)


async def test_postgresql_has_it_as_declared(postgresql: Any) -> None:
    url = postgresql.empty_database("test")
    model = declare(
        a=IntegerField(null=True),
        b=IntegerField(default=0),
        text=TextField(default=""),
        data=JSONField(default=dict),
        indexes=[
            Index("a", include=["b", "text"], name="covering"),
            Index("data", method="gin", opclasses={"data": "jsonb_path_ops"}, name="paths"),
            Index("text", opclasses="text_pattern_ops", name="patterns"),
            Index(F("a") + F("b"), "-b", condition=Q(text="x'y"), name="partial"),
            Index("b", method="hash", name="hashed"),
        ],
        constraints=[
            UniqueConstraint("a", nulls_distinct=False, name="one_null"),
            UniqueConstraint("b", deferrable="deferred", name="later"),
        ],
    )
    async with Database(url) as database:
        await created(database, model)
        assert "(a) INCLUDE (b, text)" in await definition(url, "covering")
        assert "USING gin (data jsonb_path_ops)" in await definition(url, "paths")
        assert "(text text_pattern_ops)" in await definition(url, "patterns")
        assert ", b DESC) WHERE (text = 'x''y'::text)" in await definition(url, "partial")
        assert "USING hash (b)" in await definition(url, "hashed")
        await model.objects.create(a=None, b=1)
        with pytest.raises(UniqueViolation):
            await model.objects.create(a=None, b=2)
        # Checked at the end of the transaction.
        await model.objects.create(a=2, b=2)
        async with database.transaction():
            await database.execute("UPDATE thing SET b = 2 WHERE b = 1")
            await database.execute("UPDATE thing SET b = 1 WHERE a = 2")
        with pytest.raises(UniqueViolation):
            async with database.transaction():
                await database.execute("UPDATE thing SET b = 1")


async def test_exclusion(postgresql: Any) -> None:
    url = postgresql.empty_database("test")
    model = declare(
        a=IPAddressField(),
        text=TextField(default=""),
        constraints=[
            ExclusionConstraint([("a", "=")], method="hash", condition=~Q(text="free"), name="alone"),
            ExclusionConstraint([("text", "=")], method="hash", deferrable="immediate", condition=Q(text="once")),
        ],
    )
    async with Database(url) as database:
        await created(database, model)
        await model.objects.create(a="::1")
        await model.objects.create(a="::1", text="free")
        with pytest.raises(ExclusionViolation) as caught:
            await model.objects.create(a="::1")
        assert caught.value.constraint == "alone"
        assert caught.value.fields == ("a",)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Index(), "at least one field"),
        (lambda: of_numbers(indexes=[Index("x")]).__table__, r"Thing\.Meta: Index: Thing has no field 'x'"),
        (lambda: of_numbers(indexes=[Index("a", include=["x"])]).__table__, "no field 'x'"),
        (lambda: of_numbers(indexes=[Index("a", opclasses={"b": "x"})]).__table__, "opclasses of 'b'"),
        (lambda: Index("a", "b", opclasses="x"), "opclasses by field"),
        (lambda: of_numbers(indexes=[Index("a"), Index("a")]).__table__, "two things called 'thing_a_idx'"),
        (lambda: of_numbers(indexes=[Index("a", name="x" * 64)]).__table__, "shorter name"),
        (lambda: UniqueConstraint("a", deferrable="deferred", condition=Q(a=1)), "of fields alone"),
        (lambda: CheckConstraint("a > 1"), "a condition is needed"),
        (lambda: ExclusionConstraint([]), "excludes nothing"),
        (lambda: ExclusionConstraint([("a", "= 1); DROP TABLE x; --")]), "no field with an operator"),
        (lambda: ExclusionConstraint([("a", "--")]), "no field with an operator"),
        (lambda: ExclusionConstraint(["a"]), "no field with an operator"),
    ],
)
def test_a_wrong_one_is_a_model_error(make: Any, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        make()


def test_a_condition_sees_one_row() -> None:
    own = Registry()

    class Meta:
        registry = own
        app_label = ""

    team = type(Model)("Team", (Model,), {"__module__": __name__, "Meta": Meta, "name": CharField(max_length=5)})
    other = type("Meta", (), {"registry": own, "app_label": "", "constraints": [CheckConstraint(Q(team__name="x"))]})
    user: Any = type(Model)("User", (Model,), {"__module__": __name__, "Meta": other, "team": ForeignKey(team)})
    with pytest.raises(ModelError, match="'team' leads to another table"):
        _ = user.__table__


def test_names_are_shortened_and_stay_the_same() -> None:
    long = {"x" * 59 + name: IntegerField(db_index=True) for name in "ab"}
    names = [sorted(str(index.name) for index in declare(**long).__table__.indexes) for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == 2
    assert all(len(name) <= 63 and name.endswith("_idx") for name in names[0])


async def test_errors_name_fields_by_shortened_names(url: str) -> None:
    long = "abcd" * 15
    model = declare(name="Thing" * 12, **{long: IntegerField(unique=True)})
    async with Database(url) as database:
        await created(database, model)
        await model.objects.create(**{long: 1})
        with pytest.raises(UniqueViolation) as caught:
            await model.objects.create(**{long: 1})
        assert caught.value.fields == (long,)
        with pytest.raises(UniqueViolation) as caught:
            await model.objects.create(id=1, **{long: 2})
        assert caught.value.fields == ("id",)
