"""The token bucket, as the generic cell rate algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from covet.ratelimit.decisions import Decision
from covet.ratelimit.limiters import CLOCK_TOLERANCE, MAX_KEYS, TIMEOUT, Limiter, OnFailure
from covet.ratelimit.rates import NANOSECONDS, Rate

if TYPE_CHECKING:
    from covet.cache import CacheBackend

__all__ = ["TokenBucketLimiter"]


class TokenBucketLimiter(Limiter[int]):
    """Allows `burst` at once and `rate` in `per` seconds in the long run: in any t seconds, at most
    `burst + rate * t / per`.

    It is the generic cell rate algorithm (GCRA): all that is kept of a key is one number, the theoretical arrival time,
    at which its bucket will be full again. A request is allowed if that time, put forward by its cost, is not further
    ahead than a whole bucket takes to fill. This is the virtual scheduling algorithm of ITU-T Recommendation I.371,
    annex A; https://brandur.org/rate-limiting shows it at work for requests. The arithmetic is in whole numbers, so
    that the bound is exact.

    Args:
        rate: how much is allowed in `per` seconds.
        per: seconds.
        burst: how much is allowed at once, after a pause; `rate` by default.
        name: of the policy, in headers and events; the rate by default.
        scope: tells the keys of this limiter from those of others in the same backend; `name` by default. Processes
            count together whose limiters have one scope and one rate. With a backend one of the two must be given.
        backend: where to count. None: in this process. Text: the alias of a cache of the ambient application
            (`default`, or a table `[cache.ALIAS]`), or the name of a cache backend that a plugin brings. Or a backend.
        on_failure: what to do while the backend cannot be reached: count in this process (`local`), `allow`, `refuse`.
        timeout: seconds that the backend has for an answer.
        max_keys: how many keys have a state of their own in this process; see `covet.ratelimit.states`.
        clock: the time in nanoseconds; by default the monotonic clock, with a backend the time of day.

    Raises:
        ConfigurationError: an argument makes no sense, or there is a backend and neither name nor scope.
    """

    def __init__(
        self,
        rate: int,
        per: float = 1.0,
        *,
        burst: int | None = None,
        name: str | None = None,
        scope: str | None = None,
        backend: CacheBackend | str | None = None,
        on_failure: OnFailure = "local",
        timeout: float = TIMEOUT,
        max_keys: int = MAX_KEYS,
        clock: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(
            Rate(rate, per, burst),
            name=name,
            scope=scope,
            backend=backend,
            on_failure=on_failure,
            timeout=timeout,
            max_keys=max_keys,
            clock=clock,
        )
        self.limit = rate if burst is None else burst
        # Time is counted in nanoseconds times `rate`, in which one costs a whole number: `per`.
        self._count = rate
        self._each = self.rate.nanoseconds
        self._bucket = self._each * self.limit
        # Later than any clock of those that share a backend would say: the time of day was put back.
        self._latest = self._bucket + CLOCK_TOLERANCE * NANOSECONDS * rate
        self._to_seconds = rate * NANOSECONDS

    def decide(self, state: int | None, now: int, cost: int) -> tuple[Decision, int | None]:
        """See `Limiter.decide`. The state is the theoretical arrival time, in nanoseconds times the rate."""
        count = self._count
        now *= count
        arrival = now if state is None or state < now else state
        changed = arrival > now + self._latest
        if changed:
            arrival = now + self._bucket
        filled = arrival - now + cost * self._each
        excess = filled - self._bucket
        if excess > 0 and cost:
            owed = arrival - now
            room = self._bucket - owed
            # Rounded up to a nanosecond: at that time it is allowed, not one earlier.
            wait = -(-excess // count) / NANOSECONDS if cost <= self.limit else math.inf
            remaining = room // self._each if room > 0 else 0
            window = remaining * self._each if remaining else self._each - room
            return (
                Decision(False, remaining, wait, self.limit, owed / self._to_seconds, window / self._to_seconds),
                arrival if changed else None,
            )
        remaining = -excess // self._each if excess < 0 else 0
        window = remaining * self._each if remaining else self._each + excess
        return (
            Decision(True, remaining, 0.0, self.limit, filled / self._to_seconds, window / self._to_seconds),
            now + filled if cost or changed else None,
        )

    def expired(self, state: int, now: int) -> bool:
        """See `Limiter.expired`."""
        return state <= now * self._count

    def lifetime(self, state: int, now: int) -> float:
        """See `Limiter.lifetime`."""
        return max(0.0, (state - now * self._count) / self._to_seconds)

    def encode(self, state: int) -> bytes:
        """See `Limiter.encode`: decimal digits."""
        return b"%d" % state

    def decode(self, value: bytes) -> int:
        """See `Limiter.decode`."""
        if len(value) > 40:
            raise ValueError("too long for a time")
        return int(value)
