"""The sliding window, counted in slices."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from covet.exceptions import ConfigurationError
from covet.ratelimit.decisions import Decision
from covet.ratelimit.limiters import CLOCK_TOLERANCE, MAX_KEYS, TIMEOUT, Limiter, OnFailure
from covet.ratelimit.rates import NANOSECONDS, Rate

if TYPE_CHECKING:
    from covet.cache import CacheBackend

__all__ = ["SlidingWindowLimiter"]

Slices = tuple[tuple[int, int], ...]
MAX_SLICES = 100


class SlidingWindowLimiter(Limiter[Slices]):
    """Allows at most `rate` in any `per` seconds, wherever they begin.

    A token bucket that has been full allows up to twice as much in such a time. Here what was done is counted by slices
    of the window, and a slice counts until all of it is older than the window: so there is never too much, while what
    was done may count for up to one slice longer than the window. Of a key, a number for each slice is kept in which
    something was done, at most `slices` + 1.

    Args:
        rate, per: how much is allowed in how many seconds.
        slices: how many slices a window has, from 1 to 100.
        name, scope, backend, on_failure, timeout, max_keys, clock: as for `TokenBucketLimiter`.

    Raises:
        ConfigurationError: an argument makes no sense, or there is a backend and neither name nor scope.
    """

    def __init__(
        self,
        rate: int,
        per: float = 1.0,
        *,
        slices: int = 10,
        name: str | None = None,
        scope: str | None = None,
        backend: CacheBackend | str | None = None,
        on_failure: OnFailure = "local",
        timeout: float = TIMEOUT,
        max_keys: int = MAX_KEYS,
        clock: Callable[[], int] | None = None,
    ) -> None:
        if not isinstance(slices, int) or not 1 <= slices <= MAX_SLICES:
            raise ConfigurationError(f"a sliding window has from 1 to {MAX_SLICES} slices, not {slices!r}")
        super().__init__(
            Rate(rate, per),
            name=name,
            scope=scope,
            backend=backend,
            on_failure=on_failure,
            timeout=timeout,
            max_keys=max_keys,
            clock=clock,
        )
        self.limit = rate
        self.slices = slices
        self._window = self.rate.nanoseconds
        self._ahead = -(-CLOCK_TOLERANCE * NANOSECONDS * slices // self._window) + 1

    def _counted_until(self, number: int) -> int:
        """The nanosecond from which a slice counts no more."""
        return -(-(number + self.slices + 1) * self._window // self.slices)

    def decide(self, state: Slices | None, now: int, cost: int) -> tuple[Decision, Slices | None]:
        """See `Limiter.decide`. The state is the number of each slice and what was done in it, the oldest first."""
        current = now * self.slices // self._window
        kept = state or ()
        if kept and kept[0][0] < current - self.slices:
            kept = tuple(entry for entry in kept if entry[0] >= current - self.slices)
        done = 0
        for _, count in kept:
            done += count
        changed = bool(kept) and kept[-1][0] > current + self._ahead
        if changed:
            # The time of day was put back: as if all of it were done now.
            done = min(self.limit, done)
            kept = ((current, done),)
        if cost and done + cost > self.limit:
            wait = self._wait(kept, done + cost - self.limit, now) if cost <= self.limit else math.inf
            return self._told(False, kept, done, wait, now), kept if changed else None
        if cost:
            # A slice that is ahead, of another process's clock, takes what is done now, too: so they stay in order.
            if kept and kept[-1][0] >= current:
                kept = (*kept[:-1], (kept[-1][0], kept[-1][1] + cost))
            else:
                kept = (*kept, (current, cost))
        return self._told(True, kept, done + cost, 0.0, now), kept if cost or changed else None

    def _wait(self, kept: Slices, excess: int, now: int) -> float:
        """Seconds until `excess` of what was done counts no more."""
        for number, count in kept:
            excess -= count
            if excess <= 0:
                return (self._counted_until(number) - now) / NANOSECONDS
        return 0.0

    def _told(self, allowed: bool, kept: Slices, done: int, wait: float, now: int) -> Decision:
        remaining = max(0, self.limit - done)
        window = self.rate.per * remaining / self.limit if remaining else self._wait(kept, done - self.limit + 1, now)
        reset = (self._counted_until(kept[-1][0]) - now) / NANOSECONDS if kept else 0.0
        return Decision(allowed, remaining, wait, self.limit, reset, window)

    def expired(self, state: Slices, now: int) -> bool:
        """See `Limiter.expired`."""
        return not state or self._counted_until(state[-1][0]) <= now

    def lifetime(self, state: Slices, now: int) -> float:
        """See `Limiter.lifetime`."""
        return max(0.0, (self._counted_until(state[-1][0]) - now) / NANOSECONDS) if state else 0.0

    def encode(self, state: Slices) -> bytes:
        """See `Limiter.encode`: `number:count`, separated by blanks."""
        return b" ".join(b"%d:%d" % entry for entry in state)

    def decode(self, value: bytes) -> Slices:
        """See `Limiter.decode`."""
        if len(value) > 60 * (MAX_SLICES + 1):
            raise ValueError("too long for a window")
        found: list[tuple[int, int]] = []
        for entry in value.split():
            number, _, count = entry.partition(b":")
            found.append((int(number), int(count)))
        if any(count < 1 for _, count in found) or any(a[0] >= b[0] for a, b in pairwise(found)):
            raise ValueError("no window: its slices are in order, and something was done in each")
        return tuple(found)
