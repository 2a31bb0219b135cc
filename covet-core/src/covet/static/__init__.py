"""Static files: directories that are served as they are, and the URLs of what is in them.

    app.add(StaticFiles("static", build="build/static"), "/static")

    static_url("app.css")   # "/static/app.9b2e4c60d1f3a857.css" after `covet static build`, "/static/app.css" before

The same comes from the settings: `[plugins.static_files]`.
"""

from __future__ import annotations

from covet.static.serving import StaticFiles
from covet.static.urls import static_url

__all__ = ["StaticFiles", "static_url"]
