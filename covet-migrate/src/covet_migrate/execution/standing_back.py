"""Standing back from a table that somebody holds, so that nobody has to wait behind a migration (PostgreSQL).

Whoever asks for a lock that others hold is a lock itself to all who come after. So a statement does not ask while there
is a transaction that would keep it waiting; and it takes, before the lock that it needs, one that keeps away only what
works on the table as a whole (VACUUM, another migration): asking for that keeps no reader and no writer waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import monotonic

import anyio

from covet_migrate.actions.actions import CreateTable, Execute
from covet_migrate.safety.effects import Blocks, effects_of
from covet_migrate.steps import Call, Statement, Step
from covet_orm import Database
from covet_orm.dialects import dialect_of
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import OrmError

__all__ = ["keep_others_off", "stand_back", "tables_blocked"]

FIRST_LOOK = 0.02
LAST_LOOK = 0.5
"""Seconds between two looks at who holds a table: at first, and later on."""

HOLDERS = """
SELECT DISTINCT l.pid, l.virtualtransaction
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND n.nspname = ANY (current_schemas(true))
    AND (
        (c.relname = ANY ($1::text[]) AND l.mode <> 'ShareUpdateExclusiveLock')
        OR (c.relname = ANY ($2::text[])
            AND l.mode NOT IN ('ShareUpdateExclusiveLock', 'AccessShareLock', 'RowShareLock'))
    )
"""
"""Transactions that keep those waiting who want a table for themselves, or who want to keep writers away; a prepared
one has no process. What works on the table as a whole is left out: PostgreSQL ends an autovacuum of its own accord when
somebody waits for it."""


def tables_blocked(steps: Iterable[Step], kind: str, version: tuple[int, ...]) -> dict[str, Blocks]:
    """The tables that are there before steps and of which these need a lock against others, each with against whom.

    Args:
        steps: those of one transaction, in order.
        kind: of database; of others than PostgreSQL nothing is known.
        version: of the server.
    """
    if kind != "postgresql":
        return {}
    found: dict[str, Blocks] = {}
    known = [step for step in steps if isinstance(step, (Statement, Call))]
    for step, effect in zip(known, effects_of(known, kind, version), strict=True):
        if isinstance(step.action, Execute):
            drops = isinstance(step, Statement) and step.sql.startswith("DROP")
            blocked = dict.fromkeys(step.action.tables, Blocks.EVERYBODY if drops else Blocks.WRITERS)
        else:
            blocked = dict.fromkeys(effect.locks, effect.blocks) if effect.blocks > Blocks.NOBODY else {}
        for table, whom in blocked.items():
            found[table] = max(whom, found.get(table, whom))
    return found


async def stand_back(
    database: Database, tables: Mapping[str, Blocks], *, until: float, tell: Callable[[], object]
) -> None:
    """Return when each transaction has ended that held a lock of the tables at the beginning, and would have kept a
    statement waiting; or when it is too late.

    Those that begin meanwhile are not waited for, so that there is an end of it on a table that is always used.

    Args:
        database: where; the caller has no transaction in it.
        tables: as of `tables_blocked`.
        until: on the clock of `time.monotonic`.
        tell: is called once, when it takes longer than a moment.
    """
    names = [[name for name, one in tables.items() if one is whom] for whom in (Blocks.EVERYBODY, Blocks.WRITERS)]
    left: set[tuple[object, ...]] | None = None
    pause = FIRST_LOOK
    told = False
    while True:
        try:
            # Not a replica's.
            async with database.connection() as connection:
                rows = (await connection.query(HOLDERS, (names[0], names[1]))).rows
        except OrmError:
            # Who may not look asks for the lock, and gives it up in time.
            return
        there = {tuple(row) for row in rows}
        left = there if left is None else left & there
        if not left or monotonic() >= until:
            return
        if pause >= LAST_LOOK and not told:
            told = True
            tell()
        await anyio.sleep(min(pause, max(until - monotonic(), 0)))
        pause = min(pause * 2, LAST_LOOK)


async def keep_others_off(connection: Connection, step: Step, version: tuple[int, ...]) -> None:
    """Lock the tables of a step against what works on them as a whole, in the transaction of a connection.

    Args:
        connection: of PostgreSQL, in a transaction.
        step: what is run next.
        version: of the server.

    Raises:
        LockTimeout: somebody works on a table, and would not be ended.
    """
    if isinstance(step.action, (CreateTable, Execute)):
        # There is no such table yet; and what somebody wrote locks what it does.
        return
    quote = dialect_of("postgresql").identifier_preparer.quote_identifier
    for table in tables_blocked([step], "postgresql", version):
        await connection.script(f"LOCK TABLE {quote(table)} IN SHARE UPDATE EXCLUSIVE MODE")
