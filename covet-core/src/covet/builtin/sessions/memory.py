"""The session store `memory`: sessions in this process."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from covet.sessions import Ready, StoredSession

__all__ = ["MemorySessionSettings", "MemorySessionStore"]

logger = logging.getLogger("covet.sessions")

# What a session takes beside its values: objects, dictionary entries and the key, measured on CPython 3.11.
OVERHEAD = 700
# Seconds between two warnings that there is no room.
QUIET = 60.0


class MemorySessionSettings(Struct, frozen=True, kw_only=True):
    """The keys of `[sessions]` with `store = "memory"`."""

    max_sessions: Annotated[
        int, Meta(ge=1, description="How many sessions are kept; beyond, those go that were not used for longest.")
    ] = 100_000
    max_total_bytes: Annotated[
        int, Meta(ge=1, description="Bytes of memory that all sessions may take together, roughly.")
    ] = 256 * 2**20


class MemorySessionStore:
    """Sessions in a dictionary, gone when the process ends and unknown to other processes.

    It is bounded: where there is no room for another session, the one goes that was not used for longest, and a warning
    is logged. For one event loop; nothing in it waits, so that every method is atomic.

    Args:
        settings: the bounds.
    """

    shared = False

    def __init__(self, settings: MemorySessionSettings | None = None) -> None:
        self._settings = settings or MemorySessionSettings()
        # In the order of their last use, the latest last.
        self._sessions: OrderedDict[bytes, StoredSession] = OrderedDict()
        self._users: dict[str, set[bytes]] = {}
        self._bytes = 0
        self._quiet_until = 0.0

    def __repr__(self) -> str:
        return f"<MemorySessionStore of {len(self._sessions)} sessions, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._sessions)

    def load(self, key: bytes, now: float) -> Awaitable[StoredSession | None]:
        """The session, or None."""
        found = self._sessions.get(key)
        return Ready(found if found is not None and found.expires > now else None)

    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        """Keep a new session unless the key is taken; whether it was kept."""
        if self._of_version(key, None, now) is not None:
            return False
        self._put(key, session, now)
        return True

    async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
        """Put a session in place of the one with version `expected`; whether that was there."""
        if self._of_version(key, expected, now) is None:
            return False
        self._put(key, session, now)
        return True

    async def rotate(self, old: bytes, new: bytes, session: StoredSession, expected: int, now: float) -> bool:
        """Remove the session `old` of version `expected` and keep `session` as `new`; whether it was there."""
        if self._of_version(old, expected, now) is None:
            return False
        self._remove(old)
        self._put(new, session, now)
        return True

    async def touch(self, key: bytes, seen: float, expires: float, now: float) -> bool:
        """Note that a session was used; whether it is there."""
        found = self._of_version(key, None, now)
        if found is None:
            return False
        self._sessions[key] = replace(found, seen=seen, expires=expires)
        self._sessions.move_to_end(key)
        return True

    async def delete(self, key: bytes) -> bool:
        """Remove a session; whether it was there, expired or not."""
        return self._remove(key)

    async def list_user(self, user: str, now: float) -> Sequence[tuple[bytes, StoredSession]]:
        """The sessions of a user with their keys."""
        found = [(key, self._sessions[key]) for key in self._users.get(user, ())]
        return [(key, session) for key, session in found if session.expires > now]

    async def end_user(self, user: str, keep: bytes | None) -> int:
        """Remove the sessions of a user, except the one with the key `keep`; how many."""
        return sum([self._remove(key) for key in [*self._users.get(user, ())] if key != keep])

    async def end_all(self) -> int:
        """Remove every session; how many."""
        ended = len(self._sessions)
        self._sessions.clear()
        self._users.clear()
        self._bytes = 0
        return ended

    async def purge(self, now: float) -> int:
        """Remove the sessions that have expired; how many."""
        return sum([self._remove(key) for key, one in [*self._sessions.items()] if one.expires <= now])

    def _of_version(self, key: bytes, version: int | None, now: float) -> StoredSession | None:
        found = self._sessions.get(key)
        if found is None or found.expires <= now or version not in (None, found.version):
            return None
        return found

    def _put(self, key: bytes, session: StoredSession, now: float) -> None:
        self._remove(key)
        size = _size(session)
        while self._sessions and (
            len(self._sessions) >= self._settings.max_sessions or self._bytes + size > self._settings.max_total_bytes
        ):
            self._evict(now)
        self._sessions[key] = session
        self._bytes += size
        if session.user is not None:
            self._users.setdefault(session.user, set()).add(key)

    def _evict(self, now: float) -> None:
        """Remove the session that was not used for longest."""
        key, session = next(iter(self._sessions.items()))
        self._remove(key)
        if session.expires > now >= self._quiet_until:
            self._quiet_until = now + QUIET
            logger.warning(
                "there is no room for another session, and those that were not used for longest end early; raise "
                "[sessions] max_sessions (%d) or max_total_bytes (%d), or choose another store",
                self._settings.max_sessions,
                self._settings.max_total_bytes,
            )

    def _remove(self, key: bytes) -> bool:
        session = self._sessions.pop(key, None)
        if session is None:
            return False
        self._bytes -= _size(session)
        if session.user is not None:
            keys = self._users[session.user]
            keys.discard(key)
            if not keys:
                del self._users[session.user]
        return True


def _size(session: StoredSession) -> int:
    return OVERHEAD + len(session.values) + 4 * len(session.user or "")
