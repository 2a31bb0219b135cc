"""`transaction_manager.atomic`: what a block is asked for, inner blocks, hooks, and the tasks that share one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from tests.services.databases import NAMES

from covet_orm import (
    CharField,
    CommitHookFailed,
    Database,
    IntegerField,
    LockTimeout,
    Model,
    OrmError,
    Registry,
    StatementTimeout,
    TransactionError,
    TransactionTimeout,
    UniqueViolation,
    transaction_manager,
)
from covet_orm.observing import watch

pytestmark = pytest.mark.anyio
registry = Registry()
POSTGRESQL = [name for name in NAMES if name.startswith("postgresql")]
MARIADB = ["mariadb"]


class Row(Model):
    name = CharField(max_length=50, unique=True)
    count = IntegerField(default=0)

    class Meta:
        registry = registry


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=4, acquire_timeout=5) as database:
        await database.create_all(registry)
        yield database
        assert at_rest(database)


async def names() -> list[str]:
    return sorted(await Row.objects.values_list("name", flat=True))


def at_rest(database: Database) -> bool:
    return all(pool.stats.in_use == 0 for pool in database.pools())


async def test_nothing_is_sent_before_the_first_statement(database: Database) -> None:
    async with transaction_manager.atomic() as block:
        assert not block.begun
        assert at_rest(database)
        async with transaction_manager.atomic() as inner:
            pass
        assert not inner.begun
        assert not block.begun
        await Row.objects.create(name="a")
        assert block.begun
        async with transaction_manager.atomic() as inner:
            assert not inner.begun
            assert await names() == ["a"]
            assert inner.begun
    assert block.committed is True


async def test_the_example_of_an_order(database: Database) -> None:
    """The inner block is rolled back alone."""
    async with transaction_manager.atomic():
        await Row.objects.create(name="user")
        try:
            async with transaction_manager.atomic():
                await Row.objects.create(name="order")
                raise RuntimeError("no stock")
        except RuntimeError:
            await Row.objects.create(name="complaint")
    assert await names() == ["complaint", "user"]


async def test_each_call_of_a_decorated_function_is_a_block(database: Database) -> None:
    @transaction_manager.atomic
    async def plain(name: str) -> int:
        await Row.objects.create(name=name)
        return len(name)

    @transaction_manager.atomic(label="both")
    async def both(name: str) -> None:
        await plain(name)
        await plain(name)

    assert await plain("abc") == 3
    with pytest.raises(UniqueViolation):
        await both("x")
    assert await names() == ["abc"]
    assert await asyncio.gather(*(plain(str(number)) for number in range(5))) == [1] * 5
    with pytest.raises(TransactionError, match="no `async def`"):
        transaction_manager.atomic(lambda: None)  # type: ignore[type-var, return-value]


async def test_without_a_savepoint_the_failure_is_that_of_all(database: Database) -> None:
    with pytest.raises(TransactionError, match=r"RuntimeError: inside") as caught:  # noqa: PT012 - the blocks
        async with transaction_manager.atomic():
            await Row.objects.create(name="a")
            try:
                async with transaction_manager.atomic(savepoint=False):
                    await Row.objects.create(name="b")
                    raise RuntimeError("inside")
            except RuntimeError:
                with pytest.raises(TransactionError, match="all of the transaction is rolled back"):
                    await Row.objects.create(name="c")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert await names() == []
    async with transaction_manager.atomic(), transaction_manager.atomic(savepoint=False):
        await Row.objects.create(name="d")
    assert await names() == ["d"]


async def test_a_savepoint_keeps_the_doom_of_what_is_inside(database: Database) -> None:
    async with transaction_manager.atomic():
        await Row.objects.create(name="a")
        with pytest.raises(TransactionError, match="RuntimeError"):  # noqa: PT012 - the blocks
            async with transaction_manager.atomic():
                await Row.objects.create(name="b")
                with pytest.raises(RuntimeError):  # noqa: PT012 - the block
                    async with transaction_manager.atomic(savepoint=False):
                        await Row.objects.create(name="c")
                        raise RuntimeError
        await Row.objects.create(name="d")
    assert await names() == ["a", "d"]


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_an_error_that_was_caught_inside_is_told(database: Database) -> None:
    """PostgreSQL takes nothing more after an error; what the block did is not there, and that is no secret."""
    await Row.objects.create(name="a")
    async with transaction_manager.atomic():
        with pytest.raises(TransactionError, match="caught there"):  # noqa: PT012 - the block
            async with transaction_manager.atomic():
                await Row.objects.create(name="b")
                with pytest.raises(UniqueViolation):
                    await Row.objects.create(name="a")
        await Row.objects.create(name="c")
    assert await names() == ["a", "c"]


async def test_durable_is_outermost(database: Database) -> None:
    async with transaction_manager.atomic(durable=True):
        with pytest.raises(TransactionError, match="durable"):
            async with transaction_manager.atomic(durable=True):
                pass
    assert transaction_manager.current() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isolation": "serialisable"}, "did you mean 'serializable'"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": True}, "timeout=True"),
        ({"lock_timeout": float("nan")}, "lock_timeout=nan"),
        ({"deferrable": True}, "isolation='serializable' with read_only=True"),
        ({"snapshot": "x; DROP TABLE y", "isolation": "serializable"}, "none that export_snapshot"),
        ({"snapshot": "00000003-1"}, "needs isolation='repeatable read'"),
        ({"durable": True, "savepoint": False}, "choose one"),
    ],
)
async def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TransactionError, match=message):
        transaction_manager.atomic(**options)


async def test_what_an_inner_block_cannot_be(database: Database) -> None:
    async with transaction_manager.atomic():
        for options, message in (
            ({"read_only": True}, "the transaction around it writes"),
            ({"lock_timeout": 1.0}, "lock_timeout= is asked of an inner block"),
            ({"confirm": True}, "one of the outermost"),
        ):
            with pytest.raises(TransactionError, match=message):
                async with transaction_manager.atomic(**options):  # type: ignore[call-overload]
                    pass
        await Row.objects.create(name="a")
    assert await names() == ["a"]


@pytest.mark.parametrize("server", [*POSTGRESQL, *MARIADB], indirect=True)
async def test_isolation_within(database: Database) -> None:
    async with transaction_manager.atomic(isolation="repeatable read"):
        async with transaction_manager.atomic(isolation="read committed"):
            await Row.objects.create(name="a")
        with pytest.raises(TransactionError, match="the transaction around it has 'repeatable read'"):
            async with transaction_manager.atomic(isolation="serializable"):
                pass


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_what_sqlite_does_not_offer(database: Database) -> None:
    for options, message in (
        ({"isolation": "read committed"}, "which has 'serializable'"),
        ({"isolation": "serializable", "read_only": True, "deferrable": True}, "PostgreSQL does"),
        ({"isolation": "serializable", "snapshot": "00000003-1"}, "PostgreSQL does"),
    ):
        with pytest.raises(TransactionError, match=message):
            async with transaction_manager.atomic(**options):  # type: ignore[call-overload]
                pass
    async with transaction_manager.atomic(isolation="serializable"):
        await Row.objects.create(name="a")


@pytest.mark.parametrize("level", ["read uncommitted", "read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("server", [*POSTGRESQL, *MARIADB], indirect=True)
async def test_the_server_has_the_level(database: Database, level: Any) -> None:
    async with transaction_manager.atomic(isolation=level):
        await Row.objects.create(name="a")
        assert await level_of(database) == level
    async with transaction_manager.atomic():
        await Row.objects.create(name="b")
        assert await level_of(database) == ("read committed" if database.kind == "postgresql" else "repeatable read")


async def level_of(database: Database) -> str:
    """What the server says of the transaction around this."""
    if database.kind == "postgresql":
        return str(await database.fetch_value("SELECT current_setting('transaction_isolation')"))
    # The server tells of transactions what it has known for up to a tenth of a second.
    await asyncio.sleep(0.2)
    ask = "SELECT trx_isolation_level FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = connection_id()"
    return str(await database.fetch_value(ask)).lower()


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_blocks_that_see_the_same(database: Database) -> None:
    await Row.objects.create(name="a")
    async with transaction_manager.atomic(isolation="repeatable read", read_only=True) as block:
        snapshot = await block.export_snapshot()
        with transaction_manager.independent():
            await Row.objects.create(name="b")
            options: Any = {"isolation": "repeatable read", "read_only": True, "snapshot": snapshot}

            async def look() -> list[str]:
                async with transaction_manager.atomic(**options):
                    return await names()

            assert await asyncio.gather(look(), look()) == [["a"], ["a"]]
    assert await names() == ["a", "b"]
    async with transaction_manager.atomic() as block:
        with pytest.raises(TransactionError, match="needs isolation"):
            await block.export_snapshot()


async def test_what_only_reads_cannot_write(url: str, database: Database) -> None:
    async with transaction_manager.atomic(read_only=True):
        assert await names() == []
        with pytest.raises(OrmError):
            async with transaction_manager.atomic():
                await Row.objects.create(name="a")
    await Row.objects.create(name="b")
    assert await names() == ["b"]


async def test_what_only_reads_cannot_write_in_memory() -> None:
    async with Database("sqlite://") as database:
        await database.create_all(registry)
        with pytest.raises(OrmError):
            async with transaction_manager.atomic(read_only=True):
                await Row.objects.create(name="a")
        await Row.objects.create(name="b")
        assert await names() == ["b"]


async def test_a_block_that_takes_too_long(database: Database) -> None:
    with pytest.raises(TransactionTimeout, match=r"'slow'.* timeout of 0.05 seconds"):  # noqa: PT012 - the block
        async with transaction_manager.atomic(timeout=0.05, label="slow"):
            await Row.objects.create(name="a")
            await asyncio.sleep(30)
    assert await names() == []
    async with transaction_manager.atomic(timeout=30):
        await Row.objects.create(name="b")
    assert await names() == ["b"]


SLEEP = {
    "postgresql": "SELECT pg_sleep(20)",
    "mariadb": "SELECT sleep(20)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
}


async def test_a_statement_that_takes_too_long(database: Database) -> None:
    with pytest.raises(StatementTimeout):
        async with transaction_manager.atomic(statement_timeout=0.1):
            await database.fetch_value(SLEEP[database.kind])
    connections: list[Any] = []
    for _ in range(4):
        async with transaction_manager.atomic(), database.connection() as connection:
            connections.append(connection)
            if database.kind == "postgresql":
                assert await database.fetch_value("SHOW statement_timeout") == "0"
            elif database.kind == "mariadb":
                assert await database.fetch_value("SELECT @@max_statement_time") == 0
            else:
                assert connection._timeout == connection._options.statement_timeout  # type: ignore[attr-defined]
    assert connections


async def test_a_lock_that_is_not_to_be_had(url: str, database: Database) -> None:
    await Row.objects.create(name="a")
    async with Database(url, alias="other") as other, other.transaction():
        await Row.objects.using(other).filter(name="a").update(count=1)
        with pytest.raises(LockTimeout):
            async with transaction_manager.atomic(database, lock_timeout=0.2):
                await Row.objects.using(database).filter(name="a").update(count=2)
    if database.kind == "mariadb":
        assert await database.fetch_value("SELECT @@innodb_lock_wait_timeout") > 1
    assert (await Row.objects.using(database).get()).count == 1


async def test_hooks_in_order(database: Database) -> None:
    called: list[str] = []

    def note(text: str) -> Callable[[], None]:
        return lambda: called.append(text)

    async def later() -> None:
        await asyncio.sleep(0)
        called.append(f"later {sorted(await names())} {transaction_manager.current() is None}")

    async with transaction_manager.atomic():
        transaction_manager.on_commit(note("first"))
        transaction_manager.on_rollback(note("never"))
        with pytest.raises(RuntimeError):  # noqa: PT012 - the block
            async with transaction_manager.atomic():
                transaction_manager.on_commit(note("never"))
                transaction_manager.on_rollback(note("inner rolled back"))
                raise RuntimeError
        async with transaction_manager.atomic():
            transaction_manager.on_commit(later)
            transaction_manager.pre_commit(note("before"))
        assert called == ["inner rolled back"]
        await Row.objects.create(name="a")
        transaction_manager.on_commit(note("last"))
    assert called == ["inner rolled back", "before", "first", "later ['a'] True", "last"]


async def test_a_veto(database: Database) -> None:
    called: list[str] = []

    async def veto() -> None:
        assert await names() == ["a"]
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):  # noqa: PT012 - the block
        async with transaction_manager.atomic() as block:
            await Row.objects.create(name="a")
            block.pre_commit(veto)
            block.on_commit(lambda: called.append("commit"))
            block.on_rollback(lambda: called.append("rollback"))
    assert called == ["rollback"]
    assert block.committed is False
    assert await names() == []


async def test_what_is_registered_before_the_commit_happens_as_well(database: Database) -> None:
    called: list[str] = []

    async def before() -> None:
        await Row.objects.create(name="b")
        transaction_manager.pre_commit(lambda: called.append("second"))
        transaction_manager.on_commit(lambda: called.append("commit"))

    async with transaction_manager.atomic() as block:
        await Row.objects.create(name="a")
        block.pre_commit(before)
    assert called == ["second", "commit"]
    assert await names() == ["a", "b"]


async def test_a_hook_that_fails_hides_no_commit(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    called: list[str] = []

    def fail() -> None:
        raise ValueError("of the hook")

    with pytest.raises(CommitHookFailed, match=r"was committed, and stays so.*ValueError: of the hook") as caught:  # noqa: PT012
        async with transaction_manager.atomic() as block:
            await Row.objects.create(name="a")
            block.on_commit(fail, robust=True)
            block.on_commit(fail)
            block.on_commit(lambda: called.append("after"))
    assert [str(error) for error in caught.value.errors] == ["of the hook"]
    assert called == ["after"]
    assert block.committed is True
    assert await names() == ["a"]
    assert "of the hook" in caplog.text


async def test_a_hook_for_the_rollback_that_fails_hides_no_error(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("of the hook")

    with pytest.raises(RuntimeError, match="of the block"):  # noqa: PT012 - the block
        async with transaction_manager.atomic() as block:
            block.on_rollback(fail)
            raise RuntimeError("of the block")
    assert "of the hook" in caplog.text


async def test_a_hook_may_begin_a_transaction(database: Database) -> None:
    called: list[str] = []

    async def hook() -> None:
        async with transaction_manager.atomic(durable=True):
            await Row.objects.create(name="b")
            transaction_manager.on_commit(lambda: called.append("inner"))

    async with transaction_manager.atomic() as block:
        await Row.objects.create(name="a")
        block.on_commit(hook)
        block.on_commit(lambda: called.append("outer"))
    assert called == ["inner", "outer"]
    assert await names() == ["a", "b"]


async def test_without_a_transaction_there_is_nothing_to_wait_for(database: Database) -> None:
    for register in (
        transaction_manager.on_commit,
        transaction_manager.on_rollback,
        transaction_manager.pre_commit,
    ):
        with pytest.raises(TransactionError, match=r"no transaction in 'default'"):
            register(print)


async def test_tasks_that_share(database: Database) -> None:
    """Each inner block has its turn to itself: what one rolls back is its own alone."""
    inside = most = 0

    async def child(number: int) -> None:
        nonlocal inside, most
        async with transaction_manager.atomic():
            await Row.objects.create(name=f"{number}a")
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1
            await Row.objects.create(name=f"{number}b")
            if number % 2:
                raise RuntimeError(number)

    async with transaction_manager.atomic():
        await Row.objects.create(name="own")
        async with transaction_manager.share():
            results = await asyncio.gather(*(child(number) for number in range(6)), return_exceptions=True)
            assert await asyncio.gather(*(Row.objects.count() for _ in range(4))) == [7] * 4
    assert [type(result) for result in results] == [type(None), RuntimeError] * 3
    assert most == 1
    assert await names() == sorted([f"{number}{letter}" for number in (0, 2, 4) for letter in "ab"] + ["own"])


async def test_sharing_ends_with_its_block(database: Database) -> None:
    go = asyncio.Event()

    async def late() -> None:
        await go.wait()
        await Row.objects.create(name="late")

    async with transaction_manager.atomic():
        async with transaction_manager.share():
            task = asyncio.create_task(late())
            await Row.objects.create(name="a")
            with pytest.raises(TransactionError, match="shared already"):
                async with transaction_manager.share():
                    pass
        go.set()
        with pytest.raises(TransactionError, match=r"share\(\).*independent\(\)"):
            await task
    assert await names() == ["a"]


async def test_a_task_may_have_its_own(database: Database) -> None:
    async def child() -> None:
        with transaction_manager.independent():
            assert transaction_manager.current() is None
            async with transaction_manager.atomic(durable=True):
                await Row.objects.create(name="own")

    with pytest.raises(RuntimeError):  # noqa: PT012 - the block
        async with transaction_manager.atomic() as block:
            if database.kind != "sqlite":
                await Row.objects.create(name="outer")
            await asyncio.create_task(child())
            assert transaction_manager.current() is block
            raise RuntimeError
    assert await names() == ["own"]


async def test_anyio_and_asyncio_end_blocks_alike(database: Database) -> None:
    async def anyio_scope(call: Callable[[], Awaitable[None]]) -> None:
        with anyio.move_on_after(0.05):
            await call()

    async def asyncio_timeout(call: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call()

    async def wait_for(call: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.ensure_future(call()), 0.05)

    async def group(call: Callable[[], Awaitable[None]]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await asyncio.sleep(0.05)
            tasks.cancel_scope.cancel()

    ended: list[bool | None] = []

    async def hang() -> None:
        block = transaction_manager.atomic()
        try:
            async with block:
                await Row.objects.create(name="a")
                async with transaction_manager.atomic():
                    await Row.objects.create(name="b")
                    await asyncio.sleep(30)
        finally:
            ended.append(block.committed)

    for way in (anyio_scope, asyncio_timeout, wait_for, group):
        await way(hang)
        assert at_rest(database)
    assert ended == [False] * 4
    assert await names() == []


async def test_return_break_and_yield_leave_blocks(database: Database) -> None:
    async def returning() -> str:
        async with transaction_manager.atomic():
            await Row.objects.create(name="return")
            return "done"

    async def yielding() -> AsyncIterator[int]:
        async with transaction_manager.atomic():
            await Row.objects.create(name="yield")
            yield 1
            yield 2

    assert await returning() == "done"
    for number in range(3):
        async with transaction_manager.atomic():
            await Row.objects.create(name=f"break {number}")
            if number == 1:
                break
    generator = yielding()
    async for _ in generator:
        break
    assert at_rest(database) is False
    await generator.aclose()  # type: ignore[attr-defined]
    assert at_rest(database)
    assert await names() == ["break 0", "break 1", "return"]


async def test_what_is_told_of_statements_tells_of_those_in_blocks(database: Database) -> None:
    told: list[str] = []
    with_watch = lambda event: told.append(f"{event.obtained} {event.name}")  # noqa: E731 - a list of what is told
    watch(database, with_watch)
    async with transaction_manager.atomic():
        await Row.objects.create(name="a")
        async with transaction_manager.atomic(), transaction_manager.share():
            await Row.objects.create(name="b")
    assert told == ["transaction Row.insert"] * 2
