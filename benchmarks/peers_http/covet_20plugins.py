"""Covet with twenty more plugins, none of which takes part in a request: that must cost nothing."""

from __future__ import annotations

import covet
from benchmarks.peers_http.covet import routes
from covet import Covet


class Idle:
    """A plugin that has something to say while the application is built and while it starts, and not later."""

    @covet.hookimpl
    def covet_setup(self, app: Covet) -> None:
        pass

    @covet.hookimpl
    async def covet_ready(self, app: Covet) -> None:
        pass


app = Covet(plugins={f"idle{number}": Idle() for number in range(20)})
app.include(routes)
