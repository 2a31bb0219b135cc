"""Reading `Forwarded` (RFC 7239) and what came before it, the `X-Forwarded-` headers.

The grammar is kept to the letter. What does not fit is refused as a whole, since the element that a proxy has appended
could otherwise be swallowed by a quotation mark that a client put before it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

__all__ = ["MAX_ELEMENTS", "Node", "canonical_address", "elements_of", "parse_forwarded", "parse_node"]

MAX_ELEMENTS = 64
"""How many elements a header may have: a request passes through a handful of proxies."""

MAX_NODE = 255

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 7239 section 4: a parameter; RFC 9110 section 5.6.4: a quoted string, whose parts exclude each other, so that no
# text takes more than linear time.
_PAIR = re.compile(rf'[ \t]*({_TOKEN})=(?:({_TOKEN})|"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)")[ \t]*')
_EMPTY = re.compile(r"[ \t]*")
_ESCAPED = re.compile(r"\\(.)")
# Section 6: an address with a port perhaps, which may be hidden; without brackets, an address of version 4.
_NODE = re.compile(r"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\])(?::(?:([0-9]{1,5})|_[A-Za-z0-9._-]+))?")
# Sections 6.2 and 6.3: who it is is not known, or is not told.
_HIDDEN = re.compile(r"(?:[Uu][Nn][Kk][Nn][Oo][Ww][Nn]|_[A-Za-z0-9._-]+)(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")


class Node(NamedTuple):
    """Where a request came from.

    Attributes:
        address: the IP address, in its canonical form; None where it is not told.
        port: the port; 0 where it is not told.
    """

    address: str | None
    port: int = 0


def canonical_address(text: str) -> str:
    """An IP address in its one form; one of version 4 that is written as version 6 is one of version 4.

    Raises:
        ValueError: it is none, or has a zone (RFC 4007), which means something on one machine alone.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone")
        return str(address.ipv4_mapped or address)
    return str(address)


# Who has asked is likely to ask again. What is refused is not kept.
@lru_cache(maxsize=1024)
def parse_node(text: str, *, bare: bool = False) -> Node:
    """A node, as the parameter `for` of `Forwarded` has it.

    Args:
        text: such as `192.0.2.60`, `[2001:db8::1]:4711`, `unknown` or `_hidden`.
        bare: whether an address of version 6 may stand without brackets, as in `X-Forwarded-For`.

    Raises:
        ValueError: it is none.
    """
    found = _NODE.fullmatch(text) if len(text) <= MAX_NODE else None
    if found is not None:
        if found[2] and ":" not in found[2]:
            raise ValueError(f"{found[2]!r} is in brackets and no address of version 6")
        number = int(found[3] or 0)
        if number > 65535:
            raise ValueError(f"{number} is no port")
        return Node(canonical_address(found[1] or found[2]), number)
    if len(text) <= MAX_NODE and _HIDDEN.fullmatch(text):
        return Node(None)
    if bare and text.count(":") > 1 and len(text) <= 45:
        return Node(canonical_address(text))
    raise ValueError(f"{text[:60]!r} is no address")


def elements_of(text: str) -> list[str]:
    """The elements of a list that has no quoted strings, such as `X-Forwarded-For`; empty ones do not count.

    Raises:
        ValueError: there are more than `MAX_ELEMENTS`.
    """
    pieces = text.split(",", MAX_ELEMENTS)
    if len(pieces) > MAX_ELEMENTS:
        raise ValueError(f"it has more than {MAX_ELEMENTS} elements")
    return [stripped for piece in pieces if (stripped := piece.strip(" \t"))]


def parse_forwarded(text: str) -> list[dict[str, str]]:
    """The elements of a `Forwarded` header, each as its parameters, with names in lower case.

    Raises:
        ValueError: it does not fit the grammar (RFC 7239 section 4), a parameter stands twice in an element, or there
            are more than `MAX_ELEMENTS`.
    """
    elements: list[dict[str, str]] = [{}]
    position = 0
    while True:
        pair = _PAIR.match(text, position)
        if pair is not None:
            name, token, quoted = pair.groups()
            name = name.lower()
            if name in elements[-1]:
                raise ValueError(f"{name!r} stands twice in one element")
            elements[-1][name] = token if token is not None else _ESCAPED.sub(r"\1", quoted)
        else:
            # RFC 9110 section 5.6.1.2: an element may be empty; so may a parameter.
            pair = _EMPTY.match(text, position)
            assert pair is not None
        position = pair.end()
        if position == len(text):
            return [element for element in elements if element]
        if text[position] == ",":
            elements.append({})
            if len(elements) > MAX_ELEMENTS:
                raise ValueError(f"it has more than {MAX_ELEMENTS} elements")
        elif text[position] != ";":
            raise ValueError(f"{text[position]!r} at position {position} does not belong there")
        position += 1
