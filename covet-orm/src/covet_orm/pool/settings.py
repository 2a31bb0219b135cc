"""The settings of a pool."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["PoolSettings"]

Seconds = Annotated[float, Meta(gt=0)]


class PoolSettings(Struct, frozen=True, kw_only=True):
    """How many connections a pool has, how long they live, and how long one waits for them. Times are in seconds.

    Raises:
        ValueError: a value makes no sense, or `min_size` is more than `max_size`.
    """

    min_size: Annotated[
        int, Meta(ge=0, description="How many connections are made at the start, and kept from then on.")
    ] = 0
    max_size: Annotated[
        int, Meta(ge=1, description="How many connections there are at most, those being made included.")
    ] = 10
    acquire_timeout: Annotated[
        Seconds, Meta(description="Seconds that one waits for a connection, the making of one included.")
    ] = 30.0
    max_age: Annotated[
        Seconds | None,
        Meta(
            description="Seconds after which a connection is replaced; up to a fifth less, so that not all are at once."
        ),
    ] = 3600.0
    max_idle: Annotated[
        Seconds | None, Meta(description="Seconds after which an unused connection beyond `min_size` is closed.")
    ] = 600.0
    check_after_idle: (
        Annotated[
            float,
            Meta(
                ge=0, description="Seconds unused after which a connection is checked before it is used; 0 for always."
            ),
        ]
        | None
    ) = 30.0
    check_timeout: Annotated[
        Seconds, Meta(description="Seconds that a check may take; a connection that takes longer is replaced.")
    ] = 5.0
    failures: Annotated[
        int, Meta(ge=1, description="How many failed attempts to connect within 30 seconds open the circuit breaker.")
    ] = 3
    retry_after: Annotated[
        Seconds, Meta(description="Seconds that nobody tries to connect once the circuit breaker is open.")
    ] = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_size <= self.max_size or self.max_size < 1:
            raise ValueError(
                f"a pool has at least 1 connection and min_size is at most max_size, not {self.min_size} and "
                f"{self.max_size}"
            )
        for name in ("acquire_timeout", "max_age", "max_idle", "check_timeout", "retry_after"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} is seconds above 0, not {seconds}")
        if self.check_after_idle is not None and not self.check_after_idle >= 0:
            raise ValueError(f"check_after_idle is seconds, 0 or more, not {self.check_after_idle}")
        if self.failures < 1:
            raise ValueError(f"failures is at least 1, not {self.failures}")
