"""Values as bytes: msgpack, in such a way that the type of each part survives.

msgpack alone makes a list of a tuple and text of a date. So what it cannot tell is marked by an extension type. With
`type` a value is encoded as it is and decoded into that type; then Structs, dataclasses and other classes work, too.

A whole number is written in decimal digits, as backends count. No other value begins with a byte below 0x80, and none
with 0xC1, which msgpack never uses: that is how an entry with more to it than its value begins (`covet.cache.entries`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from covet.cache.errors import CacheValueError

__all__ = ["decode", "encode", "read"]

PLAIN: frozenset[type] = frozenset({str, float, bool, type(None), bytes})
"""The classes whose values msgpack tells apart."""

KEYS: frozenset[type] = frozenset({str, float, bool, type(None), bytes, int})
"""The classes of which a dict's keys may be without being marked."""

TUPLE, SET, FROZENSET, DICT, NUMBER, TEXT, BYTEARRAY = 1, 2, 3, 4, 5, 6, 7
DATETIME, ZONED, DATE, TIME, TIMEDELTA, UUID_, DECIMAL = 10, 11, 12, 13, 14, 15, 16

_write = msgspec.msgpack.Encoder().encode
_ext = msgspec.msgpack.Ext


def encode(value: Any, key: str, type_: Any = None) -> bytes:
    """A value as bytes.

    Args:
        value: the value.
        key: for the error's message.
        type_: the type into which it is decoded later; None for the value's own, which must be one of Python's basic
            types, exactly.

    Raises:
        CacheValueError: it cannot be encoded. The error names the type and the key.
    """
    kind = type(value)
    try:
        if kind is int:
            return b"%d" % value
        if type_ is not None:
            return _write(value)
        if _plain(value):
            try:
                return _write(value)
            except (UnicodeEncodeError, OverflowError):
                return _write(_marked(value))  # a lone surrogate or a large number is in it
        return _write(_marked(value))
    except _Unmarked as error:
        raise CacheValueError(_told(error.kind, key)) from None
    except RecursionError:
        raise CacheValueError(
            f"the value for the cache's key {key[:80]!r} is nested too deeply, or holds itself"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise CacheValueError(
            f"the value for the cache's key {key[:80]!r}, a {_named(kind)}, cannot be encoded: {error}"
        ) from error


def decode(raw: bytes, type_: Any = None) -> Any:
    """The value of bytes that `encode` made, a new one each time.

    Raises:
        ValueError: they are no such bytes, or do not fit `type_`.
    """
    if not raw:
        raise ValueError("there is nothing to decode")
    if raw[0] < 0x80:
        number = int(raw)
        return number if type_ is None else msgspec.convert(number, type_)
    return (read if type_ is None else _decoder(type_))(raw)


class _Unmarked(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, kind: type) -> None:
        super().__init__(kind)
        self.kind = kind


def _named(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _told(kind: type, key: str) -> str:
    described = hasattr(kind, "__struct_fields__") or hasattr(kind, "__dataclass_fields__") or hasattr(kind, "_fields")
    advice = (
        f"say `type={kind.__qualname__}` (or the type of the whole value) where it is kept and where it is read"
        if described or hasattr(kind, "__attrs_attrs__") or hasattr(kind, "__members__")
        else "keep what it consists of: text, numbers, bytes, dates, lists, dicts, sets"
    )
    return f"a {_named(kind)} cannot be kept in a cache as it is (key {key[:80]!r}); {advice}"


def _plain(value: Any) -> bool:
    """Whether a value needs no mark, by the classes of its parts: most need none, and are not copied for it."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) not in KEYS or (type(item) not in KEYS and not _plain(item)):
                return False
        return True
    if kind is list:
        return all(type(item) in KEYS or _plain(item) for item in value)
    return kind in KEYS


def _marked(value: Any) -> Any:
    """A value in which everything that msgpack cannot tell is an extension."""
    kind = type(value)
    if kind is str:
        return value if _encodable(value) else _ext(TEXT, value.encode("utf-8", "surrogatepass"))
    if kind in PLAIN:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**64 else _ext(NUMBER, b"%d" % value)
    if kind is list:
        return [_marked(item) for item in value]
    if kind is dict:
        if all(type(key) in KEYS for key in value):
            return {_marked(key): _marked(item) for key, item in value.items()}
        return _ext(DICT, _write([[_marked(key), _marked(item)] for key, item in value.items()]))
    mark = _MARKS.get(kind)
    if mark is None:
        raise _Unmarked(kind)
    return mark(value)


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _items(code: int) -> Callable[[Any], Any]:
    return lambda value: _ext(code, _write([_marked(item) for item in value]))


def _text(code: int, tell: Callable[[Any], str]) -> Callable[[Any], Any]:
    return lambda value: _ext(code, tell(value).encode())


def _mark_time(code: int) -> Callable[[Any], Any]:
    """Marks a date with time or a time of day, whose zone is none, a fixed offset or one by name."""

    def mark(value: Any) -> Any:
        zone = value.tzinfo
        if zone is None or type(zone) is timezone:
            return _ext(code, _write([value.isoformat(), value.fold]))
        if type(zone) is ZoneInfo and zone.key:
            return _ext(ZONED, _write([code, value.replace(tzinfo=None).isoformat(), value.fold, zone.key]))
        raise _Unmarked(type(zone))

    return mark


_MARKS: dict[type, Callable[[Any], Any]] = {
    tuple: _items(TUPLE),
    set: _items(SET),
    frozenset: _items(FROZENSET),
    bytearray: lambda value: _ext(BYTEARRAY, bytes(value)),
    datetime: _mark_time(DATETIME),
    time: _mark_time(TIME),
    date: _text(DATE, date.isoformat),
    timedelta: lambda value: _ext(TIMEDELTA, _write([value.days, value.seconds, value.microseconds])),
    UUID: lambda value: _ext(UUID_, value.bytes),
    Decimal: _text(DECIMAL, str),
}


def _unmark(code: int, data: memoryview) -> Any:
    try:
        restore = _RESTORE[code]
    except KeyError:
        raise ValueError(f"the extension type {code} is unknown") from None
    return restore(bytes(data))


def _zoned(data: bytes) -> Any:
    code, text, fold, key = read(data)
    kind: Any = {DATETIME: datetime, TIME: time}[code]
    return kind.fromisoformat(text).replace(fold=fold, tzinfo=ZoneInfo(key))


def _from_iso(kind: Any) -> Callable[[bytes], Any]:
    def restore(data: bytes) -> Any:
        text, fold = read(data)
        return kind.fromisoformat(text).replace(fold=fold)

    return restore


read: Callable[[bytes], Any] = msgspec.msgpack.Decoder(ext_hook=_unmark).decode
"""Decodes what is no whole number and has no type of its own: what `decode` does then."""

_RESTORE: dict[int, Callable[[bytes], Any]] = {
    TUPLE: lambda data: tuple(read(data)),
    SET: lambda data: set(read(data)),
    FROZENSET: lambda data: frozenset(read(data)),
    DICT: lambda data: {key: item for key, item in read(data)},  # noqa: C416 - pairs are lists here
    NUMBER: int,
    TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
    BYTEARRAY: bytearray,
    DATETIME: _from_iso(datetime),
    TIME: _from_iso(time),
    ZONED: _zoned,
    DATE: lambda data: date.fromisoformat(data.decode()),
    TIMEDELTA: lambda data: timedelta(*read(data)),
    UUID_: lambda data: UUID(bytes=data),
    DECIMAL: lambda data: Decimal(data.decode()),
}

_decoders: dict[Any, Callable[[bytes], Any]] = {}


def _decoder(type_: Any) -> Callable[[bytes], Any]:
    found = _decoders.get(type_)
    if found is None:
        found = _decoders[type_] = msgspec.msgpack.Decoder(type_, ext_hook=_unmark).decode
    return found
