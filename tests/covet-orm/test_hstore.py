"""Texts by key (hstore): the field, its lookups against what Python says, the extension it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.services.databases import SERVERS
from tests.services.postgresql import PostgreSQL

from covet_orm import (
    CheckConstraint,
    F,
    HStoreField,
    Index,
    Model,
    NotSupported,
    ProgrammingError,
    Q,
    QueryError,
    Registry,
    TextField,
    ValidationError,
)
from covet_orm.databases import Database
from covet_orm.fields.hstores import hstore_text

pytestmark = pytest.mark.anyio
registry = Registry()
POSTGRESQL = [name for name in SERVERS if name.startswith("postgresql")]
Labels = dict[str, str | None]


class Parcel(Model):
    labels = HStoreField(null=True)
    colour = TextField(default="red")
    more = HStoreField(default=dict)

    class Meta:
        registry = registry
        app_label = ""
        indexes = (Index("labels", method="gin"),)


LABELS: list[Labels | None] = [
    None,
    {},
    {"a": "1"},
    {"a": "1", "b": None},
    {"a": "2", "b": "x"},
    {"b": None},
    {"": "", "c'": '"', '"': "\\", "\\": "a=>b", "a, b": "NULL"},
    {"contains": "1", "keys": "2"},
    {"colour": "red"},
]
CASES: list[tuple[dict[str, Any], Callable[[Labels], bool]]] = [
    ({"labels": {"a": "1"}}, lambda d: d == {"a": "1"}),
    ({"labels": {"b": None, "a": "1"}}, lambda d: d == {"a": "1", "b": None}),
    ({"labels": {}}, lambda d: d == {}),
    ({"labels__in": [{"a": "1"}, {}, {"b": None}]}, lambda d: d in ({"a": "1"}, {}, {"b": None})),
    ({"labels__in": []}, lambda d: False),
    ({"labels__a": "1"}, lambda d: d.get("a") == "1"),
    ({"labels__a__in": ["1", "2"]}, lambda d: d.get("a") in ("1", "2")),
    ({"labels__a__gt": "1"}, lambda d: (d.get("a") or "") > "1"),
    ({"labels__b__startswith": "x"}, lambda d: (d.get("b") or "").startswith("x")),
    ({"labels__b__isnull": True}, lambda d: d.get("b") is None),
    ({"labels__colour": F("colour")}, lambda d: d.get("colour") == "red"),
    ({"labels__nothing": "1"}, lambda d: False),
    ({"labels__contains": {"a": "1"}}, lambda d: d.get("a") == "1"),
    ({"labels__contains": {"b": None}}, lambda d: "b" in d and d["b"] is None),
    ({"labels__contains": {}}, lambda d: True),
    ({"labels__contains": F("more")}, lambda d: True),
    ({"labels__contained_by": {"a": "1", "b": None}}, lambda d: d.items() <= {"a": "1", "b": None}.items()),
    ({"labels__has_key": "b"}, lambda d: "b" in d),
    ({"labels__has_key": '"'}, lambda d: '"' in d),
    ({"labels__has_key": F("colour")}, lambda d: "red" in d),
    ({"labels__has_keys": ["a", "b"]}, lambda d: {"a", "b"} <= set(d)),
    ({"labels__has_keys": []}, lambda d: True),
    ({"labels__has_any_keys": ["b", "c'"]}, lambda d: bool({"b", "c'"} & set(d))),
    ({"labels__has_any_keys": []}, lambda d: False),
    ({"labels__keys__contains": ["a", "b"]}, lambda d: {"a", "b"} <= set(d)),
    ({"labels__keys__len": 2}, lambda d: len(d) == 2),
    ({"labels__values__contains": ["x"]}, lambda d: "x" in d.values()),
]


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_each_lookup_is_what_python_says(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry, extensions=["hstore"])
        made = await Parcel.objects.bulk_create([Parcel(labels=labels) for labels in LABELS])
        assert await Parcel.objects.order_by("id").values_list("labels", flat=True) == LABELS
        for lookups, told in CASES:
            expected = {parcel.id for parcel in made if parcel.labels is not None and told(parcel.labels)}
            if "isnull" in next(iter(lookups)):
                expected.add(made[0].id)
            assert set(await Parcel.objects.filter(**lookups).values_list("id", flat=True)) == expected, lookups
            others = set(await Parcel.objects.exclude(**lookups).values_list("id", flat=True))
            assert others == {parcel.id for parcel in made} - expected, lookups
        found = await Parcel.objects.filter(labels__a="2").values_list("labels__b", "labels__keys")
        assert [(text, sorted(keys)) for text, keys in found] == [("x", ["a", "b"])]
        with pytest.raises(QueryError, match="list of keys"):
            await Parcel.objects.filter(labels__has_keys="a")
        with pytest.raises(QueryError, match="no key of hstore"):
            await Parcel.objects.filter(**{"labels__a\0": "a"})


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_writing(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry, extensions=["hstore"])
        parcel = await Parcel.objects.create(labels={"a": "1"}, more={"x": None})
        changed: Labels = {"a": "2"}
        parcel.labels = changed
        await parcel.save()
        assert (await Parcel.objects.get(id=parcel.id)).labels == {"a": "2"}
        assert (await Parcel.objects.get(id=parcel.id)).more == {"x": None}
        await Parcel.objects.filter(id=parcel.id).update(labels={"b": "3"})
        assert (await Parcel.objects.get(id=parcel.id)).labels == {"b": "3"}
        await Parcel.objects.bulk_update([parcel], ["labels"])
        assert (await Parcel.objects.get(id=parcel.id)).labels == {"a": "2"}
        for wrong in ("a=>1", ["a"], {"a": 1}, {1: "a"}, {"a\0": "b"}, {"a": "\ud800"}):
            with pytest.raises(ValidationError):
                await Parcel.objects.create(labels=wrong)
        (read,) = await Parcel.objects.filter(id=parcel.id)
        assert read.labels is not None
        read.labels["in place"] = None
        assert read.changed_fields() == ["labels"]
        await read.save()
        assert (await Parcel.objects.get(id=parcel.id)).labels == {"a": "2", "in place": None}
        # By COPY.
        made = await Parcel.objects.bulk_create([Parcel(labels={str(n): str(n)}) for n in range(2500)])
        assert await Parcel.objects.count() == 2501
        assert await Parcel.objects.filter(id=made[-1].id).values_list("labels", flat=True) == [{"2499": "2499"}]


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_without_the_extension(url: str) -> None:
    async with Database(url) as database:
        with pytest.raises(ProgrammingError, match=r"CREATE EXTENSION hstore"):
            await database.create_all(registry)
        with pytest.raises(ProgrammingError, match="nothing_like_it"):
            await database.create_all(registry, extensions=["hstore", "nothing_like_it"])
        assert await database.create_all(registry, extensions=["hstore"]) == ["parcel"]
        assert await database.create_all(registry, extensions=["hstore"]) == []


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_definitions(url: str) -> None:
    class Box(Model):
        labels = HStoreField(db_default={"it's": '"a" => \\', "b": None})

        class Meta:
            registry = Registry()
            app_label = ""
            constraints = (CheckConstraint(Q(labels__has_key="it's")),)

    async with Database(url) as database:
        await database.create_all(Box._meta.registry, extensions=["hstore"])
        assert (await Box.objects.create()).labels == {"it's": '"a" => \\', "b": None}


@pytest.mark.parametrize("server", ["sqlite", "mariadb"], indirect=True)
async def test_what_has_no_hstore_says_so(url: str) -> None:
    async with Database(url) as database:
        with pytest.raises(NotSupported, match=r"Parcel\.labels: only PostgreSQL has hstore; a JSONField"):
            await database.create_all(registry, extensions=["hstore"])
        for lookups, _ in CASES:
            if lookups != {"labels__in": []}:
                with pytest.raises(NotSupported, match="JSONField"):
                    await Parcel.objects.filter(**lookups)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from('"\\=>, NUL\n\r\t'))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(TEXT, st.none() | TEXT))
def test_the_literal_of_a_definition_is_the_value(hstore: PostgreSQL, value: dict[str, str | None]) -> None:
    sql = "SELECT key, value FROM each($1::text::hstore)"
    assert {row[0]: row[1] for row in hstore.execute(sql, hstore_text(value), database="test")} == value


@pytest.fixture
def hstore(databases: Any) -> PostgreSQL:
    """A server whose database `test` has the extension."""
    server: PostgreSQL = databases.postgresql(18)
    server.empty_database("test")
    server.execute("CREATE EXTENSION IF NOT EXISTS hstore", database="test")
    return server
