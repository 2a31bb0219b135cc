"""The settings of the drivers: what may stand behind the `?` of a database's URL, or beside it.

They can be read without the drivers being installed. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from covet.exceptions import ConfigurationError

__all__ = [
    "ConnectionOptions",
    "MySQLOptions",
    "PostgreSQLOptions",
    "SQLFunction",
    "SQLiteOptions",
    "ServerOptions",
    "SessionAttribute",
    "TLSMode",
]

TLSMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
"""How much TLS is wanted, in the words of libpq: none; if the server offers it; always, with whatever certificate; with
one that a known authority signed; and with one that is also for the host's name."""
SessionAttribute = Literal["any", "primary", "standby", "prefer-standby", "read-write", "read-only"]
"""Which servers will do, in the words of libpq: of whatever role; no replica; a replica; a replica if there is one; one
whose sessions take writes; one whose sessions do not."""

TLS_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every driver has.

    Attributes:
        connect_timeout: seconds for a connection to be made, with all that belongs to it.
        statement_timeout: seconds after which a statement is ended; 0 for never. SQLite has no clock for it: there it
            is the driver that interrupts the statement.
        read_only: whether the session refuses to write.
    """

    connect_timeout: float = 10.0
    statement_timeout: float = 0.0
    read_only: bool = False

    def __post_init__(self) -> None:
        if not self.connect_timeout > 0:
            raise ConfigurationError(f"connect_timeout is seconds above 0, not {self.connect_timeout}")
        self._require_seconds("statement_timeout")

    @property
    def only_reads(self) -> bool:
        """Whether nobody is to write through it, so that a server that refuses to will do."""
        return self.read_only

    def _require_seconds(self, *names: str) -> None:
        """Times of 0 switch something off; beyond 24 days they do not fit the servers' milliseconds."""
        for name in names:
            seconds = getattr(self, name)
            if not 0 <= seconds <= 2_000_000:
                raise ConfigurationError(f"{name} is seconds from 0 (off) to 2000000, not {seconds}")


class ServerOptions(ConnectionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the servers have in common.

    Attributes:
        application_name: what the server calls the session in its lists and logs.
        lock_timeout: seconds that a statement waits for a lock; 0 for the server's own setting.
        tcp_timeout: seconds after which a connection is given up whose other machine is silent; 0 for what the system
            does by itself.
        tls: how much TLS is wanted.
        tls_ca: a file with the certificates of the authorities that may have signed the server's, for `verify-ca` and
            `verify-full`; by default those of the system.
        tls_certificate: a file with the client's certificate, for `require` and above.
        tls_key: a file with its key, when it is not in the same file.
    """

    application_name: str = "covet"
    lock_timeout: float = 0.0
    tcp_timeout: float = 60.0
    tls: TLSMode = "prefer"
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_seconds("lock_timeout", "tcp_timeout")
        if self.tls_key and not self.tls_certificate:
            raise ConfigurationError("tls_key is the key of tls_certificate, which is not given")
        if self.tls not in TLS_MODES:
            raise ConfigurationError(f"tls is one of {', '.join(TLS_MODES)}, not {self.tls!r}")
        if self.tls_ca and self.tls not in ("verify-ca", "verify-full"):
            raise ConfigurationError(f"tls_ca has an effect with tls verify-ca or verify-full, not with {self.tls!r}")
        if self.tls_certificate and self.tls in ("disable", "prefer"):
            raise ConfigurationError(f"tls_certificate needs tls require, verify-ca or verify-full, not {self.tls!r}")


class PostgreSQLOptions(ServerOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a PostgreSQL database.

    Attributes:
        idle_in_transaction_timeout: seconds after which the server ends a session that does nothing inside of a
            transaction; 0 for the server's own setting.
        statement_cache_size: how many prepared statements a connection keeps.
        pgbouncer: whether a PgBouncer in transaction mode stands between: no statement is prepared by name, the driver
            keeps `statement_timeout` itself, and session settings that PgBouncer does not know are refused.
        target_session_attrs: which of the hosts will do, in the words of libpq. By default that of several which takes
            writes (`read-write`), and `any` where there is one, with `read_only`, or with `pgbouncer`.
        server_settings: further settings of the session, by name.
    """

    idle_in_transaction_timeout: float = 0.0
    statement_cache_size: int = 500
    pgbouncer: bool = False
    target_session_attrs: SessionAttribute | None = None
    server_settings: Mapping[str, str] = {}

    @property
    def only_reads(self) -> bool:
        """Whether nobody is to write through it, so that a server that refuses to will do."""
        return self.read_only or self.target_session_attrs in ("standby", "prefer-standby", "read-only")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_seconds("idle_in_transaction_timeout")
        if self.statement_cache_size < 0:
            raise ConfigurationError(f"statement_cache_size is a number from 0, not {self.statement_cache_size}")
        if self.pgbouncer:
            given = {"lock_timeout": self.lock_timeout, "idle_in_transaction_timeout": self.idle_in_transaction_timeout}
            for name, value in (*given.items(), ("read_only", self.read_only)):
                if value:
                    raise ConfigurationError(
                        f"{name} is a setting of the session, which PgBouncer in transaction mode shares among its "
                        f"clients; set it with ALTER ROLE ... SET on the server"
                    )


class MySQLOptions(ServerOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a MySQL or MariaDB database.

    Attributes:
        charset: the character set of the connection; nothing but `utf8mb4` holds every character.
        sql_mode: the session's SQL mode. The default refuses what would be cut or changed on its way in.
        max_packet: bytes of the largest statement that a batch is put together to; the server's
            `max_allowed_packet` must be larger.
    """

    charset: Literal["utf8mb4"] = "utf8mb4"
    sql_mode: str = (
        "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,"
        "NO_ENGINE_SUBSTITUTION,ONLY_FULL_GROUP_BY"
    )
    max_packet: int = 1_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.charset != "utf8mb4":
            raise ConfigurationError(f"charset is utf8mb4, which alone holds every character, not {self.charset!r}")
        if not all(mode.isidentifier() for mode in self.sql_mode.split(",") if mode):
            raise ConfigurationError(f"sql_mode is names with commas between, not {self.sql_mode!r}")
        if not 1024 <= self.max_packet <= 1_073_741_824:
            raise ConfigurationError(f"max_packet is bytes from 1024 to 1073741824, not {self.max_packet}")


class SQLFunction(msgspec.Struct, frozen=True):
    """A function that SQL may call; SQLite runs it in the process.

    Attributes:
        name: its name in SQL.
        arguments: how many it takes, -1 for any number.
        function: takes and gives int, float, str, bytes and None.
        deterministic: whether the same arguments always give the same result, which indexes need.
        aggregate: whether it makes one value of many rows: `function` is then a class whose `step` takes the arguments
            of one row after the other, and whose `finalize` gives the result.
    """

    name: str
    arguments: int
    function: Callable[..., Any]
    deterministic: bool = True
    aggregate: bool = False


JOURNAL_MODES = ("wal", "delete", "truncate", "persist", "memory", "off")
SYNCHRONOUS = ("off", "normal", "full", "extra")


class SQLiteOptions(ConnectionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of an SQLite database.

    Attributes:
        busy_timeout: seconds that a statement waits for the lock of another connection.
        journal_mode: `wal` lets readers read while one writes; a database in memory has none.
        synchronous: `normal` loses nothing when the process dies, and with `wal` at most the last transactions when
            the machine does; `full` not even these.
        foreign_keys: whether foreign keys are checked.
        cache_size: KiB of pages that a connection keeps in memory.
        create_functions: functions that SQL may call.
    """

    busy_timeout: float = 5.0
    journal_mode: Literal["wal", "delete", "truncate", "persist", "memory", "off"] = "wal"
    synchronous: Literal["off", "normal", "full", "extra"] = "normal"
    foreign_keys: bool = True
    cache_size: int = 2000
    create_functions: tuple[SQLFunction, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_seconds("busy_timeout")
        for name, known in (("journal_mode", JOURNAL_MODES), ("synchronous", SYNCHRONOUS)):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")
        if not 0 < self.cache_size <= 2_000_000:
            raise ConfigurationError(f"cache_size is KiB from 1 to 2000000, not {self.cache_size}")
