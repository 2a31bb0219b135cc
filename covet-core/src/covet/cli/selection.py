"""`[plugins]`, read alone and in haste.

Which plugins take part decides which commands there are, so every start of the command line asks for it. Reading all
settings costs more than everything else that `covet --help` does; this reads the one table, from the same places and
with the same precedence as `Settings.load`, which remains the one that checks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Selection"]

KEYS = ("enable", "disable", "optional", "prefer")


class Selection:
    """What `[plugins]` says.

    Attributes:
        enable, disable, optional, prefer: names of plugins, as in `covet.settings.PluginsSettings`.
        problem: why the settings could not be read, or None.
    """

    __slots__ = ("disable", "enable", "optional", "prefer", "problem")

    def __init__(self, table: Mapping[str, Any], problem: str | None = None) -> None:
        self.problem = problem
        self.enable: list[str] | None = self._names(table, "enable") if "enable" in table else None
        self.disable: list[str] = self._names(table, "disable")
        self.optional: list[str] = self._names(table, "optional")
        self.prefer: list[str] = self._names(table, "prefer")

    def _names(self, table: Mapping[str, Any], key: str) -> list[str]:
        value = table.get(key, [])
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            return value
        self.problem = f'[plugins] {key}: a list of names was expected, such as ["timing"], not {value!r}'
        return []

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Selection:
        """Read the table from the settings file of the working directory and the environment."""
        environ = os.environ if environ is None else environ
        try:
            table = dict(_from_file(environ))
        except (OSError, ValueError) as error:
            told = error.strerror if isinstance(error, OSError) else error
            return cls({}, f"the settings cannot be read: {told}; `covet config check` says more")
        for key in KEYS:
            value = environ.get(f"COVET_PLUGINS__{key.upper()}")
            if value is not None:
                table[key] = _split(value)
        if "COVET_PLUGINS" in environ:
            table["enable"] = _split(environ["COVET_PLUGINS"])
        return cls(table)


def _from_file(environ: Mapping[str, str]) -> Mapping[str, Any]:
    path = settings_file(environ)
    if path is None:
        return {}
    import tomllib

    tables = tomllib.loads(path.read_text("utf-8"))
    if path.name == "pyproject.toml" and "COVET_SETTINGS" not in environ:
        tables = tables.get("tool", {}).get("covet", {})
    table = tables.get("plugins", {})
    return table if isinstance(table, dict) else {}


def settings_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The file that holds the settings; None when there is neither `covet.toml` nor a pyproject.toml."""
    environ = os.environ if environ is None else environ
    if "COVET_SETTINGS" in environ:
        return Path(environ["COVET_SETTINGS"])
    return next((path for path in (Path("covet.toml"), Path("pyproject.toml")) if path.exists()), None)


def _split(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]
