"""The object store `file`: a directory, which several processes may share.

An object is one file: its content, then a trailer that says what is known about it. It is written under a name of its
own in `=new`, brought to the disk, and renamed into place under a lock, so that there is never half an object. What
a killed process has left in `=new` is removed by the next one that puts.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Any, BinaryIO, TypeVar

import anyio
import anyio.to_thread
import msgspec

from covet.builtin.objects.memory import check_conditions
from covet.builtin.objects.paths import from_parts, to_parts
from covet.objects import (
    ObjectCorrupt,
    ObjectInfo,
    ObjectNotFound,
    ObjectPage,
    ObjectStoreError,
    ObjectStoreFull,
    check_key,
    check_metadata,
    check_range,
    chunks_of,
)

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has none, and processes there must not share a directory
    fcntl = None  # type: ignore[assignment]

__all__ = ["FileReader", "FileStore"]

T = TypeVar("T")

CHUNK = 2**18
# How much is gathered before it is handed to a thread to be written.
WRITE = 2**20
# Seconds after which an empty file without a lock is a leftover, too.
GRACE = 3600.0
NEW = "=new"
LOCK = "=lock"
MAGIC = b"covet object v1\n"
LENGTH = struct.Struct(">I")
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FileReader:
    """Reads an object of a `FileStore`."""

    def __init__(self, info: ObjectInfo, file: BinaryIO, count: int) -> None:
        self.info = info
        self._file = file
        self._left = count

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        chunk = await anyio.to_thread.run_sync(self._file.read, min(CHUNK, self._left))
        if not chunk:
            raise ObjectCorrupt(f"the file of {self.info.key!r} ends before the object does")
        self._left -= len(chunk)
        return chunk

    async def read(self) -> bytes:
        """All that is left."""
        return b"".join([chunk async for chunk in self])


class FileStore:
    """Objects in a directory.

    Args:
        path: the directory; it is made when the first object is put.
        fsync: whether an object is on the disk when `put` returns.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = True) -> None:
        self._root = Path(path).absolute()
        self._fsync = fsync
        self._lock = Lock()
        self._cleaned = False

    async def put(
        self,
        key: str,
        data: bytes | AsyncIterable[bytes],
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Store an object. See `covet.objects.ObjectStore.put`."""
        parts = to_parts(check_key(key))
        kept = check_metadata(content_type, metadata)
        writing = _Writing(self._root / NEW / token_hex(16))
        try:
            await _in_thread(key, self._begin, writing)
            gathered = bytearray()
            async with aclosing(chunks_of(data)) as chunks:
                async for chunk in chunks:
                    for begin in range(0, len(chunk), WRITE):
                        gathered += chunk[begin : begin + WRITE]
                        if len(gathered) >= WRITE:
                            await _in_thread(key, writing.write, bytes(gathered))
                            gathered.clear()
            if gathered:
                await _in_thread(key, writing.write, bytes(gathered))
            info = ObjectInfo(
                key=key,
                size=writing.size,
                etag=writing.digest.hexdigest(),
                content_type=content_type,
                modified=datetime.now(UTC),
                metadata=kept,
            )
            await _in_thread(key, self._finish, writing, parts, info, if_absent, if_match)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writing.discard)
        return info

    @asynccontextmanager
    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[FileReader]:
        """Read an object. See `covet.objects.ObjectStore.get`."""
        path = self._path(key)
        opened: list[BinaryIO] = []
        try:
            info = await _in_thread(key, _open, path, key, opened)
            count = check_range(offset, length, info.size, key)
            await _in_thread(key, opened[0].seek, offset)
            yield FileReader(info, opened[0], count)
        finally:
            with anyio.CancelScope(shield=True):
                for file in opened:
                    await anyio.to_thread.run_sync(file.close)

    async def head(self, key: str) -> ObjectInfo:
        """What is known about an object. See `covet.objects.ObjectStore.head`."""
        return await _in_thread(key, _head, self._path(key), key)

    async def delete(self, key: str) -> None:
        """Remove an object. See `covet.objects.ObjectStore.delete`."""
        await _in_thread(key, self._delete, to_parts(check_key(key)))

    async def list(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> ObjectPage:
        """A page of the objects whose keys begin with a prefix. See `covet.objects.ObjectStore.list`."""
        if limit < 1:
            raise ValueError(f"limit is a number of objects from 1, not {limit}")
        behind = b"" if after is None else after.encode("utf-8", "surrogatepass")
        found = await _in_thread(prefix, self._list, prefix.encode("utf-8", "surrogatepass"), behind, limit + 1)
        page = found[:limit]
        return ObjectPage([*page], page[-1].key if len(found) > limit else None)

    # In a worker thread

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*to_parts(check_key(key)))

    def _begin(self, writing: _Writing) -> None:
        writing.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._cleaned:
            self._cleaned = True
            _clean(writing.path.parent)
        writing.open()

    def _finish(
        self, writing: _Writing, parts: tuple[str, ...], info: ObjectInfo, if_absent: bool, if_match: str | None
    ) -> None:
        """Bring the object to the disk, then into its place."""
        trailer = msgspec.json.encode(info)
        writing.append(trailer + LENGTH.pack(len(trailer)) + MAGIC)
        writing.flush(self._fsync)
        target = self._root.joinpath(*parts)
        with self._locked():
            if if_absent or if_match is not None:
                try:
                    etag: str | None = _head(target, info.key).etag
                except ObjectNotFound:
                    etag = None
                check_conditions(info.key, etag, if_absent, if_match)
            made = self._make_directories(target.parent)
            os.replace(writing.path, target)
            if self._fsync:
                for directory in dict.fromkeys([target.parent, *made]):
                    _sync_directory(directory)

    def _make_directories(self, directory: Path) -> Sequence[Path]:
        """Make what is missing of a path; the directories that got an entry by it."""
        made = []
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            made.append(each.parent)
        return made

    def _delete(self, parts: tuple[str, ...]) -> None:
        path = self._root.joinpath(*parts)
        if not self._root.is_dir():
            return
        with self._locked():
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            if self._fsync:
                _sync_directory(path.parent)
            for directory in list(path.parents)[: len(parts) - 1]:
                try:
                    directory.rmdir()
                except OSError:
                    break  # others are in it

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store for the moment in which an object comes or goes; other processes, too."""
        with self._lock, open(self._root / LOCK, "ab") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _list(self, prefix: bytes, after: bytes, limit: int) -> Sequence[ObjectInfo]:
        found: list[ObjectInfo] = []
        for key, path in self._walk((), prefix, after):
            try:
                found.append(_head(path, key.decode()))
            except ObjectNotFound:
                continue  # it was deleted meanwhile
            if len(found) == limit:
                break
        return found

    def _walk(self, parts: tuple[str, ...], prefix: bytes, after: bytes) -> Iterator[tuple[bytes, Path]]:
        """The keys below a directory, in order, with their paths; only directories that may hold one are read."""
        # Not by recursion: a key may have a thousand slashes.
        stack = [self._entries(parts, prefix, after)]
        while stack:
            group = next(stack[-1], None)
            if group is None:
                stack.pop()
            elif len(group) > 1:
                yield from merge(*(self._walk(below, prefix, after) for _, below in group))
            elif group[0][1][-1].endswith("="):
                yield group[0][0], self._root.joinpath(*group[0][1])
            else:
                stack.append(self._entries(group[0][1], prefix, after))

    def _entries(
        self, parts: tuple[str, ...], prefix: bytes, after: bytes
    ) -> Iterator[Sequence[tuple[bytes, tuple[str, ...]]]]:
        """What is in a directory, in the order of keys: how the keys begin, and the path.

        Those below two directories are mixed only where one begins as the other does; these come together.
        """
        entries = []
        try:
            names = os.listdir(self._root.joinpath(*parts))
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            if not parts and name in (NEW, LOCK):
                continue
            below = (*parts, name)
            begin = from_parts(below)
            if begin is None:
                continue
            if name.endswith("="):
                if begin.startswith(prefix) and begin > after:
                    entries.append((begin, below))
            elif (begin.startswith(prefix) or prefix.startswith(begin)) and (begin > after or after.startswith(begin)):
                entries.append((begin, below))
        entries.sort()
        position = 0
        while position < len(entries):
            begin, below = entries[position]
            group = [entries[position]]
            position += 1
            while not below[-1].endswith("=") and position < len(entries) and entries[position][0].startswith(begin):
                group.append(entries[position])
                position += 1
            yield group


class _Writing:
    """A file that is not an object yet. The lock on it tells that its process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.digest = hashlib.blake2b(digest_size=16)
        self._file: BinaryIO | None = None

    def open(self) -> None:
        self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 - `discard` closes it
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def write(self, data: bytes) -> None:
        self.append(data)
        self.digest.update(data)
        self.size += len(data)

    def append(self, data: bytes) -> None:
        assert self._file is not None
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def flush(self, sync: bool) -> None:
        assert self._file is not None
        if sync:
            os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Close the file, and remove what has not become an object."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()


def _clean(directory: Path) -> None:
    """Remove what killed processes have left: files that nobody holds a lock on."""
    if fcntl is None:
        return
    for path in directory.iterdir():
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between its making and its lock a file is empty; it must not be taken for a leftover then.
                found = os.fstat(file.fileno())
                if found.st_size or time.time() - found.st_mtime > GRACE:
                    path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue


def _open(path: Path, key: str, opened: list[BinaryIO]) -> ObjectInfo:
    """Open an object's file; it is in `opened` also when this raises or nobody waits for it any more."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - whoever asked closes it
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ObjectNotFound(f"there is no object {key!r}") from None
    opened.append(file)
    return _trailer(file, key)


def _head(path: Path, key: str) -> ObjectInfo:
    opened: list[BinaryIO] = []
    try:
        return _open(path, key, opened)
    finally:
        for file in opened:
            file.close()


def _trailer(file: BinaryIO, key: str) -> ObjectInfo:
    """What is known about an object, from the end of its file."""
    end = LENGTH.size + len(MAGIC)
    total = file.seek(0, os.SEEK_END)
    if total >= end:
        file.seek(total - end)
        last = file.read(end)
        (length,) = LENGTH.unpack(last[: LENGTH.size])
        if last.endswith(MAGIC) and total >= end + length:
            file.seek(total - end - length)
            try:
                info = msgspec.json.decode(file.read(length), type=ObjectInfo)
            except ValueError:
                info = None
            if info is not None and info.key == key and info.size == total - end - length:
                return info
    raise ObjectCorrupt(f"the file of {key!r} is not what was put there; restore it, or delete the object")


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _in_thread(key: str, function: Callable[..., T], *args: Any) -> T:
    """Call a function in a worker thread; what the operating system says becomes an error of the store.

    Cancellation waits for the function.
    """
    try:
        return await anyio.to_thread.run_sync(function, *args)
    except OSError as error:
        if error.errno in FULL:
            raise ObjectStoreFull(f"there is no room for {key!r}: {error.strerror}") from error
        raise ObjectStoreError(f"the directory of {key!r} cannot be used: {error.strerror}") from error
