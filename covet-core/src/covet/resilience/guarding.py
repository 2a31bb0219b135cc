"""What circuit breakers, time limits and bulkheads have in common, and their errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast

from covet.exceptions import ConfigurationError, CovetError

__all__ = [
    "BulkheadFull",
    "CircuitOpen",
    "Guard",
    "Kinds",
    "ResilienceError",
    "TimeoutExceeded",
    "errors_in",
    "require_coroutine",
    "require_kinds",
]

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

Kinds = type[Exception] | tuple[type[Exception], ...]
"""One exception class, or several."""


class ResilienceError(CovetError):
    """A call was not made, or was given up, to protect the service or its caller."""


class CircuitOpen(ResilienceError):  # noqa: N818 - as the other errors that say what happened
    """A circuit breaker let the call not through.

    Attributes:
        name: the breaker's.
        retry_after: seconds until it lets calls through again, at the earliest.
    """

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(f"the circuit breaker {name!r} is open; it may let calls through in {retry_after:.1f} seconds")
        self.name = name
        self.retry_after = retry_after


# No TimeoutError: that is an OSError, and would pass for a client that has left.
class TimeoutExceeded(ResilienceError):  # noqa: N818
    """A call took longer than its `timeout`, and was cancelled.

    Attributes:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the call took longer than {seconds:g} seconds, and was cancelled")
        self.seconds = seconds


class BulkheadFull(ResilienceError):  # noqa: N818
    """All places of a bulkhead are taken, and those in its queue, too; or the wait for one was too long."""


class Guard(ABC):
    """What is an asynchronous context manager and a decorator of coroutine functions."""

    @abstractmethod
    async def __aenter__(self) -> Any: ...

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None: ...

    def for_one_call(self) -> Guard:
        """The guard to enter for one call of a decorated function: itself, or a fresh one where it keeps state."""
        return self

    def __call__(self, function: F) -> F:
        """Guard every call of a coroutine function.

        Raises:
            ConfigurationError: it is no coroutine function.
        """
        require_coroutine(function, type(self).__name__.lstrip("_").lower())

        @wraps(function)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            async with self.for_one_call():
                return await function(*args, **kwargs)

        return cast("F", guarded)


def require_coroutine(function: Callable[..., Any], what: str) -> None:
    """Check that `function`, which `what` decorates, is a coroutine function.

    Raises:
        ConfigurationError: it is none.
    """
    from covet.annotations import is_coroutine

    if not is_coroutine(function):
        name = getattr(function, "__qualname__", repr(function))
        raise ConfigurationError(f"{what} guards `async def` functions, and {name} is none")


def require_kinds(kinds: Kinds, what: str) -> None:
    """Check that `kinds` are exceptions that a guard may act on. A cancellation is none.

    Raises:
        TypeError: they are not.
    """
    for kind in kinds if isinstance(kinds, tuple) else (kinds,):
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"{what} takes subclasses of Exception, one or a tuple of them, not {kind!r}")


def errors_in(error: BaseException) -> list[BaseException]:
    """What an error consists of: the errors in a group, as task groups raise them, or the error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [inner for part in error.exceptions for inner in errors_in(part)]
