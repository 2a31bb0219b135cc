"""The states of a limiter in the memory of this process: bounded, and sound under a flood of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["States"]

S = TypeVar("S")

# How many states stand in for the keys that found no room.
SHARED = 4096
FIRST_SWEEP = 1024
SECOND = 1_000_000_000


class States(Generic[S]):
    """A state for each key, of at most `room` keys.

    A state that has expired says no more than none at all, so it can go at any time; one that has not is never dropped,
    or a flood of other keys would hand out limits afresh. When there is no room for a key, it is counted together with
    others that found none, in one of a fixed number of shared states: it may be refused early, and is never allowed too
    much. Who shares with whom changes with each process, as Python's hash of text does. A key that finds room later
    begins with what the shared state says, since its own past is in there.

    Args:
        room: how many keys have a state of their own.
        expired: whether a state is worth nothing any more at a time in nanoseconds.
    """

    __slots__ = ("_expired", "_next_sweep", "_room", "_shared", "_sweep_at", "own")

    def __init__(self, room: int, expired: Callable[[S, int], bool]) -> None:
        self.own: dict[str, S] = {}
        self._room = room
        self._expired = expired
        self._shared: dict[int, S] = {}
        self._sweep_at = min(room, FIRST_SWEEP)
        self._next_sweep: int | None = None

    def __len__(self) -> int:
        return len(self.own) + len(self._shared)

    def find(self, key: str) -> S | None:
        """The state that counts for a key."""
        state = self.own.get(key)
        if state is None and self._shared:
            return self._shared.get(hash(key) % SHARED)
        return state

    def keep(self, key: str, state: S, now: int) -> None:
        """Keep the state of a key; `now` is in nanoseconds."""
        self.own[key] = state
        if len(self.own) > self._sweep_at:
            self._make_room(key, now)

    def forget(self, key: str) -> None:
        """Drop the state of a key that has one of its own."""
        self.own.pop(key, None)

    def _make_room(self, key: str, now: int) -> None:
        # A sweep looks at every key. It is paid for by as many new ones as it left; at the limit, by a second.
        if self._next_sweep is None or now >= self._next_sweep or self._sweep_at < self._room:
            expired = self._expired
            self.own = {other: state for other, state in self.own.items() if not expired(state, now)}
            self._shared = {slot: state for slot, state in self._shared.items() if not expired(state, now)}
            self._sweep_at = min(self._room, max(FIRST_SWEEP, 2 * len(self.own)))
            self._next_sweep = now + SECOND
        if len(self.own) > self._room:
            self._shared[hash(key) % SHARED] = self.own.pop(key)
