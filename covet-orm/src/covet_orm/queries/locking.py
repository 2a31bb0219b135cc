"""`select_for_update`: rows that nobody else changes until the transaction ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import FromClause, Select

from covet_orm.exceptions import FieldError, NotSupported, QueryError, TransactionError
from covet_orm.transactions.context import current_transaction

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.queries.scope import Scope

__all__ = ["Lock", "locked", "require_transaction"]


class Lock(NamedTuple):
    """How rows are locked.

    Attributes:
        nowait: whether a row that somebody holds is an error at once.
        skip_locked: whether such rows are left out.
        of: which tables' rows: `self`, and paths of select_related; all of them when empty.
        no_key: whether others may still refer to the rows by foreign keys.
    """

    nowait: bool
    skip_locked: bool
    of: tuple[str, ...]
    no_key: bool


def locked(statement: Select[Any], query: QuerySet[Any], scope: Scope) -> Select[Any]:
    """A SELECT that locks its rows.

    Raises:
        NotSupported: the database has no such lock.
        FieldError: `of` names what the query does not read.
    """
    assert query._lock is not None
    lock = Lock(*query._lock)
    kind = scope.kind
    if kind == "sqlite":
        raise NotSupported(
            "SQLite locks no rows: a transaction there has the lock of the whole file from its beginning, so that "
            "nobody "
            "else writes; leave select_for_update() out, or use PostgreSQL, MySQL or MariaDB"
        )
    if lock.no_key and kind != "postgresql":
        raise NotSupported(f"select_for_update(no_key=True): {kind} has no such lock; PostgreSQL has")
    if lock.of and kind == "mariadb":
        raise NotSupported(
            "select_for_update(of=...): mariadb locks the rows of all tables; PostgreSQL and MySQL choose"
        )
    if not query._is_plain_select() or query._distinct is not None:
        raise QueryError(
            "select_for_update() is for the rows of tables, not for groups, distinct rows or set operations"
        )
    tables: list[FromClause] = []
    for path in lock.of:
        steps = () if path == "self" else tuple(path.split("__"))
        if steps and path not in query._related:
            raise FieldError(
                f"select_for_update(of=({path!r},)): the query does not read it; it reads self"
                + "".join(f", {name}" for name in query._related)
            )
        tables.append(scope.joins[steps])
    return statement.with_for_update(
        nowait=lock.nowait, skip_locked=lock.skip_locked, of=tables or None, key_share=lock.no_key
    )


def require_transaction(database: Database) -> None:
    """Check that there is a transaction, without which a lock ends as soon as it is there.

    Raises:
        TransactionError: there is none.
    """
    if current_transaction(database) is None:
        raise TransactionError(
            "select_for_update() locks rows until the transaction ends, and there is none: "
            "`async with database.transaction(): ...`"
        )
