"""Trying again: retries with exponential backoff and full jitter, on top of tenacity."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import copy
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import anyio
import tenacity

from covet.events import RetryScheduled, listener
from covet.exceptions import CovetError
from covet.resilience.guarding import Kinds, errors_in, require_coroutine, require_kinds

__all__ = ["Attempt", "Wait", "exponential", "retry", "retrying"]

P = ParamSpec("P")
R = TypeVar("R")

Wait = Callable[[tenacity.RetryCallState], float]
"""A wait strategy of tenacity: from what has been tried to the seconds until the next attempt."""

logger = logging.getLogger("covet.resilience")


def exponential(initial: float = 0.1, maximum: float = 10.0) -> Wait:
    """Waits that double from `initial` to at most `maximum` seconds, with full jitter.

    Each wait is drawn evenly from zero to that bound, so that callers which failed together do not come back together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Raises:
        ValueError: they are not above 0, or `maximum` is below `initial`.
    """
    if not 0 < initial <= maximum:
        raise ValueError(f"initial and maximum are seconds above 0, in this order, not {initial} and {maximum}")
    return tenacity.wait_random_exponential(multiplier=initial, max=maximum)


class Attempt:
    """One attempt of `retrying`, used as `with attempt:`; an error that is to be retried ends the block quietly.

    Attributes:
        number: which attempt it is, from 1.
        made: whether its block was entered.
    """

    def __init__(self, state: tenacity.RetryCallState, on: Kinds) -> None:
        self.number: int = state.attempt_number
        self.made = False
        self._state = state
        self._on = on

    def __enter__(self) -> Attempt:
        self.made = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            self._state.set_result(None)
            return False
        # tenacity would take any exception, and with it a cancellation.
        if kind is None or not all(isinstance(inner, self._on) for inner in errors_in(error)):
            return False
        self._state.set_exception((kind, error, traceback))
        return True


class retrying:  # noqa: N801 - it is called like a function, in a loop
    """Attempts at a block of code, until one succeeds:

        async for attempt in retrying(on=ConnectionError):
            with attempt:
                await connect()

    Args:
        on: the exceptions after which another attempt is made. Any other ends the loop; of a group that a task group
            raised, all have to be such.
        max_attempts: how many attempts are made at most.
        wait: the seconds between them: `exponential()` by default, or another wait strategy of tenacity.
        budget: seconds after which no further attempt begins; one that would only begin later is not waited for. It
            does not end an attempt that is under way: that is for `timeout`.
        name: for the log and events.

    Iterating raises the last attempt's error when there is no further attempt, with a note of how many were made.
    Cancellation ends the loop, also while it waits.

    Raises:
        ValueError: an argument makes no sense.
        TypeError: `on` holds what is no subclass of Exception.
    """

    def __init__(
        self,
        *,
        on: Kinds,
        max_attempts: int = 3,
        wait: Wait | None = None,
        budget: float | None = None,
        name: str = "a block of code",
    ) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts is at least 1, not {max_attempts}")
        if budget is not None and not budget > 0:
            raise ValueError(f"budget is in seconds, above 0, not {budget}")
        require_kinds(on, "on")
        self._on = on
        self._name = name
        self._options: dict[str, Any] = {
            "wait": wait or exponential(),
            "stop": tenacity.stop_after_attempt(max_attempts),
        }
        if budget is not None:
            self._options["stop"] |= tenacity.stop_before_delay(budget)

    def __aiter__(self) -> AsyncIterator[Attempt]:
        attempts = tenacity.AsyncRetrying(
            sleep=anyio.sleep,
            # `Attempt` has decided already.
            retry=tenacity.retry_if_exception_type(Exception),
            before_sleep=self._scheduled,
            retry_error_callback=_give_up,
            **self._options,
        )
        return _Attempts(aiter(attempts), self._on)

    def _scheduled(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        error, delay = state.outcome.exception(), state.upcoming_sleep
        logger.info(
            "attempt %d of %s failed (%r); the next is in %.2f seconds", state.attempt_number, self._name, error, delay
        )
        app = listener()
        if app is not None:
            app.emit(RetryScheduled(self._name, state.attempt_number, delay, type(error).__name__))


class _Attempts:
    def __init__(self, attempts: AsyncIterator[tenacity.AttemptManager], on: Kinds) -> None:
        self._attempts = attempts
        self._on = on
        self._last: Attempt | None = None

    def __aiter__(self) -> _Attempts:
        return self

    async def __anext__(self) -> Attempt:
        if self._last is not None and not self._last.made:
            # It would go on for ever.
            raise CovetError("an attempt was not made: write `with attempt:` around what is to be tried")
        self._last = Attempt((await anext(self._attempts)).retry_state, self._on)
        return self._last


def _give_up(state: tenacity.RetryCallState) -> None:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    error.add_note(f"given up after {state.attempt_number} attempts in {state.seconds_since_start or 0:.2f} seconds")
    raise error


def retry(
    *, on: Kinds, max_attempts: int = 3, wait: Wait | None = None, budget: float | None = None
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Call a coroutine function again when it raises; the arguments are those of `retrying`.

    Only what may be done twice should be: a call that fails may have had its effect all the same.

    Raises:
        ConfigurationError: what it decorates is no coroutine function.
        ValueError: an argument makes no sense.
        TypeError: `on` holds what is no subclass of Exception.
    """

    unnamed = retrying(on=on, max_attempts=max_attempts, wait=wait, budget=budget)

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        require_coroutine(function, "retry")
        attempts = copy(unnamed)
        attempts._name = getattr(function, "__qualname__", repr(function))

        @wraps(function)
        async def retried(*args: P.args, **kwargs: P.kwargs) -> R:
            async for attempt in attempts:
                with attempt:
                    return await function(*args, **kwargs)
            raise AssertionError("unreachable: the last attempt returns or raises")

        return retried

    return decorate
