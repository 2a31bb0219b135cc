"""The builtin plugins, as their entry points name them, and which tests are about which."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BUILTIN = sorted(
    entry.name
    for entry in importlib.metadata.entry_points(group="covet.plugins")
    if entry.value.startswith("covet.builtin.")
)

TESTS = ROOT / "tests" / "covet-core"


def tests_of(plugin: str) -> list[Path]:
    """The files that test a builtin plugin: they are called after it."""
    found = sorted(TESTS.glob(f"test_{plugin}*.py")) + sorted(TESTS.glob(f"test_builtin_{plugin}*.py"))
    assert found, f"no file in {TESTS} is called after the plugin {plugin!r}"
    return found


def needs(*plugins: str) -> pytest.MarkDecorator:
    """Marks a test that is about these plugins together, and cannot run where one of them is not there at all."""
    missing = [plugin for plugin in plugins if plugin not in BUILTIN]
    return pytest.mark.skipif(bool(missing), reason=f"about the plugin {', '.join(missing)}, which is not there")
