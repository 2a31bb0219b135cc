"""The conformance kit of cache backends is itself right: each promise has a backend that breaks it, and is caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.wrong_cache_backends import WRONG

from covet.testing.conformance.cache import CacheBackendConformance

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "tests" / "wrong_cache_backends.py"


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The kit's tests that failed, by the class of the backend, as pytest itself runs them."""
    report = tmp_path_factory.mktemp("kit") / "report.xml"
    cases = [f"{FILE}::TestRight", *(f"{FILE}::Test{kind.__name__}::{test}" for kind, test in WRONG.items())]
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", f"--junitxml={report}",
        # Whether a fault is found must not be a matter of luck.
        "--hypothesis-seed=0",
    ]  # fmt: skip
    done = subprocess.run([*command, *cases], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, set[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["classname"].rpartition(".")[2]
        tests = found.setdefault(name, set())
        if case.find("failure") is not None or case.find("error") is not None:
            tests.add(case.attrib["name"].partition("[")[0])
    return found


def test_a_right_backend_passes(failed: dict[str, set[str]]) -> None:
    assert failed["TestRight"] == set()


@pytest.mark.parametrize("name", [kind.__name__ for kind in WRONG])
def test_a_wrong_backend_is_caught(failed: dict[str, set[str]], name: str) -> None:
    expected = next(test for kind, test in WRONG.items() if kind.__name__ == name)
    assert expected in failed[f"Test{name}"]


def test_every_test_of_the_kit_catches_somebody() -> None:
    tests = {name for name in vars(CacheBackendConformance) if name.startswith("test_")}
    assert tests == set(WRONG.values())
