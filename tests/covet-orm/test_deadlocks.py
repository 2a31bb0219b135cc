"""Deadlocks: what is told of them, trying again, who waits for whom, and code that invites them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.services.databases import SERVERS, ask
from tests.services.databases import Database as Server
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

import covet_orm.plugin
from covet import Covet, hookimpl
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await
from covet_orm import (
    Database,
    DeadlockDetected,
    IntegerField,
    LockTimeout,
    Model,
    Registry,
    deadlocks,
    transaction_manager,
)
from covet_orm.commands.waits import Session, tree, waits_of
from covet_orm.deadlocks import DeadlockParticipant, explain, of_innodb, of_postgresql
from covet_orm.drivers.protocol import SessionState
from covet_orm.transactions import lock_order
from covet_orm.transactions.lock_order import LockOrderFound, LockOrderWarning, locked_tables
from covet_orm.transactions.retrying import exponential

registry = Registry()
COVET = str(Path(sys.executable).with_name("covet"))
on_servers = pytest.mark.parametrize("server", SERVERS, indirect=True)


class Stock(Model):
    count = IntegerField(default=0)

    class Meta:
        registry = registry
        db_table = "stock"


class Order(Model):
    count = IntegerField(default=0)

    class Meta:
        registry = registry
        db_table = "orders"


class Bill(Model):
    count = IntegerField(default=0)

    class Meta:
        registry = registry
        db_table = "bills"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=5) as database:
        await database.create_all(registry)
        for model in (Stock, Order, Bill):
            await model.objects.create(id=1)
        yield database


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test may ask, however short ago the one before did."""
    monkeypatch.setattr(deadlocks, "asked_at", float("-inf"))


def at_rest(database: Database) -> bool:
    return all(pool.stats.in_use == 0 for pool in database.pools())


class Meeting:
    """Where two tasks wait for each other, once each."""

    def __init__(self) -> None:
        self.barrier = asyncio.Barrier(2)
        self.met: set[object] = set()

    async def once(self, who: object) -> None:
        if who not in self.met:
            self.met.add(who)
            await self.barrier.wait()


async def both(database: Database, first: type[Model], second: type[Model], meeting: Meeting) -> None:
    """Write to one table, and when the other task has done so as well, to the other one."""
    async with transaction_manager.atomic(database):
        await first.objects.filter(id=1).update(count=1)
        await meeting.once(asyncio.current_task())
        await second.objects.filter(id=1).update(count=2)


async def deadlock(database: Database) -> DeadlockDetected:
    """A deadlock of two tasks."""
    meeting = Meeting()
    outcomes = await asyncio.gather(
        both(database, Stock, Order, meeting), both(database, Order, Stock, meeting), return_exceptions=True
    )
    (error,) = [one for one in outcomes if one is not None]
    assert isinstance(error, DeadlockDetected), error
    return error


# Trying again


@pytest.mark.anyio
@on_servers
async def test_a_deadlock_of_two_tasks_is_tried_again_and_both_are_done(database: Database) -> None:
    """The example of the documentation."""
    meeting = Meeting()
    attempts: list[str] = []

    @transaction_manager.retry(max_attempts=3, backoff=exponential)
    async def move(first: type[Model], second: type[Model]) -> None:
        attempts.append(first.__name__)
        async with transaction_manager.atomic():
            for model in (first, second):
                row = await model.objects.select_for_update().get(id=1)
                row.count += 1  # type: ignore[attr-defined]
                await row.save()
                await meeting.once(asyncio.current_task())

    await asyncio.gather(move(Stock, Order), move(Order, Stock))
    assert len(attempts) == 3, "one of the two had to be tried again"
    assert (await Stock.objects.get(id=1)).count == (await Order.objects.get(id=1)).count == 2
    assert at_rest(database)


# What is told


@pytest.mark.anyio
@on_servers
async def test_who_took_part_is_told(database: Database) -> None:
    connections: list[int | None] = []
    meeting = Meeting()

    async def one(first: type[Model], second: type[Model]) -> None:
        async with transaction_manager.atomic(database):
            async with database.connection() as connection:
                connections.append(connection.server_id)
            await first.objects.filter(id=1).update(count=1)
            await meeting.once(asyncio.current_task())
            await second.objects.filter(id=1).update(count=2)
            # The other one is asked for in this moment.
            await asyncio.sleep(0.5)

    outcomes = await asyncio.gather(one(Stock, Order), one(Order, Stock), return_exceptions=True)
    (error,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(error, DeadlockDetected)
    place = outcomes.index(error)
    wanted = ("orders", "stock")[place]
    mine, other = error.participants
    assert mine.server_id == connections[place]
    assert other.server_id == connections[1 - place]
    assert (mine.blocked_by, other.blocked_by) == ((other.server_id,), (mine.server_id,))
    assert mine.table == wanted
    assert mine.statement == error.statement
    assert re.match(rf"UPDATE [`\"]?{wanted}\b", mine.statement)
    assert re.match(rf"UPDATE [`\"]?{'stock' if wanted == 'orders' else 'orders'}\b", other.statement)
    assert error.locks == (mine.waits_for, other.waits_for)
    assert ("transaction" if database.kind == "postgresql" else f"index PRIMARY of table test.{wanted}") in error.locks[
        0
    ]
    assert str(error).startswith("a deadlock; ")
    assert "retry()" in str(error)
    assert len(str(error)) < 250
    assert at_rest(database)


@pytest.mark.anyio
@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
async def test_whoever_may_not_ask_is_told_of_the_deadlock_alone(
    server: Server, mariadb: MariaDB, database: Database
) -> None:
    mariadb.execute("CREATE OR REPLACE USER clerk@'%' IDENTIFIED BY 'secret'")
    mariadb.execute("GRANT SELECT, UPDATE ON test.* TO clerk@'%'")
    async with Database(mariadb.url("test", user="clerk", password="secret")) as clerks:
        error = await deadlock(clerks)
        assert error.participants == ()
        assert error.locks == ()
        assert at_rest(clerks)


@pytest.mark.anyio
async def test_what_others_run_is_hidden_from_whom_it_is_hidden(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    postgresql.execute("DROP ROLE IF EXISTS clerk")
    postgresql.execute("CREATE ROLE clerk LOGIN PASSWORD 'secret'")
    async with (
        Database(url) as database,
        Database(postgresql.url("test", user="clerk", password="secret"), alias="clerk") as clerks,
    ):
        await database.create_all(registry)
        await database.script("GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk")
        await Stock.objects.using(database).create(id=1)
        await Order.objects.using(database).create(id=1)
        barrier = asyncio.Barrier(2)

        async def waiting() -> None:
            async with database.transaction():
                # So that the other one is the one to be ended.
                await database.execute("SET LOCAL deadlock_timeout = '60s'")
                await database.execute("UPDATE orders SET count = 5")
                await barrier.wait()
                await database.execute("UPDATE stock SET count = 5")
                await asyncio.sleep(0.5)

        async def ended() -> None:
            async with clerks.transaction():
                await clerks.execute("UPDATE stock SET count = 6")
                await barrier.wait()
                await clerks.execute("UPDATE orders SET count = 6")

        _, error = await asyncio.gather(waiting(), ended(), return_exceptions=True)
        assert isinstance(error, DeadlockDetected)
        assert [one.statement for one in error.participants] == ["UPDATE orders SET count = 6", ""]
        await database.script("DROP OWNED BY clerk")
    postgresql.execute("DROP ROLE clerk")


@pytest.mark.anyio
async def test_a_table_is_told_by_its_name(postgresql: PostgreSQL) -> None:
    async with Database(postgresql.empty_database("test")) as database:
        await database.create_all(registry)
        barrier = asyncio.Barrier(2)

        async def lock(first: str, second: str) -> None:
            async with database.transaction():
                await database.execute(f"LOCK TABLE {first}")
                await barrier.wait()
                await database.execute(f"LOCK TABLE {second}")

        outcomes = await asyncio.gather(lock("stock", "orders"), lock("orders", "stock"), return_exceptions=True)
        (error,) = [one for one in outcomes if one is not None]
        assert isinstance(error, DeadlockDetected)
        assert sorted(one.table for one in error.participants) == ["orders", "stock"]
        assert sorted(error.locks) == [
            "AccessExclusiveLock on relation orders",
            "AccessExclusiveLock on relation stock",
        ]


@pytest.mark.anyio
@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
async def test_it_is_not_asked_for_again_and_again(database: Database) -> None:
    assert (await deadlock(database)).participants
    assert not (await deadlock(database)).participants


@pytest.mark.anyio
@on_servers
async def test_asking_may_be_cancelled_anywhere(database: Database) -> None:
    """The connection is at rest afterwards, or given up; the error is what it was."""
    error = DeadlockDetected("", participants=[DeadlockParticipant(1, "a lock", (2,)), DeadlockParticipant(2)])

    async def call() -> None:
        deadlocks.asked_at = float("-inf")
        pool = await database.pool_for(reads=False)
        connection = pool.try_acquire() or await pool.acquire()
        try:
            cancelled = await explain(connection, database.kind, error)
            assert connection.state in (SessionState.IDLE, SessionState.CLOSED)
        finally:
            pool.release(connection)
        if cancelled is not None:
            raise cancelled

    async def check() -> None:
        assert at_rest(database)
        assert await database.fetch_value("SELECT 1") == 1

    assert await at_every_await(call, check) > 0


@pytest.mark.anyio
@on_servers
async def test_asking_may_fail(database: Database) -> None:
    """It is on a connection that was cut meanwhile."""
    error = DeadlockDetected("", participants=[DeadlockParticipant(1, "a lock", (2,))])
    pool = await database.pool_for(reads=False)
    connection = await pool.acquire()
    identifier = connection.server_id
    end = f"SELECT pg_terminate_backend({identifier})" if database.kind == "postgresql" else f"KILL {identifier}"
    await database.query(end)
    try:
        assert await explain(connection, database.kind, error) is None
    finally:
        pool.release(connection)
    assert await database.fetch_value("SELECT 1") == 1


@pytest.mark.anyio
@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_sqlite_tells_that_somebody_else_writes(url: str) -> None:
    async with Database(url, busy_timeout=0.05) as one, Database(url, busy_timeout=0.05, alias="other") as other:
        await one.create_all(registry)
        async with one.transaction():
            await Stock.objects.using(one).create()
            with pytest.raises(LockTimeout) as caught:
                await Order.objects.using(other).create()
        assert caught.value.code == "SQLITE_BUSY"
        assert not isinstance(caught.value, DeadlockDetected)


# The words of PostgreSQL

ENGLISH = """Process 1 waits for ShareLock on transaction 5; blocked by process 2.
Process 2 waits for ExclusiveLock on tuple (0,1) of relation 16396 of database 16385; blocked by process 3.
Process 3 waits for ShareLock on transaction 4; blocked by process 1."""
GERMAN = """Prozess 1 wartet auf ShareLock-Sperre auf Transaktion 5; blockiert von Prozess 2.
Prozess 2 wartet auf ShareLock-Sperre auf Transaktion 4; blockiert von Prozess 1."""


def test_the_detail_of_postgresql_is_understood() -> None:
    found = of_postgresql(ENGLISH, "UPDATE a", 'while updating tuple (0,1) in relation "the ""a"""')
    assert found == (
        DeadlockParticipant(1, "ShareLock on transaction 5", (2,), 'the "a"', "UPDATE a"),
        DeadlockParticipant(2, "ExclusiveLock on tuple (0,1) of relation 16396 of database 16385", (3,)),
        DeadlockParticipant(3, "ShareLock on transaction 4", (1,)),
    )


def test_in_another_language_it_is_understood_who_waits_for_whom() -> None:
    assert of_postgresql(GERMAN) == (DeadlockParticipant(1, "", (2,)), DeadlockParticipant(2, "", (1,)))


@pytest.mark.parametrize("detail", ["", "Process 1 waits", "Process 1 waits for a; blocked by process 2.", "1 2 3"])
def test_what_is_no_circle_is_nothing(detail: str) -> None:
    assert of_postgresql(detail) == ()


# The words of InnoDB

MARIADB = """
------------------------
LATEST DETECTED DEADLOCK
------------------------
2026-11-26 12:53:09 0x7f75a074c6c0
*** (1) TRANSACTION:
TRANSACTION 27, ACTIVE 0 sec starting index read
mysql tables in use 1, locked 1
LOCK WAIT 4 lock struct(s), heap size 1128, 2 row lock(s), undo log entries 1
MariaDB thread id 7, OS thread handle 140143179908800, query id 18 127.0.0.1 covet Updating
UPDATE b SET n = n + 1
WHERE id = 1
*** WAITING FOR THIS LOCK TO BE GRANTED:
RECORD LOCKS space id 6 page no 3 n bits 320 index PRIMARY of table `x`.`b``c` trx id 27 lock_mode X waiting
Record lock, heap no 2 PHYSICAL RECORD: n_fields 4; compact format; info bits 0
 0: len 4; hex 80000001; asc     ;;

*** CONFLICTING WITH:
RECORD LOCKS space id 6 page no 3 n bits 320 index PRIMARY of table `x`.`b``c` trx id 28 lock_mode X
Record lock, heap no 2 PHYSICAL RECORD: n_fields 4; compact format; info bits 0
 0: len 4; hex 80000001; asc     ;;


*** (2) TRANSACTION:
TRANSACTION 28, ACTIVE 0 sec starting index read
mysql tables in use 1, locked 1
LOCK WAIT 4 lock struct(s), heap size 1128, 2 row lock(s), undo log entries 1
MariaDB thread id 8, OS thread handle 140143374063296, query id 17 127.0.0.1 covet Updating
UPDATE a SET n = n + 1 WHERE id = 1
*** WAITING FOR THIS LOCK TO BE GRANTED:
TABLE LOCK table `x`.`a` trx id 28 lock mode IX waiting
*** CONFLICTING WITH:
TABLE LOCK table `x`.`a` trx id 27 lock mode X
*** WE ROLL BACK TRANSACTION (2)
------------
TRANSACTIONS
------------
"""
MYSQL = """
------------------------
LATEST DETECTED DEADLOCK
------------------------
2024-01-31 10:00:00 140143179908800
*** (1) TRANSACTION:
TRANSACTION 1861, ACTIVE 3 sec starting index read
mysql tables in use 1, locked 1
LOCK WAIT 3 lock struct(s), heap size 1128, 2 row lock(s)
MySQL thread id 41, OS thread handle 140143179908800, query id 18 localhost root updating
DELETE FROM t WHERE i = 1

*** (1) HOLDS THE LOCK(S):
RECORD LOCKS space id 2 page no 4 n bits 72 index PRIMARY of table `test`.`u` trx id 1861 lock mode S
Record lock, heap no 2 PHYSICAL RECORD: n_fields 4; compact format; info bits 0

*** (1) WAITING FOR THIS LOCK TO BE GRANTED:
RECORD LOCKS space id 3 page no 4 n bits 72 index PRIMARY of table `test`.`t` trx id 1861 lock_mode X waiting
Record lock, heap no 2 PHYSICAL RECORD: n_fields 4; compact format; info bits 0

*** (2) TRANSACTION:
TRANSACTION 1862, ACTIVE 2 sec starting index read
mysql tables in use 1, locked 1
3 lock struct(s), heap size 1128, 2 row lock(s)
MySQL thread id 42, OS thread handle 140143374063296, query id 17 localhost root updating
DELETE FROM u WHERE i = 1

*** (2) HOLDS THE LOCK(S):
RECORD LOCKS space id 3 page no 4 n bits 72 index PRIMARY of table `test`.`t` trx id 1862 lock_mode X
Record lock, heap no 2 PHYSICAL RECORD: n_fields 4; compact format; info bits 0

*** (2) WAITING FOR THIS LOCK TO BE GRANTED:
RECORD LOCKS space id 2 page no 4 n bits 72 index PRIMARY of table `test`.`u` trx id 1862 lock_mode X waiting
Record lock, heap no 2 PHYSICAL RECORD: n_fields 4; compact format; info bits 0

*** WE ROLL BACK TRANSACTION (1)
------------
TRANSACTIONS
"""


def test_the_report_of_mariadb_is_understood() -> None:
    assert of_innodb(MARIADB, 8, "UPDATE a SET n = n + 1 WHERE id = %s") == (
        DeadlockParticipant(
            8, "lock mode IX on table x.a", (7,), "a", "UPDATE a SET n = n + 1 WHERE id = %s"
        ),
        DeadlockParticipant(
            7, "lock mode X on index PRIMARY of table x.b`c", (8,), "b`c", "UPDATE b SET n = n + 1\nWHERE id = 1"
        ),
    )  # fmt: skip


def test_the_report_of_mysql_is_understood() -> None:
    """As its manual shows it (section 17.7.5, deadlocks in InnoDB)."""
    assert of_innodb(MYSQL, 41) == (
        DeadlockParticipant(
            41, "lock mode X on index PRIMARY of table test.t", (42,), "t", "DELETE FROM t WHERE i = 1"
        ),
        DeadlockParticipant(
            42, "lock mode X on index PRIMARY of table test.u", (41,), "u", "DELETE FROM u WHERE i = 1"
        ),
    )  # fmt: skip


@pytest.mark.parametrize("thread", [7, 9, None])
def test_a_deadlock_of_others_is_none_of_ours(thread: int | None) -> None:
    """Thread 7 took part, and was not the one to be ended."""
    assert of_innodb(MARIADB, thread) == ()


def test_a_report_without_a_deadlock_is_nothing() -> None:
    assert of_innodb("", 7) == of_innodb(MARIADB[:500], 7) == ()


@given(st.data())
def test_a_report_of_any_kind_is_borne(data: st.DataObject) -> None:
    """Lines left out, doubled and mixed with anything."""
    lines = (MARIADB + MYSQL).splitlines(keepends=True)
    chosen = data.draw(st.lists(st.one_of(st.sampled_from(lines), st.text(max_size=20)), max_size=80))
    status = "LATEST DETECTED DEADLOCK\n" + "".join(chosen)
    for one in (*of_innodb(status, 7), *of_innodb(status, 42)):
        assert isinstance(one.server_id, int)


@given(st.text())
@example(ENGLISH)
@example("Process 1 waits for a; blocked by process 1.")
def test_a_detail_of_any_kind_is_borne(detail: str) -> None:
    found = of_postgresql(detail)
    assert {one.server_id for one in found} == {other for one in found for other in one.blocked_by}


# covet db locks

APPLICATION = "from covet import Covet\n\napp = Covet()\n"


@pytest.fixture
def folder(url: str, tmp_path: Path) -> Path:
    """A project with this database."""
    folder = tmp_path / "project"
    folder.mkdir()
    settings(folder, url)
    return folder


def settings(folder: Path, url: str) -> None:
    (folder / "app.py").write_text(APPLICATION)
    (folder / "covet.toml").write_text(f'[storage.default]\nurl = "{url}"\n')


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}


async def covet(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Type `covet db locks`; what it prints, and its errors."""
    process = await asyncio.create_subprocess_exec(
        COVET, "db", "locks", *arguments,
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code, errors.decode()
    assert b"Traceback" not in errors
    return out.decode(), errors.decode()


@contextmanager
def waiting(call: Callable[[], Any]) -> Iterator[asyncio.Task[None]]:
    """A task of its own, with no transaction around it."""
    with transaction_manager.independent():
        task = asyncio.ensure_future(call())
    yield task


async def waits(database: Database) -> None:
    """Wait until somebody waits for a lock."""
    async with asyncio.timeout(30):
        with transaction_manager.independent():
            # InnoDB tells the same again to whoever asks within a tenth of a second.
            while len(await waits_of(database)) < 2:  # noqa: ASYNC110 - what is waited for is in the server
                await asyncio.sleep(0.2)


@pytest.mark.anyio
@on_servers
async def test_locks_shows_who_waits_for_whom(database: Database, folder: Path) -> None:
    assert await covet(folder) == ("Nobody waits for a lock.\n", "")

    async def wait() -> None:
        await Stock.objects.filter(id=1).update(count=7)

    async with database.transaction():
        await Stock.objects.filter(id=1).update(count=6)
        async with database.connection() as connection:
            holder = connection.server_id
        with waiting(wait) as task:
            await waits(database)
            text, _ = await covet(folder)
            told = json.loads((await covet(folder, "--json"))[0])
    await task
    first, second = told
    assert (first["server_id"], first["blocked_by"], first["waited"]) == (holder, [], None)
    assert first["state"] == "idle in transaction"
    assert second["blocked_by"] == [holder]
    assert second["user"] == "covet"
    assert second["table"].endswith("stock")
    assert second["statement"].startswith("UPDATE")
    assert second["lock"]
    assert second["age"] >= 0
    assert second["waited"] >= 0
    lines = text.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{holder} covet")
    assert lines[1].startswith(f"└─ {second['server_id']} covet")
    assert f"held by {holder}: UPDATE" in lines[1]
    assert (await Stock.objects.get(id=1)).count == 7


@pytest.mark.anyio
@on_servers
async def test_locks_watches_until_it_is_interrupted(database: Database, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        COVET, "db", "locks", "--watch", "--every", "0.2", "--json",
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert [await process.stdout.readline() for _ in range(2)] == [b"[]\n"] * 2
        async with database.transaction():
            await Stock.objects.filter(id=1).update(count=6)

            async def wait() -> None:
                await Stock.objects.filter(id=1).update(count=7)

            with waiting(wait) as task:
                while len(json.loads(await process.stdout.readline())) != 2:
                    pass
        await task
        while await process.stdout.readline() != b"[]\n":
            pass
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert errors == b""


@pytest.mark.anyio
async def test_locks_shows_a_prepared_transaction(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = postgresql.empty_database("test")
    settings(tmp_path, url)
    async with Database(url) as database:
        await database.create_all(registry)
        await Stock.objects.create(id=1)
        await ask(url, "BEGIN", "UPDATE stock SET count = 1", "PREPARE TRANSACTION 'left behind'")

        async def wait() -> None:
            await Stock.objects.filter(id=1).update(count=7)

        with waiting(wait) as task:
            await waits(database)
            text, _ = await covet(tmp_path)
            await ask(url, "ROLLBACK PREPARED 'left behind'")
        await task
    first, second = text.splitlines()
    assert first == "a prepared transaction (two-phase commit), which nobody has ended yet: left behind"
    assert second.startswith("└─ ")
    assert "held by 0: UPDATE" in second


@pytest.mark.anyio
async def test_locks_tells_which_privilege_is_missing(mariadb: MariaDB, tmp_path: Path) -> None:
    mariadb.empty_database("test")
    mariadb.execute("CREATE OR REPLACE USER clerk@'%' IDENTIFIED BY 'secret'")
    mariadb.execute("GRANT SELECT ON test.* TO clerk@'%'")
    settings(tmp_path, mariadb.url("test", user="clerk", password="secret"))
    _, errors = await covet(tmp_path, code=1)
    assert "PROCESS" in errors


@pytest.mark.anyio
@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_locks_of_sqlite_says_how_to_see(database: Database, folder: Path) -> None:
    out, errors = await covet(folder)
    assert out == ""
    assert "one writes at a time" in errors
    assert "fuser" in errors
    assert json.loads((await covet(folder, "--json"))[0]) == []


def session(number: int, *blocked_by: int) -> Session:
    return Session(number, "covet", "", 1.0, None, "active", "", "", "", blocked_by)


@pytest.mark.parametrize(
    ("sessions", "shown"),
    [
        ([], []),
        ([session(1), session(2, 1), session(3, 1, 2)], [(0, 1), (1, 2), (1, 3)]),
        ([session(2, 1), session(1), session(3, 2), session(4)], [(0, 1), (1, 2), (2, 3), (0, 4)]),
        ([session(1, 2), session(2, 1), session(3, 2)], [(0, 1), (1, 2), (2, 3)]),
        ([session(1, 99)], [(0, 1)]),
        ([session(1, 1)], [(0, 1)]),
    ],
)
def test_everybody_stands_below_one_that_it_waits_for(sessions: list[Session], shown: list[tuple[int, int]]) -> None:
    assert [(depth, one.server_id) for depth, one in tree(sessions)] == shown


@given(st.lists(st.tuples(st.integers(0, 8), st.lists(st.integers(0, 9), max_size=4)), unique_by=lambda one: one[0]))
def test_everybody_is_shown_once(waits: list[tuple[int, list[int]]]) -> None:
    shown = [one.server_id for _, one in tree([session(number, *others) for number, others in waits])]
    assert sorted(shown) == sorted(number for number, _ in waits)


# Locks in different orders


async def write(*models: type[Model]) -> None:
    """Write to tables in one transaction."""
    async with transaction_manager.atomic():
        for model in models:
            await model.objects.filter(id=1).update(count=3)


@contextmanager
def watched(database: Database) -> Iterator[list[str]]:
    """What is warned of within the block."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with lock_order.watch(database):
            yield told
    assert all(one.category is LockOrderWarning for one in caught)
    told += [str(one.message) for one in caught]


@pytest.mark.anyio
async def test_different_orders_are_warned_of_with_the_lines(database: Database) -> None:
    numbers = count(2)

    async def place() -> None:
        async with transaction_manager.atomic():
            await Order.objects.bulk_create([Order(id=next(numbers))])
            await Stock.objects.filter(id=1).update(count=1)

    async def cancel() -> None:
        async with transaction_manager.atomic():
            row = await Stock.objects.get(id=1)
            row.count += 1
            await row.save()
            await Order.objects.filter(count=9).delete()

    first, second = place.__code__.co_firstlineno, cancel.__code__.co_firstlineno
    with watched(database) as told:
        for _ in range(3):
            await place()
            await cancel()
    (message,) = told
    assert message.startswith("orders and stock are locked in different orders: ")
    assert f"stock ({__file__}:{second + 4}) and then orders ({__file__}:{second + 5})" in message
    assert f"orders ({__file__}:{first + 2}) and then stock ({__file__}:{first + 3})" in message


@pytest.mark.anyio
async def test_one_order_is_fine(database: Database) -> None:
    with watched(database) as told:
        await write(Stock, Order)
        await write(Stock, Order, Stock)
        await write(Order)
        await write(Stock, Bill)
        await write(Order, Bill)
    assert told == []


@pytest.mark.anyio
async def test_longer_circles_are_found(database: Database) -> None:
    with watched(database) as told:
        await write(Stock, Order)
        await write(Order, Bill)
        await write(Bill, Stock)
        await write(Bill, Stock)
    (message,) = told
    assert message.startswith("bills and orders and stock are locked in different orders: ")
    assert message.count("but elsewhere") == 2


@pytest.mark.anyio
async def test_outside_of_transactions_there_is_no_order(database: Database) -> None:
    with watched(database) as told:
        for models in ((Stock, Order), (Order, Stock)):
            for model in models:
                await model.objects.filter(id=1).update(count=3)
                await model.objects.count()
    assert told == []


@pytest.mark.anyio
async def test_inner_blocks_and_tasks_that_share_belong_to_the_transaction(database: Database) -> None:
    async def one(model: type[Model]) -> None:
        async with transaction_manager.atomic():
            await model.objects.filter(id=1).update(count=3)

    with watched(database) as told:
        async with transaction_manager.atomic():
            await one(Stock)
            await one(Order)
        async with transaction_manager.atomic(), transaction_manager.share():
            await asyncio.create_task(one(Order))
            await asyncio.create_task(one(Stock))
    assert len(told) == 1


@pytest.mark.anyio
@on_servers
async def test_rows_that_are_locked_count(database: Database) -> None:
    with watched(database) as told:
        async with transaction_manager.atomic():
            await Stock.objects.select_for_update().get(id=1)
            await Order.objects.filter(id=1).update(count=3)
        async with transaction_manager.atomic():
            await Order.objects.get(id=1)
            await Stock.objects.select_for_update().get(id=1)
        async with transaction_manager.atomic():
            await Order.objects.select_for_update().get(id=1)
            await Stock.objects.select_for_update().get(id=1)
    assert len(told) == 1


@pytest.mark.anyio
@on_servers
async def test_the_deadlock_itself_is_enough(database: Database) -> None:
    """Of the transaction that was ended, what it waited for counts."""
    with watched(database) as told:
        await deadlock(database)
    assert len(told) == 1


@pytest.mark.anyio
async def test_a_database_that_nobody_watches_is_as_before(database: Database) -> None:
    before = dict(vars(database))
    with watched(database) as told:
        await write(Stock, Order)
        assert set(vars(database)) - set(before)
    assert set(vars(database)) == set(before)
    await write(Order, Stock)
    assert told == []


@pytest.mark.anyio
async def test_in_debug_mode_an_application_is_watched(url: str) -> None:
    found: list[LockOrderFound] = []

    class Listener:
        @hookimpl
        def covet_event(self, event: object) -> None:
            if isinstance(event, LockOrderFound):
                found.append(event)

    async def told_of(*, debug: bool, **options: Any) -> list[str]:
        app: Covet = plugin_sandbox(
            Listener(),
            orm=covet_orm.plugin,
            settings={
                "app": {"secret_key": "0123456789abcdef0123456789abcdef", "debug": debug},
                "storage": {"default": {"url": url, **options}},
            },
        )

        @app.get("/{way}")
        async def serve(way: str) -> None:
            await write(*((Stock, Order) if way == "there" else (Order, Stock)))

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            async with TestClient(app) as client:
                database = app.storage["default"]
                assert isinstance(database, Database)
                await database.create_all(registry)
                for way in ("there", "back", "there"):
                    assert (await client.get(f"/{way}")).status_code in (200, 204)
        return [str(one.message) for one in caught if one.category is LockOrderWarning]

    assert len(await told_of(debug=True)) == 1
    (event,) = found
    assert event.database == "default"
    assert event.tables == ("orders", "stock")
    assert len(event.lines) == 2
    assert await told_of(debug=True, warn_lock_order=False) == []
    assert await told_of(debug=False) == []


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ('INSERT INTO "a" (x) VALUES (1)', ["a"]),
        ("INSERT INTO a SELECT * FROM b", ["a"]),
        ("INSERT INTO a (x) VALUES (%s) ON DUPLICATE KEY UPDATE x = 1", ["a"]),
        ("INSERT IGNORE INTO a VALUES (1)", ["a"]),
        ("insert or replace into A values (1)", ["a"]),
        ('UPDATE "Großes A" SET x = 1', ["Großes A"]),
        ("UPDATE `b`.`c``d` SET x = 1", ["b.c`d"]),
        ("DELETE FROM ONLY t WHERE x", ["t"]),
        ("DELETE t FROM t JOIN u ON 1", ["t"]),
        ("/* a note */ -- and one more\n DELETE FROM t", ["t"]),
        ("TRUNCATE TABLE t", ["t"]),
        ("LOCK TABLE a IN EXCLUSIVE MODE", ["a"]),
        ("COPY a", ["a"]),
        ("SELECT * FROM a", []),
        ("SELECT 'x' FROM a WHERE y = ' FOR UPDATE'", []),
        ("SELECT 1 FROM a, b AS c FOR SHARE", ["a", "b"]),
        ("SELECT 1 FROM a WHERE x IN (SELECT y FROM b) FOR NO KEY UPDATE", ["a"]),
        ('SELECT 1 FROM "a" AS t1 JOIN b ON (t1.x = b.y) FOR UPDATE OF t1 NOWAIT', ["a"]),
        ("SELECT 1 FROM a LEFT OUTER JOIN b ON 1 WHERE x LOCK IN SHARE MODE", ["a", "b"]),
        ("WITH x AS (SELECT id FROM a LIMIT 1 FOR UPDATE SKIP LOCKED) DELETE FROM b USING x", ["a", "b"]),
        ("WITH x AS (UPDATE a SET n = 1 RETURNING id) INSERT INTO b SELECT * FROM x", ["a", "b"]),
        ("WITH x AS (SELECT 1) INSERT INTO b SELECT * FROM x ON CONFLICT (y) DO UPDATE SET z = 1", ["b"]),
        ("SELECT updated FROM a WHERE update_x = 1", []),
        ("SAVEPOINT a", []),
        ("", []),
    ],
)
def test_the_tables_that_a_statement_locks(sql: str, tables: list[str]) -> None:
    assert list(locked_tables(sql)) == tables


WORDS = [
    "select",
    "with",
    "update",
    "(",
    ")",
    "'",
    '"',
    "`",
    ",",
    "a",
    "as",
    "from",
    "for",
    "of",
    "--",
    "insert",
    "into",
]


@given(st.lists(st.sampled_from(WORDS)))
def test_a_statement_of_any_kind_is_borne(words: list[str]) -> None:
    assert all(isinstance(table, str) for table in locked_tables(" ".join(words)))
