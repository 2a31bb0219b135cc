"""Who holds the lock that a migration waits for, as far as the server tells."""

from __future__ import annotations

from covet_migrate.execution.stages import tables_of
from covet_migrate.steps import Step
from covet_orm import Database
from covet_orm.exceptions import OrmError

__all__ = ["holders_of"]

POSTGRESQL = """
SELECT DISTINCT 'process ' || a.pid || ' (' || concat_ws(', ', a.usename, nullif(a.application_name, ''), a.state)
    || ', ' || coalesce(to_char(now() - a.xact_start, 'HH24:MI:SS'), '?') || ')'
FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation
WHERE l.granted AND a.pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (c.relname = ANY ($1::text[])) ORDER BY 1 LIMIT 5
"""
MYSQL = """
SELECT DISTINCT
    CONCAT('connection ', p.id, ' (', p.user, '@', p.host, ', in a transaction since ', t.trx_started, ' UTC)')
FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
WHERE p.id <> CONNECTION_ID() ORDER BY 1 LIMIT 5
"""


async def holders_of(database: Database, step: Step | None) -> list[str]:
    """Who holds locks of the tables of a step: PostgreSQL. Who is in a transaction at all: MySQL and MariaDB.

    Args:
        database: which one; the caller has no transaction in it.
        step: what waited.
    """
    try:
        if database.kind == "postgresql":
            tables = sorted((tables_of(step.action) if step is not None else None) or ())
            rows = (await database.query(POSTGRESQL, (tables,))).rows if tables else []
        elif database.kind == "sqlite":
            rows = []
        else:
            rows = (await database.query(MYSQL)).rows
    except OrmError as error:
        # It is said beside what matters; the user may not be allowed to see others.
        return [f"somebody whom this user may not see ({error})"]
    return [str(row[0]) for row in rows]
