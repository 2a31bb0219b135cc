"""Each operation of covet-migrate in an example for its conformance kit, by a name that begins with its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.migrations.migrating import APP
from tests.migrations.schema_changes import ROWS, add, shop

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.operations import Operation
from covet_orm import Database, F, Q, Registry
from covet_orm.expressions.functions import RandomUUID

__all__ = ["APP", "CASES", "OperationCase", "operation_class"]

EVERYWHERE = ("postgresql", "mariadb", "sqlite")
POSTGRESQL = ("postgresql",)


@dataclass
class OperationCase:
    """An operation for the kit.

    Attributes:
        make: makes it.
        before: operations that come first, behind those that make authors and books.
        later: operations each of which may follow it.
        kinds: the databases that can do it.
        rows: statements that put rows there.
        restores: as of the kit.
        keeps_rows: as of the kit.
        done: a query of a number, which is one more where it was applied.
    """

    make: Callable[[], Operation]
    before: Sequence[Operation] = ()
    later: Sequence[Operation] = ()
    kinds: Sequence[str] = EVERYWHERE
    rows: Sequence[str] = ROWS
    restores: bool = True
    keeps_rows: bool = True
    done: str = ""


def created() -> list[Operation]:
    """What makes authors and books."""
    return [ops.CreateModel(model.name, model.fields, model.options) for model in shop()]


async def number_books(models: Registry, database: Database) -> None:
    """Give every book that has none a number of pages; done twice, it does nothing more."""
    await models[f"{APP}.Book"].objects.filter(note="x").update(note="numbered")


async def unnumber_books(models: Registry, database: Database) -> None:
    """The way back."""
    await models[f"{APP}.Book"].objects.filter(note="numbered").update(note="x")


async def one_page_more(models: Registry, books: Sequence[Any]) -> None:
    """What would be seen if it were done twice."""
    for book in books:
        book.pages += 1
    await models[f"{APP}.Book"].objects.bulk_update(books, ["pages"])


async def one_page_less(models: Registry, books: Sequence[Any]) -> None:
    """The way back."""
    for book in books:
        book.pages -= 1
    await models[f"{APP}.Book"].objects.bulk_update(books, ["pages"])


text = orm.CharField(max_length=9)
some = orm.CheckConstraint(Q(pages__gt=0), name="some")
shelf: dict[str, orm.Field[Any]] = {"id": orm.BigAutoField(primary_key=True), "row": orm.IntegerField(null=True)}
long = orm.TextField(null=True)

CASES: dict[str, Callable[[], OperationCase]] = {
    "CreateModel": lambda: OperationCase(
        lambda: ops.CreateModel("Shelf", {**shelf, "book": orm.ForeignKey(f"{APP}.Book")}, {"comment": "of wood"}),
        later=[
            ops.AddField("Shelf", "x", text),
            ops.RemoveField("Shelf", "row"),
            ops.RenameModel("Shelf", "Board"),
            ops.AddIndex("Shelf", orm.Index("row", name="by_row")),
            ops.DeleteModel("Shelf"),
            ops.AlterModelTable("Shelf", "boards"),
            ops.RemoveField("Book", "note"),
        ],
    ),
    "DeleteModel": lambda: OperationCase(
        lambda: ops.DeleteModel("Shelf"), [ops.CreateModel("Shelf", shelf)], [ops.CreateModel("Shelf", shelf)]
    ),
    "RenameModel": lambda: OperationCase(
        lambda: ops.RenameModel("Book", "Work"),
        later=[ops.RenameModel("Work", "Opus"), ops.DeleteModel("Work"), ops.AddField("Work", "x", long)],
    ),
    "AlterModelOptions": lambda: OperationCase(
        lambda: ops.AlterModelOptions("Book", comment="What is read", db_table="read"),
        later=[ops.AlterModelOptions("Book", comment=None), ops.DeleteModel("Book")],
    ),
    "AlterModelTable": lambda: OperationCase(
        lambda: ops.AlterModelTable("Book", "read"), later=[ops.AlterModelTable("Book", None)]
    ),
    "AlterModelTableComment": lambda: OperationCase(
        lambda: ops.AlterModelTableComment("Book", "What is read"), later=[ops.AlterModelTableComment("Book", None)]
    ),
    "AlterUniqueTogether": lambda: OperationCase(
        lambda: ops.AlterUniqueTogether("Book", [("pages", "price")]), later=[ops.AlterUniqueTogether("Book", [])]
    ),
    "AddField": lambda: OperationCase(
        lambda: add("x", text, fill="?"),
        later=[
            ops.RemoveField("Book", "x"),
            ops.RenameField("Book", "x", "y"),
            ops.AlterField("Book", "x", long),
            ops.AlterField("Book", "note", text, fill="?"),
            ops.RemoveField("Book", "note"),
            ops.DeleteModel("Book"),
        ],
    ),
    "AddField of many": lambda: OperationCase(
        lambda: add("readers", orm.ManyToManyField(f"{APP}.Author", related_name="+")),
        later=[ops.RemoveField("Book", "readers")],
    ),
    "AddField of a key": lambda: OperationCase(
        lambda: add("editor", orm.ForeignKey(f"{APP}.Author", null=True, related_name="edited")),
        later=[ops.RemoveField("Book", "editor"), ops.RenameField("Book", "editor", "lector")],
    ),
    "RemoveField": lambda: OperationCase(
        lambda: ops.RemoveField("Book", "note"),
        later=[ops.AddField("Book", "note", long), ops.DeleteModel("Book"), ops.RemoveField("Book", "price")],
    ),
    "AlterField": lambda: OperationCase(
        lambda: ops.AlterField("Book", "note", orm.TextField(), fill="none"),
        later=[ops.AlterField("Book", "note", long), ops.RemoveField("Book", "note")],
    ),
    "AlterField of a key": lambda: OperationCase(
        lambda: ops.AlterField("Author", "id", orm.BigAutoField(primary_key=True)),
        [ops.AlterField("Author", "id", orm.AutoField(primary_key=True))],
    ),
    "AlterField of a key of several": lambda: OperationCase(
        lambda: ops.AlterField("Part", "number", orm.IntegerField(primary_key=True)),
        [ops.CreateModel("Part", {"id": orm.BigIntegerField(primary_key=True), "number": orm.IntegerField()})],
        later=[ops.DeleteModel("Part")],
    ),
    "RenameField": lambda: OperationCase(
        lambda: ops.RenameField("Book", "pages", "leaves"),
        later=[
            ops.RenameField("Book", "leaves", "pages"),
            ops.RenameField("Book", "leaves", "sheets"),
            ops.RemoveField("Book", "note"),
            ops.DeleteModel("Book"),
        ],
    ),
    "AddIndex": lambda: OperationCase(
        lambda: ops.AddIndex("Book", orm.Index("code", "-price", name="code_price")),
        later=[
            ops.RemoveIndex("Book", "code_price"),
            ops.RenameIndex("Book", "code_price", "price_code"),
            ops.DeleteModel("Book"),
        ],
    ),
    "AddIndex concurrently": lambda: OperationCase(
        lambda: ops.AddIndex("Book", orm.Index("code", name="by_code"), concurrently=True),
        later=[ops.RemoveIndex("Book", "by_code", concurrently=True)],
        kinds=POSTGRESQL,
    ),
    "RemoveIndex": lambda: OperationCase(
        lambda: ops.RemoveIndex("Book", "book_pages_down"),
        later=[ops.AddIndex("Book", orm.Index("-pages", name="book_pages_down")), ops.DeleteModel("Book")],
    ),
    "RenameIndex": lambda: OperationCase(
        lambda: ops.RenameIndex("Book", "book_pages_down", "down"),
        later=[ops.RenameIndex("Book", "down", "downer"), ops.RemoveIndex("Book", "down"), ops.DeleteModel("Book")],
    ),
    "AddConstraint": lambda: OperationCase(
        lambda: ops.AddConstraint("Book", some), later=[ops.RemoveConstraint("Book", "some"), ops.DeleteModel("Book")]
    ),
    "AddConstraint without a look": lambda: OperationCase(
        lambda: ops.AddConstraint("Book", some, validate=False), later=[ops.ValidateConstraint("Book", "some")]
    ),
    "RemoveConstraint": lambda: OperationCase(
        lambda: ops.RemoveConstraint("Book", "book_once"),
        later=[ops.AddConstraint("Book", orm.UniqueConstraint("title", "code", name="book_once"))],
    ),
    "ValidateConstraint": lambda: OperationCase(
        lambda: ops.ValidateConstraint("Book", "some"),
        [ops.AddConstraint("Book", some, validate=False)],
        [ops.RemoveConstraint("Book", "some")],
    ),
    "CreateView": lambda: OperationCase(
        lambda: ops.CreateView("titles", "SELECT title FROM shop_book"),
        later=[ops.DropView("titles", "SELECT title FROM shop_book")],
    ),
    "DropView": lambda: OperationCase(
        lambda: ops.DropView("titles", "SELECT title FROM shop_book"),
        [ops.CreateView("titles", "SELECT title FROM shop_book")],
    ),
    "CreateExtension": lambda: OperationCase(lambda: ops.CreateExtension("btree_gist"), kinds=POSTGRESQL),
    "CreateCollation": lambda: OperationCase(
        lambda: ops.CreateCollation("by_code", "C", provider="libc"), kinds=POSTGRESQL
    ),
    "CreateSequence": lambda: OperationCase(lambda: ops.CreateSequence("numbers", start=5), kinds=POSTGRESQL),
    "RunSQL": lambda: OperationCase(
        lambda: ops.RunSQL(
            [("UPDATE shop_book SET note = :note WHERE id = :id", {"note": "new", "id": 1})],
            "UPDATE shop_book SET note = 'x' WHERE id = 1",
        ),
        later=[ops.RemoveField("Book", "note")],
        done="SELECT count(*) FROM shop_book WHERE note = 'new'",
    ),
    "RunSQL without a way back": lambda: OperationCase(
        lambda: ops.RunSQL("UPDATE shop_book SET note = 'new' WHERE id = 1"),
        done="SELECT count(*) FROM shop_book WHERE note = 'new'",
    ),
    "RunPython": lambda: OperationCase(
        lambda: ops.RunPython(number_books, unnumber_books),
        later=[ops.RemoveField("Book", "note")],
        done="SELECT count(*) FROM shop_book WHERE note = 'numbered'",
    ),
    "RunPython in batches": lambda: OperationCase(
        lambda: ops.RunPython(one_page_more, one_page_less, batched="Book", size=2),
        done="SELECT count(*) FROM shop_book WHERE pages = 11",
    ),
    "SeparateDatabaseAndState": lambda: OperationCase(
        lambda: ops.SeparateDatabaseAndState(
            [ops.RunSQL("CREATE INDEX by_code ON shop_book (code)", {
                "postgresql": "DROP INDEX by_code", "sqlite": "DROP INDEX by_code",
                "mysql": "DROP INDEX by_code ON shop_book",
            })],
            [ops.AddIndex("Book", orm.Index("code", name="by_code"))],
        ),
        later=[ops.RemoveIndex("Book", "by_code")],
    ),
    "SyncFields": lambda: OperationCase(
        lambda: ops.SyncFields("Book", "note", "remark"), [add("remark", long)],
        [ops.StopSyncFields("Book", "note", "remark")],
        done="SELECT count(*) FROM shop_book WHERE remark = 'x'",
        restores=False,
    ),
    "StopSyncFields": lambda: OperationCase(
        lambda: ops.StopSyncFields("Book", "note", "remark"),
        [add("remark", long), ops.SyncFields("Book", "note", "remark")],
    ),
    "Online of a field": lambda: OperationCase(
        lambda: ops.Online(add("key", orm.UUIDField(db_default=RandomUUID())), batch=2),
        kinds=("postgresql", "mariadb"),
    ),
    "Online of a change": lambda: OperationCase(
        lambda: ops.Online(ops.AlterField("Book", "note", orm.TextField(unique=False), fill="none")),
    ),
    "Online of a constraint": lambda: OperationCase(
        lambda: ops.Online(ops.AddConstraint("Book", orm.UniqueConstraint("pages", "price", name="pair")))
    ),
    "Reviewed": lambda: OperationCase(
        lambda: ops.Reviewed(ops.RemoveField("Book", "note"), "nobody reads it", rules=["drop-column"]),
        later=[ops.RemoveField("Book", "price")],
    ),
    "GeneratedField": lambda: OperationCase(
        lambda: add("twice", orm.GeneratedField(F("pages") * 2, orm.IntegerField())),
        later=[ops.RemoveField("Book", "twice")],
    ),
}  # fmt: skip


def operation_class(name: str) -> str:
    """The class of the operation of a case."""
    return type(CASES[name]().make()).__name__
