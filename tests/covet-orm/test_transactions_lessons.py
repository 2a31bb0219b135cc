"""What transactions of other libraries got wrong under asyncio: tasks beside each other in one transaction, tasks that
outlive it, connections that are poisoned, hooks, generators.

In each, whoever is told that it is done finds its rows, whoever is told that it failed finds none, and every connection
comes back.
"""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.services.databases import NAMES, SERVERS

from covet_orm import (
    CharField,
    CommitHookFailed,
    Database,
    ForeignKeyViolation,
    IntegerField,
    Model,
    OrmError,
    Registry,
    TransactionError,
    transaction_manager,
)

pytestmark = pytest.mark.anyio
registry = Registry()
POSTGRESQL = [name for name in NAMES if name.startswith("postgresql")]


class Row(Model):
    name = CharField(max_length=50, unique=True)
    count = IntegerField(default=0)

    class Meta:
        registry = registry


class OnPurposeError(Exception):
    """What a task raises in order to fail."""


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=5, acquire_timeout=5) as database:
        await database.create_all(registry)
        yield database
        assert at_rest(database)


def at_rest(database: Database) -> bool:
    return all(pool.stats.in_use == 0 for pool in database.pools())


async def names() -> list[str]:
    return sorted(await Row.objects.values_list("name", flat=True))


def kinds(outcomes: list[Any]) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes]


# Tasks beside each other.


async def inner(name: str, *, fails: bool = False, before: float = 0.0, after: float = 0.0) -> None:
    await asyncio.sleep(before)
    async with transaction_manager.atomic():
        await Row.objects.create(name=name)
        await asyncio.sleep(after)
        if fails:
            raise OnPurposeError(name)


async def test_six_children_of_a_transaction_are_told_to_stay_out(database: Database) -> None:
    """None of them writes anything, whether it was to fail or not, and each is told the ways out."""
    async with transaction_manager.atomic():
        await Row.objects.create(name="before")
        outcomes = await asyncio.gather(
            *(inner(f"c{number}", fails=bool(number % 2), after=0.01) for number in range(6)), return_exceptions=True
        )
        await Row.objects.create(name="after")
    assert kinds(outcomes) == ["TransactionError"] * 6
    for outcome in outcomes:
        assert "transaction_manager.share()" in str(outcome)
        assert "transaction_manager.independent()" in str(outcome)
    assert await names() == ["after", "before"]


async def test_six_children_that_share_keep_their_own_rows(database: Database) -> None:
    async with transaction_manager.atomic(), transaction_manager.share():
        outcomes = await asyncio.gather(
            *(inner(f"c{number}", fails=bool(number % 2), after=0.01) for number in range(6)), return_exceptions=True
        )
    assert kinds(outcomes) == ["NoneType", "OnPurposeError"] * 3
    assert await names() == ["c0", "c2", "c4"]


async def test_six_children_on_their_own_keep_their_rows_whatever_becomes_of_the_outer(database: Database) -> None:
    async def own(number: int) -> None:
        with transaction_manager.independent():
            await inner(f"c{number}", fails=bool(number % 2), after=0.01)

    outcomes: list[Any] = []
    with pytest.raises(OnPurposeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            outcomes += await asyncio.gather(*(own(number) for number in range(6)), return_exceptions=True)
            await Row.objects.create(name="outer")
            raise OnPurposeError
    assert kinds(outcomes) == ["NoneType", "OnPurposeError"] * 3
    assert await names() == ["c0", "c2", "c4"]


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
async def test_the_rollback_of_one_takes_no_rows_of_the_others(database: Database, shared: bool) -> None:
    """`bad` sets its savepoint first and rolls back when `ok` and `plain` are done, and before `ok2`."""

    async def plain() -> None:
        await asyncio.sleep(0.02)
        await Row.objects.create(name="plain")

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(
            inner("bad", fails=True, after=0.05), inner("ok", before=0.01), plain(), inner("ok2", before=0.1),
            return_exceptions=True,
        )  # fmt: skip

    async with transaction_manager.atomic():
        if shared:
            async with transaction_manager.share():
                outcomes = await all_of_them()
        else:
            outcomes = await all_of_them()
    done = ["NoneType"] * 3 if shared else ["TransactionError"] * 3
    assert kinds(outcomes) == ["OnPurposeError" if shared else "TransactionError", *done]
    assert await names() == (["ok", "ok2", "plain"] if shared else [])


async def test_statements_of_siblings_never_meet_on_the_connection(database: Database) -> None:
    """Those of other libraries raise "another operation is in progress", or read what was for another one."""
    await Row.objects.bulk_create([Row(name=f"r{number}", count=number) for number in range(20)])

    async def look(number: int) -> int:
        async with transaction_manager.atomic():
            return (await Row.objects.get(name=f"r{number}")).count

    async with transaction_manager.atomic():
        assert (
            kinds(await asyncio.gather(*(look(n) for n in range(20)), return_exceptions=True))
            == ["TransactionError"] * 20
        )
        async with transaction_manager.share():
            assert await asyncio.gather(*(look(number) for number in range(20))) == list(range(20))


@pytest.mark.parametrize("group", ["anyio", "asyncio"])
async def test_tasks_of_a_group_are_told_as_well(database: Database, group: str) -> None:
    """Of all that was written nothing stays, since the error of the child ends the block."""
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            await Row.objects.create(name="outer")
            if group == "anyio":
                async with anyio.create_task_group() as anyio_tasks:
                    anyio_tasks.start_soon(inner, "child")
            else:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(inner("child"))
    assert kinds(list(caught.value.exceptions)) == ["TransactionError"]
    assert await names() == []


@pytest.mark.parametrize("nested", [False, True], ids=["of the transaction", "of an inner block"])
async def test_a_task_that_outlives_its_blocks_is_on_its_own(database: Database, nested: bool) -> None:
    """It keeps a copy of the context, with the block in it: what counts is whether that is still open."""
    ended = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def statement() -> int:
        await ended.wait()
        return await Row.objects.count()

    async def block() -> None:
        await ended.wait()
        async with transaction_manager.atomic(durable=True):
            await Row.objects.create(name="later")

    async with transaction_manager.atomic():
        await Row.objects.create(name="outer")
        if nested:
            async with transaction_manager.atomic():
                await Row.objects.create(name="inner")
                tasks += [asyncio.create_task(statement()), asyncio.create_task(block())]
                await asyncio.sleep(0)
        else:
            tasks += [asyncio.create_task(statement()), asyncio.create_task(block())]
            await asyncio.sleep(0)
    ended.set()
    await asyncio.gather(*tasks)
    assert tasks[0].result() >= 1 + nested
    assert await names() == sorted(["outer", "later"] + ["inner"] * nested)


async def test_a_task_of_an_inner_block_that_has_ended_meets_the_one_around_it(database: Database) -> None:
    """The inner block has ended and the outer one has not: there is still a transaction of another task around it."""
    ended = asyncio.Event()

    async def later() -> None:
        await ended.wait()
        await Row.objects.create(name="later")

    async with transaction_manager.atomic():
        async with transaction_manager.atomic():
            task = asyncio.create_task(later())
        ended.set()
        with pytest.raises(TransactionError, match="started inside of a transaction"):
            await task
    assert await names() == []


# Connections.


@pytest.mark.parametrize("filled", [False, True], ids=["no connections yet", "with connections"])
async def test_transactions_that_are_cancelled_at_any_turn_leak_no_connection(url: str, filled: bool) -> None:
    """45 of them, each a turn of the event loop later, most within BEGIN; more than there are connections."""
    async with Database(url, min_size=4 if filled else 0, max_size=4, acquire_timeout=5) as database:
        await database.create_all(registry)

        async def work(name: str) -> None:
            async with transaction_manager.atomic():
                await Row.objects.create(name=name)

        outcomes: list[Any] = []
        for ticks in range(45):
            task = asyncio.create_task(work(str(ticks)))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            outcomes += await asyncio.gather(task, return_exceptions=True)
        assert set(kinds(outcomes)) <= {"CancelledError", "NoneType"}
        done = {str(ticks) for ticks, outcome in enumerate(outcomes) if outcome is None}
        assert done <= set(await names())
        assert at_rest(database)
        # Each connection can be had, and is in no transaction.
        await asyncio.gather(*(work(f"after {number}") for number in range(8)))
        assert len([name for name in await names() if name.startswith("after")]) == 8


async def test_fifty_that_are_cancelled_at_once_leak_no_connection(database: Database) -> None:
    """They wait for each other, too: those who are given a connection when they are cancelled pass it on."""

    async def work(number: int) -> None:
        async with transaction_manager.atomic():
            await Row.objects.create(name=str(number))
            await asyncio.sleep(0)

    for turns in (0, 1, 2, 5, 10, 20, 50):
        tasks = [asyncio.create_task(work(number)) for number in range(50)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert at_rest(database)
        done = {str(number) for number, outcome in enumerate(outcomes) if outcome is None}
        assert done <= set(await names())
        await Row.objects.delete()


@pytest.mark.parametrize("way", ["aclose", "collected"])
async def test_a_stream_that_ends_early_leaves_the_transaction_in_order(database: Database, way: str) -> None:
    await Row.objects.bulk_create([Row(name=f"{number:03}") for number in range(200)])

    async def read_a_little() -> None:
        rows = Row.objects.order_by("name").iterator(10)
        async for _ in rows:
            break
        if way == "aclose":
            await rows.aclose()  # type: ignore[attr-defined]

    async with transaction_manager.atomic():
        await Row.objects.create(name="before")
        await read_a_little()
        if way == "collected":
            # The event loop closes what nobody did, in a task of its own.
            for _ in range(3):
                gc.collect()
                await asyncio.sleep(0.01)
        await Row.objects.create(name="after")
        assert await Row.objects.count() == 202
    assert at_rest(database)
    assert await Row.objects.count() == 202


async def test_a_stream_that_is_cancelled_in_the_middle_loses_nothing_in_silence(database: Database) -> None:
    """Where the driver has to cut the connection for it, the block does not go on, and says so."""
    await Row.objects.bulk_create([Row(name=f"{number:03}") for number in range(200)])
    failed: list[Exception] = []
    try:
        async with transaction_manager.atomic():
            await Row.objects.create(name="before")
            with anyio.CancelScope() as scope:
                async for _ in Row.objects.order_by("name").iterator(10):
                    scope.cancel()
            await Row.objects.create(name="after")
    except OrmError as error:
        failed.append(error)
    assert at_rest(database)
    assert await Row.objects.count() == (200 if failed else 202)


async def test_a_stream_without_a_transaction_that_ends_early_gives_its_connection_back(database: Database) -> None:
    await Row.objects.bulk_create([Row(name=f"{number:03}") for number in range(200)])
    for _ in range(8):
        async for _ in Row.objects.order_by("name").iterator(10):
            break
        gc.collect()
        await asyncio.sleep(0.02)
    assert at_rest(database)
    assert await Row.objects.count() == 200


async def test_the_error_of_one_that_cancels_the_commit_of_another_hangs_nobody(database: Database) -> None:
    """A group cancels the others when one fails, wherever they are by then: in their commit, too."""

    async def work(name: str, turns: int) -> None:
        async with transaction_manager.atomic():
            await Row.objects.create(name=name)
        committed.append(name)
        await asyncio.sleep(30)

    async def fail(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise OnPurposeError

    for turns in range(0, 40, 3):
        committed: list[str] = []
        with anyio.fail_after(30), pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group
            async with asyncio.TaskGroup() as tasks:
                for number in range(3):
                    tasks.create_task(work(f"{turns} {number}", turns))
                tasks.create_task(fail(turns))
        assert kinds(list(caught.value.exceptions)) == ["OnPurposeError"]
        assert at_rest(database)
        assert set(committed) <= set(await names())


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN; SAVEPOINT covet_1"])
async def test_a_poisoned_connection_is_met_by_nobody(url: str, begin: str) -> None:
    """A raw connection is given back with a transaction open, in the only place of the pool: the next block begins its
    own, which commits."""
    async with Database(url, alias="one", max_size=1, acquire_timeout=5) as database:
        await database.create_all(registry)
        async with database.connection() as connection:
            for statement in begin.split("; "):
                await connection.script(statement)
            await connection.execute(
                "INSERT INTO row (name, count) VALUES ('poison', 0)".replace("row", table(database))
            )
        async with transaction_manager.atomic(database):
            await Row.objects.using(database).create(name="mine")
        found = await Row.objects.using(database).values_list("name", flat=True)
        assert found == ["mine"]
    async with Database(url, alias="another") as database:
        assert await Row.objects.using(database).values_list("name", flat=True) == ["mine"]


def table(database: Database) -> str:
    quote = "`" if database.kind == "mariadb" else '"'
    return f"{quote}{Row._meta.db_table}{quote}"


# The commit, and what comes with it.


@pytest.mark.parametrize("server", [*POSTGRESQL, "sqlite"], indirect=True)
async def test_a_commit_that_a_deferred_constraint_refuses(database: Database) -> None:
    """It is the COMMIT that fails. The transaction is over then, nothing is there, and the connection is at rest."""
    await database.execute("CREATE TABLE parents (id integer PRIMARY KEY)")
    await database.execute(
        "CREATE TABLE children (id integer PRIMARY KEY, parent_id integer NOT NULL "
        "REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
    )
    called: list[str] = []
    block = transaction_manager.atomic()
    with pytest.raises(ForeignKeyViolation):  # noqa: PT012 - the block
        async with block:
            block.on_commit(lambda: called.append("commit"))
            block.on_rollback(lambda: called.append("rollback"))
            await database.execute("INSERT INTO children VALUES (1, 7)")
    assert called == ["rollback"]
    assert block.committed is False
    assert transaction_manager.current() is None
    assert at_rest(database)
    with pytest.raises(TransactionError, match="has ended"):
        await block.ready()
    for number in range(6):
        async with transaction_manager.atomic():
            await database.execute(f"INSERT INTO parents VALUES ({number})")
            await database.execute(f"INSERT INTO children VALUES ({number}, {number})")
    assert await database.fetch_value("SELECT count(*) FROM children") == 6


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_two_who_enter_at_once_have_a_transaction_each(database: Database) -> None:
    """No session that tasks could share by mistake: the transaction is that of the task, not of an object."""
    blocks: list[Any] = []
    both = asyncio.Barrier(2)

    async def work(number: int) -> None:
        async with transaction_manager.atomic() as block:
            await Row.objects.create(name=str(number))
            blocks.append(await block.ready())
            await both.wait()
            assert await names() == [str(number)]
            await both.wait()
            if number:
                raise OnPurposeError

    outcomes = await asyncio.gather(work(0), work(1), return_exceptions=True)
    assert kinds(outcomes) == ["NoneType", "OnPurposeError"]
    assert blocks[0] is not blocks[1]
    assert await names() == ["0"]


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_on_sqlite_a_block_begins_before_its_first_statement(database: Database) -> None:
    """Also where that reads, sets a savepoint, or changes the schema, for which `sqlite3` begins none by itself."""
    async with transaction_manager.atomic():
        assert await Row.objects.count() == 0
        with transaction_manager.independent(), pytest.raises(OrmError):
            # Whoever begins by writing is the one who writes: no one can come between what is read and what follows.
            async with transaction_manager.atomic(timeout=0.2):
                await Row.objects.create(name="between")
    with pytest.raises(OnPurposeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            async with transaction_manager.atomic():
                await Row.objects.create(name="inner")
            await database.execute("CREATE TABLE made (id integer)")
            raise OnPurposeError
    assert await names() == []
    assert await database.fetch_value("SELECT count(*) FROM sqlite_master WHERE name = 'made'") == 0


async def test_what_is_tried_again_is_all_of_it(database: Database) -> None:
    """Neither inside of a block, nor inside of an inner one, nor in a task of one, nor within shared ones."""
    calls: list[int] = []

    @transaction_manager.retry(max_attempts=3)
    async def work() -> None:
        calls.append(1)

    async with transaction_manager.atomic():
        with pytest.raises(TransactionError, match="around the outermost block"):
            await work()
        async with transaction_manager.atomic():
            with pytest.raises(TransactionError, match="around the outermost block"):
                await work()
        with pytest.raises(TransactionError, match="around the outermost block"):
            await asyncio.create_task(work())
        async with transaction_manager.share():
            with pytest.raises(TransactionError, match="around the outermost block"):
                await asyncio.create_task(work())
        assert calls == []
        with transaction_manager.independent():
            await work()
    await work()
    assert calls == [1, 1]


# Hooks.


@pytest.fixture
def called() -> list[str]:
    return []


def note(called: list[str], text: str) -> Callable[[], None]:
    return lambda: called.append(text)


async def test_hooks_wait_for_the_commit_of_the_outermost_block(database: Database, called: list[str]) -> None:
    async with transaction_manager.atomic():
        async with transaction_manager.atomic():
            async with transaction_manager.atomic():
                transaction_manager.on_commit(note(called, "innermost"))
            transaction_manager.on_commit(note(called, "inner"))
            assert called == []
        await Row.objects.create(name="a")
        assert called == []
    assert called == ["innermost", "inner"]


@pytest.mark.parametrize("statement", [True, False], ids=["begun", "never begun"])
async def test_hooks_of_what_was_rolled_back_are_dropped(
    database: Database, called: list[str], statement: bool
) -> None:
    """Those of the transaction with it; those of an inner block that was released with the outer one; those of an
    inner block that was rolled back with that alone, and with what it had taken over."""

    async def write(name: str) -> None:
        if statement:
            await Row.objects.create(name=name)

    with pytest.raises(OnPurposeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            transaction_manager.on_commit(note(called, "outer"))
            await write("a")
            async with transaction_manager.atomic():
                transaction_manager.on_commit(note(called, "released"))
                await write("b")
            raise OnPurposeError
    async with transaction_manager.atomic():
        transaction_manager.on_commit(note(called, "kept 1"))
        with pytest.raises(OnPurposeError):  # noqa: PT012 - the block
            async with transaction_manager.atomic():
                async with transaction_manager.atomic():
                    transaction_manager.on_commit(note(called, "released into what is rolled back"))
                    await write("c")
                async with transaction_manager.atomic(savepoint=False):
                    transaction_manager.on_commit(note(called, "joined what is rolled back"))
                raise OnPurposeError
        async with transaction_manager.atomic(savepoint=False):
            transaction_manager.on_commit(note(called, "joined"))
            await write("d")
        transaction_manager.on_commit(note(called, "kept 2"))
    assert called == ["kept 1", "joined", "kept 2"]


async def test_hooks_are_called_once(database: Database, called: list[str]) -> None:
    """Neither the next transaction calls them again, nor those that come after one that was rolled back, nor after a
    hook that failed."""

    def fail() -> None:
        called.append("fails")
        raise OnPurposeError

    for number in range(2):
        async with transaction_manager.atomic():
            transaction_manager.on_commit(note(called, f"commit {number}"))
            await Row.objects.create(name=str(number))
    with pytest.raises(OnPurposeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            transaction_manager.on_commit(note(called, "never"))
            raise OnPurposeError
    with pytest.raises(CommitHookFailed):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            transaction_manager.on_commit(fail)
            await Row.objects.create(name="with a hook that fails")
    async with transaction_manager.atomic():
        await Row.objects.create(name="last")
    assert called == ["commit 0", "commit 1", "fails"]


async def test_hooks_do_not_outlive_the_connection(database: Database, called: list[str]) -> None:
    async with database.connection():
        pass
    with pytest.raises(OrmError):  # noqa: PT012 - the block
        async with transaction_manager.atomic() as block:
            transaction_manager.on_commit(note(called, "never"))
            await Row.objects.create(name="a")
            (await block.ready()).terminate()
            await Row.objects.create(name="b")
    async with transaction_manager.atomic():
        transaction_manager.on_commit(note(called, "of the next"))
        await Row.objects.create(name="c")
    assert called == ["of the next"]
    assert await names() == ["c"]


async def test_hooks_may_query_and_begin_transactions_with_hooks_of_their_own(
    database: Database, called: list[str]
) -> None:
    """What is registered in the transaction of a hook is called when that commits, and never again; the others follow,
    in their order."""

    async def query() -> None:
        called.append(f"sees {await Row.objects.count()}")
        await Row.objects.create(name="by a hook")

    async def transaction() -> None:
        async with transaction_manager.atomic(durable=True):
            transaction_manager.on_commit(nested)
            await Row.objects.create(name="in the transaction of a hook")
        called.append("its transaction is over")

    async def nested() -> None:
        async with transaction_manager.atomic():
            transaction_manager.on_commit(note(called, "of the hook of the hook"))
            called.append("in the hook of the hook")

    async with transaction_manager.atomic():
        await Row.objects.create(name="a")
        for hook in (note(called, "first"), query, transaction, note(called, "last")):
            transaction_manager.on_commit(hook)
    assert called == [
        "first", "sees 1", "in the hook of the hook", "of the hook of the hook", "its transaction is over", "last",
    ]  # fmt: skip
    assert await names() == ["a", "by a hook", "in the transaction of a hook"]


async def test_a_transaction_of_a_hook_that_fails_leaves_the_one_that_was_committed(
    database: Database, called: list[str]
) -> None:
    async def fails() -> None:
        async with transaction_manager.atomic():
            await Row.objects.create(name="of the hook")
            raise OnPurposeError

    with pytest.raises(CommitHookFailed) as caught:  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            await Row.objects.create(name="a")
            transaction_manager.on_commit(fails)
            transaction_manager.on_commit(note(called, "next"))
    assert kinds(caught.value.errors) == ["OnPurposeError"]
    assert called == ["next"]
    assert await names() == ["a"]


async def test_a_hook_is_something_that_can_be_called(database: Database) -> None:
    async with transaction_manager.atomic():
        for register in (
            transaction_manager.on_commit, transaction_manager.on_rollback, transaction_manager.pre_commit,
        ):  # fmt: skip
            for wrong in (None, "send", Row()):
                with pytest.raises(TransactionError, match="cannot be called"):
                    register(wrong)  # type: ignore[arg-type]
        await Row.objects.create(name="a")
    assert await names() == ["a"]


@pytest.mark.parametrize("moment", ["pre_commit", "on_commit", "on_rollback"])
async def test_a_hook_that_hangs_ends_when_it_is_cancelled(database: Database, moment: str) -> None:
    """Before the commit nothing is committed then, after it all is; nobody else waits for a connection meanwhile."""
    hangs = asyncio.Event()

    async def hang() -> None:
        hangs.set()
        await asyncio.sleep(30)

    async def work() -> None:
        async with transaction_manager.atomic():
            await Row.objects.create(name="a")
            getattr(transaction_manager, moment)(hang)
            if moment == "on_rollback":
                raise OnPurposeError

    task = asyncio.create_task(work())
    await hangs.wait()
    if moment != "pre_commit":
        assert at_rest(database)
    task.cancel()
    with anyio.fail_after(20), pytest.raises(asyncio.CancelledError):
        await task
    assert at_rest(database)
    assert await names() == (["a"] if moment == "on_commit" else [])


# Blocks that are left in unusual ways.


@pytest.mark.parametrize("where", ["before", "after", "within the inner", "after the inner", "in the commit hook"])
async def test_an_error_wherever_it_comes_from_leaves_all_or_nothing(database: Database, where: str) -> None:
    def at(place: str) -> None:
        if where == place:
            raise OnPurposeError(place)

    kept = False
    try:
        async with transaction_manager.atomic():
            transaction_manager.on_commit(lambda: at("in the commit hook"))
            at("before")
            await Row.objects.create(name="outer")
            at("after")
            try:
                async with transaction_manager.atomic():
                    await Row.objects.create(name="inner")
                    at("within the inner")
                kept = True
            except OnPurposeError:
                pass
            at("after the inner")
    except (OnPurposeError, CommitHookFailed):
        pass
    done = where in ("within the inner", "in the commit hook")
    assert await names() == ((["inner"] if kept else []) + ["outer"] if done else [])
    assert at_rest(database)


async def test_break_continue_and_return_commit_inner_blocks_and_outer_ones(database: Database) -> None:
    async def work() -> str:
        for number in range(5):
            async with transaction_manager.atomic():
                await Row.objects.create(name=f"outer {number}")
                for letter in "ab":
                    async with transaction_manager.atomic():
                        await Row.objects.create(name=f"inner {number}{letter}")
                        if number == 0:
                            continue
                        if number == 1:
                            break
                        return "done"
        return "never"

    assert await work() == "done"
    assert await names() == ["inner 0a", "inner 0b", "inner 1a", "inner 2a", "outer 0", "outer 1", "outer 2"]


def generator(*, timeout: float | None = None, name: str = "inside") -> Any:
    async def rows() -> AsyncIterator[int]:
        async with transaction_manager.atomic(timeout=timeout):
            await Row.objects.create(name=name)
            yield 1
            yield 2

    return rows()


async def abandoned() -> None:
    """Have the event loop close generators that nobody did."""
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("timeout", [None, 30.0], ids=["no timeout", "with a timeout"])
@pytest.mark.parametrize("way", ["closed", "with aclosing", "by another task", "collected"])
async def test_a_generator_that_is_left_half_way_is_rolled_back(
    database: Database, way: str, timeout: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """However late: its connection comes back, and what comes next is outside of its block."""
    rows = generator(timeout=timeout)
    if way == "with aclosing":
        async with aclosing(rows):
            async for _ in rows:
                break
    else:
        async for _ in rows:
            break
    if way == "closed":
        await rows.aclose()
    elif way == "by another task":
        await asyncio.create_task(rows.aclose())
    elif way == "collected":
        del rows
        await abandoned()
    assert at_rest(database)
    assert transaction_manager.current() is None
    await Row.objects.create(name="next")
    assert await names() == ["next"]
    assert ("collected" in caplog.text) == (way in ("by another task", "collected"))


async def test_a_generator_that_runs_to_its_end_commits(database: Database) -> None:
    assert [number async for number in generator()] == [1, 2]
    assert await names() == ["inside"]


async def test_the_timeout_of_a_generator_that_was_collected_cancels_nobody(database: Database) -> None:
    """It would cancel the task that iterated, whatever that does by then."""
    rows = generator(timeout=60)
    async for _ in rows:
        break
    block = transaction_manager.current()
    assert block is not None
    scope = block._scope
    assert scope is not None
    del rows
    await abandoned()
    assert scope.deadline == math.inf
    assert block.ended
    assert at_rest(database)


async def test_an_inner_block_that_is_collected_takes_no_rows_along_in_silence(database: Database) -> None:
    """To roll back to its savepoint then would take back what was written since; so the outer one does not commit, and
    says why."""
    with pytest.raises(TransactionError, match="aclosing"):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            await Row.objects.create(name="outer")
            async for _ in generator():
                break
            await abandoned()
            await Row.objects.create(name="since")
    assert await names() == []
    assert at_rest(database)
    await Row.objects.create(name="next")


async def test_an_outer_block_does_not_commit_half_of_an_inner_one(database: Database) -> None:
    rows = generator()
    with pytest.raises(TransactionError, match="still open"):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            await Row.objects.create(name="outer")
            await anext(rows)
    assert await names() == []
    # Its connection is that of others by now, whose savepoint has the same name.
    async with transaction_manager.atomic():
        await Row.objects.create(name="of the others")
        async with transaction_manager.atomic():
            await Row.objects.create(name="inside of the others")
            await rows.aclose()
            await Row.objects.create(name="later")
    assert await names() == ["inside of the others", "later", "of the others"]


async def test_an_inner_block_that_goes_on_after_the_outer_one_is_told(database: Database) -> None:
    rows = generator()
    with pytest.raises(OnPurposeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            await anext(rows)
            raise OnPurposeError
    with pytest.raises(TransactionError, match="left before it"):
        assert [number async for number in rows] == []
    assert await names() == []


async def test_generators_that_end_in_another_order_than_they_began(database: Database) -> None:
    """The second is inside of the first, since nothing keeps their contexts apart; when the first ends, it takes the
    second along, and both say so."""
    first, second = generator(name="first"), generator(name="second")
    with pytest.raises(TransactionError, match="still open"):  # noqa: PT012 - the block
        async with transaction_manager.atomic():
            await anext(first)
            await anext(second)
            async for _ in first:
                pass
    with pytest.raises(TransactionError):
        async for _ in second:
            pass
    assert await names() == []
    assert at_rest(database)


async def test_a_block_may_be_entered_and_left_by_tasks_of_one_another(database: Database) -> None:
    """As fixtures of tests do, which are set up and torn down by different tasks."""

    async def run(work: Callable[[], Awaitable[Any]]) -> Any:
        return await asyncio.create_task(work())  # type: ignore[arg-type]

    block = transaction_manager.atomic(timeout=30)

    async def enter() -> None:
        await block.__aenter__()
        await Row.objects.create(name="a")

    async def leave() -> None:
        await block.__aexit__(None, None, None)

    await run(enter)
    assert not at_rest(database)
    await run(leave)
    assert await names() == ["a"]


def test_a_loop_that_ends_closes_what_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As `asyncio.run` does when its task is over."""
    database = Database(f"sqlite:///{tmp_path}/left.db")

    async def rows() -> AsyncIterator[int]:
        async with database.transaction():
            await Row.objects.using(database).create(name="inside")
            yield 1

    async def begin() -> AsyncIterator[int]:
        await database.open()
        await database.create_all(registry)
        left = rows()
        await anext(left)
        return left

    async def end() -> int:
        await asyncio.get_running_loop().shutdown_asyncgens()
        assert at_rest(database)
        found = await Row.objects.using(database).count()
        await database.close()
        return found

    with asyncio.Runner() as runner:
        left = runner.run(begin())
        assert runner.run(end()) == 0
    assert "was left by nobody" in caplog.text
    del left
