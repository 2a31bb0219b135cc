"""Files as responses: whole, in part, or not at all when the client has them already.

Conditional requests are answered as RFC 9110 section 13 says, range requests as section 14. Everything that touches the
file system happens in worker threads; what is known about a file is asked of the opened file, so that the headers are
those of the bytes that are sent.
"""

from __future__ import annotations

import errno
import io
import logging
import mimetypes
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from hashlib import blake2b
from pathlib import PurePath
from threading import Lock
from typing import Any, Literal
from urllib.parse import quote

from anyio.to_thread import run_sync

from covet.datastructures import Headers
from covet.exceptions import CovetError, HTTPError
from covet.responses import HeaderSource, Response, ResponseHeaders
from covet.streaming import while_connected

__all__ = ["CHUNK", "FileResponse", "any_tag", "content_disposition", "parse_range"]

logger = logging.getLogger("covet.files")

CHUNK = 256 * 1024
"""Bytes that are read and sent at a time."""

# A path that names nothing that can be opened: the client asked for something that is not there.
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO})

# What RFC 9110 section 15.4.5 leaves out of a 304, beside what describes the content.
_OF_THE_CONTENT = frozenset({
    b"accept-ranges", b"content-disposition", b"content-encoding", b"content-language", b"content-length",
    b"content-range", b"content-type", b"etag", b"last-modified",
})  # fmt: skip

_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}

_PATHSEND = "http.response.pathsend"


class FileResponse(Response):
    """A file.

    The file is opened when the response is sent, and closed whatever happens. One that is not there by then, or is no
    regular file (a directory, a pipe, a device), is answered with 404; one that cannot be opened for another reason
    with 500. A file that becomes shorter while it is sent breaks the connection off, so that the client does not take
    the part for the whole.

    With status 200, GET and HEAD requests may be conditional: `If-Match` and `If-Unmodified-Since` are answered with
    412, `If-None-Match` and `If-Modified-Since` with 304. A GET may ask for a range, with `If-Range` for one of the
    same version, and gets it with 206, or 416 where the file does not reach that far. Several ranges in one request
    are refused with 416, whatever they are: RFC 9110 section 14.2 allows that, and a client asks for one after the
    other. A malformed range is ignored, as that section allows too.

    The `ETag` is strong: a hash of inode, modification time in nanoseconds and size. It tells versions apart that
    replace the file, or that are written further apart than the file system's clock ticks (some milliseconds). It
    differs between machines; those that share the work should set a header `etag` of their own, by which requests are
    then judged. The same goes for `last-modified`.

    Args:
        path: the file. Never join what a client sent to a directory without checking where the result leads.
        status: the HTTP status code; with another than 200 the file is always sent whole.
        headers: as for `Response`.
        content_type: without one, what `mimetypes` guesses from `filename` or the path, text being UTF-8.
        filename: the name under which a browser stores the file; any text.
        disposition: `attachment` makes a browser store the file, `inline` show it; by default `attachment` when
            there is a `filename`.
        pathsend: let the server read a large file itself where it can (ASGI extension `http.response.pathsend`).
            Faster, for files that stay as they are: the server opens the path at some time after this response is
            done, so a file that was replaced by then arrives with the headers of the old one, and one that was
            removed, by `request.after` for example, not at all.
        opener: opens the file, in a worker thread: takes the path and the flags of `os.open`, and returns a file
            descriptor. For files that must be found in a way of their own. With one, `pathsend` changes nothing.

    `body` stays empty: middleware that changes contents leaves a file as it is. A response may be returned many times.
    """

    __slots__ = ("opener", "path", "pathsend")

    deferred = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        status: int = 200,
        headers: HeaderSource | None = None,
        content_type: str | None = None,
        *,
        filename: str | None = None,
        disposition: Literal["attachment", "inline"] | None = None,
        pathsend: bool = False,
        opener: Callable[[str, int], int] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.pathsend = pathsend and opener is None
        self.opener = opener
        super().__init__(b"", status, headers, content_type)
        if "content-type" not in self.headers:
            self.headers.add("content-type", _guess_type(filename or self.path))
        if (filename is not None or disposition is not None) and "content-disposition" not in self.headers:
            self.headers.add("content-disposition", content_disposition(filename, disposition or "attachment"))

    def __repr__(self) -> str:
        return f"<FileResponse {self.path!r}>"

    async def resolve(self, scope: Any) -> Response:
        """Open the file and decide what a request gets: the file, a part of it, or 304.

        Raises:
            HTTPError: 404: there is no such file; 412: the request is for another version of it; 416: for a part that
                it does not have, or for several.
            OSError: it cannot be opened, or read.
        """
        file = _File(self.path, self.opener or _open_without_waiting)
        try:
            return await run_sync(self._resolve, file, scope)
        except BaseException:
            file.close()
            raise

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send what the request gets.

        Raises:
            HTTPError, OSError: as `resolve`; nothing has been sent then.
            ClientDisconnected: the client has left.
            CovetError: the file became shorter while it was sent.
        """
        response = await self.resolve(scope)
        await response(scope, receive, send)

    def _resolve(self, file: _File, scope: Any) -> Response:
        found = file.open()
        headers = ResponseHeaders()
        headers.raw[:] = self.headers.raw
        size = found.st_size
        part = None
        if self.status == 200:
            headers.setdefault("etag", _etag(found))
            # Section 8.8.2.1: not later than the response itself.
            modified = max(0, min(found.st_mtime_ns // 10**9, int(time.time())))
            headers.setdefault("last-modified", formatdate(modified, usegmt=True))
            if scope["method"] in ("GET", "HEAD"):
                headers["accept-ranges"] = "bytes"
                asked = Headers(scope["headers"])
                if _unchanged(asked, headers):
                    file.close()
                    return _not_modified(headers)
                if scope["method"] == "GET" and "range" in asked and _same_version(asked.get("if-range"), headers):
                    part = parse_range(asked["range"], size)
        start, length = (0, size) if part is None else (part.start, len(part))
        status = self.status
        if part is not None:
            status = 206
            headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        headers["content-length"] = str(length)
        if scope["method"] == "HEAD" or length <= CHUNK:
            content = b"" if scope["method"] == "HEAD" else file.read_all(start, length)
            file.close()
            return _with_headers(Response(content, status), headers)
        if self.pathsend and part is None and _PATHSEND in (scope.get("extensions") or ()) and _is_text(self.path):
            file.close()
            return _with_headers(_PathResponse(os.path.abspath(self.path), status), headers)
        return _with_headers(_ContentResponse(file, start, length, status), headers)


class _File:
    """A file that is read in worker threads and closed from the event loop, which never waits for a thread.

    A cancelled task may be gone while its thread still opens or reads. Then the thread closes the file.
    """

    def __init__(self, path: str, opener: Callable[[str, int], int]) -> None:
        self.path = path
        self._opener = opener
        self._raw: io.FileIO | None = None
        self._lock = Lock()
        self._closing = False

    def open(self) -> os.stat_result:
        """Open it, and say what it is.

        Raises:
            HTTPError: 404: there is no regular file.
            OSError: it cannot be opened.
        """
        try:
            with self._lock:
                self._raw = io.FileIO(self.path, "rb", opener=self._opener)
                found = os.fstat(self._raw.fileno())
        except (OSError, ValueError) as error:
            # ValueError: a NUL, or a character that no file name has.
            if isinstance(error, OSError) and error.errno not in _MISSING:
                raise
            raise self._missing(str(error)) from error
        finally:
            if self._closing:
                self.close()
        if not stat.S_ISREG(found.st_mode):
            raise self._missing("it is no regular file")
        return found

    def _missing(self, why: str) -> HTTPError:
        # Only the log has the path, and the reason: what the server's disk looks like is nobody else's business.
        logger.info("no file to send at %r: %s", self.path, why)
        return HTTPError(404, "the file is not there")

    def read(self, position: int, length: int) -> bytes:
        """Read up to `length` bytes from `position` on.

        Raises:
            OSError: the device cannot.
            CovetError: the file ends before `position`, or was closed.
        """
        try:
            with self._lock:
                if self._raw is None:
                    raise CovetError(f"{self.path!r} was closed while it was read")
                self._raw.seek(position)
                data = self._raw.read(length)
        finally:
            if self._closing:
                self.close()
        if not data:
            raise CovetError(f"{self.path!r} became shorter while it was sent: it ends before byte {position}")
        return data

    def read_all(self, position: int, length: int) -> bytes:
        """Read `length` bytes from `position` on; raises what `read` raises."""
        pieces = []
        while length:
            pieces.append(self.read(position, length))
            position += len(pieces[-1])
            length -= len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        """Close it as soon as no thread uses it. Idempotent."""
        self._closing = True
        if self._lock.acquire(blocking=False):
            try:
                if self._raw is not None:
                    self._raw.close()
                    self._raw = None
            finally:
                self._lock.release()


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would wait for a writer, and opening a terminal could make it the process's own.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


class _ContentResponse(Response):
    """A part of an open file, or all of it. Closes the file."""

    __slots__ = ("file", "length", "start")

    def __init__(self, file: _File, start: int, length: int, status: int) -> None:
        super().__init__(b"", status)
        self.file, self.start, self.length = file, start, length

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_all() -> None:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers.raw})
            position, end = self.start, self.start + self.length
            while position < end:
                data = await run_sync(self.file.read, position, min(CHUNK, end - position))
                position += len(data)
                await send({"type": "http.response.body", "body": data, "more_body": True})

        try:
            await while_connected(receive, send_all)
            # Not in there: servers tell of a disconnect as soon as a response is complete.
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.file.close()


class _PathResponse(Response):
    """A file that the server opens and sends itself."""

    __slots__ = ("path",)

    opaque = True

    def __init__(self, path: str, status: int) -> None:
        super().__init__(b"", status)
        self.path = path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers.raw})
        await send({"type": _PATHSEND, "path": self.path})


def _is_text(path: str) -> bool:
    # A name that is no UTF-8 has surrogates in Python, and cannot be handed to a server.
    return not any("\ud800" <= c <= "\udfff" for c in path)


def _with_headers(response: Response, headers: ResponseHeaders) -> Response:
    response.headers = headers
    return response


def _not_modified(headers: ResponseHeaders) -> Response:
    response = Response(status=304)
    response.headers.raw[:] = [
        (name, value) for name, value in headers.raw if name == b"etag" or name not in _OF_THE_CONTENT
    ]
    return response


def carry_over(headers: ResponseHeaders, error: Response) -> None:
    """Give an error that takes the place of a file's response what was set on that, by middleware for example.

    Without its CORS headers, a page could not even see the error.
    """
    there = {name for name, _ in error.headers.raw}
    error.headers.raw += [
        (name, value) for name, value in headers.raw if name not in there and name not in _OF_THE_CONTENT
    ]


# Ranges

_RANGE = re.compile(r"([0-9]{0,20})-([0-9]{0,20})")


def parse_range(value: str, size: int) -> range | None:
    """What part of `size` bytes a `Range` header asks for (RFC 9110 section 14.1.2), or None to send them all.

    The work is bounded: several ranges are refused unread, and a position has at most 20 digits.

    Returns:
        The positions of the bytes, at least one; None when the header is malformed, is in another unit than bytes, or
        asks for the end of what is empty, which no `Content-Range` can express.

    Raises:
        HTTPError: 416: the range lies beyond the end, or there are several.
    """
    unit, _, ranges = value.partition("=")
    if unit.lower() != "bytes":
        return None
    if "," in ranges:
        raise _unsatisfiable("one range can be asked for in a request, not several", size)
    match = _RANGE.fullmatch(ranges)
    if match is None or ranges == "-":
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        if not int(last):
            raise _unsatisfiable("the last 0 bytes are no range", size)
        return range(size - length, size) if size else None
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise _unsatisfiable(f"the range begins at byte {start}, and there are {size}", size)
    return range(start, min(int(last) + 1, size) if last else size)


def _unsatisfiable(detail: str, size: int) -> HTTPError:
    return HTTPError(416, detail, headers={"content-range": f"bytes */{size}", "accept-ranges": "bytes"})


# Conditions

_TAG = re.compile(r'[ \t,]*((?:W/)?"[^"\x00-\x20\x7f]*")')
_MAX_TAGS = 64


def _unchanged(asked: Headers, have: ResponseHeaders) -> bool:
    """Whether a GET or HEAD request is for another version than the one it has, in the order of section 13.2.2.

    Raises:
        HTTPError: 412: it is for one version only, and that is another.
    """
    if "if-match" in asked:
        if not any_tag(asked["if-match"], have["etag"], weak=False):
            raise HTTPError(412, "the file is of another version than `If-Match` asks for")
    elif "if-unmodified-since" in asked:
        since, modified = _seconds(asked["if-unmodified-since"]), _seconds(have["last-modified"])
        if since is not None and modified is not None and modified > since:
            raise HTTPError(412, "the file was modified after `If-Unmodified-Since`")
    if "if-none-match" in asked:
        return any_tag(asked["if-none-match"], have["etag"], weak=True)
    if "if-modified-since" in asked:
        since, modified = _seconds(asked["if-modified-since"]), _seconds(have["last-modified"])
        return since is not None and modified is not None and modified <= since
    return False


def _same_version(condition: str | None, have: ResponseHeaders) -> bool:
    """Whether `If-Range` lets a range be sent (section 13.1.5): never by a weak validator."""
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition == have["etag"] and not condition.startswith("W/")
    since = _seconds(condition)
    # A file modified within this second may be modified in it again.
    return since is not None and since == _seconds(have["last-modified"]) and since < int(time.time())


def any_tag(value: str, tag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags, or `*`, matches; beyond 64 tags nothing does."""
    if value.strip() == "*":
        return True
    if weak:
        return any(other.removeprefix("W/") == tag.removeprefix("W/") for other in _tags(value))
    return not tag.startswith("W/") and any(other == tag for other in _tags(value))


def _tags(value: str) -> Iterator[str]:
    position = 0
    for _ in range(_MAX_TAGS):
        match = _TAG.match(value, position)
        if match is None:
            return
        yield match[1]
        position = match.end()


def _seconds(date: str) -> float | None:
    """An HTTP date as seconds since 1970, or None for what is none."""
    if len(date) > 64:
        return None
    try:
        moment = parsedate_to_datetime(date)
        # The form of asctime() names no zone, and is in UTC as the others.
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _etag(found: os.stat_result) -> str:
    # Hashed, as an inode number is nobody else's business.
    version = f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"
    return f'"{blake2b(version.encode(), digest_size=12).hexdigest()}"'


# Names


def _guess_type(name: str) -> str:
    # Only the endings: mimetypes would take a name with a colon for a URL.
    endings: Sequence[str] = PurePath(name.replace(":", "_").replace("\0", "_")).suffixes[-2:]
    kind, encoding = mimetypes.guess_type("file" + "".join(endings))
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind == "application/javascript" else kind


def content_disposition(filename: str | None, disposition: Literal["attachment", "inline"] = "attachment") -> str:
    """The value of a `Content-Disposition` header (RFC 6266), for a file name of any characters.

    Old clients get a name in ASCII, others the whole one, in UTF-8 as RFC 8187 encodes it. Control characters become
    underscores; a client keeps what stands after the last slash or backslash (section 4.3), so they do as well.

    Raises:
        ValueError: `disposition` is neither `attachment` nor `inline`.
    """
    if disposition not in ("attachment", "inline"):
        raise ValueError(f"disposition is 'attachment' or 'inline', not {disposition!r}")
    if filename is None:
        return disposition
    name = "".join("_" if ord(c) < 32 or 127 <= ord(c) < 160 or c in "/\\" else c for c in filename)
    # Some clients decode a percent sign even in the plain form (RFC 6266, appendix D).
    plain = "".join(c if " " <= c <= "~" and c not in '"%' else "_" for c in name)
    if plain == name:
        return f'{disposition}; filename="{plain}"'
    return f"{disposition}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='!#$&+^`|', errors='replace')}"
