"""Calling what may fail: circuit breakers, retries, time limits and bulkheads.

Each is an asynchronous context manager and a decorator of `async def` functions, works on asyncio and trio, and raises
an error of its own, so that what failed and what refused can be told apart:

    breaker = CircuitBreaker("payments")

    @retry(on=ConnectionError, max_attempts=4, budget=10.0)
    @breaker
    @timeout(2.0)
    async def charge(card: str) -> None: ...

The objects belong to one event loop at a time; they are not safe to be shared by threads. A cancelled call counts
neither as success nor as failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from covet.resilience.circuits import CircuitBreaker
from covet.resilience.guarding import BulkheadFull, CircuitOpen, ResilienceError, TimeoutExceeded
from covet.resilience.limits import Bulkhead, bulkhead, timeout

if TYPE_CHECKING:
    from covet.resilience.attempts import Attempt, exponential, retry, retrying

__all__ = [
    "Attempt",
    "Bulkhead",
    "BulkheadFull",
    "CircuitBreaker",
    "CircuitOpen",
    "ResilienceError",
    "TimeoutExceeded",
    "bulkhead",
    "exponential",
    "retry",
    "retrying",
    "timeout",
]

ATTEMPTS = ("Attempt", "exponential", "retry", "retrying")


def __getattr__(name: str) -> Any:
    """Called by Python for what was not imported yet: attempts, for the library that they need."""
    if name not in ATTEMPTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from covet.resilience import attempts

    value = globals()[name] = getattr(attempts, name)
    return value
