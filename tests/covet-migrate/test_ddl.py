"""Each operation on each database, with rows in the tables: forward, the schema is that of creating the state after it
from nothing; backward, that of the state before; and the rows stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.migrations.migrating import APP, create, migrate, model, state_after
from tests.migrations.schema_snapshots import Snapshot, snapshot, table_rows
from tests.services.databases import Database, ask

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.operations import Operation
from covet_migrate.state import State
from covet_orm import F, Q
from covet_orm.expressions.functions import Now

pytestmark = pytest.mark.anyio


def people() -> State:
    """Three models with rows to come: authors, tags, and books of authors with tags."""
    models = [
        model("Author", {"id": orm.BigAutoField(primary_key=True), "name": orm.CharField(max_length=40)}),
        model("Tag", {"id": orm.AutoField(primary_key=True), "word": orm.CharField(max_length=20, unique=True)}),
        model(
            "Book",
            {
                "id": orm.BigAutoField(primary_key=True),
                "title": orm.CharField(max_length=50),
                "pages": orm.IntegerField(db_index=True),
                "price": orm.DecimalField(max_digits=8, decimal_places=2, null=True),
                "code": orm.CharField(max_length=20, null=True),
                "author": orm.ForeignKey(f"{APP}.Author"),
                "parent": orm.ForeignKey("self", null=True, on_delete=orm.SET_NULL),
                "tags": orm.ManyToManyField(f"{APP}.Tag"),
            },
            indexes=(orm.Index("title", "pages"), orm.Index("-pages", name="book_pages_down")),
            constraints=(
                orm.CheckConstraint(Q(pages__gt=0)),
                orm.CheckConstraint(Q(pages__lt=5000), name="not_long"),
                orm.UniqueConstraint("author", "title"),
            ),
            unique_together=(("title", "code"),),
            comment="What is read",
        ),
    ]
    return State({one.label: one for one in models})


ROWS = (
    "INSERT INTO shop_author (id, name) VALUES (1, 'Ada'), (2, 'Bo')",
    "INSERT INTO shop_tag (id, word) VALUES (1, 'old'), (2, 'new')",
    "INSERT INTO shop_book (id, title, pages, price, code, author_id, parent_id) VALUES "
    "(1, 'One', 10, 4, '11', 1, NULL), (2, 'Two', 20, NULL, NULL, 1, 1), (7, 'Three', 30, 3, '33', 2, 2)",
    "INSERT INTO shop_book_tags (id, book_id, tag_id) VALUES (1, 1, 1), (2, 1, 2), (3, 7, 1)",
)
TABLES = {"shop_author": 2, "shop_tag": 2, "shop_book": 3, "shop_book_tags": 3}


@dataclass
class Case:
    """Operations, and what else the names of tables are afterwards; None for one that is not there."""

    operations: Sequence[Operation]
    tables: Mapping[str, str | None] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[Operation] = ()
    lost: bool = False
    """Whether the way back cannot give the rows what they had."""


def changed(name: str, **options: Any) -> Operation:
    """A field of Book with other options."""
    args, given = people()[f"{APP}.Book"].fields[name].declared
    return ops.AlterField("Book", name, type(people()[f"{APP}.Book"].fields[name])(*args, **{**given, **options}))


def key(field: Any, **options: Any) -> Operation:
    return ops.AlterField("Author", "id", field(primary_key=True, **options))


total = orm.GeneratedField(F("pages") * 2, orm.IntegerField())

CASES: dict[str, Callable[[], Case]] = {
    "create_model": lambda: Case([
        ops.CreateModel("Shelf", {"id": orm.BigAutoField(primary_key=True), "book": orm.ForeignKey(f"{APP}.Book")})
    ]),
    "delete_model": lambda: Case(
        [ops.RemoveField("Book", "tags"), ops.DeleteModel("Tag")],
        tables={"shop_tag": None, "shop_book_tags": None}, lost=True,
    ),
    "rename_model": lambda: Case(
        [ops.RenameModel("Book", "Work")], tables={"shop_book": "shop_work", "shop_book_tags": "shop_work_tags"},
        columns={"book_id": "work_id"},
    ),
    "rename_referred_model": lambda: Case([ops.RenameModel("Author", "Person")], tables={"shop_author": "shop_person"}),
    "rename_tag": lambda: Case(
        [ops.RenameModel("Tag", "Label")], tables={"shop_tag": "shop_label"}, columns={"tag_id": "label_id"}
    ),
    "alter_model_table": lambda: Case(
        [ops.AlterModelTable("Book", "order")], tables={"shop_book": "order", "shop_book_tags": "order_tags"}
    ),
    "table_comment": lambda: Case([ops.AlterModelTableComment("Book", "It's 100 %")]),
    "no_table_comment": lambda: Case([ops.AlterModelTableComment("Book", None)]),
    "unique_together": lambda: Case([ops.AlterUniqueTogether("Book", [("code", "pages")])]),
    "add_null": lambda: Case([ops.AddField("Book", "note", orm.TextField(null=True, comment="it's % so"))]),
    "add_db_default": lambda: Case([ops.AddField("Book", "state", orm.CharField(max_length=9, db_default="it's %"))]),
    "add_default": lambda: Case([ops.AddField("Book", "state", orm.CharField(max_length=9, default="it's %s"))]),
    "add_fill": lambda: Case([ops.AddField("Book", "count", orm.IntegerField(db_index=True), fill=4)]),
    "add_fill_and_db_default": lambda: Case([ops.AddField("Book", "count", orm.IntegerField(db_default=3), fill=4)]),
    "add_now": lambda: Case([ops.AddField("Book", "at", orm.DateTimeField(db_default=Now()))]),
    "add_boolean": lambda: Case([ops.AddField("Book", "sold", orm.BooleanField(default=False))]),
    "add_json": lambda: Case([ops.AddField("Book", "data", orm.JSONField(default=dict))]),
    "add_foreign_key": lambda: Case([ops.AddField("Book", "editor", orm.ForeignKey(
        f"{APP}.Author", null=True, on_delete=orm.RESTRICT, related_name="edited"))]),
    "add_foreign_key_filled": lambda: Case([ops.AddField("Book", "editor", orm.ForeignKey(
        f"{APP}.Author", related_name="edited"), fill=2)]),
    "add_one_to_one": lambda: Case([ops.AddField("Book", "twin", orm.OneToOneField("self", null=True))]),
    "add_many_to_many": lambda: Case([
        ops.AddField("Book", "readers", orm.ManyToManyField(f"{APP}.Author", related_name="+"))]),
    "add_unique": lambda: Case([ops.AddField("Book", "isbn", orm.CharField(max_length=20, unique=True, null=True))]),
    "add_positive": lambda: Case([ops.AddField("Book", "stock", orm.PositiveIntegerField(default=0))]),
    "add_stored": lambda: Case([ops.AddField("Book", "twice", total)]),
    "remove_field": lambda: Case(
        [ops.AlterModelOptions("Book", unique_together=()), ops.RemoveField("Book", "code")], lost=True),
    "remove_foreign_key": lambda: Case([ops.RemoveField("Book", "parent")], lost=True),
    "remove_indexed": lambda: Case(
        [
            ops.AlterModelOptions("Book", indexes=(), constraints=()),
            ops.RemoveField("Book", "pages"),
            ops.RemoveField("Book", "author"),
        ],
        before=[changed("pages", default=7), changed("author", default=1)], lost=True,
    ),
    "rename_field": lambda: Case([ops.RenameField("Book", "pages", "order")], columns={"pages": "order"}),
    "rename_foreign_key": lambda: Case(
        [ops.RenameField("Book", "author", "writer")], columns={"author_id": "writer_id"}),
    "rename_key": lambda: Case([ops.RenameField("Author", "id", "number")], columns={"id": "number"}),
    "rename_many_to_many": lambda: Case(
        [ops.RenameField("Book", "tags", "words")], tables={"shop_book_tags": "shop_book_words"}),
    "db_column": lambda: Case([changed("pages", db_column="Number Of Pages")], columns={"pages": "Number Of Pages"}),
    "longer": lambda: Case([changed("title", max_length=200)]),
    "text": lambda: Case([ops.AlterField("Book", "price", orm.TextField(null=True))], lost=True),
    "text_to_number": lambda: Case([
        ops.AlterUniqueTogether("Book", []), ops.AlterField("Book", "code", orm.IntegerField(null=True))], lost=True),
    "wider_number": lambda: Case([ops.AlterField("Book", "pages", orm.BigIntegerField(db_index=True))]),
    "number_to_boolean": lambda: Case(
        [ops.AlterModelOptions("Book", constraints=()),
         ops.AlterField("Book", "pages", orm.BooleanField(db_index=True))],
        before=[ops.RunSQL("UPDATE shop_book SET pages = 1", "SELECT 1")], lost=True),
    "not_null": lambda: Case([ops.AlterField("Book", "code", orm.CharField(max_length=20), fill="none")], lost=True),
    "not_null_of_another_type": lambda: Case([ops.AlterField("Book", "price", orm.IntegerField(), fill=0)], lost=True),
    "null": lambda: Case([changed("pages", null=True)]),
    "db_default": lambda: Case([changed("pages", db_default=5)]),
    "db_default_of_another_type": lambda: Case([
        changed("code", db_default="7"), ops.AlterUniqueTogether("Book", []),
        ops.AlterField("Book", "code", orm.BigIntegerField(null=True, db_default=8))], lost=True),
    "comment": lambda: Case([changed("pages", comment="how \\ many's")]),
    "unique": lambda: Case([changed("pages", unique=True, db_index=False)]),
    "no_index": lambda: Case([changed("pages", db_index=False)]),
    "no_index_of_foreign_key": lambda: Case([changed("parent", db_index=False)]),
    "on_delete": lambda: Case([changed("author", on_delete=orm.RESTRICT)]),
    "no_constraint": lambda: Case([changed("author", db_constraint=False)]),
    "no_constraint_without_index": lambda: Case(
        [changed("parent", db_index=False, db_constraint=False)], before=[changed("parent", db_index=False)]),
    "stored_renamed_and_changed": lambda: Case(
        [ops.AlterField("Book", "twice", orm.GeneratedField(F("pages") * 3, orm.IntegerField(), db_column="thrice"))],
        before=[ops.AddField("Book", "twice", total)]),
    "one_to_one": lambda: Case([ops.AlterField("Book", "parent", orm.OneToOneField("self", null=True))]),
    "foreign_key_not_null": lambda: Case([ops.AlterField(
        "Book", "parent", orm.ForeignKey("self"), fill=1)], lost=True),
    "key_smaller": lambda: Case([key(orm.AutoField)]),
    "key_not_counting": lambda: Case([key(orm.BigIntegerField)]),
    "key_of_text": lambda: Case([key(orm.CharField, max_length=30)], lost=True),
    "key_of_links": lambda: Case([ops.AlterField("Tag", "id", orm.BigAutoField(primary_key=True))]),
    "key_of_itself": lambda: Case([ops.AlterField("Book", "id", orm.AutoField(primary_key=True))]),
    "composite_key": lambda: Case(
        [ops.AlterField("Tag", "word", orm.CharField(max_length=20, primary_key=True))],
        before=[ops.RemoveField("Book", "tags"), ops.AlterField("Tag", "id", orm.IntegerField(primary_key=True))],
        tables={"shop_book_tags": None}),
    "stored_changed": lambda: Case(
        [ops.AlterField("Book", "twice", orm.GeneratedField(F("pages") * 3, orm.BigIntegerField(), db_index=True))],
        before=[ops.AddField("Book", "twice", orm.GeneratedField(F("pages") * 2, orm.IntegerField(), db_index=True))],
        columns={"twice": "computed otherwise"}),
    "stored_to_plain": lambda: Case(
        [ops.AlterField("Book", "twice", orm.IntegerField(null=True))], before=[ops.AddField("Book", "twice", total)]),
    "type_under_stored": lambda: Case(
        [ops.AlterField("Book", "pages", orm.BigIntegerField(db_index=True))],
        before=[ops.AddField("Book", "twice", total), ops.AddIndex("Book", orm.Index("twice", "pages"))]),
    "rename_under_stored": lambda: Case(
        [ops.RenameField("Book", "pages", "leaves")], before=[ops.AddField("Book", "twice", total)],
        columns={"pages": "leaves"}),
    "add_index": lambda: Case([ops.AddIndex("Book", orm.Index("code", "-price"))]),
    "add_index_concurrently": lambda: Case([ops.AddIndex("Book", orm.Index("code"), concurrently=True)]),
    "remove_index": lambda: Case([ops.RemoveIndex("Book", "book_pages_down")]),
    "remove_index_without_name": lambda: Case([ops.RemoveIndex("Book", "shop_book_title_pages_idx")]),
    "remove_index_concurrently": lambda: Case([ops.RemoveIndex("Book", "book_pages_down", concurrently=True)]),
    "rename_index": lambda: Case([ops.RenameIndex("Book", "shop_book_title_pages_idx", "order")]),
    "add_check": lambda: Case([ops.AddConstraint("Book", orm.CheckConstraint(~Q(title="it's %")))]),
    "add_unique_constraint": lambda: Case([
        ops.AddConstraint("Book", orm.UniqueConstraint("pages", "price", name="once"))]),
    "remove_check": lambda: Case([ops.RemoveConstraint("Book", "not_long")]),
    "remove_unique_of_foreign_key": lambda: Case(
        [ops.RemoveConstraint("Book", "shop_book_author_id_title_key")], before=[changed("author", db_index=False)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_forward_and_backward_the_schema_is_that_of_the_state(name: str, server: Database) -> None:
    case = CASES[name]()
    url = server.empty_database("test")
    first = people()
    before = state_after(first, case.before)
    after = state_after(before, case.operations)
    expected = await created(server, after)
    await create(url, first)
    await ask(url, *ROWS)
    await migrate(url, server.kind, first, case.before)
    start = await snapshot(url)
    rows = await contents(url, start)

    await migrate(url, server.kind, before, case.operations)
    assert await snapshot(url) == expected
    there = await contents(url, expected)
    for table, count in TABLES.items():
        now = case.tables.get(table, table)
        if now is not None:
            assert len(there[now]["*"]) == count
            kept(rows[table], there[now], case.columns)

    await migrate(url, server.kind, before, case.operations, backward=True)
    assert await snapshot(url) == (await created(server, before) if case.before else start)
    back = await contents(url, start)
    for table in TABLES:
        if case.tables.get(table, table) is not None:
            assert len(back[table]["*"]) == TABLES[table]
            if not case.lost:
                assert back[table] == rows[table]


async def created(server: Database, state: State) -> Snapshot:
    """The schema of a state that was created from nothing."""
    url = server.empty_database("expected")
    await create(url, state)
    return await snapshot(url)


Contents = dict[str, dict[str, list[Any]]]


async def contents(url: str, schema: Snapshot) -> Contents:
    """By table, by column, the values; by `*` those of the key."""
    found: Contents = {}
    for table, parts in schema.items():
        names = [_column(part) for part in parts]
        columns = sorted(name for name in names if name is not None)
        first = next(name for name in ("id", "number", "word") if name in columns)
        rows = await table_rows(url, table, columns, first)
        found[table] = {name: [row[position] for row in rows] for position, name in enumerate(columns)}
        found[table]["*"] = found[table][first]
    return found


def _column(part: str) -> str | None:
    if part.startswith("column "):
        return part.removeprefix("column ")
    return part.split("`")[1] if part.startswith("`") else None


def kept(before: dict[str, list[Any]], after: dict[str, list[Any]], renamed: Mapping[str, str]) -> None:
    """Columns that are there before and after have the same values, unless they are of another type, or were NULL."""
    for name, values in before.items():
        now = after.get(renamed.get(name, name))
        if now is not None:
            for one, other in zip(values, now, strict=True):
                assert one is None or str(one) == str(other) or float(one) == float(other)
