"""Every database that covet-orm speaks to, by name, started when it is first asked for and shared from then on.

In a test, the fixtures of `tests/services/fixtures.py` give them. A script has them so:

    with Databases() as databases:
        for name in NAMES:
            url = databases.get(name).empty_database("bench")
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable
from urllib.parse import unquote, urlsplit

import aiomysql  # type: ignore[import-untyped]
import asyncpg  # type: ignore[import-untyped]
from tests.services.mariadb import MariaDB
from tests.services.postgresql import VERSIONS, PostgreSQL
from tests.services.processes import Server

__all__ = ["NAMES", "SERVERS", "Database", "Databases", "SQLite", "a_server", "ask"]

SERVERS = (*(f"postgresql-{version}" for version in VERSIONS), "mariadb")
"""Those that are servers, for what SQLite cannot have: `@pytest.mark.parametrize("server", SERVERS, indirect=True)`."""
NAMES = ("sqlite", *SERVERS)


@runtime_checkable
class Database(Protocol):
    """What tests ask of a server, or of a folder of files.

    Attributes:
        name: one of `NAMES`.
        kind: `sqlite`, `postgresql` or `mariadb`.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    def url(self, database: str, /) -> str:
        """The URL of a database, whether it is there or not."""
        ...

    def create_database(self, name: str, /) -> str:
        """Make an empty database; its URL."""
        ...

    def drop_database(self, name: str, /) -> None:
        """Remove a database, whether it is there or not."""

    def empty_database(self, name: str, /) -> str:
        """Make a database empty, and make it where it is not there; its URL. Ends all connections to it."""
        ...


async def ask(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements with the raw driver, over TCP and with the password; the rows of the last one."""
    parts = urlsplit(url)
    found: list[Any] = []
    if parts.scheme == "sqlite":
        connection = sqlite3.connect(unquote(parts.path[1:] if parts.path.startswith("//") else parts.path))
        try:
            with connection:
                for statement in statements:
                    found = connection.execute(statement).fetchall()
        finally:
            connection.close()
        return found
    name = unquote(parts.path[1:])
    if parts.scheme == "postgresql":
        # PgBouncer's 1.18 knows no prepared statements.
        postgres = await asyncpg.connect(url, statement_cache_size=0, timeout=30)
        try:
            for statement in statements:
                found = await postgres.fetch(statement)
        finally:
            await postgres.close()
        return [tuple(row) for row in found]
    maria = await aiomysql.connect(
        host=parts.hostname or "", port=parts.port or 0, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), db=name, autocommit=True,
    )  # fmt: skip
    try:
        async with maria.cursor() as cursor:
            for statement in statements:
                await cursor.execute(statement)
            return list(await cursor.fetchall())
    finally:
        maria.close()


def a_server(name: str) -> PostgreSQL | MariaDB:
    """A server of one's own, not started.

    Raises:
        LookupError: it is none of `NAMES`, or `sqlite`, which has none.
    """
    if name == "mariadb":
        return MariaDB()
    if name in NAMES and name != "sqlite":
        return PostgreSQL(int(name.rpartition("-")[2]))
    raise LookupError(f"{name!r} is none of {', '.join(NAMES[1:])}")


class SQLite:
    """Databases of SQLite: files in a folder.

    Args:
        folder: that folder.
    """

    kind = "sqlite"
    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, database: str) -> Path:
        """Its file."""
        return self.folder / f"{database}.db"

    def url(self, database: str) -> str:
        """The URL of a database, whether it is there or not."""
        return f"sqlite:///{self.path(database)}"

    def create_database(self, name: str) -> str:
        """Make sure that it may be made; the first connection makes the file. Its URL.

        Raises:
            FileExistsError: it is there.
        """
        if self.path(name).exists():
            raise FileExistsError(self.path(name))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove its files."""
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{self.path(name)}{suffix}").unlink(missing_ok=True)

    def empty_database(self, name: str) -> str:
        """Remove its files; its URL."""
        self.drop_database(name)
        return self.url(name)


class Databases:
    """The servers of one process, each started when it is first asked for; all of them end with the context."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def get(self, name: str) -> Database:
        """A server by its name, running, whatever was done to it before.

        Without it, the test that is running is skipped, or fails in CI; both say the line to type.

        Raises:
            LookupError: it is none of `NAMES`.
            MissingProgramError: it is not installed, and no test is running.
        """
        if name == "sqlite":
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="covet-sqlite-")
            return SQLite(Path(self._folder.name))
        if name == "mariadb":
            return self.mariadb()
        if name in NAMES:
            return self.postgresql(int(name.rpartition("-")[2]))
        raise LookupError(f"{name!r} is none of {', '.join(NAMES)}")

    def postgresql(self, version: int = 15) -> PostgreSQL:
        """A PostgreSQL server, running."""
        name = f"postgresql-{version}"
        server = self._servers.get(name)
        if not isinstance(server, PostgreSQL):
            server = self._servers[name] = PostgreSQL(version)
        return server.start()

    def mariadb(self) -> MariaDB:
        """The MariaDB server, running."""
        server = self._servers.get("mariadb")
        if not isinstance(server, MariaDB):
            server = self._servers["mariadb"] = MariaDB()
        return server.start()

    def close(self) -> None:
        """End all of them."""
        while self._servers:
            self._servers.popitem()[1].close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
