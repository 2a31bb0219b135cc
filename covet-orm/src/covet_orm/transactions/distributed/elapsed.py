"""How much time has passed, whatever is done to the clock."""

from __future__ import annotations

import time

__all__ = ["Elapsed"]


class Elapsed:
    """The time since it was made, by two clocks.

    The monotonic clock is set by nobody, and may stand still while the machine sleeps. The clock of the day goes on
    meanwhile, and may be set back. What must not be too old goes by the one that has gone further.
    """

    __slots__ = ("_day", "_monotonic")

    def __init__(self) -> None:
        self._day = time.time()
        self._monotonic = time.monotonic()

    @property
    def seconds(self) -> float:
        """At least as many as have passed, unless the clock was set back and the machine has slept."""
        return max(time.time() - self._day, time.monotonic() - self._monotonic)
