"""What a limiter says of one request."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Decision"]


class Decision(Struct, frozen=True, gc=False):
    """What a limiter said.

    Attributes:
        allowed: whether it may be done; then its cost is counted.
        remaining: how much more may be done now; never below 0.
        retry_after: seconds until the same cost is allowed if nothing else is done until then; 0 when it is allowed,
            infinite when it never will be, being more than the limit as a whole.
        limit: how much may be done at once when nothing has been done before.
        reset_after: seconds until all of the limit is there again if nothing else is done until then.
        window: seconds over which `remaining` may be spread so that the rate is kept; where nothing remains, seconds
            until something does.
        counted: whether the place where the limiter counts could be asked.
    """

    allowed: bool
    remaining: int
    retry_after: float
    limit: int
    reset_after: float
    window: float
    counted: bool = True
