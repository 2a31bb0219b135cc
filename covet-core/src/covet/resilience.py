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

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncContextDecorator, asynccontextmanager
from contextvars import ContextVar
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

import anyio
import tenacity

from covet.events import CircuitChanged, CircuitState, RetryScheduled, listener
from covet.exceptions import ConfigurationError, CovetError

__all__ = [
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
