"""The URLs of static files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from covet.context import current_app, current_request
from covet.exceptions import CovetError
from covet.routing import Route
from covet.static.serving import StaticFiles

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["StaticURLs", "static_url"]

logger = logging.getLogger("covet.static")

MAX_KNOWN = 10_000


def static_url(name: str, *, app: Covet | None = None) -> str:
    """The URL of a static file: with the hash of its contents in it where `covet static build` made one.

    In debug mode it is the plain one, and a file that is not there is an error. Otherwise such a file is logged, once,
    and its URL answers 404.

    Args:
        name: the file's path below its directory, such as `css/app.css`. Where several directories are served, the
            first that has it counts.
        app: the application; by default the one that is running.

    Returns:
        A path, percent-encoded; where the application is mounted, with the path it is mounted at.

    Raises:
        CovetError: the application serves no static files; in debug mode also: none of that name.
        NoApplicationError: no application is running, and none is given.
        StaticFilesError: a manifest cannot be read.
    """
    if app is None:
        app = current_app()
    urls = app.state.get(StaticURLs)
    if urls is None:
        urls = app.state[StaticURLs] = StaticURLs(app)
    request = current_request()
    root: str = "" if request is None or request.app is not app else request.scope.get("root_path", "")
    return root + urls.find(name)


class StaticURLs:
    """The directories that an application serves, and the URLs that were asked for."""

    def __init__(self, app: Covet) -> None:
        self.debug = app.debug
        self.served: list[tuple[Route, StaticFiles]] = []
        for route in app.routes:
            if isinstance(route, Route) and (files := route.marks.get(StaticFiles)) is not None:
                self.served.append((route, files))
        self._known: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The URL of a file, without the path that the application is mounted at; raises what `static_url` raises."""
        found = self._known.get(name)
        if found is None:
            found = self._find(name)
            # A name may come from a request, and those never end.
            if not self.debug and len(self._known) < MAX_KNOWN:
                self._known[name] = found
        return found

    def _find(self, name: str) -> str:
        if not self.served:
            raise CovetError(
                f"there is no static file {name!r}, for the application serves no directory of them; name one under "
                "[plugins.static_files.directories], or add a `StaticFiles`"
            )
        if not self.debug:
            for route, files in self.served:
                hashed = files.manifest.files.get(name)
                if hashed is not None:
                    return _url(route, hashed)
        # Here the event loop waits for the file system: once for a name.
        for route, files in self.served:
            if files.exists(name):
                return _url(route, name)
        searched = ", ".join(files.directory for _, files in self.served)
        told = f"there is no static file {name!r}; searched: {searched}"
        if self.debug:
            raise CovetError(told)
        logger.warning("%s", told)
        return _url(self.served[0][0], name)


def _url(route: Route, name: str) -> str:
    return route.template.format({"path": name})
