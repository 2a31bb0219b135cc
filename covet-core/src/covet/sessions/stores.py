"""What keeps sessions: the protocols of their stores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Generator, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from msgspec import Struct

__all__ = ["Ready", "SealedSessions", "SessionStore", "StoredSession"]

T = TypeVar("T")


class Ready(Struct, Generic[T], frozen=True, gc=False):
    """An answer that is there already, to be awaited like one that is not.

    A plain method that never has to wait returns it in place of a coroutine, which takes several times as long to make
    and to run. Awaiting it gives the answer at once, and lets nobody else run.

    Attributes:
        value: the answer.
    """

    value: T

    def __await__(self) -> Generator[Any, Any, T]:
        return self.value
        yield


class StoredSession(Struct, frozen=True, kw_only=True, array_like=True):
    """A session as a store keeps it. Times are in seconds since the epoch.

    Attributes:
        values: its values, encoded; the store does not look into them.
        version: 1 at first, and greater by one with every change of the values.
        user: whose it is, a text of 1 to 255 characters; None before anybody has signed in.
        created: when it began.
        authenticated: when its user last proved who it is, or None.
        seen: when it was last used, give or take a tenth of the idle time.
        expires: when it ends unless it is used before.
    """

    values: bytes
    version: int
    user: str | None
    created: float
    authenticated: float | None
    seen: float
    expires: float


@runtime_checkable
class SessionStore(Protocol):
    """A session store: sessions by key, which is the SHA-256 hash of an id: 32 bytes. No store ever sees an id.

    The time comes with each call, as seconds since the epoch, so that a store needs no clock. A session whose `expires`
    is not after `now` is gone for every method; when its row or entry is removed is the store's affair, `purge` at the
    latest. Two users are the same only if their texts are equal character by character, whatever a database thinks of
    case, accents or spaces at the end.

    Every method is atomic towards all others, also of other processes where the store is shared. A call that is
    cancelled has done all of its work or none, and breaks nothing. What a method raises when the store cannot be
    reached is its own affair: whoever asked for the session gets status 503.

    Attributes:
        shared: whether other processes see the same sessions.
    """

    shared: bool

    @abstractmethod
    def load(self, key: bytes, now: float) -> Awaitable[StoredSession | None]:
        """The session, or None. An `async def`, or a plain method of a store that has it at hand, and returns `Ready`.

        Every request that looks at its session pays for this call.
        """

    @abstractmethod
    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        """Keep a new session unless the key is taken; whether it was kept."""

    @abstractmethod
    async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
        """Put a session in place of the one with version `expected`; whether that was there."""

    @abstractmethod
    async def rotate(self, old: bytes, new: bytes, session: StoredSession, expected: int, now: float) -> bool:
        """Remove the session `old` of version `expected` and keep `session` as `new`, both or neither; whether it was
        there."""

    @abstractmethod
    async def touch(self, key: bytes, seen: float, expires: float, now: float) -> bool:
        """Note that a session was used. Its values and version stay; whether it is there."""

    @abstractmethod
    async def delete(self, key: bytes) -> bool:
        """Remove a session; whether it was there, expired or not."""

    @abstractmethod
    async def list_user(self, user: str, now: float) -> Sequence[tuple[bytes, StoredSession]]:
        """The sessions of a user with their keys, in any order."""

    @abstractmethod
    async def end_user(self, user: str, keep: bytes | None) -> int:
        """Remove the sessions of a user, except the one with the key `keep`; how many."""

    @abstractmethod
    async def end_all(self) -> int:
        """Remove every session; how many."""

    @abstractmethod
    async def purge(self, now: float) -> int:
        """Remove the sessions that have expired; how many."""


@runtime_checkable
class SealedSessions(Protocol):
    """What leaves sessions to the browsers: each is in its cookie, sealed so that nobody there can read or change it.

    Such sessions cannot be listed or ended from here, and a copy of the cookie lives until it expires. A factory of the
    hook `covet_session_stores` may make one of these in place of a `SessionStore`.
    """

    @abstractmethod
    def seal(self, cookie: str, key: bytes, session: StoredSession) -> str:
        """The text of the cookie called `cookie`, for a session and its key: characters that a cookie may hold."""

    @abstractmethod
    def open(self, cookie: str, text: str) -> tuple[bytes, StoredSession] | None:
        """The key and session that were sealed for the cookie of that name; None for anything else. Never raises.

        Whether it has expired is looked at by the caller.
        """
