"""Covet with five plugins that each look at every request as it starts."""

from __future__ import annotations

import covet
from benchmarks.peers_http.covet import routes
from covet import Covet, Request


class Watcher:
    """A plugin that looks at every request and lets it pass."""

    @covet.hookimpl
    async def covet_request_started(self, request: Request) -> None:
        pass


app = Covet(plugins={f"watcher{number}": Watcher() for number in range(5)})
app.include(routes)
