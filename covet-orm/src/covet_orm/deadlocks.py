"""What servers tell of a deadlock: who took part in it, what each waited for, and whom it waited for.

PostgreSQL tells it with the error. MariaDB and MySQL keep a report of the latest one, which whoever has the privilege
PROCESS may ask for. What the others ran is asked for on the connection of the transaction that was ended, after its
rollback, and only where that is not forbidden: the error is raised in any case.

Sources: PostgreSQL, section 13.3.4 (deadlocks) and 27.2.3 (pg_stat_activity); MySQL 8.0 Reference Manual, section
17.17.3 (InnoDB standard monitor); MariaDB, SHOW ENGINE INNODB STATUS.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.transactions.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from asyncio import CancelledError

    from covet_orm.exceptions import DeadlockDetected

__all__ = ["DeadlockParticipant", "explain", "of_innodb", "of_postgresql"]

PATIENCE = 1.0
"""Seconds that asking may take; then the connection is cut."""
INTERVAL = 1.0
"""Seconds between two questions of this process: where deadlocks come in crowds, the answers are alike, and a report of
InnoDB is expensive."""

HIDDEN = "<insufficient privilege>"
NUMBER = re.compile(r"\d+")
WAIT = re.compile(r"Process (\d+) waits for (.+); blocked by process (\d+)\.")
TRANSACTION = re.compile(r"on transaction (\d+)$")
RELATION = re.compile(r"\brelation (\d+) of database \d+")
IN_RELATION = re.compile(r' in relation "((?:[^"]|"")*)"')
OTHERS = """
    SELECT 'session', pid::int8, query, backend_xid::text FROM pg_catalog.pg_stat_activity WHERE pid = ANY ($1::int4[])
    UNION ALL
    SELECT 'relation', oid::int8, relname::text, NULL FROM pg_catalog.pg_class WHERE oid = ANY ($2::oid[])"""

IDENTIFIER = r"`(?:[^`]|``)*`"
REPORT = "LATEST DETECTED DEADLOCK\n"
PART = re.compile(r"^\*\*\* \((\d+)\) TRANSACTION:$", re.MULTILINE)
ROLLED_BACK = re.compile(r"^\*\*\* WE ROLL BACK TRANSACTION \((\d+)\)", re.MULTILINE)
THREAD = re.compile(r"^(?:MySQL|MariaDB) thread id (\d+),.*\n", re.MULTILINE)
BEGUN = re.compile(r"^TRANSACTION (\d+),", re.MULTILINE)
SECTION = re.compile(
    r"^\*\*\* (?:\(\d+\) )?(WAITING FOR|HOLDS|CONFLICTING)[^\n]*\n((?:(?!\*\*\* )[^\n]*\n)*)", re.MULTILINE
)
LOCK = re.compile(
    r"^(?:RECORD LOCKS (?P<page>space id \d+ page no \d+) n bits \d+ index (?P<index>.+?) of table"
    rf"|TABLE LOCK table) (?P<table>{IDENTIFIER}(?:\.{IDENTIFIER})?)(?: /\*.*?\*/)? trx id (?P<trx>\d+) "
    r"lock[_ ]mode (?P<mode>.+?)(?: waiting)?$",
    re.MULTILINE,
)

asked_at = float("-inf")


class DeadlockParticipant(NamedTuple):
    """One of the transactions that waited for each other.

    Attributes:
        server_id: the server's name for its connection: a process (PostgreSQL) or a thread (MySQL, MariaDB).
        waits_for: the lock, in the words of the server.
        blocked_by: the connections that hold it.
        table: the table that the lock is of, where it is known.
        statement: what it waited in, where it is known. Of this transaction it is the `statement` of the error. Of
            others, MySQL and MariaDB show it with its values; PostgreSQL shows what was sent, shortly after the
            deadlock, and only as long as the same transaction runs.
    """

    server_id: int
    waits_for: str = ""
    blocked_by: tuple[int, ...] = ()
    table: str = ""
    statement: str = ""


def of_postgresql(detail: str, statement: str = "", context: str = "") -> tuple[DeadlockParticipant, ...]:
    """What PostgreSQL tells with the error; the transaction that it ended is the first.

    Args:
        detail: the error's detail: a line for each participant.
        statement: what was ended.
        context: the error's context, which names the table that it was about.
    """
    found: list[DeadlockParticipant] = []
    for line in detail.splitlines():
        told = WAIT.fullmatch(line.strip())
        if told is not None:
            found.append(DeadlockParticipant(int(told[1]), told[2], (int(told[3]),)))
            continue
        # In another language (lc_messages), the numbers are where they are in English, and the words are not.
        numbers = [int(number) for number in NUMBER.findall(line)]
        if len(numbers) > 1:
            found.append(DeadlockParticipant(numbers[0], "", (numbers[-1],)))
    if not found or {one.server_id for one in found} != {other for one in found for other in one.blocked_by}:
        # It would be a circle.
        return ()
    table = IN_RELATION.search(context)
    found[0] = found[0]._replace(statement=statement, table=table[1].replace('""', '"') if table else "")
    return tuple(found)


def of_innodb(status: str, server_id: int | None, statement: str = "") -> tuple[DeadlockParticipant, ...]:
    """What InnoDB tells of the latest deadlock; the transaction that it ended is the first. Nothing when that was not
    this one, since there was another deadlock meanwhile.

    Args:
        status: the text of `SHOW ENGINE INNODB STATUS`.
        server_id: the connection whose transaction was ended.
        statement: what was ended, without its values.
    """
    report = status.partition(REPORT)[2]
    ended = ROLLED_BACK.search(report)
    if ended is None:
        return ()
    parts = PART.split(report[: ended.start()] + "\n")[1:]
    threads: dict[str, int] = {}
    told: list[tuple[str, str, str]] = []
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        thread, begun = THREAD.search(text), BEGUN.search(text)
        if thread is None or begun is None:
            return ()
        threads[begun[1]] = int(thread[1])
        told.append((number, begun[1], text))
    holders = [
        (lock["page"], lock["table"], threads[lock["trx"]])
        for _, _, text in told
        for kind, body in SECTION.findall(text)
        if kind != "WAITING FOR" and (lock := LOCK.search(body)) is not None and lock["trx"] in threads
    ]
    found = [
        (number == ended[1], _of_thread(threads[trx], text, holders, set(threads.values())))
        for number, trx, text in told
    ]
    mine = [one._replace(statement=statement or one.statement) for is_ended, one in found if is_ended]
    if not mine or mine[0].server_id != server_id:
        return ()
    return (mine[0], *(one for is_ended, one in found if not is_ended))


def _of_thread(
    thread: int, text: str, holders: list[tuple[str | None, str, int]], all_of_them: set[int]
) -> DeadlockParticipant:
    """A part of InnoDB's report."""
    said = THREAD.search(text)
    assert said is not None
    statement = text[said.end() :].partition("\n*** ")[0].strip()
    lock = next((LOCK.search(body) for kind, body in SECTION.findall(text) if kind == "WAITING FOR"), None)
    others = all_of_them - {thread}
    if lock is None:
        return DeadlockParticipant(thread, "", tuple(others) if len(others) == 1 else (), "", statement)
    holding = {
        holder for page, table, holder in holders if (page, table) == (lock["page"], lock["table"]) and holder != thread
    }
    if not holding and len(others) == 1:
        # Servers before MySQL 8.0 and MariaDB 10.6 tell it of one of the two.
        holding = others
    names = [name[1:-1].replace("``", "`") for name in re.findall(IDENTIFIER, lock["table"])]
    where = f"index {lock['index']} of table" if lock["index"] else "table"
    return DeadlockParticipant(
        thread, f"lock mode {lock['mode']} on {where} {'.'.join(names)}", tuple(sorted(holding)), names[-1], statement
    )


async def explain(connection: Connection, kind: str, error: DeadlockDetected) -> CancelledError | None:
    """Ask who took part in a deadlock, and note it in the error; the cancellation that came meanwhile.

    Does nothing where the user may not ask, where the connection is not at rest, or where this process asked less than
    a second ago. It takes a second at most, and raises nothing.

    Args:
        connection: that of the transaction that was ended, after its rollback.
        kind: of the database.
        error: what is told of.
    """
    global asked_at
    if connection.state is not SessionState.IDLE or kind == "sqlite" or monotonic() - asked_at < INTERVAL:
        return None
    asked_at = monotonic()
    asking = _ask_postgresql(connection, error) if kind == "postgresql" else _ask_innodb(connection, error)
    # What fails here is not what the caller is to hear of; a connection that broke is given up by its pool.
    outcome = await uninterrupted(asking, cut=connection.terminate, patience=PATIENCE, hurried=True)
    return outcome.cancelled


async def _ask_postgresql(connection: Connection, error: DeadlockDetected) -> None:
    participants = error.participants
    if not participants:
        return
    transactions = {
        other: told[1]
        for one in participants
        if (told := TRANSACTION.search(one.waits_for)) is not None
        for other in one.blocked_by
    }
    oids = {int(oid) for one in participants for oid in RELATION.findall(one.waits_for)}
    rows = await connection.fetch(OTHERS, ([one.server_id for one in participants[1:]], list(oids)))
    tables: dict[int, str] = {}
    statements: dict[int, str] = {}
    for what, number, text, transaction in rows:
        if what == "relation":
            tables[number] = text
        elif text and text != HIDDEN and transactions.get(number) in (None, transaction):
            statements[number] = text
    error.participants = tuple(
        _named(one, tables)._replace(statement=one.statement or statements.get(one.server_id, ""))
        for one in participants
    )


def _named(one: DeadlockParticipant, tables: dict[int, str]) -> DeadlockParticipant:
    """With the name of the table in place of its number."""
    told = RELATION.search(one.waits_for)
    name = tables.get(int(told[1])) if told is not None else None
    if told is None or name is None:
        return one
    words = f"{one.waits_for[: told.start()]}relation {name}{one.waits_for[told.end() :]}"
    return one._replace(waits_for=words, table=one.table or name)


async def _ask_innodb(connection: Connection, error: DeadlockDetected) -> None:
    rows = await connection.fetch("SHOW ENGINE INNODB STATUS")
    error.participants = of_innodb(str(rows[0][2]), connection.server_id, error.statement) if rows else ()
