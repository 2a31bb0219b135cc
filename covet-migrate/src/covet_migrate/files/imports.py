"""The names that a file uses, and the imports that bring them."""

from __future__ import annotations

import keyword
import sys
import sysconfig
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import covet_orm
from covet_migrate.exceptions import NotSerializable

__all__ = ["Imports"]

FUNCTIONS = "covet_orm.expressions.functions"
FROM = frozenset(("decimal.Decimal", "enum.Enum", "pathlib.Path", "uuid.UUID", "zoneinfo.ZoneInfo"))
"""Classes that people know by their names alone."""
OURS = frozenset(("Migration", "dt", "functions", "migration", "operations", "orm"))
"""Names that a file has already; what else begins with one of them gets another name."""
# Where builtin modules say that they are from, and where they are found on every platform.
PLATFORMS = {"posix": "os", "nt": "os"}


class Imports:
    """The imports of a file, which grow as names are asked for."""

    def __init__(self) -> None:
        self._modules: dict[str, str | None] = {}
        self._names: dict[str, set[str]] = {}
        self._local: dict[int, str] = {}
        # With what it is, so that nothing else gets its id.
        self._paths: dict[int, tuple[Any, str]] = {}

    def local(self, value: Any, name: str) -> None:
        """Say that a function or class stands in the file itself."""
        self._local[id(value)] = name

    def module(self, module: str, alias: str | None = None) -> str:
        """The name of a module, which is imported."""
        if alias is None and module.partition(".")[0] in OURS:
            alias = module.replace(".", "_") + ("_" if module in OURS else "")
        self._modules[module] = alias
        return alias or module

    def name(self, module: str, name: str) -> str:
        """The name of something in a module, which is imported by itself."""
        self._names.setdefault(module, set()).add(name)
        return name

    def path(self, value: Any, where: str) -> str:
        """The name of a function or class.

        Args:
            value: the function or class.
            where: what it is for, in a message.

        Raises:
            NotSerializable: no import brings it: it is a lambda, is inside of a function, or stands in a script.
        """
        if id(value) in self._local:
            return self._local[id(value)]
        if id(value) not in self._paths:
            self._paths[id(value)] = (value, self._path(value, where))
        return self._paths[id(value)][1]

    def _path(self, value: Any, where: str) -> str:
        owner = getattr(value, "__self__", None)
        if isinstance(owner, type):
            # A class method: `datetime.now`, or one of one's own.
            return f"{self.path(owner, where)}.{value.__name__}"
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str):
            raise NotSerializable(
                f"{where}: {value!r} cannot be written into a migration; it is no function or class of a module"
            )
        self._check(value, module, name, where)
        if module == "builtins":
            return name
        module = _public(value, PLATFORMS.get(module, module), name)
        first = name.partition(".")[0]
        if module.partition(".")[0] == "covet_orm" and _has(covet_orm, name, value):
            return f"{self.module('covet_orm', 'orm')}.{name}"
        if module.startswith(FUNCTIONS) and _has(import_module(FUNCTIONS), name, value):
            return f"{self.name('covet_orm.expressions', 'functions')}.{name}"
        if module.partition(".")[0] == "covet_migrate" and _has(import_module("covet_migrate.operations"), name, value):
            return f"{self.name('covet_migrate', 'operations')}.{name}"
        if module == "datetime":
            return f"{self.module('datetime', 'dt')}.{name}"
        if f"{module}.{first}" in FROM:
            return f"{self.name(module, first)}{name[len(first) :]}"
        return f"{self.module(module)}.{name}"

    def lines(self) -> list[str]:
        """The imports in three blocks: of Python, of other projects, and of this one; each with a blank line behind
        it."""
        blocks: list[list[tuple[bool, str, str]]] = [[], [], []]
        for module, alias in self._modules.items():
            line = f"import {module} as {alias}" if alias else f"import {module}"
            blocks[_block(module)].append((False, module, line))
        for module, names in self._names.items():
            # Classes stand before modules and functions.
            ordered = sorted(names, key=lambda name: (not name[0].isupper(), name))
            blocks[_block(module)].append((True, module, f"from {module} import {', '.join(ordered)}"))
        return [line for block in blocks if block for line in (*(line for *_, line in sorted(block)), "")]

    def _check(self, value: Any, module: str, name: str, where: str) -> None:
        if "<lambda>" in name:
            raise NotSerializable(
                f"{where}: {_what(value)} cannot be written into a migration, as it has no name; "
                "write it as a function (`def`) of a module, and give that"
            )
        if "<locals>" in name:
            raise NotSerializable(
                f"{where}: {_what(value)} cannot be written into a migration, as it is inside of a function, where "
                "no import finds it; move it to the top of its module"
            )
        if module == "__main__" or not all(_is_name(part) for part in module.split(".")):
            raise NotSerializable(
                f"{where}: {_what(value)} cannot be written into a migration, as it is in {module!r}, which no import "
                "statement can name; move it into a module of the application"
            )
        try:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            found = None
        if found is not value and found != value:
            raise NotSerializable(
                f"{where}: {_what(value)} cannot be written into a migration, as {module}.{name} is something else or "
                "is not there; it needs a name of its own in its module"
            )


def _public(value: Any, module: str, name: str) -> str:
    """The module of something; where that is a private one, the package that shows it to others."""
    parts = module.split(".")
    if any(part.startswith("_") for part in parts):
        for end in range(len(parts) - 1, 0, -1):
            package = sys.modules.get(".".join(parts[:end]))
            if package is not None and getattr(package, name, None) is value:
                return ".".join(parts[:end])
    return module


def _has(package: ModuleType, name: str, value: Any) -> bool:
    """Whether a package shows something under a name."""
    found: Any = package
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _what(value: Any) -> str:
    """A function or class, with where it stands."""
    name = getattr(value, "__qualname__", repr(value))
    code = getattr(value, "__code__", None)
    told = "the lambda" if "<lambda>" in name else f"{name!r}"
    return f"{told} ({code.co_filename}:{code.co_firstlineno})" if code is not None else told


def _is_name(part: str) -> bool:
    return part.isidentifier() and not keyword.iskeyword(part)


def _block(module: str) -> int:
    """Whose module it is: 0 of Python, 1 of other projects, 2 of this one."""
    first = module.partition(".")[0]
    if first in sys.stdlib_module_names:
        return 0
    found: ModuleType | None = sys.modules.get(first)
    file = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ())), None)
    if first.startswith("covet_") or first == "covet" or file is None:
        return 1
    installed = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    return 1 if any(parent in installed for parent in Path(file).resolve().parents) else 2
