"""Resilience: circuit breakers, retries, time limits and bulkheads, alone and one inside the other."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import copy_context
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import tenacity
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from covet import ConfigurationError, CovetError, hookimpl
from covet.events import CircuitChanged, RetryScheduled
from covet.resilience import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    ResilienceError,
    TimeoutExceeded,
    bulkhead,
    exponential,
    retry,
    retrying,
    timeout,
)
from covet.testing import plugin_sandbox

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def at_once(state: tenacity.RetryCallState) -> float:
    """A wait strategy without waiting."""
    return 0


async def call(breaker: CircuitBreaker, error: BaseException | None = None) -> None:
    """A call that fails with `error`, or succeeds."""
    async with breaker:
        if error is not None:
            raise error


async def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(OSError, match="down"):
            await call(breaker, OSError("down"))


# Circuit breakers


async def test_it_opens_at_the_failure_rate_once_there_are_enough_calls(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_rate=0.5, minimum_calls=4, clock=clock)
    await fail(breaker, 3)
    assert (breaker.state, breaker.counts()) == ("closed", (3, 3)), "three calls are too few to tell"
    await fail(breaker)
    assert breaker.state == "open"
    with pytest.raises(CircuitOpen, match=r"the circuit breaker 'db' is open; .* in 30\.0 seconds") as refused:
        await call(breaker)
    assert (refused.value.name, refused.value.retry_after) == ("db", 30.0)
    assert isinstance(refused.value, ResilienceError)


async def test_it_stays_closed_below_the_failure_rate(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_rate=0.5, minimum_calls=2, clock=clock)
    for _ in range(20):
        await call(breaker)
        await call(breaker)
        await fail(breaker)
    assert breaker.counts() == (60, 20)
    assert breaker.state == "closed"


@pytest.mark.parametrize(("rate", "of"), [(0.7, 10), (0.07, 100), (0.29, 100), (0.1, 10), (1.0, 7)])
async def test_a_rate_is_reached_exactly(rate: float, of: int, clock: Clock) -> None:
    """As floating-point numbers 0.7 * 10 is more than 7."""
    breaker = CircuitBreaker("db", failure_rate=rate, minimum_calls=of, clock=clock)
    failures = round(rate * of)
    for _ in range(of - failures):
        await call(breaker)
    await fail(breaker, failures - 1)
    assert breaker.state == "closed"
    await fail(breaker)
    assert breaker.state == "open"


async def test_a_success_that_completes_the_minimum_may_open_it(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_rate=0.5, minimum_calls=4, clock=clock)
    await fail(breaker, 3)
    await call(breaker)
    assert breaker.state == "open", "three of four have failed"


async def test_it_opens_at_the_failure_count_whatever_the_rate(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_rate=1.0, failure_count=3, minimum_calls=1000, clock=clock)
    for _ in range(50):
        await call(breaker)
    await fail(breaker, 2)
    assert breaker.state == "closed"
    await fail(breaker)
    assert breaker.state == "open"


async def test_what_is_older_than_the_window_is_forgotten(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=3, minimum_calls=1000, window=10.0, clock=clock)
    await fail(breaker, 2)
    clock.now += 9
    assert breaker.counts() == (2, 2)
    clock.now += 1
    assert breaker.counts() == (0, 0)
    await fail(breaker, 2)
    assert breaker.state == "closed"


async def test_after_the_cooldown_a_probe_decides(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=1, cooldown=30.0, clock=clock)
    await fail(breaker)
    clock.now += 29.5
    with pytest.raises(CircuitOpen) as refused:
        await call(breaker)
    assert refused.value.retry_after == 0.5

    clock.now += 0.5
    await fail(breaker)
    assert breaker.state == "open", "the probe has failed, and the cooldown begins anew"
    with pytest.raises(CircuitOpen) as refused:
        await call(breaker)
    assert refused.value.retry_after == 30

    clock.now += 30
    await call(breaker)
    assert (breaker.state, breaker.counts()) == ("closed", (0, 0))


async def test_half_open_lets_only_the_probes_through_when_many_call_at_once(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=1, probes=3, clock=clock)
    await fail(breaker)
    clock.now += 30
    release = anyio.Event()
    told: list[str] = []

    @breaker
    async def probe() -> None:
        told.append("running")
        await release.wait()

    async def attempt() -> None:
        try:
            await probe()
        except CircuitOpen:
            told.append("refused")

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(attempt)
        await anyio.wait_all_tasks_blocked()
        assert breaker.state == "half-open"
        assert (told.count("running"), told.count("refused")) == (3, 17)
        release.set()
    assert breaker.state == "closed"


async def test_one_failing_probe_of_several_opens_it_again(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=1, probes=2, clock=clock)
    await fail(breaker)
    clock.now += 30
    await call(breaker)
    assert breaker.state == "half-open"
    await fail(breaker)
    assert breaker.state == "open"


async def test_cancellation_counts_as_nothing(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=1, clock=clock)
    with anyio.move_on_after(0) as scope:
        async with breaker:
            await anyio.sleep(60)
    assert scope.cancelled_caught
    assert (breaker.state, breaker.counts()) == ("closed", (0, 0))


async def test_a_cancelled_probe_gives_its_place_to_the_next(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=1, probes=1, clock=clock)
    await fail(breaker)
    clock.now += 30
    with anyio.CancelScope() as scope:
        async with breaker:
            with pytest.raises(CircuitOpen):
                await call(breaker)
            scope.cancel()
            await anyio.sleep(60)
    assert breaker.state == "half-open"
    await call(breaker)
    assert breaker.state == "closed"


async def test_probes_that_hang_are_replaced_after_a_cooldown_and_then_tell_nothing(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=1, probes=1, cooldown=30.0, clock=clock)
    await fail(breaker)
    clock.now += 30
    hanging = breaker.for_one_call()
    await hanging.__aenter__()
    clock.now += 29
    with pytest.raises(CircuitOpen) as refused:
        await call(breaker)
    assert refused.value.retry_after == 1
    clock.now += 1
    await call(breaker)
    assert breaker.state == "closed"
    await hanging.__aexit__(OSError, OSError("at last"), None)
    assert (breaker.state, breaker.counts()) == ("closed", (0, 0))


async def test_a_call_counts_for_the_period_in_which_it_began(clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=1, clock=clock)
    slow = breaker.for_one_call()
    await slow.__aenter__()
    await fail(breaker)
    clock.now += 30
    await call(breaker)
    await slow.__aexit__(OSError, OSError("old news"), None)
    assert breaker.state == "closed"


async def test_only_the_failures_that_it_is_told_of_count(clock: Clock) -> None:
    breaker = CircuitBreaker("api", failure_count=1, on=(OSError, ValueError), ignore=FileNotFoundError, clock=clock)
    for error in (KeyError("no outage"), FileNotFoundError("ignored")):
        with pytest.raises(type(error)):
            await call(breaker, error)
    assert (breaker.state, breaker.counts()) == ("closed", (2, 0))
    with pytest.raises(ValueError, match="outage"):
        await call(breaker, ValueError("outage"))
    assert breaker.state == "open"


@pytest.mark.parametrize(
    ("errors", "counts"),
    [
        ([KeyError("other"), ConnectionError("down")], (1, 1)),
        ([KeyError("other")], (1, 0)),
        ([ExceptionGroup("inner", [ConnectionError("down")])], (1, 1)),
    ],
)
async def test_a_group_is_a_failure_if_anything_in_it_is(
    errors: list[Exception], counts: tuple[int, int], clock: Clock
) -> None:
    """What `async with create_task_group()` inside of the block raises is a group."""
    breaker = CircuitBreaker("api", on=ConnectionError, clock=clock)
    with pytest.raises(ExceptionGroup):
        await call(breaker, ExceptionGroup("of tasks", errors))
    assert breaker.counts() == counts


async def test_blocks_nest_and_do_not_mix_between_tasks(clock: Clock) -> None:
    one = CircuitBreaker("one", failure_count=1, clock=clock)
    two = CircuitBreaker("two", failure_count=1, clock=clock)
    both = anyio.Event()

    async def succeeds() -> None:
        async with one, two, one:
            await both.wait()

    async def fails() -> None:
        with pytest.raises(OSError, match="down"):  # noqa: PT012
            async with one:
                both.set()
                raise OSError("down")

    async with anyio.create_task_group() as group:
        group.start_soon(succeeds)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(fails)
        with pytest.raises(CovetError, match="left where it was not entered"):
            await one.__aexit__(None, None, None)
    assert (one.state, two.state) == ("open", "closed")


async def test_a_block_that_ends_in_another_context_is_an_error_that_says_so(clock: Clock) -> None:
    breaker = CircuitBreaker("db", clock=clock)

    def step(coroutine: Coroutine[Any, Any, Any]) -> None:
        with pytest.raises(StopIteration):
            coroutine.send(None)

    copy_context().run(step, breaker.__aenter__())
    with pytest.raises(CovetError, match="begins and ends in one task"):
        await breaker.__aexit__(None, None, None)


async def test_every_change_is_an_event_for_plugins_and_for_the_listener(clock: Clock) -> None:
    heard: list[Any] = []
    told: list[CircuitChanged] = []

    class Watcher:
        @hookimpl
        def covet_event(self, event: Any) -> None:
            heard.append(event)

    breaker = CircuitBreaker("db", failure_count=2, clock=clock, listener=told.append)
    async with plugin_sandbox(watcher=Watcher()).running():
        await call(breaker)
        await fail(breaker, 2)
        clock.now += 30
        await call(breaker)
    assert told == [event for event in heard if isinstance(event, CircuitChanged)]
    assert told == [
        CircuitChanged("db", "closed", "open", 3, 2),
        CircuitChanged("db", "open", "half-open", 3, 2),
        CircuitChanged("db", "half-open", "closed", 3, 2),
    ]


async def test_a_listener_that_fails_is_logged_and_breaks_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: CircuitChanged) -> None:
        raise RuntimeError("deaf")

    breaker = CircuitBreaker("db", failure_count=1, clock=clock, listener=broken)
    with caplog.at_level(logging.INFO, "covet.resilience"):
        await fail(breaker)
    assert breaker.state == "open"
    assert "the circuit breaker db is open after 1 failures of 1 calls" in caplog.text
    assert "deaf" in caplog.text


@pytest.mark.parametrize("state", ["closed", "open", "half-open"])
async def test_reset_closes_it_and_forgets_what_is_under_way(state: str, clock: Clock) -> None:
    breaker = CircuitBreaker("db", failure_count=2, clock=clock)
    await fail(breaker)
    running = breaker.for_one_call()
    await running.__aenter__()
    if state != "closed":
        await fail(breaker)
    if state == "half-open":
        clock.now += 30
        await breaker.for_one_call().__aenter__()
    assert breaker.state == state
    assert repr(breaker) == f"<CircuitBreaker db {state}>"
    breaker.reset()
    assert (breaker.state, breaker.counts()) == ("closed", (0, 0))
    await running.__aexit__(OSError, OSError("before"), None)
    assert breaker.counts() == (0, 0)
    await call(breaker)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"failure_rate": 0}, "failure_rate is a share above 0"),
        ({"failure_rate": 1.1}, "failure_rate is a share above 0"),
        ({"failure_rate": float("nan")}, "failure_rate is a share above 0"),
        ({"failure_count": 0}, "failure_count is at least 1, not 0"),
        ({"minimum_calls": 0}, "minimum_calls is at least 1"),
        ({"probes": 0}, "probes is at least 1"),
        ({"window": 0}, "window and cooldown are seconds above 0"),
        ({"window": float("nan")}, "window and cooldown are seconds above 0"),
        ({"cooldown": -1}, "window and cooldown are seconds above 0"),
        ({"on": BaseException}, "on takes subclasses of Exception"),
        ({"ignore": "OSError"}, "ignore takes subclasses of Exception"),
    ],
)
def test_a_breaker_that_makes_no_sense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        CircuitBreaker("x", **options)


def now(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


OUTCOMES: dict[str, BaseException | None] = {
    "success": None,
    "failure": OSError("down"),
    "answer": KeyError("no outage"),
    "cancelled": KeyboardInterrupt("stands for a cancellation: no Exception"),
}


class BreakerMachine(RuleBasedStateMachine):
    """A breaker against a model that keeps every call in a list."""

    @initialize(
        rate=st.sampled_from([0.1, 0.5, 0.7, 1.0]),
        count=st.none() | st.integers(1, 4),
        minimum=st.integers(1, 6),
        probes=st.integers(1, 3),
        cooldown=st.sampled_from([1.0, 5.0, 30.0]),
    )
    def make(self, rate: float, count: int | None, minimum: int, probes: int, cooldown: float) -> None:
        self.clock = Clock()
        self.rate, self.count, self.minimum, self.probes, self.cooldown = rate, count, minimum, probes, cooldown
        self.events: list[CircuitChanged] = []
        self.breaker = CircuitBreaker(
            "x", failure_rate=rate, failure_count=count, minimum_calls=minimum, window=10.0, cooldown=cooldown,
            probes=probes, on=OSError, listener=self.events.append, clock=self.clock,
        )  # fmt: skip
        # The model. Ten slices of a window of ten seconds are whole seconds.
        self.state = "closed"
        self.since = self.clock.now
        self.counted: list[tuple[int, bool]] = []
        self.probing: list[Any] = []
        self.passed = 0
        # The calls under way, and those of them whose outcome still counts.
        self.under_way: list[Any] = []
        self.current: list[Any] = []

    def become(self, state: str) -> None:
        self.state, self.since = state, self.clock.now
        self.probing, self.passed, self.current = [], 0, []
        if state == "closed":
            self.counted = []

    @rule()
    def begin(self) -> None:
        waited = self.clock.now - self.since >= self.cooldown
        if (self.state == "open" and waited) or (
            self.state == "half-open" and waited and len(self.probing) + self.passed >= self.probes
        ):
            self.become("half-open")
        full = self.state == "half-open" and len(self.probing) + self.passed >= self.probes
        guard = self.breaker.for_one_call()
        if self.state == "open" or full:
            with pytest.raises(CircuitOpen) as refused:
                now(guard.__aenter__())
            assert refused.value.retry_after == pytest.approx(self.since + self.cooldown - self.clock.now)
            return
        now(guard.__aenter__())
        self.under_way.append(guard)
        self.current.append(guard)
        if self.state == "half-open":
            self.probing.append(guard)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(sorted(OUTCOMES)))
    def end(self, data: st.DataObject, outcome: str) -> None:
        guard = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        error = OUTCOMES[outcome]
        now(guard.__aexit__(type(error) if error else None, error, None))
        if guard not in self.current:
            return
        self.current.remove(guard)
        if self.state == "half-open":
            self.probing.remove(guard)
            if outcome == "failure":
                self.become("open")
            elif outcome != "cancelled":
                self.passed += 1
                if self.passed == self.probes:
                    self.become("closed")
        elif outcome != "cancelled":
            self.counted.append((int(self.clock.now), outcome == "failure"))
            calls, failures = self.model_counts()
            often = self.count is not None and failures >= self.count
            if often or (calls >= self.minimum and failures / calls >= self.rate):
                self.become("open")

    def model_counts(self) -> tuple[int, int]:
        recent = [failed for second, failed in self.counted if second > int(self.clock.now) - 10]
        return len(recent), sum(recent)

    @rule(seconds=st.sampled_from([0.25, 1.0, 4.0, 5.0, 11.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.become("closed")

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state == self.state
        assert self.breaker.counts() == self.model_counts()

    @invariant()
    def events_follow_each_other(self) -> None:
        states = ["closed", *(event.after for event in self.events)]
        assert [event.before for event in self.events] == states[:-1]
        assert states[-1] == self.breaker.state


BreakerMachine.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=40)
TestBreakerAgainstModel = BreakerMachine.TestCase


# Retries


async def test_it_tries_again_until_it_succeeds() -> None:
    tried: list[int] = []

    @retry(on=ConnectionError, max_attempts=5, wait=at_once)
    async def flaky(value: int, *, more: int) -> int:
        """What it says."""
        tried.append(value)
        if len(tried) < 3:
            raise ConnectionResetError("down")
        return value + more

    assert await flaky(1, more=2) == 3
    assert tried == [1, 1, 1]
    assert flaky.__doc__ == "What it says."


async def test_it_gives_up_with_the_last_error_and_a_note() -> None:
    errors = [ConnectionError(str(number)) for number in range(3)]
    left = iter(errors)

    @retry(on=ConnectionError, max_attempts=3, wait=at_once)
    async def down() -> None:
        raise next(left)

    with pytest.raises(ConnectionError) as raised:
        await down()
    assert raised.value is errors[2]
    assert raised.value.__notes__[0].startswith("given up after 3 attempts in ")


async def test_other_errors_are_not_retried() -> None:
    tried: list[None] = []

    @retry(on=(ConnectionError, TimeoutError), wait=at_once)
    async def wrong() -> None:
        tried.append(None)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as raised:
        await wrong()
    assert len(tried) == 1
    assert not hasattr(raised.value, "__notes__")


@pytest.mark.parametrize("all_of_them", [True, False])
async def test_a_group_is_retried_if_everything_in_it_is(all_of_them: bool) -> None:
    tried: list[None] = []
    errors = [ConnectionError("one"), ConnectionError("two") if all_of_them else ValueError("two")]

    @retry(on=ConnectionError, max_attempts=2, wait=at_once)
    async def many() -> None:
        tried.append(None)
        raise ExceptionGroup("of tasks", errors)

    with pytest.raises(ExceptionGroup):
        await many()
    assert len(tried) == (2 if all_of_them else 1)


async def test_cancellation_is_never_retried() -> None:
    tried: list[str] = []

    @retry(on=Exception, max_attempts=5, wait=at_once)
    async def slow() -> None:
        tried.append("tried")
        await anyio.sleep(60)

    with anyio.move_on_after(0.01) as scope:
        await slow()
    assert scope.cancelled_caught
    assert tried == ["tried"]
    for kinds in (BaseException, KeyboardInterrupt, (OSError, anyio.get_cancelled_exc_class())):
        with pytest.raises(TypeError, match="on takes subclasses of Exception"):
            retry(on=kinds)  # type: ignore[arg-type]


async def test_cancellation_ends_the_wait_for_the_next_attempt() -> None:
    tried: list[str] = []
    with anyio.move_on_after(0.01) as scope:
        async for attempt in retrying(on=OSError, wait=lambda state: 3600):
            with attempt:
                tried.append("tried")
                raise OSError("down")
    assert scope.cancelled_caught
    assert tried == ["tried"]


async def test_no_attempt_begins_beyond_the_budget_and_none_is_waited_for() -> None:
    tried: list[int] = []
    with pytest.raises(OSError, match="down") as raised:  # noqa: PT012
        async for attempt in retrying(on=OSError, max_attempts=10, wait=lambda state: 3600, budget=60):
            with attempt:
                tried.append(attempt.number)
                raise OSError("down")
    assert tried == [1]
    assert "given up after 1 attempts" in raised.value.__notes__[0]


async def test_a_loop_ends_with_its_success_and_counts_its_attempts() -> None:
    numbers: list[int] = []
    async for attempt in retrying(on=OSError, max_attempts=4, wait=at_once):
        with attempt:
            numbers.append(attempt.number)
            if attempt.number < 3:
                raise OSError("down")
    assert numbers == [1, 2, 3]


async def test_a_loop_without_its_with_does_not_go_on_for_ever() -> None:
    with pytest.raises(CovetError, match="write `with attempt:`"):
        async for _ in retrying(on=OSError):
            pass


async def test_calls_of_one_function_count_their_attempts_apart() -> None:
    tried: dict[str, int] = {"a": 0, "b": 0}

    @retry(on=OSError, max_attempts=3, wait=at_once)
    async def down(name: str) -> None:
        tried[name] += 1
        await anyio.lowlevel.checkpoint()
        raise OSError(name)

    async def attempt(name: str) -> None:
        with pytest.raises(OSError, match=name):
            await down(name)

    async with anyio.create_task_group() as group:
        group.start_soon(attempt, "a")
        group.start_soon(attempt, "b")
    assert tried == {"a": 3, "b": 3}


async def test_every_further_attempt_is_an_event_and_a_log_record(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    class Watcher:
        @hookimpl
        def covet_event(self, event: Any) -> None:
            heard.append(event)

    with caplog.at_level(logging.INFO, "covet.resilience"):
        async with plugin_sandbox(watcher=Watcher()).running():
            with pytest.raises(ConnectionResetError):  # noqa: PT012
                async for attempt in retrying(on=OSError, max_attempts=3, wait=at_once, name="the mail server"):
                    with attempt:
                        raise ConnectionResetError("down")
    assert [event for event in heard if isinstance(event, RetryScheduled)] == [
        RetryScheduled("the mail server", 1, 0, "ConnectionResetError"),
        RetryScheduled("the mail server", 2, 0, "ConnectionResetError"),
    ]
    assert "attempt 2 of the mail server failed (ConnectionResetError('down'))" in caplog.text


@given(
    attempt=st.integers(1, 5000),
    bounds=st.tuples(st.floats(0.001, 100), st.floats(0.001, 100)).map(sorted),
    seed=st.integers(0, 2**32),
)
def test_waits_double_up_to_a_maximum_with_full_jitter(attempt: int, bounds: list[float], seed: int) -> None:
    initial, maximum = bounds
    wait = exponential(initial, maximum)
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    highest = min(maximum, initial * 2.0 ** min(attempt - 1, 100))
    random.seed(seed)
    drawn = [wait(state) for _ in range(50)]
    assert all(0 <= seconds <= highest for seconds in drawn)
    # Evenly from zero: 50 of them all in one half is a chance of 2 in 2**50.
    assert min(drawn) < highest / 2 < max(drawn)


@pytest.mark.parametrize(
    "make",
    [
        lambda: retry(on=OSError, max_attempts=0),
        lambda: retrying(on=OSError, budget=0),
        lambda: retrying(on=OSError, budget=float("nan")),
        lambda: exponential(0),
        lambda: exponential(2, 1),
        lambda: timeout(0),
        lambda: timeout(float("nan")),
        lambda: bulkhead(0),
        lambda: bulkhead(1, queue=-1),
        lambda: bulkhead(1, wait=0),
        lambda: bulkhead(1, wait=float("nan")),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"not (0|nan|-1|2|1)"):
        make()


@pytest.mark.parametrize("guard", [retry(on=OSError), CircuitBreaker("x"), timeout(1), bulkhead(1)])
def test_only_coroutine_functions_are_guarded(guard: Any) -> None:
    def plain() -> None: ...

    async def generator() -> AsyncIterator[int]:
        yield 1

    for function in (plain, generator):
        with pytest.raises(ConfigurationError, match=f"guards `async def` functions.*{function.__name__} is none"):
            guard(function)


# Time limits


async def test_a_call_that_takes_too_long_is_ended() -> None:
    ended: list[str] = []
    with pytest.raises(TimeoutExceeded, match=r"longer than 0\.01 seconds") as raised:  # noqa: PT012
        async with timeout(0.01):
            try:
                await anyio.sleep(60)
            finally:
                ended.append("cleaned up")
    assert ended == ["cleaned up"]
    assert raised.value.seconds == 0.01
    assert not isinstance(raised.value, OSError), "it would pass for a client that has left"


async def test_a_call_that_is_in_time_is_left_alone() -> None:
    @timeout(60)
    async def quick(value: str) -> str:
        await anyio.lowlevel.checkpoint()
        return value

    assert await quick("x") == "x"


async def test_a_timeout_error_of_the_block_and_cancellation_from_outside_pass() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        async with timeout(60):
            raise TimeoutError("its own")
    with anyio.move_on_after(0.01) as scope:
        async with timeout(60):
            await anyio.sleep(60)
    assert scope.cancelled_caught


async def test_of_nested_limits_the_one_that_is_over_is_told() -> None:
    with pytest.raises(TimeoutExceeded, match=r"0\.01"):
        async with timeout(60), timeout(0.01):
            await anyio.sleep(60)
    with pytest.raises(TimeoutExceeded, match=r"0\.01"):
        async with timeout(0.01), timeout(60):
            await anyio.sleep(60)


async def test_calls_of_one_function_overlap_but_a_block_needs_a_limit_of_its_own() -> None:
    @timeout(60)
    async def call() -> None:
        await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call)
    limit = timeout(60)
    async with limit:
        with pytest.raises(CovetError, match="running already"):
            await limit.__aenter__()
    async with limit:
        pass


# Bulkheads


async def test_only_so_many_run_and_wait_and_the_rest_is_refused() -> None:
    places = Bulkhead(2, queue=3)
    release = anyio.Event()
    told: list[str] = []

    async def work() -> None:
        try:
            async with places:
                told.append("ran")
                await release.wait()
        except BulkheadFull as full:
            told.append(str(full))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        assert (places.running, places.waiting) == (2, 3)
        assert told.count("ran") == 2
        assert told.count("2 calls are running and 3 waiting, and no more may") == 3
        release.set()
    assert told.count("ran") == 5
    assert (places.running, places.waiting) == (0, 0)


async def test_who_waits_longest_comes_first_and_nobody_jumps_the_queue() -> None:
    places = Bulkhead(1, queue=10)
    order: list[int] = []

    async def work(number: int) -> None:
        async with places:
            order.append(number)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        async with places:
            for number in range(5):
                group.start_soon(work, number)
                await anyio.wait_all_tasks_blocked()
        # The place was passed on already, so this one is the last.
        await work(5)
    assert order == [0, 1, 2, 3, 4, 5]


async def test_a_wait_that_is_too_long_or_cancelled_leaves_the_queue() -> None:
    places = Bulkhead(1, queue=1, wait=0.01)
    async with places:
        with pytest.raises(BulkheadFull, match=r"none has ended within 0\.01 seconds"):
            async with places:
                raise AssertionError("there is no place")
        assert places.waiting == 0
    patient = Bulkhead(1, queue=1)
    async with patient:
        with anyio.move_on_after(0.01) as scope:
            async with patient:
                raise AssertionError("there is no place")
        assert scope.cancelled_caught
        assert (patient.running, patient.waiting) == (1, 0)
    assert patient.running == 0


async def test_a_place_given_to_who_is_being_cancelled_goes_on_to_the_next() -> None:
    places = Bulkhead(1, queue=2)
    ran: list[str] = []

    async def work(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            async with places:
                ran.append(name)

    first, second = anyio.CancelScope(), anyio.CancelScope()
    async with anyio.create_task_group() as group:
        await places.__aenter__()
        group.start_soon(work, "first", first)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(work, "second", second)
        await anyio.wait_all_tasks_blocked()
        await places.__aexit__(None, None, None)
        first.cancel()
    assert ran in (["second"], ["first", "second"])
    assert (places.running, places.waiting) == (0, 0)


async def test_errors_and_cancellation_give_the_place_back() -> None:
    places = Bulkhead(1)
    with pytest.raises(OSError, match="down"):
        async with places:
            raise OSError("down")
    with anyio.move_on_after(0.01):
        async with places:
            await anyio.sleep(60)
    async with places:
        assert places.running == 1


async def test_no_place_is_lost_when_calls_are_cancelled_at_any_time() -> None:
    places = Bulkhead(3, queue=20)
    chance = random.Random(7)
    most = 0

    async def work(delay: int, patience: int) -> None:
        nonlocal most
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    for _ in range(patience):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

                group.start_soon(cancel)
                for _ in range(delay):
                    await anyio.lowlevel.checkpoint()
                try:
                    async with places:
                        most = max(most, places.running)
                        await anyio.lowlevel.checkpoint()
                        await anyio.lowlevel.checkpoint()
                except BulkheadFull:
                    return

    async with anyio.create_task_group() as group:
        for _ in range(300):
            group.start_soon(work, chance.randrange(20), chance.randrange(30))
    assert most == 3
    assert (places.running, places.waiting) == (0, 0)


# One inside the other


async def test_they_compose_and_what_refused_can_be_told_from_what_failed(clock: Clock) -> None:
    breaker = CircuitBreaker("payments", failure_count=2, clock=clock)
    tried: list[str] = []

    @retry(on=(ConnectionError, TimeoutExceeded), max_attempts=5, wait=at_once)
    @bulkhead(4, queue=4)
    @breaker
    @timeout(0.01)
    async def charge(card: str) -> None:
        tried.append(card)
        await anyio.sleep(60)

    with pytest.raises(CircuitOpen):
        await charge("card")
    assert tried == ["card", "card"], "the second failure opened the circuit, and that is not retried"
