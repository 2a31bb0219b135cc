"""What the statements of each database are, and what they keep from happening."""

from __future__ import annotations

from typing import Any

import pytest
from tests.migrations.migrating import APP, create, migrate, model, steps_between
from tests.migrations.schema_snapshots import snapshot
from tests.services.databases import Database, ask
from tests.services.postgresql import PostgreSQL

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.actions.actions import Action, AddConstraint, DropConstraint, TableAction
from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationError
from covet_migrate.operations import Change, Operation
from covet_migrate.state import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Statement
from covet_orm import Q

pytestmark = pytest.mark.anyio


def thing(**options: Any) -> State:
    fields: dict[str, Any] = {
        "id": orm.BigAutoField(primary_key=True),
        "name": orm.CharField(max_length=20),
        "size": orm.IntegerField(null=True),
    }
    made = model("Thing", fields, **options)
    return State({made.label: made})


def sql_of(state: State, operation: Operation, kind: str, *, backward: bool = False) -> list[str]:
    after = operation.apply(state, APP)
    states = (after, state) if backward else (state, after)
    steps = steps_between(*states, operation, kind, backward=backward)
    return [step.sql for step in steps if isinstance(step, Statement)]


ROWS = ("INSERT INTO shop_thing (id, name, size) VALUES (1, 'a long name', 7), (2, 'b', NULL)",)


def test_an_index_is_created_concurrently_outside_of_a_transaction() -> None:
    state = thing()
    operation = ops.AddIndex("Thing", orm.Index("size", name="by_size"), concurrently=True)
    after = operation.apply(state, APP)
    steps = steps_between(state, after, operation, "postgresql")
    assert [(getattr(step, "sql", ""), step.transactional) for step in steps] == [
        ("DROP INDEX CONCURRENTLY IF EXISTS by_size", False),
        ("CREATE INDEX CONCURRENTLY by_size ON shop_thing (size)", False),
    ]
    assert sql_of(state, operation, "postgresql", backward=True) == ["DROP INDEX CONCURRENTLY IF EXISTS by_size"]
    for kind in ("mariadb", "sqlite"):
        assert sql_of(state, operation, kind) == ["CREATE INDEX by_size ON shop_thing (size)"]


async def test_what_a_concurrent_creation_left_behind_is_made_anew(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    state = thing()
    await create(url, state)
    await ask(url, "INSERT INTO shop_thing (name, size) VALUES ('a', 1), ('b', 1)")
    operation = ops.AddIndex("Thing", orm.Index("size", name="by_size", unique=True), concurrently=True)
    with pytest.raises(orm.UniqueViolation):
        await migrate(url, "postgresql", state, [operation])
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_size'::regclass"
    assert await ask(url, valid) == [(False,)]
    await ask(url, "UPDATE shop_thing SET size = id")
    await migrate(url, "postgresql", state, [operation])
    assert await ask(url, valid) == [(True,)]


async def test_a_check_that_is_not_validated_holds_for_new_rows_and_is_validated_later(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    state = thing()
    await create(url, state)
    await ask(url, *ROWS)
    check = ops.AddConstraint("Thing", orm.CheckConstraint(Q(size__gt=10), name="large"), validate=False)
    await migrate(url, "postgresql", state, [check])
    with pytest.raises(Exception, match="large"):
        await ask(url, "INSERT INTO shop_thing (name, size) VALUES ('c', 1)")
    after = check.apply(state, APP)
    validate = ops.ValidateConstraint("Thing", "large")
    with pytest.raises(orm.CheckViolation):
        await migrate(url, "postgresql", after, [validate])
    await ask(url, "UPDATE shop_thing SET size = 11")
    await migrate(url, "postgresql", after, [validate])
    assert (await snapshot(url))["shop_thing"]["constraint large"].endswith("| true")
    assert sql_of(after, validate, "postgresql", backward=True) == sql_of(after, validate, "sqlite") == []


async def test_a_text_is_never_cut(server: Database) -> None:
    """`USING name::varchar(5)` would cut it without a word. SQLite knows no lengths, and keeps it."""
    url = server.empty_database("test")
    state = thing()
    await create(url, state)
    await ask(url, *ROWS)
    shorter = ops.AlterField("Thing", "name", orm.CharField(max_length=5))
    if server.kind == "sqlite":
        await migrate(url, server.kind, state, [shorter])
    else:
        with pytest.raises(orm.DatabaseError):
            await migrate(url, server.kind, state, [shorter])
    assert await ask(url, "SELECT name FROM shop_thing WHERE id = 1") == [("a long name",)]


async def test_rows_are_filled_where_a_check_of_keys_waits(postgresql: PostgreSQL) -> None:
    """ALTER TABLE refuses while a deferred check of the rows that were updated waits."""
    url = postgresql.empty_database("test")
    fields: dict[str, Any] = {
        "id": orm.BigAutoField(primary_key=True),
        "up": orm.ForeignKey("self", null=True, deferrable="deferred"),
    }
    made = model("Node", fields)
    state = State({made.label: made})
    await create(url, state)
    await ask(url, "INSERT INTO shop_node (id) VALUES (1), (2)")
    operation = ops.AlterField("Node", "up", orm.ForeignKey("self", deferrable="deferred"), fill=1)
    await migrate(url, "postgresql", state, [operation])
    assert await ask(url, "SELECT id, up_id FROM shop_node ORDER BY id") == [(1, 1), (2, 1)]


async def test_a_key_that_counts_goes_on_where_it_was(server: Database) -> None:
    url = server.empty_database("test")
    state = thing()
    await create(url, state)
    await ask(url, *ROWS)
    plain = ops.AlterField("Thing", "id", orm.BigIntegerField(primary_key=True))
    counting = ops.AlterField("Thing", "id", orm.AutoField(primary_key=True))
    await migrate(url, server.kind, state, [plain, counting, ops.RenameModel("Thing", "Item")])
    await ask(url, "INSERT INTO shop_item (name) VALUES ('c')")
    assert await ask(url, "SELECT max(id) FROM shop_item") == [(3,)]
    if server.kind == "postgresql":
        assert await ask(url, "SELECT pg_get_serial_sequence('shop_item', 'id')") == [("public.shop_item_id_seq",)]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_a_constraint_that_has_to_be_checked_cannot_wait(kind: str) -> None:
    with pytest.raises(MigrationError, match="only a CheckConstraint"):
        ops.AddConstraint("Thing", orm.UniqueConstraint("name"), validate=False)


def test_mysql_drops_checks_to_rename_a_column() -> None:
    state = thing(constraints=(orm.CheckConstraint(Q(size__gt=10), name="large"),))
    assert sql_of(state, ops.RenameField("Thing", "size", "order"), "mysql") == [
        "ALTER TABLE shop_thing DROP CONSTRAINT large, RENAME COLUMN size TO `order`, "
        "ADD CONSTRAINT large CHECK (`order` > 10)"
    ]


def test_a_name_in_a_literal_is_no_column() -> None:
    """The check is renamed in no way, though its literal is the name that the column had."""
    state = thing(constraints=(orm.CheckConstraint(~Q(name="size"), name="not_size"),))
    assert sql_of(state, ops.RenameField("Thing", "size", "extent"), "postgresql") == [
        "ALTER TABLE shop_thing RENAME COLUMN size TO extent"
    ]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_what_refers_to_a_renamed_model_keeps_its_foreign_keys(kind: str) -> None:
    state = thing()
    other = model(
        "Part",
        {
            "id": orm.BigAutoField(primary_key=True),
            "thing": orm.ForeignKey(f"{APP}.Thing"),
            "more": orm.ManyToManyField(f"{APP}.Thing", related_name="+"),
        },
    )
    state = state.put(other)
    operation = ops.RenameModel("Thing", "Item")
    after = operation.apply(state, APP)
    actions = list(operation.actions(Change(APP, state, after, kind, Renderer())))
    assert not any(isinstance(one, (AddConstraint, DropConstraint)) for one in actions)
    assert {one.table.name for one in actions if isinstance(one, TableAction)} == {"shop_item", "shop_part_more"}


def test_what_is_no_database_or_no_action_is_said() -> None:
    with pytest.raises(MigrationError, match="oracle"):
        steps_of([], "oracle")
    with pytest.raises(MigrationError, match="is no action that sqlite has statements for"):
        steps_of([Action()], "sqlite")


def test_names_that_are_not_there_are_said_with_the_nearest() -> None:
    state = thing(indexes=(orm.Index("size", name="by_size"), orm.Index("name", "size")))
    with pytest.raises(MigrationError, match=r"no index 'by_sise'.*by_size"):
        ops.RemoveIndex("Thing", "by_sise").apply(state, APP)
    with pytest.raises(MigrationError, match="no constraint 'large'"):
        ops.RemoveConstraint("Thing", "large").apply(state, APP)
    with pytest.raises(MigrationError, match="already"):
        ops.AddIndex("Thing", orm.Index("size", name="by_size")).apply(state, APP)
    with pytest.raises(MigrationError, match="already"):
        ops.RenameIndex("Thing", "shop_thing_name_size_idx", "by_size").apply(state, APP)


async def test_views_are_created_and_dropped(server: Database) -> None:
    url = server.empty_database("test")
    state = thing()
    await create(url, state)
    await ask(url, *ROWS)
    operations = [
        ops.CreateView("sized", "SELECT name FROM shop_thing WHERE size > 1"),
        ops.CreateView("kept", {server.kind: "SELECT name FROM shop_thing"}, materialized=True),
        ops.CreateView("elsewhere", {"mysql" if server.kind != "mariadb" else "sqlite": "nothing"}),
    ]
    await migrate(url, server.kind, state, operations)
    assert await ask(url, "SELECT name FROM sized") == [("a long name",)]
    assert len(await ask(url, "SELECT name FROM kept")) == 2
    await migrate(url, server.kind, state, [ops.DropView("sized", operations[0].query)])
    await migrate(url, server.kind, state, [ops.DropView("sized", operations[0].query)], backward=True)
    await migrate(url, server.kind, state, operations, backward=True)
    with pytest.raises(Exception, match="sized"):
        await ask(url, "SELECT name FROM sized")
    with pytest.raises(MigrationError, match="oracle"):
        ops.CreateView("v", {"oracle": "SELECT 1"})


async def test_extensions_collations_and_sequences(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    operations: list[Operation] = [
        ops.CreateSequence("order", start=5, increment=2),
        ops.CreateCollation("by_byte", "C", provider="libc"),
    ]
    await migrate(url, "postgresql", State(), operations)
    assert await ask(url, """SELECT nextval('"order"')""", """SELECT nextval('"order"')""") == [(7,)]
    assert await ask(url, "SELECT 'a' < 'B' COLLATE by_byte") == [(False,)]
    await migrate(url, "postgresql", State(), operations, backward=True)
    assert await ask(url, "SELECT count(*) FROM pg_class WHERE relname = 'order'") == [(0,)]
    any_case = ops.CreateCollation("any_case", "und-u-ks-level2", deterministic=False)
    assert sql_of(State(), any_case, "postgresql") == [
        "CREATE COLLATION any_case (locale = 'und-u-ks-level2', provider = icu, deterministic = false)"
    ]
    extension = ops.CreateExtension("uuid-ossp")
    assert sql_of(State(), extension, "postgresql") == ['CREATE EXTENSION IF NOT EXISTS "uuid-ossp"']
    assert sql_of(State(), extension, "postgresql", backward=True) == ['DROP EXTENSION IF EXISTS "uuid-ossp"']
    assert sql_of(State(), extension, "sqlite") == []
