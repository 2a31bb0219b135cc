"""What the documentation of each database promises, for each level.

- PostgreSQL: https://www.postgresql.org/docs/current/transaction-iso.html. Table 13.1: there are no dirty reads at any
  level, and no phantoms from repeatable read on, which is snapshot isolation; serializable is what it says.
- MariaDB: https://mariadb.com/kb/en/set-transaction/ and https://jira.mariadb.org/browse/MDEV-35124. The reads of
  repeatable read are of one snapshot; its writes work on what is committed, so that what was read before may be stale,
  unless `innodb_snapshot_isolation` is on (there since 10.6.18 and 10.11.8; by default since 11.6.2).
- SQLite: https://www.sqlite.org/isolation.html. One writer at a time, and readers with a snapshot: serializable.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.isolation.checker import Anomaly
from tests.isolation.scenarios import Scenario

from covet_orm.transactions.options import IsolationLevel

__all__ = ["ALLOWED", "levels", "may_occur"]

EVERYTHING = frozenset(Anomaly)
BUT_DIRTY_WRITES = EVERYTHING - {Anomaly.G0}
COMMITTED = EVERYTHING - {Anomaly.G0, Anomaly.G1A, Anomaly.G1B, Anomaly.G1C}
SNAPSHOT = frozenset({Anomaly.G2_ITEM, Anomaly.G2})
NOTHING: frozenset[Anomaly] = frozenset()

ALLOWED: Mapping[str, Mapping[IsolationLevel, frozenset[Anomaly]]] = {
    "sqlite": {"serializable": NOTHING},
    "postgresql": {
        "read uncommitted": COMMITTED,
        "read committed": COMMITTED,
        "repeatable read": SNAPSHOT,
        "serializable": NOTHING,
    },
    "mariadb": {
        "read uncommitted": BUT_DIRTY_WRITES,
        "read committed": COMMITTED,
        "repeatable read": COMMITTED,
        "serializable": NOTHING,
    },
    "mariadb, innodb_snapshot_isolation": {
        "read uncommitted": BUT_DIRTY_WRITES,
        "read committed": COMMITTED,
        "repeatable read": SNAPSHOT,
        "serializable": NOTHING,
    },
}
"""The anomalies that may happen, by database and level."""

OF_ONE_SNAPSHOT = ("G-single fuzzy read", "G-single read skew", "G-single phantom read")
"""Scenarios whose statements that matter are all reads."""


def levels(database: str) -> tuple[IsolationLevel, ...]:
    """The levels of a database, from the weakest to the strongest."""
    return tuple(ALLOWED[database])


def may_occur(scenario: Scenario, database: str, level: IsolationLevel) -> bool:
    """Whether the anomaly of a scenario is one that the database allows at a level."""
    if database == "mariadb" and level == "repeatable read" and scenario.name in OF_ONE_SNAPSHOT:
        return False
    return scenario.anomaly in ALLOWED[database][level]
