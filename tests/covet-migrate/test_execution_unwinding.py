"""Taking back what was interrupted in the middle of an operation, and going on in another process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.migrations import history
from tests.migrations.processes import run as run_process
from tests.migrations.runs import SQL, applied, migration, migrator
from tests.services.databases import Databases, SQLite

from covet_migrate import operations
from covet_migrate.exceptions import HistoryError, MigrationError, MigrationFailed
from covet_orm import BigAutoField, Database, IntegerField
from covet_orm.testing import faultpoints

pytestmark = pytest.mark.anyio

COUNTER = operations.CreateModel("Counter", {"id": BigAutoField(primary_key=True), "value": IntegerField(default=0)})
FIRST = migration("shop", "0001", COUNTER)
ROWS = 30


async def _add(models: Any, counters: list[Any]) -> None:
    for one in counters:
        one.value += one.id
    await models["shop.Counter"].objects.bulk_update(counters, ["value"])


async def _subtract(models: Any, counters: list[Any]) -> None:
    for one in counters:
        one.value -= one.id
    await models["shop.Counter"].objects.bulk_update(counters, ["value"])


SECOND = migration(
    "shop",
    "0002",
    operations.AddField("Counter", "note", IntegerField(null=True)),
    operations.RunPython(_add, _subtract, batched="Counter", size=10),
    after=[FIRST.key],
    atomic=False,
)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Each database in turn, with rows."""
    async with Database(url) as database:
        await migrator(database, FIRST, steps_of=None).migrate()
        for _ in range(ROWS):
            await database.execute("INSERT INTO shop_counter (value) VALUES (0)")
        yield database


class StopError(Exception):
    """The process ends here."""


def stop_at(passes: int) -> Any:
    left = passes

    def stop() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise StopError

    return stop


async def wrong(database: Database, factor: int) -> int:
    """How many rows are not that often what was added."""
    return int(await database.fetch_value(f"SELECT count(*) FROM shop_counter WHERE value <> {factor} * id"))


async def test_batches_that_are_done_are_taken_back(database: Database) -> None:
    run = migrator(database, FIRST, SECOND, steps_of=None)
    with faultpoints.at("migrate.batch", stop_at(1)), pytest.raises(MigrationError):
        await run.migrate()
    assert 0 < await wrong(database, 0) < ROWS, "some batches are there"
    # Taking them back is interrupted as well.
    with faultpoints.at("migrate.batch", stop_at(0)), pytest.raises(MigrationFailed, match="migrate --unwind` again"):
        await run.unwind()
    with pytest.raises(HistoryError, match="--unwind"):
        await run.migrate()
    assert await run.unwind() == [SECOND.key]
    assert await wrong(database, 0) == 0
    assert "note" not in (await database.query("SELECT * FROM shop_counter")).columns
    await run.migrate()
    assert await wrong(database, 1) == 0
    # And the same backward: what was taken back in part comes again.
    with faultpoints.at("migrate.batch", stop_at(1)), pytest.raises(MigrationError):
        await run.migrate("shop", "0001")
    assert 0 < await wrong(database, 1) < ROWS
    assert await run.unwind() == [SECOND.key]
    assert await wrong(database, 1) == 0
    assert await applied(database) == ["shop.0001", "shop.0002"]


async def test_what_cannot_be_unwound_can_still_be_brought_to_an_end(databases: Databases) -> None:
    """It is refused before anything is written down: `migrate`, which the message names, goes on."""
    url = databases.mariadb().empty_database("test")
    both = SQL(["INSERT INTO one VALUES (1)", "INSERT INTO late VALUES (1)"], ["DELETE FROM one", "DELETE FROM late"])
    whole = migration("shop", "0001", SQL("CREATE TABLE one (id int)", "DROP TABLE one"), both)
    async with Database(url) as database:
        run = migrator(database, whole)
        with pytest.raises(MigrationFailed):
            await run.migrate()
        with pytest.raises(HistoryError, match="cannot be seen in the schema"):
            await run.unwind()
        await database.script("CREATE TABLE late (id int)")
        await run.migrate()
        assert await database.fetch_value("SELECT count(*) FROM one") == 1
        assert await applied(database) == ["shop.0001"]


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_the_steps_of_a_table_are_in_one_order(kind: str) -> None:
    """The indexes of a table are a set, in another order in each process."""
    fields = {f"f{number}": IntegerField[int](db_index=True) for number in reversed(range(10))}
    made = migration("shop", "0002", operations.CreateModel("Many", {"id": BigAutoField(primary_key=True), **fields}))
    (stage,) = history.stages(made, kind, (15,), backward=False)
    names = [str(step).partition("CREATE INDEX ")[2].partition(" ")[0] for step in stage.steps[1:]]
    assert names == sorted(names)
    assert len(names) == 10


async def test_another_process_knows_the_steps_again(tmp_path: Any) -> None:
    url = SQLite(tmp_path).url("again")
    point = f"migrate.done.shop.{history.LONG}.20"
    for _ in range(3):
        assert run_process(url, history.in_parts, kill=point).code == -9
        ended = run_process(url, history.in_parts, "unwind")
        assert ended.code == 0, ended.error
    ended = run_process(url, history.in_parts)
    assert (ended.code, ended.done) == (0, [f"shop.{history.LONG}"]), ended.error


async def test_an_operation_is_one_transaction_on_sqlite(tmp_path: Any) -> None:
    """A rebuilt table does not tell how much of an operation it has: so that it has all of it, or nothing."""
    url = SQLite(tmp_path).url("whole")
    stages = history.stages(history.in_parts("sqlite")[1], "sqlite", (3, 40), backward=False)
    first = 0
    for stage in stages:
        if len(stage.steps) > 2:
            break
        first += len(stage.steps)
    ended = run_process(url, history.in_parts, kill=f"migrate.after.shop.{history.LONG}.{first + 1}")
    assert ended.code == -9
    async with Database(url) as database:
        (entry,) = await migrator(database).journal.read()
        assert entry.done == first
