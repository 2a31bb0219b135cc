"""Events of queries, watchers, and the log of slow queries."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import pytest
from tests.line_database import until
from tests.services.databases import Database as Server

import covet
import covet_orm.observing
from covet import Covet
from covet.sessions import StoredSession
from covet.testing import TestClient
from covet_orm.cache import DatabaseCache
from covet_orm.databases import Database
from covet_orm.events import PoolExhausted, QueryDone
from covet_orm.exceptions import PoolTimeout, ProgrammingError, UniqueViolation
from covet_orm.fields import CharField, IntegerField, ManyToManyField
from covet_orm.models import Model
from covet_orm.models.registry import Registry
from covet_orm.observing import WATCHED, unwatch, watch
from covet_orm.sessions import DatabaseSessionStore
from covet_orm.store_tables import StoreTableMissing

pytestmark = pytest.mark.anyio

known = Registry()


class Label(Model):
    name = CharField(max_length=20)

    class Meta:
        registry = known
        db_table = "label"


class Book(Model):
    title = CharField(max_length=50, unique=True)
    pages = IntegerField(null=True)
    labels = ManyToManyField(Label, related_name="books")

    class Meta:
        registry = known
        db_table = "book"


class Listener:
    """Keeps the events of queries."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @covet.hookimpl
    def covet_event(self, event: object) -> None:
        self.events.append(event)

    def taken(self) -> list[QueryDone]:
        """Those since the last time."""
        found = [event for event in self.events if isinstance(event, QueryDone)]
        self.events.clear()
        return found


@asynccontextmanager
async def listening(url: str, **options: Any) -> AsyncIterator[tuple[Database, Listener]]:
    """A database with tables, and somebody who hears of its statements."""
    heard = Listener()
    app = Covet({}, plugins={"listener": heard}, installed_plugins=False)
    async with app.running(), Database(url, **options) as database:
        await database.create_all(known)
        heard.events.clear()
        yield database, heard


async def test_a_query_is_told_with_its_name_its_text_and_its_rows(url: str) -> None:
    async with listening(url) as (database, heard):
        await Book.objects.create(title="Emma")
        await Book.objects.create(title="Persuasion")
        await Book.objects.count()
        heard.events.clear()
        assert len(await Book.objects.filter(title__in=["Emma", "Persuasion"])) == 2
        (event,) = heard.taken()
        assert event.database == "default"
        assert event.name.startswith("Book")
        assert event.sql.lstrip().startswith("SELECT")
        assert "Emma" not in event.sql
        assert event.rows == 2
        assert event.seconds > 0
        assert event.waited == 0
        assert event.obtained == "idle"
        assert (event.error, event.code, event.route, event.where) == (None, "", "", "")
        assert event.parameters is None
        assert database.watchers == ()


async def test_parameters_are_told_where_that_is_allowed(url: str) -> None:
    async with listening(url, show_parameters=True) as (_, heard):
        await Book.objects.create(title="Emma", pages=474)
        assert "'Emma'" in (heard.taken()[-1].parameters or "")
        await Book.objects.bulk_create([Book(title="a" * 50), Book(title="b" * 50)])
        assert all(len(event.parameters or "") < 3000 for event in heard.taken())


async def test_every_kind_of_write_is_told(url: str) -> None:
    async with listening(url) as (database, heard):
        book = await Book.objects.create(title="Emma")
        assert "INSERT" in heard.taken()[0].sql
        book.pages = 474
        await book.save()
        (event,) = heard.taken()
        assert event.sql.startswith("UPDATE")
        assert event.rows == 1
        assert event.name == "Book.update"
        await Book.objects.filter(pages=474).update(pages=475)
        (event,) = heard.taken()
        assert event.rows == 1
        assert event.name
        await Book.objects.bulk_create([Book(title=f"volume {number}") for number in range(5)])
        events = heard.taken()
        assert {event.obtained for event in events} == {"transaction"}
        assert max(event.rows for event in events) >= 5 or database.kind == "postgresql"
        many = await Book.objects.filter(pages=None)
        for one in many:
            one.pages = 1
        heard.events.clear()
        await Book.objects.bulk_update(many, ["pages"])
        assert any(event.sql.startswith("UPDATE") for event in heard.taken())
        labels = [await Label.objects.create(name=name) for name in ("a", "b")]
        heard.events.clear()
        await book.labels.add(*labels)
        assert any("INSERT" in event.sql for event in heard.taken())
        await database.execute("DELETE FROM label WHERE 1 = 0")
        (event,) = heard.taken()
        assert event.name == ""
        await book.delete()
        assert any(event.sql.startswith("DELETE") for event in heard.taken())


async def test_a_stream_is_one_query(url: str) -> None:
    async with listening(url) as (_, heard):
        await Book.objects.bulk_create([Book(title=f"volume {number}") for number in range(25)])
        heard.events.clear()
        assert len([book async for book in Book.objects.order_by("id").iterator(chunk_size=10)]) == 25
        (event,) = heard.taken()
        assert event.rows == 25
        assert event.name.startswith("Book")


async def test_errors_are_told_with_their_code(url: str) -> None:
    async with listening(url) as (database, heard):
        await Book.objects.create(title="Emma")
        with pytest.raises(UniqueViolation) as caught:
            await Book.objects.create(title="Emma")
        event = heard.taken()[-1]
        assert event.error == "UniqueViolation"
        assert event.code == str(caught.value.code) != ""
        with pytest.raises(ProgrammingError):
            await database.query("SELECT nothing FROM nowhere")
        assert heard.taken()[-1].error == "ProgrammingError"


async def test_a_cancelled_query_is_told(url: str, server: Server) -> None:
    slow = {
        "postgresql": "SELECT pg_sleep(30)",
        "mariadb": "SELECT sleep(30)",
        "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
    }[server.kind]
    async with listening(url) as (database, heard):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await database.query(slow)
        (event,) = heard.taken()
        assert event.error == "CancelledError"
        assert event.seconds > 0


async def test_waiting_and_transactions_are_told(url: str) -> None:
    async with listening(url, max_size=1) as (database, heard):
        async with database.transaction():
            await Book.objects.create(title="Emma")
            assert {event.obtained for event in heard.taken()} == {"transaction"}
        async with database.connection() as connection:
            waiting = asyncio.create_task(database.execute("DELETE FROM book"))
            await until(lambda: any(isinstance(event, PoolExhausted) for event in heard.events), "it waits")
            await connection.fetch("SELECT 1")
            await connection.fetch("SELECT 1")
        await waiting
        first, second, third = heard.taken()
        assert [first.obtained, second.obtained, third.obtained] == ["idle", "held", "waited"]
        assert third.waited > 0


@pytest.mark.parametrize("show_parameters", [False, True])
async def test_the_statements_of_stores_are_told_without_their_values(url: str, show_parameters: bool) -> None:
    """Whose sessions are slow, wants to see them; what is in them is nobody's affair."""
    async with listening(url, show_parameters=show_parameters) as (database, heard):
        cache, sessions = DatabaseCache(database), DatabaseSessionStore(database)
        await cache.table.create()
        await sessions.table.create()
        heard.events.clear()
        await cache.set_many({f"key {number}": b"value" for number in range(3)}, None)
        await cache.set("large", b"x", None)
        await cache.get("key 1")
        now = time.time()
        kept = StoredSession(
            values=b"", version=1, user=None, created=now, authenticated=None, seen=now, expires=now + 9
        )
        await sessions.create(b"k" * 32, kept, now)
        await sessions.load(b"k" * 32, now)
        async with database.transaction():
            await cache.get("key 1")
        events = heard.taken()
        assert {event.parameters for event in events} == {None}
        assert {event.sql.split()[0] for event in events} == {"INSERT", "SELECT"}
        assert [event.name for event in events if event.sql.startswith("SELECT")] == [
            "covet_cache.get",
            "covet_sessions.load",
            "covet_cache.get",
        ]
        assert {event.name for event in events if event.sql.startswith("INSERT")} == {
            "covet_cache.put",
            "covet_sessions.create",
        }
        assert all(event.rows == 1 for event in events if event.sql.startswith("SELECT"))
        assert (events[-1].obtained == "transaction") == (database.kind == "sqlite")


async def test_a_watcher_hears_of_stores(url: str) -> None:
    async with Database(url) as database:
        cache = DatabaseCache(database, create_table=True)
        await cache.set("key", b"value", None)
        heard: list[QueryDone] = []
        tell = heard.append
        watch(database, tell)
        with pytest.raises(ValueError, match="no number"):
            await cache.increment("key", 1, None)
        unwatch(database, tell)
        await cache.get("key")
        assert [event.name for event in heard] == ["covet_cache.increment", "covet_cache.get"]


async def test_a_store_that_waited_and_one_that_failed_are_told(url: str) -> None:
    async with listening(url, max_size=1) as (database, heard):
        cache = DatabaseCache(database)
        await cache.table.create()
        pool = await database.pool_for(reads=False)
        held = await pool.acquire()
        heard.events.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(cache.set("key", b"value", None))
            await until(lambda: bool(pool._waiters), "the store waits")
            pool.release(held)
        (event,) = heard.taken()
        assert event.obtained == "waited"
        assert event.waited > 0
        await database.execute("DROP TABLE covet_cache")
        heard.events.clear()
        with pytest.raises(StoreTableMissing):
            await cache.get("key")
        (event,) = heard.taken()
        assert event.error is not None


async def test_the_route_of_the_request_is_told(url: str) -> None:
    heard = Listener()
    database = Database(url)
    app = Covet({}, plugins={"listener": heard}, installed_plugins=False)

    @app.get("/books/{key}")
    async def books(key: int) -> int:
        return await Book.objects.using(database).filter(id=key).count()

    async with TestClient(app) as client:
        await database.create_all(known)
        heard.events.clear()
        assert (await client.get("/books/7")).json() == 0
        (event,) = heard.taken()
        assert event.route == "/books/{key}"
    await database.close()


async def test_nothing_is_built_while_nobody_listens(url: str) -> None:
    async with Covet({}, installed_plugins=False).running(), Database(url) as database:
        await database.create_all(known)

        async def work(number: int) -> None:
            book = await Book.objects.create(title=f"volume {number}")
            book.pages = 3
            await book.save()
            await Book.objects.filter(pages=3).first()
            await Book.objects.bulk_create([Book(title=f"other {number}")])

        cache = DatabaseCache(database, create_table=True)

        await work(0)
        await cache.get("first")
        await cache.increment("count", 1, None)
        called: list[str] = []

        def note(frame: FrameType, event: str, argument: object) -> None:
            if event == "call" and frame.f_code.co_filename == covet_orm.observing.__file__:
                called.append(frame.f_code.co_name)

        sys.setprofile(note)
        try:
            await work(1)
            await cache.get("first")
            await cache.increment("count", 1, None)
        finally:
            sys.setprofile(None)
        assert called == []


async def test_a_watcher_hears_without_an_application_until_it_is_removed(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(known)
        first: list[QueryDone] = []
        second: list[QueryDone] = []
        tell_first, tell_second = first.append, second.append
        watch(database, tell_first)
        watch(database, tell_second)
        await Book.objects.using(database).count()
        unwatch(database, tell_first)
        await Book.objects.using(database).count()
        await Book.objects.using(database).filter(pages=1).update(pages=2)
        await Book.objects.using(database).filter(pages=2).delete()
        unwatch(database, tell_second)
        await Book.objects.using(database).count()
        assert len(first) == 1
        assert [event.sql.split()[0] for event in second] == ["SELECT", "SELECT", "UPDATE", "DELETE"]
        assert not {*WATCHED} & vars(database).keys()


async def test_slow_queries_are_logged_with_the_line_that_asked(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Database(url, slow_query=0) as database:
        await database.create_all(known)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "covet_orm.queries"):
            await Book.objects.filter(title="a secret").first()
        (record,) = caplog.records
        told = record.getMessage()
        assert __file__ in told
        assert "SELECT" in told
        assert "a secret" not in told
    separator = "&" if "?" in url else "?"
    async with Database(f"{url}{separator}slow_query=3600&show_parameters=true") as database:
        caplog.clear()
        await Book.objects.first()
        assert not caplog.records
        assert database.observing.show_parameters


async def test_a_timeout_of_the_pool_names_the_last_statement(url: str) -> None:
    async with Database(url, max_size=1, acquire_timeout=0.1) as database:
        await database.create_all(known)
        async with database.transaction():
            await Book.objects.filter(title="Emma").count()
            with pytest.raises(PoolTimeout, match="last: SELECT count"):
                await asyncio.create_task(_outside(database))
        async with database.connection():
            # What the last holder ran is not told of this one.
            with pytest.raises(PoolTimeout) as caught:
                await asyncio.create_task(_outside(database))
            assert "last:" not in str(caught.value)


async def _outside(database: Database) -> None:
    """A connection of the pool for writing, in a task that knows of no transaction."""
    pool = await database.pool_for(reads=False)
    pool.release(await pool.acquire())


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(covet.ConfigurationError, match="slow_query"):
        Database("sqlite://?slow_query=-1")
