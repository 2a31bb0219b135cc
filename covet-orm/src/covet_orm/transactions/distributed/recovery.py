"""Recovery: what became of distributed transactions whose coordinator did not come to their end.

Whoever runs it asks every database for what is prepared there, and every log for what was decided. A decision is told
to who does not know it. Where there is none, and the transaction is older than a time that coordinators should keep,
abort is decided: by a row of the log, so that a coordinator that lives after all is refused. Several processes may run
it at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from covet_orm.databases import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import DatabaseError, OrmError, TransactionError
from covet_orm.transactions.distributed.blocks import KEPT
from covet_orm.transactions.distributed.branches import end_prepared, fate, list_prepared
from covet_orm.transactions.distributed.decisions import Decision, DecisionLog
from covet_orm.transactions.distributed.identifiers import GlobalId
from covet_orm.transactions.distributed.telling import tell_recovered

__all__ = ["OLD", "InDoubt", "State", "forget", "in_doubt", "keep_recovering", "recover"]

logger = logging.getLogger("covet_orm.transactions")

OLD = 60.0
"""Seconds after which a transaction without a decision is taken for abandoned."""

State = Literal[
    "undecided", "commit", "abort", "log unknown", "mixed", "committed", "rolled back", "held", "unreachable"
]
"""What a transaction is in.

- `undecided`, `commit`, `abort`: it is prepared, and the log says so.
- `log unknown`: it is prepared, and none of the databases has its log.
- `mixed`: it is committed, and somebody had rolled back this participant by hand.
- `committed`, `rolled back`: recovery has just done that.
- `held`: recovery would, but the session that prepared it is still there (MySQL, MariaDB), or somebody is at it.
- `unreachable`: the database cannot be asked.
"""


class InDoubt(NamedTuple):
    """One participant's part of a distributed transaction, as recovery finds it.

    Attributes:
        database: the alias of the database that was asked.
        transaction: which; empty for a database that is unreachable.
        application: whose it is.
        participant: the alias that the database has where the transaction began.
        log: the alias of the database of its log; empty where it is unknown.
        age: seconds since it was prepared, or begun, where the server does not tell.
        state: what it is in.
    """

    database: str
    transaction: str
    application: str
    participant: str
    log: str
    age: float
    state: State


class _Found:
    """What databases and their logs tell, each over a connection of its own."""

    def __init__(self) -> None:
        self.connections: dict[Database, Connection] = {}
        self.refused: dict[Database, OrmError] = {}
        self.logs: dict[str, tuple[DecisionLog, dict[str, Decision]]] = {}
        self.prepared: list[tuple[Database, GlobalId, float]] = []

    async def close(self) -> None:
        for connection in self.connections.values():
            await connection.close()


async def in_doubt(*databases: Database) -> list[InDoubt]:
    """What is prepared in some databases, and what recovery would do about it; and what needs people.

    Args:
        databases: those that take part, and those that hold logs.
    """
    found = _Found()
    try:
        await _look(found, databases)
        listed = [_entry(found, *one) for one in found.prepared]
        return [*listed, *_mixed(found), *_unreachable(found)]
    finally:
        await found.close()


async def recover(*databases: Database, older_than: float = OLD) -> list[InDoubt]:
    """Bring the distributed transactions of some databases to their end, and forget the decisions that all were told
    of and that are a day old.

    Args:
        databases: those that take part, and those that hold logs.
        older_than: seconds after which a transaction without a decision is aborted. No harm is done by too few but that
            a slow coordinator is refused.

    Returns:
        What was prepared, with what it is in now; and what needs people.

    Cancelled, it has ended some of them, and the next one goes on.
    """
    found = _Found()
    try:
        await _look(found, databases)
        done = [await _resolve(found, *one, older_than) for one in found.prepared]
        left = {entry.transaction for entry in done if entry.state not in ("committed", "rolled back")}
        await _review(found, left)
        told = [*done, *_mixed(found), *_unreachable(found)]
        tell_recovered(told)
        return told
    finally:
        await found.close()


async def forget(transaction: str, *databases: Database) -> InDoubt:
    """Remove the decision on a transaction that is `mixed`, when people have seen to it; what it was.

    Args:
        transaction: its 32 hexadecimal digits.
        databases: as of `recover`.

    Raises:
        TransactionError: none of their logs has such a decision; or it is needed yet: it is not mixed, or a part of the
            transaction is still prepared.
        DatabaseError: what the database of the log says.
    """
    found = _Found()
    try:
        await _look(found, databases)
        for entry in _mixed(found):
            if entry.transaction != transaction:
                continue
            prepared = [database.alias for database, one, _ in found.prepared if one.transaction == transaction]
            if prepared:
                raise TransactionError(
                    f"{transaction} is still prepared in {', '.join(prepared)}, and would be taken for rolled back "
                    "there: recover it first"
                )
            log = next(log for log, _ in found.logs.values() if log.database.alias == entry.log)
            await log.forget(found.connections[log.database], [transaction])
            return entry
        raise TransactionError(_not_mixed(found, transaction))
    finally:
        await found.close()


async def keep_recovering(databases: Sequence[Database], *, every: float = OLD, older_than: float = OLD) -> None:
    """Recover now and again until it is cancelled; what it does, and what it cannot, is logged.

    Args:
        databases: as of `recover`.
        every: seconds between two times.
        older_than: as of `recover`.
    """
    while True:
        try:
            for entry in await recover(*databases, older_than=older_than):
                level = logging.INFO if entry.state in ("committed", "rolled back", "undecided") else logging.WARNING
                logger.log(
                    level, "distributed transaction %s in %s: %s", entry.transaction, entry.database, entry.state
                )
        except OrmError as error:
            logger.warning("the recovery of distributed transactions is tried again later: %s", error)
        await asyncio.sleep(every)


async def _look(found: _Found, databases: Sequence[Database]) -> None:
    """The logs first: what has no row in one that is read before cannot be missing from the lists for that reason."""
    for database in databases:
        try:
            connection = found.connections[database] = await database.connect()
            database.kind = database._driver.kind
            log = DecisionLog.of(database)
            content = await log.read(connection)
        except OrmError as error:
            found.refused[database] = error
            continue
        if content is not None:
            found.logs[content[0]] = (log, content[1])
    seen: set[GlobalId] = set()
    for database, connection in found.connections.items():
        if database.kind == "sqlite" or database in found.refused:
            continue
        try:
            for identifier, age in await list_prepared(connection, database.kind):
                # One server may be listed by several databases (MySQL, MariaDB).
                if identifier not in seen:
                    seen.add(identifier)
                    told = max(0.0, time.time() - identifier.began) if age is None else age
                    found.prepared.append((database, identifier, told))
        except DatabaseError as error:
            found.refused[database] = error


def _entry(found: _Found, database: Database, identifier: GlobalId, age: float, state: State | None = None) -> InDoubt:
    log, decisions = found.logs.get(identifier.log, (None, {}))
    decision = decisions.get(identifier.transaction)
    if state is None:
        if log is None:
            state = "log unknown"
        elif decision is None:
            state = "undecided"
        else:
            state = "abort" if decision.verdict == "abort" else "commit"
    return InDoubt(
        database.alias, identifier.transaction, identifier.application, identifier.participant,
        "" if log is None else log.database.alias, age, state,
    )  # fmt: skip


async def _resolve(found: _Found, database: Database, identifier: GlobalId, age: float, older_than: float) -> InDoubt:
    entry = _entry(found, database, identifier, age)
    if entry.state == "log unknown" or (entry.state == "undecided" and age < older_than):
        return entry
    log, decisions = found.logs[identifier.log]
    connection = found.connections[database]
    try:
        decision = decisions.get(identifier.transaction)
        if decision is None:
            decision = await log.settle(identifier.transaction, identifier.application)
            decisions[identifier.transaction] = decision
        commit = decision.verdict != "abort"
        ended = await end_prepared(connection, database.kind, identifier, commit=commit)
        if ended == "gone" and identifier in [one for one, _ in await list_prepared(connection, database.kind)]:
            return entry._replace(state="held")
    except DatabaseError as error:
        logger.warning("%s in %s is to be tried again: %s", identifier.text, database.alias, error)
        return entry._replace(state="held")
    return entry._replace(state="committed" if commit else "rolled back")


async def _review(found: _Found, left: set[str]) -> None:
    """Look at the decisions whose transactions are prepared nowhere: who did otherwise is noted, the old are
    forgotten."""
    reached = {database.alias: database for database in found.connections if database not in found.refused}
    for log, decisions in found.logs.values():
        connection = found.connections[log.database]
        for transaction, decision in list(decisions.items()):
            if transaction in left or decision.verdict == "mixed" or not decision.participants.keys() <= reached.keys():
                continue
            for alias, number in decision.participants.items():
                if not number or reached[alias].kind != "postgresql":
                    continue
                if await fate(found.connections[reached[alias]], number) == "aborted":
                    await log.mark_mixed(connection, transaction)
                    decisions[transaction] = decision._replace(verdict="mixed")
                    break
            else:
                if time.time() - decision.written > KEPT:
                    await log.forget(connection, [transaction])


def _mixed(found: _Found) -> list[InDoubt]:
    return [
        InDoubt(
            log.database.alias, decision.transaction, decision.application, ", ".join(decision.participants),
            log.database.alias, time.time() - decision.written, "mixed",
        )
        for log, decisions in found.logs.values()
        for decision in decisions.values()
        if decision.verdict == "mixed"
    ]  # fmt: skip


def _not_mixed(found: _Found, transaction: str) -> str:
    for log, decisions in found.logs.values():
        if transaction in decisions:
            return (
                f"the decision on {transaction} in {log.database.alias!r} is {decisions[transaction].verdict!r}, and "
                "recovery may need it; it is forgotten by itself when that is over"
            )
    refused = ", ".join(database.alias for database in found.refused)
    return f"there is no decision on {transaction!r} in any log" + (f"; not reached: {refused}" if refused else "")


def _unreachable(found: _Found) -> list[InDoubt]:
    for database, error in found.refused.items():
        logger.warning("%s cannot be asked for what is prepared there: %s", database.alias, error)
    return [InDoubt(database.alias, "", "", "", "", 0.0, "unreachable") for database in found.refused]
