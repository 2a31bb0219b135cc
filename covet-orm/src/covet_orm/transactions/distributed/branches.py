"""A participant: the part of a distributed transaction that one database has, and how it is prepared and ended there.

PostgreSQL: `PREPARE TRANSACTION` takes the transaction away from its session, which is free from then on; any session
of the same database and user ends it. MariaDB and MySQL: a session that has prepared one can do nothing else, and
nobody else can end it, until the session itself is gone; from then on any session can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from covet_orm.ambient import stand_ins
from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.exceptions import ConnectionLost, DatabaseError, NotSupported, TransactionError
from covet_orm.transactions.blocks import Transaction
from covet_orm.transactions.distributed.identifiers import GlobalId
from covet_orm.transactions.options import TransactionOptions, opening

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["Branch", "Ended", "end_prepared", "fate", "list_prepared"]

UNKNOWN_ID = ("42704", "1397")
"""What the servers say of a prepared transaction that is not there."""
NOTHING_WRITTEN = "1402"
"""What MariaDB says when one that wrote nothing is committed after its session is gone."""
DISABLED = "55000"
FULL = 2
"""SQLite's `PRAGMA synchronous` that keeps a commit through a loss of power."""

Ended = Literal["done", "gone"]
"""Whether a prepared transaction was ended, or was not there any more."""


class Branch(Transaction):
    """The block of one participant; the distributed transaction enters and ends it.

    Args:
        database: where it is.
        options: what is asked for.
        identifier: what it is called at its server.

    Attributes:
        identifier: what it is called at its server.
        number: PostgreSQL's own number for it; empty elsewhere.
        prepared: whether it was, or may have been, when the connection was lost meanwhile.
    """

    __slots__ = ("identifier", "number", "prepared")

    def __init__(self, database: Database, options: TransactionOptions, identifier: GlobalId) -> None:
        super().__init__(database, options)
        self.identifier = identifier
        self.number = ""
        self.prepared = False

    @property
    def is_xa(self) -> bool:
        """Whether it is begun and ended in the words of XA."""
        return self.database.kind in ("mysql", "mariadb")

    @property
    def held(self) -> Connection:
        """The connection, which is there from the first statement to the end."""
        assert self._connection is not None
        return self._connection

    async def wrote(self) -> bool:
        """Whether there is anything to commit, as far as the server tells."""
        if self.database.kind != "postgresql":
            return True
        rows = await self.held.fetch("SELECT pg_current_xact_id_if_assigned()::text")
        self.number = rows[0][0] or ""
        return bool(self.number)

    async def prepare(self) -> None:
        """Promise to commit whatever happens from now on.

        Raises:
            NotSupported: the server does not prepare transactions, or not this one.
            DatabaseError: what the server says; where the connection was lost, it may have been prepared.
        """
        connection = self.held
        try:
            if self.is_xa:
                await connection.script(f"XA END {self.identifier.xid}")
                self.prepared = True
                await connection.script(f"XA PREPARE {self.identifier.xid}")
            else:
                self.prepared = True
                await connection.script(f"PREPARE TRANSACTION '{self.identifier.text}'")
        except DatabaseError as error:
            if not isinstance(error, ConnectionLost):
                self.prepared = False
            if error.code == DISABLED:
                raise NotSupported(
                    f"the server of {self.database.alias!r} prepares no transactions: set max_prepared_transactions in "
                    "its configuration, to at least as many as there are connections, and restart it"
                ) from error
            raise
        if not self.is_xa and connection.state is not SessionState.IDLE:
            raise TransactionError(f"the server of {self.database.alias!r} did not end the transaction at PREPARE")

    async def commit_alone(self) -> None:
        """Commit without having prepared.

        Raises:
            DatabaseError: what the server says; where the connection was lost, it may have been committed.
        """
        connection = self.held
        if self.is_xa:
            await connection.script(f"XA END {self.identifier.xid}")
            await connection.script(f"XA COMMIT {self.identifier.xid} ONE PHASE")
        else:
            await connection.script("COMMIT")
        if connection.state is not SessionState.IDLE:
            raise TransactionError("the server did not end the transaction at COMMIT")

    async def take_back(self) -> None:
        """Roll back what was not prepared. A connection that refuses is given up: its server rolls back."""
        connection = self.held
        if connection.state not in (SessionState.TRANSACTION, SessionState.FAILED):
            if self.is_xa:
                # After a deadlock the session is at rest by its status, and still within XA.
                connection.terminate()
            return
        try:
            if not self.is_xa:
                await connection.script("ROLLBACK")
                return
            await connection.script(f"XA END {self.identifier.xid}")
            await connection.script(f"XA ROLLBACK {self.identifier.xid}")
        except DatabaseError:
            connection.terminate()

    def ending(self, error: BaseException | None) -> None:
        """The block is left, and what comes now is the protocol's; with the error that led to it."""
        self._leave_context()
        if self._telling is not None and self._connection is not None:
            self._connection = self._telling.ending(self._connection, error)

    def uncertain(self, error: BaseException | None) -> None:
        """It has ended, and nobody knows how."""
        if self._telling is not None:
            self._telling.ended(self, committed=None, error=error)

    async def leave(self) -> None:
        """Give the connection back, wherever it stands; one that is not at rest is closed."""
        connection, pool, self._connection = self._connection, self._pool, None
        if connection is None or pool is None:
            return
        if connection.state is not SessionState.IDLE:
            # The pool would do the same later: a prepared XA transaction is free when its session is gone.
            pool.discard(connection)
            return
        await self._give_back(connection, pool)

    async def _begin(self) -> Connection:
        database, options = self.database, self.options
        if stand_ins:
            raise TransactionError(
                f"{database.alias!r} is inside of the one transaction of a test (the fixture `db`), where nothing can "
                "be prepared; use `db_committed`"
            )
        pool = await database.pool_for(reads=False)
        used = opening(database.kind, options)
        if self.is_xa:
            used = used._replace(begin=(*used.begin[:-1], f"XA START {self.identifier.xid}"))
        telling = self._telling
        connection = (pool.try_acquire() or await pool.acquire()) if telling is None else await telling.acquire(pool)
        try:
            if used.limits:
                cast("Any", connection).limit(options.statement_timeout, options.lock_timeout)
            if database.kind == "sqlite":
                level = (await connection.fetch("PRAGMA synchronous"))[0][0]
                if level < FULL:
                    used = used._replace(
                        begin=("PRAGMA synchronous = FULL", *used.begin),
                        restore=(*used.restore, f"PRAGMA synchronous = {int(level)}"),
                    )
            for statement in used.begin:
                await connection.script(statement)
        except BaseException:
            pool.discard(connection)
            raise
        self._pool, self._connection, self._opening = pool, connection, used
        if telling is not None:
            self._connection = connection = telling.begun(connection)
        return connection


async def end_prepared(connection: Connection, kind: str, identifier: GlobalId, *, commit: bool) -> Ended:
    """Commit or roll back a prepared transaction.

    Args:
        connection: to its database, outside of a transaction; or the one that prepared it.
        kind: of the database.
        identifier: which.
        commit: whether to commit.

    Returns:
        `gone` where the server knows of none, or one of another session holds it (XA).

    Raises:
        DatabaseError: what else the server says.
    """
    verb = "COMMIT" if commit else "ROLLBACK"
    try:
        if kind == "postgresql":
            await connection.script(f"{verb} PREPARED '{identifier.text}'")
        else:
            await connection.script(f"XA {verb} {identifier.xid}")
    except DatabaseError as error:
        if error.code == NOTHING_WRITTEN:
            return "done"
        if error.code in UNKNOWN_ID:
            return "gone"
        raise
    return "done"


async def fate(connection: Connection, number: str) -> str:
    """What became of a transaction of PostgreSQL, by the number that it gave to it: `committed`, `aborted`, `in
    progress`; empty where it is too long ago.

    Raises:
        DatabaseError: what the server says.
    """
    if not number:
        return ""
    try:
        rows = await connection.fetch("SELECT pg_xact_status($1::text::xid8)", [number])
    except DatabaseError as error:
        if error.code != "22023":
            raise
        # A number that this server has not given yet: it is another one than it was.
        return ""
    return rows[0][0] or ""


async def list_prepared(connection: Connection, kind: str) -> list[tuple[GlobalId, float | None]]:
    """The prepared transactions of Covet that a session can see, each with its age in seconds, where the server tells
    it: those of the database (PostgreSQL), or of the server (MySQL, MariaDB).

    Raises:
        DatabaseError: what the server says.
    """
    if kind == "postgresql":
        rows = await connection.fetch(
            "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts WHERE "
            "database = current_database()"
        )
        found = [(GlobalId.parse(gid), age) for gid, age in rows]
    else:
        rows = await connection.fetch("XA RECOVER")
        found = [(GlobalId.parse_xa(number, length, data), None) for number, length, _, data in rows]
    return [(identifier, age) for identifier, age in found if identifier is not None]
