"""One operation for each kind of change of a schema, with the models that it is of: for tests of what changes lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.migrations.migrating import APP, model

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.operations import Operation
from covet_migrate.state import State
from covet_orm import F, Q
from covet_orm.expressions.functions import Now, RandomUUID

__all__ = ["CHANGES", "ROWS", "SchemaChange", "changed", "shop"]


@dataclass
class SchemaChange:
    """An operation.

    Attributes:
        operation: the operation.
        before: operations that come first.
        kinds: the databases that can do it.
    """

    operation: Operation
    before: Sequence[Operation] = ()
    kinds: Sequence[str] = ("postgresql", "mariadb", "sqlite")


def shop() -> State:
    """Authors, and books of theirs."""
    models = [
        model("Author", {"id": orm.BigAutoField(primary_key=True), "name": orm.CharField(max_length=40)}),
        model(
            "Book",
            {
                "id": orm.BigAutoField(primary_key=True),
                "title": orm.CharField(max_length=50),
                "pages": orm.IntegerField(),
                "price": orm.DecimalField(max_digits=8, decimal_places=2, null=True),
                "code": orm.CharField(max_length=20, null=True),
                "note": orm.TextField(null=True),
                "at": orm.DateTimeField(null=True),
                "author": orm.ForeignKey(f"{APP}.Author"),
                "parent": orm.ForeignKey("self", null=True, on_delete=orm.SET_NULL),
            },
            indexes=(orm.Index("-pages", name="book_pages_down"),),
            constraints=(
                orm.CheckConstraint(Q(pages__lt=5000), name="not_long"),
                orm.UniqueConstraint("title", "code", name="book_once"),
            ),
        ),
    ]
    return State({one.label: one for one in models})


ROWS = (
    "INSERT INTO shop_author (id, name) VALUES (1, 'Ada'), (2, 'Bo')",
    "INSERT INTO shop_book (id, title, pages, price, code, note, author_id, parent_id) VALUES "
    "(1, 'One', 10, 4, '11', 'x', 1, NULL), (2, 'Two', 20, 1, '22', 'y', 1, 1), (7, 'Three', 30, 3, '33', 'z', 2, 2)",
)


def changed(name: str, **options: Any) -> Operation:
    """A field of Book with other options."""
    field = shop()[f"{APP}.Book"].fields[name]
    args, given = field.declared
    return ops.AlterField("Book", name, type(field)(*args, **{**given, **options}))


def add(name: str, field: Any, **more: Any) -> Operation:
    return ops.AddField("Book", name, field, **more)


POSTGRESQL = ("postgresql",)
twice = orm.GeneratedField(F("pages") * 2, orm.IntegerField())

CHANGES: dict[str, Callable[[], SchemaChange]] = {
    "create_model": lambda: SchemaChange(
        ops.CreateModel(
            "Shelf", {"id": orm.BigAutoField(primary_key=True, comment="number"), "book": orm.ForeignKey(f"{APP}.Book")}
        )
    ),
    "delete_model": lambda: SchemaChange(ops.DeleteModel("Book")),
    "rename_model": lambda: SchemaChange(ops.RenameModel("Book", "Work")),
    "table_comment": lambda: SchemaChange(ops.AlterModelTableComment("Book", "What is read")),
    "add_null": lambda: SchemaChange(add("state", orm.TextField(null=True, comment="now"))),
    "add_db_default": lambda: SchemaChange(add("state", orm.CharField(max_length=9, db_default="it's (1)"))),
    "add_fill": lambda: SchemaChange(add("count", orm.IntegerField(), fill=4)),
    "add_now": lambda: SchemaChange(add("made", orm.DateTimeField(db_default=Now()))),
    "add_volatile": lambda: SchemaChange(add("key", orm.UUIDField(db_default=RandomUUID()))),
    "add_stored": lambda: SchemaChange(add("twice", twice)),
    "add_checked": lambda: SchemaChange(add("stock", orm.PositiveIntegerField(default=0))),
    "add_indexed": lambda: SchemaChange(add("state", orm.IntegerField(null=True, db_index=True))),
    "add_unique": lambda: SchemaChange(add("isbn", orm.CharField(max_length=20, null=True, unique=True))),
    "add_foreign_key": lambda: SchemaChange(
        add("editor", orm.ForeignKey(f"{APP}.Author", null=True, related_name="edited"))
    ),
    "add_many_to_many": lambda: SchemaChange(add("readers", orm.ManyToManyField(f"{APP}.Author", related_name="+"))),
    "remove_field": lambda: SchemaChange(ops.RemoveField("Book", "note")),
    "remove_foreign_key": lambda: SchemaChange(ops.RemoveField("Book", "author")),
    "rename_field": lambda: SchemaChange(ops.RenameField("Book", "note", "remark")),
    "longer": lambda: SchemaChange(changed("code", max_length=60)),
    "longer_than_a_byte_tells": lambda: SchemaChange(changed("code", max_length=200)),
    "longer_than_a_byte_tells_of_long_ones": lambda: SchemaChange(
        changed("code", max_length=200), [changed("code", max_length=40)]
    ),
    "longer_of_long_ones": lambda: SchemaChange(changed("code", max_length=200), [changed("code", max_length=100)]),
    "shorter": lambda: SchemaChange(changed("code", max_length=10)),
    "to_text": lambda: SchemaChange(
        ops.AlterField("Book", "code", orm.TextField(null=True)), [ops.RemoveConstraint("Book", "book_once")]
    ),
    "more_digits": lambda: SchemaChange(changed("price", max_digits=12)),
    "other_places": lambda: SchemaChange(changed("price", decimal_places=4)),
    "without_zone": lambda: SchemaChange(changed("at", timezone=False)),
    "wider_number": lambda: SchemaChange(ops.AlterField("Book", "pages", orm.BigIntegerField())),
    "text_to_number": lambda: SchemaChange(
        ops.AlterField("Book", "code", orm.IntegerField(null=True)), [ops.RemoveConstraint("Book", "book_once")]
    ),
    "wider_foreign_key": lambda: SchemaChange(
        ops.AlterField("Author", "id", orm.BigAutoField(primary_key=True)),
        [ops.AlterField("Author", "id", orm.AutoField(primary_key=True))],
    ),
    "null": lambda: SchemaChange(changed("pages", null=True)),
    "not_null": lambda: SchemaChange(changed("note", null=False)),
    "not_null_filled": lambda: SchemaChange(
        ops.AlterField("Book", "note", orm.TextField(), fill="none"),
        [ops.RunSQL("UPDATE shop_book SET note = NULL WHERE id = 7", ops.RunSQL.noop)],
    ),
    "db_default": lambda: SchemaChange(changed("pages", db_default=5)),
    "no_db_default": lambda: SchemaChange(changed("pages"), [changed("pages", db_default=5)]),
    "comment": lambda: SchemaChange(changed("pages", comment="how many")),
    "counting": lambda: SchemaChange(
        ops.AlterField("Author", "id", orm.BigAutoField(primary_key=True)),
        [ops.AlterField("Author", "id", orm.BigIntegerField(primary_key=True))],
    ),
    "not_counting": lambda: SchemaChange(ops.AlterField("Author", "id", orm.BigIntegerField(primary_key=True))),
    "unique": lambda: SchemaChange(changed("pages", unique=True)),
    "no_foreign_key": lambda: SchemaChange(changed("author", db_constraint=False)),
    "other_on_delete": lambda: SchemaChange(changed("author", on_delete=orm.RESTRICT)),
    "stored_to_plain": lambda: SchemaChange(
        ops.AlterField("Book", "twice", orm.IntegerField(null=True)), [add("twice", twice)]
    ),
    "add_index": lambda: SchemaChange(ops.AddIndex("Book", orm.Index("code", "-price"))),
    "add_unique_index": lambda: SchemaChange(ops.AddIndex("Book", orm.Index("code", unique=True))),
    "add_index_concurrently": lambda: SchemaChange(
        ops.AddIndex("Book", orm.Index("code"), concurrently=True), kinds=POSTGRESQL
    ),
    "remove_index": lambda: SchemaChange(ops.RemoveIndex("Book", "book_pages_down")),
    "remove_index_concurrently": lambda: SchemaChange(
        ops.RemoveIndex("Book", "book_pages_down", concurrently=True), kinds=POSTGRESQL
    ),
    "rename_index": lambda: SchemaChange(ops.RenameIndex("Book", "book_pages_down", "down")),
    "add_check": lambda: SchemaChange(ops.AddConstraint("Book", orm.CheckConstraint(Q(pages__gt=0), name="some"))),
    "add_check_not_valid": lambda: SchemaChange(
        ops.AddConstraint("Book", orm.CheckConstraint(Q(pages__gt=0), name="some"), validate=False), kinds=POSTGRESQL
    ),
    "validate": lambda: SchemaChange(
        ops.ValidateConstraint("Book", "some"),
        [ops.AddConstraint("Book", orm.CheckConstraint(Q(pages__gt=0), name="some"), validate=False)],
        kinds=POSTGRESQL,
    ),
    "add_unique_constraint": lambda: SchemaChange(
        ops.AddConstraint("Book", orm.UniqueConstraint("pages", "price", name="pair"))
    ),
    "add_exclusion": lambda: SchemaChange(
        ops.AddConstraint("Book", orm.ExclusionConstraint([("span", "&&")], name="apart")),
        [add("span", orm.IntegerRangeField(null=True))],
        kinds=POSTGRESQL,
    ),
    "remove_check": lambda: SchemaChange(ops.RemoveConstraint("Book", "not_long")),
    "remove_unique_constraint": lambda: SchemaChange(ops.RemoveConstraint("Book", "book_once")),
}
