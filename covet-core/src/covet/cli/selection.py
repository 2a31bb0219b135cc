"""`[plugins]`, read alone and in haste.

Which plugins take part decides which commands there are, so every start of the command line asks for it. Reading all
settings costs more than everything else that `covet --help` does; this reads the one table, from the same places and
with the same precedence as `Settings.load`, which remains the one that checks.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Selection"]

KEYS = ("enable", "disable", "optional", "prefer")


class Selection:
    """What `[plugins]` says.

    Attributes:
        enable, disable, optional, prefer: names of plugins, as in `covet.settings_sections.PluginsSettings`.
        problem: why the settings could not be read, or None.
    """

    __slots__ = ("disable", "enable", "optional", "prefer", "problem")

    def __init__(self, table: Mapping[str, Any], problem: str | None = None) -> None:
        self.problem = problem
        self.enable = self._names(table, "enable")
        self.disable = self._names(table, "disable") or []
        self.optional = self._names(table, "optional") or []
        self.prefer = self._names(table, "prefer") or []

    def _names(self, table: Mapping[str, Any], key: str) -> list[str] | None:
        value = table.get(key)
        if value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            return value
        self.problem = f'[plugins] {key}: a list of names was expected, such as ["timing"], not {value!r}'
        return None

    def only(self, known: Container[str]) -> Selection:
        """The same without the names of plugins that nobody knows."""
        lists = {"enable": self.enable, "disable": self.disable, "optional": self.optional, "prefer": self.prefer}
        return Selection(
            {key: [name for name in names if name in known] for key, names in lists.items() if names is not None}
        )

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Selection:
        """Read the table from the settings file of the working directory and the environment."""
        environ = os.environ if environ is None else environ
        path = settings_file(environ)
        try:
            table = dict(_from_file(path, environ))
        except (OSError, ValueError) as error:
            told = error.strerror if isinstance(error, OSError) else error
            return cls({}, f"the settings cannot be read: {path}: {told}")
        for key in KEYS:
            value = environ.get(f"COVET_PLUGINS__{key.upper()}")
            if value is not None:
                table[key] = _split(value)
        if "COVET_PLUGINS" in environ:
            table["enable"] = _split(environ["COVET_PLUGINS"])
        return cls(table)


def _from_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    if path is None:
        return {}
    import tomllib

    tables = tomllib.loads(path.read_bytes().decode("utf-8"))
    if path.name == "pyproject.toml":
        tool = tables.get("tool", {})
        tables = _table(tool, "covet") if isinstance(tool, dict) else {}
    return _table(tables, "plugins")


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if isinstance(table, dict):
        return table
    raise ValueError(f"a table [{name}] was expected, not {table!r}")


def settings_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The file that holds the settings; None when there is neither `covet.toml` nor a pyproject.toml."""
    environ = os.environ if environ is None else environ
    if environ.get("COVET_SETTINGS"):
        return Path(environ["COVET_SETTINGS"])
    return next((path for path in (Path("covet.toml"), Path("pyproject.toml")) if path.exists()), None)


def _split(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]
