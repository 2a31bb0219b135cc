"""What only PostgreSQL has: PgBouncer, several hosts, roles, cached statements."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.driver_cases import connected, driver_for, endless
from tests.services import pgbouncer
from tests.services.https import Certificate
from tests.services.pgbouncer import PgBouncer
from tests.services.postgresql import PostgreSQL

from covet_orm.drivers.postgresql import PostgreSQLConnection, PostgreSQLDriver
from covet_orm.drivers.protocol import SessionState
from covet_orm.exceptions import (
    DatabaseUnavailable,
    DataError,
    ProgrammingError,
    ReadOnlyDatabase,
    SerializationFailure,
    StatementTimeout,
)
from covet_orm.urls import parse_url

pytestmark = pytest.mark.anyio


@pytest.fixture
def bouncer(databases: Any) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode, with fewer connections than it has clients."""
    server = databases.postgresql(15)
    server.empty_database("test")
    with pgbouncer.run(server, {"default_pool_size": 2}) as running:
        yield running


async def test_many_clients_of_pgbouncer_share_few_connections(bouncer: PgBouncer) -> None:
    url = f"{bouncer.url('test')}?pgbouncer=true"
    async with connected(url) as first:
        await first.script(
            "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE items (id INTEGER, mood mood, moods mood[])"
        )
    rng = random.Random(7)
    inserted = 0

    async def work(client: int) -> None:
        nonlocal inserted
        async with connected(url) as connection:
            for number in range(40):
                match rng.randrange(6):
                    case 0:
                        assert (await connection.fetch("SELECT $1::int + 1", [number]))[0][0] == number + 1
                    case 1:
                        row = [client * 1000 + number, "glad", ["sad", None]]
                        assert await connection.execute("INSERT INTO items VALUES ($1, $2, $3)", row) == 1
                        inserted += 1
                    case 2:
                        select = "SELECT moods, mood FROM items WHERE id > $1 AND moods <> '{}' LIMIT 1"
                        columns, rows = await connection.query(select, [-1])
                        assert columns == ("moods", "mood")
                        assert all(tuple(row) == (["sad", None], "glad") for row in rows)
                    case 3:
                        await connection.script("BEGIN")
                        numbers = "SELECT n FROM generate_series(1, $1::int) AS s(n)"
                        sizes = [len(chunk) async for chunk in connection.stream(numbers, [25], size=10)]
                        assert sizes == [10, 10, 5]
                        assert connection.state is SessionState.TRANSACTION
                        await connection.script("COMMIT")
                    case 4:
                        with pytest.raises(DataError):
                            await connection.fetch("SELECT $1::int, $2::text", ["text", "a"])
                    case 5:
                        rows = [(client * 1000 + number, "sad"), (client * 1000 + number, "glad")]
                        await connection.execute_many("INSERT INTO items (id, mood, moods) VALUES ($1, $2, '{}')", rows)
                        await connection.execute("DELETE FROM items WHERE moods = '{}'")
                assert connection.state is SessionState.IDLE

    await asyncio.gather(*(work(client) for client in range(8)))
    async with connected(url) as last:
        assert [tuple(row) for row in await last.fetch("SELECT count(*) FROM items")] == [(inserted,)]
        assert await last.fetch("SELECT name FROM pg_prepared_statements WHERE name <> ''") == []
        assert [tuple(row) for row in await last.fetch("SHOW TimeZone")] == [("UTC",)]
        assert isinstance(last, PostgreSQLConnection)
        assert last.in_recovery is None


async def test_a_refused_parameter_keeps_no_connection_of_pgbouncer(bouncer: PgBouncer) -> None:
    url = f"{bouncer.url('test')}?pgbouncer=true"
    connections = [await driver_for(url).connect() for _ in range(6)]
    try:
        for connection in connections:
            with pytest.raises(DataError):
                await connection.fetch("SELECT $1::int", ["text"])
        for connection in connections:
            assert len(await asyncio.wait_for(connection.fetch("SELECT 1"), 10)) == 1
    finally:
        for connection in connections:
            await connection.close()


async def test_a_stream_through_pgbouncer_that_is_left_early(bouncer: PgBouncer) -> None:
    async with connected(f"{bouncer.url('test')}?pgbouncer=true") as connection:
        await connection.script("BEGIN")
        stream = connection.stream("SELECT n FROM generate_series(1, 100000) AS s(n)", size=3)
        await anext(stream)
        await stream.aclose()
        assert connection.state is SessionState.TRANSACTION
        assert await connection.fetch("SELECT name FROM pg_cursors WHERE name <> ''") == []
        await connection.script("COMMIT")


async def test_a_statement_timeout_behind_pgbouncer(bouncer: PgBouncer) -> None:
    connection = await driver_for(f"{bouncer.url('test')}?pgbouncer=true&statement_timeout=0.2").connect()
    with pytest.raises(StatementTimeout, match="statement_timeout"):
        await connection.fetch(endless(connection))
    assert connection.state is SessionState.BUSY
    await connection.close()


async def test_pgbouncer_without_the_option_is_told(bouncer: PgBouncer) -> None:
    url = bouncer.url("test")
    async with connected(url) as one, connected(url) as other:
        await one.fetch("SELECT $1::int", [1])
        await other.script("BEGIN")  # it has the connection that knows the statement
        with pytest.raises(ProgrammingError, match="pgbouncer=true") as caught:
            await one.fetch("SELECT $1::int", [1])
        assert caught.value.code == "26000"
        await other.script("ROLLBACK")
    with pytest.raises(DatabaseUnavailable, match="pgbouncer=true"):
        await driver_for(f"{url}?statement_timeout=1").connect()


async def test_several_hosts_are_tried_in_turn(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    several = url.replace("@", "@nowhere.invalid,127.0.0.1:1,")
    async with connected(several) as connection:
        assert len(await connection.fetch("SELECT 1")) == 1
    with pytest.raises(DatabaseUnavailable) as caught:
        await driver_for("postgresql://a:secret@nowhere.invalid,127.0.0.1:1/b").connect()
    assert "nowhere.invalid" in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)
    async with connected(f"{url}?target_session_attrs=prefer-standby") as connection:
        assert isinstance(connection, PostgreSQLConnection)
        assert connection.in_recovery is False
    with pytest.raises(DatabaseUnavailable, match="target_session_attrs"):
        await driver_for(f"{url}?target_session_attrs=standby").connect()


async def test_a_replica_tells_when_it_is_promoted(databases: Any) -> None:
    primary = databases.postgresql(15)
    with primary.replica() as replica:
        async with connected(f"{replica.url('postgres')}?target_session_attrs=standby") as connection:
            assert isinstance(connection, PostgreSQLConnection)
            assert connection.in_recovery is True
            with pytest.raises(ReadOnlyDatabase) as caught:
                await connection.script("CREATE TABLE a (b INTEGER)")
            assert caught.value.code == "25006"
            both = f"postgresql://covet:secret@127.0.0.1:{primary.port},127.0.0.1:{replica.port}/postgres"
            async with connected(f"{both}?target_session_attrs=standby") as chosen:
                assert isinstance(chosen, PostgreSQLConnection)
                assert chosen.in_recovery is True
            await asyncio.to_thread(replica.promote)
            for _ in range(100):
                await connection.fetch("SELECT 1")
                if connection.in_recovery is False:
                    break
                await asyncio.sleep(0.05)
            assert connection.in_recovery is False


async def test_a_table_that_changes_under_a_prepared_statement(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    async with connected(url) as connection, connected(url) as other:
        await other.script("CREATE TABLE items (id INTEGER)")
        await connection.fetch("SELECT * FROM items")
        await other.script("ALTER TABLE items ADD name TEXT")
        # Outside of a transaction it is prepared anew.
        assert await connection.query("SELECT * FROM items") == (("id", "name"), [])
        await other.script("ALTER TABLE items DROP name")
        await connection.script("BEGIN")
        with pytest.raises(SerializationFailure, match="changed"):
            await connection.fetch("SELECT * FROM items")
        assert connection.state is SessionState.FAILED
        await connection.script("ROLLBACK")
        assert await connection.query("SELECT * FROM items") == (("id",), [])


async def test_a_statement_of_nothing(postgresql: PostgreSQL) -> None:
    async with connected(postgresql.empty_database("test")) as connection:
        for nothing in ("", "  ", "-- a comment"):
            for call in (connection.script, connection.execute):
                with pytest.raises(ProgrammingError, match="empty"):
                    await call(nothing)
                assert connection.state is SessionState.IDLE
            assert await connection.fetch(nothing) == []
        assert len(await connection.fetch("SELECT 1")) == 1


async def test_the_session_s_settings(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("test")
    options = {
        "statement_timeout": 1.5,
        "lock_timeout": 2,
        "idle_in_transaction_timeout": 3,
        "application_name": "shop",
        "server_settings": {"search_path": "pg_temp, public"},
    }
    async with connected(url, **options) as connection:
        for name, value in (
            ("statement_timeout", "1500ms"),
            ("lock_timeout", "2s"),
            ("idle_in_transaction_session_timeout", "3s"),
            ("application_name", "shop"),
            ("search_path", "pg_temp, public"),
            ("TimeZone", "UTC"),
        ):
            assert [tuple(row) for row in await connection.fetch(f"SHOW {name}")] == [(value,)]
    with pytest.raises(DatabaseUnavailable, match=r"TLS|SSL"):
        await driver_for(url, tls="require").connect()


async def test_tls() -> None:
    with tempfile.TemporaryDirectory() as folder, PostgreSQL(15) as server:
        certificate = Certificate.make(Path(folder))
        os.chmod(folder, 0o755)
        owner = os.stat(server.folder)
        os.chown(certificate.key, owner.st_uid, owner.st_gid)
        server.settings.update(
            {"ssl": "on", "ssl_cert_file": str(certificate.chain), "ssl_key_file": str(certificate.key)}
        )
        server.start()
        url = server.url("postgres")
        encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        for mode, expected in (("disable", False), ("prefer", True), ("require", True)):
            async with connected(url, tls=mode) as connection:
                assert [tuple(row) for row in await connection.fetch(encrypted)] == [(expected,)]
        with pytest.raises(DatabaseUnavailable, match="TLS failed"):
            await driver_for(url, tls="verify-ca").connect()
        ca = str(certificate.chain)
        async with connected(url, tls="verify-ca", tls_ca=ca) as connection:
            assert len(await connection.fetch("SELECT 1")) == 1
        with pytest.raises(DatabaseUnavailable, match="TLS failed"):
            await driver_for(url, tls="verify-full", tls_ca=ca).connect()
        named = url.replace("127.0.0.1", "localhost")
        async with connected(named, tls="verify-full", tls_ca=ca) as connection:
            assert len(await connection.fetch("SELECT 1")) == 1


async def test_the_driver_is_told_by_its_class() -> None:
    assert isinstance(driver_for("postgresql://h/d"), PostgreSQLDriver)
    assert PostgreSQLDriver(parse_url("postgresql://h/d")).kind == "postgresql"
