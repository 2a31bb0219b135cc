"""What is done online gives the same schema as what is done at once, and keeps nobody waiting."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from tests.migrations.migrating import APP, create, migrate, state_after
from tests.migrations.runs import migration, migrator
from tests.migrations.schema_changes import CHANGES, ROWS, add, changed, shop
from tests.migrations.schema_snapshots import Snapshot, snapshot
from tests.services.databases import SERVERS, Database, ask

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationFailed
from covet_migrate.migrations import Migration
from covet_migrate.operations import Change, Operation
from covet_migrate.safety.effects import effects_of
from covet_migrate.safety.linting import lint
from covet_migrate.safety.rewriting import AVOIDABLE, safe_migrations
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Call
from covet_orm import Database as Connected
from covet_orm import Q
from covet_orm.expressions.functions import RandomUUID
from covet_orm.testing import faultpoints

pytestmark = pytest.mark.anyio

servers = pytest.mark.parametrize("server", SERVERS, indirect=True)
MOMENT = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
VERSIONS: dict[str, tuple[int, ...]] = {"postgresql-15": (15,), "postgresql-18": (18,), "mariadb": (10, 11)}


def first() -> Migration:
    creating = [ops.CreateModel(one.name, dict(one.fields), dict(one.options)) for one in shop()]
    return migration(APP, "0001_first", *creating)


async def run(url: str, *operations: Operation, back: bool = False, atomic: bool = False) -> None:
    """Run operations on the shop, with its rows, as a migration; and take them back."""
    begin = first()
    then = migration(APP, "0002_then", *operations, after=[begin.key], atomic=atomic)
    async with Connected(url) as database:
        made = migrator(database, begin, then, steps_of=steps_of)
        await made.migrate(APP, "0001_first")
        await ask(url, *ROWS)
        await made.migrate(yes=True)
        if back:
            await made.migrate(APP, "0001_first", yes=True)


async def schema(url: str) -> Snapshot:
    """The schema without the tables of migrations."""
    return {name: parts for name, parts in (await snapshot(url)).items() if not name.startswith("covet_")}


@pytest.mark.parametrize(
    ("name", "server"),
    [
        (name, server)
        for name, change in CHANGES.items()
        if "concurrently" not in name and name not in ("validate", "add_check_not_valid")
        for server in SERVERS
        if server.partition("-")[0] in change().kinds
    ],
    indirect=["server"],
)
async def test_the_schema_is_the_same(name: str, server: Database) -> None:
    change = CHANGES[name]()
    url = server.empty_database("expected")
    await create(url, shop())
    await ask(url, *ROWS)
    await migrate(url, server.kind, shop(), [*change.before, change.operation])
    expected = await snapshot(url)
    url = server.empty_database("test")
    await run(url, *change.before, ops.Online(change.operation))
    assert await schema(url) == expected


@servers
@pytest.mark.parametrize(
    "name", ["not_null_filled", "add_volatile", "unique", "add_foreign_key", "add_indexed", "add_check"]
)
async def test_backward_as_well(name: str, server: Database) -> None:
    url = server.empty_database("expected")
    await create(url, shop())
    expected = await snapshot(url)
    url = server.empty_database("test")
    await run(url, ops.Online(CHANGES[name]().operation), back=True)
    assert await schema(url) == expected


@servers
@pytest.mark.parametrize(
    "name",
    [
        "add_indexed",
        "add_unique",
        "add_foreign_key",
        "add_volatile",
        "add_checked",
        "not_null",
        "not_null_filled",
        "unique",
        "add_index",
        "add_unique_index",
        "remove_index",
        "add_check",
        "add_unique_constraint",
        "other_on_delete",
    ],
)
async def test_no_step_keeps_others_waiting_for_long(name: str, server: Database) -> None:
    change = CHANGES[name]()
    before = shop()
    operation = ops.Online(change.operation)
    made = Change(APP, before, operation.apply(before, APP), server.kind, Renderer())
    steps = steps_of(operation.actions(made), server.kind, VERSIONS[server.name])
    stalls = [
        step
        for step, effect in zip(steps, effects_of(steps, server.kind, VERSIONS[server.name]), strict=True)
        if effect.stalls
    ]
    if server.kind == "mariadb" and name in ("add_foreign_key", "add_check", "add_checked", "other_on_delete"):
        # InnoDB checks rows by copying them. What has to differ from row to row is filled in batches.
        assert [step for step in stalls if "ADD CONSTRAINT" not in getattr(step, "sql", "")] == []
    else:
        assert stalls == []
    assert any(isinstance(step, Call) for step in steps) is (name in ("add_volatile", "not_null_filled"))


@servers
@pytest.mark.parametrize("batch", [1, 2, 5000])
async def test_rows_get_their_values_in_batches_and_differ(server: Database, batch: int) -> None:
    url = server.empty_database("test")
    await run(
        url,
        ops.Online(add("key", orm.UUIDField(db_default=RandomUUID())), batch=batch),
        ops.Online(ops.AlterField("Book", "at", orm.DateTimeField(), fill=MOMENT), batch=batch),
    )
    rows = await ask(url, f"SELECT {quoted(server, 'key')}, at FROM shop_book")
    assert len({row[0] for row in rows}) == 3
    assert all(value is not None for row in rows for value in row)


def quoted(server: Database, name: str) -> str:
    return f"`{name}`" if server.kind == "mariadb" else f'"{name}"'


@servers
async def test_keys_of_all_types_are_taken_in_batches(server: Database) -> None:
    uuid = orm.UUIDField(primary_key=True)
    models = [
        ops.CreateModel("ByUUID", {"id": uuid, "x": orm.IntegerField(null=True)}, {"db_table": "shop_byuuid"}),
        ops.CreateModel(
            "ByDay",
            {"id": orm.DateField(primary_key=True), "x": orm.IntegerField(null=True)},
            {"db_table": "shop_byday"},
        ),
        ops.CreateModel(
            "ByWord",
            {"id": orm.CharField(max_length=9, primary_key=True), "x": orm.IntegerField(null=True)},
            {"db_table": "shop_byword"},
        ),
    ]
    begin = migration(APP, "0001_first", *models)
    fill = [ops.Online(ops.AlterField(one.name, "x", orm.IntegerField(), fill=7), batch=2) for one in models]
    then = migration(APP, "0002_fill", *fill, after=[begin.key], atomic=False)
    url = server.empty_database("test")
    async with Connected(url) as database:
        made = migrator(database, begin, then, steps_of=steps_of)
        await made.migrate(APP, "0001_first")
        mark = "" if server.kind == "postgresql" else "x"
        values = ", ".join(f"({mark}'{number:032x}')" for number in range(1, 6))
        await ask(url, f"INSERT INTO shop_byuuid (id) VALUES {values}")
        await ask(url, *(f"INSERT INTO shop_byday (id) VALUES ('2026-01-0{n}')" for n in range(1, 6)))
        await ask(url, *(f"INSERT INTO shop_byword (id) VALUES ('w{n}')" for n in range(1, 6)))
        await made.migrate()
    for table in ("shop_byuuid", "shop_byday", "shop_byword"):
        assert await ask(url, f"SELECT count(*), sum(x) FROM {table}") == [(5, 35)]


# Elsewhere it is one statement.
@pytest.mark.parametrize("server", [name for name in SERVERS if name.startswith("postgresql")], indirect=True)
async def test_duplicates_leave_no_index_behind_and_it_goes_on_when_they_are_gone(server: Database) -> None:
    url = server.empty_database("test")
    begin = first()
    then = migration(APP, "0002_then", ops.Online(changed("pages", unique=True)), after=[begin.key], atomic=False)
    async with Connected(url) as database:
        made = migrator(database, begin, then, steps_of=steps_of)
        await made.migrate(APP, "0001_first")
        await ask(url, *ROWS, "UPDATE shop_book SET pages = 10")
        with pytest.raises(MigrationFailed, match="shop_book_pages"):
            await made.migrate()
        assert await ask(url, "SELECT 1 FROM pg_index WHERE NOT indisvalid") == []
        await ask(url, "UPDATE shop_book SET pages = id")
        await made.migrate()
    assert await ask(url, "SELECT count(*) FROM pg_constraint WHERE contype = 'u' AND conname LIKE '%pages%'") == [(1,)]


@servers
@pytest.mark.parametrize("name", ["unique", "not_null", "not_null_filled", "add_volatile", "add_indexed"])
async def test_what_failed_half_way_is_unwound(name: str, server: Database) -> None:
    """The operation before is done; of the one that fails, perhaps a part is."""
    expected_url = server.empty_database("expected")
    await create(expected_url, shop())
    expected = await snapshot(expected_url)
    url = server.empty_database("test")
    begin = first()
    fails = ops.RunSQL("SELECT * FROM nowhere", ops.RunSQL.noop)
    operation = CHANGES[name]().operation
    then = migration(APP, "0002_then", ops.Online(operation), fails, after=[begin.key], atomic=False)
    async with Connected(url) as database:
        made = migrator(database, begin, then, steps_of=steps_of)
        await made.migrate(APP, "0001_first")
        await ask(url, *ROWS)
        if name in ("unique", "not_null"):
            await ask(url, "UPDATE shop_book SET pages = 10, note = NULL")
        with pytest.raises(MigrationFailed):
            await made.migrate()
        assert await made.unwind()
        assert await schema(url) == expected


@servers
@pytest.mark.parametrize("ends", ["unwound", "gone on with"])
@pytest.mark.parametrize("name", ["unique", "not_null_filled", "add_volatile"])
async def test_interrupted_behind_any_step_it_is_brought_to_an_end(name: str, ends: str, server: Database) -> None:
    operation = CHANGES[name]().operation
    expected_url = server.empty_database("expected")
    await create(expected_url, shop() if ends == "unwound" else state_after(shop(), [operation]))
    expected = await snapshot(expected_url)
    made = Change(APP, shop(), operation.apply(shop(), APP), server.kind, Renderer())
    steps = steps_of(ops.Online(operation).actions(made), server.kind, VERSIONS[server.name])
    begin = first()
    then = migration(APP, "0002_then", ops.Online(operation), after=[begin.key], atomic=False)
    for number in range(len(steps)):
        url = server.empty_database("test")
        async with Connected(url) as database:
            run = migrator(database, begin, then, steps_of=steps_of)
            await run.migrate(APP, "0001_first")
            await ask(url, *ROWS)
            with faultpoints.at(f"migrate.done.{APP}.0002_then.{number}", interrupt), pytest.raises(MigrationFailed):
                await run.migrate()
            if ends == "unwound":
                await run.unwind()
            else:
                await run.migrate()
            assert await schema(url) == expected, steps[number]


def interrupt() -> None:
    raise RuntimeError("interrupted")


def naming(app: str, operations: Sequence[Operation]) -> str:
    naming.number += 1  # type: ignore[attr-defined]
    return f"{naming.number:04}_{operations[0].file_name()}"  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def numbered() -> None:
    naming.number = 1  # type: ignore[attr-defined]


def safe(*operations: Operation, kind: str = "postgresql") -> list[Migration]:
    given = migration(APP, "0002_given", *operations, after=[(APP, "0001_first")])
    return safe_migrations([given], shop(), kind, naming)


def shape(made: Sequence[Migration]) -> list[tuple[bool, list[str]]]:
    return [(one.atomic, [type(op).__name__ for op in one.operations]) for one in made]


SAFE: dict[str, tuple[list[Operation], list[tuple[bool, list[str]]]]] = {
    "index": ([ops.AddIndex("Book", orm.Index("code"))], [(False, ["AddIndex"])]),
    "no_index": ([ops.RemoveIndex("Book", "book_pages_down")], [(False, ["RemoveIndex"])]),
    "check": (
        [ops.AddConstraint("Book", orm.CheckConstraint(Q(pages__gt=0), name="some"))],
        [(True, ["AddConstraint"]), (True, ["ValidateConstraint"])],
    ),
    "unique": ([changed("pages", unique=True)], [(False, ["Online"])]),
    "required": ([add("x", orm.IntegerField(), fill=3)], [(True, ["AddField"]), (True, ["AlterField"])]),
    "required_indexed": (
        [add("x", orm.IntegerField(db_index=True), fill=3)],
        [(False, ["Online"]), (True, ["AlterField"])],
    ),
    "foreign_key": (
        [add("editor", orm.ForeignKey(f"{APP}.Author", null=True, related_name="+"))],
        [(False, ["Online"])],
    ),
    "mixed": (
        [add("x", orm.TextField(null=True)), changed("note", null=False), changed("pages", comment="x")],
        [(True, ["AddField"]), (False, ["Online"]), (True, ["AlterField"])],
    ),
    "new": (
        [
            ops.CreateModel("Shelf", {"id": orm.BigAutoField(primary_key=True), "x": orm.IntegerField(null=True)}),
            ops.AddIndex("Shelf", orm.Index("x")),
        ],
        [(True, ["CreateModel", "AddIndex"])],
    ),
    "rename": (
        [ops.RenameField("Book", "note", "remark")],
        [(True, ["AddField"]), (False, ["SyncFields"]), (False, ["StopSyncFields", "Reviewed"])],
    ),
    "rename_required": (
        [ops.RenameField("Author", "name", "called")],
        [
            (True, ["AlterField", "AddField"]),
            (False, ["SyncFields"]),
            (False, ["StopSyncFields", "Online", "Reviewed"]),
        ],
    ),
    "rename_of_what_a_constraint_names": (
        [ops.RenameField("Book", "pages", "leaves")],
        [(True, ["RenameField"])],
    ),
    "harmless": ([changed("pages", comment="x")], [(True, ["AlterField"])]),
}


@pytest.mark.parametrize("name", SAFE)
def test_safe_forms_are_written(name: str) -> None:
    operations, expected = SAFE[name]
    made = safe(*operations)
    assert shape(made) == expected
    # One after the other, with names of their own.
    assert [one.dependencies for one in made] == [[(APP, "0001_first")], *([one.key] for one in made[:-1])]
    assert len({one.name for one in made}) == len(made)
    # The models are the same after them.
    state = shop()
    for one in made:
        left = {found.rule for found in lint([(one, state)], "postgresql")}
        assert not left & AVOIDABLE
        assert "concurrent-in-transaction" not in left
        state = one.apply(state)
    from covet_migrate.changes.detector import detect
    from covet_migrate.changes.questions import Unattended

    assert detect(state, state_after(shop(), operations), Unattended()).detected == []


def test_on_sqlite_nothing_is_done_otherwise() -> None:
    assert shape(safe(changed("note", null=False), ops.AddIndex("Book", orm.Index("code")), kind="sqlite")) == [
        (True, ["AlterField", "AddIndex"])
    ]


def test_those_that_depend_on_a_migration_depend_on_the_last_one_of_it() -> None:
    given = [
        migration(APP, "0002_given", add("x", orm.IntegerField(db_index=True), fill=3), after=[(APP, "0001_first")]),
        migration(
            "other",
            "0001_initial",
            ops.CreateModel("Other", {"id": orm.BigAutoField(primary_key=True), "book": orm.ForeignKey(f"{APP}.Book")}),
            after=[(APP, "0002_given")],
        ),
    ]
    made = safe_migrations(given, shop(), "postgresql", naming)
    assert list(made[-1].dependencies) == [made[-2].key]


@servers
async def test_what_is_safe_runs_and_old_code_writes_until_the_last_migration(server: Database) -> None:
    url = server.empty_database("test")
    begin = first()
    made = safe(add("x", orm.IntegerField(db_index=True), fill=3), changed("pages", unique=True), kind=server.kind)
    async with Connected(url) as database:
        run = migrator(database, begin, *made, steps_of=steps_of)
        await run.migrate(APP, "0001_first")
        await ask(url, *ROWS)
        await run.migrate(APP, made[-2].name)
        # Old code knows nothing of the column.
        await ask(url, "INSERT INTO shop_book (id, title, pages, author_id) VALUES (9, 'Nine', 9, 1)")
        await run.migrate()
    assert await ask(url, "SELECT x FROM shop_book") == [(3,)] * 4
    url_expected = server.empty_database("expected")
    await create(
        url_expected, state_after(shop(), [add("x", orm.IntegerField(db_index=True)), changed("pages", unique=True)])
    )
    expected = await snapshot(url_expected)
    assert await schema(url) == expected


@servers
async def test_both_names_work_while_a_field_is_renamed(server: Database) -> None:
    url = server.empty_database("test")
    begin = first()
    made = safe(ops.RenameField("Author", "name", "called"), kind=server.kind)
    async with Connected(url) as database:
        run = migrator(database, begin, *made, steps_of=steps_of)
        await run.migrate(APP, "0001_first")
        await ask(url, *ROWS)
        await run.migrate(APP, made[-2].name)
        await ask(
            url,
            "INSERT INTO shop_author (id, name) VALUES (3, 'old'), (5, 'x'), (7, 'y')",
            "INSERT INTO shop_author (id, called) VALUES (4, 'new')",
            "UPDATE shop_author SET name = 'by old' WHERE id = 5",
            "UPDATE shop_author SET called = 'by new' WHERE id = 7",
        )
        both = [(1, "Ada"), (2, "Bo"), (3, "old"), (4, "new"), (5, "by old"), (7, "by new")]
        assert await ask(url, "SELECT id, name FROM shop_author ORDER BY id") == both
        assert await ask(url, "SELECT id, called FROM shop_author ORDER BY id") == both
        # Back and forth again.
        await run.migrate(APP, "0001_first", yes=True)
        assert await ask(url, "SELECT id, name FROM shop_author ORDER BY id") == both
        await run.migrate()
        assert await ask(url, "SELECT id, called FROM shop_author ORDER BY id") == both
    expected = server.empty_database("expected")
    await create(expected, state_after(shop(), [ops.RenameField("Author", "name", "called")]))
    assert await schema(url) == await snapshot(expected)


async def test_writers_go_on_while_a_unique_constraint_is_added(databases: Any) -> None:
    """A writer whose transaction is open blocks nobody who comes after, as it would behind ADD CONSTRAINT UNIQUE."""
    server = databases.postgresql(15)
    url = server.empty_database("test")
    begin = first()
    then = migration(APP, "0002_then", ops.Online(changed("pages", unique=True)), after=[begin.key], atomic=False)
    async with Connected(url) as database, Connected(url) as writer:
        made = migrator(database, begin, then, steps_of=steps_of)
        await made.migrate(APP, "0001_first")
        await ask(url, *ROWS)
        building = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE UNIQUE%' AND wait_event_type = 'Lock'"
        async with anyio.create_task_group() as group, writer.transaction():
            await writer.execute("UPDATE shop_book SET title = 'open' WHERE id = 1")
            group.start_soon(made.migrate)
            while not await ask(url, building):  # noqa: ASYNC110
                await anyio.sleep(0.01)
            # It waits for the open transaction, and others do not wait for it.
            await ask(url, "SET lock_timeout = '1s'", "UPDATE shop_book SET title = 'else' WHERE id = 2")
    assert await ask(url, "SELECT title FROM shop_book WHERE id < 3 ORDER BY id") == [("open",), ("else",)]
