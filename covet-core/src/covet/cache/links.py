"""What stands between caches and a backend: its time limit, its circuit breaker, and what is told of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from covet.cache.errors import CacheUnavailableError, CacheValueError
from covet.events import CacheFailed, listener
from covet.settings_sections import CacheSettings

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.cache.backends import CacheBackend
    from covet.cache.flights import Flight
    from covet.resilience import CircuitBreaker

__all__ = ["Link", "Links"]

T = TypeVar("T")

logger = logging.getLogger("covet.cache")

Emit = Callable[[Any], object]


class Link:
    """A backend as caches use it. Caches that have one backend of one application share it.

    Args:
        name: what messages and events call it.
        backend: the backend.
        settings: what all its caches have in common.
        hear: gives the function that is told of events, or None where nobody listens. None itself if nobody ever does.

    Attributes:
        peek: reads at once, where the backend is in this process's own memory; else None.
        flights: the computations that are under way, by the backend's key of what they compute.
    """

    __slots__ = ("__weakref__", "_breaker", "backend", "flights", "hear", "name", "peek", "settings")

    def __init__(
        self, name: str, backend: CacheBackend, settings: CacheSettings, hear: Callable[[], Emit | None] | None
    ) -> None:
        self.name = name
        self.backend = backend
        self.settings = settings
        self.hear = hear
        self.peek: Callable[[str], bytes | None] | None = getattr(backend, "peek", None)
        self.flights: dict[str, Flight] = {}
        self._breaker: CircuitBreaker | None = None

    @classmethod
    def alone(cls, backend: CacheBackend, settings: CacheSettings) -> Link:
        """A link to a backend that belongs to no application; the ambient one, if any, is told of events."""

        def hear() -> Emit | None:
            app = listener()
            return None if app is None else app.emit

        return cls(type(backend).__name__, backend, settings, hear)

    @property
    def breaker(self) -> CircuitBreaker:
        """What keeps a backend that is down from being called again and again."""
        if self._breaker is None:
            from covet.resilience import CircuitBreaker

            # What a backend says of a value is an answer, no outage.
            self._breaker = CircuitBreaker(
                f"cache {self.name}",
                failure_count=5,
                minimum_calls=5,
                window=10.0,
                cooldown=self.settings.cooldown_seconds,
                ignore=ValueError,
            )
        return self._breaker

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any, otherwise: T, strict: bool = False) -> T:
        """Call a method of the backend, within its time limit and behind its breaker.

        Returns:
            What it gives, or `otherwise` when it fails.

        Raises:
            CacheUnavailableError: it fails, and `strict` or the settings say that this is an error.
            CacheValueError: the backend refuses the value.
        """
        try:
            if self.peek is not None:
                return await function(*args)
            from covet.resilience import timeout

            async with self.breaker.for_one_call(), timeout(self.settings.timeout_seconds):
                return await function(*args)
        except ValueError as error:
            raise CacheValueError(f"the cache {self.name!r}: {error}") from error
        except Exception as error:
            self.failed(function.__name__, error)
            if strict or self.settings.strict:
                raise CacheUnavailableError(
                    f"the cache {self.name!r} failed at {function.__name__}: {type(error).__name__}: {error}"
                ) from error
            return otherwise

    def failed(self, operation: str, error: Exception) -> None:
        """Tell of a failure: always the listeners; the log not of calls that an open breaker refused."""
        from covet.resilience import CircuitOpen

        if not isinstance(error, CircuitOpen):
            logger.warning("the cache %r failed at %s: %s: %s", self.name, operation, type(error).__name__, error)
        self.tell(lambda: CacheFailed(self.name, operation, type(error).__name__))

    def tell(self, event: Callable[[], Any]) -> None:
        """Tell the listeners of an event, which is made only if there are any."""
        if self.hear is not None and (emit := self.hear()) is not None:
            emit(event())


class Links:
    """The links of an application, and what its caches have worked out from them. Kept in the application's state."""

    __slots__ = ("_links", "bounds")

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], Link] = {}
        self.bounds: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    @classmethod
    def of(cls, app: Covet) -> Links:
        """The links of an application."""
        found = app.state.get(cls)
        if found is None:
            app.state[cls] = found = cls()
        return found

    def find(self, app: Covet, alias: str, backend: str | None) -> Link:
        """The link to what `[cache.ALIAS]` names, or to the backend called `backend` with its default settings.

        Raises:
            ConfigurationError: the settings have no such table, or no plugin brings such a backend.
        """
        key = ("alias", alias) if backend is None else ("backend", backend)
        link = self._links.get(key)
        if link is None:
            event = app.hooks.event
            hear = None if event is None else (lambda: event)
            if backend is None:
                made = app.backends.configured("cache", alias)
                link = Link(alias, made.backend, made.settings, hear)
            else:
                link = Link(backend, app.backends.named("cache", backend), CacheSettings(backend=backend), hear)
            self._links[key] = link
        return link
