"""Covet without any plugin, the builtin ones included: what those cost is the difference to this."""

from __future__ import annotations

from benchmarks.peers_http.covet import routes
from covet import Covet

app = Covet({"plugins": {"enable": []}})
app.include(routes)
