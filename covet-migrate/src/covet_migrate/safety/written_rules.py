"""Rules about SQL that somebody wrote: `RunSQL`. Most of what it may do has a rule among the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from covet_migrate.safety.findings import Severity
from covet_migrate.safety.rules import Found, Rule, Subject, register

__all__: list[str] = []

POSTGRESQL = ("postgresql",)
EVERYWHERE = ("postgresql", "mysql", "mariadb", "sqlite")
SERVERS = ("postgresql", "mysql", "mariadb")

RULES = (
    ("raw-sql", Severity.ERROR, EVERYWHERE, "SQL of which nobody here knows what it does",
     "It may lock, lose or change anything.",
     "Read what the server's manual says of its locks, and say so: Reviewed(...). `pip install covet-migrate[lint]` "
     "brings "
     "the parser that knows what most SQL does."),
    ("transaction-control", Severity.ERROR, EVERYWHERE, "SQL begins or ends a transaction",
     "The migration is a transaction already, whose history would be committed apart from it.",
     "Leave it out; atomic=False is a migration whose steps are committed one by one."),
    ("drop-database", Severity.ERROR, EVERYWHERE, "A database or a schema is dropped",
     "All that is in it is gone.", "Not in a migration; by hand, with a backup."),
    ("truncate", Severity.ERROR, EVERYWHERE, "A table is emptied",
     "Its rows are gone, with CASCADE those of the tables that refer to it as well, and everybody waits for the lock.",
     "DELETE in batches, of what may go."),
    ("rename-schema", Severity.ERROR, POSTGRESQL, "A schema is renamed",
     "Code that runs asks for it by its old name, and fails.",
     "A new schema, with views of the tables of the old one until all code is new."),
    ("enum-value-renamed", Severity.ERROR, POSTGRESQL, "A value of an enum is renamed",
     "Code that runs writes and expects the old one, and fails.",
     "Add the new value, change the rows in batches, and leave the old one."),
    ("enum-value-order", Severity.NOTE, POSTGRESQL, "A value of an enum is added without a place",
     "It sorts behind all others, whatever it means.", "ALTER TYPE ... ADD VALUE ... BEFORE or AFTER another one."),
    ("domain-constraint", Severity.WARNING, POSTGRESQL, "A domain gets a constraint",
     "Every table that uses the domain is read under a lock, and no NOT VALID helps with all of them.",
     "A check constraint of the column: CheckConstraint."),
    ("char-type", Severity.NOTE, POSTGRESQL, "A column of CHAR(n)",
     "It is filled up with spaces, and is not faster.", "TEXT or VARCHAR: TextField, CharField."),
    ("json-type", Severity.WARNING, POSTGRESQL, "A column of JSON",
     "It has no equality: SELECT DISTINCT and GROUP BY of the table fail.", "JSONB, as JSONField has it."),
    ("reindex-not-concurrent", Severity.ERROR, POSTGRESQL, "An index is built anew while nobody may use the table",
     "Writers wait for as long as it is built, and readers too: a query is planned with all indexes of the table.",
     "REINDEX ... CONCURRENTLY, as RunSQL(..., transactional=False) in a migration with atomic=False."),
    ("detach-not-concurrent", Severity.ERROR, POSTGRESQL, "A partition is detached under a lock against everybody",
     "ACCESS EXCLUSIVE on the whole table waits for every query, and everybody waits behind it.",
     "DETACH PARTITION ... CONCURRENTLY, as RunSQL(..., transactional=False) in a migration with atomic=False."),
    ("full-vacuum", Severity.ERROR, POSTGRESQL, "A table is written anew to make it smaller",
     "VACUUM FULL and CLUSTER keep everybody waiting for as long as it takes.",
     "VACUUM, which keeps nobody waiting; to give space back, pg_repack, or REPACK (CONCURRENTLY) of PostgreSQL 19."),
    ("locks-table", Severity.ERROR, SERVERS, "SQL locks a table by name",
     "Others wait until the end of the transaction.", "Leave the lock to the statement that needs it."),
    ("unused-review", Severity.WARNING, EVERYWHERE, "A review of something that no rule finds",
     "Who reads it takes the operation for worse than it is.", "Take the rule, or Reviewed(...), away."),
)  # fmt: skip
"""`unused-review` is found by `linting`, when all others have been asked."""


def _written(name: str) -> Callable[[Subject], Iterator[Found]]:
    def check(subject: Subject) -> Iterator[Found]:
        yield from subject.written(name)

    return check


for name, severity, kinds, title, why, instead in RULES:
    register(Rule(name, severity, title, why, instead, _written(name), kinds))
