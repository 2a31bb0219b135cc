"""The proofs of `nox -s proof` in short: the same steps, in an environment that borrows what this one has installed."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.proofs import new_plugin, plugin_lifecycle


def assert_clean(text: str, directory: Path) -> None:
    """A page names no path of this machine."""
    for path in (str(directory), sys.prefix, sys.base_prefix, str(Path.home())):
        assert path not in text


def test_the_life_of_a_plugin(tmp_path: Path) -> None:
    done = plugin_lifecycle.prove(tmp_path / "life", linked=["covet-core[server]"])
    assert len(done.rows) == 8
    assert_clean(done.text(), tmp_path)


def test_a_new_plugin(tmp_path: Path) -> None:
    done = new_plugin.prove(tmp_path / "new", linked=["covet-core[server,testing]", "hatchling"])
    assert len(done.rows) == 5
    assert_clean(done.text(), tmp_path)
