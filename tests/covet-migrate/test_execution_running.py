"""Running migrations: forward, backward, as one or step by step, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.migrations.runs import SQL, Code, InMemory, applied, migration, migrator, steps_of, three
from tests.services.databases import Database as Server
from tests.services.databases import ask

from covet_migrate.exceptions import (
    DataLoss,
    HistoryError,
    Irreversible,
    MigrationError,
    MigrationFailed,
    MigrationNotFound,
)
from covet_migrate.execution import Event, Settings
from covet_migrate.execution.data import DataStep
from covet_migrate.execution.events import BatchDone, MigrationFinished, StepFinished, StepStarted
from covet_migrate.execution.executor import Executor
from covet_migrate.execution.history import TABLE, define
from covet_migrate.execution.lock import hold
from covet_migrate.execution.migrator import server_version
from covet_migrate.execution.plan import Planned
from covet_migrate.execution.running import run_migration
from covet_migrate.execution.stages import Target
from covet_migrate.operations.fields import AddField
from covet_migrate.operations.models import CreateModel, DeleteModel, RenameModel
from covet_migrate.operations.running import RunPython, RunSQL
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer
from covet_orm import BigAutoField, CharField, Database, IntegerField, transaction_manager
from covet_orm.drivers.protocol import SessionState

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Each database in turn, empty."""
    async with Database(url) as database:
        yield database


def real(**options: Any) -> dict[str, Any]:
    """Options of a migrator that makes the real steps."""
    return {"steps_of": None, **options}


def person(name: str = "0001_initial", app: str = "people") -> Any:
    """The first migration of an application."""
    fields = {"id": BigAutoField(primary_key=True), "name": CharField(max_length=50)}
    return migration(app, name, CreateModel("Person", fields))


async def test_forward_and_backward(database: Database) -> None:
    run = migrator(database, *three(database.kind))
    assert [str(one) for one in await run.plan()] == ["shop.0001_first", "shop.0002_second", "shop.0003_third"]
    done = await run.migrate()
    assert [str(one) for one in done] == ["shop.0001_first", "shop.0002_second", "shop.0003_third"]
    assert await database.fetch_all("SELECT id, price FROM item ORDER BY id") == [
        {"id": 1, "price": 11},
        {"id": 2, "price": 21},
    ]
    assert await run.migrate() == []
    back = await run.migrate("shop", "0001", yes=True)
    assert [str(one) for one in back] == ["shop.0003_third (backward)", "shop.0002_second (backward)"]
    assert await applied(database) == ["shop.0001_first"]
    assert await database.fetch_value("SELECT count(*) FROM bought") == 0
    await run.migrate("shop", "0002")
    assert await applied(database) == ["shop.0001_first", "shop.0002_second"]
    await run.migrate("shop", "zero")
    assert await applied(database) == []
    assert await run.journal.read() == []


async def test_the_history_tells_who_did_what_when(database: Database) -> None:
    files = InMemory(*three(database.kind))
    run = migrator(database, files=files)
    await run.migrate("shop", "0002")
    await run.migrate()
    rows = await run.history.read()
    assert [(one.name, one.batch) for one in rows] == [("0001_first", 1), ("0002_second", 1), ("0003_third", 2)]
    for one in rows:
        assert one.checksum == files.checksum(one.key)
        assert "@" in one.applied_by
        assert one.applied_at.utcoffset() is not None
        assert one.seconds > 0
        assert not one.fake
    taken_back = await run.rollback()
    assert [str(one) for one in taken_back] == ["shop.0003_third (backward)"]
    assert await applied(database) == ["shop.0001_first", "shop.0002_second"]


async def test_a_history_of_an_older_version_gets_the_columns_that_it_lacks(database: Database) -> None:
    await migrator(database, *three(database.kind)).migrate("shop", "0001")
    table = define(database.kind)
    # As a later version would: a column more, that may be NULL.
    await database.script(f"ALTER TABLE {TABLE} ADD COLUMN later int")
    run = migrator(database, *three(database.kind))
    await run.migrate()
    assert len(await applied(database)) == 3
    assert "later" not in table.c


async def test_another_table_of_the_same_name_is_told(database: Database) -> None:
    await database.script(f"CREATE TABLE {TABLE} (id int)")
    with pytest.raises(HistoryError, match="not the history of covet-migrate"):
        await migrator(database, *three(database.kind)).plan()


async def test_a_failing_statement_in_the_middle_says_where(database: Database) -> None:
    first = three(database.kind)[0]
    bad = migration(
        "shop",
        "0002_bad",
        SQL("ALTER TABLE item ADD COLUMN price int", "ALTER TABLE item DROP COLUMN price"),
        SQL("INSERT INTO item (id, name) VALUES (1, 'one again')", []),
        SQL("ALTER TABLE item ADD COLUMN weight int", []),
        after=[first.key],
    )
    with pytest.raises(MigrationFailed) as caught:
        await migrator(database, first, bad).migrate()
    text = str(caught.value)
    assert "shop.0002_bad failed at operation 2 of 3" in text
    assert "INSERT INTO item" in text
    assert caught.value.migration == "shop.0002_bad"
    assert caught.value.statement.startswith("INSERT INTO item")
    assert await applied(database) == ["shop.0001_first"]
    columns = (await database.query("SELECT * FROM item LIMIT 0")).columns
    if database.kind == "mariadb":
        assert "Step 1 of 3 is done, and kept" in text
        assert "--unwind" in text
        assert columns == ("id", "name", "price")
    else:
        assert "Nothing of it was kept" in text
        assert columns == ("id", "name")
        assert "journal" not in text
    # What is behind the steps that are done may be mended.
    mended = migration(
        "shop",
        "0002_bad",
        bad.operations[0],
        SQL("INSERT INTO item (id, name) VALUES (3, 'three')", []),
        bad.operations[2],
        after=[first.key],
    )
    await migrator(database, first, mended).migrate()
    assert (await database.query("SELECT * FROM item LIMIT 0")).columns == ("id", "name", "price", "weight")
    assert await database.fetch_value("SELECT count(*) FROM item") == 3


async def test_steps_that_are_done_may_not_be_changed(database: Database) -> None:
    atomic = database.kind == "mariadb"
    first = SQL("CREATE TABLE one (id int)", "DROP TABLE one")
    before = migration("shop", "0001", first, SQL("INSERT INTO nowhere VALUES (1)", []), atomic=atomic)
    with pytest.raises(MigrationFailed):
        await migrator(database, before).migrate()
    other = SQL("CREATE TABLE two (id int)", "DROP TABLE two")
    after = migration("shop", "0001", other, SQL("INSERT INTO one VALUES (1)", []), atomic=atomic)
    with pytest.raises(HistoryError, match="step 1 is another one now"):
        await migrator(database, after).migrate()
    good = migration("shop", "0001", first, SQL("INSERT INTO one VALUES (1)", []), atomic=atomic)
    await migrator(database, good).migrate()
    assert await database.fetch_value("SELECT count(*) FROM one") == 1


async def test_an_interrupted_migration_comes_first_and_no_rollback_passes_it(database: Database) -> None:
    first = three(database.kind)[0]
    stuck = migration(
        "shop",
        "0002",
        SQL("CREATE TABLE one (id int)", "DROP TABLE one"),
        SQL("INSERT INTO nowhere VALUES (1)", []),
        after=[first.key],
        atomic=False,
    )
    run = migrator(database, first, stuck)
    with pytest.raises(MigrationFailed):
        await run.migrate()
    plan = await run.plan("shop", "0001")
    assert [one.under_way is not None for one in plan] == [True, False]
    with pytest.raises(HistoryError, match=r"shop\.0002: 1 of 2 steps done"):
        await run.rollback()
    status = await run.status()
    assert [one.applied is not None for one in status] == [True, False]
    assert status[1].under_way is not None
    with pytest.raises(HistoryError, match="its file is not here"):
        await migrator(database, first).migrate()
    # Somebody puts it right by hand.
    await run.migrate("shop", "0002", fake=True)
    assert await run.journal.read() == []
    assert await applied(database) == ["shop.0001_first", "shop.0002"]


async def test_rows_are_not_deleted_by_accident(database: Database) -> None:
    added = migration("people", "0002_age", AddField("Person", "age", IntegerField(null=True)), after=[person().key])
    renamed = migration("people", "0003_human", RenameModel("Person", "Human"), after=[added.key])
    run = migrator(database, person(), added, renamed, **real())
    await run.migrate()
    table = "people_human"
    await database.execute(f"INSERT INTO {table} (name, age) VALUES ('Ada', 36), ('Eve', NULL)")
    with pytest.raises(DataLoss) as caught:
        await run.migrate("people", "0001")
    # By the name that the table has now.
    assert "people_human.age (1 row with a value in it)" in str(caught.value)
    assert len(await applied(database)) == 3
    with pytest.raises(DataLoss, match=r"the table people_human \(2 rows\)"):
        await run.migrate("people", "zero")
    await database.execute(f"UPDATE {table} SET age = NULL")
    await run.migrate("people", "0001")
    with pytest.raises(DataLoss):
        await run.rollback()
    await run.rollback(yes=True)
    assert await applied(database) == []


async def test_what_has_no_way_back_is_refused_before_anything_is_done(database: Database) -> None:
    first = migration("shop", "0001", SQL("CREATE TABLE one (id int)"))
    second = migration("shop", "0002", SQL("CREATE TABLE two (id int)", "DROP TABLE two"), after=[first.key])
    run = migrator(database, first, second)
    await run.migrate()
    with pytest.raises(Irreversible, match=r"shop\.0001 cannot be taken back"):
        await run.migrate("shop", "zero", yes=True)
    assert await applied(database) == ["shop.0001", "shop.0002"]


async def test_an_edited_file_is_told_by_its_name(database: Database) -> None:
    migrations = three(database.kind)
    await migrator(database, *migrations).migrate()
    edited = InMemory(*migrations, texts={("shop", "0002_second"): "other"})
    run = migrator(database, files=edited)
    with pytest.raises(HistoryError, match=r"shop/migrations/0002_second\.py"):
        await run.migrate()
    with pytest.raises(HistoryError, match="accept"):
        await run.verify()
    assert await run.accept("shop") == [("shop", "0002_second")]
    await run.verify()
    assert await run.migrate() == []


async def test_a_history_that_knows_more_than_the_files(database: Database) -> None:
    migrations = three(database.kind)
    await migrator(database, *migrations).migrate()
    run = migrator(database, *migrations[:2])
    with pytest.raises(HistoryError, match=r"shop\.0003_third .*--prune"):
        await run.migrate()
    assert await migrator(database, *migrations[:2], unknown=True).migrate() == []
    assert await run.prune() == [("shop", "0003_third")]
    assert await run.migrate() == []


async def test_one_that_was_applied_without_what_it_depends_on(database: Database) -> None:
    first, second, third = three(database.kind)
    await migrator(database, first, second).migrate()
    other = migration("base", "0001", SQL("CREATE TABLE base (id int)", "DROP TABLE base"))
    later = migration("shop", "0002_second", *second.operations, after=[first.key, other.key])
    with pytest.raises(HistoryError, match=r"shop\.0002_second was applied before base\.0001"):
        await migrator(database, other, first, later, third).migrate()


async def test_names_that_are_wrong(database: Database) -> None:
    run = migrator(database, *three(database.kind))
    with pytest.raises(MigrationNotFound, match="'shp'; did you mean 'shop'"):
        await run.plan("shp")
    with pytest.raises(MigrationNotFound, match="0009"):
        await run.plan("shop", "0009")
    with pytest.raises(MigrationNotFound, match="may be any of 0001_first, 0002_second, 0003_third"):
        await run.plan("shop", "000")
    with pytest.raises(MigrationNotFound, match="application"):
        await run.plan(None, "0001")
    with pytest.raises(MigrationError, match="from 1"):
        await run.rollback(0)
    with pytest.raises(MigrationError, match="lock_timeout"):
        Settings(lock_timeout=0)


async def test_fake(database: Database) -> None:
    run = migrator(database, *three(database.kind))
    await run.migrate("shop", "0002", fake=True)
    rows = await run.history.read()
    assert [(one.name, one.fake) for one in rows] == [("0001_first", True), ("0002_second", True)]
    await run.migrate("shop", "zero", fake=True)
    assert await applied(database) == []
    await run.migrate()
    assert await database.fetch_value("SELECT count(*) FROM item") == 2


async def test_fake_initial(database: Database) -> None:
    run = migrator(database, person(), **real())
    await run.migrate()
    await database.script(f"DELETE FROM {TABLE}")
    await database.execute("INSERT INTO people_person (name) VALUES ('Ada')")
    with pytest.raises(MigrationFailed, match="exists"):
        await run.migrate()
    if database.kind == "mariadb":
        # It has begun, and nothing of it is done.
        await run.unwind()
    await run.migrate(fake_initial=True)
    assert [one.fake for one in await run.history.read()] == [True]
    assert await database.fetch_value("SELECT count(*) FROM people_person") == 1


async def test_fake_initial_refuses_tables_that_differ(database: Database) -> None:
    run = migrator(database, person(), **real())
    await database.script("CREATE TABLE people_person (id int PRIMARY KEY, fullname varchar(50))")
    with pytest.raises(HistoryError, match="cannot be taken for done") as refused:
        await run.migrate(fake_initial=True)
    assert "column people_person.fullname: in the database, and not in the migrations" in str(refused.value)
    assert "column people_person.name: missing in the database" in str(refused.value)
    assert await applied(database) == []
    await database.script("DROP TABLE people_person")
    await run.migrate(fake_initial=True)
    assert [one.fake for one in await run.history.read()] == [False]


async def test_a_squashed_migration_stands_for_those_that_it_replaces(database: Database) -> None:
    first, second, third = three(database.kind)
    await migrator(database, first, second).migrate()
    squashed = migration(
        "shop", "0001_squashed", *first.operations, *second.operations, replaces=[first.key, second.key]
    )
    run = migrator(database, squashed, migration("shop", "0003_third", *third.operations, after=[squashed.key]))
    await run.migrate()
    assert await applied(database) == ["shop.0001_squashed", "shop.0003_third"]
    assert await database.fetch_value("SELECT count(*) FROM bought") == 2


async def test_code_moves_data_with_the_models_of_its_time(database: Database) -> None:
    async def forward(step: DataStep) -> None:
        if step.backward:
            return
        model: Any = step.models.get("people.Person")
        assert [field.name for field in model._meta.fields] == ["id", "name"]
        await model.objects.create(name="Ada")

    second = migration(
        "people",
        "0002",
        Code(forward),
        AddField("Person", "age", IntegerField(null=True)),
        after=[person().key],
    )
    run = migrator(database, person(), second, **real())
    await run.migrate()
    assert await database.fetch_value("SELECT name FROM people_person") == "Ada"
    await run.migrate("people", "0001")


async def test_code_that_fails_is_told_and_rolled_back(database: Database) -> None:
    async def forward(step: DataStep) -> None:
        model: Any = step.models.get("people.Person")
        await model.objects.create(name="Ada")
        raise ValueError("no, not like this")

    second = migration("people", "0002", Code(forward), after=[person().key])
    run = migrator(database, person(), second, **real())
    with pytest.raises(MigrationFailed, match="no, not like this"):
        await run.migrate()
    assert await database.fetch_value("SELECT count(*) FROM people_person") == 0
    assert await applied(database) == ["people.0001_initial"]


async def test_batches_go_on_behind_the_last_that_was_kept(database: Database) -> None:
    seen: list[int] = []
    fail_at = [5]

    async def forward(step: DataStep) -> None:
        model: Any = step.models.get("people.Person")

        async def work(found: list[Any]) -> None:
            for one in found:
                one.name += "!"
                await one.save()
                seen.append(one.pk)
                if len(seen) in fail_at:
                    raise ValueError("interrupted")

        await step.in_batches(model.objects.all(), work, size=2)

    second = migration("people", "0002", Code(forward, inside=False), after=[person().key], atomic=False)
    events: list[Event] = []
    run = migrator(database, person(), second, tell=events.append, **real())
    await run.migrate("people", "0001")
    for number in range(7):
        await database.execute(f"INSERT INTO people_person (name) VALUES ('{number}')")
    with pytest.raises(MigrationFailed, match="interrupted"):
        await run.migrate()
    names = [row[0] for row in (await database.query("SELECT name FROM people_person ORDER BY id")).rows]
    assert names == ["0!", "1!", "2!", "3!", "4", "5", "6"]
    await run.migrate()
    names = [row[0] for row in (await database.query("SELECT name FROM people_person ORDER BY id")).rows]
    assert names == ["0!", "1!", "2!", "3!", "4!", "5!", "6!"]
    assert [one.done for one in events if isinstance(one, BatchDone)] == [2, 4, 2, 3]
    assert await run.journal.read() == []


async def fill(models: Any, people: list[Any]) -> None:
    """As authors write it."""
    for one in people:
        one.name = one.name.upper()
    await models["people.Person"].objects.bulk_update(people, ["name"])


async def test_the_operation_that_calls_code_in_batches(database: Database) -> None:
    events: list[Event] = []
    batched = RunPython(fill, RunPython.noop, batched="Person", size=2)
    second = migration("people", "0002", batched, after=[person().key], atomic=False)
    run = migrator(database, person(), second, tell=events.append, **real())
    await run.migrate("people", "0001")
    await database.execute("INSERT INTO people_person (name) VALUES ('a'), ('b'), ('c')")
    await run.migrate()
    names = [row[0] for row in (await database.query("SELECT name FROM people_person ORDER BY id")).rows]
    assert names == ["A", "B", "C"]
    assert [(one.done, one.total) for one in events if isinstance(one, BatchDone)] == [(2, 3), (3, 3)]


async def test_what_cannot_be_in_a_transaction_needs_a_migration_without(postgresql: Any) -> None:
    async with Database(postgresql.empty_database("test")) as database:
        table = SQL("CREATE TABLE one (id int)", "DROP TABLE one")
        index = SQL("CREATE INDEX CONCURRENTLY one_id ON one (id)", "DROP INDEX one_id", transactional=False)
        with pytest.raises(MigrationError, match="atomic=False"):
            await migrator(database, migration("shop", "0001", table, index)).migrate()
        assert await applied(database) == []
        await migrator(database, migration("shop", "0001", table, index, atomic=False)).migrate()
        assert await applied(database) == ["shop.0001"]


async def test_an_index_that_was_not_finished_is_dropped_and_made_again(postgresql: Any) -> None:
    async with Database(postgresql.empty_database("test")) as database:
        await database.script("CREATE TABLE one (id int); INSERT INTO one VALUES (1), (1)")
        index = SQL("CREATE UNIQUE INDEX CONCURRENTLY one_id ON one (id)", "DROP INDEX one_id", transactional=False)
        run = migrator(database, migration("shop", "0001", index, atomic=False))
        with pytest.raises(MigrationFailed, match="same value"):
            await run.migrate()
        invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
        assert await database.fetch_value(invalid) == 0
        await database.script("DELETE FROM one")
        await run.migrate()
        assert await database.fetch_value("SELECT count(*) FROM pg_indexes WHERE indexname = 'one_id'") == 1


async def test_sqlite_keeps_the_rows_that_refer_to_a_table_that_is_made_anew(tmp_path: Any) -> None:
    async with Database(f"sqlite:///{tmp_path}/a.db") as database:
        await database.script(
            "CREATE TABLE parent (id integer PRIMARY KEY);"
            "CREATE TABLE child (id integer PRIMARY KEY, parent int REFERENCES parent (id) ON DELETE CASCADE);"
            "INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2)"
        )
        rebuilt = [
            "CREATE TABLE new_parent (id integer PRIMARY KEY, name text)",
            "INSERT INTO new_parent (id) SELECT id FROM parent",
            "DROP TABLE parent",
            "ALTER TABLE new_parent RENAME TO parent",
        ]
        await migrator(database, migration("shop", "0001", SQL(rebuilt))).migrate()
        assert await database.fetch_value("SELECT count(*) FROM child") == 2
        assert await database.fetch_value("PRAGMA foreign_keys") == 1
        lost = migration("shop", "0002", SQL("DELETE FROM parent WHERE id = 1"), after=[("shop", "0001")])
        with pytest.raises(MigrationFailed, match="row 1 of child, which refers to parent"):
            await migrator(database, migration("shop", "0001", SQL(rebuilt)), lost).migrate()
        assert await database.fetch_value("SELECT count(*) FROM parent") == 2
        async with database.connection() as connection:
            assert connection.state is SessionState.IDLE
            assert (await connection.fetch("PRAGMA foreign_keys"))[0][0] == 1


async def test_it_cannot_run_inside_of_a_transaction(database: Database) -> None:
    async with transaction_manager.atomic(database):
        with pytest.raises(MigrationError, match="outside"):
            await migrator(database, *three(database.kind)).migrate()


@pytest.mark.parametrize("points", range(1, 40, 3))
async def test_cancelled_anywhere_it_goes_on_from_there(database: Database, points: int) -> None:
    """Cancelled after so many events, whatever is under way then."""
    task: list[asyncio.Task[Any]] = []
    count = [0]

    def tell(event: Event) -> None:
        count[0] += 1
        if count[0] == points:
            task[0].cancel()

    run = migrator(database, *three(database.kind), tell=tell)
    task.append(asyncio.create_task(run.migrate()))
    await asyncio.wait(task)
    await migrator(database, *three(database.kind)).migrate()
    assert len(await applied(database)) == 3
    assert await database.fetch_value("SELECT count(*) FROM bought") == 2
    assert await database.fetch_value("SELECT sum(price) FROM item") == 32


async def test_events_tell_how_far_it_came(database: Database) -> None:
    events: list[Event] = []
    await migrator(database, *three(database.kind), tell=events.append).migrate()
    begun = [one.number for one in events if isinstance(one, StepStarted)]
    ended = [one.number for one in events if isinstance(one, StepFinished)]
    assert begun == ended == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert [one.outcome for one in events if isinstance(one, MigrationFinished)] == ["done"] * 3


async def test_what_was_done_meanwhile_is_not_done_again(database: Database) -> None:
    """Even where the lock was circumvented: the history is looked at in the transaction itself."""
    events: list[Event] = []
    migrate = migrator(database, *three(database.kind))
    async with database.connection() as connection:
        await migrate.history.ensure(connection)
    target = Target(database.kind, await server_version(database), "default", steps_of, Renderer())
    planned = Planned(three(database.kind)[0], checksum="x")
    async with hold(database, timeout=5) as lock:
        executor = Executor(database, target, lock, Settings(), events.append)
        for _ in range(2):
            await run_migration(executor, planned, State(), number=1, total=1, batch=1)
    outcomes = [one.outcome for one in events if isinstance(one, MigrationFinished)]
    assert outcomes == ["done", "elsewhere"]
    assert await database.fetch_value("SELECT count(*) FROM item") == 2


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_sql_that_makes_a_table_anew_keeps_what_refers_to_it(database: Database) -> None:
    """SQLite deletes the rows of a table that is dropped one by one, and those that refer to them as well."""
    anew = RunSQL(
        [
            "CREATE TABLE other (id INTEGER PRIMARY KEY, name TEXT)",
            "INSERT INTO other SELECT id, name FROM parent",
            "DROP TABLE parent",
            "ALTER TABLE other RENAME TO parent",
        ],
        RunSQL.noop,
    )
    for statement in (
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, name VARCHAR(20))",
        "CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id) ON DELETE CASCADE)",
        "INSERT INTO parent VALUES (1, 'a')",
        "INSERT INTO child VALUES (1, 1), (2, 1)",
    ):
        await database.execute(statement)
    await migrator(database, migration("family", "0001_anew", anew), **real()).migrate()
    assert await database.fetch_value("SELECT count(*) FROM child") == 2


async def test_models_are_created_and_deleted(database: Database, server: Server, url: str) -> None:
    gone = migration("people", "0002_gone", DeleteModel("Person"), after=[person().key])
    run = migrator(database, person(), gone, **real())
    await run.migrate("people", "0001")
    await database.execute("INSERT INTO people_person (name) VALUES ('Ada')")
    assert await ask(url, "SELECT name FROM people_person") in ([("Ada",)], (("Ada",),))
    with pytest.raises(DataLoss, match=r"applying people.0002_gone deletes the table people_person \(1 row\)"):
        await run.migrate()
    assert await database.fetch_value("SELECT count(*) FROM people_person") == 1
    await run.migrate(yes=True)
    await run.migrate("people", "0001")
    assert await database.fetch_value("SELECT count(*) FROM people_person") == 0
