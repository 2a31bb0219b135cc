"""What differs in a database is mended: what is in the way of it, and what is left to people."""

from __future__ import annotations

from typing import Any

import pytest
from tests.migrations.migrating import VERSIONS, model, run_steps, steps_between
from tests.proofs import migrate_inspect
from tests.services.databases import Database as Server
from tests.services.databases import Databases
from tests.services.postgresql import PostgreSQL

import covet_orm as orm
from covet_migrate.ddl import steps_of
from covet_migrate.inspection.drift import Drift, find_drift
from covet_migrate.inspection.schema import read_schema
from covet_migrate.inspection.shadow import tables_of
from covet_migrate.operations import AlterField
from covet_migrate.state import State
from covet_migrate.state.models import ModelState
from covet_orm import Database, F
from covet_orm.schema import create_tables


def state(*models: ModelState) -> State:
    return State({one.label: one for one in models})


def plain(name: str, options: dict[str, Any] | None = None, **fields: Any) -> ModelState:
    return model(name, {"id": orm.BigAutoField(primary_key=True), **fields}, **(options or {}))


async def mended(url: str, there: State, wanted: State, *statements: str) -> tuple[Drift, Drift]:
    """Create one state, change it by hand, make another one of it; what differed, and what does afterwards."""
    async with Database(url) as database:
        await create_tables(database, tables_of(there)[0])
        for statement in statements:
            await database.script(statement)
        drift = await find_drift(database, wanted)
        async with database.connection() as connection:
            await run_steps(connection, database.kind, steps_of(drift.actions, database.kind, VERSIONS[database.kind]))
        return drift, await find_drift(database, wanted)


def to(name: str, **options: Any) -> Any:
    return orm.ForeignKey(f"shop.{name}", related_name="+", **options)


CHARS = orm.CharField(max_length=20, primary_key=True)
PAIRS: dict[str, tuple[State, State]] = {
    "tables that refer to each other": (
        state(),
        state(plain("A", b=to("B"), me=to("A", null=True)), plain("B", a=to("A", null=True))),
    ),
    "another key, which a foreign key needs": (
        state(model("Author", {"code": CHARS}), plain("Book", author=to("Author"))),
        state(plain("Author"), plain("Book", author=to("Author"))),
    ),
    "a key of two columns": (
        state(plain("Slot", day=orm.DateField())),
        state(model("Slot", {"day": orm.DateField(primary_key=True), "n": orm.IntegerField(primary_key=True)})),
    ),
    "a new table that needs the new key of an old one": (
        state(model("Author", {"code": CHARS})),
        state(plain("Author"), plain("Book", authors=orm.ManyToManyField("shop.Author", related_name="+"))),
    ),
    "an index whose name another table has": (
        state(
            plain("A", n=orm.IntegerField()),
            plain("B", {"indexes": [orm.Index("n", name="both")]}, n=orm.IntegerField()),
        ),
        state(
            plain("A", {"indexes": [orm.Index("n", name="both")]}, n=orm.BigIntegerField(null=True)),
            plain("B", n=orm.IntegerField()),
        ),
    ),
    "indexes that change names": (
        state(plain("A", {"indexes": [orm.Index("n", name="one"), orm.Index("-n", name="two")]}, n=orm.IntegerField())),
        state(plain("A", {"indexes": [orm.Index("-n", name="one"), orm.Index("n", name="two")]}, n=orm.IntegerField())),
    ),
    "a column that another one is computed of": (
        state(plain("A", n=orm.IntegerField(), twice=orm.GeneratedField(F("n") * 2, orm.BigIntegerField()))),
        state(
            plain(
                "A",
                {"indexes": [orm.Index("twice", name="of_twice")]},
                n=orm.BigIntegerField(),
                twice=orm.GeneratedField(F("n") * 2, orm.BigIntegerField()),
            )
        ),
    ),
    "values of JSON": (state(plain("A", data=orm.TextField())), state(plain("A", data=orm.JSONField()))),
    "no values of JSON": (state(plain("A", data=orm.JSONField())), state(plain("A", data=orm.TextField()))),
    "all columns": (state(model("A", {"code": CHARS})), state(plain("A"))),
}  # fmt: skip
"""What the random pairs of the proof found, each as small as it became: there, wanted."""


@pytest.mark.anyio
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
async def test_what_was_found_once_is_mended(url: str, pair: tuple[State, State]) -> None:
    drift, left = await mended(url, *pair)
    # To SQLite, JSON is text.
    assert drift or url.startswith("sqlite")
    assert not drift.by_hand
    assert left.told() == []


@pytest.mark.anyio
async def test_a_key_that_an_unknown_table_refers_to_stays(url: str) -> None:
    """Nothing of what no migration knows is dropped: what would need that is told, with the reason."""
    there = state(model("Author", {"code": CHARS}), plain("Note", author=to("Author")))
    wanted = state(plain("Author", bio=orm.TextField(null=True)), plain("Book", author=to("Author")))
    drift, left = await mended(url, there, wanted)
    assert drift.unknown == ["table shop_note"]
    why = {str(one).partition(":")[0]: reason for one, reason in drift.by_hand.items()}
    whole = "SQLite makes a table anew as a whole, and something of it stays as it is"
    held = "the table shop_note refers to it"
    assert why["column shop_author.code"] == held
    assert why["primary key of shop_author"] == (whole if url.startswith("sqlite") else held)
    assert why["table shop_book"].endswith("stays as it is")
    assert ("column shop_author.bio" in why) is url.startswith("sqlite")
    assert set(left.told()) == set(map(str, drift.by_hand)), "what could be done is done"
    assert "shop_note" in await tables(url)


@pytest.mark.anyio
async def test_a_name_that_an_unknown_table_has_is_not_given_again(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("names")
    wanted = state(plain("A", {"indexes": [orm.Index("n", name="taken")]}, n=orm.IntegerField()))
    drift, left = await mended(
        url, state(plain("A", n=orm.IntegerField())), wanted, "CREATE TABLE other (n integer)",
        "CREATE INDEX taken ON other (n)",
    )  # fmt: skip
    assert list(drift.by_hand.values()) == ["an index of other is called taken"]
    assert len(left.differences) == 1


@pytest.mark.anyio
async def test_a_type_that_is_made_of_no_other_one_is_left(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("types")
    spans = orm.ArrayField(orm.CharField(max_length=9), null=True)
    there = state(plain("A", a=orm.IntegerField(db_default=1), b=orm.ArrayField(orm.IntegerField(), null=True)))
    drift, left = await mended(url, there, state(plain("A", a=spans, b=spans)))
    assert {(one.name, one.attribute) for one in drift.by_hand} == {("a", "type"), ("a", "null"), ("a", "default")}
    assert any("makes no character varying(9)[] of integer" in why for why in drift.by_hand.values())
    assert set(left.told()) == set(map(str, drift.by_hand))


def test_a_text_in_an_array_is_no_text() -> None:
    before = state(plain("A", a=orm.ArrayField(orm.IntegerField())))
    operation = AlterField("A", "a", orm.ArrayField(orm.CharField(max_length=9)))
    (step,) = steps_between(before, operation.apply(before, "shop"), operation, "postgresql")
    assert "USING a::VARCHAR(9)[]" in getattr(step, "sql", "")


async def tables(url: str) -> set[str]:
    async with Database(url) as database:
        return set((await read_schema(database)).tables)


@pytest.mark.anyio
async def test_sqlite_tells_a_constraint_for_which_it_makes_no_index(tmp_path: Any) -> None:
    async with Database(f"sqlite:///{tmp_path}/a.db") as database:
        await database.script(
            "CREATE TABLE a (b integer NOT NULL, c integer NOT NULL, PRIMARY KEY (b, c), CONSTRAINT once UNIQUE (b, c))"
        )
        assert [(one.name, one.columns) for one in (await read_schema(database)).tables["a"].uniques] == [
            ("once", ("b", "c"))
        ]


EXAMPLES = {"sqlite": 15, "postgresql-15": 4, "postgresql-18": 4, "mariadb": 4}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_database_that_drifted_becomes_what_migrations_say(name: str, databases: Databases) -> None:
    outcome = migrate_inspect.run(databases.get(name), "drift", EXAMPLES[name], 3)
    assert not outcome.failed, outcome.first
    assert outcome.parts
    assert outcome.by_hand < outcome.parts / 2


def test_the_proof_notices_what_is_wrong(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof that cannot fail proves nothing."""
    server: Server = databases.get("sqlite")
    found: Any = migrate_inspect.find_drift
    written: Any = migrate_inspect.models_source

    async def forgetful(*args: Any, **options: Any) -> Drift:
        drift: Drift = await found(*args, **options)
        drift.actions = drift.actions[:-1]
        return drift

    monkeypatch.setattr(migrate_inspect, "find_drift", forgetful)
    assert migrate_inspect.run(server, "drift", 5, 3).failed
    for old, new in (("null=True", "null=False"), ('db_table = "', 'db_table = "x')):

        def wrong(inspected: Any, base: str, old: str = old, new: str = new) -> str:
            return str(written(inspected, base=base)).replace(old, new)

        monkeypatch.setattr(migrate_inspect, "models_source", wrong)
        assert migrate_inspect.run(server, "inspectdb", 8, 3).failed


def test_the_proof_notices_what_makemigrations_would_find() -> None:
    one, other = state(plain("A", n=orm.IntegerField())), state(plain("A", n=orm.IntegerField(null=True)))
    migrate_inspect.check_makemigrations(one, one)
    with pytest.raises(AssertionError, match="makemigrations finds"):
        migrate_inspect.check_makemigrations(one, other)
