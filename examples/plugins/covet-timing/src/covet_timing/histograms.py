"""Histograms of latencies: a fixed relative error, a fixed amount of memory."""

from __future__ import annotations

import os
import time
from math import ceil, log

import msgspec

__all__ = ["NO_ROUTE", "Histogram", "Report", "RouteTimes", "Timings"]

NO_ROUTE = ("*", "(no route)")
"""Where requests are counted that no route answers: together, for their number of paths and methods is the sender's."""

SMALLEST = 1e-5
LARGEST = 1e3
GROWTH = 2**0.125
_SCALE = 1 / log(GROWTH)
_LAST = ceil(log(LARGEST / SMALLEST) * _SCALE)


class Histogram:
    """Counts of durations in buckets whose bounds grow by 9 % each, from 10 microseconds to 1,000 seconds.

    Attributes:
        count: how many durations.
        total, maximum: their sum and the longest, in seconds.
    """

    __slots__ = ("_buckets", "count", "maximum", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0
        self._buckets: dict[int, int] = {}

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.count += 1
        self.total += seconds
        if seconds > self.maximum:
            self.maximum = seconds
        bucket = 0 if seconds <= SMALLEST else min(ceil(log(seconds / SMALLEST) * _SCALE), _LAST)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def mean(self) -> float:
        """The mean in seconds; 0 without any."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, fraction: float) -> float:
        """What the given fraction of the durations did not exceed, in seconds: at most 9 % too high; 0 without any.

        Raises:
            ValueError: the fraction is not from 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"a fraction is from 0 to 1, not {fraction}")
        rank = max(ceil(fraction * self.count), 1)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                # The last bucket has no upper bound but the maximum, and no bound should exceed what was seen.
                bound = self.maximum if bucket == _LAST else SMALLEST * GROWTH**bucket
                return min(bound, self.maximum)
        return 0.0


class RouteTimes(msgspec.Struct, frozen=True):
    """What is known of one route; times in milliseconds. `errors` counts responses with status 500 and above."""

    method: str
    route: str
    count: int
    errors: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class Report(msgspec.Struct, frozen=True):
    """What one worker process has seen in `seconds` seconds, the busiest routes first."""

    worker: int
    seconds: float
    routes: list[RouteTimes]


class Timings:
    """The histograms of an application, by method and route template."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._histograms: dict[tuple[str, str], Histogram] = {}
        self._errors: dict[tuple[str, str], int] = {}

    def observe(self, key: tuple[str, str], seconds: float, status: int) -> None:
        """Count a request."""
        histogram = self._histograms.get(key)
        if histogram is None:
            histogram = self._histograms[key] = Histogram()
        histogram.observe(seconds)
        if status >= 500:
            self._errors[key] = self._errors.get(key, 0) + 1

    def of(self, method: str, route: str) -> Histogram:
        """The histogram of a route, by its template; an empty one when it has not been asked for yet."""
        return self._histograms.get((method, route)) or Histogram()

    def report(self) -> Report:
        """Everything, as it is now."""
        routes = [
            RouteTimes(
                method=key[0],
                route=key[1],
                count=histogram.count,
                errors=self._errors.get(key, 0),
                mean_ms=_milliseconds(histogram.mean),
                p50_ms=_milliseconds(histogram.quantile(0.5)),
                p90_ms=_milliseconds(histogram.quantile(0.9)),
                p99_ms=_milliseconds(histogram.quantile(0.99)),
                max_ms=_milliseconds(histogram.maximum),
            )
            for key, histogram in self._histograms.items()
        ]
        routes.sort(key=lambda times: (-times.count, times.route, times.method))
        return Report(os.getpid(), round(time.monotonic() - self._began, 3), routes)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
