"""Responses: a status, headers and a body, sent as an ASGI application sends them.

A handler seldom makes one itself: what it returns becomes one (`covet.encoding`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "HTMLResponse",
    "JSONResponse",
    "PlainTextResponse",
    "RedirectResponse",
    "Response",
    "ResponseHeaders",
    "make_private",
]

HeaderSource = Mapping[str, str] | Iterable[tuple[str, str]]

# RFC 9110 sections 15.2, 15.3.5, 15.4.5: these have no content.
NO_CONTENT = frozenset({204, 304, *range(100, 200)})


class ResponseHeaders(MutableMapping[str, str]):
    """The headers of a response; names are compared without case, one may stand several times.

    Attributes:
        raw: the headers as ASGI takes them: pairs of lower-case name and value, in bytes.
    """

    __slots__ = ("raw",)

    def __init__(self, headers: HeaderSource = ()) -> None:
        self.raw: list[tuple[bytes, bytes]] = []
        # Any: what is both a mapping and an iterable of pairs is a mapping here, which no type says.
        pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
        for name, value in pairs:
            self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Add a header beside those of the same name.

        Raises:
            ValueError: the name is no token, or the value holds a control character (RFC 9110 section 5.5).
        """
        self.raw.append(_checked(name, value))

    def __getitem__(self, name: str) -> str:
        key = _name(name)
        for other, value in self.raw:
            if other == key:
                return value.decode("latin-1")
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        pair = _checked(name, value)
        kept = [other for other in self.raw if other[0] != pair[0]]
        self.raw[:] = [*kept, pair]

    def __delitem__(self, name: str) -> None:
        key = _name(name)
        if all(other != key for other, _ in self.raw):
            raise KeyError(name)
        self.raw[:] = [pair for pair in self.raw if pair[0] != key]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        key = _name(name)
        return any(other == key for other, _ in self.raw)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self.raw))

    def __len__(self) -> int:
        return len({name for name, _ in self.raw})

    def __repr__(self) -> str:
        return f"ResponseHeaders({[(n.decode('latin-1'), v.decode('latin-1')) for n, v in self.raw]!r})"

    def getlist(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        key = _name(name)
        return [value.decode("latin-1") for other, value in self.raw if other == key]

    def add_vary(self, name: str) -> None:
        """Say that the response depends on a request header (RFC 9110 section 12.5.5)."""
        there = [token.strip() for line in self.getlist("vary") for token in line.split(",")]
        if "*" not in there and name.lower() not in (token.lower() for token in there):
            self["vary"] = ", ".join([*(token for token in there if token), name])


def _name(name: str) -> bytes:
    return name.lower().encode("latin-1", "replace")


# All but the tab.
_CONTROLS = bytes(code for code in range(32) if code != 9) + b"\x7f"
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def _checked(name: str, value: str) -> tuple[bytes, bytes]:
    raw_name = _name(name)
    if not raw_name or not _TOKEN.issuperset(raw_name):
        raise ValueError(f"{name!r} is no header name")
    try:
        raw_value = value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the header {name!r} cannot hold {value!r}: only ISO 8859-1; encode it first") from None
    if len(raw_value.translate(None, _CONTROLS)) != len(raw_value):
        raise ValueError(f"the header {name!r} cannot hold a control character such as a line break: {value!r}")
    return raw_name, raw_value


class Response:
    """A response that is complete in memory.

    Args:
        body: the content; text is encoded as UTF-8.
        status: the HTTP status code.
        headers: as a mapping or pairs.
        content_type: the `Content-Type`; without one, text gets `text/plain; charset=utf-8` and bytes none.

    Attributes:
        deferred: whether a request decides what the response is, by `resolve`.
        opaque: whether the server reads the body itself, so that nothing here can look at it.

    Raises:
        ValueError: a header's name or value is invalid.
    """

    __slots__ = ("body", "headers", "status")

    deferred: ClassVar[bool] = False
    opaque: ClassVar[bool] = False

    def __init__(
        self,
        body: bytes | str = b"",
        status: int = 200,
        headers: HeaderSource | None = None,
        content_type: str | None = None,
    ) -> None:
        self.status = status
        self.headers = ResponseHeaders(headers or ())
        if isinstance(body, str):
            body = body.encode()
            content_type = content_type or "text/plain; charset=utf-8"
        self.body = body
        if content_type is not None and "content-type" not in self.headers:
            self.headers.add("content-type", content_type)

    @classmethod
    def trusted(cls, body: bytes, status: int, *headers: tuple[bytes, bytes]) -> Response:
        """A response whose headers nobody looks at: for those that are known to be valid, names in lower case."""
        made = object.__new__(Response)
        made.body = body
        made.status = status
        made.headers = object.__new__(ResponseHeaders)
        made.headers.raw = [*headers]
        return made

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}>"

    def set_cookie(
        self,
        name: str,
        value: str = "",
        *,
        max_age: int | None = None,
        expires: datetime | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: Literal["lax", "strict", "none"] = "lax",
        partitioned: bool = False,
    ) -> None:
        """Set a cookie (RFC 6265), by default one that scripts cannot read and that goes over HTTPS only.

        Args:
            max_age: seconds until it expires; without it and `expires`, when the browser closes.
            expires: an aware time.
            secure: browsers send a secure cookie to localhost over HTTP too, so development needs no other setting.

        Raises:
            ValueError: the name or value has characters that a cookie cannot hold, both have more than 4096 bytes
                together (browsers drop such a cookie), or a prefix's rules are broken.
        """
        if not name or not _TOKEN.issuperset(name.lower().encode("latin-1", "replace")):
            raise ValueError(f"{name!r} is no cookie name")
        if any(not ("!" <= c <= "~") or c in '",;\\' for c in value):
            raise ValueError(f"the cookie {name!r} cannot hold {value!r}: encode it, as base64 for example")
        if len(name) + len(value) > 4096:
            raise ValueError(
                f"the cookie {name!r} has {len(name) + len(value)} bytes, and browsers keep 4096; keep the data here "
                "and let the cookie refer to it"
            )
        # Browsers compare the prefixes without case (RFC 6265bis section 5.4).
        prefix = name.lower()
        if prefix.startswith("__host-") and (not secure or domain or path != "/"):
            raise ValueError(f"the cookie {name!r} must be secure, without domain and with path '/'")
        if prefix.startswith("__secure-") and not secure:
            raise ValueError(f"the cookie {name!r} must be secure")
        if same_site == "none" and not secure:
            raise ValueError(f"the cookie {name!r} with same_site='none' must be secure")
        if partitioned and not secure:
            raise ValueError(f"the cookie {name!r} must be secure to be partitioned")
        parts = [f"{name}={value}"]
        if max_age is not None:
            parts.append(f"Max-Age={max_age}")
        if expires is not None:
            from datetime import UTC
            from email.utils import format_datetime

            parts.append(f"Expires={format_datetime(expires.astimezone(UTC), usegmt=True)}")
        if domain:
            parts.append(f"Domain={domain}")
        parts.append(f"Path={path}")
        parts += [word for word, wanted in (("Secure", secure), ("HttpOnly", http_only)) if wanted]
        parts.append(f"SameSite={same_site.capitalize()}")
        if partitioned:
            parts.append("Partitioned")
        if any(";" in part for part in parts):
            raise ValueError(f"the cookie {name!r}: neither path nor domain may hold a semicolon")
        self.headers.add("set-cookie", "; ".join(parts))

    def delete_cookie(
        self, name: str, *, path: str = "/", domain: str | None = None, secure: bool = True, partitioned: bool = False
    ) -> None:
        """Make the browser forget a cookie; path, domain and `partitioned` must be those it was set with."""
        self.set_cookie(name, "", max_age=0, path=path, domain=domain, secure=secure, partitioned=partitioned)

    async def resolve(self, scope: Any) -> Response:
        """The response that a request gets. The application calls it when `deferred` is true, and sends the result.

        What it raises is answered as an error of the handler is: nothing has been sent yet.
        """
        return self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the response.

        Raises:
            OSError: the client has left, where the server tells (ASGI 2.4).
        """
        body = self.body
        raw = self.headers.raw
        if self.status in NO_CONTENT:
            body = b""
        else:
            for name, _ in raw:
                if name == b"content-length":
                    break
            else:
                raw = [*raw, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class PlainTextResponse(Response):
    """Text, as `text/plain`."""

    __slots__ = ()

    def __init__(self, text: str = "", status: int = 200, headers: HeaderSource | None = None) -> None:
        super().__init__(text, status, headers, "text/plain; charset=utf-8")


class HTMLResponse(Response):
    """A page, as `text/html`. The text is sent as it is: escape what comes from outside."""

    __slots__ = ()

    def __init__(self, html: str = "", status: int = 200, headers: HeaderSource | None = None) -> None:
        super().__init__(html, status, headers, "text/html; charset=utf-8")


class JSONResponse(Response):
    """A value, as JSON: what msgspec encodes. A handler's return value has the application's encoders too."""

    __slots__ = ()

    def __init__(self, content: Any, status: int = 200, headers: HeaderSource | None = None) -> None:
        import msgspec

        super().__init__(msgspec.json.encode(content), status, headers, "application/json")


class RedirectResponse(Response):
    """A redirect.

    Args:
        url: where to; characters outside of ASCII are percent-encoded. Never pass on what a client sent: a target on
            another site should come from a list.
        status: 307 and 308 keep the method; 303 makes it GET; 308 and 301 are for ever.

    Raises:
        ValueError: `url` holds a control character, or `status` is no redirect.
    """

    __slots__ = ()

    def __init__(self, url: str, status: int = 307, headers: HeaderSource | None = None) -> None:
        from urllib.parse import quote

        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"{status} is no redirect; take 301, 302, 303, 307 or 308")
        if any(c < " " or c == "\x7f" for c in url):
            raise ValueError(f"a redirect's target cannot hold control characters: {url!r}")
        super().__init__(b"", status, headers)
        self.headers["location"] = quote(url, safe="%/:=&?~#+!$,;'@()*[]")


# Ends of the names of headers that say how a response may be kept. RFC 9213 has such for some caches alone, by name
# `…-Cache-Control`, which go before `Cache-Control`; Surrogate-Control is older.
_TARGETED = (b"-cache-control", b"surrogate-control")
_CACHING = (b"cache-control", b"surrogate-control", b"vary", b"expires")
_PRIVATE = ((b"cache-control", b"private"), (b"vary", b"Cookie"))
# A directive of Cache-Control; a comma within quotes does not separate (RFC 9111 section 5.2).
_DIRECTIVE = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
# What allows caches that many people share to keep a response.
_SHARED = frozenset({"public", "s-maxage", "proxy-revalidate"})
# How long it may be shown without asking the server.
_LIFETIMES = frozenset({"max-age", "immutable", "stale-while-revalidate", "stale-if-error"})


def make_private(response: Response) -> None:
    """Let no shared cache keep a response, and say that it depends on the visitor's cookies.

    For whatever is made for one visitor: what has read a session, sets a cookie or holds a token. The response gets
    `Cache-Control: private` and `Vary: Cookie`; what allows shared caches to keep it is taken out. If it does not say
    itself that it is `private`, how long it may be kept was not said of a page for one visitor, and is taken out as
    well, so that no browser shows it after the visitor has signed out. What is stricter stays: `no-store`, `no-cache`
    and the like.

    Source: RFC 9111 sections 4.1 and 5.2.2.7; RFC 9213 section 2.
    """
    headers = response.headers
    for name, _ in headers.raw:
        if name.endswith(_CACHING):
            break
    else:
        headers.raw += _PRIVATE
        return
    headers.raw[:] = [pair for pair in headers.raw if not pair[0].endswith(_TARGETED)]
    headers.add_vary("Cookie")
    lines = ",".join(headers.getlist("cache-control"))
    given = [stripped for found in _DIRECTIVE.findall(lines) if (stripped := found.strip(" \t"))]
    kept = _without(given, _SHARED)
    if not {"private", "no-store"} & {each.lower() for each in kept}:
        kept = [*_without(kept, _LIFETIMES), "private"]
        headers.pop("expires", None)
    if kept != given:
        headers["cache-control"] = ", ".join(kept)


def _without(directives: list[str], names: frozenset[str]) -> list[str]:
    return [each for each in directives if each.partition("=")[0].rstrip(" \t").lower() not in names]
