"""Rate limits: rates as text, and both algorithms against models that are too simple to be wrong."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from covet import ConfigurationError
from covet.ratelimit import Decision, Limiter, Rate, SlidingWindowLimiter, TokenBucketLimiter

SECOND = 1_000_000_000
KINDS: list[Any] = [TokenBucketLimiter, SlidingWindowLimiter]

RATES = st.integers(1, 40)
TIMES = st.one_of(st.integers(1, 50), st.sampled_from([0.001, 0.3, 1.5, 60, 86400]))
BURSTS = st.none() | st.integers(1, 60)
# Each a pause in nanoseconds and a cost.
ASKED = st.lists(
    st.tuples(st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 100 * SECOND)), st.integers(0, 45)), max_size=40
)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class Bucket:
    """A token bucket as everybody explains it, in fractions."""

    def __init__(self, rate: int, nanoseconds: int, burst: int) -> None:
        self.speed = Fraction(rate, nanoseconds)
        self.burst = burst
        self.tokens = Fraction(burst)
        self.seen = 0

    def acquire(self, now: int, cost: int) -> bool:
        self.tokens = min(Fraction(self.burst), self.tokens + (now - self.seen) * self.speed)
        self.seen = now
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True


def after(limiter: Limiter[Any], clock: Clock, key: str, cost: int, wait: float) -> tuple[bool, bool]:
    """Whether a cost would be allowed a nanosecond before a wait is over, and when it is. Nothing is counted."""
    nanoseconds = round(wait * SECOND)
    state = limiter._states.find(key)
    before = limiter.decide(state, clock.now + nanoseconds - 1, cost)[0]
    return before.allowed, limiter.decide(state, clock.now + nanoseconds, cost)[0].allowed


@given(RATES, TIMES, BURSTS, ASKED, st.sampled_from([0, 7, 1_790_000_000 * SECOND]))
def test_a_token_bucket_is_one_and_says_exactly_when(
    rate: int, per: float, burst: int | None, asked: list[tuple[int, int]], start: int
) -> None:
    clock = Clock(start)
    limiter = TokenBucketLimiter(rate, per, burst=burst, clock=clock)
    model = Bucket(rate, round(per * SECOND), burst or rate)
    model.seen = start
    for pause, cost in asked:
        clock.now += pause
        decision = limiter.take("key", cost)
        assert decision.allowed is model.acquire(clock.now, cost)
        assert decision.limit == (burst or rate)
        assert decision.remaining == math.floor(model.tokens)
        assert decision.reset_after == pytest.approx(float((model.burst - model.tokens) / model.speed) / SECOND)
        if decision.allowed:
            assert decision.retry_after == 0
        elif cost > decision.limit:
            assert decision.retry_after == math.inf
        else:
            assert after(limiter, clock, "key", cost, decision.retry_after) == (False, True)
        if not decision.remaining and not math.isinf(decision.retry_after):
            soon = limiter.decide(limiter._states.find("key"), clock.now + math.ceil(decision.window * SECOND) + 1, 1)
            assert soon[0].allowed


@given(RATES, TIMES, BURSTS, ASKED)
def test_a_token_bucket_never_allows_more_than_its_bound_in_any_time(
    rate: int, per: float, burst: int | None, asked: list[tuple[int, int]]
) -> None:
    clock = Clock()
    limiter = TokenBucketLimiter(rate, per, burst=burst, clock=clock)
    allowed: list[tuple[int, int]] = []
    for pause, cost in asked:
        clock.now += pause
        if limiter.take("key", cost).allowed:
            allowed.append((clock.now, cost))
    for first, (begin, _) in enumerate(allowed):
        total = 0
        for end, cost in allowed[first:]:
            total += cost
            assert total <= limiter.limit + Fraction(rate * (end - begin), round(per * SECOND))


# Each a pause in slices, one nanosecond more or less perhaps, and a cost.
STEPS = st.lists(st.tuples(st.integers(0, 15), st.integers(-1, 1), st.integers(0, 8)), max_size=40)


@given(st.integers(1, 10), TIMES, st.integers(1, 12), STEPS)
@example(5, 1.0, 4, [(0, 0, 1), (1, 0, 1), (4, 0, 1)])
def test_a_sliding_window_never_allows_more_than_its_rate_in_any_window(
    rate: int, per: float, slices: int, asked: list[tuple[int, int, int]]
) -> None:
    clock = Clock()
    limiter = SlidingWindowLimiter(rate, per, slices=slices, clock=clock)
    window = round(per * SECOND)
    allowed: list[tuple[int, int]] = []
    for steps, more, cost in asked:
        # Around a window is where it matters.
        clock.now += max(0, steps % (slices + 2) * window // slices + more)
        now = clock.now

        def counted(at: int, now: int = now) -> bool:
            return now * slices // window - at * slices // window <= slices

        done = sum(cost for at, cost in allowed if counted(at))
        decision = limiter.take("key", cost)
        assert decision.allowed is (not cost or done + cost <= rate)
        assert decision.remaining == rate - done - cost * decision.allowed
        # The promise itself: within the window before now, and never longer in the way than one slice more.
        assert sum(cost for at, cost in allowed if at > now - window) <= done
        assert done <= sum(cost for at, cost in allowed if (now - at) * slices < window * (slices + 1))
        if decision.allowed:
            allowed.append((now, cost))
            assert decision.retry_after == 0
        elif cost > rate:
            assert decision.retry_after == math.inf
        else:
            assert after(limiter, clock, "key", cost, decision.retry_after) == (False, True)
        state = limiter._states.find("key")
        if state is not None:
            end = now + round(decision.reset_after * SECOND)
            assert limiter.expired(state, end)
            assert end == now or not limiter.expired(state, end - 1)


@given(RATES, TIMES, ASKED, st.sampled_from(KINDS))
def test_a_state_is_the_same_after_a_backend_kept_it(
    rate: int, per: float, asked: list[tuple[int, int]], kind: Any
) -> None:
    limiter = kind(rate, per)
    now, state = 1_790_000_000 * SECOND, None
    for pause, cost in asked:
        now += pause
        state = limiter.decide(state, now, cost)[1] or state
        if state is not None:
            assert limiter.decode(limiter.encode(state)) == state
            assert limiter.lifetime(state, now) >= 0
            later = now + math.ceil(limiter.lifetime(state, now) * SECOND) + 1
            assert limiter.expired(state, later + SECOND)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [b"", b"x", b"1:x", b"3:1 2:1", b"2:0", b"9" * 7000, b"\xff", b"1:1:1"])
def test_what_is_no_state_is_refused(kind: Any, value: bytes) -> None:
    limiter = kind(5, 1.0)
    if kind is SlidingWindowLimiter and not value:
        assert limiter.decode(value) == ()
        return
    with pytest.raises(ValueError, match=r".+"):
        limiter.decode(value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_that_was_put_back_delays_by_no_more_than_a_window(kind: Any) -> None:
    clock = Clock(1_790_000_000 * SECOND)
    limiter = kind(10, 60, clock=clock)
    assert limiter.take("key", 10).allowed
    clock.now -= 3600 * SECOND
    # Not handed out afresh either.
    refused = limiter.take("key")
    assert not refused.allowed
    assert refused.retry_after <= 66
    clock.now += 30 * SECOND
    limiter.take("key", 10)
    clock.now += 37 * SECOND
    assert limiter.take("key", 10 if kind is SlidingWindowLimiter else 9).allowed


@pytest.mark.parametrize("kind", KINDS)
def test_clocks_of_other_processes_that_are_ahead_a_little_hand_out_nothing(kind: Any) -> None:
    limiter = kind(5, 1)
    ahead, now = 1_790_000_000 * SECOND, 1_790_000_000 * SECOND - 3 * SECOND
    state, allowed = None, 0
    for turn in range(40):
        decision, new = limiter.decide(state, now if turn % 2 else ahead, 1)
        state = new or state
        assert limiter.decode(limiter.encode(state)) == state
        allowed += decision.allowed
    assert allowed == 5


def test_remaining_and_times_of_a_token_bucket() -> None:
    clock = Clock()
    limiter = TokenBucketLimiter(rate=100, per=60, clock=clock)
    assert limiter.take("a") == Decision(True, 99, 0.0, 100, 0.6, 59.4)
    assert limiter.take("b", 100) == Decision(True, 0, 0.0, 100, 60.0, 0.6)
    assert limiter.take("b", 50) == Decision(False, 0, 30.0, 100, 60.0, 0.6)
    assert limiter.take("b", 0) == Decision(True, 0, 0.0, 100, 60.0, 0.6)
    assert limiter.take("b", 101).retry_after == math.inf


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/minute", Rate(100, 60)),
        ("5/second;burst=10", Rate(5, 1, 10)),
        (" 20 / 30 s ", Rate(20, 30)),
        ("20/30 seconds", Rate(20, 30)),
        ("1000/7 days; burst = 5", Rate(1000, 604800, 5)),
        ("1/H", Rate(1, 3600)),
        ("3/min", Rate(3, 60)),
    ],
)
def test_rates_as_text(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "text",
    [
        "", "100", "100/", "/minute", "100/fortnight", "100 per minute", "0/minute", "1/0 seconds", "-1/second",
        "1.5/second", "1/second;burst=0", "1/second;burst=", "1/second;rate=3", "1/second;burst=1;burst=2",
        "\u0661/second", "99999999999/second", "2000000000/second", "1/999999 days", "1/second\n2", "1/\x00second",
    ],
)  # fmt: skip
def test_text_that_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)is no rate|a rate limit's"):
        Rate.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_rate_or_a_configuration_error(text: str) -> None:
    try:
        rate = Rate.parse(text)
    except ConfigurationError:
        return
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate": 0}, {"rate": -1}, {"rate": 1.5}, {"rate": True}, {"rate": "5"}, {"rate": 10**10}, {"per": 0},
        {"per": -1}, {"per": math.inf}, {"per": math.nan}, {"per": "60"}, {"per": 1e-9}, {"burst": 0}, {"burst": 1.0},
        {"name": ""}, {"name": 'a"b'}, {"name": "a\nb"}, {"name": "x" * 65}, {"name": "\u00e9"}, {"max_keys": 0},
        {"timeout": 0}, {"timeout": math.nan}, {"on_failure": "ignore"}, {"backend": "default"},
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        TokenBucketLimiter(**{"rate": 5, **arguments})


@pytest.mark.parametrize("slices", [0, -1, 101, 1.5])
def test_slices_that_make_no_sense(slices: Any) -> None:
    with pytest.raises(ConfigurationError, match="slices"):
        SlidingWindowLimiter(5, slices=slices)


@pytest.mark.anyio
async def test_a_cost_below_nothing_and_a_key_that_is_no_text_are_errors() -> None:
    limiter = TokenBucketLimiter(5)
    with pytest.raises(ValueError, match="a cost is 0 or more"):
        await limiter.acquire("key", -1)
    for key in (None, 7, b"key"):
        with pytest.raises(TypeError, match="is text"):
            await limiter.acquire(key)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_reset_forgets_a_key_and_no_other() -> None:
    clock = Clock()
    limiter = TokenBucketLimiter(2, 60, clock=clock)
    for key in ("a", "b", "long" * 100):
        await limiter.acquire(key, 2)
    await limiter.reset("a")
    await limiter.reset("long" * 100)
    await limiter.reset("never seen")
    assert [(await limiter.acquire(key)).allowed for key in ("a", "b", "long" * 100)] == [True, False, True]
