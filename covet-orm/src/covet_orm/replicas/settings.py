"""The settings of read replicas. They can be read without a driver being installed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from covet.exceptions import ConfigurationError

__all__ = ["ReplicaSettings"]

Seconds = Annotated[float, Meta(gt=0)]


class ReplicaSettings(Struct, frozen=True, kw_only=True):
    """Where the replicas are, and when they are asked. Times are in seconds.

    Raises:
        ValueError: there is not one weight for each replica.
    """

    read_replicas: Annotated[
        tuple[str, ...], Meta(description="URLs of replicas, which are asked for what only reads.")
    ] = ()
    replica_weights: Annotated[
        tuple[Annotated[float, Meta(gt=0)], ...],
        Meta(description="How much each replica takes, relative to the others; the same for all by default."),
    ] = ()
    max_lag: Annotated[
        Seconds | None,
        Meta(description="Seconds that a replica may be behind; one that is further is not asked until it is not."),
    ] = 10.0
    replica_wait: Annotated[
        float,
        Meta(ge=0, description="Seconds that a read waits for its replica to have what was written; then the primary."),
    ] = 0.1
    token_lifetime: Annotated[
        Seconds, Meta(description="Seconds after a write for which reads are sure to see it.")
    ] = 30.0
    replica_check: Annotated[Seconds, Meta(description="Seconds between two checks of the replicas.")] = 1.0
    heartbeat: Annotated[
        bool,
        Meta(
            description="Whether each check writes a row to the table covet_heartbeat of the primary, so that a "
            "replica that gets nothing any more is found out while nobody else writes."
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.replica_weights and len(self.replica_weights) != len(self.read_replicas):
            raise ValueError(
                f"replica_weights has one for each of read_replicas, not {len(self.replica_weights)} for "
                f"{len(self.read_replicas)}"
            )

    @classmethod
    def of(cls, options: dict[str, Any], where: str) -> ReplicaSettings | None:
        """Take the settings out of the options of a database; None where it has no replicas.

        Raises:
            ConfigurationError: one does not fit.
        """
        given = {name: options.pop(name) for name in cls.__struct_fields__ if name in options}
        if not given.get("read_replicas"):
            return None
        if isinstance(given["read_replicas"], str):
            raise ConfigurationError(f"{where}: read_replicas is a list of URLs; write [url]")
        try:
            return msgspec.convert(given, cls, strict=False)
        except (msgspec.ValidationError, ValueError) as error:
            raise ConfigurationError(f"{where}: {error}") from None
