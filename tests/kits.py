"""Running a conformance kit from a test: which of its tests fail for a backend.

    class Lossy(MemoryStore): ...

    class LossyKit(StoreConformance):
        @pytest.fixture
        def store(self):
            return Lossy()

    assert "test_what_is_put_is_there" in failed_tests(LossyKit)

The kit runs in this process, in a pytest session of its own, on asyncio alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

__all__ = ["Outcome", "failed_tests", "run_kit"]

# What the generated module takes its class from.
running: list[type] = []

MODULE = """
import pytest

from tests.kits import running


@pytest.fixture(params=["asyncio"])
def anyio_backend(request):
    return request.param


TestKit = running[-1]
"""


class Outcome:
    """How the tests of a kit ended, by name (without parameters)."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: dict[str, str] = {}
        self.skipped: set[str] = set()
        self.broken: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest."""
        name = report.nodeid.rpartition("::")[2].partition("[")[0]
        if report.failed:
            self.failed[name] = str(report.longrepr)
        elif report.skipped:
            self.skipped.add(name)
        elif report.when == "call":
            self.passed.add(name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Called by pytest."""
        if report.failed:
            self.broken.append(str(report.longrepr))


def run_kit(kit: type, *, only: str = "") -> Outcome:
    """Run a kit: a subclass of a conformance class whose fixtures give a backend.

    Args:
        kit: the class; its event loop is asyncio unless it says otherwise itself.
        only: which tests, as for `pytest -k`; all by default.
    """
    outcome = Outcome()
    # The class's own `anyio_backend` runs on every event loop that is installed; one is enough here.
    chosen: dict[str, Any] = {}
    if "anyio_backend" not in vars(kit):
        chosen["anyio_backend"] = pytest.fixture(_asyncio)
    # What fails need not be made small to be known; and whether it is found must not be a matter of luck.
    quick: dict[Any, Any] = {}
    for name in dir(kit):
        test = getattr(kit, name)
        if hasattr(test, "hypothesis"):
            quick[test] = test._hypothesis_internal_use_settings
            test._hypothesis_internal_use_settings = settings(
                quick[test],
                phases=[Phase.explicit, Phase.generate],
                derandomize=True,
                max_examples=max(100, quick[test].max_examples),
            )
    running.append(type(kit.__name__, (kit,), {**chosen, "__module__": kit.__module__}))
    printed = StringIO()
    directory = os.getcwd()
    try:
        with tempfile.TemporaryDirectory(prefix="kit-") as folder, redirect_stdout(printed):
            Path(folder, "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
            Path(folder, "test_kit.py").write_text(MODULE)
            # Each of these holds on to something of the process that the session around this one uses.
            off = ["cacheprovider", "timeout", "faulthandler", "pytest_cov", "xdist", "schemathesis"]
            status = pytest.main(
                [
                    folder, "-q", "--capture=no", "--import-mode=importlib", "--rootdir", folder, "-c",
                    f"{folder}/pytest.ini", "--tb=short", *(f"-pno:{name}" for name in off),
                    *(["-k", only] if only else []),
                ],
                plugins=[outcome],
            )  # fmt: skip
    finally:
        # pytest would take the module of this kit for that of the next.
        sys.modules.pop("test_kit", None)
        running.pop()
        for test, before in quick.items():
            test._hypothesis_internal_use_settings = before
        os.chdir(directory)
    assert status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), printed.getvalue()
    assert not outcome.broken, outcome.broken
    return outcome


def failed_tests(kit: type, *, only: str = "") -> set[str]:
    """The names of the tests of a kit that fail."""
    return set(run_kit(kit, only=only).failed)


def _asyncio(self: object) -> str:
    return "asyncio"
