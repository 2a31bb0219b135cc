"""The session's cookie: finding it in a request, setting it, and what its use does to a response."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.connections import Connection
    from covet.responses import Response
    from covet.settings_sections import SessionsSettings

__all__ = ["SessionCookie", "make_private"]

_PRIVATE = ((b"cache-control", b"private"), (b"vary", b"Cookie"))
# A directive of Cache-Control; a comma within quotes does not separate (RFC 9111 section 5.2).
_DIRECTIVE = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
# What allows caches that many people share to keep a response.
_SHARED = ("public", "s-maxage", "proxy-revalidate")


class SessionCookie:
    """The cookie that tells which session a browser has.

    Args:
        app: the application, built.
        settings: `[sessions]`.

    Attributes:
        name: `[sessions] cookie`, or `__Host-session`; in debug mode `session`, since browsers take a cookie with that
            prefix over HTTPS only.
    """

    def __init__(self, app: Covet, settings: SessionsSettings) -> None:
        self.name = settings.cookie or ("session" if app.debug else "__Host-session")
        self._begins = self.name.encode() + b"="
        prefixed = self.name.lower().startswith(("__host-", "__secure-"))
        self._secure = not app.debug or prefixed or settings.same_site == "none"
        self._attributes = f"; HttpOnly; SameSite={settings.same_site.capitalize()}"

    def sent(self, connection: Connection) -> bytes | None:
        """The cookie's value, or None: also when it was sent twice, for one of them is not ours."""
        begins = self._begins
        # The headers as they came, for reading them all takes longer than everything else here.
        lines = [line for name, line in connection.scope["headers"] if name == b"cookie"]
        if len(lines) == 1 and b";" not in lines[0]:
            line = lines[0].strip(b" \t")
            return line[len(begins) :] if line.startswith(begins) else None
        found: bytes | None = None
        for line in lines:
            for piece in line.split(b";") if b";" in line else (line,):
                stripped = piece.strip(b" \t")
                if stripped.startswith(begins):
                    if found is not None:
                        return None
                    found = stripped[len(begins) :]
        return found

    def set(self, response: Response, connection: Connection, text: str, max_age: int | None) -> None:
        """Set the cookie, beside all others that a response sets. Without text, the browser forgets it.

        Args:
            max_age: seconds, or None for as long as the browser runs.

        Raises:
            ValueError: a store has sealed a session into a text that no cookie can hold.
        """
        if ";" in text or "," in text or " " in text:
            raise ValueError(f"the cookie {self.name!r} cannot hold the text that its store has made")
        secure = "; Secure" if self._secure or connection.scheme == "https" else ""
        age = "" if text and max_age is None else f"; Max-Age={max_age if text else 0}"
        response.headers.add("set-cookie", f"{self.name}={text}{age}; Path=/{secure}{self._attributes}")


def make_private(response: Response) -> None:
    """Let no shared cache keep a response, and say that it depends on the cookie (RFC 9111 sections 5.2.2.7 and 4.1).

    A stricter `Cache-Control` stays as it is; what allows shared caches to keep it is taken out.
    """
    headers = response.headers
    for name, _ in headers.raw:
        if name == b"vary" or name == b"cache-control":
            break
    else:
        headers.raw += _PRIVATE
        return
    headers.add_vary("Cookie")
    lines = headers.getlist("cache-control")
    if not lines:
        headers["cache-control"] = "private"
        return
    directives = [stripped for found in _DIRECTIVE.findall(",".join(lines)) if (stripped := found.strip(" \t"))]
    kept = [each for each in directives if each.partition("=")[0].rstrip(" \t").lower() not in _SHARED]
    words = {each.lower() for each in kept}
    if not words & {"private", "no-store"}:
        kept.append("private")
    if kept != directives:
        headers["cache-control"] = ", ".join(kept)
