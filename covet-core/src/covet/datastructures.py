"""What the parts of a request are read into: headers, query parameters, cookies, URLs, and values attached by type.

All of them hold what a stranger sent. Their names and values are text that has been decoded strictly, and nothing here
takes more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from covet.exceptions import CovetError, HTTPError

if TYPE_CHECKING:
    from covet.forms import UploadFile  # noqa: F401 - named in a string, as the parameter of a base class

__all__ = ["URL", "FormData", "Headers", "MissingStateError", "MultiMapping", "QueryParams", "State"]

T = TypeVar("T")
V = TypeVar("V")
D = TypeVar("D")


class Headers(Mapping[str, str]):
    """Request headers: a case-insensitive mapping that knows repeated names.

    `headers["accept"]` is the field's whole value as RFC 9110 section 5.2 defines it: the values of all lines of that
    name, joined with a comma. A header that must stand once, such as `Authorization`, thereby fails to parse when it
    is repeated, instead of one line being picked by luck. `getlist` gives the lines apart.

    Names that hold an underscore are dropped: servers and gateways take `x_user` and `x-user` for the same
    (CVE-2026-3902), so that a proxy which removes the one would let the other through.

    Args:
        raw: pairs of name and value as ASGI has them; text is decoded as Latin-1.
    """

    __slots__ = ("_first", "_repeated", "raw")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.raw = list(raw)
        self._first = dict(self.raw)
        self._repeated: dict[bytes, list[bytes]] = {}
        names = b"".join(self._first)
        # Names are lower case already, says ASGI; most requests repeat none.
        if (names and (b"_" in names or not names.islower())) or len(self._first) != len(self.raw):
            self._sort_out()

    def _sort_out(self) -> None:
        self.raw = [(name.lower(), value) for name, value in self.raw if b"_" not in name]
        self._first.clear()
        for name, value in self.raw:
            if name in self._first:
                self._repeated.setdefault(name, [self._first[name]]).append(value)
            else:
                self._first[name] = value

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | D) -> str | D: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """The value of the header, or `default` when the request has none."""
        key = _header_key(name)
        value = self._first.get(key)
        if value is None:
            return default
        if key in self._repeated:
            # Cookies are the one list that is not separated by commas (RFC 9113 section 8.2.3).
            value = (b"; " if key == b"cookie" else b", ").join(self._repeated[key])
        return value.decode("latin-1")

    def getlist(self, name: str) -> list[str]:
        """The values of every line of that name, in order; an empty list when there is none."""
        key = _header_key(name)
        if key not in self._first:
            return []
        return [line.decode("latin-1") for line in self._repeated.get(key) or (self._first[key],)]

    def elements(self, name: str, limit: int = 64) -> list[str]:
        """The elements of a list-valued header (RFC 9110 section 5.6.1), without empty ones.

        A comma inside a quoted string does not separate; quotes are kept.

        Raises:
            HTTPError: 400: there are more than `limit` elements, or a quoted string does not end.
        """
        text = self.get(name)
        if text is None:
            return []
        pieces = text.split(",", limit) if '"' not in text else _split_quoted(text, name, limit)
        if len(pieces) > limit:
            raise HTTPError(400, f"the header {name!r} has more than {limit} elements")
        return [stripped for piece in pieces if (stripped := piece.strip(" \t"))]

    def multi_items(self) -> list[tuple[str, str]]:
        """The name and value of every line, in order."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _header_key(name) in self._first

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._first)

    def __len__(self) -> int:
        return len(self._first)

    def __repr__(self) -> str:
        # Values may be credentials; a repr ends up in logs.
        return f"<Headers {', '.join(self)}>"


def _header_key(name: str) -> bytes:
    return name.encode("latin-1", "replace").lower()


_QUOTED_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,|"', re.DOTALL)


def _split_quoted(text: str, name: str, limit: int) -> list[str]:
    pieces = []
    start = 0
    for found in _QUOTED_OR_COMMA.finditer(text):
        if found[0] == '"':
            raise HTTPError(400, f"a quoted string in the header {name!r} does not end")
        if found[0] == ",":
            pieces.append(text[start : found.start()])
            start = found.end()
            if len(pieces) > limit:
                return pieces
    pieces.append(text[start:])
    return pieces


class MultiMapping(Mapping[str, V], Generic[V]):
    """A mapping in which a name may stand several times; in what it has in common with a dict, its first value counts.

    Args:
        values: each name with its values, of which there is at least one.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Sequence[V]] | None = None) -> None:
        self._values: Mapping[str, Sequence[V]] = values or {}

    def __getitem__(self, name: str) -> V:
        return self._values[name][0]

    @overload
    def get(self, name: str, /) -> V | None: ...
    @overload
    def get(self, name: str, /, default: V | D) -> V | D: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """The first value of that name, or `default` when there is none."""
        values = self._values.get(name)
        return values[0] if values else default

    def getlist(self, name: str) -> list[V]:
        """Every value of that name, in order; an empty list when there is none."""
        return list(self._values.get(name, ()))

    def multi_items(self) -> list[tuple[str, V]]:
        """Every name with each of its values."""
        return [(name, value) for name, values in self._values.items() for value in values]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, MultiMapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self._values)!r})"


class QueryParams(MultiMapping[str]):
    """The parameters of a query string.

    Read as the WHATWG URL Standard reads `application/x-www-form-urlencoded`: separated by `&`, `+` is a space, a `%`
    that introduces no two hexadecimal digits stands for itself. Unlike there, bytes that are no UTF-8 are refused.

    Args:
        raw: the query string, without its question mark.
        max_fields: how many fields it may have.

    Raises:
        HTTPError: 400: too many fields, invalid UTF-8, or a NUL character.
    """

    __slots__ = ()

    def __init__(self, raw: bytes = b"", max_fields: int = 1000) -> None:
        super().__init__(parse_fields(raw, "query", max_fields) if raw else {})


class FormData(MultiMapping["str | UploadFile"]):
    """The fields and files of a form, by name."""

    __slots__ = ()

    def close(self) -> None:
        """Close every uploaded file, which deletes what was spooled to disk.

        Nobody has to: a file is closed when the last reference to it goes. That may be later than the response, where
        background work still reads it.
        """
        for _, value in self.multi_items():
            if not isinstance(value, str):
                value.file.close()


def parse_fields(data: bytes, part: str, max_fields: int, max_field_bytes: int | None = None) -> dict[str, list[str]]:
    """The fields of `application/x-www-form-urlencoded` data, by name.

    Args:
        data: the encoded fields.
        part: what the data is, for messages: `query` or `form`.
        max_fields: how many there may be.
        max_field_bytes: how many bytes, still encoded, one of them may have; None for no limit.

    Raises:
        HTTPError: 400: too many fields, invalid UTF-8, a NUL character; 413: a field is too large.
    """
    text = data.decode("latin-1")
    plain = data.isascii() and not ("%" in text or "+" in text or "\0" in text)
    # Splitting one more time than allowed shows an excess without paying for it.
    pieces = text.split("&", max_fields)
    if len(pieces) > max_fields:
        raise HTTPError(400, f"the {part} has more than {max_fields} fields")
    fields: dict[str, list[str]] = {}
    for piece in pieces:
        if not piece:
            continue
        if max_field_bytes is not None and len(piece) > max_field_bytes:
            raise HTTPError(413, f"a field of the {part} is larger than {max_field_bytes} bytes")
        name, _, value = piece.partition("=")
        if not plain:
            name, value = _decoded(name, part), _decoded(value, part)
        fields.setdefault(name, []).append(value)
    return fields


def _decoded(text: str, part: str) -> str:
    data = text.encode("latin-1")
    if b"+" in data:
        data = data.replace(b"+", b" ")
    if b"%" in data:
        data = percent_decoded(data)
    return strict_text(data, part)


def strict_text(data: bytes, part: str) -> str:
    """The text of UTF-8 data.

    Raises:
        HTTPError: 400: the bytes are no UTF-8, or hold a NUL, which no name or value of a `part` needs and many
            databases and file systems choke on.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise HTTPError(400, f"the {part} holds bytes that are not UTF-8") from None
    if "\0" in text:
        raise HTTPError(400, f"the {part} holds a NUL character")
    return text


_HEX = "0123456789abcdefABCDEF"
_BYTES = {(high + low).encode(): bytes.fromhex(high + low) for high in _HEX for low in _HEX}


def percent_decoded(data: bytes) -> bytes:
    """`data` with its percent-encoded bytes decoded (RFC 3986 section 2.1); any other `%` stands for itself."""
    head, *rest = data.split(b"%")
    pieces = [head]
    for piece in rest:
        byte = _BYTES.get(piece[:2])
        pieces += (b"%", piece) if byte is None else (byte, piece[2:])
    return b"".join(pieces)


def parse_cookies(header: str) -> dict[str, str]:
    """The cookies of a `Cookie` header (RFC 6265 section 4.2), values as they were sent.

    Of several with one name the first counts, which user agents send for the most specific path. What has no name is
    dropped, and only spaces and tabs are stripped: a wider notion of white space would let a script set a cookie that
    reads as one with the prefix `__Host-`.
    """
    cookies: dict[str, str] = {}
    for piece in header.split(";"):
        name, equals, value = piece.partition("=")
        name = name.strip(" \t")
        if equals and name:
            cookies.setdefault(name, value.strip(" \t"))
    return cookies


_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[(?P<address>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{0,5}))?"
)
MAX_HOST = 261  # a DNS name of 255 characters, a colon and a port


def parse_host(text: str) -> str | None:
    """A `Host` header's value in lower case, or None where it is none.

    The grammar is RFC 9110 section 7.2 (RFC 3986 section 3.2.2) without what no real host has: percent-encoded bytes,
    the punctuation of `sub-delims`, future IP versions. User information was never allowed.
    """
    if len(text) > MAX_HOST or (found := _HOST.fullmatch(text)) is None:
        return None
    if found["port"] and int(found["port"]) > 65535:
        return None
    if found["address"]:
        from ipaddress import AddressValueError, IPv6Address

        try:
            IPv6Address(found["address"])
        except AddressValueError:
            return None
    return found["name"].lower() + (":" + found["port"] if found["port"] else "")


_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


class URL:
    """An absolute HTTP URL as its components, each checked by itself; `str(url)` puts them together.

    Text that comes from a request can therefore never move from one component into another: a path `@evil.example`
    or `//evil.example` remains a path (CVE-2026-54282 of Starlette was the former).

    Args:
        scheme: `http`, `https`, `ws` or `wss` as a rule, in lower case.
        host: host and optional port.
        path: begins with a slash; percent-encoded.
        query: without its question mark; percent-encoded.

    Raises:
        ValueError: a component does not fit its grammar in RFC 3986.
    """

    __slots__ = ("host", "path", "query", "scheme")

    def __init__(self, scheme: str, host: str, path: str = "/", query: str = "") -> None:
        if _SCHEME.fullmatch(scheme) is None:
            raise ValueError(f"{scheme!r} is not the scheme of a URL")
        known = parse_host(host)
        if known is None:
            raise ValueError(f"{host!r} is not a host with an optional port")
        if _PATH.fullmatch(path) is None:
            raise ValueError(f"{path!r} is not a percent-encoded path that begins with a slash")
        if _QUERY.fullmatch(query) is None:
            raise ValueError(f"{query!r} is not a percent-encoded query")
        self.scheme = scheme
        self.host = known
        self.path = path
        self.query = query

    def replace(
        self,
        *,
        scheme: str | None = None,
        host: str | None = None,
        path: str | None = None,
        query: str | Mapping[str, Any] | None = None,
    ) -> URL:
        """A URL with some components changed. A mapping becomes an encoded query; its values may be lists.

        Raises:
            ValueError: a component does not fit its grammar.
        """
        if isinstance(query, Mapping):
            from urllib.parse import urlencode

            query = urlencode(query, doseq=True)
        return URL(
            self.scheme if scheme is None else scheme,
            self.host if host is None else host,
            self.path if path is None else path,
            self.query if query is None else query,
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}" + (f"?{self.query}" if self.query else "")

    def __repr__(self) -> str:
        return f"URL({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, URL) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


class MissingStateError(CovetError, KeyError):
    """Nothing was attached under the type that was asked for."""

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return str(self.args[0])


class State:
    """Values attached to a request or an application, each under its type.

        request.state[Principal] = Principal(...)
        request.state[Principal].name

    The type is the key, so two plugins cannot collide over a name, and a type checker knows what comes out.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[type[Any], Any] = {}

    def __getitem__(self, key: type[T]) -> T:
        try:
            value: T = self._values[key]
        except KeyError:
            there = ", ".join(sorted(type_.__qualname__ for type_ in self._values)) or "nothing"
            raise MissingStateError(
                f"no {_named(key)} is attached here ({there} is); attach one with `state[{_named(key)}] = …` before, "
                f"or ask with `state.get({_named(key)})`"
            ) from None
        return value

    def __setitem__(self, key: type[T], value: T) -> None:
        """Attach `value` under `key`, in place of what was there.

        Raises:
            TypeError: `key` is no class, or `value` no instance of it.
        """
        if not isinstance(key, type):
            raise TypeError(f"state is keyed by class, not by {key!r}; write `state[SomeClass] = value`")
        if not isinstance(value, key):
            raise TypeError(f"state[{key.__qualname__}] takes a {key.__qualname__}, not {type(value).__qualname__}")
        self._values[key] = value

    def __delitem__(self, key: type[Any]) -> None:
        self[key]
        del self._values[key]

    @overload
    def get(self, key: type[T]) -> T | None: ...
    @overload
    def get(self, key: type[T], default: T | D) -> T | D: ...
    def get(self, key: type[T], default: Any = None) -> Any:
        """What is attached under `key`, or `default`."""
        return self._values.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[type[Any]]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Values may be credentials; a repr ends up in logs.
        return f"<State {', '.join(type_.__qualname__ for type_ in self._values) or 'empty'}>"


def _named(key: object) -> str:
    return getattr(key, "__qualname__", repr(key))
