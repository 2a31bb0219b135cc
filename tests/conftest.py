"""Fixtures that every test shares."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def logging_is_left_as_it_was() -> Iterator[None]:
    """Fails who configures loggers and leaves them so: what later tests read of the log would depend on their order."""
    before = _loggers()
    yield
    after = _loggers()
    assert {name: how for name, how in after.items() if before.get(name, UNTOUCHED) != how} == {}


UNTOUCHED = (logging.NOTSET, True, False, 0, 0)


def _loggers() -> dict[str, tuple[int, bool, bool, int, int]]:
    """Level, propagation, whether it is disabled, and numbers of handlers and filters of each logger of Covet, and of
    the root."""
    root = logging.getLogger()
    found = {"": (root.level, root.propagate, root.disabled, root.manager.disable, len(root.filters))}
    for name, logger in list(root.manager.loggerDict.items()):
        if name.startswith("covet") and isinstance(logger, logging.Logger):
            found[name] = (logger.level, logger.propagate, logger.disabled, len(logger.handlers), len(logger.filters))
    return found
