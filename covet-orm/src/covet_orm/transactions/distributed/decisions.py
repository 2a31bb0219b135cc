"""The log of decisions: a table, `covet_2pc`, whose primary key makes a decision once and for all.

Who commits a distributed transaction inserts its row; who finds a prepared one without a row, and would presume that it
was aborted, inserts a row that says so. The one who comes second is refused by the key, and reads what the first one
decided. So nobody need know whether a coordinator still lives: one that was believed to be dead can commit no more.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast
from weakref import WeakKeyDictionary

import sqlalchemy
from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text, bindparam
from sqlalchemy.sql import ClauseElement

from covet.context import current_app
from covet.exceptions import NoApplicationError
from covet_orm.databases import Database
from covet_orm.dialects import Compiled, compile_statement
from covet_orm.drivers.protocol import Connection, Row
from covet_orm.exceptions import ProgrammingError, UniqueViolation
from covet_orm.store_tables import MISSING, StoreTable, all_or_nothing
from covet_orm.transactions.options import begin_statement

__all__ = ["TABLE", "Decision", "DecisionLog", "Verdict"]

logger = logging.getLogger("covet_orm.transactions")
TABLE = "covet_2pc"
"""The name of the table."""
IDENTITY = "identity"
BATCH = 20
"""How many decisions are forgotten at a time."""

Verdict = Literal["commit", "abort", "mixed"]
"""What was decided; `mixed`: commit, and a participant was rolled back by somebody else."""


class Decision(NamedTuple):
    """A row of the log.

    Attributes:
        transaction: which.
        verdict: what was decided.
        written: seconds since the epoch, by the clock of who wrote it.
        application: whose transaction it is.
        participants: the aliases of those to be told of a commit, each with the number that PostgreSQL gave to its
            part, empty where there is none.
    """

    transaction: str
    verdict: Verdict
    written: float
    application: str
    participants: Mapping[str, str]


class DecisionStatements:
    """The statements of the log."""

    def __init__(self, kind: str, table: Table) -> None:
        self.kind = kind
        self.table = table

    def find(self) -> ClauseElement:
        """One row."""
        return sqlalchemy.select(*self.table.c).where(self.table.c.id == self._parameter("id"))

    def everything(self) -> ClauseElement:
        """All rows."""
        return sqlalchemy.select(*self.table.c).order_by(self.table.c.id)

    def write(self) -> ClauseElement:
        """Add a row."""
        return self.table.insert().values({column.name: self._parameter(column.name) for column in self.table.c})

    def mark(self) -> ClauseElement:
        """Give a row another verdict."""
        return (
            self.table.update()
            .where(self.table.c.id == self._parameter("key"))
            .values(decision=self._parameter("decision"))
        )

    def forget(self, count: int) -> ClauseElement:
        """Remove rows."""
        column = self.table.c.id
        ids = [bindparam(f"id_{number}", type_=column.type, required=True) for number in range(count)]
        return self.table.delete().where(column.in_(ids))

    def _parameter(self, name: str) -> Any:
        column = self.table.c["id" if name == "key" else name]
        return bindparam(name, type_=column.type, required=True)


def define(name: str, kind: str) -> Table:
    """The table."""
    return Table(
        name,
        MetaData(),
        Column("id", String(32), primary_key=True),
        Column("decision", String(8), nullable=False),
        Column("written", BigInteger, nullable=False),
        Column("application", String(31), nullable=False),
        Column("participants", Text, nullable=False),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        mysql_charset="ascii",
        mariadb_charset="ascii",
    )


class DecisionLog:
    """The log in a database. There is one for each: `DecisionLog.of(database)`.

    Args:
        database: where it is.
        create_table: whether the table is made when it is missing.

    Attributes:
        finished: decisions of this process that everybody was told of; they are removed with a later one, so that it
            costs no commit.
    """

    _logs: WeakKeyDictionary[Database, DecisionLog] = WeakKeyDictionary()

    def __init__(self, database: Database, *, create_table: bool) -> None:
        self.database = database
        self.create_table = create_table
        self.finished: set[str] = set()
        self._store: StoreTable | None = None
        self._compiled: dict[tuple[Any, ...], Compiled] = {}
        self._identity = ""

    @classmethod
    def of(cls, database: Database, *, create_table: bool | None = None) -> DecisionLog:
        """The one of a database.

        Args:
            database: where it is.
            create_table: whether the table is made when it is missing; by default in debug mode, and in programs
                without an application.
        """
        log = cls._logs.get(database)
        if log is None:
            log = cls._logs[database] = cls(database, create_table=_creates() if create_table is None else create_table)
        return log

    def declare(self) -> None:
        """Let `create_all` and `covet db create` make the table from now on."""
        self._table()

    def _table(self) -> StoreTable:
        """The table; not before it is needed, as `create_all` makes it from then on."""
        if self._store is None:
            self._store = StoreTable(
                self.database, TABLE, DecisionStatements, define, what="the log of two-phase commit",
                create=self.create_table,
            )  # fmt: skip
        return self._store

    async def identity(self) -> str:
        """What it is called in the names of prepared transactions, so that nobody takes another log for it. It is
        asked for once in a process.

        Raises:
            StoreTableMissing: the table is not there.
            DatabaseError: the database cannot be reached.
        """
        if not self._identity:
            store = self._table()
            rows = await store.fetch(("find",), {"id": IDENTITY})
            if not rows:
                try:
                    await store.execute(("write",), _row(IDENTITY, IDENTITY, "", secrets.token_hex(6)))
                except UniqueViolation as error:
                    logger.debug("another process was first to name the log: %s", error)
                rows = await store.fetch(("find",), {"id": IDENTITY})
            self._identity = rows[0][4]
        return self._identity

    async def write(
        self, connection: Connection, transaction: str, verdict: Verdict, application: str, told: Mapping[str, str]
    ) -> None:
        """Write a decision inside of the transaction of a connection, whose commit makes it hold.

        Raises:
            UniqueViolation: there is one already.
            DatabaseError: what the database says.
        """
        if self.database.kind == "postgresql":
            # A commit that is acknowledged before it is on the disk decides nothing; a stricter setting stays.
            await connection.execute(
                "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = "
                "'off'"
            )
        participants = json.dumps(dict(told), separators=(",", ":"))
        await self.forget_finished(connection)
        await self._execute(connection, ("write",), _row(transaction, verdict, application, participants))

    async def decide(self, transaction: str, verdict: Verdict, application: str, told: Mapping[str, str]) -> None:
        """Write a decision in a transaction of its own. Raises what `write` raises."""
        # Connections of participants are held meanwhile, by others as well.
        database = self.database
        pool = await (database.pool_for(reads=False) if database.kind == "sqlite" else database.pool_apart())
        connection = await pool.acquire()
        try:
            async with all_or_nothing(connection, begin_statement(database.kind)):
                await self.write(connection, transaction, verdict, application, told)
        finally:
            pool.release(connection)

    async def settle(self, transaction: str, application: str) -> Decision:
        """The decision on a transaction. Where there is none, it is to abort from now on, and can be no other.

        Raises:
            DatabaseError: the log cannot be reached, or the transaction that writes the decision takes its time.
        """
        for _ in range(2):
            async with self.apart() as connection:
                found = await self._find(connection, transaction)
            if found is not None:
                return found
            try:
                await self.decide(transaction, "abort", application, {})
            except UniqueViolation:
                continue
            return Decision(transaction, "abort", time.time(), application, {})
        async with self.apart() as connection:
            found = await self._find(connection, transaction)
        if found is None:
            raise ProgrammingError(f"the decision on {transaction} was removed from {TABLE} while it was asked for")
        return found

    async def read(self, connection: Connection) -> tuple[str, dict[str, Decision]] | None:
        """The identity of the log and all that it holds; None where the table is not there, or was never used.

        Raises:
            DatabaseError: what the database says.
        """
        try:
            rows = await self._fetch(connection, ("everything",), {})
        except ProgrammingError as error:
            if error.code not in MISSING and "no such table" not in str(error):
                raise
            return None
        identity = next((row[4] for row in rows if row[0] == IDENTITY), None)
        if identity is None:
            return None
        return identity, {row[0]: _decision(row) for row in rows if row[0] != IDENTITY}

    async def mark_mixed(self, connection: Connection, transaction: str) -> None:
        """Note that a participant did otherwise than was decided."""
        await self._execute(connection, ("mark",), {"key": transaction, "decision": "mixed"})

    async def forget(self, connection: Connection, transactions: Sequence[str]) -> int:
        """Remove decisions that everybody was told of; how many were there."""
        values = {f"id_{number}": transaction for number, transaction in enumerate(transactions)}
        return await self._execute(connection, ("forget", len(values)), values)

    async def forget_finished(self, connection: Connection) -> None:
        """Remove those of this process, when there are enough of them, inside of the transaction of a connection."""
        if len(self.finished) < BATCH:
            return
        batch = sorted(self.finished)[:BATCH]
        await self.forget(connection, batch)
        # Where this is rolled back, recovery removes them, when they are old.
        self.finished.difference_update(batch)

    def apart(self) -> Apart:
        """A connection that waits for nobody."""
        return Apart(self.database)

    async def _find(self, connection: Connection, transaction: str) -> Decision | None:
        rows = await self._fetch(connection, ("find",), {"id": transaction})
        return _decision(rows[0]) if rows else None

    async def _fetch(self, connection: Connection, name: tuple[Any, ...], values: Mapping[str, Any]) -> list[Row]:
        compiled = self._statement(name)
        return await connection.fetch(compiled.sql, compiled.parameters(values))

    async def _execute(self, connection: Connection, name: tuple[Any, ...], values: Mapping[str, Any]) -> int:
        compiled = self._statement(name)
        return await connection.execute(compiled.sql, compiled.parameters(values))

    def _statement(self, name: tuple[Any, ...]) -> Compiled:
        found = self._compiled.get(name)
        if found is None:
            kind = self.database.kind
            statement = getattr(DecisionStatements(kind, define(TABLE, kind)), name[0])(*name[1:])
            found = self._compiled[name] = compile_statement(statement, kind)
        return found


class Apart:
    """A connection of its own for a while: no pool that is full stands in the way."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        self._connection = await self._database.connect()
        return self._connection

    async def __aexit__(self, *args: object) -> None:
        assert self._connection is not None
        await self._connection.close()


def _row(transaction: str, decision: str, application: str, participants: str) -> dict[str, Any]:
    return {
        "id": transaction,
        "decision": decision,
        "written": time.time_ns() // 1_000_000,
        "application": application,
        "participants": participants,
    }


def _decision(row: Row) -> Decision:
    return Decision(row[0], cast("Verdict", row[1]), row[2] / 1000, row[3], json.loads(row[4]))


def _creates() -> bool:
    """Whether the table is made when it is missing: in debug mode, and in programs without an application."""
    try:
        return current_app().settings.app.debug
    except NoApplicationError:
        return True
