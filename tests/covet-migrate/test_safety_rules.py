"""Every rule has a migration that breaks it and one like it that does not; and every rule of other tools is accounted
for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.migrating import APP, state_after
from tests.schema_changes import add, changed, shop

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.actions.actions import AddColumn
from covet_migrate.exceptions import MigrationError
from covet_migrate.migrations import Migration
from covet_migrate.operations import Operation
from covet_migrate.safety import rules as registry
from covet_migrate.safety.findings import Finding, Severity
from covet_migrate.safety.linting import lint
from covet_migrate.safety.peers import PEERS
from covet_migrate.safety.raw_sql import read_sql
from covet_migrate.safety.rules import Found, Subject, all_rules, rule
from covet_migrate.state import State
from covet_orm import F, Q
from covet_orm.expressions.functions import Now, RandomUUID

twice = orm.GeneratedField(F("pages") * 2, orm.IntegerField())
some = orm.CheckConstraint(Q(pages__gt=0), name="some")


@dataclass
class Example:
    """Operations that break a rule, and such that do not."""

    bad: Sequence[Operation]
    good: Sequence[Operation]
    kind: str = "postgresql"
    before: Sequence[Operation] = ()
    version: tuple[int, ...] | None = None
    atomic: bool = True
    good_atomic: bool | None = None


def sql(text: str, **options: Any) -> list[Operation]:
    return [ops.RunSQL(text, **options)]


def written(bad: str, good: str, kind: str = "postgresql") -> Example:
    return Example(sql(bad), sql(good), kind)


def online(operation: Operation) -> list[Operation]:
    return [ops.Online(operation)]


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
    "raw-sql": lambda: written("ALTER SYSTEM SET fsync = off", "CREATE VIEW v AS SELECT 'ALTER SYSTEM' FROM shop_book"),
    "transaction-control": lambda: written("COMMIT", "SELECT 'COMMIT' -- COMMIT", "sqlite"),
    "drop-database": lambda: written("DROP SCHEMA old CASCADE", "DROP VIEW old", "mariadb"),
    "truncate": lambda: written("truncate shop_book", "DELETE FROM shop_book WHERE id = 3"),
    "rename-schema": lambda: written("ALTER SCHEMA a RENAME TO b", "CREATE SCHEMA a"),
    "enum-value-renamed": lambda: written(
        "ALTER TYPE mood RENAME VALUE 'a' TO 'b'", "ALTER TYPE mood ADD VALUE 'b' AFTER 'a'"
    ),
    "enum-value-order": lambda: written("ALTER TYPE mood ADD VALUE 'b'", "ALTER TYPE mood ADD VALUE 'b' AFTER 'a'"),
    "domain-constraint": lambda: written("CREATE DOMAIN age AS int CHECK (value > 0)", "CREATE DOMAIN age AS int"),
    "char-type": lambda: written("CREATE TABLE x (a char(3))", "CREATE TABLE x (a character varying(3))"),
    "json-type": lambda: written("ALTER TABLE shop_book ADD COLUMN x json", "ALTER TABLE shop_book ADD COLUMN x jsonb"),
    "reindex-not-concurrent": lambda: written("REINDEX TABLE shop_book", "REINDEX TABLE CONCURRENTLY shop_book"),
    "detach-not-concurrent": lambda: written(
        "ALTER TABLE a DETACH PARTITION b", "ALTER TABLE a DETACH PARTITION b CONCURRENTLY"
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
    state = state_after(shop(), before)
    return lint([(Migration(operations, app=APP, name="0002_x", atomic=atomic), state)], kind, version)


@pytest.mark.parametrize("name", sorted(all_rules()))
def test_each_rule_finds_what_it_is_about_and_nothing_in_the_safe_form(name: str) -> None:
    example = EXAMPLES[name]()
    bad = findings(example.bad, example.kind, example.before, version=example.version, atomic=example.atomic)
    (found, *_) = [one for one in bad if one.rule == name] or pytest.fail(f"{[one.rule for one in bad]}")
    assert found.why
    assert found.instead
    assert found.where.migration == f"{APP}.0002_x"
    assert found.severity is all_rules()[name].severity
    atomic = example.atomic if example.good_atomic is None else example.good_atomic
    good = findings(example.good, example.kind, example.before, version=example.version, atomic=atomic)
    assert name not in [one.rule for one in good]


def test_a_rule_is_about_its_databases_alone() -> None:
    rules = {one.rule for one in findings([ops.AddIndex("Book", orm.Index("code"))], "mariadb")}
    assert "index-not-concurrent" not in rules


SQUAWK = [
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
    "require-concurrent-reindex",
    "require-concurrent-partition-detach",
    "ban-concurrent-index-creation-in-transaction",
    "constraint-missing-not-valid",
    "adding-foreign-key-constraint",
    "disallowed-unique-constraint",
    "adding-serial-primary-key-field",
    "adding-not-nullable-field",
    "adding-required-field",
    "adding-field-with-default",
    "changing-column-type",
    "renaming-column",
    "renaming-table",
    "ban-drop-column",
    "ban-drop-table",
    "ban-drop-database",
    "ban-truncate-cascade",
    "ban-drop-not-null",
    "require-lock-timeout",
    "require-statement-timeout",
    "require-timeout-settings",
    "prefer-robust-stmts",
    "transaction-nesting",
    "ban-uncommitted-transaction",
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-text-field",
    "prefer-timestamptz",
    "ban-char-field",
    "ban-create-domain-with-constraint",
    "ban-alter-domain-with-add-constraint",
    "require-enum-value-ordering",
    "identifier-too-long",
    "require-table-schema",
    "ban-duplicate-column-assignments",
    "prefer-repack",
    "unused-ignore",
]
STRONG_MIGRATIONS = [
    "remove_column",
    "change_column",
    "rename_column",
    "rename_table",
    "rename_schema",
    "create_table",
    "add_column_auto_incrementing",
    "add_column_generated_stored",
    "add_foreign_key",
    "add_check_constraint",
    "execute",
    "backfill",
    "add_index",
    "add_reference",
    "add_unique_constraint",
    "add_exclusion_constraint",
    "add_column_json",
    "add_column_default",
    "add_column_default_callable",
    "change_column_null",
    "rename_enum_value",
    "algorithm_copy",
    "lock_shared_exclusive",
    "add_index_columns",
    "remove_index",
    "validate_foreign_key",
    "validate_check_constraint",
    "change_column_constraint",
    "change_column_default",
    "change_table",
    "add_index_corruption",
]
ATLAS = [
    "DS101",
    "DS102",
    "DS103",
    "MF101",
    "MF102",
    "MF103",
    "MF104",
    "BC101",
    "BC102",
    "CD101",
    "MY101",
    "MY102",
    "LT101",
    "concurrent",
    "naming",
    "non-linear",
]


def test_every_rule_of_other_tools_is_one_here_or_cannot_come_up() -> None:
    known = {(one.tool, one.name.split()[0]): one for one in PEERS}
    assert len(known) == len(PEERS)
    for tool, names in (("squawk", SQUAWK), ("strong_migrations", STRONG_MIGRATIONS), ("Atlas", ATLAS)):
        assert [name for name in names if (tool, name) not in known] == []
    assert len(SQUAWK) == 40
    for one in PEERS:
        assert bool(one.rules) is not bool(one.because), one
        assert set(one.rules) <= set(all_rules()), one


def test_a_table_that_the_migration_creates_may_be_done_anything_to() -> None:
    found = findings(
        [
            ops.CreateModel("Shelf", {"id": orm.BigAutoField(primary_key=True), "row": orm.IntegerField(null=True)}),
            ops.AddIndex("Shelf", orm.Index("row")),
            ops.AddField("Shelf", "x", orm.IntegerField(), fill=3),
            ops.AlterField("Shelf", "row", orm.BigIntegerField(unique=True)),
            *sql("CREATE INDEX by_x ON shop_shelf (x)"),
        ]
    )
    assert found == []


def test_a_review_covers_the_rules_that_it_names() -> None:
    remove = ops.RemoveField("Book", "author")
    everything = {one.rule for one in findings([remove])}
    assert everything == {"drop-column", "drop-index-not-concurrent"}
    assert findings([ops.Reviewed(remove, "unread")]) == []
    left = findings([ops.Reviewed(remove, "unread", rules=["drop-column"])])
    assert [one.rule for one in left] == ["drop-index-not-concurrent"]
    (unused,) = findings([ops.Reviewed(remove, "unread", rules=[*everything, "truncate"])])
    assert unused.rule == "unused-review"
    assert "truncate finds nothing" in unused.what
    (misspelt,) = findings([ops.Reviewed(remove, "unread", rules=[*everything, "drop-colum"])])
    assert "did you mean 'drop-column'" in misspelt.what
    # A rule about another database is not unused.
    assert findings([ops.Reviewed(remove, "unread", rules=[*everything, "copies-table"])]) == []


@pytest.mark.parametrize("why", ["", "  "])
def test_a_review_says_why(why: str) -> None:
    with pytest.raises(MigrationError, match="say why"):
        ops.Reviewed(ops.RemoveField("Book", "note"), why)
    with pytest.raises(MigrationError, match=r"rules=\['drop-column'\]"):
        ops.Reviewed(ops.RemoveField("Book", "note"), "x", rules="drop-column")


def test_a_rule_of_somebody_else_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    all_rules()
    monkeypatch.setattr(registry, "_rules", dict(registry._rules))

    @rule("no-price", Severity.NOTE, title="A price", why="all is free", instead="give it away")
    def no_price(subject: Subject) -> list[Found]:
        return [
            Found(f"{action.column.name}") for action in subject.actions(AddColumn) if "price" in action.column.name
        ]

    (found,) = findings([add("list_price", orm.IntegerField(null=True))])
    assert (found.rule, found.what, str(found.severity)) == ("no-price", "list_price", "note")
    with pytest.raises(MigrationError, match="already"):
        rule("no-price", Severity.NOTE, title="", why="", instead="")(no_price)
    with pytest.raises(MigrationError, match="no name of a rule"):
        rule("No price", Severity.NOTE, title="", why="", instead="")(no_price)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (
            "CREATE FUNCTION f() RETURNS trigger AS $x$ BEGIN DROP TABLE a; END $x$ LANGUAGE plpgsql",
            "postgresql",
            set(),
        ),
        ("INSERT INTO a VALUES ('DROP TABLE b; COMMIT')", "mariadb", set()),
        ("/*!50000 DROP TABLE a */", "mariadb", {"raw-sql"}),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE a'; END $$", "postgresql", {"raw-sql"}),
        ('ALTER TABLE "My ""t" DROP COLUMN x', "postgresql", {"drop-column"}),
        ("ALTER TABLE t DROP x", "sqlite", {"drop-column"}),
        ("ALTER TABLE t DROP CONSTRAINT x", "postgresql", set()),
        ("ALTER TABLE t ALTER COLUMN x DROP DEFAULT", "postgresql", set()),
        ("ALTER TABLE t RENAME x TO y", "postgresql", {"rename-column"}),
        ("ALTER TABLE t RENAME TO y", "sqlite", {"rename-table"}),
        ("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES b NOT VALID", "postgresql", set()),
        ("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES b", "postgresql", {"foreign-key-checked-at-once"}),
        ("ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX i", "postgresql", set()),
        ("ALTER TABLE t ADD COLUMN x int NOT NULL DEFAULT 3", "postgresql", set()),
        ("ALTER TABLE t ALTER COLUMN x SET DATA TYPE text", "postgresql", {"type-rewrites"}),
        ("ALTER TABLE t MODIFY x TEXT", "mariadb", {"copies-table"}),
        ("UPDATE t SET a = 1", "postgresql", {"all-rows-at-once"}),
        ("not SQL at all '", "postgresql", {"raw-sql"}),
    ],
)
def test_sql_is_read_by_its_words(text: str, kind: str, expected: set[str]) -> None:
    assert set[str]().union(*(one.rules for one in read_sql(text, kind))) == expected


def test_several_statements_in_one_text_are_all_looked_at() -> None:
    assert [set(one.rules) for one in read_sql("SELECT 1; DROP TABLE a; VACUUM FULL b", "postgresql")] == [
        set(),
        {"drop-table"},
        {"full-vacuum"},
    ]


def test_a_state_is_what_findings_need_and_no_database() -> None:
    with pytest.raises(MigrationError, match="no database is called 'oracle'"):
        lint([(Migration([ops.RunSQL("SELECT 1")], app=APP, name="x"), State())], "oracle")


def test_the_documentation_has_every_rule_and_every_peer() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "migrate" / "safety.md").read_text(encoding="utf-8")
    names = {"postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB", "sqlite": "SQLite"}
    for one in all_rules().values():
        where = "everywhere" if len(one.kinds) == 4 else ", ".join(names[kind] for kind in one.kinds)
        assert f"| `{one.name}` | {one.severity} | {where} | {one.title} |\n" in page
    for peer in PEERS:
        found = ", ".join(f"`{name}`" for name in peer.rules) or peer.because
        assert f"| {peer.tool} | {peer.name} | {found} |\n" in page
