"""What SQL does that somebody wrote, as far as its words tell.

sqlglot (the extra `covet-migrate[lint]`) takes it apart, so that nothing in a literal, a comment or the body of a
function is taken for a command. What is not known to be harmless needs a review.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from covet_migrate.safety.effects import Blocks
from covet_migrate.safety.postgresql import BLOCKS
from covet_migrate.safety.raw_locks import lock_of

__all__ = ["RawStatement", "read_sql"]

DIALECTS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
POSTGRESQL = ("postgresql",)
ONLINE_DDL = ("mysql", "mariadb")


@dataclass(frozen=True, slots=True)
class RawStatement:
    """What is known of a statement.

    Attributes:
        rules: the names of the rules that it breaks; `raw-sql` where it is not known what it does.
        tables: the tables that it names; empty where that is not known.
        changes_rows: whether it changes rows that are there.
        concurrent: whether it cannot be in a transaction.
        lock: the lock that it takes on the table that it is about (PostgreSQL); empty where that is none, or not known.
    """

    rules: frozenset[str]
    tables: frozenset[str] = frozenset()
    changes_rows: bool = False
    concurrent: bool = False
    lock: str = ""

    @property
    def blocks(self) -> Blocks:
        """Whom its lock keeps waiting (PostgreSQL)."""
        if "reindex-not-concurrent" in self.rules:
            # ACCESS EXCLUSIVE is on the indexes, at all of which is looked where a query is planned.
            return Blocks.EVERYBODY
        return BLOCKS[self.lock] if self.lock else Blocks.NOBODY

    def describe(self) -> str:
        """What it locks, for people; empty where that is nothing, or not known."""
        if not self.lock:
            return ""
        on = f" on {', '.join(sorted(self.tables))}" if self.tables else ""
        return f"{self.lock}{on}, which blocks {self.blocks}"


NOT_LATER = r"(?!.*\bNOT VALID\b)"
NOT_BUILT = r"(?!.*\bUSING INDEX\b)"
ALTER = r"^ALTER TABLE\b.*"
PATTERNS: Sequence[tuple[str, Collection[str], str]] = (
    ("transaction-control", (), r"^(BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE "
     r"TRANSACTION)\b"),
    ("drop-database", (), r"^DROP (DATABASE|SCHEMA)\b"),
    ("drop-table", (), r"^DROP TABLE\b"),
    ("truncate", (), r"^TRUNCATE\b"),
    ("locks-table", (), r"^LOCK\b"),
    ("drop-column", (), ALTER + r"\bDROP (COLUMN\b|(?!CONSTRAINT\b|DEFAULT\b|NOT "
     r"NULL\b|EXPRESSION\b|IDENTITY\b|INDEX\b|"
     r"KEY\b|FOREIGN KEY\b|PRIMARY KEY\b|CHECK\b|PARTITION\b))"),
    ("rename-table", (), r"^(ALTER TABLE (IF EXISTS )?(ONLY )?\S+ RENAME (TO|AS)\b|RENAME TABLE\b)"),
    ("rename-column", (), ALTER + r"\bRENAME (COLUMN\b|(?!TO\b|AS\b|CONSTRAINT\b|INDEX\b|KEY\b)\S+ TO\b)"),
    ("rename-column", ONLINE_DDL, ALTER + r"\bCHANGE\b"),
    ("rename-schema", (), r"^ALTER SCHEMA\b.*\bRENAME\b"),
    ("required-column", (), ALTER + r"\bADD (?!CONSTRAINT\b|PRIMARY KEY\b|UNIQUE\b|CHECK\b|FOREIGN KEY\b|INDEX\b|KEY\b)"
     r"(?!.*\b(DEFAULT|GENERATED|SERIAL|BIGSERIAL|AUTO_INCREMENT)\b).*\bNOT NULL\b"),
    ("volatile-default", POSTGRESQL, ALTER + r"\bADD\b.*\bDEFAULT\b.*\b(random|gen_random_uuid|uuidv4|uuidv7|"
     r"uuid_generate_\w+|clock_timestamp|timeofday|nextval) \("),
    ("stored-column", ("postgresql", *ONLINE_DDL), ALTER + r"\bADD\b.*\bGENERATED ALWAYS AS "
     r"\(.*\b(STORED|PERSISTENT)\b"),
    ("counting-column", (), ALTER + r"\bADD\b.*\b(SMALLSERIAL|SERIAL|BIGSERIAL|AS IDENTITY|AUTO_INCREMENT)\b"),
    ("small-key", POSTGRESQL, r"\b(SMALLSERIAL|SERIAL)\b"),
    ("not-null", (), ALTER + r"\bSET NOT NULL\b"),
    ("set-not-null-reads", POSTGRESQL, ALTER + r"\bSET NOT NULL\b"),
    ("drop-not-null", (), ALTER + r"\bDROP NOT NULL\b"),
    ("type-rewrites", POSTGRESQL, ALTER + r"\bALTER (COLUMN )?\S+ (SET DATA )?TYPE\b"),
    ("copies-table", ONLINE_DDL, ALTER + r"\b(MODIFY|CHANGE|ADD (CONSTRAINT \S+ )?(FOREIGN KEY|CHECK)|CONVERT TO|"
     r"ALGORITHM = COPY|LOCK = (SHARED|EXCLUSIVE))\b"),
    ("copies-table", ONLINE_DDL, r"^CREATE\b.*\bINDEX\b.*\b(ALGORITHM = COPY|LOCK = (SHARED|EXCLUSIVE))\b"),
    ("foreign-key-checked-at-once", POSTGRESQL, ALTER + r"\bADD\b.*\b(FOREIGN KEY|REFERENCES)\b" + NOT_LATER),
    ("constraint-checked-at-once", POSTGRESQL, ALTER + r"\bADD (CONSTRAINT \S+ )?CHECK\b" + NOT_LATER),
    ("unique-built-at-once", POSTGRESQL, ALTER + r"\bADD\b.*\bUNIQUE\b" + NOT_BUILT),
    ("primary-key-built-at-once", POSTGRESQL, ALTER + r"\bADD\b.*\bPRIMARY KEY\b" + NOT_BUILT),
    ("exclusion-built-at-once", POSTGRESQL, ALTER + r"\bADD\b.*\bEXCLUDE\b"),
    ("unique-added", (), r"^(CREATE UNIQUE INDEX\b|ALTER TABLE\b.*\bADD\b.*\bUNIQUE\b" + NOT_BUILT + ")"),
    ("index-not-concurrent", POSTGRESQL, r"^CREATE (UNIQUE )?INDEX\b(?! CONCURRENTLY\b)"),
    ("drop-index-not-concurrent", POSTGRESQL, r"^DROP INDEX\b(?! CONCURRENTLY\b)"),
    ("reindex-not-concurrent", POSTGRESQL, r"^REINDEX\b(?!.*\bCONCURRENTLY\b)"),
    ("detach-not-concurrent", POSTGRESQL, ALTER + r"\bDETACH PARTITION\b(?!.*\b(CONCURRENTLY|FINALIZE)\b)"),
    ("full-vacuum", POSTGRESQL, r"^(VACUUM\b.*\bFULL\b|CLUSTER\b|REPACK\b(?!.*\bCONCURRENTLY\b))"),
    ("enum-value-renamed", POSTGRESQL, r"^ALTER TYPE\b.*\bRENAME VALUE\b"),
    ("enum-value-order", POSTGRESQL, r"^ALTER TYPE\b.*\bADD VALUE\b(?!.*\b(BEFORE|AFTER)\b)"),
    ("domain-constraint", POSTGRESQL, r"^(CREATE DOMAIN\b.*\b(CHECK|NOT NULL|CONSTRAINT)\b|ALTER DOMAIN\b.*\bADD\b)"),
    ("char-type", POSTGRESQL, r"^(CREATE|ALTER) TABLE\b.*\bCHAR(ACTER)?\b(?! VARYING)"),
    ("json-type", POSTGRESQL, r"^(CREATE|ALTER) TABLE\b.*\bJSON\b"),
    ("time-without-zone", POSTGRESQL, r"^(CREATE|ALTER) TABLE\b.*\bTIMESTAMP\b(?! (\( \? \) )?WITH TIME ZONE)"),
    ("all-rows-at-once", (), r"^(UPDATE|DELETE)\b(?!.*\bWHERE\b)"),
)  # fmt: skip
"""The rules, the databases that each is about (all where none is named), and what breaks it."""

HARMLESS = re.compile(
    r"^(SELECT|WITH|VALUES|TABLE|INSERT|UPDATE|DELETE|MERGE|REPLACE|COMMENT|GRANT|REVOKE|ANALYZE|SET|RESET|SHOW|PRAGMA|"
    r"NOTIFY|REFRESH MATERIALIZED VIEW CONCURRENTLY|CREATE (OR REPLACE )?(TEMP(ORARY)? )?(DEFINER = \S+ )?"
    r"(RECURSIVE )?(VIEW|MATERIALIZED VIEW|EXTENSION|FUNCTION|PROCEDURE|TRIGGER|SEQUENCE|SCHEMA|TYPE|TABLE|POLICY|"
    r"DOMAIN|COLLATION|STATISTICS|PUBLICATION|ROLE|USER|EVENT)\b|"
    r"DROP (VIEW|MATERIALIZED VIEW|EXTENSION|FUNCTION|PROCEDURE|TRIGGER|SEQUENCE|TYPE|POLICY|DOMAIN|STATISTICS|EVENT|"
    r"PUBLICATION|COLLATION)\b|"
    r"ALTER (VIEW|SEQUENCE|FUNCTION|PROCEDURE|EXTENSION|TYPE \S+ ADD VALUE|POLICY|ROLE|USER|DEFAULT PRIVILEGES)\b|"
    r"CREATE (UNIQUE |FULLTEXT |SPATIAL )?INDEX\b|DROP INDEX\b|REINDEX\b|VACUUM\b|"
    r"ALTER TABLE (IF EXISTS )?(ONLY )?\S+ (ADD|DROP|VALIDATE|ATTACH|DETACH|ENABLE|DISABLE|SET|RESET|OWNER|"
    r"ALTER (COLUMN )?\S+ (SET|DROP|RESET))\b)",
    re.IGNORECASE,
)
"""What does no harm where it breaks none of the rules."""
CONCURRENT = re.compile(
    r"^((CREATE|DROP|REINDEX)\b.*\bCONCURRENTLY\b|ALTER TABLE\b.*\bDETACH PARTITION\b.*\bCONCURRENTLY\b|VACUUM\b|"
    r"(CREATE|DROP) DATABASE\b)",
    re.IGNORECASE,
)
TABLE = re.compile(
    r"\b(?:(?:ALTER|DROP|TRUNCATE) TABLE (?:IF EXISTS )?(?:ONLY )?|TRUNCATE (?!TABLE)|"
    r"INDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?\S* ?ON (?:ONLY )?|^UPDATE (?:ONLY )?|^DELETE FROM (?:ONLY )?|"
    r"^LOCK (?:TABLE )?(?:ONLY )?|^REINDEX TABLE (?:CONCURRENTLY )?|^VACUUM (?:FULL )?|^CLUSTER (?:VERBOSE )?)(\S+)",
    re.IGNORECASE,
)
ROUTINE = re.compile(r"^CREATE\b.*\b(TRIGGER|PROCEDURE|FUNCTION|EVENT)\b", re.IGNORECASE)
CHANGES_ROWS = re.compile(r"^(WITH\b.*\b)?(UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_COMPILED = [(rule, kinds, re.compile(pattern, re.IGNORECASE)) for rule, kinds, pattern in PATTERNS]
_UNKNOWN = RawStatement(frozenset(("raw-sql",)))


def read_sql(sql: str, kind: str) -> list[RawStatement]:
    """What is known of SQL, one for each statement in it.

    Args:
        sql: its text.
        kind: of the database.
    """
    try:
        from sqlglot.dialects import Dialect
        from sqlglot.errors import SqlglotError
    except ModuleNotFoundError:
        return [_UNKNOWN]
    if "/*!" in sql and kind in ONLINE_DDL:
        # A comment that these run.
        return [_UNKNOWN]
    dialect = Dialect.get_or_raise(DIALECTS[kind])
    try:
        texts = _texts(dialect, dialect.tokenize(sql))
    except SqlglotError:
        return [_UNKNOWN]
    return [_read(text, kind) for text in texts]


def _texts(dialect: Any, tokens: Sequence[Any]) -> list[str]:
    """The words of each statement; a question mark for every literal, nothing of what a trigger or a routine does."""
    found: list[list[str]] = [[]]
    depth = 0
    for position, token in enumerate(tokens):
        name = token.token_type.name
        if depth or (name == "BEGIN" and ROUTINE.match(" ".join(found[-1]))):
            around = [one.text.upper() for one in tokens[max(position - 1, 0) : position + 2]]
            depth += _nests(name, around)
            continue
        command = position > 0 and tokens[position - 1].token_type.name in ("COMMAND", "LOCK")
        if name == "SEMICOLON":
            found.append([])
        elif name == "STRING" and command and tokens[position - 1].text.upper() not in ("DO", "EXECUTE"):
            # The tokenizer leaves what stands behind some commands as it is.
            found[-1] += _texts(dialect, dialect.tokenize(token.text))[:1]
        elif name == "IDENTIFIER":
            found[-1].append("".join(letter if letter.isalnum() or letter == "_" else "_" for letter in token.text))
        elif name.endswith("STRING") or name == "NUMBER":
            found[-1].append("?")
        else:
            found[-1].append(token.text)
    return [" ".join(words) for words in found if words]


def _nests(name: str, around: Sequence[str]) -> int:
    """How much deeper into the body of a routine a word leads, told by the words beside it."""
    before, word, *after = around
    if name in ("IDENTIFIER", "STRING"):
        return 0
    if word in ("BEGIN", "CASE"):
        return 0 if before == "END" else 1
    return -1 if word == "END" and not {*after} & {"IF", "LOOP", "WHILE", "REPEAT"} else 0


def _read(text: str, kind: str) -> RawStatement:
    rules = {rule for rule, kinds, pattern in _COMPILED if (not kinds or kind in kinds) and pattern.search(text)}
    if not rules and not HARMLESS.match(text):
        return _UNKNOWN
    tables = frozenset(name.rpartition(".")[2] for name in TABLE.findall(text))
    return RawStatement(
        frozenset(rules), tables, CHANGES_ROWS.match(text) is not None,
        kind == "postgresql" and CONCURRENT.match(text) is not None,
        lock_of(text) if kind == "postgresql" else "",
    )  # fmt: skip
