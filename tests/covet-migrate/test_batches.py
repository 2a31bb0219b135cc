"""Rows that are changed in batches: how many at a time, in ranges of keys, and what goes on behind the last one."""

from __future__ import annotations

import pytest
from tests.migrations.migrating import APP
from tests.migrations.runs import migration, migrator
from tests.migrations.schema_changes import ROWS, add, changed, shop
from tests.services.databases import NAMES, SERVERS, Database, Databases, ask
from tests.services.mariadb import MariaDB

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationError, MigrationFailed
from covet_migrate.execution.data import BATCH_SECONDS, FEWEST, Pace
from covet_migrate.execution.events import BatchDone, Event
from covet_migrate.migrations import Migration
from covet_orm import Database as Connected
from covet_orm.expressions.functions import RandomUUID
from covet_orm.testing import faultpoints

pytestmark = pytest.mark.anyio

servers = pytest.mark.parametrize("server", SERVERS, indirect=True)


def first() -> Migration:
    return migration(
        APP, "0001_first", *(ops.CreateModel(one.name, dict(one.fields), dict(one.options)) for one in shop())
    )


def interrupt() -> None:
    raise RuntimeError("interrupted")


@servers
async def test_a_key_of_two_columns_is_taken_in_batches(server: Database) -> None:
    key = {"word": orm.CharField(max_length=9, primary_key=True), "number": orm.IntegerField(primary_key=True)}
    begin = migration(APP, "0001_first", ops.CreateModel("Pair", {**key, "x": orm.IntegerField(null=True)}))
    fill = ops.Online(ops.AlterField("Pair", "x", orm.IntegerField(), fill=7), batch=2)
    then = migration(APP, "0002_fill", fill, after=[begin.key], atomic=False)
    url = server.empty_database("test")
    async with Connected(url) as database:
        made = migrator(database, begin, then, steps_of=steps_of)
        await made.migrate(APP, "0001_first")
        rows = ", ".join(f"('{word}', {number})" for word in "abc" for number in range(3))
        await ask(url, f"INSERT INTO shop_pair (word, number) VALUES {rows}")
        await made.migrate()
    assert await ask(url, "SELECT count(*), sum(x) FROM shop_pair") == [(9, 63)]


def test_a_batch_has_as_many_rows_as_can_be_done_in_its_time() -> None:
    pace = Pace(5000, 500)
    assert pace.size == 500
    pace.took(BATCH_SECONDS / 10)
    assert pace.size == 1000
    for _ in range(5):
        pace.took(BATCH_SECONDS / 10)
    assert pace.size == 5000
    pace.took(BATCH_SECONDS * 1.25)
    assert pace.size == 4000
    pace.took(BATCH_SECONDS * 100)
    assert pace.size == 2000
    for _ in range(20):
        pace.took(BATCH_SECONDS * 100)
    assert pace.size == FEWEST
    small = Pace(3)
    small.took(100)
    assert small.size == 3


DOUBLED = "UPDATE shop_book SET pages = pages * :by WHERE id BETWEEN :first AND :last"


@pytest.mark.parametrize("server", NAMES, indirect=True)
async def test_sql_runs_for_a_range_of_keys_at_a_time(server: Database) -> None:
    url = server.empty_database("test")
    begin = first()
    backward = "UPDATE shop_book SET pages = pages / 2 WHERE id BETWEEN :first AND :last"
    doubling = ops.RunSQL((DOUBLED, {"by": 2}), backward, batched="Book", size=2)
    then = migration(APP, "0002_then", doubling, after=[begin.key], atomic=False)
    events: list[Event] = []
    async with Connected(url) as database:
        made = migrator(database, begin, then, steps_of=steps_of, tell=events.append)
        await made.migrate(APP, "0001_first")
        await ask(url, *ROWS)
        with faultpoints.at("migrate.batch", interrupt), pytest.raises(MigrationFailed):
            await made.migrate()
        assert await ask(url, "SELECT id, pages FROM shop_book ORDER BY id") == [(1, 20), (2, 40), (7, 30)]
        events.clear()
        await made.migrate()
        assert await ask(url, "SELECT id, pages FROM shop_book ORDER BY id") == [(1, 20), (2, 40), (7, 60)]
        assert [(one.done, one.total) for one in events if isinstance(one, BatchDone)] == [(1, 1)]
        await made.migrate(APP, "0001_first", yes=True)
        assert await ask(url, "SELECT id, pages FROM shop_book ORDER BY id") == [(1, 10), (2, 20), (7, 30)]
        # Without rows there is nothing to do.
        await ask(
            url, "DELETE FROM shop_book WHERE id = 7", "DELETE FROM shop_book WHERE id = 2", "DELETE FROM shop_book"
        )
        await made.migrate()


@pytest.mark.parametrize("server", NAMES, indirect=True)
async def test_a_range_of_sql_that_was_interrupted_is_taken_back_as_far_as_it_came(server: Database) -> None:
    url = server.empty_database("test")
    begin = first()
    backward = "UPDATE shop_book SET pages = pages / 2 WHERE id BETWEEN :first AND :last"
    doubling = ops.RunSQL((DOUBLED, {"by": 2}), backward, batched="Book", size=2)
    then = migration(APP, "0002_then", doubling, after=[begin.key], atomic=False)
    async with Connected(url) as database:
        made = migrator(database, begin, then, steps_of=steps_of)
        await made.migrate(APP, "0001_first")
        await ask(url, *ROWS)
        with faultpoints.at("migrate.batch", interrupt), pytest.raises(MigrationFailed):
            await made.migrate()
        await made.unwind()
    assert await ask(url, "SELECT id, pages FROM shop_book ORDER BY id") == [(1, 10), (2, 20), (7, 30)]


async def test_sql_for_a_range_says_the_range() -> None:
    with pytest.raises(MigrationError, match=r"no :last, and would do all rows"):
        ops.RunSQL("UPDATE shop_book SET pages = 1 WHERE id >= :first", batched="Book")
    with pytest.raises(MigrationError, match=r"no :first and no :last"):
        ops.RunSQL({"postgresql": "UPDATE shop_book SET pages = 1::first"}, batched="Book")
    with pytest.raises(MigrationError, match="at least one row"):
        ops.RunSQL(DOUBLED, batched="Book", size=0)


async def test_sql_for_a_range_needs_a_key_of_one_column_and_its_parameters(databases: Databases) -> None:
    url = databases.get("sqlite").empty_database("test")
    key = {"word": orm.CharField(max_length=9, primary_key=True), "number": orm.IntegerField(primary_key=True)}
    begin = migration(
        APP,
        "0001_first",
        ops.CreateModel("Pair", {**key, "x": orm.IntegerField(null=True)}),
        ops.CreateModel("One", {"id": orm.BigAutoField(primary_key=True)}),
        ops.RunSQL("INSERT INTO shop_one (id) VALUES (1)", ops.RunSQL.noop),
    )
    async with Connected(url) as database:
        for name, match in (("Pair", "2 columns"), ("One", "'by'")):
            given = ops.RunSQL(DOUBLED, ops.RunSQL.noop, batched=name)
            then = migration(APP, f"0002_{name}", given, after=[begin.key], atomic=False)
            made = migrator(database, begin, then, steps_of=steps_of)
            with pytest.raises(MigrationError, match=match):
                await made.migrate()
            await made.unwind()


async def test_rows_that_came_while_others_were_filled(mariadb: MariaDB) -> None:
    """Old code inserts rows while a column is added whose default differs from row to row."""
    url = mariadb.empty_database("test")
    begin = first()
    add_key = ops.Online(add("key", orm.UUIDField(db_default=RandomUUID())), batch=2)
    then = migration(APP, "0002_then", add_key, after=[begin.key], atomic=False)
    async with Connected(url) as database:
        made = migrator(database, begin, then, steps_of=steps_of)
        await made.migrate(APP, "0001_first")
        await ask(url, *ROWS)
        for step in range(3):

            async def insert(number: int = step) -> None:
                await ask(url, f"INSERT INTO shop_book (title, pages, author_id) VALUES ('new', {number}, 1)")

            faultpoints.actions[f"migrate.done.{APP}.0002_then.{step}"] = insert
        try:
            await made.migrate()
        finally:
            for step in range(3):
                faultpoints.actions.pop(f"migrate.done.{APP}.0002_then.{step}", None)
    assert await ask(url, "SELECT count(*), count(DISTINCT `key`) FROM shop_book") == [(6, 6)]


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_has_rows(batch: int) -> None:
    with pytest.raises(MigrationError, match="at least one row"):
        ops.Online(changed("pages"), batch=batch)
    with pytest.raises(MigrationError, match="an operation is needed"):
        ops.Online("AddField")  # type: ignore[arg-type]
