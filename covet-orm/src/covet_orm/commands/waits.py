"""Who waits for whom in a database, as its server tells at this moment.

Sources: PostgreSQL 15, sections 9.26 (pg_blocking_pids), 54.12 (pg_locks), 54.17 (pg_prepared_xacts) and 27.2.3
(pg_stat_activity); MariaDB 10.11, information_schema.INNODB_LOCK_WAITS, INNODB_LOCKS and INNODB_TRX; MySQL 8.0
Reference Manual, section 29.12.13 (performance_schema.data_lock_waits and data_locks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["Session", "tree", "waits_of"]

POSTGRESQL = """
    WITH waiting AS MATERIALIZED (
        SELECT pid, array_agg(DISTINCT other) AS others
        FROM pg_catalog.pg_stat_activity JOIN pg_catalog.pg_locks USING (pid),
            unnest(pg_catalog.pg_blocking_pids(pid)) AS other
        WHERE NOT granted AND datname = current_database() GROUP BY pid
    )
    SELECT a.pid, coalesce(a.usename::text, a.backend_type), a.application_name,
        extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start))::float8,
        CASE WHEN l.pid IS NOT NULL THEN extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, a.query_start))
            END::float8,
        coalesce(a.state, ''), coalesce(a.query, ''), w.others, l.mode, l.locktype,
        coalesce(l.relation, t.relation)::regclass::text,
        (SELECT p.gid FROM pg_catalog.pg_prepared_xacts p WHERE p.transaction = l.transactionid)
    FROM pg_catalog.pg_stat_activity a
    LEFT JOIN waiting w USING (pid)
    LEFT JOIN LATERAL (SELECT * FROM pg_catalog.pg_locks WHERE pid = a.pid AND NOT granted LIMIT 1) l ON true
    LEFT JOIN LATERAL (
        SELECT relation FROM pg_catalog.pg_locks WHERE pid = a.pid AND granted AND locktype = 'tuple' LIMIT 1
    ) t ON true
    WHERE w.pid IS NOT NULL OR a.pid IN (SELECT unnest(others) FROM waiting)
    ORDER BY a.xact_start NULLS LAST, a.pid"""

MARIADB = """
    SELECT r.trx_mysql_thread_id, b.trx_mysql_thread_id, l.lock_mode, l.lock_type, l.lock_table, l.lock_index
    FROM information_schema.INNODB_LOCK_WAITS w
    JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id
    JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id
    JOIN information_schema.INNODB_LOCKS l ON l.lock_id = w.requested_lock_id"""

MYSQL = """
    SELECT r.trx_mysql_thread_id, b.trx_mysql_thread_id, l.lock_mode, l.lock_type,
        concat(l.object_schema, '.', l.object_name), l.index_name
    FROM performance_schema.data_lock_waits w
    JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_engine_transaction_id
    JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_engine_transaction_id
    JOIN performance_schema.data_locks l ON l.engine = w.engine AND l.engine_lock_id = w.requesting_engine_lock_id"""

INNODB_SESSIONS = """
    SELECT t.trx_mysql_thread_id, p.user, unix_timestamp() - unix_timestamp(t.trx_started),
        unix_timestamp() - unix_timestamp(t.trx_wait_started), lower(p.command), coalesce(t.trx_query, p.info, '')
    FROM information_schema.INNODB_TRX t
    LEFT JOIN information_schema.PROCESSLIST p ON p.id = t.trx_mysql_thread_id
    ORDER BY t.trx_started, t.trx_mysql_thread_id"""


class Session(NamedTuple):
    """A connection that waits for a lock, or that another one waits for.

    Attributes:
        server_id: the server's name for it; 0 for a transaction that was prepared (two-phase commit), which is no
            connection's.
        user: who is connected.
        application: what the client calls itself (PostgreSQL).
        age: seconds since its transaction began.
        waited: seconds since it began to wait; None where it does not.
        state: what it does, in the server's words.
        lock: what it waits for, in the server's words; empty where it does not wait.
        table: the table that the lock is of, where it is known.
        statement: what it runs, or ran last.
        blocked_by: whom it waits for.
    """

    server_id: int
    user: str
    application: str
    age: float | None
    waited: float | None
    state: str
    lock: str
    table: str
    statement: str
    blocked_by: tuple[int, ...]


async def waits_of(database: Database) -> list[Session]:
    """Who waits, and whom for, in the databases of an open server; the oldest transaction first.

    Raises:
        ProgrammingError: the user may not ask (MySQL and MariaDB want the privilege PROCESS).
    """
    if database.kind == "postgresql":
        return await _postgresql(database)
    return await _innodb(database)


def tree(sessions: Sequence[Session]) -> Iterator[tuple[int, Session]]:
    """Each session, once, below one that it waits for, and how deep.

    Of several that it waits for, it stands below the one that stands highest. Where all wait for each other, in a
    deadlock that the server has not found yet, the oldest comes first.
    """
    known = {one.server_id for one in sessions}
    waiting: dict[int, list[Session]] = {}
    for one in sessions:
        for other in set(one.blocked_by):
            waiting.setdefault(other, []).append(one)
    first = [one for one in sessions if not known.intersection(one.blocked_by)]
    below: dict[int, list[Session]] = {}
    placed: set[int] = set()
    for root in (*first, *sessions):
        if root.server_id in placed:
            continue
        placed.add(root.server_id)
        reached = [root]
        for one in reached:
            children = [other for other in waiting.get(one.server_id, ()) if other.server_id not in placed]
            below[one.server_id] = children
            placed.update(child.server_id for child in children)
            reached += children
        branch = [(0, root)]
        while branch:
            depth, one = branch.pop()
            yield depth, one
            branch += [(depth + 1, other) for other in reversed(below[one.server_id])]


async def _postgresql(database: Database) -> list[Session]:
    found: list[Session] = []
    prepared: set[str] = set()
    for pid, user, name, age, waited, state, query, others, mode, locktype, table, gid in (
        await database.query(POSTGRESQL)
    ).rows:
        if gid is not None:
            prepared.add(gid)
        lock = f"{mode} on {locktype}" if mode else ""
        found.append(
            Session(
                pid, user or "", name or "", age, waited, state, lock, table or "", query, tuple(sorted(others or ()))
            )
        )
    if any(0 in one.blocked_by for one in found):
        names = ", ".join(sorted(prepared))
        found.insert(0, Session(0, "", "", None, None, "prepared", "", "", names, ()))
    return found


async def _innodb(database: Database) -> list[Session]:
    locks: dict[int, tuple[str, str]] = {}
    others: dict[int, set[int]] = {}
    rows = await database.query(MARIADB if database.kind == "mariadb" else MYSQL)
    for waiter, blocker, mode, kind, table, index in rows.rows:
        words = f"{mode} {str(kind).lower()} lock" + (f" on index {index}" if index else "")
        locks[waiter] = (words, str(table).replace("`", ""))
        others.setdefault(waiter, set()).add(blocker)
    wanted = {*others, *(one for several in others.values() for one in several)}
    found: list[Session] = []
    for thread, user, age, waited, command, query in (await database.query(INNODB_SESSIONS)).rows:
        if thread in wanted:
            lock, table = locks.get(thread, ("", ""))
            state = "idle in transaction" if command == "sleep" else str(command or "")
            blockers = tuple(sorted(others.get(thread, ())))
            found.append(
                Session(
                    thread, user or "", "", _seconds(age), _seconds(waited), state, lock, table, query or "", blockers
                )
            )
    return found


def _seconds(value: object) -> float | None:
    return None if value is None else max(float(str(value)), 0.0)
