"""Read replicas: reads go to servers that follow the primary, and see what their own request or task wrote.

    database = Database(primary, read_replicas=[first, second], max_lag=5)

See `docs/orm/replicas.md`.
"""

from __future__ import annotations

from covet_orm.replicas.events import LeaveReason, PrimaryDemoted, ReplicaLeft, ReplicaReturned
from covet_orm.replicas.positions import InvalidToken
from covet_orm.replicas.read_sessions import read_session
from covet_orm.replicas.settings import ReplicaSettings

__all__ = [
    "InvalidToken",
    "LeaveReason",
    "PrimaryDemoted",
    "ReplicaLeft",
    "ReplicaReturned",
    "ReplicaSettings",
    "read_session",
]
