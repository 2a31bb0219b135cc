"""Parameters as literals of MySQL: PyMySQL and aiomysql put them into the statement on the client's side.

What keeps a value inside of its literal, whatever the session's SQL mode: a `'` is doubled, which every mode takes for
one (MySQL Reference Manual, String Literals); a backslash is doubled where it is an escape character, and a text with
one is written in hexadecimal where it is none; the statement is encoded strictly as UTF-8, the character set of the
connection, in which no byte of a longer character is one of ASCII; bytes are written in hexadecimal.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from pymysql.converters import (  # type: ignore[import-untyped]
    escape_date,
    escape_time,
    escape_timedelta,
)

from covet_orm.exceptions import DataError, ProgrammingError

__all__ = ["batches", "statement_with"]


INSERT_OF_PLACES = re.compile(
    r"(?P<head>\s*(?:INSERT|REPLACE)\b.*\bVALUES\s*)(?P<places>\(\s*%s\s*(?:,\s*%s\s*)*\))"
    r"(?P<tail>\s*(?:ON\s+DUPLICATE\s+KEY\s+UPDATE\b.*)?)",
    re.IGNORECASE | re.DOTALL,
)
SURROGATE = "a text holds a surrogate, which UTF-8 cannot"


class _Refused(ValueError):  # noqa: N818 - it never leaves this module but as a cause
    """A parameter cannot be a literal."""


def statement_with(sql: str, params: Sequence[Any], *, backslash_escapes: bool = True) -> bytes:
    """A statement with its parameters in the places of its `%s`; `%%` stands for a percent sign.

    Raises:
        DataError: a parameter is of a type, or has a value, that MySQL has not.
        ProgrammingError: there are more or fewer parameters than places.
    """
    literals = []
    try:
        for value in params:
            kind = type(value)
            if kind is str:
                literals.append(_text(value) if backslash_escapes or "\\" not in value else _hexadecimal(value))
            elif kind is int:
                literals.append(str(value))
            elif value is None:
                literals.append("NULL")
            else:
                literals.append(_literal(value, backslash_escapes))
    except _Refused as error:
        raise DataError(f"parameter {len(literals) + 1}: {error}", statement=sql) from error
    except UnicodeEncodeError as error:
        raise DataError(f"parameter {len(literals) + 1}: {SURROGATE}", statement=sql) from error
    try:
        return (sql % tuple(literals)).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(SURROGATE, statement=sql.encode("utf-8", "replace").decode()) from error
    except (TypeError, ValueError) as error:
        raise ProgrammingError(
            f"the statement does not take {len(literals)} parameters: their places are %s, and a percent sign is %%",
            statement=sql,
        ) from error


def batches(sql: str, rows: Iterable[Sequence[Any]], *, backslash_escapes: bool = True, size: int) -> Iterator[bytes]:
    """The statements that run `sql` once for each row: an INSERT with one row of places takes many at a time.

    Args:
        sql: the statement.
        rows: the parameters.
        backslash_escapes: whether a backslash in a literal is an escape character.
        size: bytes that a statement of several rows has at most.

    Raises:
        DataError, ProgrammingError: as `statement_with` does.
    """
    parts = INSERT_OF_PLACES.fullmatch(sql)
    if parts is None or "%s" in parts["head"] or "%s" in parts["tail"]:
        for row in rows:
            yield statement_with(sql, row, backslash_escapes=backslash_escapes)
        return
    head = statement_with(parts["head"], ())
    tail = statement_with(parts["tail"], ())
    values: list[bytes] = []
    length = 0
    for row in rows:
        value = statement_with(parts["places"], row, backslash_escapes=backslash_escapes)
        if values and length + len(value) + 1 > size:
            yield head + b",".join(values) + tail
            values, length = [], 0
        if not values:
            length = len(head) + len(tail)
        values.append(value)
        length += len(value) + 1
    if values:
        yield head + b",".join(values) + tail


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _hexadecimal(value: str) -> str:
    return f"_utf8mb4 X'{value.encode('utf-8').hex()}'"


def _literal(value: Any, backslash_escapes: bool) -> str:
    """The literal of a value of one of the rarer types, or of a class derived from a type."""
    for kind in type(value).__mro__:
        write = WRITERS.get(kind)
        if write is not None:
            return write(value)
        if kind is str:
            text = str.__str__(value)
            return _text(text) if backslash_escapes or "\\" not in text else _hexadecimal(text)
    raise _Refused(f"MySQL has no type for a parameter of the type {type(value).__name__}")


def _float(value: float) -> str:
    text = float.__repr__(value)
    if text in ("nan", "inf", "-inf"):
        raise _Refused(f"MySQL has no {text}")
    return text if "e" in text else f"{text}e0"


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise _Refused("MySQL has no decimal number that is infinite or none")
    return format(value, "f")


def _datetime(value: datetime.datetime) -> str:
    """An aware one in UTC, which is the session's time zone."""
    if value.tzinfo is not None:
        try:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        except OverflowError:
            raise _Refused("a date and time is out of range in UTC") from None
    return f"'{value.isoformat(' ')}'"


def _time(value: datetime.time) -> str:
    if value.tzinfo is not None:
        raise _Refused("MySQL has no time of day with a time zone")
    return str(escape_time(value))


WRITERS: dict[type, Callable[[Any], str]] = {
    bool: lambda value: "1" if value else "0",
    int: int.__repr__,
    float: _float,
    Decimal: _decimal,
    bytes: lambda value: f"_binary X'{value.hex()}'",
    bytearray: lambda value: f"_binary X'{value.hex()}'",
    memoryview: lambda value: f"_binary X'{value.hex()}'",
    datetime.datetime: _datetime,
    datetime.date: escape_date,
    datetime.time: _time,
    datetime.timedelta: escape_timedelta,
}
