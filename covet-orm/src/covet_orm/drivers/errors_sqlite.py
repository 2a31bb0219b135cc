"""The errors of SQLite in the words of `covet_orm.exceptions`, by extended result code.

Source: https://sqlite.org/rescode.html. The messages of constraints are those of SQLite's code generator.
"""

from __future__ import annotations

import re
import sqlite3

from covet_orm.drivers.errors import violation
from covet_orm.exceptions import (
    CheckViolation,
    ConnectionLost,
    DatabaseError,
    DatabaseUnavailable,
    DataError,
    ForeignKeyViolation,
    IntegrityError,
    LockTimeout,
    NotNullViolation,
    ProgrammingError,
    ReadOnlyDatabase,
    SerializationFailure,
    StatementTimeout,
    UniqueViolation,
)

__all__ = ["NotANumberError", "StatementEndedError", "translate"]

VIOLATIONS: dict[str, type[IntegrityError]] = {
    "SQLITE_CONSTRAINT_UNIQUE": UniqueViolation,
    "SQLITE_CONSTRAINT_PRIMARYKEY": UniqueViolation,
    "SQLITE_CONSTRAINT_ROWID": UniqueViolation,
    "SQLITE_CONSTRAINT_NOTNULL": NotNullViolation,
    "SQLITE_CONSTRAINT_FOREIGNKEY": ForeignKeyViolation,
    "SQLITE_CONSTRAINT_CHECK": CheckViolation,
}
FAULTS: dict[str, tuple[type[DatabaseError], str]] = {
    "SQLITE_BUSY": (LockTimeout, "the database is locked by another connection, for longer than busy_timeout"),
    "SQLITE_BUSY_SNAPSHOT": (
        SerializationFailure,
        "another connection wrote since this transaction began to read; try it again from its beginning",
    ),
    "SQLITE_LOCKED": (LockTimeout, "a table is locked by another statement of this connection"),
    "SQLITE_READONLY": (ReadOnlyDatabase, "a write reached a connection or a file that is only for reading"),
    "SQLITE_INTERRUPT": (StatementTimeout, "the statement was interrupted"),
    "SQLITE_CONSTRAINT_DATATYPE": (DataError, "a value is not of its column's type, in a STRICT table"),
    "SQLITE_TOOBIG": (DataError, "a text, a blob or the statement itself is too large"),
    "SQLITE_MISMATCH": (DataError, "a value is not of its column's type"),
    "SQLITE_RANGE": (ProgrammingError, "a parameter that the statement does not have"),
    "SQLITE_FULL": (DatabaseError, "the disk is full"),
    "SQLITE_NOMEM": (DatabaseError, "out of memory"),
    "SQLITE_IOERR": (DatabaseError, "the file of the database cannot be read or written"),
    "SQLITE_CORRUPT": (DatabaseError, "the file of the database is damaged"),
    "SQLITE_NOTADB": (DatabaseUnavailable, "the file is no SQLite database"),
    "SQLITE_CANTOPEN": (
        DatabaseUnavailable,
        "the file of the database cannot be opened; check that its directory is there and may be written",
    ),
    "SQLITE_PERM": (DatabaseUnavailable, "the file of the database may not be opened"),
    "SQLITE_SCHEMA": (SerializationFailure, "the schema was changed meanwhile; try it again"),
    "SQLITE_MISUSE": (ProgrammingError, ""),
    "SQLITE_ERROR": (ProgrammingError, ""),
    "SQLITE_AUTH": (ProgrammingError, ""),
}
"""Where the words are empty, SQLite's own stand there: they cite the statement, which holds no values."""


class StatementEndedError(Exception):
    """A statement was to end before it began."""


class NotANumberError(ValueError):
    """A parameter is NaN, which SQLite would store as NULL without a word."""


def translate(error: BaseException, statement: str) -> DatabaseError | None:
    """What an error of sqlite3 or aiosqlite is here; None for what is none of a database."""
    if isinstance(error.__context__, (OverflowError, UnicodeError, sqlite3.ProgrammingError, sqlite3.InterfaceError)):
        # A parameter was refused; the module raises the connection's previous error over it.
        error = error.__context__
    name: str = getattr(error, "sqlite_errorname", None) or ""
    if isinstance(error, sqlite3.Error) and name:
        return _of_engine(str(error), name, statement)
    text = str(error)
    if isinstance(error, StatementEndedError):
        return StatementTimeout("the statement was interrupted", code="SQLITE_INTERRUPT", statement=statement)
    if isinstance(error, NotANumberError):
        return DataError("a parameter is NaN, which SQLite cannot hold", statement=statement)
    if isinstance(error, OverflowError):
        return DataError("an integer is out of range: SQLite holds 64 bits", statement=statement)
    if isinstance(error, UnicodeError):
        return DataError(
            "a text holds a surrogate, which UTF-8 cannot",
            statement=statement.encode("utf-8", "replace").decode("utf-8"),
        )
    if "closed" in text or "no active connection" in text:
        return ConnectionLost("the connection is closed; nothing was sent", statement=statement, sent=False)
    if isinstance(error, (sqlite3.Error, sqlite3.Warning)):
        return _of_module(text, statement)
    return None


def _of_engine(text: str, name: str, statement: str) -> DatabaseError:
    """By the extended result code."""
    kind = VIOLATIONS.get(name)
    if kind is None and text == "FOREIGN KEY constraint failed":
        # ON DELETE RESTRICT, which SQLite does by a trigger of its own.
        kind = ForeignKeyViolation
    if kind is not None:
        return _violation(kind, name, text, statement)
    if name.startswith("SQLITE_CONSTRAINT") and name != "SQLITE_CONSTRAINT_DATATYPE":
        # A trigger's RAISE, in the words of whoever wrote it.
        return IntegrityError(f"{text} ({name})", code=name, statement=statement, details=text)
    fault, words = FAULTS.get(name) or FAULTS.get("_".join(name.split("_")[:2])) or (DatabaseError, "")
    return fault(f"{words or text} ({name})", code=name, statement=statement)


def _violation(kind: type[IntegrityError], name: str, text: str, statement: str) -> IntegrityError:
    """`UNIQUE constraint failed: t.a, t.b`, `... failed: index 'name'`, `CHECK constraint failed: name`."""
    _, _, told = text.partition(" constraint failed: ")
    table, constraint = "", ""
    columns: list[str] = []
    if kind is CheckViolation:
        constraint = told
    elif index := re.fullmatch(r"index '(.*)'", told):
        constraint = index[1]
    elif told:
        # Each column has the table's name before it; a name may hold a comma.
        table, _, first = told.partition(".")
        columns = first.split(f", {table}.")
    return violation(
        kind,
        code=name,
        statement=statement,
        table=table,
        constraint=constraint,
        columns=columns,
        details=text,
    )


def _of_module(text: str, statement: str) -> DatabaseError:
    """What the module sqlite3 finds wrong by itself, which has no code."""
    number = re.search(r"[Ee]rror binding parameter (?::)?(\w+)", text)
    if number is not None or "not supported" in text:
        place = f"parameter {number[1]}" if number else "a parameter"
        return DataError(
            f"{place} is of a type that SQLite does not hold: int, float, str, bytes and None", statement=statement
        )
    counts = re.search(r"uses (\d+), and there are (\d+) supplied", text)
    if counts is not None:
        return ProgrammingError(f"it takes {counts[1]} parameters and got {counts[2]}", statement=statement)
    return ProgrammingError(text, statement=statement)
