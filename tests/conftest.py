"""Fixtures that every test shares."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Asynchronous tests run on both event loops that the kernel supports."""
    backend: str = request.param
    return backend
