"""Every rule has a migration that breaks it and one like it that does not; and every rule of other tools is accounted
for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.migrations.lint_examples import EXAMPLES, findings, sql
from tests.migrations.migrating import APP
from tests.migrations.schema_changes import add

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.actions.actions import AddColumn
from covet_migrate.exceptions import MigrationError
from covet_migrate.migrations import Migration
from covet_migrate.safety import rules as registry
from covet_migrate.safety.data_rules import holds_all
from covet_migrate.safety.findings import Severity
from covet_migrate.safety.linting import lint
from covet_migrate.safety.peers import PEERS, Peer
from covet_migrate.safety.raw_sql import read_sql
from covet_migrate.safety.rules import Found, Subject, all_rules, rule
from covet_migrate.state import State


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


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [
        (sa.SmallInteger(), sa.Integer(), True),
        (sa.BigInteger(), sa.Integer(), False),
        (sa.Integer(), sa.Numeric(), True),
        (sa.Integer(), sa.Numeric(12, 2), True),
        (sa.Integer(), sa.Numeric(11, 2), False),
        (sa.String(5), sa.String(6), True),
        (sa.String(6), sa.String(5), False),
        (sa.String(), sa.String(5), False),
        (sa.String(5), sa.Text(), True),
        (sa.Integer(), sa.Text(), False),
        (sa.Numeric(8, 2), sa.Numeric(10, 2), True),
        (sa.Numeric(8, 2), sa.Numeric(10, 4), True),
        (sa.Numeric(8, 2), sa.Numeric(8, 4), False),
        (sa.Numeric(8, 2), sa.Numeric(10, 1), False),
        (sa.Numeric(8, 2), sa.Numeric(), True),
        (sa.Numeric(), sa.Numeric(8, 2), False),
        (sa.Uuid(), sa.Uuid(), True),
        (sa.Date(), sa.DateTime(), False),
        (sa.DateTime(timezone=True), sa.DateTime(timezone=False), False),
    ],
    ids=repr,
)
def test_which_types_hold_all_values_of_another(before: Any, after: Any, holds: bool) -> None:
    assert holds_all(before, after) is holds


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("LOCK TABLE shop_book IN SHARE MODE", "SHARE on shop_book, which blocks writers"),
        ("LOCK shop_book", "ACCESS EXCLUSIVE on shop_book, which blocks readers and writers"),
        ("TRUNCATE shop_book", "ACCESS EXCLUSIVE on shop_book, which blocks readers and writers"),
        ("REINDEX TABLE shop_book", "SHARE on shop_book, which blocks readers and writers"),
        ("CREATE INDEX i ON shop_book (code)", "SHARE on shop_book, which blocks writers"),
        (
            "ALTER TABLE shop_book ADD FOREIGN KEY (a) REFERENCES b",
            "SHARE ROW EXCLUSIVE on shop_book, which blocks writers",
        ),
        ("ALTER TABLE shop_book VALIDATE CONSTRAINT c", "SHARE UPDATE EXCLUSIVE on shop_book, which blocks nobody"),
        ("CREATE TYPE x AS ENUM ('a')", ""),
    ],
)
def test_the_lock_of_sql_is_told(text: str, told: str) -> None:
    """That it is the one that PostgreSQL takes, the proof `migrate_locks` shows."""
    (statement,) = read_sql(text, "postgresql")
    assert statement.describe() == told
    assert read_sql(text, "mariadb")[0].describe() == ""


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: f"{peer.tool} {peer.name}")
def test_every_rule_of_other_tools_has_something_to_do_instead(peer: Peer) -> None:
    for name in peer.rules:
        assert len(all_rules()[name].instead) > 20


def test_several_statements_in_one_text_are_all_looked_at() -> None:
    assert [set(one.rules) for one in read_sql("SELECT 1; DROP TABLE a; VACUUM FULL b", "postgresql")] == [
        set(),
        {"drop-table"},
        {"full-vacuum"},
    ]


@pytest.mark.parametrize(
    ("routine", "kind"),
    [
        (
            "CREATE TRIGGER a AFTER INSERT ON b BEGIN UPDATE b SET c = CASE WHEN x THEN 1 END; DELETE FROM d; END",
            "sqlite",
        ),
        ("CREATE PROCEDURE p() BEGIN IF a THEN DELETE FROM d; END IF; BEGIN SELECT 2; END; END", "mariadb"),
        ("CREATE PROCEDURE p() BEGIN CASE x WHEN 1 THEN SELECT 1; END CASE; END", "mariadb"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END", "postgresql"),
    ],
)
def test_what_a_trigger_or_a_routine_does_is_done_later(routine: str, kind: str) -> None:
    assert [set(one.rules) for one in read_sql(routine, kind)] == [set()]
    found = read_sql(f"{routine}; DROP TABLE a; COMMIT", kind)
    assert [set(one.rules) for one in found] == [set(), {"drop-table"}, {"transaction-control"}]


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
