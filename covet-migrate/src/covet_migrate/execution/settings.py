"""How patient those are who run migrations."""

from __future__ import annotations

from dataclasses import dataclass

from covet_migrate.exceptions import MigrationError

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How patient a run is. Times are seconds.

    Attributes:
        lock_timeout: how long a statement waits for a lock. Everybody who wants the table meanwhile queues behind it,
            so this is the longest stall of a site; then it is given up, and tried again when others had their turn. 2
            by default; on MySQL and MariaDB whole seconds.
        retry: for how long it is tried again. 120 by default.
        statement_timeout: how long a statement may take in a migration that is a transaction; None for as long as it
            takes.
        wait: how long to wait for somebody else who migrates the database. 600 by default.
    """

    lock_timeout: float = 2.0
    retry: float = 120.0
    statement_timeout: float | None = None
    wait: float = 600.0

    def __post_init__(self) -> None:
        for name in ("retry", "wait"):
            if not getattr(self, name) >= 0:
                raise MigrationError(f"{name} is seconds from 0, not {getattr(self, name)!r}")
        for name in ("lock_timeout", "statement_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise MigrationError(f"{name} is seconds above 0, not {value!r}")
