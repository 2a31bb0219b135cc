"""Which lock a statement of PostgreSQL takes that somebody wrote, by its words
(https://www.postgresql.org/docs/current/explicit-locking.html)."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["lock_of"]

LOCKS: Sequence[tuple[str, str]] = (
    (r"^CREATE (UNIQUE )?INDEX CONCURRENTLY\b", "SHARE UPDATE EXCLUSIVE"),
    (r"^CREATE (UNIQUE )?INDEX\b", "SHARE"),
    (r"^DROP INDEX CONCURRENTLY\b", "SHARE UPDATE EXCLUSIVE"),
    (r"^DROP INDEX\b", "ACCESS EXCLUSIVE"),
    (r"^REINDEX\b.*\bCONCURRENTLY\b", "SHARE UPDATE EXCLUSIVE"),
    (r"^REINDEX\b", "SHARE"),
    (r"^(VACUUM\b.*\bFULL\b|CLUSTER\b|TRUNCATE\b|DROP (TABLE|MATERIALIZED VIEW)\b)", "ACCESS EXCLUSIVE"),
    (r"^(VACUUM|ANALYZE)\b", "SHARE UPDATE EXCLUSIVE"),
    (r"^REFRESH MATERIALIZED VIEW CONCURRENTLY\b", "EXCLUSIVE"),
    (r"^REFRESH MATERIALIZED VIEW\b", "ACCESS EXCLUSIVE"),
    (r"^CREATE (OR REPLACE )?(CONSTRAINT )?TRIGGER\b", "SHARE ROW EXCLUSIVE"),
    (r"^DROP TRIGGER\b", "ACCESS EXCLUSIVE"),
    (r"^COMMENT ON (TABLE|COLUMN)\b", "SHARE UPDATE EXCLUSIVE"),
    (r"^(INSERT|UPDATE|DELETE|MERGE)\b", "ROW EXCLUSIVE"),
    (
        r"^ALTER TABLE\b.*\b(VALIDATE CONSTRAINT|DETACH PARTITION\b.*\bCONCURRENTLY|SET STATISTICS|CLUSTER ON|"
        r"SET WITHOUT CLUSTER)\b",
        "SHARE UPDATE EXCLUSIVE",
    ),
    (r"^ALTER TABLE\b.*\b((ENABLE|DISABLE) (\w+ )?TRIGGER|ADD (CONSTRAINT \S+ )?FOREIGN KEY)\b", "SHARE ROW EXCLUSIVE"),
    (r"^ALTER TABLE\b", "ACCESS EXCLUSIVE"),
)
"""The lock of a table that each statement takes; the first that fits."""
MODE = re.compile(r"^LOCK\b.*\bIN ([A-Z ]+) MODE\b", re.IGNORECASE)
_COMPILED = [(re.compile(pattern, re.IGNORECASE), lock) for pattern, lock in LOCKS]


def lock_of(text: str) -> str:
    """The lock that a statement takes on the table that it is about; empty where that is none, or not known.

    Args:
        text: its words, with a question mark for every literal.
    """
    if re.match(r"LOCK\b", text, re.IGNORECASE):
        mode = MODE.match(text)
        return " ".join(mode[1].upper().split()) if mode is not None else "ACCESS EXCLUSIVE"
    return next((lock for pattern, lock in _COMPILED if pattern.search(text)), "")
