"""Fixtures that every test shares."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# Time is no property of the code under test: these machines may be slow and shared.
settings.register_profile("covet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("covet")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Asynchronous tests run on both event loops that the kernel supports."""
    backend: str = request.param
    return backend
