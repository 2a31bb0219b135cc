"""What can go wrong with a session."""

from __future__ import annotations

from covet.exceptions import CovetError, HTTPError

__all__ = [
    "SessionError",
    "SessionKeyError",
    "SessionNotLoadedError",
    "SessionStoreError",
    "SessionTooLargeError",
    "SessionValueError",
]


class SessionError(CovetError):
    """A session was used in a way that cannot work here."""


class SessionNotLoadedError(SessionError):
    """A session was looked into before it was loaded."""

    def __init__(self) -> None:
        super().__init__(
            "the session is not loaded yet, which may take waiting for its store: write "
            "`session = await request.session`, or let the handler ask for it in its signature: `session: Session`"
        )


class SessionKeyError(SessionError, KeyError):
    """The session has no such key."""

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return str(self.args[0])


class SessionValueError(SessionError, ValueError):
    """A key or value cannot be kept in a session. The message names the key, and the type of the value."""


class SessionTooLargeError(SessionError):
    """The values of a session have more bytes than `[sessions] max_bytes`, or than a cookie holds."""


class SessionStoreError(HTTPError):
    """The session store is down, or took too long: the request is answered with status 503.

    Nothing goes on as if there were no session: who is signed in stays so, and who is not gets no further.
    """

    def __init__(self) -> None:
        super().__init__(503, "sessions cannot be read or written at the moment", headers={"retry-after": "5"})
