"""The rules of other tools, each with the rule here that finds the same, or why it cannot come up.

(squawk 2.63, https://squawkhq.com/docs/rules; strong_migrations 2, https://github.com/ankane/strong_migrations; Atlas,
https://atlasgo.io/lint/analyzers)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PEERS", "Peer"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A rule of another tool.

    Attributes:
        tool: the tool.
        name: what it calls the rule.
        rules: the rules here that find the same.
        because: why it cannot come up; empty where there are rules.
    """

    tool: str
    name: str
    rules: Sequence[str] = ()
    because: str = ""


# What each of them finds, and which rules here find the same.
PEERS: Sequence[Peer] = (
    Peer("squawk", "require-concurrent-index-creation", ("index-not-concurrent",)),
    Peer("squawk", "require-concurrent-index-deletion", ("drop-index-not-concurrent",)),
    Peer("squawk", "require-concurrent-reindex", ("reindex-not-concurrent",)),
    Peer("squawk", "require-concurrent-partition-detach", ("detach-not-concurrent",)),
    Peer("squawk", "ban-concurrent-index-creation-in-transaction", ("concurrent-in-transaction",)),
    Peer("squawk", "constraint-missing-not-valid", ("constraint-checked-at-once", "foreign-key-checked-at-once")),
    Peer("squawk", "adding-foreign-key-constraint", ("foreign-key-checked-at-once",)),
    Peer("squawk", "disallowed-unique-constraint", ("unique-built-at-once",)),
    Peer("squawk", "adding-serial-primary-key-field", ("counting-column", "primary-key-built-at-once")),
    Peer("squawk", "adding-not-nullable-field", ("set-not-null-reads",)),
    Peer("squawk", "adding-required-field", ("required-column", "required-column-unfilled")),
    Peer("squawk", "adding-field-with-default", ("volatile-default",)),
    Peer("squawk", "changing-column-type", ("type-rewrites",)),
    Peer("squawk", "renaming-column", ("rename-column",)),
    Peer("squawk", "renaming-table", ("rename-table",)),
    Peer("squawk", "ban-drop-column", ("drop-column",)),
    Peer("squawk", "ban-drop-table", ("drop-table",)),
    Peer("squawk", "ban-drop-database", ("drop-database",)),
    Peer("squawk", "ban-truncate-cascade", ("truncate",)),
    Peer("squawk", "ban-drop-not-null", ("drop-not-null",)),
    Peer(
        "squawk",
        "require-lock-timeout",
        because="Every migration runs with a lock timeout, and is tried again: `migrate --lock-timeout`.",
    ),
    Peer(
        "squawk",
        "require-statement-timeout",
        because="`Settings(statement_timeout=...)` sets one for all statements; a migration does not set its own.",
    ),
    Peer("squawk", "require-timeout-settings", because="As the two before it, whose old name it is."),
    Peer(
        "squawk",
        "prefer-robust-stmts",
        because="A migration is one transaction, or its steps are journalled and go on where they were interrupted.",
    ),
    Peer("squawk", "transaction-nesting", ("transaction-control",)),
    Peer("squawk", "ban-uncommitted-transaction", ("transaction-control",)),
    Peer("squawk", "prefer-bigint-over-int", ("small-key",)),
    Peer("squawk", "prefer-bigint-over-smallint", ("small-key",)),
    Peer(
        "squawk",
        "prefer-identity",
        because="What a key that counts is made as is decided by covet-orm once for all, not by a migration.",
    ),
    Peer(
        "squawk",
        "prefer-text-field",
        because="A longer `max_length` rewrites nothing, which the tests look at; a shorter one is `narrow-type`.",
    ),
    Peer("squawk", "prefer-timestamptz", ("time-without-zone",)),
    Peer("squawk", "ban-char-field", ("char-type",)),
    Peer("squawk", "ban-create-domain-with-constraint", ("domain-constraint",)),
    Peer("squawk", "ban-alter-domain-with-add-constraint", ("domain-constraint",)),
    Peer("squawk", "require-enum-value-ordering", ("enum-value-order",)),
    Peer(
        "squawk",
        "identifier-too-long",
        because="covet-orm refuses names that a database would cut, when the model is made.",
    ),
    Peer(
        "squawk",
        "require-table-schema",
        because="A migration is about the schema of its database's URL; it names tables without one.",
    ),
    Peer(
        "squawk",
        "ban-duplicate-column-assignments",
        because="The servers refuse such an UPDATE, and nothing happens.",
    ),
    Peer("squawk", "prefer-repack", ("full-vacuum",)),
    Peer("squawk", "unused-ignore", ("unused-review",)),
    Peer("strong_migrations", "remove_column", ("drop-column",)),
    Peer("strong_migrations", "change_column", ("type-rewrites", "copies-table", "narrow-type")),
    Peer("strong_migrations", "rename_column", ("rename-column",)),
    Peer("strong_migrations", "rename_table", ("rename-table",)),
    Peer("strong_migrations", "rename_schema", ("rename-schema",)),
    Peer("strong_migrations", "create_table", ("drop-table",)),
    Peer("strong_migrations", "add_column_auto_incrementing", ("counting-column",)),
    Peer("strong_migrations", "add_column_generated_stored", ("stored-column",)),
    Peer("strong_migrations", "add_foreign_key", ("foreign-key-checked-at-once", "copies-table")),
    Peer("strong_migrations", "add_check_constraint", ("constraint-checked-at-once", "copies-table")),
    Peer("strong_migrations", "execute", ("raw-sql",)),
    Peer("strong_migrations", "backfill", ("rows-under-lock", "all-rows-at-once")),
    Peer("strong_migrations", "add_index", ("index-not-concurrent",)),
    Peer("strong_migrations", "add_reference", ("index-not-concurrent", "foreign-key-checked-at-once")),
    Peer("strong_migrations", "add_unique_constraint", ("unique-built-at-once",)),
    Peer("strong_migrations", "add_exclusion_constraint", ("exclusion-built-at-once",)),
    Peer("strong_migrations", "add_column_json", ("json-type",)),
    Peer("strong_migrations", "add_column_default", ("volatile-default",)),
    Peer("strong_migrations", "add_column_default_callable", ("volatile-default", "copies-table")),
    Peer("strong_migrations", "change_column_null", ("set-not-null-reads",)),
    Peer("strong_migrations", "rename_enum_value", ("enum-value-renamed",)),
    Peer("strong_migrations", "algorithm_copy", ("copies-table",)),
    Peer("strong_migrations", "lock_shared_exclusive", ("copies-table",)),
    Peer("strong_migrations", "add_index_columns", ("wide-index",)),
    Peer("strong_migrations", "remove_index", ("drop-index-not-concurrent",)),
    Peer("strong_migrations", "validate_foreign_key", ("validated-under-lock",)),
    Peer("strong_migrations", "validate_check_constraint", ("validated-under-lock",)),
    Peer("strong_migrations", "change_column_constraint", ("type-rewrites",)),
    Peer("strong_migrations", "change_column_default", ("drop-default",)),
    Peer(
        "strong_migrations",
        "change_table",
        because="There is no operation that changes a table as a block: each says what it changes.",
    ),
    Peer("strong_migrations", "add_index_corruption", ("concurrent-index-corrupts",)),
    Peer("Atlas", "DS101", ("drop-database",)),
    Peer("Atlas", "DS102", ("drop-table",)),
    Peer("Atlas", "DS103", ("drop-column",)),
    Peer("Atlas", "MF101", ("unique-added",)),
    Peer("Atlas", "MF102", ("unique-added",)),
    Peer("Atlas", "MF103", ("required-column-unfilled",)),
    Peer("Atlas", "MF104", ("not-null",)),
    Peer("Atlas", "BC101", ("rename-table",)),
    Peer("Atlas", "BC102", ("rename-column",)),
    Peer("Atlas", "CD101", ("drop-foreign-key",)),
    Peer("Atlas", "MY101", ("required-column-unfilled",)),
    Peer(
        "Atlas",
        "MY102",
        because="Foreign keys are constraints of the table here, never an inline REFERENCES, which MySQL reads over.",
    ),
    Peer("Atlas", "LT101", ("not-null",)),
    Peer("Atlas", "concurrent index", ("index-not-concurrent",)),
    Peer("Atlas", "naming", because="Names are made by covet-orm, the same for everybody."),
    Peer(
        "Atlas",
        "non-linear",
        because="Two ends of one application are an error before anything runs: `makemigrations --merge`.",
    ),
)
