"""The memory of a limiter: bounded, also under a flood of keys, which must not hand out anybody's limit afresh."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from covet.ratelimit import SlidingWindowLimiter, TokenBucketLimiter
from covet.ratelimit.states import FIRST_SWEEP, SHARED

SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_what_has_expired_goes_when_others_come() -> None:
    clock = Clock()
    limiter = TokenBucketLimiter(10, 1, clock=clock)
    for number in range(200_000):
        limiter.take(f"client {number}")
        clock.now += SECOND // 1000
    # A request counts for a tenth of a second here, in which a hundred come.
    assert len(limiter._states) <= FIRST_SWEEP + 1


def test_a_flood_neither_grows_without_bound_nor_resets_anybody() -> None:
    clock = Clock()
    limiter = TokenBucketLimiter(10, 3600, max_keys=5_000, clock=clock)
    assert limiter.take("victim", 10).allowed
    for number in range(100_000):
        limiter.take(f"flood {number}")
        clock.now += 1000
        if number % 10_000 == 0:
            assert not limiter.take("victim").allowed
    assert not limiter.take("victim").allowed
    assert len(limiter._states) <= 5_000 + SHARED


def test_keys_that_find_no_room_are_never_allowed_more_than_the_limit() -> None:
    clock = Clock()
    limiter = TokenBucketLimiter(10, 3600, max_keys=100, clock=clock)
    for number in range(5_000):
        limiter.take(f"flood {number}", 10)
    allowed = 0
    for _ in range(500):
        allowed += limiter.take("late").allowed
    assert allowed <= 10
    # Within two hours all of them have expired, and there is room again.
    clock.now += 7200 * SECOND
    assert limiter.take("somebody else").allowed
    assert limiter.take("late", 10).allowed
    assert not limiter.take("late").allowed
    assert len(limiter._states) <= 100 + SHARED


def test_a_key_that_finds_room_later_begins_with_its_past() -> None:
    clock = Clock()
    limiter = TokenBucketLimiter(10, 3600, max_keys=1, clock=clock)
    # For an hour and a quarter there is no room but for the first; then there is.
    limiter.take("first", 10)
    allowed = 0
    for _ in range(5 * 360):
        clock.now += 10 * SECOND
        allowed += limiter.take("second").allowed
    assert allowed <= 10 + 5 * 3600 * 10 // 3600


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3), st.integers(0, 30)), max_size=200),
    st.integers(1, 4),
    st.sampled_from(["bucket", "window"]),
)
def test_with_any_room_no_key_is_allowed_more_than_with_endless_room(
    asked: list[tuple[int, int, int]], room: int, kind: str
) -> None:
    clock = Clock()
    if kind == "bucket":
        small = TokenBucketLimiter(3, 60, max_keys=room, clock=clock)
        bound = 3
    else:
        small = SlidingWindowLimiter(3, 60, max_keys=room, clock=clock)  # type: ignore[assignment]
        bound = 3
    allowed: dict[int, list[tuple[int, int]]] = {}
    for key, cost, pause in asked:
        clock.now += pause * SECOND
        if small.take(f"key {key}", cost).allowed:
            allowed.setdefault(key, []).append((clock.now, cost))
    for times in allowed.values():
        for first, (begin, _) in enumerate(times):
            total = 0
            for end, cost in times[first:]:
                total += cost
                if kind == "bucket":
                    assert total <= bound + 3 * (end - begin) / (60 * SECOND)
                elif end - begin < 60 * SECOND:
                    assert total <= bound


def test_long_keys_are_told_apart_and_not_kept() -> None:
    limiter = TokenBucketLimiter(1, 3600)
    long = "x" * 100_000
    for key in (long, long + "y", "\ud800" * 500, "\ud801" * 500):
        assert limiter.take(key).allowed
        assert not limiter.take(key).allowed
    assert all(sys.getsizeof(key) < 300 for key in limiter._states.own)
    # What a long one is kept as is no key that anybody could send.
    for kept in list(limiter._states.own):
        assert limiter.take(kept).allowed


@given(st.lists(st.text(max_size=200), min_size=1, max_size=20, unique=True))
def test_any_text_is_a_key_of_its_own(keys: list[str]) -> None:
    limiter = TokenBucketLimiter(1, 3600)
    assert all(limiter.take(key).allowed for key in keys)
    assert not any(limiter.take(key).allowed for key in keys)
