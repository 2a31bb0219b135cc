"""What every limiter has in common: where it counts, and how it is asked."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from covet.exceptions import ConfigurationError
from covet.ratelimit.decisions import Decision
from covet.ratelimit.rates import Rate
from covet.ratelimit.states import States

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.cache import CacheBackend
    from covet.middleware import Band, Middleware
    from covet.requests import Request

__all__ = ["CLOCK_TOLERANCE", "MAX_KEYS", "TIMEOUT", "Limiter", "OnFailure"]

S = TypeVar("S")

OnFailure = Literal["local", "allow", "refuse"]
"""What a limiter does while its backend cannot be reached."""

CLOCK_TOLERANCE = 10
"""Seconds by which the clocks of processes that count together may differ."""

MAX_KEYS = 65_536
"""How many keys a limiter counts one by one in a process, if it is not said otherwise."""

TIMEOUT = 1.0
"""Seconds that a backend has for an answer, if it is not said otherwise."""

# Longer keys are kept as their hash, so that a client cannot fill the memory with few of them.
MAX_KEY = 128
NAME = re.compile(r"[A-Za-z0-9_./;=-]{1,64}")


class Limiter(ABC, Generic[S]):
    """Decides whether something may be done again. Its subclasses say by which algorithm.

    A limiter belongs to one event loop at a time; it is not safe to be shared by threads.

    Attributes:
        rate: how much in how long.
        limit: how much may be done at once when nothing has been done before.
        name: of the policy, in headers and events.
        backend: where it counts; None is this process.
    """

    limit: int

    def __init__(
        self,
        rate: Rate,
        *,
        name: str | None,
        scope: str | None,
        backend: CacheBackend | str | None,
        on_failure: OnFailure,
        timeout: float,
        max_keys: int,
        clock: Callable[[], int] | None,
    ) -> None:
        if name is not None and not NAME.fullmatch(name):
            raise ConfigurationError(
                f"a rate limit is named by up to 64 letters, digits, '-', '_', '.', '/', ';' and '=', not {name!r}"
            )
        if on_failure not in ("local", "allow", "refuse"):
            raise ConfigurationError(f"on_failure is 'local', 'allow' or 'refuse', not {on_failure!r}")
        if not timeout > 0:
            raise ConfigurationError(f"a rate limit's timeout is in seconds, above 0, not {timeout!r}")
        if not isinstance(max_keys, int) or max_keys < 1:
            raise ConfigurationError(f"max_keys is a number of at least 1, not {max_keys!r}")
        if backend is not None and name is None and scope is None:
            raise ConfigurationError(
                f"a rate limit of {rate} that counts in a cache backend needs a name: it tells its keys from those of "
                "other limits there, and is the same in all processes that count together"
            )
        self.rate = rate
        self.name = name or str(rate)
        self.backend = backend
        self.on_failure: OnFailure = on_failure
        self.clock = clock or (time.monotonic_ns if backend is None else time.time_ns)
        self._states: States[S] = States(max_keys, self.expired)
        self._shared: Any = None
        if backend is not None:
            from covet.ratelimit.sharing import Shared

            self._shared = Shared(self, name if scope is None else scope, timeout)

    def __repr__(self) -> str:
        where = "this process" if self.backend is None else repr(self.backend)
        return f"<{type(self).__name__} {self.name}: {self.rate} in {where}>"

    async def acquire(self, key: str, cost: int = 1) -> Decision:
        """Ask whether something may be done now, and count it if so.

        Args:
            key: who or what is limited: any text.
            cost: how much it counts for; 0 looks and counts nothing.

        A refusal is a decision like any other, and counts nothing. While the backend cannot be reached, `on_failure`
        decides. When the call is cancelled, the cost may have been counted or not.

        Raises:
            ValueError: `cost` is negative.
            TypeError: `key` is no text.
            ConfigurationError: `backend` names a cache that there is not.
            NoApplicationError: `backend` is a name, and no application is running here.
        """
        if self._shared is None:
            return self.take(key, cost)
        _check(key, cost)
        decision: Decision = await self._shared.acquire(self.resolve(), key, cost)
        return decision

    def take(self, key: str, cost: int = 1) -> Decision:
        """As `acquire`, without waiting, counting in this process alone whatever the backend.

        Raises:
            ValueError, TypeError: as `acquire`.
        """
        _check(key, cost)
        if len(key) > MAX_KEY:
            key = "#" + blake2b(key.encode("utf-8", "surrogatepass")).hexdigest()
        now = self.clock()
        states = self._states
        decision, state = self.decide(states.find(key), now, cost)
        if state is not None:
            states.keep(key, state, now)
        return decision

    async def reset(self, key: str) -> None:
        """Forget what was counted for a key. In a backend that takes its deletion, which may be cancelled before.

        A key that is counted together with others, since this process keeps so many, stays as it is.

        Raises:
            Exception: what the backend raises when it cannot be reached.
        """
        _check(key, 0)
        self._states.forget(
            key if len(key) <= MAX_KEY else "#" + blake2b(key.encode("utf-8", "surrogatepass")).hexdigest()
        )
        if self._shared is not None:
            await self.resolve().delete([self._shared.stored(key)])

    def resolve(self, app: Covet | None = None) -> CacheBackend:
        """The backend; one that was given by name is that of `app`, by default the ambient application.

        Raises:
            ConfigurationError: it counts in this process, or there is no cache of that name.
            NoApplicationError: it was given by name, and no application is running here.
        """
        if self.backend is None:
            raise ConfigurationError(f"{self!r} has no backend")
        if not isinstance(self.backend, str):
            return self.backend
        if app is None:
            from covet.context import current_app

            app = current_app()
        backends, alias = app.backends, self.backend
        backend: CacheBackend
        if alias == "default" or alias in app.settings.backed["cache"]:
            backend = backends.configured("cache", alias).backend
        else:
            backend = backends.named("cache", alias)
        return backend

    def middleware(
        self,
        *,
        key: Callable[[Request], str | Awaitable[str | None] | None] | None = None,
        cost: int | Callable[[Request], int | Awaitable[int]] = 1,
        band: Band = "limits",
    ) -> Middleware:
        """A middleware that limits every HTTP request, also those that no route answers.

        WebSockets are not seen by it; ask `acquire` before accepting one.

        Args:
            key, cost: as for `covet.ratelimit.limited`.
            band: `limits` is before anybody knows who is calling; for limits by user take `policy`.

        Raises:
            ConfigurationError: as `covet.ratelimit.limited`.
        """
        from covet.middleware import Middleware
        from covet.ratelimit.enforcing import as_middleware
        from covet.ratelimit.keys import client_address

        return Middleware(as_middleware(self, key or client_address, cost), band=band, name=f"rate-limit {self.name}")

    @property
    def identity(self) -> tuple[object, ...]:
        """What limiters have in common whose states mean the same."""
        return (type(self).__name__, self.rate.count, self.rate.nanoseconds)

    @abstractmethod
    def decide(self, state: S | None, now: int, cost: int) -> tuple[Decision, S | None]:
        """The algorithm: the decision, and the state to keep, or None when it does not change.

        Args:
            state: of the key; None when nothing is known of it.
            now: nanoseconds.
            cost: 0 or more.
        """

    @abstractmethod
    def expired(self, state: S, now: int) -> bool:
        """Whether a state says no more than none at all, at a time in nanoseconds."""

    @abstractmethod
    def lifetime(self, state: S, now: int) -> float:
        """Seconds until a state expires."""

    @abstractmethod
    def encode(self, state: S) -> bytes:
        """A state as a backend keeps it."""

    @abstractmethod
    def decode(self, value: bytes) -> S:
        """A state from what a backend kept.

        Raises:
            ValueError: that is none.
        """


def _check(key: str, cost: int) -> None:
    if cost < 0:
        raise ValueError(f"a cost is 0 or more, not {cost}")
    if not isinstance(key, str):
        raise TypeError(f"the key of a rate limit is text, not {key!r}")
