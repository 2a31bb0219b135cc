"""What PostgreSQL really locks: for tests of what is said of it (`covet_migrate.safety.effects`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from covet_orm.drivers.protocol import Connection

__all__ = ["LOCKS", "Held", "files_of_tables", "locks_held", "rank", "tables_there"]

LOCKS: Mapping[str, str] = {
    "AccessShareLock": "ACCESS SHARE",
    "RowShareLock": "ROW SHARE",
    "RowExclusiveLock": "ROW EXCLUSIVE",
    "ShareUpdateExclusiveLock": "SHARE UPDATE EXCLUSIVE",
    "ShareLock": "SHARE",
    "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE",
    "ExclusiveLock": "EXCLUSIVE",
    "AccessExclusiveLock": "ACCESS EXCLUSIVE",
}
"""The locks of tables as `pg_locks` calls them, and as the manual does, from the weakest on."""
ORDER = list(LOCKS.values())
RELATIONS = """
SELECT c.oid, c.relname, pg_catalog.pg_relation_filenode(c.oid) FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname = pg_catalog.current_schema() AND c.relname NOT LIKE 'covet\\_migration%'
"""
HELD = """
SELECT l.pid, l.relation, l.mode, l.pid = pg_catalog.pg_backend_pid() FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database
WHERE l.locktype = 'relation' AND l.granted AND d.datname = pg_catalog.current_database()
"""


@dataclass(frozen=True, slots=True)
class Held:
    """The locks of a session.

    Attributes:
        pid: the process of the server.
        locks: by table, the strongest lock of it.
    """

    pid: int
    locks: Mapping[str, str] = field(default_factory=dict)


def rank(lock: str) -> int:
    """How strong a lock is, from 0.

    Args:
        lock: as the manual calls it: `ACCESS EXCLUSIVE`.
    """
    return ORDER.index(lock)


async def tables_there(connection: Connection) -> dict[int, str]:
    """The tables that a connection sees, by their numbers; without those of migrations themselves.

    Args:
        connection: to PostgreSQL.

    Raises:
        DatabaseError: the database cannot be asked.
    """
    return {int(row[0]): str(row[1]) for row in await connection.fetch(RELATIONS)}


async def files_of_tables(connection: Connection) -> dict[str, int]:
    """The number of the file that each table is in, which is another one after it was written anew.

    Args:
        connection: as of `tables_there`.

    Raises:
        DatabaseError: as of `tables_there`.
    """
    return {str(row[1]): int(row[2] or 0) for row in await connection.fetch(RELATIONS)}


async def locks_held(connection: Connection, tables: Mapping[int, str], *, own: bool = False) -> list[Held]:
    """The locks of tables that sessions of this database hold now, by session.

    Args:
        connection: to PostgreSQL.
        tables: the tables that count, by their numbers.
        own: those of the session that asks; of all others by default.

    Raises:
        DatabaseError: the database cannot be asked.
    """
    sessions: dict[int, dict[str, str]] = {}
    for pid, relation, mode, asks in await connection.fetch(HELD):
        table = tables.get(int(relation))
        if table is None or bool(asks) is not own:
            continue
        held = sessions.setdefault(int(pid), {})
        held[table] = max(held.get(table, ORDER[0]), LOCKS[str(mode)], key=rank)
    return [Held(pid, locks) for pid, locks in sorted(sessions.items())]
