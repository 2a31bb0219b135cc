"""Making a table of SQLite anew: what belongs to it stays, and no row of another table goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.migrations.migrating import APP, create, migrate, model, run_steps, state_after, steps_between
from tests.services.databases import ask

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.ddl.sqlite import rebuild, rebuild_statements
from covet_migrate.exceptions import MigrationError, MigrationFailed
from covet_migrate.state import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import RebuildTable
from covet_orm import Database

pytestmark = pytest.mark.anyio

LONGER = ops.AlterField("Parent", "name", orm.CharField(max_length=50))


def family() -> State:
    """A parent, its children, and a table whose key is a text."""
    models = [
        model("Parent", {"id": orm.BigAutoField(primary_key=True), "name": orm.CharField(max_length=20)}),
        model("Child", {"id": orm.BigAutoField(primary_key=True), "parent": orm.ForeignKey(f"{APP}.Parent")}),
        model("Word", {"word": orm.CharField(max_length=9, primary_key=True), "said": orm.CharField(max_length=9)}),
    ]
    return State({one.label: one for one in models})


async def prepared(folder: Path) -> str:
    url = f"sqlite:///{folder / 'test.db'}"
    await create(url, family())
    await ask(
        url,
        "INSERT INTO shop_parent (id, name) VALUES (1, 'a'), (5, 'b')",
        "INSERT INTO shop_child (id, parent_id) VALUES (1, 1), (2, 5)",
        "INSERT INTO shop_word (rowid, word, said) VALUES (7, 'x', 'y'), (3, 'z', 'y')",
    )
    return url


def the_rebuild(operation: ops.Operation) -> RebuildTable:
    state = family()
    (step,) = steps_between(state, state_after(state, [operation]), operation, "sqlite")
    assert isinstance(step, RebuildTable)
    return step


async def test_widening_a_column_of_a_parent_keeps_every_child(tmp_path: Path) -> None:
    url = await prepared(tmp_path)
    async with Database(url) as database, database.connection() as connection:
        assert (await connection.fetch("PRAGMA foreign_keys"))[0][0] == 1
        await rebuild(connection, the_rebuild(LONGER))
        assert (await connection.fetch("PRAGMA foreign_keys"))[0][0] == 1
    assert await ask(url, "SELECT id, parent_id FROM shop_child") == [(1, 1), (2, 5)]
    assert await ask(url, "SELECT id, name FROM shop_parent") == [(1, "a"), (5, "b")]
    with pytest.raises(Exception, match="FOREIGN KEY"):
        await ask(url, "PRAGMA foreign_keys = ON", "INSERT INTO shop_child (id, parent_id) VALUES (3, 99)")


async def test_where_foreign_keys_are_looked_at_it_refuses(tmp_path: Path) -> None:
    url = await prepared(tmp_path)
    async with Database(url) as database, database.connection() as connection:
        await connection.script("BEGIN")
        with pytest.raises(MigrationError, match="PRAGMA foreign_keys = ON"):
            await rebuild(connection, the_rebuild(LONGER))
        await connection.script("ROLLBACK")
    assert len(await ask(url, "SELECT id FROM shop_child")) == 2


async def test_triggers_views_and_indexes_that_nobody_declared_stay(tmp_path: Path) -> None:
    url = await prepared(tmp_path)
    await ask(
        url,
        "CREATE VIEW parents AS SELECT name FROM shop_parent",
        "CREATE VIEW broken AS SELECT gone FROM nowhere",
        "CREATE TRIGGER told AFTER INSERT ON shop_parent BEGIN INSERT INTO shop_word VALUES (new.name, 'told'); END",
        "CREATE TRIGGER other AFTER INSERT ON shop_child BEGIN UPDATE shop_parent SET name = 'c' WHERE id = 5; END",
        "CREATE INDEX by_hand ON shop_parent (name, id)",
    )
    await migrate(url, "sqlite", family(), [LONGER])
    assert await ask(url, "SELECT name FROM parents") == [("a",), ("b",)]
    await ask(url, "INSERT INTO shop_parent (id, name) VALUES (6, 'six')", "INSERT INTO shop_child VALUES (4, 6)")
    assert await ask(url, "SELECT said FROM shop_word WHERE word = 'six'") == [("told",)]
    assert await ask(url, "SELECT name FROM shop_parent WHERE id = 5") == [("c",)]
    assert await ask(url, "SELECT count(*) FROM sqlite_master WHERE name = 'by_hand'") == [(1,)]


@pytest.mark.parametrize(
    ("made", "names"),
    [
        ("CREATE VIEW parents AS SELECT name FROM shop_parent", "the view parents"),
        (
            "CREATE TRIGGER t AFTER UPDATE ON shop_child BEGIN DELETE FROM shop_parent WHERE name = 'x'; END",
            "shop_child",
        ),
        ("CREATE TRIGGER t AFTER UPDATE OF id ON shop_parent BEGIN SELECT new.name; END", "shop_parent"),
    ],
)
async def test_what_would_work_no_more_is_refused_and_nothing_happens(tmp_path: Path, made: str, names: str) -> None:
    url = await prepared(tmp_path)
    await ask(url, made)
    state = family()
    parent = state[f"{APP}.Parent"]
    gone = parent.with_fields({"id": parent.fields["id"]})
    step = the_rebuild(LONGER)
    columns = {"id": "id"}
    after = Renderer().render(state.put(gone), gone.label).table
    async with Database(url) as database, database.connection() as connection:
        with pytest.raises(MigrationFailed, match=names):
            await rebuild(connection, RebuildTable(before=step.before, after=after, columns=columns))
    assert await ask(url, "SELECT id, name FROM shop_parent") == [(1, "a"), (5, "b")]


async def test_columns_that_nobody_declared_are_not_lost(tmp_path: Path) -> None:
    url = await prepared(tmp_path)
    await ask(url, "ALTER TABLE shop_parent ADD COLUMN secret TEXT DEFAULT 'kept'")
    with pytest.raises(MigrationError, match=r"know nothing of.* secret;"):
        await migrate(url, "sqlite", family(), [LONGER])
    assert await ask(url, "SELECT secret FROM shop_parent") == [("kept",), ("kept",)]


async def test_row_ids_stay(tmp_path: Path) -> None:
    url = await prepared(tmp_path)
    await migrate(url, "sqlite", family(), [ops.AlterField("Word", "said", orm.CharField(max_length=90))])
    assert await ask(url, "SELECT rowid, word FROM shop_word ORDER BY word") == [(7, "x"), (3, "z")]


async def test_a_table_that_counts_goes_on_counting(tmp_path: Path) -> None:
    url = await prepared(tmp_path)
    await ask(
        url, "PRAGMA foreign_keys = OFF", "DROP TABLE shop_parent",
        "CREATE TABLE shop_parent (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, name VARCHAR(20) NOT NULL)",
        "INSERT INTO shop_parent (id, name) VALUES (1, 'a'), (5, 'b'), (90, 'c')",
        "DELETE FROM shop_parent WHERE id = 90",
    )  # fmt: skip
    await migrate(url, "sqlite", family(), [LONGER])
    await ask(url, "INSERT INTO shop_parent (name) VALUES ('d')")
    assert await ask(url, "SELECT max(id) FROM shop_parent") == [(91,)]


async def test_a_table_without_row_ids_stays_one(tmp_path: Path) -> None:
    url = await prepared(tmp_path)
    await ask(
        url, "DROP TABLE shop_word",
        "CREATE TABLE shop_word (word VARCHAR(9) PRIMARY KEY, said VARCHAR(9) NOT NULL) WITHOUT ROWID",
        "INSERT INTO shop_word VALUES ('x', 'y')",
    )  # fmt: skip
    await migrate(url, "sqlite", family(), [ops.AlterField("Word", "said", orm.CharField(max_length=90))])
    assert await ask(url, "SELECT word FROM shop_word") == [("x",)]
    with pytest.raises(Exception, match="no such column: rowid"):
        await ask(url, "SELECT rowid FROM shop_word")


async def test_a_row_that_would_refer_to_nothing_stops_it(tmp_path: Path) -> None:
    url = await prepared(tmp_path)
    state = family()
    child = state[f"{APP}.Child"]
    loose = state.put(
        child.with_fields({**child.fields, "parent": orm.ForeignKey(f"{APP}.Parent", db_constraint=False)})
    )
    await migrate(url, "sqlite", state, [ops.AlterField("Child", "parent", loose[child.label].fields["parent"])])
    await ask(url, "INSERT INTO shop_child (id, parent_id) VALUES (9, 99)")
    back = ops.AlterField("Child", "parent", child.fields["parent"])
    steps = steps_between(loose, state, back, "sqlite")
    async with Database(url) as database, database.connection() as connection:
        (step,) = steps
        assert isinstance(step, RebuildTable)
        with pytest.raises(MigrationFailed, match="row 9 of shop_child"):
            await rebuild(connection, step)
        await connection.execute("DELETE FROM shop_child WHERE id = 9")
        await run_steps(connection, "sqlite", steps)


def test_its_statements_can_be_shown_without_a_database() -> None:
    statements = rebuild_statements(the_rebuild(LONGER))
    assert [statement.split("(")[0].strip() for statement in statements] == [
        "CREATE TABLE covet_new_shop_parent",
        "INSERT INTO covet_new_shop_parent",
        "DROP TABLE shop_parent",
        "ALTER TABLE covet_new_shop_parent RENAME TO shop_parent",
    ]


def test_what_sqlite_can_alter_is_altered() -> None:
    state = family()
    found: list[str] = []
    for operation in (
        ops.AddField("Child", "note", orm.TextField(null=True)),
        ops.AddField("Child", "count", orm.IntegerField(db_default=3, db_index=True)),
        ops.AddField("Child", "other", orm.ForeignKey(f"{APP}.Parent", null=True, related_name="+")),
        ops.RenameField("Child", "note", "text"),
        ops.RemoveField("Child", "text"),
        ops.AddIndex("Child", orm.Index("count", "parent")),
    ):
        after = operation.apply(state, APP)
        for step in steps_between(state, after, operation, "sqlite"):
            assert not isinstance(step, RebuildTable)
            found.append(str(getattr(step, "sql", "")))
        state = after
    assert found[0] == "ALTER TABLE shop_child ADD COLUMN note TEXT"
    assert found[-1] == "CREATE INDEX shop_child_count_parent_id_idx ON shop_child (count, parent_id)"
