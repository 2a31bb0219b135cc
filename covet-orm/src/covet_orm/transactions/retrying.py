"""Trying again what failed since others were in the way.

The waits are random parts of a growing time ("full jitter"), so that those who were in each other's way do not meet
again (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Token
from time import monotonic
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from covet_orm.exceptions import (
    CommitUncertain,
    ConnectionLost,
    LockTimeout,
    SerializationFailure,
    TransactionError,
)
from covet_orm.transactions.context import active, attempts
from covet_orm.transactions.objects import as_read
from covet_orm.transactions.telling import tell_retried

__all__ = ["RETRIED", "Attempt", "Backoff", "Retry", "exponential"]

P = ParamSpec("P")
T = TypeVar("T")

RETRIED: tuple[type[Exception], ...] = (SerializationFailure, LockTimeout, ConnectionLost)
"""What is tried again by default; a deadlock is a `SerializationFailure`."""

FIRST, MOST = 0.02, 2.0
"""Seconds: the most that `exponential` waits before the second attempt, and before any."""


class Backoff(Protocol):
    """The most seconds to wait before an attempt."""

    def __call__(self, attempt: int, /) -> float:
        """For an attempt, by its number, from 2 on."""
        ...


def exponential(attempt: int, /) -> float:
    """Twice as long before each attempt: 0.02 seconds before the second, 2 at most."""
    return min(MOST, FIRST * 2.0 ** min(attempt - 2, 60))


class Attempt:
    """One attempt: `async with attempt: ...`.

    Attributes:
        number: from 1 on.
        after: what the attempt before failed with; None for the first.
        last: whether there is none after it.
        error: what it failed with, if it did.
        again: whether another one follows it.
        committed: whether a transaction was committed in it.
        label: what the last transaction in it was called, where somebody is told of that.
    """

    def __init__(self, retry: Retry, number: int, after: Exception | None = None) -> None:
        self.number = number
        self.after = after
        self.last = number >= retry.max_attempts
        self.error: Exception | None = None
        self.again = False
        self.committed = False
        self.label = ""
        self._retry = retry
        self._changed: list[Any] = []
        self._token: Token[Attempt | None] | None = None

    def __repr__(self) -> str:
        return f"<Attempt {self.number} of {self._retry.max_attempts}>"

    def note(self, *, committed: bool, changed: Sequence[Any]) -> None:
        """Note that a transaction ended, and which objects were saved in one that was rolled back."""
        self.committed = self.committed or committed
        self._changed += changed

    async def __aenter__(self) -> Self:
        block = active.get()
        while block is not None and block.ended:
            block = block.outer
        if block is not None:
            raise TransactionError(
                "retry() is inside of a transaction: what is tried again must be all of it. Put retry() around the "
                "outermost block"
            )
        self._token = attempts.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._token is not None
        attempts.reset(self._token)
        if not isinstance(error, Exception):
            return False
        self.error = error
        self.again = self._retry.is_worth(error, self)
        if self.again:
            # The next attempt is to begin with what this one began with.
            for instance in self._changed:
                as_read(instance)
        return self.again


class Retry:
    """Makes attempts: as a decorator of an `async def`, or `async for attempt in ...`. See `transaction_manager.retry`.

    Raises:
        TransactionError: an argument makes no sense.
    """

    def __init__(
        self,
        max_attempts: int,
        backoff: Backoff,
        on: tuple[type[Exception], ...],
        timeout: float | None,
        idempotent: bool,
    ) -> None:
        if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or max_attempts < 1:
            raise TransactionError(f"max_attempts={max_attempts!r}: a whole number, at least 1")
        if not callable(backoff):
            raise TransactionError(f"backoff={backoff!r}: a function, such as `exponential`, that gives seconds")
        self.max_attempts = max_attempts
        self.backoff = backoff
        self.on = tuple(on) if isinstance(on, (tuple, list)) else (on,)
        self.timeout = timeout
        self.idempotent = idempotent

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Try calls of a function again.

        Raises:
            TransactionError: it is no `async def`.
        """
        if not inspect.iscoroutinefunction(function):
            raise TransactionError(
                f"{getattr(function, '__qualname__', function)!r} is no `async def`, and retry() tries calls of one "
                "again"
            )

        @functools.wraps(function)
        async def tried(*args: P.args, **kwargs: P.kwargs) -> T:
            async for attempt in self:
                async with attempt:
                    return await function(*args, **kwargs)
            raise AssertionError("unreachable: the last attempt returns or raises")

        return tried

    def __aiter__(self) -> Attempts:
        """The attempts, until one succeeds."""
        return Attempts(self)

    async def pause(self, attempt: Attempt, began: float) -> None:
        """Wait until the attempt after one that failed may begin; what it failed with where there is no time left."""
        assert attempt.error is not None
        seconds = random.uniform(0, self.backoff(attempt.number + 1))
        if self.timeout is not None and monotonic() + seconds - began > self.timeout:
            attempt.error.add_note(
                f"not tried again: attempt {attempt.number + 1} would have begun after the {self.timeout:g} seconds of "
                "retry(timeout=...)"
            )
            raise attempt.error
        tell_retried(attempt, seconds)
        await asyncio.sleep(seconds)

    def is_worth(self, error: Exception, attempt: Attempt) -> bool:
        """Whether an attempt that failed like this is followed by another one."""
        uncertain = isinstance(error, CommitUncertain)
        if not uncertain and not isinstance(error, self.on):
            return False
        if attempt.last:
            error.add_note(f"not tried again: it was attempt {attempt.number} of {self.max_attempts}")
            return False
        if (uncertain or attempt.committed) and not self.idempotent:
            error.add_note(
                "not tried again: "
                + ("it may have been committed" if uncertain else "a transaction was committed in the attempt before")
                + "; retry(idempotent=True) says that it may happen twice"
            )
            return False
        return True


class Attempts:
    """The attempts of one call, one after the other: each begins when the one before has failed, and was waited for."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._began = monotonic()
        self._last: Attempt | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Attempt:
        last = self._last
        if last is None:
            self._last = Attempt(self._retry, 1)
            return self._last
        if not last.again or last.error is None:
            raise StopAsyncIteration
        await self._retry.pause(last, self._began)
        # Its frames hold the attempt, which holds it: what is in them would stay until the collector comes.
        last.error.__traceback__ = None
        self._last = Attempt(self._retry, last.number + 1, after=last.error)
        return self._last
