"""The cache backend `database`, on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from tests.services.databases import SERVERS, ask
from tests.services.databases import Database as Server
from tests.services.postgresql import PostgreSQL

import covet_orm.plugin
from covet.cache import CacheBackend, CacheManager
from covet.testing import plugin_sandbox
from covet.testing.conformance.cache import CacheBackendConformance
from covet_orm.cache import DatabaseCache
from covet_orm.databases import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import DatabaseError, ProgrammingError, SerializationFailure
from covet_orm.expiry import BATCH, EVER
from covet_orm.store_tables import StoreTableMissing, all_or_nothing
from covet_orm.testing import captured_queries
from covet_orm.transactions.options import begin_statement

pytestmark = pytest.mark.anyio

NOW = 1_790_000_000.0
LEAST, MOST = -(2**63), 2**63 - 1


class TestKit(CacheBackendConformance):
    """The kit, unchanged."""

    @pytest.fixture
    async def backend(self, url: str) -> AsyncIterator[CacheBackend]:
        async with Database(url) as database:
            cache = DatabaseCache(database)
            await cache.table.create()
            yield cache

    @pytest.fixture
    async def another(self, backend: CacheBackend, url: str) -> AsyncIterator[CacheBackend]:
        async with Database(url, alias="another") as database:
            yield DatabaseCache(database)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url) as database:
        yield database


async def cache_in(database: Database, **options: Any) -> DatabaseCache:
    cache = DatabaseCache(database, **options)
    await cache.table.create()
    return cache


async def count(database: Database) -> int:
    return int(await database.fetch_value("SELECT count(*) FROM covet_cache"))


# Many at once


async def test_more_keys_than_one_statement_has(database: Database) -> None:
    cache = await cache_in(database)
    many = {f"key {number}": b"%d" % number * 50 for number in range(3000)}
    await cache.set_many(many, None)
    assert await cache.get_many([*many, "missing"]) == many
    assert await cache.delete(list(many)[:2900]) == 2900
    assert await cache.get_many(list(many)) == dict(list(many.items())[2900:])


async def test_many_large_values_at_once(database: Database) -> None:
    """More than a statement may have bytes, on some servers."""
    cache = await cache_in(database)
    many = {f"key {number}": bytes([number]) * 600_000 for number in range(40)}
    await cache.set_many(many, None)
    assert await cache.get_many(list(many)) == many


async def test_those_who_write_the_same_keys_at_once_all_succeed(database: Database) -> None:
    cache = await cache_in(database)
    names = [f"key {number}" for number in range(30)]

    async def write(number: int) -> None:
        for _ in range(5):
            await cache.set_many(dict.fromkeys(names if number % 2 else names[::-1], b"%d" % number), 100)
            await cache.delete(names[number : number + 5])

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(write, number)
    assert len(set((await cache.get_many(names)).values())) <= 8


# Counters


async def test_counting_is_one_statement(database: Database) -> None:
    """Also of a counter that begins, that passes 0, that has ended, and while others count."""
    clock = Clock()
    cache = await cache_in(database, clock=clock)
    await cache.set("ended", b"no number", 5)
    with captured_queries(database) as queries:
        counted = [await cache.increment("count", by, 10) for by in (1, 2, -3, -5, 5, 7, 2)]
        assert counted == [1, 3, 0, -5, 0, 7, 9]
        clock.now += 11
        assert await cache.increment("ended", 3, 10**6) == 3
        assert await cache.increment("count", 2, None) == 2
        assert await cache.increment("count", -2, 1) == 0
        clock.now += 1000
        assert await cache.get("count") == b"0"
        found: list[int] = []

        async def add() -> None:
            for _ in range(20):
                found.append(await cache.increment("many", 2, None))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(add)
    assert sorted(found) == list(range(2, 322, 2))
    assert [query.name for query in queries] == [
        *["covet_cache.increment"] * 10,
        "covet_cache.get",
        *["covet_cache.increment"] * 160,
    ]


NO_NUMBERS = [
    b"", b" ", b"-", b"+5", b" 5", b"5 ", b"5\n", b"\n5", b"5\r\n", b"5.0", b"1e3", b"0x10", b"--1", b"1-", b"five",
    b"\xff", b"5\xff", b"1\x002", b"1\x00", b"\x00", "\u0663".encode(), "\uff15".encode(), b"1_000", b"NaN", b"NULL",
    b"'", b"12345678901234567890", b"9" * 100,
]  # fmt: skip


async def test_what_is_no_number_is_not_counted(database: Database) -> None:
    """Whatever a server would make of it."""
    cache = await cache_in(database)
    for value in NO_NUMBERS:
        await cache.set("key", value, None)
        with pytest.raises(ValueError, match="no number"):
            await cache.increment("key", 1, None)
        assert await cache.get("key") == value


async def test_numbers_in_other_forms_are_counted(database: Database) -> None:
    cache = await cache_in(database)
    for value, by, then in (
        (b"007", 1, 8),
        (b"-0", 5, 5),
        (b"-007", 7, 0),
        (b"0", 2, 2),
        (b"2", 2, 4),
        (b"999999999999999999", 1, 10**18),
        (b"9223372036854775808", -1, MOST),
        (b"9223372036854775806", 1, MOST),
        (b"-9223372036854775807", -1, LEAST),
        (b"1", MOST - 1, MOST),
        (b"-5", 2**63, MOST - 4),
        (b"0", LEAST, LEAST),
    ):
        await cache.set("key", value, None)
        assert await cache.increment("key", by, None) == then, value
        assert await cache.get("key") == b"%d" % then
        assert await cache.increment("key", 0, None) == then
        step = 1 if then == MOST else -1
        if then in (MOST, LEAST):
            with pytest.raises(ValueError, match="64 bits"):
                await cache.increment("key", step, None)
            assert await cache.get("key") == b"%d" % then


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.integers(-4, 4),
            st.sampled_from([MOST, LEAST, MOST - 1, 10**17, -(10**18)]),
            st.sampled_from([b"1", b"-3", b"x", b"\xff"]),
        ),
        max_size=12,
    )
)
async def test_a_counter_is_as_a_number_of_python(database: Database, steps: list[int | bytes]) -> None:
    cache = await cache_in(database)
    await cache.clear()
    value: bytes | None = None
    for step in steps:
        if isinstance(step, bytes):
            await cache.set("key", step, None)
            value = step
            continue
        try:
            then = int(value or b"0") + step
        except ValueError:
            then = MOST + 1
        if LEAST <= then <= MOST:
            assert await cache.increment("key", step, None) == then
            value = b"%d" % then
        else:
            with pytest.raises(ValueError, match=r"no number|64 bits"):
                await cache.increment("key", step, None)
        assert await cache.get("key") == value


async def test_a_counter_too_large_to_keep_is_not_kept(database: Database) -> None:
    cache = await cache_in(database, max_value_bytes=1)
    assert [await cache.increment("key", 10, None) for _ in range(2)] == [10, 10]
    assert await cache.get("key") is None
    assert [await cache.increment("small", 2, None) for _ in range(2)] == [2, 4]


# What leaves


async def test_what_has_expired_goes_with_the_writes(database: Database) -> None:
    clock = Clock()
    cache = await cache_in(database, clock=clock)
    for begin in range(0, 1000, 100):
        await cache.set_many({f"old {begin + number}": b"" for number in range(100)}, 10)
    assert await count(database) == 1000
    clock.now += 10
    for number in range(600):
        await cache.set(f"new {number}", b"", 1000)
    assert await count(database) == 600


async def test_what_has_expired_goes_where_states_are_swapped_alone(database: Database) -> None:
    """As rate limits do it."""
    clock = Clock()
    cache = await cache_in(database, clock=clock)
    await cache.set_many({f"old {number}": b"" for number in range(99)}, 10)
    clock.now += 10
    assert await cache.add("key", b"0", 1000)
    assert await count(database) == 1
    await cache.set_many({f"old {number}": b"" for number in range(30)}, 10)
    clock.now += 10
    for number in range(70):
        assert await cache.compare_and_set("key", b"%d" % number, b"%d" % (number + 1), 1000)
    assert await count(database) == 1


async def test_beyond_its_size_those_go_that_would_expire_next(database: Database) -> None:
    cache = await cache_in(database, max_bytes=500_000)
    await cache.set_many({f"ever {number}": bytes(900) for number in range(100)}, None)
    await cache.set_many({f"soon {number}": bytes(900) for number in range(400)}, 100)
    await cache.set_many({f"later {number}": bytes(900) for number in range(200)}, 200)
    size = int(await database.fetch_value("SELECT sum(size) FROM covet_cache"))
    assert size <= 500_000 + 400 * 1100, "it was left to grow"
    await cache._expiry.limit()
    size = int(await database.fetch_value("SELECT sum(size) FROM covet_cache"))
    assert 500_000 * 0.9 - BATCH * 1100 <= size <= 500_000
    left = await cache.get_many([f"{name} {n}" for name in ("ever", "soon", "later") for n in range(400)])
    kinds = [name.split()[0] for name in left]
    assert kinds.count("ever") == 100
    assert kinds.count("later") == 200
    assert kinds.count("soon") <= 200


async def test_what_cannot_be_removed_is_logged_and_the_value_is_kept(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: Any) -> list[Any]:
        raise DatabaseError("no room")

    monkeypatch.setattr("covet_orm.expiry.remove_first", fail)
    cache = await cache_in(database)
    await cache.set_many({f"{number}": b"1" for number in range(200)}, None)
    assert "no room" in caplog.text
    assert await cache.get("7") == b"1"


async def test_a_value_that_is_too_large_replaces_the_one_before(database: Database) -> None:
    """There is none then."""
    cache = await cache_in(database, max_value_bytes=1000)
    large = bytes(1001)
    for put in (
        lambda: cache.set("key", large, None),
        lambda: cache.set_many({"key": large, "other": b"2"}, None),
        lambda: cache.compare_and_set("key", b"1", large, None),
    ):
        await cache.set("key", b"1", None)
        await put()
        assert await cache.get("key") is None
    assert await cache.add("key", large, None)
    assert await cache.add("key", b"1", None)
    assert await cache.get_many(["key", "other"]) == {"key": b"1", "other": b"2"}


async def test_clearing_removes_more_than_one_batch(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covet_orm.cache.CLEARED", 100)
    cache = await cache_in(database)
    await cache.set_many({f"a{number}": b"" for number in range(350)} | {f"b{number}": b"" for number in range(5)}, 100)
    await cache.clear("a")
    assert await count(database) == 5
    await cache.clear()
    assert await count(database) == 0


# Transactions


async def test_a_value_is_no_part_of_its_callers_transaction(database: Database) -> None:
    """SQLite has one connection that writes, and there it goes along."""
    cache = await cache_in(database)
    with suppress(ZeroDivisionError):
        async with database.transaction():
            await cache.set_many({"a": b"1", "b": b"2"}, None)
            await cache.set_many({str(number): b"" for number in range(2000)}, None)
            await cache.set("c", b"3", 100)
            assert await cache.increment("count", 1, None) == 1
            assert await cache.get_many(["a", "c", "1999"]) == {"a": b"1", "c": b"3", "1999": b""}
            raise ZeroDivisionError
    expected = {} if database.kind == "sqlite" else {"a": b"1", "b": b"2", "c": b"3", "count": b"1"}
    assert await cache.get_many(["a", "b", "c", "count"]) == expected


async def test_a_cancelled_call_takes_no_transaction_along(database: Database) -> None:
    """Wherever it is cancelled: by a scope, or as a time limit of asyncio does it."""
    import asyncio

    cache = await cache_in(database)
    await database.script("CREATE TABLE other (number integer)")
    async with database.transaction():
        await database.execute("INSERT INTO other VALUES (1)")
        for steps in range(8):
            task = asyncio.current_task()
            assert task is not None
            loop = asyncio.get_running_loop()

            def cancel(left: int, task: asyncio.Task[Any] = task, loop: Any = loop) -> None:
                if left:
                    loop.call_soon(cancel, left - 1)
                else:
                    task.cancel()

            loop.call_soon(cancel, steps)
            try:
                await cache.set(f"key {steps}", bytes(100_000), None)
                await anyio.sleep(10)
            except asyncio.CancelledError:
                task.uncancel()
        await cache.set("key", b"1", None)
    assert await cache.get("key") == b"1"
    assert await database.fetch_value("SELECT number FROM other") == 1


# SQLite has one connection that writes, which the transaction holds.
@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_a_task_that_was_started_inside_of_a_transaction_has_the_cache(database: Database) -> None:
    cache = await cache_in(database)
    async with database.transaction():
        await database.query("SELECT 1")
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(cache.set, f"key {number}", b"1", None)
        assert len(await cache.get_many([f"key {number}" for number in range(10)])) == 10


async def test_a_statement_that_sqlite_is_at_takes_no_transaction_along(tmp_path: Path) -> None:
    """Interrupted in the middle of writing, SQLite would roll the whole transaction back."""
    rows = 300_000
    many = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n"
    async with Database(f"sqlite:///{tmp_path / 'test.db'}") as database:
        cache = await cache_in(database)
        await database.script("CREATE TABLE other (number integer)")
        async with database.transaction():
            await database.execute("INSERT INTO other VALUES (1)")
            with anyio.move_on_after(0.02) as scope:
                await cache.table.run(lambda connection: connection.execute(f"INSERT INTO other {many}"), name="other")
            assert scope.cancelled_caught
        assert await database.fetch_value("SELECT count(*) FROM other") == 1 + rows


# SQLite locks no rows: one connection writes at a time.
@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_a_cancelled_call_has_ended_when_it_returns(server: Server, url: str, database: Database) -> None:
    """What it waited for comes too late: it has no effect any more."""
    cache = await cache_in(database)
    await cache.set("key", b"1", None)
    table = cache.table.table
    async with Database(url, alias="other") as other, other.transaction():
        await other.query(select(table.c.key).where(table.c.key == b"key").with_for_update())
        for call in (
            partial(cache.set, "key", b"2", None),
            partial(cache.delete, ["key"]),
            partial(cache.compare_and_set, "key", b"1", b"2", None),
        ):
            with anyio.move_on_after(0.3) as scope:
                await call()
            assert scope.cancelled_caught
            if server.kind == "postgresql":
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                assert await other.fetch_value(waiting) == 0
    await anyio.sleep(0.2)
    assert await cache.get("key") == b"1"


# The table


async def test_a_missing_table_says_the_line_to_type(database: Database) -> None:
    cache = DatabaseCache(database)
    with pytest.raises(StoreTableMissing, match="covet db create"):
        await cache.get("key")
    assert await database.create_all() == ["covet_cache"]
    assert await cache.get("key") is None


@pytest.mark.parametrize("unlogged", [False, True])
async def test_the_table_may_be_unlogged(postgresql: PostgreSQL, unlogged: bool) -> None:
    url = postgresql.empty_database("test")
    async with Database(url) as database:
        await cache_in(database, unlogged=unlogged)
        kind = await database.fetch_value("SELECT relpersistence FROM pg_class WHERE relname = 'covet_cache'")
        assert kind == (b"u" if unlogged else b"p")


async def test_an_unlogged_table_is_empty_after_a_crash_and_works(postgresql: PostgreSQL) -> None:
    async with Database(postgresql.empty_database("test"), retry_after=0.05) as database:
        cache = await cache_in(database, unlogged=True)
        await cache.set("key", b"1", None)
        await anyio.to_thread.run_sync(postgresql.kill)
        await anyio.to_thread.run_sync(postgresql.start)
        with anyio.fail_after(30):
            while True:
                try:
                    assert await cache.get("key") is None
                    break
                except DatabaseError:
                    await anyio.sleep(0.05)
        assert await cache.add("key", b"2", None)


async def test_the_indexes_of_the_table_are_as_few_as_can_be(server: Server, url: str, database: Database) -> None:
    await cache_in(database)
    asked = {
        "postgresql": "SELECT indexname FROM pg_indexes WHERE tablename = 'covet_cache'",
        "mariadb": "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_name = 'covet_cache'",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
    }
    # SQLite keeps the rows in the primary key itself.
    assert len(await ask(url, asked[server.kind])) == (1 if server.kind == "sqlite" else 2)


def test_limits_are_above_zero() -> None:
    with pytest.raises(ValueError, match="above 0"):
        DatabaseCache(Database("sqlite://"), max_bytes=0)
    with pytest.raises(ValueError, match="above 0"):
        DatabaseCache(Database("sqlite://"), max_value_bytes=0)


# Faults


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_values_are_there_after_the_server_was_killed(server: Any, url: str) -> None:
    async with Database(url, retry_after=0.05) as database:
        cache = await cache_in(database)
        await cache.set("key", b"1", None)
        await anyio.to_thread.run_sync(server.kill)
        with pytest.raises(DatabaseError):
            await cache.get("key")
        await anyio.to_thread.run_sync(server.start)
        with anyio.fail_after(30):
            while True:
                try:
                    assert await cache.get("key") == b"1"
                    break
                except DatabaseError:
                    await anyio.sleep(0.05)


# Several statements


async def test_of_several_statements_all_happen_or_none(database: Database) -> None:
    """Inside of a transaction of SQLite, which has one connection that writes: those of the store alone."""
    cache = await cache_in(database)
    await database.execute("CREATE TABLE other (a int)")

    async def call(connection: Connection) -> None:
        async with all_or_nothing(connection, begin_statement(database.kind)):
            insert = cache.table.compiled(("add",))
            values = {"key": b"key", "value": b"value", "size": 1, "expires": EVER, "now": 0.0}
            assert (await connection.insert(insert.sql, insert.parameters(values))).changed == 1
            await connection.execute("INSERT INTO nowhere VALUES (1, 2)")

    for inside in (False, True):
        if inside:
            async with database.transaction():
                await database.execute("INSERT INTO other VALUES (1)")
                with pytest.raises((ProgrammingError, StoreTableMissing)):
                    await cache.table.run(call, name="both")
        else:
            with pytest.raises((ProgrammingError, StoreTableMissing)):
                await cache.table.run(call, name="both")
        assert await cache.get("key") is None
    assert await database.fetch_value("SELECT count(*) FROM other") == 1
    assert await cache.increment("count", 1, None) == 1


async def test_what_the_server_ended_for_the_sake_of_another_is_tried_again(database: Database) -> None:
    """A few times."""
    cache = await cache_in(database)
    tries: list[int] = []

    def ended(times: int) -> Any:
        async def call(connection: Connection) -> int:
            tries.append(1)
            if len(tries) <= times:
                raise SerializationFailure("somebody else was first")
            return 5

        return call

    assert await cache.table.run(ended(3), name="tried") == 5
    assert len(tries) == 4
    tries.clear()
    with pytest.raises(SerializationFailure):
        await cache.table.run(ended(1000), name="tried")
    assert 4 < len(tries) < 20
    assert {pool.stats.in_use for pool in database.pools()} == {0}


# An application


async def test_an_application_has_it_by_alias_and_by_name(url: str) -> None:
    """As [cache.ALIAS], and as `CacheManager(backend="database")` without a table in the settings."""
    app = plugin_sandbox(
        "cache",
        orm=covet_orm.plugin,
        settings={
            "app": {"secret_key": "k" * 32, "debug": True},
            "storage": {"default": {"url": url}},
            "cache": {"pages": {"backend": "database", "table": "pages"}},
        },
    )
    by_alias, by_name = CacheManager("pages"), CacheManager(backend="database")
    calls = 0

    async def compute() -> Any:
        nonlocal calls
        calls += 1
        await anyio.sleep(0.05)
        return [1, 2]

    async def ask_for(cache: CacheManager) -> None:
        assert await cache.get_or_set("key", compute) == [1, 2]

    async with app.running():
        for cache in (by_alias, by_name):
            calls = 0
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(ask_for, cache)
            assert calls == 1
            assert await cache.get("key") == [1, 2]
            await cache.set("tagged", 1, tags=["a"])
            await cache.invalidate("a")
            assert await cache.get("tagged") is None
            for number in range(250):
                await cache.set(f"key {number}", number)
            await cache.clear()
            assert await cache.get("key") is None
    names = {row[0] for row in await ask(url, "SELECT count(*) FROM pages", "SELECT count(*) FROM covet_cache")}
    assert names == {0}
