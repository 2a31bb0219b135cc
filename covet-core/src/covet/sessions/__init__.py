"""Sessions: what a service remembers of a visitor from request to request.

    session = await request.session
    session["visits"] = session.get("visits", 0) + 1

`Session` is what a handler sees, `Sessions` (`app.sessions`) lists and ends them, a `SessionStore` keeps them.
"""

from covet.sessions.errors import (
    SessionError,
    SessionKeyError,
    SessionNotLoadedError,
    SessionStoreError,
    SessionTooLargeError,
    SessionValueError,
)
from covet.sessions.manager import SessionInfo, Sessions
from covet.sessions.session import Session
from covet.sessions.stores import Ready, SealedSessions, SessionStore, StoredSession

__all__ = [
    "Ready",
    "SealedSessions",
    "Session",
    "SessionError",
    "SessionInfo",
    "SessionKeyError",
    "SessionNotLoadedError",
    "SessionStore",
    "SessionStoreError",
    "SessionTooLargeError",
    "SessionValueError",
    "Sessions",
    "StoredSession",
]
