"""The plugin: what it brings to the kernel, what it costs, and the health of databases."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.services.databases import SERVERS, ask
from tests.services.databases import Database as Server
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PASSWORD, PostgreSQL

import covet
import covet_orm.plugin
from covet import Covet
from covet.exceptions import ConfigurationError
from covet.storage import StorageBackend
from covet.testing import TestClient, plugin_sandbox
from covet_orm.databases import Database
from covet_orm.exceptions import DatabaseError, ReadOnlyDatabase
from covet_orm.fields import ForeignKey, IntegerField
from covet_orm.health import check_database
from covet_orm.models import Model, Registry
from covet_orm.nplusone import NPlusOneWarning
from covet_orm.relations.managers import RelatedManager
from covet_orm.store_tables import StoreTableMissing

pytestmark = pytest.mark.anyio

KEY = {"secret_key": "k" * 32}

pages = Registry()


class Page(Model):
    number = IntegerField(default=0)

    class Meta:
        registry = pages

    if TYPE_CHECKING:
        links: RelatedManager[Link]


class Link(Model):
    page = ForeignKey(Page, related_name="links")

    class Meta:
        registry = pages


def application(*plugins: Any, debug: bool = True, **settings: Any) -> Covet:
    return plugin_sandbox(*plugins, orm=covet_orm.plugin, settings={"app": {**KEY, "debug": debug}, **settings})


# What it costs


def test_importing_it_imports_neither_sqlalchemy_nor_a_driver() -> None:
    program = (
        "import sys, covet_orm.plugin\n"
        "print(sorted({'sqlalchemy', 'asyncpg', 'aiomysql', 'aiosqlite'} & "
        "{name.partition('.')[0] for name in sys.modules}))"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert told == "[]\n"


def test_listing_the_plugins_imports_neither(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "covet", "plugins", "list"],
        check=True, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert "covet-orm" in told.stdout
    assert "covet_orm.backend_settings" in told.stderr
    assert "sqlalchemy" not in told.stderr


# Settings


async def test_a_database_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"\[sessions\] database: no storage is called 'default'"):
        application("sessions", sessions={"store": "database"}).build()
    with pytest.raises(ConfigurationError, match=r"\[cache.pages\] database: no storage is called 'other'"):
        application(
            "cache",
            storage={"default": {"url": "sqlite://"}},
            cache={"pages": {"backend": "database", "database": "other"}},
        ).build()


async def test_a_storage_of_another_kind_is_refused() -> None:
    class Shelf:
        kind, url = "shelf", "shelf://"

        def __init__(self, alias: str, settings: Any) -> None:
            self.alias = alias

        async def open(self) -> None: ...

        async def close(self) -> None: ...

        async def check(self) -> None: ...

    class Shelves:
        @covet.hookimpl
        def covet_storage_backends(self) -> dict[str, StorageBackend]:
            import msgspec

            return {"shelf": StorageBackend(Shelf, msgspec.defstruct("ShelfSettings", [("url", str)]))}

    app = application(
        "cache", Shelves(), storage={"default": {"url": "shelf://"}}, cache={"x": {"backend": "database"}}
    )
    with pytest.raises(ConfigurationError, match="of the kind shelf"):
        app.build()


async def test_an_unknown_key_is_told_with_the_nearest() -> None:
    app = application(
        "sessions", storage={"default": {"url": "sqlite://"}}, sessions={"store": "database", "tabel": "visitors"}
    )
    with pytest.raises(ConfigurationError, match="'table'"):
        app.build()


@pytest.mark.parametrize("debug", [False, True])
async def test_tables_are_made_at_the_start_in_debug_mode_alone(
    server: Server, url: str, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(
        "sessions", "cache", debug=debug, storage={"default": {"url": url}},
        sessions={"store": "database"}, cache={"default": {"backend": "database"}},
    )  # fmt: skip
    tables = {
        "postgresql": "SELECT tablename FROM pg_tables WHERE tablename LIKE 'covet%'",
        "mariadb": "SELECT table_name FROM information_schema.tables WHERE table_schema = 'test'",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
    }[server.kind]
    async with app.running():
        names = {row[0] for row in await ask(url, tables)}
        if debug:
            assert names == {"covet_sessions", "covet_cache"}
        else:
            assert names == set()
            assert caplog.text.count("covet db create") == 2
            with pytest.raises(StoreTableMissing):
                await app.backends.configured("cache", "default").backend.get("key")
            # What the line to type does.
            storage = app.storage["default"]
            assert isinstance(storage, Database)
            # Of a registry without models: other tests declare what they like in the usual one.
            assert set(await storage.create_all(Registry())) >= {"covet_sessions", "covet_cache"}
            assert await app.backends.configured("cache", "default").backend.get("key") is None


# Queries in loops


async def told_of(url: str, *, debug: bool, aliases: tuple[str, ...] = ("default",), **more: Any) -> list[str]:
    """What an application is warned of whose handler asks for one object after another, in each of its databases."""
    app = application(debug=debug, storage={alias: {"url": url, **more} for alias in aliases})

    @app.get("/loop/{alias}")
    async def loop(alias: str) -> int:
        pages = await Page.objects.using(alias).order_by("id")
        return sum([await page.links.count() for page in pages])

    @app.get("/statements/{alias}")
    async def statements(alias: str) -> int:
        return sum([await Page.objects.using(alias).filter(id=number).count() for number in range(20)])

    @app.get("/few")
    async def few() -> list[int]:
        return [await page.links.count() for page in await Page.objects.order_by("id")[:5]]

    @app.websocket("/chat")
    async def chat(websocket: covet.WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            await websocket.send_text(str(await Page.objects.count()))

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with TestClient(app) as client:
            database = app.storage["default"]
            assert isinstance(database, Database)
            await database.create_all(pages)
            await Page.objects.bulk_create([Page() for _ in range(10)])
            for alias in aliases:
                assert (await client.get(f"/loop/{alias}")).json() == 0
                assert (await client.get(f"/statements/{alias}")).json() == 10
            # Each request has a count of its own.
            for _ in range(3):
                assert (await client.get("/few")).json() == [0] * 5
            async with client.websocket("/chat") as socket:
                for _ in range(10):
                    await socket.send_text("next")
                    assert await socket.receive_text() == "10"
            # As a worker does.
            for _ in range(10):
                await Page.objects.count()
            unchanged = "fetch_rows" not in vars(database)
        assert unchanged is not (debug and more.get("warn_n_plus_one", True))
        assert "fetch_rows" not in vars(database)
    assert all(one.category is NPlusOneWarning and one.filename == __file__ for one in told)
    return [str(one.message) for one in told]


async def test_a_request_that_asks_in_a_loop_is_warned_of_in_debug_mode(url: str) -> None:
    told = await told_of(url, debug=True)
    assert len(told) == 2, told
    assert "Page.links was asked for 6 times" in told[0]
    assert ".prefetch_related('links')" in told[0]
    assert "Page.count was asked for 6 times" in told[1]


async def test_each_database_is_watched(url: str) -> None:
    told = await told_of(url, debug=True, aliases=("default", "other"))
    assert len(told) == 4, told


async def test_nobody_is_warned_without_debug_mode(url: str) -> None:
    assert await told_of(url, debug=False) == []


async def test_the_warning_can_be_turned_off(url: str) -> None:
    assert await told_of(url, debug=True, warn_n_plus_one=False) == []


async def test_a_database_that_is_not_watched_is_none_that_is_warned_of(url: str) -> None:
    """Beside one that is: what is asked of an object's relation is told of with its statement alone."""
    app = application(storage={"default": {"url": url, "warn_n_plus_one": False}, "other": {"url": url}})

    @app.get("/")
    async def loop() -> int:
        return sum([await page.links.count() for page in await Page.objects.all()])

    async with TestClient(app) as client:
        database = app.storage["default"]
        assert isinstance(database, Database)
        await database.create_all(pages)
        await Page.objects.bulk_create([Page() for _ in range(10)])
        # Warnings are errors in these tests.
        assert (await client.get("/")).json() == 0


# Health


async def test_a_database_that_works_is_well(url: str) -> None:
    app = application("health", storage={"default": {"url": url}})
    async with TestClient(app) as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 200
    told = answer.json()["checks"]
    assert told["database default"]["status"] == "ok"
    assert told["storage default"]["status"] == "ok"


async def test_a_pool_in_full_use_is_no_server_that_is_gone(url: str) -> None:
    async with Database(url, max_size=1, acquire_timeout=5) as database, database.transaction():
        with anyio.fail_after(4):
            await check_database(database)


async def test_a_replica_is_told_from_a_primary(postgresql: PostgreSQL) -> None:
    """`SELECT 1` would not."""
    postgresql.empty_database("test")
    with postgresql.replica() as replica:
        replica.catch_up()
        async with Database(replica.url("test")) as database:
            assert await database.fetch_value("SELECT 1") == 1
            with pytest.raises(ReadOnlyDatabase, match="only reads"):
                await check_database(database)
        async with Database(replica.url("test") + "?target_session_attrs=standby") as meant:
            await check_database(meant)


@pytest.fixture
async def read_only(mariadb: MariaDB) -> AsyncIterator[str]:
    url = mariadb.empty_database("test")
    mariadb.execute("SET GLOBAL read_only = 1")
    yield url
    mariadb.execute("SET GLOBAL read_only = 0")


async def test_a_server_that_only_reads_is_told(read_only: str) -> None:
    async with Database(read_only) as database:
        with pytest.raises(ReadOnlyDatabase, match="only reads"):
            await check_database(database)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_a_server_that_is_gone_is_told_without_the_password(
    server: Any, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = application("health", storage={"default": {"url": url}}, plugins={"health": {"details": "errors"}})
    async with TestClient(app) as client:
        assert (await client.get("/health/ready")).status_code == 200
        await anyio.to_thread.run_sync(server.kill)
        await anyio.sleep(1.1)
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        told = answer.json()["checks"]["database default"]
        assert told["status"] in ("failed", "timeout")
        assert told["critical"] is False
        storage = app.storage["default"]
        assert isinstance(storage, Database)
        with pytest.raises(DatabaseError) as raised:
            await check_database(storage)
    for text in (answer.text, caplog.text, str(raised.value)):
        assert PASSWORD not in text
