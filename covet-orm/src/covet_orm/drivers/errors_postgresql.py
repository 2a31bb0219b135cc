"""The errors of PostgreSQL and asyncpg in the words of `covet_orm.exceptions`, by SQLSTATE.

Source: PostgreSQL documentation, Appendix A (error codes), and section 55.8 (error and notice message fields).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from typing import Any

from asyncpg.exceptions import (
    ConnectionDoesNotExistError,
    InterfaceError,
    InternalClientError,
    InvalidCachedStatementError,
    OutdatedSchemaCacheError,
    PostgresError,
    ProtocolError,
    TargetServerAttributeNotMatched,
)
from asyncpg.exceptions import DataError as PostgresDataError

from covet_orm.deadlocks import of_postgresql
from covet_orm.drivers.errors import DEADLOCK, not_in_use_twice, unavailable, violation
from covet_orm.drivers.extensions_postgresql import advice
from covet_orm.exceptions import (
    CheckViolation,
    ConnectionLost,
    DatabaseError,
    DatabaseUnavailable,
    DataError,
    DeadlockDetected,
    ExclusionViolation,
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

PGBOUNCER = "behind a PgBouncer in transaction mode, the option pgbouncer=true is needed"
TAKES_NONE = (
    "PgBouncer passes no such setting of a session on: take it out here, and set it with ALTER ROLE ... SET on the "
    "server"
)
BROKE = "the connection to the server broke while the statement ran; whether it had an effect is not known"
VIOLATIONS: dict[str, type[IntegrityError]] = {
    "23000": IntegrityError,
    "23001": ForeignKeyViolation,
    "23502": NotNullViolation,
    "23503": ForeignKeyViolation,
    "23505": UniqueViolation,
    "23514": CheckViolation,
    "23P01": ExclusionViolation,
    "44000": CheckViolation,
}
FAULTS: dict[str, tuple[type[DatabaseError], str]] = {
    "25006": (ReadOnlyDatabase, "a write reached a transaction or a server that only reads, such as a replica"),
    "40001": (SerializationFailure, "the transaction conflicts with another one; try it again from its beginning"),
    "40002": (IntegrityError, "a deferred constraint does not hold"),
    "40003": (ConnectionLost, "whether the statement was completed is not known"),
    "55P03": (LockTimeout, "a lock was not to be had in time; another transaction holds it"),
    "57014": (
        StatementTimeout,
        "the server ended the statement: it took longer than statement_timeout, or was cancelled",
    ),
    "57P01": (ConnectionLost, "the server ended the connection: it shuts down, or an administrator ended the session"),
    "57P02": (ConnectionLost, "the server ended the connection: another session of it crashed"),
    "57P03": (ConnectionLost, "the server is starting up or shutting down"),
    "57P04": (ConnectionLost, "the database was dropped"),
    "57P05": (ConnectionLost, "the server ended the connection: it idled for longer than idle_session_timeout"),
    "25P03": (ConnectionLost, "the server ended the connection: it idled in a transaction for too long"),
    "25P04": (ConnectionLost, "the server ended the connection: a transaction took longer than transaction_timeout"),
    "22P02": (DataError, "a value is not of the form that its type has"),
    "22001": (DataError, "a text is longer than its column"),
    "22003": (DataError, "a number is out of its column's range"),
    "22008": (DataError, "a date or time is out of range"),
    "22012": (DataError, "a division by zero"),
    "22021": (DataError, "a text holds what the database's encoding cannot, such as a NUL character"),
    "22P05": (DataError, "a text holds a character that the database's encoding cannot"),
    "53100": (DatabaseError, "the server's disk is full"),
    "53200": (DatabaseError, "the server is out of memory"),
    "53300": (DatabaseUnavailable, "the server has too many connections"),
    "26000": (ProgrammingError, f"the prepared statement is not there; {PGBOUNCER}"),
    "42P05": (ProgrammingError, f"a prepared statement of this name is there already; {PGBOUNCER}"),
    "25P02": (ProgrammingError, "an earlier statement of the transaction failed; it can only be rolled back"),
}
FAMILIES: dict[str, tuple[type[DatabaseError], str]] = {
    "08": (ConnectionLost, BROKE),
    "0A": (ProgrammingError, ""),
    "21": (ProgrammingError, ""),
    "22": (DataError, "a value does not fit"),
    "23": (IntegrityError, "a constraint does not hold"),
    "25": (ProgrammingError, ""),
    "2B": (ProgrammingError, ""),
    "34": (ProgrammingError, ""),
    "3B": (ProgrammingError, ""),
    "3F": (ProgrammingError, ""),
    "40": (SerializationFailure, "the server rolled the transaction back; try it again from its beginning"),
    "42": (ProgrammingError, ""),
    "57": (ConnectionLost, "the server intervened"),
}
"""By the first two characters of an SQLSTATE. Where the words are empty, the server's own stand there: what they cite
is the statement, which holds no values, as parameters go beside it."""
BOUNCED = {
    "query_wait_timeout": "none of PgBouncer's connections to the server became free within its query_wait_timeout; "
    "nothing was sent to the server",
    "server login has been failing": "PgBouncer cannot connect to the server; nothing was sent to it",
}
"""What PgBouncer says when it ends a connection whose statement it passed on to no server."""


def translate(error: BaseException, statement: str, params: Sequence[Any] = ()) -> DatabaseError | None:
    """What an error of asyncpg is here; None for what is none of a database.

    Args:
        error: what asyncpg raised.
        statement: the SQL.
        params: its parameters, of which a message tells the types.
    """
    if isinstance(error, InvalidCachedStatementError):
        return SerializationFailure(
            "a table was changed since the statement was prepared; try the transaction again from its beginning",
            code=error.sqlstate or "",
            statement=statement,
        )
    if isinstance(error, PostgresError):
        if isinstance(error, ConnectionDoesNotExistError):
            for sign, words in BOUNCED.items():
                if sign in str(error):
                    return ConnectionLost(words, code=error.sqlstate or "", statement=statement, sent=False)
        # What asyncpg itself finds wrong with a parameter has the class of a server's error, and nothing in it.
        own = isinstance(error, PostgresDataError) and error.severity is None
        return _of_parameter(error, statement, params) if own else _of_server(error, statement)
    if isinstance(error, TimeoutError):
        return StatementTimeout(
            "the statement took longer than statement_timeout and was cancelled", statement=statement
        )
    if isinstance(error, OutdatedSchemaCacheError):
        return ProgrammingError(
            "a type was changed since the connection first saw it; its statements work again from the next one on",
            statement=statement,
        )
    if isinstance(error, OSError):
        return ConnectionLost(BROKE, statement=statement)
    if isinstance(error, (InternalClientError, ProtocolError)):
        return ConnectionLost(
            "the server ended the connection, or said what the driver did not expect; it is not used again",
            statement=statement,
        )
    if isinstance(error, InterfaceError):
        return _of_use(error, statement)
    if isinstance(error, AttributeError):
        # What asyncpg makes of the server's answer to a statement of nothing but spaces and comments.
        return ProgrammingError("the statement is empty", statement=statement)
    if isinstance(error, UnicodeError):
        return DataError("a text holds a surrogate, which UTF-8 cannot", statement=_shown(statement))
    return None


def translate_connect(
    error: BaseException, target: Target, timeout: float, *, pgbouncer: bool = False
) -> DatabaseUnavailable | None:
    """What an error is that asyncpg raised instead of a connection; None for what is none of a database."""
    if isinstance(error, TimeoutError):
        return unavailable(target, f"no answer in {timeout:g} seconds (connect_timeout)")
    if isinstance(error, PostgresError):
        code = error.sqlstate or ""
        reasons = {
            "28P01": f"the password of the user {target.user!r} is wrong",
            "28000": f"the server does not let the user {target.user!r} in from here like this",
            "3D000": "there is no such database",
            "53300": "the server has too many connections",
            "57P03": "the server is starting up or shutting down",
        }
        told = str(error.args[0] if error.args else code)
        reason = reasons.get(code) or f"the server refused: {told}"
        if "unsupported startup parameter" in told:
            reason += f"; {TAKES_NONE if pgbouncer else PGBOUNCER}"
        return unavailable(target, f"{reason} ({code})" if code else reason, code=code)
    if isinstance(error, TargetServerAttributeNotMatched):
        return unavailable(target, "no host is what target_session_attrs asks for")
    if isinstance(error, ssl.SSLError):
        return unavailable(target, f"TLS failed: {error.reason or error.strerror or type(error).__name__}")
    if isinstance(error, OSError):
        return unavailable(target, error.strerror or str(error) or type(error).__name__)
    if isinstance(error, (InterfaceError, InternalClientError)):
        return unavailable(target, str(error))
    return None


def _of_server(error: PostgresError, statement: str) -> DatabaseError:
    """By the SQLSTATE."""
    code = error.sqlstate or ""
    kind = VIOLATIONS.get(code)
    if kind is not None:
        return violation(
            kind,
            code=code,
            statement=statement,
            table=error.table_name or "",
            constraint=error.constraint_name or "",
            columns=_columns(error),
            details=error.detail or "",
        )
    if code == "40P01":
        return DeadlockDetected(
            f"{DEADLOCK} ({code})",
            code=code,
            statement=statement,
            participants=of_postgresql(error.detail or "", statement, error.context or ""),
        )
    fault, words = FAULTS.get(code) or FAMILIES.get(code[:2], (DatabaseError, ""))
    words = words or str(error.args[0] if error.args else "the server refused the statement")
    column = f"{error.table_name}.{error.column_name}: " if error.table_name and error.column_name else ""
    return fault(f"{column}{words} ({code}){advice(code, words)}", code=code, statement=statement)


def _columns(error: PostgresError) -> tuple[str, ...]:
    """The columns of a violated constraint: the server names one, or lists them in `Key (a, b)=(...)`."""
    if error.column_name:
        return (error.column_name,)
    match = re.match(r'Key \(((?:"(?:[^"]|"")*"|[\w$]+)(?:, (?:"(?:[^"]|"")*"|[\w$]+))*)\)[ =]', error.detail or "")
    if match is None:
        return ()
    names = re.findall(r'"((?:[^"]|"")*)"|([\w$]+)', match[1])
    return tuple(quoted.replace('""', '"') or plain for quoted, plain in names)


def _of_parameter(error: Exception, statement: str, params: Sequence[Any]) -> DataError:
    """The driver's words hold the value; these do not."""
    match = re.match(r"invalid input for query argument \$(\d+)(?: in element #(\d+))?", str(error))
    if match is None:
        return DataError("a parameter is not what the statement takes", statement=statement)
    number = int(match[1])
    kind = f" ({type(params[number - 1]).__name__})" if match[2] is None and number <= len(params) else ""
    row = f" of row {int(match[2])}" if match[2] else ""
    reason = ""
    for sign, words in (
        ("out of", ": out of range"),
        ("surrogates", ": it holds a surrogate, which UTF-8 cannot"),
        ("expected str", ": text is expected"),
    ):
        if sign in str(error):
            reason = words
    return DataError(f"parameter ${number}{kind}{row} does not fit its place{reason}", statement=statement)


def _of_use(error: Exception, statement: str) -> DatabaseError:
    """Errors about how the driver is used."""
    text = str(error)
    if "another operation" in text:
        return ProgrammingError(not_in_use_twice(), statement=statement)
    if "expects" in text and "argument" in text:
        counts = re.search(r"expects (\d+) arguments? for this query, (\d+)", text)
        words = f"it takes {counts[1]} parameters and got {counts[2]}" if counts else "a wrong number of parameters"
        return ProgrammingError(words, statement=statement)
    if "connection is closed" in text:
        return ConnectionLost(
            "the connection to the server is closed; nothing was sent", statement=statement, sent=False
        )
    return ProgrammingError(text.partition("\n")[0], statement=statement)


def _shown(statement: str) -> str:
    """A statement that can be written to a log: surrogates, if it has any, as escapes."""
    return statement.encode("utf-8", "backslashreplace").decode("utf-8")
