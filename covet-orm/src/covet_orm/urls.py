"""Database URLs: taken apart, checked, and shown without the password.

`postgresql://user:password@host:5432/database?option=value`, with these liberties: several hosts with commas between
(PostgreSQL); an IPv6 address in brackets; a directory of Unix sockets as the host, percent-encoded, or a socket as the
option `socket`; `postgres` for `postgresql`; `sqlite:///relative.db`, `sqlite:////absolute.db`, and `sqlite://` for a
database in memory. What has a meaning in a URL (`@ : / ? # %`) is percent-encoded where it has none (RFC 3986,
section 2.1).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from ipaddress import IPv6Address
from typing import Any, Literal, get_type_hints
from urllib.parse import quote, unquote_to_bytes

import msgspec

from covet.exceptions import ConfigurationError
from covet.settings_schema import nearest
from covet_orm.drivers.options import ConnectionOptions, MySQLOptions, PostgreSQLOptions, SQLiteOptions

__all__ = ["MEMORY", "Host", "Target", "driver_options", "parse_url"]

MEMORY = ":memory:"
"""The name of an SQLite database that lives in memory and dies with its connection."""

Kind = Literal["postgresql", "mysql", "sqlite"]

SCHEMES: dict[str, Kind] = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
}
PORTS = {"postgresql": 5432, "mysql": 3306}
OPTIONS: dict[Kind, type[ConnectionOptions]] = {
    "postgresql": PostgreSQLOptions,
    "mysql": MySQLOptions,
    "sqlite": SQLiteOptions,
}
ALIASES = {"sslmode": "tls", "sslrootcert": "tls_ca", "sslcert": "tls_certificate", "sslkey": "tls_key"}
"""What URLs for libpq call the same."""
TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
NOT_IN_URLS = {"server_settings", "create_functions"}


class Host(msgspec.Struct, frozen=True):
    """Where a server listens.

    Attributes:
        name: a name, an address, or the path of a Unix socket (MySQL) or of its directory (PostgreSQL).
        port: the TCP port; a socket of PostgreSQL has it in its name.
    """

    name: str
    port: int

    @property
    def is_socket(self) -> bool:
        """Whether it is a Unix socket."""
        return self.name.startswith("/")

    @property
    def encoded(self) -> str:
        """As it stands in a URL."""
        if ":" in self.name and not self.is_socket:
            return f"[{quote(self.name, safe=':')}]:{self.port}"
        return f"{quote(self.name, safe='')}:{self.port}"

    def __str__(self) -> str:
        if self.is_socket:
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A database, as a URL names it.

    Attributes:
        scheme: as it was written, in small letters.
        kind: the driver's: `postgresql`, `mysql` (of MariaDB as well) or `sqlite`.
        user: who connects; empty for whom the driver takes.
        password: never shown.
        hosts: where the server listens, in the order in which they are tried; none for SQLite.
        database: its name; the path of its file (SQLite), or `:memory:`.
        query: what stands behind the `?`, each name known.
    """

    scheme: str
    kind: Kind
    user: str = ""
    password: str | None = None
    hosts: tuple[Host, ...] = ()
    database: str = ""
    query: Mapping[str, str] = {}

    @property
    def redacted(self) -> str:
        """The URL, stars for the password."""
        if self.kind == "sqlite":
            head = "sqlite://" if self.database == MEMORY else f"sqlite:///{quote(self.database)}"
        else:
            user = quote(self.user, safe="")
            if self.password is not None:
                user += ":********"
            hosts = ",".join(host.encoded for host in self.hosts)
            head = f"{self.scheme}://{user}{'@' if user else ''}{hosts}/{quote(self.database, safe='')}"
        if not self.query:
            return head
        return head + "?" + "&".join(f"{name}={quote(value, safe='/')}" for name, value in self.query.items())

    @property
    def where(self) -> str:
        """The database and its hosts, for messages."""
        if self.kind == "sqlite":
            return (
                "the SQLite database in memory" if self.database == MEMORY else f"the SQLite database {self.database!r}"
            )
        name = f"database {self.database!r} at " if self.database else ""
        return f"{name}{', '.join(map(str, self.hosts))}"

    def __repr__(self) -> str:
        return f"<Target {self.redacted}>"

    def __str__(self) -> str:
        return self.redacted


def parse_url(url: str, *, others: Collection[str] = ()) -> Target:
    """The database that a URL names.

    Args:
        url: the URL.
        others: names of query options that are not the driver's and may stand there as well, such as the pool's.

    Raises:
        ConfigurationError: the URL names none; the message shows neither it nor the password.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"a database's URL is text, not {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    kind = SCHEMES.get(scheme)
    if not separator or kind is None:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        what = (
            f"not with {scheme!r}"
            if separator and re.fullmatch(r"[a-z0-9+.-]{1,30}", scheme)
            else "and this one does not"
        )
        hint = nearest(scheme, SCHEMES) if separator and scheme.partition("+")[0] not in SCHEMES else ""
        if separator and scheme.partition("+")[0] in SCHEMES and "+" in scheme:
            hint = f"; leave out the driver and write {scheme.partition('+')[0]}://"
        raise ConfigurationError(
            f"a database's URL begins with one of {known}, {what}{hint if len(hint) < 200 else ''}"
        )
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ConfigurationError(
            "a database's URL has no spaces or control characters; percent-encode them (a space is %20)"
        )
    rest, _, query = rest.partition("?")
    if "#" in rest or "#" in query:
        raise ConfigurationError("a database's URL has no fragment; a '#' in a name or password is written %23")
    options = _query(query, kind, others)
    if kind == "sqlite":
        return _sqlite(rest, options)
    authority, _, database = rest.partition("/")
    if "/" in database:
        raise ConfigurationError(
            "a database's URL has one name after the host; a '/' in a name or password is written %2F"
        )
    userinfo, _, hosts = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    return Target(
        scheme=scheme,
        kind=kind,
        user=_decoded(user, "the user"),
        password=_decoded(password, "the password") if colon else None,
        hosts=_hosts(hosts, kind, options),
        database=_decoded(database, "the database"),
        query=options,
    )


def driver_options(target: Target, overrides: Mapping[str, Any] | None = None) -> ConnectionOptions:
    """The driver's settings: those of the URL, and before them those given.

    Args:
        target: the database.
        overrides: settings by name, of the types of the struct's fields.

    Returns:
        A `PostgreSQLOptions`, `MySQLOptions` or `SQLiteOptions`.

    Raises:
        ConfigurationError: a setting is unknown, or has a value that it cannot have.
    """
    schema = OPTIONS[target.kind]
    fields = set(schema.__struct_fields__)
    given: dict[str, Any] = {name: value for name, value in target.query.items() if name in fields}
    for name, value in (overrides or {}).items():
        if name not in fields:
            raise ConfigurationError(f"{target.kind} has no setting {name!r}{nearest(name, fields)}")
        given[name] = value
    values = {name: _converted(schema, name, value) for name, value in given.items()}
    return schema(**values)


def _converted(schema: type[ConnectionOptions], name: str, value: Any) -> Any:
    """A setting as its field's type; text from a URL stands for numbers and truth values."""
    if name in NOT_IN_URLS:
        return value
    kind = get_type_hints(schema)[name]
    if isinstance(value, str) and kind is bool:
        if value.lower() not in TRUTH:
            raise ConfigurationError(f"{name} is true or false, not {value[:50]!r}")
        return TRUTH[value.lower()]
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the setting {name} does not fit: {error}") from None


def _query(text: str, kind: Kind, others: Collection[str]) -> dict[str, str]:
    """The options of a URL by name, each once and known."""
    known = {name for name in OPTIONS[kind].__struct_fields__ if name not in NOT_IN_URLS}
    if kind != "sqlite":
        known |= {"socket"}
    options: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        name, equals, value = part.partition("=")
        name = _decoded(name, "an option's name")
        name = ALIASES.get(name, name) if kind == "postgresql" else name
        if name not in known and name not in others:
            shown = repr(name) if re.fullmatch(r"[\w.-]{1,40}", name) else "of that name"
            raise ConfigurationError(f"a URL of {kind} has no option {shown}{nearest(name, {*known, *others})}")
        if not equals:
            raise ConfigurationError(f"the option {name} of a database's URL has no value; write {name}=...")
        if name in options:
            raise ConfigurationError(f"the option {name} stands twice in a database's URL")
        options[name] = _decoded(value, f"the option {name}")
    return options


def _sqlite(rest: str, options: Mapping[str, str]) -> Target:
    """The target of an SQLite URL: what stands behind `sqlite://`."""
    if rest and not rest.startswith("/"):
        raise ConfigurationError(
            "an SQLite URL has no host: three slashes before a relative path (sqlite:///app.db), four before an "
            "absolute one (sqlite:////srv/app.db), and sqlite:// for a database in memory"
        )
    path = _decoded(rest[1:], "the path of the database")
    return Target(scheme="sqlite", kind="sqlite", database=path or MEMORY, query=options)


def _hosts(text: str, kind: Kind, options: dict[str, str]) -> tuple[Host, ...]:
    """The hosts of a URL; this machine when it names none. The option `socket` is one, and taken out of the others."""
    port = PORTS[kind]
    socket = options.pop("socket", None)
    if socket is not None:
        if text:
            raise ConfigurationError("a database's URL has a host or the option socket, not both")
        if not socket.startswith("/"):
            raise ConfigurationError("the option socket of a database's URL is an absolute path")
        return (Host(socket, port),)
    if not text:
        return (Host("localhost", port),)
    hosts = tuple(_host(part, port) for part in text.split(","))
    if len(hosts) > 1 and kind == "mysql":
        raise ConfigurationError("a URL of mysql has one host; give the others as read_replicas")
    return hosts


def _host(text: str, default: int) -> Host:
    """One host, with or without a port."""
    match = re.fullmatch(r"(?:\[(?P<six>[^\]@]*)\]|(?P<name>[^:\[\]@]*))(?::(?P<port>[0-9]{0,5}))?", text)
    if match is None:
        raise ConfigurationError(
            "the host in a database's URL is not one: an IPv6 address stands in brackets, a port is a number, and "
            "'@', ':' and '/' in a user's name or password are written %40, %3A and %2F"
        )
    port = int(match["port"] or default)
    if not 0 < port < 65536:
        raise ConfigurationError(f"the port in a database's URL is a number from 1 to 65535, not {port}")
    if match["six"] is not None:
        name = _decoded(match["six"], "the host")
        try:
            IPv6Address(name)
        except ValueError:
            raise ConfigurationError("what stands in brackets in a database's URL is no IPv6 address") from None
        return Host(name, port)
    name = _decoded(match["name"], "the host")
    if not name:
        raise ConfigurationError("a host is missing in a database's URL")
    if not name.startswith("/") and re.search(r"[/\\\s,@:]", name):
        raise ConfigurationError("the host in a database's URL is neither a name nor an absolute path of a Unix socket")
    return Host(name, port)


def _decoded(text: str, what: str) -> str:
    """Text with its percent-encoding taken off (UTF-8)."""
    if re.search(r"%(?![0-9a-fA-F]{2})", text):
        raise ConfigurationError(f"in a database's URL, {what} has a '%' that begins no percent-encoding; write %25")
    try:
        decoded = unquote_to_bytes(text).decode("utf-8")
    except UnicodeError:
        raise ConfigurationError(f"in a database's URL, {what} is not UTF-8") from None
    if "\0" in decoded:
        raise ConfigurationError(f"in a database's URL, {what} has a NUL character, which no database takes")
    return decoded
