"""Rates: how much in which time, and the text that says so."""

from __future__ import annotations

import re
from dataclasses import dataclass

from covet.exceptions import ConfigurationError

__all__ = ["Rate"]

UNITS = {
    "s": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
}  # fmt: skip
TEXT = re.compile(r"([0-9]{1,10}) */ *([0-9]{1,6})? *([a-z]+) *(?:; *burst *= *([0-9]{1,10}) *)?")
MAX_COUNT = 1_000_000_000
MAX_SECONDS = 366 * 86400
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So much in so long.

    Attributes:
        count: how much, from 1 to a thousand million.
        per: in how many seconds, from a millisecond to 366 days.
        burst: how much at once, for limiters that know that; None for `count`.

    Raises:
        ConfigurationError: one of them is out of its range, or no number.
    """

    count: int
    per: float = 1.0
    burst: int | None = None

    def __post_init__(self) -> None:
        for what, value in (("rate", self.count), ("burst", 1 if self.burst is None else self.burst)):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_COUNT:
                raise ConfigurationError(
                    f"a rate limit's {what} is a whole number from 1 to {MAX_COUNT}, not {value!r}; for less than one "
                    "a second say it of a longer time, such as 30 per 60 seconds"
                )
        if not isinstance(self.per, int | float) or isinstance(self.per, bool) or not 0.001 <= self.per <= MAX_SECONDS:
            raise ConfigurationError(
                f"a rate limit's time is in seconds, from 0.001 to {MAX_SECONDS} (366 days), not {self.per!r}"
            )

    @classmethod
    def parse(cls, text: str) -> Rate:
        """A rate from text such as `100/minute`, `5/second;burst=10`, `20/30s` or `1000/7 days`.

        Raises:
            ConfigurationError: the text says no rate; the message shows how to.
        """
        found = TEXT.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if found is None or found[3] not in UNITS:
            raise ConfigurationError(
                f"{text!r} is no rate; write a number, a slash and a time, such as '100/minute', '20/30 seconds' or "
                "'5/second;burst=10' (times: second, minute, hour, day)"
            )
        count, times, unit, burst = found.groups()
        if times is not None and not int(times):
            raise ConfigurationError(f"{text!r} is no rate: its time is 0")
        return cls(int(count), int(times or 1) * UNITS[unit], None if burst is None else int(burst))

    @property
    def nanoseconds(self) -> int:
        """The time in whole nanoseconds."""
        return round(self.per * NANOSECONDS)

    def __str__(self) -> str:
        time = next((f"/{name}" for name in ("second", "minute", "hour", "day") if UNITS[name] == self.per), None)
        burst = "" if self.burst is None else f";burst={self.burst}"
        return f"{self.count}{time or f'/{self.per:g}s'}{burst}"
