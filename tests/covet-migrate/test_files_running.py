"""Operations that run what their author wrote: SQL, functions, and functions in batches."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from tests.migrations.runs import InMemory, migration

from covet_migrate import operations
from covet_migrate.exceptions import Irreversible, MigrationError, MigrationFailed
from covet_migrate.execution import Event, Migrator, Settings
from covet_migrate.execution.events import BatchDone
from covet_migrate.operations.base import Change
from covet_migrate.state import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Call, Statement
from covet_orm import BigAutoField, CharField, Database, IntegerField, Q

pytestmark = pytest.mark.anyio

KINDS = ("postgresql", "mysql", "mariadb", "sqlite")


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Each database in turn, empty."""
    async with Database(url) as database:
        yield database


def change(kind: str = "sqlite", *, backward: bool = False, state: State | None = None) -> Change:
    state = State() if state is None else state
    return Change(app="people", before=state, after=state, kind=kind, renderer=Renderer(), backward=backward)


def sql(operation: operations.Operation, kind: str = "sqlite", *, backward: bool = False) -> list[tuple[str, Any]]:
    steps = operation.actions(change(kind, backward=backward))
    assert all(isinstance(step, Statement) for step in steps)
    return [(step.sql, step.params) for step in steps]


PERSON = operations.CreateModel(
    "Person",
    {
        "id": BigAutoField(primary_key=True),
        "name": CharField(max_length=50),
        "slug": CharField(max_length=50, default="", db_default=""),
    },
)


def migrate(database: Database, *migrations: Any, tell: Any = None) -> Migrator:
    return Migrator(database, InMemory(*migrations), settings=Settings(lock_timeout=1, retry=20, wait=60), tell=tell)


async def names(database: Database) -> list[Any]:
    return [tuple(row.values()) for row in await database.fetch_all("SELECT name, slug FROM people_person ORDER BY id")]


async def test_sql_forward_and_backward(database: Database) -> None:
    first = migration("people", "0001_initial", PERSON)
    second = migration(
        "people",
        "0002_rows",
        operations.RunSQL(
            [
                "INSERT INTO people_person (name, slug) VALUES ('Ada', '100%')",
                ("INSERT INTO people_person (name, slug) VALUES (:name, :slug)", {"slug": "g:race", "name": "Gra'ce"}),
            ],
            ("DELETE FROM people_person WHERE name IN (:one, :two)", {"one": "Ada", "two": "Gra'ce"}),
        ),
        after=[first.key],
    )
    run = migrate(database, first, second)
    await run.migrate()
    assert await names(database) == [("Ada", "100%"), ("Gra'ce", "g:race")]
    await run.migrate("people", "0001", yes=True)
    assert await names(database) == []


async def test_a_function_gets_the_models_of_its_time(database: Database) -> None:
    async def fill(models: Any, given: Any) -> None:
        person = models["people.Person"]
        assert given is database
        assert {field.name for field in person._meta.fields} == {"id", "name", "slug"}
        for name in ("Ada", "Grace"):
            await person.objects.create(name=name)
        await models["Person"].objects.filter(name="Ada").update(slug="ada")

    async def empty(models: Any, given: Any) -> None:
        await models["people.Person"].objects.all().delete()

    first = migration("people", "0001_initial", PERSON)
    second = migration("people", "0002_fill", operations.RunPython(fill, empty), after=[first.key])
    third = migration(
        "people", "0003_age", operations.AddField("Person", "age", IntegerField(null=True)), after=[second.key]
    )
    run = migrate(database, first, second, third)
    await run.migrate()
    assert await names(database) == [("Ada", "ada"), ("Grace", "")]
    await run.migrate("people", "0001", yes=True)
    assert await names(database) == []


async def test_batches_go_on_where_they_were_interrupted(database: Database) -> None:
    seen: list[list[str]] = []
    broken = True

    async def slugs(models: Any, people: list[Any]) -> None:
        seen.append([one.name for one in people])
        for one in people:
            one.slug = one.name.lower()
            await one.save()
        if broken and people[0].name == "P4":
            raise RuntimeError("the lights went out")

    events: list[Event] = []
    first = migration("people", "0001_initial", PERSON)
    rows = operations.RunSQL(
        [("INSERT INTO people_person (name) VALUES (:name)", {"name": f"P{number}"}) for number in range(8)],
        operations.RunSQL.noop,
    )
    second = migration("people", "0002_rows", rows, after=[first.key])
    filling = operations.RunPython(slugs, operations.RunPython.noop, batched="Person", where=~Q(name="P1"), size=3)
    third = migration("people", "0003_slugs", filling, after=[second.key], atomic=False)
    run = migrate(database, first, second, third, tell=events.append)
    with pytest.raises(MigrationFailed, match="the lights went out"):
        await run.migrate()
    # The first batch stays, of the second one nothing does.
    assert seen == [["P0", "P2", "P3"], ["P4", "P5", "P6"]]
    assert [slug for _, slug in await names(database)] == ["p0", "", "p2", "p3", "", "", "", ""]
    broken = False
    await run.migrate()
    assert seen[2:] == [["P4", "P5", "P6"], ["P7"]]
    assert [slug for _, slug in await names(database)] == ["p0", "", "p2", "p3", "p4", "p5", "p6", "p7"]
    told = [(event.done, event.total) for event in events if isinstance(event, BatchDone)]
    assert told == [(3, 7), (3, 4), (4, 4)]
    await run.migrate("people", "0002", yes=True)


async def test_batches_need_a_migration_that_is_no_transaction(database: Database) -> None:
    first = migration("people", "0001_initial", PERSON)
    filling = operations.RunPython(operations.RunPython.noop, batched="Person")
    assert filling.actions(change(state=first.apply(State()))) == []

    async def slugs(models: Any, people: list[Any]) -> None: ...

    second = migration("people", "0002", operations.RunPython(slugs, batched="Person"), after=[first.key])
    if database.kind in ("postgresql", "sqlite"):
        with pytest.raises(MigrationError, match=re.escape("atomic=False")):
            await migrate(database, first, second).migrate()
    else:
        await migrate(database, first, second).migrate()


async def test_the_database_and_the_models_apart(database: Database) -> None:
    first = migration("people", "0001_initial", PERSON)
    apart = operations.SeparateDatabaseAndState(
        [operations.RunSQL("ALTER TABLE people_person ADD COLUMN age INTEGER", operations.RunSQL.noop)],
        [operations.AddField("Person", "age", IntegerField(null=True))],
    )

    async def ages(models: Any, given: Any) -> None:
        await models["people.Person"].objects.create(name="Ada", age=36)

    second = migration("people", "0002_age", apart, after=[first.key])
    third = migration("people", "0003_ages", operations.RunPython(ages, operations.RunPython.noop), after=[second.key])
    await migrate(database, first, second, third).migrate()
    assert await database.fetch_value("SELECT age FROM people_person") == 36


@pytest.mark.parametrize("kind", KINDS)
def test_sql_by_the_kind_of_database(kind: str) -> None:
    operation = operations.RunSQL({"postgresql": "CREATE EXTENSION citext", "mysql": ["SELECT 1", "SELECT 2"]}, {})
    expected = {"postgresql": ["CREATE EXTENSION citext"], "sqlite": []}.get(kind, ["SELECT 1", "SELECT 2"])
    assert [text for text, _ in sql(operation, kind)] == expected
    assert sql(operation, kind, backward=True) == []
    # MariaDB's own comes first.
    operation = operations.RunSQL({"mysql": "SELECT 1", "mariadb": "SELECT 2"})
    assert [text for text, _ in sql(operation, "mariadb")] == ["SELECT 2"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("postgresql", "SELECT $1, '100%', $2, $1"),
        ("mariadb", "SELECT %s, '100%%', %s, %s"),
        ("sqlite", "SELECT ?, '100%', ?, ?"),
    ],
)
def test_parameters_are_those_of_the_driver(kind: str, text: str) -> None:
    operation = operations.RunSQL(("SELECT :a, '100%', :b, :a", {"a": 1, "b": "x"}))
    [(found, params)] = sql(operation, kind)
    assert re.sub(r"::\w+", "", found) == text
    assert list(params)[:2] == [1, "x"]
    # Without parameters, the text is what it is.
    assert sql(operations.RunSQL("SELECT '100%', ':a', '\\n'"), kind) == [("SELECT '100%', ':a', '\\n'", ())]


def test_what_is_no_sql() -> None:
    with pytest.raises(MigrationError, match=re.escape("no kind of database 'postgres'; did you mean 'postgresql'?")):
        operations.RunSQL({"postgres": "SELECT 1"})
    for wrong in (3, ["SELECT 1", 3], [("SELECT 1", [1])]):
        with pytest.raises(MigrationError, match="RunSQL"):
            operations.RunSQL(wrong)  # type: ignore[arg-type]
    for values in ({"b": 1}, {"a": 1, "b": 2}):
        with pytest.raises(MigrationError, match="are not those of SELECT :a"):
            sql(operations.RunSQL(("SELECT :a", values)))


def test_what_has_no_way_back_says_so() -> None:
    async def fill(models: Any, database: Any) -> None: ...

    one_way: list[operations.Operation] = [operations.RunSQL("SELECT 1"), operations.RunPython(fill)]
    for operation in (*one_way, operations.SeparateDatabaseAndState(one_way[:1])):
        assert not operation.reversible
        with pytest.raises(Irreversible):
            operation.actions(change(backward=True))
    for operation in (
        operations.RunSQL("SELECT 1", operations.RunSQL.noop),
        operations.RunPython(fill, operations.RunPython.noop),
        operations.SeparateDatabaseAndState([], one_way),
    ):
        assert operation.reversible
        assert operation.actions(change(backward=True)) == []


def test_functions_are_async() -> None:
    def fill(models: Any, database: Any) -> None: ...

    async def later(more: int, models: Any, database: Any) -> None: ...

    with pytest.raises(MigrationError, match=re.escape("it is to be `async def fill(models, database)`")):
        operations.RunPython(fill)  # type: ignore[arg-type]
    with pytest.raises(MigrationError, match=re.escape("`async def fill(models, objects)`")):
        operations.RunPython(later, fill, batched="Person")  # type: ignore[arg-type]
    with pytest.raises(MigrationError, match="name one with batched="):
        operations.RunPython(partial(later, 1), where=Q(a=1))
    with pytest.raises(MigrationError, match="at least one"):
        operations.RunPython(partial(later, 1), batched="Person", size=0)
    assert operations.RunPython(partial(later, 1)).describe() == "Run later"


def test_what_they_say_of_themselves() -> None:
    long = operations.RunSQL("UPDATE person\nSET name = 'Ada', " + "x" * 100)
    assert long.describe().startswith("Run SQL: UPDATE person SET name = 'Ada', xxx")
    assert len(long.describe()) <= 69
    assert operations.RunSQL("").describe() == "Run SQL: nothing"
    assert operations.RunSQL("SELECT 1", elidable=True).elidable
    assert operations.RunSQL("SELECT 1").touches("people") is None
    apart = operations.SeparateDatabaseAndState(
        [operations.RemoveField("Person", "a")], [operations.RemoveField("Pet", "b")]
    )
    assert apart.touches("people") is None
    assert apart.describe() == "In the database: Remove field a from Person; for the models: Remove field b from Pet"


def test_apart_each_operation_sees_the_state_of_the_ones_before() -> None:
    added = operations.AddField("Person", "age", IntegerField(null=True))
    apart = operations.SeparateDatabaseAndState([added, operations.RemoveField("Person", "age")])
    state = PERSON.apply(State(), "people")
    assert apart.apply(state, "people") is state
    assert len(apart.actions(change(state=state))) == 2
    back = apart.actions(change(state=state, backward=True))
    assert [type(action).__name__ for action in back] == ["AddColumn", "DropColumn"]


def test_the_models_of_another_database_are_left_alone() -> None:
    async def slugs(models: Any, people: list[Any]) -> None: ...

    state = operations.CreateModel("Person", {"id": BigAutoField(primary_key=True)}, {"database": "other"}).apply(
        State(), "people"
    )
    assert operations.RunPython(slugs, batched="Person").actions(change(state=state)) == []
    here = PERSON.apply(State(), "people")
    [step] = operations.RunPython(slugs, batched="people.Person").actions(change(state=here))
    assert isinstance(step, Call)
    with pytest.raises(MigrationError, match=r"no model 'people\.Persn'"):
        operations.RunPython(slugs, batched="Persn").actions(change(state=here))
