"""The database of the tests: one per worker of pytest, beside the database that it stands for, dropped in the end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from covet.exceptions import ConfigurationError
from covet_orm import ambient, databases
from covet_orm.databases import Database, Lane
from covet_orm.models.registry import Registry
from covet_orm.models.registry import registry as default_registry
from covet_orm.provisioning import create_database, drop_database, named
from covet_orm.testing.shared import SharedLane, SharedTransaction
from covet_orm.urls import parse_url

__all__ = ["TestingDatabase", "url_for_tests", "worker_name"]

T = TypeVar("T")
PREFIX = "test_"


def url_for_tests(url: str, folder: Path, worker: str = "") -> str:
    """The URL of the database that the tests use in place of another one: `test_` before its name, and the name of the
    worker behind it. On SQLite a file in a folder of the test run.

    Args:
        url: the URL of a database, which is left alone.
        folder: where files may be made.
        worker: the name of pytest-xdist's worker; empty without one.

    Raises:
        ConfigurationError: the URL names no database.
    """
    target = parse_url(url, others=(*databases.POOL_OPTIONS, *databases.OBSERVING_OPTIONS))
    ending = f"_{worker}" if worker else ""
    if target.kind == "sqlite":
        path = folder / f"{PREFIX}{Path(target.database.strip(':')).stem}{ending}.db"
        return named(url, quote(str(path)))
    if not target.database:
        raise ConfigurationError(f"{target.redacted} names no database: write its name behind the host and a slash")
    return named(url, quote(f"{PREFIX}{target.database}{ending}", safe=""))


class TestingDatabase:
    """A database for tests, with the tables of the models.

    Args:
        url: its own URL; what was in that database before is gone.
        alias: which database of the application it stands for.
        registry: whose models; all that chose no registry of their own by default.

    Attributes:
        url, alias, registry: as given.
    """

    __test__ = False  # for pytest, which looks for classes of this name

    def __init__(self, url: str, *, alias: str = "default", registry: Registry | None = None) -> None:
        self.url = url
        self.alias = alias
        self.registry = registry
        self._tables: set[str] = set()

    def create(self) -> None:
        """Make the database, empty. Blocks, and runs no code of the tests' event loop.

        Raises:
            DatabaseError: the server cannot be reached, or the user may not create databases.
        """
        _in_a_thread(self._create)

    def drop(self) -> None:
        """Drop the database.

        Raises:
            DatabaseError: as for `create`.
        """
        _in_a_thread(self._drop)

    @asynccontextmanager
    async def rolled_back(self) -> AsyncIterator[Database]:
        """The database for one test, whose changes are all undone in the end. See `covet_orm.testing.shared`."""
        async with self._plain() as database:
            await self._create_tables(database)
        database = Database(self.url, alias=self.alias)
        shared = SharedTransaction(database)
        await shared.begin()
        try:
            with self._in_place(database, shared.lane):
                await database.open()
                yield database
                await database.close()
        finally:
            await shared.rollback()

    @asynccontextmanager
    async def committed(self) -> AsyncIterator[Database]:
        """The database for one test with pools and transactions as in production; its tables are made anew after it."""
        database = self._plain()
        await database.open()
        try:
            await self._create_tables(database)
            with self._in_place(database, partial(SharedLane.of, database)):
                try:
                    yield database
                finally:
                    await database.drop_all(self.registry)
                    self._tables.clear()
        finally:
            await database.close()

    def _plain(self) -> Database:
        return Database(self.url, alias=self.alias)

    async def _create_tables(self, database: Database) -> None:
        """Create what is missing: modules with models may be imported between two tests."""
        registry = self.registry if self.registry is not None else default_registry
        known = {model._meta.db_table for model in registry}
        if not known <= self._tables:
            await database.create_all(self.registry)
            self._tables |= known

    async def _create(self) -> None:
        database = self._plain()
        await drop_database(database)
        await create_database(database)

    async def _drop(self) -> None:
        await drop_database(self._plain())

    @contextmanager
    def _in_place(self, testing: Database, lane: Callable[[], Lane]) -> Iterator[None]:
        """Let every database of this alias have the pools of the tests', those that are open already included."""

        def lane_for(database: Database) -> Lane | None:
            if database.alias != self.alias:
                return None
            _require_same_kind(database, testing.kind)
            return lane()

        before: list[tuple[Database, Any]] = []
        loop = asyncio.get_running_loop()
        for database in list(ambient.opened):
            if database.alias == self.alias and database is not testing and loop in database._lanes:
                _require_same_kind(database, testing.kind)
                before.append((database, database._lanes[loop]))
                database._lanes[loop] = lane()
        stand_in = ambient.StandIn(testing, lane_for)
        ambient.stand_ins.append(stand_in)
        try:
            yield
        finally:
            ambient.stand_ins.remove(stand_in)
            for database, own in before:
                if loop in database._lanes:
                    database._lanes[loop] = own


def worker_name() -> str:
    """The name of pytest-xdist's worker that this process is; empty without one."""
    return os.environ.get("PYTEST_XDIST_WORKER", "")


def _require_same_kind(database: Database, kind: str) -> None:
    if (database.kind == "sqlite") != (kind == "sqlite") or (database.kind == "postgresql") != (kind == "postgresql"):
        raise ConfigurationError(
            f"the database {database.alias!r} of the application is {database.kind}, and that of the tests {kind}: "
            "name one of the same kind as `covet_database` in the settings of pytest, or in COVET_TEST_DATABASE"
        )
    database.kind = kind


def _in_a_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> None:
    """Run something in an event loop of its own: pytest's plugins may have one in this thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - it goes to whoever waits
            failures.append(error)

    thread = threading.Thread(target=run, name="covet-testing-database")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
