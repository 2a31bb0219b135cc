"""The session's cookie: finding it in a request, and setting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.connections import Connection
    from covet.responses import Response
    from covet.settings_sections import SessionsSettings

__all__ = ["SessionCookie"]


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
        found: bytes | None = None
        # The headers as they came, for reading them all takes longer than everything else here.
        for name, line in connection.scope["headers"]:
            if name == b"cookie":
                for pair in line.split(b";"):
                    before, named, value = pair.partition(begins)
                    if named and (not before or not before.strip(b" \t")):
                        if found is not None:
                            return None
                        found = value.rstrip(b" \t")
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
