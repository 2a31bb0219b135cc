"""Entries: a value with what is to be known of it beside: how long it is fresh, what it cost, and its tags.

An entry without any of that is the encoded value itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log
from random import random
from struct import Struct, error
from time import time
from typing import NamedTuple

__all__ = ["MARK", "Entry", "fresh_untagged", "pack", "unpack"]

MARK = 0xC1
"""What an entry begins with that is more than its value."""

_HEAD = Struct(">BdddB")
_FRESH_UNTIL, _COUNT = Struct(">d"), _HEAD.size - 1
_VERSION = 8


class Entry(NamedTuple):
    """What was kept.

    Attributes:
        payload: the encoded value.
        written: when, in seconds of the system's clock, which other processes share.
        fresh_until: until when it may be given out without a thought.
        seconds: how long it took to compute.
        tags: the versions its tags had, by the rest of their key behind the prefix.
    """

    payload: bytes
    written: float
    fresh_until: float
    seconds: float
    tags: Mapping[str, bytes]

    def due(self, now: float, beta: float) -> bool:
        """Whether whoever reads it should compute it anew although it is fresh: XFetch.

        The closer the end and the dearer the value, the likelier; so one of many readers is early, and the others
        never meet an expired value. Above 1, `beta` favours earlier recomputation; 0 never is early.

        Source: Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015, fig. 3.
        """
        if self.fresh_until == inf:
            return False
        # random() is below 1 and may be 0.
        return now - self.seconds * beta * log(1.0 - random()) >= self.fresh_until


def pack(entry: Entry) -> bytes:
    """An entry as bytes.

    Raises:
        ValueError: it has more than 255 tags.
    """
    if len(entry.tags) > 255:
        raise ValueError(f"an entry has at most 255 tags, not {len(entry.tags)}")
    parts = [_HEAD.pack(MARK, entry.written, entry.fresh_until, entry.seconds, len(entry.tags))]
    for tag, version in entry.tags.items():
        name = tag.encode()
        parts += [len(name).to_bytes(2), name, version]
    return b"".join([*parts, entry.payload])


def fresh_untagged(raw: bytes) -> bytes | None:
    """The encoded value of an entry that is fresh and has no tags, at once; else None.

    Raises:
        IndexError: they are no bytes of an entry.
    """
    if raw[_COUNT] or time() >= _FRESH_UNTIL.unpack_from(raw, 9)[0]:
        return None
    return raw[_COUNT + 1 :]


def unpack(raw: bytes) -> Entry:
    """The entry of bytes that `pack` made.

    Raises:
        ValueError: they are no such bytes.
    """
    try:
        _, written, fresh_until, seconds, count = _HEAD.unpack_from(raw)
    except error:
        raise ValueError(f"an entry has at least {_HEAD.size} bytes, not {len(raw)}") from None
    position, tags = _HEAD.size, {}
    for _ in range(count):
        end = position + 2 + int.from_bytes(raw[position : position + 2])
        tags[raw[position + 2 : end].decode()] = raw[end : end + _VERSION]
        position = end + _VERSION
    return Entry(raw[position:], written, fresh_until, seconds, tags)
