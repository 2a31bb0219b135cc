"""What all conformance kits have in common."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

__all__ = ["EVENT_LOOPS", "EXAMPLES", "ConformanceKit", "first_difference"]

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


def first_difference(found: bytes | None, wanted: bytes) -> str:
    """Where a payload first differs from what it should be; empty when it does not.

        assert not (difference := first_difference(found, wanted)), difference

    With `==`, pytest compares large payloads line by line to print them when it runs in CI, which takes minutes.
    """
    if found == wanted:
        return ""
    if found is None:
        return f"nothing, instead of {len(wanted):,} bytes"
    at = next(
        (at for at, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted))
    )
    return (
        f"{len(found):,} bytes, of which {at:,} are right: then {found[at : at + 16]!r} instead of "
        f"{wanted[at : at + 16]!r} (of {len(wanted):,} bytes)"
    )
