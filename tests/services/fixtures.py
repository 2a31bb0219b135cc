"""Fixtures that give tests real databases. A `conftest.py` imports them, so that its folder has them.

A test that asks for `url` runs once on each database, with an empty one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.services.databases import NAMES, Database, Databases, SQLite
from tests.services.mariadb import MariaDB
from tests.services.postgresql import VERSIONS, PostgreSQL

__all__ = ["anyio_backend", "databases", "mariadb", "postgresql", "server", "url"]


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The servers that the tests share, each started when it is first asked for."""
    with Databases() as servers:
        yield servers


@pytest.fixture(params=NAMES)
def server(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Database:
    """Each database in turn, running. It may be stopped and killed: the next test finds it running again."""
    name: str = request.param
    return SQLite(tmp_path) if name == "sqlite" else databases.get(name)


@pytest.fixture
def url(server: Database) -> str:
    """The URL of an empty database on each server in turn."""
    return server.empty_database("test")


@pytest.fixture(params=VERSIONS, ids=lambda version: f"postgresql-{version}")
def postgresql(request: pytest.FixtureRequest, databases: Databases) -> PostgreSQL:
    """Each PostgreSQL in turn, running; for tests of what it alone has."""
    version: int = request.param
    return databases.postgresql(version)


@pytest.fixture
def mariadb(databases: Databases) -> MariaDB:
    """MariaDB, running; for tests of what it alone has."""
    return databases.mariadb()
