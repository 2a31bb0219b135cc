"""Counting in a cache backend, so that several processes count together."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from random import random
from typing import TYPE_CHECKING, Any

from covet.events import listener
from covet.ratelimit.decisions import Decision
from covet.ratelimit.events import RateLimitBackendChanged
from covet.ratelimit.limiters import CLOCK_TOLERANCE, MAX_KEY

if TYPE_CHECKING:
    from anyio import Lock

    from covet.cache import CacheBackend
    from covet.ratelimit.limiters import Limiter

__all__ = ["Shared"]

logger = logging.getLogger("covet.ratelimit")

ATTEMPTS = 50
# Seconds.
FIRST_PAUSE = 0.0005
MAX_PAUSE = 0.02
COOLDOWN = 5.0


class Shared:
    """The states of a limiter in a cache backend.

    A state is read, and replaced if nobody has replaced it meanwhile (compare-and-set), so that nothing is counted
    twice or lost. Who comes too late tries again; within this process one after the other, so that only as many
    compete for a key as there are processes.
    """

    def __init__(self, limiter: Limiter[Any], scope: str | None, timeout: float) -> None:
        from covet.resilience import CircuitBreaker

        self.limiter = limiter
        self.seconds = timeout
        identity = blake2b(repr((scope, *limiter.identity)).encode(), digest_size=12)
        self.prefix = f"rate:{identity.hexdigest()}:"
        # A backend that hangs would cost every request the time limit.
        self._breaker = CircuitBreaker(f"rate limit {limiter.name}", minimum_calls=5, window=10.0, cooldown=COOLDOWN)
        self._reachable = True
        self._turns: dict[str, tuple[Lock, int]] = {}

    def stored(self, key: str) -> str:
        """The key under which the state of `key` is kept: different for different keys, and fit for every backend."""
        if len(key) <= MAX_KEY and key.isascii() and key.isprintable():
            return f"{self.prefix}={key}"
        return f"{self.prefix}#{blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=32).hexdigest()}"

    async def acquire(self, backend: CacheBackend, key: str, cost: int) -> Decision:
        """See `Limiter.acquire`."""
        from covet.resilience import timeout

        try:
            async with self._breaker, timeout(self.seconds):
                decision = await self._exchange(backend, self.stored(key), cost)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises, it could not be asked
            self._note(error)
            return self._without(key, cost)
        if not self._reachable:
            self._note(None)
        return decision

    def _without(self, key: str, cost: int) -> Decision:
        """The decision while the backend cannot be reached."""
        limiter = self.limiter
        if limiter.on_failure == "local":
            return limiter.take(key, cost)
        if limiter.on_failure == "allow":
            return Decision(True, limiter.limit, 0.0, limiter.limit, 0.0, limiter.rate.per, counted=False)
        return Decision(False, 0, COOLDOWN, limiter.limit, COOLDOWN, COOLDOWN, counted=False)

    def _note(self, error: Exception | None) -> None:
        """Tell that the backend cannot be reached any more, or can again; once each."""
        limiter = self.limiter
        if self._reachable is (error is None):
            return
        self._reachable = error is None
        if error is None:
            logger.warning("the backend of the rate limit %s can be reached again", limiter.name)
        else:
            doing = {"local": "each process counts for itself", "allow": "everything is allowed"}
            logger.warning(
                "the backend of the rate limit %s cannot be reached, and until it can %s: %s: %s", limiter.name,
                doing.get(limiter.on_failure, "everything is refused"), type(error).__name__, error,
            )  # fmt: skip
        app = listener()
        if app is not None:
            name = "" if error is None else type(error).__name__
            app.emit(RateLimitBackendChanged(limiter.name, self._reachable, name, limiter.on_failure))

    async def _exchange(self, backend: CacheBackend, stored: str, cost: int) -> Decision:
        # Most find nobody in their way, and a refusal changes nothing, so that a flood of them need not queue.
        decision = await self._attempt(backend, stored, cost)
        if decision is not None:
            return decision
        from anyio import sleep

        async with self._turn(stored):
            for number in range(ATTEMPTS):
                decision = await self._attempt(backend, stored, cost)
                if decision is not None:
                    return decision
                await sleep(random() * min(MAX_PAUSE, FIRST_PAUSE * 2**number))
        # Others were counted each time. To allow this one uncounted is what an attacker would wait for.
        limiter = self.limiter
        logger.warning(
            "the rate limit %s refused a request: its key changed %d times meanwhile", limiter.name, ATTEMPTS
        )
        one = limiter.rate.per / limiter.rate.count
        return Decision(False, 0, one, limiter.limit, limiter.rate.per, one)

    async def _attempt(self, backend: CacheBackend, stored: str, cost: int) -> Decision | None:
        """The decision, or None when the state was replaced between reading and replacing it."""
        limiter = self.limiter
        value = await backend.get(stored)
        now = limiter.clock()
        state = None
        if value is not None:
            try:
                state = limiter.decode(value)
            except ValueError as error:
                logger.warning("the rate limit %s found a state that is none, and begins anew: %s", limiter.name, error)
        decision, state = limiter.decide(state, now, cost)
        if state is None:
            return decision
        ttl = limiter.lifetime(state, now) + CLOCK_TOLERANCE
        if await backend.compare_and_set(stored, value, limiter.encode(state), ttl):
            return decision
        return None

    @asynccontextmanager
    async def _turn(self, stored: str) -> AsyncIterator[None]:
        """One after the other, by key."""
        from anyio import Lock

        lock, users = self._turns.get(stored) or (Lock(), 0)
        self._turns[stored] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns[stored]
            if users == 1:
                del self._turns[stored]
            else:
                self._turns[stored] = (lock, users - 1)
