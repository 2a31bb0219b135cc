"""Settings: one file, typed, checked whole, every value with its origin.

`covet.toml` (or `[tool.covet]` in pyproject.toml) < environment `COVET_SECTION__KEY` < arguments. Every section is
checked against the schema of its owner: the kernel's own below, a plugin's under `[plugins.NAME]`, a storage backend's
under `[storage.ALIAS]`. An unknown key or an ill-typed value is an error that names file, key, what was expected and
the nearest known key; all of them are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from covet.exceptions import SettingsError
from covet.secrets import BUILTIN_PROVIDERS, Provider, Secret, SecretError, watched_file
from covet.settings_schema import Fault, build, describe, nearest, without_password
from covet.settings_sections import (
    BACKED_SECTIONS,
    SECTIONS,
    AppSettings,
    Limits,
    LoggingSettings,
    PluginsSettings,
    ServerSettings,
)
from covet.settings_sources import Sources

__all__ = ["Limits", "Row", "Settings"]

T = TypeVar("T")


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
        backed: the tables of the sections that name a backend, as they were read: section to alias to table.
        instances: the settings of plugins, by their type; `settings[TimingSettings]` gets one.
        source: the file they were read from, as it is shown, or None.
    """

    app: AppSettings
    server: ServerSettings
    limits: Limits
    logging: LoggingSettings
    plugins: PluginsSettings

    def __init__(
        self,
        tables: dict[str, Any],
        origins: Mapping[str, str] | None = None,
        source: str | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        self.source = source
        self.instances: dict[type, Any] = {}
        self.development_key: bytes | None = None
        self._origins = dict(origins or {})
        self._claimed: dict[str, Any] = {}
        self._owners: dict[type, str] = {}
        self._providers: Mapping[str, Provider] = BUILTIN_PROVIDERS
        found = list(faults)
        known = [*SECTIONS, *BACKED_SECTIONS, "plugins", "storage"]
        for section in tables:
            if section not in known:
                found.append(Fault(section, f"there is no section [{section}]{nearest(section, known)}"))
        for section, schema in SECTIONS.items():
            setattr(self, section, self._section(section, tables.get(section, {}), schema, found))
        plugins = tables.get("plugins", {})
        self.plugin_tables: dict[str, dict[str, Any]] = {}
        if isinstance(plugins, dict):
            self.plugin_tables = {name: table for name, table in plugins.items() if isinstance(table, dict)}
            plugins = {name: value for name, value in plugins.items() if not isinstance(value, dict)}
        self.plugins = self._section("plugins", plugins, PluginsSettings, found)  # type: ignore[assignment]
        storage = tables.get("storage", {})
        self.storage: dict[str, dict[str, Any]] = {}
        if not isinstance(storage, dict) or not all(isinstance(table, dict) for table in storage.values()):
            found.append(Fault("storage", "each storage has a table of its own, such as [storage.default]"))
        else:
            self.storage = storage
        self.backed: dict[str, dict[str, dict[str, Any]]] = {}
        for section in BACKED_SECTIONS:
            self.backed[section] = self._backed(section, tables.get(section, {}), found)
        self._raise(found)

    def _backed(self, section: str, table: Any, faults: list[Fault]) -> dict[str, dict[str, Any]]:
        """The tables of a section by alias. There is one session store, so `[sessions]` has no aliases."""
        if isinstance(table, dict):
            tables = {"default": table} if section == "sessions" and table else table
            if all(isinstance(each, dict) for each in tables.values()):
                return tables
        where = "[sessions]" if section == "sessions" else f"[{section}.default]"
        faults.append(Fault(section, f"the settings of a backend are in a table of their own, such as {where}"))
        return {}

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
        sources = Sources()
        sources.read_file(path, environ)
        sources.read_environment(environ)
        sources.read_arguments(overrides or {})
        return cls(sources.tables, sources.origins, sources.source, sources.faults)

    @classmethod
    def load_only(cls, overrides: Mapping[str, Any]) -> Settings:
        """Settings of these values alone, without file and environment; for tests.

        Raises:
            SettingsError: with every fault that was found.
        """
        sources = Sources()
        sources.read_arguments(overrides)
        return cls(sources.tables, sources.origins, None, sources.faults)

    def _section(self, prefix: str, table: Any, schema: type[T], faults: list[Fault]) -> T | None:
        made, found = build(schema, table, prefix, Secret)
        faults.extend(found)
        if made is not None:
            self._claimed[prefix] = made
        return made

    def _raise(self, faults: Sequence[Fault]) -> None:
        if not faults:
            return
        lines = []
        for fault in faults:
            origin = self._written(fault.key)
            where = f"{origin}: " if origin != "default" else f"{self.source}: " if self.source else ""
            lines.append(f"{where}{fault.key}: {fault.message}")
        what = "a setting is wrong" if len(lines) == 1 else f"{len(lines)} settings are wrong"
        raise SettingsError("\n".join([f"{what}:", *(f"  {line}" for line in lines)]))

    def _written(self, key: str) -> str:
        """Where to look for a fault: where its value comes from, or the table around it when the value is missing."""
        key = key.partition("[")[0]
        found = self.origin(key)
        while key and found == "default":
            key = key.rpartition(".")[0]
            found = self._origins.get(key, "default")
        return found

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
            SettingsError: the table does not fit, or another plugin has declared the same type.
        """
        other = self._owners.setdefault(schema, owner)
        if other != owner:
            raise SettingsError(
                f"the plugins {other!r} and {owner!r} declare the same type of settings, {schema.__qualname__}, and "
                "`settings[...]` could give only one: let one derive a class of its own"
            )
        faults: list[Fault] = []
        made = self._section(f"plugins.{name}", self.plugin_tables.get(name, {}), schema, faults)
        self._raise(faults)
        assert made is not None
        self.instances[schema] = made
        return made

    def storage_url(self, alias: str) -> Secret:
        """The URL in `[storage.ALIAS]`, resolved when it is written as a reference to a secret.

        Raises:
            SettingsError: there is none, or it cannot be resolved.
        """
        key = f"storage.{alias}.url"
        url = self.storage[alias].get("url")
        if not isinstance(url, str):
            self._raise([Fault(key, 'is required: a URL such as "sqlite:///app.db"')])
        # The URL of a backend may well look like a reference: `memory:name`.
        if str(url).partition(":")[0] not in self._providers:
            return Secret(str(url), source="")
        try:
            return Secret(str(url)).resolve(self._providers)
        except SecretError as error:
            self._raise([Fault(key, str(error))])
            raise

    def claim_storage(self, alias: str, schema: type[T], others: Mapping[str, type]) -> T:
        """Check `[storage.ALIAS]` against its backend's schema, its URL and secrets resolved.

        Args:
            others: the schemas of the other backends by scheme, to say whose option a key is.

        Raises:
            SettingsError: the table does not fit.
        """
        prefix = f"storage.{alias}"
        faults: list[Fault] = []
        url = self.storage_url(alias)
        table = {**self.storage[alias], "url": url.reveal()}
        made = self._section(prefix, table, schema, faults)
        self._raise([_told_whose(fault, prefix, schema, others) for fault in faults])
        if isinstance(getattr(made, "url", None), Secret):
            made = msgspec.structs.replace(made, url=url)  # type: ignore[type-var]
        resolved: T = _resolved(made, prefix, self._providers, faults)
        self._raise(faults)
        self._claimed[prefix] = resolved
        return resolved

    def backed_prefix(self, section: str, alias: str) -> str:
        """The name of a table that names a backend."""
        return section if section == "sessions" else f"{section}.{alias}"

    def backend_name(self, section: str, alias: str) -> str:
        """The backend that a table names, or the default of its section.

        Raises:
            SettingsError: what names it is no text.
        """
        chooser, common = BACKED_SECTIONS[section]
        default: str = getattr(common(), chooser)
        name = self.backed[section].get(alias, {}).get(chooser, default)
        if not isinstance(name, str) or not name:
            self._raise(
                [Fault(f"{self.backed_prefix(section, alias)}.{chooser}", "the name of a backend was expected")]
            )
        return str(name)

    def claim_backend(
        self, section: str, alias: str, common: type, schema: type, others: Mapping[str, type]
    ) -> tuple[Any, Any]:
        """Check a table that names a backend: its section's keys against `common`, the others against `schema`.

        Args:
            others: the schemas of the other backends by name, to say whose option a key is.

        Raises:
            SettingsError: the table does not fit.
        """
        prefix = self.backed_prefix(section, alias)
        table = self.backed[section].get(alias, {})
        shared, specific = ({doc.name for doc in describe(part)} for part in (common, schema))
        unknown = [name for name in table if name not in shared | specific]
        faults = [
            Fault(f"{prefix}.{name}", f"there is no key {name!r} in [{prefix}]{nearest(name, shared | specific)}")
            for name in unknown
        ]
        resolved: list[Any] = []
        for part, names in ((common, shared), (schema, specific - shared)):
            made, found = build(part, {name: table[name] for name in table if name in names}, prefix, Secret)
            faults += found
            resolved.append(_resolved(made, prefix, self._providers, faults))
        self._raise([_told_whose(fault, prefix, schema, others) for fault in faults])
        self._claimed[prefix] = tuple(resolved)
        return resolved[0], resolved[1]

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

    def resolve_secrets(self, providers: Mapping[str, Provider]) -> None:
        """Replace every reference to a secret by the secret.

        Raises:
            SettingsError: one cannot be resolved; the message names its key.
        """
        self._providers = {**BUILTIN_PROVIDERS, **providers}
        if self.app.reread_secret_files and self._providers["file"] is BUILTIN_PROVIDERS["file"]:
            self._providers = {**self._providers, "file": watched_file(self.app.reread_secret_files)}
        faults: list[Fault] = []
        for prefix, made in list(self._claimed.items()):
            if isinstance(made, tuple):
                continue  # of a backend, resolved already
            resolved = _resolved(made, prefix, self._providers, faults)
            if resolved is not made:
                self._claimed[prefix] = resolved
                if prefix in SECTIONS:
                    setattr(self, prefix, resolved)
                elif type(made) in self.instances:
                    self.instances[type(made)] = resolved
        self._raise(faults)

    @property
    def secret_providers(self) -> Mapping[str, Provider]:
        """What resolves references to secrets, by scheme."""
        return self._providers

    def secrets(self) -> Iterator[Secret]:
        """Every secret in the sections, and the tables of plugins and backends, that were checked."""
        for made in self._claimed.values():
            yield from _secrets(made)

    def origin(self, key: str) -> str:
        """Where a value comes from: the file, `environment NAME`, `argument` or `default`."""
        if key in self._origins:
            return self._origins[key]
        # A table may come from variables or arguments that each set a key of it.
        inner = f"{key}."
        return next((origin for name, origin in self._origins.items() if name.startswith(inner)), "default")

    def rows(self) -> list[Row]:
        """Every key with its value, secrets hidden, and its origin."""
        rows = []
        for prefix, claimed in self._claimed.items():
            for made in claimed if isinstance(claimed, tuple) else (claimed,):
                for field in msgspec.structs.fields(made):
                    key = f"{prefix}.{field.encode_name}"
                    rows.append(Row(key, _shown(getattr(made, field.name)), self.origin(key)))
        unchecked = {f"storage.{alias}": table for alias, table in self.storage.items()}
        for section, tables in self.backed.items():
            unchecked |= {self.backed_prefix(section, alias): table for alias, table in tables.items()}
        for prefix, table in unchecked.items():
            if prefix not in self._claimed:
                for name, value in table.items():
                    key = f"{prefix}.{name}"
                    rows.append(Row(key, _shown_unchecked(name, value), self.origin(key)))
        return rows


def _told_whose(fault: Fault, prefix: str, schema: type, others: Mapping[str, type]) -> Fault:
    """A fault about a key that another backend has says so."""
    field = fault.key.removeprefix(f"{prefix}.")
    owners = [name for name, other in others.items() if any(doc.name == field for doc in describe(other))]
    if owners and not any(doc.name == field for doc in describe(schema)):
        return Fault(fault.key, f"{fault.message}; {', '.join(owners)} has an option of that name")
    return fault


def _secrets(made: Any) -> Iterator[Secret]:
    """Every secret in a value."""
    if isinstance(made, Secret):
        yield made
    elif isinstance(made, Struct):
        for field in msgspec.structs.fields(made):
            yield from _secrets(getattr(made, field.name))
    elif isinstance(made, dict | list | tuple):
        for item in made.values() if isinstance(made, dict) else made:
            yield from _secrets(item)


def _resolved(made: Any, key: str, providers: Mapping[str, Provider], faults: list[Fault]) -> Any:
    """A value with every secret in it resolved; the very same one where there is none."""
    if isinstance(made, Secret):
        try:
            return made.resolve(providers)
        except SecretError as error:
            faults.append(Fault(key, str(error)))
            return made
    if isinstance(made, Struct):
        before = {field.name: getattr(made, field.name) for field in msgspec.structs.fields(made)}
        after = {name: _resolved(value, f"{key}.{name}", providers, faults) for name, value in before.items()}
        changed = {name: value for name, value in after.items() if value is not before[name]}
        return msgspec.structs.replace(made, **changed) if changed else made
    if isinstance(made, dict):
        pairs = {name: _resolved(value, f"{key}.{name}", providers, faults) for name, value in made.items()}
        return pairs if any(pairs[name] is not made[name] for name in made) else made
    if isinstance(made, list | tuple):
        items = [_resolved(value, f"{key}[{index}]", providers, faults) for index, value in enumerate(made)]
        changed_items = any(new is not old for new, old in zip(items, made, strict=True))
        return type(made)(items) if changed_items else made
    return made


def _shown(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reference or "********"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "-"}[value]
    return without_password(str(value))


def _shown_unchecked(name: str, value: Any) -> str:
    """A value of a table that no backend has checked, so that nobody knows yet whether it is a secret."""
    if isinstance(value, str):
        reference = Secret(str(value)).reference
        return reference or (without_password(value) if name == "url" else "********")
    return _shown(value) if value is None or isinstance(value, bool | int | float) else "********"
