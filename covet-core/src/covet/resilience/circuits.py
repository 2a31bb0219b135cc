"""Circuit breakers: not calling what keeps failing."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType

from covet.events import CircuitChanged, CircuitState, listener
from covet.exceptions import CovetError
from covet.resilience.guarding import CircuitOpen, Guard, Kinds, errors_in, require_kinds

__all__ = ["CircuitBreaker"]

logger = logging.getLogger("covet.resilience")


class CircuitBreaker(Guard):
    """Stops calling what keeps failing, and tries it again after a while.

    Closed, it lets every call through and counts. It opens when enough of the calls within the window have failed, and
    refuses them all with `CircuitOpen` until the cooldown is over. Then it is half-open, and lets a few calls through
    as probes: when all of them succeed it closes, and when one fails it opens again. Probes that have told nothing for
    a whole cooldown, because they hang, are replaced by new ones.

    A call counts for the period in which it began: one that began before the breaker opened and fails after it has
    closed tells nothing about now. Put a `timeout` inside of the breaker: a call that is cancelled from outside counts
    neither as success nor as failure.

    Args:
        name: for messages and events.
        failure_rate: the share of failed calls, above 0 and at most 1, at which it opens.
        failure_count: how many failed calls, at whatever rate, open it; None for any number.
        minimum_calls: how many calls the window must hold before the rate counts.
        window: seconds for which a call counts, to the tenth of it.
        cooldown: seconds for which it stays open.
        probes: how many calls half-open lets through, and how many have to succeed.
        on: the exceptions that are failures. Others are answers like any other: a 404 is no outage. A group that a task
            group raised is a failure if anything in it is.
        ignore: those among them that are none.
        listener: called with each `CircuitChanged`, which also goes to `covet_event`.
        clock: gives the time in seconds.

    Raises:
        ValueError: an argument makes no sense.
        TypeError: `on` or `ignore` holds what is no subclass of Exception.
    """

    SLICES = 10

    def __init__(
        self,
        name: str,
        *,
        failure_rate: float = 0.5,
        failure_count: int | None = None,
        minimum_calls: int = 10,
        window: float = 60.0,
        cooldown: float = 30.0,
        probes: int = 1,
        on: Kinds = Exception,
        ignore: Kinds = (),
        listener: Callable[[CircuitChanged], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < failure_rate <= 1:
            raise ValueError(f"failure_rate is a share above 0 and at most 1, not {failure_rate}")
        for what, least in (("minimum_calls", minimum_calls), ("probes", probes), ("failure_count", failure_count)):
            if least is not None and least < 1:
                raise ValueError(f"{what} is at least 1, not {least}")
        if not (window > 0 and cooldown > 0):
            raise ValueError(f"window and cooldown are seconds above 0, not {window} and {cooldown}")
        require_kinds(on, "on")
        require_kinds(ignore, "ignore")
        self.name = name
        self.failure_rate = failure_rate
        self.failure_count = failure_count
        self.minimum_calls = minimum_calls
        self.window = window
        self.cooldown = cooldown
        self.probes = probes
        self._on = on
        self._ignore = ignore
        self._listener = listener
        self._clock = clock
        self._state: CircuitState = "closed"
        self._period = 0
        # Until when it stays open; half-open: until when it waits for its probes.
        self._until = 0.0
        self._probing = self._passed = 0
        # One for each slice of the window: its number, its calls, its failures.
        self._slices: deque[list[int]] = deque()

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name} {self._state}>"

    @property
    def state(self) -> CircuitState:
        """`closed`, `open` or `half-open`. It becomes half-open with the first call after the cooldown."""
        return self._state

    def counts(self) -> tuple[int, int]:
        """How many calls, and how many of them failed, within the window."""
        oldest = self._slice() - self.SLICES
        while self._slices and self._slices[0][0] <= oldest:
            self._slices.popleft()
        return sum(entry[1] for entry in self._slices), sum(entry[2] for entry in self._slices)

    def reset(self) -> None:
        """Close it and forget what it counted: for tests, and for people who know that the outage is over."""
        self._slices.clear()
        if self._state == "closed":
            self._begin(self._clock())
        else:
            self._change("closed")

    def for_one_call(self) -> Guard:
        """What guards one call of a decorated function."""
        return _GuardedCall(self)

    async def __aenter__(self) -> CircuitBreaker:
        call = _GuardedCall(self)
        await call.__aenter__()
        _entered.set((*_entered.get(), call))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered = _entered.get()
        for index in range(len(entered) - 1, -1, -1):
            if entered[index].breaker is self:
                _entered.set(entered[:index] + entered[index + 1 :])
                await entered[index].__aexit__(kind, error, traceback)
                return
        raise CovetError(
            f"the circuit breaker {self.name!r} is left where it was not entered: a block under it begins and ends in "
            "one task; let it decorate a function instead"
        ) from error

    def _failed(self, error: BaseException | None) -> bool | None:
        """Whether a call has failed; None for one that was cancelled."""
        if error is None:
            return False
        errors = errors_in(error)
        if any(isinstance(inner, self._on) and not isinstance(inner, self._ignore) for inner in errors):
            return True
        return False if all(isinstance(inner, Exception) for inner in errors) else None

    def _admit(self) -> int:
        """Let a call through, and return the period it begins in. Raises CircuitOpen."""
        now = self._clock()
        if self._state == "open":
            if now < self._until:
                raise CircuitOpen(self.name, self._until - now)
            self._change("half-open")
        if self._state == "half-open":
            if self._probing >= self.probes:
                if now < self._until:
                    raise CircuitOpen(self.name, self._until - now)
                self._begin(now)
            self._probing += 1
        return self._period

    def _settle(self, period: int, failed: bool | None) -> None:
        if period != self._period:
            return
        if self._state == "half-open":
            if failed is None:
                self._probing -= 1
            elif failed:
                self._change("open")
            else:
                self._passed += 1
                if self._passed == self.probes:
                    self._change("closed")
        elif failed is not None:
            self._count(failed)

    def _count(self, failed: bool) -> None:
        number = self._slice()
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append([number, 0, 0])
        self._slices[-1][1] += 1
        self._slices[-1][2] += failed
        calls, failures = self.counts()
        # A quotient, as 7 of 10 are less than the product 0.7 * 10.
        rate = calls >= self.minimum_calls and failures / calls >= self.failure_rate
        if rate or (self.failure_count is not None and failures >= self.failure_count):
            self._change("open")

    def _slice(self) -> int:
        return int(self._clock() * self.SLICES / self.window)

    def _begin(self, now: float) -> None:
        self._period += 1
        self._until = now + self.cooldown
        self._probing = self._passed = 0

    def _change(self, state: CircuitState) -> None:
        before, (calls, failures) = self._state, self.counts()
        self._begin(self._clock())
        self._state = state
        if state == "closed":
            self._slices.clear()
        logger.log(
            logging.WARNING if state == "open" else logging.INFO,
            "the circuit breaker %s is %s after %d failures of %d calls", self.name, state, failures, calls,
        )  # fmt: skip
        app = listener()
        if self._listener is None and app is None:
            return
        event = CircuitChanged(self.name, before, state, calls, failures)
        if app is not None:
            app.emit(event)
        if self._listener is not None:
            try:
                self._listener(event)
            except Exception:
                logger.exception("the listener of the circuit breaker %s failed", self.name)


class _GuardedCall(Guard):
    """One call under a breaker, with the period in which it began."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self._period = 0

    async def __aenter__(self) -> None:
        self._period = self.breaker._admit()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.breaker._settle(self._period, self.breaker._failed(error))


# The calls under breakers that this context is inside of, for `async with breaker`: a breaker is shared by tasks, so it
# cannot keep that itself.
_entered: ContextVar[tuple[_GuardedCall, ...]] = ContextVar("covet.resilience.entered", default=())
