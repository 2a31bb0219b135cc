"""The rules that make this a microkernel, as far as a program can check them; import-linter checks who imports whom."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import covet

ROOT = Path(covet.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
BUILTIN = [path for path in FILES if "builtin" in path.parts]
KERNEL = [path for path in FILES if path not in BUILTIN]
PLUGINS = ("covet_orm", "covet_migrate", "covet_backup", "covet_mongo", "covet_auth", "covet_ws", "covet_timing")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def private(attribute: str) -> bool:
    return attribute.startswith("_") and not attribute.startswith("__")


def test_there_is_something_to_check() -> None:
    assert len(KERNEL) > 30
    assert {path.parent.name if path.parent.name != "builtin" else path.stem for path in BUILTIN} >= {
        "openapi",
        "request_id",
        "security_headers",
    }


@pytest.mark.parametrize("path", KERNEL, ids=name)
def test_the_kernel_names_no_plugin(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [plugin for plugin in PLUGINS if re.search(plugin.replace("_", "[-_]"), text)]
    # The builtin ones have names of everyday use; where they are is told by entry points alone.
    assert "covet.builtin." not in text


@pytest.mark.parametrize("path", BUILTIN, ids=name)
def test_builtin_plugins_use_public_names_alone(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("covet"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found += [each for each in names if private(each)]
        elif isinstance(node, ast.Attribute) and private(node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            found += [] if own else [node.attr]
    assert not found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_fails_silently(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(each, ast.Pass) for each in node.body):
            raise AssertionError(f"{path.name}:{node.lineno}: an error is dropped")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_left_undone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
