"""What happens with replicas, for whoever implements the hook `covet_event`. Times are in seconds."""

from __future__ import annotations

from typing import Literal

from covet.events import Event

__all__ = ["LeaveReason", "PrimaryDemoted", "ReplicaLeft", "ReplicaReturned"]

LeaveReason = Literal["unreachable", "lost", "promoted", "lag", "foreign"]
"""Why a replica is not asked any more.

`unreachable`: no connection to it can be made, or it does not answer a check. `lost`: a connection to it broke.
`promoted`: it is no replica now. `lag`: it is further behind than `max_lag`. `foreign`: it is of another cluster, or
follows a history that its primary has left.
"""


class ReplicaLeft(Event, frozen=True, gc=False):
    """A replica is not asked for the time being; the other replicas or the primary are.

    Attributes:
        database: the alias of the database.
        replica: where it is, host and port.
        reason: why.
        lag: how far it is behind, as far as is known.
    """

    database: str
    replica: str
    reason: LeaveReason
    lag: float | None


class ReplicaReturned(Event, frozen=True, gc=False):
    """A replica is asked again.

    Attributes:
        database: the alias of the database.
        replica: where it is, host and port.
        seconds: for how long it was not.
    """

    database: str
    replica: str
    seconds: float


class PrimaryDemoted(Event, frozen=True, gc=False):
    """The primary refuses to write, and is a replica now; its connections are replaced.

    Attributes:
        database: the alias of the database.
    """

    database: str
