"""Values on their way to a driver, where nothing is known about the column that they meet.

They are parameters, always. A driver takes some types and misreads others: aiomysql by itself writes a list as an SQL
list and drops the time zone of a datetime, SQLite makes NULL of NaN. What a driver takes is made here, and what it
would misread is refused before anything is sent.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any

import sqlalchemy
from sqlalchemy import BindParameter
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import NullType, TypeEngine

from covet_orm.exceptions import DataError

__all__ = ["json_text", "parameter", "typed_parameter"]

# Of the names of parameters; nothing of it is in the SQL. It is no column's, as SQLAlchemy lets a parameter have none.
PREFIX = "__value"
UNKNOWN = NullType()
INT4, INT8 = 1 << 31, 1 << 63
SQLITE_DIGITS = 15


def parameter(value: Any, kind: str) -> BindParameter[Any]:
    """A parameter of no type: PostgreSQL infers it from the column that it meets.

    Raises:
        DataError: no database, or not this one, takes such a value.
    """
    return sqlalchemy.bindparam(PREFIX, adapted(value, kind), type_=UNKNOWN, unique=True)


def typed_parameter(value: Any, kind: str) -> BindParameter[Any]:
    """A parameter that meets no column: PostgreSQL is told its type, the one that a literal of SQL would have.

    Raises:
        DataError: no database, or not this one, takes such a value.
    """
    made = adapted(value, kind)
    type_ = _type_of(made) if kind == "postgresql" else UNKNOWN
    return sqlalchemy.bindparam(PREFIX, made, type_=type_, unique=True)


def json_text(value: Any) -> str:
    """A value as JSON text.

    Raises:
        DataError: it holds what JSON does not have, such as NaN or a datetime.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{value!r:.100} cannot be written as JSON: {error}") from error


def adapted(value: Any, kind: str) -> Any:
    """The value as the driver takes it. Raises DataError."""
    adapt = ADAPTERS.get(type(value))
    if adapt is not None:
        return adapt(value, kind)
    if isinstance(value, Enum):
        return adapted(value.value, kind)
    for base in BASES:
        # Of a subclass a driver may ask methods that mean something else there; it gets the plain value.
        if isinstance(value, base):
            return ADAPTERS[base](_plain(value, base), kind)
    if kind == "postgresql" and not isinstance(value, (dict, set, frozenset)):
        return value
    hint = " (wrap it in json_value(...))" if isinstance(value, (dict, list, tuple)) else ""
    raise DataError(f"a value of type {type(value).__name__} cannot be a parameter on {kind}{hint}: {value!r:.100}")


def _plain(value: Any, base: type) -> Any:
    if base is str:
        return str.__str__(value)
    if base is int:
        return int.__int__(value)
    if base is float:
        return float.__float__(value)
    return bytes(value) if base is bytes else value


def _same(value: Any, kind: str) -> Any:
    return value


def _text(value: str, kind: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{value!r:.100} has half of a surrogate pair, which has no encoding") from error
    if "\0" in value:
        raise DataError(
            f"{value!r:.100} has a NUL character, which PostgreSQL does not store; the same is refused everywhere"
        )
    return value


def _int(value: int, kind: str) -> int:
    if kind == "sqlite" and not -INT8 <= value < INT8:
        raise DataError(f"{value:.3e} is beyond the 64 bits of an integer of SQLite")
    return value


def _float(value: float, kind: str) -> float:
    if kind != "postgresql" and not math.isfinite(value):
        raise DataError(f"{value} is no number that {kind} stores")
    return value


def _decimal(value: Decimal, kind: str) -> Any:
    if kind == "postgresql":
        return value
    if not value.is_finite():
        raise DataError(f"{value} is no number that {kind} stores")
    if kind != "sqlite":
        return value
    if len(value.normalize().as_tuple().digits) > SQLITE_DIGITS:
        raise DataError(f"{value} has more than {SQLITE_DIGITS} digits, and SQLite keeps no more exactly")
    return float(value)


def _datetime(value: dt.datetime, kind: str) -> Any:
    if value.tzinfo is not None and kind != "postgresql":
        value = value.astimezone(dt.UTC)
    if kind == "sqlite":
        return value.isoformat(" ", "microseconds")
    return value if kind == "postgresql" else value.replace(tzinfo=None)


def _iso(value: dt.date | dt.time, kind: str) -> Any:
    return value.isoformat() if kind == "sqlite" else value


def _timedelta(value: dt.timedelta, kind: str) -> Any:
    return value // dt.timedelta(microseconds=1) if kind == "sqlite" else value


def _uuid(value: uuid.UUID, kind: str) -> Any:
    return value if kind == "postgresql" else str(value)


def _list(value: Any, kind: str) -> Any:
    """An array, of PostgreSQL alone."""
    if kind != "postgresql":
        raise DataError(
            f"a {type(value).__name__} cannot be a parameter on {kind}, which has no arrays; wrap it in json_value() "
            f"or compare with where_in(): {value!r:.100}"
        )
    return [None if item is None else adapted(item, kind) for item in value]


ADAPTERS: dict[type, Callable[[Any, str], Any]] = {
    type(None): _same,
    bool: _same,
    int: _int,
    str: _text,
    float: _float,
    Decimal: _decimal,
    bytes: _same,
    bytearray: lambda value, kind: bytes(value),
    memoryview: lambda value, kind: bytes(value),
    dt.datetime: _datetime,
    dt.date: _iso,
    dt.time: _iso,
    dt.timedelta: _timedelta,
    uuid.UUID: _uuid,
    list: _list,
    tuple: _list,
}
# In this order: a datetime is a date, a bool is an int.
BASES = (int, str, float, Decimal, bytes, dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID)


def _type_of(value: Any) -> TypeEngine[Any]:
    if type(value) is int:
        if -INT4 <= value < INT4:
            return sqlalchemy.Integer()
        return sqlalchemy.BigInteger() if -INT8 <= value < INT8 else sqlalchemy.Numeric()
    if isinstance(value, dt.datetime):
        return sqlalchemy.DateTime(timezone=value.tzinfo is not None)
    if isinstance(value, list):
        first = next((item for item in value if item is not None), "")
        return postgresql.ARRAY(_type_of(first))
    return TYPES.get(type(value), UNKNOWN)


TYPES: dict[type, TypeEngine[Any]] = {
    bool: sqlalchemy.Boolean(),
    str: sqlalchemy.Text(),
    float: sqlalchemy.Double(),
    Decimal: sqlalchemy.Numeric(),
    bytes: sqlalchemy.LargeBinary(),
    dt.date: sqlalchemy.Date(),
    dt.time: sqlalchemy.Time(),
    dt.timedelta: sqlalchemy.Interval(),
    uuid.UUID: sqlalchemy.Uuid(),
}
