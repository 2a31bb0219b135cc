"""The pytest plugin: fixtures for databases.

Asynchronous tests and fixtures run by anyio's own pytest plugin: mark them `@pytest.mark.anyio`, and let the fixture
`anyio_backend` return "asyncio", which the drivers need. Nothing of the ORM is imported until a test asks for one of
them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.testing.databases import TestingDatabase

__all__ = ["covet_database", "covet_database_url", "db", "db_committed", "pytest_addoption"]

VARIABLE = "COVET_TEST_DATABASE"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option `covet_database`."""
    parser.addini("covet_database", f"the URL of the database to test with; {VARIABLE} goes before it", default="")


@pytest.fixture(scope="session")
def covet_database_url(pytestconfig: pytest.Config) -> str:
    """The URL of the database that the tests stand beside: that of the environment (`COVET_TEST_DATABASE`), else the
    ini option `covet_database`, else `[storage.default]` of the project's settings, else SQLite.

    No test touches that database: `covet_database` uses one called `test_…` on the same server. Override the fixture
    for a server that is started for the tests.
    """
    given = os.environ.get(VARIABLE) or pytestconfig.getini("covet_database")
    return str(given) if given else _of_settings() or "sqlite://"


@pytest.fixture(scope="session")
def covet_database(covet_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestingDatabase]:
    """The database of this worker, made for the test run and dropped after it."""
    from covet.exceptions import ConfigurationError
    from covet_orm.exceptions import OrmError
    from covet_orm.testing.databases import TestingDatabase, url_for_tests, worker_name

    try:
        url = url_for_tests(covet_database_url, tmp_path_factory.mktemp("database"), worker_name())
        database = TestingDatabase(url)
        database.create()
    except (ConfigurationError, OrmError) as error:
        raise pytest.UsageError(
            f"the database for the tests cannot be made: {error}; name another one in {VARIABLE}, or as "
            "`covet_database = ...` under [tool.pytest.ini_options]"
        ) from error
    yield database
    database.drop()


@pytest.fixture
async def db(covet_database: TestingDatabase, anyio_backend: Any) -> AsyncIterator[Database]:
    """The database, in one transaction for the whole test that is rolled back in the end; everything that the test and
    the application do with the database `default` happens in it."""
    _require_asyncio(anyio_backend)
    async with covet_database.rolled_back() as database:
        yield database


@pytest.fixture
async def db_committed(covet_database: TestingDatabase, anyio_backend: Any) -> AsyncIterator[Database]:
    """The database with connections and transactions as in production, for tests of what `db` cannot show; slower, as
    the tables are made anew for the next test."""
    _require_asyncio(anyio_backend)
    async with covet_database.committed() as database:
        yield database


def _require_asyncio(backend: Any) -> None:
    name = backend if isinstance(backend, str) else backend[0]
    if name != "asyncio":
        raise pytest.UsageError(
            f"the drivers of databases need asyncio, and this test runs on {name}: let the fixture anyio_backend "
            'return "asyncio"'
        )


def _of_settings() -> str:
    """The URL of `[storage.default]`; empty where the project has none."""
    from covet.settings import Settings

    settings = Settings.load()
    return settings.storage_url("default").reveal() if "default" in settings.storage else ""
