"""The errors of MySQL, MariaDB, PyMySQL and aiomysql in the words of `covet_orm.exceptions`, by error number.

Source: MySQL Error Message Reference (server and client errors), MariaDB Error Code Reference. The servers' own words
are given on only where they cannot cite a value: parameters are part of the statement that MySQL parses.
"""

from __future__ import annotations

import re
import ssl

from pymysql.err import InterfaceError, MySQLError  # type: ignore[import-untyped]

from covet_orm.drivers.errors import DEADLOCK, unavailable, violation
from covet_orm.exceptions import (
    CheckViolation,
    ConnectionLost,
    DatabaseError,
    DatabaseUnavailable,
    DataError,
    DeadlockDetected,
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
from covet_orm.urls import Target

__all__ = ["translate", "translate_connect"]

VIOLATIONS: dict[int, type[IntegrityError]] = {
    1022: UniqueViolation,
    1048: NotNullViolation,
    1062: UniqueViolation,
    1169: UniqueViolation,
    1216: ForeignKeyViolation,
    1217: ForeignKeyViolation,
    1364: NotNullViolation,
    1451: ForeignKeyViolation,
    1452: ForeignKeyViolation,
    1557: ForeignKeyViolation,
    1586: UniqueViolation,
    1761: ForeignKeyViolation,
    1762: ForeignKeyViolation,
    1859: UniqueViolation,
    3819: CheckViolation,
    4025: CheckViolation,
}
READ_ONLY = "a write reached a server or a transaction that only reads, such as a replica"
BROKE = "the connection to the server broke while the statement ran; whether it had an effect is not known"
ENDED = "the server ended the connection: it shuts down, or somebody ended the session"
FAULTS: dict[int, tuple[type[DatabaseError], str]] = {
    1020: (SerializationFailure, "a row was changed since the transaction began; try it again from its beginning"),
    1040: (DatabaseUnavailable, "the server has too many connections"),
    1053: (ConnectionLost, ENDED),
    1077: (ConnectionLost, ENDED),
    1079: (ConnectionLost, ENDED),
    1153: (DataError, "the statement is larger than the server's max_allowed_packet"),
    1205: (LockTimeout, "a lock was not to be had in time; another transaction holds it"),
    1213: (DeadlockDetected, DEADLOCK),
    1264: (DataError, "a number is out of its column's range"),
    1265: (DataError, "a value does not fit its column"),
    1290: (ReadOnlyDatabase, READ_ONLY),
    1292: (DataError, "a value is not of its column's type, such as a date that does not exist"),
    1317: (StatementTimeout, "the statement was ended: somebody cancelled it"),
    1365: (DataError, "a division by zero"),
    1366: (DataError, "a value is not of its column's type, or holds a character that its column cannot"),
    1406: (DataError, "a value is longer than its column"),
    1411: (DataError, "a value is not of the form that its type has"),
    1690: (DataError, "a number is out of range"),
    1792: (ReadOnlyDatabase, READ_ONLY),
    1836: (ReadOnlyDatabase, READ_ONLY),
    1927: (ConnectionLost, ENDED),
    1969: (StatementTimeout, "the server ended the statement: it took longer than statement_timeout"),
    2006: (ConnectionLost, BROKE),
    2013: (ConnectionLost, BROKE),
    2014: (ConnectionLost, "the connection and the server lost track of each other; it is not used again"),
    3024: (StatementTimeout, "the server ended the statement: it took longer than statement_timeout"),
    3101: (SerializationFailure, "the transaction conflicts with one on another node; try it again from its beginning"),
    3140: (DataError, "a text is no JSON"),
    3141: (DataError, "a text is no JSON"),
    3572: (LockTimeout, "a lock was not to be had at once; another transaction holds it"),
    4031: (ConnectionLost, "the server ended the connection: it idled for longer than wait_timeout"),
    4079: (DataError, "a value is not of a type that its place takes"),
}
FAMILIES: dict[str, tuple[type[DatabaseError], str]] = {
    "08": (ConnectionLost, BROKE),
    "22": (DataError, "a value does not fit"),
    "23": (IntegrityError, "a constraint does not hold"),
    "40": (SerializationFailure, "the server rolled the transaction back; try it again from its beginning"),
    "70": (StatementTimeout, "the statement was ended"),
}
"""By the first two characters of the SQLSTATE that comes with the number."""
NAMING = {
    1046,
    1049,
    1050,
    1051,
    1054,
    1060,
    1061,
    1091,
    1109,
    1142,
    1143,
    1146,
    1176,
    1227,
    1305,
    1370,
    1630,
    1193,
    1235,
}
"""Errors whose words name objects, not values."""
WRONG = {*NAMING, 1064, 1901, 1005, 1072, 1071, 1068, 1101, 1170, 1215, 1295, 1336, 1424, 4078, 4166}
"""Errors of the statement itself, some of which come with an SQLSTATE that does not tell."""
IDENTIFIER = r"`((?:[^`]|``)*)`"


def translate(error: BaseException, statement: str, *, quotable: bool = False) -> DatabaseError | None:
    """What an error of aiomysql is here; None for what is none of a database.

    Args:
        error: what aiomysql raised.
        statement: the SQL.
        quotable: whether the statement had no parameters, so that what the server cites of it is no value.
    """
    if isinstance(error, MySQLError) and error.args and isinstance(error.args[0], int):
        number, text = error.args[0], str(error.args[1]) if len(error.args) > 1 else ""
        return _of_server(number, text, getattr(error, "sqlstate", None) or "", statement, quotable)
    if isinstance(error, InterfaceError):
        return ConnectionLost(
            "the connection to the server is closed; nothing was sent", statement=statement, sent=False
        )
    if isinstance(error, (OSError, EOFError)):
        return ConnectionLost(BROKE, statement=statement)
    if isinstance(error, MySQLError):
        return ConnectionLost(
            "the server said what the driver did not expect; the connection is not used again", statement=statement
        )
    return None


def translate_connect(error: BaseException, target: Target, timeout: float) -> DatabaseUnavailable | None:
    """What an error is that came instead of a connection; None for what is none of a database."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, TimeoutError):
        return unavailable(target, f"no answer in {timeout:g} seconds (connect_timeout)")
    if isinstance(cause, ssl.SSLError):
        return unavailable(target, f"TLS failed: {cause.reason or cause.strerror or type(cause).__name__}")
    if isinstance(cause, OSError):
        return unavailable(target, cause.strerror or str(cause) or type(cause).__name__)
    if isinstance(error, MySQLError):
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        reasons = {
            1040: "the server has too many connections",
            1044: f"the user {target.user!r} may not use this database",
            1045: f"the user {target.user!r} does not exist, or its password is wrong",
            1049: "there is no such database",
            1129: "the server refuses this host after too many errors",
            1130: "the server lets nobody in from this host",
            1203: f"the user {target.user!r} has too many connections",
            1226: f"the user {target.user!r} has used up what it may",
            1698: f"the server does not let the user {target.user!r} in like this",
        }
        reason = reasons.get(number) or f"the server refused: {error.args[-1] if error.args else type(error).__name__}"
        return unavailable(target, f"{reason} ({number})" if number else reason, code=str(number or ""))
    if isinstance(error, EOFError):
        return unavailable(target, "the server closed the connection")
    return None


def _of_server(number: int, text: str, sqlstate: str, statement: str, quotable: bool) -> DatabaseError:
    """By the error number, then by the SQLSTATE."""
    code = str(number)
    kind = VIOLATIONS.get(number)
    if kind is not None:
        return _violation(kind, code, text, statement)
    fault = FAULTS.get(number) or FAMILIES.get(sqlstate[:2])
    if fault is not None:
        made, words = fault
        column = re.search(r"for column (?:`[^`]*`\.`[^`]*`\.)?[`']([^`']+)[`'] at row", text)
        return made(f"{column[1] + ': ' if column else ''}{words} ({code})", code=code, statement=statement)
    wrong = number in WRONG or sqlstate[:2] in ("42", "0A", "21", "25", "3D")
    line = re.search(r"at line (\d+)$", text)
    if quotable or number in NAMING:
        words = text
    elif number == 1064 and line is not None:
        words = f"a syntax error in line {line[1]}"
    else:
        words = f"the server refused the statement, SQLSTATE {sqlstate}"
    made = ProgrammingError if wrong else DatabaseError
    return made(f"{words} ({code})", code=code, statement=statement)


def _violation(kind: type[IntegrityError], code: str, text: str, statement: str) -> IntegrityError:
    """What the words of the server tell; they differ between MySQL and MariaDB, and from version to version."""
    table, constraint = "", ""
    columns: list[str] = []
    if kind is UniqueViolation:
        # "Duplicate entry '...' for key 'name'" (MariaDB), "... for key 'table.name'" (MySQL 8.0.19 and later)
        key = re.search(r"for key '([^']*)'$", text)
        if key is not None:
            table, _, constraint = key[1].rpartition(".")
    elif kind is ForeignKeyViolation:
        told = re.search(
            rf"\({IDENTIFIER}\.{IDENTIFIER}, CONSTRAINT {IDENTIFIER} FOREIGN KEY \(({IDENTIFIER}(?:, {IDENTIFIER})*)\)",
            text,
        )
        if told is not None:
            table, constraint = told[2].replace("``", "`"), told[3].replace("``", "`")
            columns = [name.replace("``", "`") for name in re.findall(IDENTIFIER, told[4])]
    elif kind is NotNullViolation:
        column = re.match(r"(?:Column|Field) '([^']*)'", text)
        columns = [column[1]] if column else []
    elif kind is CheckViolation:
        # "CONSTRAINT `name` failed for `db`.`table`" (MariaDB; of a column's check the name is `table.column`)
        failed = re.match(rf"CONSTRAINT {IDENTIFIER} failed for {IDENTIFIER}\.{IDENTIFIER}", text)
        check = re.match(r"Check constraint '([^']*)' is violated", text)
        if failed is not None:
            constraint, table = failed[1], failed[3]
            if constraint.startswith(f"{table}."):
                columns = [constraint[len(table) + 1 :]]
        elif check is not None:
            constraint = check[1]
    return violation(
        kind, code=code, statement=statement, table=table, constraint=constraint, columns=columns, details=text
    )
