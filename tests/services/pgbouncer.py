"""Debian's PgBouncer before a PostgreSQL server, in transaction mode.

    with pgbouncer.run(server) as bouncer:
        url = bouncer.url("shop")

Of Debian 12 it is version 1.18, which knows no prepared statements: each transaction may get another connection.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tests.services.postgresql import PASSWORD, USER, PostgreSQL
from tests.services.processes import PATIENCE, Server, ServiceError, open_unix_socket
from tests.services.programs import require

__all__ = ["PgBouncer", "run"]

SETTINGS: Mapping[str, str | int] = {
    "pool_mode": "transaction",
    "default_pool_size": 5,
    "max_client_conn": 200,
    "auth_type": "scram-sha-256",
    "admin_users": USER,
    # It answers at once when the server is gone, and tries again soon.
    "server_login_retry": 1,
    "query_wait_timeout": 30,
}


class PgBouncer(Server):
    """A PgBouncer, with the user and the password of its server.

    Args:
        server: the server behind it.
        settings: of its section `[pgbouncer]`; they may be changed, and hold from the next start.
    """

    kind = "postgresql"

    def __init__(self, server: PostgreSQL, settings: Mapping[str, str | int] | None = None) -> None:
        self.server = server
        self.settings = dict(settings or {})
        self.program = require("pgbouncer")
        super().__init__("pgbouncer")

    def command(self) -> Sequence[str | Path]:
        """Writes its settings."""
        users = self.folder / "users"
        users.write_text(f'"{USER}" "{PASSWORD}"\n', encoding="ascii")
        users.chmod(0o644)
        settings = {
            **SETTINGS, "listen_addr": self.host, "listen_port": self.port, "unix_socket_dir": self.folder,
            "auth_file": users, **self.settings,
        }  # fmt: skip
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host={self.server.host} port={self.server.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items()),
            encoding="utf-8",
        )
        configuration.chmod(0o644)
        return [self.program, configuration]

    def ready(self) -> bool:
        """Its socket takes connections."""
        return open_unix_socket(self.folder / f".s.PGSQL.{self.port}")

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD) -> str:
        """The URL of a database of the server's, by way of it."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{who}@{self.host}:{self.port}/{quote(database, safe='')}"

    def show(self, what: str) -> list[dict[str, str]]:
        """What its console tells: `POOLS`, `SERVERS`, `CLIENTS`, `STATS`; one dictionary for each row.

        Raises:
            ServiceError: it tells nothing.
        """
        done = subprocess.run(
            [
                self.server.programs / "psql", "--no-psqlrc", "--csv", "--host", self.host, "--port", str(self.port),
                "--username", USER, "--command", f"SHOW {what}", "pgbouncer",
            ],
            env={**os.environ, "PGPASSWORD": PASSWORD}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ServiceError(f"{self.name}: {done.stderr.strip()}")
        return list(csv.DictReader(io.StringIO(done.stdout)))


@contextlib.contextmanager
def run(server: PostgreSQL, settings: Mapping[str, str | int] | None = None) -> Iterator[PgBouncer]:
    """A running PgBouncer while the context lasts; skips the test, or fails it in CI, where it is missing."""
    with PgBouncer(server, settings) as bouncer:
        yield bouncer.start()
