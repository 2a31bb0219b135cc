"""What would be lost by applying migrations, and by taking them back; and what makes a plan impossible."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.migrations.runs import InMemory, migration

from covet_migrate import operations
from covet_migrate.exceptions import ConflictingMigrations, DataLoss
from covet_migrate.execution import Migrator
from covet_orm import BigAutoField, CharField, Database, IntegerField

pytestmark = pytest.mark.anyio

PERSON = operations.CreateModel(
    "Person", {"id": BigAutoField(primary_key=True), "name": CharField(max_length=50, null=True)}
)
FIRST = migration("people", "0001", PERSON)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    """A database in memory, with a person."""
    async with Database("sqlite://") as database:
        await Migrator(database, InMemory(FIRST)).migrate()
        await database.execute("INSERT INTO people_person (name) VALUES ('Ada')")
        yield database


def second(*given: operations.Operation, **options: Any) -> Any:
    return migration("people", "0002", *given, after=[FIRST.key], **options)


async def test_values_that_would_be_lost_by_applying(database: Database) -> None:
    run = Migrator(database, InMemory(FIRST, second(operations.RemoveField("Person", "name"))))
    with pytest.raises(DataLoss, match=r"the column people_person.name \(1 row with a value in it\).*--yes.*Reviewed"):
        await run.migrate()
    assert await database.fetch_value("SELECT name FROM people_person") == "Ada"
    found = await run.findings(await run.plan())
    assert [one.rule for one in found] == ["drop-column"]
    await database.execute("UPDATE people_person SET name = NULL")
    assert len(await run.migrate()) == 1, "nothing is lost"


@pytest.mark.parametrize("within", [False, True])
async def test_what_somebody_has_looked_at_may_go(database: Database, within: bool) -> None:
    gone: operations.Operation = operations.Reviewed(operations.RemoveField("Person", "name"), "nobody wants it")
    run = Migrator(database, InMemory(FIRST, second(operations.Online(gone) if within else gone)))
    assert len(await run.migrate()) == 1


async def test_what_is_done_online_is_lost_as_well(postgresql: Any) -> None:
    async with Database(postgresql.empty_database("test")) as database:
        added = operations.Online(operations.AddField("Person", "age", IntegerField(null=True)))
        run = Migrator(database, InMemory(FIRST, second(added, atomic=False)))
        await run.migrate()
        await database.execute("INSERT INTO people_person (name, age) VALUES ('Ada', 36)")
        with pytest.raises(DataLoss, match=r"people_person\.age"):
            await run.migrate("people", "0001")
        gone = operations.Online(operations.RemoveField("Person", "name"))
        third = migration("people", "0003", gone, after=[("people", "0002")], atomic=False)
        with pytest.raises(DataLoss, match=r"people_person\.name"):
            await Migrator(database, InMemory(FIRST, second(added, atomic=False), third)).migrate()


async def test_what_comes_on_the_way_has_nothing_in_it(database: Database) -> None:
    """A field that was added and removed: on the way back it comes, and goes."""
    added = second(operations.AddField("Person", "age", IntegerField(null=True)))
    removed = migration("people", "0003", operations.RemoveField("Person", "age"), after=[added.key])
    run = Migrator(database, InMemory(FIRST, added, removed))
    assert len(await run.migrate()) == 2
    assert len(await run.migrate("people", "0001")) == 2
    with pytest.raises(DataLoss, match="the table people_person"):
        await run.migrate("people", "zero")


async def test_several_ends_of_an_application_are_refused() -> None:
    left, right = (migration("people", name, after=[FIRST.key]) for name in ("0002_left", "0002_right"))
    async with Database("sqlite://") as database:
        run = Migrator(database, InMemory(FIRST, left, right))
        for refused in (run.migrate(), run.plan(), run.migrate("people")):
            with pytest.raises(ConflictingMigrations, match=r"0002_left and 0002_right.*makemigrations --merge people"):
                await refused
        assert len(await run.migrate("people", "0002_left")) == 2, "one of them may be named"
        merged = migration("people", "0003", after=[left.key, right.key])
        assert len(await Migrator(database, InMemory(FIRST, left, right, merged)).migrate()) == 2
