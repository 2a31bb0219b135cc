"""Who reads what they wrote: a request, or a task with those that it starts.

The guarantee is "read your writes" (Terry et al., Session Guarantees for Weakly Consistent Replicated Data, 1994):
after a write, a read of the same session sees it, or what replaced it. A session keeps the position of its last write
until `token_lifetime` has passed, whichever replicas have reached it meanwhile: the next read may go to another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from covet.context import current_request
from covet_orm.replicas.positions import InvalidToken, Position, parse_position

if TYPE_CHECKING:
    from covet_orm.replicas.routing import Replica

__all__ = ["ReadSession", "ReadSessions", "read_session"]

# Seconds for which a session stays with the replica that it began with.
STAY = 30.0
PRIMARY = "primary"
# More than any token has.
LONGEST = 1000


class ReadSession:
    """What a session knows of one database. Points in time are those of `time.monotonic()`.

    Attributes:
        lifetime: seconds for which a position is kept.
        replica: the replica that it stays with.
        stays: until when.
    """

    __slots__ = ("_pending", "_position", "_primary_until", "_spared_until", "_until", "lifetime", "replica", "stays")

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self.replica: Replica | None = None
        self.stays = 0.0
        self._position: Any = None
        self._until = 0.0
        self._pending = 0
        self._primary_until = 0.0
        self._spared_until = 0.0

    @property
    def position(self) -> Position | None:
        """What a replica must have applied; None for nothing in particular."""
        if self._position is not None and monotonic() >= self._until:
            self._position = None
        position: Position | None = self._position
        return position

    @property
    def needs_primary(self) -> bool:
        """Whether the primary alone will do: what was written has a position that is not known, or is far away."""
        return self._pending > 0 or monotonic() < max(self._primary_until, self._spared_until)

    def writing(self) -> None:
        """A write may have happened, and its position is not known yet."""
        self._pending += 1

    def wrote(self, position: Position | None) -> None:
        """It is now. None when nothing was written after all."""
        self._pending -= 1
        if position is not None:
            self.require(position, monotonic() + self.lifetime)

    def lost_track(self) -> None:
        """It will not be."""
        self._pending -= 1
        self.read_primary()

    def require(self, position: Position, until: float) -> None:
        """Read from here on what has this position."""
        known = self.position
        self._position = (
            position if known is None or type(known) is not type(position) else self._position.merged(position)
        )
        self._until = max(self._until, until)

    def read_primary(self, until: float | None = None) -> None:
        """Read from the primary until then, or for as long as positions are kept."""
        self._primary_until = max(self._primary_until, monotonic() + self.lifetime if until is None else until)

    def spare_replicas(self, seconds: float) -> None:
        """Read from the primary for so long, rather than wait for replicas each time."""
        self._spared_until = monotonic() + seconds

    def stay_with(self, replica: Replica) -> None:
        """Read from this replica from now on, as long as it is asked at all."""
        self.replica, self.stays = replica, monotonic() + STAY

    def token(self) -> str:
        """The position as text, with the time at which it ends; empty for none."""
        position, now = self.position, monotonic()
        if self._pending or now < self._primary_until:
            left = self.lifetime if self._pending else self._primary_until - now
            return f"{int((time.time() + left) * 1000):x}:{PRIMARY}"
        if position is None:
            return ""
        return f"{int((time.time() + self._until - now) * 1000):x}:{position}"

    def read_after(self, token: str) -> None:
        """Take a token of another session over.

        Raises:
            InvalidToken: it is none.
        """
        if not token:
            return
        ends, colon, text = token.partition(":")
        if len(token) > LONGEST or not colon or not 0 < len(ends) <= 16 or not set(ends) <= set("0123456789abcdef"):
            raise InvalidToken("the text is no token that `write_token` made")
        position = None if text == PRIMARY else parse_position(text)
        # It comes from outside: it holds for no longer than one that is made now.
        left = min(int(ends, 16) / 1000 - time.time(), self.lifetime)
        if left <= 0:
            return
        if position is None:
            self.read_primary(monotonic() + left)
        else:
            self.require(position, monotonic() + left)


class ReadSessions:
    """The sessions of a request, or of a task and those that it starts: one for each set of replicas."""

    __slots__ = ("_sessions", "in_request")

    def __init__(self, *, in_request: bool = False) -> None:
        self.in_request = in_request
        self._sessions: WeakKeyDictionary[Any, ReadSession] = WeakKeyDictionary()

    def of(self, key: Any, lifetime: float) -> ReadSession:
        """The session for a set of replicas."""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = ReadSession(lifetime)
        return session

    @classmethod
    def current(cls) -> ReadSessions:
        """Those of the block of `read_session` around the caller, of its request, or of its task."""
        sessions = current.get(None)
        request = current_request()
        if request is None:
            if sessions is None:
                sessions = cls()
                current.set(sessions)
            return sessions
        if sessions is not None and sessions.in_request:
            return sessions
        found = request.state.get(cls)
        if found is None:
            found = request.state[cls] = cls()
        return found


current: ContextVar[ReadSessions] = ContextVar("covet_orm.read_sessions")


@contextmanager
def read_session() -> Iterator[None]:
    """A block with a session of its own: it reads what was written in it, and need not wait for what was not.

    Every request has one by itself. For a worker whose tasks were started by one that writes:

        async for job in jobs:
            with read_session():
                await work(job)
    """
    sessions = ReadSessions(in_request=current_request() is not None)
    token = current.set(sessions)
    try:
        yield
    finally:
        current.reset(token)
