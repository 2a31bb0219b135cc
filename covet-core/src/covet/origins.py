"""Hosts and origins: how they are written, compared, and listed in settings.

An origin (RFC 6454) is scheme, host and port of a page, as browsers write it into the header `Origin`. Lists are
compared piece by piece, never as regular expressions made of text: there `.` would stand for anything (CVE-2026-25479).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from covet.datastructures import parse_host

__all__ = ["DEFAULT_PORTS", "HostPattern", "Origins", "parse_origin", "split_host"]

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
"""The port that a scheme implies."""

_SCHEME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+.-")


def split_host(text: str) -> tuple[str, int | None] | None:
    """Name and port of what a `Host` header holds, or None where it is no host.

    The name is in lower case and without the dot that ends a full DNS name; an IPv6 address is in brackets, in the form
    of RFC 5952. The port is None where none is written.
    """
    host = parse_host(text)
    if host is None:
        return None
    if host.startswith("["):
        from ipaddress import IPv6Address

        address, _, rest = host.partition("]")
        name, port = f"[{IPv6Address(address[1:])}]", rest.removeprefix(":")
    else:
        name, _, port = host.partition(":")
        name = name.removesuffix(".")
    return name, int(port) if port else None


def parse_origin(text: str) -> str | None:
    """An origin as browsers write it: in lower case, without a port that its scheme implies. None where it is none.

    `null`, which browsers send for pages without an origin of their own, such as sandboxed frames, is none.
    """
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    found = split_host(rest) if separator else None
    if found is None or not scheme or not scheme[0].isalpha() or not _SCHEME.issuperset(scheme):
        return None
    name, port = found
    return f"{scheme}://{name}" + ("" if port in (None, DEFAULT_PORTS.get(scheme)) else f":{port}")


class HostPattern(NamedTuple):
    """A host of a list in the settings: `example.com`, `*.example.com`, `example.com:8443`, `[::1]`.

    Attributes:
        name: the name; for a pattern with an asterisk what stands behind it, with the dot.
        port: the only port that fits, or None for any.
    """

    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """The pattern that a text is.

        Raises:
            ValueError: it is none.
        """
        wildcard = text.startswith("*.")
        found = split_host(text[2:] if wildcard else text)
        if found is None or (wildcard and (found[0].startswith("[") or found[0].replace(".", "").isdigit())):
            raise ValueError(
                f"{text!r} is no host: write example.com, *.example.com for everything below it, or [::1], and a port "
                "if only one is meant; other letters than ASCII as browsers send them, xn--…"
            )
        return cls("." + found[0] if wildcard else found[0], found[1])

    def fits(self, name: str, port: int | None) -> bool:
        """Whether a host, as `split_host` gives it, is one of those that are meant."""
        if self.port is not None and port != self.port:
            return False
        return name == self.name or (self.name[0] == "." and name.endswith(self.name) and name != self.name)


class Origins:
    """Origins of a list in the settings: `https://app.example.com`, `https://*.example.com`, `null`, or `*` for all.

    `origin in origins` takes what a browser sends as `Origin`, and lets nothing pass that is written in another way.

    Attributes:
        everybody: whether `*` is in the list.

    Raises:
        ValueError: what is in the list is no origin.
    """

    __slots__ = ("_exact", "_patterns", "everybody")

    def __init__(self, listed: Iterable[str]) -> None:
        exact: set[str] = set()
        patterns: list[tuple[str, HostPattern]] = []
        self.everybody = False
        for text in listed:
            if text == "*":
                self.everybody = True
            elif text == "null":
                exact.add(text)
            elif "://*." in text:
                patterns.append(_parse_pattern(text))
            elif (origin := parse_origin(text)) is not None:
                exact.add(origin)
            else:
                raise ValueError(_no_origin(text))
        self._exact = frozenset(exact)
        self._patterns = tuple(patterns)

    def __contains__(self, origin: object) -> bool:
        if origin in self._exact:
            return True
        if not isinstance(origin, str) or (not self.everybody and not self._patterns):
            return False
        if self.everybody:
            return origin == "null" or parse_origin(origin) is not None
        if parse_origin(origin) != origin:
            return False
        scheme, _, rest = origin.partition("://")
        found = split_host(rest)
        assert found is not None
        name, port = found
        if port is None:
            port = DEFAULT_PORTS.get(scheme)
        return any(scheme == wanted and pattern.fits(name, port) for wanted, pattern in self._patterns)


def _parse_pattern(text: str) -> tuple[str, HostPattern]:
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if parse_origin(f"{scheme}://{rest[2:]}") is None:
        raise ValueError(_no_origin(text))
    pattern = HostPattern.parse(rest)
    # Of an origin the port is a part: none stands for that of the scheme.
    return scheme, pattern if pattern.port is not None else pattern._replace(port=DEFAULT_PORTS.get(scheme))


def _no_origin(text: str) -> str:
    return (
        f"{text!r} is no origin: write scheme://host or scheme://host:port without a path or a slash at the end, such "
        "as https://app.example.com, or https://*.example.com for everything below it"
    )
