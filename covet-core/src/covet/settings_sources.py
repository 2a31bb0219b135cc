"""Where settings come from: a TOML file, the environment, arguments; put together key by key, not checked yet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from covet.exceptions import SettingsError
from covet.settings_schema import EnvironmentText, Fault

__all__ = ["Sources"]

MAX_FILE = 1_000_000
ENVIRONMENT = "COVET_"


class Sources:
    """Settings as they were written.

    Attributes:
        tables: the nested tables.
        origins: dotted key to where its value is from.
        source: the file they were read from, as it is shown, or None.
        faults: keys that cannot be put into the tables.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.source: str | None = None
        self.faults: list[Fault] = []

    def read_file(self, path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> None:
        """Read the file: that of `path`, of `COVET_SETTINGS`, or the one in the working directory, if there is one.

        Raises:
            SettingsError: it cannot be read, or is not TOML.
        """
        path = path or environ.get("COVET_SETTINGS") or None
        if path is None:
            path = next((name for name in ("covet.toml", "pyproject.toml") if Path(name).exists()), None)
            if path is None:
                return
        path = Path(path)
        self.tables, self.source = _toml(path), str(path)
        if path.name == "pyproject.toml":
            self.source += " [tool.covet]"
            tool = self.tables.get("tool", {})
            found = tool.get("covet", {}) if isinstance(tool, dict) else {}
            if not isinstance(found, dict):
                raise SettingsError(f"{path}: tool.covet is a value, and a table [tool.covet] was expected")
            self.tables = found
            self.source = self.source if found else None
        for key in _keys(self.tables):
            self.origins[key] = self.source or "default"

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """Put in the variables `COVET_SECTION__KEY`, and `COVET_PLUGINS`, the list of plugins that take part."""
        for name, value in environ.items():
            if name.startswith(ENVIRONMENT) and "__" in name:
                key = name.removeprefix(ENVIRONMENT).lower().replace("__", ".")
                self.put(key, EnvironmentText(value), f"environment {name}")
        if "COVET_PLUGINS" in environ:
            names = [name.strip() for name in environ["COVET_PLUGINS"].split(",") if name.strip()]
            self.put("plugins.enable", names, "environment COVET_PLUGINS")

    def read_arguments(self, overrides: Mapping[str, Any]) -> None:
        """Put in values that code gives: nested tables, or keys such as `server.port`."""
        for key, value in _flat(overrides):
            self.put(key, value, "argument")

    def put(self, key: str, value: Any, origin: str) -> None:
        """Set one key in place of what it was."""
        *path, last = key.split(".")
        tables = self.tables
        for name in path:
            inner = tables.setdefault(name, {})
            if not isinstance(inner, dict):
                self.origins[key] = origin
                self.faults.append(Fault(key, f"{name!r} is a value, not a table"))
                return
            tables = inner
        tables[last] = value
        self.origins[key] = origin


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"the settings file {path} cannot be read: {reason}") from None
    if len(data) > MAX_FILE:
        raise SettingsError(f"the settings file {path} is larger than {MAX_FILE} bytes; is it the right one?")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"the settings file {path} is not UTF-8: byte {error.start}, on line {line}") from None
    except ValueError as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"the settings file {path} is not TOML that can be read: it is nested too deeply") from None


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
