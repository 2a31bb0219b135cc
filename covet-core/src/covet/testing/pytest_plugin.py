"""The pytest plugin: fixtures for applications and their plugins.

Asynchronous tests and fixtures run by anyio's own pytest plugin: mark them `@pytest.mark.anyio`. Nothing of Covet is
imported until a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.testing.client import TestClient

__all__ = ["covet_app", "covet_client", "plugin_sandbox", "pytest_addoption"]


# So that a failure of a kit shows the values it compared.
pytest.register_assert_rewrite("covet.testing.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option `covet_app`."""
    parser.addini("covet_app", "the application that `covet_app` and `covet_client` test", default="app:app")


@pytest.fixture
def covet_app(pytestconfig: pytest.Config) -> Covet:
    """The application that the ini option `covet_app` names as `module:name`; `app:app` without one.

    Override the fixture to build one per test.
    """
    from importlib import import_module

    target: str = pytestconfig.getini("covet_app")
    module, _, name = target.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(
            f"the ini option covet_app is {target!r}, and there is no such application: {error}; write "
            "`covet_app = module:name` under [tool.pytest.ini_options], or override the fixture covet_app"
        ) from error
    app: Covet = found
    if not callable(app):
        raise pytest.UsageError(
            f"the ini option covet_app is {target!r}, and that is {app!r}, no application; write "
            "`covet_app = module:name` under [tool.pytest.ini_options], or override the fixture covet_app"
        )
    return app


@pytest.fixture
async def covet_client(covet_app: Covet, anyio_backend: object) -> AsyncIterator[TestClient]:
    """A `TestClient` of `covet_app`, its lifespan running."""
    from covet.testing import TestClient

    async with TestClient(covet_app) as client:
        yield client


@pytest.fixture
def plugin_sandbox() -> Callable[..., Covet]:
    """`covet.testing.plugin_sandbox`: makes an application with exactly the plugins it is given."""
    from covet.testing.sandbox import plugin_sandbox as sandbox

    return sandbox
