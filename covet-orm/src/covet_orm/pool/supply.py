"""Where a pool's connections come from: the driver, behind a circuit breaker."""

from __future__ import annotations

import logging
from time import monotonic

from covet.resilience import CircuitBreaker, CircuitOpen
from covet_orm.drivers.protocol import Connection, Driver
from covet_orm.exceptions import DatabaseUnavailable

__all__ = ["Supply"]

logger = logging.getLogger("covet_orm.pool")


class Supply:
    """Makes connections, and knows whether the next attempt is worth it.

    Attributes:
        error: what the last attempt failed with.
        retry_at: until when nobody tries: the breaker is open. In the time of `time.monotonic()`.
    """

    __slots__ = ("_breaker", "_driver", "_name", "error", "retry_at")

    def __init__(self, driver: Driver, breaker: CircuitBreaker, name: str) -> None:
        self._driver = driver
        self._breaker = breaker
        self._name = name
        self.error: Exception | None = None
        self.retry_at = 0.0

    @property
    def one_by_one(self) -> bool:
        """Whether to make one attempt at a time: the last one has failed, or the breaker lets only probes through."""
        return self.error is not None or self._breaker.state != "closed"

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            DatabaseUnavailable: it could not be made; or it was not tried, as it failed too often just before.
        """
        try:
            async with self._breaker:
                connection = await self._driver.connect()
        except CircuitOpen as refused:
            # Not by less than the timers of an event loop can tell apart.
            self.retry_at = monotonic() + max(refused.retry_after, 0.01)
            raise self.unavailable() from self.error
        except Exception as error:
            if self.error is None:
                logger.warning("the pool %s cannot connect: %s", self._name, error)
            self.error = error
            if self._breaker.state == "open":
                self.retry_at = monotonic() + self._breaker.cooldown
            raise
        if self.error is not None:
            logger.info("the pool %s can connect again", self._name)
        self.error = None
        return connection

    async def check(self, connection: Connection) -> None:
        """Return when a connection still works. Raises what the driver raises when not."""
        await self._driver.ping(connection)

    def unavailable(self) -> DatabaseUnavailable:
        """The error for those who would have to wait for an attempt that is not made before `retry_at`."""
        seconds = max(self.retry_at - monotonic(), 0.0)
        code = self.error.code if isinstance(self.error, DatabaseUnavailable) else ""
        error = DatabaseUnavailable(
            f"the pool {self._name!r} could not connect several times, and tries again in {seconds:.1f} seconds"
            + (f"; the last time: {self.error}" if self.error is not None else ""),
            code=code,
        )
        error.__cause__ = self.error
        return error
