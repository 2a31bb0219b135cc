"""MariaDB servers of a test's own, from Debian, and replicas of them.

    with mariadb.run() as server:
        url = server.create_database("shop")

Everything is in a temporary directory and ends with its context, or with the process. Each server begins as a copy of a
template that is made once in a process.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql  # type: ignore[import-untyped]
import pymysql.cursors  # type: ignore[import-untyped]
from tests.services.processes import Keeper, Server, ServiceError, open_unix_socket, unprivileged, wait_until
from tests.services.programs import require

__all__ = ["DURABLE", "PASSWORD", "USER", "MariaDB", "Replica", "run"]

USER = "covet"
PASSWORD = "secret"

# What was committed survives kill -9, but not the end of the machine. The time zone is nobody's, so that a session that
# does not ask for another one is found out.
FAST: Mapping[str, str | int] = {
    "innodb-flush-log-at-trx-commit": 2,
    "sync-binlog": 0,
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "16M",
    "innodb-use-native-aio": 0,
    "innodb-fast-shutdown": 1,
    "aria-pagecache-buffer-size": "8M",
    "performance-schema": 0,
    "max-connections": 200,
    "skip-name-resolve": 1,
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_general_ci",
    "default-time-zone": "+05:45",
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "gtid-strict-mode": 1,
    "slave-net-timeout": 10,
}
DURABLE: Mapping[str, str | int] = {"innodb-flush-log-at-trx-commit": 1, "sync-binlog": 1}
"""Settings under which what was committed survives everything; for tests of faults."""

# It may do everything but write where only replication does.
ACCOUNTS = (
    "SET SESSION sql_log_bin = 0",
    f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
    f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION",
    f"REVOKE READ_ONLY ADMIN ON *.* FROM '{USER}'@'%'",
)


class MariaDB(Server):
    """A MariaDB server.

    It listens on 127.0.0.1, where its user wants the password, and on a Unix socket in `folder`, where `root` has none.

    Args:
        settings: of the server, beside those that make tests fast; they may be changed, and hold from the next start.
    """

    kind = "mariadb"
    # It leaves nothing behind that anybody would have to tidy up.
    farewell = signal.SIGKILL
    graceful = signal.SIGTERM

    def __init__(self, settings: Mapping[str, str | int] | None = None, *, name: str = "mariadb") -> None:
        self.settings = dict(settings or {})
        self.program = require("mariadbd")
        template = _template()
        super().__init__(name)
        self.data = self.folder / "data"
        self.socket = self.folder / "socket"
        try:
            self.keeper.run(["cp", "-a", template, self.data])
        except BaseException:
            self.close()
            raise

    def command(self) -> Sequence[str | Path]:
        """With its settings."""
        settings = {
            **FAST, "datadir": self.data, "socket": self.socket, "bind-address": self.host, "port": self.port,
            "server-id": self.port, "pid-file": self.folder / "pid", "report-host": self.host,
            "report-port": self.port, **self._own_settings(), **self.settings,
        }  # fmt: skip
        return [self.program, "--no-defaults", *(f"--{name}={value}" for name, value in settings.items())]

    def _own_settings(self) -> Mapping[str, str | int]:
        return {}

    def ready(self) -> bool:
        """It lets `root` in."""
        # PyMySQL does not close a socket that it could not connect.
        if not open_unix_socket(self.socket):
            return False
        try:
            self.execute("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True

    # Databases

    def url(self, database: str = "mysql", *, user: str = USER, password: str = PASSWORD) -> str:
        """The URL of a database, whether it is there or not."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"mariadb://{who}@{self.host}:{self.port}/{quote(database, safe='')}"

    def execute(self, sql: str, *params: object, database: str | None = None) -> list[dict[str, Any]]:
        """Run a statement as `root`, over a connection of its own; its rows.

        Raises:
            pymysql.MySQLError: what the server says.
        """
        return self._run([(sql, params)], database)

    def _run(
        self, statements: Sequence[tuple[str, Sequence[object]]], database: str | None = None
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        with (
            pymysql.connect(
                unix_socket=str(self.socket), user="root", database=database, autocommit=True,
                cursorclass=pymysql.cursors.DictCursor, ssl_disabled=True, read_timeout=60, write_timeout=60,
            ) as connection,
            connection.cursor() as cursor,
        ):  # fmt: skip
            for sql, params in statements:
                cursor.execute(sql, params or None)
                rows = [dict(row) for row in cursor.fetchall()]
        return rows

    def create_database(self, name: str) -> str:
        """Make an empty database; its URL."""
        self.execute(f"CREATE DATABASE {_identifier(name)}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whether it is there or not, with all connections to it."""
        self._end_others(name)
        self.execute(f"DROP DATABASE IF EXISTS {_identifier(name)}")

    def empty_database(self, name: str) -> str:
        """Make a database empty, and make it where it is not there; its URL. Ends all connections to it."""
        self._end_others(name)
        identifier = _identifier(name)
        # What holds on to something in spite of all that is to be an error, and no end of waiting.
        self._run([
            ("SET SESSION lock_wait_timeout = 30", ()),
            (f"DROP DATABASE IF EXISTS {identifier}", ()),
            (f"CREATE DATABASE {identifier}", ()),
        ])  # fmt: skip
        return self.url(name)

    def _end_others(self, name: str) -> None:
        """End what could hold locks on a database; prepared transactions belong to no database, so all of them."""
        for row in self.execute("SELECT id FROM information_schema.processlist WHERE db = %s", name):
            # It may have ended by itself.
            with contextlib.suppress(pymysql.err.OperationalError):
                self.execute("KILL CONNECTION %s", row["id"])
        for row in self.execute("XA RECOVER FORMAT = 'SQL'"):
            self.execute(f"XA ROLLBACK {row['data']}")

    # Replication

    @contextlib.contextmanager
    def replica(self, settings: Mapping[str, str | int] | None = None) -> Iterator[Replica]:
        """A replica of it by GTID, with a port of its own, while the context lasts."""
        with Replica(self, settings) as replica:
            yield replica.start()

    def position(self) -> str:
        """How far its log is written: a GTID position, as `MASTER_GTID_WAIT` takes it."""
        return str(self.execute("SELECT @@gtid_binlog_pos AS position")[0]["position"])


class Replica(MariaDB):
    """A replica of a server; it takes queries that only read, of everyone but `root`.

    Attributes:
        primary: whose replica it is.
    """

    def __init__(self, primary: MariaDB, settings: Mapping[str, str | int] | None = None) -> None:
        self.primary = primary
        self._promoted = False
        super().__init__({**primary.settings, **(settings or {})}, name=f"{primary.name}-replica")

    def _own_settings(self) -> Mapping[str, str | int]:
        return {"relay-log": "relay", "log-slave-updates": 1, "read-only": int(not self._promoted)}

    def start(self) -> Replica:
        """Start it, and wait until it replicates; itself.

        Raises:
            ServiceError: it does not.
        """
        super().start()
        if not self._promoted and not self._status():
            self.execute(
                "CHANGE MASTER TO MASTER_HOST = %s, MASTER_PORT = %s, MASTER_USER = %s, MASTER_PASSWORD = %s, "
                "MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1",
                self.primary.host, self.primary.port, USER, PASSWORD,
            )  # fmt: skip
            self.execute("START SLAVE")
        return self

    def _status(self) -> dict[str, Any]:
        rows = self.execute("SHOW SLAVE STATUS")
        return rows[0] if rows else {}

    def pause_replay(self) -> None:
        """Stop applying what it receives; it receives on. Returns when it has stopped."""
        self.execute("STOP SLAVE SQL_THREAD")

    def resume_replay(self) -> None:
        """Go on."""
        self.execute("START SLAVE SQL_THREAD")

    def catch_up(self) -> None:
        """Wait until it has applied what its primary has written so far.

        Raises:
            ServiceError: it does not in time.
        """
        position = self.primary.position()

        def there() -> bool:
            # Not to reach the primary is an error of another kind, which it goes on from by itself.
            if error := self._status().get("Last_SQL_Error"):
                raise ServiceError(f"{self.name}: {error}")
            return bool(self.execute("SELECT MASTER_GTID_WAIT(%s, 0.2) = 0 AS reached", position)[0]["reached"])

        wait_until(there, f"{self.name} has caught up")

    def promote(self) -> None:
        """Make it a primary; return when it is one."""
        for statement in ("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0"):
            self.execute(statement)
        self._promoted = True


@contextlib.contextmanager
def run(settings: Mapping[str, str | int] | None = None) -> Iterator[MariaDB]:
    """A running server while the context lasts; skips the test, or fails it in CI, where MariaDB is missing."""
    with MariaDB(settings) as server:
        yield server.start()


# What all servers share

_templates: list[Path] = []
_making = threading.Lock()


def _template() -> Path:
    """A data directory to copy, made once in a process and removed with it."""
    program = require("mariadbd")
    with _making:
        if not _templates:
            keeper = Keeper("mariadb-template", unprivileged())
            data = keeper.folder / "data"
            try:
                small = [f"--{name}={FAST[name]}" for name in ("innodb-log-file-size", "innodb-use-native-aio")]
                keeper.run([
                    require("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db",
                    "--auth-root-authentication-method=normal", "--skip-name-resolve", *small,
                ])  # fmt: skip
                accounts = keeper.folder / "accounts"
                accounts.write_text("".join(f"{statement};\n" for statement in ACCOUNTS) + "SHUTDOWN;\n", "utf-8")
                accounts.chmod(0o644)
                keeper.run([
                    program, "--no-defaults", f"--datadir={data}", f"--socket={keeper.folder / 'socket'}",
                    f"--pid-file={keeper.folder / 'pid'}", "--skip-networking", f"--init-file={accounts}", *small,
                ])  # fmt: skip
            except BaseException:
                keeper.close()
                raise
            _templates.append(data)
        return _templates[0]


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
