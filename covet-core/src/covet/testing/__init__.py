"""Testing applications and plugins: a client without a network, and applications with exactly the plugins you name.

    async with TestClient(app) as client:
        response = await client.get("/hello/world")

`TestClient` needs httpx: `pip install "covet-core[testing]"`. The fixtures `covet_app`, `covet_client` and
`plugin_sandbox` come with the pytest plugin that this distribution registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from covet.testing.sandbox import plugin_sandbox

if TYPE_CHECKING:
    from covet.testing.client import TestClient as TestClient
    from covet.testing.websocket import TestWebSocket as TestWebSocket
    from covet.testing.websocket import WebSocketDenied as WebSocketDenied

__all__ = ["TestClient", "TestWebSocket", "WebSocketDenied", "plugin_sandbox"]


def __getattr__(name: str) -> object:
    # The pytest plugin imports this package in every test run, also where there is no httpx.
    if name not in __all__:
        raise AttributeError(f"module 'covet.testing' has no attribute {name!r}")
    try:
        from covet.testing import client, websocket
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise ImportError(f'covet.testing.{name} needs httpx; type: pip install "covet-core[testing]"') from error
    found: object = getattr(client if name == "TestClient" else websocket, name)
    return found
