"""Operations that break each rule of `migrations lint`, and such that do not: for tests of findings, and of locks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.migrations.migrating import APP, state_after
from tests.migrations.schema_changes import add, changed, shop

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.actions.custom import CustomAction
from covet_migrate.migrations import Migration
from covet_migrate.operations import Change, Operation
from covet_migrate.safety.effects import Blocks, Effect
from covet_migrate.safety.findings import Finding
from covet_migrate.safety.linting import lint
from covet_migrate.state import State
from covet_migrate.steps import Statement, Step
from covet_orm import F, Q
from covet_orm.expressions.functions import Now, RandomUUID

__all__ = ["EXAMPLES", "Example", "findings", "sql"]

twice = orm.GeneratedField(F("pages") * 2, orm.IntegerField())
some = orm.CheckConstraint(Q(pages__gt=0), name="some")


@dataclass
class Example:
    """Operations that break a rule, and such that do not.

    Attributes:
        bad: those that break it.
        good: those that do not.
        kind: the database.
        before: operations that come before both.
        version: of the server; one of now by default.
        atomic: whether the migration is atomic.
        good_atomic: whether that of those that do not break it is, where it differs.
        setup: statements that make what SQL in them names.
    """

    bad: Sequence[Operation]
    good: Sequence[Operation]
    kind: str = "postgresql"
    before: Sequence[Operation] = ()
    version: tuple[int, ...] | None = None
    atomic: bool = True
    good_atomic: bool | None = None
    setup: Sequence[str] = ()

    @property
    def state(self) -> State:
        """The state before."""
        return state_after(shop(), self.before)


def sql(text: str, **options: Any) -> list[Operation]:
    """An operation of SQL."""
    return [ops.RunSQL(text, **options)]


def written(bad: str, good: str, kind: str = "postgresql", *setup: str) -> Example:
    return Example(sql(bad), sql(good), kind, setup=setup)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged(CustomAction):
    """Whether what happens to a table is logged (PostgreSQL): a change of either kind writes the table anew."""

    table: str
    logged: bool

    def steps(self, kind: str, version: tuple[int, ...]) -> Iterable[Step]:
        if kind == "postgresql":
            yield Statement(sql=f"ALTER TABLE {self.table} SET {'LOGGED' if self.logged else 'UNLOGGED'}")

    def effect(self, step: Step, kind: str, version: tuple[int, ...]) -> Effect:
        return Effect(locks={self.table: "ACCESS EXCLUSIVE"}, blocks=Blocks.EVERYBODY, rewrites=True)

    def tables(self) -> Sequence[str]:
        return (self.table,)


class Unlog(Operation):
    """Log no longer what happens to a table."""

    def __init__(self, table: str) -> None:
        self.table = table

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return f"Log {self.table} no longer"

    def actions(self, change: Change) -> Sequence[Any]:
        return [Logged(table=self.table, logged=change.backward)]


def online(operation: Operation) -> list[Operation]:
    return [ops.Online(operation)]


MOOD = "CREATE TYPE mood AS ENUM ('a')"
text = orm.CharField(max_length=20)
EXAMPLES: dict[str, Callable[[], Example]] = {
    "drop-table": lambda: Example(
        [ops.DeleteModel("Book")], [ops.CreateModel("Shelf", {"id": orm.BigAutoField(primary_key=True)})]
    ),
    "drop-column": lambda: Example([ops.RemoveField("Book", "note")], [add("x", orm.TextField(null=True))], "sqlite"),
    "narrow-type": lambda: Example([changed("code", max_length=9)], [changed("code", max_length=90)]),
    "rename-table": lambda: Example(
        [ops.RenameModel("Book", "Work")],
        [ops.AlterModelTable("Book", "shop_book"), ops.AlterModelTableComment("Book", "x")],
        "mariadb",
    ),
    "rename-column": lambda: Example([ops.RenameField("Book", "note", "remark")], [changed("note", comment="x")]),
    "required-column": lambda: Example(
        [add("x", text, fill="")], [add("x", orm.CharField(max_length=9, db_default=""))]
    ),
    "required-column-unfilled": lambda: Example([add("x", text)], [add("x", text, fill="")]),
    "not-null": lambda: Example([changed("note", null=False)], [changed("note", null=True, comment="x")]),
    "drop-not-null": lambda: Example([changed("pages", null=True)], [changed("pages", comment="x")]),
    "drop-default": lambda: Example(
        [changed("pages")], [changed("pages", db_default=6)], before=[changed("pages", db_default=5)]
    ),
    "unique-added": lambda: Example(
        [changed("pages", unique=True)], [add("x", orm.IntegerField(null=True, unique=True))]
    ),
    "drop-foreign-key": lambda: Example(
        [changed("author", db_constraint=False)], [changed("author", on_delete=orm.RESTRICT)]
    ),
    "index-not-concurrent": lambda: Example(
        [ops.AddIndex("Book", orm.Index("code"))],
        [ops.AddIndex("Book", orm.Index("code"), concurrently=True)],
        good_atomic=False,
    ),
    "drop-index-not-concurrent": lambda: Example(
        [ops.RemoveIndex("Book", "book_pages_down")],
        [ops.RemoveIndex("Book", "book_pages_down", concurrently=True)],
        good_atomic=False,
    ),
    "concurrent-in-transaction": lambda: Example(
        [ops.AddIndex("Book", orm.Index("code"), concurrently=True)],
        [ops.AddIndex("Book", orm.Index("code"), concurrently=True)],
        good_atomic=False,
    ),
    "constraint-checked-at-once": lambda: Example(
        [ops.AddConstraint("Book", some)], [ops.AddConstraint("Book", some, validate=False)]
    ),
    "foreign-key-checked-at-once": lambda: Example(
        [changed("author", on_delete=orm.RESTRICT)], online(changed("author", on_delete=orm.RESTRICT))
    ),
    "unique-built-at-once": lambda: Example(
        [changed("pages", unique=True)], online(changed("pages", unique=True)), good_atomic=False
    ),
    "primary-key-built-at-once": lambda: Example(
        [ops.AlterField("Note", "word", orm.CharField(max_length=9, primary_key=True))],
        online(ops.AlterField("Note", "word", orm.CharField(max_length=9, primary_key=True))),
        before=[
            ops.CreateModel("Note", {"id": orm.BigIntegerField(primary_key=True), "word": orm.CharField(max_length=9)})
        ],
        good_atomic=False,
        setup=["INSERT INTO shop_note (id, word) VALUES (1, 'a')"],
    ),
    "exclusion-built-at-once": lambda: Example(
        [ops.AddConstraint("Book", orm.ExclusionConstraint([("span", "&&")], name="apart"))],
        [changed("pages", comment="x")],
        before=[add("span", orm.IntegerRangeField(null=True))],
    ),
    "set-not-null-reads": lambda: Example([changed("note", null=False)], online(changed("note", null=False))),
    "volatile-default": lambda: Example(
        [add("x", orm.UUIDField(db_default=RandomUUID()))], [add("x", orm.DateTimeField(db_default=Now()))]
    ),
    "stored-column": lambda: Example(
        [add("twice", twice)],
        [add("twice", orm.GeneratedField(F("pages") * 2, orm.IntegerField(), stored=False))],
        "mariadb",
    ),
    "counting-column": lambda: Example(
        [ops.AddField("Tag", "number", orm.AutoField())],
        [ops.AddField("Tag", "x", orm.IntegerField(null=True))],
        before=[ops.CreateModel("Tag", {"word": orm.CharField(max_length=9, primary_key=True)})],
    ),
    "type-rewrites": lambda: Example(
        [ops.AlterField("Book", "pages", orm.BigIntegerField())], [changed("code", max_length=90)]
    ),
    "copies-table": lambda: Example(
        [ops.AlterField("Book", "pages", orm.BigIntegerField())], [changed("code", max_length=60)], "mariadb"
    ),
    "rebuilds-table": lambda: Example([changed("pages", null=True)], [add("x", orm.TextField(null=True))], "sqlite"),
    "validated-under-lock": lambda: Example(
        [ops.AddConstraint("Book", some, validate=False), ops.ValidateConstraint("Book", "some")],
        [ops.AddConstraint("Book", some, validate=False), ops.ValidateConstraint("Book", "some")],
        good_atomic=False,
    ),
    "rows-under-lock": lambda: Example(
        [add("x", orm.IntegerField(null=True)), ops.RunSQL("UPDATE shop_book SET x = 1 WHERE id = 3")],
        [ops.RunSQL("UPDATE shop_book SET pages = 1 WHERE id = 3"), add("x", orm.IntegerField(null=True))],
    ),
    "all-rows-at-once": lambda: Example(
        [changed("note", null=False), *sql("UPDATE shop_book SET pages = 3")],
        [ops.RunSQL("UPDATE shop_book SET pages = 3 WHERE id = 2")],
        "mariadb",
    ),
    "small-key": lambda: Example(
        [ops.CreateModel("Tag", {"id": orm.AutoField(primary_key=True)})],
        [ops.CreateModel("Tag", {"id": orm.BigAutoField(primary_key=True)})],
    ),
    "time-without-zone": lambda: Example(
        [add("x", orm.DateTimeField(null=True, timezone=False))], [add("x", orm.DateTimeField(null=True))]
    ),
    "wide-index": lambda: Example(
        [ops.AddIndex("Book", orm.Index("code", "pages", "title", "price"))],
        [ops.AddIndex("Book", orm.Index("code", "pages", "title"))],
        "sqlite",
    ),
    "concurrent-index-corrupts": lambda: Example(
        [ops.AddIndex("Book", orm.Index("code"), concurrently=True)],
        [ops.AddIndex("Book", orm.Index("code"))],
        version=(14, 2),
    ),
    "custom-action-stalls": lambda: Example(
        [Unlog("shop_book")],
        [ops.CreateModel("Shelf", {"id": orm.BigAutoField(primary_key=True)}), Unlog("shop_shelf")],
    ),
    "raw-sql": lambda: written("ALTER SYSTEM SET fsync = off", "CREATE VIEW v AS SELECT 'ALTER SYSTEM' FROM shop_book"),
    "transaction-control": lambda: written("COMMIT", "SELECT 'COMMIT' -- COMMIT", "sqlite"),
    "drop-database": lambda: written("DROP SCHEMA old CASCADE", "DROP VIEW old", "mariadb", "CREATE SCHEMA old"),
    "truncate": lambda: written("truncate shop_book", "DELETE FROM shop_book WHERE id = 3"),
    "rename-schema": lambda: written("ALTER SCHEMA a RENAME TO b", "CREATE SCHEMA a", "postgresql", "CREATE SCHEMA a"),
    "enum-value-renamed": lambda: written(
        "ALTER TYPE mood RENAME VALUE 'a' TO 'b'", "ALTER TYPE mood ADD VALUE 'b' AFTER 'a'", "postgresql", MOOD
    ),
    "enum-value-order": lambda: written(
        "ALTER TYPE mood ADD VALUE 'b'", "ALTER TYPE mood ADD VALUE 'b' AFTER 'a'", "postgresql", MOOD
    ),
    "domain-constraint": lambda: written("CREATE DOMAIN age AS int CHECK (value > 0)", "CREATE DOMAIN age AS int"),
    "char-type": lambda: written("CREATE TABLE x (a char(3))", "CREATE TABLE x (a character varying(3))"),
    "json-type": lambda: written("ALTER TABLE shop_book ADD COLUMN x json", "ALTER TABLE shop_book ADD COLUMN x jsonb"),
    "reindex-not-concurrent": lambda: written("REINDEX TABLE shop_book", "REINDEX TABLE CONCURRENTLY shop_book"),
    "detach-not-concurrent": lambda: written(
        "ALTER TABLE a DETACH PARTITION b",
        "ALTER TABLE a DETACH PARTITION b CONCURRENTLY",
        "postgresql",
        "CREATE TABLE a (x int) PARTITION BY LIST (x)",
        "CREATE TABLE b PARTITION OF a FOR VALUES IN (1)",
    ),
    "full-vacuum": lambda: written("VACUUM FULL shop_book", "VACUUM shop_book"),
    "locks-table": lambda: written("LOCK TABLE shop_book", "SELECT 1"),
    "unused-review": lambda: Example(
        [ops.Reviewed(ops.AlterModelTableComment("Book", "x"), "harmless")],
        [ops.Reviewed(ops.RemoveField("Book", "note"), "unread")],
    ),
}


def findings(
    operations: Sequence[Operation],
    kind: str = "postgresql",
    before: Sequence[Operation] = (),
    *,
    version: tuple[int, ...] | None = None,
    atomic: bool = True,
) -> list[Finding]:
    """What the rules find in a migration of operations, behind others."""
    state = state_after(shop(), before)
    return lint([(Migration(operations, app=APP, name="0002_x", atomic=atomic), state)], kind, version)
