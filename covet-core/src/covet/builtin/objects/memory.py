"""The object store `memory`."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import anyio.lowlevel

from covet.objects import (
    ObjectConflict,
    ObjectInfo,
    ObjectNotFound,
    ObjectPage,
    ObjectStoreFull,
    check_key,
    check_metadata,
    check_range,
    chunks_of,
)

__all__ = ["MemoryReader", "MemoryStore"]

CHUNK = 2**18


class MemoryReader:
    """Reads an object of a `MemoryStore`."""

    def __init__(self, info: ObjectInfo, data: memoryview) -> None:
        self.info = info
        self._data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._data:
            raise StopAsyncIteration
        await anyio.lowlevel.checkpoint()
        chunk, self._data = self._data[:CHUNK], self._data[CHUNK:]
        return bytes(chunk)

    async def read(self) -> bytes:
        """All that is left."""
        return b"".join([chunk async for chunk in self])


class MemoryStore:
    """Objects in memory.

    Args:
        max_bytes: bytes of all objects together.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._objects: dict[str, tuple[ObjectInfo, bytes]] = {}
        self._bytes = 0

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
        check_key(key)
        kept = check_metadata(content_type, metadata)
        await anyio.lowlevel.checkpoint()
        content = bytearray()
        async with aclosing(chunks_of(data)) as chunks:
            async for chunk in chunks:
                if len(content) + len(chunk) > self._max_bytes:
                    raise ObjectStoreFull(f"{key!r} does not fit: the store holds {self._max_bytes} bytes")
                content += chunk
        before = self._objects.get(key)
        check_conditions(key, None if before is None else before[0].etag, if_absent, if_match)
        size = self._bytes + len(content) - (0 if before is None else before[0].size)
        if size > self._max_bytes:
            raise ObjectStoreFull(f"{key!r} does not fit: the store holds {self._max_bytes} bytes")
        info = ObjectInfo(
            key=key,
            size=len(content),
            etag=hashlib.blake2b(content, digest_size=16).hexdigest(),
            content_type=content_type,
            modified=datetime.now(UTC),
            metadata=kept,
        )
        self._objects[key] = info, bytes(content)
        self._bytes = size
        return info

    @asynccontextmanager
    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[MemoryReader]:
        """Read an object. See `covet.objects.ObjectStore.get`."""
        await anyio.lowlevel.checkpoint()
        info, content = self._find(key)
        count = check_range(offset, length, info.size, key)
        yield MemoryReader(info, memoryview(content)[offset : offset + count])

    async def head(self, key: str) -> ObjectInfo:
        """What is known about an object. See `covet.objects.ObjectStore.head`."""
        await anyio.lowlevel.checkpoint()
        return self._find(key)[0]

    async def delete(self, key: str) -> None:
        """Remove an object. See `covet.objects.ObjectStore.delete`."""
        check_key(key)
        await anyio.lowlevel.checkpoint()
        if (found := self._objects.pop(key, None)) is not None:
            self._bytes -= found[0].size

    async def list(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> ObjectPage:
        """A page of the objects whose keys begin with a prefix. See `covet.objects.ObjectStore.list`."""
        if limit < 1:
            raise ValueError(f"limit is a number of objects from 1, not {limit}")
        await anyio.lowlevel.checkpoint()
        keys = sorted((key for key in self._objects if key.startswith(prefix)), key=str.encode)
        begin = 0 if after is None else bisect_right(keys, after.encode(), key=str.encode)
        page = [self._objects[key][0] for key in keys[begin : begin + limit]]
        return ObjectPage(page, page[-1].key if begin + limit < len(keys) else None)

    def _find(self, key: str) -> tuple[ObjectInfo, bytes]:
        check_key(key)
        found = self._objects.get(key)
        if found is None:
            raise ObjectNotFound(f"there is no object {key!r}")
        return found


def check_conditions(key: str, etag: str | None, if_absent: bool, if_match: str | None) -> None:
    """Check the conditions of `put` against the etag of what is there, None for nothing.

    Raises:
        ObjectConflict: one does not hold.
    """
    if if_absent and etag is not None:
        raise ObjectConflict(f"there is an object {key!r} already")
    if if_match is not None and etag != if_match:
        raise ObjectConflict(f"{key!r} is not the version {if_match!r} any more")
