"""Events of transactions, the log of slow ones, and the warning of those that nobody uses."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

import anyio
import pytest
from tests.line_database import until
from tests.services.databases import SERVERS
from tests.services.proxy import Proxy

import covet
import covet_orm.plugin
from covet import ConfigurationError, Covet
from covet.testing import TestClient, plugin_sandbox
from covet.testing.conformance.faults import at_every_await
from covet_orm import (
    CharField,
    CommitUncertain,
    Database,
    DeadlockDetected,
    IntegerField,
    LockTimeout,
    Model,
    PoolTimeout,
    Registry,
    SerializationFailure,
    UniqueViolation,
    transaction_manager,
)
from covet_orm.events import (
    QueryDone,
    SavepointEnded,
    SavepointSet,
    TransactionBegun,
    TransactionDeadlocked,
    TransactionEnded,
    TransactionIdle,
    TransactionRetried,
    TransactionSlow,
)
from covet_orm.transactions import telling, timing
from covet_orm.urls import parse_url

pytestmark = pytest.mark.anyio
registry = Registry()
LOGGER = "covet_orm.transactions"
E = TypeVar("E")


class Row(Model):
    name = CharField(max_length=50, unique=True)
    count = IntegerField(default=0)

    class Meta:
        registry = registry
        db_table = "told_row"


class Listener:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @covet.hookimpl
    def covet_event(self, event: object) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Those of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def listening(url: str, **options: Any) -> AsyncIterator[tuple[Database, Listener]]:
    """A database with tables, and somebody who hears of it."""
    heard = Listener()
    app = Covet({}, plugins={"listener": heard}, installed_plugins=False)
    async with app.running(), Database(url, **options) as database:
        await database.create_all(registry)
        heard.events.clear()
        yield database, heard
        assert all(pool.stats.in_use == 0 for pool in database.pools())


async def test_the_beginning_and_the_end_are_told(url: str) -> None:
    async with listening(url) as (_, heard):
        async with transaction_manager.atomic(isolation="serializable", label="two rows"):
            await Row.objects.create(name="a")
            await Row.objects.create(name="b")
        (begun,) = heard.of(TransactionBegun)
        assert (begun.database, begun.label, begun.isolation, begun.read_only) == (
            "default", "two rows", "serializable", False,
        )  # fmt: skip
        assert begun.seconds > 0
        (ended,) = heard.of(TransactionEnded)
        assert (ended.label, ended.outcome, ended.statements, ended.attempt) == ("two rows", "committed", 2, 0)
        assert (ended.error, ended.code, ended.route) == (None, "", "")
        assert 0 < ended.idle < ended.seconds
        assert [type(event) for event in heard.events] == [TransactionBegun, QueryDone, QueryDone, TransactionEnded]
        assert not heard.of(TransactionSlow)


async def test_a_block_without_a_statement_tells_nothing(url: str) -> None:
    async with listening(url) as (_, heard):
        async with transaction_manager.atomic(), transaction_manager.atomic():
            pass
        with pytest.raises(RuntimeError):
            async with transaction_manager.atomic():
                raise RuntimeError
        assert heard.events == []


async def test_a_rollback_is_told_with_its_error(url: str) -> None:
    async with listening(url) as (_, heard):
        await Row.objects.create(name="a")
        with pytest.raises(UniqueViolation) as caught:
            async with transaction_manager.atomic():
                await Row.objects.create(name="a")
        (ended,) = heard.of(TransactionEnded)
        assert (ended.outcome, ended.error, ended.code) == ("rolled back", "UniqueViolation", str(caught.value.code))
        assert ended.code


async def test_savepoints_are_told(url: str) -> None:
    async with listening(url) as (_, heard):
        async with transaction_manager.atomic(label="outer"):
            await Row.objects.create(name="a")
            async with transaction_manager.atomic(label="kept"):
                await Row.objects.create(name="b")
                with pytest.raises(UniqueViolation):
                    async with transaction_manager.atomic(label="lost"):
                        await Row.objects.create(name="b")
            async with transaction_manager.atomic(savepoint=False):
                await Row.objects.create(name="c")
        told = [(one.label, one.transaction, one.depth) for one in heard.of(SavepointSet)]
        assert told == [("kept", "outer", 1), ("lost", "outer", 2)]
        ends = [(one.label, one.depth, one.kept, one.error) for one in heard.of(SavepointEnded)]
        assert ends == [("lost", 2, False, "UniqueViolation"), ("kept", 1, True, None)]
        (ended,) = heard.of(TransactionEnded)
        # Without BEGIN, COMMIT and what savepoints take.
        assert (ended.outcome, ended.statements) == ("committed", 4)


async def test_a_stream_is_one_statement_and_the_loop_is_idle(url: str) -> None:
    async with listening(url) as (_, heard):
        await Row.objects.bulk_create([Row(name=str(number)) for number in range(25)])
        heard.events.clear()
        async with transaction_manager.atomic():
            assert len([row async for row in Row.objects.iterator(chunk_size=10)]) == 25
            async with aclosing(Row.objects.iterator(chunk_size=10)) as rows:
                await anext(rows)
        (ended,) = heard.of(TransactionEnded)
        assert (ended.outcome, ended.statements) == ("committed", 2)


async def test_every_way_to_the_connection_is_counted(url: str) -> None:
    async with listening(url) as (database, heard):
        placeholder = {"postgresql": "$1", "mariadb": "%s", "sqlite": "?"}[database.kind]
        async with transaction_manager.atomic(), database.connection() as connection:
            await connection.fetch("SELECT 1")
            await connection.query("SELECT 1")
            await connection.execute("SELECT 1")
            await connection.script("SELECT 1")
            await database.execute_many(f"DELETE FROM told_row WHERE id = {placeholder}", [(-1,)])
        (ended,) = heard.of(TransactionEnded)
        assert ended.statements == 5


async def test_what_could_not_begin_is_told(url: str) -> None:
    async with listening(url, max_size=1, acquire_timeout=0.05) as (database, heard):
        pool = await database.pool_for(reads=False)
        held = await pool.acquire()
        with pytest.raises(PoolTimeout):
            async with transaction_manager.atomic(label="late"):
                await Row.objects.create(name="a")
        pool.release(held)
        assert heard.of(TransactionBegun) == []
        (ended,) = heard.of(TransactionEnded)
        assert (ended.label, ended.outcome, ended.error, ended.seconds) == ("late", "rolled back", "PoolTimeout", 0)
        # On SQLite the wait is one for the lock.
        assert (ended.waited > 0) == (database.kind != "sqlite")


async def test_attempts_are_told(url: str) -> None:
    async with listening(url) as (_, heard):
        failures = iter([SerializationFailure("first", code="40001"), LockTimeout("second")])

        @transaction_manager.retry(max_attempts=3, backoff=lambda _: 0.001)
        @transaction_manager.atomic(label="tried")
        async def work() -> None:
            await Row.objects.create(name="a")
            for failure in failures:
                raise failure

        await work()
        told = [(one.label, one.attempt, one.error, one.code) for one in heard.of(TransactionRetried)]
        assert told == [("tried", 1, "SerializationFailure", "40001"), ("tried", 2, "LockTimeout", "")]
        assert all(0 <= one.delay <= 0.001 for one in heard.of(TransactionRetried))
        ends = [(one.attempt, one.outcome, one.error) for one in heard.of(TransactionEnded)]
        assert ends == [
            (1, "rolled back", "SerializationFailure"), (2, "rolled back", "LockTimeout"), (3, "committed", None),
        ]  # fmt: skip


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_a_deadlock_is_told_once(url: str) -> None:
    async with listening(url, max_size=4) as (_, heard):
        await Row.objects.bulk_create([Row(name="a"), Row(name="b")])
        heard.events.clear()
        both = asyncio.Barrier(2)

        async def lock(first: str, second: str) -> None:
            async with transaction_manager.atomic(label=f"{first} {second}"):
                await Row.objects.filter(name=first).update(count=1)
                await both.wait()
                await Row.objects.filter(name=second).update(count=2)

        found = await asyncio.gather(lock("a", "b"), lock("b", "a"), return_exceptions=True)
        (victim,) = [one for one in found if one is not None]
        assert isinstance(victim, DeadlockDetected)
        (told,) = heard.of(TransactionDeadlocked)
        assert told.label == ("a b" if isinstance(found[0], DeadlockDetected) else "b a")
        assert told.sql.startswith("UPDATE")
        assert told.code == str(victim.code) != ""
        outcomes = {one.label: one.outcome for one in heard.of(TransactionEnded)}
        assert sorted(outcomes.values()) == ["committed", "rolled back"]
        assert outcomes[told.label] == "rolled back"


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_an_uncertain_commit_is_told(url: str) -> None:
    async with Database(url, alias="direct") as direct:
        await direct.create_all(registry)
    with Proxy(parse_url(url).hosts[0].port) as proxy:
        heard = Listener()
        app = Covet({}, plugins={"listener": heard}, installed_plugins=False)
        async with app.running(), Database(proxy.url(url), min_size=0):
            with pytest.raises(CommitUncertain):  # noqa: PT012 - the block
                async with transaction_manager.atomic() as block:
                    await Row.objects.create(name="a")
                    block.pre_commit(proxy.cut)
            proxy.heal()
    (ended,) = heard.of(TransactionEnded)
    assert (ended.outcome, ended.error) == ("uncertain", "ConnectionLost")


async def test_the_route_of_the_request_is_told(url: str) -> None:
    heard = Listener()
    database = Database(url)
    app = Covet({}, plugins={"listener": heard}, installed_plugins=False)

    @app.get("/rows/{name}")
    async def rows(name: str) -> int:
        async with database.transaction():
            return await Row.objects.using(database).filter(name=name).count()

    async with TestClient(app) as client:
        await database.create_all(registry)
        heard.events.clear()
        assert (await client.get("/rows/a")).json() == 0
        assert [one.route for one in heard.of(TransactionEnded)] == ["/rows/{name}"]
    await database.close()


async def test_what_hooks_do_is_another_transaction(url: str) -> None:
    async with listening(url) as (_, heard):

        async def after() -> None:
            async with transaction_manager.atomic(label="after"):
                await Row.objects.create(name="b")

        async with transaction_manager.atomic(label="first") as block:
            block.on_commit(after)
            await Row.objects.create(name="a")
        assert [(one.label, one.statements) for one in heard.of(TransactionEnded)] == [("first", 1), ("after", 1)]


async def test_a_shared_transaction_is_one(url: str) -> None:
    async with listening(url) as (_, heard):

        async def child(number: int) -> None:
            async with transaction_manager.atomic(label=f"child {number}"):
                await Row.objects.create(name=str(number))
                await Row.objects.count()

        async with transaction_manager.atomic(label="all"), transaction_manager.share():
            await Row.objects.create(name="first")
            await asyncio.gather(*(child(number) for number in range(4)))
        (ended,) = heard.of(TransactionEnded)
        assert (ended.label, ended.statements) == ("all", 9)
        assert sorted(one.label for one in heard.of(SavepointEnded)) == [f"child {number}" for number in range(4)]


async def test_each_beginning_has_its_end_wherever_it_is_cancelled(url: str) -> None:
    async with listening(url) as (database, heard):
        number = 0

        async def work() -> None:
            nonlocal number
            number += 1
            async with transaction_manager.atomic():
                await Row.objects.create(name=f"{number} a")
                with suppress(RuntimeError):
                    async with transaction_manager.atomic():
                        await Row.objects.create(name=f"{number} b")
                        raise RuntimeError

        async def check() -> None:
            begun, ended = heard.of(TransactionBegun), heard.of(TransactionEnded)
            assert len(begun) <= 1
            assert len(ended) <= 1
            assert len(ended) >= len(begun)
            assert len(heard.of(SavepointSet)) == len(heard.of(SavepointEnded))
            committed = bool(ended and ended[0].outcome == "committed")
            heard.events.clear()
            assert await Row.objects.filter(name=f"{number} a").exists() == committed
            assert all(pool.stats.in_use == 0 for pool in database.pools())
            heard.events.clear()

        assert await at_every_await(work, check) > 3


async def test_nothing_is_built_while_nobody_listens(url: str) -> None:
    async with Covet({}, installed_plugins=False).running(), Database(url) as database:
        await database.create_all(registry)

        async def work(name: str) -> None:
            async with transaction_manager.atomic():
                await Row.objects.create(name=name)
                async with transaction_manager.atomic():
                    await Row.objects.count()

        await work("a")
        called: list[str] = []

        def note(frame: FrameType, event: str, argument: object) -> None:
            if event == "call" and frame.f_code.co_filename in (telling.__file__, timing.__file__):
                called.append(frame.f_code.co_name)

        sys.setprofile(note)
        try:
            await work("b")
        finally:
            sys.setprofile(None)
        assert called == ["tell_of"]


async def test_slow_transactions_are_logged_with_their_line(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(url, slow_transaction=0) as (_, heard):
        caplog.clear()
        with caplog.at_level(logging.WARNING, LOGGER), pytest.raises(UniqueViolation):  # noqa: PT012 - the block
            async with transaction_manager.atomic(label="slow one"):
                await Row.objects.create(name="secret")
                await Row.objects.create(name="secret")
        (record,) = [one for one in caplog.records if one.name == LOGGER]
        told = record.getMessage()
        assert told.startswith("slow transaction: 'slow one', ")
        assert "2 statements" in told
        assert "rolled back for UniqueViolation" in told
        assert f"opened at {__file__}:" in told
        assert "secret" not in told
        (slow,) = heard.of(TransactionSlow)
        assert (slow.label, slow.outcome, slow.statements) == ("slow one", "rolled back", 2)
        line = int(slow.where.removeprefix(f"{__file__}:"))
        assert told.endswith(slow.where)
        assert line == test_slow_transactions_are_logged_with_their_line.__code__.co_firstlineno + 4


async def test_fast_ones_are_not_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    separator = "&" if "?" in url else "?"
    async with Database(f"{url}{separator}slow_transaction=3600&idle_in_transaction_warning=3600") as database:
        await database.create_all(registry)
        with caplog.at_level(logging.WARNING, LOGGER):
            async with transaction_manager.atomic():
                await Row.objects.create(name="a")
        assert not [one for one in caplog.records if one.name == LOGGER]


async def test_an_idle_transaction_is_warned_of_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def opened_here() -> None:
        async with transaction_manager.atomic(label="forgotten"):
            await Row.objects.filter(name="secret").count()
            await until(lambda: bool(heard.of(TransactionIdle)), "it is warned of")
            await Row.objects.count()
            await anyio.sleep(0.2)

    async with listening(url, idle_in_transaction_warning=0.05) as (_, heard):
        with caplog.at_level(logging.WARNING, LOGGER):
            await opened_here()
        (record,) = [one for one in caplog.records if one.name == LOGGER]
        told = record.getMessage()
        assert told.startswith("idle in transaction: 'forgotten' is open in the database 'default'")
        assert "in opened_here" in told
        assert "in test_an_idle_transaction_is_warned_of_once" in told
        assert 'async with transaction_manager.atomic(label="forgotten"):' in told
        assert "SELECT count" in told
        assert "secret" not in told
        # Our own frames say nothing.
        assert "/covet_orm/" not in told
        (idle,) = heard.of(TransactionIdle)
        assert idle.label == "forgotten"
        assert idle.seconds >= 0.05
        assert idle.where.startswith(f"{__file__}:")


async def test_a_statement_under_way_is_not_idle(url: str) -> None:
    async with listening(url, idle_in_transaction_warning=0.1) as (database, heard):
        slow = {
            "postgresql": "SELECT pg_sleep(0.5)",
            "mariadb": "SELECT sleep(0.5)",
            "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000000) "
            "SELECT count(*) FROM n",
        }[database.kind]
        async with transaction_manager.atomic():
            await database.fetch_value(slow)
        assert heard.of(TransactionIdle) == []


async def test_a_block_that_was_left_is_warned_of_no_more(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Database(url, idle_in_transaction_warning=0.05) as database:
        await database.create_all(registry)
        async with transaction_manager.atomic():
            await Row.objects.count()
        async with transaction_manager.atomic():
            # Nothing was sent: no transaction is open.
            await anyio.sleep(0.15)
        assert not [one for one in caplog.records if one.name == LOGGER]


@pytest.mark.parametrize(
    ("debug", "given", "expected"),
    [
        (True, {}, 5),
        (True, {"idle_in_transaction_warning": 0}, 0),
        (True, {"idle_in_transaction_warning": 7}, 7),
        (False, {}, None),
        (False, {"idle_in_transaction_warning": 7}, 7),
    ],
)
async def test_it_is_on_in_debug_mode(debug: bool, given: dict[str, Any], expected: float | None) -> None:
    settings = {
        "app": {"secret_key": "k" * 32, "debug": debug},
        "storage": {"default": {"url": "sqlite://", **given}},
    }
    app = plugin_sandbox(orm=covet_orm.plugin, settings=settings)
    async with TestClient(app):
        database = app.storage["default"]
        assert isinstance(database, Database)
        assert database.observing.idle_in_transaction_warning == expected


def test_a_wrong_setting_is_refused() -> None:
    for name in ("slow_transaction", "idle_in_transaction_warning"):
        with pytest.raises(ConfigurationError, match=name):
            Database(f"sqlite://?{name}=-1")
