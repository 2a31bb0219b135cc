"""Settings: one file, typed, checked whole, every value with its origin.

`covet.toml` (or `[tool.covet]` in pyproject.toml) < environment `COVET_SECTION__KEY` < arguments. Every section is
checked against the schema of its owner: the kernel's own below, a plugin's under `[plugins.NAME]`, a storage backend's
under `[storage.ALIAS]`. An unknown key or an ill-typed value is an error that names file, key, what was expected and the
nearest known key; all of them are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

from covet.exceptions import SettingsError
from covet.secrets import BUILTIN_PROVIDERS, Secret, SecretError
from covet.settings_schema import Fault, build, describe, nearest

__all__ = [
    "AppSettings",
    "Limits",
    "LoggingSettings",
    "PluginsSettings",
    "Row",
    "ServerSettings",
    "Settings",
]

T = TypeVar("T")
MAX_FILE = 1_000_000
ENVIRONMENT = "COVET_"
# Names in the environment that are no settings keys.
RESERVED = frozenset({"COVET_SETTINGS", "COVET_PLUGINS"})

Text = Annotated[str, Meta(min_length=1)]
Bytes = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class AppSettings(Struct, frozen=True, kw_only=True):
    """`[app]`: the application."""

    name: Annotated[Text, Meta(description="The name shown in logs and the OpenAPI document.")] = "covet"
    target: Annotated[
        str,
        Meta(pattern=r"^[\w.]+:[\w.]+$", description="Where the application is, as `module:name`."),
    ] = "app:app"
    debug: Annotated[bool, Meta(description="Show tracebacks in error pages. Never in production.")] = False
    secret_key: Annotated[
        Secret | None,
        Meta(description="What cookies and tokens are signed with; a reference such as `env:COVET_SECRET_KEY`."),
    ] = None


class ServerSettings(Struct, frozen=True, kw_only=True):
    """`[server]`: what `covet run` serves with."""

    host: Annotated[Text, Meta(description="The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on.")] = 8000
    workers: Annotated[int, Meta(ge=1, le=1024, description="How many processes serve.")] = 1
    server: Annotated[Literal["granian", "uvicorn"], Meta(description="The ASGI server.")] = "granian"
    reload: Annotated[bool, Meta(description="Restart when a source file changes; for development.")] = False
    access_log: Annotated[bool, Meta(description="Log every request.")] = False
    shutdown_timeout: Annotated[
        Seconds, Meta(description="Seconds that tasks and open streams get to end at shutdown.")
    ] = 30.0


class Limits(Struct, frozen=True, kw_only=True):
    """`[limits]`: what a request may cost. A route may have others: `Route(limits=...)`."""

    max_body: Annotated[Bytes, Meta(description="Bytes of a request body.")] = 10 * 2**20
    body_timeout: Annotated[Seconds, Meta(description="Seconds until the whole body must have arrived.")] = 30.0
    max_headers: Annotated[Count, Meta(description="How many headers.")] = 100
    max_header_bytes: Annotated[Bytes, Meta(description="Bytes of all headers together.")] = 32 * 2**10
    max_target_bytes: Annotated[Bytes, Meta(description="Bytes of the path, and of the query.")] = 8 * 2**10
    max_query_fields: Annotated[Count, Meta(description="How many members of the query.")] = 1000
    max_form_fields: Annotated[Count, Meta(description="How many fields of a form.")] = 1000
    max_field_bytes: Annotated[Bytes, Meta(description="Bytes of one form field.")] = 2**20
    max_form_bytes: Annotated[Bytes, Meta(description="Bytes of a whole form, files included.")] = 128 * 2**20
    max_files: Annotated[int, Meta(ge=0, description="How many uploaded files.")] = 100
    max_file_bytes: Annotated[Bytes, Meta(description="Bytes of one uploaded file.")] = 100 * 2**20
    spool_bytes: Annotated[Bytes, Meta(description="Bytes of an upload that are kept in memory, not on disk.")] = 2**20


class LoggingSettings(Struct, frozen=True, kw_only=True):
    """`[logging]`: what `covet run` writes to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], Meta(description="The least serious level shown.")
    ] = "info"
    format: Annotated[
        Literal["auto", "human", "json"],
        Meta(description="`human` lines, `json` lines, or `auto`: human in debug mode, else JSON."),
    ] = "auto"


class PluginsSettings(Struct, frozen=True, kw_only=True):
    """`[plugins]`: which plugins take part. A plugin's own settings are in `[plugins.NAME]`."""

    enable: Annotated[
        list[str] | None, Meta(description="Only these take part; without it, all that are installed.")
    ] = None
    disable: Annotated[list[str], Meta(description="These do not take part and are never imported.")] = []
    optional: Annotated[list[str], Meta(description="These may fail without stopping the start.")] = []
    prefer: Annotated[
        list[str], Meta(description="Who wins when two plugins claim the same thing: the first listed.")
    ] = []


SECTIONS: dict[str, type[Struct]] = {
    "app": AppSettings,
    "server": ServerSettings,
    "limits": Limits,
    "logging": LoggingSettings,
}


@dataclass(frozen=True, slots=True)
class Row:
    """A settings key, for people: its dotted name, its value as it may be shown, and where that comes from."""

    key: str
    value: str
    origin: str


class Settings:
    """The settings of one application. Make them with `Settings.load`.

    Attributes:
        app, server, limits, logging, plugins: the kernel's sections.
        storage: the tables `[storage.ALIAS]`, as they were read.
        instances: the settings of plugins, by their type; `settings[TimingSettings]` gets one.
        source: the file they were read from, as it is shown, or None.
    """

    app: AppSettings
    server: ServerSettings
    limits: Limits
    logging: LoggingSettings
    plugins: PluginsSettings

    def __init__(self, tables: dict[str, Any], origins: dict[str, str], source: str | None) -> None:
        self.source = source
        self.instances: dict[type, Any] = {}
        self.development_key: bytes | None = None
        self._origins = origins
        self._claimed: dict[str, Any] = {}
        faults: list[Fault] = []
        known = [*SECTIONS, "plugins", "storage"]
        for section in tables:
            if section not in known:
                faults.append(Fault(section, f"there is no section [{section}]{nearest(section, known)}"))
        for section, schema in SECTIONS.items():
            setattr(self, section, self._section(section, tables.get(section, {}), schema, faults))
        plugins = tables.get("plugins", {})
        if isinstance(plugins, dict):
            self.plugin_tables = {name: table for name, table in plugins.items() if isinstance(table, dict)}
            plugins = {name: value for name, value in plugins.items() if not isinstance(value, dict)}
        else:
            self.plugin_tables = {}
        self.plugins = self._section("plugins", plugins, PluginsSettings, faults)
        storage = tables.get("storage", {})
        self.storage: dict[str, dict[str, Any]] = {}
        if not isinstance(storage, dict) or not all(isinstance(table, dict) for table in storage.values()):
            faults.append(Fault("storage", "each storage has a table of its own, such as [storage.default]"))
        else:
            self.storage = storage
        self._raise(faults)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Read the settings.

        Args:
            path: the file; by default what `COVET_SETTINGS` names, `covet.toml`, or `[tool.covet]` of pyproject.toml
                in the working directory, the first that is there.
            environ: the environment; the process's by default.
            overrides: what goes before both: nested tables, or keys such as `server.port`.

        Raises:
            SettingsError: with every fault that was found.
        """
        environ = os.environ if environ is None else environ
        tables, source = _read(path, environ)
        origins: dict[str, str] = {}
        for key in _keys(tables):
            origins[key] = source or "default"
        faults: list[Fault] = []
        for name, value in environ.items():
            if name.startswith(ENVIRONMENT) and "__" in name and name not in RESERVED:
                key = name.removeprefix(ENVIRONMENT).lower().replace("__", ".")
                _put(tables, key, _Environment(value), faults)
                origins[key] = f"environment {name}"
        if "COVET_PLUGINS" in environ:
            names = [name.strip() for name in environ["COVET_PLUGINS"].split(",") if name.strip()]
            _put(tables, "plugins.enable", names, faults)
            origins["plugins.enable"] = "environment COVET_PLUGINS"
        for key, value in _flat(overrides or {}):
            _put(tables, key, value, faults)
            origins[key] = "argument"
        if faults:
            raise SettingsError("\n".join(f"{fault.key}: {fault.message}" for fault in faults))
        return cls(tables, origins, source)

    @classmethod
    def load_only(cls, overrides: Mapping[str, Any]) -> Settings:
        """Settings of these values alone, without file and environment; for tests.

        Raises:
            SettingsError: with every fault that was found.
        """
        tables: dict[str, Any] = {}
        for key, value in _flat(overrides):
            _put(tables, key, value, [])
        return cls(tables, {key: "argument" for key, _ in _flat(overrides)}, None)

    def _section(self, prefix: str, table: Any, schema: type[T], faults: list[Fault]) -> T:
        made, found = build(schema, table, prefix, Secret)
        faults.extend(found)
        self._claimed[prefix] = made
        return made

    def _raise(self, faults: Sequence[Fault]) -> None:
        if not faults:
            return
        lines = []
        for fault in faults:
            origin = self.origin(fault.key)
            where = f"{origin}: " if origin != "default" else f"{self.source}: " if self.source else ""
            lines.append(f"{where}{fault.key}: {fault.message}")
        what = "a setting is wrong" if len(lines) == 1 else f"{len(lines)} settings are wrong"
        raise SettingsError("\n".join([f"{what}:", *(f"  {line}" for line in lines)]))

    def __getitem__(self, schema: type[T]) -> T:
        """The settings of a plugin, by the type it declared.

        Raises:
            SettingsError: no plugin that takes part declared that type.
        """
        try:
            made: T = self.instances[schema]
        except KeyError:
            raise SettingsError(f"no plugin has declared settings of type {schema.__qualname__}") from None
        return made

    def claim_plugin(self, name: str, schema: type[T], owner: str) -> T:
        """Check `[plugins.NAME]` against a plugin's schema and keep the result.

        Raises:
            SettingsError: the table does not fit.
        """
        faults: list[Fault] = []
        made = self._section(f"plugins.{name}", self.plugin_tables.get(name, {}), schema, faults)
        self._raise(faults)
        self.instances[schema] = made
        return made

    def claim_storage(self, alias: str, schema: type[T], others: Mapping[str, type]) -> T:
        """Check `[storage.ALIAS]` against its backend's schema.

        Args:
            others: the schemas of the other backends by scheme, to say whose option a key is.

        Raises:
            SettingsError: the table does not fit.
        """
        faults: list[Fault] = []
        made = self._section(f"storage.{alias}", self.storage[alias], schema, faults)
        for index, fault in enumerate(faults):
            field = fault.key.rpartition(".")[2]
            owners = [scheme for scheme, other in others.items() if field in getattr(other, "__annotations__", {})]
            if owners and "no key" in fault.message:
                faults[index] = Fault(fault.key, f"{fault.message}; {', '.join(owners)} has an option of that name")
        self._raise(faults)
        return made

    def finish(self, active: Iterable[str], inactive: Iterable[str]) -> None:
        """Refuse tables of plugins that are not installed.

        Raises:
            SettingsError: there is a `[plugins.NAME]` that nobody has claimed.
        """
        active, inactive = list(active), set(inactive)
        faults = []
        for name in self.plugin_tables:
            if f"plugins.{name}" in self._claimed or name in inactive:
                continue
            if name in active:
                faults.append(Fault(f"plugins.{name}", f"the plugin {name!r} takes no settings"))
            else:
                faults.append(Fault(f"plugins.{name}", f"no plugin is called {name!r}{nearest(name, active)}"))
        self._raise(faults)

    def resolve_secrets(self, providers: Mapping[str, Callable[[str], str]]) -> None:
        """Replace every reference to a secret by the secret.

        Raises:
            SettingsError: one cannot be resolved; the message names its key.
        """
        everything = {**BUILTIN_PROVIDERS, **providers}
        faults: list[Fault] = []
        for prefix, made in list(self._claimed.items()):
            resolved = _resolved(made, prefix, everything, faults)
            if resolved is not made:
                self._claimed[prefix] = resolved
                if prefix in SECTIONS:
                    setattr(self, prefix, resolved)
                elif type(made) in self.instances:
                    self.instances[type(made)] = resolved
        self._raise(faults)

    def origin(self, key: str) -> str:
        """Where a value comes from: the file, `environment NAME`, `argument` or `default`."""
        while key:
            if key in self._origins:
                return self._origins[key]
            key = key.rpartition(".")[0]
        return "default"

    def rows(self) -> list[Row]:
        """Every key with its value, secrets hidden, and its origin."""
        rows = []
        for prefix, made in self._claimed.items():
            for field in describe(type(made)):
                key = f"{prefix}.{field.name}"
                rows.append(Row(key, _shown(getattr(made, field.name)), self.origin(key)))
        for alias, table in self.storage.items():
            if f"storage.{alias}" not in self._claimed:
                rows += [Row(f"storage.{alias}.{key}", _shown(value), self.origin(f"storage.{alias}.{key}")) for key, value in table.items()]
        return rows


class _Environment(str):
    """Text from the environment: it may stand for a number, a truth value or, with commas, a list."""

    __slots__ = ()


def _read(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    if path is None:
        path = environ.get("COVET_SETTINGS")
    if path is not None:
        return _toml(Path(path)), str(path)
    if Path("covet.toml").exists():
        return _toml(Path("covet.toml")), "covet.toml"
    if Path("pyproject.toml").exists():
        table = _toml(Path("pyproject.toml")).get("tool", {}).get("covet")
        if table is not None:
            return table, "pyproject.toml [tool.covet]"
    return {}, None


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise SettingsError(f"the settings file {path} is larger than {MAX_FILE} bytes; is it the right one?")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"the settings file {path} is not UTF-8: byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None


def _keys(tables: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tables.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _put(tables: dict[str, Any], key: str, value: Any, faults: list[Fault]) -> None:
    *path, last = key.split(".")
    for name in path:
        tables = tables.setdefault(name, {})
        if not isinstance(tables, dict):
            faults.append(Fault(key, f"{name!r} is a value, not a table"))
            return
    tables[last] = value


def _resolved(made: Any, prefix: str, providers: Mapping[str, Callable[[str], str]], faults: list[Fault]) -> Any:
    import msgspec

    changed: dict[str, Any] = {}
    for field in describe(type(made)):
        value = getattr(made, field.name)
        values = value if isinstance(value, list) else [value]
        if not any(isinstance(item, Secret) for item in values):
            continue
        try:
            found = [item.resolve(providers) if isinstance(item, Secret) else item for item in values]
        except SecretError as error:
            faults.append(Fault(f"{prefix}.{field.name}", str(error)))
            continue
        changed[field.name] = found if isinstance(value, list) else found[0]
    if not changed:
        return made
    return msgspec.structs.replace(made, **changed)


def _shown(value: Any) -> str:
    if isinstance(value, Secret):
        text = value.reveal()
        # A reference tells nothing; a value that stands in the file is hidden.
        return text if text.startswith(("env:", "file:")) else "********"
    if isinstance(value, str):
        return _without_password(value)
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return {True: "true", False: "false", None: "-"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)


def _without_password(text: str) -> str:
    import re

    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:********@", text)
