"""Reading rows that are to be written: they are locked until the transaction ends, and are as they were committed last,
whatever the transaction has seen before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from covet_orm.queries.plans import Plan, make_plan
from covet_orm.queries.selects import build_select

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["fetch_locked"]


async def fetch_locked(query: QuerySet[Any], *, shared: bool = False) -> list[Any]:
    """The results of a query, locked: their own rows, and not those of related objects on PostgreSQL.

    SQLite has no such locks, and needs none: its transactions that write run one after another.

    Args:
        query: the query.
        shared: whether others may lock the rows in the same way. In MySQL an INSERT that found a row in its way has
            such a lock already, and two of those who want more wait for each other.

    Raises:
        LockTimeout: somebody else kept a row for too long.
        DeadlockDetected: somebody else waits for a row of this transaction.
    """
    if query.database.kind == "sqlite":
        return await query
    database = query.database
    compiler, purpose = (_compile_shared, "select for share") if shared else (_compile, "select for update")
    rows = await query._run(compiler, purpose)
    plan, _ = query._plan(database, compiler, purpose)
    return rows if plan.load is None else plan.load(rows, database)


def _compile_shared(query: QuerySet[Any], kind: str) -> Plan:
    return _compile(query, kind, shared=True)


def _compile(query: QuerySet[Any], kind: str, *, shared: bool = False) -> Plan:
    statement, scope, load = build_select(query, kind)
    # What an outer join may leave NULL cannot be locked.
    locking = statement.with_for_update(read=shared, of=scope.root if kind == "postgresql" else None)
    return make_plan(locking, kind, scope.parameters, load, f"{query.model.__name__}.select for update")
