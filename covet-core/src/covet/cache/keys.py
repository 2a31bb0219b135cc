"""Keys: any text and any arguments, mapped to the keys of a backend such that two that differ stay different.

A backend's key is the prefix of its cache, one letter that says what is kept there, and the text itself where it is
short and printable, or its hash.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from struct import pack
from typing import Any
from uuid import UUID

import msgspec

from covet.cache.errors import CacheKeyError

__all__ = ["LEASE", "PLAIN_LENGTH", "RESPONSE", "TAG", "VALUE", "backend_key", "canonical", "prefix_of"]

PLAIN_LENGTH = 100
"""Up to how many characters a key is used as it is."""

VALUE = "v"
"""Begins the key of a value, behind the prefix."""

RESPONSE = "r"
"""Begins the key of a response."""

TAG = "t"
"""Begins the key under which the version of a tag is."""

LEASE = "l"
"""Begins the key of the lease that one who computes holds."""

_PART = re.compile(r"[A-Za-z0-9_.-]{0,32}")


def prefix_of(shared: str, namespace: str, version: int | str | None = None) -> str:
    """What the keys of a cache begin with. None is a prefix of another, but for the one of all versions.

    Args:
        shared: the namespace that the settings give to all caches of a table.
        namespace: the cache's own.
        version: of what is kept; None gives the beginning of all versions.
    """
    prefix = f"{_part(shared)}/{_part(namespace)}:"
    return prefix if version is None else f"{prefix}{_part(str(version))}:"


def _part(text: str) -> str:
    # No plain part has a tilde.
    return text if _PART.fullmatch(text) else "~" + _digest(text, 16)


def backend_key(prefix: str, kind: str, text: str) -> str:
    """The backend's key for `text`, which may be anything.

    Raises:
        CacheKeyError: it is no text.
    """
    if not isinstance(text, str):
        raise CacheKeyError(f"a cache's key is text, not {text!r} of type {type(text).__qualname__}")
    if len(text) <= PLAIN_LENGTH and text.isprintable():
        return f"{prefix}{kind}={text}"
    return f"{prefix}{kind}#{_digest(text, 32)}"


def _digest(text: str, size: int) -> str:
    # Lone surrogates are encoded, too: replacing them would make one key of two.
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def canonical(value: object) -> bytes:
    """A value as bytes that no other value has: its type and what it consists of, with lengths, sets and dicts sorted.

    Raises:
        CacheKeyError: it is of a type for which that cannot be said. The error names the type.
    """
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    kind = type(value)
    if isinstance(value, enum.Enum):
        return _framed(b"e", _name(kind), canonical(value.name))
    if isinstance(value, msgspec.Struct):
        names = [field.name for field in msgspec.structs.fields(value)]
        return _framed(b"o", _name(kind), *(canonical(getattr(value, name)) for name in names))
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return _framed(b"o", _name(kind), *(canonical(getattr(value, name)) for name in names))
    raise CacheKeyError(
        f"a {kind.__module__}.{kind.__qualname__} makes no key: two of them cannot be told apart for sure"
    )


def _framed(tag: bytes, *parts: bytes) -> bytes:
    """Parts with their number and lengths, so that none can be taken for another's."""
    return b"".join([tag, b"%d:" % len(parts), *(b"%d:%b" % (len(part), part) for part in parts)])


def _name(kind: type) -> bytes:
    return f"{kind.__module__}.{kind.__qualname__}".encode("utf-8", "surrogatepass")


def _by_repr(tag: bytes) -> Callable[[Any], bytes]:
    return lambda value: _framed(tag, repr(value).encode("utf-8", "surrogatepass"))


_WRITERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%x;" % value if value >= 0 else b"i-%x;" % -value,
    float: lambda value: b"f" + pack(">d", value),
    str: lambda value: _framed(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: _framed(b"b", value),
    list: lambda value: _framed(b"l", *map(canonical, value)),
    tuple: lambda value: _framed(b"t", *map(canonical, value)),
    set: lambda value: _framed(b"S", *sorted(map(canonical, value))),
    frozenset: lambda value: _framed(b"Z", *sorted(map(canonical, value))),
    dict: lambda value: _framed(
        b"d", *sorted(_framed(b"p", canonical(key), canonical(item)) for key, item in value.items())
    ),
    datetime: _by_repr(b"D"),
    date: _by_repr(b"y"),
    time: _by_repr(b"h"),
    timedelta: _by_repr(b"m"),
    Decimal: _by_repr(b"n"),
    UUID: lambda value: b"u" + value.bytes,
}
