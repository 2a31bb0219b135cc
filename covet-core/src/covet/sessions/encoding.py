"""The values of a session as bytes, and back as the very types they had.

The format is MessagePack, with extension types for what it does not know. A session's values are a map whose values
stay encoded until they are asked for: `{"visits": <bytes>, …}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from msgspec import DecodeError, Raw
from msgspec.msgpack import Decoder, Encoder, Ext

from covet.sessions.errors import SessionValueError

__all__ = ["PLAIN", "SCALARS", "TYPED", "Encoded", "decode", "decode_all", "encode", "encode_all", "key_name"]

Encoded = Mapping[str, Raw | bytes]
"""The values of a session by key, each encoded."""

SCALARS = frozenset({type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, UUID, Decimal})
"""The types whose values nobody can change in place."""

PLAIN = frozenset({type(None), bool, int, float, str, bytes})
"""Those of them that are decoded as fast as they are looked up."""

# What no key of an application begins with: such names are those of types.
TYPED = "\0"

MAX_DEPTH = 32
_encode = Encoder().encode


def _decode(data: Raw | bytes) -> Any:
    return _DECODER.decode(data)


def _of_int(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _of_timedelta(data: bytes) -> timedelta:
    days, seconds, microseconds = _decode(data)
    return timedelta(days, seconds, microseconds)


def _of_text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: read(data.decode())


# The number of a type, and how its values are read. What is stored outlives a release: a number is never used again.
_NUMBERS: dict[type, int] = {
    int: 1, tuple: 2, set: 3, frozenset: 4, dict: 5, datetime: 6, date: 7, time: 8, timedelta: 9, UUID: 10, Decimal: 11,
}  # fmt: skip
_READERS: dict[int, Callable[[bytes], Any]] = {
    1: _of_int,
    2: lambda data: tuple(_decode(data)),
    3: lambda data: set(_decode(data)),
    4: lambda data: frozenset(_decode(data)),
    5: lambda data: dict(_decode(data)),
    6: _of_text(datetime.fromisoformat),
    7: _of_text(date.fromisoformat),
    8: _of_text(time.fromisoformat),
    9: _of_timedelta,
    10: lambda data: UUID(bytes=data),
    11: _of_text(Decimal),
}


def _read_extension(number: int, data: memoryview) -> Any:
    return _READERS[number](bytes(data))


_DECODER = Decoder(ext_hook=_read_extension)
_split = Decoder(dict[str, Raw]).decode


class _Unfit(Exception):  # noqa: N818 - it never leaves this module
    """Part of a value cannot be encoded; says why."""


def _pack(value: Any, depth: int = 0) -> Any:
    """A value as something that MessagePack knows."""
    kind = type(value)
    if kind in PLAIN and (kind is not int or -(2**63) <= value < 2**64):
        return value
    if depth == MAX_DEPTH:
        raise _Unfit(f"it is nested deeper than {MAX_DEPTH} levels, or holds itself")
    if kind is list:
        return [_pack(item, depth + 1) for item in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: _pack(item, depth + 1) for key, item in value.items()}
    number = _NUMBERS.get(kind)
    if number is None:
        raise _Unfit(
            f"a {kind.__module__}.{kind.__qualname__} cannot be kept; keep None, bool, int, float, str, bytes, list, "
            "tuple, dict, set, frozenset, datetime, date, time, timedelta, UUID, Decimal, or a Struct or dataclass of "
            f"your own under its type: `session[{kind.__name__}] = …`"
        )
    return Ext(number, _extension(kind, value, depth + 1))


def _extension(kind: type, value: Any, depth: int) -> bytes:
    if kind is int:
        return int(value).to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    if kind is tuple:
        return _encode([_pack(item, depth) for item in value])
    if kind in (set, frozenset):
        # In an order that depends on nothing, so that equal sets are equal bytes.
        return _encode([Raw(each) for each in sorted(_encode(_pack(item, depth)) for item in value)])
    if kind is dict:
        return _encode([[_pack(key, depth), _pack(item, depth)] for key, item in value.items()])
    if kind is timedelta:
        return _encode([value.days, value.seconds, value.microseconds])
    if kind is UUID:
        data: bytes = value.bytes
        return data
    return (str(value) if kind is Decimal else value.isoformat()).encode()


def key_name(key: object) -> str:
    """The name that a key has in the store: text is its own, a type has its module and name behind a NUL.

    Raises:
        SessionValueError: it is neither, or a text that no store could hold.
    """
    if type(key) is str:
        if key.startswith(TYPED):
            raise SessionValueError(f"a session's key begins with no NUL character: {key!r}")
        if not key.isascii():
            try:
                key.encode()
            except UnicodeEncodeError:
                raise SessionValueError(f"a session's key is text that UTF-8 can encode, and {key!r} is not") from None
        return key
    if isinstance(key, type):
        return f"{TYPED}{key.__module__}.{key.__qualname__}"
    raise SessionValueError(f"a session's key is a text or the type of the value, not {key!r}")


def encode(key: str | type[Any], value: Any) -> bytes:
    """A value as bytes.

    Args:
        key: what it is kept under: a text, or its own type.

    Raises:
        SessionValueError: it cannot be encoded.
    """
    try:
        if isinstance(key, type):
            if not isinstance(value, key):
                raise _Unfit(f"a {key.__qualname__} was expected, not a {type(value).__qualname__}")
            return _encode_record(key, value)
        return _encode(_pack(value))
    except (_Unfit, TypeError, ValueError, OverflowError, RecursionError) as error:
        name = key.__qualname__ if isinstance(key, type) else repr(key)
        raise SessionValueError(
            f"session[{name}] cannot hold this value of type {type(value).__qualname__}: {error}"
        ) from None


def _encode_record(kind: Any, value: Any) -> bytes:
    data = _encode(value)
    try:
        _record_decoder(kind)(data)
    except (DecodeError, TypeError) as error:
        raise _Unfit(f"it would not come back as it is: {error}") from None
    return data


@lru_cache(maxsize=1024)
def _record_decoder(kind: Any) -> Callable[[Raw | bytes], Any]:
    return Decoder[Any](kind).decode


def decode(key: str | type[Any], data: Raw | bytes) -> Any:
    """The value that `encode` made bytes of.

    Raises:
        SessionValueError: it is of an earlier shape of its type, or was not encoded here.
    """
    try:
        if key.__class__ is str:
            return _DECODER.decode(data)
        kind: Any = key
        return _record_decoder(kind)(data)
    except (DecodeError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        name = key.__qualname__ if isinstance(key, type) else repr(key)
        raise SessionValueError(f"what is stored as session[{name}] does not fit: {error}") from None


def encode_all(values: Encoded) -> bytes:
    """All values of a session as bytes."""
    return _encode({name: value if isinstance(value, Raw) else Raw(value) for name, value in values.items()})


def decode_all(data: bytes) -> dict[str, Raw]:
    """The values of a session by the names of their keys, each still encoded.

    Raises:
        SessionValueError: the bytes are no such map.
    """
    try:
        return _split(data)
    except ValueError as error:
        raise SessionValueError(f"what is stored as a session is none: {error}") from None
