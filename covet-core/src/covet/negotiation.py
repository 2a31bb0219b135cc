"""Which coding of a content a client gets: the header `Accept-Encoding` (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

__all__ = ["MAX_CODINGS", "MAX_LENGTH", "accepted_coding"]

MAX_LENGTH = 1024
"""Characters of an `Accept-Encoding` that are read; browsers send about thirty."""

MAX_CODINGS = 32
"""Elements that one may have."""

# A content coding or `*`, and its weight; no part of it can be matched in two ways.
_ELEMENT = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")

# Section 8.4.1: what is to be taken for the same.
_ALIASES = {"x-gzip": "gzip"}


def accepted_coding(header: str | None, available: Sequence[str]) -> str | None:
    """The content coding that suits a client best.

    The one with the highest weight is taken; of equal ones the first of `available`. The plain content is taken when
    nothing else is accepted, or when `identity` has a higher weight than all of them. It is also what a client gets
    that accepts nothing at all, `identity` refused included: section 12.5.3 lets a server disregard the header, and
    no content would help nobody. An element that is malformed is passed over. A coding that stands twice has the
    lower of its weights.

    The work is bounded: of a header with more than 1,024 characters, or more than 32 elements, nothing is accepted.

    Args:
        header: the value of `Accept-Encoding`; several lines joined by commas. None without one, which RFC 9110 reads
            as "anything goes", and which here, as everywhere, means the plain content: a client that says nothing
            decodes nothing.
        available: the codings there are, in lower case, the server's favourite first; without `identity`.

    Returns:
        One of `available`, or None for the plain content.
    """
    if not header or len(header) > MAX_LENGTH:
        return None
    weights = _weights(header)
    others = weights.get("*", 0)
    best, highest = None, 0
    for coding in available:
        weight = weights.get(coding, others)
        if weight > highest:
            best, highest = coding, weight
    return None if weights.get("identity", 0) > highest else best


@lru_cache(256)
def _weights(header: str) -> Mapping[str, int]:
    """The weight of each coding, in thousandths. Browsers send few different headers, so that few are parsed."""
    pieces = header.split(",")
    found: dict[str, int] = {}
    if len(pieces) > MAX_CODINGS:
        return found
    for piece in pieces:
        match = _ELEMENT.fullmatch(piece.strip(" \t"))
        if match is None:
            continue
        name, quality = match[1].lower(), match[2]
        weight = 1000 if quality is None else round(float(quality) * 1000)
        name = _ALIASES.get(name, name)
        found[name] = min(weight, found.get(name, weight))
    return found
