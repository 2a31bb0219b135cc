"""What the translations of the servers' errors have in common: classes and words. No message holds a value of a row."""

from __future__ import annotations

from collections.abc import Sequence

from covet_orm.exceptions import (
    CheckViolation,
    ConnectionLost,
    DatabaseUnavailable,
    ExclusionViolation,
    ForeignKeyViolation,
    IntegrityError,
    NotNullViolation,
    UniqueViolation,
)
from covet_orm.urls import Target

__all__ = ["DEADLOCK", "interrupted", "not_in_use_twice", "unavailable", "violation"]

DEADLOCK = (
    "a deadlock; the server chose this transaction to end: try it again from its beginning, as "
    "transaction_manager.retry() does, and let all code take its locks in one order"
)
"""The words about a deadlock."""
WORDS: dict[type[IntegrityError], str] = {
    UniqueViolation: "another row has the same value already",
    ForeignKeyViolation: "the row that it refers to is not there, or a row that others refer to would go",
    NotNullViolation: "a value is required and there is none",
    CheckViolation: "the condition of a check constraint does not hold",
    ExclusionViolation: "it overlaps with another row, which an exclusion constraint forbids",
    IntegrityError: "a constraint does not hold",
}


def violation(
    kind: type[IntegrityError],
    *,
    code: str,
    statement: str,
    table: str = "",
    constraint: str = "",
    columns: Sequence[str] = (),
    details: str = "",
    words: str = "",
) -> IntegrityError:
    """An error about a constraint: where, what, and which one."""
    where = ", ".join(f"{table}.{column}" if table else column for column in columns) or table
    named = f" (constraint {constraint})" if constraint else ""
    message = f"{where}: {words or WORDS[kind]}{named}" if where else f"{words or WORDS[kind]}{named}"
    return kind(
        message, code=code, statement=statement, table=table, constraint=constraint, columns=columns, details=details
    )


def unavailable(target: Target, reason: str, *, code: str = "") -> DatabaseUnavailable:
    """An error about a connection that could not be made."""
    return DatabaseUnavailable(f"cannot connect to {target.where}: {reason}", code=code)


def interrupted(statement: str) -> ConnectionLost:
    """An error about a connection whose last statement was cancelled on its way; it is not used again."""
    return ConnectionLost(
        "the connection was interrupted in the middle of its last statement and is not used again; nothing was sent",
        statement=statement,
        sent=False,
    )


def not_in_use_twice() -> str:
    """The words about two tasks on one connection."""
    return "another statement is under way on this connection: a connection is used by one task at a time"
