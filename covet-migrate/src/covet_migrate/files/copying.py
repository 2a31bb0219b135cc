"""Copying functions out of migration files: a squashed migration runs what those do that it replaces, and outlives
them.

What a function needs of its file comes with it: imports, constants, other functions. Where two files have different
things of one name, the second gets another one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from covet_migrate.exceptions import NotSerializable
from covet_migrate.files.imports import Imports
from covet_migrate.migrations import Migration
from covet_migrate.operations.base import Operation

__all__ = ["Copied"]

RESERVED = frozenset(("Migration", "dt", "functions", "migration", "operations", "orm"))
"""Names that the file has by itself; an import brings them under the same names wherever they are."""

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class _Module:
    """A file from which something is copied.

    Attributes:
        path: the file.
        lines: its lines, as bytes: so do places in it count.
        bindings: the statements that bind a name at the top of it, by that name.
        names: what they are called in the new file.
    """

    path: Path
    lines: list[bytes]
    bindings: dict[str, ast.stmt]
    names: dict[str, str] = field(default_factory=dict)


class Copied:
    """The code that is copied into one file.

    Args:
        imports: the imports of that file, which grow by what the code needs.
    """

    def __init__(self, imports: Imports) -> None:
        self._imports = imports
        self._modules: dict[str, _Module] = {}
        self._code: dict[str, str] = {}

    def take(self, operation: Operation) -> None:
        """Copy the functions that an operation was made with, where they stand in the file of a migration.

        Raises:
            NotSerializable: one of them cannot be copied.
        """
        for value in _values(operation):
            module = sys.modules.get(getattr(value, "__module__", None) or "")
            name = getattr(value, "__name__", "")
            if module is None or not isinstance(getattr(module, "migration", None), Migration):
                continue
            if getattr(module, name, None) is value:
                self._imports.local(value, self._copy(self._module(module.__name__), name))

    def code(self) -> list[str]:
        """What was copied: constants, then functions and classes, each in the order in which it was needed."""
        return list(self._code.values())

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            path = Path(str(sys.modules[name].__file__))
            content = path.read_bytes()
            bindings = {bound: node for node in ast.parse(content).body for bound in _bound(node)}
            self._modules[name] = _Module(path, content.splitlines(keepends=True), bindings)
        return self._modules[name]

    def _copy(self, module: _Module, name: str) -> str:
        """Copy what a name stands for, and what that needs; what it is called."""
        if name in module.names:
            return module.names[name]
        node = module.bindings[name]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module.names[name] = self._import(module, node, name)
            return module.names[name]
        # Before what it needs is looked at, which may need it in turn.
        module.names[name] = self._free(name, module)
        needed = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} & set(module.bindings) - {name}
        for other in sorted(needed, key=lambda other: module.bindings[other].lineno):
            self._copy(module, other)
        self._code[module.names[name]] = _text(module, node)
        return module.names[name]

    def _free(self, name: str, module: _Module) -> str:
        taken = {one for other in self._modules.values() for one in other.names.values()} | RESERVED
        if name not in taken:
            return name
        number = module.path.stem.partition("_")[0]
        found = f"{name}_{number}"
        while found in taken:
            found += "_"
        return found

    def _import(self, module: _Module, node: ast.Import | ast.ImportFrom, name: str) -> str:
        one = next(alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) == name)
        if isinstance(node, ast.ImportFrom) and node.level:
            raise NotSerializable(
                f"{module.path}, line {node.lineno}: {name!r} is imported relatively, and cannot be copied into "
                "another file with the function that uses it; import it by its whole name"
            )
        if isinstance(node, ast.ImportFrom):
            if one.asname is None:
                return self._imports.name(str(node.module), one.name)
            self._code[name] = f"from {node.module} import {one.name} as {one.asname}"
        elif one.asname is None:
            self._imports.module(one.name)
        else:
            self._imports.module(one.name, one.asname)
        return name


def _values(operation: Operation) -> Iterator[Any]:
    """What operations were made with, and those in them."""
    waiting: list[Any] = [operation]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, Operation):
            waiting += [*value.declared.args, *value.declared.options.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, partial):
            waiting += [value.func, *value.args, *value.keywords.values()]
        elif callable(value):
            yield value


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement binds."""
    if isinstance(node, Function):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    return [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]


def _text(module: _Module, node: ast.stmt) -> str:
    """The text of a statement, with the names that things have in the new file."""
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    lines = module.lines[first - 1 : node.end_lineno]
    changes: list[tuple[int, int, str]] = []
    for one in ast.walk(node):
        old = one.id if isinstance(one, ast.Name) else one.arg if isinstance(one, ast.arg) else None
        if old is not None and module.names.get(old, old) != old and isinstance(one, (ast.Name, ast.arg)):
            changes.append((one.lineno - first, one.col_offset, old))
    if isinstance(node, Function) and module.names[node.name] != node.name:
        line = node.lineno - first
        changes.append((line, lines[line].index(node.name.encode(), node.col_offset), node.name))
    for line, column, old in sorted(changes, reverse=True):
        text = lines[line]
        lines[line] = text[:column] + module.names[old].encode() + text[column + len(old.encode()) :]
    return b"".join(lines).decode("utf-8").rstrip()
