"""What all conformance kits have in common."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

__all__ = ["EVENT_LOOPS", "EXAMPLES", "ConformanceKit"]

EXAMPLES = settings(
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors, HealthCheck.too_slow],
)
"""What a kit's hypothesis tests are marked with. A test sees one fixture for all its examples, so that each example
uses names of its own."""

EVENT_LOOPS = ["asyncio", *(["trio"] if find_spec("trio") else [])]
"""The event loops that a kit's tests run on: those that are installed."""


class ConformanceKit:
    """The base of the kits. A backend whose driver needs one event loop overrides `anyio_backend`:

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=EVENT_LOOPS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """The event loop that a test runs on."""
        name: str = request.param
        return name
