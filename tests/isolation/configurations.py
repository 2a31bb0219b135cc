"""The databases of the table, and how their servers are set up for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.isolation.promises import levels
from tests.services.databases import NAMES, Database
from tests.services.mariadb import MariaDB

from covet_orm.transactions.options import IsolationLevel

__all__ = ["CASES", "CONFIGURATIONS", "configured"]

SNAPSHOT = "innodb_snapshot_isolation"
CONFIGURATIONS: tuple[tuple[str, str], ...] = (
    *((name, name.partition("-")[0]) for name in NAMES),
    ("mariadb", f"mariadb, {SNAPSHOT}"),
)
"""The name of a server, and of the promises that hold for it."""
CASES: tuple[tuple[str, str, IsolationLevel], ...] = tuple(
    (name, promised, level) for name, promised in CONFIGURATIONS for level in levels(promised)
)
"""The same, at each of its levels."""


@contextmanager
def configured(server: Database, promised: str) -> Iterator[str]:
    """The URL of an empty database on a server that is set up as the promises say, for sessions that begin within."""
    if not isinstance(server, MariaDB):
        yield server.empty_database("isolation")
        return
    # Before 10.6.18 there was none; what it is by default depends on the version.
    (before,) = server.execute(f"SELECT @@GLOBAL.{SNAPSHOT} AS setting")
    server.execute(f"SET GLOBAL {SNAPSHOT} = %s", int(promised.endswith(SNAPSHOT)))
    try:
        yield server.empty_database("isolation")
    finally:
        server.execute(f"SET GLOBAL {SNAPSHOT} = %s", before["setting"])
