"""Ids of sessions, their keys in the store, and the users they belong to."""

from __future__ import annotations

from hashlib import sha256
from secrets import token_urlsafe

from covet.sessions.errors import SessionValueError

__all__ = ["ID_LENGTH", "MAX_USER", "checked_user", "key_of", "new_id"]

ID_LENGTH = 43
"""How many characters an id has."""

MAX_USER = 255
"""How many characters a user's text may have."""


def new_id() -> str:
    """A session's id: 256 random bits, as 43 characters."""
    return token_urlsafe(32)


def key_of(id: bytes) -> bytes:
    """The key of a session in its store, from which its id cannot be found."""
    return sha256(id).digest()


def checked_user(user: str) -> str:
    """A user's text, if a store can hold it.

    Raises:
        SessionValueError: it is no text of 1 to 255 characters, or holds what a database cannot.
    """
    if type(user) is not str:
        raise SessionValueError(f"a session's user is a text, not {type(user).__qualname__}: pass `str(user.id)`")
    if not 1 <= len(user) <= MAX_USER:
        raise SessionValueError(f"a session's user is a text of 1 to {MAX_USER} characters, not of {len(user)}")
    if "\0" in user or any("\ud800" <= character <= "\udfff" for character in user):
        raise SessionValueError("a session's user holds a NUL, or a character that UTF-8 cannot encode")
    return user
