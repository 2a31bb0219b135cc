"""Covet with the builtin plugins of a new application."""

from __future__ import annotations

from covet import Covet

app = Covet()


@app.get("/")
async def plain() -> str:
    return "Hello, World!"
