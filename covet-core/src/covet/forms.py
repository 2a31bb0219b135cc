"""Forms: `application/x-www-form-urlencoded` and `multipart/form-data` (RFC 7578), with files spooled to disk.

python-multipart splits the multipart body; what its parts mean and how much of everything is accepted is decided here.
"""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from covet.datastructures import FormData, parse_fields, strict_text
from covet.exceptions import HTTPError
from covet.requests import content_type, read_body

if TYPE_CHECKING:
    import os

    from covet.requests import Request
    from covet.settings_sections import Limits

__all__ = ["FormData", "UploadFile", "read_form"]

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
# RFC 2046 section 5.1.1
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
# A quoted string, or the rest where none ends: so that every quote is looked at once.
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
# RFC 9110 section 8.3.1
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
# RFC 7578 section 4.7 deprecates Content-Transfer-Encoding; these three change nothing.
_PLAIN_ENCODINGS = (b"", b"7bit", b"8bit", b"binary")
_CHUNK = 1024 * 1024


class UploadFile:
    """A file of a form.

    It is in memory up to `spool_bytes`, on disk above, without a name there. It is closed, and thereby deleted, when
    the last reference to it goes, so that background work may still read it.

    Attributes:
        filename: the name that the client gave, without folders or control characters. Somebody else chose it: show
            it, but never make a path of it.
        content_type: what the client says it is, in lower case without parameters; empty when it says nothing that
            is a media type.
        size: how many bytes it has.
        file: the file itself, open for reading and writing, for code that is not asynchronous.
    """

    __slots__ = ("_on_disk", "content_type", "file", "filename", "size")

    def __init__(
        self, filename: str, file: IO[bytes], content_type: str = "", size: int = 0, *, on_disk: bool = False
    ) -> None:
        self.filename = filename
        self.file = file
        self.content_type = content_type
        self.size = size
        self._on_disk = on_disk

    async def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, or all that are left; empty at the end.

        A read from disk runs in a worker thread; cancellation waits for it.

        Raises:
            ValueError: the file is closed.
        """
        if not self._on_disk:
            return self.file.read(size)
        from anyio import to_thread

        return await to_thread.run_sync(self.file.read, size)

    async def seek(self, offset: int) -> None:
        """Go on reading `offset` bytes after the beginning.

        Raises:
            ValueError: the file is closed, or `offset` negative.
        """
        # Seeking touches no disk: the next read does.
        self.file.seek(offset)

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole file to `path`, in place of what is there. Do not make `path` of `filename`.

        Runs in a worker thread; cancellation waits until it is written.

        Raises:
            OSError: `path` cannot be written.
            ValueError: the file is closed.
        """
        from anyio import to_thread

        await to_thread.run_sync(self._save, path)

    def _save(self, path: str | os.PathLike[str]) -> None:
        from shutil import copyfileobj

        with open(path, "wb") as target:
            position = self.file.tell()
            self.file.seek(0)
            try:
                copyfileobj(self.file, target, _CHUNK)
            finally:
                self.file.seek(position)

    async def close(self) -> None:
        """Close the file, which deletes it. Closing it again does nothing."""
        self.file.close()

    def __del__(self) -> None:
        self.file.close()

    def __repr__(self) -> str:
        return f"<UploadFile {self.filename!r} {self.size} bytes>"


async def read_form(request: Request) -> FormData:
    """Read and parse a request's form; see `Request.form`."""
    sent = content_type(request)
    if sent == URLENCODED:
        limits = request.limits
        data = await read_body(request)
        return FormData(parse_fields(data, "form", limits.max_form_fields, limits.max_field_bytes))
    if sent == MULTIPART:
        return await _read_multipart(request)
    what = f"not {sent!r}" if sent else "and the request does not say what it sends"
    raise HTTPError(415, f"this takes a form, as `{MULTIPART}` or `{URLENCODED}`, {what}")


async def _read_multipart(request: Request) -> FormData:
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser

    limits = request.limits
    parts = _Parts(limits)
    parser = MultipartParser(
        _boundary(request),
        {
            "on_part_begin": parts.begin,
            "on_header_field": parts.header_name,
            "on_header_value": parts.header_value,
            "on_header_end": parts.header_end,
            "on_headers_finished": parts.headers_end,
            "on_part_data": parts.data,
            "on_part_end": parts.end,
            "on_end": parts.finish,
        },
    )
    try:
        async for chunk in request.stream(limits.max_form_bytes):
            try:
                parser.write(chunk)
            except MultipartParseError as error:
                raise HTTPError(400, f"the form is not multipart/form-data: {error}") from None
            await parts.flush()
        if not parts.finished:
            raise HTTPError(400, "the form ends before its last boundary")
    except BaseException:
        parts.close()
        raise
    return FormData(parts.members)


def _options(value: bytes, what: str) -> tuple[bytes, dict[bytes, bytes]]:
    """A header's value and its parameters.

    Raises:
        HTTPError: 400: a parameter stands twice. Which of them counts is what a filter in front of the application and
            the application itself may see differently.
    """
    from python_multipart.multipart import parse_options_header

    parameters = [part.strip(b" \t") for part in _QUOTED.sub(b"", value).split(b";")[1:]]
    names = [part.partition(b"=")[0].rstrip(b" \t").lower() for part in parameters if part]
    if len(names) != len(set(names)):
        raise HTTPError(400, f"a parameter of the {what} stands twice")
    return parse_options_header(value)


def _boundary(request: Request) -> bytes:
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            boundary = _options(value, "Content-Type of the form")[1].get(b"boundary", b"")
            if _BOUNDARY.fullmatch(boundary):
                return boundary
    raise HTTPError(400, "the Content-Type of the form has no boundary of 1 to 70 permitted characters")


class _Spool:
    """The content of one file while it arrives."""

    __slots__ = ("chunks", "complete", "file", "on_disk", "size")

    def __init__(self) -> None:
        from tempfile import SpooledTemporaryFile

        # Without a size it goes to disk only when told, so that the disk is never touched outside a worker thread.
        self.file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile()  # noqa: SIM115 - closed by UploadFile
        self.chunks: list[bytes] = []
        self.size = 0
        self.on_disk = False
        self.complete = False

    async def flush(self, memory: int) -> None:
        """Write what has come; to disk if that makes more than `memory` bytes in all."""
        if self.on_disk or self.size > memory:
            from anyio import to_thread

            await to_thread.run_sync(self._flush_to_disk)
        else:
            self._write()

    def _flush_to_disk(self) -> None:
        if not self.on_disk:
            self.file.rollover()
            self.on_disk = True
        self._write()

    def _write(self) -> None:
        for chunk in self.chunks:
            self.file.write(chunk)
        self.chunks.clear()
        if self.complete:
            self.file.seek(0)


class _Parts:
    """Takes the events of the multipart parser and makes the members of the form.

    The parser's callbacks cannot wait, so they only note what to write; `flush` writes it.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.members: dict[str, list[str | UploadFile]] = {}
        self.finished = False
        self.fields = 0
        self.files = 0
        # Files go to disk, text stays in memory: so it has the bound of what else does.
        self.text_bytes = 0
        self.spools: list[_Spool] = []
        self.unwritten: list[_Spool] = []

    def begin(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.name = ""
        self.filename: str | None = None
        self.content = bytearray()
        self.size = 0
        self.header = b""
        self.value = b""

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        name = self.header.lower()
        if name in self.headers:
            raise HTTPError(400, "a header of a part of the form stands twice")
        self.headers[name] = self.value
        self.header = self.value = b""

    def headers_end(self) -> None:
        disposition, options = _options(self.headers.get(b"content-disposition", b""), "Content-Disposition of a part")
        if disposition != b"form-data" or b"name" not in options:
            raise HTTPError(400, "a part of the form has no Content-Disposition of `form-data` with a name")
        if self.headers.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN_ENCODINGS:
            raise HTTPError(400, "a part of the form has a Content-Transfer-Encoding, which RFC 7578 deprecates")
        self.name = strict_text(options[b"name"], "form")
        if b"filename" in options:
            self.filename = _harmless(strict_text(options[b"filename"], "form"))
            self.files += 1
            if self.files > self.limits.max_files:
                raise HTTPError(400, f"the form has more than {self.limits.max_files} files")
            self.spools.append(_Spool())
        else:
            self.fields += 1
            if self.fields > self.limits.max_form_fields:
                raise HTTPError(400, f"the form has more than {self.limits.max_form_fields} fields")

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.filename is None:
            self.size += end - start
            if self.size > self.limits.max_field_bytes:
                raise HTTPError(413, f"a field of the form is larger than {self.limits.max_field_bytes} bytes")
            self.text_bytes += end - start
            if self.text_bytes > self.limits.max_body:
                raise HTTPError(413, f"the fields of the form are larger than {self.limits.max_body} bytes together")
            self.content += data[start:end]
            return
        spool = self.spools[-1]
        spool.size += end - start
        if spool.size > self.limits.max_file_bytes:
            raise HTTPError(413, f"a file of the form is larger than {self.limits.max_file_bytes} bytes")
        if not spool.chunks:
            self.unwritten.append(spool)
        spool.chunks.append(data[start:end])

    def end(self) -> None:
        if self.filename is None:
            self.add(strict_text(bytes(self.content), "form"))
            return
        spool = self.spools[-1]
        spool.complete = True
        if not self.filename and not spool.size:
            # What browsers send for a file input in which nothing was chosen.
            spool.file.close()
            return
        if not spool.chunks:
            self.unwritten.append(spool)
        media_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip(b" \t").lower().decode("latin-1")
        if _MEDIA_TYPE.fullmatch(media_type) is None:
            media_type = ""
        on_disk = spool.size > self.limits.spool_bytes
        self.add(UploadFile(self.filename, spool.file, media_type, spool.size, on_disk=on_disk))

    def finish(self) -> None:
        self.finished = True

    def add(self, value: str | UploadFile) -> None:
        self.members.setdefault(self.name, []).append(value)

    async def flush(self) -> None:
        while self.unwritten:
            await self.unwritten.pop(0).flush(self.limits.spool_bytes)

    def close(self) -> None:
        for spool in self.spools:
            spool.file.close()


def _harmless(filename: str) -> str:
    """The last component of a path, of either kind, without characters that do not print."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(character for character in name if character.isprintable()).strip()
    return "" if name in (".", "..") else name
