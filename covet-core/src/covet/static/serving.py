"""Serving the files of a directory."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

from anyio.to_thread import run_sync

from covet.exceptions import HTTPError
from covet.files import FileResponse
from covet.requests import Request
from covet.responses import Response
from covet.routing import Route, Router
from covet.static.manifest import SUFFIXES, Manifest, StaticFilesError, StoredFile
from covet.static.paths import locate, open_beneath, split_path

if TYPE_CHECKING:
    from covet.middleware import Middleware

__all__ = ["IMMUTABLE", "INDEX", "StaticFiles"]

logger = logging.getLogger("covet.static")

IMMUTABLE = "public, max-age=31536000, immutable"
"""`Cache-Control` of what never changes under its name: kept for a year, and not asked for again (RFC 8246)."""

INDEX = "index.html"
"""The file that is served for a directory."""


class StaticFiles(Router):
    """The files of a directory, as a router: `app.add(StaticFiles("static"), "/static")`.

    GET and HEAD are answered, with `ETag`, conditions and ranges as `FileResponse` does. A file has to lie in the
    directory, symbolic links followed; dotfiles are not served. Routes of the application go before files, so that a
    directory may be served at `/`.

    A file is found anew for every request, so files may come, change and go. What `covet static build` made is not: it
    is read once, and served under names that hold a hash of the contents, to be kept by browsers for a year.

    Args:
        directory: where the files are; relative to the working directory.
        prefix: put before every path, as for `Router`.
        build: where `covet static build` writes and its files are served from; relative to the working directory.
        index: whether `index.html` is served for its directory. A directory without is a 404; its contents are never
            listed.
        cache_control: the header `Cache-Control` of files whose name holds no hash. The default lets browsers keep
            them, and ask each time whether they have changed.
        immutable: patterns of names that other tools gave a hash, such as `assets/*`: these are kept for a year too. A
            `*` stands for anything, slashes included.
        precompressed: whether a file `app.css.gz`, `.zst` or `.br` beside `app.css` and not older is sent in its place
            to clients that take it.
        dotfiles: names that are served although they begin with a dot, such as `.well-known`.
        name: the route's name, for `url_for` and `static_url`.
        middleware: as for `Router`.

    Attributes:
        directory, build: absolute, without symbolic links; `build` is None without one.

    Raises:
        StaticFilesError: there is no such directory, or `build` lies in it, or around it.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        prefix: str = "",
        *,
        build: str | os.PathLike[str] | None = None,
        index: bool = False,
        cache_control: str = "no-cache",
        immutable: Iterable[str] = (),
        precompressed: bool = True,
        dotfiles: Iterable[str] = (),
        name: str = "static",
        middleware: Iterable[Middleware] = (),
    ) -> None:
        super().__init__(prefix, middleware=middleware)
        self.directory = os.path.realpath(directory)
        if not os.path.isdir(self.directory):
            raise StaticFilesError(
                f"there is no directory of static files at {self.directory}; create it, or name another"
            )
        self.build = None if build is None else os.path.realpath(build)
        if self.build is not None and _overlap(self.build, self.directory):
            raise StaticFilesError(
                f"static files are built into another directory than that of the files: {self.build} and "
                f"{self.directory} contain one another"
            )
        self.index = index
        self.cache_control = cache_control
        self.immutable = tuple(immutable)
        self.precompressed = precompressed
        self.dotfiles = frozenset(dotfiles)
        self.name_of_route = name
        self.add(Route("/{path:rest}", self.serve, name=name, in_schema=False, marks=[self]))

    def __repr__(self) -> str:
        return f"<StaticFiles {self.directory}>"

    @cached_property
    def manifest(self) -> Manifest:
        """What was built, as it was when it was first asked for.

        Raises:
            StaticFilesError: the manifest cannot be read.
        """
        return Manifest() if self.build is None else Manifest.load(self.build)

    def check(self) -> None:
        """Look whether what was built is there as a whole. Blocks.

        Raises:
            StaticFilesError: it is not.
        """
        if self.build is not None:
            self.manifest.check(self.build)

    async def serve(self, request: Request, path: str) -> Response:
        """Answer a request: the handler of the route.

        Raises:
            HTTPError: 404: there is no such file, or it is not served.
            OSError: a directory on the way cannot be read.
        """
        return await run_sync(self._find, path, request)

    def exists(self, name: str) -> bool:
        """Whether a file of this name is served. Blocks."""
        names = split_path(name, self.dotfiles)
        found = None if names is None else locate(self.directory, names, self.dotfiles)
        return bool(found) and os.path.isfile(os.sep.join((self.directory, *(found or ()))))

    # In a worker thread

    def _find(self, path: str, request: Request) -> Response:
        stored = self.manifest.stored.get(path)
        if stored is not None and self.build is not None:
            return self._built(path, stored, self.build, request)
        wanted = path.removesuffix("/")
        names: tuple[str, ...] | None = () if not wanted else split_path(wanted, self.dotfiles)
        found = None if names is None else locate(self.directory, names, self.dotfiles)
        if found is None:
            raise _missing(path)
        typed_by = wanted
        status = self._status(path, found)
        if stat.S_ISDIR(status.st_mode):
            within = locate(self.directory, (*found, INDEX), self.dotfiles) if self.index else None
            if within is None:
                raise _missing(path)
            if wanted == path and wanted:
                return _to_directory(wanted, request)
            found, typed_by = within, INDEX
            status = self._status(path, found)
        elif wanted != path:
            raise _missing(path)
        kept = any(fnmatchcase(path, pattern) for pattern in self.immutable)
        available = self._siblings(found, status) if self.precompressed else []
        return _response(
            self.directory,
            found,
            available,
            request,
            typed_by=typed_by,
            cache_control=IMMUTABLE if kept else self.cache_control,
        )

    def _built(self, path: str, stored: StoredFile, build: str, request: Request) -> Response:
        names = split_path(path, self.dotfiles)
        found = None if names is None else locate(build, names, self.dotfiles)
        if not found:
            raise _missing(path)
        available = [coding for coding in SUFFIXES if coding in stored.encodings]
        return _response(
            build, found, available, request, typed_by=path, cache_control=IMMUTABLE, tag=stored.sha256[:32]
        )

    def _status(self, path: str, found: Sequence[str]) -> os.stat_result:
        try:
            return os.stat(os.sep.join((self.directory, *found)))
        except FileNotFoundError:
            # It was there a moment ago.
            raise _missing(path) from None

    def _siblings(self, found: Sequence[str], status: os.stat_result) -> list[str]:
        """The codings in which a file lies beside itself. One that is older than the file is what it was before."""
        if not stat.S_ISREG(status.st_mode):
            return []
        path = os.sep.join((self.directory, *found))
        available = []
        for coding, suffix in SUFFIXES.items():
            try:
                other = os.lstat(path + suffix)
            except OSError:
                continue
            if stat.S_ISREG(other.st_mode) and other.st_mtime_ns >= status.st_mtime_ns:
                available.append(coding)
        return available


def _overlap(one: str, other: str) -> bool:
    return PurePath(one).is_relative_to(other) or PurePath(other).is_relative_to(one)


def _missing(path: str) -> HTTPError:
    return HTTPError(404, f"there is no file {path!r} here")


def _to_directory(path: str, request: Request) -> Response:
    # Relative to what the client asked for, so that it leads to this server wherever the application is mounted.
    target = "./" + quote(path.rpartition("/")[2], safe="") + "/"
    query = request.scope.get("query_string", b"").decode("latin-1")
    if query:
        target += "?" + quote(query, safe="%/:@!$&'()*+,;=~-._?")
    return Response(status=308, headers={"location": target})


def _response(
    directory: str,
    names: Sequence[str],
    available: Sequence[str],
    request: Request,
    *,
    typed_by: str,
    cache_control: str,
    tag: str = "",
) -> Response:
    """The response with a file, in one of the codings in which it is there.

    Args:
        typed_by: the name that its type is guessed from: the one asked for, not that which a link leads to.
        tag: the entity tag, without quotes, of the file itself; by default what `FileResponse` gives.
    """
    coding = None
    if available:
        from covet.negotiation import accepted_coding

        coding = accepted_coding(request.headers.get("accept-encoding"), available)
    path = os.sep.join((directory, *names))
    suffix = "" if coding is None else SUFFIXES[coding]
    opened = (*names[:-1], names[-1] + suffix)

    def opener(path: str, flags: int) -> int:
        return open_beneath(directory, opened, flags)

    response = FileResponse(typed_by, opener=opener)
    response.path = path + suffix
    headers = response.headers
    if cache_control:
        headers["cache-control"] = cache_control
    if available:
        headers.add_vary("Accept-Encoding")
    if coding is not None:
        headers["content-encoding"] = coding
    if tag:
        headers["etag"] = f'"{tag}"' if coding is None else f'"{tag}-{coding}"'
    return response
