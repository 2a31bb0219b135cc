"""Fixtures that every test shares."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Time is no property of the code under test: these machines may be slow and shared. Elsewhere than in continuous
# integration, where a failure must come of a change, each run tries other examples.
settings.register_profile(
    "covet",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("covet")

# A shell has what it starts in the background ignore Ctrl-C, and so would the commands that are tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Asynchronous tests run on both event loops that the kernel supports."""
    backend: str = request.param
    return backend
