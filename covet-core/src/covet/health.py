"""Health checks: what a plugin or an application lets `/health/ready` ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

__all__ = ["HealthCheck"]


class HealthCheck:
    """A check of one thing that the application needs, contributed through the hook `covet_health_checks`.

    Args:
        function: returns when all is well, and raises when it is not; plain functions run in a worker thread. What it
            raises is logged; a client is told only that the check failed.
        timeout: seconds after which the check counts as failed; its function is cancelled.
        critical: whether the application is not ready while it fails. Without, it is reported and nothing else.

    Raises:
        ValueError: `timeout` is not above 0.
    """

    __slots__ = ("critical", "function", "timeout")

    def __init__(
        self, function: Callable[[], Awaitable[object] | object], *, timeout: float = 5.0, critical: bool = True
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout is seconds above 0, not {timeout}")
        self.function = function
        self.timeout = timeout
        self.critical = critical

    def __repr__(self) -> str:
        return f"<HealthCheck {getattr(self.function, '__qualname__', self.function)}>"
