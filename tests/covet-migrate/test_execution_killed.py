"""kill -9 of the process and of the server between any two statements: what was begun is brought to an end, exactly."""

from __future__ import annotations

from typing import Any

import pytest
from tests.migrations.processes import run
from tests.migrations.runs import SQL, applied, migration, migrator, three
from tests.services.databases import Database as Server
from tests.services.databases import Databases, ask

from covet_migrate.exceptions import HistoryError, MigrationError, MigrationFailed, MigrationLocked
from covet_migrate.operations.fields import AddField
from covet_migrate.operations.models import CreateModel
from covet_orm import BigAutoField, CharField, Database, IntegerField
from covet_orm.testing import faultpoints

pytestmark = pytest.mark.anyio

BY_STEPS = [f"migrate.{moment}.shop.0002_second.{number}" for number in range(4) for moment in ("begun", "after")]
AS_A_WHOLE = [
    "migrate.after.shop.0002_second.0",
    "migrate.after.shop.0002_second.3",
    "migrate.noted.shop.0002_second.4",
    "transaction.committing.migration",
    "transaction.committed.migration",
]
ENDS = ["migrate.noted.shop.0002_second.4", "migrate.recorded.shop.0002_second.4"]


async def check_all_done(url: str) -> None:
    """See whether everything was done, and once."""
    assert sorted(await ask(url, "SELECT name FROM covet_migrations")) == [
        ("0001_first",),
        ("0002_second",),
        ("0003_third",),
    ]
    assert sorted(await ask(url, "SELECT id, price FROM item")) == [(1, 11), (2, 21)]
    assert sorted(await ask(url, "SELECT item, note FROM bought")) == [(1, None), (2, None)]
    async with Database(url) as database:
        assert await migrator(database).journal.read() == []


async def test_the_process_is_killed_at_every_point(server: Server, url: str) -> None:
    """One after the other: each run goes on where the one before was killed, and is killed at the next point."""
    killed = 0
    for point in BY_STEPS + ENDS if server.kind == "mariadb" else AS_A_WHOLE:
        if run(url, three, kill=point).code == -9:
            killed += 1
    done = run(url, three)
    assert done.code == 0, done.error
    await check_all_done(url)
    # At each of them but the very last of PostgreSQL and SQLite, where it is those of every migration.
    assert killed == (10 if server.kind == "mariadb" else 5)


@pytest.mark.parametrize(
    "points", [("begun.0", "done.0", "begun.1", "after.1"), ("after.0", "after.2", "done.2", "begun.3", "after.3")]
)
async def test_the_server_is_killed_between_two_statements(databases: Databases, points: tuple[str, ...]) -> None:
    server = databases.mariadb()
    url = server.empty_database("test")
    told: list[str] = []
    for point in points:
        name = f"migrate.{point.replace('.', '.shop.0002_second.')}"
        async with Database(url) as database:
            with faultpoints.at(name, server.kill):
                try:
                    await migrator(database, *three("mariadb")).migrate()
                except (MigrationFailed, MigrationLocked) as error:
                    told.append(str(error))
                else:
                    # It went on, as the step was done already.
                    assert not point.startswith("done")
        server.start()
    assert told
    assert all("type" in text for text in told)
    async with Database(url) as database:
        await migrator(database, *three("mariadb")).migrate()
    await check_all_done(url)


async def test_the_server_is_killed_in_a_transaction(postgresql: Any) -> None:
    url = postgresql.empty_database("test")
    for number in (0, 2):
        async with Database(url) as database:
            with (
                faultpoints.at(f"migrate.after.shop.0002_second.{number}", postgresql.kill),
                pytest.raises(MigrationFailed, match="When the database is there again"),
            ):
                await migrator(database, *three("postgresql")).migrate()
        postgresql.start()
        assert await ask(url, "SELECT name FROM covet_migrations") == [("0001_first",)]
    async with Database(url) as database:
        await migrator(database, *three("postgresql")).migrate()
    await check_all_done(url)


async def test_an_interrupted_migration_is_taken_back(databases: Databases) -> None:
    server = databases.mariadb()
    points = ["begun.0", "after.0", "after.1", "begun.2", "after.3", "done.3"]
    for name in points:
        point = f"migrate.{name.replace('.', '.shop.0002_second.')}"
        url = server.empty_database("test")
        assert run(url, three, kill=point).code == -9
        done = run(url, three, "unwind")
        assert (done.code, done.done) == (0, ["shop.0002_second"]), done.error
        assert await ask(url, "SELECT * FROM item ORDER BY id") == [(1, "one"), (2, "two")]
        assert list(await ask(url, "SELECT * FROM bought")) == []
        assert list(await ask(url, "SELECT * FROM covet_migrations_journal")) == []
        async with Database(url) as database:
            assert await applied(database) == ["shop.0001_first"]
            if name == points[-1]:
                await migrator(database, *three("mariadb")).migrate()
                await check_all_done(url)


async def test_taking_back_is_interrupted_as_well(databases: Databases) -> None:
    server = databases.mariadb()
    url = server.empty_database("test")
    assert run(url, three, kill="migrate.done.shop.0002_second.3").code == -9
    killed = 0
    for number in range(3):
        for moment in ("begun", "after"):
            killed += run(url, three, "unwind", kill=f"migrate.{moment}.shop.0002_second.{number}").code == -9
    assert killed == 6
    refused = run(url, three)
    assert refused.code == 1
    assert "--unwind" in refused.error
    done = run(url, three, "unwind")
    assert done.code == 0, done.error
    assert await ask(url, "SELECT * FROM item ORDER BY id") == [(1, "one"), (2, "two")]
    assert run(url, three).code == 0
    await check_all_done(url)


async def test_a_rollback_is_interrupted(databases: Databases) -> None:
    server = databases.mariadb()
    url = server.empty_database("test")
    assert run(url, three).code == 0
    assert run(url, three, "rollback", kill="migrate.after.shop.0002_second.1").code == -9
    # What is under way is brought to an end first; then all is done again.
    done = run(url, three)
    assert done.code == 0, done.error
    await check_all_done(url)


async def test_an_operation_of_which_a_part_was_done_is_taken_back(databases: Databases) -> None:
    server = databases.mariadb()
    url = server.empty_database("test")
    fields = {"id": BigAutoField(primary_key=True), "name": CharField(max_length=50)}
    first = migration("people", "0001", CreateModel("Person", fields))
    second = migration(
        "people",
        "0002",
        AddField("Person", "height", IntegerField(null=True)),
        AddField("Person", "age", IntegerField(default=3, unique=True)),
        after=[first.key],
    )
    async with Database(url) as database:
        run_it = migrator(database, first, second, steps_of=None)
        await run_it.migrate("people", "0001")
        await database.execute("INSERT INTO people_person (name) VALUES ('Ada'), ('Eve')")
        before = await database.fetch_all("SHOW CREATE TABLE people_person")
        # Both rows get the same age.
        with pytest.raises(MigrationFailed, match="of 2, 'Add field age"):
            await run_it.migrate()
        assert await run_it.unwind() == [second.key]
        assert await database.fetch_all("SHOW CREATE TABLE people_person") == before
        await database.execute("DELETE FROM people_person")
        await run_it.migrate()
        assert await applied(database) == ["people.0001", "people.0002"]


async def test_a_part_that_cannot_be_seen_is_told(databases: Databases) -> None:
    server = databases.mariadb()
    url = server.empty_database("test")
    both = SQL(["CREATE TABLE one (id int)", "INSERT INTO nowhere VALUES (1)"], ["DROP TABLE one"])
    async with Database(url) as database:
        run_it = migrator(database, migration("shop", "0001", both))
        with pytest.raises(MigrationFailed):
            await run_it.migrate()
        with pytest.raises(HistoryError, match="cannot be seen in the schema"):
            await run_it.unwind()
        await database.script("DROP TABLE one")
        await run_it.migrate("shop", "0001", fake=True)
        assert await run_it.journal.read() == []


async def test_steps_by_themselves_on_every_database(server: Server, url: str) -> None:
    """`atomic=False`: killed after each step, it goes on behind it."""
    steps = [
        SQL("CREATE TABLE one (id int)", "DROP TABLE one"),
        SQL("INSERT INTO one VALUES (1)", []),
        SQL("INSERT INTO one VALUES (2)", []),
    ]
    whole = migration("shop", "0001", *steps, atomic=False)

    class StopError(Exception):
        """The process ends here."""

    def stop() -> None:
        raise StopError

    told: list[str] = []
    for moment in ("before", "after", "done"):
        for number in range(3):
            async with Database(url) as database:
                with faultpoints.at(f"migrate.{moment}.shop.0001.{number}", stop):
                    try:
                        await migrator(database, whole).migrate()
                    except MigrationError as error:
                        told.append(str(error))
    async with Database(url) as database:
        await migrator(database, whole).migrate()
        assert await applied(database) == ["shop.0001"]
    assert told
    assert all("step" in text for text in told)
    assert sorted(await ask(url, "SELECT id FROM one")) == [(1,), (2,)]
