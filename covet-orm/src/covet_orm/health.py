"""Health checks of databases: whether they answer, and take writes."""

from __future__ import annotations

from functools import partial
from typing import Any

from covet.health import HealthCheck
from covet_orm.databases import Database
from covet_orm.exceptions import ReadOnlyDatabase

__all__ = ["TIMEOUT", "check_database", "health_check"]

TIMEOUT = 5.0
"""Seconds that a check may take."""

READ_ONLY = {
    "postgresql": "SELECT pg_is_in_recovery()",
    "mariadb": "SELECT @@global.read_only",
    "mysql": "SELECT @@global.read_only",
    "sqlite": "SELECT 0",
}


def health_check(database: Database) -> HealthCheck:
    """The check of a database.

    It is reported, and makes no process unready: whether a storage answers is what the kernel asks by itself, and that
    a server only reads concerns those who write.
    """
    return HealthCheck(partial(check_database, database), timeout=TIMEOUT, critical=False)


async def check_database(database: Database) -> None:
    """Return when a database answers and takes writes.

    It asks on a connection beside those of the pool, so that one that is in full use is not taken for a server that is
    gone. A server that was demoted answers, and refuses writes.

    Raises:
        DatabaseError: it does not answer.
        ReadOnlyDatabase: it only reads, and was not asked to.
    """
    if database.kind == "sqlite":
        pool = await database.pool_for(reads=True)
    else:
        pool = await database.pool_apart()
    connection = pool.try_acquire() or await pool.acquire()
    try:
        rows = await connection.fetch(READ_ONLY[database.kind])
    finally:
        pool.release(connection)
    driver: Any = database._driver
    if rows[0][0] and not driver.options.only_reads:
        raise ReadOnlyDatabase(
            f"the server of the database {database.alias!r} only reads: it is a replica, or was demoted to one"
        )
